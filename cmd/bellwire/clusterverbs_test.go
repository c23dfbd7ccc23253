package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/mqtttest"
)

// A testNode is a node of a cluster, served by this process.
type testNode struct {
	name, dir, tls string
	line           readyLine
	notes          *lockedBuffer
	stop           func()
	ended          chan int
}

// A lockedBuffer is written by a node and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testCluster are the nodes of a cluster, with its authority.
type testCluster struct {
	t     *testing.T
	dir   string
	nodes []*testNode
}

const operatorPolicy = `users:
  ana@example.com: {token_sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"}
  bo@example.com:  {token_sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"}
groups:
  operators: [ana@example.com]
rules:
  - {id: all, allow: [publish, subscribe], who: [anyone], topic: ["#"]}
`

// startCluster makes an authority and starts size nodes, n1 to nN.
func startCluster(t *testing.T, size int) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	c.begin()
	for i := range size {
		c.start(fmt.Sprintf("n%d", i+1))
	}
	return c
}

// begin makes the authority, and sees to it that what is started ends.
func (c *testCluster) begin() {
	t := c.t
	t.Helper()
	c.dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.dir, "policy.yaml"), []byte(operatorPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run("cert", "ca", "--out", filepath.Join(c.dir, "ca"))
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
}

// run runs a verb that has to succeed.
func (c *testCluster) run(args ...string) ran {
	c.t.Helper()
	got := bellwire(c.t, "", args...)
	if got.code != 0 {
		c.t.Fatalf("%q: %+v", args, got)
	}
	return got
}

// start starts a node, the first one with --bootstrap, others with --join.
func (c *testCluster) start(name string) *testNode {
	c.t.Helper()
	if len(c.nodes) == 0 {
		return c.launch(name, "--bootstrap")
	}
	return c.launch(name, "--join", c.nodes[0].line.Cluster)
}

func (c *testCluster) launch(name string, more ...string) *testNode {
	c.t.Helper()
	n, out := c.begins(name, more...)
	if err := json.NewDecoder(out).Decode(&n.line); err != nil {
		c.t.Fatalf("%s: no ready line: %v, %s", name, err, n.notes)
	}
	go io.Copy(io.Discard, out)
	return n
}

// begins starts a node, which may never be ready; out is what it prints.
func (c *testCluster) begins(name string, more ...string) (n *testNode, out io.Reader) {
	c.t.Helper()
	n = &testNode{name: name, dir: filepath.Join(c.dir, name), tls: filepath.Join(c.dir, name+"-tls"), notes: &lockedBuffer{}, ended: make(chan int, 1)}
	if _, err := os.Stat(n.tls); err != nil {
		c.run("cert", "node", "--ca", filepath.Join(c.dir, "ca"), "--name", name, "--out", n.tls)
	}
	args := []string{
		"serve", "--node", name, "--data", n.dir, "--domain", "example.com", "--policy", filepath.Join(c.dir, "policy.yaml"), "--allow-anonymous",
		"--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--cluster", "127.0.0.1:0", "--cluster-tls", n.tls,
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	printed, in := io.Pipe()
	n.stop = sync.OnceFunc(func() { cancel(); <-n.ended })
	go func() {
		code := run(ctx, append(args, more...), strings.NewReader(""), in, n.notes)
		in.Close()
		n.ended <- code
	}()
	c.nodes = append(c.nodes, n)
	return n, printed
}

// at runs a verb against a node.
func (c *testCluster) at(n *testNode, args ...string) ran {
	c.t.Helper()
	return bellwire(c.t, "", append(args, "--server", n.line.HTTP)...)
}

func (c *testCluster) status(n *testNode) (all []api.Member) {
	c.t.Helper()
	got := c.at(n, "cluster", "status", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &all); err != nil || got.code != 0 {
		c.t.Fatalf("status: %+v", got)
	}
	return all
}

// await asks a node for the status until it is as wanted.
func (c *testCluster) await(n *testNode, what string, ok func([]api.Member) bool) []api.Member {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		all := c.status(n)
		if ok(all) {
			return all
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not seen: %s; status %+v\n%s", what, all, n.notes)
		}
		<-time.After(10 * time.Millisecond) // thousands of looks a second would be all that the machine does
	}
}

func voters(want int) func([]api.Member) bool {
	return func(all []api.Member) bool {
		n := 0
		for _, m := range all {
			if m.Voter && m.Role != "down" {
				n++
			}
		}
		return n == want && len(all) == want
	}
}

func leads(name string) func([]api.Member) bool {
	return func(all []api.Member) bool {
		return slices.ContainsFunc(all, func(m api.Member) bool { return m.Name == name && m.Role == "leader" })
	}
}

// Any node tells how the cluster is, and has it changed: who leads, who is in it.
// What would cost the quorum is refused, and done when it is forced.
func TestClusterOfThree(t *testing.T) {
	c := startCluster(t, 3)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	for _, n := range []*testNode{n2, n3} {
		if got := c.at(n1, "cluster", "join", n.name, "--wait", "1m"); got.code != 0 || !strings.Contains(got.stderr, "is a voter and has caught up") {
			t.Fatalf("%+v", got)
		}
	}
	for i, m := range c.await(n2, "all answer", voters(3)) {
		n := c.nodes[i]
		if m.Level != int(newestLevel) || m.Supports != int(newestLevel) {
			t.Errorf("%s is at level %d and supports %d, want %d", m.Name, m.Level, m.Supports, newestLevel)
		}
		if m.Name != n.name || m.Addr != n.line.Cluster || m.PID != os.Getpid() || m.Version != version || len(m.ID) != 36 || !m.Voter {
			t.Errorf("%+v", m)
		}
	}
	c.await(n3, "n1 leads", leads("n1"))
	if got := c.at(n3, "cluster", "status"); !strings.Contains(got.stderr, "cluster bellwire ("+shortID(statusID(t, n3))+")   3 of 3 voters up · can lose 1 node · leader n1, term ") || !strings.Contains(got.stdout, "\nn1\t") {
		t.Errorf("%+v", got)
	}

	text := metricsOf(t, n1)
	for _, want := range []string{
		`bellwire_cluster_members 3`, fmt.Sprint(`bellwire_feature_level `, newestLevel), fmt.Sprint(`bellwire_feature_level_supported `, newestLevel), `bellwire_raft_leader 1`, `bellwire_raft_silence_seconds 0`, `bellwire_peer_lag_entries{peer="n3"} `,
		`bellwire_peer_silence_seconds{peer="n2"} `, `bellwire_cert_expiry_timestamp_seconds{name="node"} `, `bellwire_node_drained 0`, `bellwire_cluster_refused_total 0`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s in the leader's metrics", want)
		}
	}
	if strings.Contains(metricsOf(t, n3), "\nbellwire_peer_lag_entries{") {
		t.Error("a follower tells how far others lag")
	}

	if got := c.at(n3, "cluster", "transfer-leader", "n2"); got.code != 0 {
		t.Errorf("transfer: %+v", got)
	}
	c.await(n1, "n2 leads", leads("n2"))

	// All hold the same, also while it changes.
	_, port, err := net.SplitHostPort(n3.line.MQTT)
	if err != nil {
		t.Fatal(err)
	}
	load, endLoad := context.WithCancel(t.Context())
	loaded := make(chan int, 1)
	go func() {
		var out, notes bytes.Buffer
		loaded <- run(load, []string{"pub", "-p", port, "-q", "1", "-r", "-t", "load", "-m", "x", "--repeat", "1000000"}, strings.NewReader(""), &out, &notes)
	}()
	for _, n := range c.nodes {
		got := c.at(n, "cluster", "verify", "-o", "json")
		var nodes []api.Digest
		if err := json.Unmarshal([]byte(got.stdout), &nodes); err != nil || got.code != 0 || len(nodes) != 3 {
			t.Errorf("%+v", got)
			continue
		}
		for _, d := range nodes {
			if len(d.Digest) != 16 || d.Digest != nodes[0].Digest || d.Index != nodes[0].Index {
				t.Errorf("%+v, and %+v", d, nodes[0])
			}
		}
	}
	endLoad()
	if code := <-loaded; code != exitInterrupted {
		t.Errorf("the load ended with %d", code)
	}
	if got := c.at(n1, "cluster", "verify"); got.code != 0 || strings.Count(got.stdout, "\n") != 4 {
		t.Errorf("with nothing to do: %+v", got)
	}

	// A node that is drained leads no more and has no clients, until it is resumed.
	sub := startSub(t, "-p", portOf(t, n2.line.MQTT), "-t", "x")
	moves := mqtttest.Open(t, n2.line.MQTT, 5, mqtttest.Connect{ClientID: "moves", KeepAlive: 60})
	if got := c.at(n3, "node", "drain", "n2"); got.code != 0 || !strings.Contains(got.stderr, "node n2 is drained: safe to stop") {
		t.Errorf("%+v", got)
	}
	told := moves.Closed()
	if len(told) != 1 || told[0].Code != 0x9C {
		t.Fatalf("a client is sent away with %v", told)
	}
	if to := told[0].Properties.Text(mqtttest.PropServerReference); to != n1.line.MQTT && to != n3.line.MQTT {
		t.Errorf("it is sent to %q, want %s or %s", to, n1.line.MQTT, n3.line.MQTT)
	}
	if got := bellwire(t, "", "pub", "-p", portOf(t, n2.line.MQTT), "-t", "x", "-m", "x"); got.code == 0 {
		t.Errorf("it takes clients: %+v", got)
	}
	c.await(n3, "n2 is drained", func(all []api.Member) bool {
		return all[1].State == stateDrained && all[1].Role == "follower" && all[1].Clients == 0
	})
	if r, err := http.Get("http://" + n2.line.HTTP + "/readyz"); err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("it is ready: %v, %v", r, err)
	} else {
		r.Body.Close()
	}
	if got := c.at(n1, "node", "resume", "n2"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := bellwire(t, "", "pub", "-p", portOf(t, n2.line.MQTT), "-t", "x", "-m", "x"); got.code != 0 {
		t.Errorf("resumed: %+v", got)
	}
	sub.end()

	// Nothing is done without being confirmed.
	id := shortID(statusID(t, n1))
	for _, args := range [][]string{
		{"cluster", "remove", "n3"},
		{"cluster", "remove", "n3", "--confirm", "n3"},
		{"cluster", "remove", "n3", "--confirm", "another"},
		{"cluster", "remove", "n3", "--dry-run"},
	} {
		got := c.at(n1, args...)
		dry := args[len(args)-1] == "--dry-run"
		if want := map[bool]int{true: 0, false: exitConflict}[dry]; got.code != want || !strings.Contains(got.stderr, "then 2 of 2 voters up, of which 0 may fail") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if got := c.at(n1, "cluster", "remove", "n9", "--yes"); got.code != exitNotFound || !strings.Contains(got.stderr, "it has n1, n2, n3") {
		t.Errorf("%+v", got)
	}
	if all := c.status(n1); len(all) != 3 {
		t.Fatalf("something was removed: %+v", all)
	}

	// A node that is down does not count.
	n3.stop()
	c.await(n1, "n3 is down", func(all []api.Member) bool { return all[2].Role == "down" })
	if got := c.at(n1, "cluster", "verify"); got.code != exitPartial || !strings.Contains(got.stdout, "none: it does not answer") {
		t.Errorf("%+v", got)
	}
	if got := c.at(n1, "cluster", "remove", "n1", "--confirm", id); got.code != exitConflict ||
		!strings.Contains(got.stderr, "bellwire: node n1 cannot be removed: the cluster would lose quorum (2 of 3 voters up)\n  bring n3 back, or accept the risk with --force, over HTTP force: true     BW-7004") {
		t.Errorf("%+v", got)
	}
	if got := c.at(n2, "node", "drain", "n1"); got.code != exitConflict ||
		!strings.Contains(got.stderr, "bellwire: node n1 cannot be drained: the cluster would lose quorum (2 of 3 voters up)\n  bring n3 back, or accept the risk with --force, over HTTP force: true     BW-7004") {
		t.Errorf("%+v", got)
	}
	if got := c.at(n1, "cluster", "remove", "n3", "--confirm", "bellwire"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	c.await(n2, "n3 is gone", voters(2))

	// Of two, one can be removed, also the one that leads and is asked.
	if got := c.at(n2, "cluster", "remove", "n2", "--yes"); got.code != 0 || !strings.HasSuffix(got.stderr, "\nnode n2 is removed\n") {
		t.Errorf("%+v", got)
	}
	c.await(n1, "n1 leads alone", func(all []api.Member) bool { return voters(1)(all) && leads("n1")(all) })
}

func metricsOf(t *testing.T, n *testNode) string {
	t.Helper()
	r, err := http.Get("http://" + n.line.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func statusID(t *testing.T, n *testNode) string {
	t.Helper()
	f := httpFlags{server: n.line.HTTP, timeout: 5 * time.Second}
	s, err := fetchStatus(t.Context(), &f)
	if err != nil {
		t.Fatal(err)
	}
	return s.Cluster
}

// Who is no operator changes nothing.
func TestNotAnOperator(t *testing.T) {
	c := startCluster(t, 1)
	n1 := c.nodes[0]
	for _, v := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-u", "ana", "-P", "sesame"}, exitConflict, "node n1 is the last voter"},
		{nil, exitConflict, "node n1 is the last voter"}, // this process serves it
		{[]string{"-u", "bo", "-P", "sesame"}, exitDenied, "bo@example.com is no operator: the policy's group operators does not list it"},
		{[]string{"-u", "ana", "-P", "guess"}, exitDenied, "bad user name or password\n  check -u and -P"},
		{[]string{"-u", "ana"}, exitDenied, "bad user name or password\n  there was no password with it"},
	} {
		got := c.at(n1, append([]string{"cluster", "remove", "n1", "--yes"}, v.args...)...)
		if got.code != v.code || !strings.Contains(got.stderr, v.says) {
			t.Errorf("%q: %+v, want exit code %d and %q", v.args, got, v.code, v.says)
		}
	}
}

// A node alone is a cluster of one, and says what would make it more.
func TestClusterOfOne(t *testing.T) {
	dir := t.TempDir()
	s, err := startServer(t.Context(), testConfig(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.shutdown()
	at := s.httpListener.Addr().String()
	for _, v := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"cluster", "status"}, 0, "1 of 1 voters up · can lose no node · leader n1, term "},
		{[]string{"cluster", "verify"}, 0, "n1    "},
		{[]string{"cluster", "join", "n2"}, exitConflict, "this node is alone: it was started without --cluster"},
		{[]string{"cluster", "transfer-leader"}, exitConflict, "this node is alone"},
		{[]string{"cluster", "remove", "n1", "--yes"}, exitConflict, "node n1 is the last voter"},
		{[]string{"cluster", "promote", "n2"}, exitNotFound, `no such node: "n2"`},
	} {
		got := bellwire(t, "", append(v.args, "--server", "http://"+at)...)
		if got.code != v.code || !strings.Contains(got.stdout+got.stderr, v.says) {
			t.Errorf("%q: %+v, want exit code %d and %q", v.args, got, v.code, v.says)
		}
	}
}

// What a server answers, or does not, becomes an exit code and advice.
func TestClusterVerbsFail(t *testing.T) {
	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hangs.Close()
	redirects := httptest.NewServer(http.RedirectHandler(none.URL, http.StatusFound))
	defer redirects.Close()
	differs := answering(t, `{"equal":false,"nodes":[{"node":"n1","index":5,"digest":"ab"},{"node":"n2","index":5,"digest":"ac"}]}`)
	silent := answering(t, `{"equal":false,"nodes":[{"node":"n1","index":5,"digest":"ab"},{"node":"n2","index":0,"digest":"","error":"down"}]}`)
	for _, v := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"cluster", "status", "--server", "127.0.0.1:1"}, exitUnreachable, "cannot connect to http://127.0.0.1:1: connection refused"},
		{[]string{"cluster", "status", "--server", none.URL}, exitUnreachable, "answers 404 Not Found"},
		{[]string{"cluster", "status", "--server", redirects.URL}, exitUnreachable, "answers 302 Found"},
		{[]string{"cluster", "status", "--server", differs}, exitUnreachable, "does not answer as a bellwire node does"},
		{[]string{"cluster", "status", "--server", hangs.URL, "--timeout", "50ms"}, exitTimeout, "did not answer within 50ms"},
		{[]string{"cluster", "status", "--server", "ftp://n1"}, exitUsage, "is no address of a node's HTTP side"},
		{[]string{"cluster", "status", "-o", "xml"}, exitUsage, "is not known here"},
		{[]string{"cluster", "remove"}, exitUsage, "the node to remove"},
		{[]string{"cluster", "remove", "n1", "--timeout", "-1s"}, exitUsage, "want a time to come"},
		{[]string{"cluster", "verify", "--server", differs}, exitFailed, "node n2 does not hold what node n1 holds, at index 5"},
		{[]string{"cluster", "verify", "--server", silent, "-o", "json"}, exitPartial, "1 of 2 nodes could not be compared"},
	} {
		got := bellwire(t, "", v.args...)
		if got.code != v.code || !strings.Contains(got.stderr, v.says) {
			t.Errorf("%q: %+v, want exit code %d and %q", v.args, got, v.code, v.says)
		}
	}
}

// answering returns the address of a server that gives everybody one answer.
func answering(t *testing.T, body string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
	t.Cleanup(s.Close)
	return s.URL
}

// How many more nodes may fail is said in words.
func TestHealth(t *testing.T) {
	for _, c := range []struct {
		voters, up int
		leader     string
		want       string
	}{
		{1, 1, "n1", "1 of 1 voters up · can lose no node · leader n1, term 2"},
		{3, 3, "n1", "3 of 3 voters up · can lose 1 node · leader n1, term 2"},
		{3, 2, "n1", "2 of 3 voters up · cannot lose another · leader n1, term 2"},
		{3, 1, "", "1 of 3 voters up · no quorum: 1 more must come back · no leader known"},
		{5, 5, "n1", "5 of 5 voters up · can lose 2 nodes · leader n1, term 2"},
	} {
		s := api.Status{Cluster: "9f3c1a2b-1111-4222-8333-444455556666", Voters: c.voters, Up: c.up, Leader: c.leader, Term: 2}
		if got := health(s); got != "cluster 9f3c1a2b   "+c.want {
			t.Errorf("%d of %d: %q", c.up, c.voters, got)
		}
	}
}

// Which feature level is in force, and who keeps the next from being, is said.
func TestLevelLine(t *testing.T) {
	levels := func(in, knows, hold cluster.Level) cluster.State {
		return cluster.State{Levels: cluster.Levels{InForce: in, Knows: knows, Hold: hold}}
	}
	for want, members := range map[string][]cluster.Member{
		" · level 2": {{Name: "n1", Reachable: true, State: levels(2, 2, 0)}, {Name: "n2"}},
		" · level 1": {{Name: "n1", Reachable: true}, {Name: "n2", Reachable: true}},
		" · level 2, 3 follows": {
			{Name: "n1", Reachable: true, State: levels(2, 3, 0)}, {Name: "n2", Reachable: true, State: levels(2, 3, 0)},
		},
		" · level 1, 3 waits: n1 knows 1, n2 does not answer, n3 holds it at 2": {
			{Name: "n1", Reachable: true}, {Name: "n2"}, {Name: "n3", Reachable: true, State: levels(1, 3, 2)}, {Name: "n4", Reachable: true, State: levels(1, 3, 0)},
		},
	} {
		if got := levelLine(statusOf("", members)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := levelLine(api.Status{}); got != "" {
		t.Errorf("of a version without levels: %q", got)
	}
}

// testConfig is that of a node alone.
func testConfig(t *testing.T, dir string) serverConfig {
	return serverConfig{
		node: "n1", domain: "example.com", fs: disk.Open(dir), dir: dir, mqtt: "127.0.0.1:0", http: "127.0.0.1:0",
		allowAnonymous: true, trust: trustNames, policy: acl.Open(), policyName: "test", logger: slog.New(slog.DiscardHandler),
		die: func(reason string) { panic(reason) },
	}
}

// A plan to remove a node says where it is, if it is anywhere that others reach.
func TestRemovalPlan(t *testing.T) {
	for addr, want := range map[string]string{
		"":              "remove node n1 (leader, a voter) from ",
		"10.0.0.1:7000": "remove node n1 (10.0.0.1:7000, leader, a voter) from ",
	} {
		if got := removalPlan(api.Status{Voters: 1, Up: 1}, api.Member{Name: "n1", Addr: addr, Role: "leader", Voter: true}); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
