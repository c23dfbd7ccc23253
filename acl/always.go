package acl

// Always says whether who may subscribe to all that filter matches, at all times,
// as far as this version of the policy goes: some rule without a window allows the
// whole filter, and none that denies or limits has to do with any part of it. So
// Decide allows each of its topics at each instant. False means that it may not be
// so.
func (p *Policy) Always(who Who, filter string) bool {
	q := query{who: who, what: Subscribe}
	p.index.find(&q, filter)
	return q.allowed != nil && !p.ceiling.overlaps(who, Subscribe, filter)
}
