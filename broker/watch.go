package broker

import (
	"container/heap"
	"hash/maphash"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// A watch shows resources to the sessions that are connected here.
//
// A resource is loaded when somebody is to be shown it, and kept until it or
// its owner's policy changes. What differs between watchers is in what Show
// returns; those who are shown the same share an event, so it is encoded once.
//
// A session is shown a resource when that changes, when an instant comes at
// which the passing of time changes it, and when it subscribes or resumes. It
// is not sent what it was sent last: that is how a watcher is kept from
// learning that something happened which it may not see.
//
// There is one timer for each resource that time changes, for whoever is shown
// it earliest; not one for each watcher.
type watch struct {
	b    *Broker
	seed maphash.Seed

	remarked atomic.Bool // marks were proposed since CatchUp last looked; never from levelBeside on

	mu      sync.Mutex // guards the following
	loaded  map[string]loaded
	bytes   int    // charged for loaded
	changes uint64 // counts forget: what was read before one may be stale
	times   timesHeap
	due     map[string]*timeOf // what times has, by resource, or by ruledBucket of one
}

// A loaded is a resource and what it is charged for: what was read of it.
type loaded struct {
	Resource
	bytes int
}

// What is loaded is bounded by what was read for it, and by what each is charged
// besides. The loser is any.
const (
	loadedBytes   = 64 << 20
	resourceBytes = 1 << 10
)

// shownKept bounds what a session is known to have been shown by wildcards. The
// loser is any resource: if it is withdrawn later, the session is not told, and if
// it is not, it is told once more what it knows. It is counted. What a session
// subscribes to by name is never forgotten; of that there is no more than a session
// has subscriptions.
const shownKept = 1 << 16

func (t *watch) init(b *Broker) {
	t.b, t.seed = b, maphash.MakeSeed()
	t.loaded, t.due = map[string]loaded{}, map[string]*timeOf{}
}

// resource returns a resource as the store has it; v is the profile of its
// topic.
func (t *watch) resource(v Viewer, topicName string) Resource {
	t.mu.Lock()
	kept, ok := t.loaded[topicName]
	changes := t.changes
	t.mu.Unlock()
	if ok {
		return kept.Resource
	}
	r := t.read(v, topicName)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changes == changes {
		t.keep(topicName, r)
	}
	return r.Resource
}

// read loads a resource from the store, whatever is kept of it.
func (t *watch) read(v Viewer, topicName string) loaded {
	s := t.b.config.Store
	record, ok := s.Get(resourceKey(nil, v.Prefix(), topicName), nil)
	if !ok {
		record = nil
	}
	policy, ok := s.Get(resourceKey(nil, v.Prefix(), policyPrefix+v.Owner(topicName)), nil)
	if !ok {
		policy = nil
	}
	return loaded{t.load(v, topicName, record, policy), len(topicName) + len(record) + len(policy) + resourceBytes}
}

func (t *watch) load(v Viewer, topicName string, record, policy []byte) Resource {
	if k, keyed := v.(KeyedViewer); keyed {
		return k.LoadKeyed(topicName, record, policy, t.b.Secret())
	}
	if c, ok := v.(Consulter); ok {
		return c.LoadWith(Keys{t.b.config.Store, v.Prefix()}, topicName, record, policy)
	}
	return v.Load(topicName, record, policy)
}

// keep adds a resource to what is loaded. Requires mu.
func (t *watch) keep(topicName string, r loaded) {
	t.drop(topicName)
	for other := range t.loaded {
		if t.bytes+r.bytes <= loadedBytes {
			break
		}
		t.drop(other)
	}
	t.loaded[topicName] = r
	t.bytes += r.bytes
}

// drop takes a resource out of what is loaded. Requires mu.
func (t *watch) drop(topicName string) {
	t.bytes -= t.loaded[topicName].bytes
	delete(t.loaded, topicName)
}

// resource returns a resource as this node has it, nil if its topic is no
// Viewer's.
func (b *Broker) resource(topicName string) Resource {
	v := b.viewerOf(topicName)
	if v == nil {
		return nil
	}
	return b.watch.resource(v, topicName)
}

// forget drops a resource that has changed.
func (t *watch) forget(topicName string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	t.drop(topicName)
}

// forgetAll drops all of them: the state was replaced.
func (t *watch) forgetAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	clear(t.loaded)
	t.bytes = 0
}

// note has the resource shown anew at that time, which is after now: a profile
// that says otherwise would have it shown for ever, and waits a second.
func (t *watch) note(topicName string, at, now int64) {
	if at == 0 {
		return
	}
	if at <= now {
		at = now + int64(time.Second)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.due[topicName]
	switch {
	case e == nil:
		e = &timeOf{at: at, topic: topicName}
		t.due[topicName] = e
		heap.Push(&t.times, e)
	case e.at <= at:
		return
	default:
		e.at = at
		heap.Fix(&t.times, e.place)
	}
	if t.times[0] == e {
		t.b.Kick()
	}
}

// noteTimes has a resource shown anew when what was shown says that time changes
// it: or changes who may see it, which is noted apart, for it has another pace.
func (t *watch) noteTimes(topicName string, shown *Shown, now int64) {
	t.note(ruledBucket(topicName), shown.Ruled, now)
	if shown.Until != shown.Ruled {
		t.note(topicName, shown.Until, now)
	}
}

// isNoted says whether a time is noted under a name.
func (t *watch) isNoted(topicName string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.due[topicName] != nil
}

// next returns the earliest time that something was noted for, 0 for never.
func (t *watch) next() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.times) == 0 {
		return 0
	}
	return t.times[0].at
}

// take returns a resource whose time has come.
func (t *watch) take(now int64) (topicName string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.times) == 0 || t.times[0].at > now {
		return "", false
	}
	e := heap.Pop(&t.times).(*timeOf)
	delete(t.due, e.topic)
	return e.topic, true
}

// A timeOf is when a resource is shown anew; there is one for each at most.
type timeOf struct {
	at    int64
	topic string
	place int // in the heap
}

type timesHeap []*timeOf

func (h timesHeap) Len() int           { return len(h) }
func (h timesHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h timesHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *timesHeap) Push(x any) {
	e := x.(*timeOf)
	e.place = len(*h)
	*h = append(*h, e)
}

func (h *timesHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return x
}

// viewerOf returns the profile that shows a topic, nil for none.
func (b *Broker) viewerOf(topicName string) Viewer {
	if m, ok := mineOf(b.machine.profiles, b.config.Store, topicName); ok {
		return m
	}
	if n := notifierOfState(b.machine.profiles, topicName); n != nil {
		return states{Notifier: n, b: b}
	}
	if c, _ := counterOf(b.machine.profiles, topicName); c != nil {
		return counts{Counter: c, b: b}
	}
	v, _ := profileOf(b.machine.profiles, topicName).(Viewer)
	return v
}

// mayWatch says whether filter may match what a Viewer shows.
func mayWatch(profiles map[string]Profile, filter string) bool {
	if p, _ := ownView(profiles, filter); p != nil || mayBeState(profiles, filter) {
		return true
	}
	if c, _ := counterOf(profiles, filter); c != nil {
		return true
	}
	for prefix, p := range profiles {
		if _, ok := p.(Viewer); ok && watches(filter, prefix) {
			return true
		}
	}
	return false
}

// watches says whether filter may match topics below prefix.
func watches(filter, prefix string) bool { return topic.Overlaps(filter, prefix+"/#") }

// shownOnce shares one event among all that are shown the same.
type shownOnce struct {
	topic  string
	events []*event.Event
}

func (o *shownOnce) event(s *Shown) *event.Event {
	for _, e := range o.events {
		if e.Expires == s.believed() && len(e.Payload) == len(s.Payload) && (len(e.Payload) == 0 || &e.Payload[0] == &s.Payload[0]) {
			return e
		}
	}
	e := s.event(o.topic)
	o.events = append(o.events, e)
	return e
}

// event is what is sent of what is shown of a resource.
func (s *Shown) event(topicName string) *event.Event {
	return &event.Event{Topic: topicName, Payload: s.Payload, Props: s.Props, QoS: 1, Expires: s.believed()}
}

// believed is until when what is shown is certainly true: the Message Expiry Interval
// tells it, so that a copy that is kept on the way does not outlive what permitted it.
// (It is the message's life, not the state's: if all stays as it is beyond that, who
// has been shown it is not sent it again.) Of nothing it is never told: all that look as if there
// were nothing look alike, whatever comes next.
func (s *Shown) believed() int64 {
	if s.Nothing {
		return 0
	}
	return s.Until
}

// changed shows a resource anew to everybody connected here who watches it, or
// to one principal. In the delivery loop.
func (l *loop) changed(topicName, whose string, now int64) {
	v := l.b.viewerOf(topicName)
	if v == nil || l.b.holds(topicName) {
		return
	}
	if own, ok := v.(mine); ok {
		l.showOwn(own, topicName, whose, now)
		return
	}
	res := l.b.watch.resource(v, topicName)
	once := shownOnce{topic: topicName}
	marks := l.b.Level() < levelBeside
	audience := l.b.local.LookupString(topicName)
	for i := range audience.hearers {
		h := &audience.hearers[i]
		if marks && h.s.durable && h.qos > 0 || whose != "" && h.s.who.Principal != whose {
			continue // through its queue, or it is nothing to it
		}
		l.showTo(h, res, &once, now)
	}
}

// showBacklog shows a watcher for whom a resource opens now what happened while it was
// closed, if that is to be made up for. In the delivery loop.
func (l *loop) showBacklog(h *hearer, res Resource, topicName string, once *shownOnce, now int64) {
	b, ok := res.(Backlogged)
	neutral := res.Neutral()
	if !ok || !h.s.begun.Load() || !h.s.wasLast(topicName, &neutral) || !l.b.policy.Load().Ceiling(h.s.who, ActSubscribe, topicName, now).Allow {
		return
	}
	for _, shown := range b.Backlog(h.s.who, now) {
		d := &l.wave.delivery
		*d = Delivery{Event: once.event(&shown), IDs: h.ids}
		h.s.hear(d, 0, &l.wave)
	}
}

// showTo shows a watcher a resource, if it is not what that was shown last. One that
// has not started its scan will show it. In the delivery loop.
func (l *loop) showTo(h *hearer, res Resource, once *shownOnce, now int64) {
	if h.s.begun.Load() {
		how := showing{qos: min(h.qos, 1), ids: h.ids}
		h.s.show(once, res, &how, now, &l.wave)
	}
}

// passed shows what happened on the way to a resource's state to everybody
// connected here who has been shown that, as far as the operator leaves it to
// them. What looks like the state that somebody knows says nothing to them, and
// they are not told that there was something. In the delivery loop.
func (l *loop) passed(topicName, of string, now int64) {
	v, p := l.b.viewerOf(topicName), l.b.policy.Load()
	if v == nil || p == nil || l.b.holds(topicName) {
		return
	}
	if pace, ok := v.(Pacer); ok {
		if burst, interval := pace.Pace(); !l.pacer.has(topicName, burst, interval, now) {
			return // nor will the change be shown that comes with it
		}
	}
	res, ok := l.b.watch.resource(v, topicName).(Passing)
	if !ok {
		return
	}
	once := shownOnce{topic: topicName}
	audience := l.b.local.LookupString(topicName)
	for i := range audience.hearers {
		h := &audience.hearers[i]
		if !h.s.begun.Load() || !p.Ceiling(h.s.who, ActSubscribe, topicName, now).Allow {
			continue
		}
		for _, shown := range res.Passed(of, h.s.who, now) {
			if !h.s.isNews(topicName, &shown) {
				continue
			}
			d := &l.wave.delivery
			*d = Delivery{Event: once.event(&shown), IDs: h.ids}
			h.s.hear(d, 0, &l.wave)
		}
	}
}

// How often an owner's policy may change what watchers are shown of a resource.
// It has a pace of its own: what is taken from somebody is taken within a second,
// however often the resource itself has changed.
const (
	ruleBurst    = 10
	ruleInterval = time.Second
)

// What buckets, and what times are noted for, have in front of a topic, unless it is the
// resource itself: no topic begins so, and no two are alike.
const (
	ruledPrefix   = "\x00"
	sweepPrefix   = "\x01"
	fetchesBucket = "\x02" // alone: when the log is told of fetches
	ratedPrefix   = "\x03"
)

// ruledBucket is the bucket of a resource for changes of its owner's policy, and
// of what that lets watchers see by the passing of time: and the name under which
// such a time is noted.
func ruledBucket(topicName string) string { return ruledPrefix + topicName }

// ownBucket is the bucket of what one principal is shown of their own, and the name
// under which is noted when they are shown what was held.
func ownBucket(topicName, whose string) string {
	if whose == "" {
		return topicName
	}
	return topicName + "\x00" + whose
}

// readBucket is the reverse of ruledBucket and ownBucket.
func readBucket(bucket string) (topicName, whose string, ruled bool) {
	topicName, ruled = strings.CutPrefix(bucket, ruledPrefix)
	topicName, whose, _ = strings.Cut(topicName, "\x00")
	return topicName, whose, ruled
}

// hold says whether a change of a resource is not to be shown now, because it
// changes too often; ruled says that it does because of its owner's policy, whose,
// unless it is empty, whose own it is. In the delivery loop.
func (l *loop) hold(topicName, whose string, ruled bool, now int64) bool {
	p, ok := l.b.viewerOf(topicName).(Pacer)
	if !ok {
		return false
	}
	burst, interval := p.Pace()
	bucket := ownBucket(topicName, whose)
	if burst == 0 || len(l.live) == 0 { // what is replayed at a start floods nobody
		return false
	}
	if ruled {
		burst, interval, bucket = ruleBurst, ruleInterval, ruledBucket(topicName)
	}
	shown, at := l.pacer.take(bucket, burst, interval, now)
	if !shown {
		l.b.watch.note(bucket, at, now)
		l.b.stats.Coalesced.Add(1)
	}
	return !shown
}

// Times under way are resources that are shown anew because of time, a piece at a
// time: the one that is being shown, and to whom that has come.
type timesUnderWay struct {
	topic, whose string // topic is empty: none
	once         shownOnce
	sweep        bool     // the topic is everybody's own, and those of the domain are shown it
	domain       string   // of a sweep; empty: all
	counts       []string // that are swept
	after        uint64   // the session's number that was looked at last
}

// passTimes shows anew what the passing of time has changed up to until, or what was
// held: a piece of it, and returns false when nothing is left. Time
// changes a resource no more often than who publishes to it: an owner could have it
// do so at thousands of instants. What time changes of who may see it has the pace
// of changes of the policy. In the delivery loop.
func (l *loop) passTimes(t *timesUnderWay, until int64) (more bool) {
	now := l.b.now()
	for room := edgePiece; room > 0; {
		if t.sweep || len(t.counts) > 0 {
			room -= l.sweepSome(t, room, now)
			continue
		}
		if t.topic != "" {
			room -= l.showSome(t, room, now)
			continue
		}
		bucket, ok := l.b.watch.take(until)
		if !ok {
			return false
		}
		room--
		if bucket == fetchesBucket {
			l.b.tellFetches(now)
			continue
		}
		if swept, is := l.beginSweep(bucket); is {
			*t = swept
			continue
		}
		topicName, whose, due := l.due(bucket, now)
		if !due {
			continue
		}
		if _, own := l.b.viewerOf(topicName).(mine); own {
			l.changed(topicName, whose, now)
			if l.b.Level() < levelBeside {
				l.remarkOwn(topicName, whose, now)
			}
			continue
		}
		*t = timesUnderWay{topic: topicName, whose: whose, once: shownOnce{topic: topicName}}
	}
	return true
}

// due says whether a resource, or what its owner's rules show of it, is to be shown
// now that its time has come, or that it was held before and is late.
func (l *loop) due(bucket string, now int64) (topicName, whose string, due bool) {
	if topicName, rated := readRated(bucket); rated {
		return topicName, "", true
	}
	topicName, whose, ruled := readBucket(bucket)
	late := false
	if p, ok := l.b.viewerOf(topicName).(Pacer); ok {
		_, interval := p.Pace()
		if ruled {
			interval = ruleInterval
		}
		late = l.pacer.late(bucket, interval)
	}
	return topicName, whose, late || !l.hold(topicName, whose, ruled, now)
}

// showSome shows a resource to some of its watchers who have not been shown it yet,
// and returns how many it looked at. Between two pieces watchers may come, whose scans
// show it to them, and go. In the delivery loop.
func (l *loop) showSome(t *timesUnderWay, most int, now int64) (looked int) {
	v, hearers := l.b.viewerOf(t.topic), l.hearersAfter(t)
	if v == nil || l.b.holds(t.topic) || len(hearers) == 0 {
		*t = timesUnderWay{}
		return 0
	}
	res := l.b.watch.resource(v, t.topic)
	marks := l.b.Level() < levelBeside
	for i := range hearers[:min(most, len(hearers))] {
		h := &hearers[i]
		looked++
		t.after = h.s.number
		switch {
		case t.whose != "" && h.s.who.Principal != t.whose:
		case !marks || !h.s.durable || h.qos == 0:
			l.showBacklog(h, res, t.topic, &t.once, now)
			l.showTo(h, res, &t.once, now)
		case h.s.concerned(t.topic, now):
			h.s.remark(t.topic, now)
		}
	}
	return looked
}

// hearersAfter returns those who subscribe to what is under way and were not looked at. In
// the delivery loop.
func (l *loop) hearersAfter(t *timesUnderWay) []hearer {
	hearers := l.b.local.LookupString(t.topic).hearers
	return hearers[sort.Search(len(hearers), func(i int) bool { return hearers[i].s.number > t.after }):]
}

// concerned says whether time can have changed what s is shown of a resource: it
// sees it, or has seen it. To whom it is nothing it must not even be that.
func (s *Session) concerned(topicName string, now int64) bool {
	v := s.b.viewerOf(topicName)
	if v == nil {
		return false
	}
	shown := s.b.show(s.b.watch.resource(v, topicName), s.who, topicName, now)
	s.b.watch.noteTimes(topicName, &shown, now)
	return shown.Visible || s.wasShown(topicName)
}

// remark has a durable session's queue marked because time has changed what it
// is shown.
func (s *Session) remark(topicName string, now int64) {
	s.b.watch.remarked.Store(true)
	for filter := range s.subs {
		if topic.Match(filter, topicName) {
			// An error means that the node is closing: it will be shown at resume.
			_ = s.p.propose(&event.Replay{
				Session: s.number, Epoch: s.epoch, Filter: filter, Topics: []string{topicName}, At: now,
			}, call{}, true)
			return
		}
	}
}

// show returns what who is shown of a resource: what its owner says, as far as
// the operator leaves it to that.
func (b *Broker) show(res Resource, who Who, topicName string, now int64) Shown {
	return b.showFor(res, who, topicName, now, false)
}

// showFor is show for somebody who asks once, or wants to be sent what becomes of it.
func (b *Broker) showFor(res Resource, who Who, topicName string, now int64, once bool) Shown {
	p := b.policy.Load()
	if p == nil {
		return res.Neutral()
	}
	ceiling := p.Ceiling(who, ActSubscribe, topicName, now)
	var shown Shown
	if f, ok := res.(Fetched); ok && once {
		shown = f.Fetch(who, now)
	} else {
		shown = res.Show(who, now)
	}
	if !ceiling.Allow {
		// It must look as if the owner were away, to a wildcard too.
		cut := res.Neutral()
		cut.Visible, cut.Until, cut.Ruled, cut.Absent, cut.Refused, cut.Quiet = shown.Visible, shown.Until, shown.Ruled, shown.Absent, shown.Refused, shown.Quiet
		shown = cut
	}
	shown.Until = earlier(shown.Until, ceiling.Until)
	shown.Ruled = earlier(shown.Ruled, ceiling.Until)
	return shown
}
