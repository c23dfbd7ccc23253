package broker

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// A late is the sink of a client that takes one event at a time, and keeps forms of it in the
// event as a protocol does.
type late struct {
	mu  sync.Mutex
	ids []uint16
	got []string
}

func (l *late) Deliver(d *Delivery, _ *Wave) Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := d.Event
	own := len(l.got) == 0 || e.Frames[0] == nil // the first is on its way to all at once
	whole := own && len(e.Payload) > 0 && bytes.Count(e.Payload, e.Payload[:1]) == len(e.Payload)
	e.Frames[0] = e.Payload
	l.ids = append(l.ids, d.PacketID)
	l.got = append(l.got, fmt.Sprint(e.Topic, " ", string(e.Payload[:1]), " ", len(e.Payload), " ", whole))
	return Sent
}

func (l *late) Release(uint16, *Wave) {}
func (l *late) Flush()                {}
func (l *late) End(error)             {}

// Many clients that are slow, and hear the same, do not have a copy of it each: what they keep
// is there once, and each sends it, as it was, when its client takes it.
func TestSlowClientsKeepOneCopy(t *testing.T) {
	const clients, events, size = 100, 40, 64 << 10
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	sinks, sessions := make([]*late, clients), make([]*Session, clients)
	for i := range clients {
		name := fmt.Sprint("slow", i)
		sinks[i] = &late{}
		s, _, _, err := n.Connect(ConnectRequest{Client: name, Principal: name, Version: 5, ReceiveMax: 1}, sinks[i])
		must(t, err)
		start(s)
		s.Subscribe([]event.Subscription{{Filter: "x", QoS: 1}}, func([]SubResult, *Wave) {})
		sessions[i] = s
	}
	var want []string
	payload := make([]byte, size)
	before := inUse()
	for i := range events {
		sign := byte('A' + i)
		for k := range payload {
			payload[k] = sign
		}
		must(t, pub.publish("x", string(payload), 1))
		want = append(want, fmt.Sprint("x ", string(sign), " ", size, " true"))
	}
	n.tick()
	if grown := inUse() - before; grown > clients*events*size/4 {
		t.Errorf("%d clients that wait for the same %d KiB keep %d KiB", clients, events*size>>10, grown>>10)
	}
	var all sync.WaitGroup
	for i, s := range sessions {
		all.Go(func() {
			for k := range events {
				sinks[i].mu.Lock()
				id := sinks[i].ids[k]
				sinks[i].mu.Unlock()
				var w Wave
				must(t, s.Settle(id, Acked, &w))
			}
		})
	}
	all.Wait()
	for i, sink := range sinks {
		if !slices.Equal(sink.got, want) {
			t.Fatalf("client %d got %q, want %q", i, sink.got, want)
		}
	}
}

// inUse returns how many bytes are in use.
func inUse() int64 {
	runtime.GC()
	var is runtime.MemStats
	runtime.ReadMemStats(&is)
	return int64(is.HeapAlloc)
}
