package main

import (
	"cmp"
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
	"github.com/bellwire/bellwire/bridge"
)

// bridgeStates are a server's bridges as HTTP shows them.
type bridgeStates struct{ s *server }

var _ api.Bridges = bridgeStates{}

// List implements api.Bridges. The leader runs the bridges, so it is asked.
func (b bridgeStates) List(context.Context) []api.Bridge {
	m := membership(b)
	if !b.s.node.Leader() {
		for _, one := range b.s.node.Members(statePatience) {
			if !one.Leader || one.Self || !one.Reachable {
				continue
			}
			if a, err := m.ask(one, nodeQuestion{Op: opBridges}); err == nil && a.Bridges != nil {
				return a.Bridges
			}
		}
	}
	return b.here()
}

// here is what this node knows.
func (b bridgeStates) here() []api.Bridge {
	all := []api.Bridge{}
	for _, one := range b.s.bridges.list() {
		all = append(all, b.shown(one))
	}
	slices.SortFunc(all, func(a, b api.Bridge) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (b bridgeStates) shown(one *ownBridge) api.Bridge {
	is, _ := b.s.broker.Stored(bridgeClient + one.Name())
	a := api.Bridge{
		Name: one.Name(), Peers: one.spec.Addresses, Session: bridgeClient + one.Name(), As: one.principal, Client: one.spec.Client,
		Connected: is.Node != "", Waiting: is.Waiting,
	}
	if !one.Running() {
		return a // the session here says whether somebody has it connected
	}
	now, stats := one.State(), one.Stats()
	a.Node, a.Connected, a.Peer, a.Err, a.Todo = b.s.config.node, now.Connected, now.Peer, now.Why, now.Todo
	if !now.Since.IsZero() {
		since := now.Since.UTC()
		a.Since = &since
	}
	a.Carried = map[string]uint64{"in": stats.In.Load(), "out": stats.Out.Load()}
	a.Dropped, a.Errors = map[string]uint64{}, map[string]uint64{}
	stats.EachDrop(func(reason string, n bridge.Counter) { a.Dropped[reason] = n() })
	stats.EachFailure(func(reason string, n bridge.Counter) { a.Errors[reason] = n() })
	return a
}

// bridgeCommand is `bellwire bridge`.
func bridgeCommand() *cobra.Command {
	var server httpFlags
	cmd := &cobra.Command{
		Use:   "bridge",
		Short: "Connections to other brokers",
		Long: `Bridges carry events to other brokers and from them. They are configured in the file of
bellwire serve; one node, the leader, runs them.`,
	}
	server.register(cmd)
	cmd.AddCommand(bridgeStatusCommand(&server))
	return cmd
}

func bridgeStatusCommand(server *httpFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Whether bridges have their peers, what waits, and what is wrong",
		Long: `Shows for each bridge whether it has its peer and since when, which node runs it, how
many events wait to go out, and how many it has carried out and in, has dropped, and how
often a connection failed since that node was started; then what is wrong, and what to do
about it. Any node answers for all.`,
		Example: "  bellwire bridge status\n  bellwire bridge status --server 10.0.0.2:8080 -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			var list struct {
				Bridges []api.Bridge `json:"bridges"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/bridges", nil, &list); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), list.Bridges)
			}
			return printBridges(cmd.OutOrStdout(), cmd.ErrOrStderr(), list.Bridges)
		},
	}
	addOutput(cmd, &output)
	return cmd
}

// printBridges writes a table, and to notes what is wrong. What is not known is "-".
func printBridges(out, notes io.Writer, all []api.Bridge) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(notes, "there are no bridges: the configuration file of bellwire serve has them")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BRIDGE\tSTATE\tSINCE\tPEER\tNODE\tWAITING\tOUT\tIN\tDROPPED\tFAILED")
	for _, b := range all {
		since := "-"
		if b.Since != nil {
			since = b.Since.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			safe(b.Name), bridgeWord(b), since, safe(cmp.Or(b.Peer, strings.Join(b.Peers, ","))), safe(cmp.Or(b.Node, "-")), b.Waiting,
			sumOf(b.Carried, "out"), sumOf(b.Carried, "in"), sumOf(b.Dropped, ""), sumOf(b.Errors, ""))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, b := range all {
		if b.Err == "" {
			continue
		}
		fmt.Fprintf(notes, "bridge %s: %s\n", safe(b.Name), safe(b.Err))
		if b.Todo != "" {
			fmt.Fprintf(notes, "  %s\n", safe(b.Todo))
		}
	}
	return nil
}

func bridgeWord(b api.Bridge) string {
	switch {
	case b.Connected:
		return "connected"
	case b.Node == "":
		return "not running"
	case b.Since == nil:
		return "connecting"
	}
	return "disconnected"
}

// sumOf adds up what a counter has under key, or all of it; "-" if it is not known.
func sumOf(counter map[string]uint64, key string) string {
	if counter == nil {
		return "-"
	}
	sum := uint64(0)
	for k, n := range counter {
		if key == "" || k == key {
			sum += n
		}
	}
	return strconv.FormatUint(sum, 10)
}
