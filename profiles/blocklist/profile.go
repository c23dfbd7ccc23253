// Package blocklist takes whom owners have blocked: $me/blocklist, which holds before all
// that their policies say, of all kinds. What it does is the kinds' affair, each of which
// is given a copy of the document (policy.BlocklistKey): so each decides by what lies with
// it, within the command and on each node.
package blocklist

import (
	"fmt"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
)

// Prefix is what the list is called: $me/blocklist.
const Prefix = "blocklist"

// A Kind is a profile that goes by blocklists.
type Kind interface {
	Prefix() string

	// Block sets or removes (nil) what an owner has blocked, and has it take effect. tx is
	// the kind's.
	Block(tx *broker.ProfileTx, owner kind.Addr, document []byte)
}

// A Profile takes blocklists for kinds, which are the same at all nodes.
type Profile struct {
	kinds  []Kind
	bounds atomic.Pointer[kind.Bounds] // nil for the most
}

// For returns the profile for those of profiles that go by blocklists.
func For(profiles []broker.Profile) *Profile {
	p := &Profile{}
	for _, other := range profiles {
		if k, ok := other.(Kind); ok {
			p.kinds = append(p.kinds, k)
		}
	}
	return p
}

var (
	_ broker.Personal  = (*Profile)(nil)
	_ broker.Forgetter = (*Profile)(nil)
)

// Prefix is Prefix.
func (*Profile) Prefix() string { return Prefix }

// Rulebook says that there are no topics.
func (*Profile) Rulebook() {}

// Personal says that it is not about a kind.
func (*Profile) Personal() {}

// Watch refuses: there is nothing to watch but one's own.
func (*Profile) Watch(broker.Who, string) error { return broker.ErrBadEvent }

// Bound bounds lists that come in at this node from now on, as policies. For any goroutine.
func (p *Profile) Bound(to kind.Bounds) { p.bounds.Store(&to) }

// Admit refuses a list with faults, or past bounds.
func (p *Profile) Admit(pub *broker.Publication) error {
	_, err := read(pub, p.bounds.Load())
	return refuse.Admitted(pub, err)
}

// Apply sets whom an owner has blocked; an empty document removes it. evt-etag makes it
// depend on that the list is still the one that is meant, and is answered with the new one's.
func (p *Profile) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	owner, err := read(pub, nil)
	if err != nil {
		return refuse.Told(err)
	}
	if err := refuse.Stale(pub, "the blocklist", func() string { return policy.Tag(tx.PolicyOf(owner.String())) }); err != nil {
		return err
	}
	p.set(tx, owner, pub.Event.Payload)
	if len(pub.Event.Payload) > 0 {
		pub.Answer = event.AppendUserProperty(pub.Answer, "evt-etag", policy.Tag(pub.Event.Payload))
	}
	return nil
}

func (p *Profile) set(tx *broker.ProfileTx, owner kind.Addr, document []byte) {
	tx.SetPolicy(owner.String(), document)
	for _, k := range p.kinds {
		k.Block(tx.Of(k.Prefix()), owner, document)
	}
}

func read(pub *broker.Publication, within *kind.Bounds) (owner kind.Addr, err error) {
	if owner = kind.Of(pub.From.Principal); owner.IsZero() {
		return owner, fmt.Errorf("%w: identity-required: nobody knows whose blocklist this is", kind.ErrForbidden)
	}
	if len(pub.Event.Payload) > 0 {
		_, err = policy.CheckBlocklist(pub.Event.Payload, owner, within)
	}
	return owner, err
}

// Forget removes whom a principal has blocked.
func (p *Profile) Forget(tx *broker.ProfileTx, principal string) (done bool) {
	if tx.PolicyOf(principal) != nil {
		p.set(tx, kind.Of(principal), nil)
	}
	return true
}
