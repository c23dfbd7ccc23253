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

// A publisher sends 1, 2, 3, … to a topic of its own, each again until it is
// acknowledged, with several under way.
type publisher struct {
	id      string
	qos     byte
	acked   atomic.Int64 // all up to this number
	stopped atomic.Bool

	sent atomic.Int64 // highest, for others to read

	mu      sync.Mutex
	refused [][2]int // first and last of what was under way when one was refused

	highest  int64 // number sent so far, on any connection
	released bool  // PUBREL may have been sent for the one after acked
}

// A subscriber receives everything in one durable session.
type subscriber struct {
	load  *load
	id    string
	topic string

	mu    sync.Mutex
	next  map[string]int // by topic, the number that is due
	twice map[string]int // by topic, how many repeats came
	early int            // came before what had been refused
	fault string         // the first thing that was wrong
}

func newLoad(t testing.TB, s *server, publishers int) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{})}
	l.addr.Store(s.ready.MQTT)
	for i := range publishers {
		l.publishers = append(l.publishers, &publisher{id: fmt.Sprint("p", i), qos: byte(1 + i%2)})
	}
	for i := range 2 {
		sub := &subscriber{load: l, id: fmt.Sprint("s", i), topic: "load/#", next: map[string]int{}, twice: map[string]int{}}
		l.subscribers = append(l.subscribers, sub)
		c := mq.Open(t, s.ready.MQTT, v5, receiveMax(sub.id, 50))
		c.Subscribe(sub.topic, 2)
		c.Disconnect()
	}
	return l
}

func (l *load) start() {
	for _, p := range l.publishers {
		l.wg.Go(func() { l.again(func() error { return p.run(l) }) })
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
			m := mq.Publish{Topic: "load/" + p.id, QoS: p.qos, ID: packetID(sent), Dup: sent <= p.highest, Payload: fmt.Append(nil, sent)}
			p.highest = max(p.highest, sent)
			p.sent.Store(p.highest)
			if err := c.Write(m); err != nil {
				return err
			}
		}
		if sent == p.acked.Load() {
			return nil // stopped, and all is acknowledged
		}
		if err := p.awaitAck(c); err != nil {
			if errors.Is(err, errRefused) {
				p.mu.Lock()
				p.refused = append(p.refused, [2]int{int(p.acked.Load()) + 1, int(p.highest)})
				p.mu.Unlock()
			}
			return err
		}
	}
}

// errRefused is an acknowledgement that says no. The client has the message back;
// what it had sent after it may be taken all the same, and so come first.
var errRefused = errors.New("refused")

// excused says whether n may come before due.
func (l *load) excused(topic string, due, n int) bool {
	for _, p := range l.publishers {
		if "load/"+p.id != topic {
			continue
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.ContainsFunc(p.refused, func(r [2]int) bool { return r[0] <= due && n <= r[1] })
	}
	return false
}

// packetID of a number: distinct among those under way, and stable.
func packetID(n int64) uint16 { return uint16(1 + n%1000) }

// awaitAck waits until the next number is through. PUBREC means that it is
// stored, but only PUBCOMP frees its id: it counts as acknowledged then.
func (p *publisher) awaitAck(c *mq.Conn) error {
	id := packetID(p.acked.Load() + 1)
	if p.qos == 1 {
		err := expect(c, mq.PUBACK, id)
		if err == nil {
			p.acked.Add(1)
		}
		return err
	}
	if err := expect(c, mq.PUBREC, id); err != nil {
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
	p, err := c.Read(mq.Patience)
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
// back for their turn.
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
		before = append(before, p)
	}
}

// run receives over one connection until the load is stopped.
func (s *subscriber) run(l *load) error {
	c, ack, err := l.connect(receiveMax(s.id, 50))
	if err != nil {
		return err
	}
	defer c.Close()
	if !ack.SessionPresent {
		s.blame("its session is gone")
	}
	return l.each(c, func(p *mq.Packet) error { return s.take(c, p) })
}

func (s *subscriber) take(c *mq.Conn, p *mq.Packet) error {
	switch {
	case p.Type == mq.PUBREL:
		return c.Write(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
	case p.Type != mq.PUBLISH:
		return fmt.Errorf("got %v", p)
	case p.QoS() == 2:
		s.note(p)
		return c.Write(mq.Ack{Type: mq.PUBREC, ID: p.ID})
	}
	s.note(p)
	return c.Write(mq.Ack{Type: mq.PUBACK, ID: p.ID})
}

// note judges one message: first deliveries ascend without a gap.
func (s *subscriber) note(p *mq.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int
	if _, err := fmt.Sscan(string(p.Payload), &n); err != nil {
		s.blameLocked(fmt.Sprintf("got %v", p))
		return
	}
	due := s.next[p.Topic]
	if due == 0 {
		due = 1
	}
	for wait := 0; n > due && wait < 50 && !s.load.excused(p.Topic, due, n); wait++ {
		pause() // the publisher may not have read yet that it was refused
	}
	switch {
	case n > due && s.load.excused(p.Topic, due, n):
		s.early++ // it comes again in its turn
	case n > due:
		s.blameLocked(fmt.Sprintf("%s: %d came where %d was due", p.Topic, n, due))
		s.next[p.Topic] = n + 1
	case n == due:
		s.next[p.Topic] = n + 1
	case p.QoS() == 2 && !p.Dup(): // QoS 1 may have been published twice
		s.blameLocked(fmt.Sprintf("%s: %d came again without DUP", p.Topic, n))
	default:
		s.twice[p.Topic]++
	}
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

func (s *subscriber) received(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next[topic] - 1
}

// finish lets the publishers come to an end, waits until every subscriber has
// what was acknowledged, and judges.
func (l *load) finish() {
	l.t.Helper()
	for _, p := range l.publishers {
		p.stopped.Store(true)
	}
	for _, p := range l.publishers {
		for _, s := range l.subscribers {
			until(l.t, fmt.Sprintf("%s has what %s was acknowledged", s.id, p.id), 30*time.Second, func() bool {
				return int64(s.received("load/"+p.id)) >= p.acked.Load()
			})
		}
	}
	total := l.acked()
	close(l.stop)
	l.wg.Wait()
	repeats, early := 0, 0
	for _, s := range l.subscribers {
		early += s.early
		if s.fault != "" {
			l.t.Errorf("subscriber %s: %s", s.id, s.fault)
		}
		for _, n := range s.twice {
			repeats += n
		}
	}
	l.t.Logf("%d acknowledged, all delivered in order; %d arrived again, %d before what had been refused", total, repeats, early)
	if total == 0 {
		l.t.Error("nothing was acknowledged: the test shows nothing")
	}
}

// kill -9 under load, again and again at moments that a seed picks: everything
// acknowledged reaches every durable subscriber, in order per publisher.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	underSeeds(t, 10, effort.Rounds(5, 200), func(t *testing.T, rng *rand.Rand) {
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

// underSeeds runs a test with the random choices of each of n seeds.
func underSeeds(t *testing.T, stream uint64, n int, test func(t *testing.T, rng *rand.Rand)) {
	for seed := range uint64(n) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { test(t, rand.New(rand.NewPCG(seed, stream))) })
	}
}

// each hands over what comes, until the load is stopped or the connection ends.
func (l *load) each(c *mq.Conn, take func(*mq.Packet) error) error {
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
		if err == nil {
			err = take(p)
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
	underSeeds(t, 11, effort.Rounds(3, 100), func(t *testing.T, rng *rand.Rand) {
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
	underSeeds(t, 24, effort.Rounds(2, 50), func(t *testing.T, rng *rand.Rand) {
		exactlyOnce(t, serve(t, "--allow-anonymous"), func(l *load) {
			for range 100 {
				l.await(1 + rng.Int64N(20))
				l.cut([]string{"once", "rx"}[rng.IntN(2)], rng.IntN(2) == 0)
			}
		})
	})
}

func exactlyOnce(t *testing.T, s *server, disturb func(*load), settings ...func(*load)) {
	l := newLoad(t, s, 0)
	for _, set := range settings {
		set(l)
	}
	p := &publisher{id: "once", qos: 2}
	l.publishers = []*publisher{p}
	l.subscribers = nil
	rx := &receiver{t: t, l: l, open: map[uint16]string{}}
	c := mq.Open(t, s.ready.MQTT, v5, receiveMax("rx", 20))
	c.Subscribe("load/#", 2)
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
	return r.l.each(c, func(p *mq.Packet) error {
		if p.Type == mq.PUBREL {
			delete(r.open, p.ID)
			return c.Write(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
		}
		r.take(p)
		return c.Write(mq.Ack{Type: mq.PUBREC, ID: p.ID})
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
	if want := fmt.Sprint(r.count.Add(1)); want != string(p.Payload) && r.fault == "" {
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
	s.signal(syscall.SIGSTOP)
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
