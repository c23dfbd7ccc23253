package state

import (
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

var _ broker.Forgetter = (*Profile)(nil)

// Forget removes a principal's resource, whoever published it, and policy, and what
// administrators have provided or offered them, and owners have taken from them. That is
// bounded as a resource is, and as what is kept of a watcher without sessions; of the last
// some at a time.
func (p *Profile) Forget(tx *broker.ProfileTx, principal string) (done bool) {
	topicName := kind.Resource{Kind: p.kind.Name(), Addr: kind.Of(principal)}.Topic()
	if !p.book(tx).Forget(topicName, principal) {
		return false
	}
	record := tx.Get(topicName)
	list := policy.BlocklistKey(kind.Of(principal))
	if record == nil && tx.PolicyOf(principal) == nil && tx.Get(list) == nil {
		return true
	}
	tx.Set(list, nil)
	tx.SetPolicy(principal, nil)
	rec := readRecord(record)
	p.drop(tx, topicName, rec, func(*publication) bool { return true })
	p.save(tx, topicName, rec)
	return true
}
