package blackbox

import (
	"regexp"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// sysRules let bob read what the broker tells of itself, and ana anything else.
const sysRules = anaMayAll + `  - {id: sys, allow: [subscribe], who: [bob@example.com], topic: ["$SYS/#", "#"]}
`

// zonesForm is how versions of the time zone database are named.
var zonesForm = regexp.MustCompile(`^20\d\d[a-z]$`)

// mosquittoTells returns the names below $SYS/broker/ that a mosquitto tells, as it is
// installed on this machine.
func mosquittoTells(t *testing.T) (names []string) {
	t.Helper()
	peer := mosquittoWith(t, "allow_anonymous true", "sys_interval 1")
	c := mq.Open(t, peer.addr, v5, clean("names"))
	defer c.Disconnect()
	c.Subscribe("$SYS/broker/#", 0)
	seen := map[string]bool{}
	for { // what changes comes again, when all there is has come
		p := c.Receive()
		name := strings.TrimPrefix(p.Topic, "$SYS/broker/")
		if seen[name] || !p.Retain() && len(names) > 0 {
			return names
		}
		seen[name] = true
		names = append(names, name)
	}
}

// What mosquitto tells of itself has its names here, is there at once with RETAIN for who
// subscribes, of either version, and only if the policy lets them; nobody publishes there,
// and each publication is answered.
func TestMQTT52SystemTree(t *testing.T) {
	t.Parallel()
	s := serve(t, "--sys-interval", "1s", "--policy", policyFile(t, []string{"ana", "bob"}, sysRules))
	ana := s.open(v5, as("ana", clean("ana")))
	ana.PublishMessage(mq.Publish{Topic: "r", QoS: 1, Retain: true, Payload: []byte("x")})
	ana.Subscribe("$share/g/q", 0)
	names := mosquittoTells(t)
	for _, v := range []byte{v4, v5} {
		bob := s.open(v, as("bob", clean("bob")))
		bob.Subscribe("$SYS/broker/#", 1)
		present := map[string]string{}
		for present["version"] == "" { // the last of them
			p := bob.Receive()
			if !p.Retain() {
				continue // it is of the next look
			}
			present[strings.TrimPrefix(p.Topic, "$SYS/broker/")] = string(p.Payload)
		}
		for name, want := range map[string]string{
			"clients/connected": "2", "clients/total": "2", "clients/disconnected": "0", "retained messages/count": "1", "subscriptions/count": "2", "shared_subscriptions/count": "1", "store/messages/count": "1",
		} {
			if present[name] != want {
				t.Errorf("%s: %q, want %q", name, present[name], want)
			}
		}
		for _, name := range []string{"version", "uptime", "messages/received", "publish/bytes/received", "bytes/sent", "load/messages/received/1min", "load/connections/15min", "heap/maximum size"} {
			if present[name] == "" {
				t.Errorf("%s is not told", name)
			}
		}
		for _, name := range names {
			if _, told := present[name]; !told {
				t.Errorf("mosquitto tells %s, and it is not told here", name)
			}
		}
		bob.Unsubscribe("$SYS/broker/#")
		bob.Disconnect()
	}
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("$SYS/bellwire/nodes/n1/tzdata", 0)
	if p := bob.Receive(); !p.Retain() || !zonesForm.Match(p.Payload) {
		t.Errorf("the time zone database is %v", p)
	}
	bob.Unsubscribe("$SYS/bellwire/nodes/n1/tzdata")
	bob.Subscribe("#", 0)
	bob.ReceiveText("r", "x")
	bob.Subscribe("$SYS/broker/uptime", 0)
	for n := range 3 { // it is told again and again
		if p := bob.Receive(); p.Topic != "$SYS/broker/uptime" || p.Retain() != (n == 0) || !strings.HasSuffix(string(p.Payload), " seconds") {
			t.Errorf("%v", p)
		}
	}
	bob.Unsubscribe("$SYS/broker/uptime")
	bob.Subscribe("$SYS/bellwire/nodes/n1/messages_received_total/1", 0)
	bob.ReceiveText("$SYS/bellwire/nodes/n1/messages_received_total/1", "1")
	if code := ana.TrySubscribe(nil, mq.Filter{Filter: "$SYS/#"}).Codes[0]; code != 0x87 {
		t.Errorf("who may not read it: %#02x", code)
	}
	for qos := range byte(2) {
		if code := ana.TryPublish(mq.Publish{Topic: "$SYS/broker/uptime", QoS: qos + 1, Payload: []byte("0")}); code != 0x87 {
			t.Errorf("a publication at QoS %d: %#02x, want 0x87", qos+1, code)
		}
	}
	old := s.open(v4, as("ana", clean("old")))
	old.Publish("$SYS/broker/uptime", 1, "0")
	w := mq.Dial(t, s.ready.MQTT, v5)
	w.Send(as("ana", mq.Connect{ClientID: "w", Clean: true, Will: &mq.Will{Topic: "$SYS/x"}}))
	if refused := w.Expect(mq.CONNACK); refused.Code != 0x87 {
		t.Errorf("a will: %v", refused)
	}
}
