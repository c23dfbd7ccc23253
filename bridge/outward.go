package bridge

import "fmt"

// fromLocal handles a packet of our own broker.
func (r *relay) fromLocal(first byte, body []byte) error {
	packet := first >> 4
	switch packet {
	case typePublish:
		p, err := parsePublish(first, body, 5)
		if err != nil {
			return err
		}
		return r.outward(&p)
	case typePubrel:
		a, err := parseAck(body, 5)
		if err != nil {
			return err
		}
		return r.outRelease(a.id)
	case typePuback, typePubrec, typePubcomp:
		a, err := parseAck(body, 5)
		if err != nil {
			return err
		}
		return r.inAnswered(packet, a)
	case typeSuback:
		return r.takeSuback(atLocal, body)
	case typeUnsuback, typePingresp:
		return nil
	case typeDisconnect:
		f := fieldsOf(body)
		code, why, err := f.reason()
		if err != nil {
			return err
		}
		return fmt.Errorf("it ends the connection: %s", codeText(code, why))
	}
	return malformed("a packet that a broker does not send")
}

// outward publishes an event of our broker at the peer, under the same packet id.
func (r *relay) outward(p *publish) error {
	x := outgoing{here: p.qos, there: min(p.qos, r.peer.limits.qos)}
	w, to := route(r.b.outs, p.topic)
	if w == nil {
		r.drop(DropUnmapped, p.topic, "no topic of the bridge is its topic")
		return r.outDropped(p)
	}
	name := p.topic
	if why, err := unfit(to, false); err != nil {
		r.drop(why, name, "with its prefix at the peer: "+err.Error())
		return r.outDropped(p)
	}
	c := carry(nil, p.props, r.b.ins, r.b.c.Origin, r.peer.limits.origin, true)
	if c.looped {
		r.drop(DropLooped, name, "it has been here before, or at the peer")
		return r.outDropped(p)
	}
	if c.hops >= r.b.c.MaxHops {
		r.drop(DropHops, name, fmt.Sprintf("it has been at %d brokers", c.hops))
		return r.outDropped(p)
	}
	p.topic, p.props = to, c.props
	p.retain = p.retain && !w.noRetain && !r.peer.limits.noRetain
	p.qos = x.there
	p.dup = p.dup && p.qos > 0
	if n := p.size(r.peer.version); r.peer.limits.most > 0 && n > r.peer.limits.most {
		r.drop(DropTooLarge, name, fmt.Sprintf("the packet has %d bytes, and the peer takes %d", n, r.peer.limits.most))
		p.qos = x.here
		return r.outDropped(p)
	}
	if x.there > 0 {
		x.since = r.b.c.Now()
		r.mu.Lock()
		r.out[p.id] = x
		r.mu.Unlock()
	}
	if err := r.peerWrote(r.peer.write(func(b []byte) []byte { return p.append(b, r.peer.version) })); err != nil {
		return err
	}
	if x.there > 0 {
		return nil
	}
	r.b.stats.Out.Add(1)
	p.qos = x.here
	return r.outDropped(p)
}

// outDropped ends the exchange of an event of our broker's of which the peer has nothing
// more to say, or never had. One that an earlier connection may have sent it at QoS 2 it may
// hold: that is released there, too, or what comes under its packet id later would be a repeat.
func (r *relay) outDropped(p *publish) error {
	switch p.qos {
	case 1:
		return r.local.ack(typePuback, p.id, 0)
	case 2:
		x := outgoing{here: 2, state: outOver}
		if p.dup {
			x.there, x.state = 2, outReceived
		}
		r.mu.Lock()
		r.out[p.id] = x
		r.mu.Unlock()
		return r.local.ack(typePubrec, p.id, 0)
	}
	return nil
}

// outRelease carries PUBREL.
func (r *relay) outRelease(id uint16) error {
	r.mu.Lock()
	x, known := r.out[id]
	over := known && x.state == outOver || r.peer.limits.qos < 2
	if over {
		delete(r.out, id)
	} else {
		r.out[id] = outgoing{here: 2, there: 2, state: outReleased, since: r.b.c.Now()}
	}
	r.mu.Unlock()
	if over {
		return r.local.ack(typePubcomp, id, 0)
	}
	return r.peerWrote(r.peer.ack(typePubrel, id, 0))
}

// peerWrote is err of writing to the peer, as its fault.
func (r *relay) peerWrote(err error) error {
	if err == nil {
		return nil
	}
	return readFailed(fmt.Errorf("%s: %w", r.peer.who, err))
}

// outAnswered carries PUBACK, PUBREC or PUBCOMP of the peer to our broker.
func (r *relay) outAnswered(packet byte, a ack) error {
	refused, why := a.code >= 0x80 && packet != typePubcomp, Drop(0)
	r.mu.Lock()
	x, known := r.out[a.id]
	switch {
	case !known, packet == typePuback && (x.there != 1 || x.state != outSent),
		packet == typePubrec && (x.there != 2 || x.state != outSent),
		packet == typePubcomp && x.state != outReleased:
		again := packet == typePubrec && known && x.state != outOver && x.again < mostAgain
		if again { // our broker has been told
			x.again++
			r.out[a.id] = x
		}
		r.mu.Unlock()
		if again {
			return nil
		}
		return malformed("it acknowledges what it was not sent")
	case packet == typePubcomp:
		delete(r.out, a.id)
		r.mu.Unlock()
		return r.localWrote(r.local.ack(typePubcomp, a.id, 0))
	case refused:
		var err error
		if why, err = r.refusal(atPeer, a); err != nil {
			r.mu.Unlock()
			return err
		}
	}
	answer, code := byte(typePuback), byte(0)
	switch {
	case packet == typePubrec && refused: // and so the exchange is over for our broker, too
		answer, code = typePubrec, a.code
		delete(r.out, a.id)
	case packet == typePubrec:
		answer = typePubrec
		r.out[a.id] = outgoing{here: 2, there: 2, state: outReceived}
	case x.here == 2:
		answer = typePubrec
		r.out[a.id] = outgoing{here: 2, there: 1, state: outOver}
	default:
		delete(r.out, a.id)
	}
	r.mu.Unlock()
	if refused {
		r.drop(why, "", codeText(a.code, a.why))
	} else {
		r.b.doubts[atPeer].took(a.id)
		r.b.stats.Out.Add(1)
	}
	return r.localWrote(r.local.ack(answer, a.id, code))
}

// localWrote is err of writing to our broker, as its fault.
func (r *relay) localWrote(err error) error {
	if err == nil {
		return nil
	}
	return &failed{FailLocal, fmt.Errorf("%s: %w", r.local.who, err), ""}
}
