package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// What hundreds of rules list to be shown is joined in one go, and once for all watchers to
// whom the same rules are open: an owner whose policy is as long as it may be has not each of
// the watchers cost a list of its own, and megabytes to make it.
func TestUnions(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"v":1,"rules":[`)
	for i := range 300 {
		fmt.Fprintf(&b, `{"id":"%d","then":{"handling":"allow"},"show":{"services":[`, i)
		for j := range 20 {
			fmt.Fprintf(&b, `"%d",`, 20*i+j)
		}
		b.WriteString(`"same"]}},`)
	}
	b.WriteString(`{"id":"ann","if":{"identity":[{"one":"pres:ann@example.net"}]},"then":{"handling":"allow"},"show":{"note":true}}]}`)
	p, err := Parse([]byte(b.String()), pres, bob)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	show := func(watcher string) kind.Grant {
		return p.Evaluate(kind.Addr{Local: watcher, Domain: "example.net"}, at, Input{}).Grant
	}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	eve := show("eve")
	runtime.ReadMemStats(&after)
	if size := after.TotalAlloc - before.TotalAlloc; size > 4<<20 {
		t.Errorf("a decision allocates %d bytes", size)
	}

	if n := len(eve.Set("services")); n != 300*20+1 {
		t.Errorf("%d tokens", n)
	}
	if !show("dan").Is(eve) {
		t.Error("what is shown of the same rules is joined again")
	}
	ann := show("ann")
	if !ann.Has("note") || !ann.Covers(eve) || eve.Has("note") {
		t.Error("whom another rule concerns is shown what that does not show, or others are")
	}
	if after := show("eve"); !after.Same(eve) || after.Has("note") {
		t.Error("who comes after another is shown what that one was")
	}
}
