package broker

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/topic"
)

// Fetch returns what who is shown of a resource now: what a subscription to its
// topic would have them sent. ErrBadEvent means that the topic is of no kind
// that is served; a *Refusal, that it names no resource or that nobody knows who
// who is; ErrNoCommit, that this node hears of no leader, so that it may have been
// forbidden since. For any goroutine; it may read from the disk.
func (b *Broker) Fetch(who Who, topicName string) (Shown, error) {
	v := b.viewerOf(topicName)
	if v == nil {
		return Shown{}, ErrBadEvent
	}
	if err := b.mayFetch(who, topicName, v); err != nil {
		return Shown{}, err
	}
	now := b.now()
	shown := b.showFor(b.watch.resource(v, topicName), who, topicName, now, true)
	b.noteFetch(v, who, topicName, now)
	if shown.Refused {
		return Shown{}, &Refusal{Reason: RejectedReason}
	}
	return shown, nil
}

// RejectedReason is what somebody is told whom the owner of a resource refuses it.
const RejectedReason = "rejected: its owner shows it to others"

func (b *Broker) mayFetch(who Who, topicName string, v Viewer) error {
	b.now() // notices it if the process has stood still
	if b.silence.held.Load() {
		return fmt.Errorf("%w: no leader is heard of, and what is shown may have been forbidden since: try again, or at another node", ErrNoCommit)
	}
	if _, own := v.(mine); own {
		if who.Principal == "" {
			return errNobody
		}
		return nil
	}
	return v.Watch(who, topicName)
}

// FetchPage is Fetch of what who is shown of their own, if that is more than one document:
// after is what the one before said to ask for next, empty for the first. It tells nothing,
// and is good for the same who and topic, at this node, as long as it runs; a *Refusal with
// ErrTopicName says that it is no such thing.
func (b *Broker) FetchPage(who Who, topicName, after string) (Shown, error) {
	m, own := b.viewerOf(topicName).(mine)
	if !own {
		return Shown{}, ErrBadEvent
	}
	paged, is := m.view.(Paged)
	if !is {
		if after != "" {
			return Shown{}, &Refusal{Cause: ErrTopicName, Reason: "after: this has one document only"}
		}
		return b.Fetch(who, topicName)
	}
	if err := b.mayFetch(who, topicName, m); err != nil {
		return Shown{}, err
	}
	place, err := b.cursors.open(who, topicName, after)
	if err != nil {
		return Shown{}, err
	}
	return paged.Page(m.keys, who, b.now(), place, func(place string) string { return b.cursors.seal(who, topicName, place) }), nil
}

// fetchLookedAt bounds how many resources one FetchAll looks at, and fetchPiece
// how many it holds names of. A page that is not full tells how many of them its
// asker may not see; so it ends before there is enough only for the sake of the
// work.
const (
	fetchLookedAt = 16_000
	fetchPiece    = 1000
)

// FetchAll calls yield with the resources that filter matches and who may see,
// by name, until yield returns false. It looks at a bounded number of resources,
// and may show fewer than are wanted, or none: next is what to go on after, empty
// if there are no more. It tells the asker nothing, and is good for the same who
// and filter, at this node, as long as it runs; a *Refusal with ErrTopicName says
// that after is no such thing. Other errors and the rest are as of Fetch.
func (b *Broker) FetchAll(who Who, filter, after string, yield func(topicName string, s Shown) bool) (next string, err error) {
	v := b.viewerOf(filter)
	if v == nil {
		return "", ErrBadEvent
	}
	if err := b.mayFetch(who, filter, v); err != nil {
		return "", err
	}
	if after, err = b.cursors.open(who, filter, after); err != nil {
		return "", err
	}
	now := b.now()
	for range fetchLookedAt / fetchPiece {
		var names []string
		names, after = b.lookAt(v, filter, after)
		for _, name := range names {
			s := b.showFor(b.watch.resource(v, name), who, name, now, true)
			if !s.Visible {
				continue
			}
			b.noteFetch(v, who, name, now)
			if !yield(name, s) {
				return b.cursors.seal(who, filter, name), nil
			}
		}
		if after == "" {
			break
		}
	}
	return b.cursors.seal(who, filter, after), nil
}

// lookAt returns the resources that filter matches among the next few after the
// one called after, and which was the last of these, empty if there are no more.
func (b *Broker) lookAt(v Viewer, filter, after string) (names []string, last string) {
	lower, upper := resourceRange(v.Prefix(), filter, after)
	looked := 0
	b.config.Store.Scan(lower, upper, func(key, _ []byte) bool {
		if looked++; looked > fetchPiece {
			return false
		}
		last = string(key[len(v.Prefix())+2:])
		if topic.Match(filter, last) && v.Owner(last) != "" {
			names = append(names, last)
		}
		return true
	})
	if looked <= fetchPiece {
		last = ""
	}
	return names, last
}
