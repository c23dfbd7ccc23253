package inbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/internal/golden"
	"github.com/bellwire/bellwire/profiles/blocklist"
	"github.com/bellwire/bellwire/profiles/im"
)

// waiting is a node on which bob lets alice and carol send, with a phone of his that is
// away and has heard nothing yet.
func waiting(t *testing.T, limits Limits) (n *node, phone, ann, eve client) {
	t.Helper()
	n = &node{brokertest.NewWith(t, broker.Limits{SettleEvery: time.Millisecond}, func() []broker.Profile {
		messages := []broker.Profile{New(im.New(), limits)}
		return append(messages, blocklist.For(messages))
	}), t}
	t.Cleanup(func() { n.CheckReplay(n.Copy()) })
	phone, ann, eve = n.Connect("phone", bob, time.Hour), n.Connect("laptop", alice, time.Hour), n.Connect("eve", carol, time.Hour)
	n.Must(phone.Publish("$me/policy/im", rules(lets("alice", alice, ""), lets("carol", carol, "")), 1))
	phone.Subscribe(inboxOfBob, 2)
	phone.Disconnect()
	ann.Subscribe("im/#", 1)
	eve.Subscribe("im/#", 1)
	return n, phone, ann, eve
}

// failed fails the test unless so many messages were told to have failed as to nobody, in
// their order.
func failed(t *testing.T, c client, ids ...string) {
	t.Helper()
	for i, g := range c.Take(len(ids)) {
		if m := read(t, g); m.ID != ids[i] || m.Disposition != "failed" || m.Reason != "unavailable" || m.Recipient != "im:"+bob {
			t.Errorf("%s is told %s, want that %s failed", c.Name, g, ids[i])
		}
	}
}

// However bob keeps alice out, what of hers waits for his devices is not delivered, to
// those that were away and to new ones; it fails as to nobody, whatever the style; what
// others have sent comes in its order; and what has failed stays so.
func TestWhoIsKeptOutLaterIsKeptOut(t *testing.T) {
	blocks := func(style string) string {
		return `{"v":1,"blocked":[{"one":"im:alice@example.net","style":"` + style + `"}]}`
	}
	for _, c := range []struct{ name, topic, document, back string }{
		{"blocked politely", "$me/blocklist", blocks("polite"), ""},
		{"refused", "$me/blocklist", blocks("refuse"), ""},
		{"without a rule", "$me/policy/im", rules(lets("carol", carol, "")), rules(lets("alice", alice, ""), lets("carol", carol, ""))},
		{"refused by a rule", "$me/policy/im", rules(strings.Replace(lets("alice", alice, `,"style":"refuse"`), `"allow"`, `"block"`, 1), lets("carol", carol, "")), rules(lets("alice", alice, ""), lets("carol", carol, ""))},
		{"outside of a validity when it came", "$me/policy/im", rules(strings.Replace(lets("alice", alice, ""), `"if":{`, `"if":{"validity":[{"from":"2026-03-09T12:00:01Z"}],`, 1), lets("carol", carol, "")), rules(lets("alice", alice, ""), lets("carol", carol, ""))},
	} {
		n, _, ann, eve := waiting(t, Limits{})
		for i := range 3 {
			n.Must(ann.Publish(inboxOfBob, fmt.Sprintf(`{"id":"a%d","wants":["displayed"],"body":"a%d"}`, i, i), uint8(i%2+1)))
			n.Must(eve.Publish(inboxOfBob, fmt.Sprint("e", i), 1))
		}
		pc := n.Connect("pc", bob, time.Hour)
		n.Must(pc.Publish(c.topic, c.document, 1))
		failed(t, ann, "a0", "a1", "a2")
		ann.Disconnect() // what it has acknowledged the log is told first
		n.Restart()
		ann, pc = n.Connect("laptop", alice, time.Hour), n.Connect("pc", bob, time.Hour)
		pc.Hold(true)
		pc.Subscribe(inboxOfBob, 1)
		of := func(device client) {
			t.Helper()
			var got []string
			for _, g := range device.Take(3) {
				got = append(got, read(t, g).Body)
			}
			if text := strings.Join(got, " "); text != "e0 e1 e2" {
				t.Errorf("%s: the %s has %s", c.name, device.Name, text)
			}
		}
		of(pc)
		n.Must(pc.Publish(c.topic, c.back, 1))
		phone := n.Connect("phone", bob, time.Hour)
		of(phone)
		n.Must(phone.Publish(inboxOfAlice+"/reports", `{"id":"a1","disposition":"displayed"}`, 1))
		ann.Take(0)
	}
}

// What was sent to a device and not acknowledged is not sent again once its sender is kept
// out, when the device is back and when another connection takes its place; what another
// device has had neither, and does not fail.
func TestUnacknowledgedIsNotSentAgain(t *testing.T) {
	n, _, ann, eve := waiting(t, Limits{})
	phone := n.Connect("phone", bob, time.Hour)
	phone.Hold(true)
	n.Must(ann.Publish(inboxOfBob, `{"id":"a","body":"a"}`, 1))
	n.Must(eve.Publish(inboxOfBob, `{"id":"e","body":"e"}`, 1))
	phone.Take(2)
	pc := n.Connect("pc", bob, time.Hour)
	n.Must(pc.Publish("$me/blocklist", `{"v":1,"blocked":[{"one":"im:alice@example.net"}]}`, 1))
	failed(t, ann, "a")
	again := n.Connect("phone", bob, time.Hour) // while the other is there
	if got := again.Take(1); read(t, got[0]).Body != "e" || !got[0].Dup {
		t.Errorf("the phone has %v", got)
	}
	n, _, ann, _ = waiting(t, Limits{})
	pc = n.Connect("pc", bob, time.Hour)
	pc.Subscribe(inboxOfBob, 1)
	n.Must(ann.Publish(inboxOfBob, `{"id":"a","wants":["delivered"],"body":"a"}`, 1))
	pc.Take(1)
	if m := read(t, ann.Take(1)[0]); m.Disposition != "delivered" {
		t.Errorf("alice is told %+v", m)
	}
	n.Must(pc.Publish("$me/blocklist", `{"v":1,"blocked":[{"one":"im:alice@example.net"}]}`, 1))
	phone = n.Connect("phone", bob, time.Hour)
	phone.Take(0)
	ann.Take(0)
}

// A whole inbox is looked through in pieces, each in a log entry of its own, also when the
// node dies in between; a policy that changes meanwhile has the last word.
func TestSiftedInPieces(t *testing.T) {
	const many = 4 * pieceMessages
	n, _, ann, eve := waiting(t, Limits{Rate: 1000, Burst: 10_000})
	for i := range many {
		n.Must(ann.Publish(inboxOfBob, fmt.Sprint(i), 1))
	}
	n.Must(eve.Publish(inboxOfBob, "last", 1))
	phone := n.Connect("pc", bob, time.Hour)
	before := n.Machine().Applied()
	n.Must(phone.Publish("$me/policy/im", rules(lets("carol", carol, "")), 1))
	n.Crash()
	ann = n.Connect("laptop", alice, time.Hour)
	ann.Take(many)
	if entries := n.Machine().Applied() - before; entries < many/pieceMessages {
		t.Errorf("%d messages were looked through in %d log entries", many, entries)
	}
	phone = n.Connect("phone", bob, time.Hour)
	if got := phone.Take(1)[0]; read(t, got).Body != "last" {
		t.Errorf("the phone has %s", got)
	}
}

// Hours say when somebody may write: what came within them waits for a device that comes
// after them, whatever else changes.
func TestHoursAreOfTheWriting(t *testing.T) {
	hours := `"if":{"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]},`
	n, _, ann, eve := waiting(t, Limits{})
	pc := n.Connect("pc", bob, time.Hour)
	n.Must(pc.Publish("$me/policy/im", rules(strings.Replace(lets("alice", alice, ""), `"if":{`, hours, 1)), 1))
	n.Must(ann.Publish(inboxOfBob, "in time", 1))
	n.Must(eve.Publish(inboxOfBob, "no rule", 1))
	n.Pass(5*time.Hour + time.Minute)
	n.Must(ann.Publish(inboxOfBob, `{"id":"late","body":"too late"}`, 1))
	failed(t, ann, "late")
	pc = n.Connect("pc", bob, time.Hour)
	n.Must(pc.Publish("$me/policy/im", rules(strings.Replace(lets("alice", alice, ""), `"if":{`, hours, 1), lets("zoe", "zoe@example.net", "")), 1))
	phone := n.Connect("tablet", bob, time.Hour)
	phone.Subscribe(inboxOfBob, 1)
	if got := phone.Take(1)[0]; read(t, got).Body != "in time" {
		t.Errorf("the tablet has %s", got)
	}
}

// The binary form of how far an inbox was looked through stays as it is.
func TestSiftForms(t *testing.T) {
	golden.Forms(t, "sift.txt", []golden.Form{{Name: "sift/300/4", Bytes: encodeSift(300)}, {Name: "sift/first/4", Bytes: encodeSift(0)}})
	if next := readSift(encodeSift(300)); next != 300 {
		t.Errorf("read as %d", next)
	}
}
