package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
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
	stored := rec.encode(recordWeighted)
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
	for name, stored := range map[string][]byte{"sources=64": full.encode(recordWeighted), "sources=0": nil} {
		b.Run(name, func(b *testing.B) {
			p := New(presence.New([]byte("key")))
			for b.Loop() {
				p.Load("presence/example.com/bob", stored, nil).Show(broker.Who{Principal: "eve@example.com"}, now.UnixNano())
			}
		})
	}
}

// The most that there may be to compose, of what takes longest for its weight: all of it
// is read, composed and shown to one watcher, as by each change of one source.
func BenchmarkComposeWorst(b *testing.B) {
	const policy = `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},"show":{%s}}]}`
	const shown = `"services":["*"],"persons":["*"],"devices":["*"],"all":true`
	now := time.Date(2026, 3, 9, 15, 0, 0, 0, time.UTC)
	list := func(n int, each string) string {
		sep := ","
		if each[0] == '<' {
			sep = ""
		}
		items := make([]string, n)
		for i := range items {
			items[i] = fmt.Sprintf(each, i)
		}
		return strings.Join(items, sep)
	}
	present, located := presence.New([]byte("key")), location.New([]byte("key"))
	for _, c := range []struct {
		name   string
		of     kind.Kind
		policy string
		doc    string // of each source
	}{
		{"sources", present, shown, `{"basic":"open"}`},
		{"tuples", present, shown, `{"tuples":[` + list(30, `{"id":"t%d","basic":"open"}`) + `]}`},
		{"contacts", present, shown, `{"tuples":[` + list(30, `{"id":"t%d","basic":"open","contact":{"uri":"im:a@b.c","priority":0.5},"timestamp":"2026-03-09T12:00:00Z"}`) + `]}`},
		{"persons", present, shown, `{"persons":[` + list(30, `{"id":"p%d","sphere":"SOURCE %[1]d"}`) + `]}`},
		{"notes", present, shown, `{"persons":[` + list(30, `{"id":"p%d","note":{"en":"SOURCE %[1]d"}}`) + `]}`},
		{"attributes", present, shown, `{"persons":[` + list(5, `{"id":"p%d","activities":{"is":["busy"],"from":"2026-03-09T12:00:00Z"},"mood":["happy"],"placeType":["office"],"privacy":["audio"],"sphere":"work","timeOffset":60,"note":{"en":"x"},"class":"a"}`) + `]}`},
		{"xml", present, shown, `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:bob@example.com">` + list(20, `<tuple xmlns:x="urn:x" id="t%d"><status><basic>open</basic></status><x:y>&lt;&lt;</x:y></tuple>`) + `</presence>`},
		{"octets", present, shown, `{"x":"` + strings.Repeat("\u00e9", 2000) + `"}`},
		{"polygons", located, `"radius":1000`, `{"shape":{"type":"Polygon","crs":"EPSG:4326","posList":[[40.42,-3.71],[40.41,-3.71],[40.41,-3.70],[40.42,-3.70],[40.42,-3.71]]}}`},
		{"tracks", located, `"radius":0`, `{"lat":1,"lon":2,"track":[` + list(20, `{"at":"2026-03-09T12:00:%02dZ","pos":[40.4,-3.7]}`) + `]}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			p, rec, units := New(c.of), &record{}, 0
			resource := kind.Resource{Kind: c.of.Name(), Addr: kind.Of("bob@example.com")}
			for i := range MaxSources {
				doc := kind.Document{Body: []byte(strings.ReplaceAll(c.doc, "SOURCE", fmt.Sprint(i)))}
				v, err := c.of.Parse(resource, doc)
				if err != nil {
					b.Fatal(err)
				}
				w := c.of.Weight(doc, v)
				if units+w > MaxWeight {
					break
				}
				units += w
				rec.pubs = append(rec.pubs, publication{weight: w, Publication: kind.Publication{
					Source: fmt.Sprintf("s%02d", i), Publisher: resource.Addr, ETag: "1", Published: now, Expires: now.Add(time.Hour), Doc: doc,
				}})
			}
			stored, grants := rec.encode(recordWeighted), fmt.Appendf(nil, policy, c.policy)
			who := broker.Who{Principal: "eve@example.com"}
			size := 0
			for b.Loop() {
				size = len(p.Load(resource.Topic(), stored, grants).Show(who, now.UnixNano()).Payload)
			}
			b.ReportMetric(float64(units), "units")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(units), "ns/unit")
			b.ReportMetric(float64(size), "octets")
		})
	}
}
