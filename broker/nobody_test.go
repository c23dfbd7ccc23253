package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// Clients without a name have half of the sessions and of the retained topics, however many
// they say they are, where anybody can sign in; all of it where nobody can.
func TestNobodyLeavesHalf(t *testing.T) {
	n := newNode(t, Limits{Sessions: 7, RetainedTopics: 5})
	n.policies["named"], n.policies["nameless"] = parseRules("allow * #"), parseRules("allow * #")
	n.policies["named"].named = true
	n.policy("named")
	nobody := func(id string) (*client, error) {
		c, _, err := n.tryConnect(id, false, event.Never, func(q *ConnectRequest) { q.Principal = "" })
		return c, err
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrQuota) || !strings.Contains(err.Error(), "without a user name") {
			t.Errorf("%s: %v", what, err)
		}
	}
	counts := func(sessions, retained int) {
		t.Helper()
		n.recount("a.org") // as the state has it
		if got := n.machine.nobody; got.sessions != sessions || got.retained != retained {
			t.Errorf("%+v are counted, want %d sessions and %d topics", got, sessions, retained)
		}
	}
	var all []*client
	for i := range 4 {
		c, err := nobody(fmt.Sprint("x", i))
		must(t, err)
		all = append(all, c)
	}
	_, err := nobody("x4")
	refused("one session more", err)
	x, err := nobody("x0") // which it has
	must(t, err)
	for i := range 3 {
		must(t, x.publish(fmt.Sprint("r/", i), "x", 1, retain))
	}
	refused("one topic more", x.publish("r/3", "x", 1, retain))
	must(t, x.publish("r/2", "y", 1, retain))
	counts(4, 3)

	ann := n.named("ann", "ann@a.org", event.Never)
	bare := n.named("bare", "bare", event.Never)
	must(t, ann.publish("r/3", "x", 1, retain))
	must(t, bare.publish("r/4", "x", 1, retain))
	if err := ann.publish("r/5", "x", 1, retain); !errors.Is(err, ErrQuota) || strings.Contains(err.Error(), "without") {
		t.Errorf("who has a name, one topic more: %v", err)
	}
	must(t, ann.publish("r/2", "mine", 1, retain))
	refused("what somebody's is", errors.Join(x.publish("r/2", "x", 1, retain), x.publish("r/3", "x", 1, retain)))
	counts(4, 3)
	must(t, x.publish("r/1", "", 1, retain))
	must(t, x.publish("r/1", "x", 1, retain, n.lives(60)))
	n.pass(2 * time.Minute)
	n.tick()
	counts(4, 2)

	all[3].s.Close(false, true, 0) // for good
	n.tick()
	counts(3, 2)
	_, err = nobody("x5")
	must(t, err)

	n.policy("nameless")
	for _, name := range []string{"more", "r/2", "r/3"} {
		must(t, x.publish(name, "x", 1, retain))
	}
	counts(4, 4)
}
