package bench

import (
	"fmt"
	"time"
)

// RetainedFigures is what it costs to set many retained messages and to give
// them all to one new subscriber.
type RetainedFigures struct {
	Messages int
	SetCPU   time.Duration   // the broker's CPU time for one message set
	SetTime  time.Duration   // until all were acknowledged
	Fetches  []time.Duration // from SUBSCRIBE to the last message, once for each subscriber
	FetchCPU time.Duration   // the broker's CPU time for one message fetched
	Missing  uint64          // over all fetches, like the following
	Repeated uint64
	Wrong    uint64 // not what was set, or without the RETAIN flag
}

const (
	retainedPublishers = 8
	retainedFetches    = 3
	retainedGroups     = 1000 // second level of the topics
)

// retained is a running retained row.
type retained struct {
	Load
	*loop
	pubs    []*retainer
	fetcher *conn
	seen    []bool
	got     int // different ones, by the present fetcher
	last    int64
	figures RetainedFigures
}

// A retainer sets every eighth message.
type retainer struct {
	*conn
	next    int // message
	ids     idSet
	unacked int
}

func retainedRow(order Load, l *loop) (Figures, error) {
	r := &retained{Load: order, loop: l}
	l.handle = r.packet
	r.figures.Messages = order.Scenario.Retained
	host0, err := readHost()
	if err != nil {
		return Figures{}, err
	}
	if err := r.set(); err != nil {
		return Figures{}, err
	}
	if err := r.fetchAll(); err != nil {
		return Figures{}, err
	}
	u, err := processes(order.pids())
	if err != nil {
		return Figures{}, err
	}
	host1, err := readHost()
	f := Figures{BrokerRSS: u.rss, Retained: &r.figures}
	f.HostBusy, f.HostSteal = host1.since(host0)
	return f, err
}

// set publishes all messages and waits until each is acknowledged.
func (r *retained) set() error {
	var cs []*conn
	for i := range retainedPublishers {
		p := &retainer{next: i}
		p.conn = &conn{version: r.Version, name: fmt.Sprintf("bench-r%d", i)}
		r.pubs, cs = append(r.pubs, p), append(cs, p.conn)
	}
	if err := r.open(cs, r.Setup); err != nil {
		return err
	}
	before, err := processes(r.pids())
	if err != nil {
		return err
	}
	began := r.now()
	if err := r.until(r.allSet, r.publish, "to acknowledge what is set"); err != nil {
		return err
	}
	r.figures.SetTime = time.Duration(r.now() - began)
	after, err := processes(r.pids())
	r.figures.SetCPU = (after.cpu() - before.cpu()) / time.Duration(r.figures.Messages)
	return err
}

func (r *retained) allSet() bool {
	for _, p := range r.pubs {
		if p.next < r.figures.Messages || p.unacked > 0 {
			return false
		}
	}
	return true
}

// publish fills every window.
func (r *retained) publish() error {
	now := r.now()
	for _, p := range r.pubs {
		for !p.blocked && p.next < r.figures.Messages && p.unacked < min(r.Window, p.window) {
			m := newTemplate(r.Version, retainedTopic(p.next), 1, true, r.Scenario.Payload)
			p.out = m.append(p.out, p.ids.take(), stamp{at: now, seq: uint64(p.next)})
			p.unacked++
			p.next += retainedPublishers
			r.touch(p.conn)
		}
	}
	return nil
}

func retainedTopic(i int) string { return fmt.Sprintf("r/X/%d/%d", i%retainedGroups, i) }

// fetchAll lets one subscriber after the other have them all.
func (r *retained) fetchAll() error {
	before, err := processes(r.pids())
	if err != nil {
		return err
	}
	fetched := 0
	for i := range retainedFetches {
		r.seen, r.got = make([]bool, r.figures.Messages), 0
		r.fetcher = &conn{version: r.Version, name: fmt.Sprintf("bench-f%d", i), filters: []string{"r/X/#"}, qos: r.Scenario.QoS}
		began := r.now()
		if err := r.open([]*conn{r.fetcher}, r.Setup); err != nil {
			return err
		}
		r.last = r.now()
		for r.got < r.figures.Messages && r.now()-r.last < int64(r.Stall) {
			if err := r.turn(turnWait, func() error { return nil }); err != nil {
				return err
			}
		}
		r.figures.Fetches = append(r.figures.Fetches, time.Duration(r.last-began))
		r.figures.Missing += uint64(r.figures.Messages - r.got)
		fetched += r.got
	}
	after, err := processes(r.pids())
	r.figures.FetchCPU = (after.cpu() - before.cpu()) / time.Duration(max(fetched, 1))
	return err
}

// until turns the loop until done; without an answer for the drain time it
// gives up.
func (r *retained) until(done func() bool, think func() error, what string) error {
	reads, since := r.reads, r.now()
	for !done() {
		if err := r.turn(turnWait, think); err != nil {
			return err
		}
		if r.reads != reads {
			reads, since = r.reads, r.now()
		}
		if r.now()-since > int64(r.Drain) {
			return fmt.Errorf("the broker takes more than %v %s", r.Drain, what)
		}
	}
	return nil
}

func (r *retained) packet(c *conn, first byte, body []byte) error {
	switch kind := first & 0xF0; {
	case kind == typePublish && c == r.fetcher: // may come before SUBACK
		return r.fetched(c, first, body)
	case !c.ready:
		return r.greet(c, first, body)
	case kind == typePuback && c.index < len(r.pubs):
		id, reason, err := parseAck(body)
		p := r.pubs[c.index]
		if err != nil || reason >= 0x80 || !p.ids.put(id) {
			return fmt.Errorf("%w: PUBACK of %d, reason 0x%02x", errFrame, id, reason)
		}
		p.unacked--
		return nil
	}
	return fmt.Errorf("%w: packet type %d", errFrame, first>>4)
}

func (r *retained) fetched(c *conn, first byte, body []byte) error {
	d, err := parsePublish(first, body, c.version)
	if err != nil {
		return err
	}
	if d.qos > 0 {
		c.out = appendAck(c.out, typePuback, d.id)
		r.touch(c)
	}
	if len(d.payload) != r.Scenario.Payload || first&1 == 0 {
		r.figures.Wrong++
		return nil
	}
	seq := readStamp(d.payload).seq
	if seq >= uint64(len(r.seen)) || string(d.topic) != retainedTopic(int(seq)) {
		r.figures.Wrong++
		return nil
	}
	if r.seen[seq] {
		r.figures.Repeated++
		return nil
	}
	r.seen[seq] = true
	r.got++
	r.last = r.at
	return nil
}

// fault says why the line does not count, or "" when it does.
func (f *RetainedFigures) fault() string {
	switch {
	case f.Wrong > 0:
		return "wrong retained messages"
	case f.Repeated > 0:
		return "repeated retained messages"
	case f.Missing > 0:
		return fmt.Sprintf("%d retained messages missing", f.Missing)
	}
	return ""
}

func (f *RetainedFigures) metrics() []metric {
	var ms []float64
	for _, d := range f.Fetches {
		ms = append(ms, micros(d)/1e3)
	}
	return []metric{
		{spreadOf(ms).median, "fetch-ms"},
		{micros(f.FetchCPU), "cpu-us/fetched"},
		{micros(f.SetCPU), "cpu-us/set"},
		{float64(f.Messages) / f.SetTime.Seconds(), "sets/s"},
		{float64(f.Missing), "missing"},
	}
}
