package clustertest

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A listener takes connections in for a host. It is guarded by the network's mu.
type listener struct {
	net     *Network
	host    *host
	address Addr
	came    sync.Cond
	waiting []*conn
	closed  bool
}

// Listen listens on a host, on the lowest port from 1 on that is free: whoever
// listens again, after a Close or a Kill, has the same address.
func (n *Network) Listen(hostName string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(hostName)
	if n.closed {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: net.ErrClosed}
	}
	port := 1
	for h.listeners[port] != nil {
		port++
	}
	l := &listener{net: n, host: h, address: Addr{hostName, port}}
	l.came.L = &n.mu
	h.listeners[port] = l
	n.announce()
	return l, nil
}

// Accept is net.Listener's.
func (l *listener) Accept() (net.Conn, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for len(l.waiting) == 0 && !l.closed {
		l.came.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.address, Err: net.ErrClosed}
	}
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	l.net.announce() // there is room
	return c, nil
}

// Close is net.Listener's. Connections that were not accepted are reset.
func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.address, Err: net.ErrClosed}
	}
	l.end()
	l.net.announce()
	return nil
}

// end closes a listener. Requires mu.
func (l *listener) end() {
	l.closed = true
	delete(l.host.listeners, l.address.Port)
	for _, c := range l.waiting {
		c.leave()
	}
	l.waiting = nil
	l.came.Broadcast()
}

// Addr is net.Listener's.
func (l *listener) Addr() net.Addr { return l.address }

// Dialer returns a function that connects from a host to an address of a
// listener. It waits while the ways are cut, until its context ends or the
// network's timeout has passed. It is dead after the next Kill of the host.
func (n *Network) Dialer(from string) func(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	life := n.host(from).life
	n.mu.Unlock()
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := n.dial(ctx, from, life, address)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Source: Addr{Host: from}, Addr: asked(address), Err: err}
		}
		return c, nil
	}
}

func (n *Network) dial(ctx context.Context, from string, life int, address string) (*conn, error) {
	to, err := parseAddr(address)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(n.timeout)
	defer timer.Stop()
	for {
		trip, changed, err := n.way(from, life, to)
		if err != nil {
			return nil, err
		}
		if changed == nil {
			if err := pass(ctx, timer, trip); err != nil {
				return nil, err
			}
			var c *conn
			if c, changed, err = n.open(from, life, to); c != nil || err != nil {
				return c, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, gaveUp(ctx)
		case <-timer.C:
			return nil, syscall.ETIMEDOUT
		}
	}
}

// pass lets some time pass, if there is as much.
func pass(ctx context.Context, timer *time.Timer, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	return gaveUp(ctx)
}

// asked is an address as somebody gave it.
type asked string

func (asked) Network() string  { return "tcp" }
func (a asked) String() string { return string(a) }

// gaveUp is why a dial was not waited for.
func gaveUp(ctx context.Context) error {
	switch err := ctx.Err(); {
	case err == nil:
		return syscall.ETIMEDOUT
	case errors.Is(err, context.DeadlineExceeded):
		return os.ErrDeadlineExceeded
	default:
		return err
	}
}

// way returns how long a packet and its answer take. If they are not let through,
// changed is closed when it is worth trying again.
func (n *Network) way(from string, life int, to Addr) (trip time.Duration, changed chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dead(from, life); err != nil {
		return 0, nil, err
	}
	out, back := n.link(from, to.Host), n.link(to.Host, from)
	if out.cut() || back.cut() {
		return 0, n.changed, nil
	}
	now := n.now()
	return n.due(out, now, 0).Sub(now) + n.due(back, now, 0).Sub(now), nil, nil
}

// open makes a connection, if somebody listens. If nobody answers, changed is
// closed when it is worth trying again.
func (n *Network) open(from string, life int, to Addr) (c *conn, changed chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dead(from, life); err != nil {
		return nil, nil, err
	}
	l := n.host(to.Host).listeners[to.Port]
	switch {
	case n.link(from, to.Host).cut(), n.link(to.Host, from).cut():
		return nil, n.changed, nil
	case l == nil:
		n.stats.Refused++
		return nil, nil, syscall.ECONNREFUSED
	case len(l.waiting) >= backlog:
		return nil, n.changed, nil
	}
	n.port++
	p := n.connect(Addr{from, n.port}, to)
	l.waiting = append(l.waiting, p.accepted)
	l.came.Signal()
	return p.dialed, nil, nil
}

// dead returns an error when the life that dials has ended. Requires mu.
func (n *Network) dead(from string, life int) error {
	if n.closed || n.host(from).life != life {
		return syscall.ENETDOWN
	}
	return nil
}

func parseAddr(address string) (Addr, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return Addr{}, err
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return Addr{}, err
	}
	return Addr{name, p}, nil
}
