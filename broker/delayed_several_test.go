package broker

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/bubble"
)

// Events that wait while leaders change and a node loses its state are published once all the
// same, in the order of their times and among equals in that in which they came, to who is
// connected anywhere and who was away; on all nodes nothing is left, and the state is one.
func TestDelayedOverLeaders(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		if err := n[0].Raise(context.Background(), NewestLevel); err != nil {
			t.Fatal(err)
		}
		l.settle()
		away, _ := n[2].connect("away", true, 3600)
		away.subscribe("t", 1)
		away.s.Close(false, false, 0)
		live, _ := n[1].connect("live", true, 0)
		live.subscribe("t", 1)
		l.settle()
		type due struct {
			after int
			text  string
		}
		var all []due
		for i, m := range n {
			p, _ := m.connect(fmt.Sprint("p", i), true, 0)
			for k := range 10 {
				after := 60 + 60*((i+k)%3)
				text := fmt.Sprintf("%d.%d", i, k)
				must(t, p.publish(fmt.Sprintf("$delayed/%d/t", after), text, 1))
				all = append(all, due{after, text})
			}
		}
		slices.SortStableFunc(all, func(a, b due) int { return a.after - b.after })
		l.settle()

		first := l.lead()
		l.cutOff(first) // the first third is due meanwhile
		elapse(65 * time.Second)
		if l.lead() == first {
			t.Fatal("it leads still")
		}
		l.heal(first)
		l.settle()
		n[2].end(false) // the second, and it replays what it had
		elapse(60 * time.Second)
		n[2].begin()
		second := l.lead()
		l.cutOff(second)
		elapse(time.Second)
		l.heal(second)
		elapse(60 * time.Second)
		l.settle()

		// Who was connected to a node that was cut off, or stopped, may have been sent
		// away: who was away is given everything, whatever happened.
		back, present := l.lead().connect("away", false, 3600)
		if !present {
			t.Fatal("the session is gone")
		}
		l.settle()
		got := back.await(len(all))
		var want []string
		for _, d := range all {
			want = append(want, "t="+d.text+" q1")
		}
		if !slices.Equal(got, want) {
			t.Errorf("published:\n%q, want\n%q", got, want)
		}
		for _, m := range n {
			if events, bytes := m.DelayedCount(); events != 0 || bytes != 0 {
				t.Errorf("%s: %d events, %d bytes still wait", m.name, events, bytes)
			}
		}
		l.checkDigests()
	})
}

// A copy of a state in which events wait brings them: a node that is given it publishes them
// as the others do, counts them, and can take them back.
func TestDelayedInACopy(t *testing.T) {
	fs := disk.Memory()
	d := drive(t, openMachine(t, fs, "/data/state", "n1"))
	d.entry(raising(NewestLevel))
	o := d.connect(event.Connect{Client: "c", Principal: "c", Expiry: event.Never, ReceiveMax: 100})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "t", QoS: 1}}})
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	p := d.connect(event.Connect{Client: "p", Principal: "p"})
	for i, after := range []int{30, 10, 20} {
		c := publishing(fmt.Sprintf("$delayed/%d/t", after), fmt.Sprint(i), 1)
		c.Epoch, c.Event.Origin, c.Event.Principal, c.Event.Client, c.Event.At = p.epoch, p.session, "p", "p", d.now
		if a := d.entry(c); a[0].err != nil {
			t.Fatal(a[0].err)
		}
	}
	if _, _, err := d.machines[0].Checkpoint("/data/copy"); err != nil {
		t.Fatal(err)
	}
	other := openMachine(t, fs, "/data/other", "n1")
	other.life = 1 << lifeBits
	t.Cleanup(func() { other.close(t) })
	if err := other.Restore("/data/copy"); err != nil {
		t.Fatal(err)
	}
	if events := other.delayed.events.Load(); events != 3 {
		t.Errorf("%d events wait in the copy, want 3", events)
	}
	d.machines = append(d.machines, other) // each entry is compared
	for range 4 {
		d.now += 11e9
		d.entry(&event.Tick{})
	}
	for i, m := range d.machines {
		if r := m.sessions["c"]; r.queue.count != 3 {
			t.Errorf("machine %d has queued %d events, want 3", i, r.queue.count)
		}
		if events := m.delayed.events.Load(); events != 0 {
			t.Errorf("machine %d has %d left", i, events)
		}
	}
}

// What a hundred thousand take that are due in one second, with a session away that each is
// queued for: what processors spend on all of it, and on the entry that takes longest.
func BenchmarkDelayedDue(b *testing.B) {
	const events = 100_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		b.StopTimer()
		m := openMachine(b, disk.Memory(), "/data/state", "n1")
		m.limits.Sessions, m.limits.QueueEvents, m.limits.QueueBytes = 100, 2*events, 1<<30
		d := drive(b, m)
		d.entry(raising(NewestLevel))
		o := d.connect(event.Connect{Client: "c", Principal: "c", Expiry: event.Never, ReceiveMax: 100})
		d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "t", QoS: 1}}})
		d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
		var p *opened
		for i := range events / 1000 {
			who := fmt.Sprint("p", i/10) // each may have 10,000 that wait
			if i%10 == 0 {
				p = d.connect(event.Connect{Client: who, Principal: who})
			}
			var batch []event.Command
			for range 1000 {
				c := publishing("$delayed/60/t", "0123456789", 1)
				c.Epoch, c.Event.Origin, c.Event.Principal, c.Event.Client, c.Event.At = p.epoch, p.session, who, who, d.now
				batch = append(batch, c)
			}
			d.entry(batch...)
		}
		if waits := m.delayed.events.Load(); waits != events {
			b.Fatalf("%d wait, want %d", waits, events)
		}
		d.now += 61e9
		longest, entries, all := time.Duration(0), 0, threadTime()
		b.StartTimer()
		for m.delayed.events.Load() > 0 {
			began := threadTime()
			d.entry(&event.Tick{})
			longest = max(longest, threadTime()-began)
			entries++
		}
		b.ReportMetric(float64(longest.Microseconds())/1000, "cpu-ms/longest-entry")
		b.ReportMetric(float64(entries), "entries")
		b.ReportMetric(float64((threadTime()-all).Nanoseconds())/events, "cpu-ns/event")
	}
}
