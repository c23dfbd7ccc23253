package acl

import (
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// clientsTree begins the topics that tell of clients that come and go: domain, client and
// what has happened follow. What rules allow there the broker narrows, by who looks after
// whom (broker.Overseer): that is not theirs to give.
const clientsTree = "$SYS/bellwire/clients/"

// OperatorsGroup is the group of those who may act on nodes.
const OperatorsGroup = "operators"

// Operates says whether principal is one of the cluster's operators. Who is a user of a
// domain's part is whom its administrators say: no operator.
func (p *Policy) Operates(principal string) bool {
	return p.In(OperatorsGroup, principal) && p.UserOf(principal) == ""
}

// Confined says whether what becomes of a domain's people is for those alone who operate the
// cluster or administer the domain: it is a tenant, or has administrators.
func (p *Policy) Confined(domain string) bool {
	return p.IsTenant(domain) || p.HasAdministrators(domain)
}

// tellsClients says whether a filter may match what is told of clients.
func tellsClients(filter string) bool {
	return strings.HasPrefix(filter, "$SYS/") && topic.Overlaps(filter, clientsTree+"#")
}

// ClientsOf returns the one domain of whose clients a filter is about; empty if it is about
// those of all domains, or about none.
func ClientsOf(filter string) (domain string) {
	if tellsClients(filter) {
		domain, _ = clientsAsked(filter)
	}
	return domain
}

// explainClients says what of clients somebody is told whom rules let subscribe to it; if that
// is nothing, the answer is no.
func (p *Policy) explainClients(e *Explanation) {
	if e.Action != Subscribe || !e.Allow || !tellsClients(e.Topic) {
		return
	}
	shows := func(what string) { e.lines = append(e.lines, "  shows    "+what) }
	who := e.Who.Principal
	if p.Operates(who) {
		shows("clients of all domains, and their addresses: " + who + " is in group:" + OperatorsGroup)
		return
	}
	domain, what := clientsAsked(e.Topic)
	if own := p.Administers(who); len(own) > 0 {
		list := strings.Join(own, ", ")
		if domain == "" || slices.Contains(own, domain) {
			shows("clients of " + list + " alone, and their addresses: " + who + " administers it (roles)")
			return
		}
		p.showsNothing(e, who+" administers "+list+" (roles), and is told of clients of no other domain")
		return
	}
	switch {
	case what == "address":
		p.showsNothing(e, "addresses of clients go to operators (group:"+OperatorsGroup+") and to administrators of their domain (roles) alone")
	case domain != "" && p.Confined(domain):
		p.showsNothing(e, "of clients of "+domain+", which is a tenant or has administrators (roles), these and operators (group:"+OperatorsGroup+") alone are told")
	case domain != "":
		shows("no addresses: those go to operators (group:" + OperatorsGroup + ") and to administrators of the domain (roles)")
	default:
		shows("no clients of a domain that is a tenant or has administrators (roles), and no addresses: those go to operators (group:" + OperatorsGroup + ") and to these")
	}
}

// clientsAsked returns the one domain that a filter, which may match what is told of clients,
// is about, and what it is to have happened; each empty if it may be any.
func clientsAsked(filter string) (domain, what string) {
	levels, named := strings.Split(filter, "/"), func(s string) string {
		if s == "+" || s == "#" {
			return ""
		}
		return s
	}
	if at := slices.Index(levels, "#"); at >= 0 {
		levels = levels[:at]
	}
	if len(levels) > 3 {
		domain = named(levels[3])
	}
	if len(levels) > 5 {
		what = named(levels[5])
	}
	return domain, what
}

// showsNothing has a yes of the rules be a no, for the rest is not theirs to give.
func (p *Policy) showsNothing(e *Explanation, why string) {
	e.lines = []string{"  because  " + why, "           rules allow the topic (" + e.Rule + "), which does not suffice"}
	e.Decision, e.Opens, e.then = Decision{Reason: why}, time.Time{}, Decision{}
}
