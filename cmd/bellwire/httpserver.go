package main

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/broker/websocket"
)

// Bounds of the HTTP side. A request has no large body, an answer is a page of
// documents at most, and what takes longest is a password that waits for its turn
// (10 s). A profile or trace takes as long as it was asked to: net/http/pprof
// moves its own deadline.
const (
	httpConnections = 1000
	httpHeader      = 10 * time.Second
	httpRead        = 20 * time.Second
	httpWrite       = 30 * time.Second
	httpIdle        = time.Minute
	httpHeaderBytes = 16 << 10
	httpStreams     = 32 // requests at once on a connection of HTTP/2
)

func httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: httpHeader, ReadTimeout: httpRead, WriteTimeout: httpWrite, IdleTimeout: httpIdle,
		MaxHeaderBytes: httpHeaderBytes,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: httpStreams},
	}
}

// mqttPath is where MQTT is on the HTTP side, by WebSocket.
const mqttPath = "/mqtt"

// withMQTT has connections to mqttPath taken over by the MQTT server, if that is asked for.
// They are of the listener http, as requests are.
func (s *server) withMQTT(h http.Handler) http.Handler {
	if !s.config.httpMQTT {
		return h
	}
	upgrades := s.mqtt.Upgrades(mqtt.Listener{
		Name: "http", Anonymous: s.config.allowAnonymous, WebSocket: &websocket.Rules{Path: mqttPath, Origins: s.config.httpOrigins},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == mqttPath {
			upgrades.ServeHTTP(w, r)
		} else {
			h.ServeHTTP(w, r)
		}
	})
}

// An httpLog is where net/http says what went wrong with connections. That handshakes fail
// is mostly whoever scans ports: it is counted, and only of interest in trouble.
type httpLog struct {
	logger    *slog.Logger
	tlsFailed *atomic.Uint64
}

func (l *httpLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: TLS handshake error") {
		l.tlsFailed.Add(1)
		l.logger.Debug("a TLS handshake failed", "listener", "http", "err", strings.TrimPrefix(text, "http: "))
	} else {
		l.logger.Warn("trouble with an HTTP connection", "err", text)
	}
	return len(line), nil
}

// A limitListener has so many connections open at once, and so many of one
// address. One more is closed at once and counted: those that are served go on. What MQTT
// takes over counts no more: it has bounds of its own.
type limitListener struct {
	net.Listener
	most       int
	perAddress func() int // 0: any number of one address
	turnedAway *turnedAway

	mu   sync.Mutex // guards the following
	open int
	of   map[netip.Addr]int // by address, loopback excepted
}

// turnedAway counts connections that were closed unread.
type turnedAway struct{ full, address atomic.Uint64 }

func limitConnections(l net.Listener, most int, perAddress func() int, counts *turnedAway) net.Listener {
	return &limitListener{Listener: l, most: most, perAddress: perAddress, turnedAway: counts, of: map[netip.Addr]int{}}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := sharer(c.RemoteAddr())
		if l.enter(from) {
			return &mqtt.Upgradable{Conn: c, Left: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = c.Close() // nothing was written to it
	}
}

// enter counts a connection from from, unless it is one too many.
func (l *limitListener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open >= l.most:
		l.turnedAway.full.Add(1)
		return false
	case from.IsValid() && l.tooMany(l.of[from]):
		l.turnedAway.address.Add(1)
		return false
	}
	l.open++
	if from.IsValid() {
		l.of[from]++
	}
	return true
}

// tooMany says whether an address that has n connections may have no more.
func (l *limitListener) tooMany(n int) bool {
	most := l.perAddress()
	return most > 0 && n >= most
}

func (l *limitListener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if !from.IsValid() {
		return
	}
	if l.of[from]--; l.of[from] == 0 {
		delete(l.of, from)
	}
}

// sharer returns by what connections are counted: the address, of IPv6 its /64;
// for loopback, behind which a proxy may be, and what is not IP nothing.
func sharer(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	switch {
	case ip.IsLoopback():
		return netip.Addr{}
	case ip.Is4():
		return ip
	}
	p, _ := ip.WithZone("").Prefix(64)
	return p.Addr()
}
