package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

// tenants is a policy for tests with tenants: lines "tenant DOMAIN" beside rules. A part is
// rules, too; one that says "bad" is faulty.
type tenants struct {
	*rules
	text    string
	domains []string
}

func parseTenants(data []byte, _ string) (Authorizer, error) {
	t := &tenants{text: string(data)}
	var rest []string
	for line := range strings.Lines(t.text) {
		if domain, ok := strings.CutPrefix(strings.TrimSpace(line), "tenant "); ok {
			t.domains = append(t.domains, domain)
			continue
		}
		rest = append(rest, line)
	}
	t.rules = parseRules(strings.Join(rest, ""))
	return t, nil
}

func (t *tenants) HasTenant(domain string) bool { return slices.Contains(t.domains, domain) }

func (t *tenants) CheckPart(p Part) error {
	if strings.Contains(string(p.Data), "bad") {
		return errors.New("it is bad")
	}
	return nil
}

func (t *tenants) With(parts []Part) Authorizer {
	text := t.text
	for _, p := range parts {
		if t.HasTenant(p.Domain) && len(p.Data) < 1000 { // those that are larger are there for their size
			text += string(p.Data) + "\n"
		}
	}
	with, _ := parseTenants([]byte(text), "")
	return with
}

func partPut(domain, data string, base uint64) *event.PutPart {
	return &event.PutPart{Domain: domain, Data: []byte(data), By: "cy@" + domain, Base: base}
}

// A domain's part is in force beside the operator's policy, has numbers of its own, and
// stands when that changes, without effect while the domain is no tenant. A restart and
// another node have the same.
func TestPartsAreKept(t *testing.T) {
	n1, n2 := openMachine(t, disk.Memory(), "/data/n1", "n1"), openMachine(t, disk.Memory(), "/data/n2", "n2")
	n1.compile, n2.compile = parseTenants, parseTenants
	d := drive(t, n1, n2)
	policy := func(text string) *event.PutPolicy { return &event.PutPolicy{Data: []byte(text)} }
	const both = "tenant a.org\ntenant b.org\nallow ops o/#\n"
	may := func(who, name string) bool {
		return n1.policy.Decide(Who{Principal: who}, ActPublish, name, d.now).Allow
	}
	if a := d.entry(policy(both), partPut("a.org", "allow x@a.org a/#", 0)); a[1].err == nil {
		t.Error("a part before the level")
	}
	a := d.entry(&event.Raise{Level: uint8(LevelPolicies)}, partPut("a.org", "allow x@a.org a/#", 0), partPut("b.org", "allow x@b.org b/#", 0),
		partPut("a.org", "bad", 0), partPut("c.org", "allow x@c.org c/#", 0), partPut("a.org", "allow y@a.org a/#", 7))
	for i, want := range []string{"", "", "", "it is bad", "no such tenant", "policy 1 of a.org is in force, not 7"} {
		if err := a[i].err; want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("command %d: %v, want %q", i, err, want)
		}
	}
	if !errors.Is(a[5].err, ErrCondition) || a[1].value != uint64(1) || a[2].value != uint64(1) {
		t.Errorf("%v, %v, %v", a[5].err, a[1].value, a[2].value)
	}
	if !may("ops", "o/1") || !may("x@a.org", "a/1") || !may("x@b.org", "b/1") || may("y@a.org", "a/1") {
		t.Error("the parts are not in force")
	}
	a = d.entry(partPut("a.org", "allow y@a.org a/#", 1), partPut("a.org", "allow y@a.org a/#", 2), policy("tenant b.org\nallow ops o/#\n"))
	if a[0].value != uint64(2) || a[1].value != uint64(2) || a[2].err != nil {
		t.Errorf("%+v", a)
	}
	if may("y@a.org", "a/1") || !may("x@b.org", "b/1") || !may("ops", "o/1") {
		t.Error("who is no tenant any more has a part in force, or who is has none")
	}
	for _, m := range []*machineUnderTest{n1, n2} {
		if err := m.load(); err != nil {
			t.Fatal(err)
		}
	}
	if may("y@a.org", "a/1") || !may("x@b.org", "b/1") {
		t.Error("after a restart others may")
	}
	d.entry(policy(both), partPut("b.org", "", 0))
	if !may("y@a.org", "a/1") || may("x@b.org", "b/1") {
		t.Error("a part does not come back with its tenant, or one that has ended is in force")
	}
	if h := n1.parts["b.org"].history; len(h) != 2 || h[1].Size != 0 || h[1].By != "cy@b.org" {
		t.Errorf("%+v", h)
	}
	d.entry(policy("tenant a.org\n"))
	if n1.parts["b.org"] != nil || n1.parts["a.org"] == nil {
		t.Errorf("%v are kept", n1.parts)
	}
	if _, kept := n1.store.Get(pastPartKey("b.org", 1), nil); kept {
		t.Error("the past of what has ended is kept")
	}
}

// A part's history is bounded by number and bytes, its changes by pace, and all parts
// together by what they take: more is refused, and changes nothing.
func TestPartsAreBounded(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/n1", "n1")
	m.compile = parseTenants
	d := drive(t, m)
	text := ""
	for i := range 70 {
		text += fmt.Sprintf("tenant d%d.org\n", i)
	}
	d.entry(&event.PutPolicy{Data: []byte(text)}, &event.Raise{Level: uint8(LevelPolicies)})
	for i := range PartChanges {
		if a := d.entry(partPut("d0.org", fmt.Sprintf("allow x %d", i), 0)); a[0].err != nil {
			t.Fatal(a[0].err)
		}
	}
	if a := d.entry(partPut("d0.org", "allow x more", 0)); !errors.Is(a[0].err, ErrQuota) {
		t.Errorf("change %d within a minute: %v", PartChanges+1, a[0].err)
	}
	for i := range 2 * PartsKept {
		d.now += PartPeriod
		if a := d.entry(partPut("d0.org", fmt.Sprintf("allow x later%d", i), 0)); a[0].err != nil {
			t.Fatal(a[0].err)
		}
	}
	h := m.parts["d0.org"].history
	if _, kept := m.store.Get(pastPartKey("d0.org", h[0].Number-1), nil); len(h) != PartsKept || kept {
		t.Errorf("%d are kept, one before %d: %v", len(h), h[0].Number, kept)
	}
	large := "allow x " + strings.Repeat("x", MostPartBytes/64)
	fits := 0
	for i := range 69 {
		if a := d.entry(partPut(fmt.Sprintf("d%d.org", i+1), large, 0)); a[0].err == nil {
			fits++
		} else if !errors.Is(a[0].err, ErrQuota) {
			t.Errorf("part %d: %v", i, a[0].err)
		}
	}
	if fits != 63 {
		t.Errorf("%d parts fit, want 63", fits)
	}
	for i := range 6 {
		d.now += PartPeriod
		if a := d.entry(partPut("d1.org", fmt.Sprintf("%s%d", large[:len(large)-1], i), 0)); a[0].err != nil {
			t.Error(a[0].err)
		}
	}
	total := 0
	for _, r := range m.parts["d1.org"].history {
		total += r.Size
	}
	if total > PartBytesKept {
		t.Errorf("a history of %d bytes", total)
	}
}
