package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
)

// recoverFlags are those of cluster recover.
type recoverFlags struct {
	data, node string
	force      bool
	verbose    bool
	ask        asksFirst
}

func recoverCommand() *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with one node when a majority is lost for good",
		Long: `Makes the node of a data directory the only voter of a new cluster, that begins
with what this node holds. It is the last resort: for when so many disks are
destroyed that those which are left can never have a majority again. If they can
come back, start them instead, and nothing is lost.

What was acknowledged is on a majority's disks. So this node may lack the newest
of it, if it was cut off or slow when the others were lost: take the survivor
that has come furthest (--dry-run says how far each is). The others are not to be
used again: nodes of the former cluster are refused by the new one, and refuse it.
Clear their data directories, and they can join.

The node must be stopped. It is refused while any other node of the cluster
answers at its address.`,
		Example: `  bellwire cluster recover --data ./n3 --node n3 --dry-run
  bellwire cluster recover --data ./n3 --node n3 --confirm prod
  bellwire serve --data ./n3 --node n3`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "`directory` of the survivor's data")
	flags.StringVar(&f.node, "node", "n1", "`name` of the survivor")
	flags.BoolVar(&f.force, "force", false, "go on although something answers at another node's address: it is no node of this cluster")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log what is done")
	f.ask.register(cmd, "the cluster's name")
	return cmd
}

func (f *recoverFlags) run(cmd *cobra.Command) (err error) {
	if f.data == "" {
		return fail(bw.Usage, "bellwire cluster recover needs --data, the directory of the survivor's data").do("bellwire cluster recover --data DIR --node NAME --dry-run")
	}
	path, err := filepath.Abs(f.data)
	if err != nil {
		return err
	}
	if newDirectory(path) {
		return fail(bw.File, "%s is no data directory: there is no node.json in it", f.data).do("give the --data that the node was started with")
	}
	dir, err := cluster.Claim(disk.Open(path), path, f.node, newestLevel)
	if err != nil {
		return f.fault(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	logger := newLogger(cmd.ErrOrStderr(), f.verbose)
	s, err := dir.Survey(logger, exitAtOnce, time.Now)
	if err != nil {
		return f.fault(err)
	}
	if err := f.harmless(cmd.Context(), s); err != nil {
		return err
	}
	agreed, err := f.ask.ofCluster(cmd, recoveryPlan(s), s.Name, s.Identity.Cluster)
	if err != nil || !agreed {
		return err
	}
	if s, err = dir.Survive(logger, exitAtOnce, time.Now); err != nil {
		return f.fault(err)
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "node %[1]s is the only voter of cluster %[2]s: start it with serve --data %[3]s --node %[1]s and the rest of its flags, and have others join with empty data directories\n",
		s.Identity.Name, clusterTitle(s.Name, s.Identity.Cluster), f.data)
	return err
}

// fault says what is wrong with the directory.
func (f *recoverFlags) fault(err error) error {
	if errors.Is(err, cluster.ErrRefused) {
		return fail(bw.ClusterRefuses, "data directory %s: %w", f.data, err).do("nothing was changed")
	}
	return startFault(err, serveFlags{data: f.data})
}

// answerTime is how long another node's address may take to answer.
const answerTime = 2 * time.Second

// harmless refuses while others are there: with them, no majority is lost for good,
// or two clusters would go on with what was one.
func (f *recoverFlags) harmless(ctx context.Context, s cluster.Survivor) error {
	if len(s.Others) == 0 {
		return fail(bw.ClusterRefuses, "node %s knows of no other node: it needs none to go on", s.Identity.Name).do("start it: bellwire serve --data %s --node %s", f.data, s.Identity.Name)
	}
	var there []string
	for _, m := range s.Others {
		dialling, cancel := context.WithTimeout(ctx, answerTime)
		c, err := dialTCP(dialling, m.Address)
		cancel()
		if err == nil {
			_ = c.Close()
			there = append(there, fmt.Sprintf("%s at %s", m.Name, m.Address))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if len(there) == 0 || f.force {
		return nil
	}
	return fail(bw.ClusterRefuses, "the cluster is not lost: %s answers", strings.Join(there, ", ")).
		do("start this node, and take lost ones out with bellwire cluster remove; if a majority is lost all the same, stop those that are left, and recover the one that has come furthest")
}

// recoveryPlan says what will be, and what will never be again.
func recoveryPlan(s cluster.Survivor) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s goes on alone, as the first of a new cluster, with what it holds: all up to entry %d, of term %d\n", s.Identity.Name, s.Last, s.Term)
	b.WriteString("WHAT ONLY OTHERS HELD IS LOST FOR GOOD, acknowledged or not\n")
	for _, m := range s.Others {
		fmt.Fprintf(&b, "  never start %s (%s) again with the disk it had: it would be refused\n", m.Name, m.Address)
	}
	fmt.Fprintf(&b, "cluster %s is no more then", clusterTitle(s.Name, s.Identity.Cluster))
	return b.String()
}
