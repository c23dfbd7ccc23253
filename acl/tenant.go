package acl

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// A tenant is an entry of `tenants`: a domain that has a part of the policy to itself
// (see Part), and what of the node it may use.
type tenant struct {
	domain string
	line   int
	topics []string // filters of plain topics that are its own, sorted
	quotas Quotas
}

// Quotas bound what a domain uses of a cluster. 0 bounds nothing.
type Quotas struct {
	Sessions           uint64 // of its people, connected or not
	Subscriptions      uint64 // of these
	RetainedTopics     uint64 // plain ones, by who has published what is retained
	QueueBytes         uint64 // that wait for its people's sessions
	Watchers           uint64 // live subscriptions to what its people own
	Delayed            uint64 // events of its people that wait for their time
	PublishesPerSecond uint64 // of its people, on each node
}

// fields are the quotas by the names that they have in a file, in the order of Quotas.
func (q *Quotas) fields() []quotaField {
	return []quotaField{
		{"sessions", &q.Sessions},
		{"subscriptions", &q.Subscriptions},
		{"retained_topics", &q.RetainedTopics},
		{"queue_bytes", &q.QueueBytes},
		{"watchers", &q.Watchers},
		{"delayed", &q.Delayed},
		{"publishes_per_second", &q.PublishesPerSecond},
	}
}

type quotaField struct {
	name  string
	value *uint64
}

// Bounds on tenants.
const (
	MaxTenants      = 1_000
	MaxTenantTopics = 100
	mostOfQuota     = 1 << 40
	mostPublishes   = 1_000_000 // a second
)

// readTenant reads an entry of `tenants`.
func (r *reader) readTenant(n *yamltree.Node) {
	f, ok := r.Table(n, "a tenant", "domain", "topics", "quotas")
	if !ok {
		return
	}
	made := tenant{line: n.Pos.Line}
	if f["domain"] == nil {
		r.FailAt(n.Pos, problemf("a tenant without a domain").Hint("add domain: example.com"))
	} else if text, ok := r.Text(f["domain"], "domain"); ok {
		domain, err := ParseDomain(text)
		if err != nil {
			r.Report(f["domain"], err)
		}
		made.domain = domain
	}
	if f["topics"] != nil {
		made.topics = r.readTenantTopics(f["topics"])
	}
	if f["quotas"] != nil {
		made.quotas = r.readQuotas(f["quotas"])
	}
	for _, other := range r.policy.tenants {
		if other.domain == made.domain && made.domain != "" {
			r.FailAt(n.Pos, problemf("a second tenant %s, the first is at line %d", made.domain, other.line))
		}
	}
	r.policy.tenants = append(r.policy.tenants, made)
}

// readTenantTopics reads the plain topics that a tenant's own rules may be about.
func (r *reader) readTenantTopics(n *yamltree.Node) (filters []string) {
	for _, v := range r.Values(n, "the topics of a tenant") {
		switch err := topic.ValidFilter(v.Text); {
		case err != nil:
			r.FailAt(v.Pos, problemf("%q is no topic filter: %v", shown(v.Text), err))
		case strings.ContainsRune(v.Text, '{'):
			r.FailAt(v.Pos, problemf("%q: placeholders are for rules", shown(v.Text)).Hint(`write what the tenant has, such as "plant/7/#"`))
		case strings.HasPrefix(v.Text, "$"):
			r.FailAt(v.Pos, problemf("%q: what begins with $ is the broker's", shown(v.Text)))
		default:
			filters = append(filters, v.Text)
		}
	}
	if len(filters) > MaxTenantTopics {
		r.Fail(n, "more than %d topics of a tenant", MaxTenantTopics)
	}
	slices.Sort(filters)
	return slices.Compact(filters)
}

func (r *reader) readQuotas(n *yamltree.Node) (q Quotas) {
	var names []string
	for _, field := range q.fields() {
		names = append(names, field.name)
	}
	f, ok := r.Table(n, "quotas", names...)
	if !ok {
		return q
	}
	for _, field := range q.fields() {
		name, to := field.name, field.value
		most := uint64(mostOfQuota)
		if to == &q.PublishesPerSecond {
			most = mostPublishes
		}
		r.readNumber(f[name], name, most, "leave it out for no quota", to)
	}
	return q
}

// readNumber reads a number from 1 to most into to, which it leaves alone if there is none.
func (r *reader) readNumber(n *yamltree.Node, name string, most uint64, hint string, to *uint64) {
	if n == nil {
		return
	}
	text, ok := r.Text(n, name)
	if !ok {
		return
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v < 1 || v > most {
		r.FailAt(n.Pos, problemf("%s: %q, want 1 to %d", name, shown(text), most).Hint("%s", hint))
		return
	}
	*to = v
}

func (t *tenant) describe() string {
	text := "topics " + strings.Join(t.topics, ",")
	for _, q := range t.quotas.fields() {
		if *q.value > 0 {
			text += "; " + q.name + " " + strconv.FormatUint(*q.value, 10)
		}
	}
	return text
}

// tenant returns the tenant of that domain, nil if it is none.
func (p *Policy) tenant(domain string) *tenant {
	for i := range p.tenants {
		if p.tenants[i].domain == domain {
			return &p.tenants[i]
		}
	}
	return nil
}

// Tenants returns the domains that have a part of the policy to themselves, sorted.
func (p *Policy) Tenants() (domains []string) {
	for _, t := range p.tenants {
		domains = append(domains, t.domain)
	}
	slices.Sort(domains)
	return domains
}

// IsTenant says whether domain is one of them.
func (p *Policy) IsTenant(domain string) bool { return p.tenant(domain) != nil }

// QuotasOf returns what a domain may use; nothing is bounded for who is no tenant.
func (p *Policy) QuotasOf(domain string) Quotas {
	if t := p.tenant(domain); t != nil {
		return t.quotas
	}
	return Quotas{}
}

// owns says whether a rule of the tenant may be about all that filter matches: plain
// topics that the operator gave it and, if it is to forbid only, what its people own
// below the first levels kinds.
func (t *tenant) owns(filter string, forbids bool, kinds []string) bool {
	if slices.ContainsFunc(t.topics, func(own string) bool { return topic.Covers(own, filter) }) {
		return true
	}
	return forbids && slices.ContainsFunc(kinds, func(kind string) bool {
		return topic.Covers(kind+"/"+t.domain+"/#", filter)
	})
}
