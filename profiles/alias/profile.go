package alias

import (
	"fmt"
	"strings"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/refuse"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// A Profile takes watchers' rules, and has pseudonyms forgotten.
type Profile struct {
	// Changed is called in Apply when a watcher's rules are others; nil: nobody minds.
	Changed func(tx *broker.ProfileTx, watcher string)
}

var (
	_ broker.Rulebook  = (*Profile)(nil)
	_ broker.Waker     = (*Profile)(nil)
	_ broker.Forgetter = (*Profile)(nil)
)

// Prefix is Kind.
func (*Profile) Prefix() string { return Kind }

// Rulebook says that there are no topics.
func (*Profile) Rulebook() {}

// Watch refuses: there is nothing to watch.
func (*Profile) Watch(broker.Who, string) error { return broker.ErrBadEvent }

// Admit refuses rules with faults.
func (*Profile) Admit(pub *broker.Publication) error {
	_, err := read(pub)
	return refuse.Told(err)
}

// Apply sets a watcher's rules; an empty document removes them.
func (p *Profile) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	from, err := read(pub)
	if err != nil {
		return refuse.Told(err)
	}
	tx.SetPolicy(from.String(), pub.Event.Payload)
	if p.Changed != nil {
		p.Changed(tx, from.String())
	}
	return nil
}

func read(pub *broker.Publication) (from kind.Addr, err error) {
	if from = kind.Of(pub.From.Principal); from.IsZero() {
		return from, fmt.Errorf("%w: identity-required: nobody knows whose rules these are", kind.ErrForbidden)
	}
	if len(pub.Event.Payload) > 0 {
		_, err = ReadRules(pub.Event.Payload, from)
	}
	return from, err
}

// BookOf returns the book of a command of any profile.
func BookOf(tx *broker.ProfileTx, secret watchers.Secret) Book { return Book{tx.Of(Kind), secret} }

// Wake forgets a pseudonym whose time is over.
func (*Profile) Wake(tx *broker.ProfileTx, id string) {
	if strings.HasPrefix(id, namePrefix) {
		Book{Tx: tx}.Wake(id)
	}
}

// pieceKeys is how many keys go at once where somebody is forgotten.
const pieceKeys = 1024

// Forget removes a watcher's rules, and what was turned. Her pseudonyms go when their
// time has come: who watches under them is not there any more.
func (*Profile) Forget(tx *broker.ProfileTx, principal string) (done bool) {
	if tx.PolicyOf(principal) != nil {
		tx.SetPolicy(principal, nil)
	}
	return tx.Clear(pairKey(kind.Of(principal), kind.Addr{}), pieceKeys)
}
