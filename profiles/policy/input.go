package policy

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/kind"
)

// An Input is what a decision depends on beside watcher and time.
type Input struct {
	// Sphere is what the owner's presence says about where they are in life
	// ("work", "home"). Empty if it says nothing or contradicts itself: then
	// no condition on it holds.
	Sphere string

	// Contact says whether the owner has written to the watcher (inboxes).
	Contact bool

	// Visibility is what the watcher shows of itself. Zero: all there is, so that
	// who has an address is identified and who has none is anonymous.
	Visibility Visibility

	// Auth is how sure the server is of who the watcher is: AuthNone to AuthPassword.
	Auth uint8

	Op Op

	// Blocked says that the owner has blocked the watcher, whatever the policy says, and
	// how the watcher is refused.
	Blocked Blocking

	// Offset is what the owner's clocks are ahead of UTC, in minutes, as their
	// presence says it; it counts only if Zoned. Where they are it is unknown, or said
	// to be two, hours in the owner's own zone are closed.
	Offset int16
	Zoned  bool
}

// A Blocking says whether somebody is blocked, and how they notice. Zero: they are not.
type Blocking uint8

// BlockingBy returns that of somebody who is blocked in a style.
func BlockingBy(s Style) Blocking { return Blocking(s) + 1 }

// decision is what becomes of a watcher so blocked.
func (b Blocking) decision() Decision {
	d := Decision{Named: true, Blocked: true}
	if d.Style = Style(b - 1); d.Style == Polite {
		d.Handling, d.View = PoliteBlock, ViewNeutral
	}
	return d
}

// A Visibility says what a watcher shows of itself; the greater shows more.
type Visibility uint8

const (
	Anonymous    Visibility = 1 + iota // that somebody watches
	Pseudonymous                       // a name that is always the same for this owner, and no other's
	Identified                         // its address
)

var visibilityWords = []string{Anonymous: "anonymous", Pseudonymous: "pseudonymous", Identified: "identified"}

func (v Visibility) String() string { return wordOf(visibilityWords, int(v)) }

// wordOf returns one of words, and what a number is that has none.
func wordOf(words []string, n int) string {
	if n < len(words) && words[n] != "" {
		return words[n]
	}
	return "unknown"
}

// How sure a server may be of who a watcher is, as the condition auth and lists of
// watchers have it.
const (
	AuthNone     = 0  // nobody vouches for it
	AuthToken    = 10 // somebody else does, whom the server trusts
	AuthPassword = 20 // it has shown the server what only it knows
	MaxAuth      = 100
)

// AuthOf is how sure the server is of who somebody is of whom it knows no more than
// the address that they signed in as: it checks passwords, and nothing else.
func AuthOf(w kind.Addr) uint8 {
	if w.IsZero() {
		return AuthNone
	}
	return AuthPassword
}

// An Op is what somebody asks for.
type Op uint8

const (
	OpSubscribe Op = iota // to be sent it, and what it becomes
	OpFetch               // to be told once
	OpPublish             // that what they say is taken: messages
)

var opWords = []string{OpSubscribe: "subscribe", OpFetch: "fetch", OpPublish: "publish"}

func (o Op) String() string { return wordOf(opWords, int(o)) }

// Sets of these, as bits.
type (
	visibilities uint8
	ops          uint8
)

func (s visibilities) has(v Visibility) bool { return s&(1<<v) != 0 }
func (s ops) has(o Op) bool                  { return s&(1<<o) != 0 }

func (s visibilities) String() string { return members(visibilityWords, uint8(s)) }
func (s ops) String() string          { return members(opWords, uint8(s)) }

// members names the bits of a set.
func members(words []string, bits uint8) string {
	var names []string
	for i, w := range words {
		if bits&(1<<i) != 0 {
			names = append(names, w)
		}
	}
	return strings.Join(names, ", ")
}

// visibility is what a watcher shows of itself. Of who has no address there is
// nothing to show but that they are there.
func (in *Input) visibility(w kind.Addr) Visibility {
	switch {
	case w.IsZero():
		return Anonymous
	case in.Visibility == 0:
		return Identified
	}
	return in.Visibility
}

func (c *conditions) inSphere(in Input) bool {
	return c.sphere == nil || in.Sphere != "" &&
		slices.ContainsFunc(c.sphere, func(s string) bool { return strings.EqualFold(s, in.Sphere) })
}

// AsksPresence says whether what the owner's presence says, Input.Sphere and
// Input.Offset, can have an effect on what Evaluate says of the watcher w. Where it
// has none, nobody need find out what that is.
func (p *Policy) AsksPresence(w kind.Addr, in Input) bool {
	if !p.asks {
		return false
	}
	for _, i := range p.ruleOf.find(w, nil) {
		if c := &p.rules[i].if_; c.asksPresence() && c.concerns(w, in) {
			return true
		}
	}
	for _, i := range p.limitOf.find(w, nil) {
		if l := &p.limits[i]; l.only.asksPresence() && l.who.concerns(w, in) {
			return true
		}
	}
	return false
}

func (c *conditions) asksPresence() bool { return c.sphere != nil || c.weekly != nil && c.weekly.own }
