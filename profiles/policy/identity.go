package policy

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// An identity is a set of watchers (RFC 4745 section 7.1): those that are one
// of one, or in one of many. Somebody without an identity is in none.
type identity struct {
	one  []kind.Addr
	many []many
}

// A many is a domain, or all who have an identity, without some.
type many struct {
	domain  string // "" for all
	except  []kind.Addr
	domains []string // excepted ones
}

func (i *identity) matches(w kind.Addr) bool {
	if w.IsZero() {
		return false
	}
	return slices.Contains(i.one, w) || slices.ContainsFunc(i.many, func(m many) bool { return m.matches(w) })
}

// names says whether w, who matches, does so by address or domain, and not as one of all.
func (i *identity) names(w kind.Addr) bool {
	return i != nil && (slices.Contains(i.one, w) || slices.ContainsFunc(i.many, func(m many) bool { return m.domain != "" && m.matches(w) }))
}

func (m *many) matches(w kind.Addr) bool {
	return (m.domain == "" || m.domain == w.Domain) && !slices.Contains(m.except, w) && !slices.Contains(m.domains, w.Domain)
}

// Most entries of one identity and exceptions of one many.
const maxIdentities = 2000

// readIdentity reads a list of {"one": …} and {"many": …}. What it does not
// understand is a fault: to pass over an exception would widen what is shown.
func readIdentity(n *jsontree.Node) *identity {
	id := &identity{}
	entries := n.List(maxIdentities)
	if n.Kind() == jsontree.Array && n.Len() == 0 {
		n.Fault(`nobody is in an empty list: leave out "identity" if anybody is meant`)
	}
	for _, e := range entries {
		m := e.Members()
		one, of := m.Take("one"), m.Take("many")
		if (one == nil) == (of == nil) && e.Kind() == jsontree.Object {
			e.Fault(`write either "one" or "many"`)
		}
		if a, ok := readURI(one); ok {
			id.one = append(id.one, a)
		}
		if of != nil {
			id.many = append(id.many, readMany(of))
		}
		faultRest(m, "one", "many")
	}
	return id
}

func readMany(n *jsontree.Node) many {
	m := n.Members()
	defer faultRest(m, "domain", "except")
	of := many{domain: readDomain(m.Take("domain"))}
	for _, e := range m.Take("except").List(maxIdentities) {
		em := e.Members()
		one, domain := em.Take("id"), em.Take("domain")
		if (one == nil) == (domain == nil) && e.Kind() == jsontree.Object {
			e.Fault(`write either "id" or "domain"`)
		}
		if a, ok := readURI(one); ok {
			of.except = append(of.except, a)
		}
		if d := readDomain(domain); d != "" {
			of.domains = append(of.domains, d)
		}
		faultRest(em, "id", "domain")
	}
	return of
}

// readURI reads whom a URI names; ok is false if it is wrong, or names nobody
// who can be known here: such a URI is kept, warned about, and matches nobody.
func readURI(n *jsontree.Node) (a kind.Addr, ok bool) {
	s := n.Text(1, 3*acl.MaxAddress)
	if s == "" {
		return kind.Addr{}, false
	}
	if strings.ContainsAny(s, "*") {
		n.Fault("patterns name nobody (RFC 4745 section 5): write an address, or many with a domain")
		return kind.Addr{}, false
	}
	scheme, a, err := kind.ParseURI(s)
	if err != nil {
		n.Fault("%v", err)
		return kind.Addr{}, false
	}
	if a.IsZero() {
		n.Warn("%s: URIs name nobody who watches here: write pres:name@domain", scheme)
		return kind.Addr{}, false
	}
	return a, true
}

func readDomain(n *jsontree.Node) string {
	s := n.Text(1, 3*acl.MaxAddress)
	if s == "" {
		return ""
	}
	d, err := acl.ParseDomain(s)
	if err != nil {
		n.Fault("%v", err)
	}
	return d
}
