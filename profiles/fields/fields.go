// Package fields writes and reads what profiles keep: fields one after the other,
// behind the version of their order. A record is the replicated machine's: it is
// the same on every node, and fields are only ever added in a new version.
package fields

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// AppendText appends a string or bytes behind their length.
func AppendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendInt64 appends a number of fixed length, such as an instant's Nanos.
func AppendInt64(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

// A Reader takes fields from a record, in the order in which they were appended.
// It panics when they end too early or too late, or the record is of another
// version: that is damage which checksums have let through, or this program is
// too old, and to go on would make this node's state another than its peers'.
type Reader struct{ b []byte }

var errShort = errors.New("profiles/fields: a record ends too early, or too late")

// Read begins to read b, which is of that version.
func Read(b []byte, version byte) *Reader {
	r := &Reader{b}
	if v := r.Byte(); v != version {
		panic(fmt.Sprintf("profiles/fields: a record of version %d, this program knows %d", v, version))
	}
	return r
}

func (r *Reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		panic(errShort)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

// Byte takes a byte.
func (r *Reader) Byte() byte { return r.take(1)[0] }

// Int64 takes what AppendInt64 appended.
func (r *Reader) Int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

// Uvarint takes what binary.AppendUvarint appended.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		panic(errShort)
	}
	r.b = r.b[n:]
	return v
}

// Time takes an instant that was appended as its kind.Nanos.
func (r *Reader) Time() time.Time { return kind.Instant(r.Int64()) }

// Bytes takes what AppendText appended; it aliases the record.
func (r *Reader) Bytes() []byte { return r.take(r.Uvarint()) }

// Text takes what AppendText appended.
func (r *Reader) Text() string { return string(r.Bytes()) }

// Rest takes all that is left.
func (r *Reader) Rest() []byte { return r.take(uint64(len(r.b))) }

// End makes sure that nothing is left.
func (r *Reader) End() {
	if len(r.b) > 0 {
		panic(errShort)
	}
}
