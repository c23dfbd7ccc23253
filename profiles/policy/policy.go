package policy

import (
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// A Handling decides the life of a subscription (RFC 5025 section 3.2.1). Of
// several the greatest wins.
type Handling uint8

const (
	Block       Handling = 0  // refused
	Confirm     Handling = 10 // pending until the owner decides
	PoliteBlock Handling = 20 // as if granted, and shown nothing
	Allow       Handling = 30
)

// handlings are the words of a document.
var handlings = map[string]Handling{"block": Block, "confirm": Confirm, "polite-block": PoliteBlock, "allow": Allow}

func (h Handling) String() string {
	switch h {
	case Block:
		return "block"
	case Confirm:
		return "confirm"
	case PoliteBlock:
		return "polite-block"
	default:
		return "allow"
	}
}

// A View says what of a document a watcher gets.
type View uint8

const (
	ViewNone     View = iota // no document: refused, or not yet approved
	ViewNeutral              // the kind's neutral document
	ViewFiltered             // what the grant shows
)

func (v View) String() string {
	return [...]string{ViewNone: "none", ViewNeutral: "neutral", ViewFiltered: "filtered"}[v]
}

// Limits of a document, and the most that kind.Bounds make of them.
const (
	MaxBytes = kind.MaxPolicy
	MaxRules = kind.MaxRules // rules and limits, each

	maxMembers = 16_000 // MaxRules of them, and what MaxBytes leave room for
)

// For is what Parse has to know of the kind that a policy is for. Every
// kind.Kind and kind.Inbox satisfies it. The condition sphere is judged for those
// that are kind.Sphered, and contact for each kind.Inbox: see Check.
type For interface {
	Name() string
	Permissions() []kind.Permission
}

// A Policy is one owner's for one kind. It never changes and is safe for
// concurrent use.
type Policy struct {
	owner       kind.Addr
	kind        string
	permissions []kind.Permission
	handling    Handling   // of whom no rule names
	said        bool       // that handling is the owner's, and not for want of one
	demanded    Visibility // whoever offers less is considered by no rule; zero: nothing is
	terms       Terms      // of whom no rule says otherwise
	compose     Composition
	publishing  watchers.Publishing
	rules       []rule
	limits      []limit
	delegates   []delegate
	warnings    jsontree.Faults

	// What follows from the above.
	ruleOf, limitOf index
	apart           map[kind.Addr]struct{} // see identity.apart
	asks            bool                   // some condition asks what the owner's presence says
	hasTerms        bool                   // some rule, or the default, has any
	hasAlone        bool                   // some rule decides alone
	tells           bool                   // see Tells
	everything      kind.Grant
	unions, staying *unions // of rules that are open, and of those that stay so
	standard        bool    // it is the kind's default
}

// Demanded is the least that the owner wants to know of who watches; 0: nothing.
func (p *Policy) Demanded() Visibility { return p.demanded }

// Publishing says what is told of how many watch.
func (p *Policy) Publishing() watchers.Publishing { return p.publishing }

// Compose says how the owner wants publications joined.
func (p *Policy) Compose() Composition { return p.compose }

// Owner is whose policy it is.
func (p *Policy) Owner() kind.Addr { return p.owner }

// Kind is the name of the kind that it is for.
func (p *Policy) Kind() string { return p.kind }

// SaysHandling says whether the document has a handling for whom no rule names.
func (p *Policy) SaysHandling() bool { return p.said }

// Warnings are the members that were accepted and have no effect, each with its
// pointer.
func (p *Policy) Warnings() jsontree.Faults { return p.warnings }

// A rule grants something to somebody under conditions.
type rule struct {
	id        string
	pointer   string
	rank      int64
	place     int // among all rules: of two that say different things the lesser decides
	if_       conditions
	handling  Handling
	terms     ruleTerms
	alone     bool      // while it is valid no other rule counts for whom it concerns
	forward   kind.Addr // to whose inbox messages go that the rule lets in; zero: it has no say in that
	persona   string    // empty: it has no say in that
	show      kind.Grant
	listed    int // tokens of sets in show
	overrides []kind.Override
}

// Conditions are those of a rule or a limit; all that are there must hold.
type conditions struct {
	who      *identity     // nil: anybody, also without an identity
	contact  *bool         // whether the owner has written to the watcher
	seen     visibilities  // what the watcher shows of itself must be one of them; zero: anything
	auth     uint8         // how sure it is, at least, who the watcher is
	ops      ops           // what is asked for must be one of them; zero: anything
	validity []*acl.Window // one of them must be open; nil: always
	weekly   *weekly       // nil: always
	sphere   []string      // one of them must be the owner's; nil: any
	unknown  []string      // never hold
}

// concerns says whether the watcher is one of those meant.
func (c *conditions) concerns(w kind.Addr, in Input) bool {
	return c.asked(w, in) && (c.who == nil || c.who.matches(w))
}

// asked says whether the question is one that is meant, whoever asks it: what
// does not change while a subscription lasts, but for the identity.
func (c *conditions) asked(w kind.Addr, in Input) bool {
	return len(c.unknown) == 0 && (c.contact == nil || *c.contact == in.Contact) &&
		(c.seen == 0 || c.seen.has(in.visibility(w))) && c.auth <= in.Auth && (c.ops == 0 || c.ops.has(in.Op))
}

// everValid says whether a validity is open at the instant at, or will be.
func (c *conditions) everValid(at time.Time) bool {
	for _, v := range c.validity {
		if v.Open(at) || !v.Next(at).IsZero() {
			return true
		}
	}
	return c.validity == nil
}

// open says whether the conditions hold at the instant at that concerns leaves.
func (c *conditions) open(at time.Time, in Input) bool {
	return c.inSphere(in) && c.valid(at) && (c.weekly == nil || c.weekly.open(at, in))
}

func (c *conditions) valid(at time.Time) bool {
	for _, v := range c.validity {
		if v.Open(at) {
			return true
		}
	}
	return c.validity == nil
}

// validityEdge returns the first instant after at at which time may change what
// everValid or valid answer; zero if none does.
func (c *conditions) validityEdge(at time.Time) time.Time {
	var first time.Time
	for _, v := range c.validity {
		first = earliest(first, v.Next(at))
	}
	return first
}

// cost is how many looks at the time the conditions take, at most.
func (c *conditions) cost() int {
	n := 1 + len(c.validity)
	if c.weekly != nil {
		n++
	}
	return n
}

// earliest returns the earlier of two instants, of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// A limit is "only": of whom it concerns nobody is shown anything while its
// conditions do not hold.
type limit struct {
	id      string
	pointer string
	who     conditions // identity only
	only    conditions // all but identity
}

// A delegate may publish or read for the owner.
type delegate struct {
	who     kind.Addr
	sources []string // "*" for all
	read    bool
	until   time.Time // zero: for good
}

// Demands returns what watchers have to show of themselves at least, zero for
// nothing: the defaults' minVisibility.
func (p *Policy) Demands() Visibility { return p.demanded }
