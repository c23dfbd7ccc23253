package blackbox

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A node is away while state is made. It comes back, and has all that the others have;
// these go on serving meanwhile, about as fast as before. When soaking it is more than
// 256 MiB of state, which is more than the others keep of their logs, and it is given
// a snapshot; otherwise the log holds what it lacks. (TestFarBehind in cluster has the
// small form with a snapshot: here the log is not truncated before the state has
// filled its memtable of 64 MiB.)
//
// Item 59.
func TestClusterCatchUp(t *testing.T) {
	mebibytes, calm := effort.Rounds(8, 272), time.Second
	if effort.Soaking() {
		calm = 5 * time.Second
	}
	c := newTrio(t)
	leader := c.leader()
	away, other := (leader+1)%clusterSize, (leader+2)%clusterSize
	c.nodes[away].kill()
	c.await("the others have missed it", func(all []member) bool {
		return slices.ContainsFunc(all, func(m member) bool { return m.Role == "down" })
	})
	start := time.Now()
	c.fill(c.nodes[leader].ready.MQTT, mebibytes)
	t.Logf("%d MiB of retained messages were made in %v", mebibytes, time.Since(start).Round(time.Millisecond))

	p := newProbe(t, c.nodes[other].ready.MQTT)
	quiet := time.Now().Add(calm)
	before := p.during(func() bool { return time.Now().After(quiet) })
	start = time.Now()
	caught := make(chan error, 1)
	go func() { caught <- c.back(away, other) }()
	meanwhile := p.during(func() bool { return len(caught) > 0 })
	took := time.Since(start)
	if err := <-caught; err != nil {
		t.Fatal(err)
	}
	t.Logf("it had caught up after %v; the others acknowledged in %v at the median, p99 %v, before, and %v, %v meanwhile",
		took.Round(time.Millisecond), before.median, before.p99, meanwhile.median, meanwhile.p99)
	if effort.Soaking() && !strings.Contains(c.nodes[away].logs.String(), "a snapshot has arrived") {
		t.Error("it was given no snapshot: nothing is shown")
	}
	c.alike()
	if machineIsOurs() && disturbed(meanwhile.p99, before.p99) || disturbed(meanwhile.median, before.median) {
		t.Errorf("the others were disturbed: %v at the median, p99 %v, without it %v and %v", meanwhile.median, meanwhile.p99, before.median, before.p99)
	}
}

// disturbed says whether something takes longer than it should beside what is done meanwhile.
// Other work of the machine is there before, too, and delays fewer than half of many.
func disturbed(is, was time.Duration) bool { return is > 10*was && is > 100*time.Millisecond }

// back starts a node, and returns when another says that it has all that the load
// has not only just made.
func (c *trio) back(node, other int) error {
	if err := c.nodes[node].launch(); err != nil {
		return err
	}
	for all := c.status(other); all == nil || !allVote(all) || lag(all) > 20; all = c.status(other) {
		pause()
	}
	return nil
}

// fill has so many MiB of retained messages made by a client at an address.
func (c *trio) fill(addr string, mebibytes int) {
	c.t.Helper()
	const size, flight = 32 << 10, 16
	client := mq.Open(c.t, addr, v5, clean("filler"))
	rng := rand.New(rand.NewPCG(1, 51))
	payload := make([]byte, size)
	for sent := 0; sent < mebibytes<<20/size; sent += flight {
		var flying []mq.Message
		for i := range flight {
			for j := range payload { // nothing that could be compressed
				payload[j] = byte(rng.Uint32())
			}
			flying = append(flying, mq.Publish{Topic: fmt.Sprint("filled/", sent+i), QoS: 1, ID: uint16(i + 1), Retain: true, Payload: bytes.Clone(payload)})
		}
		for all, began := flying, time.Now(); len(flying) > 0; {
			client.Send(flying...)
			var again []mq.Message
			for range flying {
				switch p := client.Expect(mq.PUBACK); {
				case p.Code < 0x80:
				case strings.Contains(p.Properties.Text(mq.PropReasonString), "no-quorum") && time.Since(began) < patience: // it is not agreed who leads
					again = append(again, all[p.ID-1])
				default:
					c.t.Fatalf("refused: %v", p)
				}
			}
			flying = again
		}
	}
	client.Disconnect()
}

// A probe publishes at QoS 1, one after the other, and measures.
type probe struct {
	t      *testing.T
	client *mq.Client
}

// A pulse is how fast publishes of a probe were acknowledged.
type pulse struct{ median, p99 time.Duration }

func newProbe(t *testing.T, addr string) *probe {
	return &probe{t, mq.Open(t, addr, v5, clean("probe"))}
}

// during measures until something happens.
func (p *probe) during(over func() bool) pulse {
	p.t.Helper()
	var took []time.Duration
	for !over() {
		start := time.Now()
		p.client.Publish("probe", 1, "x")
		took = append(took, time.Since(start))
		pause()
	}
	slices.Sort(took)
	return pulse{took[len(took)/2].Round(10 * time.Microsecond), took[(len(took)-1)*99/100].Round(10 * time.Microsecond)}
}
