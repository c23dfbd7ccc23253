package letter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Operator is the operator's policy. The document is YAML; what is read here is that
// part of it which is JSON as well.
type Operator struct {
	groups map[string][]string
	rules  []operatorRule
	limits []operatorRule

	rewritings []rewriting
	givings    []giving
}

// An operatorRule is one of `rules` or `limits`.
type operatorRule struct {
	id         string
	allow      []string // actions; nil in a limit
	deny       []string
	who        []string // nil in a limit: everybody
	topic      []string
	window     *window
	span       span
	outside    string
	everywhere bool // whom is not asked
}

type operatorDocument struct {
	Users  map[string]json.RawMessage `json:"users"`
	Groups map[string][]string        `json:"groups"`
	Rules  []struct {
		ID      string        `json:"id"`
		Allow   []string      `json:"allow"`
		Deny    []string      `json:"deny"`
		Who     []string      `json:"who"`
		Topic   []string      `json:"topic"`
		When    *operatorWhen `json:"when"`
		Outside string        `json:"outside"`
	} `json:"rules"`
	Limits []struct {
		ID    string   `json:"id"`
		Topic []string `json:"topic"`
		Only  struct {
			Who  []string      `json:"who"`
			When *operatorWhen `json:"when"`
		} `json:"only"`
	} `json:"limits"`
	Durability    json.RawMessage `json:"durability"` // decides nothing
	Rewrite       []rewriting     `json:"rewrite"`
	Subscriptions []giving        `json:"subscriptions"`
}

type operatorWhen struct {
	Weekly []string  `json:"weekly"`
	TZ     string    `json:"tz"`
	Except []string  `json:"except"`
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
}

// ReadOperator reads a policy of the operator's that is written as JSON.
func ReadOperator(document []byte) (*Operator, error) {
	var d operatorDocument
	if err := strict(document, &d); err != nil {
		return nil, err
	}
	p := &Operator{groups: d.Groups, rewritings: d.Rewrite, givings: d.Subscriptions}
	for _, r := range d.Rules {
		rule := operatorRule{id: r.ID, allow: r.Allow, deny: r.Deny, who: r.Who, topic: r.Topic, outside: r.Outside}
		if err := rule.timed(r.When); err != nil {
			return nil, err
		}
		p.rules = append(p.rules, rule)
	}
	for _, l := range d.Limits {
		limit := operatorRule{id: l.ID, who: l.Only.Who, topic: l.Topic, everywhere: l.Only.Who == nil}
		if err := limit.timed(l.Only.When); err != nil {
			return nil, err
		}
		p.limits = append(p.limits, limit)
	}
	return p, nil
}

func strict(document []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("letter: %w", err)
	}
	return nil
}

func (r *operatorRule) timed(when *operatorWhen) error {
	if when == nil {
		return nil
	}
	r.span = span{when.From, when.Until}
	if len(when.Weekly) == 0 {
		return nil
	}
	zone, err := loadZone(when.TZ)
	if err != nil {
		return err
	}
	r.window = &window{zone: zone, except: when.Except}
	for _, line := range when.Weekly {
		h, err := readLine(line)
		if err != nil {
			return err
		}
		r.window.hours = append(r.window.hours, h)
	}
	return nil
}

// Somebody asks: a principal, empty for who has shown no credentials, by a client id.
type Somebody struct{ Principal, Client string }

// Allows says whether somebody may publish or subscribe to a topic at that instant, as
// far as the operator says: some rule allows it then, none denies it then, and no limit on
// the topic is for others or for other times.
func (p *Operator) Allows(who Somebody, action, topic string, at time.Time) bool {
	return p.grants(who, action, topic, at) && !p.Cuts(who, action, topic, at)
}

func (p *Operator) grants(who Somebody, action, topic string, at time.Time) bool {
	return slices.ContainsFunc(p.rules, func(r operatorRule) bool {
		return slices.Contains(r.allow, action) && p.about(&r, who, topic) && r.open(at)
	})
}

// Cuts says whether the operator forbids it then, whoever else permits it.
func (p *Operator) Cuts(who Somebody, action, topic string, at time.Time) bool {
	for _, r := range p.rules {
		if slices.Contains(r.deny, action) && p.about(&r, who, topic) && r.open(at) {
			return true
		}
	}
	for _, l := range p.limits {
		if l.covers(who, topic) && !((l.everywhere || p.includes(l.who, who)) && l.open(at)) {
			return true
		}
	}
	return false
}

// Ends says whether a rule that is about somebody's subscribing to the topic ends
// subscriptions with its window.
func (p *Operator) Ends(who Somebody, topic string) bool {
	return slices.ContainsFunc(p.rules, func(r operatorRule) bool {
		return r.outside == "end" && slices.Contains(r.allow, "subscribe") && p.about(&r, who, topic)
	})
}

func (p *Operator) about(r *operatorRule, who Somebody, topic string) bool {
	return p.includes(r.who, who) && r.covers(who, topic)
}

func (r *operatorRule) open(at time.Time) bool {
	return r.span.open(at) && (r.window == nil || r.window.open(at))
}

func (r *operatorRule) covers(who Somebody, topic string) bool {
	return slices.ContainsFunc(r.filters(who), func(filter string) bool { return Matches(filter, topic) })
}

// filters are those that the rule is about for somebody.
func (r *operatorRule) filters(who Somebody) []string {
	if !strings.Contains(strings.Join(r.topic, ""), "{") {
		return r.topic
	}
	local, domain, _ := strings.Cut(who.Principal, "@")
	var all []string
	for _, filter := range r.topic {
		if who.Principal == "" && (strings.Contains(filter, "{local}") || strings.Contains(filter, "{domain}")) {
			continue
		}
		all = append(all, strings.NewReplacer("{local}", local, "{domain}", domain, "{client}", percent(who.Client)).Replace(filter))
	}
	return all
}

// includes says whether a list of whom a rule is about has somebody.
func (p *Operator) includes(list []string, who Somebody) bool {
	_, domain, _ := strings.Cut(who.Principal, "@")
	for _, w := range list {
		group, isGroup := strings.CutPrefix(w, "group:")
		of, isDomain := strings.CutPrefix(w, "*@")
		switch {
		case w == "anyone", w == "*",
			w == "anonymous" && who.Principal == "",
			w == "*@*" && who.Principal != "",
			isDomain && domain == of && who.Principal != "",
			isGroup && slices.Contains(p.groups[group], who.Principal) && who.Principal != "",
			w == who.Principal:
			return true
		}
	}
	return false
}

// Matches says whether a topic is one of a filter's (5.0 4.7).
func Matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "#" || f[0] == "+") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}
