package broker

import (
	"github.com/bellwire/bellwire/broker/store"
)

// A StoredSession is what the state of this node says of a client's session.
type StoredSession struct {
	Node       string   // that holds its connection; empty if it is away
	ReceiveMax uint16   // of its latest connection
	Waiting    uint64   // events in its queue, and owed by streams as far as has been counted
	Unreleased []uint16 // packet ids of QoS 2 publishes of its client's that are not released
	Filters    []string // of its subscriptions, shared ones left out
}

// Stored returns what there is of the session of a client; ok is false if there is none.
// It reads the store: for who asks now and then. For any goroutine.
func (b *Broker) Stored(client string) (is StoredSession, ok bool) {
	s := b.config.Store
	data := storedValue(s, (&record{client: client}).key(nil))
	if data == nil {
		return is, false
	}
	r, err := decodeRecord(client, data)
	if err != nil {
		return is, false
	}
	is.Node, is.ReceiveMax = r.node, r.recvMax
	if data := storedValue(s, cursorKey(nil, r.session)); data != nil && r.queue.decode(data) == nil {
		is.Waiting = r.queue.count
	}
	if data := storedValue(s, debtKey(nil, r.session)); data != nil {
		// Which streams owe it does not matter here, as that the owed ones are known.
		if r.debts, err = decodeDebts(data, func(uint64) *stream { return &stream{} }); err == nil {
			owed, _ := r.owed()
			is.Waiting += owed
		}
	}
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
