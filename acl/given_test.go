package acl

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Clients are given what the entries that name them say, with their placeholders filled in and
// escaped, each filter once; what takes a placeholder that the client has nothing for, or what
// comes out as nothing to be given, they are not.
func TestGiven(t *testing.T) {
	p := mustParse(t, `
subscriptions:
  - {id: all, who: [anyone], topic: ["cmd/${clientid}/#", "host/${host}", "user/${username}"], qos: 1, rap: true}
  - {id: bob, who: [bob@example.com], topic: ["cmd/${clientid}/#", "news", "${clientid}/x"], qos: 2, nl: true, rh: 2}
`)
	given := func(who Who, address string) string {
		var all []string
		for _, g := range p.Given(who, address) {
			all = append(all, fmt.Sprintf("%s %s %d %t %t %d", g.Entry, g.Filter, g.QoS, g.NoLocal, g.RetainAsPublished, g.RetainHandling))
		}
		return strings.Join(all, "\n")
	}
	for _, c := range []struct {
		who     Who
		address string
		want    string
	}{
		{Who{Client: "c"}, "192.0.2.1:5000", "all cmd/c/# 1 false true 0\nall host/192.0.2.1 1 false true 0"},
		{Who{Client: "a/+"}, "[2001:db8::1]:5", "all cmd/a%2F%2B/# 1 false true 0\nall host/2001:db8::1 1 false true 0"},
		{
			Who{"bob@example.com", "c"},
			"",
			"all cmd/c/# 1 false true 0\nall user/bob@example.com 1 false true 0\nbob news 2 true false 2\nbob c/x 2 true false 2",
		},
		{Who{"bob@example.com", "presence"}, "", "all cmd/presence/# 1 false true 0\nall user/bob@example.com 1 false true 0\nbob news 2 true false 2"},
		{Who{"bob@example.com", "$SYS"}, "", "all cmd/%24SYS/# 1 false true 0\nall user/bob@example.com 1 false true 0\nbob news 2 true false 2\nbob %24SYS/x 2 true false 2"},
	} {
		if got := given(c.who, c.address); got != c.want {
			t.Errorf("%v from %q is given\n%s\nwant\n%s", c.who, c.address, got, c.want)
		}
	}
	if d := Compare(mustParse(t, ""), p, time.Unix(0, 0)).Entries; len(d) != 2 || d[0].What != "subscription" {
		t.Errorf("%+v", d)
	}
}

// Nobody is given more than there may be.
func TestGivenIsBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("subscriptions:\n")
	for i := range MostGiven + 5 {
		fmt.Fprintf(&text, "  - {id: s%d, who: [anyone], topic: [t/%d]}\n", i, i)
	}
	if got := len(mustParse(t, text.String()).Given(Who{Client: "c"}, "")); got != MostGiven {
		t.Errorf("%d are given, want %d", got, MostGiven)
	}
}

// All faults are told, each at its place.
func TestGivenFaults(t *testing.T) {
	_, err := Parse("policy.yaml", []byte(`subscriptions:
  - {who: [anyone], topic: ["a"]}
  - {id: b, topic: ["a"]}
  - {id: c, who: [anyone]}
  - {id: d, who: [anyone], topic: ["a/#/b"]}
  - {id: e, who: [anyone], topic: ["#"]}
  - {id: f, who: [anyone], topic: ["presence/example.com/ana"]}
  - {id: g, who: [anyone], topic: ["$share/g/a"]}
  - {id: h, who: [anyone], topic: ["$SYS/#"]}
  - {id: i, who: [anyone], topic: ["a/${clientId}"]}
  - {id: j, who: [anyone], topic: ["a/$1"]}
  - {id: k, who: [anyone], topic: ["a"], qos: 3}
  - {id: l, who: [anyone], topic: ["a"], rh: -1}
  - {id: m, who: [anyone], topic: ["a"], nl: maybe}
  - {id: n, who: [anyone], topics: ["a"]}
  - {id: m, who: [anyone], topic: ["a"]}
`), "")
	bad, ok := err.(*FileError)
	if !ok {
		t.Fatal(err)
	}
	for line := 2; line <= 16; line++ {
		if !strings.Contains(bad.Error(), fmt.Sprintf("policy.yaml:%d:", line)) {
			t.Errorf("no fault at line %d", line)
		}
	}
	for _, text := range []string{`did you mean "${clientid}"`, `did you mean "topic"`, "bellwire admin provision"} {
		if !strings.Contains(bad.Error(), text) {
			t.Errorf("no word of %q in\n%v", text, bad)
		}
	}
}
