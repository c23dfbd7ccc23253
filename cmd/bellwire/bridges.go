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
	"reflect"
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

	mu    sync.Mutex // guards the following
	all   []*ownBridge
	ended []string // by the last change, and no others have their names: who watches $SYS is told
}

// An ownBridge is one of them, and the door by which it comes here.
type ownBridge struct {
	*bridge.Bridge
	spec      *bridgeSpec
	principal string // here; empty for anonymous
	door      *door
	serve     func() // serves the door until that is closed

	stop  context.CancelFunc // nil until it runs
	tasks sync.WaitGroup
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
// bridge's name. A principal has an @, which no bridge's client id has. They are replaced as a whole.
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

// tellEnded has it told of some that they are not connected, until the next change.
func (b *bridges) tellEnded(some []*ownBridge) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = nil
	for _, one := range some {
		if !slices.ContainsFunc(b.all, func(o *ownBridge) bool { return o.Name() == one.Name() }) {
			b.ended = append(b.ended, one.Name())
		}
	}
}

// makeBridges makes the bridges of specs. They do nothing before bridges.run. The error
// names all that is wrong with them.
func (s *server) makeBridges(specs []bridgeSpec) (all []*ownBridge, err error) {
	var wrong faults
	for i := range specs {
		spec := &specs[i]
		principal, err := s.bridgePrincipal(spec)
		if err != nil {
			wrong.add(fail(bw.Usage, "%s: its principal: %w", spec.option, err).do("add principal: NAME@DOMAIN to the bridge, or set the domain of bare names"))
			continue
		}
		d := newDoor()
		as := mqtt.Listener{Name: "bridge " + spec.Name, Internal: true, As: principal}
		all = append(all, &ownBridge{
			Bridge: bridge.New(s.bridgeConfig(spec, d)), spec: spec, principal: principal, door: d, serve: func() { _ = s.mqtt.ServeAs(d, as) },
		})
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	for _, one := range all {
		s.config.logger.Info("bridge", "bridge", one.Name(), "peer", one.spec.Addresses, "principal", one.principal, "client", bridgeClient+one.Name(), "origin", originOf(s.dir.Identity()))
	}
	return all, nil
}

// set has all be those that there are: client ids and principals of theirs are nobody
// else's from here on.
func (b *bridges) set(all []*ownBridge) {
	names := reservations{}
	for _, one := range all {
		names[bridgeClient+one.Name()] = one.Name()
		if one.principal != "" {
			names[one.principal] = one.Name()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = all
	b.names.Store(&names)
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
	c.Levels = func() int { return s.mqtt.Limits().TopicLevels }
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

// run has some of them run. When it returns, what is published waits for their peers.
func (b *bridges) run(some []*ownBridge) {
	var prepared sync.WaitGroup
	for _, one := range some {
		ctx, stop := context.WithCancel(context.Background())
		one.stop = stop
		one.tasks.Go(one.serve)
		prepared.Go(func() {
			soon, cancel := context.WithTimeout(ctx, prepareTime)
			defer cancel()
			_ = one.Prepare(soon) // it is done again when it runs, and told
			one.tasks.Go(func() { one.Run(ctx) })
		})
	}
	prepared.Wait()
}

// end has some of them leave both brokers, and returns when they have.
func (b *bridges) end(some []*ownBridge) {
	for _, one := range some {
		if one.stop != nil {
			one.stop()
			_ = one.door.Close()
		}
	}
	for _, one := range some {
		one.tasks.Wait()
	}
}

// reloadBridges has the bridges be those that the configuration file has now. Those that are as they
// were go on; one that has changed ends and begins anew, by the same session here. A
// file with faults changes nothing.
func (s *server) reloadBridges(f serveFlags) {
	if f.config == "" {
		return
	}
	logger := s.config.logger.With("file", f.config)
	f.bridges = nil
	err := f.readConfig(func(string) bool { return true }) // all else stays as it is
	var specs []bridgeSpec
	if f.bridges != nil {
		specs = *f.bridges
	}
	old, kept := s.bridges.list(), []*ownBridge{}
	specs = slices.DeleteFunc(specs, func(spec bridgeSpec) bool {
		i := slices.IndexFunc(old, func(o *ownBridge) bool { return reflect.DeepEqual(*o.spec, spec) })
		if i >= 0 {
			kept = append(kept, old[i])
			old = slices.Delete(old, i, i+1)
		}
		return i >= 0
	})
	var made []*ownBridge
	if err == nil {
		made, err = s.makeBridges(specs)
	}
	if err != nil {
		n := logFaults(logger, "a fault in the configuration file", err)
		logger.Error("bridges not changed: those that run stay", "faults", n, "code", bw.ConfigFile.String())
		return
	}
	if len(made) == 0 && len(old) == 0 {
		return
	}
	s.bridges.end(old)
	s.bridges.set(append(kept, made...))
	s.bridges.tellEnded(old)
	s.broker.SetSystemValues(s.withBridges())
	s.bridges.run(made)
	names := func(all []*ownBridge) (list []string) {
		for _, one := range all {
			list = append(list, one.Name())
		}
		return list
	}
	logger.Info("bridges changed", "ended", names(old), "begun", names(made), "unchanged", names(kept))
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
	t, all := &table{}, s.bridges.list()
	gauge := func(name, help string, read func(b *ownBridge) float64) {
		f := t.family(prometheus.GaugeValue, name, help, "bridge")
		for _, b := range all {
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
	for _, b := range all {
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
	state := func(name string) string { return "connection/" + name + "/state" }
	for _, b := range s.bridges.list() {
		v.text(state(b.Name()), func() string {
			if is, _ := s.broker.Stored(bridgeClient + b.Name()); is.Node != "" {
				return "1"
			}
			return "0"
		})
	}
	s.bridges.mu.Lock()
	defer s.bridges.mu.Unlock()
	for _, name := range s.bridges.ended {
		v.text(state(name), func() string { return "0" })
	}
}
