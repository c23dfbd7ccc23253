package broker

import (
	"fmt"
	"math"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// A streamTest says what part streams have in a history of TestMachineModel.
//
// Where all of a queue is in memory what it pushes out is what has expired first,
// and of streams the oldest: the same, unless both an expiry and a bound are met. So
// some histories have one, some the other, which the model follows exactly; and some
// have both, in which it follows all but what is in queues.
type streamTest int

const (
	noStreams      streamTest = iota
	lastingStreams            // no event expires
	wideStreams               // no queue meets its bound
	mixedStreams
	wideGroups  // as wideStreams, and there are shared subscriptions: see mixed
	mixedGroups // as mixedStreams, likewise
)

// level returns the level to which a history is raised.
func (s streamTest) level() Level {
	if s == noStreams {
		return LevelStreams - 1
	}
	return LevelStreams
}

// begin has u make streams for few; slowly says that what they owe is paid slowly.
func (s streamTest) begin(u *machineUnderTest, slowly bool) {
	u.streams.crowd = 2
	u.segmentBits, u.survivors = 2, 6 // whatever is in a segment is copied
	if slowly {
		u.survivors = 3
	}
	if err := u.load(); err != nil { // by the new size
		panic(err)
	}
	if slowly {
		u.streams.ahead, u.streams.piece = 3, 1
		u.budget.perPiece = 1 // sessions end without their subscriptions
	}
	if s == wideStreams || s == wideGroups {
		u.begin.QueueEvents, u.begin.QueueBytes = 1<<20, 1<<30
		u.limits = u.begin
		if u.settings != nil {
			u.limits = u.begin.Agreed(u.settings)
		}
	}
}

// widen keeps the bounds of queues out of reach where they are not to be met, and
// else has them never rise: a bound that has risen holds for all of an absence, also
// for when it was lower.
func (r *modelRun) widen(in *event.Settings) {
	switch r.streams {
	case wideStreams, wideGroups:
		in.QueueEvents, in.QueueBytes = 1<<20, 1<<30
	case lastingStreams:
		if in.QueueEvents < 12 && r.rng.IntN(8) > 0 {
			in.QueueEvents = 12 // or it would soon be 1
		}
		if in.QueueBytes < 1500 && r.rng.IntN(8) > 0 {
			in.QueueBytes = 1500
		}
		in.QueueEvents = min(in.QueueEvents, uint64(r.plain.limits.QueueEvents))
		in.QueueBytes = min(in.QueueBytes, uint64(r.plain.limits.QueueBytes))
	}
}

// policy returns a policy without windows in place of one that has some, where
// nothing is to expire: an entry for a window expires with it.
func (s streamTest) policy(name string) string {
	if s != lastingStreams {
		return name
	}
	switch name {
	case "windows":
		return "half"
	case "breaks":
		return "some"
	}
	return name
}

// words are answerWords, without what a history with both does not compare.
func (s streamTest) words(err error, value any) string {
	if o, ok := value.(*opened); ok && s >= wideGroups && err == nil {
		return fmt.Sprintf("opened %d %d %v %v of %d subscriptions", o.session, o.epoch, o.present, o.durable, len(o.subs))
	} else if ok && s == mixedStreams && err == nil {
		return fmt.Sprintf("opened %d %d %v %v next %d of %d subscriptions", o.session, o.epoch, o.present, o.durable, o.next, len(o.subs))
	}
	return answerWords(err, value)
}

func (r *modelRun) beginStreams() {
	for _, u := range []*machineUnderTest{r.main, r.twin, r.faulty} {
		r.streams.begin(u, r.slowly)
	}
	r.plain.limits = r.main.limits
}

// compareLevel compares the level in force, below which nothing may be that a program
// of the level before would not know.
func (r *modelRun) compareLevel() {
	m := r.main
	if m.level != r.plain.level {
		r.t.Errorf("level %d, want %d", m.level, r.plain.level)
	}
	if m.level >= LevelStreams {
		return
	}
	for _, space := range []store.Space{store.Streams, store.Heads, store.Debts} {
		if keys := keysOf(m.store, space); len(keys) > 0 {
			r.t.Errorf("level %d, and there are streams: %q", m.level, keys)
		}
	}
	if _, ok := m.store.Get(streamsKey, nil); ok {
		r.t.Errorf("level %d, and there is an account of streams", m.level)
	}
}

// keep keeps an entry for whoever loses it.
func (r *modelRun) keep(stamp int64, batches [][]byte) {
	for uint64(len(r.entries)) < r.index {
		r.entries = append(r.entries, kept{})
	}
	r.entries[r.index-1] = kept{stamp, batches}
}

// ready returns up to where the node could have read a session's queue.
func (r *modelRun) ready(s *plainSession) uint64 {
	if one := r.main.numbers[s.number]; one != nil {
		return one.ready()
	}
	return math.MaxUint64
}

// An owedItem is an event that streams owe a session.
type owedItem struct {
	plainEntry
	size uint64
	text string
}

// owedTo returns what streams owe a session, and how much of it they have pushed
// out, by going through all of them.
func (r *modelRun) owedTo(s *record) (items []owedItem, next uint64, bytes int64, gone int) {
	m := r.main.Machine
	m.out = &applied{index: math.MaxUint64} // no entry is being applied: all can be read
	defer func() { m.out = nil }()
	c := *s
	c.debts = nil
	for _, d := range s.debts {
		d.joins = slices.Clone(d.joins)
		c.debts = append(c.debts, d)
	}
	before := len(m.touched)
	m.fold(&c)
	m.touched = m.touched[:before]
	floor, last := uint64(0), -1
	for i, d := range c.debts {
		for _, j := range d.joins {
			if j.next < j.counted && j.next < j.s.first {
				floor, last = max(floor, j.s.floor), i
			}
		}
	}
	for i := range c.debts {
		d := &c.debts[i]
		left := d.left
		for k := range d.joins {
			j := &d.joins[k]
			if past := min(j.s.first, j.counted); j.next < past {
				gone += int(past - j.next)
				left -= past - j.next
				for ; j.next < past; j.next++ {
					d.number = c.unpaid(d.number) + 1
				}
			}
		}
		for p := m.payer(d, 3); left > 0; left-- {
			of, item, ok := p.next()
			if !ok {
				r.t.Errorf("%s: %d events that are owed are not to be found", s.client, left)
				break
			}
			n := c.unpaid(d.number)
			d.number = n + 1
			if i < last || item.position <= floor {
				gone++
				continue
			}
			en, _ := d.entryOf(&item)
			if len(en.ids) != int(d.joins[of].ids) {
				r.t.Errorf("%s: an event has %d identifiers, charged for are %d", s.client, len(en.ids), d.joins[of].ids)
			}
			body, _ := m.store.Get(bodyKey(nil, item.body), nil)
			var ev event.Event
			if err := ev.Decode(body); err != nil {
				r.t.Errorf("%s: body %d: %v", s.client, item.body, err)
			}
			e := plainOf(&ev)
			items = append(items, owedItem{
				plainEntry{seq: n, event: e, qos: en.qos, retain: en.retain, deadline: en.deadline, ids: en.ids}, en.size, fmt.Sprint(n, e.topic, e.payload, e.at, e.expires, e.origin, en.qos, en.retain, en.deadline, en.ids),
			})
		}
	}
	_, bytes = c.owed()
	return items, c.queue.next, bytes, gone
}

// compareOwed makes of got, the view of a session that streams owe something, what
// it will be when that is paid, and of want what can be compared with it.
func (r *modelRun) compareOwed(s *record, got *sessionView, p *plainSession, want *sessionView) {
	owed, next, bytes, gone := r.owedTo(s)
	got.Next = next
	got.Bytes += bytes
	if r.streams == mixedStreams {
		for _, v := range []*sessionView{got, want} {
			v.Below, v.Sent, v.Maybe, v.Received, v.Dropped, v.Bytes, v.Queue = 0, 0, 0, nil, 0, 0, nil
		}
		return
	}
	b := Broker{machine: r.main.Machine}
	var all []owedItem
	for i, it := range b.readQueue(s.session, 0, s.queue.next) {
		all = append(all, owedItem{plainEntry{seq: it.seq}, it.size, got.Queue[i]})
	}
	all = append(all, owed...)
	slices.SortStableFunc(all, func(a, b owedItem) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		r.t.Errorf("%s: two entries have the number %d", s.client, a.seq)
		return 0
	})
	if gone == 0 {
		sum := int64(0)
		for _, it := range all {
			sum += int64(it.size)
		}
		if sum != got.Bytes {
			r.t.Errorf("%s: charged for %d bytes, that are %d", s.client, got.Bytes, sum)
		}
	}
	// While it is away nobody pushes out what its bound would: that is the oldest of
	// what is not under way.
	first := max(s.queue.sent, s.queue.below)
	for more := len(all) - len(want.Queue); more > 0; more-- {
		i := slices.IndexFunc(all, func(it owedItem) bool { return it.seq >= first })
		if i < 0 || s.openDebt() == nil {
			break
		}
		got.Received = slices.DeleteFunc(got.Received, func(seq uint64) bool { return seq == all[i].seq })
		all = slices.Delete(all, i, i+1)
		gone++
	}
	got.Queue = nil
	for _, it := range all {
		got.Queue = append(got.Queue, it.text)
	}
	got.Dropped += uint64(gone)
	got.Bytes, want.Bytes = 0, 0
	if s.openDebt() != nil {
		got.Below, got.Sent, got.Maybe = 0, 0, 0
		want.Below, want.Sent, want.Maybe = 0, 0, 0
	}
}
