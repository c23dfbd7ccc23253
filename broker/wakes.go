package broker

import (
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// What the log's time brings about is kept as keys sorted by when it is due.
// When its time comes a wake is checked against what is then true, and a stale
// one does nothing; still, what makes one stale removes it, or a client that
// comes and goes would leave a key for each time until the last was due.
const (
	wakeExpiry   = 1 // the session, if still without connection since that epoch, ends
	wakeWill     = 2 // its will is published, likewise
	wakePurge    = 3 // entries of an ended session's queue go, some at a time
	wakeSweep    = 4 // connections of a node's lives that are over end, some at a time
	wakeRetained = 5 // a retained event expires
	wakeProfile  = 6 // a profile asked for it
	wakeEnd      = 7 // a subscription ends with its window
	wakeTerms    = 8 // when subscriptions end is reckoned anew, some at a time
	wakeStranger = 9 // the session ends if the policy does not know its principal

	wakeJudge  = 20 // sessions that are away are judged anew, whether they may join streams, some at a time
	wakePay    = 21 // what streams owe a session goes into its queue, some at a time
	wakeStream = 22 // what nobody is owed any more of a stream goes, some at a time
	wakeForget = 23 // what profiles keep of somebody whom the policy does not know any more goes, a piece at a time
	wakeReturn = 17 // what the session was not sent goes to others of its groups, if it is without connection since that epoch
	wakeShare  = 18 // what a group keeps is given to its members, as far as it can be

	wakeDelayed = 26 // a delayed event is published
	wakeUndelay = 27 // delayed events of somebody whom the policy does not know any more go, some at a time

	wakeBan = 28 // a ban ends

	wakeOrphans = 29 // subscriptions of a session that has ended go, some at a time

	wakeTrim = 10 // queues are past their bound; there need only be an entry: see trim
)

// itemsPerWake bounds how much a wake that may be long does at once, and wakesPerEntry
// how many wakes one entry works off below LevelShared; from there on see budget.
const (
	wakesPerEntry = 256
	itemsPerWake  = 1024
)

// beforeAllDue is the time of wakes that go before all that is due, however late that is.
const beforeAllDue = int64(1)

// setWake notes that kind is due at that time for a session. At most one of
// each kind per session and time; a second one is the same.
func (m *Machine) setWake(at int64, kind byte, session, epoch uint64) {
	m.tx.Set(wakeKey(m.key, at, kind, session, epoch), nil)
	m.noteWake(at)
}

// clearWakes removes the wakes of a session that is without a connection.
func (m *Machine) clearWakes(r *record) {
	if r.offlineAt == 0 {
		return
	}
	if r.expiry != 0 && r.expiry != event.Never {
		m.tx.Delete(wakeKey(m.key, r.offlineAt+seconds(r.expiry), wakeExpiry, r.session, r.epoch))
	}
	if r.willAt != 0 {
		m.tx.Delete(wakeKey(m.key, r.willAt, wakeWill, r.session, r.epoch))
	}
}

func wakeKey(buf []byte, at int64, kind byte, session, epoch uint64) []byte {
	buf = append(store.AppendUint64(store.Key(buf, store.Wakes), uint64(at)), kind)
	return store.AppendUint64(store.AppendUint64(buf, session), epoch)
}

func (m *Machine) setWakeName(at int64, kind byte, name string) {
	m.tx.Set(wakeNameKey(m.key, at, kind, name), nil)
	m.noteWake(at)
}

func wakeNameKey(buf []byte, at int64, kind byte, name string) []byte {
	buf = append(store.AppendUint64(store.Key(buf, store.Wakes), uint64(at)), kind)
	return append(buf, name...)
}

func (m *Machine) noteWake(at int64) {
	if next := m.nextWake.Load(); next == 0 || at < next {
		m.nextWake.Store(at)
	}
}

// NextWake returns the log time at which something is due, 0 for never. An
// entry stamped so or later brings it about.
func (m *Machine) NextWake() int64 { return m.nextWake.Load() }

// updateNextWake runs after a commit. The earliest wake known is gone only if
// it was due: no entry then need look into the store for the next one.
func (m *Machine) updateNextWake() {
	if next := m.nextWake.Load(); next != 0 && next <= m.now {
		m.findNextWake()
	}
}

// findNextWake finds the earliest wake in the store. Others read what is known of it
// meanwhile: it must not look as if there were none.
func (m *Machine) findNextWake() {
	first := int64(0)
	for _, lower := range [...]uint64{choreBit, 0} {
		m.store.Scan(wakesFrom(lower), store.End(wakesFrom(0)[:1]), func(key, _ []byte) bool {
			at := int64(store.Uint64At(key, 1))
			if isChore(store.Uint64At(key, 1)) {
				at = choresDueNow
			}
			if first == 0 || at < first {
				first = at
			}
			return false
		})
	}
	m.nextWake.Store(first)
}

// wakesFrom returns the key before all wakes of a place.
func wakesFrom(place uint64) []byte { return store.AppendUint64([]byte{byte(store.Wakes)}, place) }

// wake does what is due, as much as this entry may.
func (m *Machine) wake() {
	if next := m.nextWake.Load(); next == 0 || next > m.now {
		return
	}
	due := wakesFrom(uint64(m.now) + 1)
	if m.level < LevelShared {
		m.workOff(wakesFrom(0), due, wakesPerEntry, 0)
	} else {
		m.budget.spent = 0 // what trim has done is bounded by itself
		n, items := 0, m.budget.items()
		for _, list := range [...]struct {
			lower, upper []byte
			until        int
		}{
			{wakesFrom(0), due, items / 2},
			{wakesFrom(choreBit), wakesFrom(choreBit | choreRoom), items / 4 * 3},
			{wakesFrom(choreBit | choreRoom), store.End(wakesFrom(0)[:1]), items},
		} {
			m.budget.until = list.until
			n = m.workOff(list.lower, list.upper, unbounded, n)
		}
		m.budget.until = unbounded
	}
	m.unit, m.bare = 0, false
}

// workOff works off wakes in the order of their keys, at most so many, until the
// budget is spent. n is how many there were before in this entry, and then with them.
func (m *Machine) workOff(lower, upper []byte, most, n int) int {
	for !m.isSpent() {
		var due [][]byte
		m.store.Scan(lower, upper, func(key, _ []byte) bool {
			due = append(due, append([]byte{}, key...))
			return len(due) < wakesPerEntry
		})
		for _, key := range due {
			if m.isSpent() {
				return n
			}
			n++
			m.tx.Delete(key)
			m.unit, m.kind = -n, 0
			_, m.bare = m.failed[m.unit]
			m.spend(1)
			if isChore(store.Uint64At(key, 1)) {
				m.begunChore(key[9], key[10:])
			}
			m.fire(key[9], key[10:])
		}
		if most -= len(due); most <= 0 || len(due) < wakesPerEntry {
			break
		}
		lower = append(due[len(due)-1], 0)
	}
	return n
}

// here returns the place in the log of what is under way.
func (m *Machine) here() uint64 { return event.PositionAt(m.out.index, m.woken+m.ordinal) }

// publishDue publishes an event whose time has come, or the will of a client that is gone.
// One that would be one topic too many is sent, not retained: there is nobody to refuse it to.
//
// Those that wakes publish with one entry have places of their own, before those of its
// commands: a session that is owed them by several streams is given them in that order.
func (m *Machine) publishDue(e *event.Event) {
	if m.unit < 0 && m.level >= LevelStreams {
		m.woken++
	}
	if m.retain(e) != nil {
		e.Retain = false
	}
	m.route(e)
}

func (m *Machine) fire(kind byte, id []byte) {
	switch kind {
	case wakeSweep:
		m.sweep(string(id))
	case wakePurge:
		m.purge(store.Uint64At(id, 0), store.Uint64At(id, 8), id[16:])
	case wakeReturn:
		m.takeBack(store.Uint64At(id, 0), store.Uint64At(id, 8), store.Uint64At(id, 16))
	case wakeShare:
		m.feed(store.Uint64At(id, 0), store.Uint64At(id, 8))
	case wakeRetained:
		m.expireRetained(string(id))
	case wakeProfile:
		m.wakeOf(string(id))
	case wakeEnd:
		m.endSub(store.Uint64At(id, 0), string(id[8:]))
	case wakeTerms:
		m.reckonEnds(id)
	case wakeStranger:
		m.removeStranger(store.Uint64At(id, 0))
	case wakeForget:
		m.forget(string(id))
	case wakeDelayed:
		m.publishDelayed(store.Uint64At(id, 0))
	case wakeUndelay:
		m.undelayAll(string(id))
	case wakeOrphans:
		m.takeOff(store.Uint64At(id, 0), string(id[8:]))
	case wakeBan:
		m.endBan(string(id))
	case wakeJudge:
		m.judge(string(id))
	case wakePay:
		m.payDue(store.Uint64At(id, 0))
	case wakeStream:
		m.reclaimStream(store.Uint64At(id, 0))
	case wakeExpiry, wakeWill:
		r := m.numbers[store.Uint64At(id, 0)]
		if r == nil || r.connected() || r.epoch != store.Uint64At(id, 8) {
			return
		}
		if kind == wakeExpiry {
			m.awaiting.expired.Add(1)
			m.endSession(r, nil)
		} else if r.will != nil && r.willAt != 0 {
			m.publishWill(r)
			m.writeRecord(r)
			m.park(r)
		}
	}
}
