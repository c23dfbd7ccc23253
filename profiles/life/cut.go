package life

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/profiles/fields"
)

// What owners have taken out of subscriptions by wildcards.
//
// Such a subscription is to everybody whom its pattern is about, so no owner can end it. What
// one of them can end is their part in it: a Cut stands for one watcher and one resource, and
// while it does, whatever the watcher subscribes to by wildcards shows of that resource what
// it shows of an owner who is away. The watcher is told nothing of it, and no other owner's
// part is touched. What they subscribe to by the resource's name has a life of its own, which
// a cut neither ends nor hinders, but while the owner has barred them.
//
// It is over when they have asked again: when they have subscribed, by any wildcards that
// match it, later than it was made; or when none of theirs matches it any more. If the owner
// has barred them until an instant, not before that: who asks meanwhile is let in then. So
// what it takes is bounded by what is watched by wildcards, and by how many an owner may bar.
//
// A watcher may have been cut by very many owners, and asks by one SUBSCRIBE: their cuts are
// looked through piece by piece, like entries that follow a policy.

// A Cut is what an owner has ended of one watcher's subscriptions by wildcards.
type Cut struct {
	Topic, Watcher string // as of an Entry

	ID     string // by which the owner knew the subscription
	As     string // as whom, as of an Entry
	Client string // of an anonymous watcher: its client id
	Event  Event  // Deactivated, Probation or Admin
	Asked  int64  // when the subscription began
	At     int64  // when it was ended
	Until  int64  // it is not granted again before; 0 for at once
	Again  bool   // it is asked for again, or nothing is left to be cut: it stands for Until only

	changed uint64 // where in the log it was made
}

// Keys, within a profile's.
const (
	cutPrefix   = "\x13" // topic, NUL, watcher: a Cut
	cutByPrefix = "\x14" // watcher, NUL, topic: there is one
)

// Ids of wakes.
const (
	wakeCut   = "\x03c" // topic, NUL, watcher: Until has come
	wakeShow  = "\x03v" // topic, NUL, watcher: they are shown it anew
	wakeUncut = "\x03u" // watcher, NUL, what uncutting is: its cuts are looked through
)

func cutKey(topic, watcher string) string { return CutsOf(topic) + watcher }

// CutsOf is the prefix of the keys of a resource's cuts, in the order of watchers.
func CutsOf(topic string) string { return cutPrefix + topic + "\x00" }

// cutsBy is the prefix of keys behind which the topics follow of a watcher's.
func cutsBy(watcher string) string { return cutByPrefix + watcher + "\x00" }

// Place returns where it is among what has changed, as Wide.Place.
func (c *Cut) Place() string {
	return string(binary.BigEndian.AppendUint64(nil, ^c.changed)) + c.Watcher
}

// Sum is another for another, and for the same when it has changed.
func (c *Cut) Sum() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.ID))
	_, _ = h.Write(binary.AppendUvarint(nil, c.changed))
	return h.Sum64()
}

// The binary form of a Cut, of which fields are only ever appended to a new version:
//
//	version u8 = 1, event, again: u8 each, asked, at, until: 8 each, changed: uvarint,
//	id, as, client: texts
const cutVersion = 1

func (c *Cut) encode() []byte {
	again := byte(0)
	if c.Again {
		again = 1
	}
	b := []byte{cutVersion, byte(c.Event), again}
	for _, at := range [...]int64{c.Asked, c.At, c.Until} {
		b = fields.AppendInt64(b, at)
	}
	b = binary.AppendUvarint(b, c.changed)
	return fields.AppendText(fields.AppendText(fields.AppendText(b, c.ID), c.As), c.Client)
}

// ReadCut reads a Cut: its key, which begins with CutsOf, and its value.
func ReadCut(key string, value []byte) *Cut {
	c := &Cut{}
	c.Topic, c.Watcher, _ = strings.Cut(strings.TrimPrefix(key, cutPrefix), "\x00")
	in := fields.Read(value, cutVersion)
	c.Event, c.Again = Event(in.Byte()), in.Byte() != 0
	c.Asked, c.At, c.Until, c.changed = in.Int64(), in.Int64(), in.Int64(), in.Uvarint()
	c.ID, c.As, c.Client = in.Text(), in.Text(), in.Text()
	in.End()
	return c
}

// Cut ends an owner's part in what a watcher subscribes to by wildcards, until the watcher
// asks again, which is in vain before c.Until. The caller has set all of c but what only the
// book knows. The error wraps ErrQuota.
func (b *Book) Cut(c Cut) error {
	if many := b.cutsOf(c.Topic); many >= b.Limits.KeptOf && b.Tx.Get(cutKey(c.Topic, c.Watcher)) == nil {
		return fmt.Errorf("%w: the wildcards of %d watchers are ended already: deny them, which holds for all and for good", ErrQuota, many)
	}
	c.At, c.changed = b.Now(), b.Position()
	b.saveCut(&c)
	return nil
}

// cutsOf counts the cuts of a resource, up to how many there may be.
func (b *Book) cutsOf(topic string) (many int) {
	b.Each(CutsOf(topic), "", func(string, []byte) bool {
		many++
		return many < b.Limits.KeptOf
	})
	return many
}

// CutOf returns what is cut of a resource from a watcher, nil for nothing.
func (b *Book) CutOf(topic, watcher string) *Cut {
	key := cutKey(topic, watcher)
	value := b.Tx.Get(key)
	if value == nil {
		return nil
	}
	return ReadCut(key, value)
}

// saveCut stores a cut that is new or has changed, or forgets it if it is over.
func (b *Book) saveCut(c *Cut) {
	key, id := cutKey(c.Topic, c.Watcher), wakeCut+c.Topic+"\x00"+c.Watcher
	if was := b.CutOf(c.Topic, c.Watcher); was != nil && was.Until > b.Now() {
		b.Cancel(was.Until, id)
	}
	if c.Again && (c.Until <= b.Now() || c.anonymous()) {
		b.dropCut(c)
		return
	}
	if c.Until > b.Now() {
		b.WakeAt(c.Until, id)
	}
	b.Set(key, c.encode())
	b.Set(cutsBy(c.Watcher)+c.Topic, []byte{cutVersion})
	b.cutChanged(c)
}

// dropCut forgets a cut, which has no wake any more.
func (b *Book) dropCut(c *Cut) {
	b.Set(cutKey(c.Topic, c.Watcher), nil)
	b.Set(cutsBy(c.Watcher)+c.Topic, nil)
	b.cutChanged(c)
}

// cutChanged has who watches shown what they see now, and the owner who does.
func (b *Book) cutChanged(c *Cut) {
	b.ChangedFor(c.Topic, c.principal())
	b.Noted(c.Topic, false)
}

// anonymous says whether nobody can be told from the watcher who comes later.
func (c *Cut) anonymous() bool { return c.principal() == "" }

// principal is who sees otherwise because of it, empty for who is anonymous: all are asked.
func (c *Cut) principal() string {
	e := Entry{Watcher: c.Watcher}
	return e.principal()
}

// barred returns until when an owner bars somebody by a cut, 0 for not at all.
func (b *Book) barred(topic, watcher string) int64 {
	if c := b.CutOf(topic, watcher); c != nil && c.Until > b.Now() {
		return c.Until
	}
	return 0
}

// An uncutting looks through a watcher's cuts for those that are over.
type uncutting struct {
	watcher string
	asked   string // the pattern by which they have asked; empty: something has ended
	at      uint64 // where in the log: what was cut after it stands
	after   string // the topic that was looked at last
}

func (u *uncutting) id() string {
	return wakeUncut + u.watcher + "\x00" + strings.Join([]string{u.asked, strconv.FormatUint(u.at, 36), u.after}, "\x00")
}

// resumeUncut goes on where the last piece has ended.
func (b *Book) resumeUncut(watcher, rest string) {
	u := uncutting{watcher: watcher}
	u.asked, rest, _ = strings.Cut(rest, "\x00")
	at, after, _ := strings.Cut(rest, "\x00")
	u.at, _ = strconv.ParseUint(at, 36, 64) // it was written by id
	u.after = after
	b.uncut(u)
}

// uncut does a piece of it, and what is left later.
func (b *Book) uncut(u uncutting) {
	prefix, after := cutsBy(u.watcher), ""
	if u.after != "" {
		after = prefix + u.after
	}
	var topics []string
	more := false
	b.Each(prefix, after, func(key string, _ []byte) bool {
		if more = len(topics) == followPiece; more {
			return false
		}
		topics = append(topics, key[len(prefix):])
		return true
	})
	b.Spend(len(topics) * cutWeight)
	for _, topic := range topics {
		c := b.CutOf(topic, u.watcher)
		if c.changed > u.at {
			continue
		}
		if patterns := PatternsOf(topic); u.asked != "" && slices.Contains(patterns[:], u.asked) || !b.isWatchedWide(topic, u.watcher) {
			c.Again = true
			b.saveCut(c)
		}
	}
	if more {
		u.after = topics[len(topics)-1]
		b.Soon(u.id())
	}
}

// cutWeight is what it costs to look at one, in items of the log entry's budget.
const cutWeight = 8

// isWatchedWide says whether a watcher watches a resource by wildcards.
func (b *Book) isWatchedWide(topic, watcher string) bool {
	for _, pattern := range PatternsOf(topic) {
		if b.Tx.Get(wideKey(pattern, watcher)) != nil {
			return true
		}
	}
	return false
}

// reshow has a watcher, who has come to watch a resource by its name, or does so no more,
// shown what they see of it by wildcards. It is done with a later command than that: by then a
// session that has unsubscribed is shown nothing.
func (b *Book) reshow(topic, watcher string) {
	e := Entry{Watcher: watcher}
	b.ChangedFor(topic, e.principal())
}

// endBar does what is due when the time is over for which an owner has barred a watcher.
func (b *Book) endBar(topic, watcher string) {
	c := b.CutOf(topic, watcher)
	if c == nil || c.Until > b.Now() {
		return
	}
	if c.Again = c.Again || !b.isWatchedWide(topic, watcher); c.Again {
		b.saveCut(c)
	}
}

// forgetCuts ends what a principal who is no more has cut, topic being that of their
// resource, and was cut out of: some of it. done says that nothing is left.
func (b *Book) forgetCuts(topic, watcher string) (done bool) {
	var all []*Cut
	b.Each(CutsOf(topic), "", func(key string, value []byte) bool {
		all = append(all, ReadCut(key, value))
		return len(all) < followPiece
	})
	prefix := cutsBy(watcher)
	b.Each(prefix, "", func(key string, _ []byte) bool {
		all = append(all, b.CutOf(key[len(prefix):], watcher))
		return len(all) < 2*followPiece
	})
	for _, c := range all {
		if c.Until > b.Now() {
			b.Cancel(c.Until, wakeCut+c.Topic+"\x00"+c.Watcher)
		}
		b.dropCut(c)
	}
	b.Spend(len(all) * cutWeight)
	return len(all) < followPiece
}
