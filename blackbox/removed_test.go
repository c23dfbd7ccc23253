package blackbox

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// remove has a node taken out, asking node at.
func (c *trio) remove(at, i int, more ...string) {
	c.t.Helper()
	out, errs, code := c.ask(at, append([]string{"remove", fmt.Sprint("n", i+1), "--confirm", c.id()}, more...)...)
	if code != 0 {
		c.t.Fatalf("remove n%d: exit %d %s%s", i+1, code, out, errs)
	}
}

// endsRemoved waits until node i, or its start that failed, has ended because it was
// removed, and returns what it has logged since. by is how it says who did it; whoever
// tells it later may know, or not: empty.
func (c *trio) endsRemoved(i, since int, by string) string {
	c.t.Helper()
	n := c.nodes[i]
	n.awaitEnd()
	log := n.logs.String()[since:]
	if exit, ok := errors.AsType[*exec.ExitError](n.status); !ok || exit.ExitCode() != 7 {
		c.t.Errorf("n%d ended with %v, want exit code 7\n%s", i+1, n.status, log)
	}
	line := fmt.Sprintf("bellwire: node n%d was removed from cluster bellwire (%s)", i+1, c.id())
	if by == "" {
		log = strings.Replace(log, line+" by ana@example.com", line, 1)
	}
	for _, want := range []string{
		line + by + ": ", " says so\n",
		"to have it join anew, move " + n.dir + " away", "--join ADDR", "BW-7009",
	} {
		if !strings.Contains(log, want) {
			c.t.Errorf("n%d does not say %q\n%s", i+1, want, log)
		}
	}
	if n := strings.Count(log, "BW-7009"); n != 1 {
		c.t.Errorf("it is said %d times\n%s", n, log)
	}
	return log
}

// anew has node i, which was removed, join with an empty disk under its old name.
func (c *trio) anew(i int) {
	c.t.Helper()
	c.wipe(i)
	c.nodes[i].start()
	c.await("three voters that answer", allVote)
}

// A node is removed while it serves clients, under load on all: it says so, once, and by
// whom, sends its clients elsewhere and ends with exit code 7. So does each further start
// with its data directory. Under the same name, with an empty one, it joins anew and is a
// member as any. Nothing that was acknowledged is lost.
func TestClusterRemovedWhileItServes(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	for _, self := range []bool{false, true} { // whether it is asked itself
		attempts(t, func(try *attempt) {
			l.await(clusterRate())
			i := c.replaceable(0)
			n := c.nodes[i]
			v5Client, v3Client := n.open(v5, clean("five")), n.open(v4, clean("three"))
			since, at := len(n.logs.String()), c.leader()
			if self {
				at = i
			}
			start := time.Now()
			c.remove(at, i)
			log := c.endsRemoved(i, since, " by ana@example.com")
			took := time.Since(start)
			t.Logf("n%d ended %v after it was to be removed", i+1, took.Round(time.Millisecond))
			try.within(20*time.Second, took, "it ended")
			// A leader that has to wait for a processor is missed, too.
			if strings.Contains(log, "starting election") || strings.Contains(log, "no leader is heard of") {
				try.spoil("it looked for a leader\n%s", log)
			}
			if told := v5Client.Closed(); len(told) != 1 || told[0].Code != 0x9C || !strings.Contains(told[0].Properties.Text(mq.PropReasonString), "use another") {
				t.Errorf("a client is told %v", told)
			}
			v3Client.Closed()
			for range 2 {
				since := len(n.logs.String())
				if err := n.launch(); err == nil {
					t.Fatal("it serves, which was removed")
				}
				c.endsRemoved(i, since, "")
			}
			l.await(clusterRate() / 2)
			c.anew(i)
		})
	}
	l.await(clusterRate() / 2)
	l.finish()
	c.alike()
}

// A node is removed while it is down: when it is started it is told by the first that it
// meets, and ends, however late that is; also if it was killed while the others were busy,
// and lacks much. One that was as long down, and was not removed, serves.
func TestClusterRemovedWhileDown(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	for _, wait := range []time.Duration{0, 17 * time.Second} { // the leader has something on its way for 15 s
		l.await(clusterRate())
		i := c.replaceable(0)
		n := c.nodes[i]
		n.kill()
		l.await(clusterRate())
		<-time.After(wait)
		n.start()
		c.caughtUp()
		n.kill()
		c.await("it is missed", func(all []member) bool { return all[i].Role == "down" })
		c.remove(c.leader(), i)
		<-time.After(wait)
		for range 2 {
			since, start := len(n.logs.String()), time.Now()
			if err := n.launch(); err == nil {
				t.Fatal("it serves, which was removed")
			}
			c.endsRemoved(i, since, "")
			t.Logf("n%d ended %v after its start", i+1, time.Since(start).Round(time.Millisecond))
		}
		c.anew(i)
	}
	l.finish()
	c.alike()
}

// A node is cut off from the others while it is removed: it does not take itself for
// removed, and when the network is whole again it is told. One that was cut off as long,
// and was not removed, serves again.
func TestClusterRemovedWhileCutOff(t *testing.T) {
	t.Parallel()
	c, k := newCabledTrio(t)
	l := c.load()
	l.start()
	l.await(clusterRate())
	const long = 18 * time.Second // the leader has something on its way for 15 s
	i := c.replaceable(0)
	n := c.nodes[i]
	k.isolate(i)
	<-time.After(long)
	k.heal()
	c.caughtUp()
	since := len(n.logs.String())
	k.isolate(i)
	var at int
	c.leads(i, &at)
	c.remove(at, i)
	<-time.After(long)
	if n.gone() {
		t.Fatalf("nobody can have told it\n%s", n.logs.String()[since:])
	}
	start := time.Now()
	k.heal()
	c.endsRemoved(i, since, "")
	t.Logf("n%d ended %v after the healing", i+1, time.Since(start).Round(time.Millisecond))
	l.await(clusterRate() / 2)
	c.anew(i)
	l.finish()
	c.alike()
}

// leads waits until one leads that is not the one that is cut off.
func (c *trio) leads(off int, at *int) {
	c.t.Helper()
	until(c.t, "a leader of the others", 30*time.Second, func() bool {
		for i := range c.nodes {
			for j, m := range c.status(i) {
				if i != off && j != off && m.Role == "leader" {
					*at = j
					return true
				}
			}
		}
		return false
	})
}
