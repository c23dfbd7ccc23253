package disk

import (
	"errors"
	"syscall"
)

// OfSystem says whether err is the operating system's, such as of a disk that is full or
// fails or of too many open files, and not about what the files hold. A file that is missing
// is about what they hold.
func OfSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.ENOENT
}
