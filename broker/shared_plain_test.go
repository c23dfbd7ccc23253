package broker

import (
	"cmp"
	"maps"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What a plain knows of shared subscriptions: who is a member, and which events are
// due to a group. To whom they go it does not say: see mixedRun.

// A plainGroup is the members of one shared subscription.
type plainGroup struct {
	number       uint64
	filter, rest string
	members      map[*plainSession]bool
}

// A plainJob is an event that is due to a group.
type plainJob struct {
	group *plainGroup
	event plainEvent
	owed  bool // somebody of the group is to get it, now or later
}

// byFilter returns the groups in the order of their filters.
func (p *plain) byFilter() []*plainGroup {
	return slices.SortedFunc(maps.Values(p.groups), func(a, b *plainGroup) int { return cmp.Compare(a.filter, b.filter) })
}

// join makes s a member of the group of x.
func (p *plain) join(s *plainSession, x event.Subscription, answer *subscribed) {
	g := p.groups[x.Filter]
	if g == nil {
		p.lastSession++
		g = &plainGroup{number: p.lastSession, filter: x.Filter, members: map[*plainSession]bool{}}
		g.rest, _ = sharedRest(x.Filter)
		p.groups[x.Filter] = g
	}
	g.members[s] = true
	x.RetainHandling = 0 // they have no retained events
	s.subs[x.Filter] = storedSub{Subscription: x, since: answer.since, group: g.number}
	answer.replay = append(answer.replay, false)
	if answer.groups == nil {
		answer.groups = map[string]uint64{}
	}
	answer.groups[x.Filter] = g.number
}

// unsubscribe removes a subscription of s, and with the last of a group the group.
func (p *plain) unsubscribe(s *plainSession, filter string) {
	delete(s.subs, filter)
	if g := p.groups[filter]; g != nil {
		if delete(g.members, s); len(g.members) == 0 {
			delete(p.groups, filter)
		}
	}
}

// may says whether s may see an event of a topic as of an instant.
func (p *plain) may(s *plainSession, topicName string, at int64) bool {
	return p.policy != nil && p.policy.Decide(Who{s.principal, s.client}, ActSubscribe, topicName, at).Allow
}

// share tells of the groups that e is due to. It is owed to one of those who are
// connected and may see it, or else, but at QoS 0, to one who is to come back.
func (p *plain) share(e plainEvent) {
	if p.isDue == nil {
		return
	}
	for _, g := range p.byFilter() {
		if !topic.Match(g.rest, e.topic) {
			continue
		}
		j := plainJob{group: g, event: e}
		for s := range g.members {
			awaited := e.qos > 0 && s.expiry > 0 && s.subs[g.filter].QoS > 0
			j.owed = j.owed || (s.connected() || awaited) && p.may(s, e.topic, e.at)
		}
		p.isDue(j)
	}
}

// giveBack takes entries away that were a group's: they go to another of it.
func (p *plain) giveBack(c *event.Return) error {
	s, err := p.current(c.Session, c.Epoch)
	if err == nil {
		s.queue = slices.DeleteFunc(s.queue, func(e plainEntry) bool { return e.group != 0 && slices.Contains(c.Entries, e.seq) })
		s.normal()
	}
	return err
}
