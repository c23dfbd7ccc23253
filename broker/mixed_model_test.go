package broker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/internal/effort"
)

// Mixed is what a history of TestMachineModel has beside if it is one of
// TestMixedModel: there are shared subscriptions in it, so that what is in queues does
// not follow from the model. Of that it is known what has to be there, by the
// payloads, each of which there is once.
type mixed struct {
	named int // payloads
	jobs  map[jobKey]*job
	taken map[jobKey]bool // settled, or passed over, by the entry being applied
	dying bool            // and it has ended a session
	paid  bool            // and it has paid of what streams owe

	missing, dropped uint64 // what is not there although it has to be; what bounds pushed out
}

// A jobKey is an event and a group that it is due to.
type jobKey struct {
	group   uint64
	payload string
}

// A job is an event that is due to a group.
type job struct {
	plainJob
	over   bool   // it is in no queue any more, and must not come into one
	sent   bool   // at QoS 2, it may have been, to the holder, whose session has ended: [MQTT-4.8.2-5]
	unsure bool   // it was given to a session, or became readable there, by the entry that ended that
	behind bool   // at QoS 2, it was not readable when the entry began that is being applied, and ends the holder
	holder uint64 // in whose queue it was last: a session's number, or the group's; 0 for none
}

var sharedFilters = []string{"$share/g/a/#", "$share/g/a/1", "$share/h/#", "$share/h/b/+", "$share/k/+/1", "$share/k/c/1"}

// Random histories with shared subscriptions, streams, wills, policies, settings,
// nodes that live anew, and machines that lose what they had not flushed: all that
// TestMachineModel wants holds, but for what is in which queue. Of that, after each
// entry: a durable session's own subscriptions have every event, once, in order, until
// it is taken; an event that is due to a group is in one queue, until somebody has
// taken it or was handed it, and then never again; what bounds push out is counted;
// nothing waits that somebody who is there could have. Bodies are there for as long
// as something refers to them. A machine that begins with a copy from midway and
// applies what came after is in the same state.
func TestMixedModel(t *testing.T) {
	entries := effort.Rounds(200, 500)
	effort.ParallelSeeds(t, func(t *testing.T, seed uint64) {
		r := newMixedRun(t, seed)
		defer r.close()
		r.run(entries)
		r.replayMidway()
	})
}

func newMixedRun(t *testing.T, seed uint64) *modelRun {
	r := newRunWith(t, seed, wideGroups+streamTest(seed%2))
	r.mixed = &mixed{jobs: map[jobKey]*job{}, taken: map[jobKey]bool{}}
	p := r.plain
	p.unbound = true
	p.isDue = func(j plainJob) {
		if j.owed || j.event.qos > 0 { // what nobody may have now waits behind what waits already
			r.mixed.jobs[jobKey{j.group.number, j.event.payload}] = &job{plainJob: j}
		}
	}
	p.ending = func(s *plainSession) {
		r.mixed.dying = true
		for _, e := range s.queue {
			if j := r.mixed.jobs[jobKey{e.group, e.event.payload}]; j != nil && e.qos == 2 && e.seq < s.maybe {
				j.sent = e.seq < s.readable
				j.behind, j.unsure = !j.sent, j.unsure || !j.sent && s.unsure
			}
		}
	}
	p.isTaken = func(e plainEntry) {
		if e.group != 0 {
			r.mixed.taken[jobKey{e.group, e.event.payload}] = true
		}
	}
	return r
}

// name makes a payload one that no other event has.
func (m *mixed) name(payload *[]byte) {
	if m == nil {
		return
	}
	m.named++
	*payload = fmt.Appendf(nil, "%d%s", m.named, strings.Repeat("x", len(*payload)))
}

// shared makes a subscription a shared one.
func (r *modelRun) shared(s *event.Subscription) {
	s.Filter, s.NoLocal = pick(r.rng, sharedFilters...), false
	s.QoS = pick[uint8](r.rng, 0, 1, 1, 2, 2)
}

// giveBack has a session return what it was not sent, and names some that it cannot.
func (r *modelRun) giveBack() event.Command {
	s := r.session()
	c := &event.Return{Session: s.number, Epoch: s.epoch}
	for _, e := range s.queue {
		if e.group != 0 && r.rng.IntN(2) == 0 || r.rng.IntN(9) == 0 {
			c.Entries = append(c.Entries, e.seq)
		}
	}
	return c
}

func withoutQueues(v *sessionView) {
	v.Next, v.Below, v.Sent, v.Maybe, v.Received, v.Dropped, v.Bytes, v.Queue = 0, 0, 0, 0, nil, 0, 0, nil
	for i := range v.Subs {
		v.Subs[i].first = 0
	}
}

// compareMixed compares what is in queues with what has to be, and has the model know
// under which numbers.
func (r *modelRun) compareMixed() {
	m := r.mixed
	m.paid = false
	for _, a := range r.main.steps {
		m.dropped += a.queueDropped
		m.paid = m.paid || a.paid > 0
	}
	r.handed()
	copies, gone := r.entriesOf()
	r.compareJobs(copies)
	if m.missing > m.dropped+gone {
		r.t.Errorf("%d events are missing, and %d were dropped, or will be", m.missing, m.dropped+gone)
	}
	r.compareIdle()
	clear(m.taken)
	m.dying = false
}

// handed takes note of what members are delivered at QoS 0.
func (r *modelRun) handed() {
	for _, a := range r.main.steps {
		for _, s := range a.steps {
			for _, h := range a.handed[s.handedFrom:s.handedUntil] {
				key := jobKey{h.group, string(s.event.Payload)}
				switch j := r.mixed.jobs[key]; {
				case j == nil:
					r.t.Errorf("session %d is handed %s, which is not due to its group %d", h.session, key.payload, h.group)
				case j.over:
					r.t.Errorf("session %d is handed %s of group %d, which is over", h.session, key.payload, h.group)
				default:
					j.over = true
				}
			}
		}
	}
}

// An ownEntry is an entry of a queue as the Machine has it.
type ownEntry struct {
	plainEntry
	text string
}

// entriesOf compares what sessions' own subscriptions have queued. It returns the jobs by
// whose queue they are in, and how many events streams have pushed out that nobody has
// counted yet.
func (r *modelRun) entriesOf() (copies map[jobKey][]uint64, gone uint64) {
	copies = map[jobKey][]uint64{}
	queues := map[uint64][]ownEntry{}
	b := Broker{machine: r.main.Machine}
	for number, all := range r.queued() {
		for _, it := range b.readQueue(number, all.from, all.to) {
			e := plainOf(&it.event)
			if it.group != 0 {
				key := jobKey{it.group, e.payload}
				copies[key] = append(copies[key], number)
			}
			queues[number] = append(queues[number], ownEntry{
				plainEntry{seq: it.seq, event: e, qos: it.qos, retain: it.retain, deadline: it.deadline, ids: it.ids, group: it.group},
				fmt.Sprint(e.topic, e.payload, e.at, e.expires, e.origin, it.qos, it.retain, it.deadline, it.ids),
			})
		}
	}
	for _, p := range r.plain.byNumber() {
		if s := r.main.numbers[p.number]; s != nil { // else compareState finds it
			gone += r.compareOwn(s, p, queues[p.number])
		}
	}
	return copies, gone
}

// queued returns which numbers the entries in the store have, by their queues.
func (r *modelRun) queued() map[uint64]span {
	all := map[uint64]span{}
	for _, k := range keysOf(r.main.store, store.Queue) {
		number, seq := store.Uint64At([]byte(k), 0), store.Uint64At([]byte(k), 8)
		s, known := all[number]
		if !known {
			s.from = seq
		}
		s.to = seq + 1
		all[number] = s
	}
	return all
}

// compareOwn compares what a session's own subscriptions have queued, or are owed.
func (r *modelRun) compareOwn(s *record, p *plainSession, queue []ownEntry) (gone uint64) {
	all := queue
	if len(s.debts) > 0 {
		owed, _, _, g := r.owedTo(s)
		gone = uint64(g)
		for _, it := range owed {
			all = append(all, ownEntry{it.plainEntry, strings.TrimPrefix(it.text, fmt.Sprint(it.seq))})
		}
		slices.SortStableFunc(all, func(a, b ownEntry) int { return cmp.Compare(a.seq, b.seq) })
	}
	var want []string
	for _, e := range p.queue {
		if e.group == 0 {
			want = append(want, fmt.Sprint(e.event.topic, e.event.payload, e.event.at, e.event.expires, e.event.origin, e.qos, e.retain, e.deadline, e.ids))
		}
	}
	at := 0
	for _, e := range all {
		if e.group != 0 {
			continue
		}
		from := at
		for at < len(want) && want[at] != e.text {
			at++
		}
		if at == len(want) {
			r.t.Errorf("%s has %d: %s, which is no more due, or in another order; from %d on of\n%s", s.client, e.seq, e.text, from, strings.Join(want, "\n"))
			return gone
		}
		r.isMissing(s.client, want[from:at])
		at++
	}
	r.isMissing(s.client, want[at:])
	p.queue = nil
	for _, e := range all {
		p.queue = append(p.queue, e.plainEntry)
	}
	// The model learns only here which numbers copies have, and so could not tell
	// which of them a command of this entry said were sent.
	p.next, p.sent, p.maybe = s.queue.next, s.queue.sent, s.queue.maybe
	r.readBy(s, p)
	return gone
}

// readBy has the model know up to where a session's node could read its queue: no
// further is anything sent. What is further when the connection ends is taken back by
// the entry after; what a session has then, its node could read.
func (r *modelRun) readBy(s *record, p *plainSession) {
	switch {
	case s.connected():
		p.readable, p.unsure = s.ready(), false
	case p.away:
		p.readable, p.unsure = math.MaxUint64, false
	default:
		p.unsure = r.mixed.paid // further, perhaps, before it ended
	}
	p.away = !s.connected()
}

// isMissing notes what has to be there and is not.
func (r *modelRun) isMissing(whose string, what []string) {
	if len(what) == 0 {
		return
	}
	r.mixed.missing += uint64(len(what))
	if r.streams == wideGroups {
		r.t.Errorf("%s has lost\n%s", whose, strings.Join(what, "\n"))
	}
}

// compareJobs compares where jobs are with what has become of them.
func (r *modelRun) compareJobs(copies map[jobKey][]uint64) {
	m := r.mixed
	groups := map[uint64]bool{}
	for _, g := range r.plain.groups {
		groups[g.number] = true
	}
	for key, in := range copies {
		if !groups[key.group] {
			continue // it has ended; whoever was given something may have it
		}
		switch j := m.jobs[key]; {
		case j == nil:
			r.t.Errorf("group %d has %s, which is not due to it: in %d", key.group, key.payload, in)
		case len(in) > 1:
			r.t.Errorf("%s of group %d is in the queues %d", key.payload, key.group, in)
		case j.over || m.taken[key] && r.streams == wideGroups:
			r.t.Errorf("%s of group %d is over, and in the queue of %d", key.payload, key.group, in[0])
		case j.sent && j.holder != in[0] && r.streams == wideGroups:
			r.t.Errorf("%s of group %d may have been sent to session %d, which has ended, and is in the queue of %d", key.payload, key.group, j.holder, in[0])
		default:
			if _, there := r.main.numbers[in[0]]; !there && j.holder != in[0] {
				j.unsure = true
			}
			j.holder = in[0]
		}
	}
	for key, j := range m.jobs {
		j.behind, j.unsure = false, j.unsure || j.behind && m.paid
		switch {
		case !groups[key.group]:
			delete(m.jobs, key)
		case !j.over && len(copies[key]) == 0:
			r.vanished(key, j)
		}
	}
}

// vanished takes note that a job is in no queue any more.
func (r *modelRun) vanished(key jobKey, j *job) {
	j.over = true
	switch {
	case r.mixed.taken[key], !j.owed && j.holder == 0:
	case j.event.expires != 0 && j.event.expires <= r.plain.now && j.event.qos > 0:
	case j.event.qos == 2 && (j.sent || j.unsure || r.mixed.dying): // a client that is gone may have had it
	case r.streams == wideGroups:
		r.t.Errorf("%s of group %d, %s, is lost; it was in the queue of %d", key.payload, key.group, j.group.filter, j.holder)
	default:
		r.mixed.missing++
	}
}

// compareIdle looks, when nothing is to be done, whether something waits in a group
// that one of its members who are there could have.
func (r *modelRun) compareIdle() {
	m := r.main
	if next := m.NextWake(); next != 0 && next <= m.now {
		return
	}
	for _, g := range r.plain.groups {
		of := m.groups[g.number]
		if of == nil || of.edge != 0 && of.edge <= m.now+askAgain {
			continue
		}
		b := Broker{machine: m.Machine}
		for _, it := range b.readQueue(g.number, 0, of.queue.next) {
			if e := plainOf(&it.event); e.expires == 0 || e.expires > m.now {
				r.waits(g, of, it.seq, e)
			}
			if it.seq >= of.passed {
				break // what comes after waits for it
			}
		}
	}
}

// waits looks whether somebody could have what waits in g.
func (r *modelRun) waits(g *plainGroup, of *group, seq uint64, e plainEvent) {
	for s := range g.members {
		one := r.main.numbers[s.number]
		if one == nil || !s.connected() || !r.plain.may(s, e.topic, e.at) || !r.plain.may(s, e.topic, r.main.now) {
			continue
		}
		if seq < of.passed || !r.main.isBehind(one) {
			r.t.Errorf("%s, %d of group %d, waits although %s could have it (looked at up to %d, again at %d, now %d)",
				e.payload, seq, g.number, s.client, of.passed, of.edge, r.main.now)
		}
	}
}

// replayMidway has a machine begin with the copy that was made of main midway and apply
// all that came after.
func (r *modelRun) replayMidway() {
	u := openMachine(r.t, r.main.fs, "/data/replayed", "n5")
	defer u.close(r.t)
	r.streams.begin(u, r.slowly)
	must(r.t, u.Restore("/data/midway"))
	for i := u.Applied(); i < r.index; i++ {
		if e := r.entries[i]; e.batches != nil {
			u.Apply(i+1, 1, e.stamp, e.batches)
		}
	}
	index, want := r.main.Digest()
	if i, got := u.Digest(); i != index || got != want {
		r.t.Errorf("replayed from midway: digest %x at %d, want %x at %d:\n%s", got, i, want, index, difference(u.store, r.main.store))
	}
	sameCounts(r.t, "replayed from midway", u.Machine, r.main.Machine)
}
