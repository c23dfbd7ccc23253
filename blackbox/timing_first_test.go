package blackbox

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// Nor does the first look at an address after the server was started tell, when nothing of
// any owner is in memory, whether there is one: by SUBSCRIBE or GET, each address once. What
// there is to parse of an owner's policy is filled up, so that of policies up to 512 bytes it
// is the same. Soaking, 995 probes of each class by each way, which is as many as there can be
// users for, are at most 0.1 apart, by chance alone about 0.05. Before looks at nobody cost as
// much, ignored and nobody were 0.32 apart by GET; before short policies were filled up,
// politely blocked and closed 0.10 to 0.13.
func TestNobodyCanTellByTheFirstLook(t *testing.T) {
	owners, bound := effort.Rounds(400, 1_990), 0.40
	if effort.Soaking() {
		bound = 0.1
	}
	s := crowded(t, owners)
	for _, set := range [][]class{shownNothing, toldNothing} {
		s.stop()
		s.start()
		type probe struct {
			k    class
			i    int
			gets bool
		}
		var all []probe
		for _, k := range set {
			for i := range owners {
				all = append(all, probe{k, i, i%2 == 0})
			}
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		subscribing, fetching := stopwatch{}, stopwatch{}
		var watchers []*mq.Client
		for i := range timingWatchers {
			watchers = append(watchers, s.open(v5, mq.Connect{ClientID: fmt.Sprint("first", i), Clean: true, User: fmt.Sprintf("w%d@example.net", i), Password: []byte("token")}))
		}
		asked := 0
		for n, p := range all {
			address := p.k.address(p.i)
			if p.gets {
				who := "" // of the other set: nobody has looked at them
				if asked++; set[0].name == shownNothing[0].name {
					who = toldNothing[asked%2].address(asked / 180)
				} else {
					who = shownNothing[asked%2].address(asked / 180)
				}
				began := time.Now()
				s.look(who, "/v1/"+topicOf("presence", address))
				fetching[p.k.name] = append(fetching[p.k.name], time.Since(began))
				continue
			}
			w := watchers[n%len(watchers)]
			id := w.ID()
			began := time.Now()
			w.Send(mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: topicOf("presence", address)}}})
			w.Await(mq.SUBACK, id)
			subscribing[p.k.name] = append(subscribing[p.k.name], time.Since(began))
			w.Unsubscribe(topicOf("presence", address))
			w.Send(mq.Ping)
			for w.Next().Type != mq.PINGRESP { // what came besides
			}
		}
		for way, took := range map[string]stopwatch{"SUBACK": subscribing, "GET": fetching} {
			d, between := took.distance(set)
			var medians []string
			for _, k := range set {
				of := slices.Sorted(slices.Values(took[k.name]))
				medians = append(medians, fmt.Sprintf("%s %v", k.name, of[len(of)/2].Round(time.Microsecond)))
			}
			t.Logf("%s: %d probes of each class, at most %.3f apart (%s), %.3f by chance; medians: %s", way, owners/2, d, between, took.chance(), strings.Join(medians, ", "))
			if d > bound {
				t.Errorf("by %s %s are %.3f apart, want at most %.2f", way, between, d, bound)
			}
		}
		for _, w := range watchers {
			w.Disconnect()
		}
	}
}

// chance is how far two classes are apart that are alike: on average over the classes, the
// distance of every other probe of one from the rest, of which there are half as many.
func (w stopwatch) chance() (sum float64) {
	for _, all := range w {
		var half [2][]time.Duration
		for i, d := range all {
			half[i%2] = append(half[i%2], d)
		}
		sum += smirnov(half[0], half[1]) / math.Sqrt2
	}
	return sum / float64(len(w))
}
