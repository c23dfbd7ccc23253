package store

import (
	"encoding/binary"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
)

// A Tx is the writes of one log entry: all of them happen or none. It does not
// show its own writes to readers. It belongs to one goroutine.
//
// It only keeps them; what becomes of them at Commit, pending says.
type Tx struct {
	s      *Store
	data   []byte // keys and values of writes
	writes []write
}

// A write is one write as it was asked for. A DeleteRange has its upper bound as value.
type write struct {
	at         int    // of the key in data
	key, value uint32 // lengths
	kind       pebble.InternalKeyKind
}

// Begin starts a Tx, to be ended by Commit or Discard.
func (s *Store) Begin() *Tx {
	t := s.spare.Swap(nil)
	if t == nil {
		t = &Tx{s: s}
	}
	return t
}

// Set stores value under key. Both are copied.
func (t *Tx) Set(key, value []byte) { t.add(pebble.InternalKeyKindSet, key, value) }

// Delete removes key, which may have been set any number of times.
func (t *Tx) Delete(key []byte) { t.add(pebble.InternalKeyKindDelete, key, nil) }

// DeleteOnce removes a key that was set exactly once since it last did not
// exist, and is never set again: the two writes vanish together. For any other key
// the outcome is undefined, so it is for keys that hold a number never used again.
func (t *Tx) DeleteOnce(key []byte) { t.add(pebble.InternalKeyKindSingleDelete, key, nil) }

// DeleteRange removes all keys from lower on and below upper. Cheap once,
// poisonous by the thousand: for whole sessions and segments, not for items.
func (t *Tx) DeleteRange(lower, upper []byte) {
	t.add(pebble.InternalKeyKindRangeDelete, lower, upper)
}

func (t *Tx) add(kind pebble.InternalKeyKind, key, value []byte) {
	t.writes = append(t.writes, write{at: len(t.data), key: uint32(len(key)), value: uint32(len(value)), kind: kind})
	t.data = append(append(t.data, key...), value...)
}

// of returns the key and the value of a write, whose memory is data.
func (w *write) of(data []byte) (key, value []byte) {
	data = data[w.at:]
	return data[:w.key], data[w.key:][:w.value]
}

// Commit makes the writes visible. They are durable when Durable says so.
func (t *Tx) Commit() {
	t.s.mu.RLock()
	t.s.pending.take(t)
	t.s.mu.RUnlock()
	t.end()
}

// Discard drops the writes.
func (t *Tx) Discard() { t.end() }

// keepTx bounds the memory that a Tx keeps for the next, in bytes.
const keepTx = 4 << 20

func (t *Tx) end() {
	t.data, t.writes = t.data[:0], t.writes[:0]
	if cap(t.data)+cap(t.writes)*int(unsafe.Sizeof(write{})) <= keepTx {
		t.s.spare.Store(t)
	}
}

// Key starts a key of space in buf[:0]; the functions below append to it.
func Key(buf []byte, space Space) []byte { return append(buf[:0], byte(space)) }

// AppendUint64 appends v so that keys sort by it.
func AppendUint64(key []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(key, v) }

// AppendUint16 appends v so that keys sort by it.
func AppendUint16(key []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(key, v) }

// AppendName appends v with its length in front, for names that other parts of
// the key follow.
func AppendName(key []byte, v string) []byte {
	return append(binary.BigEndian.AppendUint16(key, uint16(len(v))), v...)
}

// Uint64At reads what AppendUint64 wrote at offset i.
func Uint64At(key []byte, i int) uint64 { return binary.BigEndian.Uint64(key[i:]) }

// End returns the least key greater than all that begin with prefix.
func End(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
