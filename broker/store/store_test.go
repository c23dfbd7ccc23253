package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

// died is what a test's Die panics with, so that it ends whoever was to die.
type died string

func openAt(fs *disk.FS, dir string) (*Store, error) {
	return Open(Options{
		Dir: dir, FS: fs, Logger: slog.New(slog.DiscardHandler), MemTable: 64 << 10, Cache: 1 << 20,
		Die: func(reason string) { panic(died(reason)) },
	})
}

// parked returns a Die that does as a process which exits: whoever calls it
// never goes on. The first reason comes out of end.
func parked() (end chan string, die func(string)) {
	end = make(chan string, 1)
	return end, func(reason string) {
		select {
		case end <- reason:
		default:
		}
		select {}
	}
}

func mustOpen(t *testing.T, fs *disk.FS, dir string) *Store {
	t.Helper()
	s, err := openAt(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// all returns everything in s but what Open put there.
func all(s *Store) map[string]string {
	m := map[string]string{}
	s.Scan(nil, []byte{0xff}, func(k, v []byte) bool {
		if !bytes.Equal(k, FormatKey()) {
			m[string(k)] = string(v)
		}
		return true
	})
	return m
}

func set(s *Store, pairs ...string) {
	tx := s.Begin()
	for i := 0; i < len(pairs); i += 2 {
		tx.Set([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	tx.Commit()
}

var applied = []byte("\x01applied")

// What a crash leaves is the state as of one entry, whole: no entry is there in
// part, none is missing before another, and none that was flushed is lost,
// whatever of the unsynced bytes survives. Durable says which entry that is,
// or an earlier one.
func TestCrashLeavesWholeEntries(t *testing.T) {
	effort.Seeds(t, func(t *testing.T, seed uint64) { crashes(t, rand.New(rand.NewPCG(seed, 1))) })
}

func crashes(t *testing.T, rng *rand.Rand) {
	fs := disk.Crashable()
	s := mustOpen(t, fs, "/data/state")
	states := []map[string]string{{}} // by entry
	flushed := uint64(0)
	for len(states) < 150 {
		n := uint64(len(states))
		next := maps.Clone(states[n-1])
		tx := s.Begin()
		for range 1 + rng.IntN(8) {
			key := fmt.Sprintf("\x06%03d", rng.IntN(200))
			if rng.IntN(3) == 0 {
				tx.Delete([]byte(key))
				delete(next, key)
				continue
			}
			value := strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(700))
			tx.Set([]byte(key), []byte(value))
			next[key] = value
		}
		at := binary.BigEndian.AppendUint64(nil, n)
		tx.Set(applied, at)
		next[string(applied)] = string(at)
		tx.Commit()
		states = append(states, next)
		if rng.IntN(20) == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			flushed = n
		}
		if rng.IntN(10) != 0 {
			continue
		}
		durable := uint64(0)
		if v, ok := s.Durable(applied); ok {
			durable = binary.BigEndian.Uint64(v)
		}
		if durable < flushed || durable > n {
			t.Fatalf("Durable says entry %d; entry %d was flushed, %d is the last", durable, flushed, n)
		}
		after := mustOpen(t, fs.Crash(rng.IntN(101), rng), "/data/state")
		got := all(after)
		found := uint64(0)
		if v, ok := got[string(applied)]; ok {
			found = binary.BigEndian.Uint64([]byte(v))
		}
		if found < durable {
			t.Fatalf("entry %d is found after a crash, but %d was durable", found, durable)
		}
		if !maps.Equal(got, states[found]) {
			t.Fatalf("what is found after a crash is not the state as of entry %d", found)
		}
		mustClose(t, after)
	}
	mustClose(t, s)
}

// A copy holds what was committed when it was made, and takes the place of
// whatever there was.
func TestCheckpointAndReplace(t *testing.T) {
	fs := disk.Memory()
	a, b := mustOpen(t, fs, "/a"), mustOpen(t, fs, "/b")
	defer mustClose(t, a)
	defer mustClose(t, b)
	set(a, "\x05x", "1", "\x05y", "2")
	if err := a.Checkpoint("/copy"); err != nil {
		t.Fatal(err)
	}
	want := all(a)
	set(a, "\x05z", "3")
	set(b, "\x05old", "gone")
	if err := b.Replace("/copy"); err != nil {
		t.Fatal(err)
	}
	if got := all(b); !maps.Equal(got, want) {
		t.Errorf("after Replace %q, want %q", got, want)
	}
	set(b, "\x05z", "3")
	da, _ := a.Digest(nil)
	db, _ := b.Digest(nil)
	if da != db {
		t.Error("the same state has two digests")
	}
	if err := b.Flush(); err != nil {
		t.Error(err)
	}
}

// A copy that cannot be read is refused, whatever is wrong with it, and the
// present state stays, on disk and open.
func TestDamagedCopyChangesNothing(t *testing.T) {
	build := func(t *testing.T) (*disk.FS, *Store, []string) {
		fs := disk.Memory()
		s := mustOpen(t, fs, "/a")
		for i := range 300 {
			set(s, fmt.Sprintf("\x05%03d", i), strings.Repeat("v", 500))
		}
		if err := s.Checkpoint("/copy"); err != nil {
			t.Fatal(err)
		}
		set(s, "\x05present", "yes")
		names, err := fs.List("/copy")
		if err != nil {
			t.Fatal(err)
		}
		return fs, s, names
	}
	damage := map[string]func(fs *disk.FS, names []string) error{
		"no table": func(fs *disk.FS, names []string) error { return fs.Remove("/copy/" + find(names, ".sst")) },
		"half a table": func(fs *disk.FS, names []string) error {
			return rewriteFile(fs, "/copy/"+find(names, ".sst"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"a byte of a table": func(fs *disk.FS, names []string) error {
			return rewriteFile(fs, "/copy/"+find(names, ".sst"), func(b []byte) []byte { b[len(b)/3] ^= 1; return b })
		},
		"no copy":     func(fs *disk.FS, _ []string) error { return fs.RemoveAll("/copy") },
		"no manifest": func(fs *disk.FS, names []string) error { return fs.Remove("/copy/" + find(names, "/MANIFEST-")) },
		"no marker":   func(fs *disk.FS, names []string) error { return fs.Remove("/copy/" + find(names, "marker.manifest")) },
		"a later form": func(fs *disk.FS, _ []string) error {
			s, err := openAt(fs, "/copy")
			if err != nil {
				return err
			}
			tx := s.Begin()
			tx.Set(FormatKey(), []byte{FirstFormat + 1})
			tx.Commit()
			return errors.Join(s.Flush(), s.Close())
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			fs, s, names := build(t)
			want := all(s)
			if err := spoil(fs, names); err != nil {
				t.Fatal(err)
			}
			err := s.Replace("/copy")
			if err == nil {
				t.Error("it was taken")
			}
			reason := map[string]error{"a later form": ErrNewer, "no copy": os.ErrNotExist}[name]
			if reason == nil {
				reason = ErrDamaged
			}
			if err != nil && !errors.Is(err, reason) {
				t.Errorf("refused with %v, want %v", err, reason)
			}
			if got := all(s); !maps.Equal(got, want) {
				t.Error("the present state has changed")
			}
			set(s, "\x05still", "written")
			if err := s.Flush(); err != nil {
				t.Error(err)
			}
			mustClose(t, s)
			s = mustOpen(t, fs, "/a")
			if v, _ := s.Get([]byte("\x05still"), nil); string(v) != "written" {
				t.Error("what was written after the refusal is gone")
			}
			mustClose(t, s)
		})
	}
}

// find returns the name that part is in; a slash is its beginning.
func find(names []string, part string) string {
	return names[slices.IndexFunc(names, func(n string) bool { return strings.Contains("/"+n, part) })]
}

func rewriteFile(fs *disk.FS, name string, change func([]byte) []byte) error {
	b, err := fs.ReadFile(name)
	if err != nil {
		return err
	}
	b = change(slices.Clone(b))
	if err := fs.Remove(name); err != nil { // it may be a link to the original
		return err
	}
	return fs.WriteFile(name, b)
}

// A power cut at any moment of Replace leaves the state that was, or the one
// that is to be: never none, and never a mixture.
func TestCrashWhileReplacing(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	cuts := 0
	for round := range 12 {
		fs := disk.Crashable()
		s := mustOpen(t, fs, "/data/state")
		set(s, "\x05v", "old")
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		other := mustOpen(t, fs, "/data/other")
		set(other, "\x05v", "new")
		if err := other.Checkpoint("/data/copy"); err != nil {
			t.Fatal(err)
		}
		if err := fs.SyncDir("/data"); err != nil { // whoever brought the copy did
			t.Fatal(err)
		}
		mustClose(t, other)
		var mu sync.Mutex // the database's goroutines write too
		check := func(op disk.Op, name string) {
			mu.Lock()
			defer mu.Unlock()
			cuts++
			kept := [...]int{0, 100, rng.IntN(101)}[round%3]
			after := mustOpen(t, fs.Crash(kept, rng), "/data/state")
			if v, _ := after.Get([]byte("\x05v"), nil); string(v) != "old" && string(v) != "new" {
				t.Errorf("round %d: cut before %s of %s, with %d %% of the unsynced: found %q", round, op, name, kept, v)
			}
			mustClose(t, after)
		}
		fs.Intercept(func(op disk.Op, name string) error { check(op, name); return nil })
		if err := s.Replace("/data/copy"); err != nil {
			t.Fatal(err)
		}
		fs.Intercept(nil)
		after := mustOpen(t, fs.Crash(0, nil), "/data/state")
		if v, _ := after.Get([]byte("\x05v"), nil); string(v) != "new" {
			t.Errorf("Replace had returned, but after a power cut: %q", v)
		}
		mustClose(t, after)
		mustClose(t, s)
	}
	if cuts < 12*4 {
		t.Errorf("only %d power cuts", cuts)
	}
}

// A state that was there and is gone is not made anew; one that a crash within
// Replace has left under its other name is found.
func TestMissingStateIsRefused(t *testing.T) {
	open := func(fs *disk.FS) (*Store, error) {
		return Open(Options{Dir: "/data/state", Exists: true, FS: fs, Logger: slog.New(slog.DiscardHandler), Die: func(reason string) { panic(died(reason)) }})
	}
	fs := disk.Memory()
	if err := fs.MakeDir("/data"); err != nil {
		t.Fatal(err)
	}
	if s, err := open(fs); !errors.Is(err, ErrDamaged) {
		t.Errorf("missing: opened %v, %v, want ErrDamaged", s, err)
	}
	if names, err := fs.List("/data"); err != nil || len(names) != 0 {
		t.Errorf("the refusal has left %q, %v", names, err)
	}
	if err := fs.MakeDir("/data/state"); err != nil {
		t.Fatal(err)
	}
	if s, err := open(fs); !errors.Is(err, ErrDamaged) {
		t.Errorf("empty: opened %v, %v, want ErrDamaged", s, err)
	}
	s := mustOpen(t, fs, "/data/state")
	set(s, "\x05v", "kept")
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if err := fs.Rename("/data/state", "/data/state.old"); err != nil {
		t.Fatal(err)
	}
	s, err := open(fs)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := s.Get([]byte("\x05v"), nil); string(v) != "kept" {
		t.Errorf("found %q", v)
	}
	mustClose(t, s)
}

// A state that a later version wrote is not touched.
func TestNewerFormatIsRefused(t *testing.T) {
	fs := disk.Memory()
	s := mustOpen(t, fs, "/a")
	set(s, string(FormatKey()), string([]byte{FirstFormat + 1}))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if _, err := openAt(fs, "/a"); !errors.Is(err, ErrNewer) {
		t.Errorf("opened with %v, want ErrNewer", err)
	}
}

// A disk that fails ends the process, whoever notices: the one that flushes, or
// the database in the background. Nobody goes on without what was lost.
func TestFailedWriteEnds(t *testing.T) {
	for _, fault := range []disk.Fault{disk.EIO, disk.NoSpace} {
		for _, background := range []bool{false, true} {
			t.Run(fmt.Sprint(fault, " background ", background), func(t *testing.T) {
				fs := disk.Memory()
				end, die := parked()
				s, err := Open(Options{Dir: "/a", FS: fs, Logger: slog.New(slog.DiscardHandler), MemTable: 64 << 10, Die: die})
				if err != nil {
					t.Fatal(err)
				}
				if err := fs.SetFault(fault); err != nil {
					t.Fatal(err)
				}
				go func() {
					for i := 0; i < 10_000; i++ {
						set(s, fmt.Sprintf("\x05%06d", i), strings.Repeat("v", 500))
						if !background {
							_ = s.Flush()
						}
					}
				}()
				select {
				case reason := <-end:
					if !strings.Contains(reason, "state") {
						t.Errorf("ended for %q, want it to say what failed", reason)
					}
				case <-time.After(2 * time.Minute):
					t.Error("the node lives on without being able to write")
				}
			})
		}
	}
}

// A table that is damaged on disk ends the process when it is read: the state
// is never taken to be without what cannot be read.
func TestDamagedReadEnds(t *testing.T) {
	reads := map[string]func(*Store){
		"get":     func(s *Store) { s.Get([]byte("\x05100"), nil) },
		"scan":    func(s *Store) { s.Scan(nil, []byte{0xff}, func(_, _ []byte) bool { return true }) },
		"durable": func(s *Store) { s.Durable([]byte("\x05100")) },
		"digest":  func(s *Store) { s.Digest(nil) },
	}
	for read := range reads {
		t.Run(read, func(t *testing.T) {
			fs := disk.Memory()
			s := mustOpen(t, fs, "/a")
			for i := range 300 {
				set(s, fmt.Sprintf("\x05%03d", i), strings.Repeat("v", 500))
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
			names, err := fs.List("/a")
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if filepath.Ext(n) != ".sst" {
					continue
				}
				err := rewriteFile(fs, "/a/"+n, func(b []byte) []byte {
					for i := range len(b) / 2 {
						b[i] ^= 0x55
					}
					return b
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			end, die := parked()
			read := reads[read]
			go func() {
				s, err := Open(Options{Dir: "/a", FS: fs, Logger: slog.New(slog.DiscardHandler), Die: die})
				if err != nil {
					die(err.Error()) // found out sooner
				}
				read(s)
				end <- ""
			}()
			if <-end == "" {
				t.Error("a damaged table was read")
			}
		})
	}
}

// The digest depends on every byte of every key and value, on where one ends
// and the next begins, and on nothing else: not on the order of the writes, nor
// on what was there in between, nor on files.
func TestDigest(t *testing.T) {
	digest := func(history ...[]string) uint64 {
		s := mustOpen(t, disk.Memory(), "/a")
		defer mustClose(t, s)
		for i, pairs := range history {
			set(s, pairs...)
			if i%2 == 1 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		tx := s.Begin()
		tx.Delete([]byte("\x05tmp"))
		tx.Commit()
		d, _ := s.Digest(nil)
		return d
	}
	want := digest([]string{"\x05a", "1", "\x05b", "2"})
	for name, got := range map[string]uint64{
		"other order":  digest([]string{"\x05b", "2"}, []string{"\x05a", "1"}),
		"overwritten":  digest([]string{"\x05a", "0", "\x05tmp", "x"}, []string{"\x05b", "2"}, []string{"\x05a", "1"}),
		"several more": digest([]string{"\x05tmp", "1"}, []string{"\x05tmp", "2"}, []string{"\x05a", "1", "\x05b", "2"}),
	} {
		if got != want {
			t.Errorf("%s: another digest", name)
		}
	}
	seen := map[uint64]string{want: "itself"}
	for name, got := range map[string]uint64{
		"value changed":       digest([]string{"\x05a", "1", "\x05b", "3"}),
		"key changed":         digest([]string{"\x05a", "1", "\x05c", "2"}),
		"byte moved":          digest([]string{"\x05a", "", "\x051b", "2"}),
		"empty value":         digest([]string{"\x05a", "1", "\x05b", ""}),
		"one less":            digest([]string{"\x05a", "1"}),
		"one more, empty":     digest([]string{"\x05a", "1", "\x05b", "2", "\x05c", ""}),
		"other space":         digest([]string{"\x05a", "1", "\x06b", "2"}),
		"values interchanged": digest([]string{"\x05a", "2", "\x05b", "1"}),
	} {
		if was, twice := seen[got]; twice {
			t.Errorf("%s has the digest of %s", name, was)
		}
		seen[got] = name
	}
	s := mustOpen(t, disk.Memory(), "/a")
	defer mustClose(t, s)
	set(s, string(applied), "17")
	if _, at := s.Digest(applied); string(at) != "17" {
		t.Errorf("the digest is of %q, want 17", at)
	}
}

// A Tx shows nothing before its Commit and nothing after Discard; a scan sees
// the state as it was when it began.
func TestTx(t *testing.T) {
	s := mustOpen(t, disk.Memory(), "/a")
	defer mustClose(t, s)
	set(s, "\x05a", "1", "\x05b", "2", "\x05c", "3")
	tx := s.Begin()
	tx.Set([]byte("\x05a"), []byte("x"))
	tx.DeleteOnce([]byte("\x05b"))
	tx.DeleteRange([]byte("\x05c"), []byte("\x05d"))
	if got := all(s); len(got) != 3 || got["\x05a"] != "1" {
		t.Errorf("before Commit: %q", got)
	}
	tx.Discard()
	if got := all(s); len(got) != 3 || got["\x05a"] != "1" {
		t.Errorf("after Discard: %q", got)
	}
	var seen []string
	s.Scan([]byte("\x05a"), []byte("\x05c"), func(k, v []byte) bool {
		set(s, "\x05aa", "late")
		seen = append(seen, string(k)+"="+string(v))
		return true
	})
	if want := []string{"\x05a=1", "\x05b=2"}; !slices.Equal(seen, want) {
		t.Errorf("scan saw %q, want %q", seen, want)
	}
	n := 0
	s.Scan(nil, []byte{0xff}, func(_, _ []byte) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("a scan that was told to stop after 2 called %d times", n)
	}
	buf := make([]byte, 0, 64)
	if v, ok := s.Get([]byte("\x05a"), buf); !ok || string(v) != "1" || &v[0] != &buf[:1][0] {
		t.Error("Get did not use the memory it was given")
	}
	if v, ok := s.Get([]byte("\x05none"), buf); ok || len(v) != 0 {
		t.Errorf("Get of a key that is not there: %q, %v", v, ok)
	}
}

// Keys sort as what they are made of, and End is the end of a prefix.
func TestKeys(t *testing.T) {
	numbers := []uint64{0, 1, 255, 256, 1 << 32, 1<<64 - 1}
	for i := 1; i < len(numbers); i++ {
		a, b := AppendUint64(Key(nil, Queue), numbers[i-1]), AppendUint64(Key(nil, Queue), numbers[i])
		if bytes.Compare(a, b) >= 0 {
			t.Errorf("%d does not sort before %d", numbers[i-1], numbers[i])
		}
		if got := Uint64At(b, 1); got != numbers[i] {
			t.Errorf("read %d, wrote %d", got, numbers[i])
		}
	}
	for _, c := range []struct{ prefix, end string }{
		{"\x05", "\x06"}, {"\x05\xff", "\x06"}, {"\x05a\xff\xff", "\x05b"}, {"\xff", ""}, {"", ""},
	} {
		if got := End([]byte(c.prefix)); string(got) != c.end {
			t.Errorf("End(%q) = %q, want %q", c.prefix, got, c.end)
		}
	}
	if bytes.Compare(AppendName(nil, "a"), AppendName(nil, "ab")) >= 0 {
		t.Error("names do not sort by length")
	}
}

// A database that is not ours, or no database, is damage, not a panic.
func TestOpenOfRubbish(t *testing.T) {
	fs := disk.Memory()
	s := mustOpen(t, fs, "/a")
	mustClose(t, s)
	names, err := fs.List("/a")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "MANIFEST-") || strings.HasPrefix(n, "OPTIONS-") {
			if err := fs.Remove("/a/" + n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := openAt(fs, "/a"); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened with %v, want ErrDamaged", err)
	}
}

// A table whose bytes have changed is refused when the state is opened, by an error that
// says which: nobody's process ends for it without a word.
func TestOpenOfDamagedTable(t *testing.T) {
	for name, part := range map[string]func(size int) int{
		"what is read first": func(size int) int { return size / 8 },
		"its properties":     func(size int) int { return size * 3 / 5 },
		"its end":            func(size int) int { return size - 12 },
	} {
		t.Run(name, func(t *testing.T) {
			fs := disk.Memory()
			s := mustOpen(t, fs, "/a")
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
			names, err := fs.List("/a")
			if err != nil {
				t.Fatal(err)
			}
			table := find(names, ".sst")
			err = rewriteFile(fs, "/a/"+table, func(b []byte) []byte {
				for i := range 24 {
					b[(part(len(b))+i)%len(b)] ^= 0x10
				}
				return b
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := openAt(fs, "/a"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), strings.TrimSuffix(table, ".sst")) {
				t.Errorf("opened with %v, want ErrDamaged and the name of %s", err, table)
			}
		})
	}
}

// Whatever is written, in whatever order, is what a map would hold that was
// written to in that order.
func TestTxKeepsItsOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	s := mustOpen(t, disk.Memory(), "state")
	defer mustClose(t, s)
	model := map[string]string{}
	once := uint64(0)
	for range 60 {
		tx, before := s.Begin(), maps.Clone(model)
		for i := range rnd.IntN(300) {
			key := Key(nil, []Space{Meta, Queue, Retained}[rnd.IntN(3)])
			switch rnd.IntN(3) {
			case 0:
				key = append(key, "some/topic/of/many"[:rnd.IntN(19)]...)
			case 1:
				key = AppendUint64(key, rnd.Uint64N(20))
			default:
				key = AppendUint64(AppendUint64(key, rnd.Uint64N(5)), rnd.Uint64N(20))
			}
			switch n := rnd.IntN(40); {
			case n < 20:
				value := fmt.Sprint(i)
				tx.Set(key, []byte(value))
				model[string(key)] = value
			case n < 30:
				tx.Delete(key)
				delete(model, string(key))
			case n < 39:
				once++
				key = AppendUint64(AppendUint64(Key(nil, Bodies), once%3), once)
				tx.Set(key, []byte("once"))
				if model[string(key)] = "once"; n < 35 {
					tx.DeleteOnce(key)
					delete(model, string(key))
				}
			default:
				upper := End(key)
				tx.DeleteRange(key, upper)
				maps.DeleteFunc(model, func(k, _ string) bool { return k >= string(key) && k < string(upper) })
			}
		}
		if rnd.IntN(5) == 0 {
			model = before
			tx.Discard()
		} else {
			tx.Commit()
		}
		got := map[string]string{}
		s.Scan([]byte{0}, []byte{255}, func(key, value []byte) bool { got[string(key)] = string(value); return true })
		delete(got, string(FormatKey()))
		delete(model, string(FormatKey()))
		if !maps.Equal(got, model) {
			t.Fatalf("the state is\n%q, want\n%q", got, model)
		}
	}
}

// A key that is deleted and set once more can be removed by DeleteOnce, wherever the
// writes before have got to.
func TestDeleteThenOnce(t *testing.T) {
	key := []byte{byte(Queue), 1}
	for n := range 1 << 4 {
		s := mustOpen(t, disk.Memory(), "/state")
		write := func(stage int, f func(*Tx)) {
			tx := s.Begin()
			f(tx)
			tx.Commit()
			if n>>stage&1 == 0 {
				return
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
				t.Fatal(err)
			}
		}
		write(0, func(tx *Tx) { tx.Set(key, []byte("a")) })
		write(1, func(tx *Tx) { tx.Delete(key); tx.Set(key, []byte("b")) })
		if v, ok := s.Get(key, nil); !ok || string(v) != "b" {
			t.Fatalf("stages %b: %q, %v", n, v, ok)
		}
		write(2, func(tx *Tx) { tx.DeleteOnce(key) })
		write(3, func(tx *Tx) { tx.Set([]byte{byte(Queue), 2}, nil) })
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
			t.Fatal(err)
		}
		if v, ok := s.Get(key, nil); ok {
			t.Errorf("stages %b: what was removed is there: %q", n, v)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// ScanEach finds in each range what Scan finds there, also if a range is left early.
func TestScanEach(t *testing.T) {
	s := mustOpen(t, disk.Memory(), "/data/state")
	defer mustClose(t, s)
	rng := rand.New(rand.NewPCG(7, 8))
	for n := range 300 {
		key := AppendUint64(Key(nil, Queue), uint64(rng.IntN(1000)))
		set(s, string(key), fmt.Sprint(n))
		if n == 150 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(n int) []byte { return AppendUint64(Key(nil, Queue), uint64(n)) }
	for range 200 {
		var bounds []int
		for n := rng.IntN(50); n < 1000; n += 1 + rng.IntN(pick(rng, 3, 100)) {
			bounds = append(bounds, n)
		}
		bounds = bounds[:len(bounds)/2*2]
		most := 1 + rng.IntN(5)
		var got, want []string
		found := map[int]int{}
		s.ScanEach(len(bounds)/2, func(i int) (lower, upper []byte) { return at(bounds[2*i]), at(bounds[2*i+1]) }, func(i int, key, value []byte) bool {
			got = append(got, fmt.Sprint(i, " ", Uint64At(key, 1), " ", string(value)))
			found[i]++
			return found[i] < most
		})
		for i := range len(bounds) / 2 {
			n := 0
			s.Scan(at(bounds[2*i]), at(bounds[2*i+1]), func(key, value []byte) bool {
				want = append(want, fmt.Sprint(i, " ", Uint64At(key, 1), " ", string(value)))
				n++
				return n < most
			})
		}
		if !slices.Equal(got, want) {
			t.Fatalf("of %v, %d of each, got\n %v, want\n %v", bounds, most, got, want)
		}
	}
}

func pick(rng *rand.Rand, of ...int) int { return of[rng.IntN(len(of))] }
