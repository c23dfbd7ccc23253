package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/bellwire/bellwire/disk"
)

// A toy is the smallest Machine that keeps what a real one must: a state in
// Pebble, without a write-ahead log, with its place in the same batch. Its state
// is the digest of all it has applied, the last stamp, and the newest batches.
type toy struct {
	fs  *disk.FS
	dir string

	memTable uint64 // bytes; 0 means 64 KiB, which it flushes often

	mu      sync.Mutex // guards the following
	db      *pebble.DB
	at      position // applied
	heard   func(index uint64, stamp int64, batch []byte)
	block   chan struct{} // Apply receives from it, if it is not nil
	flushes int
}

// A position is all there is to a toy's state.
type position struct {
	index, term, configIndex uint64
	stamp                    int64
	digest                   uint64
	count                    uint64
	config                   []byte
}

func (p position) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, p.index)
	for _, n := range []uint64{p.term, p.configIndex, uint64(p.stamp), p.digest, p.count} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, p.config...)
}

func parsePosition(b []byte) (p position) {
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return position{index: u(0), term: u(1), configIndex: u(2), stamp: int64(u(3)), digest: u(4), count: u(5), config: append([]byte(nil), b[48:]...)}
}

var toyKey = []byte("position")

func openToy(t testing.TB, fs *disk.FS, dir string, memTable uint64) *toy {
	t.Helper()
	m := &toy{fs: fs, dir: dir, memTable: memTable}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *toy) open() error {
	if m.memTable == 0 {
		m.memTable = 64 << 10
	}
	db, err := pebble.Open(m.dir, &pebble.Options{
		FS: m.fs, DisableWAL: true, MemTableSize: m.memTable,
		FormatMajorVersion: pebble.FormatValueSeparation, Logger: quiet{},
	})
	if err != nil {
		return err
	}
	m.db = db
	m.at, err = m.load(nil)
	return err
}

func (m *toy) load(o *pebble.IterOptions) (position, error) {
	it, err := m.db.NewIter(o)
	if err != nil {
		return position{}, err
	}
	defer it.Close()
	if !it.SeekGE(toyKey) || !bytes.Equal(it.Key(), toyKey) {
		return position{}, it.Error()
	}
	return parsePosition(it.Value()), nil
}

func (m *toy) Apply(index, term uint64, stamp int64, batches [][]byte) {
	m.mu.Lock()
	block, heard := m.block, m.heard
	m.mu.Unlock()
	if block != nil {
		<-block
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.at.index {
		panic(fmt.Sprintf("entry %d applied at %d", index, m.at.index))
	}
	if stamp < m.at.stamp {
		panic(fmt.Sprintf("stamp %d after %d", stamp, m.at.stamp))
	}
	for _, b := range batches {
		h := fnv.New64a()
		h.Write(binary.BigEndian.AppendUint64(nil, m.at.digest))
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(stamp)))
		h.Write(b)
		m.at.digest = h.Sum64()
		m.at.count++
		m.set(fmt.Appendf(nil, "batch%03d", m.at.count%1000), b)
		if heard != nil {
			heard(index, stamp, b)
		}
	}
	m.at.index, m.at.term, m.at.stamp = index, term, stamp
	m.set(toyKey, m.at.encode())
}

func (m *toy) Configure(index, term uint64, config []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at.index, m.at.term, m.at.config, m.at.configIndex = index, term, append([]byte(nil), config...), index
	m.set(toyKey, m.at.encode())
}

// set writes a key. The place is written last: without a write-ahead log, what is
// durable is a prefix of what was written.
func (m *toy) set(key, value []byte) {
	if err := m.db.Set(key, value, pebble.NoSync); err != nil {
		panic(err)
	}
}

func (m *toy) Durable() (index, term uint64, config []byte, configIndex uint64) {
	p, err := m.load(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		panic(err)
	}
	return p.index, p.term, p.config, p.configIndex
}

func (m *toy) Flush() error {
	m.mu.Lock()
	m.flushes++
	m.mu.Unlock()
	return m.db.Flush()
}

func (m *toy) Checkpoint(dir string) (index, term uint64, err error) {
	if err := m.db.Flush(); err != nil {
		return 0, 0, err
	}
	if err := m.db.Checkpoint(dir); err != nil {
		return 0, 0, err
	}
	copied := &toy{fs: m.fs, dir: dir}
	if err := copied.open(); err != nil {
		return 0, 0, err
	}
	return copied.at.index, copied.at.term, copied.db.Close()
}

func (m *toy) Restore(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := errors.Join(m.db.Close(), m.fs.RemoveAll(m.dir), m.fs.Rename(dir, m.dir), m.fs.SyncDir(m.fs.PathDir(m.dir)))
	if err != nil {
		return err
	}
	return m.open()
}

func (m *toy) Now() int64 { return m.position().stamp }

func (m *toy) position() position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// newest returns the number of the newest batch.
func (m *toy) newest(t testing.TB) string {
	t.Helper()
	b, closer, err := m.db.Get(fmt.Appendf(nil, "batch%03d", m.position().count%1000))
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	return batchNumber(b)
}

func (m *toy) close(t testing.TB) {
	t.Helper()
	if err := m.db.Close(); err != nil {
		t.Error(err)
	}
}

// quiet is a pebble.Logger for the toy. Its Fatalf panics, or ends a child as the
// child's Die would.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, a ...any) {
	if os.Getenv(childVar) != "" {
		fmt.Fprintf(os.Stderr, "level=ERROR "+format+"\n", a...)
		os.Exit(exitDied)
	}
	panic(fmt.Sprintf(format, a...))
}
