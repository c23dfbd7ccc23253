package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// A kind as far as policies know it.
type forKind struct {
	name        string
	permissions []kind.Permission
}

func (k forKind) Name() string                   { return k.name }
func (k forKind) Permissions() []kind.Permission { return k.permissions }

// spheredKind is one that knows where in life an owner is.
type spheredKind struct {
	kind.Kind // nil: only what is below is asked for
	forKind
}

func (k spheredKind) Name() string                   { return k.forKind.Name() }
func (k spheredKind) Permissions() []kind.Permission { return k.forKind.Permissions() }
func (spheredKind) Sphere(*kind.Composed) string     { return "" }

// pres has permissions of every type.
var pres = forKind{"presence", []kind.Permission{
	{Name: "services", Type: kind.PermSet, Check: func(token string) error {
		if strings.ContainsAny(token, " ") {
			return errors.New("no service has a blank in it")
		}
		return nil
	}},
	{Name: "activities", Type: kind.PermBool},
	{Name: "note", Type: kind.PermBool},
	{Name: "userInput", Type: kind.PermMax, Words: []string{"none", "bare", "thresholds", "full"}},
	{Name: "radius", Type: kind.PermMin, Max: 1000000},
	{Name: "retention", Type: kind.PermMax, Max: 86400},
}}

var bob = kind.Addr{Local: "bob", Domain: "example.com"}

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse([]byte(text), pres, bob)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func addr(t testing.TB, s string) kind.Addr {
	t.Helper()
	if s == "" {
		return kind.Addr{}
	}
	a, err := kind.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The computed vectors of the requirements: a boss with hours, colleagues,
// somebody who is politely blocked, a visit, and a condition of the future,
// without a limit and with one.
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	type testCase struct {
		Name    string
		Watcher *string
		At      string
		Sphere  *string
		Expect  struct {
			Handling    string
			Live, CutBy []string
			View        string
			Show        json.RawMessage
		}
	}
	var file struct {
		Policy, PolicyWithLimit json.RawMessage
		Cases, CasesWithLimit   []testCase
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) != 14 || len(file.CasesWithLimit) != 6 {
		t.Fatalf("%d and %d cases, want 14 and 6", len(file.Cases), len(file.CasesWithLimit))
	}
	run := func(policy json.RawMessage, cases []testCase) {
		p := parse(t, string(policy))
		if w := p.Warnings(); len(w) != 1 || w[0].Pointer != "/rules/4/if/moonPhase" {
			t.Errorf("warnings: %v", w)
		}
		for _, c := range cases {
			watcher, in := kind.Addr{}, Input{}
			if c.Watcher != nil {
				watcher = addr(t, *c.Watcher)
			}
			if c.Sphere != nil {
				in.Sphere = *c.Sphere
			}
			at := instant(t, c.At)
			e := p.Explain(watcher, at, in)
			if e.Handling.String() != c.Expect.Handling || e.View.String() != c.Expect.View ||
				!slices.Equal(e.Live, c.Expect.Live) || !slices.Equal(e.CutBy, c.Expect.CutBy) {
				t.Errorf("%s: %s, %s, live %q, cut by %q, want %+v", c.Name, e.Handling, e.View, e.Live, e.CutBy, c.Expect)
			}
			var got, want any
			show := e.Grant.Append(nil, pres.permissions)
			if json.Unmarshal(show, &got) != nil || json.Unmarshal(c.Expect.Show, &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: shows %s, want %s", c.Name, show, c.Expect.Show)
			}
			if d := p.Evaluate(watcher, at, in); !d.equal(&e.Decision) || !d.Until.Equal(e.Until) {
				t.Errorf("%s: explained as %+v, decided as %+v", c.Name, e.Decision, d)
			}
		}
	}
	run(file.Policy, file.Cases)
	run(file.PolicyWithLimit, file.CasesWithLimit)
}

// RFC 4745 section 10.3, as printed: of six rules the third and the fifth fire.
func TestRFC4745Example(t *testing.T) {
	k := forKind{"presence", []kind.Permission{
		{Name: "X", Type: kind.PermBool},
		{Name: "Y", Type: kind.PermMax, Max: 100},
		{Name: "Z", Type: kind.PermMax, Words: []string{"-", "o", "+"}},
	}}
	a1, a2, a3 := "2003-12-24T17:00:00+01:00", "2003-12-24T21:00:00+01:00", "2003-12-24T23:30:00+01:00"
	b1, b2 := "2003-12-22T17:00:00+01:00", "2003-12-23T17:00:00+01:00"
	rule := func(id, who, sphere, from, until, show string) string {
		return fmt.Sprintf(`{"id": %q, "if": {"identity": [{"one": "pres:%s@example.com"}], "sphere": [%q],
			"validity": [{"from": %q, "until": %q}]}, "then": {"handling": "allow"}, "show": {%s}}`, id, who, sphere, from, until, show)
	}
	owner := kind.Addr{Local: "pt", Domain: "example.com"}
	p, err := Parse([]byte(`{"v": 1, "rules": [`+strings.Join([]string{
		rule("1", "bob", "home", a1, a2, `"X": true, "Y": 10, "Z": "o"`),
		rule("2", "alice", "work", a1, a2, `"X": false, "Y": 5, "Z": "+"`),
		rule("3", "bob", "work", a1, a2, `"X": true, "Y": 3, "Z": "-"`),
		rule("4", "tom", "work", a1, a2, `"X": true, "Y": 5, "Z": "+"`),
		rule("5", "bob", "work", a1, a3, `"X": null, "Y": 12, "Z": "o"`),
		rule("6", "bob", "work", b1, b2, `"X": false, "Y": 10, "Z": "-"`),
	}, ",")+`]}`), k, owner)
	if err != nil {
		t.Fatal(err)
	}
	e := p.Explain(bob, instant(t, "2003-12-24T17:15:00+01:00"), Input{Sphere: "work"})
	if got, want := string(e.Grant.Append(nil, k.permissions)), `{"X":true,"Y":12,"Z":"o"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !slices.Equal(e.Live, []string{"3", "5"}) {
		t.Errorf("live: %q", e.Live)
	}
	if want := instant(t, a2); !e.Until.Equal(want) {
		t.Errorf("until %s, want %s: X is rule 3's", e.Until, want)
	}
}

// What single members mean, told by who sees what.
func TestMeanings(t *testing.T) {
	const monday = "2026-03-09T15:00:00Z" // 10:00 in Chicago
	hours := `"weekly": {"tz": "America/Chicago", "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}`
	allow := func(rest string) string {
		return `{"v": 1, "rules": [{"id": "r", ` + rest + `, "then": {"handling": "allow"}, "show": {"note": true}}]}`
	}
	for _, c := range []struct {
		name, policy, who string
		in                Input
		want              string // handling and view
		until             string
	}{
		{"no rule, no default", `{"v": 1}`, "ana@example.com", Input{}, "block none", ""},
		{"default", `{"v": 1, "defaults": {"handling": "confirm"}}`, "ana@example.com", Input{}, "confirm none", ""},
		{"default polite", `{"v": 1, "defaults": {"handling": "polite-block"}}`, "ana@example.com", Input{}, "polite-block neutral", ""},
		{"a default that allows shows nothing", `{"v": 1, "defaults": {"handling": "allow"}}`, "ana@example.com", Input{}, "allow neutral", ""},
		{"the owner", `{"v": 1}`, "bob@example.com", Input{}, "allow filtered", ""},
		{"no identity means anybody", allow(`"if": {}`), "", Input{}, "allow filtered", ""},
		{"many means no stranger", allow(`"if": {"identity": [{"many": {}}]}`), "", Input{}, "block none", ""},
		{"many without domain means all others", allow(`"if": {"identity": [{"many": {}}]}`), "zoe@example.net", Input{}, "allow filtered", ""},
		{"another domain", allow(`"if": {"identity": [{"many": {"domain": "EXAMPLE.com."}}]}`), "zoe@example.net", Input{}, "block none", ""},
		{"a domain below is another", allow(`"if": {"identity": [{"many": {"domain": "example.com"}}]}`), "p@plant.example.com", Input{}, "block none", ""},
		{"excepted by id", allow(`"if": {"identity": [{"many": {"except": [{"id": "im:Zoe@example.net"}]}}]}`), "zoe@example.net", Input{}, "block none", ""},
		{"excepted by domain", allow(`"if": {"identity": [{"many": {"except": [{"domain": "example.net"}]}}]}`), "zoe@example.net", Input{}, "block none", ""},
		{"excepted in one, named in another", allow(`"if": {"identity": [{"many": {"except": [{"id": "pres:zoe@example.net"}]}}, {"one": "pres:zoe@example.net"}]}`), "zoe@example.net", Input{}, "allow filtered", ""},
		{"schemes of one address are one", allow(`"if": {"identity": [{"one": "im:Zoe@EXAMPLE.net"}]}`), "zoe@example.net", Input{}, "allow filtered", ""},
		{"schemes of others are nobody", allow(`"if": {"identity": [{"one": "mailto:zoe@example.net"}]}`), "zoe@example.net", Input{}, "block none", ""},
		{"identity demanded", `{"v": 1, "defaults": {"minVisibility": "identified", "handling": "confirm"}, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}]}`, "", Input{}, "block none", ""},
		{"a pseudonym demanded, none given", `{"v": 1, "defaults": {"minVisibility": "pseudonymous"}, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}]}`, "", Input{}, "block none", ""},
		{"a pseudonym demanded, and given", `{"v": 1, "defaults": {"minVisibility": "pseudonymous"}, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}]}`, "p-x@example.net", Input{Visibility: Pseudonymous}, "allow filtered", ""},
		{"an identity demanded, a pseudonym given", `{"v": 1, "defaults": {"minVisibility": "identified"}, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}]}`, "p-x@example.net", Input{Visibility: Pseudonymous}, "block none", ""},
		{"visibility", allow(`"if": {"visibility": ["identified", "anonymous"]}`), "zoe@example.net", Input{}, "allow filtered", ""},
		{"another visibility", allow(`"if": {"visibility": ["identified", "anonymous"]}`), "p-x@example.net", Input{Visibility: Pseudonymous}, "block none", ""},
		{"of nobody there is nothing to show", allow(`"if": {"visibility": ["identified"]}`), "", Input{Visibility: Identified}, "block none", ""},
		{"sure enough", allow(`"if": {"auth": 10}`), "zoe@example.net", Input{Auth: AuthPassword}, "allow filtered", ""},
		{"not sure enough", allow(`"if": {"auth": 20}`), "zoe@example.net", Input{Auth: AuthToken}, "block none", ""},
		{"to fetch and not to subscribe: fetched", allow(`"if": {"op": ["fetch"]}`), "zoe@example.net", Input{Op: OpFetch}, "allow filtered", ""},
		{"to fetch and not to subscribe: subscribed", allow(`"if": {"op": ["fetch"]}`), "zoe@example.net", Input{}, "block none", ""},
		{"the owner's hours, nobody knows where", allow(`"if": {"weekly": {"tz": "presentity", "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}}`), "ana@example.com", Input{}, "allow neutral", ""},
		{"the owner's hours", allow(`"if": {"weekly": {"tz": "presentity", "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}}`), "ana@example.com", Input{Zoned: true, Offset: -300}, "allow filtered", "2026-03-09T22:00:00Z"},
		{"the owner's hours, and he is far", allow(`"if": {"weekly": {"tz": "presentity", "windows": [{"days": ["tue"], "start": "00:00", "end": "01:00"}]}}`), "ana@example.com", Input{Zoned: true, Offset: 540}, "allow filtered", "2026-03-09T16:00:00Z"},
		{
			"a limit on who shows themselves", `{"v": 1, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}],
			 "limits": [{"id": "l", "only": {"visibility": ["identified"]}}]}`,
			"p-x@example.net",
			Input{Visibility: Pseudonymous},
			"allow neutral", "",
		},
		{"nothing shown is neutral", `{"v": 1, "rules": [{"id": "r", "then": {"handling": "allow"}}]}`, "ana@example.com", Input{}, "allow neutral", ""},
		{"no handling blocks", `{"v": 1, "defaults": {"handling": "confirm"}, "rules": [{"id": "r", "show": {"note": true}}]}`, "ana@example.com", Input{}, "block none", ""},
		{"the greatest handling", `{"v": 1, "rules": [{"id": "a", "then": {"handling": "polite-block"}, "show": {"note": true}}, {"id": "b", "then": {"handling": "confirm"}}]}`, "ana@example.com", Input{}, "polite-block neutral", ""},
		{"sphere undefined", allow(`"if": {"sphere": ["work"]}`), "ana@example.com", Input{}, "allow neutral", ""},
		{"sphere in other letters", allow(`"if": {"sphere": ["home", "wOrK"]}`), "ana@example.com", Input{Sphere: "Work"}, "allow filtered", ""},
		{"window open", allow(`"if": {` + hours + `}`), "ana@example.com", Input{}, "allow filtered", "2026-03-09T22:00:00Z"},
		{"window and sphere: no edge matters", allow(`"if": {` + hours + `, "sphere": ["work"]}`), "ana@example.com", Input{}, "allow neutral", ""},
		{"unknown condition never holds", allow(`"if": {"moonPhase": "full"}`), "ana@example.com", Input{}, "block none", ""},
		{"null conditions are not absent", allow(`"if": {"moonPhase": null}`), "ana@example.com", Input{}, "block none", ""},
		{"contact", allow(`"if": {"contact": true}`), "zoe@example.net", Input{Contact: true}, "allow filtered", ""},
		{"no contact", allow(`"if": {"contact": true}`), "zoe@example.net", Input{}, "block none", ""},
		{"validity of the past", allow(`"if": {"validity": [{"until": "2026-03-09T15:00:00Z"}]}`), "ana@example.com", Input{}, "block none", ""},
		{"validity that ends", allow(`"if": {"validity": [{"until": "2026-03-09T15:00:01Z"}]}`), "ana@example.com", Input{}, "allow filtered", "2026-03-09T15:00:01Z"},
		{"validity to come", allow(`"if": {"validity": [{"until": "2026-03-09T15:00:00Z"}, {"from": "2027-01-01T00:00:00Z"}]}`), "ana@example.com", Input{}, "allow neutral", "2027-01-01T00:00:00Z"},
		{"validities that touch are one", allow(`"if": {"validity": [{"until": "2026-04-01T00:00:00Z"}, {"from": "2026-04-01T00:00:00Z", "until": "2026-05-01T00:00:00Z"}]}`), "ana@example.com", Input{}, "allow filtered", "2026-05-01T00:00:00Z"},
		{
			"what does not allow now shows nothing now",
			`{"v": 1, "rules": [{"id": "a", "if": {"sphere": ["work"]}, "then": {"handling": "allow"}, "show": {"note": true}}, {"id": "b", "then": {"handling": "confirm"}, "show": {"services": ["*"]}}]}`,
			"ana@example.com",
			Input{},
			"allow neutral", "",
		},
		{
			"a limit on others", `{"v": 1, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}],
			 "limits": [{"id": "l", "who": {"identity": [{"one": "pres:boss@example.com"}]}, "only": {"sphere": ["work"]}}]}`,
			"ana@example.com",
			Input{},
			"allow filtered", "",
		},
		{
			"a limit on all, of a condition nobody knows", `{"v": 1, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}],
			 "limits": [{"id": "l", "only": {"moonPhase": "full"}}]}`,
			"ana@example.com",
			Input{},
			"allow neutral", "",
		},
		{
			"a limit's hours", `{"v": 1, "rules": [{"id": "r", "then": {"handling": "allow"}, "show": {"note": true}}],
			 "limits": [{"id": "l", "only": {` + hours + `}}]}`,
			"ana@example.com",
			Input{},
			"allow filtered", "2026-03-09T22:00:00Z",
		},
		{"who may read sees all", `{"v": 1, "delegates": [{"one": "pres:ana@example.com", "read": true, "until": "2026-03-09T16:00:00Z"}]}`, "ana@example.com", Input{}, "allow filtered", "2026-03-09T16:00:00Z"},
		{"who may publish does not", `{"v": 1, "delegates": [{"one": "pres:ana@example.com", "sources": ["*"]}]}`, "ana@example.com", Input{}, "block none", ""},
	} {
		p := parse(t, c.policy)
		d := p.Evaluate(addr(t, c.who), instant(t, monday), c.in)
		until := ""
		if !d.Until.IsZero() {
			until = d.Until.Format(time.RFC3339)
		}
		if got := d.Handling.String() + " " + d.View.String(); got != c.want || until != c.until {
			t.Errorf("%s: %s until %s, want %s until %s", c.name, got, until, c.want, c.until)
		}
		if d.Grant.IsZero() != (d.View != ViewFiltered) {
			t.Errorf("%s: view %s with %+v", c.name, d.View, d.Grant)
		}
	}
}

// A bad document is refused whole, and all its faults are told with where they
// are.
func TestBadDocuments(t *testing.T) {
	rule := func(rest string) string { return `{"v": 1, "rules": [{"id": "r", ` + rest + `}]}` }
	weekly := func(w string) string { return rule(`"if": {"weekly": ` + w + `}`) }
	many := strings.Repeat(`{"id": "x"},`, 500)
	for _, c := range []struct {
		name, text string
		err        error
		reason     string
		want       []string // pointer and a part of what is said
	}{
		{"not JSON", `{"v": 1`, kind.ErrInvalid, "schema", []string{" comma"}},
		{"not an object", `[]`, kind.ErrInvalid, "schema", []string{" want an object"}},
		{"no version", `{}`, kind.ErrInvalid, "schema", []string{` "v" is missing`}},
		{"another version", `{"v": 2}`, kind.ErrInvalid, "schema", []string{"/v 2 is out of range"}},
		{"member twice", `{"v": 1, "v": 1}`, kind.ErrInvalid, "schema", []string{"/v twice"}},
		{"misspelt limits", `{"v": 1, "limit": [], "Rules": [], "defualts": {"minVisbility": "identified"}, "defaults": {"minVisbility": "identified"}}`, kind.ErrInvalid, "schema", []string{
			`/defaults/minVisbility did you mean "minVisibility"?`, `/Rules did you mean "rules"?`, `/defualts did you mean "defaults"?`, `/limit did you mean "limits"?`,
		}},
		{"another's", `{"v": 1, "entity": "pres:ana@example.com"}`, kind.ErrInvalid, "entity-mismatch", []string{"/entity of ana@example.com, not of bob@example.com"}},
		{"for another kind", `{"v": 1, "kind": "location"}`, kind.ErrInvalid, "schema", []string{`/kind "presence"`}},
		{"duplicate rule id", `{"v": 1, "rules": [{"id": "a"}, {"id": "a"}]}`, kind.ErrInvalid, "duplicate-id", []string{`/rules/1/id another rule is called "a"`}},
		{"duplicate of a limit", `{"v": 1, "rules": [{"id": "a"}], "limits": [{"id": "a", "only": {"sphere": ["x"]}}]}`, kind.ErrInvalid, "duplicate-id", []string{`/limits/0/id`}},
		{"no id", `{"v": 1, "rules": [{}]}`, kind.ErrInvalid, "schema", []string{`/rules/0 "id" is missing`}},
		{"empty id", `{"v": 1, "rules": [{"id": ""}]}`, kind.ErrInvalid, "schema", []string{`/rules/0/id 0 bytes`}},
		{"unknown handling", rule(`"then": {"handling": "maybe"}`), kind.ErrInvalid, "schema", []string{`/rules/0/then/handling "maybe"`}},
		{"unknown default", `{"v": 1, "defaults": {"handling": "Allow", "outside": "x", "minVisibility": "y"}}`, kind.ErrInvalid, "schema", []string{`/defaults/handling "Allow"`, `/defaults/minVisibility "y"`, `/defaults/outside "x"`}},
		{"from after until", rule(`"if": {"validity": [{"from": "2026-06-08T00:00:00Z", "until": "2026-06-01T00:00:00Z"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/validity/0 ends before"}},
		{"from at until", rule(`"if": {"validity": [{"from": "2026-06-08T00:00:00Z", "until": "2026-06-08T00:00:00Z"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/validity/0 at once"}},
		{"neither from nor until", rule(`"if": {"validity": [{}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/validity/0 without any bound"}},
		{"no instant", rule(`"if": {"validity": [{"from": "tomorrow"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/validity/0 not an instant"}},
		{"misspelt until", rule(`"if": {"validity": [{"from": "2026-06-08T00:00:00Z", "untill": "2026-06-09T00:00:00Z"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/validity/0/untill no such member"}},
		{"empty validity", rule(`"if": {"validity": []}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/validity empty"}},
		{"zone of the future", weekly(`{"tz": "Mars/Olympus", "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/tz unknown time zone"}},
		{"offset as zone", weekly(`{"tz": "+05:00", "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/tz an offset is not a zone"}},
		{"abbreviation as zone", weekly(`{"tz": "CST", "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/tz abbreviations"}},
		{"start at end", weekly(`{"tz": "UTC", "windows": [{"days": ["mon"], "start": "08:00", "end": "08:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/windows/0 starts when it ends"}},
		{"no such hour", weekly(`{"tz": "UTC", "windows": [{"days": ["mon"], "start": "08:00", "end": "25:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/windows/0 no clock shows"}},
		{"no such day", weekly(`{"tz": "UTC", "windows": [{"days": ["Mon"], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{`/rules/0/if/weekly/windows/0/days/0 "Mon"`}},
		{"a range slipped in", weekly(`{"tz": "UTC", "windows": [{"days": ["mon"], "start": "09:00,tue 10:00", "end": "-17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/windows/0/start not a time", "/rules/0/if/weekly/windows/0/end not a time"}},
		{"no day, no window", weekly(`{"tz": "UTC", "windows": [{"days": [], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/windows/0/days never open"}},
		{"no windows", weekly(`{"tz": "UTC", "windows": []}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/windows never open"}},
		{"no zone, no hours", weekly(`{}`), kind.ErrInvalid, "schema", []string{`/rules/0/if/weekly "tz" is missing`, `/rules/0/if/weekly "windows" is missing`}},
		{"no such date", weekly(`{"tz": "UTC", "exceptDates": ["2026-02-29", "3/7"], "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/exceptDates/0 not a date", "/rules/0/if/weekly/exceptDates/1 not a date"}},
		{"misspelt exceptions", weekly(`{"tz": "UTC", "exceptDate": ["2026-07-03"], "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/weekly/exceptDate no such member"}},
		{"identity without scheme", rule(`"if": {"identity": [{"one": "ana@example.com"}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/identity/0/one pres:ana@example.com"}},
		{"identity that is none", rule(`"if": {"identity": [{"one": "pres:ana"}, {"one": 7}, {"many": {"domain": "exa mple"}}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/identity/0/one no domain", "/rules/0/if/identity/1/one want a string", "/rules/0/if/identity/2/many/domain not a domain"}},
		{"globs", rule(`"if": {"identity": [{"one": "pres:*@example.com"}, {"many": {"domain": "*.com"}}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/identity/0/one patterns", "/rules/0/if/identity/1/many/domain not a domain"}},
		{"empty identity", rule(`"if": {"identity": []}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/identity empty list"}},
		{"neither one nor many", rule(`"if": {"identity": [{"group": "staff"}, {"one": "pres:a@b.c", "many": {}}]}`), kind.ErrInvalid, "schema", []string{`/rules/0/if/identity/0 "one" or "many"`, "/rules/0/if/identity/0/group no such member", `/rules/0/if/identity/1 "one" or "many"`}},
		{"misspelt except", rule(`"if": {"identity": [{"many": {"domain": "example.com", "exept": []}}]}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/identity/0/many/exept no such member"}},
		{"exception of nobody", rule(`"if": {"identity": [{"many": {"except": [{}, {"id": "x"}, {"one": "pres:a@b.c"}]}}]}`), kind.ErrInvalid, "schema", []string{`/rules/0/if/identity/0/many/except/0 "id" or "domain"`, "/rules/0/if/identity/0/many/except/1/id", `/rules/0/if/identity/0/many/except/2 "id" or "domain"`, "/rules/0/if/identity/0/many/except/2/one no such member"}},
		{"empty sphere", rule(`"if": {"sphere": []}`), kind.ErrInvalid, "schema", []string{"/rules/0/if/sphere empty list"}},
		{"conditions that are no object", rule(`"if": [], "then": 1, "show": "x"`), kind.ErrInvalid, "schema", []string{"/rules/0/if want an object", "/rules/0/then want an object", "/rules/0/show want an object"}},
		{"lies of a kind that tells none", rule(`"overrides": {"activities": ["busy"]}`), kind.ErrInvalid, "schema", []string{"/rules/0/overrides not possible here"}},
		{"misspelt if", rule(`"iff": {"identity": [{"one": "pres:a@b.c"}]}, "colour": 1`), kind.ErrInvalid, "schema", []string{"/rules/0/colour no such member", "/rules/0/iff no such member"}},
		{"a condition beside the if", rule(`"if": {"identity": [{"one": "pres:a@b.c"}]}, "sphere": ["work"]`), kind.ErrInvalid, "schema", []string{"/rules/0/sphere no such member"}},
		{"show", rule(`"show": {"note": 1, "services": "*", "userInput": "most", "radius": -1, "retention": 1.5}`), kind.ErrInvalid, "schema", []string{"/rules/0/show/services want a list", "/rules/0/show/note want true", `/rules/0/show/userInput "most"`, "/rules/0/show/radius out of range", "/rules/0/show/retention out of range"}},
		{"tokens of a set", rule(`"show": {"services": ["i*", "a b", ""]}`), kind.ErrInvalid, "schema", []string{"/rules/0/show/services/0 patterns", "/rules/0/show/services/1 blank", "/rules/0/show/services/2 0 bytes"}},
		{"limits", `{"v": 1, "limits": [{"id": "a"}, {"id": "b", "only": {}}, {"id": "c", "only": {"identity": [{"many": {}}]}}, {"id": "d", "whom": {}, "only": {"sphere": ["x"]}}, {"id": "e", "who": {"domain": "x.y"}, "only": {"sphere": ["x"]}}]}`, kind.ErrInvalid, "schema", []string{
			`/limits/0 "only" is missing`, "/limits/1/only limits nothing", `/limits/2/only "who"`, "/limits/3/whom no such member", "/limits/4/who/domain no such member",
		}},
		{"delegates", `{"v": 1, "delegates": [{}, {"one": "x", "sources": ["~pc", "reports"], "until": "soon", "read": 1, "reads": true}]}`, kind.ErrInvalid, "schema", []string{
			`/delegates/0 "one" is missing`, "/delegates/1/one", "/delegates/1/sources/0 reserved", "/delegates/1/sources/1 reserved", "/delegates/1/read want true", "/delegates/1/until not an instant", "/delegates/1/reads no such member",
		}},
		{"501 rules", `{"v": 1, "rules": [` + many + `{"id": "y"}]}`, kind.ErrInvalid, "schema", []string{"/rules 501 elements"}},
		{"65,537 bytes", `{"v": 1}` + strings.Repeat(" ", MaxBytes-7), kind.ErrTooBig, "too-large", []string{" 65537 bytes"}},
		{"33 levels", `{"v": 1, "x": ` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, kind.ErrTooBig, "too-large", []string{"/x/0"}},
		{"16,001 members", `{"v": 1, "x": [` + strings.Repeat("1,", 15998) + `1]}`, kind.ErrTooBig, "too-large", []string{"/x/15998 16000 members"}},
	} {
		p, err := Parse([]byte(c.text), pres, bob)
		r, ok := errors.AsType[*kind.Refusal](err)
		if p != nil || !ok || !errors.Is(err, c.err) || r.Reason != c.reason {
			t.Errorf("%s: %v, %v, want %v, %s", c.name, p, err, c.err, c.reason)
			continue
		}
		ok = len(r.Faults) == len(c.want)
		for i := 0; ok && i < len(c.want); i++ {
			pointer, what, _ := strings.Cut(c.want[i], " ")
			ok = strings.HasPrefix(r.Faults[i].Pointer, pointer) && strings.Contains(r.Faults[i].What, what) && (pointer != "" || r.Faults[i].Pointer == "")
		}
		if !ok {
			t.Errorf("%s: got\n%v\nwant\n%v", c.name, r.Faults, strings.Join(c.want, "\n"))
		}
	}
}

// At its limits a document passes.
func TestAtTheLimits(t *testing.T) {
	var rules []string
	for i := range MaxRules {
		rules = append(rules, fmt.Sprintf(`{"id": "%d"}`, i))
	}
	parse(t, `{"v": 1, "rules": [`+strings.Join(rules, ",")+`]}`)
	parse(t, `{"v": 1}`+strings.Repeat(" ", MaxBytes-8))
	parse(t, `{"v": 1, "x": `+strings.Repeat("[", 31)+strings.Repeat("]", 31)+`}`)
	parse(t, `{"v": 1, "x": [`+strings.Repeat("1,", 15997)+`1]}`)
}

// What is not known and could not show more is kept, and told.
func TestWarnings(t *testing.T) {
	p := parse(t, `{"v": 1, "colour": "red", "defaults": {"outside": "hold", "tint": 1},
		"rules": [{"id": "a", "label": {"en": "A"}, "if": {"location": {}, "identity": [{"one": "sip:x@y.z"}]},
		           "then": {"persona": "work"}, "show": {"wings": true}}]}`)
	want := []string{
		"/defaults/tint", "/rules/0/if/identity/0/one", "/rules/0/if/location", "/rules/0", "/rules/0/show/wings", "/colour",
	}
	if got := p.Warnings().Pointers(); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Who sets a document is told of all members that are not known, at every depth,
// at once, with what each may have been meant to be.
func TestUnknownMembersAreRefusedAtTheDoor(t *testing.T) {
	document := []byte(`{"v": 1, "colour": "red", "dafaults": {}, "defaults": {"handlin": "allow", "tint": 1},
		"rules": [{"id": "a", "iff": {}, "labels": {},
		           "if": {"identety": [], "moonPhase": {}, "weekly": {"tz": "UTC", "exceptDate": [], "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00", "ends": 1}]},
		                  "validity": [{"from": "2026-06-08T00:00:00Z", "untill": "2026-06-09T00:00:00Z"}]},
		           "then": {"handling": "allow", "persona": "work", "tint": 1, "handeling": "allow"},
		           "show": {"actvities": true, "wings": true}},
		          {"id": "b", "if": {"identity": [{"many": {"domian": "example.com"}}, {"oen": "pres:a@b.c"}, {"many": {"except": [{"ids": "pres:a@b.c"}]}}]}}],
		"limits": [{"id": "l", "who": {"identities": []}, "only": {"wekly": {}}, "onli": {}}],
		"delegates": [{"one": "pres:a@b.c", "source": ["x"]}]}`)
	want := map[string]string{
		"/colour": "there are entity, kind, defaults, rules, limits, delegates, compose", "/dafaults": `did you mean "defaults"?`,
		"/defaults/handlin": `did you mean "handling"?`, "/defaults/tint": "there are handling, outside, minVisibility",
		"/rules/0/iff": `did you mean "if"?`, "/rules/0/labels": `did you mean "label"?`,
		"/rules/0/if/identety":          `did you mean "identity"?`,
		"/rules/0/if/weekly/exceptDate": `did you mean "exceptDates"?`, "/rules/0/if/weekly/windows/0/ends": `did you mean "end"?`,
		"/rules/0/if/validity/0/untill": `did you mean "until"?`,
		"/rules/0/then/tint":            "there are handling", "/rules/0/then/handeling": `did you mean "handling"?`,
		"/rules/0/show/actvities":            `did you mean "activities"?`,
		"/rules/1/if/identity/0/many/domian": `did you mean "domain"?`, "/rules/1/if/identity/1/oen": `did you mean "one"?`,
		"/rules/1/if/identity/2/many/except/0/ids": `did you mean "id"?`,
		"/limits/0/who/identities":                 `did you mean "identity"?`, "/limits/0/only/wekly": `did you mean "weekly"?`, "/limits/0/onli": `did you mean "only"?`,
		"/delegates/0/source": `did you mean "sources"?`,
	}
	_, err := Check(document, spheredKind{forKind: pres}, bob)
	r, ok := errors.AsType[*kind.Refusal](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	for _, f := range r.Faults {
		if !strings.HasPrefix(f.What, "no such member here: ") {
			continue // what is missing for it
		}
		if part, ok := want[f.Pointer]; !ok || !strings.Contains(f.What, part) {
			t.Errorf("%s: %s, want %q", f.Pointer, f.What, part)
		}
		delete(want, f.Pointer)
	}
	for pointer := range want {
		t.Errorf("%s is accepted", pointer)
	}
}

// What is meant to be set and has nothing unknown is read as what was set is.
func TestCheckIsParseOfWhatIsKnown(t *testing.T) {
	for _, text := range []string{
		`{"v": 1}`,
		`{"v": 1, "entity": "pres:bob@example.com", "kind": "presence", "defaults": {"handling": "confirm", "outside": "hold", "minVisibility": "identified"},
		  "rules": [{"id": "a", "label": {"en": "A"}, "rank": 1, "if": {"identity": [{"many": {"domain": "b.c", "except": [{"id": "pres:a@b.c"}, {"domain": "c.d"}]}}],
		    "validity": [{"from": "2026-06-08T00:00:00Z", "until": "2026-06-09T00:00:00Z"}], "sphere": ["work"],
		    "weekly": {"tz": "UTC", "exceptDates": ["2026-07-03"], "windows": [{"days": ["mon"], "start": "08:00", "end": "17:00"}]}},
		    "then": {"handling": "allow"}, "show": {"services": ["*"], "note": true}}],
		  "limits": [{"id": "l", "label": {}, "who": {"identity": [{"one": "pres:a@b.c"}]}, "only": {"sphere": ["x"]}}],
		  "delegates": [{"one": "pres:a@b.c", "label": {}, "sources": ["x"], "read": true, "until": "2026-06-09T00:00:00Z"}]}`,
	} {
		checked, err := Check([]byte(text), spheredKind{forKind: pres}, bob)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if parsed := parse(t, text); !reflect.DeepEqual(checked, parsed) {
			t.Errorf("%s: %+v, want %+v", text, checked, parsed)
		}
	}
}

// Delegates publish as what they were named for, until then, and no further.
func TestDelegates(t *testing.T) {
	p := parse(t, `{"v": 1, "delegates": [
		{"one": "pres:calendar-svc@example.com", "sources": ["calendar"], "until": "2026-12-31T00:00:00Z"},
		{"one": "pres:calendar-svc@example.com", "sources": ["calendar"], "until": "2026-06-01T00:00:00Z"},
		{"one": "pres:assistant@example.com", "sources": ["*"], "read": true},
		{"one": "mailto:ana@example.com", "sources": ["*"], "read": true}]}`)
	end := instant(t, "2026-12-31T00:00:00Z")
	for _, c := range []struct {
		who, source string
		at          time.Time
		ok          bool
		until       time.Time
	}{
		{"calendar-svc@example.com", "calendar", end.Add(-1), true, end},
		{"calendar-svc@example.com", "calendar", end, false, time.Time{}},
		{"calendar-svc@example.com", "phone", end.Add(-1), false, time.Time{}},
		{"assistant@example.com", "phone", end, true, time.Time{}},
		{"bob@example.com", "phone", end, true, time.Time{}},
		{"ana@example.com", "phone", end, false, time.Time{}},
		{"", "phone", end, false, time.Time{}},
	} {
		if ok, until := p.MayPublish(addr(t, c.who), c.source, c.at); ok != c.ok || !until.Equal(c.until) {
			t.Errorf("%s as %s at %s: %v until %s, want %v until %s", c.who, c.source, c.at, ok, until, c.ok, c.until)
		}
	}
	for who, want := range map[string]bool{"assistant@example.com": true, "bob@example.com": true, "calendar-svc@example.com": false, "": false} {
		if ok, _ := p.MayRead(addr(t, who), end.Add(-1)); ok != want {
			t.Errorf("%s reads: %v, want %v", who, ok, want)
		}
	}
	if p.Owner() != bob || p.Kind() != "presence" {
		t.Errorf("%s of %s", p.Kind(), p.Owner())
	}
}

// An explanation says of each rule, condition and limit what it did, and when
// it will do otherwise.
func TestExplain(t *testing.T) {
	p := parse(t, `{"v": 1, "rules": [
		{"id": "boss", "if": {"identity": [{"one": "pres:boss@example.com"}], "validity": [{"from": "2026-01-01T00:00:00Z"}],
		  "weekly": {"tz": "America/Chicago", "windows": [{"days": ["mon", "fri"], "start": "08:00", "end": "17:00"}]}},
		 "then": {"handling": "allow"}, "show": {"note": true}},
		{"id": "colleagues", "if": {"identity": [{"many": {"domain": "example.com", "except": [{"id": "pres:mallory@example.com"}]}}],
		  "sphere": ["work"]}, "then": {"handling": "allow"}, "show": {"services": ["im"]}},
		{"id": "future", "if": {"moonPhase": 1}, "then": {"handling": "allow"}}],
	 "limits": [{"id": "hours", "who": {"identity": [{"one": "pres:boss@example.com"}]}, "only":
		{"weekly": {"tz": "America/Chicago", "windows": [{"days": ["mon", "fri"], "start": "08:00", "end": "17:00"}]}}}]}`)
	describe := func(e Explanation) string {
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %s until %s: %s\n", e.Handling, e.View, e.Grant.Append(nil, pres.permissions), e.Until.Format(time.RFC3339), e.Because)
		conditions := func(cs []ConditionReport) {
			for _, c := range cs {
				fmt.Fprintf(&b, "    %s %q %v", c.Name, c.Text, c.Holds)
				if !c.Until.IsZero() {
					fmt.Fprintf(&b, " until %s", c.Until.Format(time.RFC3339))
				}
				b.WriteByte('\n')
			}
		}
		for _, r := range e.Rules {
			fmt.Fprintf(&b, "  %s %s counts %v holds %v\n", r.ID, r.Pointer, r.Counts, r.Holds)
			conditions(r.Conditions)
		}
		for _, l := range e.Limits {
			fmt.Fprintf(&b, "  %s %s concerns %v cuts %v\n", l.ID, l.Pointer, l.Concerns, l.Cuts)
			conditions(l.Conditions)
		}
		return b.String()
	}
	got := describe(p.Explain(addr(t, "boss@example.com"), instant(t, "2026-03-09T23:00:00Z"), Input{Sphere: "work"}))
	want := `allow neutral {} until 2026-03-13T13:00:00Z: cut by limit hours
  boss /rules/0 counts true holds false
    identity "boss@example.com" true
    validity "from 2026-01-01T00:00:00Z" true
    weekly "mon,fri 08:00-17:00 America/Chicago" false until 2026-03-13T13:00:00Z
  colleagues /rules/1 counts true holds true
    identity "everybody of example.com but 1" true
    sphere "work" true
  future /rules/2 counts false holds false
    moonPhase "not known here" false
  hours /limits/0 concerns true cuts true
    identity "boss@example.com" true
    weekly "mon,fri 08:00-17:00 America/Chicago" false until 2026-03-13T13:00:00Z
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, c := range []struct{ who, sphere, because string }{
		{"boss@example.com", "", "cut by limit hours"},
		{"ana@example.com", "work", "granted by colleagues"},
		{"ana@example.com", "", "no rule that allows this watcher applies now"},
		{"mallory@example.com", "work", "no rule is about this watcher: handling block is the default"},
		{"bob@example.com", "", "the owner sees everything"},
	} {
		if e := p.Explain(addr(t, c.who), instant(t, "2026-03-09T23:00:00Z"), Input{Sphere: c.sphere}); e.Because != c.because {
			t.Errorf("%s: %s, want %s", c.who, e.Because, c.because)
		}
	}
}
