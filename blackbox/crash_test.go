package blackbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A load is publishers and durable subscribers that go on through crashes. It
// records what was acknowledged and what arrived, and judges at the end.
type load struct {
	t    testing.TB
	addr atomic.Value // string: where the server is now
	stop chan struct{}
	wg   sync.WaitGroup

	// homes are where each client connects, by its id: the first that takes it. nil
	// is addr for all.
	homes map[string][]string

	mu    sync.Mutex
	conns map[string]*mq.Conn // by client id: the newest connection

	publishers  []*publisher
	subscribers []*subscriber
}

// A publisher sends 1, 2, 3, … to a topic that it shares with others, each again
// until it is acknowledged, with several under way.
type publisher struct {
	id      string
	place   int32 // among the load's
	topic   string
	qos     byte
	pace    *pace        // when each is due; nil: as soon as there is room
	acked   atomic.Int64 // all up to this number
	stopped atomic.Bool

	sent atomic.Int64 // highest, for others to read

	mu      sync.Mutex
	refused [][2]int32 // first and last of what was under way when one was refused

	highest  int64 // number sent so far, on any connection
	released bool  // PUBREL may have been sent for the one after acked
}

// A subscriber receives everything in one durable session.
type subscriber struct {
	load   *load
	id     string
	window uint32 // its Receive Maximum

	mu    sync.Mutex
	next  map[int32]int32    // by publisher, the number that is due
	twice int                // repeats that came
	early map[event]bool     // came before what had been refused
	order map[string][]event // by topic, as they came first
	fault string             // the first thing that was wrong
}

// An event is the number n of the publisher at a place.
type event struct{ publisher, n int32 }

func newLoad(t testing.TB, s *server, publishers int) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{})}
	l.addr.Store(s.ready.MQTT)
	for i := range publishers {
		l.publishers = append(l.publishers, &publisher{id: fmt.Sprint("p", i), place: int32(i), topic: fmt.Sprint("load/", i/2%2), qos: byte(1 + i%2)})
	}
	for i := range 2 {
		l.subscribers = append(l.subscribers, l.subscriber(s, fmt.Sprint("s", i), 50))
	}
	return l
}

// subscriber makes one, and its session at s.
func (l *load) subscriber(s *server, id string, window uint32) *subscriber {
	c := mq.Open(l.t, s.ready.MQTT, v5, receiveMax(id, window))
	c.Subscribe("load/#", 2)
	c.Disconnect()
	return &subscriber{load: l, id: id, window: window, next: map[int32]int32{}, early: map[event]bool{}, order: map[string][]event{}}
}

func (l *load) start() {
	for _, p := range l.publishers {
		if p.pace != nil {
			p.pace.began = time.Now()
		}
		l.wg.Go(func() { l.again(func() error { return p.life(l) }) })
	}
	for _, s := range l.subscribers {
		l.wg.Go(func() { l.again(func() error { return s.run(l) }) })
	}
}

// acked is how many publishes have been acknowledged.
func (l *load) acked() int64 {
	sum := int64(0)
	for _, p := range l.publishers {
		sum += p.acked.Load()
	}
	return sum
}

// await waits until so many more publishes are acknowledged: a moment in the
// middle of the load, however fast the machine is.
func (l *load) await(more int64) {
	l.t.Helper()
	want := l.acked() + more
	until(l.t, fmt.Sprint(more, " more acknowledged"), 30*time.Second, func() bool { return l.acked() >= want })
}

// goesOn lets the load go on for so long at least, and until so many more publishes are
// acknowledged, and returns how many were: that it goes on is asked, not how fast.
func (l *load) goesOn(atLeast time.Duration, more int64) int64 {
	l.t.Helper()
	before, over := l.acked(), time.After(atLeast)
	l.await(more)
	<-over
	return l.acked() - before
}

// again runs a client's life until the load is stopped: each connection ends
// with an error when the server dies, and another follows.
func (l *load) again(life func() error) {
	for {
		err := life()
		select {
		case <-l.stop:
			return
		default:
		}
		if err == nil {
			return
		}
		pause()
	}
}

func (l *load) connect(m mq.Connect) (*mq.Conn, *mq.Packet, error) {
	at := l.homes[m.ClientID]
	if at == nil {
		at = []string{l.addr.Load().(string)}
	}
	c, ack, err := connectAny(at, m)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.conns == nil {
			l.conns = map[string]*mq.Conn{}
		}
		l.conns[m.ClientID] = c
	}
	return c, ack, err
}

// cut ends the connection of a client that has one, by a close or a reset; the
// client comes back at once, often before the server has noticed.
func (l *load) cut(id string, reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conns[id]
	switch {
	case c == nil:
	case reset:
		_ = c.Reset()
	default:
		_ = c.Close()
	}
}

const underWay = 16

// life is one connection of a publisher.
func (p *publisher) life(l *load) error {
	if p.pace != nil {
		return p.keepPace(l)
	}
	return p.run(l)
}

// message is the PUBLISH of a number, and notes that it is sent.
func (p *publisher) message(n int64) mq.Publish {
	m := mq.Publish{Topic: p.topic, QoS: p.qos, ID: packetID(n), Dup: n <= p.highest, Payload: fmt.Append(nil, p.place, " ", n)}
	p.highest = max(p.highest, n)
	p.sent.Store(p.highest)
	return m
}

// refuse notes that one was refused of all that are under way.
func (p *publisher) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = append(p.refused, [2]int32{int32(p.acked.Load()) + 1, int32(p.highest)})
}

// under says what is under way, and what was when something was refused.
func (p *publisher) under() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s has sent up to %d, and %d is acknowledged; %v were under way when one was refused", p.id, p.sent.Load(), p.acked.Load(), p.refused)
}

// run publishes over one connection. Numbers that were not acknowledged on the
// last one come first, in order, with the same ids: what QoS 2 is about.
func (p *publisher) run(l *load) error {
	c, _, err := l.connect(durable(v5, p.id))
	if err != nil {
		return err
	}
	defer c.Close()
	if p.released { // a PUBLISH now would be a new message
		if err := p.release(c); err != nil {
			return err
		}
	}
	sent := p.acked.Load()
	for {
		for sent-p.acked.Load() < underWay && (!p.stopped.Load() || sent < p.highest) {
			sent++
			if err := c.Write(p.message(sent)); err != nil {
				return err
			}
		}
		if sent == p.acked.Load() {
			return nil // stopped, and all is acknowledged
		}
		if err := p.awaitAck(c, mq.Patience); err != nil {
			if errors.Is(err, errRefused) {
				p.refuse()
			}
			return err
		}
	}
}

// errRefused is an acknowledgement that says no. The client has the message back;
// what it had sent after it may be taken all the same, and so come first.
var errRefused = errors.New("refused")

// excused says whether e may come before the one that is due.
func (l *load) excused(e event, due int32) bool {
	p := l.publishers[e.publisher]
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.refused, func(r [2]int32) bool { return r[0] <= due && e.n <= r[1] })
}

// packetID of a number: distinct among those under way, and stable.
func packetID(n int64) uint16 { return uint16(1 + n%1000) }

// awaitAck waits until the next number is through, and so long for its first
// answer. PUBREC means that it is stored, but only PUBCOMP frees its id: it counts
// as acknowledged then.
func (p *publisher) awaitAck(c *mq.Conn, within time.Duration) error {
	id := packetID(p.acked.Load() + 1)
	if p.qos == 1 {
		err := expectWithin(c, mq.PUBACK, id, within)
		if err == nil {
			p.acked.Add(1)
		}
		return err
	}
	if err := expectWithin(c, mq.PUBREC, id, within); err != nil {
		return err
	}
	return p.release(c)
}

// release ends the QoS 2 exchange of the number after acked. After a reconnect
// the broker may have ended it before us and not know the id any more.
func (p *publisher) release(c *mq.Conn) error {
	id := packetID(p.acked.Load() + 1)
	again := p.released
	p.released = true
	if err := c.Write(mq.Ack{Type: mq.PUBREL, ID: id}); err != nil {
		return err
	}
	comp, err := awaitComp(c)
	if err != nil {
		return err
	}
	if comp.ID != id || comp.Code != 0 && !(again && comp.Code == 0x92) {
		return fmt.Errorf("got %v, want PUBCOMP id=%d", comp, id)
	}
	p.released = false
	p.acked.Add(1)
	return nil
}

func expect(c *mq.Conn, want mq.Type, id uint16) error {
	return expectWithin(c, want, id, mq.Patience)
}

func expectWithin(c *mq.Conn, want mq.Type, id uint16, within time.Duration) error {
	p, err := c.Read(within)
	switch {
	case err != nil:
	case p.Type != want || p.ID != id:
		err = fmt.Errorf("got %v, want %v id=%d", p, want, id)
	case p.Code >= 0x80:
		err = fmt.Errorf("%w: %v", errRefused, p)
	}
	return err
}

// awaitComp waits for a PUBCOMP. Later PUBRECs may come before it; they are put
// back for their turn, but for one that refuses.
func awaitComp(c *mq.Conn) (*mq.Packet, error) {
	var before []*mq.Packet
	for {
		p, err := c.Read(mq.Patience)
		if err != nil {
			return nil, err
		}
		if p.Type == mq.PUBCOMP {
			c.PutBack(before...)
			return p, nil
		}
		if p.Code >= 0x80 {
			return nil, fmt.Errorf("%w: %v", errRefused, p)
		}
		before = append(before, p)
	}
}

// run receives over one connection until the load is stopped.
func (s *subscriber) run(l *load) error {
	c, ack, err := l.connect(receiveMax(s.id, s.window))
	if err != nil {
		return err
	}
	defer c.Close()
	if !ack.SessionPresent {
		s.blame("its session is gone")
	}
	return l.each(c, s.take)
}

// take judges what came, and returns the answer.
func (s *subscriber) take(p *mq.Packet) (mq.Message, error) {
	switch {
	case p.Type == mq.PUBREL:
		return mq.Ack{Type: mq.PUBCOMP, ID: p.ID}, nil
	case p.Type != mq.PUBLISH:
		return nil, fmt.Errorf("got %v", p)
	}
	s.note(p)
	if p.QoS() == 2 {
		return mq.Ack{Type: mq.PUBREC, ID: p.ID}, nil
	}
	return mq.Ack{Type: mq.PUBACK, ID: p.ID}, nil
}

// note judges one message: first deliveries of a publisher's ascend without a gap.
func (s *subscriber) note(p *mq.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e event
	if _, err := fmt.Sscan(string(p.Payload), &e.publisher, &e.n); err != nil || int(e.publisher) >= len(s.load.publishers) {
		s.blameLocked(fmt.Sprintf("got %v", p))
		return
	}
	due := max(s.next[e.publisher], 1)
	for asked := time.Now(); e.n > due && !s.early[e] && !s.load.excused(e, due) && time.Since(asked) < mq.Patience; {
		pause() // the publisher may not have read yet that it was refused
	}
	switch {
	case e.n > due && s.early[e]:
		s.twice++
	case e.n > due && s.load.excused(e, due):
		s.early[e] = true
		s.first(p.Topic, e)
	case e.n > due:
		s.blameLocked(fmt.Sprintf("%v came where %d was due: %s", e, due, s.load.publishers[e.publisher].under()))
		s.first(p.Topic, e)
	case e.n == due:
		s.first(p.Topic, e)
	case p.QoS() == 2 && !p.Dup(): // QoS 1 may have been published twice
		s.blameLocked(fmt.Sprintf("%v came again without DUP", e))
	default:
		s.twice++
	}
}

// first notes that an event came for the first time, and what is due then: the
// next that has not come before its turn.
func (s *subscriber) first(topic string, e event) {
	s.order[topic] = append(s.order[topic], e)
	if s.early[e] {
		return
	}
	for e.n++; s.early[e]; {
		e.n++
	}
	s.next[e.publisher] = e.n
}

func (s *subscriber) blame(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blameLocked(text)
}

func (s *subscriber) blameLocked(text string) {
	if s.fault == "" {
		s.fault = text
	}
}

// received is up to which number it has those of a publisher.
func (s *subscriber) received(p *publisher) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(max(s.next[p.place], 1) - 1)
}

// finish lets the publishers come to an end, waits until every subscriber has
// what was acknowledged, and judges.
func (l *load) finish() {
	l.t.Helper()
	for _, p := range l.publishers {
		if p.pace != nil {
			p.pace.end()
		}
		p.stopped.Store(true)
	}
	l.catchUp()
	for _, p := range l.publishers {
		for _, s := range l.subscribers {
			until(l.t, fmt.Sprintf("%s has what %s was acknowledged", s.id, p.id), 30*time.Second, func() bool {
				return s.received(p) >= p.acked.Load()
			})
		}
	}
	total := l.acked()
	close(l.stop)
	l.wg.Wait()
	repeats, early := 0, 0
	for _, s := range l.subscribers {
		early += len(s.early)
		repeats += s.twice
		if s.fault != "" {
			l.t.Errorf("subscriber %s: %s", s.id, s.fault)
		}
		s.sameOrder(l.subscribers[0])
	}
	l.t.Logf("%d acknowledged, all delivered in order; %d arrived again, %d before what had been refused", total, repeats, early)
	l.tellPace()
	if total == 0 {
		l.t.Error("nothing was acknowledged: the test shows nothing")
	}
}

// kill -9 under load, again and again at moments that a seed picks: everything
// acknowledged reaches every durable subscriber, in order per publisher.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	underSeeds(t, 10, func(t *testing.T, rng *rand.Rand) {
		s := serve(t, "--allow-anonymous")
		l := newLoad(t, s, 4)
		l.start()
		for range 2 + rng.IntN(2) {
			l.await(20 + rng.Int64N(1000))
			l.restart(s)
		}
		l.finish()
	})
}

// underSeeds runs a test with the random choices of each seed.
func underSeeds(t *testing.T, stream uint64, test func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	effort.Seeds(t, func(t *testing.T, seed uint64) { test(t, rand.New(rand.NewPCG(seed, stream))) })
}

// each hands over what comes and sends the answers, until the load is stopped or
// the connection ends.
func (l *load) each(c *mq.Conn, take func(*mq.Packet) (mq.Message, error)) error {
	for {
		select {
		case <-l.stop:
			return nil
		default:
		}
		p, err := c.Read(100 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		var answers []mq.Message
		for err == nil { // one write for all that has come
			var answer mq.Message
			if answer, err = take(p); err != nil {
				break
			}
			answers = append(answers, answer)
			if !c.Waits() {
				err = c.Write(answers...)
				break
			}
			p, err = c.Read(0)
		}
		if err != nil {
			return err
		}
	}
}

// restart kills s and sends the load to what comes up in its place.
func (l *load) restart(s *server) {
	s.restart()
	l.addr.Store(s.ready.MQTT)
}

// Exactly once: QoS 2 from end to end. The publisher resends after each kill
// with the same ids, the subscriber counts: no number is missing, none is
// applied twice. What may arrive twice is only what was sent and not yet
// received (PUBREC) when the server died; with the same packet id and DUP.
func TestKillUnderLoadExactlyOnce(t *testing.T) {
	t.Parallel()
	underSeeds(t, 11, func(t *testing.T, rng *rand.Rand) {
		s := serve(t, "--allow-anonymous")
		exactlyOnce(t, s, func(l *load) {
			for range 3 {
				l.await(10 + rng.Int64N(300))
				l.restart(s)
			}
		})
	})
}

// Exactly once also when it is the clients whose connections end, in the middle
// of their exchanges, a hundred times: closed, reset, taken over.
func TestMQTT24ExactlyOnceThroughReconnects(t *testing.T) {
	t.Parallel()
	underSeeds(t, 24, func(t *testing.T, rng *rand.Rand) {
		exactlyOnce(t, serve(t, "--allow-anonymous"), func(l *load) {
			for range 100 {
				l.await(1 + rng.Int64N(20))
				l.cut([]string{"once", "rx"}[rng.IntN(2)], rng.IntN(2) == 0)
			}
		})
	})
}

func exactlyOnce(t *testing.T, s *server, disturb func(*load), settings ...func(*load)) {
	l := &load{t: t, stop: make(chan struct{})}
	l.addr.Store(s.ready.MQTT)
	for _, set := range settings {
		set(l)
	}
	p := &publisher{id: "once", topic: "once/load", qos: 2}
	l.publishers = []*publisher{p}
	rx := &receiver{t: t, l: l, open: map[uint16]string{}}
	c := mq.Open(t, s.ready.MQTT, v5, receiveMax("rx", 20))
	c.Subscribe("once/#", 2)
	c.Disconnect()
	l.start()
	l.wg.Go(func() { l.again(rx.run) })
	disturb(l)
	p.stopped.Store(true)
	until(t, "everything has arrived", 30*time.Second, func() bool { return rx.count.Load() >= p.acked.Load() })
	close(l.stop)
	l.wg.Wait()
	if rx.fault != "" {
		t.Error(rx.fault)
	}
	t.Logf("%d messages exactly once", p.acked.Load())
	if p.acked.Load() == 0 {
		t.Error("nothing was acknowledged: the test shows nothing")
	}
}

// A receiver is a QoS 2 client as the standard wants it: it hands a message on
// when it first sees its id, and forgets the id at PUBREL.
type receiver struct {
	t     testing.TB
	l     *load
	open  map[uint16]string // ids between PUBLISH and PUBREL, with what came
	count atomic.Int64
	fault string
}

func (r *receiver) run() error {
	c, _, err := r.l.connect(receiveMax("rx", 20))
	if err != nil {
		return err
	}
	defer c.Close()
	return r.l.each(c, func(p *mq.Packet) (mq.Message, error) {
		if p.Type == mq.PUBREL {
			delete(r.open, p.ID)
			return mq.Ack{Type: mq.PUBCOMP, ID: p.ID}, nil
		}
		if p.Type != mq.PUBLISH {
			return nil, fmt.Errorf("got %v", p) // DISCONNECT: the server is stopped
		}
		r.take(p)
		return mq.Ack{Type: mq.PUBREC, ID: p.ID}, nil
	})
}

func (r *receiver) take(p *mq.Packet) {
	if was, again := r.open[p.ID]; again {
		if (was != string(p.Payload) || !p.Dup()) && r.fault == "" {
			r.fault = fmt.Sprintf("id %d stood for %q and came again as %v", p.ID, was, p)
		}
		return
	}
	r.open[p.ID] = string(p.Payload)
	if want := fmt.Sprint("0 ", r.count.Add(1)); want != string(p.Payload) && r.fault == "" {
		r.fault = fmt.Sprintf("got %v, want %s", p, want)
	}
}

// A server that is asked to stop under load loses nothing either, and one that
// stands still for a while (SIGSTOP) goes on.
func TestStopAndPauseUnderLoad(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	l := newLoad(t, s, 4)
	l.start()
	for range 2 {
		l.await(300)
		s.stop()
		s.start()
		l.addr.Store(s.ready.MQTT)
	}
	l.await(300)
	s.halt()
	<-time.After(time.Second) // how long it stands still
	s.signal(syscall.SIGCONT)
	l.await(300)
	l.finish()
}

// A disk that answers a write or a sync with an error ends the process, loudly
// and at once, without another acknowledgement; so does one that hangs. What
// was acknowledged is there afterwards.
func TestBrokenDiskEndsTheProcess(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"eio", "hang"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "--allow-anonymous", "--test-clock", noon)
			sub := s.open(v5, durable(v5, "sub"))
			sub.Subscribe("t", 1)
			sub.Disconnect()
			pub := s.open(v5, clean("pub"))
			pub.Publish("t", 1, "acknowledged")
			s.disk(fault)
			pub.TrySend(mq.Publish{Topic: "t", QoS: 1, ID: 77, Payload: []byte("never")})
			s.awaitDeath()
			for _, p := range pub.Closed() {
				if p.Type == mq.PUBACK && p.Code < 0x80 {
					t.Errorf("got %v for what no disk has", p)
				}
			}
			if !strings.Contains(s.logs.String(), `"level":"error"`) {
				t.Errorf("the log does not say why:\n%s", s.logs.tail())
			}
			s.start()
			sub = s.open(v5, durable(v5, "sub"))
			sub.ReceiveText("t", "acknowledged")
		})
	}
}
