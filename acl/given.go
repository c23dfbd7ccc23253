package acl

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// A given is an entry of `subscriptions`: what clients are subscribed to without asking, when
// their sessions begin.
type given struct {
	id      string
	line    int
	who     *audience
	filters [][]destPart
	texts   []string // filters as they are written
	qos, rh uint8
	nl, rap bool
}

// A Given is a subscription that a client is given.
type Given struct {
	Entry             string // the id of what gives it
	Filter            string
	QoS               uint8
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8
}

// Bounds on what is given: entries of a policy, filters of one, and filters that one client is
// given at most.
const (
	MaxGivens       = 1_000
	maxGivenFilters = 100
	MostGiven       = 100
)

// readGiven reads an entry of `subscriptions`.
func (r *reader) readGiven(n *yamltree.Node) {
	f, ok := r.Table(n, "a subscription", "id", "who", "topic", "qos", "nl", "rap", "rh")
	if !ok {
		return
	}
	made := &given{id: r.readID(n, f["id"], "subscription"), line: n.Pos.Line, who: r.readWho(n, f["who"])}
	if f["topic"] == nil {
		r.FailAt(n.Pos, problemf("no topic").Hint(`add topic: ["cmd/${clientid}/#"]`))
	} else {
		for _, v := range r.Values(f["topic"], "topics") {
			parts, err := parseGiven(v.Text)
			if err != nil {
				r.Report(v, err)
				continue
			}
			made.filters, made.texts = append(made.filters, parts), append(made.texts, v.Text)
		}
		if len(made.filters) > maxGivenFilters {
			r.Fail(f["topic"], "more than %d topics of a subscription", maxGivenFilters)
		}
	}
	r.readOption(f["qos"], "qos", 2, &made.qos)
	r.readOption(f["rh"], "rh", 2, &made.rh)
	made.nl, made.rap = r.readFlag(f["nl"], "nl"), r.readFlag(f["rap"], "rap")
	for _, other := range r.policy.givens {
		if other.id == made.id && made.id != "" {
			r.FailAt(n.Pos, problemf("a second subscription with id %q, the first is at line %d", made.id, other.line))
		}
	}
	r.policy.givens = append(r.policy.givens, made)
}

// readOption reads a number from 0 to most.
func (r *reader) readOption(n *yamltree.Node, name string, most uint64, to *uint8) {
	if n == nil {
		return
	}
	text, ok := r.Text(n, name)
	if !ok {
		return
	}
	v, err := strconv.ParseUint(text, 10, 8)
	if err != nil || v > most {
		r.FailAt(n.Pos, problemf("%s: %q, want 0 to %d", name, shown(text), most))
		return
	}
	*to = uint8(v)
}

// readFlag reads true or false, which may also be written as EMQX does, 1 or 0.
func (r *reader) readFlag(n *yamltree.Node, name string) bool {
	if n == nil {
		return false
	}
	switch text, ok := r.Text(n, name); {
	case !ok:
	case text == "true", text == "1":
		return true
	case text != "false" && text != "0":
		r.FailAt(n.Pos, problemf("%s: %q, want true or false", name, shown(text)))
	}
	return false
}

// parseGiven reads a filter with placeholders. What is given is of plain topics alone: to
// what has an owner its administrators provide people with subscriptions, and to what is
// shared, or the broker's own, clients subscribe themselves.
func parseGiven(s string) ([]destPart, error) {
	if len(s) > maxRewriteTo {
		return nil, problemf("a topic of %d bytes, at most %d are possible", len(s), maxRewriteTo)
	}
	if strings.HasPrefix(s, "$share/") {
		return nil, problemf("%q is a shared subscription", shown(s)).Hint("clients subscribe to these themselves")
	}
	if strings.HasPrefix(s, "$") && !strings.HasPrefix(s, "${") {
		return nil, problemf("%q: what begins with $ is the broker's own", shown(s))
	}
	parts, err := parseDest(s, destHoles[:], false)
	if err != nil {
		return nil, err
	}
	var plain strings.Builder
	for _, p := range parts {
		if p.of != noDest {
			plain.WriteByte('x')
		}
		plain.WriteString(p.text)
	}
	filter := plain.String()
	if err := topic.ValidFilter(filter); err != nil {
		return nil, problemf("%q is no topic filter: %v", shown(s), err)
	}
	return parts, mayGive(filter)
}

// mayGive says why a filter is none that is given.
func mayGive(filter string) error {
	first, _, _ := strings.Cut(filter, "/")
	switch {
	case first == "#", first == "+":
		return problemf("%q reaches topics that have owners", shown(filter)).Hint("begin with a word")
	case slices.Contains(ownedLevels, first):
		return problemf("%q: to what has an owner people are provided with subscriptions", shown(filter)).Hint("bellwire admin provision --domain D")
	case strings.HasPrefix(filter, "$"):
		return problemf("%q: what begins with $ is the broker's own", shown(filter))
	}
	return nil
}

// HasGivens says whether clients are given subscriptions.
func (p *Policy) HasGivens() bool { return len(p.givens) > 0 }

// Given returns the subscriptions that who is given when a session begins, of a client that has
// come from an address, host:port or empty: of one filter the first entry's, and MostGiven at
// most. What takes a placeholder for which the client has nothing, or comes out as a filter that
// is not given, is left out. It does not ask the rules.
func (p *Policy) Given(who Who, address string) (all []Given) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	values := [...]string{destClient: who.Client, destUser: who.Principal, destHost: host}
	for _, g := range p.givens {
		if !g.who.has(who.Principal) {
			continue
		}
		for _, parts := range g.filters {
			filter, ok := fillIn(parts, values[:])
			if !ok || topic.ValidFilter(filter) != nil || mayGive(filter) != nil ||
				slices.ContainsFunc(all, func(one Given) bool { return one.Filter == filter }) {
				continue
			}
			if len(all) == MostGiven {
				return all
			}
			all = append(all, Given{Entry: g.id, Filter: filter, QoS: g.qos, NoLocal: g.nl, RetainAsPublished: g.rap, RetainHandling: g.rh})
		}
	}
	return all
}

// fillIn writes values in the place of holes; ok is false if one is empty.
func fillIn(parts []destPart, values []string) (filter string, ok bool) {
	var b []byte
	for _, p := range parts {
		if p.of == noDest {
			b = append(b, p.text...)
			continue
		}
		if values[p.of] == "" {
			return "", false
		}
		b = appendEscaped(b, values[p.of])
	}
	return string(b), true
}

func (g *given) describe() string {
	return fmt.Sprintf("who %s; topics %s; qos %d; nl %t; rap %t; rh %d", strings.Join(g.who.words(), ","), strings.Join(g.texts, ","), g.qos, g.nl, g.rap, g.rh)
}
