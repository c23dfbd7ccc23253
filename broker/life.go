package broker

import (
	"cmp"
	"encoding/binary"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// The lives of nodes.
//
// A node lives from a NodeUp to the NodeUp of its next life, or to the NodeDown by
// which the leader closes a life that has been silent for too long. What must hold
// is that the log alone says which life is open, for others act on it: when a life
// is closed its sessions are without connections, their wills are scheduled, and
// their clients connect elsewhere.
//
//   - No batch of a closed life is applied. So what the node had on its way is
//     applied before the NodeDown or never, the same on every node; and the
//     batches of its next life begin at 1, so there is no gap.
//   - A node that was only paused or cut off meets the end of its own life in the
//     log, in its place among the entries. What was applied of its batches before
//     that has been acknowledged, or is by the steps before; of the rest nobody
//     is told yes: the outcome is unknown to whoever waits.
//   - From that step on none of its clients is delivered anything: it drops them,
//     for their sessions may be connected elsewhere. They go without a word to
//     the log. A session proposes through the proposer of the life it was opened
//     in, which takes nothing any more: no Disconnect, no acknowledgement and no
//     publish of an earlier life can come in the name of a later one.
//   - The next life begins at once, with its NodeUp as the first command of its
//     first batch. Whoever connects from then on is behind that.
//
// The Machine takes the next life's number itself, with the entry that ends the
// one before, and tells the loop by a step. So whatever is ours among the entries
// is so for the Machine and for the loop from the same place in the log on.

// applyNodeUp takes note that a node lives anew. The sessions that its former
// lives held lost their connections with them; a wake ends them piece by piece.
func (m *Machine) applyNodeUp(from event.Header) {
	m.setWakeName(m.now, wakeSweep, from.Node)
}

// applyNodeDown closes a life of a node, if it is open.
func (m *Machine) applyNodeDown(from event.Header, c *event.NodeDown) error {
	state, known := m.nodes[c.Node]
	switch {
	case c.Node == from.Node:
		return &Refusal{Reason: "a node does not close a life of its own"}
	case !known || state.closed || state.life != c.Incarnation:
		return nil
	}
	state.closed = true
	if state.former == 0 {
		state.former = state.seen
	}
	m.nodes[state.name] = state
	m.writeNode(state.name)
	m.setWakeName(m.now, wakeSweep, state.name)
	if c.Node == m.node && c.Incarnation == m.life {
		m.ended = true
	}
	return nil
}

// beginLife makes our next life the present one. It is called when the entry that
// ended the one before is committed: one that is applied anew ends the same life.
func (m *Machine) beginLife() {
	m.life = m.relive()
	m.out.steps = append(m.out.steps, step{kind: stepLife, life: m.life})
}

// sweep ends connections that lives of node held which are over.
func (m *Machine) sweep(node string) {
	lower := store.AppendName([]byte{byte(store.Held)}, node)
	state := m.nodes[node]
	present := store.AppendUint64(append([]byte{}, lower...), state.life)
	more := false
	var lost []*record
	m.store.Scan(lower, store.End(lower), func(key, _ []byte) bool {
		if !state.closed && string(key[:len(present)]) == string(present) {
			return true
		}
		if len(lost) == itemsPerWake {
			more = true
			return false
		}
		life, session := store.Uint64At(key, len(lower)), store.Uint64At(key, len(lower)+8)
		if r := m.numbers[session]; r != nil && r.node == node && r.life == life {
			lost = append(lost, r)
		}
		return true
	})
	for i, r := range lost {
		if i > 0 && m.isSpent() {
			more = true
			break
		}
		r.seenAt = state.former // nobody knows when the node died after that
		m.lost(r)
		m.endConnection(r, departure{will: true, why: event.ReasonNodeLost})
		m.park(r)
	}
	if more {
		m.setWakeName(m.now, wakeSweep, node)
	} else if state.former != 0 {
		state.former = 0
		m.nodes[node] = state
		m.writeNode(node)
	}
}

func (m *Machine) writeNode(node string) {
	n := m.nodes[node]
	m.tx.Set(nodeKey(m.key, node), n.append(m.val[:0]))
}

func nodeKey(buf []byte, node string) []byte { return append(store.Key(buf, store.Nodes), node...) }

// append appends n as stored: what decode reads.
//
//	life 8 bytes | seq 8 bytes | seen 8 bytes | former 8 bytes | [1, if closed]
func (n *nodeState) append(b []byte) []byte {
	for _, v := range [...]uint64{n.life, n.seq, uint64(n.seen), uint64(n.former)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	if n.closed {
		b = append(b, 1)
	}
	return b
}

func (n *nodeState) decode(b []byte) error {
	switch {
	case len(b) == 16: // an earlier version wrote no more
		n.life, n.seq = store.Uint64At(b, 0), store.Uint64At(b, 8)
		return nil
	case len(b) != 32 && (len(b) != 33 || b[32] != 1):
		return event.ErrDamaged
	}
	n.life, n.seq, n.closed = store.Uint64At(b, 0), store.Uint64At(b, 8), len(b) == 33
	n.seen, n.former = int64(store.Uint64At(b, 16)), int64(store.Uint64At(b, 24))
	return nil
}

// openLife returns the life of a node that is open, as the store has it; ok is
// false if there is none. For any goroutine.
func (m *Machine) openLife(node string) (life uint64, ok bool) {
	b, ok := m.store.Get(nodeKey(nil, node), nil)
	var n nodeState
	if !ok || n.decode(b) != nil || n.closed {
		return 0, false
	}
	return n.life, true
}

// relive ends what the loop does for the life that is over, and begins another.
func (l *loop) relive(life uint64) {
	b := l.b
	former := b.proposer.Load()
	if former == nil {
		return // not started: nothing was proposed
	}
	n := len(l.live)
	for _, s := range l.live {
		l.drop(s, ErrAway)
	}
	next := b.newProposer(life)
	up := newWait()
	// It is the first of the first batch: whoever finds the proposer comes after.
	if err := next.propose(&event.NodeUp{At: b.now()}, call{c: up}, true); err != nil {
		panic(err) // it is ours alone, empty and open
	}
	b.proposer.Store(next)
	former.close(ErrAway)
	b.stats.Lives.Add(1)
	b.logger.Warn("the others had given this node up: its clients are disconnected, and it begins anew", "clients", n)
	b.running.Go(func() {
		select {
		case <-up.done:
			if up.err == nil {
				b.logger.Info("this node serves again")
			}
		case <-b.closing:
		}
	})
}

func (b *Broker) newProposer(life uint64) *proposer {
	p := newProposer(b.log, b.machine.node, life, b.limits.Backlog)
	p.weigh, p.cut, p.patience = b.machine.weigh, &b.silence.cut, b.patience()
	return p
}

func (b *Broker) patience() time.Duration { return cmp.Or(b.config.Patience, releaseAfter) }

// lostKept bounds how many nodes are remembered as lost: more than a cluster has.
const lostKept = 64

// NodeLost says that a node has been silent for the failure time. On the leader it
// closes the node's life, once, however often it is called: the node's sessions
// lose their connections by the log's account, and a node that was not dead finds
// that out by the log. It returns at once; what is not ordered is proposed again,
// once a second, for as long as this node leads and PeerUp is not called for that
// one. On other nodes it does nothing.
//
// Whoever becomes the leader has it called for every member that it does not hear
// of, also of those that it has never heard of. Who is no member any more the
// broker finds itself, if its Log knows.
func (b *Broker) NodeLost(node string) {
	if node == b.machine.node {
		return
	}
	b.miss(node)
	b.Kick()
}

// miss notes that a node is lost.
func (b *Broker) miss(node string) {
	b.lostMu.Lock()
	defer b.lostMu.Unlock()
	if b.lost == nil {
		b.lost = map[string]*wait{}
	}
	if _, known := b.lost[node]; !known && len(b.lost) < lostKept {
		b.lost[node] = nil
	}
}

// found undoes NodeLost.
func (b *Broker) found(node string) {
	b.lostMu.Lock()
	defer b.lostMu.Unlock()
	delete(b.lost, node)
}

// A membership is a Log that knows which nodes are members.
type membership interface{ Member(node string) bool }

// openLives returns the nodes that have an open life. For any goroutine.
func (m *Machine) openLives() (nodes []string) {
	lower := []byte{byte(store.Nodes)}
	m.store.Scan(lower, store.End(lower), func(key, value []byte) bool {
		if n := (nodeState{}); n.decode(value) == nil && !n.closed {
			nodes = append(nodes, string(key[1:]))
		}
		return true
	})
	return nodes
}

// missMembers has the leader take those for lost that are members no more: nobody
// else would ever say so.
func (b *Broker) missMembers() {
	log, ok := b.log.(membership)
	if !ok || !b.log.Leader() {
		return
	}
	for _, node := range b.machine.openLives() {
		if node != b.machine.node && !log.Member(node) {
			b.miss(node)
		}
	}
}

// closeLives has the log close the lives of the nodes that are lost. The timers'
// goroutine calls it, and again when one is closed: there are connections to end.
func (b *Broker) closeLives() {
	b.missMembers()
	b.lostMu.Lock()
	defer b.lostMu.Unlock()
	for node, down := range b.lost {
		switch life, open := b.machine.openLife(node); {
		case !open, !b.log.Leader(): // another leader has its own account of who is lost
			delete(b.lost, node)
		case down == nil || down.over() && down.err != nil:
			b.lost[node] = b.closeLife(node, life)
		case down.over():
			delete(b.lost, node)
		}
	}
}

// closeLife has the log close a life. nil means that it cannot now.
func (b *Broker) closeLife(node string, life uint64) *wait {
	w := newWait()
	w.first = func(_ any, err error, _ *Wave) {
		if err == nil {
			b.logger.Warn("a node is lost: its sessions are without connections", "node", node)
			b.Kick()
		}
	}
	if b.propose(&event.NodeDown{Node: node, Incarnation: life, At: b.now()}, call{c: w}, true) != nil {
		return nil
	}
	return w
}
