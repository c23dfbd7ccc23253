package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/presence"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say who may watch you, when, and what they see",
		Long: `A policy is a JSON document for each kind (presence, location, im), after RFC 4745
and RFC 5025. Without one the kind's default holds: nobody sees anything, and only
whom you have written to can write to you.`,
		Args: noArgs,
	}
	cmd.AddCommand(policyGetCommand(), policySetCommand(), policyPreviewCommand())
	return cmd
}

// policyKinds are the kinds that policies can be checked for without a server.
func policyKinds() map[string]policy.For {
	return map[string]policy.For{"presence": presence.New(nil), "location": location.New(nil), "im": im.New()}
}

func policyFor(name string) (policy.For, error) {
	k := policyKinds()[name]
	if k == nil {
		return nil, usage("%q is no kind: presence, location or im", name)
	}
	return k, nil
}

func policyGetCommand() *cobra.Command {
	var c clientFlags
	var asXML bool
	cmd := &cobra.Command{
		Use:     "get KIND",
		Short:   "Print your policy",
		Example: `  bellwire policy get presence -u ana@example.com > ana.json`,
		Args:    exactArgs(1, "a kind: presence, location or im"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := policyFor(args[0]); err != nil {
				return err
			}
			document, err := c.present(cmd, "$me/policy/"+args[0], "your policy for "+args[0]+" is not told")
			if err != nil {
				return err
			}
			if len(document) == 0 {
				return fail(bw.NotSet, "no policy for %s is set: the default holds, and %s", args[0], byDefault(args[0])).
					do("set one: bellwire policy set %s FILE", args[0])
			}
			if asXML {
				return c.writeXML(cmd, args[0], document)
			}
			return writeLine(cmd.OutOrStdout(), safeJSON(bytes.TrimSpace(document)))
		},
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.BoolVar(&asXML, "xml", false, "as a ruleset of RFC 4745 and RFC 5025, with warnings of what that cannot say")
	flags.SortFlags = false
	c.connectFlags(flags)
	return cmd
}

// byDefault says what holds for a kind without a policy.
func byDefault(kindName string) string {
	if kindName == "im" {
		return "only whom you have written to gets through"
	}
	return "nobody sees anything"
}

func writeLine(w io.Writer, b []byte) error {
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fail(bw.File, "cannot write: %w", err)
	}
	return nil
}

// present returns what is shown of one topic now. refused says what it means if that
// is refused.
func (c *clientFlags) present(cmd *cobra.Command, topicName, refused string) (document []byte, err error) {
	to, packet, err := c.resolve(cmd.Flags())
	if err != nil {
		return nil, err
	}
	got := make(chan []byte, 1)
	conn, err := connect(cmd.Context(), to, packet, state.NewInMemory(), func(p paho.PublishReceived) (bool, error) {
		select {
		case got <- p.Packet.Payload:
		default: // a change since: the first will do
		}
		return true, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	defer conn.close(cmd.Context(), &paho.Disconnect{})
	answer, err := conn.Subscribe(cmd.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topicName, QoS: 1}}})
	if answer == nil {
		return nil, noAnswer(conn, "SUBSCRIBE", err)
	}
	if code := answer.Reasons[0]; code >= 0x80 {
		return nil, refusal(refused, code, answer.Properties.ReasonString)
	}
	select {
	case document = <-got:
		return document, nil
	case lost := <-conn.lost:
		return nil, lost
	case <-time.After(c.timeout):
		return nil, fail(bw.NoAnswer, "nothing came within %s", c.timeout)
	case <-cmd.Context().Done():
		return nil, cmd.Context().Err()
	}
}

func policySetCommand() *cobra.Command {
	var c clientFlags
	cmd := &cobra.Command{
		Use:   "set KIND FILE",
		Short: "Put a policy in force; what watchers see changes at once",
		Long: `Checks FILE (- for standard input) and puts it in force for KIND. With a file
that is empty your policy is removed, and the default holds. FILE may be a ruleset of
RFC 4745 and RFC 5025 (application/auth-policy+xml).`,
		Example: `  bellwire policy set presence ana.json -u ana@example.com`,
		Args:    exactArgs(2, "a kind and a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			owner, err := c.self()
			if err != nil {
				return err
			}
			document, err := readAll(args[1], cmd.InOrStdin())
			if err != nil {
				return err
			}
			file := calledFile(args[1])
			if isXML(document) {
				if document, err = fromXML(cmd.ErrOrStderr(), file, document); err != nil {
					return err
				}
			}
			if len(strings.TrimSpace(string(document))) == 0 {
				document = nil
			} else if p, err := parseOwnPolicy(args[0], file, document, owner); err != nil {
				return err
			} else if err := tellWarnings(cmd.ErrOrStderr(), file, p); err != nil {
				return err
			}
			return c.send(cmd, &publication{topic: "$me/policy/" + args[0], payload: document, contentType: "application/evt-policy+json"})
		},
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	c.connectFlags(flags)
	return cmd
}

// parseOwnPolicy checks a policy and tells all its faults.
func parseOwnPolicy(kindName, file string, document []byte, owner kind.Addr) (*policy.Policy, error) {
	k, err := policyFor(kindName)
	if err != nil {
		return nil, err
	}
	p, err := policy.Check(document, k, owner)
	if err == nil {
		return p, nil
	}
	refused, ok := errors.AsType[*kind.Refusal](err)
	if !ok {
		return nil, fail(bw.OwnPolicy, "%s: %w", file, err)
	}
	return nil, refusedFile(file, refused)
}

// refusedFile is the error that tells all faults of a document.
func refusedFile(file string, refused *kind.Refusal) error {
	f := fail(bw.OwnPolicy, "%s has %s", file, plural(len(refused.Faults), "fault"))
	var lines []string
	for _, fault := range refused.Faults {
		lines = append(lines, file+": "+pointed(fault))
	}
	f.detail = strings.Join(lines, "\n")
	return f
}

// pointed is a fault as a terminal may show it: where it is and what is wrong.
func pointed(f jsontree.Fault) string {
	if f.Pointer == "" {
		return safe(f.What)
	}
	return safe(f.Pointer + ": " + f.What)
}

// tellWarnings prints what the policy in a file says without effect.
func tellWarnings(w io.Writer, file string, p *policy.Policy) error {
	for _, f := range p.Warnings() {
		if _, err := fmt.Fprintf(w, "warning: %s: %s\n", file, pointed(f)); err != nil {
			return fail(bw.File, "cannot write: %w", err)
		}
	}
	return nil
}

type policyPreview struct {
	as, watcher, at, sphere string
	http                    httpFlags
}

func policyPreviewCommand() *cobra.Command {
	var f policyPreview
	cmd := &cobra.Command{
		Use:   "preview KIND [FILE] --watcher ADDRESS",
		Short: "Say what a watcher would see, and why",
		Long: `With FILE no server is asked: it is said what the policy in it shows. Without, the
server says which document the watcher would be sent, by the policy that is in force
and by what you have published now.`,
		Example: `  bellwire policy preview presence --watcher bo@example.com --at 2026-11-28T20:00:00+01:00 -u ana@example.com
  bellwire policy preview presence ana.json --as ana@example.com --watcher bo@example.com --at 2026-11-23T20:00:00+01:00`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return exactArgs(2, "a kind and a file")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if f.sphere != "" {
					return usage("--sphere is for a FILE: the server knows what your presence says")
				}
				return f.ask(cmd.Context(), cmd.OutOrStdout(), args[0])
			}
			return f.run(cmd, args[0], args[1])
		},
	}
	f.http.register(cmd)
	f.http.who = "give -u and -P: whose policy it is, to whom alone it is told"
	cmd.PersistentFlags().Lookup("username").Usage = "your `name`, of whom the policy is, for a server"
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.StringVar(&f.as, "as", "", "whose policy it is: an `address`")
	flags.StringVar(&f.watcher, "watcher", "", "who watches: an `address`; empty for somebody without an identity")
	flags.StringVar(&f.at, "at", "", "`instant`, such as 2026-11-23T20:00:00+01:00 (default: now)")
	flags.StringVar(&f.sphere, "sphere", "", "what the owner's presence says about where they are in life, such as `work`")
	return cmd
}

func (f *policyPreview) run(cmd *cobra.Command, kindName, file string) error {
	if f.as == "" {
		return fail(bw.Usage, "it is not said whose policy it is").do("add --as NAME@DOMAIN")
	}
	owner, err := kind.ParseAddr(f.as)
	if err != nil {
		return fail(bw.Usage, "--as %q: %w", f.as, err).do("add --as NAME@DOMAIN: whose policy it is")
	}
	var watcher kind.Addr
	if f.watcher != "" {
		if watcher, err = kind.ParseAddr(f.watcher); err != nil {
			return usage("--watcher %q: %w", f.watcher, err)
		}
	}
	at := time.Now()
	if f.at != "" {
		if at, err = acl.ParseInstant(f.at, at); err != nil {
			return usage("--at: %w", err)
		}
	}
	document, err := readAll(file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	file = calledFile(file)
	p, err := parseOwnPolicy(kindName, file, document, owner)
	if err != nil {
		return err
	}
	if err := tellWarnings(cmd.ErrOrStderr(), file, p); err != nil {
		return err
	}
	in := policy.Input{Sphere: f.sphere, Auth: policy.AuthOf(watcher)}
	if isInbox(kindName) {
		in.Op = policy.OpPublish
	}
	return tellPreview(cmd.OutOrStdout(), p, kindName, owner, watcher, at, in)
}

// tellPreview prints a decision and what made it.
func tellPreview(w io.Writer, p *policy.Policy, kindName string, owner, watcher kind.Addr, at time.Time, in policy.Input) error {
	e := p.Explain(watcher, at, in)
	who := watcher.String()
	if watcher.IsZero() {
		who = "somebody without an identity"
	}
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(safe(fmt.Sprintf(format, args...)) + "\n") }
	line("%s, VIEW %s   %s   for %s", strings.ToUpper(e.Handling.String()), strings.ToUpper(e.View.String()),
		kind.Resource{Kind: kindName, Addr: owner}.Topic(), who)
	line("  because %s", e.Because)
	if e.View == policy.ViewFiltered {
		k, err := policyFor(kindName)
		if err != nil {
			return err
		}
		line("  shows %s", e.Grant.Append(nil, k.Permissions()))
	}
	if !e.Until.IsZero() {
		line("  until %s", e.Until.In(at.Location()).Format(time.RFC3339))
	}
	for _, r := range e.Rules {
		line("  rule %-20s %s", r.ID, holds(r.Holds, r.Conditions))
	}
	for _, l := range e.Limits {
		line("  limit %-19s %s", l.ID, map[bool]string{true: "cuts", false: "does not cut"}[l.Cuts])
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fail(bw.File, "cannot write: %w", err)
	}
	return nil
}

// holds says whether a rule's conditions hold, or which do not.
func holds(all bool, conditions []policy.ConditionReport) string {
	if all {
		return "holds"
	}
	var missing []string
	for _, c := range conditions {
		if !c.Holds {
			missing = append(missing, strings.TrimSpace(c.Name+" "+c.Text))
		}
	}
	return "does not hold: " + strings.Join(missing, "; ")
}
