package mqtt

import "testing"

// A server holds flushes back only while it is busy, its writes carry little,
// and holding is seen to help; it looks again whether that is still so.
func TestHolderDecides(t *testing.T) {
	var h holder
	var writes, packets uint64
	pass := func(w, p uint64, want bool, why string) {
		t.Helper()
		writes, packets = writes+w, packets+p
		h.tick(writes, packets)
		if got := h.holding.Load(); got != want {
			t.Fatalf("%d writes of %d packets (%s): holding %v, want %v", w, p, why, got, want)
		}
	}
	trial := func() {
		t.Helper()
		for n := 0; !h.holding.Load(); n++ {
			if n > holdEvery {
				t.Fatal("no trial")
			}
			pass(5000, 6000, n == holdEvery-1 || h.wait <= 1, "busy")
		}
	}
	for range 1000 {
		pass(900, 900, false, "little to do")
		pass(50_000, 500_000, false, "batched well")
	}
	pass(5000, 6000, true, "busy: a trial")
	pass(5000, 6500, false, "it did not help")
	trial()
	pass(2000, 9000, true, "it helped")
	for range holdEvery - 2 {
		pass(1500, 9000, true, "it goes on helping")
	}
	pass(1500, 9000, false, "measure again")
	pass(5000, 6000, true, "as bad as before")
	pass(2000, 9000, true, "and it still helps")
	pass(10, 10, false, "no traffic any more")
}

// What is held comes a moment later, and at once if it is much.
func TestHeldIsFlushed(t *testing.T) {
	n := newNode(t, Limits{})
	n.srv.holder.holding.Store(true)
	converse(t, n)
	c := n.connect(5, "c")
	c.send(packet(0x82, u16(1), props5(), "t", 0))
	c.want("SUBACK id=1 00")
	p := n.connect(4, "p")
	for range 100 {
		p.send(packet(0x30, "t", make([]byte, 500)), packet(0x30, "t", make([]byte, 500)), packet(0x30, "t", make([]byte, 5000)))
		c.want("PUBLISH t=500 bytes q0", "PUBLISH t=500 bytes q0", "PUBLISH t=5000 bytes q0")
	}
	p.send([]byte{0, 0})
	p.want("closed")
	c.send([]byte{0, 0})
	c.want("DISCONNECT 81 reason=\"BW-3002 packet type 0\"", "closed")
	if !n.srv.holder.holding.Load() {
		t.Error("it was not holding: the test shows nothing")
	}
}
