package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

func v2(command, family byte, body string) string {
	b := append([]byte(nil), signature...)
	b = append(b, command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(b) + body
}

// Both versions' headers are read, however they are cut, and what follows is left.
func TestParse(t *testing.T) {
	ip6 := netip.MustParseAddr("2001:db8::7").As16()
	for name, c := range map[string]struct{ header, from string }{
		"v1 TCP4":           {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1:56324"},
		"v1 TCP6":           {"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "[2001:db8::1]:1"},
		"v1 unknown":        {"PROXY UNKNOWN\r\n", ""},
		"v1 unknown, more":  {"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ""},
		"v2 local":          {v2(0x20, 0, ""), ""},
		"v2 local, more":    {v2(0x20, 0x11, "\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"), ""},
		"v2 IPv4":           {v2(0x21, 0x11, "\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x07\x5b"), "192.0.2.1:56324"},
		"v2 IPv4, more":     {v2(0x21, 0x11, "\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x07\x5b\x20\x00\x01x"), "192.0.2.1:56324"},
		"v2 IPv6":           {v2(0x21, 0x21, string(ip6[:])+string(ip6[:])+"\x00\x07\x00\x08"), "[2001:db8::7]:7"},
		"v2 unix":           {v2(0x21, 0x31, strings.Repeat("\x00", 216)), ""},
		"v2 unspecified":    {v2(0x21, 0x00, ""), ""},
		"v2 of 2 KiB":       {v2(0x20, 0, strings.Repeat("x", MaxHeader-16)), ""},
		"v2 v4 mapped to 6": {v2(0x21, 0x21, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x09"+string(ip6[:])+"\x00\x07\x00\x08"), "192.0.2.9:7"},
	} {
		all := []byte(c.header + "\x10\x0cMQTT")
		for cut := range len(c.header) {
			if from, n, err := Parse(all[:cut]); n != 0 || err != nil || from.IsValid() {
				t.Fatalf("%s: the first %d bytes: %v %d %v", name, cut, from, n, err)
			}
		}
		from, n, err := Parse(all)
		want, _ := netip.ParseAddrPort(c.from)
		if err != nil || n != len(c.header) || from != want {
			t.Errorf("%s: %v, %d bytes, %v; want %v, %d", name, from, n, err, want, len(c.header))
		}
	}
}

// What is no header is refused, and what is too large before it has come.
func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]string{
		"MQTT":                "\x10",
		"TLS":                 "\x16\x03\x01",
		"HTTP":                "GET /",
		"HTTP, too":           "POST",
		"v1 in small letters": "proxy",
		"v1 without end":      "PROXY TCP4 " + strings.Repeat("1", 96),
		"v1 three fields":     "PROXY TCP4 192.0.2.1\r\n",
		"v1 UDP":              "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
		"v1 other family":     "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
		"v1 a name":           "PROXY TCP4 example.com 198.51.100.1 1 2\r\n",
		"v1 port":             "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n",
		"v1 a zone":           "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
		"v2 signature":        "\r\n\r\n\x00\r\nQUIX",
		"v2 version 1":        v2(0x11, 0x11, ""),
		"v2 command 2":        v2(0x22, 0x11, ""),
		"v2 family 4":         v2(0x21, 0x41, ""),
		"v2 IPv4 cut":         v2(0x21, 0x11, "\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x07"),
		"v2 IPv6 cut":         v2(0x21, 0x21, strings.Repeat("\x00", 35)),
		"v2 larger than read": string(signature) + "\x21\x11\xff\xff",
		"v2 a little larger":  string(signature) + "\x21\x11\x07\xf1",
	} {
		if from, _, err := Parse([]byte(c)); err != ErrHeader || from.IsValid() {
			t.Errorf("%s: %v, %v; want ErrHeader", name, from, err)
		}
	}
}

// Any input is a header, the beginning of one, or none, and stays what it is when
// more comes.
func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"))
	f.Add([]byte(v2(0x21, 0x11, "\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x07\x5b")))
	f.Add([]byte(v2(0x20, 0, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, n, err := Parse(b)
		if n > len(b) || n > MaxHeader || err != nil && err != ErrHeader {
			t.Fatalf("%v %d %v", from, n, err)
		}
		if len(b) >= MaxHeader && n == 0 && err == nil {
			t.Fatalf("%d bytes, and more is waited for", len(b))
		}
		if n > 0 {
			if again, m, bad := Parse(append(b[:n:n], "more"...)); again != from || m != n || bad != err {
				t.Fatalf("%v %d %v, and with more behind it %v %d %v", from, n, err, again, m, bad)
			}
		}
	})
}
