package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/golden"
)

// What a node tells the log of fetches is written as it always was, and nothing else is
// read as it.
func TestFetchedForms(t *testing.T) {
	by := []FetchedBy{{"", 2}, {"ann@example.net", 300}}
	b := appendFetched(nil, "presence/example.com/bob", by)
	golden.Forms(t, "fetched.txt", []golden.Form{{Name: "fetched/4", Bytes: b}})
	if topicName, is, ok := readFetched(b); !ok || topicName != "presence/example.com/bob" || !slices.Equal(is, by) {
		t.Errorf("read as %q %v, %t", topicName, is, ok)
	}
	for n := range b {
		if _, _, ok := readFetched(b[:n]); ok {
			t.Errorf("cut to %d bytes it is read", n)
		}
	}
	if _, _, ok := readFetched(append(slices.Clone(b), 0)); ok {
		t.Error("with something behind it it is read")
	}
}

// A countedFetches is a Viewer that notes in memory how often each has fetched what.
type countedFetches struct {
	notes
	told map[string]uint64
}

func (c countedFetches) Fetched(_ *ProfileTx, topicName string, by []FetchedBy) {
	for _, f := range by {
		c.told[topicName+" "+f.Principal] += f.Times
	}
}

// Each fetch is told the log of once, but for those that are too many: these are counted.
func TestFetchesAreGathered(t *testing.T) {
	told := map[string]uint64{}
	n := newNodeWith(t, Limits{}, countedFetches{told: told})
	fetch := func(who, local string) {
		t.Helper()
		if _, err := n.Fetch(Who{Principal: who}, "note/x.org/"+local); err != nil {
			t.Fatal(err)
		}
	}
	for range 12 {
		fetch("ann@x.org", "bob")
	}
	fetch("", "bob")
	fetch("bob@x.org", "bob") // it is his own
	n.pass(fetchesEvery - 1)
	if len(told) != 0 {
		t.Errorf("told at once: %v", told)
	}
	n.pass(1)
	if fmt.Sprint(told) != "map[note/x.org/bob :1 note/x.org/bob ann@x.org:12]" {
		t.Errorf("told are %v", told)
	}
	clear(told)
	for i := range fetchesGathered + 7 {
		fetch("ann@x.org", fmt.Sprint("p", i))
	}
	fetch("ann@x.org", "p0") // again
	for range fetchesGathered/fetchesAtOnce + 5 {
		n.pass(fetchesEvery)
	}
	if left := n.stats.FetchesUnnoted.Load(); len(told) != fetchesGathered || left != 7 || told["note/x.org/p0 ann@x.org"] != 2 {
		t.Errorf("told are %d, of the first %d, and %d are counted as lost", len(told), told["note/x.org/p0 ann@x.org"], left)
	}
	if _, err := n.machine.applyFetched(&event.Control{Profile: "note", Data: []byte{9}}); err == nil {
		t.Error("nonsense is applied")
	}
}
