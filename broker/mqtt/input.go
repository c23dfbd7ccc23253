package mqtt

import "github.com/mochi-mqtt/server/v2/packets"

// consume handles every packet that in completes, and keeps what is left over
// of one that has only begun.
func (c *conn) consume(in *input) error {
	b := in.buf[:in.n]
	c.hungry = in.n == len(in.buf)
	whole := false // a packet was completed
	if len(c.partial) > 0 {
		var err error
		if b, err = c.resume(in, b); err != nil {
			return err
		}
		whole = len(c.partial) == 0
	}
	for len(b) > 0 {
		body, size, err := c.frame(b)
		if err != nil {
			return err
		}
		if size == 0 || size > len(b) {
			c.keep(b, size)
			break
		}
		whole = true
		if err := c.handle(in, b[0], b[body:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	if whole && (c.accepted || c.auth == nil) { // an exchange does not buy time for CONNACK
		// Now, not when it came: what the broker took for it is not the
		// client's silence.
		c.seen.Store(c.srv.wheel.now.Load())
	}
	return nil
}

// frame reads the frame that begins b, as frameSize does, and refuses what may
// not come now or is too large, before its body is waited for.
func (c *conn) frame(b []byte) (body, size int, err error) {
	if !c.accepted && c.auth == nil && b[0]>>4 != packets.Connect {
		return 0, 0, errSilent
	}
	if err := checkFirst(b[0], c.version); err != nil {
		return 0, 0, err
	}
	body, size, err = frameSize(b)
	switch {
	case err != nil && !c.accepted:
		return 0, 0, errSilent
	case err != nil:
		return 0, 0, err
	case !c.accepted && size > c.limits.ConnectPacket:
		c.srv.stats.Over[OverConnectPacket].Add(1)
		return 0, 0, errSilent
	case size > c.limits.Packet:
		c.srv.stats.Over[OverPacket].Add(1)
		return 0, 0, &fault{codeTooLarge, "packet is larger than the Maximum Packet Size"}
	}
	return body, size, nil
}

// keep puts the beginning of a packet aside, in memory of its own: the input
// goes back to the pool. size is that of the packet, 0 if not yet known.
//
// The memory grows with what has come, never with what was announced: a
// client has to send a megabyte to make us hold two.
func (c *conn) keep(b []byte, size int) {
	need := len(c.partial) + len(b)
	if need > cap(c.partial) {
		room := need
		if len(c.partial) > 0 && size > 0 {
			room = min(2*need, size)
		}
		c.partial = append(make([]byte, 0, max(room, need)), c.partial...)
	}
	c.partial = append(c.partial, b...)
}

// resume goes on with the packet that has begun: it completes and handles it,
// if b has the rest, and returns what of b comes behind.
func (c *conn) resume(in *input, b []byte) ([]byte, error) {
	for {
		body, size, err := c.frame(c.partial)
		if err != nil {
			return nil, err
		}
		n := size - len(c.partial)
		if size == 0 { // the length itself is not complete
			n = 1
		}
		if n > len(b) {
			c.keep(b, size)
			return nil, nil
		}
		c.keep(b[:n], size)
		b = b[n:]
		if size > 0 {
			p := c.partial
			c.partial = nil
			return b, c.handle(in, p[0], p[body:])
		}
	}
}
