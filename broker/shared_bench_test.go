package broker

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

const (
	manyMembers = 10_000
	manyTopics  = 1_000
)

// heapInUse returns how many bytes are in use.
func heapInUse() float64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc)
}

// manyShare returns a Machine on which a group has many members, and one of those.
func manyShare(tb testing.TB, n int) (*driver, *machineUnderTest, *opened) {
	m := openMachine(tb, disk.Memory(), "/data/state", "n1")
	d := drive(tb, m)
	d.entry(&event.Raise{Level: uint8(NewestLevel)})
	s := Limits{}.Settings("")
	d.entry(&s)
	var one *opened
	for from := 0; from < n; from += 500 {
		var connects, subscribes []event.Command
		for i := from; i < min(n, from+500); i++ {
			connects = append(connects, &event.Connect{Client: fmt.Sprint("m", i), Principal: "alice", ReceiveMax: 65535})
		}
		for _, a := range d.entry(connects...) {
			one = a.value.(*opened)
			subscribes = append(subscribes, &event.Subscribe{Session: one.session, Epoch: one.epoch, Subs: []event.Subscription{{Filter: jobs, QoS: 1, ID: 7}}})
		}
		d.entry(subscribes...)
	}
	return d, m, one
}

func jobOn(topic int) *event.Publish {
	return publishing(fmt.Sprint("jobs/", topic), "x", 1)
}

// What an entry costs in which a member of a large group leaves, joins again, and an
// event comes on one of many topics; and what the lists of those topics hold.
func BenchmarkSharedJoin(b *testing.B) {
	d, m, one := manyShare(b, manyMembers)
	before := heapInUse()
	for n := 0; n < manyTopics; n += 100 {
		var all []event.Command
		for i := range 100 {
			all = append(all, jobOn(n+i))
		}
		d.entry(all...)
	}
	grew := heapInUse() - before
	for i := 0; b.Loop(); i++ {
		d.entry(
			&event.Unsubscribe{Session: one.session, Epoch: one.epoch, Filters: []string{jobs}},
			&event.Subscribe{Session: one.session, Epoch: one.epoch, Subs: []event.Subscription{{Filter: jobs, QoS: 1}}},
			jobOn(i%manyTopics),
		)
	}
	b.ReportMetric(grew/manyTopics, "B/topic")
	runtime.KeepAlive(m)
}

// What an ordered event costs for one of a large group.
func BenchmarkSharedApply(b *testing.B) {
	d, _, _ := manyShare(b, manyMembers)
	all := make([]event.Command, 100)
	i := 0
	for b.Loop() {
		for k := range all {
			all[k] = jobOn(i % manyTopics)
			i++
		}
		d.entry(all...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i), "ns/event")
}

// What it costs a node that a member leaves and joins a large group, with an event of
// QoS 0 on one of many topics in between.
func BenchmarkSharedJoinHere(b *testing.B) {
	n := newNode(b, Limits{})
	var last *Session
	for i := range manyMembers {
		last = n.connectNowhere(fmt.Sprint("m", i), 0, &nowhere{})
		last.attachHere()
	}
	pub := n.connectNowhere("pub", 0, &nowhere{})
	var w Wave
	publish := func(i int) {
		e := event.Event{Topic: fmt.Sprint("jobs/", i), Payload: []byte("x")}
		if _, err := pub.Publish(&e, 0, nil, 0, &w); err != nil {
			b.Fatal(err)
		}
		w.Flush()
	}
	before := heapInUse()
	for i := range manyTopics {
		publish(i)
	}
	grew := heapInUse() - before
	for i := 0; b.Loop(); i++ {
		n.loop.call(func(*Wave) { n.unsubscribe(last.subs[jobs]); delete(last.subs, jobs) })
		publish(i % manyTopics)
		last.attachHere()
		publish(i % manyTopics)
	}
	b.ReportMetric(grew/manyTopics, "B/topic")
}

// attachHere has a session subscribe as one of a group, as far as its node goes.
func (s *Session) attachHere() {
	s.b.loop.call(func(*Wave) { s.attach(event.Subscription{Filter: jobs}, 0, 1, 0) })
}
