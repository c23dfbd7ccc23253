package cluster

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/bellwire/bellwire/disk"
)

// BenchmarkNode orders batches on the machine's disk, with so many outstanding: one
// operation is one batch, synced and applied. The Machine does next to nothing.
func BenchmarkNode(b *testing.B) {
	for _, size := range []int{256, 16 << 10} {
		for _, outstanding := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("size=%d/outstanding=%d", size, outstanding), func(b *testing.B) {
				r := newRig(b, disk.Open(b.TempDir()), filepath.Join(b.TempDir(), "data"))
				r.memTable = 64 << 20
				r.start()
				room := make(chan struct{}, outstanding)
				r.toy.heard = func(uint64, int64, []byte) { <-room }
				batch := make([]byte, size)
				before := r.node.Stats()
				b.SetBytes(int64(size))
				for b.Loop() {
					room <- struct{}{}
					r.node.Submit(batch, func(err error) { b.Error(err) })
				}
				for range outstanding {
					room <- struct{}{}
				}
				after := r.node.Stats()
				b.ReportMetric(float64(after.Batches-before.Batches)/float64(after.Entries-before.Entries), "batches/entry")
				b.ReportMetric(float64(after.Disk.Syncs-before.Disk.Syncs)/float64(after.Entries-before.Entries), "fsyncs/entry")
				r.toy.heard = nil
				r.stop()
			})
		}
	}
}
