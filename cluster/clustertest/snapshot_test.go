package clustertest

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// A node that lacks more than the logs of the others hold catches up by a snapshot,
// although each connection breaks at a random place long before a snapshot is
// through, and although nodes are killed, cut off and made to lead meanwhile. What
// was acknowledged is kept by all, at one place.
func TestSnapshotsGoOn(t *testing.T) {
	resumed, seeds := uint64(0), uint64(0)
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 3)
			w.memory = 1 << 20 // what follows a snapshot on its way is kept up to there
			defer w.close()
			s := &storm{world: w}
			resumed += s.farBehind()
			if faults := w.ledger.Faults(); len(faults) > 0 {
				t.Errorf("seed %d: %q", seed, faults)
			}
			if t.Failed() {
				w.tell()
			}
		})
		seeds++
	})
	if resumed < 5*seeds && !t.Failed() {
		t.Errorf("snapshots went on %d times with %d seeds: nothing is shown", resumed, seeds)
	}
	t.Logf("snapshots went on %d times", resumed)
}

// farBehind is one history. It returns how often a snapshot went on.
func (s *storm) farBehind() (resumed uint64) {
	stop := make(chan struct{})
	defer close(stop)
	if !s.found() {
		return 0
	}
	go s.load(stop)
	<-time.After(10 * time.Second) // some hundred KiB of history
	for range 4 {
		m := s.any()
		s.note("%s is down for a while", m.name)
		m.kill(false, 100)
		<-time.After(5 * time.Second)
		s.note("connections fray, and %s comes back", m.name)
		s.net.Fray(60 << 10)
		s.net.PowerOn(m.name)
		m.start()
		for range s.rng.IntN(4) {
			<-time.After(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
			s.disturb(m)
		}
		if !s.eventually(90*time.Second, "all are there, though connections fray", s.even) {
			return resumed
		}
		for _, other := range s.nodes {
			resumed += other.running().node.Stats().Resumed
		}
		s.net.Fray(0)
	}
	s.settle()
	return resumed
}

// disturb makes one fault while m catches up.
func (s *storm) disturb(m *mate) {
	switch s.rng.IntN(5) {
	case 0:
		s.note("kill %s, which catches up", m.name)
		m.kill(false, 50)
		<-time.After(200 * time.Millisecond)
		s.net.PowerOn(m.name)
		m.start()
	case 1:
		if l := s.leader(); l != nil {
			s.note("%s leads no more", l.mate.name)
			go func() { _ = l.node.Transfer(l.ended, "") }() // it may well fail
		}
	case 2:
		s.note("cut off %s for a second", m.name)
		s.net.Isolate(m.name)
		<-time.After(time.Second)
		s.net.Heal()
	case 3:
		s.note("slow ways to %s", m.name)
		for _, other := range s.nodes {
			s.net.Shape(other.name, m.name, Conditions{Delay: 2 * time.Millisecond, Rate: 4 << 20})
		}
	case 4:
		if l := s.leader(); l != nil {
			s.note("kill the leader, %s", l.mate.name)
			l.mate.kill(false, 50)
			<-time.After(500 * time.Millisecond)
			s.net.PowerOn(l.mate.name)
			l.mate.start()
		}
	}
}
