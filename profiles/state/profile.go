package state

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
)

// Limits.
const (
	MaxSources = 64        // of a resource; a new one beyond that is refused (0x97)
	MaxRecord  = 256 << 10 // bytes of all publications of a resource together; likewise
	MaxWeight  = 512       // of them, by kind.Kind.Weight: what it takes to compose and show them; likewise
	MaxBound   = 64        // resources in which a client has bound publications; likewise
)

// tagPurpose is what entity tags are derived for.
const tagPurpose = "entity tag of a publication"

// LostAfter is how long a client whose connection was lost may stay away before
// what it bound to the connection counts no more.
const LostAfter = 15 * time.Second

// A Profile serves one kind.
type Profile struct {
	kind     kind.Kind
	policies *policy.Cache
	lists    policy.Blocklists
	wides    wideSets
	limits   Limits // in force while the log has none
	sources  sources
	shownBy  atomic.Pointer[Limits] // those in force, as this node shows resources, and admits
	bounds   atomic.Pointer[kind.Bounds]
	every    atomic.Int64 // see NotifyEvery
}

// New returns the profile of k, whose Semantics must be of ModeState.
func New(k kind.Kind) *Profile { return NewWith(k, Limits{}) }

// NewWith is New. While the log has no settings of it, these limits are in force.
func NewWith(k kind.Kind, limits Limits) *Profile {
	if k.Semantics().Mode != kind.ModeState {
		panic("state: " + k.Name() + " is not a kind of state")
	}
	p := &Profile{kind: k, policies: policy.NewCache(k), limits: limits.WithDefaults()}
	p.Adjust(nil)
	p.Bound(kind.Bounds{})
	return p
}

// Bound bounds documents that come in at this node from now on. For any goroutine.
func (p *Profile) Bound(to kind.Bounds) { p.bounds.Store(&to) }

// NotifyEvery has a watcher notified at this node so often at most from now on, of whom the
// owner's policy says nothing else (maxRate); 0 or less for as often as there is something
// new, as it is by default: RFC 3856, 6.10, has 5 s for that, which is long for who waits
// for somebody. For any goroutine.
func (p *Profile) NotifyEvery(d time.Duration) { p.every.Store(max(0, int64(d))) }

var (
	_ broker.Viewer         = (*Profile)(nil)
	_ broker.Pacer          = (*Profile)(nil)
	_ broker.Waker          = (*Profile)(nil)
	_ broker.SessionWatcher = (*Profile)(nil)
)

// Prefix is the kind's name.
func (p *Profile) Prefix() string { return p.kind.Name() }

// Pace is the kind's.
func (p *Profile) Pace() (burst int, interval time.Duration) {
	s := p.kind.Semantics()
	return s.Burst, s.Interval
}

// Owner returns the principal whose resource a topic is; none if it is a
// source's, or misspelt.
func (p *Profile) Owner(topicName string) string {
	t, err := kind.ParseTopic(topicName)
	if err != nil || t.Kind != p.kind.Name() || t.Source != "" {
		return ""
	}
	return t.Addr.String()
}

// Watch grants every filter that a resource can match: what is shown is
// decided for each resource, and that it shows nothing must not be told.
func (p *Profile) Watch(_ broker.Who, filter string) error {
	if strings.ContainsAny(filter, "+#") {
		return nil
	}
	t, err := kind.ParseTopic(filter)
	if err != nil {
		return refuse.Told(err)
	}
	if t.Source != "" {
		return refuse.Told(fmt.Errorf("%w: %s is published to, and watched as %s", kind.ErrAddress, filter, t.Resource.Topic()))
	}
	return nil
}

// A request is a publication as it was understood.
type request struct {
	topic  kind.Topic // its Source is never empty
	policy bool       // it is the owner's policy that is published, and nothing below counts but
	// what that is, in JSON
	document []byte
	update   kind.Update
	bind     bool
}

// A policyParser is policy.Parse or policy.ParseFirst.
type policyParser func(document []byte, k policy.For, owner kind.Addr) (*policy.Policy, error)

// parserAt returns the parser of what is applied at a level: what one node takes all
// take.
func parserAt(l broker.Level) policyParser {
	if l < broker.LevelOwners {
		return policy.ParseFirst
	}
	return policy.Parse
}

// Admit refuses what can be refused without the log: what a source publishes too often, what
// is misspelt, and what this node knows to be somebody else's.
func (p *Profile) Admit(pub *broker.Publication) error {
	if isControl(pub) {
		return p.admitControl(pub)
	}
	if err := p.admitSource(pub); err != nil {
		return err // cheap before dear: it is not even read
	}
	r, err := p.read(pub, nil, p.bounds.Load())
	if err != nil {
		return refuse.Admitted(pub, err)
	}
	if r.policy {
		return nil
	}
	if res, ok := pub.Resource(r.topic.Resource.Topic()).(*resource); ok {
		_, err = mayPublish(res.policy, res.blocked, r, time.Unix(0, pub.Event.At))
		return refuse.Told(err)
	}
	return nil
}

// Apply changes what the publication's source says, or the owner's policy.
func (p *Profile) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	if isControl(pub) {
		return p.applyControl(tx, pub)
	}
	r, err := p.read(pub, parserAt(tx.Level()), nil)
	if err != nil {
		return refuse.Told(err)
	}
	if r.topic.Persona != "" && tx.Level() < broker.LevelOwners {
		return refuse.Told(fmt.Errorf("%w: sources speak for one persona only once all nodes know how", kind.ErrAddress))
	}
	if r.policy {
		if tx.Level() < broker.LevelOwners && policy.IsXML(event.ContentType(pub.Event.Props)) {
			return refuse.Told(fmt.Errorf("%w: policies in XML are taken once all nodes read them", kind.ErrUnsupported))
		}
		return p.replacePolicy(tx, pub, r.topic.Addr, r.document)
	}
	return refuse.Told(p.publish(tx, pub, r))
}

// read understands a publication and refuses it if it can never be right, or for Admit is not
// within bounds, which are nil for Apply. A policy is read by parse, but for Admit.
func (p *Profile) read(pub *broker.Publication, parse policyParser, within *kind.Bounds) (r request, err error) {
	from := kind.Of(pub.From.Principal)
	if from.IsZero() {
		return r, fmt.Errorf("%w: identity-required: this connection is anonymous, and %s is published by its owner: connect with a user name that the server checks (without users in its policy it checks none)", kind.ErrForbidden, p.kind.Name())
	}
	if own := strings.HasPrefix(pub.Event.Topic, "$me/"); own {
		r.policy, r.topic.Resource = true, kind.Resource{Kind: p.kind.Name(), Addr: from}
		if r.document, err = policy.Document(event.ContentType(pub.Event.Props), pub.Event.Payload); len(r.document) > 0 && err == nil {
			if within != nil {
				_, err = policy.CheckWithin(r.document, p.kind, from, within)
			} else {
				_, err = parse(r.document, p.kind, from)
			}
		}
		return r, err
	}
	if r.topic, err = kind.ParseTopic(pub.Event.Topic); err != nil {
		return r, err
	}
	if r.topic.Source == "" {
		r.topic.Source = kind.DefaultSource(pub.From.Client)
	} else if err = kind.CheckSource(r.topic.Source); err != nil {
		return r, err
	}
	r.update = kind.Update{Source: r.topic.Key(), Publisher: from}
	if err := p.readProperties(pub.Event, &r); err != nil {
		return r, err
	}
	if len(pub.Event.Payload) == 0 {
		r.update.Remove = r.update.IfMatch == "" || r.update.Expires == 0
		return r, nil
	}
	doc := kind.Document{ContentType: event.ContentType(pub.Event.Props), Body: pub.Event.Payload, Within: within}
	doc.ContentType, _, _ = strings.Cut(doc.ContentType, ";")
	doc.ContentType = strings.ToLower(strings.TrimSpace(doc.ContentType))
	r.update.Doc = &doc
	r.update.Value, err = p.kind.Parse(r.topic.Resource, doc)
	if k, ok := p.kind.(retainer); ok && err == nil {
		err = k.Retained(r.update.Value, time.Unix(0, pub.Event.At))
	}
	return r, err
}

// A retainer is a kind whose documents may say until when they may be kept.
type retainer interface {
	// Retained returns an error if what Parse returned may not be kept any more.
	Retained(v any, now time.Time) error
}

// readProperties reads what the publication's properties ask for.
func (p *Profile) readProperties(e *event.Event, r *request) error {
	if e.Expires != 0 {
		r.update.Expires = time.Duration(e.Expires - e.At).Round(time.Second)
	}
	r.bind = !e.Retain
	for name, value := range event.UserProperties(e.Props) {
		switch name {
		case "evt-expires":
			seconds, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return fmt.Errorf("%w: evt-expires is %.20q: write a number of seconds", kind.ErrInvalid, value)
			}
			r.update.Expires = time.Duration(seconds) * time.Second
			if seconds == 0 && len(e.Payload) > 0 {
				return fmt.Errorf("%w: evt-expires is 0: leave out the payload to remove what is published", kind.ErrInvalid)
			}
		case "evt-etag":
			r.update.IfMatch = value
		case "evt-bind":
			switch value {
			case "connection", "none":
				r.bind = value == "connection"
			default:
				return fmt.Errorf("%w: evt-bind is %.20q: write connection or none", kind.ErrInvalid, value)
			}
		}
	}
	return nil
}

// mayPublish returns until when the policy lets the publisher speak for its
// owner, zero for as long as it stands; an error if it does not.
func mayPublish(of *policy.Policy, blocked *policy.Blocklist, r request, at time.Time) (until time.Time, err error) {
	from := r.update.Publisher
	if from == r.topic.Addr {
		return time.Time{}, nil
	}
	if of != nil && blocked.Of(from) == 0 {
		if ok, until := of.MayPublish(from, r.topic.Source, at); ok {
			return until, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %s of %s is theirs, or a delegate's, to publish", kind.ErrForbidden, r.topic.Kind, r.topic.Addr)
}

// publish does what a request asks for.
func (p *Profile) publish(tx *broker.ProfileTx, pub *broker.Publication, r request) error {
	now := time.Unix(0, tx.Now()).UTC()
	topicName := r.topic.Resource.Topic()
	until, err := mayPublish(p.policyOf(tx, r.topic.Addr), p.lists.Of(tx.Get, r.topic.Addr), r, now)
	if err != nil {
		return err
	}
	rec := readRecord(tx.Get(topicName))
	at, old := rec.find(r.topic.Key())
	r.update.At, r.update.ETag = now, tx.Tag(tagPurpose)
	if r.bind && pub.Connection != (broker.Connection{}) {
		r.update.Bound = kind.Connection{Client: pub.From.Client, Epoch: pub.Epoch}
	}
	var before *kind.Publication
	if old != nil {
		before = &old.Publication
	}
	after, err := p.kind.Semantics().Publish(before, r.update)
	if err != nil {
		return err
	}
	if after == nil && old == nil {
		return nil // nothing to remove
	}
	bonds := bondsOf(rec, binderOf(pub.From), old)
	switch {
	case after == nil:
		rec.remove(at)
	default:
		if err := rec.hasRoom(old, after); err != nil {
			return err
		}
		weight, err := p.weigh(tx, rec, old, after, r)
		if err != nil {
			return err
		}
		rec.set(at, old, after, weight, until)
	}
	for _, b := range bonds {
		if is := rec.bound(b.of); is != b.was {
			if err := noteBound(tx, b.of, topicName, is); err != nil {
				return err
			}
		}
	}
	if t, ok := p.kind.(kind.Tracker); ok && after != nil && r.update.Doc != nil && t.HasTrack(after.Value) {
		tx.Passed(topicName, r.topic.Key())
	}
	p.save(tx, topicName, rec)
	if after != nil {
		pub.Answer = event.AppendUserProperty(nil, "evt-etag", after.ETag)
	}
	return nil
}

// A bond says whether somebody had a bound publication in a resource.
type bond struct {
	of  binder
	was bool
}

// bondsOf returns the bonds that a change of one source can change: of who
// changes it, and of whose publication it was. What a delegate has bound its
// owner can replace, and the other way round.
func bondsOf(rec *record, by binder, old *publication) []bond {
	bonds := []bond{{by, rec.bound(by)}}
	if old != nil && !old.Bound.IsZero() && old.binder() != by {
		bonds = append(bonds, bond{old.binder(), rec.bound(old.binder())})
	}
	return bonds
}

// policyOf returns what an owner set, nil if that is nothing, or nothing that
// this version can read.
func (p *Profile) policyOf(tx *broker.ProfileTx, owner kind.Addr) *policy.Policy {
	doc := tx.PolicyOf(owner.String())
	if doc == nil {
		return nil
	}
	return p.policies.Read(owner, doc)
}

// replacePolicy sets the policy that an owner has published, if the one that is to be
// replaced is the one they mean.
func (p *Profile) replacePolicy(tx *broker.ProfileTx, pub *broker.Publication, owner kind.Addr, document []byte) error {
	if err := refuse.Stale(pub, "the policy", func() string { return policy.Tag(tx.PolicyOf(owner.String())) }); err != nil {
		return err
	}
	p.setPolicy(tx, owner, document)
	if len(document) > 0 {
		pub.Answer = event.AppendUserProperty(pub.Answer, "evt-etag", policy.Tag(document))
	}
	return nil
}

// setPolicy sets or removes an owner's policy.
func (p *Profile) setPolicy(tx *broker.ProfileTx, owner kind.Addr, document []byte) {
	told := p.publishes(tx, owner.String())
	tx.SetPolicy(owner.String(), document)
	if told || p.publishes(tx, owner.String()) {
		tx.CountChanged(kind.Resource{Kind: p.kind.Name(), Addr: owner}.Topic())
	}
	p.followOwner(tx, owner)
}

// Block sets or removes whom an owner has blocked.
func (p *Profile) Block(tx *broker.ProfileTx, owner kind.Addr, document []byte) {
	tx.Set(policy.BlocklistKey(owner), document)
	p.followOwner(tx, owner)
}

// followOwner does what an owner has decided. What somebody published who may
// no longer publish it goes at once, and the rest when they may no longer.
func (p *Profile) followOwner(tx *broker.ProfileTx, owner kind.Addr) {
	topicName := kind.Resource{Kind: p.kind.Name(), Addr: owner}.Topic()
	rec, of, now := readRecord(tx.Get(topicName)), p.policyOf(tx, owner), time.Unix(0, tx.Now())
	blocked := p.lists.Of(tx.Get, owner)
	p.drop(tx, topicName, rec, func(pub *publication) bool {
		if pub.Publisher == owner {
			return false
		}
		if of == nil || blocked.Of(pub.Publisher) != 0 {
			return true
		}
		_, source := kind.SplitKey(pub.Source)
		ok, until := of.MayPublish(pub.Publisher, source, now)
		pub.endBy(until)
		return !ok
	})
	p.save(tx, topicName, rec)
	p.book(tx).Follow(topicName)
	if isWide(tx.Get, topicName) { // whom of those the policy lets see something may be others
		p.noted(tx, topicName, false)
	}
}

// save stores a record that has changed, asks to be woken when the first of its
// publications expires, and has it shown anew.
func (p *Profile) save(tx *broker.ProfileTx, topicName string, rec *record) {
	if next := rec.firstExpiry(); next != rec.wake {
		if rec.wake != 0 {
			tx.Cancel(rec.wake, topicName)
		}
		if next != 0 {
			tx.WakeAt(next, topicName)
		}
		rec.wake = next
	}
	if len(rec.pubs) == 0 && tx.PolicyOf(p.Owner(topicName)) == nil {
		tx.Set(topicName, nil)
	} else {
		tx.Set(topicName, rec.encode(versionAt(tx.Level())))
	}
	tx.Changed(topicName)
	p.noteSeen(tx, topicName)
	if of := p.policyOf(tx, kind.Of(p.Owner(topicName))); of != nil && of.Asks() && of.Tells() {
		p.book(tx).Follow(topicName) // a window may have opened or closed by what was published
	}
}

// Wake forgets what has expired, or gives up the sources of a client that did
// not come back.
func (p *Profile) Wake(tx *broker.ProfileTx, id string) {
	if b, ok := readBinder(id); ok {
		p.giveUp(tx, b)
		return
	}
	if life.Wakes(id) {
		p.book(tx).Wake(id)
		return
	}
	rec := readRecord(tx.Get(id))
	now := time.Unix(0, tx.Now())
	rec.wake = 0 // it has come
	p.drop(tx, id, rec, func(pub *publication) bool { return pub.Expired(now) })
	p.save(tx, id, rec)
}
