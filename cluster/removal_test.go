package cluster

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/disk"
)

// told waits until m knows that it was removed, and returns how it does.
func (m *mate) told() Removal {
	m.c.t.Helper()
	select {
	case <-m.node.Removed():
		return m.node.Removal()
	case <-time.After(30 * time.Second):
		m.c.t.Fatalf("%s is not told that it was removed", m.name)
		return Removal{}
	}
}

// wantMembers fails the test if one of these takes itself for removed.
func wantMembers(t *testing.T, all ...*mate) {
	t.Helper()
	for _, m := range all {
		select {
		case <-m.node.Removed():
			t.Errorf("%s, which is a member, takes itself for removed: %+v", m.name, m.node.Removal())
		default:
		}
	}
}

// A node that is removed while it runs is told at once, by the leader, who did it; the
// others end the connections that it had made. One that is removed while it is down is
// told when it is back, and each time.
func TestRemovedIsTold(t *testing.T) {
	c := newCrewWith(t, 4, steady)
	l, gone := c.pair()
	id := string(gone.node.id)
	if err := l.node.Remove(t.Context(), gone.name, false, "ana@example.com"); err != nil {
		t.Fatal(err)
	}
	r := gone.told()
	if r.By != "ana@example.com" || r.From != l.name || r.Index == 0 {
		t.Errorf("it is told %+v", r)
	}
	for _, m := range c.nodes {
		if m == gone {
			continue
		}
		waitFor(t, m.name+" ends what the removed one had opened", func() bool {
			m.node.relays.mu.Lock()
			defer m.node.relays.mu.Unlock()
			return m.node.relays.in[id] == nil && !m.node.audible.has(id)
		})
	}
	gone.stop()
	down := c.follower()
	down.stop()
	if err := l.node.Remove(t.Context(), down.name, false, "bo@example.com"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, m := range []*mate{gone, down} {
			if err := m.open(); err != nil {
				t.Fatal(err)
			}
			// The leader may still have had the entry on its way to it: then it is its own
			// log that tells.
			if r := m.told(); r.Index == 0 || r.From == m.name {
				t.Errorf("%s is told %+v", m.name, r)
			}
			m.stop()
		}
	}
	l.submit([]byte("the others go on"))
	c.wantAlike()
	for _, m := range c.nodes {
		if m.node != nil {
			wantMembers(t, m)
		}
	}
}

// What does not prove that a node was removed is not taken for it.
func TestWhatIsNoRemoval(t *testing.T) {
	for _, c := range []struct {
		name         string
		known, index uint64
		want         bool
	}{
		{"who never knew itself as a member", 0, 100, false},
		{"before it joined: who tells it lags", 20, 19, false},
		{"as it joined", 20, 20, false},
		{"an earlier version, which tells no index", 20, 0, false},
		{"after it joined", 20, 21, true},
	} {
		n := &Node{links: &Links{}}
		n.membership.over = make(chan struct{})
		n.membership.known = c.known
		n.judge(Removal{Index: c.index})
		if over := isClosed(n.Removed()); over != c.want {
			t.Errorf("%s: removed %v, want %v", c.name, over, c.want)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A node that has joined is refused by one that lags, and does not know it yet; it does
// not take that for its removal, nor what its own log says of the time before. That
// holds also if it was taken in, removed and taken in again before it heard of it.
func TestJoinedIsNotRemoved(t *testing.T) {
	c := newCrewWith(t, 2, steady)
	l := c.led()
	m := c.mate()
	m.start()
	id := m.node.id
	joined, err := m.dir.takenIn()
	if err != nil || joined == 0 {
		t.Fatalf("it was taken in at %d, %v", joined, err)
	}
	lagging := c.nodes[1]
	if lagging == l {
		lagging = c.nodes[0]
	}
	// As it would have it that is behind: agreed up to the entry before.
	lagging.node.membership.mu.Lock()
	lagging.node.membership.settled = settlement{index: joined - 1, members: map[raft.ServerID]bool{lagging.node.id: true, l.node.id: true}}
	lagging.node.membership.mu.Unlock()
	told, ok := errors.AsType[*link.NoMember](lagging.node.expelled(m.links.self))
	if !ok || told.Without != joined-1 {
		t.Fatalf("the one that lags tells %+v", told)
	}
	m.links.refusedBy(&link.RefusedError{Code: link.RefusedMember, By: lagging.name, Without: told.Without})
	m.node.settle(joined-1, nil)
	wantMembers(t, m)

	// Removed and taken in again, as if the answers had been lost.
	self := m.links.self
	m.stop()
	if err := l.node.Remove(t.Context(), string(id), false, "a test"); err != nil {
		t.Fatal(err)
	}
	removed := l.node.settledAt()
	again, err := l.node.takeIn(&self, m.knows())
	if err != nil || again <= removed {
		t.Fatalf("taken in again at %d, after %d: %v", again, removed, err)
	}
	if more, err := l.node.takeIn(&self, m.knows()); err != nil || more <= again {
		t.Errorf("who asks once more is told %d, after %d: %v", more, again, err)
	}
	dir, err := Claim(m.fs, "/data", m.name, m.knows())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dir.takeIn(again), dir.Close()); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.submit([]byte("it is a member"))
	c.wantAlike()
	wantMembers(t, c.nodes...)
}

// Nobody who is no member tells a node that it was removed.
func TestFarewellOfAStranger(t *testing.T) {
	c := newCrew(t, 2)
	for _, m := range c.nodes {
		stranger := link.Member{ID: "11111111-1111-1111-1111-111111111111", Name: "n9"}
		if a := m.node.answer(question{Op: opRemoved, Index: 1 << 40, By: "me", from: stranger}); !strings.Contains(a.Error, "no member") {
			t.Errorf("%s answers %+v", m.name, a)
		}
		m.links.refusedBy(&link.RefusedError{Code: link.RefusedMember, By: "n9"})
		m.links.refusedBy(errors.New("no connection"))
	}
	wantMembers(t, c.nodes...)
}

// Whoever was removed by an earlier cluster, and goes on alone as another one by what
// it holds, is a member of that.
func TestSurvivorWasRemoved(t *testing.T) {
	c := newCrewWith(t, 2, steady)
	l, gone := c.pair()
	if err := l.node.Remove(t.Context(), gone.name, false, "a test"); err != nil {
		t.Fatal(err)
	}
	gone.told()
	gone.stop()
	dir, err := Claim(gone.fs, "/data", gone.name, gone.knows())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Survive(slog.New(slog.DiscardHandler), func(reason string) { t.Error(reason) }, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	gone.start()
	gone.submit([]byte("alone"))
	wantMembers(t, l, gone)
}

// What a file says of when a node was taken in is read as it was written, or refused.
func TestTakenIn(t *testing.T) {
	dir, err := ClaimToJoin(disk.Memory(), "/data", "n1", firstLevel)
	if err != nil {
		t.Fatal(err)
	}
	if index, err := dir.takenIn(); index != 0 || err != nil {
		t.Errorf("of a new directory: %d, %v", index, err)
	}
	for _, want := range []uint64{1, 1 << 60} {
		if err := dir.takeIn(want); err != nil {
			t.Fatal(err)
		}
		if index, err := dir.takenIn(); index != want || err != nil {
			t.Errorf("got %d, %v, want %d", index, err, want)
		}
	}
	if err := dir.fs.WriteFile(dir.takenInFile(), []byte("soon\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.takenIn(); !errors.Is(err, ErrDamaged) {
		t.Errorf("of a damaged one: %v", err)
	}
}
