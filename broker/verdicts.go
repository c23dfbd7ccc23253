package broker

import "sync"

// Verdicts keep what the policy has said of the members of groups: of a session and
// one list of a topic. They are apart from the lists, for what each list held of each
// member would be members times topics. They are bounded: of two for which there is
// one place the later one stays, and the policy is asked again, which answers the
// same.
//
// A list is a number that no other has. Another policy makes new lists, so nothing
// has to be forgotten.
type verdicts struct {
	places []verdict // a power of two
	used   int
}

// A verdict is what holds of a session and a list from an instant on.
type verdict struct {
	list, session uint64 // 0: nothing is known
	judged        int64
	until         int64 // 0: for good
	allow         bool
}

const (
	verdictsFirst = 1 << 10
	verdictsMost  = 1 << 16 // 40 bytes each
)

// find returns what is known to hold at an instant.
func (v *verdicts) find(list, session uint64, at int64) (allow bool, until int64, known bool) {
	if len(v.places) == 0 {
		return false, 0, false
	}
	one := v.place(list, session)
	if one.list != list || one.session != session || at < one.judged || one.until != 0 && at >= one.until {
		return false, 0, false
	}
	return one.allow, one.until, true
}

// keep notes what was decided about an instant. When half of the places are taken
// there are twice as many, empty ones, but not more than most.
func (v *verdicts) keep(list, session uint64, at int64, d *Decision, most int) {
	if n := len(v.places); n == 0 || 2*v.used >= n && n < most {
		*v = verdicts{places: make([]verdict, max(2*n, min(verdictsFirst, most)))}
	}
	one := v.place(list, session)
	if one.list == 0 {
		v.used++
	}
	*one = verdict{list, session, at, d.Until, d.Allow}
}

func (v *verdicts) place(list, session uint64) *verdict {
	hash := (list*0x9e3779b97f4a7c15 ^ session) * 0xbf58476d1ce4e5b9
	return &v.places[hash>>32&uint64(len(v.places)-1)]
}

// SharedVerdicts are verdicts for many goroutines.
type sharedVerdicts [16]struct {
	mu sync.Mutex
	verdicts
	_ [24]byte // 64 in all: they do not share a cache line
}

// ask returns what holds at an instant, which decide says if it is not known.
func (all *sharedVerdicts) ask(list, session uint64, at int64, decide func() Decision) (allow bool, until int64) {
	v := &all[session%uint64(len(all))]
	v.mu.Lock()
	allow, until, known := v.find(list, session, at)
	v.mu.Unlock()
	if known {
		return allow, until
	}
	d := decide() // not under mu: it may read the store
	v.mu.Lock()
	v.keep(list, session, at, &d, verdictsMost/len(all))
	v.mu.Unlock()
	return d.Allow, d.Until
}
