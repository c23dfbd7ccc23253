package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// A domain may have a part of the policy to itself, which its own administrators put in
// force: what stands in it is the domain's, what may stand in it the operator's policy says.
// Parts are state beside that policy, each with a history of its own; what everybody is
// decided by is both together, made anew when either changes.

// Bounds of parts. Of a history the oldest goes, and what is in force stays; the others
// refuse the change with ErrQuota.
const (
	PartsKept     = 20       // of one domain's history
	PartBytesKept = 1 << 20  // likewise
	MostParts     = 1_000    // domains that have one, or a history of one
	MostPartBytes = 16 << 20 // of all that are in force

	// A part is changed PartChanges times within PartPeriod at most: everything that is
	// permitted on the node is judged anew each time.
	PartChanges = 10
	PartPeriod  = int64(60e9)
)

// A Part is what a domain says of its own, as the operator's policy is asked to add it.
type Part struct {
	Domain string
	Data   []byte
}

// A Combiner is an Authorizer to which parts of domains can be added.
type Combiner interface {
	Authorizer

	// With returns the policy with the parts of domains beside it, which are in the order
	// of their domains. It is deterministic and never fails: what a part may not say is of
	// no effect.
	With(parts []Part) Authorizer

	// HasTenant says whether a domain may have a part.
	HasTenant(domain string) bool

	// CheckPart says what is wrong with a part, if it is put in force now.
	CheckPart(part Part) error
}

// A part is what the Machine keeps of one: its data in force, empty if it has ended, and
// the history of it, whose data are in the store.
type part struct {
	data    []byte
	history policyHistory
}

// A PartChange puts a part in force, or ends it if Data is empty.
type PartChange struct {
	Domain string
	Data   []byte
	By     string
	Door   string // how By has come, for the audit; empty: as By says
	Base   uint64 // as of PolicyChange
}

// Keys of parts: the prefix, the domain, NUL, and what is kept.
var (
	partPrefix     = append([]byte{byte(store.Policies)}, "part/"...)
	pastPartPrefix = append([]byte{byte(store.Policies)}, "past part/"...) // and the number
)

func partKey(domain, what string) []byte {
	return append(append(slices.Clone(partPrefix), domain...), "\x00"+what...)
}

// pastPartKey is apart from the others: what is read when a node starts is not the past.
func pastPartKey(domain string, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append(slices.Clone(pastPartPrefix), domain...), 0), number)
}

func (m *Machine) loadParts() error {
	m.parts = nil
	var failed error
	m.store.Scan(partPrefix, store.End(partPrefix), func(key, value []byte) bool {
		domain, what, _ := strings.Cut(string(key[len(partPrefix):]), "\x00")
		switch what {
		case "data":
			m.partOf(domain).data = bytes.Clone(value)
		case "history":
			h, err := decodeHistory(value)
			if err != nil {
				failed = fmt.Errorf("machine: history of the part of %s: %w", domain, err)
			}
			m.partOf(domain).history = h
		}
		return failed == nil
	})
	return failed
}

// partOf returns the part of a domain, made if there is none.
func (m *Machine) partOf(domain string) *part {
	if m.parts == nil {
		m.parts = map[string]*part{}
	}
	p := m.parts[domain]
	if p == nil {
		p = new(part)
		m.parts[domain] = p
	}
	return p
}

// combined returns what is in force where base is the operator's policy.
func (m *Machine) combined(base Authorizer) Authorizer {
	c, ok := base.(Combiner)
	if !ok || len(m.parts) == 0 {
		return base
	}
	var parts []Part
	for _, domain := range slices.Sorted(maps.Keys(m.parts)) {
		if data := m.parts[domain].data; len(data) > 0 {
			parts = append(parts, Part{domain, data})
		}
	}
	return c.With(parts)
}

// applyPutPart puts a part in force and answers its number. What is in force already stays
// as it is, with its number.
func (m *Machine) applyPutPart(c *event.PutPart) (number uint64, err error) {
	if m.level < LevelPolicies {
		return 0, &Refusal{Reason: "parts of domains are not known to all nodes of the cluster"}
	}
	now := m.parts[c.Domain]
	if now == nil {
		now = new(part)
	}
	number = now.history.number()
	if err := m.checkPart(c, now); err != nil {
		return number, err
	}
	if bytes.Equal(c.Data, now.data) {
		return number, nil
	}
	domain := strings.Clone(c.Domain)
	p := m.partOf(domain)
	p.data = bytes.Clone(c.Data)
	m.keepPart(domain, p, c.By)
	if len(p.data) == 0 {
		m.tx.Delete(partKey(domain, "data"))
	} else {
		m.tx.Set(partKey(domain, "data"), p.data)
	}
	m.adopt(m.combined(m.operators))
	return p.history.number(), nil
}

// checkPart says why a part is not put in force.
func (m *Machine) checkPart(c *event.PutPart, now *part) error {
	in := now.history.number()
	combiner, ok := m.operators.(Combiner)
	switch {
	case !ok || !combiner.HasTenant(c.Domain):
		return &Refusal{Reason: "the operator's policy has no such tenant"}
	case c.Base != 0 && c.Base != in:
		return &Refusal{Cause: ErrCondition, Reason: fmt.Sprintf("policy %d of %s is in force, not %d", in, c.Domain, c.Base)}
	case len(c.By) > mostPolicyAuthor:
		return &Refusal{Reason: "the author's name is too long"}
	case bytes.Equal(c.Data, now.data):
		return nil
	case m.parts[c.Domain] == nil && len(m.parts) >= MostParts:
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("%d domains have a policy of their own, which is the most", MostParts)}
	}
	total := len(c.Data)
	for domain, p := range m.parts { // in any order: it is a sum
		if domain != c.Domain {
			total += len(p.data)
		}
	}
	if total > MostPartBytes {
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("the policies of all domains would have %d bytes, at most %d are possible", total, MostPartBytes)}
	}
	if n := len(now.history); n >= PartChanges && m.now-now.history[n-PartChanges].At < PartPeriod {
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("the policy of %s was changed %d times within a minute: try again later", c.Domain, PartChanges)}
	}
	if len(c.Data) == 0 {
		return nil
	}
	if err := combiner.CheckPart(Part{c.Domain, c.Data}); err != nil {
		return &Refusal{Reason: err.Error()}
	}
	return nil
}

// keepPart adds p's data to its history, and has the oldest go.
func (m *Machine) keepPart(domain string, p *part, by string) {
	r := PolicyRecord{Number: p.history.number() + 1, At: m.now, By: strings.Clone(by), Size: len(p.data)}
	m.tx.Set(pastPartKey(domain, r.Number), p.data)
	for _, gone := range p.history.keep(r, PartsKept, PartBytesKept) {
		m.tx.Delete(pastPartKey(domain, gone))
	}
	m.tx.Set(partKey(domain, "history"), p.history.append(nil))
}

// dropParts forgets the parts that have ended, with their history, of domains that are no
// tenants any more: so many as there are bounds what is kept. One that has not ended stays,
// without effect, for the operator may have left the tenant out by mistake.
func (m *Machine) dropParts() {
	c, ok := m.operators.(Combiner)
	if !ok {
		return
	}
	for _, domain := range slices.Sorted(maps.Keys(m.parts)) {
		p := m.parts[domain]
		if len(p.data) > 0 || c.HasTenant(domain) {
			continue
		}
		for _, r := range p.history {
			m.tx.Delete(pastPartKey(domain, r.Number))
		}
		m.tx.Delete(partKey(domain, "history"))
		delete(m.parts, domain)
	}
}

// PutPart puts a domain's part of the policy in force, on all nodes: it returns when this
// one has applied it, with its number in the domain's history. One that may not stand in
// the domain's part is an ErrRefused, one whose Base is not in force an ErrCondition, one
// past a bound an ErrQuota: they change nothing. ErrUnknown means that it may yet be put in
// force.
func (b *Broker) PutPart(ctx context.Context, c PartChange) (number uint64, err error) {
	if b.Level() < LevelPolicies {
		return 0, &Refusal{Reason: "domains have no policies of their own until all nodes of the cluster know them"}
	}
	w := newWait()
	if err := b.propose(&event.PutPart{Domain: c.Domain, Data: c.Data, By: c.By, Door: c.Door, Base: c.Base}, call{c: w}, false); err != nil {
		return 0, err
	}
	select {
	case <-w.done:
		number, _ = w.value.(uint64)
		return number, w.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// Parts returns the history of a domain's part as this node has it, oldest first: the last
// one is in force, and has ended the part if its size is 0.
func (b *Broker) Parts(domain string) []PolicyRecord {
	h, _ := decodeHistory(storedValue(b.config.Store, partKey(domain, "history"))) // empty if there is none
	return h
}

// PartByNumber returns the bytes of a part in a domain's history; ok is false if it is not
// kept.
func (b *Broker) PartByNumber(domain string, number uint64) (data []byte, ok bool) {
	return b.config.Store.Get(pastPartKey(domain, number), nil)
}
