package broker

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// fetchAll follows the pages of what principal may see of x.org, each of at most
// size resources, and returns the names, and the cursors that it was given.
func fetchAll(n *node, principal string, size int) (names, cursors []string) {
	n.t.Helper()
	for after := ""; len(cursors) < 100; {
		shown := 0
		next, err := n.FetchAll(Who{Principal: principal}, "note/x.org/+", after, func(name string, _ Shown) bool {
			names = append(names, name)
			shown++
			return shown < size
		})
		if err != nil {
			n.t.Fatal(err)
		}
		if next == "" {
			return names, cursors
		}
		cursors, after = append(cursors, next), next
	}
	n.t.Fatal("the list never ends")
	return nil, nil
}

// The pages of a list have everything that the asker may see, once. How many they
// are and where they end tells nothing of who is hidden, and nobody can begin at a place of their
// own choice, which would tell whether there is something after it.
func TestFetchAllTellsNothingOfTheHidden(t *testing.T) {
	n := newNotesNode(t)
	var want []string
	for i := range fetchPiece + 3 {
		id := fmt.Sprintf("p%04d", i)
		c := n.person(id, 0)
		if err := c.publish("note/x.org/"+id, "hello", 0); err != nil {
			t.Fatal(err)
		}
		if i%250 == 7 {
			allow(c, `{"ann@x.org":{}}`)
			want = append(want, "note/x.org/"+id)
		}
		c.s.Close(false, false, 0)
	}
	names, pages := fetchAll(n, "ann@x.org", 2)
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	names, hidden := fetchAll(n, "eve@x.org", 2)
	if len(names) != 0 || len(hidden) != 0 {
		t.Fatalf("who may see nobody: %q in %d pages, want none in one", names, len(hidden)+1)
	}
	// Of a longer list she would be given a place.
	place := func() string { return n.cursors.seal(Who{Principal: "eve@x.org"}, "note/x.org/+", "note/x.org/p0500") }
	hidden = []string{place()}
	for _, c := range append(pages, hidden...) {
		sealed, err := base64.RawURLEncoding.DecodeString(c)
		if err != nil || len(c) != len(hidden[0]) || bytes.Contains(sealed, []byte("x.org/")) {
			t.Errorf("a place tells of the resource: %q", c)
		}
	}
	if place() == hidden[0] {
		t.Error("one place is sealed alike twice")
	}
	for what, after := range map[string]string{
		"a name that was shown to somebody": want[0], "a hidden name": "note/x.org/p0500", "before all": "note/x.org/", "another domain": "note/y.org/bob",
		"keys of the machine's own": "\x01", "of policies": "\x01policy\x00p0001@x.org", "after all": "\xff",
		"another's": pages[0], "a changed one": hidden[0][:40] + "AAAA" + hidden[0][44:], "a short one": "AAAA",
	} {
		next, err := n.FetchAll(Who{Principal: "eve@x.org"}, "note/x.org/+", after, func(string, Shown) bool { return true })
		var r *Refusal
		if !errors.As(err, &r) || !errors.Is(err, ErrTopicName) || next != "" {
			t.Errorf("%s: next %q, %v, want ErrTopicName", what, next, err)
		}
	}
	if _, err := n.FetchAll(Who{Principal: "eve@x.org"}, "note/y.org/+", hidden[0], nil); !errors.Is(err, ErrTopicName) {
		t.Errorf("another list's: %v, want ErrTopicName", err)
	}
}
