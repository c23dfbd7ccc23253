package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bellwire/bellwire/disk"
)

// An Identity says whose a data directory is. The node's id is random and made
// with the directory: a node that comes back with an empty disk is another node,
// and cannot vote under the name of the one that has forgotten its votes.
type Identity struct {
	// Format is the feature level of what the directory holds (see level.go): a
	// program that knows less does not touch it.
	Format  int    `json:"format"`
	Cluster string `json:"cluster"` // UUID, the same on all nodes of a cluster
	Node    string `json:"node"`    // UUID, for Raft and the other nodes
	Name    string `json:"name"`    // for people

	// Joined says that the node has joined a cluster that there was, with an empty
	// log. Until it is a member, Cluster is empty.
	Joined bool `json:"joined,omitempty"`

	// Started is set when log and state have come into being. From then on it
	// is damage if they are not there.
	Started bool `json:"started"`
}

// A Dir is a data directory that this process holds.
type Dir struct {
	fs     *disk.FS
	path   string
	id     Identity // but for Format
	newest Level    // that this program knows
	lock   io.Closer

	level  atomic.Uint32 // Format
	saving sync.Mutex
}

// Claim locks the data directory path for the node called name, making it if it
// does not exist. newest is the newest feature level that this program knows. It
// refuses a directory that is in use, that is another node's, that a later version
// has written, or that is damaged: see ErrInUse and the errors beside it. Close
// releases it.
func Claim(fsys *disk.FS, path, name string, newest Level) (*Dir, error) {
	return claimAs(fsys, path, name, newest, false)
}

// ClaimToJoin is Claim for a node that is to join a cluster, if its directory is
// new: otherwise it has done so, or is of the one that it has founded.
func ClaimToJoin(fsys *disk.FS, path, name string, newest Level) (*Dir, error) {
	return claimAs(fsys, path, name, newest, true)
}

func claimAs(fsys *disk.FS, path, name string, newest Level, join bool) (*Dir, error) {
	d, err := claim(fsys, path, name, newest, join)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	return d, nil
}

func claim(fsys *disk.FS, path, name string, newest Level, join bool) (*Dir, error) {
	if err := fsys.MakeDir(path); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(fsys.PathJoin(path, "LOCK"))
	if _, noFile := errors.AsType[*fs.PathError](err); noFile {
		return nil, err // it could not even be opened: nobody was asked
	}
	if err != nil {
		return nil, fmt.Errorf("%w: stop it, or use another directory (%w)", ErrInUse, err)
	}
	d := &Dir{fs: fsys, path: path, lock: lock, newest: newest}
	if err := d.identify(name, join); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// identify reads the identity, or makes one in a directory that is empty.
func (d *Dir) identify(name string, join bool) error {
	data, err := d.fs.ReadFile(d.file())
	if errors.Is(err, fs.ErrNotExist) {
		return d.found(name, join)
	}
	if err != nil {
		return err
	}
	if d.id, err = parseIdentity(data, d.newest); err != nil {
		return err
	}
	d.level.Store(uint32(d.id.Format))
	if d.id.Name != name {
		return fmt.Errorf("%w: it is %q's, and this node is %q", ErrOtherNode, d.id.Name, name)
	}
	return nil
}

func parseIdentity(data []byte, newest Level) (Identity, error) {
	// The format first, and leniently: a later version may have other fields.
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return Identity{}, fmt.Errorf("%w: node.json: %w", ErrDamaged, err)
	}
	if id.Format > int(newest) {
		return Identity{}, fmt.Errorf("%w: feature level %d, and this program knows %d", ErrNewer, id.Format, newest)
	}
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&id); err != nil {
		return Identity{}, fmt.Errorf("%w: node.json: %w", ErrDamaged, err)
	}
	member := isUUID(id.Cluster) || id.Cluster == "" && id.Joined && !id.Started
	if id.Format < 1 || !isUUID(id.Node) || !member || id.Name == "" {
		return Identity{}, fmt.Errorf("%w: node.json: incomplete: %s", ErrDamaged, data)
	}
	return id, nil
}

// found gives the directory an identity, unless there are signs of an earlier one.
func (d *Dir) found(name string, join bool) error {
	if name == "" {
		return errors.New("a node needs a name")
	}
	names, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	for _, n := range []string{"raft", "state", "snapshots"} {
		if slices.Contains(names, n) {
			return fmt.Errorf("%w: there is %s, but no node.json: restore it, or use another directory", ErrDamaged, n)
		}
	}
	d.id = Identity{Node: newUUID(), Name: name, Joined: join}
	d.level.Store(uint32(firstLevel))
	if !join {
		d.id.Cluster = newUUID()
	}
	return d.save()
}

func (d *Dir) save() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	data, err := json.MarshalIndent(d.Identity(), "", "  ")
	if err != nil {
		return err
	}
	return d.fs.WriteFile(d.file(), append(data, '\n'))
}

// started notes, durably, that log and state exist.
func (d *Dir) started() error {
	if d.id.Started {
		return nil
	}
	d.id.Started = true
	return d.save()
}

// Identity returns whose directory it is.
func (d *Dir) Identity() Identity {
	id := d.id
	id.Format = int(d.level.Load())
	return id
}

// FS returns the file system the directory is on.
func (d *Dir) FS() *disk.FS { return d.fs }

// State returns the path for the state's database. If Started is set in the
// Identity, it must exist.
func (d *Dir) State() string { return d.fs.PathJoin(d.path, "state") }

func (d *Dir) raft() string      { return d.fs.PathJoin(d.path, "raft") }
func (d *Dir) snapshots() string { return d.fs.PathJoin(d.path, "snapshots") }
func (d *Dir) file() string      { return d.fs.PathJoin(d.path, "node.json") }

// Close releases the directory. Node and state must have been closed before.
func (d *Dir) Close() error { return d.lock.Close() }

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // it ends the process rather than fail
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
			continue
		}
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
