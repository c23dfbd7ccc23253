package disk

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// An FS is a file system that counts, and that can be made to fail. It is a
// vfs.FS, and is handed to Pebble as such. All methods may be called by any
// goroutine at any time.
type FS struct {
	inner vfs.FS
	root  string // whose device Free asks about; empty in memory
	mem   *vfs.MemFS

	stats  counters
	faults faults

	// Of a Crashable: held to read by each operation that changes something, and to
	// write while the power is cut. MemFS has locks for that, but takes them in two
	// orders (Sync, and Link), and one of them twice (Lock): a cut in between
	// blocks all three for ever.
	crashing *sync.RWMutex

	mu    sync.Mutex // guards the following
	space *space     // of SetFree; nil: as it is
}

var _ vfs.FS = (*FS)(nil)

// Open returns the machine's file system. Free speaks of the device that holds
// root, which need not exist yet.
func Open(root string) *FS { return newFS(vfs.Default, root, nil) }

// Memory returns an empty file system in memory. Nothing in it survives the
// process, and Sync costs nothing.
func Memory() *FS {
	mem := vfs.NewMem()
	return newFS(mem, "", mem)
}

// Crashable returns an empty file system in memory that remembers what was
// synced and what was not, for Crash. It is for tests, and slower than Memory.
func Crashable() *FS {
	return crashable(vfs.NewCrashableMem())
}

func crashable(mem *vfs.MemFS) *FS {
	fs := newFS(mem, "", mem)
	fs.crashing = new(sync.RWMutex)
	return fs
}

func newFS(inner vfs.FS, root string, mem *vfs.MemFS) *FS {
	fs := &FS{inner: inner, root: root, mem: mem}
	fs.faults.init()
	return fs
}

// Crash returns the files as a power cut at this moment would leave them: all
// that was synced, and of each block or directory entry that was not, kept
// percent of them, chosen by rng. Kept 0 needs no rng. The receiver must be
// Crashable, and goes on as if nothing had happened; the copy has no faults and
// no counts.
func (fs *FS) Crash(kept int, rng *rand.Rand) *FS {
	fs.crashing.Lock()
	mem := fs.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng})
	fs.crashing.Unlock()
	return crashable(mem)
}

// powered keeps the power on until done is called. It is not held while a fault
// holds an operation up, for then its power may be cut.
func (fs *FS) powered() (done func()) {
	if fs.crashing == nil {
		return func() {}
	}
	fs.crashing.RLock()
	return fs.crashing.RUnlock
}

// Stats says what a file system has been asked to do since it was opened.
type Stats struct {
	Syncs        uint64 // completed fsyncs and fdatasyncs of files and directories
	Writes       uint64 // completed write calls
	WrittenBytes uint64
	Failed       uint64 // operations that returned an error, injected ones included, "does not exist" not
}

// Stats returns the counts so far.
func (fs *FS) Stats() Stats {
	return Stats{
		Syncs:        fs.stats.syncs.Load(),
		Writes:       fs.stats.writes.Load(),
		WrittenBytes: fs.stats.bytes.Load(),
		Failed:       fs.stats.failed.Load(),
	}
}

type counters struct{ syncs, writes, bytes, failed atomic.Uint64 }

// result counts err and returns it.
func (c *counters) result(err error) error {
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
		c.failed.Add(1)
	}
	return err
}

// Create is vfs.FS's.
func (fs *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.before(OpCreate, name, 0); err != nil {
		return nil, err
	}
	defer fs.powered()()
	return fs.created(name)(fs.inner.Create(name, category))
}

// Link is vfs.FS's.
func (fs *FS) Link(oldname, newname string) error {
	if err := fs.before(OpCreate, newname, 0); err != nil {
		return err
	}
	defer fs.powered()()
	return fs.stats.result(fs.inner.Link(oldname, newname))
}

// Open is vfs.FS's. Reading meets no injected faults.
func (fs *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.file(name)(fs.inner.Open(name, opts...))
}

// OpenReadWrite is vfs.FS's.
func (fs *FS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := fs.before(OpCreate, name, 0); err != nil {
		return nil, err
	}
	defer fs.powered()()
	return fs.file(name)(fs.inner.OpenReadWrite(name, category, opts...))
}

// OpenDir is vfs.FS's.
func (fs *FS) OpenDir(name string) (vfs.File, error) {
	return fs.file(name)(fs.inner.OpenDir(name))
}

// Remove is vfs.FS's.
func (fs *FS) Remove(name string) error {
	if err := fs.before(OpRemove, name, 0); err != nil {
		return err
	}
	defer fs.powered()()
	return fs.stats.result(fs.inner.Remove(name))
}

// RemoveAll is vfs.FS's.
func (fs *FS) RemoveAll(name string) error {
	if err := fs.before(OpRemove, name, 0); err != nil {
		return err
	}
	defer fs.powered()()
	return fs.stats.result(fs.inner.RemoveAll(name))
}

// Rename is vfs.FS's.
func (fs *FS) Rename(oldname, newname string) error {
	if err := fs.before(OpRename, newname, 0); err != nil {
		return err
	}
	defer fs.powered()()
	return fs.stats.result(fs.inner.Rename(oldname, newname))
}

// ReuseForWrite is vfs.FS's.
func (fs *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.before(OpCreate, newname, 0); err != nil {
		return nil, err
	}
	defer fs.powered()()
	return fs.created(newname)(fs.inner.ReuseForWrite(oldname, newname, category))
}

// MkdirAll is vfs.FS's. It does not make the directory durable: MakeDir does.
func (fs *FS) MkdirAll(dir string, perm os.FileMode) error {
	if err := fs.before(OpCreate, dir, 0); err != nil {
		return err
	}
	defer fs.powered()()
	return fs.stats.result(fs.inner.MkdirAll(dir, perm))
}

// Lock is vfs.FS's.
func (fs *FS) Lock(name string) (io.Closer, error) {
	defer fs.powered()()
	return fs.inner.Lock(name)
}

// List is vfs.FS's.
func (fs *FS) List(dir string) ([]string, error) { return fs.inner.List(dir) }

// Stat is vfs.FS's.
func (fs *FS) Stat(name string) (vfs.FileInfo, error) { return fs.inner.Stat(name) }

// PathBase is vfs.FS's.
func (fs *FS) PathBase(path string) string { return fs.inner.PathBase(path) }

// PathJoin is vfs.FS's.
func (fs *FS) PathJoin(elem ...string) string { return fs.inner.PathJoin(elem...) }

// PathDir is vfs.FS's.
func (fs *FS) PathDir(path string) string { return fs.inner.PathDir(path) }

// Unwrap is vfs.FS's.
func (fs *FS) Unwrap() vfs.FS { return fs.inner }

// GetDiskUsage is vfs.FS's. Pebble paces deletions by it; it knows nothing of
// SetFree.
func (fs *FS) GetDiskUsage(path string) (vfs.DiskUsage, error) { return fs.inner.GetDiskUsage(path) }

// file returns a function that wraps what an inner method returned.
func (fs *FS) file(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if fs.stats.result(err) != nil {
			return nil, err
		}
		return &file{File: f, fs: fs, name: name}, nil
	}
}

// created is file for a name that is new.
func (fs *FS) created(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if fs.stats.result(err) != nil {
			return nil, err
		}
		return &file{File: f, fs: fs, name: name, fresh: true}, nil
	}
}

// A file counts its writes and syncs, and fails them when told to. What it does
// not override (reading, Prefetch, Fd, Close) is the inner file's.
type file struct {
	vfs.File
	fs   *FS
	name string

	// fresh is true until the first sync of a file that was created, which
	// makes its name durable as well. Pebble syncs a new MANIFEST and then, in
	// one step with the marker that names it, the directory: by the letter of
	// POSIX a power cut could leave the marker alone, and no database. The file
	// systems of Linux keep the name with the file; this does not rely on it.
	fresh bool

	at   int64 // where Write goes on
	room int64 // up to where there is room by Preallocate
	want int64 // up to where that was asked for
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.fs.before(OpWrite, f.name, len(p)); err != nil {
		return 0, err
	}
	if end := f.at + int64(len(p)); end > f.room && f.room < f.want {
		_ = f.makeRoom(end) // without it the write finds its own, or says why not
	}
	defer f.fs.powered()()
	n, err := f.File.Write(p)
	f.at += int64(n)
	return f.wrote(n, err)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.before(OpWrite, f.name, len(p)); err != nil {
		return 0, err
	}
	defer f.fs.powered()()
	n, err := f.File.WriteAt(p, off)
	return f.wrote(n, err)
}

func (f *file) wrote(n int, err error) (int, error) {
	f.fs.stats.bytes.Add(uint64(n))
	if f.fs.stats.result(err) == nil {
		f.fs.stats.writes.Add(1)
	}
	return n, err
}

// The steps in which room is made for a file that grows, in bytes.
const (
	roomLeast = 1 << 20
	roomMost  = 16 << 20
)

// Preallocate is vfs.File's, but the room is made as the file grows, as much ahead as
// there is behind, 16 MiB at most. For each file of its log Pebble asks for all that the
// largest memtable could fill, and memtables begin small and double: so the files of the
// first 64 MiB would take 1 GiB of the disk, within a second, and jump any low-water mark.
func (f *file) Preallocate(offset, length int64) error {
	f.want = max(f.want, offset+length)
	return f.makeRoom(f.at)
}

// makeRoom makes the next step of the room that was asked for, beyond end.
func (f *file) makeRoom(end int64) error {
	next := min(f.want, end+min(max(end, roomLeast), roomMost))
	if next <= f.room {
		return nil
	}
	if err := f.fs.before(OpPreallocate, f.name, 0); err != nil {
		return err
	}
	defer f.fs.powered()()
	from := f.room
	f.room = next // also if it fails: the write that needs it is not kept for another try
	return f.fs.stats.result(f.File.Preallocate(from, next-from))
}

func (f *file) Sync() error     { return f.sync(f.File.Sync) }
func (f *file) SyncData() error { return f.sync(f.File.SyncData) }

func (f *file) sync(do func() error) error {
	if err := f.fs.before(OpSync, f.name, 0); err != nil {
		return err
	}
	done := f.fs.powered()
	err := do()
	done()
	if f.fs.stats.result(err) != nil {
		return err
	}
	f.fs.stats.syncs.Add(1)
	if !f.fresh {
		return nil
	}
	f.fresh = false
	return f.fs.SyncDir(f.fs.PathDir(f.name))
}

// SyncTo starts writing dirty pages out (sync_file_range), and is an fsync only
// where it says so.
func (f *file) SyncTo(length int64) (bool, error) {
	if err := f.fs.before(OpSync, f.name, 0); err != nil {
		return false, err
	}
	defer f.fs.powered()()
	full, err := f.File.SyncTo(length)
	if f.fs.stats.result(err) == nil && full {
		f.fs.stats.syncs.Add(1)
	}
	return full, err
}
