package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
	"github.com/bellwire/bellwire/internal/golden"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// options returns Options on fs that die by panicking.
func options(fs *disk.FS) Options {
	return Options{
		FS: fs, Dir: "raft", Logger: discard(), MemTable: 1 << 20,
		Die: func(reason string) { panic("died: " + reason) },
	}
}

// never is the durable index of a state that has never been made durable; all
// that of one that always is.
func never() uint64 { return 0 }

func always() uint64 {
	return 1 << 62
}

func open(t testing.TB, o Options, durable func() uint64, retain uint64) (*DB, *Log) {
	t.Helper()
	db, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := db.Log(0, durable, retain)
	if err != nil {
		t.Fatal(err)
	}
	return db, l
}

func closeDB(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// command returns an entry with some data.
func command(index, term uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data), AppendedAt: time.Unix(0, int64(index)+1)}
}

// commands returns the entries first to last, with some data.
func commands(first, last, term uint64) []*raft.Log {
	var entries []*raft.Log
	for i := first; i <= last; i++ {
		entries = append(entries, command(i, term, fmt.Sprintf("entry %d of term %d", i, term)))
	}
	return entries
}

func store(t testing.TB, l *Log, entries ...*raft.Log) {
	t.Helper()
	if err := l.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
}

// wantEntries fails unless the log holds the entries first to last, readable,
// each of the term that term says, and no other.
func wantEntries(t testing.TB, l *Log, first, last uint64, term func(uint64) uint64) {
	t.Helper()
	gotFirst, _ := l.FirstIndex()
	gotLast, _ := l.LastIndex()
	if gotFirst != first || gotLast != last {
		t.Fatalf("the log holds %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
	for i := first; i <= last && i > 0; i++ {
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		want := command(i, term(i), fmt.Sprintf("entry %d of term %d", i, term(i)))
		if got.Index != i || got.Term != want.Term || !bytes.Equal(got.Data, want.Data) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Fatalf("entry %d: got %+v, want %+v", i, got, *want)
		}
	}
}

func termOne(uint64) uint64 { return 1 }

// What is stored is there, before and after the database has been closed and
// opened, from the cache and from the tables, on every kind of file system.
func TestStoredEntriesAreThere(t *testing.T) {
	real := options(disk.Open(t.TempDir()))
	real.Dir = filepath.Join(t.TempDir(), "raft")
	for name, o := range map[string]Options{"memory": options(disk.Memory()), "real": real} {
		for _, cache := range []int{1, 1024} {
			t.Run(fmt.Sprint(name, cache), func(t *testing.T) {
				o := o
				o.Dir += fmt.Sprint(cache)
				o.CacheEntries = cache
				db, l := open(t, o, never, 0)
				store(t, l, commands(1, 100, 1)...)
				for i := uint64(101); i <= 120; i++ {
					store(t, l, command(i, 1, fmt.Sprintf("entry %d of term 1", i)))
				}
				wantEntries(t, l, 1, 120, termOne)
				if err := l.GetLog(121, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
					t.Errorf("an entry that is not there: %v", err)
				}
				size := l.Bytes()
				closeDB(t, db)
				o.Exists = true
				db, l = open(t, o, never, 0)
				wantEntries(t, l, 1, 120, termOne)
				if l.Bytes() != size {
					t.Errorf("%d bytes after a restart, %d before", l.Bytes(), size)
				}
				store(t, l, commands(121, 130, 1)...)
				wantEntries(t, l, 1, 130, termOne)
				closeDB(t, db)
			})
		}
	}
}

// An entry that does not follow the last one is refused, and nothing of its
// company is stored.
func TestNoGaps(t *testing.T) {
	db, l := open(t, options(disk.Memory()), always, 0)
	defer closeDB(t, db)
	store(t, l, commands(1, 10, 1)...)
	for _, bad := range [][]*raft.Log{commands(12, 12, 1), commands(10, 11, 1), append(commands(11, 12, 1), commands(14, 14, 1)...)} {
		if err := l.StoreLogs(bad); err == nil {
			t.Errorf("stored %d to %d after 10", bad[0].Index, bad[len(bad)-1].Index)
		}
	}
	if err := l.DeleteRange(4, 6); err == nil {
		t.Error("removed entries from the middle")
	}
	wantEntries(t, l, 1, 10, termOne)
	store(t, l, commands(11, 11, 1)...)
}

// Extensions and every type survive encoding; no byte can change unnoticed, and
// no entry can stand in for another.
func TestEntryEncoding(t *testing.T) {
	entries := []*raft.Log{
		command(1, 1, ""),
		command(7, 3, "data"),
		{Index: 8, Term: 3, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}})},
		{Index: 9, Term: 4, Type: raft.LogBarrier},
		{Index: 1<<63 + 5, Term: 1 << 40, Type: raft.LogNoop, Extensions: []byte("ext"), Data: []byte("data"), AppendedAt: time.Unix(1773072000, 5)},
	}
	var bytesNow bytes.Buffer
	for _, e := range entries {
		key := logKey(3, e.Index)
		value := make([]byte, entrySize(e))
		putEntry(value, key[:], e, 12345)
		fmt.Fprintf(&bytesNow, "%x %x\n", key, value)
		var got raft.Log
		total, err := getEntry(key[:], value, e.Index, &got)
		if err != nil || total != 12345 {
			t.Fatalf("entry %d: total %d, %v", e.Index, total, err)
		}
		if got.Index != e.Index || got.Term != e.Term || got.Type != e.Type || !bytes.Equal(got.Data, e.Data) ||
			!bytes.Equal(got.Extensions, e.Extensions) || !got.AppendedAt.Equal(e.AppendedAt) {
			t.Errorf("got %+v, want %+v", got, *e)
		}
		for i := range value {
			value[i] ^= 0x40
			if err := checkEntry(key[:], value); err == nil {
				t.Errorf("entry %d: byte %d changed unnoticed", e.Index, i)
			}
			value[i] ^= 0x40
		}
		for cut := range value {
			if err := checkEntry(key[:], value[:cut]); err == nil {
				t.Errorf("entry %d: cut to %d bytes unnoticed", e.Index, cut)
			}
		}
		other := logKey(3, e.Index+1)
		if err := checkEntry(other[:], value); err == nil {
			t.Errorf("entry %d reads as entry %d", e.Index, e.Index+1)
		}
	}
	golden.File(t, "entries.golden", bytesNow.Bytes())
}

// An entry of a later version is told from damage.
func TestNewerEntryIsRefused(t *testing.T) {
	o := options(disk.Memory())
	db, l := open(t, o, never, 0)
	store(t, l, commands(1, 3, 1)...)
	key := logKey(0, 4)
	value := make([]byte, entryOverhead)
	putEntry(value, key[:], command(4, 1, ""), 1)
	value[0] = entryVersion + 1
	end := len(value) - entryTrailer
	sum := checksum(key[:], value[:end])
	value[end], value[end+1], value[end+2], value[end+3] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	if err := db.pebble.Set(key[:], value, nil); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	if _, err := Open(o); !errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrNewer", err)
	}
}

// A hole in the log, an entry in another's place, and an entry that was changed
// are damage, told at the start.
func TestDamagedEntriesAreRefused(t *testing.T) {
	spoil := map[string]func(t *testing.T, db *DB){
		"hole": func(t *testing.T, db *DB) {
			key := logKey(0, 5)
			if err := db.pebble.Delete(key[:], nil); err != nil {
				t.Fatal(err)
			}
		},
		"misplaced": func(t *testing.T, db *DB) {
			from, to := logKey(0, 4), logKey(0, 5)
			value, closer, err := db.pebble.Get(from[:])
			if err != nil {
				t.Fatal(err)
			}
			defer closer.Close()
			if err := db.pebble.Set(to[:], value, nil); err != nil {
				t.Fatal(err)
			}
		},
		"changed": func(t *testing.T, db *DB) {
			key := logKey(0, 5)
			if err := db.pebble.Set(key[:], bytes.Repeat([]byte{1}, 60), nil); err != nil {
				t.Fatal(err)
			}
		},
		"short key": func(t *testing.T, db *DB) {
			key := logKey(0, 5)
			if err := db.pebble.Set(key[:9], nil, nil); err != nil {
				t.Fatal(err)
			}
		},
		"short base": func(t *testing.T, db *DB) {
			if err := db.pebble.Set(stableKey(0, nameBase), []byte("x"), nil); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			o := options(disk.Memory())
			db, l := open(t, o, never, 0)
			store(t, l, commands(1, 10, 1)...)
			spoil(t, db)
			closeDB(t, db)
			if _, err := Open(o); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			}
		})
	}
}

// A database that was there and is gone is damage, and not a fresh start.
func TestMissingDatabaseIsDamage(t *testing.T) {
	o := options(disk.Memory())
	o.Exists = true
	if _, err := Open(o); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

// A database that a process has open is not opened twice.
func TestOpenTwiceIsRefused(t *testing.T) {
	o := options(disk.Memory())
	db, _ := open(t, o, never, 0)
	defer closeDB(t, db)
	if _, err := Open(o); !errors.Is(err, ErrInUse) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

// Groups share a database and see nothing of each other.
func TestGroupsAreApart(t *testing.T) {
	o := options(disk.Memory())
	db, a := open(t, o, always, 0)
	b, err := db.Log(1, always, 0)
	if err != nil {
		t.Fatal(err)
	}
	last, err := db.Log(1<<32-1, always, 0)
	if err != nil {
		t.Fatal(err)
	}
	store(t, a, commands(1, 10, 1)...)
	store(t, b, commands(5, 7, 1)...)
	store(t, last, commands(3, 4, 1)...)
	if err := errors.Join(a.SetUint64([]byte("CurrentTerm"), 4), b.SetUint64([]byte("CurrentTerm"), 6)); err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteRange(1, 10); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	db, a = open(t, o, always, 0)
	defer closeDB(t, db)
	if b, err = db.Log(1, always, 0); err != nil {
		t.Fatal(err)
	}
	if last, err = db.Log(1<<32-1, always, 0); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, a, 0, 0, termOne)
	wantEntries(t, b, 5, 7, termOne)
	wantEntries(t, last, 3, 4, termOne)
	ta, _ := a.GetUint64([]byte("CurrentTerm"))
	tb, _ := b.GetUint64([]byte("CurrentTerm"))
	tc, _ := last.GetUint64([]byte("CurrentTerm"))
	if ta != 4 || tb != 6 || tc != 0 {
		t.Errorf("terms %d, %d, %d, want 4, 6, 0", ta, tb, tc)
	}
}

// A log under random operations agrees with a dumb one: a map.
func TestLogAgainstModel(t *testing.T) {
	effort.Seeds(t, func(t *testing.T, seed uint64) { modelRun(t, rand.New(rand.NewPCG(seed, 0))) })
}

func modelRun(t *testing.T, rng *rand.Rand) {
	o := options(disk.Memory())
	o.MemTable = 256 << 10 // so that tables are written too
	o.CacheEntries, o.CacheBytes = 1+rng.IntN(40), 1+rng.IntN(20_000)
	durable := uint64(0)
	db, l := open(t, o, func() uint64 { return durable }, 0)
	defer func() { closeDB(t, db) }()
	model := map[uint64]*raft.Log{}
	first, last, term := uint64(0), uint64(0), uint64(1)
	for range 300 {
		switch rng.IntN(12) {
		case 0, 1, 2, 3, 4, 5: // append
			var entries []*raft.Log
			for range 1 + rng.IntN(8) {
				if first == 0 {
					first, last = 1+uint64(rng.IntN(50)), 0
					last = first - 1
				}
				last++
				e := command(last, term, string(make([]byte, rng.IntN(2000))))
				entries, model[last] = append(entries, e), e
			}
			store(t, l, entries...)
		case 6: // a new leader overrules a tail
			if last > first && first > 0 {
				from := max(first+1, last-uint64(rng.IntN(10)))
				from = min(from, last)
				if err := l.DeleteRange(from, last); err != nil {
					t.Fatal(err)
				}
				for i := from; i <= last; i++ {
					delete(model, i)
				}
				last = from - 1
				term++
			}
		case 7, 8: // the state becomes durable, and Raft truncates
			if first == 0 || last == first {
				continue
			}
			durable = max(durable, min(first+uint64(rng.IntN(int(last-first)+1)), last))
			upTo := first + uint64(rng.IntN(int(last-first)))
			if err := l.DeleteRange(first, upTo); err != nil {
				t.Fatal(err)
			}
			upTo = min(upTo, durable)
			for ; first <= upTo; first++ {
				delete(model, first)
			}
		case 9: // a snapshot takes the whole log's place
			if rng.IntN(5) == 0 && first != 0 {
				if err := l.DeleteRange(first, last); err != nil {
					t.Fatal(err)
				}
				clear(model)
				first, last = 0, 0
			}
		case 10:
			closeDB(t, db)
			db, l = open(t, o, func() uint64 { return durable }, 0)
		case 11:
			if err := db.pebble.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if gotFirst, _ := l.FirstIndex(); gotFirst != first {
			t.Fatalf("first %d, want %d", gotFirst, first)
		}
		if gotLast, _ := l.LastIndex(); gotLast != last {
			t.Fatalf("last %d, want %d", gotLast, last)
		}
		size := uint64(0)
		for i, want := range model {
			size += uint64(entrySize(want))
			var got raft.Log
			if err := l.GetLog(i, &got); err != nil || got.Term != want.Term || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("entry %d: got term %d and %d bytes, %v, want term %d and %d bytes", i, got.Term, len(got.Data), err, want.Term, len(want.Data))
			}
		}
		if got := l.Bytes(); got != size {
			t.Fatalf("%d bytes, want %d", got, size)
		}
	}
}

// The ring agrees with a dumb one: the whole log, of which it may have forgotten
// the older part, within its bounds.
func TestRingAgainstModel(t *testing.T) {
	for seed := range uint64(effort.Rounds(200, 20_000)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		entries, limit := 1+rng.IntN(20), 50+rng.IntN(2000)
		r := newRing(entries, limit)
		model := map[uint64]*raft.Log{}
		next := uint64(1)
		for range 200 {
			added := false
			switch rng.IntN(8) {
			case 0:
				to := next - min(next, uint64(rng.IntN(30)))
				r.dropTo(to)
				for i := range model {
					if i <= to {
						delete(model, i)
					}
				}
			case 1:
				from := next - min(next-1, uint64(rng.IntN(5)))
				r.dropFrom(from)
				for i := range model {
					if i >= from {
						delete(model, i)
					}
				}
				next = from
			case 2:
				if rng.IntN(10) == 0 { // a gap: after a snapshot
					next += 3
					r.clear()
					clear(model)
				}
			default:
				e := command(next, seed, string(make([]byte, rng.IntN(200))))
				r.add(e)
				model[next] = e
				next++
				added = true
			}
			held, bytes := 0, 0
			for i := uint64(0); i < next+5; i++ {
				got := r.get(i)
				if got == nil {
					continue
				}
				held++
				bytes += entrySize(got)
				if want := model[i]; want == nil || got.Index != i || len(got.Data) != len(want.Data) {
					t.Fatalf("seed %d: entry %d is %v, want %v", seed, i, got, want)
				}
			}
			if held > entries || bytes > limit || bytes != r.bytes {
				t.Fatalf("seed %d: %d entries of %d bytes (counted %d), want at most %d and %d", seed, held, bytes, r.bytes, entries, limit)
			}
			if newest := model[next-1]; added && entrySize(newest) <= limit && r.get(next-1) == nil {
				t.Fatalf("seed %d: the newest entry %d is not held", seed, next-1)
			}
		}
	}
}
