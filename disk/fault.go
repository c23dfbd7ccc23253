package disk

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Fault is a way for a disk to misbehave. Its string is what the test
// endpoint takes.
type Fault string

const (
	// OK ends the fault: what hung goes on.
	OK Fault = "ok"

	// Hang blocks every operation that writes or syncs until another fault is
	// set, as a dead controller or a lost network disk does. Reads go on.
	Hang Fault = "hang"

	// Sluggish lets every sync take SluggishSync, as a disk does that others keep
	// busy: it works.
	Sluggish Fault = "slow"

	// EIO fails every operation that writes or syncs with EIO.
	EIO Fault = "eio"

	// Full is a disk that has just passed its low-water mark: Free reports the
	// reserve that is left (Reserve bytes, or a hundredth of the disk if that is
	// less), every write uses it up, and when it is gone writes fail with ENOSPC.
	Full Fault = "full"

	// NoSpace is a disk without a byte left: Free reports 0, and everything
	// that would take room fails with ENOSPC at once.
	NoSpace Fault = "nospace"
)

// SluggishSync is how long a sync takes on a disk that is Sluggish.
const SluggishSync = 1500 * time.Millisecond

// Reserve is what Full leaves, in bytes.
const Reserve = 64 << 20

// An Op is a kind of operation that a fault can meet.
type Op uint8

// The operations. Reading is not among them.
const (
	OpCreate      Op = iota + 1 // a file, a link or a directory
	OpWrite                     // bytes
	OpPreallocate               // room for bytes to come
	OpSync                      // a file or a directory
	OpRename
	OpRemove
)

func (op Op) String() string {
	switch op {
	case OpCreate:
		return "create"
	case OpWrite:
		return "write"
	case OpPreallocate:
		return "fallocate"
	case OpSync:
		return "sync"
	case OpRename:
		return "rename"
	case OpRemove:
		return "remove"
	}
	return fmt.Sprintf("op %d", uint8(op))
}

// takesRoom says whether op fails on a disk that is full.
func (op Op) takesRoom() bool { return op == OpCreate || op == OpWrite || op == OpPreallocate }

// faults is what is wrong with an FS at the moment.
type faults struct {
	// any is false while nothing is set, so that the path of every write costs
	// one load.
	any atomic.Bool

	mu     sync.Mutex
	turned *sync.Cond // broadcast when fault changes
	fault  Fault
	left   int64 // of Full: bytes until ENOSPC
	hook   func(op Op, name string) error
}

func (f *faults) init() {
	f.turned = sync.NewCond(&f.mu)
	f.fault = OK
}

// SetFault makes the file system misbehave from now on, or well again. It
// refuses a fault it does not know.
func (fs *FS) SetFault(fault Fault) error {
	switch fault {
	case OK, Hang, Sluggish, EIO, Full, NoSpace:
	default:
		return fmt.Errorf("disk: unknown fault %q: use %s, %s, %s, %s, %s or %s", fault, OK, Hang, Sluggish, EIO, Full, NoSpace)
	}
	reserve := fs.reserve() // before the lock: it asks the disk
	f := &fs.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.left = fault, reserve
	f.any.Store(fault != OK || f.hook != nil)
	f.turned.Broadcast()
	return nil
}

// Fault returns the fault that is set.
func (fs *FS) Fault() Fault {
	fs.faults.mu.Lock()
	defer fs.faults.mu.Unlock()
	return fs.faults.fault
}

// Intercept has hook called before every operation that writes or syncs, by the
// goroutine that wants it done; what hook returns, if not nil, is its outcome.
// Tests cut the power in there, or fail the one operation they are after. A nil
// hook ends it.
func (fs *FS) Intercept(hook func(op Op, name string) error) {
	f := &fs.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
	f.any.Store(f.fault != OK || hook != nil)
}

// before is called before each operation that writes or syncs; size is the
// number of bytes, where there are any. It returns the operation's outcome if
// it is not to be done.
func (fs *FS) before(op Op, name string, size int) error {
	f := &fs.faults
	if !f.any.Load() {
		return nil
	}
	f.mu.Lock()
	hook, sluggish := f.hook, f.fault == Sluggish
	f.mu.Unlock()
	if sluggish && op == OpSync {
		<-time.After(SluggishSync)
	}
	if hook != nil { // outside the lock: a hook may look at the file system
		if err := hook(op, name); err != nil {
			return fs.stats.result(err)
		}
	}
	if errno := f.outcome(op, size); errno != 0 {
		return fs.stats.result(&os.PathError{Op: op.String(), Path: name, Err: errno})
	}
	return nil
}

// outcome waits while the disk hangs, and then says what becomes of op; 0 means
// that it is done.
func (f *faults) outcome(op Op, size int) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.fault == Hang {
		f.turned.Wait()
	}
	switch f.fault {
	case EIO:
		return syscall.EIO
	case NoSpace:
		if op.takesRoom() {
			return syscall.ENOSPC
		}
	case Full:
		if op.takesRoom() && f.left < int64(size) {
			return syscall.ENOSPC
		}
		f.left -= int64(size)
	}
	return 0
}
