package mqtttest

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A WebSocket is the client's side of a WebSocket as a net.Conn: what is written goes
// in binary frames, and what is read comes out of them. The server's frames are held
// to RFC 6455. One goroutine may write while another reads.
type WebSocket struct {
	net.Conn

	// Split is the most that is put in one frame; 0 puts each Write in one.
	Split int

	// Fragment makes each Write one message of many frames, and not a message of
	// each frame.
	Fragment bool

	// CloseCode is that of the server's Close frame, 0 before it came.
	CloseCode int

	// Pongs are the payloads of those that came.
	Pongs []string

	in   *bufio.Reader
	left uint64 // of the frame that is being read
}

// OpenWebSocket does the handshake on a connection, of whatever kind, with /mqtt and
// the subprotocol mqtt.
func OpenWebSocket(nc net.Conn, host string, headers ...string) (*WebSocket, error) {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // it does not fail
	request := "GET /mqtt HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: " + base64.StdEncoding.EncodeToString(key) + "\r\n"
	for _, h := range headers {
		request += h + "\r\n"
	}
	if err := nc.SetDeadline(time.Now().Add(Patience)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(nc, request+"\r\n"); err != nil {
		return nil, err
	}
	w := &WebSocket{Conn: nc, in: bufio.NewReader(nc)}
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	if p := res.Header.Get("Sec-WebSocket-Protocol"); p != "mqtt" {
		return nil, fmt.Errorf("subprotocol %q, want mqtt", p)
	}
	return w, nc.SetDeadline(time.Time{})
}

// Frame builds a client's frame, masked.
func (w *WebSocket) Frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:])
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i&3])
	}
	return b
}

// Write sends p in frames.
func (w *WebSocket) Write(p []byte) (int, error) {
	const final, binaryFrame = 0x80, 0x02
	size := w.Split
	if size == 0 {
		size = max(len(p), 1)
	}
	var b []byte
	for i, rest := 0, p; len(rest) > 0; i++ {
		part := rest[:min(size, len(rest))]
		rest = rest[len(part):]
		first := byte(final | binaryFrame)
		if w.Fragment {
			first = 0
			if i == 0 {
				first = binaryFrame
			}
			if len(rest) == 0 {
				first |= final
			}
		}
		b = append(b, w.Frame(first, part)...)
	}
	if _, err := w.Conn.Write(b); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read reads what the server's data frames hold. A Close frame ends it with io.EOF.
func (w *WebSocket) Read(p []byte) (int, error) {
	for w.left == 0 {
		// Looked at before it is taken: a deadline may come within it.
		head, err := w.in.Peek(2)
		if err != nil {
			return 0, err
		}
		size, n := 2, uint64(head[1]&0x7f)
		switch n {
		case 126:
			size = 4
		case 127:
			size = 10
		}
		if head, err = w.in.Peek(size); err != nil {
			return 0, err
		}
		switch size {
		case 4:
			n = uint64(binary.BigEndian.Uint16(head[2:]))
		case 10:
			n = binary.BigEndian.Uint64(head[2:])
		}
		if err := w.begin(head[0], head[1], size, n); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(uint64(len(p)), w.left)])
	w.left -= uint64(n)
	return n, err
}

// begin takes a frame's header, and the whole of a control frame.
func (w *WebSocket) begin(first, second byte, size int, n uint64) error {
	op := first & 0xf
	if first&0xf0 != 0x80 || second&0x80 != 0 || op >= 8 && n > 125 || size == 4 && n < 126 || size == 10 && n <= 0xffff {
		return fmt.Errorf("the server sent a frame that begins %02x %02x, of %d bytes", first, second, n)
	}
	if op == 2 {
		w.left = n
		_, err := w.in.Discard(size)
		return err
	}
	b, err := w.in.Peek(size + int(n))
	if err != nil {
		return err
	}
	payload := string(b[size:])
	if _, err := w.in.Discard(len(b)); err != nil {
		return err
	}
	switch op {
	case 8:
		if w.CloseCode = 1005; len(payload) >= 2 {
			w.CloseCode = int(binary.BigEndian.Uint16([]byte(payload)))
		}
		return io.EOF
	case 10:
		w.Pongs = append(w.Pongs, payload)
		return nil
	}
	return errors.New("the server sent a frame of another kind than binary, close and pong")
}
