package acl

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// An Explanation is a Decision with its reasons.
type Explanation struct {
	Who    Who
	Action Action
	Topic  string
	At     time.Time
	Decision

	// Owner says that Allow means only that the operator forbids nothing, and
	// that what the owner permits decides (WithOwners).
	Owner bool

	// Memory says that what is published there is kept in memory only (Policy.Memory).
	Memory bool

	// Rewritten is what was asked about, if Topic is what that is rewritten to.
	Rewritten string

	// Opens is the next instant at which the answer becomes yes: Until if it is
	// no, the first one after Until if it is yes. Zero if there is none.
	Opens time.Time

	then  Decision // the one at Until
	lines []string // of Text, below the first
}

// Explain answers like Decide and says why. topic may be a filter if what is
// Subscribe; the error says what is wrong with it. That of a shared subscription is
// judged as what it matches, which is the explanation's topic.
func (p *Policy) Explain(who Who, what Action, name string, at time.Time) (Explanation, error) {
	asked := name
	name, err := checkTopic(what, name)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Who: who, Action: what, Topic: name, At: at, Owner: p.owned(name)}
	if e.Owner && name != asked {
		e.Reason, e.lines = neverShared, []string{"  because  " + neverShared}
		return e, nil
	}
	var flips bool
	if e.Decision, flips = p.judge(who, what, name, seconds(at)); !flips {
		e.Until = time.Time{} // if not for good, then for longer than anybody asks
	}
	e.Opens = e.Until
	if flips {
		e.then, flips = p.judge(who, what, name, seconds(e.Until))
	}
	if e.Allow {
		if e.Opens = e.then.Until; !flips {
			e.Opens = time.Time{}
		}
	}
	if why := p.untold(who, what, name); why != "" && e.Reason == why {
		p.explainUntold(&e)
		return e, nil
	}
	p.explainWhy(&e)
	p.explainDurability(&e)
	p.explainClients(&e)
	return e, nil
}

// checkTopic returns the name, or what the filter matches, that is to be judged.
func checkTopic(what Action, name string) (judged string, err error) {
	if what == Publish {
		judged, err = name, topic.ValidName(name)
	} else if err = topic.ValidFilter(name); err == nil {
		_, judged, _, err = topic.SplitShare(name)
	}
	if err != nil {
		return "", fmt.Errorf("topic %q: %w", shown(name), err)
	}
	return judged, nil
}

// MarshalJSON writes the members that scripts rely on: allow, rule and line
// (null if no rule has to do with it), until, when the answer becomes the other
// one, and next, when it becomes yes (null for never). With owner true, which is
// left out else, a yes is the operator's alone; durability is there if it is "memory",
// and topic and rewritten, what was asked about, only if it is rewritten.
func (e Explanation) MarshalJSON() ([]byte, error) {
	out := struct {
		Allow bool    `json:"allow"`
		Rule  *string `json:"rule"`
		Line  *int    `json:"line"`
		Until *string `json:"until"`
		Next  *string `json:"next"`
		Owner bool    `json:"owner,omitempty"`
		Keeps string  `json:"durability,omitempty"`
		Topic string  `json:"topic,omitempty"`
		Was   string  `json:"rewritten,omitempty"`
	}{Allow: e.Allow, Until: jsonTime(e.Until), Next: jsonTime(e.Opens), Owner: e.Owner, Was: e.Rewritten}
	if e.Rewritten != "" {
		out.Topic = e.Topic
	}
	if e.Memory {
		out.Keeps = "memory"
	}
	if e.Rule != "" {
		out.Rule, out.Line = &e.Rule, &e.Line
	}
	return json.Marshal(out)
}

func jsonTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339)
	return &s
}

// Text is the explanation for people. Times are those of the zone of the rule
// that it is about.
//
//	ALLOW   subscribe ward/3/alarm   as ana@example.com
//	  by       ward-night            policy.yaml:5
//	  because  ana@example.com is in group:night-staff   policy.yaml:3
//	           window Mon-Sun 22:00-06:00 Europe/Madrid open 22:00 → closes 06:00 (in 6h50m)
//	  next     at 06:00 the window closes; the subscription stays, nothing is delivered until 22:00 (outside: hold)
func (e Explanation) Text() string {
	verdict := "DENY"
	switch {
	case e.Allow && e.Owner:
		verdict = "OWNER"
	case e.Allow:
		verdict = "ALLOW"
	}
	head := fmt.Sprintf("%-7s %s %s   as %s\n", verdict, e.Action, e.Topic, e.Who)
	return head + strings.Join(e.lines, "\n") + "\n"
}

// explainWhy fills in the lines of e.
func (p *Policy) explainWhy(e *Explanation) {
	if e.Rule == "" && e.Allow {
		p.explainLeft(e)
		return
	}
	if e.Rule == "" {
		e.because("%s", e.Reason)
		p.explainNoRule(e)
		return
	}
	r := p.rule(e.Rule)
	e.lines = append(e.lines, fmt.Sprintf("  by       %-20s  %s:%d", r.id, p.fileOf(r), r.pos.Line))
	switch why, line := r.who.why(e.Who.Principal); {
	case r.excludes(e.Who):
		e.because("%s is not among those whom the limit leaves", e.Who)
	case r.effect == limit:
		e.because("the limit leaves a window only")
	case line > 0:
		e.because("%s   %s:%d", why, p.fileOf(r), line)
	default:
		e.because("%s", why)
	}
	switch {
	case r.when == nil:
		e.because("no window: at all times")
	case !r.excludes(e.Who):
		e.because("%s", r.when.explain(seconds(e.At)))
		if except := r.when.explainExcept(seconds(e.At)); except != "" {
			e.because("%s", except)
		}
	}
	if next := e.explainNext(p, clockOf(r)); next != "" {
		e.lines = append(e.lines, "  next     "+next)
	}
}

// fileOf is what the file is called that r stands in.
func (p *Policy) fileOf(r *rule) string {
	if r.of != "" {
		return r.file
	}
	return p.file
}

// because adds a line to the reasons.
func (e *Explanation) because(format string, args ...any) {
	label := "           "
	if len(e.lines) == 0 || strings.HasPrefix(e.lines[len(e.lines)-1], "  by") {
		label = "  because  "
	}
	e.lines = append(e.lines, label+fmt.Sprintf(format, args...))
}

// explainNoRule says what somebody may do who asked for something else.
func (p *Policy) explainNoRule(e *Explanation) {
	if e.Action == Subscribe && topic.HasWildcard(e.Topic) {
		if parts := p.covered(e.Who, e.Topic); len(parts) > 0 {
			e.because("PARTIAL: only %s of it", listed(parts, maxCovered))
			return
		}
	}
	own := widest(p.allows(e.Who, e.Action))
	if len(own) == 0 {
		e.because("%s may %s nothing", e.Who, e.Action)
		return
	}
	e.because("%s may %s %s", e.Who, e.Action, listed(own, maxCovered))
}

// explainNext says what happens when the answer changes; empty if it never
// does.
func (e *Explanation) explainNext(p *Policy, show clock) string {
	if e.Until.IsZero() {
		if e.Windowed && !e.Allow {
			return "never again"
		}
		return ""
	}
	until, by := show(e.At, e.Until), ""
	if r := p.then(e); r != nil && r.id != e.Rule && (!e.Allow || r.effect != allow) {
		by = fmt.Sprintf(" by %s %s (%s:%d)", r.effect, r.id, p.fileOf(r), r.pos.Line)
	}
	if !e.Allow {
		return fmt.Sprintf("at %s it opens%s", until, by)
	}
	again := e.reopens(show)
	if e.Action == Publish {
		return fmt.Sprintf("at %s it closes%s%s", until, by, again)
	}
	closes := "the window closes"
	if by != "" {
		closes = "it closes" + by
	}
	what := "the subscription stays, nothing is delivered" + again
	if e.Owner {
		return fmt.Sprintf("at %s %s; the subscription stays, and shows nothing%s", until, closes, again)
	}
	switch e.Outside {
	case Announce:
		what = "the subscription stays and is told, nothing is delivered" + again
	case End:
		what = "the subscription ends"
	}
	return fmt.Sprintf("at %s %s; %s (outside: %s)", until, closes, what, e.Outside)
}

// then returns the rule that decides at Until; nil if what it leaves does.
func (p *Policy) then(e *Explanation) *rule {
	if e.then.Rule == "" {
		return nil
	}
	return p.rule(e.then.Rule)
}

// reopens says when the answer becomes yes again after Until, if it does.
func (e *Explanation) reopens(show clock) string {
	if e.Opens.IsZero() {
		return ""
	}
	return " until " + show(e.Until, e.Opens)
}

// A clock shows an instant as briefly as can be understood at another one.
type clock func(at, t time.Time) string

// clockOf returns the clock of r's zone.
func clockOf(r *rule) clock {
	if r.when == nil {
		return clockIn(time.UTC)
	}
	return r.when.clock()
}

func (w *Window) clock() clock {
	if w.zone == nil {
		return clockIn(time.UTC)
	}
	return clockIn(w.zone.loc)
}

func clockIn(loc *time.Location) clock {
	return func(at, t time.Time) string {
		layout := "2006-01-02 15:04"
		switch apart := t.Sub(at).Abs(); {
		case apart < 24*time.Hour:
			layout = "15:04"
		case apart < 6*24*time.Hour:
			layout = "Mon 15:04"
		}
		if t.Second() != 0 {
			layout += ":05"
		}
		if loc.String() == "UTC" {
			layout += "Z"
		}
		return t.In(loc).Format(layout)
	}
}

// explain says how the window stands at u.
func (w *Window) explain(u int64) string {
	show, at := w.clock(), utc(u)
	state, change := "closed", "opens"
	if w.openAt(u) {
		state, change = "open", "closes"
	}
	text := "window " + w.text + " " + state
	if since := w.since(u); since != always {
		if state == "closed" {
			text += " since"
		}
		text += " " + show(at, utc(since))
	}
	next := w.nextAt(u)
	if next == never {
		return text + ", for good"
	}
	return fmt.Sprintf("%s → %s %s (in %s)", text, change, show(at, utc(next)), brief(time.Duration(next-u)*time.Second))
}

// brief writes a duration as 3d4h, 6h50m or 40s.
func brief(d time.Duration) string {
	d = d.Round(time.Second)
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm", minutes)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

// An Edge is an instant at which an answer changes.
type Edge struct {
	At    time.Time
	Allow bool
	Rule  string // empty if no rule has to do with it
	Owner bool   // as of Explanation
}

// MarshalJSON writes the members that scripts rely on: at, allow and rule
// (null if no rule has to do with it), and owner as of an Explanation.
func (e Edge) MarshalJSON() ([]byte, error) {
	out := struct {
		At    string  `json:"at"`
		Allow bool    `json:"allow"`
		Rule  *string `json:"rule"`
		Owner bool    `json:"owner,omitempty"`
	}{At: e.At.UTC().Format(time.RFC3339), Allow: e.Allow, Owner: e.Owner}
	if e.Rule != "" {
		out.Rule = &e.Rule
	}
	return json.Marshal(out)
}

// MaxSweep is how many edges a sweep returns.
const MaxSweep = 100_000

// ErrSweep means that a sweep would have more than MaxSweep edges: ask about a
// shorter time.
var ErrSweep = errors.New("more than 100000 edges: ask about a shorter time")

// Sweep returns the answer at from, and then every instant before to at which
// it changes.
func (p *Policy) Sweep(who Who, what Action, name string, from, to time.Time) ([]Edge, error) {
	name, err := checkTopic(what, name)
	if err != nil {
		return nil, err
	}
	var edges []Edge
	for at := from; ; {
		d, _ := p.judge(who, what, name, seconds(at))
		if n := len(edges); n == 0 || edges[n-1].Allow != d.Allow {
			edges = append(edges, Edge{At: at, Allow: d.Allow, Rule: d.Rule, Owner: p.owned(name)})
		}
		at = d.Until
		switch {
		case at.IsZero() || !at.Before(to):
			return edges, nil
		case len(edges) >= MaxSweep:
			return nil, ErrSweep
		}
	}
}
