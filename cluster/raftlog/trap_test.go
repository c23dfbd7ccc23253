package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
	"github.com/bellwire/bellwire/internal/golden"
)

// The tests here are named after the traps that others have fallen into: what
// goes wrong without them has been seen to go wrong.

// dying returns Options whose Die ends the goroutine that calls it, and a channel
// of the reasons. The database cannot be closed after that.
func dying(fs *disk.FS) (Options, chan string) {
	reasons := make(chan string, 100)
	o := options(fs)
	o.Die = func(reason string) {
		reasons <- reason
		runtime.Goexit()
	}
	return o, reasons
}

// eachOp calls do before each disk operation, from one goroutine at a time: a
// database works in several. It returns a function that calls do as well.
func eachOp(fs *disk.FS, do func()) (now func()) {
	var mu sync.Mutex
	now = func() {
		mu.Lock()
		defer mu.Unlock()
		do()
	}
	fs.Intercept(func(disk.Op, string) error { now(); return nil })
	return now
}

// forgiving is a logger like many an adapter: it logs, and returns.
type forgiving struct{ lines chan string }

func (f forgiving) Infof(string, ...any)           {}
func (f forgiving) Errorf(string, ...any)          {}
func (f forgiving) Fatalf(format string, a ...any) { f.lines <- fmt.Sprintf(format, a...) }

// A Pebble whose logger's Fatalf returns says that a write was synced when its
// fsync failed, and the write is lost. Ours ends the process instead: StoreLogs
// never returns.
func TestTrapFatalfThatReturns(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		fs := disk.Crashable()
		lines := make(chan string, 100)
		db, err := pebble.Open("db", &pebble.Options{FS: fs, Logger: forgiving{lines}})
		if err != nil {
			t.Fatal(err)
		}
		failWALSyncs(fs)
		if err := db.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
			t.Fatalf("Pebble now reports it (%v): see whether its other Fatalf calls do too, and relax", err)
		}
		if line := <-lines; !strings.Contains(line, "fatal commit error") {
			t.Errorf("Fatalf got %q", line)
		}
		after, err := pebble.Open("db", &pebble.Options{FS: fs.Crash(0, nil), Logger: forgiving{lines}})
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		if _, _, err := after.Get([]byte("k")); !errors.Is(err, pebble.ErrNotFound) {
			t.Errorf("the write that was acknowledged: %v; this test shows that it is lost", err)
		}
	})
	for _, fault := range []disk.Fault{disk.EIO, disk.NoSpace} {
		t.Run(string(fault), func(t *testing.T) {
			fs := disk.Crashable()
			o, died := dying(fs)
			_, l := open(t, o, never, 0)
			store(t, l, commands(1, 10, 1)...)
			if fault == disk.EIO {
				failWALSyncs(fs)
			} else if err := fs.SetFault(fault); err != nil {
				t.Fatal(err)
			}
			stored := make(chan error, 1)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				stored <- l.StoreLogs(commands(11, 11, 1))
			}()
			if reason := <-died; !strings.Contains(reason, "commit") {
				t.Errorf("died of %q, want a failed commit", reason)
			}
			<-ended
			select {
			case err := <-stored:
				t.Errorf("StoreLogs returned %v", err)
			default:
			}
			fs.SetFault(disk.OK)
			fs.Intercept(nil)
			db, l := open(t, options(fs.Crash(0, nil)), never, 0)
			defer closeDB(t, db)
			wantEntries(t, l, 1, 10, termOne)
		})
	}
}

func failWALSyncs(fs *disk.FS) {
	fs.Intercept(func(op disk.Op, name string) error {
		if op == disk.OpSync && isWAL(name) {
			return syscall.EIO
		}
		return nil
	})
}

// A disk that hangs ends the process: Raft's heartbeats would go on without it,
// and no other node would ever take over.
func TestTrap2DiskHang(t *testing.T) {
	for _, what := range []string{"entries", "term", "vote", "tail"} {
		t.Run(what, func(t *testing.T) {
			fs := disk.Memory()
			o, died := dying(fs)
			o.Stall = 50 * time.Millisecond
			db, l := open(t, o, never, 0)
			store(t, l, commands(1, 10, 1)...)
			if err := fs.SetFault(disk.Hang); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				switch what {
				case "entries":
					l.StoreLogs(commands(11, 11, 1))
				case "term":
					l.SetUint64([]byte("CurrentTerm"), 9)
				case "vote":
					l.Set([]byte("LastVoteCand"), []byte("n2"))
				case "tail":
					l.DeleteRange(5, 10)
				}
			}()
			if reason := <-died; !strings.Contains(reason, "50ms") {
				t.Errorf("died of %q, want the time-out", reason)
			}
			select {
			case <-done:
				t.Error("a write on a disk that hangs has returned")
			default:
			}
			read := make(chan error, 1)
			go func() {
				_, err1 := l.LastIndex()
				_, err2 := l.GetUint64([]byte("CurrentTerm"))
				read <- errors.Join(err1, err2, l.GetLog(1, new(raft.Log)))
			}()
			select {
			case err := <-read:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("who reads waits for a disk that hangs")
			}
			fs.SetFault(disk.OK)
			<-done
			closeDB(t, db)
		})
	}
}

// An operation that no commit waits for, a flush, is watched too.
func TestTrap2HangInTheBackground(t *testing.T) {
	fs := disk.Memory()
	o, died := dying(fs)
	o.Stall = 50 * time.Millisecond
	db, l := open(t, o, never, 0)
	store(t, l, commands(1, 10, 1)...)
	hang := make(chan struct{})
	fs.Intercept(func(op disk.Op, name string) error {
		if strings.HasSuffix(name, ".sst") && op != disk.OpRemove {
			<-hang
		}
		return nil
	})
	flushed := make(chan error, 1)
	go func() { flushed <- db.pebble.Flush() }()
	if reason := <-died; !strings.Contains(reason, ".sst") {
		t.Errorf("died of %q, want the table that cannot be written", reason)
	}
	if db.Stats().Slow == 0 {
		t.Error("not counted")
	}
	fs.Intercept(nil)
	close(hang)
	if err := <-flushed; err != nil {
		t.Error(err)
	}
}

// Term and candidate of a vote are one commit: no crash leaves the new term with
// the old candidate, who would be granted a vote that was never cast.
func TestTrap3TornVote(t *testing.T) {
	fs := disk.Crashable()
	db, l := open(t, options(fs), never, 0)
	vote := func(term uint64, candidate string) error {
		return errors.Join(l.SetUint64([]byte("LastVoteTerm"), term), l.Set([]byte("LastVoteCand"), []byte(candidate)))
	}
	if err := vote(3, "n1"); err != nil {
		t.Fatal(err)
	}
	cuts := 0
	check := eachOp(fs, func() {
		cuts++
		after, now := open(t, options(fs.Crash(0, nil)), never, 0)
		defer closeDB(t, after)
		term, _ := now.GetUint64([]byte("LastVoteTerm"))
		candidate, _ := now.Get([]byte("LastVoteCand"))
		if got := fmt.Sprint(term, string(candidate)); got != "3n1" && got != "4n2" {
			t.Errorf("cut %d: voted for %s in term %d", cuts, candidate, term)
		}
	})
	before := db.Stats().Commits
	if err := l.SetUint64([]byte("LastVoteTerm"), 4); err != nil {
		t.Fatal(err)
	}
	check()
	if term, _ := l.GetUint64([]byte("LastVoteTerm")); term != 3 {
		t.Errorf("half a vote is seen: term %d", term)
	}
	if err := l.Set([]byte("LastVoteCand"), []byte("n2")); err != nil {
		t.Fatal(err)
	}
	fs.Intercept(nil)
	if got := db.Stats().Commits - before; got != 1 {
		t.Errorf("a vote took %d commits, want 1", got)
	}
	if cuts < 3 {
		t.Errorf("only %d crashes, want one at each step", cuts)
	}
	closeDB(t, db)
	db, l = open(t, options(fs.Crash(0, nil)), never, 0)
	defer closeDB(t, db)
	term, _ := l.GetUint64([]byte("LastVoteTerm"))
	if candidate, _ := l.Get([]byte("LastVoteCand")); term != 4 || string(candidate) != "n2" {
		t.Errorf("voted for %q in term %d, want n2 in 4", candidate, term)
	}
}

// A term never runs back.
func TestTermIsMonotone(t *testing.T) {
	db, l := open(t, options(disk.Memory()), never, 0)
	defer closeDB(t, db)
	key := []byte("CurrentTerm")
	for _, term := range []uint64{1, 5, 5} {
		if err := l.SetUint64(key, term); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.SetUint64(key, 4); err == nil {
		t.Error("term 4 after term 5")
	}
	if term, _ := l.GetUint64(key); term != 5 {
		t.Errorf("term %d, want 5", term)
	}
}

// Bootstrapping is one commit, and is done once.
func TestTrap24Bootstrap(t *testing.T) {
	fs := disk.Crashable()
	db, l := open(t, options(fs), never, 0)
	c := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "n1"}}}
	cuts := 0
	eachOp(fs, func() {
		cuts++
		after, now := open(t, options(fs.Crash(0, nil)), never, 0)
		defer closeDB(t, after)
		term, _ := now.GetUint64([]byte("CurrentTerm"))
		if last, _ := now.LastIndex(); last != term {
			t.Errorf("cut %d: term %d and %d entries", cuts, term, last)
		}
	})
	if err := l.Bootstrap(c); err != nil {
		t.Fatal(err)
	}
	fs.Intercept(nil)
	if cuts < 2 {
		t.Errorf("only %d crashes", cuts)
	}
	if err := l.Bootstrap(c); err == nil {
		t.Error("bootstrapped twice")
	}
	closeDB(t, db)
	db, l = open(t, options(fs.Crash(0, nil)), never, 0)
	defer closeDB(t, db)
	if err := l.Bootstrap(c); err == nil {
		t.Error("bootstrapped again after a restart")
	}
	var e raft.Log
	if err := l.GetLog(1, &e); err != nil || e.Type != raft.LogConfiguration || len(raft.DecodeConfiguration(e.Data).Servers) != 1 {
		t.Errorf("entry 1: %+v, %v", e, err)
	}
}

// Truncating the head does not empty the cache, which is what followers are
// served from at that very moment; truncating the tail forgets the tail only.
func TestTrap13CacheSurvivesTruncation(t *testing.T) {
	db, l := open(t, options(disk.Memory()), always, 0)
	defer closeDB(t, db)
	store(t, l, commands(1, 100, 1)...)
	held := func() (n int) {
		for i := range uint64(110) {
			if l.ring.get(i) != nil {
				n++
			}
		}
		return n
	}
	if err := l.DeleteRange(1, 40); err != nil {
		t.Fatal(err)
	}
	if n := held(); n != 60 {
		t.Errorf("%d entries cached after the head was truncated, want 60", n)
	}
	if err := l.DeleteRange(91, 100); err != nil {
		t.Fatal(err)
	}
	if n := held(); n != 50 {
		t.Errorf("%d entries cached after the tail was truncated, want 50", n)
	}
	wantEntries(t, l, 41, 90, termOne)
}

// The head is truncated up to what the state has made durable, and never past it,
// whatever Raft asks for; the bytes to retain are retained.
func TestTrap16And18TruncationStopsAtDurable(t *testing.T) {
	durable := uint64(0)
	db, l := open(t, options(disk.Memory()), func() uint64 { return durable }, 0)
	defer closeDB(t, db)
	store(t, l, commands(1, 100, 1)...)
	for _, c := range []struct{ durable, ask, first uint64 }{
		{0, 90, 1}, {10, 5, 6}, {10, 90, 11}, {10, 90, 11}, {200, 50, 51},
	} {
		durable = c.durable
		first, _ := l.FirstIndex()
		if err := l.DeleteRange(first, c.ask); err != nil {
			t.Fatal(err)
		}
		if got, _ := l.FirstIndex(); got != c.first {
			t.Errorf("durable %d, asked to truncate up to %d: the log begins at %d, want %d", c.durable, c.ask, got, c.first)
		}
	}
	wantEntries(t, l, 51, 100, termOne)
	if index, term := l.Base(); index != 50 || term != 1 {
		t.Errorf("base %d of term %d, want 50 of 1", index, term)
	}
}

func TestTrap16RetentionByBytes(t *testing.T) {
	size := uint64(entrySize(command(10, 1, "entry 10 of term 1"))) // 10 to 99 are alike
	for _, c := range []struct{ retain, first uint64 }{
		{0, 99}, {1, 99}, {size, 99}, {size + 1, 98}, {10 * size, 90}, {10*size + 1, 89}, {1000 * size, 11},
	} {
		db, l := open(t, options(disk.Memory()), always, c.retain)
		store(t, l, commands(11, 99, 1)...)
		if err := l.DeleteRange(11, 98); err != nil {
			t.Fatal(err)
		}
		if got, _ := l.FirstIndex(); got != c.first {
			t.Errorf("retaining %d bytes, %d entries: the log begins at %d, want %d", c.retain, c.retain/size, got, c.first)
		}
		if c.first > 11 && l.Bytes() < c.retain {
			t.Errorf("retained %d bytes, want %d", l.Bytes(), c.retain)
		}
		closeDB(t, db)
	}
}

// What follows a snapshot that took the place of a log that went past it is
// accepted: Raft can read the snapshot's place, and finds what it still believes
// in overruled, so that it removes it and takes the leader's entries.
func TestTrap4PlaceOfTheSnapshot(t *testing.T) {
	o := options(disk.Memory())
	db, l := open(t, o, always, 0)
	store(t, l, commands(1, 120, 3)...) // 91 to 120 diverge from the leader's
	l.install(100, 4)
	if err := l.DeleteRange(1, 120); err != nil {
		t.Fatal(err)
	}
	check := func(stale uint64) {
		t.Helper()
		var e raft.Log
		if err := l.GetLog(100, &e); err != nil || e.Term != 4 || e.Index != 100 {
			t.Errorf("the snapshot's place: %+v, %v, want term 4", e, err)
		}
		for i := uint64(90); i <= 130; i++ {
			err := l.GetLog(i, &e)
			switch {
			case i == 100:
			case i > 100 && i <= stale:
				if err != nil || e.Term != 0 || e.Type != ghostType {
					t.Errorf("entry %d, which was removed: %+v, %v, want term 0", i, e, err)
				}
			case !errors.Is(err, raft.ErrLogNotFound):
				t.Errorf("entry %d: %+v, %v, want not found", i, e, err)
			}
		}
	}
	check(120)
	if err := l.DeleteRange(101, 120); err != nil { // what Raft then does
		t.Fatal(err)
	}
	closeDB(t, db)
	db, l = open(t, o, always, 0)
	defer closeDB(t, db)
	check(0) // Raft starts from what is there, and believes in nothing else
	if l.Installed() != 100 {
		t.Errorf("installed %d, want 100", l.Installed())
	}
	store(t, l, commands(101, 110, 4)...)
	wantEntries(t, l, 101, 110, func(uint64) uint64 { return 4 })
}

// Pebble makes new databases in its oldest format, in which a damaged tail of the
// write-ahead log reads like its end. Ours are made in the format that says so.
func TestTrapFormatIsExplicit(t *testing.T) {
	fs := disk.Memory()
	db, l := open(t, options(fs), never, 0)
	defer closeDB(t, db)
	if got := db.pebble.FormatMajorVersion(); got != format || got < pebble.FormatWALSyncChunks {
		t.Errorf("format %v, want %v", got, format)
	}
	// The first write-ahead log of a database, too: the type of its first chunk
	// is one that says how far the log was synced.
	store(t, l, commands(1, 1, 1)...)
	all, wal := contents(t, fs), ""
	for name := range all {
		if isWAL(name) && name > wal {
			wal = name // an older one may still be there, and is not needed
		}
	}
	if kind := all[wal][6]; kind < 9 || kind > 12 {
		t.Errorf("%s begins with a chunk of type %d, want 9 to 12", wal, kind)
	}
}

// writeAhead returns a file system on which 50 entries, a term and a vote stand in
// the write-ahead log, as a power cut leaves it; its newest file, and its bytes.
// size is that of an entry's data.
func writeAhead(t *testing.T, size int) (fs *disk.FS, wal string, whole []byte) {
	t.Helper()
	live := disk.Crashable()
	db, l := open(t, options(live), never, 0)
	for i := uint64(1); i <= 49; i++ {
		store(t, l, command(i, 1, strings.Repeat("x", size)))
	}
	err := errors.Join(
		l.SetUint64([]byte("CurrentTerm"), 7), l.SetUint64([]byte("LastVoteTerm"), 7), l.Set([]byte("LastVoteCand"), []byte("n2")))
	if err != nil {
		t.Fatal(err)
	}
	store(t, l, command(50, 7, strings.Repeat("x", size)))
	// As the page cache has it after the process was killed: the mark included.
	fs = live.Crash(100, rand.New(rand.NewPCG(1, 1)))
	closeDB(t, db)
	for name := range contents(t, fs) {
		if isWAL(name) && name > wal {
			wal = name
		}
	}
	if whole, err = fs.ReadFile(wal); err != nil {
		t.Fatal(err)
	}
	return fs, wal, whole
}

// openDamaged opens the database on fs, whose write-ahead log has been changed.
// It must be refused, or whole; refused says which.
func openDamaged(t *testing.T, fs *disk.FS, what string) (refused bool) {
	t.Helper()
	before := contents(t, fs)
	db, err := Open(options(fs))
	if err == nil {
		defer closeDB(t, db)
		l, err := db.Log(0, never, 0)
		if err != nil {
			t.Fatal(err)
		}
		last, _ := l.LastIndex()
		term, _ := l.GetUint64([]byte("CurrentTerm"))
		vote, _ := l.GetUint64([]byte("LastVoteTerm"))
		if last != 50 || term != 7 || vote != 7 {
			t.Errorf("%s: opened with %d entries, term %d, vote in %d: what was acknowledged is gone", what, last, term, vote)
		}
		return false
	}
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("%s: %v, want ErrDamaged", what, err)
	}
	for name, data := range before {
		if now, err := fs.ReadFile(name); err != nil || !bytes.Equal(now, data) {
			t.Errorf("%s: refused, but %s was touched (%v)", what, name, err)
		}
	}
	return true
}

// After a power cut the write-ahead log ends in what was not synced, torn in any
// way: that is its end, and no damage.
func TestTrapTornTail(t *testing.T) {
	saved, wal, whole := writeAhead(t, 20)
	for _, garbage := range [][]byte{{0}, make([]byte, 100_000), []byte("torn"), bytes.Repeat([]byte{0xff}, 40_000), whole} {
		fs := saved.Crash(0, nil)
		rewriteFile(t, fs, wal, append(bytes.Clone(whole), garbage...))
		if openDamaged(t, fs, fmt.Sprintf("%d bytes after the end", len(garbage))) {
			t.Errorf("%d bytes after the end: refused", len(garbage))
		}
	}
}

// Every single bit of a write-ahead log that was synced can be changed, and the log
// be cut off anywhere: either it is whole nevertheless, or it is refused and not
// one byte of what is there is touched. It never opens without what was
// acknowledged, as if that were its end.
func TestTrapDamagedTail(t *testing.T) {
	for name, c := range map[string]struct{ size, step int }{
		"one block":   {20, effort.Rounds(13, 1)},
		"many blocks": {5000, effort.Rounds(5003, 97)}, // 250 kB
	} {
		t.Run(name, func(t *testing.T) {
			saved, wal, whole := writeAhead(t, c.size)
			flipped := 0
			for at := 0; at < len(whole); at += c.step {
				fs := saved.Crash(0, nil)
				bad := bytes.Clone(whole)
				bad[at] ^= 1 << (at % 8)
				rewriteFile(t, fs, wal, bad)
				if openDamaged(t, fs, fmt.Sprintf("bit %d of byte %d", at%8, at)) {
					flipped++
				}
			}
			cuts := 0
			for at := 0; at < len(whole); at += c.step {
				fs := saved.Crash(0, nil)
				rewriteFile(t, fs, wal, whole[:at])
				if !openDamaged(t, fs, fmt.Sprintf("cut to %d bytes", at)) {
					t.Errorf("cut to %d of %d bytes: opened", at, len(whole))
				}
				cuts++
			}
			t.Logf("%d bytes: %d changed bits refused, %d cuts refused", len(whole), flipped, cuts)
			if flipped < len(whole)/c.step*9/10 {
				t.Errorf("only %d of %d changed bits were refused", flipped, len(whole)/c.step)
			}
		})
	}
}

// A write-ahead log, a manifest, or a mark that is not there is damage.
func TestTrapMissingFiles(t *testing.T) {
	saved, wal, _ := writeAhead(t, 20)
	manifest := ""
	for name := range contents(t, saved) {
		if _, current, ok := strings.Cut(name, "marker.manifest."); ok {
			_, manifest, _ = strings.Cut(current, ".")
		}
	}
	if manifest == "" {
		t.Fatal("no marker of the manifest")
	}
	for name := range contents(t, saved) {
		fs := saved.Crash(0, nil)
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		must := name == wal || base == "mark-0" || base == manifest
		o := options(fs)
		o.Exists = true
		db, err := Open(o)
		if err == nil {
			closeDB(t, db)
		}
		if must && !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v, want ErrDamaged", name, err)
		}
	}
	fs := saved.Crash(0, nil)
	for name, data := range contents(t, fs) {
		if strings.Contains(name, "MANIFEST-") {
			rewriteFile(t, fs, name, data[:len(data)/2])
		}
	}
	if _, err := Open(options(fs)); !errors.Is(err, ErrDamaged) {
		t.Errorf("half a manifest: %v, want ErrDamaged", err)
	}
}

// A mark of which one slot is torn is read from the other; one that goes back with
// a truncated tail does not accuse the log afterwards.
func TestMark(t *testing.T) {
	fs := disk.Memory()
	o := options(fs)
	db, l := open(t, o, never, 0)
	store(t, l, commands(1, 20, 1)...)
	store(t, l, commands(21, 30, 1)...)
	if err := l.DeleteRange(11, 30); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	db, l = open(t, o, never, 0)
	wantEntries(t, l, 1, 10, termOne)
	store(t, l, commands(11, 12, 2)...)
	closeDB(t, db)
	whole, err := fs.ReadFile("raft/mark-0")
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range []int{0, markStride} {
		bad := bytes.Clone(whole)
		bad[slot+5] ^= 1
		rewriteFile(t, fs, "raft/mark-0", bad)
		seq, at, err := readMark(fs, "raft/mark-0")
		if err != nil || seq == 0 || at.index < 10 || at.index > 12 {
			t.Errorf("slot %d torn: sequence %d, %+v, %v", slot, seq, at, err)
		}
	}
	bad := bytes.Clone(whole)
	bad[5] ^= 1
	bad[markStride+5] ^= 1
	rewriteFile(t, fs, "raft/mark-0", bad)
	if _, err = Open(o); !errors.Is(err, ErrDamaged) {
		t.Errorf("both slots torn: %v, want ErrDamaged", err)
	}
	golden.File(t, "mark.golden", []byte(fmt.Sprintf("%x\n", encodeMark(3, progress{index: 1000, term: 5, vote: 4}))))
}

func contents(t *testing.T, fs *disk.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("raft")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		name = filepath.Join("raft", name)
		data, err := fs.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a database that is open has just removed it
		}
		if err != nil {
			t.Fatal(err)
		}
		all[name] = data
	}
	return all
}

func rewriteFile(t *testing.T, fs *disk.FS, name string, data []byte) {
	t.Helper()
	if err := fs.WriteFile(name, data); err != nil {
		t.Fatal(err)
	}
}

// A table that is damaged while the node runs ends the process as soon as it is
// read; at the next start it is ErrDamaged.
func TestDamagedTable(t *testing.T) {
	fs := disk.Memory()
	o, died := dying(fs)
	o.CacheEntries = 1
	db, l := open(t, o, never, 0)
	for i := uint64(1); i <= 100; i++ {
		store(t, l, command(i, 1, strings.Repeat("x", 10_000)))
	}
	if err := db.pebble.Flush(); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	for name, data := range contents(t, fs) {
		if strings.HasSuffix(name, ".sst") {
			data[len(data)/2] ^= 1
			rewriteFile(t, fs, name, data)
		}
	}
	if _, err := Open(o); !errors.Is(err, ErrDamaged) {
		t.Errorf("at the start: %v, want ErrDamaged", err)
	}
	select {
	case reason := <-died:
		t.Errorf("died of %q at the start: a refusal is enough", reason)
	default:
	}

	// As if it had been damaged after it was read at the start.
	db = &DB{opts: o.withDefaults()}
	if err := db.openPebble(); err != nil {
		t.Fatal(err)
	}
	db.running.Store(true)
	l = &Log{db: db, first: 1, last: 100, ring: newRing(1, 1)}
	got := make(chan error, 100)
	go func() {
		for i := uint64(1); i <= 100; i++ {
			got <- l.GetLog(i, &raft.Log{})
		}
	}()
	if reason := <-died; !strings.Contains(reason, "damaged") {
		t.Errorf("died of %q, want damage", reason)
	}
}
