package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// recover brings log and state together before Raft starts: it finishes what a
// crash has interrupted, begins a cluster in a directory that is new, and refuses
// a log and a state that do not belong together.
func (n *Node) recover() error {
	if err := n.restorePending(); err != nil {
		return err
	}
	durable, _, _, _ := n.cfg.Machine.Durable()
	first, last, err := n.logEnds()
	if err != nil {
		return err
	}
	base, _ := n.log.Base()
	switch {
	case last == 0 && durable == 0 && n.cfg.Dir.id.Joined:
		return nil // it has not been given anything yet
	case last == 0 && durable == 0 && !n.cfg.Dir.id.Started:
		return n.bootstrap()
	case last == 0 && durable == 0:
		return fmt.Errorf("%w: log and state are empty, but this node has been running", ErrDamaged)
	case last != 0 && first > durable+1:
		return fmt.Errorf("%w: the log begins at %d, and the state ends at %d", ErrDamaged, first, durable)
	case last == 0 && base > durable:
		return fmt.Errorf("%w: the log was truncated up to %d, and the state ends at %d", ErrDamaged, base, durable)
	case last < durable && durable > n.log.Installed():
		return fmt.Errorf("%w: the log ends at %d, before the state, at %d", ErrDamaged, last, durable)
	case last < durable && last != 0:
		// A snapshot had been installed, and the log that it overtook not yet
		// removed.
		return n.log.DeleteRange(first, last)
	}
	return nil
}

// restorePending restores a snapshot that was received before a crash, and not
// yet restored.
func (n *Node) restorePending() error {
	m, pending, err := n.snapshots.Pending()
	if err != nil || !pending {
		return err
	}
	_, stream, err := n.snapshots.Open(m.ID())
	if err != nil {
		return err
	}
	_, err = n.snapshots.Restore(stream)
	return errors.Join(err, stream.Close())
}

func (n *Node) bootstrap() error {
	term, err := n.log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	if term != 0 {
		return fmt.Errorf("%w: the log is empty, but its term is %d", ErrDamaged, term)
	}
	return n.log.Bootstrap(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: n.id,
		// The id is the address, too: Raft compares addresses where it means
		// servers, and these must not change.
		Address: raft.ServerAddress(n.id),
	}}})
}

func (n *Node) logEnds() (first, last uint64, err error) {
	if first, err = n.log.FirstIndex(); err == nil {
		last, err = n.log.LastIndex()
	}
	return first, last, err
}

// newestStamp returns the greatest stamp in the log, or that was ever in it, or in the
// log that the state comes from. They do not decrease, so it is that of the newest entry
// that has one.
func (n *Node) newestStamp() (int64, error) {
	first, last, err := n.logEnds()
	if err != nil {
		return 0, err
	}
	floor := max(n.log.Floor(), n.cfg.Machine.Now())
	for index := last; index >= first && index > 0; index-- {
		var e raft.Log
		if err := n.log.GetLog(index, &e); err != nil {
			return 0, err
		}
		if e.Type == raft.LogCommand {
			return max(stampOf(e.Data), floor), nil
		}
	}
	return floor, nil
}
