package life

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/policy"
)

// Times.
const (
	GiveUpAfter = 5 * 24 * time.Hour // what is asked for and not decided is given up then,
	GiveUpOver  = 4 * 24 * time.Hour // or up to so much later
	WaitsFor    = 30 * 24 * time.Hour
	KeptFor     = 7 * 24 * time.Hour // a watcher can learn so long what became of it
)

// Limits bound what there is. Zero of any field means its default.
type Limits struct {
	PendingByWatcher int           // undecided requests of one watcher: 0 means 50
	PendingOf        int           // and to one resource: 0 means 1,000
	ByDomain         int           // and of people of one domain to those of others, in an hour: 0 means 200. See chargeDomain
	Watchers         int           // subscriptions to one resource: 0 means 100,000
	ByWatcher        int           // resources that one watcher subscribes to by name, over all its sessions: 0 means 1,000. The loser is the one that would be one more
	KeptOf           int           // those that are over and kept, of one resource, and of one watcher: 0 means 1,000. The loser is the one that would be one more; see crowded
	PerMinute        int           // how often one may be asked for again: 0 means 20
	SessionsSharing  int           // one subscription: 0 means 1,000
	Wides            int           // who watch by filters with wildcards of one pattern: 0 means 10,000. The loser is the one that would be one more
	WidesBy          int           // patterns of one watcher, over all its sessions: 0 means 10. Likewise
	MostExpires      time.Duration // 0 means 30 days
}

// WithDefaults returns l with its zero fields replaced.
func (l Limits) WithDefaults() Limits {
	for _, f := range []struct {
		value  *int
		normal int
	}{
		{&l.PendingByWatcher, 50}, {&l.PendingOf, 1000}, {&l.ByDomain, 200}, {&l.Watchers, 100_000}, {&l.ByWatcher, 1000}, {&l.KeptOf, 1000}, {&l.PerMinute, 20}, {&l.SessionsSharing, 1000}, {&l.Wides, 10_000}, {&l.WidesBy, 10},
	} {
		if *f.value == 0 {
			*f.value = f.normal
		}
	}
	if l.MostExpires == 0 {
		l.MostExpires = 30 * 24 * time.Hour
	}
	return l
}

// A Verdict is what an owner's policy says of a watcher's subscription.
type Verdict struct {
	Handling policy.Handling
	Ignored  bool  // of Confirm: it is decided, and who asks is not to notice
	Silent   bool  // of Allow: who asks is not told
	Until    int64 // when it may be another; 0 for never

	// MostExpires is the longest that may be granted; 0 for any.
	MostExpires time.Duration

	Windowed
}

// A Tx is the door to the state, within one command: broker.ProfileTx is one.
type Tx interface {
	Now() int64
	Position() uint64
	Get(key string) []byte
	Set(key string, value []byte)
	Each(prefix, after string, yield func(key string, value []byte) bool)
	WakeAt(at int64, id string)
	Cancel(at int64, id string)
	Soon(id string)
	Spend(items int)
	EndSubscription(session uint64, topic string)
	Told(principal, topic string)
	ChangedFor(topic, principal string)
}

// A Book changes entries, in log order. It is made for one command.
type Book struct {
	Tx
	Limits Limits // with defaults

	// Key is the cluster's, for what nobody may foretell.
	Key [32]byte

	// Judge asks the policy of a resource's owner about a watcher who is seen as as says,
	// which is Entry.As.
	Judge func(topic, watcher, as string) Verdict

	// Noted is told of each entry of a resource that has changed; fetched says that it
	// is one of Entry.Fetched.
	Noted func(topic string, fetched bool)

	// Widened is told of each pattern by which somebody has come to watch, or watches no
	// more, or otherwise.
	Widened func(pattern string)

	// Hold is told that an entry has come to be live under a pseudonym, and Release that
	// one is so no more.
	Hold    func(e *Entry)
	Release func(pseudonym string)

	// Provided is told that an entry has come to be one that is provided, and live; or is so
	// no more.
	Provided func(e *Entry, is bool)

	// MayWatch refuses one live subscription more of a watcher to a resource; nil refuses
	// none. Watched is told of how many more there are.
	MayWatch func(topic, watcher string) error
	Watched  func(topic, watcher string, more int)
}

// Errors of Subscribe. What follows the sentinel is for the watcher.
var (
	ErrRejected = errors.New("rejected")
	ErrQuota    = errors.New("quota")
	ErrBarred   = errors.New("probation")
)

// A Request is a subscription that is asked for.
type Request struct {
	Topic, Watcher string
	Session        uint64
	Known          bool   // the session has it already
	As             string // how the owner sees the watcher, as Entry.As
	Options
}

// Subscribe answers a request. once says that the state is to be shown once and that a
// subscription that the session had has ended. An error wraps one of those above: then
// the session has no new subscription.
func (b *Book) Subscribe(r Request) (e *Entry, once bool, err error) {
	e = b.Get(r.Topic, r.Watcher)
	if e == nil {
		e = &Entry{Topic: r.Topic, Watcher: r.Watcher}
	}
	if err := b.mayAsk(e); err != nil {
		return nil, false, err
	}
	if err := b.repeated(e, r.Known || e.Status == Terminated && e.Event == Unsubscribed); err != nil {
		return nil, false, err
	}
	v := b.Judge(r.Topic, r.Watcher, r.As)
	if v.Handling == policy.Block {
		b.reject(e, r.As)
		return nil, false, ErrRejected
	}
	if !e.Live() {
		e.seenAs(r.As)
	}
	if r.Bounded && r.Expires == 0 {
		b.fetch(e, r.Session, 1)
		return e, true, nil
	}
	if v.Ended {
		return nil, false, b.shut(e, v)
	}
	if err := b.mayBegin(e, v); err != nil {
		return nil, false, err
	}
	if e.As != r.As { // to the owner it is another who watches from now on
		sessions := e.Sessions
		b.begin(e)
		e.Sessions = sessions
		e.seenAs(r.As)
	}
	if !e.Live() {
		b.begin(e)
	}
	if err := b.share(e, r, v); err != nil {
		return nil, false, err
	}
	if r.Note != "" {
		e.Note = r.Note
	}
	b.accepted(e)
	b.decide(e, v)
	b.window(e, v)
	b.save(e)
	b.Told(e.principal(), e.Topic)
	return e, false, nil
}

// mayAsk refuses whom the owner of a resource has barred.
func (b *Book) mayAsk(e *Entry) error {
	now := b.Now()
	if until := max(e.Barred, b.barred(e.Topic, e.Watcher)); until > now {
		return fmt.Errorf("%w: retry-after=%d", ErrBarred, (until-now+int64(time.Second)-1)/int64(time.Second))
	}
	return nil
}

// repeated checks, if something is asked for again, that it is not too often in a minute.
func (b *Book) repeated(e *Entry, again bool) error {
	if now := b.Now(); now-e.Minute >= int64(time.Minute) {
		e.Minute, e.Repeats = now, 0
	}
	if !again {
		return nil
	}
	if e.Repeats >= uint64(b.Limits.PerMinute) {
		return fmt.Errorf("%w: rate: asked for %d times in a minute", ErrQuota, e.Repeats)
	}
	e.Repeats++
	return nil
}

// reject ends e, whose watcher is seen as as says, because its owner's policy says so. What
// there was not is kept if there is room, for the owner to learn of it.
func (b *Book) reject(e *Entry, as string) {
	if !e.Live() {
		e.seenAs(as)
	}
	if e.ID != "" || !b.full(e) {
		b.end(e, Rejected)
		b.save(e)
	}
}

// seenAs notes as whom the owner sees the watcher. What was counted of another must not
// tell that it is the same.
func (e *Entry) seenAs(as string) {
	if e.As != as {
		e.As, e.Day, e.Fetches = as, 0, 0
	}
}

// mayBegin checks the bounds on what is not live yet, or becomes pending.
func (b *Book) mayBegin(e *Entry, v Verdict) error {
	if !e.Live() && b.MayWatch != nil {
		if err := b.MayWatch(e.Topic, e.Watcher); err != nil {
			return err
		}
	}
	pends := v.Handling == policy.Confirm
	of, by := b.countsOf(e.Topic), b.countsBy(e.Watcher)
	switch {
	case !e.Live() && of.live >= b.Limits.Watchers:
		return fmt.Errorf("%w: %d watch it", ErrQuota, of.live)
	case !e.Live() && by.live >= b.Limits.ByWatcher:
		return fmt.Errorf("%w: you watch %d addresses, which is as many as one may: end a subscription first", ErrQuota, by.live)
	case !pends || e.Status == Pending:
		return nil
	case of.pending >= b.Limits.PendingOf:
		return fmt.Errorf("%w: as many requests as are possible wait for a decision", ErrQuota)
	case by.pending >= b.Limits.PendingByWatcher:
		return fmt.Errorf("%w: %d requests of yours wait for decisions", ErrQuota, by.pending)
	}
	return b.chargeDomain(e)
}

// begin makes e a new subscription.
func (b *Book) begin(e *Entry) {
	e.ID = b.newID(e.Topic, e.Watcher)
	e.Status, e.Event, e.Style, e.Silent, e.Seen = 0, Subscribe, NoStyle, false, false
	e.Asked, e.Forget, e.GiveUp, e.Sessions, e.Note = b.Now(), 0, 0, nil, ""
	e.By, e.Until = "", 0
	e.Window, e.Announced, e.Closes, e.Opens = NoWindow, 0, 0, 0
}

// share has a session share e, for as long as it is granted.
func (b *Book) share(e *Entry, r Request, v Verdict) error {
	at, has := e.session(r.Session)
	s := Session{Number: r.Session}
	if r.Bounded {
		most := b.Limits.MostExpires
		if v.MostExpires != 0 {
			most = min(most, v.MostExpires)
		}
		s.Expires = b.Now() + int64(min(r.Expires, most))
	} else if v.MostExpires != 0 {
		s.Expires = b.Now() + int64(v.MostExpires)
	}
	switch {
	case has:
		e.Sessions[at] = s
	case len(e.Sessions) >= b.Limits.SessionsSharing:
		return fmt.Errorf("%w: %d sessions of yours watch it", ErrQuota, len(e.Sessions))
	default:
		e.Sessions = slices.Insert(e.Sessions, at, s)
	}
	return nil
}

// fetch counts that a state was fetched so often, and ends the session's part in it.
func (b *Book) fetch(e *Entry, session, times uint64) {
	const day = int64(24 * time.Hour)
	if b.Now()-e.Day >= day {
		e.Day, e.Fetches = b.Now(), 0
	}
	e.Fetches += times
	switch _, has := e.session(session); {
	case has:
		b.leave(e, session, Unsubscribed)
	case e.Status == 0:
		if b.full(e) {
			return // nobody keeps count
		}
		e.ID = b.newID(e.Topic, e.Watcher)
		b.end(e, Timeout)
		e.Forget = b.Now() + day
	}
	b.save(e)
}

// Fetched notes that a watcher has fetched a state so often otherwise than by a request. They
// are seen as they have been seen last.
func (b *Book) Fetched(topic, watcher string, times uint64) {
	e := b.Get(topic, watcher)
	if e == nil {
		e = &Entry{Topic: topic, Watcher: watcher}
	}
	if b.Judge(topic, watcher, e.As).Handling != policy.Block {
		b.fetch(e, 0, times)
	} else if !e.Live() {
		b.reject(e, e.As)
	}
}

// decide makes e what its owner's policy says.
func (b *Book) decide(e *Entry, v Verdict) {
	was, style := e.Status, e.Style
	e.Changes, e.Silent = v.Until, false
	switch {
	case v.Handling == policy.Allow:
		e.Silent = v.Silent
		b.become(e, Active, NoStyle, Approved)
	case v.Handling == policy.PoliteBlock:
		b.become(e, Active, Polite, Approved)
	case v.Handling == policy.Confirm && v.Ignored:
		b.become(e, Pending, Ignored, Subscribe)
	case v.Handling == policy.Confirm:
		b.become(e, Pending, NoStyle, Subscribe)
	default:
		b.end(e, Rejected)
		return
	}
	if e.Status != Pending {
		e.GiveUp = 0
	} else if was != Pending {
		e.GiveUp = b.Now() + b.giveUpAfter(e.Topic, e.Watcher)
	}
	if was != e.Status || style != e.Style {
		e.Since = b.Now()
	}
}

// become gives e a status, because of an event unless it is new.
func (b *Book) become(e *Entry, status Status, style Style, event Event) {
	if e.Status != 0 && e.Status != status {
		e.Event = event
	}
	e.Status, e.Style = status, style
}

// end ends e for all sessions. The caller saves it, and tells its watcher after.
func (b *Book) end(e *Entry, event Event) {
	for _, s := range e.Sessions {
		b.EndSubscription(s.Number, e.Topic)
	}
	b.over(e, Terminated, event, KeptFor)
}

// over makes e one that is no subscription any more.
func (b *Book) over(e *Entry, status Status, event Event, kept time.Duration) {
	if e.ID == "" {
		e.ID = b.newID(e.Topic, e.Watcher)
	}
	e.Status, e.Event, e.Style, e.Silent, e.Since = status, event, NoStyle, false, b.Now()
	e.Sessions, e.GiveUp, e.Changes, e.Until = nil, 0, 0, 0
	e.Window, e.Closes, e.Opens = NoWindow, 0, 0
	e.Forget = max(b.Now()+int64(kept), e.Barred)
}

// Leave takes a session out of what it shares, which has ended for it: with the
// session (gone), or because its client said so.
func (b *Book) Leave(topic, watcher string, session uint64, gone bool) {
	e := b.Get(topic, watcher)
	if e == nil {
		return
	}
	if _, has := e.session(session); !has {
		return
	}
	event := Unsubscribed
	if gone {
		event = Timeout
	}
	b.leave(e, session, event)
	b.save(e)
	b.Told(e.principal(), e.Topic)
}

func (b *Book) leave(e *Entry, session uint64, event Event) {
	at, _ := e.session(session)
	e.Sessions = slices.Delete(e.Sessions, at, at+1)
	if e.By != "" && event == Unsubscribed { // they do not want it: nor do their other sessions
		for _, s := range e.Sessions {
			b.EndSubscription(s.Number, e.Topic)
		}
		e.Sessions = nil
	} else if len(e.Sessions) > 0 || e.By != "" {
		return
	}
	switch pending := e.Status == Pending; {
	case event == Unsubscribed:
		b.over(e, Terminated, event, time.Minute) // for as long as repeats are counted
	case pending && e.Style == Ignored:
		b.over(e, Terminated, event, KeptFor)
	case pending:
		b.over(e, Waiting, event, WaitsFor)
	default:
		b.over(e, Terminated, event, KeptFor)
	}
}

// follow makes an entry what its owner's policy says now.
func (b *Book) follow(e *Entry) {
	v := b.Judge(e.Topic, e.Watcher, e.As)
	switch e.Status {
	case Terminated:
		return
	case Waiting: // decided: what is asked for next has its answer
		if v.Handling != policy.Confirm || v.Ignored {
			e.Status, e.Forget = Terminated, e.Since+int64(KeptFor) // for its watcher nothing has changed
			b.save(e)
		}
		return
	}
	if b.closed(e, v) {
		return
	}
	was := *e
	b.decide(e, v)
	tell := b.window(e, v)
	if e.Status == was.Status && e.Style == was.Style && e.Silent == was.Silent && e.Changes == was.Changes && e.Window == was.Window && e.Closes == was.Closes {
		return
	}
	b.save(e)
	if tell || e.visible() != was.visible() {
		b.Told(e.principal(), e.Topic)
	}
	if e.visible() != was.visible() {
		if e.Status == Active {
			b.ChangedFor(e.Topic, e.principal())
		}
	}
}

// visible is the status that the watcher is told.
func (e *Entry) visible() Status {
	switch {
	case e.Status == Active && e.Silent && !e.Seen:
		return Pending
	case e.Status == Waiting:
		return Terminated
	}
	return e.Status
}

// Follow makes all entries of a resource what its owner's policy says now: some at
// once, the others piece by piece.
func (b *Book) Follow(topic string) { b.sweep(topic, "", followAtOnce) }

// followAtOnce is how many entries follow a policy with the command that changes it.
const followAtOnce = 64

// Then it is followPiece with each log entry, which cost 2 to 3 ms of a processor
// (BenchmarkFollowPolicy). followWeight is what one costs in items of the log entry's budget:
// its owner's policy is evaluated twice, and what has changed is written with its indexes.
const (
	followPiece  = 128
	followWeight = 32
)

// Ids of wakes.
const (
	wakeEntry = "\x03e" // topic, NUL, watcher
	wakeSweep = "\x03s" // topic, NUL, the watcher to go on after
	wakeOffer = "\x03i" // topic, NUL, who is invited
	wakeEdge  = "\x03w" // topic
	wakeList  = "\x03l" // topic, NUL, who is invited
)

// Wakes says whether an id is of a wake of a Book's.
func Wakes(id string) bool {
	for _, prefix := range []string{wakeEntry, wakeSweep, wakeOffer, wakeList, wakeEdge, wakeWide, wakeCut, wakeUncut, wakeShow, wakeHour} {
		if strings.HasPrefix(id, prefix) {
			return true
		}
	}
	return false
}

// Wake does what is due.
func (b *Book) Wake(id string) {
	rest := id[len(wakeEntry):]
	topic, watcher, _ := strings.Cut(rest, "\x00")
	switch {
	case strings.HasPrefix(id, wakeSweep):
		b.sweep(topic, watcher, followPiece)
		return
	case strings.HasPrefix(id, wakeOffer):
		b.lapse(topic, watcher)
		return
	case strings.HasPrefix(id, wakeList):
		b.unlist(topic, watcher)
		return
	case strings.HasPrefix(id, wakeWide):
		b.expire(topic, watcher)
		return
	case strings.HasPrefix(id, wakeCut):
		b.endBar(topic, watcher)
		return
	case strings.HasPrefix(id, wakeShow):
		b.reshow(topic, watcher)
		return
	case strings.HasPrefix(id, wakeUncut):
		b.resumeUncut(topic, watcher) // the watcher, and what the rest is
		return
	case strings.HasPrefix(id, wakeEdge):
		b.passEdge(topic)
		return
	case strings.HasPrefix(id, wakeHour):
		b.endHour(rest)
		return
	}
	if e := b.Get(topic, watcher); e != nil {
		b.due(e)
	}
}

func (b *Book) sweep(topic, after string, most int) {
	if after != "" {
		after = Key(topic, after)
	}
	var some []*Entry
	more := false
	b.Each(KeysOf(topic), after, func(key string, value []byte) bool {
		if more = len(some) == most; more {
			return false
		}
		some = append(some, ReadEntry(key, value))
		return true
	})
	b.Spend(len(some) * followWeight)
	for _, e := range some {
		b.follow(e)
	}
	if more {
		b.Soon(wakeSweep + topic + "\x00" + some[len(some)-1].Watcher)
	}
}

// due does what an entry's time has come for.
func (b *Book) due(e *Entry) {
	now := b.Now()
	if e.wake > now {
		return
	}
	e.wake = 0
	switch {
	case !e.Live():
		b.save(e)
		return
	case e.GiveUp != 0 && e.GiveUp <= now:
		ignored := e.Style == Ignored
		b.end(e, GiveUp)
		if !ignored {
			e.Status, e.Forget = Waiting, now+int64(WaitsFor)
		}
		b.save(e)
		b.Told(e.principal(), e.Topic)
		return
	case e.Until != 0 && e.Until <= now:
		b.end(e, Timeout)
		b.save(e)
		b.Told(e.principal(), e.Topic)
		return
	}
	for _, s := range slices.Clone(e.Sessions) {
		if s.Expires != 0 && s.Expires <= now {
			b.EndSubscription(s.Number, e.Topic)
			b.leave(e, s.Number, Timeout)
		}
	}
	if e.Live() && e.Changes != 0 && e.Changes <= now {
		b.follow(e)
		if e.Live() {
			b.save(e)
		}
		return
	}
	b.save(e)
	if !e.Live() {
		b.Told(e.principal(), e.Topic)
	}
}

// End ends a live entry, or a waiting one, and bars its watcher until an instant, 0 for
// not at all. It says whether there was one.
func (b *Book) End(topic, watcher string, event Event, until int64) bool {
	e := b.Get(topic, watcher)
	if e == nil || e.Status == Terminated && until == 0 {
		return false
	}
	e.Barred = until
	b.end(e, event)
	b.save(e)
	b.Told(e.principal(), e.Topic)
	return true
}

// ByID returns the entry of a resource with an id, nil if there is none.
func (b *Book) ByID(topic, id string) *Entry {
	watcher := b.Tx.Get(idKey(topic, id))
	if watcher == nil {
		return nil
	}
	return b.Get(topic, string(watcher))
}

// Get returns a watcher's entry, nil if there is none.
func (b *Book) Get(topic, watcher string) *Entry { return EntryOf(b.Tx.Get, topic, watcher) }

// EntryOf is Book.Get by what get returns of the profile's keys.
func EntryOf(get func(key string) []byte, topic, watcher string) *Entry {
	key := Key(topic, watcher)
	value := get(key)
	if value == nil {
		return nil
	}
	return ReadEntry(key, value)
}

// save stores an entry that has changed, or forgets it.
func (b *Book) save(e *Entry) {
	key, id := Key(e.Topic, e.Watcher), wakeEntry+e.Topic+"\x00"+e.Watcher
	var was *Entry
	if old := b.Tx.Get(key); old != nil {
		was = ReadEntry(key, old)
	}
	forgotten := !e.Live() && (e.Forget <= b.Now() || b.crowded(was, e))
	is := e
	if forgotten {
		is = nil
	}
	b.count(was, is)
	b.indexID(was, is)
	if hidden := is != nil && is.unseen(); hidden != (was != nil && was.unseen()) {
		mark := []byte(nil)
		if hidden {
			mark = []byte{entryVersion}
		}
		b.Set(unseenPrefix+e.Topic+"\x00"+e.Watcher, mark)
	}
	if was != nil && was.wake != 0 && was.wake > b.Now() {
		b.Cancel(was.wake, id)
	}
	b.note(was, is)
	if forgotten {
		b.Set(key, nil)
		b.index(e.Topic, e.Watcher, func(in *indexed) { in.entry = false })
		return
	}
	if e.wake = e.next(); e.wake != 0 {
		b.WakeAt(e.wake, id)
	}
	b.Set(key, e.encode())
	if was == nil {
		b.index(e.Topic, e.Watcher, func(in *indexed) { in.entry = true })
	}
}

// indexID keeps to what id an entry had and has; nil for none.
func (b *Book) indexID(was, is *Entry) {
	if was != nil && is != nil && was.ID == is.ID {
		return
	}
	if was != nil && was.ID != "" {
		b.Set(idKey(was.Topic, was.ID), nil)
	}
	if is != nil && is.ID != "" {
		b.Set(idKey(is.Topic, is.ID), []byte(is.Watcher))
	}
}

// crowded says that e, which was a subscription, is not kept now that it is over: its
// resource, or its watcher, has as many of those as are kept. Without that whoever comes
// and goes, anonymously, or from address to address, would leave one each time. What its
// owner has ended is kept: the watcher is to be told, and owners end one at a time.
func (b *Book) crowded(was, e *Entry) bool {
	if was != nil && !was.Live() || e.Barred > b.Now() || e.Event != Unsubscribed && e.Event != Timeout {
		return false
	}
	return b.full(e)
}

// full says that e's resource, or its watcher, has as many as are kept of those that are
// over.
func (b *Book) full(e *Entry) bool {
	return max(b.countsOf(e.Topic).kept, b.countsBy(e.Watcher).kept) >= b.Limits.KeptOf
}

// Unseen returns entries of a resource that were approved in silence, and whose watchers
// were not shown anything yet: at most so many.
func (b *Book) Unseen(topic string, most int) (some []*Entry) {
	if b.countsOf(topic).unseen == 0 {
		return nil
	}
	b.Each(unseenPrefix+topic+"\x00", "", func(key string, _ []byte) bool {
		if e := b.Get(topic, key[len(unseenPrefix)+len(topic)+1:]); e != nil {
			some = append(some, e)
		}
		return len(some) < most
	})
	return some
}

// Saw notes that a watcher was shown something.
func (b *Book) Saw(e *Entry) {
	e.Seen = true
	b.save(e)
	b.Told(e.principal(), e.Topic)
}

func (e *Entry) unseen() bool { return e.Status == Active && e.Silent && !e.Seen }

// principal is whom to tell of e, empty for nobody.
func (e *Entry) principal() string {
	if e.Anonymous() {
		return ""
	}
	return e.Watcher
}

// WatcherOf returns what stands for who watches: a principal, or for a client without
// an identity its session.
func WatcherOf(principal string, session uint64) string {
	if principal != "" {
		return principal
	}
	return anonymous + strconv.FormatUint(session, 36)
}

// AnybodyByHTTP stands for whoever fetches without an identity and a session: to owners they
// are one.
const AnybodyByHTTP = anonymous + "-"

// sum is a keyed hash of words.
func (b *Book) sum(words ...string) []byte {
	h := hmac.New(sha256.New, b.Key[:])
	for _, w := range words {
		h.Write(binary.AppendUvarint(nil, uint64(len(w))))
		h.Write([]byte(w))
	}
	return h.Sum(nil)
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID makes the id of a subscription that begins with this command.
func (b *Book) newID(topic, watcher string) string {
	place := strconv.FormatUint(b.Position(), 36)
	return "s-" + idEncoding.EncodeToString(b.sum("id", topic, watcher, place)[:10])
}

// giveUpAfter draws when a request of a watcher to a resource is given up.
func (b *Book) giveUpAfter(topic, watcher string) int64 {
	n := binary.BigEndian.Uint64(b.sum("giveup", topic, watcher))
	return int64(GiveUpAfter) + int64(n%uint64(GiveUpOver/time.Second))*int64(time.Second)
}
