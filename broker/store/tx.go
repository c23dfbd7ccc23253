package store

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// A Tx is the writes of one log entry: all of them happen or none. It does not
// show its own writes to readers. It belongs to one goroutine.
type Tx struct {
	s *Store
	b *pebble.Batch
}

// Begin starts a Tx, to be ended by Commit or Discard.
func (s *Store) Begin() *Tx {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &Tx{s: s, b: s.db.NewBatch()}
}

// Set stores value under key. Both are copied.
func (t *Tx) Set(key, value []byte) { t.s.check("write", t.b.Set(key, value, nil)) }

// Delete removes key, which may have been set any number of times.
func (t *Tx) Delete(key []byte) { t.s.check("write", t.b.Delete(key, nil)) }

// DeleteOnce removes a key that was set exactly once since it last did not
// exist: the two writes vanish together. For any other key the outcome is
// undefined, so it is for keys that hold a number never used again.
func (t *Tx) DeleteOnce(key []byte) { t.s.check("write", t.b.SingleDelete(key, nil)) }

// DeleteRange removes all keys from lower on and below upper. Cheap once,
// poisonous by the thousand: for whole sessions and segments, not for items.
func (t *Tx) DeleteRange(lower, upper []byte) {
	t.s.check("write", t.b.DeleteRange(lower, upper, nil))
}

// Len is the size of what was written so far, in bytes.
func (t *Tx) Len() int { return t.b.Len() }

// Commit makes the writes visible. They are durable when Durable says so.
func (t *Tx) Commit() {
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	t.s.check("commit", t.b.Commit(pebble.NoSync))
	t.s.check("commit", t.b.Close())
}

// Discard drops the writes.
func (t *Tx) Discard() { t.s.check("discard", t.b.Close()) }

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
