package broker

import (
	"cmp"
	"math"

	"github.com/bellwire/bellwire/broker/store"
)

// The budget of an entry: how much of what is due one entry of the log does.
//
// Much can fall due at once: a hundred thousand sessions that expire in one second,
// each with a full queue, of which every copy that it had as one of a group goes to
// somebody else. A node that did all of it with one entry would acknowledge nothing
// for seconds, and miss its leader. So each entry does so many *items*, an item being
// about as much as it costs to take an entry out of a queue, and what is left stays
// due: there is another entry at once, for NextWake says so.
//
// Who comes first when there is more than that:
//
//   - What time brings about (sessions expire, subscriptions end with their windows,
//     wills), and what a policy or the end of a node's life does to sessions, goes
//     first, in the order of time, up to half of the budget; before all of it what is
//     left of somebody whom the policy does not know any more goes, of which nothing
//     that is due may be published.
//   - What has been begun by that or by a command, and can be put off, is a *chore*. Two
//     lists of them follow: what others wait for (copies that go to other members of a
//     group, what streams owe, judgements), up to three quarters, and what only takes
//     up room (queues and subscriptions of sessions that have ended, streams nobody is
//     owed anything of), up to all of it.
//
// So nothing waits for a purge but another purge, and each list has a quarter at
// least, whatever the others have. Within a list it is first come, first served, and
// itemsPerWake at a time: what is not done then is the last of its list. So the
// longest chore delays another by no more than its turn.
//
// Whatever is begun does one item at least, so that all of it comes to an end. An
// entry does more than its budget by what is not divided: a will goes to all who
// subscribe to it, a stream's bound takes with it what it does of one queue, and with a
// session as many subscriptions end as are a piece (see endSubs). What commands do is
// bounded where they are proposed (batchWeight), and what trim does by what the entry
// before has added.
//
// Below LevelShared there are no chores: 256 wakes an entry in the order of time, each
// with itemsPerWake for itself.
type budget struct {
	perEntry int // items; 0 for itemsPerEntry
	perPiece int // subscriptions of an ended session that go at once; 0 for filtersAtOnce
	perBack  int // and of one that comes back; likewise

	spent int // by the entry being applied, on what is due
	until int // what is under way stops when spent is there

	// waiting are the chores of kinds that may be wanted again before they are done:
	// once is enough. It follows from the store.
	waiting map[chore]struct{}
}

// A chore is something that may wait its turn.
type chore struct {
	kind          byte
	session, more uint64
}

// itemsPerEntry is the budget. An item costs 0.5 to 0.65 µs of a processor, and the
// longest entry 14 to 20 ms (BenchmarkWorstEntry); by the clock that is as much longer
// as the machine has more to do than it has processors.
const itemsPerEntry = 16 << 10

// unbounded is for what bounds itself.
const unbounded = math.MaxInt

// Weights in items of what costs more than one, or less.
const (
	endWeight    = 8            // a session ends, or its connection; each of its subscriptions that end with it is one item
	bodyWeight   = 4            // an event is read that is stored for several queues
	forgetWeight = itemsPerWake // a piece of what a profile keeps of somebody
	askedPerOne  = 32           // so many members are asked whether they can have a copy
)

// spend takes note of work that was done.
func (m *Machine) spend(items int) { m.budget.spent += items }

// isSpent says whether what is under way is to be left to the next entry.
func (m *Machine) isSpent() bool { return m.budget.spent >= m.budget.until }

// piece returns how much what is under way may do at once: 1 at least.
func (m *Machine) piece() int {
	return max(1, min(itemsPerWake, m.budget.until-m.budget.spent))
}

func (b *budget) items() int {
	if b.perEntry == 0 {
		return itemsPerEntry
	}
	return b.perEntry
}

// subs returns how many subscriptions of a session that ends go at once.
func (b *budget) subs() int { return cmp.Or(b.perPiece, filtersAtOnce) }

// backs is subs of one that comes back to this node.
func (b *budget) backs() int { return cmp.Or(b.perBack, filtersAtOnce) }

// The lists of chores. Their keys are after those of all times, and have the index
// of the entry that set them in place of a time: so the first is who has waited
// longest.
const (
	choreBit     = uint64(1) << 63
	choreRoom    = uint64(1) << 62 // it only takes up room
	choresDueNow = int64(1)        // what NextWake says while there is a chore
)

// placeOf returns where a chore that this entry sets is in the order of wakes.
func (m *Machine) placeOf(kind byte) uint64 {
	place := choreBit | m.out.index
	if kind == wakePurge || kind == wakeStream || kind == wakeOrphans {
		place |= choreRoom
	}
	return place
}

// isChore says whether a wake's place is in the lists of chores.
func isChore(place uint64) bool { return place&choreBit != 0 }

// repeats says whether a kind of chore may be wanted while it waits.
func repeats(kind byte) bool {
	return kind == wakeReturn || kind == wakeShare || kind == wakePay || kind == wakeStream || kind == wakeTrim
}

// setChore has kind done for a session, or what has its number, when it is its turn:
// by the next entry at the earliest. from is where it is to begin, if its kind has use
// for that.
func (m *Machine) setChore(kind byte, session, more uint64, from ...uint64) {
	if m.level < LevelShared {
		m.setWake(m.now, kind, session, more)
		return
	}
	if repeats(kind) {
		c := chore{kind, session, more}
		if _, waits := m.budget.waiting[c]; waits {
			return
		}
		m.budget.waiting[c] = struct{}{}
	}
	key := wakeKey(m.key, int64(m.placeOf(kind)), kind, session, more)
	for _, n := range from {
		key = store.AppendUint64(key, n)
	}
	m.tx.Set(key, nil)
	m.noteWake(choresDueNow)
}

// setChoreName is setChore for what has a name.
func (m *Machine) setChoreName(kind byte, name string) {
	if m.level < LevelShared {
		m.setWakeName(m.now, kind, name)
		return
	}
	m.tx.Set(wakeNameKey(m.key, int64(m.placeOf(kind)), kind, name), nil)
	m.noteWake(choresDueNow)
}

// begunChore takes note that a chore is not waiting any more.
func (m *Machine) begunChore(kind byte, id []byte) {
	if repeats(kind) {
		delete(m.budget.waiting, chore{kind, store.Uint64At(id, 0), store.Uint64At(id, 8)})
	}
}

// loadChores notes what is waiting.
func (m *Machine) loadChores() error {
	m.budget.waiting = map[chore]struct{}{}
	lower := store.AppendUint64([]byte{byte(store.Wakes)}, choreBit)
	m.store.Scan(lower, store.End([]byte{byte(store.Wakes)}), func(key, _ []byte) bool {
		if kind := key[9]; repeats(kind) {
			m.budget.waiting[chore{kind, store.Uint64At(key, 10), store.Uint64At(key, 18)}] = struct{}{}
		}
		return true
	})
	return nil
}
