package blackbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	law "github.com/bellwire/bellwire/internal/letter"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// What clients name, and the policy takes as if they had named something else; and what they
// subscribe to without having said so.

// asks is a client as the policy knows it.
func (c *leakClient) asks() law.Somebody { return law.Somebody{Principal: c.who, Client: c.id} }

// meant returns the topic, or filter, that a client means by a name, unless that is refused.
func (r *leak) meant(c *leakClient, action, name string) (to string, ok bool) {
	return r.now().policy.Meant(c.asks(), action, name)
}

// published returns the topic that a client publishes to by a name, and after what time: at once
// as a rule. It is not ok if there is none.
func (r *leak) published(c *leakClient, name string) (topic string, after time.Duration, ok bool) {
	topic, ok = r.meant(c, "publish", name)
	if rest, later := strings.CutPrefix(topic, "$delayed/"); ok && later {
		seconds, inner, _ := strings.Cut(rest, "/")
		n, err := strconv.Atoi(seconds)
		if err != nil {
			r.fail("%s means %s", name, topic)
		}
		return inner, time.Duration(n) * time.Second, true
	}
	return topic, 0, ok
}

// drawName draws what a client publishes to.
func (r *leak) drawName() string {
	if r.rnd.Chance(5) {
		return pickOf(r, law.RandomNames)
	}
	return pickOf(r, leakTopics)
}

// byAlias has what is published name its topic by an alias, if the client may have one more.
func (r *leak) byAlias(c *leakClient, m *mq.Publish) {
	n := slices.Index(c.aliases, m.Topic)
	if n < 0 {
		if len(c.aliases) == mostAliases {
			return
		}
		n, c.aliases = len(c.aliases), append(c.aliases, m.Topic)
	} else {
		m.Topic = ""
	}
	m.Properties = append(m.Properties, mq.Number(mq.PropTopicAlias, uint32(n+1)))
}

// mostAliases is how many the server lets a client have.
const mostAliases = 16

// topicsOf are the plain topics that a client may be sent.
func (r *leak) topicsOf(c *leakClient) []string {
	return append(law.Whereto(c.asks()), leakTopics...)
}

// give notes what a client whose session has begun is subscribed to without having asked. What
// no rule allows the whole of now may not be given: nothing is demanded for it.
func (r *leak) give(c *leakClient) {
	for _, g := range r.now().policy.Given(c.asks(), "127.0.0.1") {
		s := &leakSub{filter: g.Filter, qos: g.QoS, from: r.serial, nameless: c.who == "", given: true, deaf: g.NoLocal, later: g.Handling == 2}
		s.uncertain = !r.mustGrant(c, g.Filter)
		r.doubt(c, s)
		c.subs[g.Filter] = s
		r.sorts["given subscriptions"]++
	}
}

// refuseGiven has a member of a group do without what it is given.
func (r *leak) refuseGiven(c *leakClient) {
	for _, f := range c.filters() {
		if s := c.subs[f]; s != nil && s.given { // one may have ended with another
			r.unsubscribe(c, f)
		}
	}
}

// mustGrant says whether a subscription to plain topics is to be granted: a rule allows the
// whole of it, and something of it may be sent, now.
func (r *leak) mustGrant(c *leakClient, filter string) bool {
	return r.now().policy.Grants(c.asks(), filter, r.at) && slices.ContainsFunc(r.topicsOf(c), func(topic string) bool {
		return law.Matches(filter, topic) && r.may(r.now(), c, topic)
	})
}

// tells says whether the client is told by a subscription what is retained: what there was when
// it connected only if the subscription was made after that, or with the session.
func (c *leakClient) tells(s *leakSub, e *leakEvent) bool {
	if s.later && e.act <= s.from {
		return false
	}
	return s.from > c.since || e.act > c.since || s.given && c.anew
}

// gone are the filters of a client's subscriptions that end when it unsubscribes from a name:
// what the name stands for now, what was subscribed to by it, and what is itself called so.
func (c *leakClient) gone(name, to string) []string {
	return slices.DeleteFunc(c.filters(), func(f string) bool { return f != name && f != to && c.subs[f].called != name })
}

// unsubscribe has a client unsubscribe from a name.
func (r *leak) unsubscribe(c *leakClient, name string) {
	r.t.Helper()
	id := c.id16()
	to, ok := r.meant(c, "subscribe", name)
	c.write(r, mq.Unsubscribe{ID: id, Filters: []string{name}})
	ack := r.await(c, id)
	r.tell("%s unsubscribes from %s, which means %s (%v): %v", c.id, name, to, ok, ack.Codes)
	var gone []string
	if ok {
		gone = c.gone(name, to)
	}
	if c.version == v5 {
		certain := slices.ContainsFunc(gone, func(f string) bool { return !c.subs[f].uncertain && r.holdingOf(f) == nil })
		if code := ack.Codes[0]; ok && code != 0 && code != 0x11 || !ok && code != 0x8F || certain && code != 0 || ok && len(gone) == 0 && code == 0 {
			r.fail("%s unsubscribes from %s, which means %s (%v): %#02x, and it has %v", c.id, name, to, ok, code, c.filters())
		}
	}
	for _, f := range gone {
		s := c.subs[f]
		s.until = r.serial
		if c.past = append(c.past, s); len(c.past) > 50 {
			c.past = c.past[25:]
		}
		delete(c.subs, f)
	}
	// What it does not watch any more it is not told of, nor by a wildcard that it
	// subscribes to later if there is nothing to see then.
	for topic := range c.shown {
		if !slices.ContainsFunc(c.filters(), func(f string) bool { return c.subs[f].matches(topic) }) {
			delete(c.shown, topic)
			delete(c.document, topic)
		}
	}
}

// nameOf draws by what name a client unsubscribes.
func (r *leak) nameOf(c *leakClient) string {
	if r.rnd.Chance(8) {
		return pickOf(r, law.RandomFilters)
	}
	s := c.subs[pickOf(r, c.filters())]
	if s.called != "" && !r.rnd.Chance(4) {
		return s.called
	}
	return s.filter
}

// refusedName notes that what a client subscribes to stands for nothing that it may name.
func (r *leak) refusedName(c *leakClient, name string) (code byte) {
	r.t.Helper()
	id := c.id16()
	c.write(r, mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: name}}})
	code = r.await(c, id).Codes[0]
	r.tell("%s subscribes to %s, which stands for nothing: %#02x", c.id, name, code)
	if want := map[bool]byte{true: 0x8F, false: 0x80}[c.version == v5]; code != want {
		r.fail("%s subscribes to %s, which stands for nothing: %#02x, want %#02x", c.id, name, code, want)
	}
	return code
}

func (s *leakSub) String() string {
	return fmt.Sprintf("%s (%s) at %d since %d", s.filter, s.called, s.qos, s.from)
}
