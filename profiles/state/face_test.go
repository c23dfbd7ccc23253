package state_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// seen is the last document that a client was sent of bob, and what it says: the
// contacts of tuples and the notes of it.
func seen(t *testing.T, n *brokertest.Node, c *brokertest.Client) (document string, contacts []string) {
	t.Helper()
	n.Settle()
	got := c.Take()
	if len(got) == 0 {
		return "", nil
	}
	document = got[len(got)-1].Payload
	var d struct {
		Tuples []struct{ Contact struct{ URI string } }
	}
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	for _, tuple := range d.Tuples {
		contacts = append(contacts, strings.TrimPrefix(tuple.Contact.URI, "x:"))
	}
	slices.Sort(contacts)
	return document, contacts
}

func tuple(contact string) string {
	return fmt.Sprintf(`{"tuples":[{"id":"t","basic":"open","contact":{"uri":"x:%s"}}]}`, contact)
}

// as is a rule by which its watchers see a persona.
func as(id string, rank int, persona string, who ...string) string {
	r := allow(id, `"services":["*"],"lost":true,"all":true`, who...)
	r = strings.Replace(r, `"handling":"allow"`, fmt.Sprintf(`"handling":"allow","persona":%q`, persona), 1)
	return strings.Replace(r, `{"id"`, fmt.Sprintf(`{"rank":%d,"id"`, rank), 1)
}

// Each watcher sees one persona and what is for all, a source's own word for the
// persona in place of what it says to all; nobody but the owner sees two.
func TestPersonas(t *testing.T) {
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, rules(as("a", 0, "work", "boss@x.org", "both@x.org"), as("b", 1, "family", "sis@x.org", "both@x.org"), allow("c", `"services":["*"]`, "any@x.org", "boss@x.org")))
	watchers := map[string][]string{
		"boss@x.org": {"all", "desk", "pc-at-work"}, "sis@x.org": {"all", "home", "pc"}, "both@x.org": {"all", "home", "pc"}, "any@x.org": {"all", "pc"},
		bob: {"all", "desk", "home", "pc", "pc-at-work"},
	}
	clients := map[string]*brokertest.Client{}
	for who := range watchers {
		clients[who] = n.Connect(who, brokertest.ClientID("w"+who))
		clients[who].Subscribe(bobs, 1)
	}
	for topicName, contact := range map[string]string{"/phone": "all", "/pc": "pc", "/pc/@work": "pc-at-work", "/desk/@work": "desk", "/home/@family": "home"} {
		pc.Publish(bobs+topicName, tuple(contact), brokertest.Property("evt-bind", "none"))
	}
	documents := map[string]string{}
	n.Pass(time.Minute) // what changes too often is held back for a moment
	for who, want := range watchers {
		document, contacts := seen(t, n, clients[who])
		if !slices.Equal(contacts, want) {
			t.Errorf("%s is shown %v, want %v", who, contacts, want)
		}
		documents[who] = document
		if who != bob && strings.Contains(document, "@") && strings.Contains(strings.ReplaceAll(document, "bob@example.com", ""), "@") {
			t.Errorf("%s can tell that there are personas: %s", who, document)
		}
	}
	// What they have in common has another name for each.
	ids := func(document string) (all []string) {
		for _, part := range strings.Split(document, `"id":"`)[1:] {
			all = append(all, part[:strings.Index(part, `"`)])
		}
		return all
	}
	for _, id := range ids(documents["boss@x.org"]) {
		if len(id) == 0 || slices.Contains(ids(documents["sis@x.org"]), id) || slices.Contains(ids(documents["any@x.org"]), id) {
			t.Errorf("the id %q tells that two personas are one", id)
		}
	}

	// One that falls silent is called the same for every persona.
	n.Pass(time.Second)
	phone := n.Connect(bob, brokertest.ClientID("phone"))
	phone.Publish(bobs+"/mobile/@work", tuple("mobile"))
	phone.Lose()
	n.Pass(state15s)
	if document, _ := seen(t, n, clients["boss@x.org"]); !strings.Contains(document, `"lost":["mobile"]`) {
		t.Errorf("boss is shown %s", document)
	}

	// Another rule, another persona: at once, and never both.
	pc.Publish(policy, rules(as("a", 2, "work", "both@x.org")))
	n.Pass(time.Minute)
	if _, contacts := seen(t, n, clients["both@x.org"]); !slices.Equal(contacts, watchers["boss@x.org"]) {
		t.Errorf("by the other rule: %v", contacts)
	}
	pc.Publish(bobs+"/pc/@work", "")
	n.Pass(time.Minute)
	if _, contacts := seen(t, n, clients["both@x.org"]); !slices.Equal(contacts, []string{"all", "desk", "pc"}) {
		t.Errorf("without its own word: %v", contacts)
	}
	n.CheckReplay(nil)
}

const state15s = 16 * time.Second

// Personas are published by who may publish the source, are bounded with all
// others, and are not watched by name.
func TestPersonasArePublications(t *testing.T) {
	n := newNode(t)
	pc, ed := n.Connect(bob), n.Connect("ed@x.org")
	pc.Publish(policy, `{"v":1,"delegates":[{"one":"pres:ed@x.org","sources":["calendar"]}]}`)
	ed.Publish(bobs+"/calendar/@work", open)
	refuses(t, ed.TryPublish(bobs+"/phone/@work", open), nil)
	refuses(t, pc.TryPublish(bobs+"/phone/@Work", open), broker.ErrTopicName, "no name of a persona")
	refuses(t, pc.TryPublish(bobs+"/@work", open), broker.ErrTopicName, "reserved")
	pc.Publish(policy, "") // and the delegate's word goes with the delegation
	for i := range 64 {
		pc.Publish(fmt.Sprintf("%s/s%d/@p%d", bobs, i/2, i%2), open)
	}
	refuses(t, pc.TryPublish(bobs+"/another", open), broker.ErrQuota, "64 sources")
	n.CheckReplay(nil)
}

// How publications are joined is the owner's to say.
func TestCompositions(t *testing.T) {
	published := []string{
		`{"tuples":[{"id":"t","basic":"open","contact":{"uri":"x:first","priority":0.2}}]}`,
		`{"tuples":[{"id":"t","basic":"open","contact":{"uri":"x:second","priority":0.9}}]}`, tuple("third"),
	}
	for how, want := range map[string]string{"": "[first second third]", "merge": "[first second third]", "newest": "[third]", "priority": "[second]"} {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann)
		document := everything
		if how != "" {
			document = strings.TrimSuffix(everything, "}") + `,"compose":"` + how + `"}`
		}
		pc.Publish(policy, document)
		watcher.Subscribe(bobs, 1)
		for i, p := range published {
			pc.Publish(fmt.Sprintf("%s/s%d", bobs, i), p, seconds(100-30*i), brokertest.Property("evt-bind", "none"))
			n.Pass(time.Second)
		}
		if _, contacts := seen(t, n, watcher); fmt.Sprint(contacts) != want {
			t.Errorf("%q: %v, want %s", how, contacts, want)
		}
		n.Pass(time.Minute) // the last and the second end
		n.Pass(10 * time.Second)
		if _, contacts := seen(t, n, watcher); fmt.Sprint(contacts) != "[first]" {
			t.Errorf("%q: only the first is left, and %v is shown", how, contacts)
		}
	}
}

// Zoe is told that bob is busy, whether he is in a meeting or not; that he is away
// she is told like others.
func TestOverrides(t *testing.T) {
	n := newNode(t)
	pc, zoe, watcher := n.Connect(bob), n.Connect("zoe@x.org"), n.Connect(ann)
	lie := strings.Replace(allow("z", `"services":["*"]`, "zoe@x.org"), `{"id"`, `{"overrides":{"activities":["busy"],"note":null},"id"`, 1)
	pc.Publish(policy, rules(lie, allow("a", `"services":["*"],"persons":["*"],"activities":true,"note":true`, ann, "zoe@x.org")))
	zoe.Subscribe(bobs, 1)
	watcher.Subscribe(bobs, 1)
	wants(t, n, zoe, "nothing")
	pc.Publish(bobs, `{"basic":"open","persons":[{"id":"me","activities":["meeting"],"note":"in the cellar"}],"notes":"to let"}`)
	document, _ := seen(t, n, zoe)
	if !strings.Contains(document, `"activities":["busy"]`) || strings.Contains(document, "meeting") || strings.Contains(document, "note") {
		t.Errorf("zoe is shown %s", document)
	}
	if document, _ := seen(t, n, watcher); !strings.Contains(document, `"activities":["meeting"]`) || !strings.Contains(document, "cellar") || !strings.Contains(document, "to let") {
		t.Errorf("ann is shown %s", document)
	}
	pc.Publish(bobs, `{"basic":"open","persons":[{"id":"me","activities":["sleeping"]}]}`)
	wants(t, n, zoe) // nothing that she could tell from before
	pc.Publish(bobs, "")
	wants(t, n, zoe, "nothing")
	refuses(t, pc.TryPublish(policy, strings.Replace(rules(lie), `"note":null`, `"entity":"pres:a@b.c","id":"x","timestamp":"2026-03-09T12:00:00Z"`, 1)), broker.ErrPayload,
		"/rules/0/overrides/entity", "/rules/0/overrides/id", "/rules/0/overrides/timestamp")
	refuses(t, pc.TryPublish(policy, strings.Replace(rules(lie), `["busy"]`, `"busy"`, 1)), broker.ErrPayload, "/rules/0/overrides/activities")
}

// Hours of the owner's clocks go with him; where nobody knows where he is, or he
// says two things, they are closed.
func TestOwnersClock(t *testing.T) {
	n := newNode(t) // Monday, a little after noon, UTC
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, rules(rule("r", "allow", `"services":["*"]`, `,"weekly":{"tz":"presentity","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]}`, ann)))
	watcher.Subscribe(bobs, 1)
	at := func(source, offset string) {
		pc.Publish(bobs+"/"+source, `{"basic":"open","persons":[{"id":"me","timeOffset":`+offset+`}]}`, seconds(86400), brokertest.Property("evt-bind", "none"))
		n.Pass(time.Second)
	}
	pc.Publish(bobs+"/pc", open, seconds(86400))
	wants(t, n, watcher, "nothing")
	at("phone", "0")
	wants(t, n, watcher, "open")
	at("tablet", `{"value":480,"description":"in Perth"}`) // at 20:00, or at noon
	wants(t, n, watcher, "nothing")
	at("phone", "480")
	wants(t, n, watcher)
	at("phone", "-300")
	at("tablet", "-300") // seven in the morning
	wants(t, n, watcher)
	n.Pass(time.Hour)
	wants(t, n, watcher, "open")
	n.Pass(9 * time.Hour)
	wants(t, n, watcher, "nothing")
}
