package bridge

import "sync/atomic"

// A Drop is why an event was acknowledged and not carried.
type Drop uint8

// Reasons.
const (
	DropLooped    Drop = iota // it has been here before
	DropHops                  // it has been at too many brokers
	DropUnmapped              // no topic of the bridge is its topic: of a subscription from before
	DropTooLarge              // the other side takes no packets that large
	DropRefused               // our policy, or what a topic is for, does not have it
	DropByPeer                // the peer refuses it for good
	DropQuota                 // there is no more room for it here, as for others
	DropPeerQuota             // likewise at the peer
	drops
)

var dropNames = [drops]string{"looped", "hops", "unmapped", "too_large", "refused", "refused_by_peer", "quota", "quota_of_peer"}

// A Failure is why a bridge was without its connections.
type Failure uint8

// Reasons.
const (
	FailDial      Failure = iota // nobody is there
	FailTLS                      // one of the two does not take what the other shows in the TLS handshake
	FailRefused                  // the peer does not let us in
	FailProtocol                 // the peer sent what it must not
	FailTimeout                  // the peer does not answer, acknowledge, or take what it is sent
	FailLost                     // the peer, or the network, ended the connection
	FailBusy                     // the peer took an event not now
	FailLocal                    // our own broker refused us or an event, ended the connection, or has no quorum
	FailSubscribe                // one of the two refuses a subscription; the rest goes on
	failures
)

var failureNames = [failures]string{"dial", "tls", "refused", "protocol", "timeout", "lost", "busy", "local", "subscribe"}

// Stats are a bridge's counters, of this process.
type Stats struct {
	Out, In  atomic.Uint64 // events that the other side has acknowledged, and QoS 0 that were written
	Connects atomic.Uint64

	dropped [drops]atomic.Uint64
	failed  [failures]atomic.Uint64
}

func (s *Stats) carried() uint64 { return s.Out.Load() + s.In.Load() }

// A Counter returns what has been counted so far.
type Counter func() uint64

// EachDrop calls yield with each reason for which events are dropped, and its counter.
func (s *Stats) EachDrop(yield func(reason string, n Counter)) {
	for i := range s.dropped {
		yield(dropNames[i], s.dropped[i].Load)
	}
}

// EachFailure calls yield with each reason for which connections fail, and its counter.
func (s *Stats) EachFailure(yield func(reason string, n Counter)) {
	for i := range s.failed {
		yield(failureNames[i], s.failed[i].Load)
	}
}

// Dropped returns how many events were dropped for a reason.
func (s *Stats) Dropped(why Drop) uint64 { return s.dropped[why].Load() }

// Failed returns how often connections failed for a reason.
func (s *Stats) Failed(why Failure) uint64 { return s.failed[why].Load() }
