package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/bw"
)

// The verbs of whoever administers a domain. They ask by HTTP what can be asked below $adm/
// over MQTT, too.

func adminCommand() *cobra.Command {
	var server httpFlags
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Administer a domain: its subscriptions, policy, use and audit",
		Long: `What the administrators of a domain, whom the operator's policy lists under roles, do
with what concerns its people, and nobody else. Everything is written down, and most of
it shown to whom it is about: see bellwire admin audit.`,
		Args: noArgs,
	}
	audit := auditCommand()
	audit.Short = "Who has looked at what of the domain, and changed what"
	policy := &cobra.Command{Use: "policy", Short: "The domain's own policy", Args: noArgs}
	put, diff, rollback, history := aclApplyCommand(&server), aclDiffCommand(&server), aclRollbackCommand(&server), aclHistoryCommand(&server)
	put.Use, put.Short = "put FILE | --end", "Put a policy file in force"
	policy.AddCommand(adminPolicyGetCommand(&server), mustName(put), mustName(diff), mustName(rollback), mustName(history))
	cmd.AddCommand(adminListCommand(&server), adminCancelCommand(&server), adminProvisionCommand(&server), adminInviteCommand(&server),
		adminInvitationsCommand(&server),
		adminUsageCommand(&server), mustName(audit), policy)
	for _, sub := range cmd.Commands() {
		if sub != audit { // it has its own
			server.register(sub)
		}
	}
	for _, sub := range append(cmd.Commands(), policy.Commands()...) {
		if !sub.HasSubCommands() {
			sub.Example = "  bellwire admin " + adminExamples[sub.Name()] + " --domain example.com -u adm@example.com"
		}
	}
	return cmd
}

// adminExamples are how verbs are called, without whose domain it is and who asks.
var adminExamples = map[string]string{
	"ls":        "ls --target ana@example.com",
	"cancel":    "cancel ana@example.com bo@example.net",
	"provision": "provision bo@example.net ana@example.com --note \"the new shift\"",
	"invite":    "invite bo@example.net ana@example.com",
	"usage":     "usage",

	"invitations": "invitations --target ana@example.com",
	"audit":       "audit",
	"get":         "policy get",
	"put":         "policy put ours.yaml --if-match 7",
	"diff":        "policy diff ours.yaml",
	"rollback":    "policy rollback 3",
	"history":     "policy history",
}

// mustName has a verb that knows --domain want it.
func mustName(cmd *cobra.Command) *cobra.Command {
	next := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if domain, err := cmd.Flags().GetString("domain"); err != nil || domain == "" {
			return usage("which domain? give it with --domain, such as --domain example.com")
		}
		return next(cmd, args)
	}
	return cmd
}

// An adminVerb is one that asks, and prints the answer.
type adminVerb struct {
	domain, output string
	client         *httpClient
}

func (v *adminVerb) path(below string) string {
	return "/v1/domains/" + url.PathEscape(v.domain) + "/" + below
}

// adminVerbCommand makes a verb of a domain's. run asks, and tells about it as text.
func adminVerbCommand(server *httpFlags, use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, v *adminVerb, args []string, answer *json.RawMessage) (text func(w io.Writer) error, err error)) *cobra.Command {
	v := &adminVerb{}
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: args,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := checkOutput(v.output); err != nil {
				return err
			}
			if v.client, err = server.client(); err != nil {
				return err
			}
			var answer json.RawMessage
			text, err := run(cmd, v, args, &answer)
			if err != nil {
				return err
			}
			if v.output == "json" {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", answer)
				return err
			}
			return text(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&v.domain, "domain", "", "the `domain` that is administered")
	addOutput(cmd, &v.output)
	return mustName(cmd)
}

// answerAs reads an answer.
func answerAs[T any](answer json.RawMessage) (is T, err error) {
	if err := json.Unmarshal(answer, &is); err != nil {
		return is, fail(bw.NoAnswer, "the node does not answer as a bellwire node does: %w", err)
	}
	return is, nil
}

func adminListCommand(server *httpFlags) *cobra.Command {
	var target string
	cmd := adminVerbCommand(server, "ls", "List subscriptions to and from the domain's people",
		`Lists the subscriptions to and from addresses of the domain, as the broker knows who
watches: kind, watcher, whom they watch, status, id, since when, and the administrator
who has provided it.`, noArgs,
		func(cmd *cobra.Command, v *adminVerb, _ []string, answer *json.RawMessage) (func(io.Writer) error, error) {
			query := ""
			if target != "" {
				query = "?target=" + url.QueryEscape(target)
			}
			if err := v.client.call(cmd.Context(), http.MethodGet, v.path("subscriptions")+query, nil, answer); err != nil {
				return nil, err
			}
			list, err := answerAs[api.SubscriptionList](*answer)
			if list.Partial {
				fmt.Fprintln(cmd.ErrOrStderr(), "there are more: ask about one address with --target")
			}
			return func(out io.Writer) error {
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				for _, s := range list.Subscriptions {
					watcher, since := s.Watcher, ""
					if watcher == "" {
						watcher = "(anonymous)"
					}
					if !s.Since.IsZero() {
						since = s.Since.Format(time.RFC3339)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Kind, safe(watcher), safe(s.Target), s.Status, s.SID, since, safe(s.By))
				}
				return w.Flush()
			}, err
		})
	cmd.Flags().StringVar(&target, "target", "", "only those to this `address` of the domain")
	return cmd
}

// post asks for a change.
func (v *adminVerb) post(cmd *cobra.Command, verb string, body any, answer *json.RawMessage) error {
	return v.client.call(cmd.Context(), http.MethodPost, v.path("subscriptions/"+verb), body, answer)
}

// says is a text that is always the same.
func says(format string, args ...any) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	}
}

func adminCancelCommand(server *httpFlags) *cobra.Command {
	var sid string
	var cmd *cobra.Command
	cmd = adminVerbCommand(server, "cancel TARGET [WATCHER] [KIND]", "End a subscription to somebody of the domain",
		`Ends the subscription of WATCHER, or the one with an id, to TARGET, who is of the domain.
The watcher is told; they may ask again, for no rule is changed. KIND is presence or
location. Exit code 3: there was none.`, someArgs(1, 3, "whom they watch, who watches, and the kind"),
		func(_ *cobra.Command, v *adminVerb, args []string, answer *json.RawMessage) (func(io.Writer) error, error) {
			c := api.Cancelling{Target: args[0], SID: sid}
			rest := args[1:]
			if sid == "" {
				if len(rest) == 0 {
					return nil, usage("whose? name the watcher, or the subscription with --sid")
				}
				c.Watcher, rest = rest[0], rest[1:]
			}
			kind, err := watchedKind(rest)
			if err != nil {
				return nil, err
			}
			c.Kind = kind
			if err := v.post(cmd, "cancel", c, answer); err != nil {
				return nil, err
			}
			is, err := answerAs[struct{ Matched int }](*answer)
			if err == nil && is.Matched == 0 {
				return nil, fail(bw.NotSet, "%s has no such subscription to %s", safe(c.Watcher+c.SID), safe(c.Target))
			}
			return says("canceled %d", is.Matched), err
		})
	cmd.Flags().StringVar(&sid, "sid", "", "`id` of the subscription, in place of a watcher")
	return cmd
}

func adminProvisionCommand(server *httpFlags) *cobra.Command {
	var until, note string
	return noteFlags(adminVerbCommand(server, "provision WATCHER TARGET [KIND]", "Subscribe somebody of the domain",
		`Has WATCHER, who is of the domain, subscribe to TARGET in all sessions of theirs: in
those that there are, and those that come. It is for the owner's policy to answer, as
if they had asked: active, or pending. They see who has done it, and so does the owner,
and may unsubscribe. KIND is presence or location.`, someArgs(2, 3, "who is to watch, whom, and the kind"),
		func(cmd *cobra.Command, v *adminVerb, args []string, answer *json.RawMessage) (func(io.Writer) error, error) {
			kind, err := watchedKind(args[2:])
			if err != nil {
				return nil, err
			}
			p := api.Provision{Kind: kind, Watcher: args[0], Target: args[1], Note: note}
			if until != "" {
				if p.Until, err = time.Parse(time.RFC3339, until); err != nil {
					return nil, usage("--until %q: want an instant such as 2026-03-09T17:00:00Z", until)
				}
			}
			if err := v.post(cmd, "provision", p, answer); err != nil {
				return nil, err
			}
			is, err := answerAs[struct{ State string }](*answer)
			return says("%s", safe(is.State)), err
		}), &note, &until)
}

func adminInviteCommand(server *httpFlags) *cobra.Command {
	var note string
	return noteFlags(adminVerbCommand(server, "invite WATCHER TARGET [KIND]", "Offer somebody to subscribe to somebody of the domain",
		`Offers WATCHER, wherever they are, to subscribe to TARGET, who is of the domain. Nothing
is shown to them before they do, and then what the owner's policy says. The offer lasts
a week; who declines is not invited to it again for 30 days. KIND is presence or location.`,
		someArgs(2, 3, "who is invited, to watch whom, and the kind"),
		func(cmd *cobra.Command, v *adminVerb, args []string, answer *json.RawMessage) (func(io.Writer) error, error) {
			kind, err := watchedKind(args[2:])
			if err != nil {
				return nil, err
			}
			err = v.post(cmd, "invite", api.Invitation{Kind: kind, Watcher: args[0], Target: args[1], Note: note}, answer)
			return says("invited"), err
		}), &note, nil)
}

func adminInvitationsCommand(server *httpFlags) *cobra.Command {
	var target string
	cmd := adminVerbCommand(server, "invitations", "List invitations that are outstanding",
		`Lists the invitations to subscribe to people of the domain, and those that its people
have to others: kind, who is invited, to whom, by which administrator, until when, and
the note. One is listed until its time is over, or it was declined, or who is invited has
subscribed by their name.`, noArgs,
		func(cmd *cobra.Command, v *adminVerb, _ []string, answer *json.RawMessage) (func(io.Writer) error, error) {
			query := ""
			if target != "" {
				query = "?target=" + url.QueryEscape(target)
			}
			if err := v.client.call(cmd.Context(), http.MethodGet, v.path("invitations")+query, nil, answer); err != nil {
				return nil, err
			}
			list, err := answerAs[api.InvitationList](*answer)
			if list.Partial {
				fmt.Fprintln(cmd.ErrOrStderr(), "there are more: ask about one address with --target")
			}
			return func(out io.Writer) error {
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				for _, i := range list.Invitations {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", i.Kind, safe(i.Watcher), safe(i.Target), safe(i.By), i.Until.Format(time.RFC3339), safe(i.Note))
				}
				return w.Flush()
			}, err
		})
	cmd.Flags().StringVar(&target, "target", "", "only those to this `address` of the domain")
	return cmd
}

func noteFlags(cmd *cobra.Command, note, until *string) *cobra.Command {
	cmd.Flags().StringVar(note, "note", "", "`text` for whoever is asked: 256 characters at most")
	if until != nil {
		cmd.Flags().StringVar(until, "until", "", "`instant` at which it ends, such as 2026-03-09T17:00:00Z; empty: never")
	}
	return cmd
}

func adminUsageCommand(server *httpFlags) *cobra.Command {
	return adminVerbCommand(server, "usage", "What the domain uses of its quotas",
		`Shows of each quota what is used, how much there is, and how often somebody was refused
by the node that is asked, since it was started.`, noArgs,
		func(cmd *cobra.Command, v *adminVerb, _ []string, answer *json.RawMessage) (func(io.Writer) error, error) {
			if err := v.client.call(cmd.Context(), http.MethodGet, v.path("usage"), nil, answer); err != nil {
				return nil, err
			}
			is, err := answerAs[api.DomainUsage](*answer)
			return func(out io.Writer) error {
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				for _, row := range is.Rows() {
					most := "no quota"
					if row.Max > 0 {
						most = "of " + fmt.Sprint(row.Max)
					}
					fmt.Fprintf(w, "%s\t%d\t%s\trefused %d\n", row.Name, row.Used, most, row.Refused)
				}
				return w.Flush()
			}, err
		})
}

func adminPolicyGetCommand(server *httpFlags) *cobra.Command {
	var domain string
	var version uint64
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print the policy that is in force, or a former one",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.client()
			if err != nil {
				return err
			}
			path := policyPath(domain)
			if version > 0 {
				path += fmt.Sprintf("/versions/%d", version)
			}
			r, err := c.open(cmd.Context(), http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			defer r.Body.Close()
			_, err = io.Copy(cmd.OutOrStdout(), io.LimitReader(r.Body, acl.MaxFile+1))
			return err
		},
	}
	cmd.Flags().Uint64Var(&version, "version", 0, "`number` of a former policy; 0: the one in force")
	addPolicyDomain(cmd, &domain)
	return mustName(cmd)
}
