package clustertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
)

// A Machine is a cluster.Machine whose state is the whole history of what it has
// applied. It is durable as a real one: without a log of its own, up to what it
// last flushed. Copies of it are several files.
//
// A file of entries, once written, is not changed; head, which is replaced in one
// step, names those that count.
type Machine struct {
	fs      *disk.FS
	dir     string
	die     func(reason string)
	witness *Witness
	every   int // entries until it flushes by itself, as a real one's memory fills up
	program Program

	// files is taken by who changes files, before mu, which nobody holds while the
	// disk works. It holds one.
	files chan struct{}

	mu      sync.Mutex // guards the following
	entries []Entry
	numbers numbers
	level   cluster.Level // in force as of the newest entry
	digest  uint64
	durable head // what a crash leaves
}

// A Program is the version of the program that a Machine belongs to, as far as
// feature levels go.
type Program struct {
	// Knows is the newest level that it knows. It dies of an entry that raises the
	// level further, as the broker's machine does.
	Knows cluster.Level

	// Raised, if there is one, is told of a level before it is in force. It may be
	// told again of one that is.
	Raised func(cluster.Level)
}

var _ cluster.Machine = (*Machine)(nil)

// A head says what is durable.
type head struct {
	Generation int      `json:"generation"` // raised by each Restore
	Files      []string `json:"files"`
	Count      int      `json:"count"` // entries in them
	Digest     uint64   `json:"digest"`

	Index       uint64 `json:"index"`
	Term        uint64 `json:"term"`
	Config      []byte `json:"config"`
	ConfigIndex uint64 `json:"configIndex"`
}

// ErrState means that a Machine's files are not what was written.
var ErrState = errors.New("clustertest: the machine's files are damaged")

// OpenMachine opens the machine in dir, which is made if it does not exist. It
// flushes by itself after each so many entries; die is called when a disk that
// fails leaves it no other way, and must not return. What it applies it shows to
// witness.
func OpenMachine(fsys *disk.FS, dir string, every int, program Program, die func(reason string), witness *Witness) (*Machine, error) {
	m := &Machine{fs: fsys, dir: dir, die: die, witness: witness, every: max(1, every), program: program, level: firstLevel, files: make(chan struct{}, 1)}
	if err := fsys.MakeDir(dir); err != nil {
		return nil, err
	}
	if err := m.load(); err != nil {
		return nil, err
	}
	m.raised(m.level) // a crash may have come between the two
	witness.opened(m.at(), m.digest, m.numbers)
	return m, nil
}

// load reads what is durable.
func (m *Machine) load() error {
	h, entries, err := readState(m.fs, m.dir)
	if err != nil {
		return err
	}
	m.set(h, entries)
	return m.sweep()
}

// set replaces the state by one that is durable.
func (m *Machine) set(h head, entries []Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.durable, m.entries, m.numbers, m.level, m.digest = h, nil, numbers{}, firstLevel, 0
	for _, e := range entries {
		m.add(e)
	}
}

// readState reads a state or a copy of one.
func readState(fsys *disk.FS, dir string) (h head, entries []Entry, err error) {
	data, err := fsys.ReadFile(fsys.PathJoin(dir, "head"))
	if errors.Is(err, fs.ErrNotExist) {
		return head{}, nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &h)
	}
	if err != nil {
		return head{}, nil, fmt.Errorf("%w: head: %w", ErrState, err)
	}
	digest := uint64(0)
	for _, name := range h.Files {
		data, err := fsys.ReadFile(fsys.PathJoin(dir, name))
		if err != nil {
			return head{}, nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		r := &reader{rest: data}
		for len(r.rest) > 0 {
			e := r.entry()
			digest = e.sum(digest)
			entries = append(entries, e)
		}
		if r.failed {
			return head{}, nil, fmt.Errorf("%w: %s", ErrState, name)
		}
	}
	if len(entries) != h.Count || digest != h.Digest {
		return head{}, nil, fmt.Errorf("%w: %d entries with digest %x, want %d, %x", ErrState, len(entries), digest, h.Count, h.Digest)
	}
	return h, entries, nil
}

// add takes an entry into memory and returns the batches that count. Requires mu.
func (m *Machine) add(e Entry) (taken []Batch) {
	m.entries = append(m.entries, e)
	m.digest = e.sum(m.digest)
	for _, buf := range e.Batches {
		b, err := parseBatch(buf)
		if err != nil {
			m.witness.blame("entry %d holds what nobody submitted: %v", e.Index, err)
			continue
		}
		if m.numbers.take(b.key()) {
			taken = append(taken, b)
			m.level = max(m.level, b.raises())
		}
	}
	return taken
}

// Apply is cluster.Machine's.
func (m *Machine) Apply(index, term uint64, stamp int64, batches [][]byte) {
	m.apply(Entry{Index: index, Term: term, Stamp: stamp, Batches: batches})
}

// Configure is cluster.Machine's.
func (m *Machine) Configure(index, term uint64, config []byte) {
	m.apply(Entry{Index: index, Term: term, Config: append([]byte(nil), config...)})
}

func (m *Machine) apply(e Entry) {
	m.mu.Lock()
	before := m.level
	taken := m.add(e)
	digest, level := m.digest, m.level
	full := len(m.entries)-m.durable.Count >= m.every
	m.mu.Unlock()
	if level > before && !m.raised(level) {
		return
	}
	if full {
		if err := m.Flush(); err != nil {
			m.die(fmt.Sprintf("clustertest: flush: %v", err))
			return
		}
	}
	m.witness.applied(e, digest, taken)
}

// raised tells of a level that is to be in force. It returns false if the program
// does not know it: then the process has died.
func (m *Machine) raised(to cluster.Level) bool {
	if to > m.program.Knows {
		m.witness.blame("feature level %d is in force, its program knows %d", to, m.program.Knows)
		m.die(fmt.Sprintf("clustertest: feature level %d, this program knows %d", to, m.program.Knows))
		return false
	}
	if m.program.Raised != nil {
		m.program.Raised(to)
	}
	return true
}

// Level returns the feature level in force as of the newest entry.
func (m *Machine) Level() cluster.Level {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.level
}

// Durable is cluster.Machine's.
func (m *Machine) Durable() (index, term uint64, config []byte, configIndex uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.durable
	if h.ConfigIndex == 0 {
		return 0, 0, nil, 0
	}
	return h.Index, h.Term, h.Config, h.ConfigIndex
}

// Flush is cluster.Machine's.
func (m *Machine) Flush() error {
	m.files <- struct{}{}
	defer func() { <-m.files }()
	return m.flush()
}

// flush writes what is new into a file, and then a head that names it. Requires
// files.
func (m *Machine) flush() error {
	m.mu.Lock()
	h, digest := m.durable, m.digest
	fresh := m.entries[h.Count:]
	m.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	var buf []byte
	for _, e := range fresh {
		buf = e.encode(buf)
		h.Index, h.Term = e.Index, e.Term
		if e.Config != nil {
			h.Config, h.ConfigIndex = e.Config, e.Index
		}
	}
	name := fmt.Sprintf("%d-%06d", h.Generation, len(h.Files))
	if err := m.fs.WriteFile(m.fs.PathJoin(m.dir, name), buf); err != nil {
		return err
	}
	h.Files = append(append([]string(nil), h.Files...), name)
	h.Count, h.Digest = h.Count+len(fresh), digest
	if err := m.writeHead(h); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.durable = h
	return nil
}

// writeHead makes h durable. Requires files.
func (m *Machine) writeHead(h head) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return m.fs.WriteFile(m.fs.PathJoin(m.dir, "head"), data)
}

// Checkpoint is cluster.Machine's.
func (m *Machine) Checkpoint(dir string) (index, term uint64, err error) {
	m.files <- struct{}{}
	defer func() { <-m.files }()
	if err := m.flush(); err != nil {
		return 0, 0, err
	}
	if err := m.fs.MakeDir(dir); err != nil {
		return 0, 0, err
	}
	h := m.durable // who has files may read it: nobody else changes it
	for _, name := range append([]string{"head"}, h.Files...) {
		if err := m.fs.Link(m.fs.PathJoin(m.dir, name), m.fs.PathJoin(dir, name)); err != nil {
			return 0, 0, err
		}
	}
	return h.Index, h.Term, m.fs.SyncDir(dir)
}

// Restore is cluster.Machine's.
func (m *Machine) Restore(dir string) error {
	m.files <- struct{}{}
	err := m.restore(dir)
	<-m.files
	if err != nil {
		return err
	}
	m.mu.Lock()
	at, digest, level, taken := m.at(), m.digest, m.level, maps.Clone(m.numbers)
	m.mu.Unlock()
	if !m.raised(level) {
		return nil
	}
	m.witness.restored(at, digest, taken)
	return nil
}

// restore takes over a copy: its files first, then, in one step, a head that
// names them. Requires files.
func (m *Machine) restore(dir string) error {
	h, entries, err := readState(m.fs, dir)
	if err != nil {
		return err
	}
	h.Generation = max(h.Generation, m.durable.Generation) + 1
	names := make([]string, len(h.Files))
	for i, name := range h.Files {
		names[i] = fmt.Sprintf("%d-%06d", h.Generation, i)
		if err := m.take(m.fs.PathJoin(dir, name), m.fs.PathJoin(m.dir, names[i])); err != nil {
			return err
		}
	}
	h.Files = names
	if err := m.fs.SyncDir(m.dir); err != nil {
		return err
	}
	if err := m.writeHead(h); err != nil {
		return err
	}
	m.set(h, entries)
	return m.sweep()
}

// take links a file to a name that an earlier attempt may have left.
func (m *Machine) take(from, to string) error {
	if err := m.fs.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.fs.Link(from, to)
}

// sweep removes files that head does not name. Requires files, or that nobody
// else has the machine yet.
func (m *Machine) sweep() error {
	names, err := m.fs.List(m.dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{"head": true}
	for _, name := range m.durable.Files {
		keep[name] = true
	}
	for _, name := range names {
		if keep[name] || !strings.Contains(name, "-") {
			continue
		}
		if err := m.fs.Remove(m.fs.PathJoin(m.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// at returns the index of the newest entry, 0 for none. Requires mu.
func (m *Machine) at() uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[len(m.entries)-1].Index
}

// State returns the index of the newest entry and the digest of all.
func (m *Machine) State() (index, digest uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at(), m.digest
}

// Now is cluster.Machine's.
func (m *Machine) Now() (newest int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range slices.Backward(m.entries) { // configurations have none
		if newest = e.Stamp; e.Config == nil {
			break
		}
	}
	return newest
}

// History returns what the machine has applied, in order, what came with copies
// included. It is not to be changed.
func (m *Machine) History() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries
}
