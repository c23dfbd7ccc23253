package broker

// A scanQueue is the scans of a session that have not begun, in the order in which they were
// added. A session may have a hundred thousand filters, and a policy, or a window's edge, adds
// a scan for each; so what there is for a filter is found without a look at all of them.
//
// It is bounded by the session's subscriptions: a client that takes nothing, and subscribes
// and unsubscribes again and again, has one scan of each filter that it has (tidy).
type scanQueue struct {
	list  []scan
	taken int // from the list's front, so far: places count them

	// Of each filter where its last scan is; nil while there are few, which are looked through.
	places map[string]int
}

// placesFrom is from how many scans on their places are kept.
const placesFrom = 16

// add appends a scan.
func (q *scanQueue) add(s scan) {
	q.list = append(q.list, s)
	switch {
	case q.places != nil:
		q.place(len(q.list) - 1)
	case len(q.list) >= placesFrom:
		q.places = make(map[string]int, 2*len(q.list))
		for i := range q.list {
			q.place(i)
		}
	}
}

// place notes where the i-th scan is.
func (q *scanQueue) place(i int) {
	if s := &q.list[i]; !s.owed {
		q.places[s.sub.sub.Filter] = q.taken + i
	}
}

// of returns the last scan of a filter; nil for none. It is good until the next call.
func (q *scanQueue) of(filter string) *scan {
	if q.places != nil {
		if at, is := q.places[filter]; is {
			return &q.list[at-q.taken]
		}
		return nil
	}
	for i := len(q.list) - 1; i >= 0; i-- {
		if s := &q.list[i]; !s.owed && s.sub.sub.Filter == filter {
			return s
		}
	}
	return nil
}

// take removes the first scan and returns it. There is one.
func (q *scanQueue) take() scan {
	s := q.list[0]
	q.list[0] = scan{}
	q.list = q.list[1:]
	if len(q.list) == 0 {
		*q = scanQueue{}
		return s
	}
	if q.places != nil && !s.owed && q.places[s.sub.sub.Filter] == q.taken {
		delete(q.places, s.sub.sub.Filter)
	}
	q.taken++
	return s
}

// tidy leaves the last scan of each filter in subs, if there are so many others that looking
// costs no more, in the long run, than adding them did: what the last sends is what the ones
// before it would have sent.
func (q *scanQueue) tidy(subs map[string]*localSub) {
	if len(q.list) < 2*(len(subs)+placesFrom) {
		return
	}
	old := *q
	*q = scanQueue{}
	for i := range old.list {
		s := &old.list[i]
		if s.owed || subs[s.sub.sub.Filter] != nil && old.places[s.sub.sub.Filter] == old.taken+i {
			q.add(*s)
		}
	}
}
