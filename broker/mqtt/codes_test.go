package mqtt

import (
	"errors"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
)

// The table of reason codes says what the standard's tables say where brokers
// have gone wrong: MQTT.md section 1, last paragraph.
//
// MQTT 5: 3.2.2-8, 3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1, 3.9.3-2, 3.11.3-2, 3.14.2-1.
// MQTT 3.1.1: 3.9.3-2.
func TestCodesStandWhereTheyMay(t *testing.T) {
	const (
		connack, puback, pubrec, pubrel, pubcomp = packets.Connack, packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp
		suback, unsuback, disconnect             = packets.Suback, packets.Unsuback, packets.Disconnect
	)
	for code, where := range map[byte]packetSet{
		0x00: in(connack, puback, pubrec, pubrel, pubcomp, suback, unsuback, packets.Auth),
		0x04: 0,
		0x10: in(puback, pubrec),
		0x11: in(unsuback),
		0x81: in(connack, disconnect),
		0x82: in(connack, disconnect),
		0x83: in(connack, puback, pubrec, suback, unsuback, disconnect),
		0x87: in(connack, puback, pubrec, suback, unsuback, disconnect),
		0x88: in(connack),
		0x89: in(connack, disconnect),
		0x8B: in(disconnect),
		0x8D: in(disconnect),
		0x8E: in(disconnect),
		0x8F: in(suback, unsuback, disconnect),
		0x90: in(connack, puback, pubrec, disconnect),
		0x91: in(puback, pubrec, suback, unsuback),
		0x92: in(pubrel, pubcomp),
		0x93: in(disconnect),
		0x94: in(disconnect),
		0x95: in(connack, disconnect),
		0x96: in(disconnect),
		0x97: in(connack, puback, pubrec, suback, disconnect),
		0x98: in(disconnect),
		0x99: in(connack, puback, pubrec, disconnect),
		0x9E: in(suback, disconnect),
	} {
		for p := byte(connack); p <= packets.Auth; p++ {
			may := codeRules[code].server&(1<<p) != 0
			if want := where&(1<<p) != 0; may != want {
				t.Errorf("code %#x in %s: %v, want %v", code, packets.PacketNames[p], may, want)
			}
			if got := legal(p, code); may && got != code || !may && got == code && code != codeSuccess {
				t.Errorf("legal(%s, %#x) = %#x", packets.PacketNames[p], code, got)
			}
		}
	}
	for _, code := range []byte{0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99} {
		if err := checkCode(disconnect, code); err != nil {
			t.Errorf("DISCONNECT %#x from a client: %v", code, err)
		}
	}
	for _, code := range []byte{0x01, 0x10, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2, 0xFF} {
		if err := checkCode(disconnect, code); err == nil {
			t.Errorf("DISCONNECT %#x from a client is accepted", code)
		}
	}
}

// Whatever ends a connection, refuses a client, a publish or a subscription is
// told with a code that may stand there.
//
// MQTT 5: 3.2.2-8, 3.14.2-1.
func TestEveryCauseHasALegalCode(t *testing.T) {
	for _, err := range []error{
		broker.ErrRefused, broker.ErrNoCommit, broker.ErrUnknown, broker.ErrStale, broker.ErrSessionEnded, broker.ErrNoPacketID,
		broker.ErrWrongAck, broker.ErrQuota, broker.ErrDiskFull, broker.ErrBadEvent, broker.ErrBadCredentials, broker.ErrSlow, broker.ErrFailed,
		broker.ErrClosing, broker.ErrAway, broker.ErrMissed, errBadTopic, errors.New("a bug"),
	} {
		if code, _ := endCode(err); code < 0x80 || legal(packets.Disconnect, code) != code {
			t.Errorf("%v ends a connection with %#x", err, code)
		}
		var f *fault
		if !errors.As(connectFault(err), &f) || f.code < 0x80 || legal(packets.Connack, f.code) != f.code {
			t.Errorf("%v refuses a client with %v", err, f)
		}
		if code, _ := grant(broker.SubResult{Err: err}, 1); code < 0x80 || legal(packets.Suback, code) != code {
			t.Errorf("%v refuses a subscription with %#x", err, code)
		}
		if code, _ := unsubCode(err, true); code < 0x80 || legal(packets.Unsuback, code) != code {
			t.Errorf("%v refuses an UNSUBSCRIBE with %#x", err, code)
		}
	}
}

// Each CONNACK code that 3.1.1 has is one of its five.
//
// MQTT 3.1.1: 3.2.2-6.
func TestConnackOf311(t *testing.T) {
	for code, want := range map[byte]int{
		0x00: 0, 0x84: 1, 0x85: 2, 0x88: 3, 0x89: 3, 0x97: 3, 0x9F: 3, 0x86: 4, 0x87: 5, 0x8A: 5, 0x90: 5,
		0x80: -1, 0x81: -1, 0x82: -1, 0x95: -1,
	} {
		got := -1
		if ret, ok := connackV3(code); ok {
			got = int(ret)
		}
		if got != want {
			t.Errorf("code %#x: got %d, want %d", code, got, want)
		}
	}
}
