package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Terms are what an owner says about a subscription beside who may have it. They
// are static, as the handling is. Zero values are what holds if nothing is said.
type Terms struct {
	Style  Style // of a refusal; of messages Polite if nothing is said
	Silent bool  // that it is approved is not told: it is pending until there is something to see

	MaxExpires time.Duration // how long it may last before it is refreshed; 0: as the kind has it
	MaxRate    int           // notifications in a minute; 0: as the kind has it

	Outside    Outside       // what a watcher sees while the rules show nothing for now
	WarnBefore time.Duration // how long before a close the watcher is told; 0: not at all
	Reveal     bool          // whether it is open, and until when, is told with the state of the subscription
	Backlog    bool          // what happened on the way to what is shown when it opens is shown, too
}

// A Style says what somebody who is refused notices.
type Style uint8

const (
	Refuse Style = iota // that they are
	Polite              // nothing: as PoliteBlock
	Ignore              // nothing: as Confirm, for ever
)

var styleWords = []string{Refuse: "refuse", Polite: "polite", Ignore: "ignore"}

func (s Style) String() string { return wordOf(styleWords, int(s)) }

// Outside says what a watcher sees while a rule that shows something is closed.
type Outside uint8

const (
	Neutral  Outside = iota // the neutral document, as if the owner were away
	Hold                    // nothing: what they have is left to expire
	Announce                // the neutral document, and an event that says so
	End                     // the subscription ends, and may begin again when it opens
)

var outsideWords = []string{Neutral: "neutral", Hold: "hold", Announce: "announce", End: "end"}

func (o Outside) String() string { return wordOf(outsideWords, int(o)) }

// A Composition says how publications are joined.
type Composition uint8

const (
	Merge    Composition = iota // all of them, as the kind does
	Newest                      // the one that was published last
	Priority                    // the one whose contact has the greatest priority
)

var compositionWords = []string{Merge: "merge", Newest: "newest", Priority: "priority"}

func (c Composition) String() string { return wordOf(compositionWords, int(c)) }

// Bounds of terms.
const (
	minExpires    = 30 * time.Second
	maxExpires    = 365 * 24 * time.Hour
	maxRate       = 6000 // a minute
	maxWarnBefore = 24 * time.Hour
	maxRank       = 1_000_000
	maxOverrides  = 50
)

// RuleTerms are those that a rule states.
type ruleTerms struct {
	Terms
	has termSet
}

// A termSet says which of Terms are stated, but for the numbers, which are if they
// are not 0.
type termSet uint8

const (
	hasStyle termSet = 1 << iota
	hasSilent
	hasOutside
	hasReveal
	hasBacklog
)

// readTerms takes them from a rule's "then".
func (r *reader) readTerms(m *jsontree.Members) (t ruleTerms) {
	if n := m.Take("style"); n != nil {
		t.Style, t.has = Style(choice(n, styleWords)), t.has|hasStyle
	}
	if n := m.Take("approve"); n != nil {
		am := n.Members()
		if s := am.Need("silent"); s != nil {
			t.Silent, t.has = s.Bool(), t.has|hasSilent
		}
		faultRest(am, "silent")
	}
	t.MaxExpires = seconds(m.Take("maxExpires"), minExpires, maxExpires)
	rate := m.Take("maxRate")
	r.ofState(rate)
	t.MaxRate = int(rate.Int(1, maxRate))
	r.readOutside(m, &t)
	r.policy.hasTerms = r.policy.hasTerms || t != ruleTerms{}
	return t
}

// readOutside takes what a rule or the defaults say of closed windows.
func (r *reader) readOutside(m *jsontree.Members, t *ruleTerms) {
	outside, warn, reveal := m.Take("outside"), m.Take("warnBefore"), m.Take("reveal")
	if outside != nil {
		r.ofState(outside)
		t.Outside, t.has = Outside(choice(outside, outsideWords)), t.has|hasOutside
	}
	r.ofState(warn)
	t.WarnBefore = seconds(warn, time.Second, maxWarnBefore)
	if reveal != nil {
		r.ofState(reveal)
		t.Reveal, t.has = reveal.Bool(), t.has|hasReveal
	}
	if n := m.Take("backlog"); n != nil {
		if _, can := r.kind.(kind.Tracker); !can {
			n.Warn("has no effect: of this kind the last state matters, and is shown when a window opens")
		}
		t.Backlog, t.has = n.Bool(), t.has|hasBacklog
	}
	if t.has&hasReveal != 0 || r.policy.terms.Reveal {
		return
	}
	if t.Outside == Announce {
		outside.Warn(sayWhat)
	}
	if t.WarnBefore > 0 {
		warn.Warn(sayWhat)
	}
}

// sayWhat is said of events that say nothing.
const sayWhat = `the watcher is told that something has changed, and not what: "reveal": true says what, and when it changes again`

// ofState warns of what is about windows on what is shown, of a kind that shows nothing.
func (r *reader) ofState(n *jsontree.Node) {
	if r.contacts {
		n.Warn("has no effect on messages")
	}
}

// seconds reads a number of them; zero if there is none.
func seconds(n *jsontree.Node, least, most time.Duration) time.Duration {
	return time.Duration(n.Int(int64(least/time.Second), int64(most/time.Second))) * time.Second
}

// choice returns the index of the word that n is, 0 after a fault.
func choice(n *jsontree.Node, words []string) int {
	return max(0, slices.Index(words, n.OneOf(words...)))
}

// set reads a list of words as bits, by their indexes.
func set(n *jsontree.Node, words []string, possible ...string) (bits uint8) {
	for _, w := range n.List(len(words)) {
		if word := w.OneOf(possible...); word != "" {
			bits |= 1 << slices.Index(words, word)
		}
	}
	if n.Kind() == jsontree.Array && n.Len() == 0 {
		n.Fault("an empty list never holds: leave out %q if any will do", n.Name())
	}
	return bits
}

// readPersona reads the name of a persona.
func readPersona(n *jsontree.Node) string {
	s := n.Text(1, kind.MaxPersona)
	if s == "" {
		return ""
	}
	if err := kind.CheckPersona(s); err != nil {
		n.Fault("%v", err)
	}
	return s
}

// readForward reads to whose inbox the messages go that a rule lets in.
func (r *reader) readForward(n *jsontree.Node, handling Handling) kind.Addr {
	to, ok := readURI(n)
	switch {
	case !r.contacts && r.strict:
		n.Fault("%s is not forwarded, messages are: leave it out", r.policy.kind)
		return kind.Addr{}
	case !r.contacts:
		n.Warn(noEffect)
		return kind.Addr{}
	case !ok:
		return kind.Addr{}
	case to == r.policy.owner:
		n.Fault("messages to %s are to go to the inbox of %s: name another, or leave it out", to, to)
		return kind.Addr{}
	case handling != Allow:
		n.Warn("has no effect: a rule forwards what it lets in, and this one lets nobody in")
		return kind.Addr{}
	}
	return to
}

// readOverrides reads what a rule has its watchers see in place of what was
// published. Only of a kind that can do it: without it the truth would be shown.
func (r *reader) readOverrides(n *jsontree.Node) (all []kind.Override) {
	o, can := r.kind.(kind.Overrider)
	if !can || r.first {
		n.Fault("is not possible here: without it the truth would be shown")
		return nil
	}
	if n.Kind() == jsontree.Object && n.Len() > maxOverrides {
		n.Fault("%d overrides, at most %d are possible", n.Len(), maxOverrides)
		return nil
	}
	for _, m := range n.Members().Rest() {
		all = append(all, kind.Override{Name: m.Name(), Value: o.ReadOverride(m)})
	}
	return all
}

// rankRules gives each rule its place: the greater rank first, then the id.
func (p *Policy) rankRules() {
	byRank := make([]*rule, len(p.rules))
	for i := range p.rules {
		byRank[i] = &p.rules[i]
	}
	slices.SortStableFunc(byRank, func(a, b *rule) int {
		switch {
		case a.rank > b.rank:
			return -1
		case a.rank < b.rank:
			return 1
		}
		return strings.Compare(a.id, b.id)
	})
	for i, r := range byRank {
		r.place = i
	}
}

// A chosen collects what the rules say of the terms: numbers are the greatest that
// any has, and none if one has none; of the rest the first by rank decides. So a
// rule more never makes terms that are narrower.
type chosen struct {
	terms     Terms
	any       bool
	unbounded [2]bool // some rule sets no MaxExpires, no MaxRate
	place     [5]int  // plus one, of the rule that decided each; by bit of termSet
	warns     bool
}

func (c *chosen) add(r *rule) {
	t := &r.terms
	c.any = true
	c.unbounded[0] = c.unbounded[0] || t.MaxExpires == 0
	c.unbounded[1] = c.unbounded[1] || t.MaxRate == 0
	c.terms.MaxExpires = max(c.terms.MaxExpires, t.MaxExpires)
	c.terms.MaxRate = max(c.terms.MaxRate, t.MaxRate)
	if t.WarnBefore > 0 {
		c.terms.WarnBefore, c.warns = max(c.terms.WarnBefore, t.WarnBefore), true
	}
	for bit := range c.place {
		if t.has&(1<<bit) == 0 || c.place[bit] != 0 && c.place[bit] <= r.place+1 {
			continue
		}
		c.place[bit] = r.place + 1
		switch termSet(1 << bit) {
		case hasStyle:
			c.terms.Style = t.Style
		case hasSilent:
			c.terms.Silent = t.Silent
		case hasOutside:
			c.terms.Outside = t.Outside
		case hasReveal:
			c.terms.Reveal = t.Reveal
		case hasBacklog:
			c.terms.Backlog = t.Backlog
		}
	}
}

// over returns what is chosen where rules have chosen, and what else holds where
// they have not.
func (c *chosen) over(standard Terms) Terms {
	t := c.terms
	if !c.any || c.unbounded[0] {
		t.MaxExpires = 0
	}
	if !c.any || c.unbounded[1] {
		t.MaxRate = 0
	}
	if !c.warns {
		t.WarnBefore = standard.WarnBefore
	}
	for bit := range c.place {
		if c.place[bit] != 0 {
			continue
		}
		switch termSet(1 << bit) {
		case hasStyle:
			t.Style = standard.Style
		case hasOutside:
			t.Outside = standard.Outside
		case hasReveal:
			t.Reveal = standard.Reveal
		case hasBacklog:
			t.Backlog = standard.Backlog
		}
	}
	return t
}

// A guise is what the open rules have a watcher see beside what they show: which
// persona, and what in place of the truth; and where their messages go.
type guise struct {
	persona   *rule
	forward   *rule
	overrides []override
}

type override struct {
	of *rule
	kind.Override
}

// add takes what an open rule says, unless one of a greater rank has said it.
func (g *guise) add(r *rule) {
	if r.persona != "" && (g.persona == nil || r.place < g.persona.place) {
		g.persona = r
	}
	if !r.forward.IsZero() && (g.forward == nil || r.place < g.forward.place) {
		g.forward = r
	}
	for _, o := range r.overrides {
		i, known := slices.BinarySearchFunc(g.overrides, o.Name, func(o override, name string) int { return strings.Compare(o.Name, name) })
		switch {
		case !known:
			g.overrides = slices.Insert(g.overrides, i, override{r, o})
		case r.place < g.overrides[i].of.place:
			g.overrides[i] = override{r, o}
		}
	}
}

// goes returns to whose inbox messages go that a grant lets in; zero: to the owner's.
func (u *guise) goes(g kind.Grant) kind.Addr {
	if u.forward == nil || !g.Has(kind.MaySend) {
		return kind.Addr{}
	}
	return u.forward.forward
}

// wear returns what g shows so.
func (u *guise) wear(g kind.Grant) kind.Grant {
	if u.persona == nil && u.overrides == nil {
		return g
	}
	persona := ""
	if u.persona != nil {
		persona = u.persona.persona
	}
	var overrides []kind.Override
	for _, o := range u.overrides {
		overrides = append(overrides, o.Override)
	}
	return g.As(persona, overrides)
}
