package broker

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What clients ask profiles to do: publications to $ctl/, the profile's prefix and a
// verb. They are ordered, applied, and answered: by User Properties of the PUBACK
// (Publication.Answer), and by an event on $me/rsp if the request names that as its
// Response Topic (5.0 4.10), which is for the asking session alone, and for nobody if it
// does not subscribe to it. Who has no session asks with Broker.Control.

// A Controller is a profile that can be asked to do something. Admit and Apply are
// called with such a request as with what is published to the profile's topics.
type Controller interface {
	Profile

	// Controls says whether there is a verb. It depends on nothing else.
	Controls(verb string) bool
}

// ownControl and ownResponse begin the topics of requests and of answers.
const (
	ownControl  = "$ctl/"
	ownResponse = "$me/rsp"
)

// ControlTopic is the topic of a request to a profile.
func ControlTopic(prefix, verb string) string { return ownControl + prefix + "/" + verb }

// ControlVerb returns the verb of such a topic.
func ControlVerb(topicName string) (verb string, ok bool) {
	rest, ok := strings.CutPrefix(topicName, ownControl)
	_, verb, below := strings.Cut(rest, "/")
	return verb, ok && below
}

// profileOfControl returns the profile that a request is to, nil for none.
func profileOfControl(profiles map[string]Profile, topicName string) Profile {
	rest, own := strings.CutPrefix(topicName, ownControl)
	if !own {
		return nil
	}
	prefix, verb, _ := strings.Cut(rest, "/")
	if c, ok := profiles[prefix].(Controller); ok && c.Controls(verb) {
		return c
	}
	return nil
}

// controlTopic is the topic of a request as it is ordered.
func (b *Broker) controlTopic(e *event.Event) (string, error) {
	if b.Level() < LevelRequests {
		return "", &Refusal{Cause: ErrBadEvent, Reason: "requests are taken once all nodes of the cluster know them"}
	}
	return fullControl(b.machine.profiles, e)
}

// profileFor returns the profile that applies what is published to a topic, nil for none.
// Below LevelRequests nothing is asked of profiles.
func (m *Machine) profileFor(topicName string) Profile {
	if m.level < LevelRequests && strings.HasPrefix(topicName, ownControl) {
		return nil
	}
	return profileFor(m.profiles, topicName)
}

// fullControl completes the topic of a request that names its kind in its payload:
// $ctl/approve and {"kind": "presence", …} is $ctl/presence/approve.
func fullControl(profiles map[string]Profile, e *event.Event) (topicName string, err error) {
	verb, own := strings.CutPrefix(e.Topic, ownControl)
	if !own || strings.Contains(verb, "/") {
		return e.Topic, nil
	}
	var of struct{ Kind string }
	if json.Unmarshal(e.Payload, &of) != nil || of.Kind == "" {
		return "", &Refusal{Cause: ErrPayload, Reason: `schema: a request is a JSON object with a kind: {"kind": "presence", …}`}
	}
	topicName = ControlTopic(of.Kind, verb)
	if profileOfControl(profiles, topicName) == nil {
		return "", &Refusal{Cause: ErrBadEvent, Reason: "no kind here can be asked that"}
	}
	return topicName, nil
}

// reply has a request answered, if it is one and wants it.
func (m *Machine) reply(pub *Publication, err error) {
	if pub.Connection == (Connection{}) || profileOfControl(m.profiles, pub.Event.Topic) == nil {
		return
	}
	if e := answerTo(pub.Event, pub.Reply, err); e != nil {
		m.out.steps = append(m.out.steps, step{kind: stepReply, session: pub.Session, epoch: pub.Epoch, event: e})
	}
}

// answerTo makes the event that answers a request, nil if it wants none.
func answerTo(request *event.Event, reply []byte, err error) *event.Event {
	to, correlation := event.Response(request.Props)
	if to != ownResponse && !strings.HasPrefix(to, ownResponse+"/") {
		return nil
	}
	if err != nil {
		why, _ := json.Marshal(err.Error())
		reply = append(append([]byte(`{"error":`), why...), '}')
	}
	props := event.AppendContentType(nil, "application/json")
	if correlation != nil {
		props = event.AppendCorrelation(props, correlation)
	}
	return &event.Event{Topic: strings.Clone(to), Payload: reply, Props: props, At: request.At}
}

// answer hands a client an answer, if it subscribes to it. In the delivery loop.
func (s *Session) answer(e *event.Event, w *Wave) {
	for filter, sub := range s.subs {
		if topic.Match(filter, e.Topic) {
			d := Delivery{Event: e}
			if sub.sub.ID != 0 {
				d.IDs = []uint32{sub.sub.ID}
			}
			s.hear(&d, 0, w)
			return
		}
	}
}

// A controlled is what the Machine answers to a Control.
type controlled struct{ reply []byte }

// policyVerb is the verb of a Control by which who has no session sets a policy of their
// own: no client's, for topics have no NUL. Its data are the length of properties as a
// uvarint, those, and the document.
const policyVerb = "\x00policy"

// controlEvent is a Control as what would be published, and whose it is to apply; nil for
// nobody's.
func (m *Machine) controlEvent(c *event.Control) (*event.Event, Profile) {
	e := &event.Event{Topic: ControlTopic(c.Profile, c.Verb), Payload: c.Data, At: min(c.At, m.now), Principal: c.Principal}
	if c.Verb != policyVerb {
		return e, profileOfControl(m.profiles, e.Topic)
	}
	n, size := binary.Uvarint(c.Data)
	if size <= 0 || n > uint64(len(c.Data)-size) {
		return e, nil
	}
	e.Topic, e.Props, e.Payload = ownPolicy+c.Profile, c.Data[size:][:n], c.Data[size:][n:]
	return e, profileOfPolicy(m.profiles, e.Topic)
}

// SetOwnPolicy has a principal's own policy of a profile replaced by a document of that
// content type, empty for the profile's own; an empty document removes it. A tag that is
// not empty has it refused (ErrCondition) if the present policy has another by then. It
// returns when the policy is in force here. Errors: as Control. For any goroutine.
func (b *Broker) SetOwnPolicy(ctx context.Context, principal, profile, contentType string, document []byte, tag string) error {
	e := &event.Event{Topic: ownPolicy + profile, Payload: document, At: b.now()}
	if contentType != "" {
		e.Props = event.AppendContentType(e.Props, contentType)
	}
	if tag != "" {
		e.Props = event.AppendUserProperty(e.Props, "evt-etag", tag)
	}
	p := profileOfPolicy(b.machine.profiles, e.Topic)
	if p == nil || b.Level() < LevelRequests {
		return ErrBadEvent
	}
	who := Who{Principal: principal}
	if err := b.mayPublish(who, e.Topic, e.At); err != nil {
		return err
	}
	if err := p.Admit(&Publication{Event: e, From: who, node: b, prefix: profile}); err != nil {
		return err
	}
	data := append(append(binary.AppendUvarint(nil, uint64(len(e.Props))), e.Props...), document...)
	_, err := b.ask(ctx, &event.Control{Principal: principal, Profile: profile, Verb: policyVerb, Data: data, At: e.At})
	return err
}

// applyControl applies a request of somebody who has no session.
func (m *Machine) applyControl(c *event.Control) (*controlled, error) {
	if c.Verb == fetchedVerb {
		return m.applyFetched(c)
	}
	e, p := m.controlEvent(c)
	if p == nil {
		return nil, ErrBadEvent
	}
	if m.policy == nil {
		return nil, &Refusal{Reason: noPolicy}
	}
	who := Who{Principal: c.Principal}
	if d := m.policy.Ceiling(who, ActPublish, e.Topic, e.At); !d.Allow {
		return nil, m.refuseInLog(who, ActPublish, e.Topic, e.At, d.Reason)
	}
	pub := Publication{Event: e, From: who}
	m.ruled = true
	err := p.Apply(&ProfileTx{m: m, prefix: p.Prefix()}, &pub)
	if err == nil && c.Verb == policyVerb {
		m.changed(e.Topic, c.Principal)
	}
	m.ruled = false
	return &controlled{pub.Reply}, err
}

// Control has a profile do what a principal asks for, as a publication to $ctl/ does,
// and returns its answer when it is in force here. Errors: ErrBadEvent for no such
// profile or verb, a *Refusal, ErrNoCommit, ErrUnknown, ErrClosing. For any goroutine.
func (b *Broker) Control(ctx context.Context, principal, profile, verb string, data []byte) (reply []byte, err error) {
	e := &event.Event{Topic: ControlTopic(profile, verb), Payload: data, At: b.now()}
	p := profileOfControl(b.machine.profiles, e.Topic)
	if p == nil || b.Level() < LevelRequests {
		return nil, ErrBadEvent
	}
	if err := b.mayPublish(Who{Principal: principal}, e.Topic, e.At); err != nil {
		return nil, err
	}
	if err := p.Admit(&Publication{Event: e, From: Who{Principal: principal}, node: b, prefix: profile}); err != nil {
		return nil, err
	}
	value, err := b.ask(ctx, &event.Control{Principal: principal, Profile: profile, Verb: verb, Data: data, At: e.At})
	if err != nil {
		return nil, err
	}
	c, ok := value.(*controlled)
	if !ok {
		return nil, errors.New("broker: a request was answered with something else")
	}
	return c.reply, nil
}

// ChangedFor is Changed, but that only what one principal is shown is not what it was.
func (t *ProfileTx) ChangedFor(topicName, principal string) { t.m.changed(topicName, principal) }
