package mqtt

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/proxyproto"
	"github.com/bellwire/bellwire/broker/websocket"
)

// A session is what a connection asks of its broker.Session.
type session interface {
	Start(w *broker.Wave)
	Publish(ev *event.Event, packetID uint16, c broker.Completer, tag uint64, w *broker.Wave) (logged bool, err error)
	Took(packetID uint16) bool
	Release(packetID uint16, c broker.Completer, tag uint64) (logged bool, err error)
	SubscribeWith(subs []event.Subscription, options []byte, acknowledge func([]broker.SubResult, []byte, *broker.Wave))
	UnsubscribeNamed(filters, named []string) (existed []bool, err error)
	Settle(packetID uint16, what broker.Settlement, w *broker.Wave) error
	Drained(w *broker.Wave)
	CloseFor(why uint8, willToo, setExpiry bool, expiry uint32)
}

// lingerTime is how long a client that we have told goodbye may take to hang
// up. Closing at once would reset the connection if the client had sent more,
// and a reset can overtake our last word.
const lingerTime = time.Second

// lingerBytes is how much a client may still send us in that time: the rest of
// a packet that is too large, as a rule.
const lingerBytes = 1 << 20

// A conn is one client's connection: the protocol's state, and the client's
// broker.Sink and broker.Completer.
//
// One goroutine reads: it parks in the transport without a buffer, handles
// what has come, flushes what that made dirty, and parks again. It alone calls
// the session (but for Drained), and it alone ends the connection for good:
// others only begin the end (see End) and wake it.
//
// Any goroutine may queue output, under mu. Whoever made the connection dirty
// flushes it; while the socket is full one goroutine, drain, does nothing but
// write. No write happens under mu, and writing says whose turn it is.
//
// Lock order: the broker's locks, then mu, then the wheel's.
type conn struct {
	srv        *Server
	tr         transport
	prev, next *conn // in the server's list, under its lock
	addr       address
	by         *served // that accepted it
	limits     *Limits // as they were then: what the client is told stays so as long as it is here

	// What CONNECT said and CONNACK answered; written before connected.
	client      string
	version     byte
	bridge      bool   // of 3.1.1 or 3.1, and what it subscribes to comes as to one; see parseVersion
	keepAlive   int64  // in ticks, 0 for none
	maxPacket   int    // largest packet that the client takes
	aliasMax    int    // topic aliases that we may use towards it
	expiry      uint32 // Session Expiry Interval in force
	problemInfo bool   // it may be sent Reason Strings
	method      string // of enhanced authentication; empty for none
	principal   string // that was proved; empty for anonymous

	// Of the reading goroutine.
	accepted   bool      // CONNACK with success is queued
	inBroker   bool      // within a call of the broker: a panic is not ours alone
	hungry     bool      // the last read filled its buffer
	partial    []byte    // the beginning of a packet whose rest has not come
	aliases    []string  // topic aliases of the client, by number less 1
	aliasBytes int       // of their topics
	left       left      // what the client's DISCONNECT said
	publishes  bucket    // of Limits.MessageRate
	published  bucket    // of Limits.ByteRate
	paced      *Limits   // those that these two, and rates, are of
	rates      Rates     // of the client's principal
	auth       *exchange // enhanced authentication under way, nil for none

	timer timer    // under the wheel's lock
	life  lifetime // under the lifetimes' lock

	seen atomic.Int64 // tick at which the last complete packet was handled
	busy atomic.Bool  // handling input, and not waiting for the client

	mu            sync.Mutex // guards the following
	session       session    // nil until CONNECT is accepted
	connected     bool       // CONNACK with success is queued, and the end has not begun
	ending        bool       // nothing is queued any more
	why           uint8      // why it has ended, as event.Disconnect has it
	said          bool       // our last word is queued: CONNACK or DISCONNECT
	closed        bool       // the transport is closed
	marked        bool       // in a wave, or held: somebody will flush
	held          bool       // the holder will
	writing       bool       // somebody writes, and will see what is queued meanwhile
	finished      bool       // our half of the stream is closed
	full          bool       // the session was told Full and awaits Drained
	lingerAt      int64      // tick at which the transport is closed; 0 before the end
	authBy        int64      // tick by which a re-authentication has to be over; 0 for none
	progress      int64      // tick at which the socket last took something, while it is full
	out           output
	vecs          [][]byte   // of the write under way
	sent          [16]uint32 // packets queued, by type, not yet in Stats
	sentPayload   uint64     // bytes of payloads in them
	acks          acks
	aliasOut      map[string]uint16 // topics that the client knows by alias
	aliasOutBytes int               // of them
	changed       *sync.Cond        // for the reader to wait on; nil until it does
}

// left is what a client said in its DISCONNECT.
type left struct {
	code      byte
	setExpiry bool
	expiry    uint32
}

// Errors that end the reading goroutine without anything to say.
var (
	errLeft   = errors.New("client disconnected")
	errSilent = errors.New("not MQTT")
	errEnded  = errors.New("connection ended")
)

// serve is the reading goroutine.
func (c *conn) serve() {
	defer c.srv.wg.Done()
	err := c.run()
	c.finish(err)
}

// run reads and handles until the connection ends.
func (c *conn) run() error {
	for {
		in, err := c.tr.read(c.hungry)
		if err != nil {
			return err
		}
		if err := c.handleInput(in); err != nil {
			return err
		}
		if c.tr.owes() {
			c.mu.Lock()
			c.flush()
		}
		if err := c.awaitOutput(); err != nil {
			return err
		}
	}
}

// handleInput handles what was read and flushes what that made dirty.
//
// A panic in the protocol's own code ends this connection and is logged; one
// that comes out of the broker may have left shared state in pieces, so it
// goes on and ends the process.
func (c *conn) handleInput(in *input) (err error) {
	c.busy.Store(true)
	defer func() {
		if !c.inBroker {
			if r := recover(); r != nil {
				c.srv.stats.Panics.Add(1)
				c.srv.logger.Error("connection ended by a bug of ours", "client", c.client, "panic", r, "stack", string(debug.Stack()))
				err = &fault{codeUnspecified, "internal error"}
			}
		}
		c.count(in)
		in.wave.Flush()
		in.release()
		c.busy.Store(false)
	}()
	return c.consume(in)
}

// debug logs about this connection. There is nothing above Debug for what a
// client can do as often as it likes: that is counted.
func (c *conn) debug(msg string, args ...any) {
	if c.srv.logger.Enabled(context.Background(), slog.LevelDebug) {
		c.srv.logger.Debug(msg, append([]any{"client", c.client, "addr", c.tr.remote()}, args...)...)
	}
}

// count adds to Stats what was handled of one input.
func (c *conn) count(in *input) {
	c.srv.stats.BytesIn.Add(uint64(in.n))
	for t, n := range in.packets {
		if n > 0 {
			c.srv.stats.PacketsIn[t].Add(uint64(n))
		}
	}
	if in.payload > 0 {
		c.srv.stats.PayloadIn.Add(in.payload)
	}
	in.packets, in.payload = [16]uint32{}, 0
}

// awaitOutput holds the reader while too much waits for the socket: who does
// not take its answers may not ask for more.
func (c *conn) awaitOutput() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.n > 2*c.srv.limits.Load().Output && !c.ending {
		c.busy.Store(true) // we do not read, so its keep alive does not run
		c.wait()
		c.busy.Store(false)
		c.seen.Store(c.srv.wheel.now.Load())
	}
	if c.ending {
		return errEnded
	}
	return nil
}

// wait parks the reader until something has changed. With mu held.
func (c *conn) wait() {
	if c.changed == nil {
		c.changed = sync.NewCond(&c.mu)
	}
	c.changed.Wait()
}

// wakeReader ends the reader's wait. With mu held.
func (c *conn) wakeReader() {
	if c.changed != nil {
		c.changed.Signal()
	}
}

// End closes the connection for cause; see broker.Sink.
func (c *conn) End(cause error) {
	code, reason := endCode(cause)
	c.end(code, reason)
}

// end begins the end, if it has not begun, and tells the client.
func (c *conn) end(code byte, reason string) {
	c.mu.Lock()
	c.beginEnd(endTold, code, reason)
	c.mu.Unlock()
	c.Flush()
}

// How a connection ends.
type endKind uint8

const (
	endTold endKind = iota // we end it
	endLeft                // the client has sent DISCONNECT
	endLost                // the stream broke, or the client closed it
)

// beginEnd queues our last word, if there is one to say and the client's
// protocol knows it, closes the queue and wakes the reader, which does the
// rest. Somebody has to flush. With mu held.
func (c *conn) beginEnd(how endKind, code byte, reason string) {
	if c.ending {
		return
	}
	if c.connected {
		stats := &c.srv.stats
		stats.Clients.Add(-1)
		if how == endLost {
			stats.Lost.Add(1)
		} else {
			stats.Ends[code].Add(1)
		}
		if how == endTold && c.version == 5 {
			c.putDisconnect(code, reason)
			c.said = true
		}
	}
	switch c.why = code; {
	case how == endLost:
		c.why = event.ReasonLost
	case code == codeSuccess:
		c.why = event.ReasonNormal
	}
	c.ending, c.connected = true, false
	c.lingerAt = c.srv.wheel.now.Load() + ticks(lingerTime)
	c.srv.wheel.set(&c.timer, c.lingerAt)
	c.wakeReader()
	c.tr.wake()
}

// finish is the last act of the reading goroutine, which ended with err.
func (c *conn) finish(err error) {
	var f *fault
	switch {
	case errors.As(err, &f):
		c.debug("client broke the protocol", "err", f)
		c.end(f.code, f.why)
	case errors.Is(err, errLeft):
		c.mu.Lock()
		c.beginEnd(endLeft, c.left.code, "")
		c.mu.Unlock()
	case errors.Is(err, errEnded), errors.Is(err, errWoken):
		// Somebody else has begun the end.
	default:
		c.countLost(err)
		c.mu.Lock()
		c.beginEnd(endLost, 0, "")
		c.mu.Unlock()
	}
	if c.session != nil {
		normal := errors.Is(err, errLeft) && c.left.code == codeSuccess
		c.mu.Lock()
		why := c.why
		c.mu.Unlock()
		c.session.CloseFor(why, !normal, c.left.setExpiry, c.left.expiry)
	}
	c.linger(err)
	c.close(false)
	c.srv.remove(c)
	if c.accepted {
		c.noteEnd()
	}
}

// countLost counts what a connection broke on before it came to MQTT, and tells the
// operator of a handshake that failed: it is mostly certificates, which are theirs.
func (c *conn) countLost(err error) {
	stats := &c.srv.stats
	switch {
	case errors.Is(err, proxyproto.ErrHeader):
		stats.TurnedAway[TurnawayProxy].Add(1)
		c.srv.noProxy(c.by, c.tr.remote(), "it begins with no header of the PROXY protocol",
			"have the proxy send one (HAProxy: send-proxy-v2), or take proxy off the listener if clients connect to it themselves")
	case errors.Is(err, websocket.ErrRefused):
		stats.WebSocketsRefused.Add(1)
		c.debug("WebSocket refused", "err", err)
	}
	h, ok := errors.AsType[*handshakeError](err)
	if !ok {
		return
	}
	stats.TLSFailed.Add(1)
	if reason, ok := errors.AsType[interface {
		error
		LoginReason() string
	}](h.err); ok { // our own, of the client's certificate
		c.srv.loginFailed("", "", c.addr, reason)
		return
	}
	if unlogged, ok := c.srv.handshakeLog.note(c.srv.wheel.now.Load()); ok {
		c.srv.logger.Info("a TLS handshake failed", "listener", c.by.Name, "addr", c.addr.network(), "err", h.err, "unlogged", unlogged)
	}
}

// linger reads what the client still sends, and throws it away, until it hangs
// up or lingerTime is over (see expire).
func (c *conn) linger(err error) {
	c.mu.Lock()
	said := c.said && !c.closed
	c.mu.Unlock()
	if !said || errors.Is(err, io.EOF) {
		c.mu.Lock()
		c.flush() // acknowledgements that were queued before the end, as far as the socket takes them
		return
	}
	c.tr.calm()
	for n := 0; n < lingerBytes; {
		in, err := c.tr.read(false)
		if err != nil {
			return
		}
		n += in.n
		in.release()
	}
}

// close closes the transport and lets go of the output.
func (c *conn) close(reset bool) {
	c.mu.Lock()
	first := c.shut()
	c.mu.Unlock()
	if first {
		c.tr.close(reset)
	}
}

// shut marks the connection closed and says whether the caller is the first,
// and has to close the transport. It does so without mu: closing waits for
// reads and writes to let go of the socket. With mu held.
func (c *conn) shut() (first bool) {
	if c.closed {
		return false
	}
	c.closed, c.ending = true, true
	c.out.drop(c.writing)
	c.srv.wheel.set(&c.timer, 0)
	c.wakeReader()
	return true
}

// expire is called by the wheel when the timer fires. It ends what has waited
// too long and sets the timer to what comes next.
func (c *conn) expire(now int64) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	if c.ending && now >= c.lingerAt {
		reset := c.out.n > 0
		c.mu.Unlock()
		c.close(reset)
		return
	}
	code, reason := c.overdue(now)
	if code != codeSuccess {
		c.beginEnd(endTold, code, reason)
	} else {
		c.acks.shrink(true)
		c.srv.wheel.set(&c.timer, c.nextDeadline(now))
	}
	c.mu.Unlock()
	if code != codeSuccess {
		c.Flush()
	}
}

// overdue says whether the client has used up the time it had, and the code
// for that. With mu held.
func (c *conn) overdue(now int64) (code byte, reason string) {
	if c.writing && now >= c.progress+ticks(c.srv.limits.Load().SlowTimeout) {
		c.srv.stats.Over[OverSlow].Add(1)
		return codeQuota, "client takes nothing of what it is sent"
	}
	if c.busy.Load() {
		return codeSuccess, ""
	}
	if c.authBy > 0 && now >= c.authBy {
		return codeNotAuthorized, "re-authentication took too long"
	}
	if limit := c.patience(); limit > 0 && now >= c.seen.Load()+limit {
		if c.connected {
			return codeKeepAlive, "no packet for one and a half times the keep alive"
		}
		c.srv.stats.Over[OverConnectTimeout].Add(1)
		return codeUnspecified, "no CONNECT in time"
	}
	return codeSuccess, ""
}

// patience is how many ticks may pass without a packet; 0 for any number.
func (c *conn) patience() int64 {
	if c.session == nil {
		return ticks(c.limits.ConnectTimeout)
	}
	return c.keepAlive
}

// nextDeadline is the tick to look again at, 0 for never. With mu held.
func (c *conn) nextDeadline(now int64) int64 {
	if c.ending {
		return c.lingerAt
	}
	var at int64
	if limit := c.patience(); limit > 0 {
		at = c.seen.Load() + limit
		if c.busy.Load() {
			at = now + limit
		}
	}
	if c.authBy > 0 && (at == 0 || c.authBy < at) {
		at = c.authBy
	}
	if c.writing {
		slow := c.progress + ticks(c.srv.limits.Load().SlowTimeout)
		if at == 0 || slow < at {
			at = slow
		}
	}
	return at
}

// handle handles one packet of a client that is connected, or its CONNECT.
func (c *conn) handle(in *input, first byte, body []byte) error {
	packet := first >> 4
	in.packets[packet]++
	switch {
	case !c.accepted && c.auth != nil:
		return c.handleBeforeConnack(in, packet, body)
	case !c.accepted:
		return c.handleConnect(in, first, body)
	}
	switch packet {
	case packets.Publish:
		if err := c.pace(in, len(body)); err != nil {
			return err
		}
		return c.handlePublish(in, first, body)
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		return c.handleSettle(in, packet, body)
	case packets.Pubrel:
		return c.handlePubrel(in, body)
	case packets.Subscribe:
		return c.handleSubscribe(in, body)
	case packets.Unsubscribe:
		return c.handleUnsubscribe(in, body)
	case packets.Pingreq:
		return c.handlePing(in, body)
	case packets.Disconnect:
		return c.handleDisconnect(body)
	case packets.Auth:
		return c.handleAuth(in, body)
	}
	return protocolError("a second CONNECT")
}
