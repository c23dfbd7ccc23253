package state

import (
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
)

// What owners end of subscriptions by wildcards; see life.Cut.
//
// An owner revokes, denies and approves who watches by wildcards as they do others: by the
// address or the id that their list has. Whom that does not have cannot be found so, for an
// owner is not to learn what somebody watches to whom they show nothing. Where somebody
// watches by name, too, both are ended: the list has but one row.
//
// To the watcher a resource that they were cut out of looks as if its owner were away: the
// document that they are sent, what is sent when it changes, and until when it is believed,
// are those of an owner with the same policy who publishes nothing. What they fetch is not a
// subscription, and is decided by the policy.

// wideOf returns the subscription by wildcards of a watcher, as a resource's owner sees it;
// nil if the owner sees none, or, of what an administrator means (unseen), if there is none.
func (p *Profile) wideOf(tx *broker.ProfileTx, topicName, watcher string, unseen bool) *wideRow {
	for _, pattern := range life.PatternsOf(topicName) {
		w := life.WideOf(tx.Get, pattern, watcher)
		if w == nil {
			continue
		}
		g := p.gather(tx, topicName, tx.Now())
		if g == nil {
			return nil
		}
		who, _ := seen(w.Watcher, "")
		row, is, _ := g.row(&wideOne{w, w.Place(), w.Sum(), who}, life.EntryOf(tx.Get, topicName, watcher))
		if row.wideOne == nil || !is && !unseen {
			return nil
		}
		return &row
	}
	return nil
}

// wideNamed is wideOf by the address that the owner knows the watcher by, or by the id.
func (p *Profile) wideNamed(tx *broker.ProfileTx, topicName string, c *control) *wideRow {
	unseen := c.verb == verbCancel
	if c.SID == "" {
		if row := p.wideOf(tx, topicName, p.behind(tx, c.watcher).String(), unseen); row != nil && row.entry(topicName).SeenAs() == c.watcher {
			return row
		}
		return nil
	}
	for _, all := range p.wides.matching(tx, topicName) {
		for i := range all {
			if all[i].IDFor(topicName) == c.SID {
				return p.wideOf(tx, topicName, all[i].Watcher, unseen)
			}
		}
	}
	return nil
}

// cut ends the part of a resource in what a watcher subscribes to by wildcards, as far as its
// owner sees that; of what is ended already it changes until when the watcher is barred.
func (p *Profile) cut(tx *broker.ProfileTx, b *life.Book, topicName, watcher string, because life.Event, until int64) error {
	c := b.CutOf(topicName, watcher)
	if row := p.wideOf(tx, topicName, watcher, because == life.Admin); row != nil {
		c = &life.Cut{Topic: topicName, Watcher: watcher, ID: row.IDFor(topicName), As: row.as, Asked: row.Asked}
		if row.who.IsZero() {
			c.Client = tx.ClientOf(row.Parts[0].Session)
		}
	} else if c == nil || until == 0 {
		return nil
	}
	c.Event, c.Until = because, until
	if err := b.Cut(*c); err != nil {
		return told(err)
	}
	return nil
}

// isCutAs says whether an owner has cut somebody whom they know by an address.
func (p *Profile) isCutAs(b *life.Book, topicName string, watcher, known kind.Addr) bool {
	c := b.CutOf(topicName, watcher.String())
	if c == nil {
		return false
	}
	as := ended(c, nil)
	return as.entry(topicName).SeenAs() == known
}

// behind returns whom an owner means by an address.
func (p *Profile) behind(tx *broker.ProfileTx, watcher kind.Addr) kind.Addr {
	if who, ok := alias.Behind(tx.Of(alias.Kind).Get, watcher); ok {
		return who
	}
	return watcher
}

// cutFrom returns by whom a resource is watched as if its owner were away, by what Who says of
// them; nil for nobody.
func cutFrom(keys keysOf, topicName string) (all map[broker.Who]string) {
	for watcher, c := range cutsOf(keys, topicName) {
		if all == nil {
			all = map[broker.Who]string{}
		}
		if c.Client != "" {
			all[broker.Who{Client: c.Client}] = watcher
		} else {
			all[broker.Who{Principal: watcher}] = watcher
		}
	}
	return all
}

// isCut says whether who is shown a resource as if its owner were away. Who watches it by its
// name, in whatever session, is shown it.
func (r *resource) isCut(who broker.Who) bool {
	if len(r.cuts) == 0 {
		return false
	}
	if who.Principal != "" {
		who.Client = ""
	}
	watcher, is := r.cuts[who]
	if !is {
		return false
	}
	e := life.EntryOf(r.entries, r.of.Topic(), watcher)
	return e == nil || !e.Live()
}
