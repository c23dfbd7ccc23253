package blackbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// processorTime is what a process has taken of processors so far.
func processorTime(t testing.TB, pid int) (total time.Duration) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += time.Duration(n)
	}
	return total
}

// BenchmarkBridge carries events of 100 bytes between a broker with a bridge and a
// mosquitto, and tells what the broker takes for each, its clients' part included, and how many
// there are in a second; the broker is ours, or mosquitto with its own bridge. At most 200
// are on their way. Ours syncs what is QoS 1 and 2 before it acknowledges, mosquitto does not.
func BenchmarkBridge(b *testing.B) {
	const events, piece = 20_000, 200
	payload := []byte(strings.Repeat("x", 100))
	quick := []string{"allow_anonymous true", "autosave_interval 1800", "autosave_on_changes false"} // as it comes
	for _, direction := range []string{"out", "in"} {
		for qos := range byte(3) {
			for _, who := range []string{"bellwire", "mosquitto"} {
				b.Run(fmt.Sprint(direction, "/qos", qos, "/", who), func(b *testing.B) {
					far := mosquittoWith(b, quick...).addr
					var near string
					var pid int
					if who == "bellwire" {
						s := bridged(b, far, "topics: [{filter: \"out/#\", direction: out, qos: 2}, {filter: \"in/#\", direction: in, qos: 2}]")
						near, pid = s.ready.MQTT, s.pid()
					} else {
						f := mosquittoWith(b, append(slices.Clone(quick), "connection b", "address "+far, "bridge_protocol_version mqttv311", "cleansession false", "topic out/# out 2", "topic in/# in 2")...)
						near, pid = f.addr, f.pid()
					}
					addrs := [2]string{near, far}
					if direction == "in" {
						addrs = [2]string{far, near}
					}
					from, to := mq.Open(b, addrs[0], v5, clean("from")), mq.Open(b, addrs[1], v5, clean("to"))
					to.Subscribe(direction+"/#", qos)
					until(b, "the bridge carries", patience, func() bool {
						from.Publish(direction+"/probe", 1, "probe")
						return to.Arrives(time.Second/4) != nil
					})
					for to.Arrives(time.Second/2) != nil { // other probes
					}
					before, began := processorTime(b, pid), time.Now()
					n := 0
					for b.Loop() {
						for range events / piece {
							carryPiece(from, to, direction+"/a", qos, payload, piece)
						}
						n += events
					}
					b.ReportMetric(float64(n)/time.Since(began).Seconds(), "events/s")
					b.ReportMetric(float64((processorTime(b, pid)-before).Microseconds())/float64(n), "cpu-µs/event")
				})
			}
		}
	}
}

// carryPiece publishes n events, and returns when they have come and all is acknowledged.
func carryPiece(from, to *mq.Client, topic string, qos byte, payload []byte, n int) {
	batch, ids := []mq.Message{}, []uint16{}
	for range n {
		p := mq.Publish{Topic: topic, QoS: qos, Payload: payload}
		if qos > 0 {
			p.ID = from.ID()
			ids = append(ids, p.ID)
		}
		batch = append(batch, p)
	}
	from.Send(batch...)
	for _, id := range ids {
		if qos == 1 {
			from.Await(mq.PUBACK, id)
			continue
		}
		from.Await(mq.PUBREC, id)
		from.Send(mq.Ack{Type: mq.PUBREL, ID: id})
	}
	if qos == 2 {
		for _, id := range ids {
			from.Await(mq.PUBCOMP, id)
		}
	}
	for range n {
		to.Receive()
	}
}
