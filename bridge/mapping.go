package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/bellwire/bellwire/broker/topic"
)

// hopsProperty is the User Property that says at which brokers an event has been: their ids
// (Config.Origin) in the order in which it came to them, separated by commas.
const hopsProperty = "bellwire-hops"

// A way is a Topic in one direction.
type way struct {
	filter     string // with the prefix of where events come from
	from, onto string // the prefixes
	qos        byte
	noRetain   bool
}

// waysOf returns the ways of topics in a direction, in their order.
func waysOf(topics []Topic, d Direction) (all []way) {
	for _, t := range topics {
		if t.Direction&d == 0 {
			continue
		}
		w := way{from: t.Local, onto: t.Remote, qos: t.QoS, noRetain: t.NoRetain}
		if d == In {
			w.from, w.onto = w.onto, w.from
		}
		w.filter = w.from + t.Filter
		all = append(all, w)
	}
	return all
}

// route returns the first of ways that takes events of name, and the name at the other
// side; nil if none does.
func route(ways []way, name string) (w *way, to string) {
	for i := range ways {
		w = &ways[i]
		rest, has := strings.CutPrefix(name, w.from)
		if has && topic.Match(w.filter, name) && w.onto+rest != "" {
			return w, w.onto + rest
		}
	}
	return nil, ""
}

// unfit says why an event cannot have the name that a way gives it; nil if it can. Our own
// bounds hold for what comes in. A name that is longer than MQTT can say fits nowhere.
func unfit(name string, in bool) (why Drop, err error) {
	switch err = topic.ValidName(name); {
	case errors.Is(err, topic.ErrTooLong):
		return DropTooLarge, err
	case in && err != nil:
		return DropRefused, err
	}
	return 0, nil
}

// back returns the topic at the other side of a response topic: what is published to it
// there has to come back by one of ways. One that does not stays as it is.
func back(ways []way, name string) string {
	for i := range ways {
		w := &ways[i]
		rest, has := strings.CutPrefix(name, w.onto)
		if has && topic.Match(w.filter, w.from+rest) {
			return w.from + rest
		}
	}
	return name
}

// filtersOf returns what to subscribe to for ways.
func filtersOf(ways []way) (all []wanted) {
	at := map[string]int{}
	for _, w := range ways {
		if i, known := at[w.filter]; known {
			all[i].qos = max(all[i].qos, w.qos)
			continue
		}
		at[w.filter] = len(all)
		all = append(all, wanted{w.filter, w.qos})
	}
	return all
}

// carried is what became of an event's properties on their way.
type carried struct {
	props  []byte // in wire form
	hops   int    // brokers it has been at
	looped bool   // ours, or the peer, is one of them
}

// carry makes the properties of an event, appended to buf: all that belong to the event, in
// their order, with the response topic of the other side by the ways back, and, among its hops,
// the broker that it leaves: origin, or on its way in the peer, which does not say so itself. They have been checked, but for what brokers hand on whatever its
// publisher wrote: a response topic that is no topic name at the other side, or a payload format that
// does not exist, would cost the bridge its connection, so it is left out. peer is the peer's id, empty if it is not known.
func carry(buf, props []byte, backs []way, origin, peer string, out bool) (to carried) {
	to.props = buf
	var hops []byte
	_ = eachProperty(props, func(p property) error { // which has no faults
		switch {
		case p.id == propSubscriptionIdentifier: // of who subscribed, not of the event
		case p.id == propPayloadFormat && p.num > 1: // says nothing, and who sends it is no client
		case p.id == propUser && string(p.text) == hopsProperty:
			if len(hops) > 0 {
				hops = append(hops, ',')
			}
			hops = append(hops, p.value...)
		case p.id == propResponseTopic:
			if name := back(backs, string(p.text)); topic.ValidName(name) == nil {
				to.props = appendText(append(to.props, propResponseTopic), name)
			}
		default:
			to.props = append(to.props, p.raw...)
		}
		return nil
	})
	for id := range bytes.SplitSeq(hops, []byte{','}) {
		if len(id) > 0 {
			to.hops++
			to.looped = to.looped || string(id) == origin || out && peer != "" && string(id) == peer
		}
	}
	from := origin
	if !out {
		from = peer
	}
	if len(hops) > 0 && from != "" {
		hops = append(hops, ',')
	}
	hops = append(hops, from...)
	if len(hops) > math.MaxUint16 {
		to.hops = math.MaxInt // more than can be said
	} else if len(hops) > 0 {
		to.props = appendText(append(to.props, propUser), hopsProperty)
		to.props = append(binary.BigEndian.AppendUint16(to.props, uint16(len(hops))), hops...)
	}
	return to
}
