package main

import (
	"fmt"
	"io/fs"
	"strconv"

	"github.com/bellwire/bellwire/yamltree"
)

// listenersMost bounds how many listeners a file has.
const listenersMost = 64

// listeners reads what stands under listeners: a list, such as
//
//	listeners:
//	  - {name: public, mqtts: ":8883", tls: {cert: cert.pem, key: key.pem}, max_conns: 5000}
//	  - {name: web, ws: "127.0.0.1:8083", origins: ["https://app.example.com"], proxy: [127.0.0.1]}
//	  - {name: local, unix: /run/bellwire/mqtt.sock, mode: "0660", anonymous: true}
func (c *configReader) listeners(v map[string]*yamltree.Node) {
	if v["listeners"] == nil {
		return
	}
	var all []listenerSpec
	for _, n := range c.Items(v["listeners"], "listeners", listenersMost) {
		if l, ok := c.oneListener(n); ok {
			all = append(all, l)
		}
	}
	c.flags.listen.inFile = &all
}

func (c *configReader) oneListener(n *yamltree.Node) (l listenerSpec, ok bool) {
	keys := append([]string{"name", "tls", "path", "origins", "mode", "anonymous", "proxy", "max_conns"}, listenerKinds...)
	v, ok := c.Table(n, "a listener", keys...)
	if !ok {
		return l, false
	}
	l.mode = socketMode
	for _, kind := range listenerKinds {
		if v[kind] == nil {
			continue
		}
		if l.kind != "" {
			c.FailAt(v[kind].Pos, yamltree.Problemf("a listener is of one kind, and this is %s and %s", l.kind, kind).Hint("make two of it"))
			return l, false
		}
		l.kind = kind
	}
	if l.kind == "" {
		c.FailAt(n.Pos, yamltree.Problemf("a listener without an address").Hint(`give one of mqtt, mqtts, ws, wss and unix, such as mqtts: ":8883"`))
		return l, false
	}
	if l.kind == "unix" {
		l.addr = c.path(v, "unix")
	} else if l.addr = c.text(v, l.kind); l.addr != "" {
		if p := checkListen(l.addr); p != nil {
			c.FailAt(v[l.kind].Pos, p)
		}
	}
	if l.name = c.text(v, "name"); l.name == "" {
		l.name = l.kind + " " + l.addr
	}
	l.option = fmt.Sprintf("%s: listener %s", c.flags.config, l.name)
	l.anonymous = ""
	if v["anonymous"] != nil {
		l.anonymous = map[bool]string{true: "yes", false: "no"}[c.yes(v, "anonymous")]
	}
	c.listenerTLS(v, &l)
	c.listenerWeb(v, &l)
	c.listenerBounds(v, &l)
	return l, true
}

func (c *configReader) listenerTLS(v map[string]*yamltree.Node, l *listenerSpec) {
	n := v["tls"]
	if n == nil {
		return // that it is missing is told with what to do
	}
	if !l.secure() {
		c.FailAt(n.Pos, yamltree.Problemf("tls of a listener of kind %s", l.kind).Hint("mqtts and wss have TLS: write %ss, or remove tls", l.kind))
		return
	}
	t, ok := c.Table(n, "tls", "cert", "key", "client_ca", "client_cert", "client_crl", "client_crl_stale", "min")
	if ok {
		l.tls = tlsSpec{cert: c.path(t, "cert"), key: c.path(t, "key"), clientCA: c.path(t, "client_ca"), clientCert: c.text(t, "client_cert"), min: c.text(t, "min"), stale: c.text(t, "client_crl_stale")}
		if t["client_crl"] != nil {
			for _, n := range c.Values(t["client_crl"], "client_crl") {
				l.tls.revoked = append(l.tls.revoked, c.absolute(n.Text))
			}
		}
	}
}

func (c *configReader) listenerWeb(v map[string]*yamltree.Node, l *listenerSpec) {
	for _, key := range []string{"path", "origins"} {
		if v[key] != nil && !l.web() {
			c.FailAt(v[key].Pos, yamltree.Problemf("%s of a listener of kind %s", key, l.kind).Hint("it is for ws and wss: remove it"))
			return
		}
	}
	if l.path = c.text(v, "path"); l.path != "" && l.path[0] != '/' {
		c.FailAt(v["path"].Pos, yamltree.Problemf("path %q does not begin with /", cut(l.path)).Hint("write %q", "/"+l.path))
	}
	if v["origins"] != nil {
		for _, n := range c.Values(v["origins"], "origins") {
			l.origins = append(l.origins, n.Text)
		}
	}
	if mode := c.text(v, "mode"); mode != "" {
		bits, err := strconv.ParseUint(mode, 8, 9)
		if err != nil || l.kind != "unix" {
			c.FailAt(v["mode"].Pos, yamltree.Problemf("mode %q of a listener of kind %s", cut(mode), l.kind).Hint(`it is for unix, and in octal, such as mode: "0660"`))
		}
		l.mode = fs.FileMode(bits)
	}
}

func (c *configReader) listenerBounds(v map[string]*yamltree.Node, l *listenerSpec) {
	if n := v["proxy"]; n != nil {
		for _, p := range c.Values(n, "proxy") {
			prefix, err := parsePrefix(p.Text)
			if err != nil {
				c.FailAt(p.Pos, yamltree.Problemf("proxy: %v", err).Hint("list the addresses of proxies that are to be believed, such as 10.0.0.0/8"))
				continue
			}
			l.proxies = append(l.proxies, prefix)
		}
	}
	if text := c.text(v, "max_conns"); text != "" {
		most, err := strconv.ParseUint(text, 10, 30)
		if err != nil || most == 0 {
			c.FailAt(v["max_conns"].Pos, yamltree.Problemf("max_conns: %q, want 1 to %d", cut(text), countMax).Hint("remove it for no bound but limits: {connections: …}"))
		}
		l.connections = int(most)
	}
}
