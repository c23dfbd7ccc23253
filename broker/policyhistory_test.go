package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

// anyRules compiles whatever there is to rules that allow all.
func anyRules([]byte, string) (Authorizer, error) { return parseRules("allow * #"), nil }

// From the level on that brings it, each policy has a number, an author and a time, the
// one that was in force then the first; before, none has. A restart, another node and a
// copy have the same.
func TestPoliciesAreKept(t *testing.T) {
	n1, n2 := openMachine(t, disk.Memory(), "/data/n1", "n1"), openMachine(t, disk.Memory(), "/data/n2", "n2")
	n1.compile, n2.compile = anyRules, anyRules
	d := drive(t, n1, n2)
	put := func(data, by string, base uint64) *event.PutPolicy {
		return &event.PutPolicy{Data: []byte(data), By: by, Base: base}
	}
	d.entry(&event.Policy{Data: []byte("all")}, &event.Policy{Data: []byte("none")})
	if len(n1.history) != 0 {
		t.Errorf("%v before the level", n1.history)
	}
	d.entry(&event.Raise{Level: uint8(LevelPolicies)}, put("all", "ana@x.org", 1), put("all", "bob@x.org", 0), &event.Policy{Data: []byte("none")})
	answers := d.entry(put("all", "cy@x.org", 2), put("all", strings.Repeat("x", 2000), 0), put("all", "ana@x.org", 3))
	if err := answers[0].err; !errors.Is(err, ErrCondition) || !strings.Contains(err.Error(), "policy 3 is in force, not 2") {
		t.Errorf("made from an older one: %v", err)
	}
	if answers[1].err == nil || answers[2].err != nil || answers[2].value != uint64(4) {
		t.Errorf("%v, %v", answers[1], answers[2])
	}
	got := func(m *machineUnderTest) (text string) {
		for _, r := range m.history {
			data, _ := m.store.Get(pastPolicyKey(r.Number), nil)
			text += fmt.Sprintf("%d %s %q %d; ", r.Number, data, r.By, r.Size)
			if r.At == 0 || r.At > m.now {
				t.Errorf("%+v at %d", r, m.now)
			}
		}
		return text
	}
	want := `1 none "" 4; 2 all "ana@x.org" 3; 3 none "" 4; 4 all "ana@x.org" 3; `
	if got(n1) != want || got(n2) != want {
		t.Errorf("%s and %s, want %s", got(n1), got(n2), want)
	}
	if err := n1.load(); err != nil || got(n1) != want {
		t.Errorf("after a restart: %s, %v", got(n1), err)
	}
}

// The history is bounded by number and bytes, the oldest goes with what it held, and the
// one in force stays whatever its size.
func TestPoliciesAreBounded(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/n1", "n1")
	m.compile = anyRules
	d := drive(t, m)
	d.entry(&event.Raise{Level: uint8(LevelPolicies)})
	stored := func() (n int) {
		lower := pastPolicyKey(0)
		m.store.Scan(lower, pastPolicyKey(1<<40), func(_, _ []byte) bool { n++; return true })
		return n
	}
	for i := range PoliciesKept + 5 {
		d.entry(&event.PutPolicy{Data: fmt.Appendf(nil, "all\n# %d", i)})
	}
	if n := stored(); n != PoliciesKept || len(m.history) != n || m.history[0].Number != 7 || m.history.number() != PoliciesKept+6 {
		t.Errorf("%d are stored, %d listed from %d", n, len(m.history), m.history[0].Number)
	}
	large := strings.Repeat("#", PolicyBytesKept/20)
	for i := range 25 {
		d.entry(&event.PutPolicy{Data: fmt.Appendf(nil, "all\n%s%d", large, i)})
	}
	total := 0
	for _, r := range m.history {
		total += r.Size
	}
	if n := stored(); total > PolicyBytesKept || n != len(m.history) || n < 18 {
		t.Errorf("%d bytes in %d, %d listed", total, n, len(m.history))
	}
}

// Whoever puts a policy in force is told its number; who made it from another than the
// one in force is refused, and everybody sees the same history.
func TestPutPolicy(t *testing.T) {
	n := bareNode(t, Limits{})
	n.policies["none"] = parseRules("deny * #")
	n.serve()
	defer n.stop(true)
	ctx := context.Background()
	if number, err := n.PutPolicy(ctx, PolicyChange{Data: []byte("all")}); number != 0 || err != nil {
		t.Errorf("before the level: %d, %v", number, err)
	}
	if _, err := n.PutPolicy(ctx, PolicyChange{Data: []byte("all"), Base: 1}); !errors.Is(err, ErrCondition) {
		t.Errorf("with a base before the level: %v", err)
	}
	if err := n.Raise(ctx, LevelPolicies); err != nil || n.PolicyNumber() != 1 {
		t.Errorf("policy %d in force after the raise, %v", n.PolicyNumber(), err)
	}
	if number, err := n.PutPolicy(ctx, PolicyChange{Data: []byte("none"), By: "ana@x.org", Base: 1}); number != 2 || err != nil || n.PolicyNumber() != 2 {
		t.Errorf("policy %d, %v, in force %d", number, err, n.PolicyNumber())
	}
	if _, err := n.PutPolicy(ctx, PolicyChange{Data: []byte("all"), Base: 1}); !errors.Is(err, ErrCondition) || !errors.Is(err, ErrRefused) {
		t.Errorf("made from the first: %v", err)
	}
	if all := n.Policies(); len(all) != 2 || all[1].By != "ana@x.org" || string(n.PolicyByNumber(1)) != "all" || string(n.PolicyByNumber(2)) != "none" || n.PolicyByNumber(3) != nil {
		t.Errorf("%+v", all)
	}
}
