package acl

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/yamltree"
)

// Bounds on a part, beside those on a policy.
const (
	MaxPart      = 256 << 10 // bytes
	MaxPartUsers = 2_000
	MaxPartRules = 500
)

// partSections are the keys of a part.
var partSections = []string{"users", "groups", "rules", "limits", "tests"}

// A Part is what a tenant says of its own: its users, groups, rules, ceilings and tests.
// It never changes. A policy that it is added to (With) reads as if its rules stood in
// the operator's file, but for what reaches outside, which is of no effect:
//
//   - Whom it is about are people of the domain, one by one, in groups of its own or all
//     of them; so nobody else is named in it, or asked about.
//   - Its rules are about topics that the operator gave the tenant. What forbids may also
//     be about what its people own: {kind}/{domain}/#.
//   - It adds users, but none that is the operator's: one of its own users, or somebody
//     whom its file names and an issuer or a certificate may prove (see operatorsOwn). What
//     is allowed to a name is allowed to whoever proves to have it.
//
// Denials and limits of the operator cut what it allows as they cut all else, so it cannot
// grant more than they leave.
type Part struct{ policy *Policy }

// ParsePart makes a part of the bytes of a domain's file. The error is a *FileError with
// every fault of it. operator, if it is not nil, says what topics the tenant has: rules
// about others are faults, too. Without, they are read, and With leaves them out: what an
// operator takes away later makes no part unreadable. Users that are reserved are faults as
// well: whom the node that asks lets nobody sign in as, which the policy does not know.
func ParsePart(name string, data []byte, domain string, operator *Policy, reserved ...string) (*Part, error) {
	canonical, err := ParseDomain(domain)
	if err != nil {
		return nil, fmt.Errorf("acl: the part's domain: %w", err)
	}
	r := reader{
		zones: zoneCache{}, windows: map[string]*Window{}, policy: &Policy{file: name, domain: canonical},
		part: &partRules{domain: canonical},
	}
	if operator != nil {
		own := operator.operatorsOwn()
		r.part.kinds = operator.kinds
		r.part.taken = func(principal string) bool { return own(principal) || slices.Contains(reserved, principal) }
		if r.part.tenant = operator.tenant(canonical); r.part.tenant == nil {
			return nil, fmt.Errorf("acl: %s is no tenant", canonical)
		}
	}
	var top *yamltree.Node
	r.Reader, top = yamltree.Read(name, data, form)
	if top != nil && len(data) > MaxPart {
		r.Fail(top, "a part of %d bytes, at most %d are possible", len(data), MaxPart)
	} else if top != nil {
		r.read(top)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return &Part{r.policy}, nil
}

// partRules are what a part is held to while it is read.
type partRules struct {
	domain string
	tenant *tenant // nil: its topics are not looked at
	kinds  []string
	taken  func(principal string) bool // see operatorsOwn; nil: not looked at
}

// checkUser says whether the part may say what proves a user.
func (c *partRules) checkUser(principal string) error {
	if c == nil || c.taken == nil || !c.taken(principal) {
		return nil
	}
	return problemf("what proves %s is the operator's to say", principal).Hint("the operator's file has it among its users, or names it, and an issuer or a certificate proves it, or it is a bridge")
}

// checkTopic says whether a rule of the part may be about a pattern.
func (c *partRules) checkTopic(p *pattern, forbids bool) error {
	if c == nil || c.tenant == nil || c.tenant.owns(p.text, forbids, c.kinds) {
		return nil
	}
	has := "the operator gave it none"
	if len(c.tenant.topics) > 0 {
		has = "it has " + listed(c.tenant.topics, maxCovered)
	}
	if forbids && len(c.kinds) > 0 {
		has += ", and what its people own, such as " + c.kinds[0] + "/" + c.domain + "/#"
	}
	return problemf("%q is no topic of %s", shown(p.text), c.domain).Hint("%s", has)
}

// checkAddress says whether a part may name an address.
func (c *partRules) checkAddress(address string) error {
	if c == nil || strings.HasSuffix(address, "@"+c.domain) {
		return nil
	}
	return problemf("%q is not of %s", shown(address), c.domain).Hint("a domain's own policy is about its own people")
}

// checkKind says whether a part may speak of all whom a word of `who` stands for.
func (c *partRules) checkKind(word string) error {
	if c == nil || word == "*@"+c.domain {
		return nil
	}
	return problemf("%q is not of %s only", shown(word), c.domain).Hint(`write "*@%s" for all of them`, c.domain)
}

// Domain is whose part it is.
func (t *Part) Domain() string { return t.policy.domain }

// With returns p with the parts of tenants in force beside it. It depends on nothing but
// p and them, whatever their order. A part of a domain that is no tenant any more is of no
// effect, as are its rules about topics that the tenant has not any more.
func (p *Policy) With(parts []*Part) *Policy {
	parts = slices.DeleteFunc(slices.Clone(parts), func(t *Part) bool { return p.tenant(t.Domain()) == nil })
	if len(parts) == 0 {
		return p
	}
	slices.SortFunc(parts, func(a, b *Part) int { return strings.Compare(a.Domain(), b.Domain()) })
	with := *p
	with.users = maps.Clone(p.users)
	with.windows = slices.Clone(p.windows)
	with.rules = make([]*rule, 0, len(p.rules))
	for _, r := range p.rules {
		own := *r // its rank becomes another
		with.rules = append(with.rules, &own)
	}
	taken := p.operatorsOwn()
	for _, t := range parts {
		with.add(t, p.tenant(t.Domain()), p.kinds, taken)
	}
	with.finish()
	return &with
}

// add adds a part. p is being made.
func (p *Policy) add(t *Part, tenant *tenant, kinds []string, taken func(principal string) bool) {
	for name, c := range t.policy.users {
		if !taken(name) {
			c.part = t.Domain()
			p.users[name] = c
		}
	}
	for _, r := range t.policy.rules {
		if !r.within(tenant, kinds) {
			continue
		}
		own := *r
		own.of, own.file, own.id = t.Domain(), t.policy.file, t.Domain()+partMark+r.id
		own.prepare()
		p.rules = append(p.rules, &own)
		if own.when != nil && !slices.Contains(p.windows, own.when) {
			p.windows = append(p.windows, own.when)
		}
	}
}

// operatorsOwn says of whom the operator alone says what proves them, whatever a part says:
// of its users, and of whom its file names, one by one, in rules, limits, groups or roles,
// if an issuer may prove them, or certificates sign clients in. A name that nothing of the
// operator's proves is meant for a user of the part, who then has what that says.
func (p *Policy) operatorsOwn() func(principal string) bool {
	named := map[string]struct{}{}
	for _, g := range p.groups {
		maps.Copy(named, g.members)
	}
	for _, r := range p.rules {
		maps.Copy(named, r.who.people)
	}
	for _, o := range p.roles {
		maps.Copy(named, o.who.people)
	}
	certified := slices.ContainsFunc(p.logins, func(l Login) bool { return l.Allows(ByCertificate) })
	users := p.users
	return func(principal string) bool {
		if _, ok := users[principal]; ok {
			return true
		}
		_, ok := named[principal]
		return ok && (certified || p.issued(principal) != "")
	}
}

// partMark separates a domain and the id that a rule has in its part. No id that is written
// has one.
const partMark = ":"

// RuleOf returns whose part a rule of a Decision is of, empty for the operator's own.
func RuleOf(rule string) (domain string) {
	domain, _, ok := strings.Cut(rule, partMark)
	if !ok {
		return ""
	}
	return domain
}

// within says whether all of the rule is the tenant's to say.
func (r *rule) within(t *tenant, kinds []string) bool {
	return !slices.ContainsFunc(r.patterns, func(p *pattern) bool { return !t.owns(p.text, r.effect != allow, kinds) })
}

// Idle returns what of a part is of no effect under p: rules, by id, that are about topics
// that the tenant has not, and users who are the operator's, by "user " and their names.
func (p *Policy) Idle(t *Part) (ids []string) {
	tenant := p.tenant(t.Domain())
	taken := p.operatorsOwn()
	for _, name := range t.policy.Known() {
		if taken(name) {
			ids = append(ids, "user "+name)
		}
	}
	for _, r := range t.policy.rules {
		if tenant == nil || !r.within(tenant, p.kinds) {
			ids = append(ids, r.id)
		}
	}
	return ids
}

// UserOf returns whose part has principal as a user, empty if the operator's file has or
// nobody.
func (p *Policy) UserOf(principal string) (domain string) { return p.users[principal].part }

// TestPart runs the tests of a part under p, which is to have it in force. They are told
// of the domain's own people only.
func (p *Policy) TestPart(t *Part) TestReport {
	with := *p
	with.file, with.tests = t.policy.file, t.policy.tests
	run := testRun{policy: &with, used: map[string]bool{}, domain: t.Domain()}
	return run.report()
}

// ComparePart says what a policy with another part of a domain in force has that was has
// not: entries of the parts, either of which may be nil, and answers about the domain's
// people.
func ComparePart(was, is *Policy, before, after *Part, domain string, at time.Time) Diff {
	d := Diff{Entries: []Change{}, Decisions: []ChangedAnswer{}}
	none := &Policy{}
	d.entries(before.orElse(none), after.orElse(none))
	parts := []*Policy{before.orElse(none), after.orElse(none)}
	people := slices.DeleteFunc(everybody(parts...), func(s somebody) bool { return s.who.domain() != domain })
	d.answers(was, is, people, parts, at)
	return d
}

func (t *Part) orElse(none *Policy) *Policy {
	if t == nil {
		return none
	}
	return t.policy
}
