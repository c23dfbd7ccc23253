package mqtttest

import "fmt"

// Subscribe subscribes to one filter; the broker must grant that QoS.
func (c *Client) Subscribe(filter string, qos byte) {
	c.t.Helper()
	c.SubscribeTo(nil, Filter{Filter: filter, QoS: qos})
}

// SubscribeTo subscribes with options and properties; every filter must be
// granted its QoS.
func (c *Client) SubscribeTo(props Properties, filters ...Filter) {
	c.t.Helper()
	ack := c.TrySubscribe(props, filters...)
	for i, f := range filters {
		if len(ack.Codes) != len(filters) || ack.Codes[i] != f.QoS {
			c.t.Fatalf("subscribe to %v: got %v", filters, ack)
		}
	}
}

// TrySubscribe subscribes and returns the answer, whatever it is.
func (c *Client) TrySubscribe(props Properties, filters ...Filter) *Packet {
	c.t.Helper()
	id := c.ID()
	c.Send(Subscribe{ID: id, Properties: props, Filters: filters})
	return c.Await(SUBACK, id)
}

// Unsubscribe removes filters and returns the answer.
func (c *Client) Unsubscribe(filters ...string) *Packet {
	c.t.Helper()
	id := c.ID()
	c.Send(Unsubscribe{ID: id, Filters: filters})
	return c.Await(UNSUBACK, id)
}

// Publish publishes and takes part in the whole exchange; the broker must
// accept (0x00, or 0x10 where nobody subscribes).
func (c *Client) Publish(topic string, qos byte, payload string) {
	c.t.Helper()
	c.PublishMessage(Publish{Topic: topic, QoS: qos, Payload: []byte(payload)})
}

// PublishMessage is Publish for a message with properties or flags. Its ID is
// chosen here.
func (c *Client) PublishMessage(m Publish) {
	c.t.Helper()
	if code := c.TryPublish(m); code != 0 && code != 0x10 {
		c.t.Fatalf("publish to %q: got code %#02x", m.Topic, code)
	}
}

// TryPublish publishes, takes part in the exchange as far as it goes, and
// returns the reason code of PUBACK or PUBREC. Its ID is chosen here.
func (c *Client) TryPublish(m Publish) byte {
	c.t.Helper()
	if m.QoS == 0 {
		c.Send(m)
		return 0
	}
	m.ID = c.ID()
	c.Send(m)
	if m.QoS == 1 {
		return c.Await(PUBACK, m.ID).Code
	}
	rec := c.Await(PUBREC, m.ID)
	if rec.Code >= 0x80 {
		return rec.Code
	}
	c.Send(Ack{Type: PUBREL, ID: m.ID})
	if done := c.Await(PUBCOMP, m.ID); done.Code != 0 {
		c.t.Fatalf("PUBREL for an exchange that was acknowledged: got %v", done)
	}
	return rec.Code
}

// Receive returns the next packet, which must be a PUBLISH, and takes part in
// its exchange.
func (c *Client) Receive() *Packet {
	c.t.Helper()
	p := c.Await(PUBLISH, 0)
	c.Acknowledge(p)
	return p
}

// Acknowledge takes part in the exchange of a PUBLISH that was received.
func (c *Client) Acknowledge(p *Packet) {
	c.t.Helper()
	switch p.QoS() {
	case 1:
		c.Send(Ack{Type: PUBACK, ID: p.ID})
	case 2:
		c.Send(Ack{Type: PUBREC, ID: p.ID})
		c.Await(PUBREL, p.ID)
		c.Send(Ack{Type: PUBCOMP, ID: p.ID})
	}
}

// ReceiveText receives a message with this topic and payload.
func (c *Client) ReceiveText(topic, payload string) *Packet {
	c.t.Helper()
	p := c.Receive()
	if p.Topic != topic || string(p.Payload) != payload {
		c.t.Fatalf("got %v, want %q on %q", p, payload, topic)
	}
	return p
}

// ReceiveAll receives the messages with these payloads, in this order.
func (c *Client) ReceiveAll(payloads ...string) {
	c.t.Helper()
	for i, want := range payloads {
		if p := c.Receive(); string(p.Payload) != want {
			c.t.Fatalf("message %d: got %v, want %q", i+1, p, want)
		}
	}
}

// Numbered returns the payloads from first to last, as ReceiveAll takes them.
func Numbered(first, last int) []string {
	var out []string
	for i := first; i <= last; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}
