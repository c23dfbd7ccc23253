package main

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
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
)

func httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: httpHeader, ReadTimeout: httpRead, WriteTimeout: httpWrite, IdleTimeout: httpIdle,
		MaxHeaderBytes: httpHeaderBytes,
	}
}

// A limitListener has at most cap(open) connections open at once. One more is
// closed at once and counted: those that are served go on.
type limitListener struct {
	net.Listener
	open       chan struct{}
	turnedAway *atomic.Uint64
}

func limitConnections(l net.Listener, most int, turnedAway *atomic.Uint64) net.Listener {
	return &limitListener{l, make(chan struct{}, most), turnedAway}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.open <- struct{}{}:
			return &limitedConn{Conn: c, left: sync.OnceFunc(func() { <-l.open })}, nil
		default:
			l.turnedAway.Add(1)
			_ = c.Close() // nothing was written to it
		}
	}
}

// A limitedConn counts as open until it is closed.
type limitedConn struct {
	net.Conn
	left func()
}

func (c *limitedConn) Close() error {
	defer c.left()
	return c.Conn.Close()
}
