package blackbox

import (
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A node that is told to stop while its disk hangs ends all the same, within a stated
// time, with an error and a line that says why: by the log's watch over its commits if
// one is on its way, else when what it waits for takes too long. What was acknowledged
// is there at the next start.
func TestStopOnAHungDisk(t *testing.T) {
	t.Parallel()
	const stated, busyMachine = 30 * time.Second, 20 * time.Second
	for _, busy := range []bool{false, true} {
		t.Run(map[bool]string{false: "idle", true: "busy"}[busy], func(t *testing.T) {
			t.Parallel()
			s := serve(t, "--allow-anonymous", "--test-clock", noon)
			sub := s.open(v5, durable(v5, "sub"))
			sub.Subscribe("t", 1)
			sub.Disconnect()
			pub := s.open(v5, clean("pub"))
			pub.Publish("t", 1, "acknowledged")
			if !busy { // nothing is to be ordered by which the log would notice
				pub.Disconnect()
				until(t, "nobody is connected", patience, func() bool { return s.metric("bellwire_connections") == 0 })
			}
			s.disk("hang")
			if busy {
				pub.TrySend(mq.Publish{Topic: "t", QoS: 1, ID: 77, Payload: []byte("never")})
			}
			start := time.Now()
			s.signal(syscall.SIGTERM)
			s.awaitDeath()
			took, log := time.Since(start), s.logs.String()
			t.Logf("it ended after %v", took.Round(time.Millisecond))
			if took > stated+busyMachine {
				t.Errorf("it ended after %v, want %v", took, stated)
			}
			if !strings.Contains(log, "disk") || !strings.Contains(log, `"level":"error"`) {
				t.Errorf("it does not say why\n%s", log)
			}
			s.start()
			sub = s.open(v5, durable(v5, "sub"))
			sub.ReceiveText("t", "acknowledged")
		})
	}
}
