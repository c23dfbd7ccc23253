package broker

import (
	"github.com/bellwire/bellwire/broker/event"
)

// What a session is owed: topics whose newest state did not find room in its
// client's socket, and is not kept for it anywhere else. When there is room the
// session is told how things are then: at most one state for each topic waits,
// however fast it changes. For resources that always holds; other topics are owed
// while the session is told the present state (see scan), for that is promised
// to be complete, and QoS 0 is not. A client for which too many wait is too slow:
// its connection ends, and when it is back it is shown all that it may see.

// owe has the session told the present state of a topic when its client has room
// again; cleared says that what was lost had cleared the topic. In the delivery
// loop.
func (t *scanState) owe(topicName string, cleared bool) {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return
	}
	if _, is := t.owed[topicName]; !is && len(t.owed) >= owedKept {
		t.owed = nil
		t.mu.Unlock()
		t.stop()
		t.s.out.giveUp()
		return
	}
	if t.owed == nil {
		t.owed = map[string]bool{}
	}
	t.owed[cloneString(topicName)] = cleared
	if !t.owing {
		t.owing = true
		t.append(scan{owed: true})
	}
	t.mu.Unlock()
	t.runIfStarted()
}

// mayOwe says whether a live event that finds no room is to be owed. In the
// delivery loop.
func (t *scanState) mayOwe(e *event.Event) bool {
	if !e.Retain || e.Position == 0 || !t.active.Load() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.owed) < owedMost
}

// readOwed takes what is owed into a piece, and says whether that is all.
func (t *scanState) readOwed(p *piece, s *pieceOf, now int64) (done bool) {
	for p.room() {
		name, cleared, ok := t.takeOwed()
		if !ok {
			return true
		}
		p.looked++
		if t.s.b.viewerOf(name) != nil {
			p.watched = append(p.watched, resource{s, name})
			continue
		}
		f := found{of: s, event: event.Event{Topic: name, Retain: true, At: now}}
		if value, there := t.s.b.config.Store.Get(retainedKey(nil, name), nil); there {
			if err := decodeRetained(value, &f.event); err != nil {
				panic(fatal{"retained event: " + err.Error()})
			}
			f.event = *clone(&f.event)
		} else if !cleared {
			continue // it has expired, or the client was told that it is gone
		}
		p.bytes += f.event.Size()
		p.direct = append(p.direct, f)
		p.held++
	}
	return false
}

// takeOwed returns a topic that is owed, and forgets it; without any left there is
// no scan for them any more.
func (t *scanState) takeOwed() (name string, cleared, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, cleared = range t.owed {
		delete(t.owed, name)
		return name, cleared, true
	}
	t.owing = false
	return "", false, false
}

// lateDelivery returns what a session is sent in place of a live event of this
// topic that it has lost: as that would have been, so at QoS 0, and nothing if
// none of its subscriptions is for it any more. In the delivery loop.
func (t *scanState) lateDelivery(e *event.Event) (d Delivery) {
	h := t.s.b.local.LookupString(e.Topic).find(t.s.number)
	if h == nil {
		return d
	}
	g := &h.merged
	if h.own != nil && isOwn(e.Origin, t.s.number, t.s.who.Client) {
		if g = h.own; !g.any {
			return d
		}
	}
	return Delivery{Event: e, Retain: g.retain, IDs: g.ids, Wanted: true}
}

// wanted offers the sink a QoS 0 delivery that must not be lost, and returns
// false if it is to be offered again when the sink has been drained.
func (o *outbox) wanted(d *Delivery, w *Wave) bool {
	o.mu.Lock() // or Drained could come before full is set
	defer o.mu.Unlock()
	return o.offerWanted(d, w)
}

// offerWanted is wanted while mu is held.
func (o *outbox) offerWanted(d *Delivery, w *Wave) bool {
	switch o.s.sink.Deliver(d, w) {
	case Sent:
		o.s.delivered(d)
	case Full:
		o.full = true
		return false
	case TooLarge:
		o.s.b.stats.TooLarge.Add(1)
	}
	return true
}
