package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// banWords lists the bans of a node, in words.
func (n *node) banWords() (words []string) {
	for _, b := range n.Bans() {
		words = append(words, nameOfBan(&b.Ban).String())
	}
	return words
}

// A ban is of whoever all that it names matches, and nobody else; who is not known is
// kept out by no ban that names a user.
func TestBansMatchAllTheyName(t *testing.T) {
	n := newNode(t, Limits{})
	for _, b := range []event.Ban{
		{Client: "c1"},
		{User: "eve@x.org"},
		{Client: "c2", User: "bob@x.org"},
		{Network: "192.0.2.0/24"},
		{Network: "2001:db8:1::/48"},
		{User: "ann@x.org", Network: "198.51.100.7/32"},
		{Client: "c3", Network: "10.0.0.0/8"},
	} {
		must(t, n.Ban(context.Background(), b))
	}
	for _, c := range []struct {
		client, user, addr string
		want               bool
	}{
		{"c1", "", "", true},
		{"c1", "bob@x.org", "203.0.113.1", true},
		{"c10", "bob@x.org", "203.0.113.1", false},
		{"x", "eve@x.org", "", true},
		{"x", "", "", false}, // eve has not said who she is
		{"c2", "bob@x.org", "", true},
		{"c2", "ann@x.org", "", false},
		{"c2", "", "", false},
		{"x", "bob@x.org", "", false},
		{"x", "", "192.0.2.255", true},
		{"x", "", "::ffff:192.0.2.1", true},
		{"x", "", "192.0.3.0", false},
		{"x", "", "2001:db8:1:ffff::1", true},
		{"x", "", "2001:db8:2::1", false},
		{"x", "ann@x.org", "198.51.100.7", true},
		{"x", "ann@x.org", "198.51.100.8", false},
		{"x", "cy@x.org", "198.51.100.7", false},
		{"c3", "", "10.9.9.9", true},
		{"c3", "", "11.9.9.9", false},
		{"", "", "", false},
	} {
		addr, _ := netip.ParseAddr(c.addr)
		if got := n.Banned(c.client, c.user, addr); got != c.want {
			t.Errorf("client %q of %q at %q: banned %t, want %t", c.client, c.user, c.addr, got, c.want)
		}
	}
}

// A ban ends when its time is over, by the log as by the clock, and when it is taken back;
// one of the same names takes its place; all that, too, after a restart. Memory returns.
func TestBansEnd(t *testing.T) {
	n := newNode(t, Limits{})
	ctx := context.Background()
	in := func(d time.Duration) int64 { return n.clock.now().Add(d).UnixNano() }
	nobody := netip.Addr{}
	must(t, n.Ban(ctx, event.Ban{Client: "short", Until: in(time.Minute)}))
	must(t, n.Ban(ctx, event.Ban{Client: "longer", Until: in(time.Minute)}))
	must(t, n.Ban(ctx, event.Ban{Client: "longer", Until: in(2 * time.Minute), Reason: "again"}))
	must(t, n.Ban(ctx, event.Ban{Client: "good", Network: "10.0.0.0/8"}))
	n.restart()
	if got, want := n.banWords(), []string{"client good address 10.0.0.0/8", "client longer", "client short"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	n.clock.advance(time.Minute)
	if n.Banned("short", "", nobody) || !n.Banned("longer", "", nobody) {
		t.Error("by the clock the first ban is over, and the second is not")
	}
	n.catchUp()
	if all, _ := n.BanCount(); all != 2 {
		t.Errorf("%d are left in memory, want 2", all)
	}
	for _, c := range []struct {
		c    event.Unban
		want error
	}{{event.Unban{Client: "good"}, ErrNoBan}, {event.Unban{Client: "short"}, ErrNoBan}, {event.Unban{Client: "good", Network: "10.0.0.0/8"}, nil}} {
		if err := n.Unban(ctx, c.c); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.c, err, c.want)
		}
	}
	n.pass(time.Minute)
	n.restart()
	if all, auto := n.BanCount(); all != 0 || auto != 0 || n.machine.bans.any.Load() || len(n.machine.bans.bits) != 0 {
		t.Errorf("%d bans are left, %d automatic, lengths %v", all, auto, n.machine.bans.bits)
	}
	n.config.Store.Scan(wakesFrom(0), store.End(wakesFrom(0)[:1]), func(key, _ []byte) bool {
		if key[9] == wakeBan {
			t.Errorf("a wake is left: %q", key)
		}
		return true
	})
}

// What names nobody, or is no ban, is refused, and so is one too many: of nodes' own bans
// half, so that there is room for an administrator's, which theirs never replace. Bans are in the audit, nodes' own ones are not.
func TestBansAreBounded(t *testing.T) {
	n := newNode(t, Limits{})
	ctx := context.Background()
	for _, b := range []event.Ban{
		{},
		{Reason: "x"},
		{Network: "192.0.2.1"},
		{Network: "192.0.2.1/24"},
		{Network: "x"},
		{Client: "a\x00b"},
		{Client: strings.Repeat("c", mostBanned+1)},
		{Client: "c", Reason: strings.Repeat("r", mostBanReason+1)},
		{Client: "c", Until: 1},
		{User: "\xff"},
	} {
		if err := n.Ban(ctx, b); !errors.Is(err, ErrPayload) {
			t.Errorf("%.60q: %v, want it refused", fmt.Sprint(b), err)
		}
	}
	before, _, _ := n.Audited(AuditQuery{Most: 100})
	var all []event.Command
	for i := range MostAutoBans {
		all = append(all, &event.Ban{Client: fmt.Sprint("auto", i), Auto: true})
	}
	n.together(all...)
	if err := n.Ban(ctx, event.Ban{Client: "one more", Auto: true}); !errors.Is(err, ErrQuota) {
		t.Errorf("one ban of a node's own more: %v", err)
	}
	must(t, n.Ban(ctx, event.Ban{Client: "auto7", By: "cy@x.org", Door: "http", Reason: "asked for"}))
	must(t, n.Ban(ctx, event.Ban{Client: "auto7", Auto: true, Until: n.now() + 1e9})) // changes nothing
	if got := n.machine.bans.byName[banName{client: "auto7"}]; got.Auto || got.Until != 0 || got.Reason != "asked for" {
		t.Errorf("an administrator's ban was replaced: %+v", got.Ban)
	}
	all = all[:0]
	for i := range MostBans - MostAutoBans {
		all = append(all, &event.Ban{Client: fmt.Sprint("c", i)})
	}
	n.together(all...)
	if err := n.Ban(ctx, event.Ban{Client: "one more"}); !errors.Is(err, ErrQuota) {
		t.Errorf("one ban more: %v", err)
	}
	must(t, n.Unban(ctx, event.Unban{Client: "c0", By: "cy@x.org", Door: "http"}))
	must(t, n.Ban(ctx, event.Ban{Client: "one more"}))
	if n.Banned("other", "", netip.Addr{}) || !n.Banned("one more", "", netip.Addr{}) {
		t.Error("who is banned is not who was meant")
	}
	entries, _, _ := n.Audited(AuditQuery{Most: AuditKept})
	if len(entries) != len(before)+MostBans-MostAutoBans+4 {
		t.Errorf("the audit has grown from %d to %d", len(before), len(entries))
	}
	for _, e := range entries[:1] {
		if e.What != "ban client one more" || e.Result != "done" {
			t.Errorf("the audit says %+v", e)
		}
	}
}

// Who is kicked is told, and its will is published; a session that is kept goes on with what
// it was owed, and with drop it is gone, connected or not.
func TestKick(t *testing.T) {
	n := newNode(t, Limits{})
	ctx := context.Background()
	watcher, _ := n.connect("watcher", true, 0)
	watcher.subscribe("will/#", 1)
	leaves := func(id string) func(*ConnectRequest) {
		return will(event.Will{Topic: "will/" + id, Payload: []byte("gone"), QoS: 1})
	}
	kept, _ := n.connect("kept", false, 3600, leaves("kept"))
	kept.subscribe("t", 1)
	must(t, n.EndClient(ctx, event.Kick{Client: "kept"}))
	if cause := kept.awaitEnd(); !errors.Is(cause, ErrKicked) {
		t.Errorf("it ended for %v", cause)
	}
	must(t, watcher.publish("t", "meanwhile", 1))
	if err := n.EndClient(ctx, event.Kick{Client: "kept"}); !errors.Is(err, ErrNoClient) {
		t.Errorf("kicked again: %v", err)
	}
	n.restart()
	again, present := n.connect("kept", false, 3600)
	if !present {
		t.Error("the session is gone")
	}
	again.want("t=meanwhile q1")
	must(t, n.EndClient(ctx, event.Kick{Client: "kept", Drop: true}))
	if cause := again.awaitEnd(); !errors.Is(cause, ErrKicked) {
		t.Errorf("dropped: it ended for %v", cause)
	}
	if err := n.EndClient(ctx, event.Kick{Client: "kept", Drop: true}); !errors.Is(err, ErrNoClient) {
		t.Errorf("dropped again: %v", err)
	}
	away, _ := n.connect("away", false, 3600)
	away.s.Close(false, false, 0)
	n.catchUp()
	must(t, n.EndClient(ctx, event.Kick{Client: "away", Drop: true}))
	if _, present := n.connect("away", false, 3600); present {
		t.Error("a session that was away is not dropped")
	}
	volatile, _ := n.connect("volatile", true, 0, leaves("volatile"))
	late, _ := n.connect("late", true, 0)
	late.subscribe("will/#", 1)
	must(t, n.EndClient(ctx, event.Kick{Client: "volatile"}))
	if cause := volatile.awaitEnd(); !errors.Is(cause, ErrKicked) {
		t.Errorf("volatile: it ended for %v", cause)
	}
	late.want("will/volatile=gone q1")
}

// Before all nodes know of bans there are none.
func TestBansNeedTheirLevel(t *testing.T) {
	n := bareNode(t, Limits{})
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	ctx := context.Background()
	for what, err := range map[string]error{"ban": n.Ban(ctx, event.Ban{Client: "c"}), "kick": n.EndClient(ctx, event.Kick{Client: "c"})} {
		if !errors.Is(err, ErrCondition) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
