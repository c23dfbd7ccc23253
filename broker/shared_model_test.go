package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// A sharedRun is a random history of one group.
type sharedRun struct {
	t       *testing.T
	rng     *rand.Rand
	copies  *rand.Rand // for what is copied: a stream of its own
	n       *node
	pub     *client
	members map[string]*sharedMember
	sent    int             // events published
	crashed bool            // what was acknowledged may come again
	done    map[string]bool // acknowledged
	log     []string
}

// A sharedMember is a client that comes and goes.
type sharedMember struct {
	*client
	expiry uint32
	acked  int // of its deliveries
	seen   int // of its deliveries, by the checks
}

var sharedPolicies = map[string]*rules{
	"all":     parseRules("allow * #"),
	"not m0":  parseRules("allow * #\ndeny m0 jobs/# subscribe"),
	"not m12": parseRules("allow * #\ndeny m1 jobs/1 subscribe\ndeny m2 jobs/# subscribe"),
	"breaks":  parseRules("allow * #\ndeny m1 jobs/# 12:10-12:20 subscribe\ndeny m3 jobs/# 12:05-12:15 subscribe"),
	"nobody":  parseRules("allow * #\ndeny m0 jobs/# subscribe\ndeny m1 jobs/# subscribe\ndeny m2 jobs/# subscribe\ndeny m3 jobs/# subscribe"),
}

// Whatever members do, and whatever the policy says of them meanwhile: each event
// that is published at QoS 1 while the group has a durable member reaches somebody, and
// nobody after it was acknowledged; nothing waits that somebody who is there could
// have; and all of it follows from the log.
func TestSharedModel(t *testing.T) {
	steps := effort.Rounds(120, 400)
	effort.ParallelSeeds(t, func(t *testing.T, seed uint64) {
		bubble.Test(t, func(t *testing.T) { runShared(t, seed, steps) })
	})
}

func runShared(t *testing.T, seed uint64, steps int) {
	n := newNode(t, Limits{QueueEvents: 1000})
	n.log.mu.Lock()
	n.items = []int{0, 8, 40}[seed%3] // that little, and most is put off
	n.machine.budget.perEntry = n.items
	n.log.mu.Unlock()
	maps.Copy(n.policies, sharedPolicies)
	r := &sharedRun{t: t, rng: rand.New(rand.NewPCG(seed, 1)), copies: rand.New(rand.NewPCG(seed, 2)), n: n, members: map[string]*sharedMember{}, done: map[string]bool{}}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(r.log, "\n"))
		}
	}()
	n.inPieces(int(seed % 2))
	n.smallSegments(1, 6) // whatever is in one is copied
	for i := range 2 {    // have the same events, so that they are bodies
		c, _ := n.connect(fmt.Sprint("too", i), true, 1<<30)
		c.subscribe("jobs/#", 1)
		c.s.Close(false, false, 0)
	}
	keeper, _ := n.connect("keeper", true, 1<<30, receiveMax(1))
	keeper.subscribe(jobs, 1)
	keeper.s.Close(false, false, 0)
	r.pub, _ = n.connect("pub", true, 0)
	n.tick()
	for range steps {
		r.step()
		if r.copies.IntN(3) == 0 {
			r.say("copies")
			must(t, n.copyRound())
		}
		r.check()
		if t.Failed() {
			return
		}
	}
	r.end()
}

func (r *sharedRun) say(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

// step does something.
func (r *sharedRun) step() {
	id := fmt.Sprint("m", r.rng.IntN(4))
	m := r.members[id]
	switch what := r.rng.IntN(20); {
	case what < 7:
		for range 1 + r.rng.IntN(6) {
			if err := r.pub.publish(fmt.Sprint("jobs/", r.rng.IntN(2)), fmt.Sprint(r.sent), 1); err != nil {
				r.t.Fatal(err)
			}
			r.sent++
		}
		r.say("published up to %d", r.sent)
	case what == 7 && r.rng.IntN(6) == 0:
		r.say("crash")
		r.crashed = true
		clear(r.members)
		r.n.crash()
		r.pub, _ = r.n.connect("pub", true, 0)
	case what == 8:
		name := slices.Sorted(maps.Keys(sharedPolicies))[r.rng.IntN(len(sharedPolicies))]
		r.say("policy %s", name)
		r.n.policy(name)
	case what == 9:
		r.say("a minute passes")
		r.n.pass(time.Minute)
	case m == nil || what == 10:
		expiry := uint32(r.rng.IntN(2) * 3600)
		recvMax := []uint16{1, 2, 5, 100}[r.rng.IntN(4)]
		clean := r.rng.IntN(4) == 0
		r.say("%s connects, expiry %d, receive maximum %d, clean %v", id, expiry, recvMax, clean)
		c, _ := r.n.connect(id, clean, expiry, receiveMax(recvMax))
		r.members[id] = &sharedMember{client: c, expiry: expiry}
		c.subscribe(jobs, 1)
	case what == 11:
		r.say("%s goes", id)
		r.look(m)
		m.s.Close(false, false, 0)
		delete(r.members, id)
	case what == 12:
		r.say("%s unsubscribes", id)
		if _, err := m.s.Unsubscribe([]string{jobs}); err != nil {
			r.t.Error(err)
		}
	case what == 13:
		r.say("%s subscribes", id)
		m.subscribe(jobs, 1)
	case what == 14:
		r.say("%s takes nothing", id)
		m.mu.Lock()
		m.full = true
		m.mu.Unlock()
	case what == 15:
		r.say("%s takes again", id)
		m.mu.Lock()
		m.full = false
		m.mu.Unlock()
		var w Wave
		m.s.Drained(&w)
		w.Flush()
	default:
		r.ack(m, 1+r.rng.IntN(10))
	}
	r.n.told()
}

// ack acknowledges some of what a member has got, and was seen to have got: more may
// come while it does.
func (r *sharedRun) ack(m *sharedMember, n int) {
	r.look(m)
	for _, g := range m.awaitGot(0)[m.acked:m.seen] {
		if n--; n < 0 {
			break
		}
		m.acked++
		if err := m.answer(g.id, Acked); err != nil && !errors.Is(err, ErrNoPacketID) {
			r.t.Error(err)
		} else if err == nil {
			r.say("%s acknowledges %s", m.id, g.payload)
			r.done[g.payload] = true
		}
	}
}

// look notes what a member has got.
func (r *sharedRun) look(m *sharedMember) {
	for _, g := range m.awaitGot(0)[m.seen:] {
		m.seen++
		r.say("%s gets %v", m.id, g)
		if r.done[g.payload] && !r.crashed {
			r.t.Errorf("%s gets %s, which was acknowledged", m.id, g.payload)
		}
	}
}

// check looks at what must always hold.
func (r *sharedRun) check() {
	synctest.Wait()
	for _, m := range r.members {
		r.look(m)
	}
	machine := r.n.machine
	checkCopies(r.t, machine)
	for _, g := range machine.groups {
		if !g.waits() {
			continue
		}
		if !slices.ContainsFunc(g.members, func(one *groupMember) bool { return one.r.connected() && machine.isBehind(one.r) }) && slices.ContainsFunc(g.members, func(one *groupMember) bool { return one.r.connected() }) {
			r.t.Errorf("%d copies wait, from %d on, and nobody is behind", g.queue.count, g.passed)
		}
	}
}

// end has all sessions but one end, and looks at what that one gets.
func (r *sharedRun) end() {
	r.say("the end")
	r.n.policy("all")
	heir, _ := r.n.connect("heir", true, 0, receiveMax(50))
	heir.subscribe(jobs, 1)
	for id, m := range r.members {
		r.look(m)
		if m.ended == nil {
			m.s.Close(false, false, 0)
		}
		delete(r.members, id)
	}
	r.n.tick()
	r.n.pass(2 * time.Hour)
	m := &sharedMember{client: heir}
	for idle := 0; idle < 3; {
		before := m.acked
		r.ack(m, 1000)
		r.n.told()
		if idle++; m.acked > before {
			idle = 0
		}
	}
	if r.n.stats.QueueDropped.Load() == 0 { // a crash forgets what was counted
		for i := range r.sent {
			if !r.done[fmt.Sprint(i)] {
				r.t.Errorf("%d was lost", i)
			}
		}
	}
	r.n.quiet()
	r.replay()
}

// replay applies the log to another Machine.
func (r *sharedRun) replay() {
	st, err := store.Open(store.Options{Dir: "twin", FS: disk.Memory(), Newest: uint8(NewestLevel), Logger: slog.New(slog.DiscardHandler), Die: func(r string) { panic(r) }})
	if err != nil {
		r.t.Fatal(err)
	}
	defer st.Close()
	twin, err := newMachine(st, func(name []byte, _ string) (Authorizer, error) {
		if p := r.n.policies[strings.TrimSpace(string(name))]; p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("no policy %q", name)
	}, r.n.Broker.limits, "", slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	twin.segmentBits, twin.survivors = r.n.segmentBits, r.n.survivors
	must(r.t, twin.load())
	twin.budget.perEntry = r.n.items
	r.n.log.mu.Lock()
	defer r.n.log.mu.Unlock()
	checkBodies(r.t, r.n.machine)
	// To load is to read the whole state: of a long history not after each few entries.
	const times = 40
	every := max(7, len(r.n.entries)/times)
	for i, e := range r.n.entries {
		twin.Apply(uint64(i+1), 1, e.stamp, e.batches)
		if i%every == 0 {
			if err := twin.load(); err != nil { // all it knows is in the store
				r.t.Fatal(err)
			}
		}
	}
	want, _ := r.n.machine.store.Digest(nil)
	if got, _ := st.Digest(nil); got != want {
		r.t.Errorf("a replay leads to another state:\n%s", difference(st, r.n.machine.store))
	}
	sameCounts(r.t, "a replay", twin, r.n.machine)
}
