package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// clients are a server's as HTTP shows them: by the state, which is the same on all nodes.
type clients struct{ s *server }

var _ api.Clients = clients{}

const (
	// clientsListed is how many clients one answer has, and filters of one.
	clientsListed = 1000

	// clientsRead is how many one answer looks at, 8 ms (BenchmarkClients): who asks for those of one
	// user among a million goes on from page to page.
	clientsRead = 20_000
)

// List implements api.Clients.
func (c clients) List(_ context.Context, q api.ClientQuery) (api.ClientPage, error) {
	page, last, read := api.ClientPage{Clients: []api.Client{}}, "", 0
	user, err := c.s.userNamed(q.User)
	if err != nil {
		return page, err
	}
	c.s.broker.Clients(q.Prefix, q.After, func(one broker.ClientSession) bool {
		if len(page.Clients) == clientsListed || read == clientsRead {
			page.After = last
			return false
		}
		last, read = one.Client, read+1
		away := one.Node == ""
		if q.State != "" && away != (q.State == "away") || user != "" && one.Principal != user {
			return true
		}
		if q.Node != "" && (away || q.Node != one.Node && q.Node != c.s.node.Name(one.Node)) {
			return true
		}
		page.Clients = append(page.Clients, c.shown(&one)) // what waits is counted for those alone
		return true
	})
	return page, nil
}

// Show implements api.Clients.
func (c clients) Show(_ context.Context, id string) (shown api.Client, err error) {
	found := false
	c.s.broker.Clients(id, "", func(one broker.ClientSession) bool {
		if found = one.Client == id; found {
			shown = c.shown(&one)
		}
		return false // no id that begins with it comes before
	})
	is, ok := c.s.broker.Stored(id)
	if !found || !ok {
		return api.Client{}, fmt.Errorf("%w: no client has that id, connected or away", api.ErrNoSuch)
	}
	shown.Filters, shown.Subscriptions = len(is.Filters), is.Filters[:min(len(is.Filters), clientsListed)]
	return shown, nil
}

func (c clients) shown(one *broker.ClientSession) api.Client {
	shown := api.Client{
		ID: one.Client, User: one.Principal, Protocol: protocols[one.Version], Expiry: one.Expiry, ReceiveMax: one.ReceiveMax, Will: one.Will,
		Waiting: c.s.broker.Waiting(one),
	}
	if one.Node != "" {
		shown.Node = cmp.Or(c.s.node.Name(one.Node), one.Node)
	} else if one.Away != 0 {
		away := time.Unix(0, one.Away).UTC()
		shown.Away = &away
	}
	return shown
}

// protocols are versions of MQTT by what CONNECT says.
var protocols = map[uint8]string{3: "3.1", 4: "3.1.1", 5: "5"}

// clientsCommand is `bellwire clients`.
func clientsCommand() *cobra.Command {
	var server httpFlags
	cmd := &cobra.Command{
		Use:   "clients",
		Short: "Which clients there are, connected or away",
		Long: `Lists clients that have a session, connected to whichever node or away, for operators.
Who comes and goes is told below $SYS/bellwire/clients/ as it happens.`,
	}
	server.register(cmd)
	cmd.AddCommand(clientsListCommand(&server), clientsShowCommand(&server))
	return cmd
}

func clientsListCommand(server *httpFlags) *cobra.Command {
	var q api.ClientQuery
	var connected, away bool
	var most int
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "Clients, in the order of their ids",
		Example: "  bellwire clients ls --away --user plant\n  bellwire clients ls --node n2 --prefix sensor -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case connected && away:
				return usage("--connected and --away: nobody is both; give one, or neither for all")
			case most < 1:
				return usage("--most %d: want 1 at least", most)
			case connected:
				q.State = "connected"
			case away:
				q.State = "away"
			}
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			all, more, err := listClients(cmd.Context(), c, q, most)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, one := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\tMQTT %s\t%d waiting\n", safe(one.ID), safe(cmp.Or(one.User, "-")), whereabouts(one), one.Protocol, one.Waiting)
			}
			if err := w.Flush(); err != nil || !more {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "there are more than %d: --most, --prefix, --user, --node, --connected and --away choose\n", most)
			return err
		},
	}
	cmd.Flags().StringVar(&q.User, "user", "", "those of this `user`, by name or address")
	cmd.Flags().StringVar(&q.Node, "node", "", "those connected to this `node`")
	cmd.Flags().StringVar(&q.Prefix, "prefix", "", "those whose ids begin with this `text`")
	cmd.Flags().BoolVar(&connected, "connected", false, "those that are connected")
	cmd.Flags().BoolVar(&away, "away", false, "those whose session waits for them")
	cmd.Flags().IntVar(&most, "most", 1000, "as many at most")
	addOutput(cmd, &output)
	return cmd
}

// listClients returns those that q wants, at most so many, and whether there may be more.
func listClients(ctx context.Context, c *httpClient, q api.ClientQuery, most int) (all []api.Client, more bool, err error) {
	all = []api.Client{}
	for {
		v := url.Values{}
		for name, value := range map[string]string{"user": q.User, "node": q.Node, "prefix": q.Prefix, "state": q.State, "after": q.After} {
			if value != "" {
				v.Set(name, value)
			}
		}
		var page api.ClientPage
		if err := c.call(ctx, http.MethodGet, "/v1/clients?"+v.Encode(), nil, &page); err != nil {
			return nil, false, err
		}
		all = append(all, page.Clients...)
		if len(all) > most {
			return all[:most], true, nil
		}
		if q.After = page.After; q.After == "" {
			return all, false, nil
		}
	}
}

// whereabouts says where a client is, or since when it is away.
func whereabouts(c api.Client) string {
	switch {
	case c.Node != "":
		return "at " + safe(c.Node)
	case c.Away != nil:
		return "away since " + c.Away.Format(time.RFC3339)
	}
	return "away"
}

func clientsShowCommand(server *httpFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "show CLIENT-ID",
		Short:   "One client, and what it subscribes to",
		Example: "  bellwire clients show sensor7",
		Args:    someArgs(1, 1, "the client id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			var one api.Client
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/clients?"+url.Values{"id": {args[0]}}.Encode(), nil, &one); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), one)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "client\t%s\nuser\t%s\nis\t%s\nprotocol\tMQTT %s, receive maximum %d\n", safe(one.ID), safe(cmp.Or(one.User, "-")), whereabouts(one), one.Protocol, one.ReceiveMax)
			fmt.Fprintf(w, "session\t%s\nwaiting\t%d events\nsubscriptions\t%d\n", lasts(one), one.Waiting, one.Filters)
			for _, filter := range one.Subscriptions {
				fmt.Fprintf(w, "\t%s\n", safe(filter))
			}
			return w.Flush()
		},
	}
	addOutput(cmd, &output)
	return cmd
}

// lasts says how long a client's session does.
func lasts(c api.Client) string {
	will := ""
	if c.Will {
		will = ", and has a will"
	}
	switch c.Expiry {
	case 0:
		return "ends with its connection" + will
	case 1<<32 - 1:
		return "does not expire" + will
	}
	return fmt.Sprintf("expires %s after its connection%s", time.Duration(c.Expiry)*time.Second, will)
}
