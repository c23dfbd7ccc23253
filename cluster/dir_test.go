package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/disk"
)

// A directory gets an identity once and keeps it.
func TestIdentityIsKept(t *testing.T) {
	for name, fs := range map[string]*disk.FS{"memory": disk.Memory(), "real": disk.Open(t.TempDir())} {
		path := filepath.Join(t.TempDir(), "a", "data")
		d, err := Claim(fs, path, "n1", 1)
		if err != nil {
			t.Fatal(err)
		}
		first := d.Identity()
		if !isUUID(first.Node) || !isUUID(first.Cluster) || first.Node == first.Cluster || first.Name != "n1" || first.Started {
			t.Errorf("%s: %+v", name, first)
		}
		if err := errors.Join(d.started(), d.Close()); err != nil {
			t.Fatal(err)
		}
		if d, err = Claim(fs, path, "n1", 1); err != nil {
			t.Fatal(err)
		}
		first.Started = true
		if d.Identity() != first {
			t.Errorf("%s: %+v, was %+v", name, d.Identity(), first)
		}
		d.Close()
	}
	seen := map[string]bool{}
	for range 1000 {
		if u := newUUID(); seen[u] || !isUUID(u) || u[14] != '4' {
			t.Fatalf("%q twice, or no UUID", u)
		} else {
			seen[u] = true
		}
	}
}

// A directory that is not this node's to use is refused, with the reason, and
// nothing in it is changed.
func TestDirectoryIsRefused(t *testing.T) {
	good := `{"format":1,"cluster":"01234567-0123-4123-8123-0123456789ab","node":"11234567-0123-4123-8123-0123456789ab","name":"n1","started":true}`
	with := func(old, now string) string { return strings.Replace(good, old, now, 1) }
	for name, c := range map[string]struct {
		json string // of node.json; none if empty
		dirs []string
		want error
		text string // in the message
	}{
		"other node":      {with(`"n1"`, `"n2"`), nil, ErrOtherNode, `"n2"`},
		"newer":           {with(`"format":1`, `"format":2`), nil, ErrNewer, "level 2"},
		"newer, unknown":  {`{"format":9,"shape":"round"}`, nil, ErrNewer, "level 9"},
		"empty file":      {" ", nil, ErrDamaged, "node.json"},
		"half a file":     {good[:40], nil, ErrDamaged, "node.json"},
		"no id":           {with("1123", "x123"), nil, ErrDamaged, "incomplete"},
		"unknown field":   {with(`"name"`, `"nome"`), nil, ErrDamaged, "nome"},
		"format 0":        {with(`"format":1`, `"format":0`), nil, ErrDamaged, "incomplete"},
		"log, no json":    {"", []string{"raft"}, ErrDamaged, "raft"},
		"state, no json":  {"", []string{"state"}, ErrDamaged, "state"},
		"copies, no json": {"", []string{"snapshots"}, ErrDamaged, "snapshots"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := disk.Memory()
			fs.MakeDir("data")
			if c.json != "" {
				fs.WriteFile("data/node.json", []byte(c.json))
			}
			for _, dir := range c.dirs {
				fs.MakeDir(filepath.Join("data", dir))
			}
			before, _ := fs.List("data")
			_, err := Claim(fs, "data", "n1", 1)
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.text) || !strings.Contains(fmt.Sprint(err), "data") {
				t.Errorf("got %v, want %v that mentions %q", err, c.want, c.text)
			}
			after, _ := fs.List("data")
			before = append(before, "LOCK")
			slices.Sort(before)
			slices.Sort(after)
			if !slices.Equal(before, after) {
				t.Errorf("%q has become %q", before, after)
			}
			if c.json != "" {
				if now, _ := fs.ReadFile("data/node.json"); string(now) != c.json {
					t.Errorf("node.json is now %s", now)
				}
			}
			// And it is not locked any more.
			if lock, err := fs.Lock("data/LOCK"); err != nil {
				t.Error(err)
			} else {
				lock.Close()
			}
		})
	}
}

// A directory that a running process holds is refused until it is released.
func TestDirectoryInUse(t *testing.T) {
	fs := disk.Memory()
	d, err := Claim(fs, "data", "n1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(fs, "data", "n1", 1); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	d.Close()
	d, err = Claim(fs, "data", "n1", 1)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := Claim(disk.Memory(), "data", "", 1); err == nil {
		t.Error("a node without a name")
	}
}

// A power cut while the identity is made leaves none, or all of it.
func TestIdentityPowerCuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	cuts := 0
	for range 30 {
		fs := disk.Crashable()
		fs.Intercept(func(disk.Op, string) error {
			cuts++
			after := fs.Crash([]int{0, 50, 100}[rng.IntN(3)], rng)
			d, err := Claim(after, "data", "n1", 1)
			if err != nil {
				t.Errorf("cut %d: %v", cuts, err)
				return nil
			}
			d.Close()
			return nil
		})
		d, err := Claim(fs, "data", "n1", 1)
		if err != nil {
			t.Fatal(err)
		}
		fs.Intercept(nil)
		again, err := Claim(fs.Crash(0, nil), "data", "n1", 1)
		if err != nil {
			t.Fatal(err)
		}
		if again.Identity() != d.Identity() {
			t.Errorf("after a power cut another identity: %+v, was %+v", again.Identity(), d.Identity())
		}
		again.Close()
		d.Close()
	}
	if cuts < 100 {
		t.Errorf("only %d cuts", cuts)
	}
}
