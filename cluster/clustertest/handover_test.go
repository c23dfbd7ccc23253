package clustertest

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// To hand the leadership over to a node that is cut off fails in time, and nothing
// is piled up for it meanwhile. Raft asks again and again whether the node has all
// entries, without a pause: a pipeline that took all of it would fill the memory,
// and here, where time passes only when all wait, never end.
func TestTransferToSilentNode(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		if !w.found() {
			w.tell()
			return
		}
		l := w.nodes[0].running()
		if !l.node.Leader() {
			t.Fatal("the founder does not lead")
		}
		w.net.Cut("n1", "n2")
		l.source.Add([]byte("n2 lacks this"))
		l.source.Wait()
		before, start := w.net.Stats(), time.Now()
		if err := l.node.Transfer(t.Context(), "n2"); err == nil {
			t.Error("n2 is said to lead")
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		if held := w.net.Stats().Held - before.Held; held > 500 {
			t.Errorf("%d segments were sent to a node that answers none", held)
		}
	})
}
