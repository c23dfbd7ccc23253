package cluster

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/raftlog"
)

// A backup is a snapshot of the state as it travels between nodes, in a file: a tar
// archive that ends with the checksums of what is in it (see raftlog). It is of one
// index, and is taken while the node goes on. What a node keeps beside the state,
// the log and who it is, is not in it: a backup becomes a new cluster of one node,
// which others join.

// A Backup is one that is being read.
type Backup struct {
	io.ReadCloser
	Index uint64 // of an entry that is in it, with all before; what comes while it is taken may be, too
	Size  int64  // bytes
}

// Backup makes a copy of the state as it is now, and returns it as a stream. The
// copy is removed when the stream is closed; until then it takes room on the disk,
// for what has changed meanwhile.
func (n *Node) Backup() (*Backup, error) {
	meta, stream, err := n.snapshots.Open(raftlog.LiveID)
	if err != nil {
		return nil, fmt.Errorf("cluster: backup: %w", err)
	}
	return &Backup{stream, meta.Index, meta.Size}, nil
}

// CheckBackup reads a backup to its end, and returns the index that it is of. An
// error is ErrDamaged, ErrNewer, or r's.
func CheckBackup(r io.Reader) (index uint64, err error) {
	m, err := raftlog.Check(r)
	return m.Index, err
}

// Unpack writes the state in a backup into the directory, which must be new. The
// directory is of use only when Found has been called.
func (d *Dir) Unpack(r io.Reader) error {
	if d.id.Started {
		return fmt.Errorf("cluster: restore: %w: a node has been started in it", ErrInUse)
	}
	tmp := d.fs.PathJoin(d.path, "restore.tmp")
	_, err := raftlog.Unpack(d.fs, r, tmp)
	if err == nil {
		err = d.fs.Rename(d.fs.PathJoin(tmp, "state"), d.State())
	}
	err = errors.Join(err, d.fs.RemoveAll(tmp))
	if err == nil {
		err = d.fs.SyncDir(d.path)
	}
	if err != nil {
		return fmt.Errorf("cluster: restore: %w", err)
	}
	return nil
}

// Found makes the node of cfg.Dir the only voter of a new cluster, whose state is
// that of cfg.Machine, unpacked from a backup. It returns the index from which the
// cluster goes on. Open then starts the node.
func Found(cfg Config) (index uint64, err error) {
	n := &Node{cfg: cfg.withDefaults(), id: raft.ServerID(cfg.Dir.id.Node)}
	if err := n.openLog(); err != nil {
		return 0, fmt.Errorf("cluster: restore: %w", err)
	}
	defer func() { err = errors.Join(err, n.db.Close()) }()
	last, term, _, _ := cfg.Machine.Durable()
	if last == 0 {
		return 0, fmt.Errorf("cluster: restore: %w: the backup holds no state", ErrDamaged)
	}
	// The members as of the backup are in the state. An entry of its own says who
	// they are from now on.
	index = last + 1
	cfg.Machine.Configure(index, term, raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: n.id, Address: raft.ServerAddress(n.id),
	}}}))
	if err := cfg.Machine.Flush(); err != nil {
		return 0, err
	}
	if err := n.log.Found(index, term); err != nil {
		return 0, err
	}
	return index, cfg.Dir.started()
}
