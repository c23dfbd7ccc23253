package acl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Events are in memory only where a filter of memory says so and none of log does; the
// explanation of a publish says it, and by which line, but of no subscription and of no
// refusal.
func TestDurability(t *testing.T) {
	p := mustParse(t, `rules:
  - {id: all, allow: [publish, subscribe], who: [ana], topic: ["#"]}
durability:
  memory:
    - telemetry/#
    - "+/load"
  log: [telemetry/+/alarm]
`)
	for name, want := range map[string]bool{
		"telemetry": true, "telemetry/3": true, "telemetry/3/alarm": false, "telemetry/3/alarm/x": true, "vm/load": true, "vm/load/1": false, "ward": false,
		"$SYS/load": false,
	} {
		if got := p.Memory(name); got != want {
			t.Errorf("%s in memory: %v, want %v", name, got, want)
		}
	}
	ana, bo := Who{Principal: "ana@example.com"}, Who{Principal: "bo@example.com"}
	for _, c := range []struct {
		who  Who
		what Action
		name string
		says bool
	}{
		{ana, Publish, "vm/load", true}, {ana, Subscribe, "vm/load", false}, {bo, Publish, "vm/load", false}, {ana, Publish, "telemetry/3/alarm", false},
	} {
		e, err := p.Explain(c.who, c.what, c.name, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		line := "keeps    in memory: an acknowledgement does not promise that it survives this node (durability, policy.yaml:6)"
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(e.Text(), line) != c.says || strings.Contains(string(data), `"durability":"memory"`) != c.says {
			t.Errorf("%v %v %s: want it said: %v\n%s%s", c.who, c.what, c.name, c.says, e.Text(), data)
		}
	}
	was := mustParse(t, "durability: {memory: [telemetry/#, a]}")
	var changes []string
	for _, c := range Compare(was, p, time.Unix(0, 0)).Entries {
		if c.What == "durability" {
			changes = append(changes, c.Name+": "+c.Was+" "+c.Is)
		}
	}
	if got := strings.Join(changes, "\n"); got != "+/load:  memory\na: memory \ntelemetry/+/alarm:  log" {
		t.Errorf("compared:\n%s", got)
	}
	if mustParse(t, "durability: {}").HasDurability() || !p.HasDurability() {
		t.Error("it is not known whether there is any")
	}
}

// All faults are told, each at its line.
func TestDurabilityFaults(t *testing.T) {
	_, err := Parse("policy.yaml", []byte(`durability:
  memory:
    - a#
    - "home/{local}/#"
    - presence/#
    - im
    - $SYS/#
    - ok/#
  log: ["+a"]
  disk: [x]
`), "")
	bad, ok := err.(*FileError)
	if !ok {
		t.Fatal(err)
	}
	for _, want := range []string{":3:", ":4:", "the same for everybody", ":5:", "kept for its owner", ":6:", ":7:", "the broker's own", ":9:", ":10:", "disk"} {
		if !strings.Contains(bad.Error(), want) {
			t.Errorf("no %q in\n%v", want, bad)
		}
	}
	for text, want := range map[string]string{
		"durability: memory":     "durability",
		"durability: {log: [a]}": "`log` without `memory`",
		"durability: {memory: [" + strings.Repeat("a,", MaxDurability) + "a]}": "more than 1000 filters",
	} {
		if _, err := Parse("policy.yaml", []byte(text), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
}
