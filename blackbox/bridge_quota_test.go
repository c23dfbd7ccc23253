package blackbox

import (
	"fmt"
	"sync"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// What there is no room for, here or at a peer of our kind, is dropped and counted by what
// bounds it, and a peer of MQTT 5 is told; what comes behind it is carried at once.
func TestBridgeQuotas(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	acks := map[string]string{} // of each peer by packet and id, the code
	// A peer that sends one retained event that there is room for, two on other topics, and one
	// that is not retained.
	peer := func(name string, props ...byte) string {
		return hostilePeer(t, func(p packetIn) []byte {
			event := func(id, qos byte, retain byte, topic string) []byte {
				return mq.Frame(0x30|qos<<1|retain, append(append(append([]byte{0, byte(len(topic))}, topic...), 0, id), append(props[:len(props):len(props)], 'x')...)...)
			}
			switch kind := p.first >> 4; kind {
			case 1:
				return mq.Frame(0x20, append([]byte{0, 0}, props...)...)
			case 4, 5, 7:
				code := byte(0)
				if len(p.body) > 2 {
					code = p.body[2]
				}
				mu.Lock()
				acks[fmt.Sprint(name, " ", kind, " ", p.body[1])] = fmt.Sprintf("%02x", code)
				mu.Unlock()
				if kind == 5 && code < 0x80 {
					return []byte{0x62, 2, p.body[0], p.body[1]}
				}
			case 8:
				out := mq.Frame(0x90, append(append([]byte{p.body[0], p.body[1]}, props...), 2)...)
				out = append(append(out, event(1, 1, 1, "in/kept")...), event(2, 1, 1, "in/more/1")...)
				return append(append(out, event(3, 2, 1, "in/more/2")...), event(4, 1, 0, "in/on")...)
			}
			return []byte{}
		})
	}
	far := serve(t, "--allow-anonymous", "--limits", writeFile(t, "limits.yaml", "v: 1\ndefault: {retained.topics: 1}\n"))
	text := "bridges:\n"
	for name, of := range map[string][2]string{
		"new": {peer("new", 0), `topics: [{filter: "in/#", direction: in, qos: 2}]`},
		"old": {peer("old"), `protocol: "3.1.1", topics: [{filter: "in/#", direction: in, qos: 2}]`},
		"far": {far.ready.MQTT, `topics: [{filter: "out/#", direction: out, qos: 2}]`},
	} {
		text += fmt.Sprintf("  - {name: %s, address: %q, retry_max: 1s, %s}\n", name, of[0], of[1])
	}
	policy := writeFile(t, "policy.yaml", `rules:
  - {id: all, allow: [publish, subscribe], who: ["*@example.com", anonymous], topic: ["#"]}
tenants:
  - {domain: example.com, quotas: {retained_topics: 1}}
`)
	s := serve(t, "-f", writeFile(t, "bellwire.yaml", text), "--allow-anonymous", "--policy", policy)
	here, there := s.open(v5, clean("here")), far.open(v5, clean("there"))
	there.Subscribe("#", 1)
	for i := range 3 {
		here.PublishMessage(mq.Publish{Topic: fmt.Sprint("out/", i), QoS: byte(1 + i%2), Retain: true, Payload: []byte("x")})
	}
	here.Publish("out/on", 1, "on")
	there.ReceiveText("out/0", "x")
	there.ReceiveText("out/on", "on")
	want := map[string]string{
		"new 4 1": "00", "new 4 2": "97", "new 5 3": "97", "new 4 4": "00",
		"old 4 1": "00", "old 4 2": "00", "old 5 3": "00", "old 7 3": "00", "old 4 4": "00",
	}
	until(t, "each is answered", patience, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(acks) >= len(want)
	})
	if mu.Lock(); fmt.Sprint(acks) != fmt.Sprint(want) {
		t.Errorf("acknowledged %v, want %v", acks, want)
	}
	mu.Unlock()
	dropped := func(bridge, reason string) float64 {
		return s.metric("bellwire_bridge_dropped_total", fmt.Sprintf("bridge=%q", bridge), fmt.Sprintf("reason=%q", reason))
	}
	until(t, "each bridge counts what was dropped", patience, func() bool { // the peer may answer after its subscribers have heard
		return dropped("new", "quota") >= 2 && dropped("old", "quota") >= 2 && dropped("far", "quota_of_peer") >= 2
	})
	if a, b, c, lost := dropped("new", "quota"), dropped("old", "quota"), dropped("far", "quota_of_peer"), s.metric("bellwire_bridge_errors_total"); a != 2 || b != 2 || c != 2 || lost > 0 {
		t.Errorf("dropped for quotas %v, %v and %v, want 2 of each; connections lost: %v", a, b, c, lost)
	}
}

// What is more than a rate of ours allows waits for it, in its order, on one connection; nothing
// is dropped.
func TestBridgeWaitsForRates(t *testing.T) {
	t.Parallel()
	const many = 60
	peer := mosquittoBroker(t)
	policy := writeFile(t, "policy.yaml", `rules:
  - {id: all, allow: [publish, subscribe], who: ["*@example.net", anonymous], topic: ["#"]}
tenants:
  - {domain: example.net, quotas: {publishes_per_second: 40}}
`)
	for id, flags := range map[string][]string{
		"domain": {"--policy", policy},
		"client": {"--limits", writeFile(t, "limits.yaml", "v: 1\ndefault: {messages.perSecond: 5}\n")},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			s := bridged(t, peer.addr, "client_id: "+id+"\nprincipal: rated@example.net\ntopics: [{filter: \""+id+"/#\", direction: in, qos: 2}]", append(flags, "--allow-anonymous")...)
			here, source := s.open(v5, clean("here")), mq.Open(t, peer.addr, v5, clean("source of "+id))
			here.Subscribe("#", 2)
			until(t, "the bridge subscribes", patience, func() bool {
				source.Publish(id+"/try", 1, "try")
				return here.Arrives(time.Second/4) != nil
			})
			publishMany(t, source, id+"/a", 2, 1, many)
			for i := 1; i <= many; {
				p := here.Receive()
				if p.Topic != id+"/a" {
					continue
				}
				if got := string(p.Payload); got != fmt.Sprint(i) {
					t.Fatalf("got %s, want %d", got, i)
				}
				i++
			}
			if lost := s.metric("bellwire_bridge_errors_total") + s.metric("bellwire_bridge_dropped_total"); lost > 0 {
				t.Errorf("%v events dropped, or connections lost", lost)
			}
			if n := s.metric("bellwire_limit_refused_total", `limit="messages.perSecond"`); id == "client" && n == 0 {
				t.Error("it never had to wait")
			}
		})
	}
}
