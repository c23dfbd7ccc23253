package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// asked are who was to be forgotten, in the order of the log.
type asked struct {
	mu  sync.Mutex // guards all
	all []string
}

func (a *asked) add(who string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, who)
}

func (a *asked) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.all)
}

// A keeper keeps what is published, by whom, and forgets two of these at a time.
type keeper struct {
	prefix string
	log    *asked
}

func (k keeper) Prefix() string             { return k.prefix }
func (keeper) Admit(*Publication) error     { return nil }
func (keeper) Watch(Who, string) error      { return nil }
func (k keeper) key(of, name string) string { return of + "\x00" + name }

func (k keeper) Apply(tx *ProfileTx, p *Publication) error {
	tx.Set(k.key(p.From.Principal, p.Event.Topic), p.Event.Payload)
	if string(p.Event.Payload) == "clear" {
		tx.Clear(k.key(p.From.Principal, ""), 100)
	}
	return nil
}

func (k keeper) Forget(tx *ProfileTx, principal string) bool {
	k.log.add(k.prefix + " " + principal)
	return tx.Clear(k.key(principal, ""), 2)
}

// keepers returns a node with two keepers, at a level, where bob and eve are users
// who have published five things to each.
func keepers(t *testing.T, level Level) (n *node, log *asked) {
	t.Helper()
	log = new(asked)
	n = bareNode(t, Limits{}, keeper{"b", log}, keeper{"a", log})
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	if err := n.Raise(context.Background(), level); err != nil {
		t.Fatal(err)
	}
	n.policies["both"] = parseRules("user bob b\nuser eve e\nallow * #")
	n.policies["bob"] = parseRules("user bob b\nallow * #")
	n.policy("both")
	for _, who := range []string{"bob", "eve"} {
		c, _ := n.connect(who, true, 0, func(r *ConnectRequest) { r.Principal = who })
		for i := range 5 {
			for _, prefix := range []string{"a", "b"} {
				if err := c.publish(fmt.Sprintf("%s/%d", prefix, i), "x", 1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return n, log
}

// left returns how many things of bob's and of eve's there are.
func left(n *node) (bobs, eves int) {
	for _, key := range keysOf(n.config.Store, store.Resources) {
		if strings.Contains(string(key), "bob\x00") {
			bobs++
		} else if strings.Contains(string(key), "eve\x00") {
			eves++
		}
	}
	return bobs, eves
}

// What profiles keep of whom the policy names no more goes, a piece with each
// entry, profile by profile, and nobody else's. What has begun goes on though the
// name is given to another.
func TestForgottenInPieces(t *testing.T) {
	n, log := keepers(t, NewestLevel)
	n.policy("bob")
	n.pass(ForgetAfter - time.Second)
	if bobs, eves := left(n); bobs != 10 || eves != 10 || len(log.list()) > 0 {
		t.Fatalf("%d of bob's and %d of eve's are left before it is time, want 10 of each; asked %q", bobs, eves, log.list())
	}
	n.restart()
	n.clock.advance(time.Second)
	want := []string{"a eve", "a eve", "a eve", "b eve", "b eve", "b eve"}
	for range want {
		n.tick()
		n.catchUp()
		if len(log.list()) == 2 {
			n.policy("both")
		}
	}
	n.catchUp()
	if bobs, eves := left(n); bobs != 10 || eves != 0 {
		t.Errorf("%d of bob's and %d of eve's are left, want 10 and 0", bobs, eves)
	}
	if got := log.list(); !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

// Who has left, come back, and left again is forgotten when the second time is over.
func TestForgottenAfterTheLastTime(t *testing.T) {
	n, log := keepers(t, NewestLevel)
	for _, policy := range []string{"bob", "both", "bob"} {
		n.policy(policy)
		n.pass(ForgetAfter / 2)
	}
	if _, eves := left(n); eves != 10 || len(log.list()) > 0 {
		t.Fatalf("%d of eve's are left halfway, want 10; asked %q", eves, log.list())
	}
	n.pass(ForgetAfter / 2)
	for range 6 {
		n.tick()
	}
	if bobs, eves := left(n); bobs != 10 || eves != 0 {
		t.Errorf("%d of bob's and %d of eve's are left, want 10 and 0", bobs, eves)
	}
}

// Who is named again before anything has gone keeps all. At a level at which other
// programs do not know of it, nothing goes.
func TestNotForgotten(t *testing.T) {
	n, log := keepers(t, NewestLevel)
	n.together(&event.Policy{Data: []byte("bob")}, &event.Policy{Data: []byte("both")})
	older, olderLog := keepers(t, LevelShared)
	if older.Level() >= levelForgets {
		t.Fatalf("the node has level %d", older.Level())
	}
	n.policy("bob")
	n.pass(ForgetAfter - time.Second)
	n.policy("both")
	n.pass(time.Second)
	older.policy("bob")
	older.pass(2 * ForgetAfter)
	for range 5 {
		n.tick()
		older.tick()
	}
	n.catchUp()
	older.catchUp()
	for _, x := range []struct {
		n   *node
		log *asked
	}{{n, log}, {older, olderLog}} {
		if _, eves := left(x.n); eves != 10 || len(x.log.list()) > 0 {
			t.Errorf("at level %d: %d of eve's are left, asked %q", x.n.Level(), eves, x.log.list())
		}
	}
}

// What an entry has set goes with what was there before it.
func TestClearTakesWhatTheEntryHasSet(t *testing.T) {
	n, _ := keepers(t, NewestLevel)
	c, _ := n.connect("again", true, 0, func(r *ConnectRequest) { r.Principal = "bob" })
	if err := c.publish("a/new", "clear", 1); err != nil {
		t.Fatal(err)
	}
	if bobs, eves := left(n); bobs != 5 || eves != 10 { // in b
		t.Errorf("%d of bob's and %d of eve's are left, want 5 and 10", bobs, eves)
	}
}

// Who is a user no more, and whom something else proves, an issuer's tokens, say, has not
// gone: his session stays with what waits for it, also where he was a user for a while only.
func TestRemovedWhoIsProvedOtherwise(t *testing.T) {
	const allow = "allow * #\n"
	n := newNode(t, Limits{})
	n.policies["issuer"] = parseRules(allow + "proved rosa token")
	n.policies["user"] = parseRules(allow + "user rosa password\nproved rosa token")
	n.policies["neither"] = parseRules(allow)
	n.policy("issuer")
	sub, _ := n.connect("rosa", false, event.Never)
	sub.subscribe("x", 1)
	sub.s.Close(false, false, 0)
	pub, _ := n.connect("pub", true, 0)
	must(t, pub.publish("x", "1", 1))
	n.policy("user")
	n.policy("issuer")
	n.pass(ForgetAfter + time.Second)
	if len(n.machine.left) != 0 {
		t.Errorf("%v are to be forgotten", n.machine.left)
	}
	sub, present := n.connect("rosa", false, event.Never)
	if !present {
		t.Fatal("the session is gone")
	}
	sub.want("x=1 q1")
	n.policy("user")
	n.policy("neither")
	n.pass(time.Second)
	if n.machine.sessions["rosa"] != nil {
		t.Error("nothing proves her any more, and the session is there")
	}
}
