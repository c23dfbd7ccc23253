package state

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
	"github.com/bellwire/bellwire/profiles/watchers"
)

var _ broker.Notifier = (*Profile)(nil)

// CheckRequest refuses options that nobody could grant.
func (p *Profile) CheckRequest(_ broker.Who, filter string, options []byte) error {
	o, err := life.ReadOptions(options)
	if err == nil && strings.ContainsAny(filter, "+#") {
		err = checkWide(&o)
	}
	return refuse.Told(err)
}

// Subscribed answers a request. Owners ask nobody for what is theirs.
func (p *Profile) Subscribed(tx *broker.ProfileTx, r *broker.Request) error {
	owner := p.Owner(r.Topic)
	options, err := life.ReadOptions(r.Options)
	if err != nil {
		return refuse.Told(err)
	}
	if owner == "" || owner == r.Principal {
		r.Once = options.Bounded && options.Expires == 0
		return nil
	}
	as, err := p.agree(tx, r, kind.Of(owner), options.Offer)
	if err != nil {
		return err
	}
	b := p.book(tx)
	e, once, err := b.Subscribe(life.Request{
		As: as, Topic: r.Topic, Watcher: life.WatcherOf(r.Principal, r.Session), Session: r.Session, Known: r.Known, Options: options,
	})
	if err != nil {
		if errors.Is(err, life.ErrQuota) {
			tx.Over("watch")
		}
		return told(err)
	}
	if r.Once = once; once {
		return nil
	}
	r.Answer = event.AppendUserProperty(nil, "evt-sid", e.ID)
	if end := e.Expires(); end != 0 {
		r.Answer = event.AppendUserProperty(r.Answer, "evt-expires", strconv.FormatInt((end-tx.Now())/int64(time.Second), 10))
	}
	return nil
}

// told says in the broker's words why a subscription is not granted.
func told(err error) error {
	if refusal, ok := errors.AsType[*broker.Refusal](err); ok {
		return refusal // of the broker's own
	}
	var cause error
	switch {
	case errors.Is(err, life.ErrRejected):
		return &broker.Refusal{Reason: broker.RejectedReason}
	case errors.Is(err, life.ErrQuota):
		cause = broker.ErrQuota
	}
	_, reason, _ := strings.Cut(err.Error(), ": ")
	if errors.Is(err, life.ErrBarred) {
		reason = err.Error()
	}
	return &broker.Refusal{Cause: cause, Reason: reason}
}

var _ broker.FetchNoter = (*Profile)(nil)

// Fetched takes note of who has fetched a resource by HTTP, as of who has by a request. Who
// has no identity leaves no trace where the owner demands one, for they were shown nothing.
func (p *Profile) Fetched(tx *broker.ProfileTx, topicName string, by []broker.FetchedBy) {
	owner := p.Owner(topicName)
	if owner == "" {
		return
	}
	of, b := p.policies.Read(kind.Of(owner), p.documentOf(kind.Of(owner), tx.PolicyOf(owner))), p.book(tx)
	for _, f := range by {
		switch {
		case f.Principal == owner:
		case f.Principal != "":
			b.Fetched(topicName, f.Principal, f.Times)
		case of == nil || demanded(of) == watchers.Anonymous:
			b.Fetched(topicName, life.AnybodyByHTTP, f.Times)
		}
	}
}

// Unsubscribed takes note that a session has ended what it asked for.
func (p *Profile) Unsubscribed(tx *broker.ProfileTx, who broker.Who, session uint64, topicName string, gone bool) {
	p.book(tx).Leave(topicName, life.WatcherOf(who.Principal, session), session, gone)
}

// SubscriptionState tells a watcher of its own subscription.
func (p *Profile) SubscriptionState(get func(key string) []byte, who broker.Who, topicName string, at int64) broker.Shown {
	shown := broker.Shown{Visible: true}
	key := life.Key(topicName, who.Principal)
	if value := get(key); value != nil && who.Principal != "" {
		e := life.ReadEntry(key, value)
		if e.Status == life.Active && e.Silent && !e.Seen {
			e.Seen = p.showsSomething(get, who, topicName, at)
		}
		shown.Payload, shown.Mark = e.StateFor(at, p.windowOf(get, e, max(at, e.Announced)))
		if e.Live() {
			key = ""
		}
	}
	if key != "" && who.Principal != "" { // what they are invited to they do not have
		if invited := life.InvitationIn(get(life.KeysBy(who.Principal) + topicName)).StateFor(at); invited != nil {
			shown.Payload, shown.Mark = invited, nil
		}
	}
	if shown.Payload != nil {
		shown.Props = event.AppendContentType(nil, life.StateType)
	}
	return shown
}

// showsSomething says whether there is something of a resource for who to see.
func (p *Profile) showsSomething(get func(key string) []byte, who broker.Who, topicName string, at int64) bool {
	return !p.stored(get, topicName).Show(who, at).Nothing
}

// stored returns a resource as it is by what get returns of the profile's keys.
func (p *Profile) stored(get func(key string) []byte, topicName string) broker.Resource {
	return p.load(topicName, get(topicName), get(broker.PolicyKey(p.Owner(topicName))), get)
}

// noteSeen notes to whom a resource has shown something of whose approval they were not
// told: from then on they know.
func (p *Profile) noteSeen(tx *broker.ProfileTx, topicName string) {
	b := p.book(tx)
	for _, e := range b.Unseen(topicName, mostSeen) {
		if p.showsSomething(tx.Get, broker.Who{Principal: e.Watcher}, topicName, tx.Now()) {
			b.Saw(e)
		}
	}
}

// mostSeen bounds how many that is looked at for with one publication.
const mostSeen = 64

// SubscriptionsKey says where a watcher's subscriptions are.
func (p *Profile) SubscriptionsKey(who broker.Who) string { return life.KeysBy(who.Principal) }

// book returns what changes subscriptions within a command.
func (p *Profile) book(tx *broker.ProfileTx) *life.Book {
	b := &life.Book{Tx: tx, Limits: p.limitsIn(tx).Life, Key: subscriptionsKey(tx)}
	b.Judge = func(topicName, watcher, as string) life.Verdict { return p.judge(tx, topicName, watcher, as) }
	b.Noted = func(topicName string, fetched bool) { p.noted(tx, topicName, fetched) }
	b.Hold = func(e *life.Entry) { _, _ = named(tx).Hold(kind.Of(e.Watcher), kind.Of(p.Owner(e.Topic))) } // agree has asked
	b.Release = func(pseudonym string) { named(tx).Release(kind.Of(pseudonym)) }
	b.MayWatch, b.Watched = tx.MayWatch, tx.Watched
	b.Widened = func(pattern string) { p.widened(tx, pattern) }
	b.Provided = func(e *life.Entry, is bool) { tx.SetProvided(e.Watcher, e.Topic, is) }
	return b
}

// subscriptionsKey is what ids and times of giving up follow from. Below
// broker.LevelRequests there is no secret, and no subscription in the book that would need
// it.
func subscriptionsKey(tx *broker.ProfileTx) (key [32]byte) {
	if tx.Level() < broker.LevelRequests {
		return key
	}
	return tx.Secret().Derive("subscriptions")
}

// judge asks the policy of a resource's owner about a subscription.
func (p *Profile) judge(tx *broker.ProfileTx, topicName, watcher, as string) life.Verdict {
	owner, now := kind.Of(p.Owner(topicName)), time.Unix(0, tx.Now()).UTC()
	document := tx.PolicyOf(owner.String())
	of := p.policies.Read(owner, p.documentOf(owner, document))
	if of == nil {
		return life.Verdict{Handling: policy.PoliteBlock} // this version cannot read it: nobody is shown anything
	}
	who, in := seen(watcher, as)
	in.Blocked = p.lists.Of(tx.Get, owner).Of(who)
	d := p.policies.Evaluate(of, who, now, in)
	v := life.Verdict{Until: kind.Nanos(of.StaticUntil(who, now, in)), Silent: d.Silent, MostExpires: d.MaxExpires}
	v.Handling, v.Ignored = lifeOf(of, &d, document != nil, p.limitsIn(tx).Default)
	if v.Handling == policy.Allow && d.Tells() {
		v.Windowed = p.windowed(tx.Get, topicName, of, who, in, &d.Terms, now)
	}
	return v
}

// documentOf is the policy of an owner who has set document, nil for none.
func (p *Profile) documentOf(owner kind.Addr, document []byte) []byte {
	if document == nil {
		return p.kind.DefaultPolicy(owner)
	}
	return document
}

// lifeOf is what the life of a subscription follows from: of somebody about whom the
// owner has said nothing at all, that of all addresses about which nobody has.
func lifeOf(of *policy.Policy, d *policy.Decision, set bool, standard policy.Handling) (h policy.Handling, ignored bool) {
	if !d.Named && (!set || !of.SaysHandling()) {
		return standard, false
	}
	return d.Life()
}
