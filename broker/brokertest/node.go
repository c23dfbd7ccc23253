package brokertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// A TB is what a test is told by. *testing.T and *rapid.T are ones.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Begin is the time that a node's clock shows at first: a Monday, at noon.
var Begin = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

// A Node is a broker whose clock stands until Pass moves it, and which can live
// anew. It lets everybody do everything on topics that are no profile's; its
// disk and its log are in memory. SetPolicy takes "users" and names, who are then
// the policy's; who is left out later is one no more. It is for the test's own goroutine.
type Node struct {
	*broker.Broker
	t        TB
	profiles func() []broker.Profile
	limits   broker.Limits
	fs       *disk.FS
	store    *store.Store
	clock    *clock
	log      *log
	clients  []*Client
	barrier  *Client
	names    int // given to copies and clients

	// received are the packet ids of QoS 2 deliveries that were not released
	// yet, by client: each keeps them as long as its session lasts.
	received map[string]map[uint16]bool
}

// New starts a node, which ends with the test. profiles is called for each of
// its lives, and for each copy of it: what a profile remembers must not
// matter.
func New(t TB, profiles func() []broker.Profile) *Node {
	t.Helper()
	return NewWith(t, broker.Limits{}, profiles)
}

// NewWith is New with limits. A short SettleEvery has the log hear of
// acknowledgements soon, for tests that wait for what follows from them.
func NewWith(t TB, limits broker.Limits, profiles func() []broker.Profile) *Node {
	t.Helper()
	return newAt(t, broker.NewestLevel, limits, profiles)
}

// NewAt is New at a feature level below the newest, for tests that raise it later.
func NewAt(t TB, level broker.Level, profiles func() []broker.Profile) *Node {
	t.Helper()
	return newAt(t, level, broker.Limits{}, profiles)
}

func newAt(t TB, level broker.Level, limits broker.Limits, profiles func() []broker.Profile) *Node {
	t.Helper()
	n := &Node{t: t, profiles: profiles, limits: limits, received: map[string]map[uint16]bool{}, fs: disk.Memory(), clock: &clock{at: Begin}, log: &log{}}
	n.start()
	t.Cleanup(func() { n.stop(true) })
	if err := n.Raise(context.Background(), level); err != nil { // as what starts a cluster does
		t.Fatalf("level: %v", err)
	}
	if err := n.SetPolicy(context.Background(), []byte("all")); err != nil {
		t.Fatalf("policy: %v", err)
	}
	return n
}

// open opens a broker of its own on the state in dir.
func (n *Node) open(name, dir string) (*broker.Broker, *store.Store) {
	n.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	s, err := store.Open(store.Options{Dir: dir, FS: n.fs, Newest: uint8(broker.NewestLevel), Logger: logger, Die: func(reason string) { panic(reason) }})
	if err != nil {
		n.t.Fatalf("%v", err)
	}
	b, err := broker.New(broker.Config{
		Node: name, Store: s, Limits: n.limits, Now: n.clock.now, Logger: logger, Profiles: n.profiles(),
		Compile: compile, Patience: time.Minute, // a slow machine makes no outcome unknown
	})
	if err != nil {
		n.t.Fatalf("%v", err)
	}
	return b, s
}

func (n *Node) start() {
	n.t.Helper()
	n.Broker, n.store = n.open("n1", "state")
	n.log.serve(n.Machine(), n.clock.now)
	if err := n.Start(context.Background(), n.log); err != nil {
		n.t.Fatalf("%v", err)
	}
	n.barrier = n.Connect("", ClientID("barrier"))
	n.clients = nil
}

// stop ends the node as a killed process ends: clients are cut off, and the log
// does not hear of it. Without keep the state is lost that is not on the disk
// yet.
func (n *Node) stop(keep bool) {
	n.log.lose()
	n.Broker.Close()
	n.log.stop()
	if keep {
		if err := n.Machine().Flush(); err != nil {
			n.t.Errorf("%v", err)
		}
	}
	if err := n.store.Close(); err != nil {
		n.t.Errorf("%v", err)
	}
	n.clients = nil
}

// Restart kills the node and starts it again on the state it had. All clients
// lose their connections.
func (n *Node) Restart() { n.t.Helper(); n.relive(true) }

// Crash is a Restart after which the state is what reached the disk, and the
// rest is replayed from the log.
func (n *Node) Crash() { n.t.Helper(); n.relive(false) }

func (n *Node) relive(keep bool) {
	n.t.Helper()
	n.stop(keep)
	n.start()
	n.Settle()
}

// Now is what the clock shows.
func (n *Node) Now() time.Time { return n.clock.now() }

// Pass moves the clock and brings about what is due by then.
func (n *Node) Pass(d time.Duration) {
	n.t.Helper()
	n.clock.advance(d)
	n.Settle()
}

// Settle returns when all has come to rest: what is due and what was published
// is applied and sent, and the clients have acknowledged what they got.
func (n *Node) Settle() {
	n.t.Helper()
	for again := true; again; {
		again = false
		for range 2 { // the first may begin what the second waits for
			n.catchUp()
			n.apply()
		}
		for _, c := range n.clients {
			again = c.acknowledge() || again
		}
	}
}

// apply returns when all that was proposed is applied and delivered.
func (n *Node) apply() {
	n.t.Helper()
	if err := n.barrier.TryPublish("$brokertest", ""); err != nil {
		n.t.Fatalf("%v", err)
	}
}

// catchUp has the broker do what is due. What is to be shown to a client that
// takes nothing waits for it, and is not waited for.
func (n *Node) catchUp() {
	n.t.Helper()
	ctx := context.Background()
	if slices.ContainsFunc(n.clients, (*Client).isStalled) {
		short, cancel := context.WithTimeout(ctx, stalledWait)
		defer cancel()
		ctx = short
	}
	if err := n.CatchUp(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		n.t.Fatalf("%v", err)
	}
}

// stalledWait is for how long others are waited for while a client takes
// nothing.
const stalledWait = 20 * time.Millisecond

// CheckReplay fails the test unless a machine that replays the whole log, and
// one that begins with the copy and replays the rest, have the state that the
// node has. The copy may be nil. Nothing may have panicked.
func (n *Node) CheckReplay(middle *Copy) {
	n.t.Helper()
	n.Settle()
	n.log.mu.Lock() // acknowledgements reach the log by and by
	defer n.log.mu.Unlock()
	index, want := n.Machine().Digest()
	if at, got := n.replay(nil); at != index || got != want {
		n.t.Errorf("a machine that replays the log has digest %x at entry %d, want %x at %d", got, at, want, index)
	}
	if middle != nil {
		if at, got := n.replay(middle); at != index || got != want {
			n.t.Errorf("a machine that begins with a copy has digest %x at entry %d, want %x at %d", got, at, want, index)
		}
	}
	if f := n.Machine().Failures(); f != 0 {
		n.t.Errorf("%d commands made the machine panic", f)
	}
}

// A Copy is a snapshot of a node's state.
type Copy struct{ dir string }

// Copy takes a snapshot.
func (n *Node) Copy() *Copy {
	n.t.Helper()
	n.names++
	c := &Copy{dir: fmt.Sprint("copy", n.names)}
	if _, _, err := n.Machine().Checkpoint(c.dir); err != nil {
		n.t.Fatalf("%v", err)
	}
	return c
}

// replay returns the digest of a machine that applies what it has not of the
// log, whose lock is held.
func (n *Node) replay(from *Copy) (index, digest uint64) {
	n.t.Helper()
	n.names++
	b, s := n.open("other", fmt.Sprint("replay", n.names))
	defer func() {
		b.Close()
		if err := s.Close(); err != nil {
			n.t.Errorf("%v", err)
		}
	}()
	if from != nil {
		if err := b.Machine().Restore(from.dir); err != nil {
			n.t.Fatalf("%v", err)
		}
	}
	n.log.replay(b.Machine())
	if f := b.Machine().Failures(); f != 0 {
		n.t.Errorf("%d commands made a machine panic that replays them", f)
	}
	return b.Machine().Digest()
}

// A clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A log is the least that orders batches: an entry for each, kept for whoever
// replays them.
type log struct {
	now     func() time.Time
	batches chan []byte
	done    chan struct{}

	mu   sync.Mutex // guards the following; held while an entry is applied
	kept []entry
	lost bool
}

type entry struct {
	stamp   int64
	batches [][]byte
}

// serve applies to m what it has not of the log, and then what is submitted.
func (l *log) serve(m *broker.Machine, now func() time.Time) {
	l.mu.Lock()
	l.replay(m)
	l.mu.Unlock()
	l.now, l.batches, l.done, l.lost = now, make(chan []byte, 16), make(chan struct{}), false
	go func() {
		defer close(l.done)
		for b := range l.batches {
			l.apply(m, b)
		}
	}()
}

func (l *log) apply(m *broker.Machine, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return
	}
	e := entry{stamp: l.now().UnixNano(), batches: [][]byte{b}}
	l.kept = append(l.kept, e)
	m.Apply(uint64(len(l.kept)), 1, e.stamp, e.batches)
}

func (l *log) replay(m *broker.Machine) {
	for i, e := range l.kept {
		m.Apply(uint64(i+1), 1, e.stamp, e.batches)
	}
}

func (l *log) Submit(b []byte, failed func(error)) {
	l.mu.Lock()
	lost := l.lost
	l.mu.Unlock()
	if lost {
		failed(broker.ErrUnknown)
		return
	}
	l.batches <- slices.Clone(b)
}

func (l *log) Leader() bool { return true }

// lose makes batches vanish from now on.
func (l *log) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
}

func (l *log) stop() { close(l.batches); <-l.done }

// anybody may do anything on topics that are no profile's.
type anybody struct{}

func (anybody) Decide(broker.Who, broker.Action, string, int64) broker.Decision {
	return broker.Decision{Allow: true}
}

func (anybody) Ceiling(broker.Who, broker.Action, string, int64) broker.Decision {
	return broker.Decision{Allow: true}
}

func (anybody) Grant(broker.Who, string, int64) broker.Decision { return broker.Decision{Allow: true} }

func (anybody) Authenticate(string, []byte) (string, error) {
	return "", errors.New("brokertest: clients are connected by Node.Connect")
}

func (anybody) NextEdge(int64) int64 { return 0 }

// users are anybody of whom the policy names some.
type users struct {
	anybody
	names []string // sorted
}

func (u users) Knows(principal string) bool { return slices.Contains(u.names, principal) }

func (u users) Known() []string { return u.names }

// compile makes what a node's policy is: "all" lets everybody do everything, and
// "users" and names behind it names these besides.
func compile(data []byte, _ string) (broker.Authorizer, error) {
	words := strings.Fields(string(data))
	if words[0] != "users" {
		return anybody{}, nil
	}
	return users{names: slices.Sorted(slices.Values(words[1:]))}, nil
}
