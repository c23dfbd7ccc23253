package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/effort"
	"github.com/bellwire/bellwire/internal/golden"
)

// quotas is a policy that allows everything, with quotas of a.org.
func quotas(q DomainQuota) *rules {
	r := parseRules("allow * #")
	r.quota = map[string]DomainQuota{"a.org": q}
	return r
}

// recount returns what the domain uses, as the Machine has counted and as the store has it.
func (n *node) recount(domain string) (is, want [uses]int64) {
	n.t.Helper()
	n.tick()
	n.log.mu.Lock() // nothing is applied meanwhile
	defer n.log.mu.Unlock()
	m, err := newMachine(n.config.Store, n.config.Compile, n.limits.WithDefaults(), "", slog.New(slog.DiscardHandler), n.profiles...)
	if err != nil {
		n.t.Fatal(err)
	}
	sameCounts(n.t, "counted, and read from the state", n.machine, m)
	return used(n.machine, domain), used(m, domain)
}

// usersOf returns what each principal subscribes to, as a Machine has counted.
func usersOf(m *Machine) map[string]userCount {
	is := map[string]userCount{}
	for name, c := range m.users {
		is[name] = *c
	}
	return is
}

func used(m *Machine, domain string) (is [uses]int64) {
	if c := m.domains.counts[domain]; c != nil {
		for i := range c.used {
			is[i] = c.used[i].Load()
		}
	}
	return is
}

// Whatever clients do, what a domain uses is what the state has of it, and no quota is
// passed: but that what is sent to who takes it at once is. A quota that comes, or is less
// than what there is, ends nothing.
func TestQuotasAreExact(t *testing.T) {
	for seed := range uint64(effort.RoundsOfOne(2, 12, 12)) {
		r := rand.New(rand.NewPCG(seed, 7))
		n := newNode(t, Limits{})
		n.makeStreams(streams{crowd: 2})
		small := DomainQuota{Sessions: 4, Subscriptions: 6, RetainedTopics: 3, QueueBytes: 400, PublishesPerSecond: 1_000_000}
		n.policies["small"], n.policies["none"], n.policies["less"] = quotas(small), quotas(DomainQuota{}), quotas(DomainQuota{Sessions: 1, Subscriptions: 1, RetainedTopics: 1, QueueBytes: 1})
		n.policy("small")
		in := small
		users := usersOf(n.machine)
		var each Limits // of each principal
		clients := map[string]*client{}
		names := []string{"a1@a.org", "a2@a.org", "b1@b.org", "nobody"}
		filters := []string{"x", "y", "#", "+", "$share/g/x", "$share/g/#"}
		before := used(n.machine, "a.org")
		for step := range 150 {
			id := fmt.Sprint("c", r.IntN(8))
			who := names[int(id[1]-'0')%len(names)]
			c := clients[id]
			switch op := r.IntN(12); {
			case c == nil || op == 0:
				var err error
				c, _, err = n.tryConnect(id, r.IntN(3) == 0, []uint32{0, 3600}[r.IntN(2)], func(q *ConnectRequest) { q.Principal = who; q.ReceiveMax = 2 })
				if err != nil && !errors.Is(err, ErrQuota) {
					t.Fatal(err)
				}
				if delete(clients, id); err == nil {
					clients[id] = c
				}
			case op <= 3:
				if err := c.trySubscribe(filters[r.IntN(len(filters))], uint8(r.IntN(3))); err != nil && !errors.Is(err, ErrQuota) {
					t.Fatal(err)
				}
			case op == 4:
				if _, err := c.s.Unsubscribe([]string{filters[r.IntN(len(filters))]}); err != nil {
					t.Fatal(err)
				}
			case op <= 8:
				payload := strings.Repeat("x", r.IntN(80))
				err := c.publish([]string{"x", "y", "z", "v", "w"}[r.IntN(5)], payload, 1, func(e *event.Event) { e.Retain = r.IntN(2) == 0 })
				if err != nil && !errors.Is(err, ErrQuota) {
					t.Fatal(err)
				}
			case op == 9:
				c.ackAll()
			case op == 10 && r.IntN(2) == 0:
				each = Limits{SubscriptionsPerPrincipal: r.IntN(6), WildcardsPerPrincipal: r.IntN(3)}
				if r.IntN(2) == 0 {
					each.Principals = event.Principals(map[string]event.PrincipalBounds{"a1@a.org": {Subscriptions: 2 + r.Uint64N(4)}, "b1@b.org": {Subscriptions: event.Unbounded, Wildcards: 1}})
				}
				must(t, n.SetSettings(t.Context(), each.Settings("")))
			case op == 10:
				c.s.Close(false, false, 0)
				delete(clients, id)
			default:
				policy := []string{"small", "none", "less", "small"}[r.IntN(4)]
				n.policy(policy)
				in = n.policies[policy].quota["a.org"]
				if r.IntN(3) == 0 {
					n.pass(2 * time.Hour)
					for _, id := range slices.Sorted(maps.Keys(clients)) {
						clients[id].s.Close(false, false, 0)
					}
					clear(clients)
				}
			}
			for _, domain := range []string{"a.org", "b.org"} {
				if is, want := n.recount(domain); is != want {
					t.Fatalf("seed %d, step %d: %s uses %v, the state has %v", seed, step, domain, is, want)
				}
			}
			now := usersOf(n.machine)
			for name, c := range now {
				bounds := n.boundsOf(name)
				if most := int(bounds.Subscriptions); most > 0 && c.subs > max(most, users[name].subs) {
					t.Fatalf("seed %d, step %d: %s has %d subscriptions, want %d at most", seed, step, name, c.subs, most)
				}
				if most := int(bounds.Wildcards); most > 0 && c.wildcards > max(most, users[name].wildcards) {
					t.Fatalf("seed %d, step %d: %s has %d with wildcards, want %d at most", seed, step, name, c.wildcards, most)
				}
			}
			users = now
			is := used(n.machine, "a.org")
			for what, most := range []uint64{in.Sessions, in.Subscriptions, in.RetainedTopics} {
				if most > 0 && is[what] > max(int64(most), before[what]) {
					t.Fatalf("seed %d, step %d: %d %s, want %d at most, there were %d", seed, step, is[what], useNames[what], most, before[what])
				}
			}
			before = is
		}
	}
}

// Each quota refuses what would be one too many, says which it was, and nobody else's is
// touched. Who is away loses the event that comes, is told, and has what came before; who
// takes what it is sent loses nothing.
func TestQuotasRefuse(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["small"] = quotas(DomainQuota{Subscriptions: 3, RetainedTopics: 1, QueueBytes: 200, PublishesPerSecond: 3})
	n.policy("small")
	refused := func(what string, err error, says string) {
		t.Helper()
		if !errors.Is(err, ErrQuota) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	away, ann, bob := n.named("away", "away@a.org", 3600), n.named("ann", "ann@a.org", 0), n.named("bob", "bob@b.org", 0)
	away.subscribe("q", 1)
	ann.subscribe("q", 1)
	ann.subscribe("other", 0)
	ann.subscribe("other", 1) // it has it
	refused("one more", ann.trySubscribe("third", 0), "quota: a.org has no room for more subscriptions")
	refused("of a session with a queue", away.trySubscribe("third", 1), "subscriptions")
	must(t, bob.trySubscribe("third", 0))
	if _, err := ann.s.Unsubscribe([]string{"other"}); err != nil {
		t.Fatal(err)
	}
	ann.subscribe("third", 0)

	must(t, ann.publish("r/1", "x", 1, retain))
	must(t, ann.publish("r/1", "y", 1, retain))
	refused("to retain", ann.publish("r/2", "x", 1, retain), "retained topics")
	refused("too fast", ann.publish("s", "x", 0), "rate: a.org may publish 3 events a second")
	must(t, bob.publish("r/1", "z", 1, retain)) // it is his now
	n.pass(time.Second)
	must(t, ann.publish("r/2", "x", 1, retain))
	refused("what was another's", ann.publish("r/1", "x", 1, retain), "retained topics")

	away.s.Close(false, false, 0)
	for i := range 8 {
		must(t, bob.publish("q", fmt.Sprint(i, strings.Repeat("x", 40)), 1))
	}
	if got := ann.awaitGot(8); len(got) < 8 {
		t.Errorf("who is there has %d", len(got))
	}
	ann.ackAll()
	back := n.named("away", "away@a.org", 3600)
	if got := back.awaitGot(1); back.dropped == 0 || !strings.HasPrefix(got[0].payload, "0") || int(back.dropped)+len(got) != 8 {
		t.Errorf("who was away has %d, and is told of %d that are lost", len(got), back.dropped)
	}
	if u := n.UseOf("a.org"); u.QueueBytes.Refused != back.dropped || u.Subscriptions.Refused != 2 || u.RetainedTopics.Refused != 2 || u.Publishes.Refused != 1 {
		t.Errorf("counted %+v, told of %d", u, back.dropped)
	}
	if u := n.UseOf("b.org"); u.Sessions.Used != 1 || u.RetainedTopics.Used != 1 || u.Subscriptions.Used != 0 {
		t.Errorf("b.org uses %+v", u)
	}
}

// A quota that nobody has costs a publication nothing that is allocated; nor does one that
// lets it through.
func TestPaceAllocatesNothing(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["fast"] = quotas(DomainQuota{PublishesPerSecond: 1_000_000})
	n.policy("fast")
	s := n.connectNowhere("p", 0, &nowhere{})
	start(s)
	s.who.Principal = "ann@a.org"
	e := &event.Event{Topic: "t", Payload: make([]byte, 64)}
	var w Wave
	publish := func() {
		if _, err := s.Publish(e, 0, nil, 0, &w); err != nil {
			t.Error(err)
		}
		w.Flush()
	}
	publish()
	if s.pace == nil {
		t.Fatal("nothing bounds it")
	}
	if n := testing.AllocsPerRun(100, publish); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPace(b *testing.B) {
	var paces domainPaces
	p := paces.of("a.org", 1_000_000)
	now := int64(1)
	for b.Loop() {
		now += 1000
		if err := p.take(now); err != nil {
			b.Fatal(err)
		}
	}
}

// What is kept for quotas is written as it always was.
func TestQuotaForms(t *testing.T) {
	ev := &event.Event{Topic: "plant/1", Payload: []byte("21.5"), QoS: 1, Retain: true, At: 1_772_000_000_123_456_789}
	golden.Forms(t, "quota.txt", []golden.Form{
		{Name: "retained/of/4", Bytes: ev.Append(appendRetained(nil, event.PositionAt(7, 3), "example.com"))},
		{Name: "retained/nobody/4", Bytes: ev.Append(appendRetained(nil, event.PositionAt(7, 3), ofNobody))},
		{Name: "asked/loose/4", Bytes: looseValue},
		{Name: "provided/4", Bytes: append(providedKey("bob@example.com", "presence/example.com/eve"), recordVersion)},
		{Name: "watched/4", Bytes: binary.AppendUvarint(watchedKey("example.com"), 300)},
		{Name: "watched/from/4", Bytes: binary.AppendUvarint(watchedFromKey("example.com", "example.net"), 300)},
	})
	var e event.Event
	b := ev.Append(appendRetained(nil, event.PositionAt(7, 3), "example.com"))
	if err := decodeRetained(b, &e); err != nil || e.Topic != "plant/1" || e.Position != event.PositionAt(7, 3) || retainedBy(b) != "example.com" {
		t.Errorf("read as %+v of %s, %v", e, retainedBy(b), err)
	}
	for n := range len(b) - 1 {
		if n < 24 && decodeRetained(b[:n], &e) == nil {
			t.Errorf("cut to %d bytes it is read", n)
		}
	}
}

// A principal may have bounds of its own, wider or narrower than everybody's, for each of which
// none means everybody's; they change by command, are known after a start, and end nothing.
func TestPrincipalsHaveBounds(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["all"] = parseRules("allow * #")
	n.policy("all")
	set := func(of map[string]event.PrincipalBounds) {
		t.Helper()
		l := Limits{SessionsPerPrincipal: 2, SubscriptionsPerPrincipal: 3, SubscriptionsPerSession: 4, Principals: event.Principals(of)}
		must(t, n.SetSettings(t.Context(), l.Settings("")))
	}
	opens := func(id, who string) (*client, error) {
		c, _, err := n.tryConnect(id, true, []uint32{3600, 0}[len(id)%2], func(q *ConnectRequest) { q.Principal = who })
		return c, err
	}
	subscribes := func(c *client, most int) {
		t.Helper()
		for i := range most {
			must(t, c.trySubscribe(fmt.Sprint("f", i), 1))
		}
		if err := c.trySubscribe("more", 1); !errors.Is(err, ErrQuota) {
			t.Errorf("%s: one more than %d: %v", c.s.who.Principal, most, err)
		}
	}
	set(map[string]event.PrincipalBounds{
		"ops@a.org":  {Sessions: event.Unbounded, Subscriptions: event.Unbounded, SubscriptionsPerSession: 6},
		"eve@a.org":  {Sessions: 1, Subscriptions: 1},
		"part@a.org": {Sessions: 3},
	})
	for who, sessions := range map[string]int{"eve@a.org": 1, "bob@a.org": 2, "part@a.org": 3} {
		for i := range sessions {
			if _, err := opens(fmt.Sprint(who, i), who); err != nil {
				t.Errorf("session %d of %s: %v", i, who, err)
			}
		}
		if _, err := opens(who+" more", who); !errors.Is(err, ErrQuota) {
			t.Errorf("%s has more than %d sessions: %v", who, sessions, err)
		}
	}
	for i := range 5 { // with a queue and without
		c, err := opens(fmt.Sprint("ops", strings.Repeat("s", i)), "ops@a.org")
		must(t, err)
		subscribes(c, 6)
	}
	bob, err := opens("bob@a.org0", "bob@a.org")
	must(t, err)
	subscribes(bob, 3)
	eve, err := opens("eve@a.org0", "eve@a.org")
	must(t, err)
	subscribes(eve, 1)
	n.restart()
	if got := n.boundsOf("eve@a.org"); got.Sessions != 1 || got.Subscriptions != 1 || got.Wildcards != 0 || got.SubscriptionsPerSession != 4 {
		t.Errorf("after a start eve has %+v", got)
	}
	if is, want := n.recount("a.org"); is != want {
		t.Errorf("%v is used, the state has %v", is, want)
	}
	set(nil)
	eve, err = opens("eve@a.org1", "eve@a.org")
	must(t, err)
	must(t, eve.trySubscribe("two", 1))
	bad := Limits{}.Settings("")
	bad.Principals = "x"
	if err := n.SetSettings(t.Context(), bad); !errors.Is(err, ErrRefused) {
		t.Errorf("what cannot be read: %v", err)
	}
}

// What a session is refused it does not remember, however often its client asks: only what the
// log counts of it.
func TestRefusedFiltersAreForgotten(t *testing.T) {
	n := newNode(t, Limits{SubscriptionsPerPrincipal: 2})
	c, _ := n.connect("c", true, 0)
	for i := range 100 {
		if err := c.trySubscribe(fmt.Sprint("f/", i), 0); (err == nil) != (i < 2) {
			t.Fatalf("filter %d: %v", i, err)
		}
	}
	if len(c.s.told) != 2 {
		t.Errorf("%d filters are remembered, want 2", len(c.s.told))
	}
	if existed, err := c.s.Unsubscribe([]string{"f/0"}); err != nil || !existed[0] {
		t.Fatal(existed, err)
	}
	must(t, c.trySubscribe("f/99", 0))
}
