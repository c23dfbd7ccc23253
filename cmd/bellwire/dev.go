package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/disk"
)

// devFlags are the flags of dev.
type devFlags struct {
	port    int
	domain  string
	demo    bool
	runFor  time.Duration
	verbose bool
	nodes   int
	tls     bool
	member  devMember // of a process that runs one of several nodes
}

func devCommand() *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a broker to try things out: in memory, on this machine only",
		Long: `Runs the same broker as serve, on a file system in memory: what it holds is
lost when it ends. It listens on the loopback only and lets everybody in. A
user name without more is that principal: -u bob is bob@example.com.

--demo adds life: this machine publishes its load and network rates once a
second, ana and bo publish how and where they are, and others with different
permissions watch, or may not. What each was shown, and what was withheld from
whom by which rule, is printed. --for counts from when all are connected. With
4s or more the demo has the whole shift of its night worker, on a slow machine
somewhat later.

--nodes 3 runs a cluster: three processes of this program, which can be killed
one by one. They end with this one, and so does what they hold.

--tls makes an authority and a certificate for this machine, in a directory that
goes with the process, and prints what to give to clients.

On a terminal it prints what to paste next and a line for each event. Without
one it prints a line of JSON with the address, as serve does.`,
		Example: `  bellwire dev
  bellwire dev --demo --for 5s
  bellwire dev --port 0
  bellwire dev --tls
  bellwire dev --nodes 3`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.nodes != 1 && f.tls {
				return usage("--tls is for one node")
			}
			if f.nodes != 1 {
				return f.runNodes(cmd.Context(), cmd.Flags().Changed("port"), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return f.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.IntVarP(&f.port, "port", "p", 1883, "`port` for MQTT on 127.0.0.1; 0 takes a free one")
	flags.StringVar(&f.domain, "domain", "example.com", "`domain` of bare user names")
	flags.BoolVar(&f.demo, "demo", false, "add a publisher and subscribers, and show what reaches whom")
	flags.DurationVar(&f.runFor, "for", 0, "end after this `time`, with exit code 0; 0: when interrupted")
	flags.BoolVar(&f.tls, "tls", false, "also take clients by TLS, on port 8883, and serve the API by HTTPS, on port 8443, with an authority made for the time it runs")
	flags.IntVar(&f.nodes, "nodes", 1, "run a cluster of so many `nodes`, each a process")
	f.member.register(flags)
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log what the broker does, too")
	return cmd
}

func (f devFlags) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if f.port < 0 || f.port > 65535 {
		return usage("--port %d is not between 0 and 65535", f.port)
	}
	if f.runFor < 0 {
		return usage("--for %s: want a time to come", f.runFor)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	feed := newFeed(stdout)
	defer feed.end("")
	people := isTerminal(stdout)

	c := f.config(stderr)
	var show *demo
	switch {
	case f.demo:
		var err error
		if show, err = newDemo(feed, f.domain, f.runFor); err != nil {
			return err
		}
		c.policy, c.policyName, c.trust, c.tap = show.firstPolicy(), "the demo's policy", trustBareNames, show
	case people:
		c.tap = feed
	}
	if f.tls {
		remove, err := makeDevTLS(&c, f.port)
		if err != nil {
			return err
		}
		defer remove()
	}
	var goOn <-chan struct{}
	if f.member.name != "" {
		goOn = follow(stdin, stop)
		defer f.member.cleanUp()
		if err := f.member.configure(&c); err != nil {
			return err
		}
	}
	s, err := startServer(ctx, c)
	if errors.Is(err, syscall.EADDRINUSE) && !f.tls { // or it is told which port it is
		return portTaken(f.port)
	}
	if err != nil {
		return startFault(err, serveFlags{})
	}
	if err := f.greet(feed, stderr, people, s); err != nil {
		return errors.Join(err, s.shutdown())
	}
	if goOn != nil {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
	}
	err = f.live(ctx, s, show)
	return errors.Join(err, s.shutdown())
}

// config is that of serve with another file system and open doors.
func (f devFlags) config(stderr io.Writer) serverConfig {
	logger := newLogger(stderr, f.verbose)
	if f.member.name != "" {
		logger = logger.With("at", f.member.name)
	}
	if !f.verbose {
		logger = slog.New(warnings{logger.Handler()})
	}
	return serverConfig{
		sysInterval: sysInterval,
		node:        "dev", domain: f.domain, fs: disk.Memory(), dir: "/bellwire",
		mqtt:           net.JoinHostPort("127.0.0.1", strconv.Itoa(f.port)),
		allowAnonymous: true, trust: trustNames, policy: acl.Open(), policyName: "dev", logger: logger, die: exitAtOnce,
	}
}

// live waits for the end: of the time, of the demo, of patience.
func (f devFlags) live(ctx context.Context, s *server, show *demo) error {
	if show != nil {
		return show.run(ctx, s)
	}
	if f.runFor > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.runFor)
		defer cancel()
	}
	select {
	case err := <-s.failed:
		return err
	case <-s.node.Removed():
		return s.takenOut()
	case <-s.links.Contested():
		return s.contested(s.links.Contest())
	case <-ctx.Done():
		return nil // it was asked to end
	}
}

// greet says where it is and, to people, what to do with it; how to get in by TLS also
// where a program reads the line, since without the authority nobody does.
func (f devFlags) greet(feed *feed, stderr io.Writer, people bool, s *server) error {
	addr := s.mqttListener.Addr().String()
	if !people {
		ready := s.readyLine()
		ready.CAFile = s.devAuthority()
		line, err := json.Marshal(ready)
		feed.print(string(line))
		fmt.Fprint(stderr, s.devTLS())
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	at := ""
	if port != "1883" {
		at = " -p " + port
	}
	more := ""
	if f.demo {
		more = fmt.Sprintf("    bellwire sub%[1]s -v -u night -t 'hosts/+/load'    as somebody who may, at times\n"+
			"    bellwire presence watch%[1]s -u zoe@%[2]s ana@%[2]s    as somebody who is shown nothing; -u bo@%[2]s is\n", at, f.domain)
	}
	feed.print(fmt.Sprintf("bellwire %s dev · in memory · loopback only · anonymous allowed · domain %s · data is lost at exit\n\n  MQTT     mqtt://%s\n%s\n"+
		"  try, in another terminal\n    bellwire sub%s -v -t 'home/#'\n    mosquitto_pub%s -t home/kitchen/temp -m 21.5    any MQTT client works\n%s",
		version, f.domain, addr, s.devTLS(), at, at, more))
	return err
}

// warnings passes on what somebody should look at: the rest would hide what a
// newcomer came to see.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// Handle leaves out what nodes say of each other: that one which joins lacks the
// log, that one has gone. Of several, whoever started them tells that.
func (w warnings) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "raft: ") || strings.HasPrefix(r.Message, "cluster: ") {
		return nil
	}
	return w.Handler.Handle(ctx, r)
}
func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(name string) slog.Handler   { return warnings{w.Handler.WithGroup(name)} }

// portTaken says who has the port, as far as the system tells.
func portTaken(port int) error {
	who := "by another process"
	if p, ok := portHolder(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))); ok {
		who = "by " + p
	}
	return fail(bw.AddressInUse, "port %d on 127.0.0.1 is taken %s", port, who).
		do("end it, or take another port: bellwire dev --port %d, or --port 0 for any", port%65535+1)
}
