package blackbox

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// What both brokers have acknowledged at QoS 2 comes to the other side once and in order, while
// each of them is killed in the middle of it. But mosquitto 2.0.11 publishes once more, when it
// has been started again, what it had released before (5.0 [MQTT-4.3.3-6] forbids it): of what it
// sends copies may come.
func TestBridgeThroughKills(t *testing.T) {
	t.Parallel()
	const each = 150
	for who, start := range foreigns {
		for seed := range uint64(effort.Rounds(1, 20)) {
			t.Run(fmt.Sprint(who, " ", seed), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, 7))
				peer := start(t)
				s := bridged(t, peer.addr, topicsBoth)
				watch := func(addr, filter string) {
					c := mq.Open(t, addr, v5, durable(v5, "watch"))
					c.Subscribe(filter, 2)
					c.Disconnect()
				}
				watch(s.ready.MQTT, "down/#")
				watch(peer.addr, "hq/#")
				for round := range 4 {
					first := 1 + round*each
					publishMany(t, s.open(v5, clean("here")), "up/a", 2, first, first+each-1)
					publishMany(t, mq.Open(t, peer.addr, v5, clean("there")), "cmd/a/x", 2, first, first+each-1)
					upto := random.Float64() * each
					until(t, "some of it is carried", patience, func() bool {
						return s.metric("bellwire_bridge_messages_total", `direction="out"`) >= upto || s.metric("bellwire_bridge_lag_messages") == 0
					})
					if random.IntN(2) == 0 {
						s.restart()
					} else {
						peer.kill()
						peer.start()
					}
					s.awaitBridge()
				}
				for addr, topic := range map[string]string{s.ready.MQTT: "down/a/x", peer.addr: "hq/site1/a"} {
					c := mq.Open(t, addr, v5, durable(v5, "watch"))
					seen := map[string]bool{}
					for i := 1; i <= 4*each; {
						p := c.Receive()
						text := string(p.Payload)
						switch again := seen[text]; {
						case text == fmt.Sprint(i) && p.Topic == topic && !again:
							i++
						case again && who == "mosquitto" && addr != peer.addr:
						default:
							t.Fatalf("%s: got %v, want %d", topic, p, i)
						}
						seen[text] = true
					}
					if who != "mosquitto" || addr == peer.addr {
						c.Quiet()
					}
				}
				until(t, "nothing waits", patience, func() bool { return s.metric("bellwire_bridge_lag_messages") == 0 })
			})
		}
	}
}

// A peer that lost its session, or of whose session we have lost ours, makes no new event pass
// for an old one.
func TestBridgeOneSideForgets(t *testing.T) {
	t.Parallel()
	peer := foreigns["bellwire"](t)
	there := mq.Open(t, peer.addr, v5, clean("there"))
	there.Subscribe("hq/#", 2)
	last := ""            // of the life before
	for life := range 3 { // each with a new data directory, and the peer's session of the one before
		s := bridged(t, peer.addr, topicsBoth)
		here := s.open(v5, clean("here"))
		here.Subscribe("down/#", 2)
		for i := range 5 {
			text := fmt.Sprint(life, " ", i)
			here.Publish("up/a", 2, text)
			there.ReceiveText("hq/site1/a", text)
			there.Publish("cmd/a/x", 2, text)
			got := here.Receive()
			if i == 0 && last != "" && string(got.Payload) == last {
				got = here.Receive() // what the peer had not heard to have arrived when the life before ended
			}
			if got.Topic != "down/a/x" || string(got.Payload) != text {
				t.Fatalf("got %v, want %q", got, text)
			}
			last = text
		}
		s.kill()
	}
	s := bridged(t, peer.addr, topicsBoth)
	for life := range 2 { // the bridge's session here stays, the peer's goes
		gone := mq.Open(t, peer.addr, v5, clean("bellwire-b"))
		gone.TrySend(mq.Bye) // the bridge may be back already, and have taken it over
		gone.Closed()
		here := s.open(v5, clean("here"))
		here.Subscribe("down/#", 2)
		settle(t, "the bridge subscribes", there, "cmd/a/x", here, nil)
		for i := range 5 {
			text := fmt.Sprint("peer ", life, " ", i)
			here.Publish("up/a", 2, text)
			there.ReceiveText("hq/site1/a", text)
			there.Publish("cmd/a/x", 2, text)
			here.ReceiveText("down/a/x", text)
		}
		here.Disconnect()
	}
}

// settle publishes until what was published last has come elsewhere: from then on nothing of
// this is on its way any more. What the publisher itself is sent of it own takes; it may be nil.
func settle(t *testing.T, what string, from *mq.Client, topic string, to *mq.Client, own func(text string)) {
	t.Helper()
	n := 0
	until(t, what, patience, func() bool {
		n++
		text := fmt.Sprint("probe ", n)
		from.Publish(topic, 2, text)
		if own != nil {
			own(text)
		}
		for {
			p := to.Arrives(time.Second / 4)
			if p == nil {
				return false
			}
			if to.Acknowledge(p); string(p.Payload) == text {
				return true
			}
		}
	})
}

// In a cluster one node runs the bridge, and another one goes on when that is killed, or
// taken out of service, without a loss and without a copy.
func TestClusterBridgeMoves(t *testing.T) {
	t.Parallel()
	const each = 100
	peer := foreigns["bellwire"](t)
	conf := writeFile(t, "bellwire.yaml", fmt.Sprintf("bridges:\n  - name: b\n    address: %q\n    retry_max: 1s\n    %s\n", peer.addr,
		`topics: [{filter: "#", direction: out, qos: 2, local_prefix: up/, remote_prefix: hq/site1/}, {filter: "+/x/#", direction: in, qos: 2, local_prefix: down/, remote_prefix: cmd/}]`))
	c := newTrio(t, "-f", conf)
	down := -1
	connected := func() (n float64) {
		for i, s := range c.nodes {
			if i != down {
				n += s.metric("bellwire_bridge_connected")
			}
		}
		return n
	}
	await := func() {
		t.Helper()
		until(t, "one node has the bridge", patience, func() bool { return connected() == 1 })
	}
	await()
	for i := range c.nodes { // each node tells it alike
		until(t, "the bridge is shown", patience, func() bool {
			out, _, code := run(t, "bridge", "status", "--server", c.http[i], "-u", "ana", "-P", "sesame", "-o", "json")
			return code == 0 && strings.Contains(out, fmt.Sprintf(`"node":"n%d","session":"bridge/b","as":"bridge-b@example.com"`, c.leader()+1)) && strings.Contains(out, `"connected":true`)
		})
	}
	if _, _, code := run(t, "bridge", "status", "--server", c.http[0], "-u", "bob", "-P", "sesame"); code != 4 {
		t.Errorf("somebody who is no operator is shown bridges: exit code %d, want 4", code)
	}
	watch := mq.Open(t, peer.addr, v5, durable(v5, "watch"))
	watch.Subscribe("hq/#", 2)
	watch.Disconnect()
	here := c.nodes[0].open(v5, durable(v5, "watch"))
	here.Subscribe("down/#", 2)
	here.Disconnect()
	var reader int
	for round := range 3 {
		first := 1 + round*each
		leader := c.leader()
		reader = (leader + 1) % clusterSize
		publishMany(t, c.nodes[reader].open(v5, clean("here")), "up/a", 2, first, first+each-1)
		publishMany(t, mq.Open(t, peer.addr, v5, clean("there")), "cmd/a/x", 2, first, first+each-1)
		switch round {
		case 0:
			down = leader
			c.nodes[leader].kill()
			await()
			c.nodes[leader].start()
			down = -1
		case 1:
			if _, stderr, code := run(t, "node", "drain", fmt.Sprint("n", leader+1), "--server", c.http[reader], "-u", "ana", "-P", "sesame"); code != 0 {
				t.Fatalf("drain: %d %s", code, stderr)
			}
			until(t, "another node has the bridge", patience, func() bool {
				return c.nodes[leader].metric("bellwire_bridge_connected") == 0 && connected() == 1
			})
			if _, stderr, code := run(t, "node", "resume", fmt.Sprint("n", leader+1), "--server", c.http[reader], "-u", "ana", "-P", "sesame"); code != 0 {
				t.Fatalf("resume: %d %s", code, stderr)
			}
		}
	}
	for _, w := range []struct{ addr, topic string }{{c.nodes[reader].ready.MQTT, "down/a/x"}, {peer.addr, "hq/site1/a"}} {
		client := mq.Open(t, w.addr, v5, durable(v5, "watch"))
		for i := range 3 * each {
			client.ReceiveText(w.topic, fmt.Sprint(i+1))
		}
		client.Quiet()
	}
}
