package inbox

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// Remember is how long a message that comes again is known to.
const Remember = 7 * 24 * time.Hour

// A Profile serves one kind.
type Profile struct {
	kind     kind.Inbox
	limits   Limits
	policies *policy.Cache
	lists    policy.Blocklists
	bounds   atomic.Pointer[kind.Bounds]
}

// New returns the profile of k. While the log has no settings of it, these limits
// are in force.
func New(k kind.Inbox, limits Limits) *Profile {
	p := &Profile{kind: k, limits: limits.WithDefaults(), policies: policy.NewCache(k)}
	p.Bound(kind.Bounds{})
	return p
}

// Bound bounds documents that come in at this node from now on. For any goroutine.
func (p *Profile) Bound(to kind.Bounds) { p.bounds.Store(&to) }

var (
	_ broker.Configurable        = (*Profile)(nil)
	_ broker.Gatekeeper          = (*Profile)(nil)
	_ broker.ReceiptWatcher      = (*Profile)(nil)
	_ broker.SubscriptionWatcher = (*Profile)(nil)
	_ broker.Waker               = (*Profile)(nil)
)

// Prefix is the kind's name.
func (p *Profile) Prefix() string { return p.kind.Name() }

// Watch grants every filter with a wildcard: what is not theirs does not reach
// them. Of others it says whether they are spelt right.
func (p *Profile) Watch(_ broker.Who, filter string) error {
	if strings.ContainsAny(filter, "+#") {
		return nil
	}
	_, err := p.topic(filter)
	return refuse.Told(err)
}

// topic reads a topic of an inbox.
func (p *Profile) topic(name string) (kind.Topic, error) {
	t, err := kind.ParseTopic(name)
	if err == nil && (t.Persona != "" || t.Source != "" && t.Source != kind.Reports && t.Source != kind.Typing) {
		err = fmt.Errorf("%w: an inbox has no %.40q: write %s, or …/reports or …/typing", kind.ErrAddress, t.Source, t.Resource.Topic())
	}
	return t, err
}

// MayRead lets the owner read, and delegates who read for them.
func (p *Profile) MayRead(get func(key string) []byte, who broker.Who, topicName string, at int64) broker.Decision {
	t, err := p.topic(topicName)
	if err != nil {
		return broker.Decision{Reason: err.Error()}
	}
	from := kind.Of(who.Principal)
	if from == t.Addr && !from.IsZero() {
		return broker.Decision{Allow: true}
	}
	if document := get(broker.PolicyKey(t.Addr.String())); document != nil && p.lists.Of(get, t.Addr).Of(from) == 0 {
		if of := p.policyOf(t.Addr, document); of != nil {
			if ok, until := of.MayRead(from, kind.Instant(at)); ok {
				return broker.Decision{Allow: true, Until: kind.Nanos(until)}
			}
		}
	}
	return broker.Decision{Reason: fmt.Sprintf("%s of %s is theirs, or a delegate's, to read", t.Kind, t.Addr)}
}

// policyOf returns an owner's policy; document is what they set, nil for the
// default. Nil means that the document is none, which cannot be: it was read
// before it was set.
func (p *Profile) policyOf(owner kind.Addr, document []byte) *policy.Policy {
	if document == nil {
		document = p.kind.DefaultPolicy(owner)
	}
	return p.policies.Read(owner, document)
}

// judge says what an owner's policy, as get has it, makes of what from sends. Who knows the
// owner by a pseudonym only is as one whom the owner has written to: to be reached is
// what a pseudonym is for.
func (p *Profile) judge(get func(key string) []byte, owner reader, from kind.Addr, at time.Time) policy.Decision {
	of := p.policyOf(owner.Addr, get(broker.PolicyKey(owner.Addr.String())))
	if of == nil {
		return policy.Decision{Handling: policy.PoliteBlock}
	}
	return of.Now(from, at, p.input(get, owner, from))
}

// input is what a policy's decision about what from sends depends on.
func (p *Profile) input(get func(key string) []byte, owner reader, from kind.Addr) policy.Input {
	return policy.Input{
		Contact: owner.hidden || get(contactKey(owner.Addr, from)) != nil, Auth: policy.AuthOf(from), Op: policy.OpPublish,
		Blocked: p.lists.Of(get, owner.Addr).Of(from),
	}
}

// may says whether an owner's policy, as get has it, lets from do what.
func (p *Profile) may(get func(key string) []byte, owner reader, from kind.Addr, what string, at time.Time) bool {
	d := p.judge(get, owner, from, at)
	return d.Grant.Has(what)
}

// failure is what the sender of a message is told that an owner does not take: that they are
// refused if the owner has said so (style refuse), else what who writes to nobody is told.
func failure(d *policy.Decision, level broker.Level) string {
	if level >= broker.LevelOwners && d.Handling == policy.Block && d.Style == policy.Refuse && !d.Hidden {
		return reasonForbidden
	}
	return reasonUnavailable
}

// replacePolicy sets the policy that an owner has published, if the one that is to be
// replaced is the one they mean.
func (p *Profile) replacePolicy(tx *broker.ProfileTx, pub *broker.Publication, r *request) error {
	owner := r.from.String()
	if tx.Level() < broker.LevelOwners {
		if policy.IsXML(event.ContentType(pub.Event.Props)) {
			return refuse.Told(fmt.Errorf("%w: policies in XML are taken once all nodes read them", kind.ErrUnsupported))
		}
		tx.SetPolicy(owner, r.document)
		return nil
	}
	if err := refuse.Stale(pub, "the policy", func() string { return policy.Tag(tx.PolicyOf(owner)) }); err != nil {
		return err
	}
	tx.SetPolicy(owner, r.document)
	p.changed(tx, r.from)
	if len(r.document) > 0 {
		pub.Answer = event.AppendUserProperty(pub.Answer, "evt-etag", policy.Tag(r.document))
	}
	return nil
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

// A request is a publication as it was understood.
type request struct {
	from kind.Addr
	to   kind.Topic

	// sender is from, or who is behind it: then from is a pseudonym.
	sender kind.Addr

	policy bool // it is from's policy, and nothing below counts but
	// what that is, in JSON
	document []byte

	message kind.Message
	receipt kind.Receipt
	typing  kind.Document
	counts  time.Duration // how long typing does
}

// read understands a publication and refuses it if it can never be right, or for Admit is not
// within bounds, which are nil for Apply. A policy is read by parse, but for Admit.
func (p *Profile) read(pub *broker.Publication, parse policyParser, within *kind.Bounds) (r request, err error) {
	if r.from = kind.Of(pub.From.Principal); r.from.IsZero() {
		return r, fmt.Errorf("%w: identity-required: this connection is anonymous: connect with a user name that the server checks (without users in its policy it checks none)", kind.ErrForbidden)
	}
	r.sender = r.from
	if strings.HasPrefix(pub.Event.Topic, "$me/") {
		r.policy = true
		if r.document, err = policy.Document(event.ContentType(pub.Event.Props), pub.Event.Payload); len(r.document) > 0 && err == nil {
			if within != nil {
				_, err = policy.CheckWithin(r.document, p.kind, r.from, within)
			} else {
				_, err = parse(r.document, p.kind, r.from)
			}
		}
		return r, err
	}
	if r.to, err = p.topic(pub.Event.Topic); err != nil {
		return r, err
	}
	if err := r.readFrom(pub.Event.Props); err != nil {
		return r, err
	}
	doc := kind.Document{ContentType: event.ContentType(pub.Event.Props), Body: pub.Event.Payload, Within: within}
	doc.ContentType, _, _ = strings.Cut(doc.ContentType, ";")
	doc.ContentType = strings.ToLower(strings.TrimSpace(doc.ContentType))
	switch r.to.Source {
	case kind.Reports:
		r.receipt, err = p.kind.ReadReport(r.to.Resource, r.from, doc)
	case kind.Typing:
		r.typing, r.counts, err = p.kind.Typing(r.to.Resource, r.from, doc)
	default:
		if r.message, err = p.kind.Identify(r.to.Resource, r.from, doc); err == nil {
			err = readProperties(pub.Event.Props, &r.message, within)
		}
	}
	return r, err
}

// readProperties adds to a message what properties say of it, where it says
// nothing itself.
func readProperties(props []byte, m *kind.Message, within *kind.Bounds) error {
	for name, value := range event.UserProperties(props) {
		switch {
		case name == "evt-id" && m.ID == "":
			if value == "" || len(value) > 255 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return fmt.Errorf("%w: evt-id is %.20q: an id has 1 to 255 bytes, and no control characters", kind.ErrInvalid, value)
			}
			m.ID = value
		case name == "evt-wants" && m.Wants == 0:
			for what := range strings.SplitSeq(value, ",") {
				with := m.Wants.With(kind.Disposition(strings.TrimSpace(what)))
				if with == m.Wants {
					return fmt.Errorf("%w: evt-wants is %.40q: write delivered, displayed, failed, processed or stored, with commas", kind.ErrInvalid, value)
				}
				m.Wants = with
			}
			if asked := len(m.Wants.All()); within != nil && asked > within.WithDefaults().Reports {
				r := kind.Refuse(kind.ErrInvalid, kind.ReasonSchema, "", fmt.Sprintf("evt-wants asks for %d reports, at most %d are possible", asked, within.WithDefaults().Reports))
				r.Bound = kind.BoundReports
				return r
			}
		}
	}
	return nil
}

// Admit refuses what can be refused without the log, and passes typing on
// without it.
func (p *Profile) Admit(pub *broker.Publication) error {
	r, err := p.read(pub, nil, p.bounds.Load())
	if err == nil && !r.policy {
		err = r.speaks(pub.Keys(alias.Kind).Get, pub.Event.At)
	}
	if err != nil {
		return refuse.Admitted(pub, err)
	}
	if !r.policy && r.to.Source == kind.Typing {
		pub.Transient = true
		p.showTyping(pub.Get, pub.Keys(alias.Kind).Get, pub.Event, &r, pub.Event.At, pub.Level())
	}
	return nil
}

// showTyping makes an event what the owner is shown of it. What the owner does
// not let them say expires at once, and nobody is told so. names are the keys that
// pseudonyms are in.
func (p *Profile) showTyping(get, names func(key string) []byte, e *event.Event, r *request, now int64, level broker.Level) {
	goes := p.placeOf(get, readerOf(names, r.to.Addr, r.sender, now), r.from, kind.MayType, kind.Instant(now), level)
	e.Topic = kind.Topic{Resource: p.inboxOf(goes.inbox), Source: kind.Typing}.Name()
	e.Payload, e.Props, e.Retain = r.typing.Body, event.AppendContentType(nil, r.typing.ContentType), false
	e.Expires = now + int64(r.counts)
	if goes.nowhere != "" {
		e.Expires = now
	}
}

// Apply does what a publication asks for.
func (p *Profile) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	r, err := p.read(pub, parserAt(tx.Level()), nil)
	names := tx.Of(alias.Kind)
	if err == nil && !r.policy {
		err = r.speaks(names.Get, tx.Now())
	}
	switch {
	case err != nil:
	case r.policy:
		return p.replacePolicy(tx, pub, &r)
	case r.to.Source == kind.Typing: // at QoS 2, or a will
		if p.showTyping(tx.Get, names.Get, pub.Event, &r, tx.Now(), tx.Level()); pub.Event.Expires > tx.Now() {
			pub.Event.QoS = 0
			tx.Route(pub.Event, "")
		}
	case r.to.Source == kind.Reports:
		err = p.receive(tx, &r)
	default:
		err = p.send(tx, pub, &r)
	}
	return refuse.Told(err)
}

// receive passes on what a device says became of a message, if it has it, and
// its sender wanted to know and may, and was not told already. It may have come more
// than once, as what was sent to one and to another of whom the owner has the messages:
// of each is told, for the device has shown them all, unless the report says of which.
func (p *Profile) receive(tx *broker.ProfileTx, r *request) error {
	first := idKey(p.inboxOf(r.sender).Topic(), r.receipt.To, r.receipt.ID, kind.Addr{})
	keys := []string{first}
	tx.Each(first+asMark, "", func(key string, _ []byte) bool {
		keys = append(keys, key)
		return len(keys) < mostCopies
	})
	about := r.receipt.Recipient
	if about.IsZero() && r.from != r.sender {
		about = r.from
	}
	found := false
	for _, key := range keys {
		known := readID(tx.Get(key))
		if known == nil || known.at+int64(Remember) <= tx.Now() {
			continue
		}
		m := kind.Message{ID: r.receipt.ID, From: r.receipt.To, To: r.sender, Sent: known.sent, Wants: known.wants}
		if known.to != "" {
			m.To = kind.Of(known.to)
		}
		if about.IsZero() || about == m.To {
			found = true
			p.tell(tx, m, r.sender, known, key, r.receipt.What)
		}
	}
	switch to := r.receipt.Recipient; {
	case found:
		return nil
	case !to.IsZero() && to != r.from:
		return kind.Refuse(kind.ErrInvalid, kind.ReasonFromMismatch, "/recipient", fmt.Sprintf("%s has sent you nothing with this id for %s: leave it out", r.receipt.To, to))
	default:
		return &broker.Refusal{
			Cause: broker.ErrCondition, Reason: fmt.Sprintf("no-such-message: %s has sent you nothing with the id %.40q", r.receipt.To, r.receipt.ID),
		}
	}
}

// mostCopies is how many messages of one sender and id a receipt is about.
const mostCopies = 16

// tell reports what became of a message that owner has, once, to whom wants to know it
// and may.
func (p *Profile) tell(tx *broker.ProfileTx, m kind.Message, owner kind.Addr, known *knownID, key string, what kind.Disposition) {
	if !m.Wants.Has(what) || known.told.Has(what) || known.told.Has(kind.Failed) || !p.mayBeTold(tx, &m, owner) {
		return
	}
	known.told = known.told.With(what)
	tx.Set(key, known.encode())
	p.report(tx, m, what, "")
}

// mayBeTold says whether the sender of m may learn what becomes of it: of the inbox that
// has it, and of the one that it was sent to, if that is another.
func (p *Profile) mayBeTold(tx *broker.ProfileTx, m *kind.Message, owner kind.Addr) bool {
	at, sentTo := kind.Instant(tx.Now()), reader{Addr: m.To}
	if watchers.IsPseudonym(m.To) {
		sentTo = reader{owner, true} // also when nobody knows whose it was any more
		if who, ok := alias.Behind(tx.Of(alias.Kind).Get, m.To); ok {
			sentTo.Addr = who
		}
	}
	return p.may(tx.Get, sentTo, m.From, kind.MayBeTold, at) &&
		(sentTo.Addr == owner || p.may(tx.Get, reader{Addr: owner}, m.From, kind.MayBeTold, at))
}

// report sends a report to whoever sent m.
func (p *Profile) report(tx *broker.ProfileTx, m kind.Message, what kind.Disposition, reason string) {
	doc, to := p.kind.Report(m, what, reason), m.From
	if who, ok := alias.Behind(tx.Of(alias.Kind).Get, to); ok {
		to = who
	}
	tx.Route(&event.Event{
		Topic:   kind.Topic{Resource: p.inboxOf(to), Source: kind.Reports}.Name(),
		Payload: doc.Body, Props: event.AppendContentType(nil, doc.ContentType), QoS: 1,
		At: tx.Now(), Expires: tx.Now() + int64(Remember),
	}, "")
}
