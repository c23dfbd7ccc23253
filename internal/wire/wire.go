// Package wire has what both ends of MQTT need to read a packet: fields are taken off its
// front, and checked once, at the end.
//
// The front door of our broker (broker/mqtt) and the bridge to others read different packets,
// and answer for different faults; of one form are only the fields. Nothing here allocates:
// what is read aliases the packet.
package wire

import "encoding/binary"

// maxVarint is how many bytes a variable byte integer has at most.
const maxVarint = 4

// Fields takes fields off the front of a packet's body. What is not there sets Short, and
// everything after it reads as zero: a parser reads all it wants and asks once. For one
// goroutine.
type Fields struct {
	Rest  []byte // what has not been taken
	Short bool   // something was not there
}

// Take takes n bytes, nil if there are not so many. What is appended to them does not
// overwrite what follows.
func (f *Fields) Take(n int) []byte {
	if n > len(f.Rest) {
		f.Rest, f.Short = nil, true
		return nil
	}
	v := f.Rest[:n:n]
	f.Rest = f.Rest[n:]
	return v
}

// Byte takes a byte.
func (f *Fields) Byte() byte {
	if v := f.Take(1); v != nil {
		return v[0]
	}
	return 0
}

// Uint16 takes a two byte integer (5.0 1.5.2).
func (f *Fields) Uint16() uint16 {
	if v := f.Take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// Uint32 takes a four byte integer (5.0 1.5.3).
func (f *Fields) Uint32() uint32 {
	if v := f.Take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// Bytes takes a length of two bytes and what it counts (5.0 1.5.4, 1.5.6).
func (f *Fields) Bytes() []byte { return f.Take(int(f.Uint16())) }

// Varint takes a variable byte integer; one that is longer than it need be is as good as
// cut short (5.0 [MQTT-1.5.5-1]).
func (f *Fields) Varint() int {
	n := 0
	for i := range maxVarint {
		b := f.Byte()
		n |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				f.Short = true
			}
			return n
		}
	}
	f.Short = true
	return 0
}

// VarintLen is how many bytes n, of 0 to 268,435,455, takes as a variable byte integer.
func VarintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return maxVarint
}
