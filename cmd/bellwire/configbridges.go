package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bridge"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// Bounds of what a file has of bridges.
const (
	bridgesMost      = 64
	bridgeTopicsMost = 256
)

// A bridgeSpec is a bridge as a configuration file has it.
type bridgeSpec struct {
	bridge.Config        // what needs nothing of the server
	principal     string // empty for bridge- and the name, in the cluster's domain
	passwordFile  string // empty for none
	tls           *bridgeTLS
	option        string // its place in the file, to people
}

// bridges reads what stands under bridges: a list, such as
//
//	bridges:
//	  - name: plant
//	    address: plant.example.com:8883
//	    tls: {ca: ca.pem}
//	    user: hq
//	    password_file: plant.secret
//	    topics:
//	      - {filter: "alarm/#", direction: out, qos: 1}
//	      - {filter: "#", direction: in, local_prefix: plant/, remote_prefix: state/}
func (c *configReader) bridges(v map[string]*yamltree.Node) {
	if v["bridges"] == nil {
		return
	}
	var all []bridgeSpec
	names := map[string]bool{}
	for _, n := range c.Items(v["bridges"], "bridges", bridgesMost) {
		b, at, ok := c.oneBridge(n)
		if !ok {
			continue
		}
		if b.Name != "" && names[b.Name] {
			c.FailAt(at.Pos, yamltree.Problemf("a second bridge called %s", b.Name).Hint("give each its own name: its session here goes by it"))
		}
		names[b.Name] = true
		all = append(all, b)
	}
	c.flags.bridges = &all
}

// bridgeName is what a bridge may be called: part of a topic, of a client id and of a
// principal, and the label of its metrics.
var bridgeName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (c *configReader) oneBridge(n *yamltree.Node) (b bridgeSpec, name *yamltree.Node, ok bool) {
	v, ok := c.Table(n, "a bridge", "name", "address", "tls", "protocol", "client_id", "user", "password_file", "principal", "keep_alive",
		"clean_start", "session_expiry", "window", "max_hops", "ack_timeout", "retry_max", "private", "topics")
	if !ok {
		return b, nil, false
	}
	b.Name = c.need(n, v, "name", "a bridge without a name", "give it one, such as name: plant")
	if b.Name != "" && !bridgeName.MatchString(b.Name) {
		c.FailAt(v["name"].Pos, yamltree.Problemf("%q is no name of a bridge", cut(b.Name)).Hint("up to 64 small letters, digits, '.', '-' and '_', beginning with a letter or digit: it is in topics and metrics"))
	}
	b.option = c.flags.config + ": bridge " + b.Name
	c.bridgePeer(n, v, &b)
	c.bridgeTLS(v, &b)
	c.bridgeSession(v, &b)
	if v["topics"] == nil {
		c.FailAt(n.Pos, yamltree.Problemf("a bridge without topics").Hint(`say what it carries, such as topics: [{filter: "alarm/#", direction: out, qos: 1}]`))
	}
	items := c.Items(v["topics"], "topics", bridgeTopicsMost)
	if v["topics"] != nil && v["topics"].Kind == yamltree.List && len(items) == 0 {
		c.FailAt(v["topics"].Pos, yamltree.Problemf("topics of a bridge: an empty list").Hint(`say what it carries, such as {filter: "alarm/#", direction: out, qos: 1}`))
	}
	for _, item := range items {
		if t, ok := c.bridgeTopic(item, &b); ok {
			b.Topics = append(b.Topics, t)
		}
	}
	return b, v["name"], true
}

// need is text of a key that must be there.
func (c *configReader) need(n *yamltree.Node, v map[string]*yamltree.Node, key, missing, todo string) string {
	if v[key] == nil {
		c.FailAt(n.Pos, yamltree.Problemf("%s", missing).Hint("%s", todo))
		return ""
	}
	return c.text(v, key)
}

// bridgePeer reads where the peer is, and who we are there.
func (c *configReader) bridgePeer(n *yamltree.Node, v map[string]*yamltree.Node, b *bridgeSpec) {
	if v["address"] == nil {
		c.FailAt(n.Pos, yamltree.Problemf("a bridge without an address").Hint("give host and port of the other broker, such as address: plant.example.com:1883; several are tried in turn"))
	} else {
		for _, a := range c.Values(v["address"], "address") {
			address, p := peerAddress(a.Text, v["tls"] != nil)
			if p != nil {
				c.FailAt(a.Pos, p)
				continue
			}
			b.Addresses = append(b.Addresses, address)
		}
	}
	versions := map[string]byte{"": 5, "5": 5, "3.1.1": 4, "3.1": 3}
	protocol := c.text(v, "protocol")
	if b.Version = versions[protocol]; b.Version == 0 {
		c.FailAt(v["protocol"].Pos, yamltree.Problemf("protocol: %q is no version of MQTT that a bridge speaks", cut(protocol)).Hint(`write "5", "3.1.1" or "3.1", in quotes`))
		b.Version = 5
	}
	if b.Client = c.text(v, "client_id"); b.Client == "" {
		b.Client = "bellwire-" + b.Name
	}
	b.User, b.passwordFile = c.text(v, "user"), c.path(v, "password_file")
	if b.passwordFile != "" {
		if b.User == "" && b.Version < 5 {
			c.FailAt(v["password_file"].Pos, yamltree.Problemf("a password without a user, which MQTT %s does not have", protocol).Hint("add user"))
		}
		if _, err := os.Stat(b.passwordFile); err != nil {
			c.FailAt(v["password_file"].Pos, yamltree.Problemf("password_file: %v", rootCause(err)).Hint("the file holds the password and nothing else; a line end behind it is left out"))
		}
	}
	if b.principal = c.text(v, "principal"); b.principal != "" {
		if _, err := acl.ParseAddress(b.principal, "domain.example"); err != nil {
			c.Report(v["principal"], err)
		}
	}
}

// peerAddress returns an address of a peer as it is dialled: host:port, or a URL of ws:// or
// wss:// with a path. secure says that the bridge has TLS.
func peerAddress(text string, secure bool) (string, *yamltree.Problem) {
	wrong := yamltree.Problemf("%q is no address that can be dialled", cut(text))
	host, u := text, (*url.URL)(nil)
	if strings.Contains(text, "://") {
		var err error
		u, err = url.Parse(text)
		switch {
		case err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.User != nil || u.Fragment != "":
			return "", wrong.Hint("write host:port, or for WebSocket ws://host:port/mqtt or wss://host:port/mqtt; user and password_file are keys of their own")
		case u.Scheme == "ws" && secure:
			return "", yamltree.Problemf("%q is without TLS, and the bridge has tls", cut(text)).Hint("write wss://, or remove tls")
		case u.Path == "":
			u.Path = "/mqtt"
		}
		host = u.Host
	}
	name, port, err := net.SplitHostPort(host)
	if number, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || number == 0 || name == "" {
		return "", wrong.Hint("write host:port, such as plant.example.com:1883; for TLS add tls: {}")
	}
	if u == nil {
		return text, nil
	}
	return u.String(), nil
}

func (c *configReader) bridgeTLS(v map[string]*yamltree.Node, b *bridgeSpec) {
	if v["tls"] == nil {
		return
	}
	t, ok := c.Table(v["tls"], "tls", "ca", "cert", "key", "server_name", "insecure")
	if !ok {
		return
	}
	b.tls = &bridgeTLS{ca: c.path(t, "ca"), cert: c.path(t, "cert"), key: c.path(t, "key"), serverName: c.text(t, "server_name"), insecure: c.yes(t, "insecure")}
	if (b.tls.cert == "") != (b.tls.key == "") {
		c.FailAt(v["tls"].Pos, yamltree.Problemf("a certificate needs its key, and a key its certificate").Hint("give both cert and key, or neither"))
		return
	}
	if _, err := b.tls.config(); err != nil {
		c.FailAt(v["tls"].Pos, yamltree.Problemf("%v", err).Hint("ca: FILE with the authorities that the peer's certificate is of; cert and key: FILEs that prove to the peer who this is"))
	}
}

// bridgeSession reads what is said of the connection and of the session at the peer.
func (c *configReader) bridgeSession(v map[string]*yamltree.Node, b *bridgeSpec) {
	b.KeepAlive = c.spanOf(v, "keep_alive", time.Minute, time.Second, 65_535*time.Second).Truncate(time.Second)
	b.AckTimeout = c.spanOf(v, "ack_timeout", time.Minute, time.Second, time.Hour)
	b.RetryMax = c.spanOf(v, "retry_max", 30*time.Second, time.Second, time.Hour)
	window := 100
	if b.Version < 5 { // the peer cannot say what it takes, and mosquitto acknowledges what it does not
		window = 20
	}
	b.Window = c.countOf(v, "window", window, 65_535)
	b.MaxHops = c.countOf(v, "max_hops", 8, 1000)
	b.Clean = c.yes(v, "clean_start")
	b.Expiry = 1<<32 - 1
	if v["session_expiry"] != nil {
		b.Expiry = uint32(c.spanOf(v, "session_expiry", 0, time.Second, (1<<32-2)*time.Second) / time.Second)
		if b.Version < 5 {
			c.FailAt(v["session_expiry"].Pos, yamltree.Problemf("session_expiry is for MQTT 5").Hint("remove it: in older versions the peer says how long it keeps sessions"))
		}
	}
	if v["private"] != nil {
		b.NoPrivate = !c.yes(v, "private")
		if b.Version == 5 {
			c.FailAt(v["private"].Pos, yamltree.Problemf("private is for MQTT 3.1.1 and 3.1").Hint("remove it: in MQTT 5 a subscription itself says that nothing is to come back"))
		}
	}
}

// spanOf reads a time between bounds; def if the file has none.
func (c *configReader) spanOf(v map[string]*yamltree.Node, key string, def, least, most time.Duration) time.Duration {
	text := c.text(v, key)
	if text == "" {
		return def
	}
	span, p := parseSpan(text)
	if p == nil && (time.Duration(span) < least || time.Duration(span) > most) {
		p = yamltree.Problemf("%s: %s, want %v to %v", key, cut(text), least, most)
	}
	if p != nil {
		c.FailAt(v[key].Pos, p)
		return def
	}
	return time.Duration(span)
}

// countOf reads a number from 1 to most; def if the file has none.
func (c *configReader) countOf(v map[string]*yamltree.Node, key string, def, most int) int {
	text := c.text(v, key)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		c.FailAt(v[key].Pos, yamltree.Problemf("%s: %q, want 1 to %d", key, cut(text), most))
		return def
	}
	return n
}

func (c *configReader) bridgeTopic(n *yamltree.Node, b *bridgeSpec) (t bridge.Topic, ok bool) {
	v, ok := c.Table(n, "a topic of a bridge", "filter", "direction", "qos", "local_prefix", "remote_prefix", "retain")
	if !ok {
		return t, false
	}
	t.Filter = c.need(n, v, "filter", "a topic of a bridge without a filter", `write filter: "alarm/#"; with prefixes it is what follows them`)
	directions := map[string]bridge.Direction{"out": bridge.Out, "in": bridge.In, "both": bridge.Both}
	direction := c.need(n, v, "direction", "a topic of a bridge without a direction", "write direction: out (from here to the peer), in, or both")
	if t.Direction = directions[direction]; t.Direction == 0 && direction != "" {
		p := yamltree.Problemf("%q is no direction", cut(direction))
		c.FailAt(v["direction"].Pos, p.Near(direction, []string{"out", "in", "both"}, "write out (from here to the peer), in, or both"))
	}
	switch qos := c.text(v, "qos"); qos {
	case "":
		t.QoS = 1
	case "0", "1", "2":
		t.QoS = qos[0] - '0'
	default:
		c.FailAt(v["qos"].Pos, yamltree.Problemf("qos: %q, want 0, 1 or 2", cut(qos)))
	}
	t.NoRetain = v["retain"] != nil && !c.yes(v, "retain")
	t.Local, t.Remote = c.prefix(v, "local_prefix"), c.prefix(v, "remote_prefix")
	if t.Filter != "" {
		c.bridgeFilter(v["filter"], &t)
	}
	return t, true
}

func (c *configReader) prefix(v map[string]*yamltree.Node, key string) string {
	text := c.text(v, key)
	if strings.ContainsAny(text, "+#") {
		c.FailAt(v[key].Pos, yamltree.Problemf("%s %q has a wildcard", key, cut(text)).Hint("a prefix is what all names have in front; wildcards stand in filter"))
		return ""
	}
	return text
}

func (c *configReader) bridgeFilter(n *yamltree.Node, t *bridge.Topic) {
	if _, _, shared, _ := topic.SplitShare(t.Filter); shared || strings.HasPrefix(t.Filter, "$share") {
		c.FailAt(n.Pos, yamltree.Problemf("a bridge has no shared subscriptions").Hint("write the filter without $share/GROUP/: one node of the cluster runs the bridge"))
		return
	}
	for _, side := range []string{t.Local, t.Remote} {
		if err := topic.ValidFilter(side + t.Filter); err != nil {
			c.FailAt(n.Pos, yamltree.Problemf("%q is no topic filter: %v", cut(side+t.Filter), err).Hint("a prefix goes in front as it is: end it with / unless the level is to go on"))
			return
		}
	}
}

// readPassword returns a password from a file, without a line end behind it.
func readPassword(name string) ([]byte, error) {
	data, err := readRegular(name, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	return []byte(strings.TrimRight(string(data), "\r\n")), nil
}
