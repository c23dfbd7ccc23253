package blackbox

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// The clients of a node that is killed come back to the others all at once, and again
// and again, and those of the others with them: they are let in at the rate that the
// operator set, told 0x9F meanwhile, and all are there in the end, with their sessions.
// Who stayed connected is served all the time.
func TestMQTT08ClusterReconnectStorm(t *testing.T) {
	t.Parallel()
	const rate, clients = 10, 240
	c := newTrio(t, "--limits", limitsFile(t, fmt.Sprintf("v: 1\ndefault:\n  connect.perSecond: %d\n", rate)))
	dead := (c.leader() + 1) % clusterSize
	others := []*server{c.nodes[(dead+1)%clusterSize], c.nodes[(dead+2)%clusterSize]}
	established := newWitnesses(t, others[0].ready.MQTT)
	at := make([]string, clients)
	began := time.Now()
	for i := range at {
		at[i] = c.nodes[i%clusterSize].ready.MQTT
	}
	storm(t, at, false)

	c.nodes[dead].kill()
	for i := range at {
		at[i] = others[i%2].ready.MQTT
	}
	done := make(chan struct{})
	var refused int
	go func() {
		defer close(done)
		refused = storm(t, at, true)
	}()
	rounds := 0
	for storms := true; storms; rounds++ {
		select {
		case <-done:
			storms = false
		default:
		}
		established.check(t, byte(rounds%3), "in the storm")
	}
	const burst = 10 * rate
	told := 0
	for _, n := range others {
		in := int(n.metric("bellwire_connects_total", `"success"`))
		if most := burst + int(rate*(time.Since(began)+time.Second)/time.Second); in > most {
			t.Errorf("%s let in %d within %v, want at most %d", n.ready.MQTT, in, time.Since(began), most)
		}
		told += int(n.metric("bellwire_connects_total", "connection_rate_exceeded"))
	}
	if refused == 0 || told < refused {
		t.Errorf("%d were told that too many connect at once, and %d of them counted", refused, told)
	}
	t.Logf("%d clients were let in within %v, %d times told to wait; %d rounds of who was there", clients, time.Since(began), refused, rounds)
}

// storm has a client connect to each address, all at once, with a session that must be
// there, or not, and each as often as it takes. It returns how often they were told
// that too many connect at once.
func storm(t *testing.T, at []string, present bool) (refused int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	deadline := time.Now().Add(2 * time.Minute)
	for i, addr := range at {
		all.Go(func() {
			for time.Now().Before(deadline) {
				conn, ack, err := mq.DialConnect(addr, v5, durable(v5, fmt.Sprint("storm", i)))
				switch {
				case errors.Is(err, mq.ErrClosed):
				case err != nil:
					t.Errorf("client %d: %v", i, err)
					return
				case ack.Code == 0:
					if ack.SessionPresent != present {
						t.Errorf("client %d: got %v", i, ack)
					}
					t.Cleanup(func() { conn.Close() })
					return
				case ack.Code == 0x9F:
					mu.Lock()
					refused++
					mu.Unlock()
				case ack.Code != 0x88 && ack.Code != 0x89: // until the others have agreed who leads
					t.Errorf("client %d: got %v", i, ack)
					return
				}
				if conn != nil {
					conn.Close()
				}
				<-time.After(100 * time.Millisecond)
			}
			t.Errorf("client %d was not let in", i)
		})
	}
	all.Wait()
	return refused
}
