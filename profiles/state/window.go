package state

import (
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
)

// windowed returns what the clock, and what the owner's presence says, make of the
// subscription of somebody whom the policy of lets watch, on these terms.
func (p *Profile) windowed(get func(key string) []byte, topicName string, of *policy.Policy, who kind.Addr, in policy.Input, terms *policy.Terms, now time.Time) (w life.Windowed) {
	changes := p.complete(get, topicName, of, who, &in, now)
	span := of.Span(who, now, in)
	next := kind.Nanos(span.Until)
	sooner := func(at int64) {
		if at > now.UnixNano() && (w.Edge == 0 || at < w.Edge) {
			w.Edge = at
		}
	}
	sooner(next)
	sooner(kind.Nanos(changes))
	closes := span.Shown && span.Exact
	if terms.Outside == policy.Announce && span.Closed {
		w.Window = life.Shut
	}
	if terms.Outside == policy.Announce && span.Shown {
		w.Window = life.Open
	}
	if before := next - int64(terms.WarnBefore); closes && terms.WarnBefore > 0 {
		sooner(before)
		if before <= now.UnixNano() {
			w.Window = life.Closing
		}
	}
	if terms.Outside != policy.End {
		return w
	}
	if closes {
		w.Closes = next
	}
	if span.Closed {
		w.Ended = true
		if span.Exact {
			w.Opens = next
		}
	}
	return w
}

// complete adds to what a decision depends on what a resource's owner says of themselves
// now. changes is when that may be another thing by the passing of time.
func (p *Profile) complete(get func(key string) []byte, topicName string, of *policy.Policy, who kind.Addr, in *policy.Input, now time.Time) (changes time.Time) {
	if !of.AsksPresence(who, *in) {
		return time.Time{}
	}
	r, ok := p.stored(get, topicName).(*resource)
	if !ok || r.policy == nil {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.complete(in, who, now)
}

// windowOf returns what the watcher of an active subscription is told of its window.
func (p *Profile) windowOf(get func(key string) []byte, e *life.Entry, at int64) life.View {
	if e.Status != life.Active || e.Style != life.NoStyle {
		return life.View{}
	}
	owner, now := kind.Of(p.Owner(e.Topic)), kind.Instant(at)
	of := p.policies.Read(owner, p.documentOf(owner, get(broker.PolicyKey(owner.String()))))
	if of == nil {
		return life.View{}
	}
	who, in := seen(e.Watcher, e.As)
	in.Blocked = p.lists.Of(get, owner).Of(who)
	d := p.policies.Evaluate(of, who, now, in)
	if d.Handling != policy.Allow || !d.Reveal {
		return life.View{}
	}
	p.complete(get, e.Topic, of, who, &in, now)
	span := of.Span(who, now, in)
	v := life.View{Told: span.Shown || span.Closed, Open: span.Shown}
	if span.Exact {
		v.Next = kind.Nanos(span.Until)
	}
	return v
}
