package watchers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

var (
	alice = kind.Addr{Local: "alice", Domain: "example.net"}
	bob   = kind.Addr{Local: "bob", Domain: "example.com"}
	carol = kind.Addr{Local: "carol", Domain: "example.com"}
	noon  = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
)

// secret is the one of the computed vectors: 00 to 1f.
func secret() Secret {
	s := make(Secret, 32)
	for i := range s {
		s[i] = byte(i)
	}
	return s
}

// Pseudonyms are those that were computed by hand: one for each owner, the same each
// time, and a fresh one for each turn.
func TestPseudonyms(t *testing.T) {
	for _, c := range []struct {
		target kind.Addr
		want   string
	}{
		{bob, "p-mk2te2abejor37bp3bfir6sd@example.net"},
		{carol, "p-5imwsditw7kqvozy5qeeea2o@example.net"},
	} {
		got := secret().Pseudonym(alice, c.target, 0)
		if got.String() != c.want {
			t.Errorf("towards %s: %s, want %s", c.target, got, c.want)
		}
		if !IsPseudonym(got) {
			t.Errorf("%s does not look like a pseudonym", got)
		}
		if canonical, err := kind.ParseAddr(got.String()); err != nil || canonical != got {
			t.Errorf("%s is no canonical address: %v, %v", got, canonical, err)
		}
	}
	seen := map[kind.Addr]string{}
	for turn := range uint64(3) {
		for _, target := range []kind.Addr{bob, carol} {
			for _, watcher := range []kind.Addr{alice, {Local: "alice", Domain: "example.com"}} {
				p, of := secret().Pseudonym(watcher, target, turn), fmt.Sprint(watcher, target, turn)
				if other, ok := seen[p]; ok {
					t.Errorf("%s is that of %s and of %s", p, other, of)
				}
				seen[p] = of
			}
		}
	}
}

// Only what has the form of a pseudonym looks like one.
func TestLooksLikeAPseudonym(t *testing.T) {
	for _, name := range []string{"alice", "p-", "p-alice", "p-mk2te2abejor37bp3bfir6s", "p-mk2te2abejor37bp3bfir6sdd", "p-MK2te2abejor37bp3bfir6sd", "p-mk2te2abejor37bp3bfir6s1"} {
		if IsPseudonym(kind.Addr{Local: name, Domain: "example.net"}) {
			t.Errorf("%s looks like a pseudonym", name)
		}
	}
}

// Ids of subscriptions differ by all that makes them, and say none of it.
func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, of := range []string{"presence", "location"} {
		for _, watcher := range []kind.Addr{alice, carol} {
			for begun := range uint64(3) {
				id := secret().ID(watcher, bob, of, begun)
				if seen[id] || len(id) != 16 || strings.Contains(id, "alice") {
					t.Errorf("%s for %s, %s, %d", id, watcher, of, begun)
				}
				seen[id] = true
			}
		}
	}
}

// What watchers offer and owners demand gives what the table says, and several
// offers the first that is accepted.
func TestAgreement(t *testing.T) {
	const refused = "refused"
	for _, c := range []struct {
		offer string
		want  [3]string // anonymous is enough, a pseudonym is, she must be identified
	}{
		{"", [3]string{"identified", "identified", "identified"}},
		{"identified", [3]string{"identified", "identified", "identified"}},
		{"pseudonymous", [3]string{"pseudonymous", "pseudonymous", refused}},
		{"anonymous", [3]string{"anonymous", refused, refused}},
		{"anonymous,pseudonymous", [3]string{"anonymous", "pseudonymous", refused}},
		{"anonymous, identified", [3]string{"anonymous", "identified", "identified"}},
		{"pseudonymous,identified", [3]string{"pseudonymous", "pseudonymous", "identified"}},
		{"anonymous,pseudonymous,identified", [3]string{"anonymous", "pseudonymous", "identified"}},
	} {
		var o Offer
		if c.offer != "" {
			var err error
			if o, err = ParseOffer(c.offer); err != nil {
				t.Fatal(err)
			}
			if back, err := ParseOffer(o.String()); err != nil || back.String() != o.String() {
				t.Errorf("%q is written as %q, which reads as %v, %v", c.offer, o, back, err)
			}
		}
		for i, demand := range []Visibility{Anonymous, Pseudonymous, Identified} {
			got := refused
			v, ok := o.Agree(demand)
			if ok {
				got = v.String()
			}
			if got != c.want[i] {
				t.Errorf("offered %q, demanded %s: %s, want %s", c.offer, demand, got, c.want[i])
			}
			if ok && v > demand {
				t.Errorf("offered %q, demanded %s: the owner sees less than that", c.offer, demand)
			}
		}
	}
}

// Offers that say less than they seem to are refused, with what to write.
func TestBadOffers(t *testing.T) {
	for _, s := range []string{"", " ", "Anonymous", "nobody", "identified,anonymous", "pseudonymous,pseudonymous", "anonymous,", "anonymous;identified"} {
		if o, err := ParseOffer(s); err == nil {
			t.Errorf("%q is taken as %v", s, o)
		} else if !strings.Contains(err.Error(), "write") {
			t.Errorf("%q: %v: it does not say what to write", s, err)
		}
	}
}

func rows() []Row {
	return []Row{
		{ID: "s2", Watcher: alice, Status: Active, Event: "approved", Auth: 20, Since: noon.Add(-time.Hour), Expires: noon.Add(1180 * time.Second), Note: `It's "me" <b>`, Name: "Alice & Co"},
		{ID: "s3", Watcher: secret().Pseudonym(alice, bob, 0), Visibility: Pseudonymous, Status: Pending, Event: "subscribe", Since: noon},
		{ID: "s4", Visibility: Anonymous, Status: Active, Event: "approved", Style: "polite", Expires: noon.Add(-time.Second)},
		{ID: "s5", Watcher: carol, Status: Terminated, Event: "fetch", Fetches: 12},
	}
}

// A list in both its forms, whole.
func TestList(t *testing.T) {
	l := List{Version: 7, Of: bob, Kind: "presence", Scheme: "pres", Rows: rows(), Total: 4, At: noon}
	wantJSON := `{"version":7,"full":false,"resource":"pres:bob@example.com","kind":"presence","watchers":[` +
		`{"id":"s2","uri":"pres:alice@example.net","status":"active","event":"approved","visibility":"identified","auth":20,"since":"2026-03-09T11:00:00Z","expires":1180,"fetches24h":0,"note":"It's \"me\" <b>","name":"Alice & Co"},` +
		`{"id":"s3","uri":"pres:p-mk2te2abejor37bp3bfir6sd@example.net","status":"pending","event":"subscribe","visibility":"pseudonymous","since":"2026-03-09T12:00:00Z","fetches24h":0},` +
		`{"id":"s4","uri":"pres:anonymous@anonymous.invalid","status":"active","event":"approved","visibility":"anonymous","style":"polite","expires":0,"fetches24h":0},` +
		`{"id":"s5","uri":"pres:carol@example.com","status":"terminated","event":"fetch","visibility":"identified","fetches24h":12}],"total":4}`
	if got := string(l.JSON()); got != wantJSON {
		t.Errorf("JSON\n%s, want\n%s", got, wantJSON)
	}
	if _, err := jsontree.Parse(l.JSON(), jsontree.Limits{}); err != nil {
		t.Error(err)
	}
	wantXML := `<x:watcherinfo xmlns:x="urn:ietf:params:xml:ns:watcherinfo" state="partial" version="7"><x:watcher-list package="presence" resource="pres:bob@example.com">` +
		`<x:watcher display-name="Alice &amp; Co" duration-subscribed="3600" event="approved" expiration="1180" id="s2" status="active">pres:alice@example.net</x:watcher>` +
		`<x:watcher duration-subscribed="0" event="subscribe" id="s3" status="pending">pres:p-mk2te2abejor37bp3bfir6sd@example.net</x:watcher>` +
		`<x:watcher event="approved" expiration="0" id="s4" status="active">pres:anonymous@anonymous.invalid</x:watcher>` +
		`<x:watcher event="timeout" id="s5" status="terminated">pres:carol@example.com</x:watcher></x:watcher-list></x:watcherinfo>`
	if got := string(l.XML()); got != wantXML {
		t.Errorf("XML\n%s, want\n%s", got, wantXML)
	}
}

// The XML has what RFC 3858's schema has, and nothing else: attributes, and the
// words that may be in them.
func TestXMLKeepsToItsSchema(t *testing.T) {
	words := map[string][]string{
		"status": {"pending", "active", "waiting", "terminated"},
		"event":  {"subscribe", "approved", "deactivated", "probation", "rejected", "timeout", "giveup", "noresource"},
		"state":  {"full", "partial"},
	}
	may := map[string]string{
		"watcherinfo": " version state ", "watcher-list": " resource package ",
		"watcher": " display-name status event expiration id duration-subscribed ",
	}
	l := List{Full: true, Of: bob, Kind: "presence", Scheme: "pres", Rows: rows(), At: noon}
	for _, event := range []string{"fetch", "admin", "revoked", ""} {
		l.Rows = append(l.Rows, Row{ID: "x", Status: Terminated, Event: event, Watcher: carol, Style: "polite", Auth: 3, Note: "n"})
	}
	root, err := xmltree.Parse(l.XML(), xmltree.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var check func(e *xmltree.Element)
	check = func(e *xmltree.Element) {
		if e.Space != xmlSpace || may[e.Local] == "" {
			t.Fatalf("element %s", e.Local)
		}
		for _, a := range e.Attrs {
			if !strings.Contains(may[e.Local], " "+a.Local+" ") {
				t.Errorf("%s has %s", e.Local, a.Local)
			}
			if of := words[a.Local]; of != nil && !strings.Contains(" "+strings.Join(of, " ")+" ", " "+a.Value+" ") {
				t.Errorf("%s is %q", a.Local, a.Value)
			}
		}
		for _, c := range e.Elements() {
			check(c)
		}
	}
	check(root)
}

// However many watchers there are, and whatever they write, a list has a bound,
// says that there are more, and is whole.
func TestListIsBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		note string
		most int
	}{
		{"notes", strings.Repeat("\x01", 256), 40}, // six bytes each in JSON
		{"none", "", MaxRows},
	} {
		l := List{Full: true, Of: bob, Kind: "presence", Scheme: "pres", Total: 100_000, At: noon}
		for i := range 2000 {
			l.Rows = append(l.Rows, Row{ID: fmt.Sprint("s", i), Watcher: alice, Status: Pending, Event: "subscribe", Note: c.note})
		}
		for form, body := range map[string][]byte{"JSON": l.JSON(), "XML": l.XML()} {
			if len(body) > 80<<10 {
				t.Errorf("%s, %s: %d bytes", c.name, form, len(body))
			}
			if n := strings.Count(string(body), "alice@"); n == 0 || n > MaxRows {
				t.Errorf("%s, %s: %d rows", c.name, form, n)
			}
		}
		doc := string(l.JSON())
		if len(doc) > 64<<10 || !strings.HasSuffix(doc, `"total":100000,"more":true}`) {
			t.Errorf("%s: %d bytes, ends %q", c.name, len(doc), doc[len(doc)-60:])
		}
		if n := strings.Count(doc, "alice@"); n > c.most {
			t.Errorf("%s: %d rows", c.name, n)
		}
	}
}

// Counts tell an owner everything, unless that would tell one anonymous watcher
// from nobody; and others what he wants, which is nothing if he says nothing.
func TestStats(t *testing.T) {
	c := Counts{Identified: 3, Pseudonymous: 1, Anonymous: 2, Pending: 4, Polite: 1, Fetched: 7}
	for _, test := range []struct{ policy, owner, others string }{
		{`{}`, `{"identified":3,"pseudonymous":1,"anonymous":2,"pending":4,"polite":1,"fetchers24h":7,"total":6}`, ""},
		{`{"anonymousShownFrom":2}`, `{"identified":3,"pseudonymous":1,"anonymous":2,"pending":4,"polite":1,"fetchers24h":7,"total":6}`, ""},
		{`{"anonymousShownFrom":5}`, `{"identified":3,"pseudonymous":1,"anonymous":"<5","pending":4,"polite":1,"fetchers24h":7}`, ""},
		{`{"publishCount":{}}`, "", `{"total":6}`},
		{`{"publishCount":{"round":4}}`, "", `{"total":4}`},
		{`{"publishCount":{"round":10,"min":6}}`, "", `{"total":0}`},
		{`{"publishCount":{"round":10,"min":7}}`, "", ""},
	} {
		doc, err := jsontree.Parse([]byte(test.policy), jsontree.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		p := ReadPublishing(doc.Root().Members())
		if err := doc.Err(); err != nil {
			t.Fatal(err)
		}
		if got := string(c.JSON(&p)); test.owner != "" && got != test.owner {
			t.Errorf("%s: the owner is told\n%s, want\n%s", test.policy, got, test.owner)
		}
		if got, ok := c.PublicJSON(&p); string(got) != test.others || ok != (test.others != "") {
			t.Errorf("%s: others are told %q, %v, want %q", test.policy, got, ok, test.others)
		}
	}
	none := Publishing{AnonymousFrom: 5}
	if none.Hidden(&Counts{Identified: 9}) || !none.Hidden(&Counts{Anonymous: 4}) || none.Hidden(&Counts{Anonymous: 5}) {
		t.Error("anonymous watchers are hidden when there are none, or enough; or not when they are few")
	}
}

// What cannot be a number of watchers is a fault with its pointer.
func TestBadPublishing(t *testing.T) {
	for _, c := range []struct{ policy, at string }{
		{`{"publishCount":true}`, "/publishCount"},
		{`{"publishCount":{"round":0}}`, "/publishCount/round"},
		{`{"publishCount":{"round":1.5}}`, "/publishCount/round"},
		{`{"publishCount":{"min":-1}}`, "/publishCount/min"},
		{`{"publishCount":{"least":1}}`, "/publishCount/least"},
		{`{"anonymousShownFrom":-1}`, "/anonymousShownFrom"},
		{`{"anonymousShownFrom":"5"}`, "/anonymousShownFrom"},
	} {
		doc, _ := jsontree.Parse([]byte(c.policy), jsontree.Limits{})
		ReadPublishing(doc.Root().Members())
		faults, _ := doc.Err().(jsontree.Faults)
		if len(faults) != 1 || faults[0].Pointer != c.at {
			t.Errorf("%s: %v, want a fault at %s", c.policy, faults, c.at)
		}
	}
}
