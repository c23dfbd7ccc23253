package blackbox

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A class of addresses is one of several that nobody who watches may tell apart.
type class struct {
	name   string
	policy string // of each owner; empty: there is no such address
	online bool   // the owner publishes
}

// The two sets of REQUIREMENTS 3(b): those of one look alike, in time too.
var (
	shownNothing = []class{
		{"politely blocked", `{"v":1,"rules":[{"id":"r","then":{"handling":"polite-block"}}]}`, true},
		{"away", `{"v":1,"rules":[{"id":"r","then":{"handling":"allow"},"show":{"services":["*"]}}]}`, false},
		{"closed", `{"v":1,"rules":[{"id":"r","if":{"weekly":{"tz":"UTC","windows":[{"days":["sat"],"start":"08:00","end":"09:00"}]}},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`, true},
	}
	toldNothing = []class{
		{"ignored", `{"v":1,"rules":[{"id":"r","then":{"handling":"block","style":"ignore"}}]}`, true},
		{"undecided", `{"v":1,"defaults":{"handling":"confirm"}}`, true},
		{"no such address", "", false},
	}
)

// address is the i-th of a class.
func (k class) address(i int) string {
	return fmt.Sprintf("%s-%d@example.com", strings.ReplaceAll(k.name, " ", "-"), i)
}

func topicOf(kind, address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return kind + "/" + domain + "/" + local
}

const timingWatchers = 10

// crowded starts a server with so many owners of each class, and watchers.
func crowded(t *testing.T, owners int) *server {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "users:\n  w0@example.net: &one {token_sha256: %s}\n", hashOf("token"))
	for i := 1; i < timingWatchers; i++ {
		fmt.Fprintf(&b, "  w%d@example.net: *one\n", i)
	}
	var all []string
	says := map[string]class{}
	for _, k := range slices.Concat(shownNothing, toldNothing) {
		for i := range owners {
			if k.policy != "" {
				all = append(all, k.address(i))
				says[k.address(i)] = k
				fmt.Fprintf(&b, "  %s: *one\n", k.address(i))
			}
		}
	}
	limits := "v: 1\ndefault:\n  watch.default: confirm\n  watch.pending: 1_000_000\n  watch.pendingPerAddress: 1_000_000\n  watch.perDomainPerHour: 1_000_000\n  watch.perMinute: 1_000_000\n"
	s := prepare(t, filepath.Join(t.TempDir(), "data"), "--test-clock", "2026-03-09T12:00:00Z", "--policy", writeFile(t, "policy.yaml", b.String()), "--limits", writeFile(t, "limits.yaml", limits))
	s.start()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var each sync.WaitGroup
	for part := range 16 {
		each.Go(func() {
			for i := part; i < len(all); i += 16 {
				if err := settleIn(s.ready.MQTT, all[i], says[all[i]]); err != nil {
					t.Errorf("%s: %v", all[i], err)
					return
				}
			}
		})
	}
	each.Wait()
	return s
}

// settleIn has an owner say what their class says. All of them publish something once, so
// that it is not by this that they differ.
func settleIn(addr, who string, k class) error {
	c, _, err := mq.DialConnect(addr, v5, mq.Connect{ClientID: who, Clean: true, User: who, Password: []byte("token")})
	if err != nil {
		return err
	}
	defer c.Close()
	sends := []mq.Publish{{Topic: "$me/policy/presence", Payload: []byte(k.policy)}, {Topic: topicOf("presence", who) + "/pc", Retain: true, Payload: []byte(`{"basic":"open"}`), Properties: mq.Properties{mq.User("evt-expires", day)}}}
	if !k.online {
		sends = append(sends, mq.Publish{Topic: topicOf("presence", who) + "/pc", Retain: true})
	}
	for i, m := range sends {
		m.QoS, m.ID = 1, uint16(i+1)
		if err := c.Write(m); err != nil {
			return err
		}
		if p, err := c.Read(6 * patience); err != nil || p.Code >= 0x80 {
			return fmt.Errorf("%s: %v %w", m.Topic, p, err)
		}
	}
	return nil
}

// A stopwatch takes how long the probes of each class take.
type stopwatch map[string][]time.Duration

// distance is the greatest of the Kolmogorov-Smirnov distances between two classes.
func (w stopwatch) distance(of []class) (most float64, between string) {
	for i, a := range of {
		for _, b := range of[:i] {
			if d := smirnov(w[a.name], w[b.name]); d >= most {
				most, between = d, b.name+" and "+a.name
			}
		}
	}
	return most, between
}

// smirnov is how far two distributions are apart where they are farthest.
func smirnov(a, b []time.Duration) (most float64) {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	for i, j := 0, 0; i < len(a) && j < len(b); {
		at := min(a[i], b[j])
		for i < len(a) && a[i] == at {
			i++
		}
		for j < len(b) && b[j] == at {
			j++
		}
		most = max(most, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	return most
}

// Nobody can tell by the time that an answer takes why there is nothing to see: each probe
// subscribes to, or fetches, an address that its watcher has not asked for before, of one
// class or another by chance, and waits for what comes. So whatever else the machine does
// comes upon all classes alike. Soaking, 10,000 probes of each class by each way are at
// most 0.05 apart. In every run there are 600, by which chance alone takes classes that are
// alike 0.19 apart once in a billion runs: what is 0.24 apart is no chance, and more than 0.05.
func TestNobodyCanTellByTime(t *testing.T) {
	probes, bound := effort.Rounds(600, 10_000), 0.24
	if effort.Soaking() {
		bound = 0.05
	}
	s := crowded(t, probes/timingWatchers)
	fetched := 0
	for _, set := range []struct {
		name    string
		classes []class
		first   func(k class, address string) string // the topic of what comes last of the answer
	}{
		{"shown nothing", shownNothing, func(_ class, address string) string { return topicOf("presence", address) }},
		{"told nothing", toldNothing, func(_ class, address string) string { return "$me/sub/" + topicOf("presence", address) }},
	} {
		subscribing, answering, fetching := stopwatch{}, stopwatch{}, stopwatch{}
		for who := range timingWatchers {
			w := s.open(v5, mq.Connect{ClientID: fmt.Sprint(set.name, who), Clean: true, User: fmt.Sprintf("w%d@example.net", who), Password: []byte("token")})
			w.Subscribe("$me/sub/#", 0)
			type probe struct {
				k       class
				address string
			}
			var all []probe
			for _, k := range set.classes {
				for i := range probes / timingWatchers {
					all = append(all, probe{k, k.address(i)})
				}
			}
			rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for _, p := range all {
				began := time.Now()
				id := w.ID()
				w.Send(mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: topicOf("presence", p.address)}}})
				w.Await(mq.SUBACK, id)
				subscribing[p.k.name] = append(subscribing[p.k.name], time.Since(began))
				for w.Await(mq.PUBLISH, 0).Topic != set.first(p.k, p.address) {
				}
				answering[p.k.name] = append(answering[p.k.name], time.Since(began))
				w.Unsubscribe(topicOf("presence", p.address))
				w.Send(mq.Ping)
				for w.Next().Type != mq.PINGRESP { // what came besides
				}
			}
			rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for _, p := range all {
				// Each may fetch 100 times at once.
				who := shownNothing[0].address(fetched / 90)
				fetched++
				began := time.Now()
				s.look(who, "/v1/"+topicOf("presence", p.address))
				if p.address != who {
					fetching[p.k.name] = append(fetching[p.k.name], time.Since(began))
				}
			}
			w.Disconnect()
		}
		for _, way := range []struct {
			name string
			took stopwatch
		}{{"SUBACK", subscribing}, {"what follows", answering}, {"GET", fetching}} {
			d, between := way.took.distance(set.classes)
			var medians []string
			for _, k := range set.classes {
				all := slices.Sorted(slices.Values(way.took[k.name]))
				medians = append(medians, fmt.Sprintf("%s %v", k.name, all[len(all)/2].Round(time.Microsecond)))
			}
			t.Logf("%s, %s: %d probes of each class, at most %.3f apart (%s); medians: %s", set.name, way.name, probes, d, between, strings.Join(medians, ", "))
			if d > bound {
				t.Errorf("%s: by %s %s are %.3f apart, want at most %.2f", set.name, way.name, between, d, bound)
			}
		}
	}
}

var looker = &http.Client{Timeout: 3 * patience}

// look fetches, and reads what comes.
func (s *server) look(who, path string) {
	s.t.Helper()
	req, err := http.NewRequest("GET", "http://"+s.ready.HTTP+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth(who, "token")
	res, err := looker.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode/100 != 2 {
		s.t.Fatalf("GET %s: %s %s %v", path, res.Status, text, err)
	}
}
