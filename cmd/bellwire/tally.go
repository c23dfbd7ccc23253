package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A tally is what the demo has shown. A line and its count are one step, so
// that the summary adds up to the lines, and the broker tells it of what it
// counts itself, so that it adds up to the broker's counters.
type tally struct {
	events    int // of this machine on plain topics, its will included
	published int // documents, messages and policies of people and of the machine
	delivered int // events that arrived at a subscriber of the demo
	shown     int // documents that arrived and show something
	neutral   int // documents that arrived and show nothing
	unsent    int // documents that were not sent, because they show nothing new
	withheld  int
	refused   int

	unexpected int // documents that are not what the owner's policy says

	underWay int  // handed to the connections of the demo's subscribers, and not arrived
	gone     bool // the machine's will was published

	// By client and topic: how much was sent and how much has arrived; of
	// documents, when those under way were sent, how many arrived before the
	// broker said so, and which one arrived last.
	given, arrivals map[string]int
	sent            map[string][]time.Time
	early           map[string]int
	last            map[string][]byte
}

func newTally() tally {
	return tally{
		given: map[string]int{}, arrivals: map[string]int{}, sent: map[string][]time.Time{}, early: map[string]int{}, last: map[string][]byte{},
	}
}

// sending notes when a document was sent.
func (t *tally) sending(key string, now time.Time) {
	t.given[key]++
	if t.early[key] > 0 {
		t.early[key]--
		return
	}
	t.sent[key] = append(t.sent[key], now)
}

// sentAt returns when the document was sent that arrives now.
func (t *tally) sentAt(key string, now time.Time) time.Time {
	waiting := t.sent[key]
	if len(waiting) == 0 {
		t.early[key]++
		return now
	}
	t.sent[key] = waiting[1:]
	return waiting[0]
}

// Routed counts the machine's events. Those of somebody who tries things out
// have a line each, as in a dev without a demo. (broker.Tap)
func (d *demo) Routed(e *event.Event, heard int) {
	if !strings.HasPrefix(e.Topic, d.topic("")) {
		if cast := e.Client == "" || isWatcher(e.Client); !cast || !strings.HasPrefix(e.Topic, "im/") {
			d.feed.Routed(e, heard)
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.events++
	d.tally.gone = d.tally.gone || e.Topic == d.topic("online") && string(e.Payload) == offline
	d.tell()
}

// Delivered notes what is under way to the demo's subscribers. (broker.Tap)
func (d *demo) Delivered(to broker.Who, e *event.Event) {
	if !isWatcher(to.Client) {
		return // somebody who tries things out: it shows what it receives
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.underWay++
	if _, ok := documentOf(e.Topic); ok {
		d.tally.sending(to.Client+" "+e.Topic, time.Now())
	}
	d.tell()
}

// Withheld shows what the broker withheld, and asks the policy in force why.
// (broker.Tap)
func (d *demo) Withheld(from broker.Who, e *event.Event, now int64) {
	publisher := d.host
	if !strings.HasPrefix(e.Topic, d.topic("")) {
		publisher = e.Client
	}
	why := "by the policy"
	if s := d.server.Load(); s != nil {
		why = reasonAt(s.broker.Policy(), from, e.Topic, now)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.withheld++
	d.line("withheld", e.Topic, "–", publisher+" ⇥ "+from.Client, why)
}

// reasonAt says why somebody does not receive a topic at an instant.
func reasonAt(p broker.Authorizer, who broker.Who, topic string, at int64) string {
	why := p.Decide(who, broker.ActSubscribe, topic, at)
	switch {
	case why.Allow:
		return "by a policy that has changed since"
	case why.Until == 0 || why.Until == math.MaxInt64:
		return why.Reason
	}
	return why.Reason + "; opens " + time.Unix(0, why.Until).UTC().Format("15:04:05Z")
}

// documentOf says of which resource the documents on a topic are, if it is one's.
func documentOf(topicName string) (of kind.Resource, ok bool) {
	kindName, _, _ := strings.Cut(topicName, "/")
	if demoKinds[kindName] == nil {
		return of, false
	}
	t, err := kind.ParseTopic(topicName)
	return t.Resource, err == nil
}

// arrived shows what a subscriber received.
func (d *demo) arrived(w watcher, m *paho.Publish) {
	if of, ok := documentOf(m.Topic); ok {
		d.showed(w, of, m)
		return
	}
	if strings.HasPrefix(m.Topic, "im/") {
		if t, err := kind.ParseTopic(m.Topic); err == nil {
			d.received(w, t.Resource, m)
			return
		}
	}
	how := ""
	switch sent, err := strconv.ParseInt(m.Properties.User.Get(sentAt), 10, 64); {
	case m.Retain:
		how = "state at the opening"
	case m.Topic == d.topic("online") && string(m.Payload) == offline:
		how = "the will of " + d.host
	case err == nil:
		how = millis(time.Since(time.Unix(0, sent)))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.delivered++
	d.line("delivered", m.Topic, shown(m.Payload), d.host+" → "+w.name, how)
	d.took(w.name, m.Topic)
}

// took notes that something has arrived. mu is held.
func (d *demo) took(client, topicName string) {
	d.tally.underWay--
	d.tally.arrivals[client+" "+topicName]++
	d.tell()
}

// arrivals returns how much has arrived at a client on a topic.
func (d *demo) arrivals(client, topicName string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tally.arrivals[client+" "+topicName]
}

// published shows what somebody publishes that is no plain event.
func (d *demo) published(what *publication, value, who, how string) {
	word := "publish"
	if strings.HasPrefix(what.topic, "$me/policy/") {
		word = "policy"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.published++
	d.line(word, what.topic, value, who, how)
}

// turnedAway shows a subscriber that may see nothing.
func (d *demo) turnedAway(w watcher, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.refused++
	d.line("refused", w.filter, "subscribe", w.name, why)
}

// line prints one thing that happened, in columns.
func (d *demo) line(what, topic, value, path, how string) {
	topics := max(len(d.topic("online")), len(d.resource("presence", "").Topic())+max(len("ana/phone"), len(d.host)+len("/agent")))
	paths := max(len(d.host), len(nobody)) + len(" → dashboard") - len("→") + 1
	text := fmt.Sprintf("%-9s  %-*s  %-28s  %-*s  %s", what, topics, topic, value, paths, path, how)
	d.feed.print(safe(strings.TrimRight(text, " ")))
}

// title prints what the next lines are about.
func (d *demo) title(format string, args ...any) {
	d.feed.print("# " + fmt.Sprintf(format, args...))
}

// tell wakes whoever waits for the end. mu is held.
func (d *demo) tell() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// await waits until told says so, ctx ends, or it has taken too long.
func (d *demo) await(ctx context.Context, told func(t *tally) bool) error {
	tooLong := time.NewTimer(lastWords)
	defer tooLong.Stop()
	for {
		d.mu.Lock()
		ok := told(&d.tally)
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-d.changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-tooLong.C:
			return fail(bw.NoAnswer, "nothing came within %s", lastWords)
		}
	}
}

// allTold waits until the machine's will was published and everything under
// way has arrived, or until it has taken too long: then the summary says so.
func (d *demo) allTold() {
	_ = d.await(context.Background(), func(t *tally) bool { return t.gone && t.underWay == 0 })
}

// end prints the summary, and nothing after it.
func (d *demo) end() {
	d.mu.Lock()
	t := &d.tally
	more := ""
	if t.underWay > 0 {
		more = fmt.Sprintf(", %d still under way", t.underWay)
	}
	if t.unexpected > 0 {
		more += fmt.Sprintf(", %d not as the policy says", t.unexpected)
	}
	last := fmt.Sprintf("%s, %d delivered, %d withheld by policy, %d refused; %d documents and messages, %d shown, %d neutral, %d unsent%s. Next: bellwire dev, then bellwire sub -v -t 'home/#'",
		plural(t.events, "event"), t.delivered, t.withheld, t.refused, t.published, t.shown, t.neutral, t.unsent, more)
	d.mu.Unlock()
	d.feed.end(last)
}
