package broker

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// A copier finds what is left in segments that are nearly empty, and has it copied (see
// segment). The leader's is at work, the others' look on: two at once would do no harm.
//
// Who refers to a body is found by reading all queues and streams, so what must hold is
// that this is worth it, and in nobody's way:
//
//   - A segment is looked at only if it was nearly empty a round ago already. That which
//     is about to be empty, because its clients keep up, will be.
//   - All is read only if what would be freed is at least a sixteenth of what was to be
//     read the last time. So what is not freed, for want of that, is bounded by what
//     there is.
//   - It is read in pieces, one at a time, with a pause after each, and what is found is
//     proposed one Copy at a time, like anybody's command: while publishers are held
//     back, so is it.
type copier struct {
	mu     sync.Mutex // held for a round
	before []uint64   // segments that were nearly empty in the round before, ascending
	at     uint64     // the last log entry by the end of that
	read   int        // how many entries there were the last time all were read
}

const (
	copyEvery = 10 * time.Second

	// readWorth is how many entries may have been read for one body that is freed.
	readWorth = 16

	readPiece = 4096 // entries
	readPause = 20 * time.Millisecond

	// segmentsAtOnce bounds what one round keeps in memory: references are no more than
	// an eighth of a segment each.
	segmentsAtOnce = 1024
)

// copyNowAndThen does a round now and then, where there is anything to be done.
func (b *Broker) copyNowAndThen() {
	timer := time.NewTimer(copyEvery)
	defer timer.Stop()
	for {
		select {
		case <-b.closing:
			return
		case <-timer.C:
		}
		err := b.copyRound()
		if b.isClosing() {
			return // which may be why
		}
		if err != nil {
			b.logger.Warn("events that little is left beside were not copied: this is tried again", "err", err.Error())
		}
		timer.Reset(copyEvery)
	}
}

func (b *Broker) isClosing() bool {
	select {
	case <-b.closing:
		return true
	default:
		return false
	}
}

// copyRound looks which segments are nearly empty, and has copied what is left in those
// that were a round ago.
func (b *Broker) copyRound() error {
	c, m := &b.copier, b.machine
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.log.Leader() || b.Level() < LevelStreams {
		c.before = nil
		return nil
	}
	if m.segmentsShown.Load() < 2 || m.Applied() == c.at {
		return nil // there is but what is being filled, or nothing has changed
	}
	m.sparse.ask()
	if err := b.order(&event.Tick{}); err != nil { // there may be no other entry for long
		return err
	}
	var now []uint64
	if found := m.sparse.found.Load(); found != nil {
		now = *found
	}
	still := slices.DeleteFunc(slices.Clone(now), func(number uint64) bool {
		_, was := slices.BinarySearch(c.before, number)
		return !was
	})
	c.before = now
	if len(still) > 0 && len(still)<<m.segmentBits >= c.read/readWorth {
		if err := b.copyFrom(still[:min(len(still), segmentsAtOnce)]); err != nil {
			return err
		}
	}
	if len(still) == len(now) && len(still) <= segmentsAtOnce {
		c.at = m.Applied() // there is nothing to do until something changes
	}
	return nil
}

// order has a command ordered, and does not wait for that for ever.
func (b *Broker) order(c event.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), b.patience())
	defer cancel()
	return b.do(ctx, c)
}

// copyFrom has what is left in segments copied.
func (b *Broker) copyFrom(segments []uint64) error {
	found, err := b.references(segments)
	for len(found) > 0 && err == nil && b.log.Leader() {
		c := &event.Copy{}
		c.Of, found = nextCopy(found)
		err = b.order(c)
	}
	return err
}

// A survivor is an entry that refers to a body of a nearly empty segment.
type survivor struct {
	event.Reference
	body uint64
	size uint64 // what the entry is charged for: the body takes about as much
}

// references returns all entries that refer into segments, by the bodies' numbers: those
// that there are when the reading comes by.
func (b *Broker) references(segments []uint64) (all []survivor, err error) {
	bits := b.machine.segmentBits
	note := func(f survivor) {
		if _, is := slices.BinarySearch(segments, f.body>>bits); is {
			all = append(all, f)
		}
	}
	n, err := b.readAll(store.Queue, func(key, value []byte) {
		if e := mustEntry(value); e.body != 0 {
			note(survivor{event.Reference{Owner: store.Uint64At(key, 1), At: store.Uint64At(key, 9)}, e.body, e.size})
		}
	})
	if err != nil {
		return nil, err
	}
	more, err := b.readAll(store.Streams, func(key, value []byte) {
		e := mustStreamed(value)
		note(survivor{event.Reference{Stream: true, Owner: store.Uint64At(key, 1), At: store.Uint64At(key, 9)}, e.body, e.size})
	})
	b.copier.read = n + more
	slices.SortFunc(all, func(a, b survivor) int {
		return cmp.Or(cmp.Compare(a.body, b.body), compareReferences(a.Reference, b.Reference))
	})
	return all, err
}

// readAll calls f for each key of a space, in pieces, and returns how many there were.
func (b *Broker) readAll(space store.Space, f func(key, value []byte)) (n int, err error) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	lower, upper := []byte{byte(space)}, store.End([]byte{byte(space)})
	for {
		select {
		case <-b.closing:
			return n, ErrClosing
		case <-pause.C:
		}
		piece := 0
		b.config.Store.Scan(lower, upper, func(key, value []byte) bool {
			f(key, value)
			piece++
			if piece == readPiece {
				lower = append(slices.Clone(key), 0)
			}
			return piece < readPiece
		})
		if n += piece; piece < readPiece {
			return n, nil
		}
		pause.Reset(readPause)
	}
}

// nextCopy takes from found, which is in the order of bodies, what one log entry may
// copy. References to one body stay together, as far as they are no more than that.
func nextCopy(all []survivor) (of []event.Reference, rest []survivor) {
	bodies, bytes, n := 0, uint64(0), 0
	for n < len(all) {
		same := 1
		for n+same < len(all) && all[n+same].body == all[n].body {
			same++
		}
		if n > 0 && (n+same > referencesMost || bodies == copiedMost || bytes+all[n].size > copiedBytes) {
			break
		}
		bodies++
		bytes += all[n].size
		n += min(same, referencesMost)
	}
	for _, f := range all[:n] {
		of = append(of, f.Reference)
	}
	slices.SortFunc(of, compareReferences)
	return of, all[n:]
}
