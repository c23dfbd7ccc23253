package broker

import (
	"strings"

	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// viewers returns the profiles whose resources filter may match.
func (t *scanState) viewers(filter string) (viewers []Viewer) {
	m := t.s.b.machine
	if p, _ := ownView(m.profiles, filter); p != nil {
		return []Viewer{t.s.b.viewerOf(filter)}
	}
	if c, _ := counterOf(m.profiles, filter); c != nil {
		return []Viewer{counts{Counter: c, b: t.s.b}}
	}
	if rest, own := strings.CutPrefix(filter, ownSub); own {
		for _, prefix := range m.prefixes {
			if n, ok := m.profiles[prefix].(Notifier); ok && watches(rest, prefix) {
				viewers = append(viewers, states{Notifier: n, b: t.s.b})
			}
		}
		return viewers
	}
	for _, prefix := range m.prefixes {
		if v, ok := m.profiles[prefix].(Viewer); ok && watches(filter, prefix) && t.s.scans(v, filter) {
			viewers = append(viewers, v)
		}
	}
	return viewers
}

// readResources reads which resources of v there are to show and says whether
// there are no more. Who names a resource is shown it, whether it exists or
// not; who does not, those that are visible.
func (t *scanState) readResources(p *piece, s *pieceOf, v Viewer, now int64) (done bool) {
	filter := s.sub.sub.Filter
	if !topic.HasWildcard(filter) {
		t.takeResource(p, s, filter)
		return true
	}
	if own, ok := v.(states); ok {
		names, last := own.namesFor(t.s.who, filter, s.key, pieceTopics)
		p.looked += pieceTopics
		for _, name := range names {
			t.takeResource(p, s, name)
		}
		s.key = last
		return last == ""
	}
	done = true
	var names []string
	lower, upper := resourceRange(v.Prefix(), filter, s.key)
	t.s.b.config.Store.Scan(lower, upper, func(key, _ []byte) bool {
		if p.looked++; len(names) == pieceTopics || p.looked > pieceLookedAt {
			done = false
			return false
		}
		s.key = string(key[len(v.Prefix())+2:])
		if topic.Match(filter, s.key) && v.Owner(s.key) != "" {
			names = append(names, s.key)
		}
		return true
	})
	for _, name := range names {
		// What was shown and is so no longer must be taken back.
		if t.s.b.show(t.s.b.watch.resource(v, name), t.s.who, name, now).Visible || t.s.wasShown(name) {
			t.takeResource(p, s, name)
		}
	}
	return done
}

func (t *scanState) takeResource(p *piece, s *pieceOf, topicName string) {
	if t.s.durable && s.sub.sub.QoS > 0 && t.s.b.Level() < levelBeside {
		s.replay = append(s.replay, topicName)
	} else {
		p.watched = append(p.watched, resource{s, topicName})
	}
}

// resourceRange returns the keys among which the topics of a profile's
// resources that filter matches lie, after one of them.
func resourceRange(prefix, filter, after string) (lower, upper []byte) {
	literal, _, _ := strings.Cut(filter, "+")
	literal, _, _ = strings.Cut(literal, "#")
	if !strings.HasPrefix(literal, prefix+"/") {
		literal = prefix + "/"
	}
	lower = resourceKey(nil, prefix, literal)
	upper = store.End(lower)
	if after != "" {
		lower = append(resourceKey(nil, prefix, after), 0)
	}
	return lower, upper
}

// showOwed shows what is owed, to whom it is still of interest. In the delivery
// loop.
func (t *scanState) showOwed(topicName string, now int64, w *Wave) {
	h := t.s.b.local.LookupString(topicName).find(t.s.number)
	v := t.s.b.viewerOf(topicName)
	if h == nil || v == nil {
		return
	}
	if t.s.durable && h.qos > 0 && t.s.b.Level() < levelBeside { // another of its subscriptions matches by now
		t.s.remark(topicName, now)
		return
	}
	how := showing{qos: min(h.qos, 1), ids: h.ids, named: t.s.names(topicName), retain: true}
	t.s.show(&shownOnce{topic: topicName}, t.s.b.watch.resource(v, topicName), &how, now, w)
}

// showAll shows the resources of a piece. In the delivery loop.
func (t *scanState) showAll(p *piece, w *Wave) {
	now := t.s.b.now()
	for _, r := range p.watched {
		if r.of.owed {
			t.showOwed(r.topic, now, w)
			continue
		}
		sub := &r.of.sub.sub
		v := t.s.b.viewerOf(r.topic)
		if v == nil || t.s.subs[sub.Filter] == nil {
			continue
		}
		how := showing{qos: min(sub.QoS, 1), named: true, retain: true}
		if sub.ID != 0 {
			how.ids = []uint32{sub.ID}
		}
		t.s.show(&shownOnce{topic: r.topic}, t.s.b.watch.resource(v, r.topic), &how, now, w)
	}
}
