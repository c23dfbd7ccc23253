package blackbox

import (
	"encoding/json"
	"strings"
	"testing"
)

// The ordinary life of a cluster warns of nothing: three nodes begin and join, one is
// restarted, one is drained and resumed, one is killed and comes back. What is a
// warning all the same is listed, with the reason.
func TestClusterIsQuiet(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	l.await(200)
	c.nodes[2].stop()
	c.nodes[2].start()
	c.caughtUp()
	if out, errs, code := run(t, "node", "drain", "n2", "--server", c.http[1], "-u", "ana", "-P", "sesame"); code != 0 {
		t.Errorf("drain: %d %s%s", code, out, errs)
	}
	if out, errs, code := run(t, "node", "resume", "n2", "--server", c.http[1], "-u", "ana", "-P", "sesame"); code != 0 {
		t.Errorf("resume: %d %s%s", code, out, errs)
	}
	l.await(200)
	i := c.leader()
	c.nodes[i].kill()
	l.await(200)
	c.nodes[i].start()
	c.caughtUp()
	l.finish()
	for i, n := range c.nodes {
		for line := range strings.Lines(n.logs.String()) {
			var said struct{ Level, Msg string }
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Errorf("n%d: no line of a log: %s", i+1, line)
			}
			if said.Level != "debug" && said.Level != "info" && !toBeExpected[said.Msg] {
				t.Errorf("n%d warns: %s", i+1, line)
			}
		}
	}
}

// toBeExpected are warnings of an ordinary life.
var toBeExpected = map[string]bool{
	// The policy of the test lets everybody in, and its only user is an operator.
	"the policy has no users: nobody can log in": true,

	// What was on its way to a leader that was killed came without what was before it;
	// its node sends both again.
	"batch out of sequence refused": true,

	// A machine that is busy with other tests may be late with anything.
	"cluster: a node is silent":                                    true,
	"no leader is heard of: publishes and new clients are refused": true,
	"raft: failed to contact quorum of nodes, stepping down":       true,
	"no leader is heard of: the clients are sent away":             true,
	"a node is lost: its sessions are without connections":         true,
	"batch of a closed incarnation refused":                        true,
	"a tick was not ordered":                                       true,
	"disk slow":                                                    true,

	"cluster: elections fail; votes are waited for longer":                                true,
	"the log does not get to this node's announcement: it serves when it has caught up":   true,
	"the others had given this node up: its clients are disconnected, and it begins anew": true,
	"nobody takes the leadership over":                                                    true,
	"closed with entries on their way; they may yet be applied":                           true,
}
