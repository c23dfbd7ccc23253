package bridge

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// A Direction says which way events of a Topic go.
type Direction uint8

// Directions.
const (
	Out  Direction = 1 << iota // from here to the peer
	In                         // from the peer to here
	Both = Out | In
)

// A Topic is what a bridge carries: all topics that a filter matches, which have one prefix
// here and another one there.
type Topic struct {
	Filter    string // of MQTT, without the prefixes; not shared
	Direction Direction
	QoS       byte   // the greatest that events are carried at
	Local     string // what our topics have in front of what Filter matches
	Remote    string // likewise the peer's
	NoRetain  bool   // RETAIN is not carried on
}

// A Config is what a Bridge is made of. Fields are required unless they say otherwise.
type Config struct {
	Name   string // the operator's, unique
	Topics []Topic

	// Addresses are the peer's, host:port, tried in turn. Dial connects to one of them.
	Addresses []string
	Dial      func(ctx context.Context, address string) (net.Conn, error)

	Version   byte   // 5, 4 (which is 3.1.1) or 3
	NoPrivate bool   // a peer of 3.1.1 or 3.1 is not told that this is a bridge
	Client    string // the client id at the peer
	User      string // empty for none

	// Secret returns the password, nil for none. It is asked before each CONNECT, so that
	// a file which holds it may change.
	Secret func() ([]byte, error)

	KeepAlive time.Duration // whole seconds, 1 to 65,535
	Clean     bool          // the peer is to keep nothing while it is not connected
	Expiry    uint32        // of the session at the peer, s; MQTT 5 only
	Window    int           // QoS 1 and 2 under way at once, each way; 1 to 65,535
	MaxPacket int           // bytes of the largest packet that is read
	MaxHops   int           // brokers that an event may have been at

	// AckTimeout is how long the peer may owe an acknowledgement; then the connection is
	// given up.
	AckTimeout time.Duration
	// RetryMax is the longest pause between two tries to connect.
	RetryMax time.Duration

	// Origin is the id by which our broker, all nodes of it, is known to bridges in rings.
	Origin string

	// Local connects to our own broker, as the bridge's principal; LocalClient is the client id
	// there, the same on all nodes and in every life.
	Local       func(ctx context.Context) (net.Conn, error)
	LocalClient string

	// Levels returns how many levels a topic may have here, which may change: our broker
	// refuses one that is deeper as it refuses what there is no room for now. nil for no
	// bound but topic.Limit.
	Levels func() int

	// Session tells of the session of LocalClient here.
	Session func() Session

	// Lead says whether this node is to run the bridge; Confirm does so after the log has
	// ordered something, which a node that is cut off from it cannot have it do.
	Lead    func() bool
	Confirm func(ctx context.Context) bool

	Now    func() time.Time // the wall clock: for deadlines
	Logger *slog.Logger
}

// unmet is the Receive Maximum of our session until the peer has been met by it for the first
// time; later there is always a lesser one. So the log knows whether the peer may hold packet
// ids of a session before it.
const unmet = 65_535

// A Session is what our broker knows of a bridge's session.
type Session struct {
	Exists     bool
	Receive    int      // the Receive Maximum of its latest connection
	Unreleased []uint16 // packet ids of QoS 2 that were received and are not released
	Filters    []string // that it subscribes to
	Waiting    uint64   // events that wait for it
}

// Met says whether the session has been connected with the peer.
func (s *Session) Met() bool { return s.Exists && s.Receive != unmet }
