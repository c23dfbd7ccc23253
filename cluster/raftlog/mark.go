package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/disk"
)

// A mark says how far a log is known to have been on the disk: it is written after
// each synced commit. It is never ahead of the log, so a log that ends before its
// mark has lost what was acknowledged.
//
// The write-ahead log cannot say that of itself. After a power cut it ends where it
// cannot be read any more, and so one changed bit looks like its end. Chunks say
// how far the log had been synced before them, but Pebble looks for those from the
// next block of 32 KiB on only, counts in them only what did not fill a block, and
// believes a changed log number to be a trailer: dozens of acknowledged entries
// were seen to vanish in silence.
//
// A mark survives the end of the process at whatever moment. It is not synced with
// each commit, which would double the cost of that, but a second later at most: after
// a power cut it may be older by that much, and then proves less, and nothing wrong.
//
// It is a file of two slots, each in a sector of its own, which are written in
// turn, so that a torn write leaves the other. Integers are big endian:
//
//	 0  version    1 byte, 1
//	 1  sequence   u64, the greater one counts
//	 9  index      u64, of the last entry, 0 for none
//	17  term       u64, Raft's current term
//	25  vote term  u64, the term of Raft's last vote
//	33  checksum   u32, CRC-32C of all that precedes
type mark struct {
	file disk.File // written under Log.writing
	seq  uint64
	at   progress

	// syncs is the same file, to be synced while file is written. pending is
	// set from a write until the sync that is due after it begins.
	syncs   disk.File
	fail    func(error)
	pending atomic.Bool
	timer   *time.Timer
	syncing chan struct{} // holds one while syncs is in use; guards closed
	closed  bool
}

// markLag is how much older than the log a mark may be after a power cut.
const markLag = time.Second

// progress is what a mark says.
type progress struct{ index, term, vote uint64 }

const (
	markVersion = 1
	markSlot    = 37
	markStride  = 4096
)

func encodeMark(seq uint64, at progress) []byte {
	buf := []byte{markVersion}
	for _, n := range []uint64{seq, at.index, at.term, at.vote} {
		buf = binary.BigEndian.AppendUint64(buf, n)
	}
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

// parseMark returns what a slot says; seq 0 for one that cannot be read.
func parseMark(buf []byte) (seq uint64, at progress) {
	if len(buf) < markSlot || buf[0] != markVersion {
		return 0, progress{}
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(buf[i:]) }
	if binary.BigEndian.Uint32(buf[33:]) != crc32.Checksum(buf[:33], castagnoli) {
		return 0, progress{}
	}
	return n(1), progress{index: n(9), term: n(17), vote: n(25)}
}

// readMark returns what the mark in a file says. seq is 0 if there is no file, or
// none of its slots can be read.
func readMark(fsys *disk.FS, name string) (seq uint64, at progress, err error) {
	data, err := fsys.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, progress{}, nil
	}
	if err != nil {
		return 0, progress{}, err
	}
	for i := 0; i < len(data); i += markStride {
		if s, a := parseMark(data[i:]); s > seq {
			seq, at = s, a
		}
	}
	return seq, at, nil
}

const markPrefix = "mark-"

func markName(fsys *disk.FS, dir string, group uint32) string {
	return fsys.PathJoin(dir, fmt.Sprint(markPrefix, group))
}

// compareMark returns the mark's sequence, or ErrDamaged if it is ahead of now, or
// missing though it should be there. now is zero for a log that is new.
func compareMark(fsys *disk.FS, name string, now progress) (seq uint64, err error) {
	seq, at, err := readMark(fsys, name)
	switch {
	case err != nil:
		return 0, err
	case seq == 0 && now != progress{}:
		return 0, fmt.Errorf("%w: %s is missing or cannot be read", ErrDamaged, name)
	case at.index > now.index:
		return 0, fmt.Errorf("%w: the log ends at entry %d, and entry %d has been acknowledged", ErrDamaged, now.index, at.index)
	case at.term > now.term, at.vote > now.vote:
		return 0, fmt.Errorf("%w: term %d and vote in term %d are on the disk, %d and %d had been", ErrDamaged, now.term, now.vote, at.term, at.vote)
	}
	return seq, nil
}

// openMark opens the mark, making it if there is none, and sets it to now. fail is
// called if it cannot be synced later.
func openMark(fsys *disk.FS, name string, now progress, fail func(error)) (*mark, error) {
	seq, err := compareMark(fsys, name, now)
	if err != nil {
		return nil, err
	}
	m := &mark{seq: seq, fail: fail, syncing: make(chan struct{}, 1)}
	if m.file, err = fsys.OpenForUpdate(name); err != nil {
		return nil, err
	}
	if m.syncs, err = fsys.OpenForUpdate(name); err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	if err := errors.Join(m.reset(now), fsys.SyncDir(fsys.PathDir(name))); err != nil {
		return nil, errors.Join(err, m.file.Close(), m.syncs.Close())
	}
	m.timer = time.AfterFunc(time.Hour, m.sync)
	m.timer.Stop()
	return m, nil
}

// set moves the mark forward.
func (m *mark) set(at progress) error {
	if at == m.at {
		return nil
	}
	if err := m.write(at); err != nil {
		return err
	}
	if !m.pending.Swap(true) {
		m.timer.Reset(markLag)
	}
	return nil
}

func (m *mark) sync() {
	m.pending.Store(false)
	m.syncing <- struct{}{}
	defer func() { <-m.syncing }()
	if m.closed {
		return
	}
	if err := m.syncs.Sync(); err != nil {
		m.fail(err)
	}
}

// reset moves the mark, also back, and returns when both slots say so on the disk.
// It is called before what the mark proves is removed.
func (m *mark) reset(at progress) error {
	return errors.Join(m.write(at), m.write(at), m.file.Sync())
}

func (m *mark) write(at progress) error {
	m.seq++
	m.at = at
	_, err := m.file.WriteAt(encodeMark(m.seq, at), int64(m.seq%2)*markStride)
	return err
}

// close syncs the mark and closes it.
func (m *mark) close() error {
	m.timer.Stop()
	m.syncing <- struct{}{}
	defer func() { <-m.syncing }()
	m.closed = true
	return errors.Join(m.file.Sync(), m.file.Close(), m.syncs.Close())
}
