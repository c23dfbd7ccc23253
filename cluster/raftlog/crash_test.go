package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

// A ledger is what a power cut must leave of a log: what has been acknowledged
// for certain, and what was being written maybe.
type ledger struct {
	acked    uint64 // last index that is acknowledged
	written  uint64 // last index that is being written; acked if none is
	terms    map[uint64]uint64
	term     [2]uint64 // current term: acknowledged, being written
	vote     [2]vote
	durable  uint64 // of the state
	truncate uint64 // up to where the head may be gone
}

type vote struct {
	term      uint64
	candidate string
}

// check opens what a power cut has left, and compares.
func (g *ledger) check(fs *disk.FS) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(err, fmt.Errorf("panic: %v", p))
		}
	}()
	db, err := Open(options(fs))
	if err != nil {
		return err
	}
	l, err := db.Log(0, never, 0)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return errors.Join(g.compare(l), db.Close())
}

func (g *ledger) compare(l *Log) error {
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if last < g.acked && g.acked != 0 || last > g.written {
		return fmt.Errorf("the log ends at %d: %d is acknowledged, %d being written", last, g.acked, g.written)
	}
	if first > g.truncate+1 && last != 0 {
		return fmt.Errorf("the log begins at %d: %d may have been truncated", first, g.truncate)
	}
	if first > g.durable+1 {
		return fmt.Errorf("the log begins at %d: the state is durable up to %d", first, g.durable)
	}
	for i := first; i <= last && i != 0; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		want := g.terms[i]
		if e.Term != want {
			return fmt.Errorf("entry %d is of term %d, want %d", i, e.Term, want)
		}
		if text := fmt.Sprintf("%d/%d ", i, e.Term); !strings.HasPrefix(string(e.Data), text) {
			return fmt.Errorf("entry %d holds %.20q, want %q", i, e.Data, text)
		}
	}
	term, _ := l.GetUint64([]byte(nameTerm))
	if term != g.term[0] && term != g.term[1] {
		return fmt.Errorf("term %d, want %d or %d", term, g.term[0], g.term[1])
	}
	voteTerm, _ := l.GetUint64([]byte(nameVoteTerm))
	candidate, _ := l.Get([]byte(nameVoteCand))
	if v := (vote{voteTerm, string(candidate)}); v != g.vote[0] && v != g.vote[1] {
		return fmt.Errorf("vote %v, want %v or %v", v, g.vote[0], g.vote[1])
	}
	return nil
}

// Power cuts at every kind of moment lose nothing that was acknowledged: neither
// entries nor term nor vote, whatever of the unsynced survives.
func TestPowerCuts(t *testing.T) {
	cuts, seeds := 0, 0
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		cuts += crashRun(t, seed)
		seeds++
	})
	t.Logf("%d power cuts", cuts)
	if cuts < 60*seeds {
		t.Errorf("only %d power cuts by %d seeds", cuts, seeds)
	}
}

// A crasher runs operations on a log, and cuts the power before, in and after them.
// In them means: at disk operations, which come from several goroutines; so the
// ledger is changed under mu, before an operation begins and after it has ended.
type crasher struct {
	t    *testing.T
	seed uint64
	fs   *disk.FS
	rng  *rand.Rand // of the goroutine that runs the operations
	db   *DB
	log  *Log
	opts Options

	mu   sync.Mutex // guards the following
	g    ledger
	dice *rand.Rand
	cuts int
}

func crashRun(t *testing.T, seed uint64) (cuts int) {
	c := &crasher{
		t: t, seed: seed, fs: disk.Crashable(),
		rng: rand.New(rand.NewPCG(seed, 7)), dice: rand.New(rand.NewPCG(seed, 8)),
		g: ledger{terms: map[uint64]uint64{}},
	}
	c.opts = options(c.fs)
	c.opts.MemTable = 64 << 10 // so that tables are written and the write-ahead log is rotated
	c.db, c.log = open(t, c.opts, c.durable, 0)
	c.fs.Intercept(func(disk.Op, string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.dice.IntN(10) == 0 {
			c.cut()
		}
		return nil
	})
	for range 120 {
		c.step()
	}
	c.fs.Intercept(nil)
	closeDB(t, c.db)
	return c.cuts
}

func (c *crasher) durable() uint64 { return c.g.durable } // changed by the caller's goroutine only

// cut cuts the power and looks at what is left. Requires mu.
func (c *crasher) cut() {
	if c.t.Failed() {
		return
	}
	c.cuts++
	after := c.fs.Crash([]int{0, 50, 100}[c.dice.IntN(3)], c.dice)
	if err := c.g.check(after); err != nil {
		c.t.Errorf("seed %d, cut %d: %v", c.seed, c.cuts, err)
	}
}

// do changes the ledger, runs an operation, changes the ledger again, and cuts the
// power.
func (c *crasher) do(before func(g *ledger), op func() error, after func(g *ledger)) {
	c.t.Helper()
	c.mu.Lock()
	before(&c.g)
	c.mu.Unlock()
	if err := op(); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	after(&c.g)
	c.cut()
}

func nothing(*ledger) {}

func (c *crasher) step() {
	first, _ := c.log.FirstIndex()
	last, _ := c.log.LastIndex()
	switch c.rng.IntN(10) {
	case 0, 1, 2, 3, 4:
		c.append()
	case 5:
		c.vote()
	case 6: // a tail is overruled: until it is replaced, it may be there or not
		low := max(first, c.g.durable) + 1
		if first == 0 || last <= low {
			return
		}
		from := low + uint64(c.rng.IntN(int(last-low)))
		c.do(func(g *ledger) { g.acked = from - 1 },
			func() error { return c.log.DeleteRange(from, last) },
			func(g *ledger) { g.written = g.acked })
	case 7: // the state becomes durable, and the head is truncated
		if first == 0 || last <= first+2 {
			return
		}
		durable := max(c.g.durable, first+uint64(c.rng.IntN(int(last-first))))
		upTo := first + uint64(c.rng.IntN(int(last-first)))
		c.do(func(g *ledger) { g.durable, g.truncate = durable, max(g.truncate, min(upTo, durable)) },
			func() error { return c.log.DeleteRange(first, upTo) }, nothing)
	case 8:
		if c.rng.IntN(4) == 0 {
			c.do(nothing, c.db.Close, nothing)
			c.db, c.log = open(c.t, c.opts, c.durable, 0)
		}
	case 9:
		c.do(nothing, c.db.pebble.Flush, nothing)
	}
}

func (c *crasher) append() {
	last := c.g.acked
	var entries []*raft.Log
	term := max(c.g.term[0], 1)
	for i := last + 1; i <= last+1+uint64(c.rng.IntN(6)); i++ {
		data := fmt.Sprintf("%d/%d %s", i, term, strings.Repeat("x", c.rng.IntN(4000)))
		entries = append(entries, command(i, term, data))
	}
	newest := entries[len(entries)-1].Index
	c.do(func(g *ledger) {
		for i := last + 1; i <= newest; i++ {
			g.terms[i] = term
		}
		g.written = newest
	}, func() error { return c.log.StoreLogs(entries) }, func(g *ledger) { g.acked = newest })
}

func (c *crasher) vote() {
	term := c.g.term[0] + 1
	v := vote{term, fmt.Sprint("n", c.rng.IntN(3))}
	c.do(func(g *ledger) { g.term[1] = term },
		func() error { return c.log.SetUint64([]byte(nameTerm), term) },
		func(g *ledger) { g.term[0] = term })
	c.do(func(g *ledger) { g.vote[1] = v }, func() error {
		return errors.Join(c.log.SetUint64([]byte(nameVoteTerm), term), c.log.Set([]byte(nameVoteCand), []byte(v.candidate)))
	}, func(g *ledger) { g.vote[0] = v })
}
