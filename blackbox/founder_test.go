package blackbox

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/cluster/certs"
)

// endsContested waits until the founder, or its start that failed, has ended because it
// founded a second cluster, and wants it to have said so, once, and what to do.
func (c *trio) endsContested(since int, was string) {
	c.t.Helper()
	n := c.nodes[0]
	n.awaitEnd()
	log := n.logs.String()[since:]
	if exit, ok := errors.AsType[*exec.ExitError](n.status); !ok || exit.ExitCode() != 7 {
		c.t.Errorf("the founder ended with %v, want exit code 7\n%s", n.status, log)
	}
	now := c.id()
	for _, want := range []string{
		"bellwire: node n1 has founded cluster bellwire (" + now + ") in " + n.dir + ", and cluster bellwire (" + was[:8] + ") has a node n1 already",
		" looks for it here", "bellwire cluster remove n1, asked of n", "move " + n.dir + " away", "--join 127.", "in place of --bootstrap", "BW-7010",
		`"level":"error","msg":"this node has founded a cluster, and is a member of another one"`,
	} {
		if !strings.Contains(log, want) {
			c.t.Errorf("it does not say %q\n%s", want, log)
		}
	}
	if n := strings.Count(log, "     BW-7010"); n != 1 {
		c.t.Errorf("it is said %d times\n%s", n, log)
	}
	if nc, err := net.Dial("tcp", n.ready.MQTT); err == nil {
		nc.Close()
		c.t.Error("it takes clients")
	}
}

// The founder's disk is emptied, under load, and the same command starts it again, with
// --bootstrap in it. It founds a second cluster, hears of the others that it is a member
// of theirs, and never serves; nor does any further start. Nothing that was acknowledged
// is lost. Moved away, removed and started with --join it is a member as any.
func TestClusterEmptiedFounder(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	l.await(clusterRate())
	n1, was := c.nodes[0], c.cluster()
	n1.kill()
	c.wipe(0)
	for range 2 {
		since := len(n1.logs.String())
		if err := n1.launch(); err == nil {
			t.Fatal("a second cluster serves")
		}
		c.endsContested(since, was)
	}
	l.await(clusterRate() / 2)
	at := 1
	until(t, "what became of the founder is an error in another's log", patience, func() bool {
		return slices.ContainsFunc(c.nodes[1:], func(n *server) bool {
			return strings.Contains(n.logs.String(), "a node of this cluster has founded another one") && strings.Contains(n.logs.String(), "bellwire cluster remove n1")
		})
	})
	c.leads(0, &at)
	if out, errs, code := c.ask(at, "remove", "n1", "--confirm", was[:8]); code != 0 {
		t.Fatalf("remove: %d %s%s", code, out, errs)
	}
	c.wipe(0)
	n1.joins(c.nodes[at])
	n1.start()
	c.await("three voters that answer", allVote)
	l.await(clusterRate() / 2)
	l.finish()
	c.alike()
}

// joins has a founder's next start be that of one who joins.
func (s *server) joins(member *server) {
	s.args = append(slices.DeleteFunc(slices.Clone(s.args), func(a string) bool { return a == "--bootstrap" }), "--join", member.ready.Cluster)
}

// The founder's disk is emptied while the others are down: nobody can tell it, and it
// serves. When they are back it hears it, sends its clients away and ends; what it has
// acknowledged by then is on its disk, which it tells to keep. Who only claims to be one
// of them, without the certificate, does not end it.
func TestClusterEmptiedFounderIsFirst(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	n1, was := c.nodes[0], c.cluster()
	for _, n := range c.nodes {
		n.kill()
	}
	c.wipe(0)
	n1.start()
	client := n1.open(v5, clean("five"))
	client.Publish("home/lamp", 1, "on")

	ours, err := certs.LoadAuthority(filepath.Join(filepath.Dir(c.policy), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	others, err := certs.NewAuthority(time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	lost := map[string]any{"id": "22222222-2222-2222-2222-222222222222", "name": "n1", "address": n1.ready.Cluster}
	for why, forge := range map[string]func(*testing.T, string){
		"authority":  handshakes(shows(t, others, "n2", time.Now()), helloTo("n2", was, lost)),
		"other-name": handshakes(shows(t, ours, "n9", time.Now()), helloTo("n2", was, lost)),
	} {
		since := len(n1.logs.String())
		forge(t, n1.ready.Cluster)
		until(t, fmt.Sprintf("it tells of who was forged (%s)", why), patience, func() bool {
			return tells(n1.logs.String()[since:], []string{"connection refused", why})
		})
	}
	client.Publish("home/lamp", 1, "dim") // it serves still
	since := len(n1.logs.String())
	c.startThese(c.nodes[1:]...)
	c.endsContested(since, was)
	if told := client.Closed(); len(told) != 1 || told[0].Code != 0x9C {
		t.Errorf("a client is told %v", told)
	}
	since = len(n1.logs.String())
	if err := n1.launch(); err == nil {
		t.Fatal("it serves, which is contested")
	}
	c.endsContested(since, was)
	at := 1
	c.leads(0, &at)
	c.nodes[at].open(v5, clean("six")).Publish("home/lamp", 1, "off")
}
