package broker

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What the broker tells of itself, below $SYS/.
//
// Each value is told as if it were retained: who subscribes is sent it at once, with RETAIN,
// and then whenever it has become another, looked at each so often. It is at QoS 0, and the
// log hears nothing of it, nor the store: a node tells its own clients what it is itself.
// What has the node's name in its topic other nodes' clients may have, too: it goes there by
// the links, to nodes where somebody subscribes to it, and is kept there for who subscribes
// next, as long as it is news.
//
// A value is read only if somebody here, or there, subscribes to its topic: so all of it
// costs a look at the topics each so often, and nothing on the path of an event.
//
// Who may read it is for the operator's policy to say; nobody may publish there.

// systemTree begins the topics of what the broker tells of itself.
const systemTree = "$SYS/"

// systemNodes begins those that other nodes' clients may have; the node's name comes next.
const systemNodes = systemTree + "bellwire/nodes/"

// isSystem says whether a name or filter lies below $SYS, where nobody publishes.
func isSystem(name string) bool {
	return strings.HasPrefix(name, systemTree) || name == systemTree[:len(systemTree)-1]
}

// errSystem is what somebody is told who publishes there, whom the policy lets.
var errSystem = &Refusal{Reason: "this is told by the broker, whatever the policy says: subscribe to it"}

// SystemTopic returns the topic below which a node tells what it is itself.
func SystemTopic(node string) string { return systemNodes + node + "/" }

// A SystemValue is one value that is told below $SYS/.
type SystemValue struct {
	Topic string

	// Read returns the value. It is called only while somebody subscribes to Topic, by any
	// goroutine but the delivery loop, one at a time. It must be quick, and not wait for
	// the loop.
	Read func() string

	// Shared: it is told to other nodes' clients, too. Topic begins with SystemTopic.
	Shared bool
}

// A SystemConfig says what a node tells of itself.
type SystemConfig struct {
	Values []SystemValue

	// Sample, if not nil, is called each time before values are looked at, whether or not
	// somebody subscribes: what is an average is to be one of all times alike.
	Sample func()

	// Every is how often values are looked at; 0: never, and nobody is told any.
	Every time.Duration
}

// system is what the broker tells of itself.
type system struct {
	b     *Broker
	every time.Duration

	readMu  sync.Mutex    // held while values are read and told: a value that is told is never older than one before it
	values  []SystemValue // in the order of their topics; written with both locks held, read with either
	sample  func()
	wave    Wave
	telling event.Event

	mu     sync.Mutex             // guards the following, and is held while any value is delivered; after readMu
	told   map[string]string      // of those of values that somebody subscribes to: what they were last
	others map[string]systemOther // of other nodes, by topic
}

// A systemOther is a value of another node's.
type systemOther struct {
	text string
	at   int64 // when it came
}

// systemOthers bounds how many values of other nodes are kept.
const systemOthers = peersMost * 1024

// StartSystem has the node tell of itself what c says, until Close. It is called once, after
// Start.
func (b *Broker) StartSystem(c SystemConfig) {
	if c.Every <= 0 {
		return
	}
	y := &b.system
	y.mu.Lock()
	y.sample, y.every = c.Sample, c.Every
	y.told, y.others = map[string]string{}, map[string]systemOther{}
	y.mu.Unlock()
	b.SetSystemValues(c.Values)
	b.running.Go(func() { y.run(c.Every) })
}

// SetSystemValues replaces the values that the node tells of itself, after StartSystem. What
// there is none of any more is told to nobody who comes; who has had it is told nothing.
func (b *Broker) SetSystemValues(values []SystemValue) {
	y := &b.system
	y.readMu.Lock()
	defer y.readMu.Unlock()
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.told == nil {
		return // it tells none
	}
	y.values = slices.Clone(values)
	slices.SortFunc(y.values, func(a, b SystemValue) int { return strings.Compare(a.Topic, b.Topic) })
	maps.DeleteFunc(y.told, func(name, _ string) bool {
		return !slices.ContainsFunc(y.values, func(v SystemValue) bool { return v.Topic == name })
	})
}

func (y *system) run(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-y.b.closing:
			return
		case <-tick.C:
			y.b.TellSystem()
		}
	}
}

// TellSystem has values looked at now, and told if they are others than before.
func (b *Broker) TellSystem() {
	y := &b.system
	y.readMu.Lock()
	defer y.readMu.Unlock()
	if y.sample != nil {
		y.sample()
	}
	now := b.now()
	y.forgetOld(now)
	for i := range y.values {
		y.tell(&y.values[i], now)
	}
	y.wave.Flush()
}

// tell tells a value to who subscribes to it. readMu is held.
func (y *system) tell(v *SystemValue, now int64) {
	a := y.b.local.LookupString(v.Topic)
	peers := a.peers
	if !v.Shared {
		peers = nil
	}
	if len(a.hearers) == 0 && len(peers) == 0 {
		y.mu.Lock()
		delete(y.told, v.Topic)
		y.mu.Unlock()
		return
	}
	text := v.Read()
	e := &y.telling
	e.Reset()
	e.Topic, e.Payload, e.At = v.Topic, []byte(text), now
	y.mu.Lock()
	if old, was := y.told[v.Topic]; !was || old != text {
		y.told[v.Topic] = text
		a.deliver(y.b, e, now, &y.wave)
	}
	y.mu.Unlock()
	if len(peers) > 0 {
		// Whether it is news to who has just subscribed there only they know.
		y.wave.relay(peers, e)
	}
}

// hear takes a value of another node's, and tells it to who subscribes to it here.
func (y *system) hear(e *event.Event, now int64, w *Wave) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.others == nil {
		return
	}
	old, known := y.others[e.Topic]
	if !known && len(y.others) >= systemOthers {
		y.b.stats.RelayUnwanted.Add(1)
		return
	}
	text := string(e.Payload)
	name := e.Topic
	if !known {
		name = cloneString(name)
	}
	y.others[name] = systemOther{text, now}
	if !known || old.text != text {
		y.b.local.LookupString(e.Topic).deliver(y.b, e, now, w)
	}
}

// forgetOld forgets what other nodes have said no more for three times as long as they may
// take to say it again: nobody here has subscribed to it since, or they are gone.
func (y *system) forgetOld(now int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	maps.DeleteFunc(y.others, func(_ string, o systemOther) bool { return now-o.at > 3*int64(y.every) })
}

// names returns the topics of all values there are after one, in order, that filter matches.
func (y *system) names(filter, after string) (names []string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for i := range y.values {
		if t := y.values[i].Topic; t > after && topic.Match(filter, t) {
			names = append(names, t)
		}
	}
	own := len(names)
	for t := range y.others { // in any order: it is sorted
		if t > after && topic.Match(filter, t) {
			names = append(names, t)
		}
	}
	if len(names) > own {
		slices.Sort(names)
	}
	return names
}

// read sees to it that there is a value of a topic to be told.
func (y *system) read(name string) {
	y.readMu.Lock()
	defer y.readMu.Unlock()
	i, is := slices.BinarySearchFunc(y.values, name, func(v SystemValue, name string) int { return strings.Compare(v.Topic, name) })
	if !is {
		return
	}
	y.mu.Lock()
	_, told := y.told[name]
	y.mu.Unlock()
	if told {
		return
	}
	text := y.values[i].Read()
	y.mu.Lock()
	y.told[name] = text
	y.mu.Unlock()
}

// present returns the value of a topic; ok is false if there is none any more. mu is held.
func (y *system) present(name string) (text string, ok bool) {
	if text, ok = y.told[name]; ok {
		return text, true
	}
	o, ok := y.others[name]
	return o.text, ok
}

// readSystem is readRetained for a filter below $SYS/. What it finds is told as it is when
// it is delivered.
func (t *scanState) readSystem(p *piece, s *pieceOf, now int64) (done bool) {
	y := &t.s.b.system
	for _, name := range y.names(s.sub.sub.Filter, s.after) {
		if p.looked++; !p.room() {
			return false
		}
		if d := t.s.b.decide(t.s.who, ActSubscribe, name, now); d.Allow && (s.opened == nil || s.opened(name)) {
			y.read(name)
			p.direct = append(p.direct, found{of: s, after: s.after, event: event.Event{Topic: name, At: now}})
			p.bytes += len(name)
			p.held++
		}
		s.after = name
	}
	return true
}
