package blackbox

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// stalePolicy lets those who are listed watch the ward.
func stalePolicy(watchers ...string) string {
	var b strings.Builder
	b.WriteString(usersOf(alice, bob, carol, zoe))
	fmt.Fprintf(&b, "  ana@example.com: {token_sha256: %s}\n", hashOf("sesame")) // the operator
	fmt.Fprintf(&b, "groups:\n  operators: [ana@example.com]\n  watchers: [%s]\n", strings.Join(watchers, ", "))
	fmt.Fprintln(&b, "rules:\n  - {id: tell, allow: [publish], who: [anyone], topic: [\"ward/#\"]}")
	fmt.Fprintln(&b, "  - {id: watch, allow: [subscribe], who: [\"group:watchers\"], topic: [\"ward/#\"]}")
	return b.String()
}

// What was forbidden while a node stood still is forbidden there before it delivers
// anything again, by the operator as by an owner: what came before the prohibition
// and was not delivered by then, what came after it, and what the node's own clients
// had sent meanwhile and it only reads now.
func TestClusterStaleNodeDeliversNothingForbidden(t *testing.T) {
	t.Parallel()
	p := loopback()
	p.policy = stalePolicy(carol, zoe)
	c := p.start(t)
	lead := c.leader()
	for _, i := range []int{(lead + 1) % clusterSize, lead} { // a follower, then who leads
		c.standsStillMeanwhile(i)
		c.caughtUp()
	}
	c.alike()
}

func (c *trio) standsStillMeanwhile(i int) {
	t := c.t.(*testing.T)
	if err := os.WriteFile(c.policy, []byte(stalePolicy(carol, zoe)), 0o600); err != nil {
		t.Fatal(err)
	}
	still, other := c.nodes[i], c.nodes[(i+1)%clusterSize]
	other.reload()
	owner := other.person(bob, "pc")
	owner.Publish("$me/policy/presence", 1, showAll)
	owner.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","note":{"en":"welcome"}}`))
	far := other.open(v5, clean("far"))

	// Those who may no longer, and one who may all the time.
	friend, watcher, nurse := still.person(alice, "pc"), still.person(zoe, "pc"), still.person(carol, "pc")
	near := still.open(v5, clean("near"))
	friend.Subscribe(bobsPresence, 1)
	until(t, "a friend is shown how things are", patience, func() bool {
		return strings.Contains(string(friend.Receive().Payload), "welcome")
	})
	watcher.SubscribeTo(nil, mq.Filter{Filter: "ward/1", QoS: 1}, mq.Filter{Filter: "ward/0", QoS: 0})
	nurse.SubscribeTo(nil, mq.Filter{Filter: "ward/1", QoS: 1}, mq.Filter{Filter: "ward/0", QoS: 0})
	near.Publish("ward/0", 0, "hello")
	watcher.ReceiveText("ward/0", "hello")
	nurse.ReceiveText("ward/0", "hello")

	still.halt()
	began := time.Now()
	owner.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","note":{"en":"secret before"}}`))
	far.Publish("ward/1", 1, "before")
	owner.Publish("$me/policy/presence", 1, `{"v":1,"rules":[]}`)
	owner.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","note":{"en":"secret after"}}`))
	if err := os.WriteFile(c.policy, []byte(stalePolicy(carol)), 0o600); err != nil {
		t.Fatal(err)
	}
	other.reload()
	far.Publish("ward/1", 1, "after")
	near.Send(mq.Publish{Topic: "ward/0", Payload: []byte("near")}) // lies in the socket
	<-time.After(3*time.Second - time.Since(began))                 // how long it stands still at least
	still.signal(syscall.SIGCONT)

	// When it takes a publish again, it has applied all that was agreed meanwhile. If all this
	// took longer than others wait for a node, it has been given up, and sends its clients away.
	far.Publish("ward/1", 1, "last")
	stayed := true
	until(t, "it takes publishes again", patience, func() bool {
		var answers []*mq.Packet
		answers, stayed = heardSoFar(near, mq.Publish{Topic: "ward/2", QoS: 1, ID: near.ID()})
		return !stayed || slices.ContainsFunc(answers, func(p *mq.Packet) bool { return p.Type == mq.PUBACK && p.Code == 0 })
	})
	if !stayed {
		stood := time.Since(began)
		t.Logf("n%d stood still for %v, and was given up", i+1, stood)
		if stood < 9*time.Second {
			t.Errorf("n%d was given up after %v, want ten seconds", i+1, stood)
		}
	}
	var told []string
	for stayed && !slices.Contains(told, "last") {
		if p := nurse.Receive(); p.Topic == "ward/1" {
			told = append(told, string(p.Payload))
		}
	}
	if stayed && !slices.Equal(told, []string{"before", "after", "last"}) {
		t.Errorf("who may got %q, want before, after, last", told)
	}
	shown, _ := heardSoFar(watcher)
	for _, p := range shown {
		if p.Type == mq.PUBLISH {
			t.Errorf("who may not any more got %v %q", p, p.Payload)
		}
	}
	shown, _ = heardSoFar(friend)
	for _, p := range shown {
		if p.Type == mq.PUBLISH && strings.Contains(string(p.Payload), "secret") {
			t.Errorf("whom the owner shut out got %v %q", p, p.Payload)
		}
	}
	for _, c := range []*mq.Client{owner, far, friend, watcher, nurse, near} {
		c.TrySend(mq.Bye)
		c.Closed()
	}
}

// heardSoFar sends something, and returns what a client is sent until what it has sent by then
// is answered, or its connection has ended.
func heardSoFar(c *mq.Client, ms ...mq.Message) (all []*mq.Packet, open bool) {
	c.TrySend(append(ms, mq.Ping)...)
	for {
		p, err := c.Read(mq.Patience)
		if err != nil {
			return all, false
		}
		if p.Type == mq.PINGRESP {
			return all, true
		}
		all = append(all, p)
	}
}
