package broker

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// An interest is the filters of all sessions connected here, which the other nodes
// are told: what matches none of them need not come here.
//
// Its changes are counted, and a peer is told them in that order: all of it when a
// link has come up, or when the peer has missed something, and then what changes.
// Each claim says from which version to which it leads; a peer that is not at the
// first asks for all. It answers how far it has come, and by that a SUBACK can be
// true for QoS 0 too: it waits until everybody has heard, but no longer than
// hearWithin.
//
// What a node has told is bounded there and here: a node with more filters than
// interestMost wants everything, until it has half as many.
type interest struct {
	filters map[string]*wanted
	bytes   int
	version uint64          // counts changes
	told    uint64          // up to which the peers have been told what changes
	changed map[string]bool // since told: whether the filter is there
	all     bool            // everything is wanted, for there are too many
	since   uint64          // the version at which all began
	most    int
}

// A wanted is a filter that sessions have, and when that began.
type wanted struct {
	sessions int
	version  uint64
}

const (
	interestMost  = 1 << 17
	interestBytes = 16 << 20
	hearWithin    = 250 * time.Millisecond
	askEvery      = time.Second
	tellAgain     = 100 * time.Millisecond // when there was no room in a link
)

func (n *interest) init() {
	n.filters, n.changed, n.most = map[string]*wanted{}, map[string]bool{}, interestMost
}

// add notes that one more session has a filter, and returns the version at which
// who has heard knows. relays.mu is held.
func (n *interest) add(filter string) (version uint64) {
	if w := n.filters[filter]; w != nil {
		w.sessions++
		return w.version
	}
	w := &wanted{1, n.since}
	n.filters[filter] = w
	n.bytes += len(filter)
	if n.all {
		return w.version
	}
	n.version++
	w.version = n.version
	n.changed[filter] = true
	if len(n.filters) > n.most || n.bytes > interestBytes {
		n.all, n.since = true, n.version
		clear(n.changed)
	}
	return w.version
}

// remove undoes add. relays.mu is held.
func (n *interest) remove(filter string) {
	w := n.filters[filter]
	if w.sessions--; w.sessions > 0 {
		return
	}
	delete(n.filters, filter)
	n.bytes -= len(filter)
	switch {
	case !n.all:
		n.version++
		n.changed[filter] = false
	case len(n.filters) <= n.most/2 && n.bytes <= interestBytes/2:
		n.version++
		n.all = false
	}
}

// subscribe makes l a subscription that events are delivered to. In the delivery
// loop, as is unsubscribe.
func (b *Broker) subscribe(l *localSub) {
	if replaced := b.local.Set(l.sub.Filter, l.s.number, l); !replaced {
		b.relays.want(l.sub.Filter)
	}
}

// unsubscribe undoes subscribe.
func (b *Broker) unsubscribe(s *Session, filter string) {
	if b.local.Delete(filter, s.number) {
		b.relays.unwant(filter)
	}
}

func (r *relays) want(filters ...string) (version uint64) {
	if !r.active.Load() {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.interest.all
	for _, f := range filters {
		version = max(version, r.interest.add(f))
	}
	r.turned(all)
	return version
}

func (r *relays) unwant(filters ...string) {
	if !r.active.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.interest.all
	for _, f := range filters {
		r.interest.remove(f)
	}
	r.turned(all)
}

// turned sees to it that the peers are told of a change. mu is held.
func (r *relays) turned(was bool) {
	if r.interest.all != was {
		for _, p := range r.peers {
			p.full = true
		}
	}
	r.kick()
}

// announce tells the peers that somebody is about to subscribe, and returns when
// they have heard, or after hearWithin. What it returns is to be called when the
// subscription is in force, or refused.
func (r *relays) announce(subs []event.Subscription) (over func()) {
	if !r.active.Load() || len(subs) == 0 {
		return func() {}
	}
	filters := make([]string, len(subs))
	for i := range subs {
		filters[i] = cloneString(subs[i].Filter)
	}
	version := r.want(filters...)
	if !r.await(version) {
		r.b.stats.Unheard.Add(1)
	}
	return func() { r.unwant(filters...) }
}

// await waits until all peers have heard of a version.
func (r *relays) await(version uint64) bool {
	var late <-chan time.Time
	for {
		all, news := r.haveHeard(version)
		if all {
			return true
		}
		if late == nil {
			timer := time.NewTimer(hearWithin)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-news:
		case <-late:
			return false
		case <-r.b.closing:
			return false
		}
	}
}

func (r *relays) haveHeard(version uint64) (all bool, news <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.peers {
		if p.up.Load() && p.heard < version {
			return false, r.news
		}
	}
	return true, nil
}

// run tells the peers what there is to tell, until the broker closes.
func (r *relays) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-r.b.closing:
			return
		case <-r.wake:
		case <-timer.C:
		}
		if again := r.tell(); again > 0 {
			timer.Reset(again)
		}
	}
}

// A saying is messages for one peer.
type saying struct {
	to       *peer
	messages [][]byte
	interest bool // they are of our interest: if one is lost, the rest is of no use
}

// tell tells every peer what there is for it, and returns after what time there is
// more: 0 for not before it is kicked.
func (r *relays) tell() (again time.Duration) {
	r.mu.Lock()
	says := r.sayings()
	r.mu.Unlock()
	for _, s := range says {
		for _, m := range s.messages {
			if r.to.Send(s.to.node, m) {
				continue
			}
			if s.interest {
				r.mu.Lock()
				s.to.full = true
				r.mu.Unlock()
			}
			again = tellAgain
			break
		}
	}
	return again
}

// sayings returns what there is to tell. mu is held.
func (r *relays) sayings() (says []saying) {
	n := &r.interest
	var full, change [][]byte
	if n.version != n.told {
		change = claims(r.stream, n.told, n.version, 0, n.changed)
		n.told, n.changed = n.version, map[string]bool{}
	}
	for _, p := range r.peers {
		if !p.up.Load() {
			continue
		}
		if p.ask && !p.asked {
			p.ask, p.asked = false, true
			time.AfterFunc(askEvery, p.mayAsk)
			says = append(says, saying{p, [][]byte{appendAsk(nil)}, false})
		}
		if p.answer {
			p.answer = false
			says = append(says, saying{p, [][]byte{appendHeard(nil, p.stream, p.version)}, false})
		}
		switch {
		case p.full:
			if full == nil {
				full = r.fullClaim()
			}
			p.full = false
			says = append(says, saying{p, full, true})
		case change != nil:
			says = append(says, saying{p, change, true})
		}
	}
	return says
}

// fullClaim returns the messages that say all of our interest.
func (r *relays) fullClaim() [][]byte {
	n := &r.interest
	if n.all {
		return claims(r.stream, 0, n.version, claimReset|claimAll, nil)
	}
	all := make(map[string]bool, len(n.filters))
	for f := range n.filters {
		all[f] = true
	}
	return claims(r.stream, 0, n.version, claimReset, all)
}

// mayAsk lets a peer be asked again.
func (p *peer) mayAsk() {
	p.r.mu.Lock()
	p.asked = false
	p.r.mu.Unlock()
	p.r.kick()
}

// A told is what a peer has told of its interest.
type told struct {
	mu      sync.Mutex // guards the following
	known   bool       // it is what the peer said up to version, of stream
	stream  uint64
	version uint64
	filters map[string]struct{} // in the index
	bytes   int

	next  map[string]struct{} // of a claim of all that has begun; else nil
	whole bool                // that one says that everything is wanted
}

// errMissed means that there was something before what a peer says now.
var errMissed = errors.New("a claim is missing")

// hear takes one message of a peer's interest. errMissed asks for all of it.
func (t *told) hear(p *peer, m *claim) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.flags&claimReset != 0 {
		t.known, t.stream, t.version = false, m.stream, 0
		t.next, t.whole = map[string]struct{}{}, m.flags&claimAll != 0
	}
	whole := t.next != nil
	if t.stream != m.stream || t.version != m.from || !whole && !t.known {
		t.next = nil
		return errMissed
	}
	for filter, wanted, ok := m.next(); ok; filter, wanted, ok = m.next() {
		switch {
		case !wanted:
			t.drop(p, filter)
		case whole:
			t.next[cloneString(filter)] = struct{}{}
		default:
			t.add(p, cloneString(filter))
		}
	}
	if m.err != nil {
		return m.err
	}
	if max(len(t.filters), len(t.next)) > interestMost || t.bytes > 2*interestBytes {
		return fmt.Errorf("%w: more filters than a node may have", event.ErrDamaged)
	}
	if m.flags&claimMore != 0 {
		return nil
	}
	if whole {
		t.replace(p)
	}
	t.known, t.version = true, m.to
	return nil
}

func (t *told) add(p *peer, filter string) {
	if _, had := t.filters[filter]; had {
		return
	}
	if t.filters == nil {
		t.filters = map[string]struct{}{}
	}
	t.filters[filter] = struct{}{}
	t.bytes += len(filter)
	p.r.b.local.Set(filter, p.key, p.sub)
}

func (t *told) drop(p *peer, filter string) {
	if _, had := t.filters[filter]; !had {
		return
	}
	delete(t.filters, filter)
	t.bytes -= len(filter)
	p.r.b.local.Delete(filter, p.key)
}

// replace makes what the peer has told anew what is known of it.
func (t *told) replace(p *peer) {
	next := t.next
	t.next = nil
	if t.whole {
		p.wantAll(true)
	}
	for filter := range next {
		t.add(p, filter)
	}
	for filter := range t.filters {
		if _, still := next[filter]; !still {
			t.drop(p, filter)
		}
	}
	if !t.whole {
		p.wantAll(false)
	}
}

// forget drops what a peer has told.
func (t *told) forget(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.next, t.whole = false, map[string]struct{}{}, false
	t.replace(p)
}

func (p *peer) wantAll(all bool) {
	if p.all.Swap(all) == all {
		return
	}
	if all {
		p.r.alls.Add(1)
	} else {
		p.r.alls.Add(-1)
	}
	p.r.b.local.Invalidate()
}
