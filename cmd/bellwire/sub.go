package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/bw"
)

// subFlags are sub's own flags.
type subFlags struct {
	client            clientFlags
	topics            []string
	unsubscribe       []string
	filterOut         []string
	count             int
	wait              int // seconds; 0: for ever
	exitSubscribed    bool
	format            string
	pretty            bool
	output            string
	verbose           bool
	noNewline         bool
	noRetained        bool
	retainedOnly      bool
	removeRetained    bool
	retainAsPublished bool
	randomFilter      float64 // percent of messages to print

	// standing has the state of the subscriptions to topics subscribed to with them, by
	// the verbs that watch; nil: it is not.
	standing *standing
}

func subCommand() *cobra.Command {
	var f subFlags
	cmd := &cobra.Command{
		Use:   "sub -t TOPIC...",
		Short: "Subscribe and print what arrives",
		Long: `Subscribes and prints messages until it is interrupted, or as -C, -E, -W or
--retained-only say. The flags are those of mosquitto_sub.

When the output is not read, nothing more is read from the server either, and
nothing piles up in between. A connection that breaks is opened again.

Formats (-F): %t topic, %p payload, %x %X payload in hex, %l its length,
%q QoS, %r retained, %m packet id, %P user properties, %C content type,
%R response topic, %D correlation data, %E expiry, %F format indicator,
%S subscription identifier, %j JSON, %J JSON with the payload as JSON,
%I time, %U Unix time, @X strftime's %X, @N nanoseconds, \n \t \e \0.`,
		Example: `  bellwire sub -v -t 'home/#'
  bellwire sub -t home/kitchen/temp -C 1 -W 5
  bellwire sub -t 'home/+/temp' -o jsonl | jq .json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.StringArrayVarP(&f.topics, "topic", "t", nil, "topic `filter` to subscribe to; may be repeated")
	flags.StringArrayVarP(&f.unsubscribe, "unsubscribe", "U", nil, "topic `filter` to unsubscribe from; may be repeated")
	flags.StringArrayVarP(&f.filterOut, "filter-out", "T", nil, "do not print topics that match this `filter`; may be repeated")
	flags.IntVarP(&f.count, "count", "C", 0, "end after so many `messages`")
	flags.IntVarP(&f.wait, "wait", "W", 0, "end after so many `seconds`, with exit code 6")
	flags.BoolVarP(&f.exitSubscribed, "exit-subscribed", "E", false, "end as soon as the server has answered all subscriptions")
	flags.StringVarP(&f.format, "format", "F", "", "print each message in this `format`")
	flags.BoolVar(&f.pretty, "pretty", false, "with %j and %J: over several lines")
	flags.StringVarP(&f.output, "output", "o", "", "`jsonl`: a JSON object on a line for each message, whatever its payload")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print the topic before the payload")
	flags.BoolVarP(&f.noNewline, "no-newline", "N", false, "no end of line after a message")
	flags.BoolVarP(&f.noRetained, "no-retained", "R", false, "do not print retained messages")
	flags.BoolVar(&f.retainedOnly, "retained-only", false, "print retained messages only, and end at the first other one")
	flags.BoolVar(&f.removeRetained, "remove-retained", false, "clear each retained message that arrives, on the server")
	flags.BoolVar(&f.retainAsPublished, "retain-as-published", false, "show the retain flag as it was published")
	flags.Float64Var(&f.randomFilter, "random-filter", 100, "print only so many `percent` of the messages, by chance")
	f.client.register(flags, subProperties())
	return cmd
}

func (f *subFlags) run(cmd *cobra.Command) error {
	to, packet, err := f.client.resolve(cmd.Flags())
	if err != nil {
		return err
	}
	if f.client.urlTopic != "" {
		f.topics = append(f.topics, f.client.urlTopic)
	}
	if err := f.check(cmd.Flags()); err != nil {
		return err
	}
	format, err := f.formatter()
	if err != nil {
		return err
	}
	s := &subscriber{
		flags: f, target: to, packet: packet, format: format,
		out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), now: time.Now,
		done: make(chan error, 1),
	}
	if f.client.quiet {
		s.notes = io.Discard
	}
	return f.client.quietly(s.run(cmd.Context()))
}

func (f *subFlags) check(flags *pflag.FlagSet) error {
	if len(f.topics) == 0 && len(f.unsubscribe) == 0 {
		return fail(bw.Usage, "no topic to subscribe to").do("add -t FILTER")
	}
	for name, filters := range map[string][]string{"-t": f.topics, "-U": f.unsubscribe, "-T": f.filterOut} {
		for _, filter := range filters {
			if err := topic.ValidFilter(filter); err != nil {
				return fail(bw.Usage, "%s %q is no topic filter: %w", name, filter, err).
					do("+ stands for one whole level, # for all that follow")
			}
		}
	}
	switch {
	case flags.Changed("count") && f.count < 1:
		return usage("-C %d: want at least 1", f.count)
	case flags.Changed("wait") && f.wait < 1:
		return usage("-W %d: want at least 1", f.wait)
	case f.noRetained && f.retainedOnly:
		return usage("-R and --retained-only together leave nothing to print")
	case f.randomFilter < 0.1 || f.randomFilter > 100:
		return usage("--random-filter %g: want 0.1 to 100", f.randomFilter)
	case f.output != "" && f.output != "jsonl":
		return usage("--output %q: want jsonl", f.output)
	case f.output != "" && (f.format != "" || f.verbose):
		return usage("--output goes without -F and -v")
	}
	return nil
}

func (f *subFlags) formatter() (formatter, error) {
	switch {
	case f.output == "jsonl":
		return jsonLine, nil
	case f.format != "":
		format, err := parseFormat(f.format, f.pretty)
		if err != nil {
			return nil, fail(bw.Usage, "-F %q: %w", f.format, err)
		}
		return format, nil
	}
	return plainFormat(f.verbose), nil
}

// prints says whether a message is one to print.
func (f *subFlags) prints(m *paho.Publish) bool {
	if m.Retain && f.noRetained {
		return false
	}
	return f.randomFilter == 100 || rand.Float64()*100 < f.randomFilter
}

func (f *subFlags) filteredOut(name string) bool {
	for _, filter := range f.filterOut {
		if topic.Match(filter, name) {
			return true
		}
	}
	return false
}

// A subscriptionCount is how many of the topics the server granted and refused.
type subscriptionCount struct{ granted, refused int }

// subscribe sends one SUBSCRIBE with all filters, as mosquitto_sub does, and
// one UNSUBSCRIBE after it.
func (f *subFlags) subscribe(ctx context.Context, c *client, notes io.Writer) (subscriptionCount, error) {
	ctx, cancel := context.WithTimeout(ctx, f.client.timeout)
	defer cancel()
	var n subscriptionCount
	if len(f.topics) > 0 {
		request := &paho.Subscribe{}
		request.InitProperties(f.client.props.of("subscribe"))
		filters := f.topics
		if f.standing != nil {
			filters = slices.Concat(filters, f.standing.filters(f.topics))
		}
		for _, filter := range filters {
			request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{
				Topic: filter, QoS: byte(f.client.qos), RetainAsPublished: f.retainAsPublished,
			})
		}
		answer, err := c.Subscribe(ctx, request)
		if answer == nil {
			return n, noAnswer(c, "SUBSCRIBE", err)
		}
		if n, err = f.tellRefused(answer, notes); err != nil {
			return n, err
		}
	}
	if len(f.unsubscribe) > 0 {
		request := &paho.Unsubscribe{Topics: f.unsubscribe}
		request.Properties = &paho.UnsubscribeProperties{User: paho.UserPropertiesFromPacketUser(f.client.props.of("unsubscribe").User)}
		if answer, err := c.Unsubscribe(ctx, request); answer == nil {
			return n, noAnswer(c, "UNSUBSCRIBE", err)
		}
	}
	return n, nil
}

// tellRefused notes the filters that the server refused. If it refused all of
// them there is nothing to wait for, and that is the error.
func (f *subFlags) tellRefused(answer *paho.Suback, notes io.Writer) (subscriptionCount, error) {
	var n subscriptionCount
	var faults []*fault
	for i, code := range answer.Reasons[:min(len(answer.Reasons), len(f.topics))] {
		if f.standing != nil {
			f.standing.answered(f.topics[i], code < 0x80)
		}
		if code < 0x80 {
			n.granted++
			continue
		}
		faults = append(faults, refusal("subscribe to "+f.topics[i]+" refused", code, answer.Properties.ReasonString))
	}
	n.refused = len(faults)
	if n.granted == 0 && n.refused == 1 {
		return n, faults[0]
	}
	for _, fault := range faults {
		fmt.Fprintf(notes, "bellwire: %s     %s\n", fault.what, fault.code)
	}
	if n.granted == 0 {
		return n, &fault{code: faults[0].code, what: fmt.Sprintf("all %d subscriptions were refused", n.refused), todo: faults[0].todo}
	}
	return n, nil
}

// noAnswer explains why a request was not answered.
func noAnswer(c *client, what string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fail(bw.NoAnswer, "no answer to %s", what)
	}
	select {
	case lost := <-c.lost:
		return lost
	case <-time.After(time.Second): // paho tells the end from a goroutine of its own
		return fail(bw.Lost, "%s: %w", what, err)
	}
}
