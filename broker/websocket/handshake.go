package websocket

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// MaxHead is the largest request of a handshake, in bytes, that is read.
const MaxHead = 8 << 10

// Rules say who may open a WebSocket.
type Rules struct {
	// Path of the URL. Default /mqtt.
	Path string

	// Origins are the web pages that may, as browsers name them:
	// https://app.example.com, with the port if it is not the scheme's own; "*" for
	// all. Programs that are no browsers name none and are let in. None given means
	// that a page must come from the host that it connects to: credentials are in
	// CONNECT, so a strange page could use nobody's by stealth, but it could use a
	// visitor's way into a network.
	Origins []string
}

// ErrRefused is why a handshake came to nothing; what it wraps says more, and so does
// the answer to the client.
var ErrRefused = errors.New("websocket: handshake refused")

// EndOfHead returns how many bytes of b the request is that b begins with, 0 if it is
// not complete. begun is how much of b was looked at before.
func EndOfHead(b []byte, begun int) int {
	from := max(0, begun-3)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4
	}
	return 0
}

// Answer returns the answer to a request, as EndOfHead found it: one that opens the
// WebSocket, or with an ErrRefused one that says why not, after which the connection
// ends.
func (r *Rules) Answer(head []byte) (answer []byte, err error) {
	req, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), 16))
	if err != nil {
		return refuse(http.StatusBadRequest, "this is no HTTP request")
	}
	path := r.Path
	if path == "" {
		path = "/mqtt"
	}
	key := req.Header.Get("Sec-Websocket-Key")
	switch raw, err := base64.StdEncoding.DecodeString(key); {
	case req.URL.Path != path:
		return refuse(http.StatusNotFound, "MQTT is at "+path)
	case req.Method != http.MethodGet || !req.ProtoAtLeast(1, 1):
		return refuse(http.StatusMethodNotAllowed, "a WebSocket is opened by GET and HTTP/1.1")
	case !has(req.Header, "Connection", "upgrade") || !has(req.Header, "Upgrade", "websocket"):
		return refuse(http.StatusUpgradeRequired, "here is MQTT by WebSocket: open "+path+" with a client for that")
	case req.Header.Get("Sec-Websocket-Version") != "13":
		return refuse(http.StatusUpgradeRequired, "version 13 of the protocol is spoken here")
	case req.Host == "" || req.ContentLength != 0:
		return refuse(http.StatusBadRequest, "a request without Host, or with a body")
	case err != nil || len(raw) != 16 || len(req.Header["Sec-Websocket-Key"]) != 1:
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64")
	case !r.mayOpen(req):
		return refuse(http.StatusForbidden, "pages of this origin may not open a WebSocket here: the operator lists those that may")
	}
	protocol := agree(req.Header)
	if protocol == "" {
		return refuse(http.StatusBadRequest, "the client does not offer the subprotocol mqtt: set Sec-WebSocket-Protocol")
	}
	return fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", acceptOf(key), protocol), nil
}

// TooLarge is the answer to a request of more than MaxHead bytes.
func TooLarge() (answer []byte, err error) {
	return refuse(http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("a request of more than %d bytes", MaxHead))
}

func refuse(status int, why string) ([]byte, error) {
	connection := "Connection: close"
	if status == http.StatusUpgradeRequired {
		connection = "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
	}
	answer := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s\n",
		status, http.StatusText(status), connection, len(why)+1, why)
	return answer, fmt.Errorf("%w: %s", ErrRefused, why)
}

// agree picks a subprotocol of those that a client offers, empty for none. mqtt is
// that of the standard (5.0 [MQTT-6.0.0-3]); clients of before it offer mqttv3.1
// alone, and would hang up on any other.
func agree(h http.Header) string {
	for _, p := range []string{"mqtt", "mqttv3.1"} {
		for _, line := range h["Sec-Websocket-Protocol"] {
			for offered := range strings.SplitSeq(line, ",") {
				if strings.TrimSpace(offered) == p {
					return p
				}
			}
		}
	}
	return ""
}

// has says whether a header that is a list has a token.
func has(h http.Header, name, token string) bool {
	for _, line := range h[name] {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// mayOpen holds a browser's page to the Origins.
func (r *Rules) mayOpen(req *http.Request) bool {
	if len(req.Header["Origin"]) == 0 {
		return true
	}
	origin := req.Header.Get("Origin")
	if len(req.Header["Origin"]) != 1 {
		return false
	}
	if len(r.Origins) == 0 {
		u, err := url.Parse(origin)
		return err == nil && u.Host != "" && strings.EqualFold(u.Host, req.Host)
	}
	return slices.ContainsFunc(r.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
}

// acceptOf proves that the handshake was understood (RFC 6455 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
