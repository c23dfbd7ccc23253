package blackbox

import (
	"fmt"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// office is a rule that lets bob read w/# on working days from eight to five.
const office = `  - {id: office, allow: [subscribe], who: [bob@example.com], topic: ["w/#"], when: {weekly: ["Mon-Fri 08:00-17:00"], tz: UTC}}
`

// The Monday of these tests.
const (
	monday0800  = "2026-03-09T08:00:00Z"
	monday1659  = "2026-03-09T16:59:00Z"
	monday1700  = "2026-03-09T17:00:00Z"
	tuesday0759 = "2026-03-10T07:59:59Z"
	tuesday0800 = "2026-03-10T08:00:00Z"
)

// windowed starts a server under office at an instant, with ana publishing.
func windowed(t *testing.T, clock string) (*server, *mq.Client) {
	t.Helper()
	s := serve(t, "--test-clock", clock, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+office))
	return s, s.open(v5, as("ana", clean("ana")))
}

// The edges of a window on a live subscription: at the close deliveries stop,
// at the open the present state comes with RETAIN=1 and then what happens. The
// subscription and the connection live through both.
func TestWindowOnALiveSubscription(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	var bobs []*mq.Client
	for _, v := range []byte{v4, v5} {
		c := s.open(v, as("bob", clean(fmt.Sprint("bob", v))))
		c.Subscribe("w/#", 1)
		bobs = append(bobs, c)
	}
	publish := func(topic, payload string) {
		for qos := range byte(3) {
			ana.PublishMessage(mq.Publish{Topic: topic, QoS: qos, Payload: []byte(payload)})
		}
	}
	retain := func(topic, payload string) {
		ana.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte(payload)})
	}
	for day := range 3 {
		publish("w/event", fmt.Sprint("open ", day))
		for _, bob := range bobs {
			for range 3 {
				bob.ReceiveText("w/event", fmt.Sprint("open ", day))
			}
			bob.Quiet()
		}
		s.setClock(plusDays(t, monday1700, day))
		publish("w/event", "closed")
		retain("w/state", fmt.Sprint("state while closed ", day))
		for _, bob := range bobs {
			bob.Quiet()
		}
		s.setClock(plusDays(t, tuesday0759, day))
		retain("w/state", fmt.Sprint("state ", day))
		for _, bob := range bobs {
			bob.Quiet()
		}
		s.setClock(plusDays(t, tuesday0800, day))
		for _, bob := range bobs {
			if p := bob.ReceiveText("w/state", fmt.Sprint("state ", day)); !p.Retain() {
				t.Errorf("got %v, want RETAIN=1 for the state at the open", p)
			}
			bob.Quiet()
		}
	}
}

func plusDays(t *testing.T, rfc3339 string, days int) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339, rfc3339)
	if err != nil {
		t.Fatal(err)
	}
	return at.AddDate(0, 0, days).Format(time.RFC3339)
}

// Whoever subscribes while the window is closed is granted, and told the state
// at the open; nothing retained passes before.
func TestWindowSubscribeWhileClosed(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1700)
	ana.PublishMessage(mq.Publish{Topic: "w/state", QoS: 1, Retain: true, Payload: []byte("kept")})
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("w/state", 1)
	bob.Quiet()
	s.setClock(tuesday0759)
	bob.Quiet()
	s.setClock(tuesday0800)
	if p := bob.ReceiveText("w/state", "kept"); !p.Retain() {
		t.Errorf("got %v, want RETAIN=1", p)
	}
	bob.Quiet()
}

// What is queued for an absent session when the window closes does not pass:
// not while it is closed, and not at the next open. What is published while it
// is closed is not queued at all.
func TestWindowClosesOnAQueue(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	bob := s.open(v5, as("bob", durable(v5, "bob")))
	bob.Subscribe("w/#", 1)
	bob.Disconnect()
	for i := range 20 {
		ana.Publish("w/event", 1, fmt.Sprint("queued ", i))
	}
	dropped := s.dropped("acl", "window", "expired")
	s.setClock(monday1700)
	ana.Publish("w/event", 1, "closed")
	bob, ack := mq.OpenAck(t, s.ready.MQTT, v5, as("bob", withExpiry("bob")))
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	bob.Quiet()
	if got := s.dropped("acl", "window", "expired") - dropped; got < 20 {
		t.Errorf("20 queued messages ended with the window, %v are counted", got)
	}
	s.setClock(tuesday0800)
	bob.Quiet()
	ana.Publish("w/event", 1, "open again")
	bob.ReceiveText("w/event", "open again")
	bob.Quiet()
}

func withExpiry(id string) mq.Connect { return expiry(id, 7*24*3600) }

// A session that is back within the same window gets its queue.
func TestWindowQueueWithinTheWindow(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday0800)
	bob := s.open(v5, as("bob", withExpiry("bob")))
	bob.Subscribe("w/#", 1)
	bob.Disconnect()
	ana.Publish("w/event", 1, "queued")
	s.setClock(monday1659)
	bob = s.open(v5, as("bob", withExpiry("bob")))
	bob.ReceiveText("w/event", "queued")
	bob.Quiet()
}

// What waits behind a full Receive Maximum when the window closes does not
// pass, and takes no slot from what comes after.
func TestWindowClosesBehindAFullWindow(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	bob := s.open(v5, as("bob", receiveMax("bob", 2)))
	bob.Subscribe("w/#", 1)
	for i := range 10 {
		ana.Publish("w/event", 1, fmt.Sprint(i))
	}
	begun := []*mq.Packet{bob.Await(mq.PUBLISH, 0), bob.Await(mq.PUBLISH, 0)}
	s.setClock(monday1700)
	bob.Acknowledge(begun[0])
	bob.Acknowledge(begun[1])
	bob.Quiet()
	s.setClock(tuesday0800)
	bob.Quiet()
	for i := range 5 {
		ana.Publish("w/event", 1, fmt.Sprint("new ", i))
	}
	for i := range 5 {
		bob.ReceiveText("w/event", fmt.Sprint("new ", i))
	}
	bob.Quiet()
}

// What was sent and not acknowledged when the window closed is not sent again
// while it is closed, nor later; a QoS 2 exchange completes, past PUBREC or not:
// nobody knows whether that is on its way, and the client may wait for PUBREL.
func TestWindowClosesOnUnacknowledged(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	bob := s.open(v5, as("bob", withExpiry("bob")))
	bob.Subscribe("w/#", 2)
	ana.Publish("w/event", 1, "unacknowledged")
	ana.Publish("w/event", 2, "unreceived")
	ana.Publish("w/event", 2, "received")
	bob.Await(mq.PUBLISH, 0)
	unreceived, received := bob.Await(mq.PUBLISH, 0), bob.Await(mq.PUBLISH, 0)
	bob.Send(mq.Ack{Type: mq.PUBREC, ID: received.ID})
	bob.Await(mq.PUBREL, received.ID)
	bob.Close()
	s.setClock(monday1700)
	bob = s.open(v5, as("bob", withExpiry("bob")))
	for _, p := range []*mq.Packet{received, unreceived} {
		bob.ExpectID(mq.PUBREL, p.ID)
		bob.Send(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
	}
	bob.Quiet()
	s.setClock(tuesday0800)
	bob.Quiet()
	ana.Publish("w/event", 1, "new")
	bob.ReceiveText("w/event", "new")
	bob.Quiet()
}

// A QoS 2 exchange past PUBREC completes on the live connection too.
func TestWindowClosesBetweenPubrecAndPubcomp(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("w/#", 2)
	ana.Publish("w/event", 2, "x")
	p := bob.Await(mq.PUBLISH, 0)
	s.setClock(monday1700)
	bob.Send(mq.Ack{Type: mq.PUBREC, ID: p.ID})
	bob.ExpectID(mq.PUBREL, p.ID)
	bob.Send(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
	bob.Quiet()
}

// Deliveries on windowed subscriptions, and only those, expire no later than
// the window's end.
func TestWindowBoundsMessageExpiry(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("w/#", 1)
	free := s.open(v5, as("ana", clean("free")))
	free.Subscribe("w/#", 1)
	for _, c := range []struct {
		set, bob, free uint32 // 0: none
	}{{0, 60, 0}, {10, 10, 10}, {1000, 60, 1000}} {
		m := mq.Publish{Topic: "w/event", QoS: 1}
		if c.set > 0 {
			m.Properties = mq.Properties{mq.Number(mq.PropMessageExpiry, c.set)}
		}
		ana.PublishMessage(m)
		for who, want := range map[*mq.Client]uint32{bob: c.bob, free: c.free} {
			if got, _ := who.Receive().Properties.Number(mq.PropMessageExpiry); got != want {
				t.Errorf("published with expiry %d: arrives with %d, want %d", c.set, got, want)
			}
		}
	}
}

// A window rules publishing as well, at the instant of each publish.
func TestWindowOnPublishing(t *testing.T) {
	t.Parallel()
	s := serve(t, "--test-clock", monday1659, "--policy", policyFile(t, []string{"bob"},
		`  - {id: office, allow: [publish], who: [bob@example.com], topic: ["w/#"], when: {weekly: ["Mon-Fri 08:00-17:00"], tz: UTC}}`+"\n"))
	bob := s.open(v5, as("bob", clean("bob")))
	for _, c := range []struct {
		at   string
		want byte
	}{{monday1659, 0}, {monday1700, 0x87}, {tuesday0759, 0x87}, {tuesday0800, 0}} {
		s.setClock(c.at)
		for qos := range byte(3) {
			if got := bob.TryPublish(mq.Publish{Topic: "w/x", QoS: qos}); qos > 0 && got != c.want {
				t.Errorf("at %s, QoS %d: got %#02x, want %#02x", c.at, qos, got, c.want)
			}
		}
	}
}

// A subscription that can be permitted at no instant any more is refused; one
// whose window is yet to come is granted.
func TestWindowNeverOpens(t *testing.T) {
	t.Parallel()
	rule := func(id, topic, when string) string {
		return fmt.Sprintf("  - {id: %s, allow: [subscribe], who: [bob@example.com], topic: [%q], when: {%s}}\n", id, topic, when)
	}
	s := serve(t, "--test-clock", noon, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+
		rule("past", "past", `until: "2026-03-09T11:00:00Z"`)+
		rule("coming", "coming", `from: "2026-03-09T13:00:00Z", until: "2026-03-09T14:00:00Z"`)))
	bob := s.open(v5, as("bob", clean("bob")))
	if ack := bob.TrySubscribe(nil, mq.Filter{Filter: "past", QoS: 1}, mq.Filter{Filter: "coming", QoS: 1}); len(ack.Codes) != 2 || ack.Codes[0] != 0x87 || ack.Codes[1] != 1 {
		t.Fatalf("got %v, want codes 87 01", ack)
	}
	ana := s.open(v5, as("ana", clean("ana")))
	for _, c := range []struct {
		at   string
		open bool
	}{{"2026-03-09T12:59:59Z", false}, {"2026-03-09T13:00:00Z", true}, {"2026-03-09T13:59:59Z", true}, {"2026-03-09T14:00:00Z", false}} {
		s.setClock(c.at)
		ana.Publish("coming", 1, c.at)
		if c.open {
			bob.ReceiveText("coming", c.at)
		}
		bob.Quiet()
	}
}

// The window outlives a killed server: a session that comes back after the
// close gets nothing, at the next open the state.
func TestWindowAcrossKill(t *testing.T) {
	t.Parallel()
	s, ana := windowed(t, monday1659)
	bob := s.open(v5, as("bob", withExpiry("bob")))
	bob.Subscribe("w/#", 1)
	bob.Disconnect()
	ana.PublishMessage(mq.Publish{Topic: "w/state", QoS: 1, Retain: true, Payload: []byte("state")})
	s.setClock(monday1700)
	s.kill()
	for i, a := range s.args {
		if a == monday1659 {
			s.args[i] = monday1700
		}
	}
	s.start()
	bob, ack := mq.OpenAck(t, s.ready.MQTT, v5, as("bob", withExpiry("bob")))
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	bob.Quiet()
	s.setClock(tuesday0800)
	if p := bob.ReceiveText("w/state", "state"); !p.Retain() {
		t.Errorf("got %v, want RETAIN=1", p)
	}
	bob.Quiet()
}

// With the real clock: nothing that was published at or after the close
// arrives, and the state arrives within a second of the open. Deliveries stop within a second of
// the close, and where the machine is ours within the stated latency.
func TestWindowInRealTime(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		users := []string{"ana", "bob"}
		rule := func(id, when string) string {
			return fmt.Sprintf("  - {id: %s, allow: [subscribe], who: [bob@example.com], topic: [\"w/#\"]%s}\n", id, when)
		}
		policy := policyFile(t, users, anaMayAll+rule("always", ""))
		s := serve(t, "--policy", policy)
		ana := s.open(v5, as("ana", clean("ana")))
		ana.PublishMessage(mq.Publish{Topic: "w/state", QoS: 1, Retain: true, Payload: []byte("state")})
		bob := s.open(v5, as("bob", clean("bob")))
		bob.Subscribe("w/#", 1)
		bob.ReceiveText("w/state", "state")
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			publishTimes(t, ana.Conn, stop)
		}()
		t.Cleanup(func() { <-done })
		defer close(stop)
		bob.Receive()

		// Both are under way when it is said when the window closes, so that this can be soon.
		shut := time.Now().Truncate(time.Second).Add(3 * time.Second) // windows know whole seconds
		open := shut.Add(2 * time.Second)
		when := func(which string, t time.Time) string {
			return fmt.Sprintf(", when: {%s: %q}", which, t.UTC().Format(time.RFC3339))
		}
		writePolicy(t, policy, users, anaMayAll+rule("first", when("until", shut))+rule("second", when("from", open)))
		s.reload()
		closed := shut
		if now := time.Now(); now.After(open) {
			try.spoil("the policy took longer than the window was to be open")
			return
		} else if now.After(shut) {
			closed = now
		}
		most := time.Second
		if machineIsOurs() {
			most = 50*time.Millisecond + 20*time.Millisecond
		}
		before, state := 0, time.Time{}
		for state.IsZero() {
			p := bob.Receive()
			now := time.Now()
			if p.Retain() && p.Topic == "w/state" {
				state = now
				break
			}
			sent, err := time.Parse(time.RFC3339Nano, string(p.Payload))
			if err != nil {
				t.Fatalf("got %v", p)
			}
			before++
			if now.Before(open) && !sent.Before(closed) {
				t.Errorf("published %v, received %v after the close", sent.Sub(closed), now.Sub(closed))
			}
			if now.Before(open) {
				try.within(most, now.Sub(closed), "what was published before the close came")
			}
		}
		late := state.Sub(open)
		if late < 0 {
			t.Errorf("the state arrived %v before the open", -late)
		}
		try.within(time.Second, late, "the state arrived")
		t.Logf("%d messages before the close; the state arrived %v after the open", before, late)
	})
}

// publishTimes publishes the time of publishing, one after the other, until
// told to stop.
func publishTimes(t *testing.T, c *mq.Conn, stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := uint16(1); ; i = i%1000 + 1 {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if err := publishOne(c, "w/event", 1, i, time.Now().Format(time.RFC3339Nano)); err != nil {
			t.Errorf("publish: %v", err)
			return
		}
	}
}

// windowedOutside is windowed with a word on what a subscription gets outside.
func windowedOutside(t *testing.T, outside string) (*server, *mq.Client) {
	t.Helper()
	rule := `  - {id: office, allow: [subscribe], who: [bob@example.com], topic: ["w/#"], outside: ` + outside +
		`, when: {weekly: ["Mon-Fri 08:00-17:00"], tz: UTC}}` + "\n"
	s := serve(t, "--test-clock", monday1659, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+rule))
	return s, s.open(v5, as("ana", clean("ana")))
}

// outside: end tells a subscriber that its subscription is over and ends it:
// when the window opens again nothing arrives, and to subscribe anew is what
// brings it back.
func TestWindowOutsideEnd(t *testing.T) {
	t.Parallel()
	s, ana := windowedOutside(t, "end")
	live := s.open(v5, as("bob", withExpiry("live")))
	away := s.open(v5, as("bob", withExpiry("away")))
	for _, c := range []*mq.Client{live, away} {
		c.Subscribe("w/x", 1)
	}
	away.Disconnect()
	s.setClock(monday1700)
	if p := live.Receive(); p.Topic != "$me/sub/w/x" || !contains(string(p.Payload), "terminated") {
		t.Errorf("got %v, want to be told that the subscription is over", p)
	}
	s.setClock(tuesday0800)
	ana.Publish("w/x", 1, "next day")
	live.Quiet()
	away = s.open(v5, as("bob", withExpiry("away")))
	away.Quiet()
	live.Subscribe("w/x", 1)
	ana.Publish("w/x", 1, "subscribed again")
	live.ReceiveText("w/x", "subscribed again")
}

// outside: announce tells a subscriber of the close, with the next opening, and
// of the open; for filters with wildcards too.
func TestWindowOutsideAnnounce(t *testing.T) {
	t.Parallel()
	s, ana := windowedOutside(t, "announce")
	for _, filter := range []string{"w/x", "w/#", "w/+"} {
		bob := s.open(v5, as("bob", clean(filter)))
		bob.Subscribe(filter, 1)
	}
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("w/#", 1)
	s.setClock(monday1700)
	p := bob.Receive() // a topic with a wildcard would be an error already
	if !contains(p.Topic, "$me/sub/w/") || !contains(string(p.Payload), `"closed"`) || !contains(string(p.Payload), tuesday0800) {
		t.Errorf("got %v, want the close and %s", p, tuesday0800)
	}
	ana.Publish("w/x", 1, "closed")
	bob.Quiet()
	s.setClock(tuesday0800)
	if p := bob.Receive(); !contains(string(p.Payload), `"open"`) {
		t.Errorf("got %v, want the open", p)
	}
	ana.Publish("w/x", 1, "open")
	bob.ReceiveText("w/x", "open")
}

// A window that closed while the server was down has closed all the same.
func TestWindowClosesWhileDown(t *testing.T) {
	t.Parallel()
	for _, outside := range []string{"hold", "end"} {
		t.Run(outside, func(t *testing.T) {
			t.Parallel()
			s, ana := windowedOutside(t, outside)
			bob := s.open(v5, as("bob", withExpiry("bob")))
			bob.Subscribe("w/#", 1)
			ana.Publish("w/x", 1, "unacknowledged")
			bob.Await(mq.PUBLISH, 0)
			ana.PublishMessage(mq.Publish{Topic: "w/state", QoS: 1, Retain: true, Payload: []byte("state")})
			bob.Await(mq.PUBLISH, 0)
			away := s.open(v5, as("bob", withExpiry("away")))
			away.Subscribe("w/x", 1)
			away.Disconnect()
			ana.Publish("w/x", 1, "queued")
			s.kill()
			for i, a := range s.args {
				if a == monday1659 {
					s.args[i] = tuesday0800
				}
			}
			s.start()
			ana = s.open(v5, as("ana", clean("ana")))
			ana.Publish("w/x", 1, "next day")
			bob = s.open(v5, as("bob", withExpiry("bob")))
			away = s.open(v5, as("bob", withExpiry("away")))
			if outside == "hold" {
				if p := bob.Receive(); string(p.Payload) == "state" {
					bob.ReceiveText("w/x", "next day")
				} else if string(p.Payload) != "next day" {
					t.Errorf("got %v, want what is of today", p)
				} else {
					bob.ReceiveText("w/state", "state")
				}
				away.ReceiveText("w/x", "next day")
			}
			bob.Quiet()
			away.Quiet()
		})
	}
}

// Windows of rules that allow say nothing of what has owners: whoever watches somebody under
// one that is for everything is neither told of it nor ended by it.
func TestWindowOfARuleSaysNothingOfViews(t *testing.T) {
	t.Parallel()
	for _, outside := range []string{"announce", "end"} {
		rule := fmt.Sprintf("  - {id: day, allow: [subscribe], who: [bob@example.com], topic: [\"#\"], when: {weekly: [\"Mon-Fri 08:00-17:00\"], tz: UTC}, outside: %s}\n", outside)
		s := serve(t, "--test-clock", monday1659, "--policy", policyFile(t, []string{"ana", "bob"}, rule))
		ana, bob := s.open(v5, as("ana", clean("ana"))), s.open(v5, as("bob", clean("bob")))
		ana.Publish("$me/policy/presence", 1, rulesOf(forOne("bob", "bob@example.com", `"then":{"handling":"allow"},"show":{"services":["*"]}`)))
		bob.Subscribe("presence/example.com/ana", 1)
		bob.Receive() // that there is nothing yet
		for _, at := range []string{monday1700, tuesday0800} {
			s.setClock(at)
			bob.Quiet()
			ana.PublishMessage(retained("presence/example.com/ana/"+at[11:13], `{"basic":"open"}`, mq.User("evt-expires", day)))
			if bob.Receive(); len(drain(bob)) > 0 {
				t.Errorf("%s: bob is sent more at %s than what ana has published", outside, at)
			}
		}
	}
}
