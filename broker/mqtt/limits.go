package mqtt

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// Limits bound what clients can make a server hold or do. In each field 0
// means the default that its comment states.
type Limits struct {
	// Connections is how many clients may be connected at once; one more is
	// answered 0x89 (3.1.1: 3). Default 100,000.
	Connections int

	// Handshakes is how many connections may be open that have not yet been
	// accepted by CONNACK; one more is closed at once. Default 10,000.
	Handshakes int

	// PerAddress is how many connections one address may hold (an IPv6 /64
	// counts as one), and PerAddressRate how many it may open in a minute;
	// one more is closed at once. Loopback is exempt from both. Default 100
	// and 60; negative for no limit. The first also holds, by itself, for
	// connections by HTTP.
	PerAddress, PerAddressRate int

	// ConnectRate is how many CONNECTs the server answers in a second, ten times
	// that in a burst; one more is refused with 0x9F (3.1.1: 3) before anything
	// is asked about it. Default none.
	ConnectRate int

	// FailedLogins is how often in ten minutes a client from one network (an
	// IPv4 /24, an IPv6 /64) may fail to sign in under one user name; one more
	// is refused with 0x86 (3.1.1: 4) without a look at its password, after a
	// pause that grows to 5 s. Loopback is exempt. Default 10; negative for no
	// limit.
	FailedLogins int

	// MessageRate is how many publishes of one client are taken in a second, ten
	// times that in a burst; one more ends the connection with 0x96. Default
	// none.
	MessageRate int

	// ByteRate is how many bytes of publishes of one client are taken in a second, ten times
	// that in a burst, and one packet of any size; one more ends the connection with 0x96.
	// Default none.
	ByteRate int

	// Principals are rates of single principals, which hold in place of MessageRate and
	// ByteRate; nil for none.
	Principals *PrincipalRates

	// TopicLevels is how many levels a topic or a filter may have; one more is refused with
	// 0x97. Default, and at most, topic.Limit.
	TopicLevels int

	// FlapRate is how many connections of one client, each accepted and ended again, there
	// may be in a minute; after one more the client is banned for FlapBan, on all nodes: that
	// client id of that user, or, of an anonymous one, from that address. Loopback is exempt.
	// Default 50 and 5 min; negative for no limit.
	FlapRate int
	FlapBan  time.Duration

	// ConnectTimeout is how long a connection may take to its CONNACK, not
	// counting what the broker takes. Default 10 s.
	ConnectTimeout time.Duration

	// ConnectPacket is the size of the largest packet, in bytes, that is read
	// from a connection before it is accepted. A will has to fit. Default
	// 4 KiB.
	ConnectPacket int

	// Packet is the size of the largest packet, in bytes, that a client may
	// send; MQTT 5 clients are told. A larger one ends the connection with
	// 0x95. Default 256 KiB, at most 268,435,460.
	Packet int

	// ReceiveMaximum is how many QoS 1 and 2 publishes of one client may be
	// under way at once. MQTT 5 clients are told, and one more ends the
	// connection with 0x93; of 3.1.1 clients no more is read. Default 256, at
	// most 65,535.
	ReceiveMaximum int

	// TopicAliases is how many topic aliases a client may use towards us (it
	// is told), and how many of those that a client allows we use towards it.
	// Default 16; negative for none.
	TopicAliases int

	// Output is how many bytes may wait for one client's socket. Beyond it
	// QoS 0 events are dropped and counted, others stay in their session's
	// queue. Default 1 MiB.
	Output int

	// SlowTimeout is how long a client may take nothing of what waits for its
	// socket before its connection ends with 0x97. Default 60 s.
	SlowTimeout time.Duration

	// KeepAlive is the longest keep alive that is accepted. An MQTT 5 client
	// that asks for more, or for none, is told this one instead (Server Keep
	// Alive); older clients cannot be told and get what they ask for. 0
	// means no limit; at most 65,535 s.
	KeepAlive time.Duration

	// SessionExpiry is the longest session expiry that is accepted; who asks
	// for more is given this one, and an MQTT 5 client is told. A session of
	// 3.1 or 3.1.1 that is not clean asks for for ever. 0 means no limit.
	SessionExpiry time.Duration

	// ClientID is the length of the longest client identifier, in bytes; a
	// longer one is refused with 0x85. Default 1,024, at most 65,535.
	ClientID int
}

// WithDefaults returns l with the defaults filled in, where there is no limit 0, or every
// fault it has.
func (l Limits) WithDefaults() (Limits, error) {
	var errs []error
	number := func(name string, v *int, def, most int) {
		if *v == 0 {
			*v = def
		}
		if *v < 1 || *v > most {
			errs = append(errs, fmt.Errorf("limits.%s: %d, want 1 to %d", name, *v, most))
		}
	}
	number("connections", &l.Connections, 100_000, 1<<30)
	number("handshakes", &l.Handshakes, 10_000, 1<<30)
	number("connectPacket", &l.ConnectPacket, 4<<10, maxRemaining+maxHeader)
	number("packet", &l.Packet, 256<<10, maxRemaining+maxHeader)
	number("receiveMaximum", &l.ReceiveMaximum, 256, 65_535)
	number("output", &l.Output, 1<<20, 1<<30)
	number("topicLevels", &l.TopicLevels, topic.Limit, topic.Limit)
	number("clientID", &l.ClientID, 1024, 65_535)

	orNone := func(name string, v *int, def, most int) {
		switch {
		case *v == 0:
			*v = def
		case *v < 0:
			*v = 0
		case *v > most:
			errs = append(errs, fmt.Errorf("limits.%s: %d, want at most %d (negative for none)", name, *v, most))
		}
	}
	orNone("perAddress", &l.PerAddress, 100, 1<<30)
	orNone("perAddressRate", &l.PerAddressRate, 60, 1<<20)
	orNone("connectRate", &l.ConnectRate, 0, 1<<20)
	orNone("failedLogins", &l.FailedLogins, 10, 1<<20)
	orNone("flapRate", &l.FlapRate, 50, 1<<20)
	orNone("messageRate", &l.MessageRate, 0, 1<<20)
	orNone("byteRate", &l.ByteRate, 0, 1<<30)
	orNone("topicAliases", &l.TopicAliases, 16, 65_535)

	span := func(name string, v *time.Duration, def, most time.Duration) {
		if *v == 0 {
			*v = def
		}
		if *v < 0 || *v > most {
			errs = append(errs, fmt.Errorf("limits.%s: %v, want 1s to %v", name, *v, most))
		}
	}
	span("connectTimeout", &l.ConnectTimeout, 10*time.Second, time.Hour)
	span("flapBan", &l.FlapBan, 5*time.Minute, 365*24*time.Hour)
	span("slowTimeout", &l.SlowTimeout, time.Minute, time.Hour)
	span("keepAlive", &l.KeepAlive, 0, 65_535*time.Second)
	span("sessionExpiry", &l.SessionExpiry, 0, (event.Never-1)*time.Second)
	return l, errors.Join(errs...)
}

// Rates are how many publishes of one client are taken in a second, and how many bytes of
// them, as Limits.MessageRate and ByteRate; 0 for what everybody may, negative for no bound.
type Rates struct{ Messages, Bytes int }

// PrincipalRates are rates of principals, by their names. They never change.
type PrincipalRates struct{ Of map[string]Rates }

// ratesOf are the rates of a principal; 0 bounds nothing.
func (l *Limits) ratesOf(principal string) (r Rates) {
	if l.Principals != nil {
		r = l.Principals.Of[principal]
	}
	return Rates{max(0, cmp.Or(r.Messages, l.MessageRate)), max(0, cmp.Or(r.Bytes, l.ByteRate))}
}

// byteRate is Bytes as a rate: a packet that may be sent at all, which has at most so
// many bytes, may be sent at once.
func (r Rates) byteRate(packet int) rate {
	return rate{int64(r.Bytes), ticksPerSecond, max(10*int64(r.Bytes), int64(packet))}
}

// aliasBytes is how many bytes the topics may have together that aliases of one connection
// stand for, each way: 256 for each that there may be, and 64 KiB, the longest topic, in any
// case.
func (l *Limits) aliasBytes() int { return max(topic.MaxBytes, 256*l.TopicAliases) }

// sessionExpiry is what a session gets that asks for that many seconds.
func (l *Limits) sessionExpiry(asked uint32) uint32 {
	if most := uint32(l.SessionExpiry / time.Second); most > 0 {
		return min(asked, most)
	}
	return asked
}

// keepAlive is what an MQTT 5 client gets that asks for that many seconds.
func (l *Limits) keepAlive(asked uint16) uint16 {
	most := uint16(l.KeepAlive / time.Second)
	if most > 0 && (asked == 0 || asked > most) {
		return most
	}
	return asked
}
