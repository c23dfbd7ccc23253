package blackbox

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Cables connect three network namespaces and this one through a bridge. Between
// two of them, each direction can be cut by itself: packets leave for a station
// that does not exist, and nobody is told. Clients, who are here, are not cut off.
type cables struct {
	t      testing.TB
	id     string
	net    string // the first three numbers of all addresses
	spaces []string
}

// nowhere is the link layer address of no station.
const nowhere = "02:00:00:00:00:ff"

// layCables makes the namespaces, and removes them at the end of the test.
func layCables(t testing.TB) *cables {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, to make network namespaces; run the tests as root")
	}
	for program, pkg := range map[string]string{"ip": "iproute2", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("missing: %s, apt-get install %s", program, pkg)
		}
	}
	n := trios.Add(1)
	c := &cables{t: t, id: fmt.Sprintf("bw%d-%d", os.Getpid(), n), net: fmt.Sprintf("10.%d.%d", 64+n, os.Getpid()&255)}
	t.Cleanup(c.remove)
	if out, err := c.try("link", "add", c.bridge(), "type", "bridge"); err != nil {
		t.Skipf("missing: network namespaces and bridges, which this machine does not let us make: %s", out)
	}
	c.ip("addr", "add", c.net+".254/24", "dev", c.bridge())
	c.ip("link", "set", c.bridge(), "up")
	for i := range clusterSize {
		space, port := fmt.Sprint(c.id, "n", i), fmt.Sprint(c.id, "p", i)
		c.ip("netns", "add", space)
		c.spaces = append(c.spaces, space)
		c.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
		c.ip("link", "set", port, "master", c.bridge(), "up")
		c.ip("-n", space, "addr", "add", c.host(i)+"/24", "dev", "eth0")
		c.ip("-n", space, "link", "set", "eth0", "up")
		c.ip("-n", space, "link", "set", "lo", "up")
	}
	return c
}

func (c *cables) bridge() string { return c.id + "b" }

// within returns what a command begins with that is to run in a namespace. It is
// not `ip netns exec`, which makes a namespace of mounts, too: that keeps each file
// system mounted which other tests have mounted at the time, and one whose power
// they cut is then the same dead one when they mount it again.
func (c *cables) within(space string) []string {
	return []string{"nsenter", "--net=/run/netns/" + space}
}

// host returns the address of node i.
func (c *cables) host(i int) string { return fmt.Sprint(c.net, ".", i+1) }

func (c *cables) try(args ...string) (string, error) {
	out, err := exec.Command("ip", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (c *cables) ip(args ...string) {
	c.t.Helper()
	if out, err := c.try(args...); err != nil {
		c.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (c *cables) remove() {
	for _, space := range c.spaces {
		_, _ = c.try("netns", "del", space)
	}
	_, _ = c.try("link", "del", c.bridge())
}

// cut loses what node from sends to node to.
func (c *cables) cut(from, to int) {
	c.t.Helper()
	c.ip("-n", c.spaces[from], "neigh", "replace", c.host(to), "lladdr", nowhere, "nud", "permanent", "dev", "eth0")
}

// part loses what two nodes send each other.
func (c *cables) part(a, b int) {
	c.t.Helper()
	c.cut(a, b)
	c.cut(b, a)
}

// isolate cuts a node off from the others.
func (c *cables) isolate(node int) {
	c.t.Helper()
	c.part(node, (node+1)%clusterSize)
	c.part(node, (node+2)%clusterSize)
}

// heal ends all cuts.
func (c *cables) heal() {
	c.t.Helper()
	for from := range clusterSize {
		for to := range clusterSize {
			if from != to {
				_, _ = c.try("-n", c.spaces[from], "neigh", "del", c.host(to), "dev", "eth0") // there may be no entry
			}
		}
	}
}
