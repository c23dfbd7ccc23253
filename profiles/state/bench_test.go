package state

import (
	"fmt"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
)

// One change of a presence that fifty people watch: it is read, composed, and
// made into what each of them is shown, by a policy that names a domain, two
// exceptions and the office hours of a boss.
func BenchmarkShowFifty(b *testing.B) {
	const policy = `{"v":1,"kind":"presence","rules":[
 {"id":"colleagues","if":{"identity":[{"many":{"domain":"example.com","except":[{"id":"pres:u7@example.com"},{"id":"pres:u8@example.com"}]}}]},
  "then":{"handling":"allow"},"show":{"services":["*"],"note":true}},
 {"id":"boss","if":{"identity":[{"one":"pres:boss@example.com"}],
   "weekly":{"tz":"America/Chicago","windows":[{"days":["mon","tue","wed","thu","fri"],"start":"08:00","end":"17:00"}]}},
  "then":{"handling":"allow"},"show":{"services":["*"],"persons":["*"],"activities":true}}]}`
	p := New(presence.New([]byte("key")))
	now := time.Date(2026, 3, 9, 15, 0, 0, 0, time.UTC)
	rec := &record{pubs: []publication{{Publication: kind.Publication{
		Source: "phone", Publisher: kind.Of("bob@example.com"), ETag: "1", Published: now, Expires: now.Add(time.Hour),
		Doc: kind.Document{ContentType: presence.TypeJSON, Body: []byte(`{"basic":"open","notes":{"en":"somewhere between here and there, back before five if the trains run"}}`)},
	}}}}
	stored := rec.encode()
	who := make([]broker.Who, 50)
	for i := range who {
		who[i].Principal = fmt.Sprintf("u%d@example.com", i)
	}
	who[49].Principal = "boss@example.com"
	b.ReportAllocs()
	for b.Loop() {
		r := p.Load("presence/example.com/bob", stored, []byte(policy))
		for i := range who {
			r.Show(who[i], now.UnixNano())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/watcher")
}

// What it takes to show nothing to somebody who may see nothing: of somebody with
// 64 sources, and of nobody. They must not differ by what is there.
func BenchmarkShowNothing(b *testing.B) {
	now := time.Date(2026, 3, 9, 15, 0, 0, 0, time.UTC)
	full := &record{}
	for i := range MaxSources {
		full.pubs = append(full.pubs, publication{Publication: kind.Publication{
			Source: fmt.Sprintf("s%02d", i), Publisher: kind.Of("bob@example.com"), ETag: "1", Published: now, Expires: now.Add(time.Hour),
			Doc: kind.Document{Body: []byte(`{"tuples":[{"id":"a","basic":"open","note":"x"},{"id":"b","basic":"closed"}]}`)},
		}})
	}
	for name, stored := range map[string][]byte{"sources=64": full.encode(), "sources=0": nil} {
		b.Run(name, func(b *testing.B) {
			p := New(presence.New([]byte("key")))
			for b.Loop() {
				p.Load("presence/example.com/bob", stored, nil).Show(broker.Who{Principal: "eve@example.com"}, now.UnixNano())
			}
		})
	}
}
