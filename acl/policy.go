package acl

// Bounds on a policy, beside those on the file (MaxFile). What is over them is
// a fault of the file.
const (
	MaxUsers  = 10_000
	MaxGroups = 1_000
	MaxRules  = 5_000 // limits included
	MaxTests  = 1_000
)

// A Policy is one version of the operator's policy. It never changes and is
// safe for concurrent use.
type Policy struct {
	file   string // its name, for explanations
	domain string // of bare names; may be empty

	users map[string]credential // by canonical address
	decoy *passwordHash         // what an unknown user's password is checked against; nil if nobody has one
	scram scramForm             // of most verifiers; none if nobody has one

	issuers []Issuer
	logins  []Login // the first that names a listener decides
	groups  []*group
	roles   []role
	tenants []tenant
	durability
	delays Delays

	rewrites  []*rewrite // in the order of the file
	rewriting rewriteIndex
	givens    []*given

	rules   []*rule // limits included, by id
	index   index
	cuts    index     // of the rules with a window that deny or limit
	ceiling index     // of all rules that deny or limit
	bounded bool      // there are such
	windows []*Window // of all rules, each once
	tests   []*selfTest
	kinds   []string // first levels of the topics that have owners
}

// Open returns the policy under which everybody may publish and subscribe to
// every topic, with or without credentials, as a file: for `--allow-anonymous`
// without a policy. `#` is not about names that begin with $; of these, the
// broker's own state may be read.
func Open() []byte {
	return []byte(`# Everybody may publish and subscribe to every plain topic.
rules:
  - id: everybody
    allow: [publish, subscribe]
    who: [anyone]
    topic: ["#"]
  - id: everybody-sys
    allow: [subscribe]
    who: [anyone]
    topic: ["$SYS/#"]
`)
}

// Members returns how many addresses the group of that name has.
func (p *Policy) Members(name string) int {
	for _, g := range p.groups {
		if g.name == name {
			return len(g.members)
		}
	}
	return 0
}

// Domain is that of bare names in the file; it may be empty.
func (p *Policy) Domain() string { return p.domain }

// KnowsClients says whether the answer may depend on the client id: whether a topic has
// {client} in it.
func (p *Policy) KnowsClients() bool {
	for _, r := range p.rules {
		for _, pattern := range r.patterns {
			for _, l := range pattern.levels {
				for _, part := range l.parts {
					if part.hole == clientHole {
						return true
					}
				}
			}
		}
	}
	return false
}
