package bridge

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/topic"
)

// fromPeer handles a packet of the peer.
func (r *relay) fromPeer(first byte, body []byte) error {
	packet, version := first>>4, r.peer.version
	switch packet {
	case typePublish:
		p, err := parsePublish(first, body, version)
		if err != nil {
			return err
		}
		return r.inward(&p)
	case typePubrel:
		a, err := parseAck(body, version)
		if err != nil {
			return err
		}
		return r.inRelease(a.id)
	case typePuback, typePubrec, typePubcomp:
		a, err := parseAck(body, version)
		if err != nil {
			return err
		}
		return r.outAnswered(packet, a)
	case typeSuback:
		return r.takeSuback(atPeer, body)
	case typePingresp:
		if r.pings.Add(-1) < 0 {
			return malformed("PINGRESP to nobody")
		}
		return nil
	case typeDisconnect:
		f := fieldsOf(body)
		code, why, err := f.reason()
		if err != nil {
			return err
		}
		todo := ""
		if code == 0x8E {
			todo = "two clients use client id " + r.b.c.Client + " at the peer: is there another bridge of that name? set client_id"
		}
		return &failed{FailLost, fmt.Errorf("%s ends the connection: %s", r.peer.who, codeText(code, why)), todo}
	}
	return malformed("a packet that a broker does not send")
}

// inward publishes an event of the peer here, under the same packet id.
func (r *relay) inward(p *publish) error {
	r.enter(p)
	w, to := route(r.b.ins, p.topic)
	if w == nil {
		r.drop(DropUnmapped, p.topic, "no topic of the bridge is its topic")
		return r.inDropped(p)
	}
	name := p.topic
	if why, err := unfit(to, true); err != nil {
		r.drop(why, name, "with its prefix here: "+err.Error())
		return r.inDropped(p)
	}
	if levels := r.b.c.Levels; levels != nil && topic.Levels(to) > levels() {
		r.drop(DropRefused, name, fmt.Sprintf("topic.levels under limits is %d", levels()))
		return r.inDropped(p)
	}
	c := carry(nil, p.props, r.b.outs, r.b.c.Origin, r.peer.limits.origin, false)
	switch {
	case c.looped:
		r.drop(DropLooped, name, "it has been here before")
		return r.inDropped(p)
	case c.hops >= r.b.c.MaxHops:
		r.drop(DropHops, name, fmt.Sprintf("it has been at %d brokers", c.hops))
		return r.inDropped(p)
	}
	p.topic, p.props = to, c.props
	p.retain = p.retain && !w.noRetain
	if n, most := p.size(5), r.local.limits.most; most > 0 && n > most {
		r.drop(DropTooLarge, name, fmt.Sprintf("the packet has %d bytes, and packet.bytes under limits is %d", n, most))
		return r.inDropped(p)
	}
	if p.qos == 0 {
		r.b.stats.In.Add(1)
	} else if err := r.refresh(p); err != nil {
		return err
	}
	return r.localWrote(r.local.write(func(b []byte) []byte { return p.append(b, 5) }))
}

// enter takes note of an exchange that begins, or goes on.
func (r *relay) enter(p *publish) {
	if p.qos == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in[p.id] = p.qos
}

// refresh releases the packet id of an event, if our session holds it from another one. That
// is so if the peer sends the event for the first time, or cannot know of
// one before.
func (r *relay) refresh(p *publish) error {
	r.mu.Lock()
	held := p.qos == 2 && r.stale[p.id]
	delete(r.stale, p.id)
	other := held && (!p.dup || !r.present)
	if other {
		r.skip[p.id]++
	}
	r.mu.Unlock()
	if !other {
		return nil
	}
	return r.localWrote(r.local.ack(typePubrel, p.id, 0))
}

// inDropped ends the exchange of an event of the peer's that is not carried, as far as it
// is up to who receives. PUBREL our broker answers for ids that it does not know.
func (r *relay) inDropped(p *publish) error {
	r.mu.Lock()
	if p.qos == 1 {
		delete(r.in, p.id)
	}
	r.mu.Unlock()
	switch p.qos {
	case 1:
		return r.peerWrote(r.peer.ack(typePuback, p.id, 0))
	case 2:
		return r.peerWrote(r.peer.ack(typePubrec, p.id, 0))
	}
	return nil
}

// inRelease carries PUBREL. Of an id that our session does not hold there is nothing to release:
// our log is not asked, or whoever sends such ids would have it order each.
func (r *relay) inRelease(id uint16) error {
	r.mu.Lock()
	if r.in[id] == 0 && !r.stale[id] {
		r.mu.Unlock()
		return r.peerWrote(r.peer.ack(typePubcomp, id, 0))
	}
	delete(r.stale, id)
	r.in[id] = 2
	r.mu.Unlock()
	return r.localWrote(r.local.ack(typePubrel, id, 0))
}

// inAnswered carries PUBACK, PUBREC or PUBCOMP of our broker to the peer: by then the log has
// committed what it acknowledges.
func (r *relay) inAnswered(packet byte, a ack) error {
	refused, why := a.code >= 0x80 && packet != typePubcomp, Drop(0)
	if refused {
		var err error
		if why, err = r.refusal(atLocal, a); err != nil {
			return err
		}
	}
	r.mu.Lock()
	if packet == typePubcomp && r.skip[a.id] > 0 {
		if r.skip[a.id]--; r.skip[a.id] == 0 {
			delete(r.skip, a.id)
		}
		r.mu.Unlock()
		return nil
	}
	code := byte(0)
	if refused && r.peer.version == 5 {
		code = a.code
	}
	if packet != typePubrec || code > 0 {
		delete(r.in, a.id)
	}
	r.mu.Unlock()
	switch {
	case refused:
		r.drop(why, "", codeText(a.code, a.why))
	case packet != typePubcomp:
		r.b.doubts[atLocal].took(a.id)
		r.b.stats.In.Add(1)
	}
	return r.peerWrote(r.peer.ack(packet, a.id, code))
}
