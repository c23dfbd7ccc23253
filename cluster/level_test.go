package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
)

// knows returns the newest level that m's program knows.
func (m *mate) knows() Level { return max(m.level, firstLevel) }

// raise is Config.Raise of a program whose log raises the level by a batch.
func (m *mate) raise(to Level) error {
	node := m.raiser.Load()
	if node == nil {
		return ErrNoCommit
	}
	batch := fmt.Appendf(nil, "level %d", to)
	failed := make(chan error, 1)
	node.Submit(batch, func(err error) { failed <- err })
	for {
		select {
		case err := <-failed:
			return err
		case <-time.After(time.Millisecond):
		}
		if m.dir.Level() >= to {
			return nil
		}
	}
}

// noteLevel does to the directory what such a batch means.
func (m *mate) noteLevel(batch []byte) {
	var to Level
	if n, _ := fmt.Sscanf(string(batch), "level %d", &to); n == 0 {
		return
	}
	if to > m.knows() {
		m.c.t.Errorf("%s, which knows %d, was given level %d", m.name, m.knows(), to)
		return
	}
	if err := m.dir.Raise(to); err != nil {
		m.c.t.Errorf("%s: %v", m.name, err)
	}
}

// become exchanges m's program for one of another level.
func (m *mate) become(level, hold Level) {
	m.c.t.Helper()
	m.stop()
	m.level, m.hold = level, hold
	m.start()
}

// holds wants the level to stay although the leader has asked everybody twice more,
// and those who keep it from rising to be told with the reasons.
func (c *crew) holds(in Level, why ...string) {
	c.t.Helper()
	var l, other *mate
	asked := uint64(0)
	waitFor(c.t, "the leader asks", func() bool {
		if l == nil || l.node == nil || !l.node.Leader() {
			if l, other = c.leader(), c.follower(); l == nil || other == nil {
				return false
			}
			asked = other.states.Load()
		}
		return other.states.Load() >= asked+2
	})
	_, holding := NextLevel(l.node.Members(time.Second))
	if !slices.Equal(holding, why) {
		c.t.Errorf("it is held by %q, want %q", holding, why)
	}
	for _, m := range c.nodes {
		if m.node != nil && m.dir.Level() != in {
			c.t.Errorf("%s is at level %d, want %d", m.name, m.dir.Level(), in)
		}
	}
}

func (c *crew) rises(to Level) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprint("level ", to, " on all nodes"), func() bool {
		return !slices.ContainsFunc(c.nodes, func(m *mate) bool { return m.node != nil && m.dir.Level() != to })
	})
}

func (c *crew) lead(m *mate) {
	c.t.Helper()
	waitFor(c.t, m.name+" leads", func() bool {
		return m.node.Leader() || m.node.Transfer(c.t.Context(), m.name) == nil && m.node.Leader()
	})
}

// The level rises when the last member has a program that knows the next, not
// before: whoever leads, and whatever it knows itself.
func TestLevelRisesWithTheLast(t *testing.T) {
	c := (&crew{t: t, level: 1}).begin(3)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	c.lead(n1)
	n2.become(2, 0)
	n3.become(2, 0)
	c.lead(n1) // the old one leads the new ones
	if err := n1.node.Transfer(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	c.lead(n2) // a new one leads the old
	c.holds(1, "n1 knows 1")
	n1.become(2, 0)
	c.rises(2)
	n2.become(2, 0)
	if n2.dir.Level() != 2 {
		t.Errorf("level %d after a restart, want 2", n2.dir.Level())
	}
}

// Of who does not answer nothing is known: it keeps the level as it is until it is
// there, or is no member any more.
func TestLevelWaitsForWhoIsDown(t *testing.T) {
	c := (&crew{t: t, level: 1}).begin(3)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	c.lead(n1)
	n3.stop()
	n2.become(2, 0)
	n1.become(2, 0)
	c.holds(1, "n3 does not answer")
	if err := c.led().node.Remove(t.Context(), "n3", false, "a test"); err != nil {
		t.Fatal(err)
	}
	c.rises(2)
	_, holding := NextLevel(n2.node.Members(time.Second))
	if len(holding) > 0 {
		t.Errorf("it is held by %q, want nobody", holding)
	}
}

// Who has no vote applies the log as all do: it counts. So does an operator who
// wants to be able to go back.
func TestLevelWaitsForReadersAndOperators(t *testing.T) {
	c := (&crew{t: t, level: 2})
	reader := func() *mate {
		m := c.mate()
		m.reader, m.level = true, 1
		return m
	}
	c.begin(1)
	c.level = 3
	n2 := reader()
	n2.level = 2
	n2.start()
	c.rises(2)
	n1 := c.nodes[0]
	n1.become(3, 0)
	c.holds(2, "n2 knows 2")
	n2.become(3, 2)
	c.holds(2, "n2 holds it at 2")
	n2.become(3, 0)
	c.rises(3)
}

// Who knows too little is kept out, and is told what to do: as a program on a
// directory, and as a node that would join.
func TestLevelKeepsOldProgramsOut(t *testing.T) {
	c := (&crew{t: t, level: 2}).begin(1)
	c.rises(2)
	n1, n2 := c.nodes[0], c.mate()
	n2.level = 1
	err := n2.open()
	if !errors.Is(err, ErrRefused) || !strings.Contains(fmt.Sprint(err), `node "n2" knows feature level 1, and this cluster is at 2: upgrade it`) {
		t.Errorf("joining: %v", err)
	}
	if err := errors.Join(n2.links.Close(), n2.dir.Close()); err != nil {
		t.Error(err)
	}
	c.nodes = c.nodes[:1]
	n1.stop()
	before, _ := n1.fs.ReadFile("/data/node.json")
	if _, err := Claim(n1.fs, "/data", "n1", 1); !errors.Is(err, ErrNewer) || !strings.Contains(fmt.Sprint(err), "feature level 2, and this program knows 1") {
		t.Errorf("opening: %v", err)
	}
	if after, _ := n1.fs.ReadFile("/data/node.json"); string(after) != string(before) {
		t.Errorf("the refusal has changed node.json: %s", after)
	}
}

// A level that is noted is there after a power cut, whole, and never falls.
func TestLevelIsNoted(t *testing.T) {
	fs := disk.Crashable()
	d, err := Claim(fs, "data", "n1", 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []Level{2, 3, 2, 1} {
		if err := d.Raise(to); err != nil {
			t.Error(err)
		}
	}
	if err := d.Raise(4); !errors.Is(err, ErrNewer) {
		t.Errorf("raised to what the program does not know: %v", err)
	}
	after := fs.Crash(0, nil)
	if _, err := Claim(after, "data", "n1", 2); !errors.Is(err, ErrNewer) {
		t.Errorf("opened by a program that knows 2: %v", err)
	}
	again, err := Claim(after, "data", "n1", 3)
	if err != nil || again.Identity() != d.Identity() || again.Level() != 3 {
		t.Errorf("%+v, %v, want %+v", again, err, d.Identity())
	}
}
