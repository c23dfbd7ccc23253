package life

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/fields"
)

// A Status is that of a subscription as its owner is told (RFC 3857 section 4.7.1).
type Status uint8

const (
	Pending    Status = 1 // its owner is to decide
	Active     Status = 2
	Waiting    Status = 3 // it is over, undecided: kept so that its owner learns of it
	Terminated Status = 4 // it is over: kept so that its watcher learns of it
)

func (s Status) String() string {
	switch s {
	case Pending:
		return "pending"
	case Active:
		return "active"
	case Waiting:
		return "waiting"
	}
	return "terminated"
}

// An Event is what brought a subscription to its status: the words of RFC 3857, and
// two of ours.
type Event uint8

const (
	Subscribe    Event = 1 // it was asked for
	Approved     Event = 2
	Deactivated  Event = 3 // its owner has ended it: it may be asked for again at once
	Probation    Event = 4 // likewise, but not before some time
	Rejected     Event = 5
	Timeout      Event = 6 // it was not refreshed
	GiveUp       Event = 7 // nobody has decided
	NoResource   Event = 8
	Admin        Event = 9  // an administrator has ended it
	Unsubscribed Event = 10 // its watcher has
)

var eventWords = [...]string{
	Subscribe: "subscribe", Approved: "approved", Deactivated: "deactivated", Probation: "probation", Rejected: "rejected",
	Timeout: "timeout", GiveUp: "giveup", NoResource: "noresource", Admin: "admin", Unsubscribed: "unsubscribed",
}

func (e Event) String() string { return eventWords[e] }

// A Style is how somebody is kept from seeing anything.
type Style uint8

const (
	NoStyle Style = 0
	Polite  Style = 1 // they are shown that there is nothing
	Ignored Style = 2 // as if nobody had decided
)

func (s Style) String() string { return [...]string{"", "polite", "ignore"}[s] }

// An Entry is one watcher's subscription to one resource.
type Entry struct {
	Topic   string // of the resource
	Watcher string // principal; of an anonymous client a word that no principal is, see Anonymous

	ID     string // changes with each new subscription: nobody can tell from it anything else
	Status Status
	Event  Event
	Style  Style
	Silent bool  // the watcher is not told that it was approved: the first document tells
	Seen   bool  // and there has been one
	Since  int64 // of the status; instants are log time, unix nanoseconds, 0 for never
	Asked  int64 // when it was asked for

	Note string // what the watcher says to the owner: not to be trusted
	As   string // how the owner sees the watcher: as itself if empty, by a pseudonym, or as Somebody

	GiveUp  int64 // of a pending one
	Changes int64 // when its owner's policy may say something else by the passing of time
	Forget  int64 // of one that is over
	Barred  int64 // not granted again before this

	Repeats uint64 // how often it was asked for again, in the minute from Minute on
	Minute  int64

	Fetches uint64 // how often its state was fetched instead, in the day from FetchDay on
	Day     int64

	// By is the administrator who has provided it, empty for one that its watcher has asked
	// for: then it lasts without sessions, until Until, 0 for ever.
	By    string
	Until int64

	Window    Window // what its watcher was told of the window last
	Announced int64  // when: the state is never that of an earlier instant
	Closes    int64  // when it is over because the window closes
	Opens     int64  // of one that is over because of that: when the window is open again

	Sessions []Session // that share it, by number

	wake    int64  // when its book is woken for it
	changed uint64 // where in the log it has last
}

// A Session is one of those that share a subscription.
type Session struct {
	Number  uint64
	Expires int64 // 0: with the session
}

// Live says whether it is a subscription, pending or active.
func (e *Entry) Live() bool { return e.Status == Pending || e.Status == Active }

// Expires returns when it is over unless it is refreshed: 0 for never.
func (e *Entry) Expires() (last int64) {
	if e.By != "" {
		return e.Until
	}
	for _, s := range e.Sessions {
		if s.Expires == 0 {
			return 0
		}
		last = max(last, s.Expires)
	}
	return last
}

// ForOwner returns status and event as the owner is told: whom they ignore is done
// with.
func (e *Entry) ForOwner() (Status, Event) {
	if e.Style == Ignored && e.Status == Pending {
		return Terminated, Rejected
	}
	return e.Status, e.Event
}

// ToldAs returns the status as the watcher is told.
func (e *Entry) ToldAs() Status { return e.visible() }

// Anonymous says whether the watcher is a client without an identity.
func (e *Entry) Anonymous() bool { return strings.HasPrefix(e.Watcher, anonymous) }

// anonymous begins what is in place of a principal, of whom there is none.
const anonymous = "?"

func (e *Entry) session(number uint64) (at int, ok bool) {
	return slices.BinarySearchFunc(e.Sessions, number, func(s Session, n uint64) int {
		switch {
		case s.Number < n:
			return -1
		case s.Number > n:
			return 1
		}
		return 0
	})
}

// next returns when there is something to do about it, 0 for never.
func (e *Entry) next() (first int64) {
	sooner := func(at int64) {
		if at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	if !e.Live() {
		sooner(e.Forget)
		return first
	}
	sooner(e.GiveUp)
	sooner(e.Changes)
	sooner(e.Until)
	for _, s := range e.Sessions {
		sooner(s.Expires)
	}
	return first
}

// The binary form of an entry, of which fields are only ever appended to a new
// version:
//
//	version u8 = 1, status u8, event u8, style u8, flags u8 (1 silent, 2 seen, 4 provided, 8 windowed), id: text,
//	since, asked, giveup, changes, forget, barred, minute, day, wake: 8 each,
//	repeats, fetches, changed: uvarints, note, as: texts,
//	how many sessions: uvarint, of each: number uvarint, expires 8, if provided: by: text, until 8,
//	if windowed: window u8, announced, closes, opens: 8 each
const entryVersion = 1

func (e *Entry) encode() []byte {
	flags := byte(0)
	if e.Silent {
		flags |= 1
	}
	if e.Seen {
		flags |= 2
	}
	if e.By != "" {
		flags |= 4
	}
	windowed := e.Window != NoWindow || e.Announced != 0 || e.Closes != 0 || e.Opens != 0
	if windowed {
		flags |= 8
	}
	b := []byte{entryVersion, byte(e.Status), byte(e.Event), byte(e.Style), flags}
	b = fields.AppendText(b, e.ID)
	for _, at := range e.instants() {
		b = fields.AppendInt64(b, *at)
	}
	b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, e.Repeats), e.Fetches), e.changed)
	b = fields.AppendText(fields.AppendText(b, e.Note), e.As)
	b = binary.AppendUvarint(b, uint64(len(e.Sessions)))
	for _, s := range e.Sessions {
		b = fields.AppendInt64(binary.AppendUvarint(b, s.Number), s.Expires)
	}
	if e.By != "" {
		b = fields.AppendInt64(fields.AppendText(b, e.By), e.Until)
	}
	if windowed {
		b = append(b, byte(e.Window))
		for _, at := range e.edges() {
			b = fields.AppendInt64(b, *at)
		}
	}
	return b
}

func (e *Entry) instants() []*int64 {
	return []*int64{&e.Since, &e.Asked, &e.GiveUp, &e.Changes, &e.Forget, &e.Barred, &e.Minute, &e.Day, &e.wake}
}

func (e *Entry) edges() []*int64 { return []*int64{&e.Announced, &e.Closes, &e.Opens} }

// ReadEntry reads an entry: its key, as Key returns it, and its value.
func ReadEntry(key string, value []byte) *Entry {
	e := &Entry{}
	e.Topic, e.Watcher, _ = strings.Cut(strings.TrimPrefix(key, entryPrefix), "\x00")
	in := fields.Read(value, entryVersion)
	e.Status, e.Event, e.Style = Status(in.Byte()), Event(in.Byte()), Style(in.Byte())
	flags := in.Byte()
	e.Silent, e.Seen = flags&1 != 0, flags&2 != 0
	e.ID = in.Text()
	for _, at := range e.instants() {
		*at = in.Int64()
	}
	e.Repeats, e.Fetches, e.changed = in.Uvarint(), in.Uvarint(), in.Uvarint()
	e.Note, e.As = in.Text(), in.Text()
	for range in.Uvarint() {
		e.Sessions = append(e.Sessions, Session{in.Uvarint(), in.Int64()})
	}
	if flags&4 != 0 {
		e.By, e.Until = in.Text(), in.Int64()
	}
	if flags&8 != 0 {
		e.Window = Window(in.Byte())
		for _, at := range e.edges() {
			*at = in.Int64()
		}
	}
	in.End()
	return e
}

// Keys, within a profile's. No topic begins like them.
const (
	entryPrefix   = "\x03" // and Key's: an entry
	watcherPrefix = "\x04" // watcher, NUL, topic: there is an entry, or an invitation (see indexed)
	unseenPrefix  = "\x06" // topic, NUL, watcher: approved in silence
	countPrefix   = "\x05" // topic, or NUL and watcher: counts
	idPrefix      = "\x0c" // topic, NUL, the id of a subscription: its watcher
	edgePrefix    = "\x0e" // topic: when its entries are looked at next because of windows
)

func idKey(topic, id string) string { return idPrefix + topic + "\x00" + id }

// Key is the key of an entry.
func Key(topic, watcher string) string { return entryPrefix + topic + "\x00" + watcher }

// KeysOf is the prefix of the keys of a resource's entries, in the order of watchers.
func KeysOf(topic string) string { return entryPrefix + topic + "\x00" }

// KeysBy is the prefix of keys behind which the topics follow of a watcher's entries.
func KeysBy(watcher string) string { return watcherPrefix + watcher + "\x00" }
