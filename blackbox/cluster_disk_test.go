package blackbox

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
)

// A disk that fails or hangs, the leader's or a follower's, ends its node, which
// says why; the others go on within six seconds. The node comes back.
func TestClusterBrokenDisk(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "--test-clock", noon)
	l := c.load()
	l.start()
	for _, fault := range []string{"eio", "hang"} {
		for _, who := range []string{"leader", "follower"} {
			l.await(300)
			i := c.leader()
			if who == "follower" {
				i = (i + 1) % clusterSize
			}
			took := c.goOn(l, i, func() { c.nodes[i].disk(fault) })
			t.Logf("%s at the %s: the others go on after %v", fault, who, took.Round(time.Millisecond))
			if took > 6*time.Second {
				t.Errorf("%s at the %s: the others went on after %v only", fault, who, took)
			}
			c.nodes[i].awaitDeath()
			if !strings.Contains(c.nodes[i].logs.String(), `"level":"error"`) {
				t.Errorf("%s at the %s: its log does not say why it ended:\n%s", fault, who, c.nodes[i].logs.tail())
			}
			c.nodes[i].start()
			c.await("three voters that answer", allVote)
		}
	}
	l.finish()
	c.alike()
}

// A full disk on one node, the leader's or a follower's: the others go on, the
// node lives, and when there is room again it is as the others are.
func TestClusterFullDisk(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "--test-clock", noon)
	l := c.load()
	l.start()
	for _, who := range []string{"leader", "follower"} {
		l.await(300)
		i := c.leader()
		if who == "follower" {
			i = (i + 1) % clusterSize
		}
		took := c.goOn(l, i, func() { c.nodes[i].disk("full") })
		t.Logf("the %s's disk is full: publishers elsewhere go on after %v", who, took.Round(time.Millisecond))
		if took > 6*time.Second {
			t.Errorf("publishers elsewhere went on after %v only", took)
		}
		c.nodes[i].checkAlive()
		c.nodes[i].disk("ok")
	}
	l.finish()
	c.alike()
}

// The power of all three disks is cut under load: what was not synced is gone, and
// nothing that was acknowledged.
func TestClusterPowerCut(t *testing.T) {
	t.Parallel()
	var volumes []*volume
	for range clusterSize {
		volumes = append(volumes, newVolume(t))
	}
	p := loopback()
	p.dir = func(i int) string { return filepath.Join(volumes[i].at, "data") }
	c := p.start(t)
	l := c.load()
	l.start()
	for range effort.Rounds(2, 20) {
		l.await(500)
		for _, v := range volumes {
			v.cut()
		}
		for i, n := range c.nodes {
			n.ended = true // by itself or by us, but it has to go
			n.end(syscall.SIGKILL)
			volumes[i].replug()
		}
		c.startAll()
	}
	l.await(200)
	l.finish()
	c.alike()
	for _, n := range c.nodes {
		n.kill() // before the volumes are unmounted
	}
}
