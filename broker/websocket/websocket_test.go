package websocket

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// frame is a client's, with the mask given.
func frame(first byte, payload string, mask uint32) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	m := binary.BigEndian.AppendUint32(nil, mask)
	b = append(b, m...)
	for i := range len(payload) {
		b = append(b, payload[i]^m[i&3])
	}
	return b
}

// decode gives b to a Decoder in pieces and says what came of it.
func decode(b []byte, piece int) (data, control string, err error) {
	var d Decoder
	var frames strings.Builder
	for len(b) > 0 && err == nil {
		part := bytes.Clone(b[:min(piece, len(b))])
		b = b[len(part):]
		var n int
		n, err = d.Decode(part, func(op Op, payload []byte) { fmt.Fprintf(&frames, "%d:%q ", op, payload) })
		data += string(part[:n])
	}
	return data, frames.String(), err
}

// Frames of every kind and length come out as they went in, however they are cut.
func TestDecode(t *testing.T) {
	long, longer := strings.Repeat("0123456789", 30), strings.Repeat("abcdefghij", 7000)
	var all []byte
	var want string
	for i, f := range []struct {
		first   byte
		payload string
	}{
		{0x82, "whole"},
		{0x02, "be"},
		{0x89, "ping"},
		{0x00, "gi"},
		{0x80, "n"},
		{0x82, ""},
		{0x8a, ""},
		{0x82, long},
		{0x89, strings.Repeat("p", MaxControl)},
		{0x82, longer},
		{0x02, ""},
		{0x80, "x"},
	} {
		all = append(all, frame(f.first, f.payload, 0x01020304*uint32(i))...)
		if f.first&0xf < 8 {
			want += f.payload
		}
	}
	all = append(all, frame(0x88, "\x03\xe8bye", 7)...)
	all = append(all, "what follows a Close frame is dropped"...)
	wantControl := fmt.Sprintf("9:%q 10:%q 9:%q 8:%q ", "ping", "", strings.Repeat("p", MaxControl), "\x03\xe8bye")
	for _, piece := range []int{1, 2, 3, 7, 64, 4096, len(all)} {
		data, control, err := decode(all, piece)
		if err != nil || data != want || control != wantControl {
			t.Errorf("in pieces of %d: %d bytes (right: %v), control %s, %v", piece, len(data), data == want, control, err)
		}
	}
}

// Whatever breaks the protocol is found by the byte that does, with its close code;
// what came before is good.
func TestDecodeRefuses(t *testing.T) {
	header := func(b ...byte) string { return string(b) }
	for name, c := range map[string]struct {
		input string
		code  int
	}{
		"not masked":                     {header(0x82, 0x05), CodeProtocol},
		"reserved bit 1":                 {header(0xc2), CodeProtocol},
		"reserved bit 2":                 {header(0xa2), CodeProtocol},
		"reserved bit 3":                 {header(0x92), CodeProtocol},
		"text":                           {header(0x81), CodeUnsupported},
		"text in fragments":              {header(0x01), CodeUnsupported},
		"reserved data frame":            {header(0x83), CodeProtocol},
		"reserved control frame":         {header(0x8b), CodeProtocol},
		"ping in fragments":              {header(0x09), CodeProtocol},
		"close in fragments":             {header(0x08), CodeProtocol},
		"ping of 126 bytes":              {header(0x89, 0x80|126), CodeProtocol},
		"continuation of nothing":        {header(0x80), CodeProtocol},
		"message within a message":       {string(frame(0x02, "a", 1)) + header(0x82), CodeProtocol},
		"length in too many bytes":       {header(0x82, 0x80|126, 0, 125, 1, 2, 3, 4), CodeProtocol},
		"length in far too many bytes":   {header(0x82, 0x80|127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4), CodeProtocol},
		"length with its highest bit":    {header(0x82, 0x80|127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4), CodeProtocol},
		"length larger than any packet":  {header(0x82, 0x80|127, 0, 0, 0, 0, 0x10, 0, 0, 5, 1, 2, 3, 4), CodeTooBig},
		"length of four exabytes":        {header(0x82, 0x80|127, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4), CodeTooBig},
		"close code of one byte":         {string(frame(0x88, "\x03", 9)), CodeProtocol},
		"close code 999":                 {string(frame(0x88, "\x03\xe7", 9)), CodeProtocol},
		"close code 1005":                {string(frame(0x88, "\x03\xed", 9)), CodeProtocol},
		"close code 2000":                {string(frame(0x88, "\x07\xd0", 9)), CodeProtocol},
		"close code 5000":                {string(frame(0x88, "\x13\x88", 9)), CodeProtocol},
		"close reason that is not UTF-8": {string(frame(0x88, "\x03\xe8\xff\xfe", 9)), CodeInvalid},
	} {
		for _, piece := range []int{1, 1000} {
			before := string(frame(0x82, "good", 3))
			data, _, err := decode([]byte(before+c.input), piece)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != c.code || !strings.HasPrefix(data, "good") {
				t.Errorf("%s, in pieces of %d: %q, %v; want code %d", name, piece, data, err, c.code)
			}
		}
	}
	for _, payload := range []string{"", "\x03\xe8", "\x03\xf3no", "\x0b\xb8" + strings.Repeat("é", 61)} {
		if _, control, err := decode(frame(0x88, payload, 5), 1); err != nil || control != fmt.Sprintf("8:%q ", payload) {
			t.Errorf("Close %q: %s, %v", payload, control, err)
		}
	}
}

// A frame to a client has the shortest length there is, and a close reason that does
// not fit is cut between characters.
func TestAppend(t *testing.T) {
	for n, want := range map[int]string{
		0: "8200", 125: "827d", 126: "827e007e", 0xffff: "827effff", 0x10000: "827f0000000000010000",
	} {
		if got := fmt.Sprintf("%x", AppendHeader(nil, Binary, n)); got != want {
			t.Errorf("header of %d bytes: %s, want %s", n, got, want)
		}
	}
	b := AppendClose(nil, CodeNormal, strings.Repeat("é", 100))
	if len(b) != 2+2+122 || b[1] != 124 || string(b[4:]) != strings.Repeat("é", 61) {
		t.Errorf("a long reason: % x", b)
	}
	if b := AppendClose(nil, codeNone, "x"); string(b) != "\x88\x00" {
		t.Errorf("no code: % x", b)
	}
}

func request(change ...string) string {
	head := map[string]string{
		"": "GET /mqtt HTTP/1.1", "Host": "broker.example.com:8083", "Upgrade": "WebSocket", "Connection": "keep-alive, Upgrade",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "mqttv3.1, mqtt",
	}
	for i := 0; i < len(change); i += 2 {
		head[change[i]] = change[i+1]
	}
	var b strings.Builder
	b.WriteString(head[""] + "\r\n")
	for k, v := range head {
		if k != "" && v != "" {
			b.WriteString(k + ": " + v + "\r\n")
		}
	}
	return b.String() + "\r\n"
}

// A handshake that is right is answered as RFC 6455 1.3 shows it, every other with a
// status that fits, and never with an open connection.
func TestAnswer(t *testing.T) {
	const own, other = "https://broker.example.com:8083", "https://evil.example.org"
	for name, c := range map[string]struct {
		rules    Rules
		request  string
		status   int
		protocol string
	}{
		"right":                     {request: request(), status: 101, protocol: "mqtt"},
		"old client":                {request: request("Sec-WebSocket-Protocol", "mqttv3.1"), status: 101, protocol: "mqttv3.1"},
		"extensions offered":        {request: request("Sec-WebSocket-Extensions", "permessage-deflate"), status: 101, protocol: "mqtt"},
		"query":                     {request: request("", "GET /mqtt?x=1 HTTP/1.1"), status: 101, protocol: "mqtt"},
		"page of the host":          {request: request("Origin", own), status: 101, protocol: "mqtt"},
		"page of elsewhere":         {request: request("Origin", other), status: 403},
		"page of nowhere":           {request: request("Origin", "null"), status: 403},
		"page that is listed":       {rules: Rules{Origins: []string{other}}, request: request("Origin", other), status: 101, protocol: "mqtt"},
		"page that is not listed":   {rules: Rules{Origins: []string{other}}, request: request("Origin", own), status: 403},
		"any page":                  {rules: Rules{Origins: []string{"*"}}, request: request("Origin", "null"), status: 101, protocol: "mqtt"},
		"another path":              {request: request("", "GET /ws HTTP/1.1"), status: 404},
		"the path that is set":      {rules: Rules{Path: "/ws"}, request: request("", "GET /ws HTTP/1.1"), status: 101, protocol: "mqtt"},
		"POST":                      {request: request("", "POST /mqtt HTTP/1.1"), status: 405},
		"HTTP/1.0":                  {request: request("", "GET /mqtt HTTP/1.0"), status: 405},
		"no upgrade":                {request: request("Upgrade", ""), status: 426},
		"Connection without it":     {request: request("Connection", "close"), status: 426},
		"version 8":                 {request: request("Sec-WebSocket-Version", "8"), status: 426},
		"no key":                    {request: request("Sec-WebSocket-Key", ""), status: 400},
		"short key":                 {request: request("Sec-WebSocket-Key", "AAAA"), status: 400},
		"no subprotocol":            {request: request("Sec-WebSocket-Protocol", ""), status: 400},
		"subprotocols of others":    {request: request("Sec-WebSocket-Protocol", "stomp, mqtt5"), status: 400},
		"a body":                    {request: request("Content-Length", "5"), status: 400},
		"a body without its length": {request: request("Transfer-Encoding", "chunked"), status: 400},
		"no HTTP":                   {request: "\x10\x0c\x00\x04MQTT\r\n\r\n", status: 400},
	} {
		answer, err := c.rules.Answer([]byte(c.request))
		res, bad := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if bad != nil {
			t.Errorf("%s: answer %q: %v", name, answer, bad)
			continue
		}
		if res.StatusCode != c.status || (err == nil) != (c.status == 101) || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %s, %v; want %d", name, res.Status, err, c.status)
		}
		if got := res.Header.Get("Sec-WebSocket-Protocol"); got != c.protocol {
			t.Errorf("%s: subprotocol %q, want %q", name, got, c.protocol)
		}
		if c.status == 101 && (res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || res.Header.Get("Sec-WebSocket-Extensions") != "") {
			t.Errorf("%s: %v", name, res.Header)
		}
		if c.status != 101 && !res.Close && !has(res.Header, "Connection", "close") {
			t.Errorf("%s: refused, and the connection goes on: %q", name, answer)
		}
	}
}

// The end of a request is found wherever it was cut.
func TestEndOfHead(t *testing.T) {
	head := request()
	all := []byte(head + "\x82\x80")
	for begun := range len(head) {
		if got := EndOfHead(all[:len(head)-1], begun); got != 0 {
			t.Fatalf("incomplete, %d looked at: %d", begun, got)
		}
		if got := EndOfHead(all, begun); got != len(head) {
			t.Fatalf("%d looked at: %d, want %d", begun, got, len(head))
		}
	}
}

// However input is cut, what comes of it is the same: data, control frames, and where
// and why it ends.
func FuzzDecode(f *testing.F) {
	f.Add(append(frame(0x02, "ab", 1), append(frame(0x89, "p", 2), frame(0x80, "c", 3)...)...), 1)
	f.Add(append(frame(0x82, strings.Repeat("x", 200), 1), frame(0x88, "\x03\xe8", 2)...), 3)
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 5}, 2)
	f.Add([]byte{0x81, 0x80}, 1)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		if piece < 1 {
			return
		}
		data, control, err := decode(b, len(b)+1)
		data2, control2, err2 := decode(b, piece)
		if data != data2 || control != control2 || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("whole: %q %s %v\nin pieces of %d: %q %s %v", data, control, err, piece, data2, control2, err2)
		}
		if len(data) > len(b) {
			t.Fatalf("%d bytes of %d", len(data), len(b))
		}
	})
}

// Whatever is asked, the answer is HTTP, and a WebSocket is opened only by whoever
// offers one of our subprotocols and a key.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(request()))
	f.Add([]byte(request("Origin", "https://evil.example.org")))
	f.Add([]byte("GET http://[::1]/mqtt HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		answer, err := new(Rules).Answer(head)
		res, bad := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if bad != nil {
			t.Fatalf("answer %q: %v", answer, bad)
		}
		if (res.StatusCode == 101) != (err == nil) {
			t.Fatalf("%s and %v", res.Status, err)
		}
		if err == nil && (!bytes.Contains(bytes.ToLower(head), []byte("mqtt")) || !bytes.Contains(bytes.ToLower(head), []byte("sec-websocket-key"))) {
			t.Fatalf("opened by %q", head)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, size := range []int{16, 1000, 60_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			whole := bytes.Repeat(frame(0x82, strings.Repeat("x", size), 0x01020304), max(1, 64<<10/size))
			buf := make([]byte, len(whole))
			b.SetBytes(int64(len(whole)))
			var d Decoder
			for b.Loop() {
				copy(buf, whole)
				if _, err := d.Decode(buf, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
