package blackbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Whatever becomes of a delivery is counted, by its reason, and the sum is right: what
// matched was sent, waits, or was lost, to subscribers that are there, that take no packet
// so large, that are away, and whose queue was too short or waited too long.
func TestMQTT64LossesAddUp(t *testing.T) {
	t.Parallel()
	const n, bound = 20, 8
	s := serve(t, "--allow-anonymous", "--test-clock", "2026-03-09T12:00:00Z", "--limits", writeFile(t, "limits.yaml", queueEventsLimit(bound)))
	sent := func() float64 { return s.metric("bellwire_messages_sent_total") }
	dropped := func() float64 { return s.metric("bellwire_messages_dropped_total") }

	away := s.open(v5, durable(v5, "away"))
	away.Subscribe("t", 1)
	away.Disconnect()
	there := s.open(v5, clean("there"))
	there.Subscribe("t", 1)
	small := s.open(v5, mq.Connect{ClientID: "small", Clean: true, Properties: mq.Properties{mq.Number(mq.PropMaximumPacketSize, 100)}})
	small.Subscribe("t", 1)
	pub := s.open(v5, clean("pub"))
	sentBefore, droppedBefore := sent(), dropped()
	for i := range n {
		pub.PublishMessage(mq.Publish{
			Topic: "t", QoS: 1, Payload: []byte(fmt.Sprint(i, strings.Repeat("x", 150*(i%2)))),
			Properties: mq.Properties{mq.Number(mq.PropMessageExpiry, 60)},
		})
		there.Receive()
		if i%2 == 0 {
			small.Receive()
		}
	}
	pub.Publish("elsewhere", 1, "") // what is too much goes with the next log entry
	// Three subscriptions: n, n/2 and n/2 too large, n of which bound wait.
	check := func(what string, wantSent, wantDropped float64) {
		t.Helper()
		until(t, what, patience, func() bool { // what nobody is sent is counted when it is its turn
			return sent()-sentBefore >= wantSent && dropped()-droppedBefore >= wantDropped
		})
		if got := sent() - sentBefore; got != wantSent {
			t.Errorf("%s: %v were sent, want %v", what, got, wantSent)
		}
		if got := dropped() - droppedBefore; got != wantDropped {
			t.Errorf("%s: %v were lost, want %v", what, got, wantDropped)
		}
	}
	check("published", n+n/2, n/2+n-bound)
	waits := 3*n - (sent() - sentBefore) - (dropped() - droppedBefore)
	if waits != bound {
		t.Errorf("of %d that matched %v wait, want %d", 3*n, waits, bound)
	}
	s.advance(2 * time.Minute)
	away = s.open(v5, durable(v5, "away"))
	away.Quiet()
	check("all expired", n+n/2, n/2+n)
	pub.Publish("t", 1, "after")
	there.ReceiveText("t", "after")
	small.ReceiveText("t", "after")
	away.ReceiveText("t", "after")
	check("three more", n+n/2+3, n/2+n)
}
