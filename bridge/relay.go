package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A relay carries packets between two connections, both of which are open. Two goroutines
// read, one from each broker, and write mostly to the other one. They cannot wait for each
// other for ever: our own broker goes on reading while its output waits, so the one that
// reads from the peer always comes to an end with what it has, and each write has a time.
type relay struct {
	b           *Bridge
	local, peer *end
	present     bool         // the peer had our session
	pings       atomic.Int64 // that the peer has not answered

	mu sync.Mutex // guards the following

	// out are exchanges of what goes out, by the packet ids of our broker. No more than
	// the Window.
	out map[uint16]outgoing
	// in are those of what comes in, by the packet ids of the peer: all of them may be under
	// way, whatever it was told (3.1.1 has no bound), and our broker takes as many from us.
	in map[uint16]byte
	// stale are ids that our session has not released from before.
	stale map[uint16]bool
	// skip are PUBCOMPs of our broker that the peer has not asked for.
	skip map[uint16]int

	asks    [2][]asked // subscriptions that are not answered, of our broker and the peer
	refused [2]bool    // one was refused
	ask     uint16     // packet id of the last
}

// Which broker.
const (
	atLocal = iota
	atPeer
)

// An outgoing is an exchange under way.
type outgoing struct {
	here  byte // QoS of our broker's PUBLISH; 0 if not known
	there byte // of the one sent to the peer
	state outState
	since time.Time // that the peer owes us something; zero if it does not
	again byte      // times that the peer has said PUBREC once more
}

// mostAgain is how often a peer may say once more that it has an event: some did so by a clock.
const mostAgain = 100

type outState byte

const (
	outSent     outState = iota // the PUBLISH went to the peer
	outReceived                 // our broker is told PUBREC
	outReleased                 // PUBREL went to the peer
	outOver                     // the peer has, or is to have, nothing more of it
)

// An asked is a SUBSCRIBE that waits for its SUBACK.
type asked struct {
	id      uint16
	filters []wanted
}

func newRelay(b *Bridge, local, peer *end, here Session) *relay {
	r := &relay{
		b: b, local: local, peer: peer, present: peer.limits.present,
		out: map[uint16]outgoing{}, in: map[uint16]byte{}, stale: map[uint16]bool{}, skip: map[uint16]int{},
	}
	for _, id := range here.Unreleased {
		r.stale[id] = true
	}
	return r
}

// run carries until one of the connections ends, and says why.
func (r *relay) run(ctx context.Context, address string) error {
	c := &r.b.c
	alive := c.KeepAlive
	if r.peer.limits.aliveSet {
		alive = time.Duration(r.peer.limits.alive) * time.Second
	}
	r.peer.patience = alive*3/2 + 2*time.Second
	if alive == 0 {
		r.peer.patience = 0
	}
	if err := r.subscribe(); err != nil {
		return readFailed(err)
	}
	level := slog.LevelDebug
	if _, ok := r.b.connectLog.note(c.Now()); ok {
		level = slog.LevelInfo
	}
	c.Logger.Log(ctx, level, "the bridge is connected", "bridge", c.Name, "peer", address, "protocol", versionNames[r.peer.version], "present", r.present, "waiting", r.b.Waiting())
	r.b.note(State{Connected: true, Peer: address})

	ended := make(chan error, 3)
	var tasks sync.WaitGroup
	tasks.Go(func() { ended <- r.pump(r.local, r.fromLocal) })
	tasks.Go(func() { ended <- r.pump(r.peer, r.fromPeer) })
	stop := make(chan struct{})
	tasks.Go(func() { ended <- r.tend(alive, stop) })
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.b.note(State{Peer: address, Why: "the connection has ended"})
	close(stop)
	r.peer.leave()
	r.local.leave()
	tasks.Wait()
	return err
}

// pump reads from a broker and has each packet handled. What that wrote is flushed when
// there is nothing more to read at once, or only a part of a packet.
func (r *relay) pump(from *end, handle func(first byte, body []byte) error) error {
	from.idle = func() error {
		if err := r.localWrote(r.local.flush()); err != nil {
			return err
		}
		return r.peerWrote(r.peer.flush())
	}
	for {
		first, body, err := from.read()
		if err == nil {
			err = handle(first, body)
		}
		if err != nil {
			return r.sort(from, err)
		}
	}
}

// sort says whose fault an error is.
func (r *relay) sort(from *end, err error) error {
	if _, done := errors.AsType[*failed](err); done || errors.Is(err, errMoved) {
		return err
	}
	err = fmt.Errorf("%s: %w", from.who, err)
	if from == r.local {
		return &failed{FailLocal, err, ""}
	}
	return readFailed(err)
}

// retryTime is after how long filters that were refused are asked for again.
const retryTime = 30 * time.Second

// tend keeps the connections alive, and sees to it that the peer does what it owes us and
// that this node is still to run the bridge.
func (r *relay) tend(alive time.Duration, stop <-chan struct{}) error {
	c := &r.b.c
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	hereAlive := time.Duration(r.local.limits.alive) * time.Second
	began := c.Now()
	pinged := [2]time.Time{began, began}
	retried := began
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		if !c.Lead() {
			return errMoved
		}
		now := c.Now()
		if now.Sub(began) > settled {
			r.b.causes.over()
		}
		for i, e := range []*end{r.local, r.peer} {
			every := [2]time.Duration{hereAlive, alive}[i] * 3 / 4
			if every == 0 || now.Sub(pinged[i]) < every {
				continue
			}
			pinged[i] = now
			if e == r.peer {
				r.pings.Add(1) // one that is not sent, for something else is, may be answered all the same
			}
			if err := e.ping(); err != nil {
				return r.sort(e, err)
			}
		}
		if err := r.checkOwed(now); err != nil {
			return err
		}
		if now.Sub(retried) >= retryTime {
			retried = now
			if err := r.subscribeAgain(); err != nil {
				return readFailed(err)
			}
		}
	}
}

// checkOwed fails if the peer has not acknowledged something for too long.
func (r *relay) checkOwed(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, x := range r.out {
		if !x.since.IsZero() && now.Sub(x.since) > r.b.c.AckTimeout {
			return &failed{FailTimeout, fmt.Errorf("the peer has not acknowledged packet %d for %v", id, r.b.c.AckTimeout), "look at the peer: it takes events and does not answer; ack_timeout says how long is waited"}
		}
	}
	return nil
}

// subscribePiece bounds the bytes of one SUBSCRIBE's filters, so that the packet is
// one that every broker takes.
const subscribePiece = 2 << 10

// subscribe asks both brokers for what the bridge carries, and ours to forget the rest.
//
// A peer of MQTT 3.1.1 sends what it retains each time it is asked, in whatever order to what
// is queued; so if it has the session in which this process has asked, it is not.
func (r *relay) subscribe() error {
	wants := filtersOf(r.b.outs)
	var old []string
	for _, f := range r.b.c.Session().Filters {
		if !slices.ContainsFunc(wants, func(w wanted) bool { return w.filter == f }) {
			old = append(old, f)
		}
	}
	for piece := range slices.Chunk(old, 8) {
		id := r.nextAsk()
		if err := r.local.write(func(b []byte) []byte { return appendUnsubscribe(b, id, piece, 5) }); err != nil {
			return err
		}
	}
	if err := r.request(atLocal, wants); err != nil {
		return err
	}
	if r.peer.version == 5 || !r.present || !r.b.subscribed.Load() {
		if err := r.request(atPeer, filtersOf(r.b.ins)); err != nil {
			return err
		}
	}
	if err := r.local.flush(); err != nil {
		return err
	}
	return r.peer.flush()
}

// subscribeAgain asks those again that have refused something: what they allow may have
// changed.
func (r *relay) subscribeAgain() error {
	r.mu.Lock()
	again := r.refused
	r.refused = [2]bool{}
	r.mu.Unlock()
	for at, ways := range [2][]way{r.b.outs, r.b.ins} {
		if !again[at] {
			continue
		}
		if err := r.request(at, filtersOf(ways)); err != nil {
			return err
		}
	}
	if err := r.local.flush(); err != nil {
		return err
	}
	return r.peer.flush()
}

// nextAsk returns the packet id of another request, from the end of the range: those of
// events begin at its beginning, and brokers keep the two apart.
func (r *relay) nextAsk() uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask--
	if r.ask < 60_000 {
		r.ask = 65_535
	}
	return r.ask
}

// request sends SUBSCRIBEs for filters to one of the brokers.
func (r *relay) request(at int, filters []wanted) error {
	e := [2]*end{r.local, r.peer}[at]
	for len(filters) > 0 {
		n, size := 1, len(filters[0].filter)
		for n < len(filters) && size+len(filters[n].filter) < subscribePiece {
			size += len(filters[n].filter)
			n++
		}
		a := asked{r.nextAsk(), filters[:n]}
		filters = filters[n:]
		r.mu.Lock()
		r.asks[at] = append(r.asks[at], a)
		r.mu.Unlock()
		if err := e.write(func(b []byte) []byte { return appendSubscribe(b, a.id, a.filters, e.version) }); err != nil {
			return err
		}
	}
	return nil
}

// takeSuback takes note of what a broker says of filters.
func (r *relay) takeSuback(at int, body []byte) error {
	e := [2]*end{r.local, r.peer}[at]
	id, codes, why, err := parseSuback(body, e.version)
	if err != nil {
		return err
	}
	r.mu.Lock()
	i := slices.IndexFunc(r.asks[at], func(a asked) bool { return a.id == id })
	if i < 0 || len(codes) != len(r.asks[at][i].filters) {
		r.mu.Unlock()
		return malformed("a SUBACK of what was not asked")
	}
	filters := r.asks[at][i].filters
	r.asks[at] = slices.Delete(r.asks[at], i, i+1)
	r.mu.Unlock()
	for i, code := range codes {
		if code < 0x80 {
			continue
		}
		r.mu.Lock()
		r.refused[at] = true
		r.mu.Unlock()
		r.b.stats.failed[FailSubscribe].Add(1)
		todo := "allow the bridge's principal to subscribe to it, in the policy here"
		if at == atPeer {
			todo = "allow it in the peer's access control"
		}
		level, _ := r.b.causes.level(fmt.Sprint("subscription ", at, filters[i].filter, code), r.b.c.Now())
		r.b.c.Logger.Log(context.Background(), level, "a subscription of the bridge is refused; its other topics go on, and it is asked for again",
			"bridge", r.b.c.Name, "by", e.who, "filter", filters[i].filter, "err", codeText(code, why), "again_in", retryTime.String(), "todo", todo)
	}
	if at == atPeer {
		r.mu.Lock()
		done := len(r.asks[atPeer]) == 0 && !r.refused[atPeer]
		r.mu.Unlock()
		if done {
			r.b.subscribed.Store(true)
		}
	}
	return nil
}

// drop counts an event that is not carried, and tells the operator now and then.
func (r *relay) drop(why Drop, topic, reason string) {
	r.b.stats.dropped[why].Add(1)
	if unlogged, ok := r.b.dropLog.note(r.b.c.Now()); ok {
		topic = strings.ToValidUTF8(topic[:min(len(topic), 200)], "\uFFFD") // a line, whatever it is
		r.b.c.Logger.Warn("an event is not carried by the bridge", "bridge", r.b.c.Name, "reason", dropNames[why], "topic", topic, "err", reason, "unlogged", unlogged)
	}
}

// notNow says whether a connection ended because one of the two takes an event not now.
func notNow(err error) bool {
	f, ok := errors.AsType[*failed](err)
	return ok && (f.kind == FailBusy || f.kind == FailLocal)
}

// refusal says what becomes of an event that a broker refuses: why it is dropped, or by what
// the connections end, so that it comes again.
func (r *relay) refusal(at int, a ack) (why Drop, err error) {
	e := [2]*end{r.local, r.peer}[at]
	kinds := [2]struct {
		refused, quota Drop
		kind           Failure
		todo           string
	}{
		{DropRefused, DropQuota, FailLocal, "what refuses says why; nothing more is carried until it is taken"},
		{DropByPeer, DropPeerQuota, FailBusy, "look at the peer: nothing more is carried until it takes the event"},
	}[at]
	fate := fateOf(a.code, a.why, at == atLocal || e.limits.origin != "")
	if fate == fateDoubt && r.b.doubts[at].drop(a.id, r.b.c.Now(), max(doubtTime, 2*r.b.c.RetryMax)) {
		if fate = fateRefused; a.code == 0x97 {
			fate = fateQuota
		}
	}
	switch fate {
	case fateRefused:
		return kinds.refused, nil
	case fateQuota:
		return kinds.quota, nil
	}
	return 0, &failed{kinds.kind, fmt.Errorf("%s takes an event not now: %s", e.who, codeText(a.code, a.why)), kinds.todo}
}
