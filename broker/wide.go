package broker

import (
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// Who watches by wildcards.
//
// A SUBSCRIBE with wildcards asks no owner, and is granted; but the owners who let its
// session see something are to know that it does. So it is ordered as requests are, and
// every profile of whose resources it may be takes note of it. Whom of the owners that
// concerns follows from their policies, and is found out when one of them is shown who
// watches: no owner's list is written for it, however many there are.
//
// What may have changed for many of them at once is swept: those who are connected and
// subscribe to it are shown it anew, some at a time, and no sweep begins within
// sweepEvery of the one before.

// A WideNotifier is a Notifier that takes note of who subscribes to its resources by
// filters with wildcards.
type WideNotifier interface {
	Notifier

	// SubscribedWide is Subscribed for a filter with wildcards, Request.Topic, that may
	// match resources of the profile. It may be one of several profiles that are asked:
	// if another refuses it, UnsubscribedWide follows. It does not set Once.
	SubscribedWide(tx *ProfileTx, r *Request) error

	// UnsubscribedWide is Unsubscribed for such a filter; also one that the profile has
	// no note of.
	UnsubscribedWide(tx *ProfileTx, who Who, session uint64, filter string)
}

// wideOf returns the profiles that take note of who subscribes to a filter, in the order of
// prefixes; none of a filter without wildcards.
func wideOf(profiles map[string]Profile, prefixes []string, filter string) (all []WideNotifier) {
	if len(profiles) == 0 || !topic.HasWildcard(filter) {
		return nil
	}
	for _, prefix := range prefixes {
		if n, ok := profiles[prefix].(WideNotifier); ok && watches(filter, prefix) {
			all = append(all, n)
		}
	}
	return all
}

// askWide has the profiles that a filter with wildcards is about take note of it. Of what
// one of them refuses none keeps a note.
func (m *Machine) askWide(wide []WideNotifier, q *Request) error {
	for i, n := range wide {
		err := n.SubscribedWide(&ProfileTx{m: m, prefix: n.Prefix()}, q)
		if err == nil {
			continue
		}
		if !q.Known {
			for _, before := range wide[:i] {
				before.UnsubscribedWide(&ProfileTx{m: m, prefix: before.Prefix()}, q.Who, q.Session, q.Topic)
			}
		}
		return err
	}
	return nil
}

// sweepEvery is how long it takes at least from one sweep to the next of the same, and
// sweepAfter how long from a change to the sweep that it brings about: what comes
// together, as after a start, is one.
const (
	sweepEvery = 5 * time.Second
	sweepAfter = time.Second
)

// OwnChangedIn is OwnChanged for all principals of a domain, or everybody if it is empty.
// They are shown it within sweepEvery.
func (t *ProfileTx) OwnChangedIn(name, domain string) { t.sweep(ownTree+name+"/"+t.prefix, domain) }

// CountsChangedIn is CountChanged for all resources of a domain, or all there are if it is
// empty.
func (t *ProfileTx) CountsChangedIn(domain string) { t.sweep(countsTree+t.prefix+"/", domain) }

func (t *ProfileTx) sweep(topicName, domain string) {
	t.m.out.steps = append(t.m.out.steps, step{kind: stepSweep, topic: topicName, whose: strings.Clone(domain)})
}

// sweepBucket is the name under which a sweep is noted, and its bucket.
func sweepBucket(topicName, domain string) string { return sweepPrefix + topicName + "\x00" + domain }

func readSweep(bucket string) (topicName, domain string, is bool) {
	rest, is := strings.CutPrefix(bucket, sweepPrefix)
	topicName, domain, _ = strings.Cut(rest, "\x00")
	return topicName, domain, is
}

// noteSweep has a topic of everybody's own, or counts, shown anew soon. In the delivery
// loop.
func (l *loop) noteSweep(topicName, domain string, now int64) {
	if len(l.live) == 0 {
		return // what is replayed at a start is shown to nobody
	}
	bucket := sweepBucket(topicName, domain)
	if l.b.watch.isNoted(bucket) {
		return
	}
	if first, at := l.pacer.take(bucket, 1, sweepEvery, now+int64(sweepAfter)); !first {
		l.b.watch.note(bucket, at, now)
		return
	}
	l.b.watch.note(bucket, now+int64(sweepAfter), now)
}

// sweepWeight is what it costs to show somebody their own, in sessions that are looked at: a
// list that is full takes milliseconds, so four of them are a piece.
const sweepWeight = edgePiece / 4

// beginSweep begins what was noted, if bucket is that of a sweep. In the delivery loop.
func (l *loop) beginSweep(bucket string) (t timesUnderWay, is bool) {
	topicName, domain, is := readSweep(bucket)
	if !is {
		return t, false
	}
	l.pacer.late(bucket, sweepEvery)
	if strings.HasPrefix(topicName, countsTree) {
		return timesUnderWay{counts: l.countedBelow(topicName, domain)}, true
	}
	return timesUnderWay{topic: topicName, sweep: true, domain: domain}, true
}

// sweepSome shows some of those whom a sweep is about their own, or some counts, and
// returns how many it looked at. In the delivery loop.
func (l *loop) sweepSome(t *timesUnderWay, most int, now int64) (looked int) {
	show := func(topicName, whose string) {
		looked += sweepWeight
		if !l.hold(topicName, whose, false, now) {
			l.changed(topicName, whose, now)
		}
	}
	for ; looked < most && len(t.counts) > 0; t.counts = t.counts[1:] {
		show(t.counts[0], "")
	}
	if !t.sweep {
		return looked
	}
	hearers := l.hearersAfter(t)
	for i := range hearers {
		if looked >= most {
			return looked
		}
		t.after = hearers[i].s.number
		looked++
		if who := hearers[i].s.who.Principal; isOf(who, t.domain) {
			show(t.topic, who)
		}
	}
	*t = timesUnderWay{}
	return looked
}

// isOf says whether a principal is of a domain; if that is empty, whether it is of any.
func isOf(principal, domain string) bool {
	at := strings.LastIndexByte(principal, '@')
	return at >= 0 && (domain == "" || principal[at+1:] == domain)
}

// countedBelow returns the counts below a tree that somebody here subscribes to, of the
// resources of a domain. In the delivery loop.
func (l *loop) countedBelow(tree, domain string) (names []string) {
	if domain != "" {
		tree += domain + "/"
	}
	for name := range l.counted {
		if strings.HasPrefix(name, tree) {
			names = append(names, name)
		}
	}
	return names // in any order: each has its own audience
}

// noteCounted takes note that one session more, or less, subscribes to a filter. In the
// delivery loop.
func (l *loop) noteCounted(filter string, more int) {
	if !strings.HasPrefix(filter, countsTree) {
		return
	}
	if l.counted == nil {
		l.counted = map[string]int{}
	}
	if l.counted[filter] += more; l.counted[filter] <= 0 {
		delete(l.counted, filter)
	}
}
