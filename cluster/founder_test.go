package cluster

import (
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
)

// empty gives the node, which does not run, an empty disk.
func (m *mate) empty() { m.fs = disk.Memory() }

// found starts the node, which founds a cluster, and returns what Settle does.
func (m *mate) found() error {
	m.c.t.Helper()
	m.start()
	return m.links.Settle(m.c.t.Context())
}

// wantContested fails the test unless err says that a node's name is that of the member
// whose id is want.
func wantContested(t testing.TB, err error, want string) {
	t.Helper()
	e, ok := errors.AsType[*ContestedError](err)
	if !ok {
		t.Fatalf("got %v, want that it is contested", err)
	}
	if e.Member != want || e.By == "" || e.By == "n1" || e.Address == "" || !isUUID(e.Cluster) || e.At.IsZero() {
		t.Errorf("it is told %+v, want %s", e, want)
	}
}

// wantRefusal fails the test unless the node does not even start.
func (m *mate) wantRefusal(want string) {
	m.c.t.Helper()
	err := m.open()
	wantContested(m.c.t, err, want)
	if err := m.dir.Close(); err != nil {
		m.c.t.Error(err)
	}
}

// awaitKnocks waits until others have looked for another node here a few times since.
func (m *mate) awaitKnocks(since uint64) {
	m.c.t.Helper()
	waitFor(m.c.t, "others look for another node at "+m.name, func() bool { return m.links.mesh.Refused() >= since+5 })
}

func (m *mate) contested() bool { return isClosed(m.links.Contested()) }

// A founder whose disk was emptied, and that founds again, does not serve: the others look
// for it, and it is told so before it may. It does not start again with what it has by
// then, until that is declared a cluster of its own, or the node joins.
func TestEmptiedFounder(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3)
	n1 := c.nodes[0]
	n1.submit([]byte("before"))
	was := string(n1.node.id)
	n1.stop()
	n1.empty()
	wantContested(t, n1.found(), was)
	wantContested(t, n1.links.Contest(), was)
	n1.stop()
	for range 2 {
		n1.wantRefusal(was)
	}
	l := c.led()
	l.submit([]byte("meanwhile"))

	// Recovered, it is a cluster of its own, beside which the others may look for it.
	dir, err := Claim(n1.fs, "/data", n1.name, n1.knows())
	if err != nil {
		t.Fatal(err)
	}
	_, err = dir.Survive(slog.New(slog.DiscardHandler), func(reason string) { t.Error(reason) }, time.Now)
	if err := errors.Join(err, dir.Close()); err != nil {
		t.Fatal(err)
	}
	if err := n1.found(); err != nil {
		t.Fatal(err)
	}
	n1.awaitKnocks(0)
	if n1.contested() {
		t.Error("it is contested, although people have said that it is to go on")
	}
	n1.stop()

	// Removed, it joins with an empty disk as any.
	if err := l.node.Remove(t.Context(), was, false, "a test"); err != nil {
		t.Fatal(err)
	}
	n1.empty()
	n1.join = []string{l.addr}
	n1.start()
	if err := n1.links.Settle(t.Context()); err != nil || n1.contested() {
		t.Errorf("joined: %v, contested %v", err, n1.contested())
	}
	if !n1.has([]byte("before")) || !n1.has([]byte("meanwhile")) {
		t.Error("it lacks what was acknowledged")
	}
	c.wantAlike()
}

// Once the others have removed it, it may found as often as it likes.
func TestRemovedFounderFounds(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3)
	n1 := c.nodes[0]
	was := string(n1.node.id)
	n1.stop()
	l := c.led()
	if err := l.node.Remove(t.Context(), was, false, "a test"); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.nodes[1:] {
		waitFor(t, m.name+" has forgotten it", func() bool {
			_, known := m.links.book.Find(was)
			return !known
		})
	}
	n1.empty()
	if err := n1.found(); err != nil {
		t.Error(err)
	}
}

// While the others are down nobody can tell it; it is told when they are back, also if it
// was started anew by then, and the others go on without it.
func TestEmptiedFounderBeforeTheOthers(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		c := newCrew(t, 3)
		n1 := c.nodes[0]
		was := string(n1.node.id)
		for _, m := range c.nodes {
			m.stop()
		}
		n1.empty()
		if err := n1.found(); err != nil {
			t.Fatal(err)
		}
		n1.submit([]byte("what nobody else has"))
		if again {
			n1.stop()
		}
		for _, m := range c.nodes[1:] {
			if err := m.open(); err != nil {
				t.Fatal(err)
			}
		}
		if again {
			wantContested(t, n1.found(), was)
		} else {
			select {
			case <-n1.links.Contested():
				wantContested(t, n1.links.Contest(), was)
			case <-time.After(30 * time.Second):
				t.Error("nobody told it")
			}
		}
		n1.stop()
		c.nodes[1].submit([]byte("they go on"))
		c.wantAlike()
	}
}

// A majority's disks were emptied, and the others have joined the founder anew: they rely
// on each other, so they go on, and who has the old state is only told of.
func TestFoundedByAMajority(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	for _, m := range c.nodes {
		m.stop()
	}
	n1.empty()
	n2.empty()
	if err := n1.found(); err != nil {
		t.Fatal(err)
	}
	n2.start()
	since := n1.links.mesh.Refused()
	if err := n3.open(); err != nil {
		t.Fatal(err)
	}
	n1.awaitKnocks(since)
	if n1.contested() || n2.contested() || n3.contested() {
		t.Error("a cluster that others have joined is contested")
	}
	n2.submit([]byte("they go on"))
	n3.stop()
	c.wantAlike()
}

// Who founds a second cluster beside the first on purpose gives it another name.
func TestFoundedUnderAnotherName(t *testing.T) {
	t.Parallel()
	c := &crew{t: t}
	t.Cleanup(c.close)
	n1 := c.mate()
	n1.called = "one"
	n1.start()
	n2 := c.add()
	n3 := c.add()
	waitFor(t, "all have a vote", func() bool { return n1.voters() == 3 })
	was := string(n1.node.id)
	n1.stop()
	n1.empty()
	n1.called = "two"
	if err := n1.found(); err != nil {
		t.Fatal(err)
	}
	n1.awaitKnocks(0)
	if n1.contested() {
		t.Error("it is contested")
	}
	n1.stop()
	n1.empty()
	n1.called = "one"
	wantContested(t, n1.found(), was)
	if e := n1.links.Contest(); e.Called != "one" {
		t.Errorf("it is told %+v", e)
	}
	if n2.contested() || n3.contested() {
		t.Error("the others are contested")
	}
}

// That nobody looks for it costs a founder no more than the time in which they would; once
// others have joined, nothing.
func TestFounderSettles(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 1)
	n1 := c.nodes[0]
	if err := n1.links.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if since := time.Since(n1.links.founder.since); since < knockTime {
		t.Errorf("it may serve after %v, before anybody can have told it", since)
	}
	n1.stop()
	if err := n1.found(); err != nil {
		t.Errorf("with what it has founded: %v", err)
	}
	c.add()
	n1.links.founder.since = time.Now().Add(time.Hour) // it would wait for an hour
	if err := n1.links.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	var none *Links
	if none.Contested() != nil {
		t.Error("a node alone is contested")
	}
}

// What was noted is read as it was written, or refused.
func TestContestedFile(t *testing.T) {
	t.Parallel()
	dir, err := Claim(disk.Memory(), "/data", "n1", firstLevel)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.contested(); err != nil {
		t.Errorf("of a new directory: %v", err)
	}
	want := ContestedError{Cluster: newUUID(), Called: "one", Member: newUUID(), By: "n2", Address: "127.0.0.1:1", At: time.Unix(1, 0).UTC()}
	if err := dir.contest(&want); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = Listen(dir, LinkConfig{Listener: listener, Dial: dialTCP, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if e, ok := errors.AsType[*ContestedError](err); !ok || *e != want {
		t.Errorf("got %v, want %+v", err, want)
	}
	if err := dir.fs.WriteFile(dir.contestedFile(), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := dir.contested(); !errors.Is(err, ErrDamaged) {
		t.Errorf("of a damaged one: %v", err)
	}
}
