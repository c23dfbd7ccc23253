package broker

import (
	"fmt"
	"testing"
)

// What a session was shown by wildcards is forgotten when it is too much, one for
// one and counted; what it names is not, however much that is and however much
// else it is shown.
func TestNamedResourcesAreNotForgotten(t *testing.T) {
	n := newNotesNode(t)
	bob, eve, ann := n.person("bob", 0), n.person("eve", 0), n.person("ann", 0)
	for _, owner := range []*client{bob, eve} {
		allow(owner, `{"ann@x.org":{}}`)
	}
	must(t, bob.publish("note/x.org/bob", "here", 1))
	ann.subscribe("note/x.org/bob", 1)
	ann.subscribe("note/#", 1)
	must(t, eve.publish("note/x.org/eve", "here", 1))
	ann.await(2)
	n.catchUp()
	flood := func() {
		ann.s.shownMu.Lock()
		defer ann.s.shownMu.Unlock()
		for i := range 2 * shownKept {
			ann.s.noteShown(fmt.Sprint("note/y.org/", i), 1)
		}
		if most := shownKept + len(ann.s.named); len(ann.s.shown) > most || len(ann.s.named) != 1 {
			t.Errorf("%d are known, of which %d named, want at most %d and 1", len(ann.s.shown), len(ann.s.named), most)
		}
	}
	flood()
	if !ann.s.wasShown("note/x.org/bob") {
		t.Error("it is forgotten that ann was shown bob, whom she names")
	}
	if forgotten := n.Stats().ShownForgotten.Load(); forgotten < shownKept || forgotten > shownKept+4 {
		t.Errorf("%d counted as forgotten, want %d or a little more", forgotten, shownKept)
	}
	before := len(ann.await(2))
	allow(bob, "{}")
	if got := ann.await(before + 1); got[before] != "note/x.org/bob= q1" {
		t.Errorf("got %q, want that bob is withdrawn", got[before:])
	}
	if _, err := ann.s.Unsubscribe([]string{"note/x.org/bob"}); err != nil {
		t.Fatal(err)
	}
	ann.s.shownMu.Lock()
	named := len(ann.s.named)
	ann.s.shownMu.Unlock()
	if named != 0 {
		t.Errorf("%d are named after ann has unsubscribed", named)
	}
}
