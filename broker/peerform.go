package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What nodes say to each other beside the log. Every message begins with the
// version of its form and its kind; a form that changes gets another version, and
// testdata/peers.txt holds what each looks like.
//
//	claim (1)  stream 8 bytes | from, to uvarints | flags u8: 0 reset, 1 more,
//	             2 all | to the end: 1 if wanted else 0, filter with its length
//	             as an uvarint in front; for a shared subscription's filter the
//	             number of its members, 255 for more
//	heard   (2)  stream 8 bytes | version uvarint
//	ask     (3)
//	events  (4)  place in the log 8 bytes | to the end: length 4 bytes, event; for
//	             one of a group, the length with its top bit set, filter with
//	             its length as an uvarint in front, event
//
// A claim of from to to is one or several messages, all but the last with more.
// One of all that is wanted has reset in its first, and from is 0. all stands for
// every filter there could be.
const (
	peerVersion = 1

	peerClaim  = 1
	peerHeard  = 2
	peerAsk    = 3
	peerEvents = 4

	claimReset = 1 << 0
	claimMore  = 1 << 1
	claimAll   = 1 << 2
	claimFlags = 7

	claimBytes = 32 << 10 // a message is closed when it is as long
)

// errNewer means a message of a kind or version that this program does not know.
var errNewer = errors.New("a message that this version does not know")

// claims returns the messages that lead from a version to another, at least one.
func claims(stream, from, to uint64, flags byte, changed map[string]byte) (messages [][]byte) {
	begin := func(flags byte) []byte {
		b := binary.BigEndian.AppendUint64([]byte{peerVersion, peerClaim}, stream)
		return append(binary.AppendUvarint(binary.AppendUvarint(b, from), to), flags)
	}
	b := begin(flags)
	at := len(b) - 1 // of the flags
	for filter, wanted := range changed {
		if len(b) >= claimBytes {
			b[at] |= claimMore
			messages = append(messages, b)
			b = begin(flags &^ claimReset)
		}
		b = append(binary.AppendUvarint(append(b, wanted), uint64(len(filter))), filter...)
	}
	return append(messages, b)
}

// A claim is one message of a peer's interest, read as far as next has come.
type claim struct {
	stream, from, to uint64
	flags            byte
	left             []byte
	err              error
}

func readClaim(b []byte) (*claim, error) {
	if len(b) < 8 {
		return nil, event.ErrDamaged
	}
	u := uvarints{left: b[8:]}
	m := &claim{stream: binary.BigEndian.Uint64(b), from: u.take(), to: u.take()}
	if u.short || len(u.left) == 0 || m.to < m.from {
		return nil, event.ErrDamaged
	}
	m.flags, m.left = u.left[0], u.left[1:]
	reset, all := m.flags&claimReset != 0, m.flags&claimAll != 0
	if m.flags&^claimFlags != 0 || reset && m.from != 0 || all && (!reset || len(m.left) > 0) {
		return nil, event.ErrDamaged
	}
	return m, nil
}

// next returns the next filter and how many want it (of one that is not shared, 0 or
// 1), and false at the end. It aliases the message.
func (m *claim) next() (filter string, wanted byte, ok bool) {
	if len(m.left) == 0 {
		return "", 0, false
	}
	u := uvarints{left: m.left[1:]}
	n := u.take()
	if u.short || n > uint64(len(u.left)) {
		m.err, m.left = event.ErrDamaged, nil
		return "", 0, false
	}
	filter = unsafe.String(unsafe.SliceData(u.left), n)
	if err := topic.ValidFilter(filter); err != nil {
		m.err, m.left = fmt.Errorf("%w: %w", event.ErrDamaged, err), nil
		return "", 0, false
	}
	wanted = m.left[0]
	if _, shared := sharedRest(filter); wanted > 1 && !shared {
		m.err, m.left = event.ErrDamaged, nil
		return "", 0, false
	}
	m.left = u.left[n:]
	return filter, wanted, true
}

func appendHeard(b []byte, stream, version uint64) []byte {
	return binary.AppendUvarint(binary.BigEndian.AppendUint64(append(b, peerVersion, peerHeard), stream), version)
}

func readHeard(b []byte) (stream, version uint64, err error) {
	if len(b) < 8 {
		return 0, 0, event.ErrDamaged
	}
	u := uvarints{left: b[8:]}
	if version = u.take(); u.short || len(u.left) > 0 {
		return 0, 0, event.ErrDamaged
	}
	return binary.BigEndian.Uint64(b), version, nil
}

func appendAsk(b []byte) []byte { return append(b, peerVersion, peerAsk) }

// Receive takes a message of another node's. It is called by one goroutine for
// each node, in the order in which that one sent, and does not keep message. What
// cannot be read is refused, counted, and told once for each link.
func (b *Broker) Receive(node string, message []byte) {
	p := b.relays.peer(node)
	if p == nil {
		return
	}
	err := p.take(message)
	if err == nil {
		return
	}
	b.stats.RelayRefused.Add(1)
	r := &b.relays
	r.mu.Lock()
	first := !p.refused
	p.refused = true
	r.mu.Unlock()
	if first {
		b.logger.Warn("a message of another node was refused", "node", node, "bytes", len(message), "err", err.Error())
	}
}

func (p *peer) take(message []byte) error {
	if len(message) < 2 {
		return event.ErrDamaged
	}
	kind, body := message[1], message[2:]
	if message[0] != peerVersion || !slices.Contains([]byte{peerClaim, peerHeard, peerAsk, peerEvents}, kind) {
		return fmt.Errorf("%w: version %d, kind %d", errNewer, message[0], kind)
	}
	switch kind {
	case peerClaim:
		return p.hear(body)
	case peerHeard:
		return p.hasHeard(body)
	case peerAsk:
		if len(body) > 0 {
			return event.ErrDamaged
		}
		p.note(func() { p.full, p.heard = true, 0 })
		return nil
	}
	if len(body) < 8 {
		return event.ErrDamaged
	}
	p.receive(binary.BigEndian.Uint64(body), body[8:])
	return nil
}

// note changes what is to be told to the peer.
func (p *peer) note(change func()) {
	p.r.mu.Lock()
	change()
	p.r.mu.Unlock()
	p.r.kick()
}

// hear takes a claim. What cannot be understood is asked for anew.
func (p *peer) hear(body []byte) error {
	m, err := readClaim(body)
	if err == nil {
		err = p.told.hear(p, m)
	}
	if err != nil {
		p.note(func() { p.ask = true })
		if errors.Is(err, errMissed) {
			return nil
		}
		p.told.forget(p)
		return err
	}
	if m.flags&claimMore == 0 {
		p.note(func() { p.answer, p.stream, p.version = true, m.stream, m.to })
	}
	return nil
}

func (p *peer) hasHeard(body []byte) error {
	stream, version, err := readHeard(body)
	if err != nil {
		return err
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if stream == p.r.stream {
		p.heard = version
		p.r.changedNow()
	}
	return nil
}
