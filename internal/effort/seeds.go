package effort

import (
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// tooMany is after how many seeds that failed a test tries no others.
const tooMany = 5

// often is how many turns are told one by one: after those, only each so many.
const often = 1000

// Attributes (testing.T.Attr) by which a test tells how far it has come, so that who
// runs it can show it.
const (
	Tried = "tried" // so many seeds or turns; told again and again
	Range = "seeds" // those that were tried, at the end: 1-200
)

// Seeds runs try with one seed after the other, each as a part of t.
func Seeds(t *testing.T, try func(t *testing.T, seed uint64)) {
	t.Helper()
	newRun(t).all(func(seed uint64, failed func()) {
		t.Run(name(seed), func(t *testing.T) {
			defer again(t, seed, failed)
			try(t, seed)
		})
	}, 1)
}

// ParallelSeeds is Seeds with as many at once as there are processors.
func ParallelSeeds(t *testing.T, try func(t *testing.T, seed uint64)) {
	t.Helper()
	r := newRun(t)
	if Soaking() {
		r.all(func(seed uint64, failed func()) {
			t.Run(name(seed), func(t *testing.T) {
				defer again(t, seed, failed)
				try(t, seed)
			})
		}, runtime.GOMAXPROCS(0))
		return
	}
	// Otherwise it is the other tests of the package that they run beside, too.
	r.all(func(seed uint64, failed func()) {
		t.Run(name(seed), func(t *testing.T) {
			t.Parallel()
			defer again(t, seed, failed)
			try(t, seed)
		})
	}, 1)
}

// Turns yields the number of each turn: 0, 1, …. It ends early when the test has
// failed.
func Turns(t testing.TB) iter.Seq[int] {
	t.Helper()
	one := of(t)
	over := clock()
	return func(yield func(int) bool) {
		n := 0
		for ; !t.Failed() && (n < one.due() || !over()); n++ {
			if !yield(n) {
				return
			}
			if n < often || n%often == 0 {
				t.Attr(Tried, fmt.Sprint(n+1))
			}
		}
		t.Attr(Tried, fmt.Sprint(n))
		t.Logf("%d turns", n)
	}
}

func name(seed uint64) string { return fmt.Sprint("seed=", seed) }

// clock returns what says whether the time of a test that begins now is over. Two
// goroutines may not ask at once.
func clock() (over func() bool) {
	if !Soaking() {
		return func() bool { return true }
	}
	timer, passed := time.NewTimer(soak), false
	return func() bool {
		select {
		case <-timer.C:
			passed = true
		default:
		}
		return passed
	}
}

// again says how a seed that failed is tried alone.
func again(t *testing.T, seed uint64, failed func()) {
	if t.Failed() {
		failed()
		t.Logf("this seed alone: %s", command(tested(), t.Name(), seed))
	}
}

func command(pkg, test string, seed uint64) string {
	test, _, _ = strings.Cut(test, "/seed=")
	soaking := ""
	if Soaking() { // its length is another then
		soaking = soakVariable + "=1m "
	}
	return fmt.Sprintf("%s%s=%d go test ./%s -count=1 -run '%s'", soaking, seedsVariable, seed, pkg, Pattern(test))
}

// Pattern returns what -run wants for exactly this test.
func Pattern(test string) string {
	return "^" + strings.ReplaceAll(test, "/", "$/^") + "$"
}

// A run is one test that tries its seeds.
type run struct {
	t    *testing.T
	over func() bool
	due  uint64

	mu     sync.Mutex // guards the following
	next   uint64
	tried  uint64
	failed int
}

func newRun(t *testing.T) *run {
	t.Helper()
	return &run{t: t, due: uint64(of(t).due()), over: clock(), next: given.first}
}

// all tries seeds, so many at once, until there are enough.
func (r *run) all(try func(seed uint64, failed func()), atOnce int) {
	r.t.Helper()
	work := func() {
		for seed, ok := r.take(); ok; seed, ok = r.take() {
			try(seed, r.fail)
			r.done()
		}
	}
	var others sync.WaitGroup
	for range atOnce - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	r.tell()
}

// take returns the next seed to try, if there is to be another.
func (r *run) take() (seed uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seed = r.next
	switch n := seed - given.first; {
	case seed > given.last, r.failed >= tooMany:
		return 0, false
	case given.exact, n < r.due, !r.over():
		r.next++
		return seed, true
	}
	return 0, false
}

func (r *run) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
}

func (r *run) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried++
	if Soaking() {
		r.t.Attr(Tried, fmt.Sprint(r.tried))
	}
}

func (r *run) tell() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed >= tooMany {
		r.t.Errorf("%d seeds have failed: the others are not tried", r.failed)
	}
	if r.next > given.first {
		r.t.Attr(Range, fmt.Sprintf("%d-%d", given.first, r.next-1))
	}
}
