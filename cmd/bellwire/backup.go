package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/profiles/inbox"
)

// backup opens a backup of the node's state.
func (s *server) backup() (*api.Backup, error) {
	b, err := s.node.Backup()
	if err != nil {
		return nil, err
	}
	return &api.Backup{ReadCloser: b, Index: b.Index, Size: b.Size}, nil
}

// A backedUp is what is said of a backup.
type backedUp struct {
	File  string `json:"file"`
	Index uint64 `json:"index"`
	Bytes int64  `json:"bytes"`
}

func (b backedUp) say(cmd *cobra.Command, output string) error {
	if output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(b)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s   %s · entry %d and all before it · checksums right\n", b.File, mebibytes(b.Bytes), b.Index)
	return err
}

func mebibytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func backupCommand() *cobra.Command {
	var f httpFlags
	var to, output string
	var force bool
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copy the state of a cluster into a file",
		Long: `Copies all that a cluster holds, as of one entry of its log, while it goes on:
policy, sessions and their queues, retained messages, what profiles keep. Any
node can be asked; it is for operators (see bellwire cluster). The file is
checked against its checksums before it gets its name.

It holds credentials' hashes and messages: keep it as you keep those.`,
		Example: `  bellwire backup --to bellwire-$(date +%F).backup
  bellwire backup verify bellwire-2026-11-22.backup
  bellwire restore --data ./new --node n1 bellwire-2026-11-22.backup`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if to == "" {
				return fail(bw.Usage, "bellwire backup needs --to, the file to write").do("bellwire backup --to FILE")
			}
			b, err := fetchBackup(cmd.Context(), &f, to, force)
			if err != nil {
				return err
			}
			return b.say(cmd, output)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&to, "to", "", "`file` to write")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite the file if it exists")
	addOutput(cmd, &output)
	cmd.AddCommand(backupVerifyCommand())
	return cmd
}

// fetchBackup asks a node for a backup and writes it into a file, which has its name
// only once it is whole.
func fetchBackup(ctx context.Context, f *httpFlags, to string, force bool) (b backedUp, err error) {
	if _, err := os.Lstat(to); err == nil && !force {
		return b, fail(bw.WouldOverwrite, "%s exists", to).do("give another --to, or --force to overwrite it")
	}
	c, err := f.client()
	if err != nil {
		return b, err
	}
	r, err := c.open(ctx, http.MethodGet, "/v1/backup", nil)
	if err != nil {
		return b, err
	}
	defer r.Body.Close()
	part, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".part*")
	if err != nil {
		return b, fail(bw.File, "%w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part.Name())
		}
	}()
	n, err := io.Copy(part, r.Body)
	if err == nil && n != r.ContentLength {
		err = fmt.Errorf("%d of %d bytes", n, r.ContentLength)
	}
	if err != nil {
		_ = part.Close()
		return b, fail(bw.Lost, "the backup did not arrive whole: %w", err).do("take it again; nothing was written to %s", to)
	}
	if err := errors.Join(part.Sync(), part.Close()); err != nil {
		return b, fail(bw.File, "%w", err)
	}
	if b, err = checkBackup(part.Name()); err != nil {
		return b, err
	}
	if err := os.Rename(part.Name(), to); err != nil {
		return b, fail(bw.File, "%w", err)
	}
	b.File = to
	return b, nil
}

// checkBackup reads a file and compares its checksums.
func checkBackup(name string) (backedUp, error) {
	f, err := os.Open(name)
	if err != nil {
		return backedUp{}, fail(bw.File, "cannot read %s: %w", name, rootCause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return backedUp{}, fail(bw.File, "%w", err)
	}
	index, err := cluster.CheckBackup(f)
	if err != nil {
		return backedUp{}, backupFault(name, err)
	}
	return backedUp{name, index, info.Size()}, nil
}

func backupFault(name string, err error) error {
	switch {
	case errors.Is(err, cluster.ErrNewer), errors.Is(err, store.ErrNewer):
		return fail(bw.DataNewer, "%s: %w", name, err).do("restore it with the version that wrote it, or a later one")
	case errors.Is(err, cluster.ErrDamaged), errors.Is(err, store.ErrDamaged):
		return fail(bw.BackupDamaged, "%s: %w", name, err)
	}
	return fail(bw.File, "%s: %w", name, err)
}

func backupVerifyCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "verify FILE",
		Short:   "Check that a backup is whole",
		Example: `  bellwire backup verify bellwire.backup`,
		Args:    exactArgs(1, "the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			b, err := checkBackup(args[0])
			if err != nil {
				return err
			}
			return b.say(cmd, output)
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func restoreCommand() *cobra.Command {
	var data, node, name string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data directory of a backup",
		Long: `Makes a new data directory of a backup: that of the first node of a new cluster,
which others join. --data must be empty, or not exist: what is in use is not
touched. The nodes of the former cluster know nothing of this one; clear their
data directories before they join.

Start it as any node that has been started before:

  bellwire serve --data DIR --node n1 …`,
		Example: `  bellwire restore --data ./r1 --node r1 bellwire.backup
  bellwire serve --data ./r1 --node r1`,
		Args: exactArgs(1, "the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "" {
				return fail(bw.Usage, "bellwire restore needs --data, the directory to make").do("bellwire restore --data DIR %s", args[0])
			}
			if err := checkNodeName(node); err != nil {
				return err
			}
			if err := cluster.CheckClusterName(name); err != nil {
				return fail(bw.Usage, "--cluster-name: %w", err).do("give the cluster a name, such as --cluster-name prod")
			}
			index, err := restore(args[0], data, node, restoring{cmd.ErrOrStderr(), verbose, name})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s is node %s, alone in a new cluster, %s, with all as of entry %d of the backup; it goes on with entry %d\n", data, node, name, index-1, index)
			return err
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "`directory` of the node's data, empty or made")
	cmd.Flags().StringVar(&node, "node", "n1", "`name` of the node")
	cmd.Flags().StringVar(&name, "cluster-name", firstClusterName, "`name` of the new cluster, shown and typed where something cannot be undone")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what is done")
	return cmd
}

// restoring says where a restore logs, and what the cluster is called: a backup does
// not hold the name, since it becomes another cluster.
type restoring struct {
	stderr  io.Writer
	verbose bool
	name    string
}

// restore makes the data directory of node in data, which appears when it is
// complete.
func restore(file, data, node string, to restoring) (index uint64, err error) {
	if entries, err := os.ReadDir(data); err == nil && len(entries) > 0 {
		return 0, fail(bw.WouldOverwrite, "%s is not empty: it holds %s", data, entries[0].Name()).do("give another --data; nothing was changed")
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fail(bw.File, "%w", err).do("give the name of a directory that is empty, or is not there")
	}
	in, err := os.Open(file)
	if err != nil {
		return 0, fail(bw.File, "cannot read %s: %w", file, rootCause(err))
	}
	defer in.Close()
	if data, err = restorePlace(data); err != nil {
		return 0, err
	}
	tmp := data + ".restoring"
	if err := os.RemoveAll(tmp); err != nil { // of a restore that was interrupted
		return 0, fail(bw.File, "%w", err)
	}
	if index, err = restoreInto(in, tmp, node, to); err == nil {
		err = os.Rename(tmp, data)
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
		return 0, backupFault(file, err)
	}
	return index, nil
}

// restorePlace returns where a directory is made that is to be data: it appears by a rename.
func restorePlace(data string) (string, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return "", err
	}
	if at, err := filepath.EvalSymlinks(data); err == nil {
		data = at // what appears is the directory, not the link to it
	}
	is, err := os.Stat(data)
	if errors.Is(err, os.ErrNotExist) {
		return data, nil
	}
	above, err2 := os.Stat(filepath.Dir(data))
	if err := errors.Join(err, err2); err != nil {
		return "", fail(bw.File, "%w", err)
	}
	on, ok := is.Sys().(*syscall.Stat_t)
	if below, ok2 := above.Sys().(*syscall.Stat_t); ok && ok2 && on.Dev != below.Dev {
		return "", fail(bw.File, "%s is where a disk is mounted, which nothing can take the place of", data).
			do("give a directory on that disk, to restore and to serve: --data %s", filepath.Join(data, "data"))
	}
	return data, nil
}

func restoreInto(in io.Reader, path, node string, to restoring) (index uint64, err error) {
	logger := newLogger(to.stderr, to.verbose)
	fs := disk.Open(path)
	dir, err := cluster.Claim(fs, path, node, newestLevel)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := dir.NameCluster(to.name); err != nil {
		return 0, err
	}
	if err := dir.Unpack(in); err != nil {
		return 0, err
	}
	st, err := store.Open(store.Options{Dir: dir.State(), Exists: true, FS: fs, Logger: logger, Die: exitAtOnce, Newest: uint8(broker.NewestLevel)})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	s := &server{gate: acl.NewGate(1, 1)}
	b, err := broker.New(broker.Config{
		Node: dir.Identity().Node, Store: st, Compile: s.compile, Now: s.now, Logger: logger, Profiles: profiles(dir.Identity(), inbox.Limits{}),
		Free: fs.Free,
	})
	if err != nil {
		return 0, err
	}
	defer b.Close()
	if err := dir.Raise(cluster.Level(b.Level())); err != nil {
		return 0, err
	}
	return cluster.Found(cluster.Config{Dir: dir, Machine: b.Machine(), Logger: logger, Die: exitAtOnce, Now: s.now})
}
