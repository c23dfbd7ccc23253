package letter

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// An Owner is what one owner says of one kind.
type Owner struct {
	address, kind string
	handling      string // of whom no rule names
	demands       string // how much watchers must show of themselves
	rules         []ownerRule
	limits        []ownerRule
	delegates     []delegate
}

// An ownerRule is one of `rules`, or of `limits`: of these conditions says when something
// may be shown.
type ownerRule struct {
	who      identity
	anybody  bool // who says nothing of identities
	sphere   []string
	spans    []span
	hasSpans bool
	window   *window
	contact  *bool
	seen     []string
	auth     int
	ops      []string
	unknown  bool // some condition is one that nobody knows: it never holds

	handling, outside, style string
	show                     Grant

	alone bool // while it is valid no other counts for whom it is about
	id    string

	forward string // whose inbox messages go to that it lets in; empty: it does not say
}

type identity []struct {
	One  string `json:"one"`
	Many *struct {
		Domain string `json:"domain"`
		Except []struct {
			ID     string `json:"id"`
			Domain string `json:"domain"`
		} `json:"except"`
	} `json:"many"`
}

type delegate struct {
	One     string    `json:"one"`
	Sources []string  `json:"sources"`
	Read    bool      `json:"read"`
	Until   time.Time `json:"until"`
}

type ownerDocument struct {
	V        int    `json:"v"`
	Entity   string `json:"entity"`
	Kind     string `json:"kind"`
	Defaults struct {
		Handling      string `json:"handling"`
		MinVisibility string `json:"minVisibility"`
		Outside       string `json:"outside"`
	} `json:"defaults"`
	Rules []struct {
		ID    string                     `json:"id"`
		Label map[string]string          `json:"label"`
		If    map[string]json.RawMessage `json:"if"`
		Then  struct {
			Handling string `json:"handling"`
			Outside  string `json:"outside"`
			Style    string `json:"style"`
			Rank     int    `json:"rank"`
			Alone    bool   `json:"alone"`
			Forward  string `json:"forward"`
			Approve  struct {
				Silent bool `json:"silent"`
			} `json:"approve"`
		} `json:"then"`
		Show map[string]json.RawMessage `json:"show"`
	} `json:"rules"`
	Limits []struct {
		ID   string                     `json:"id"`
		Who  map[string]json.RawMessage `json:"who"`
		Only map[string]json.RawMessage `json:"only"`
	} `json:"limits"`
	Delegates []delegate `json:"delegates"`
}

// ReadOwner reads an owner's policy for a kind: presence, location or im.
func ReadOwner(document []byte, kind, owner, otherwise string) (*Owner, error) {
	var d ownerDocument
	if err := strict(document, &d); err != nil {
		return nil, err
	}
	p := &Owner{address: owner, kind: kind, handling: d.Defaults.Handling, demands: d.Defaults.MinVisibility, delegates: d.Delegates}
	if p.handling == "" {
		p.handling = otherwise
	}
	for _, r := range d.Rules {
		rule := ownerRule{handling: r.Then.Handling, outside: r.Then.Outside, style: r.Then.Style, alone: r.Then.Alone, id: r.ID, forward: bare(r.Then.Forward)}
		if rule.handling == "" {
			rule.handling = "block"
		}
		if rule.outside == "" {
			rule.outside = d.Defaults.Outside
		}
		if err := rule.conditions(r.If); err != nil {
			return nil, err
		}
		var err error
		if rule.show, err = readGrant(r.Show); err != nil {
			return nil, err
		}
		p.rules = append(p.rules, rule)
	}
	for _, l := range d.Limits {
		var limit ownerRule
		all := maps.Clone(l.Only)
		if who, ok := l.Who["identity"]; ok {
			all["identity"] = who
		}
		if err := limit.conditions(all); err != nil {
			return nil, err
		}
		p.limits = append(p.limits, limit)
	}
	return p, nil
}

// Nothing is what counts while an owner has said nothing: whom they have written to may
// write to them, and nobody is shown anything.
func Nothing(kind, owner, otherwise string) *Owner {
	document := `{"v":1}`
	if kind == "im" {
		document = `{"v":1,"rules":[{"id":"contacts","if":{"contact":true},"then":{"handling":"allow"},"show":{"send":true,"typing":true,"receipts":true}}]}`
	}
	p, err := ReadOwner([]byte(document), kind, owner, otherwise)
	if err != nil {
		panic(err)
	}
	return p
}

func (r *ownerRule) conditions(all map[string]json.RawMessage) error {
	_, named := all["identity"]
	r.anybody = !named
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := r.condition(name, all[name]); err != nil {
			return fmt.Errorf("letter: %s: %w", name, err)
		}
	}
	return nil
}

func (r *ownerRule) condition(name string, value json.RawMessage) error {
	switch name {
	case "identity":
		return strict(value, &r.who)
	case "sphere":
		return strict(value, &r.sphere)
	case "contact":
		return strict(value, &r.contact)
	case "visibility":
		return strict(value, &r.seen)
	case "auth":
		return strict(value, &r.auth)
	case "op":
		return strict(value, &r.ops)
	case "validity":
		var spans []struct{ From, Until time.Time }
		r.hasSpans = true
		err := strict(value, &spans)
		for _, s := range spans {
			r.spans = append(r.spans, span{s.From, s.Until})
		}
		return err
	case "weekly":
		return r.weekly(value)
	}
	r.unknown = true
	return nil
}

func (r *ownerRule) weekly(value json.RawMessage) error {
	var w struct {
		TZ          string   `json:"tz"`
		ExceptDates []string `json:"exceptDates"`
		Windows     []struct {
			Days       []string `json:"days"`
			Start, End string
		} `json:"windows"`
	}
	if err := strict(value, &w); err != nil {
		return err
	}
	zone, err := loadZone(w.TZ)
	if err != nil {
		return err
	}
	r.window = &window{zone: zone, except: w.ExceptDates}
	for _, of := range w.Windows {
		h, err := readHours(of.Days, of.Start, of.End)
		if err != nil {
			return err
		}
		r.window.hours = append(r.window.hours, h)
	}
	return nil
}

// An Asking is who asks an owner for something, and what is so beside the document.
type Asking struct {
	Watcher string // empty: nobody in particular
	Op      string // subscribe, fetch or publish
	Sphere  string // of the owner; empty for none, or several
	Contact bool   // the owner has written to the watcher
	Auth    int    // how sure it is who asks
	At      time.Time
}

// A Verdict is what an owner decides.
type Verdict struct {
	Handling string // block, confirm, polite-block or allow
	Named    bool   // some rule has it so
	Closed   bool   // rules allow something, and not now
	Outside  bool   // of those that do, one keeps what was shown while it is closed
	Style    string // of a refusal, if all that refuse say the same
	Shown    Grant  // nil: nothing
	All      bool   // the owner's own view, or that of a delegate who reads
	Forward  string // whose inbox a message goes to that is let in; empty: the owner's
}

var byWeight = []string{"block", "confirm", "polite-block", "allow"}

// Decide says what the watcher may do and is shown.
func (p *Owner) Decide(a Asking) (v Verdict) {
	if p.reads(a) {
		return Verdict{Handling: "allow", Named: true, All: true}
	}
	if p.demands != "" && p.demands != "anonymous" && a.Watcher == "" {
		return Verdict{Handling: "block", Named: true}
	}
	handling, live := 0, 0
	show := Grant{}
	var forward *ownerRule // of several that hold the one whose id comes first
	alone := p.alone(a)
	for i, r := range p.rules {
		if !r.concerns(a) || !r.mayYetHold(a.At) || alone >= 0 && i != alone || alone < 0 && r.alone {
			continue
		}
		v.Named = true
		weight := slices.Index(byWeight, r.handling)
		handling = max(handling, weight)
		if r.handling == "block" {
			v.Style = r.style
		}
		if r.handling == "allow" && r.outside == "hold" {
			v.Outside = true
		}
		if r.holds(a) {
			live = max(live, weight)
			show = show.with(r.show)
			if r.forward != "" && r.handling == "allow" && (forward == nil || r.id < forward.id) {
				forward = &p.rules[i]
			}
		}
	}
	if !v.Named {
		handling = slices.Index(byWeight, p.handling)
	}
	v.Handling = byWeight[handling]
	switch {
	case v.Handling == "block", v.Handling == "confirm":
	case byWeight[live] != "allow" || p.cut(a):
		v.Closed = v.Handling == "allow" && v.Named
	case len(show) > 0:
		v.Shown = show
		if forward != nil && show.Has("send") {
			v.Forward = forward.forward
		}
	}
	return v
}

// alone is the place of the rule that decides alone, -1 if none does: of several the one
// whose id comes first.
func (p *Owner) alone(a Asking) int {
	at := -1
	for i, r := range p.rules {
		if r.alone && r.concerns(a) && r.holds(a) && (at < 0 || r.id < p.rules[at].id) {
			at = i
		}
	}
	return at
}

func (p *Owner) reads(a Asking) bool {
	if a.Watcher == "" {
		return false
	}
	return a.Watcher == p.address || slices.ContainsFunc(p.delegates, func(d delegate) bool {
		return d.Read && bare(d.One) == a.Watcher && (d.Until.IsZero() || a.At.Before(d.Until))
	})
}

// cut says whether a limit that is about the watcher does not hold.
func (p *Owner) cut(a Asking) bool {
	return slices.ContainsFunc(p.limits, func(l ownerRule) bool {
		return (l.anybody || l.who.has(a.Watcher)) && !(l.asked(a) && l.holds(a))
	})
}

// concerns says whether the rule is about who asks, and what they ask.
func (r *ownerRule) concerns(a Asking) bool {
	return (r.anybody || r.who.has(a.Watcher)) && r.asked(a)
}

func (r *ownerRule) asked(a Asking) bool {
	seen := "identified"
	if a.Watcher == "" {
		seen = "anonymous"
	}
	return !r.unknown && (r.contact == nil || *r.contact == a.Contact) && (r.seen == nil || slices.Contains(r.seen, seen)) &&
		r.auth <= a.Auth && (r.ops == nil || slices.Contains(r.ops, a.Op))
}

// mayYetHold says whether a validity is not over.
func (r *ownerRule) mayYetHold(at time.Time) bool {
	return !r.hasSpans || slices.ContainsFunc(r.spans, func(s span) bool { return !s.over(at) })
}

// holds says whether the conditions hold that change with time and the owner.
func (r *ownerRule) holds(a Asking) bool {
	if r.sphere != nil && !slices.ContainsFunc(r.sphere, func(s string) bool { return a.Sphere != "" && strings.EqualFold(s, a.Sphere) }) {
		return false
	}
	if r.hasSpans && !slices.ContainsFunc(r.spans, func(s span) bool { return s.open(a.At) }) {
		return false
	}
	return r.window == nil || r.window.open(a.At)
}

func (i identity) has(watcher string) bool {
	if watcher == "" {
		return false
	}
	_, domain, _ := strings.Cut(watcher, "@")
	for _, e := range i {
		if e.One != "" && bare(e.One) == watcher {
			return true
		}
		if m := e.Many; m != nil && (m.Domain == "" || m.Domain == domain) {
			excepted := false
			for _, x := range m.Except {
				excepted = excepted || x.ID != "" && bare(x.ID) == watcher || x.Domain != "" && x.Domain == domain
			}
			if !excepted {
				return true
			}
		}
	}
	return false
}

// bare is a URI without its scheme.
func bare(uri string) string {
	_, address, ok := strings.Cut(uri, ":")
	if !ok {
		return uri
	}
	return address
}

// Timed says whether something in the document begins or ends for good.
func (p *Owner) Timed() bool {
	return slices.ContainsFunc(p.rules, func(r ownerRule) bool { return r.hasSpans })
}
