package blackbox

import (
	"fmt"
	"net"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// ring starts n servers, each with a bridge to the next, of which the last has the first.
func ring(t *testing.T, n int, more string) (all []*server) {
	t.Helper()
	var addrs []string
	for range n {
		addrs = append(addrs, freeAddress(t))
	}
	for i, addr := range addrs {
		s := prepareBridged(t, addrs[(i+1)%n], fmt.Sprintf("client_id: from-%d\n", i)+more, "--allow-anonymous", "--mqtt", addr)
		s.start()
		all = append(all, s)
	}
	for _, s := range all {
		s.awaitBridge()
	}
	return all
}

// A bridge whose address is that of its own broker carries nothing, or all who subscribe there
// would get each event several times; it tells why, and is tried again.
func TestBridgeToItself(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	s := prepareBridged(t, addr, `topics: [{filter: "#", direction: both, qos: 2}]`, "--allow-anonymous", "--mqtt", addr)
	s.start()
	sub := s.open(v5, clean("sub"))
	sub.Subscribe("a", 2)
	for range 2 {
		tries := s.metric("bellwire_bridge_errors_total", `reason="refused"`)
		s.open(v5, clean("pub")).Publish("a", 2, "once")
		sub.ReceiveText("a", "once")
		until(t, "it is tried again", patience, func() bool { return s.metric("bellwire_bridge_errors_total", `reason="refused"`) > tries })
	}
	sub.Quiet()
	until(t, "the log says why", patience, func() bool { return contains(s.logs.String(), "is this very broker, or another node of its cluster") })
}

// In a ring of brokers each gets an event once, and it ends where it began, retained or not;
// two that both have a bridge to the other are one.
func TestBridgeRings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n         int
		direction string
	}{{2, "out"}, {3, "out"}, {3, "in"}} {
		t.Run(fmt.Sprint(c.n, " ", c.direction), func(t *testing.T) {
			t.Parallel()
			n := c.n
			all := ring(t, n, fmt.Sprintf(`topics: [{filter: "#", direction: %s, qos: 2}]`, c.direction))
			var clients []*mq.Client
			for i, s := range all {
				c := s.open(v5, clean(fmt.Sprint("client ", i)))
				c.Subscribe("#", 2)
				clients = append(clients, c)
			}
			const each = 5
			for i, from := range clients {
				for k := range each {
					text := fmt.Sprint(i, " ", k)
					from.PublishMessage(mq.Publish{Topic: "t", QoS: 2, Retain: k%2 == 1, Payload: []byte(text)})
					for _, c := range clients {
						c.ReceiveText("t", text)
					}
				}
			}
			until(t, "each is dropped where it began", patience, func() bool {
				var looped float64
				for _, s := range all {
					looped += s.metric("bellwire_bridge_dropped_total", `reason="looped"`)
				}
				return looped >= float64(n*each)
			})
			for _, c := range clients {
				c.Quiet()
			}
		})
	}
}

// In a ring where each broker carries everything both ways an event comes to each of the others
// by both, and ends; what is retained, and removed again, is so everywhere.
func TestBridgeRingBothWays(t *testing.T) {
	t.Parallel()
	const n = 4
	all := ring(t, n, `topics: [{filter: "#", direction: both, qos: 1}, {filter: "t/#", direction: both, qos: 2}]`)
	var clients []*mq.Client
	for i, s := range all {
		c := s.open(v5, clean(fmt.Sprint("client ", i)))
		c.Subscribe("#", 2)
		clients = append(clients, c)
	}
	for i, payload := range []string{"kept", "", "last", ""} {
		clients[i].PublishMessage(mq.Publish{Topic: "t/a", QoS: 1, Retain: true, Payload: []byte(payload)})
		for k, c := range clients {
			c.ReceiveText("t/a", payload)
			if k != i {
				c.ReceiveText("t/a", payload)
			}
		}
	}
	for i, s := range all {
		clients[i].Quiet()
		late := s.open(v5, clean("late"))
		late.Subscribe("#", 1)
		late.Quiet()
	}
}

// By MQTT 3.1.1 an event cannot say where it has been, so in a ring of such bridges it goes round
// for good. A rate of the bridge's principal holds it to that.
func TestBridgeRingWithoutHopsIsHeldToARate(t *testing.T) {
	t.Parallel()
	const rate = 1
	policy := writeFile(t, "policy.yaml", "rules:\n  - {id: all, allow: [publish, subscribe], who: [anyone], topic: [\"#\"]}\n")
	limits := writeFile(t, "limits.yaml", fmt.Sprintf("v: 1\nprincipals: {bridge-b@example.com: {messages.perSecond: %d}}\n", rate))
	addrs := []string{freeAddress(t), freeAddress(t)}
	var all []*server
	began := time.Now()
	for i, addr := range addrs {
		s := prepareBridged(t, addrs[1-i], fmt.Sprintf("client_id: from-%d\nprotocol: \"3.1.1\"\n", i)+`topics: [{filter: "#", direction: in, qos: 1}]`,
			"--allow-anonymous", "--policy", policy, "--limits", limits, "--mqtt", addr)
		s.start()
		all = append(all, s)
	}
	for _, s := range all {
		s.awaitBridge()
	}
	here := all[0].open(v5, clean("here"))
	here.PublishMessage(mq.Publish{Topic: "t", QoS: 1, Retain: true, Payload: []byte("round")}) // for who subscribes later, too
	rounds := func() float64 { return all[0].metric("bellwire_bridge_messages_total", `direction="in"`) }
	until(t, "it goes round, until it is held", patience, func() bool {
		const held = `limit="messages.perSecond"`
		return all[0].metric("bellwire_limit_refused_total", held)+all[1].metric("bellwire_limit_refused_total", held) > 0
	})
	if n, most := rounds(), rate*(11+time.Since(began).Seconds()); n < 9 || n > most {
		t.Errorf("it went round %v times, want 9 to %v", n, most)
	}
}

// An event that has been at too many brokers goes no further.
func TestBridgeBoundsHops(t *testing.T) {
	t.Parallel()
	peer := mosquittoBroker(t)
	s := bridged(t, peer.addr, "max_hops: 2\n"+`topics: [{filter: "#", direction: both, qos: 1}]`)
	here, there := s.open(v5, clean("here")), mq.Open(t, peer.addr, v5, clean("there"))
	here.Subscribe("#", 1)
	there.Subscribe("#", 1)
	hops := func(list string) mq.Properties { return mq.Properties{mq.User("bellwire-hops", list)} }
	there.PublishMessage(mq.Publish{Topic: "a", QoS: 1, Payload: []byte("far"), Properties: hops("x,y")})
	there.PublishMessage(mq.Publish{Topic: "a", QoS: 1, Payload: []byte("near"), Properties: hops("x")})
	here.ReceiveText("a", "near")
	here.PublishMessage(mq.Publish{Topic: "b", QoS: 1, Payload: []byte("far"), Properties: hops("x,y")})
	here.PublishMessage(mq.Publish{Topic: "b", QoS: 1, Payload: []byte("near"), Properties: hops("x")})
	for range 3 { // its own
		there.Await(mq.PUBLISH, 0)
	}
	if n := s.metric("bellwire_bridge_dropped_total", `reason="hops"`); n != 2 {
		t.Errorf("%v events dropped, want 2", n)
	}
}

// mosquitto's own bridge to us, which says by the bit of the protocol level that it is one, gets
// nothing back of what it brought, and what is retained stays retained.
func TestMosquittoBridgesToUs(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	host, port, _ := net.SplitHostPort(s.ready.MQTT)
	peer := mosquittoWith(t, "allow_anonymous true", "connection ours", fmt.Sprintf("address %s:%s", host, port), "topic # both 2", "bridge_protocol_version mqttv311", "notifications false")
	here, there := s.open(v5, clean("here")), mq.Open(t, peer.addr, v5, clean("there"))
	all := mq.Filter{Filter: "t/#", QoS: 2, RetainAsPublished: true}
	here.SubscribeTo(nil, all)
	there.SubscribeTo(nil, all)
	settle(t, "mosquitto is connected", there, "t/try", here, func(text string) { there.ReceiveText("t/try", text) })
	for qos := range byte(3) {
		for _, c := range []struct{ from, to *mq.Client }{{here, there}, {there, here}} {
			text := fmt.Sprint("qos ", qos)
			c.from.PublishMessage(mq.Publish{Topic: "t/a", QoS: qos, Retain: true, Payload: []byte(text)})
			c.from.ReceiveText("t/a", text)
			if p := c.to.ReceiveText("t/a", text); !p.Retain() || p.QoS() != qos {
				t.Errorf("got %v, want QoS %d and RETAIN", p, qos)
			}
		}
	}
	here.Quiet()
	there.Quiet()
}
