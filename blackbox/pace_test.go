package blackbox

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A pace says when each event of a publisher is due: an open loop. It does not wait
// for anything: what cannot be sent when it is due, for want of a node or of
// acknowledgements, is sent as soon as it can be, and how late all of it was is
// counted from when it was due.
type pace struct {
	every time.Duration
	began time.Time

	mu    sync.Mutex
	last  int64 // none is due after this one; 0: there is no end yet
	late  int   // sent later than lateAfter after they were due
	waits waits
}

// lateAfter is how much later than due an event may be sent without being counted:
// more than a busy machine needs to wake us.
const lateAfter = 100 * time.Millisecond

// due is the number of the last event that is due.
func (p *pace) due(now time.Time) int64 {
	n := int64(now.Sub(p.began)/p.every) + 1
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last > 0 {
		n = min(n, p.last)
	}
	return n
}

// at is when event n is due.
func (p *pace) at(n int64) time.Time { return p.began.Add(time.Duration(n-1) * p.every) }

// end lets no more become due.
func (p *pace) end() {
	n := p.due(time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = n
}

// sent notes that event n is sent for the first time.
func (p *pace) sent(n int64, now time.Time) {
	if now.Sub(p.at(n)) > lateAfter {
		p.mu.Lock()
		p.late++
		p.mu.Unlock()
	}
}

// acked notes that event n is acknowledged.
func (p *pace) acked(n int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits.add(now.Sub(p.at(n)))
}

// Waits count how long things took, by milliseconds up to a minute.
type waits struct {
	by    [60_001]int
	total int
}

func (w *waits) add(d time.Duration) {
	w.by[min(max(d.Milliseconds(), 0), int64(len(w.by)-1))]++
	w.total++
}

// merge adds what another counted.
func (w *waits) merge(o *waits) {
	for ms, n := range o.by {
		w.by[ms] += n
	}
	w.total += o.total
}

// quantile is how long q of all took at most, 0 < q <= 1.
func (w *waits) quantile(q float64) time.Duration {
	left := int(q * float64(w.total))
	for ms, n := range w.by {
		if left -= n; left <= 0 && n > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return 0
}

// newPacedLoad is a load of rate events a second at QoS 1, of pacedPublishers, and
// of a publisher at QoS 2 beside them. What it holds is exact: as many are sent as
// are due.
func newPacedLoad(t testing.TB, s *server, rate int64) *load {
	t.Helper()
	l := newLoad(t, s, 0)
	for i := range pacedPublishers + 1 {
		p := &publisher{id: fmt.Sprint("p", i), place: int32(i), topic: fmt.Sprint("load/", i%2), qos: 1}
		p.pace = &pace{every: time.Second * pacedPublishers / time.Duration(rate)}
		if i == pacedPublishers {
			p.qos, p.pace.every = 2, time.Second/slowRate
		}
		l.publishers = append(l.publishers, p)
	}
	l.subscribers = nil
	for i := range 2 {
		l.subscribers = append(l.subscribers, l.subscriber(s, fmt.Sprint("s", i), 500))
	}
	return l
}

const (
	pacedPublishers = 6   // at QoS 1; in a cluster two begin at each node
	slowRate        = 20  // events a second of the one at QoS 2, whose exchanges take turns
	pacedWindow     = 200 // under way at most; a server takes 256
)

// keepPace publishes over one connection what is due.
func (p *publisher) keepPace(l *load) error {
	c, _, err := l.connect(durable(v5, p.id))
	if err != nil {
		return err
	}
	defer c.Close()
	if p.released { // a PUBLISH now would be a new message
		if err := p.release(c); err != nil {
			return err
		}
		p.pace.acked(p.acked.Load(), time.Now())
	}
	sent, heard := p.acked.Load(), time.Now()
	for {
		now := time.Now()
		if sent, err = p.sendDue(c, sent, now); err != nil {
			return err
		}
		if p.stopped.Load() && sent == p.acked.Load() && sent >= p.pace.due(time.Now()) {
			return nil
		}
		if sent == p.acked.Load() {
			heard = now // nothing is awaited
		}
		if now.Sub(heard) > mq.Patience {
			return fmt.Errorf("nothing acknowledged for %v", mq.Patience)
		}
		switch err := p.awaitUntil(c, p.nextLook(sent, now)); {
		case err == nil:
			heard = time.Now()
		case errors.Is(err, errRefused):
			p.refuse()
			return err
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
}

// sendDue sends in one write what is due and has room, and returns up to where.
func (p *publisher) sendDue(c *mq.Conn, sent int64, now time.Time) (int64, error) {
	var all []mq.Message
	for due := p.pace.due(now); sent < due && sent-p.acked.Load() < pacedWindow; {
		sent++
		if sent > p.highest {
			p.pace.sent(sent, now)
		}
		all = append(all, p.message(sent))
	}
	if all == nil {
		return sent, nil
	}
	return sent, c.Write(all...)
}

// nextLook is how long to wait for an acknowledgement before it is time to see
// whether there is more to send.
func (p *publisher) nextLook(sent int64, now time.Time) time.Duration {
	if sent-p.acked.Load() >= pacedWindow {
		return time.Second
	}
	return min(max(p.pace.at(sent+1).Sub(now), time.Millisecond), time.Second)
}

// awaitUntil waits so long for the next number to be through, and takes all that
// have come by then. At QoS 2 it takes one: each has to be released first, and what is
// due meanwhile does not wait for that of all.
func (p *publisher) awaitUntil(c *mq.Conn, within time.Duration) error {
	for {
		if err := p.awaitAck(c, within); err != nil {
			return err
		}
		p.pace.acked(p.acked.Load(), time.Now())
		if p.qos == 2 || !c.Waits() {
			return nil
		}
	}
}

// catchUp waits until all that was sent is acknowledged, and all that was due of a
// paced load: then it was held.
func (l *load) catchUp() {
	l.t.Helper()
	for _, p := range l.publishers {
		until(l.t, fmt.Sprintf("%s was acknowledged all that was due", p.id), 60*time.Second, func() bool {
			acked := p.acked.Load()
			return acked >= p.sent.Load() && (p.pace == nil || acked >= p.pace.due(time.Now()))
		})
	}
}

// tellPace says how a paced load was held.
func (l *load) tellPace() {
	l.t.Helper()
	var all waits
	rate, late := 0.0, 0
	lasted := time.Duration(0)
	for _, p := range l.publishers {
		if p.pace == nil {
			continue
		}
		all.merge(&p.pace.waits)
		late += p.pace.late
		rate += float64(time.Second) / float64(p.pace.every)
		lasted = p.pace.at(p.pace.last).Sub(p.pace.began)
	}
	if all.total == 0 {
		return
	}
	l.t.Logf("%.0f events a second for %v: %d, %d of them sent more than %v late; acknowledged after they were due: %v at the median, p99 %v, at most %v",
		rate, lasted.Round(time.Second), all.total, late, lateAfter, all.quantile(0.5), all.quantile(0.99), all.quantile(1))
}

// sameOrder wants that the events of each topic came in one order to both.
func (s *subscriber) sameOrder(o *subscriber) {
	for topic, mine := range s.order {
		theirs := o.order[topic]
		if len(mine) != len(theirs) {
			s.load.t.Errorf("%s: %d events for %s, %d for %s", topic, len(mine), s.id, len(theirs), o.id)
		}
		for i := range min(len(mine), len(theirs)) {
			if mine[i] != theirs[i] {
				s.load.t.Errorf("%s: the %dth event is %v for %s and %v for %s", topic, i, mine[i], s.id, theirs[i], o.id)
				break
			}
		}
	}
}
