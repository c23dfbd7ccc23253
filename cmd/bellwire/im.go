package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
)

func imCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "im",
		Short: "Send messages to people, and read your own",
		Args:  noArgs,
	}
	cmd.AddCommand(imSendCommand(), imTailCommand())
	return cmd
}

type imSend struct {
	client      clientFlags
	subject, id string
	receipt     bool
}

func imSendCommand() *cobra.Command {
	var f imSend
	cmd := &cobra.Command{
		Use:   "send ADDRESS TEXT...",
		Short: "Send a message to somebody's inbox",
		Long: `Ends with 0 when the server has stored the message, and prints its id; what
becomes of it after that is a report with that id (im tail). Who may write to
ADDRESS, its owner's policy for im says: without one, whom they have written to
themselves.`,
		Example: `  bellwire im send -u ana@example.com bo@example.com "Lunch at noon?"`,
		Args:    someArgs(2, 1000, "an address and a text"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.StringVar(&f.subject, "subject", "", "a `line` above the text")
	flags.StringVar(&f.id, "message-id", "", "the message's `id`: one that was sent before is not delivered again (default: the server makes one)")
	flags.BoolVar(&f.receipt, "receipt", false, "ask to be told when it is delivered")
	f.client.connectFlags(flags)
	return cmd
}

func (f *imSend) run(cmd *cobra.Command, args []string) error {
	to, err := f.client.addressOf(args[0])
	if err != nil {
		return err
	}
	doc := map[string]any{"type": "text/plain", "body": strings.Join(args[1:], " "), "date": time.Now().UTC().Format(time.RFC3339)}
	if f.subject != "" {
		doc["subject"] = map[string]string{"en": f.subject}
	}
	if f.id != "" {
		doc["id"] = f.id
	}
	if f.receipt {
		doc["wants"] = []string{"delivered"}
	}
	answer, err := f.client.sendAnswered(cmd, &publication{
		topic: kind.Resource{Kind: "im", Addr: to}.Topic(), payload: mustJSON(doc), contentType: im.TypeJSON,
	})
	if err != nil {
		return err
	}
	for _, p := range answer {
		if p.Key == "evt-id" {
			return writeLine(cmd.OutOrStdout(), []byte(safe(p.Value)))
		}
	}
	return nil
}

func imTailCommand() *cobra.Command {
	var f watchFlags
	var device string
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print the messages that come to your inbox, and reports",
		Long: `Prints what comes while this runs, until it is interrupted. With --device it
prints first what came while that device was away: from its first tail on a
device that has a name gets each message once.`,
		Example: `  bellwire im tail -u bo@example.com --device laptop`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			me, err := f.sub.client.self()
			if err != nil {
				return err
			}
			if device != "" {
				f.sub.client.id, f.sub.client.persistent = deviceID(me, device), true
			}
			inbox := kind.Resource{Kind: "im", Addr: me}.Topic()
			err = f.watch(cmd, []string{inbox, inbox + "/" + kind.Reports}, messageLine)
			if f, ok := err.(*fault); ok && device != "" && strings.Contains(f.what, "in use by another principal") {
				f.what = fmt.Sprintf("device %q cannot be yours: its client id %s is in use by another principal", device, deviceID(me, device))
				f.todo = "call the device something else (--device), or have an operator end that session"
			}
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&device, "device", "", "`name` of this device, such as laptop")
	return cmd
}

// deviceID is the client id of somebody's device: nobody else has that address, so
// whoever has it means to.
func deviceID(me kind.Addr, device string) string { return me.String() + "/" + device }

// messageLine prints a message as its sender and text, and a report as what
// became of which message.
func messageLine(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
	var d struct {
		ID, From, Body, Recipient, Disposition, Reason string
		ISeq                                           uint64
		Subject                                        map[string]string
	}
	if err := json.Unmarshal(m.Payload, &d); err != nil {
		return fmt.Errorf("%s: no message: %w", m.Topic, err)
	}
	b.WriteString(at.Format(time.TimeOnly) + "  ")
	if d.Disposition != "" {
		fmt.Fprintf(b, "message %s to %s: %s", d.ID, strings.TrimPrefix(d.Recipient, "im:"), d.Disposition)
		if d.Reason != "" {
			b.WriteString(" (" + d.Reason + ")")
		}
		return nil
	}
	fmt.Fprintf(b, "%-24s  %d  ", strings.TrimPrefix(d.From, "im:"), d.ISeq)
	for _, subject := range d.Subject {
		b.WriteString(subject + ": ")
	}
	b.WriteString(d.Body)
	return nil
}
