package blackbox

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/internal/freeport"
)

// fingerprint is names and contents of all files below dir.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintln(h, rel)
		_, err = io.Copy(h, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// filled is a data directory with something in it, its server stopped.
func filled(t *testing.T) *server {
	t.Helper()
	s := serve(t, "--allow-anonymous")
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	publishMany(t, s.open(v5, clean("pub")), "t", 1, 1, 500)
	s.stop()
	return s
}

// refuses starts the server on its directory and wants a refusal that says
// each of the words, with nothing in the directory changed.
func refuses(t *testing.T, s *server, words ...string) {
	t.Helper()
	before := fingerprint(t, s.dir)
	s.logs = new(logBuffer)
	err := s.launch()
	if err == nil {
		t.Fatal("the server serves")
	}
	for _, w := range words {
		if !strings.Contains(strings.ToLower(err.Error()), w) {
			t.Errorf("the refusal does not say %q: %v", w, err)
		}
	}
	if fingerprint(t, s.dir) != before {
		t.Error("the refusal has changed the directory")
	}
	t.Logf("refused: %v", err)
}

// A directory in use is refused, and its owner notices nothing.
func TestDataDirectoryInUse(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	other := prepare(t, s.dir, "--allow-anonymous")
	if err := other.launch(); err == nil {
		t.Fatal("two servers serve one directory")
	} else if !strings.Contains(err.Error(), s.dir) {
		t.Errorf("the refusal does not name the directory: %v", err)
	}
	c := s.open(v5, clean("c"))
	c.Subscribe("t", 1)
	c.Publish("t", 1, "x")
	c.ReceiveText("t", "x")
}

// A directory of another node is refused by name.
func TestDataDirectoryOfAnotherNode(t *testing.T) {
	t.Parallel()
	s := prepare(t, filepath.Join(t.TempDir(), "data"), "--allow-anonymous", "--node", "n1")
	s.start()
	s.stop()
	s.args[len(s.args)-1] = "n2"
	refuses(t, s, "n1", "n2")
	s.args[len(s.args)-1] = "n1"
	s.start()
}

// A directory that a newer version has written is refused with the advice to
// upgrade.
func TestDataDirectoryOfANewerVersion(t *testing.T) {
	t.Parallel()
	s := filled(t)
	path := filepath.Join(s.dir, "node.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := regexp.MustCompile(`"format": *\d+`).ReplaceAllString(string(text), `"format": 9999`)
	if newer == string(text) {
		t.Fatalf("no format in %s: %s", path, text)
	}
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, s, "newer")
}

// A directory of which a part is gone is refused: it is not begun anew, and not
// made again from what is left.
func TestDataDirectoryWithAPartMissing(t *testing.T) {
	t.Parallel()
	s := filled(t)
	original := filepath.Join(t.TempDir(), "original")
	copyTree(t, s.dir, original)
	for _, part := range []string{"state", "raft", "node.json"} {
		for _, how := range []string{"gone", "empty"} {
			path := filepath.Join(s.dir, part)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if how == "empty" && part != "node.json" {
				if err := os.Mkdir(path, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if part == "raft" { // to look for a log makes a directory for one
				if err := s.launch(); err == nil || !strings.Contains(err.Error(), "damaged") {
					t.Errorf("raft %s: got %v, want a refusal", how, err)
				}
			} else {
				refuses(t, s, "damaged", "restore it")
			}
			if err := os.RemoveAll(s.dir); err != nil {
				t.Fatal(err)
			}
			copyTree(t, original, s.dir)
		}
	}
	s.start()
	sub := s.open(v5, durable(v5, "sub"))
	sub.ReceiveAll(numbered500...)
}

// Damage anywhere in what has been acknowledged is noticed: the server refuses
// or, where the damage is in what it does not need, has all it acknowledged. It
// never serves less.
func TestDataDirectoryDamaged(t *testing.T) {
	t.Parallel()
	s := filled(t)
	original := filepath.Join(t.TempDir(), "original")
	copyTree(t, s.dir, original)
	var files []string
	err := filepath.WalkDir(original, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && info.Size() > 0 {
				rel, _ := filepath.Rel(original, path)
				files = append(files, rel)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, rel := range files {
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
		copyTree(t, original, s.dir)
		damage(t, filepath.Join(s.dir, rel))
		s.logs = new(logBuffer)
		if err := s.launch(); err != nil {
			refused++
			if strings.Contains(err.Error(), "panic:") || strings.Contains(err.Error(), "goroutine ") {
				t.Errorf("%s damaged: a crash in place of a refusal: %v", rel, err)
			}
			t.Logf("%s damaged: refused", rel)
			continue
		}
		sub := s.open(v5, durable(v5, "sub"))
		sub.ReceiveAll(numbered500...)
		sub.Close()
		s.kill()
		t.Logf("%s damaged: nothing is missing", rel)
	}
	if refused == 0 {
		t.Errorf("none of %d damaged files was noticed", len(files))
	}
	s.ended = true
}

// damage flips a bit in the middle of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A wrong limits file is refused with every fault in it, its place, and the
// exit code of wrong use.
func TestBadLimitsFile(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "limits.yaml", "v: 1\ndefault:\n  sesion.queueEvents: 10\n  session.queueEvents: -1\n")
	out, errs, code := run(t, "serve", "--data", t.TempDir(), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--domain", "example.com", "--allow-anonymous", "--limits", path)
	if code != 2 || out != "" {
		t.Errorf("exit code %d, stdout %q, want 2 and nothing", code, out)
	}
	for _, w := range []string{"limits.yaml", "sesion", "-1"} {
		if !strings.Contains(errs, w) {
			t.Errorf("the refusal does not say %q:\n%s", w, errs)
		}
	}
}

// An address that is taken is told, with who has it, and nothing was begun.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	one := freeAddress(t)
	for _, taken := range [][]string{{"--mqtt", s.ready.MQTT, "--http", "127.0.0.1:0"}, {"--mqtt", "127.0.0.1:0", "--http", s.ready.MQTT}, {"--mqtt", one, "--http", one}} {
		dir := t.TempDir()
		_, errs, code := run(t, append([]string{"serve", "--data", dir, "--domain", "example.com", "--allow-anonymous"}, taken...)...)
		if code == 0 || !strings.Contains(errs, "BW-2013") {
			t.Errorf("%q: exit code %d, want a refusal\n%s", taken, code, errs)
		}
		if taken[1] != one && !regexp.MustCompile(regexp.QuoteMeta(s.ready.MQTT)+`: address already in use by \S+ \(pid \d+\)\n`).MatchString(errs) {
			t.Errorf("%q: it does not say who has it\n%s", taken, errs)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%q: the directory has %v, %v", taken, files, err)
		}
	}
}

// freeAddress returns an address of the loopback that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", freeport.On(t, "127.0.0.1"))
}
