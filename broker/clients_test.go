package broker

import (
	"fmt"
	"slices"
	"testing"
)

// Clients are listed as the state has them, connected and away, in the order of their ids, by
// a prefix, and from behind any id on, whether there is such a client or not.
func TestClientsAreListed(t *testing.T) {
	n := newNode(t, Limits{})
	for _, id := range []string{"b/1", "a", "b/2", "b", "c"} {
		n.connect(id, true, 3600)
	}
	pub, _ := n.connect("pub", true, 0)
	sub, _ := n.connect("b/3", true, 60, func(r *ConnectRequest) { r.Version, r.Principal = 4, "bob" })
	sub.subscribe("x", 1)
	sub.s.Close(false, false, 0)
	for k := range 3 {
		must(t, pub.publish("x", fmt.Sprint(k), 1))
	}
	n.tick()
	list := func(prefix, after string) (ids []string) {
		n.Clients(prefix, after, func(c ClientSession) bool {
			ids = append(ids, c.Client)
			return len(ids) < 4
		})
		return ids
	}
	for _, c := range []struct {
		prefix, after string
		want          []string
	}{
		{"", "", []string{"a", "b", "b/1", "b/2"}},
		{"", "b/2", []string{"b/3", "c", "pub"}},
		{"", "b/11", []string{"b/2", "b/3", "c", "pub"}},
		{"b/", "", []string{"b/1", "b/2", "b/3"}},
		{"b/", "a", []string{"b/1", "b/2", "b/3"}},
		{"b/", "b/2", []string{"b/3"}},
		{"b/", "c", nil},
		{"d", "", nil},
	} {
		if got := list(c.prefix, c.after); !slices.Equal(got, c.want) {
			t.Errorf("%q behind %q: %q, want %q", c.prefix, c.after, got, c.want)
		}
	}
	n.Clients("b/3", "", func(c ClientSession) bool {
		if c.Principal != "bob" || c.Node != "" || c.Version != 4 || c.Expiry != 60 || c.Away == 0 || c.Will || n.Waiting(&c) != 3 {
			t.Errorf("got %+v, for which %d wait", c, n.Waiting(&c))
		}
		return true
	})
	n.Clients("a", "", func(c ClientSession) bool {
		if c.Node == "" || c.Away != 0 || n.Waiting(&c) != 0 {
			t.Errorf("got %+v", c)
		}
		return true
	})
}
