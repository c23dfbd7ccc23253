package mqtt

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	topics "github.com/bellwire/bellwire/broker/topic"
)

// handlePublish hands the session one event. What it sets in the event aliases
// the input: the session copies what it keeps.
func (c *conn) handlePublish(in *input, first byte, body []byte) error {
	var p publication
	if err := parsePublish(first, body, c.version == 5, &p); err != nil {
		return err
	}
	in.payload += uint64(len(p.payload))
	topic, err := c.resolve(&p)
	if err != nil {
		return err
	}
	if p.refused == nil && c.tooDeep(topic) {
		p.refused = c.errTooDeep()
	}
	ev := &in.ev
	ev.Reset()
	ev.Topic, ev.Payload, ev.Props = topic, p.payload, p.props
	ev.QoS, ev.Retain = p.qos, p.retain
	if p.refused == nil {
		ev.Topic, p.refused = c.rewrite(c.who(), broker.ActPublish, topic)
	}
	if p.expires {
		ev.Expires = event.ExpiresAt(c.srv.clock().UnixNano(), p.expiry)
	}
	if p.qos == 0 {
		return c.publish0(in, p.refused)
	}
	return c.publishLogged(in, &p)
}

// pace returns a fault if a PUBLISH of so many bytes is more than its client may send now.
func (c *conn) pace(in *input, size int) error {
	l := c.srv.limits.Load()
	if c.paced != l { // what was taken of another rate says nothing of this one
		c.paced, c.rates, c.publishes, c.published = l, l.ratesOf(c.principal), bucket{}, bucket{}
	}
	if c.rates == (Rates{}) {
		return nil
	}
	if n := c.rates.Messages; n > 0 {
		if err := c.within(in, &c.publishes, perSecond(n), 1, OverMessageRate, "publishes"); err != nil {
			return err
		}
	}
	if n := c.rates.Bytes; n > 0 {
		return c.within(in, &c.published, c.rates.byteRate(c.limits.Packet), int64(size), OverByteRate, "bytes of publishes")
	}
	return nil
}

// within takes n from a bucket, and returns a fault if that is too many. Who is of this process
// waits for it: a bridge publishes for others, and would bring the same again.
func (c *conn) within(in *input, b *bucket, r rate, n int64, over Over, what string) error {
	if b.takeMany(r, n, c.srv.wheel.now.Load()) {
		return nil
	}
	c.srv.stats.Over[over].Add(1)
	if !c.by.Internal {
		return &fault{codeRateTooHigh, fmt.Sprintf("more than %d %s a second", r.count, what)}
	}
	for !b.takeMany(r, n, c.srv.wheel.now.Load()) {
		in.wave.Flush() // before we block: nobody else writes what this wave holds
		time.Sleep(Tick)
		c.mu.Lock()
		over := c.ending
		c.mu.Unlock()
		if over {
			return errEnded
		}
	}
	return nil
}

// tooDeep says whether a topic, or filter, has more levels than Limits.TopicLevels.
func (c *conn) tooDeep(name string) bool {
	most := c.srv.limits.Load().TopicLevels
	if most >= topics.Limit || topics.Levels(name) <= most {
		return false
	}
	c.srv.stats.Over[OverLevels].Add(1)
	return true
}

func (c *conn) errTooDeep() error {
	return &broker.Refusal{Cause: broker.ErrQuota, Reason: "topics have at most " + strconv.Itoa(c.srv.limits.Load().TopicLevels) + " levels here"}
}

// resolve returns the topic of p, which its alias may stand for, and learns
// the alias. Nothing looks at the topic before.
func (c *conn) resolve(p *publication) (string, error) {
	if p.alias == 0 {
		return view(p.topic), nil
	}
	if int(p.alias) > c.limits.TopicAliases {
		c.srv.stats.Over[OverAliases].Add(1)
		return "", &fault{codeBadAlias, "topic alias above the Topic Alias Maximum"}
	}
	if c.aliases == nil {
		c.aliases = make([]string, c.limits.TopicAliases)
	}
	known := &c.aliases[p.alias-1]
	if len(p.topic) > 0 {
		if *known != view(p.topic) {
			if c.aliasBytes += len(p.topic) - len(*known); c.aliasBytes > c.limits.aliasBytes() {
				c.srv.stats.Over[OverAliases].Add(1)
				return "", &fault{codeQuota, fmt.Sprintf("topics that aliases stand for have together at most %d bytes here", c.limits.aliasBytes())}
			}
			*known = strings.Clone(view(p.topic))
		}
	} else if *known == "" {
		return "", protocolError("topic alias that was never set")
	}
	return *known, nil
}

// publish0 publishes in.ev with QoS 0. What is refused is counted.
func (c *conn) publish0(in *input, err error) error {
	if err == nil {
		c.inBroker = true
		_, err = c.session.Publish(&in.ev, 0, c, 0, &in.wave)
		c.inBroker = false
	}
	if err == nil {
		return nil
	}
	if code, why, ended := endOf(err); ended {
		return &fault{code, why}
	}
	c.srv.stats.Dropped[DropRefused].Add(1)
	return nil
}

// publishLogged publishes in.ev with QoS 1 or 2.
func (c *conn) publishLogged(in *input, p *publication) error {
	packet, qos2ID := byte(packets.Puback), uint16(0)
	if p.qos == 2 {
		packet, qos2ID = packets.Pubrec, p.id
	}
	tag, later, err := c.owe(in, packet, p.id)
	if err != nil {
		return err
	}
	if p.qos == 2 && c.session.Took(p.id) {
		c.Complete(tag, nil, &in.wave)
		return nil
	}
	logged, err := false, p.refused
	if err == nil {
		err = later
	}
	if err == nil {
		c.inBroker = true
		logged, err = c.session.Publish(&in.ev, qos2ID, c, tag, &in.wave)
		c.inBroker = false
	}
	if !logged {
		c.Complete(tag, err, &in.wave)
	}
	return nil
}

// handlePubrel ends a QoS 2 publish. A reason code of the client's changes
// nothing.
func (c *conn) handlePubrel(in *input, body []byte) error {
	id, _, err := parseAck(packets.Pubrel, body, c.version == 5)
	if err != nil {
		return err
	}
	tag, _, err := c.owe(in, packets.Pubcomp, id)
	if err != nil {
		return err
	}
	c.inBroker = true
	logged, err := c.session.Release(id, c, tag)
	c.inBroker = false
	if !logged {
		c.Complete(tag, err, &in.wave)
	}
	return nil
}

// handleSettle takes a PUBACK, PUBREC or PUBCOMP for what we sent.
func (c *conn) handleSettle(in *input, packet byte, body []byte) error {
	id, code, err := parseAck(packet, body, c.version == 5)
	if err != nil {
		return err
	}
	what := broker.Acked
	switch {
	case packet == packets.Pubcomp:
		what = broker.Completed
	case packet == packets.Pubrec && code < codeUnspecified:
		what = broker.Received
	case packet == packets.Pubrec:
		what = broker.Rejected
	}
	c.inBroker = true
	err = c.session.Settle(id, what, &in.wave)
	c.inBroker = false
	if errors.Is(err, broker.ErrWrongAck) {
		return protocolError("an acknowledgement that the delivery does not have")
	}
	if errors.Is(err, broker.ErrNoPacketID) && what == broker.Received {
		// The exchange is over for us: let it be over for the client. Unknown
		// PUBACKs and PUBCOMPs have no answer.
		c.mu.Lock()
		if !c.ending {
			c.dirty(&in.wave)
			c.putAck(packets.Pubrel, id, codePacketIDNotFound, "", nil)
		}
		c.mu.Unlock()
	}
	return nil
}
