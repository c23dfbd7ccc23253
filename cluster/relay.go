package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

const frameMessage byte = 48 // a message between the nodes' programs

// relayBytes is how much may wait for one node. What is sent beyond is lost.
const relayBytes = 8 << 20

// relays carry messages that need no log: each node keeps a connection to each
// other, on which it sends, and is sent what others say on theirs.
type relays struct {
	n    *Node
	lost atomic.Uint64 // messages for which there was no room, or no connection

	mu  sync.Mutex // guards the following
	out map[raft.ServerID]*relay
	in  map[string]*incoming
}

// A relay is this node's side of what goes to one other.
type relay struct {
	of   *relays
	id   raft.ServerID
	stop chan struct{}
	tell chan struct{} // there is something to send

	mu      sync.Mutex // guards the following
	up      bool
	waiting [][]byte
	bytes   int
}

// An incoming is a connection on which another node sends.
type incoming struct {
	conn *link.Conn
	over chan struct{}
}

func newRelays(n *Node) *relays {
	return &relays{n: n, out: map[raft.ServerID]*relay{}, in: map[string]*incoming{}}
}

// reconcile sees to it that there is a relay for each other member, and no more.
func (r *relays) reconcile(servers []raft.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	members := map[raft.ServerID]bool{}
	for _, s := range servers {
		members[s.ID] = s.ID != r.n.id
		if s.ID == r.n.id || r.out[s.ID] != nil {
			continue
		}
		o := &relay{of: r, id: s.ID, stop: make(chan struct{}), tell: make(chan struct{}, 1)}
		r.out[s.ID] = o
		r.n.tasks.Go(o.run)
	}
	for id, o := range r.out {
		if !members[id] {
			close(o.stop)
			delete(r.out, id)
		}
	}
}

// Send queues a message for the program of another node, behind those before it.
// It does not block, and copies the message. It says no, and the message is lost,
// if there is no connection or too much waits for it: 8 MiB. What it takes may be
// lost too, when the connection ends; Config.PeerUp tells of the next.
func (n *Node) Send(node string, message []byte) bool {
	n.relays.mu.Lock()
	o := n.relays.out[raft.ServerID(node)]
	n.relays.mu.Unlock()
	if o == nil || !o.queue(message) {
		n.relays.lost.Add(1)
		return false
	}
	return true
}

func (o *relay) queue(message []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.up || o.bytes+len(message) > relayBytes {
		return false
	}
	o.waiting = append(o.waiting, append([]byte(nil), message...))
	o.bytes += len(message)
	select {
	case o.tell <- struct{}{}:
	default:
	}
	return true
}

// run keeps a connection and sends what is queued.
func (o *relay) run() {
	n := o.of.n
	pause := 20 * time.Millisecond
	for {
		conn, err := n.links.dial(string(o.id), planeRelay)
		if err != nil {
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
				continue
			case <-o.stop:
				return
			case <-n.leaving:
				return
			}
		}
		pause = 20 * time.Millisecond
		o.send(conn)
		select {
		case <-o.stop:
			return
		case <-n.leaving:
			return
		default:
		}
	}
}

// send sends on one connection until it ends.
func (o *relay) send(conn *link.Conn) {
	n := o.of.n
	gone := make(chan struct{})
	go func() { // nothing is ever answered; so a read ends when the connection does
		defer close(gone)
		_, _, _, _ = conn.Read()
	}()
	o.set(true)
	if n.cfg.PeerUp != nil {
		n.cfg.PeerUp(string(o.id))
	}
	for open := true; open; {
		select {
		case <-gone:
			open = false
		case <-o.stop:
			open = false
		case <-n.leaving:
			open = false
		case <-o.tell:
			open = o.flush(conn) == nil
		}
	}
	o.set(false)
	_ = conn.Close()
	<-gone
	if n.cfg.PeerDown != nil {
		n.cfg.PeerDown(string(o.id))
	}
}

func (o *relay) set(up bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up, o.waiting, o.bytes = up, nil, 0
}

func (o *relay) flush(conn *link.Conn) error {
	o.mu.Lock()
	batch := o.waiting
	o.waiting = nil
	o.mu.Unlock()
	sent := 0
	for _, m := range batch {
		if err := conn.Queue(frameMessage, untold, m); err != nil {
			return err
		}
		sent += len(m)
	}
	err := conn.Flush()
	o.mu.Lock()
	o.bytes = max(0, o.bytes-sent)
	o.mu.Unlock()
	return err
}

// serveRelay hands messages of another node to Config.Receive. A node has one
// such connection: a new one ends the one before, whose messages are through
// before any of the new one's.
func (n *Node) serveRelay(c *link.Conn) {
	r := n.relays
	me := &incoming{c, make(chan struct{})}
	defer close(me.over)
	r.mu.Lock()
	former := r.in[c.Peer.ID]
	r.in[c.Peer.ID] = me
	r.mu.Unlock()
	if former != nil {
		_ = former.conn.Close()
		<-former.over
	}
	for {
		kind, _, body, err := c.Read()
		if err != nil || kind != frameMessage {
			break
		}
		if n.cfg.Receive != nil {
			n.cfg.Receive(c.Peer.ID, body)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in[c.Peer.ID] == me {
		delete(r.in, c.Peer.ID)
	}
}
