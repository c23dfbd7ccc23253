//go:build linux

package state_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/life"
)

// Pieces are what log entries took that had subscriptions follow a policy.
type pieces struct {
	entry          uint64 // the last one
	took           time.Duration
	count          int
	longest, whole time.Duration
}

// wake measures what is done.
func (p *pieces) wake(tx *broker.ProfileTx, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := processorTime(rusageThread)
	f()
	if entry := tx.Position() >> entryBits; p.entry != entry {
		p.entry, p.took = entry, 0
		p.count++
	}
	took := processorTime(rusageThread) - before
	p.took += took
	p.whole += took
	p.longest = max(p.longest, p.took)
}

const (
	rusageThread = 1  // RUSAGE_THREAD
	entryBits    = 20 // of a position, below those of the log entry
)

// processorTime is what the process, or the calling thread, has had of processors. Of a
// machine that others use it says more than a clock.
func processorTime(whose int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(whose, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// An owner ends a subscription that they name by its id, of as many as may watch one
// address.
func BenchmarkRevokeByID(b *testing.B) {
	for _, watchers := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("watchers=", watchers), func(b *testing.B) {
			n, pc := newCrowd(b, watchers, nil)
			keys, i, before := n.Keys("presence"), watchers, processorTime(syscall.RUSAGE_SELF)
			for b.Loop() {
				i--
				key := life.Key(bobs, watcherNumber(i))
				pc.Publish("$ctl/revoke", fmt.Sprintf(`{"kind":"presence","sid":%q}`, life.ReadEntry(key, keys.Get(key)).ID))
			}
			b.ReportMetric(float64(processorTime(syscall.RUSAGE_SELF)-before)/float64(b.N)/1000, "cpu-µs/op")
		})
	}
}

// An owner's policy changes what all who watch may see: their subscriptions follow, some
// with the command and the rest in pieces. Reported is what that takes of a processor: of
// each watcher, of the longest entry, and of all.
func BenchmarkFollowPolicy(b *testing.B) {
	const polite = `{"v":1,"defaults":{"handling":"polite-block"}}`
	for _, watchers := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("watchers=", watchers), func(b *testing.B) {
			followed := new(pieces)
			n, pc := newCrowd(b, watchers, followed.wake)
			*followed = pieces{}
			before := processorTime(syscall.RUSAGE_SELF)
			for i := 0; b.Loop(); i++ {
				pc.Publish(policy, []string{polite, everything}[i%2])
				n.Settle()
				if put := life.ReadTally(n.Keys("presence").Get(life.TallyKey(bobs))).Polite; put != uint64(watchers*(1-i%2)) {
					b.Fatalf("policy %d: %d of %d are put off", i, put, watchers)
				}
			}
			whole := float64(processorTime(syscall.RUSAGE_SELF) - before)
			b.ReportMetric(whole/float64(b.N)/1e6, "cpu-ms/policy")
			b.ReportMetric(float64(followed.whole)/float64(b.N)/float64(watchers)/1e3, "apply-µs/watcher")
			b.ReportMetric(float64(followed.longest)/1e6, "longest-ms")
			b.ReportMetric(float64(followed.count)/float64(b.N), "entries/policy")
		})
	}
}
