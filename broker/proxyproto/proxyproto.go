// Package proxyproto reads the header by which a proxy tells, before all else on a
// connection, whose connection it is: HAProxy's PROXY protocol, versions 1 and 2.
// It is bytes in, an address out; whom to believe it, the caller knows.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// MaxHeader is the largest header that is read, in bytes: version 2 allows 64 KiB of
// what a proxy may add, of which nothing is used here.
const MaxHeader = 2 << 10

// maxV1 is the largest header of version 1, its end included.
const maxV1 = 107

// ErrHeader is a header that is none: who sends it is no proxy, or one that is told
// to speak otherwise.
var ErrHeader = errors.New("no header of the PROXY protocol")

var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// Parse reads the header that begins b and says how long it is: 0 if b ends before it
// does. from is whose connection it is; invalid if the proxy does not say, because the
// connection is its own (a health check), or of a kind that has no IP address. A
// header that cannot become one is refused by the first byte that makes it so.
func Parse(b []byte) (from netip.AddrPort, n int, err error) {
	switch {
	case len(b) == 0:
		return from, 0, nil
	case b[0] == 'P':
		return parseV1(b)
	}
	if k := min(len(b), len(signature)); !bytes.Equal(b[:k], signature[:k]) {
		return from, 0, ErrHeader
	}
	if len(b) < 16 {
		return from, 0, nil
	}
	size := 16 + int(binary.BigEndian.Uint16(b[14:]))
	command := b[12]
	if command>>4 != 2 || command&0xf > 1 || size > MaxHeader {
		return from, 0, ErrHeader
	}
	if len(b) < size {
		return from, 0, nil
	}
	if command&0xf == 0 { // LOCAL: the proxy's own
		return from, size, nil
	}
	from, err = addressV2(b[13]>>4, b[16:size])
	return from, size, err
}

// addressV2 reads the addresses of a header of version 2: of both ends, then their
// ports. What follows them is the proxy's to add, and nobody's to understand.
func addressV2(family byte, b []byte) (from netip.AddrPort, err error) {
	const unspecified, inet, inet6, unix = 0, 1, 2, 3
	size := 0
	switch family {
	case unspecified, unix:
		return from, nil
	case inet:
		size = 4
	case inet6:
		size = 16
	default:
		return from, ErrHeader
	}
	if len(b) < 2*size+4 {
		return from, ErrHeader
	}
	addr, _ := netip.AddrFromSlice(b[:size])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(b[2*size:])), nil
}

// parseV1 reads a line such as "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443".
func parseV1(b []byte) (from netip.AddrPort, n int, err error) {
	const begin = "PROXY "
	if k := min(len(b), len(begin)); string(b[:k]) != begin[:k] {
		return from, 0, ErrHeader
	}
	line, _, ended := bytes.Cut(b[:min(len(b), maxV1)], []byte("\r\n"))
	if !ended {
		if len(b) >= maxV1 {
			return from, 0, ErrHeader
		}
		return from, 0, nil
	}
	n = len(line) + 2
	f := strings.Split(string(line), " ")
	if f[1] == "UNKNOWN" {
		return from, n, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return from, n, ErrHeader
	}
	addr, bad := netip.ParseAddr(f[2])
	port, bad2 := strconv.ParseUint(f[4], 10, 16)
	if bad != nil || bad2 != nil || addr.Zone() != "" || addr.Is4() != (f[1] == "TCP4") {
		return from, n, ErrHeader
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), n, nil
}
