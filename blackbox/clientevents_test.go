package blackbox

import (
	"encoding/json"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Who comes and goes is told below $SYS, with the reason, and each once in the order of the
// log; where from only to operators.
func TestMQTT52ClientsComeAndGo(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+
		`  - {id: sys, allow: [subscribe], who: ["*@example.com"], topic: ["$SYS/#"]}
  - {id: own, allow: [publish], who: [bob@example.com], topic: [x]}
groups:
  operators: [ana@example.com]
`))
	const tree = "$SYS/bellwire/clients/"
	ana, bob := s.open(v5, as("ana", clean("ana"))), s.open(v5, as("bob", clean("bob")))
	for _, c := range []*mq.Client{ana, bob} {
		c.Subscribe(tree+"#", 1)
	}
	first := s.open(v5, as("bob", mq.Connect{ClientID: "c", Clean: true, KeepAlive: 77}))
	second := s.open(v4, as("bob", clean("c")))
	if p := first.Expect(mq.DISCONNECT); p.Code != 0x8E {
		t.Errorf("who is taken over: %v", p)
	}
	second.Disconnect()

	type told struct {
		Client, User, Address, Reason string
		Protocol                      byte
		KeepAlive                     int   `json:"keep_alive"`
		Code                          *byte `json:"reason_code"`
		Index, Order                  uint64
	}
	var last [2]uint64
	for _, step := range []struct{ what, reason string }{
		{"connected", ""}, {"address", ""}, {"disconnected", "session taken over"}, {"connected", ""}, {"address", ""}, {"disconnected", "success"},
	} {
		for _, c := range []*mq.Client{ana, bob} {
			if c == bob && step.what == "address" {
				continue
			}
			p := c.Receive()
			var of told
			if err := json.Unmarshal(p.Payload, &of); err != nil {
				t.Fatal(err)
			}
			if p.Topic != tree+"example.com/c/"+step.what || of.Client != "c" || of.User != "bob@example.com" || of.Reason != step.reason || (of.Code != nil) != (step.reason != "") {
				t.Errorf("%s: %s, want %s, %q", p.Topic, p.Payload, step.what, step.reason)
			}
			if addressed := strings.HasPrefix(of.Address, "127.0.0.1:"); addressed != (step.what == "address") || !addressed && strings.Contains(string(p.Payload), "127.0.0.1") {
				t.Errorf("%s: %s", p.Topic, p.Payload)
			}
			if c == ana && step.what != "address" {
				if of.Index < last[0] || of.Index == last[0] && of.Order <= last[1] {
					t.Errorf("%s: %s, which is behind %v", p.Topic, p.Payload, last)
				}
				last = [2]uint64{of.Index, of.Order}
			}
			if step.what == "connected" && (of.Protocol == 5) != (of.KeepAlive == 77) {
				t.Errorf("%s: %s", p.Topic, p.Payload)
			}
		}
	}
}
