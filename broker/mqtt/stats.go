package mqtt

import (
	"strings"
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A Turnaway says why a connection was turned away before its CONNECT was
// read.
type Turnaway int

const (
	TurnawayAddress    Turnaway = iota // its address holds too many
	TurnawayRate                       // its address opens too many
	TurnawayHandshakes                 // too many wait for their CONNACK
	TurnawayClosing                    // the server is closing
	TurnawayListener                   // its listener has as many as it may
	TurnawayProxy                      // it is not from a proxy that is trusted, or does not begin as one's
	TurnawayFiles                      // the process may open no more files
	turnaways
)

func (t Turnaway) String() string {
	return [...]string{"address", "rate", "handshakes", "closing", "listener", "proxy", "files"}[t]
}

// An Over is a bound of Limits that clients were past, counted where nothing else counts it.
type Over int

const (
	OverConnections Over = iota
	OverConnectRate
	OverMessageRate
	OverByteRate
	OverConnectTimeout
	OverConnectPacket
	OverPacket
	OverInFlight
	OverAliases
	OverClientID
	OverSlow
	OverLevels
	overs
)

// A Drop says why an event, or a publish, came to nothing.
type Drop int

const (
	DropFull     Drop = iota // QoS 0, and the client's output was full
	DropEnding               // QoS 0, and the connection was ending
	DropTooLarge             // larger than the client's Maximum Packet Size
	DropRefused              // a publish that was refused: acknowledged and dropped for 3.1.1 and QoS 0
	drops
)

func (d Drop) String() string {
	return [...]string{"output full", "connection ending", "packet too large", "publish refused"}[d]
}

// Stats counts what a server's connections did. All fields may be read at any
// time; each is exact once the connections that feed it are idle.
type Stats struct {
	Sockets atomic.Int64 // open now, accepted or not
	Clients atomic.Int64 // connected now: CONNACK with success was sent
	Most    atomic.Int64 // the most clients that were connected at once

	Accepted     atomic.Uint64 // sockets accepted
	AcceptErrors atomic.Uint64 // accept calls that failed and were tried again
	TurnedAway   [turnaways]atomic.Uint64

	TLSFailed         atomic.Uint64 // TLS handshakes that came to nothing
	CertificatesEnded atomic.Uint64 // connections whose client's certificate was revoked meanwhile
	WebSocketsRefused atomic.Uint64 // WebSocket handshakes, likewise

	LoginsRefused atomic.Uint64 // tries to sign in that were not looked at
	LoginsFailed  loginFailures // those that were, and failed, by reason
	Flapping      atomic.Uint64 // clients that were to be banned for connecting and disconnecting too often
	FlapsAtLarge  atomic.Uint64 // of these, for whom there was no room, or no log
	Reauths       atomic.Uint64 // clients that proved again who they are

	Connects [256]atomic.Uint64 // CONNECTs answered, by the code of the CONNACK
	Ends     [256]atomic.Uint64 // connected clients that ended, by reason code; 0 for DISCONNECT 0x00
	Lost     atomic.Uint64      // connected clients whose socket ended without a DISCONNECT

	BytesIn, BytesOut     atomic.Uint64
	PayloadIn, PayloadOut atomic.Uint64     // bytes of PUBLISH payloads
	PacketsIn, PacketsOut [16]atomic.Uint64 // by packet type
	Writes                atomic.Uint64     // write calls: PacketsOut by this is what batching is worth

	Over    [overs]atomic.Uint64 // what was refused, or ended, for a bound's sake
	Dropped [drops]atomic.Uint64
	Full    atomic.Uint64 // QoS 1 and 2 deliveries put off because the output was full
	Stalled atomic.Int64  // connections now whose socket takes nothing

	Panics atomic.Uint64 // connections ended by a bug of ours
}

// EachTurnaway calls f for each reason for which a connection may be turned away.
func (s *Stats) EachTurnaway(f func(reason string, n *atomic.Uint64)) {
	for why := range turnaways {
		f(why.String(), &s.TurnedAway[why])
	}
}

// PacketPublish is the place of PUBLISH among counters by packet type.
const PacketPublish = packets.Publish

// EachConnect calls f for each result that a CONNECT may have, in the order of the
// reason codes, with its name in snake case and its counter.
func (s *Stats) EachConnect(f func(result string, n *atomic.Uint64)) {
	s.each(&s.Connects, packets.Connack, f)
}

// EachLoginFailure calls f for each reason for which a try to sign in may fail, with its
// name in snake case and its counter.
func (s *Stats) EachLoginFailure(f func(reason string, n *atomic.Uint64)) {
	for i, reason := range loginReasons {
		f(reason, &s.LoginsFailed[i])
	}
}

// EachEnd calls f for each reason for which a connection may end, likewise; lost
// is that of a socket that ended without a DISCONNECT.
func (s *Stats) EachEnd(f func(reason string, n *atomic.Uint64)) {
	s.each(&s.Ends, packets.Disconnect, f)
	f("lost", &s.Lost)
}

func (s *Stats) each(counters *[256]atomic.Uint64, packet byte, f func(string, *atomic.Uint64)) {
	for code := range counters {
		if r := codeRules[byte(code)]; code == codeSuccess || (r.server|r.client)&(1<<packet) != 0 {
			f(strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(codeName(byte(code)))), &counters[code])
		}
	}
}

// packetsOut is the number of packets sent, of any type.
func (s *Stats) packetsOut() (n uint64) {
	for i := range s.PacketsOut {
		n += s.PacketsOut[i].Load()
	}
	return n
}
