package broker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// What was noted is taken once, at the earliest time noted for it, and there is
// one entry for a resource however often it was noted.
func TestTimesOfResources(t *testing.T) {
	var w watch // the node's own would be taken from
	w.init(newNotesNode(t).Broker)
	rng := rand.New(rand.NewPCG(1, 2))
	due := map[string]int64{}
	now := int64(1e18)
	for range 2000 {
		name, at := fmt.Sprint("note/x.org/", rng.IntN(50)), now+1+rng.Int64N(1000)
		w.note(name, at, now)
		if old, ok := due[name]; !ok || at < old {
			due[name] = at
		}
		if rng.IntN(10) == 0 {
			now += rng.Int64N(300)
			for name, ok := w.take(now); ok; name, ok = w.take(now) {
				if at, ok := due[name]; !ok || at > now {
					t.Fatalf("%s is taken at %d, due at %d", name, now, at)
				}
				delete(due, name)
			}
			for name, at := range due {
				if at <= now {
					t.Fatalf("%s, due at %d, is not taken at %d", name, at, now)
				}
			}
		}
		if len(w.times) != len(due) {
			t.Fatalf("%d entries for %d resources", len(w.times), len(due))
		}
	}
}

// A profile that says that something else is shown at once, for ever, is asked
// again once a second.
func TestNothingIsShownForEver(t *testing.T) {
	n := newNotesNode(t)
	var w watch
	w.init(n.Broker)
	now := n.now()
	for _, at := range []int64{-1 << 63, -1, now - 1, now} {
		w.note("note/x.org/bob", at, now)
		if next := w.next(); next != now+int64(time.Second) {
			t.Errorf("for %d it is due %v after now", at, time.Duration(next-now))
		}
		w.take(now + int64(time.Second))
	}
}

// What is loaded is bounded by its size, and what is counted is what is there,
// whatever changes.
func TestLoadedResourcesAreBounded(t *testing.T) {
	n := newNotesNode(t)
	var w watch
	w.init(n.Broker)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		name := fmt.Sprint("note/x.org/", rng.IntN(500))
		w.mu.Lock()
		w.keep(name, loaded{&note{}, rng.IntN(1 << 20)})
		w.mu.Unlock()
		if rng.IntN(3) == 0 {
			w.forget(fmt.Sprint("note/x.org/", rng.IntN(500)))
		}
		total := 0
		for _, r := range w.loaded {
			total += r.bytes
		}
		if total != w.bytes || total > loadedBytes {
			t.Fatalf("%d bytes are loaded, %d are counted", total, w.bytes)
		}
	}
	w.forgetAll()
	if w.bytes != 0 || len(w.loaded) != 0 {
		t.Errorf("%d bytes are left", w.bytes)
	}
}

// What a time is noted for is told from all else that times are noted for.
func TestBucketsAreToldApart(t *testing.T) {
	const name, whose = "note/x.org/bob", "ann@x.org"
	for _, c := range []struct{ bucket, want string }{
		{name, "{note/x.org/bob  false}"},
		{ownBucket(name, whose), "{note/x.org/bob ann@x.org false}"},
		{ruledBucket(name), "{note/x.org/bob  true}"},
		{ratedBucket(name), "rated note/x.org/bob"},
		{sweepBucket(name, "x.org"), "sweep note/x.org/bob x.org"},
		{fetchesBucket, "fetches"},
	} {
		var got []string
		if topicName, is := readRated(c.bucket); is {
			got = append(got, "rated "+topicName)
		}
		if topicName, domain, is := readSweep(c.bucket); is {
			got = append(got, "sweep "+topicName+" "+domain)
		}
		if c.bucket == fetchesBucket {
			got = append(got, "fetches")
		}
		if got == nil {
			topicName, whose, ruled := readBucket(c.bucket)
			got = append(got, fmt.Sprintf("{%s %s %v}", topicName, whose, ruled))
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%q is read as %q, want %s alone", c.bucket, got, c.want)
		}
	}
}
