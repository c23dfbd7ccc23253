package blackbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// What tests leave on the disk.
//
// A test of a cluster has up to some GiB of data directories. Each removes its own, but not if
// the test program is killed, or ends because its time is over: and what has been left so
// would stay there. So all that is temporary is below one directory of the program, those of the
// programs that it starts, too; it holds a lock on it for as long as it lives, and the next
// program removes the ones that nobody holds.

// scratch is a directory that lives as long as the test program.
var scratch string

// reports is where what is to outlive it goes.
var reports = os.TempDir()

const scratchPrefix = "bellwire-test-"

// makeScratch makes it below parent, and removes those that others have left there. It is held
// until the program ends.
func makeScratch(parent string) (dir string, held *os.File, err error) {
	sweep(parent, time.Minute)
	if dir, err = os.MkdirTemp(parent, scratchPrefix); err != nil {
		return "", nil, err
	}
	if held, err = hold(dir); err != nil {
		return "", nil, errors.Join(fmt.Errorf("%s: %w", dir, err), os.RemoveAll(dir))
	}
	return dir, held, nil
}

// hold takes the lock of a directory, if nobody has it.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what is left over. One that is younger than that may be about to be held.
func sweep(parent string, young time.Duration) {
	all, _ := filepath.Glob(filepath.Join(parent, scratchPrefix+"*"))
	for _, dir := range all {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || time.Since(info.ModTime()) < young {
			continue
		}
		if held, err := hold(dir); err == nil {
			os.RemoveAll(dir)
			held.Close()
		}
	}
}

// What a test program has left that was killed is removed by the next, and what one has that lives is not.
func TestLeftoversAreSwept(t *testing.T) {
	parent := t.TempDir()
	mine, held, err := makeScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	left, lock, err := makeScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(left, "data", "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	lock.Close() // as when it is killed
	sweep(parent, time.Hour)
	for _, dir := range []string{mine, left} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("one that is young is gone: %v", err)
		}
	}
	sweep(parent, 0)
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("one that is held is gone: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that nobody holds is there: %v", err)
	}
}
