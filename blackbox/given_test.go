package blackbox

import (
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A client is subscribed to what the policy gives it, at connecting, without a SUBACK, in
// either version; it may unsubscribe; and what the rules do not permit is told to the operator.
func TestClientsAreGivenSubscriptions(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+`
  - {id: bob, allow: [subscribe], who: [bob@example.com], topic: ["cmd/{client}/#", "from/+"]}
subscriptions:
  - {id: cmd, who: ["*@example.com"], topic: ["cmd/${clientid}/#", "from/${host}"], qos: 1, rap: true}
  - {id: forbidden, who: [bob@example.com], topic: [secret]}
`))
	ana := s.open(v5, as("ana", clean("ana")))
	for _, v := range []byte{v4, v5} {
		ana.PublishMessage(mq.Publish{Topic: "cmd/bob/kept", QoS: 1, Retain: true, Payload: []byte("kept")})
		bob := s.open(v, as("bob", clean("bob")))
		bob.ReceiveText("cmd/bob/kept", "kept")
		ana.Publish("cmd/bob/now", 2, "now")
		if p := bob.ReceiveText("cmd/bob/now", "now"); p.QoS() != 1 {
			t.Errorf("at QoS %d", p.QoS())
		}
		ana.Publish("secret", 1, "x")
		ana.Publish("from/127.0.0.1", 1, "by address")
		bob.ReceiveText("from/127.0.0.1", "by address")
		if p := bob.Unsubscribe("cmd/bob/#"); v == v5 && p.Codes[0] != 0 {
			t.Errorf("unsubscribed: %v", p)
		}
		ana.Publish("cmd/bob/now", 1, "unheard")
		ana.Publish("from/127.0.0.1", 1, "last")
		bob.ReceiveText("from/127.0.0.1", "last")
		bob.Disconnect()
	}
	if n := strings.Count(s.logs.String(), "not given a subscription"); n != 1 {
		t.Errorf("the operator was told %d times, want once", n)
	}
}
