package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/profiles/kind"
)

// An Explanation is a Decision with its reasons. It is for the owner, who may
// ask what anybody would see at any instant, and for nobody else: a watcher is
// not told whether a window is closed, a limit cuts or the owner is away.
type Explanation struct {
	Decision

	// Because is a sentence about what decided.
	Because string

	// Alone is the id of the rule that decides alone, empty if none does.
	Alone string

	// ForwardedBy is the id of the rule by which messages go to Forward, empty if none
	// has them go anywhere.
	ForwardedBy string

	// Live are the ids of the rules that make the view together, CutBy those
	// of the limits that cut it; in the order of the document.
	Live, CutBy []string

	Rules  []RuleReport  // all rules, in the order of the document
	Limits []LimitReport // all limits, likewise
}

// A RuleReport says what one rule did.
type RuleReport struct {
	ID, Pointer string
	Handling    Handling
	Show        kind.Grant

	Counts bool // for the handling: it concerns the watcher, now or later
	Holds  bool // all its conditions do, at this instant

	Conditions []ConditionReport
}

// A LimitReport says what one limit did.
type LimitReport struct {
	ID, Pointer string
	Concerns    bool // the watcher is one whom it limits
	Cuts        bool

	Conditions []ConditionReport
}

// A ConditionReport says whether one condition of a rule or limit holds.
type ConditionReport struct {
	Name  string // as in the document: "weekly"
	Text  string // "Mon-Fri 08:00-17:00 America/Chicago"
	Holds bool

	// Until is when time makes it the other way; zero if it never does.
	Until time.Time
}

// Explain is Evaluate with its reasons. It costs more: every rule is reported.
func (p *Policy) Explain(w kind.Addr, at time.Time, in Input) Explanation {
	e := Explanation{Decision: p.Evaluate(w, at, in)}
	q := p.ask(w, in)
	counting := q.counting(at)
	if len(counting) > 0 && counting[0].alone {
		e.Alone = counting[0].id
	}
	for i := range p.rules {
		r := &p.rules[i]
		report := RuleReport{ID: r.id, Pointer: r.pointer, Handling: r.handling, Show: r.show}
		report.Counts = r.if_.concerns(w, in) && r.if_.everValid(at) && (e.Alone == "" && !r.alone || e.Alone == r.id)
		report.Holds = report.Counts && r.if_.open(at, in)
		report.Conditions = r.if_.report(w, at, in)
		e.Rules = append(e.Rules, report)
	}
	for i := range p.limits {
		l := &p.limits[i]
		report := LimitReport{ID: l.id, Pointer: l.pointer, Concerns: l.who.concerns(w, in)}
		report.Cuts = report.Concerns && l.closed(w, at, in)
		report.Conditions = append(l.who.report(w, at, in), l.only.report(w, at, in)...)
		e.Limits = append(e.Limits, report)
	}
	p.because(&e, w, at, in)
	return e
}

// because fills in what decided.
func (p *Policy) because(e *Explanation, w kind.Addr, at time.Time, in Input) {
	if read, _ := p.MayRead(w, at); read && (in.Blocked == 0 || w == p.owner) {
		e.Because = "the owner sees everything"
		if w != p.owner {
			e.Because = "who may read for the owner sees everything"
		}
		return
	}
	if in.Blocked != 0 {
		e.Because = fmt.Sprintf("the owner has blocked them, whatever the policy says ($me/blocklist): %s", Style(in.Blocked-1))
		return
	}
	if shown := in.visibility(w); shown < p.demanded {
		e.Because = fmt.Sprintf("the owner wants watchers to be %s, and this one is %s (defaults.minVisibility)", p.demanded, shown)
		return
	}
	counts, holds := 0, Block
	for _, r := range e.Rules {
		if r.Counts {
			counts++
		}
		if r.Holds {
			holds = max(holds, r.Handling)
		}
	}
	for _, l := range e.Limits {
		// A limit cuts what a watcher might see, not what is refused anyway.
		if l.Cuts && e.Handling == Allow {
			e.CutBy = append(e.CutBy, l.ID)
		}
	}
	switch {
	case counts == 0:
		e.Because = fmt.Sprintf("no rule is about this watcher: handling %s is the default", e.Handling)
	case e.Alone != "" && e.Handling < Allow:
		e.Because = fmt.Sprintf("rule %s decides alone about this watcher: %s", e.Alone, e.Handling)
	case e.View == ViewNone:
		e.Because = fmt.Sprintf("of the rules about this watcher none does more than %s", e.Handling)
	case e.Handling == PoliteBlock:
		e.Because = "the rules about this watcher block politely"
	case len(e.CutBy) > 0:
		e.Because = "cut by limit " + strings.Join(e.CutBy, ", ")
	case holds < Allow:
		e.Because = "no rule that allows this watcher applies now"
	case e.View == ViewNeutral:
		e.Because = "the rules that apply show nothing"
	default:
		for _, r := range e.Rules {
			if r.Holds {
				e.Live = append(e.Live, r.ID)
			}
		}
		e.Because = "granted by " + strings.Join(e.Live, ", ")
		if !e.Forward.IsZero() {
			e.ForwardedBy = p.forwards(e.Live)
			e.Because += fmt.Sprintf("; messages go to the inbox of %s by %s, if %s lets their sender in", e.Forward, e.ForwardedBy, e.Forward)
		}
	}
}

// forwards returns the id of the rule that decides where messages go, of those that hold.
func (p *Policy) forwards(live []string) string {
	var g guise
	for i := range p.rules {
		if slices.Contains(live, p.rules[i].id) {
			g.add(&p.rules[i])
		}
	}
	return g.forward.id
}

func (c *conditions) report(w kind.Addr, at time.Time, in Input) []ConditionReport {
	var reports []ConditionReport
	add := func(name, text string, holds bool, until time.Time) {
		reports = append(reports, ConditionReport{Name: name, Text: text, Holds: holds, Until: until})
	}
	if c.who != nil {
		add("identity", c.who.String(), c.who.matches(w), time.Time{})
	}
	if c.contact != nil {
		add("contact", fmt.Sprint(*c.contact), *c.contact == in.Contact, time.Time{})
	}
	if c.seen != 0 {
		add("visibility", c.seen.String(), c.seen.has(in.visibility(w)), time.Time{})
	}
	if c.auth > 0 {
		add("auth", fmt.Sprintf("at least %d", c.auth), c.auth <= in.Auth, time.Time{})
	}
	if c.ops != 0 {
		add("op", c.ops.String(), c.ops.has(in.Op), time.Time{})
	}
	if c.validity != nil {
		open := c.valid(at)
		add("validity", windowsText(c.validity), open, c.validUntil(at, open))
	}
	if c.weekly != nil {
		add("weekly", c.weekly.String(), c.weekly.open(at, in), c.weekly.next(at, in))
	}
	if c.sphere != nil {
		add("sphere", strings.Join(c.sphere, ", "), c.inSphere(in), time.Time{})
	}
	for _, name := range c.unknown {
		add(name, "not known here", false, time.Time{})
	}
	return reports
}

// validUntil returns when valid gives the other answer: validities may overlap
// and touch.
func (c *conditions) validUntil(at time.Time, open bool) time.Time {
	for {
		next := c.validityEdge(at)
		if next.IsZero() || c.valid(next) != open {
			return next
		}
		at = next
	}
}

func windowsText(windows []*acl.Window) string {
	texts := make([]string, len(windows))
	for i, w := range windows {
		texts[i] = w.String()
	}
	return strings.Join(texts, "; ")
}

// String describes the identity on one line; of many it names a few.
func (i *identity) String() string {
	var parts []string
	for _, a := range i.one {
		parts = append(parts, a.String())
	}
	for _, m := range i.many {
		text := "everybody"
		if m.domain != "" {
			text += " of " + m.domain
		}
		if n := len(m.except) + len(m.domains); n > 0 {
			text += fmt.Sprintf(" but %d", n)
		}
		parts = append(parts, text)
	}
	const most = 5
	if len(parts) > most {
		parts = append(parts[:most], fmt.Sprintf("and %d more", len(parts)-most))
	}
	return strings.Join(parts, ", ")
}
