package clustertest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

func openMachine(t testing.TB, fs *disk.FS, l *Ledger, node string) *Machine {
	t.Helper()
	m, err := OpenMachine(fs, node, 7, Program{Knows: firstLevel}, func(reason string) { panic(reason) }, l.Witness(node, nil))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// history makes entries from a seed, submitted in the ledger.
func history(l *Ledger, rng *rand.Rand, count int) (entries []Entry) {
	number, stamp := uint64(0), int64(1)
	for i := range count {
		e := Entry{Index: uint64(2*i + 1), Term: 1, Stamp: stamp}
		if i%20 == 0 {
			e.Stamp, e.Config = 0, []byte("members")
		} else {
			for range rng.IntN(4) {
				number++
				b := Batch{Name: "s", Life: 1, Number: number, Payload: make([]byte, rng.IntN(50))}
				l.submit(b)
				e.Batches = append(e.Batches, b.Encode())
			}
			stamp += rng.Int64N(3)
		}
		entries = append(entries, e)
	}
	return entries
}

func play(m *Machine, entries ...Entry) {
	for _, e := range entries {
		if e.Config != nil {
			m.Configure(e.Index, e.Term, e.Config)
		} else {
			m.Apply(e.Index, e.Term, e.Stamp, e.Batches)
		}
	}
}

// The power is cut at every disk operation of a machine that applies, flushes, is
// copied and restored: what is left is a state that it had, not older than what
// it called durable before.
func TestMachineSurvivesPowerCuts(t *testing.T) {
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		rng, dice := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		l := NewLedger()
		fs := disk.Crashable()
		m := openMachine(t, fs, l, "n")
		entries := history(l, rng, 60)
		cuts, before := 0, uint64(0)
		fs.Intercept(func(disk.Op, string) error {
			cuts++
			left, left2, err := readState(fs.Crash([]int{0, 50, 100}[dice.IntN(3)], dice), "n")
			if err != nil || left.Index < before {
				t.Errorf("seed %d, cut %d: index %d of %d entries, was %d, %v", seed, cuts, left.Index, len(left2), before, err)
			}
			return nil
		})
		for i := range entries {
			play(m, entries[i])
			if i%9 == 3 {
				dir := fmt.Sprint("copy", i)
				if index, _, err := m.Checkpoint(dir); err != nil || index != entries[i].Index {
					t.Fatalf("copy at %d: %d, %v", entries[i].Index, index, err)
				}
				if i%2 == 0 {
					if err := m.Restore(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			before, _, _, _ = m.Durable()
		}
		fs.Intercept(nil)
		index, digest := m.State()
		if err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		again := openMachine(t, fs, l, "n")
		if i, d := again.State(); i != index || d != digest || cuts < 100 {
			t.Errorf("seed %d: opened at %d, %x, want %d, %x; %d cuts", seed, i, d, index, digest, cuts)
		}
		if _, _, config, at := again.Durable(); string(config) != "members" || at != 81 {
			t.Errorf("configuration %q of %d", config, at)
		}
		if faults := l.Settle(map[string]*Machine{"n": again}); len(faults) > 0 {
			t.Errorf("seed %d: %v", seed, faults)
		}
	})
}

// A copy that was restored elsewhere is the same state, and goes on alike. One
// changed byte in any of its files is found.
func TestMachineCopies(t *testing.T) {
	l := NewLedger()
	fs := disk.Memory()
	a, b := openMachine(t, fs, l, "a"), openMachine(t, fs, l, "b")
	entries := history(l, rand.New(rand.NewPCG(1, 1)), 50)
	play(a, entries[:30]...)
	play(b, entries[:3]...)
	if _, _, err := a.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("copy")
	if err != nil || len(names) < 3 {
		t.Fatalf("the copy is %v, %v", names, err)
	}
	for _, name := range names {
		path := fs.PathJoin("copy", name)
		data, err := fs.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := bytes.Clone(data)
		damaged[len(damaged)/2] ^= 4
		if err := fs.WriteFile(path, damaged); err != nil {
			t.Fatal(err)
		}
		if err := b.Restore("copy"); !errors.Is(err, ErrState) {
			t.Errorf("a changed byte in %s: %v", name, err)
		}
		if err := fs.WriteFile(path, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Restore("copy"); err != nil {
		t.Fatal(err)
	}
	play(a, entries[30:]...)
	play(b, entries[30:]...)
	if faults := l.Settle(map[string]*Machine{"a": a, "b": b}); len(faults) > 0 {
		t.Error(faults)
	}
	if got := len(b.History()); got != 50 {
		t.Errorf("%d entries, want 50", got)
	}
}

// Each thing that must not happen is found, and said.
func TestLedgerFinds(t *testing.T) {
	batch := func(number uint64, payload string) Batch {
		return Batch{Name: "s", Life: 1, Number: number, Payload: []byte(payload)}
	}
	entry := func(index uint64, stamp int64, batches ...Batch) Entry {
		e := Entry{Index: index, Term: 1, Stamp: stamp}
		for _, b := range batches {
			e.Batches = append(e.Batches, b.Encode())
		}
		return e
	}
	one, two := batch(1, "one"), batch(2, "two")
	tests := map[string]struct {
		a, b []Entry // b: of a second machine, if it is not nil
		also func(*Ledger)
		want string
	}{
		"all is well":     {a: []Entry{entry(1, 1, one), entry(3, 1, one, two)}, b: []Entry{entry(1, 1, one), entry(3, 1, one, two)}},
		"other batches":   {a: []Entry{entry(1, 1, one)}, b: []Entry{entry(1, 1, one, two)}, want: "something else at 1"},
		"other stamps":    {a: []Entry{entry(1, 1, one)}, b: []Entry{entry(1, 2, one)}, want: "something else at 1"},
		"other before":    {a: []Entry{entry(1, 1, one), entry(2, 1, two)}, b: []Entry{entry(2, 1, two)}, want: "something else at 2"},
		"one is behind":   {a: []Entry{entry(1, 1, one), entry(2, 1, two)}, b: []Entry{entry(1, 1, one)}, want: "b ended at 1"},
		"indexes go back": {a: []Entry{entry(2, 1, one), entry(1, 1, two)}, want: "applied 1 after 2"},
		"stamps go back":  {a: []Entry{entry(1, 2, one), entry(2, 1, two)}, want: "ran back"},
		"invented":        {a: []Entry{entry(1, 1, batch(1, "never"))}, want: "nobody has submitted"},
		"lost":            {a: []Entry{entry(1, 1, one)}, b: []Entry{}, want: "b has lost s.1/1"},
		"lost by a gap":   {a: []Entry{entry(1, 1, two)}, also: func(l *Ledger) { l.told[two.key()] = 1 }, want: "a has lost s.1/2"},
		"moved":           {a: []Entry{entry(5, 1, one)}, also: func(l *Ledger) { l.told[one.key()] = 4 }, want: "a has s.1/1 at 5"},
		"two things":      {also: func(l *Ledger) { l.submit(batch(1, "other")) }, want: "as two things"},
		"two leaders":     {also: func(l *Ledger) { l.Leads("a", 7); l.Leads("a", 7); l.Leads("b", 7) }, want: "a and b lead in term 7"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			l.submit(one)
			l.submit(two)
			fs := disk.Memory()
			machines := map[string]*Machine{}
			for node, entries := range map[string][]Entry{"a": test.a, "b": test.b} {
				if node == "b" && entries == nil {
					continue
				}
				m, err := OpenMachine(fs, node, 1, Program{Knows: firstLevel}, func(reason string) { panic(reason) }, l.Witness(node, NewSource(l, "s", 1)))
				if err != nil {
					t.Fatal(err)
				}
				play(m, entries...)
				machines[node] = m
			}
			if test.also != nil {
				test.also(l)
			}
			faults := l.Settle(machines)
			if test.want == "" && len(faults) > 0 {
				t.Errorf("found %v", faults)
			}
			if test.want != "" && !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, test.want) }) {
				t.Errorf("found %q, want one with %q", faults, test.want)
			}
		})
	}
}

// What a retired witness sees counts no more: the process that it stands for is
// dead.
func TestRetired(t *testing.T) {
	l := NewLedger()
	w := l.Witness("a", nil)
	m, err := OpenMachine(disk.Memory(), "a", 1, Program{Knows: firstLevel}, func(reason string) { panic(reason) }, w)
	if err != nil {
		t.Fatal(err)
	}
	w.Retire()
	m.Apply(1, 1, 1, [][]byte{Batch{Name: "s", Life: 1, Number: 1}.Encode()})
	if faults := l.Faults(); len(faults) > 0 || l.Told() > 0 {
		t.Errorf("it counted: %v", faults)
	}
}
