package state

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker"
)

// Sources hold each source to how often it may publish, on the node where its
// publications come in.
//
// Apply could judge it by the log's time, exactly and alike everywhere. But what Apply
// refuses has been ordered, synced and sent to all nodes, and that is what a flood must not
// cost: so it is decided before the log, as other rates are, and by what the log has settled
// (Limits.SourceRate). Who publishes as one source by several nodes has as much on each, and
// a node that is started anew remembers nothing.
//
// A source is counted by who publishes as it: nobody can use up what is its owner's. What
// removes, or only prolongs, has as much room again, so that who was refused can still take
// back what was said before.
//
// Two tables, the present one and the one before, hold what is remembered, as of logins:
// when one has been in use for as long as anything in it counts, or is full, the older is
// forgotten. Past so many sources at once some publish more often than they may; memory
// does not grow. Wills and what was delayed are not held to it: connections and delayed
// events have bounds of their own.
type sources struct {
	seed maphash.Seed

	mu       sync.Mutex       // guards the following
	now, old map[uint64]int64 // by hash, the instant at which each has room for a burst again
	turned   int64            // when now began
}

// sourcesKept is how many sources each of the two tables holds.
const sourcesKept = 1 << 16

// admitSource refuses a publication to a resource if it is one too many of its source.
func (p *Profile) admitSource(pub *broker.Publication) error {
	e := pub.Event
	if strings.HasPrefix(e.Topic, "$") {
		return nil // an owner's policy, which is no source's
	}
	var h maphash.Hash
	h.SetSeed(p.sources.seed)
	for _, part := range [...]string{pub.From.Principal, e.Topic} {
		h.WriteString(part)
		h.WriteByte(0)
	}
	if strings.Count(e.Topic, "/") == 2 { // its source is called after the client
		h.WriteString(pub.From.Client)
	}
	l := p.shownBy.Load()
	if p.sources.take(h.Sum64(), l, len(e.Payload) == 0, e.At) {
		return nil
	}
	pub.Over("source.perSecond")
	return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("rate: one source publishes at most %d times a second, %d times at once: publish again later what is true then", l.SourceRate, l.SourceBurst)}
}

// take takes a publication off what a source may publish at an instant, unless there is
// nothing left.
func (s *sources) take(source uint64, l *Limits, slight bool, now int64) bool {
	each := int64(time.Second) / int64(l.SourceRate)
	burst := each * int64(l.SourceBurst)
	room := burst
	if slight {
		room *= 2
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil || len(s.now) >= sourcesKept || now-s.turned >= max(2*burst, int64(time.Second)) {
		s.old, s.now, s.turned = s.now, map[uint64]int64{}, now
	}
	full, known := s.now[source]
	if !known {
		full = s.old[source]
	}
	if full = max(full, now) + each; full > now+room {
		return false
	}
	s.now[source] = full
	return true
}
