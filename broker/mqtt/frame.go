package mqtt

import (
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/internal/wire"
)

// The frame of a packet: one byte of type and flags, the remaining length in
// one to four bytes, the body.

const (
	maxRemaining = 268_435_455 // the largest remaining length there is
	maxVarint    = 4           // bytes of a variable byte integer
	maxHeader    = 1 + maxVarint
)

// dup is the flag of a packet that was sent before.
const dup = 8

// checkFirst says whether a client of that version may send a packet that begins
// with b to us. It is asked as soon as that byte has come: what cannot become a
// packet is not waited for. The flags of CONNECT are checked with its protocol
// level, on which the answer depends.
func checkFirst(b, version byte) error {
	flags := b & 0xf
	switch b >> 4 {
	case packets.Publish:
		switch {
		case flags&6 == 6:
			return malformed("QoS 3")
		case flags&6 == 0 && flags&dup != 0:
			return malformed("DUP with QoS 0")
		}
		return nil
	case packets.Connect:
		return nil
	case packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		if flags != 2 && (version != 3 || flags != 2|dup) { // 3.1 marks these, too, when they are sent again
			return malformed("flags of the fixed header")
		}
		return nil
	case packets.Puback, packets.Pubrec, packets.Pubcomp, packets.Pingreq, packets.Disconnect, packets.Auth:
		if flags != 0 {
			return malformed("flags of the fixed header")
		}
		return nil
	case 0:
		return malformed("packet type 0")
	default:
		return protocolError("a packet that only a server sends")
	}
}

// frameSize reads the frame that begins b: where its body starts and how long
// it is with its header. size is 0 if b ends before that can be told. A
// remaining length of more than four bytes, or longer than it need be, is a
// fault.
func frameSize(b []byte) (body, size int, err error) {
	n := 0
	for i := 1; i < len(b); i++ {
		n |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			if b[i] == 0 && i > 1 {
				return 0, 0, malformed("remaining length is longer than need be")
			}
			return i + 1, i + 1 + n, nil
		}
		if i == maxHeader-1 {
			return 0, 0, malformed("remaining length of more than four bytes")
		}
	}
	return 0, 0, nil
}

// putVarint writes n as a variable byte integer to the front of b and returns
// its length.
func putVarint(b []byte, n int) int {
	i := 0
	for ; n >= 0x80; i++ {
		b[i] = byte(n) | 0x80
		n >>= 7
	}
	b[i] = byte(n)
	return i + 1
}

// packetSize is the size of a packet with a body of n bytes.
func packetSize(n int) int { return 1 + wire.VarintLen(n) + n }
