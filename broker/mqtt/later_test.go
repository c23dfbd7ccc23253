package mqtt

import (
	"testing"

	"github.com/bellwire/bellwire/broker"
)

// What was refused for now its publisher sends again, and in order only if nothing
// that it sent after has been taken: until it has been told, nothing is. It cannot
// be told before what it sent first is settled.
func TestNothingOvertakesWhatIsToComeAgain(t *testing.T) {
	for _, version := range []byte{4, 5} {
		n := newNode(t, Limits{})
		w := n.connect(5, "witness")
		w.send(packet(0x82, u16(1), props5(), "t", 1))
		w.want("SUBACK id=1 01")
		c := n.connect(version, "c", keep(3600))
		publish := func(first byte, id int) {
			props := []byte{}
			if version == 5 {
				props = props5()
			}
			c.send(packet(first, "t", u16(id), props, id))
		}
		n.log.gate.Lock()
		publish(0x32, 1)
		c.ping()
		n.full.Store(true)
		n.broker.CheckDisk()
		publish(0x32, 2)
		c.ping()
		n.full.Store(false)
		n.broker.CheckDisk()
		publish(0x32, 3)
		publish(0x34, 4)
		c.ping()
		n.log.gate.Unlock()
		w.want("PUBLISH t=\x01 q1 id=1")
		c.want("PUBACK id=1 00")
		if version == 4 { // it cannot be told but by the end
			c.want("closed")
			c = n.connect(version, "c", keep(3600))
		} else {
			c.want(`PUBACK id=2 97 reason="BW-5005 disk-full"`, `PUBACK id=3 97 reason="BW-5005 disk-full"`, `PUBREC id=4 97 reason="BW-5005 disk-full"`)
		}
		for id := 2; id <= 4; id++ {
			publish(0x32, id)
		}
		c.want("PUBACK id=2 00", "PUBACK id=3 00", "PUBACK id=4 00")
		w.want("PUBLISH t=\x02 q1 id=2", "PUBLISH t=\x03 q1 id=3", "PUBLISH t=\x04 q1 id=4")
	}
}

// A refusal that is not for now holds up nothing, nor does one that has been told.
func TestRefusedForGoodHoldsUpNothing(t *testing.T) {
	c := offline(5)
	in := newInput(false)
	defer in.release()
	var w broker.Wave
	owe := func() (uint64, error) {
		tag, later, err := c.owe(in, 4, 1)
		if err != nil {
			t.Fatal(err)
		}
		return tag, later
	}
	first, _ := owe()
	second, _ := owe()
	c.Complete(second, broker.ErrRefused, &w)
	third, later := owe()
	if later != nil {
		t.Errorf("after one was refused for good the next is: %v", later)
	}
	c.Complete(third, broker.ErrNoCommit, &w)
	fourth, later := owe()
	if later != broker.ErrNoCommit {
		t.Errorf("while one that was not ordered is not told, the next is refused with %v", later)
	}
	c.Complete(fourth, later, &w)
	c.Complete(first, nil, &w)
	if _, later := owe(); later != nil {
		t.Errorf("after all were told the next is refused: %v", later)
	}
}
