package life

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/fields"
)

// Who watches by wildcards.
//
// A filter with wildcards is about the resources of a domain or of all domains, and in
// those of one local part or of all: that is its Pattern. A Wide is one watcher's
// subscription by such filters, of however many sessions. It stands once, under its
// pattern: whose resources it concerns is not written, for there may be millions. Who is
// shown their watchers looks at the four patterns that their address matches.
//
// It is granted without anybody's word. So it has no states, and no other end than that of
// its sessions and of the time for which they have asked. What one owner ends is their part
// in it: see Cut.

// Patterns are written as the two levels of a topic that they are about, with "+" for all.
const anyLevel = "+"

// PatternOf returns the pattern of a filter with wildcards, as far as it is about resources
// of a kind; ok is false if it matches none.
func PatternOf(kindName, filter string) (pattern string, ok bool) {
	first, rest, below := strings.Cut(filter, "/")
	switch {
	case first == "#":
		return anyLevel + "/" + anyLevel, true
	case first != anyLevel && first != kindName || !below:
		return "", false
	}
	of := [2]string{anyLevel, anyLevel}
	levels := strings.Split(rest, "/")
	for i, level := range levels {
		switch {
		case level == "#":
			return of[0] + "/" + of[1], i <= len(of)
		case i == len(of): // a source
			return "", false
		}
		of[i] = level
	}
	return of[0] + "/" + of[1], len(levels) == len(of)
}

// PatternsOf returns the patterns that the topic of a resource matches: the widest first.
func PatternsOf(topic string) [4]string {
	_, rest, _ := strings.Cut(topic, "/")
	domain, local, _ := strings.Cut(rest, "/")
	return [4]string{anyLevel + "/" + anyLevel, domain + "/" + anyLevel, anyLevel + "/" + local, domain + "/" + local}
}

// DomainOf returns the domain and the local part that a pattern is about, empty for all.
func DomainOf(pattern string) (domain, local string) {
	domain, local, _ = strings.Cut(pattern, "/")
	return strings.TrimSuffix(domain, anyLevel), strings.TrimSuffix(local, anyLevel)
}

// A Wide is one watcher's subscription by wildcards to what a pattern is about.
type Wide struct {
	Pattern string
	Watcher string // as of an Entry
	Asked   int64
	Note    string
	Parts   []Part // by session and filter

	seed    []byte // of ids
	changed uint64 // where in the log it has last
	wake    int64
}

// A Part is what one session has asked for.
type Part struct {
	Session uint64
	Filter  string
	Expires int64 // 0: with the session
}

// Expires returns when it is over unless it is refreshed: 0 for never.
func (w *Wide) Expires() (last int64) {
	for i := range w.Parts {
		if w.Parts[i].Expires == 0 {
			return 0
		}
		last = max(last, w.Parts[i].Expires)
	}
	return last
}

// IDFor returns the name that the owner of a resource knows the subscription by: another
// for each, so that two owners cannot tell that they are watched by one filter.
func (w *Wide) IDFor(topic string) string {
	h := hmac.New(sha256.New, w.seed)
	h.Write([]byte(topic))
	return "s-" + idEncoding.EncodeToString(h.Sum(nil)[:10])
}

// Place returns where it is among what has changed, as the keys of a resource's index behind
// LatestOf are.
func (w *Wide) Place() string {
	return string(binary.BigEndian.AppendUint64(nil, ^w.changed)) + w.Watcher
}

// Sum is another for another subscription, and for the same when it has changed.
func (w *Wide) Sum() uint64 {
	h := fnv.New64a()
	_, _ = h.Write(w.seed)
	_, _ = h.Write(binary.AppendUvarint(nil, w.changed))
	return h.Sum64()
}

func (w *Wide) find(session uint64, filter string) (at int, ok bool) {
	return slices.BinarySearchFunc(w.Parts, Part{Session: session, Filter: filter}, func(a, b Part) int {
		switch {
		case a.Session != b.Session && a.Session < b.Session:
			return -1
		case a.Session != b.Session:
			return 1
		}
		return strings.Compare(a.Filter, b.Filter)
	})
}

// Keys, within a profile's.
const (
	widePrefix      = "\x0f" // pattern, NUL, watcher: a Wide
	widePlacePrefix = "\x10" // pattern: how many there are, and where in the log one has changed last
	wideByPrefix    = "\x11" // watcher, NUL, pattern: there is one
)

const wakeWide = "\x03d" // pattern, NUL, watcher

func wideKey(pattern, watcher string) string { return WideKeys(pattern) + watcher }

// WideKeys is the prefix of the keys of those of a pattern.
func WideKeys(pattern string) string { return widePrefix + pattern + "\x00" }

// WideBy is the prefix of keys behind which the patterns follow of a watcher's.
func WideBy(watcher string) string { return wideByPrefix + watcher + "\x00" }

// WidePlaceKey is the key of what ReadWidePlace reads.
func WidePlaceKey(pattern string) string { return widePlacePrefix + pattern }

// ReadWidePlace reads how many watch by a pattern, and where in the log one of them has
// changed last; nil is of none.
//
//	version u8 = 1; many, changed: uvarints
func ReadWidePlace(value []byte) (many int, changed uint64) {
	if value == nil {
		return 0, 0
	}
	in := fields.Read(value, wideVersion)
	many, changed = int(in.Uvarint()), in.Uvarint()
	in.End()
	return many, changed
}

// The binary form of a Wide, of which fields are only ever appended to a new version:
//
//	version u8 = 1, asked, wake: 8 each, changed: uvarint, seed, note: texts,
//	how many parts: uvarint, of each: session uvarint, expires 8, filter: text
const wideVersion = 1

func (w *Wide) encode() []byte {
	b := fields.AppendInt64(fields.AppendInt64([]byte{wideVersion}, w.Asked), w.wake)
	b = binary.AppendUvarint(b, w.changed)
	b = fields.AppendText(fields.AppendText(b, w.seed), w.Note)
	b = binary.AppendUvarint(b, uint64(len(w.Parts)))
	for _, p := range w.Parts {
		b = fields.AppendInt64(binary.AppendUvarint(b, p.Session), p.Expires)
		b = fields.AppendText(b, p.Filter)
	}
	return b
}

// ReadWide reads a Wide: its key, which begins with WideKeys, and its value.
func ReadWide(key string, value []byte) *Wide {
	w := &Wide{}
	w.Pattern, w.Watcher, _ = strings.Cut(strings.TrimPrefix(key, widePrefix), "\x00")
	in := fields.Read(value, wideVersion)
	w.Asked, w.wake, w.changed = in.Int64(), in.Int64(), in.Uvarint()
	w.seed, w.Note = []byte(in.Text()), in.Text()
	for range in.Uvarint() {
		w.Parts = append(w.Parts, Part{Session: in.Uvarint(), Expires: in.Int64(), Filter: in.Text()})
	}
	in.End()
	return w
}

// Widen grants a request whose topic is a filter with wildcards, of that pattern. The error
// wraps ErrQuota.
func (b *Book) Widen(pattern string, r Request) (*Wide, error) {
	w := b.wide(pattern, r.Watcher)
	if w == nil {
		if err := b.mayWiden(pattern, r.Watcher); err != nil {
			return nil, err
		}
		w = &Wide{Pattern: pattern, Watcher: r.Watcher, Asked: b.Now(), seed: b.sum("wide", pattern, r.Watcher, fmt.Sprint(b.Position()))[:16]}
	}
	p := Part{Session: r.Session, Filter: r.Topic}
	if r.Bounded {
		p.Expires = b.Now() + int64(min(r.Expires, b.Limits.MostExpires))
	}
	switch at, has := w.find(p.Session, p.Filter); {
	case has:
		w.Parts[at] = p
	case len(w.Parts) >= b.Limits.SessionsSharing:
		return nil, fmt.Errorf("%w: %d sessions of yours watch by such filters", ErrQuota, len(w.Parts))
	default:
		w.Parts = slices.Insert(w.Parts, at, p)
	}
	if r.Note != "" {
		w.Note = r.Note
	}
	b.saveWide(w)
	b.uncut(uncutting{watcher: w.Watcher, asked: pattern, at: b.Position()})
	return w, nil
}

// mayWiden checks the bounds on one more.
func (b *Book) mayWiden(pattern, watcher string) error {
	if many, _ := ReadWidePlace(b.Tx.Get(WidePlaceKey(pattern))); many >= b.Limits.Wides {
		return fmt.Errorf("%w: as many watch them by wildcards as may: name whom you watch", ErrQuota)
	}
	by := 0
	b.Each(WideBy(watcher), "", func(string, []byte) bool {
		by++
		return by < b.Limits.WidesBy
	})
	if by >= b.Limits.WidesBy {
		return fmt.Errorf("%w: you watch by %d filters with wildcards, which is as many as one may: end a subscription first", ErrQuota, by)
	}
	return nil
}

// Narrow takes note that a session has ended what it asked for.
func (b *Book) Narrow(pattern, watcher string, session uint64, filter string) {
	w := b.wide(pattern, watcher)
	if w == nil {
		return
	}
	if at, has := w.find(session, filter); has {
		w.Parts = slices.Delete(w.Parts, at, at+1)
		b.saveWide(w)
	}
}

// expire ends the parts whose time is over.
func (b *Book) expire(pattern, watcher string) {
	w := b.wide(pattern, watcher)
	if w == nil || w.wake > b.Now() {
		return
	}
	w.Parts = slices.DeleteFunc(w.Parts, func(p Part) bool {
		over := p.Expires != 0 && p.Expires <= b.Now()
		if over {
			b.EndSubscription(p.Session, p.Filter)
		}
		return over
	})
	b.saveWide(w)
}

func (b *Book) wide(pattern, watcher string) *Wide { return WideOf(b.Tx.Get, pattern, watcher) }

// WideOf returns a watcher's subscription by a pattern, by what get returns of the profile's
// keys; nil for none.
func WideOf(get func(key string) []byte, pattern, watcher string) *Wide {
	key := wideKey(pattern, watcher)
	value := get(key)
	if value == nil {
		return nil
	}
	return ReadWide(key, bytes.Clone(value))
}

// saveWide stores one that has changed, or forgets it if nobody has a part in it.
func (b *Book) saveWide(w *Wide) {
	key, id := wideKey(w.Pattern, w.Watcher), wakeWide+w.Pattern+"\x00"+w.Watcher
	had := b.Tx.Get(key) != nil
	if w.wake > b.Now() {
		b.Cancel(w.wake, id)
	}
	w.wake, w.changed = 0, b.Position()
	for i := range w.Parts {
		w.wake = sooner(w.wake, w.Parts[i].Expires)
	}
	value, mark := w.encode(), []byte{wideVersion}
	if len(w.Parts) == 0 {
		value, mark = nil, nil
	} else if w.wake != 0 {
		b.WakeAt(w.wake, id)
	}
	b.Set(key, value)
	b.Set(WideBy(w.Watcher)+w.Pattern, mark)
	many, _ := ReadWidePlace(b.Tx.Get(WidePlaceKey(w.Pattern)))
	if is := value != nil; is != had {
		many--
		if is {
			many += 2
		}
	}
	place := binary.AppendUvarint(binary.AppendUvarint([]byte{wideVersion}, uint64(many)), w.changed)
	if many == 0 {
		place = nil
	}
	b.Set(WidePlaceKey(w.Pattern), place)
	b.Widened(w.Pattern)
	if value == nil {
		u := uncutting{watcher: w.Watcher, at: b.Position()}
		b.Soon(u.id()) // not now: whoever unsubscribes would be shown what they were cut out of
	}
}
