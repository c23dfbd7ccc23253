package life

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/policy"
)

// What administrators do for people.
//
// They provide somebody of their domain with a subscription: an Entry that says By whom.
// It is one like any other, the owner's policy has the same say, but that it lasts without
// a session: whatever sessions its watcher has share it. It ends as others do, and when the
// watcher unsubscribes in any session.
//
// Whoever is not theirs they invite: nothing but an offer, which lasts a week. Who
// subscribes accepts it, and is answered like anybody; who declines is left in peace by
// invitations to that resource for a month.

// Times of invitations.
const (
	OfferedFor  = 7 * 24 * time.Hour
	DeclinedFor = 30 * 24 * time.Hour
)

// ErrDeclined means that who is to be invited has declined.
var ErrDeclined = errors.New("declined")

// An Offer is what an administrator asks for.
type Offer struct {
	Topic, Watcher string
	By             string // the administrator
	Note           string // for the watcher if it is invited, else for the owner
	Until          int64  // of a subscription: 0 for ever
}

// Provide provides a watcher with a subscription. One that there is stays, and is provided
// from now on, unless its owner knows the watcher by no name or another: that stays as it
// is, for to change it would tell. Errors are those of Subscribe.
func (b *Book) Provide(o Offer) (*Entry, error) {
	now := b.Now()
	e := b.Get(o.Topic, o.Watcher)
	switch {
	case e == nil:
		e = &Entry{Topic: o.Topic, Watcher: o.Watcher}
	case e.Live() && e.As != "":
		return e, nil
	}
	if err := b.mayAsk(e); err != nil {
		return nil, err
	}
	if err := b.repeated(e, e.By != "" || e.Status == Terminated); err != nil {
		return nil, err
	}
	v := b.Judge(o.Topic, o.Watcher, "")
	if v.Handling == policy.Block {
		b.reject(e, "")
		return nil, ErrRejected
	}
	if err := b.mayBegin(e, v); err != nil {
		return nil, err
	}
	if !e.Live() {
		e.seenAs("")
		b.begin(e)
	}
	e.By, e.Until = o.By, o.Until
	if v.MostExpires != 0 {
		e.Until = sooner(e.Until, now+int64(v.MostExpires))
	}
	if o.Note != "" {
		e.Note = o.Note
	}
	b.accepted(e)
	b.decide(e, v)
	b.save(e)
	b.Told(e.principal(), e.Topic)
	return e, nil
}

// sooner returns the earlier of two instants of which 0 is never.
func sooner(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// provided says whether an entry, nil for none, is of a subscription that is provided.
func provided(e *Entry) bool { return e != nil && e.By != "" && e.Live() }

// An Invitation is an offer to a watcher.
type Invitation struct {
	By, Note string
	Until    int64
	Declined bool // it is kept so that there is no other before Until
}

// indexed is what the index by watcher has of one resource: whether there is an entry, and
// an invitation.
//
//	version u8 = 1: an entry; or
//	version u8 = 2, flags u8 (1 entry, 2 declined), until 8, by, note: texts
type indexed struct {
	entry      bool
	invitation *Invitation
}

const invitedVersion = 2

func readIndexed(value []byte) (in indexed) {
	switch {
	case value == nil:
		return in
	case value[0] == entryVersion:
		return indexed{entry: true}
	}
	r := fields.Read(value, invitedVersion)
	flags := r.Byte()
	in.entry = flags&1 != 0
	in.invitation = &Invitation{Declined: flags&2 != 0, Until: r.Int64(), By: r.Text(), Note: r.Text()}
	r.End()
	return in
}

func (in *indexed) encode() []byte {
	i := in.invitation
	switch {
	case i == nil && in.entry:
		return []byte{entryVersion}
	case i == nil:
		return nil
	}
	flags := byte(0)
	if in.entry {
		flags |= 1
	}
	if i.Declined {
		flags |= 2
	}
	b := fields.AppendInt64([]byte{invitedVersion, flags}, i.Until)
	return fields.AppendText(fields.AppendText(b, i.By), i.Note)
}

// index changes what the index by watcher has.
func (b *Book) index(topic, watcher string, change func(in *indexed)) {
	key := KeysBy(watcher) + topic
	in := readIndexed(b.Tx.Get(key))
	change(&in)
	b.Set(key, in.encode())
}

// InvitationIn returns the invitation that a value of the index by watcher (KeysBy) has,
// nil for none.
func InvitationIn(value []byte) *Invitation { return readIndexed(value).invitation }

// Invite offers a resource to a watcher. That they watch already, as whoever, or have been
// invited, is answered like everything else. Errors: ErrDeclined, ErrQuota.
func (b *Book) Invite(o Offer) error {
	key := KeysBy(o.Watcher) + o.Topic
	is := readIndexed(b.Tx.Get(key))
	if is.invitation != nil && is.invitation.Declined {
		return ErrDeclined
	}
	of, by := b.countsOf(o.Topic), b.countsBy(o.Watcher)
	switch {
	case is.invitation != nil:
	case of.invited >= b.Limits.PendingOf:
		return fmt.Errorf("%w: as many as are possible are invited", ErrQuota)
	case by.invited+b.invitedTo(domainOf(o.Topic), o.Watcher) >= b.Limits.PendingByWatcher:
		return fmt.Errorf("%w: they have as many invitations as are possible", ErrQuota)
	}
	i := &Invitation{By: o.By, Note: o.Note, Until: b.Now() + int64(OfferedFor)}
	b.offer(o.Topic, o.Watcher, i)
	b.enlist(o.Topic, o.Watcher, i)
	return nil
}

// invitedTo returns how many invitations somebody has to resources of a domain. Its
// administrators give out as many as they leave to all others, at most: to resources that
// nobody has they could give out any number.
func (b *Book) invitedTo(domain, watcher string) (n int) {
	b.Each(KeysBy(watcher), "", func(key string, value []byte) bool {
		if readIndexed(value).invitation != nil && domainOf(key[len(KeysBy(watcher)):]) == domain {
			n++
		}
		return true
	})
	return n
}

// Decline declines an invitation, and says whether there was one.
func (b *Book) Decline(topic, watcher string) bool {
	is := readIndexed(b.Tx.Get(KeysBy(watcher) + topic)).invitation
	if is == nil || is.Declined {
		return false
	}
	b.offer(topic, watcher, &Invitation{By: is.By, Until: b.Now() + int64(DeclinedFor), Declined: true})
	b.enlist(topic, watcher, nil)
	return true
}

// accepted ends an invitation, if there is one: its watcher has what it offers. Where they
// are not seen as who they are it stays listed, for that it is over would tell.
func (b *Book) accepted(e *Entry) {
	b.offer(e.Topic, e.Watcher, nil)
	if e.As == "" {
		b.enlist(e.Topic, e.Watcher, nil)
	}
}

// lapse ends an invitation whose time is over.
func (b *Book) lapse(topic, watcher string) {
	if is := readIndexed(b.Tx.Get(KeysBy(watcher) + topic)).invitation; is != nil && is.Until <= b.Now() {
		b.offer(topic, watcher, nil)
	}
}

// offer sets the invitation to a resource that a watcher has; nil for none.
func (b *Book) offer(topic, watcher string, is *Invitation) {
	was := readIndexed(b.Tx.Get(KeysBy(watcher) + topic)).invitation
	if was == nil && is == nil {
		return
	}
	id := wakeOffer + topic + "\x00" + watcher
	more := 0
	if was != nil {
		more--
		if was.Until > b.Now() {
			b.Cancel(was.Until, id)
		}
	}
	if is != nil {
		more++
		b.WakeAt(is.Until, id)
	}
	b.index(topic, watcher, func(in *indexed) { in.invitation = is })
	if more != 0 {
		b.addCounts(topic, watcher, counts{invited: more})
	}
	b.Told(watcher, topic)
}

// StateFor returns what its watcher is told of an invitation at an instant, nil for nothing.
func (i *Invitation) StateFor(at int64) []byte {
	if i == nil || i.Declined || at >= i.Until {
		return nil
	}
	s := state{State: "invited", Origin: originAdmin, By: i.By, Note: i.Note, Remaining: secondsTo(at, i.Until)}
	return s.json()
}

// Forget ends what a watcher who is no more was provided with, is invited to and was cut out
// of, and what they have cut of their own resource: whoever has the name later has not agreed
// to it. done says that nothing of it is left.
func (b *Book) Forget(resource, watcher string) (done bool) {
	prefix := KeysBy(watcher)
	found := map[string]indexed{}
	var topics []string
	b.Each(prefix, "", func(key string, value []byte) bool {
		topics = append(topics, key[len(prefix):])
		found[key[len(prefix):]] = readIndexed(value)
		return true
	})
	b.Spend(len(topics))
	for _, topic := range topics {
		if found[topic].invitation != nil {
			b.offer(topic, watcher, nil)
			b.enlist(topic, watcher, nil)
		}
		if e := b.Get(topic, watcher); found[topic].entry && provided(e) {
			b.End(topic, watcher, NoResource, 0)
		}
	}
	return b.forgetCuts(resource, watcher)
}

// domainOf returns the domain that a resource is of: the second level of its topic.
func domainOf(topic string) string {
	_, rest, _ := strings.Cut(topic, "/")
	domain, _, _ := strings.Cut(rest, "/")
	return domain
}
