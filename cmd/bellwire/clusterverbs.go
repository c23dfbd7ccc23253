package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster/certs"
)

func clusterCommand() *cobra.Command {
	var f httpFlags
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "See and change which nodes are in a cluster",
		Long: `Asks any node of a cluster over its --http. What changes something is for
operators: whoever the policy's group "operators" lists, and on the node's
machine root and the user that the node runs as, without credentials.`,
	}
	f.register(cmd)
	cmd.AddCommand(statusCommand(&f), verifyCommand(&f), joinCommand(&f), removeCommand(&f), promoteCommand(&f), transferCommand(&f), recoverCommand())
	return cmd
}

func nodeCommand() *cobra.Command {
	var f httpFlags
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Take a node out of service, and back",
	}
	f.register(cmd)
	cmd.AddCommand(drainCommand(&f), resumeCommand(&f))
	return cmd
}

func statusCommand(f *httpFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Which nodes there are, and how they are",
		Long: `Lists the nodes as the one that is asked sees them; it answers also when there
is no leader, and takes no credentials: but those that are given have to be good.
"can lose 1 node" means that one more voter may fail before nothing can be published
durably.`,
		Example: `  bellwire cluster status
  bellwire cluster status -o json --server http://10.0.0.2:8080`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := fetchStatus(cmd.Context(), f)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), s.Members)
			}
			return printStatus(cmd.OutOrStdout(), cmd.ErrOrStderr(), s)
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func fetchStatus(ctx context.Context, f *httpFlags) (s api.Status, err error) {
	c, err := f.client()
	if err != nil {
		return s, err
	}
	err = c.call(ctx, http.MethodGet, "/v1/cluster", nil, &s)
	if err == nil && s.Members == nil {
		err = fail(bw.NoAnswer, "%s does not answer as a bellwire node does: no members", c.base).do("is --server the address of a node's --http?")
	}
	return s, err
}

// shortID is what people are shown of a cluster's id, and type to confirm.
func shortID(id string) string {
	short, _, _ := strings.Cut(id, "-")
	return short
}

// clusterTitle is how people are shown a cluster: by its name, if it has one, and its id.
func clusterTitle(name, id string) string {
	if name == "" {
		return shortID(id)
	}
	return fmt.Sprintf("%s (%s)", name, shortID(id))
}

// health says how a cluster is, in a line.
func health(s api.Status) string {
	lose := fmt.Sprintf("can lose %d nodes", s.CanLose())
	switch n := s.CanLose(); {
	case n == 1:
		lose = "can lose 1 node"
	case n < 0:
		lose = fmt.Sprintf("no quorum: %d more must come back", -n)
	case n == 0 && s.Voters > 1:
		lose = "cannot lose another"
	case n == 0:
		lose = "can lose no node"
	}
	leader := "no leader known"
	if s.Leader != "" {
		leader = fmt.Sprintf("leader %s, term %d", s.Leader, s.Term)
	}
	return fmt.Sprintf("cluster %s   %d of %d voters up · %s · %s%s", clusterTitle(s.Name, s.Cluster), s.Up, s.Voters, lose, leader, levelLine(s))
}

// levelLine says which feature level is in force, and why none higher is.
func levelLine(s api.Status) string {
	switch {
	case s.Level == 0:
		return "" // of a version that knows of none
	case s.Next == 0:
		return fmt.Sprintf(" · level %d", s.Level)
	case len(s.LevelHeld) == 0:
		return fmt.Sprintf(" · level %d, %d follows", s.Level, s.Next)
	}
	return fmt.Sprintf(" · level %d, %d waits: %s", s.Level, s.Next, strings.Join(s.LevelHeld, ", "))
}

// printStatus prints a table for people; where nobody looks, tabs between the
// columns, and the line that is no data on stderr.
func printStatus(stdout, stderr io.Writer, s api.Status) error {
	head := stderr
	table := stdout
	flush := func() error { return nil }
	if isTerminal(stdout) {
		w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		head, table, flush = stdout, w, w.Flush
	}
	if _, err := fmt.Fprintln(head, health(s)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(table, "NODE\tADDRESS\tSTATE\tVOTER\tAPPLIED\tTRAILS LEADER BY\tLAST CONTACT\tCLIENTS\tPID\tVERSION\tSUPPORTS\tID"); err != nil {
		return err
	}
	for _, m := range s.Members {
		state, trails, contact, pid, supports := m.Role, counted(m.Trails, "entry", "entries"), "-", "-", "-"
		if m.State != "" {
			state += ", " + m.State
		}
		if m.Role == "leader" {
			trails = "-"
		} else if m.PID != 0 {
			contact = time.Duration(m.LastContact * float64(time.Second)).Round(time.Millisecond).String()
		}
		if m.PID != 0 {
			pid = strconv.Itoa(m.PID)
			supports = fmt.Sprintf("level %d", max(m.Supports, 1))
		} else {
			trails = "-"
		}
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\t%t\t%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			m.Name, m.Addr, state, m.Voter, m.Applied, trails, contact, m.Clients, pid, m.Version, supports, shortID(m.ID)); err != nil {
			return err
		}
	}
	return flush()
}

func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func verifyCommand(f *httpFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare the states of all nodes at one index",
		Long: `Has every node hash its whole state at one index, and compares. It reads all of
the state, and publishing goes on meanwhile. The exit code is 0 if all are
equal, 1 if they differ, 8 if some did not answer.`,
		Example: `  bellwire cluster verify`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			c, err := f.client()
			if err != nil {
				return err
			}
			var v api.Verification
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/cluster/verify", nil, &v); err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), v.Nodes)
			} else {
				err = printDigests(cmd.OutOrStdout(), v)
			}
			if err != nil {
				return err
			}
			return judge(v)
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func printDigests(w io.Writer, v api.Verification) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tINDEX\tDIGEST")
	for _, d := range v.Nodes {
		digest := d.Digest
		if digest == "" {
			digest = "none: " + d.Error
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", d.Node, d.Index, digest)
	}
	return table.Flush()
}

// judge makes an error of nodes that differ, or did not answer.
func judge(v api.Verification) error {
	var first *api.Digest
	silent := 0
	for i, d := range v.Nodes {
		switch {
		case d.Digest == "":
			silent++
		case first == nil:
			first = &v.Nodes[i]
		case d.Index != first.Index:
			silent++ // it went past it in one step, by a copy of another's state
		case d.Digest != first.Digest:
			return fail(bw.Diverged, "node %s does not hold what node %s holds, at index %d", d.Node, first.Node, d.Index)
		}
	}
	if silent > 0 {
		return fail(bw.SomeRefused, "%d of %d nodes could not be compared", silent, len(v.Nodes)).do("the others are equal; see bellwire cluster status")
	}
	return nil
}

// change has a node of the cluster make a change. With show it says how the cluster
// is then, as that node sees it: not one that has just been removed.
func (f *httpFlags) change(cmd *cobra.Command, verb, node string, force, show bool) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	var after api.Status
	body := map[string]any{"node": node}
	if force {
		body["force"] = true
	}
	if err := c.call(cmd.Context(), http.MethodPost, "/v1/cluster/"+verb, body, &after); err != nil {
		return err
	}
	if show {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), health(after))
	}
	return err
}

func removeCommand(f *httpFlags) *cobra.Command {
	var ask asksFirst
	var force bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a node out of the cluster for good",
		Long: `Takes a node out. Its data directory cannot be used to come back: a node that is
to return is started with an empty one and --join. Refused where the rest
would have no quorum, unless --force is given.`,
		Example: `  bellwire cluster remove n2 --dry-run
  bellwire cluster remove n2 --confirm prod`,
		Args: exactArgs(1, "the node to remove"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := fetchStatus(cmd.Context(), f)
			if err != nil {
				return err
			}
			m, err := memberOf(s, args[0])
			if err != nil {
				return err
			}
			agreed, err := ask.ofCluster(cmd, removalPlan(s, m), s.Name, s.Cluster)
			if err != nil || !agreed {
				return err
			}
			if err := f.change(cmd, "remove", m.ID, force, false); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "node %s is removed\n", m.Name)
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also if the rest will have no quorum")
	ask.register(cmd, "id")
	return cmd
}

// memberOf returns the one of that name or id.
func memberOf(s api.Status, name string) (api.Member, error) {
	names := make([]string, 0, len(s.Members))
	for _, m := range s.Members {
		if m.Name == name || m.ID == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return api.Member{}, fail(bw.NoSuchNode, "the cluster has no node %q", name).do("it has %s", strings.Join(names, ", "))
}

// removalPlan says what will be left when m is gone.
func removalPlan(s api.Status, m api.Member) string {
	after := s
	what := "has no vote"
	if m.Voter {
		after.Voters--
		what = "a voter"
		if m.Role != "down" {
			after.Up--
		}
	}
	left := fmt.Sprintf("%d of %d voters up", after.Up, after.Voters)
	switch n := after.CanLose(); {
	case after.Voters == 0:
		left = "no voter at all"
	case n < 0:
		left += ", no quorum: nothing can be published durably"
	default:
		left += fmt.Sprintf(", of which %d may fail", n)
	}
	is := []string{m.Role, what}
	if m.Addr != "" { // a node alone has none that others reach
		is = slices.Insert(is, 0, m.Addr)
	}
	return fmt.Sprintf("remove node %s (%s) from cluster %s, for good; then %s", m.Name, strings.Join(is, ", "), clusterTitle(s.Name, s.Cluster), left)
}

func promoteCommand(f *httpFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "promote NODE",
		Short: "Give a node a vote now",
		Long: `Gives a vote to a node that has joined, before it has proved stable, which is when it
gets one by itself.`,
		Example: `  bellwire cluster promote n3`,
		Args:    exactArgs(1, "the node to promote"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.change(cmd, "promote", args[0], false, true)
		},
	}
}

func transferCommand(f *httpFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "transfer-leader [NODE]",
		Short: "Have another node lead",
		Long: `Has a node lead: the one that is named, or the one that is best off. Publishing stops
for a moment.`,
		Example: `  bellwire cluster transfer-leader n2`,
		Args:    someArgs(0, 1, "the node that is to lead"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := ""
			if len(args) == 1 {
				node = args[0]
			}
			return f.change(cmd, "transfer-leader", node, false, true)
		},
	}
}

func drainCommand(f *httpFlags) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Have a node give up its leadership and its clients",
		Long: `Prepares a node for being stopped: it hands the leadership over, tells its
clients to connect elsewhere, a few at a time, and takes no new ones; /readyz
says so. It keeps its vote. Refused where the others have no quorum without it,
unless --force is given. bellwire node resume takes it back.`,
		Example: `  bellwire node drain n2`,
		Args:    exactArgs(1, "the node to drain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.change(cmd, "drain", args[0], force, true); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.ErrOrStderr(), "node %s is drained: safe to stop\n", args[0])
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also if the others have no quorum")
	return cmd
}

func resumeCommand(f *httpFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "resume NODE",
		Short:   "Have a node that was drained take clients again",
		Example: `  bellwire node resume n2`,
		Args:    exactArgs(1, "the node to take back"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.change(cmd, "resume", args[0], false, true)
		},
	}
}

func joinCommand(f *httpFlags) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "join NODE",
		Short: "How to add a node, and wait until it is in",
		Long: `Prints the commands that make a node of that name a member: its certificate, and
serve with the addresses of the nodes there are. With --wait it waits until the
node has a vote, unless it wants none, and has caught up, and ends with exit
code 6 if that takes longer.`,
		Example: `  bellwire cluster join n3`,
		Args:    exactArgs(1, "the name of the node to be"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := certs.CheckName(name); err != nil {
				return fail(bw.Usage, "%w", err).do("give the node another name")
			}
			s, err := fetchStatus(cmd.Context(), f)
			if err != nil {
				return err
			}
			if wait > 0 {
				return awaitMember(cmd.Context(), f, name, wait, cmd.ErrOrStderr())
			}
			return howToJoin(cmd.OutOrStdout(), s, name)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait for at most this `time` until the node is in")
	return cmd
}

func howToJoin(w io.Writer, s api.Status, name string) error {
	var addrs []string
	for _, m := range s.Members {
		if m.Name == name {
			return fail(bw.ClusterRefuses, "there is a node %s (%s) in the cluster", name, m.ID).do("give the new node another name, or remove that one: bellwire cluster remove %s", name)
		}
		if m.Addr != "" {
			addrs = append(addrs, m.Addr)
		}
	}
	if len(addrs) == 0 {
		return fail(bw.ClusterRefuses, "this node is alone: it was started without --cluster").do("start it again with --cluster, --cluster-tls and --bootstrap, and others can join it")
	}
	_, err := fmt.Fprintf(w, "bellwire cert node --ca CA-DIR --name %[1]s --out TLS-DIR\n"+
		"bellwire serve --node %[1]s --data DIR --cluster HOST:PORT --cluster-tls TLS-DIR --join %[2]s --mqtt HOST:1883 --http HOST:8080\n",
		name, strings.Join(addrs, ","))
	return err
}

// awaitMember asks until a node has a vote and lacks nothing.
func awaitMember(ctx context.Context, f *httpFlags, name string, wait time.Duration, notes io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, context.DeadlineExceeded)
	defer cancel()
	told := ""
	for {
		s, err := fetchStatus(ctx, f)
		state := "is not a member"
		switch m, found := memberOf(s, name); {
		case err != nil:
			state = err.Error()
		case found != nil:
		case m.Role == "down":
			state = "does not answer"
		case m.Voter && m.Trails == 0:
			_, err := fmt.Fprintf(notes, "node %s is a voter and has caught up\n", name)
			return err
		case m.NonVoter && m.Trails == 0:
			_, err := fmt.Fprintf(notes, "node %s has caught up, and wants no vote\n", name)
			return err
		case m.NonVoter:
			state = "wants no vote, " + counted(m.Trails, "entry", "entries") + " behind"
		case m.Voter:
			state = "is a voter, " + counted(m.Trails, "entry", "entries") + " behind"
		default:
			state = "has no vote yet, " + counted(m.Trails, "entry", "entries") + " behind"
		}
		if state != told && ctx.Err() == nil {
			fmt.Fprintf(notes, "node %s %s\n", name, state)
			told = state
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != context.DeadlineExceeded {
				return ctx.Err()
			}
			return fail(bw.TimedOut, "after %s node %s %s", wait, name, told).do("look at the node's own log, and wait longer with --wait")
		case <-time.After(200 * time.Millisecond):
		}
	}
}
