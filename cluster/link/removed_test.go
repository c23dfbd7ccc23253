package link

import (
	"encoding/json"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// A node that is no member any more is told by which configuration, and by whom; its
// connections end when that is looked at, and those of others go on.
func TestRemovedIsToldAndCutOff(t *testing.T) {
	var removed atomic.Value
	removed.Store("")
	a := newEnd(t, "a", func(c *Config) {
		c.Admit = func(m Member) error {
			if m.Name == removed.Load() {
				return &NoMember{Reason: "no member, or no longer", Without: 7, By: "ana"}
			}
			return nil
		}
	})
	b, c := newEnd(t, "b", nil, a.self()), newEnd(t, "c", nil, a.self())
	open := map[string]*Conn{}
	for name, e := range map[string]*end{"b": b, "c": c} {
		conn, err := e.Dial(t.Context(), a.self().ID, planeTest)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Write(1, 1, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := conn.Read(); err != nil {
			t.Fatal(err)
		}
		open[name] = conn
	}
	a.Review()
	removed.Store("b")
	a.Review()
	if _, _, _, err := open["b"].Read(); err == nil {
		t.Error("who was removed is answered")
	}
	if err := open["c"].Write(1, 2, []byte("hello")); err != nil {
		t.Error(err)
	}
	if _, id, _, err := open["c"].Read(); err != nil || id != 2 {
		t.Errorf("a member's connection: %d, %v", id, err)
	}
	_, err := b.Dial(t.Context(), a.self().ID, planeTest)
	r, ok := errors.AsType[*RefusedError](err)
	if !ok || r.Code != RefusedMember || r.Without != 7 || r.RemovedBy != "ana" || r.By != "a" {
		t.Errorf("it is told %+v, %v", r, err)
	}
}

// That a node was removed is believed only of the node that was dialled, of the same
// cluster: whoever answers in its place is refused belief, whatever it says.
func TestForgedRemoval(t *testing.T) {
	there := Member{ID: "id of a", Name: "a", Address: "set below", Since: 1}
	genuine := answer{Version: helloVersion, Refusal: RefusedMember, Reason: "no longer", Cluster: clusterOne, Self: there, Without: 7, RemovedBy: "ana"}
	for name, test := range map[string]struct {
		forge    func(a *answer)
		believed bool
	}{
		"genuine":                 {func(*answer) {}, true},
		"of another node":         {func(a *answer) { a.Self.ID = "id of x" }, false},
		"of another name":         {func(a *answer) { a.Self.Name = "x" }, false},
		"of nobody":               {func(a *answer) { a.Self = Member{} }, false},
		"of another cluster":      {func(a *answer) { a.Cluster = "cluster two" }, false},
		"of no cluster":           {func(a *answer) { a.Cluster = "" }, false},
		"with another refusal":    {func(a *answer) { a.Refusal = RefusedNode }, false},
		"of an earlier version":   {func(a *answer) { a.Without = 0 }, false},
		"of who would welcome it": {func(a *answer) { a.Refusal = "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			said := genuine
			test.forge(&said)
			addr := answers(t, &said)
			b := newEnd(t, "b", nil)
			at := there
			at.Address = addr
			b.book.Learn(at)
			c, err := b.Dial(t.Context(), there.ID, planeTest)
			if err == nil {
				c.Close()
			}
			r, ok := errors.AsType[*RefusedError](err)
			if believed := ok && r.Without > 0; believed != test.believed {
				t.Errorf("believed %v: %v", believed, err)
			}
		})
	}
}

// With certificates it is the name that the other's proves.
func TestRemovalIsProved(t *testing.T) {
	b := newEnd(t, "b", nil)
	b.cfg.TLS = &TLS{} // check asks only whether there is one
	defer func() { b.cfg.TLS = nil }()
	there := Member{ID: "id of a", Name: "a", Address: "x", Since: 1}
	said := answer{Version: helloVersion, Refusal: RefusedMember, Cluster: clusterOne, Self: there, Without: 7}
	for name, want := range map[string]uint64{"a": 7, "mallory": 0, "": 0} {
		r, ok := errors.AsType[*RefusedError](b.check(&said, there, name))
		if !ok || r.Without != want {
			t.Errorf("by the certificate of %q: %+v, want %d", name, r, want)
		}
	}
}

// answers returns the address of somebody who answers all alike.
func answers(t *testing.T, a *answer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			var h json.RawMessage
			if readMessage(c, &h) == nil {
				_ = writeMessage(c, a)
			}
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}
