package life

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/golden"
	"github.com/bellwire/bellwire/profiles/policy"
)

// A ledger is a state in memory, and whom a book told of what.
type ledger struct {
	now   int64
	place uint64
	keys  map[string][]byte
	wakes map[string]int64 // at which they are due; 0: soon
	ended []string
	told  []string

	provided map[string]bool // watcher and topic
	watched  map[string]int  // by topic
}

func newLedger() *ledger {
	return &ledger{now: time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC).UnixNano(), keys: map[string][]byte{}, wakes: map[string]int64{}, provided: map[string]bool{}, watched: map[string]int{}}
}

func (l *ledger) Now() int64            { return l.now }
func (l *ledger) Position() uint64      { return l.place }
func (l *ledger) Get(key string) []byte { return l.keys[key] }

func (l *ledger) Set(key string, value []byte) {
	if len(value) == 0 {
		delete(l.keys, key)
		return
	}
	l.keys[key] = bytes.Clone(value)
}

func (l *ledger) Each(prefix, after string, yield func(key string, value []byte) bool) {
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		if strings.HasPrefix(key, prefix) && key > after && !yield(key, l.keys[key]) {
			return
		}
	}
}

func (l *ledger) WakeAt(at int64, id string) { l.wakes[fmt.Sprintf("%020d %s", at, id)] = at }
func (l *ledger) Cancel(at int64, id string) { delete(l.wakes, fmt.Sprintf("%020d %s", at, id)) }
func (l *ledger) Soon(id string)             { l.wakes[fmt.Sprintf("%020d %s", 0, id)] = 0 }
func (l *ledger) Spend(int)                  {}

func (l *ledger) EndSubscription(session uint64, topic string) {
	l.ended = append(l.ended, fmt.Sprint(session, " ", topic))
}

func (l *ledger) Told(principal, topic string) { l.told = append(l.told, principal+" "+topic) }
func (l *ledger) ChangedFor(string, string)    {}
func (l *ledger) book(j func(topic, watcher string) Verdict, limits Limits) *Book {
	l.place++
	return &Book{
		Tx: l, Limits: limits.WithDefaults(), Key: [32]byte{1},
		Judge: func(topic, watcher, _ string) Verdict { return j(topic, watcher) },
		Noted: func(string, bool) {}, Hold: func(*Entry) {}, Release: func(string) {},
		Watched: func(topic, _ string, more int) { l.watched[topic] += more },
		Provided: func(e *Entry, is bool) {
			if delete(l.provided, e.Watcher+" "+e.Topic); is {
				l.provided[e.Watcher+" "+e.Topic] = true
			}
		},
	}
}

// pass moves the time and does what is due.
func (l *ledger) pass(d time.Duration, b func() *Book) {
	l.now += int64(d)
	for {
		due := ""
		for _, name := range slices.Sorted(maps.Keys(l.wakes)) {
			if l.wakes[name] <= l.now {
				due = name
			}
			break
		}
		if due == "" {
			return
		}
		delete(l.wakes, due)
		b().Wake(due[21:])
	}
}

// Whatever happens, entries, the index by watcher, the counts and the wakes say the
// same; what is live has a session, and no session is left where nothing is live; bounds
// hold.
func TestBook(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLedger()
		limits := Limits{PendingByWatcher: 3, PendingOf: 3, ByDomain: 20, Watchers: 5, ByWatcher: 2, KeptOf: 4, PerMinute: 5, SessionsSharing: 2}
		policies := map[string]Verdict{}
		book := func() *Book {
			return l.book(func(topic, watcher string) Verdict {
				v := policies[topic+watcher[:1]]
				if v == (Verdict{}) {
					v.Handling = policy.Confirm
				}
				return v
			}, limits)
		}
		has := map[string]bool{} // session and topic
		for range 400 {
			topic := fmt.Sprint("presence/example.com/", "xyz"[r.IntN(3):][:1])
			session := uint64(r.IntN(8))
			watcher := fmt.Sprint("abcd"[session/2:][:1], "@x.org")
			key := fmt.Sprint(session, " ", topic)
			l.ended = nil
			switch r.IntN(10) {
			case 0, 1:
				o := Options{}
				if r.IntN(2) == 0 {
					o = Options{Bounded: true, Expires: []time.Duration{0, 30 * time.Second, time.Hour}[r.IntN(3)]}
				}
				_, once, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: session, Known: has[key], Options: o})
				if err == nil {
					has[key] = !once
				}
			case 2:
				if has[key] {
					book().Leave(topic, watcher, session, r.IntN(2) == 0)
					delete(has, key)
				}
			case 3:
				policies[topic+watcher[:1]] = []Verdict{
					{Handling: policy.Allow},
					{Handling: policy.Allow, Silent: true},
					{Handling: policy.PoliteBlock},
					{Handling: policy.Confirm},
					{Handling: policy.Confirm, Ignored: true},
					{Handling: policy.Block},
				}[r.IntN(6)]
				book().Follow(topic)
			case 4:
				book().End(topic, watcher, Deactivated, []int64{0, l.now + int64(time.Minute)}[r.IntN(2)])
			case 5:
				_, _ = book().Provide(Offer{Topic: topic, Watcher: watcher, By: "adm@x.org", Until: []int64{0, l.now + int64(time.Hour)}[r.IntN(2)]})
			case 6:
				if err := book().Invite(Offer{Topic: topic, Watcher: watcher, By: "adm@x.org", Note: "look"}); err == nil && by(l, watcher).invited > limits.PendingByWatcher {
					t.Fatalf("seed %d: %s has %d invitations", seed, watcher, by(l, watcher).invited)
				}
			case 7:
				book().Decline(topic, watcher)
			default:
				l.pass([]time.Duration{time.Second, time.Minute, time.Hour, 50 * time.Hour, 9 * 24 * time.Hour}[r.IntN(5)], book)
			}
			for _, key := range l.ended {
				delete(has, key)
			}
			if err := l.check(has, limits); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		l.pass(100*24*time.Hour, book)
	}
}

func by(l *ledger, watcher string) counts { b := Book{Tx: l}; return b.countsBy(watcher) }

// wakesOf returns when an id is woken for.
func (l *ledger) wakesOf(id string) (at []int64) {
	for name, when := range l.wakes {
		if name[21:] == id {
			at = append(at, when)
		}
	}
	return at
}

// check compares everything that is kept.
func (l *ledger) check(has map[string]bool, limits Limits) error {
	of := map[string]counts{}
	sessions, wakes, ids, watched := map[string]bool{}, 0, 0, map[string]int{}
	for key, value := range l.keys {
		if !strings.HasPrefix(key, entryPrefix) {
			continue
		}
		e := ReadEntry(key, value)
		for _, where := range []string{countPrefix + e.Topic, countPrefix + "\x00" + e.Watcher} {
			c, is := of[where], countsIn(e)
			of[where] = counts{c.live + is.live, c.pending + is.pending, c.kept + is.kept, c.unseen + is.unseen, c.invited}
		}
		if e.Live() != (len(e.Sessions) > 0) && !provided(e) {
			return fmt.Errorf("%+v has %d sessions", e, len(e.Sessions))
		}
		for _, s := range e.Sessions {
			sessions[fmt.Sprint(s.Number, " ", e.Topic)] = true
		}
		if e.wake != 0 {
			wakes++
			if l.wakes[fmt.Sprintf("%020d %s", e.wake, wakeEntry+e.Topic+"\x00"+e.Watcher)] != e.wake || e.wake != e.next() {
				return fmt.Errorf("%+v is not woken at %d", e, e.next())
			}
		}
		if !readIndexed(l.keys[KeysBy(e.Watcher)+e.Topic]).entry || e.ID != "" && string(l.keys[idKey(e.Topic, e.ID)]) != e.Watcher {
			return fmt.Errorf("%+v is not in an index", e)
		}
		if e.ID != "" {
			ids++
		}
		watched[e.Topic] += countsIn(e).live
		if provided(e) != l.provided[e.Watcher+" "+e.Topic] {
			return fmt.Errorf("%+v is told to be provided: %t", e, !provided(e))
		}
		if (e.Status == Pending) != (e.GiveUp != 0) {
			return fmt.Errorf("%+v is given up at %d", e, e.GiveUp)
		}
	}
	for key := range l.keys {
		if strings.HasPrefix(key, idPrefix) {
			ids--
		}
	}
	if ids != 0 {
		return fmt.Errorf("the index of ids has %d too many", -ids)
	}
	for key, is := range has {
		if is != sessions[key] {
			return fmt.Errorf("session %s: %t, want %t", key, sessions[key], is)
		}
	}
	for key, value := range l.keys {
		watcher, topic, ok := strings.Cut(strings.TrimPrefix(key, watcherPrefix), "\x00")
		if !ok || !strings.HasPrefix(key, watcherPrefix) {
			continue
		}
		in := readIndexed(value)
		if in.entry != (l.keys[Key(topic, watcher)] != nil) {
			return fmt.Errorf("%s %s is in the index: %t", watcher, topic, in.entry)
		}
		if in.invitation != nil {
			for _, where := range []string{countPrefix + topic, countPrefix + "\x00" + watcher} {
				c := of[where]
				c.invited++
				of[where] = c
			}
			wakes++
			if l.wakes[fmt.Sprintf("%020d %s", in.invitation.Until, wakeOffer+topic+"\x00"+watcher)] != in.invitation.Until {
				return fmt.Errorf("%s %s: %+v is not woken for", watcher, topic, in.invitation)
			}
			if is := InvitationTo(l.Get, topic, watcher); (is != nil) == in.invitation.Declined || is != nil && *is != *in.invitation {
				return fmt.Errorf("%s %s: of %+v is listed %+v", watcher, topic, in.invitation, is)
			}
		}
	}
	for key, value := range l.keys {
		if !strings.HasPrefix(key, listPrefix) {
			continue
		}
		wakes++
		if at := readInvitation(value).Until; l.wakes[fmt.Sprintf("%020d %s", at, wakeList+key[len(listPrefix):])] != at {
			return fmt.Errorf("%q is not woken for", key)
		}
	}
	for key, value := range l.keys {
		if domain, is := strings.CutPrefix(key, hourPrefix); is {
			wakes++
			if of := l.wakesOf(wakeHour + domain); len(of) != 1 || of[0] > readHour(value) {
				return fmt.Errorf("what %q has asked for is forgotten at %d, want %d at most", domain, of, readHour(value))
			}
		}
	}
	for topic, n := range watched {
		if l.watched[topic] != n {
			return fmt.Errorf("%s: %d are told to watch, %d do", topic, l.watched[topic], n)
		}
	}
	b := Book{Tx: l}
	for where, want := range of {
		if is := b.readCounts(where); is != want {
			return fmt.Errorf("%q: counts are %+v, want %+v", where, is, want)
		}
		if strings.HasPrefix(where, countPrefix+"p") && (want.pending > limits.PendingOf+limits.Watchers || want.live > limits.Watchers) {
			return fmt.Errorf("%q: %+v", where, want)
		}
		if strings.HasPrefix(where, countPrefix+"\x00") && want.live > limits.ByWatcher {
			return fmt.Errorf("%q: %+v", where, want)
		}
	}
	for _, at := range l.wakes {
		if at != 0 {
			wakes--
		}
	}
	if wakes != 0 {
		return fmt.Errorf("%d wakes too few", wakes)
	}
	return nil
}

// Who comes and goes leaves no more than is kept of one resource, whoever they are; nor
// does one watcher who goes from address to address, be there somebody or not. What its
// owner has ended is kept all the same: the watcher is to be told.
func TestWhatIsOverIsBounded(t *testing.T) {
	for name, of := range manyOf {
		for _, handling := range []policy.Handling{policy.Allow, policy.PoliteBlock, policy.Confirm} {
			l := newLedger()
			book := func() *Book {
				return l.book(func(string, string) Verdict { return Verdict{Handling: handling} }, Limits{KeptOf: 10})
			}
			for i := range 100 {
				topic, watcher := of(i)
				if _, _, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: uint64(i)}); err != nil {
					t.Fatal(err)
				}
				book().Leave(topic, watcher, uint64(i), i%2 == 0)
			}
			kept := 0
			for key := range l.keys {
				if strings.HasPrefix(key, entryPrefix) {
					kept++
				}
			}
			if kept != 10 {
				t.Errorf("%s, %s: %d are kept of 100, want 10", name, handling, kept)
			}
			topic, watcher := of(100)
			if _, _, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: 100}); err != nil {
				t.Fatal(err)
			}
			book().End(topic, watcher, Deactivated, 0)
			if e := book().Get(topic, watcher); e == nil || e.Event != Deactivated {
				t.Errorf("%s, %s: of what the owner has ended %+v is kept", name, handling, e)
			}
			if err := l.check(nil, Limits{}.WithDefaults()); err != nil {
				t.Errorf("%s, %s: %v", name, handling, err)
			}
			l.pass(100*24*time.Hour, book)
			if len(l.keys) != 0 || len(l.wakes) != 0 {
				t.Errorf("%s, %s: left are %d keys and %d wakes", name, handling, len(l.keys), len(l.wakes))
			}
		}
	}
}

// manyOf are ways to be many: whoever comes to one resource, and one watcher who goes from
// address to address.
var manyOf = map[string]func(i int) (topic, watcher string){
	"one resource": func(i int) (string, string) { return "presence/x.org/bob", WatcherOf("", uint64(i)) },
	"one watcher":  func(i int) (string, string) { return fmt.Sprint("presence/x.org/", i), "ann@x.org" },
}

// What was never a subscription leaves no more either: a state that was fetched, and what
// was refused at once.
func TestWhatNeverBeganIsBounded(t *testing.T) {
	for name, of := range manyOf {
		for _, handling := range []policy.Handling{policy.Allow, policy.Block} {
			l := newLedger()
			for i := range 100 {
				topic, watcher := of(i)
				b := l.book(func(string, string) Verdict { return Verdict{Handling: handling} }, Limits{KeptOf: 10})
				_, once, err := b.Subscribe(Request{Topic: topic, Watcher: watcher, Session: uint64(i), Options: Options{Bounded: true}})
				if once != (handling == policy.Allow) || once != (err == nil) {
					t.Fatal(once, err)
				}
			}
			kept := 0
			for key := range l.keys {
				if strings.HasPrefix(key, entryPrefix) {
					kept++
				}
			}
			if kept != 10 {
				t.Errorf("%s, %s: %d are kept of 100, want 10", name, handling, kept)
			}
		}
	}
}

// A policy that very many watch by is followed by all of them, in pieces: each log entry
// does a bounded part.
func TestFollowedInPieces(t *testing.T) {
	const topic, many = "presence/x.org/bob", followAtOnce + 2*followPiece + 1
	l, handling := newLedger(), policy.Allow
	book := func() *Book {
		return l.book(func(string, string) Verdict { return Verdict{Handling: handling} }, Limits{})
	}
	for i := range many {
		if _, _, err := book().Subscribe(Request{Topic: topic, Watcher: fmt.Sprint(i, "@x.org"), Session: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	handling = policy.PoliteBlock
	book().Follow(topic)
	for piece, want := range []int{followAtOnce, followAtOnce + followPiece, followAtOnce + 2*followPiece, many} {
		if got := ReadTally(l.keys[TallyKey(topic)]).Polite; got != uint64(want) {
			t.Errorf("after %d pieces %d have followed, want %d", piece, got, want)
		}
		for name, at := range maps.Clone(l.wakes) {
			if at == 0 {
				delete(l.wakes, name)
				book().Wake(name[21:])
			}
		}
	}
	if len(l.wakes) != 0 {
		t.Errorf("%d wakes are left", len(l.wakes))
	}
	if err := l.check(nil, Limits{}.WithDefaults()); err != nil {
		t.Error(err)
	}
}

// What is undecided, what is ignored, and what nobody can decide is told the same, octet
// for octet, at the same instants; another watcher, and another address, has another.
func TestGivenUpAlike(t *testing.T) {
	trace := func(v Verdict, topic, watcher string) string {
		l := newLedger()
		book := func() *Book { return l.book(func(string, string) Verdict { return v }, Limits{}) }
		if _, _, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: 1}); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for range 20 * 24 * 4 {
			l.pass(15*time.Minute, book)
			text, _ := book().Get(topic, watcher).StateFor(l.now, View{})
			fmt.Fprintf(&b, "%s %v\n", text, l.told)
			l.told = nil
		}
		return b.String()
	}
	const bob, ann = "presence/example.com/bob", "ann@example.net"
	undecided := trace(Verdict{Handling: policy.Confirm}, bob, ann)
	if ignored := trace(Verdict{Handling: policy.Confirm, Ignored: true}, bob, ann); ignored != undecided {
		t.Errorf("ignored:\n%s\nundecided:\n%s", ignored, undecided)
	}
	at := func(trace string) int { return strings.Index(trace, "giveup") }
	if at(undecided) < 0 {
		t.Fatal("it is never given up")
	}
	lines := func(s string) int { return strings.Count(s[:at(s)], "\n") }
	if n := lines(undecided); n < 5*24*4-1 || n > 9*24*4 {
		t.Errorf("it is given up after %d quarters of an hour", n)
	}
	if other := trace(Verdict{Handling: policy.Confirm}, bob, "eve@example.net"); lines(other) == lines(undecided) {
		t.Error("another watcher is given up at the same time")
	}
}

// An entry is written as it always was.
func TestEntryForm(t *testing.T) {
	full := &Entry{
		Topic: "presence/example.com/bob", Watcher: "ann@example.net", ID: "s-4fq2m6zkcw3hxq5a", Status: Active, Event: Approved, Style: Polite, Silent: true, Seen: true,
		Since: 1, Asked: 2, Note: "hello", As: Somebody, GiveUp: 3, Changes: 4, Forget: 5, Barred: 6, Repeats: 7, Minute: 8, Fetches: 9, Day: 10, changed: 0,
		Sessions: []Session{{300, 11}, {301, 0}}, wake: 12,
	}
	provided := &Entry{Status: Active, Event: Approved, ID: "s-", By: "adm@example.com", Until: 13}
	invited := indexed{entry: true, invitation: &Invitation{By: "adm@example.com", Note: "look", Until: 14, Declined: true}}
	l := newLedger()
	(&Book{Tx: l}).addCounts("t", "w", counts{live: 300, invited: 2})
	of := l.keys[countPrefix+"t"]
	windowed := *full
	windowed.By, windowed.Window, windowed.Announced, windowed.Closes, windowed.Opens = "adm@example.com", Closing, 13, 14, 15
	golden.Forms(t, "forms.txt", []golden.Form{
		{Name: "entry/full/4", Bytes: full.encode()},
		{Name: "entry/empty/4", Bytes: (&Entry{}).encode()},
		{Name: "entry/provided/4", Bytes: provided.encode()},
		{Name: "indexed/4", Bytes: invited.encode()},
		{Name: "counts/4", Bytes: of},
		{Name: "entry/windowed/4", Bytes: windowed.encode()},
	})
	if is := ReadEntry(Key("", ""), provided.encode()); is.By != provided.By || is.Until != provided.Until {
		t.Errorf("read as %+v, was %+v", is, provided)
	}
	if is := readIndexed(invited.encode()); !is.entry || *is.invitation != *invited.invitation {
		t.Errorf("read as %+v, was %+v", is, invited)
	}
	for _, e := range []*Entry{full, &windowed} {
		again := ReadEntry(Key(e.Topic, e.Watcher), e.encode())
		if fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", e) {
			t.Errorf("read as %+v, was %+v", again, e)
		}
	}
}
