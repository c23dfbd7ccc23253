package broker

import "slices"

// A review has all sessions that are connected here shown what a change has opened to them
// that concerns everybody: another policy, a copied state, or that the node hears of a leader
// again. It looks at each of their subscriptions, which may take seconds: so it is a walk, by
// the edges' goroutine. What must hold:
//
//   - A verdict is of the policy in force from the change on: those that were kept are
//     forgotten with it, whoever's turn it is. Who may not stay is ended with it, too.
//   - Edges are passed by what subscriptions have noted of their windows. So no edge is
//     begun before a review that waits is over.
//   - One waits at most: of changes that come meanwhile all that they may have opened is
//     shown together, once.
//   - A subscription that is made after the change has its own scan, and is passed over: it is
//     told by the policy's version that it was judged by. One that takes the place of another has the other's.
type review struct {
	walk
	here    uint64    // the place in the log of the last change
	version uint64    // of the policy since; 0: it has not changed
	before  []inForce // what was in force before each change
	all     bool      // all that may be seen is shown: what was missed nobody knows
	unheld  bool      // what was held is shown

	who    *Session // whom opened is of
	opened func(topicName string) bool
}

// An inForce is a policy, and the last instant at which it was in force.
type inForce struct {
	*policy
	until int64
}

// beforeMost bounds how many policies one review tells apart. With one more it shows all.
const beforeMost = 64

// review returns the one that waits. In the delivery loop.
func (e *edges) review(b *Broker) *review {
	if e.waits == nil {
		e.waits = &review{}
	}
	select {
	case e.kicked <- struct{}{}:
	default:
	}
	e.waits.here = b.loop.position()
	return e.waits
}

// policyChanged has every subscription sent the state that a new policy opens to
// it, and notes anew in which of them time has a part. here is the policy's place
// in the log: an event of the same entry that was retained before it was judged
// by the former policy, so the scan must find it. In the delivery loop.
func (e *edges) policyChanged(b *Broker, before *policy, here uint64) {
	for _, s := range b.loop.live {
		s.isPutOut(before.authorizer())
	}
	r := e.review(b)
	r.here, r.version = here, b.policy.Load().version
	if before != nil {
		r.before = append(r.before, inForce{before, b.now()})
	}
	if len(r.before) > beforeMost {
		r.before, r.all = nil, true
	}
}

// restored has every subscription sent what it may see of a copied state. In the delivery loop.
func (e *edges) restored(b *Broker) {
	if is := b.policy.Load(); is != nil {
		r := e.review(b)
		r.version, r.all = is.version, true
	}
}

// openedTo returns what says whether a topic was closed to somebody before one of the changes.
func (r *review) openedTo(s *Session) func(topicName string) bool {
	if r.who != s {
		before, all, who := r.before, r.all, s.who
		r.who, r.opened = s, func(topicName string) bool {
			return all || slices.ContainsFunc(before, func(was inForce) bool {
				return !was.Decide(who, ActSubscribe, topicName, was.until).Allow
			})
		}
	}
	return r.opened
}

// look looks at one subscription. In the delivery loop.
func (r *review) look(sub *localSub) {
	s, filter := sub.s, sub.sub.Filter
	if sub.isShared() {
		return // no state is shown to it
	}
	if r.version != 0 && sub.judged < r.version {
		sub = s.judgeAnew(sub, r.version)
		s.scanning.add(scan{sub: sub, since: s.sinceOpening(r.here), opened: r.openedTo(s)})
	} else if r.unheld && mayWatch(r.b.machine.profiles, filter) {
		// Of resources all, of retained events none: nothing was kept from it.
		s.scanning.add(scan{sub: sub, since: s.sinceOpening(r.here), opened: func(string) bool { return false }})
	}
}

// judgeAnew notes whether time has a part in a subscription by the policy in force, and that
// it was judged by the one of a version. It returns the subscription as it is then.
func (s *Session) judgeAnew(sub *localSub, version uint64) *localSub {
	grant := s.b.grant(s.who, sub.sub.Filter, s.b.now())
	if grant.Windowed != sub.windowed || grant.Outside != sub.outside {
		other := *sub
		other.windowed, other.outside = grant.Windowed, grant.Outside
		sub = &other
		s.subs[sub.sub.Filter] = sub
		s.b.subscribe(sub)
	}
	sub.judged = version
	return sub
}

// passed has a session that was looked at go on. In the delivery loop.
func (r *review) passed(s *Session) {
	s.scanning.runIfStarted()
	if !r.unheld {
		return
	}
	s.scanning.kick()
	if n, _ := s.out.waiting(); n > 0 {
		r.b.scans.start(s.goOn) // the queue is not read here
	}
}

// reviewed does what is left of reviews, and returns false if the loop has ended. What then
// runs, before another begins, begin does. For who holds e.mu.
func (e *edges) reviewed(b *Broker, begin func()) bool {
	for {
		var r *review
		if !b.loop.call(func(*Wave) {
			if r, e.waits = e.waits, nil; r == nil {
				begin()
				return
			}
			r.walk.begin(b)
		}) {
			return false
		}
		if r == nil {
			return true
		}
		for more := true; more; {
			if !b.loop.call(func(*Wave) { more = r.piece(r.look, r.passed) }) {
				return false
			}
		}
	}
}
