package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/api"
)

// Two of three disks are destroyed. The third goes on with all that was acknowledged,
// two new nodes join it, and a node of the former cluster that turns up is refused.
// It is not done while another node answers, nor without being confirmed.
func TestRecover(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	c.await(n1, "all vote", voters(3))
	sub := []string{"sub", "-p", portOf(t, n1.line.MQTT), "-i", "away", "-c", "-q", "1", "-t", "queued/#"}
	if got := bellwire(t, "", append(sub, "-E")...); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	for i := range 20 {
		for _, args := range [][]string{{"-r", "-t", fmt.Sprint("kept/", i)}, {"-t", "queued/x"}} {
			got := bellwire(t, "", append([]string{"pub", "-p", portOf(t, c.nodes[i%3].line.MQTT), "-q", "1", "-m", fmt.Sprint(i)}, args...)...)
			if got.code != 0 {
				t.Fatalf("%+v", got)
			}
		}
	}
	old := shortID(statusID(t, n1))
	recover := func(args ...string) ran {
		return bellwire(t, "", append([]string{"cluster", "recover", "--data", n3.dir, "--node", "n3"}, args...)...)
	}
	refused := func(what string, got ran, code int, says string) {
		t.Helper()
		if got.code != code || !strings.Contains(got.stderr, says) {
			t.Errorf("%s: %+v, want exit code %d and %q", what, got, code, says)
		}
	}
	refused("it runs", recover("--yes"), exitFailed, "in use")
	c.await(n1, "all hold the same", func(all []api.Member) bool { return all[0].Trails+all[1].Trails+all[2].Trails == 0 })
	n3.stop()
	refused("others answer", recover("--yes"), exitConflict, "the cluster is not lost: n1 at "+n1.line.Cluster+", n2 at "+n2.line.Cluster+" answers")
	n2.stop()
	n1.stop()
	lost := n1.dir + "-lost"
	if err := os.Rename(n1.dir, lost); err != nil { // it will turn up
		t.Fatal(err)
	}
	if err := os.RemoveAll(n2.dir); err != nil {
		t.Fatal(err)
	}
	refused("nobody confirms", recover(), exitConflict, "give --confirm bellwire")
	refused("for the wrong one", recover("--confirm", "n3"), exitConflict, "is not the cluster's name")
	refused("of another node", bellwire(t, "", "cluster", "recover", "--data", n3.dir, "--node", "n9", "--yes"), exitFailed, `it is "n3"'s`)
	refused("of nothing", bellwire(t, "", "cluster", "recover", "--data", n2.dir, "--yes"), exitFailed, "is no data directory")
	if got := recover("--dry-run"); got.code != 0 || !strings.Contains(got.stderr, "WHAT ONLY OTHERS HELD IS LOST FOR GOOD") || !strings.Contains(got.stderr, "never start n1 ("+n1.line.Cluster+") again") {
		t.Errorf("%+v", got)
	}
	if got := recover("--confirm", old); got.code != 0 || !strings.Contains(got.stderr, "node n3 is the only voter of cluster ") {
		t.Fatalf("%+v", got)
	}
	// Again, as after a crash, there is nothing left to do.
	refused("again", recover("--yes"), exitConflict, "knows of no other node")

	n3 = c.launch("n3", "--cluster", n3.line.Cluster) // where the others look for it
	if got := shortID(statusID(t, n3)); got == old {
		t.Error("the cluster has the id of the former one")
	}
	for _, name := range []string{"n4", "n2"} {
		c.launch(name, "--join", n3.line.Cluster)
	}
	c.await(n3, "three vote again", voters(3))
	if got := c.at(n3, "cluster", "verify"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	last := c.nodes[len(c.nodes)-1]
	kept := bellwire(t, "", "sub", "-p", portOf(t, last.line.MQTT), "-t", "kept/#", "-C", "20", "-W", "30", "-F", "%p")
	queued := bellwire(t, "", "sub", "-p", portOf(t, last.line.MQTT), "-i", "away", "-c", "-q", "1", "-t", "queued/#", "-C", "20", "-W", "30", "-F", "%p")
	for i := range 20 {
		for what, got := range map[string]ran{"retained": kept, "queued": queued} {
			if !strings.Contains("\n"+got.stdout, fmt.Sprintf("\n%d\n", i)) {
				t.Errorf("%s: %d is lost: %+v", what, i, got)
			}
		}
	}

	// The one that was not lost after all.
	if err := os.Rename(lost, n1.dir); err != nil {
		t.Fatal(err)
	}
	n1, _ = c.begins("n1")
	c.await(n3, "both say so", func([]api.Member) bool {
		return strings.Contains(n3.notes.String(), `other-cluster: node \"n1\" is of cluster`) && strings.Contains(n1.notes.String(), "node n3 refuses (other-cluster)")
	})
	if all := c.status(n3); len(all) != 3 {
		t.Errorf("it is a member: %+v", all)
	}
}
