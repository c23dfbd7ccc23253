package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/bellwire/bellwire/disk"
)

var (
	// ErrDamaged means that what is on the disk is not what was written there.
	// Nothing has been changed. The disk is to blame, or whoever edited the
	// files; a node that is one of several is rebuilt from the others.
	ErrDamaged = errors.New("damaged")

	// ErrNewer means that a later version of this program has written here.
	// Run that one.
	ErrNewer = errors.New("written by a later version")

	// ErrInUse means that a running process has the database open.
	ErrInUse = errors.New("in use by a running process")
)

// format is the version of Pebble's files. Raising it is a one-way step that
// older programs cannot read: it follows the cluster's feature level. It must not
// fall below FormatWALSyncChunks: without those a damaged tail of the
// write-ahead log looks like its end, and what was promised is forgotten in
// silence.
const format = pebble.FormatValueSeparation

// Options of a DB. FS, Dir, Logger and Die are required.
type Options struct {
	FS     *disk.FS
	Dir    string // the database's own directory
	Logger *slog.Logger

	// Die ends the process; it must not return. The database can no longer
	// promise anything when it is called: a write failed, or did not end.
	Die func(reason string)

	// Exists says that a database was made here before. If there is none now,
	// that is ErrDamaged and not a fresh start: a node that has forgotten its
	// vote must not vote again.
	Exists bool

	// Stall is how long a commit may take without a sync being completed, of whatever
	// file; twice that is how long it may take at all. 0 means 3 s. Raft's heartbeats come
	// from goroutines of their own, so a leader whose disk hangs stays leader
	// and commits nothing, for ever; only ending it lets another take over.
	Stall time.Duration

	// MemTable is the size in bytes at which entries held in memory are
	// written to tables. 0 means 128 MiB. Entries that are truncated before are
	// written once only, to the write-ahead log; so this wants to be larger than
	// what is retained.
	MemTable uint64

	// CacheEntries and CacheBytes bound the newest entries of each group that
	// are kept decoded. 0 means 1024 and 8 MiB.
	CacheEntries, CacheBytes int

	// Now is the clock that durations in Stats are measured with; nil measures
	// none.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Stall == 0 {
		o.Stall = 3 * time.Second
	}
	if o.MemTable == 0 {
		o.MemTable = 128 << 20
	}
	if o.CacheEntries == 0 {
		o.CacheEntries = 1024
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 8 << 20
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Time{} }
	}
	return o
}

// A DB is the database of a node's Raft logs. One serves all groups, so that
// commits of several share an fsync. Its methods may be called by any goroutine.
type DB struct {
	opts   Options
	pebble *pebble.DB
	lock   *pebble.Lock
	watch  io.Closer // of the file system
	slow   atomic.Uint64
	late   atomic.Pointer[disk.Slow] // the newest that was too slow
	logs   []*Log                    // opened by Log, before anything else is done with the DB

	// running is false until Raft has been told what is there. Until then
	// damage is returned as ErrDamaged; from then on it ends the process.
	running atomic.Bool

	commits    atomic.Uint64
	commitTime atomic.Int64
}

// Open opens the database, making it if there is none and none is expected. All of
// it is read first, without changing anything: what does not read as it was
// written, or is less than what was acknowledged, is ErrDamaged. Other errors are
// ErrNewer, ErrInUse, or the disk's.
func Open(o Options) (*DB, error) {
	db := &DB{opts: o.withDefaults()}
	if err := db.open(); err != nil {
		return nil, fmt.Errorf("raftlog: open %s: %w", o.Dir, err)
	}
	return db, nil
}

func (db *DB) open() (err error) {
	fs, dir := db.opts.FS, db.opts.Dir
	if err := fs.MakeDir(dir); err != nil {
		return err
	}
	if db.lock, err = pebble.LockDirectory(dir, fs); err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	fresh, err := db.check()
	if err == nil {
		err = db.openPebble()
	}
	if err == nil && fresh {
		// Pebble makes a database in an old format, begins its write-ahead log,
		// and then upgrades the one and not the other. Opened again, it begins
		// another log.
		if err = errors.Join(db.pebble.Close(), db.watch.Close()); err == nil {
			err = db.openPebble()
		}
	}
	if err != nil {
		return errors.Join(err, db.lock.Close())
	}
	return nil
}

// check reads the whole database. fresh says that there is none, as there should
// not be.
func (db *DB) check() (fresh bool, err error) {
	opts := db.pebbleOptions()
	opts.FS, opts.Lock, opts.ReadOnly = db.opts.FS, db.lock, true
	p, err := pebble.Open(db.opts.Dir, opts)
	switch {
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		return true, db.checkNew(err)
	case err != nil:
		return false, openError(err)
	}
	c := checker{fs: db.opts.FS, dir: db.opts.Dir}
	return false, errors.Join(c.run(p), p.Close())
}

// checkNew says whether it is all right that there is no database: it should have
// been there if it is expected, or if there is a write-ahead log, which Pebble
// begins after the rest.
func (db *DB) checkNew(missing error) error {
	names, err := db.opts.FS.List(db.opts.Dir)
	if err != nil {
		return err
	}
	if db.opts.Exists || slices.ContainsFunc(names, isWAL) {
		return fmt.Errorf("%w: a log was here and is gone: %w", ErrDamaged, missing)
	}
	return nil
}

// isWAL says whether name is that of a file of the write-ahead log.
func isWAL(name string) bool { return strings.HasSuffix(name, ".log") }

func (db *DB) openPebble() error {
	opts := db.pebbleOptions()
	opts.Lock = db.lock
	opts.FS, db.watch = db.opts.FS.Watched(db.opts.Stall, db.diskSlow)
	p, err := pebble.Open(db.opts.Dir, opts)
	if err != nil {
		return errors.Join(openError(err), db.watch.Close())
	}
	db.pebble = p
	return nil
}

// openError says which of our errors Pebble's is. What is neither a full disk nor
// a failing one is a file that does not read as it should.
func openError(err error) error {
	switch {
	case disk.OfSystem(err) && !pebble.IsCorruptionError(err):
		return err
	default:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
}

func (db *DB) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FormatMajorVersion: format,
		Logger:             disk.NewLogger(db.opts.Logger, db.opts.Die),
		EventListener:      &pebble.EventListener{DataCorruption: db.corrupt, BackgroundError: db.background},

		// Entries are read back by followers that lag and at a start, in order
		// and once: the block cache is small.
		CacheSize:                   8 << 20,
		MemTableSize:                db.opts.MemTable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       100,
		MaxOpenFiles:                500,
	}
	// Neither compression nor filters: batches hold what clients sent, read
	// seldom, and every index that is asked for exists.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return o
}

// background ends the process when a flush or compaction failed: the log could
// not be written much longer, and nobody would be told.
func (db *DB) background(err error) {
	if db.running.Load() {
		db.die(fmt.Sprintf("raftlog: in the background: %v", err))
	}
}

// corrupt is called when a file does not read as it was written.
func (db *DB) corrupt(info pebble.DataCorruptionInfo) {
	if db.running.Load() {
		db.die(fmt.Sprintf("raftlog: %s is damaged: %v", info.Path, info.Details))
	}
}

// diskSlow is called while an operation takes longer than Stall, a flush or a
// compaction included, which no Raft call waits for.
func (db *DB) diskSlow(s disk.Slow) {
	db.slow.Add(1)
	db.opts.Logger.Warn("disk slow", "file", s.Name, "operation", s.Op, "for", s.For)
	if !db.running.Load() || s.For < 2*db.opts.Stall {
		return
	}
	// At the second report, a look later: at the first, this process may have stood
	// still rather than the disk.
	if last := db.late.Swap(&s); last != nil && last.Name == s.Name && last.Op == s.Op && last.For < s.For {
		db.die(fmt.Sprintf("raftlog: %s of %s has taken %v", s.Op, s.Name, s.For))
	}
}

func (db *DB) die(reason string) { disk.Die(db.opts.Logger, db.opts.Die, reason) }

// commit writes b and returns when it is on the disk.
func (db *DB) commit(b *pebble.Batch) {
	start := db.opts.Now()
	db.guard("commit", func() error { return b.Commit(pebble.Sync) })
	db.commits.Add(1)
	db.commitTime.Add(int64(db.opts.Now().Sub(start)))
}

// guard does something with the disk that must not fail, and must not take longer
// than Stall: else it ends the process.
func (db *DB) guard(what string, do func() error) {
	start := db.opts.Now()
	syncs := func() uint64 { return db.opts.FS.Stats().Syncs }
	w := watch(db.opts.Stall, syncs, func() {
		db.die(fmt.Sprintf("raftlog: the disk has not completed a %s for %v", what, max(db.opts.Stall, db.opts.Now().Sub(start).Truncate(db.opts.Stall/watchSteps))))
	})
	defer w.stop()
	if err := do(); err != nil {
		db.die(fmt.Sprintf("raftlog: %s: %v", what, err))
	}
}

// Stats of a DB since it was opened.
type Stats struct {
	Commits    uint64        // synced commits: of entries, of terms and votes, of truncated tails
	CommitTime time.Duration // spent in them
	Slow       uint64        // reports of operations that took longer than Stall
}

// Stats returns the counts so far.
func (db *DB) Stats() Stats {
	return Stats{
		Commits:    db.commits.Load(),
		CommitTime: time.Duration(db.commitTime.Load()),
		Slow:       db.slow.Load(),
	}
}

// MemTables returns the bytes that memtables hold: entries that are in the log
// on disk, and not in tables yet. It is bounded by Options.MemTable. Not after
// Close.
func (db *DB) MemTables() uint64 { return db.pebble.Metrics().MemTable.Size }

// Unflushed returns the bytes of entries that are in memtables: they are in the log on
// disk, and will be written once more, to tables, before that can go. Not after Close.
func (db *DB) Unflushed() uint64 { return db.pebble.Metrics().WAL.Size }

// Flush writes what memtables hold to tables: what was truncated then leaves the disk.
func (db *DB) Flush() error { return db.pebble.Flush() }

// Close closes the database. No Log of it may be used any more.
func (db *DB) Close() error {
	db.running.Store(false)
	err := db.pebble.Close()
	for _, l := range db.logs {
		err = errors.Join(err, l.mark.close())
	}
	return errors.Join(err, db.lock.Close(), db.watch.Close())
}
