package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
)

func locationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "location",
		Short: "Say where you are, to those you let know",
		Args:  noArgs,
	}
	cmd.AddCommand(locationSetCommand(), locationWatchCommand())
	return cmd
}

type locationSet struct {
	client        clientFlags
	accuracy      float64
	until, source string
}

func locationSetCommand() *cobra.Command {
	var f locationSet
	cmd := &cobra.Command{
		Use:   "set LATITUDE,LONGITUDE",
		Short: "Publish where you are",
		Long: `Publishes a position in degrees (WGS 84). Who sees it, and how exactly, your
policy for location says; without one nobody does.`,
		Example: `  bellwire location set -u ana@example.com 40.4168,-3.7038 --accuracy 30`,
		Args:    exactArgs(1, "a position: latitude,longitude"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.Float64Var(&f.accuracy, "accuracy", 0, "radius in `metres` within which it is right")
	flags.StringVar(&f.until, "until", "", "how long it holds: `90m`, 13:00 or 2026-03-09T13:00:00Z (default: a quarter of an hour)")
	flags.StringVar(&f.source, "source", "cli", "`name` of the device that says so")
	f.client.connectFlags(flags)
	return cmd
}

// positionLast moves a position south of the equator behind a "--": pflag takes
// it for flags.
func positionLast(cmd *cobra.Command, args []string) []string {
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		if southern.MatchString(args[i]) {
			return slices.Concat(args[:i], args[i+1:], []string{"--", args[i]})
		}
		if takesNext(cmd, args[i]) {
			i++
		}
	}
	return args
}

var southern = regexp.MustCompile(`^-[0-9.]+,`)

func (f *locationSet) run(cmd *cobra.Command, position string) error {
	me, err := f.client.self()
	if err != nil {
		return err
	}
	if err := kind.CheckSource(f.source); err != nil {
		return usage("--source: %w", err)
	}
	north, east, ok := strings.Cut(position, ",")
	lat, err1 := strconv.ParseFloat(strings.TrimSpace(north), 64)
	lon, err2 := strconv.ParseFloat(strings.TrimSpace(east), 64)
	if !ok || err1 != nil || err2 != nil || lat < -90 || lat > 90 || lon < -180 || lon > 180 {
		return usage("%q is no position: write latitude,longitude in degrees, such as 40.4168,-3.7038", position)
	}
	doc := map[string]any{"lat": lat, "lon": lon}
	if f.accuracy > 0 {
		doc["accuracy"] = f.accuracy
	}
	p := &publication{
		topic:   kind.Topic{Resource: kind.Resource{Kind: "location", Addr: me}, Source: f.source}.Name(),
		payload: mustJSON(doc), contentType: location.TypeJSON, user: map[string]string{"evt-bind": "none"},
	}
	if f.until != "" {
		if p.user["evt-expires"], err = secondsUntil("--until", f.until, time.Now()); err != nil {
			return err
		}
	}
	return f.client.send(cmd, p)
}

func locationWatchCommand() *cobra.Command {
	return watchCommand("location", "Print where somebody is, now and at each change", locationLine)
}

func locationLine(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
	var l struct {
		At    string
		Shape *struct {
			Type   string
			Pos    []float64
			Radius float64
		}
		Civic map[string]string
	}
	if err := json.Unmarshal(m.Payload, &l); err != nil {
		return fmt.Errorf("%s: no location document: %w", m.Topic, err)
	}
	columns(b, m, at)
	said := false
	if l.Shape != nil && len(l.Shape.Pos) >= 2 {
		fmt.Fprintf(b, "%.6f,%.6f", l.Shape.Pos[0], l.Shape.Pos[1])
		if l.Shape.Radius > 0 {
			fmt.Fprintf(b, " within %g m", l.Shape.Radius)
		}
		said = true
	} else if l.Shape != nil {
		b.WriteString(l.Shape.Type)
		said = true
	}
	for _, name := range []string{"A6", "A3", "A2", "A1", "country"} {
		if v := l.Civic[name]; v != "" {
			b.WriteString(map[bool]string{true: ", ", false: ""}[said] + v)
			said = true
		}
	}
	if !said {
		b.WriteString("unknown")
	}
	return nil
}
