package clustertest

import (
	"cmp"
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// segment is how many bytes travel together.
	segment = 16 << 10

	// backlog is how many connections wait for Accept. More are not answered.
	backlog = 128

	defaultTimeout = 15 * time.Second
	defaultWindow  = 256 << 10
)

// A NetworkConfig says what a network is like. Now is required.
type NetworkConfig struct {
	Seed uint64

	// Now is the process's clock (time.Now): deadlines of connections are instants
	// of it.
	Now func() time.Time

	// Timeout is how long what was sent may stay unacknowledged until its sender
	// gives the connection up. 0 means 15 s.
	Timeout time.Duration

	// Window is how many bytes of one direction of a connection may be on their way
	// or unread. Write waits for room. 0 means 256 KiB, as much as a socket's
	// buffers hold.
	//
	// In a bubble it should be more than is ever sent into a cut: where one writer
	// waits and holds a mutex, and another waits for that, time stands still.
	Window int
}

// Conditions are what one direction between two hosts is like. The zero value is
// a perfect one.
type Conditions struct {
	Delay  time.Duration // of every segment
	Jitter time.Duration // up to so much more, drawn for each segment
	Rate   int           // bytes a second, shared by all connections; 0: unbounded
}

// A Network connects hosts. Hosts come into being when they are named.
//
// The bytes of one connection keep their order; those of two may overtake each
// other. What is random (jitter, when a segment is sent again after a cut) is
// drawn from the seed, for each direction by itself.
//
// All methods may be called by any goroutine at any time.
type Network struct {
	now     func() time.Time
	seed    uint64
	timeout time.Duration
	window  int
	stop    chan struct{}
	stopped chan struct{}
	wake    chan struct{} // the first event has changed; holds one

	mu      sync.Mutex // guards the following, and all hosts, links and connections
	hosts   map[string]*host
	links   map[[2]string]*link
	usual   Conditions // of links that are not shaped
	pairs   map[*pair]struct{}
	events  events
	serial  uint64        // of events
	port    int           // the last one given to a dialing end
	changed chan struct{} // closed, and replaced, when who waits for a way may have one
	closed  bool
	fray    int // see Fray
	stats   NetworkStats
}

// NetworkStats count what has happened on a network.
type NetworkStats struct {
	Dialed  uint64 // connections made
	Refused uint64 // dials refused: nobody listened
	Expired uint64 // connections given up because what was sent was not acknowledged
	Reset   uint64 // ends that were told that the other is gone
	Bytes   uint64 // arrived
	Held    uint64 // segments that met a cut
}

// A host is one end of links, with what listens there.
type host struct {
	name      string
	life      int  // counts deaths: what was made in an earlier life is dead
	off       bool // without power: it neither sends nor answers
	listeners map[int]*listener
}

// A link is one direction between two hosts.
type link struct {
	from, to *host
	rng      *rand.Rand
	shape    *Conditions // nil: the network's
	severed  bool
	free     time.Time // when the last byte sent so far has left, at the link's rate
	ways     map[*stream]struct{}
}

// NewNetwork returns a network.
func NewNetwork(cfg NetworkConfig) *Network {
	n := &Network{
		now: cfg.Now, seed: cfg.Seed, timeout: cmp.Or(cfg.Timeout, defaultTimeout), window: cmp.Or(cfg.Window, defaultWindow),
		stop: make(chan struct{}), stopped: make(chan struct{}), wake: make(chan struct{}, 1), changed: make(chan struct{}),
		hosts: map[string]*host{}, links: map[[2]string]*link{}, pairs: map[*pair]struct{}{}, port: 32767,
	}
	go n.run()
	return n
}

// Close breaks every connection and ends the network. Nothing of it runs when
// Close returns.
func (n *Network) Close() {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		<-n.stopped
		return
	}
	n.closed = true
	for _, h := range n.hosts {
		n.kill(h, true)
	}
	n.announce()
	n.mu.Unlock()
	close(n.stop)
	<-n.stopped
}

// Stats returns the counts so far.
func (n *Network) Stats() NetworkStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Shape gives the direction between two hosts conditions of its own.
func (n *Network) Shape(from, to string, c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).shape = &c
}

// ShapeAll gives all directions these conditions, also between hosts that are
// named later, but for those that Shape gives others afterwards.
func (n *Network) ShapeAll(c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.usual = c
	for _, l := range n.links {
		l.shape = nil
	}
}

// Cut lets nothing pass from one host to another; the other direction stays as
// it is. Nobody is told: what is sent is kept and sent again, until it arrives or
// the connection is given up. Acknowledgements meet a cut as well, so that the
// other direction comes to a halt when a window has been filled.
func (n *Network) Cut(from, to string) { n.sever(true, [2]string{from, to}) }

// Mend ends a Cut.
func (n *Network) Mend(from, to string) { n.sever(false, [2]string{from, to}) }

// Split cuts all ways, both ways, between hosts of a and hosts of b.
func (n *Network) Split(a, b []string) {
	var ways [][2]string
	for _, x := range a {
		for _, y := range b {
			ways = append(ways, [2]string{x, y}, [2]string{y, x})
		}
	}
	n.sever(true, ways...)
}

// Isolate cuts one host off from all others, both ways.
func (n *Network) Isolate(name string) {
	n.mu.Lock()
	var others []string
	for other := range n.hosts {
		if other != name {
			others = append(others, other)
		}
	}
	n.mu.Unlock()
	slices.Sort(others)
	n.Split([]string{name}, others)
}

// Heal ends all cuts. Conditions stay, and so do hosts that are off.
func (n *Network) Heal() {
	n.mu.Lock()
	var ways [][2]string
	for way, l := range n.links {
		if l.severed {
			ways = append(ways, way)
		}
	}
	n.mu.Unlock()
	slices.SortFunc(ways, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	n.sever(false, ways...)
}

func (n *Network) sever(severed bool, ways ...[2]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range ways {
		l := n.link(w[0], w[1])
		was := l.cut()
		l.severed = severed
		n.turn(l, was)
	}
	n.announce()
}

// turn has the streams of a link see whether it is cut, if that has changed.
// Requires mu.
func (n *Network) turn(l *link, was bool) {
	if l.cut() == was {
		return
	}
	back := n.link(l.to.name, l.from.name)
	for s := range l.ways {
		if was {
			s.sentAgain()
		}
		s.plan()
	}
	for s := range back.ways { // whose acknowledgements travel on l
		if was {
			s.acknowledged()
		}
		s.plan()
	}
}

// Reset breaks all connections between two hosts; both ends learn it at once, as
// when something between them has forgotten them.
func (n *Network) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.pairs {
		x, y := p.dialed.local.Host, p.dialed.remote.Host
		if x == a && y == b || x == b && y == a {
			p.reset()
		}
	}
}

// Fray has each connection that is made from now on break, as by Reset, when it has
// borne so many bytes in one direction, drawn for each from 1 to most: what is long
// does not get through in one piece. 0 ends that, for connections to come.
func (n *Network) Fray(most int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fray = most
}

// Kill ends what runs on a host, as kill -9 does: its system closes the
// connections, and sends what had been written to them. What Listen and Dialer
// returned before is dead: a program that is still running there reaches nobody.
// Listen and Dialer begin another life.
func (n *Network) Kill(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kill(n.host(name), false)
	n.announce()
}

// PowerOff is Kill without a word: nobody is told, and dials are not even
// refused, until PowerOn. Then whoever still sends to the former life is told.
func (n *Network) PowerOff(name string) { n.power(name, true) }

// PowerOn ends PowerOff.
func (n *Network) PowerOn(name string) { n.power(name, false) }

func (n *Network) power(name string, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	was := map[*link]bool{}
	for other := range n.hosts {
		for _, l := range []*link{n.link(name, other), n.link(other, name)} {
			was[l] = l.cut()
		}
	}
	h.off = off
	for l, cut := range was {
		n.turn(l, cut)
	}
	if off {
		n.kill(h, true)
	}
	n.announce()
}

// kill ends a host's life, silently or not. Requires mu.
func (n *Network) kill(h *host, silent bool) {
	h.life++
	for _, l := range h.listeners {
		l.end()
	}
	for p := range n.pairs {
		for _, c := range []*conn{p.dialed, p.accepted} {
			if c.local.Host != h.name {
				continue
			}
			if !c.closed {
				c.leave()
			}
			if silent {
				c.out.drop()
				p.release()
			}
		}
	}
}

// announce wakes whoever waits for a way. Requires mu.
func (n *Network) announce() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// host returns the host of a name. Requires mu.
func (n *Network) host(name string) *host {
	h := n.hosts[name]
	if h == nil {
		h = &host{name: name, listeners: map[int]*listener{}}
		n.hosts[name] = h
	}
	return h
}

// link returns a direction. Requires mu.
func (n *Network) link(from, to string) *link {
	l := n.links[[2]string{from, to}]
	if l == nil {
		sum := fnv.New64a()
		fmt.Fprintf(sum, "%s>%s", from, to)
		l = &link{
			from: n.host(from), to: n.host(to), ways: map[*stream]struct{}{},
			rng: rand.New(rand.NewPCG(n.seed, sum.Sum64())),
		}
		n.links[[2]string{from, to}] = l
	}
	return l
}

func (l *link) cut() bool { return l.severed || l.from.off || l.to.off }

// due returns when size bytes that are sent now arrive, if nothing cuts the link.
// Requires mu.
func (n *Network) due(l *link, now time.Time, size int) time.Time {
	c := n.usual
	if l.shape != nil {
		c = *l.shape
	}
	at := now
	if c.Rate > 0 {
		if l.free.After(at) {
			at = l.free
		}
		at = at.Add(time.Duration(size) * time.Second / time.Duration(c.Rate))
		l.free = at
	}
	at = at.Add(c.Delay)
	if c.Jitter > 0 {
		at = at.Add(time.Duration(l.rng.Int64N(int64(c.Jitter))))
	}
	return at
}

// An event is something that happens at an instant. It is called under mu.
type event struct {
	at     time.Time
	serial uint64 // orders those of one instant
	do     func()
	place  int // in the heap; -1 when it is not there
}

// schedule has do called at an instant. Requires mu.
func (n *Network) schedule(at time.Time, do func()) *event {
	n.serial++
	e := &event{at: at, serial: n.serial, do: do}
	heap.Push(&n.events, e)
	if e.place == 0 {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
	return e
}

// cancel takes an event back. It may be nil or past. Requires mu.
func (n *Network) cancel(e *event) {
	if e != nil && e.place >= 0 {
		heap.Remove(&n.events, e.place)
	}
}

// run has events happen, one after the other.
func (n *Network) run() {
	defer close(n.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(n.happen())
		select {
		case <-n.stop:
			return
		case <-n.wake:
		case <-timer.C:
		}
	}
}

// happen calls what is due, and returns how long it is until the next.
func (n *Network) happen() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.events) > 0 {
		if wait := n.events[0].at.Sub(n.now()); wait > 0 {
			return wait
		}
		heap.Pop(&n.events).(*event).do()
	}
	return time.Hour
}

// events is a heap.
type events []*event

func (h events) Len() int { return len(h) }

func (h events) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].serial < h[j].serial
	}
	return h[i].at.Before(h[j].at)
}

func (h events) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is heap.Interface's.
func (h *events) Push(x any) {
	e := x.(*event)
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop is heap.Interface's.
func (h *events) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.place = -1
	return e
}
