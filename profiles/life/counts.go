package life

import (
	"encoding/binary"

	"github.com/bellwire/bellwire/profiles/fields"
)

// Counts are of a resource's entries, or of a watcher's.
type counts struct{ live, pending, kept, unseen, invited int }

func (b *Book) countsOf(topic string) counts   { return b.readCounts(countPrefix + topic) }
func (b *Book) countsBy(watcher string) counts { return b.readCounts(countPrefix + "\x00" + watcher) }

func (b *Book) readCounts(key string) (c counts) {
	value := b.Tx.Get(key)
	if value == nil {
		return c
	}
	in := fields.Read(value, entryVersion)
	c = counts{int(in.Uvarint()), int(in.Uvarint()), int(in.Uvarint()), int(in.Uvarint()), 0}
	if rest := in.Rest(); len(rest) > 0 {
		n, _ := binary.Uvarint(rest)
		c.invited = int(n)
	}
	return c
}

// count takes note that an entry is another than it was; nil for none.
func (b *Book) count(was, is *Entry) {
	before, after := countsIn(was), countsIn(is)
	if before == after {
		return
	}
	e := is
	if e == nil {
		e = was
	}
	more := counts{after.live - before.live, after.pending - before.pending, after.kept - before.kept, after.unseen - before.unseen, 0}
	b.addCounts(e.Topic, e.Watcher, more)
	if more.live != 0 && b.Watched != nil {
		b.Watched(e.Topic, e.Watcher, more.live)
	}
}

// addCounts adds to the counts of a resource and of a watcher.
//
//	version u8 = 1; live, pending, kept, unseen: uvarints; unless it is 0, invited: uvarint
func (b *Book) addCounts(topic, watcher string, more counts) {
	for _, key := range []string{countPrefix + topic, countPrefix + "\x00" + watcher} {
		c := b.readCounts(key)
		c.live += more.live
		c.pending += more.pending
		c.kept += more.kept
		c.unseen += more.unseen
		c.invited += more.invited
		if c == (counts{}) {
			b.Set(key, nil)
			continue
		}
		value := []byte{entryVersion}
		for _, n := range []int{c.live, c.pending, c.kept, c.unseen} {
			value = binary.AppendUvarint(value, uint64(n))
		}
		if c.invited > 0 {
			value = binary.AppendUvarint(value, uint64(c.invited))
		}
		b.Set(key, value)
	}
}

func countsIn(e *Entry) (c counts) {
	switch {
	case e == nil:
	case !e.Live():
		c.kept = 1
	case e.Status == Pending:
		c.live, c.pending = 1, 1
	default:
		c.live = 1
	}
	if e != nil && e.unseen() {
		c.unseen = 1
	}
	return c
}
