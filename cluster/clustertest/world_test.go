package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
)

// A world is a cluster in a bubble: nodes on a network, each with a disk that
// remembers what was synced, a machine and a source.
type world struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand // of the one goroutine that makes the faults
	net     *Network
	ledger  *Ledger
	nodes   []*mate
	began   time.Time
	memory  uint64       // Config.LogBytes
	levels  *rand.Rand   // of its own, as storm.disks: which program who runs
	raised  atomic.Int64 // times that a leader raised the feature level
	reaping sync.WaitGroup

	mu    sync.Mutex
	trace []string // what was done, and when
}

// A mate is a node of a world, over all its lives.
type mate struct {
	w       *world
	name    string
	fs      *disk.FS
	founder bool // its directory was made by who founded the cluster
	lives   uint64
	skew    time.Duration // of its wall clock, in this life
	knows   cluster.Level // of its program, in this life; it only rises

	mu   sync.Mutex
	life *life // nil while it is down
}

// A life is one process of a mate.
type life struct {
	mate    *mate
	knows   cluster.Level // its program
	witness *Witness
	source  *Source
	ended   context.Context // when it is killed
	end     context.CancelFunc
	leap    time.Duration // of its clock; guarded by mate.mu

	expelled bool // it was taken out; of the goroutine that makes the faults

	// Set by open, before opened is closed.
	dir     *cluster.Dir
	machine *Machine
	links   *cluster.Links
	node    *cluster.Node
	err     error // why it could not be opened
	opened  chan struct{}
}

// newestLevel is what the newest program knows.
const newestLevel cluster.Level = 4

// calm is a good network.
var calm = Conditions{Delay: 200 * time.Microsecond, Jitter: 300 * time.Microsecond}

func newWorld(t *testing.T, seed uint64, size int) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 31)), ledger: NewLedger(), began: time.Now(), levels: rand.New(rand.NewPCG(seed, 59)),
		net: NewNetwork(NetworkConfig{Seed: seed, Now: time.Now, Timeout: 5 * time.Second, Window: 1 << 30}),
	}
	w.memory = []uint64{64 << 10, 256 << 10, 1 << 30}[w.rng.IntN(3)]
	w.net.ShapeAll(calm)
	knows := firstLevel + cluster.Level(w.levels.IntN(int(newestLevel)))
	for i := range size {
		w.nodes = append(w.nodes, &mate{w: w, name: fmt.Sprintf("n%d", i+1), fs: disk.Crashable(), founder: i == 0, knows: knows})
	}
	return w
}

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf("%8.3f  ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// noted returns how many lines the trace has.
func (w *world) noted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.trace)
}

// tell prints the trace and how the nodes are.
func (w *world) tell() {
	w.mu.Lock()
	trace := strings.Join(w.trace, "\n")
	w.mu.Unlock()
	w.t.Logf("seed %d:\n%s\n%s", w.seed, trace, w.status())
}

func (w *world) status() string {
	var b strings.Builder
	for _, m := range w.nodes {
		l := m.living()
		if l == nil {
			fmt.Fprintf(&b, "%s is down\n", m.name)
			continue
		}
		if l.node == nil {
			fmt.Fprintf(&b, "%s is opening: %v\n", m.name, l.err)
			continue
		}
		s := l.node.Status()
		fmt.Fprintf(&b, "%s (%s) %s term %d, log %d-%d, committed %d, applied %d, durable %d, %d batches pending, %d failures\n",
			m.name, s.Identity.Node[:8], s.Role, s.Term, s.FirstIndex, s.LastIndex, s.Committed, s.Applied, s.Durable, l.source.Pending(), l.source.Failed())
	}
	return b.String()
}

// living returns the present life, nil while the node is down.
func (m *mate) living() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// running returns the present life if it has come as far as to have a node.
func (m *mate) running() *life {
	l := m.living()
	if l == nil {
		return nil
	}
	select {
	case <-l.opened:
	default:
		return nil
	}
	if l.err != nil {
		return nil
	}
	return l
}

// start begins a life. It does not wait until the node is open.
func (m *mate) start() *life {
	m.lives++
	l := &life{mate: m, knows: m.knows, source: NewSource(m.w.ledger, m.name, m.lives), opened: make(chan struct{})}
	l.witness = m.w.ledger.Witness(m.name, l.source)
	l.ended, l.end = context.WithCancel(context.Background())
	m.mu.Lock()
	m.life = l
	m.mu.Unlock()
	m.w.reaping.Go(func() {
		defer close(l.opened)
		if l.err = l.open(m.fs); l.err != nil && l.ended.Err() == nil {
			m.w.t.Errorf("seed %d: %s does not start: %v", m.w.seed, m.name, l.err)
		}
	})
	return l
}

func (l *life) open(fs *disk.FS) (err error) {
	m, w := l.mate, l.mate.w
	claim := cluster.ClaimToJoin
	if m.founder {
		claim = cluster.Claim
	}
	if l.dir, err = claim(fs, "data", m.name, l.knows); err != nil {
		return err
	}
	listener, err := w.net.Listen(m.name)
	if err != nil {
		return err
	}
	level := slog.LevelError + 1
	if os.Getenv("WORLD_LOG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("at", fmt.Sprint(m.name, ".", m.lives))
	var others []string
	for _, other := range w.nodes {
		if other != m {
			others = append(others, other.name+":1")
		}
	}
	if l.links, err = cluster.Listen(l.dir, cluster.LinkConfig{
		Listener: listener, Dial: w.net.Dialer(m.name), Join: others, Logger: logger, Now: time.Now,
	}); err != nil {
		return err
	}
	if err := l.links.Join(l.ended); err != nil {
		return err
	}
	die := func(reason string) { panic(fmt.Sprintf("seed %d: %s died: %s", w.seed, m.name, reason)) }
	raised := func(to cluster.Level) {
		if err := l.dir.Raise(to); err != nil && l.ended.Err() == nil {
			w.t.Errorf("seed %d: %s notes feature level %d: %v", w.seed, m.name, to, err)
		}
	}
	if l.machine, err = OpenMachine(fs, l.dir.State(), 40, Program{l.knows, raised}, die, l.witness); err != nil {
		return err
	}
	node, err := cluster.Open(cluster.Config{
		Dir: l.dir, Machine: l.machine, Logger: logger, Links: l.links, Die: die, Now: l.now, Raise: l.raise,
		LogBytes: w.memory, Retain: 32 << 10, MemTable: 256 << 10,
		Stall: time.Hour, Stable: 500 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	l.node = node
	l.source.Start(node)
	return nil
}

// raise has the log raise the feature level, and waits until it has.
func (l *life) raise(to cluster.Level) error {
	l.source.Add(append([]byte(raiseTo), byte(to)))
	for l.machine.Level() < to {
		select {
		case <-l.ended.Done():
			return l.ended.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	l.mate.w.note("%s has raised the feature level to %d", l.mate.name, to)
	l.mate.w.raised.Add(1)
	return nil
}

// now is the node's clock: it is wrong by as much as its life's skew, and may be
// set forward, as by a pause of the whole machine.
func (l *life) now() time.Time {
	l.mate.mu.Lock()
	defer l.mate.mu.Unlock()
	return time.Now().Add(l.mate.skew + l.leap)
}

// kill ends the present life as a power cut does, of which kept percent of what
// was not synced survives: first nobody hears of it any more, then what it has
// promised is what was told so far, and last its disk is looked at. What remains
// of the process in this one is cleaned up beside.
func (m *mate) kill(silently bool, kept int) {
	l := m.living()
	if l == nil {
		return
	}
	if silently {
		m.w.net.PowerOff(m.name)
	} else {
		m.w.net.Kill(m.name)
	}
	l.witness.Retire()
	l.source.Stop()
	l.wantMember()
	m.fs = m.fs.Crash(kept, m.w.rng)
	m.mu.Lock()
	m.life = nil
	m.mu.Unlock()
	l.end()
	m.w.reaping.Go(func() { l.reap() })
}

// isRemoved says whether a life knows that its node was removed.
func (l *life) isRemoved() bool {
	select {
	case <-l.node.Removed():
		return true
	default:
		return false
	}
}

// wantMember fails the world if a node takes itself for removed that nobody removed.
func (l *life) wantMember() {
	select {
	case <-l.opened:
	default:
		return
	}
	if l.node != nil && l.isRemoved() && !l.expelled {
		l.mate.w.t.Errorf("seed %d: %s takes itself for removed: %+v", l.mate.w.seed, l.mate.name, l.node.Removal())
	}
}

// reap closes what a life has opened.
func (l *life) reap() {
	<-l.opened
	var err error
	switch {
	case l.node != nil:
		err = l.node.Close()
	case l.links != nil:
		err = l.links.Close()
	}
	if l.dir != nil {
		err = errors.Join(err, l.dir.Close())
	}
	if err != nil && !errors.Is(err, net.ErrClosed) { // the network has closed a dead process's listener
		l.mate.w.t.Errorf("seed %d: %s: close: %v", l.mate.w.seed, l.mate.name, err)
	}
}

// close ends the world.
func (w *world) close() {
	for _, m := range w.nodes {
		if l := m.living(); l != nil {
			l.witness.Retire()
			l.source.Stop()
			l.wantMember()
			l.end()
			w.reaping.Go(func() { l.reap() })
		}
	}
	w.net.Heal()
	w.reaping.Wait()
	w.net.Close()
}

// leader returns the life that leads, nil if none does.
func (w *world) leader() *life {
	for _, m := range w.nodes {
		if l := m.running(); l != nil && l.node.Leader() {
			return l
		}
	}
	return nil
}

// eventually waits until something holds; a world in which it does not within the
// time has failed.
func (w *world) eventually(within time.Duration, what string, holds func() bool) bool {
	for start := time.Now(); time.Since(start) < within; <-time.After(5 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	w.t.Errorf("seed %d: not within %v: %s", w.seed, within, what)
	if path := os.Getenv("WORLD_STACKS"); path != "" {
		stacks := make([]byte, 16<<20)
		_ = os.WriteFile(path, stacks[:runtime.Stack(stacks, true)], 0o600)
	}
	return false
}

// found starts all nodes and waits until all have a vote.
func (w *world) found() bool {
	w.nodes[0].start()
	if !w.eventually(10*time.Second, "the first leads", func() bool { return w.leader() != nil }) {
		return false
	}
	for _, m := range w.nodes[1:] {
		m.start()
	}
	return w.eventually(30*time.Second, "all have a vote", w.whole)
}

// whole says whether all nodes are running, and have a vote.
func (w *world) whole() bool {
	l := w.leader()
	if l == nil {
		return false
	}
	voters := 0
	for _, m := range l.node.Members(time.Second) {
		if m.Voter && m.Reachable {
			voters++
		}
	}
	return voters == len(w.nodes)
}

// watch tells the ledger who leads, until stop is closed.
func (w *world) watch(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(7 * time.Millisecond):
		}
		for _, m := range w.nodes {
			l := m.running()
			if l == nil {
				continue
			}
			before := l.node.Status()
			if after := l.node.Status(); before.Role == "leader" && after.Role == "leader" && before.Term == after.Term {
				w.ledger.Leads(m.name, after.Term)
			}
		}
	}
}
