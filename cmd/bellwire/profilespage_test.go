package main

import (
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/presence"
)

// A sample is a block of a page: its language, what it is, and its text.
type sample struct{ language, what, text string }

// samples returns the blocks of a page, in order.
func samples(page string) (all []sample) {
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+) ?([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		all = append(all, sample{m[1], m[2], strings.TrimSpace(m[3])})
	}
	return all
}

// The reference page is true: what it says to publish is accepted, what it says
// follows from that does, its topics are spelt right, and it leaves out no
// permission and no limit.
func TestProfilesPage(t *testing.T) {
	page := readFile(t, "../../docs/profiles.md")
	r := pageReader{t: t, page: page, located: location.New(nil), texts: im.New()}
	for _, s := range samples(page) {
		r.read(s)
	}
	for what, least := range map[string]int{
		"presence": 2, "location": 2, "geojson": 1, "shown": 1, "im": 1, "envelope": 1, "report": 1, "typing": 1,
		"policy presence": 1, "policy location": 1, "policy im": 1, "limits": 1, "operator": 1, "clock": 2, "fault": 1, "blocklist": 1,
	} {
		if r.seen[what] < least {
			t.Errorf("%d examples of %s, want %d", r.seen[what], what, least)
		}
	}
	r.topics()
	r.decisions()
	r.served()
	for _, k := range []policy.For{presence.New(nil), location.New(nil), im.New()} {
		for _, p := range k.Permissions() {
			for _, word := range append([]string{p.Name}, p.Words...) {
				if !strings.Contains(page, "`"+word+"`") {
					t.Errorf("%s: the permission or word %s is left out", k.Name(), word)
				}
			}
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^    \$ bellwire (.*)$`).FindAllStringSubmatch(page+readFile(t, "../../docs/subscriptions.md"), -1) {
		if err := understood(shellWords(line[1])); err != nil {
			t.Errorf("bellwire %s: %v", line[1], err)
		}
	}
}

// A pageReader tries what a page says.
type pageReader struct {
	t       *testing.T
	page    string
	located *location.Kind
	texts   *im.Kind
	seen    map[string]int

	moves   []sample       // what is posted to the test endpoints
	first   any            // the first location document
	message kind.Message   // the last message
	owners  *policy.Policy // the policy for presence
}

var (
	pageAna   = kind.Of("ana@example.com")
	pageBob   = kind.Of("bob@example.com")
	pageAlice = kind.Of("alice@example.net")
	pageNow   = time.Date(2026, 3, 9, 12, 16, 50, 0, time.UTC)
)

func (r *pageReader) read(s sample) {
	r.t.Helper()
	if r.seen == nil {
		r.seen = map[string]int{}
	}
	r.seen[s.what]++
	doc := kind.Document{Body: []byte(s.text)}
	var err error
	switch s.what {
	case "presence":
		_, err = presence.New(nil).Parse(kind.Resource{Kind: "presence", Addr: pageAna}, doc)
	case "location", "geojson":
		var v any
		if v, err = r.located.Parse(kind.Resource{Kind: "location", Addr: pageAna}, doc); r.first == nil {
			r.first = v
		}
	case "shown":
		r.shown(s.text)
	case "im":
		r.message, err = r.texts.Identify(kind.Resource{Kind: "im", Addr: pageBob}, pageAlice, doc)
	case "envelope":
		if got := string(r.texts.Deliver(r.message, 42, pageNow).Body); got != s.text {
			r.t.Errorf("the envelope is\n%s, not\n%s", got, s.text)
		}
	case "report":
		_, err = r.texts.ReadReport(kind.Resource{Kind: "im", Addr: pageAlice}, pageBob, doc)
	case "typing":
		_, _, err = r.texts.Typing(kind.Resource{Kind: "im", Addr: pageBob}, pageAlice, doc)
	case "policy presence":
		r.owners, err = policy.Check(doc.Body, presence.New(nil), pageAna)
	case "policy location":
		_, err = policy.Check(doc.Body, r.located, pageAna)
	case "policy im":
		_, err = policy.Check(doc.Body, r.texts, pageAna)
	case "blocklist":
		_, err = policy.ReadBlocklist(doc.Body, pageAna)
	case "watcher":
		_, err = alias.ReadRules(doc.Body, pageAlice)
	case "limits":
		r.limits(s.text)
	case "operator":
		_, err = checkPolicy("policy.yaml", []byte(s.text), "")
	case "clock", "fault":
		r.moves = append(r.moves, s)
	default:
		r.t.Errorf("nobody knows what %q is", s.what)
	}
	if err != nil {
		r.t.Errorf("%s: %v in\n%s", s.what, err, s.text)
	}
}

// shown compares with what the policy for location shows of the first document.
func (r *pageReader) shown(want string) {
	r.t.Helper()
	for _, s := range samples(r.page) {
		if s.what != "policy location" {
			continue
		}
		p, err := policy.Check([]byte(s.text), r.located, pageAna)
		if err != nil {
			r.t.Fatal(err)
		}
		res := kind.Resource{Kind: "location", Addr: pageAna}
		c, err := r.located.Compose(pageNow, res, []kind.Publication{{Source: "phone", Publisher: pageAna, ETag: "1", Published: pageNow, Value: r.first}})
		if err != nil {
			r.t.Fatal(err)
		}
		grant := p.Evaluate(kind.Of("bo@example.com"), pageNow, policy.Input{}).Grant
		if got := string(r.located.Encode(r.located.View(c, grant)).Body); got != want {
			r.t.Errorf("shown is\n%s, not\n%s", got, want)
		}
	}
}

// topics tries the topics of the first table.
func (r *pageReader) topics() {
	r.t.Helper()
	table, _, _ := strings.Cut(r.page[strings.Index(r.page, "## Topics"):], "\n\nA source's")
	names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1)
	tried := 0
	for _, m := range names {
		name := m[1]
		if strings.Contains(name, "+") || !strings.Contains(name, "/example.com/") {
			continue
		}
		tried++
		if topic, err := kind.ParseTopic(name); err != nil || topic.Addr != pageAna {
			r.t.Errorf("%s: %v, %v", name, topic, err)
		}
	}
	if tried < 7 {
		r.t.Errorf("%d topics found", tried)
	}
}

// decisions works out the table beneath the policy for presence.
func (r *pageReader) decisions() {
	r.t.Helper()
	rows := regexp.MustCompile(`(?m)^\| (\S+@\S+) \| (\S+Z) \| (\S+) \| (\S+) \|$`).FindAllStringSubmatch(r.page, -1)
	if len(rows) < 6 || r.owners == nil {
		r.t.Fatalf("%d decisions found", len(rows))
	}
	for _, row := range rows {
		at, err := time.Parse(time.RFC3339, row[2])
		if err != nil {
			r.t.Fatal(err)
		}
		d := r.owners.Evaluate(kind.Of(row[1]), at, policy.Input{})
		sees := "neutral" // also if there is no view
		if d.View == policy.ViewFiltered {
			sees = "filtered"
		}
		if d.Handling.String() != row[3] || sees != row[4] {
			r.t.Errorf("%s at %s: %s and %s, not %s and %s", row[1], row[2], d.Handling, sees, row[3], row[4])
		}
	}
}

// served tries what is asked for by HTTP of a server whose clock stands.
func (r *pageReader) served() {
	r.t.Helper()
	c := testConfig(r.t, r.t.TempDir())
	c.clock = newTestClock(pageNow)
	s, err := startServer(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.shutdown()
	ask := func(method, path, body string) *http.Response {
		q, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+s.httpListener.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		q.SetBasicAuth("bo@example.com", "any")
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			r.t.Fatal(err)
		}
		_ = a.Body.Close()
		return a
	}
	rows := regexp.MustCompile("(?m)^\\| `GET (/v1/\\S+)` \\| (\\d+) \\| (yes|no) \\|").FindAllStringSubmatch(r.page, -1)
	if len(rows) < 6 {
		r.t.Errorf("%d requests found", len(rows))
	}
	for _, row := range rows {
		a := ask(http.MethodGet, row[1], "")
		if tagged := a.Header.Get("ETag") != ""; strconv.Itoa(a.StatusCode) != row[2] || tagged != (row[3] == "yes") {
			r.t.Errorf("%s: %s, entity tag %v, not %s and %s", row[1], a.Status, tagged, row[2], row[3])
		}
	}
	for _, m := range r.moves {
		if a := ask(http.MethodPost, "/v1/test/"+m.what, m.text); a.StatusCode != http.StatusOK {
			r.t.Errorf("%s %s: %s", m.what, m.text, a.Status)
		}
	}
}

// limits tries a limits file that names all rows but one, and says what they are
// without it.
func (r *pageReader) limits(text string) {
	r.t.Helper()
	said, err := readLimits(writeFile(r.t, "limits.yaml", text), readAtMost)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, row := range limitRows {
		if !strings.Contains(text, "\n  "+row.name+": ") && !strings.Contains(r.page, "`"+row.name+"`") {
			r.t.Errorf("%s is left out", row.name)
		}
	}
	if got, want := said.broker.WithDefaults(), (limits{}).broker.WithDefaults(); got != want {
		r.t.Errorf("the defaults are %+v, not %+v", want, got)
	}
	if got, want := said.im.WithDefaults(), (limits{}).im.WithDefaults(); got != want {
		r.t.Errorf("the defaults are %+v, not %+v", want, got)
	}
	if got, want := said.state.WithDefaults(), (limits{}).state.WithDefaults(); got != want {
		r.t.Errorf("the defaults are %+v, not %+v", want, got)
	}
	inEffect := func(l limits) mqtt.Limits {
		c := devFlags{domain: "example.com"}.config(os.Stderr)
		c.limits, c.logger = l, slog.New(slog.DiscardHandler)
		s, err := startServer(r.t.Context(), c)
		if err != nil {
			r.t.Fatal(err)
		}
		defer s.shutdown()
		return s.mqtt.Limits()
	}
	if got, want := inEffect(said), inEffect(limits{}); got != want {
		r.t.Errorf("the defaults are %+v, not %+v", want, got)
	}
}
