package blackbox

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// All three nodes are restarted, one after the other, under load and with a thousand
// clients connected: each of these is taken in elsewhere and finds its session, and
// nothing that was acknowledged is lost.
//
// Item 61.
func TestClusterRollingRestart(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	crowd := newCrowd(c, 1000)
	until(t, "all are connected", 60*time.Second, func() bool { return crowd.connected.Load() == 1000 })
	start := time.Now()
	for _, n := range c.nodes {
		l.await(200)
		n.stop()
		n.start()
		c.await("three voters that answer", allVote)
		until(t, "all are connected again", 60*time.Second, func() bool { return crowd.connected.Load() == 1000 })
	}
	t.Logf("restarted all in %v; %d connections were made again", time.Since(start).Round(time.Millisecond), crowd.again.Load())
	crowd.leave()
	l.finish()
	c.alike()
	if lost := crowd.lost.Load(); lost > 0 {
		t.Errorf("%d times a session was gone", lost)
	}
	if again := crowd.again.Load(); again < 1000 {
		t.Errorf("only %d connections were made again: this shows nothing", again)
	}
}

// A crowd is clients with durable sessions that stay connected, wherever they can.
type crowd struct {
	connected, again, lost atomic.Int64
	stop                   chan struct{}
	all                    sync.WaitGroup
}

func newCrowd(c *trio, size int) *crowd {
	k := &crowd{stop: make(chan struct{})}
	dialing := make(chan struct{}, 50) // so many at a time
	for i := range size {
		k.all.Go(func() {
			for first := true; ; {
				dialing <- struct{}{}
				conn, ack, err := connectAny(c.addresses(i), durable(v5, fmt.Sprint("crowd", i)))
				<-dialing
				if err == nil {
					if !first {
						k.again.Add(1)
						if !ack.SessionPresent {
							k.lost.Add(1)
						}
					}
					first = false
					k.connected.Add(1)
					k.stay(conn)
					k.connected.Add(-1)
					conn.Close()
				}
				select {
				case <-k.stop:
					return
				default:
					pause()
				}
			}
		})
	}
	return k
}

// stay waits until the connection ends, or the crowd leaves.
func (k *crowd) stay(conn *mq.Conn) {
	for {
		select {
		case <-k.stop:
			return
		default:
		}
		if _, err := conn.Read(time.Second); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

func (k *crowd) leave() {
	close(k.stop)
	k.all.Wait()
}
