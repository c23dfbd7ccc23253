package clustertest

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// A node that is cut off while it is removed looks for a leader, as any that is cut
// off, and does not take itself for removed. Long after, when nobody has anything on
// its way to it any more, it finds others again: the first tells it.
func TestRemovedWhileCutOff(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		if !w.found() {
			w.tell()
			return
		}
		l, gone := w.nodes[0].running(), w.nodes[2].running()
		gone.expelled = true
		w.net.Isolate("n3")
		w.eventually(30*time.Second, "n3 is removed", func() bool { return l.node.Remove(t.Context(), "n3", false, "ana") == nil })
		<-time.After(time.Minute)
		if gone.isRemoved() {
			t.Errorf("nobody can have told it: %+v", gone.node.Removal())
		}
		w.net.Heal()
		w.eventually(30*time.Second, "n3 is told", gone.isRemoved)
		if r := gone.node.Removal(); r.From != "n1" && r.From != "n2" || r.From == "n1" && r.By != "ana" {
			t.Errorf("it is told %+v", r)
		}
		l.source.Add([]byte("the others go on"))
		l.source.Wait()
	})
}

// A node that was cut off for as long, and was not removed, serves again.
func TestCutOffIsNotRemoved(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 3)
		defer w.close()
		if !w.found() {
			w.tell()
			return
		}
		l, away := w.nodes[0].running(), w.nodes[2].running()
		w.net.Isolate("n3")
		for range 600 {
			l.source.Add([]byte("n3 lacks this"))
			l.source.Wait()
			<-time.After(100 * time.Millisecond)
		}
		w.net.Heal()
		w.eventually(60*time.Second, "n3 has caught up", func() bool {
			want, _ := l.machine.State()
			got, _ := away.machine.State()
			return got == want
		})
		away.source.Add([]byte("of n3"))
		away.source.Wait()
	})
}
