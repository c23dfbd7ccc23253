package state

import (
	"fmt"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/presence"
)

// BenchmarkSources is what it takes to hold sources to their rate while 16 clients for each
// processor publish without a pause: that alone, and with reading the smallest document there
// is, after which a publication has all of the log before it. waited-ns is how long one waited
// for a mutex; on a machine that others use that is for whoever holds it to go on.
func BenchmarkSources(b *testing.B) {
	l := Limits{SourceRate: 1 << 20, SourceBurst: 1 << 20}.WithDefaults()
	const clients = 10_000
	topics, who := make([]string, clients), make([]broker.Who, clients)
	for i := range clients {
		topics[i], who[i] = fmt.Sprintf("presence/example.com/u%d", i), broker.Who{Principal: fmt.Sprintf("u%d@example.com", i), Client: "phone"}
	}
	payload := []byte(`{"basic":"open"}`)
	for _, read := range []bool{false, true} {
		b.Run(fmt.Sprint("read=", read), func(b *testing.B) {
			p := New(presence.New([]byte("key")))
			p.shownBy.Store(&l)
			var next atomic.Int64
			benchmarkWaits(b, func() {
				n := next.Add(1)
				i := n % clients
				pub := &broker.Publication{From: who[i], Event: &event.Event{Topic: topics[i], Payload: payload, QoS: 1, Retain: true, At: 1e18 + 1000*n}}
				if err := p.admitSource(pub); err != nil {
					b.Error(err)
				}
				if !read {
					return
				}
				if _, err := p.read(pub, nil, p.bounds.Load()); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

func benchmarkWaits(b *testing.B, act func()) {
	before := waited()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			act()
		}
	})
	b.ReportMetric(float64((waited()-before).Nanoseconds())/float64(b.N), "waited-ns")
}

// waited returns how long goroutines have waited for mutexes.
func waited() time.Duration {
	s := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(s)
	return time.Duration(s[0].Value.Float64() * float64(time.Second))
}
