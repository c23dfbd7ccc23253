package broker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// A roamer is a client with a durable session that connects now here, now there,
// and does what the protocol asks of it: it acknowledges, it takes what has a
// packet id of QoS 2 that it has not released once, it publishes until it is told
// yes, with the packet id it had.
type roamer struct {
	l    *sharedLog
	rng  *rand.Rand
	id   string
	will bool

	at   *member // where it is connected
	over *link
	s    *Session
	wave Wave

	seen     map[uint16]bool // QoS 2, not released yet
	took     []string        // payloads, as its application saw them
	lives    int             // connections with a will
	mourned  map[string]bool // wills that must come, and may come
	optional map[string]bool
}

// A link is one connection of a roamer.
type link struct {
	mu    sync.Mutex
	in    []sent
	ended error
}

type sent struct {
	payload string
	qos     uint8
	id      uint16
	release bool
}

func (k *link) put(p sent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.in = append(k.in, p)
}

func (k *link) Deliver(d *Delivery, _ *Wave) Outcome {
	k.put(sent{payload: string(d.Event.Payload), qos: d.QoS, id: d.PacketID})
	return Sent
}

func (k *link) Release(id uint16, _ *Wave) { k.put(sent{release: true, id: id}) }
func (k *link) Flush()                     {}

func (k *link) End(cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = cause
}

func (k *link) take() (in []sent, ended error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	in, k.in = k.in, nil
	return in, k.ended
}

func newRoamer(l *sharedLog, id string, seed uint64) *roamer {
	return &roamer{
		l: l, id: id, rng: rand.New(rand.NewPCG(seed, uint64(len(id))<<8|uint64(id[len(id)-1]))), seen: map[uint16]bool{},
		mourned: map[string]bool{}, optional: map[string]bool{},
	}
}

// connect connects to any member that runs, until one takes it.
func (r *roamer) connect() {
	for ; ; elapse(20 * time.Millisecond) {
		var at *member
		r.l.set(func() {
			if m := r.l.members[r.rng.IntN(len(r.l.members))]; m.serves {
				at = m
			}
		})
		if at == nil {
			continue
		}
		k := &link{}
		req := ConnectRequest{Client: r.id, Principal: r.id, Version: 5, Expiry: 3600, ReceiveMax: uint16(1 + r.rng.IntN(20))}
		name := ""
		if r.will {
			r.lives++
			name = fmt.Sprint(r.id, " ", r.lives)
			req.Will = &event.Will{Topic: "will", Payload: []byte(name), QoS: 1}
		}
		s, _, _, err := at.Connect(req, k)
		if err != nil {
			if name != "" && errors.Is(err, ErrUnknown) {
				r.optional[name] = true
			}
			continue
		}
		if name != "" {
			r.mourned[name] = true
		}
		r.at, r.over, r.s = at, k, s
		r.drive(func() { s.Start(&r.wave) })
		return
	}
}

// drive calls what reads the state of the member, if that is there.
func (r *roamer) drive(f func()) {
	r.at.using.RLock()
	defer r.at.using.RUnlock()
	serves := false
	r.l.set(func() { serves = r.at.serves })
	if serves {
		f()
	}
	r.wave.Flush()
}

// leave ends the connection, with or without a word, or not even that: the next
// one will take over.
func (r *roamer) leave() {
	name := fmt.Sprint(r.id, " ", r.lives)
	switch r.rng.IntN(3) {
	case 0:
		r.s.Close(true, false, 0)
	case 1:
		r.s.Close(false, false, 0)
		if r.will { // unless its node dies with that word
			delete(r.mourned, name)
			r.optional[name] = true
		}
	}
}

// work does what there is to do with what came, and says whether the connection
// still stands.
func (r *roamer) work() bool {
	in, ended := r.over.take()
	for _, p := range in {
		switch {
		case p.release:
			delete(r.seen, p.id)
			r.settle(p.id, Completed)
		case p.qos == 1:
			r.took = append(r.took, p.payload)
			r.settle(p.id, Acked)
		default:
			if !r.seen[p.id] {
				r.seen[p.id] = true
				r.took = append(r.took, p.payload)
			}
			r.settle(p.id, Received)
		}
	}
	if ended != nil {
		r.s.Close(true, false, 0)
	}
	return ended == nil
}

func (r *roamer) settle(id uint16, what Settlement) {
	r.drive(func() {
		if err := r.s.Settle(id, what, &r.wave); err != nil && !errors.Is(err, ErrNoPacketID) {
			r.l.t.Errorf("%s answers %d: %v", r.id, id, err)
		}
	})
}

// listen takes what comes until stop is closed, here and there.
func (r *roamer) listen(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if stands := r.work(); !stands || r.l.isFaulty() && r.rng.IntN(40) == 0 {
			if stands {
				r.leave()
			}
			r.connect()
		}
		elapse(10 * time.Millisecond)
	}
}

// announce publishes n events on a topic, each until it is told yes.
func (r *roamer) announce(topic string, n int) {
	for k := range n {
		e := event.Event{Topic: topic, Payload: fmt.Appendf(nil, "%s %03d", topic, k), QoS: uint8(1 + k%2)}
		for !r.publish(e, uint16(1+k)) {
			r.work()
			r.leave()
			r.connect()
		}
		r.work()
		elapse(time.Duration(r.rng.IntN(30)) * time.Millisecond)
	}
}

func (r *roamer) publish(e event.Event, id uint16) bool {
	o := outcome{make(chan error, 1)}
	qos := e.QoS
	if logged, err := r.s.Publish(&e, id, o, 0, &r.wave); err != nil || !logged || <-o.ch != nil {
		return false
	}
	if qos == 1 {
		return true
	}
	for {
		o := outcome{make(chan error, 1)}
		logged, err := r.s.Release(id, o, 0)
		if logged {
			err = <-o.ch
		}
		if err == nil || errors.Is(err, ErrNoPacketID) {
			return true
		}
		r.leave()
		r.connect()
	}
}

func (l *sharedLog) isFaulty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults
}

// Sessions go from any node to any node while nodes lag, are cut off and die, and
// the log loses, doubles and delays what it is given. Whoever is entitled to an
// event gets it: of QoS 1 at least once, of QoS 2 once, in the order in which it
// was published; a will comes once for each connection that ended without a word;
// and all nodes have the same state.
func TestSessionsRoam(t *testing.T) {
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		bubble.Test(t, func(t *testing.T) { sessionsRoam(t, seed) })
	})
}

const roamed = 40 // events of each publisher

func sessionsRoam(t *testing.T, seed uint64) {
	l, members := newCluster(t, seed, 3)
	watcher, _ := members[0].connect("watcher", true, 3600, receiveMax(65535))
	watcher.subscribe("will", 1)
	var subs, pubs []*roamer
	stop := make(chan struct{})
	var listening, publishing sync.WaitGroup
	for i := range 3 {
		s := newRoamer(l, fmt.Sprint("sub", i), seed)
		s.will = i == 0
		s.connect()
		s.s.Subscribe([]event.Subscription{{Filter: "t/+", QoS: 2}}, func(res []SubResult, _ *Wave) {
			if res[0].Err != nil {
				t.Error(res[0].Err)
			}
		})
		subs = append(subs, s)
		p := newRoamer(l, fmt.Sprint("pub", i), seed)
		p.connect()
		pubs = append(pubs, p)
	}
	watcher.s.Close(false, false, 0)
	l.settle()
	l.set(func() { l.faults = true })
	for i, s := range subs {
		listening.Go(func() { s.listen(stop) })
		publishing.Go(func() { pubs[i].announce(fmt.Sprint("t/", i), roamed) })
	}
	publishing.Go(func() { l.trouble(seed) })
	publishing.Wait()
	l.set(func() { l.faults = false })
	l.settle()
	close(stop)
	listening.Wait()
	l.settle()
	for _, s := range subs {
		s.work()
		checkTook(t, s)
	}
	l.checkWills(subs[0])
	l.settle()
	l.checkDigests()
}

// trouble cuts members off and kills them, one at a time, and mends that.
func (l *sharedLog) trouble(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 99))
	for range 6 {
		elapse(time.Duration(100+rng.IntN(1000)) * time.Millisecond)
		m := l.members[rng.IntN(len(l.members))]
		if l.cutOff(m); rng.IntN(3) == 0 {
			m.end(rng.IntN(2) == 0)
		}
		elapse(300 * time.Millisecond)
		if rng.IntN(3) > 0 { // else it is back before anybody has noticed
			l.lead().NodeLost(m.name)
		}
		elapse(time.Duration(rng.IntN(7000)) * time.Millisecond)
		l.heal(m)
		if !m.isUp() {
			m.begin()
		}
	}
}

// checkTook compares what a subscriber took with what was published.
func checkTook(t *testing.T, s *roamer) {
	t.Helper()
	for p := range 3 {
		topic := fmt.Sprint("t/", p)
		times, last := map[string]int{}, ""
		for _, payload := range s.took {
			if !strings.HasPrefix(payload, topic+" ") {
				continue
			}
			if times[payload]++; times[payload] == 1 && payload < last {
				t.Errorf("%s took %q first after %q", s.id, payload, last)
			}
			last = max(last, payload)
		}
		for k := range roamed {
			payload, qos := fmt.Sprintf("%s %03d", topic, k), 1+k%2
			switch n := times[payload]; {
			case n == 0:
				t.Errorf("%s was never given %q", s.id, payload)
			case qos == 2 && n != 1:
				t.Errorf("%s was given %q %d times", s.id, payload, n)
			}
		}
	}
}

// checkWills reads the wills of r, whose last connection stands, from the queue of
// the watcher.
func (l *sharedLog) checkWills(r *roamer) {
	l.t.Helper()
	watcher, present := l.lead().connect("watcher", false, 3600, receiveMax(65535))
	if !present {
		l.t.Fatal("the watcher has lost its session")
	}
	delete(r.mourned, fmt.Sprint(r.id, " ", r.lives))
	l.settle()
	var got []string
	for _, g := range watcher.awaitGot(0) {
		got = append(got, g.payload)
	}
	for _, name := range got {
		if !r.mourned[name] && !r.optional[name] {
			l.t.Errorf("will of %q, which nobody was to hear", name)
		}
		if n := count(got, name); n > 1 {
			l.t.Errorf("will of %q came %d times", name, n)
		}
	}
	for name := range r.mourned {
		if count(got, name) == 0 {
			l.t.Errorf("no will of %q", name)
		}
	}
}

func count(list []string, s string) (n int) {
	for _, x := range list {
		if x == s {
			n++
		}
	}
	return n
}
