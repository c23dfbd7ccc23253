package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

// Power cuts at disk operations of the log, the state, their snapshots and the
// directory, whatever of the unsynced survives: the node starts again, and its
// Machine has applied all that was acknowledged, in the same order, with the same
// stamps, and at most what was submitted beyond.
func TestNodePowerCuts(t *testing.T) {
	cuts, seeds := 0, 0
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		cuts += newSurvivor(t, seed).run()
		seeds++
	})
	t.Logf("%d power cuts", cuts)
	if cuts < 50*seeds {
		t.Errorf("only %d power cuts by %d seeds", cuts, seeds)
	}
}

// A survivor is a node under load whose power is cut again and again: each time a
// second node is started on what is left, and looked at; the first goes on.
type survivor struct {
	t    *testing.T
	seed uint64
	rig  *rig

	mu        sync.Mutex // guards the following
	dice      *rand.Rand
	submitted int
	digests   []uint64 // digest after so many batches, as applied here
	cuts      int
	later     map[int]uint64 // count and digest of a second node that is ahead of what has been applied here
}

func newSurvivor(t *testing.T, seed uint64) *survivor {
	s := &survivor{
		t: t, seed: seed, rig: newRig(t, disk.Crashable(), "data"),
		dice: rand.New(rand.NewPCG(seed, 11)), digests: []uint64{0}, later: map[int]uint64{},
	}
	s.rig.cfg.LogBytes, s.rig.cfg.Retain, s.rig.cfg.MemTable = 64<<10, 4<<10, 128<<10
	s.rig.cfg.Stall = time.Minute // a second node is started within a disk operation
	return s
}

func (s *survivor) run() (cuts int) {
	rng := rand.New(rand.NewPCG(s.seed, 12))
	s.rig.fs.Intercept(func(disk.Op, string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dice.IntN(25) == 0 {
			s.cut()
		}
		return nil
	})
	for range 3 {
		s.rig.start()
		s.load(rng)
		s.rig.stop()
	}
	s.rig.fs.Intercept(nil)
	for count, digest := range s.later {
		if count >= len(s.digests) || s.digests[count] != digest {
			s.t.Errorf("seed %d: a node that had %d batches after a power cut had others than this one", s.seed, count)
		}
	}
	return s.cuts
}

// load submits batches of all sizes, now and then waiting for what it has
// submitted, and has a snapshot taken.
func (s *survivor) load(rng *rand.Rand) {
	var under sync.WaitGroup
	s.rig.toy.mu.Lock()
	s.rig.toy.heard = func(_ uint64, stamp int64, batch []byte) {
		s.applied(stamp, batch)
		under.Done()
	}
	s.rig.toy.mu.Unlock()
	for range 40 {
		for range 1 + rng.IntN(8) {
			s.mu.Lock()
			batch := append(numbered(s.submitted), make([]byte, rng.IntN(3000))...)
			s.submitted++
			s.mu.Unlock()
			under.Add(1)
			s.rig.node.Submit(batch, func(err error) { s.t.Errorf("seed %d: %v", s.seed, err); under.Done() })
		}
		if rng.IntN(3) == 0 {
			under.Wait()
		}
		if rng.IntN(10) == 0 {
			if _, _, err := s.rig.node.Snapshot(); err != nil {
				s.t.Errorf("seed %d: %v", s.seed, err)
			}
		}
	}
	under.Wait()
}

func (s *survivor) applied(stamp int64, batch []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(nil, s.digests[len(s.digests)-1]))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(stamp)))
	h.Write(batch)
	s.digests = append(s.digests, h.Sum64())
}

// cut cuts the power. Requires mu.
func (s *survivor) cut() {
	if s.t.Failed() {
		return
	}
	s.cuts++
	acknowledged := len(s.digests) - 1
	after := s.rig.fs.Crash([]int{0, 50, 100}[s.dice.IntN(3)], s.dice)
	r := newRig(s.t, after, "data")
	if err := r.open(); err != nil {
		s.t.Errorf("seed %d, cut %d: %v", s.seed, s.cuts, err)
		return
	}
	defer r.stop()
	select {
	case <-r.node.Ready():
	case <-time.After(time.Minute):
		s.t.Errorf("seed %d, cut %d: not ready: %+v", s.seed, s.cuts, r.node.Status())
		return
	}
	p := r.toy.position()
	count := int(p.count)
	if count < acknowledged || count > s.submitted {
		s.t.Errorf("seed %d, cut %d: %d batches; %d were acknowledged and %d submitted", s.seed, s.cuts, count, acknowledged, s.submitted)
	}
	if count >= len(s.digests) {
		s.later[count] = p.digest
	} else if p.digest != s.digests[count] {
		s.t.Errorf("seed %d, cut %d: other batches, or in another order", s.seed, s.cuts)
	}
}

// When a batch is applied, its entry has been synced: a power cut in that moment
// that keeps nothing else keeps it. One entry costs one synced commit.
func TestAppliedIsSynced(t *testing.T) {
	r := newRig(t, disk.Crashable(), "data")
	r.start()
	before := r.node.Stats()
	checked := 0
	var done sync.WaitGroup
	r.toy.heard = func(index uint64, _ int64, batch []byte) {
		defer done.Done()
		checked++
		after := r.fs.Crash(0, nil)
		db, err := raftlog.Open(raftlog.Options{FS: after, Dir: "data/raft", Logger: r.cfg.Logger, Die: func(reason string) { panic(reason) }})
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		l, err := db.Log(0, func() uint64 { return 0 }, 0)
		if err != nil {
			t.Error(err)
			return
		}
		var e raft.Log
		if err := l.GetLog(index, &e); err != nil {
			t.Errorf("entry %d, which is being applied: %v", index, err)
			return
		}
		_, batches, err := unpack(e.Data)
		if err != nil || fmt.Sprintf("%x", batches) != fmt.Sprintf("[%x]", batch) {
			t.Errorf("entry %d: %x, %v, want %x", index, batches, err, batch)
		}
	}
	const entries = 60
	for i := range entries {
		done.Add(1)
		r.node.Submit(numbered(i), func(err error) { t.Error(err); done.Done() })
		done.Wait()
	}
	s := r.node.Stats()
	if checked != entries || s.Entries-before.Entries != entries {
		t.Errorf("%d entries looked at, %d packed, want %d", checked, s.Entries-before.Entries, entries)
	}
	if got := s.Log.Commits - before.Log.Commits; got != entries {
		t.Errorf("%d synced commits for %d entries, want one for each", got, entries)
	}
	if got := s.Disk.Syncs - before.Disk.Syncs; got < entries {
		t.Errorf("%d fsyncs for %d entries", got, entries)
	}
	r.stop()
}
