package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/nearest"
	"github.com/bellwire/bellwire/profiles/kind"
)

func aclCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "Test, explain, change and compare the operator's policy",
		Long: `Verbs that ask or change a server's policy are for operators: whoever the
policy's group "operators" lists, with -u and -P, and on the node's machine root
and the user that the node runs as. Administrators of a domain (roles) may ask about
its people, and change the domain's own policy with --domain. Those that take --policy ask that file, and no
server.`,
	}
	var server httpFlags
	server.register(cmd)
	cmd.AddCommand(aclExplainCommand(&server), aclTestCommand(), aclApplyCommand(&server), aclHistoryCommand(&server),
		aclRollbackCommand(&server), aclDiffCommand(&server), aclShadowCommand(&server), aclWhoCommand(&server), aclCanCommand(&server))
	return cmd
}

func aclTestCommand() *cobra.Command {
	var domain, output string
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Run the tests that a policy file holds",
		Long: `Reads a policy file, tells everything that is wrong with it, and runs the
tests in it. No server is asked. Rules and limits that no test made use of are
named at the end. Of presence, location and messages allow means that neither a
rule nor a limit forbids it: their owners decide.

Exit code 0: all passed. 2: the file is faulty. 9: a test failed.`,
		Example: `  bellwire acl test policy.yaml
  bellwire acl test policy.yaml -o json`,
		Args: exactArgs(1, "the policy file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			policy, err := readPolicy(args[0], domain)
			if err != nil {
				return err
			}
			report := policy.Test()
			if err := printTests(cmd.OutOrStdout(), report, output); err != nil {
				return err
			}
			if report.Failed > 0 {
				return exitCode(exitTestFailed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "domain of bare names in the file")
	addOutput(cmd, &output)
	return cmd
}

func printTests(w io.Writer, r acl.TestReport, output string) error {
	if output != "json" {
		_, err := io.WriteString(w, safeLines(r.String()))
		return err
	}
	type result struct {
		Name   string   `json:"name"`
		Line   int      `json:"line"`
		OK     bool     `json:"ok"`
		Checks int      `json:"checks"`
		Failed []string `json:"failed,omitempty"`
	}
	out := struct {
		File    string   `json:"file"`
		Passed  int      `json:"passed"`
		Failed  int      `json:"failed"`
		Results []result `json:"results"`
		Unused  []string `json:"unused"`
	}{r.File, r.Passed, r.Failed, []result{}, append([]string{}, r.Unused...)}
	for _, t := range r.Results {
		out.Results = append(out.Results, result{t.Name, t.Line, len(t.Failed) == 0, t.Checks, t.Failed})
	}
	return writeJSON(w, out)
}

// explainFlags are those of `acl explain`.
type explainFlags struct {
	policy, domain    string
	as, client        string
	at, sweep, output string
	action, topic     string // the arguments
	server            *httpFlags
}

func aclExplainCommand(server *httpFlags) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain ID | subscribe|publish TOPIC",
		Short: "Who may do what, when, by which rule",
		Long: `Answers whether somebody may subscribe to or publish to a topic at an instant,
by which rule, until when, and what happens then: by a policy file, or, without
--policy, by what is in force on a server. TOPIC may be a filter for subscribe: then
all of it is meant.

With an ID, which ends the message of a refusal and stands in the node's log, it
asks a server about that: who wanted what, when, and by which rule it was
refused. Whoever was refused may ask, with -u and -P, and operators.

Instants are RFC 3339 (2026-03-09T13:00:00Z), the clock of a zone
(2026-03-09T08:00 America/Chicago) or today's clock of a zone (08:00
America/Chicago). --sweep FROM/TO lists the answer at FROM and every change
before TO.

Of presence, location and messages rules allow nothing: OWNER says that the
operator does not forbid it, and that the owner's policy decides, which
bellwire policy preview explains.

With -o json an answer has the members allow, rule, line, until (when the
answer becomes the other one) and next (when it becomes yes); null where there
is none. A sweep is an array of at, allow, rule. With "owner": true besides,
allow is the operator's answer only.`,
		Example: `  bellwire acl explain --policy policy.yaml --as ana@example.com --at "23:10 Europe/Madrid" subscribe ward/3/alarm
  bellwire acl explain --policy policy.yaml --as ana@example.com --sweep 2026-03-01T00:00:00Z/2026-04-01T00:00:00Z -o json subscribe ward/3/alarm`,
		Args: someArgs(1, 2, "subscribe or publish and a topic, or the id of a refusal"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return explainID(cmd, server, args[0], f.output)
			}
			f.server = server
			f.action, f.topic = args[0], args[1]
			return explain(cmd, f, time.Now())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "policy file to ask; without it, the server's policy in force")
	flags.StringVar(&f.domain, "domain", "", "domain of bare names")
	flags.StringVar(&f.as, "as", "", "who asks: an address, or anonymous (required)")
	flags.StringVar(&f.client, "client", "", "client id of who asks, for {client} in topics")
	flags.StringVar(&f.at, "at", "", "instant to ask about; now when empty")
	flags.StringVar(&f.sweep, "sweep", "", "FROM/TO, or a time from now on such as 7d: the answer at FROM and every change before TO")
	addOutput(cmd, &f.output)
	return cmd
}

// explainID asks a server about a refusal.
func explainID(cmd *cobra.Command, server *httpFlags, id, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	id, ok := acl.ParseDenialID(id)
	if !ok {
		return fail(bw.Usage, "%q is no id of a refusal", cmd.Flags().Arg(0)).do("an id has eight letters and digits; or ask about subscribe or publish, and a topic")
	}
	d, raw, err := explainDenied(cmd.Context(), server, id)
	if err != nil {
		return err
	}
	if output == "json" {
		return writeLine(cmd.OutOrStdout(), safeJSON(bytes.TrimSpace(raw)))
	}
	_, err = io.WriteString(cmd.OutOrStdout(), safeLines(d.Text))
	return err
}

// explain answers one question, or sweeps. now is what a time without a date
// and no time at all refer to.
func explain(cmd *cobra.Command, f explainFlags, now time.Time) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	if f.sweep != "" && f.at != "" {
		return fail(bw.Usage, "--at and --sweep at once").do("use one of them")
	}
	action, err := parseAction(f.action)
	if err != nil {
		return err
	}
	if f.policy == "" {
		return explainThere(cmd, f, now)
	}
	who, err := parseWho(f)
	if err != nil {
		return err
	}
	policy, err := readPolicy(f.policy, f.domain)
	if err != nil {
		return err
	}
	if f.sweep != "" {
		return sweep(cmd.OutOrStdout(), policy, who, action, f, now)
	}
	at := now
	if f.at != "" {
		if at, err = acl.ParseInstant(f.at, now); err != nil {
			return fail(bw.Usage, "--at: %w", err)
		}
	}
	e, err := policy.ExplainRequest(who, action, f.topic, at)
	if err != nil {
		return topicFault(err)
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), e)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), safeLines(e.Text()+askOwner(e)))
	return err
}

// explainThere has a server answer, by what is in force there.
func explainThere(cmd *cobra.Command, f explainFlags, now time.Time) error {
	if f.as == "" {
		_, err := parseWho(f)
		return err
	}
	as, err := asServer(f.as, f.domain)
	if err != nil {
		return err
	}
	form := url.Values{"as": {as}, "client": {f.client}, "action": {f.action}, "topic": {f.topic}}
	if f.at != "" {
		at, err := acl.ParseInstant(f.at, now)
		if err != nil {
			return fail(bw.Usage, "--at: %w", err)
		}
		form.Set("at", at.UTC().Format(time.RFC3339Nano))
	}
	c, err := f.server.client()
	if err != nil {
		return err
	}
	const path = "/v1/policy/explain?"
	switch {
	case f.sweep != "":
		from, to, err := parseSweep(f.sweep, now)
		if err != nil {
			return err
		}
		form.Set("sweep", from.UTC().Format(time.RFC3339)+"/"+to.UTC().Format(time.RFC3339))
		var edges []struct {
			At    time.Time
			Allow bool
			Rule  string
			Owner bool
		}
		if err := c.call(cmd.Context(), http.MethodGet, path+form.Encode(), nil, &edges); err != nil {
			return err
		}
		all := make([]acl.Edge, len(edges))
		for i, e := range edges {
			all[i] = acl.Edge(e)
		}
		return printSweep(cmd.OutOrStdout(), all, f.output)
	case f.output == "json":
		var raw json.RawMessage
		if err := c.call(cmd.Context(), http.MethodGet, path+form.Encode(), nil, &raw); err != nil {
			return err
		}
		return writeLine(cmd.OutOrStdout(), safeJSON(bytes.TrimSpace(raw)))
	}
	form.Set("text", "")
	var e api.Explained
	if err := c.call(cmd.Context(), http.MethodGet, path+form.Encode(), nil, &e); err != nil {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), safeLines(e.Text))
	return err
}

// askOwner says whose policy decides what the operator leaves to it, and how that
// is seen; nothing of an answer that is the operator's.
func askOwner(e acl.Explanation) string {
	if !e.Owner || !e.Allow {
		return ""
	}
	if kindName, own := strings.CutPrefix(e.Topic, "$me/policy/"); own {
		return fmt.Sprintf("  owner    it is one's own policy: bellwire policy get %s\n", kindName)
	}
	kindName, _, _ := strings.Cut(e.Topic, "/")
	if topic.HasWildcard(e.Topic) {
		return fmt.Sprintf("  owner    of each that it matches its owner's policy decides: bellwire policy preview %s --help\n", kindName)
	}
	t, err := kind.ParseTopic(e.Topic)
	switch {
	case err != nil:
		return fmt.Sprintf("  owner    it is nobody's: %v\n", err)
	case t.Addr.String() == e.Who.Principal:
		return "  owner    it is their own\n"
	}
	watcher := ""
	if e.Who.Principal != "" {
		watcher = " --watcher " + e.Who.Principal
	}
	return fmt.Sprintf("  owner    the policy of %s decides: bellwire policy preview %s FILE --as %[1]s%[3]s\n", t.Addr, kindName, watcher)
}

func sweep(w io.Writer, policy *acl.Policy, who acl.Who, action acl.Action, f explainFlags, now time.Time) error {
	from, to, err := parseSweep(f.sweep, now)
	if err != nil {
		return err
	}
	edges, err := policy.Sweep(who, action, f.topic, from, to)
	if err != nil {
		return topicFault(err)
	}
	return printSweep(w, edges, f.output)
}

func printSweep(w io.Writer, edges []acl.Edge, output string) error {
	if output == "json" {
		return writeJSON(w, edges)
	}
	format := "%s\t%s\t%s\n"
	if isTerminal(w) {
		format = "%-20s  %-5s  %s\n"
	}
	for _, e := range edges {
		answer := "deny"
		switch {
		case e.Allow && e.Owner:
			answer = "owner"
		case e.Allow:
			answer = "allow"
		}
		if _, err := fmt.Fprintf(w, format, e.At.UTC().Format(time.RFC3339), answer, safe(e.Rule)); err != nil {
			return err
		}
	}
	return nil
}

func topicFault(err error) error {
	if errors.Is(err, acl.ErrSweep) {
		return fail(bw.Usage, "--sweep: %w", err)
	}
	return fail(bw.Usage, "%w", err).do("check the topic: publish takes a name, subscribe a filter")
}

func parseAction(s string) (acl.Action, error) {
	switch s {
	case "publish":
		return acl.Publish, nil
	case "subscribe":
		return acl.Subscribe, nil
	}
	f := fail(bw.Usage, "unknown action %q", s)
	if near := nearest.Name(s, []string{"publish", "subscribe"}); near != "" {
		return 0, f.do("did you mean %s?", near)
	}
	return 0, f.do("ask about publish or subscribe")
}

func parseWho(f explainFlags) (acl.Who, error) {
	who := acl.Who{Client: f.client}
	switch f.as {
	case "":
		return who, fail(bw.Usage, "--as is missing").do("say who asks: --as ana@example.com, or --as anonymous")
	case "anonymous":
		return who, nil
	}
	address, err := acl.ParseAddress(f.as, f.domain)
	if err != nil {
		return who, fail(bw.Usage, "--as: %w", err).do("an address is name@domain; --domain gives bare names one")
	}
	who.Principal = address
	return who, nil
}

// parseRange reads FROM/TO. A zone's name has slashes too, so the one that
// separates is the first with an instant on either side.
func parseRange(s string, now time.Time) (from, to time.Time, err error) {
	for i := range len(s) {
		if s[i] != '/' {
			continue
		}
		a, err1 := acl.ParseInstant(s[:i], now)
		b, err2 := acl.ParseInstant(s[i+1:], now)
		if err1 != nil || err2 != nil {
			err = errors.Join(err1, err2)
			continue
		}
		if !a.Before(b) {
			return from, to, fail(bw.Usage, "--sweep: FROM is not before TO")
		}
		return a, b, nil
	}
	const todo = "write FROM/TO, such as 2026-03-01T00:00:00Z/2026-04-01T00:00:00Z"
	if strings.Count(s, "/") == 1 && err != nil {
		return from, to, fail(bw.Usage, "--sweep: %w", err).do(todo)
	}
	return from, to, fail(bw.Usage, "--sweep: %q is not two instants with a slash between", s).do(todo)
}

// readAtMost returns the first n bytes of a file.
func readAtMost(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// A fileReader returns the first n bytes of a file: readAtMost or readRegular.
type fileReader func(name string, n int64) ([]byte, error)

// readRegular is readAtMost for a file that is read again while the node serves: a pipe
// has nobody at its other end any more, and opening one would take for ever.
func readRegular(name string, n int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, fmt.Errorf("%s is no regular file: what is read while the node serves has to be one", name))
	}
	return io.ReadAll(io.LimitReader(f, n))
}

func addOutput(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "json, or text for people when empty")
}

func checkOutput(output string) error {
	if output != "" && output != "json" && output != "table" {
		return fail(bw.Usage, "--output %q is not known here", output).do("use -o json, or none")
	}
	return nil
}

// exactArgs wants n arguments, and says which.
func exactArgs(n int, which string) cobra.PositionalArgs { return someArgs(n, n, which) }

// someArgs wants from least to most arguments, and says which.
func someArgs(least, most int, which string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if least <= len(args) && len(args) <= most {
			return nil
		}
		return fail(bw.Usage, "%s takes %s; got %s", cmd.CommandPath(), which, plural(len(args), "argument")).
			do("see %s --help", cmd.CommandPath())
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
