package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/cluster/certs"
	"github.com/bellwire/bellwire/yamltree"
)

// clusterFlags are the flags of serve for a node that is one of several. Without
// listen it runs alone, and the others have no meaning.
type clusterFlags struct {
	listen, advertise string
	advertiseMQTT     string
	name              string
	join              string // addresses, separated by commas
	bootstrap         bool
	tls               string // directory
	nonVoter          bool
	removeDead        time.Duration // 0: never
}

// leastDead is the least that --remove-dead-after may be, but for 0: a restart, and
// a partition that heals, must not cost a node its place.
const leastDead = 10 * time.Second

func (f *clusterFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "cluster", "", "`address` for the other nodes of a cluster; without it the node runs alone")
	flags.StringVar(&f.advertise, "advertise", "", "`address` by which the other nodes reach --cluster; that itself if empty")
	flags.StringVar(&f.advertiseMQTT, "advertise-mqtt", "", "`address` by which clients reach --mqtt: other nodes tell it to those whom they send away; that itself if empty, unless it is on loopback and --cluster is not")
	flags.StringVar(&f.join, "join", "", "at the first start: `addresses` of nodes of the cluster to join, separated by commas")
	flags.BoolVar(&f.bootstrap, "bootstrap", false, "at the first start: begin a new cluster, for others to join. A node of one whose disk was emptied comes back with --join")
	flags.StringVar(&f.name, "cluster-name", "", "with --bootstrap, at the first start: `name` of the cluster, shown and typed where something cannot be undone; bellwire if empty")
	flags.StringVar(&f.tls, "cluster-tls", "", "`directory` with ca.crt, node.crt and node.key, as bellwire cert node makes it")
	flags.BoolVar(&f.nonVoter, "non-voter", false, "join without asking for a vote: the node holds everything and serves clients, and its being away delays nobody; bellwire cluster promote gives it one")
	flags.DurationVar(&f.removeDead, "remove-dead-after", 0, "take a node out of the cluster that has been silent for this `time`, if the others have a quorum, such as 72h; 0 is never. The leader's counts: give it to all alike")
}

// addresses returns the ones of join.
func (f *clusterFlags) addresses() (all []string) {
	for a := range strings.SplitSeq(f.join, ",") {
		if a = strings.TrimSpace(a); a != "" {
			all = append(all, a)
		}
	}
	return all
}

// check says what is missing or makes no sense together. node is the node's
// name; first says that its data directory is new.
func (f *clusterFlags) check(node string, first bool) error {
	var wrong faults
	if f.listen == "" {
		return f.checkAlone()
	}
	const example = "--cluster 10.0.0.1:7400"
	if err := checkAddress("--cluster", f.listen, "10.0.0.1:7400"); err != nil {
		wrong.add(err)
	} else if host, _, _ := net.SplitHostPort(f.listen); f.advertise == "" && unspecified(host) {
		wrong.add(fail(bw.Usage, "--cluster %s is every address of this machine: other nodes cannot be told to dial that", f.listen).
			do("name one, such as %s, or add --advertise HOST:PORT, by which they reach it", example))
	}
	if f.advertise != "" {
		wrong.add(checkPeer("--advertise", f.advertise))
	}
	if f.advertiseMQTT != "" {
		wrong.add(checkPeer("--advertise-mqtt", f.advertiseMQTT))
	}
	if f.bootstrap && f.join != "" {
		wrong.add(fail(bw.Usage, "--bootstrap begins a new cluster, --join makes the node part of one that exists").
			do("give --bootstrap to the first node and --join to the others"))
	}
	if !f.bootstrap && f.join == "" && first {
		wrong.add(fail(bw.Usage, "the data directory is new, and it is not said what cluster the node is to be in").
			do("give --bootstrap to the first node of a new cluster, and --join ADDR of a running one to each other"))
	}
	if f.name != "" {
		if err := cluster.CheckClusterName(f.name); err != nil {
			wrong.add(fail(bw.Usage, "--cluster-name: %w", err).do("give the cluster a name, such as --cluster-name prod"))
		}
	}
	for _, a := range f.addresses() {
		wrong.add(checkPeer("--join", a))
	}
	if f.nonVoter && f.bootstrap {
		wrong.add(fail(bw.Usage, "--bootstrap begins a cluster, whose first node has to vote, and --non-voter wants no vote").
			do("give --non-voter to nodes that join"))
	}
	if f.removeDead < 0 || f.removeDead > 0 && f.removeDead < leastDead {
		wrong.add(fail(bw.Usage, "--remove-dead-after %v: want 0, which is never, or %v and more", f.removeDead, leastDead).
			do("who is taken out has to join anew with an empty disk: leave time for repairs, such as 72h"))
	}
	if err := certs.CheckName(node); node != "" && err != nil {
		wrong.add(fail(bw.Usage, "--node: %w", err).do("give the node a name, such as --node n1; its certificate is for that name"))
	}
	if f.tls == "" {
		wrong.add(fail(bw.Usage, "--cluster needs --cluster-tls, the directory of the node's certificate").
			do("bellwire cert ca --out CA, bellwire cert node --ca CA --name %s --out DIR, then --cluster-tls DIR", node))
	}
	return wrong.err()
}

// checkAlone says which flags were given that mean nothing to a node alone.
func (f *clusterFlags) checkAlone() error {
	var wrong faults
	for _, c := range []struct {
		flag  string
		given bool
	}{{"--advertise", f.advertise != ""}, {"--advertise-mqtt", f.advertiseMQTT != ""}, {"--join", f.join != ""}, {"--bootstrap", f.bootstrap}, {"--cluster-name", f.name != ""}, {"--cluster-tls", f.tls != ""}, {"--non-voter", f.nonVoter}, {"--remove-dead-after", f.removeDead != 0}} {
		if c.given {
			wrong.add(fail(bw.Usage, "%s is for a node of a cluster, and there is no --cluster", c.flag).
				do("add --cluster ADDR, where the other nodes reach this one, or leave %s out", c.flag))
		}
	}
	return wrong.err()
}

// checkPeer says what is wrong with an address that others are to dial.
func checkPeer(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || unspecified(host) || port == "0" {
		return fail(bw.Usage, "%s %q is no address that can be dialled", flag, addr).do("give host and port, such as %s 10.0.0.1:7400", flag)
	}
	return nil
}

// unspecified says that host means every address of the machine.
func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// credentials opens the node's certificate; nil for a node alone, and where it is
// not said where they are, which check tells.
func (f *clusterFlags) credentials(c *serverConfig) error {
	if f.listen == "" || f.tls == "" || certs.CheckName(c.node) != nil {
		return nil
	}
	// The clock of certificates is the machine's, also where the node's own
	// stands still for a test.
	creds, err := certs.Open(f.tls, c.node, time.Now, c.logger)
	if err != nil {
		return fail(bw.ClusterTLS, "--cluster-tls: %w", err)
	}
	c.credentials = creds
	return nil
}

// newDirectory says that no node has been started in the data directory dir.
func newDirectory(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "node.json"))
	return errors.Is(err, fs.ErrNotExist)
}

// cluster reads what stands under cluster.
func (c *configReader) cluster(v map[string]*yamltree.Node) {
	if v["cluster"] == nil {
		return
	}
	l, ok := c.Table(v["cluster"], "cluster", "listen", "advertise", "advertise_mqtt", "join", "bootstrap", "name", "tls", "non_voter", "remove_dead_after")
	if !ok {
		return
	}
	if l["listen"] == nil {
		c.FailAt(v["cluster"].Pos, yamltree.Problemf("cluster without an address").Hint(`write cluster: {listen: "10.0.0.1:7400"}`))
	}
	f := &c.flags.member
	listen := c.text(l, "listen")
	if listen != "" {
		if p := checkListen(listen); p != nil {
			c.FailAt(l["listen"].Pos, p)
		}
	}
	c.set(&f.listen, "cluster", listen)
	c.set(&f.advertise, "advertise", c.text(l, "advertise"))
	c.set(&f.advertiseMQTT, "advertise-mqtt", c.text(l, "advertise_mqtt"))
	c.set(&f.join, "join", c.list(l, "join"))
	c.set(&f.name, "cluster-name", c.text(l, "name"))
	c.set(&f.tls, "cluster-tls", c.path(l, "tls"))
	c.setYes(&f.bootstrap, "bootstrap", c.yes(l, "bootstrap"))
	c.setYes(&f.nonVoter, "non-voter", c.yes(l, "non_voter"))
	if text := c.text(l, "remove_dead_after"); text != "" && text != "0" {
		span, p := parseSpan(text)
		if p != nil {
			c.FailAt(l["remove_dead_after"].Pos, p)
		} else if !c.given("remove-dead-after") {
			f.removeDead = time.Duration(span)
		}
	}
}

// list returns the values of key, one or several, separated by commas.
func (c *configReader) list(v map[string]*yamltree.Node, key string) string {
	if v[key] == nil {
		return ""
	}
	var all []string
	for _, n := range c.Values(v[key], key) {
		all = append(all, n.Text)
	}
	return strings.Join(all, ",")
}
