package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// Who watches by wildcards is listed and counted with the others.
//
// The log has of them who watches by which pattern (life.Wide), and nothing of owners. When
// somebody is shown who watches them, or how many do, those are added whom their policy lets
// see something: of whom it says, by its handling, that they are allowed or politely put
// off. Windows have no part in that, as in the life of other subscriptions. Who also watches
// by name is there already.
//
// They are seen as what they are shown is judged: by their address, unless it is known that
// they have hidden it from that owner.

var _ broker.WideNotifier = (*Profile)(nil)

// SubscribedWide takes note that somebody watches by wildcards.
func (p *Profile) SubscribedWide(tx *broker.ProfileTx, r *broker.Request) error {
	pattern, ok := life.PatternOf(p.kind.Name(), r.Topic)
	if !ok {
		return nil // nobody is watched by it
	}
	options, err := life.ReadOptions(r.Options)
	if err != nil {
		return refuse.Told(err)
	}
	w, err := p.book(tx).Widen(pattern, life.Request{
		Topic: r.Topic, Watcher: life.WatcherOf(r.Principal, r.Session), Session: r.Session, Options: options,
	})
	if err != nil {
		if errors.Is(err, life.ErrQuota) {
			tx.Over("watch")
		}
		return told(err)
	}
	if options.Bounded && r.Answer == nil {
		for i := range w.Parts {
			if q := &w.Parts[i]; q.Session == r.Session && q.Filter == r.Topic {
				r.Answer = event.AppendUserProperty(nil, "evt-expires", strconv.FormatInt((q.Expires-tx.Now())/int64(time.Second), 10))
			}
		}
	}
	return nil
}

// UnsubscribedWide takes note that they do so no more.
func (p *Profile) UnsubscribedWide(tx *broker.ProfileTx, who broker.Who, session uint64, filter string) {
	if pattern, ok := life.PatternOf(p.kind.Name(), filter); ok {
		p.book(tx).Narrow(pattern, life.WatcherOf(who.Principal, session), session, filter)
	}
}

// checkWide refuses what nobody could grant to who watches by wildcards: they ask no owner,
// and are judged by the address. To those who offer less of themselves that would be a
// downgrade.
func checkWide(o *life.Options) error {
	switch {
	case !o.Offer.Has(watchers.Identified):
		return fmt.Errorf("%w: evt-visibility: who watches by wildcards is judged by the address: offer to be identified, too, or name whom you watch", kind.ErrInvalid)
	case o.Bounded && o.Expires == 0:
		return fmt.Errorf("%w: evt-expires is 0: what is to be shown once is asked for by its name, or fetched by HTTP (GET /v1/{kind}/{domain})", kind.ErrInvalid)
	}
	return nil
}

// widened has the owners whom a pattern is about shown that somebody watches by it, or does
// no more.
func (p *Profile) widened(tx *broker.ProfileTx, pattern string) {
	domain, local := life.DomainOf(pattern)
	if domain != "" && local != "" {
		p.noted(tx, p.kind.Name()+"/"+pattern, false)
		return
	}
	for _, name := range [...]string{ownStats, ownWatchers, ownXML} {
		tx.OwnChangedIn(name, domain)
	}
	tx.CountsChangedIn(domain)
}

// isWide says whether somebody watches a resource by wildcards, as far as its owner lets
// them.
func isWide(get func(key string) []byte, topicName string) bool {
	for _, pattern := range life.PatternsOf(topicName) {
		if get(life.WidePlaceKey(pattern)) != nil {
			return true
		}
	}
	return false
}

// wideSets keeps who watches by which pattern as it was read last: an owner's list is made
// far more often than somebody comes. Safe for concurrent use.
type wideSets struct {
	mu   sync.Mutex // guards the following
	sets map[string]wideSet
	many int // in all
}

type wideSet struct {
	place uint64 // in the log, of the last change
	all   []wideOne
}

// A wideOne is one of them, with what follows from it.
type wideOne struct {
	*life.Wide
	place string
	sum   uint64
	who   kind.Addr // whom owners see
}

// wideKept bounds them. The loser is any.
const wideKept = 1 << 17

// of returns who watches by a pattern, the one that changed last first. What it returns must
// not be changed.
func (s *wideSets) of(keys keysOf, pattern string) []wideOne {
	many, place := life.ReadWidePlace(keys.Get(life.WidePlaceKey(pattern)))
	if many == 0 {
		return nil
	}
	s.mu.Lock()
	kept, ok := s.sets[pattern]
	s.mu.Unlock()
	if ok && kept.place == place {
		return kept.all
	}
	all := make([]wideOne, 0, many)
	keys.Each(life.WideKeys(pattern), "", func(key string, value []byte) bool {
		w := life.ReadWide(key, value)
		who, _ := seen(w.Watcher, "")
		all = append(all, wideOne{w, w.Place(), w.Sum(), who})
		return true
	})
	slices.SortFunc(all, byPlace)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(pattern)
	for other := range s.sets {
		if s.many+len(all) <= wideKept {
			break
		}
		s.drop(other)
	}
	if s.sets == nil {
		s.sets = map[string]wideSet{}
	}
	s.sets[pattern] = wideSet{place, all}
	s.many += len(all)
	return all
}

// matching returns who watches a resource by wildcards, by pattern. What it returns must not
// be changed.
func (s *wideSets) matching(keys keysOf, topicName string) (sets [][]wideOne) {
	for _, pattern := range life.PatternsOf(topicName) {
		if all := s.of(keys, pattern); len(all) > 0 {
			sets = append(sets, all)
		}
	}
	return sets
}

// drop forgets one. Requires mu.
func (s *wideSets) drop(pattern string) {
	s.many -= len(s.sets[pattern].all)
	delete(s.sets, pattern)
}

// A crowdOf is who watches a resource by wildcards, and is let see something of it.
type crowdOf struct {
	rows  []wideRow
	until int64 // when that may be another by the passing of time; 0 for never
	sum   uint64

	over map[string]bool // of whom there is the entry of a subscription that is over
}

func byPlace(a, b wideOne) int { return cmp.Compare(a.place, b.place) }

// A wideRow is one of them.
type wideRow struct {
	*wideOne
	as     string // how the owner sees them: see life.Entry.As
	polite bool
	past   *life.Entry // of a subscription by name that is over; nil for none
	cut    *life.Cut   // it is over, for its owner has ended it; nil: it is not
}

// keysOf are a profile's keys: as a node has them, or within a command.
type keysOf interface {
	Get(key string) []byte
	Each(prefix, after string, yield func(key string, value []byte) bool)
	PolicyOf(owner string) []byte
}

// A gathering finds who is in a crowd.
type gathering struct {
	judging
	owner kind.Addr
	cuts  map[string]*life.Cut // by watcher
}

// gather returns what finds who watches a resource by wildcards and is let see something of
// it; nil if nobody is.
func (p *Profile) gather(keys keysOf, topicName string, at int64) *gathering {
	owner := kind.Of(p.Owner(topicName))
	of := p.policies.Read(owner, p.documentOf(owner, keys.PolicyOf(owner.String())))
	if of == nil {
		return nil // it shows nothing to anybody
	}
	return &gathering{
		judging: judging{policy: of, blocked: p.lists.Of(keys.Get, owner), now: time.Unix(0, at).UTC(), classes: map[class]handled{}},
		owner:   owner, cuts: cutsOf(keys, topicName),
	}
}

// cutsOf returns what is cut of a resource, by watcher; nil for nothing.
func cutsOf(keys keysOf, topicName string) (all map[string]*life.Cut) {
	keys.Each(life.CutsOf(topicName), "", func(key string, value []byte) bool {
		if all == nil {
			all = map[string]*life.Cut{}
		}
		c := life.ReadCut(key, value)
		all[c.Watcher] = c
		return true
	})
	return all
}

// row returns one of them, whose entry past is, nil for none; is says whether the owner sees
// them so. until is when that may be another.
func (g *gathering) row(w *wideOne, past *life.Entry) (row wideRow, is bool, until int64) {
	if w.who == g.owner || g.cuts[w.Watcher] != nil || past != nil && past.Live() {
		return row, false, 0
	}
	row = wideRow{wideOne: w, past: past}
	if past != nil {
		row.as = past.As
	}
	h := g.judge(w, row.as)
	row.polite = h.handling == policy.PoliteBlock
	return row, h.handling >= policy.PoliteBlock, h.until
}

// crowd returns who watches a resource by wildcards, the one that changed last first.
func (p *Profile) crowd(keys keysOf, topicName string, at int64) *crowdOf {
	c := &crowdOf{over: map[string]bool{}}
	sets := p.wides.matching(keys, topicName)
	many := 0
	for _, all := range sets {
		many += len(all)
	}
	cuts := cutsOf(keys, topicName)
	if many+len(cuts) == 0 {
		return c
	}
	g := p.gather(keys, topicName, at)
	if g == nil {
		return c
	}
	entries := entriesOf(keys, topicName, many+len(cuts))
	known, several := map[string]bool{}, len(sets) > 1
	for _, all := range sets {
		for i := range all {
			w := &all[i]
			if several && known[w.Watcher] {
				continue
			}
			if several {
				known[w.Watcher] = true
			}
			row, is, until := g.row(w, entries(w.Watcher))
			if c.until = sooner(c.until, until); is {
				c.add(row)
			}
		}
	}
	for _, cut := range cuts { // in any order: they are sorted
		over := cut.At + int64(shownFor)
		if past := entries(cut.Watcher); over > at && (past == nil || !past.Live()) {
			c.until = sooner(c.until, over)
			c.add(ended(cut, past))
		}
	}
	if several || len(cuts) > 0 {
		slices.SortFunc(c.rows, func(a, b wideRow) int { return byPlace(*a.wideOne, *b.wideOne) })
	}
	return c
}

// add adds one to a crowd.
func (c *crowdOf) add(row wideRow) {
	c.rows = append(c.rows, row)
	if row.past != nil {
		c.over[row.Watcher] = true
	}
	c.sum += row.sum * (1 + uint64(len(row.as))) // in any order
	if row.polite {
		c.sum++
	}
}

// ended returns what an owner is shown, for some time, of a subscription that they have ended.
func ended(cut *life.Cut, past *life.Entry) wideRow {
	who, _ := seen(cut.Watcher, "")
	w := &life.Wide{Watcher: cut.Watcher, Asked: cut.Asked}
	return wideRow{wideOne: &wideOne{w, cut.Place(), cut.Sum(), who}, as: cut.As, past: past, cut: cut}
}

// sooner returns the earlier of two instants of which 0 is never.
func sooner(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// entriesOf returns what finds the entries of a resource's watchers: if there are not more
// than so many, they are read once.
func entriesOf(keys keysOf, topicName string, many int) func(watcher string) *life.Entry {
	all, prefix := map[string]*life.Entry{}, life.KeysOf(topicName)
	few := true
	keys.Each(prefix, "", func(key string, value []byte) bool {
		if few = len(all) < many; few {
			e := life.ReadEntry(key, value)
			all[e.Watcher] = e
		}
		return few
	})
	if few {
		return func(watcher string) *life.Entry { return all[watcher] }
	}
	return func(watcher string) *life.Entry {
		key := life.Key(topicName, watcher)
		if value := keys.Get(key); value != nil {
			return life.ReadEntry(key, value)
		}
		return nil
	}
}

// A judging asks an owner's policy about many, of whom most are alike to it.
type judging struct {
	policy  *policy.Policy
	blocked *policy.Blocklist
	now     time.Time
	classes map[class]handled
}

// A class is of watchers about whom nothing is said by itself.
type class struct {
	domain     string
	visibility policy.Visibility
}

type handled struct {
	handling policy.Handling
	until    int64
}

func (j *judging) judge(w *wideOne, as string) handled {
	who, in := w.who, policy.Input{Auth: policy.AuthOf(w.who)}
	if as != "" || who.IsZero() {
		who, in = seen(w.Watcher, as)
	}
	of := class{who.Domain, in.Visibility}
	alone := in.Visibility == policy.Pseudonymous || j.policy.Names(who) || j.blocked.Names(who)
	if h, known := j.classes[of]; known && !alone {
		return h
	}
	in.Blocked = j.blocked.Of(who)
	d := j.policy.Now(who, j.now, in)
	h := handled{d.Handling, kind.Nanos(j.policy.StaticUntil(who, j.now, in))}
	if !alone {
		j.classes[of] = h
	}
	return h
}

// visibility says how the owner sees them.
func (r *wideRow) visibility() watchers.Visibility {
	e := life.Entry{Watcher: r.Watcher, As: r.as}
	return e.Visibility()
}

// addTo adds them to those who watch otherwise. Who has only fetched before is one who
// watches.
func (c *crowdOf) addTo(t *life.Tally) {
	for i := range c.rows {
		r := &c.rows[i]
		if r.cut != nil {
			continue
		}
		*t.Of(r.visibility())++
		if r.polite {
			t.Polite++
		}
		if r.past != nil && r.past.Fetched() && t.Fetched > 0 {
			t.Fetched--
		}
	}
}

// row is what the owner of a resource is shown of one of them.
func (r *wideRow) row(keys broker.Keys, topicName string, at int64) watchers.Row {
	row, _ := rowOf(keys, r.entry(topicName), at, false)
	return row
}

// entry is what the entry of a subscription by name would be.
func (r *wideRow) entry(topicName string) *life.Entry {
	e := &life.Entry{Topic: topicName, Watcher: r.Watcher, Status: life.Active, Event: life.Subscribe, Asked: r.Asked, Note: r.Note, As: r.as}
	switch {
	case r.cut != nil:
		e.ID, e.Status, e.Event, e.Since = r.cut.ID, life.Terminated, r.cut.Event, r.cut.At
	default:
		e.ID = r.IDFor(topicName)
	}
	if r.polite {
		e.Style = life.Polite
	}
	for i := range r.Parts {
		e.Sessions = append(e.Sessions, life.Session{Number: r.Parts[i].Session, Expires: r.Parts[i].Expires})
	}
	if r.past != nil {
		e.Day, e.Fetches = r.past.Day, r.past.Fetches
	}
	return e
}

// tally returns how many watch a resource, however they do.
func (p *Profile) tally(keys keysOf, topicName string, at int64) (life.Tally, *crowdOf) {
	t, c := life.ReadTally(keys.Get(life.TallyKey(topicName))), p.crowd(keys, topicName, at)
	c.addTo(&t)
	return t, c
}
