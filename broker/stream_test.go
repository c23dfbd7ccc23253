package broker

import (
	"fmt"
	"math"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// gone has so many durable sessions subscribe to a filter and go away.
func (d *driver) gone(sessions int, filter string) (all []*opened) {
	d.t.Helper()
	d.machines[0].limits.Sessions = max(d.machines[0].limits.Sessions, sessions+10)
	const atOnce = 1000
	for from := 0; from < sessions; from += atOnce {
		var connects, subscribes, leaves []event.Command
		for i := from; i < min(from+atOnce, sessions); i++ {
			connects = append(connects, &event.Connect{Client: fmt.Sprint("away", i), Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
		}
		for _, a := range d.entry(connects...) {
			o := a.value.(*opened)
			all = append(all, o)
			subscribes = append(subscribes, &event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: filter, QoS: 1}}})
			leaves = append(leaves, &event.Disconnect{Session: o.session, Epoch: o.epoch})
		}
		d.entry(subscribes...) // first, or some would be gone before there is a crowd
		d.entry(leaves...)
	}
	return all
}

// streaming is a driver of a machine that has streams, with bounds out of reach.
func streaming(t testing.TB) (*driver, *machineUnderTest) {
	u := openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, u)
	d.entry(&event.Raise{Level: uint8(LevelStreams)})
	settings := Limits{Sessions: 200_000}.Settings("")
	d.entry(&settings)
	return d, u
}

// benchStreaming is streaming with a store as a node has it.
func benchStreaming(b *testing.B) (*driver, *machineUnderTest) {
	n := bareNode(b, Limits{Sessions: 200_000})
	u := &machineUnderTest{Machine: n.machine}
	u.deliver = func(a *applied) { u.steps = append(u.steps, *a) }
	d := drive(b, u)
	b.Cleanup(n.Broker.Close)
	d.entry(&event.Raise{Level: uint8(LevelStreams)})
	return d, u
}

// An event that a thousand durable sessions subscribe to which are away is kept
// once; the thousand cost a key each. One that is back is told at once what waits
// for it, and has it a piece at a time; when all have ended nothing is left.
func TestAbsentSessionsCostNothing(t *testing.T) {
	const sessions, events, perEntry = 1000, 10_000, 100
	d, m := streaming(t)
	all := d.gone(sessions, "hot/#")
	for n := 0; n < events; n += perEntry {
		var batch []event.Command
		for i := range perEntry {
			batch = append(batch, publishing(fmt.Sprint("hot/", i%7), fmt.Sprint(n+i), 1))
		}
		d.entry(batch...)
	}
	keys := map[string]int{}
	for name, space := range map[string]store.Space{
		"queue entries": store.Queue, "entries of streams": store.Streams, "bodies": store.Bodies, "streams": store.Heads, "debts": store.Debts,
	} {
		keys[name] = len(keysOf(m.store, space))
	}
	want := map[string]int{"queue entries": 0, "entries of streams": events, "bodies": events, "streams": 1, "debts": sessions}
	if fmt.Sprint(keys) != fmt.Sprint(want) {
		t.Errorf("the store has %v, want %v", keys, want)
	}

	o := d.connect(event.Connect{Client: "away7", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
	if o.next != events || o.ready == 0 || o.ready > payPiece {
		t.Errorf("back it has %d events, and may read up to %d, want %d and no more than %d", o.next, o.ready, events, payPiece)
	}
	r, most := m.numbers[o.session], uint64(0)
	for below := uint64(0); below < events; {
		below = min(r.ready(), r.queue.next)
		d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: below, Sent: below})
		most = max(most, r.queue.count)
	}
	if most > payAhead || r.queue.count != 0 || len(r.debts) != 0 {
		t.Errorf("while it was paid its queue had up to %d entries, want at most %d; then %d, and %d debts", most, payAhead, r.queue.count, len(r.debts))
	}
	if before, now := len(keysOf(m.store, store.Streams)), events; before != now {
		t.Errorf("others are owed %d events, of which %d are left", now, before)
	}

	d.now += 1e9
	for i := range all {
		o := d.connect(event.Connect{Client: fmt.Sprint("away", i), Principal: "alice@a", Clean: true})
		d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	}
	for range 2 * events / itemsPerWake {
		d.entry(&event.Tick{})
	}
	for name, space := range map[string]store.Space{
		"queue entries": store.Queue, "entries of streams": store.Streams, "streams": store.Heads, "debts": store.Debts,
	} {
		if n := len(keysOf(m.store, space)); n != 0 {
			t.Errorf("%d %s are left when all sessions have ended", n, name)
		}
	}
	if n := len(keysOf(m.store, store.Bodies)); n > bodiesPerSegment {
		t.Errorf("%d bodies are left when all sessions have ended, want no more than the newest segment", n)
	}
}

// What a session that is away for very long has missed keeps of a stream what one
// queue may hold, and no more; when it is back it is told how much is lost.
func TestStreamHasTheBoundOfAQueue(t *testing.T) {
	d, m := streaming(t)
	settings := Limits{Sessions: 100, QueueEvents: 50}.Settings("")
	d.entry(&settings)
	d.gone(crowdDefault, "hot")
	for n := range 500 {
		d.entry(publishing("hot", fmt.Sprint(n), 1))
	}
	if n := len(keysOf(m.store, store.Streams)); n > 51 {
		t.Errorf("a stream has %d entries, want at most 50, and that of the last entry of the log", n)
	}
	o := d.connect(event.Connect{Client: "away3", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
	if o.next != 500 || o.below != 450 || o.dropped != 450 {
		t.Errorf("back it has events from %d to %d, and %d are lost; want 450, 500, 450", o.below, o.next, o.dropped)
	}
}

// Where fewer subscribe, or a window or a rule that denies has a part in it, or a
// level before streams is in force, sessions that are away have entries.
func TestNotEverythingIsAStream(t *testing.T) {
	for name, c := range map[string]struct {
		sessions int
		policy   string
		level    Level
		want     bool
	}{
		"a crowd":         {crowdDefault, "all", LevelStreams, true},
		"fewer":           {crowdDefault - 1, "all", LevelStreams, false},
		"a window":        {crowdDefault, "windows", LevelStreams, false},
		"denied in part":  {crowdDefault, "breaks", LevelStreams, false},
		"an earlier time": {crowdDefault, "all", LevelStreams - 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := openMachine(t, disk.Memory(), "/data/state", "n1")
			d := drive(t, u)
			d.entry(&event.Raise{Level: uint8(c.level)}, &event.Policy{Data: []byte(c.policy)})
			settings := Limits{Sessions: 100}.Settings("")
			d.entry(&settings)
			filter := "a/#"
			if c.policy == "breaks" {
				filter = "#"
			}
			d.gone(c.sessions, filter)
			e := publishing("a/1", "x", 1)
			e.Event.At = d.now
			d.entry(e)
			if got := len(keysOf(u.store, store.Streams)) > 0; got != c.want {
				t.Errorf("in a stream: %v, want %v; there are %d queue entries", got, c.want, len(keysOf(u.store, store.Queue)))
			}
			if got := len(keysOf(u.store, store.Queue)) == c.sessions; got == c.want {
				t.Errorf("%d queue entries for %d sessions", len(keysOf(u.store, store.Queue)), c.sessions)
			}
		})
	}
}

// A batch is weighed by what its events become: a stream is one, whoever is away.
func TestStreamsWeighOne(t *testing.T) {
	d, m := streaming(t)
	d.gone(3*fewSubscriptions, "hot")
	o := d.connect(event.Connect{Client: "here", Principal: "alice@a", Expiry: 60, ReceiveMax: 20})
	var subs []event.Subscription
	for i := range fewSubscriptions {
		subs = append(subs, event.Subscription{Filter: fmt.Sprint("cold/", i), QoS: 1})
	}
	subs = append(subs, event.Subscription{Filter: "hot", QoS: 1})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: subs})
	if got := m.weigh(publishing("hot", "x", 1)); got != 2 {
		t.Errorf("an event for one that is there and %d that are away weighs %d, want 2", 3*fewSubscriptions, got)
	}
	d.entry(&event.Policy{Data: []byte("windows")})
	if got := m.weigh(publishing("hot", "x", 1)); got < 3*fewSubscriptions {
		t.Errorf("when all have left their streams it weighs %d, want %d", got, 3*fewSubscriptions+1)
	}
}

// What the lists of who has events queued remember of permissions is forgotten when
// an owner permits otherwise, also where streams have lists of their own.
func TestStreamsForgetVerdicts(t *testing.T) {
	d, m := streaming(t)
	d.gone(crowdDefault, "hot")
	o := d.connect(event.Connect{Client: "here", Principal: "alice@a", Expiry: 60, ReceiveMax: 20})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "cold", QoS: 1}}})
	d.entry(publishing("cold", "x", 1))
	before := m.fanouts().LookupString("cold")
	if m.fanouts() == m.durable || !before.targets[0].known {
		t.Fatal("there is nothing to forget")
	}
	m.out = &applied{}
	m.regrant()
	m.out = nil
	if after := m.fanouts().LookupString("cold"); after == before {
		t.Error("a verdict is remembered")
	}
}

// BenchmarkAbsent is what the Machine does for a durable event that so many
// sessions subscribe to which are away, and one that is there and has taken it by
// the next entry.
func BenchmarkAbsent(b *testing.B) {
	const perEntry = 100
	for _, away := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprint("away=", away), func(b *testing.B) {
			d, u := benchStreaming(b)
			d.gone(away, "hot/#")
			m := u.Machine
			o := d.connect(event.Connect{Client: "here", Principal: "alice@a", Expiry: 3600, ReceiveMax: 65535})
			d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "hot/#", QoS: 1}}})
			var one applied
			m.deliver, m.spare = func(a *applied) { a.reset() }, func() *applied { return &one }
			publish := event.Command(publishing("hot/1", string(make([]byte, 64)), 1))
			var batch []byte
			b.ReportAllocs()
			for b.Loop() {
				d.seq++
				batch = event.AppendHeader(batch[:0], event.Header{Node: "n1", Incarnation: 1 << lifeBits, Seq: d.seq})
				next := m.numbers[o.session].queue.next
				batch = event.AppendCommand(batch, &event.Settle{Session: o.session, Epoch: o.epoch, Below: next, Sent: next})
				for range perEntry {
					batch = event.AppendCommand(batch, publish)
				}
				d.index++
				m.Apply(d.index, 1, d.now, [][]byte{batch})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perEntry), "ns/event")
		})
	}
}

// BenchmarkPay is what it costs to queue for a session that is back what a stream
// owes it.
func BenchmarkPay(b *testing.B) {
	const events = 10_000
	d, u := benchStreaming(b)
	d.gone(crowdDefault, "hot")
	var batch []event.Command
	for range events {
		batch = append(batch, publishing("hot", string(make([]byte, 64)), 1))
	}
	for b.Loop() {
		b.StopTimer()
		d.entry(batch...)
		o := d.connect(event.Connect{Client: "away3", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
		r := u.numbers[o.session]
		b.StartTimer()
		for len(r.debts) > 0 {
			below := min(r.ready(), r.queue.next)
			d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: below, Sent: below})
		}
		b.StopTimer()
		d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: math.MaxUint64 >> 1, Sent: math.MaxUint64 >> 1})
		d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
}

// What waits for a session is told exactly, by whatever way it waits: in its queue, owed by
// streams that have counted it, or have not yet; when those push something out, while it is
// paid, and when it has been taken.
func TestStoredTellsWhatWaits(t *testing.T) {
	d, m := streaming(t)
	waits := func(when string, want uint64) {
		t.Helper()
		if is, ok := storedSession(m.store, "away3"); !ok || is.Waiting != want {
			t.Errorf("%s: %d events wait, want %d", when, is.Waiting, want)
		}
	}
	d.gone(crowdDefault, "hot")
	waits("away", 0)
	for n := range 100 {
		d.entry(publishing("hot", fmt.Sprint(n), 1))
		waits("owed by a stream", uint64(n+1))
	}
	o := d.connect(event.Connect{Client: "away3", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
	waits("back", 100)
	d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: 30, Sent: 30})
	waits("some are taken", 70)
	d.entry(publishing("hot", "here", 1))
	waits("one more comes", 71)
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	for n := range 10 {
		d.entry(publishing("hot", fmt.Sprint(n), 1))
		waits("away again, with a debt", uint64(72+n))
	}
	settings := Limits{Sessions: 100, QueueEvents: 50}.Settings("")
	d.entry(&settings)
	for range 200 {
		d.entry(publishing("hot", "x", 1))
	}
	o = d.connect(event.Connect{Client: "away3", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
	r := m.numbers[o.session]
	owed, _ := r.owed()
	waits("past its bound, and back", 50)
	if n := r.queue.count + owed; n != 50 {
		t.Errorf("it has %d, want 50", n)
	}
	for below := uint64(0); below < r.queue.next; {
		below = min(r.ready(), r.queue.next)
		d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: below, Sent: below})
		owed, _ := r.owed()
		waits("while it is paid", r.queue.count+owed)
	}
	waits("all is taken", 0)
}
