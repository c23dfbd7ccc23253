package broker

import (
	"hash/maphash"

	"github.com/bellwire/bellwire/broker/topic"
)

// A showing is how a session is to be shown a resource.
type showing struct {
	qos    uint8 // 0 or 1
	ids    []uint32
	named  bool // it is shown that it may see nothing, too, if it has not been shown anything yet
	retain bool // RETAIN is wanted: see judge
}

// show shows s a resource, unless that is what it was shown last: now, or, if its
// client has no room, as it is when there is. In the delivery loop.
func (s *Session) show(once *shownOnce, res Resource, how *showing, now int64, w *Wave) {
	if s.closed.Load() || s.b.holds(once.topic) {
		return // when it may be shown again all is
	}
	s.out.mu.Lock()
	slow, owed := s.out.show(once, res, how, now, w)
	s.out.mu.Unlock()
	switch {
	case slow:
		s.out.endSlow()
	case owed:
		s.scanning.owe(once.topic, false)
	}
}

// show shows the session a resource, at QoS 0 or 1. What cannot be sent now is a mark:
// when there is room, the client is shown how things are then, and as far as it may
// see them then. Until then it is as if there had been no change. slow says that the
// client is to be ended, owed that the session is owed the resource. mu is held.
func (o *outbox) show(once *shownOnce, res Resource, how *showing, now int64, w *Wave) (slow, owed bool) {
	name := once.topic
	if o.stopped || how.qos > 0 && o.marked[name] {
		return false, false
	}
	j := o.s.judge(res, name, now, how.named, how.retain)
	if !j.send {
		return false, false
	}
	d := &w.delivery
	*d = Delivery{Event: once.event(&j.shown), QoS: how.qos, Retain: j.retain, IDs: how.ids, Wanted: how.qos == 0}
	d.limitTo(d.Event, 0, now)
	sent := false
	switch {
	case how.qos == 0:
		if sent = o.offerWanted(d, w); !sent {
			return false, true
		}
	case o.s.durable:
		sent = o.sent == o.next && !o.pulling && len(o.backlog) == 0 && o.sendBeside(d, w)
	default:
		o.next++
		sent = o.sent == o.next-1 && o.room() && o.send(d, w)
	}
	if sent {
		o.s.note(name, &j)
		return false, false
	}
	if o.marked == nil {
		o.marked = map[string]bool{}
	}
	o.marked[name] = true
	return o.hold(held{mark: name, named: how.named, qos: how.qos, retain: how.retain, ids: how.ids, at: o.next}), false
}

// render makes d the document of a resource as the session is shown it now, and says
// whether it is to be sent; with RETAIN, if wanted asks for it. j is for note when it
// was. mu is held; the resource is loaded, but for one that was pushed out
// meanwhile.
func (o *outbox) render(d *Delivery, topicName string, named, wanted bool, now int64) (j judged, send bool) {
	s := o.s
	v := s.b.viewerOf(topicName)
	if v == nil || s.b.local.LookupString(topicName).find(s.number) == nil {
		return j, false
	}
	j = s.judge(s.b.watch.resource(v, topicName), topicName, now, named, wanted)
	if j.send {
		*d = Delivery{Event: j.shown.event(topicName), QoS: 1, Retain: j.retain}
		d.limitTo(d.Event, 0, now)
	}
	return j, j.send
}

// A judged is what a session is shown of a resource at an instant.
type judged struct {
	shown  Shown
	sum    uint64  // for note, once it was sent
	next   *series // of a Series, likewise
	at     int64
	retain bool
	send   bool
}

// judge asks what s is shown of a resource now, and whether to send it: not if s was
// sent just that, nor if it is nothing to s, who never saw it and has not named it.
// wanted is the RETAIN to send it with, if it is the first that s is shown of it: what
// follows is a change, whatever brought it about, so that a window that closes looks as
// if the owner had gone, and one that opens as if they had come.
// The outbox's lock is held until it is sent and that is noted.
func (s *Session) judge(res Resource, topicName string, now int64, named, wanted bool) (j judged) {
	if m, ok := res.(mine); ok {
		if v, ok := m.view.(Series); ok {
			return s.judgeNext(v, m.keys, topicName, now, wanted)
		}
	}
	j.shown = s.b.show(res, s.who, topicName, now)
	if _, own := res.(mine); own {
		s.b.watch.note(ownBucket(topicName, s.who.Principal), j.shown.Ruled, now)
	} else {
		s.b.watch.noteTimes(topicName, &j.shown, now)
	}
	j.sum = s.b.watch.sum(&j.shown)
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	if !s.sees(topicName) {
		return j
	}
	last, had := s.shown[topicName]
	if _, exactly := s.named[topicName]; exactly {
		if j.shown.Absent {
			s.unshow(topicName) // what is shown next is news, whatever it is
			return j
		}
		named = true // also of nothing: what it was shown before that is over
	}
	if had && last == j.sum || !had && (!j.shown.Visible && !named || j.shown.Absent || j.shown.Quiet) {
		return j
	}
	if at := s.mayNext(topicName, &j.shown, had, now); at != 0 {
		s.b.watch.note(ratedBucket(topicName), at, now)
		s.b.stats.Coalesced.Add(1)
		return j
	}
	j.retain, j.send, j.at = wanted && !had, true, now
	return j
}

// unshow forgets what s was shown of a resource. Requires shownMu.
func (s *Session) unshow(topicName string) {
	delete(s.shown, topicName)
	delete(s.rated, topicName)
}

// note notes that s was sent what was judged of a resource.
func (s *Session) note(topicName string, j *judged) {
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	if j.next == nil {
		s.noteShown(topicName, j.sum)
		s.noteRated(topicName, &j.shown, j.at)
		return
	}
	if s.series == nil {
		s.series = map[string]series{}
	}
	s.series[topicName] = *j.next
}

// noteShown notes what s was sent of a resource. Requires shownMu.
func (s *Session) noteShown(topicName string, sum uint64) {
	if _, had := s.shown[topicName]; !had && len(s.shown) >= shownKept+len(s.named) {
		for other := range s.shown { // shownKept of them at least are by wildcards
			if _, named := s.named[other]; !named {
				s.unshow(other)
				s.b.stats.ShownForgotten.Add(1)
				break
			}
		}
	}
	if s.shown == nil {
		s.shown = map[string]uint64{}
	}
	s.shown[topicName] = sum
}

// name takes note that s subscribes to a resource by its name.
func (s *Session) name(filter string) {
	if topic.HasWildcard(filter) || s.b.viewerOf(filter) == nil {
		return
	}
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	if s.named == nil {
		s.named = map[string]struct{}{}
	}
	s.named[filter] = struct{}{}
}

// names says whether s subscribes to a resource by its name.
func (s *Session) names(topicName string) bool {
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	_, is := s.named[topicName]
	return is
}

// unname undoes name.
func (s *Session) unname(filter string) {
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	delete(s.named, filter)
}

// sum is the same for what is the same to see.
func (t *watch) sum(shown *Shown) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	if shown.Mark != nil {
		_, _ = h.Write(shown.Mark)
		return h.Sum64()
	}
	_, _ = h.Write(shown.Payload)
	_, _ = h.Write(shown.Props)
	return h.Sum64()
}

// isNews says whether s was shown a resource, and something else than that.
func (s *Session) isNews(topicName string, shown *Shown) bool {
	sum := s.b.watch.sum(shown)
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	last, was := s.shown[topicName]
	return was && last != sum
}

// wasLast says whether what s was shown of a resource last looks like that.
func (s *Session) wasLast(topicName string, shown *Shown) bool {
	sum := s.b.watch.sum(shown)
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	last, was := s.shown[topicName]
	return was && last == sum
}

// wasShown says whether s was sent a resource.
func (s *Session) wasShown(topicName string) bool {
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	_, was := s.shown[topicName]
	return was
}

// reshow has s sent what filter matches even if it was sent just that.
func (s *Session) reshow(filter string) {
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	if !topic.HasWildcard(filter) {
		s.unshow(filter)
		delete(s.series, filter)
		return
	}
	for name := range s.shown {
		if topic.Match(filter, name) {
			s.unshow(name)
		}
	}
}
