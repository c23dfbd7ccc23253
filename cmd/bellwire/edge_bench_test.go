package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

// A counter is a client that takes everything, and counts it.
type counter struct{ got *atomic.Int64 }

func (c counter) Deliver(*broker.Delivery, *broker.Wave) broker.Outcome {
	c.got.Add(1)
	return broker.Sent
}
func (counter) Release(uint16, *broker.Wave) {}
func (counter) Flush()                       {}
func (counter) End(error)                    {}

// An edgeNode is a server in memory whose clock the test moves, with watchers of one
// topic, or of what one filter matches.
type edgeNode struct {
	tb    testing.TB
	s     *server
	clock *testClock
	got   atomic.Int64
}

// From eight to five, by the operator or by the owner.
const (
	edgePlain = `rules:
  - {id: day, allow: [subscribe], who: ["*@example.com"], topic: ["ward/#"], when: {weekly: ["Mon-Sun 08:00-17:00"], tz: UTC}, outside: %s}
  - {id: publish, allow: [publish], who: ["*@example.com"], topic: ["ward/#"]}
`
	edgeOwner = `{"v":1,"kind":"presence","rules":[{"id":"day","if":{"identity":[{"many":{"domain":"example.com"}}],
  "weekly":{"tz":"UTC","windows":[{"days":["mon","tue","wed","thu","fri","sat","sun"],"start":"08:00","end":"17:00"}]}},
  "then":{"handling":"allow"},"show":{"services":["*"],"note":true}}]}`
)

func newEdgeNode(tb testing.TB, policy string) *edgeNode {
	tb.Helper()
	n := &edgeNode{tb: tb, clock: newTestClock(time.Date(2026, 3, 9, 16, 0, 0, 0, time.UTC))}
	c := inMemory(n.clock)
	c.policy = []byte(policy)
	var err error
	if n.s, err = startServer(tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.s.shutdown(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

// inMemory is the configuration of a server without a disk.
func inMemory(clock *testClock) serverConfig {
	c := devFlags{domain: "example.com"}.config(discard{})
	c.fs, c.clock = disk.Memory(), clock
	return c
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// connect connects a client of a principal.
func (n *edgeNode) connect(name string) *broker.Session {
	s, _, _, err := n.s.broker.Connect(broker.ConnectRequest{Client: name, Principal: name + "@example.com", Version: 5, ReceiveMax: 100}, counter{&n.got})
	if err != nil {
		n.tb.Error(err)
		return nil
	}
	var w broker.Wave
	s.Start(&w)
	w.Flush()
	return s
}

// watch connects so many watchers of a filter at QoS 0.
func (n *edgeNode) watch(count int, filter string) {
	var all sync.WaitGroup
	for part := range 64 {
		all.Go(func() {
			for i := part; i < count; i += 64 {
				s := n.connect(fmt.Sprint("w", i))
				if s == nil {
					return
				}
				s.Subscribe([]event.Subscription{{Filter: filter}}, func(r []broker.SubResult, _ *broker.Wave) {
					if r[0].Err != nil {
						n.tb.Error(r[0].Err)
					}
				})
			}
		})
	}
	all.Wait()
}

// publish publishes at QoS 1 and waits.
func (n *edgeNode) publish(s *broker.Session, topic, payload string, retain bool) {
	n.tb.Helper()
	done := make(chan error, 1)
	var w broker.Wave
	logged, err := s.Publish(&event.Event{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: retain}, 0, completed(done), 0, &w)
	w.Flush()
	if logged {
		err = <-done
	}
	if err != nil {
		n.tb.Fatalf("publish to %s: %v", topic, err)
	}
}

type completed chan error

func (c completed) Complete(_ uint64, err error, _ *broker.Wave) { c <- err }

// pass moves the clock to the next time of day, and returns how much CPU time it took
// to bring about what that means, and how much was sent.
func (n *edgeNode) pass(hour int) (took time.Duration, sent int64) {
	n.tb.Helper()
	now := n.clock.Now()
	next := time.Date(now.Year(), now.Month(), now.Day(), hour, 0, 0, 0, time.UTC)
	if !next.After(now) {
		next = next.AddDate(0, 0, 1)
	}
	before, begun := n.got.Load(), cpuTime(n.tb)
	if err := n.clock.set(next); err != nil {
		n.tb.Fatal(err)
	}
	if err := n.s.broker.CatchUp(context.Background()); err != nil {
		n.tb.Fatal(err)
	}
	return cpuTime(n.tb) - begun, n.got.Load() - before
}

// cpuTime is what this process has used of all processors: on a machine that others
// use, too, it says more than the wall clock.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEdge is what it takes one processor to bring about an edge that closes live
// subscriptions, or opens them: of plain topics by
// the operator's policy (what is told to whom is what `outside` says), of a topic named
// and of a wildcard; and of one owner's presence by the owner's.
func BenchmarkEdge(b *testing.B) {
	for _, c := range []struct {
		name, outside, filter string
		watchers              int64
		closing, opening      int64 // sent to each
	}{
		{"named/10000", "hold", "ward/3/alarm", 10_000, 0, 1},
		{"wildcard/10000", "hold", "ward/+/alarm", 10_000, 0, 1},
		{"announced/10000", "announce", "ward/3/alarm", 10_000, 1, 2},
		{"views/10000", "hold", "presence/example.com/bob", 10_000, 1, 1},
		{"named/100000", "hold", "ward/3/alarm", 100_000, 0, 1},
		{"announced/100000", "announce", "ward/3/alarm", 100_000, 1, 2},
		{"views/100000", "hold", "presence/example.com/bob", 100_000, 1, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := newEdgeNode(b, fmt.Sprintf(edgePlain, c.outside))
			bob := n.connect("bob")
			n.publish(bob, "$me/policy/presence", edgeOwner, false)
			n.publish(bob, "presence/example.com/bob/phone", `{"basic":"open","notes":{"en":"at work"}}`, false)
			n.publish(bob, "ward/3/alarm", "fire", true)
			n.watch(int(c.watchers), c.filter)
			n.pass(17)
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			var closing, opening time.Duration
			rounds := 0
			b.ResetTimer()
			for ; b.Loop(); rounds++ {
				took, sent := n.pass(8)
				if opening += took; sent != c.opening*c.watchers {
					b.Fatalf("the opening sent %d, want %d", sent, c.opening*c.watchers)
				}
				took, sent = n.pass(17)
				if closing += took; sent != c.closing*c.watchers {
					b.Fatalf("the close sent %d, want %d", sent, c.closing*c.watchers)
				}
			}
			b.ReportMetric(float64(closing.Milliseconds())/float64(rounds), "cpu-ms/close")
			b.ReportMetric(float64(opening.Milliseconds())/float64(rounds), "cpu-ms/opening")
		})
	}
}
