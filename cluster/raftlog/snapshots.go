package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/disk"
)

// A Source is the state that snapshots are taken of and installed into. All but
// Restore may be called at any time, also while entries are being applied.
type Source interface {
	// Durable returns the place of the last entry whose effects would survive a
	// crash, and the newest configuration at or below it.
	Durable() (index, term uint64, config []byte, configIndex uint64)

	// Flush makes durable what has been applied before the call.
	Flush() error

	// Checkpoint writes a consistent, durable copy of the state into dir, which
	// does not exist, and returns its place.
	Checkpoint(dir string) (index, term uint64, err error)

	// Restore replaces the state by the copy in dir, of which it may take the
	// files. When it returns, the new state is durable.
	Restore(dir string) error
}

// LiveID is the id under which the state itself is listed and opened as a
// snapshot.
const LiveID = "live"

// ErrNoSnapshot means that there is no snapshot of that id.
var ErrNoSnapshot = errors.New("no such snapshot")

// Snapshots are copies of the state at one index, and the state itself seen as
// one: Raft's SnapshotStore.
//
// The state database needs no snapshot in order to start again, for it is durable
// up to an index that it knows. So what Raft takes for its newest snapshot is
// LiveID, at that index: Raft starts from there and replays what follows, and when
// it wants a snapshot taken before it truncates, a flush of the state is all that
// is done. Only when somebody reads it (a follower that is too far behind, a
// backup) is a copy made, of files that are linked where they can be.
//
// Copies that are kept stand in a directory each:
//
//	DIR/INDEX-TERM/meta      what it is; see meta
//	DIR/INDEX-TERM/state/    the files of the state
//
// They appear under that name when complete. Names that end in .tmp are what a
// crash has left and are removed at the start. How a snapshot travels is
// described at the type stream.
type Snapshots struct {
	fs     *disk.FS
	dir    string
	log    *Log
	source Source
	keep   int

	mu      sync.Mutex // guards the following
	held    map[string]int
	temp    int                 // numbers temporary directories
	arrived map[string]*Arrival // those that are whole, by ticket, until a Sink takes them over
}

var _ raft.SnapshotStore = (*Snapshots)(nil)

// OpenSnapshots returns the snapshots in dir, making it if there is none. keep
// is how many copies Take leaves there, 1 at least.
func OpenSnapshots(fs *disk.FS, dir string, log *Log, source Source, keep int) (*Snapshots, error) {
	s := &Snapshots{fs: fs, dir: dir, log: log, source: source, keep: max(keep, 1), held: map[string]int{}, arrived: map[string]*Arrival{}}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("raftlog: snapshots in %s: %w", dir, err)
	}
	return s, nil
}

const tempSuffix = ".tmp"

// sweep makes the directory and removes what was left unfinished in it.
func (s *Snapshots) sweep() error {
	if err := s.fs.MakeDir(s.dir); err != nil {
		return err
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) {
			if err := s.fs.RemoveAll(s.fs.PathJoin(s.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Copies returns what is known of the copies that are kept, newest first. One
// whose meta cannot be read is ErrDamaged.
func (s *Snapshots) Copies() ([]Meta, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, err
	}
	var copies []Meta
	for _, name := range names {
		if _, _, ok := parseID(name); !ok {
			continue
		}
		m, err := s.meta(name)
		if err != nil {
			return nil, err
		}
		copies = append(copies, m)
	}
	slices.SortFunc(copies, func(a, b Meta) int {
		if a.Index != b.Index {
			return cmp.Compare(b.Index, a.Index)
		}
		return cmp.Compare(b.Term, a.Term)
	})
	return copies, nil
}

func (s *Snapshots) meta(id string) (Meta, error) {
	data, err := s.fs.ReadFile(s.path(id, "meta"))
	if err != nil {
		return Meta{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	m, err := parseMeta(data)
	if err != nil {
		return Meta{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return m, nil
}

func (s *Snapshots) path(elem ...string) string {
	return s.fs.PathJoin(append([]string{s.dir}, elem...)...)
}

// ID returns the id of a copy.
func (m Meta) ID() string { return fmt.Sprintf("%d-%d", m.Index, m.Term) }

func parseID(id string) (index, term uint64, ok bool) {
	a, b, ok := strings.Cut(id, "-")
	if !ok {
		return 0, 0, false
	}
	index, err1 := strconv.ParseUint(a, 10, 64)
	term, err2 := strconv.ParseUint(b, 10, 64)
	return index, term, err1 == nil && err2 == nil
}

// List returns the state itself, at its durable index, and then the copies.
// Raft starts from the first.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	var list []*raft.SnapshotMeta
	index, term, config, configIndex := s.source.Durable()
	if index > 0 {
		live, err := Meta{Index: index, Term: term, Config: config, ConfigIndex: configIndex}.raft(LiveID, 0)
		if err != nil {
			return nil, err
		}
		list = append(list, live)
	}
	copies, err := s.Copies()
	if err != nil {
		return nil, err
	}
	for _, m := range copies {
		if m.Index > index {
			// One that was received and not restored: see Pending.
			return nil, fmt.Errorf("raftlog: snapshot %s is ahead of the state, at %d", m.ID(), index)
		}
		c, err := m.raft(m.ID(), 0)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// raft returns m as Raft wants it. Raft's decoder panics on what it does not
// understand; here that is ErrDamaged.
func (m Meta) raft(id string, size int64) (meta *raft.SnapshotMeta, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raftlog: snapshot %s: %w: configuration: %v", id, ErrDamaged, p)
		}
	}()
	return &raft.SnapshotMeta{
		Version: 1, ID: id, Index: m.Index, Term: m.Term, Size: size,
		Configuration: raft.DecodeConfiguration(m.Config), ConfigurationIndex: m.ConfigIndex,
	}, nil
}

// Pending returns a copy that was received from another node and is ahead of the
// state, because a crash came before it was restored. ok is false for none.
func (s *Snapshots) Pending() (m Meta, ok bool, err error) {
	copies, err := s.Copies()
	if err != nil || len(copies) == 0 {
		return Meta{}, false, err
	}
	index, _, _, _ := s.source.Durable()
	return copies[0], copies[0].Index > index, nil
}

// Take makes a copy of the state as it is now and keeps it, removing the oldest
// ones beyond those to keep.
func (s *Snapshots) Take() (Meta, error) {
	tmp := s.tempDir("take")
	m, err := s.checkpoint(tmp)
	if err == nil {
		err = s.publish(tmp, m)
	}
	if err != nil {
		return Meta{}, errors.Join(fmt.Errorf("raftlog: take a snapshot: %w", err), s.fs.RemoveAll(tmp))
	}
	return m, s.Reap()
}

// checkpoint copies the state into dir/state and returns where it is.
func (s *Snapshots) checkpoint(dir string) (Meta, error) {
	if err := s.fs.MakeDir(dir); err != nil {
		return Meta{}, err
	}
	state := s.fs.PathJoin(dir, "state")
	for {
		index, term, err := s.source.Checkpoint(state)
		if err != nil {
			return Meta{}, err
		}
		// The configuration at the copy's index is the one that is newest now,
		// unless the group was reconfigured meanwhile: then another try.
		if _, _, config, configIndex := s.source.Durable(); configIndex <= index {
			return Meta{Index: index, Term: term, Config: config, ConfigIndex: configIndex}, nil
		}
		if err := s.fs.RemoveAll(state); err != nil {
			return Meta{}, err
		}
	}
}

// publish gives a complete copy in tmp its name.
func (s *Snapshots) publish(tmp string, m Meta) error {
	if err := s.fs.WriteFile(s.fs.PathJoin(tmp, "meta"), m.encode()); err != nil {
		return err
	}
	if _, err := s.fs.Stat(s.path(m.ID())); err == nil {
		return s.fs.RemoveAll(tmp) // the state has not moved since the last copy
	}
	if err := s.fs.Rename(tmp, s.path(m.ID())); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

// Reap removes the oldest copies beyond those to keep, but none that is being
// read and none that is ahead of the state.
func (s *Snapshots) Reap() error {
	copies, err := s.Copies()
	if err != nil {
		return err
	}
	index, _, _, _ := s.source.Durable()
	for i, m := range copies {
		if i < s.keep || m.Index > index {
			continue
		}
		if err := s.remove(m.ID()); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a copy unless it is held. It is renamed first, so that a crash
// leaves none that is half there.
func (s *Snapshots) remove(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[id] > 0 {
		return nil
	}
	tmp := s.path(id + tempSuffix)
	if err := s.fs.Rename(s.path(id), tmp); err != nil {
		return err
	}
	return s.fs.RemoveAll(tmp)
}

func (s *Snapshots) tempDir(what string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.temp++
	return s.path(fmt.Sprintf("%s-%d%s", what, s.temp, tempSuffix))
}

// Open returns a snapshot as a stream, and its size. The id LiveID makes a copy of
// the state as it is now, which is removed when the stream is closed; any other
// copy stays until then.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, stream, err := s.open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("raftlog: open snapshot %s: %w", id, err)
	}
	return meta, stream, nil
}

func (s *Snapshots) open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, dir, release, err := s.hold(id)
	if err != nil {
		return nil, nil, err
	}
	stream, err := newStream(s.fs, dir, m, release)
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	meta, err := m.raft(id, stream.size)
	if err != nil {
		return nil, nil, errors.Join(err, stream.Close())
	}
	return meta, stream, nil
}

// hold returns a copy that stays where it is until release is called.
func (s *Snapshots) hold(id string) (m Meta, dir string, release func() error, err error) {
	if id == LiveID {
		dir = s.tempDir("open")
		release = func() error { return s.fs.RemoveAll(dir) }
		if m, err = s.checkpoint(dir); err != nil {
			return Meta{}, "", nil, errors.Join(err, release())
		}
		return m, dir, release, nil
	}
	if _, _, ok := parseID(id); !ok {
		return Meta{}, "", nil, ErrNoSnapshot
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir = s.path(id)
	if _, err := s.fs.Stat(dir); err != nil {
		return Meta{}, "", nil, fmt.Errorf("%w: %w", ErrNoSnapshot, err)
	}
	if m, err = s.meta(id); err != nil {
		return Meta{}, "", nil, err
	}
	s.held[id]++
	return m, dir, func() error { s.unhold(id); return nil }, nil
}

func (s *Snapshots) unhold(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[id]--; s.held[id] == 0 {
		delete(s.held, id)
	}
}

// Restore replaces the state by the snapshot that r streams.
func (s *Snapshots) Restore(r io.Reader) (Meta, error) {
	tmp := s.tempDir("restore")
	m, err := unpack(s.fs, r, tmp)
	if err == nil {
		err = s.source.Restore(s.fs.PathJoin(tmp, "state"))
	}
	err = errors.Join(err, s.fs.RemoveAll(tmp))
	if err != nil {
		return Meta{}, fmt.Errorf("raftlog: restore: %w", err)
	}
	return m, nil
}
