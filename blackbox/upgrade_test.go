package blackbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/formats"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// An earlier version is one that was in use, as a binary.
type earlier struct {
	formats.Format
	binary  string
	missing string // why there is none here
	newest  int    // level that the present version knows
}

// lastVersion is the newest version that is tagged as having a format. It is built
// from the history, once on a machine.
var lastVersion = sync.OnceValues(func() (v earlier, err error) {
	const root = ".."
	all, err := formats.Read(root)
	if err != nil {
		return v, err
	}
	v.Format, v.newest = formats.Last(all), all[len(all)-1].Level
	if v.missing = formats.Missing(root, v.Commit); v.missing != "" {
		return v, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = scratch
	}
	dir := filepath.Join(cache, "bellwire-versions")
	v.binary = filepath.Join(dir, v.Commit)
	if _, err := os.Stat(v.binary); err == nil {
		return v, nil
	}
	tree := filepath.Join(scratch, v.Commit)
	if err := formats.Unpack(root, v.Commit, tree); err != nil {
		return v, err
	}
	defer os.RemoveAll(tree)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return v, err
	}
	part := fmt.Sprint(v.binary, ".part", os.Getpid())
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", part, "./cmd/bellwire")
	build.Dir, build.Env = tree, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return v, fmt.Errorf("go build of %s: %w\n%s", v.Commit, err, out)
	}
	return v, os.Rename(part, v.binary)
})

// old returns the last version. Where the history does not reach back to it, there is
// nothing to be shown.
func old(t *testing.T) earlier {
	t.Helper()
	start := time.Now()
	v, err := lastVersion()
	if err != nil {
		t.Fatal(err)
	}
	if v.missing != "" {
		t.Skip("missing: " + v.missing)
	}
	t.Logf("format %d, %.12s, had in %v", v.Level, v.Commit, time.Since(start).Round(time.Millisecond))
	return v
}

// ana connects the operator to a node. She is a presentity, too.
func ana(t testing.TB, at *server, id string) *mq.Client {
	t.Helper()
	m := clean(id)
	m.User, m.Password = "ana@example.com", []byte("sesame")
	return mq.Open(t, at.ready.MQTT, v5, m)
}

// A witness leaves something behind on a node and looks for it on all.
type witness struct {
	t    *testing.T
	said string
}

// leave retains a message, and says how ana is.
func (w *witness) leave(at *server, what string) {
	w.t.Helper()
	w.said = what
	c := ana(w.t, at, "witness")
	c.PublishMessage(retained("kept/here", what))
	c.PublishMessage(retained("presence/example.com/ana/desk", `{"tuples":[{"id":"im","basic":"open","note":{"en":"`+what+`"}}]}`))
	c.Disconnect()
}

// find wants both on a node.
func (w *witness) find(at *server) {
	w.t.Helper()
	c := ana(w.t, at, "witness")
	for _, topic := range []string{"kept/here", "presence/example.com/ana"} {
		c.Subscribe(topic, 1)
		if p := c.Receive(); p.Topic != topic || !contains(string(p.Payload), w.said) {
			w.t.Errorf("%s has %s in %s, want what was said last: %s", at.dir, p.Payload, p.Topic, w.said)
		}
	}
	c.Disconnect()
}

// Three nodes of the last version are exchanged for the present one, one after the
// other, under load: nothing that was acknowledged is lost, doubled or put out of
// order, sessions go on, and both versions serve side by side. The feature level
// stays until the last is exchanged, and rises then, if there is a newer one. From
// then on the last version is refused, on a node's data and as a node that would
// join.
//
// Item 60.
func TestClusterRollingUpgrade(t *testing.T) {
	t.Parallel()
	v := old(t)
	p := loopback()
	p.binary = v.binary
	c := p.start(t)
	w := &witness{t: t}
	l := c.load()
	l.start()
	crowd := newCrowd(c, 50)
	until(t, "the crowd is connected", 60*time.Second, func() bool { return crowd.connected.Load() == 50 })
	exactlyOnce(t, c.nodes[0], func(once *load) {
		for i, n := range c.nodes {
			l.await(300)
			once.await(50)
			w.leave(n, fmt.Sprint("before n", i+1))
			start := time.Now()
			n.stop()
			n.binary = ""
			n.start()
			c.await("three voters that answer", allVote)
			t.Logf("n%d is exchanged after %v", i+1, time.Since(start).Round(10*time.Millisecond))
			for _, other := range c.nodes {
				w.find(other)
			}
			if i < clusterSize-1 {
				c.levelHeld(i, v)
			}
		}
		c.await("the newest feature level on all nodes", func(all []member) bool {
			return allVote(all) && !slices.ContainsFunc(all, func(m member) bool { return m.Level != v.newest || m.Supports != v.newest })
		})
		l.await(300)
		once.await(50)
	}, func(once *load) {
		once.homes = map[string][]string{"once": c.addresses(1), "rx": c.addresses(2)}
	})
	crowd.leave()
	l.finish()
	c.alike()
	if lost := crowd.lost.Load(); lost > 0 {
		t.Errorf("%d times a session was gone", lost)
	}
	if v.newest > v.Level {
		c.refusesEarlier(v)
	}
}

// levelHeld wants the level to be that of the last version after nodes up to i are
// exchanged, and the next of those that are not to be named; and the states of both
// versions to be equal.
func (c *trio) levelHeld(i int, v earlier) {
	c.t.Helper()
	for j := range c.nodes {
		for _, m := range c.status(j) {
			if m.Level > v.Level {
				c.t.Errorf("n%d says that %s is at level %d, and not all know more than %d", j+1, m.Name, m.Level, v.Level)
			}
		}
	}
	until(c.t, "the states of all nodes are equal at one index", 60*time.Second, func() bool {
		_, _, code := c.ask(c.leader(), "verify")
		return code == 0
	})
	if v.newest == v.Level {
		return
	}
	out, errs, _ := c.ask(i, "status")
	want := fmt.Sprintf("level %d, %d waits: n%d knows %d", v.Level, v.newest, i+2, v.Level)
	if !contains(out+errs, want) {
		c.t.Errorf("status does not say %q: %s%s", want, errs, out)
	}
}

// refusesEarlier wants the last version to be refused now.
func (c *trio) refusesEarlier(v earlier) {
	c.t.Helper()
	last := c.nodes[clusterSize-1]
	last.stop()
	last.binary = v.binary
	refuses(c.t.(*testing.T), last, "later version", fmt.Sprint(v.newest))
	last.binary = ""
	last.start()

	p := loopback()
	p.binary = v.binary
	c.prepare(clusterSize, p, nil)
	stranger := c.nodes[clusterSize]
	c.nodes = c.nodes[:clusterSize]
	stranger.args[slices.Index(stranger.args, "--join")+1] = c.nodes[0].ready.Cluster
	err := stranger.launch()
	want := fmt.Sprintf("node %q knows feature level %d, and this cluster is at %d: upgrade it", "n4", v.Level, v.newest)
	if err == nil || !contains(err.Error(), want) {
		c.t.Errorf("a node of the last version that would join: %v, want it told %q", err, want)
	}
	c.await("three voters that answer", allVote)
}

// What the last version has left behind, after a stop or a crash, the present one
// goes on with; after that the last one refuses it, and touches nothing, unless both
// have the same feature level.
//
// Item 60.
func TestOldDataIsRead(t *testing.T) {
	t.Parallel()
	v := old(t)
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			policy := writeFile(t, "policy.yaml", trioPolicy)
			s := prepare(t, filepath.Join(t.TempDir(), "data"), "--allow-anonymous", "--policy", policy)
			s.binary = v.binary
			s.start()
			sub := s.open(v5, receiveMax("sub", 1000))
			sub.Subscribe("t/#", 2)
			sub.Disconnect()
			s.open(v5, willed(durable(v5, "dies"), "t/will", "gone"))
			publishMany(t, s.open(v5, clean("pub")), "t/1", 1, 1, 500)
			half := s.open(v5, durable(v5, "half"))
			half.Send(mq.Publish{Topic: "t/2", QoS: 2, ID: 7, Payload: []byte("once")})
			half.ExpectID(mq.PUBREC, 7)
			w := &witness{t: t}
			w.leave(s, "by the last version")
			if how == "stopped" {
				s.stop()
			} else {
				s.kill()
			}
			s.binary = ""
			s.start()
			w.find(s)
			sub, ack := mq.OpenAck(t, s.ready.MQTT, v5, receiveMax("sub", 1000))
			if !ack.SessionPresent {
				t.Error("the session is gone")
			}
			var got []string
			for range 502 { // two more than were published: the half of an exchange, and the will
				got = append(got, string(sub.Receive().Payload))
			}
			if !slices.Equal(got[:500], numbered500) || got[500] != "once" || got[501] != "gone" {
				t.Errorf("got %q, want 1 to 500, once, gone", got)
			}
			half, ack = mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, "half"))
			if !ack.SessionPresent {
				t.Error("the session of the publisher is gone")
			}
			half.Send(mq.Publish{Topic: "t/2", QoS: 2, ID: 7, Payload: []byte("once"), Dup: true})
			half.ExpectID(mq.PUBREC, 7)
			half.Send(mq.Ack{Type: mq.PUBREL, ID: 7})
			half.ExpectID(mq.PUBCOMP, 7)
			sub.Quiet()
			s.risesTo(v.newest)
			backup := filepath.Join(t.TempDir(), "backup")
			if _, errs, code := run(t, "backup", "--to", backup, "--server", s.ready.HTTP, "-u", "ana", "-P", "sesame"); code != 0 {
				t.Fatalf("backup: %d %s", code, errs)
			}
			v.restores(t, backup)
			s.stop()
			s.binary = v.binary
			if v.newest == v.Level { // then one can go back
				s.start()
				w.find(s)
				return
			}
			refuses(t, s, "later version", fmt.Sprint(v.newest))
		})
	}
}

// restores has the last version restore a backup: it can, if it knows the level of
// what is in it, and refuses to otherwise.
func (v earlier) restores(t *testing.T, backup string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	out, err := exec.Command(v.binary, "restore", "--data", dir, backup).CombinedOutput()
	switch {
	case v.newest == v.Level && err != nil:
		t.Errorf("the last version does not restore a backup of its own level: %v %s", err, out)
	case v.newest > v.Level && (err == nil || !contains(string(out), "BW-5003")):
		t.Errorf("the last version restores a backup that it does not understand: %v %s", err, out)
	}
	if _, err := os.Stat(dir); err == nil && v.newest > v.Level {
		t.Errorf("what was refused has left %s behind", dir)
	}
}

// A node that is far behind is given the state by another version: the last one sends
// it to the present one, which sends it on to the last.
func TestClusterMixedSnapshots(t *testing.T) {
	t.Parallel()
	v := old(t)
	c := &trio{t: t, policy: writeFile(t, "policy.yaml", trioPolicy)}
	p := loopback()
	for i, binary := range []string{v.binary, "", v.binary} {
		p.binary = binary
		c.prepare(i, p, []string{"--verbose"})
	}
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.start()
	w := &witness{t: t}
	w.leave(n1, "long ago")
	// More than a log keeps for those who lag; it is truncated as far as the state is
	// on the disk, as it is after a stop, and looked at again 16 MiB later.
	publish40MiB(t, n1)
	n1.stop()
	n1.start()
	publish40MiB(t, n1)
	const installed = "raft: Installed remote snapshot"
	n2.start()
	w.find(n2)
	c.await("n2 has a vote", func(all []member) bool { return len(all) == 2 && all[1].Voter && all[1].Role != "down" })
	c.lead(1, true)
	n3.start()
	c.await("three voters that answer", allVote)
	w.find(n3)
	if !contains(n2.logs.String(), installed) || !contains(n3.logs.String(), installed) {
		t.Error("one of them needed no snapshot: this shows nothing")
	}
	c.alike()
}

// publish40MiB publishes as much, which nobody gets.
func publish40MiB(t *testing.T, s *server) {
	t.Helper()
	c := ana(t, s, "filler")
	payload := strings.Repeat("x", 200<<10)
	for range 200 {
		c.Publish("fill", 1, payload)
	}
	c.Disconnect()
}

// Who holds the level can go back to the last version with all that was written
// meanwhile, and forward again.
func TestHeldLevelLetsGoBack(t *testing.T) {
	t.Parallel()
	v := old(t)
	policy := writeFile(t, "policy.yaml", trioPolicy)
	s := prepare(t, filepath.Join(t.TempDir(), "data"), "--allow-anonymous", "--policy", policy)
	args := s.args
	s.args = append(slices.Clone(args), "--hold-level", fmt.Sprint(v.Level))
	s.start()
	w := &witness{t: t}
	w.leave(s, "while it was held")
	for metric, want := range map[string]int{"bellwire_feature_level": v.Level, "bellwire_feature_level_supported": v.Level} {
		if got := s.metric(metric); int(got) != want {
			t.Errorf("%s is %v, want %d", metric, got, want)
		}
	}
	s.stop()
	s.args, s.binary = args, v.binary
	s.start()
	w.find(s)
	w.leave(s, "by the last version")
	s.stop()
	s.binary = ""
	s.start()
	w.find(s)
	s.risesTo(v.newest)
}

// risesTo waits until the feature level is another, which a node brings about while it
// serves already.
func (s *server) risesTo(level int) {
	s.t.Helper()
	until(s.t, fmt.Sprint("feature level ", level), patience, func() bool { return int(s.metric("bellwire_feature_level")) == level })
}
