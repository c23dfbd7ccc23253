package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// kinds returns one of each file system and a directory to work in.
func kinds(t *testing.T) map[string]struct {
	fs  *FS
	dir string
} {
	dir := t.TempDir()
	type kind = struct {
		fs  *FS
		dir string
	}
	return map[string]kind{
		"real":      {Open(dir), dir},
		"memory":    {Memory(), "data"},
		"crashable": {Crashable(), "data"},
	}
}

// WriteFile puts the new contents in the old one's place, on every kind of file
// system, in a directory that MakeDir made.
func TestWriteFileReplaces(t *testing.T) {
	for name, k := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(k.dir, "a", "b")
			if err := k.fs.MakeDir(dir); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "f")
			for _, want := range []string{"first", "", "third, and longer"} {
				if err := k.fs.WriteFile(file, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if got, err := k.fs.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
			if _, err := k.fs.ReadFile(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a missing file: got %v, want not exist", err)
			}
		})
	}
}

// A power cut at any operation of WriteFile leaves the old contents or the new
// ones, whatever of the unsynced survives.
func TestWriteFileSurvivesPowerCuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	cuts := 0
	for round := range 40 {
		fs := Crashable()
		if err := fs.MakeDir("/d"); err != nil {
			t.Fatal(err)
		}
		if err := fs.WriteFile("/d/f", []byte("old")); err != nil {
			t.Fatal(err)
		}
		check := func() error {
			cuts++
			after := fs.Crash(rng.IntN(101), rng)
			if got, err := after.ReadFile("/d/f"); err != nil || (string(got) != "old" && string(got) != "new") {
				t.Errorf("round %d, cut %d: got %q, %v", round, cuts, got, err)
			}
			return nil
		}
		fs.Intercept(func(Op, string) error { return check() })
		if err := fs.WriteFile("/d/f", []byte("new")); err != nil {
			t.Fatal(err)
		}
		fs.Intercept(nil)
		if got, err := fs.Crash(0, nil).ReadFile("/d/f"); err != nil || string(got) != "new" {
			t.Fatalf("round %d: WriteFile had returned, but after a power cut: %q, %v", round, got, err)
		}
	}
	if cuts < 40*5 {
		t.Errorf("only %d power cuts, want at least create, write, sync, rename, sync of each round", cuts)
	}
}

// Each fault does to a write, a sync and a removal what it says, a read never
// fails, and OK ends it.
func TestFaults(t *testing.T) {
	cases := []struct {
		fault               Fault
		create, write, sync error
		remove              error
	}{
		{OK, nil, nil, nil, nil},
		{EIO, syscall.EIO, syscall.EIO, syscall.EIO, syscall.EIO},
		{NoSpace, syscall.ENOSPC, syscall.ENOSPC, nil, nil},
		{Full, nil, nil, nil, nil}, // while the reserve lasts: TestFullDiskHasAReserve
	}
	for name, k := range kinds(t) {
		for _, c := range cases {
			t.Run(name+"/"+string(c.fault), func(t *testing.T) {
				fs, file := k.fs, filepath.Join(k.dir, "f")
				if err := fs.MakeDir(k.dir); err != nil {
					t.Fatal(err)
				}
				f, err := fs.CreateFile(file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				before := fs.Stats()
				if err := fs.SetFault(c.fault); err != nil {
					t.Fatal(err)
				}
				defer fs.SetFault(OK)
				_, werr := f.Write([]byte("x"))
				other, cerr := fs.CreateFile(file + "2")
				if cerr == nil {
					other.Close()
				}
				failed := uint64(0)
				for op, e := range map[string]struct{ got, want error }{
					"create": {cerr, c.create},
					"write":  {werr, c.write},
					"sync":   {f.Sync(), c.sync},
					"remove": {fs.Remove(file), c.remove},
				} {
					if !errors.Is(e.got, e.want) {
						t.Errorf("%s: got %v, want %v", op, e.got, e.want)
					}
					if e.want != nil {
						failed++
					}
				}
				if got := fs.Stats().Failed - before.Failed; got != failed {
					t.Errorf("counted %d failures, want %d", got, failed)
				}
				if err := fs.SetFault(OK); err != nil {
					t.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					t.Errorf("after OK: %v", err)
				}
			})
		}
	}
	if err := Memory().SetFault("fire"); err == nil || !strings.Contains(err.Error(), `"fire"`) {
		t.Errorf("an unknown fault: got %v, want a refusal that names it", err)
	}
}

// A disk that hangs holds writes and syncs until it is well again, and then they
// are done.
func TestHangHoldsUntilOK(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := Memory()
		f, err := fs.CreateFile("f")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := fs.SetFault(Hang); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := f.Write([]byte("late"))
			done <- errors.Join(err, f.Sync())
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a write on a disk that hangs returned %v", err)
		default:
		}
		if _, err := fs.ReadFile("f"); err != nil {
			t.Errorf("reading on a disk that hangs: %v", err)
		}
		if err := fs.SetFault(OK); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got, _ := fs.ReadFile("f"); string(got) != "late" {
			t.Errorf("got %q, want what was written while it hung", got)
		}
	})
}

// A full disk reports its reserve, lets writes use it up, and then has no space.
func TestFullDiskHasAReserve(t *testing.T) {
	fs := Memory()
	fs.SetFree(1<<40, 1000<<20) // the reserve is a hundredth: 10 MiB
	f, err := fs.CreateFile("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fs.SetFault(Full); err != nil {
		t.Fatal(err)
	}
	mib := make([]byte, 1<<20)
	for left := 10; left > 0; left-- {
		if free, total := fs.Free(); free != uint64(left)<<20 || total != 1000<<20 {
			t.Fatalf("Free = %d of %d, want %d MiB left", free, total, left)
		}
		if _, err := f.Write(mib); err != nil {
			t.Fatalf("with %d MiB left: %v", left, err)
		}
	}
	if _, err := f.Write(mib); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without reserve: got %v, want ENOSPC", err)
	}
	if free, _ := fs.Free(); free != 0 {
		t.Errorf("Free = %d, want 0", free)
	}
	fs.SetFault(OK)
	if free, _ := fs.Free(); free != 1<<40 {
		t.Errorf("Free after OK = %d, want what was set", free)
	}
}

// Free tells of the device, of the memory, or what a test has set.
func TestFree(t *testing.T) {
	for name, k := range kinds(t) {
		free, total := k.fs.Free()
		if free == 0 || total < free {
			t.Errorf("%s: Free = %d of %d", name, free, total)
		}
		k.fs.SetFree(3, 5)
		if free, total := k.fs.Free(); free != 3 || total != 5 {
			t.Errorf("%s: Free = %d of %d after SetFree(3, 5)", name, free, total)
		}
		k.fs.ClearFree()
		if _, again := k.fs.Free(); again != total {
			t.Errorf("%s: total %d after ClearFree, was %d", name, again, total)
		}
	}
	absent := Open(filepath.Join(t.TempDir(), "not", "yet", "there"))
	if free, total := absent.Free(); free == 0 || free == total {
		t.Errorf("a root that does not exist yet: Free = %d of %d, want its device's", free, total)
	}
}

// Every fsync that was done is counted, and no other.
func TestSyncsAreCounted(t *testing.T) {
	for name, k := range kinds(t) {
		if err := k.fs.MakeDir(k.dir); err != nil {
			t.Fatal(err)
		}
		f, err := k.fs.CreateFile(filepath.Join(k.dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		f.Sync() // and its name: TestFirstSyncKeepsTheName
		before := k.fs.Stats()
		for range 3 {
			f.Write([]byte("abc"))
			f.Sync()
			f.SyncData()
		}
		k.fs.SyncDir(k.dir)
		k.fs.SetFault(EIO)
		f.Sync()
		after := k.fs.Stats()
		got := Stats{after.Syncs - before.Syncs, after.Writes - before.Writes, after.WrittenBytes - before.WrittenBytes, after.Failed - before.Failed}
		if want := (Stats{Syncs: 7, Writes: 3, WrittenBytes: 9, Failed: 1}); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		k.fs.SetFault(OK)
		f.Close()
	}
}

// The first sync of a file that was created makes its name durable, the others
// need not.
func TestFirstSyncKeepsTheName(t *testing.T) {
	fs := Crashable()
	if err := fs.MakeDir("/d"); err != nil {
		t.Fatal(err)
	}
	f, err := fs.CreateFile("/d/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write([]byte("once"))
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := fs.Crash(0, nil).ReadFile("/d/f"); err != nil || string(got) != "once" {
		t.Errorf("after a power cut: %q, %v", got, err)
	}
	before := fs.Stats().Syncs
	f.Sync()
	if got := fs.Stats().Syncs - before; got != 1 {
		t.Errorf("the second sync took %d", got)
	}
}

// Intercept can fail one operation of one file and no other.
func TestInterceptFailsOneOperation(t *testing.T) {
	fs := Memory()
	boom := errors.New("boom")
	fs.Intercept(func(op Op, name string) error {
		if op == OpSync && name == "b" {
			return boom
		}
		return nil
	})
	for _, name := range []string{"a", "b", "c"} {
		err := fs.writeNew(name, nil)
		if want := map[string]error{"b": boom}[name]; !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

// A lock keeps a second holder out, in memory too, until it is released.
func TestLockExcludes(t *testing.T) {
	for name, k := range kinds(t) {
		if err := k.fs.MakeDir(k.dir); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(k.dir, "LOCK")
		held, err := k.fs.Lock(file)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := k.fs.Lock(file); err == nil {
			second.Close()
			t.Errorf("%s: locked twice", name)
		}
		held.Close()
		again, err := k.fs.Lock(file)
		if err != nil {
			t.Errorf("%s: after release: %v", name, err)
			continue
		}
		again.Close()
	}
}

// Fatalf never returns, even if what should have ended the process does.
func TestFatalfDoesNotReturn(t *testing.T) {
	var text bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&text, nil))
	var reason string
	l := NewLogger(logger, func(r string) { reason = r })
	defer func() {
		if recover() == nil {
			t.Error("Fatalf returned")
		}
		if reason != "commit 7 failed: no space left on device" || !strings.Contains(text.String(), reason) || !strings.Contains(text.String(), "make room") {
			t.Errorf("reason %q, log %q: want both to say what failed, and the log what to do", reason, text.String())
		}
	}()
	l.Fatalf("commit %d failed: %v", 7, syscall.ENOSPC)
}

// An operation that hangs is reported while it hangs.
func TestWatchedReportsASlowSync(t *testing.T) {
	fs := Memory()
	slow := make(chan Slow, 100)
	watched, stop := fs.Watched(100*time.Millisecond, func(s Slow) {
		select {
		case slow <- s:
		default:
		}
	})
	f, err := watched.Create("wal", category)
	if err != nil {
		t.Fatal(err)
	}
	fs.SetFault(Hang)
	done := make(chan error)
	go func() { done <- f.Sync() }()
	if got := <-slow; got.Name != "wal" || got.Op != "sync" || got.For < 100*time.Millisecond {
		t.Errorf("got %+v, want the sync of wal, after 100 ms at least", got)
	}
	fs.SetFault(OK)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), stop.Close()); err != nil {
		t.Fatal(err)
	}
}

// ReadAt, Stat and Fd are the inner file's own: Pebble needs them unchanged.
func TestFilesPassThrough(t *testing.T) {
	dir := t.TempDir()
	fs := Open(dir)
	name := filepath.Join(dir, "f")
	if err := fs.WriteFile(name, []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var part [3]byte
	if _, err := f.ReadAt(part[:], 4); err != nil || string(part[:]) != "456" {
		t.Errorf("ReadAt: %q, %v", part, err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 10 {
		t.Errorf("Stat: %v, %v", info, err)
	}
	if fd := fmt.Sprint(f.Fd()); fd == fmt.Sprint(^uintptr(0)) {
		t.Error("no descriptor of a real file")
	}
	if _, err := io.ReadAll(f); err != nil {
		t.Error(err)
	}
}

// The power may be cut while everything is at it. What MemFS does for that blocked
// for ever when a sync, a link and a cut met.
func TestCrashWhileBusy(t *testing.T) {
	fs := Crashable()
	if err := fs.MakeDir("/d"); err != nil {
		t.Fatal(err)
	}
	if err := fs.WriteFile("/d/old", []byte("x")); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var busy sync.WaitGroup
	until := func(op func(n int) error) {
		busy.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				if err := op(n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 2 {
		until(func(n int) error { return fs.WriteFile(fmt.Sprint("/d/written", i), []byte{byte(n)}) })
		until(func(n int) error {
			name := fmt.Sprint("/d/linked", i)
			return errors.Join(fs.Link("/d/old", name), fs.Remove(name))
		})
		until(func(int) error {
			lock, err := fs.Lock(fmt.Sprint("/d/lock", i))
			if err != nil {
				return err
			}
			return lock.Close()
		})
	}
	for range 2000 {
		after := fs.Crash(0, nil)
		if text, err := after.ReadFile("/d/old"); err != nil || string(text) != "x" {
			t.Errorf("what was synced reads %q, %v after a crash", text, err)
			break
		}
	}
	close(over)
	busy.Wait()
}

// Room that is asked for ahead, as Pebble asks for a log that may become large, is made
// as the file grows: a small file takes little of the disk.
func TestRoomIsMadeAsAFileGrows(t *testing.T) {
	dir := t.TempDir()
	fs, steps := Open(dir), 0
	fs.Intercept(func(op Op, _ string) error {
		if op == OpPreallocate {
			steps++
		}
		return nil
	})
	name := filepath.Join(dir, "log")
	f, err := fs.CreateFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const asked = 100 << 20
	if err := f.Preallocate(0, asked); errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("missing: a file system that makes room ahead")
	} else if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 256<<10)
	for written := int64(len(chunk)); written <= asked+4<<20; written += int64(len(chunk)) {
		if _, err := f.Write(chunk); err != nil {
			t.Fatal(err)
		}
		var info syscall.Stat_t
		if err := syscall.Stat(name, &info); err != nil {
			t.Fatal(err)
		}
		if takes, most := info.Blocks*512, written+min(max(written, roomLeast), roomMost)+1<<20; takes > most {
			t.Fatalf("a file of %d bytes takes %d, want %d at most", written, takes, most)
		}
	}
	if steps < 8 || steps > 20 {
		t.Errorf("room was made in %d steps, want one for each doubling and then each %d bytes", steps, roomMost)
	}
}
