package main

import (
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/yamltree"
)

// readConfig gives each flag of serve that was neither on the command line nor
// in the environment the value that the configuration file has for it, where
// there is one. given says which were. The error tells everything that is
// wrong with the file; what is right in it has been taken nevertheless, so that
// the files it names can be checked at the same time.
func (f *serveFlags) readConfig(given func(flag string) bool) error {
	if f.config == "" {
		return nil
	}
	data, err := readAtMost(f.config, yamltree.MaxFile+1)
	if err != nil {
		return fileFault(bw.ConfigFile, f.config, err)
	}
	r, top := yamltree.Read(f.config, data, yamltree.Form{})
	f.said = top
	if top != nil && top.Kind != yamltree.Null {
		c := configReader{Reader: r, dir: filepath.Dir(f.config), flags: f, given: given}
		c.read(top)
	}
	if err := r.Err(); err != nil {
		return fileFault(bw.ConfigFile, f.config, err)
	}
	return nil
}

// A configReader reads the values of a configuration file into flags. A value
// that a flag overrides is checked like the others: a file is right or wrong
// whatever is on the command line.
type configReader struct {
	*yamltree.Reader
	dir   string // of the file: its relative paths begin there
	flags *serveFlags
	given func(flag string) bool
}

func (c *configReader) read(top *yamltree.Node) {
	v, ok := c.Table(top, "a configuration", "node", "domain", "data", "mqtt", "listeners", "bridges", "http", "cluster", "policy", "limits", "allow_anonymous", "sys_interval", "hold_level", "pprof", "verbose")
	if !ok {
		return
	}
	c.set(&c.flags.node, "node", c.text(v, "node"))
	c.set(&c.flags.domain, "domain", c.domain(v))
	c.set(&c.flags.data, "data", c.path(v, "data"))
	c.set(&c.flags.mqtt, "mqtt", c.listener(v, "mqtt"))
	c.http(v)
	c.listeners(v)
	c.bridges(v)
	c.cluster(v)
	c.set(&c.flags.policy, "policy", c.path(v, "policy"))
	c.limits(v)
	c.setYes(&c.flags.allowAnonymous, "allow-anonymous", c.yes(v, "allow_anonymous"))
	c.sysInterval(v)
	c.holdLevel(v)
	c.setYes(&c.flags.pprof, "pprof", c.yes(v, "pprof"))
	c.setYes(&c.flags.verbose, "verbose", c.yes(v, "verbose"))
}

// set gives a flag a value from the file, if the file has one and nothing
// that counts more does.
func (c *configReader) set(value *string, flag, text string) {
	if text != "" && !c.given(flag) {
		*value = text
	}
}

// setYes is set for what is true or false; a file that does not say it says
// false, which is every such flag's default.
func (c *configReader) setYes(value *bool, flag string, yes bool) {
	if !c.given(flag) {
		*value = yes
	}
}

// text returns the value of key, empty if it is missing or faulty.
func (c *configReader) text(v map[string]*yamltree.Node, key string) string {
	n := v[key]
	if n == nil {
		return ""
	}
	text, ok := c.Text(n, key)
	if ok && text == "" {
		c.FailAt(n.Pos, yamltree.Problemf("%s is empty", key).Hint("give it a value or remove it"))
	}
	return text
}

func (c *configReader) domain(v map[string]*yamltree.Node) string {
	text := c.text(v, "domain")
	if text == "" {
		return ""
	}
	if _, err := acl.ParseDomain(text); err != nil {
		c.Report(v["domain"], err)
	}
	return text
}

func (c *configReader) sysInterval(v map[string]*yamltree.Node) {
	text := c.text(v, "sys_interval")
	if text == "" {
		return
	}
	span, p := int64(0), (*yamltree.Problem)(nil)
	if text != "0" {
		span, p = parseSpan(text)
	}
	if p != nil {
		c.FailAt(v["sys_interval"].Pos, p)
	} else if !c.given("sys-interval") {
		c.flags.sysInterval = time.Duration(span)
	}
}

func (c *configReader) holdLevel(v map[string]*yamltree.Node) {
	text := c.text(v, "hold_level")
	if text == "" {
		return
	}
	level, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		c.FailAt(v["hold_level"].Pos, yamltree.Problemf("hold_level: %q, want a feature level, 0 to 255", cut(text)).Hint("bellwire cluster status shows the one in force and what each node supports"))
	}
	if !c.given("hold-level") {
		c.flags.holdLevel = uint8(level)
	}
}

// path returns a path as this process has to say it.
func (c *configReader) path(v map[string]*yamltree.Node, key string) string {
	return c.absolute(c.text(v, key))
}

// absolute returns a path of the file, relative to where the file lies.
func (c *configReader) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.dir, path)
}

// listenerLater are the keys that those under listeners have.
var listenerLater = map[string]later{
	"tls":       {"this address has no TLS", "remove tls, and write listeners: [{mqtts: \":8883\", tls: {cert: FILE, key: FILE}}]"},
	"max_conns": {"this address has no bound of its own", "remove it; limits: {connections: 10000} bounds those of all, max_conns under listeners: those of one"},
}

// http reads http: an address, and its certificate and key.
func (c *configReader) http(v map[string]*yamltree.Node) {
	addr, l := c.address(v, "http", "tls", "mqtt")
	c.set(&c.flags.http, "http", addr)
	c.setYes(&c.flags.httpMQTT, "http-mqtt", c.yes(l, "mqtt"))
	if l["tls"] == nil {
		return
	}
	t, ok := c.Table(l["tls"], "tls", "cert", "key", "min")
	if !ok {
		return
	}
	c.set(&c.flags.httpTLS.cert, "http-tls-cert", c.path(t, "cert"))
	c.set(&c.flags.httpTLS.key, "http-tls-key", c.path(t, "key"))
	c.set(&c.flags.httpTLS.min, "tls-min", c.text(t, "min"))
}

// listener returns the address of a listener.
func (c *configReader) listener(v map[string]*yamltree.Node, key string) string {
	addr, _ := c.address(v, key)
	return addr
}

// address returns the address of a listener, and all that it has: more are the keys beside
// addr.
func (c *configReader) address(v map[string]*yamltree.Node, key string, more ...string) (addr string, l map[string]*yamltree.Node) {
	if v[key] == nil {
		return "", nil
	}
	if v[key].Kind == yamltree.Scalar {
		addr := v[key].Text
		if _, err := strconv.ParseUint(addr, 10, 16); err == nil {
			addr = "127.0.0.1:" + addr
		}
		c.FailAt(v[key].Pos, yamltree.Problemf("%s is a single value, want a mapping", key).Hint("write %s: {addr: %q}", key, cut(addr)))
		return "", nil
	}
	without := maps.Clone(listenerLater)
	maps.DeleteFunc(without, func(key string, _ later) bool { return slices.Contains(more, key) })
	l, ok := c.Table(withoutLater(c.Reader, v[key], without), key, append(more, "addr")...)
	if !ok {
		return "", nil
	}
	if l["addr"] == nil {
		c.FailAt(v[key].Pos, yamltree.Problemf("%s without an address", key).Hint(`write %s: {addr: "127.0.0.1:0"}`, key))
		return "", nil
	}
	if addr = c.text(l, "addr"); addr == "" {
		return "", l
	}
	if p := checkListen(addr); p != nil && (key != "mqtt" || addr != noListener) {
		c.FailAt(l["addr"].Pos, p)
		return "", l
	}
	return addr, l
}

// checkListen says what is wrong with an address to listen on, without asking
// anybody about names in it.
func checkListen(addr string) *yamltree.Problem {
	const form = "write host:port, such as 127.0.0.1:1883; without a host it is every address of this machine"
	if _, err := strconv.ParseUint(addr, 10, 16); err == nil {
		return yamltree.Problemf("%s is a port without an address", addr).Hint(`write "127.0.0.1:%s", or ":%s" for every address of this machine`, addr, addr)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return yamltree.Problemf("%q is no address to listen on", cut(addr)).Hint(form)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return yamltree.Problemf("%q is no port", cut(port)).Hint("ports are numbers from 0, which takes a free one, to 65535")
	}
	return nil
}

// limits reads what stands under limits: the path of a file, or the rows.
func (c *configReader) limits(v map[string]*yamltree.Node) {
	n := v["limits"]
	if n == nil {
		return
	}
	if n.Kind != yamltree.Table {
		c.set(&c.flags.limits, "limits", c.path(v, "limits"))
		return
	}
	rest := *n
	rest.Keys = slices.DeleteFunc(slices.Clone(n.Keys), func(k yamltree.Key) bool { return k.Name == "principals" })
	rows := readLimitRows(c.Reader, &rest, "limits")
	for _, k := range n.Keys {
		if k.Name == "principals" {
			readPrincipals(c.Reader, k.Value, &rows)
		}
	}
	if !c.given("limits") {
		c.flags.limitRows = rows
	}
}

// A later is a key that files do not have, or not yet, and who writes it is told what to do.
type later struct{ what, todo string }

// withoutLater reports those keys of n that are in keys, and returns n without
// them.
func withoutLater(r *yamltree.Reader, n *yamltree.Node, keys map[string]later) *yamltree.Node {
	known := *n
	known.Keys = slices.DeleteFunc(slices.Clone(n.Keys), func(k yamltree.Key) bool {
		l, isLater := keys[k.Name]
		if isLater {
			r.FailAt(k.Pos, yamltree.Problemf("%s", l.what).Hint("%s", l.todo))
		}
		return isLater
	})
	return &known
}

// yes returns the value of key, which is true or false.
func (c *configReader) yes(v map[string]*yamltree.Node, key string) bool {
	text := c.text(v, key)
	switch text {
	case "", "true", "false":
		return text == "true"
	}
	p := yamltree.Problemf("%s: %q is not true or false", key, cut(text))
	switch strings.ToLower(text) {
	case "yes", "on", "true", "1":
		p.Hint("write true")
	case "no", "off", "false", "0":
		p.Hint("write false")
	}
	c.FailAt(v[key].Pos, p)
	return false
}
