package broker

import (
	"strings"

	"github.com/bellwire/bellwire/broker/store"
)

// A ClientSession is what the state of this node says of one client's session, but for what
// has to be counted: see Stored.
type ClientSession struct {
	Client, Principal string
	Node              string // that holds its connection; empty if it is away
	Version           uint8  // of the protocol, of its latest connection: 3, 4 or 5
	ReceiveMax        uint16
	Expiry            uint32 // seconds after the connection's end; 0: ends with it
	Away              int64  // since when, log time, unix nanoseconds; 0 while connected
	Will              bool   // one is to be published

	number uint64
}

// Clients calls yield with the sessions there are, of clients whose ids begin with prefix and
// come after the id after, in the order of ids, until yield returns false. Each is read from
// the store: for who asks now and then, and not for more than thousands at once. For any
// goroutine.
func (b *Broker) Clients(prefix, after string, yield func(ClientSession) bool) {
	all := store.Key(nil, store.Sessions)
	begin := append(all[:len(all):len(all)], prefix...)
	end := store.End(begin)
	if after >= prefix {
		begin = append(append(all[:len(all):len(all)], after...), 0) // the next there can be
	}
	b.config.Store.Scan(begin, end, func(key, value []byte) bool {
		r, err := decodeRecord(string(key[len(all):]), value)
		if err != nil || !strings.HasPrefix(r.client, prefix) {
			return true // one that cannot be read ends the process where it is applied
		}
		return yield(ClientSession{
			Client: r.client, Principal: r.principal, Node: r.node, Version: r.version, ReceiveMax: r.recvMax, Expiry: r.expiry,
			Away: r.offlineAt, Will: r.will != nil, number: r.session,
		})
	})
}

// Waiting counts what waits for the client of c, as StoredSession.Waiting does. It reads the
// store. For any goroutine.
func (b *Broker) Waiting(c *ClientSession) uint64 { return storedWaiting(b.config.Store, c.number) }
