package event

import (
	"bytes"
	"runtime"
	"testing"
)

// reread says whether b, which decoded as v, is that value: encoding v and
// decoding it again gives v.
func reread(t *testing.T, v any) {
	t.Helper()
	b := encode(v)
	again, err := decodeLike(v, b)
	if err != nil || !same(again, v) {
		t.Errorf("%+v is written as %x, which reads as %+v, %v", v, b, again, err)
	}
}

// Whatever the bytes, an event decodes to a value that survives being written
// and read again, or to an error: it never panics.
func FuzzEvent(f *testing.F) {
	f.Add(encode(fullEvent()))
	f.Add(encode(&Event{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		if e.Decode(b) == nil {
			reread(t, &e)
		}
	})
}

// The same for every kind of command; the first byte chooses it.
func FuzzCommand(f *testing.F) {
	for _, form := range forms() {
		if c, ok := form.value.(Command); ok {
			f.Add(append([]byte{byte(c.Kind())}, encode(c)...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		c := newCommand(Kind(b[0]))
		if c != nil && Decode(c, b[1:]) == nil {
			reread(t, c)
		}
	})
}

// The same for wills and subscriptions, which are stored by themselves too.
func FuzzWillAndSubscription(f *testing.F) {
	f.Add(encode(fullWill()))
	f.Add(encode(&Subscription{Filter: "a/#", QoS: 1, ID: 9}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var w Will
		if w.Decode(b) == nil {
			reread(t, &w)
		}
		var s Subscription
		if s.Decode(b) == nil {
			reread(t, &s)
		}
	})
}

// Whatever the bytes, a batch is read to its end or to its first fault, and
// what was read of it is written the same.
func FuzzBatch(f *testing.F) {
	b := AppendHeader(nil, Header{Node: "n1", Incarnation: 1, Seq: 2})
	f.Add(b)
	for _, form := range forms() {
		if c, ok := form.value.(Command); ok {
			b = AppendCommand(b, c)
		}
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := ReadBatch(b)
		if err != nil {
			return
		}
		read := 0
		for {
			_, body, ok := batch.Next()
			if !ok {
				break
			}
			read += 5 + len(body)
		}
		if left := len(b) - read; batch.Err() == nil && left != len(AppendHeader(nil, batch.Header)) && left > 30+len(batch.Node) {
			t.Errorf("%d bytes of %d are neither header nor command", left, len(b))
		}
	})
}

// A few damaged bytes do not make us allocate: memory is at most a small
// multiple of what was there to read.
func TestDamageDoesNotAllocate(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x07}
	for _, form := range forms() {
		c, ok := form.value.(Command)
		if !ok {
			continue
		}
		b := encode(c)
		for at := range b {
			damaged := append(append(bytes.Clone(b[:at]), huge...), bytes.Repeat([]byte{1}, 1<<16)...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = decodeLike(c, damaged)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 32*uint64(len(damaged)) {
				t.Errorf("%s damaged at %d: %d bytes allocated for %d", form.name, at, got, len(damaged))
			}
		}
	}
}
