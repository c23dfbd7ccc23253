package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A cluster has a name for people: to be shown, and typed where something cannot be
// undone. Programs go by its id. Who begins a cluster names it; who joins is told the
// name and keeps it, in a file of its own beside node.json, so that versions that know
// of no names can use the directory as well.

// maxClusterName is how long a name may be.
const maxClusterName = 64

// CheckClusterName says what is wrong with a name.
func CheckClusterName(name string) error {
	ok := name != "" && len(name) <= maxClusterName
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && strings.IndexByte(".-_", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("a cluster's name is made of up to %d letters, digits, '.', '-' and '_', and begins with a letter or digit: %q is none", maxClusterName, name)
	}
	return nil
}

// NameCluster gives the cluster of the directory a name, unless it has one.
func (d *Dir) NameCluster(name string) error {
	if d.clusterName() != "" {
		return nil
	}
	if err := CheckClusterName(name); err != nil {
		return err
	}
	return d.fs.WriteFile(d.nameFile(), []byte(name+"\n"))
}

func (d *Dir) nameFile() string { return d.fs.PathJoin(d.path, "cluster-name") }

// ClusterName returns the name of the directory's cluster, empty if it has none, or
// is of a version that knew of none.
func (d *Dir) ClusterName() (string, error) {
	data, err := d.fs.ReadFile(d.nameFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	name := strings.TrimSpace(string(data))
	if err == nil {
		err = CheckClusterName(name)
	}
	if err != nil {
		return "", fmt.Errorf("%w: cluster-name: %w: remove it, and have --cluster-name name the cluster", ErrDamaged, err)
	}
	return name, nil
}

// clusterName is ClusterName for who can do without it.
func (d *Dir) clusterName() string {
	name, err := d.ClusterName()
	if err != nil {
		return ""
	}
	return name
}
