package state

import (
	"fmt"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

var (
	_ broker.Previewed = (*resource)(nil)
	_ broker.Fetched   = (*resource)(nil)
)

// Preview is Show at another instant, if what is published now were published still.
// The reason is a policy.Explanation.
func (r *resource) Preview(who broker.Who, at int64) (broker.Shown, any) {
	now := time.Unix(0, at).UTC()
	then := &resource{kind: r.kind, of: r.of, set: r.set, normal: r.normal, policy: r.policy, blocked: r.blocked, asked: r.asked, neutral: r.neutral, every: r.every}
	r.mu.Lock()
	for _, p := range r.publications() {
		if p.Lost.IsZero() {
			p.Expires = time.Time{}
		}
		then.pubs = append(then.pubs, p)
	}
	r.mu.Unlock()
	s := then.Show(who, at)
	if r.policy == nil {
		return s, policy.Explanation{Because: "the policy is of another version of the program: it shows nothing"}
	}
	return s, r.explain(kind.Of(who.Principal), now, then.input(who, policy.OpSubscribe, now))
}

// explain is policy.Explain, with what the server has for those about whom the owner has
// said nothing at all.
func (r *resource) explain(w kind.Addr, at time.Time, in policy.Input) policy.Explanation {
	e := r.policy.Explain(w, at, in)
	h, _ := lifeOf(r.policy, &e.Decision, r.set, r.normal)
	if e.Named || r.set && r.policy.SaysHandling() {
		return e
	}
	e.Handling, e.View = h, policy.ViewNone
	if h == policy.PoliteBlock {
		e.View = policy.ViewNeutral
	}
	e.Because = fmt.Sprintf("the owner has said nothing about this watcher: the server's default is %s (watch.default)", h)
	return e
}
