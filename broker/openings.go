package broker

import (
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// Openings send what has just been opened to many sessions that subscribe to the same
// filter: it is read once for all of them, by the edges' goroutine, where a scan
// of each would read it for each. A scan's order holds here, too: what is sent is
// older than what the loop delivers between reading and sending it, so from before it
// is read until all have it the loop notes which topics events were retained on; who
// is to get one of these has a scan of its own, and so has whoever is behind, or has
// scans under way, and all where there is more to send than a piece holds.
type openings struct {
	touched map[string]struct{} // not nil while one is under way; the delivery loop's
}

// sharedFrom is how many subscriptions share one reading: fewer have scans, which are
// done side by side.
const sharedFrom = 4

// touch notes that an event was retained, if that matters. In the delivery loop.
func (o *openings) touch(topicName string) {
	if o.touched != nil {
		o.touched[cloneString(topicName)] = struct{}{}
	}
}

// send sends what p has opened, and returns false if the loop has ended.
func (o *openings) send(b *Broker, p *passing) bool {
	var few []*localSub
	for filter, subs := range p.open {
		if len(subs) < sharedFrom {
			few = append(few, subs...)
			continue
		}
		if !b.loop.call(func(*Wave) { o.touched = map[string]struct{}{} }) {
			return false
		}
		found, all := b.readOpened(filter)
		if !all {
			few = append(few, subs...)
			subs = nil
		}
		for len(found) > 0 && len(subs) > 0 {
			n := min(len(subs), max(1, edgePiece/len(found)))
			if !b.loop.call(func(w *Wave) { o.piece(p, subs[:n], found, w) }) {
				return false
			}
			subs = subs[n:]
		}
		if !b.loop.call(func(*Wave) { o.touched = nil }) {
			return false
		}
	}
	for len(few) > 0 {
		n := min(len(few), edgePiece)
		if !b.loop.call(func(*Wave) {
			for _, sub := range few[:n] {
				p.scan(sub)
				sub.s.scanning.runIfStarted()
			}
		}) {
			return false
		}
		few = few[n:]
	}
	return true
}

// readOpened reads the retained events that a filter matches. all is false if they are
// more than a piece holds.
func (b *Broker) readOpened(filter string) (found []event.Event, all bool) {
	lower, upper := retainedRange(filter, "")
	looked, bytes, now := 0, 0, b.now()
	all = true
	b.config.Store.Scan(lower, upper, func(key, value []byte) bool {
		if looked++; looked > pieceLookedAt || bytes > pieceBytes || len(found) > pieceTopics {
			all = false
			return false
		}
		if !topic.Match(filter, string(key[1:])) {
			return true
		}
		var e event.Event
		if err := decodeRetained(value, &e); err != nil {
			panic(fatal{"retained event: " + err.Error()})
		}
		if !e.Expired(now) {
			bytes += e.Size()
			found = append(found, *clone(&e))
		}
		return true
	})
	return found, all
}

// piece sends some subscribers of a filter what was found. In the delivery loop.
func (o *openings) piece(p *passing, subs []*localSub, found []event.Event, w *Wave) {
	now := p.b.now()
	for _, sub := range subs {
		s := sub.s
		sub := s.subs[sub.sub.Filter]
		if sub == nil || s.closed.Load() {
			continue // unsubscribed
		}
		if n, full := s.out.waiting(); n >= roomForPiece || full || !s.scanning.idle() || p.b.silence.all.Load() || !o.sendTo(p, sub, found, now, w) {
			p.scan(sub)
			s.scanning.runIfStarted()
		}
	}
}

// sendTo sends one subscriber what has opened to it, and returns false if that is for
// a scan.
func (o *openings) sendTo(p *passing, sub *localSub, found []event.Event, now int64, w *Wave) bool {
	s := sub.s
	for i := range found {
		e := &found[i]
		if sub.sub.NoLocal && isOwn(e.Origin, s.number, s.who.Client) || e.Position > p.here && !s.durable || e.Expired(now) || !p.opened(s.who, e.Topic) {
			continue
		}
		d := p.b.decide(s.who, ActSubscribe, e.Topic, now)
		if !d.Allow {
			continue
		}
		if _, newer := o.touched[e.Topic]; newer {
			return false
		}
		out := &w.delivery
		*out = s.scanning.delivery(e, &sub.sub)
		out.limitTo(e, d.Until, now)
		if !s.hear(out, d.Until, w) {
			return false
		}
		p.b.stats.Replayed.Add(1)
	}
	return true
}
