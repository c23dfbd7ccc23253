package acl

import "time"

// MayOpen says whether the passing of time from after to upto may have opened to who
// something that filter matches: whether some topic may be allowed at upto that was
// denied at an instant between. No means that there is none, so that nobody has to
// look for it; yes, that there may be one.
//
// What is allowed now and was not has a rule to thank for it: one that allows and has
// opened since, or one that denies or limits and has let go.
func (p *Policy) MayOpen(who Who, filter string, after, upto time.Time) bool {
	from, to := seconds(after), seconds(upto)
	o := overlap{who: who, what: Subscribe, which: func(r *rule) bool { return r.relieved(from, to) }}
	return o.below(&p.index.root, filter, true, true)
}

// relieved says whether r lets more pass at to than at some instant since from.
func (r *rule) relieved(from, to int64) bool {
	if r.when == nil || r.when.openAt(to) == (r.effect == deny) {
		return false
	}
	return r.when.openAt(from) == (r.effect == deny) || r.when.nextAt(from) <= to
}
