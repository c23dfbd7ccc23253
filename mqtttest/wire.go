package mqtttest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errCut = errors.New("ends too early")

func appendVarint(b []byte, n uint32) []byte {
	for {
		d := byte(n % 128)
		n /= 128
		if n == 0 {
			return append(b, d)
		}
		b = append(b, d|0x80)
	}
}

// readVarint reads a variable byte integer and insists on its shortest form,
// 5.0 [MQTT-1.5.5-1].
func readVarint(b []byte) (n uint32, rest []byte, err error) {
	for i := range 4 {
		if i >= len(b) {
			return 0, nil, errCut
		}
		n |= uint32(b[i]&0x7F) << (7 * i)
		if b[i]&0x80 == 0 {
			if i > 0 && b[i] == 0 {
				return 0, nil, errors.New("variable byte integer is not in its shortest form")
			}
			return n, b[i+1:], nil
		}
	}
	return 0, nil, errors.New("variable byte integer of more than four bytes")
}

// appendString writes a length and the bytes; only the low 16 bits of the
// length fit, which a test of over-long strings may want.
func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func readString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 2 {
		return "", nil, errCut
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return "", nil, errCut
	}
	if !validText(b[2 : 2+n]) {
		return "", nil, fmt.Errorf("%q is no UTF-8 string of MQTT", b[2:2+n])
	}
	return string(b[2 : 2+n]), b[2+n:], nil
}

// Frame puts a fixed header before body: the first byte as given and the
// length of the body.
func Frame(first byte, body ...byte) Raw {
	return append(appendVarint([]byte{first}, uint32(len(body))), body...)
}
