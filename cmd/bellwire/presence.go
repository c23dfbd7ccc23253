package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/nearest"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
)

func presenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "presence",
		Short: "Say whether you can be reached, and see who can",
		Args:  noArgs,
	}
	cmd.AddCommand(presenceSetCommand(), presenceWatchCommand(), presenceListCommand())
	return cmd
}

type presenceSet struct {
	client              clientFlags
	note, until, source string
	hold                bool
}

func presenceSetCommand() *cobra.Command {
	var f presenceSet
	cmd := &cobra.Command{
		Use:   "set [ADDRESS] STATUS",
		Short: "Publish a status: available, busy, away, …, or offline",
		Long: `Publishes the status of ADDRESS, by default your own. available is open;
offline removes what this source has published; any other word is open with that
activity, such as away, busy, meeting or on-the-phone. Of a word that is almost one
of RFC 4480 it is told, and it is published as written.

It holds until --until, an hour by default. With --hold it holds while this
command runs, and is removed when it ends or its connection is lost.`,
		Example: `  bellwire presence set -u ana@example.com busy --note "call until 13:00" --until 13:00
  bellwire presence set -u thermo-17@example.com -P "$TOKEN" available --hold`,
		Args: someArgs(1, 2, "a status, and before it whose it is if not yours"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.StringVar(&f.note, "note", "", "a `text` that goes with it")
	flags.StringVar(&f.until, "until", "", "how long it holds: `90m`, 13:00 or 2026-03-09T13:00:00Z (default: an hour)")
	flags.StringVar(&f.source, "source", "cli", "`name` of the device that says so")
	flags.BoolVar(&f.hold, "hold", false, "let it hold while this command runs")
	f.client.connectFlags(flags)
	return cmd
}

func (f *presenceSet) run(cmd *cobra.Command, args []string) error {
	of, err := f.owner(args)
	if err != nil {
		return err
	}
	status := args[len(args)-1]
	if err := kind.CheckSource(f.source); err != nil {
		return usage("--source: %w", err)
	}
	topic := kind.Topic{Resource: kind.Resource{Kind: "presence", Addr: of}, Source: f.source}
	p := &publication{topic: topic.Name(), contentType: presence.TypeJSON, user: map[string]string{"evt-bind": "none"}}
	if status == "offline" {
		p.contentType = ""
		return f.client.send(cmd, p)
	}
	if err := checkStatus(cmd.ErrOrStderr(), status); err != nil {
		return err
	}
	p.payload = statusDocument(status, f.note, time.Now())
	if f.until != "" {
		if f.hold {
			return usage("--hold and --until exclude each other: it holds while the command runs")
		}
		if p.user["evt-expires"], err = secondsUntil("--until", f.until, time.Now()); err != nil {
			return err
		}
	}
	if f.hold {
		p.user["evt-bind"] = "connection"
		return f.client.hold(cmd, p, func() {
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s while this runs\n", of, status)
		})
	}
	return f.client.send(cmd, p)
}

// statuses are the words with a meaning of their own.
var statuses = []string{"available", "offline"}

// activities are those of RFC 4480 section 3.2. Others are possible, and shown as they are.
var activities = []string{
	"appointment", "away", "breakfast", "busy", "dinner", "holiday", "in-transit", "looking-for-work", "lunch", "meal", "meeting", "on-the-phone", "other",
	"performance", "permanent-absence", "playing", "presentation", "shopping", "sleeping", "spectator", "steering", "travel", "tv", "unknown", "vacation",
	"working", "worship",
}

// checkStatus refuses what was probably meant to be one of statuses, which would say the
// contrary, and warns of what was probably meant to be another activity.
func checkStatus(w io.Writer, status string) error {
	if slices.Contains(statuses, status) || slices.Contains(activities, status) {
		return nil
	}
	if near := nearest.Name(status, append(slices.Clone(statuses), activities...)); slices.Contains(statuses, near) {
		return usage("%q would be shown as an activity of somebody who is there: did you mean %q?", status, near)
	} else if near != "" {
		if _, err := fmt.Fprintf(w, "warning: %s is shown as it is written: did you mean %s?\n", safe(status), near); err != nil {
			return fail(bw.File, "cannot write: %w", err)
		}
	}
	return nil
}

func (f *presenceSet) owner(args []string) (kind.Addr, error) {
	if len(args) == 2 {
		return f.client.addressOf(args[0])
	}
	return f.client.self()
}

// statusDocument is what a status word stands for, said at an instant: of several
// devices the one that spoke last comes first. The zero time is none.
func statusDocument(status, note string, at time.Time) []byte {
	doc := map[string]any{"basic": "open"}
	if status != "available" {
		person := map[string]any{"id": "me", "activities": []string{status}}
		if !at.IsZero() {
			person["timestamp"] = at.UTC().Format("2006-01-02T15:04:05.000Z")
		}
		doc["persons"] = []any{person}
	}
	if note != "" {
		doc["notes"] = map[string]string{"en": note}
	}
	return mustJSON(doc)
}

func presenceWatchCommand() *cobra.Command {
	return watchCommand("presence", "Print the presence of somebody, now and at each change", presenceLine)
}

// topicsOf returns the topics of a kind about the addresses that args name.
func topicsOf(of string, c *clientFlags, args []string) ([]string, error) {
	var topics []string
	for _, arg := range args {
		a, err := c.addressOf(arg)
		if err != nil {
			return nil, err
		}
		topics = append(topics, kind.Resource{Kind: of, Addr: a}.Topic())
	}
	return topics, nil
}

// A shownPresence is the part of a presence document that fits on a line.
type shownPresence struct {
	Basic   string
	Tuples  []struct{ Basic string }
	Persons []struct { // newest first, as composed
		Activities shownWords
		Note       shownNotes
	}
	Notes shownNotes // of all sources, newest first
}

// shownWords are words, which may be wrapped with when they hold.
type shownWords []string

func (w *shownWords) UnmarshalJSON(b []byte) error {
	if !bytes.HasPrefix(b, []byte("{")) {
		return json.Unmarshal(b, (*[]string)(w))
	}
	var timed struct{ Is []string }
	err := json.Unmarshal(b, &timed)
	*w = timed.Is
	return err
}

// shownNotes are the texts of a note in the language whose name sorts first: one
// string, or by language one or, of several sources, a list.
type shownNotes []string

func (n *shownNotes) UnmarshalJSON(b []byte) error {
	if !bytes.HasPrefix(b, []byte("{")) {
		return n.take(b)
	}
	var languages map[string]json.RawMessage
	if err := json.Unmarshal(b, &languages); err != nil || len(languages) == 0 {
		return err
	}
	return n.take(languages[slices.Min(slices.Collect(maps.Keys(languages)))])
}

// take reads one text, or a list of them.
func (n *shownNotes) take(b []byte) error {
	if bytes.HasPrefix(b, []byte("[")) {
		return json.Unmarshal(b, (*[]string)(n))
	}
	var text string
	err := json.Unmarshal(b, &text)
	*n = shownNotes{text}
	return err
}

// status is the word that presence set would take; where sources differ the
// words of each, newest first; and on how many devices, if there are several.
func (p *shownPresence) status() string {
	var words []string
	for _, person := range p.Persons {
		for _, word := range person.Activities {
			if !slices.Contains(words, word) {
				words = append(words, word)
			}
		}
	}
	text := strings.Join(words, ", ")
	if text == "" {
		text = p.availability()
	}
	if n := len(p.Tuples); n > 1 {
		text += fmt.Sprintf(" (%d devices)", n)
	}
	return text
}

// availability is the word for what a document says of nobody's activities.
func (p *shownPresence) availability() string {
	basic := p.Basic
	if basic == "" && len(p.Tuples) > 0 { // as it is published
		basic = p.Tuples[0].Basic
	}
	switch basic {
	case "open":
		return "available"
	case "":
		return "unknown"
	}
	return "offline"
}

// note is the newest note; empty if there is none.
func (p *shownPresence) note() string {
	for _, person := range p.Persons {
		if len(person.Note) > 0 {
			return person.Note[0]
		}
	}
	if len(p.Notes) > 0 {
		return p.Notes[0]
	}
	return ""
}

func presenceLine(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
	var p shownPresence
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		return fmt.Errorf("%s: no presence document: %w", m.Topic, err)
	}
	columns(b, m, at)
	fmt.Fprintf(b, "%-12s", p.status())
	if note := p.note(); note != "" {
		fmt.Fprintf(b, "  %q", note)
	}
	return nil
}

func presenceListCommand() *cobra.Command {
	var c clientFlags
	cmd := &cobra.Command{
		Use:     "ls [DOMAIN]",
		Aliases: []string{"list"},
		Short:   "List whose presence you may see",
		Example: `  bellwire presence ls -u bo@example.com
  bellwire presence ls example.com -u bo@example.com`,
		Args: someArgs(0, 1, "a domain, or nothing"),
		RunE: func(cmd *cobra.Command, args []string) error {
			domain := "+"
			if len(args) == 1 {
				domain = args[0]
			}
			return listPresence(cmd, &c, domain)
		},
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	c.connectFlags(flags)
	return cmd
}

func listPresence(cmd *cobra.Command, c *clientFlags, domain string) error {
	type row struct{ who, status, note string }
	var rows []row
	err := c.everything(cmd, "presence/"+domain+"/+", "presence", func(m *paho.Publish) {
		var p shownPresence
		t, err := kind.ParseTopic(m.Topic)
		if err != nil || json.Unmarshal(m.Payload, &p) != nil {
			return
		}
		rows = append(rows, row{t.Addr.String(), p.status(), p.note()})
	})
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.who, b.who) })
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tSTATUS\tNOTE")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", safe(r.who), safe(r.status), safe(r.note))
	}
	return w.Flush()
}
