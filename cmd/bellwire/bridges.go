package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bridge"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
)

// bridges are those of this node to other brokers. Which of them run is for their Lead to say.
type bridges struct {
	names atomic.Pointer[reservations] // nil until they are made

	mu  sync.Mutex // guards the following
	all []*ownBridge

	stop  context.CancelFunc // nil until they run
	tasks sync.WaitGroup
}

// An ownBridge is one of them, and the door by which it comes here.
type ownBridge struct {
	*bridge.Bridge
	spec      *bridgeSpec
	principal string // here; empty for anonymous
	door      *door
	serve     func() // serves the door until that is closed
}

// list returns those that there are.
func (b *bridges) list() []*ownBridge {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all)
}

// bridgeClient begins the client ids of bridges here.
const bridgeClient = "bridge/"

// originOf is by what bridges in a ring know this cluster: nothing that could be worked back
// to its identity, from which keys are made.
func originOf(id cluster.Identity) string {
	sum := sha256.Sum256([]byte("bellwire bridges' origin 1\n" + id.Cluster))
	return hex.EncodeToString(sum[:8])
}

// reservations are the client ids and the principals that are bridges' alone, each with its
// bridge's name. A principal has an @, which no bridge's client id has. They do not change.
type reservations map[string]string

// ownerOf says of a client id, or a principal, which bridge it is of; empty of all others.
func (b *bridges) ownerOf(name string) string {
	if names := b.names.Load(); names != nil && (*names)[name] != "" {
		return "bridge " + (*names)[name]
	}
	return ""
}

// principals are whom bridges are.
func (b *bridges) principals() (all []string) {
	names := b.names.Load()
	if names == nil {
		return nil
	}
	for name := range *names {
		if strings.Contains(name, "@") {
			all = append(all, name)
		}
	}
	return all
}

// makeBridges makes the bridges that are configured. They do nothing before start.
func (s *server) makeBridges() error {
	var wrong faults
	names := reservations{}
	for i := range s.config.bridges {
		spec := &s.config.bridges[i]
		principal, err := s.bridgePrincipal(spec)
		if err != nil {
			wrong.add(fail(bw.Usage, "%s: its principal: %w", spec.option, err).do("add principal: NAME@DOMAIN to the bridge, or set the domain of bare names"))
			continue
		}
		d := newDoor()
		as := mqtt.Listener{Name: "bridge " + spec.Name, Internal: true, As: principal}
		names[bridgeClient+spec.Name] = spec.Name
		if principal != "" {
			names[principal] = spec.Name
		}
		s.bridges.all = append(s.bridges.all, &ownBridge{
			Bridge: bridge.New(s.bridgeConfig(spec, d)), spec: spec, principal: principal, door: d, serve: func() { _ = s.mqtt.ServeAs(d, as) },
		})
		s.config.logger.Info("bridge", "bridge", spec.Name, "peer", spec.Addresses, "principal", principal, "client", bridgeClient+spec.Name, "origin", originOf(s.dir.Identity()))
	}
	s.bridges.names.Store(&names)
	return wrong.err()
}

// bridgePrincipal is who a bridge is here.
func (s *server) bridgePrincipal(spec *bridgeSpec) (string, error) {
	if s.config.trust == trustNothing {
		return "", nil // everybody is anonymous
	}
	name := spec.principal
	if name == "" {
		name = "bridge-" + spec.Name
	}
	in, _ := s.broker.Settings()
	return acl.ParseAddress(name, in.Domain)
}

func (s *server) bridgeConfig(spec *bridgeSpec, d *door) bridge.Config {
	c := spec.Config
	limits := s.mqtt.Limits()
	c.Window = min(c.Window, limits.ReceiveMaximum)
	c.MaxPacket = limits.Packet
	c.Dial = spec.dial()
	if spec.passwordFile != "" {
		c.Secret = func() ([]byte, error) { return readPassword(spec.passwordFile) }
	}
	c.Origin = originOf(s.dir.Identity())
	c.Local, c.LocalClient = d.dial, bridgeClient+spec.Name
	c.Session = func() bridge.Session {
		is, ok := s.broker.Stored(c.LocalClient)
		return bridge.Session{Exists: ok, Receive: int(is.ReceiveMax), Unreleased: is.Unreleased, Filters: is.Filters, Waiting: is.Waiting}
	}
	c.Lead = func() bool { return s.node.Leader() && s.drain.now() == "" }
	c.Confirm = func(ctx context.Context) bool { return s.broker.Advance(ctx) == nil && c.Lead() }
	c.Now, c.Logger = time.Now, s.config.logger
	return c
}

// dial returns what connects to the peer, by whichever way an address says.
func (b *bridgeSpec) dial() func(context.Context, string) (net.Conn, error) {
	secure := b.tls
	if secure == nil {
		secure = &bridgeTLS{} // of wss://
	}
	plain, web := dialTCP, bridge.WebSocketDial(secure.config)
	if b.tls != nil {
		plain = bridge.TLSDial(secure.config)
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		if strings.Contains(address, "://") {
			return web(ctx, address)
		}
		return plain(ctx, address)
	}
}

// prepareTime is how long a server that starts waits for its bridges' sessions.
const prepareTime = 5 * time.Second

// start has the bridges run. When it returns, what is published waits for their peers.
func (b *bridges) start() {
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	for _, one := range b.all {
		b.tasks.Go(one.serve)
	}
	var prepared sync.WaitGroup
	for _, one := range b.all {
		prepared.Go(func() {
			soon, cancel := context.WithTimeout(ctx, prepareTime)
			defer cancel()
			_ = one.Prepare(soon) // it is done again when it runs, and told
		})
	}
	prepared.Wait()
	for _, one := range b.all {
		b.tasks.Go(func() { one.Run(ctx) })
	}
}

// close has them leave both brokers, and returns when they have.
func (b *bridges) close() {
	if b.stop == nil {
		return
	}
	b.stop()
	for _, one := range b.all {
		_ = one.door.Close()
	}
	b.tasks.Wait()
	b.stop = nil
}

// A door is a listener by which only this process comes: each connection is a pair of
// sockets, so that the broker serves it as it does one by TCP.
type door struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newDoor() *door { return &door{conns: make(chan net.Conn), closed: make(chan struct{})} }

// dial returns the other end of a connection that Accept returns.
func (d *door) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	select {
	case d.conns <- theirs:
		return ours, nil
	case <-d.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, ours.Close(), theirs.Close())
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

func (d *door) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

func socketPair() (a, b net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "bridge")
		c, failed := net.FileConn(f) // which has a descriptor of its own
		_ = f.Close()
		ends[i], err = c, errors.Join(err, failed)
	}
	if err != nil {
		for _, c := range ends {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return ends[0], ends[1], nil
}

// A bridgeTLS says how a bridge knows its peer, and is known to it. Its files are read for
// each connection.
type bridgeTLS struct {
	ca, cert, key string
	serverName    string
	insecure      bool // whoever answers is the peer
}

func (t *bridgeTLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.serverName, InsecureSkipVerify: t.insecure}
	if t.ca != "" {
		data, err := readRegular(t.ca, tlsFilesMost)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no certificate", t.ca)
		}
	}
	if t.cert != "" {
		cert, err := readRegular(t.cert, tlsFilesMost)
		if err != nil {
			return nil, err
		}
		key, err := readRegular(t.key, tlsFilesMost)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s with %s: %w", t.cert, t.key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// bridgeMetrics are what is counted of bridges. What waits all nodes know; the rest is of the
// node that runs the bridge.
func (s *server) bridgeMetrics() table {
	t := &table{}
	if len(s.bridges.all) == 0 {
		return nil
	}
	gauge := func(name, help string, read func(b *ownBridge) float64) {
		f := t.family(prometheus.GaugeValue, name, help, "bridge")
		for _, b := range s.bridges.all {
			f.row(func() float64 { return read(b) }, b.Name())
		}
	}
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	gauge("bridge_running", "1 if this node is the one that runs the bridge", func(b *ownBridge) float64 { return one(b.Running()) })
	gauge("bridge_connected", "1 if the bridge is connected to its peer, by this node", func(b *ownBridge) float64 { return one(b.State().Connected) })
	gauge("bridge_lag_messages", "events that wait to be carried to the peer, or for the log to hear that they have been", func(b *ownBridge) float64 { return float64(b.Waiting()) })
	carried := t.family(prometheus.CounterValue, "bridge_messages_total", "events carried and acknowledged", "bridge", "direction")
	dropped := t.family(prometheus.CounterValue, "bridge_dropped_total", "events acknowledged and not carried", "bridge", "reason")
	failed := t.family(prometheus.CounterValue, "bridge_errors_total", "connections to the peer that failed or ended, and subscriptions refused", "bridge", "reason")
	for _, b := range s.bridges.all {
		st := b.Stats()
		carried.count(st.Out.Load, b.Name(), "out")
		carried.count(st.In.Load, b.Name(), "in")
		st.EachDrop(func(reason string, n bridge.Counter) { dropped.count(n, b.Name(), reason) })
		st.EachFailure(func(reason string, n bridge.Counter) { failed.count(n, b.Name(), reason) })
	}
	return *t
}

// bridgeValues are mosquitto's values of bridges: whether each is connected, by whichever
// node. A bridge has its session here connected only while it has its peer.
func (s *server) bridgeValues(v *sysValues) {
	for _, b := range s.bridges.all {
		v.text("connection/"+b.Name()+"/state", func() string {
			if is, _ := s.broker.Stored(bridgeClient + b.Name()); is.Node != "" {
				return "1"
			}
			return "0"
		})
	}
}
