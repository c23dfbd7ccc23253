package mqtt

import (
	"net"
	"net/netip"
	"sync"
)

// An address is what connections are counted by: an IPv4 address, or the /64
// of an IPv6 one. The zero address is not counted: loopback, and what is not
// IP.
type address struct{ netip.Addr }

// addressOf returns what to count a client by.
func addressOf(a net.Addr) address {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return address{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	switch {
	case !ip.IsValid() || ip.IsLoopback():
		return address{}
	case ip.Is4():
		return address{ip}
	}
	p, _ := ip.WithZone("").Prefix(64)
	return address{p.Addr()}
}

const ticksPerMinute = 60 * ticksPerSecond

// addresses counts connections by address, and holds each to its share.
type addresses struct {
	mu    sync.Mutex // guards the following
	by    map[address]*share
	swept int64 // tick of the last sweep
}

// A share is what one address uses.
type share struct {
	open int

	// next is the tick, times the rate, at which a connection would come if
	// each had waited for its turn; it may be ahead of now by a minute, which
	// is the burst (GCRA).
	next int64
}

// enter counts a connection from a at tick now, unless it is one too many.
func (s *addresses) enter(a address, now int64, l *Limits) (why Turnaway, ok bool) {
	if !a.IsValid() {
		return 0, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now, int64(l.PerAddressRate))
	h := s.by[a]
	if h == nil {
		if s.by == nil {
			s.by = map[address]*share{}
		}
		h = &share{}
		s.by[a] = h
	}
	if l.PerAddress > 0 && h.open >= l.PerAddress {
		return TurnawayAddress, false
	}
	if rate := int64(l.PerAddressRate); rate > 0 {
		next := max(h.next, now*rate) + ticksPerMinute
		if next > (now+ticksPerMinute)*rate {
			return TurnawayRate, false
		}
		h.next = next
	}
	h.open++
	return 0, true
}

// restart forgets how often addresses have connected: by another rate that says something else.
func (s *addresses) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.by { // in any order: each for itself
		h.next = 0
	}
}

// leave counts the end of a connection that entered.
func (s *addresses) leave(a address) {
	if !a.IsValid() {
		return
	}
	s.mu.Lock()
	s.by[a].open--
	s.mu.Unlock()
}

// sweep forgets, once a minute, who has no connection and no debt. So there is
// at most one entry for each connection of the last two minutes.
func (s *addresses) sweep(now, rate int64) {
	if now < s.swept+ticksPerMinute {
		return
	}
	s.swept = now
	for a, h := range s.by {
		if h.open == 0 && h.next <= now*rate {
			delete(s.by, a)
		}
	}
}
