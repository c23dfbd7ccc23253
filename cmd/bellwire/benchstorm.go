package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Load on a server, and what it makes of it",
	}
	cmd.AddCommand(benchStormCommand())
	return cmd
}

// mostStorm bounds --clients: a machine has no more ports to come from.
const mostStorm = 60_000

// stormFlags are those of bench storm.
type stormFlags struct {
	clientFlags
	storm
	clients                 int
	secure, self            bool
	tokens, signer, subject string
	issuer, audience        string
	output                  string
}

func benchStormCommand() *cobra.Command {
	var f stormFlags
	cmd := &cobra.Command{
		Use:   "storm",
		Short: "Many clients lose their connections at once, and come back",
		Long: `Connects --clients clients of MQTT 5, breaks their connections all at once, and has
them come back as clients do: each after a pause at random, up to --first, and when it
is turned away up to twice as long each time, up to --most. Says how many handshakes
the server did in a second, when clients were back, and what became of their tries.

Who the clients are: --tokens names a file with one in each line, USER TOKEN or a signed
TOKEN alone; or --key a signing key (bellwire token key), and each client has a token of
its own, of --subject with its number for %d; or --username and --pw, in which %d is its
number, too. --self starts a server of this program with such a key for the time of the
storm: its CPU time is told then.

Exit code 4: somebody was refused who should be let in; if nobody is let in, and 20 were
refused, or each, it ends at once. 6: not all were in after --settle.`,
		Example: `  bellwire bench storm --self --clients 10000 --tls
  bellwire bench storm -h broker.example.com --clients 500 --key signing-key.json --issuer plant --audience bellwire
  bellwire bench storm -L mqtts://10.0.0.7 --cafile ca.crt --tokens tokens.txt --clients 2000 -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.Flags(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.register(cmd.Flags())
	addOutput(cmd, &f.output)
	return cmd
}

func (f *stormFlags) register(flags *pflag.FlagSet) {
	flags.StringVarP(&f.host, "host", "h", "localhost", "`host` to connect to")
	flags.IntVarP(&f.port, "port", "p", 0, "`port` to connect to (default 1883, with TLS 8883)")
	flags.StringVarP(&f.url, "url", "L", "", "host and port at once: mqtt(s)://host[:port]")
	flags.StringVar(&f.caFile, "cafile", "", "TLS: `file` of PEM certificates to trust")
	flags.BoolVar(&f.insecure, "insecure", false, "TLS: do not check the server's name; for tests only")
	flags.BoolVar(&f.secure, "tls", false, "connect by TLS")
	flags.BoolVar(&f.resume, "tls-resume", false, "clients resume their TLS sessions, as those do that keep their tickets")
	flags.BoolVar(&f.self, "self", false, "start a server for it")
	flags.IntVar(&f.clients, "clients", 1000, "how many")
	flags.StringVarP(&f.idPrefix, "id-prefix", "I", "storm-", "client ids are this `prefix` and a number")
	flags.Uint32VarP(&f.keep, "session-expiry-interval", "x", 0, "`seconds` to keep sessions, which clients are to find again; 0: they end with their connections")
	flags.StringVar(&f.tokens, "tokens", "", "`file` of a client in each line: USER TOKEN, or a signed TOKEN")
	flags.StringVar(&f.signer, "key", "", "`file` of the signing key to make tokens with")
	flags.StringVar(&f.issuer, "issuer", "", "of --key: who issues them, issuer in the policy")
	flags.StringVar(&f.audience, "audience", "", "of --key: whom they are for, one of audience in the policy")
	flags.StringVar(&f.subject, "subject", "storm-%d", "of --key: whom they are of")
	flags.StringVarP(&f.username, "username", "u", "", "user `name` of each client")
	flags.StringVarP(&f.password, "pw", "P", "", "`password` or token of each client")
	flags.IntVar(&f.atOnce, "at-once", 256, "how many connect at once before the storm")
	flags.DurationVar(&f.first, "first", time.Second, "pause before the first try to come back, at most")
	flags.DurationVar(&f.most, "most", 30*time.Second, "pause before any other, at most")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a client waits for its connection and CONNACK")
	flags.DurationVar(&f.settle, "settle", 5*time.Minute, "how long it may take until all are in")
}

// check refuses flags that make no sense together.
func (f *stormFlags) check() error {
	var wrong faults
	wrong.add(checkOutput(f.output))
	if f.clients < 1 || f.clients > mostStorm {
		wrong.add(usage("--clients %d is not between 1 and %d", f.clients, mostStorm))
	}
	if f.atOnce < 1 {
		wrong.add(usage("--at-once %d is not 1 or more", f.atOnce))
	}
	for name, d := range map[string]time.Duration{"first": f.first, "most": f.most, "timeout": f.timeout, "settle": f.settle} {
		if d <= 0 {
			wrong.add(usage("--%s %v is not above zero", name, d))
		}
	}
	ways := 0
	for _, given := range []bool{f.tokens != "", f.signer != "", f.username != "" || f.password != "", f.self} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		wrong.add(usage("--tokens, --key, --username and --self exclude each other"))
	}
	if f.signer != "" && (f.issuer == "" || f.audience == "") {
		wrong.add(fail(bw.Usage, "--key needs --issuer and --audience").do("name them as the policy does"))
	}
	return wrong.err()
}

func (f *stormFlags) run(ctx context.Context, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := raiseFiles(f.clients); err != nil {
		return err
	}
	if f.self {
		end, err := f.serveSelf(ctx, stderr)
		if err != nil {
			return err
		}
		defer end()
	}
	if f.url != "" {
		var err error
		if f.secure, err = f.takeURL(flags); err != nil {
			return err
		}
	}
	conf, err := f.tls(f.secure)
	if err != nil {
		return err
	}
	f.to = f.target(conf)
	if f.ids, err = f.who(); err != nil {
		return err
	}
	figures, err := f.storm.run(ctx)
	if err != nil && !errors.Is(err, errUnsettled) {
		return err
	}
	if said := f.say(stdout, &figures); said != nil {
		return said
	}
	return f.verdict(&figures, err)
}

// verdict is the fault that figures are, if they are one.
func (f *stormFlags) verdict(s *stormFigures, unsettled error) error {
	refused, failed := total(s.Connect.Refused)+total(s.Storm.Refused), total(s.Connect.Failed)+total(s.Storm.Failed)
	switch {
	case refused > 0:
		return fail(bw.BadCredentials, "%s of clients that should be let in", plural(refused, "refusal")).do("see the reason codes above, and the server's log")
	case unsettled != nil:
		in := s.Storm.In
		if s.Connect.In < f.clients {
			in = s.Connect.In
		}
		return fail(bw.TimedOut, "after %v %d of %d clients were in", f.settle, in, f.clients).do("give --settle more time, or see what became of their tries, above")
	case failed > 0:
		return fail(bw.Environment, "%s that this machine could not make", plural(failed, "connection")).do("see why above: it may lack ports or memory for so many --clients")
	}
	return nil
}

// who returns who the clients are.
func (f *stormFlags) who() ([]stormID, error) {
	ids := make([]stormID, f.clients)
	var lines [][]string
	var key []byte
	var err error
	switch {
	case f.tokens != "":
		if lines, err = readTokens(f.tokens, f.clients); err != nil {
			return nil, err
		}
	case f.signer != "":
		if key, err = readAtMost(f.signer, 64<<10); err != nil {
			return nil, fail(bw.File, "%w", err).do("make one with: bellwire token key")
		}
	}
	now := time.Now()
	for i := range ids {
		numbered := func(s string) string { return strings.ReplaceAll(s, "%d", fmt.Sprint(i)) }
		ids[i] = stormID{id: f.idPrefix + fmt.Sprint(i), user: numbered(f.username), password: numbered(f.password)}
		switch {
		case lines != nil && len(lines[i]) == 2:
			ids[i].user, ids[i].password = lines[i][0], lines[i][1]
		case lines != nil:
			ids[i].password = lines[i][0]
		case key != nil:
			claims := map[string]any{
				"iss": f.issuer, "aud": []string{f.audience}, "sub": numbered(f.subject),
				"iat": now.Unix(), "exp": now.Add(2*f.settle + time.Hour).Unix(),
			}
			if ids[i].password, err = authn.Sign(key, claims); err != nil {
				return nil, fail(bw.Usage, "--key %s: %w", f.signer, err).do("make a key with: bellwire token key")
			}
		}
	}
	return ids, nil
}

// readTokens reads the first want lines of a file.
func readTokens(name string, want int) (lines [][]string, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fail(bw.File, "--tokens: %w", err)
	}
	defer file.Close()
	in := bufio.NewScanner(file)
	for in.Scan() && len(lines) < want {
		words := strings.Fields(in.Text())
		if len(words) < 1 || len(words) > 2 {
			return nil, fail(bw.Usage, "--tokens %s: line %d has %d words", name, len(lines)+1, len(words)).do("each line is USER TOKEN, or a signed TOKEN alone")
		}
		lines = append(lines, words)
	}
	if err := in.Err(); err != nil {
		return nil, fail(bw.File, "--tokens %s: %w", name, err)
	}
	if len(lines) < want {
		return nil, fail(bw.Usage, "--tokens %s has %s, and there are %d clients", name, plural(len(lines), "line"), want).do("give fewer --clients")
	}
	return lines, nil
}

// A stormReport is what is printed as JSON.
type stormReport struct {
	At       time.Time    `json:"at"`
	Version  string       `json:"version"`
	Machine  string       `json:"machine"`
	Load     float64      `json:"load"` // of the last minute, at the end
	Server   string       `json:"server"`
	Resume   bool         `json:"tlsResume"`
	Expiry   uint32       `json:"sessionExpiry"`
	Figures  stormFigures `json:"figures"`
	SelfMade bool         `json:"self"`
}

func (f *stormFlags) say(w io.Writer, s *stormFigures) error {
	load := math.NaN()
	if host, err := readHost(os.DirFS("/proc"), os.DirFS("/sys/block"), time.Now()); err == nil {
		load = host.load
	}
	machine := fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if f.output == "json" {
		if math.IsNaN(load) {
			load = 0
		}
		return json.NewEncoder(w).Encode(stormReport{time.Now().UTC(), version, machine, load, f.to.String(), f.resume, f.keep, *s, f.self})
	}
	ways := "new TLS sessions"
	switch {
	case f.to.tls == nil:
		ways = "plain"
	case f.resume:
		ways = "TLS sessions resumed"
	}
	fmt.Fprintf(w, "%d clients, %s, %s, sessions kept for %d s\n%s, load %.1f, bellwire %s, %s\n\n",
		s.Clients, f.to, ways, f.keep, machine, load, version, time.Now().UTC().Format(time.RFC3339))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tconnecting\tstorm\t")
	for _, row := range stormRows {
		fmt.Fprintf(table, "%s\t%s\t%s\t\n", row.name, row.of(&s.Connect), row.of(&s.Storm))
	}
	return table.Flush()
}

// stormRows are those of the table.
var stormRows = []struct {
	name string
	of   func(w *wave) string
}{
	{"in", func(w *wave) string { return fmt.Sprint(w.In) }},
	{"settled after", func(w *wave) string { return w.Settled.String() }},
	{"handshakes/s", func(w *wave) string { return fmt.Sprintf("%.0f", w.PerSec) }},
	{"most in a second", func(w *wave) string { return fmt.Sprintf("%.0f", w.Peak) }},
	{"in after p50", func(w *wave) string { return w.Back.P50.String() }},
	{"p99", func(w *wave) string { return w.Back.P99.String() }},
	{"max", func(w *wave) string { return w.Back.Max.String() }},
	{"handshake p50", func(w *wave) string { return w.Attempt.P50.String() }},
	{"p99", func(w *wave) string { return w.Attempt.P99.String() }},
	{"max", func(w *wave) string { return w.Attempt.Max.String() }},
	{"server CPU each", func(w *wave) string {
		if w.CPU == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f us", w.CPU*1e6)
	}},
	{"tries", func(w *wave) string { return fmt.Sprint(w.Tries) }},
	{"failed logins", func(w *wave) string { return byReason(w.Refused) }},
	{"told to wait", func(w *wave) string { return byReason(w.Waits) }},
	{"closed", func(w *wave) string { return fmt.Sprint(w.Closed) }},
	{"timed out", func(w *wave) string { return fmt.Sprint(w.TimedOut) }},
	{"TLS failed", func(w *wave) string { return fmt.Sprint(w.BadTLS) }},
	{"failed here", func(w *wave) string { return byReason(w.Failed) }},
	{"resumed TLS", func(w *wave) string { return fmt.Sprint(w.Resumed) }},
	{"lost again", func(w *wave) string { return fmt.Sprint(w.Lost) }},
	{"sessions lost", func(w *wave) string { return fmt.Sprint(w.NoState) }},
}

func (s seconds) String() string { return fmt.Sprintf("%.3f s", float64(s)) }

// byReason is a sum, and what it is made of.
func byReason(of map[string]int) string {
	text := fmt.Sprint(total(of))
	for _, why := range slices.Sorted(maps.Keys(of)) {
		text += fmt.Sprintf(" (%d: %s)", of[why], why)
	}
	return text
}
