package broker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
)

// A Session is the live half of a client's session, on the node that holds its
// connection, for as long as that lasts.
//
// Its methods are for the protocol that drives it. Those that say so may block;
// Publish, Release, Subscribe and Unsubscribe are for the connection's one
// reading goroutine, the others for any.
type Session struct {
	b       *Broker
	p       *proposer // of the node's life that holds the connection: what is left of one that is over says nothing
	number  uint64    // the session's, in the log
	epoch   uint64    // of this connection
	who     Who
	way     string // by which it has proved to be that
	patient bool   // see ConnectRequest
	durable bool   // it outlives its connection, or has an earlier one: QoS 1 and 2 come from its queue
	sink    Sink

	closed  atomic.Bool  // nothing is delivered any more
	begun   atomic.Bool  // Start was called: what the client is sent comes after its CONNACK
	pending atomic.Int64 // publishes whose batch has not been delivered yet

	out      outbox
	scanning scanState
	settling settleState

	// The reading goroutine's: what the policy last said about publishing to
	// a topic.
	verdicts     map[string]publishVerdict
	verdictBytes int    // of their topics
	version      uint64 // of the policy that verdicts are of

	// The packet ids of QoS 2 publishes not yet released, of a session that
	// ends with its connection. For others the Machine keeps them: here are those
	// that earlier connections brought.
	inboundMu sync.Mutex
	inbound   map[uint16]struct{}

	told map[string]struct{} // filters that the log only counts: the reading goroutine's
	pace *domainPace         // likewise: as of version; nil: nothing bounds the domain's publications

	subs   map[string]*localSub // the delivery loop's
	shares bool                 // likewise: there is, or was, a shared one among them

	returning *returning    // the delivery loop's; nil if all of the session's subscriptions are among subs
	left      chan struct{} // closed when none is in the loop's index any more

	filters filterUse   // of subs: the loop changes it
	renamed atomic.Bool // there is, or was, one among subs that has a name

	shownMu sync.Mutex
	shown   map[string]uint64   // what it was shown last, by resource: a hash
	rated   map[string]rating   // of what is not to be sent often
	named   map[string]struct{} // resources that it subscribes to by their names
	series  map[string]series   // how far it is in documents that follow each other, by topic

	ended sync.Once
}

// A ConnectRequest is what a protocol knows when a client has authenticated.
type ConnectRequest struct {
	Client     string
	Principal  string
	Way        string // by which it was proved, as the policy calls it; empty: not said
	Version    uint8
	Clean      bool   // Clean Start
	Expiry     uint32 // seconds, event.Never for good
	ReceiveMax uint16 // 1 to 65535: QoS 1 and 2 deliveries under way at once
	Will       *event.Will
	Origin     event.Origin

	// Patient is of who publishes for others and cannot tell them: past the
	// publishes_per_second of its domain Publish waits in place of refusing.
	Patient bool

	// Proved is the policy that was in force before the client proved to be
	// Principal; nil for the one in force now. Under another one by then it has
	// to prove it again.
	Proved Authorizer
}

// Connect opens the session of a client: it is ordered like anything else,
// ends an older connection of the client id wherever that is, without waiting
// for it, and returns when this node has applied it. present says whether the
// session existed; dropped how many events its queue has lost to its bound
// since the client last heard. Nothing is delivered to sink before Start.
//
// Errors: ErrRefused with a Refusal (the will's topic is not permitted, the
// client id is somebody else's), ErrQuota, ErrNoCommit, ErrUnknown, ErrClosing.
func (b *Broker) Connect(r ConnectRequest, sink Sink) (s *Session, present bool, dropped uint64, err error) {
	who := Who{Principal: r.Principal, Client: r.Client}
	now := b.now()
	if r.Proved == nil {
		r.Proved = b.Policy()
	}
	if r.Will != nil {
		if IsDelayed(r.Will.Topic) {
			return nil, false, 0, &Refusal{Cause: ErrTopicName, Reason: "a will has a Will Delay Interval for that"}
		}
		if err := b.mayPublish(who, r.Will.Topic, now); err != nil {
			return nil, false, 0, err
		}
	}
	if limit := b.limits.SessionExpiryMax; limit != 0 {
		r.Expiry = min(r.Expiry, limit)
	}
	s = &Session{b: b, who: who, way: r.Way, patient: r.Patient, sink: sink}
	var back *returning // as the loop begins it: it may end it before we look
	w := newWait()
	w.first = func(value any, err error, _ *Wave) {
		if err == nil {
			s.open(value.(*opened), r, now)
			back = s.returning
		}
	}
	cmd := &event.Connect{
		Client: r.Client, Principal: r.Principal, Version: r.Version, Clean: r.Clean,
		Expiry: r.Expiry, ReceiveMax: r.ReceiveMax, At: now, Will: r.Will,
	}
	if b.Level() >= LevelClients {
		cmd.Origin = &r.Origin
	}
	err = b.propose(cmd, call{c: w}, false)
	if err != nil {
		return nil, false, 0, err
	}
	<-w.done
	if w.err != nil {
		return nil, false, 0, w.err
	}
	o := w.value.(*opened)
	if back != nil {
		s.comeBack(o, back.former)
	}
	return s, o.present, o.dropped, nil
}

// open makes s what the Machine answered. In the delivery loop.
func (s *Session) open(o *opened, r ConnectRequest, now int64) {
	s.p = s.b.proposer.Load()
	s.number, s.epoch, s.durable, s.inbound = o.session, o.epoch, o.durable, o.inbound
	s.out.open(s, o, int(r.ReceiveMax), s.b.loop.endedSession(o.session))
	s.b.loop.divide(o)
	s.subs, s.left = make(map[string]*localSub, len(o.subs)), make(chan struct{})
	if o.atOnce > 0 {
		s.returns(o)
	} else {
		s.b.loop.settle(s.number)
	}
	s.b.loop.add(s)
	s.isPutOut(r.Proved)
	s.scanning.init(s)
	for i := range o.subs {
		s.bring(&o.subs[i], o, now)
	}
	s.takeGiven(o, now)
}

// bring puts a subscription in force that the session has. In the delivery loop.
func (s *Session) bring(stored *storedSub, o *opened, now int64) {
	sub := s.attach(stored.Subscription, stored.since, stored.group, now)
	_, sub.asked = slices.BinarySearch(o.asked, sub.sub.Filter)
	switch {
	case stored.replaying:
		s.scanning.add(scan{sub: sub, since: stored.since, after: stored.position, initial: true, resumed: o.present})
	case sub.windowed && s.b.mayHaveOpened(o.offlineSince, now), mayWatch(s.b.machine.profiles, sub.sub.Filter), isSystem(sub.sub.Filter):
		// While it was away a window may have opened: it has missed the
		// state that was sent then.
		s.scanning.add(scan{sub: sub, since: s.sinceOpening(s.b.loop.position())})
	}
}

// attach makes a subscription one that events are delivered to. In the
// delivery loop. group is that of a shared one, 0 for others.
func (s *Session) attach(sub event.Subscription, since, group uint64, now int64) *localSub {
	if group != 0 {
		return s.attachShared(sub, since, group)
	}
	s.renames(&sub)
	grant := s.b.grant(s.who, sub.Filter, now)
	l := &localSub{s: s, sub: sub, since: since, windowed: grant.Windowed, outside: grant.Outside}
	if old := s.subs[sub.Filter]; old != nil {
		l.since, l.judged = old.since, old.judged // it goes on: events between the two are not missed
	} else {
		s.filters.add(sub.Filter, 1)
		if is := s.b.policy.Load(); is != nil {
			l.judged = is.version
		}
	}
	s.subs[sub.Filter] = l
	s.b.subscribe(l)
	return l
}

// Number returns the session's number, which no other session ever has.
func (s *Session) Number() uint64 { return s.number }

// Start begins deliveries: first what is under way from before, in its order
// with its packet ids, then the queue, then what happens. The protocol calls it
// once it has queued its CONNACK.
func (s *Session) Start(w *Wave) {
	s.out.start(w)
	s.scanning.run()
}

// Publish announces ev, whose Topic, Payload, Props, QoS, Retain and Expires
// the caller has set; the session fills in the rest and copies what it keeps:
// the memory is the caller's again on return, and ev may be reused. If logged
// is true, c hears of it by tag later; else it is over: the event was delivered (of
// QoS 0, or kept in memory only; see inMemory) or, with err, refused.
//
// packetID is that of a QoS 2 publish. Publish blocks while the backlog is
// full: that is the back-pressure on publishers.
func (s *Session) Publish(ev *event.Event, packetID uint16, c Completer, tag uint64, w *Wave) (logged bool, err error) {
	now := s.b.now()
	ev.At, ev.Origin, ev.Client, ev.Principal = now, s.number, s.who.Client, s.who.Principal
	var ownTopic, transient, delayed bool
	if ev.Topic != "" && ev.Topic[0] == '$' {
		if isAdministration(ev.Topic) {
			if err := s.administer(ev, w); err != nil {
				s.b.stats.PublishRefused.Add(1)
				return false, err
			}
			return false, nil
		}
		if strings.HasPrefix(ev.Topic, ownControl) {
			ev.Topic, err = s.b.controlTopic(ev)
		}
		delayed = IsDelayed(ev.Topic)
	}
	if delayed {
		ownTopic, err = true, s.mayDelay(ev.Topic, now) // it is ordered whatever its QoS
	} else if err == nil {
		ownTopic, transient, err = s.admit(ev, now)
	}
	if err != nil {
		s.b.stats.PublishRefused.Add(1)
		return false, err
	}
	if s.closed.Load() {
		return false, ErrStale
	}
	if err := s.keepPace(now, w); err != nil {
		s.b.stats.PublishRefused.Add(1)
		return false, err
	}
	if transient {
		s.deliverUnordered(ev, now, w)
		return false, nil
	}
	if ev.QoS == 0 && !ev.Retain && !ownTopic && s.pending.Load() == 0 {
		s.b.stats.Published[0].Add(1)
		s.b.deliverHere(ev, now, w)
		return false, nil
	}
	if ev.QoS > 0 && !ownTopic && s.inMemory(ev) {
		return false, s.publishInMemory(ev, packetID, now, w)
	}
	if s.b.diskFull.Load() {
		s.b.stats.PublishRefused.Add(1)
		return false, ErrDiskFull
	}
	cmd := &w.publish
	*cmd = event.Publish{Epoch: s.epoch, Event: ev}
	who := call{c: c, tag: tag, s: s}
	switch {
	case ev.QoS == 0:
		who.c = nil // nobody is told
	case ev.QoS == 2 && s.durable:
		cmd.PacketID = packetID
	case ev.QoS == 2:
		if s.remember(packetID) {
			return false, nil // routed when it first came
		}
		who.id = packetID
	}
	if s.p.crowded.Load() {
		w.Flush() // before we block: nobody else writes what this wave holds
	}
	w.sendFrames() // what was published before goes before, as far as it is up to us
	s.pending.Add(1)
	if err := s.p.propose(cmd, who, false); err != nil {
		s.pending.Add(-1)
		if who.id != 0 {
			s.forget(who.id)
		}
		return false, err
	}
	s.b.stats.Published[ev.QoS].Add(1)
	return ev.QoS > 0, nil
}

// admit says whether ev may be published: by its profile, if its topic has one
// (then ownTopic is true: it is ordered whatever its QoS, unless the profile
// says that it is transient), as far as the policy leaves it that; else by the
// policy.
func (s *Session) admit(ev *event.Event, now int64) (ownTopic, transient bool, err error) {
	err = s.mayPublish(ev.Topic, now)
	if p := profileFor(s.b.machine.profiles, ev.Topic); p != nil {
		if err != nil {
			return true, false, err
		}
		if err := premature(p, s.b.Level()); err != nil {
			return true, false, err
		}
		publication := Publication{
			Event: ev, From: s.who, Connection: Connection{s.number, s.epoch}, node: s.b, prefix: p.Prefix(),
		}
		err = p.Admit(&publication)
		return true, publication.Transient && ev.QoS < 2, err
	}
	return false, false, err
}

// remember notes the packet id of a QoS 2 publish and says whether it was known.
func (s *Session) remember(id uint16) (known bool) {
	s.inboundMu.Lock()
	defer s.inboundMu.Unlock()
	if _, known = s.inbound[id]; known {
		return true
	}
	if s.inbound == nil {
		s.inbound = map[uint16]struct{}{}
	}
	s.inbound[id] = struct{}{}
	return false
}

// forget ends the use of a packet id and says whether it was in use.
func (s *Session) forget(id uint16) (known bool) {
	s.inboundMu.Lock()
	defer s.inboundMu.Unlock()
	_, known = s.inbound[id]
	delete(s.inbound, id)
	return known
}

// Took says whether a QoS 2 publish with this packet id repeats one that was routed when it first
// came, and so needs no more than to be acknowledged: whatever would be refused of it by now, the
// client is not to publish it anew. What this connection of a durable session has brought itself
// only the log knows, and Publish is asked.
func (s *Session) Took(packetID uint16) bool {
	s.inboundMu.Lock()
	defer s.inboundMu.Unlock()
	_, known := s.inbound[packetID]
	return known
}

// Release ends a QoS 2 publish (PUBREL). As with Publish, c hears of it by tag
// unless logged is false. ErrNoPacketID means that the id is not in use.
func (s *Session) Release(packetID uint16, c Completer, tag uint64) (logged bool, err error) {
	known := s.forget(packetID)
	if !s.durable {
		if !known {
			return false, ErrNoPacketID
		}
		return false, nil
	}
	cmd := event.Release{Session: s.number, Epoch: s.epoch, PacketID: packetID}
	if err := s.p.propose(&cmd, call{c: c, tag: tag}, false); err != nil {
		return false, err
	}
	return true, nil
}

// Durable says whether the session outlives its connection, or has outlived an
// earlier one.
func (s *Session) Durable() bool { return s.durable }

// mayPublish asks the policy, and remembers the answer for as long as it holds.
func (s *Session) mayPublish(topicName string, now int64) error {
	p := s.b.policy.Load()
	if p != nil && p.version != s.version {
		s.verdicts, s.verdictBytes, s.version = nil, 0, p.version
		s.pace = s.b.paceOf(p, s.who.Principal)
	}
	if s.verdicts[topicName].until > now {
		return nil
	}
	if err := s.b.reserved(topicName); err != nil {
		return err
	}
	d := s.b.decide(s.who, ActPublish, topicName, now)
	if !d.Allow {
		return s.b.publishDenied(s.who, topicName, now, d)
	}
	if isSystem(topicName) {
		return errSystem
	}
	if len(s.verdicts) >= verdictsKept || s.verdictBytes >= verdictsBytes {
		clear(s.verdicts)
		s.verdictBytes = 0
	}
	if s.verdicts == nil {
		s.verdicts = make(map[string]publishVerdict, 1)
	}
	v := publishVerdict{until: d.Until}
	if v.until == 0 {
		v.until = forGood
	}
	if k, ok := p.Authorizer.(memorizer); ok {
		v.memory = k.Memory(topicName)
	}
	s.verdicts[cloneString(topicName)] = v
	s.verdictBytes += len(topicName)
	return nil
}

// A publishVerdict is what the policy said about publishing to a topic: it is permitted
// before until, and whether its events are kept in memory only.
type publishVerdict struct {
	until  int64
	memory bool
}

const (
	verdictsKept  = 64
	verdictsBytes = 32 << 10 // of their topics: with more there is room for one more
	forGood       = 1<<63 - 1
)

// cloneString copies s, whose memory may be reused, byte for byte.
func cloneString(s string) string { return string([]byte(s)) }

func (b *Broker) mayPublish(who Who, topicName string, now int64) error {
	if err := b.reserved(topicName); err != nil {
		return err
	}
	if d := b.decide(who, ActPublish, topicName, now); !d.Allow {
		return b.publishDenied(who, topicName, now, d)
	}
	if isSystem(topicName) {
		return errSystem
	}
	return nil
}

func (b *Broker) publishDenied(who Who, topicName string, now int64, d Decision) error {
	return b.denied(&Denial{
		Who: who, Action: ActPublish, Topic: topicName, At: now, Ceiling: profileFor(b.machine.profiles, topicName) != nil,
		Reason: d.Reason,
	})
}

// A SubResult is what became of one filter: Err nil means granted with the
// QoS asked for.
type SubResult struct{ Err error }

// isRequest says whether to subscribe to filter is a request.
func (s *Session) isRequest(filter string) bool {
	m := s.b.machine
	return s.b.Level() >= LevelRequests && (notifierOf(m.profiles, filter) != nil || len(m.wideFor(s.who.Principal, filter)) > 0)
}

// maySubscribe says whether filter may be granted at all.
func (s *Session) maySubscribe(filter string, options []byte, now int64) error {
	if rest, shared := sharedRest(filter); shared {
		return s.mayShare(rest, now)
	}
	if p := profileOf(s.b.machine.profiles, filter); p != nil {
		if err := s.b.mayWatchNow(p, s.who, filter, now); err != nil {
			return err
		}
		n, ok := p.(Notifier)
		if ok && !s.who.mayWatchBy(filter) {
			return errNamelessWide
		}
		if ok && s.b.Level() >= LevelRequests {
			return n.CheckRequest(s.who, filter, options)
		}
		return nil
	}
	if s.b.Level() >= LevelRequests { // of filters that begin with a wildcard
		for _, n := range s.b.machine.wideFor(s.who.Principal, filter) {
			if err := n.CheckRequest(s.who, filter, options); err != nil {
				return err
			}
		}
	}
	if filter == ownResponse || strings.HasPrefix(filter, ownResponse+"/") {
		return nil // only its own answers come there; what else the policy permits is asked for each event
	}
	if mayBeState(s.b.machine.profiles, filter) {
		return states{}.Watch(s.who, filter)
	}
	if p, _ := ownView(s.b.machine.profiles, filter); p != nil {
		if s.who.Principal == "" {
			return errNobody
		}
		return nil
	}
	if strings.HasPrefix(filter, countsTree) {
		return s.b.mayCount(s.who, filter)
	}
	if err := s.b.reserved(filter); err != nil {
		return err
	}
	if d := s.b.grant(s.who, filter, now); !d.Allow {
		return s.b.denied(&Denial{Who: s.who, Action: ActSubscribe, Topic: filter, At: now, Reason: d.Reason})
	}
	return nil
}

func (b *Broker) grant(who Who, filter string, now int64) Decision {
	p := b.policy.Load()
	if p == nil {
		return Decision{Reason: noPolicy}
	}
	d := p.Grant(who, filter, now)
	if profileOf(b.machine.profiles, filter) != nil {
		// Rules that allow have no say there, so that no window of theirs ends or announces
		// anything: what denies and limits closes what is shown, without a word.
		d.Outside = Hold
	}
	return d
}

// Close is CloseFor a DISCONNECT with 0x00, or, with willToo, a stream that broke.
func (s *Session) Close(willToo, setExpiry bool, expiry uint32) {
	why := uint8(event.ReasonNormal)
	if willToo {
		why = event.ReasonLost
	}
	s.CloseFor(why, willToo, setExpiry, expiry)
}

// CloseFor ends the connection: with willToo its will is published (every end
// but DISCONNECT 0x00). setExpiry changes the session's expiry first (5.0
// 3.14.2.2.2). why is what is told of it, as event.Disconnect has it. It returns at
// once, may be called more than once, and nothing is delivered to the sink after it
// returns.
func (s *Session) CloseFor(why uint8, willToo, setExpiry bool, expiry uint32) {
	s.ended.Do(func() {
		s.closed.Store(true)
		s.scanning.stop()
		if limit := s.b.limits.SessionExpiryMax; limit != 0 {
			expiry = min(expiry, limit)
		}
		s.out.stop()
		s.b.loop.parting.add(s)
		s.settling.last(s)
		cmd := event.Disconnect{
			Session: s.number, Epoch: s.epoch, PublishWill: willToo,
			SetExpiry: setExpiry, Expiry: expiry, At: s.b.now(), Why: s.b.why(why),
		}
		s.out.tell(&cmd)
		// An error means that the node is closing: the log will learn of the
		// end from the node's next life.
		if err := s.p.propose(&cmd, call{c: (*parting)(s)}, true); err != nil {
			s.b.loop.parting.remove(s)
		}
		s.b.loop.do(func(*Wave) { s.b.loop.remove(s) })
	})
}

// reserved says whether a name or filter lies in the tree of a kind that is
// not enabled here, or is what one permits in one that there is not. A wildcard at
// the first level reaches no such tree.
func (b *Broker) reserved(name string) error {
	set := profileOfPolicy(b.machine.profiles, name)
	if kind, own := strings.CutPrefix(name, ownPolicy); own && set == nil && !strings.ContainsAny(kind, "+#") {
		return ErrBadEvent
	}
	if p, _ := ownView(b.machine.profiles, name); p != nil && set == nil || strings.HasPrefix(name, countsTree) {
		return errShown
	}
	for _, kind := range b.config.Reserved {
		if len(name) >= len(kind) && name[:len(kind)] == kind && (len(name) == len(kind) || name[len(kind)] == '/') {
			return ErrBadEvent
		}
	}
	return nil
}

// Disconnect ends the connection of a client here, as an operator's act. It
// returns false if the client is not connected here.
func (b *Broker) Disconnect(ctx context.Context, client string, cause error) bool {
	found := false
	b.loop.call(func(*Wave) {
		for _, s := range b.loop.live {
			if s.who.Client == client {
				found = true
				s.sink.End(cause)
			}
		}
	})
	return found && ctx.Err() == nil
}

// hear hands an event to the client at once: QoS 0 always, QoS 1 and 2 of a
// session that ends with its connection through its outbox.
//
// It returns false if d is Wanted and the sink has no room for it now.
func (s *Session) hear(d *Delivery, until int64, w *Wave) bool {
	if s.closed.Load() {
		return true
	}
	if d.QoS > 0 {
		s.out.hear(d, until, w)
		return true
	}
	if !s.begun.Load() {
		return true
	}
	if d.Wanted {
		return s.out.wanted(d, w)
	}
	switch s.sink.Deliver(d, w) {
	case Sent:
		s.delivered(d)
	case TooLarge:
		s.b.stats.TooLarge.Add(1)
	}
	return true
}

// clone copies e for somebody who keeps it.
func clone(e *event.Event) *event.Event {
	c := *e
	c.Topic = cloneString(e.Topic)
	c.Payload, c.Props = slices.Clone(e.Payload), slices.Clone(e.Props)
	c.Frames = [event.FrameVariants][]byte{}
	return &c
}
