// Package store keeps a node's replicated state in Pebble. It is the only door
// to Pebble besides the Raft log.
//
// The state has no write-ahead log: the Raft log is one. Each log entry is one
// Tx, which carries the entry's position in the key Applied; entries are gathered
// in memory until somebody reads (see pending), the database is given them whole
// and in order, and memtables are flushed in order: so what a crash leaves is the
// state as of some entry, and that entry's position, which Durable reads. Raft
// replays from there. A log entry may be truncated once Durable has passed it, not
// before.
//
// A read or write that fails ends the process: a state machine that goes on
// after losing a write is no replica of anything (see Options.Die).
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bellwire/bellwire/disk"
	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// A Space is a keyspace: the first byte of every key in it. The numbers are on
// disk. Snapshot and digest cover all spaces without knowing them.
type Space byte

const (
	Meta     Space = 0x01 // name → value; Applied is one
	Sessions Space = 0x02 // client id → session record
	Subs     Space = 0x03 // session, filter → subscription
	Policies Space = 0x04 // name → policy
	Retained Space = 0x05 // topic → retained event
	Queue    Space = 0x06 // session, sequence → queued event, or reference to its body
	Bodies   Space = 0x07 // body number → event queued for several sessions
	Cursors  Space = 0x08 // session → state of its queue
	Wakes    Space = 0x09 // due time, kind, id → ∅
	Inbound  Space = 0x0A // session, packet id → ∅: QoS 2 publishes not yet released
	Nodes    Space = 0x0B // node → incarnation and last batch
	Held     Space = 0x0C // node, incarnation, session → ∅: who is connected where
	Failures Space = 0x0D // ordinal → command that was rolled back

	Resources Space = 0x0E // profile, its key → its value

	Streams Space = 0x14 // stream, sequence → event of a stream, whose body is elsewhere
	Heads   Space = 0x15 // stream → its filter and how far it is
	Debts   Space = 0x16 // session → what streams owe it
	Asked   Space = 0x17 // session, topic → ∅: what it subscribes to by request
	Delayed Space = 0x19 // events that are published later, and whose they are: see broker's delayed.go
	Groups  Space = 0x11 // filter of a shared subscription → whose turn it is
)

// FirstFormat is the format of a state that is new: what the first version of the
// program reads. The Machine raises it with the cluster's feature level, in the
// transaction that does so: a program that does not know what is written from then
// on does not read any of it, whether as a directory, a snapshot or a backup.
const FirstFormat = 1

var (
	// ErrNewer means that a newer version of the program wrote the state.
	ErrNewer = errors.New("state written by a newer version")
	// ErrDamaged means that the state cannot be read. Nothing was changed.
	ErrDamaged = errors.New("state damaged")
)

// Options say where and how.
type Options struct {
	Dir    string   // created if missing, but see Exists
	FS     *disk.FS // the file system; disk.Memory() for a node without a disk
	Logger *slog.Logger

	// Exists says that there has been a state in Dir: it is damage if there is
	// none. What is gone is not made anew from the log, even where that still
	// reaches back to its beginning: what has taken a directory may have taken
	// more, and whether a log is whole cannot be seen from it.
	Exists bool

	// Newest is the newest format that is read. 0 means FirstFormat.
	Newest uint8

	// MemTable is the size of one memtable in bytes, 0 for 64 MiB; at most
	// four exist. Cache is the block cache in bytes, 0 for 64 MiB.
	MemTable uint64
	Cache    int64

	// Die ends the process: called with the reason when a read or write
	// failed, the database's own in the background included: a flush that
	// fails is tried again for ever, while commits wait for it. It must not
	// return (see disk.Die).
	Die func(reason string)
}

// A Store is one node's state. One goroutine writes (Begin, Flush, Replace),
// any number read.
type Store struct {
	o Options

	mu sync.RWMutex // held for reading while db is used, for writing to replace it
	db *pebble.DB

	running atomic.Bool        // it is open: what is found damaged from then on ends the process
	pending pending            // what is committed, and not in db yet
	spare   atomic.Pointer[Tx] // the last one that has ended, for its memory
}

// Open opens the state in o.Dir, or begins an empty one.
func Open(o Options) (*Store, error) {
	if o.MemTable == 0 {
		o.MemTable = 64 << 20
	}
	if o.Cache == 0 {
		o.Cache = 64 << 20
	}
	if o.Newest == 0 {
		o.Newest = FirstFormat
	}
	s := &Store{o: o}
	s.pending.init(s)
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("store: open %q: %w", o.Dir, err)
	}
	db, err := s.openState()
	if err != nil {
		return nil, err
	}
	s.db = db
	s.running.Store(true)
	return s, nil
}

func (s *Store) openState() (*pebble.DB, error) {
	return s.open(s.o.Dir, &pebble.EventListener{BackgroundError: s.background, DataCorruption: s.corrupt})
}

// corrupt is told of a file that does not read as it was written. What is read while the
// state is opened fails, and says so.
func (s *Store) corrupt(info pebble.DataCorruptionInfo) {
	if s.running.Load() {
		s.die(fmt.Sprintf("state: %s is damaged: %v", info.Path, info.Details))
	}
}

// prepare undoes a Replace that a crash has interrupted, and makes the
// directory, durably: a state whose name is lost is as good as none.
func (s *Store) prepare() error {
	fs, old := s.o.FS, s.old()
	_, err := fs.Stat(s.o.Dir)
	if _, oldErr := fs.Stat(old); oldErr == nil {
		if errors.Is(err, os.ErrNotExist) {
			if err := fs.Rename(old, s.o.Dir); err != nil {
				return err
			}
			return fs.SyncDir(filepath.Dir(old))
		}
		if err := fs.RemoveAll(old); err != nil {
			return err
		}
	}
	if s.o.Exists {
		if names, err := fs.List(s.o.Dir); err != nil || len(names) == 0 {
			return fmt.Errorf("%w: a state was here and is gone", ErrDamaged)
		}
	}
	return fs.MakeDir(s.o.Dir)
}

// old is where the state goes that is being replaced.
func (s *Store) old() string { return s.o.Dir + ".old" }

// background is told of what the database failed to do by itself. What is damaged, and
// found so while the state is opened, is found by whoever reads it, then or later.
func (s *Store) background(err error) {
	if !s.running.Load() && pebble.IsCorruptionError(err) {
		s.o.Logger.Warn("state damaged", "err", err)
		return
	}
	s.die(fmt.Sprintf("state: in the background: %v", err))
}

func (s *Store) open(dir string, events *pebble.EventListener) (*pebble.DB, error) {
	cache := pebble.NewCache(s.o.Cache)
	defer cache.Unref()
	options := &pebble.Options{
		FS:                          s.o.FS,
		Cache:                       cache,
		DisableWAL:                  true,
		MemTableSize:                s.o.MemTable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       40,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      disk.NewLogger(s.o.Logger, s.o.Die),
		EventListener:               events,
		ErrorIfNotExists:            s.o.Exists || s.hasTables(dir),
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, fmt.Errorf("store: open %q: %w", dir, unread(err))
	}
	if err := checkFormat(db, s.o.Newest); err != nil {
		return nil, errors.Join(fmt.Errorf("store: open %q: %w", dir, err), db.Close())
	}
	return db, nil
}

// unread is an error of reading a state: ErrDamaged, unless the operating system is the cause,
// as of a full disk, whose operator is not to take a backup for it.
func unread(err error) error {
	if disk.OfSystem(err) && !pebble.IsCorruptionError(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// hasTables says whether there are tables in dir: then there was a state, and a
// directory that has lost what names them must not pass for a new one.
func (s *Store) hasTables(dir string) bool {
	names, err := s.o.FS.List(dir)
	return err == nil && slices.ContainsFunc(names, func(n string) bool { return filepath.Ext(n) == ".sst" })
}

// FormatKey returns the key whose value is the state's format, one byte.
func FormatKey() []byte { return append([]byte{byte(Meta)}, "format"...) }

func checkFormat(db *pebble.DB, newest uint8) error {
	v, closer, err := db.Get(FormatKey())
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if err := db.Set(FormatKey(), []byte{FirstFormat}, pebble.NoSync); err != nil {
			return err
		}
		return db.Flush()
	case err != nil:
		return unread(err)
	}
	defer closer.Close()
	if len(v) != 1 || v[0] > newest {
		return fmt.Errorf("%w: format %d, this program reads up to %d", ErrNewer, v, newest)
	}
	return nil
}

// Die ends the process: what was found in the state, or is to be done to it, is
// nothing to go on from. It does not return.
func (s *Store) Die(reason string) { s.die(reason) }

func (s *Store) die(reason string) { disk.Die(s.o.Logger, s.o.Die, reason) }

func (s *Store) check(what string, err error) {
	if err != nil {
		s.die(fmt.Sprintf("state: %s: %v", what, err))
	}
}

// Close closes the files. What is not flushed is lost, as after a crash, and
// replayed from the log.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// Get appends the value of key to buf[:0] and says whether there is one.
func (s *Store) Get(key, buf []byte) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.show(spaceOf(key))
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return buf[:0], false
	}
	s.check("read", err)
	buf = append(buf[:0], v...)
	s.check("read", closer.Close())
	return buf, true
}

// Scan calls yield for each key from lower on and below upper, in order, until
// it returns false. Key and value are valid during the call only. It reads the
// state as it was when it began; a long scan pins that, so callers read in
// pieces.
func (s *Store) Scan(lower, upper []byte, yield func(key, value []byte) bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.show(spacesOf(lower, upper))
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	s.check("scan", err)
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		s.check("scan", err)
		if !yield(it.Key(), v) {
			break
		}
	}
	s.check("scan", it.Error())
	s.check("scan", it.Close())
}

// ScanEach is Scan of n ranges, of which none begins before the one before it ends,
// for the price of little more than one where they lie close together. bounds returns
// the i-th; yield is told which it is in, and ends that one by returning false.
func (s *Store) ScanEach(n int, bounds func(i int) (lower, upper []byte), yield func(i int, key, value []byte) bool) {
	if n == 0 {
		return
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	first, _ := bounds(0)
	_, last := bounds(n - 1)
	s.show(spacesOf(first, last))
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: last})
	s.check("scan", err)
	there := it.First()
	for i := 0; i < n && there; i++ {
		lower, upper := bounds(i)
		if bytes.Compare(it.Key(), lower) < 0 {
			there = it.SeekGE(lower)
		}
		for more := true; there && more && bytes.Compare(it.Key(), upper) < 0; there = it.Next() {
			v, err := it.ValueAndErr()
			s.check("scan", err)
			more = yield(i, it.Key(), v)
		}
	}
	s.check("scan", it.Error())
	s.check("scan", it.Close())
}

// Durable returns the value of key as it would be found after a crash now.
func (s *Store) Durable(key []byte) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: key, UpperBound: append(append([]byte{}, key...), 0), OnlyReadGuaranteedDurable: true,
	})
	s.check("read durable", err)
	var v []byte
	ok := it.First()
	if ok {
		value, err := it.ValueAndErr()
		s.check("read durable", err)
		v = append(v, value...)
	}
	s.check("read durable", it.Error())
	s.check("read durable", it.Close())
	return v, ok
}

// Flush makes everything that was committed durable.
func (s *Store) Flush() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.show(everything)
	return s.db.Flush()
}

// Checkpoint writes a copy of the state as of the last Commit into dir, which
// must not exist, by hard links where it can.
func (s *Store) Checkpoint(dir string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.show(everything)
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("store: checkpoint: %w", err)
	}
	if err := s.db.Checkpoint(dir); err != nil {
		return fmt.Errorf("store: checkpoint to %q: %w", dir, err)
	}
	return nil
}

// Replace makes the state a copy of the checkpoint in dir, durably. All of the
// copy is read before the present state is given up: a damaged one is refused
// and changes nothing. A crash meanwhile leaves one of the two.
func (s *Store) Replace(dir string) error {
	if err := s.verify(dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.drop()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("store: restore: close the present state: %w", err)
	}
	if err := s.swap(dir); err != nil {
		s.die(fmt.Sprintf("state: restore from %q: %v", dir, err))
	}
	db, err := s.openState()
	if err != nil {
		s.die(fmt.Sprintf("state: restore from %q: %v", dir, err))
	}
	s.db = db
	return s.o.FS.RemoveAll(s.old())
}

// verify reads all of a copy, whose faults are nobody's end.
func (s *Store) verify(dir string) (err error) {
	if _, err := s.o.FS.Stat(dir); err != nil {
		return fmt.Errorf("store: restore from %q: %w", dir, err)
	}
	db, err := s.open(dir, &pebble.EventListener{
		BackgroundError: func(error) {}, DataCorruption: func(pebble.DataCorruptionInfo) {},
	})
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, db.Close()); err != nil {
			err = fmt.Errorf("store: restore from %q: %w: %w", dir, ErrDamaged, err)
		}
	}()
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if _, err := it.ValueAndErr(); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// swap puts dir in the place of the state. Each step is durable before the
// next: prepare tells by what is there how far it came.
func (s *Store) swap(dir string) error {
	fs, parent := s.o.FS, filepath.Dir(s.o.Dir)
	if err := fs.RemoveAll(s.old()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := fs.Rename(s.o.Dir, s.old()); err != nil {
		return err
	}
	if err := fs.SyncDir(parent); err != nil {
		return err
	}
	if err := fs.Rename(dir, s.o.Dir); err != nil {
		return err
	}
	return fs.SyncDir(parent)
}

// Digest returns a hash of all keys and values at one instant, and the value
// of at at that instant. Replicas that applied the same entries have the same
// digest, whatever their files look like.
func (s *Store) Digest(at []byte) (digest uint64, value []byte) { return s.Pin().Digest(at) }

// A Pinned is the state at one instant, which costs nothing to keep but that the
// state can be neither replaced nor closed meanwhile. Its Digest must be called.
type Pinned struct {
	s  *Store
	it *pebble.Iterator
}

// Pin keeps the state as it is now.
func (s *Store) Pin() *Pinned {
	s.mu.RLock()
	s.show(everything)
	it, err := s.db.NewIter(nil)
	s.check("digest", err)
	return &Pinned{s, it}
}

// Digest is Store.Digest of the pinned state, and lets it go. It is called once,
// by any goroutine.
func (p *Pinned) Digest(at []byte) (digest uint64, value []byte) {
	defer p.s.mu.RUnlock()
	h := xxhash.New()
	for ok := p.it.First(); ok; ok = p.it.Next() {
		v, err := p.it.ValueAndErr()
		p.s.check("digest", err)
		if string(p.it.Key()) == string(at) {
			value = append(value, v...)
		}
		digestRecord(h, p.it.Key(), v)
	}
	p.s.check("digest", p.it.Error())
	p.s.check("digest", p.it.Close())
	return h.Sum64(), value
}

// digestRecord hashes lengths too, so that moving a byte from a value to the
// next key does not go unnoticed.
func digestRecord(h io.Writer, key, value []byte) {
	var n [8]byte
	binary.BigEndian.PutUint32(n[:4], uint32(len(key)))
	binary.BigEndian.PutUint32(n[4:], uint32(len(value)))
	h.Write(n[:])
	h.Write(key)
	h.Write(value)
}

// Size returns the bytes that the state takes on disk.
func (s *Store) Size() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.db.Metrics().DiskSpaceUsage()
}

// MemTables returns the bytes of memory that memtables hold, and what is not in them
// yet: what waits to be written to the disk. It is bounded by Options.MemTable.
func (s *Store) MemTables() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.db.Metrics().MemTable.Size + uint64(s.pending.bytes.Load())
}
