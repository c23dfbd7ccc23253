package state

import (
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/internal/pace"
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
// Wills and what was delayed are not held to it: connections and delayed events have bounds of
// their own.
//
// All share one table and its mutex, which is held for some 50 ns: a hundredth of what it takes
// to read a publication, and a thousandth of the time at 20,000 a second (BenchmarkSources).
type sources struct{ pace.Table }

// admitSource refuses a publication to a resource if it is one too many of its source.
func (p *Profile) admitSource(pub *broker.Publication) error {
	e := pub.Event
	if strings.HasPrefix(e.Topic, "$") {
		return nil // an owner's policy, which is no source's
	}
	client := ""
	if strings.Count(e.Topic, "/") == 2 { // its source is called after the client
		client = pub.From.Client
	}
	l := p.shownBy.Load()
	atOnce := l.SourceBurst
	if len(e.Payload) == 0 {
		atOnce *= 2
	}
	if p.sources.Take(e.At, time.Second/time.Duration(l.SourceRate), atOnce, pub.From.Principal, e.Topic, client) == 0 {
		return nil
	}
	pub.Over("source.perSecond")
	return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("rate: one source publishes at most %d times a second, %d times at once: publish again later what is true then", l.SourceRate, l.SourceBurst)}
}
