package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The demo shows what the broker did, no more and no less: its lines add up to
// its summary, which is the last of them, and to the broker's counters. Plain
// topics: one subscriber's window opens and closes, another is refused, and the
// machine's end is told by its will. Of people each sees what their owners say.
func TestDemoShowsWhatTheBrokerDid(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	feed := newFeed(&out)
	f := devFlags{domain: "example.com", runFor: 5 * time.Second}
	d, err := newDemo(feed, f.domain, f.runFor)
	if err != nil {
		t.Fatal(err)
	}
	c := f.config(os.Stderr)
	c.policy, c.trust, c.tap = d.firstPolicy(), trustBareNames, d
	s, err := startServer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.run(t.Context(), s); err != nil {
		t.Error(err)
	}
	stats := s.broker.Stats()
	published, delivered, withheld := stats.Published[1].Load(), stats.Delivered[1].Load(), stats.Withheld.Load()
	if err := s.shutdown(); err != nil {
		t.Error(err)
	}

	text := out.String()
	count := func(pattern string) uint64 {
		return uint64(len(regexp.MustCompile(`(?m)`+pattern).FindAllString(text, -1)))
	}
	events, shown, neutral, unsent := count(`^delivered `), count(`^shown `), count(`^neutral `), count(`^unsent `)
	if events+shown+neutral != delivered || events < 15 {
		t.Errorf("%d lines of events, %d and %d of documents, the broker counted %d deliveries", events, shown, neutral, delivered)
	}
	if got := count(`^withheld `); got != withheld || got < 4 {
		t.Errorf("%d lines of what was withheld, the broker counted %d", got, withheld)
	}
	documents := count(`^(policy|publish) `)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	want := fmt.Sprintf("%d events, %d delivered, %d withheld by policy, 1 refused; %d documents and messages, %d shown, %d neutral, %d unsent. Next: ",
		published+1-documents, events, withheld, documents, shown, neutral, unsent) // the will is an event, too
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, want) {
		t.Errorf("the last line is %q, want %q", last, want)
	}
	for name, pattern := range map[string]string{
		"before the window":   `^withheld +hosts/\S+/load .* ⇥ night .* the window of rule night-shift is closed .*; opens \d\d:`,
		"at its opening":      `^delivered  hosts/\S+/load .* → night +state at the opening$`,
		"while it is open":    `^delivered  hosts/\S+/load .* → night +\d+\.\d ms$`,
		"after it":            `^withheld +hosts/\S+/load .* ⇥ night .*has closed for good`,
		"a rule that denies":  `^withheld +hosts/\S+/net .* ⇥ intern +rule no-network-for-interns denies it$`,
		"a refusal":           `^refused .* visitor .* no rule allows`,
		"the will":            `^delivered  hosts/\S+/online +offline .* → dashboard +the will of `,
		"a measured latency":  `^delivered  hosts/\S+/load +\d+\.\d+ .* → dashboard +\d+\.\d ms$`,
		"an exact place":      `^shown +location/\S+ .* → dashboard +ana's rule dispatch shows \{"civic":"city","radius":0\}$`,
		"a circle":            `^shown +location/\S+ .* → bo-phone +ana's rule friends shows \{"radius":1000\}$`,
		"nobody's rule":       `^neutral +presence/\S+/ana .* ⇥ zoe +ana's policy: no rule is about this watcher: handling block is the default$`,
		"no policy":           `^neutral +presence/\S+/nobody .* ⇥ zoe +nobody's policy: no rule is about this watcher: handling confirm is the default$`,
		"a change for others": `^unsent +presence/\S+/ana +still offline +ana ⇥ zoe +ana's policy: no rule`,
		"a message":           `^delivered  im/\S+/ana +"lunch at one\?" +bo → ana-phone +no. 1 in the inbox; ana's rule friends$`,
		"and its copy":        `^delivered  im/\S+/ana +"lunch at one\?" +bo → ana-pc +no. 1 in the inbox; ana's rule friends$`,
		"a message refused":   `^delivered  im/\S+/zoe/reports +failed: unavailable +ana ⇥ zoe +ana's policy: no rule`,
		"a closed window":     `^neutral +presence/\S+/bo .* ⇥ boss +bo's rule office does not hold: validity from \S+Z until \S+Z$`,
		"what a rule allows":  `^shown +presence/\S+/bo .* → boss +bo's rule office$`,
	} {
		if count(pattern) == 0 {
			t.Errorf("%s: no line like %q", name, pattern)
		}
	}
	for _, never := range []string{`^delivered  hosts/\S+/net .* → intern`, `^(delivered|withheld).* visitor`, `NOT AS`, `^shown .* zoe`, `^shown .* boss .*room`} {
		if count(never) != 0 {
			t.Errorf("a line like %q", never)
		}
	}
	if got := count(`^delivered +im/`); got != 3 {
		t.Errorf("%d lines of messages and reports, want 3", got)
	}
	checkScenes(t, d, text)
	if readings := int(count(`^(delivered|withheld) +hosts/`)); len(lines)-readings > 55 {
		t.Errorf("%d lines beside the machine's readings are too many to read", len(lines)-readings)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// checkScenes checks which documents each client was shown of each resource, in
// which order.
func checkScenes(t *testing.T, d *demo, text string) {
	got := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^(shown|neutral) +(\S+) +(.*?)  +\S+ [→⇥] (\S+) `).FindAllStringSubmatch(text, -1) {
		key := m[4] + " " + m[2]
		got[key] = append(got[key], m[1]+" "+m[3])
	}
	both, circle := "shown available (2 devices)", "shown 1 km at 40.416,-3.703"
	want := map[string][]string{
		"bo-phone presence/example.com/ana":        {both, `shown busy (2 devices) "on a call"`},
		"bo-pc presence/example.com/ana":           {both, `shown busy (2 devices) "on a call"`},
		"ana-phone presence/example.com/bo":        {both, `shown meeting (2 devices) "room 4"`},
		"ana-pc presence/example.com/bo":           {both, `shown meeting (2 devices) "room 4"`},
		"boss presence/example.com/bo":             {"neutral offline", both, "shown meeting (2 devices)", "neutral offline"},
		"zoe presence/example.com/ana":             {"neutral offline"},
		"zoe presence/example.com/nobody":          {"neutral offline"},
		"dashboard presence/example.com/" + d.host: {"shown available"},
		"dashboard location/example.com/ana":       {"shown 40.4168,-3.7038 Madrid", "shown 40.4175,-3.7038 Madrid"},
		"bo-phone location/example.com/ana":        {circle},
	}
	// At a full quarter of an hour the circle is sent again: its time is another.
	if c := got["bo-phone location/example.com/ana"]; len(c) == 2 && c[1] == circle {
		got["bo-phone location/example.com/ana"] = c[:1]
	} else if !regexp.MustCompile(`(?m)^unsent +location/\S+ +still 1 km at \S+ +ana ⇥ bo-phone `).MatchString(text) {
		t.Error("ana moved within the circle, and nothing says that bo was sent nothing")
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		for key := range want {
			if !slices.Equal(got[key], want[key]) {
				t.Errorf("%s: %q, want %q", key, got[key], want[key])
			}
			delete(got, key)
		}
		if len(got) > 0 {
			t.Errorf("and besides %q", got)
		}
	}
	last := d.tally.last
	known, unknown := string(last["zoe presence/example.com/ana"]), string(last["zoe presence/example.com/nobody"])
	if known == "" || strings.ReplaceAll(known, "pres:ana@", "pres:"+nobody+"@") != unknown {
		t.Errorf("to zoe ana is %s, and somebody who does not exist is %s", known, unknown)
	}
}

// The demo says so when a document is not what the owner's policy says, in
// either direction; of one that is sent at an edge of a window both are right.
func TestDemoChecksPolicies(t *testing.T) {
	d, err := newDemo(newFeed(io.Discard), "example.com", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.feed.end("")
	opens := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	of := d.resource("presence", "bo")
	d.exists(of)
	if _, err := d.ownPolicy(of, []ownRule{{id: "office", who: "boss", show: ofPresence, window: shift{opens, opens.Add(time.Minute)}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who     string
		at      time.Time
		neutral bool
		agrees  bool
		how     string
	}{
		{"boss", opens.Add(-time.Minute), true, true, "bo's rule office does not hold: validity from 2026-03-09T12:00:00Z until 2026-03-09T12:01:00Z"},
		{"boss", opens.Add(-time.Minute), false, false, ""},
		{"boss", opens.Add(30 * time.Second), false, true, "bo's rule office"},
		{"boss", opens.Add(30 * time.Second), true, false, ""},
		{"boss", opens.Add(justBefore / 2), true, true, "bo's rule office does not hold"},
		{"boss", opens.Add(time.Minute + justBefore/2), false, true, "bo's rule office"},
		{"boss", opens.Add(time.Minute + 2*justBefore), false, false, ""},
		{"boss", opens.Add(time.Hour), true, true, "bo's rule office does not hold"},
		{"zoe", opens.Add(30 * time.Second), true, true, "bo's policy: no rule is about this watcher"},
		{"zoe", opens.Add(30 * time.Second), false, false, ""},
	} {
		how, agrees := d.explain(of, c.who, c.neutral, c.at)
		if agrees != c.agrees || !strings.HasPrefix(how, c.how) {
			t.Errorf("%s at %s, neutral %t: %q, %t", c.who, c.at.Format(time.TimeOnly), c.neutral, how, agrees)
		}
	}
}

// A machine's name becomes an address that is nobody's of the cast.
func TestHostAddress(t *testing.T) {
	for name, want := range map[string]string{
		"web1": "web1", "Web-1.Example": "web-1.example", "a b/c+#": "a-b-c--", "": "this-host", "ana": "this-host", "größe": "gr--e",
	} {
		if got := hostAddress(name, map[string]string{"ana": "token"}); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
