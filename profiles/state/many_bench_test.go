//go:build linux

package state_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/life"
	owners "github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// A crowd is a profile whose resources can be given very many watchers at once: by what
// is published to crowds.
type crowd struct {
	*state.Profile

	came   *int // so many
	pieces *pieces
}

// Pieces are what log entries took that had subscriptions follow a policy.
type pieces struct {
	entry          uint64 // the last one
	took           time.Duration
	count          int
	longest, whole time.Duration
}

// Wake measures what is done.
func (c crowd) Wake(tx *broker.ProfileTx, id string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := processorTime(rusageThread)
	c.Profile.Wake(tx, id)
	p, entry := c.pieces, tx.Position()>>entryBits
	if p.entry != entry {
		p.entry, p.took = entry, 0
		p.count++
	}
	took := processorTime(rusageThread) - before
	p.took += took
	p.whole += took
	p.longest = max(p.longest, p.took)
}

const (
	crowds  = "presence/example.com/crowd"
	atATime = 1000
)

func watcherNumber(i int) string { return fmt.Sprintf("w%06d@example.net", i) }

func (c crowd) Admit(pub *broker.Publication) error {
	if pub.Event.Topic == crowds {
		return nil
	}
	return c.Profile.Admit(pub)
}

// Apply has atATime more watch bob.
func (c crowd) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	if pub.Event.Topic != crowds {
		return c.Profile.Apply(tx, pub)
	}
	b := life.Book{
		Tx: tx, Limits: life.Limits{}.WithDefaults(), Key: [32]byte{1},
		Judge: func(string, string, string) life.Verdict { return life.Verdict{Handling: owners.Allow} },
		Noted: func(string, bool) {}, Hold: func(*life.Entry) {}, Release: func(string) {},
	}
	for range atATime {
		if _, _, err := b.Subscribe(life.Request{Topic: bobs, Watcher: watcherNumber(*c.came), Session: 1<<40 + uint64(*c.came)}); err != nil {
			return err
		}
		*c.came++
	}
	return nil
}

// newCrowd starts a node at which so many watch bob, who lets everybody.
func newCrowd(b *testing.B, watchers int) (*brokertest.Node, *brokertest.Client, *pieces) {
	b.Helper()
	came, followed := 0, new(pieces)
	n := brokertest.New(b, func() []broker.Profile {
		return []broker.Profile{crowd{state.New(presence.New([]byte("key"))), &came, followed}}
	})
	pc := n.Connect(bob)
	pc.Publish(policy, everything)
	for range watchers / atATime {
		pc.Publish(crowds, "more")
	}
	return n, pc, followed
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
			n, pc, _ := newCrowd(b, watchers)
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
			n, pc, followed := newCrowd(b, watchers)
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
