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
	changed map[string]byte // since told: how many want the filter, see wanted.many
	all     bool            // everything is wanted, for there are too many
	since   uint64          // the version at which all began
	most    int
}

// A wanted is a filter that sessions have, and when that began.
type wanted struct {
	sessions int
	version  uint64
}

// many is what a peer is told of w: 1, but of a shared subscription how many members
// there are, up to 255.
func (w *wanted) many(filter string) byte {
	if _, shared := sharedRest(filter); !shared {
		return byte(min(w.sessions, 1))
	}
	return byte(min(w.sessions, 255))
}

const (
	interestMost  = 1 << 17
	interestBytes = 16 << 20
	hearWithin    = 250 * time.Millisecond
	askEvery      = time.Second
	tellAgain     = 100 * time.Millisecond // when there was no room in a link
)

func (n *interest) init() {
	n.filters, n.changed, n.most = map[string]*wanted{}, map[string]byte{}, interestMost
}

// add notes that one more session has a filter, and returns the version at which
// who has heard knows. relays.mu is held.
func (n *interest) add(filter string) (version uint64) {
	if w := n.filters[filter]; w != nil {
		before := w.many(filter)
		w.sessions++
		n.counted(filter, w, before)
		return w.version
	}
	w := &wanted{1, n.since}
	n.filters[filter] = w
	n.bytes += len(filter)
	if n.all {
		return w.version
	}
	n.counted(filter, w, 0)
	if len(n.filters) > n.most || n.bytes > interestBytes {
		n.all, n.since = true, n.version
		clear(n.changed)
	}
	return w.version
}

// counted notes that w, which was told as before, may be told as another number.
func (n *interest) counted(filter string, w *wanted, before byte) {
	now := w.many(filter)
	if now == before || n.all {
		return
	}
	n.version++
	w.version = n.version
	n.changed[filter] = now
}

// remove undoes add. relays.mu is held.
func (n *interest) remove(filter string) {
	w := n.filters[filter]
	before := w.many(filter)
	if w.sessions--; w.sessions > 0 {
		n.counted(filter, w, before)
		return
	}
	delete(n.filters, filter)
	n.bytes -= len(filter)
	switch {
	case !n.all:
		n.counted(filter, w, before)
	case len(n.filters) <= n.most/2 && n.bytes <= interestBytes/2:
		n.version++
		n.all = false
	}
}

// subscribe makes l a subscription that events are delivered to. In the delivery
// loop, as is unsubscribe.
func (b *Broker) subscribe(l *localSub) {
	replaced := false
	if l.isShared() {
		replaced = b.join(l)
	} else {
		replaced = b.local.Set(l.sub.Filter, l.s.number, l)
		l.s.name(l.sub.Filter)
	}
	if !replaced {
		b.loop.noteCounted(l.sub.Filter, 1)
		if mayTellClients(l.sub.Filter) {
			b.clientsWatched.Add(1)
		}
		b.countSubscription(l, 1)
		b.relays.want(l.sub.Filter)
	}
}

// unsubscribe undoes subscribe.
func (b *Broker) unsubscribe(l *localSub) {
	l.s.filters.add(l.sub.Filter, -1)
	had := false
	if l.isShared() {
		had = b.part(l)
	} else {
		had = b.local.Delete(l.sub.Filter, l.s.number)
		l.s.unname(l.sub.Filter)
	}
	if had {
		b.loop.noteCounted(l.sub.Filter, -1)
		if mayTellClients(l.sub.Filter) {
			b.clientsWatched.Add(-1)
		}
		b.countSubscription(l, -1)
		b.relays.unwant(l.sub.Filter)
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

// hearOf waits until the peers have heard of what is in force, or for hearWithin.
func (r *relays) hearOf() {
	if !r.active.Load() {
		return
	}
	r.mu.Lock()
	version := r.interest.version
	r.mu.Unlock()
	if !r.await(version) {
		r.b.stats.Unheard.Add(1)
	}
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
		n.told, n.changed = n.version, map[string]byte{}
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
	all := make(map[string]byte, len(n.filters))
	for f, w := range n.filters {
		all[f] = w.many(f)
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
	filters map[string]*localSub // in the index
	bytes   int

	next  map[string]byte // of a claim of all that has begun; else nil
	whole bool            // that one says that everything is wanted
}

// errMissed means that there was something before what a peer says now.
var errMissed = errors.New("a claim is missing")

// hear takes one message of a peer's interest. errMissed asks for all of it.
func (t *told) hear(p *peer, m *claim) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.flags&claimReset != 0 {
		t.known, t.stream, t.version = false, m.stream, 0
		t.next, t.whole = map[string]byte{}, m.flags&claimAll != 0
	}
	whole := t.next != nil
	if t.stream != m.stream || t.version != m.from || !whole && !t.known {
		t.next = nil
		return errMissed
	}
	for filter, wanted, ok := m.next(); ok; filter, wanted, ok = m.next() {
		switch {
		case wanted == 0:
			t.drop(p, filter)
		case whole:
			t.next[cloneString(filter)] = wanted
		default:
			t.add(p, cloneString(filter), wanted)
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

func (t *told) add(p *peer, filter string, many byte) {
	l, had := t.filters[filter]
	if had && (!l.isShared() || l.sharing.many == int(many)) {
		return
	}
	if t.filters == nil {
		t.filters = map[string]*localSub{}
	}
	if !had {
		t.bytes += len(filter)
	}
	l = p.seat(filter, int(many), l)
	t.filters[filter] = l
	p.r.b.local.Set(l.placeOf(p, filter))
}

func (t *told) drop(p *peer, filter string) {
	l, had := t.filters[filter]
	if !had {
		return
	}
	delete(t.filters, filter)
	t.bytes -= len(filter)
	at, key, _ := l.placeOf(p, filter)
	p.r.b.local.Delete(at, key)
	if l.isShared() {
		p.r.b.seats.leave(filter)
	}
}

// replace makes what the peer has told anew what is known of it.
func (t *told) replace(p *peer) {
	next := t.next
	t.next = nil
	if t.whole {
		p.wantAll(true)
	}
	for filter, many := range next {
		t.add(p, filter, many)
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
	t.known, t.next, t.whole = false, map[string]byte{}, false
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
