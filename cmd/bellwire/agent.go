package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
)

// An agent tells how the machine is that it runs on. The machine is a
// presentity like any person: whoever may watch it sees that it is up, and that
// it is gone when its connection is lost. Its numbers are plain events.
type agent struct {
	client   clientFlags
	interval time.Duration
	prefix   string
	note     string
}

func agentCommand() *cobra.Command {
	var a agent
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Publish how this machine is: its presence and its load, memory, disk and network",
		Long: `Publishes the presence of -u, which is this machine, for as long as it runs, and
its numbers every --interval: PREFIX/load (processes, over a minute), PREFIX/memory
(percent used), PREFIX/disk and PREFIX/net (bytes a second). A connection that
breaks is opened again. It reads Linux's /proc.`,
		Example: `  bellwire agent -h broker.example.com -u web1@example.com -P "$TOKEN"
  bellwire sub -v -t 'hosts/web1/#'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd) },
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.DurationVar(&a.interval, "interval", 10*time.Second, "how `often` its numbers are published")
	flags.StringVar(&a.prefix, "prefix", "", "`topic` below which its numbers are (default: hosts/ and the name in -u)")
	flags.StringVar(&a.note, "note", "", "a `text` that goes with its presence")
	a.client.connectFlags(flags)
	return cmd
}

func (a *agent) run(cmd *cobra.Command) error {
	me, err := a.client.self()
	if err != nil {
		return err
	}
	to, packet, err := a.client.resolve(cmd.Flags())
	if err != nil {
		return err
	}
	switch {
	case a.interval < time.Second:
		return usage("--interval %s: want at least 1s", a.interval)
	case a.prefix == "":
		a.prefix = "hosts/" + levelOf(me.Local)
	}
	if err := topic.ValidName(a.prefix + "/memory"); err != nil {
		return usage("--prefix %q: %w", a.prefix, err)
	}
	if _, err := readThisHost(); err != nil {
		return err
	}
	notes := cmd.ErrOrStderr()
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		connected, err := a.report(cmd.Context(), to, packet, me, notes)
		if cmd.Context().Err() != nil {
			return nil
		}
		if f, ok := err.(*fault); !ok || !slices.Contains(worthRetrying, f.code) {
			return err
		}
		if connected {
			wait = firstRetry
		}
		fmt.Fprintf(notes, "bellwire: %v; trying again in %s\n", err, wait)
		select {
		case <-time.After(wait):
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// report lives on one connection until that or ctx ends; connected says whether
// there was one.
func (a *agent) report(ctx context.Context, to target, packet *paho.Connect, me kind.Addr, notes io.Writer) (connected bool, err error) {
	p, err := newPublisher(ctx, to, packet, 16, nil)
	if err != nil {
		return false, err
	}
	err = a.publish(ctx, p, me, notes)
	o, lost := p.finish(context.WithoutCancel(ctx), &paho.Disconnect{})
	if lost != nil && ctx.Err() == nil {
		return true, lost
	}
	if verdict := o.verdict(notes, nil); verdict != nil && ctx.Err() == nil {
		return true, verdict
	}
	return true, err
}

// publish says that the machine is up, and then how it is.
func (a *agent) publish(ctx context.Context, p *publisher, me kind.Addr, notes io.Writer) error {
	up := publication{
		topic:   kind.Topic{Resource: kind.Resource{Kind: "presence", Addr: me}, Source: "agent"}.Name(),
		payload: hostDocument(a.note), contentType: presence.TypeJSON, user: map[string]string{"evt-bind": "connection"},
	}
	if err := p.publish(ctx, up.packet()); err != nil {
		return err
	}
	fmt.Fprintf(notes, "bellwire: presence of %s is published, for whom its policy shows it, and numbers to %s/# every %s\n", me, a.prefix, a.interval)
	before, err := readThisHost()
	if err != nil {
		return err
	}
	tick := time.NewTicker(a.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.client.Done():
			return errEnded
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := readThisHost()
		if err != nil {
			return err
		}
		for _, r := range now.since(before) {
			m := &paho.Publish{Topic: a.prefix + "/" + r.name, QoS: 1, Retain: true, Payload: []byte(r.value)}
			if err := p.publish(ctx, m); err != nil {
				return err
			}
		}
		before = now
	}
}

// hostDocument is the presence of a machine that is up: one service, and that
// nobody sits behind it (RFC 5196 section 3.2.3).
func hostDocument(note string) []byte {
	doc := map[string]any{
		"tuples":   []any{map[string]any{"id": "host", "basic": "open", "serviceClass": "electronic"}},
		"automata": true,
	}
	if name, err := os.Hostname(); err == nil {
		doc["hostname"] = name
	}
	if note != "" {
		doc["notes"] = map[string]string{"en": note}
	}
	return mustJSON(doc)
}
