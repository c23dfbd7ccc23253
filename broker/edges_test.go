package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/effort"
)

// A crowd counts what its members are sent, in all and by one task of the loop, which
// flushes whom it has marked when it ends.
type crowd struct {
	mu     sync.Mutex
	total  int
	wave   int           // since the last flush
	widest int           // most between two
	begun  time.Time     // of wave
	long   time.Duration // the longest between a first delivery and the flush
}

// A oneOf is a client of a crowd.
type oneOf struct{ *crowd }

func (m oneOf) Deliver(_ *Delivery, w *Wave) Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wave == 0 {
		m.begun = time.Now()
		w.Mark(m)
	}
	m.total++
	m.wave++
	m.widest = max(m.widest, m.wave)
	return Sent
}

func (oneOf) Release(uint16, *Wave) {}

func (m oneOf) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wave, m.long = 0, max(m.long, time.Since(m.begun))
}

func (oneOf) End(error) {}

// took returns what was counted, and begins anew.
func (c *crowd) took() (total, widest int, long time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total, widest, long = c.total, c.widest, c.long
	c.total, c.widest, c.long = 0, 0, 0
	return total, widest, long
}

// gather connects so many members who subscribe to a filter.
func (n *node) gather(c *crowd, count int, filter string) {
	n.t.Helper()
	var all sync.WaitGroup
	for part := range 64 {
		all.Go(func() {
			for i := part; i < count; i += 64 {
				s, _, _, err := n.Connect(ConnectRequest{Client: fmt.Sprint("m", i), Principal: fmt.Sprint("m", i), Version: 5, ReceiveMax: 100}, oneOf{c})
				if err != nil {
					n.t.Error(err)
					return
				}
				start(s)
				s.Subscribe([]event.Subscription{{Filter: filter}}, func(r []SubResult, _ *Wave) {
					if r[0].Err != nil {
						n.t.Error(r[0].Err)
					}
				})
			}
		})
	}
	all.Wait()
}

// Nobody is told of a window by a topic that no packet can name: what would come has a filter's
// percent signs three times.
func TestEndlessFiltersAreNotAnnounced(t *testing.T) {
	for _, outside := range []string{"announce", "end"} {
		n := newNode(t, Limits{})
		n.policies["p"] = parseRules("allow * # subscribe 08:00-17:00 outside=" + outside)
		n.policy("p")
		c, _ := n.connect("c", true, 0)
		c.subscribe(strings.Repeat("%", topic.MaxBytes/3), 0)
		c.subscribe("a/%", 0)
		n.pass(5 * 60 * 60 * 1e9)
		if got := c.await(1); len(got) != 1 || !strings.HasPrefix(got[0], "$me/sub/a/%25=") {
			t.Errorf("%s: got %.200q", outside, got)
		}
	}
}

// An edge that concerns very many is brought about in pieces: all get what they are to
// get, no task of the delivery loop does more than a piece, and what is published
// meanwhile is delivered in between. How long it took is told; see BenchmarkEdge.
func TestLargeEdgeIsPassedInPieces(t *testing.T) {
	watchers := effort.RoundsOfOne(1_100, 5_000, 100_000)
	for _, c := range []struct {
		name, rules, filter string
		at                  time.Duration // from noon
		sent                int           // to each
	}{
		{"opening", "allow * a/# subscribe 13:00-17:00\nallow * # publish\nallow * b", "a/b", time.Hour, 1},
		{"announced close", "allow * a/# subscribe 08:00-17:00 outside=announce\nallow * # publish\nallow * b", "a/b", 5 * time.Hour, 1},
		{"close", "allow * a/# subscribe 08:00-17:00\nallow * # publish\nallow * b", "a/b", 5 * time.Hour, 0},
		{"views", "allow * #", "note/x.org/bob", time.Hour, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNotesNode(t)
			n.policies["c"] = parseRules(c.rules)
			n.policy("c")
			pub := n.person("bob", 0)
			must(t, pub.publish("a/b", "x", 1, retain))
			must(t, pub.publish("note/x.org/bob", "seen from one to five", 1))
			allow(pub, `{"*":{"From":13,"Until":17}}`)
			other, _ := n.connect("other", true, 0)
			other.subscribe("b", 0)
			var all crowd
			n.gather(&all, watchers, c.filter)
			n.catchUp()
			all.took()
			begun := time.Now()
			n.clock.advance(c.at)
			var done sync.WaitGroup
			done.Go(n.catchUp)
			must(t, pub.publish("b", "meanwhile", 0))
			done.Wait()
			took := time.Since(begun)
			total, widest, long := all.took()
			if total != c.sent*watchers || widest > edgePiece {
				t.Errorf("%d sent, by one task %d; want %d, and no more than %d", total, widest, c.sent*watchers, edgePiece)
			}
			if got := other.await(1); got[0] != "b=meanwhile q0" {
				t.Errorf("got %v", got)
			}
			t.Logf("%d watchers: %v, the longest task %v", watchers, took, long)
		})
	}
}
