package inbox

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// A holder is a profile for tests: who publishes somebody's address to hold/on has a
// pseudonym towards them, and to hold/off no more.
type holder struct{}

func (holder) Prefix() string                  { return "hold" }
func (holder) Admit(*broker.Publication) error { return nil }
func (holder) Watch(broker.Who, string) error  { return nil }
func (holder) pseudonym(of, target string) string {
	return testSecret.Pseudonym(kind.Of(of), kind.Of(target), 0).String()
}

var testSecret = watchers.Secret("a secret of tests")

func (holder) Apply(tx *broker.ProfileTx, p *broker.Publication) error {
	b, watcher, target := alias.BookOf(tx, testSecret), kind.Of(p.From.Principal), kind.Of(string(p.Event.Payload))
	if p.Event.Topic == "hold/off" {
		b.Release(b.Name(watcher, target))
		return nil
	}
	_, err := b.Hold(watcher, target)
	return err
}

const carol = "carol@example.com"

// pseudonymous is a node on which alice has a pseudonym towards bob, whose messages
// she gets by it, and nothing else permits anybody anything.
func pseudonymous(t *testing.T, rules string) (n *node, phone, ann client, name string) {
	t.Helper()
	n = &node{brokertest.NewWith(t, broker.Limits{SettleEvery: time.Millisecond}, func() []broker.Profile {
		return []broker.Profile{New(im.New(), Limits{}), &alias.Profile{}, holder{}}
	}), t}
	t.Cleanup(func() { n.CheckReplay(n.Copy()) })
	phone, ann = n.Connect("phone", bob, time.Hour), n.Connect("laptop", alice, time.Hour)
	if rules != "" {
		n.Must(ann.Publish("$me/policy/watcher", rules, 1))
	}
	n.Must(ann.Publish("hold/on", bob, 1))
	phone.Subscribe("im/#", 1)
	ann.Subscribe("im/#", 1)
	return n, phone, ann, holder{}.pseudonym(alice, bob)
}

// inboxOf is the topic of an address.
func inboxOf(addr string) string { return kind.Resource{Kind: "im", Addr: kind.Of(addr)}.Topic() }

func from(addr string) brokertest.PublishOption {
	return brokertest.Property("evt-from", addr)
}

// noAlice fails the test if somebody was told who is behind the pseudonym.
func noAlice(t *testing.T, got ...brokertest.Got) {
	t.Helper()
	for _, g := range got {
		if strings.Contains(g.Topic+g.Payload+g.Props, "alice") {
			t.Errorf("it is told who it is: %+v", g)
		}
	}
}

// Bob writes to the pseudonym and alice has it, by the pseudonym; she answers in its name
// and bob has that; reports both ways name it; and nothing that bob is sent says who she
// is.
func TestPseudonymIsAnInbox(t *testing.T) {
	_, phone, ann, name := pseudonymous(t, "")
	n := ann
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(phone.Publish(inboxOf(name), `{"id":"1","to":["im:`+name+`"],"wants":["delivered","displayed"],"body":"Who are you?"}`, 1))
	g := ann.Take(1)[0]
	if g.Topic != inboxOfAlice || !strings.Contains(g.Payload, `"to":["im:`+name+`"]`) || !strings.Contains(g.Payload, `"from":"im:bob@example.com"`) {
		t.Errorf("alice has %+v", g)
	}
	delivered := phone.Take(1)[0]
	if m := read(t, delivered); m.Disposition != "delivered" || m.Recipient != "im:"+name {
		t.Errorf("bob is told %+v", m)
	}
	must(n.Publish(inboxOfBob+"/reports", `{"id":"1","disposition":"displayed"}`, 1))
	displayed := phone.Take(1)[0]
	if m := read(t, displayed); m.Disposition != "displayed" || m.Recipient != "im:"+name {
		t.Errorf("bob is told %+v", m)
	}

	must(ann.Publish(inboxOfBob, `{"id":"2","from":"im:`+name+`","wants":["delivered","displayed"],"body":"A friend."}`, 1, from(name)))
	answer := phone.Take(1)[0]
	if m := read(t, answer); m.From != "im:"+name || m.Body != "A friend." {
		t.Errorf("bob has %+v", m)
	}
	if m := read(t, ann.Take(1)[0]); m.Disposition != "delivered" || m.Recipient != "im:bob@example.com" {
		t.Errorf("alice is told %+v", m)
	}
	must(phone.Publish(inboxOf(name)+"/reports", `{"id":"2","disposition":"displayed"}`, 1))
	if m := read(t, ann.Take(1)[0]); m.Disposition != "displayed" {
		t.Errorf("alice is told %+v", m)
	}

	must(ann.Publish(inboxOfBob+"/typing", `{"state":"active"}`, 0, from(name)))
	typing := phone.Take(1)[0]
	if m := read(t, typing); m.From != "im:"+name || m.State != "active" {
		t.Errorf("bob is shown %+v", typing)
	}
	must(phone.Publish(inboxOf(name)+"/typing", `{"state":"active"}`, 0))
	if g := ann.Take(1)[0]; g.Topic != inboxOfAlice+"/typing" {
		t.Errorf("alice is shown %+v", g)
	}
	noAlice(t, delivered, displayed, answer, typing)
}

// To all but whom it is for, and to them when its time is over or its uses are used up, a
// pseudonym is what an address is that nobody has: in codes, answers and reports.
func TestPseudonymIsNobodysElse(t *testing.T) {
	n, phone, ann, name := pseudonymous(t, `{"v":1,"pseudonyms":{"expires":3600,"uses":1}}`)
	eve := n.Connect("eve", carol, time.Hour)
	eve.Subscribe("im/#", 1)
	nobody := strings.Replace(name, "p-", "p-a", 1)
	nobody = nobody[:26] + nobody[27:]
	if !watchers.IsPseudonym(kind.Of(nobody)) || nobody == name {
		t.Fatal(nobody)
	}
	// told is all that somebody is told of a message to an address, but for the address.
	told := func(c client, to string) string {
		answer, err := c.Ask(inboxOf(to), `{"id":"x","body":"Hello"}`, 1)
		n.Must(err)
		report := c.Take(1)[0]
		report.Payload = strings.ReplaceAll(report.Payload, to, "TO")
		report.ID = 0
		return strings.Join([]string{answer["evt-id"], report.Topic, report.Payload, report.Props}, "\n")
	}
	want := told(eve, nobody)
	if got := told(eve, name); got != want {
		t.Errorf("somebody else is told\n%s, want\n%s", got, want)
	}
	n.Must(phone.Publish(inboxOf(name), `{"id":"1","body":"Once"}`, 1))
	if m := read(t, ann.Take(1)[0]); m.Body != "Once" {
		t.Errorf("%+v", m)
	}
	want = told(phone, nobody)
	if got := told(phone, name); got != want {
		t.Errorf("used up, bob is told\n%s, want\n%s", got, want)
	}
	n.Must(ann.Publish("$me/policy/watcher", `{"v":1,"pseudonyms":{"expires":3600}}`, 1))
	n.Must(ann.Publish("hold/on", bob, 1)) // renewed
	n.Must(phone.Publish(inboxOf(name), `{"id":"2","body":"Again"}`, 1))
	ann.Take(1)
	n.Must(ann.Publish("hold/off", bob, 1))
	n.Must(ann.Publish("hold/off", bob, 1))
	n.Must(phone.Publish(inboxOf(name), `{"id":"3","body":"Still"}`, 1))
	ann.Take(1)
	n.Pass(time.Hour)
	if got := told(phone, name); got != want {
		t.Errorf("expired, bob is told\n%s, want\n%s", got, want)
	}
	ann.Take(0)
}

// Nobody writes in the name of a pseudonym that is not theirs, or that is not for whom
// they write to, or under any other name; and nobody can tell one that there is from one
// that there is not.
func TestNobodyElseSpeaksAsAPseudonym(t *testing.T) {
	n, phone, ann, name := pseudonymous(t, "")
	eve := n.Connect("eve", carol, time.Hour)
	n.Must(eve.Publish("$me/policy/im", `{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"send":true,"typing":true}}]}`, 1))
	refusals := map[string]string{}
	for _, c := range []struct {
		what   string
		by     client
		to, as string
	}{
		{"another's", eve, bob, name},
		{"one that there is not", eve, bob, strings.Replace(name, name[2:4], "zz", 1)},
		{"for another", ann, carol, name},
		{"an address", ann, bob, carol},
		{"nobody's", ann, bob, "dave@example.com"},
		{"no address", ann, bob, "p-@"},
	} {
		for _, topicName := range []string{inboxOf(c.to), inboxOf(c.to) + "/typing", inboxOf(c.to) + "/reports"} {
			err := c.by.Publish(topicName, `{"state":"active","body":"x","id":"1","disposition":"displayed"}`, 1, from(c.as))
			if !errors.Is(err, broker.ErrRefused) {
				t.Errorf("%s, on %s: %v", c.what, topicName, err)
				continue
			}
			if topicName == inboxOf(c.to) && c.by == eve {
				refusals[strings.ReplaceAll(err.Error(), c.as, "AS")] = c.what
			}
		}
	}
	if len(refusals) != 1 {
		t.Errorf("one that there is is refused otherwise than one that there is not: %v", refusals)
	}
	phone.Take(0)
}

// What is remembered of a message reads as it was written, also by a version that knew no
// pseudonyms.
func TestKnownIDOnDisk(t *testing.T) {
	want := knownID{iseq: 300, at: 1 << 60, sent: time.Unix(0, 1<<60).UTC(), wants: 3, told: 1}
	const first = "01" + "ac02" + "1000000000000000" + "1000000000000000" + "0301"
	for _, c := range []struct{ to, form string }{{"", first}, {"p@x.org", "02" + first[2:] + "07" + hex.EncodeToString([]byte("p@x.org"))}} {
		want.to = c.to
		if got := hex.EncodeToString(want.encode()); got != c.form {
			t.Errorf("written as %s, want %s", got, c.form)
		}
		b, _ := hex.DecodeString(c.form)
		if got := readID(b); !reflect.DeepEqual(*got, want) {
			t.Errorf("reads as %+v, want %+v", *got, want)
		}
	}
}
