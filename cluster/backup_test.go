package cluster

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/disk"
)

// A state that comes from elsewhere, by a backup or a snapshot, brings the time of its log
// with it: this node's clock, which is behind, does not set it back. (The toy panics if an
// entry's stamp is less than the one before.)
func TestTrap17TimeComesWithTheState(t *testing.T) {
	ahead := time.Date(2026, 3, 9, 18, 0, 0, 0, time.UTC)
	behind := func() time.Time { return ahead.Add(-time.Hour) }
	other := memoryRig(t)
	other.cfg.Now = func() time.Time { return ahead }
	other.start()
	other.submit(0, 3)
	backup, err := other.node.Backup()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(backup)
	if err := errors.Join(err, backup.Close()); err != nil {
		t.Fatal(err)
	}
	if index, err := CheckBackup(bytes.NewReader(whole)); err != nil || index != backup.Index {
		t.Errorf("a backup of %d is of %d, %v", backup.Index, index, err)
	}
	meta, stream, err := other.node.snapshots.Open(raftlog.LiveID)
	if err == nil {
		err = stream.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	want := other.toy.position()
	other.stop()

	t.Run("backup", func(t *testing.T) {
		r := unpacked(t, whole)
		r.cfg.Now = behind
		for i := range 2 {
			r.start()
			r.wantStamp(want.stamp)
			r.submit(3+i, 1)
			if p := r.toy.position(); p.count != want.count+uint64(i)+1 {
				t.Errorf("%d batches, want one more than %d", p.count, want.count+uint64(i))
			}
			r.stop()
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		r := memoryRig(t)
		r.cfg.Now = behind
		r.cfg.Heartbeat = time.Hour // it shall not stand for election while it is told about another leader
		r.start()
		newFakeLeader(t, r.node).install(101, meta, whole)
		if p := r.toy.position(); p.digest != want.digest {
			t.Fatalf("installed: %+v, want %+v", p, want)
		}
		r.wantStamp(want.stamp)
		r.stop()
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
		r.wantStamp(want.stamp)
		r.stop()
	})
}

// wantStamp fails the test if the node would give an entry a stamp below least.
func (r *rig) wantStamp(least int64) {
	r.t.Helper()
	if got := r.node.clock.stamp(); got < least {
		r.t.Fatalf("the next stamp is %v, the state's is %v", time.Unix(0, got).UTC(), time.Unix(0, least).UTC())
	}
}

// unpacked returns a rig in whose directory a backup is, as the beginning of a cluster.
func unpacked(t *testing.T, backup []byte) *rig {
	t.Helper()
	r := newRig(t, disk.Memory(), "data")
	dir, err := Claim(r.fs, r.path, "n1", 1)
	if err == nil {
		err = dir.Unpack(bytes.NewReader(backup))
	}
	if err != nil {
		t.Fatal(err)
	}
	toy := openToy(t, r.fs, dir.State(), 0)
	index, err := Found(Config{Dir: dir, Machine: toy, Logger: r.cfg.Logger, Now: r.cfg.Now, Die: func(reason string) { t.Error(reason) }})
	if err != nil {
		t.Fatal(err)
	}
	if p := toy.position(); p.index != index || len(raft.DecodeConfiguration(p.config).Servers) != 1 {
		t.Errorf("founded at %d: %+v", index, p)
	}
	toy.close(t)
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}
