package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/cluster"
)

// A backup that is taken of a follower, while things go on, becomes the first node
// of a new cluster, with everything that was acknowledged before: retained
// messages, policy, sessions and what is queued for them. Others can join it.
func TestBackupAndRestore(t *testing.T) {
	c := startCluster(t, 2)
	n1, n2 := c.nodes[0], c.nodes[1]
	at := func(n *testNode, args ...string) []string {
		return append(args, "-p", portOf(t, n.line.MQTT), "-u", "ana", "-P", "sesame")
	}
	must := func(args ...string) string {
		t.Helper()
		return c.run(args...).stdout
	}
	must(at(n1, "sub", "-i", "pager", "-c", "-q", "1", "-t", "alarm", "-E")...)
	must(at(n2, "pub", "-q", "1", "-r", "-t", "home/kitchen", "-m", "21.5")...)
	must(at(n2, "pub", "-q", "1", "-t", "alarm", "-m", "fire")...)

	load, endLoad := context.WithCancel(t.Context())
	loaded := make(chan int, 1)
	go func() {
		var out, notes bytes.Buffer
		loaded <- run(load, at(n1, "pub", "-q", "1", "-r", "-t", "load", "-m", "x", "--repeat", "1000000"), strings.NewReader(""), &out, &notes)
	}()
	file := filepath.Join(c.dir, "b.backup")
	got := c.at(n2, "backup", "--to", file, "-o", "json")
	var made backedUp
	if err := json.Unmarshal([]byte(got.stdout), &made); err != nil || got.code != 0 || made.Index == 0 || made.Bytes == 0 {
		t.Fatalf("%+v", got)
	}
	endLoad()
	<-loaded
	if got := c.at(n1, "backup", "--to", file); got.code != exitConflict || !strings.Contains(got.stderr, "exists\n") {
		t.Errorf("overwritten: %+v", got)
	}
	if got := must("backup", "verify", file); !strings.Contains(got, "checksums right") {
		t.Errorf("verify: %q", got)
	}
	if got := c.at(n1, "backup", "--to", file+"2", "-u", "bo", "-P", "sesame"); got.code != exitDenied {
		t.Errorf("somebody who is no operator: %+v", got)
	}
	n1.stop()
	n2.stop()

	if got := bellwire(t, "", "restore", "--data", n1.dir, file); got.code != exitConflict || !strings.Contains(got.stderr, "is not empty") {
		t.Errorf("into a directory that is one: %+v", got)
	}
	restored := bellwire(t, "", "restore", "--data", filepath.Join(c.dir, "r1"), "--node", "r1", "--cluster-name", "again", file)
	_, told, _ := strings.Cut(restored.stderr, "alone in a new cluster, again, with all as of entry ")
	var as, on uint64 // what came while it was taken may be in it, too
	if n, _ := fmt.Sscanf(told, "%d of the backup; it goes on with entry %d", &as, &on); restored.code != 0 || n != 2 || as < made.Index || on != as+1 {
		t.Fatalf("%+v, of %+v", restored, made)
	}
	c.nodes = nil
	r1 := c.launch("r1") // neither --bootstrap nor --join: it has its cluster
	c.await(r1, "r1 leads alone", leads("r1"))
	if all := c.status(r1); len(all) != 1 {
		t.Errorf("%+v", all)
	}
	if got := c.at(r1, "cluster", "status"); !strings.HasPrefix(got.stderr, "cluster again (") {
		t.Errorf("the cluster's name is not shown: %+v", got)
	}
	r1.stop()
	c.nodes = nil
	r1 = c.launch("r1") // from its own log
	c.await(r1, "r1 leads again", leads("r1"))
	r2 := c.start("r2")
	if got := c.at(r1, "cluster", "join", "r2", "--wait", "1m"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	for _, n := range []*testNode{r1, r2} {
		if got := must(at(n, "sub", "-t", "home/+", "-v", "-C", "1")...); got != "home/kitchen 21.5\n" {
			t.Errorf("%s: retained %q", n.name, got)
		}
		if got := bellwire(t, "", "pub", "-p", portOf(t, n.line.MQTT), "-u", "ana", "-P", "wrong", "-t", "x", "-m", "x"); got.code != exitDenied {
			t.Errorf("%s: the policy is not in force: %+v", n.name, got)
		}
	}
	if got := must(at(r2, "sub", "-i", "pager", "-c", "-q", "1", "-t", "alarm", "-C", "1")...); got != "fire\n" {
		t.Errorf("queued %q", got)
	}
	if got := c.at(r2, "cluster", "verify"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// A restored directory takes the place of one that is empty, also behind a link; where a disk is mounted it
// cannot, which is said before anything is done.
func TestWhereABackupIsRestored(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	disk, link := filepath.Join(dir, "disk"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(disk, 0o700), os.Symlink(disk, link)); err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]string{disk: disk, link: disk, filepath.Join(dir, "new"): filepath.Join(dir, "new")} {
		if got, err := restorePlace(data); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", data, got, err, want)
		}
	}
	if runtime.GOOS == "linux" {
		if got, err := restorePlace("/proc"); err == nil || !strings.Contains(err.Error(), "a disk is mounted") {
			t.Errorf("/proc: %q, %v", got, err)
		}
	}
}

// A backup that is cut short, or altered by a bit, makes nothing.
func TestDamagedBackup(t *testing.T) {
	c := startCluster(t, 1)
	file := filepath.Join(c.dir, "b.backup")
	if got := c.at(c.nodes[0], "backup", "--to", file); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 4
		return b
	}
	for at := 0; at < len(whole)-2048; at += 1 + len(whole)/37 { // wherever, but in the zeros after the sums
		if _, err := cluster.CheckBackup(bytes.NewReader(whole[:at])); !errors.Is(err, cluster.ErrDamaged) {
			t.Errorf("the first %d bytes of %d: %v", at, len(whole), err)
		}
	}
	for name, data := range map[string][]byte{
		"empty": {}, "half": whole[:len(whole)/2], "without its end": whole[:len(whole)-2048], "something else": []byte("hello, I am a text\n"),
		"a bit of the first file": flipped(512 + 10), "a bit in the middle": flipped(len(whole) / 2 &^ 511), "a bit of a header": flipped(0),
	} {
		bad := writeFile(t, "bad.backup", string(data))
		dir := filepath.Join(t.TempDir(), "new")
		for _, args := range [][]string{{"backup", "verify", bad}, {"restore", "--data", dir, bad}} {
			got := bellwire(t, "", args...)
			if got.code != exitFailed || !strings.Contains(got.stderr, "BW-5006") {
				t.Errorf("%s: %q: %+v", name, args[0], got)
			}
		}
		if left, err := filepath.Glob(dir + "*"); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
}
