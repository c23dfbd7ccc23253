package broker

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// A plain does what a Machine is to do, the plainest way: everything is in maps
// and lists of its own, nothing is cached, indexed or stored, and every question
// is answered by looking at all there is.
type plain struct {
	limits   Limits
	policies map[string]*rules
	policy   *rules
	level    Level

	now      int64
	index    uint64
	ordinal  uint32
	woken    uint32 // events that time has published by the entry
	sessions map[string]*plainSession
	retained map[string]plainEvent
	nodes    map[string]plainNode
	delayed  []*plainDelayed // in the order in which they came

	lastSession, lastEpoch uint64

	groups  map[string]*plainGroup // of shared subscriptions, by filter
	unbound bool                   // queues have no bound here
	isDue   func(plainJob)         // nil, or called when an event is due to a group
	isTaken func(plainEntry)       // likewise, when an entry is settled or passed over
	ending  func(*plainSession)    // likewise, when a session ends
	// Of the entry being applied.
	fresh   map[string]bool // topics retained or cleared by it
	events  []plainEvent    // ordered by it
	answers []plainAnswer

	delayedPublished, delayedRefused uint64
}

type plainNode struct {
	life, seq uint64
	closed    bool  // the life is open no more
	sweepAt   int64 // connections of lives that are over end; 0 for nothing to do
}

type plainEvent struct {
	topic, payload    string
	qos               uint8
	retain            bool
	at, expires       int64
	origin, position  uint64
	client, principal string
}

type plainEntry struct {
	seq      uint64
	event    plainEvent
	qos      uint8
	retain   bool
	deadline int64
	ids      []uint32
	group    uint64 // whose shared subscription it is of; 0 for none
}

type plainSession struct {
	client, principal string
	number, epoch     uint64
	recvMax           uint16
	expiry            uint32
	node              string
	life              uint64
	offlineAt         int64
	will              *event.Will
	willAt            int64
	subs              map[string]storedSub
	inbound           map[uint16]bool

	queue       []plainEntry // those that are not over
	readable    uint64       // see modelRun.readBy, which alone knows of this and the next two
	unsure      bool         // more was, perhaps
	away        bool
	next        uint64
	sent, maybe uint64
	received    []uint64
	dropped     uint64
}

// byNumber returns the sessions in the order in which they began.
func (p *plain) byNumber() []*plainSession {
	return slices.SortedFunc(maps.Values(p.sessions), func(a, b *plainSession) int { return cmp.Compare(a.number, b.number) })
}

// A plainAnswer is what became of one command of a node.
type plainAnswer struct {
	node  string
	life  uint64
	err   error
	value any
}

func newPlain(limits Limits, policies map[string]*rules) *plain {
	return &plain{
		limits: limits, policies: policies, level: FirstLevel, sessions: map[string]*plainSession{},
		retained: map[string]plainEvent{}, nodes: map[string]plainNode{}, groups: map[string]*plainGroup{},
	}
}

func (s *plainSession) below() uint64 {
	if len(s.queue) == 0 {
		return s.next
	}
	return s.queue[0].seq
}

func (s *plainSession) bytes() (n int64) {
	for _, e := range s.queue {
		n += int64(len(e.event.topic) + len(e.event.payload) + 32 + 4*len(e.ids))
	}
	return n
}

func (s *plainSession) connected() bool { return s.node != "" }

// normal forgets what is no longer in the queue.
func (s *plainSession) normal() {
	s.received = slices.DeleteFunc(s.received, func(seq uint64) bool { return !s.has(seq) })
	s.sent = max(s.sent, s.below())
	s.maybe = max(s.maybe, s.sent)
}

func (s *plainSession) has(seq uint64) bool {
	return slices.ContainsFunc(s.queue, func(e plainEntry) bool { return e.seq == seq })
}

// underWay returns the first number that may be dropped.
func (s *plainSession) underWay(l *Limits) uint64 {
	first := max(s.sent, s.below())
	if n := int(l.window(s.recvMax)); s.connected() {
		if n > len(s.queue) {
			return max(first, s.next)
		}
		first = max(first, s.queue[n-1].seq+1)
	}
	return first
}

func (p *plain) apply(index uint64, stamp int64, batches [][]byte) {
	p.index, p.ordinal, p.woken = index, 0, 0
	p.now = max(p.now, stamp)
	p.fresh, p.events, p.answers = map[string]bool{}, nil, nil
	p.delayedPublished, p.delayedRefused = 0, 0
	for _, s := range p.sessions {
		p.trim(s)
	}
	p.wake()
	for _, b := range batches {
		p.batch(b)
	}
}

func (p *plain) over(s *plainSession) bool {
	return len(s.queue) > p.limits.QueueEvents || s.bytes() > p.limits.QueueBytes
}

func (p *plain) trim(s *plainSession) {
	if p.unbound || !p.over(s) {
		return
	}
	first := s.underWay(&p.limits)
	drop := func(gone func(e plainEntry) bool) {
		s.queue = slices.DeleteFunc(s.queue, func(e plainEntry) bool {
			if e.seq < first || !gone(e) {
				return false
			}
			s.dropped++
			return true
		})
	}
	// What has expired goes first, a segment at a time until there is room.
	for segment := uint64(0); segment*entriesPerDue < s.next && p.over(s); segment++ {
		drop(func(e plainEntry) bool {
			due := earlier(e.event.expires, e.deadline)
			return due != 0 && due <= p.now && e.seq/entriesPerDue == segment
		})
	}
	for p.over(s) {
		i := slices.IndexFunc(s.queue, func(e plainEntry) bool { return e.seq >= first })
		if i < 0 {
			break
		}
		s.queue = slices.Delete(s.queue, i, i+1)
		s.dropped++
	}
	s.normal()
}

// A plainWake is something that the log's time will bring about.
type plainWake struct {
	at   int64
	kind byte
	id   string
	do   func()
}

// wakes returns what is to come, in the order in which it is due.
func (p *plain) wakes() (list []plainWake) {
	id := func(s *plainSession) string {
		return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.number), s.epoch))
	}
	for _, s := range p.sessions {
		if s.connected() {
			continue
		}
		if s.expiry != event.Never {
			list = append(list, plainWake{s.offlineAt + seconds(s.expiry), wakeExpiry, id(s), func() { p.endSession(s) }})
		}
		if s.willAt != 0 {
			list = append(list, plainWake{s.willAt, wakeWill, id(s), func() {
				if p.sessions[s.client] == s && s.will != nil {
					p.publishWill(s)
				}
			}})
		}
	}
	for name, n := range p.nodes {
		if n.sweepAt != 0 {
			list = append(list, plainWake{n.sweepAt, wakeSweep, name, func() { p.sweep(name) }})
		}
	}
	for name, e := range p.retained {
		if e.expires != 0 {
			list = append(list, plainWake{e.expires, wakeRetained, name, func() {
				if !p.fresh[name] {
					delete(p.retained, name)
					p.fresh[name] = true
				}
			}})
		}
	}
	list = append(list, p.delayedWakes()...)
	slices.SortFunc(list, func(a, b plainWake) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id))
	})
	return list
}

// wake does what is due.
func (p *plain) wake() {
	for _, w := range p.wakes() {
		if w.at <= p.now {
			w.do()
		}
	}
}

func (p *plain) sweep(name string) {
	n := p.nodes[name]
	n.sweepAt = 0
	p.nodes[name] = n
	var lost []*plainSession
	for _, s := range p.sessions {
		if s.node == name && (n.closed || s.life != n.life) {
			lost = append(lost, s)
		}
	}
	slices.SortFunc(lost, func(a, b *plainSession) int {
		return cmp.Or(cmp.Compare(a.life, b.life), cmp.Compare(a.number, b.number))
	})
	for _, s := range lost {
		p.presume(s)
		p.endConnection(s, true, false)
	}
}

func (p *plain) presume(s *plainSession) {
	s.sent, s.maybe = s.underWay(&p.limits), s.next
}

func (p *plain) batch(b []byte) {
	batch, err := event.ReadBatch(b)
	if err != nil {
		panic(err)
	}
	n, known := p.nodes[batch.Node]
	older := known && n.life>>lifeBits > batch.Incarnation>>lifeBits
	if batch.Seq == 1 && !older && (!known || n.life != batch.Incarnation) {
		n = plainNode{life: batch.Incarnation, sweepAt: n.sweepAt}
	} else if n.closed || n.life != batch.Incarnation || batch.Seq != n.seq+1 {
		return
	}
	n.seq = batch.Seq
	p.nodes[batch.Node] = n
	for {
		kind, body, ok := batch.Next()
		if !ok {
			return
		}
		p.ordinal++
		var value any
		var err error
		if c := newCommand(kind); event.Decode(c, body) != nil {
			panic("undecodable command")
		} else {
			value, err = p.command(batch.Header, c)
		}
		p.answers = append(p.answers, plainAnswer{batch.Node, batch.Incarnation, err, value})
	}
}

func newCommand(kind event.Kind) event.Command {
	for _, c := range []event.Command{
		&event.Connect{}, &event.Disconnect{}, &event.Subscribe{}, &event.Unsubscribe{}, &event.Publish{}, &event.Release{},
		&event.Settle{}, &event.PassOver{}, &event.Return{}, &event.Replay{}, &event.Policy{}, &event.NodeUp{}, &event.Tick{}, &event.Settings{}, &event.NodeDown{}, &event.Raise{}, &event.Copy{},
		&event.Undelay{},
	} {
		if c.Kind() == kind {
			return c
		}
	}
	panic("no such command")
}

func (p *plain) current(number, epoch uint64) (*plainSession, error) {
	for _, s := range p.sessions {
		if s.number == number {
			if s.epoch != epoch || !s.connected() {
				return nil, ErrStale
			}
			return s, nil
		}
	}
	for _, g := range p.groups {
		if g.number == number {
			return nil, ErrStale // its queue is nobody's session
		}
	}
	return nil, ErrSessionEnded
}

func (p *plain) command(from event.Header, c event.Command) (any, error) {
	switch c := c.(type) {
	case *event.Copy: // which nobody is to notice
		return nil, nil
	case *event.Connect:
		return p.connect(from, c)
	case *event.Publish:
		return nil, p.publish(c)
	case *event.Policy:
		if p.policies[string(c.Data)] == nil {
			return nil, ErrRefused
		}
		p.policy = p.policies[string(c.Data)]
		return nil, nil
	case *event.NodeDown:
		n, known := p.nodes[c.Node]
		switch {
		case c.Node == from.Node:
			return nil, ErrRefused
		case known && !n.closed && n.life == c.Incarnation:
			n.closed, n.sweepAt = true, p.now
			p.nodes[c.Node] = n
		}
		return nil, nil
	case *event.Settings:
		if checkSettings(c) != nil {
			return nil, ErrRefused
		}
		p.limits = p.limits.Agreed(c)
		return nil, nil
	case *event.NodeUp:
		n := p.nodes[from.Node]
		n.sweepAt = p.now
		p.nodes[from.Node] = n
		return nil, nil
	case *event.Raise: // from the outside nothing tells one level from another
		p.level = max(p.level, Level(c.Level))
		return nil, nil
	case *event.Tick:
		return nil, nil
	case *event.Undelay:
		return nil, p.undelay(c)
	case *event.Disconnect:
		s, err := p.current(c.Session, c.Epoch)
		if err != nil {
			return nil, err
		}
		if c.SetExpiry && s.expiry > 0 {
			s.expiry = c.Expiry
		}
		if c.Exact {
			s.sent = min(c.Sent, s.next)
			s.maybe = min(c.Maybe, s.next)
		} else if c.Sent > s.sent {
			s.sent = min(c.Sent, s.next)
		}
		s.normal()
		p.endConnection(s, c.PublishWill, false)
		return nil, nil
	case *event.Subscribe:
		return p.subscribe(c)
	case *event.Unsubscribe:
		s, err := p.current(c.Session, c.Epoch)
		if err != nil {
			return nil, err
		}
		existed := make([]bool, len(c.Filters))
		for i, f := range c.Filters {
			_, existed[i] = s.subs[f]
			p.unsubscribe(s, f)
		}
		return existed, nil
	case *event.Release:
		s, err := p.current(c.Session, c.Epoch)
		if err == nil && !s.inbound[c.PacketID] {
			err = ErrNoPacketID
		}
		if err == nil {
			delete(s.inbound, c.PacketID)
		}
		return nil, err
	case *event.Settle:
		return nil, p.settle(c)
	case *event.PassOver:
		return nil, p.settle(&event.Settle{Session: c.Session, Epoch: c.Epoch, Done: c.Entries})
	case *event.Return:
		return nil, p.giveBack(c)
	case *event.Replay:
		return nil, p.replay(c)
	}
	panic("no such command")
}

func (p *plain) connect(from event.Header, c *event.Connect) (any, error) {
	s := p.sessions[c.Client]
	switch {
	case s != nil && s.principal != c.Principal:
		return nil, ErrRefused
	case s == nil && len(p.sessions) >= p.limits.Sessions:
		return nil, ErrQuota
	}
	if s != nil && s.connected() {
		p.presume(s)
		p.endConnection(s, true, c.Clean)
		s = p.sessions[c.Client]
	}
	if s != nil && c.Clean {
		p.endSession(s)
		s = nil
	}
	o := &opened{present: s != nil}
	if s == nil {
		p.lastSession++
		s = &plainSession{client: c.Client, principal: c.Principal, number: p.lastSession, subs: map[string]storedSub{}, inbound: map[uint16]bool{}}
		p.sessions[c.Client] = s
	}
	p.lastEpoch++
	s.epoch, s.recvMax, s.expiry, s.node, s.life, s.offlineAt = p.lastEpoch, max(c.ReceiveMax, 1), c.Expiry, from.Node, from.Incarnation, 0
	s.will, s.willAt = c.Will, 0
	o.session, o.epoch, o.durable = s.number, s.epoch, s.expiry > 0 || o.present
	o.below, o.sent, o.maybe, o.next, o.dropped = s.below(), s.sent, s.maybe, s.next, s.dropped
	o.inFlight, o.untold = p.limits.inFlight(s.recvMax), p.limits.untold()
	o.received = slices.Clone(s.received)
	o.inbound = map[uint16]struct{}{}
	for id := range s.inbound {
		o.inbound[id] = struct{}{}
	}
	for seq := s.below(); seq < s.next; seq++ {
		if !s.has(seq) {
			o.done = o.done.add(seq, seq+1)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(s.subs)) {
		o.subs = append(o.subs, s.subs[f])
	}
	s.dropped = 0
	return o, nil
}

func (p *plain) endConnection(s *plainSession, publishWill, cleared bool) {
	s.node, s.life, s.offlineAt = "", 0, p.now
	switch {
	case s.will == nil:
	case !publishWill:
		s.will = nil
	case cleared || s.expiry == 0 || s.will.Delay == 0:
		p.publishWill(s)
	default:
		s.willAt = p.now + seconds(min(s.will.Delay, s.expiry))
	}
	if s.expiry == 0 {
		p.endSession(s)
	}
}

func (p *plain) publishWill(s *plainSession) {
	w := s.will
	s.will, s.willAt = nil, 0
	if p.policy == nil || !p.policy.Decide(Who{s.principal, s.client}, ActPublish, w.Topic, p.now).Allow {
		return
	}
	e := plainEvent{
		topic: w.Topic, payload: string(w.Payload), qos: w.QoS, retain: w.Retain, at: p.now,
		origin: s.number, client: s.client, principal: s.principal,
	}
	if w.Expires {
		e.expires = event.ExpiresAt(p.now, w.Expiry)
	}
	p.publishDue(e)
}

func (p *plain) endSession(s *plainSession) {
	if p.sessions[s.client] != s {
		return
	}
	if s.willAt != 0 {
		p.publishWill(s)
	}
	if p.ending != nil {
		p.ending(s)
	}
	for f := range s.subs {
		p.unsubscribe(s, f)
	}
	delete(p.sessions, s.client)
}

func (p *plain) here() uint64 { return event.PositionAt(p.index, p.woken+p.ordinal) }

// publishDue publishes what nobody publishes now: wills, and what was delayed.
func (p *plain) publishDue(e plainEvent) {
	if p.ordinal == 0 && p.level >= LevelStreams {
		p.woken++
	}
	if p.retain(e) != nil {
		e.retain = false
	}
	p.route(e)
}

func (p *plain) subscribe(c *event.Subscribe) (any, error) {
	s, err := p.current(c.Session, c.Epoch)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(s.subs)
	for _, x := range c.Subs {
		all[x.Filter] = storedSub{}
	}
	if len(all) > p.limits.SubscriptionsPerSession {
		return nil, ErrQuota
	}
	answer := &subscribed{since: p.here()}
	for _, x := range c.Subs {
		if _, shared := sharedRest(x.Filter); shared {
			p.join(s, x, answer)
			continue
		}
		old, had := s.subs[x.Filter]
		x := storedSub{Subscription: x, since: p.here(), first: s.next}
		if had {
			x.first = old.first
		}
		wanted := x.RetainHandling == 0 || x.RetainHandling == 1 && !had
		if had && !wanted {
			x.since, x.replaying, x.position = old.since, old.replaying, old.position
		}
		// There may be something to replay: known for names, guessed for wildcards.
		_, there := p.retained[x.Filter]
		there = there || topic.HasWildcard(x.Filter) && len(p.retained) > 0
		answer.replay = append(answer.replay, wanted && there)
		x.replaying = x.replaying || wanted && there
		s.subs[x.Filter] = x
	}
	return answer, nil
}

func (p *plain) publish(c *event.Publish) error {
	e := plainEvent{
		topic: c.Event.Topic, payload: string(c.Event.Payload), qos: c.Event.QoS, retain: c.Event.Retain,
		at: min(c.Event.At, p.now), expires: c.Event.Expires, origin: c.Event.Origin,
	}
	if e.origin == 0 {
		if err := p.retain(e); err != nil {
			return err
		}
		p.route(e)
		return nil
	}
	s, err := p.current(e.origin, c.Epoch)
	if err != nil {
		return err
	}
	if c.PacketID != 0 && s.inbound[c.PacketID] {
		return nil
	}
	e.client, e.principal = s.client, s.principal
	if IsDelayed(e.topic) && p.level >= LevelDelayed {
		if ahead := c.Event.At - e.at; e.expires != 0 { // which is about how long it lives
			e.expires -= ahead
		}
		err = p.delay(e, s)
	} else if err = p.retain(e); err == nil {
		p.route(e)
	}
	if err == nil && c.PacketID != 0 {
		s.inbound[c.PacketID] = true
	}
	return err
}

func (p *plain) retain(e plainEvent) error {
	if !e.retain {
		return nil
	}
	_, had := p.retained[e.topic]
	kept := e.payload != "" && (e.expires == 0 || e.expires-e.at > 75e7)
	if kept && !had && len(p.retained) >= p.limits.RetainedTopics {
		return ErrQuota
	}
	p.fresh[e.topic] = true
	if !kept {
		delete(p.retained, e.topic)
		return nil
	}
	e.position = p.here()
	if e.origin != 0 && p.level >= LevelLocal {
		e.origin = markOf(e.client)
	}
	p.retained[e.topic] = e
	return nil
}

func (p *plain) route(e plainEvent) {
	e.position = p.here()
	p.events = append(p.events, e)
	p.share(e)
	if e.qos == 0 {
		return
	}
	for _, s := range p.sessions {
		var qos uint8
		q := plainEntry{event: e}
		for _, f := range slices.Sorted(maps.Keys(s.subs)) {
			x := s.subs[f]
			if !topic.Match(f, e.topic) || x.NoLocal && e.origin == s.number {
				continue
			}
			qos = max(qos, x.QoS)
			q.retain = q.retain || x.RetainAsPublished && e.retain
			if x.ID != 0 {
				q.ids = append(q.ids, x.ID)
			}
		}
		if q.qos = min(qos, e.qos); q.qos > 0 {
			p.enqueue(s, q, e.at)
		}
	}
}

// enqueue queues q if the session may see it as of the instant at.
func (p *plain) enqueue(s *plainSession, q plainEntry, at int64) {
	if p.policy == nil {
		return
	}
	d := p.policy.Decide(Who{s.principal, s.client}, ActSubscribe, q.event.topic, at)
	if !d.Allow {
		return
	}
	q.seq, q.deadline = s.next, d.Until
	s.next++
	s.queue = append(s.queue, q)
}

func (p *plain) settle(c *event.Settle) error {
	s, err := p.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	s.sent = min(max(s.sent, c.Sent), s.next)
	s.queue = slices.DeleteFunc(s.queue, func(e plainEntry) bool {
		over := e.seq < c.Below || slices.Contains(c.Done, e.seq)
		if over && p.isTaken != nil {
			p.isTaken(e)
		}
		return over
	})
	for _, seq := range c.Received {
		if s.has(seq) && !slices.Contains(s.received, seq) {
			s.received = append(s.received, seq)
			slices.Sort(s.received)
		}
	}
	s.normal()
	return nil
}

func (p *plain) replay(c *event.Replay) error {
	s, err := p.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	x, ok := s.subs[c.Filter]
	if !ok || x.group != 0 {
		return nil
	}
	for _, name := range c.Topics {
		e, ok := p.retained[name]
		if !ok || p.fresh[name] || e.position > c.After || e.expires != 0 && e.expires <= p.now || x.NoLocal && (e.origin == s.number || e.origin == markOf(s.client)) {
			continue
		}
		q := plainEntry{event: e, qos: min(x.QoS, e.qos), retain: true}
		if x.ID != 0 {
			q.ids = []uint32{x.ID}
		}
		if q.qos > 0 {
			p.enqueue(s, q, min(c.At, p.now))
		}
	}
	if c.Position != "" || c.Final {
		x.replaying, x.position = !c.Final, c.Position
		s.subs[c.Filter] = x
	}
	return nil
}

// classOf is what an error says to a client.
func classOf(err error) error {
	for _, class := range []error{ErrRefused, ErrStale, ErrSessionEnded, ErrNoPacketID, ErrQuota, ErrFailed} {
		if errors.Is(err, class) {
			return class
		}
	}
	return err
}

// plainOf is an event of a Machine as a plain has it.
func plainOf(e *event.Event) plainEvent {
	return plainEvent{
		topic: strings.Clone(e.Topic), payload: string(bytes.Clone(e.Payload)), qos: e.QoS, retain: e.Retain, at: e.At, expires: e.Expires,
		origin: e.Origin, position: e.Position, client: strings.Clone(e.Client), principal: strings.Clone(e.Principal),
	}
}
