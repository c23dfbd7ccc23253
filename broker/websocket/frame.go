package websocket

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// An Op says what a frame is (RFC 6455 5.2).
type Op byte

const (
	continuation Op = 0
	text         Op = 1
	Binary       Op = 2
	Close        Op = 8
	Ping         Op = 9
	Pong         Op = 10
)

// Codes of a Close frame (RFC 6455 7.4.1).
const (
	CodeNormal      = 1000
	CodeGoingAway   = 1001
	CodeProtocol    = 1002
	CodeUnsupported = 1003
	CodeInvalid     = 1007
	CodeTooBig      = 1009
	codeNone        = 1005 // of a Close frame that has none; never on the wire
)

const (
	// MaxControl is the largest payload of a control frame (RFC 6455 5.5).
	MaxControl = 125

	// MaxHeader is the largest header of a frame to a client.
	MaxHeader = 10

	// MaxFrame is the largest payload of one frame that a client may send: as
	// much as the largest MQTT packet. What is in a frame is handed on as it
	// comes, so this bounds no memory; it ends early who means no MQTT.
	MaxFrame = 268_435_460
)

// An Error is how a client broke the protocol, and the code of the Close frame
// that tells it.
type Error struct {
	Code int
	Why  string
}

func (e *Error) Error() string { return fmt.Sprintf("websocket: %s (close code %d)", e.Why, e.Code) }

func broken(why string) error { return &Error{CodeProtocol, why} }

// A Decoder takes the frames of one client apart. The zero Decoder is at the
// beginning of a connection, behind the handshake. Not for several goroutines.
type Decoder struct {
	head    [14]byte // of the frame whose header is not complete
	has     uint8    // bytes in it
	op      Op       // of the frame whose payload is being read
	in      bool     // a frame's payload is being read
	message bool     // a message has begun whose last frame has not come
	turn    uint8    // which byte of mask is next
	mask    [4]byte
	left    uint64 // of the payload, not yet read
	control []byte // payload of a control frame so far; nil between them
	closed  bool   // a Close frame has come: what follows is not looked at
}

// Decode takes b apart, which is what came next. It moves the payload of data
// frames to the front of b and returns how much that is; each control frame it
// hands to control, with a payload that is good until control returns. A Close
// frame is handed on with the code and the reason as they came, checked, and
// everything behind it is dropped. On an error the n bytes that came before are
// good, and the Decoder is not to be used again.
func (d *Decoder) Decode(b []byte, control func(op Op, payload []byte)) (n int, err error) {
	for at := 0; !d.closed && (at < len(b) || d.in && d.left == 0); {
		if !d.in {
			used, err := d.header(b[at:])
			if at += used; err != nil {
				return n, err
			}
			continue
		}
		p := b[at : at+int(min(d.left, uint64(len(b)-at)))]
		at += len(p)
		d.left -= uint64(len(p))
		d.unmask(p)
		if d.op < Close {
			n += copy(b[n:], p)
		} else {
			d.control = append(d.control, p...)
		}
		if d.left > 0 {
			continue
		}
		d.in = false
		if d.op >= Close {
			if err := d.end(control); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// header reads as much of a frame's header as b has and says how much that was.
// A fault is found as soon as its byte has come.
func (d *Decoder) header(b []byte) (used int, err error) {
	for used < len(b) {
		d.head[d.has] = b[used]
		d.has++
		used++
		switch d.has {
		case 1:
			err = d.checkFirst()
		case 2:
			err = d.checkSecond()
		}
		if err != nil {
			return used, err
		}
		if d.has >= 2 && int(d.has) == d.headerSize() {
			return used, d.begin()
		}
	}
	return used, nil
}

func (d *Decoder) checkFirst() error {
	b := d.head[0]
	fin, op := b&0x80 != 0, Op(b&0xf)
	switch {
	case b&0x70 != 0:
		return broken("reserved bits are set, and no extension was agreed on")
	case op == text:
		return &Error{CodeUnsupported, "a text frame: MQTT goes in binary frames"} // 5.0 [MQTT-6.0.0-1]
	case op > Binary && op < Close || op > Pong:
		return broken("a frame of a reserved kind")
	case op >= Close && !fin:
		return broken("a control frame in fragments")
	case op == Binary && d.message:
		return broken("a new message within a message")
	case op == continuation && !d.message:
		return broken("a continuation of nothing")
	}
	return nil
}

func (d *Decoder) checkSecond() error {
	switch b := d.head[1]; {
	case b&0x80 == 0:
		return broken("a client's frame that is not masked")
	case Op(d.head[0]&0xf) >= Close && b&0x7f > MaxControl:
		return broken("a control frame of more than 125 bytes")
	}
	return nil
}

// headerSize is how long the header is, which its second byte tells.
func (d *Decoder) headerSize() int {
	switch d.head[1] & 0x7f {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	}
	return 2 + 4
}

// begin begins a payload: the header is complete.
func (d *Decoder) begin() error {
	size := d.headerSize()
	n := uint64(d.head[1] & 0x7f)
	switch n {
	case 126:
		if n = uint64(binary.BigEndian.Uint16(d.head[2:])); n < 126 {
			return broken("a length in more bytes than it takes")
		}
	case 127:
		n = binary.BigEndian.Uint64(d.head[2:])
		switch {
		case n>>63 != 0:
			return broken("a length with its highest bit set")
		case n <= 0xffff:
			return broken("a length in more bytes than it takes")
		}
	}
	if n > MaxFrame {
		return &Error{CodeTooBig, "a frame larger than the largest MQTT packet"}
	}
	copy(d.mask[:], d.head[size-4:size])
	d.op = Op(d.head[0] & 0xf)
	d.in, d.left, d.turn, d.has = true, n, 0, 0
	if d.op < Close {
		d.message = d.head[0]&0x80 == 0
	}
	return nil
}

// unmask takes the mask off b, eight bytes at a time where there are as many.
func (d *Decoder) unmask(b []byte) {
	for len(b) > 0 && d.turn != 0 {
		b[0] ^= d.mask[d.turn]
		d.turn = (d.turn + 1) & 3
		b = b[1:]
	}
	m := uint64(binary.LittleEndian.Uint32(d.mask[:]))
	m |= m << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^m)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= d.mask[d.turn]
		d.turn = (d.turn + 1) & 3
	}
}

// end hands on a control frame that is complete.
func (d *Decoder) end(control func(Op, []byte)) error {
	if d.op == Close {
		if err := checkClose(d.control); err != nil {
			return err
		}
		d.closed = true
	}
	control(d.op, d.control)
	d.control = nil
	return nil
}

// checkClose checks what a Close frame says (RFC 6455 7.4).
func checkClose(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) == 1 {
		return broken("a close code of one byte")
	}
	switch code := binary.BigEndian.Uint16(b); {
	case code < 1000, code == 1004, code == 1005, code == 1006, code > 1014 && code < 3000, code > 4999:
		return broken(fmt.Sprintf("close code %d", code))
	}
	if !utf8.Valid(b[2:]) {
		return &Error{CodeInvalid, "a close reason that is not UTF-8"}
	}
	return nil
}

// CloseCode is the code of a Close frame's payload that was checked; 1005 if it has
// none.
func CloseCode(payload []byte) int {
	if len(payload) < 2 {
		return codeNone
	}
	return int(binary.BigEndian.Uint16(payload))
}

// AppendHeader appends the header of a frame to a client with a payload of n bytes,
// which is to follow as it is: a server's frames are not masked.
func AppendHeader(b []byte, op Op, n int) []byte {
	b = append(b, 0x80|byte(op))
	switch {
	case n < 126:
		return append(b, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

// AppendControl appends a control frame to a client. payload has at most MaxControl
// bytes.
func AppendControl(b []byte, op Op, payload []byte) []byte {
	return append(AppendHeader(b, op, len(payload)), payload...)
}

// AppendClose appends a Close frame to a client. why, which must be UTF-8, is cut to
// what fits.
func AppendClose(b []byte, code int, why string) []byte {
	if code == codeNone {
		return AppendControl(b, Close, nil)
	}
	for len(why) > MaxControl-2 || !utf8.ValidString(why) {
		why = why[:min(len(why)-1, MaxControl-2)]
	}
	return AppendControl(b, Close, append(binary.BigEndian.AppendUint16(nil, uint16(code)), why...))
}
