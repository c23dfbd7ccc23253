package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/presence"
)

// This file says what somebody was shown of a resource, and why, by the policy
// that its owner has put in force: asked here and not of the broker, whose
// answer it checks.

// demoKinds are the kinds of the demo whose resources are shown. Keys are of no
// use here: nothing is composed.
var demoKinds = map[string]kind.Kind{"presence": presence.New(nil), "location": location.New(nil)}

// policyKind returns what policies for a kind of the demo are read by.
func policyKind(name string) interface {
	policy.For
	DefaultPolicy(kind.Addr) []byte
} {
	if k := demoKinds[name]; k != nil {
		return k
	}
	return im.New()
}

// ownPolicies are those of one owner for one kind.
type ownPolicies struct {
	now    *policy.Policy
	before *policy.Policy // nil if there was none; what was on its way then
}

// force keeps a policy that its owner is about to put in force.
func (d *demo) force(of kind.Resource, document []byte) error {
	p, err := policy.Parse(document, policyKind(of.Kind), of.Addr)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owned[of] = ownPolicies{now: p, before: d.owned[of].now}
	return nil
}

// justBefore is how far from a window's edge a document may have been made by
// the policy as it was before it.
const justBefore = time.Second

// showed shows what somebody was shown.
func (d *demo) showed(w watcher, of kind.Resource, m *paho.Publish) {
	neutral := isNeutral(of, m.Payload)
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.tally.sentAt(w.name+" "+m.Topic, time.Now())
	how, agrees := d.explain(of, w.user, neutral, at)
	if !agrees {
		d.tally.unexpected++
		how = "NOT AS THE POLICY SAYS: " + how
	}
	what, arrow := "shown", " → "
	if neutral {
		what, arrow = "neutral", " ⇥ "
		d.tally.neutral++
	} else {
		d.tally.shown++
	}
	d.tally.last[w.name+" "+m.Topic] = bytes.Clone(m.Payload)
	d.line(what, m.Topic, shownDocument(of.Kind, m.Payload), of.Addr.Local+arrow+w.name, how)
	d.took(w.name, m.Topic)
}

// given returns how many documents were sent so far, by client and topic.
func (d *demo) given() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.tally.given)
}

// unsent shows who watches a resource that has changed and was sent nothing:
// what they may see of it is what it was. before is what had been given.
func (d *demo) unsent(of kind.Resource, before map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range demoWatchers {
		key := w.name + " " + of.Topic()
		last, watches := d.tally.last[key]
		if !watches || d.tally.given[key] != before[key] {
			continue
		}
		how, agrees := d.explain(of, w.user, isNeutral(of, last), time.Now())
		if !agrees {
			continue // what has changed with time is on its way
		}
		d.tally.unsent++
		d.line("unsent", of.Topic(), "still "+shownDocument(of.Kind, last), of.Addr.Local+" ⇥ "+w.name, how)
	}
}

// isNeutral says whether a document is, to the byte, what is shown of an address
// that does not exist.
func isNeutral(of kind.Resource, document []byte) bool {
	k := demoKinds[of.Kind]
	return bytes.Equal(document, k.Encode(k.Neutral(of)).Body)
}

// received shows what came to an inbox: a message, or what became of one.
func (d *demo) received(w watcher, of kind.Resource, m *paho.Publish) {
	var text struct {
		From, Body                     string // of a message
		Recipient, Disposition, Reason string // of a report
		Iseq                           int
	}
	_, from, path, how := json.Unmarshal(m.Payload, &text), kind.Addr{}, "", ""
	value := strconv.Quote(text.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	agrees := false
	if text.Disposition == "" {
		from, _ = kind.ParseAddr(text.From)
		how, agrees = d.explain(of, from.Local, false, time.Now())
		path, how = from.Local+" → "+w.name, fmt.Sprintf("no. %d in the inbox; %s", text.Iseq, how)
	} else {
		from, _ = kind.ParseAddr(text.Recipient)
		how, agrees = d.explain(kind.Resource{Kind: of.Kind, Addr: from}, w.user, true, time.Now())
		value, path = text.Disposition+": "+text.Reason, from.Local+" ⇥ "+w.name
	}
	if !agrees {
		d.tally.unexpected++
		how = "NOT AS THE POLICY SAYS: " + how
	}
	d.tally.delivered++
	d.line("delivered", m.Topic, value, path, how)
	d.took(w.name, m.Topic)
}

// explain says why somebody is shown the neutral document, or is not, by the
// owner's policy; agrees is false if that says otherwise. Requires mu.
func (d *demo) explain(of kind.Resource, who string, neutral bool, at time.Time) (how string, agrees bool) {
	own := d.owned[of]
	if own.now == nil {
		k := policyKind(of.Kind)
		own.now, _ = policy.Parse(k.DefaultPolicy(of.Addr), k, of.Addr)
	}
	watcher := kind.Addr{Local: who, Domain: d.domain}
	for _, p := range []*policy.Policy{own.now, own.before} {
		for _, at := range []time.Time{at, at.Add(-justBefore)} {
			if p == nil {
				continue
			}
			e := p.Explain(watcher, at, policy.Input{})
			switch {
			case e.View != policy.ViewFiltered && neutral:
				return because(of, &e), true
			case e.View == policy.ViewFiltered && neutral && !d.known[of]:
				return of.Addr.Local + " has nothing to show", true
			case e.View == policy.ViewFiltered && !neutral:
				return granted(of, &e), true
			}
		}
	}
	e := own.now.Explain(watcher, at, policy.Input{})
	return e.Because, false
}

// granted says by which rules a policy shows something.
func granted(of kind.Resource, e *policy.Explanation) string {
	how := of.Addr.Local + "'s rule " + strings.Join(e.Live, ", ")
	if of.Kind == "location" {
		how += " shows " + string(e.Grant.Append(nil, demoKinds[of.Kind].Permissions()))
	}
	return how
}

// because says why a policy shows nothing: the rules that name the watcher, and
// what they lack.
func because(of kind.Resource, e *policy.Explanation) string {
	var rules []string
	for _, r := range e.Rules {
		named := false
		for _, c := range r.Conditions {
			named = named || c.Name == "identity" && c.Holds
		}
		if named && !r.Holds {
			rules = append(rules, "rule "+r.ID+" "+holds(false, r.Conditions))
		}
	}
	if len(rules) == 0 {
		return of.Addr.Local + "'s policy: " + e.Because
	}
	return of.Addr.Local + "'s " + strings.Join(rules, "; ")
}

// shownDocument is a document in short.
func shownDocument(kindName string, payload []byte) string {
	switch kindName {
	case "presence":
		var p shownPresence
		if json.Unmarshal(payload, &p) != nil {
			return shown(payload)
		}
		text := p.status()
		if note := p.note(); note != "" {
			text += fmt.Sprintf(" %q", note)
		}
		return text
	case "location":
		return shownLocation(payload)
	}
	return shown(payload)
}

func shownLocation(payload []byte) string {
	var l struct {
		Lat, Lon float64 // as ana publishes it
		Shape    *struct {
			Pos    []float64
			Radius float64
		}
		Civic map[string]string
	}
	if json.Unmarshal(payload, &l) != nil {
		return shown(payload)
	}
	if l.Shape != nil && len(l.Shape.Pos) > 1 {
		l.Lat, l.Lon = l.Shape.Pos[0], l.Shape.Pos[1]
	} else if l.Lat == 0 {
		return "unknown"
	}
	text := fmt.Sprintf("%.4f,%.4f", l.Lat, l.Lon)
	if l.Shape != nil && l.Shape.Radius > 0 {
		text = fmt.Sprintf("%g km at %.3f,%.3f", l.Shape.Radius/1000, l.Lat, l.Lon)
	}
	if city := l.Civic["A3"]; city != "" {
		text += " " + city
	}
	return text
}
