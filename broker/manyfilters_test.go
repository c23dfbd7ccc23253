package broker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

func manyFilters(n int) (subs []event.Subscription, names []string) {
	for i := range n {
		names = append(names, fmt.Sprint("f/", i))
		subs = append(subs, event.Subscription{Filter: names[i], QoS: 1})
	}
	return subs, names
}

// subscribeMany subscribes to all of subs by one packet, which is answered once.
func (c *client) subscribeMany(subs []event.Subscription) (results []SubResult) {
	c.n.t.Helper()
	answers := 0
	c.s.Subscribe(subs, func(r []SubResult, _ *Wave) { results, answers = slices.Clone(r), answers+1 })
	if answers != 1 || len(results) != len(subs) {
		c.n.t.Errorf("%d answers, the last with %d results for %d filters", answers, len(results), len(subs))
	}
	return results
}

// filtersOf returns how many filters each command of the log named since entry from.
func (n *node) filtersOf(from int) (all []int) {
	n.t.Helper()
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	for _, e := range n.entries[from:] {
		batch, err := event.ReadBatch(e.batches[0])
		must(n.t, err)
		for kind, body, ok := batch.Next(); ok; kind, body, ok = batch.Next() {
			switch kind {
			case event.KindSubscribe:
				var c event.Subscribe
				must(n.t, new(event.Decoder).Decode(&c, body))
				all = append(all, len(c.Subs))
			case event.KindUnsubscribe:
				var c event.Unsubscribe
				must(n.t, new(event.Decoder).Decode(&c, body))
				all = append(all, len(c.Filters))
			}
		}
	}
	return all
}

// A SUBSCRIBE or UNSUBSCRIBE of very many filters is put in force in pieces, each in an entry
// of its own; its answer has a result for each in order, when all is in force.
func TestManyFiltersInPieces(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		const many, refused = 2*filtersAtOnce + 10, filtersAtOnce + 7
		subs, names := manyFilters(many)
		subs[refused].Filter = "presence/x"
		subs[many-1] = event.Subscription{Filter: names[0], QoS: 0} // again: the last counts
		names[refused], names[many-1] = "nothing", names[0]
		c, _ := n.connect("c", true, expiry)
		before := n.logged()
		for i, r := range c.subscribeMany(subs) {
			if (r.Err != nil) != (i == refused) {
				t.Fatalf("expiry %d, filter %d: %v", expiry, i, r.Err)
			}
		}
		pub, _ := n.connect("pub", true, 0)
		want := []string{"f/0=x q0"}
		must(t, pub.publish("f/0", "x", 1))
		for _, i := range []int{1, filtersAtOnce, many - 2} {
			must(t, pub.publish(names[i], "x", 1))
			want = append(want, fmt.Sprintf("f/%d=x q1", i))
		}
		c.want(want...)
		existed, err := c.s.Unsubscribe(names)
		must(t, err)
		for i, was := range existed {
			if was != (i != refused && i != many-1) {
				t.Fatalf("expiry %d, filter %d: existed: %v", expiry, i, was)
			}
		}
		must(t, pub.publish("f/1", "gone", 1))
		c.want(want...)
		pieces := []int(nil)
		if expiry > 0 {
			pieces = []int{filtersAtOnce, filtersAtOnce - 1, 10, filtersAtOnce, filtersAtOnce, 10}
		}
		if got := n.filtersOf(before); !slices.Equal(got, pieces) {
			t.Errorf("expiry %d: commands of %v filters, want %v", expiry, got, pieces)
		}
	}
}

// What refuses a piece refuses all behind it, and what was told as granted is in force.
func TestManyFiltersMeetABound(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{SubscriptionsPerSession: filtersAtOnce + 1})
		subs, _ := manyFilters(3 * filtersAtOnce)
		c, _ := n.connect("c", true, expiry)
		for i, r := range c.subscribeMany(subs) {
			if granted := i < filtersAtOnce; granted != (r.Err == nil) || !granted && !errors.Is(r.Err, ErrQuota) {
				t.Fatalf("expiry %d, filter %d: %v", expiry, i, r.Err)
			}
		}
		must(t, c.trySubscribe("one more", 1))
		pub, _ := n.connect("pub", true, 0)
		must(t, pub.publish(subs[filtersAtOnce-1].Filter, "in force", 1))
		must(t, pub.publish(subs[filtersAtOnce].Filter, "not", 1))
		c.want(fmt.Sprintf("f/%d=in force q1", filtersAtOnce-1))
	}
}

// Whoever takes over a session, or kills its node, while a packet of very many filters is
// under way finds pieces of it, from the front, and all that was told as done.
func TestManyFiltersInterrupted(t *testing.T) {
	n := newNode(t, Limits{})
	subs, names := manyFilters(5 * filtersAtOnce)
	in := func() (count int) {
		n.tick()
		session := n.machine.sessions["c"].session
		for ; count < len(names); count++ {
			if _, is := n.machine.durable.Value(names[count], session); !is {
				break
			}
		}
		if got := int(n.machine.sessions["c"].subs); got != count && got != len(names)-count {
			t.Errorf("%d filters are there, and %d at the front", got, count)
		}
		return count
	}
	takeOver := func(entries int) (over func()) { // when there are so many more
		var taken sync.WaitGroup
		grown := n.log.grows(entries)
		taken.Go(func() { <-grown; n.connect("c", false, 3600) })
		return taken.Wait
	}
	for round := range 2 {
		c, _ := n.connect("c", true, 3600)
		taken := takeOver(round + 1)
		granted := 0
		for _, r := range c.subscribeMany(subs) {
			if r.Err == nil {
				granted++
			} else if !errors.Is(r.Err, ErrStale) {
				t.Errorf("round %d: %v", round, r.Err)
			}
		}
		taken()
		if got := in(); got < granted || got%filtersAtOnce != 0 {
			t.Errorf("round %d: %d filters are in force, %d were granted", round, got, granted)
		}
		n.crash()
		if got := in(); got < granted || got%filtersAtOnce != 0 {
			t.Errorf("round %d, replayed: %d filters are in force, %d were granted", round, got, granted)
		}
	}
	c, _ := n.connect("c", true, 3600)
	c.subscribeMany(subs)
	taken := takeOver(2)
	existed, err := c.s.Unsubscribe(names)
	taken()
	left := 0
	for _, name := range names {
		if _, is := n.machine.durable.Value(name, n.machine.sessions["c"].session); is {
			left++
		}
	}
	if gone := len(names) - left; gone < len(existed) || gone%filtersAtOnce != 0 || (err == nil) != (len(existed) == len(names)) || slices.Contains(existed, false) {
		t.Errorf("%d filters are gone, %d are told: %v", gone, len(existed), err)
	}
}

// Of commands that name many filters few are ordered together.
func TestFiltersAreWeighed(t *testing.T) {
	m := bareNode(t, Limits{})
	t.Cleanup(m.Broker.Close)
	subs, names := manyFilters(filtersAtOnce)
	for _, c := range []event.Command{&event.Subscribe{Subs: subs}, &event.Request{Subs: subs}, &event.Unsubscribe{Filters: names}} {
		if got := m.machine.weigh(c); got != filterWeight*filtersAtOnce {
			t.Errorf("%T of %d filters weighs %d", c, filtersAtOnce, got)
		}
	}
}

// BenchmarkManyFilters is how long another client waits at worst for the acknowledgement of
// an event while one does something with very many filters.
func BenchmarkManyFilters(b *testing.B) {
	for _, many := range []int{25_000, 100_000} {
		for _, expiry := range []uint32{0, 3600} {
			benchmarkManyFilters(b, many, expiry)
		}
	}
}

func benchmarkManyFilters(b *testing.B, many int, expiry uint32) {
	subs, names := manyFilters(many)
	n := newNode(b, Limits{SubscriptionsPerSession: many})
	pub, _ := n.connect("pub", true, 0)
	var c *client
	begin := func() { c, _ = n.connect("c", true, expiry); c.subscribeMany(subs) }
	away := func() { begin(); c.s.Close(false, false, 0); n.tick() }
	for _, x := range []struct {
		what        string
		before, act func()
	}{
		{"subscribe", func() { c, _ = n.connect("c", true, expiry) }, func() { c.subscribeMany(subs) }},
		{"again", func() {}, func() { c.subscribeMany(subs) }},
		{"unsubscribe", func() { c.subscribeMany(subs) }, func() { _, err := c.s.Unsubscribe(names); must(b, err) }},
		{"resume", away, func() { c, _ = n.connect("c", false, expiry) }},
		{"take over", begin, func() { c, _ = n.connect("c", false, expiry) }},
		{"close", begin, func() { c.s.Close(false, false, 0); n.tick() }},
		{"clean start", begin, func() { c, _ = n.connect("c", true, expiry) }},
		{"clean start of one away", away, func() { c, _ = n.connect("c", true, expiry) }},
	} {
		b.Run(fmt.Sprintf("filters=%d/expiry=%d/%s", many, expiry, x.what), func(b *testing.B) {
			var worst time.Duration
			for b.Loop() {
				b.StopTimer()
				x.before()
				b.StartTimer()
				worst = max(worst, worstWait(b, pub, x.act))
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
		})
	}
}

// worstWait returns the longest time in which an event of pub was acknowledged, of one at a
// time, while act did something.
func worstWait(b *testing.B, pub *client, act func()) (worst time.Duration) {
	over, done := make(chan struct{}), make(chan struct{})
	must(b, pub.publish("other", "x", 1))
	go func() {
		defer close(done)
		for {
			began := time.Now()
			if err := pub.publish("other", "x", 1); err != nil {
				b.Error(err)
				return
			}
			worst = max(worst, time.Since(began))
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	act()
	close(over)
	<-done
	return worst
}

// A session of very many filters ends at once, however it ends: nothing is queued for it any
// more, what it used is given back, and its client begins anew without subscriptions. Its
// own are taken off a piece with each entry, on all nodes alike, also on one that begins
// meanwhile.
func TestManyFiltersEndInPieces(t *testing.T) {
	const many = 3*filtersAtOnce + 10
	subs, names := manyFilters(many)
	subs[2*filtersAtOnce].Filter = "g/+"
	for name, end := range map[string]func(*driver, *opened){
		"expired": func(d *driver, o *opened) {
			d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
			d.now += 61e9
			d.entry(&event.Tick{})
		},
		"closed for good": func(d *driver, o *opened) {
			d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch, SetExpiry: true})
		},
		"kicked":      func(d *driver, _ *opened) { d.entry(&event.Kick{Client: "c", Drop: true}) },
		"clean start": func(*driver, *opened) {},
	} {
		t.Run(name, func(t *testing.T) {
			fs := disk.Memory()
			u, twin := openMachine(t, fs, "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n2")
			d := drive(t, u, twin)
			d.entry(&event.Raise{Level: uint8(NewestLevel)})
			s := Limits{}.Settings("")
			d.entry(&s)
			const principal = "bob@b"
			keeper := d.member("keeper", 3600, 10, names[1])
			o := d.connect(event.Connect{Client: "c", Principal: principal, Expiry: 60, ReceiveMax: 10})
			for piece := range slices.Chunk(subs, filtersAtOnce) {
				d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: piece})
			}
			d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "$share/g/" + names[1], QoS: 1}}})
			d.entry(publishing(names[1], "before", 1), publishing(names[many-1], "before", 1)) // and the lists of who has them are kept
			if got := u.domains.use("b").Subscriptions.Used; got != many+1 {
				t.Fatalf("the domain uses %d subscriptions, want %d", got, many+1)
			}
			end(d, o)
			d.entry(&event.Tick{}) // and its queue is purged
			d.entry(publishing(names[many-1], "between", 1))
			if keys := keysOf(u.store, store.Queue); u.sessions["c"] == nil && len(keys) != 1 {
				t.Errorf("there are %d entries in queues, want the one of who is there: %q", len(keys), keys)
			}
			next := d.connect(event.Connect{Client: "c", Principal: principal, Clean: true, Expiry: 60, ReceiveMax: 10})
			d.entry(&event.Subscribe{Session: next.session, Epoch: next.epoch, Subs: []event.Subscription{{Filter: names[1], QoS: 1}, {Filter: "f/+", QoS: 1}}})
			if next.present || next.session == o.session || len(next.subs) > 0 {
				t.Fatalf("what begins anew is %+v", next)
			}
			if got := u.domains.use("b").Subscriptions.Used; got != 2 {
				t.Errorf("the domain uses %d subscriptions, want the 2 of the new session", got)
			}
			if got := *u.users[principal]; got != (userCount{2, 1}) {
				t.Errorf("%s has %+v, want 2 and 1", principal, got)
			}
			if u.awaiting.subscriptions.Load() != 0 || len(u.groups) != 0 {
				t.Errorf("%d subscriptions are away, there are %d groups", u.awaiting.subscriptions.Load(), len(u.groups))
			}
			before := u.orphans()
			if before < many-3*filtersAtOnce {
				t.Fatalf("%d subscriptions are left at once", before)
			}
			for n := 0; d.isDue(); n++ {
				d.entry(publishing(names[1], fmt.Sprint(n), 1), publishing(names[many-1], fmt.Sprint(n), 1))
				left := u.orphans()
				if took := before - left; took > filtersAtOnce {
					t.Errorf("an entry took %d off", took)
				}
				before = left
				switch n {
				case 0:
					must(t, twin.load())
				case 1:
					d.machines = append(d.machines, copyOf(t, u, fs))
				}
				for _, other := range d.machines[1:] {
					sameCounts(t, "meanwhile", other.Machine, u.Machine)
				}
			}
			if n := u.orphans(); n != 0 || u.durable.Len() != 3 {
				t.Errorf("%d orphans are left, the index has %d subscriptions, want 3", n, u.durable.Len())
			}
			for _, key := range keysOf(u.store, store.Queue) {
				if session := store.Uint64At([]byte(key), 0); session != keeper.session && session != next.session {
					t.Errorf("there is an entry of session %d", session)
				}
			}
			if mine, kept := u.sessions["c"].queue.count, u.sessions["keeper"].queue.count; mine < 4 || mine%2 != 0 || kept != 1+mine/2 {
				t.Errorf("the new session has %d events queued, the other %d", mine, kept)
			}
		})
	}
}

// What a connection with very many filters leaves behind goes in pieces, and until it has
// gone nothing is delivered to it, nor does it get into the way of the next of its client.
func TestManyFiltersLeaveInPieces(t *testing.T) {
	subs, names := manyFilters(3*filtersAtOnce + 10)
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		pub, _ := n.connect("pub", true, 0)
		c, _ := n.connect("c", true, expiry)
		c.subscribeMany(subs)
		must(t, pub.publish(names[1], "there", 1))
		c.want(names[1] + "=there q1")
		c.ackAll()
		n.leaving(false)
		c.s.Close(false, false, 0)
		n.tick()
		if left := n.local.Len(); left <= filtersAtOnce || left >= len(subs) {
			t.Fatalf("expiry %d: %d filters are left in the index of %d", expiry, left, len(subs))
		}
		want := []string(nil)
		for i := 0; i < len(names); i += 100 {
			name := names[i]
			must(t, pub.publish(name, "away", 1))
			if expiry > 0 {
				want = append(want, name+"=away q1")
			}
		}
		c.want(names[1] + "=there q1")
		var next *client
		var present bool
		if expiry == 0 {
			next, present = n.connect("c", false, expiry)
			next.subscribeMany(subs[:2])
		}
		back := n.comesBack(expiry > 0, func() { next, present = n.connect("c", false, expiry) })
		must(t, pub.publish(names[1], "back", 1))
		want = append(want, names[1]+"=back q1")
		if expiry == 0 {
			next.want(want...)
		}
		n.leaving(true)
		back()
		if present != (expiry > 0) {
			t.Fatalf("expiry %d: present: %v", expiry, present)
		}
		next.want(want...)
		there := len(subs)
		if expiry == 0 {
			there = 2
		}
		if got := n.local.Len(); got != there || n.stats.Subscriptions.Load() != int64(there) {
			t.Errorf("expiry %d: %d filters are in the index, and %d counted, want %d", expiry, got, n.stats.Subscriptions.Load(), there)
		}
		must(t, pub.publish(names[1], "after", 1))
		next.want(append(want, names[1]+"=after q1")...)
		c.want(names[1] + "=there q1")
	}
}

// comesBack has connect bring a session back to a node where a former connection of it has
// not left, and returns once the delivery loop waits for that. over waits for connect.
func (n *node) comesBack(does bool, connect func()) (over func()) {
	n.t.Helper()
	var waits sync.WaitGroup
	if !does {
		return waits.Wait
	}
	before := n.epochs()
	waits.Go(connect)
	for n.epochs() == before {
		runtime.Gosched()
	}
	return waits.Wait
}

// epochs returns the latest epoch of a session that is coming back, 0 for none.
func (n *node) epochs() (latest uint64) {
	if !n.loop.call(func(*Wave) {
		for _, s := range n.loop.live {
			if s.returning != nil {
				latest = max(latest, s.epoch)
			}
		}
	}) {
		n.t.Fatal("the loop is over")
	}
	return latest
}

// A session of very many filters that comes back has all of them before its client is
// answered, and no other: not what has ended meanwhile, whether the store or the loop knows
// first. Who is taken over while it comes back finds its connection over.
func TestManyFiltersComeBackInPieces(t *testing.T) {
	n := newNode(t, Limits{})
	subs, names := manyFilters(2*filtersAtOnce + 10)
	const byLog, byLoop, shared = 5, filtersAtOnce + 6, 7
	subs[shared].Filter = "$share/g/" + names[shared]
	pub, _ := n.connect("pub", true, 0)
	c, _ := n.connect("c", true, 3600)
	c.subscribeMany(subs)
	n.leaving(false)
	c.s.Close(false, false, 0)
	n.tick()
	var first, second *client
	var present bool
	over := n.comesBack(true, func() { first, _ = n.connect("c", false, 3600) })
	overToo := n.comesBack(true, func() { second, present = n.connect("c", false, 3600) })
	var s *Session
	if !n.loop.call(func(*Wave) { s = n.loop.live[c.s.number] }) {
		t.Fatal("the loop is over")
	}
	must(t, n.do(context.Background(), &event.Unsubscribe{Session: s.number, Epoch: s.epoch, Filters: []string{names[byLog]}}))
	n.loop.call(func(w *Wave) { s.subEnded(names[byLoop], n.now(), w) })
	n.leaving(true)
	over()
	overToo()
	if !first.s.closed.Load() || second.s.closed.Load() || !present {
		t.Errorf("the first is closed: %v, the second: %v, which was present: %v", first.s.closed.Load(), second.s.closed.Load(), present)
	}
	want := []string(nil)
	for i := range names {
		if i < 10 || i%filtersAtOnce < 10 {
			must(t, pub.publish(names[i], "x", 1))
			if i != byLog && i != byLoop {
				want = append(want, names[i]+"=x q1")
			}
		}
	}
	second.want(want...)
	n.leaving(true) // what the first had
	if got := n.local.Len(); got != len(subs)-2 {
		t.Errorf("%d filters are in the index, want %d", got, len(subs)-2)
	}
}

// leaving has what leaves the delivery loop's index go on, until all has, or stop.
func (n *node) leaving(on bool) {
	n.t.Helper()
	for gone := false; !gone; {
		if !n.loop.call(func(*Wave) {
			v := &n.loop.leaving
			if gone = !on || len(v.sessions) == 0; !on {
				v.always = nil
			} else if v.always == nil {
				v.init()
			}
		}) {
			n.t.Fatal("the loop is over")
		}
	}
}

// A session of few filters comes back in pieces, too, where a former connection of it has left
// very many behind: others have ended since.
func TestFewFiltersComeBackAfterMany(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["ending"] = parseRules("allow * # publish\nallow * free\nallow * f/# 08:00-17:00 outside=end")
	n.policy("ending")
	subs, _ := manyFilters(3 * filtersAtOnce)
	subs = append(subs, event.Subscription{Filter: "free", QoS: 1}, event.Subscription{Filter: "$share/g/free", QoS: 1})
	pub, _ := n.connect("pub", true, 0)
	c, _ := n.connect("c", true, 1<<20)
	c.subscribeMany(subs)
	n.leaving(false)
	c.s.Close(false, false, 0)
	n.tick()
	n.pass(6 * time.Hour)
	if got := n.machine.sessions["c"].subs; got != 2 {
		t.Fatalf("the session has %d filters", got)
	}
	must(t, pub.publish("free", "away", 1))
	if got := n.local.Len(); got <= filtersAtOnce {
		t.Fatalf("%d filters are left in the index", got)
	}
	var next *client
	over := n.comesBack(true, func() { next, _ = n.connect("c", false, 1<<20) })
	n.leaving(true)
	over()
	must(t, pub.publish("free", "back", 1))
	must(t, pub.publish("f/1", "nothing", 1))
	next.want("free=away q1", "free=away q1", "free=back q1", "free=back q1")
	if got := n.local.Len(); got != 2 {
		t.Errorf("%d filters are in the index, want 2", got)
	}
}
