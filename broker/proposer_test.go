package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// A flakyLog orders batches for one Machine, and fails at that: it refuses some,
// loses some without knowing, says of some that it does not know and applies
// them after all, now or later. It keeps its word, though: batches that it
// applies at once are applied in the order in which they came, and of one that it
// does not apply its submitter is told.
type flakyLog struct {
	m   *Machine
	now func() time.Time
	rng *rand.Rand

	mu      sync.Mutex
	index   uint64
	faults  bool
	hung    bool // nothing is applied nor failed
	held    []submission
	later   [][]byte // to be applied after something else
	submits int
}

type submission struct {
	batch  []byte
	failed func(error)
}

func (l *flakyLog) Leader() bool { return true }

func (l *flakyLog) Submit(batch []byte, failed func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.submits++
	s := submission{slices.Clone(batch), failed}
	l.held = append(l.held, s)
}

// step deals with the oldest submission.
func (l *flakyLog) step() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hung || len(l.held) == 0 {
		return false
	}
	if i := len(l.held) - 1; l.faults && i > 0 && l.rng.IntN(4) == 0 {
		l.held[i].failed(ErrNoCommit) // while those before it are on their way
		l.held = l.held[:i]
		return false
	}
	s := l.held[0]
	l.held = l.held[1:]
	fate := 9
	if l.faults {
		fate = l.rng.IntN(10)
	}
	switch fate {
	case 0:
		s.failed(ErrNoCommit)
	case 1:
		s.failed(ErrUnknown)
	case 2: // it is in the log, and nobody knows
		l.apply(s.batch)
		s.failed(ErrUnknown)
	case 3: // it will be in the log, after others
		l.later = append(l.later, s.batch)
		s.failed(ErrUnknown)
	default:
		l.apply(s.batch)
	}
	if len(l.later) > 0 && (!l.faults || l.rng.IntN(3) == 0) {
		l.apply(l.later[0])
		l.later = l.later[1:]
	}
	return true
}

func (l *flakyLog) apply(batch []byte) {
	l.index++
	l.m.Apply(l.index, 1, l.now().UnixNano(), [][]byte{batch})
}

// run deals with submissions until stop is closed.
func (l *flakyLog) run(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if !l.step() {
			elapse(30 * time.Millisecond) // until nobody else can go on
		}
	}
}

// elapse lets d pass on the clock of the bubble that the test is in, which takes
// no time.
func elapse(d time.Duration) { <-time.After(d) }

func (l *flakyLog) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// newFlakyNode returns a node on a log that fails, in a bubble.
func newFlakyNode(t *testing.T, seed uint64, limits Limits) (*node, *flakyLog) {
	n := bareNode(t, limits)
	l := &flakyLog{m: n.Machine(), now: n.clock.now, rng: rand.New(rand.NewPCG(seed, 5))}
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { l.run(stop) })
	if err := n.Start(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	n.policy("all")
	t.Cleanup(func() {
		n.Broker.Close()
		close(stop)
		running.Wait()
		if err := n.config.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, l
}

// counted is a Completer that notes what it is told, by tag.
type counted struct {
	mu   sync.Mutex
	told map[uint64][]error
}

func (c *counted) Complete(tag uint64, err error, _ *Wave) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told[tag] = append(c.told[tag], err)
}

func (c *counted) all() map[uint64][]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.told)
}

// Under a log that refuses, loses, doubles and reorders, what clients publish is
// ordered once each, in each client's order, and each is told once, yes.
func TestEachProposalIsOrderedOnce(t *testing.T) {
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		bubble.Test(t, func(t *testing.T) { orderedOnce(t, seed) })
	})
}

func orderedOnce(t *testing.T, seed uint64) {
	const clients, each = 3, 120
	n, l := newFlakyNode(t, seed, Limits{Backlog: 4 << 10})
	sub, _ := n.connect("sub", true, 3600, receiveMax(65535))
	sub.subscribe("t/+", 1)
	publishers := make([]*client, clients)
	for i := range publishers {
		publishers[i], _ = n.connect(fmt.Sprint("p", i), true, 0)
	}
	l.set(func() { l.faults = true })
	told := &counted{told: map[uint64][]error{}}
	var done sync.WaitGroup
	for i, p := range publishers {
		done.Go(func() {
			var w Wave
			for k := range each {
				e := &event.Event{Topic: fmt.Sprint("t/", i), Payload: fmt.Append(nil, k), QoS: 1}
				if _, err := p.s.Publish(e, 0, told, uint64(i*each+k), &w); err != nil {
					t.Errorf("p%d publishes %d: %v", i, k, err)
				}
				w.Flush()
			}
		})
	}
	done.Wait()
	got := sub.awaitGot(clients * each)
	for i := range publishers {
		name, next := fmt.Sprint("t/", i), 0
		for _, g := range got {
			if g.topic == name {
				if g.payload != fmt.Sprint(next) {
					t.Fatalf("of %s %s came, want %d", name, g.payload, next)
				}
				next++
			}
		}
	}
	synctest.Wait()
	if len(got) != clients*each {
		t.Errorf("%d deliveries, want %d", len(got), clients*each)
	}
	all := told.all()
	for tag := range uint64(clients * each) {
		if errs := all[tag]; len(errs) != 1 || errs[0] != nil {
			t.Errorf("publish %d was told %v, want yes, once", tag, errs)
		}
	}
	if left := n.proposer.Load().backlog(); left != 0 {
		t.Errorf("%d bytes are still counted as waiting", left)
	}
}

// While the log stands still the backlog fills and publishers wait; who frees
// something does not. Once that has lasted for releaseAfter everybody is told
// that the outcome is unknown, and from then on that there is no quorum. When
// the log goes on, so does the node: what waited is ordered, whoever was told is
// not told again, and new publishes are answered.
func TestLogStandsStill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n, l := newFlakyNode(t, 1, Limits{Backlog: 1 << 10})
		sub, _ := n.connect("sub", true, 3600)
		sub.subscribe("t", 1)
		leaves, _ := n.connect("leaves", true, 0)
		p, _ := n.connect("p", true, 0)
		l.set(func() { l.hung = true })

		told := &counted{told: map[uint64][]error{}}
		var mu sync.Mutex
		var answers []error
		go func() {
			var w Wave
			for k := range uint64(40) {
				e := &event.Event{Topic: "t", Payload: fmt.Appendf(nil, "%04d%s", k, make([]byte, 100)), QoS: 1}
				_, err := p.s.Publish(e, 0, told, k, &w)
				mu.Lock()
				answers = append(answers, err)
				mu.Unlock()
			}
		}()
		synctest.Wait()
		mu.Lock()
		waiting := len(answers)
		mu.Unlock()
		if waiting == 0 || waiting > 10 {
			t.Errorf("%d publishes of about 100 bytes got into a backlog of 1 KiB", waiting)
		}
		leaves.s.Close(true, false, 0) // does not wait

		var connected error
		go func() {
			_, _, err := n.tryConnect("late", true, 3600)
			mu.Lock()
			connected = errors.Join(err)
			mu.Unlock()
		}()
		elapse(releaseAfter + time.Second)
		mu.Lock()
		for i, err := range answers {
			if want := error(nil); i > waiting && !errors.Is(err, ErrNoCommit) || i < waiting && err != want {
				t.Errorf("publish %d got %v", i, err)
			}
		}
		if len(answers) != 40 {
			t.Errorf("%d publishes have been answered, want all", len(answers))
		}
		if !errors.Is(connected, ErrUnknown) && !errors.Is(connected, ErrNoCommit) {
			t.Errorf("a Connect that waited got %v", connected)
		}
		mu.Unlock()
		first := told.all()
		for tag, errs := range first {
			if len(errs) != 1 || !errors.Is(errs[0], ErrUnknown) {
				t.Errorf("publish %d was told %v, want that it is unknown, once", tag, errs)
			}
		}
		if len(first) < waiting {
			t.Errorf("%d were told, want the %d that waited", len(first), waiting)
		}
		sub.s.Close(false, false, 0) // while it stands still

		l.set(func() { l.hung = false })
		elapse(time.Second)
		if err := p.publish("t", "after", 1); err != nil {
			t.Errorf("publish when the log goes on: %v", err)
		}
		for tag, errs := range told.all() {
			if len(errs) != 1 {
				t.Errorf("publish %d was told again: %v", tag, errs)
			}
		}
		for _, name := range []string{"sub", "leaves", "late"} {
			if r := n.machine.sessions[name]; r != nil && r.connected() {
				t.Errorf("%s is connected in the log, and has gone", name)
			}
		}
		sub, present := n.connect("sub", false, 3600)
		if !present {
			t.Error("the session is gone")
		}
		got := sub.awaitGot(len(first) + 1)
		if last := got[len(got)-1].payload; last != "after" {
			t.Errorf("the last is %q", last)
		}
	})
}

// A Connect whose client was told that nobody knows, and which was ordered after
// all, does not leave a session that is connected to nobody.
func TestUnheardConnectEnds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n, l := newFlakyNode(t, 1, Limits{})
		l.set(func() { l.hung = true })
		_, _, err := n.tryConnect("c", true, 3600, will(event.Will{Topic: "will", Payload: []byte("gone")}))
		if !errors.Is(err, ErrUnknown) {
			t.Fatalf("connect: %v", err)
		}
		l.set(func() { l.hung = false })
		elapse(time.Second)
		n.tick()
		r := n.machine.sessions["c"]
		if r == nil || r.connected() || r.will != nil {
			t.Errorf("session %+v: want it there, without connection or will", r)
		}
		if _, present := n.connect("c", false, 3600); !present {
			t.Error("the session is gone")
		}
	})
}

// Close tells everybody who waits, once, and whoever comes later that it is
// closing.
func TestCloseTellsEverybody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n, l := newFlakyNode(t, 1, Limits{Backlog: 1 << 10})
		publishers := make([]*client, 20)
		for i := range publishers {
			publishers[i], _ = n.connect(fmt.Sprint("p", i), true, 0)
		}
		l.set(func() { l.hung = true })
		told := &counted{told: map[uint64][]error{}}
		refused := make(chan error, 100)
		for k, p := range publishers {
			go func() {
				var w Wave
				e := &event.Event{Topic: "t", Payload: make([]byte, 100), QoS: 1}
				if _, err := p.s.Publish(e, 0, told, uint64(k), &w); err != nil {
					refused <- err
				}
			}()
		}
		synctest.Wait()
		n.Broker.Close()
		synctest.Wait()
		if got := len(told.all()) + len(refused); got != 20 {
			t.Errorf("%d of 20 were told anything", got)
		}
		for tag, errs := range told.all() {
			if len(errs) != 1 || !errors.Is(errs[0], ErrUnknown) {
				t.Errorf("publish %d was told %v", tag, errs)
			}
		}
		for range len(refused) {
			if err := <-refused; !errors.Is(err, ErrClosing) {
				t.Errorf("a publish that waited for room got %v", err)
			}
		}
		if err := n.propose(&event.Tick{}, call{}, true); !errors.Is(err, ErrClosing) {
			t.Errorf("after Close: %v", err)
		}
		if err := publishers[0].awaitEnd(); !errors.Is(err, ErrClosing) {
			t.Errorf("the client was told %v", err)
		}
	})
}

// A command that no batch can carry is refused, and disturbs nobody; the largest
// that one can goes alone.
func TestCommandTooLarge(t *testing.T) {
	n := newNode(t, Limits{})
	p, _ := n.connect("p", true, 0)
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("t", 1)
	if err := p.publish("t", string(make([]byte, MaxBatch)), 1); !errors.Is(err, ErrQuota) {
		t.Errorf("a payload of %d bytes: %v, want ErrQuota", MaxBatch, err)
	}
	for _, size := range []int{1, 200 << 10, 200 << 10, 900 << 10, MaxBatch - 200, 1} {
		if err := p.publish("t", string(make([]byte, size)), 1); err != nil {
			t.Errorf("a payload of %d bytes: %v", size, err)
		}
	}
	if got := sub.awaitGot(6); len(got) != 6 {
		t.Errorf("%d arrived, want 6", len(got))
	}
	for _, e := range n.entries {
		for _, b := range e.batches {
			if len(b) > MaxBatch {
				t.Errorf("a batch of %d bytes, at most %d", len(b), MaxBatch)
			}
		}
	}
}

// backlog returns the bytes of commands under way.
func (p *proposer) backlog() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
