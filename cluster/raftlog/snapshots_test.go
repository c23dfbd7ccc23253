package raftlog

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
	"github.com/bellwire/bellwire/internal/golden"
)

// A state is a Source: a database without a write-ahead log that knows its place.
type state struct {
	fs          *disk.FS
	dir         string
	db          *pebble.DB
	config      []byte
	configIndex uint64
}

func openState(t testing.TB, fs *disk.FS, dir string) *state {
	t.Helper()
	s := &state{fs: fs, dir: dir, config: oneVoter(), configIndex: 1}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func oneVoter() []byte {
	return raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "n1"}}})
}

func (s *state) open() (err error) {
	s.db, err = pebble.Open(s.dir, &pebble.Options{
		FS: s.fs, DisableWAL: true, FormatMajorVersion: format, Logger: forgiving{make(chan string, 100)},
	})
	return err
}

// apply writes some data, and that it is at index.
func (s *state) apply(t testing.TB, index uint64) {
	t.Helper()
	b := s.db.NewBatch()
	b.Set(fmt.Appendf(nil, "data%05d", index), bytes.Repeat([]byte{byte(index)}, 3000), nil)
	b.Set([]byte("at"), binary.BigEndian.AppendUint64(nil, index), nil)
	if err := b.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

func (s *state) at(o *pebble.IterOptions) uint64 {
	it, err := s.db.NewIter(o)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	if !it.SeekGE([]byte("at")) || string(it.Key()) != "at" {
		return 0
	}
	return binary.BigEndian.Uint64(it.Value())
}

// count returns how many entries' data it holds.
func (s *state) count() (n int) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte("data"), UpperBound: []byte("datb")})
	if err != nil {
		panic(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n
}

func (s *state) Durable() (index, term uint64, config []byte, configIndex uint64) {
	index = s.at(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if index == 0 {
		return 0, 0, nil, 0
	}
	return index, 3, s.config, s.configIndex
}

func (s *state) Flush() error { return s.db.Flush() }

func (s *state) Checkpoint(dir string) (index, term uint64, err error) {
	if err := s.db.Flush(); err != nil {
		return 0, 0, err
	}
	index = s.at(nil)
	return index, 3, s.db.Checkpoint(dir)
}

func (s *state) Restore(dir string) error {
	err := errors.Join(s.db.Close(), s.fs.RemoveAll(s.dir), s.fs.Rename(dir, s.dir), s.fs.SyncDir("."))
	return errors.Join(err, s.open())
}

type store3 struct {
	fs    *disk.FS
	log   *Log
	state *state
	snaps *Snapshots
}

func newStore3(t testing.TB, fs *disk.FS, keep int) *store3 {
	t.Helper()
	db, l := open(t, options(fs), never, 0)
	t.Cleanup(func() { closeDB(t, db) })
	s := &store3{fs: fs, log: l, state: openState(t, fs, "state")}
	var err error
	if s.snaps, err = OpenSnapshots(fs, "snapshots", l, s.state, keep); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *store3) apply(t testing.TB, first, last uint64) {
	for i := first; i <= last; i++ {
		s.state.apply(t, i)
	}
}

// read reads a snapshot to its end, and checks that it is as long as it says.
func (s *store3) read(t testing.TB, id string) (*raft.SnapshotMeta, []byte) {
	t.Helper()
	meta, r, err := s.snaps.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != meta.Size {
		t.Errorf("snapshot %s: %d bytes, said to be %d", id, len(data), meta.Size)
	}
	return meta, data
}

func (s *store3) names(t testing.TB) []string {
	t.Helper()
	names, err := s.fs.List("snapshots")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// receive takes data in as a snapshot at index, and gives it to a sink.
func (s *store3) receive(index uint64, data []byte) error {
	a, err := s.snaps.Receive(index, 3, int64(len(data)))
	if err != nil {
		return err
	}
	if _, err = a.Write(data); err == nil {
		err = s.deliver(a, index)
	}
	return errors.Join(err, a.Drop())
}

// deliver gives what has arrived to a sink that expects a snapshot at index.
func (s *store3) deliver(a *Arrival, index uint64) error {
	if err := a.Finish(); err != nil {
		return err
	}
	sink, err := s.snaps.Create(1, index, 3, raft.DecodeConfiguration(oneVoter()), 1, nil)
	if err != nil {
		return err
	}
	if _, err := sink.Write(a.Ticket()); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// A copy of the state travels as a stream of exactly the size it says, and what
// arrives is what was sent: the state at that index, and not as it is now.
func TestSnapshotTravels(t *testing.T) {
	for name, fs := range map[string]*disk.FS{"memory": disk.Memory(), "crashable": disk.Crashable()} {
		t.Run(name, func(t *testing.T) {
			from := newStore3(t, fs, 2)
			from.apply(t, 1, 100)
			taken, err := from.snaps.Take()
			if err != nil {
				t.Fatal(err)
			}
			from.apply(t, 101, 150)
			for _, id := range []string{taken.ID(), LiveID} {
				meta, data := from.read(t, id)
				want := uint64(100)
				if id == LiveID {
					want = 150
				}
				if meta.Index != want || meta.Term != 3 || len(meta.Configuration.Servers) != 1 || meta.ConfigurationIndex != 1 {
					t.Errorf("%s: %+v, want index %d of term 3", id, meta, want)
				}
				to := newStore3(t, disk.Memory(), 2)
				to.apply(t, 1, 7) // of another history
				if err := to.receive(want, data); err != nil {
					t.Fatal(err)
				}
				m, pending, err := to.snaps.Pending()
				if err != nil || !pending || m.Index != want {
					t.Fatalf("received: %+v, %v, %v", m, pending, err)
				}
				_, r, err := to.snaps.Open(m.ID())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := to.snaps.Restore(r); err != nil {
					t.Fatal(err)
				}
				r.Close()
				if n := to.state.count(); to.state.at(nil) != want || n != int(want) {
					t.Errorf("restored: at %d with %d entries, want %d", to.state.at(nil), n, want)
				}
				if _, pending, _ := to.snaps.Pending(); pending {
					t.Error("still pending after it was restored")
				}
				if to.log.Installed() != want {
					t.Errorf("installed %d, want %d", to.log.Installed(), want)
				}
				if names := to.names(t); !slices.Equal(names, []string{m.ID()}) {
					t.Errorf("left in the directory: %q", names)
				}
			}
			if names := from.names(t); !slices.Equal(names, []string{taken.ID()}) {
				t.Errorf("left in the directory: %q", names)
			}
		})
	}
}

// Raft starts from the state's durable index, whatever copies there are, and from
// nothing when nothing is durable.
func TestListBeginsWithTheState(t *testing.T) {
	s := newStore3(t, disk.Memory(), 3)
	if list, err := s.snaps.List(); err != nil || len(list) != 0 {
		t.Fatalf("new: %v, %v, want none", list, err)
	}
	s.apply(t, 1, 10)
	if list, err := s.snaps.List(); err != nil || len(list) != 0 {
		t.Fatalf("nothing durable: %v, %v, want none", list, err)
	}
	s.snaps.Take()
	s.apply(t, 11, 20)
	s.snaps.Take()
	s.apply(t, 21, 30)
	s.state.Flush()
	s.apply(t, 31, 40)
	list, err := s.snaps.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range list {
		got = append(got, fmt.Sprintf("%s:%d", m.ID, m.Index))
	}
	if want := []string{"live:30", "20-3:20", "10-3:10"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Only the newest copies are kept, one that is being read stays until it has been
// read, and a copy of a state that has not moved is not made twice.
func TestReap(t *testing.T) {
	s := newStore3(t, disk.Memory(), 2)
	take := func(last uint64) Meta {
		t.Helper()
		s.state.apply(t, last)
		m, err := s.snaps.Take()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := take(1)
	_, r, err := s.snaps.Open(first.ID())
	if err != nil {
		t.Fatal(err)
	}
	take(2)
	take(3)
	take(4)
	if got, want := s.names(t), []string{"1-3", "3-3", "4-3"}; !slices.Equal(got, want) {
		t.Errorf("while 1-3 is read: %q, want %q", got, want)
	}
	if data, err := io.ReadAll(r); err != nil || len(data) == 0 {
		t.Errorf("reading it: %d bytes, %v", len(data), err)
	}
	r.Close()
	r.Close() // once too often
	if err := s.snaps.Reap(); err != nil {
		t.Fatal(err)
	}
	if m, err := s.snaps.Take(); err != nil || m.ID() != "4-3" {
		t.Errorf("taken again: %v, %v", m, err)
	}
	if got, want := s.names(t), []string{"3-3", "4-3"}; !slices.Equal(got, want) {
		t.Errorf("afterwards: %q, want %q", got, want)
	}
	for _, id := range []string{"1-3", "nonsense", "9-9", "../state"} {
		if _, _, err := s.snaps.Open(id); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("open %q: %v, want ErrNoSnapshot", id, err)
		}
	}
}

// A copy is of the configuration that was agreed at its index, though the group is
// reconfigured while it is made.
func TestSnapshotKnowsItsConfiguration(t *testing.T) {
	s := newStore3(t, disk.Memory(), 1)
	s.apply(t, 1, 10)
	reconfigured := false
	s.fs.Intercept(func(op disk.Op, name string) error {
		if strings.HasPrefix(name, "snapshots") && op == disk.OpSync && !reconfigured {
			reconfigured = true
			s.state.configIndex = 11 // ahead of the copy that is being made
			s.state.apply(t, 11)
		}
		return nil
	})
	m, err := s.snaps.Take()
	if err != nil {
		t.Fatal(err)
	}
	if !reconfigured || m.Index != 11 || m.ConfigIndex != 11 {
		t.Errorf("got %+v, want a second try, at 11 with the configuration of 11", m)
	}
}

// A stream in which any byte is changed, or that ends anywhere, is refused, and
// leaves nothing behind.
func TestDamagedStreamIsRefused(t *testing.T) {
	from := newStore3(t, disk.Memory(), 1)
	from.apply(t, 1, 3)
	_, data := from.read(t, LiveID)
	to := newStore3(t, disk.Memory(), 1)
	refused := 0
	step := effort.Rounds(211, 7)
	for at := 0; at < len(data); at += step {
		bad := bytes.Clone(data)
		bad[at] ^= 1 << (at % 8)
		err := to.receive(3, bad)
		switch {
		case err == nil: // padding, or a field that means nothing
			if _, got := to.read(t, "3-3"); !bytes.Equal(got, data) {
				t.Errorf("byte %d changed: accepted, and what arrived is not what was sent", at)
			}
			to.fs.RemoveAll("snapshots")
			to.fs.MakeDir("snapshots")
			continue
		case !errors.Is(err, ErrDamaged):
			t.Errorf("byte %d changed: %v, want ErrDamaged", at, err)
		}
		refused++
		if names := to.names(t); len(names) != 0 {
			t.Fatalf("byte %d changed: left %q", at, names)
		}
	}
	if refused < len(data)/step/2 {
		t.Errorf("only %d of %d changed bytes were refused", refused, len(data)/step)
	}
	to = newStore3(t, disk.Memory(), 1)
	for at := 0; at < len(data)-3*tarBlock; at += step { // the rest is padding
		if err := to.receive(3, data[:at]); err == nil {
			t.Errorf("cut to %d of %d bytes: accepted", at, len(data))
		}
	}
	if err := to.receive(4, data); err == nil {
		t.Error("a snapshot at 3 was accepted as the one at 4")
	}
	if names := to.names(t); len(names) != 0 {
		t.Errorf("left %q", names)
	}
	if to.log.Installed() != 0 {
		t.Errorf("installed %d, though none was complete", to.log.Installed())
	}
	if err := to.receive(3, data); err != nil {
		t.Errorf("the whole stream: %v", err)
	}
}

// An archive can only write files of a snapshot: no other names, types or order.
func TestForeignArchiveIsRefused(t *testing.T) {
	meta := string(Meta{Index: 1, Term: 1}.encode())
	type file struct {
		name, data string
		kind       byte
	}
	for name, files := range map[string][]file{
		"up":         {{"meta", meta, 0}, {"state/../../evil", "x", 0}},
		"absolute":   {{"meta", meta, 0}, {"/etc/evil", "x", 0}},
		"below":      {{"meta", meta, 0}, {"state/a/b", "x", 0}},
		"dots":       {{"meta", meta, 0}, {"state/..", "x", 0}},
		"no meta":    {{"state/a", "x", 0}},
		"meta twice": {{"meta", meta, 0}, {"meta", meta, 0}},
		"link":       {{"meta", meta, 0}, {"state/a", "", tar.TypeSymlink}},
		"empty":      {},
		"large meta": {{"meta", strings.Repeat("x", maxMeta+1), 0}},
		"after sums": {{"meta", meta, 0}, {"sums", "", 0}, {"state/a", "x", 0}},
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, f := range files {
			h := &tar.Header{Name: f.name, Size: int64(len(f.data)), Typeflag: f.kind, Linkname: "target"}
			if f.kind == 0 {
				h.Typeflag, h.Linkname = tar.TypeReg, ""
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, f.data)
		}
		w.Close()
		fs := disk.Memory()
		if _, err := unpack(fs, &archive, "d/x"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
		for _, evil := range []string{"evil", "d/evil", "/etc/evil"} {
			if _, err := fs.Stat(evil); err == nil {
				t.Errorf("%s: wrote %s", name, evil)
			}
		}
	}
}

// What an interrupted snapshot leaves is removed, at once or at the next start; and
// only what has arrived, and is what was announced, becomes a copy.
func TestDroppedSnapshotLeavesNothing(t *testing.T) {
	from := newStore3(t, disk.Memory(), 1)
	from.apply(t, 1, 10)
	_, data := from.read(t, LiveID)
	to := newStore3(t, disk.Memory(), 1)
	for _, have := range []int{0, 1, len(data) / 2, len(data)} {
		a, err := to.snaps.Receive(10, 3, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(data[:have]); err != nil {
			t.Fatal(err)
		}
		if a.Have() != int64(have) {
			t.Errorf("%d bytes have come, it says %d", have, a.Have())
		}
		if have > 0 && len(to.names(t)) != 1 {
			t.Errorf("while it is received: %q", to.names(t))
		}
		if err := a.Finish(); (err == nil) != (have == len(data)) {
			t.Errorf("finished after %d of %d bytes: %v", have, len(data), err)
		}
		if err := a.Drop(); err != nil {
			t.Error(err)
		}
		if names := to.names(t); len(names) != 0 {
			t.Errorf("dropped after %d bytes, it left %q", have, names)
		}
		sink, err := to.snaps.Create(1, 10, 3, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write(a.Ticket()); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("what was dropped was taken over: %v", err)
		}
	}
	sink, _ := to.snaps.Create(1, 10, 3, raft.Configuration{}, 1, nil)
	if err := sink.Close(); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("an empty snapshot: %v", err)
	}
	if _, err := sink.Write(data); err == nil {
		t.Error("a sink took a stream for a ticket")
	}
	to.fs.MakeDir("snapshots/receive-7.tmp/state")
	if _, err := OpenSnapshots(to.fs, "snapshots", to.log, to.state, 1); err != nil {
		t.Fatal(err)
	}
	if names := to.names(t); len(names) != 0 {
		t.Errorf("after a start: %q", names)
	}
	if _, err := to.snaps.Create(0, 10, 3, raft.Configuration{}, 1, nil); err == nil {
		t.Error("a snapshot of version 0 was accepted")
	}
	to.fs.SetFree(uint64(len(data))-1, 1<<40)
	if _, err := to.snaps.Receive(10, 3, int64(len(data))); err == nil || !strings.Contains(err.Error(), "make room") {
		t.Errorf("without room on the disk: %v", err)
	}
}

// A sender that is told how far the receiver has come goes on there, however often
// and wherever it is stopped, and what arrives is what one piece would have been.
func TestSnapshotGoesOn(t *testing.T) {
	from := newStore3(t, disk.Memory(), 1)
	from.apply(t, 1, 40)
	from.state.Flush()
	from.apply(t, 41, 50)
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 9))
		meta, r, err := from.snaps.Open(LiveID)
		if err != nil {
			t.Fatal(err)
		}
		stream := r.(*stream)
		to := newStore3(t, disk.Memory(), 1)
		a, err := to.snaps.Receive(50, 3, meta.Size)
		if err != nil {
			t.Fatal(err)
		}
		breaks := 0
		for a.Have() < meta.Size {
			if err := stream.Rewind(a.Have()); err != nil {
				t.Fatalf("seed %d: at %d of %d: %v", seed, a.Have(), meta.Size, err)
			}
			// What is read, and what of it arrives, before the connection breaks.
			b := make([]byte, 1+rng.IntN(3000))
			n, err := io.ReadFull(stream, b)
			if err != nil && err != io.ErrUnexpectedEOF {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if rng.IntN(3) > 0 {
				n = rng.IntN(n + 1)
			}
			if _, err := a.Write(b[:n]); err != nil {
				t.Fatalf("seed %d: at %d of %d: %v", seed, a.Have(), meta.Size, err)
			}
			breaks++
		}
		if err := errors.Join(to.deliver(a, 50), a.Drop(), r.Close()); err != nil {
			t.Fatalf("seed %d, after %d pieces: %v", seed, breaks, err)
		}
		if m, pending, err := to.snaps.Pending(); err != nil || !pending || m.Index != 50 {
			t.Errorf("seed %d: received: %+v, %v, %v", seed, m, pending, err)
		}
		if breaks < 3 {
			t.Errorf("seed %d: %d pieces: nothing is shown", seed, breaks)
		}
	})
	_, r, err := from.snaps.Open(LiveID)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.(*stream).Rewind(1); err == nil {
		t.Error("it went on where it had never been")
	}
	r.Close()
	if err := r.(*stream).Rewind(0); err == nil {
		t.Error("a closed one went on")
	}
}

// After a power cut at any moment of taking, receiving or removing a copy, what
// stands under a copy's name is complete, and a copy that is ahead of the state is
// one that the log knows to have been installed.
func TestSnapshotPowerCuts(t *testing.T) {
	cuts, seeds := 0, 0
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		from := newStore3(t, disk.Memory(), 1)
		from.apply(t, 1, 20)
		_, data := from.read(t, LiveID)
		fs := disk.Crashable()
		s := newStore3(t, fs, 1)
		s.apply(t, 1, 5)
		inHook := false
		fs.Intercept(func(_ disk.Op, name string) error {
			// Only this goroutine works on snapshots.
			if !strings.HasPrefix(name, "snapshots") || inHook || rng.IntN(2) != 0 {
				return nil
			}
			inHook = true
			defer func() { inHook = false }()
			cuts++
			checkCopies(t, fs.Crash([]int{0, 50, 100}[rng.IntN(3)], rng))
			return nil
		})
		for _, do := range []func() error{
			func() error { _, err := s.snaps.Take(); return err },
			func() error { s.state.apply(t, 6); _, err := s.snaps.Take(); return err },
			func() error { return s.receive(20, data) },
		} {
			if err := do(); err != nil {
				t.Fatal(err)
			}
			inHook = true
			checkCopies(t, fs.Crash(0, nil))
			inHook = false
		}
		fs.Intercept(nil)
		seeds++
	})
	t.Logf("%d power cuts", cuts)
	if cuts < 6*seeds {
		t.Errorf("only %d power cuts by %d seeds", cuts, seeds)
	}
}

func checkCopies(t *testing.T, fs *disk.FS) {
	t.Helper()
	db, err := Open(options(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer closeDB(t, db)
	l, err := db.Log(0, never, 0)
	if err != nil {
		t.Fatal(err)
	}
	scratch := &state{fs: fs, dir: "scratch"}
	if err := scratch.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { scratch.db.Close() }()
	snaps, err := OpenSnapshots(fs, "snapshots", l, scratch, 1)
	if err != nil {
		t.Fatal(err)
	}
	copies, err := snaps.Copies()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range copies {
		if m.Index == 20 && l.Installed() != 20 {
			t.Errorf("%s was received, and the log says %d", m.ID(), l.Installed())
		}
		_, r, err := snaps.Open(m.ID())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := snaps.Restore(r); err != nil {
			t.Fatalf("%s: %v", m.ID(), err)
		}
		r.Close()
		if at := scratch.at(nil); at != m.Index || scratch.count() != int(m.Index) {
			t.Errorf("%s holds %d entries up to %d", m.ID(), scratch.count(), at)
		}
	}
}

// The bytes of a meta file, and the layout of a stream, do not change.
func TestSnapshotFormat(t *testing.T) {
	m := Meta{Index: 1234, Term: 5, Config: []byte("configuration"), ConfigIndex: 77}
	if got, err := parseMeta(m.encode()); err != nil || got.Index != m.Index || got.Term != m.Term || got.ConfigIndex != m.ConfigIndex || !bytes.Equal(got.Config, m.Config) {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := range m.encode() {
		bad := m.encode()
		bad[i] ^= 4
		if _, err := parseMeta(bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	newer := m.encode()
	newer[0]++
	binary.BigEndian.PutUint32(newer[len(newer)-4:], checksum(nil, newer[:len(newer)-4]))
	if _, err := parseMeta(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("a later version: %v, want ErrNewer", err)
	}

	fs := disk.Memory()
	fs.MakeDir("c/state")
	fs.WriteFile(filepath.Join("c", "state", "000001.sst"), []byte("table"))
	fs.WriteFile(filepath.Join("c", "state", "000002.sst"), nil)
	r, err := newStream(fs, "c", m, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != r.size {
		t.Fatalf("%d bytes of %d, %v", len(data), r.size, err)
	}
	var bytesNow bytes.Buffer
	fmt.Fprintf(&bytesNow, "meta %x\n", m.encode())
	for in := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(in)
		fmt.Fprintf(&bytesNow, "file %s %x\n", h.Name, body)
	}
	golden.File(t, "snapshot.golden", bytesNow.Bytes())
}

// A file that shrinks while it is sent ends the stream with an error, and does not
// pass for a shorter one.
func TestShrinkingFileIsNoticed(t *testing.T) {
	fs := disk.Memory()
	fs.MakeDir("c/state")
	fs.WriteFile("c/state/a", make([]byte, 5000))
	r, err := newStream(fs, "c", Meta{}, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	fs.WriteFile("c/state/a", make([]byte, 10))
	if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want unexpected EOF", err)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("read after Close")
	}
}
