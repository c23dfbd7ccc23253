package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
)

func watchersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watchers",
		Short: "See who watches you, and decide who may",
		Args:  noArgs,
	}
	cmd.AddCommand(watchersListCommand(),
		decisionCommand(&ownerDecision{verb: "approve", done: "approved"}),
		decisionCommand(&ownerDecision{verb: "deny", done: "denied"}),
		decisionCommand(&ownerDecision{verb: "withdraw", done: "withdrawn"}),
		decisionCommand(&ownerDecision{verb: "revoke", done: "revoked"}))
	return cmd
}

// watchedKind returns the kind that an argument names, presence if there is none.
func watchedKind(args []string) (string, error) {
	name := "presence"
	if len(args) > 0 {
		name = args[0]
	}
	if _, known := policyKinds()[name]; !known || name == "im" {
		return "", usage("%q is no kind that is watched: presence or location", name)
	}
	return name, nil
}

// A watchersList is the document of $me/watchers, as far as it is shown here.
type watchersList struct {
	Watchers json.RawMessage
	Total    int
	More     bool
}

// A watcherRow is what an owner is shown of one watcher.
type watcherRow struct {
	ID, URI, Status, Event, Visibility, Style, Since, Note string
	Expires                                                *int64 // in so many seconds
}

func watchersListCommand() *cobra.Command {
	var c clientFlags
	var output string
	cmd := &cobra.Command{
		Use:     "ls [KIND]",
		Aliases: []string{"list"},
		Short:   "List who watches you, and who asks to",
		Long: `Lists who watches your presence, or KIND, as far as they show themselves: the one
of whom something has changed last comes first, and who is gone stays for a day.`,
		Example: `  bellwire watchers ls -u ana@example.com
  bellwire watchers ls location -o json -u ana@example.com`,
		Args: someArgs(0, 1, "a kind (presence or location), or nothing"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			return listWatchers(cmd, &c, args, output)
		},
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	addOutput(cmd, &output)
	c.connectFlags(flags)
	return cmd
}

func listWatchers(cmd *cobra.Command, c *clientFlags, args []string, output string) error {
	of, err := watchedKind(args)
	if err != nil {
		return err
	}
	document, err := c.present(cmd, "$me/watchers/"+of, "who watches your "+of+" is not told")
	if err != nil {
		return err
	}
	var l watchersList
	var rows []watcherRow
	if err = json.Unmarshal(document, &l); err == nil {
		err = json.Unmarshal(l.Watchers, &rows)
	}
	if err != nil {
		return fail(bw.NoAnswer, "the server's list of watchers cannot be read: %w", err)
	}
	if l.More {
		fmt.Fprintf(cmd.ErrOrStderr(), "bellwire: the newest %d are listed, and %d watch or ask\n", len(rows), l.Total)
	}
	if output == "json" {
		return writeLine(cmd.OutOrStdout(), safeJSON(bytes.TrimSpace(l.Watchers)))
	}
	now := time.Now()
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tSTATUS\tSINCE\tEXPIRES\tID\tNOTE")
	for i := range rows {
		r := &rows[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", safe(r.who()), safe(r.state()), safe(r.since(now)), r.expires(), safe(r.ID), safe(r.Note))
	}
	if err := w.Flush(); err != nil {
		return fail(bw.File, "cannot write: %w", err)
	}
	return nil
}

// who is the watcher's address, a name of theirs for this owner alone, or that they
// are anonymous: then nobody can be named.
func (r *watcherRow) who() string {
	if r.Visibility == "anonymous" {
		return r.Visibility
	}
	a, err := kind.ParseAddr(r.URI)
	if err != nil {
		return r.URI
	}
	return a.String()
}

// state is where in its life the subscription is, and what it is not plain without:
// how its watcher is put off, or why it is over.
func (r *watcherRow) state() string {
	why := r.Style
	if why == "" && (r.Status == "terminated" || r.Event == "fetch") {
		why = r.Event
	}
	if why == "" {
		return r.Status
	}
	return r.Status + " (" + why + ")"
}

// since is when it was asked for, to the second; -o json has it as the server tells it.
func (r *watcherRow) since(now time.Time) string {
	at, err := time.Parse(time.RFC3339Nano, r.Since)
	switch {
	case r.Since == "":
		return "-" // the watcher does not let it be seen
	case err != nil:
		return r.Since
	}
	return clock(at, now)
}

func (r *watcherRow) expires() string {
	if r.Expires == nil {
		return "-"
	}
	return (time.Duration(*r.Expires) * time.Second).String()
}

// An ownerDecision is what an owner decides about a watcher.
type ownerDecision struct {
	client            clientFlags
	verb, done        string
	sid, style, until string
	show              string
	silent            bool
	output            string

	ends time.Time // what until says; zero: never
}

func decisionCommand(f *ownerDecision) *cobra.Command {
	cmd := &cobra.Command{
		Use:  f.verb + " ADDRESS [KIND]",
		Args: func(cmd *cobra.Command, args []string) error { return f.args()(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	switch f.verb {
	case "approve":
		cmd.Short = "Let somebody see what you publish"
		cmd.Long = `Puts a rule into your policy that shows ADDRESS your presence, or KIND, also if they
have not asked yet: everything, and for good, unless --show and --until say less. A
second decision about them takes the place of the first.

What --show names, with commas, is shown, and nothing else. There is

` + showable("presence") + "\n" + showable("location") + `

A list such as services is shown whole, or services=im. It may be JSON, too, as in
a policy. What another rule shows them they see all the same.`
		cmd.Example = `  bellwire watchers approve bo@example.com -u ana@example.com
  bellwire watchers approve bo@example.com --show services,persons,activities -u ana@example.com
  bellwire watchers approve bo@example.com location --show radius=1000,civic=city --until 18:00 -u ana@example.com`
		flags.StringVar(&f.show, "show", "", "`what` they are shown, such as services,note or radius=1000 (default: everything)")
		flags.BoolVar(&f.silent, "silent", false, "they are not told so until there is something to see")
		flags.StringVar(&f.until, "until", "", "how long it holds: `90m`, 13:00 or 2026-03-09T13:00:00Z (default: for good)")
	case "deny":
		cmd.Short = "Let somebody see nothing"
		cmd.Long = `Puts a rule into your policy that shows ADDRESS nothing of your presence, or KIND.
It decides alone, whatever other rules say of them; withdraw takes it back. A second
decision about them takes the place of the first.`
		cmd.Example = `  bellwire watchers deny eve@example.com --style polite -u ana@example.com`
		flags.StringVar(&f.style, "style", "refuse", "`how`: refuse, they are told; polite, they see somebody who is away; ignore, as if you had not decided")
		flags.StringVar(&f.until, "until", "", "how long it holds: `90m`, 13:00 or 2026-03-09T13:00:00Z (default: for good)")
	case "withdraw":
		cmd.Short = "Take back what you approved or denied"
		cmd.Long = `Takes the rule about ADDRESS out of your policy that approve or deny has put there:
what the other rules say of them holds again.`
		cmd.Example = `  bellwire watchers withdraw eve@example.com -u ana@example.com`
	case "revoke":
		cmd.Short = "End a subscription to what you publish"
		cmd.Long = `Ends the subscription of ADDRESS to your presence, or KIND. Your policy stays as it
is: they may subscribe again, with --until not before then. Of what they watch by
wildcards your part is ended: until they subscribe again they see you as if you were away.`
		cmd.Example = `  bellwire watchers revoke bo@example.com --until 90m -u ana@example.com
  bellwire watchers revoke --sid s-4fq2m6zkcw3hxq5a -u ana@example.com`
		flags.StringVar(&f.until, "until", "", "when they may again: `90m`, 13:00 or 2026-03-09T13:00:00Z (default: at once)")
	}
	flags.StringVar(&f.sid, "sid", "", "`id` of a subscription, of watchers ls, in place of ADDRESS")
	addOutput(cmd, &f.output)
	f.client.connectFlags(flags)
	return cmd
}

// args are those that there must be.
func (f *ownerDecision) args() cobra.PositionalArgs {
	if f.sid != "" {
		return someArgs(0, 1, "with --sid a kind (presence or location), or nothing")
	}
	return someArgs(1, 2, "an address, and after it a kind if that is not presence")
}

// clocksDiffer is how much earlier than now what holds from now on begins: the server's
// clock may be behind this one.
const clocksDiffer = time.Hour

func (f *ownerDecision) run(cmd *cobra.Command, args []string) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	request, who := map[string]any{}, f.sid
	if f.sid != "" {
		request["sid"] = f.sid
	} else {
		a, err := f.client.addressOf(args[0])
		if err != nil {
			return err
		}
		who, args = a.String(), args[1:]
		request["watcher"] = who
	}
	of, err := watchedKind(args)
	if err != nil {
		return err
	}
	request["kind"] = of
	if f.show != "" {
		show, err := readShow("--show", of, f.show)
		if err != nil {
			return err
		}
		request["show"], f.show = show, string(show)
	}
	if err := f.terms(request, time.Now()); err != nil {
		return err
	}
	reply, err := f.client.control(cmd, f.verb, mustJSON(request))
	if err != nil {
		return err
	}
	var is struct {
		Rule    string
		Matched int
	}
	if err := json.Unmarshal(reply, &is); err != nil {
		return fail(bw.NoAnswer, "the server's answer cannot be read: %w", err)
	}
	if f.verb == "revoke" && is.Matched == 0 {
		return fail(bw.NotSet, "%s has no subscription to your %s", who, of).
			do("see who has: bellwire watchers ls %s; to let nobody of that address in: bellwire watchers deny", of)
	}
	if f.output == "json" {
		return writeLine(cmd.OutOrStdout(), safeJSON(reply))
	}
	line := fmt.Sprintf("%s: %s, %s, %s", f.done, who, of, plural(is.Matched, "subscription"))
	switch {
	case f.verb == "withdraw":
		line += ", rule " + is.Rule + " of your policy is gone"
	case is.Rule != "":
		line += ", by rule " + is.Rule + " of your policy"
	}
	return writeLine(cmd.OutOrStdout(), []byte(safe(line+f.says(time.Now()))))
}

// says is what holds from now on, and until when.
func (f *ownerDecision) says(now time.Time) string {
	until := "for good"
	if !f.ends.IsZero() {
		until = "until " + clock(f.ends, now)
	}
	switch {
	case f.verb == "approve" && f.show == "":
		return ", " + until + ": everything is shown (less: --show)"
	case f.verb == "approve":
		return ", " + until + ": shown is " + f.show
	case f.verb == "deny":
		return ", " + until
	case f.verb == "withdraw":
		return ": what the others say holds again"
	case !f.ends.IsZero():
		return ", and may not be asked for again " + until
	}
	return ", and may be asked for again"
}

// terms adds to a request what is decided, beside whom it is about.
func (f *ownerDecision) terms(request map[string]any, now time.Time) error {
	switch f.style {
	case "":
	case "refuse", "polite", "ignore":
		request["style"] = f.style
	default:
		return usage("--style %q: want refuse, polite or ignore", f.style)
	}
	if f.silent {
		request["silent"] = true
	}
	if f.until == "" {
		return nil
	}
	text, err := secondsUntil("--until", f.until, now)
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(text)
	if err != nil {
		return usage("--until %q: %w", f.until, err)
	}
	f.ends = now.Add(time.Duration(seconds) * time.Second).Round(time.Second)
	until := f.ends.UTC().Format(time.RFC3339)
	if f.verb == "revoke" {
		request["until"] = until
		return nil
	}
	from := now.Add(-clocksDiffer).UTC().Format(time.RFC3339)
	request["if"] = map[string]any{"validity": []map[string]string{{"from": from, "until": until}}}
	return nil
}

// ownResponse is where answers to requests come, to who asks.
const ownResponse = "$me/rsp"

// control asks for something as an owner, and returns the answer.
func (c *clientFlags) control(cmd *cobra.Command, verb string, request []byte) ([]byte, error) {
	if _, err := c.self(); err != nil {
		return nil, err
	}
	to, packet, err := c.resolve(cmd.Flags())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	const question = "1" // the only one of this connection
	got := make(chan []byte, 1)
	conn, err := connect(ctx, to, packet, state.NewInMemory(), func(p paho.PublishReceived) (bool, error) {
		if p.Packet.Topic == ownResponse && string(p.Packet.Properties.CorrelationData) == question {
			select {
			case got <- bytes.Clone(p.Packet.Payload):
			default: // one answer is all that is waited for
			}
		}
		return true, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	defer conn.close(ctx, &paho.Disconnect{})
	answer, err := conn.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: ownResponse, QoS: 1}}})
	if answer == nil {
		return nil, noAnswer(conn, "SUBSCRIBE", err)
	}
	if code := answer.Reasons[0]; code >= 0x80 {
		return nil, refusal("subscribe to "+ownResponse+" refused", code, answer.Properties.ReasonString)
	}
	done, err := conn.Publish(ctx, &paho.Publish{
		Topic: "$ctl/" + verb, QoS: 1, Payload: request,
		Properties: &paho.PublishProperties{ContentType: "application/json", ResponseTopic: ownResponse, CorrelationData: []byte(question)},
	})
	switch {
	case done == nil:
		return nil, noAnswer(conn, "the request", err)
	case done.ReasonCode >= 0x80:
		return nil, refusal("cannot "+verb, done.ReasonCode, done.Properties.ReasonString)
	}
	select {
	case reply := <-got:
		return reply, nil
	case lost := <-conn.lost:
		return nil, lost
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, fail(bw.NoAnswer, "the server took the request, and did not answer within %s", c.timeout)
		}
		return nil, ctx.Err()
	}
}

// askFlags are how a watcher asks, as User Properties of SUBSCRIBE.
type askFlags struct{ expires, visibility, note string }

func (f *askFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.expires, "expires", "", "watch for so long and end: `10m`, 13:00 or 2026-03-09T13:00:00Z; 0: what is shown now, once")
	flags.StringVar(&f.visibility, "visibility", "", "how you show yourself to who is watched: anonymous, pseudonymous, identified, or `several` with commas (default: identified)")
	flags.StringVar(&f.note, "note", "", "a `text` that they are shown with your request")
}

// apply has a watch ask so. ended is when it is over by itself, zero for never.
func (f *askFlags) apply(w *watchFlags, topics int, now time.Time) (ended time.Time, err error) {
	var user []packets.User
	add := func(name, value string) {
		if value != "" {
			user = append(user, packets.User{Key: name, Value: value})
		}
	}
	switch f.expires {
	case "":
	case "0":
		add("evt-expires", "0")
		w.sub.count = cmp.Or(w.sub.count, topics)
		w.sub.wait = cmp.Or(w.sub.wait, max(1, int(w.sub.client.timeout.Seconds()))) // of who is undecided nothing comes
	default:
		seconds, err := secondsUntil("--expires", f.expires, now)
		if err != nil {
			return ended, err
		}
		add("evt-expires", seconds)
		n, err := strconv.Atoi(seconds)
		if err != nil {
			return ended, usage("--expires %q: %w", f.expires, err)
		}
		ended = now.Add(time.Duration(n) * time.Second)
	}
	add("evt-visibility", f.visibility)
	add("evt-note", f.note)
	if user != nil {
		w.sub.client.props.set["subscribe"] = &packets.Properties{User: user}
	}
	return ended, nil
}

// watchCommand is the verb that watches a kind.
func watchCommand(of, short string, line formatter) *cobra.Command {
	var f watchFlags
	var ask askFlags
	cmd := &cobra.Command{
		Use:   "watch ADDRESS...",
		Short: short,
		Long: short + `.

Whom you ask for it decides: how it stands with the subscription, that it is not decided
yet, until when it is granted, or why it is over, is told on standard error, as far as
the server tells you. When nothing more can come of any ADDRESS the watch is over.

Exit code 0: its time is over, that of --expires or what was granted. 4: it was refused,
or has been ended. 6: nobody has decided in time, or -W is over.`,
		Example: fmt.Sprintf(`  bellwire %[1]s watch -u bo@example.com ana@example.com
  bellwire %[1]s watch -u bo@example.com ana@example.com --expires 10m --note "Bo, of the third floor"`, of),
		Args: someArgs(1, 100, "the addresses to watch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			topics, err := topicsOf(of, &f.sub.client, args)
			if err != nil {
				return err
			}
			ended, err := ask.apply(&f, len(topics), time.Now())
			if err != nil {
				return err
			}
			f.tells = ask.expires != "0" // what is shown once is no subscription
			if ask.expires == "0" {
				return nothingCame(f.watch(cmd, topics, line))
			}
			if ended.IsZero() {
				return f.watch(cmd, topics, line)
			}
			ctx, cancel := context.WithDeadline(cmd.Context(), ended)
			defer cancel()
			cmd.SetContext(ctx)
			if err = f.watch(cmd, topics, line); errors.Is(err, context.DeadlineExceeded) {
				return nil // it has lasted as long as was asked for
			}
			return err
		},
	}
	f.register(cmd)
	ask.register(cmd.Flags())
	return cmd
}

// nothingCame says what it may mean that what was to be shown once was not shown.
func nothingCame(err error) error {
	if f, ok := errors.AsType[*fault](err); ok && f.code == bw.TimedOut {
		f.todo = "of who has not decided yet nothing is shown: watch without --expires 0 to ask them, and to be told how it stands"
	}
	return err
}

// showable lists what --show may name of a kind, as lines of a help text.
func showable(of string) string {
	var b strings.Builder
	line := fmt.Sprintf("  %-10s", of)
	for _, word := range strings.Split(permissionNames(policyKinds()[of].Permissions()), " ") {
		if len(line)+len(word) > 80 {
			b.WriteString(line + "\n")
			line = strings.Repeat(" ", 12)
		}
		line += " " + word
	}
	return b.String() + line
}
