package store

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
)

// BenchmarkTx is what a log entry of 2,500 events writes when 50 sessions queue
// them in turn and have taken those of the entry before.
func BenchmarkTx(b *testing.B) {
	const sessions, events = 50, 2500
	s, err := Open(Options{Dir: "state", FS: disk.Memory(), Logger: slog.New(slog.DiscardHandler), Die: func(reason string) { panic(reason) }})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 100)
	var key []byte
	entry := func(session, seq int) []byte {
		key = AppendUint64(AppendUint64(Key(key, Queue), uint64(session)), uint64(seq))
		return key
	}
	b.ReportAllocs()
	for n := 1; b.Loop(); n++ {
		tx := s.Begin()
		for i := range events {
			tx.Set(entry(i%sessions, n*events+i), value)
		}
		for i := range events {
			tx.DeleteOnce(entry(i%sessions, (n-1)*events+i))
		}
		tx.Set(append(Key(key, Meta), "applied"...), fmt.Append(nil, n))
		tx.Commit()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
}

// BenchmarkPendingCommit is how long entries of 250 events take that nobody takes, one of
// which in some hundred gives the database all that is pending, up to 8 MiB at once: what
// waits behind it waits for that.
func BenchmarkPendingCommit(b *testing.B) {
	const sessions, events = 50, 250
	s, err := Open(Options{Dir: "state", FS: disk.Memory(), Logger: slog.New(slog.DiscardHandler), Die: func(reason string) { panic(reason) }})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 100)
	var key []byte
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		tx := s.Begin()
		for i := range events {
			key = AppendUint64(AppendUint64(Key(key, Queue), uint64(i%sessions)), uint64(n*events+i))
			tx.Set(key, value)
		}
		began := time.Now()
		tx.Commit()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	for name, at := range map[string]float64{"p50-ns": 0.5, "p99-ns": 0.99, "p999-ns": 0.999, "max-ns": 1} {
		b.ReportMetric(float64(took[min(int(at*float64(len(took))), len(took)-1)].Nanoseconds()), name)
	}
}
