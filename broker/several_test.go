package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/bubble"
)

// A sharedLog orders the batches of several brokers and feeds each Machine at its
// own pace. It fails at all that a cluster's log may fail at: it loses batches and
// says so or does not know, orders one twice, or later than those that came after
// it; nodes lag, are cut off and come back. It is for one bubble.
type sharedLog struct {
	t     *testing.T
	clock *clock
	rng   *rand.Rand

	mu      sync.Mutex // guards the following, and the members' fields that say so
	entries []kept
	inbox   []forward
	later   []forward
	members []*member
	leader  *member
	faults  bool
	closed  bool
	latency time.Duration // of a message between members
	links   map[[2]string]chan []byte
	running sync.WaitGroup
}

// A forward is a batch on its way from a member to the log.
type forward struct {
	from   *member
	batch  []byte
	failed func(error)
}

// A member is a broker on a sharedLog.
type member struct {
	*node
	shared *sharedLog

	// Guarded by the log's mu.
	applied int
	up      bool // it is fed; else it is not running
	serves  bool // it takes clients
	cut     bool // it hears nothing and is not heard
	cutAt   time.Time
	out     bool // it is no member any more
	lags    bool // it is heard, and hears, but nothing of the log
	feeding sync.WaitGroup

	using sync.RWMutex // held, to read, by who drives a session; taken before the log's mu
}

func (m *member) Submit(batch []byte, failed func(error)) {
	l := m.shared
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inbox = append(l.inbox, forward{m, slices.Clone(batch), failed})
}

func (m *member) Leader() bool {
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	return m.shared.leader == m
}

// Send puts a message on its way to another member.
func (m *member) Send(node string, message []byte) bool {
	l := m.shared
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.named(node)
	if to == nil || m.cut || to.cut || !to.up {
		return false
	}
	select {
	case l.links[[2]string{m.name, node}] <- slices.Clone(message):
		return true
	default:
		return false
	}
}

// named returns a member. Requires mu.
func (l *sharedLog) named(name string) *member {
	for _, m := range l.members {
		if m.name == name {
			return m
		}
	}
	return nil
}

// carry hands messages over, in their order.
func (l *sharedLog) carry(from, to *member, messages chan []byte) {
	for message := range messages {
		var b *Broker
		wait := time.Duration(0)
		l.set(func() {
			if wait = l.latency; from.up && to.up && !from.cut && !to.cut {
				b = to.Broker
			}
		})
		elapse(wait)
		if b != nil {
			b.Receive(from.name, message)
		}
	}
}

// linked tells the members that their links to m, and its links, are there or not.
func (l *sharedLog) linked(m *member, up bool) {
	var others []*member
	l.set(func() {
		for _, o := range l.members {
			if o != m && o.up && (!o.cut || !up) {
				others = append(others, o)
			}
		}
	})
	for _, o := range others {
		if up {
			m.PeerUp(o.name)
			o.PeerUp(m.name)
		} else {
			m.PeerDown(o.name)
			o.PeerDown(m.name)
		}
	}
}

// Silence is how long the member has been cut off.
func (m *member) Silence() (d time.Duration) {
	m.shared.set(func() {
		if m.cut {
			d = time.Since(m.cutAt)
		}
	})
	return d
}

// Member says whether a node has not been taken out.
func (m *member) Member(node string) (yes bool) {
	m.shared.set(func() { one := m.shared.named(node); yes = one != nil && !one.out })
	return yes
}

// newCluster returns brokers with one log, of which the first leads.
func newCluster(t *testing.T, seed uint64, n int, profiles ...Profile) (*sharedLog, []*member) {
	t.Helper()
	l := &sharedLog{t: t, rng: rand.New(rand.NewPCG(seed, 0)), clock: &clock{at: time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)}}
	for i := range n {
		m := &member{node: &node{
			t: t, name: fmt.Sprint("n", i+1), fs: disk.Memory(), clock: l.clock, profiles: profiles,
			policies: map[string]*rules{"all": parseRules("allow * #")},
		}, shared: l}
		l.members = append(l.members, m)
	}
	l.leader = l.members[0]
	l.links = map[[2]string]chan []byte{}
	for _, from := range l.members {
		for _, to := range l.members {
			if from != to {
				messages := make(chan []byte, 1024)
				l.links[[2]string{from.name, to.name}] = messages
				l.running.Go(func() { l.carry(from, to, messages) })
			}
		}
	}
	l.running.Go(l.order)
	l.running.Go(l.passTime)
	for _, m := range l.members {
		m.begin()
	}
	l.members[0].policy("all")
	t.Cleanup(l.close)
	l.settle()
	return l, l.members
}

// begin starts a life of the member, on the state that its store has.
func (m *member) begin() {
	m.t.Helper()
	m.open()
	m.shared.set(func() { m.applied, m.up = int(m.machine.Applied()), true })
	m.feeding.Go(m.feed)
	if err := m.Start(context.Background(), m); err != nil {
		m.t.Errorf("%s: %v", m.name, err)
	}
	m.shared.linked(m, true)
	m.shared.set(func() { m.serves = true })
}

func (m *member) isUp() bool {
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	return m.up
}

// end ends it without a word to the log, as a kill does.
func (m *member) end(flush bool) {
	m.t.Helper()
	m.using.Lock() // as a server ends its connections first
	m.shared.set(func() { m.serves = false })
	m.using.Unlock()
	m.shared.set(func() {
		m.up = false
		m.shared.inbox = slices.DeleteFunc(m.shared.inbox, func(f forward) bool { return f.from == m })
	})
	m.shared.linked(m, false)
	m.Broker.Close()
	m.feeding.Wait()
	if flush {
		if err := m.machine.Flush(); err != nil {
			m.t.Error(err)
		}
	}
	if err := m.config.Store.Close(); err != nil {
		m.t.Error(err)
	}
}

// feed applies what is ordered, an entry at a time, some behind the others.
func (m *member) feed() {
	l := m.shared
	for {
		var e kept
		lag, over, ready := time.Millisecond, false, false
		l.set(func() {
			if over = !m.up; !over && !m.cut && !m.lags && m.applied < len(l.entries) {
				e, ready = l.entries[m.applied], true
				m.applied++
				if l.faults && l.rng.IntN(20) == 0 {
					lag = time.Duration(l.rng.IntN(100)) * time.Millisecond
				}
			}
		})
		switch {
		case over:
			return
		case ready:
			m.machine.Apply(uint64(m.applied), 1, e.stamp, e.batches)
			if lag > time.Millisecond {
				elapse(lag)
			}
		default:
			elapse(time.Millisecond)
		}
	}
}

// order makes entries of what the members submit.
func (l *sharedLog) order() {
	for over := false; !over; elapse(time.Millisecond) {
		var told []func()
		l.set(func() {
			over = l.closed
			told = l.entry()
		})
		for _, f := range told {
			f()
		}
	}
}

// entry orders what has come, and returns who is to be told that something has
// failed. Requires mu.
func (l *sharedLog) entry() (told []func()) {
	var batches [][]byte
	take := func(f forward) { batches = append(batches, f.batch) }
	inbox := l.inbox
	l.inbox = nil
	for _, f := range inbox {
		fate := 9
		if l.faults {
			fate = l.rng.IntN(12)
		}
		switch {
		case f.from.cut && l.rng.IntN(2) == 0, fate == 1:
			l.later = append(l.later, f)
			told = append(told, func() { f.failed(ErrUnknown) })
		case f.from.cut, fate == 0:
			told = append(told, func() { f.failed(ErrNoCommit) })
		case fate == 2:
			take(f)
			take(f)
		case fate == 3:
			take(f)
			told = append(told, func() { f.failed(ErrUnknown) })
		default:
			take(f)
		}
	}
	for len(l.later) > 0 && !l.later[0].from.cut && (!l.faults || l.rng.IntN(4) == 0) {
		take(l.later[0])
		l.later = l.later[1:]
	}
	if len(batches) > 0 {
		l.entries = append(l.entries, kept{l.clock.now().UnixNano(), batches})
	}
	return told
}

// passTime has the members' clock go with that of the bubble.
func (l *sharedLog) passTime() {
	for over := false; !over; l.set(func() { over = l.closed }) {
		elapse(10 * time.Millisecond)
		l.clock.advance(10 * time.Millisecond)
	}
}

func (l *sharedLog) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// cutOff takes a member off the net; another leads if it did.
func (l *sharedLog) cutOff(m *member) {
	l.set(func() {
		m.cut, m.cutAt = true, time.Now()
		if l.leader == m {
			for _, other := range l.members {
				if !other.cut && other.up {
					l.leader = other
				}
			}
		}
	})
	l.linked(m, false)
}

// heal undoes cutOff.
func (l *sharedLog) heal(m *member) {
	up := false
	l.set(func() { m.cut, up = false, m.up })
	if up {
		l.linked(m, true)
	}
}

// lead returns the member that leads.
func (l *sharedLog) lead() (m *member) {
	l.set(func() { m = l.leader })
	return m
}

// settle returns when all members have applied the same entries, none of which
// has anything left to be done.
func (l *sharedLog) settle() {
	l.t.Helper()
	for range 1000 {
		elapse(500 * time.Millisecond)
		same := true
		l.set(func() {
			for _, m := range l.members {
				same = same && m.applied == len(l.entries)
			}
		})
		synctest.Wait()
		if next := l.lead().machine.NextWake(); same && (next == 0 || next > l.clock.now().UnixNano()) {
			return
		}
	}
	l.t.Fatal("the members do not come to rest")
}

// checkDigests fails the test unless all members have the same state.
func (l *sharedLog) checkDigests() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	want, value := l.members[0].machine.store.Digest(appliedKey)
	for _, m := range l.members[1:] {
		if got, at := m.machine.store.Digest(appliedKey); got != want || string(at) != string(value) {
			l.t.Errorf("%s and %s differ:\n%s", m.name, l.members[0].name, difference(m.machine.store, l.members[0].machine.store))
		}
	}
}

func (l *sharedLog) close() {
	for _, m := range l.members {
		m.end(true)
	}
	l.set(func() {
		l.closed = true
		for _, messages := range l.links {
			close(messages)
		}
	})
	l.running.Wait()
}

// The sessions of a node that is taken out of the cluster lose their connections,
// though nobody says that it is lost.
func TestSessionsOfARemovedNode(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		watcher, _ := n[0].connect("watcher", true, 0)
		watcher.subscribe("will/#", 1)
		n[2].connect("mortal", true, 0, will(willOn("will/mortal")))
		stays, _ := n[1].connect("stays", true, 0, will(willOn("will/stays")))
		l.settle()
		l.cutOff(n[2])
		elapse(5 * time.Second)
		watcher.want()
		l.set(func() { n[2].out = true })
		watcher.want("will/mortal=gone q1")
		if stays.ended != nil {
			t.Errorf("a client of another node was ended: %v", stays.ended)
		}
		l.heal(n[2])
	})
}

// A node whose log stands still while it starts, however long, serves when it goes
// on: it does not give up.
func TestStartOutlastsTheLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		n[2].end(true)
		l.cutOff(n[2])
		started := make(chan struct{})
		go func() {
			defer close(started)
			n[2].begin()
		}()
		elapse(4 * releaseAfter)
		select {
		case <-started:
			t.Fatal("it serves while its log stands still")
		default:
		}
		l.heal(n[2])
		<-started
		sub, _ := n[2].connect("sub", true, 0)
		sub.subscribe("t", 1)
		pub, _ := n[0].connect("pub", true, 0)
		must(t, pub.publish("t", "x", 1))
		sub.want("t=x q1")
		l.settle()
		l.checkDigests()
	})
}

func willOn(name string) event.Will {
	return event.Will{Topic: name, Payload: []byte("gone"), QoS: 1}
}

// A node that is cut off for longer than the others wait is given up: its sessions
// go on elsewhere with all they were owed, and wills are sent. When it is back it
// finds that in the log, drops its clients, of whose publishes it says that nobody
// knows, does no harm to those that went elsewhere, and serves again.
func TestNodeDownAndBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		a, b, c := n[0], n[1], n[2]
		watcher, _ := a.connect("watcher", true, 0)
		watcher.subscribe("will/#", 1)
		sub, _ := b.connect("sub", true, 3600)
		sub.subscribe("t", 1)
		b.connect("mortal", true, 3600, will(willOn("will/mortal")))
		b.connect("roams", true, 3600, will(willOn("will/roams")))
		stays, _ := b.connect("stays", true, 3600)
		pub, _ := a.connect("pub", true, 0)
		if err := pub.publish("t", "0", 1); err != nil {
			t.Fatal(err)
		}
		sub.await(1)
		sub.ackAll()
		l.settle()

		l.cutOff(b)
		told := make(chan error, 1)
		go func() { told <- stays.publish("t", "from the cut off", 1) }()
		for i := range 5 {
			if err := pub.publish("t", fmt.Sprint(1+i), 1); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			l.lead().NodeLost(b.name)
		}
		watcher.await(2)
		sub2, present := c.connect("sub", false, 3600)
		if !present {
			t.Error("the session of sub is not known elsewhere")
		}
		c.connect("roams", false, 3600, will(willOn("will/roams again")))
		sub2.await(5)
		sub2.ackAll()
		if sub.ended != nil || stays.ended != nil {
			t.Errorf("who is cut off knows of nothing, and ended its clients: %v, %v", sub.ended, stays.ended)
		}

		l.heal(b)
		if err := <-told; !errors.Is(err, ErrUnknown) {
			t.Errorf("a publish of the life that is over was told %v, want that nobody knows", err)
		}
		for _, one := range []*client{sub, stays} {
			if err := one.awaitEnd(); !errors.Is(err, ErrAway) {
				t.Errorf("%s ended with %v, want ErrAway", one.id, err)
			}
			if err := one.s.p.propose(&event.Tick{}, call{}, true); !errors.Is(err, ErrAway) {
				t.Errorf("a session of the life that is over proposes: %v, want ErrAway", err)
			}
			one.s.Close(true, false, 0) // as its protocol does
		}
		again, present := b.connect("stays", false, 3600)
		if !present {
			t.Error("the session of stays is gone")
		}
		if err := again.publish("t", "6", 1); err != nil {
			t.Errorf("publish at the node that is back: %v", err)
		}
		got := sub2.await(6)
		// Nobody knows what the node that was lost had sent.
		if want := []string{"t=1 q1 dup", "t=2 q1 dup", "t=3 q1 dup", "t=4 q1 dup", "t=5 q1 dup", "t=6 q1"}; !slices.Equal(got, want) {
			t.Errorf("sub got %q elsewhere, want %q", got, want)
		}
		l.settle()
		if sub2.ended != nil {
			t.Errorf("sub was ended at its new place: %v", sub2.ended)
		}
		wills := watcher.await(2)
		slices.Sort(wills)
		if want := []string{"will/mortal=gone q1", "will/roams=gone q1"}; !slices.Equal(wills, want) {
			t.Errorf("wills %q, want %q", wills, want)
		}
		if got := b.stats.Lives.Load(); got != 1 {
			t.Errorf("%d lives were closed, want 1", got)
		}
		l.checkDigests()
	})
}
