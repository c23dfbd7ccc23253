package broker

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What a session's filters take is bounded, not only their number; what it has it may
// subscribe to again, and what it gives up there is room for.
func TestFiltersAreBoundedByBytes(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{SubscriptionsPerSession: 1000})
		c, _ := n.connect("c", true, expiry)
		long := func(i int) string { return fmt.Sprintf("%d/%s", i, strings.Repeat("x", 60_000)) }
		most := 1000 * bytesPerFilter / len(long(0))
		for i := range most {
			must(t, c.trySubscribe(long(i), 0))
		}
		if err := c.trySubscribe(long(most), 0); !errors.Is(err, ErrQuota) {
			t.Errorf("expiry %d: one more: %v, want %v", expiry, err, ErrQuota)
		}
		must(t, c.trySubscribe(long(1), 1))
		must(t, c.trySubscribe("short", 0))
		if _, err := c.s.Unsubscribe([]string{long(2)}); err != nil {
			t.Error(err)
		}
		must(t, c.trySubscribe(long(most), 0))
		if got := n.Over("subs.perSession"); got != 1 {
			t.Errorf("expiry %d: %d are counted, want 1", expiry, got)
		}
		if expiry > 0 { // counted again by who resumes it
			c.s.Close(false, false, 0)
			c, _ = n.connect("c", false, expiry)
			if err := c.trySubscribe(long(most+1), 0); !errors.Is(err, ErrQuota) {
				t.Errorf("resumed: one more: %v, want %v", err, ErrQuota)
			}
		}
	}
}

// Filters by which one look-up goes many ways are bounded, those of a session and all, each
// once whoever has it; others are not counted.
func TestDeepFiltersAreBounded(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{DeepLevels: 8 * 100})
		deep := func(i int) string { return fmt.Sprintf("+/+/3/4/5/6/7/8/9/%d", i) } // ten levels
		c, _ := n.connect("c", true, expiry)
		for i := range 10 {
			must(t, c.trySubscribe(deep(i), 0))
		}
		if err := c.trySubscribe(deep(10), 0); !errors.Is(err, ErrQuota) {
			t.Errorf("expiry %d: of the session one more: %v, want %v", expiry, err, ErrQuota)
		}
		if err := c.trySubscribe("$share/g/"+deep(10), 0); !errors.Is(err, ErrQuota) {
			t.Errorf("expiry %d: shared: %v, want %v", expiry, err, ErrQuota)
		}
		must(t, c.trySubscribe(deep(3), 1))
		must(t, c.trySubscribe("+/+/+/+/+/+/+/8", 0))
		must(t, c.trySubscribe("+/2/3/4/5/6/7/8/9/#", 0))
		for i := range 70 { // 700 levels, 800 in all
			if i%10 == 0 {
				c, _ = n.connect(fmt.Sprint("c", i), true, expiry)
			}
			must(t, c.trySubscribe(deep(10+i), 0))
			if i%10 == 9 {
				c, _ = n.connect(fmt.Sprint("more", i), true, expiry)
			}
		}
		if err := c.trySubscribe(deep(90), 0); !errors.Is(err, ErrQuota) {
			t.Errorf("expiry %d: of all one more: %v, want %v", expiry, err, ErrQuota)
		}
		if got := n.local.DeepLevels(); got != 800 {
			t.Errorf("expiry %d: %d levels, want 800", expiry, got)
		}
		if got := n.Over("subs.deepLevels"); got != 3 {
			t.Errorf("expiry %d: %d are counted, want 3", expiry, got)
		}
	}
}

// All subscriptions together are bounded, too, long ones as several; clients without a name
// leave half to the others.
func TestSubscriptionsInAll(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{Subscriptions: 40})
		nobody := func(id string) *client {
			c, _, err := n.tryConnect(id, true, expiry, func(q *ConnectRequest) { q.Principal = "" })
			must(t, err)
			return c
		}
		long := strings.Repeat("x", 10*128) // as eleven
		a, b := nobody("a"), nobody("b")
		for i := range 9 {
			must(t, a.trySubscribe(fmt.Sprint("t/", i), 0))
		}
		must(t, b.trySubscribe(long, 0))
		for _, c := range []*client{a, b} {
			if err := c.trySubscribe("u", 0); !errors.Is(err, ErrQuota) {
				t.Errorf("expiry %d: nobody's one more: %v, want %v", expiry, err, ErrQuota)
			}
		}
		must(t, b.trySubscribe(long, 1))
		c, _ := n.connect("c", true, expiry)
		for i := range 20 {
			must(t, c.trySubscribe(fmt.Sprint("t/", i), 0))
		}
		if err := c.trySubscribe("u", 0); !errors.Is(err, ErrQuota) {
			t.Errorf("expiry %d: one more: %v, want %v", expiry, err, ErrQuota)
		}
		if _, err := b.s.Unsubscribe([]string{long}); err != nil {
			t.Error(err)
		}
		must(t, c.trySubscribe("u", 0))
		if got := n.Over("subs"); got != 3 {
			t.Errorf("expiry %d: %d are counted, want 3", expiry, got)
		}
	}
}

// What the policy has said about topics is remembered of so many bytes of them.
func TestVerdictsAreBoundedByBytes(t *testing.T) {
	n := newNode(t, Limits{})
	c, _ := n.connect("c", true, 0)
	for i := range 3 * verdictsKept {
		must(t, c.publish(fmt.Sprintf("%d/%s", i, strings.Repeat("x", topic.MaxBytes-10)), "", 0))
		bytes := 0
		for name := range c.s.verdicts {
			bytes += len(name)
		}
		if bytes != c.s.verdictBytes || bytes > verdictsBytes+topic.MaxBytes || bytes == 0 {
			t.Fatalf("%d bytes are kept, %d counted", bytes, c.s.verdictBytes)
		}
	}
}

// Events on many topics, each of the greatest length, leave little behind. (At QoS 0: the log
// of this test keeps all that it was given.)
func TestLongTopicsLeaveLittle(t *testing.T) {
	n := newNode(t, Limits{})
	c, _ := n.connect("c", true, 3600)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 3000 { // 200 MB of names
		must(t, c.publish(fmt.Sprintf("%d/%s", i, strings.Repeat("x", topic.MaxBytes-10)), "", 0))
	}
	n.catchUp()
	if after := heap(); after > before+100<<20 {
		t.Errorf("%d MiB are left of it", (after-before)>>20)
	}
}

// Who is refused to retain an event leaves another's as it was: that still goes when its
// time has come.
func TestRefusedRetainTouchesNothing(t *testing.T) {
	n := newNode(t, Limits{})
	q := quotas(DomainQuota{RetainedTopics: 1})
	n.policies["one"] = q
	n.policy("one")
	b, _ := n.connect("b@b.org", true, 0)
	a, _ := n.connect("a@a.org", true, 0)
	must(t, b.publish("t", "b's", 1, retain, func(e *event.Event) { e.Expires = n.now() + int64(6*time.Second) }))
	must(t, a.publish("full", "a's", 1, retain))
	if err := a.publish("t", "one too many", 1, retain); !errors.Is(err, ErrQuota) {
		t.Errorf("%v, want %v", err, ErrQuota)
	}
	n.pass(10 * time.Second)
	if got := n.Retained(); got != 1 {
		t.Errorf("%d topics are retained, want 1", got)
	}
	n.recount("b.org")
}
