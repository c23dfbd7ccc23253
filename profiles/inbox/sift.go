package inbox

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// How messages that wait are kept from devices when their sender is no longer let in.
//
// What an owner says now, in policy and blocklist, holds for what has come and no device
// has yet: it is judged anew by what is said now, as of when it came, so that a message
// that came within its hours waits for a device that comes after them. Two do that:
//
//   - The log looks through what the inbox keeps whenever policy or blocklist change, so
//     much with each entry. What is not let in is forgotten, and fails as a message to
//     nobody does, however the owner refuses others: the sender learns no more than that
//     nobody has it, and not by whose doing.
//   - Each node asks before it sends what has waited (MayStill): what is in queues or was
//     sent and not acknowledged, also of messages that another device has taken.
//
// What has failed stays failed, also if its sender is let in again before a device comes.

var _ broker.Sifter = (*Profile)(nil)

// MayStill says whether a message may go to devices that do not have it.
func (p *Profile) MayStill(read func(prefix, key string) []byte, e *event.Event) bool {
	t, err := p.topic(e.Topic)
	if err != nil || t.Source != "" {
		return err == nil // reports, and that one is writing, are nobody's to keep out any more
	}
	m, ok := p.kind.Open(kind.Document{ContentType: event.ContentType(e.Props), Body: e.Payload})
	if !ok {
		return false // of another version, and nobody knows from whom
	}
	get := func(key string) []byte { return read(p.Prefix(), key) }
	names := func(key string) []byte { return read(alias.Kind, key) }
	if !p.stillLets(get, names, t.Addr, m.From, m.To, e.At) {
		return false
	}
	for _, to := range append([]kind.Addr{t.Addr}, m.To...) {
		known := readID(get(p.idOf(&kind.Message{ID: m.ID, From: m.From, To: to}, t.Addr)))
		if known != nil && known.iseq == m.ISeq && known.told.Has(kind.Failed) {
			return false
		}
	}
	return true
}

// stillLets says whether owner lets in now what from sent at an instant, to the owner or
// by another name.
func (p *Profile) stillLets(get, names func(key string) []byte, owner, from kind.Addr, to []kind.Addr, at int64) bool {
	hidden := slices.ContainsFunc(to, func(name kind.Addr) bool { return alias.Speaks(names, name, owner, from, at) })
	return p.may(get, reader{owner, hidden}, from, kind.MaySend, kind.Instant(at))
}

// siftKey is there while an inbox is looked through, and the id of its wake.
//
//	version u8 = 1, next uvarint
func siftKey(topicName string) string { return siftPrefix + topicName }

const siftPrefix = "\x02f"

// encodeSift writes from which message on an inbox is still to be looked through.
func encodeSift(next uint64) []byte { return binary.AppendUvarint([]byte{recordVersion}, next) }

func readSift(data []byte) (next uint64) {
	r := fields.Read(data, recordVersion)
	next = r.Uvarint()
	r.End()
	return next
}

// sift begins to look through what is kept for an owner whose policy or blocklist is
// another, from the first on if it was under way.
func (p *Profile) sift(tx *broker.ProfileTx, owner kind.Addr) {
	p.siftFrom(tx, p.inboxOf(owner).Topic(), 0)
}

// siftFrom forgets what is let in no more of the next messages of an inbox from a number
// on; if that were not all, it is woken for the others with the next entry.
func (p *Profile) siftFrom(tx *broker.ProfileTx, topicName string, next uint64) {
	t, err := p.topic(topicName)
	data := tx.Get(topicName)
	if err != nil || data == nil {
		return
	}
	box, names := readBox(data), tx.Of(alias.Kind)
	var over []int
	at, n := box.from(next), 0
	for ; at < len(box.kept) && n < pieceMessages; at, n = at+1, n+1 {
		m, e, ok := readKept(tx.Get(keptKey(topicName, box.kept[at].iseq)))
		if ok && !p.stillLets(tx.Get, names.Get, t.Addr, m.From, []kind.Addr{m.To}, e.At) {
			p.withdraw(tx, &m, t.Addr, &box.kept[at])
			over = append(over, at)
		}
	}
	key := siftKey(topicName)
	if at < len(box.kept) {
		tx.Set(key, encodeSift(box.kept[at].iseq))
		tx.WakeAt(tx.Now(), key)
	} else if tx.Get(key) != nil {
		tx.Set(key, nil)
	}
	if over == nil {
		return
	}
	for _, i := range slices.Backward(over) {
		box.drop(tx, topicName, i)
	}
	box.save(tx, topicName)
}

// withdraw tells who has sent a message that it failed, unless a device has it.
func (p *Profile) withdraw(tx *broker.ProfileTx, m *kind.Message, owner kind.Addr, k *kept) {
	if k.taken != 0 {
		return
	}
	key := p.idOf(m, owner)
	if known := readID(tx.Get(key)); known != nil && known.iseq == k.iseq {
		known.told = known.told.With(kind.Failed)
		tx.Set(key, known.encode())
	}
	p.report(tx, *m, kind.Failed, reasonUnavailable)
}

// siftOn goes on where the last entry stopped. Nothing is there if all has been looked
// through since.
func (p *Profile) siftOn(tx *broker.ProfileTx, key string) {
	if data := tx.Get(key); data != nil {
		p.siftFrom(tx, strings.TrimPrefix(key, siftPrefix), readSift(data))
	}
}

// changed has what an owner says now take effect on what waits for them.
func (p *Profile) changed(tx *broker.ProfileTx, owner kind.Addr) {
	if tx.Level() >= broker.LevelOwners {
		p.sift(tx, owner)
	}
}

// Block sets or removes whom an owner has blocked.
func (p *Profile) Block(tx *broker.ProfileTx, owner kind.Addr, document []byte) {
	tx.Set(policy.BlocklistKey(owner), document)
	tx.Regrant() // of delegates who read
	p.changed(tx, owner)
}
