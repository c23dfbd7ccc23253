package blackbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A trio is a cluster of three processes, each with an address of its own on the
// loopback interface, which it keeps when it is started again.
type trio struct {
	t      testing.TB
	nodes  []*server
	http   []string
	policy string
}

// trioPolicy lets everybody do everything. Its operator's token is sesame.
const trioPolicy = `users:
  ana@example.com: {token_sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"}
groups:
  operators: [ana@example.com]
rules:
  - {id: all, allow: [publish, subscribe], who: [anyone], topic: ["#"]}
`

// trios counts those of this process, so that no two share addresses.
var trios atomic.Uint32

const clusterSize = 3

// gateRate is how many events a second the load of a cluster is held at in every
// run, when other tests run beside it; soakRate when soaking.
const gateRate, soakRate = 500, 5000

// clusterRate is either, or BELLWIRE_RATE: 5,000 events a second with three nodes, and
// the clients that judge them, want two cores for themselves.
func clusterRate() int64 {
	if n, err := strconv.ParseInt(os.Getenv("BELLWIRE_RATE"), 10, 64); err == nil && n > 0 {
		return n
	}
	return int64(effort.Rounds(gateRate, soakRate))
}

// machineIsOurs says whether times are held to what is promised: when soaking, but not
// where BELLWIRE_RATE says that the machine has other work.
func machineIsOurs() bool { return effort.Soaking() && clusterRate() >= soakRate }

// A plan says where the nodes of a trio are.
type plan struct {
	host   func(i int) string
	prefix func(i int) []string // what to run a node under; nil for nothing
	dir    func(i int) string   // of its data; nil for one of the test's
	policy string               // the operator's; empty for trioPolicy
	binary string               // another than the one under test; empty for that
}

// loopback returns a plan for nodes on this machine.
func loopback() plan {
	// The nodes of one trio differ in the last two bits; the other bits are the
	// process's and the trio's.
	at := uint32(64+os.Getpid()>>8&63)<<16 | uint32(os.Getpid()&255)<<8 | trios.Add(1)<<2&255
	return plan{host: func(i int) string {
		n := at + uint32(i)
		return fmt.Sprintf("127.%d.%d.%d", n>>16, n>>8&255, n&255)
	}}
}

// newTrio starts three nodes with further flags and waits until all have a vote.
func newTrio(t testing.TB, flags ...string) *trio {
	t.Helper()
	return loopback().start(t, flags...)
}

// newCabledTrio is newTrio with a network that can be cut.
func newCabledTrio(t testing.TB, flags ...string) (*trio, *cables) {
	t.Helper()
	k := layCables(t)
	p := plan{host: k.host, prefix: func(i int) []string { return k.within(k.spaces[i]) }}
	return p.start(t, flags...), k
}

func (p plan) start(t testing.TB, flags ...string) *trio {
	t.Helper()
	if target != "" {
		t.Skipf("missing: servers of our own, BELLWIRE_BLACKBOX_TARGET=%s is set", target)
	}
	if p.policy == "" {
		p.policy = trioPolicy
	}
	c := &trio{t: t, policy: writeFile(t, "policy.yaml", p.policy)}
	for i := range clusterSize {
		c.prepare(i, p, flags)
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.await("three voters that answer", allVote)
	return c
}

// allVote says whether there are three voters that answer.
func allVote(all []member) bool {
	return len(all) == clusterSize && !slices.ContainsFunc(all, func(m member) bool { return !m.Voter || m.Role == "down" })
}

// prepare makes node i.
func (c *trio) prepare(i int, p plan, flags []string) {
	c.t.Helper()
	dir, host := c.t.TempDir(), p.host(i)
	ca := filepath.Join(filepath.Dir(c.policy), "ca")
	if i == 0 {
		if _, stderr, code := run(c.t, "cert", "ca", "--out", ca); code != 0 {
			c.t.Fatalf("cert ca: %d %s", code, stderr)
		}
	}
	name, tls := fmt.Sprint("n", i+1), filepath.Join(dir, "tls")
	if _, stderr, code := run(c.t, "cert", "node", "--ca", ca, "--name", name, "--out", tls); code != 0 {
		c.t.Fatalf("cert node: %d %s", code, stderr)
	}
	s := &server{t: c.t, dir: filepath.Join(dir, "data"), logs: new(logBuffer), binary: p.binary}
	if p.dir != nil {
		s.dir = p.dir(i)
	}
	if p.prefix != nil {
		s.prefix = p.prefix(i)
	}
	s.args = append([]string{
		"serve", "--data", s.dir, "--domain", "example.com", "--allow-anonymous", "--policy", c.policy, "--node", name,
		"--mqtt", host + ":1883", "--http", host + ":8080", "--cluster", host + ":7400", "--cluster-tls", tls,
	}, flags...)
	if i == 0 {
		s.args = append(s.args, "--bootstrap")
	} else {
		s.args = append(s.args, "--join", c.nodes[0].ready.Cluster)
	}
	s.ready.Cluster = host + ":7400" // for those that are prepared before it runs
	c.nodes, c.http = append(c.nodes, s), append(c.http, host+":8080")
	c.t.Cleanup(s.cleanup)
}

// ask runs a verb of cluster at node i, as the operator.
func (c *trio) ask(i int, verb ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	return run(c.t, append(append([]string{"cluster"}, verb...), "--server", c.http[i], "-u", "ana", "-P", "sesame")...)
}

// A member is a node as cluster status shows it.
type member struct {
	ID, Name, Role string
	Voter          bool
	Applied        uint64
	Level          int // the feature level in force on it; 0 if who is asked knows of none
	Supports       int
}

// status asks a node for the cluster's; nil if it does not answer.
func (c *trio) status(i int) (all []member) {
	c.t.Helper()
	out, _, code := c.ask(i, "status", "-o", "json", "--timeout", "5s")
	if code != 0 || json.Unmarshal([]byte(out), &all) != nil {
		return nil
	}
	return all
}

// await asks the nodes, one after the other, until one that answers has it so.
func (c *trio) await(what string, ok func([]member) bool) {
	c.t.Helper()
	i := 0
	until(c.t, what, 60*time.Second, func() bool {
		i++
		all := c.status(i % clusterSize)
		return all != nil && ok(all)
	})
}

// leader returns the node that leads, waiting for there to be one.
func (c *trio) leader() (at int) {
	c.t.Helper()
	c.await("a leader", func(all []member) bool {
		at = slices.IndexFunc(all, func(m member) bool { return m.Role == "leader" })
		return at >= 0
	})
	return at
}

// replaceable returns a node that does not lead and can join anew, which the founder cannot:
// it was started with --bootstrap. Where both others can, turn says which.
func (c *trio) replaceable(turn int) int {
	c.t.Helper()
	leader := c.leader()
	i := (leader + 1 + turn) % clusterSize
	if i == 0 {
		i = clusterSize - leader
	}
	return i
}

// addresses are where clients may connect, the first one first.
func (c *trio) addresses(first int) (all []string) {
	for i := range c.nodes {
		all = append(all, c.nodes[(first+i)%clusterSize].ready.MQTT)
	}
	return all
}

// load is a paced load whose clients begin at different nodes, and turn to the next
// when theirs does not answer.
func (c *trio) load() *load {
	c.t.Helper()
	l := newPacedLoad(c.t, c.nodes[0], clusterRate())
	l.homes = map[string][]string{}
	for i, p := range l.publishers {
		l.homes[p.id] = c.addresses(i)
	}
	for i, s := range l.subscribers {
		l.homes[s.id] = c.addresses(i + 1)
	}
	return l
}

// lag is by how many entries the node that is furthest behind is behind the first.
func lag(all []member) uint64 {
	least, most := all[0].Applied, all[0].Applied
	for _, m := range all {
		least, most = min(least, m.Applied), max(most, m.Applied)
	}
	return most - least
}

// caughtUp waits until all nodes are there and none lags by more than what the load
// orders while they are asked.
func (c *trio) caughtUp() {
	c.t.Helper()
	c.await("all nodes have caught up", func(all []member) bool { return allVote(all) && lag(all) < uint64(clusterRate()) })
}

// alike waits until all nodes have applied all and have the same state, and
// compares.
func (c *trio) alike() {
	c.t.Helper()
	c.await("no node lags", func(all []member) bool { return allVote(all) && lag(all) == 0 })
	var said string
	defer func() {
		if c.t.Failed() {
			c.t.Logf("verify: %s\nstatus: %+v", said, c.status(0))
		}
	}()
	until(c.t, "the states of all nodes are equal at one index", 60*time.Second, func() bool {
		out, errs, code := c.ask(c.leader(), "verify")
		said = out + errs
		return code == 0
	})
}

// resumes measures how long it takes after a fault until what is published then,
// by every publisher, has been delivered to every subscriber. course tells when each
// step of it was taken.
func (l *load) resumes(fault func()) (took time.Duration, course string) {
	l.t.Helper()
	start := time.Now()
	fault()
	var steps []string
	step := func(format string, args ...any) {
		steps = append(steps, fmt.Sprintf("%v: ", time.Since(start).Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
	step("the fault is made")
	type due struct {
		p *publisher
		s *subscriber // nil: acknowledged
		n int64
	}
	var left []due
	for _, p := range l.publishers {
		n := p.sent.Load() + 1
		left = append(left, due{p, nil, n})
		for _, s := range l.subscribers {
			left = append(left, due{p, s, n})
		}
	}
	defer func() {
		if l.t.Failed() {
			for _, d := range left {
				step("awaited still: %+v; %d is acknowledged, %d sent", d, d.p.acked.Load(), d.p.sent.Load())
			}
			l.t.Logf("%s", strings.Join(steps, "\n"))
		}
	}()
	undelivered := len(l.publishers) * len(l.subscribers)
	until(l.t, "what is published after the fault is delivered", 60*time.Second, func() bool {
		left = slices.DeleteFunc(left, func(d due) bool {
			switch {
			case d.s == nil && d.p.acked.Load() >= d.n:
				step("%s, at %s, is acknowledged %d", d.p.id, l.at(d.p.id), d.n)
			case d.s != nil && d.s.received(d.p) >= d.n:
				step("%s, at %s, has %d of %s", d.s.id, l.at(d.s.id), d.n, d.p.id)
				undelivered--
			default:
				return false
			}
			return true
		})
		return undelivered == 0
	})
	return time.Since(start), strings.Join(steps, "\n")
}

// at is the address to which a client is, or was last, connected.
func (l *load) at(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.conns[id]; c != nil {
		return c.Net.RemoteAddr().String()
	}
	return "none"
}

// nobody is no node.
const nobody = -1

// goOn measures how long it takes after a fault until something that is published a
// quarter of a second later is acknowledged to every publisher that is not at the node that
// is cut off; if all are at it, to one that connects elsewhere.
func (c *trio) goOn(l *load, cutOff int, fault func()) time.Duration {
	c.t.Helper()
	due := map[*publisher]int64{}
	for _, p := range l.publishers {
		if c.home(l, p.id) != cutOff {
			due[p] = 0
		}
	}
	start := time.Now()
	fault()
	for p := range due { // what is next may be on its way through what fails in a moment
		due[p] = p.sent.Load() + 1 + clusterRate()/int64(4*len(l.publishers))
	}
	defer func() {
		if !c.t.Failed() {
			return
		}
		for p, n := range due {
			c.t.Logf("%s, at %s: %d is acknowledged, %d sent, %d awaited", p.id, l.at(p.id), p.acked.Load(), p.sent.Load(), n)
		}
		for i, n := range c.nodes {
			c.t.Logf("n%d: ended %v; it says of the cluster: %+v", i+1, n.gone(), c.status(i))
		}
	}()
	until(c.t, "publishers at nodes that are not cut off go on", 30*time.Second, func() bool {
		for p, n := range due {
			if p.acked.Load() < n {
				return false
			}
		}
		return len(due) > 0 || c.takes((cutOff+1)%clusterSize)
	})
	return time.Since(start)
}

// takes says whether a node, or the next, acknowledges a publish to who connects to it now.
func (c *trio) takes(i int) bool {
	conn, _, err := connectAny(c.addresses(i)[:2], clean("elsewhere"))
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.Write(mq.Publish{Topic: "probe", QoS: 1, ID: 1}); err != nil {
		return false
	}
	p, err := conn.Read(patience)
	return err == nil && p.Type == mq.PUBACK && p.Code < 0x80
}

// connectAny connects a client to the first of some addresses that takes it.
func connectAny(addresses []string, m mq.Connect) (c *mq.Conn, ack *mq.Packet, err error) {
	for _, addr := range addresses {
		if c, ack, err = mq.DialConnect(addr, v5, m); err == nil && ack.Code == 0 {
			return c, ack, nil
		}
		if err == nil {
			c.Close()
			err = fmt.Errorf("%s: got %v", addr, ack)
		}
	}
	return nil, nil, err
}
