package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A correspondence is people who write to each other and their devices, all of
// which go on through the deaths of the server.
type correspondence struct {
	*load
	server  *server
	writers []*writer
	devices []*device
	allowed atomic.Int64 // how many messages each writer may have sent so far

	faultMu sync.Mutex
	faults  []string
}

// A writer sends messages with the bodies 1, 2, 3, … to an inbox, several under
// way. What was not acknowledged when a connection ended it sends again as a
// new publication with the message's id: it is the inbox that knows it.
type writer struct {
	who, inbox string
	qos        byte
	total      int64
	acked      atomic.Int64 // all up to this number
	again      int64        // how many were sent and not acknowledged when a connection ended
}

// A device has one session, in which it subscribes to one inbox.
type device struct {
	who, name, inbox string
	qos              byte
	open             map[uint16]string // ids between PUBLISH and PUBREL, with what came

	mu      sync.Mutex
	got     []letter // in the order in which they were handed on
	repeats int
}

const clockStart = "2026-03-09T12:00:00Z"

// A stage is as many messages as a writer may send at once, and how long it
// takes until they may send as many again.
const (
	stageMessages = 200
	stageTime     = 10 * time.Second
)

// slowly is how long a stage may take on a machine that does much else.
const slowly = 90 * time.Second

// correspond starts a server, lets writers send to whom they write to, gives
// each owner of an inbox a device that reads at QoS 2 and one at QoS 1, and
// lets all of them begin.
func correspond(t *testing.T, writers ...*writer) *correspondence {
	t.Helper()
	s := kinds(t, clockStart)
	x := &correspondence{load: &load{t: t, stop: make(chan struct{})}, server: s, writers: writers}
	x.addr.Store(s.ready.MQTT)
	owners := map[string]string{bobsInbox: bob, alicesInbox: alice}
	friends := map[string][]string{}
	for _, w := range writers {
		friends[w.inbox] = append(friends[w.inbox], w.who)
	}
	for inbox, of := range friends {
		owner := owners[inbox]
		s.person(owner, "first").Publish("$me/policy/im", 1, letsIn(of...))
		for qos, name := range map[byte]string{1: owner + "/phone", 2: owner + "/pc"} {
			d := &device{who: owner, name: name, inbox: inbox, qos: qos, open: map[uint16]string{}}
			c := s.open(v5, as(owner, receiveMax(name, 50)))
			c.Subscribe(inbox, qos)
			c.Disconnect()
			x.devices = append(x.devices, d)
		}
	}
	for _, w := range x.writers {
		x.wg.Go(func() { x.again(func() error { return w.run(x) }) })
	}
	for _, d := range x.devices {
		x.wg.Go(func() { x.again(func() error { return d.run(x) }) })
	}
	return x
}

// run lets the writers send all that they have, in stages, kills the server in
// the midst of each stage that kills names, waits until every device has all,
// and judges.
func (x *correspondence) run(rng *rand.Rand, kills ...int) {
	x.t.Helper()
	func() {
		defer x.wg.Wait()
		defer close(x.stop)
		x.write(rng, kills)
		x.awaitDevices()
	}()
	x.judge()
}

func (x *correspondence) write(rng *rand.Rand, kills []int) {
	x.t.Helper()
	clock, err := time.Parse(time.RFC3339, clockStart)
	if err != nil {
		x.t.Fatal(err)
	}
	total := int64(0)
	for _, w := range x.writers {
		total = max(total, w.total)
	}
	for stage := 0; x.allowed.Load() < total; stage++ {
		// Absolute: a server that comes back has the time it was started with.
		x.server.setClock(clock.Add(time.Duration(stage) * stageTime).Format(time.RFC3339))
		x.allowed.Add(stageMessages)
		if slices.Contains(kills, stage) {
			x.awaitAcked(x.allowed.Load() - 1 - rng.Int64N(stageMessages-1))
			x.restart(x.server)
		}
		x.awaitAcked(x.allowed.Load())
	}
}

// awaitAcked waits until so many messages of each writer are acknowledged, or
// all that they have.
func (x *correspondence) awaitAcked(n int64) {
	x.t.Helper()
	for _, w := range x.writers {
		until(x.t, fmt.Sprintf("%d of %s are acknowledged", n, w.who), slowly, func() bool {
			return x.failed() || w.acked.Load() >= min(n, w.total)
		})
	}
}

func (x *correspondence) awaitDevices() {
	x.t.Helper()
	for _, d := range x.devices {
		want := 0
		for _, w := range x.writersTo(d.inbox) {
			want += int(w.total)
		}
		until(x.t, fmt.Sprintf("%s has %d messages", d.name, want), slowly, func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return x.failed() || len(d.got) >= want
		})
	}
}

func (x *correspondence) writersTo(inbox string) (all []*writer) {
	for _, w := range x.writers {
		if w.inbox == inbox {
			all = append(all, w)
		}
	}
	return all
}

// judge wants at each device what each writer sent, once and in order.
func (x *correspondence) judge() {
	x.t.Helper()
	for _, fault := range x.faults {
		x.t.Error(fault)
	}
	repeats := 0
	for _, d := range x.devices {
		repeats += d.repeats
		from := map[string][]letter{}
		for i, l := range d.got {
			if l.ISeq != i+1 {
				x.t.Fatalf("%s has %+v as number %d", d.name, l, i+1)
			}
			from[l.From] = append(from[l.From], l)
		}
		for _, w := range x.writersTo(d.inbox) {
			has := from["im:"+w.who]
			if len(has) != int(w.total) {
				x.t.Errorf("%s has %d messages of %s, want %d", d.name, len(has), w.who, w.total)
				continue
			}
			for i, l := range has {
				if l.Body != strconv.Itoa(i+1) {
					x.t.Fatalf("%s has %+v of %s where %d was due", d.name, l, w.who, i+1)
				}
			}
		}
		for _, other := range x.devices {
			if other.inbox == d.inbox && !slices.Equal(other.got, d.got) {
				x.t.Errorf("%s and %s have not the same in the same order", d.name, other.name)
			}
		}
	}
	again := int64(0)
	for _, w := range x.writers {
		again += w.again
	}
	x.t.Logf("%d sent again, %d came again at QoS 1", again, repeats)
}

// blame notes something that must not be and returns it.
func (x *correspondence) blame(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	x.faultMu.Lock()
	defer x.faultMu.Unlock()
	if len(x.faults) < 10 {
		x.faults = append(x.faults, err.Error())
	}
	return err
}

func (x *correspondence) failed() bool {
	x.faultMu.Lock()
	defer x.faultMu.Unlock()
	return len(x.faults) > 0
}

// run sends over one connection, from the first that is not acknowledged on.
func (w *writer) run(x *correspondence) error {
	c, _, err := x.connect(as(w.who, clean(w.who+"/writer")))
	if err != nil {
		return err
	}
	defer c.Close()
	sent := w.acked.Load()
	for w.acked.Load() < w.total {
		for sent < min(w.acked.Load()+underWay, w.total, x.allowed.Load()) {
			sent++
			m := mq.Publish{Topic: w.inbox, QoS: w.qos, ID: packetID(sent), Payload: fmt.Appendf(nil, `{"id":"m%d","body":"%d"}`, sent, sent)}
			if err := c.Write(m); err != nil {
				w.again += sent - w.acked.Load()
				return err
			}
		}
		if sent > w.acked.Load() {
			if err := w.awaitAck(x, c); err != nil {
				w.again += sent - w.acked.Load()
				return err
			}
			continue
		}
		select {
		case <-x.stop:
			return nil
		default:
			pause()
		}
	}
	return nil
}

// awaitAck reads one packet. What acknowledges the message that is due counts;
// at QoS 2 it does when its id is free again.
func (w *writer) awaitAck(x *correspondence, c *mq.Conn) error {
	p, err := c.Read(mq.Patience)
	if err != nil {
		return err
	}
	due := w.acked.Load() + 1
	stored := map[byte]mq.Type{1: mq.PUBACK, 2: mq.PUBREC}[w.qos]
	switch {
	case p.Type == stored && p.Code == 0:
		n := due
		for packetID(n) != p.ID && n < due+underWay {
			n++
		}
		if n > w.total || packetID(n) != p.ID || w.qos == 1 && n != due {
			return x.blame("%s: got %v where %d was due", w.who, p, due)
		}
		if got, want := p.Properties.User(), fmt.Sprint("evt-id=m", n); !slices.Equal(got, []string{want}) {
			return x.blame("%s is told %q of %d, want %q", w.who, got, n, want)
		}
	case p.Type == mq.PUBCOMP && p.Code == 0 && p.ID == packetID(due):
	default:
		return x.blame("%s: got %v where %d was due", w.who, p, due)
	}
	if p.Type == mq.PUBREC {
		return c.Write(mq.Ack{Type: mq.PUBREL, ID: p.ID})
	}
	w.acked.Add(1)
	return nil
}

// run reads over one connection until the end.
func (d *device) run(x *correspondence) error {
	c, ack, err := x.connect(as(d.who, receiveMax(d.name, 50)))
	if err != nil {
		return err
	}
	defer c.Close()
	if !ack.SessionPresent {
		return x.blame("%s: its session is gone", d.name)
	}
	return x.each(c, func(p *mq.Packet) (mq.Message, error) {
		switch {
		case p.Type == mq.PUBREL:
			delete(d.open, p.ID)
			return mq.Ack{Type: mq.PUBCOMP, ID: p.ID}, nil
		case p.Type != mq.PUBLISH || p.QoS() == 0:
			return nil, x.blame("%s: got %v", d.name, p)
		case p.QoS() == 1:
			d.hand(x, p)
			return mq.Ack{Type: mq.PUBACK, ID: p.ID}, nil
		}
		if was, again := d.open[p.ID]; !again {
			d.open[p.ID] = string(p.Payload)
			d.hand(x, p)
		} else if was != string(p.Payload) || !p.Dup() {
			x.blame("%s: id %d stood for %q and came again as %v %s", d.name, p.ID, was, p, p.Payload)
		}
		return mq.Ack{Type: mq.PUBREC, ID: p.ID}, nil
	})
}

// hand hands on what has come: the next of the inbox. At QoS 1 what was not
// acknowledged may come again, and says so.
func (d *device) hand(x *correspondence, p *mq.Packet) {
	var l letter
	if err := l.read(p); err != nil {
		x.blame("%s: %v", d.name, err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch due := len(d.got) + 1; {
	case p.Topic == d.inbox && l.ISeq == due:
		d.got = append(d.got, l)
	case p.QoS() == 1 && p.Dup() && l.ISeq > 0 && l.ISeq < due && d.got[l.ISeq-1] == l:
		d.repeats++
	default:
		x.blame("%s: got %v %s where %d was due", d.name, p, p.Payload, due)
	}
}

// A thousand messages come to one inbox in the order in which they were sent,
// each once, to each of two devices, through two deaths of the only node; with
// those of another sender in between, in the same order at both.
func TestS27OrderThroughDeath(t *testing.T) {
	t.Parallel()
	underSeeds(t, 27, func(t *testing.T, rng *rand.Rand) {
		correspond(t,
			&writer{who: alice, inbox: bobsInbox, qos: 2, total: 1000},
			&writer{who: carol, inbox: bobsInbox, qos: 1, total: 300},
		).run(rng, 0, 3)
	})
}

// Two people with two devices each send each other a thousand messages through
// deaths of the server: by QoS 2 each device has each exactly once, by QoS 1
// once for each place in the inbox, in the inbox's order.
func TestMessagesBetweenTwoThroughKills(t *testing.T) {
	t.Parallel()
	underSeeds(t, 28, func(t *testing.T, rng *rand.Rand) {
		correspond(t,
			&writer{who: alice, inbox: bobsInbox, qos: 2, total: 1000},
			&writer{who: bob, inbox: alicesInbox, qos: 2, total: 1000},
		).run(rng, 0, 1, 2, 4)
	})
}
