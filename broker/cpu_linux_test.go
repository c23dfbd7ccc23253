package broker

import (
	"syscall"
	"time"
)

// threadTime returns how long the calling thread has had a processor. Of a machine that
// others use it says more than a clock.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
