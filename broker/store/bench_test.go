package store

import (
	"fmt"
	"log/slog"
	"testing"

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
