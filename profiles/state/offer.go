package state

import (
	"encoding/json"
	"errors"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/refuse"
)

// offer provides a watcher with a subscription to the resource of whom an administrator
// asks in the name of, or invites them to it. Who may do that to whom has been made sure of.
func (p *Profile) offer(tx *broker.ProfileTx, pub *broker.Publication, c *control, topicName string) (err error) {
	b, watcher := p.book(tx), c.watcher.String()
	if c.watcher == c.owner {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: "own: nobody subscribes to what is their own by request"}
	}
	note, err := life.CheckNote(c.Note)
	if err != nil {
		return refuse.Told(err)
	}
	o := life.Offer{Topic: topicName, Watcher: watcher, By: c.By, Note: note, Until: c.until}
	a := answer{ID: c.ID, Matched: 1}
	if c.verb == verbInvite {
		switch err := b.Invite(o); {
		case errors.Is(err, life.ErrDeclined):
			return &broker.Refusal{Cause: broker.ErrCondition, Reason: "declined: they do not want to be invited to that"}
		case err != nil:
			return told(err)
		}
		pub.Reply, err = json.Marshal(a)
		return err
	}
	if c.until != 0 && c.until <= tx.Now() {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: "until: that is over"}
	}
	if err := tx.MayProvide(watcher, topicName); err != nil {
		return err
	}
	e, err := b.Provide(o)
	if err != nil {
		return told(err)
	}
	if e.By != "" {
		tx.Provide(watcher, topicName)
	}
	who := broker.Who{Principal: watcher}
	if err := json.Unmarshal(p.SubscriptionState(tx.Get, who, topicName, tx.Now()).Payload, &a); err != nil {
		return err
	}
	pub.Reply, err = json.Marshal(a)
	return err
}
