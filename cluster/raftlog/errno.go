package raftlog

import (
	"errors"
	"syscall"
)

// isDisk says whether err is the operating system's, and not about what the
// files hold. A file that is missing is about what they hold.
func isDisk(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.ENOENT
}
