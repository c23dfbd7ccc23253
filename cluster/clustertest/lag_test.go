package clustertest

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// A node that lags by hundreds of entries catches up soon, also when nothing new
// happens meanwhile. Raft begins a pipeline when the node has what there was when
// it was reached; in it, it sends what the node still lacks only as new entries
// come.
func TestLagEndsWithoutLoad(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		w.memory = 1 << 30 // all is there as entries
		defer w.close()
		if !w.found() {
			w.tell()
			return
		}
		source := w.nodes[0].running().source
		load := func(entries int) {
			for range entries {
				source.Add([]byte("n3 lacks this"))
				source.Wait() // one entry each
				<-time.After(2 * time.Millisecond)
			}
		}
		w.net.Isolate("n3")
		load(1500)
		w.net.Shape("n1", "n3", Conditions{Delay: 150 * time.Millisecond})
		w.net.Heal()
		load(600) // while n3 is given the others
		start := time.Now()
		lead, late := w.nodes[0].running().machine, w.nodes[2].running().machine
		want, _ := lead.State()
		got, _ := late.State()
		lacks := want - got
		w.eventually(12*time.Second, "n3 has caught up", func() bool {
			want, _ := lead.State()
			got, _ := late.State()
			return got == want
		})
		t.Logf("n3 lacked %d entries after the last one, and had them %v later", lacks, time.Since(start))
	})
}
