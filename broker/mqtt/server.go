package mqtt

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// Config is what a Server is made of. All but Limits is required, unless the
// field says otherwise.
type Config struct {
	Broker *broker.Broker
	Limits Limits

	// Clock is the node's: by it a publish's Message Expiry Interval becomes
	// an instant.
	Clock broker.Clock

	// Ticks tells the time by which clients are held to their keep alive and
	// the like, every Tick: a time.Ticker's channel, or a test's. It must not
	// be the test clock of a node that stands still.
	Ticks <-chan time.Time

	Logger *slog.Logger

	// Authenticate returns who a client has proved to be, broker.ErrBadCredentials, which
	// may say to the operator what is wrong (LoginReason), or ErrUnavailable. It runs on
	// the connection's own goroutine and may take its time; it bounds itself how many run
	// at once. It is not asked for a client that shows neither user name, password nor a
	// certificate that counts (Certified): such a one is anonymous, and its Listener's Anonymous decides:
	// AllowAnonymous is that of Serve. nil means that no credentials are good; where
	// anonymous clients are let in they are not looked at.
	Authenticate   func(l Login) (Identity, error)
	AllowAnonymous bool

	// Certified says whether verified certificates count of clients that come by the
	// listener of that name. nil means that they do not.
	Certified func(listener string) bool

	// Claims returns whom a password says that it is of, if it does (as a signed token
	// says): tries of clients that name no user are counted by that. nil knows none.
	Claims func(password []byte) (user string)

	// Enhanced begins an exchange by an authentication method of MQTT 5 (5.0 4.12), with
	// a client that came by the way from says. nil, as of a nil Enhanced, means that the
	// method is not offered.
	Enhanced func(method string, from *ConnInfo) Exchange

	// Proved returns what it means that a client has proved to be principal by method, as
	// Authenticate does of a password: what the login shows beside it may say otherwise. nil:
	// that it is principal.
	Proved func(l Login, method, principal string) (Identity, error)

	// MayStay says whether who, that l proved to be, could come in by the same way under a
	// policy: see broker.Admitted. l has neither a user name nor a password. nil: always.
	MayStay func(policy broker.Authorizer, l Login, who Identity) bool
	// Reserved returns whose a client id is that only clients of Internal listeners may have;
	// empty of all others. It is asked at each CONNECT, by any goroutine, and must not block.
	// nil knows none.
	Reserved func(client string) (whose string)

	// Elsewhere returns the address of another server, host:port, for a client that
	// is sent away from this one (Server Reference, 5.0 4.11); empty if none is
	// known. It is asked for each such client, by any goroutine, and must not block.
	// nil knows none.
	Elsewhere func() string

	// Sockets is how many connections may be open at once, accepted or not, those of Internal
	// listeners left out; 0: as many as come. It is for processes that may open few files:
	// with none left the log could not go on.
	Sockets int

	// Origin is the id of this broker, all nodes of it, for bridges of others of our kind,
	// who ask for it in CONNECT (originProperty). Empty: none is told.
	Origin string
}

// ErrServerClosed is what Serve returns after Close.
var ErrServerClosed = errors.New("mqtt: server closed")

// A Server holds the connections of MQTT clients and drives a Broker for them.
type Server struct {
	limits         atomic.Pointer[Limits] // in force: see SetLimits
	begun          *Limits                // those at the start
	clock          broker.Clock
	logger         *slog.Logger
	authenticate   func(l Login) (Identity, error)
	certified      func(listener string) bool
	claims         func(password []byte) string
	allowAnonymous bool
	enhanced       func(method string, from *ConnInfo) Exchange
	proved         func(l Login, method, principal string) (Identity, error)
	mayStay        func(policy broker.Authorizer, l Login, who Identity) bool
	reserved       func(client string) string
	elsewhere      func() string
	origin         string
	sockets        int
	policy         func() broker.Authorizer // in force now
	shared         func() bool              // shared subscriptions are to be had
	connect        func(broker.ConnectRequest, broker.Sink) (s session, present bool, dropped uint64, err error)
	banned         func(client, user string, from netip.Addr) bool
	ban            func(context.Context, event.Ban) error

	stats        Stats
	wheel        *wheel
	holder       holder
	addresses    addresses
	connects     gate
	logins       logins
	loginLog     loginLog
	handshakeLog loginLog // of TLS
	proxyLog     loginLog // of listeners for proxies
	flaps        flaps
	flapLog      loginLog
	outlawed     chan struct{} // somebody is banned who was not, or a certificate revoked
	lifetimes    lifetimes
	clients      atomic.Int64 // admitted, also while the broker is asked
	draining     atomic.Bool  // new ones are turned away: see Drain

	mu         sync.Mutex // guards the following
	closing    bool
	listeners  map[net.Listener]struct{}
	conns      *conn // a list of all
	handshakes int   // of them, not accepted yet
	open       int   // of them, of listeners that are not Internal

	wg    sync.WaitGroup // of the connections' goroutines
	turns turns          // of TLS handshakes

	ends    chan struct{} // closed when Close begins
	stop    chan struct{} // closed when the wheel may stop
	stopped chan struct{} // closed when it has
	once    sync.Once     // closes stop
}

// New returns a Server that is ready to Serve, or every fault of the limits.
// It must be closed.
func New(cfg Config) (*Server, error) {
	s, err := newServer(cfg, func(r broker.ConnectRequest, sink broker.Sink) (session, bool, uint64, error) {
		s, present, dropped, err := cfg.Broker.Connect(r, sink)
		if err != nil {
			return nil, false, 0, err
		}
		return s, present, dropped, nil
	})
	if err == nil {
		s.policy, s.shared = cfg.Broker.Policy, cfg.Broker.SharedAvailable
		s.banned, s.ban = cfg.Broker.Banned, cfg.Broker.Ban
	}
	return s, err
}

func newServer(cfg Config, connect func(broker.ConnectRequest, broker.Sink) (session, bool, uint64, error)) (*Server, error) {
	limits, err := cfg.Limits.WithDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		begun:          &limits,
		clock:          cfg.Clock,
		logger:         cfg.Logger,
		authenticate:   cfg.Authenticate,
		certified:      cfg.Certified,
		claims:         cfg.Claims,
		allowAnonymous: cfg.AllowAnonymous,
		enhanced:       cfg.Enhanced,
		proved:         cfg.Proved,
		mayStay:        cfg.MayStay,
		reserved:       cfg.Reserved,
		elsewhere:      cfg.Elsewhere,
		origin:         cfg.Origin,
		sockets:        cfg.Sockets,
		policy:         func() broker.Authorizer { return nil },
		shared:         func() bool { return true },
		connect:        connect,
		banned:         nobodyBanned,
		ban:            noBan,
		outlawed:       make(chan struct{}, 1),
		wheel:          newWheel(),
		turns:          newTurns(),
		listeners:      map[net.Listener]struct{}{},
		ends:           make(chan struct{}),
		stop:           make(chan struct{}),
		stopped:        make(chan struct{}),
	}
	if s.reserved == nil {
		s.reserved = func(string) string { return "" }
	}
	if s.claims == nil {
		s.claims = func([]byte) string { return "" }
	}
	if s.enhanced == nil {
		s.enhanced = func(string, *ConnInfo) Exchange { return nil }
	}
	s.holder.wake = make(chan struct{}, 1)
	s.logins.seed, s.flaps.seed = maphash.MakeSeed(), maphash.MakeSeed()
	s.limits.Store(&limits)
	s.follow(&limits)
	go s.turn(cfg.Ticks)
	return s, nil
}

// Stats returns the server's counters, which go on counting.
func (s *Server) Stats() *Stats { return &s.stats }

// Limits returns what is in effect.
func (s *Server) Limits() Limits { return *s.limits.Load() }

// SetLimits puts other limits in force, or returns every fault they have and changes nothing.
//
// Nobody who is connected is sent away for it. Rates and timeouts hold for everybody from the
// next thing on that they are about, and begin anew where they are others: what was used of one
// rate says nothing of another. What CONNACK told a client, such as the size of packets, and how
// it has to connect, holds for connections from then on; and whatever this process itself
// connects by (Listener.As) is held to the limits of the start, by which it was made. For one
// goroutine at a time.
func (s *Server) SetLimits(l Limits) error {
	l, err := l.WithDefaults()
	if err != nil {
		return err
	}
	old := s.limits.Swap(&l)
	s.follow(&l)
	if l.ConnectRate != old.ConnectRate {
		s.connects.restart()
	}
	if l.PerAddressRate != old.PerAddressRate {
		s.addresses.restart()
	}
	return nil
}

// follow has those who keep a rate of their own follow the limits.
func (s *Server) follow(l *Limits) {
	s.logins.setRate(loginRate(l.FailedLogins))
	s.flaps.setRate(flapRate(l.FlapRate))
}

// limitsFor are those that a new connection is held to as long as it lasts.
func (s *Server) limitsFor(by *served) *Limits {
	if by.As != "" {
		return s.begun
	}
	return s.limits.Load()
}

// turn drives the wheel until the server is closed.
func (s *Server) turn(beat <-chan time.Time) {
	defer close(s.stopped)
	var holding sync.WaitGroup
	defer holding.Wait()
	holding.Go(func() { s.holder.run(s.stop) })
	holding.Go(func() { s.endOutlaws(s.stop) })
	for {
		select {
		case now := <-beat:
			if s.wheel.advance(now) > 0 {
				s.holder.tick(s.stats.Writes.Load(), s.stats.packetsOut())
				s.lifetimes.expire(s.clock)
			}
		case <-s.stop:
			return
		}
	}
}

// Listen returns a listener on a TCP address, for Serve. TCP's own keep alive
// is off: a thousand idle clients would make it a thousand packets every 15
// seconds, and MQTT has its own. For clients that use none it is turned on.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	return lc.Listen(ctx, "tcp", addr)
}

// Serve is ServeAs of a listener called mqtt, with Config.AllowAnonymous.
func (s *Server) Serve(l net.Listener) error {
	return s.ServeAs(l, Listener{Name: "mqtt", Anonymous: s.allowAnonymous})
}

// ServeAs accepts connections from l, which it serves as that says, until Close, and
// returns ErrServerClosed; it returns earlier only if l itself is broken. It takes l
// over. Any number may run at once.
func (s *Server) ServeAs(l net.Listener, as Listener) error {
	by := &served{Listener: as}
	defer l.Close()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			if pause > 0 {
				s.logger.Info("accepting connections again", "addr", l.Addr())
			}
			pause = 0
			s.accept(nc, by, nil)
			continue
		}
		if s.isClosing() {
			return ErrServerClosed
		}
		if !temporary(err) {
			return err
		}
		s.stats.AcceptErrors.Add(1)
		if errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) {
			continue // the next one may be fine
		}
		if pause == 0 {
			s.logger.Warn("cannot accept connections; clients that are connected are not affected", "addr", l.Addr(), "err", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-s.stop:
		}
	}
}

// temporary says whether accept may succeed when it is called again.
func temporary(err error) bool {
	for _, e := range []error{
		syscall.ECONNABORTED, syscall.EINTR, // this one client
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // until something is freed
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// accept takes a new connection in, or turns it away. had is what was done with it before,
// nil for nothing.
func (s *Server) accept(nc net.Conn, by *served, had *upgrade) {
	s.stats.Accepted.Add(1)
	if !by.enter() {
		s.turnAway(nc, TurnawayListener)
		return
	}
	var addr address // who comes by a proxy is known later
	if by.ProxyFrom == nil {
		addr = addressOf(nc.RemoteAddr())
		if why, ok := s.addresses.enter(addr, s.wheel.now.Load(), s.limits.Load()); !ok {
			by.leave()
			s.turnAway(nc, why)
			return
		}
	} else if !by.trusts(nc.RemoteAddr()) {
		by.leave()
		s.turnAway(nc, TurnawayProxy)
		s.noProxy(by, nc.RemoteAddr(), "it comes from no proxy that the listener trusts",
			"connect through the proxy, add the address to the listener's proxy, or take proxy off it")
		return
	}
	tr, err := newTransport(nc)
	if err != nil {
		by.leave()
		s.addresses.leave(addr)
		nc.Close()
		return
	}
	if c := s.take(tr, addr, by, had); c != nil {
		go c.serve()
	}
}

func (s *Server) turnAway(nc net.Conn, why Turnaway) {
	s.stats.TurnedAway[why].Add(1)
	nc.Close()
}

// noProxy tells the operator of a connection that a listener for proxies has closed: it is mostly
// one of the two that was set up without the other, and the client sees nothing but the end.
func (s *Server) noProxy(by *served, from net.Addr, why, do string) {
	if unlogged, ok := s.proxyLog.note(s.wheel.now.Load()); ok {
		s.logger.Info("a connection to a listener for proxies was closed", "listener", by.Name, "addr", addressOf(from).network(), "why", why, "do", do, "unlogged", unlogged)
	}
}

// take makes a connection of a transport, for which serve is then to be
// called. It returns nil, and has closed the transport, if there is no place. It has
// entered addr and by.
func (s *Server) take(tr transport, addr address, by *served, had *upgrade) *conn {
	c := &conn{srv: s, addr: addr, by: by, limits: s.limitsFor(by), maxPacket: maxRemaining + maxHeader}
	if by.ProxyFrom != nil {
		tr = &proxyTransport{transport: tr, admit: c.admit}
	}
	if had != nil {
		c.tr = had.dress(tr, by.WebSocket)
	} else {
		c.tr = by.dress(tr, s.turns, c)
	}
	c.timer.fire = c
	if why, ok := s.add(c); !ok {
		s.stats.TurnedAway[why].Add(1)
		s.addresses.leave(addr)
		by.leave()
		tr.close(true)
		return nil
	}
	c.mu.Lock()
	now := s.wheel.now.Load()
	c.seen.Store(now)
	s.wheel.set(&c.timer, c.nextDeadline(now))
	c.mu.Unlock()
	s.stats.Sockets.Add(1) // who sees it counted may rely on it that its time runs
	return c
}

// add puts c into the list and counts its goroutine.
func (s *Server) add(c *conn) (why Turnaway, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return TurnawayClosing, false
	case s.handshakes >= s.limits.Load().Handshakes:
		return TurnawayHandshakes, false
	case s.sockets > 0 && s.open >= s.sockets && !c.by.Internal:
		return TurnawayFiles, false
	}
	s.handshakes++
	if !c.by.Internal {
		s.open++
	}
	c.next = s.conns
	if c.next != nil {
		c.next.prev = c
	}
	s.conns = c
	s.wg.Add(1)
	return 0, true
}

// admit holds a client whose proxy has told its address to what that may do. For the
// reading goroutine, before anything else has been read.
func (c *conn) admit(a net.Addr) error {
	addr := addressOf(a)
	if why, ok := c.srv.addresses.enter(addr, c.srv.wheel.now.Load(), c.srv.limits.Load()); !ok {
		c.srv.stats.TurnedAway[why].Add(1)
		return errTurnedAway
	}
	c.addr = addr
	return nil
}

// remove takes c out again, when its reading goroutine ends.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		s.conns = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	if !c.accepted {
		s.handshakes--
	}
	if !c.by.Internal {
		s.open--
	}
	s.mu.Unlock()
	if c.accepted {
		s.dismissClient()
		s.lifetimes.remove(c)
	}
	s.addresses.leave(c.addr)
	c.by.leave()
	s.stats.Sockets.Add(-1)
}

// admitClient takes one of the places for clients, if there is one.
func (s *Server) admitClient() bool {
	if s.clients.Add(1) > int64(s.limits.Load().Connections) {
		s.clients.Add(-1)
		return false
	}
	return true
}

// dismissClient gives the place back.
func (s *Server) dismissClient() { s.clients.Add(-1) }

// acceptClient notes that a connection has its CONNACK.
func (s *Server) acceptClient() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshakes--
	if n := s.stats.Clients.Add(1); n > s.stats.Most.Load() {
		s.stats.Most.Store(n)
	}
}

// Close stops accepting, tells every client that the server shuts down (MQTT 5
// clients by DISCONNECT 0x8B) and waits until all connections are gone. When
// ctx is done it closes those that are left and returns ctx's error. The
// broker must still work: each connection ends its session.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		close(s.ends)
	}
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.each(func(c *conn) { c.End(broker.ErrClosing) })

	gone := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
		s.each(func(c *conn) { c.close(true) })
		<-gone
	}
	s.once.Do(func() { close(s.stop) })
	<-s.stopped
	return err
}

// each calls f for every connection there is now.
func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	var all []*conn
	for c := s.conns; c != nil; c = c.next {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		f(c)
	}
}
