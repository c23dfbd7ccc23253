package main

import (
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/bw"
)

// banCommand is `bellwire ban`.
func banCommand() *cobra.Command {
	var server httpFlags
	cmd := &cobra.Command{
		Use:   "ban",
		Short: "Who is kept out: clients, users, addresses",
		Long: `Bans keep clients out on all nodes, and end their connections. One names a client id,
a user, an address or network, or more than one of these: then all have to match. A
client that is kept out is told 0x8A, banned (3.1.1: 5), one by its user only when it
has proved to be that user. Nodes ban by themselves, for a time, clients that connect
and disconnect without end (limits: flapping.perMinute, flapping.ban).`,
	}
	server.register(cmd)
	cmd.AddCommand(banAddCommand(&server), banListCommand(&server), banRemoveCommand(&server))
	return cmd
}

// bannedFlags say whom a ban is of.
type bannedFlags struct{ client, user, address string }

func (f *bannedFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.client, "client", "", "the client `id`")
	cmd.Flags().StringVar(&f.user, "user", "", "the `user`, by name or address")
	cmd.Flags().StringVar(&f.address, "address", "", "the IP `address`, or the network: 192.0.2.0/24")
}

func (f *bannedFlags) ban() (api.Ban, error) {
	if *f == (bannedFlags{}) {
		return api.Ban{}, usage("nobody is named: give --client, --user or --address")
	}
	return api.Ban{Client: f.client, User: f.user, Address: f.address}, nil
}

func banAddCommand(server *httpFlags) *cobra.Command {
	var who bannedFlags
	var span, reason string
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Keep somebody out, for a time or for good",
		Example: `  bellwire ban add --user eve --reason 'has left' --server 10.0.0.1:8080
  bellwire ban add --address 192.0.2.0/24 --for 1h
  bellwire ban add --client sensor7 --user plant --for 2d`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := who.ban()
			if err != nil {
				return err
			}
			if span != "" {
				n, p := parseSpan(span)
				switch {
				case p != nil:
					return fail(bw.Usage, "--for: %s", p.What).do("%s", p.Todo)
				case n < second:
					return usage("--for %s: want a second at least", span)
				}
				b.Seconds = uint64(n / second)
			}
			b.Reason = reason
			c, err := server.client()
			if err != nil {
				return err
			}
			var made api.Ban
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/bans", b, &made); err != nil {
				return err
			}
			return writeLine(cmd.OutOrStdout(), []byte("banned: "+safe(bannedWho(made)+", "+bannedUntil(made))))
		},
	}
	who.register(cmd)
	cmd.Flags().StringVar(&span, "for", "", "for this `time`: 30m, 12h, 7d; for good without")
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for other operators; nobody else is told")
	return cmd
}

func banListCommand(server *httpFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "Who is kept out, until when, by whom and why",
		Example: "  bellwire ban ls\n  bellwire ban ls -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			var list struct {
				Bans []api.Ban `json:"bans"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/bans", nil, &list); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), list.Bans)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, b := range list.Bans {
				fmt.Fprintf(w, "%s\t%s\tby %s\t%s\n", safe(bannedWho(b)), bannedUntil(b), safe(b.By), safe(b.Reason))
			}
			return w.Flush()
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func banRemoveCommand(server *httpFlags) *cobra.Command {
	var who bannedFlags
	cmd := &cobra.Command{
		Use:     "rm",
		Short:   "Let in again who is kept out, named as ls has it",
		Example: "  bellwire ban rm --user eve\n  bellwire ban rm --address 192.0.2.0/24",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := who.ban()
			if err != nil {
				return err
			}
			c, err := server.client()
			if err != nil {
				return err
			}
			q := url.Values{"client": {b.Client}, "user": {b.User}, "address": {b.Address}}
			if err := c.call(cmd.Context(), http.MethodDelete, "/v1/bans?"+q.Encode(), nil, &b); err != nil {
				return err
			}
			return writeLine(cmd.OutOrStdout(), []byte("not banned any more: "+safe(bannedWho(b))))
		},
	}
	who.register(cmd)
	return cmd
}

// bannedWho names whom a ban is of.
func bannedWho(b api.Ban) (who string) {
	for _, p := range [...]struct{ what, value string }{{"user ", b.User}, {"client ", b.Client}, {"address ", b.Address}} {
		if p.value == "" {
			continue
		}
		if who != "" {
			who += " "
		}
		who += p.what + p.value
	}
	return who
}

func bannedUntil(b api.Ban) string {
	if b.Until == nil {
		return "for good"
	}
	return "until " + b.Until.Format(time.RFC3339)
}

// kickCommand is `bellwire kick`.
func kickCommand() *cobra.Command {
	var server httpFlags
	var drop bool
	cmd := &cobra.Command{
		Use:   "kick CLIENT-ID",
		Short: "End the connection of a client, on whichever node it is",
		Long: `Ends a client's connection; it is told 0x98, administrative action, and its will is
published. Its session is kept for it, unless --drop-session has it end, too. A client
that is not to come back is one for bellwire ban.`,
		Example: "  bellwire kick sensor7\n  bellwire kick --drop-session sensor7 --server 10.0.0.1:8080",
		Args:    someArgs(1, 1, "the client id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := server.client()
			if err != nil {
				return err
			}
			k := api.Kicking{Client: args[0], Session: drop}
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/clients/kick", k, &k); err != nil {
				return err
			}
			done := "connection ended: client "
			if drop {
				done = "session ended: client "
			}
			return writeLine(cmd.OutOrStdout(), []byte(done+safe(k.Client)))
		},
	}
	server.register(cmd)
	cmd.Flags().BoolVar(&drop, "drop-session", false, "end its session, too, connected or not: subscriptions and queue")
	return cmd
}
