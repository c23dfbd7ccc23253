package disk

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// category names this package's own writes in Pebble's accounting.
const category = vfs.DiskWriteCategory("bellwire")

// ReadFile returns the contents of a file.
func (fs *FS) ReadFile(name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// WriteFile replaces a file durably: after a crash at any moment it has its old
// contents (or does not exist), or the new ones. name+".new" is used on the way.
func (fs *FS) WriteFile(name string, data []byte) error {
	fresh := name + ".new"
	if err := fs.writeNew(fresh, data); err != nil {
		return err
	}
	if err := fs.Rename(fresh, name); err != nil {
		return err
	}
	return fs.SyncDir(fs.PathDir(name))
}

func (fs *FS) writeNew(name string, data []byte) (err error) {
	f, err := fs.Create(name, category)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// A File is an open file of an FS.
type File = vfs.File

// OpenForUpdate opens a file to be written in place, with WriteAt, making it if
// there is none. The name is durable only after SyncDir.
func (fs *FS) OpenForUpdate(name string) (File, error) { return fs.OpenReadWrite(name, category) }

// CreateFile creates a file, or empties it, for writing.
func (fs *FS) CreateFile(name string) (File, error) { return fs.Create(name, category) }

// MakeDir creates a directory, and those above it that are missing, durably.
func (fs *FS) MakeDir(dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	up := fs.PathDir(dir)
	if up == dir {
		return fmt.Errorf("disk: %s does not exist", dir)
	}
	if err := fs.MakeDir(up); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return fs.SyncDir(up)
}

// SyncDir makes the names in a directory durable.
func (fs *FS) SyncDir(dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// A Slow operation has been waiting for the disk for longer than it should.
type Slow struct {
	Name string        // the file
	Op   string        // what is being done to it
	For  time.Duration // how long already
}

// Watched returns the file system with a watch on every write and sync: one that
// is still not done after limit is reported to slow, from another goroutine and
// again every few seconds while it lasts. The Closer ends the watch, after the
// files have been closed.
//
// The interface it returns is what Pebble's Options.FS takes.
func (fs *FS) Watched(limit time.Duration, slow func(Slow)) (vfs.FS, io.Closer) {
	return vfs.WithDiskHealthChecks(fs, limit, nil, func(info vfs.DiskSlowInfo) {
		slow(Slow{Name: info.Path, Op: info.OpType.String(), For: info.Duration})
	})
}
