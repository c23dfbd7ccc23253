package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/cluster/raftlog"
)

// When a majority of voters is lost for good, disks and all, no leader can be elected
// by those that are left: that is what a quorum is for. What one of them holds can
// still be the beginning of a cluster, if people say so. It then holds all that was
// acknowledged up to where it had followed, and what alone the lost ones had is gone.
//
// What must not happen is that the lost ones were not lost, and two halves go on by
// themselves, each believing to be the cluster. So the survivor's cluster has another
// id: nodes of the former one are refused by it, and refuse it, for ever.

// A Survivor is what a directory holds, for whoever has to decide whether to go on
// with it.
type Survivor struct {
	Identity Identity
	Name     string        // of the cluster, for people
	Last     uint64        // index of the newest entry, committed or not
	Term     uint64        // of that
	Others   []link.Member // the members it knew, but for itself
}

// A survey has the log of a directory open.
type survey struct {
	Survivor
	dir *Dir
	db  *raftlog.DB
	log *raftlog.Log
}

// Survey tells what a directory of a node that does not run holds. It changes
// nothing.
func (d *Dir) Survey(logger *slog.Logger, die func(reason string), now func() time.Time) (Survivor, error) {
	s, err := d.survey(logger, die, now)
	if err != nil {
		return Survivor{}, fmt.Errorf("cluster: %w", err)
	}
	return s.Survivor, s.db.Close()
}

// Survive makes the node of a directory the only voter of a cluster of its own, that
// begins with what the node holds, and returns that. Open then starts it; others join
// with empty directories. It may be done again after a crash.
//
// It is for a majority that is lost for good: see Survivor. The caller has asked.
func (d *Dir) Survive(logger *slog.Logger, die func(reason string), now func() time.Time) (Survivor, error) {
	s, err := d.survey(logger, die, now)
	if err == nil {
		err = errors.Join(s.goOn(), s.db.Close())
	}
	if err != nil {
		return Survivor{}, fmt.Errorf("cluster: recover: %w", err)
	}
	s.Identity = d.id
	return s.Survivor, nil
}

func (d *Dir) survey(logger *slog.Logger, die func(reason string), now func() time.Time) (*survey, error) {
	s := &survey{Survivor: Survivor{Identity: d.id, Name: d.clusterName()}, dir: d}
	if !d.id.Started {
		return nil, fmt.Errorf("%w: no node has been started in it: it holds nothing", ErrRefused)
	}
	known, err := d.members()
	if err != nil {
		return nil, err
	}
	for _, m := range known {
		if m.ID != d.id.Node {
			s.Others = append(s.Others, m)
		}
	}
	s.db, err = raftlog.Open(raftlog.Options{FS: d.fs, Dir: d.raft(), Exists: true, Logger: logger, Die: die, Now: now})
	if err != nil {
		return nil, err
	}
	if s.log, err = s.db.Log(0, func() uint64 { return 0 }, 0); err == nil {
		err = s.measure()
	}
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// measure reads how far the log has come.
func (s *survey) measure() (err error) {
	base, term := s.log.Base()
	if s.Last, err = s.log.LastIndex(); err != nil {
		return err
	}
	switch {
	case s.Last == 0 && base == 0:
		return fmt.Errorf("%w: it has joined, and was not given anything yet", ErrRefused)
	case s.Last == 0:
		s.Last, s.Term = base, term
		return nil
	case base > s.Last:
		return fmt.Errorf("%w: it was about to take over a snapshot: start the node, stop it after a minute, and try again", ErrRefused)
	}
	var e raft.Log
	err = s.log.GetLog(s.Last, &e)
	s.Term = e.Term
	return err
}

// goOn makes the node the only voter. First the id of the cluster: with that alone it
// is a node that nobody talks to, and the rest is done by another try.
func (s *survey) goOn() error {
	d := s.dir
	d.id.Cluster = newUUID()
	if err := d.save(); err != nil {
		return err
	}
	term, err := s.log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	// Raft goes by the newest configuration in its log, committed or not; and what
	// precedes it is committed with the first entry of the next term.
	err = s.log.StoreLog(&raft.Log{
		Index: s.Last + 1, Term: max(term, s.Term), Type: raft.LogConfiguration,
		Data: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(d.id.Node), Address: raft.ServerAddress(d.id.Node),
		}}}),
	})
	if err == nil {
		err = d.takeIn(s.Last + 1) // it may have been removed from the former cluster
	}
	if err != nil {
		return err
	}
	return errors.Join(d.saveMembers(nil), d.fs.RemoveAll(d.contestedFile()), d.fs.SyncDir(d.path)) // it is to be a cluster of its own
}
