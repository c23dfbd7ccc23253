package broker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// looking is a Broker that can but read what a Machine has stored.
func looking(m *Machine) *Broker { return &Broker{machine: m, config: Config{Store: m.store}} }

// survivorsOf returns all entries that refer to bodies of segments of m, of those that
// are nearly empty or of all.
func survivorsOf(t testing.TB, m *Machine, all bool) []survivor {
	t.Helper()
	var segments []uint64
	for _, number := range slices.Sorted(maps.Keys(m.segments)) {
		if all || m.isNearlyEmpty(number) {
			segments = append(segments, number)
		}
	}
	found, err := looking(m).references(segments)
	must(t, err)
	return found
}

// copyAll has all that is left in nearly empty segments copied, and returns by how many
// entries.
func (d *driver) copyAll() (entries int) {
	d.t.Helper()
	for left := survivorsOf(d.t, d.machines[0].Machine, false); len(left) > 0; entries++ {
		c := &event.Copy{}
		c.Of, left = nextCopy(left)
		d.entry(c)
	}
	return entries
}

// bytesOf returns how many keys a space has, and what keys and values take.
func bytesOf(s *store.Store, space store.Space) (keys, bytes int) {
	s.Scan([]byte{byte(space)}, []byte{byte(space) + 1}, func(k, v []byte) bool {
		keys++
		bytes += len(k) + len(v)
		return true
	})
	return keys, bytes
}

// checkBodies says what is wrong with the bodies that m has: each entry has its own, no
// segment is there for nobody, and m knows how many refer to each.
func checkBodies(t testing.TB, m *Machine) {
	t.Helper()
	live, numbers := map[uint64]int{}, map[uint64]bool{}
	for _, key := range keysOf(m.store, store.Bodies) {
		number := store.Uint64At([]byte(key), 0)
		numbers[number] = true
		if m.segments[m.segmentOf(number)] == nil {
			t.Errorf("body %d is in no segment", number)
		}
	}
	refer := func(of string, key []byte, body uint64) {
		if live[m.segmentOf(body)]++; !numbers[body] {
			t.Errorf("entry %x of a %s refers to body %d, which is not there", key, of, body)
		}
	}
	m.store.Scan([]byte{byte(store.Queue)}, []byte{byte(store.Queue) + 1}, func(k, v []byte) bool {
		if e := mustEntry(v); e.body != 0 {
			refer("queue", k, e.body)
		}
		return true
	})
	m.store.Scan([]byte{byte(store.Streams)}, []byte{byte(store.Streams) + 1}, func(k, v []byte) bool {
		refer("stream", k, mustStreamed(v).body)
		return true
	})
	for number, s := range m.segments {
		if s.live != live[number] {
			t.Errorf("segment %d: %d entries refer to it, counted are %d", number, live[number], s.live)
		}
		if s.live == 0 && !m.isFilling(number) {
			t.Errorf("segment %d is there for nobody", number)
		}
	}
}

// A tally counts what the histories of a test have brought about: bodies that were
// copied, say.
type tally struct{ things, histories atomic.Uint64 }

// want has a test whose histories are to show what fail if, when the last of them has
// ended, there were so many, and they have not brought about as many.
func (c *tally) want(t *testing.T, what string, histories, want uint64) {
	t.Cleanup(func() {
		if n := c.things.Load(); n < want && c.histories.Load() >= histories && !t.Failed() {
			t.Errorf("%d %s in all histories, want %d at least", n, what, want)
		}
	})
}

// add counts those of another history.
func (c *tally) add(things uint64) {
	c.things.Add(things)
	c.histories.Add(1)
}

// compareBodies looks at the bodies of main.
func (r *modelRun) compareBodies() { checkBodies(r.t, r.main.Machine) }

// copyOf returns a Copy as it could come late: of some of the entries that refer to
// anything, and of such as there are not, some twice, in any order.
func (r *modelRun) copyOf(u *machineUnderTest) *event.Copy {
	c := &event.Copy{Of: []event.Reference{}}
	for _, s := range survivorsOf(r.t, u.Machine, true) {
		if r.copies.IntN(3) > 0 {
			c.Of = append(c.Of, s.Reference)
		}
		if r.copies.IntN(20) == 0 {
			c.Of = append(c.Of, s.Reference)
		}
	}
	for range r.copies.IntN(3) {
		c.Of = append(c.Of, event.Reference{Stream: r.copies.IntN(2) == 0, Owner: r.copies.Uint64N(9), At: r.copies.Uint64N(40)})
	}
	if r.copies.IntN(8) > 0 {
		slices.SortFunc(c.Of, compareReferences)
	}
	return c
}

// A sparsely is a history in which one session is away with one of each 1,024 events, and
// two that keep up have all the others as well.
type sparsely struct {
	*driver
	away    *opened
	there   [2]*opened
	payload string
	waiting int // events that wait for who is away
}

func awayWithFew(t testing.TB, payload int, machines ...*machineUnderTest) *sparsely {
	s := &sparsely{driver: drive(t, machines...), payload: strings.Repeat("x", payload)}
	s.entry(&event.Raise{Level: uint8(LevelStreams)})
	settings := Limits{QueueEvents: 1 << 40, QueueBytes: 1 << 50}.Settings("")
	s.entry(&settings)
	open := func(client, filter string) *opened {
		o := s.connect(event.Connect{Client: client, Principal: "alice", Expiry: event.Never, ReceiveMax: 65535})
		s.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: filter, QoS: 1}}})
		return o
	}
	s.away = open("away", "rare")
	s.entry(&event.Disconnect{Session: s.away.session, Epoch: s.away.epoch})
	for i := range s.there {
		s.there[i] = open(fmt.Sprint("there", i), "#")
	}
	return s
}

// publish publishes a segment's worth of events, of which the first is rare.
func (s *sparsely) publish(segments int) {
	const perEntry = 512
	for range segments {
		for n := 0; n < bodiesPerSegment; n += perEntry {
			var all []event.Command
			for i := range perEntry {
				topic := "common"
				if n+i == 0 {
					topic = "rare"
					s.waiting++
				}
				all = append(all, publishing(topic, s.payload, 1))
			}
			s.entry(all...)
			all = nil
			for _, o := range s.there {
				next := s.machines[0].numbers[o.session].queue.next
				all = append(all, &event.Settle{Session: o.session, Epoch: o.epoch, Below: next, Sent: next})
			}
			s.entry(all...)
		}
	}
}

// A session that is away with one of each 1,024 events keeps what it is to have, and not
// the others: what the state takes is what that takes, on each node, whatever becomes of
// one meanwhile; and when it is back it has them all, in their order.
func TestSurvivorsAreCopied(t *testing.T) {
	const segments, payload = 8, 64
	u, twin := openMachine(t, disk.Memory(), "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n1")
	s := awayWithFew(t, payload, u, twin)
	s.publish(segments)
	before, bytesBefore := bytesOf(u.store, store.Bodies)
	if before < (segments-1)*bodiesPerSegment {
		t.Fatalf("%d bodies are there before any was copied, want those of %d segments: nothing is shown", before, segments)
	}
	entries, copied := s.copyAll(), u.copies
	bodies, bytes := bytesOf(u.store, store.Bodies)
	// What is being filled stays: of the events that come, and of copies.
	if most := s.waiting + bodiesPerSegment; bodies > most {
		t.Errorf("%d bodies are left for %d entries, want at most %d", bodies, s.waiting, most)
	}
	if most := (s.waiting + bodiesPerSegment) * (payload + 64); bytes > most {
		t.Errorf("bodies take %d bytes (%d before), want at most %d", bytes, bytesBefore, most)
	}
	if int(copied) < segments-1 || int(copied) > s.waiting {
		t.Errorf("%d bodies were copied, by %d entries, for %d that wait", copied, entries, s.waiting)
	}
	checkBodies(t, u.Machine)

	// Another node begins with what there is midway, and one is started anew.
	must(t, twin.load())
	s.publish(segments)
	left := survivorsOf(t, u.Machine, false)
	c := &event.Copy{}
	for _, one := range left[:len(left)/2] {
		c.Of = append(c.Of, one.Reference)
	}
	s.entry(c)
	s.machines = append(s.machines, s.copyOf(u))
	s.copyAll()
	if again := u.copies; again != copied+segments {
		t.Errorf("%d bodies were copied in all, want %d: those of before are where they may stay", again, copied+segments)
	}
	checkBodies(t, u.Machine)

	back := s.connect(event.Connect{Client: "away", Principal: "alice", Expiry: event.Never, ReceiveMax: 65535})
	items := looking(u.Machine).readQueue(back.session, 0, back.next)
	if len(items) != 2*segments {
		t.Fatalf("back it has %d events, want %d", len(items), 2*segments)
	}
	for i, it := range items {
		if it.seq != uint64(i) || it.event.Topic != "rare" || string(it.event.Payload) != s.payload {
			t.Fatalf("event %d is number %d, %q of %d bytes", i, it.seq, it.event.Topic, len(it.event.Payload))
		}
	}
	s.entry(&event.Settle{Session: back.session, Epoch: back.epoch, Below: back.next, Sent: back.next})
	s.publish(1)
	if bodies, _ := bytesOf(u.store, store.Bodies); bodies > 2*bodiesPerSegment {
		t.Errorf("%d bodies are left when all was taken", bodies)
	}
}

// A Copy does what it can of what it says, and harm it does none: what is named twice,
// out of order, gone, or not worth it is left alone; no entry of the log makes the copies
// of two; and below the level that it came with it does nothing.
func TestCopyIsForgiving(t *testing.T) {
	u, twin := openMachine(t, disk.Memory(), "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n1")
	s := awayWithFew(t, 10, u, twin)
	s.publish(5)
	s.entry(publishing("rare", s.payload, 1)) // into what is being filled
	all := survivorsOf(t, u.Machine, false)
	if len(all) != 5 {
		t.Fatalf("%d survivors, want 5", len(all))
	}
	ref := func(n int) event.Reference { return all[n].Reference }
	nobody := event.Reference{Owner: 999, At: 1}
	for _, c := range []struct {
		what   string
		copies []*event.Copy
		want   uint64 // bodies copied
	}{
		{"nothing", []*event.Copy{{}}, 0},
		{"what there is not", []*event.Copy{{Of: []event.Reference{{Owner: s.away.session, At: 77}, nobody, {Stream: true, Owner: 3, At: 1}}}}, 0},
		{"in what is being filled, and in a group's queue that there is not", []*event.Copy{{Of: []event.Reference{{Owner: s.away.session, At: 5}, nobody}}}, 0},
		{"twice", []*event.Copy{{Of: []event.Reference{ref(0), ref(0)}}}, 1},
		{"copied before", []*event.Copy{{Of: []event.Reference{ref(0)}}}, 0},
		{"out of order", []*event.Copy{{Of: []event.Reference{ref(2), ref(1), ref(2)}}}, 1},
		{"two of them", []*event.Copy{{Of: []event.Reference{ref(1)}}, {Of: []event.Reference{ref(3)}}}, 1},
	} {
		before := u.copies
		var commands []event.Command
		for _, one := range c.copies {
			commands = append(commands, one)
		}
		s.entry(commands...)
		if got := u.copies - before; got != c.want {
			t.Errorf("%s: %d bodies copied, want %d", c.what, got, c.want)
		}
		checkBodies(t, u.Machine)
		must(t, twin.load())
	}

	// What the same entry takes away before, or adds, it cannot see.
	back := s.connect(event.Connect{Client: "away", Principal: "alice", Expiry: event.Never, ReceiveMax: 65535})
	before := u.copies
	s.entry(&event.Copy{Of: []event.Reference{ref(3), ref(4)}},
		&event.Settle{Session: back.session, Epoch: back.epoch, Below: 4, Sent: 4}, publishing("rare", "new", 1))
	if got := u.copies - before; got != 1 {
		t.Errorf("%d bodies copied beside one that the entry takes away, want 1", got)
	}
	checkBodies(t, u.Machine)
	must(t, twin.load())
	s.entry(&event.Settle{Session: back.session, Epoch: back.epoch, Below: 7, Sent: 7})
	checkBodies(t, u.Machine)

	low := openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, low)
	d.entry(&event.Copy{Of: []event.Reference{nobody}})
	if low.copying != nil || low.copies != 0 {
		t.Error("a Copy below its level is made")
	}
}

// One entry of the log copies no more than it may, in bodies, in bytes and in references,
// whatever the Copy says; what is proposed fits that.
func TestCopyIsBounded(t *testing.T) {
	large := strings.Repeat("y", 100<<10)
	for _, c := range []struct {
		what    string
		payload string
		events  int
		want    uint64
	}{
		{"bodies", "small", 3 * copiedMost, copiedMost},
		{"bytes", large, 20, 3},
	} {
		u := openMachine(t, disk.Memory(), "/data/state", "n1")
		s := awayWithFew(t, 10, u)
		u.segmentBits, u.survivors = 2, 12 // four bodies each, and all that refer to them
		must(t, u.load())
		for range c.events {
			s.entry(publishing("rare", c.payload, 1))
		}
		all := survivorsOf(t, u.Machine, false)
		every := &event.Copy{}
		for _, one := range all {
			every.Of = append(every.Of, one.Reference)
		}
		slices.SortFunc(every.Of, compareReferences)
		of, rest := nextCopy(all)
		if len(of) == 0 || len(of)+len(rest) != len(all) || len(of) > referencesMost {
			t.Errorf("%s: of %d references %d are proposed, and %d later", c.what, len(all), len(of), len(rest))
		}
		before := u.copies
		s.entry(every)
		if got := u.copies - before; got != c.want {
			t.Errorf("%s: %d bodies copied by one entry, want %d", c.what, got, c.want)
		}
		checkBodies(t, u.Machine)
	}
}

// Who has read an entry of a queue, and not its body yet, finds that where it has moved
// to; and what was taken meanwhile is over.
func TestBodyMovesWhileItIsRead(t *testing.T) {
	u := openMachine(t, disk.Memory(), "/data/state", "n1")
	s := awayWithFew(t, 10, u)
	s.publish(3)
	b := looking(u.Machine)
	read := func(seq uint64) queueItem {
		v, ok := u.store.Get(entryKey(nil, s.away.session, seq), nil)
		if !ok {
			t.Fatalf("entry %d is gone", seq)
		}
		return queueItem{seq: seq, entry: mustEntry(v)}
	}
	moved, taken := read(0), read(1)
	s.copyAll()
	back := s.connect(event.Connect{Client: "away", Principal: "alice", Expiry: event.Never, ReceiveMax: 65535})
	s.entry(&event.Settle{Session: back.session, Epoch: back.epoch, Sent: 2, Done: []uint64{1}})
	if now := read(0); now.body == moved.body || now.body <= firstCopy {
		t.Fatalf("body %d is now %d: nothing has moved", moved.body, now.body)
	}
	body, ok := b.bodyOf(s.away.session, &moved)
	var e event.Event
	if !ok || e.Decode(body) != nil || e.Topic != "rare" {
		t.Errorf("a body that has moved is %q, %v", body, ok)
	}
	if _, ok := b.bodyOf(s.away.session, &taken); ok {
		t.Error("an event that was taken is not over")
	}
}

// A node copies by itself what is left in segments that were nearly empty a round ago,
// and then leaves them alone; the session that was away has its events, also those that
// it is sent while they move.
func TestNodeCopiesByItself(t *testing.T) {
	n := newNode(t, Limits{})
	n.smallSegments(3, 3)
	far, _ := n.connect("far", true, event.Never)
	far.subscribe("rare", 1)
	far.s.Close(false, false, 0)
	var near []*client
	for i := range 2 {
		c, _ := n.connect(fmt.Sprint("near", i), true, event.Never, receiveMax(1000))
		c.subscribe("#", 1)
		near = append(near, c)
	}
	pub, _ := n.connect("pub", true, 0)
	const rare = 20
	for i := range rare {
		must(t, pub.publish("rare", fmt.Sprint(i), 1))
		for range 7 {
			must(t, pub.publish("common", "x", 1))
		}
	}
	for _, c := range near {
		c.awaitGot(8 * rare)
		c.ackAll()
	}
	n.told()
	if before := len(keysOf(n.machine.store, store.Bodies)); before < (rare-1)*8 {
		t.Fatalf("%d bodies are there: nothing is shown", before)
	}
	must(t, n.copyRound())
	if n.stats.BodiesCopied.Load() != 0 {
		t.Error("copied at first sight")
	}
	must(t, n.do(t.Context(), &event.Tick{}))
	must(t, n.copyRound())
	n.tick()
	if got := n.stats.BodiesCopied.Load(); got < rare-1 || n.stats.BytesCopied.Load() < got {
		t.Errorf("%d bodies copied, %d bytes, want %d at least", got, n.stats.BytesCopied.Load(), rare-1)
	}
	if left := len(keysOf(n.machine.store, store.Bodies)); left > rare+2*8 {
		t.Errorf("%d bodies are left for %d events", left, rare)
	}
	must(t, n.copyRound()) // that there is nothing more it has to see
	at := n.machine.Applied()
	must(t, n.copyRound())
	must(t, n.copyRound())
	if now := n.machine.Applied(); now != at {
		t.Errorf("%d entries, and nothing to do", now-at)
	}
	n.restart()
	far, _ = n.connect("far", false, event.Never)
	for i, g := range far.awaitGot(rare) {
		if g.payload != fmt.Sprint(i) {
			t.Errorf("event %d is %s", i, g.payload)
		}
	}
	checkBodies(t, n.machine)
}

// copyOf returns a Machine that has begun with a copy of u's state.
func (d *driver) copyOf(u *machineUnderTest) *machineUnderTest {
	d.t.Helper()
	other := openMachine(d.t, u.fs, "/data/other", "n1")
	d.t.Cleanup(func() { other.close(d.t) })
	_, _, err := u.Checkpoint("/data/copy")
	must(d.t, err)
	must(d.t, other.Restore("/data/copy"))
	other.life = u.life
	return other
}

// A machine that loses what it had not flushed, at any entry while bodies are copied,
// and applies its log anew from there, is where the others are.
func TestCopiesThroughCrashes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7))
	u := openMachine(t, disk.Memory(), "/data/state", "n1")
	faulty := openMachine(t, disk.Crashable(), "/data/state", "n1")
	defer func() { faulty.close(t) }()
	s := awayWithFew(t, 10, u)
	u.segmentBits, u.survivors = 2, 2
	must(t, u.load())
	follow := func() {
		for i := faulty.Applied(); i < s.index; i++ {
			faulty.Apply(i+1, 1, s.kept[i].stamp, s.kept[i].batches)
		}
		faulty.steps = nil
		want, _ := u.store.Digest(nil)
		if got, _ := faulty.store.Digest(nil); got != want {
			t.Fatalf("entry %d: after a crash the state is another:\n%s", s.index, difference(faulty.store, u.store))
		}
	}
	small := func() {
		faulty.life, faulty.segmentBits, faulty.survivors = u.life, 2, 2
		must(t, faulty.load())
	}
	small()
	for range 60 {
		s.few(4)
		if left := survivorsOf(t, u.Machine, false); len(left) > 0 {
			c := &event.Copy{}
			for _, one := range left {
				c.Of = append(c.Of, one.Reference)
			}
			slices.SortFunc(c.Of, compareReferences)
			s.entry(c)
		}
		if follow(); rng.IntN(2) == 0 {
			must(t, faulty.Flush())
		}
		if rng.IntN(2) == 0 {
			after := openMachine(t, faulty.fs.Crash(rng.IntN(101), rand.New(rand.NewPCG(rng.Uint64(), 0))), "/data/state", "n1")
			faulty.close(t)
			faulty = after
			small()
			follow()
		}
	}
	if u.copies < 100 {
		t.Errorf("%d bodies were copied: little is shown", u.copies)
	}
	checkBodies(t, faulty.Machine)
}

// BenchmarkCopy is what one entry costs that copies as many bodies as it may: by bodies
// of 64 bytes, and of 4 KiB.
func BenchmarkCopy(b *testing.B) {
	for _, payload := range []int{64, 4 << 10} {
		b.Run(fmt.Sprint("payload=", payload), func(b *testing.B) {
			n := bareNode(b, Limits{})
			u := &machineUnderTest{Machine: n.machine}
			u.deliver = func(a *applied) { u.steps = append(u.steps, *a) }
			s := awayWithFew(b, payload, u)
			b.Cleanup(n.Broker.Close)
			u.segmentBits, u.survivors = 2, 1
			must(b, u.load())
			var left []survivor
			copied := u.copies
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if len(left) < copiedMost {
					s.few(10 * copiedMost)
					left = survivorsOf(b, u.Machine, false)
				}
				c := &event.Copy{}
				c.Of, left = nextCopy(left)
				b.StartTimer()
				s.entry(c)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(u.copies-copied), "ns/body")
		})
	}
}

// few publishes so many rare events, each with three that nobody waits for any more.
func (s *sparsely) few(events int) {
	for range events {
		all := []event.Command{publishing("rare", s.payload, 1)}
		for range 3 {
			all = append(all, publishing("common", s.payload, 1))
		}
		s.entry(all...)
		all = nil
		for _, o := range s.there {
			next := s.machines[0].numbers[o.session].queue.next
			all = append(all, &event.Settle{Session: o.session, Epoch: o.epoch, Below: next, Sent: next})
		}
		s.entry(all...)
	}
}
