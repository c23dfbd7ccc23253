package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Bridge carries events between our broker and its peer, while this node leads. All of it
// but Run may be called from any goroutine.
type Bridge struct {
	c         Config
	outs, ins []way
	stats     Stats

	// Of Run's goroutine.
	next     int    // of Addresses
	tried    string // the last of them that was
	plain    bool   // the peer does not know the bit for bridges
	prepared bool   // our session has what is to go out, from now on
	swept    bool   // the peer has released all ids, and our session is still to be begun

	subscribed atomic.Bool // in this life, to all; see relay.subscribe
	dropLog    logPace
	connectLog logPace
	causes     causes
	doubts     [2]doubt // of our broker, of the peer

	mu sync.Mutex // guards the following
	is State
}

// A State is how a bridge is on the node that runs it.
type State struct {
	Connected bool
	Since     time.Time // when it became so; zero if it was never tried
	Peer      string    // the address that it is connected to, or was tried last

	// Why says in words why there is no connection, Todo what to do about it. They are
	// empty while there is one.
	Why, Todo string
}

// New returns a bridge, which does nothing before Run.
func New(c Config) *Bridge {
	return &Bridge{c: c, outs: waysOf(c.Topics, Out), ins: waysOf(c.Topics, In), dropLog: logPace{every: time.Minute}, connectLog: logPace{every: time.Minute}}
}

// Name returns the operator's name of the bridge.
func (b *Bridge) Name() string { return b.c.Name }

// Stats returns the bridge's counters, which go on counting.
func (b *Bridge) Stats() *Stats { return &b.stats }

// State returns how the bridge is here: zero where it does not run.
func (b *Bridge) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.is
}

// note takes note of how the bridge is, and since when.
func (b *Bridge) note(is State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if is.Since = b.is.Since; is.Connected != b.is.Connected || b.is.Since.IsZero() {
		is.Since = b.c.Now()
	}
	b.is = is
}

// off takes note that the bridge is not this node's to run.
func (b *Bridge) off() {
	b.mu.Lock()
	b.is = State{}
	b.mu.Unlock()
}

// Running says whether this node is the one that is to have them.
func (b *Bridge) Running() bool { return b.c.Lead() }

// Waiting returns how many events wait to be carried to the peer, acknowledged to nobody
// but their publishers.
func (b *Bridge) Waiting() uint64 { return b.c.Session().Waiting }

// A failed is why a connection could not be had, or ended.
type failed struct {
	kind Failure
	err  error
	todo string // what to do about it; empty if it may pass by itself
}

func (f *failed) Error() string { return f.err.Error() }
func (f *failed) Unwrap() error { return f.err }

var (
	errMoved = errors.New("another node runs the bridge")
	errAgain = errors.New("once more, at once")
)

// Times of connecting. A pause between two tries is a random part of its length, from half
// of it on, so that many who lost one peer do not come back at once.
const (
	dialTime   = 10 * time.Second
	firstPause = 500 * time.Millisecond
	settled    = 30 * time.Second // a connection that has lasted so long was a good one
	lookTime   = 250 * time.Millisecond
)

// Run runs the bridge until ctx is done, and returns when it has left both brokers.
func (b *Bridge) Run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		if !b.c.Lead() {
			b.off()
			sleep(ctx, lookTime)
			continue
		}
		began, carried := b.c.Now(), b.stats.carried()
		err := b.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errAgain):
			continue
		case errors.Is(err, errMoved):
			b.off()
			b.c.Logger.Info("this node does not run the bridge any more", "bridge", b.c.Name)
			sleep(ctx, lookTime)
			continue
		}
		if b.c.Now().Sub(began) > settled || notNow(err) && b.stats.carried() > carried { // then some are taken, at a rate
			pause = firstPause
		}
		wait := pause/2 + rand.N(pause/2)
		pause = min(2*pause, max(b.c.RetryMax, firstPause))
		b.tell(ctx, err, wait)
		b.rest(ctx, wait)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// rest is sleep that ends early when this node is not to run the bridge any more.
func (b *Bridge) rest(ctx context.Context, d time.Duration) {
	until := b.c.Now().Add(d)
	for ctx.Err() == nil && b.c.Lead() {
		left := until.Sub(b.c.Now())
		if left <= 0 {
			return
		}
		sleep(ctx, min(left, lookTime))
	}
}

// once connects to both brokers and carries events until one of the connections ends.
func (b *Bridge) once(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	address := b.c.Addresses[b.next%len(b.c.Addresses)]
	b.next++
	b.tried = address
	peer, err := b.connectPeer(ctx, address)
	if err != nil {
		return err
	}
	defer peer.conn.Close()
	if b.c.Origin != "" && peer.limits.origin == b.c.Origin {
		peer.leave()
		return &failed{FailRefused, fmt.Errorf("%s is this very broker, or another node of its cluster", peer.who), "set address of the bridge to another broker's: everybody here would get again what is carried from here to here"}
	}
	b.next-- // it is there: the next try is for the same one
	here := b.c.Session()
	if peer.limits.present && !here.Met() && !b.swept {
		if err := b.sweep(ctx, peer); err != nil {
			return err
		}
		b.swept = true
		return errAgain
	}
	local, err := b.connectLocal(ctx, min(b.c.Window, peer.limits.receive, unmet-1))
	if err != nil {
		return err
	}
	defer local.conn.Close()
	b.swept = false
	b.stats.Connects.Add(1)
	r := newRelay(b, local, peer, here)
	return r.run(ctx, address)
}

// connectPeer returns a connection to the peer that has let us in.
func (b *Bridge) connectPeer(ctx context.Context, address string) (*end, error) {
	c := &b.c
	secret := []byte(nil)
	if c.Secret != nil {
		var err error
		if secret, err = c.Secret(); err != nil {
			return nil, &failed{FailRefused, err, "the password is read before each try: mend the file and wait"}
		}
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := c.Dial(dialCtx, address)
	if err != nil {
		return nil, dialFailed(err, address)
	}
	if !c.Confirm(dialCtx) {
		conn.Close()
		return nil, errMoved
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // who is to leave need not wait for an answer
	defer stop()
	peer := newEnd(conn, "the peer "+address, c.MaxPacket, c.Now)
	ask := connect{
		version: c.Version, bridge: c.Version < 5 && !c.NoPrivate && !b.plain, clean: c.Clean, client: c.Client, user: c.User, secret: secret,
		alive: uint16(c.KeepAlive / time.Second), receive: uint16(c.Window), most: uint32(c.MaxPacket), expiry: c.Expiry, origin: c.Origin,
	}
	if c.Clean {
		ask.expiry = 0
	}
	if err = peer.connect(ask, dialTime); err == nil {
		return peer, nil
	}
	conn.Close()
	r, refused := errors.AsType[*refusal](err)
	if ask.bridge && (refused && r.code == 0x84 || !refused && errors.Is(err, io.EOF)) {
		b.plain = true // from now on without the bit, as if it had been asked not to
		c.Logger.Info("the peer does not know bridges of MQTT 3.1.1: what the bridge publishes there comes back where it subscribes to it", "bridge", c.Name)
		return nil, errAgain
	}
	return nil, peerFailed(err, address, refused, r, c)
}

// peerFailed says what became of a CONNECT to the peer, and what to do about it.
func peerFailed(err error, address string, refused bool, r *refusal, c *Config) error {
	err = fmt.Errorf("%s: %w", address, err)
	switch {
	case !refused && errors.Is(err, io.EOF):
		return &failed{FailLost, err, "it hangs up instead of answering CONNECT: does it want TLS (tls of the bridge), is it one of MQTT " + versionNames[c.Version] + "?"}
	case !refused:
		return readFailed(err)
	case r.code == 0x84:
		return &failed{FailRefused, err, fmt.Sprintf("the peer has no MQTT %s: set protocol of the bridge to another one", versionNames[c.Version])}
	case r.code == 0x86, r.code == 0x87:
		return &failed{FailRefused, err, "look at user and password_file of the bridge, and at what the peer allows client " + c.Client}
	case r.code == 0x85:
		return &failed{FailRefused, err, "set client_id of the bridge to one that the peer takes"}
	}
	return &failed{FailRefused, err, ""}
}

var versionNames = map[byte]string{5: "5", 4: "3.1.1", 3: "3.1"}

// readFailed sorts what reading from the peer, or writing to it, failed with.
func readFailed(err error) error {
	var timeout net.Error
	if _, done := errors.AsType[*failed](err); done {
		return err
	}
	if f := tlsFailed(err); f != nil {
		return f
	}
	switch {
	case errors.Is(err, errMalformed):
		return &failed{FailProtocol, err, "what the peer sends is no MQTT of the bridge's protocol: is the address one of a broker? does that want TLS?"}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &failed{FailTimeout, err, ""}
	}
	return &failed{FailLost, err, ""}
}

// Prepare has our session begin, if this node is to run the bridge, so that what is published
// from then on waits for the peer. Run does so itself when it can; this is for who wants to
// know that it is done. To be called before Run.
func (b *Bridge) Prepare(ctx context.Context) error {
	if !b.c.Lead() {
		return nil
	}
	return b.prepare(ctx)
}

// prepare sees to it that our session has what is published for the peer, before that has been
// met for the first time.
func (b *Bridge) prepare(ctx context.Context) error {
	wants, here := filtersOf(b.outs), b.c.Session()
	missing := slices.ContainsFunc(wants, func(w wanted) bool { return !slices.Contains(here.Filters, w.filter) })
	if b.prepared || !missing {
		return nil
	}
	receive := unmet
	if here.Met() {
		receive = min(b.c.Window, unmet-1)
	}
	local, err := b.connectLocal(ctx, receive)
	if err != nil {
		return err
	}
	defer local.leave()
	stop := context.AfterFunc(ctx, func() { local.conn.Close() })
	defer stop()
	r := &relay{b: b, local: local}
	err = r.request(atLocal, wants)
	if err == nil {
		err = local.flush()
	}
	for err == nil && len(r.asks[atLocal]) > 0 {
		var first byte
		var body []byte
		if first, body, err = local.read(); err == nil && first>>4 == typeSuback {
			err = r.takeSuback(atLocal, body) // events come again, when the peer is there
		}
	}
	if err != nil {
		return r.sort(local, err)
	}
	b.prepared = true
	return nil
}

// connectLocal returns a connection to our own broker, by which no more is under way at once
// than receive.
func (b *Bridge) connectLocal(ctx context.Context, receive int) (*end, error) {
	c := &b.c
	conn, err := c.Local(ctx)
	if err != nil {
		return nil, &failed{FailLocal, err, ""}
	}
	// An event that came in with the largest packet may be larger with what is said
	// of subscriptions and hops.
	most := c.MaxPacket + readBuffer
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	local := newEnd(conn, "our own broker", most, c.Now)
	err = local.connect(connect{
		version: 5, client: c.LocalClient, receive: uint16(receive), most: uint32(most), expiry: math.MaxUint32,
	}, dialTime)
	if err == nil {
		local.patience = 0
		return local, nil
	}
	conn.Close()
	todo := ""
	if r, refused := errors.AsType[*refusal](err); refused && r.code == 0x87 {
		todo = "client id " + c.LocalClient + " belongs to somebody else here, or the bridge's principal has changed: end that session and what waits in it (bellwire kick " + c.LocalClient + " --drop-session), or give the bridge another name"
	}
	return nil, &failed{FailLocal, fmt.Errorf("our own broker: %w", err), todo}
}

// sweepPiece is how many ids are released at the peer at a time.
const sweepPiece = 256

// sweep releases all packet ids that the peer may hold from a session of ours that is no
// more: an event under one of them would be taken for one that came before. The connection
// is then no good for anything else; what it brought meanwhile the peer sends again.
//
// The peer may owe each piece no longer than it may owe anything, whatever it says meanwhile.
func (b *Bridge) sweep(ctx context.Context, peer *end) error {
	stop := context.AfterFunc(ctx, func() { peer.conn.Close() })
	defer stop()
	b.c.Logger.Info("the peer has a session of this bridge and we do not: packet ids that it may hold are released", "bridge", b.c.Name)
	for from := 1; from <= math.MaxUint16; from += sweepPiece {
		to := min(from+sweepPiece-1, math.MaxUint16)
		for id := from; id <= to; id++ {
			if err := peer.ack(typePubrel, uint16(id), 0); err != nil {
				return readFailed(err)
			}
		}
		if err := peer.flush(); err != nil {
			return readFailed(err)
		}
		began := b.c.Now()
		for owed := to - from + 1; owed > 0; {
			switch {
			case !b.c.Lead():
				return errMoved
			case b.c.Now().Sub(began) > b.c.AckTimeout:
				return &failed{FailTimeout, fmt.Errorf("the peer has not released packet ids for %v", b.c.AckTimeout), "look at the peer: it does not answer PUBREL; ack_timeout says how long is waited"}
			}
			first, _, err := peer.read()
			if err != nil {
				return readFailed(fmt.Errorf("while packet ids are released: %w", err))
			}
			if first>>4 == typePubcomp {
				owed--
			}
		}
	}
	return nil
}

// A logPace lets one line through each so often, and counts the others.
type logPace struct {
	every time.Duration

	mu       sync.Mutex // guards the following
	at       time.Time
	unlogged int
}

func (p *logPace) note(now time.Time) (unlogged int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.at) < p.every {
		p.unlogged++
		return 0, false
	}
	unlogged, p.unlogged, p.at = p.unlogged, 0, now
	return unlogged, true
}
