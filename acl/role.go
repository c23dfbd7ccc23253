package acl

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/yamltree"
)

// A role is an entry of `roles`: who may see what concerns a domain, and nothing else.
type role struct {
	id     string
	line   int
	who    *audience
	domain string

	// unshown: what they look at is written down, and not shown to whom it is about.
	unshown bool
}

// MaxRoles bounds the roles of a policy.
const MaxRoles = 1_000

// readRole reads an entry of `roles`.
func (r *reader) readRole(n *yamltree.Node) {
	f, ok := r.Table(n, "a role", "id", "who", "domain", "unshown")
	if !ok {
		return
	}
	made := role{id: r.readID(n, f["id"], "role"), line: n.Pos.Line, who: r.readWho(n, f["who"])}
	if a := made.who; a.anyone || a.anonymous || a.signedIn {
		r.Fail(f["who"], "a role for everybody: name addresses, groups, or a domain's, such as \"*@example.com\"")
	}
	if f["domain"] == nil {
		r.FailAt(n.Pos, problemf("a role without a domain").Hint("add domain: example.com, whose things its holders may see"))
	} else if text, ok := r.Text(f["domain"], "domain"); ok {
		domain, err := ParseDomain(text)
		if err != nil {
			r.Report(f["domain"], err)
		}
		made.domain = domain
	}
	if f["unshown"] != nil {
		switch text, ok := r.Text(f["unshown"], "unshown"); {
		case ok && text == "true":
			made.unshown = true
		case ok && text != "false":
			r.FailAt(f["unshown"].Pos, problemf("unshown: %q, want true or false", shown(text)))
		}
	}
	for _, other := range r.policy.roles {
		if other.id == made.id && made.id != "" {
			r.FailAt(n.Pos, problemf("a second role with id %q, the first is at line %d", made.id, other.line))
		}
	}
	r.policy.roles = append(r.policy.roles, made)
}

func (o role) describe() string {
	text := "who " + strings.Join(o.who.words(), ",") + "; domain " + o.domain
	if o.unshown {
		text += "; unshown"
	}
	return text
}

// HasRoles says whether there are any, or tenants, which came with them.
func (p *Policy) HasRoles() bool { return len(p.roles)+len(p.tenants) > 0 }

// Administers returns the domains that principal, a canonical address, is an
// administrator of, sorted. Who is a user of a domain's part is one of that domain at the
// most: its administrators say who proves to be him.
func (p *Policy) Administers(principal string) (domains []string) {
	for _, o := range p.roles {
		if of := p.UserOf(principal); principal != "" && o.who.has(principal) && (of == "" || of == o.domain) {
			domains = append(domains, o.domain)
		}
	}
	slices.Sort(domains)
	return slices.Compact(domains)
}

// HasAdministrators says whether a domain has any.
func (p *Policy) HasAdministrators(domain string) bool {
	return slices.ContainsFunc(p.roles, func(o role) bool { return o.domain == domain })
}

// Unshown says whether what principal looks at of a domain is not shown to whom it is about.
func (p *Policy) Unshown(principal, domain string) bool {
	return slices.ContainsFunc(p.roles, func(o role) bool {
		return o.unshown && o.domain == domain && o.who.has(principal)
	})
}

// OfDomains returns what of the answers of WhoCan is about domains, for who may see no
// other: addresses and patterns of theirs, and theirs where everybody may.
func OfDomains(answers, domains []string) (of []string) {
	everybody := slices.Contains(answers, signedIn)
	for _, domain := range domains {
		kind := "*@" + domain
		if everybody && !slices.Contains(answers, "!"+kind) {
			of = append(of, kind)
		}
		for _, a := range answers {
			if strings.HasSuffix(a, "@"+domain) && a != "!"+kind {
				of = append(of, a)
			}
		}
	}
	slices.Sort(of)
	return slices.Compact(of)
}
