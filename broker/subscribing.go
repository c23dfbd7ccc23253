package broker

// What a session's subscriptions may take, and how they are put in force: see
// Session.SubscribeWith.
//
// One SUBSCRIBE may name 30,000 filters, a client may send it again and again, and each
// filter costs the Machine and the delivery loop 1 to 3 µs: put in force at once they would
// take 120 to 300 ms in which nobody's event is acknowledged, on an idle machine
// (BenchmarkManyFilters). So they are put in force filtersAtOnce at a time, each piece by a
// command of its own, or a task of the loop, proposed when the one before is in force. That is
// what MQTT says of such a packet: that it is as several, but for having one answer (5.0
// [MQTT-3.8.4-5], [MQTT-3.10.4-6]). So it does not matter to anybody else where it is divided,
// nor what comes in between; and to its client:
//
//   - It has one SUBACK when all is over, with a code for each filter. The reading goroutine
//     waits for it, so what the client sends after it finds all of it done.
//   - What refuses a whole piece (a quota, no quorum) refuses all that is left, and is told so;
//     what is told as granted is in force.
//   - A connection that ends meanwhile has acknowledged nothing: a session that outlasts it
//     has those pieces that were ordered, as with any SUBSCRIBE whose SUBACK is lost.
//
// Other ways would be a bound on the filters of a packet, with 0x97 for the rest, which clients
// do not expect that restore what they had; or one command that the Machine does by and by
// (chores, see budget): SUBACK, and whoever takes over the session, would have to wait for
// it by the same rules on all nodes.

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// filtersAtOnce is how many filters are put in force, or ended, at once: 3 to 5 ms of a
// processor on the node, and 1.5 to 2 on the others.
const filtersAtOnce = 1024

// Subscribe sets subscriptions (valid filters, one at least) and returns when
// all that were granted are in force: after it, whatever anybody publishes and
// the session may see reaches it. acknowledge is called with one result for
// each, in the delivery loop, and queues the SUBACK; retained events follow
// it, while events published in the meantime may come before it (5.0 3.8.4).
func (s *Session) Subscribe(subs []event.Subscription, acknowledge func([]SubResult, *Wave)) {
	s.SubscribeWith(subs, nil, func(results []SubResult, _ []byte, w *Wave) { acknowledge(results, w) })
}

// SubscribeWith is Subscribe with the SUBSCRIBE's User Properties, as Event.Props, for
// subscriptions that are requests (see Notifier). acknowledge is given those of the
// answer.
func (s *Session) SubscribeWith(subs []event.Subscription, options []byte, acknowledge func([]SubResult, []byte, *Wave)) {
	u := &subscribing{s: s, options: options, results: make([]SubResult, len(subs)), acknowledge: acknowledge}
	for !u.over {
		until := min(u.from+filtersAtOnce, len(subs))
		u.last = until == len(subs)
		u.put(subs[u.from:until])
		u.from = until
		if u.last && !u.over {
			// Not before: who is told of a member of a group has it get events.
			s.b.relays.hearOf()
			u.call(u.finish)
		}
	}
}

// A subscribing is a SUBSCRIBE under way. It is the session's reading goroutine's, and the
// delivery loop's while that waits for it.
type subscribing struct {
	s           *Session
	options     []byte
	results     []SubResult // for each filter of the packet
	acknowledge func([]SubResult, []byte, *Wave)

	now    int64    // when the piece that is being put in force was judged
	from   int      // its place among results
	last   bool     // it is the last
	shared bool     // there was one that others are told of
	answer []byte   // User Properties
	once   []string // whose state is shown, and nothing more
	over   bool     // it is answered
}

// put puts a piece in force, and with the last, or one that is refused as a whole, answers.
func (u *subscribing) put(subs []event.Subscription) {
	s := u.s
	u.now = s.b.now()
	granted := u.granted(subs)
	shared, others := sharedAmong(granted)
	u.shared = u.shared || len(shared) > 0
	begin := func(value any, err error, w *Wave) { u.begin(subs, granted, value, err, w) }
	refuse := func(err error) { u.call(func(w *Wave) { begin(nil, err, w) }) }
	if err := s.tooMuch(granted); err != nil {
		refuse(err)
		return
	}
	defer s.b.relays.announce(others)()
	logged, counted := granted, []string(nil)
	if !s.durable {
		logged, counted = s.logs(granted) // the others are the node's affair
	}
	if len(logged) == 0 {
		u.call(func(w *Wave) { begin(nil, s.tooMany(granted), w) })
		return
	}
	if !s.durable {
		if u.call(func(w *Wave) {
			if err := s.tooMany(granted); err != nil {
				begin(nil, err, w)
			}
		}); u.over {
			return
		}
	}
	w := newWait()
	w.first = begin
	if err := s.p.propose(u.command(logged, len(shared)), call{c: w}, false); err != nil {
		refuse(err)
		return
	}
	if <-w.done; w.err == nil {
		s.remembers(counted)
	}
}

// call has the delivery loop do something for the packet; that is over, if the loop is.
func (u *subscribing) call(task func(*Wave)) {
	if !u.s.b.loop.call(task) {
		u.over = true
	}
}

// granted returns those of a piece that may be granted at all.
func (u *subscribing) granted(subs []event.Subscription) []event.Subscription {
	s, all := u.s, make([]event.Subscription, 0, len(subs))
	for i := range subs {
		if len(subs[i].Named) > longestNamed || s.b.Level() < LevelNamed {
			subs[i].Named = ""
		}
		err := s.maySubscribe(subs[i].Filter, u.options, u.now)
		if u.results[u.from+i].Err = err; err == nil {
			all = append(all, subs[i])
		} else {
			s.b.stats.SubscribeDenied.Add(1)
		}
	}
	return all
}

// command returns what the log is told, of so many shared subscriptions among logged.
func (u *subscribing) command(logged []event.Subscription, shared int) event.Command {
	s := u.s
	if !s.durable && len(logged) > shared || slices.ContainsFunc(logged, func(sub event.Subscription) bool { return s.isRequest(sub.Filter) }) {
		return &event.Request{Session: s.number, Epoch: s.epoch, Subs: logged, Queued: s.durable, Props: u.options}
	}
	return &event.Subscribe{Session: s.number, Epoch: s.epoch, Subs: logged}
}

// begin puts what is granted of a piece in force, or answers that all that is left of the
// packet is refused with err. In the delivery loop.
func (u *subscribing) begin(subs, granted []event.Subscription, value any, err error, w *Wave) {
	results := u.results[u.from:]
	if err != nil {
		for i := range results {
			if results[i].Err == nil {
				results[i].Err = err
			}
		}
		u.finish(w)
		return
	}
	done, _ := value.(*subscribed)
	if done != nil {
		u.answer = append(u.answer, done.answer...)
		for i := range subs {
			if results[i].Err == nil {
				results[i].Err = done.refused[subs[i].Filter]
			}
		}
		for i := range granted {
			if done.once[granted[i].Filter] {
				u.once = append(u.once, granted[i].Filter)
			}
		}
	}
	u.s.begin(granted, done, u.now)
	if u.last && !u.shared {
		u.finish(w)
	}
}

// finish answers, and begins what follows the answer. In the delivery loop.
func (u *subscribing) finish(w *Wave) {
	u.over = true
	u.acknowledge(u.results, u.answer, w)
	for _, name := range u.once {
		u.s.showOnce(name, u.now, w)
	}
	u.s.scanning.run()
}

// Unsubscribe removes filters and says which existed. After it nothing is
// started for them any more. It blocks until the change is in force. With an error
// existed is of those at the front of filters that are removed all the same.
func (s *Session) Unsubscribe(filters []string) (existed []bool, err error) {
	for piece := range slices.Chunk(filters, filtersAtOnce) {
		were, err := s.unsubscribe(piece)
		if err != nil {
			return existed, err
		}
		existed = append(existed, were...)
	}
	return existed, nil
}

// unsubscribe is Unsubscribe of a piece.
func (s *Session) unsubscribe(filters []string) (existed []bool, err error) {
	existed = make([]bool, len(filters))
	end := func() { // one that is named twice existed once
		for i, f := range filters {
			sub := s.subs[f]
			if existed[i] = sub != nil; existed[i] {
				delete(s.subs, f)
				s.b.unsubscribe(sub)
			}
		}
	}
	logged := filters
	if !s.durable {
		logged = slices.DeleteFunc(slices.Clone(filters), func(f string) bool { return !s.isToldOf(f) })
	}
	if len(logged) == 0 {
		if !s.b.loop.call(func(*Wave) { end() }) {
			return nil, ErrClosing
		}
		return existed, nil
	}
	w := newWait()
	w.first = func(_ any, err error, _ *Wave) {
		if err == nil {
			end()
		}
	}
	if err := s.p.propose(&event.Unsubscribe{Session: s.number, Epoch: s.epoch, Filters: logged}, call{c: w}, false); err != nil {
		return nil, err
	}
	<-w.done
	if w.err != nil {
		return nil, w.err
	}
	if !s.durable {
		return existed, nil
	}
	return w.value.([]bool), nil
}

// tooMany returns ErrQuota if subs are more than a session that the Machine does not
// know all subscriptions of may have. In the delivery loop.
func (s *Session) tooMany(subs []event.Subscription) error {
	added := 0
	for i := range subs {
		if _, had := s.subs[subs[i].Filter]; !had {
			added++
		}
	}
	if most := int(s.b.boundsOf(s.who.Principal).SubscriptionsPerSession); added > 0 && len(s.subs)+added > most {
		s.b.machine.overs.add("subs.perSession")
		return fmt.Errorf("%w: a session has at most %d subscriptions here", ErrQuota, most)
	}
	return nil
}

// A filterUse is what the filters of a session take beside their number, which bounds little
// where each may have 65,535 bytes, or 128 levels of '+'.
type filterUse struct {
	bytes, deep atomic.Int64
}

// add counts a filter more, or one less if sign is negative.
func (u *filterUse) add(filter string, sign int64) {
	u.bytes.Add(sign * int64(len(filter)))
	u.deep.Add(sign * deepLevels(filter))
}

// deepLevels is topic.DeepLevels, also of shared subscriptions.
func deepLevels(filter string) int64 {
	if rest, shared := sharedRest(filter); shared {
		filter = rest
	}
	return int64(topic.DeepLevels(filter))
}

// What a session's filters may take.
const (
	// bytesPerFilter is what a filter may take on average, of as many as a session may
	// have. There may be 64 KiB in any case: the longest filter.
	bytesPerFilter = 256

	// sessionsOfDeep is among how many sessions Limits.DeepLevels is shared.
	sessionsOfDeep = 8
)

// tooMuch returns ErrQuota if the session's filters would take too much with those of subs,
// or all that there are.
func (s *Session) tooMuch(subs []event.Subscription) (err error) {
	// Whether the session has one already, and it so takes no more, only the loop knows:
	// who is far from the bounds need not wait for that.
	var more filterNeed
	for i := range subs {
		more.add(subs[i].Filter, 1)
	}
	if _, err := s.mayTake(&more); err == nil {
		return nil
	}
	bound := ""
	s.b.loop.call(func(*Wave) {
		for i := range subs {
			if _, had := s.subs[subs[i].Filter]; had {
				more.add(subs[i].Filter, -1)
			}
		}
		bound, err = s.mayTake(&more)
	})
	if err != nil {
		s.b.machine.overs.add(bound)
	}
	return err
}

// A filterNeed is what some filters take.
type filterNeed struct{ bytes, deep, weight int64 }

func (n *filterNeed) add(filter string, sign int64) {
	n.bytes += sign * int64(len(filter))
	n.deep += sign * deepLevels(filter)
	n.weight += sign * int64(topic.Weight(filter))
}

// mayTake refuses what filters more would take, by the bound that it names.
func (s *Session) mayTake(more *filterNeed) (bound string, err error) {
	m, local, limits := s.b.machine, s.b.local, &s.b.limits
	each := int64(min(s.b.boundsOf(s.who.Principal).SubscriptionsPerSession, 1<<50)) // Unbounded must not overflow
	part, of := int64(1), "in all"
	if s.who.Principal == "" { // who name themselves, and so are as many as they like
		part, of = 2, "of clients without a name"
	}
	if most := max(topic.MaxBytes, bytesPerFilter*each); more.bytes > 0 && s.filters.bytes.Load()+more.bytes > most {
		return "subs.perSession", &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("the filters of a session have together at most %d bytes here", most)}
	}
	there := int64(max(local.Weight(), m.durable.Weight()))
	if most := int64(limits.Subscriptions) / part; more.weight > 0 && there+more.weight > most {
		return "subs", &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("there are at most %d subscriptions %s here", most, of)}
	}
	there = int64(max(local.DeepLevels(), m.durable.DeepLevels(), m.shared.DeepLevels()))
	most, share := int64(limits.DeepLevels)/part, int64(limits.DeepLevels)/sessionsOfDeep
	if more.deep > 0 && (s.filters.deep.Load()+more.deep > share || there+more.deep > most) {
		return "subs.deepLevels", &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("filters with more than eight levels, and more than one '+' among them, have at most %d levels %s here, and %d of a session", most, of, share)}
	}
	return "", nil
}

// begin puts granted subscriptions in force. In the delivery loop. done is the
// Machine's answer for a durable session, and to shared ones; nil for others.
func (s *Session) begin(granted []event.Subscription, done *subscribed, now int64) {
	if s.closed.Load() {
		return // the loop has let go of it, or is about to
	}
	since, counted := s.b.loop.position(), s.counted()
	if done != nil && s.durable {
		since = done.since
	}
	place := 0 // of what the log has answered for
	for _, sub := range granted {
		sub.Filter = cloneString(sub.Filter)
		if done != nil && (done.refused[sub.Filter] != nil || done.once[sub.Filter]) {
			if old := s.subs[sub.Filter]; old != nil && done.once[sub.Filter] {
				delete(s.subs, sub.Filter)
				s.b.unsubscribe(old)
			}
			continue
		}
		i := place
		place++
		if done != nil && done.groups[sub.Filter] != 0 {
			s.attach(sub, since, done.groups[sub.Filter], now)
			continue
		}
		_, had := s.subs[sub.Filter]
		replay := (sub.RetainHandling == 0 || sub.RetainHandling == 1 && !had) &&
			(s.b.machine.retained.Load() > 0 || mayWatch(s.b.machine.profiles, sub.Filter))
		if done != nil && s.durable {
			replay = done.replay[i]
		}
		told := isSystem(sub.Filter) && (sub.RetainHandling == 0 || sub.RetainHandling == 1 && !had)
		l := s.attach(sub, since, 0, now)
		l.asked = s.isRequest(sub.Filter)
		l.counted = counted && !l.asked
		if replay {
			s.reshow(sub.Filter)
			s.scanning.add(scan{sub: l, since: since, initial: true})
		} else if told { // the log has nothing of it
			s.scanning.add(scan{sub: l, since: since})
		}
	}
}
