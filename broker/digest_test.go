package broker

import (
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

// A digest that was asked for beforehand is that of the state after the first entry
// from the index on, whatever was applied while it was computed; what has been
// passed is refused, and of two that wait the later one is told.
func TestDigestFrom(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/state", "n1")
	d := drive(t, m)
	type told struct{ index, digest uint64 }
	answers := make(chan told, 10)
	ask := func(from uint64) bool {
		return m.DigestFrom(from, func(index, digest uint64) { answers <- told{index, digest} })
	}
	publish := func() {
		d.entry(&event.Publish{Event: &event.Event{Topic: "t", Payload: []byte{byte(d.index)}, Retain: true, QoS: 1, At: d.now}})
	}
	for from := range d.index + 1 {
		if ask(from) {
			t.Errorf("asked for entry %d, and %d has been applied", from, d.index)
		}
	}
	if !ask(d.index+2) || !ask(d.index+3) {
		t.Fatal("an entry to come was refused")
	}
	publish()
	publish()
	publish()
	at, want := m.Digest()
	publish()
	if got := <-answers; got != (told{at, want}) || at != d.index-1 {
		t.Errorf("got %+v, want %d, %d", got, at, want)
	}

	// Raft's own entries leave gaps, and a change of the membership is an entry.
	ask(d.index + 1)
	d.index += 5
	m.Configure(d.index, 1, []byte("config"))
	if got, digest := <-answers, d.index; got.index != digest {
		t.Errorf("got %+v, want index %d", got, digest)
	}
	publish()
	select {
	case got := <-answers:
		t.Errorf("told again: %+v", got)
	default:
	}
}
