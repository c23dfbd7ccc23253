package cluster

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
)

// A rig is a node and its machine on some file system.
type rig struct {
	t    testing.TB
	fs   *disk.FS
	path string
	dir  *Dir
	toy  *toy
	node *Node
	cfg  Config // what start adds to

	memTable uint64 // of the toy
}

func newRig(t testing.TB, fs *disk.FS, path string) *rig {
	return &rig{t: t, fs: fs, path: path, cfg: Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)}}
}

// start opens everything, and waits until the node leads.
func (r *rig) start() {
	r.t.Helper()
	if err := r.open(); err != nil {
		r.t.Fatal(err)
	}
	<-r.node.Ready()
}

func (r *rig) open() (err error) {
	if r.dir, err = Claim(r.fs, r.path, "n1", 1); err != nil {
		return err
	}
	r.toy = openToy(r.t, r.fs, r.dir.State(), r.memTable)
	cfg := r.cfg
	cfg.Dir, cfg.Machine = r.dir, r.toy
	if cfg.Die == nil {
		cfg.Die = func(reason string) { panic("died: " + reason) }
	}
	if r.node, err = Open(cfg); err != nil {
		r.toy.close(r.t)
		return errors.Join(err, r.dir.Close())
	}
	return nil
}

// stop closes everything, gracefully.
func (r *rig) stop() {
	r.t.Helper()
	if err := r.node.Close(); err != nil {
		r.t.Error(err)
	}
	r.toy.close(r.t)
	if err := r.dir.Close(); err != nil {
		r.t.Error(err)
	}
}

// submit submits count batches, numbered from first on, and waits until the
// machine has applied as many.
func (r *rig) submit(first, count int) {
	r.t.Helper()
	var wg sync.WaitGroup
	wg.Add(count)
	r.toy.mu.Lock()
	r.toy.heard = func(uint64, int64, []byte) { wg.Done() }
	r.toy.mu.Unlock()
	for i := range count {
		r.node.Submit(numbered(first+i), func(err error) { r.t.Errorf("batch %d: %v", first+i, err); wg.Done() })
	}
	wg.Wait()
	r.toy.mu.Lock()
	r.toy.heard = nil
	r.toy.mu.Unlock()
}

func numbered(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

// A thousand batches submitted at once are applied in order, packed into far
// fewer entries, on every kind of file system; and after a restart they are all
// there.
func TestBatchesInOrderAndPacked(t *testing.T) {
	for name, fs := range map[string]*disk.FS{"memory": disk.Memory(), "real": disk.Open(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, fs, filepath.Join(t.TempDir(), "data"))
			r.start()
			var got []uint64
			done := make(chan struct{})
			r.toy.heard = func(_ uint64, _ int64, b []byte) {
				if got = append(got, binary.BigEndian.Uint64(b)); len(got) == 1000 {
					close(done)
				}
			}
			for i := range 1000 {
				r.node.Submit(numbered(i), func(err error) { t.Errorf("batch %d: %v", i, err) })
			}
			<-done
			for i, n := range got {
				if n != uint64(i) {
					t.Fatalf("batch %d came at place %d", n, i)
				}
			}
			s := r.node.Stats()
			if s.Batches != 1000 || s.Entries >= 500 || s.Failed != 0 {
				t.Errorf("%d batches in %d entries, %d failed: want 1000 in far fewer, none", s.Batches, s.Entries, s.Failed)
			}
			before := r.toy.position()
			r.stop()
			r.start()
			if after := r.toy.position(); after.digest != before.digest || after.count != 1000 {
				t.Errorf("after a restart: %d batches, digest %x, want 1000, %x", after.count, after.digest, before.digest)
			}
			r.submit(1000, 10)
			r.stop()
		})
	}
}

// One entry may always go; a second beside it when it is as large, or as large as
// entries become.
func TestSecondEntryIsAsLarge(t *testing.T) {
	const mib = 1 << 20
	tests := []struct {
		name    string
		batches []int // bytes of each that is submitted while the first is not applied
		entries []int // packed after each
	}{
		{"smaller ones gather", []int{1000, 400, 599, 1, 9000}, []int{1, 1, 1, 2, 2}},
		{"among small ones nobody waits", []int{8, 8, 8}, []int{1, 2, 2}},
		{"beside the largest", []int{mib, packBytes - 1, 8}, []int{1, 1, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, disk.Memory(), "data")
			r.start()
			before := r.node.Stats().Entries
			gate, done := make(chan struct{}), make(chan struct{})
			var got []int
			r.toy.heard = func(_ uint64, _ int64, b []byte) {
				<-gate
				if got = append(got, len(b)); len(got) == len(tt.batches) {
					close(done)
				}
			}
			for i, size := range tt.batches {
				r.node.Submit(make([]byte, size), func(err error) { t.Errorf("batch %d: %v", i, err) })
				if n := r.node.Stats().Entries - before; n != uint64(tt.entries[i]) {
					t.Errorf("after batch %d: %d entries, want %d", i, n, tt.entries[i])
				}
			}
			close(gate)
			<-done
			if !slices.Equal(got, tt.batches) {
				t.Errorf("applied %d, want %d", got, tt.batches)
			}
			r.stop()
		})
	}
}

// A node of one leads at once, at its first start and at others: it does not wait
// until it has missed a leader.
func TestLeadsAtOnce(t *testing.T) {
	r := newRig(t, disk.Memory(), "data")
	r.cfg.Heartbeat = time.Hour
	for range 3 {
		r.start()
		if !r.node.Leader() || !<-r.node.Leading() {
			t.Error("ready, but not leading")
		}
		if s := r.node.Status(); s.Role != "leader" || s.LeaderID != s.Identity.Node {
			t.Errorf("status %+v", s)
		}
		r.submit(0, 1)
		r.stop()
	}
}
