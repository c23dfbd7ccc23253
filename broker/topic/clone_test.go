package topic

import (
	"fmt"
	"slices"
	"testing"
)

// A clone has what there was, and from then on each of the two has its own.
func TestClone(t *testing.T) {
	a := newTestIndex(100)
	for i := range 40 {
		a.Set("a/+", fmt.Sprint(i), i)
		a.Set("a/1", fmt.Sprint(i), i)
	}
	before := a.LookupString("a/1")
	b := a.Clone(100)
	if got := b.LookupString("a/1"); !slices.Equal(got, before) {
		t.Errorf("a clone answers %q, want %q", got, before)
	}
	for i := range 39 {
		b.Delete("a/+", fmt.Sprint(i))
		b.Delete("a/1", fmt.Sprint(i))
	}
	b.Set("#", "new", 1)
	a.Set("a/2", "other", 2)
	if got := a.LookupString("a/1"); !slices.Equal(got, before) {
		t.Errorf("after changes to the clone it answers %q, want %q", got, before)
	}
	if got, want := b.LookupString("a/1"), []string{"# new 1", "a/+ 39 39", "a/1 39 39"}; !slices.Equal(got, want) {
		t.Errorf("the clone answers %q, want %q", got, want)
	}
	if got, want := b.LookupString("a/2"), []string{"# new 1", "a/+ 39 39"}; !slices.Equal(got, want) {
		t.Errorf("the clone answers %q, want %q", got, want)
	}
	for filter, want := range map[string]int{"a/+": 40, "a/1": 40, "a/2": 1, "b": 0} {
		if got := a.Count(filter); got != want {
			t.Errorf("%d subscribe to %s, want %d", got, filter, want)
		}
	}
	if got := b.Count("a/+"); got != 1 {
		t.Errorf("%d subscribe to a/+ in the clone, want 1", got)
	}
	checkShape(t, a)
	checkShape(t, b)
}
