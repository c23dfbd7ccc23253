package store

import (
	"errors"
	"syscall"
	"testing"

	"github.com/bellwire/bellwire/disk"
)

// A disk that is full, or a process that has too many files open, is no damage: nobody is to
// take a backup in place of the state for it.
func TestOpenWithoutRoom(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE} {
		fs := disk.Memory()
		mustClose(t, mustOpen(t, fs, "/a"))
		fs.Intercept(func(op disk.Op, _ string) error {
			if op == disk.OpCreate {
				return errno
			}
			return nil
		})
		if _, err := openAt(fs, "/a"); !errors.Is(err, errno) || errors.Is(err, ErrDamaged) {
			t.Errorf("opened with %v, want %v and no ErrDamaged", err, errno)
		}
		fs.Intercept(nil)
		mustClose(t, mustOpen(t, fs, "/a"))
	}
}
