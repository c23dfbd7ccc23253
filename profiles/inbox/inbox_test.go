package inbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/im"
)

const (
	inboxOfBob   = "im/example.com/bob"
	inboxOfAlice = "im/example.net/alice"
	alice        = "alice@example.net"
	bob          = "bob@example.com"
	policyOfBob  = `{"v":1,"rules":[{"id":"alice","if":{"identity":[{"one":"im:alice@example.net"}]},"then":{"handling":"allow"},"show":{"send":true,"typing":true,"receipts":true}}]%s}`
)

func newNode(t *testing.T, limits Limits) *node { return newNodeWith(t, limits, time.Millisecond) }

// newNodeWith starts a node whose log hears of acknowledgements so often.
func newNodeWith(t *testing.T, limits Limits, settleEvery time.Duration) *node {
	n := &node{brokertest.NewWith(t, broker.Limits{SettleEvery: settleEvery}, func() []broker.Profile { return []broker.Profile{New(im.New(), limits)} }), t}
	t.Cleanup(func() { n.CheckReplay(n.Copy()) })
	return n
}

// A node and its clients, with fewer words.
type node struct {
	*brokertest.Node
	t *testing.T
}

func (n *node) Must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

type client struct {
	*brokertest.Client
	t *testing.T
}

func (n *node) Connect(name, principal string, expiry time.Duration) client {
	n.t.Helper()
	return client{n.Node.Connect(principal, brokertest.ClientID(name), brokertest.Expiry(uint32(expiry/time.Second)), brokertest.ReceiveMax(1000)), n.t}
}

func (c client) Publish(topicName, payload string, qos uint8, with ...brokertest.PublishOption) error {
	_, err := c.Ask(topicName, payload, qos, with...)
	return err
}

func (c client) Ask(topicName, payload string, qos uint8, with ...brokertest.PublishOption) (map[string]string, error) {
	return c.Client.PublishAnswer(topicName, payload, append(with, brokertest.QoS(qos))...)
}

// Take returns n deliveries, and fails the test if there are others.
func (c client) Take(n int) []brokertest.Got {
	c.t.Helper()
	got := c.Await(n)
	if len(got) != n {
		c.t.Errorf("%s got %d deliveries, want %d: %v", c.Name, len(got), n, got)
	}
	return append(got, make([]brokertest.Got, max(0, n-len(got)))...)
}

// befriended is a node on which bob lets alice send, with a device of each.
func befriended(t *testing.T, limits Limits) (n *node, phone, ann client) {
	t.Helper()
	return befriendedOn(newNode(t, limits))
}

func befriendedOn(n *node) (_ *node, phone, ann client) {
	n.t.Helper()
	phone, ann = n.Connect("phone", bob, time.Hour), n.Connect("laptop", alice, time.Hour)
	n.Must(phone.Publish("$me/policy/im", fmt.Sprintf(policyOfBob, ""), 1))
	ann.Subscribe(inboxOfAlice+"/reports", 1)
	return n, phone, ann
}

// A message is what a test looks at of an envelope or a report.
type message struct {
	ID, From, At, Body, Recipient, Disposition, Reason, State string
	ISeq                                                      uint64
}

func read(t *testing.T, g brokertest.Got) message {
	t.Helper()
	var m message
	if err := json.Unmarshal([]byte(g.Payload), &m); err != nil {
		t.Errorf("%s: %v", g, err)
	}
	return m
}

func bodies(t *testing.T, got []brokertest.Got) string {
	t.Helper()
	var all []string
	for i, g := range got {
		m := read(t, g)
		if i > 0 && m.ISeq != read(t, got[i-1]).ISeq+1 {
			t.Errorf("%s follows %s", g, got[i-1])
		}
		all = append(all, m.Body)
	}
	return strings.Join(all, " ")
}

// Every device of bob gets what alice sends, in an envelope with her name and
// the message's number, at the QoS it asked for; nobody else does.
func TestEachDeviceHasItsCopy(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	pc, web, eve := n.Connect("pc", bob, time.Hour), n.Connect("web", bob, 0), n.Connect("eve", "eve@example.com", time.Hour)
	phone.Subscribe(inboxOfBob, 1)
	pc.Subscribe("im/#", 2)
	web.Subscribe(inboxOfBob+"/#", 1)
	eve.Subscribe("im/#", 2)
	eve.Subscribe("#", 2)
	if err := eve.TrySubscribe(inboxOfBob, 1); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("eve reads bob's inbox: %v", err)
	}
	answer, err := ann.Ask(inboxOfBob, `{"id":"1","from":"im:alice@example.net","body":"Lunch?"}`, 2)
	n.Must(err)
	if !maps.Equal(answer, map[string]string{"evt-id": "1"}) {
		t.Errorf("alice is told %v", answer)
	}
	for device, qos := range map[client]uint8{phone: 1, pc: 2, web: 1} {
		g := device.Take(1)[0]
		if g.QoS != qos || g.Retain || g.Topic != inboxOfBob || event.ContentType([]byte(g.Props)) != im.TypeJSON || g.Expiry != uint32(7*24*3600) ||
			g.Payload != `{"id":"1","iseq":1,"at":"2026-03-09T12:00:00Z","from":"im:alice@example.net","to":["im:bob@example.com"],"type":"text/plain","body":"Lunch?"}` {
			t.Errorf("%+v", g)
		}
	}
	eve.Take(0)
	ann.Take(0)
}

// While no device has it a message is kept: for those that are away in their
// queues, for one whose first session begins later in the inbox. What one
// device has is not kept for new ones; each gets the inbox's order.
func TestKeptWhileAway(t *testing.T) {
	n, _, ann := befriended(t, Limits{})
	for i := range 3 {
		n.Must(ann.Publish(inboxOfBob, fmt.Sprint(i), 1))
	}
	n.Restart()
	ann = n.Connect("laptop", alice, time.Hour)
	phone := n.Connect("phone", bob, time.Hour)
	phone.Hold(true)
	phone.Subscribe("im/#", 0)
	phone.Take(0)
	phone.Subscribe("im/#", 1)
	phone.Subscribe(inboxOfBob, 1)
	n.Must(ann.Publish(inboxOfBob, "3", 1))
	if got := bodies(t, phone.Take(4)); got != "0 1 2 3" {
		t.Errorf("the phone got %s", got)
	}
	pc := n.Connect("pc", bob, time.Hour)
	pc.Hold(true)
	pc.Subscribe(inboxOfBob, 1)
	if got := bodies(t, pc.Take(4)); got != "0 1 2 3" {
		t.Errorf("the pc got %s, while no device had said that it has them", got)
	}
	pc.Hold(false)
	n.Must(ann.Publish(inboxOfBob, "4", 1, brokertest.Property("evt-wants", "delivered"), brokertest.Property("evt-id", "4")))
	ann.Take(1)
	web := n.Connect("web", bob, time.Hour)
	web.Subscribe(inboxOfBob, 1)
	web.Take(0)
	pc.Lose()
	n.Must(ann.Publish(inboxOfBob, "5", 1))
	pc = n.Connect("pc", bob, time.Hour)
	if got := pc.Await(1); bodies(t, got[len(got)-1:]) != "5" {
		t.Errorf("the pc was away and got %v", got)
	}
}

// A device whose first session begins is given what is kept in pieces, each in a
// log entry of its own, and what comes in the meantime after that; so it is when
// the node dies in between, and when the device begins anew.
func TestGivenInPieces(t *testing.T) {
	const many, more = 8 * pieceMessages, 20
	n, phone, ann := befriended(t, Limits{Rate: 1000, Burst: 10_000})
	sent := 0
	send := func(count int) {
		for range count {
			n.Must(ann.Publish(inboxOfBob, fmt.Sprint(sent), 1))
			sent++
		}
	}
	check := func(device client) {
		t.Helper()
		got := device.Take(sent)
		if bodies(t, got); read(t, got[0]).ISeq != 1 {
			t.Errorf("the first of %d is %s", len(got), got[0])
		}
	}
	begin := func(name, filter string) client {
		t.Helper()
		device := n.Connect(name, bob, time.Hour)
		device.Hold(true)
		device.Subscribe(filter, 1)
		return device
	}
	send(many)
	before := n.Machine().Applied()
	phone.Hold(true)
	phone.Subscribe(inboxOfBob, 1)
	check(phone)
	if entries := n.Machine().Applied() - before; entries < many/pieceMessages {
		t.Errorf("%d messages were given in %d log entries", many, entries)
	}
	tablet := begin("tablet", "im/#")
	send(more)
	check(tablet)
	begin("pc", inboxOfBob)
	n.Crash()
	ann = n.Connect("laptop", alice, time.Hour)
	send(more)
	pc := n.Connect("pc", bob, time.Hour)
	pc.Hold(true)
	check(pc)
	web := begin("web", inboxOfBob)
	web.Unsubscribe(inboxOfBob)
	send(more) // which it is not sent yet
	web.Subscribe(inboxOfBob, 1)
	send(more)
	check(web)
	web.Hold(false)
	n.Settle()
	web.Disconnect() // what it has acknowledged the log is told first
	begin("late", inboxOfBob).Take(0)
}

// What another device takes while one is being given it comes to that one all the
// same, and to none that begins later.
func TestTakenWhileGiven(t *testing.T) {
	const many = 8 * pieceMessages
	n, phone, ann := befriendedOn(newNodeWith(t, Limits{Kept: many, Rate: 1000, Burst: 10_000}, time.Hour))
	for i := range many {
		n.Must(ann.Publish(inboxOfBob, fmt.Sprint(i), 1))
	}
	phone.Subscribe(inboxOfBob, 1)
	phone.Take(many)
	tablet := n.Connect("tablet", bob, time.Hour)
	tablet.Subscribe(inboxOfBob, 1)
	phone.Disconnect() // only now the log hears that it has them
	late := n.Connect("late", bob, time.Hour)
	late.Subscribe(inboxOfBob, 1)
	late.Take(0)
	bodies(t, tablet.Take(many))
	for i := range many { // all that the inbox keeps
		n.Must(ann.Publish(inboxOfBob, fmt.Sprint(i), 1))
	}
}

// Who subscribes again and again has each message that waits for them in their
// queue once, through restarts, and has all of them in the end.
func TestSubscribesAgain(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	n.Must(ann.Publish(inboxOfBob, `{"id":"0","wants":["delivered"],"body":"0"}`, 1)) // sent because it is kept
	phone.Hold(true)
	phone.Subscribe(inboxOfBob, 1)
	for i := 1; i < 4; i++ { // sent when it comes
		n.Must(ann.Publish(inboxOfBob, fmt.Sprintf(`{"id":"%d","wants":["delivered"],"body":"%d"}`, i, i), 1))
	}
	again := func() {
		for range 5 {
			phone.Unsubscribe(inboxOfBob)
			phone.Subscribe(inboxOfBob, 1)
		}
	}
	again()
	if got := bodies(t, phone.Take(4)); got != "0 1 2 3" {
		t.Errorf("the phone got %s", got)
	}
	n.Restart()
	ann, phone = n.Connect("laptop", alice, time.Hour), n.Connect("phone", bob, time.Hour)
	phone.Hold(true)
	again()
	if got := bodies(t, phone.Take(4)); got != "0 1 2 3" {
		t.Errorf("the phone got %s again", got)
	}
	ann.Take(0)
	phone.Hold(false)
	n.Must(ann.Publish(inboxOfBob, "4", 1))
	phone.Await(1)
	if got := ann.Await(4); len(got) != 4 {
		t.Errorf("%d messages are delivered, want 4: %v", len(got), got)
	}
}

// Without permission a message is acknowledged like any other, fails, and
// reaches nobody; to nobody it fails alike. Who was written to may answer.
func TestNotPermitted(t *testing.T) {
	n, phone, _ := befriended(t, Limits{})
	phone.Subscribe("im/#", 1)
	mallory := n.Connect("mallory", "mallory@example.com", time.Hour)
	mallory.Subscribe("im/#", 1)
	var reports []string
	for _, to := range []string{"bob", "nob"} {
		n.Must(mallory.Publish("im/example.com/"+to, `{"id":"1","date":"2026-03-09T11:00:00Z","body":"hello"}`, 1))
		reports = append(reports, strings.ReplaceAll(mallory.Take(1)[0].String(), to, "?"))
	}
	const want = `im/example.com/mallory/reports={"id":"1","recipient":"im:?@example.com","datetime":"2026-03-09T11:00:00Z","disposition":"failed","reason":"unavailable"} q1`
	if reports[0] != want || reports[1] != want {
		t.Errorf("%s\n%s", reports[0], reports[1])
	}
	phone.Take(0)
	n.Must(phone.Publish("im/example.com/mallory", "What?", 1))
	if got := bodies(t, mallory.Take(1)); got != "What?" {
		t.Errorf("mallory wrote to bob, and got %s", got)
	}
	phone.Take(0)
	// Bob's own policy has no rule for contacts: it is his.
	n.Must(mallory.Publish("im/example.com/bob", "hello?", 1))
	mallory.Take(1)
	n.Must(phone.Publish("$me/policy/im", "", 1))
	answer, err := mallory.Ask("im/example.com/bob", `{"id":"2","body":"hello!"}`, 1)
	n.Must(err)
	if refused, err := n.Connect("eve", "eve@example.com", 0).Ask("im/example.com/bob", `{"id":"2","body":"hello!"}`, 1); err != nil || !maps.Equal(answer, refused) {
		t.Errorf("who is let in is told %v, who is not %v, %v", answer, refused, err)
	}
	if got := bodies(t, phone.Take(1)); got != "hello!" {
		t.Errorf("bob wrote to mallory, and got %s", got)
	}
}

// A message that comes again with its id is acknowledged with the number it
// has, and delivered once; the ids of two senders are two. After a week it is
// another message, and so it is if too many came in between.
func TestOnce(t *testing.T) {
	n, phone, ann := befriended(t, Limits{IDs: 3})
	phone.Subscribe(inboxOfBob, 2)
	send := func(c client, id string, want ...uint64) {
		t.Helper()
		answer, err := c.Ask(inboxOfBob, fmt.Sprintf(`{"id":%q,"body":%q}`, id, id), 1)
		if err != nil || !maps.Equal(answer, map[string]string{"evt-id": id}) {
			t.Errorf("%s: %v, %v", id, answer, err)
		}
		var got []uint64
		for _, g := range phone.Await(len(want)) {
			got = append(got, read(t, g).ISeq)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s comes as number %d, want %d", id, got, want)
		}
	}
	send(ann, "a", 1)
	send(ann, "a")
	n.Restart()
	phone, ann = n.Connect("phone", bob, time.Hour), n.Connect("laptop", alice, time.Hour)
	for _, g := range phone.Await(0) { // the log may not have heard that it had it
		if !g.Dup || read(t, g).ISeq != 1 {
			t.Errorf("after the death came %s", g)
		}
	}
	send(ann, "a")
	send(phone, "a", 2)
	send(ann, "b", 3)
	send(ann, "a")
	send(ann, "c", 4) // the fourth that is remembered: the first is not any more
	send(ann, "a", 5)
	send(ann, "c")
	n.Pass(Remember)
	ann = n.Connect("laptop", alice, time.Hour)
	send(ann, "c", 6)
	send(ann, "c")
}

// Each of two who have set no policy has what the other sends once they have
// written to each other, each message once and in order, through restarts.
func TestConversation(t *testing.T) {
	n := newNode(t, Limits{Rate: 1000, Burst: 10_000})
	people := []string{"ann@x.org", "ben@y.org"}
	inboxes := []string{"im/x.org/ann", "im/y.org/ben"}
	connect := func() (devices [4]client) {
		for i := range devices {
			devices[i] = n.Connect(fmt.Sprint("d", i), people[i/2], time.Hour)
		}
		return devices
	}
	devices := connect()
	for i, d := range devices {
		d.Subscribe(inboxes[i/2], uint8(1+i%2))
	}
	n.Must(devices[0].Publish(inboxes[1], "first", 1)) // fails: ben has not written to ann
	got := make([][]brokertest.Got, 4)
	const each = 60
	for i := range each {
		for from, d := range []int{0, 2} {
			n.Must(devices[d].Publish(inboxes[1-from], fmt.Sprintf(`{"id":"%d","body":"%d"}`, i, i), uint8(1+i%2)))
		}
		if i%20 == 19 {
			for d := range devices {
				got[d] = append(got[d], devices[d].Got()...) // much of it not acknowledged yet
			}
			n.Restart()
			devices = connect()
		}
	}
	for d := range devices {
		// At QoS 1 what was not acknowledged in time comes again: the same number.
		got[d] = append(got[d], devices[d].Await(0)...)
		var seen []uint64
		for _, g := range got[d] {
			iseq := read(t, g).ISeq
			if slices.Contains(seen, iseq) {
				if g.QoS == 2 || !g.Dup {
					t.Errorf("device %d has %d twice: %v", d, iseq, g)
				}
				continue
			}
			seen = append(seen, iseq)
		}
		if len(seen) != int(lastOf(d, each)) || !slices.IsSorted(seen) {
			t.Errorf("device %d has %d messages, want %d: %v", d, len(seen), lastOf(d, each), seen)
		}
	}
}

// lastOf is the number of the last message of a device's inbox: the first that
// ben got failed, for he had not yet written to ann.
func lastOf(device int, each uint64) uint64 {
	if device < 2 {
		return each
	}
	return each - 1
}

// A message that nobody had in time is forgotten, and its sender told; one that
// is late when it comes reaches nobody.
func TestExpiry(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	n.Must(ann.Publish(inboxOfBob, `{"id":"1","expires":"2026-03-09T12:10:00Z","body":"x"}`, 1))
	n.Must(ann.Publish(inboxOfBob, `{"id":"2","body":"x"}`, 1, brokertest.ExpiresAt(brokertest.Begin.Add(5*time.Minute))))
	n.Must(ann.Publish(inboxOfBob, `{"id":"3","wants":["delivered"],"body":"x"}`, 1))
	n.Must(ann.Publish(inboxOfBob, `{"id":"4","expires":"2026-03-09T12:00:00Z","body":"x"}`, 1))
	check := func(id string) {
		t.Helper()
		if m := read(t, ann.Take(1)[0]); m.ID != id || m.Disposition != "failed" || m.Reason != "expired" {
			t.Errorf("%+v, want that %s expired", m, id)
		}
	}
	check("4")
	n.Pass(5 * time.Minute)
	check("2")
	n.Pass(5 * time.Minute)
	check("1")
	phone.Subscribe(inboxOfBob, 1)
	if m := read(t, phone.Take(1)[0]); m.ID != "3" {
		t.Errorf("%+v", m)
	}
	ann.Take(1) // it is delivered
	n.Pass(7 * 24 * time.Hour)
	ann.Take(0)
}

// The sender learns once that a device has the message, if they want to and
// may; what the device says itself is passed on if it has the message.
func TestReports(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	phone.Subscribe("im/#", 1)
	pc := n.Connect("pc", bob, time.Hour)
	pc.Subscribe(inboxOfBob, 1)
	n.Must(ann.Publish(inboxOfBob, `{"id":"1","date":"2026-03-09T11:00:00Z","wants":["delivered","displayed"],"body":"x"}`, 1))
	n.Must(ann.Publish(inboxOfBob, `{"id":"2","body":"x"}`, 1))
	if g := ann.Take(1)[0]; event.ContentType([]byte(g.Props)) != im.TypeReport || g.Payload != `{"id":"1","recipient":"im:bob@example.com","datetime":"2026-03-09T11:00:00Z","disposition":"delivered"}` {
		t.Errorf("%+v", g)
	}
	report := func(c client, text string) error { return c.Publish(inboxOfAlice+"/reports", text, 1) }
	n.Must(report(phone, `{"id":"1","disposition":"delivered"}`)) // known
	n.Must(report(phone, `{"id":"2","disposition":"displayed"}`)) // nobody asked
	n.Must(report(phone, `{"id":"1","disposition":"displayed"}`))
	n.Must(report(pc, `{"id":"1","disposition":"displayed"}`))
	if m := read(t, ann.Take(1)[0]); m.ID != "1" || m.Disposition != "displayed" || m.Recipient != "im:bob@example.com" {
		t.Errorf("%+v", m)
	}
	eve := n.Connect("eve", "eve@example.com", 0)
	for name, err := range map[string]error{
		"of a message that does not exist": report(phone, `{"id":"9","disposition":"displayed"}`),
		"of a message to another":          report(eve, `{"id":"1","disposition":"displayed"}`),
	} {
		if !errors.Is(err, broker.ErrCondition) || !strings.Contains(err.Error(), "no-such-message") {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.Must(phone.Publish("$me/policy/im", strings.Replace(fmt.Sprintf(policyOfBob, ""), `"receipts":true`, `"receipts":false`, 1), 1))
	n.Must(ann.Publish(inboxOfBob, `{"id":"3","wants":["delivered","displayed"],"body":"x"}`, 1))
	n.Must(report(phone, `{"id":"3","disposition":"displayed"}`))
	ann.Take(0)
	phone.Take(3)
	pc.Take(3)
}

// That somebody is writing reaches the owner's devices at QoS 0, from those
// who may; nothing is ordered or kept, and nobody learns whether it was let in.
func TestTyping(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	phone.Subscribe("im/#", 1)
	mallory := n.Connect("mallory", "mallory@example.com", 0)
	for qos := range uint8(3) {
		n.Must(ann.Publish(inboxOfBob+"/typing", "active", qos, brokertest.Retain))
		n.Must(mallory.Publish(inboxOfBob+"/typing", "active", qos))
	}
	for _, g := range phone.Take(3) {
		if g.QoS != 0 || g.Retain || g.Topic != inboxOfBob+"/typing" || event.ContentType([]byte(g.Props)) != im.TypeTyping || g.Expiry != 120 || g.Payload != `{"from":"im:alice@example.net","state":"active"}` {
			t.Errorf("%+v", g)
		}
	}
	pc := n.Connect("pc", bob, time.Hour)
	pc.Subscribe("im/#", 1)
	pc.Take(0)
}

// A delegate reads what the owner does, until their time is over.
func TestDelegates(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	secretary := n.Connect("secretary", "sec@example.com", time.Hour)
	secretary.Subscribe("im/#", 1)
	n.Must(phone.Publish("$me/policy/im", fmt.Sprintf(policyOfBob, `,"delegates":[{"one":"im:sec@example.com","read":true,"until":"2026-03-09T13:00:00Z"}]`), 1))
	secretary.Subscribe(inboxOfBob, 1)
	n.Must(ann.Publish(inboxOfBob, "for both", 1))
	if got := bodies(t, secretary.Take(1)); got != "for both" {
		t.Errorf("%s", got)
	}
	n.Pass(time.Hour)
	n.Must(ann.Publish(inboxOfBob, "for bob", 1))
	secretary.Take(0)
	if err := secretary.TrySubscribe(inboxOfBob, 1); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("%v", err)
	}
}

// What a delegate's device has is kept for the owner all the same, and is not
// delivered before the owner has it.
func TestDelegateDoesNotTake(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	n.Must(phone.Publish("$me/policy/im", fmt.Sprintf(policyOfBob, `,"delegates":[{"one":"im:sec@example.com","read":true}]`), 1))
	secretary := n.Connect("secretary", "sec@example.com", time.Hour)
	secretary.Subscribe(inboxOfBob, 1)
	n.Must(ann.Publish(inboxOfBob, `{"id":"1","wants":["delivered"],"body":"for bob"}`, 1))
	if got := bodies(t, secretary.Take(1)); got != "for bob" {
		t.Errorf("the delegate got %s", got)
	}
	secretary.Disconnect() // what it has acknowledged the log is told first
	ann.Take(0)
	phone.Subscribe(inboxOfBob, 1)
	if got := bodies(t, phone.Take(1)); got != "for bob" {
		t.Errorf("bob got %s", got)
	}
	if m := read(t, ann.Take(1)[0]); m.ID != "1" || m.Disposition != "delivered" {
		t.Errorf("%+v", m)
	}
}

// What is past a bound is refused to who may send, and changes nothing; to who
// may not it is as ever.
func TestBounds(t *testing.T) {
	n, _, ann := befriended(t, Limits{Kept: 2, Rate: 1, Burst: 4})
	mallory := n.Connect("mallory", "mallory@example.com", time.Hour)
	mallory.Subscribe("im/#", 1)
	told := brokertest.Property("evt-wants", "delivered")
	n.Must(ann.Publish(inboxOfBob, "1", 1, told))
	n.Must(ann.Publish(inboxOfBob, "2", 1, told))
	for range 3 {
		if err := ann.Publish(inboxOfBob, "3", 1); !errors.Is(err, broker.ErrQuota) || !strings.Contains(err.Error(), "quota: ") {
			t.Errorf("a full inbox: %v", err)
		}
	}
	n.Must(mallory.Publish(inboxOfBob, "3", 1))
	mallory.Take(1)
	phone := n.Connect("phone", bob, time.Hour)
	phone.Subscribe(inboxOfBob, 1)
	if got := bodies(t, phone.Take(2)); got != "1 2" {
		t.Errorf("%s", got)
	}
	ann.Take(2) // the inbox has room again
	for range 2 {
		n.Must(ann.Publish(inboxOfBob, "x", 1, told))
	}
	ann.Take(2)
	if err := ann.Publish(inboxOfBob, "x", 1); !errors.Is(err, broker.ErrQuota) || !strings.Contains(err.Error(), "rate: ") {
		t.Errorf("too many at once: %v", err)
	}
	n.Pass(time.Second)
	n.Must(ann.Publish(inboxOfBob, "x", 1))
	n2, _, ann2 := befriended(t, Limits{KeptBytes: 1000})
	n2.Must(ann2.Publish(inboxOfBob, strings.Repeat("x", 500), 1))
	if err := ann2.Publish(inboxOfBob, strings.Repeat("x", 500), 1); !errors.Is(err, broker.ErrQuota) {
		t.Errorf("bytes: %v", err)
	}
}

// The limits in force are those that the log has, on nodes that are configured
// otherwise too, and in their next lives; those out of bounds change nothing.
func TestLimitsAreAgreed(t *testing.T) {
	lives := 0
	n := &node{brokertest.New(t, func() []broker.Profile {
		lives++
		return []broker.Profile{New(im.New(), Limits{Kept: lives, Rate: 1, Burst: lives})}
	}), t}
	t.Cleanup(func() { n.CheckReplay(nil) })
	ctx, good := t.Context(), Limits{Kept: 3, Rate: 1, Burst: 4}
	n.Must(n.SetProfileSettings(ctx, "im", good.Settings(n.Level())))
	for _, bad := range []Limits{{Kept: MostKept + 1}, {KeptBytes: 1<<30 + 1}, {IDs: 1<<20 + 1}, {Rate: -1}, {Burst: 1<<20 + 1}, {Contacts: -1}, {Strangers: 1<<20 + 1}} {
		if err := n.SetProfileSettings(ctx, "im", bad.Settings(n.Level())); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "want 1 to ") {
			t.Errorf("%+v: %v, want ErrRefused and the bounds", bad, err)
		}
	}
	whole := good.Settings(n.Level())
	for _, bad := range [][]byte{nil, whole[:len(whole)-1], append(slices.Clone(whole), 0), append([]byte{9}, whole[1:]...)} {
		if err := n.SetProfileSettings(ctx, "im", bad); !errors.Is(err, broker.ErrRefused) {
			t.Errorf("%x: %v, want ErrRefused", bad, err)
		}
	}
	if err := n.SetProfileSettings(ctx, "presence", whole); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("of a profile that is not there: %v", err)
	}
	_, _, ann := befriendedOn(n)
	for i := range 5 {
		switch err := ann.Publish(inboxOfBob, "x", 1); {
		case i < 3 && err != nil, i == 3 && !strings.Contains(fmt.Sprint(err), "quota: "):
			t.Errorf("message %d: %v", i, err)
		}
		if i == 1 {
			n.Restart()
			ann = n.Connect("laptop", alice, time.Hour)
		}
	}
	n.Must(n.SetProfileSettings(ctx, "im", Limits{Kept: 9, Rate: 1, Burst: 5}.Settings(n.Level())))
	for i := range 3 {
		if err := ann.Publish(inboxOfBob, "x", 1); (i < 2) != (err == nil) || i == 2 && !strings.Contains(fmt.Sprint(err), "rate: at most 1 messages a second, 5 at once") {
			t.Errorf("message %d under higher bounds: %v", i, err)
		}
	}
	if l, err := ReadSettings(n.ProfileSettings("im")); err != nil || l.Burst != 5 || l.IDs != 1<<16 {
		t.Errorf("in force are %+v, %v", l, err)
	}
}

// Bad input is refused with the reason that its code is made of, and nobody
// gets anything.
func TestRefused(t *testing.T) {
	n, phone, ann := befriended(t, Limits{})
	phone.Subscribe("im/#", 1)
	nobody := n.Connect("nobody", "", 0)
	for _, c := range []struct {
		name   string
		from   client
		topic  string
		text   string
		cause  error
		reason string
		with   []brokertest.PublishOption
	}{
		{name: "from another", from: ann, topic: inboxOfBob, text: `{"from":"im:bob@example.com","body":"x"}`, cause: broker.ErrPayload, reason: "from-mismatch: /from"},
		{name: "empty", from: ann, topic: inboxOfBob, cause: broker.ErrPayload, reason: "schema"},
		{name: "no type of ours", from: ann, topic: inboxOfBob, text: "x", with: []brokertest.PublishOption{brokertest.ContentType("message/cpim")}, cause: broker.ErrPayload, reason: "unsupported"},
		{name: "too large", from: ann, topic: inboxOfBob, text: strings.Repeat("x", 70<<10), cause: broker.ErrPayload, reason: "too-large"},
		{name: "too many hands", from: ann, topic: inboxOfBob, text: `{"hops":0,"body":"x"}`, cause: broker.ErrCondition, reason: "loop"},
		{name: "a source", from: ann, topic: inboxOfBob + "/phone", text: "x", cause: broker.ErrTopicName, reason: "/reports"},
		{name: "spelt otherwise", from: ann, topic: "im/EXAMPLE.com/bob", text: "x", cause: broker.ErrTopicName, reason: `"im/example.com/bob"`},
		{name: "from nobody", from: nobody, topic: inboxOfBob, text: "x", reason: "identity-required"},
		{name: "an id with a line end", from: ann, topic: inboxOfBob, text: "x", with: []brokertest.PublishOption{brokertest.Property("evt-id", "a\nb")}, cause: broker.ErrPayload, reason: "evt-id"},
		{name: "wants what there is not", from: ann, topic: inboxOfBob, text: "x", with: []brokertest.PublishOption{brokertest.Property("evt-wants", "read")}, cause: broker.ErrPayload, reason: "evt-wants"},
		{name: "no policy", from: phone, topic: "$me/policy/im", text: `{"v":2,"rules":[{"id":"a"},{"id":"a"}]}`, cause: broker.ErrPayload, reason: "duplicate-id"},
		{name: "typing from another", from: ann, topic: inboxOfBob + "/typing", text: `{"state":"active","from":"im:bob@example.com"}`, cause: broker.ErrPayload, reason: "from-mismatch"},
		{name: "a report on a report", from: phone, topic: inboxOfAlice + "/reports", text: `{"id":"1","disposition":"delivered","wants":["delivered"]}`, cause: broker.ErrPayload, reason: "schema"},
	} {
		for qos := range uint8(3) {
			err := c.from.Publish(c.topic, c.text, qos, c.with...)
			r, ok := errors.AsType[*broker.Refusal](err)
			if !ok || r.Cause != c.cause || !strings.Contains(r.Reason, c.reason) {
				t.Errorf("%s, QoS %d: %v, want %v with %s", c.name, qos, err, c.cause, c.reason)
			}
		}
	}
	for _, filter := range []string{"im/example.com", "im/EXAMPLE.com/bob", inboxOfBob + "/phone", inboxOfAlice, inboxOfAlice + "/reports"} {
		if err := phone.TrySubscribe(filter, 1); !errors.Is(err, broker.ErrRefused) {
			t.Errorf("%s: %v", filter, err)
		}
	}
	phone.Take(0)
	ann.Take(0)
}
