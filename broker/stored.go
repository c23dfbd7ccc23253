package broker

import (
	"bytes"

	"github.com/bellwire/bellwire/broker/store"
)

// A StoredSession is what the state of this node says of a client's session.
type StoredSession struct {
	Node       string   // that holds its connection; empty if it is away
	ReceiveMax uint16   // of its latest connection
	Unreleased []uint16 // packet ids of QoS 2 publishes of its client's that are not released
	Filters    []string // of its subscriptions, shared ones left out

	// Waiting is how many events wait for its client, or wait for the log to hear that it
	// has acknowledged them: those of its queue, and those that streams owe it. If it is
	// away for so long that its bound will push some out when it is back, those are
	// among them until then.
	Waiting uint64
}

// Stored returns what there is of the session of a client; ok is false if there is none.
// It reads the store: for who asks now and then. For any goroutine.
func (b *Broker) Stored(client string) (is StoredSession, ok bool) {
	return storedSession(b.config.Store, client)
}

func storedSession(s *store.Store, client string) (is StoredSession, ok bool) {
	data := storedValue(s, (&record{client: client}).key(nil))
	if data == nil {
		return is, false
	}
	r, err := decodeRecord(client, data)
	if err != nil {
		return is, false
	}
	is.Node, is.ReceiveMax, is.Waiting = r.node, r.recvMax, storedWaiting(s, r.session)
	ids := store.AppendUint64(store.Key(nil, store.Inbound), r.session)
	s.Scan(ids, store.End(ids), func(key, _ []byte) bool {
		if n := len(key); n >= 2 {
			is.Unreleased = append(is.Unreleased, uint16(key[n-2])<<8|uint16(key[n-1]))
		}
		return true
	})
	subs := store.AppendUint64(store.Key(nil, store.Subs), r.session)
	s.Scan(subs, store.End(subs), func(_, value []byte) bool {
		var sub storedSub
		if sub, err = decodeSub(value); err == nil {
			if _, shared := sharedRest(sub.Filter); !shared {
				is.Filters = append(is.Filters, sub.Filter)
			}
		}
		return true
	})
	return is, true
}

// storedWaiting counts what waits for a session. The log may go on meanwhile, and what it
// moves from a debt to the queue must not be missed in both: so it is counted anew until
// neither has changed; or a hundred times, where a few of them may be missed.
func storedWaiting(s *store.Store, session uint64) uint64 {
	queueKey, owedKey := cursorKey(nil, session), debtKey(nil, session)
	queued, owed := storedValue(s, queueKey), storedValue(s, owedKey)
	for tries := 0; ; tries++ {
		n := storedOwed(s, owed)
		var q queue
		if queued != nil && q.decode(queued) == nil {
			n += q.count
		}
		queuedNow, owedNow := storedValue(s, queueKey), storedValue(s, owedKey)
		if bytes.Equal(queued, queuedNow) && bytes.Equal(owed, owedNow) || tries == 100 {
			return n
		}
		queued, owed = queuedNow, owedNow
	}
}

// storedOwed counts what debts, as they are stored, come to by now: what their streams have
// got since it was last counted (see fold), without what these have pushed out.
func storedOwed(s *store.Store, data []byte) (events uint64) {
	if data == nil {
		return 0
	}
	all, err := decodeDebts(data, func(id uint64) *stream {
		x := &stream{id: id}
		if head := storedValue(s, headKey(nil, id)); head != nil {
			_ = x.decode(head) // one that cannot be read ends the process where it is applied
		}
		return x
	})
	if err != nil {
		return 0
	}
	for i := range all {
		events += all[i].left
		for _, j := range all[i].joins {
			end := j.counted
			if j.member {
				end = max(end, j.s.next)
			}
			events += end - j.counted
			events -= min(max(j.s.first, j.next), end) - j.next
		}
	}
	return events
}
