package broker

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// A plainDelayed is an event that waits for its time.
type plainDelayed struct {
	number            uint64 // its place in the log
	due               int64
	client, principal string
	event             plainEvent // expires is how long after at
}

func (d *plainDelayed) String() string {
	e := d.event
	return fmt.Sprint(d.number, d.due, d.client, d.principal, e.topic, e.payload, e.qos, e.retain, e.at, e.expires, e.origin)
}

// owner is whose it is: its publisher's principal, or the client of one who has none.
func (d *plainDelayed) owner() string {
	if d.principal == "" {
		return "\x00" + d.client
	}
	return d.principal
}

func (d *plainDelayed) size() uint64 {
	return uint64(len(d.event.topic) + len(d.event.payload) + len(d.client) + len(d.principal) + len(d.owner()) + 32)
}

// delaying has a policy let that much wait.
func delaying(r *rules, l DelayLimits) *rules {
	r.delay = l
	return r
}

// delay keeps an event until its time.
func (p *plain) delay(e plainEvent, s *plainSession) error {
	text, to, _ := strings.Cut(strings.TrimPrefix(e.topic, "$delayed/"), "/")
	delay, err := strconv.ParseUint(text, 10, 32)
	limits := DelayLimits{}.WithDefaults()
	if p.policy != nil {
		limits = p.policy.delay.WithDefaults()
	}
	if err != nil || to == "" || to[0] == '$' || delay > limits.Longest || p.policy == nil {
		return ErrRefused
	}
	d := &plainDelayed{number: p.here(), due: p.now + int64(delay)*1e9, client: s.client, principal: s.principal, event: e}
	d.event.topic = to
	var events, bytes, ownEvents, ownBytes, nobodys, nobodysBytes uint64
	for _, other := range p.delayed {
		events, bytes = events+1, bytes+other.size()
		if other.principal == "" {
			nobodys, nobodysBytes = nobodys+1, nobodysBytes+other.size()
		}
		if other.owner() == d.owner() {
			ownEvents, ownBytes = ownEvents+1, ownBytes+other.size()
		}
	}
	if events >= limits.Events || bytes+d.size() > limits.Bytes || ownEvents >= limits.OwnerEvents || ownBytes+d.size() > limits.OwnerBytes {
		return ErrRefused
	}
	if s.principal == "" && (nobodys >= limits.Events/2 || nobodysBytes+d.size() > limits.Bytes/2) {
		return ErrRefused // the other half is for those who have a name
	}
	p.delayed = append(p.delayed, d)
	return nil
}

// undelay takes an event back, if it waits and is of that owner.
func (p *plain) undelay(c *event.Undelay) error {
	for i, d := range p.delayed {
		if d.number == c.Number && d.owner() == c.Owner {
			p.delayed = slices.Delete(p.delayed, i, i+1)
			return nil
		}
	}
	return ErrRefused
}

// delayedWakes returns when events that wait are published.
func (p *plain) delayedWakes() (list []plainWake) {
	for _, d := range p.delayed {
		id := string(binary.BigEndian.AppendUint64(nil, d.number)) + "\x00\x00\x00\x00\x00\x00\x00\x00"
		list = append(list, plainWake{d.due, wakeDelayed, id, func() { p.publishDelayed(d) }})
	}
	return list
}

func (p *plain) publishDelayed(d *plainDelayed) {
	p.delayed = slices.DeleteFunc(p.delayed, func(other *plainDelayed) bool { return other == d })
	e := d.event
	if p.policy == nil || !p.policy.Decide(Who{d.principal, d.client}, ActPublish, e.topic, p.now).Allow {
		p.delayedRefused++
		return
	}
	p.delayedPublished++
	if e.expires != 0 {
		e.expires += p.now - e.at
	}
	e.at, e.client, e.principal = p.now, d.client, d.principal
	if s := p.sessions[d.client]; s != nil && s.principal == d.principal {
		e.origin = s.number
	}
	p.publishDue(e)
}

// delay has a publication be of a delayed event, now and then.
func (r *modelRun) delay(e *event.Event) {
	if r.rng.IntN(5) > 0 || r.plain.level < LevelDelayed && r.rng.IntN(4) > 0 {
		return // below the level it is a topic like any
	}
	e.Topic = fmt.Sprintf("$delayed/%d/%s", pick(r.rng, 0, 1, 20, 600, 3600, 7200, 7201), e.Topic)
}

// undelay takes back an event that waits, or one that does not, or is another's.
func (r *modelRun) undelay() *event.Undelay {
	c := &event.Undelay{Owner: pick(r.rng, "alice@a", "bob@b"), Number: r.rng.Uint64N(event.EndOf(r.index))}
	if len(r.plain.delayed) > 0 && r.rng.IntN(9) > 0 {
		d := pick(r.rng, r.plain.delayed...)
		c.Number = d.number
		if r.rng.IntN(5) > 0 {
			c.Owner = d.owner()
		}
	}
	return c
}

// compareDelayed compares what waits, how it is counted, and what has become of it.
func (r *modelRun) compareDelayed() {
	var got, want []string
	uses := map[string]delayUse{}
	names := map[string]bool{}
	r.main.store.Scan([]byte{byte(store.Delayed), 1}, []byte{byte(store.Delayed), 2}, func(k, v []byte) bool {
		var d delayedEvent
		must(r.t, d.decode(v))
		one := plainDelayed{store.Uint64At(k, 2), d.due, d.client, d.principal, plainOf(&d.event)}
		got = append(got, one.String())
		names[d.name] = true
		return true
	})
	for _, d := range r.plain.delayed { // as they came
		want = append(want, d.String())
		u := uses[d.owner()]
		uses[d.owner()] = delayUse{u.events + 1, u.bytes + d.size()}
	}
	if !slices.Equal(got, want) || len(names) != len(got) {
		r.t.Errorf("by %d names wait\n%s, want\n%s", len(names), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, u := range []*machineUnderTest{r.main, r.twin, r.faulty, r.copied} {
		if u == nil {
			continue
		}
		counted := map[string]delayUse{}
		for owner, use := range u.delayed.of {
			counted[owner] = *use
		}
		if !maps.Equal(counted, uses) {
			r.t.Errorf("what waits is counted %v, want %v", counted, uses)
		}
	}
	r.compareOutcomes()
}

// compareOutcomes compares how many events were published when their time had come, and
// how many were refused then.
func (r *modelRun) compareOutcomes() {
	var published, refused uint64
	for _, a := range r.main.steps {
		published += a.delayedPublished
		refused += a.delayedRefused
	}
	if published != r.plain.delayedPublished || refused != r.plain.delayedRefused {
		r.t.Errorf("%d delayed events are published and %d refused, want %d and %d", published, refused, r.plain.delayedPublished, r.plain.delayedRefused)
	}
	r.delayed += published
}

// undelayAll takes back all that waits: nothing is left of it.
func (r *modelRun) undelayAll() {
	b := r.newLife("n1")
	for _, d := range r.plain.delayed {
		b = event.AppendCommand(b, &event.Undelay{Owner: d.owner(), Number: d.number})
	}
	r.applyAll(b)
	if keys := keysOf(r.main.store, store.Delayed); len(keys) > 0 || r.main.delayed.all != (delayUse{}) {
		r.t.Errorf("%d keys are left of events that are taken back, and counted are %+v", len(keys), r.main.delayed.all)
	}
}

// A deviceDelayed is an event of a deliveryRun that waits for its time, by its payload.
type deviceDelayed struct {
	text string
	due  time.Time
	emitted
}

// delay publishes an event that is to come some hours later.
func (r *deliveryRun) delay() {
	r.rest()
	hours := 1 + r.rng.IntN(12)
	e := emitted{topic: pick(r.rng, "plain/a", "plain/b", "win/a"), qos: pick[uint8](r.rng, 0, 1, 1, 2, 2)}
	r.named++
	d := deviceDelayed{fmt.Sprint("delayed ", r.named), r.n.clock.now().Add(time.Duration(hours) * time.Hour), e}
	r.note("publishes %q to %s, QoS %d, in %d hours", d.text, e.topic, e.qos, hours)
	if err := r.pub.publishID(uint16(60_000+r.named), fmt.Sprintf("$delayed/%d/%s", hours*3600, e.topic), d.text, e.qos); err != nil {
		r.fault("publish: %v", err)
	}
	r.waiting = append(r.waiting, d)
}

// fallDue makes events of what will have come when the clock has moved to at: in the
// order of their times, and among equals in that in which they were published.
func (r *deliveryRun) fallDue(at time.Time) {
	slices.SortStableFunc(r.waiting, func(a, b deviceDelayed) int { return a.due.Compare(b.due) })
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.waiting) > 0 && !r.waiting[0].due.After(at) {
		d := r.waiting[0]
		r.waiting = r.waiting[1:]
		d.excused = d.qos == 0
		r.came[d.text] = len(r.events)
		r.log = append(r.log, fmt.Sprintf("%q is event %d", d.text, len(r.events)))
		r.events = append(r.events, d.emitted)
	}
}

// eventOf returns which event has a payload.
func (r *deliveryRun) eventOf(payload string) int {
	if text := strings.TrimLeft(payload, "x"); !strings.HasPrefix(text, "delayed ") {
		k, err := strconv.Atoi(text)
		if err != nil {
			r.t.Fatal(err)
		}
		return k
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k, due := r.came[payload]
	if !due {
		r.faults = append(r.faults, payload+" comes before its time")
	}
	return k
}
