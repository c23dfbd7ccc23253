package broker

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// A device is a client as the standard wants it, that outlives its connections
// and the node: it remembers what it has got and which QoS 2 packet ids it has not
// been told to forget. Everything the node sends it is checked at once.
type device struct {
	run *deliveryRun

	mu    sync.Mutex
	conn  *deviceConn
	sent  map[int]bool // by event: the node has put it on the wire, on any connection
	maybe int          // of events below, the node may think so without having done it
	told  map[int]bool // acknowledged, and the log knows that
	known map[int]bool // acknowledged, and this life of the node knows that
	acked map[int]bool // acknowledged on this connection

	got     []int          // events as the application got them, QoS 1 ones perhaps again
	first   map[string]int // one more than the last event of a topic that was new to it
	latest  int            // one more than the last of any
	held    map[uint16]int // QoS 2 events whose ids are not to be forgotten yet
	refused map[int]bool   // answered with an error
	lost    uint64         // what the node said that its bound has pushed out
}

// A deviceConn is one connection of a device: what was sent waits on the wire
// until the device reads it, and is lost with the connection.
type deviceConn struct {
	d       *device
	s       *Session
	recvMax int
	wire    []packet
	answers []answer
	flight  map[uint16]int // sent by the node here, and not completed by the device
	last    int            // event sent here last
	shown   map[string]int // by resource: which state, 0 for nothing
	room    int            // deliveries until the sink is full
	full    bool
	over    bool // the device has closed it, or another has taken over
	ended   error
}

type packet struct {
	release bool
	id      uint16
	event   int
	qos     uint8
}

type answer struct {
	id    uint16
	what  Settlement
	event int
}

func (c *deviceConn) Flush() {}

func (c *deviceConn) End(cause error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.ended = cause
}

func (c *deviceConn) Deliver(d *Delivery, _ *Wave) Outcome {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if strings.HasPrefix(d.Event.Topic, "note/") {
		return c.show(d)
	}
	run := c.d.run
	k := run.eventOf(string(d.Event.Payload))
	if !run.open(string([]byte(d.Event.Topic))) {
		run.fault("event %d is sent while its window is closed", k)
	}
	if d.QoS == 0 {
		return Sent
	}
	if c.full {
		run.fault("event %d is offered to a sink that is full", k)
	}
	if c.room == 0 {
		c.full = true
		return Full
	}
	c.room--
	c.check(k, d)
	c.flight[d.PacketID], c.last, c.d.sent[k] = k, k, true
	c.wire = append(c.wire, packet{id: d.PacketID, event: k, qos: d.QoS})
	run.note("  -> event %d, QoS %d, id %d, dup %v", k, d.QoS, d.PacketID, d.Dup)
	return Sent
}

// check is what must hold of each delivery.
func (c *deviceConn) check(k int, d *Delivery) {
	run, sent := c.d.run, c.d.sent[k]
	switch {
	case c.over:
		run.fault("event %d is sent on a connection that is over", k)
	case k <= c.last:
		run.fault("event %d is sent after %d", k, c.last)
	case len(c.flight) >= c.recvMax:
		run.fault("event %d is sent while %d are under way, of at most %d", k, len(c.flight), c.recvMax)
	case d.PacketID == 0:
		run.fault("event %d has no packet id", k)
	case sent && !d.Dup:
		run.fault("event %d is sent again without DUP", k)
	case !sent && d.Dup && k >= c.d.maybe:
		run.fault("event %d has DUP, and was never sent", k)
	case c.d.told[k] || c.d.known[k]:
		run.fault("event %d is sent although the node knows that it was acknowledged", k)
	}
	if other, used := c.flight[d.PacketID]; used {
		run.fault("event %d has id %d, as %d has which is under way", k, d.PacketID, other)
	}
}

func (c *deviceConn) Release(id uint16, _ *Wave) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.over {
		c.d.run.fault("PUBREL %d is sent on a connection that is over", id)
	}
	c.wire = append(c.wire, packet{release: true, id: id})
	c.d.run.note("  -> PUBREL %d", id)
}

// read has the device read one packet, and say whether there was any.
func (d *device) read() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.conn
	if c == nil || len(c.wire) == 0 {
		return false
	}
	p := c.wire[0]
	c.wire = c.wire[1:]
	switch {
	case p.release:
		delete(d.held, p.id)
		c.answers = append(c.answers, answer{id: p.id, what: Completed})
	case p.qos == 1:
		if p.event >= 0 {
			d.take(p.event)
		}
		c.answers = append(c.answers, answer{p.id, Acked, p.event})
	default:
		c.answers = append(c.answers, d.receive(p))
	}
	return true
}

// receive is what a device does with a QoS 2 PUBLISH (5.0 4.3.3).
func (d *device) receive(p packet) answer {
	if k, held := d.held[p.id]; held {
		if k != p.event {
			d.run.fault("event %d comes with id %d, which event %d has not been released from", p.event, p.id, k)
		}
		return answer{p.id, Received, p.event}
	}
	if slices.Contains(d.got, p.event) {
		d.run.fault("event %d comes twice, at QoS 2", p.event)
	}
	if d.refused[p.event] || d.run.rng.IntN(20) == 0 { // what it does not want, it does not want again
		d.refused[p.event] = true
		return answer{p.id, Rejected, p.event}
	}
	d.take(p.event)
	d.held[p.id] = p.event
	return answer{p.id, Received, p.event}
}

// take hands an event to the application. One that was passed over while it was
// closed may come later, if the node has died before it had told anybody: also after another
// of its topic, if that was sent when it was open again.
func (d *device) take(k int) {
	if e := d.run.events[k]; !slices.Contains(d.got, k) {
		untold := e.excused && k < d.maybe
		if k < d.latest && !e.excused || k < d.first[e.topic] && !untold {
			d.run.fault("event %d of %s comes for the first time after %d of it, and %d", k, e.topic, d.first[e.topic]-1, d.latest-1)
		}
		d.first[e.topic], d.latest = k+1, max(d.latest, k+1)
	}
	d.got = append(d.got, k)
}

// answer has the device send its n-th answer that waits.
func (d *device) answer(n int) {
	d.mu.Lock()
	c := d.conn
	if c == nil || len(c.answers) == 0 {
		d.mu.Unlock()
		return
	}
	n %= len(c.answers)
	a := c.answers[n]
	c.answers = slices.Delete(c.answers, n, n+1)
	if a.what != Received {
		delete(c.flight, a.id)
		if a.what != Completed && a.event >= 0 {
			d.acked[a.event] = true
		}
	}
	d.mu.Unlock()
	d.run.note("  <- %d for id %d", a.what, a.id)
	var w Wave
	if err := c.s.Settle(a.id, a.what, &w); err != nil && !d.gone(c) {
		d.run.fault("answer %v: %v", a, err)
	}
	w.Flush()
}

func (d *device) gone(c *deviceConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return c.ended != nil
}

// drained has the device's socket take n deliveries more.
func (d *device) drained(n int) {
	d.mu.Lock()
	c := d.conn
	if c == nil {
		d.mu.Unlock()
		return
	}
	c.room = n
	was := c.full
	c.full = false
	d.mu.Unlock()
	if was {
		var w Wave
		c.s.Drained(&w)
		w.Flush()
	}
}

// close ends the connection as the device sees it. What it had acknowledged, the
// log has been told by then if it is told in order.
func (d *device) close() {
	d.mu.Lock()
	c := d.conn
	d.conn = nil
	d.mu.Unlock()
	if c == nil {
		return
	}
	c.s.Close(true, false, 0)
	d.mu.Lock()
	c.over = true
	d.mu.Unlock()
	d.run.rest()
	d.learnTold()
}

// learnTold notes that the log, or the next connection, knows of every answer.
func (d *device) learnTold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.told, d.acked)
	clear(d.acked)
	clear(d.known)
}

// connect opens a connection, perhaps while there is another.
func (d *device) connect() {
	r := d.run
	c := &deviceConn{d: d, recvMax: pick(r.rng, 1, 2, 3, 5, 20, 65535), flight: map[uint16]int{}, shown: map[string]int{}, last: -1, room: pick(r.rng, 0, 1, 3, 10, math.MaxInt32)}
	s, present, dropped, err := r.n.Connect(ConnectRequest{
		Client: "device", Principal: "device", Version: 5, Expiry: event.Never, ReceiveMax: uint16(c.recvMax),
	}, c)
	if err != nil {
		r.t.Fatal(err)
	}
	if !present {
		r.fault("the session is gone")
	}
	c.s = s
	d.mu.Lock()
	if old := d.conn; old != nil {
		old.over = true
		maps.Copy(d.known, d.acked) // it takes over that, too, and tells when it gets there
		clear(d.acked)
	}
	d.conn = c
	d.lost += dropped
	d.mu.Unlock()
	var w Wave
	s.Start(&w)
	w.Flush()
}

// An emitted is one event that was published.
type emitted struct {
	topic   string
	qos     uint8
	excused bool // it need not arrive: it was closed to the device at some time
}

// A deliveryRun is one history of a device, a publisher and a node that dies now
// and then.
type deliveryRun struct {
	t      *testing.T
	rng    *rand.Rand
	n      *node
	pub    *client
	d      *device
	bursts sync.WaitGroup // publishes under way, and copies
	copies *rand.Rand     // for what is copied: a stream of its own

	docs *docs

	waiting []deviceDelayed
	named   int // of those that were delayed: each has a name

	mu     sync.Mutex // guards the following
	policy string
	next   string // coming into force; empty for none
	events []emitted
	faults []string
	log    []string
	came   map[string]int // events that were delayed, by their payload
}

// Whatever happens to connections, the node, windows and sockets, a device with a
// session that lasts gets every event that it may see: QoS 1 at least once, QoS 2
// exactly once, new ones in their order, with DUP where it is due and nowhere
// else; never more at a time than it takes, nothing while it is closed, nothing
// that it is known to have acknowledged, and nothing without telling if a bound
// pushes it out. What was delayed comes at its time, as if it were published then. Beside
// that it is shown two resources: never an older state after a newer one, nothing that
// their owner does not permit, at last the last state; and however often they change, that
// pushes out nothing.
func TestDeliveryModel(t *testing.T) {
	steps := effort.Rounds(150, 400)
	var made, delayed tally
	made.want(t, "bodies were copied", 6, 20)
	delayed.want(t, "delayed events were published", 20, 20)
	effort.ParallelSeeds(t, func(t *testing.T, seed uint64) {
		bubble.Test(t, func(t *testing.T) {
			r := newDeliveryRun(t, seed)
			r.run(steps)
			made.add(r.n.machine.copies)
			delayed.add(uint64(len(r.came)))
			checkBodies(t, r.n.machine)
		})
	})
}

func newDeliveryRun(t *testing.T, seed uint64) *deliveryRun {
	r := &deliveryRun{t: t, rng: rand.New(rand.NewPCG(seed, 1)), copies: rand.New(rand.NewPCG(seed, 2)), policy: "windows", came: map[string]int{}}
	var limits Limits
	if seed%3 == 0 {
		limits.QueueEvents = 12
	}
	r.docs = newDocs(seed)
	r.n = newNodeWith(t, limits, notes{})
	r.n.smallSegments(1, 4) // whatever is in one is copied
	if seed%4 >= 2 {
		r.n.inPieces(1)
	}
	if seed%2 == 0 { // what it misses it has from streams
		r.n.makeStreams(streams{crowd: 1, ahead: pick(r.rng, 0, 1, 4), piece: pick(r.rng, 0, 1, 3)})
	}
	r.n.policies["windows"] = parseRules("allow * # publish\nallow device plain/#\nallow device win/# 08:00-17:00")
	r.n.policies["plain"] = parseRules("allow * # publish\nallow device plain/#")
	r.n.policy(r.policy)
	r.d = &device{
		run: r, sent: map[int]bool{}, told: map[int]bool{}, known: map[int]bool{}, acked: map[int]bool{}, held: map[uint16]int{}, refused: map[int]bool{}, first: map[string]int{},
	}
	c, _ := r.n.connect("device", true, event.Never)
	c.subscribe("plain/#", 2)
	c.subscribe("plain/+", 1)
	c.subscribe("win/+", 2)
	c.subscribe("note/#", 2)
	c.s.Close(false, false, 0)
	if seed%4 == 1 {
		r.startAt(pick[uint64](r.rng, 65_500, 65_534, 3*65_535-7, 1<<32-5))
	}
	r.pub, _ = r.n.connect("pub", true, 0)
	r.docs.connect(r.n)
	return r
}

// startAt has the device's queue be one that has seen n entries come and go.
func (r *deliveryRun) startAt(n uint64) {
	r.rest()
	number := r.n.machine.sessions["device"].session
	r.n.stop(true)
	s, err := store.Open(r.n.storeOptions())
	must(r.t, err)
	tx := s.Begin()
	q := queue{below: n, sent: n, maybe: n, next: n}
	tx.Set(cursorKey(nil, number), q.append(nil))
	tx.Commit()
	must(r.t, s.Flush())
	must(r.t, s.Close())
	r.n.start()
}

func (r *deliveryRun) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

func (r *deliveryRun) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

// open says whether the device may see topicName now; while another policy comes into force
// by either of the two. It is called by sinks.
func (r *deliveryRun) open(topicName string) bool {
	r.mu.Lock()
	now, next := r.n.policies[r.policy], r.n.policies[cmp.Or(r.next, r.policy)]
	r.mu.Unlock()
	may := func(p *rules) bool {
		return p.Decide(Who{Principal: "device", Client: "device"}, ActSubscribe, topicName, r.n.clock.now().UnixNano()).Allow
	}
	return may(now) || may(next)
}

// rest waits until nothing is under way.
func (r *deliveryRun) rest() {
	r.bursts.Wait()
	synctest.Wait()
}

func (r *deliveryRun) run(steps int) {
	for range steps {
		r.step()
		r.mu.Lock()
		faults := slices.Clone(r.faults)
		r.mu.Unlock()
		if len(faults) > 0 {
			r.t.Fatalf("%s\nthe last steps:\n %s", strings.Join(faults, "\n"), strings.Join(r.log[max(0, len(r.log)-60):], "\n "))
		}
	}
	r.drain()
	if len(r.faults) > 0 {
		r.t.Fatalf("%s\nthe last steps:\n %s", strings.Join(r.faults, "\n"), strings.Join(r.log[max(0, len(r.log)-60):], "\n "))
	}
}

func (r *deliveryRun) step() {
	if r.copies.IntN(2) == 0 {
		r.note("copies")
		r.bursts.Go(func() {
			for range 2 { // at first sight nothing is copied
				if err := r.n.copyRound(); err != nil {
					r.fault("copies: %v", err)
				}
			}
		})
	}
	r.change()
	switch n := r.rng.IntN(100); {
	case n < 3:
		r.delay()
	case n < 25:
		r.publish(1 + r.rng.IntN(5))
	case n < 50:
		for range 1 + r.rng.IntN(4) {
			r.d.read()
		}
		r.note("reads")
	case n < 73:
		for range 1 + r.rng.IntN(4) {
			r.d.answer(pick(r.rng, 0, 0, 0, r.rng.IntN(10)))
		}
		r.note("answers")
	case n < 80:
		r.d.drained(1 + r.rng.IntN(10))
	case n < 87:
		r.note("connects")
		r.d.connect()
	case n < 90:
		r.note("closes")
		r.d.close()
	case n < 92:
		r.crash()
	case n < 94:
		r.move()
	case n < 96:
		elapse(time.Duration(r.rng.IntN(100)) * time.Millisecond) // what is gathered is told
	case n < 98:
		r.rest()
	default:
		r.drain()
	}
}

// publish publishes count events, one after the other, while others go on.
func (r *deliveryRun) publish(count int) {
	r.bursts.Wait()
	type planned struct {
		k    int
		e    emitted
		size int
	}
	var plan []planned
	r.mu.Lock()
	for range count {
		e := emitted{topic: pick(r.rng, "plain/a", "plain/b", "win/a"), qos: pick[uint8](r.rng, 0, 1, 1, 1, 2, 2)}
		plan = append(plan, planned{len(r.events), e, r.rng.IntN(50)})
		r.events = append(r.events, e)
	}
	r.mu.Unlock()
	for _, p := range plan {
		if p.e.qos == 0 || !r.open(p.e.topic) {
			r.events[p.k].excused = true
		}
		r.note("publishes %d to %s, QoS %d", p.k, p.e.topic, p.e.qos)
	}
	burst := func() {
		for _, p := range plan {
			if err := r.pub.publishID(uint16(p.k+1), p.e.topic, strings.Repeat("x", p.size)+fmt.Sprint(p.k), p.e.qos); err != nil {
				r.fault("publish: %v", err)
			}
		}
	}
	if r.rng.IntN(2) == 0 {
		burst()
		return
	}
	r.bursts.Go(burst)
}

// crash ends the node, perhaps with all that it has not flushed, and has it live
// again.
func (r *deliveryRun) crash() {
	r.rest()
	d := r.d
	d.mu.Lock()
	if d.conn != nil {
		// What the node sent, and which answers it has heard, it told nobody.
		d.maybe = len(r.events)
		clear(d.acked)
		clear(d.known)
		d.conn = nil
	}
	d.mu.Unlock()
	flush := r.rng.IntN(2) == 0
	r.note("the node dies, flush %v", flush)
	r.n.stop(flush)
	r.n.start()
	r.pub, _ = r.n.connect("pub", true, 0)
	r.docs.connect(r.n)
}

// move moves the clock, or changes the policy. What is closed now need not come
// any more.
func (r *deliveryRun) move() {
	r.rest()
	if r.rng.IntN(2) == 0 {
		hours := time.Duration(1+r.rng.IntN(8)) * time.Hour
		r.fallDue(r.n.clock.now().Add(hours))
		r.n.clock.advance(hours)
		if r.rng.IntN(2) == 0 {
			r.n.tick()
		}
		r.n.passEdges()
		r.n.tick()
	} else {
		next := pick(r.rng, "windows", "plain", "windows")
		r.mu.Lock()
		r.next = next
		r.mu.Unlock()
		r.n.policy(next)
		r.rest()
		r.mu.Lock()
		r.policy, r.next = next, ""
		r.mu.Unlock()
	}
	r.rest()
	r.note("%s by %q", r.n.clock.now().Format("Mon 15:04"), r.policy)
	r.excuse()
}

// excuse excuses what is not open now, and what was published on a day before:
// its window has closed.
func (r *deliveryRun) excuse() {
	for k := range r.events {
		if r.events[k].topic == "win/a" {
			r.events[k].excused = true
		}
	}
}

// drain has the device take all there is, and compares.
func (r *deliveryRun) drain() {
	r.rest()
	if r.d.conn == nil {
		r.d.connect()
	}
	for idle := 0; idle < 3; idle++ {
		r.rest()
		r.d.drained(math.MaxInt32)
		r.rest()
		for r.d.read() {
			idle = 0
		}
		r.d.mu.Lock()
		waiting := len(r.d.conn.answers)
		r.d.mu.Unlock()
		for range waiting {
			r.d.answer(0)
		}
		elapse(time.Second)
	}
	r.note("has drained")
	r.compare()
}

func (r *deliveryRun) compare() {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	var missing []int
	for k, e := range r.events {
		if !e.excused && !d.refused[k] && !slices.Contains(d.got, k) {
			missing = append(missing, k)
		}
	}
	q := &r.n.machine.sessions["device"].queue
	if most := d.lost + q.dropped; uint64(len(missing)) > most {
		r.fault("events %v have not come, and %d are said to be lost", missing, most)
	}
	if q.count != 0 || q.below != q.next || len(q.received) != 0 {
		r.fault("all was acknowledged, and the log has %+v", *q)
	}
	if len(d.held) != 0 {
		r.fault("all was completed, and the device has not been released from %v", d.held)
	}
	maps.Copy(d.told, d.acked)
	clear(d.acked)
	r.compareDocs()
}
