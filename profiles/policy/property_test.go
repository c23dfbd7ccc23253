package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	_ "github.com/bellwire/bellwire/internal/fixedseed"
	"github.com/bellwire/bellwire/internal/letter"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
)

// A small world in which policies are made up: few enough people, spheres and
// times that rules meet.
var (
	worldPeople = []string{"", "ana@example.com", "boss@example.com", "zoe@example.net"}
	worldWho    = []string{
		``, ``, `"identity": [{"one": "pres:ana@example.com"}]`, `"identity": [{"one": "im:boss@example.com"}, {"one": "pres:zoe@example.net"}]`,
		`"identity": [{"many": {"domain": "example.com"}}]`, `"identity": [{"many": {"except": [{"id": "pres:ana@example.com"}]}}]`,
		`"identity": [{"many": {"except": [{"domain": "example.com"}]}}]`,
	}
	worldSphere = []string{"", "work", "home"}
	worldTimes  = []string{"2026-03-28T12:00:00Z", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-30T08:00:00Z", "2026-03-31T17:30:00Z", "2026-04-05T00:00:00Z"}
	worldShow   = []string{`"note": true`, `"services": ["im"]`, `"services": ["*"]`, `"userInput": "bare"`, `"userInput": "full"`, `"radius": 5000`, `"radius": 10`}
)

// worldZones are filled in by the test that needs them.
var worldZones = map[string]*time.Location{"Europe/Madrid": nil, "America/Chicago": nil, "Australia/Lord_Howe": nil}

// A drawn rule or limit: what stands in the document, and what it means by a
// reader of its own.
type drawn struct {
	limit    bool
	text     string
	who      string
	sphere   []string
	validity [][2]time.Time // zero: open
	weekly   *drawnWeekly
	unknown  bool
	handling Handling
	show     []string
}

type drawnWeekly struct {
	zone   string
	days   []time.Weekday
	start  int // minutes of the day
	end    int
	except string
}

func drawRule(t *rapid.T, i int) drawn {
	d := drawn{limit: rapid.IntRange(0, 5).Draw(t, "limit") == 0, who: rapid.SampledFrom(worldWho).Draw(t, "who")}
	var conditions []string
	if rapid.IntRange(0, 2).Draw(t, "has sphere") == 0 {
		d.sphere = []string{rapid.SampledFrom(worldSphere[1:]).Draw(t, "sphere")}
		conditions = append(conditions, fmt.Sprintf(`"sphere": [%q]`, d.sphere[0]))
	}
	if rapid.IntRange(0, 2).Draw(t, "has validity") == 0 {
		var list []string
		for range rapid.IntRange(1, 2).Draw(t, "validities") {
			pair := rapid.SliceOfNDistinct(rapid.SampledFrom(worldTimes), 2, 2, rapid.ID[string]).Draw(t, "validity")
			slices.Sort(pair)
			list = append(list, fmt.Sprintf(`{"from": %q, "until": %q}`, pair[0], pair[1]))
			from, _ := time.Parse(time.RFC3339, pair[0])
			until, _ := time.Parse(time.RFC3339, pair[1])
			d.validity = append(d.validity, [2]time.Time{from, until})
		}
		conditions = append(conditions, `"validity": [`+strings.Join(list, ",")+`]`)
	}
	if rapid.Bool().Draw(t, "has weekly") {
		w := &drawnWeekly{
			zone:   rapid.SampledFrom([]string{"Europe/Madrid", "America/Chicago", "Australia/Lord_Howe"}).Draw(t, "zone"),
			days:   rapid.SliceOfNDistinct(rapid.SampledFrom([]time.Weekday{0, 1, 2, 3, 4, 5, 6}), 1, 7, rapid.ID[time.Weekday]).Draw(t, "days"),
			except: rapid.SampledFrom([]string{"", "2026-03-29", "2026-03-30"}).Draw(t, "except"),
		}
		hours := rapid.SampledFrom([][2]int{{480, 1020}, {480, 720}, {720, 1020}, {0, 1440}, {1320, 360}, {135, 165}}).Draw(t, "hours")
		w.start, w.end = hours[0], hours[1]
		var names []string
		for _, day := range w.days {
			names = append(names, `"`+strings.ToLower(day.String()[:3])+`"`)
		}
		except := ""
		if w.except != "" {
			except = fmt.Sprintf(`, "exceptDates": [%q]`, w.except)
		}
		d.weekly = w
		conditions = append(conditions, fmt.Sprintf(`"weekly": {"tz": %q, "windows": [{"days": [%s], "start": "%02d:%02d", "end": "%02d:%02d"}]%s}`,
			w.zone, strings.Join(names, ","), w.start/60, w.start%60, w.end/60, w.end%60, except))
	}
	if d.unknown = rapid.IntRange(0, 7).Draw(t, "unknown") == 0; d.unknown || d.limit && conditions == nil {
		d.unknown = true
		conditions = append(conditions, `"moonPhase": "full"`)
	}
	id := fmt.Sprintf("%d", i)
	if d.limit {
		d.text = fmt.Sprintf(`{"id": %q, "who": {%s}, "only": {%s}}`, id, d.who, strings.Join(conditions, ","))
		return d
	}
	if d.who != "" {
		conditions = append(conditions, d.who)
	}
	d.handling = rapid.SampledFrom([]Handling{Block, Confirm, PoliteBlock, Allow, Allow, Allow, Allow}).Draw(t, "handling")
	d.show = rapid.SliceOfN(rapid.SampledFrom(worldShow), 0, 3).Draw(t, "show")
	d.show = slices.CompactFunc(slices.Sorted(slices.Values(d.show)), func(a, b string) bool {
		return strings.SplitN(a, ":", 2)[0] == strings.SplitN(b, ":", 2)[0] // a member once
	})
	d.text = fmt.Sprintf(`{"id": %q, "if": {%s}, "then": {"handling": %q}, "show": {%s}}`, id, strings.Join(conditions, ","), d.handling, strings.Join(d.show, ","))
	return d
}

func document(rules []drawn, handling Handling) string {
	var list, limits []string
	for _, d := range rules {
		if d.limit {
			limits = append(limits, d.text)
		} else {
			list = append(list, d.text)
		}
	}
	return fmt.Sprintf(`{"v": 1, "defaults": {"handling": %q}, "rules": [%s], "limits": [%s]}`, handling, strings.Join(list, ","), strings.Join(limits, ","))
}

// The reference reads the requirements once more, in the dumbest way.

func (d *drawn) concerns(who string) bool {
	switch d.who {
	case ``:
		return true
	case worldWho[2]:
		return who == "ana@example.com"
	case worldWho[3]:
		return who == "boss@example.com" || who == "zoe@example.net"
	case worldWho[4]:
		return strings.HasSuffix(who, "@example.com")
	case worldWho[5]:
		return who != "" && who != "ana@example.com"
	default:
		return who != "" && !strings.HasSuffix(who, "@example.com")
	}
}

func (d *drawn) open(at time.Time, sphere string) bool {
	if d.unknown || d.sphere != nil && d.sphere[0] != sphere {
		return false
	}
	valid := d.validity == nil
	for _, v := range d.validity {
		valid = valid || !at.Before(v[0]) && at.Before(v[1])
	}
	return valid && (d.weekly == nil || d.weekly.open(at))
}

func (w *drawnWeekly) open(at time.Time) bool {
	local := at.In(worldZones[w.zone])
	minute := local.Hour()*60 + local.Minute()
	on := func(day time.Time) bool {
		return slices.Contains(w.days, day.Weekday()) && day.Format(time.DateOnly) != w.except
	}
	noon := time.Date(local.Year(), local.Month(), local.Day(), 12, 0, 0, 0, time.UTC)
	if w.end > w.start {
		return on(noon) && w.start <= minute && minute < w.end
	}
	return on(noon) && minute >= w.start || on(noon.AddDate(0, 0, -1)) && minute < w.end
}

func reference(rules []drawn, standard Handling, who, sphere string, at time.Time) (Handling, View, string) {
	handling, named := Block, false
	live, cut := Block, false
	shown := map[string]bool{}
	for _, d := range rules {
		if !d.concerns(who) {
			continue
		}
		if d.limit {
			cut = cut || !d.open(at, sphere)
			continue
		}
		ever := d.validity == nil
		for _, v := range d.validity {
			ever = ever || at.Before(v[1])
		}
		if d.unknown || !ever {
			continue
		}
		named = true
		handling = max(handling, d.handling)
		if d.open(at, sphere) {
			live = max(live, d.handling)
			for _, s := range d.show {
				shown[s] = true
			}
		}
	}
	if !named {
		handling = standard
	}
	if handling < PoliteBlock {
		return handling, ViewNone, ""
	}
	if live < Allow || len(shown) == 0 || cut {
		return handling, ViewNeutral, ""
	}
	// More of one kind makes less mean nothing.
	for more, less := range map[string]string{worldShow[2]: worldShow[1], worldShow[4]: worldShow[3], worldShow[6]: worldShow[5]} {
		if shown[more] {
			delete(shown, less)
		}
	}
	var list []string
	for s := range shown {
		list = append(list, s)
	}
	slices.Sort(list)
	return handling, ViewFiltered, strings.Join(list, " ")
}

// describe writes a grant as reference does.
func describe(g kind.Grant) string {
	var list []string
	for _, s := range worldShow {
		if p := parseShow(s); g.Covers(p) && !(s == worldShow[1] && g.Allows("services", "sip")) && !(s == worldShow[3] && g.Max("userInput") > 1) {
			if n, _ := g.Min("radius"); s == worldShow[5] && n < 5000 {
				continue
			}
			list = append(list, s)
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func parseShow(s string) kind.Grant {
	p, err := Parse([]byte(`{"v": 1, "rules": [{"id": "r", "show": {`+s+`}}]}`), pres, bob)
	if err != nil {
		panic(err)
	}
	return p.rules[0].show
}

// Against the dumb reading: at any instant the same decision; and until the
// instant that it names nothing changes, and there something does. The dumb
// one looks at every quarter of an hour.
func TestDecisionsAndTheirEnds(t *testing.T) {
	for name := range worldZones {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Skipf("missing: time zone %s, install tzdata", name)
		}
		worldZones[name] = zone
	}
	start := time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var rules []drawn
		for i := range rapid.IntRange(0, 5).Draw(t, "rules") {
			rules = append(rules, drawRule(t, i))
		}
		standard := rapid.SampledFrom([]Handling{Block, Confirm, PoliteBlock}).Draw(t, "default")
		text := document(rules, standard)
		p, err := Parse([]byte(text), pres, bob)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		who := rapid.SampledFrom(worldPeople).Draw(t, "watcher")
		sphere := rapid.SampledFrom(worldSphere).Draw(t, "sphere")
		at := start.Add(time.Duration(rapid.IntRange(0, 9*24*3600).Draw(t, "at")) * time.Second)
		d := p.Evaluate(kind.Of(who), at, Input{Sphere: sphere})
		check := func(at time.Time, d Decision) bool {
			h, v, shown := reference(rules, standard, who, sphere, at)
			return d.Handling == h && d.View == v && describe(d.Grant) == shown
		}
		if !check(at, d) {
			h, v, shown := reference(rules, standard, who, sphere, at)
			t.Fatalf("%s\nfor %q at %s: %s %s %s, want %s %s %s", text, who, at, d.Handling, d.View, describe(d.Grant), h, v, shown)
		}
		const step = 15 * time.Minute // all that changes in this world does so at one of these
		end := at.Add(8 * 24 * time.Hour)
		if !d.Until.IsZero() {
			if !d.Until.After(at) {
				t.Fatalf("%s\nuntil %s at %s", text, d.Until, at)
			}
			// Windows that relieve each other end the search, after a while.
			if check(d.Until, d) && d.Until.Before(at.AddDate(0, 0, 1)) {
				t.Fatalf("%s\nfor %q at %s: nothing changes at %s", text, who, at, d.Until)
			}
			end = d.Until
		}
		for u := at.Truncate(step).Add(step); u.Before(end) && u.Before(at.Add(8*24*time.Hour)); u = u.Add(step) {
			if !check(u, d) {
				t.Fatalf("%s\nfor %q: decided at %s, changes at %s, said %s", text, who, at, u, d.Until)
			}
		}
		if e := p.Explain(kind.Of(who), at, Input{Sphere: sphere}); !e.equal(&d) || e.Because == "" || len(e.Rules)+len(e.Limits) != len(rules) {
			t.Fatalf("%s\nexplained as %+v", text, e)
		}
	})
}

// A rule more never shows less, and a limit more never shows more; their order
// makes no difference.
func TestRulesWidenLimitsNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []drawn
		for i := range rapid.IntRange(1, 6).Draw(t, "rules") {
			rules = append(rules, drawRule(t, i))
		}
		who := kind.Of(rapid.SampledFrom(worldPeople).Draw(t, "watcher"))
		in := Input{Sphere: rapid.SampledFrom(worldSphere).Draw(t, "sphere")}
		at := time.Date(2026, 3, 28, rapid.IntRange(0, 100).Draw(t, "hour"), 0, 0, 0, time.UTC)
		decide := func(rules []drawn) Decision {
			p, err := Parse([]byte(document(rules, Block)), pres, bob)
			if err != nil {
				t.Fatal(err)
			}
			return p.Evaluate(who, at, in)
		}
		all := decide(rules)
		shuffled := decide(rapid.Permutation(rules).Draw(t, "shuffled"))
		if !all.equal(&shuffled) || !all.Until.Equal(shuffled.Until) {
			t.Fatalf("in another order %+v, not %+v", shuffled, all)
		}
		last := rules[len(rules)-1]
		without := decide(rules[:len(rules)-1])
		switch {
		case last.limit && !without.Grant.Covers(all.Grant), last.limit && without.Handling != all.Handling:
			t.Errorf("the limit %s widens", last.text)
		case !last.limit && !all.Grant.Covers(without.Grant), !last.limit && all.Handling < without.Handling:
			t.Errorf("the rule %s narrows", last.text)
		}
	})
}

// relay is a policy of rules that relieve each other round the clock, each a
// minute before the one before it ends, without any effect, and of others that
// have many validities and are never open.
func relay(t *testing.T, weekly, others, validities int, last string) *Policy {
	var rules []string
	for i := range weekly {
		start, end := i*24*60/weekly, (i+1)*24*60/weekly+1
		show := `"note": true`
		if i == weekly-1 {
			end, show = 24*60, show+last
		}
		rules = append(rules, fmt.Sprintf(`{"id": "%d", "if": {"weekly": {"tz": "UTC", "windows": [{"days": ["mon","tue","wed","thu","fri","sat","sun"],
			"start": "%02d:%02d", "end": "%02d:%02d"}]}}, "then": {"handling": "allow"}, "show": {%s}}`, i, start/60, start%60, end/60, end%60, show))
	}
	far := strings.TrimSuffix(strings.Repeat(`{"from": "2190-01-01T00:00:00Z"},`, validities), ",")
	for i := range others {
		rules = append(rules, fmt.Sprintf(`{"id": "o%d", "if": {"validity": [%s]}, "then": {"handling": "allow"}, "show": {"note": true}}`, i, far))
	}
	return parse(t, `{"v":1,"rules":[`+strings.Join(rules, ",")+`]}`)
}

// Rules relieve each other for good without any effect: the search ends after a
// number of edges that goes down as the policy grows, and asking again goes on.
func TestEdgesWithoutEffect(t *testing.T) {
	ana, at := kind.Of("ana@example.com"), time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		weekly, others, validities int
		least, most                time.Duration // how far it looks
	}{
		{2, 0, 0, 14 * 24 * time.Hour, 40 * 24 * time.Hour},
		{3, 0, 0, 7 * 24 * time.Hour, 14 * 24 * time.Hour},
		{90, 0, 0, time.Minute, time.Hour},
		{2, 15, 50, time.Minute, 24 * time.Hour},
	} {
		p := relay(t, c.weekly, c.others, c.validities, "")
		for now := at; now.Before(at.AddDate(0, 0, 3)); {
			d := p.Evaluate(ana, now, Input{})
			if ahead := d.Until.Sub(now); d.View != ViewFiltered || ahead < c.least || ahead > c.most {
				t.Fatalf("%+v: at %s until %s (%v)", c, now, d.Until, ahead)
			}
			now = d.Until
		}
	}
	// One of them shows more: that edge is found behind all others.
	d := relay(t, 5, 0, 0, `, "activities": true`).Evaluate(ana, at, Input{})
	if want := at.Add(4 * 24 * time.Hour / 5); !d.Until.Equal(want) {
		t.Errorf("until %s, want %s", d.Until, want)
	}
}

// Now is Evaluate, but for the end.
func TestNow(t *testing.T) {
	at := time.Date(2026, 3, 9, 0, 30, 0, 0, time.UTC)
	p := relay(t, 3, 0, 0, `, "activities": true`)
	for range 24 {
		for _, who := range []kind.Addr{{}, bob, kind.Of("ana@example.com")} {
			d, is := p.Evaluate(who, at, Input{}), p.Now(who, at, Input{})
			if !is.equal(&d) {
				t.Errorf("at %s about %v it decides %+v, want %+v", at, who, is, d)
			}
		}
		at = at.Add(time.Hour)
	}
}

// Whatever the bytes, a policy is made of them, which decides, or every fault
// is told.
func FuzzParse(f *testing.F) {
	vectors, err := os.ReadFile("testdata/policy.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(vectors)
	if i := strings.Index(string(vectors), `"policyWithLimit": `); i > 0 {
		f.Add(vectors[len("{\n \"policy\": ") : i-3])
	}
	f.Add([]byte(`{"v":1,"rules":[{"id":"r","if":{"identity":[{"many":{"domain":"a.b","except":[{"id":"pres:a@b.c"}]}}],"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"08:00","end":"07:00"}]}},"then":{"handling":"allow"},"show":{"services":["im"],"radius":1}}],"limits":[{"id":"l","only":{"validity":[{"from":"2026-01-01T00:00:00Z"}]}}],"delegates":[{"one":"pres:a@b.c","sources":["x"],"read":true,"until":"2026-01-01T00:00:00Z"}]}`))
	at := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, pres, bob)
		if err != nil {
			r, ok := errors.AsType[*kind.Refusal](err)
			if !ok || len(r.Faults) == 0 || r.Faults[0].What == "" || !errors.Is(err, kind.ErrInvalid) && !errors.Is(err, kind.ErrTooBig) {
				t.Fatalf("%T: %.1000v", err, err)
			}
			return
		}
		for _, who := range []string{"", "a@b.c", "bob@example.com"} {
			d := p.Evaluate(kind.Of(who), at, Input{Sphere: "work"})
			if !d.Until.IsZero() && !d.Until.After(at) || (d.View == ViewFiltered) == d.Grant.IsZero() {
				t.Errorf("%q: %+v", who, d)
			}
			if e := p.Explain(kind.Of(who), at, Input{Sphere: "work"}); !e.equal(&d) {
				t.Errorf("%q: explained as %+v", who, e)
			}
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	data, err := os.ReadFile("testdata/policy.json")
	if err != nil {
		b.Fatal(err)
	}
	i := strings.Index(string(data), `"policyWithLimit": `)
	p, err := Parse(data[len("{\n \"policy\": "):i-3], pres, bob)
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 3, 9, 15, 0, 0, 0, time.UTC)
	for b.Loop() {
		p.Evaluate(kind.Addr{Local: "boss", Domain: "example.com"}, at, Input{Sphere: "work"})
	}
}

// Of two addresses of one domain that are not named by themselves whole documents and
// blocklists say the same, whatever else they say.
func TestUnnamedAreAlike(t *testing.T) {
	people := []string{"ana@example.com", "bob@example.com", "cat@example.com", "dan@example.com", "eve@example.com", "zoe@example.net", "yan@example.net"}
	k := presence.New(nil)
	compared, named := 0, 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 5))
		r := &letter.Random{Rand: rng, People: people[:3+rng.IntN(4)], Around: time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)}
		p, err := Parse(r.Owner(k.Name()), k, kind.Of(people[0]))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			at := r.Around.Add(time.Duration(i) * 7 * time.Hour)
			for _, a := range people {
				for _, b := range people {
					x, y := kind.Of(a), kind.Of(b)
					if p.Names(x) || p.Names(y) {
						named++
						continue
					}
					if a >= b || x.Domain != y.Domain {
						continue
					}
					in := Input{Auth: AuthOf(x)}
					d, e := p.Now(x, at, in), p.Now(y, at, in)
					if compared++; !d.equal(&e) || !p.StaticUntil(x, at, in).Equal(p.StaticUntil(y, at, in)) {
						t.Fatalf("seed %d: of %s is decided %+v, of %s %+v", seed, a, d, b, e)
					}
				}
			}
		}
	}
	if compared < 1000 || named < 1000 {
		t.Errorf("compared were %d, named %d", compared, named)
	}
	for text, apart := range map[string]bool{
		`{"v":1,"blocked":[{"one":"pres:ana@example.com"}]}`:                                                true,
		`{"v":1,"blocked":[{"many":{"except":[{"id":"pres:ana@example.com"}]}}]}`:                           true,
		`{"v":1,"blocked":[{"many":{"domain":"example.com","except":[{"id":"pres:ana@example.com"}]}}]}`:    true,
		`{"v":1,"blocked":[{"many":{"domain":"example.com"}},{"one":"pres:bob@example.com"}]}`:              false,
		`{"v":1,"blocked":[{"many":{"except":[{"domain":"example.com"}]}},{"one":"pres:bob@example.com"}]}`: false,
	} {
		l, err := ReadBlocklist([]byte(text), kind.Of(people[5]))
		if err != nil {
			t.Fatal(err)
		}
		if is := l.Names(kind.Of("ana@example.com")); is != apart {
			t.Errorf("%s: ana is named: %t", text, is)
		}
	}
}
