package broker

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// Relays carry events that no log has (of QoS 0, and those kept in memory only) to the nodes that hold subscribers of theirs.
//
// Each node tells its peers which filters the sessions have that are connected to
// it (see interest). What a peer has told stands in the index of local
// subscriptions, under a key that is no session's: so the list of who gets events
// of a topic, which is cached and found by one lookup, names the peers too, and a
// publisher whose event concerns no other node learns that at no cost.
//
// What is relayed is gathered in the publisher's wave, a frame for each peer, and
// sent when the wave is flushed: events of one publisher go by one frame after the
// other. A frame carries the place in the log that the origin had reached, and is
// delivered when the receiver has delivered that much: an event of QoS 0 does not
// overtake one of QoS 1 that its publisher sent before it. (While that one is
// still on its way through the log, the event takes the log too: see Publish.) One
// of QoS 1 may well overtake one of QoS 0 that waits in a link: what a publisher
// sends keeps its order for each topic and QoS, no more ([MQTT-4.6.0-5]).
//
// The receiver delivers as its own publishers do, and asks its own policy whether a
// subscriber may have it now. Nothing is sent on. All of it promises nothing, and
// is bounded: what finds no room is lost, and counted.
type relays struct {
	b        *Broker
	to       Peers       // nil: this node is alone; set before anybody is connected
	active   atomic.Bool // there has been a peer: interest is kept
	stream   uint64
	interest interest
	wake     chan struct{} // there is something to tell

	waiting atomic.Int64 // frames that wait for the log, of all peers
	alls    atomic.Int64 // peers that want everything

	mu    sync.Mutex // guards the following, interest, and what peers say is guarded by it
	peers map[string]*peer
	list  atomic.Pointer[[]*peer] // the same, to be read without mu
	news  chan struct{}           // closed and replaced when a peer has heard, or has gone
}

// A peer is another node, as this one knows it.
type peer struct {
	r    *relays
	node string
	key  uint64    // in the index
	sub  *localSub // its value there

	up  atomic.Bool // our link to it
	all atomic.Bool // it wants everything

	// Guarded by relays.mu.
	full    bool // it has to be told all of our interest
	heard   uint64
	refused bool // a message of it was, since the link is up
	answer  bool // tell it how far we have heard it: stream and version
	ask     bool // ask it for all of its interest
	asked   bool // it was, not long ago
	stream  uint64
	version uint64

	told told

	// What of it waits for the log. Delivery of its events is under the lock, so
	// that they keep their order.
	inMu   sync.Mutex
	frames []relayed
	bytes  int
	event  event.Event
	wave   Wave
}

// A relayed is a frame that waits until the log has been delivered up to after.
type relayed struct {
	after  uint64
	events []byte
}

const (
	peersMost    = 64       // nodes that are known beside this one
	frameBytes   = 64 << 10 // a frame is sent when it is as long, or the wave is flushed
	relayWaiting = 4 << 20  // bytes of a peer's events that may wait for the log
	peerKeys     = 1 << 63  // keys in the index from here on are peers'
)

func (r *relays) init(b *Broker) {
	r.b, r.stream = b, rand.Uint64()
	r.wake = make(chan struct{}, 1)
	r.peers, r.news = map[string]*peer{}, make(chan struct{})
	r.list.Store(new([]*peer))
	r.interest.init()
}

// start begins to tell peers of our interest.
func (r *relays) start(to Peers) {
	r.to = to
	r.b.running.Go(r.run)
	r.kick()
}

// peer returns what is known of a node, nil if there are too many.
func (r *relays) peer(node string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.peers[node]; p != nil {
		return p
	}
	if len(r.peers) >= peersMost || node == r.b.machine.node {
		return nil
	}
	p := &peer{r: r, node: node, key: peerKeys | uint64(len(r.peers)), full: true}
	p.sub = &localSub{peer: p}
	r.peers[node] = p
	list := append(append([]*peer{}, *r.list.Load()...), p)
	r.list.Store(&list)
	return p
}

// PeerUp says that our link to a node is up anew: what was sent to it before may be
// lost. It is told all of our interest, and asked for its own.
func (b *Broker) PeerUp(node string) {
	b.found(node)
	p := b.relays.peer(node)
	if p == nil {
		return
	}
	b.relays.begin()
	b.relays.mu.Lock()
	// At once, or who tells the peers in between tells this one of a change only,
	// which it must ask about.
	p.up.Store(true)
	p.full, p.heard, p.ask, p.asked, p.refused = true, 0, true, false, false
	b.relays.mu.Unlock()
	b.relays.kick()
}

// begin keeps our interest from here on: a node alone is spared that.
func (r *relays) begin() {
	if r.active.Load() {
		return
	}
	r.b.loop.do(func(*Wave) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.active.Swap(true) {
			return
		}
		for _, s := range slices.Concat(slices.Collect(maps.Values(r.b.loop.live)), r.b.loop.leaving.sessions) {
			for filter := range s.subs {
				r.interest.add(filter)
			}
		}
		r.turned(false)
	})
}

// PeerDown says that our link to a node is gone. Nothing is relayed to it, and
// nobody waits for it. It may take a moment: what the node wanted is forgotten.
func (b *Broker) PeerDown(node string) {
	p := b.relays.peer(node)
	if p == nil {
		return
	}
	p.up.Store(false)
	b.relays.changed()
	p.told.forget(p)
}

// changed wakes who waits for peers to hear.
func (r *relays) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changedNow()
}

func (r *relays) changedNow() {
	close(r.news)
	r.news = make(chan struct{})
}

func (r *relays) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// interested returns the peers that an audience is to be relayed to: those that
// the index says, and those that want everything.
func (r *relays) interested(matches []topic.Entry[uint64, *localSub]) (to []*peer) {
	for i, m := range matches {
		if i == 0 || m.Key != matches[i-1].Key {
			to = append(to, m.Value.peer)
		}
	}
	if r.alls.Load() == 0 {
		return to
	}
	for _, p := range *r.list.Load() {
		if p.all.Load() && !slices.Contains(to, p) { // it may be about to drop what it had said before
			to = append(to, p)
		}
	}
	return to
}

// deliverHere hands an event that is not ordered to those connected here, and to
// the nodes where others are.
func (b *Broker) deliverHere(e *event.Event, now int64, w *Wave) {
	a := b.local.LookupString(e.Topic)
	a.deliver(b, e, now, w)
	if b.silence.all.Load() {
		// Nor do others get it: its publisher's right may be gone, of which they would
		// not ask.
		b.stats.RelayLost.Add(uint64(len(a.peers)))
		b.stats.SharedLost.Add(uint64(len(a.groups)))
		return
	}
	if len(a.peers) > 0 {
		w.relay(a.peers, e)
	}
	for _, g := range a.groups {
		g.pick(b, e, now, w)
	}
}

// A frame is what a wave holds for one peer.
type frame struct {
	to     *peer
	buf    []byte
	events uint64
}

// frameHeader is what comes before the events in a frame: version, kind, and the
// place in the log, 8 bytes.
const frameHeader = 10

// relay adds e to what goes to those peers with the wave.
func (w *Wave) relay(to []*peer, e *event.Event) {
	var form []byte
	for _, p := range to {
		if !p.up.Load() {
			p.r.b.stats.RelayLost.Add(1)
			continue
		}
		f := w.frameTo(p)
		if form == nil {
			start := len(f.buf)
			f.buf = appendRelayed(f.buf, "", e)
			form = f.buf[start:]
		} else {
			f.buf = append(f.buf, form...)
		}
		f.events++
	}
	for i := range w.frames {
		if f := &w.frames[i]; len(f.buf) >= frameBytes {
			f.send()
		}
	}
}

// relayShared adds e to what goes to a peer with the wave, for one of a group.
func (w *Wave) relayShared(p *peer, filter string, e *event.Event) {
	f := w.frameTo(p)
	f.buf = appendRelayed(f.buf, filter, e)
	f.events++
	if len(f.buf) >= frameBytes {
		f.send()
	}
}

func (w *Wave) frameTo(p *peer) *frame {
	for i := range w.frames {
		if w.frames[i].to == p {
			return &w.frames[i]
		}
	}
	w.frames = append(w.frames, frame{to: p, buf: make([]byte, frameHeader, 4<<10)})
	return &w.frames[len(w.frames)-1]
}

// appendRelayed appends e as a frame has it: its length in four bytes, its form. What
// is for one of a group has relayShared set in the length, and the group's filter in
// front of the event, with its length as an uvarint before it.
func appendRelayed(b []byte, filter string, e *event.Event) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	flag := uint32(0)
	if filter != "" {
		flag = relayShared
		b = append(binary.AppendUvarint(b, uint64(len(filter))), filter...)
	}
	b = e.Append(b)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4)|flag)
	return b
}

const relayShared = 1 << 31

// sendFrames sends what goes to other nodes.
func (w *Wave) sendFrames() {
	for i := range w.frames {
		w.frames[i].send()
	}
}

// send sends the frame and empties it.
func (f *frame) send() {
	if f.events == 0 {
		return
	}
	r := f.to.r
	f.buf[0], f.buf[1] = peerVersion, peerEvents
	// What this entry may have delivered, and who publishes now may know of, is
	// not after the place: so the place is the entry's that is being delivered.
	binary.BigEndian.PutUint64(f.buf[2:], r.b.loop.begun.Load())
	if r.to != nil && r.to.Send(f.to.node, f.buf) {
		r.b.stats.RelaySent.Add(f.events)
	} else {
		r.b.stats.RelayLost.Add(f.events)
	}
	f.events = 0
	if f.buf = f.buf[:frameHeader]; cap(f.buf) > 2*frameBytes {
		f.buf = make([]byte, frameHeader, 4<<10)
	}
}

// receive takes the events of a frame, in the order in which frames come.
func (p *peer) receive(after uint64, events []byte) {
	l := &p.r.b.loop
	p.inMu.Lock()
	if len(p.frames) == 0 && l.index.Load() >= after {
		p.deliver(events, &p.wave)
		p.inMu.Unlock()
		p.wave.Flush() // only Receive uses it
		return
	}
	if p.bytes+len(events) > relayWaiting {
		p.inMu.Unlock()
		p.r.b.stats.RelayDropped.Add(1)
		return
	}
	p.frames = append(p.frames, relayed{after, append([]byte(nil), events...)})
	p.bytes += len(events)
	p.r.waiting.Add(1)
	p.inMu.Unlock()
	if l.index.Load() >= after { // the loop may have looked before we were there
		l.do(func(w *Wave) { p.drain(w) })
	}
}

// drain delivers what waits of all peers and may go now. In the delivery loop.
func (r *relays) drain(w *Wave) {
	for _, p := range *r.list.Load() {
		p.drain(w)
	}
}

func (p *peer) drain(w *Wave) {
	p.inMu.Lock()
	defer p.inMu.Unlock()
	index := p.r.b.loop.index.Load()
	n := 0
	for n < len(p.frames) && p.frames[n].after <= index {
		p.deliver(p.frames[n].events, w)
		p.bytes -= len(p.frames[n].events)
		n++
	}
	p.frames = append(p.frames[:0], p.frames[n:]...)
	clear(p.frames[len(p.frames):cap(p.frames)])
	p.r.waiting.Add(int64(-n))
}

// deliver hands events to who subscribes to them here. inMu is held.
func (p *peer) deliver(events []byte, w *Wave) {
	b := p.r.b
	now := b.now()
	for len(events) > 0 {
		e := &p.event
		e.Reset()
		var filter string
		var ok bool
		if events, filter, ok = cutRelayed(events, e); !ok || e.QoS > 0 && b.Level() < levelMemory {
			b.stats.RelayRefused.Add(1)
			return
		}
		b.stats.RelayReceived.Add(1)
		if filter == "" && strings.HasPrefix(e.Topic, systemNodes) {
			b.system.hear(e, now, w)
			continue
		}
		a := b.local.LookupString(e.Topic)
		if filter != "" {
			a.pickHere(b, filter, e, now, w)
			continue
		}
		if len(a.hearers) == 0 {
			b.stats.RelayUnwanted.Add(1)
			continue
		}
		a.deliver(b, e, now, w)
	}
}

// cutRelayed reads the first of the events in a frame, and the filter of the group
// that it is for, empty for none. It may not be
// retained, is on a topic that can be published to, and of QoS 0 if it is for a group.
func cutRelayed(b []byte, e *event.Event) (rest []byte, filter string, ok bool) {
	if len(b) < 4 {
		return nil, "", false
	}
	length := binary.BigEndian.Uint32(b)
	n := uint64(length &^ relayShared)
	if n > uint64(len(b)-4) {
		return nil, "", false
	}
	rest, b = b[4+n:], b[4:4+n:4+n]
	if length&relayShared != 0 {
		u := uvarints{left: b}
		size := u.take()
		if u.short || size == 0 || size > uint64(len(u.left)) {
			return nil, "", false
		}
		filter, b = unsafe.String(unsafe.SliceData(u.left), size), u.left[size:]
	}
	if e.Decode(b) != nil || e.QoS > 0 && filter != "" || e.Retain || topic.ValidName(e.Topic) != nil {
		return nil, "", false
	}
	return rest, filter, true
}
