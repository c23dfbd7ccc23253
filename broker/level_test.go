package broker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// A level is state: it is in force from the command that raises it on, for good,
// the same on all nodes, after a restart, and in a copy.
func TestLevelIsState(t *testing.T) {
	fs := disk.Memory()
	n1, n2 := openMachine(t, fs, "/data/n1", "n1"), openMachine(t, disk.Memory(), "/data/n2", "n2")
	d := drive(t, n1, n2)
	var told []Level
	n1.raised = func(l Level) { told = append(told, l) }
	if n1.level != FirstLevel {
		t.Errorf("a new state has level %d, want %d", n1.level, FirstLevel)
	}
	raise := &event.Raise{Level: uint8(NewestLevel)}
	for _, a := range d.entry(raise, raise, &event.Raise{Level: uint8(FirstLevel)}) {
		if a.err != nil {
			t.Error(a.err)
		}
	}
	if n1.level != NewestLevel || n2.level != NewestLevel {
		t.Errorf("levels %d and %d, want %d", n1.level, n2.level, NewestLevel)
	}
	if !slices.Equal(told, []Level{NewestLevel}) {
		t.Errorf("told of the levels %d, want %d once", told, NewestLevel)
	}
	if _, _, err := n1.Checkpoint("/data/copy"); err != nil {
		t.Fatal(err)
	}
	if err := n1.load(); err != nil || n1.level != NewestLevel {
		t.Errorf("level %d, %v after a restart, want %d", n1.level, err, NewestLevel)
	}
	copied := openMachine(t, fs, "/data/copied", "n3")
	defer copied.close(t)
	told = nil
	copied.raised = n1.raised
	if err := copied.Restore("/data/copy"); err != nil || copied.level != NewestLevel {
		t.Errorf("level %d, %v from a copy, want %d", copied.level, err, NewestLevel)
	}
	if !slices.Equal(told, []Level{NewestLevel}) {
		t.Errorf("told of the levels %d by a copy, want %d", told, NewestLevel)
	}
}

// A command that is rolled back takes the level with it that it raised.
func TestLevelIsRolledBack(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, m)
	m.raised = func(Level) { panic("no room to write it down") }
	if a := d.entry(&event.Raise{Level: uint8(NewestLevel)}); !errors.Is(a[0].err, ErrFailed) {
		t.Errorf("%v, want %v", a[0].err, ErrFailed)
	}
	if m.level != FirstLevel || Level(m.levelShown.Load()) != FirstLevel {
		t.Errorf("level %d, shown as %d, want %d", m.level, m.levelShown.Load(), FirstLevel)
	}
}

// A state of a level that a program does not know is refused, and so is a copy.
func TestLevelUnknownIsRefused(t *testing.T) {
	fs := disk.Memory()
	m := openMachine(t, fs, "/data/state", "n1")
	d := drive(t, m)
	d.entry(&event.Raise{Level: uint8(NewestLevel)})
	if _, _, err := m.Checkpoint("/data/copy"); err != nil {
		t.Fatal(err)
	}
	open := func(dir string) (*store.Store, error) {
		return store.Open(store.Options{
			Dir: dir, FS: fs, Newest: uint8(NewestLevel) - 1, Logger: slog.New(slog.DiscardHandler), Die: func(r string) { panic(r) },
		})
	}
	if _, err := open("/data/copy"); !errors.Is(err, store.ErrNewer) {
		t.Errorf("opened by a program of the level before: %v, want %v", err, store.ErrNewer)
	}
	older, err := open("/data/older")
	if err != nil {
		t.Fatal(err)
	}
	defer older.Close()
	before, _ := older.Digest(nil)
	if err := older.Replace("/data/copy"); !errors.Is(err, store.ErrNewer) {
		t.Errorf("given to a program of the level before: %v, want %v", err, store.ErrNewer)
	}
	if after, _ := older.Digest(nil); after != before {
		t.Error("the copy that was refused has changed the state")
	}
}

// Whoever asks the broker is told the level that is in force, once it is.
func TestRaise(t *testing.T) {
	n := bareNode(t, Limits{})
	n.serve()
	defer n.stop(true)
	if n.Level() != FirstLevel {
		t.Errorf("level %d, want %d", n.Level(), FirstLevel)
	}
	if err := n.Raise(context.Background(), NewestLevel); err != nil || n.Level() != NewestLevel {
		t.Errorf("level %d, %v, want %d", n.Level(), err, NewestLevel)
	}
	defer n.log.hold()()
	if err := n.Raise(context.Background(), NewestLevel); err != nil {
		t.Errorf("a level that is in force is raised to: %v", err)
	}
}
