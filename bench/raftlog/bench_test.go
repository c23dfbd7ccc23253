package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/disk"
)

// A store is a LogStore that can be closed.
type store interface {
	raft.LogStore
	io.Closer
}

type ours struct {
	*raftlog.Log
	db *raftlog.DB
}

func (o ours) Close() error { return o.db.Close() }

// stores opens each store in a directory, with real fsync, as it is by default.
var stores = []struct {
	name string
	open func(dir string) (store, error)
}{
	{"raftlog", openOurs},
	{"raft-wal", openWAL},
	{"raft-boltdb", func(dir string) (store, error) { return raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db")) }},
}

func openOurs(dir string) (store, error) {
	db, err := raftlog.Open(raftlog.Options{
		FS: disk.Open(dir), Dir: dir, Logger: slog.New(slog.DiscardHandler), Die: func(reason string) { panic(reason) },
	})
	if err != nil {
		return nil, err
	}
	l, err := db.Log(0, func() uint64 { return 1 << 62 }, 0)
	return ours{l, db}, err
}

// walStore closes its metadata too, which the WAL forgets: it could not be opened
// again in the same process.
type walStore struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

func (w walStore) Close() error { return errors.Join(w.WAL.Close(), w.meta.Close()) }

func openWAL(dir string) (store, error) {
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithMetaStore(meta))
	return walStore{w, meta}, err
}

// dir returns a directory on the disk that BENCH_DIR names, for that of TMPDIR
// may be memory.
func dir(b *testing.B) string {
	root := os.Getenv("BENCH_DIR")
	if root == "" {
		root = "."
	}
	d, err := os.MkdirTemp(root, "data-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func entries(first uint64, n, size int) []*raft.Log {
	logs := make([]*raft.Log, n)
	for i := range logs {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(j*7 + i) // nothing that compresses to nothing
		}
		logs[i] = &raft.Log{Index: first + uint64(i), Term: 1, Data: data, AppendedAt: time.Unix(1773072000, 0)}
	}
	return logs
}

// cpu reports the processor time of an operation, all goroutines together: a
// figure that a busy machine disturbs less than the elapsed time. It is called
// before the loop; what it returns, after.
func cpu(b *testing.B) (report func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N)/1000, "cpu-µs/op") }
}

// BenchmarkFsync is what the disk does by itself: 4 KiB, written in place and
// synced.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(dir(b), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for range 256 {
		f.Write(page)
	}
	f.Sync()
	report := cpu(b)
	for i := 0; b.Loop(); i++ {
		f.WriteAt(page, int64(i%256)*4096)
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	report()
}

// keep is how many bytes of log are kept while more are appended; the rest is
// truncated, as it is in operation.
const keep = 64 << 20

// BenchmarkStoreLogs appends batches, each of which is synced, and truncates the
// head now and then.
func BenchmarkStoreLogs(b *testing.B) {
	for _, c := range []struct{ batch, size int }{{1, 256}, {16, 256}, {64, 256}, {1, 64 << 10}, {16, 64 << 10}, {64, 64 << 10}} {
		for _, s := range stores {
			b.Run(fmt.Sprintf("%s/batch=%d/size=%d", s.name, c.batch, c.size), func(b *testing.B) {
				st, err := s.open(dir(b))
				if err != nil {
					b.Fatal(err)
				}
				defer st.Close()
				every := max(keep/(c.batch*c.size), 1)
				logs := entries(1, c.batch, c.size)
				next, first := uint64(1), uint64(1)
				b.SetBytes(int64(c.batch * c.size))
				b.ReportAllocs()
				report := cpu(b)
				defer report()
				for n := 1; b.Loop(); n++ {
					// New entries: a store may keep what it is given.
					batch := make([]*raft.Log, len(logs))
					for i, l := range logs {
						e := *l
						e.Index = next
						batch[i] = &e
						next++
					}
					if err := st.StoreLogs(batch); err != nil {
						b.Fatal(err)
					}
					if n%every == 0 {
						upTo := next - uint64(c.batch) - 1
						if upTo > first {
							if err := st.DeleteRange(first, upTo); err != nil {
								b.Fatal(err)
							}
							first = upTo + 1
						}
					}
				}
			})
		}
	}
}

// BenchmarkGetLog reads entries in order from the oldest on, as a follower that
// lags is served and a node replays: none is in a cache of decoded entries.
func BenchmarkGetLog(b *testing.B) {
	for _, size := range []int{256, 64 << 10} {
		count := min(20_000, keep/size)
		for _, s := range stores {
			b.Run(fmt.Sprintf("%s/size=%d", s.name, size), func(b *testing.B) {
				d := dir(b)
				st, err := s.open(d)
				if err != nil {
					b.Fatal(err)
				}
				for first := 1; first <= count; first += 64 {
					if err := st.StoreLogs(entries(uint64(first), 64, size)); err != nil {
						b.Fatal(err)
					}
				}
				if err := st.Close(); err != nil {
					b.Fatal(err)
				}
				if st, err = s.open(d); err != nil { // what was decoded is forgotten
					b.Fatal(err)
				}
				defer st.Close()
				last, err := st.LastIndex()
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				report := cpu(b)
				defer report()
				for i := uint64(0); b.Loop(); i++ {
					var e raft.Log
					if err := st.GetLog(1+i%last, &e); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOpen opens a log of 64 MiB, reading and checking what the store reads
// and checks at a start.
func BenchmarkOpen(b *testing.B) {
	const size = 16 << 10
	for _, s := range stores {
		b.Run(s.name, func(b *testing.B) {
			d := dir(b)
			st, err := s.open(d)
			if err != nil {
				b.Fatal(err)
			}
			for first := 1; first <= keep/size; first += 64 {
				if err := st.StoreLogs(entries(uint64(first), 64, size)); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := st.Close(); err != nil {
					b.Fatal(err)
				}
				if st, err = s.open(d); err != nil {
					b.Fatal(err)
				}
			}
			st.Close()
		})
	}
}
