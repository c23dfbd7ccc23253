package acl

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func parsed(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text), "x.org")
	if err != nil {
		t.Fatal(err)
	}
	return p.WithOwners("presence")
}

// What decides by its place in the file, or stands in it twice, is compared as it counts.
func TestCompareByPlace(t *testing.T) {
	const first, second = `{listeners: [a, b], by: [password]}`, `{listeners: ["*"], by: [token]}`
	for _, c := range []struct{ name, was, is, want string }{
		{"a filter in both lists", "durability: {memory: [a], log: [a]}", "durability: {memory: [a], log: [a]}", ""},
		{"a filter that goes to the log", "durability: {memory: [a, b]}", "durability: {memory: [a, b], log: [a]}", "durability a: memory -> memory, log"},
		{
			"logins in another order", "logins: [" + first + ", " + second + "]", "logins: [" + second + ", " + first + "]",
			"login 01 *:  -> by token; login 01 a,b: by password -> ; login 02 *: by token -> ; login 02 a,b:  -> by password",
		},
		{
			"the first of two logins of a listener", "logins: [" + first + ", " + first + "]", `logins: [{listeners: [a, b], by: [token]}, ` + first + "]",
			"login 01 a,b: by password -> by token",
		},
	} {
		for range 8 { // in whatever order lists are walked
			var got []string
			for _, e := range Compare(parsed(t, c.was), parsed(t, c.is), time.Time{}).Entries {
				got = append(got, fmt.Sprintf("%s %s: %s -> %s", e.What, e.Name, e.Was, e.Is))
			}
			if got := strings.Join(got, "; "); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
				break
			}
		}
	}
}

const diffBefore = `
users: {ana: {token_sha256: "` + "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272" + `"}}
groups: {night: [ana, bo]}
rules:
  - {id: same, allow: [publish, subscribe], who: [ana, bo], topic: [s, r]}
  - {id: night, allow: [subscribe], who: [group:night], topic: ["ward/#"], when: {weekly: ["Mon-Sun 22:00-06:00"], tz: UTC}}
  - {id: gone, allow: [publish], who: ["*@x.org"], topic: ["old/{local}"]}
`

const diffAfter = `
users: {ana: {token_sha256: "` + "e0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272" + `"}}
groups: {night: [ana]}
rules:
  - {id: same, allow: [subscribe, publish], who: [bo, ana], topic: [r, s]}
  - {id: night, allow: [subscribe], who: [group:night], topic: ["ward/#"], when: {weekly: ["Mon-Sun 23:00-06:00"], tz: UTC}}
limits:
  - {id: stay, topic: ["presence/#"], only: {who: ["*@x.org"]}}
`

// A difference tells each entry that was added, removed or changed, whatever the order
// in the file, and each answer that changes for somebody whom either file names, with
// the first instant at which it does.
func TestCompare(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := Compare(parsed(t, diffBefore), parsed(t, diffAfter), at)
	var entries []string
	for _, c := range d.Entries {
		entries = append(entries, fmt.Sprintf("%s %s %t %t", c.What, c.Name, c.Was != "", c.Is != ""))
	}
	if got, want := strings.Join(entries, "\n"), "group night true true\nlimit stay false true\nrule gone true false\nrule night true true\nuser ana@x.org true true"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want := []string{
		"anonymous may no longer publish to all of presence/# from 2026-11-23T12:00:00Z on (stay)",
		"*@* may no longer subscribe presence/# from 2026-11-23T12:00:00Z on (stay)",
		"ana@x.org may no longer subscribe ward/# from 2026-11-23T22:00:00Z on (night)",
		"ana@x.org may no longer publish old/ana from 2026-11-23T12:00:00Z on",
		"bo@x.org may no longer subscribe ward/# from 2026-11-23T22:00:00Z on",
	}
	text := d.Text()
	if !strings.Contains(text, "~ user   ana@x.org\n    was credential ") {
		t.Errorf("no user without a line in\n%s", text)
	}
	for _, line := range want {
		if !strings.Contains(text, "  "+line+"\n") {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	for _, wrong := range []string{"rule   same", "subscribe s", "d0c04f4b", "ana@x.org may no longer subscribe presence", "line 0"} {
		if strings.Contains(text, wrong) {
			t.Errorf("%q is in\n%s", wrong, text)
		}
	}
	if same := Compare(parsed(t, diffAfter), parsed(t, diffAfter), at); !same.Empty() || same.Asked == 0 {
		t.Errorf("a file differs from itself:\n%s", same.Text())
	}
}

// A comparison is bounded, and says when it is.
func TestCompareIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 1500 {
		fmt.Fprintf(&b, "  - {id: r%d, allow: [publish], who: [ana], topic: [t/%d]}\n", i, i)
	}
	d := Compare(parsed(t, "rules: []"), parsed(t, b.String()), time.Unix(0, 0))
	if len(d.Decisions) != MaxChanges || !d.Partial || len(d.Entries) != 1500 {
		t.Errorf("%d decisions of %d, partial %t, %d entries", len(d.Decisions), d.Asked, d.Partial, len(d.Entries))
	}
}

// Who can do something, and what somebody can, are told as tests write it.
func TestWhoCanAndCanWhat(t *testing.T) {
	p := parsed(t, diffBefore)
	night := time.Date(2026, 11, 23, 23, 0, 0, 0, time.UTC)
	who, err := p.WhoCan(Subscribe, "ward/3", night)
	if got := strings.Join(who, " "); err != nil || got != "ana@x.org bo@x.org" {
		t.Errorf("%s, %v", got, err)
	}
	if who, err := p.WhoCan(Subscribe, "ward/3", night.Add(12*time.Hour)); len(who) != 0 || err != nil {
		t.Errorf("%v, %v", who, err)
	}
	if _, err := p.WhoCan(Publish, "a/#", night); err == nil {
		t.Error("a filter is published to")
	}
	if got := strings.Join(p.CanWhat(Who{Principal: "bo@x.org"}, night), ", "); got != "publish old/bo, publish r, publish s, subscribe r, subscribe s, subscribe ward/#" {
		t.Error(got)
	}
}
