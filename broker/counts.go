package broker

import (
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// countsTree begins the topics where others are told how many watch a resource, if its
// owner has that told: $stats/ and the resource's topic. They are subscribed to by name
// only, so that nobody is told who has it told; of all others, and of addresses that there
// are not, everybody is refused alike.
const countsTree = "$stats/"

// A Counter is a Viewer whose owners may have others told how many watch their resources.
type Counter interface {
	Viewer

	// Count returns what anybody is told at an instant of how many watch a resource, by the
	// profile's keys; ok is false if that is nothing, be it that there is no such resource:
	// then Shown.Ruled alone counts.
	Count(keys Keys, topicName string, at int64) (s Shown, ok bool)
}

// counterOf returns the profile that counts what a topic below countsTree is about, nil for
// none, and what that is.
func counterOf(profiles map[string]Profile, topicName string) (c Counter, of string) {
	of, is := strings.CutPrefix(topicName, countsTree)
	if !is || topic.HasWildcard(of) {
		return nil, ""
	}
	c, _ = profileOf(profiles, of).(Counter)
	return c, of
}

// counts is the Viewer, and each Resource, of what others are told of numbers.
type counts struct {
	Counter
	b    *Broker
	name string // the resource's that is watched; empty for the Viewer's
}

var _ Pacer = counts{}

// Pace is that of lists of watchers (RFC 3857 section 4.10).
func (counts) Pace() (burst int, interval time.Duration) { return 1, 5 * time.Second }

func (counts) Owner(string) string { return "" }

func (v counts) Load(topicName string, _, _ []byte) Resource {
	v.name = strings.TrimPrefix(topicName, countsTree)
	return v
}

func (counts) Neutral() Shown { return Shown{Visible: true} }

func (v counts) Show(_ Who, at int64) Shown {
	s, ok := v.Count(v.b.Keys(v.Prefix()), v.name, at)
	if ok {
		return s
	}
	neutral := v.Neutral()
	neutral.Ruled = s.Ruled
	return neutral
}

// errUncounted is what somebody is told who asks for a number that is not told.
var errUncounted = &Refusal{Reason: "not-published: how many watch is for its owner to know, who may have it told to others (publishCount)"}

// Watch says whether there is a number to be told now.
func (v counts) Watch(who Who, topicName string) error {
	of := strings.TrimPrefix(topicName, countsTree)
	if err := v.Counter.Watch(who, of); err != nil {
		return err
	}
	if _, ok := v.Count(v.b.Keys(v.Prefix()), of, v.b.now()); !ok {
		return errUncounted
	}
	return nil
}

// mayCount says whether who may subscribe to what a filter below countsTree matches.
func (b *Broker) mayCount(who Who, filter string) error {
	c, _ := counterOf(b.machine.profiles, filter)
	switch {
	case topic.HasWildcard(filter):
		return &Refusal{Cause: ErrTopicName, Reason: "how many watch is told of one address at a time: name it"}
	case c == nil || b.Level() < LevelRequests:
		return ErrBadEvent
	}
	return counts{Counter: c, b: b}.Watch(who, filter)
}

// CountChanged says that how many watch a resource is not what it was, for others whom its
// owner has told of it.
func (t *ProfileTx) CountChanged(topicName string) { t.m.changed(countsTree+topicName, "") }

// Count is Fetch of what who is told of how many watch a resource.
func (b *Broker) Count(who Who, topicName string) (Shown, error) {
	return b.Fetch(who, countsTree+topicName)
}
