package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/disk"
)

// A cluster keeps the first name that it is given; one that cannot be read is damage.
func TestClusterName(t *testing.T) {
	fs := disk.Memory()
	dir, err := Claim(fs, "/data", "n1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := dir.ClusterName(); name != "" || err != nil {
		t.Errorf("without a name: %q, %v", name, err)
	}
	for _, bad := range []string{"", "-x", "a b", "a/b", "\n", strings.Repeat("x", 65), "ä"} {
		if dir.NameCluster(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
	for _, name := range []string{"prod-1.example_x", "another"} {
		if err := dir.NameCluster(name); err != nil {
			t.Fatal(err)
		}
		if got, err := dir.ClusterName(); got != "prod-1.example_x" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := fs.WriteFile("/data/cluster-name", []byte("a b")); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.ClusterName(); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged one: %v", err)
	}
}

// Who joins is told the cluster's name, and keeps it.
func TestJoinersKnowTheName(t *testing.T) {
	c := newCrew(t, 1)
	n1 := c.nodes[0]
	n1.stop()
	dir, err := Claim(n1.fs, "/data", "n1", n1.dir.newest)
	if err == nil {
		err = errors.Join(dir.NameCluster("prod"), dir.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	n1.start()
	n2 := c.add()
	if got, err := n2.dir.ClusterName(); got != "prod" || err != nil || n2.node.State().Cluster != "prod" {
		t.Errorf("%q, %v, and it says %q", got, err, n2.node.State().Cluster)
	}
}
