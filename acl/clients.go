package acl

import (
	"slices"
	"strings"

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

// confined says whether what becomes of a domain's people is for those alone who operate the
// cluster or administer the domain: it is a tenant, or has administrators.
func (p *Policy) confined(domain string) bool {
	return p.IsTenant(domain) || p.HasAdministrators(domain)
}

// TellsClient says whether principal is told that clients of a domain, "-" for those of nobody,
// come and go, or, with address, where from, if rules allow the topic: operators are told of
// all, administrators of their own domains alone, and others of no addresses, and not of
// domains that are confined. It is what the broker asks of each topic; all that is said of
// filters follows from it.
func (p *Policy) TellsClient(principal, domain string, address bool) bool {
	if p.Operates(principal) {
		return true
	}
	if own := p.Administers(principal); len(own) > 0 {
		return slices.Contains(own, domain)
	}
	return !address && !p.confined(domain)
}

// tellsAny is TellsClient of some of the clients that a filter asks about.
func (p *Policy) tellsAny(principal, domain string, address bool) bool {
	if domain != "" {
		return p.TellsClient(principal, domain, address)
	}
	return len(p.Administers(principal)) > 0 || p.TellsClient(principal, noDomain, address)
}

// noDomain stands for the domain of who has none: it is no host name.
const noDomain = "-"

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

// untold says why who is told nothing of what a filter matches, though rules allow it at some
// time: it is all about clients that do not concern who. Empty as a rule.
func (p *Policy) untold(who Who, what Action, filter string) (why string) {
	if what != Subscribe || !tellsClients(filter) || !topic.Covers(clientsTree+"#", filter) {
		return ""
	}
	return p.toldNothing(who.Principal, filter)
}

// toldNothing says why nothing of what a filter asks about clients is told.
func (p *Policy) toldNothing(who, filter string) (why string) {
	domain, last := clientsAsked(filter)
	address := last == "address"
	switch own := p.Administers(who); {
	case p.tellsAny(who, domain, address):
		return ""
	case len(own) > 0:
		return who + " administers " + strings.Join(own, ", ") + " (roles), and is told of clients of no other domain"
	case address:
		return "addresses of clients go to operators (group:" + OperatorsGroup + ") and to administrators of their domain (roles) alone"
	}
	return "of clients of " + domain + ", which is a tenant or has administrators (roles), these and operators (group:" + OperatorsGroup + ") alone are told"
}

// explainClients says what of clients somebody is told whom rules let subscribe to it.
func (p *Policy) explainClients(e *Explanation) {
	if e.Action != Subscribe || !e.Allow || !tellsClients(e.Topic) {
		return
	}
	who := e.Who.Principal
	domain, _ := clientsAsked(e.Topic)
	what := "no clients of a domain that is a tenant or has administrators (roles), and no addresses: those go to operators (group:" + OperatorsGroup + ") and to these"
	switch own, why := p.Administers(who), p.toldNothing(who, e.Topic); {
	case why != "":
		what = "nothing of clients: " + why
	case p.Operates(who):
		what = "clients of all domains, and their addresses: " + who + " is in group:" + OperatorsGroup
	case len(own) > 0:
		what = "clients of " + strings.Join(own, ", ") + " alone, and their addresses: " + who + " administers it (roles)"
	case domain != "":
		what = "no addresses: those go to operators (group:" + OperatorsGroup + ") and to administrators of the domain (roles)"
	}
	e.lines = append(e.lines, "  shows    "+what)
}

// explainUntold explains a no that is a yes by the rules.
func (p *Policy) explainUntold(e *Explanation) {
	d, _ := p.decide(e.Who, e.Action, e.Topic, seconds(e.At))
	e.lines = []string{"  because  " + e.Reason, "           rules allow the topic (" + d.Rule + "), which does not suffice"}
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
