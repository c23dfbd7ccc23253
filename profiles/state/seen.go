package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// How watchers are seen by owners.
//
// What a watcher offers and what the owner's policy demands is settled in the command
// that has the subscription, before anything of it is written: who is refused has left no
// trace. From then on the policy is asked about who the owner sees: what is granted to
// somebody by name is not granted to their pseudonym.

// named returns what makes pseudonyms within a command.
func named(tx *broker.ProfileTx) alias.Book {
	key := tx.Secret().Derive("pseudonyms")
	return alias.BookOf(tx, key[:])
}

// errIdentity is what somebody is told who shows less than the owner demands.
var errIdentity = &broker.Refusal{Reason: "identity-required: its owner wants to know more of who watches: offer to be pseudonymous or identified (evt-visibility)"}

// agree returns how the owner sees who asks for a resource, as life.Entry.As. It changes
// nothing.
func (p *Profile) agree(tx *broker.ProfileTx, r *broker.Request, owner kind.Addr, offer watchers.Offer) (as string, err error) {
	of := p.policies.Read(owner, p.documentOf(owner, tx.PolicyOf(owner.String())))
	watcher := kind.Of(r.Principal)
	demand := watchers.Anonymous
	if of != nil {
		demand = demanded(of)
	}
	switch {
	case watcher.IsZero() && (demand != watchers.Anonymous || len(offer) > 0 && offer[0] != watchers.Anonymous):
		return "", errIdentity
	case watcher.IsZero():
		return "", nil
	}
	v, ok := offer.Agree(demand)
	switch {
	case !ok:
		return "", errIdentity
	case v == watchers.Anonymous:
		return life.Somebody, nil
	case v == watchers.Identified:
		return "", nil
	}
	name, err := named(tx).May(watcher, owner)
	switch {
	case errors.Is(err, alias.ErrBarred):
		return "", &broker.Refusal{Reason: "blocked-source: whoever you want to watch has blocked you under another name"}
	case err != nil:
		return "", &broker.Refusal{Cause: broker.ErrQuota, Reason: "quota: you have as many pseudonyms as are possible"}
	}
	return name.String(), nil
}

// demanded returns the least that a policy's owner wants to know of a watcher.
func demanded(of *policy.Policy) watchers.Visibility {
	switch of.Demanded() {
	case policy.Identified:
		return watchers.Identified
	case policy.Pseudonymous:
		return watchers.Pseudonymous
	}
	return watchers.Anonymous
}

// seen returns about whom a policy is asked for a watcher who is seen so.
func seen(watcher, as string) (who kind.Addr, in policy.Input) {
	switch {
	case strings.HasPrefix(watcher, "?"), as == life.Somebody:
		in.Visibility = policy.Anonymous
	case as != "":
		who, in.Visibility = kind.Of(as), policy.Pseudonymous
	default:
		who = kind.Of(watcher)
	}
	in.Auth = policy.AuthOf(who)
	return who, in
}

// watcherOf returns about whom a policy is asked for who watches a resource, by what get
// returns of the profile's keys. As long as it is known that somebody has hidden who they
// are, also when they have asked but once or it is over, they are not shown what is for
// their name: what is sent last would be, and the owner could see nobody who has it.
func watcherOf(get func(key string) []byte, topicName string, who broker.Who) (kind.Addr, policy.Input) {
	if get != nil && who.Principal != "" {
		key := life.Key(topicName, who.Principal)
		if value := get(key); value != nil {
			e := life.ReadEntry(key, value)
			return seen(e.Watcher, e.As)
		}
	}
	return seen(who.Principal, "")
}

// noted has an owner shown that a watcher's subscription has changed.
func (p *Profile) noted(tx *broker.ProfileTx, topicName string, fetched bool) {
	owner := p.Owner(topicName)
	tx.OwnChanged(ownStats, owner)
	if p.publishes(tx, owner) {
		tx.CountChanged(topicName)
	}
	if !fetched { // that is counted, and told with what comes next
		tx.OwnChanged(ownWatchers, owner)
		tx.OwnChanged(ownXML, owner)
	}
}

// What watchers ask for, by publishing to $ctl/reveal, $ctl/rotate or $ctl/decline: JSON
// with the kind, and as entity whom they watch, or are invited to.
const (
	verbReveal = "reveal" // they are seen as who they are from now on
	verbRotate = "rotate" // their subscription ends, and the next has a fresh pseudonym

	verbDecline = "decline" // they are invited, and do not want to be again
)

func ofWatcher(verb string) bool {
	return verb == verbReveal || verb == verbRotate || verb == verbDecline
}

// A turn is what a watcher asks for.
type turn struct {
	ID     json.RawMessage
	Kind   string
	Entity string

	verb            string
	watcher, target kind.Addr
}

func (p *Profile) readTurn(pub *broker.Publication) (t turn, err error) {
	t.verb, _ = broker.ControlVerb(pub.Event.Topic)
	if t.watcher = kind.Of(pub.From.Principal); t.watcher.IsZero() {
		return t, fmt.Errorf("%w: identity-required: nobody knows whose subscription is meant", kind.ErrForbidden)
	}
	d := json.NewDecoder(strings.NewReader(string(pub.Event.Payload)))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("%w: schema: %v", kind.ErrInvalid, err)
	}
	if t.target, err = kind.ParseAddr(t.Entity); err != nil {
		return t, fmt.Errorf("%w: schema: entity: whom you watch: %v", kind.ErrInvalid, err)
	}
	return t, nil
}

// applyTurn does what a watcher asks for. Whether there is somebody with the address that
// they name it does not tell.
func (p *Profile) applyTurn(tx *broker.ProfileTx, pub *broker.Publication) error {
	t, err := p.readTurn(pub)
	if err != nil {
		return refuse.Told(err)
	}
	b, a := p.book(tx), answer{ID: t.ID}
	topicName := kind.Resource{Kind: p.kind.Name(), Addr: t.target}.Topic()
	e := b.Get(topicName, t.watcher.String())
	switch {
	case t.verb == verbDecline:
		if b.Decline(topicName, t.watcher.String()) {
			a.Matched = 1
		}
	case t.verb == verbReveal:
		if e == nil || !e.Live() || e.As == "" {
			return &broker.Refusal{Cause: broker.ErrCondition, Reason: "no-such-subscription: you do not watch them as anybody else"}
		}
		b.SeeAs(e, "")
		a.Matched = 1
	default:
		names := named(tx)
		if err := names.Rotate(t.watcher, t.target, p.blocks(tx, topicName, t.watcher, names.Name(t.watcher, t.target))); err != nil {
			return &broker.Refusal{Cause: broker.ErrQuota, Reason: "quota: you have had as many pseudonyms for them as are possible"}
		}
		if e != nil && e.Live() && e.Visibility() == watchers.Pseudonymous {
			b.End(topicName, e.Watcher, life.Deactivated, 0)
			a.Matched = 1
		}
	}
	pub.Reply, err = json.Marshal(a)
	return err
}

// blocks says whether the owner of a resource has put off a pseudonym of watcher's: by a
// rule that is about it.
func (p *Profile) blocks(tx *broker.ProfileTx, topicName string, watcher, name kind.Addr) bool {
	owner := kind.Of(p.Owner(topicName))
	of := p.policies.Read(owner, p.documentOf(owner, tx.PolicyOf(owner.String())))
	if of == nil {
		return false
	}
	who, in := seen(watcher.String(), name.String())
	in.Blocked = p.lists.Of(tx.Get, owner).Of(who)
	d := p.policies.Evaluate(of, who, kind.Instant(tx.Now()), in)
	h, ignored := d.Life()
	return d.Named && !d.Hidden && (h == policy.Block || h == policy.PoliteBlock || ignored)
}

// What owners are shown of who watches them, as $me/ and these and the kind.
const (
	ownWatchers = "watchers" // who, in JSON
	ownXML      = "winfo"    // likewise, as RFC 3858 has it
	ownStats    = "stats"    // how many
)

var _ broker.OwnViewer = (*Profile)(nil)

// Own shows owners who watches them.
func (p *Profile) Own(name string) broker.OwnView {
	switch name {
	case ownWatchers:
		return watcherList{p, false}
	case ownXML:
		return watcherList{p, true}
	case ownStats:
		return watcherStats{p}
	}
	return nil
}

// tellEvery is how often an owner is told at most (RFC 3857 section 4.10).
const tellEvery = 5 * time.Second

// shownFor is how long a list that is whole has subscriptions that are over.
const shownFor = 24 * time.Hour

// A watcherList shows owners who watches them.
type watcherList struct {
	*Profile
	xml bool
}

var _ broker.Series = watcherList{}

func (watcherList) Pace() (burst int, interval time.Duration) { return 1, tellEvery }

func (v watcherList) Show(keys broker.Keys, who broker.Who, at int64) broker.Shown {
	s, _, _ := v.Next(keys, who, at, 0, nil)
	return s
}

// Next lists all, the one that changed last first, or those that have changed since last,
// which is what the one before told of.
func (v watcherList) Next(keys broker.Keys, who broker.Who, at int64, n uint64, last any) (s broker.Shown, now any, send bool) {
	l, look := v.begin(keys, who, at)
	told, partial := last.(listed)
	// Of those who watch by wildcards it is not kept who was told of: who they are by now all
	// are told.
	if partial && (life.ReadAnew(keys.Get(life.AnewKey(look.topic))) > told.place || look.crowd.sum != told.sum) {
		told, partial = listed{}, false
	}
	since := told.place
	l.Version, l.Full, l.Rest = n, !partial, "/v1/me/"+ownWatchers+"/"+v.kind.Name()
	is := listed{max(since, look.rows(l, "", since, partial)), look.crowd.sum}
	if partial && len(l.Rows) == 0 {
		return broker.Shown{Ruled: look.crowd.until}, nil, false
	}
	if v.xml {
		s = shownAs(l.XML(), watchers.XMLType)
	} else {
		s = shownAs(l.JSON(), watchers.ListType)
	}
	s.Ruled = look.crowd.until
	return s, is, true
}

// A listed is what a list tells of: the place in the log of the last change of an entry, and
// who watches by wildcards (crowdOf.sum).
type listed struct{ place, sum uint64 }

var _ broker.Paged = watcherList{}

// Page lists all in the same order, from a key of the index on. Who changes meanwhile is at
// the front of the next list.
func (v watcherList) Page(keys broker.Keys, who broker.Who, at int64, after string, seal func(place string) string) broker.Shown {
	l, look := v.begin(keys, who, at)
	l.Full = after == ""
	look.rows(l, after, 0, false)
	l.Next = func(rows int) string {
		if rows < len(look.places) {
			return seal(look.places[max(rows-1, 0)])
		}
		return seal(look.last)
	}
	return shownAs(l.JSON(), watchers.ListType)
}

func (v watcherList) topicOf(who broker.Who) string {
	return kind.Resource{Kind: v.kind.Name(), Addr: kind.Of(who.Principal)}.Topic()
}

// begin makes a list without rows, and what looks for them.
func (v watcherList) begin(keys broker.Keys, who broker.Who, at int64) (*watchers.List, *look) {
	topicName := v.topicOf(who)
	tally, crowd := v.tally(keys, topicName, at)
	publishing := v.publishing(keys, who.Principal)
	look := &look{keys: keys, topic: topicName, at: at, crowd: crowd, hidden: publishing.Hidden(&tally.Counts)}
	total := tally.Total() + tally.Pending
	if look.hidden { // or it would tell
		total -= tally.Anonymous
	}
	return &watchers.List{Of: kind.Of(who.Principal), Kind: v.kind.Name(), Scheme: v.kind.Scheme(), Total: int(total), At: kind.Instant(at)}, look
}

// mostLooked bounds the entries that are read for one list: an owner may hide as many
// anonymous ones as there may be.
const mostLooked = 4 * watchers.MaxRows

// A look finds the rows of an owner's list.
type look struct {
	keys   broker.Keys
	topic  string
	at     int64
	crowd  *crowdOf
	hidden bool // who is anonymous is not listed

	places []string // where in the index each row is
	last   string   // what was looked at last
}

// rows adds to a list those that come after a place in the index, the one that changed last
// first, and if it is partial only those that have changed since; as many as it may have and
// one. It returns the place in the log of the last change.
func (k *look) rows(l *watchers.List, after string, since uint64, partial bool) (newest uint64) {
	prefix, looked := life.LatestOf(k.topic), 0
	wide := k.crowd.rows
	for len(wide) > 0 && wide[0].place <= after {
		wide = wide[1:]
	}
	if partial {
		wide = nil // they are who they were
	}
	// full says that no more is looked at.
	full := func() bool {
		l.More = len(l.Rows) > watchers.MaxRows || looked >= mostLooked
		return l.More
	}
	add := func(row watchers.Row) {
		if !(k.hidden && row.Visibility == watchers.Anonymous) {
			l.Rows, k.places = append(l.Rows, row), append(k.places, k.last)
		}
	}
	// upTo adds who watches by wildcards, as far as a place.
	upTo := func(place string) {
		for ; len(wide) > 0 && (place == "" || wide[0].place < place) && !full(); wide = wide[1:] {
			looked++
			k.last = wide[0].place
			add(wide[0].row(k.keys, k.topic, k.at))
		}
	}
	if after != "" {
		after = prefix + after
	}
	k.keys.Each(prefix, after, func(key string, _ []byte) bool {
		place, watcher := life.ReadLatest(key[len(prefix):])
		newest = max(newest, place)
		if partial && place <= since {
			return false
		}
		if upTo(key[len(prefix):]); full() {
			return false
		}
		looked++
		k.last = key[len(prefix):]
		if value := k.keys.Get(life.Key(k.topic, watcher)); value != nil {
			e := life.ReadEntry(life.Key(k.topic, watcher), value)
			if row, shown := rowOf(k.keys, e, k.at, partial); shown && (partial || !k.crowd.over[watcher]) {
				add(row)
			}
		}
		return true
	})
	if upTo(""); len(wide) > 0 {
		l.More = true
	}
	return newest
}

func shownAs(body []byte, contentType string) broker.Shown {
	return broker.Shown{Visible: true, Payload: body, Props: event.AppendContentType(nil, contentType)}
}

// rowOf makes of an entry what its owner is shown of it. shown is false of one that is
// over, where a list is whole and it has been so for long, and of one that only fetches
// where it has what is new.
func rowOf(keys broker.Keys, e *life.Entry, at int64, partial bool) (row watchers.Row, shown bool) {
	status, because := e.ForOwner()
	row = watchers.Row{
		ID: e.ID, Watcher: e.SeenAs(), Status: watchers.Status(status.String()), Event: because.String(), Visibility: e.Visibility(),
		Style: e.Style.String(), Since: kind.Instant(e.Asked), Note: e.Note, By: e.By,
	}
	row.Auth = int(policy.AuthOf(row.Watcher))
	if e.Live() && status != life.Terminated {
		row.Expires = kind.Instant(e.Expires())
	}
	if at-e.Day < int64(24*time.Hour) {
		row.Fetches = int(e.Fetches)
	}
	if e.Fetched() {
		row.Event = "fetch"
	}
	rules := alias.ReadSet(keys.Of(alias.Kind).PolicyOf(e.Watcher), kind.Of(e.Watcher))
	row = rules.Over(row)
	over := status == life.Terminated
	return row, !(over && (!partial && at-e.Since >= int64(shownFor) || partial && e.Fetched()))
}

// publishing is what an owner's policy says about counts.
func (p *Profile) publishing(keys broker.Keys, owner string) watchers.Publishing {
	document := keys.PolicyOf(owner)
	if document == nil {
		return watchers.Publishing{}
	}
	if of := p.policies.Read(kind.Of(owner), document); of != nil {
		return of.Publishing()
	}
	return watchers.Publishing{}
}

// watcherStats shows owners how many watch them.
type watcherStats struct{ *Profile }

func (watcherStats) Pace() (burst int, interval time.Duration) { return 1, tellEvery }

func (v watcherStats) Show(keys broker.Keys, who broker.Who, at int64) broker.Shown {
	topicName := kind.Resource{Kind: v.kind.Name(), Addr: kind.Of(who.Principal)}.Topic()
	tally, crowd := v.tally(keys, topicName, at)
	publishing := v.publishing(keys, who.Principal)
	s := shownAs(tally.JSON(&publishing), watchers.StatsType)
	s.Ruled = crowd.until
	return s
}

var _ broker.Counter = (*Profile)(nil)

// Count returns what others are told of how many watch a resource at an instant.
func (p *Profile) Count(keys broker.Keys, topicName string, at int64) (s broker.Shown, ok bool) {
	owner := p.Owner(topicName)
	if owner == "" {
		return s, false
	}
	publishing := p.publishing(keys, owner)
	if !publishing.Others {
		return s, false
	}
	tally, crowd := p.tally(keys, topicName, at)
	document, ok := tally.PublicJSON(&publishing)
	s = shownAs(document, watchers.StatsType)
	s.Ruled = crowd.until
	return s, ok
}

// publishes says whether others are told how many watch an owner.
func (p *Profile) publishes(tx *broker.ProfileTx, owner string) bool {
	of := p.policyOf(tx, kind.Of(owner))
	if of == nil {
		return false
	}
	publishing := of.Publishing()
	return publishing.Others
}
