package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/bw"
)

// The verbs about a server's policy: what it is, was and becomes.

// policyPath is where the operator's policy is, or a domain's own.
func policyPath(domain string) string {
	if domain == "" {
		return "/v1/policy"
	}
	return "/v1/domains/" + url.PathEscape(domain) + "/policy"
}

// addPolicyDomain adds the flag that says whose policy a verb is about.
func addPolicyDomain(cmd *cobra.Command, domain *string) {
	cmd.Flags().StringVar(domain, "domain", "", "the policy of this `domain` of its own, in place of the operator's; for its administrators")
}

// removeUsersQuery confirms that it is meant that a policy removes many.
const removeUsersQuery = "?remove_users"

func addRemoveUsers(cmd *cobra.Command, remove *bool) {
	cmd.Flags().BoolVar(remove, "remove-users", false, "it is meant that it removes many users, or all operators")
}

// fetchPolicy reads a version of a server's policy, the one in force if number is 0.
func fetchPolicy(ctx context.Context, server *httpFlags, number uint64) (*acl.Policy, uint64, error) {
	c, err := server.client()
	if err != nil {
		return nil, 0, err
	}
	path := "/v1/policy"
	if number > 0 {
		path += "/versions/" + strconv.FormatUint(number, 10)
	}
	ctx, cancel := context.WithTimeout(ctx, server.timeout)
	defer cancel()
	r, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, 0, err
	}
	defer r.Body.Close()
	data, err := io.ReadAll(io.LimitReader(r.Body, acl.MaxFile+1))
	if err != nil {
		return nil, 0, fail(bw.NoAnswer, "%s stopped amid its policy: %w", c.base, err)
	}
	number, err = strconv.ParseUint(strings.Trim(r.Header.Get("ETag"), `"`), 10, 64)
	if err != nil {
		return nil, 0, fail(bw.NoAnswer, "%s does not answer as a bellwire node does: %w", c.base, err)
	}
	name := "policy"
	if number > 0 {
		name = "policy " + strconv.FormatUint(number, 10)
	}
	policy, err := parsePolicy(name, data, r.Header.Get("Bellwire-Domain"))
	return policy, number, err
}

func aclApplyCommand(server *httpFlags) *cobra.Command {
	var base uint64
	var dryRun, end, remove bool
	var output, shadow, domain string
	cmd := &cobra.Command{
		Use:   "apply FILE | --domain DOMAIN --end",
		Short: "Put a policy file in force",
		Long: `Has a server check a policy file, run the tests in it, and put it in force on all
nodes. All that is wrong with it is told, and then the one in force stays.

--shadow 1h puts nothing in force: for an hour every node asks the file, too, what
its clients and the log ask of the policy in force, and keeps where the answers
differ.

--if-match N puts it in force only if policy N is by then: what bellwire acl
history shows in the first line.

A file that looks like a part of one is refused: that would leave no operator, or no
user, or remove more than a quarter of the users and more than two. --remove-users
says that it is meant.

--domain puts a file in force that is a domain's own: users, groups, rules, limits
and tests about its people and about topics that the operator's policy gives it
under tenants. --end ends what the domain has.

Exit code 0: it is in force. 2: the file is faulty. 7: another policy is in force
than N, or it removes too many. 9: a test in the file failed.`,
		Example: `  bellwire acl apply policy.yaml --dry-run
  bellwire acl apply policy.yaml --if-match 7
  bellwire acl apply policy.yaml --shadow 1h
  bellwire acl apply ours.yaml --domain example.com -u adm@example.com`,
		Args: someArgs(0, 1, "the policy file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if end != (len(args) == 0) || end && (domain == "" || dryRun || shadow != "") {
				return usage("apply takes a policy file, or --domain DOMAIN and --end")
			}
			c, err := server.client()
			if err != nil {
				return err
			}
			path := policyPath(domain)
			if end {
				return c.putPolicy(cmd, http.MethodDelete, path, policyBody{base: base}, output)
			}
			data, err := readPolicyData(args[0])
			if err != nil {
				return err
			}
			switch {
			case dryRun && shadow != "":
				return usage("--dry-run and --shadow at once")
			case dryRun:
				path += "?dry_run"
			case shadow != "":
				path += "?shadow=" + url.QueryEscape(shadow)
			case remove:
				path += removeUsersQuery
			}
			return c.putPolicy(cmd, http.MethodPut, path, policyBody{args[0], data, base}, output)
		},
	}
	cmd.Flags().Uint64Var(&base, "if-match", 0, "`number` of the policy that must be in force; 0: whichever is")
	cmd.Flags().StringVar(&shadow, "shadow", "", "try it for this `time`, such as 1h, beside the one in force and without effect: bellwire acl shadow lists what differs")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check it and run its tests, and change nothing")
	addRemoveUsers(cmd, &remove)
	cmd.Flags().BoolVar(&end, "end", false, "with --domain: it has no policy of its own any more")
	addPolicyDomain(cmd, &domain)
	addOutput(cmd, &output)
	return cmd
}

// putPolicy has a policy put in force and says what came of it.
func (c *httpClient) putPolicy(cmd *cobra.Command, method, path string, body any, output string) error {
	var result api.PolicyResult
	if err := c.call(cmd.Context(), method, path, body, &result); err != nil {
		return err
	}
	if output == "json" {
		return writeJSON(cmd.OutOrStdout(), result)
	}
	if result.Shadow != nil {
		return printShadow(cmd.OutOrStdout(), *result.Shadow)
	}
	what := "in force"
	if result.Dry {
		what = "stays in force: nothing was changed"
	}
	text := fmt.Sprintf("policy %d %s · %s passed\n", result.Number, what, plural(result.Tests, "test"))
	if len(result.Removed) > 0 {
		removed := safe(removedText(result.Removed, result.Forgotten))
		if result.Dry {
			removed = "if it is put in force now: " + removed
		}
		text += removed + "\n"
	}
	if result.Confirm != "" {
		text += "it is put in force only with --remove-users: " + safe(result.Confirm) + "\n"
	}
	if len(result.Idle) > 0 {
		text += "of domains' own rules without effect now: " + safe(strings.Join(result.Idle, ", ")) + "\n"
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text)
	return err
}

func aclShadowCommand(server *httpFlags) *cobra.Command {
	var stop bool
	var output string
	cmd := &cobra.Command{
		Use:   "shadow",
		Short: "What a policy that is tried would change",
		Long: `Lists where the policy that bellwire acl apply --shadow tries has answered otherwise
than the one in force, on all nodes: each who, action and topic once.`,
		Example: `  bellwire acl shadow
  bellwire acl shadow --stop`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			method := http.MethodGet
			if stop {
				method = http.MethodDelete
			}
			var s api.Shadow
			if err := c.call(cmd.Context(), method, "/v1/policy/shadow", nil, &s); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			return printShadow(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "end it")
	addOutput(cmd, &output)
	return cmd
}

func printShadow(w io.Writer, s api.Shadow) error {
	var b strings.Builder
	fmt.Fprintf(&b, "tried until %s by %s on %s · %d questions, %d answers differ · %.3f s of a core\n",
		s.Until.Format(time.RFC3339), s.By, strings.Join(s.Nodes, ", "), s.Asked, len(s.Differences), s.Cost)
	if len(s.Without) > 0 {
		fmt.Fprintf(&b, "not on %s\n", strings.Join(s.Without, ", "))
	}
	if s.Missed > 0 {
		fmt.Fprintf(&b, "%d questions were not compared: there are too many different ones\n", s.Missed)
	}
	for _, d := range s.Differences {
		who, verb, by := acl.Who{Principal: d.Principal}.String(), "could no longer", d.Rule
		if d.Is {
			verb = "could"
		}
		if by == "" {
			by = "no rule"
		}
		fmt.Fprintf(&b, "  %s  %s %s %s %s (%s)\n", d.At.Format(time.RFC3339), who, verb, d.Action, d.Topic, by)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func aclHistoryCommand(server *httpFlags) *cobra.Command {
	var output, domain string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Which policies were in force, since when, by whom",
		Example: `  bellwire acl history
  bellwire acl history -o json --server http://10.0.0.1:8080 -u ana@example.com`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			var answer struct {
				Versions []api.PolicyVersion `json:"versions"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, policyPath(domain)+"/versions", nil, &answer); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), append([]api.PolicyVersion{}, answer.Versions...))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, v := range answer.Versions {
				state := ""
				if v.In {
					state = "in force"
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%d bytes\t%s\n", v.Number, v.At.Format(time.RFC3339), v.By, v.Size, state)
			}
			return w.Flush()
		},
	}
	addPolicyDomain(cmd, &domain)
	addOutput(cmd, &output)
	return cmd
}

func aclRollbackCommand(server *httpFlags) *cobra.Command {
	var output, domain string
	var remove bool
	cmd := &cobra.Command{
		Use:   "rollback NUMBER",
		Short: "Put a former policy in force again",
		Long: `Puts the policy of that number in force again, on all nodes, as a new one: the
numbers go on. bellwire acl history lists what there is, bellwire acl diff NUMBER
what it changes.`,
		Example: `  bellwire acl rollback 7`,
		Args:    exactArgs(1, "the number of a policy"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			to, err := policyNumber(args[0])
			if err != nil {
				return err
			}
			c, err := server.client()
			if err != nil {
				return err
			}
			path := policyPath(domain) + "/rollback"
			if remove {
				path += removeUsersQuery
			}
			return c.putPolicy(cmd, http.MethodPost, path, map[string]uint64{"to": to}, output)
		},
	}
	addRemoveUsers(cmd, &remove)
	addPolicyDomain(cmd, &domain)
	addOutput(cmd, &output)
	return cmd
}

func policyNumber(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, fail(bw.Usage, "%q is no number of a policy", s).do("bellwire acl history lists them")
	}
	return n, nil
}

func aclDiffCommand(server *httpFlags) *cobra.Command {
	var output, policy, domain string
	cmd := &cobra.Command{
		Use:   "diff [NUMBER|FILE] [--policy FILE]",
		Short: "What a policy changes: rules, and decisions",
		Long: `Compares what is in force on a server with a file, or with a former policy by its
number: which rules, limits, groups and users are added, removed or changed, and
which decisions change within a week from now on, for everybody whom either names
and each topic of their rules. Without an argument, with the policy before.

With --policy FILE no server is asked: the two files are compared. With --domain and
without --policy it is the policy of that domain of its own.`,
		Example: `  bellwire acl diff                                # what the last change was
  bellwire acl diff policy.yaml                    # what this one would change
  bellwire acl diff 7
  bellwire acl diff new.yaml --policy old.yaml     # no server is asked`,
		Args: someArgs(0, 1, "the number of a policy or a file, at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if domain != "" && policy == "" {
				return diffDomain(cmd, server, domain, args, output)
			}
			was, is, err := policiesToCompare(cmd.Context(), server, policy, domain, args)
			if err != nil {
				return err
			}
			d := acl.Compare(was, is, time.Now())
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), d)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), d.Text())
			return err
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "policy `file` that stands for what is in force")
	cmd.Flags().StringVar(&domain, "domain", "", "with --policy: domain of bare names in the files; without: whose policy of its own is meant")
	addOutput(cmd, &output)
	return cmd
}

// diffDomain has a server compare policies of a domain's own, for nobody else has what is
// beside them.
func diffDomain(cmd *cobra.Command, server *httpFlags, domain string, args []string, output string) error {
	c, err := server.client()
	if err != nil {
		return err
	}
	path, method, body := policyPath(domain)+"/diff", http.MethodGet, any(nil)
	if len(args) == 0 {
		var answer struct {
			Versions []api.PolicyVersion `json:"versions"`
		}
		if err := c.call(cmd.Context(), http.MethodGet, policyPath(domain)+"/versions", nil, &answer); err != nil {
			return err
		}
		if len(answer.Versions) < 2 {
			return fail(bw.NoSuchPolicy, "there is no policy of %s before the one in force", domain)
		}
		path += "?than=" + strconv.FormatUint(answer.Versions[1].Number, 10)
	} else if number, err := policyNumber(args[0]); err == nil {
		path += "?version=" + strconv.FormatUint(number, 10)
	} else {
		data, err := readPolicyData(args[0])
		if err != nil {
			return err
		}
		method, body = http.MethodPost, policyBody{args[0], data, 0}
	}
	var d acl.Diff
	if err := c.call(cmd.Context(), method, path, body, &d); err != nil {
		return err
	}
	if output == "json" {
		return writeJSON(cmd.OutOrStdout(), d)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), safeLines(d.Text()))
	return err
}

// policiesToCompare returns the older and the newer of what diff compares.
func policiesToCompare(ctx context.Context, server *httpFlags, file, domain string, args []string) (was, is *acl.Policy, err error) {
	if file != "" {
		if len(args) == 0 {
			return nil, nil, usage("--policy %s: with what is it to be compared?", file)
		}
		if was, err = readPolicy(file, domain); err == nil {
			is, err = readPolicy(args[0], domain)
		}
		return was, is, err
	}
	in, number, err := fetchPolicy(ctx, server, 0)
	switch {
	case err != nil:
		return nil, nil, err
	case len(args) == 0 && number < 2:
		return nil, nil, fail(bw.NoSuchPolicy, "there is no policy before the one in force")
	case len(args) == 0:
		was, _, err = fetchPolicy(ctx, server, number-1)
		return was, in, err
	}
	if other, err := policyNumber(args[0]); err == nil {
		if _, err := os.Stat(args[0]); err != nil {
			is, _, err = fetchPolicy(ctx, server, other)
			return in, is, err
		}
	}
	if domain == "" {
		domain = in.Domain()
	}
	is, err = readPolicy(args[0], domain)
	return in, is, err
}

func aclWhoCommand(server *httpFlags) *cobra.Command {
	return listCommand(server, &cobra.Command{
		Use:   `who "subscribe|publish TOPIC"`,
		Short: "Who may do something, at an instant",
		Long: `Lists who may subscribe to or publish to a topic: kinds of principals such as
*@example.com, the addresses that may though their kind may not, and with a ! those
that may not though their kind may.`,
		Example: `  bellwire acl who "subscribe ward/3/alarm"
  bellwire acl who "publish ward/3/alarm" --policy policy.yaml --at "08:00 Europe/Madrid"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if topic := strings.TrimPrefix(strings.Join(args, " "), " "); len(args) > 2 || !strings.Contains(topic, " ") {
				return fail(bw.Usage, "bellwire acl who takes an action and a topic").do(`such as: bellwire acl who "subscribe ward/3/alarm"`)
			}
			return nil
		},
	}, "who", func(args []string, _ string) (url.Values, error) {
		word, name, _ := strings.Cut(strings.Join(args, " "), " ")
		_, err := parseAction(word)
		return url.Values{"action": {word}, "topic": {strings.TrimSpace(name)}}, err
	}, func(p *acl.Policy, args []string, at time.Time, _ string) ([]string, error) {
		word, name, _ := strings.Cut(strings.Join(args, " "), " ")
		action, err := parseAction(word)
		if err != nil {
			return nil, err
		}
		all, err := p.WhoCan(action, strings.TrimSpace(name), at)
		if err != nil {
			return nil, topicFault(err)
		}
		return all, nil
	})
}

func aclCanCommand(server *httpFlags) *cobra.Command {
	return listCommand(server, &cobra.Command{
		Use:   "can ADDRESS",
		Short: "What somebody may do by the rules, at an instant",
		Long: `Lists what somebody, or anonymous, may publish and subscribe to, and with a !
which parts of that a rule denies or a limit cuts.`,
		Example: `  bellwire acl can ana@example.com
  bellwire acl can anonymous --policy policy.yaml`,
		Args: exactArgs(1, "an address, or anonymous"),
	}, "can", func(args []string, domain string) (url.Values, error) {
		as, err := asServer(args[0], domain)
		return url.Values{"as": {as}}, err
	}, func(p *acl.Policy, args []string, at time.Time, domain string) ([]string, error) {
		who, err := parseWho(explainFlags{as: args[0], domain: domain})
		if err != nil {
			return nil, err
		}
		return p.CanWhat(who, at), nil
	})
}

// asServer is who is asked about as a server is told: it knows the domain of bare names.
func asServer(as, domain string) (string, error) {
	if domain == "" || as == "anonymous" {
		return as, nil
	}
	who, err := parseWho(explainFlags{as: as, domain: domain})
	return who.Principal, err
}

// listCommand completes a verb that lists what a policy answers: that of a file, by list,
// or what is in force on a server, which is asked for what by form.
func listCommand(server *httpFlags, cmd *cobra.Command, what string, form func(args []string, domain string) (url.Values, error), list func(p *acl.Policy, args []string, at time.Time, domain string) ([]string, error)) *cobra.Command {
	var policy, domain, at, output string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		instant := time.Now()
		if at != "" {
			var err error
			if instant, err = acl.ParseInstant(at, instant); err != nil {
				return fail(bw.Usage, "--at: %w", err)
			}
		}
		var all []string
		if policy == "" {
			q, err := form(args, domain)
			if err != nil {
				return err
			}
			if at != "" {
				q.Set("at", instant.UTC().Format(time.RFC3339Nano))
			}
			answer := map[string][]string{}
			c, err := server.client()
			if err == nil {
				err = c.call(cmd.Context(), http.MethodGet, "/v1/policy/"+what+"?"+q.Encode(), nil, &answer)
			}
			if err != nil {
				return err
			}
			all = answer[what]
		} else {
			p, err := readPolicy(policy, domain)
			if err != nil {
				return err
			}
			if domain == "" {
				domain = p.Domain()
			}
			if all, err = list(p, args, instant, domain); err != nil {
				return err
			}
		}
		if output == "json" {
			return writeJSON(cmd.OutOrStdout(), append([]string{}, all...))
		}
		for _, line := range all {
			fmt.Fprintln(cmd.OutOrStdout(), line)
		}
		return nil
	}
	flags := cmd.Flags()
	flags.StringVar(&policy, "policy", "", "policy `file` to ask; without it, the server's policy in force")
	flags.StringVar(&domain, "domain", "", "domain of bare names")
	flags.StringVar(&at, "at", "", "`instant` to ask about; now when empty")
	addOutput(cmd, &output)
	return cmd
}
