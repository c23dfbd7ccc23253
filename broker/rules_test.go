package broker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// rules are a policy for tests: who may do what on which topics, and when, a
// rule per line. What no rule allows is refused, and so is what one denies.
type rules struct {
	list  []rule
	users map[string]string      // what each has to prove
	other map[string]string      // what proves who is none of them
	quota map[string]DomainQuota // by domain
	delay DelayLimits
	named bool // somebody can sign in

	given func(who Who, address string) []Given // nil: nothing

	operators map[string]bool
	admins    map[string][]string // domains, by who administers them
	tenants   map[string]bool
	asked     func(who Who, what Action, name string) // nil, or called before each answer
	granted   func()                                  // nil, or called by Grant
}

func (r *rules) Credential(principal, _ string) string {
	return cmp.Or(r.users[principal], r.other[principal])
}
func (r *rules) Knows(principal string) bool { return r.users[principal] != "" }
func (r *rules) Known() []string             { return slices.Sorted(maps.Keys(r.users)) }

func (r *rules) QuotaOf(domain string) DomainQuota { return r.quota[domain] }

func (r *rules) Given(who Who, address string) []Given {
	if r.given == nil {
		return nil
	}
	return r.given(who, address)
}

func (r *rules) TellsClient(principal, domain string, address bool) bool {
	switch own := r.admins[principal]; {
	case r.operators[principal]:
		return true
	case own != nil:
		return slices.Contains(own, domain)
	}
	for _, of := range r.admins {
		address = address || slices.Contains(of, domain)
	}
	return !address && !r.tenants[domain]
}

func (r *rules) Delays() DelayLimits { return r.delay }

func (r *rules) SignsIn() bool { return r.named }

func (r *rules) Quotas(yield func(domain string, q DomainQuota) bool) {
	for domain, q := range r.quota {
		if !yield(domain, q) {
			return
		}
	}
}

type rule struct {
	deny        bool
	panics      bool // Decide panics instead
	who, filter string
	action      string // "publish", "subscribe", or empty for both
	from, until int64  // open in [from, until) of each day if until > 0, ns of the day
	ends        int64  // never open from this instant on; 0 for no end
	outside     Outside
}

const day = int64(24 * time.Hour)

// parseRules reads rules as "allow|deny|panic who filter [publish|subscribe]
// [hh:mm-hh:mm] [until=yyyy-mm-ddThh:mm] [outside=hold|announce|end]", or "user
// name credential", or "proved name credential" of who is no user, one a line.
func parseRules(text string) *rules {
	r := &rules{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] == "user" {
			if r.users == nil {
				r.users = map[string]string{}
			}
			r.users[words[1]] = words[2]
			continue
		}
		if words[0] == "proved" {
			r.other = map[string]string{words[1]: words[2]}
			continue
		}
		x := rule{deny: words[0] == "deny", panics: words[0] == "panic", who: words[1], filter: words[2]}
		for _, w := range words[3:] {
			switch {
			case w == "publish" || w == "subscribe":
				x.action = w
			case strings.HasPrefix(w, "outside="):
				x.outside = map[string]Outside{"hold": Hold, "announce": Announce, "end": End}[w[len("outside="):]]
			case strings.HasPrefix(w, "until="):
				x.ends = instant(w[len("until="):])
			default:
				from, until, _ := strings.Cut(w, "-")
				x.from, x.until = timeOfDay(from), timeOfDay(until)
			}
		}
		r.list = append(r.list, x)
	}
	return r
}

func timeOfDay(s string) int64 {
	t, err := time.Parse("15:04", s)
	if err != nil {
		panic(fmt.Sprintf("time of day %q: %v", s, err))
	}
	return int64(t.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)))
}

func instant(s string) int64 {
	t, err := time.Parse("2006-01-02T15:04", s)
	if err != nil {
		panic(err)
	}
	return t.UnixNano()
}

func (x *rule) windowed() bool { return x.until > 0 || x.ends > 0 }

func (x *rule) about(who Who, what Action) bool {
	return (x.who == "*" || x.who == who.Principal) && (x.action == "" || x.action == "publish" == (what == ActPublish))
}

// at says whether the rule holds at an instant, and until when.
func (x *rule) at(at int64) (open bool, until int64) {
	if x.ends != 0 && at >= x.ends {
		return false, 0
	}
	open, until = x.atTime(at)
	return open, earlier(until, x.ends)
}

// atTime is at without regard to the rule's end.
func (x *rule) atTime(at int64) (open bool, until int64) {
	if x.until == 0 {
		return true, 0
	}
	switch t := at % day; {
	case t < x.from:
		return false, at - t + x.from
	case t < x.until:
		return true, at - t + x.until
	default:
		return false, at - t + day + x.from
	}
}

// allow combines the rules at one instant.
func (r *rules) allow(who Who, what Action, name string, at int64) (allow bool, next int64, windowed bool, outside Outside) {
	denied := false
	for i := range r.list {
		x := &r.list[i]
		if !x.about(who, what) || !topic.Match(x.filter, name) && x.filter != name {
			continue
		}
		if x.panics {
			panic("rule for " + x.filter)
		}
		open, until := x.at(at)
		next = earlier(next, until)
		if x.windowed() {
			windowed, outside = true, max(outside, x.outside)
		}
		denied = denied || open && x.deny
		allow = allow || open && !x.deny
	}
	return allow && !denied, next, windowed, outside
}

// Ceiling is Decide as if everything were allowed.
func (r *rules) Ceiling(who Who, what Action, name string, at int64) Decision {
	all := rules{list: append([]rule{{who: "*", filter: name}}, r.list...)}
	return all.Decide(who, what, name, at)
}

func (r *rules) Decide(who Who, what Action, name string, at int64) Decision {
	if r.asked != nil {
		r.asked(who, what, name)
	}
	allow, next, windowed, outside := r.allow(who, what, name, at)
	d := Decision{Allow: allow, Windowed: windowed, Outside: outside}
	if !allow {
		d.Reason = "not permitted now"
	}
	// The answer changes at one of the next edges, if it changes at all.
	for range 2 * len(r.list) {
		if next == 0 {
			break
		}
		now, after, _, _ := r.allow(who, what, name, next)
		if now != allow {
			d.Until = next
			break
		}
		next = after
	}
	return d
}

func (r *rules) Grant(who Who, filter string, at int64) Decision {
	if r.granted != nil {
		r.granted()
	}
	d := Decision{Reason: "no rule covers " + filter}
	for i := range r.list {
		x := &r.list[i]
		if x.deny || x.panics || !x.about(who, ActSubscribe) {
			if x.windowed() && overlap(x.filter, filter) {
				d.Windowed = true // something within it is closed at times
			}
			continue
		}
		if over := x.ends != 0 && at >= x.ends; !over && topic.Covers(x.filter, filter) {
			d.Allow, d.Reason = true, ""
			if x.windowed() {
				d.Windowed, d.Outside = true, max(d.Outside, x.outside)
			}
		}
	}
	return d
}

// Always says yes where one rule without a window allows all of it, and no other rule
// has to do with any of it.
func (r *rules) Always(who Who, filter string) bool {
	allowed := false
	for i := range r.list {
		x := &r.list[i]
		switch {
		case x.panics && overlap(x.filter, filter), x.about(who, ActSubscribe) && x.deny && overlap(x.filter, filter):
			return false
		case x.about(who, ActSubscribe) && !x.windowed() && !x.panics && topic.Covers(x.filter, filter):
			allowed = true
		}
	}
	return allowed
}

// Memory says yes of topics below memory/.
func (r *rules) Memory(name string) bool { return strings.HasPrefix(name, "memory/") }

// MayOpen says no where every rule that has to do with any of it has stood as it
// stands since, or stands in the way.
func (r *rules) MayOpen(who Who, filter string, after, upto int64) bool {
	for i := range r.list {
		x := &r.list[i]
		if !x.about(who, ActSubscribe) || !overlap(x.filter, filter) {
			continue
		}
		open, _ := x.at(upto)
		was, until := x.at(after)
		if open != x.deny && (was != open || until != 0 && until <= upto) {
			return true
		}
	}
	return false
}

// overlap is a guess that errs on the side of yes.
func overlap(a, b string) bool {
	return topic.Covers(a, b) || topic.Covers(b, a) || topic.HasWildcard(a) && topic.HasWildcard(b)
}

func (r *rules) Authenticate(string, []byte) (string, error) { return "", ErrBadCredentials }

func (r *rules) NextEdge(after int64) int64 {
	next := int64(0)
	for i := range r.list {
		_, until := r.list[i].at(after)
		next = earlier(next, until)
	}
	return next
}
