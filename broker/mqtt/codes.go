package mqtt

import (
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Reason codes of MQTT 5 (5.0 2.4).
const (
	codeSuccess           = 0x00
	codeWithWill          = 0x04
	codeNoSubscribers     = 0x10
	codeNoSubscription    = 0x11
	codeContinueAuth      = 0x18
	codeReauthenticate    = 0x19
	codeUnspecified       = 0x80
	codeMalformed         = 0x81
	codeProtocolError     = 0x82
	codeImplementation    = 0x83
	codeBadVersion        = 0x84
	codeBadClientID       = 0x85
	codeBadCredentials    = 0x86
	codeNotAuthorized     = 0x87
	codeUnavailable       = 0x88
	codeBusy              = 0x89
	codeBanned            = 0x8A
	codeShuttingDown      = 0x8B
	codeBadAuthMethod     = 0x8C
	codeKeepAlive         = 0x8D
	codeTakenOver         = 0x8E
	codeBadFilter         = 0x8F
	codeBadTopic          = 0x90
	codePacketIDInUse     = 0x91
	codePacketIDNotFound  = 0x92
	codeReceiveMaximum    = 0x93
	codeBadAlias          = 0x94
	codeTooLarge          = 0x95
	codeRateTooHigh       = 0x96
	codeQuota             = 0x97
	codeAdministrative    = 0x98
	codeBadPayload        = 0x99
	codeNoRetain          = 0x9A
	codeNoQoS             = 0x9B
	codeUseAnother        = 0x9C
	codeServerMoved       = 0x9D
	codeNoShared          = 0x9E
	codeConnectionRate    = 0x9F
	codeMaxConnectTime    = 0xA0
	codeNoSubscriptionIDs = 0xA1
	codeNoWildcards       = 0xA2
)

// A packetSet is a set of packet types.
type packetSet uint16

func in(types ...byte) (s packetSet) {
	for _, t := range types {
		s |= 1 << t
	}
	return s
}

// A codeRule says in which packets a reason code may stand, and whether a
// DISCONNECT with it may come from a client.
type codeRule struct {
	name   string
	server packetSet // packets that a server may send it in
	client packetSet // packets that a client may send it in
}

// codeRules is the table of 5.0 2.4, narrowed by the tables of each packet.
// It is the one place that knows: what we send is held to it by a test and by
// legal, what we receive by checkCode.
var codeRules = func() map[byte]codeRule {
	const (
		connack    = packets.Connack
		puback     = packets.Puback
		pubrec     = packets.Pubrec
		pubrel     = packets.Pubrel
		pubcomp    = packets.Pubcomp
		suback     = packets.Suback
		unsuback   = packets.Unsuback
		disconnect = packets.Disconnect
		auth       = packets.Auth
	)
	acks := in(puback, pubrec, pubrel, pubcomp)
	both := in(puback, pubrec)
	return map[byte]codeRule{
		codeSuccess:           {"success", in(connack, suback, unsuback, auth) | acks, acks | in(disconnect)},
		0x01:                  {"granted QoS 1", in(suback), 0},
		0x02:                  {"granted QoS 2", in(suback), 0},
		codeWithWill:          {"disconnect with will", 0, in(disconnect)},
		codeNoSubscribers:     {"no matching subscribers", both, both},
		codeNoSubscription:    {"no subscription existed", in(unsuback), 0},
		codeContinueAuth:      {"continue authentication", in(auth), in(auth)},
		codeReauthenticate:    {"re-authenticate", 0, in(auth)},
		codeUnspecified:       {"unspecified error", both | in(connack, suback, unsuback, disconnect), both | in(disconnect)},
		codeMalformed:         {"malformed packet", in(connack, disconnect), in(disconnect)},
		codeProtocolError:     {"protocol error", in(connack, disconnect), in(disconnect)},
		codeImplementation:    {"implementation specific error", both | in(connack, suback, unsuback, disconnect), both | in(disconnect)},
		codeBadVersion:        {"unsupported protocol version", in(connack), 0},
		codeBadClientID:       {"client identifier not valid", in(connack), 0},
		codeBadCredentials:    {"bad user name or password", in(connack), 0},
		codeNotAuthorized:     {"not authorized", both | in(connack, suback, unsuback, disconnect), both},
		codeUnavailable:       {"server unavailable", in(connack), 0},
		codeBusy:              {"server busy", in(connack, disconnect), 0},
		codeBanned:            {"banned", in(connack), 0},
		codeShuttingDown:      {"server shutting down", in(disconnect), 0},
		codeBadAuthMethod:     {"bad authentication method", in(connack, disconnect), 0},
		codeKeepAlive:         {"keep alive timeout", in(disconnect), 0},
		codeTakenOver:         {"session taken over", in(disconnect), 0},
		codeBadFilter:         {"topic filter invalid", in(suback, unsuback, disconnect), 0},
		codeBadTopic:          {"topic name invalid", both | in(connack, disconnect), both | in(disconnect)},
		codePacketIDInUse:     {"packet identifier in use", both | in(suback, unsuback), both},
		codePacketIDNotFound:  {"packet identifier not found", in(pubrel, pubcomp), in(pubrel, pubcomp)},
		codeReceiveMaximum:    {"receive maximum exceeded", in(disconnect), in(disconnect)},
		codeBadAlias:          {"topic alias invalid", in(disconnect), in(disconnect)},
		codeTooLarge:          {"packet too large", in(connack, disconnect), in(disconnect)},
		codeRateTooHigh:       {"message rate too high", in(disconnect), in(disconnect)},
		codeQuota:             {"quota exceeded", both | in(connack, suback, disconnect), both | in(disconnect)},
		codeAdministrative:    {"administrative action", in(disconnect), in(disconnect)},
		codeBadPayload:        {"payload format invalid", both | in(connack, disconnect), both | in(disconnect)},
		codeNoRetain:          {"retain not supported", in(connack, disconnect), 0},
		codeNoQoS:             {"QoS not supported", in(connack, disconnect), 0},
		codeUseAnother:        {"use another server", in(connack, disconnect), 0},
		codeServerMoved:       {"server moved", in(connack, disconnect), 0},
		codeNoShared:          {"shared subscriptions not supported", in(suback, disconnect), 0},
		codeConnectionRate:    {"connection rate exceeded", in(connack, disconnect), 0},
		codeMaxConnectTime:    {"maximum connect time", in(disconnect), 0},
		codeNoSubscriptionIDs: {"subscription identifiers not supported", in(suback, disconnect), 0},
		codeNoWildcards:       {"wildcard subscriptions not supported", in(suback, disconnect), 0},
	}
}()

// ReasonName names a reason code in the standard's words.
func ReasonName(code byte) string { return codeName(code) }

// codeName names a reason code in the standard's words.
func codeName(code byte) string {
	if r, ok := codeRules[code]; ok {
		return r.name
	}
	return fmt.Sprintf("reason code 0x%02X", code)
}

// legal returns code if a server may send it in a packet of that type, and
// else the nearest that it may: what cannot be said there exactly is an
// unspecified error, in an acknowledgement that knows none success.
func legal(packet, code byte) byte {
	if codeRules[code].server&(1<<packet) != 0 {
		return code
	}
	if codeRules[codeUnspecified].server&(1<<packet) != 0 {
		return codeUnspecified
	}
	return codeSuccess
}

// checkCode returns a fault if a client may not send code in a packet of that
// type.
func checkCode(packet, code byte) error {
	if code == codeSuccess || codeRules[code].client&(1<<packet) != 0 {
		return nil
	}
	return protocolError("reason code that this packet cannot carry")
}

// connackV3 translates a reason code into a return code of MQTT 3.1.1's
// CONNACK (3.1.1 table 3.1). ok is false where it has none, and the connection
// is closed unanswered.
func connackV3(code byte) (ret byte, ok bool) {
	switch code {
	case codeSuccess:
		return 0, true
	case codeBadVersion:
		return 1, true
	case codeBadClientID:
		return 2, true
	case codeImplementation, codeUnavailable, codeBusy, codeQuota, codeConnectionRate, codeUseAnother, codeServerMoved:
		return 3, true
	case codeBadCredentials:
		return 4, true
	case codeNotAuthorized, codeBanned, codeBadTopic, codeBadAuthMethod:
		return 5, true
	}
	return 0, false
}
