package broker

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// Digest returns a hash of the whole state and the entry that it is of.
func (m *Machine) Digest() (index, digest uint64) { return digestOf(m.store.Pin()) }

func digestOf(p *store.Pinned) (index, digest uint64) {
	digest, at := p.Digest(appliedKey)
	index, _, _ = readPosition(at)
	return index, digest
}

// DigestFrom has done told the digest after the first entry whose index is from or
// more, and that index: the same entry on every node, so that states are compared
// at one index while they change. ok is false, and done is not told, if that entry
// has been applied already. Of several that wait, the last is told alone. done is
// called by a goroutine of its own; hashing takes as long as reading all of the
// state does, and holds up nobody but who would close or replace it.
func (m *Machine) DigestFrom(from uint64, done func(index, digest uint64)) (ok bool) {
	return m.probe.set(from, &m.applied, done)
}

// A probe waits for an entry to be applied.
type probe struct {
	armed atomic.Bool // there is one; so that an entry costs a look and no lock

	mu   sync.Mutex // guards the following
	from uint64
	done func(index, digest uint64)
}

func (p *probe) set(from uint64, applied *atomic.Uint64, done func(index, digest uint64)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from, p.done = from, done
	p.armed.Store(true)
	// Armed first, and looked at then: an entry that is applied in between is
	// seen here, or sees that there is a probe and waits for mu.
	if applied.Load() >= from {
		p.armed.Store(false)
		p.done = nil
		return false
	}
	return true
}

// passed is told of each entry that has been applied, by the Machine's goroutine.
func (p *probe) passed(s *store.Store, index uint64) {
	if !p.armed.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil || index < p.from {
		return
	}
	p.armed.Store(false)
	done, pinned := p.done, s.Pin()
	p.done = nil
	go func() { done(digestOf(pinned)) }()
}

// Advance orders a command that changes nothing but the log's index and time, and
// returns when it has been applied here.
func (b *Broker) Advance(ctx context.Context) error { return b.do(ctx, &event.Tick{}) }
