package main

import (
	"fmt"
	"io"
	"syscall"
)

// What the tests of blackbox take of a disk: each node reserves 140 MiB for its two logs, and
// those that run at once had up to 5.6 GB with eight of them. Below 512 MiB nodes refuse
// durable publishes, as they are to, and tests fail of what is not their subject; beside them
// test binaries are linked.
const (
	ofOneTest = 700 << 20
	ofOthers  = 1 << 30
)

// atOnce is how many tests of blackbox may run at once in dir, at most testsAtOnce, by the room
// that there is; fewer are said on out. Where there is none for one, it is an error.
func atOnce(out io.Writer, dir string) (int, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return testsAtOnce, fmt.Errorf("room in %s: %w", dir, err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	n := testsIn(free)
	if n < 1 {
		return 1, fmt.Errorf("%s has %d MiB free, and tests of blackbox want %d: make room (go clean -cache), or set TMPDIR to where there is some", dir, free>>20, (ofOthers+ofOneTest)>>20)
	}
	if n < testsAtOnce {
		fmt.Fprintf(out, "note: %s has %d MiB free: %d tests of blackbox at once, not %d, which takes longer\n", dir, free>>20, n, testsAtOnce)
	}
	return n, nil
}

// testsIn is how many tests at once there is room for in so many bytes.
func testsIn(free uint64) int {
	if free < ofOthers {
		return 0
	}
	return int(min((free-ofOthers)/ofOneTest, testsAtOnce))
}
