package blackbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
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
			attempts(t, func(try *attempt) {
				l.await(300)
				i := c.leader()
				if who == "follower" {
					i = (i + 1) % clusterSize
				}
				took := c.goOn(l, i, func() { c.nodes[i].disk(fault) })
				t.Logf("%s at the %s: the others go on after %v", fault, who, took.Round(time.Millisecond))
				try.within(6*time.Second, took, fmt.Sprintf("%s at the %s: the others went on", fault, who))
				c.nodes[i].awaitDeath()
				if !strings.Contains(c.nodes[i].logs.String(), `"level":"error"`) {
					t.Errorf("%s at the %s: its log does not say why it ended:\n%s", fault, who, c.nodes[i].logs.tail())
				}
				c.nodes[i].start()
				c.await("three voters that answer", allVote)
			})
		}
	}
	l.finish()
	c.alike()
}

// A disk that takes a second and a half for each sync, the leader's or a follower's, is
// not given up: its node lives, what is published is acknowledged, if late, and all is
// well when the disk is.
func TestClusterSlowDisk(t *testing.T) {
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
		c.nodes[i].disk("slow")
		got := l.goesOn(6*disk.SluggishSync, 1)
		t.Logf("the %s's disk is slow: %d acknowledged meanwhile", who, got)
		c.nodes[i].checkAlive()
		c.nodes[i].disk("ok")
		c.caughtUp()
	}
	l.finish()
	c.alike()
}

// A full disk on one node, the leader's or a follower's: its clients are told, its
// node lives, the others go on, and when there is room again it is as they are.
func TestClusterFullDisk(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "--test-clock", noon)
	l := c.load()
	l.start()
	for _, who := range []string{"leader", "follower"} {
		attempts(t, func(try *attempt) {
			l.await(300)
			i := c.leader()
			if who == "follower" {
				i = (i + 1) % clusterSize
			}
			n, other := c.nodes[i], c.nodes[(i+1)%clusterSize]
			here, there := n.open(v5, clean("here")), other.open(v5, clean("there"))
			took := c.goOn(l, i, func() { n.disk("full") })
			t.Logf("the %s's disk is full: publishers elsewhere go on after %v", who, took.Round(time.Millisecond))
			try.within(6*time.Second, took, fmt.Sprintf("the %s's disk is full: publishers elsewhere went on", who))
			toldOfFullDisk(t, here)
			old := n.open(v4, clean("old"))
			old.TrySend(mq.Publish{Topic: "probe", QoS: 1, ID: 1})
			old.ClosedWith(0)
			l.goesOn(2*time.Second, clusterRate()) // elsewhere
			there.Publish("probe", 1, "elsewhere")
			toldOfFullDisk(t, here)
			n.checkAlive()
			n.disk("ok")
			until(t, "it takes publishes again", patience, func() bool { return here.TryPublish(publishTo("probe", "x")) == 0 })
		})
	}
	l.finish()
	c.alike()
}

// toldOfFullDisk wants a durable publish to be refused with the reason that the
// client can do something about.
func toldOfFullDisk(t *testing.T, c *mq.Client) {
	t.Helper()
	id := c.ID()
	c.Send(mq.Publish{Topic: "probe", QoS: 1, ID: id})
	got := c.ExpectID(mq.PUBACK, id)
	if got.Code != 0x97 || !contains(got.Properties.Text(mq.PropReasonString), "disk-full") {
		t.Errorf("got %v, want 0x97 disk-full", got)
	}
}

// trioOnVolume starts three nodes, of which the first has its data on a volume of its
// own. It is to be killed before the volume is unmounted.
func trioOnVolume(t *testing.T) (*volume, *trio) {
	t.Helper()
	v := newVolume(t)
	p := loopback()
	p.dir = func(i int) string {
		if i == 0 {
			return filepath.Join(v.at, "data")
		}
		return filepath.Join(t.TempDir(), "data")
	}
	return v, p.start(t)
}

// A real volume, the leader's or a follower's, fills up under load. While there is
// little room its node refuses its own clients, lives, and goes on following or
// leading. When there is none it ends, and says why; the others go on. With room
// again it starts and catches up.
func TestClusterVolumeFull(t *testing.T) {
	t.Parallel()
	v, c := trioOnVolume(t)
	n := c.nodes[0]
	l := c.load()
	l.start()
	for _, leads := range []bool{true, false} {
		l.await(300)
		c.lead(0, leads)
		here := n.open(v5, clean("here"))
		ballast := filepath.Join(v.at, "ballast")
		leave(t, ballast, 16<<20)
		until(t, "its clients are refused", patience, func() bool { return here.TryPublish(publishTo("probe", "x")) == 0x97 })
		toldOfFullDisk(t, here)
		l.await(300)
		n.checkAlive()
		took := c.goOn(l, 0, func() {
			leave(t, ballast+"2", 0)
			big := c.nodes[1].open(v5, clean("big"))
			until(t, "the node ends", 30*time.Second, func() bool { // what its log has allotted is used up first
				// It may be refused while the others elect another leader.
				big.TryPublish(publishTo("probe/big", strings.Repeat("x", 200<<10)))
				return n.gone()
			})
		})
		n.awaitDeath()
		t.Logf("no room at all, leader %v: the others go on %v after the filling began", leads, took.Round(time.Millisecond))
		if !strings.Contains(n.logs.String(), "no space left on device") {
			t.Errorf("its log does not say why it ended:\n%s", n.logs.tail())
		}
		l.await(300)
		for _, path := range []string{ballast, ballast + "2"} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		n.start()
		c.caughtUp()
		n.open(v5, clean("here")).Publish("probe", 1, "there is room")
	}
	l.finish()
	c.alike()
	n.kill() // before the volume is unmounted
}

// lead has node i lead, or another.
func (c *trio) lead(i int, leads bool) {
	c.t.Helper()
	to := i
	if !leads {
		to = (i + 1) % clusterSize
	}
	until(c.t, fmt.Sprintf("node %d leads", to), 60*time.Second, func() bool {
		return c.leader() == to || c.transfer(to)
	})
}

// transfer says whether the leadership was handed to node i.
func (c *trio) transfer(i int) bool {
	_, _, code := c.ask(i, "transfer-leader", fmt.Sprint("n", i+1))
	return code == 0
}

// leave makes a file that takes what a file system has but for so much.
func leave(t *testing.T, path string, left int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, chunk := int64(0), int64(64<<20)
	for {
		var at syscall.Statfs_t
		if err := syscall.Fstatfs(int(f.Fd()), &at); err != nil {
			t.Fatal(err)
		}
		for chunk > int64(at.Bavail)*at.Bsize-left && chunk >= at.Bsize {
			chunk /= 2
		}
		if chunk < at.Bsize {
			return
		}
		switch err := syscall.Fallocate(int(f.Fd()), 0, size, chunk); {
		case err == nil:
			size += chunk
		case errors.Is(err, syscall.ENOSPC):
			chunk /= 2
		default:
			t.Fatal(err)
		}
	}
}

// The power of one node's disk is cut under load, a follower's and the leader's: what
// it had not synced is gone, and it never votes or leads on what it forgot, so that
// nothing that was acknowledged is lost, and in the end it is as the others are. Each
// time, one of the others is killed as well before it is back: what was acknowledged
// is then on two disks, or on one of them and this one.
func TestClusterPowerCutOfOne(t *testing.T) {
	t.Parallel()
	v, c := trioOnVolume(t)
	n := c.nodes[0]
	l := c.load()
	l.start()
	for round := range effort.Turns(t) {
		c.lead(0, round%2 == 0)
		l.await(clusterRate())
		v.cut()
		n.ended = true // by itself or by us, but it has to go
		n.end(syscall.SIGKILL)
		l.await(clusterRate() / 5) // by the two others
		other := c.nodes[1+round/2%2]
		other.kill()
		v.replug()
		c.startThese(n, other)
		c.caughtUp()
	}
	l.finish()
	c.alike()
	n.kill() // before the volume is unmounted
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
	for range effort.Turns(t) {
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
