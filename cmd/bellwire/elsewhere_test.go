package main

import (
	"testing"

	"github.com/bellwire/bellwire/cluster"
)

// What a node tells of where clients reach it is what others can use.
func TestClientsAddress(t *testing.T) {
	for _, c := range []struct{ listens, advertised, member, want string }{
		{"10.0.0.1:1883", "", "10.0.0.1:7400", "10.0.0.1:1883"},
		{"10.0.0.1:1883", "mqtt.example.com:1", "10.0.0.1:7400", "mqtt.example.com:1"},
		{"[::]:1883", "", "10.0.0.1:7400", "10.0.0.1:1883"},
		{"0.0.0.0:1883", "", "n1.example.com:7400", "n1.example.com:1883"},
		{"127.0.0.1:1883", "", "127.0.0.1:7400", "127.0.0.1:1883"},
		{"127.0.0.1:1883", "", "10.0.0.1:7400", ""}, // a proxy is before it
		{"[2001:db8::1]:1883", "", "[2001:db8::1]:7400", "[2001:db8::1]:1883"},
	} {
		if got := clientsAddress(c.listens, c.advertised, c.member); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

// Clients are sent to nodes that answer and serve, in turn; by a node that hears
// nobody, to those that there were.
func TestElsewhere(t *testing.T) {
	member := func(id, facts string) cluster.Member {
		return cluster.Member{ID: id, Name: id, Reachable: facts != "", State: cluster.State{Facts: []byte(facts)}}
	}
	self := member("n1", `{"mqtt":"n1:1"}`)
	self.Self = true
	n2, n3 := member("n2", `{"mqtt":"n2:1"}`), member("n3", `{"mqtt":"n3:1"}`)
	down := func(m cluster.Member) cluster.Member { return member(m.ID, "") }
	var e elsewhere
	want := func(what string, all ...string) {
		t.Helper()
		got := map[string]bool{}
		for range 6 {
			got[e.pick()] = true
		}
		for _, one := range all {
			if !got[one] {
				t.Errorf("%s: nobody is sent to %q: %v", what, one, got)
			}
		}
		if len(got) != len(all) {
			t.Errorf("%s: clients are sent to %v, want %v", what, got, all)
		}
	}
	want("before it has looked", "")
	e.look([]cluster.Member{self, n2, n3})
	want("all serve", "n2:1", "n3:1")
	e.look([]cluster.Member{self, down(n2), n3})
	want("one is down", "n3:1")
	e.look([]cluster.Member{self, down(n2), down(n3)})
	want("it is cut off", "n3:1")
	e.look([]cluster.Member{self, n2, member("n3", `{"mqtt":"n3:1","state":"drained"}`)})
	want("one is drained", "n2:1")
	e.look([]cluster.Member{self, member("n2", `{"clients":3}`), n3})
	want("one is of an older version, or has no address for others", "n3:1")
	e.look([]cluster.Member{self})
	want("it is alone", "")
}
