package broker

// What a session's subscriptions may take, and how they are put in force: see
// Session.SubscribeWith.

import (
	"fmt"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// tooMany returns ErrQuota if subs are more than a session that the Machine does not
// know all subscriptions of may have. In the delivery loop.
func (s *Session) tooMany(subs []event.Subscription) error {
	added := 0
	for i := range subs {
		if _, had := s.subs[subs[i].Filter]; !had {
			added++
		}
	}
	if added > 0 && len(s.subs)+added > int(s.b.boundsOf(s.who.Principal).SubscriptionsPerSession) {
		s.b.machine.overs.add("subs.perSession")
		return ErrQuota
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
