package mqtt

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/bellwire/bellwire/broker/websocket"
)

// A wsTransport carries a connection in WebSocket frames over another transport.
// Frames are taken apart in the input that they came in, and what is written is a
// frame's header in front of the output that waits: nothing is copied, and while it
// is idle such a connection holds a few words.
//
// A frame is as much as was waiting when it was begun. Its header says so, so that
// much is written before anything else, an answer to a ping included.
type wsTransport struct {
	lower transport
	rules *websocket.Rules

	// Of reading.
	opened  bool              // the handshake is complete
	head    []byte            // of the request, as far as it has come
	rest    *input            // what came behind it; nil for none
	decoder websocket.Decoder // of what comes then
	failed  error             // to be told when what came before has been taken
	closing bool              // the client has sent a Close frame

	// Of writing.
	staged []byte   // to be written before all else: it is on its way
	first  [16]byte // what a header lies in
	left   int      // of the frame that was begun, behind staged
	ended  bool     // a Close frame was staged: nothing follows it (RFC 6455 5.5.1)
	vecs   [][]byte // of the write under way

	mu      sync.Mutex // guards the following
	answer  []byte     // to the handshake, not yet staged
	pong    []byte     // a frame, likewise; a newer one takes its place (RFC 6455 5.5.3)
	goodbye []byte     // a Close frame, likewise
	said    bool       // a Close frame was made
	asked   bool       // one of these is new
}

func (t *wsTransport) read(hungry bool) (*input, error) {
	if t.failed != nil {
		return nil, t.failed
	}
	for {
		in, err := t.next(hungry)
		if err != nil {
			return nil, err
		}
		if !t.opened {
			if err := t.shake(in); err != nil {
				return nil, err
			}
			if t.isAsked() {
				return newInput(false), nil
			}
			continue
		}
		n, err := t.decoder.Decode(in.buf[:in.n], t.control)
		if err != nil {
			t.failed = err
			e, _ := errors.AsType[*websocket.Error](err)
			t.sayClose(e.Code, e.Why)
		} else if t.closing {
			t.failed = io.EOF
		}
		asked := t.isAsked()
		if in.n = n; n > 0 || asked && t.failed == nil {
			return in, nil
		}
		in.release()
		if t.failed != nil {
			return nil, t.failed
		}
	}
}

// next returns what was read already, or reads.
func (t *wsTransport) next(hungry bool) (*input, error) {
	if in := t.rest; in != nil {
		t.rest = nil
		return in, nil
	}
	return t.lower.read(hungry)
}

// shake goes on with the handshake. Whoever sends it slowly has until the connection
// must have become a client's; see Limits.ConnectTimeout.
func (t *wsTransport) shake(in *input) error {
	looked := len(t.head)
	fits := min(in.n, websocket.MaxHead-looked)
	t.head = append(t.head, in.buf[:fits]...)
	end := websocket.EndOfHead(t.head, looked)
	var answer []byte
	var err error
	switch {
	case end > 0:
		answer, err = t.rules.Answer(t.head[:end])
	case fits < in.n || len(t.head) == websocket.MaxHead:
		answer, err = websocket.TooLarge()
	default:
		in.release()
		return nil
	}
	t.mu.Lock()
	t.answer, t.asked = answer, true
	t.said = err != nil // nor is there a Close frame without a WebSocket
	t.mu.Unlock()
	t.head = nil
	if err != nil {
		in.release()
		return err
	}
	t.opened = true
	if in.n = copy(in.buf, in.buf[end-looked:in.n]); in.n > 0 {
		t.rest = in
	} else {
		in.release()
	}
	return nil
}

// control answers a control frame.
func (t *wsTransport) control(op websocket.Op, payload []byte) {
	switch op {
	case websocket.Ping:
		t.mu.Lock()
		t.pong, t.asked = websocket.AppendControl(nil, websocket.Pong, payload), true
		t.mu.Unlock()
	case websocket.Close:
		t.closing = true
		t.sayClose(websocket.CloseCode(payload), "")
	}
}

// sayClose has a Close frame written, if none was.
func (t *wsTransport) sayClose(code int, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.said {
		t.said, t.asked = true, true
		t.goodbye = websocket.AppendClose(nil, code, why)
	}
}

// isAsked says whether there is something to answer that nobody has seen.
func (t *wsTransport) isAsked() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	asked := t.asked
	t.asked = false
	return asked
}

func (t *wsTransport) owes() bool {
	t.mu.Lock()
	owes := len(t.answer)+len(t.pong)+len(t.goodbye)+len(t.staged) > 0
	t.mu.Unlock()
	return owes || t.lower.owes()
}

func (t *wsTransport) write(bufs [][]byte, wait bool) (n int, err error) {
	offered := sizeOf(bufs)
	for {
		if !t.stage(offered - n) {
			return offered, nil
		}
		t.vecs = vectors(t.vecs[:0], t.staged, bufs, n, t.left)
		all := sizeOf(t.vecs)
		wrote, err := t.lower.write(t.vecs, wait && n == 0)
		clear(t.vecs)
		if cap(t.vecs) > 8 {
			t.vecs = nil
		}
		k := t.unstage(wrote)
		n += wrote - k
		t.left -= wrote - k
		if err != nil || wrote < all || n == offered && (t.left > 0 || !t.leaves()) {
			return n, err
		}
	}
}

// stage begins a frame of n bytes, with what is owed before it; but if one is on its
// way that goes on. A Close frame comes behind what waits now, and is the last: ok is false
// once it is written, and what is to be written then goes to nobody.
func (t *wsTransport) stage(n int) (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.staged) > 0 || t.left > 0 {
		return true
	}
	if t.ended {
		return false
	}
	t.staged = append(append(t.first[:0], t.answer...), t.pong...)
	t.answer, t.pong = nil, nil
	if n > 0 {
		t.staged = websocket.AppendHeader(t.staged, websocket.Binary, n)
		t.left = n
		return true
	}
	t.staged = append(t.staged, t.goodbye...)
	t.ended, t.goodbye = len(t.goodbye) > 0, nil
	return true
}

// leaves says whether a Close frame waits to be staged.
func (t *wsTransport) leaves() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.goodbye) > 0
}

// unstage notes that n bytes were written, and returns how many of them were staged.
func (t *wsTransport) unstage(n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n = min(n, len(t.staged))
	if t.staged = t.staged[n:]; len(t.staged) == 0 {
		t.staged = nil
	}
	return n
}

// vectors appends to v what is staged, and the n bytes of bufs behind the first skip.
func vectors(v [][]byte, staged []byte, bufs [][]byte, skip, n int) [][]byte {
	if len(staged) > 0 {
		v = append(v, staged)
	}
	for _, b := range bufs {
		k := min(skip, len(b))
		skip -= k
		b = b[k:]
		if b = b[:min(n, len(b))]; len(b) > 0 {
			v = append(v, b)
			n -= len(b)
		}
	}
	return v
}

func (t *wsTransport) wake()  { t.lower.wake() }
func (t *wsTransport) calm()  { t.lower.calm() }
func (t *wsTransport) probe() { t.lower.probe() }

// finish says goodbye in WebSocket, too, as far as the socket takes it.
func (t *wsTransport) finish() {
	t.sayClose(websocket.CodeNormal, "")
	if t.owes() {
		_, _ = t.write(nil, false)
	}
	t.lower.finish()
}

func (t *wsTransport) close(reset bool) { t.lower.close(reset) }

func (t *wsTransport) remote() net.Addr { return t.lower.remote() }

func (t *wsTransport) security() *tls.ConnectionState { return t.lower.security() }
