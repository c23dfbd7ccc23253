package blackbox

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// The clients of a node that is killed come back to the others all at once, and again
// and again, and those of the others with them: they are let in at the rate that the
// operator set, told 0x9F meanwhile, and all are there in the end, with their sessions.
// Who stayed connected is served all the time. When soaking there are 10,000, all of the
// node that is killed, and who stayed waits at p99 at most a fifth longer than before; in each
// run it is not much longer at the median, for the storm's clients are on the same machine.
func TestMQTT08ClusterReconnectStorm(t *testing.T) {
	t.Parallel()
	rate, clients := effort.Rounds(10, 200), effort.Rounds(240, 10_000)
	c := newTrio(t, "--limits", limitsFile(t, fmt.Sprintf("v: 1\ndefault:\n  connect.perSecond: %d\n", rate)))
	dead := (c.leader() + 1) % clusterSize
	others := []*server{c.nodes[(dead+1)%clusterSize], c.nodes[(dead+2)%clusterSize]}
	established := newWitnesses(t, others[0].ready.MQTT)
	at := make([]string, clients)
	began := time.Now()
	for i := range at {
		at[i] = c.nodes[dead].ready.MQTT
		if !effort.Soaking() {
			at[i] = c.nodes[i%clusterSize].ready.MQTT
		}
	}
	_, leave := storm(t, at, false)
	var before, during []time.Duration
	served := func(all *[]time.Duration, when string) {
		round := time.Now()
		established.check(t, byte(len(*all)%3), when)
		*all = append(*all, time.Since(round))
	}
	for range effort.Rounds(3, 1000) {
		served(&before, "before the storm")
	}

	c.nodes[dead].kill()
	leave() // or this process has twice as many connections
	for i := range at {
		at[i] = others[i%2].ready.MQTT
	}
	done := make(chan struct{})
	var refused int
	go func() {
		defer close(done)
		refused, _ = storm(t, at, true)
	}()
	for storms := true; storms; {
		select {
		case <-done:
			storms = false
		default:
		}
		served(&during, "in the storm")
	}
	burst := 10 * rate
	told := 0
	for _, n := range others {
		in := int(n.metric("bellwire_connects_total", `"success"`))
		if most := burst + int(time.Duration(rate)*(time.Since(began)+time.Second)/time.Second); in > most {
			t.Errorf("%s let in %d within %v, want at most %d", n.ready.MQTT, in, time.Since(began), most)
		}
		told += int(n.metric("bellwire_connects_total", "connection_rate_exceeded"))
	}
	if refused == 0 || told < refused {
		t.Errorf("%d were told that too many connect at once, and %d of them counted", refused, told)
	}
	was, is := p99(before), p99(during)
	if machineIsOurs() && is > was+was/5 {
		t.Errorf("who stayed connected waits for %v at p99, and waited for %v before", is, was)
	}
	if is, was := during[len(during)/2], before[len(before)/2]; disturbed(is, was) {
		t.Errorf("who stayed connected waits for %v at the median, and waited for %v before", is, was)
	}
	t.Logf("%d clients were let in within %v, %d times told to wait; of %d rounds of who was there p99 was %v, of %d before %v", clients, time.Since(began), refused, len(during), is, len(before), was)
}

// p99 returns the time that one in a hundred exceeds, sorting all.
func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[(len(all)*99)/100]
}

// storm has a client connect to each address, all at once, with a session that must be
// there, or not, and each as often as it takes. It returns how often they were told
// that too many connect at once, and what ends their connections, which the test's end does else.
func storm(t *testing.T, at []string, present bool) (refused int, leave func()) {
	var mu sync.Mutex // guards refused and conns
	var conns []*mq.Conn
	leave = func() {
		for _, conn := range conns {
			conn.Close()
		}
	}
	t.Cleanup(leave)
	var all sync.WaitGroup
	deadline := time.Now().Add(time.Duration(effort.Rounds(2, 10)) * time.Minute)
	again := 100 * time.Millisecond
	if effort.Soaking() { // or they do nothing but ask
		again = time.Second
	}
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
					mu.Lock()
					conns = append(conns, conn)
					mu.Unlock()
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
				<-time.After(again)
			}
			t.Errorf("client %d was not let in", i)
		})
	}
	all.Wait()
	return refused, leave
}
