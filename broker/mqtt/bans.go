package mqtt

import (
	"context"
	"errors"
	"hash/maphash"
	"net"
	"net/netip"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// Who is banned (broker.Ban) is told 0x8A at CONNECT (3.1.1: 5). A ban by client id or
// address says nothing of who there is, and comes before anything is proved; one by user only
// to who has proved to be that user: whoever tries a name must not learn what is said of it.
//
// A client that is connected when its ban begins is sent DISCONNECT 0x98, administrative
// action: 0x8A is for CONNACK alone (5.0 2.4).

// ErrBanned is what somebody is told who is banned and has signed in otherwise than by MQTT.
var ErrBanned = errors.New("banned")

// whyBanned is what somebody is told who is connected.
const whyBanned = "banned"

// ip is the client's address, zero if it has none.
func (c *conn) ip() netip.Addr { return ipOf(c.tr.remote()) }

func ipOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr()
}

// whyRevoked is what somebody is told whose certificate is revoked while it is connected.
const whyRevoked = "the client certificate is revoked"

// Outlawed has those ended who are connected and banned by now, or whose certificates are
// revoked (Listener.Revoked). It returns at once.
func (s *Server) Outlawed() {
	select {
	case s.outlawed <- struct{}{}:
	default: // it will be looked at anyway
	}
}

// endOutlaws ends them, whenever Outlawed has been called, until stop is closed.
func (s *Server) endOutlaws(stop <-chan struct{}) {
	for {
		select {
		case <-s.outlawed:
			s.each((*conn).endIfOutlawed)
		case <-stop:
			return
		}
	}
}

// endIfOutlawed ends a connection whose client is banned, or its certificate revoked. One
// that is being accepted looks by itself, when it is.
func (c *conn) endIfOutlawed() {
	c.mu.Lock()
	here, client, user := c.connected, c.client, c.principal
	c.mu.Unlock()
	switch {
	case !here:
	case c.srv.banned(client, user, c.ip()):
		c.end(codeAdministrative, whyBanned)
	case c.by.Revoked != nil:
		c.endIfRevoked(client, user)
	}
}

func (c *conn) endIfRevoked(client, user string) {
	state := c.tr.security()
	if state == nil {
		return
	}
	err := c.by.Revoked(state)
	if err == nil {
		return
	}
	c.end(codeNotAuthorized, whyRevoked)
	c.srv.stats.CertificatesEnded.Add(1)
	if unlogged, ok := c.srv.handshakeLog.note(c.srv.wheel.now.Load()); ok {
		c.srv.logger.Warn("a client certificate is revoked: its connection ends", "listener", c.by.Name, "client", start(client), "user", user,
			"addr", c.addr.network(), "err", err, "unlogged", unlogged)
	}
}

// Flaps hold clients that connect and disconnect without end to a rate: each connection
// costs an entry of the log, and what watches it is told each time. A client is one client id
// of one user, or, without a user, of one address: nobody can have another's banned.
type flaps struct{ logins }

// flapRate is Limits.FlapRate as a rate.
func flapRate(n int) rate { return rate{int64(n), ticksPerMinute, int64(n)} }

// over counts the end of a connection and says whether it is one too many. Loopback, and
// what is not IP, is not held to it, as with logins.
func (f *flaps) over(client, user string, a address, now int64) bool {
	if !a.IsValid() {
		return false
	}
	k := login{user: maphash.String(f.seed, user+"\x00"+client)}
	if user == "" {
		k.network = networkOfOne(a)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rate.count > 0 && !f.find(k, now).take(f.rate, now)
}

// networkOfOne is what one address is banned by: IPv6 by its /64, as it is counted.
func networkOfOne(a address) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a.Addr, 32)
	}
	return networkOf(a)
}

// flapPatience is how long a ban may take to be ordered.
const flapPatience = 5 * time.Second

// noteEnd takes note of the end of an accepted connection, and has its client banned if
// there were too many. That somebody else took its session over is not counted of a client
// without a user: whoever likes can do that, and would have it kept out. For the reading
// goroutine, as its last act.
func (c *conn) noteEnd() {
	s := c.srv
	c.mu.Lock()
	why := c.why
	c.mu.Unlock()
	if why == codeTakenOver && c.principal == "" {
		return
	}
	if s.draining.Load() || s.isClosing() || !s.flaps.over(c.client, c.principal, c.addr, s.wheel.now.Load()) {
		return
	}
	banFor := s.limits.Load().FlapBan
	ban := event.Ban{
		Client: c.client, User: c.principal, Until: s.clock().Add(banFor).UnixNano(),
		Reason: "connects and disconnects too often", By: "flapping", Auto: true,
	}
	if ban.User == "" {
		ban.Network = networkOfOne(c.addr).String()
	}
	s.stats.Flapping.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), flapPatience)
	defer cancel()
	err := s.ban(ctx, ban)
	if err != nil {
		s.stats.FlapsAtLarge.Add(1)
	}
	if unlogged, ok := s.flapLog.note(s.wheel.now.Load()); ok {
		s.logger.Warn("a client connects and disconnects too often", "client", start(c.client), "user", c.principal, "addr", c.addr.network(), "banned_for", banFor, "err", err, "unlogged", unlogged)
	}
}

// nobodyBanned is how a Server without a Broker judges.
func nobodyBanned(string, string, netip.Addr) bool { return false }

func noBan(context.Context, event.Ban) error { return broker.ErrNoCommit }
