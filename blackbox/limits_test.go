package blackbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// limited starts a server with rows of a limits file.
func limited(t *testing.T, rows string) *server {
	t.Helper()
	return serve(t, "--allow-anonymous", "--limits", limitsFile(t, "v: 1\ndefault:\n"+rows))
}

// Limits that an operator sets are announced where the protocol has a word for
// them, and hold at exactly their value.
//
// MQTT 5: 3.2.2-15, 3.2.2-17.
func TestMQTT04LimitsAreAnnouncedAndHold(t *testing.T) {
	t.Parallel()
	s := limited(t, `  receiveMaximum: 3
  topicAliases: 2
  packet.bytes: 2KiB
  keepAlive.max: 60s
  session.expiryMax: 1h
`)
	_, ack := mq.OpenAck(t, s.ready.MQTT, v5, expiry("c", 7200))
	for id, want := range map[byte]uint32{
		mq.PropReceiveMaximum: 3, mq.PropTopicAliasMaximum: 2, mq.PropMaximumPacketSize: 2048,
		mq.PropServerKeepAlive: 60, mq.PropSessionExpiry: 3600,
	} {
		if got, ok := ack.Properties.Number(id); !ok || got != want {
			t.Errorf("property %#02x: got %d %t, want %d", id, got, ok, want)
		}
	}
	c := s.open(v5, clean("window"))
	for i := 1; i <= 3; i++ {
		c.Send(mq.Publish{Topic: "t", QoS: 2, ID: uint16(i)})
		c.ExpectID(mq.PUBREC, uint16(i))
	}
	c.TrySend(mq.Publish{Topic: "t", QoS: 1, ID: 4})
	c.ClosedWith(0x93)
	big := s.open(v5, clean("big"))
	big.PublishMessage(sized(t, "t", 2048))
	big.TrySend(sized(t, "t", 2049))
	big.ClosedWith(0x95)
	// A 3.1.1 client cannot be told a keep alive and is let in as it asks.
	s.open(v4, mq.Connect{ClientID: "old", Clean: true}).Quiet()
}

// One client more than there may be is told that the server is busy; when
// another has left there is room.
func TestMQTT03OverloadIsAnswered(t *testing.T) {
	t.Parallel()
	s := limited(t, "  connections: 3\n")
	var held []*mq.Client
	for i := range 3 {
		held = append(held, s.open(v5, clean(fmt.Sprint(i))))
	}
	for v, want := range map[byte]byte{v4: 3, v5: 0x89} {
		c := mq.Dial(t, s.ready.MQTT, v)
		c.Send(clean("one more"))
		if got := c.Closed(); len(got) != 1 || got[0].Type != mq.CONNACK || got[0].Code != want {
			t.Errorf("got %v, want CONNACK code=%#02x", got, want)
		}
	}
	for _, c := range held {
		c.Quiet()
	}
	s.drop(held[0])
	s.open(v5, clean("in its place")).Quiet()
}

// Subscriptions, sessions and retained topics are bounded; one more is refused
// with 0x97 and what there is stays.
func TestMQTT04QuotasAreTold(t *testing.T) {
	t.Parallel()
	s := limited(t, "  subs.perSession: 3\n  retained.topics: 2\n  sessions: 4\n")
	for _, m := range []mq.Connect{clean("clean"), durable(v5, "durable")} {
		c := s.open(v5, m)
		for i := range 3 {
			c.Subscribe(fmt.Sprint("t/", i), 1)
		}
		if ack := c.TrySubscribe(nil, mq.Filter{Filter: "t/3", QoS: 1}); ack.Codes[0] != 0x97 || !strings.Contains(ack.Properties.Text(mq.PropReasonString), "at most 3 subscriptions") {
			t.Errorf("%s: one subscription more: got %v, want code 0x97, and which bound it is", m.ClientID, ack)
		}
		c.Subscribe("t/0", 1) // there already
		c.Publish("t/2", 1, "x")
		c.ReceiveText("t/2", "x")
		c.Disconnect()
	}
	pub := s.open(v5, clean("pub"))
	retain := func(topic string) byte {
		return pub.TryPublish(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("x")})
	}
	for i, want := range []byte{0, 0, 0x97} {
		if got := retain(fmt.Sprint("kept/", i)); got != want {
			t.Errorf("retained topic %d: got %#02x, want %#02x", i+1, got, want)
		}
	}
	if got := retain("kept/1"); got != 0 {
		t.Errorf("a new value for a retained topic: got %#02x, want 0x00", got)
	}
	for i := range 2 {
		s.open(v5, durable(v5, fmt.Sprint("session", i)))
	}
	c := mq.Dial(t, s.ready.MQTT, v5)
	c.Send(durable(v5, "one session more"))
	if got := c.Closed(); len(got) != 1 || got[0].Code != 0x97 || !strings.Contains(got[0].Properties.Text(mq.PropReasonString), "at most 4 sessions") {
		t.Errorf("one session more: got %v, want CONNACK code=0x97, and which bound it is", got)
	}
}

// Where there are users, clients without a name leave half of the sessions and of the retained
// topics to them, also after a restart.
func TestNamelessLeaveRoom(t *testing.T) {
	t.Parallel()
	open := "  - {id: open, allow: [publish, subscribe], who: [anyone], topic: [\"#\"]}\n"
	s := serve(t, "--allow-anonymous", "--policy", policyFile(t, []string{"ana"}, open), "--limits", limitsFile(t, "v: 1\ndefault: {sessions: 4, retained.topics: 2}\n"))
	retain := func(c *mq.Client, topic string, want byte) {
		t.Helper()
		if got := c.TryPublish(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("x")}); got != want {
			t.Errorf("retained on %s: got %#02x, want %#02x", topic, got, want)
		}
	}
	for i := range 2 {
		c := s.open(v5, durable(v5, fmt.Sprint("nobody", i)))
		retain(c, fmt.Sprint("kept/", i), []byte{0, 0x97}[i])
	}
	s.restart()
	third := mq.Dial(t, s.ready.MQTT, v5)
	third.Send(durable(v5, "nobody2"))
	if got := third.Closed(); len(got) != 1 || got[0].Code != 0x97 {
		t.Errorf("a third without a name: got %v, want CONNACK code=0x97", got)
	}
	ana := s.open(v5, as("ana", durable(v5, "a")))
	retain(ana, "kept/1", 0)
	retain(ana, "kept/2", 0x97)
}

// A client that takes nothing of what waits for it is ended after the stated
// time, with 0x97 if it reads again, and others never wait for it.
func TestMQTT19SlowTimeout(t *testing.T) {
	t.Parallel()
	s := limited(t, "  slow.timeout: 2s\n  output.bytes: 64KiB\n")
	slow := mq.DialSlow(t, s.ready.MQTT, v5)
	slow.Connect(durable(v5, "slow"))
	slow.Subscribe("t", 1)
	idle := s.open(v5, durable(v5, "idle")) // has nothing waiting, and is not slow
	pub := s.open(v5, clean("pub"))
	payload := strings.Repeat("x", 50_000)
	start := time.Now()
	for range 100 {
		pub.Publish("t", 1, payload)
	}
	until(t, "the slow client is ended", 20*time.Second, func() bool { return s.metric("bellwire_sessions_connected") == 2 })
	if got := s.metric("bellwire_disconnects_total", `reason="quota_exceeded"`); got != 1 {
		t.Errorf("%v clients are ended with 0x97, want the slow one", got)
	}
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("it was ended after %v, want 2 s at least", took)
	}
	idle.Quiet()
	slow = s.open(v5, durable(v5, "slow")) // and has lost nothing
	for range 100 {
		slow.ReceiveText("t", payload)
	}
	slow.Quiet()
}

// The size of a queue is bounded in bytes as well.
func TestMQTT21QueueBytesBound(t *testing.T) {
	t.Parallel()
	s := limited(t, "  session.queueBytes: 100KiB\n")
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	pub := s.open(v5, clean("pub"))
	const n = 60
	for i := range n {
		pub.Publish("t", 1, fmt.Sprintf("%d %s", i, strings.Repeat("x", 5000)))
	}
	sub, ack := mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, "sub"))
	var dropped int
	if user := ack.Properties.User(); len(user) != 1 {
		t.Fatalf("CONNACK says %v, want how many were dropped", user)
	} else if _, err := fmt.Sscanf(user[0], "bellwire-dropped=%d", &dropped); err != nil || dropped < n-20 || dropped > n-18 {
		t.Errorf("CONNACK says %v, want about %d dropped: 100 KiB hold 19 to 20 messages", user, n-19)
	}
	for i := dropped; i < n; i++ {
		if p := sub.Receive(); !strings.HasPrefix(string(p.Payload), fmt.Sprint(i, " ")) {
			t.Fatalf("got %.20q, want message %d", p.Payload, i)
		}
	}
	sub.Quiet()
}

// The largest packet that may be allowed passes through queue, retained store
// and a kill.
//
// MQTT 5: 3.2.2-15.
func TestMQTT04LargestPacket(t *testing.T) {
	t.Parallel()
	s := limited(t, "  packet.bytes: 1016KiB\n")
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	pub := s.open(v5, clean("pub"))
	m := sized(t, "t", 1016<<10)
	for i := range m.Payload {
		m.Payload[i] = byte(i * i >> 8)
	}
	m.Retain = true
	pub.PublishMessage(m)
	pub.PublishMessage(m)
	s.restart()
	sub = s.open(v5, durable(v5, "sub"))
	sub.ReceiveText("t", string(m.Payload))
	sub.ReceiveText("t", string(m.Payload))
	late := s.open(v4, clean("late"))
	late.Subscribe("t", 2)
	late.ReceiveText("t", string(m.Payload))
}

// A client that publishes faster than the operator lets it is told 0x96; each end
// of a connection, and what a window withholds, is counted by its reason.
//
// Item 64.
func TestRatesAndReasons(t *testing.T) {
	t.Parallel()
	s := serve(t, "--test-clock", monday1700, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+office),
		"--limits", limitsFile(t, "v: 1\ndefault: {messages.perSecond: 1, connect.perSecond: 1}\n"))
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("w/#", 0)
	ana := s.open(v5, as("ana", clean("ana")))
	for range 200 { // a second may pass meanwhile
		if ana.Write(mq.Publish{Topic: "w/x", Payload: []byte("x")}) != nil {
			break
		}
	}
	if got := ana.Closed(); len(got) != 1 || got[0].Type != mq.DISCONNECT || got[0].Code != 0x96 {
		t.Errorf("got %v, want DISCONNECT code=0x96", got)
	}
	for refused := false; !refused; {
		c := mq.Dial(t, s.ready.MQTT, v5)
		c.Send(as("ana", clean("")))
		ack := c.Expect(mq.CONNACK)
		if refused = ack.Code != 0; refused && ack.Code != 0x9F {
			t.Errorf("got %v, want code=0x9F", ack)
		}
	}
	bob.Disconnect()
	for metric, labels := range map[string]string{
		"bellwire_disconnects_total":      `reason="message_rate_too_high"`,
		"bellwire_connects_total":         `result="connection_rate_exceeded"`,
		"bellwire_messages_dropped_total": `reason="window"`,
	} {
		if s.metric(metric, labels) == 0 {
			t.Errorf("%s{%s} is 0", metric, labels)
		}
	}
	if got := s.metric("bellwire_disconnects_total", `reason="success"`); got != 1 {
		t.Errorf("%v clients have taken their leave, want 1", got)
	}
	if got := s.dropped("acl"); got != 0 {
		t.Errorf("%v deliveries are counted as refused by the policy", got)
	}
}

// A node that was told nothing of a domain or of limits, as one that joins, is as the
// cluster is, and changes nothing about them when its policy is read again.
func TestClusterJoinerChangesNoSettings(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "--limits", writeFile(t, "limits.yaml", queueEventsLimit(7)))
	n := c.nodes[1]
	n.kill()
	n.args = slices.DeleteFunc(n.args, func(arg string) bool {
		return arg == "--domain" || arg == "example.com" || arg == "--limits" || strings.HasSuffix(arg, "limits.yaml")
	})
	before := len(n.logs.String())
	n.start()
	n.reload()
	if log := n.logs.String()[before:]; strings.Contains(log, "differ from those in force") || strings.Contains(log, "limits changed") {
		t.Errorf("its log speaks of other settings:\n%s", log)
	}
	for _, at := range c.nodes {
		m := clean("ana")
		m.User, m.Password = "ana", []byte("sesame") // of the domain
		at.open(v5, m).Disconnect()
	}
	sub := n.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	publishMany(t, n.open(v5, clean("pub")), "t", 1, 1, 10)
	sub = n.open(v5, durable(v5, "sub"))
	sub.ReceiveAll(mq.Numbered(4, 10)...) // the limit of seven queued events holds still
}

// One user has so many sessions at most: one more is refused and those there are stay,
// connected or away, through a restart; others are not held to it, nor is who has no name.
// The bound changes without a restart and ends nothing. What is refused is told below $SYS.
func TestSessionsOfOneUser(t *testing.T) {
	t.Parallel()
	rows := func(n int) string {
		return fmt.Sprintf("v: 1\ndefault: {sessions.perPrincipal: %d, topic.levels: 4}\n", n)
	}
	file := limitsFile(t, rows(2))
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, sysRules), "--allow-anonymous", "--limits", file)
	one := s.open(v5, as("ana", durable(v5, "1")))
	s.open(v5, as("ana", durable(v5, "2"))).Disconnect()
	full := func(version byte, code byte) {
		t.Helper()
		refusedWith(t, s.ready.MQTT, version, as("ana", clean("3")), code)
	}
	full(v5, 0x97)
	full(v4, 3)
	s.open(v5, as("ana", durable(v5, "2"))).Quiet() // is one of them
	s.open(v5, as("bob", durable(v5, "b"))).Quiet()
	one.Quiet()
	bob := s.open(v5, as("bob", clean("looks")))
	bob.Subscribe("$SYS/limits/sessions.perPrincipal", 0)
	bob.ReceiveText("$SYS/limits/sessions.perPrincipal", `{"max":"2","refused":2}`)
	if got := s.metric("bellwire_limit_refused_total", `limit="sessions.perPrincipal"`); got != 2 {
		t.Errorf("%v refusals are counted, want 2", got)
	}
	s.restart()
	full(v5, 0x97)
	change := func(n int) {
		t.Helper()
		if err := os.WriteFile(file, []byte(rows(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		s.reload()
	}
	change(3)
	three := s.open(v5, as("ana", clean("3")))
	change(1)
	three.Quiet()
	three.Disconnect()
	full(v5, 0x97)
	two := s.open(v5, as("ana", mq.Connect{ClientID: "2", Clean: true}))
	two.Disconnect() // and its session is no more: memory has returned
	full(v5, 0x97)
	s.open(v5, as("ana", mq.Connect{ClientID: "1", Clean: true})).Disconnect()
	s.open(v5, as("ana", clean("3"))).Quiet()
}

// One user has so many subscriptions in all sessions together, and so many with wildcards:
// one more is refused with the reason, of every kind of session, and those there are stay,
// through takeover and restart; what ends makes room; others are not held to it. The bounds
// change without a restart and end nothing.
func TestSubscriptionsOfOneUser(t *testing.T) {
	t.Parallel()
	rows := func(all, wild int) string {
		return fmt.Sprintf("v: 1\ndefault: {subs.perPrincipal: %d, subs.wildcardsPerPrincipal: %d}\n", all, wild)
	}
	file := limitsFile(t, rows(3, 1))
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, sysRules), "--limits", file)
	full := func(c *mq.Client, filter, why string) {
		t.Helper()
		got := c.TrySubscribe(mq.Properties{}, mq.Filter{Filter: filter, QoS: 1})
		if got.Codes[0] != 0x97 || !strings.Contains(got.Properties.Text(mq.PropReasonString), why) {
			t.Errorf("%s: got %v, want 0x97 and %q", filter, got, why)
		}
	}
	const many, wild = "one user has at most 3 subscriptions in all sessions", "one user has at most 1 subscriptions with wildcards"
	one, two := s.open(v5, as("ana", durable(v5, "1"))), s.open(v5, as("ana", clean("2")))
	one.Subscribe("a", 1)
	two.Subscribe("a", 1) // it is another session's
	one.Subscribe("b/+", 1)
	full(two, "b/#", many)
	full(one, "c", many)
	two.Subscribe("a", 0) // it has it
	old := s.open(v4, as("ana", clean("3")))
	if got := old.TrySubscribe(nil, mq.Filter{Filter: "c"}); got.Codes[0] != 0x80 {
		t.Errorf("3.1.1: got %v", got)
	}
	bob := s.open(v5, as("bob", clean("b")))
	bob.Subscribe("a", 1)
	bob.Subscribe("$SYS/limits/subs.perPrincipal", 0)
	bob.ReceiveText("$SYS/limits/subs.perPrincipal", `{"max":"3","refused":3}`)
	two.Unsubscribe("a")
	full(two, "b/#", wild)
	two.Subscribe("c", 1)

	s.restart() // and two is no more
	two = s.open(v5, as("ana", clean("2")))
	two.Subscribe("c", 1)
	full(two, "d", many)
	one = s.open(v5, as("ana", durable(v5, "1")))
	full(one, "d", many)
	two.Disconnect()
	two.Closed()
	one.Subscribe("d", 1)
	one = s.open(v5, as("ana", durable(v5, "1"))) // taken over
	full(one, "e", many)
	if err := os.WriteFile(file, []byte(rows(1, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	one.Publish("a", 1, "still")
	one.ReceiveText("a", "still")
	one.Unsubscribe("d")
	full(one, "d", "at most 1 subscriptions in all")
	one = s.open(v5, as("ana", mq.Connect{ClientID: "1", Clean: true}))
	one.Subscribe("d", 1)
}

// Limits of a node's own change by SIGHUP while clients are connected: rates hold for them at
// once and nobody is sent away for the change, what a client was told stays, who comes then is
// told anew; what needs a start is named. A file with faults changes nothing and is told fault
// by fault.
func TestLimitsOfConnectionsChange(t *testing.T) {
	t.Parallel()
	file := limitsFile(t, "v: 1\ndefault: {messages.perSecond: 1000}\n")
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, sysRules), "--limits", file)
	bob, there := s.open(v5, as("bob", clean("bob"))), s.open(v5, as("ana", clean("there")))
	change := func(rows string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("v: 1\ndefault: {"+rows+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.reload()
	}
	logged := func(words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(s.logs.String(), w) {
				t.Errorf("the log does not say %s", w)
			}
		}
	}
	burst := func(c *mq.Client, n int) {
		for range n {
			if c.Write(mq.Publish{Topic: "w/x", Payload: []byte("x")}) != nil {
				break
			}
		}
	}
	burst(there, 100)
	there.Quiet()
	change("messages.perSecond: 1, packet.bytes: 1KiB, backlog.bytes: 1MiB, session.expiryMax: 1h")
	logged(`"msg":"limits changed"`, `"rows":["messages.perSecond","packet.bytes"]`, `"msg":"limits that change at the next start only"`, `"rows":["session.expiryMax","backlog.bytes"]`,
		`"msg":"policy unchanged: the file says what is in force"`)
	bob.Subscribe("$SYS/limits/messages.perSecond", 0)
	bob.ReceiveText("$SYS/limits/messages.perSecond", `{"max":"1","refused":0}`)
	there.PublishMessage(mq.Publish{Topic: "w/x", QoS: 1, Payload: make([]byte, 2000)}) // it was told 256 KiB
	fresh := mq.Dial(t, s.ready.MQTT, v5)
	got := fresh.Connect(as("ana", clean("fresh")))
	if most, _ := got.Properties.Number(mq.PropMaximumPacketSize); most != 1024 {
		t.Errorf("who comes now is told %v", got)
	}

	change("messages.perSecond: 0, packet.byte: 2KiB")
	logged(`messages.perSecond: 0 is out of bounds`, `packet.byte`, `limits not changed: those in force stay`, `"faults":2`)
	fresh.Send(mq.Publish{Topic: "w/x", Payload: make([]byte, 1500)})
	fresh.ClosedWith(0x95)
	burst(there, 200)
	there.ClosedWith(0x96)
	change("") // and all is as by default
	again := s.open(v5, as("ana", clean("again")))
	burst(again, 500)
	again.Quiet()
}

// Limits of one user hold in place of everybody's, and change by SIGHUP.
func TestLimitsOfOneUser(t *testing.T) {
	t.Parallel()
	rows := func(of string) string {
		return "v: 1\ndefault: {subs.perPrincipal: 2, messages.perSecond: 1}\nprincipals: {" + of + "}\n"
	}
	file := limitsFile(t, rows("ana@example.com: {subs.perPrincipal: 3, messages.perSecond: unlimited}"))
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, sysRules), "--limits", file)
	subscribes := func(c *mq.Client, most int) {
		t.Helper()
		for i := range most {
			c.Subscribe(fmt.Sprint("f", i), 1)
		}
		if got := c.TrySubscribe(mq.Properties{}, mq.Filter{Filter: "more", QoS: 1}); got.Codes[0] != 0x97 {
			t.Errorf("one more than %d: %v", most, got)
		}
	}
	ana, bob := s.open(v5, as("ana", clean("a"))), s.open(v5, as("bob", clean("b")))
	subscribes(ana, 3)
	subscribes(bob, 2)
	for range 100 {
		ana.Send(mq.Publish{Topic: "x", Payload: []byte("x")})
	}
	ana.Quiet()
	s.restart()
	subscribes(s.open(v5, as("ana", clean("a"))), 3)
	if err := os.WriteFile(file, []byte(rows("bob@example.com: {subs.perPrincipal: unlimited}")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	if log := s.logs.String(); !strings.Contains(log, `"rows":["principals"]`) {
		t.Error("the log does not say what has changed")
	}
	subscribes(s.open(v5, as("ana", clean("a"))), 2)
	bob = s.open(v5, as("bob", clean("b")))
	for i := range 10 {
		bob.Subscribe(fmt.Sprint("f", i), 1)
	}
}

// Connections, of clients that have not even signed in, take no file that the node needs:
// where it may open few, it goes on.
func TestClientsLeaveFiles(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("missing: prlimit, apt-get install util-linux")
	}
	s := prepare(t, filepath.Join(t.TempDir(), "data"), "--allow-anonymous")
	s.prefix = []string{"prlimit", "--nofile=256:256"}
	s.start()
	c := s.open(v5, clean("c"))
	for range 260 {
		if nc, err := net.Dial("tcp", s.ready.MQTT); err == nil { // else it was closed already
			defer nc.Close()
		}
	}
	until(t, "connections are turned away", patience, func() bool { return s.metric("bellwire_turned_away_total", `reason="files"`) > 0 })
	for i := range 40 { // several files of the log
		if code := c.TryPublish(mq.Publish{Topic: "t", QoS: 1, Retain: true, Payload: make([]byte, 40<<10)}); code != 0 && code != 0x10 {
			t.Fatalf("publish %d: code %#x", i, code)
		}
	}
	s.checkAlive()
}
