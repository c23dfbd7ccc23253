package bench

import (
	"testing"

	"pgregory.net/rapid"

	_ "github.com/bellwire/bellwire/internal/fixedseed"
)

// A track agrees with a set of all numbers seen, whatever comes in what order.
func TestTrackAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.Uint64Range(0, 60).Draw(t, "sent")
		var tr track
		seen := map[uint64]bool{}
		var highest uint64
		for range rapid.IntRange(0, 150).Draw(t, "deliveries") {
			if sent == 0 {
				break
			}
			seq := rapid.Uint64Range(0, sent-1).Draw(t, "seq")
			want := inOrder
			switch {
			case seen[seq]:
				want = again
			case len(seen) > 0 && seq < highest:
				want = late
			}
			if got := tr.record(seq); got != want {
				t.Fatalf("%d is %d, want %d", seq, got, want)
			}
			seen[seq] = true
			highest = max(highest, seq)
			checkHoles(t, &tr)
		}
		if got, want := tr.missing(sent), sent-uint64(len(seen)); got != want {
			t.Fatalf("missing %d, want %d", got, want)
		}
	})
}

func checkHoles(t *rapid.T, tr *track) {
	var end uint64
	for i, h := range tr.holes {
		if h.lo >= h.hi || h.hi >= tr.next || (i > 0 && h.lo <= end) {
			t.Fatalf("hole %d of %v, next %d", i, tr.holes, tr.next)
		}
		end = h.hi
	}
}

// Every kind of wrong is a fault at the QoS that forbids it, and only there.
func TestFaultsByQoS(t *testing.T) {
	tests := []struct {
		tally Tally
		want  [3]string // by QoS
	}{
		{Tally{Delivered: 1}, [3]string{"", "", ""}},
		{Tally{}, [3]string{"nothing delivered", "nothing delivered", "nothing delivered"}},
		{Tally{Delivered: 1, Undelivered: 1}, [3]string{"", "undelivered", "undelivered"}},
		{Tally{Delivered: 1, Unacked: 1}, [3]string{"", "unacknowledged", "unacknowledged"}},
		{Tally{Delivered: 1, Refused: 1}, [3]string{"", "refused", "refused"}},
		{Tally{Delivered: 1, Duplicates: 1}, [3]string{"duplicates", "", "duplicates"}},
		{Tally{Delivered: 1, Inversions: 1}, [3]string{"wrong order", "wrong order", "wrong order"}},
		{Tally{Delivered: 1, Corrupt: 1}, [3]string{"damaged payloads", "damaged payloads", "damaged payloads"}},
		{Tally{Delivered: 1, Stalls: 1}, [3]string{"", "", ""}},
	}
	for _, tt := range tests {
		for qos, want := range tt.want {
			if got := tt.tally.fault(byte(qos)); got != want {
				t.Errorf("%+v at QoS %d: %q, want %q", tt.tally, qos, got, want)
			}
		}
	}
}
