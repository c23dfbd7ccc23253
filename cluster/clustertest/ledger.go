package clustertest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// A Ledger is the judge of a cluster. It sees each batch that is submitted, each
// entry that any Machine applies, and who leads; and it compares, in time linear
// in what it sees:
//
//   - whatever two machines apply at one index is the same, in any of their lives,
//     and so are their digests at one index, also when it came with a copy;
//   - indexes ascend, and stamps do not run back;
//   - no batch is applied that was not submitted as it is;
//   - at most one node leads in a term;
//   - a batch that was applied where it was submitted, which is when its submitter
//     is told, is in the end in every history, once, in the order of its numbers,
//     and at the place at which that was.
//
// All methods may be called by any goroutine.
type Ledger struct {
	mu        sync.Mutex // guards the following, and all witnesses
	submitted map[key]string
	applied   map[uint64]mark // by index
	told      map[key]uint64  // index at which a batch was applied where it came from
	leaders   map[uint64]string
	faults    []string
}

// A mark is what the first machine that came to an index made of it.
type mark struct {
	node   string
	digest uint64
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		submitted: map[key]string{}, applied: map[uint64]mark{},
		told: map[key]uint64{}, leaders: map[uint64]string{},
	}
}

const maxFaults = 20

// blame notes what is wrong. Requires mu.
func (l *Ledger) blame(format string, args ...any) {
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// Faults returns what was wrong so far.
func (l *Ledger) Faults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.faults)
}

// Told returns how many batches were applied where they had been submitted.
func (l *Ledger) Told() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.told)
}

// Leads notes that a node calls itself leader of a term.
func (l *Ledger) Leads(node string, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other, known := l.leaders[term]
	if known && other != node {
		l.blame("%s and %s lead in term %d", other, node, term)
	}
	l.leaders[term] = node
}

// submit notes that a batch is submitted.
func (l *Ledger) submit(b Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, again := l.submitted[b.key()]; again && was != string(b.Payload) {
		l.blame("%v was submitted as two things", b.key())
	}
	l.submitted[b.key()] = string(b.Payload)
}

// A Witness tells the ledger what one node's machine does, during one life of its
// process.
type Witness struct {
	ledger *Ledger
	node   string
	source *Source // of the same process; nil for none

	// Guarded by ledger.mu.
	retired bool
	index   uint64
	stamp   int64
}

// Witness returns the witness of a node's life. source, which may be nil, is told
// what of its own was applied.
func (l *Ledger) Witness(node string, source *Source) *Witness {
	return &Witness{ledger: l, node: node, source: source}
}

// Retire ends a life: whatever its machine still does counts no more. A process
// that is killed is retired before its disk is looked at.
func (w *Witness) Retire() {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	w.retired = true
}

func (w *Witness) blame(format string, args ...any) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	if !w.retired {
		w.ledger.blame(w.node+": "+format, args...)
	}
}

// opened is called with the state that a machine has found on its disk.
func (w *Witness) opened(index, digest uint64, taken numbers) {
	w.have(index, digest, taken, "has on its disk")
}

// restored is called with the state that a machine was given.
func (w *Witness) restored(index, digest uint64, taken numbers) {
	w.have(index, digest, taken, "was given")
}

func (w *Witness) have(index, digest uint64, taken numbers, how string) {
	l := w.ledger
	l.mu.Lock()
	if w.retired {
		l.mu.Unlock()
		return
	}
	// Of an entry that a process applied when it was killed nobody may have told:
	// its index is unknown until another comes to it.
	if m, known := l.applied[index]; known && m.digest != digest {
		l.blame("%s %s a state of index %d with digest %x; %s had %x there", w.node, how, index, digest, m.node, m.digest)
	}
	if index < w.index {
		l.blame("%s %s a state of index %d and was at %d", w.node, how, index, w.index)
	}
	w.index = index
	l.mu.Unlock()
	if w.source != nil {
		w.source.caughtUp(taken[w.source.name])
	}
}

// applied is called after an entry was applied. taken are the batches in it that
// count.
func (w *Witness) applied(e Entry, digest uint64, taken []Batch) {
	l := w.ledger
	l.mu.Lock()
	if w.retired {
		l.mu.Unlock()
		return
	}
	w.place(e, digest)
	for _, b := range taken {
		if was, known := l.submitted[b.key()]; !known || was != string(b.Payload) {
			l.blame("%s applied %v at %d, which nobody has submitted so", w.node, b.key(), e.Index)
		}
		if w.source.is(b) {
			l.told[b.key()] = e.Index
		}
	}
	l.mu.Unlock()
	for _, b := range taken {
		if w.source.is(b) {
			w.source.seen(b.Number)
		}
	}
}

// place compares an entry with what others applied there. Requires ledger.mu.
func (w *Witness) place(e Entry, digest uint64) {
	l := w.ledger
	if e.Index <= w.index {
		l.blame("%s applied %d after %d", w.node, e.Index, w.index)
	}
	w.index = e.Index
	if e.Config == nil {
		if e.Stamp < w.stamp {
			l.blame("%s: the stamp of %d is %d and ran back from %d", w.node, e.Index, e.Stamp, w.stamp)
		}
		w.stamp = e.Stamp
	}
	m, known := l.applied[e.Index]
	switch {
	case !known:
		l.applied[e.Index] = mark{w.node, digest}
	case m.digest != digest:
		l.blame("%s applied something else at %d than %s, or before it", w.node, e.Index, m.node)
	}
}

// Settle makes the final comparison, when all machines have come to the end of
// the log, and returns all faults.
func (l *Ledger) Settle(machines map[string]*Machine) []string {
	var index, digest uint64
	for i, node := range slices.Sorted(maps.Keys(machines)) {
		at, sum := machines[node].State()
		history := machines[node].History()
		l.mu.Lock()
		if i > 0 && (at != index || sum != digest) {
			l.blame("%s ended at %d with digest %x, another at %d with %x", node, at, sum, index, digest)
		}
		index, digest = at, sum
		l.settle(node, history)
		l.mu.Unlock()
	}
	return l.Faults()
}

// settle looks through one history. Requires mu.
func (l *Ledger) settle(node string, history []Entry) {
	at := map[key]uint64{}
	last := map[string]key{}
	var index uint64
	var stamp int64
	for _, e := range history {
		if e.Index <= index {
			l.blame("%s: %d follows %d", node, e.Index, index)
		}
		if e.Config == nil && e.Stamp < stamp {
			l.blame("%s: stamp %d at %d follows %d", node, e.Stamp, e.Index, stamp)
		}
		index, stamp = e.Index, max(stamp, e.Stamp)
		for _, buf := range e.Batches {
			b, err := parseBatch(buf)
			if err != nil {
				continue // told already
			}
			k, was := b.key(), last[b.Name]
			if !(k.life == was.life && k.number == was.number+1 || k.life > was.life && k.number == 1) {
				continue // a repeat, or after a gap
			}
			last[b.Name], at[k] = k, e.Index
			if l.submitted[k] != string(b.Payload) {
				l.blame("%s holds %v, which nobody has submitted so", node, k)
			}
		}
	}
	for k, want := range l.told {
		if got, ok := at[k]; !ok {
			l.blame("%s has lost %v, which was acknowledged at %d", node, k, want)
		} else if got != want {
			l.blame("%s has %v at %d, it was acknowledged at %d", node, k, got, want)
		}
	}
}
