package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// Nodes that are given batches on all sides, while nodes are killed, networks cut
// and disks slow, by a seed. Whatever happens: what was acknowledged is kept, in
// order, by all, at one place; and when the faults are over, all goes on by itself.
// Nodes that are started anew may have a newer program: the feature level rises in the
// middle of it, no further than all programs know.
//
// With WORLD_LOG=1 the nodes log, and WORLD_STACKS names a file for what all goroutines
// do when something does not come about. Seeds that once failed are in testdata/seeds,
// and run first. A seed chooses the faults, not which goroutine runs first: it may have
// to be run several times.
func TestSimulation(t *testing.T) {
	for _, seed := range kept(t) {
		t.Run(fmt.Sprint("kept=", seed), func(t *testing.T) { simulate(t, seed) })
	}
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		simulate(t, seed)
		if t.Failed() {
			t.Logf("seed %d fails: add it to testdata/seeds with what was wrong", seed)
		}
	})
}

// kept returns the seeds that once failed.
func kept(t *testing.T) (all []uint64) {
	text, err := os.ReadFile(filepath.Join("testdata", "seeds"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		seed, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, seed)
	}
	return all[:effort.RoundsOfOne(min(1, len(all)), len(all), len(all))]
}

func simulate(t *testing.T, seed uint64) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, []int{3, 3, 3, 5}[seed%4])
		defer w.close()
		stop := make(chan struct{})
		defer close(stop)
		go w.watch(stop)
		if !w.found() {
			w.tell()
			return
		}
		go w.load(stop)
		s := &storm{world: w, disks: rand.New(rand.NewPCG(seed, 47))}
		s.rage(30 * time.Second)
		healed := s.settle()
		if faults := w.ledger.Faults(); len(faults) > 0 {
			t.Errorf("seed %d:\n%s", seed, strings.Join(faults, "\n"))
		}
		if t.Failed() {
			w.tell()
			return
		}
		stats := w.net.Stats()
		t.Logf("seed %d: %d nodes, %d batches acknowledged, %d faults made; goes on %v after the last; %d connections, %d expired, %d reset; %d slow syncs; feature level raised %d times",
			seed, len(w.nodes), w.ledger.Told(), w.noted(), healed, stats.Dialed, stats.Expired, stats.Reset, s.syncs.Load(), w.raised.Load())
		if w.ledger.Told() < 100 {
			t.Errorf("seed %d: only %d batches acknowledged: it shows nothing", seed, w.ledger.Told())
		}
	})
}

// load gives batches to all nodes that run, some of them large.
func (w *world) load(stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		l := w.nodes[i%len(w.nodes)].running()
		if l == nil || l.source.Pending() >= 8 {
			continue
		}
		size := 20
		if i%17 == 0 {
			size = 5000
		}
		l.source.Add(fmt.Appendf(make([]byte, 0, size), "%d", i)[:size:size])
	}
}

// A storm makes faults in a world.
type storm struct {
	*world
	disks *rand.Rand   // of its own: what else a seed draws does not depend on it
	syncs atomic.Int64 // that took long
}

// rage makes faults for some time.
func (s *storm) rage(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && !s.t.Failed(); {
		<-time.After(time.Duration(50+s.rng.IntN(1500)) * time.Millisecond)
		s.fault()
		if s.disks.IntN(3) == 0 {
			s.slowDisk(s.nodes[s.disks.IntN(len(s.nodes))])
		}
	}
}

// slowDisk has each sync of a node's disk take long, for a while: what the node has
// to have on the disk before it may say so, entries, terms, votes and its machine's
// state, waits for that. Pebble's tables and directories are spared: it syncs some of
// them with its mutex held, and time stands still in a bubble while somebody waits at
// a mutex. A node that is started anew has a good disk.
func (s *storm) slowDisk(m *mate) {
	each := 2 * time.Millisecond << s.disks.IntN(10) // to a second
	d := time.Duration(500+s.disks.IntN(5000)) * time.Millisecond
	s.note("each sync of %s takes %v, for %v", m.name, each, d)
	fs := m.fs
	fs.Intercept(func(op disk.Op, name string) error {
		if op == disk.OpSync && (strings.HasSuffix(name, ".log") || strings.Contains(name, "/state/")) {
			s.syncs.Add(1)
			<-time.After(each)
		}
		return nil
	})
	time.AfterFunc(d, func() { fs.Intercept(nil) })
}

func (s *storm) any() *mate { return s.nodes[s.rng.IntN(len(s.nodes))] }

// fault makes one fault.
func (s *storm) fault() {
	m, other := s.any(), s.any()
	switch s.rng.IntN(20) {
	case 0, 1, 2:
		kept := []int{0, 50, 100}[s.rng.IntN(3)]
		silently := s.rng.IntN(3) == 0
		s.note("kill %s, silently %v, %d%% of what was not synced is kept", m.name, silently, kept)
		m.kill(silently, kept)
	case 3:
		if l := s.leader(); l != nil {
			s.note("kill the leader, %s", l.mate.name)
			l.mate.kill(false, 0)
		}
	case 4:
		s.note("kill all")
		for _, m := range s.nodes {
			m.kill(s.rng.IntN(2) == 0, 0)
		}
	case 5, 6, 7, 8:
		s.raise()
	case 9, 10:
		s.note("isolate %s", m.name)
		s.net.Isolate(m.name)
	case 11:
		s.note("cut %s to %s", m.name, other.name)
		s.net.Cut(m.name, other.name)
	case 12:
		s.flap(m)
	case 13, 14:
		s.note("heal")
		s.net.Heal()
	case 15:
		s.note("reset %s and %s", m.name, other.name)
		s.net.Reset(m.name, other.name)
	case 16:
		c := Conditions{Delay: time.Duration(s.rng.IntN(30)) * time.Millisecond, Jitter: time.Duration(1+s.rng.IntN(30)) * time.Millisecond, Rate: 1 << (16 + s.rng.IntN(8))}
		s.note("%s to %s: %+v", m.name, other.name, c)
		s.net.Shape(m.name, other.name, c)
	case 17:
		s.transfer(m)
	case 18:
		s.leap(m)
	case 19:
		s.wipe(m)
	}
}

// raise starts a node that is down, if there is one.
func (s *storm) raise() {
	for _, i := range s.rng.Perm(len(s.nodes)) {
		if m := s.nodes[i]; m.living() == nil {
			m.skew = time.Duration(s.rng.IntN(7200)-3600) * time.Second
			if s.levels.IntN(3) == 0 {
				m.knows = min(newestLevel, m.knows+1)
			}
			s.note("start %s, its clock %v wrong, its program knows feature level %d", m.name, m.skew, m.knows)
			s.net.PowerOn(m.name)
			m.start()
			return
		}
	}
}

func (s *storm) flap(m *mate) {
	s.note("%s flaps", m.name)
	for range 2 + s.rng.IntN(5) {
		s.net.Isolate(m.name)
		<-time.After(time.Duration(100+s.rng.IntN(700)) * time.Millisecond)
		s.net.Heal()
		<-time.After(time.Duration(s.rng.IntN(500)) * time.Millisecond)
	}
}

func (s *storm) transfer(m *mate) {
	l := s.leader()
	if l == nil {
		return
	}
	s.note("%s is to lead in place of %s", m.name, l.mate.name)
	go func() { _ = l.node.Transfer(l.ended, m.name) }() // it may well fail
}

// leap sets a node's clock forward.
func (s *storm) leap(m *mate) {
	d := time.Duration(s.rng.IntN(100)) * time.Second
	s.note("the clock of %s leaps by %v", m.name, d)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life != nil {
		m.life.leap += d
	}
}

// wipe empties the disk of a follower, in a cluster that is whole: with two disks
// lost at once, what they alone had would be gone. The node is removed, and joins
// anew.
func (s *storm) wipe(m *mate) {
	s.note("all faults end, to wipe %s", m.name)
	s.calm()
	if !s.eventually(60*time.Second, "whole before a disk is wiped", s.even) {
		return
	}
	if l := s.leader(); l == nil || l.mate == m {
		return
	}
	how := s.disks.IntN(3) // what it is like while it is removed
	s.note("wipe %s, which is %s when it is removed", m.name, []string{"down", "up", "cut off"}[how])
	l := m.living()
	old := l.dir.Identity().Node
	switch l.expelled = true; how {
	case 0:
		m.kill(false, 0)
	case 2:
		s.net.Isolate(m.name)
	}
	err := errors.New("nobody leads")
	if !s.eventually(30*time.Second, "the wiped node is removed", func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		// It may have been done although nobody could say so: then it is no
		// member the next time.
		if err = l.node.Remove(l.ended, old, false, "the storm"); err != nil && !l.node.Member(old) {
			s.note("%s has been removed: %v", m.name, err)
			err = nil
		}
		return err == nil
	}) {
		s.note("it is not removed: %v", err)
		return
	}
	if how > 0 {
		if how == 2 {
			<-time.After(time.Duration(s.disks.IntN(30)) * time.Second) // sooner or later than the leader gives it up
			s.net.Heal()
		}
		s.eventually(30*time.Second, "the removed node is told", l.isRemoved)
		s.note("it is told: %+v", l.node.Removal())
		m.kill(false, 0)
	}
	m.fs, m.founder = disk.Crashable(), false
	for _, other := range s.nodes { // without it the level may have risen, past what its program knew
		if l := other.running(); l != nil {
			m.knows = max(m.knows, l.knows)
		}
	}
	m.start()
	s.eventually(60*time.Second, "the wiped node is back", s.even)
}

// settle ends all faults, and wants that everything goes on. It returns how long
// it took until something was acknowledged again.
func (s *storm) settle() time.Duration {
	s.note("all faults end")
	s.calm()
	start, told := time.Now(), s.ledger.Told()
	if !s.eventually(20*time.Second, "something is acknowledged again", func() bool { return s.ledger.Told() > told }) {
		return 0
	}
	again := time.Since(start)
	if !s.eventually(60*time.Second, "all are there, and at one index", s.even) {
		return again
	}
	s.upgrade()
	s.end()
	return again
}

// upgrade exchanges each program that is not the newest, one after the other. Then
// all that the newest knows is to come into force by itself.
func (s *storm) upgrade() {
	for _, m := range s.nodes {
		if m.knows == newestLevel {
			continue
		}
		s.note("upgrade %s", m.name)
		m.kill(false, 100)
		m.knows = newestLevel
		s.net.PowerOn(m.name)
		m.start()
		if !s.eventually(60*time.Second, m.name+" is back with the newest program", s.even) {
			return
		}
	}
	s.eventually(20*time.Second, "the newest feature level is in force on all nodes", func() bool {
		for _, m := range s.nodes {
			if l := m.running(); l == nil || l.machine.Level() != newestLevel || l.dir.Level() != newestLevel {
				return false
			}
		}
		return true
	})
}

// calm ends all faults.
func (s *storm) calm() {
	s.net.Heal()
	s.net.ShapeAll(calm)
	for _, m := range s.nodes {
		m.fs.Intercept(nil)
		s.net.PowerOn(m.name)
		if m.living() == nil {
			m.start()
		}
	}
}

// even says whether all nodes run, have votes, and lag by no more than what is on
// its way.
func (s *storm) even() bool {
	if !s.whole() {
		return false
	}
	var least, most uint64
	for i, m := range s.nodes {
		l := m.running()
		if l == nil {
			return false
		}
		at, _ := l.machine.State()
		if least = min(least, at); i == 0 {
			least = at
		}
		most = max(most, at)
	}
	return most-least < 20
}

// end stops the load and compares all histories.
func (s *storm) end() {
	for _, m := range s.nodes {
		l := m.running()
		if !s.eventually(20*time.Second, m.name+" has all its batches acknowledged", func() bool { return l.source.Pending() < 8 }) {
			return
		}
		l.source.Stop()
	}
	machines := map[string]*Machine{}
	for _, m := range s.nodes {
		machines[m.name] = m.running().machine
	}
	s.eventually(20*time.Second, "all nodes are at one index", func() bool {
		first, _ := machines["n1"].State()
		for _, m := range machines {
			if at, _ := m.State(); at != first {
				return false
			}
		}
		return true
	})
	<-time.After(2 * time.Second)
	s.ledger.Settle(machines)
}
