package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/broker/websocket"
	"github.com/bellwire/bellwire/bw"
)

// The kinds of listeners for MQTT clients.
var listenerKinds = []string{"mqtt", "mqtts", "ws", "wss", "unix"}

// A listenerSpec is one address by which MQTT clients come, beside that of --mqtt.
type listenerSpec struct {
	kind, name, addr string
	option           string // what it was asked for with, to people: --mqtts, or its place in the file
	tls              tlsSpec
	path             string   // of ws and wss; empty for /mqtt
	origins          []string // likewise; none for pages of the same host
	mode             fs.FileMode
	anonymous        string // yes, no, or empty for what --allow-anonymous says
	proxies          []netip.Prefix
	connections      int // 0: no bound of its own
}

func (l *listenerSpec) secure() bool { return l.kind == "mqtts" || l.kind == "wss" }

func (l *listenerSpec) web() bool { return l.kind == "ws" || l.kind == "wss" }

// socketMode lets the owner and the group of a unix socket connect.
const socketMode = 0o660

// listenerFlags are the flags for listeners: one of each kind. A configuration file
// can have several.
type listenerFlags struct {
	mqtts, ws, wss, unix string
	tls                  tlsSpec
	origins, mode        string

	inFile *[]listenerSpec // those under listeners:, nil for none
}

func (f *listenerFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.mqtts, "mqtts", "", "`address` for MQTT over TLS, with --tls-cert and --tls-key")
	flags.StringVar(&f.ws, "ws", "", "`address` for MQTT over WebSocket, at /mqtt")
	flags.StringVar(&f.wss, "wss", "", "`address` for MQTT over WebSocket over TLS, likewise")
	flags.StringVar(&f.unix, "unix", "", "`path` of a unix socket for MQTT")
	flags.StringVar(&f.tls.cert, "tls-cert", "", "`file` with the certificate for --mqtts and --wss, and with what it was issued by; read again when it changes, and on SIGHUP")
	flags.StringVar(&f.tls.key, "tls-key", "", "`file` with its key")
	flags.StringVar(&f.tls.clientCA, "tls-client-ca", "", "`file` with the authorities whose certificates clients must show; see --tls-client-cert")
	flags.StringVar(&f.tls.clientCert, "tls-client-cert", "", "`whether` clients must show a certificate, with --tls-client-ca: require, the default, or request")
	flags.StringSliceVar(&f.tls.revoked, "tls-client-crl", nil, "`files` with lists of revoked certificates of these authorities (CRL, PEM or DER), separated by commas; read again likewise")
	flags.StringVar(&f.tls.stale, "tls-client-crl-stale", "", "`what` becomes of clients when a list is stale: refuse, the default, or accept, by the stale list")
	flags.StringVar(&f.tls.min, "tls-min", "", "the least `version` of TLS: 1.3, the default, or 1.2")
	flags.StringVar(&f.origins, "ws-origins", "", "`origins` of the web pages that may open a WebSocket, separated by commas, * for all; empty: those of the same host")
	flags.StringVar(&f.mode, "unix-mode", "", "who may connect to the unix socket, as a file's `mode`; empty: 0660, its owner and group")
}

// specs returns all listeners that flags and file ask for, beside --mqtt.
func (f *listenerFlags) specs() (all []listenerSpec) {
	for kind, addr := range map[string]string{"mqtts": f.mqtts, "ws": f.ws, "wss": f.wss, "unix": f.unix} {
		if addr == "" {
			continue
		}
		l := listenerSpec{kind: kind, name: kind, addr: addr, option: "--" + kind, mode: socketMode}
		if l.secure() {
			l.tls = f.tls
		}
		if l.web() {
			l.origins = f.pages()
		}
		if mode, err := strconv.ParseUint(f.mode, 8, 9); kind == "unix" && err == nil {
			l.mode = fs.FileMode(mode)
		}
		all = append(all, l)
	}
	if f.inFile != nil {
		all = append(all, *f.inFile...)
	}
	return all
}

// pages are the origins of web pages that may open a WebSocket, by the flag.
func (f *listenerFlags) pages() []string {
	if f.origins == "" {
		return nil
	}
	return strings.Split(f.origins, ",")
}

// check says what is wrong with flags and listeners.
func (f *listenerFlags) check(anonymous bool, policy string) error {
	var wrong faults
	if _, err := strconv.ParseUint(f.mode, 8, 9); f.mode != "" && err != nil {
		wrong.add(fail(bw.Usage, "--unix-mode %q is no mode of a file", f.mode).do("give it in octal, such as --unix-mode 0660"))
	}
	if flag := f.tls.firstFlag(); flag != "" && f.mqtts == "" && f.wss == "" {
		wrong.add(fail(bw.Usage, "%s without an address for TLS", flag).do("add --mqtts 0.0.0.0:8883, or --wss"))
	}
	names := map[string]bool{"mqtt": true}
	for _, l := range f.specs() {
		if l.kind != "unix" && l.option == "--"+l.kind {
			wrong.add(checkAddress(l.option, l.addr, map[string]string{"mqtts": "0.0.0.0:8883", "ws": "127.0.0.1:8083", "wss": "0.0.0.0:8084"}[l.kind]))
		}
		if names[l.name] {
			wrong.add(fail(bw.Usage, "two listeners are called %s", l.name).do("give each its own name in the configuration file; mqtt is that of --mqtt"))
		}
		names[l.name] = true
		if l.secure() {
			wrong.add(l.tls.check(l.option))
		}
		open := l.anonymous == "yes" || l.anonymous == "" && anonymous
		if open && policy == "" && l.kind != "unix" && !loopbackAddress(l.addr) {
			wrong.add(fail(bw.OpenListener, "to allow anonymous clients without a policy would open every topic on %s to everybody who can reach it", l.addr))
		}
	}
	return wrong.err()
}

// A clientListener is a listener that is open, and how it is to be served.
type clientListener struct {
	spec listenerSpec
	port *heldPort
	tls  *tlsFiles // nil without TLS
}

// fault says why its address cannot be had.
func (l *listenerSpec) fault(err error) error {
	switch {
	case l.kind != "unix":
		return listenFault(l.option, l.addr, err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(bw.AddressInUse, "%s %s: a process serves this socket", l.option, l.addr).do("end it, or give another path")
	case errors.Is(err, fs.ErrNotExist):
		return fail(bw.Usage, "%s %s: there is no directory %s", l.option, l.addr, filepath.Dir(l.addr)).do("make it, with the right to write for this process (systemd: RuntimeDirectory=), or give another path")
	}
	return fail(bw.Usage, "%s: %w", l.option, err).do("give the path of a socket that is not there yet, at most 107 bytes, in a directory that this process may write to")
}

// openListener takes the address of a listener.
func openListener(ctx context.Context, l *listenerSpec) (net.Listener, error) {
	if l.kind != "unix" {
		return mqtt.Listen(ctx, l.addr)
	}
	if err := removeStale(l.addr); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "unix", l.addr)
	if err != nil {
		return nil, err
	}
	// Until here whoever the process's umask lets may connect: mostly its owner alone,
	// for that takes the right to write.
	if err := os.Chmod(l.addr, l.mode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// removeStale removes the socket that a process left which was killed: a file of
// which nobody accepts connections. Another kind of file is nobody's to remove.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil // it is made
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &os.PathError{Op: "listen", Path: path, Err: errors.New("a file that is no socket is there")}
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return &net.OpError{Op: "listen", Net: "unix", Err: syscall.EADDRINUSE}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// serveListeners begins to serve those beside --mqtt.
func (s *server) serveListeners() {
	for _, l := range s.ports.more {
		as := mqtt.Listener{Name: l.spec.name, Anonymous: s.config.allowAnonymous, Connections: l.spec.connections, ProxyFrom: l.spec.proxies}
		if l.spec.anonymous != "" {
			as.Anonymous = l.spec.anonymous == "yes"
		}
		if l.tls != nil {
			as.TLS, as.Revoked, l.tls.changed = l.tls.config(), l.tls.revoked, s.mqtt.Outlawed
		}
		if l.spec.web() {
			as.WebSocket = &websocket.Rules{Path: l.spec.path, Origins: l.spec.origins}
		}
		listener := l.port.release()
		s.config.logger.Info("listening", "listener", l.spec.name, "kind", l.spec.kind, "addr", listener.Addr().String(), "anonymous", as.Anonymous, "proxy", as.ProxyFrom != nil)
		go func() {
			s.serveEnded(l.spec.name, s.mqtt.ServeAs(listener, as), mqtt.ErrServerClosed)
		}()
	}
	s.watchTLS()
}

// A listenerLine is a listener in the line that serve prints.
type listenerLine struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Addr string `json:"addr"`
}

// addListeners adds the listeners to the line: each by its kind, and if there are more
// than one of a kind the first.
func (s *server) addListeners(line *readyLine) {
	for _, l := range s.ports.more {
		addr := l.port.listener.Addr().String()
		for kind, field := range map[string]*string{"mqtts": &line.MQTTS, "ws": &line.WS, "wss": &line.WSS, "unix": &line.Unix} {
			if kind == l.spec.kind && *field == "" {
				*field = addr
			}
		}
		line.Listeners = append(line.Listeners, listenerLine{l.spec.name, l.spec.kind, addr})
	}
}

// takeListeners takes the addresses of all listeners beside --mqtt, and reads their
// certificates.
func (p *ports) takeListeners(ctx context.Context, c *serverConfig) (wrong faults) {
	for i := range c.listeners {
		spec := &c.listeners[i]
		var files *tlsFiles
		if spec.secure() {
			var err error
			if files, err = openTLS(spec.tls, spec.name, c.logger); err != nil {
				wrong.add(fail(bw.TLSFiles, "%s: %w", spec.option, err))
				continue
			}
		}
		l, err := openListener(ctx, spec)
		if err != nil {
			wrong.add(spec.fault(err))
			continue
		}
		p.more = append(p.more, &clientListener{*spec, holdPort(l), files})
	}
	return wrong
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is no address and no network", text)
	}
	return p.Masked(), nil
}
