package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
)

// A shift is when the window of the demo's night shift is open. Policies count
// in whole seconds.
type shift struct{ opens, closes time.Time }

const (
	// wholeShift is the shortest demo that waits for the end of its shift: a
	// shorter one has no time for one.
	wholeShift = 4 * time.Second

	// A step of the demo is as much as a connection and a subscription. That
	// many of the slowest so far fit between now and the opening, and between
	// the opening and the close: on a machine that is slow, or busy, the same
	// things happen, only later.
	stepsAhead = 5
)

// planShift returns the shift of a demo that is to last runFor (0: until it is
// interrupted) from now on, on a machine where a step took slowest. One that is
// bounded is over before the demo is, on a machine of usual speed.
func planShift(now time.Time, runFor, slowest time.Duration) shift {
	lead, length := 3*time.Second, 10*time.Second
	if runFor > 0 {
		lead = min(lead, max(1500*time.Millisecond, runFor*3/10))
		length = min(length, max(2*time.Second, runFor*2/5))
	}
	slack := stepsAhead * slowest
	opens := now.Add(lead + slack + time.Second - 1).Truncate(time.Second)
	return shift{opens: opens, closes: opens.Add((length + slack).Truncate(time.Second))}
}

// nextReading returns when the machine is read after now: a second later or so,
// halfway between two whole ones, as far from a window's edges as can be.
func nextReading(now time.Time) time.Time {
	return now.Truncate(time.Second).Add(1500 * time.Millisecond)
}

// policy is what the demo's clients are held to while at is its shift. The last
// rule leaves the rest of the topics to whoever tries things out.
func (d *demo) policy(at shift) []byte {
	var b strings.Builder
	b.WriteString("users:\n")
	for name, token := range d.tokens {
		fmt.Fprintf(&b, "  %s@%s: {token_sha256: %s}\n", name, d.domain, acl.HashToken([]byte(token)))
	}
	fmt.Fprintf(&b, `rules:
  - id: host-reports-itself
    allow: [publish]
    who: [%[2]s@%[1]s]
    topic: ["hosts/{client}/#"]
  - id: staff
    allow: [subscribe]
    who: [dashboard@%[1]s, intern@%[1]s]
    topic: ["hosts/#"]
  - id: no-network-for-interns
    deny: [subscribe]
    who: [intern@%[1]s]
    topic: ["hosts/+/net"]
  - id: night-shift
    allow: [subscribe]
    who: [night@%[1]s]
    topic: ["hosts/+/load"]
    when: {from: %[3]q, until: %[4]q}
    outside: hold
  - id: try-it
    allow: [publish, subscribe]
    who: [anyone]
    topic: ["home/#"]
`, d.domain, d.host, at.opens.UTC().Format(time.RFC3339), at.closes.UTC().Format(time.RFC3339))
	return []byte(b.String())
}
