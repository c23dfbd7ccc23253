package broker

import "maps"

// A walk goes through the subscriptions of all sessions that were connected here when it
// began, in the delivery loop. There may be a million, and each may take 5 µs: so it goes in
// pieces, between which the loop delivers what has come meanwhile. A session may come by in
// several: what it subscribes to meanwhile may come by, or not.
type walk struct {
	b        *Broker
	sessions []*Session // the first may be under way
	filters  []string   // of that one, those left; nil: it is not under way
}

// walkPiece bounds one task of the loop: how many sessions and subscriptions it looks at.
const walkPiece = 2 * edgePiece

// begin has the walk go through all who are connected now. In the delivery loop.
func (k *walk) begin(b *Broker) {
	k.b, k.sessions = b, make([]*Session, 0, len(b.loop.live))
	for _, s := range b.loop.live {
		k.sessions = append(k.sessions, s)
	}
}

// piece looks at some, and returns false when none is left. passed is called for each session
// after its subscriptions. In the delivery loop.
func (k *walk) piece(look func(*localSub), passed func(*Session)) (more bool) {
	for room := walkPiece; room > 0 && len(k.sessions) > 0; {
		s := k.sessions[0]
		if k.b.loop.live[s.number] != s {
			k.next()
			room--
			continue
		}
		if k.filters == nil && len(s.subs) < room {
			room -= len(s.subs)
			for _, sub := range s.subs {
				look(sub)
			}
		} else if !k.some(s, &room, look) {
			break
		}
		room--
		passed(s)
		k.next()
	}
	return len(k.sessions) > 0
}

// some looks at as many subscriptions of a session that has many as there is room for, and
// says whether those were the last.
func (k *walk) some(s *Session, room *int, look func(*localSub)) (all bool) {
	if k.filters == nil {
		k.filters = make([]string, 0, len(s.subs))
		for filter := range maps.Keys(s.subs) {
			k.filters = append(k.filters, filter)
		}
	}
	n := min(*room, len(k.filters))
	for _, filter := range k.filters[:n] {
		if sub := s.subs[filter]; sub != nil {
			look(sub)
		}
	}
	*room -= n
	k.filters = k.filters[n:]
	return len(k.filters) == 0
}

func (k *walk) next() {
	k.sessions[0], k.filters = nil, nil
	k.sessions = k.sessions[1:]
}
