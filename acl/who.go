package acl

import (
	"maps"
	"slices"
	"strings"
)

// A Who is somebody who wants to do something: a principal behind a client id.
type Who struct {
	// Principal is a canonical address (ParseAddress), empty for a client that
	// showed no credentials.
	Principal string

	// Client is the MQTT client id. Its holder chose it: it says nothing about
	// who it is.
	Client string
}

// String returns the principal, or "anonymous".
func (w Who) String() string {
	if w.Principal == "" {
		return "anonymous"
	}
	return w.Principal
}

// local and domain return the parts of the principal, empty for anonymous.
func (w Who) local() string {
	local, _, _ := strings.Cut(w.Principal, "@")
	return local
}

func (w Who) domain() string {
	_, domain, _ := strings.Cut(w.Principal, "@")
	return domain
}

// The words of `who` that are no addresses.
const (
	anyone    = "anyone"    // everybody, with or without credentials; also written *
	anonymous = "anonymous" // who showed no credentials
	signedIn  = "*@*"       // who showed some
)

// An audience is whom a rule is about: the entries of its `who`, any of which
// may match.
type audience struct {
	anyone, anonymous, signedIn bool

	domains []string // *@domain, without the *@
	people  map[string]struct{}
	groups  []*group
}

// A group is a named set of addresses.
type group struct {
	name    string
	line    int
	members map[string]struct{}
}

// has says whether principal, empty for anonymous, is in the audience.
func (a *audience) has(principal string) bool {
	if a.anyone {
		return true
	}
	if principal == "" {
		return a.anonymous
	}
	if a.signedIn {
		return true
	}
	if _, ok := a.people[principal]; ok {
		return true
	}
	for _, g := range a.groups {
		if _, ok := g.members[principal]; ok {
			return true
		}
	}
	return len(a.domains) > 0 && slices.Contains(a.domains, Who{Principal: principal}.domain())
}

// byName says whether the audience is made of addresses and groups alone, so
// that an index by address can stand for it.
func (a *audience) byName() bool {
	return !a.anyone && !a.anonymous && !a.signedIn && len(a.domains) == 0
}

// A likeness is equal for audiences that are the same people, as far as that is easily
// seen: those of named people are like no other.
type likeness struct {
	anyone, anonymous, signedIn bool

	domains string // of words without spaces
	groups  [2]*group
	alone   *audience
}

func (a *audience) likeness() likeness {
	l := likeness{anyone: a.anyone, anonymous: a.anonymous, signedIn: a.signedIn}
	if len(a.people) > 0 || len(a.groups) > len(l.groups) {
		return likeness{alone: a}
	}
	l.domains = strings.Join(slices.Sorted(slices.Values(a.domains)), " ")
	copy(l.groups[:], a.groups)
	return l
}

// names returns the addresses in a, those of groups included.
func (a *audience) names() []string {
	names := slices.Collect(maps.Keys(a.people))
	for _, g := range a.groups {
		names = slices.AppendSeq(names, maps.Keys(g.members))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// size bounds the number of names.
func (a *audience) size() int {
	n := len(a.people)
	for _, g := range a.groups {
		n += len(g.members)
	}
	return n
}

// why says which entry lets principal in, and at which line to look (0: at the
// rule's own).
func (a *audience) why(principal string) (text string, line int) {
	who := Who{Principal: principal}
	_, listed := a.people[principal]
	switch {
	case principal == "" && a.anonymous:
		return "clients without credentials are listed (anonymous)", 0
	case listed:
		return principal + " is listed", 0
	}
	for _, g := range a.groups {
		if _, ok := g.members[principal]; ok {
			return principal + " is in group:" + g.name, g.line
		}
	}
	switch {
	case principal != "" && slices.Contains(a.domains, who.domain()):
		return principal + " is one of *@" + who.domain(), 0
	case principal != "" && a.signedIn:
		return principal + " has signed in (*@*)", 0
	case a.anyone:
		return "everybody is listed (anyone)", 0
	}
	return who.String() + " is not listed", 0
}
