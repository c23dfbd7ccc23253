package blackbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/internal/effort"
)

// A node whose disk was emptied is not taken in again under its name, and says what
// to do; removed, it joins anew under load, and is as the others are. So does another
// node in its place, under a name of its own.
//
// Item 59.
func TestClusterWipedNode(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	l.await(500)
	const i = 2
	name := fmt.Sprint("n", i+1)
	n := c.nodes[i]
	n.kill()
	c.wipe(i)
	if err := n.launch(); err == nil || !strings.Contains(err.Error(), "cluster remove "+name) {
		t.Errorf("with an emptied disk: %v, want a refusal that says what to do", err)
	}
	c.replace(i)
	l.await(300)
	n.kill()
	c.rename(i, "n4")
	c.replace(i)
	l.await(300)
	l.finish()
	c.alike()
	c.await("n4 in place of "+name, func(all []member) bool {
		return slices.ContainsFunc(all, func(m member) bool { return m.Name == "n4" && m.Voter }) &&
			!slices.ContainsFunc(all, func(m member) bool { return m.Name == name })
	})
}

// rename has node i, which is down, start as another node, with a certificate of its own.
func (c *trio) rename(i int, name string) {
	c.t.Helper()
	n := c.nodes[i]
	ca, tls := filepath.Join(filepath.Dir(c.policy), "ca"), filepath.Join(c.t.TempDir(), "tls")
	if _, stderr, code := run(c.t, "cert", "node", "--ca", ca, "--name", name, "--out", tls); code != 0 {
		c.t.Fatalf("cert node: %d %s", code, stderr)
	}
	for flag, value := range map[string]string{"--node": name, "--cluster-tls": tls} {
		n.args[slices.Index(n.args, flag)+1] = value
	}
}

// id returns what an operator confirms the cluster by: the beginning of its id.
func (c *trio) id() string {
	c.t.Helper()
	return c.cluster()[:8]
}

// cluster returns its id.
func (c *trio) cluster() string {
	c.t.Helper()
	var identity struct{ Cluster string }
	data, err := os.ReadFile(filepath.Join(c.nodes[0].dir, "node.json"))
	if err == nil {
		err = json.Unmarshal(data, &identity)
	}
	if err != nil || len(identity.Cluster) < 8 {
		c.t.Fatalf("node.json: %s, %v", data, err)
	}
	return identity.Cluster
}

// wipe empties the disk of node i, which does not run.
func (c *trio) wipe(i int) {
	c.t.Helper()
	if err := os.RemoveAll(c.nodes[i].dir); err != nil {
		c.t.Fatal(err)
	}
}

// replace has node i, which is down and has lost its disk, join anew.
func (c *trio) replace(i int) {
	c.t.Helper()
	name := fmt.Sprint("n", i+1)
	out, errs, code := c.ask(c.leader(), "remove", name, "--confirm", c.id())
	if code != 0 {
		c.t.Fatalf("remove %s: %d %s%s", name, code, out, errs)
	}
	c.wipe(i)
	c.nodes[i].start()
	c.await("three voters that answer", allVote)
}

// One bit of a stopped node's files is flipped, wherever: it does not start, and
// says that its data are damaged; or it does, and is as the others are, since the
// bit did not matter or was mended. It never goes on with something else.
func TestClusterFlippedBit(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	rng := rand.New(rand.NewPCG(effort.First(), 46))
	tried, refused := 0, 0
	for range effort.Turns(t) {
		tried++
		l.await(200)
		i := c.replaceable(rng.IntN(2))
		n := c.nodes[i]
		n.kill()
		what := flip(t, rng, n.dir)
		if err := n.launch(); err != nil {
			refused++
			if !strings.Contains(err.Error(), "damaged") && !strings.Contains(n.logs.String(), "damaged") {
				t.Errorf("%s flipped: it does not start, and does not say why: %v", what, err)
			}
			c.replace(i)
		}
		c.await("three voters that answer", allVote)
	}
	l.finish()
	c.alike()
	t.Logf("%d of %d nodes with a flipped bit did not start", refused, tried)
}

// The end of a stopped node's log is cut off, or overwritten: what it had acknowledged
// to the others is not there any more. It does not start, and says that its log is
// damaged, so that it never votes on what it forgot; taken out and joined anew it is as
// the others are.
func TestClusterDamagedTail(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	rng := rand.New(rand.NewPCG(effort.First(), 48))
	for round := range effort.Turns(t) {
		i := 1 + round%2 // the founder cannot join anew: it was started with --bootstrap
		n := c.nodes[i]
		dir := filepath.Join(n.dir, "raft")
		for file := ""; file != newestLog(t, dir); {
			file = newestLog(t, dir)
			l.await(clusterRate() * 2) // what was synced more than a second ago is known to have been
		}
		n.kill()
		what := damageTail(t, rng, newestLog(t, dir), round%2 == 0)
		err := n.launch()
		if err == nil {
			t.Fatalf("%s: it starts", what)
		}
		if !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: it does not start, and does not say why: %v", what, err)
		}
		c.replace(i)
	}
	l.finish()
	c.alike()
}

// newestLog returns the newest file of a log, which is another one from time to time.
func newestLog(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files of %s: %v, %v", dir, files, err)
	}
	return files[len(files)-1] // their names ascend
}

// damageTail cuts off all but the first quarter of what a log's file holds, or fills it
// with noise.
func damageTail(t testing.TB, rng *rand.Rand, path string, cut bool) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(data, "\x00")) // room that was allotted is zeros
	at := end / 4
	what := fmt.Sprintf("bytes %d to %d of %s", at, end, filepath.Base(path))
	if cut {
		if err := os.Truncate(path, int64(at)); err != nil {
			t.Fatal(err)
		}
		return what + " cut off"
	}
	for i := at; i < end; i++ {
		data[i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
	return what + " overwritten"
}

// flip changes one bit of the log or the state.
func flip(t testing.TB, rng *rand.Rand, dir string) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		name := d.Name()
		if err == nil && info.Size() > 0 && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST")) {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("files of %s: %v, %v", dir, files, err)
	}
	path := files[rng.IntN(len(files))]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := rng.IntN(len(data))
	data[at] ^= 1 << rng.IntN(8)
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("byte %d of %d of %s", at, len(data), strings.TrimPrefix(path, dir))
}

// A node whose first start ended before it was taken in, and that is started again
// without being told whom to ask, says so: it would wait for ever.
func TestClusterJoinWasInterrupted(t *testing.T) {
	t.Parallel()
	if target != "" {
		t.Skipf("missing: a server of our own, BELLWIRE_BLACKBOX_TARGET=%s is set", target)
	}
	dir := t.TempDir()
	data, ca, tls := filepath.Join(dir, "data"), filepath.Join(dir, "ca"), filepath.Join(dir, "tls")
	for _, verb := range [][]string{{"ca", "--out", ca}, {"node", "--ca", ca, "--name", "n1", "--out", tls}} {
		if _, stderr, code := run(t, append([]string{"cert"}, verb...)...); code != 0 {
			t.Fatalf("cert: %d %s", code, stderr)
		}
	}
	if err := os.Mkdir(data, 0o750); err != nil {
		t.Fatal(err)
	}
	const identity = `{"format": 1, "cluster": "", "node": "0e2fc9ce-a678-4ae8-b3a1-13e72c6c004c", "name": "n1", "joined": true, "started": false}`
	if err := os.WriteFile(filepath.Join(data, "node.json"), []byte(identity), 0o640); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := run(t, "serve", "--data", data, "--node", "n1", "--mqtt", "127.0.0.1:0", "--cluster", "127.0.0.1:0", "--cluster-tls", tls)
	if code != 2 || !strings.Contains(stderr, "give --join") {
		t.Errorf("exit %d and %q, want 2 and what to do", code, stderr)
	}
}
