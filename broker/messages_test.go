package broker

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// post is a profile for tests: what is published to post/{who} goes to them and
// to whom they have named in $me/policy/post, and is kept under the key "kept"
// until a session has taken it; a new subscriber gets what is kept. What is
// published to post/{who}/now is transient.
type post struct{}

func (post) Prefix() string          { return "post" }
func (post) Watch(Who, string) error { return nil }

func (post) Admit(p *Publication) error {
	if p.Transient = strings.HasSuffix(p.Event.Topic, "/now"); p.Transient {
		p.Event.Payload = append(p.Get("mark"), p.Event.Payload...)
	}
	return nil
}

func (post) Apply(tx *ProfileTx, p *Publication) error {
	if p.Event.Topic == ownPolicy+"post" {
		tx.SetPolicy(p.From.Principal, p.Event.Payload)
		return nil
	}
	e := p.Event
	e.Retain = false
	tx.Set("kept", e.Append(nil))
	tx.Set("taken", nil)
	tx.Set("mark", []byte("!"))
	tx.Set("queued", fmt.Append(nil, tx.Route(e, string(e.Payload))))
	return nil
}

func (post) MayRead(get func(key string) []byte, who Who, topicName string, _ int64) Decision {
	owner := strings.Split(topicName, "/")[1]
	if who.Principal == owner || bytes.Contains(get(PolicyKey(owner)), []byte(who.Principal)) {
		return Decision{Allow: true}
	}
	return Decision{Reason: "not yours"}
}

func (post) Taken(tx *ProfileTx, ref string, who Who) {
	tx.Set("taken", append(append([]byte{}, tx.Get("taken")...), ref+" by "+who.Client+"\n"...))
	tx.Set("kept", nil)
}

func (post) Awaits(who Who) []string { return []string{"post/" + who.Principal} }

func (post) Subscribed(tx *ProfileTx, _ Who, session uint64, _ string) {
	kept := tx.Get("kept")
	if kept == nil {
		return
	}
	e := new(event.Event)
	if err := e.Decode(bytes.Clone(kept)); err != nil {
		panic(err)
	}
	tx.Send(session, e, string(e.Payload))
}

func (n *node) postKey(key string) string { return string(n.profileValue("post", key)) }

func (n *node) named(client, principal string, expiry uint32) *client {
	n.t.Helper()
	c, _ := n.connect(client, false, expiry, func(r *ConnectRequest) { r.Principal = principal })
	return c
}

// What a profile routes goes to each session that subscribes and may read it,
// and the profile is told of each durable one that has taken it.
func TestProfileRoutes(t *testing.T) {
	n := newNodeWith(t, Limits{}, post{})
	phone, pc, web := n.named("phone", "bob", 3600), n.named("pc", "bob", 3600), n.named("web", "bob", 0)
	eve, ann := n.named("eve", "eve", 3600), n.named("ann", "ann", 0)
	phone.subscribe("post/bob", 1)
	pc.subscribe("post/#", 2)
	web.subscribe("post/bob", 1)
	eve.subscribe("#", 1)
	if err := eve.trySubscribe("post/bob", 1); !errors.Is(err, ErrRefused) {
		t.Errorf("eve may read: %v", err)
	}
	must(t, ann.publish("post/bob", "hello", 2))
	phone.want("post/bob=hello q1")
	pc.want("post/bob=hello q2")
	web.want("post/bob=hello q1")
	if got := n.postKey("queued"); got != "2" {
		t.Errorf("queued for %s, want 2", got)
	}
	phone.ackAll()
	n.settled("hello by phone\n")
	g := pc.awaitGot(1)[0]
	must(t, pc.answer(g.id, Received))
	pc.wait("the release", func() bool { return len(pc.released) == 1 })
	must(t, pc.answer(g.id, Completed))
	n.settled("hello by phone\nhello by pc\n")
	eve.want()
}

// settled waits until the log has been told of all acknowledgements, and
// compares what the profile was told.
func (n *node) settled(want string) {
	n.t.Helper()
	n.settler.flush()
	n.catchUp()
	if got := n.postKey("taken"); got != want {
		n.t.Errorf("taken:\n%swant:\n%s", got, want)
	}
}

// What has expired in a queue, or lost its subscription, is not taken; what was
// acknowledged is, whatever the client subscribes to by then.
func TestNotTaken(t *testing.T) {
	n := newNodeWith(t, Limits{}, post{})
	phone, ann := n.named("phone", "bob", 3600), n.named("ann", "ann", 0)
	phone.subscribe("post/bob", 1)
	phone.s.Close(false, false, 0)
	must(t, ann.publish("post/bob", "late", 1, func(e *event.Event) { e.Expires = n.clock.now().Add(time.Minute).UnixNano() }))
	n.pass(time.Minute)
	phone = n.named("phone", "bob", 3600)
	phone.want()
	n.settled("")
	phone.s.Close(false, false, 0)
	must(t, ann.publish("post/bob", "missed", 1))
	phone, _ = n.connect("phone", false, 3600, func(r *ConnectRequest) { r.Principal = "bob" }, receiveMax(1))
	phone.want("post/bob=missed q1")
	must(t, ann.publish("post/bob", "more", 1))
	if _, err := phone.s.Unsubscribe([]string{"post/bob"}); err != nil {
		t.Fatal(err)
	}
	phone.ackAll()
	n.settled("missed by phone\n")
}

// What the policy keeps from a session is not taken by it, not by a later
// connection of it either: it is there for another, also after a restart.
func TestWithheldIsNotTaken(t *testing.T) {
	n := newNodeWith(t, Limits{SettleEvery: time.Hour}, post{})
	n.policies["closed"] = parseRules("allow * #\ndeny bob post/# subscribe")
	phone, ann := n.named("phone", "bob", 3600), n.named("ann", "ann", 0)
	phone.subscribe("post/bob", 1)
	phone.s.Close(false, false, 0)
	must(t, ann.publish("post/bob", "hello", 1))
	n.policy("closed")
	for range 2 { // the second takes over from the first, which has told nothing
		phone = n.named("phone", "bob", 3600)
		phone.want()
	}
	n.settled("")
	if count := n.machine.sessions["phone"].queue.count; count != 0 {
		t.Errorf("%d are queued, want none", count)
	}
	n.policy("all")
	n.restart()
	pc := n.named("pc", "bob", 3600)
	pc.subscribe("post/bob", 1)
	pc.want("post/bob=hello q1")
	pc.ackAll()
	n.settled("hello by pc\n")
}

// Who ends a subscription and begins it again is not sent again what waits in
// their queue; what the node passed over in between is not taken, but comes.
func TestSubscribesAgain(t *testing.T) {
	n := newNodeWith(t, Limits{SettleEvery: time.Hour}, post{})
	ann := n.named("ann", "ann", 0)
	phone, _ := n.connect("phone", false, 3600, func(r *ConnectRequest) { r.Principal = "bob" }, receiveMax(1))
	again := func(meanwhile func()) {
		t.Helper()
		if _, err := phone.s.Unsubscribe([]string{"post/bob"}); err != nil {
			t.Fatal(err)
		}
		meanwhile()
		phone.subscribe("post/bob", 1)
	}
	phone.subscribe("post/bob", 1)
	must(t, ann.publish("post/bob", "one", 1))
	phone.want("post/bob=one q1")
	must(t, ann.publish("post/bob", "two", 1))
	for range 5 {
		again(func() {})
	}
	n.catchUp()
	if count := n.machine.sessions["phone"].queue.count; count != 2 {
		t.Errorf("%d are queued, want 2", count)
	}
	again(phone.ackAll) // one is taken, and two is passed over
	phone.want("post/bob=one q1")
	n.settled("one by phone\n")
	phone.want("post/bob=one q1", "post/bob=two q1")
	phone.ackAll()
	n.settled("one by phone\ntwo by phone\n")
}

// Who subscribes anew is sent what the profile has kept, and nobody else is,
// also if the node lives anew in between.
func TestProfileSendsToOne(t *testing.T) {
	n := newNodeWith(t, Limits{}, post{})
	ann, web := n.named("ann", "ann", 0), n.named("web", "bob", 0)
	web.subscribe("post/bob", 1)
	must(t, ann.publish("post/bob", "waiting", 1))
	web.want("post/bob=waiting q1")
	n.restart()
	web = n.named("web", "bob", 0)
	web.subscribe("post/bob", 1)
	phone, eve := n.named("phone", "bob", 3600), n.named("eve", "eve", 3600)
	eve.subscribe("post/#", 1)
	phone.subscribe("post/bob", 0)
	phone.want()
	phone.subscribe("post/bob", 1)
	phone.subscribe("post/#", 1)
	phone.want("post/bob=waiting q1")
	web.want()
	eve.want()
	phone.ackAll()
	n.settled("waiting by phone\n")
	pc := n.named("pc", "bob", 3600)
	pc.subscribe("post/bob", 1)
	n.catchUp()
	pc.want()
}

// Whom the owner names reads from then on, and no more when they are named no
// more: also what is queued is not sent.
func TestProfileIsAskedAnew(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNodeWith(t, Limits{}, post{})
		bob, eve := n.named("bob", "bob", 0), n.named("eve", "eve", expiry)
		eve.subscribe("post/#", 1)
		must(t, bob.publish("post/bob", "one", 1))
		must(t, bob.publish(ownPolicy+"post", "eve", 1))
		must(t, bob.publish("post/bob", "two", 1))
		eve.want("post/bob=two q1")
		eve.subscribe("post/bob", 1)
		must(t, bob.publish(ownPolicy+"post", "", 1))
		must(t, bob.publish("post/bob", "three", 1))
		eve.want("post/bob=two q1")
		if err := eve.trySubscribe("post/bob", 1); !errors.Is(err, ErrRefused) {
			t.Errorf("eve may read: %v", err)
		}
	}
}

// What is transient reaches whoever may read it, at QoS 0, and no log.
func TestTransient(t *testing.T) {
	n := newNodeWith(t, Limits{}, post{})
	phone, eve := n.named("phone", "bob", 3600), n.named("eve", "eve", 0)
	phone.subscribe("post/bob/now", 1)
	eve.subscribe("#", 1)
	must(t, eve.publish("post/bob", "x", 1))
	n.tick()
	n.log.mu.Lock()
	before := len(n.entries)
	n.log.mu.Unlock()
	for qos := range uint8(2) {
		must(t, eve.publish("post/bob/now", "typing", qos, retain))
	}
	n.log.mu.Lock()
	after := len(n.entries)
	n.log.mu.Unlock()
	if before != after {
		t.Errorf("%d entries of the log", after-before)
	}
	phone.want("post/bob/now=!typing q0", "post/bob/now=!typing q0")
	eve.want()
}

// brittlePost is a post that has a fault about what is sent to bad.
type brittlePost struct{ post }

func (p brittlePost) MayRead(get func(key string) []byte, who Who, topicName string, at int64) Decision {
	if topicName == "post/bad" {
		panic("a fault")
	}
	return p.post.MayRead(get, who, topicName, at)
}

// What a command that panicked was about to say of its event is said of no other:
// nodes that began from a copy taken since would not say it.
func TestFailedRouteLeavesNothing(t *testing.T) {
	n := newNodeWith(t, Limits{}, brittlePost{})
	phone, ann := n.named("phone", "bob", 3600), n.named("ann", "ann", 0)
	phone.subscribe("#", 1)
	if err := ann.publish("post/bad", "lost", 1); !errors.Is(err, ErrFailed) {
		t.Fatalf("got %v, want it to have failed", err)
	}
	must(t, ann.publish("plain", "kept", 1))
	phone.want("plain=kept q1")
	phone.ackAll()
	n.settled("")
	n.restart()
	if got := n.postKey("taken"); got != "" {
		t.Errorf("the profile was told %q of another's event", got)
	}
}
