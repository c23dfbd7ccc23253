package broker

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// Streams: what events cost for sessions that are away.
//
// A durable session that is connected has an entry in its queue for each event. Of
// those that are away there may be a hundred thousand, and an entry for each would
// be paid by whoever is there. So a filter that many durable sessions subscribe to
// has a stream: its events in their order, each once. A session that goes away
// joins the streams of its filters, and from then on an event costs it nothing: all
// there is of it is a debt, which says from where on each stream owes it events.
//
// When it is back what it would have queued is known, and told at once: how many
// events, under which numbers, how many of them were lost to its bound. The entries
// themselves are written a piece at a time, as its client takes them ("the debt is
// paid"): a storm of clients that are back costs what is delivered, when it is
// delivered. From the outside nothing must tell a session that had joined from one
// that had not. So:
//
//   - An event of a stream has the number in a session's queue that its entry
//     would have had. Each event of each stream is one of a session's, and a
//     session's streams have none in common, so numbers can be counted, whatever
//     else was queued in between (fold). What else comes while it is away, by its
//     other filters or by a profile, goes into its queue as ever, under the number
//     that is its turn. To pay is to go through the streams in the order of the log
//     and to give what comes the next number that is not taken (payer).
//   - Whether a session may have an event depends on the policy at the event's
//     time. It joins only where the policy says yes to all of the filter, always. A
//     policy that takes effect ends an *era*: with it all memberships end, in no
//     time; sessions have entries again, and a wake judges them anew, some at a
//     time, and so do the streams: they note where they ended, and go when nobody is
//     owed anything of them. Who joins in the next era joins new ones. (If they went
//     on, what somebody is owed could be pushed out by what the new policy keeps from
//     them.)
//   - What an entry says (QoS, identifiers, Retain As Published) follows from the
//     session's subscriptions at the event's time. A debt has a copy of them.
//   - A session's bound is reckoned with what it is owed; for one that is away, when
//     it is back, as of the entry before, or when the bound is changed. A stream has the bound of one queue, for
//     what it pushes out each of its sessions would have pushed out. But where
//     queues first push out what has expired, streams push out the oldest.
//   - A debt that was not paid when the connection ended stays, and the next absence
//     begins another. An unpaid number counts as in the queue, and never as sent:
//     the node is told up to which number it may read (record.ready).
//
// What a stream holds goes by segments, as bodies do: for each segment memory has
// how many debts go on in it, and what is before the first such is removed. A debt
// keeps at most one bound's worth of events, whoever is away for however long.
//
// Rejected: a cursor per session also for those that are connected (it would save an
// entry each, and every acknowledgement would have to find its event through a merge
// of streams that may be half gone); renumbering what came in between when the debt
// is paid (packet ids follow numbers, and entries would be written twice).
type stream struct {
	id     uint64
	filter string

	first, next   uint64 // its entries have the numbers from first on, below next
	before, total uint64 // what all before first, and before next, are charged for, in bytes
	floor         uint64 // place in the log of the newest that its bound pushed out; 0 for none
	over          bool   // its era has ended, and it with that

	// What follows is not stored, and follows from what is.
	members int            // sessions that have joined in the present era
	refs    map[uint64]int // how many debts go on in a segment
	low     uint64         // in no segment before it does one
	isFat   bool           // it is in Machine.fat
	dirty   bool           // it is in Machine.swollen

	// How far it was when the entry being applied began, if that has added to it.
	entry             uint64
	nextThen, sumThen uint64
}

const (
	crowdDefault = 32   // durable subscribers that a filter must have for a stream
	streamsMost  = 4096 // that go on; and four times as many, with those that are over

	// A stream's segment is so many consecutive entries.
	entriesPerSegment = 1024
)

// streams are all that the Machine knows of them.
type streams struct {
	era    uint64 // counts the policies that were in force
	lastID uint64 // the newest stream's
	stored [2]uint64

	byID     map[uint64]*stream
	byFilter map[string]*stream                       // that go on
	index    *topic.Index[uint64, *stream, []*stream] // likewise; nil until there is one
	fat      []*stream                                // past their bound, to be trimmed
	swollen  []*stream                                // differ from their stored form

	crowd  int // how many subscribers make a stream; 0 for crowdDefault
	ahead  int // how many numbers are paid ahead of the client at most; 0 for payAhead
	piece  int // how many at once; 0 for payPiece
	paidBy int // how many this entry has paid

	trimmedBy int // how many it has dropped by trimAway
}

// A steady is an Authorizer that can tell whether all of a filter is allowed to
// somebody at all times, whatever is asked about it.
type steady interface {
	Always(who Who, filter string) bool
}

func (s *streams) reset() {
	s.era, s.lastID, s.stored = 0, 0, [2]uint64{}
	s.byID, s.byFilter, s.index = map[uint64]*stream{}, map[string]*stream{}, nil
	s.fat, s.swollen, s.paidBy, s.trimmedBy = nil, nil, 0, 0
}

func (s *streams) add(x *stream) {
	s.byID[x.id] = x
	if x.over {
		return
	}
	if s.index == nil {
		s.index = topic.NewIndex(func(_ string, matches []topic.Entry[uint64, *stream]) []*stream {
			sortEntries(matches)
			list := make([]*stream, len(matches))
			for i := range matches {
				list[i] = matches[i].Value
			}
			return list
		}, fanoutCache)
	}
	s.byFilter[x.filter] = x
	s.index.Set(x.filter, x.id, x)
}

// steady returns the policy in force if sessions may join streams by it, else nil.
func (m *Machine) steady() steady {
	if m.level < LevelStreams {
		return nil
	}
	p, _ := m.policy.(steady)
	return p
}

// crowded says whether so many durable sessions subscribe to filter that it is
// worth a stream.
func (m *Machine) crowded(filter string) bool {
	crowd := m.streams.crowd
	if crowd == 0 {
		crowd = crowdDefault
	}
	return m.durable.Count(filter) >= crowd
}

// hasRoom says whether filter has a stream, or can have one besides so many others.
func (s *streams) hasRoom(filter string, others int) bool {
	return s.byFilter[filter] != nil || len(s.byFilter)+others < streamsMost && len(s.byID)+others < 4*streamsMost
}

// streamFor returns the stream of a filter, which it begins if there is none. Who asks
// joins it: one that nobody has joined would stay for good.
func (m *Machine) streamFor(filter string) *stream {
	if s := m.streams.byFilter[filter]; s != nil {
		return s
	}
	m.streams.lastID++
	s := &stream{id: m.streams.lastID, filter: strings.Clone(filter), refs: map[uint64]int{}}
	m.streams.add(s)
	m.streamWeights.Store(m.streams.index)
	m.noteStream(s)
	return s
}

// noteStream takes note that s differs from its stored form.
func (m *Machine) noteStream(s *stream) {
	if !s.dirty {
		s.dirty = true
		m.streams.swollen = append(m.streams.swollen, s)
	}
}

// writeStreams stores what this entry has changed of streams.
func (m *Machine) writeStreams() {
	for _, s := range m.streams.swollen {
		s.dirty = false
		if m.streams.byID[s.id] == s {
			m.tx.Set(headKey(m.key, s.id), s.append(m.val[:0]))
		}
	}
	m.streams.swollen = m.streams.swollen[:0]
	if now := [2]uint64{m.streams.era, m.streams.lastID}; now != m.streams.stored {
		m.streams.stored = now
		m.tx.Set(streamsKey, m.streams.append(m.val[:0]))
	}
}

// fanouts has who among the durable sessions has an entry for each event: all but
// those that have joined a stream by the filter that matches.
func (m *Machine) fanouts() *topic.Index[uint64, storedSub, *fanout] {
	if m.eager != nil {
		return m.eager
	}
	return m.durable
}

// setSub makes s what r's subscription is.
func (m *Machine) setSub(r *record, s *storedSub) {
	m.durable.Set(s.Filter, r.session, *s)
	if m.eager != nil && !m.joined(r, s.Filter) {
		m.eager.Set(s.Filter, r.session, *s)
	}
}

// deleteSub removes r's subscription.
func (m *Machine) deleteSub(r *record, filter string) {
	m.durable.Delete(filter, r.session)
	if m.eager != nil {
		m.eager.Delete(filter, r.session)
	}
}

// streamsOf returns the streams that e is an event of: those that have members.
func (m *Machine) streamsOf(e *event.Event) (list []*stream) {
	if m.streams.index == nil || m.ref != "" || m.except != nil || profileFor(m.profiles, e.Topic) != nil {
		return nil
	}
	all := m.streams.index.LookupString(e.Topic)
	for i, s := range all {
		if s.members == 0 {
			list = append(list, all[:i]...)
			for _, s := range all[i+1:] {
				if s.members > 0 {
					list = append(list, s)
				}
			}
			return list
		}
	}
	return all
}

// extend adds e, whose body is stored, to s.
func (m *Machine) extend(s *stream, e *event.Event, body uint64) {
	m.begun(s)
	item := streamed{
		position: e.Position, before: s.total, qos: e.QoS, retain: e.Retain, expires: e.Expires,
		size: uint64(e.Size()), body: body, topic: e.Topic,
	}
	m.segment(body).live++
	m.growing++
	m.spend(1)
	m.tx.Set(streamKey(m.key, s.id, s.next), item.append(m.val[:0]))
	s.next++
	s.total += item.size
	m.noteStream(s)
	m.noteFat(s)
}

// begun keeps how far s was when this entry began.
func (m *Machine) begun(s *stream) {
	if s.entry != m.out.index {
		s.entry, s.nextThen, s.sumThen = m.out.index, s.next, s.total
	}
}

// then returns how far s was when this entry began: what came since cannot be read.
func (m *Machine) then(s *stream) (next, total uint64) {
	if s.entry == m.out.index {
		return s.nextThen, s.sumThen
	}
	return s.next, s.total
}

// past says whether a stream that has come up to next, and total, is past b.
func (s *stream) past(b queueBound, next, total uint64) bool {
	return next-min(s.first, next) > uint64(b.events) || total-min(s.before, total) > uint64(b.bytes)
}

func (m *Machine) noteFat(s *stream) {
	if !s.isFat && s.past(m.limits.queueBound(), s.next, s.total) {
		s.isFat = true
		m.streams.fat = append(m.streams.fat, s)
	}
}

// trimStreams brings streams back within the bound of one queue, by what there was
// when this entry began. behind says that there is more to do: all together drop no
// more than trimPerEntry, twice, beyond as many as the entry before has added.
func (m *Machine) trimStreams() (behind bool) {
	left := 2*trimPerEntry + m.grown
	slices.SortFunc(m.streams.fat, func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
	m.streams.fat = slices.DeleteFunc(m.streams.fat, func(s *stream) bool {
		there := m.streams.byID[s.id] == s
		if next, total := m.then(s); there && s.past(m.bound, next, total) {
			behind = m.trimStream(s, next, total, &left) || behind
		}
		s.isFat = there && s.past(m.limits.queueBound(), s.next, s.total)
		return !s.isFat
	})
	return behind
}

func (m *Machine) trimStream(s *stream, next, total uint64, left *int) (behind bool) {
	m.begun(s)
	m.store.Scan(streamKey(nil, s.id, s.first), streamKey(nil, s.id, next), func(key, value []byte) bool {
		if !s.past(m.bound, next, total) {
			return false
		}
		if behind = *left <= 0; behind {
			return false
		}
		*left--
		s.floor = m.removeStreamed(s, key, value)
		return true
	})
	m.noteStream(s)
	return behind
}

// removeStreamed removes the first entry of s, and returns its place in the log.
func (m *Machine) removeStreamed(s *stream, key, value []byte) (position uint64) {
	item := mustStreamed(value)
	m.tx.DeleteOnce(key)
	m.spend(1)
	m.unref(item.body)
	s.first++
	s.before += item.size
	return item.position
}

// refer takes note that a debt goes on at entry number at of s.
func (s *stream) refer(at uint64) { s.refs[at/entriesPerSegment]++ }

// unrefer undoes refer, and has what nobody is owed any more removed.
func (m *Machine) unrefer(s *stream, at uint64) {
	n := at / entriesPerSegment
	if s.refs[n]--; s.refs[n] > 0 {
		return
	}
	delete(s.refs, n)
	if m.unneeded(s) > s.first || len(s.refs) == 0 {
		m.setChore(wakeStream, s.id, 0)
	}
}

// unneeded returns up to where nobody is owed anything of s.
func (m *Machine) unneeded(s *stream) uint64 {
	if len(s.refs) == 0 {
		return s.next
	}
	for s.refs[s.low] == 0 {
		s.low++
	}
	return s.low * entriesPerSegment
}

// reclaimStream removes what nobody is owed, some at a time, and the stream itself
// when that is all.
func (m *Machine) reclaimStream(id uint64) {
	s := m.streams.byID[id]
	if s == nil {
		return
	}
	next, _ := m.then(s)
	until := min(m.unneeded(s), next)
	left := m.piece()
	if s.first < until {
		m.begun(s)
		m.store.Scan(streamKey(nil, id, s.first), streamKey(nil, id, until), func(key, value []byte) bool {
			if left--; left < 0 {
				return false
			}
			m.removeStreamed(s, key, value)
			return true
		})
		m.noteStream(s)
	}
	switch {
	case s.first < m.unneeded(s):
		m.setChore(wakeStream, id, 0)
	case len(s.refs) == 0:
		m.endStream(s)
	}
}

// endStream removes a stream that is empty and owes nobody anything.
func (m *Machine) endStream(s *stream) {
	delete(m.streams.byID, s.id)
	if !s.over {
		delete(m.streams.byFilter, s.filter)
		m.streams.index.Delete(s.filter, s.id)
	}
	m.tx.Delete(headKey(m.key, s.id))
}

// endEra ends all memberships and streams: another policy is in force from here on.
func (m *Machine) endEra() {
	if m.level < LevelStreams {
		return // nobody has joined anything
	}
	for _, s := range m.streams.byFilter { // in any order: each for itself
		s.over, s.members = true, 0
		m.noteStream(s)
	}
	m.streams.byFilter, m.streams.index = map[string]*stream{}, nil
	m.streamWeights.Store(nil)
	m.streams.era++
	m.eager = nil
	m.weights.Store(m.durable)
	m.rejudge()
}

// rejudge has all sessions that are away judged anew, some at a time.
func (m *Machine) rejudge() {
	if m.level >= LevelStreams {
		m.setChoreName(wakeJudge, string(store.AppendUint64(nil, m.streams.era)))
	}
}

// judge judges the sessions whose clients come after one that id names, if the era
// is still that which it names.
func (m *Machine) judge(id string) {
	if len(id) < 8 || store.Uint64At([]byte(id), 0) != m.streams.era {
		return // a later one began from the first
	}
	lower := append([]byte{byte(store.Sessions)}, id[8:]...)
	if len(id) > 8 {
		lower = append(lower, 0)
	}
	var clients []string
	m.store.Scan(lower, store.End([]byte{byte(store.Sessions)}), func(key, _ []byte) bool {
		clients = append(clients, string(key[1:]))
		return len(clients) < itemsPerWake
	})
	found := len(clients)
	for i, client := range clients {
		if i > 0 && m.isSpent() {
			clients = clients[:i]
			break
		}
		if i%readAhead == 0 {
			m.readFilters(clients[i:min(len(clients), i+readAhead)])
		}
		m.spend(endWeight)
		if r := m.sessions[client]; r != nil && !r.connected() {
			m.fold(r)
			m.trimAway(r)
			m.park(r)
		}
	}
	m.filtersRead = nil
	if found == itemsPerWake || len(clients) < found {
		m.setChoreName(wakeJudge, id[:8]+clients[len(clients)-1])
	}
}

// readFilters reads the subscriptions of those sessions of clients that park looks at.
func (m *Machine) readFilters(clients []string) {
	var sessions []uint64
	for _, client := range clients {
		if r := m.sessions[client]; r != nil && !r.connected() && r.subs > 0 && r.subs <= subsParked {
			sessions = append(sessions, r.session)
		}
	}
	slices.Sort(sessions)
	m.filtersRead = make(map[uint64][]string, len(sessions))
	m.store.ScanEach(len(sessions), func(i int) (lower, upper []byte) {
		return subKey(nil, sessions[i], ""), subKey(nil, sessions[i]+1, "")
	}, func(i int, key, _ []byte) bool {
		m.filtersRead[sessions[i]] = append(m.filtersRead[sessions[i]], string(key[9:]))
		return true
	})
}

func streamKey(buf []byte, id, n uint64) []byte {
	return store.AppendUint64(store.AppendUint64(store.Key(buf, store.Streams), id), n)
}

func headKey(buf []byte, id uint64) []byte {
	return store.AppendUint64(store.Key(buf, store.Heads), id)
}

func debtKey(buf []byte, session uint64) []byte {
	return store.AppendUint64(store.Key(buf, store.Debts), session)
}
