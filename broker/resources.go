package broker

import (
	"strings"

	"github.com/bellwire/bellwire/broker/event"
)

// How profiles take part in the Machine.
//
// A publication below a profile's prefix is the profile's to apply. If that
// changes a resource, each node shows it to those of its clients that watch it, as it
// is then for each of them; who is away is shown how things are when he is back.
// Nothing of that is state: see beside.
//
// Below levelBeside each durable session that watches a resource gets a *mark* in its
// queue: an entry that says which resource, and nothing of its state, which is
// rendered when the mark is sent. While a session is away one mark per resource is
// enough: what it has not been sent, it has not been sent. While it is connected only
// its node knows what was sent, so each change adds a mark, and the node skips those
// that a later one makes needless. Of marks that are in a queue when the level rises
// the client is shown what is news to it by then.

// profileOf returns the profile that a topic belongs to, nil for none.
func profileOf(profiles map[string]Profile, topicName string) Profile {
	if len(profiles) == 0 {
		return nil
	}
	prefix, _, below := strings.Cut(topicName, "/")
	if !below {
		return nil
	}
	p := profiles[prefix]
	if _, topicless := p.(Rulebook); topicless {
		return nil
	}
	return p
}

// ownPolicy is the topic below which clients publish what they permit.
const ownPolicy = "$me/policy/"

// profileFor returns the profile that applies a publication to a topic, and
// shows it if it is a Viewer.
func profileFor(profiles map[string]Profile, topicName string) Profile {
	if p := profileOfPolicy(profiles, topicName); p != nil {
		return p
	}
	if p := profileOfControl(profiles, topicName); p != nil {
		return p
	}
	return profileOf(profiles, topicName)
}

// profileOfPolicy returns the profile for which a topic is the owner's policy, or what
// else they set with it, nil for none.
func profileOfPolicy(profiles map[string]Profile, topicName string) Profile {
	name, own := strings.CutPrefix(topicName, ownTree)
	if !own {
		return nil
	}
	kind, ofKind := strings.CutPrefix(name, ownPolicy[len(ownTree):])
	p := profiles[kind]
	if _, personal := p.(Personal); personal == ofKind {
		return nil // $me/policy/ and one that is of no kind, or only the name of a kind
	}
	return p
}

// levelRulebooks is that from which on there are Rulebooks: LevelStreams again, for no
// program that has it is in use yet.
const levelRulebooks = LevelStreams

// premature refuses what is published to a Rulebook while nodes may not know it.
func premature(p Profile, level Level) error {
	if _, is := p.(Rulebook); is && level < levelRulebooks {
		return &Refusal{Cause: ErrBadEvent, Reason: "this is taken once all nodes of the cluster know it"}
	}
	return nil
}

// applyProfile has a profile apply what was published to its topics.
func (m *Machine) applyProfile(p Profile, e *event.Event, r *record) error {
	pub := Publication{Event: e, From: Who{Principal: r.principal, Client: r.client}}
	if r.connected() {
		pub.Connection = Connection{r.session, r.epoch}
	}
	m.ruled = profileOf(m.profiles, e.Topic) == nil
	err := p.Apply(&ProfileTx{m: m, prefix: p.Prefix()}, &pub)
	m.answer = pub.Answer
	if err == nil && profileOfPolicy(m.profiles, e.Topic) != nil {
		m.changed(e.Topic, r.principal)
	}
	m.ruled = false
	m.reply(&pub, err)
	return err
}

// wakeOf calls the profile that asked for a wake.
func (m *Machine) wakeOf(id string) {
	prefix, rest, _ := strings.Cut(id, "\x00")
	if m.bare {
		return
	}
	if w, ok := m.profiles[prefix].(Waker); ok {
		w.Wake(&ProfileTx{m: m, prefix: prefix}, rest)
	}
}

// tellConnected tells the profiles that a connection has begun, in the order
// of their prefixes.
func (m *Machine) tellConnected(r *record) {
	who := Who{Principal: r.principal, Client: r.client}
	m.eachWatcher(func(w SessionWatcher, tx *ProfileTx) { w.Connected(tx, who, Connection{r.session, r.epoch}) })
}

// tellDisconnected tells them that one has ended.
func (m *Machine) tellDisconnected(r *record, lost bool) {
	who := Who{Principal: r.principal, Client: r.client}
	m.eachWatcher(func(w SessionWatcher, tx *ProfileTx) { w.Disconnected(tx, who, Connection{r.session, r.epoch}, lost) })
}

func (m *Machine) eachWatcher(tell func(w SessionWatcher, tx *ProfileTx)) {
	if m.bare {
		return
	}
	for _, prefix := range m.prefixes {
		if w, ok := m.profiles[prefix].(SessionWatcher); ok {
			tell(w, &ProfileTx{m: m, prefix: prefix})
		}
	}
}

// changed has the nodes show a resource to those that watch it and are connected; if
// whose is not empty, to the sessions of that principal only, for the others see
// something else. Below levelBeside it marks the queues of durable watchers.
func (m *Machine) changed(topicName, whose string) {
	topicName = strings.Clone(topicName)
	from := len(m.out.queued)
	if p, _ := ownView(m.profiles, topicName); m.level >= levelBeside {
		// The nodes do it.
	} else if p != nil {
		m.markOwn(topicName, whose)
	} else {
		for _, t := range m.durable.LookupString(topicName).targets {
			if !t.r.over && (whose == "" || t.r.principal == whose) {
				m.mark(t.r, topicName, queued{ids: t.ids})
			}
		}
	}
	m.out.steps = append(m.out.steps, step{
		kind: stepChanged, topic: topicName, ruled: m.ruled, whose: whose, from: from, until: len(m.out.queued),
	})
}

// mark adds a mark for a resource to r's queue, unless one that certainly was
// not sent is in it. It goes out at QoS 1: what is sent again is what is true
// then, and a QoS 2 receiver would take it for what it has.
func (m *Machine) mark(r *record, topicName string, q queued) {
	if seq, ok := r.marks[topicName]; ok && !r.connected() && seq >= r.queue.maybe && seq >= r.queue.below && !r.queue.done.has(seq) {
		return
	}
	m.fold(r)
	r.noteMark(topicName, r.queue.next)
	q.mark, q.qos = topicName, 1
	m.add(r, entry{qos: q.qos, retain: q.retain, size: uint64(len(topicName)) + 32, ids: q.ids, mark: topicName}, q)
}

// replayMark marks a resource because r's subscription is to be shown it.
func (m *Machine) replayMark(r *record, s *storedSub, topicName string) {
	q := queued{retain: true}
	if s.ID != 0 {
		q.ids = []uint32{s.ID}
	}
	from := len(m.out.queued)
	m.mark(r, strings.Clone(topicName), q)
	m.out.steps = append(m.out.steps, step{kind: stepMarked, from: from, until: len(m.out.queued)})
}

func (r *record) noteMark(topicName string, seq uint64) {
	if r.marks == nil {
		r.marks = map[string]uint64{}
	}
	r.marks[topicName] = seq
}

// unmark forgets a mark that is removed from r's queue.
func (r *record) unmark(topicName string, seq uint64) {
	if at, ok := r.marks[topicName]; ok && at == seq {
		delete(r.marks, topicName)
	}
}
