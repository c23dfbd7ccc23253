package broker

// What a durable session is shown of resources at QoS 1 goes out beside its
// queue, not through it.
//
// A queue keeps what is in it until the client has taken it. Of a document nothing
// need be kept: a session that is back is shown how things are by then, whatever it
// was sent before (see Stated deviations), and while it is connected its node has
// the resource. So the log hears nothing of documents. That is more than thrift. A
// resource may change a hundred thousand times while a client takes one message:
// entries for that would push out of the queue what nobody else keeps, and cost a
// write for each who watches; to have one entry stand for all later changes the log
// would have to know what a node has sent. And numbers of a queue decide packet ids,
// so that an entry for somebody who is not to see the change would tell him of it.
//
// What must hold:
//
//   - After the last change of a resource each who may see it is shown the last
//     state: at once, or when there is room. What waits is the resource's name, at
//     most once, with its place among the entries of the queue: it goes out before
//     what is queued later. So neither can hold up the other for ever, and a client
//     for which the names of too many wait is ended with ErrSlow, to be shown all
//     when it is back.
//   - No older state comes after a newer one: what is shown is rendered, sent and
//     taken note of under the outbox's lock, from what the store has then.
//   - Packet ids are those that the queue will come to last: they count down from
//     below what is under way of it, while the queue's count up. Neither uses one
//     that the other has under way; the queue waits rather than that. They follow
//     from what this client was sent, and from nothing else.
//   - Documents under way count for the Receive Maximum, as entries do. The log
//     takes it that more of the queue may be under way than is: nothing is dropped
//     for that which must not be.
//
// Below levelBeside there are marks in the queue instead: see Machine.changed.
type beside struct {
	ids map[uint16]struct{} // of the documents under way; nil until there was one
	at  uint64              // the number whose packet id was given last; 0 for none
}

// besideIDs is how many packet ids there are for documents.
const besideIDs = 32767

// has says whether a document is under way with a packet id.
func (t *beside) has(id uint16) bool {
	if len(t.ids) == 0 {
		return false
	}
	_, is := t.ids[id]
	return is
}

// next returns a packet id for a document, 0 if there is none: of the queue all from
// below to sent may be under way.
func (t *beside) next(below, sent uint64) uint16 {
	if len(t.ids) >= besideIDs {
		return 0
	}
	top := below + maxSpan // whose packet id is that of below-1
	floor := max(sent, top-besideIDs+1)
	from := top
	if t.at > floor {
		from = t.at - 1
	}
	for _, s := range [...]span{{floor, from + 1}, {from + 1, top + 1}} {
		for at := s.to; at > s.from; {
			at--
			if id := packetID(at); !t.has(id) {
				t.at = at
				return id
			}
		}
	}
	return 0
}

// sendBeside sends a document beside the queue, and returns false if there is no
// room. mu is held.
func (o *outbox) sendBeside(d *Delivery, w *Wave) bool {
	if !o.takes() {
		return false
	}
	id := o.beside.next(o.below, max(o.sent, o.begun)) // those before begun the client may know yet
	if id == 0 {
		return false
	}
	d.PacketID, d.Dup = id, false
	switch o.s.sink.Deliver(d, w) {
	case Full:
		o.full = true
		return false
	case TooLarge:
		o.s.b.stats.TooLarge.Add(1)
		return true
	}
	o.s.delivered(d)
	if o.beside.ids == nil {
		o.beside.ids = map[uint16]struct{}{}
	}
	o.beside.ids[id] = struct{}{}
	o.underWay++
	return true
}

// settleBeside takes the client's answer to a document. mu is held.
func (o *outbox) settleBeside(id uint16, what Settlement) error {
	if what != Acked {
		return ErrWrongAck
	}
	delete(o.beside.ids, id)
	o.underWay--
	return nil
}

// showWaiting sends documents that wait for their turn, as the resources are now, and
// returns false if there is no room for the next. mu is held.
func (o *outbox) showWaiting(w *Wave) bool {
	for len(o.backlog) > 0 && o.backlog[0].at <= o.sent {
		h := &o.backlog[0]
		if !o.takes() || !o.s.b.holds(h.mark) && !o.showHeld(h, w) {
			return false
		}
		// What is held for now will be shown with all the rest when it is not (see
		// showAnew): it stops nothing here.
		o.unhold(h)
		o.backlog = o.backlog[1:]
	}
	if len(o.backlog) == 0 {
		o.backlog = nil
	}
	return true
}

// showHeld sends one of them. mu is held.
func (o *outbox) showHeld(h *held, w *Wave) bool {
	d := &w.delivery
	j, send := o.render(d, h.mark, h.named || o.s.names(h.mark), h.retain, o.s.b.now())
	if !send {
		return true
	}
	if d.IDs = h.ids; !o.sendBeside(d, w) {
		return false
	}
	o.s.note(h.mark, &j)
	return true
}

// place returns before which number of the queue the next document is due.
func (o *outbox) place() uint64 {
	if len(o.backlog) == 0 {
		return o.next
	}
	return o.backlog[0].at
}
