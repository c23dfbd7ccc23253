package broker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// How many events the people of a domain publish in a second is bounded on each node, like
// other rates: no log is asked. Domains without a quota cost a look at a nil pointer.

// A domainPace is that of one domain on this node: a bucket that holds as many as may be
// published in a second, kept as the instant at which it is full again.
type domainPace struct {
	refusal *Refusal
	most    int64 // a second
	every   int64 // nanoseconds that one takes
	full    atomic.Int64
	refused *atomic.Uint64
}

// take takes one, and refuses if there is none. For any goroutine.
func (p *domainPace) take(now int64) error {
	if p.due(now) > 0 {
		p.refused.Add(1)
		return p.refusal
	}
	return nil
}

// due takes one, or returns in how many nanoseconds there is one. For any goroutine.
func (p *domainPace) due(now int64) (in int64) {
	for {
		full := p.full.Load()
		next := max(full, now) + p.every
		if in = next - now - p.most*p.every; in > 0 {
			return in
		}
		if p.full.CompareAndSwap(full, next) {
			return 0
		}
	}
}

// paceLook is how often who waits for a pace looks whether its session is over.
const paceLook = 100 * time.Millisecond

// keepPace takes one of the domain's, if its publications have a pace. A session that is
// ConnectRequest.Patient waits for it, others are refused.
func (s *Session) keepPace(now int64, w *Wave) error {
	if s.pace == nil {
		return nil
	}
	if !s.patient {
		return s.pace.take(now)
	}
	for in := s.pace.due(now); in > 0; in = s.pace.due(s.b.now()) {
		w.Flush() // before we block: nobody else writes what this wave holds
		time.Sleep(min(time.Duration(in), paceLook))
		if s.closed.Load() {
			return ErrStale
		}
	}
	return nil
}

// used returns how many of a second's are taken.
func (p *domainPace) used(now int64) uint64 {
	return uint64(max(0, p.full.Load()-now) / p.every)
}

// domainPaces are those of all domains that have a quota of it.
type domainPaces struct {
	mu      sync.Mutex // guards the following
	paces   map[string]*domainPace
	refused map[string]*atomic.Uint64 // outlast a policy that has another quota
}

// of returns the pace of a domain, nil if nothing bounds it. most is its quota.
func (d *domainPaces) of(domain string, most uint64) *domainPace {
	if domain == "" || most == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.paces[domain]; p != nil && p.most == int64(most) {
		return p
	}
	if d.paces == nil {
		d.paces, d.refused = map[string]*domainPace{}, map[string]*atomic.Uint64{}
	}
	if d.refused[domain] == nil {
		d.refused[domain] = new(atomic.Uint64)
	}
	p := &domainPace{
		most: int64(most), every: max(1, 1e9/int64(most)), refused: d.refused[domain],
		refusal: &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("rate: %s may publish %d events a second on one node", domain, most)},
	}
	if old := d.paces[domain]; old != nil { // what was taken stays so
		p.full.Store(old.full.Load())
	}
	d.paces[domain] = p
	return p
}

// use returns what was taken of a domain's. For any goroutine.
func (d *domainPaces) use(domain string, now int64) (u Use) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.paces[domain]; p != nil {
		u.Used = p.used(now)
	}
	if n := d.refused[domain]; n != nil {
		u.Refused = n.Load()
	}
	return u
}

// paceOf returns the pace of a principal's domain under a policy.
func (b *Broker) paceOf(p *policy, principal string) *domainPace {
	if p == nil {
		return nil
	}
	q, ok := p.Authorizer.(quoter)
	if !ok {
		return nil
	}
	domain := domainOf(principal)
	return b.paces.of(domain, q.QuotaOf(domain).PublishesPerSecond)
}
