package inbox

import (
	"encoding/binary"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

var _ broker.Forgetter = (*Profile)(nil)

// pieceKeys is how many keys go at once where somebody is forgotten: contacts, or
// ids of messages. Of messages that are kept pieceMessages do.
const pieceKeys = 1024

// Forget removes a principal's policy, inbox, and whom they have written to. The
// senders of messages that no device has are told that they failed, as of an inbox
// that there never was. After each piece the inbox is a whole one with less in it:
// messages may come in between, and go with the next.
func (p *Profile) Forget(tx *broker.ProfileTx, principal string) (done bool) {
	who := kind.Of(principal)
	if tx.PolicyOf(principal) != nil {
		tx.SetPolicy(principal, nil)
	}
	tx.Set(policy.BlocklistKey(who), nil)
	if !tx.Clear(contactKey(who, kind.Addr{}), pieceKeys) {
		return false
	}
	tx.Set(senderKey(who), nil)
	topicName := kind.Resource{Kind: p.kind.Name(), Addr: who}.Topic()
	return tx.Get(topicName) == nil || p.empty(tx, topicName)
}

// empty removes a piece of what is in an inbox, and with the last the inbox.
func (p *Profile) empty(tx *broker.ProfileTx, topicName string) (done bool) {
	b := readBox(tx.Get(topicName))
	if !tx.Clear(copyPrefix+topicName+"\x00", pieceKeys) {
		return false // the others still end as copies do
	}
	b.copies = 0
	for n := 0; n < pieceMessages && len(b.kept) > 0; n++ {
		k := b.kept[0]
		if k.taken == 0 {
			if m, _, ok := readKept(tx.Get(keptKey(topicName, k.iseq))); ok {
				p.report(tx, m, kind.Failed, reasonUnavailable)
			}
		}
		b.drop(tx, topicName, 0)
	}
	for n := 0; n < pieceKeys && b.firstID < b.nextID; n++ {
		b.forgetOldest(tx, topicName)
	}
	b.save(tx, topicName)
	if len(b.kept) > 0 || b.firstID < b.nextID {
		return false
	}
	tx.Set(topicName, nil)
	tx.Set(siftKey(topicName), nil)
	return true
}

// forgetOldest forgets the id that has been remembered longest.
func (b *box) forgetOldest(tx *broker.ProfileTx, topicName string) {
	slot := slotKey(topicName, b.firstID)
	oldest := tx.Get(slot)
	iseq, key := binary.BigEndian.Uint64(oldest), string(oldest[8:])
	if id := readID(tx.Get(key)); id != nil && id.iseq == iseq { // else it has come again, and has another slot
		tx.Set(key, nil)
	}
	tx.Set(slot, nil)
	b.firstID++
}
