package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/disk"
)

// A crew is a cluster of several nodes in this process, over TCP on loopback.
type crew struct {
	t         testing.TB
	nodes     []*mate
	heartbeat time.Duration // 0: the default
	change    func(*Config) // nil: nothing
	level     Level         // that its nodes' programs know; 0: the first, and it is never raised
	cut       cutter        // of what they dial
}

// A mate is one node of a crew, with its machine.
type mate struct {
	c        *crew
	name     string
	fs       *disk.FS
	addr     string
	dir      *Dir
	toy      *toy
	links    *Links
	node     *Node
	lost     chan string
	messages chan string
	peers    chan string

	called      string   // its cluster, if it founds one; empty for no name
	join        []string // whom to ask to be taken in; nil: the first node, which founds
	level, hold Level    // that it knows, and holds; 0 for the first, and none
	reader      bool
	raiser      atomic.Pointer[Node]
	states      atomic.Uint64 // how often it has said how it is

	mu   sync.Mutex
	seen map[string]uint64 // batch to index
}

// newCrew starts size nodes: the first founds the cluster, the others join. It
// returns when all have a vote.
func newCrew(t testing.TB, size int) *crew { return newCrewWith(t, size, 0) }

// steady is the heartbeat of crews whose leader is to stay the same, also on a machine that gives
// it no processor for a second.
const steady = 2 * time.Second

func newCrewWith(t testing.TB, size int, heartbeat time.Duration) *crew {
	return (&crew{t: t, heartbeat: heartbeat}).begin(size)
}

// begin is newCrew for a crew that is set up otherwise.
func (c *crew) begin(size int) *crew {
	t := c.t
	t.Cleanup(c.close)
	for range size {
		c.add()
	}
	waitFor(t, "all have a vote", func() bool {
		l := c.leader()
		return l != nil && l.voters() == size
	})
	return c
}

// add starts one more node, which joins.
func (c *crew) add() *mate {
	m := c.mate()
	m.start()
	return m
}

// mate returns a node that is not started yet.
func (c *crew) mate() *mate {
	m := &mate{c: c, name: fmt.Sprintf("n%d", len(c.nodes)+1), fs: disk.Memory(), seen: map[string]uint64{}, level: c.level}
	m.lost, m.messages, m.peers = make(chan string, 100), make(chan string, 1000), make(chan string, 100)
	c.nodes = append(c.nodes, m)
	return m
}

func (m *mate) voters() (n int) {
	for _, s := range m.node.Members(time.Second) {
		if s.Voter {
			n++
		}
	}
	return n
}

func (c *crew) close() {
	for _, m := range c.nodes {
		m.stop()
	}
}

// leader returns the node that leads, nil if none does.
func (c *crew) leader() *mate {
	for _, m := range c.nodes {
		if m.node != nil && m.node.Leader() {
			return m
		}
	}
	return nil
}

// follower returns a node that follows.
func (c *crew) follower() *mate {
	for _, m := range c.nodes {
		if m.node != nil && !m.node.Leader() {
			return m
		}
	}
	return nil
}

func (m *mate) start() {
	m.c.t.Helper()
	if err := m.open(); err != nil {
		m.c.t.Fatal(err)
	}
	<-m.node.Ready()
}

func (m *mate) open() (err error) {
	claim, join := Claim, m.join
	if m != m.c.nodes[0] && join == nil {
		join = []string{m.c.nodes[0].addr}
	}
	if join != nil {
		claim = ClaimToJoin
	}
	if m.dir, err = claim(m.fs, "/data", m.name, m.knows()); err != nil {
		return err
	}
	if join == nil && m.called != "" {
		if err := m.dir.NameCluster(m.called); err != nil {
			return err
		}
	}
	level := slog.LevelError
	if os.Getenv("CREW_LOG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("at", m.name)
	at := m.addr
	if at == "" {
		// An address of its own: whoever dials does so from 127.0.0.1, and would now and
		// then have the port of a node that is down and to be opened again.
		at = fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
	}
	listener, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	m.addr = listener.Addr().String()
	if m.links, err = Listen(m.dir, LinkConfig{
		Listener: listener, Dial: m.c.cut.dial, Join: join, Reader: m.reader, Logger: logger, Now: time.Now,
	}); err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := m.links.Join(m.c.t.Context()); err != nil {
		return err
	}
	m.toy = openToy(m.c.t, m.fs, m.dir.State(), 0)
	m.toy.heard = m.saw
	cfg := Config{
		Dir: m.dir, Machine: m.toy, Logger: logger, Now: time.Now, Links: m.links,
		Die:       func(reason string) { panic(m.name + " died: " + reason) },
		Heartbeat: m.c.heartbeat, Stable: 100 * time.Millisecond, Gone: 500 * time.Millisecond,
		Lost:     func(node string) { m.lost <- node },
		Receive:  func(node string, message []byte) { m.messages <- node + " " + string(message) },
		PeerUp:   func(node string) { m.peers <- "up " + node },
		PeerDown: func(node string) { m.peers <- "down " + node },
		Hold:     m.hold,
		Facts: func() json.RawMessage {
			m.states.Add(1)
			return json.RawMessage(`"` + m.name + `"`)
		},
		Answer: func(question []byte) ([]byte, error) {
			if string(question) == "no" {
				return nil, errors.New("not here")
			}
			return append([]byte(m.name+" "), question...), nil
		},
	}
	if m.c.level != 0 {
		cfg.Raise = m.raise
	}
	if m.c.change != nil {
		m.c.change(&cfg)
	}
	m.node, err = Open(cfg)
	m.raiser.Store(m.node)
	return err
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

func (m *mate) saw(index uint64, _ int64, batch []byte) {
	m.noteLevel(batch)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[string(batch)] = index
}

func (m *mate) has(batch []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.seen[string(batch)]
	return ok
}

// stop ends a node gracefully; what is stopped stays so.
func (m *mate) stop() {
	if m.node == nil {
		return
	}
	if err := errors.Join(m.node.Close(), m.toy.db.Close(), m.dir.Close()); err != nil {
		m.c.t.Error(err)
	}
	m.node = nil
}

// submit submits a batch until the node has applied it.
func (m *mate) submit(batch []byte) {
	m.c.t.Helper()
	failed := make(chan error, 100)
	m.node.Submit(batch, func(err error) { failed <- err })
	for !m.has(batch) {
		select {
		case err := <-failed:
			if errors.Is(err, ErrTooLarge) {
				m.c.t.Fatal(err)
			}
			m.node.Submit(batch, func(err error) { failed <- err })
		case <-time.After(time.Millisecond):
		}
	}
}

// What any node is given reaches every node, at the same place.
func TestEveryNodeAppliesAll(t *testing.T) {
	c := newCrew(t, 3)
	const each = 200
	var wg sync.WaitGroup
	for i, m := range c.nodes {
		wg.Go(func() {
			for j := range each {
				m.submit(binary.BigEndian.AppendUint64([]byte{byte(i)}, uint64(j)))
			}
		})
	}
	wg.Wait()
	c.wantAlike()
}

// wantAlike waits until all nodes have applied the same, and compares.
func (c *crew) wantAlike() {
	c.t.Helper()
	waitFor(c.t, "all nodes have applied the same", func() bool {
		var first *position
		for _, m := range c.nodes {
			if m.node == nil {
				continue
			}
			p := m.toy.position()
			if first == nil {
				first = &p
			} else if first.index != p.index {
				return false
			}
		}
		return true
	})
	var first *position
	for _, m := range c.nodes {
		if m.node == nil {
			continue
		}
		p := m.toy.position()
		if first == nil {
			first = &p
		} else if first.digest != p.digest {
			c.t.Errorf("at %d the digest of %s differs", p.index, m.name)
		}
	}
}

// Followers learn of a commit at once, and not with the next entry or after
// CommitTimeout, which is a second.
func TestTrap7FollowersLearnCommitsAtOnce(t *testing.T) {
	c := newCrew(t, 3)
	_, f := c.pair()
	var took []time.Duration
	for i := range 20 {
		begin := time.Now()
		f.submit(numbered(i)) // each waits until the follower itself has applied it
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	if took[len(took)/2] > 500*time.Millisecond {
		t.Errorf("batches, one after the other, took %v: followers wait for a timer", took)
	}
}

// When the leader ends, another leads, and nothing is lost; when it is back it
// catches up.
func TestLeaderEnds(t *testing.T) {
	c := newCrew(t, 3)
	old := c.led()
	old.submit([]byte("before"))
	old.stop()
	f := c.follower()
	f.submit([]byte("meanwhile"))
	if !f.has([]byte("before")) {
		t.Error("what was applied before is lost")
	}
	old.start()
	waitFor(t, "the old leader has caught up", func() bool { return old.has([]byte("meanwhile")) })
	c.wantAlike()
}

// A node whose disk was emptied does not come back under its old name: it has
// forgotten its votes.
func TestTrap23EmptiedDiskCannotVote(t *testing.T) {
	c := newCrew(t, 3)
	m := c.follower()
	if m == c.nodes[0] {
		m = c.nodes[1]
	}
	if m == c.leader() {
		if err := m.node.Transfer(t.Context(), "n1"); err != nil {
			t.Fatal(err)
		}
	}
	m.stop()
	m.fs = disk.Memory()
	err := m.open()
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("it joined again: %v", err)
	}
	t.Log(err)
	if err := errors.Join(m.links.Close(), m.dir.Close()); err != nil {
		t.Error(err)
	}
	waitFor(t, "a leader removes it", func() bool {
		l := c.leader()
		return l != nil && l.node.Remove(t.Context(), m.name, false, "a test") == nil
	})
	m.fs = disk.Memory()
	m.seen = map[string]uint64{}
	m.start()
	waitFor(t, "it has a vote", func() bool { l := c.leader(); return l != nil && l.voters() == 3 })
	m.submit([]byte("anew"))
	c.wantAlike()
}

// Messages between the nodes' programs arrive in order; who is there and who is
// gone is told.
func TestRelay(t *testing.T) {
	c := newCrew(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	if got, want := <-a.peers, "up "+b.dir.id.Node; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	for i := range 100 {
		if !a.node.Send(b.dir.id.Node, fmt.Append(nil, i)) {
			t.Fatal("not taken")
		}
	}
	for i := range 100 {
		if got, want := <-b.messages, fmt.Sprint(a.dir.id.Node, " ", i); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if a.node.Send(b.dir.id.Node, make([]byte, relayBytes+1)) {
		t.Error("took more than fits")
	}
	if a.node.Send("nobody", nil) {
		t.Error("took a message for nobody")
	}
}

// The leader tells of a node that is gone, and goes on with the others.
func TestLost(t *testing.T) {
	c := newCrew(t, 3)
	_, m := c.pair()
	id := m.dir.id.Node
	m.stop()
	waitFor(t, "whoever leads tells of it", func() bool {
		// Of others, too, after this process has stood still.
		for _, other := range c.nodes {
			select {
			case got := <-other.lost:
				return got == id
			default:
			}
		}
		return false
	})
	c.led().submit([]byte("without it"))
}

// Programs of nodes tell each other facts with their states, and ask each other.
func TestAsk(t *testing.T) {
	c := newCrew(t, 3)
	n1, n3 := c.nodes[0], c.nodes[2]
	for i, m := range n1.node.Members(time.Second) {
		if got, want := string(m.State.Facts), fmt.Sprintf("%q", c.nodes[i].name); got != want {
			t.Errorf("%s tells %s", m.Name, got)
		}
	}
	if got, err := n1.node.Ask(n3.dir.id.Node, []byte("time"), time.Second); string(got) != "n3 time" || err != nil {
		t.Errorf("answer %q, %v", got, err)
	}
	if _, err := n1.node.Ask(n3.dir.id.Node, []byte("no"), time.Second); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not here") {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := n1.node.Ask(n1.dir.id.Node, nil, time.Second); !errors.Is(err, ErrRefused) {
		t.Errorf("oneself: %v", err)
	}
	n3.stop()
	if _, err := n1.node.Ask(n3.dir.id.Node, nil, 100*time.Millisecond); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("a node that is down: %v", err)
	}
}

// When the leader's process ends without a word, its connections do, and the
// others do not wait until they miss its heartbeats; not either when it still accepts
// connections for a moment, which it resets.
func TestLeaderGone(t *testing.T) {
	const heartbeat = 4 * time.Second
	c := newCrewWith(t, 3, heartbeat)
	stood := watchStandstills(t)
	for round := range 3 {
		old, f := c.pair()
		f.submit(numbered(round))
		begin := time.Now()
		_, before := stood.of()
		if round > 0 {
			c.cut.failing(resets(old.addr, begin.Add(100*time.Millisecond)))
		}
		old.drop()
		f.submit(numbered(100 + round))
		took := time.Since(begin)
		if _, still := stood.of(); took-(still-before) > heartbeat {
			t.Errorf("round %d: resumed after %v", round, took)
		}
		c.cut.failing(nil)
		old.stop()
		old.start()
		waitFor(t, "the old leader has caught up", func() bool { return old.has(numbered(100 + round)) })
	}
	c.wantAlike()
}

// resets is what happens to who dials a process that ends and closes its connections
// before its listener: they are accepted, and reset.
func resets(address string, until time.Time) func(string) error {
	return func(to string) error {
		if to == address && time.Now().Before(until) {
			return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
		}
		return nil
	}
}

// drop cuts a node off as the end of its process would: what listens refuses,
// and connections are reset.
func (m *mate) drop() {
	_ = m.links.cfg.Listener.Close()
	m.node.transport.stop()
	m.links.Close()
}

// A node that lacks more than the others' logs hold is given a snapshot, and what
// follows; so is one that joins then.
func TestFarBehind(t *testing.T) {
	c := &crew{t: t, change: func(cfg *Config) {
		cfg.LogBytes, cfg.Retain, cfg.MemTable = 256<<10, 64<<10, 256<<10
	}}
	c.begin(3)
	f := c.follower()
	f.stop()
	l := c.led()
	big := make([]byte, 16<<10)
	for i := range 150 {
		binary.BigEndian.PutUint64(big, uint64(i))
		l.submit(bytes.Clone(big))
	}
	waitFor(t, "the log has been truncated", func() bool { return l.node.Status().FirstIndex > 30 })
	f.start()
	f.submit([]byte("after it"))
	c.wantAlike()
	if f.has(numbered(100)) {
		t.Error("the log had not been truncated: nothing is shown")
	}
	fresh := c.add()
	fresh.submit([]byte("of a new node"))
	c.wantAlike()
	waitFor(t, "it has a vote", func() bool { l := c.leader(); return l != nil && l.voters() == 4 })
}

// A node that is too far behind catches up although no connection to it lasts for as
// long as its snapshot takes, while the others go on.
func TestFarBehindThroughBreaks(t *testing.T) {
	c := &crew{t: t, change: func(cfg *Config) {
		cfg.LogBytes, cfg.Retain, cfg.MemTable = 4<<20, 64<<10, 256<<10
	}}
	c.begin(3)
	f := c.follower()
	f.stop()
	l := c.led()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		big := make([]byte, 16<<10)
		for i := range big {
			big[i] = byte(rng.Uint32())
		}
		l.submit(big)
	}
	waitFor(t, "the log has been truncated", func() bool { return l.node.Status().FirstIndex > 30 })
	c.cut.set(func() int { return 400<<10 + rng.IntN(800<<10) })
	f.start()
	for i := range 30 {
		l.submit(numbered(i))
	}
	f.submit([]byte("after it"))
	c.wantAlike()
	if n := f.node.transport.goneOn.Load(); n < 2 {
		t.Errorf("it went on %d times: nothing is shown", n)
	}
}

// Two nodes that are members, and do not know where the other is, learn it of the third
// though all connections stay as they are.
func TestMembersFindEachOther(t *testing.T) {
	c := newCrew(t, 3)
	var two []*mate
	for l, i := c.led(), 0; i < len(c.nodes); i++ {
		if m := c.nodes[i]; m != l {
			two = append(two, m)
		}
	}
	lacks := func(a, b *mate) bool {
		_, known := a.links.book.Find(string(b.node.id))
		return !known
	}
	for i, m := range two {
		other := string(two[1-i].node.id)
		m.links.book.Keep(func(id string) bool { return id != other })
	}
	waitFor(t, "they know each other", func() bool { return !lacks(two[0], two[1]) && !lacks(two[1], two[0]) })
}

// A node that has moved is found by the others, also one that all have moved from.
func TestMovedNode(t *testing.T) {
	c := newCrew(t, 3)
	c.nodes[2].submit([]byte("before"))
	m := c.nodes[2]
	m.stop()
	m.addr = "" // a free port
	m.start()
	m.submit([]byte("moved"))
	for _, n := range c.nodes {
		n.stop()
	}
	for _, n := range c.nodes[1:] { // n1, by whose address they had joined, is not there
		if err := n.open(); err != nil {
			t.Fatal(err)
		}
	}
	m.submit([]byte("after all were off"))
	c.wantAlike()
}

// Trap 31: heartbeats go through Raft's main loop, for beside it they can set the
// term back. A leader all of whose followers wait for their disks, for much longer
// than its lease, stays leader all the same.
func TestTrap31SlowFollowersAreThere(t *testing.T) {
	c := newCrew(t, 3)
	l := c.led()
	l.submit([]byte("before"))
	stood, term := watchStandstills(t), l.node.Status().Term
	slow := make(chan struct{})
	for _, m := range c.nodes {
		if m != l {
			m.fs.Intercept(func(op disk.Op, _ string) error {
				if op == disk.OpSync {
					<-slow
				}
				return nil
			})
		}
	}
	heard := func(m *mate) time.Time { return l.node.transport.contact(m.node.id).at }
	l.node.Submit([]byte("slow"), func(err error) { t.Errorf("not ordered: %v", err) })
	for _, m := range c.nodes {
		if m == l {
			continue
		}
		waitFor(t, m.name+" waits for its disk", func() bool { return m.node.transport.writing.n.Load()%2 == 1 })
		since := time.Now().Add(3 * l.node.cfg.Heartbeat)
		waitFor(t, m.name+" is still heard", func() bool { return heard(m).After(since) })
	}
	close(slow)
	waitFor(t, "it is applied", func() bool { return l.has([]byte("slow")) })
	if longest, _ := stood.of(); longest > l.node.cfg.Heartbeat/3 {
		t.Logf("this process stood still for %v: who leads then may be another", longest)
	} else if !l.node.Leader() || l.node.Status().Term != term {
		t.Errorf("%s was leader of term %d; now %+v", l.name, term, l.node.Status())
	}
	for _, m := range c.nodes {
		m.fs.Intercept(nil)
	}
	c.wantAlike()
}

// Traps 21 and 22: a change of the membership is one at a time, and may make the
// quorum larger than the nodes that are up. What would leave too few is refused,
// unless forced, and says so.
func TestTrap21And22RemovalKeepsTheQuorum(t *testing.T) {
	c := newCrewWith(t, 3, steady)
	dead := c.follower()
	dead.stop()
	l := c.led()
	other := c.follower()
	waitFor(t, "the leader has missed it", func() bool { return !l.node.recently(raft.ServerID(dead.dir.id.Node)) })
	err := l.node.Remove(t.Context(), other.name, false, "a test")
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "lose quorum (1 of 2 voters up)") {
		t.Fatalf("of three, one of them dead, another was taken out: %v", err)
	}
	if err := l.node.Remove(t.Context(), "nobody", false, "a test"); !errors.Is(err, ErrRefused) {
		t.Errorf("somebody who is no member: %v", err)
	}
	// The dead one may go: the two that are up are then all.
	if err := other.node.Remove(t.Context(), dead.name, false, "a test"); err != nil {
		t.Fatal(err)
	}
	other.submit([]byte("two are left"))
	c.wantAlike()
	// And it learns that when it comes back.
	if err := dead.open(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is told", func() bool {
		_, err := dead.links.dial(string(l.node.id), planeForward)
		r, ok := errors.AsType[*link.RefusedError](err)
		return ok && r.Code == link.RefusedMember
	})
}

// Traps 26 and 27: leadership is handed over at a shutdown and on demand, while
// batches keep coming. Raft refuses entries meanwhile; they are not lost, and each
// node's come in order.
func TestTrap26And27HandOverUnderLoad(t *testing.T) {
	c := newCrew(t, 3)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	counts := make([]int, 3)
	for i, m := range c.nodes {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				m.submit(binary.BigEndian.AppendUint64([]byte{byte(i)}, uint64(counts[i])))
				counts[i]++
			}
		})
	}
	for round := range 6 {
		to := c.nodes[round%3]
		waitFor(t, "a hand-over", func() bool { return c.nodes[(round+1)%3].node.Transfer(t.Context(), to.name) == nil })
		waitFor(t, to.name+" leads", func() bool { return to.node.Leader() })
	}
	close(stop)
	wg.Wait()
	c.wantAlike()
	for i, m := range c.nodes {
		last := uint64(0)
		for j := range counts[i] {
			index, ok := m.seen[string(binary.BigEndian.AppendUint64([]byte{byte(i)}, uint64(j)))]
			if !ok || index < last {
				t.Fatalf("%s, batch %d of %d: applied %v at %d, after %d", m.name, j, counts[i], ok, index, last)
			}
			last = index
		}
	}
}

// A leader that is to be taken out hands over first; whoever is asked.
func TestLeaderIsRemoved(t *testing.T) {
	c := newCrew(t, 3)
	l, f := c.pair()
	if err := l.node.Remove(t.Context(), l.name, false, "a test"); err != nil {
		t.Fatal(err)
	}
	f.submit([]byte("without it"))
	if n := len(f.node.Members(time.Second)); n != 2 {
		t.Errorf("%d members are left", n)
	}
}

// A member that is started as if it were alone says so, rather than wait for a
// leader for ever.
func TestMemberStartedAlone(t *testing.T) {
	c := newCrew(t, 2)
	m := c.nodes[1]
	m.stop()
	dir, err := Claim(m.fs, "/data", m.name, m.knows())
	if err != nil {
		t.Fatal(err)
	}
	toy := openToy(t, m.fs, dir.State(), 0)
	_, err = Open(Config{Dir: dir, Machine: toy, Logger: slog.New(slog.DiscardHandler), Now: time.Now, Die: func(reason string) { panic(reason) }})
	if !errors.Is(err, ErrOthers) || !strings.Contains(err.Error(), "--cluster") {
		t.Errorf("it was started: %v", err)
	}
	toy.close(t)
	if err := dir.Close(); err != nil {
		t.Error(err)
	}
}

// A question that is not answered does not end the connection of batches that are
// on their way.
func TestUnansweredQuestionHarmsNoBatch(t *testing.T) {
	c := newCrew(t, 2)
	l, f := c.pair()
	gate := make(chan struct{})
	l.toy.mu.Lock()
	l.toy.block = gate
	l.toy.mu.Unlock()
	f.node.Submit([]byte("on its way"), func(err error) {
		if !f.has([]byte("on its way")) { // else the test is over, before the leader's answer has come
			t.Errorf("given up: %v", err)
		}
	})
	waitFor(t, "the leader has it", func() bool { return f.node.Stats().Waiting == 0 && l.node.Stats().Batches > 0 })
	f.node.transport.caller(l.node.id, planeAsk).connect(time.Second, nil)
	f.node.transport.caller(l.node.id, planeAsk).drop(errTimeout)
	close(gate)
	waitFor(t, "it is applied", func() bool { return f.has([]byte("on its way")) })
}

// A node that was taken in by a leader that then ended, before anything of the log
// had reached it, is known to nobody else but by that log: it makes itself known.
func TestJoinedBeforeTheLeaderEnded(t *testing.T) {
	c := &crew{t: t}
	c.change = func(cfg *Config) {
		if cfg.Dir.id.Name == "n4" {
			c.led().drop()
		}
	}
	c.begin(3)
	old := c.led()
	c.add().submit([]byte("of the new node"))
	old.stop()
	c.wantAlike()
}
