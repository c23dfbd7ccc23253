package mqtt

import "github.com/mochi-mqtt/server/v2/packets"

// handlePing answers PINGREQ.
func (c *conn) handlePing(in *input, body []byte) error {
	if len(body) > 0 {
		return malformed("PINGREQ with a body")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending {
		c.dirty(&in.wave)
		c.sent[packets.Pingresp]++
		b := c.out.room(2)
		b[0], b[1] = packets.Pingresp<<4, 0
	}
	return nil
}

// handleDisconnect ends the connection as the client wants it. Any reason but
// success publishes the will.
func (c *conn) handleDisconnect(body []byte) error {
	code, expiry, set, err := parseDisconnect(body, c.version == 5)
	if err != nil {
		return err
	}
	if set {
		if c.expiry == 0 && expiry != 0 {
			return protocolError("session expiry set where CONNECT had none") // 5.0 3.14.2.2.2
		}
		expiry = c.limits.sessionExpiry(expiry)
	}
	c.left = left{code: code, setExpiry: set, expiry: expiry}
	return errLeft
}
