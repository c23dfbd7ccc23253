package broker

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

// modelLimits are small, so that random commands meet them.
var modelLimits = Limits{
	Sessions: 8, SubscriptionsPerSession: 4, RetainedTopics: 6, QueueEvents: 12, QueueBytes: 1500,
}.WithDefaults()

var modelPolicies = map[string]*rules{
	"all":      delaying(parseRules("allow * #"), DelayLimits{Longest: 7200, OwnerEvents: 6, Events: 9}),
	"some":     delaying(parseRules("allow alice@a #\nallow bob@b a/# subscribe\nallow bob@b b/#"), DelayLimits{OwnerBytes: 250, Bytes: 400}),
	"windows":  parseRules("allow * # publish\nallow * a/# 08:00-17:00\nallow * b/# 12:00-13:00\nallow alice@a c/#"),
	"breaks":   parseRules("allow * #\ndeny bob@b a/# 10:00-10:30 subscribe\ndeny * b/1 09:00-11:00"),
	"trap":     parseRules("allow * #\npanic * trap/#"),
	"half":     parseRules("allow * # publish\nallow * a/#\nallow alice@a b/#\ndeny bob@b a/2 subscribe"),
	"noon":     parseRules("allow * #\ndeny idle jobs/1 12:00-12:10 subscribe"),
	"no wills": parseRules("allow * #\ndeny * a/will publish\ndeny * b/will publish"),
}

// A machineUnderTest is a Machine with what it gave its node to do.
type machineUnderTest struct {
	*Machine
	fs    *disk.FS
	steps []applied // of the entries since it was last asked
}

func openMachine(t testing.TB, fs *disk.FS, dir, node string) *machineUnderTest {
	t.Helper()
	s, err := store.Open(store.Options{
		Dir: dir, FS: fs, Newest: uint8(NewestLevel), Logger: slog.New(slog.DiscardHandler), MemTable: 64 << 10, Cache: 1 << 20,
		Die: func(r string) { panic(r) },
	})
	if err != nil {
		t.Fatal(err)
	}
	u := &machineUnderTest{fs: fs}
	u.open(t, s, node)
	return u
}

func (u *machineUnderTest) open(t testing.TB, s *store.Store, node string) {
	t.Helper()
	m, err := newMachine(s, func(name []byte, _ string) (Authorizer, error) {
		if p := modelPolicies[string(name)]; p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("no policy %q", name)
	}, modelLimits, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.node = node
	m.deliver = func(a *applied) { u.steps = append(u.steps, *a) }
	u.Machine = m
}

func (u *machineUnderTest) close(t testing.TB) {
	t.Helper()
	if err := u.store.Close(); err != nil {
		t.Error(err)
	}
}

// A modelRun is one history and all who live through it.
type modelRun struct {
	t       *testing.T
	rng     *rand.Rand
	plain   *plain
	main    *machineUnderTest // is node n1, and is looked into
	twin    *machineUnderTest // is node n2
	faulty  *machineUnderTest // loses what it had not flushed, now and then
	copied  *machineUnderTest // began with a copy of main's state; nil until then
	index   uint64
	now     int64
	entries []kept
	lives   map[string]uint64
	seqs    map[string]uint64
	life    uint64
	streams streamTest
	slowly  bool       // debts are paid slowly
	copies  *rand.Rand // for what is copied: a stream of its own
	made    uint64     // copies
	orphans uint64     // how many there were after entries, in all
	rising  bool       // somebody is to raise the level
	mixed   *mixed
	delayed uint64 // events that were published when their time had come
}

// Random histories, which begin at the first level and are raised some time later,
// by one or more, leave a Machine where the plain model says: the same
// answers, the same events in the same order, the same sessions, queues,
// retained events and subscriptions. And whatever happens to a Machine besides
// (it is another node, it loses what was not flushed and replays, it begins
// with a copy of another's state) its digest is that of the first.
func TestMachineModel(t *testing.T) {
	entries := effort.Rounds(150, 400)
	var made, delayed, orphans tally
	made.want(t, "bodies were copied", 4, uint64(entries))
	orphans.want(t, "subscriptions have outlasted their sessions", 8, uint64(entries)/10)
	delayed.want(t, "delayed events were published", 4, uint64(entries)/10)
	effort.ParallelSeeds(t, func(t *testing.T, seed uint64) {
		r := newModelRun(t, seed)
		defer r.close() // not by Cleanup: T keeps the function, and so all of r, until the last seed has ended
		r.run(entries)
		made.add(r.made)
		delayed.add(r.delayed)
		orphans.add(r.orphans)
	})
}

func newModelRun(t *testing.T, seed uint64) *modelRun {
	return newRunWith(t, seed, streamTest(seed%4))
}

func newRunWith(t *testing.T, seed uint64, streams streamTest) *modelRun {
	r := &modelRun{
		t: t, streams: streams, slowly: seed%8 >= 4, rng: rand.New(rand.NewPCG(seed, 0)), copies: rand.New(rand.NewPCG(seed, 2)), plain: newPlain(modelLimits, modelPolicies),
		main: openMachine(t, disk.Memory(), "/data/state", "n1"), twin: openMachine(t, disk.Memory(), "/data/state", "n2"),
		faulty: openMachine(t, disk.Crashable(), "/data/state", "n3"),
		lives:  map[string]uint64{}, seqs: map[string]uint64{},
		now: time.Date(2026, 3, 9, 7, 55, 0, 0, time.UTC).UnixNano(),
	}
	r.beginStreams()
	return r
}

func (r *modelRun) close() {
	r.main.close(r.t)
	r.twin.close(r.t)
	r.faulty.close(r.t)
	if r.copied != nil {
		r.copied.close(r.t)
	}
}

func (r *modelRun) run(entries int) {
	raisedAt := r.rng.IntN(entries / 3)
	for n := range entries {
		r.rising = n >= raisedAt
		r.entry()
		r.compare()
		if r.t.Failed() {
			r.t.Fatalf("after entry %d; the last: %s", r.index, r.describe(r.entries[len(r.entries)-1]))
		}
		if r.rng.IntN(25) == 0 {
			r.crash()
		}
		if n == entries/2 {
			r.copy()
		}
	}
	r.drain()
}

// entry has everybody apply one more entry.
func (r *modelRun) entry() {
	r.now += []int64{0, 1e6, 1e9, 20e9, 10 * 60e9, 3 * 3600e9}[min(r.rng.IntN(9), 5)]
	stamp := r.now
	if r.rng.IntN(10) == 0 {
		stamp -= 1e9 // it does not run back
	}
	var batches [][]byte
	for range 1 + r.rng.IntN(3) {
		batches = append(batches, r.batch())
	}
	r.index += uint64(1 + r.rng.IntN(2)) // some indexes are Raft's own
	r.keep(stamp, batches)
	// Whose answers are whose: n1 may just have begun anew.
	r.main.life, r.twin.life = r.lives["n1"], r.lives["n2"]
	r.plain.apply(r.index, stamp, batches)
	r.main.Apply(r.index, 1, stamp, batches)
	r.twin.Apply(r.index, 1, stamp, batches)
	r.faulty.Apply(r.index, 1, stamp, batches)
	if r.copied != nil {
		r.copied.Apply(r.index, 1, stamp, batches)
	}
}

// batch returns a batch of some node: mostly its next, now and then a repeat,
// one after a gap, one of a former life, or the first of a new life.
func (r *modelRun) batch() []byte {
	node := []string{"n1", "n2"}[r.rng.IntN(2)]
	if r.lives[node] == 0 || r.rng.IntN(40) == 0 || r.plain.nodes[node].closed && r.rng.IntN(3) == 0 {
		r.life++
		r.lives[node], r.seqs[node] = r.life<<lifeBits+uint64(r.rng.IntN(9)), 1
		b := event.AppendHeader(nil, event.Header{Node: node, Incarnation: r.lives[node], Seq: 1})
		return event.AppendCommand(b, &event.NodeUp{At: r.now})
	}
	h := event.Header{Node: node, Incarnation: r.lives[node], Seq: r.seqs[node] + 1}
	switch r.rng.IntN(30) {
	case 0:
		h.Seq = 1 + r.rng.Uint64N(h.Seq)
	case 1:
		h.Seq += 1 + r.rng.Uint64N(3)
	case 2:
		h.Incarnation, h.Seq = 1+r.rng.Uint64N(h.Incarnation-1), 1+r.rng.Uint64N(2)
	}
	if h.Incarnation == r.lives[node] && h.Seq == r.seqs[node]+1 {
		r.seqs[node]++
	}
	b := event.AppendHeader(nil, h)
	for range 1 + r.rng.IntN(4) {
		b = event.AppendCommand(b, r.command())
		if r.copies.IntN(3) == 0 {
			b = event.AppendCommand(b, r.copyOf(r.main))
		}
	}
	return b
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

var (
	modelTopics  = []string{"a/1", "a/2", "a/3", "b/1", "b/2", "c/1", "a/will", "b/will", "a", "$s/1"}
	modelFilters = []string{"a/1", "a/+", "a/#", "+/1", "#", "b/#", "b/1", "c/1", "$s/#"}
)

func (r *modelRun) command() event.Command {
	rng := r.rng
	if r.rising && r.plain.level < r.streams.level() && rng.IntN(4) == 0 {
		return raising(pick(rng, r.plain.level+1, r.streams.level()))
	}
	switch {
	case r.mixed != nil && rng.IntN(20) == 0:
		return r.giveBack()
	case r.plain.level >= LevelDelayed && rng.IntN(60) == 0:
		return r.undelay()
	}
	switch n := rng.IntN(100); {
	case n < 14:
		return r.connect()
	case n < 19:
		s := r.session()
		c := &event.Disconnect{
			Session: s.number, Epoch: s.epoch, PublishWill: rng.IntN(2) == 0, SetExpiry: rng.IntN(3) == 0,
			Expiry: pick[uint32](rng, 0, 30, 3600, event.Never), Sent: r.sent(s), At: r.now,
		}
		if c.Exact = r.plain.level >= LevelExact && rng.IntN(2) == 0; c.Exact {
			c.Maybe = min(c.Sent+rng.Uint64N(4), r.ready(s))
		}
		return c
	case n < 30:
		return r.subscribe()
	case n < 34:
		s := r.session()
		return &event.Unsubscribe{Session: s.number, Epoch: s.epoch, Filters: []string{pick(rng, modelFilters...), pick(rng, modelFilters...)}}
	case n < 68:
		return r.publish()
	case n < 72:
		s := r.session()
		return &event.Release{Session: s.number, Epoch: s.epoch, PacketID: uint16(1 + rng.IntN(3))}
	case n < 89:
		return r.settle()
	case n < 95:
		return r.replay()
	case n == 95 && rng.IntN(2) == 0:
		node := pick(rng, "n1", "n2", "n4")
		return &event.NodeDown{Node: node, Incarnation: max(r.lives[node], 1) - uint64(rng.IntN(5)/4), At: r.now}
	case n < 98:
		return &event.Policy{Data: []byte(r.streams.policy(pick(rng, "all", "some", "windows", "breaks", "no wills", "windows", "unheard of")))}
	case n < 99:
		s := Limits{ // of queues no less, where it matters what has expired
			Sessions: pick(rng, 5, 8, 9), SubscriptionsPerSession: pick(rng, 2, 4, 6), RetainedTopics: pick(rng, 3, 6, 9),
			QueueEvents: pick(rng, 1, 3, 12, 20), QueueBytes: pick[int64](rng, 200, 1500, 3000),
		}.Settings("")
		r.widen(&s)
		if rng.IntN(9) == 0 {
			s.QueueEvents = 0 // refused
		}
		return &s
	case rng.IntN(2) == 0:
		return raising(Level(1 + rng.IntN(int(r.plain.level)))) // which has been reached
	}
	return &event.Tick{}
}

func (r *modelRun) connect() *event.Connect {
	rng := r.rng
	c := &event.Connect{
		Client: pick(rng, "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9@b", "c10"), Version: 5, Clean: rng.IntN(5) == 0,
		Expiry: pick[uint32](rng, 0, 30, 3600, 3600, 3600, event.Never), ReceiveMax: pick[uint16](rng, 0, 1, 2, 5, 65535), At: r.now,
	}
	c.Principal = "alice@a"
	if slices.Contains([]string{"c2", "c4", "c6"}, c.Client) != (rng.IntN(20) == 0) {
		c.Principal = "bob@b"
	}
	if c.Client == "c9@b" {
		c.Principal = ""
	}
	if rng.IntN(2) == 0 {
		c.Will = &event.Will{
			Topic: pick(rng, "a/will", "b/will", "a/1"), Payload: []byte(pick(rng, "gone", "gone", "")), QoS: uint8(rng.IntN(3)),
			Retain: rng.IntN(2) == 0, Delay: pick[uint32](rng, 0, 0, 10, 7200), Expiry: pick[uint32](rng, 0, 60), Expires: rng.IntN(3) == 0 && r.streams != lastingStreams,
		}
		r.mixed.name(&c.Will.Payload)
	}
	return c
}

// session returns one to send a command for: mostly one that is connected, with
// its epoch; now and then with an old one, one that is away, or none.
func (r *modelRun) session() *plainSession {
	list := slices.DeleteFunc(r.plain.byNumber(), func(s *plainSession) bool { return !s.connected() && r.rng.IntN(10) != 0 })
	if len(list) == 0 || r.rng.IntN(30) == 0 {
		return &plainSession{number: 1 + r.rng.Uint64N(20), epoch: r.rng.Uint64N(50)}
	}
	s := *pick(r.rng, list...)
	if r.rng.IntN(25) == 0 {
		s.epoch--
	}
	return &s
}

func (r *modelRun) subscribe() *event.Subscribe {
	s := r.session()
	c := &event.Subscribe{Session: s.number, Epoch: s.epoch}
	for range 1 + r.rng.IntN(3) {
		c.Subs = append(c.Subs, event.Subscription{
			Filter: pick(r.rng, modelFilters...), QoS: uint8(r.rng.IntN(3)), NoLocal: r.rng.IntN(4) == 0,
			RetainAsPublished: r.rng.IntN(3) == 0, RetainHandling: uint8(r.rng.IntN(3)), ID: uint32(r.rng.IntN(3)),
		})
		if r.plain.level >= LevelNamed {
			c.Subs[len(c.Subs)-1].Named = pick(r.rng, "", "", "old", "older")
		}
		if r.mixed != nil && r.plain.level >= LevelShared && r.rng.IntN(2) == 0 {
			r.shared(&c.Subs[len(c.Subs)-1])
		}
	}
	return c
}

func (r *modelRun) publish() *event.Publish {
	s, rng := r.session(), r.rng
	c := &event.Publish{Epoch: s.epoch, Event: &event.Event{
		Topic: pick(rng, modelTopics...), Payload: []byte(fmt.Sprint(rng.IntN(1000), strings.Repeat("x", rng.IntN(60)))),
		QoS: uint8(rng.IntN(3)), Retain: rng.IntN(4) == 0, At: r.now + pick[int64](rng, 0, 0, -1e9, -3600e9, 60e9), Origin: s.number,
	}}
	if rng.IntN(8) == 0 {
		c.Event.Payload = nil
	}
	r.mixed.name(&c.Event.Payload)
	if rng.IntN(4) == 0 && r.streams != lastingStreams {
		c.Event.Expires = r.now + pick[int64](rng, 1e9, 60e9, 3600e9, -1e9)
	}
	if c.Event.QoS == 2 {
		c.PacketID = uint16(rng.IntN(4))
	}
	if rng.IntN(20) == 0 {
		c.Event.Origin, c.Epoch, c.PacketID = 0, 0, 0
	} else {
		r.delay(c.Event)
	}
	return c
}

// sent returns a number up to which a session may say that it has sent.
func (r *modelRun) sent(s *plainSession) uint64 {
	sent := s.next
	if len(s.queue) != 0 {
		sent = s.queue[r.rng.IntN(len(s.queue))].seq + r.rng.Uint64N(2)
	}
	return min(sent, r.ready(s)) // nothing beyond can have been
}

// settle tells of entries that were there before the entry under construction,
// as any client could: in and out of order.
func (r *modelRun) settle() event.Command {
	s := r.session()
	if r.rng.IntN(6) == 0 {
		return r.passOver(s)
	}
	c := &event.Settle{Session: s.number, Epoch: s.epoch, Sent: r.sent(s)}
	if s.below() > 0 {
		c.Below = s.below()
	}
	for i, e := range s.queue {
		if e.seq >= r.ready(s) {
			break
		}
		switch {
		case r.rng.IntN(3) > 0:
		case i == 0 || c.Below == e.seq:
			c.Below = e.seq + 1
		case e.qos == 2 && r.rng.IntN(2) == 0:
			c.Received = append(c.Received, e.seq)
		default:
			c.Done = append(c.Done, e.seq)
		}
	}
	return c
}

func (r *modelRun) passOver(s *plainSession) *event.PassOver {
	c := &event.PassOver{Session: s.number, Epoch: s.epoch}
	for _, e := range s.queue {
		if r.rng.IntN(3) == 0 && e.seq < r.ready(s) {
			c.Entries = append(c.Entries, e.seq)
		}
	}
	return c
}

func (r *modelRun) replay() *event.Replay {
	s := r.session()
	c := &event.Replay{
		Session: s.number, Epoch: s.epoch, Filter: pick(r.rng, modelFilters...), Final: r.rng.IntN(2) == 0, At: r.now,
		After: pick(r.rng, 0, event.EndOf(r.index), math.MaxUint64, event.EndOf(r.index/2)),
	}
	if filters := slices.Sorted(maps.Keys(s.subs)); len(filters) > 0 && r.rng.IntN(6) > 0 {
		c.Filter = pick(r.rng, filters...)
	}
	for _, name := range slices.Sorted(maps.Keys(r.plain.retained)) {
		if r.rng.IntN(2) == 0 {
			c.Topics = append(c.Topics, name)
			c.Position = name
		}
	}
	return c
}

// crash ends the faulty machine without a flush and has its next life replay
// what it lost.
func (r *modelRun) crash() {
	if r.rng.IntN(3) == 0 {
		if err := r.faulty.Flush(); err != nil {
			r.t.Fatal(err)
		}
	}
	durable, _, _, _ := r.faulty.Durable()
	// How much is drawn for a crash depends on how far the database has come with
	// its flushes: not from the stream that makes the history.
	kept, rng := r.rng.IntN(101), rand.New(rand.NewPCG(r.rng.Uint64(), 0))
	after := openMachine(r.t, r.faulty.fs.Crash(kept, rng), "/data/state", "n3")
	r.streams.begin(after, r.slowly)
	r.faulty.close(r.t)
	r.faulty = after
	if after.Applied() < durable {
		r.t.Fatalf("entry %d was durable, %d is found after a crash", durable, after.Applied())
	}
	for i := after.Applied(); i < r.index; i++ {
		if e := r.entries[i]; e.batches != nil {
			after.Apply(i+1, 1, e.stamp, e.batches)
		}
	}
	r.compareDigests("after a crash")
}

// copy has a machine that was in some other state begin with a copy of main's.
func (r *modelRun) copy() {
	u := openMachine(r.t, r.main.fs, "/data/other", "n4")
	r.streams.begin(u, r.slowly)
	r.copied = u
	other := event.AppendHeader(nil, event.Header{Node: "n9", Incarnation: 1 << lifeBits, Seq: 1})
	other = event.AppendCommand(other, &event.Connect{Client: "someone else", Expiry: 1 << 20})
	other = event.AppendCommand(other, &event.Disconnect{Session: 1, Epoch: 1})
	u.Apply(1, 1, r.now, [][]byte{other})
	if err := r.main.fs.RemoveAll("/data/copy"); err != nil {
		r.t.Fatal(err)
	}
	index, _, err := r.main.Checkpoint("/data/copy")
	if err != nil {
		r.t.Fatal(err)
	}
	if r.mixed != nil {
		_, _, err := r.main.Checkpoint("/data/midway")
		must(r.t, err)
	}
	if err := u.Restore("/data/copy"); err != nil {
		r.t.Fatal(err)
	}
	if index != r.index || u.Applied() != r.index {
		r.t.Errorf("a copy as of entry %d is said to be of %d, and read as of %d", r.index, index, u.Applied())
	}
}

// compare compares what the machines have made of the history with the model.
func (r *modelRun) compare() {
	if r.mixed != nil {
		r.compareMixed()
	}
	r.compareDelayed()
	r.compareEvents()
	r.compareAnswers()
	r.compareState()
	r.compareWakes()
	r.compareBodies()
	r.compareDigests("after each entry")
	r.orphans += r.main.orphans()
}

func (r *modelRun) compareDigests(when string) {
	r.t.Helper()
	index, want := r.main.Digest()
	for name, u := range map[string]*machineUnderTest{"twin": r.twin, "faulty": r.faulty, "copied": r.copied} {
		if u == nil {
			continue
		}
		if u.level != r.main.level {
			r.t.Errorf("%s: %s is at level %d, want %d", when, name, u.level, r.main.level)
		}
		if i, got := u.Digest(); i != index || got != want {
			r.t.Errorf("%s: %s has digest %x at %d, want %x at %d:\n%s", when, name, got, i, want, index, difference(u.store, r.main.store))
		}
		sameCounts(r.t, when+": "+name, u.Machine, r.main.Machine)
	}
}

// compareEvents compares what is to be delivered.
func (r *modelRun) compareEvents() {
	var got []plainEvent
	for _, a := range r.main.steps {
		r.made += a.copied
		for _, s := range a.steps {
			if s.kind == stepEvent {
				got = append(got, plainOf(s.event))
			}
		}
	}
	if !slices.Equal(got, r.plain.events) {
		r.t.Errorf("ordered\n%+v, want\n%+v", got, r.plain.events)
	}
}

// compareAnswers compares what both nodes are answered.
func (r *modelRun) compareAnswers() {
	for node, u := range map[string]*machineUnderTest{"n1": r.main, "n2": r.twin} {
		var got, want []string
		for _, a := range u.steps {
			for _, s := range a.steps {
				if s.kind == stepDone {
					got = append(got, r.streams.words(s.err, s.value))
				}
			}
		}
		for _, a := range r.plain.answers {
			if a.node == node && a.life == r.lives[node] {
				want = append(want, r.streams.words(a.err, a.value))
			}
		}
		if !slices.Equal(got, want) {
			r.t.Errorf("%s was answered\n%s\nwant\n%s", node, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		u.steps = nil
	}
	r.faulty.steps = nil
	if r.copied != nil {
		r.copied.steps = nil
	}
}

func answerWords(err error, value any) string {
	if err != nil {
		return classOf(err).Error()
	}
	switch v := value.(type) {
	case *opened:
		o := *v
		o.offlineSince, o.ready = 0, 0
		slices.SortFunc(o.subs, func(a, b storedSub) int { return cmp.Compare(a.Filter, b.Filter) })
		return fmt.Sprintf("opened %+v", o)
	case *subscribed:
		return fmt.Sprintf("subscribed %+v", *v)
	}
	return fmt.Sprint("done ", value)
}

func (r *modelRun) compareState() {
	m, p := r.main, r.plain
	if m.now != p.now {
		r.t.Errorf("log time %d, want %d", m.now, p.now)
	}
	r.compareLevel()
	if len(m.sessions) != len(p.sessions) || len(m.numbers) != len(p.sessions)+len(p.groups) {
		r.t.Errorf("%d sessions, %d by number, want %d, and %d groups", len(m.sessions), len(m.numbers), len(p.sessions), len(p.groups))
	}
	for client, want := range p.sessions {
		if s := m.sessions[client]; s == nil {
			r.t.Errorf("no session of %s", client)
		} else {
			r.compareSession(s, want)
		}
	}
	retained := map[string]plainEvent{}
	m.store.Scan([]byte{byte(store.Retained)}, []byte{byte(store.Retained) + 1}, func(_, v []byte) bool {
		var e event.Event
		if err := decodeRetained(v, &e); err != nil {
			r.t.Error(err)
		}
		retained[strings.Clone(e.Topic)] = plainOf(&e)
		return true
	})
	want := maps.Clone(p.retained)
	for k, e := range want {
		e.client, e.principal = "", "" // not part of the stored form
		want[k] = e
	}
	if !maps.Equal(retained, want) {
		r.t.Errorf("retained\n%+v, want\n%+v", retained, want)
	}
	if int(m.retained.Load()) != len(want) {
		r.t.Errorf("%d topics counted as retained, want %d", m.retained.Load(), len(want))
	}
}

// compareWakes compares what is to come. Some kinds the model does at once, and
// the Machine with the entry after: they may be there if they are due by then.
func (r *modelRun) compareWakes() {
	got := map[string]bool{}
	r.main.store.Scan([]byte{byte(store.Wakes)}, []byte{byte(store.Wakes) + 1}, func(k, _ []byte) bool {
		if k[9] == wakeShare {
			return true // what groups keep is looked at more often than there is need
		}
		if k[9] == wakeEnd && r.main.numbers[store.Uint64At(k, 10)] == nil {
			return true // of an orphan
		}
		soon := slices.Contains([]byte{wakePurge, wakeTerms, wakeTrim, wakeJudge, wakePay, wakeStream, wakeReturn, wakeOrphans}, k[9])
		if at := store.Uint64At(k, 1); !soon || int64(at) != r.main.now && at&^choreRoom != choreBit|r.index {
			got[string(k)] = true
		}
		return true
	})
	want := map[string]bool{}
	for _, w := range r.plain.wakes() {
		want[string(wakeNameKey(nil, w.at, w.kind, w.id))] = true
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("wakes\n%q, want\n%q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// A sessionView is what can be compared of a session.
type sessionView struct {
	Client, Principal string
	Number, Epoch     uint64
	Node              string
	Life              uint64
	Expiry            uint32
	OfflineAt, WillAt int64
	Will              bool
	Next, Below       uint64
	Sent, Maybe       uint64
	Received          []uint64
	Dropped           uint64
	Bytes             int64
	Queue             []string
	Inbound           []uint16
	Subs              []storedSub
}

func (r *modelRun) compareSession(s *record, p *plainSession) {
	got := sessionView{
		s.client, s.principal, s.session, s.epoch, s.node, s.life, s.expiry, s.offlineAt, s.willAt, s.will != nil,
		s.queue.next, s.queue.below, s.queue.sent, s.queue.maybe, slices.Clone(s.queue.received), s.queue.dropped, s.queue.bytes,
		nil, slices.Sorted(maps.Keys(s.inbound)), nil,
	}
	b := Broker{machine: r.main.Machine}
	for _, it := range b.readQueue(s.session, 0, s.queue.next) {
		e := plainOf(&it.event)
		got.Queue = append(got.Queue, fmt.Sprint(it.seq, e.topic, e.payload, e.at, e.expires, e.origin, it.qos, it.retain, it.deadline, it.ids))
	}
	if uint64(len(got.Queue)) != s.queue.count {
		r.t.Errorf("%s: %d entries counted, %d found", s.client, s.queue.count, len(got.Queue))
	}
	for _, f := range r.main.filters(s) {
		if x, ok := r.main.subOf(f, s.session); ok {
			got.Subs = append(got.Subs, x)
		}
	}
	slices.SortFunc(got.Subs, func(a, b storedSub) int { return cmp.Compare(a.Filter, b.Filter) })
	want := sessionView{
		p.client, p.principal, p.number, p.epoch, p.node, p.life, p.expiry, p.offlineAt, p.willAt, p.will != nil,
		p.next, p.below(), p.sent, p.maybe, slices.Clone(p.received), p.dropped, p.bytes(), nil, slices.Sorted(maps.Keys(p.inbound)), nil,
	}
	for _, q := range p.queue {
		e := q.event
		want.Queue = append(want.Queue, fmt.Sprint(q.seq, e.topic, e.payload, e.at, e.expires, e.origin, q.qos, q.retain, q.deadline, q.ids))
	}
	for _, f := range slices.Sorted(maps.Keys(p.subs)) {
		want.Subs = append(want.Subs, p.subs[f])
	}
	if len(got.Received) == 0 && len(want.Received) == 0 {
		got.Received, want.Received = nil, nil
	}
	if r.mixed != nil {
		withoutQueues(&got)
		withoutQueues(&want)
	} else if len(s.debts) > 0 || r.streams == mixedStreams {
		r.compareOwed(s, &got, p, &want)
	}
	if !reflect.DeepEqual(got, want) {
		r.t.Errorf("session\n%+v, want\n%+v", got, want)
	}
}

// drain lets every session end, and nothing is left of them.
func (r *modelRun) drain() {
	r.lives = map[string]uint64{}
	r.policyAll()
	r.undelayAll()
	for len(r.plain.sessions) > 0 {
		b := r.newLife("n1")
		for _, s := range r.plain.byNumber() {
			b = event.AppendCommand(b, &event.Connect{Client: s.client, Principal: s.principal, Clean: true})
		}
		r.applyAll(b)
		r.applyAll(r.newLife("n1"))
		r.applyAll(r.newLife("n2"))
		r.now += 1e9
		for range 3 {
			r.applyAll(r.newLife("n3"))
		}
		if r.index > 10_000 {
			r.t.Fatalf("%d sessions do not end", len(r.plain.sessions))
		}
	}
	// What the last of them has left to be done, if there was one at all.
	b := r.newLife("n1")
	r.applyAll(b)
	for seq := range uint64(modelLimits.SubscriptionsPerSession) { // each takes one orphan off
		h := event.Header{Node: "n1", Incarnation: r.life << lifeBits, Seq: 2 + seq}
		r.applyAll(event.AppendCommand(event.AppendHeader(nil, h), &event.Tick{}))
	}
	r.compareState()
	r.compareDigests("at the end")
	for name, space := range map[string]store.Space{
		"sessions": store.Sessions, "subscriptions": store.Subs, "queues": store.Queue, "cursors": store.Cursors,
		"inbound": store.Inbound, "held": store.Held, "streams": store.Streams, "heads of streams": store.Heads, "debts": store.Debts, "groups": store.Groups,
	} {
		n := 0
		r.main.store.Scan([]byte{byte(space)}, []byte{byte(space) + 1}, func(k, _ []byte) bool { n++; return true })
		if n != 0 {
			r.t.Errorf("%d keys of %s are left when all sessions have ended", n, name)
		}
	}
	live := 0
	for _, s := range r.main.segments {
		live += s.live
	}
	if live != 0 {
		r.t.Errorf("%d references to bodies are left", live)
	}
	wakes := 0
	r.main.store.Scan([]byte{byte(store.Wakes)}, []byte{byte(store.Wakes) + 1}, func(k, _ []byte) bool {
		if k[9] != wakeRetained {
			wakes++
		}
		return true
	})
	if wakes != 0 {
		r.t.Errorf("%d wakes are left", wakes)
	}
	r.compareWakes()
}

func (r *modelRun) newLife(node string) []byte {
	r.life++
	b := event.AppendHeader(nil, event.Header{Node: node, Incarnation: r.life << lifeBits, Seq: 1})
	return event.AppendCommand(b, &event.NodeUp{At: r.now})
}

func (r *modelRun) policyAll() {
	r.applyAll(event.AppendCommand(r.newLife("n2"), &event.Policy{Data: []byte("all")}))
}

func (r *modelRun) applyAll(batch []byte) {
	r.index++
	r.plain.apply(r.index, r.now, [][]byte{batch})
	r.keep(r.now, [][]byte{batch})
	for _, u := range []*machineUnderTest{r.main, r.twin, r.faulty, r.copied} {
		if u == nil {
			continue
		}
		u.Apply(r.index, 1, r.now, [][]byte{batch})
		u.steps = nil
	}
}
