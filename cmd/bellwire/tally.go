package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// A tally is what the demo has shown. A line and its count are one step, so
// that the summary adds up to the lines, and the broker tells it of what it
// counts itself, so that it adds up to the broker's counters.
type tally struct {
	events    int // of this machine, its will included
	delivered int // arrived at a subscriber of the demo
	withheld  int
	refused   int

	underWay int  // handed to the connections of the demo's subscribers, and not arrived
	gone     bool // the machine's will was published
}

// Routed counts the machine's events. Those of somebody who tries things out
// have a line each, as in a dev without a demo. (broker.Tap)
func (d *demo) Routed(e *event.Event, heard int) {
	if !strings.HasPrefix(e.Topic, d.topic("")) {
		d.feed.Routed(e, heard)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.events++
	d.tally.gone = d.tally.gone || e.Topic == d.topic("online") && string(e.Payload) == offline
	d.tell()
}

// Delivered notes what is under way to the demo's subscribers. (broker.Tap)
func (d *demo) Delivered(to broker.Who, _ *event.Event) {
	if !isWatcher(to.Client) {
		return // somebody who tries things out: it shows what it receives
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.underWay++
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

// arrived shows what a subscriber received.
func (d *demo) arrived(w watcher, m *paho.Publish) {
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
	d.tally.underWay--
	d.line("delivered", m.Topic, shown(m.Payload), d.host+" → "+w.name, how)
	d.tell()
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
	d.feed.print(fmt.Sprintf("%-9s  %-*s  %-32s  %-*s  %s", what, len(d.topic("memory")), topic, value, len(d.host)+12, path, how))
}

// tell wakes whoever waits for the end. mu is held.
func (d *demo) tell() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// allTold waits until the machine's will was published and everything under
// way has arrived, or until it has taken too long: then the summary says so.
func (d *demo) allTold() {
	tooLong := time.NewTimer(lastWords)
	defer tooLong.Stop()
	for {
		d.mu.Lock()
		told := d.tally.gone && d.tally.underWay == 0
		d.mu.Unlock()
		if told {
			return
		}
		select {
		case <-d.changed:
		case <-tooLong.C:
			return
		}
	}
}

// end prints the summary, and nothing after it.
func (d *demo) end() {
	d.mu.Lock()
	t := &d.tally
	more := ""
	if t.underWay > 0 {
		more = fmt.Sprintf(", %d still under way", t.underWay)
	}
	last := fmt.Sprintf("%s, %d delivered, %d withheld by policy, %d refused%s. Next: bellwire dev, then bellwire sub -v -t 'home/#'",
		plural(t.events, "event"), t.delivered, t.withheld, t.refused, more)
	d.mu.Unlock()
	d.feed.end(last)
}
