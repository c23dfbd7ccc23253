package broker

import (
	"cmp"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// Shared subscriptions (5.0 4.8.2): the sessions that subscribe to one filter
// $share/{name}/{rest} are a *group*, and of each event that matches the rest one
// of its members gets a copy, beside what it gets by subscriptions of its own.
//
// Who is a member is state, also of sessions that end with their connection: their
// shared subscriptions are ordered, the others of theirs are not. So is who gets
// what: an event that goes through the log is assigned when it is applied, the same
// on every node. (An event that does not, the publisher's node hands to somebody:
// see shared_live.go.)
//
// What must hold:
//
//   - A copy of QoS 1 or 2 is at every moment in one queue: that of the member it
//     was assigned to, or the group's own, where it waits for one. Sessions that end
//     with their connection have a queue for this, though for nothing else. So
//     whatever becomes of a member, its copies are there to be given to another.
//   - A member gets a copy if it is connected and may have the event, by the logged
//     policy at the event's own time (and, if it has waited, now as well), and is not
//     behind: as many entries may be in its queue as its client takes at once. Of
//     those it is the turn of the one after who had the last. If there is nobody but
//     such as are behind, or away and durable, the copy waits.
//   - What waits is given in its order, as far as permission lets it: so an event that
//     comes while others wait, waits behind them, until the first has been given, may be
//     given to somebody who is not behind, or has expired.
//   - A copy goes back to the group if its member cannot be sent it: its window has
//     closed, it has unsubscribed, or gone away before it was sent (Return says so, or
//     the end of the connection); if it is pushed out of the member's queue; or if the
//     session ends, but not at QoS 2, if it may have been sent ([MQTT-4.8.2-5]). One that
//     is acknowledged, however badly, is over ([MQTT-4.8.2-6]), and what may have been
//     sent waits for the session that is away.
//   - A group ends with its last member, and what it keeps with it. Its queue has the
//     bounds of any, and the same loser.
//
// Where it is hard: entries that a Tx has added cannot be read in it. So nothing is
// taken out of a queue at once: what takes it out is a wake, due now, that is to say
// in the next log entry, before its commands. An entry is bounded: a wake gives what
// it can and leaves the rest to the next.
//
// Rejected: a queue for each group from which its members take, for a packet id has
// to follow from the number in the session's own queue; and giving to a member that
// is behind, for who is slow would hold what others could do.

// A group is one shared subscription with its members.
type group struct {
	record        // its queue, under a session's number that no session has
	filter string // as subscribed
	rest   string // what it matches

	// founder is the principal whose session was its first member. The group counts as
	// his for as long as it is, whoever is in it.
	founder string

	members []*groupMember // by their sessions' numbers
	present []*groupMember // of these those that are connected, likewise

	turn     uint64 // the session that was given the last
	passed   uint64 // entries before were looked at since anything changed: nobody who is there may have them
	edge     int64  // when that may change by time alone: a wake is set; 0 for never
	dirty    bool   // turn, passed or edge differ from the store, or the following count
	counted  uint64 // of the queue, in Machine.sharedWaiting
	growing  bool   // this log entry has added to the queue
	readable uint64 // if so: what cannot be read yet begins there
}

// A groupMember is a session that subscribes to a group's filter. It does not change;
// another one takes its place.
type groupMember struct {
	r      *record
	sub    storedSub
	merged // what it gets, by its one subscription
}

const (
	// sharedAtOnce is how many entries a member may have in its queue to be given
	// another, if its client takes so many at once.
	sharedAtOnce = 1024

	// spansKept is how many gaps in a group's queue are kept note of from one log entry
	// to the next, the first: members who may have every other event make one of each.
	// Of others it is found anew that nothing is there.
	spansKept = 64

	// givenBytes bounds what one wake takes out of a queue, beside itemsPerWake.
	givenBytes = 1 << 20

	// askAgain is after how long somebody who has returned a copy for want of
	// permission may be given it again: the log's time may be behind his node's.
	askAgain = int64(1e9)
)

// sharedRest returns what a shared subscription's filter matches; shared is false
// for any other filter.
func sharedRest(filter string) (rest string, shared bool) {
	_, rest, shared, err := topic.SplitShare(filter)
	return rest, shared && err == nil
}

// Sharers are the groups that an event of one topic goes to, in the order of the
// filters. Built once per topic, as a fanout is, whoever comes and goes.
type sharers struct{ of []sharing }

// A sharing is one group for one topic.
type sharing struct {
	g    *group
	list uint64 // its number among the verdicts'
}

func (m *Machine) sharersOf(topicName string, matches []topic.Entry[uint64, *group]) *sharers {
	s := &sharers{}
	if profileFor(m.profiles, topicName) != nil {
		return s // who is shown what there is each one's own affair
	}
	slices.SortFunc(matches, func(a, b topic.Entry[uint64, *group]) int { return cmp.Compare(a.Value.filter, b.Value.filter) })
	for _, match := range matches {
		m.sharings++
		s.of = append(s.of, sharing{match.Value, m.sharings})
	}
	return s
}

// mayHave answers, deterministically, whether a member may have an event of topicName
// that happened at an instant, and until when that holds (0: for good).
func (m *Machine) mayHave(s *sharing, one *groupMember, topicName string, at int64) (ok bool, until int64) {
	ok, until, known := m.verdicts.find(s.list, one.r.session, at)
	if known || m.policy == nil {
		return ok, until
	}
	d := decideFor(m.profiles, m.read, m.policy, Who{Principal: one.r.principal, Client: one.r.client}, ActSubscribe, topicName, at)
	m.verdicts.keep(s.list, one.r.session, at, &d, verdictsMost)
	return d.Allow, d.Until
}

// share gives e, which has just come, to one of each group. body is its body's
// number, if it was stored.
func (m *Machine) share(e *event.Event, body uint64) {
	if m.shared.Len() == 0 {
		return
	}
	s := m.shared.LookupString(e.Topic)
	if len(s.of) > 1 && body == 0 && e.QoS > 0 {
		body = m.storeBody(e)
	}
	for i := range s.of {
		one := &s.of[i]
		if e.QoS > 0 && one.g.waits() {
			m.keep(one, e, body)
			continue
		}
		to, why := m.choose(one, e, []int64{e.At}, nil)
		switch {
		case to != nil:
			m.give(one.g, to, e, body, returns{})
		case e.QoS == 0: // as for nobody
		case why.behind || m.awaited(one, e):
			m.keep(one, e, body)
		}
	}
}

// A whyNobody says why nobody gets a copy.
type whyNobody struct {
	behind bool  // somebody will when he has taken what he has
	until  int64 // somebody may from then on, by time alone; 0 for never
}

// choose returns the member whose turn it is of those that can have e: they may at
// each of the instants. except, if not nil, is not asked. Of no sharing it is nobody.
func (m *Machine) choose(s *sharing, e *event.Event, instants []int64, except *record) (to *groupMember, why whyNobody) {
	if s == nil {
		return nil, why
	}
	all := s.g.present
	first, _ := placeOf(all, s.g.turn+1)
	for i := range all {
		one := all[(first+i)%len(all)]
		if one.r == except {
			continue
		}
		if i%askedPerOne == askedPerOne-1 {
			m.spend(1)
		}
		ok, until := true, int64(0)
		for _, at := range instants {
			if ok, until = m.mayHave(s, one, e.Topic, at); !ok {
				if at < m.now {
					until = 0 // no time to come changes what they could have then
				}
				break
			}
		}
		switch {
		case !ok:
			why.until = earlier(why.until, until)
		case min(one.qos, e.QoS) > 0 && m.isBehind(one.r):
			why.behind = true
		default:
			return one, whyNobody{}
		}
	}
	return nil, why
}

// isBehind says whether a member has enough to do.
func (m *Machine) isBehind(r *record) bool { return r.queue.count >= m.limits.shareWindow(r.recvMax) }

// shareWindow returns how many entries a member may have in its queue to be given
// another.
func (l *Limits) shareWindow(recvMax uint16) uint64 { return min(l.inFlight(recvMax), sharedAtOnce) }

// awaited says whether there is a member that a copy of e is kept for although it is
// not connected: one that an ordinary subscription would have it queued for.
func (m *Machine) awaited(s *sharing, e *event.Event) bool {
	for _, member := range s.g.members {
		if member.sub.QoS == 0 || !member.r.durable() {
			continue
		}
		if ok, _ := m.mayHave(s, member, e.Topic, e.At); ok {
			return true
		}
	}
	return false
}

// give has a member of g get e, which has been returned before or not.
func (m *Machine) give(g *group, to *groupMember, e *event.Event, body uint64, before returns) {
	g.turn = to.r.session
	m.touchGroup(g)
	retain := to.retain && e.Retain
	qos := min(to.qos, e.QoS)
	if qos == 0 {
		m.out.handed = append(m.out.handed, handed{session: to.r.session, group: g.session, retain: retain, ids: to.ids})
		return
	}
	m.enqueue(to.r, e, queued{qos: qos, retain: retain, ids: to.ids, group: g.session, returns: before}, body)
}

// keep has e wait in the group's own queue. If all that waits there was looked at
// in vain, so was this; otherwise somebody may be there for it.
func (m *Machine) keep(s *sharing, e *event.Event, body uint64) {
	g := s.g
	if m.dropsForQuota(&g.record, e.Size()) {
		return
	}
	waited := g.waits()
	m.await(g, e, body, returns{})
	if waited {
		return
	}
	switch to, why := m.choose(s, e, []int64{e.At, m.now}, nil); {
	case to != nil:
	case why.behind:
		m.lookAt(g, earlier(why.until, e.Expires))
	default:
		m.pass(g, g.queue.next, why.until)
	}
}

// await adds e to g's queue.
func (m *Machine) await(g *group, e *event.Event, body uint64, before returns) {
	if !g.growing {
		g.growing, g.readable = true, g.queue.next
		m.touchGroup(g)
	}
	m.enqueue(&g.record, e, queued{qos: e.QoS, retain: e.Retain, group: g.session, returns: before}, body)
	m.out.queued = m.out.queued[:len(m.out.queued)-1] // no session's
}

// countWaiting keeps count of what waits in all groups.
func (m *Machine) countWaiting(r *record) {
	if g := m.groups[r.session]; g != nil {
		m.sharedWaiting.Add(int64(r.queue.count) - int64(g.counted))
		g.counted = r.queue.count
	}
}

// forgetGaps keeps spansKept of the gaps in a group's queue.
func (q *queue) forgetGaps() {
	if q.done = q.done.first(spansKept); q.count == 0 {
		q.below = q.next
		q.normalize()
	}
}

// waits says whether something waits in g's queue that somebody who is there may
// have, as far as is known.
func (g *group) waits() bool { return g.queue.count > 0 && g.queue.next > g.passed }

// pass notes that entries before seq are for nobody who is there, until a time.
func (m *Machine) pass(g *group, seq uint64, until int64) {
	g.passed = seq
	m.touchGroup(g)
	m.lookAt(g, until)
}

// lookAt has all that waits looked at anew at a time, 0 for never, or before.
func (m *Machine) lookAt(g *group, at int64) {
	if at = earlier(g.edge, at); at == g.edge {
		return
	}
	m.clearEdge(g)
	g.edge = at
	m.touchGroup(g)
	m.setWake(at, wakeShare, g.session, lookAnew)
}

func (m *Machine) clearEdge(g *group) {
	if g.edge != 0 {
		m.tx.Delete(wakeKey(m.key, g.edge, wakeShare, g.session, lookAnew))
		g.edge = 0
	}
}

// What a wakeShare is for, in place of an epoch.
const (
	lookOn   = 0 // there may be room for what was not looked at yet
	lookAnew = 1 // it may be another's by now
)

// feedNow has what waits given, by the next log entry.
func (m *Machine) feedNow(g *group) {
	if g.waits() {
		m.setChore(wakeShare, g.session, lookOn)
	}
}

// present has what waits in r's groups looked at anew: r has come, or joined.
func (m *Machine) present(r *record) {
	for _, g := range r.groups {
		g.come(r)
		m.reconsider(g)
	}
}

// absent gives to others what waits for r to have room, and has taken back what r
// was not sent: its connection has ended, its session has not.
func (m *Machine) absent(r *record) {
	for _, g := range r.groups {
		m.feedNow(g)
	}
	if n, from := len(r.copies), r.firstUnsent(); n > 0 && from <= r.copies[n-1] {
		m.setChore(wakeReturn, r.session, r.epoch, from)
	}
}

// reconsiderAll has all that waits looked at anew: the policy or a bound is another.
func (m *Machine) reconsiderAll() {
	m.shared.Invalidate()
	for _, g := range m.groups { // in any order: each for itself
		m.reconsider(g)
	}
}

// reconsider has all that waits in g looked at anew.
func (m *Machine) reconsider(g *group) {
	if g.queue.count == 0 {
		return
	}
	g.passed = 0
	m.touchGroup(g)
	m.feedNow(g)
}

// roomFor gives r, which has taken something, more if there is.
func (m *Machine) roomFor(r *record) {
	if len(r.groups) == 0 || m.isBehind(r) {
		return
	}
	for _, g := range r.groups {
		m.feedNow(g)
	}
}

// feed gives what waits in a group's queue, in its order, to whom it can.
func (m *Machine) feed(number uint64, what uint64) {
	g := m.groups[number]
	if g == nil {
		return
	}
	if what == lookAnew {
		g.edge, g.passed = 0, 0
		m.touchGroup(g)
	}
	if m.bare || !g.waits() {
		return
	}
	if !slices.ContainsFunc(g.members, func(one *groupMember) bool { return one.r.connected() }) {
		m.spend(len(g.members) / askedPerOne)
		m.pass(g, g.queue.next, 0) // until somebody comes
		return
	}
	q := &g.queue
	m.touch(&g.record)
	from := max(q.below, g.passed)
	first := g.read() // that there is
	looked, bytes, all, stuck := 0, uint64(0), true, false
	m.store.Scan(entryKey(nil, number, from), entryKey(nil, number, q.next), func(key, value []byte) bool {
		seq := store.Uint64At(key, 9)
		first = min(first, seq)
		if q.done.has(seq) {
			return true
		}
		if all = looked < itemsPerWake && bytes < givenBytes && (looked == 0 || !m.isSpent()); !all {
			return false
		}
		looked++
		m.spend(1)
		en := mustEntry(value)
		bytes += en.size
		switch m.feedOne(g, &en) {
		case fed:
			m.removeEntry(&g.record, key, en)
			q.done = q.done.add(seq, seq+1)
			g.passed = seq + 1
		case forNobody:
			g.passed = seq + 1
		case waiting:
			stuck = true
		}
		return !stuck
	})
	if all && !stuck {
		g.passed = max(g.passed, g.read())
	}
	m.touchGroup(g)
	if from == q.below {
		q.done = q.done.add(from, first)
	}
	q.normalize()
	if !stuck {
		m.feedNow(g) // there is more, or some of it cannot be read yet
	}
}

// read returns how far g's queue can be read.
func (g *group) read() uint64 {
	if g.growing {
		return g.readable
	}
	return g.queue.next
}

// A feeding says what became of an entry of a group's queue.
type feeding uint8

const (
	fed       feeding = iota // it is over here
	forNobody                // of those who are there
	waiting                  // for somebody to have room
)

// feedOne gives one entry of g's queue to somebody.
func (m *Machine) feedOne(g *group, en *entry) feeding {
	e := m.entryEvent(en)
	if e.Expired(m.now) {
		m.out.sharedExpired++
		return fed
	}
	if until := en.returns.rest(m.now); until != 0 {
		m.lookAt(g, until)
		return forNobody
	}
	to, why := m.choose(m.sharingOf(g, e.Topic), e, []int64{e.At, m.now}, nil)
	switch {
	case to != nil:
		m.giveLater(g, to, e, en)
		return fed
	case why.behind:
		m.lookAt(g, earlier(why.until, e.Expires)) // for it, and for what waits behind it
		return waiting
	}
	m.lookAt(g, why.until)
	return forNobody
}

// giveLater is give for an event that did not just come: it is nobody else's.
func (m *Machine) giveLater(g *group, to *groupMember, e *event.Event, en *entry) {
	from, first := len(m.out.queued), len(m.out.handed)
	m.give(g, to, e, en.body, en.returns)
	m.out.steps = append(m.out.steps, step{
		kind: stepReplayed, event: e, from: from, until: len(m.out.queued), handedFrom: first, handedUntil: len(m.out.handed),
	})
}

// sharingOf returns g for a topic that it matches, nil if that has become a profile's.
func (m *Machine) sharingOf(g *group, topicName string) *sharing {
	s := m.shared.LookupString(topicName)
	i := slices.IndexFunc(s.of, func(one sharing) bool { return one.g == g })
	if i < 0 {
		return nil
	}
	return &s.of[i]
}

// entryEvent returns the event of an entry in memory that the entry being applied
// keeps.
func (m *Machine) entryEvent(en *entry) *event.Event {
	b := slices.Clone(en.inline)
	if en.body != 0 {
		m.spend(bodyWeight)
		var ok bool
		if b, ok = m.bodiesRead[en.body]; !ok {
			b, ok = m.store.Get(bodyKey(nil, en.body), nil)
		}
		if !ok {
			panic(fatal{"the body of a queue entry is gone"})
		}
	}
	e := m.out.newEvent()
	if err := e.Decode(b); err != nil {
		panic(fatal{"queued event: " + err.Error()})
	}
	return e
}

// giveBack gives a copy that from, who had it, was not sent, to somebody else of its
// group, unless that has been in vain before. from may be gone, and is then nil.
func (m *Machine) giveBack(en *entry, from *record) {
	g := m.groups[en.group]
	if g == nil {
		return // it ended, and all that it had not begun with it
	}
	m.out.sharedReturned++
	e := m.entryEvent(en)
	if from != nil {
		en.returns.add(m.now)
	}
	if !m.bare && !g.waits() && en.returns.rest(m.now) == 0 {
		if to, _ := m.choose(m.sharingOf(g, e.Topic), e, []int64{e.At, m.now}, from); to != nil {
			m.giveLater(g, to, e, en)
			return
		}
	}
	waited := g.waits()
	m.await(g, e, en.body, en.returns)
	switch {
	case waited || from == nil:
		m.feedNow(g)
	default:
		// Perhaps from alone is there, and would be given it again at once.
		m.pass(g, g.queue.next, m.now+askAgain)
	}
}

// takeBack takes copies that r was not sent, those from from on, because its
// connection has ended before, back for its groups, some at a time.
func (m *Machine) takeBack(session, epoch, from uint64) {
	r := m.numbers[session]
	if r == nil || r.connected() || r.epoch != epoch {
		return // it goes on with them; or its queue is purged, which does as much
	}
	q := &r.queue
	m.touch(r)
	first, _ := slices.BinarySearch(r.copies, from)
	copies, bytes := slices.Clone(r.copies[first:]), uint64(0)
	var read []entry
	for i, seq := range copies {
		if i == itemsPerWake || bytes > givenBytes || i > 0 && m.isSpent() {
			m.setChore(wakeReturn, session, epoch, from)
			break
		}
		if len(read) == 0 {
			read = m.readCopies(session, copies[i:])
		}
		en := read[0]
		read = read[1:]
		bytes += en.size
		m.removeForAnother(r, entryKey(m.key, session, seq), seq, en)
		m.giveBack(&en, nil)
		m.unrefMoved(&en)
	}
	m.bodiesRead = nil
	q.normalize()
}

// readAhead is how many keys are read in one go by what takes them one by one: an
// iterator for each would be most of what that costs.
const readAhead = 256

// readCopies reads the first of the copies that a session was given, one at least,
// and their bodies.
func (m *Machine) readCopies(session uint64, copies []uint64) (read []entry) {
	copies = copies[:min(len(copies), readAhead)]
	bytes := uint64(0)
	m.store.ScanEach(len(copies), func(i int) (lower, upper []byte) {
		return entryKey(nil, session, copies[i]), entryKey(nil, session, copies[i]+1)
	}, func(i int, _, value []byte) bool {
		if i == len(read) && bytes <= givenBytes {
			read = append(read, mustEntry(slices.Clone(value)))
			bytes += read[i].size
		}
		return false
	})
	if len(read) == 0 || len(read) < len(copies) && bytes <= givenBytes {
		panic(fatal{"a copy that a member was given is gone"})
	}
	m.readBodies(read)
	return read
}

// readBodies reads the bodies of entries, for entryEvent.
func (m *Machine) readBodies(entries []entry) {
	var numbers []uint64
	for i := range entries {
		if entries[i].body != 0 {
			numbers = append(numbers, entries[i].body)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	m.bodiesRead = make(map[uint64][]byte, len(numbers))
	m.store.ScanEach(len(numbers), func(i int) (lower, upper []byte) {
		return bodyKey(nil, numbers[i]), bodyKey(nil, numbers[i]+1)
	}, func(i int, _, value []byte) bool {
		m.bodiesRead[numbers[i]] = slices.Clone(value)
		return false
	})
}

// removeForAnother removes an entry of r's queue whose event another will have: its
// body, if it has one, is let go of by unrefMoved, when that has it.
func (m *Machine) removeForAnother(r *record, key []byte, seq uint64, en entry) {
	en.body = 0
	m.removeEntry(r, key, en)
	r.queue.done = r.queue.done.add(seq, seq+1)
}

func (m *Machine) unrefMoved(en *entry) {
	if en.body != 0 {
		m.unref(en.body)
	}
}

// applyReturn gives to others what a member's client was not sent.
func (m *Machine) applyReturn(c *event.Return) error {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	q := &r.queue
	m.touch(r)
	for _, seq := range c.Entries {
		if seq < q.below || seq >= q.next || q.done.has(seq) {
			continue
		}
		key := entryKey(nil, r.session, seq)
		value, ok := m.store.Get(key, nil)
		if !ok {
			continue // of this log entry, of which the node cannot know
		}
		en := mustEntry(value)
		if en.group == 0 {
			continue
		}
		m.removeForAnother(r, key, seq, en)
		m.giveBack(&en, r)
		m.unrefMoved(&en)
	}
	q.normalize()
	m.roomFor(r)
	return nil
}

// displace has an entry that a bound pushes out of a member's queue go back to its
// group, and says whether it does. No policy is asked: trimming must not fail.
func (m *Machine) displace(r *record, en *entry) bool {
	g := m.groups[en.group]
	if g == nil || g.session == r.session || en.due() != 0 && en.due() <= m.now {
		return false
	}
	m.out.sharedReturned++
	back := *en
	back.inline = slices.Clone(en.inline)
	m.displaced = append(m.displaced, back)
	return true
}

// keepDisplaced puts what displace has taken where it waits.
func (m *Machine) keepDisplaced() {
	for i := range m.displaced {
		en := &m.displaced[i]
		if g := m.groups[en.group]; g != nil { // else it has ended since
			m.await(g, m.entryEvent(en), en.body, en.returns)
			m.feedNow(g)
		}
		m.unrefMoved(en)
	}
	m.displaced = nil
}
