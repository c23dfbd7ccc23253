package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// Delayed events: what is published to $delayed/{seconds}/{topic} is published to the topic
// after so many seconds, as EMQX has it.
//
// The event takes the log whatever its QoS, and is acknowledged when it is there, so that it
// outlives its publisher, this node, and leaders. By the log's time a wake publishes it,
// once, as if it came from its publisher then: with its properties and retain flag, to whom
// the policy lets see it at that time. Whether its publisher may publish to the topic is
// asked when it comes, and by the logged policy when its time has come, as of wills.
//
//   - A Message Expiry Interval begins when it is published to its topic: until then it waits
//     because it was asked to, and the interval is about how long it is of use after that.
//   - Of what is due at once the order is that in which it came, and as much of it is
//     published with one entry as the budget allows.
//   - Its publisher's subscriptions with No Local do not have it, also those of a session that
//     the client has begun since.
//   - What profiles serve cannot be delayed: what a device says of itself is about now, and
//     a profile judges what is published on the node that it comes in by.
//   - Its owner is its publisher's principal; of who has none, the client. Who is removed
//     from the policy loses what waits, as sessions and wills are lost.
//
// Bounds are the policy's, for they decide how commands are applied: see DelayLimits. The
// loser is the publication that comes.
//
// Keys, below store.Delayed:
//
//	1, number              → the event: see delayedEvent
//	2, owner, NUL, number  → uvarint size: what is counted, and found by who it is of
//
// The number is the event's place in the log; who asks is told a name that is made of it
// with the cluster's secret.

// delayedTree begins the topics of delayed events.
const delayedTree = "$delayed/"

// MaxDelay is the longest delay there can be, in seconds: 49 days and 17 hours.
const MaxDelay = 4294967

// ErrNoDelayed means that no event waits under a name.
var ErrNoDelayed = errors.New("no such event waits")

// IsDelayed says whether a topic is that of a delayed event.
func IsDelayed(topicName string) bool { return strings.HasPrefix(topicName, delayedTree) }

// DelayLimits bound what waits for its time. 0 of any field means its default.
type DelayLimits struct {
	Longest uint64 // seconds: MaxDelay

	// In all: 1,000,000 events and 1 GiB, of which half is for clients that have no principal,
	// all together; of one owner: 10,000 and 64 MiB.
	Events, Bytes           uint64
	OwnerEvents, OwnerBytes uint64
}

// WithDefaults returns l with its zero fields replaced.
func (l DelayLimits) WithDefaults() DelayLimits {
	def(&l.Longest, MaxDelay)
	def(&l.Events, 1_000_000)
	def(&l.Bytes, 1<<30)
	def(&l.OwnerEvents, 10_000)
	def(&l.OwnerBytes, 64<<20)
	return l
}

// A delayer is an Authorizer that bounds what waits.
type delayer interface{ Delays() DelayLimits }

// delayLimits are those of a policy.
func delayLimits(policy Authorizer) DelayLimits {
	if d, ok := policy.(delayer); ok {
		return d.Delays().WithDefaults()
	}
	return DelayLimits{}.WithDefaults()
}

// delayed is what the Machine knows of events that wait. It follows from the store, but for
// gone.
type delayed struct {
	limits DelayLimits
	of     map[string]*delayUse // by owner
	all    delayUse
	nobody delayUse            // of owners without a principal, who name themselves
	gone   map[uint64]struct{} // numbers that this entry has removed: its Tx cannot be read

	// all, for other goroutines.
	events, bytes atomic.Int64
}

type delayUse struct{ events, bytes uint64 }

func (d *delayed) adopt(policy Authorizer) { d.limits = delayLimits(policy) }

// add counts one event more, or less if sign is negative.
func (d *delayed) add(owner string, size uint64, sign int) {
	u := d.of[owner]
	if u == nil {
		u = new(delayUse)
		d.of[strings.Clone(owner)] = u
	}
	uses := [...]*delayUse{u, &d.all, &d.nobody}
	if !isNobody(owner) {
		uses[2] = new(delayUse)
	}
	for _, u := range uses {
		u.events += uint64(sign)
		u.bytes += uint64(sign) * size
	}
	if u.events == 0 {
		delete(d.of, owner)
	}
	d.events.Store(int64(d.all.events))
	d.bytes.Store(int64(d.all.bytes))
}

// waits says whether events wait of r's owner, r's own perhaps among them.
func (d *delayed) waits(r *record) bool { return d.of[ownerOf(r.principal, r.client)] != nil }

// room refuses an event more of that size.
func (d *delayed) room(owner string, size uint64) error {
	u := d.of[owner]
	if u == nil {
		u = new(delayUse)
	}
	switch {
	case u.events >= d.limits.OwnerEvents || u.bytes+size > d.limits.OwnerBytes:
		return &Refusal{Cause: ErrQuota, Reason: "as much of yours waits for its time as may"}
	case isNobody(owner) && (d.nobody.events >= d.limits.Events/2 || d.nobody.bytes+size > d.limits.Bytes/2):
		return &Refusal{Cause: ErrQuota, Reason: "as much of clients without a name waits for its time as may: the other half is for those who have one"}
	case d.all.events >= d.limits.Events || d.all.bytes+size > d.limits.Bytes:
		return &Refusal{Cause: ErrQuota, Reason: "as much waits for its time as may"}
	}
	return nil
}

// parseDelayed returns of the topic of a delayed event the delay, in seconds, and the topic
// that it is for.
func parseDelayed(topicName string) (delay uint64, to string, err error) {
	text, to, _ := strings.Cut(strings.TrimPrefix(topicName, delayedTree), "/")
	bad := func(why string) error { return &Refusal{Cause: ErrTopicName, Reason: why} }
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, "", bad("want $delayed/SECONDS/TOPIC, of whole seconds")
	}
	switch {
	case to == "":
		return 0, "", bad("want $delayed/SECONDS/TOPIC: there is no topic")
	case to[0] == '$':
		return 0, "", bad("topics that begin with $ take no delayed events")
	}
	if err := topic.ValidName(to); err != nil {
		return 0, "", bad(err.Error())
	}
	delay, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		delay = math.MaxUint64
	}
	return delay, to, nil
}

// checkDelay is what a publication to a topic of delayed events is held to: the same where
// it comes in, and where it is applied.
func checkDelay(profiles map[string]Profile, limits DelayLimits, topicName string) (delay uint64, to string, err error) {
	delay, to, err = parseDelayed(topicName)
	switch {
	case err != nil:
		return 0, "", err
	case profileFor(profiles, to) != nil:
		return 0, "", &Refusal{Cause: ErrBadEvent, Reason: "what its owner's subscribers are shown is about now: it cannot be delayed"}
	case delay > min(limits.Longest, MaxDelay):
		return 0, "", &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("a delay is of %d seconds at most", min(limits.Longest, MaxDelay))}
	}
	return delay, to, nil
}

// mayDelay says whether what has such a topic may be published: by what the policy says of
// the topic that it is for.
func (s *Session) mayDelay(topicName string, now int64) error {
	if s.b.Level() < LevelDelayed {
		return &Refusal{Cause: ErrBadEvent, Reason: "events are delayed once all nodes of the cluster know how"}
	}
	_, to, err := checkDelay(s.b.machine.profiles, delayLimits(s.b.Policy()), topicName)
	if err != nil {
		return err
	}
	return s.mayPublish(to, now)
}

// A delayedEvent is one as it is stored:
//
//	version u8 | due 8 bytes | client, principal, name, with their lengths in front | event
//
// Its topic is that which it is for; Expires, if it has an expiry, is how long after At.
type delayedEvent struct {
	due                     int64
	client, principal, name string
	event                   event.Event
}

func (d *delayedEvent) append(b []byte) []byte {
	b = store.AppendUint64(append(b, recordVersion), uint64(d.due))
	b = store.AppendName(store.AppendName(store.AppendName(b, d.client), d.principal), d.name)
	return d.event.Append(b)
}

// decode reads what append has written. What it holds of the event aliases b.
func (d *delayedEvent) decode(b []byte) error {
	if len(b) < 9 || b[0] != recordVersion {
		return event.ErrDamaged
	}
	d.due = int64(store.Uint64At(b, 1))
	rest, ok := b[9:], true
	for _, to := range [...]*string{&d.client, &d.principal, &d.name} {
		if *to, rest, ok = cutName(rest); !ok {
			return event.ErrDamaged
		}
	}
	return d.event.Decode(rest)
}

// ownerOf returns whose the events of a client are. No principal begins with a NUL: what
// follows it is a client's name, and tells of no domain, whatever it looks like.
func ownerOf(principal, client string) string {
	if principal == "" {
		return "\x00" + client
	}
	return principal
}

// isNobody says whether an owner is a client without a principal.
func isNobody(owner string) bool { return strings.HasPrefix(owner, "\x00") }

func delayedKey(buf []byte, number uint64) []byte {
	return store.AppendUint64(append(store.Key(buf, store.Delayed), 1), number)
}

func delayedOf(owner string) []byte {
	return store.AppendName([]byte{byte(store.Delayed), 2}, owner)
}

func delayedOfKey(owner string, number uint64) []byte {
	return store.AppendUint64(delayedOf(owner), number)
}

func (m *Machine) loadDelayed() error {
	d := &m.delayed
	d.of, d.all, d.nobody, d.gone = map[string]*delayUse{}, delayUse{}, delayUse{}, map[uint64]struct{}{}
	d.events.Store(0)
	d.bytes.Store(0)
	if m.policy == nil {
		d.adopt(nil)
	}
	var damaged error
	lower := []byte{byte(store.Delayed), 2}
	m.store.Scan(lower, store.End(lower), func(key, value []byte) bool {
		owner, rest, ok := cutName(key[2:])
		size, n := binary.Uvarint(value)
		if !ok || len(rest) != 8 || n != len(value) {
			damaged = fmt.Errorf("machine: delayed events: %w", event.ErrDamaged)
			return false
		}
		d.add(owner, size, 1)
		if !isNobody(owner) {
			m.domains.of(owner).add(useDelayed, 1)
		}
		return true
	})
	return damaged
}

// delay keeps an event until its time.
func (m *Machine) delay(e *event.Event, r *record) error {
	seconds, to, err := checkDelay(m.profiles, m.delayed.limits, e.Topic)
	if err != nil {
		return err
	}
	if m.policy == nil {
		return &Refusal{Reason: noPolicy}
	}
	owner, use := ownerOf(r.principal, r.client), m.domains.of(r.principal)
	// The names are kept, too, the owner's once more in the key: who chooses long ones pays for them.
	size := uint64(len(to) + len(e.Payload) + len(e.Props) + len(r.client) + len(r.principal) + len(owner) + 32)
	if err := m.delayed.room(owner, size); err != nil {
		return err
	}
	if err := use.room(useDelayed, 1); err != nil {
		return err
	}
	number := m.here()
	d := delayedEvent{due: m.now + int64(seconds)*1e9, client: r.client, principal: r.principal, event: event.Event{
		Topic: to, Payload: e.Payload, Props: e.Props, QoS: e.QoS, Retain: e.Retain, At: e.At, Expires: e.Expires, Origin: e.Origin,
	}}
	d.name = m.secret.Name("delayed event", number)
	m.tx.Set(delayedKey(m.key, number), d.append(m.val[:0]))
	m.tx.Set(delayedOfKey(owner, number), binary.AppendUvarint(nil, size))
	m.setWake(d.due, wakeDelayed, number, 0)
	m.delayed.add(owner, size, 1)
	use.add(useDelayed, 1)
	return nil
}

// takeDelayed removes an event that waits, and returns it; nil if there is none.
func (m *Machine) takeDelayed(number uint64) *delayedEvent {
	value, ok := m.store.Get(delayedKey(nil, number), nil)
	if _, gone := m.delayed.gone[number]; !ok || gone {
		return nil
	}
	d := new(delayedEvent)
	if err := d.decode(value); err != nil {
		panic(fatal{"delayed event: " + err.Error()})
	}
	owner := ownerOf(d.principal, d.client)
	key := delayedOfKey(owner, number)
	value, _ = m.store.Get(key, nil)
	size, _ := binary.Uvarint(value)
	m.delayed.gone[number] = struct{}{}
	m.tx.Delete(delayedKey(m.key, number))
	m.tx.Delete(key)
	m.tx.Delete(wakeKey(m.key, d.due, wakeDelayed, number, 0))
	m.delayed.add(owner, size, -1)
	use := m.domains.of(d.principal)
	use.add(useDelayed, -1)
	m.domains.prune(use)
	return d
}

// publishDelayed publishes an event whose time has come.
func (m *Machine) publishDelayed(number uint64) {
	d := m.takeDelayed(number)
	if d == nil || m.bare {
		return
	}
	who := Who{Principal: d.principal, Client: d.client}
	if m.policy == nil || profileFor(m.profiles, d.event.Topic) != nil ||
		!decideFor(m.profiles, m.read, m.policy, who, ActPublish, d.event.Topic, m.now).Allow {
		m.out.delayedRefused++
		return
	}
	e := m.out.newEvent()
	e.Topic, e.Payload, e.Props, e.QoS, e.Retain = d.event.Topic, d.event.Payload, d.event.Props, d.event.QoS, d.event.Retain
	e.At, e.Origin, e.Client, e.Principal = m.now, m.originOf(d), d.client, d.principal
	if d.event.Expires != 0 {
		e.Expires = m.now + d.event.Expires - d.event.At
	}
	queued := len(m.out.queued)
	m.publishDue(e)
	m.spend(len(m.out.queued) - queued)
	m.out.delayedPublished++
}

// originOf returns the session that an event comes from when its time has come: its client's
// of then, which may have begun since. No Local is of the client (5.0 [MQTT-3.8.3-3]).
func (m *Machine) originOf(d *delayedEvent) uint64 {
	if r := m.sessions[d.client]; r != nil && r.principal == d.principal {
		return r.session
	}
	return d.event.Origin
}

// applyUndelay takes an event back.
func (m *Machine) applyUndelay(c *event.Undelay) error {
	_, ok := m.store.Get(delayedOfKey(c.Owner, c.Number), nil)
	if _, gone := m.delayed.gone[c.Number]; !ok || gone {
		return &Refusal{Cause: ErrNoDelayed, Reason: "it was published, or taken back"}
	}
	m.takeDelayed(c.Number)
	return nil
}

// undelayAll takes back what waits of somebody whom the policy does not know any more: as much
// as this entry may, so that none of it that is due is published before its turn to go.
func (m *Machine) undelayAll(owner string) {
	if p, ok := m.policy.(knower); !ok || !gone(p, owner) {
		return // he is back
	}
	var numbers []uint64
	most := max(1, m.budget.until-m.budget.spent)
	m.store.Scan(delayedOf(owner), store.End(delayedOf(owner)), func(key, _ []byte) bool {
		numbers = append(numbers, store.Uint64At(key, len(key)-8))
		return len(numbers) < most
	})
	for _, number := range numbers {
		m.takeDelayed(number)
		m.out.delayedRefused++
	}
	m.spend(len(numbers))
	if len(numbers) == most {
		m.setWakeName(beforeAllDue, wakeUndelay, owner)
	}
}

// DelayedCount returns how many events wait for their time, and what they are counted as, in
// bytes. For any goroutine.
func (b *Broker) DelayedCount() (events, bytes int64) {
	return b.machine.delayed.events.Load(), b.machine.delayed.bytes.Load()
}

// A Delayed is an event that waits for its time.
type Delayed struct {
	Name              string // that it is taken back by
	Topic             string // that it is for
	Client, Principal string // who has published it
	Due               int64  // log time, unix nanoseconds
	QoS               uint8
	Retain            bool
	Size              int // of the payload, bytes

	number uint64
}

// DelayedEvents calls yield with what waits, as this node has it, until yield returns false: of
// principal, in the order in which it came; of all if principal is empty, by whose it is. It begins
// behind the event that after is of (AfterDelayed), also if that does not wait any more; an empty
// one begins the list. A *Refusal with ErrTopicName says that after is none of this list's. For any
// goroutine.
func (b *Broker) DelayedEvents(principal, after string, yield func(Delayed) bool) error {
	place, err := b.cursors.open(Who{Principal: principal}, delayedTree, after)
	if err != nil {
		return err
	}
	lower := []byte{byte(store.Delayed), 2}
	if principal != "" {
		lower = delayedOf(principal)
	}
	upper := store.End(lower)
	if place != "" {
		lower = append(bytes.Clone(lower[:2]), place...)
	}
	s := b.config.Store
	s.Scan(lower, upper, func(key, _ []byte) bool {
		number := store.Uint64At(key, len(key)-8)
		value, ok := s.Get(delayedKey(nil, number), nil)
		var d delayedEvent
		if !ok || d.decode(value) != nil {
			return true // it has been published meanwhile
		}
		return yield(Delayed{
			Name: d.name, Topic: d.event.Topic, Client: d.client, Principal: d.principal, Due: d.due, QoS: d.event.QoS, Retain: d.event.Retain,
			Size: len(d.event.Payload), number: number,
		})
	})
	return nil
}

// AfterDelayed returns where the list of principal's, or of all if that is empty, goes on behind
// an event of it: for DelayedEvents of this node, as long as it runs. It is a place in the list,
// not the event's name, for the event may be gone by then.
func (b *Broker) AfterDelayed(principal string, d Delayed) string {
	// A key that is one byte longer is the next there can be. The byte is not 0, which a cursor does not keep.
	next := append(delayedOfKey(ownerOf(d.Principal, d.Client), d.number), 1)
	return b.cursors.seal(Who{Principal: principal}, delayedTree, string(next[2:]))
}

// Undelay takes back an event that waits, by its name: one of principal's; anybody's if
// principal is empty. It returns what it was when it will not be published. ErrNoDelayed means that there is none, any more.
func (b *Broker) Undelay(ctx context.Context, principal, name string) (d Delayed, err error) {
	found := false
	if err := b.DelayedEvents(principal, "", func(one Delayed) bool {
		d, found = one, one.Name == name
		return !found
	}); err != nil {
		return Delayed{}, err
	}
	if !found {
		return Delayed{}, fmt.Errorf("%w: it was published, or taken back, or is not yours", ErrNoDelayed)
	}
	return d, b.do(ctx, &event.Undelay{Owner: ownerOf(d.Principal, d.Client), Number: d.number})
}
