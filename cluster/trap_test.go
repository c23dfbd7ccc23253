package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

// The tests here are named after the traps that others have fallen into. Those of
// the log itself are in raftlog.

// memoryRig returns a rig in memory whose clock is the machine's.
func memoryRig(t testing.TB) *rig { return newRig(t, disk.Memory(), "data") }

// A log of many committed entries that the state has not made durable is
// replayed at a start, in the order they have and without a deadlock.
func TestTrap5LongReplay(t *testing.T) {
	entries := uint64(effort.RoundsOfOne(4_000, 20_000, 20_000))
	r := memoryRig(t)
	dir, err := Claim(r.fs, r.path, "n1", 1)
	if err != nil {
		t.Fatal(err)
	}
	db, err := raftlog.Open(raftlog.Options{FS: r.fs, Dir: dir.raft(), Logger: r.cfg.Logger, Die: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := db.Log(0, func() uint64 { return 0 }, 0)
	if err != nil {
		t.Fatal(err)
	}
	id := raft.ServerID(dir.id.Node)
	if err := l.Bootstrap(raft.Configuration{Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(id)}}}); err != nil {
		t.Fatal(err)
	}
	var logs []*raft.Log
	for i := range entries {
		logs = append(logs, &raft.Log{Index: i + 2, Term: 1, Data: pack(int64(i), [][]byte{numbered(int(i))})})
	}
	if err := errors.Join(l.StoreLogs(logs), db.Close(), dir.Close()); err != nil {
		t.Fatal(err)
	}
	r.start()
	defer r.stop()
	if p := r.toy.position(); p.count != entries || p.stamp != int64(entries)-1 {
		t.Errorf("%d entries applied, the last of stamp %d, want %d", p.count, p.stamp, entries)
	}
	r.submit(int(entries), 1)
}

// Entries are bounded by bytes, however large and many the batches are, and a
// batch that is larger is refused.
func TestTrap11EntriesAreBounded(t *testing.T) {
	r := memoryRig(t)
	r.start()
	defer r.stop()
	block := make(chan struct{})
	r.toy.mu.Lock()
	r.toy.block = block
	r.toy.mu.Unlock()
	var sizes []int
	var done sync.WaitGroup
	done.Add(100)
	r.toy.heard = func(uint64, int64, []byte) { done.Done() }
	for range 100 {
		r.node.Submit(make([]byte, packBytes*2/5), func(err error) { t.Error(err); done.Done() })
	}
	close(block)
	done.Wait()
	first, _ := r.node.log.FirstIndex()
	last, _ := r.node.log.LastIndex()
	for i := first; i <= last; i++ {
		var e raft.Log
		if err := r.node.log.GetLog(i, &e); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(e.Data))
	}
	if biggest := slices.Max(sizes); biggest > packBytes || biggest < packBytes/2 {
		t.Errorf("the largest entry has %d bytes, want two batches of %d", biggest, packBytes*2/5)
	}
	got := make(chan error, 1)
	r.node.Submit(make([]byte, MaxBatch+1), func(err error) { got <- err })
	if err := <-got; !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNoCommit) {
		t.Errorf("a batch that is too large: %v", err)
	}
	r.submit(0, 1)
	r.node.Submit(make([]byte, MaxBatch), func(err error) { t.Error(err) })
}

// A Machine that blocks in Apply holds up what is behind it and nothing else: the
// node stays leader, Submit returns, two entries are on their way, the backlog is
// bounded, and all goes on when the Machine does.
func TestTrap14BlockedApply(t *testing.T) {
	r := memoryRig(t)
	r.cfg.Backlog = 1000
	r.start()
	block := make(chan struct{})
	r.toy.mu.Lock()
	r.toy.block = block
	r.toy.mu.Unlock()
	var failed, applied atomic.Int64
	all := make(chan struct{})
	r.toy.heard = func(uint64, int64, []byte) {
		if applied.Add(1) == 127 {
			close(all)
		}
	}
	for i := range 200 { // of 8 bytes: 1 + 1 fly, 125 wait
		r.node.Submit(numbered(i), func(err error) {
			if !errors.Is(err, ErrBusy) || !errors.Is(err, ErrNoCommit) {
				t.Errorf("batch %d: %v, want ErrBusy, which is an ErrNoCommit", i, err)
			}
			failed.Add(1)
		})
	}
	s := r.node.Stats()
	if s.Entries != 2 || s.Waiting != 1000 || failed.Load() != 73 || s.Failed != 73 {
		t.Errorf("%d entries on their way, %d bytes wait, %d refused (counted %d); want 2, 1000, 73", s.Entries, s.Waiting, failed.Load(), s.Failed)
	}
	if !r.node.Leader() {
		t.Error("no longer leading")
	}
	close(block)
	<-all
	r.stop()
}

// Taking a copy of the state, and truncating the log, go on beside Apply.
func TestTrap15SnapshotsDoNotStopApply(t *testing.T) {
	r := memoryRig(t)
	r.start()
	defer r.stop()
	r.submit(0, 100)
	during := 0
	inHook := false
	r.fs.Intercept(func(_ disk.Op, name string) error {
		if strings.Contains(name, "snapshots") && !inHook && during < 20 {
			inHook = true // other goroutines than the one that takes the copy do not come here
			r.submit(100+during, 1)
			during++
			inHook = false
		}
		return nil
	})
	id, index, err := r.node.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r.fs.Intercept(nil)
	if during == 0 {
		t.Error("nothing was applied while the copy was taken")
	}
	meta, stream, err := r.node.snapshots.Open(id)
	if err != nil || meta.Index != index {
		t.Fatal(meta, index, err)
	}
	n, err := io.Copy(io.Discard, stream)
	if err != nil || n != meta.Size {
		t.Errorf("%d bytes, said to be %d, %v", n, meta.Size, err)
	}
	stream.Close()
}

// The log stays within its bound, because the Machine is made to flush when it
// does not by itself; it is never truncated past what the Machine holds.
func TestTrap16And18LogIsBounded(t *testing.T) {
	for _, c := range []struct {
		name     string
		memTable uint64 // of the state: it flushes by itself, or does not
		bound    uint64 // that the log returns below
		forced   bool
	}{{"the state flushes", 64 << 10, 512 << 10, false}, {"the state does not", 64 << 20, 2 << 20, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := memoryRig(t)
			r.cfg.LogBytes, r.cfg.Retain = 1<<20, 64<<10
			r.memTable = c.memTable
			r.start()
			batch := make([]byte, 10_000)
			var done sync.WaitGroup
			largest := uint64(0)
			r.toy.heard = func(uint64, int64, []byte) { done.Done() }
			for range 60 {
				for range 20 {
					done.Add(1)
					r.node.Submit(batch, func(err error) { t.Error(err); done.Done() })
				}
				done.Wait()
				// What is truncated is truncated by another goroutine.
				waitFor(t, "truncation", func() bool {
					r.node.wakeTrim()
					return r.node.log.Bytes() <= c.bound
				})
				largest = max(largest, r.node.log.Bytes())
				first, _ := r.node.log.FirstIndex()
				if durable, _, _, _ := r.toy.Durable(); first > durable+1 {
					t.Fatalf("the log begins at %d, and the state is durable up to %d", first, durable)
				}
			}
			r.toy.mu.Lock()
			flushes := r.toy.flushes
			r.toy.mu.Unlock()
			if forced := flushes > 0; forced != c.forced {
				t.Errorf("made to flush %d times", flushes)
			}
			if largest < 64<<10 {
				t.Errorf("never more than %d bytes: nothing was retained", largest)
			}
			r.toy.heard = nil
			before := r.toy.position()
			r.stop()
			r.start()
			if after := r.toy.position(); after.digest != before.digest {
				t.Errorf("after a restart %+v, was %+v", after, before)
			}
			r.stop()
		})
	}
}

// The Machine learns the configuration, which Raft hands to a batching state
// machine with the entries only, and Raft finds it again at the next start though
// it has been truncated from the log.
func TestTrap18ConfigurationIsKept(t *testing.T) {
	r := memoryRig(t)
	r.cfg.LogBytes, r.cfg.Retain = 8<<10, 1
	r.start()
	for i := range 50 {
		r.submit(i*100, 100)
	}
	if err := r.toy.Flush(); err != nil {
		t.Fatal(err)
	}
	r.node.wakeTrim()
	waitFor(t, "truncation", func() bool { first, _ := r.node.log.FirstIndex(); return first > 1 })
	index, _, config, configIndex := r.toy.Durable()
	if servers := raft.DecodeConfiguration(config).Servers; index == 0 || configIndex != 1 || len(servers) != 1 {
		t.Errorf("durable at %d: configuration of %d: %v", index, configIndex, servers)
	}
	r.stop()
	r.start() // it could not lead without
	if s := r.node.Status(); s.FirstIndex <= 1 || s.Role != "leader" {
		t.Errorf("%+v", s)
	}
	r.submit(9999, 1)
	r.stop()
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	waitLong(t, 30*time.Second, what, ok)
}

func waitLong(t testing.TB, most time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(most)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s", most, what)
		case <-tick.C:
		}
	}
}

// Entries carry the time of the log: that of a clock set by hand, exactly, however
// it jumps; never less than before, also when the next start's clock is behind,
// and also when the entries that showed it have been truncated.
func TestTrap17Stamps(t *testing.T) {
	var now atomic.Int64
	begin := time.Date(2026, 3, 9, 16, 59, 0, 0, time.UTC)
	now.Store(begin.UnixNano())
	r := memoryRig(t)
	r.cfg.Now = func() time.Time { return time.Unix(0, now.Load()).UTC() }
	r.cfg.LogBytes, r.cfg.Retain = 8<<10, 1
	r.start()
	stamp := func() time.Time {
		t.Helper()
		r.submit(0, 1)
		return time.Unix(0, r.toy.position().stamp).UTC()
	}
	for _, step := range []time.Duration{0, 0, time.Minute, 365 * 24 * time.Hour, 1} {
		now.Add(int64(step))
		if got, want := stamp(), r.cfg.Now(); !got.Equal(want) {
			t.Errorf("stamp %v, want %v", got, want)
		}
	}
	newest := now.Load()
	again := func(what string) {
		t.Helper()
		r.stop()
		now.Store(begin.UnixNano()) // as a server with --test-clock that is started again
		r.start()
		if got := stamp().UnixNano(); got != newest {
			t.Errorf("%s: stamp %v after %v", what, time.Unix(0, got).UTC(), time.Unix(0, newest).UTC())
		}
	}
	again("the entry is in the log")
	r.stop()
	r.start()
	// Of the log only what Raft has added is left, which has no stamps.
	durable, _, _, _ := r.toy.Durable()
	waitFor(t, "truncation", func() bool {
		r.node.wakeTrim()
		first, _ := r.node.log.FirstIndex()
		return first > durable
	})
	again("the entry has been truncated")
	r.stop()
}

// Raft waits until somebody has read that leadership was lost or won. We read it,
// whether anybody reads Leading or not, and who reads it gets the newest answer.
func TestTrap19UnreadLeadership(t *testing.T) {
	r := memoryRig(t)
	r.start()
	defer r.stop()
	for range 100 {
		if err := r.node.stand(); err != nil { // a leader that stands for election is none until it has won
			t.Fatal(err)
		}
	}
	heard := make(chan error, 1)
	r.toy.mu.Lock()
	r.toy.heard = func(uint64, int64, []byte) { heard <- nil }
	r.toy.mu.Unlock()
	waitFor(t, "a batch to be applied", func() bool {
		r.node.Submit(numbered(0), func(err error) { heard <- err })
		err := <-heard
		if err != nil && err != ErrNoCommit { // what meets an election may be tried again
			t.Fatal(err)
		}
		return err == nil
	})
	waitFor(t, "leadership", r.node.Leader)
	waitFor(t, "the newest answer", func() bool {
		select {
		case leading := <-r.node.Leading():
			return leading
		default:
			return r.node.Leader()
		}
	})
	if term := r.node.Status().Term; term < 50 {
		t.Errorf("term %d: there were no elections", term)
	}
}

// What became of a batch is said only as far as it is known. A leader that was lost
// may have had it committed.
func TestTrap20LostLeadershipIsUnknown(t *testing.T) {
	for err, want := range map[error]error{
		raft.ErrLeadershipLost:                 ErrUnknown,
		raft.ErrRaftShutdown:                   ErrUnknown,
		io.ErrUnexpectedEOF:                    ErrUnknown,
		raft.ErrNotLeader:                      ErrNoCommit,
		raft.ErrLeadershipTransferInProgress:   ErrNoCommit,
		raft.ErrEnqueueTimeout:                 ErrNoCommit,
		raft.ErrAbortedByRestore:               ErrNoCommit,
		fmt.Errorf("w: %w", raft.ErrNotLeader): ErrNoCommit,
	} {
		if got := outcome(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}

// What still flies when Raft has ended is unknown, once: it may land late.
func TestTrap20AbandonedIsUnknown(t *testing.T) {
	r := memoryRig(t)
	r.start()
	defer r.stop()
	p := newProposer(r.node)
	var told []error
	f := &flight{proposals: []proposal{{failed: func(err error) { told = append(told, err) }}}}
	p.flying[f] = struct{}{}
	p.abandon()
	p.land(f, raft.ErrNotLeader)
	if len(told) != 1 || !errors.Is(told[0], ErrUnknown) || errors.Is(told[0], ErrNoCommit) {
		t.Errorf("told %v, want that it is unknown, once", told)
	}
	if s := p.stats(); s.Failed != 1 {
		t.Errorf("counted %d", s.Failed)
	}
}

// A node that is closed while entries are on their way says of what waited that it
// is not committed, and of what was on its way that it is unknown; and indeed it
// is applied at the next start.
func TestTrap20ClosedInFlight(t *testing.T) {
	r := memoryRig(t)
	r.cfg.Patience = 10 * time.Millisecond
	r.start()
	block := make(chan struct{})
	r.toy.mu.Lock()
	r.toy.block = block
	r.toy.mu.Unlock()
	type told struct {
		batch int
		err   error
	}
	tell := make(chan told, 10)
	for i := range 5 {
		r.node.Submit(numbered(i), func(err error) { tell <- told{i, err} })
	}
	waitFor(t, "both entries to be stored", func() bool { last, _ := r.node.log.LastIndex(); return last >= 5 })
	closed := make(chan struct{})
	go func() {
		r.stop()
		close(closed)
	}()
	got := map[int]error{}
	for range 3 { // 2, 3 and 4 waited
		x := <-tell
		got[x.batch] = x.err
	}
	for i := 2; i < 5; i++ {
		if !errors.Is(got[i], ErrNoCommit) {
			t.Errorf("batch %d, which waited: %v", i, got[i])
		}
	}
	// Once patience is over, the Machine goes on.
	waitFor(t, "the shutdown", func() bool { return r.node.raft.State() == raft.Shutdown })
	close(block)
	<-closed
	close(tell)
	for x := range tell {
		if x.batch > 1 || !errors.Is(x.err, ErrUnknown) {
			t.Errorf("batch %d, which was on its way: %v", x.batch, x.err)
		}
	}
	var again error
	r.node.Submit(numbered(9), func(err error) { again = err })
	if !errors.Is(again, ErrNoCommit) {
		t.Errorf("submitted to a closed node: %v", again)
	}
	r.start()
	if n := r.toy.position().count; n != 2 {
		t.Errorf("%d batches at the next start, want the 2 that were on their way", n)
	}
	r.stop()
}

// A disk that has forgotten the log, the state, or both is not a new node: it does
// not start, and what is left is not touched.
func TestTrap23ForgottenDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(fs *disk.FS) error
		want  error
	}{
		{"log", func(fs *disk.FS) error { return fs.RemoveAll("data/raft") }, ErrDamaged},
		{"state", func(fs *disk.FS) error { return fs.RemoveAll("data/state") }, ErrDamaged},
		{"both", func(fs *disk.FS) error { return errors.Join(fs.RemoveAll("data/raft"), fs.RemoveAll("data/state")) }, ErrDamaged},
		{"identity", func(fs *disk.FS) error { return fs.Remove("data/node.json") }, ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := memoryRig(t)
			r.cfg.LogBytes, r.cfg.Retain = 8<<10, 1
			r.start()
			for i := range 20 {
				r.submit(i*100, 100)
			}
			r.toy.Flush()
			r.node.wakeTrim()
			waitFor(t, "truncation", func() bool { first, _ := r.node.log.FirstIndex(); return first > 1 })
			r.stop()
			if err := c.spoil(r.fs); err != nil {
				t.Fatal(err)
			}
			if err := r.open(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A log and a state that do not belong together are refused.
func TestLogAndStateMustMeet(t *testing.T) {
	// Two nodes of the same history, of which one has come further.
	make := func(batches int) *rig {
		r := memoryRig(t)
		r.start()
		for i := range batches {
			r.submit(i, 1)
		}
		r.stop()
		return r
	}
	short, long := make(5), make(50)
	copyDir(t, short.fs, "data/raft", long.fs, "data/raft")
	if err := long.open(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "before the state") {
		t.Errorf("a log that ends before the state: %v", err)
	}
}

// copyDir replaces a directory by another.
func copyDir(t *testing.T, from *disk.FS, dir string, to *disk.FS, at string) {
	t.Helper()
	if err := errors.Join(to.RemoveAll(at), to.MakeDir(at)); err != nil {
		t.Fatal(err)
	}
	names, err := from.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := from.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = to.WriteFile(filepath.Join(at, name), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A cluster is begun once: the same history goes on at each start, under the id
// that the directory has, which is the address as well.
func TestTrap24And25OneClusterOneName(t *testing.T) {
	r := memoryRig(t)
	var id Identity
	for i := range 4 {
		r.start()
		if i == 0 {
			id = r.dir.Identity()
		}
		servers := r.node.raft.GetConfiguration().Configuration().Servers
		if len(servers) != 1 || string(servers[0].ID) != id.Node || string(servers[0].Address) != id.Node {
			t.Errorf("start %d: %+v, want %s", i, servers, id.Node)
		}
		r.submit(i, 1)
		if n := r.toy.position().count; n != uint64(i+1) {
			t.Errorf("start %d: %d batches", i, n)
		}
		r.stop()
	}
}

// An entry that this program does not understand ends the process, with what to do
// about it, rather than being left out.
func TestTrap30UnknownEntry(t *testing.T) {
	r := memoryRig(t)
	died := make(chan string, 1)
	r.cfg.Die = func(reason string) {
		died <- reason
		runtime.Goexit()
	}
	r.start()
	r.submit(0, 3)
	entry := pack(1, nil)
	entry[0] = 9
	r.node.raft.Apply(entry, 0)
	if reason := <-died; !strings.Contains(reason, "version 9") || !strings.Contains(reason, "upgraded") {
		t.Errorf("died of %q", reason)
	}
	// The process is gone; what it would leave behind is closed here.
	r.node.raft.Shutdown()
	close(r.node.stop)
	if err := errors.Join(r.node.db.Close(), r.toy.db.Close(), r.dir.Close()); err != nil {
		t.Error(err)
	}
}

// A snapshot from another node over a log that went past it is installed, and what
// follows it is accepted: Raft by itself refuses it for ever.
func TestTrap4SnapshotOverDivergentTail(t *testing.T) {
	other := memoryRig(t)
	other.start()
	for i := range 30 {
		other.submit(1000+i, 1)
	}
	meta, stream, err := other.node.snapshots.Open(raftlog.LiveID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(stream)
	if err := errors.Join(err, stream.Close()); err != nil {
		t.Fatal(err)
	}
	want := other.toy.position()
	other.stop()

	r := memoryRig(t)
	r.cfg.Heartbeat = time.Hour // it shall not stand for election while it is told about another leader
	r.start()
	for i := range 10 {
		r.submit(i, 1)
	}
	leader := newFakeLeader(t, r.node)
	last, _ := r.node.log.LastIndex()
	var e raft.Log
	if err := r.node.log.GetLog(last, &e); err != nil {
		t.Fatal(err)
	}
	// A tail that is never committed, up to well past the snapshot.
	if !leader.append(100, last, e.Term, meta.Index+20, last) {
		t.Fatal("the divergent tail was refused")
	}
	leader.install(101, meta, data)
	if got := r.toy.position(); got.index != meta.Index || got.digest != want.digest {
		t.Fatalf("installed: %+v, want %+v", got, want)
	}
	if !leader.append(101, meta.Index, meta.Term, meta.Index+5, meta.Index+5) {
		t.Fatal("what follows the snapshot was refused")
	}
	waitFor(t, "the entries after it", func() bool { return r.toy.position().index == meta.Index+5 })
	after := r.toy.position()
	r.stop()

	// And it starts again from there.
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	if got := r.toy.position(); got.digest != after.digest || got.index != after.index {
		t.Errorf("after a restart %+v, was %+v", got, after)
	}
	r.stop()
}

// A fakeLeader speaks Raft to a node as its leader would.
type fakeLeader struct {
	t    *testing.T
	node *Node
}

func newFakeLeader(t *testing.T, n *Node) *fakeLeader { return &fakeLeader{t, n} }

func (f *fakeLeader) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte("leader"), Addr: []byte("leader")}
}

// append sends the entries after prev up to last, and returns whether they were
// accepted.
func (f *fakeLeader) append(term, prev, prevTerm, last, commit uint64) bool {
	f.t.Helper()
	var entries []*raft.Log
	for i := prev + 1; i <= last; i++ {
		entries = append(entries, &raft.Log{Index: i, Term: term, Data: pack(time.Now().UnixNano(), [][]byte{numbered(int(i))})})
	}
	resp, err := f.node.transport.raft(&raft.AppendEntriesRequest{
		RPCHeader: f.header(), Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: entries, LeaderCommitIndex: commit,
	}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.(*raft.AppendEntriesResponse).Success
}

func (f *fakeLeader) install(term uint64, meta *raft.SnapshotMeta, data []byte) {
	f.t.Helper()
	a := arrived(f.t, f.node, meta, bytes.NewReader(data))
	resp, err := f.node.transport.raft(&raft.InstallSnapshotRequest{
		RPCHeader: f.header(), SnapshotVersion: 1, Term: term, LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: int64(len(a.Ticket())),
	}, bytes.NewReader(a.Ticket()))
	if err != nil || !resp.(*raft.InstallSnapshotResponse).Success {
		f.t.Fatal(resp, err)
	}
}

// arrived returns a snapshot that a node has received.
func arrived(t *testing.T, n *Node, meta *raft.SnapshotMeta, data io.Reader) *raftlog.Arrival {
	t.Helper()
	a, err := n.snapshots.Receive(meta.Index, meta.Term, meta.Size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(a, data); err != nil {
		t.Fatal(err)
	}
	if err := a.Finish(); err != nil {
		t.Fatal(err)
	}
	return a
}

// A snapshot that was received, and not restored before a crash, is restored at the
// next start.
func TestReceivedSnapshotIsRestoredAtStart(t *testing.T) {
	other := memoryRig(t)
	other.start()
	other.submit(1000, 30)
	meta, stream, err := other.node.snapshots.Open(raftlog.LiveID)
	if err != nil {
		t.Fatal(err)
	}
	want := other.toy.position()
	r := memoryRig(t)
	r.start()
	sink, err := r.node.snapshots.Create(1, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(arrived(t, r.node, meta, stream).Ticket()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), stream.Close()); err != nil {
		t.Fatal(err)
	}
	other.stop()
	r.stop()
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	if got := r.toy.position(); got.digest != want.digest || got.index != meta.Index {
		t.Errorf("got %+v, want %+v", got, want)
	}
	r.stop()
}
