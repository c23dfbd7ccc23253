package fields

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

func sample() []byte {
	b := AppendText([]byte{7}, "bob")
	b = AppendInt64(b, kind.Nanos(time.Unix(12, 34)))
	b = AppendInt64(b, 0)
	b = binary.AppendUvarint(b, 300)
	return append(AppendText(b, []byte{1, 2}), 9, 9)
}

// What was appended is read as it was.
func TestReader(t *testing.T) {
	r := Read(sample(), 7)
	if s := r.Text(); s != "bob" {
		t.Errorf("got %q", s)
	}
	if at := r.Time(); !at.Equal(time.Unix(12, 34)) {
		t.Errorf("got %v", at)
	}
	if at := r.Time(); !at.IsZero() {
		t.Errorf("got %v, want none", at)
	}
	if n, b, rest := r.Uvarint(), r.Bytes(), r.Rest(); n != 300 || string(b) != "\x01\x02" || string(rest) != "\t\t" {
		t.Errorf("got %d, %v, %v", n, b, rest)
	}
	r.End()
}

// A record that is cut anywhere, has more than it should, or is of another
// version is not taken for what it is not.
func TestDamage(t *testing.T) {
	read := func(b []byte) (panics bool) {
		defer func() { panics = recover() != nil }()
		r := Read(b, 7)
		r.Text()
		r.Time()
		r.Time()
		r.Uvarint()
		r.Bytes()
		r.take(2)
		r.End()
		return false
	}
	whole := sample()
	for n := range whole {
		if !read(whole[:n]) {
			t.Errorf("cut to %d bytes it is read", n)
		}
	}
	if read(whole) || !read(append(whole, 0)) || !read(append([]byte{8}, whole[1:]...)) {
		t.Error("the whole is not read, or more than it, or another version")
	}
}
