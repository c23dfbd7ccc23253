package broker

import (
	"strings"
	"sync"
)

// A DomainQuota bounds what the people of a domain use; 0 of any field bounds nothing.
type DomainQuota struct {
	// Sessions is how many sessions there may be of theirs, connected or not, on all
	// nodes. One more is refused with ErrQuota; those that there are go on, also when a
	// policy comes into force that has less.
	Sessions uint64
}

// A quoter is an Authorizer that has quotas of domains.
type quoter interface {
	QuotaOf(domain string) DomainQuota
}

// A DomainUse is what a domain uses.
type DomainUse struct {
	Sessions        uint64
	SessionsRefused uint64 // for want of quota, on this node as it applied the log since it was started
}

// domainUses counts what domains use. The Machine alone writes it.
type domainUses struct {
	mu      sync.Mutex // guards the following
	uses    map[string]DomainUse
	refused map[string]uint64 // only of domains that have a quota, so the policy bounds them
}

func domainOf(principal string) string {
	_, domain, _ := strings.Cut(principal, "@")
	return domain
}

// add counts n sessions more of a principal.
func (d *domainUses) add(principal string, n int) {
	domain := domainOf(principal)
	if domain == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uses == nil {
		d.uses = map[string]DomainUse{}
	}
	u := d.uses[domain]
	if u.Sessions += uint64(n); u.Sessions == 0 {
		delete(d.uses, domain)
		return
	}
	d.uses[strings.Clone(domain)] = u
}

func (d *domainUses) of(domain string) DomainUse {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.uses[domain]
	u.SessionsRefused = d.refused[domain]
	return u
}

func (d *domainUses) refuse(domain string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused == nil {
		d.refused = map[string]uint64{}
	}
	d.refused[strings.Clone(domain)]++
}

// reset forgets the sessions that were counted: another state takes the place of this one.
func (d *domainUses) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uses = nil
}

// sessionFor says whether a principal's domain may have one session more.
func (m *Machine) sessionFor(principal string) error {
	domain := domainOf(principal)
	q, ok := m.policy.(quoter)
	if domain == "" || !ok || m.level < LevelPolicies {
		return nil
	}
	if most := q.QuotaOf(domain).Sessions; most > 0 && m.domains.of(domain).Sessions >= most {
		m.domains.refuse(domain)
		return ErrQuota
	}
	return nil
}

// UseOf returns what a domain uses, as this node has it. For any goroutine.
func (b *Broker) UseOf(domain string) DomainUse { return b.machine.domains.of(domain) }
