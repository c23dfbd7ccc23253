package main

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/bw"
)

// ports are the addresses of a node. They are taken before anything else is done: a
// node that finds only in the end that it cannot serve anybody would have made a data
// directory by then, and joined its cluster, which counts on it from then on.
//
// Until there is somebody to serve them, clients are turned away: whoever knows other
// nodes is then at one of them at once, and does not wait for this one.
type ports struct {
	mqtt, http *heldPort // http is nil for none
	httpTLS    *tlsFiles // of http; nil without TLS
	more       []*clientListener
	cluster    net.Listener // nil for a node alone; nodes that connect wait
}

// takePorts takes all of them, or tells which cannot be had, each.
func takePorts(ctx context.Context, c *serverConfig) (p ports, err error) {
	var wrong faults
	plain := func(ctx context.Context, address string) (net.Listener, error) {
		var lc net.ListenConfig
		return lc.Listen(ctx, "tcp", address)
	}
	for _, want := range []struct {
		flag, address string
		listen        func(context.Context, string) (net.Listener, error)
		took          func(net.Listener)
	}{
		{"--cluster", c.cluster, plain, func(l net.Listener) { p.cluster = l }},
		{"--mqtt", c.mqtt, mqtt.Listen, func(l net.Listener) { p.mqtt = holdPort(l) }},
		{"--http", c.http, plain, func(l net.Listener) { p.http = holdPort(l) }},
	} {
		if want.address == "" {
			continue
		}
		l, err := want.listen(ctx, want.address)
		if err != nil {
			wrong.add(listenFault(want.flag, want.address, err))
			continue
		}
		want.took(l)
	}
	if c.httpTLS.cert != "" {
		var err error
		if p.httpTLS, err = openTLS(c.httpTLS, "http", c.logger, "h2", "http/1.1"); err != nil {
			wrong.add(fail(bw.TLSFiles, "--http: %w", err))
		}
	}
	wrong = append(wrong, p.takeListeners(ctx, c)...)
	if err := wrong.err(); err != nil {
		p.close()
		return ports{}, err
	}
	return p, nil
}

// tlsFiles returns the certificates of all of them.
func (p *ports) tlsFiles() (all []*tlsFiles) {
	if p.httpTLS != nil {
		all = append(all, p.httpTLS)
	}
	for _, l := range p.more {
		if l.tls != nil {
			all = append(all, l.tls)
		}
	}
	return all
}

// close gives up what nobody has begun to serve: whoever has closes it.
func (p *ports) close() {
	for _, h := range []*heldPort{p.mqtt, p.http} {
		if h != nil && !h.released {
			_ = h.release().Close()
		}
	}
	for _, l := range p.more {
		if !l.port.released {
			_ = l.port.release().Close()
		}
	}
	if p.cluster != nil {
		_ = p.cluster.Close()
	}
}

// listenFault says why a node cannot listen at an address.
func listenFault(flag, address string, err error) error {
	reason := err // without "listen tcp" and the address again; what errors.Is finds is in it
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		reason = e.Err
	} else if e, ok := errors.AsType[*net.OpError](err); ok {
		reason = e.Err
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := ""
		if tcp, bad := net.ResolveTCPAddr("tcp", address); bad == nil {
			if name, ok := portHolder(tcp.AddrPort()); ok {
				holder = " by " + name
			}
		}
		return fail(bw.AddressInUse, "%s %s: %w%s", flag, address, reason, holder).do("end whoever listens there, or give %s another address; port 0 takes a free one", flag)
	case errors.Is(err, syscall.EACCES):
		return fail(bw.Usage, "%s %s: %w", flag, address, reason).do("ports below 1024 take a privilege (CAP_NET_BIND_SERVICE): give %s a higher one", flag)
	case errors.Is(err, context.Canceled):
		return err
	}
	return fail(bw.Usage, "%s %s: %w", flag, address, reason).do("give %s an address of this machine: ip address lists them", flag)
}

// A heldPort is a listener that nobody serves yet: who connects is turned away, by an
// end of the connection, until it is released.
type heldPort struct {
	listener net.Listener
	stop     chan struct{}
	ended    chan struct{} // closed when nobody is turned away any more
	released bool          // of the one goroutine that starts and ends the node
}

func holdPort(l net.Listener) *heldPort {
	h := &heldPort{listener: l, ended: make(chan struct{}), stop: make(chan struct{})}
	go h.turnAway()
	return h
}

func (h *heldPort) turnAway() {
	defer close(h.ended)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		c, err := h.listener.Accept()
		select {
		case <-h.stop:
			if err == nil {
				_ = c.Close() // it came before the one who is to serve
			}
			return
		default:
		}
		if err == nil {
			_ = c.Close()
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		pause.Reset(100 * time.Millisecond) // out of file descriptors, mostly
		select {
		case <-pause.C:
		case <-h.stop:
			return
		}
	}
}

// release returns the listener to whoever serves it from now on, or closes it.
func (h *heldPort) release() net.Listener {
	h.released = true
	close(h.stop)
	// A deadline is the one way to end an Accept that leaves the listener open.
	l, ok := h.listener.(interface{ SetDeadline(time.Time) error })
	if !ok || l.SetDeadline(time.Unix(1, 0)) != nil {
		_ = h.listener.Close() // whoever serves it finds that
		return h.listener
	}
	<-h.ended
	_ = l.SetDeadline(time.Time{})
	return h.listener
}
