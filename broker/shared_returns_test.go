package broker

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

// A copy that whoever is given it returns, as at a window's edge on a node whose clock
// is ahead, takes two entries of the log a second, however many members there are; and
// it is given as soon as somebody takes it. A machine that starts in between does the
// same.
func TestSharedReturnedWithoutEnd(t *testing.T) {
	for _, members := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) { returnedWithoutEnd(t, members) })
	}
}

func returnedWithoutEnd(t *testing.T, members int) {
	u, twin := openMachine(t, disk.Memory(), "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, u, twin)
	d.entry(&event.Raise{Level: uint8(NewestLevel)})
	s := Limits{}.Settings("")
	d.entry(&s)
	all := make([]*opened, members)
	for i := range all {
		all[i] = d.connect(event.Connect{Client: fmt.Sprint("m", i), Principal: "alice", ReceiveMax: 10})
		d.entry(&event.Subscribe{Session: all[i].session, Epoch: all[i].epoch, Subs: []event.Subscription{{Filter: jobs, QoS: 1}}})
	}
	d.entry(publishing("jobs/1", "x", 1))
	has := func() *opened {
		for _, o := range all {
			if u.numbers[o.session].queue.count > 0 {
				return o
			}
		}
		return nil
	}
	const seconds = 10
	returned := 0
	for i := range seconds * 100 { // an entry each 10 ms
		d.now += askAgain / 100
		o := has()
		if o == nil {
			d.entry(&event.Tick{})
			continue
		}
		returned++
		d.entry(&event.Return{Session: o.session, Epoch: o.epoch, Entries: []uint64{u.numbers[o.session].queue.next - 1}})
		if i == 350 {
			must(t, twin.load())
		}
	}
	if returned > 2*(seconds+1) || returned < seconds/2 {
		t.Errorf("it was returned %d times in %d s, want about two times a second at most", returned, seconds)
	}
	d.now += askAgain
	for range 3 {
		d.entry(&event.Tick{})
	}
	o := has()
	if o == nil {
		t.Fatal("nobody has it")
	}
	next := u.numbers[o.session].queue.next
	d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: next, Sent: next})
	if has() != nil || u.byFilter[jobs].queue.count != 0 {
		t.Error("it was taken and is still there")
	}
}
