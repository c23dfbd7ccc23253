package mqtt

import (
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// codeFailure is the return code of MQTT 3.1.1's SUBACK for a filter that was
// not granted.
const codeFailure = 0x80

// filterCode says what is wrong with a filter, codeSuccess if nothing is.
func filterCode(filter string) byte {
	if topic.ValidFilter(filter) != nil {
		return codeBadFilter
	}
	return codeSuccess
}

// filter returns the filter that is meant by one, or what is wrong with it, and why, if there
// is no reason yet.
func (c *conn) filter(named, reason string) (filter string, code byte, why string) {
	if code := filterCode(named); code != codeSuccess {
		return named, code, reason
	}
	filter, err := c.rewrite(c.who(), broker.ActSubscribe, named)
	if err == nil {
		return filter, codeSuccess, reason
	}
	if reason == "" {
		_, reason = refusal(err)
	}
	return named, codeBadFilter, reason
}

// handleSubscribe subscribes to those filters that are valid. Each is answered
// on its own, all in one SUBACK.
func (c *conn) handleSubscribe(in *input, body []byte) error {
	pk, err := parseSubscribe(body, c.version)
	if err != nil {
		return err
	}
	suback := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Suback},
		PacketID:    pk.PacketID,
		ReasonCodes: make([]byte, len(pk.Filters)),
	}
	subs := make([]event.Subscription, 0, len(pk.Filters))
	places := make([]int, 0, len(pk.Filters)) // of subs, among the codes
	reason := ""
	for i, f := range pk.Filters {
		var code byte
		named := f.Filter
		if f.Filter, code, reason = c.filter(named, reason); code == codeSuccess && c.tooDeep(f.Filter) {
			code = codeQuota
		}
		if code != codeSuccess {
			suback.ReasonCodes[i] = code
			continue
		}
		places = append(places, i)
		subs = append(subs, event.Subscription{
			Filter: strings.Clone(f.Filter), QoS: f.Qos, NoLocal: f.NoLocal || c.bridge && !isShared(f.Filter),
			RetainAsPublished: f.RetainAsPublished || c.bridge, RetainHandling: f.RetainHandling,
			ID: uint32(f.Identifier),
		})
		if named != f.Filter {
			subs[len(subs)-1].Named = strings.Clone(named)
		}
	}
	if len(subs) == 0 {
		c.acknowledge(suback, suback.ReasonCodes[0], reason, &in.wave)
		return nil
	}
	in.wave.Flush() // the session may take its time
	c.inBroker = true
	c.session.SubscribeWith(subs, subscribeOptions(pk), func(results []broker.SubResult, answer []byte, w *broker.Wave) {
		refused, reason := byte(codeSuccess), reason
		for k, r := range results {
			code, why := grant(r, subs[k].QoS)
			suback.ReasonCodes[places[k]] = code
			if refused < codeUnspecified || reason == "" && why != "" {
				refused, reason = code, why
			}
		}
		if refused < codeUnspecified { // if anything is, a filter that is none
			refused = slices.Max(suback.ReasonCodes)
		}
		c.tellGranted(suback, answer)
		c.acknowledge(suback, refused, reason, w)
	})
	c.inBroker = false
	return nil
}

// optionPrefix begins the names of User Properties that say how to subscribe; those
// together are at most maxOptions bytes, and what is beyond them is not looked at.
const (
	optionPrefix = "evt-"
	maxOptions   = 4 << 10
)

// subscribeOptions returns them in the order in which they came.
func subscribeOptions(pk *packets.Packet) (options []byte) {
	for _, u := range pk.Properties.User {
		if !strings.HasPrefix(u.Key, optionPrefix) {
			continue
		}
		if len(options)+len(u.Key)+len(u.Val) > maxOptions {
			break
		}
		options = event.AppendUserProperty(options, u.Key, u.Val)
	}
	return options
}

// tellGranted adds to a SUBACK what the broker has to say of what is granted, unless the
// client wants no problem information: then it gets no User Property but in PUBLISH,
// CONNACK and DISCONNECT (5.0 [MQTT-3.1.2-29]).
func (c *conn) tellGranted(suback *packets.Packet, answer []byte) {
	if c.version < 5 || !c.problemInfo {
		return
	}
	for name, value := range event.UserProperties(answer) {
		suback.Properties.User = append(suback.Properties.User, packets.UserProperty{Key: name, Val: value})
	}
}

// grant translates what became of a subscription into a code.
func grant(r broker.SubResult, qos byte) (code byte, reason string) {
	if r.Err == nil {
		return qos, ""
	}
	code, reason = refusal(r.Err)
	switch code {
	case codeBadTopic:
		code = codeBadFilter // what a name is to PUBACK a filter is to SUBACK
	case codeBadPayload:
		code = codeImplementation // of a SUBSCRIBE it is its User Properties, and SUBACK has no 0x99
	}
	return legal(packets.Suback, code), reason
}

// acknowledge queues a SUBACK or UNSUBACK. Its Reason String is about code, one
// of those in it. It and the User Properties are left out where the client takes no
// packet so large (5.0 [MQTT-3.9.2-1], [MQTT-3.9.2-2]).
func (c *conn) acknowledge(pk *packets.Packet, code byte, reason string, w *broker.Wave) {
	if c.version < 5 {
		for i, code := range pk.ReasonCodes {
			if code >= codeFailure {
				pk.ReasonCodes[i] = codeFailure
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	n := maxHeader + 2 + len(pk.ReasonCodes)
	if told := userPropertiesSize(pk.Properties.User); n+maxVarint+told <= c.maxPacket {
		n += told
	} else {
		pk.Properties.User = nil
	}
	pk.Properties.ReasonString = c.reasonString(code, reason, n)
	c.dirty(w)
	if !c.put(pk) {
		c.beginEnd(endTold, codeTooLarge, "the answer is larger than the client's Maximum Packet Size")
	}
}

// userPropertiesSize is how many bytes User Properties take on the wire.
func userPropertiesSize(of []packets.UserProperty) (n int) {
	for _, u := range of {
		n += 1 + 2 + len(u.Key) + 2 + len(u.Val)
	}
	return n
}

// handleUnsubscribe removes subscriptions.
func (c *conn) handleUnsubscribe(in *input, body []byte) error {
	pk, err := parseUnsubscribe(body, c.version)
	if err != nil {
		return err
	}
	unsuback := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Unsuback},
		PacketID:    pk.PacketID,
		ReasonCodes: make([]byte, len(pk.Filters)),
	}
	filters, named := make([]string, 0, len(pk.Filters)), make([]string, 0, len(pk.Filters))
	places := make([]int, 0, len(pk.Filters))
	reason := ""
	for i, f := range pk.Filters {
		filter, code, why := c.filter(f.Filter, reason)
		if reason = why; code != codeSuccess {
			unsuback.ReasonCodes[i] = code
			continue
		}
		filters, named = append(filters, strings.Clone(filter)), append(named, strings.Clone(f.Filter))
		places = append(places, i)
	}
	if len(filters) > 0 {
		in.wave.Flush() // the session may take its time
		c.inBroker = true
		existed, err := c.session.UnsubscribeNamed(filters, named)
		c.inBroker = false
		if err != nil {
			if code, why, ended := endOf(err); ended {
				return &fault{code, why}
			}
			if c.version < 5 {
				// UNSUBACK cannot say no; without it the client asks again.
				return &fault{codeBusy, err.Error()}
			}
		}
		for k, i := range places {
			var why string
			if k < len(existed) {
				unsuback.ReasonCodes[i], why = unsubCode(nil, existed[k])
			} else {
				unsuback.ReasonCodes[i], why = unsubCode(err, false)
			}
			if why != "" {
				reason = why
			}
		}
	}
	c.acknowledge(unsuback, slices.Max(unsuback.ReasonCodes), reason, &in.wave)
	return nil
}

func unsubCode(err error, existed bool) (code byte, reason string) {
	switch {
	case err != nil:
		code, reason = refusal(err)
		return legal(packets.Unsuback, code), reason
	case !existed:
		return codeNoSubscription, ""
	}
	return codeSuccess, ""
}
