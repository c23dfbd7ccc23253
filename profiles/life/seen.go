package life

import (
	"encoding/binary"

	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// How owners see who watches them.
//
// By what a watcher is seen, its own address, a pseudonym or nothing, is agreed when it
// asks, and stays in its entry (As): all that the owner decides, and is shown, is about
// that. So that what has changed is found without a look at all there are, the entries of
// a resource have an index of their own, the one that changed last first; and how many
// are seen how is counted as they change.

// Somebody is As of a watcher who is seen as nobody in particular.
const Somebody = "?"

// Visibility says how the watcher is seen.
func (e *Entry) Visibility() watchers.Visibility {
	switch {
	case e.Anonymous() || e.As == Somebody:
		return watchers.Anonymous
	case e.As != "":
		return watchers.Pseudonymous
	}
	return watchers.Identified
}

// SeenAs returns by what address the owner knows the watcher, zero for none.
func (e *Entry) SeenAs() kind.Addr {
	switch e.Visibility() {
	case watchers.Identified:
		return kind.Of(e.Watcher)
	case watchers.Pseudonymous:
		return kind.Of(e.As)
	}
	return kind.Addr{}
}

// held is the pseudonym that the entry holds, empty for none.
func held(e *Entry) string {
	if e == nil || !e.Live() || e.Visibility() != watchers.Pseudonymous {
		return ""
	}
	return e.As
}

// veiled says whether a principal watches who is not seen as who it is.
func veiled(e *Entry) bool { return e != nil && e.As != "" && !e.Anonymous() }

// Fetched says whether the entry is only kept because its state was fetched.
func (e *Entry) Fetched() bool { return !e.Live() && e.Status != Waiting && e.Fetches > 0 }

// Keys of the index, and of what is counted.
const (
	latestPrefix = "\x07" // topic, NUL, the place in the log of the last change as its complement, watcher: ∅
	tallyPrefix  = "\x08" // topic: how many are seen how
	anewPrefix   = "\x0b" // topic: where in the log somebody came to be seen otherwise
)

func latestKey(e *Entry) string {
	return LatestOf(e.Topic) + string(binary.BigEndian.AppendUint64(nil, ^e.changed)) + e.Watcher
}

// LatestOf is the prefix of the keys of a resource's index.
func LatestOf(topic string) string { return latestPrefix + topic + "\x00" }

// ReadLatest reads a key of the index behind that prefix: the place in the log at which
// the watcher's entry has changed last.
func ReadLatest(rest string) (place uint64, watcher string) {
	return ^binary.BigEndian.Uint64([]byte(rest[:8])), rest[8:]
}

// AnewKey is the key under which is, for a resource, where in the log a watcher came to be
// seen otherwise: whoever knows of them from before knows somebody who is not there.
func AnewKey(topic string) string { return anewPrefix + topic }

// ReadAnew reads the value of it; nil is 0.
func ReadAnew(value []byte) uint64 {
	if value == nil {
		return 0
	}
	place, _ := binary.Uvarint(value)
	return place
}

// A Tally is how many of a resource's watchers are seen how.
type Tally struct {
	watchers.Counts
	Veiled uint64 // entries of principals who are not seen as who they are
}

// TallyKey is the key of a resource's.
func TallyKey(topic string) string { return tallyPrefix + topic }

func (t *Tally) numbers() []*uint64 {
	return []*uint64{&t.Identified, &t.Pseudonymous, &t.Anonymous, &t.Polite, &t.Pending, &t.Fetched, &t.Veiled}
}

// ReadTally reads the value under TallyKey; nil is of none.
//
//	version u8 = 1; identified, pseudonymous, anonymous, polite, pending, fetched, veiled: uvarints
func ReadTally(value []byte) (t Tally) {
	if value == nil {
		return t
	}
	in := fields.Read(value, entryVersion)
	for _, n := range t.numbers() {
		*n = in.Uvarint()
	}
	in.End()
	return t
}

func tallyOf(e *Entry) (t Tally) {
	if e == nil {
		return t
	}
	switch status, _ := e.ForOwner(); {
	case status == Active:
		*t.Of(e.Visibility())++
		if e.Style == Polite {
			t.Polite++
		}
	case status == Pending:
		t.Pending++
	case e.Fetched():
		t.Fetched++
	}
	if veiled(e) {
		t.Veiled++
	}
	return t
}

// SeeAs has a live entry's watcher seen otherwise: to the owner it is another who watches
// from now on.
func (b *Book) SeeAs(e *Entry, as string) {
	sessions, note := e.Sessions, e.Note
	b.begin(e)
	e.Sessions, e.Note, e.As = sessions, note, as
	v := b.Judge(e.Topic, e.Watcher, as)
	b.decide(e, v)
	b.window(e, v)
	b.save(e)
	b.Told(e.principal(), e.Topic)
}

// note keeps index, counts and pseudonyms to what an entry was and is; nil for none.
func (b *Book) note(was, is *Entry) {
	if was != nil {
		b.Set(latestKey(was), nil)
	}
	if is != nil {
		is.changed = b.Position()
		b.Set(latestKey(is), []byte{entryVersion})
	}
	e := is
	if e == nil {
		e = was
	}
	if e == nil {
		return
	}
	if was != nil && is != nil && was.ID != is.ID && was.Live() {
		b.Set(AnewKey(e.Topic), binary.AppendUvarint(nil, b.Position()))
	}
	// Also where nothing is counted, or nothing else than before: whom an owner ignores waits
	// for as much as whom they do not.
	if before, after := tallyOf(was), tallyOf(is); before != after || is != nil && is.Status == Pending {
		t := ReadTally(b.Tx.Get(TallyKey(e.Topic)))
		value := []byte{entryVersion}
		some := false
		for i, n := range t.numbers() {
			*n += *after.numbers()[i] - *before.numbers()[i]
			value = binary.AppendUvarint(value, *n)
			some = some || *n != 0
		}
		if !some {
			value = nil
		}
		b.Set(TallyKey(e.Topic), value)
	}
	if before, after := held(was), held(is); before != after {
		if after != "" {
			b.Hold(e)
		}
		if before != "" {
			b.Release(before)
		}
	}
	if before, after := provided(was), provided(is); before != after {
		b.Provided(e, after)
	}
	if veiled(was) || veiled(is) {
		b.ChangedFor(e.Topic, e.principal())
	}
	if (was != nil && was.Live()) != (is != nil && is.Live()) && b.Tx.Get(cutKey(e.Topic, e.Watcher)) != nil {
		b.Soon(wakeShow + e.Topic + "\x00" + e.Watcher) // what they see by wildcards depends on it
	}
	b.Noted(e.Topic, e.Fetched())
}
