package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// delayedEvents are a server's as HTTP shows them.
type delayedEvents struct{ s *server }

var _ api.Delayed = delayedEvents{}

// delayedListed is how many events one answer has.
const delayedListed = 1000

// List implements api.Delayed.
func (d delayedEvents) List(_ context.Context, principal, after string) (api.DelayedPage, error) {
	page := api.DelayedPage{Events: []api.DelayedEvent{}}
	var last broker.Delayed
	err := d.s.broker.DelayedEvents(principal, after, func(e broker.Delayed) bool {
		if len(page.Events) == delayedListed {
			page.After = d.s.broker.AfterDelayed(principal, last)
			return false
		}
		page.Events, last = append(page.Events, shownDelayed(e)), e
		return true
	})
	if errors.Is(err, broker.ErrTopicName) {
		err = fmt.Errorf("%w: %w", api.ErrBadName, err)
	}
	return page, err
}

// Remove implements api.Delayed.
func (d delayedEvents) Remove(ctx context.Context, principal, name string) (api.DelayedEvent, error) {
	e, err := d.s.broker.Undelay(ctx, principal, name)
	if errors.Is(err, broker.ErrNoDelayed) {
		return api.DelayedEvent{}, fmt.Errorf("%w under that id: it was published, or taken back, or is not yours", api.ErrNoDelayed)
	}
	return shownDelayed(e), orderFault(err)
}

func shownDelayed(e broker.Delayed) api.DelayedEvent {
	return api.DelayedEvent{
		ID: e.Name, Topic: e.Topic, At: time.Unix(0, e.Due).UTC(), User: e.Principal, Client: e.Client, QoS: e.QoS, Retain: e.Retain, Size: e.Size,
	}
}

// delayedCommand is `bellwire delayed`.
func delayedCommand() *cobra.Command {
	var server httpFlags
	server.who = "events are their publisher's; operators see those of all"
	var all bool
	var output string
	cmd := &cobra.Command{
		Use:   "delayed",
		Short: "Events that wait for their time",
		Long: `Lists and takes back events that were published to $delayed/SECONDS/TOPIC and wait
for their time: your own, and with --all, for operators, everybody's.`,
	}
	query := func(q url.Values) string {
		if all {
			q.Set("all", "")
		}
		return "?" + q.Encode()
	}
	ls := &cobra.Command{
		Use:     "ls",
		Short:   "What waits",
		Example: "  bellwire delayed ls -u ana@example.com\n  bellwire delayed ls --all -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			page := api.DelayedPage{Events: []api.DelayedEvent{}}
			for after := ""; ; after = page.After {
				q := url.Values{}
				if after != "" {
					q.Set("after", after)
				}
				next := api.DelayedPage{}
				if err := c.call(cmd.Context(), http.MethodGet, "/v1/delayed"+query(q), nil, &next); err != nil {
					return err
				}
				page.Events = append(page.Events, next.Events...)
				if page.After = next.After; page.After == "" {
					break
				}
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), page.Events)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range page.Events {
				who := e.User
				if who == "" {
					who = "client " + e.Client
				}
				fmt.Fprintf(w, "%s\t%s\t%s\tQoS %d\t%d bytes\t%s\n", e.ID, e.At.Format(time.RFC3339), safe(who), e.QoS, e.Size, safe(e.Topic))
			}
			return w.Flush()
		},
	}
	addOutput(ls, &output)
	rm := &cobra.Command{
		Use:     "rm ID...",
		Short:   "Take back what waits, by the ids that ls tells",
		Example: "  bellwire delayed rm -u ana@example.com 5p0u3e9ksf1q1k0b6m4d2r9s",
		Args:    someArgs(1, 1000, "the ids that bellwire delayed ls tells"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := server.client()
			if err != nil {
				return err
			}
			for _, id := range args {
				var e api.DelayedEvent
				if err := c.call(cmd.Context(), http.MethodDelete, "/v1/delayed/"+url.PathEscape(id)+query(url.Values{}), nil, &e); err != nil {
					return err
				}
				if err := writeLine(cmd.OutOrStdout(), []byte(safe("taken back: "+e.Topic+", of "+e.At.Format(time.RFC3339)))); err != nil {
					return err
				}
			}
			return nil
		},
	}
	server.register(cmd)
	cmd.PersistentFlags().BoolVar(&all, "all", false, "everybody's, for operators")
	cmd.AddCommand(ls, rm)
	return cmd
}
