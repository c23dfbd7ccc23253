package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// Fields come off the front in their order, and what is not there is told once, and reads as
// zero from there on.
func TestFields(t *testing.T) {
	b := []byte{7, 1, 2, 1, 2, 3, 4, 0, 2, 'a', 'b', 0x80, 1, 9, 9}
	f := Fields{Rest: b}
	if one, two, four, text, n := f.Byte(), f.Uint16(), f.Uint32(), f.Bytes(), f.Varint(); one != 7 || two != 0x102 || four != 0x1020304 || string(text) != "ab" || n != 128 {
		t.Errorf("%d %#x %#x %q %d", one, two, four, text, n)
	}
	if f.Short || len(f.Rest) != 2 {
		t.Errorf("short: %v, %d bytes are left", f.Short, len(f.Rest))
	}
	taken := f.Take(1)
	if _ = append(taken, 'x'); b[14] != 9 {
		t.Error("what follows was overwritten")
	}
	if got := f.Uint16(); got != 0 || !f.Short {
		t.Errorf("cut short: %d, short: %v", got, f.Short)
	}
	if f.Byte() != 0 || f.Uint32() != 0 || f.Bytes() != nil || f.Varint() != 0 || !f.Short {
		t.Error("something is there behind what was cut short")
	}
}

// Every variable byte integer comes back from as many bytes as it takes, and from no more:
// 5.0 table 1-1, [MQTT-1.5.5-1].
func TestVarint(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455} {
		b := binary.AppendUvarint(nil, uint64(n)) // which has the same form
		if VarintLen(n) != len(b) {
			t.Errorf("%d takes %d bytes, and %d are told", n, len(b), VarintLen(n))
		}
		if f := (Fields{Rest: b}); f.Varint() != n || f.Short || len(f.Rest) != 0 {
			t.Errorf("%d does not come back from % x", n, b)
		}
		if f := (Fields{Rest: b[:len(b)-1]}); f.Varint() >= 0 && !f.Short {
			t.Errorf("%d cut short is taken", n)
		}
	}
	for _, b := range [][]byte{{0x80, 0}, {0xff, 0x80, 0}, {0x80, 0x80, 0x80, 0x80, 1}, bytes.Repeat([]byte{0xff}, 5)} {
		if f := (Fields{Rest: b}); f.Varint() >= 0 && !f.Short {
			t.Errorf("% x is taken for a variable byte integer", b)
		}
	}
}
