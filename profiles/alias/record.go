package alias

import (
	"encoding/binary"

	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Keys.
const (
	namePrefix  = "\x02n" // and a pseudonym: its record. Also the id of its wake
	pairPrefix  = "\x02t" // watcher, NUL, target: what was turned
	countPrefix = "\x02c" // watcher: how many pseudonyms of theirs have a record
)

func nameKey(pseudonym kind.Addr) string { return namePrefix + pseudonym.String() }

func pairKey(watcher, target kind.Addr) string {
	return pairPrefix + watcher.String() + "\x00" + target.String()
}

func countKey(watcher kind.Addr) string { return countPrefix + watcher.String() }

// A Name is what is stored of a pseudonym.
//
//	version u8 = 1, watcher, target: texts, until, wake: 8 each, held, uses, most: uvarints
type Name struct {
	Watcher, Target kind.Addr
	Until           int64  // when it is nobody's any more, unix nanoseconds; 0 while it is held
	Held            uint64 // by so many subscriptions
	Uses            uint64 // messages that have come to it
	Most            uint64 // and may; 0: any number

	wake int64 // 0 for never
}

const recordVersion = 1

func (n *Name) encode() []byte {
	b := fields.AppendText([]byte{recordVersion}, n.Watcher.String())
	b = fields.AppendText(b, n.Target.String())
	b = fields.AppendInt64(fields.AppendInt64(b, n.Until), n.wake)
	for _, v := range []uint64{n.Held, n.Uses, n.Most} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// readName reads what encode wrote, nil of nil.
func readName(b []byte) *Name {
	if b == nil {
		return nil
	}
	r := fields.Read(b, recordVersion)
	n := &Name{Watcher: kind.Of(r.Text()), Target: kind.Of(r.Text()), Until: r.Int64(), wake: r.Int64(), Held: r.Uvarint(), Uses: r.Uvarint(), Most: r.Uvarint()}
	r.End()
	return n
}

// A pair is what is stored of a watcher and a target, if a fresh pseudonym was asked
// for.
//
//	version u8 = 1, turn uvarint, barred 8
type pair struct {
	turn   uint64 // how many
	barred int64  // until when nothing is begun under a fresh one; 0: it may
}

func (p pair) encode() []byte {
	return fields.AppendInt64(binary.AppendUvarint([]byte{recordVersion}, p.turn), p.barred)
}

func readPair(b []byte) (p pair) {
	if b == nil {
		return p
	}
	r := fields.Read(b, recordVersion)
	p = pair{r.Uvarint(), r.Int64()}
	r.End()
	return p
}
