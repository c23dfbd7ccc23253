package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster/certs"
)

// dev --nodes N runs this program N times: each node is a process of its own, so
// that one can be killed and the others seen to go on. Each is `dev` with the flags
// of a devMember. It ends when its standard input does, which is a pipe from the
// process that started it: so none stays behind, whatever that one dies of.

// mostDevNodes bounds --nodes: more would show nothing else, and take memory.
const mostDevNodes = 7

// devMember says that a dev is one of several, and which.
type devMember struct {
	name, http, join, tls string
	demoTrust             bool
}

func (m *devMember) register(flags *pflag.FlagSet) {
	flags.StringVar(&m.name, "member", "", "")
	flags.StringVar(&m.http, "member-http", "127.0.0.1:0", "")
	flags.StringVar(&m.join, "member-join", "", "")
	flags.StringVar(&m.tls, "member-tls", "", "")
	flags.BoolVar(&m.demoTrust, "member-demo", false, "")
	for _, name := range []string{"member", "member-http", "member-join", "member-tls", "member-demo"} {
		_ = flags.MarkHidden(name) // they exist
	}
}

// configure makes c that of a member.
func (m *devMember) configure(c *serverConfig) error {
	creds, err := certs.Open(m.tls, m.name, time.Now, c.logger)
	if err != nil {
		return fail(bw.ClusterTLS, "%w", err)
	}
	c.node, c.http, c.credentials = m.name, m.http, creds
	c.cluster, c.bootstrap, c.clusterTLS = "127.0.0.1:0", m.join == "", m.tls
	if m.join != "" {
		c.join = []string{m.join}
	}
	if m.demoTrust {
		c.trust = trustBareNames
	}
	return nil
}

// follow returns a channel that is closed when the process that started this one
// says to go on, and calls stop when that one has ended.
func follow(stdin io.Reader, stop func()) <-chan struct{} {
	goOn := make(chan struct{})
	go func() {
		in := bufio.NewReader(stdin)
		if _, err := in.ReadString('\n'); err == nil {
			close(goOn)
			_, _ = io.Copy(io.Discard, in)
		}
		stop()
	}()
	return goOn
}

// cleanUp removes the member's certificate, and the directory that held those of
// all when it is the last.
func (m *devMember) cleanUp() {
	_ = os.RemoveAll(m.tls)
	_ = os.Remove(filepath.Dir(m.tls)) // not empty: another one does it
}

// devNodes are the processes of a dev --nodes.
type devNodes struct {
	f         devFlags
	authority *certs.Authority
	dir       string // holds the certificates
	stdout    io.Writer
	stderr    io.Writer
	children  []*devChild
}

// A devChild is one of them.
type devChild struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ready chan readyLine // holds what it says when it serves
	ended chan struct{}  // closed when it has ended
	err   error          // then: how

	line readyLine
}

// follow reads what the node prints: a line when it serves, then what is for stdout;
// and takes note of its end.
func (c *devChild) follow(out io.Reader, stdout io.Writer) {
	in := bufio.NewReader(out)
	text, err := in.ReadBytes('\n')
	var line readyLine
	if err == nil && json.Unmarshal(text, &line) == nil && line.Ready {
		c.ready <- line
		_, _ = io.Copy(stdout, in) // nobody is left to be told of an error
	} else {
		_, _ = io.Copy(io.Discard, in)
	}
	c.err = c.cmd.Wait()
	close(c.ended)
}

// runNodes is run for several nodes. given says that a port was asked for.
func (f devFlags) runNodes(ctx context.Context, given bool, stdout, stderr io.Writer) (err error) {
	if f.nodes < 1 || f.nodes > mostDevNodes {
		return usage("--nodes %d is not between 1 and %d", f.nodes, mostDevNodes)
	}
	if f.port != 0 && !freeOnLoopback(f.port) {
		if given {
			return portTaken(f.port)
		}
		f.port = 0
	}
	d := &devNodes{f: f, stdout: stdout, stderr: &lockedWriter{w: stderr}}
	if d.authority, err = certs.NewAuthority(time.Now(), 0); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "bellwire-dev-"); err != nil {
		return fail(bw.File, "%w", err)
	}
	defer d.end()
	for i := range f.nodes {
		if err := d.start(ctx, i); err != nil {
			return err
		}
	}
	if err := d.greet(); err != nil {
		return err
	}
	return d.live(ctx)
}

// freeOnLoopback says whether nobody listened on a port a moment ago.
func freeOnLoopback(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// start starts the node i, and returns when it serves.
func (d *devNodes) start(ctx context.Context, i int) error {
	c := &devChild{name: fmt.Sprintf("n%d", i+1), ready: make(chan readyLine, 1), ended: make(chan struct{})}
	pair, err := d.authority.Issue(c.name, nil, time.Now(), 0)
	if err != nil {
		return err
	}
	tls := filepath.Join(d.dir, c.name)
	if err := certs.SaveNode(tls, d.authority, pair, false); err != nil {
		return fail(bw.File, "%w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c.cmd = exec.Command(self, d.args(i, c.name, tls)...)
	c.cmd.Args[0] = "bellwire"
	c.cmd.Stderr = d.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fail(bw.File, "cannot start another bellwire: %w", err)
	}
	d.children = append(d.children, c)
	go c.follow(out, d.stdout)
	select {
	case c.line = <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
	}
	if exit, ok := errors.AsType[*exec.ExitError](c.err); ok && exit.ExitCode() > 0 {
		return exitCode(exit.ExitCode()) // it has said why
	}
	return fail(bw.Unclassified, "node %s did not start: %w", c.name, cmp.Or(c.err, errEndedEarly))
}

var errEndedEarly = errors.New("it ended")

// args are those of a node's command line.
func (d *devNodes) args(i int, name, tls string) []string {
	port, http := 0, 0
	if d.f.port != 0 && (i == 0 || d.f.port+i <= 65535 && freeOnLoopback(d.f.port+i)) {
		port = d.f.port + i
	}
	if d.f.port != 0 && freeOnLoopback(8080+i) {
		http = 8080 + i
	}
	args := []string{
		"dev", "--member", name, "--port", strconv.Itoa(port), "--member-http", net.JoinHostPort("127.0.0.1", strconv.Itoa(http)),
		"--member-tls", tls, "--domain", d.f.domain,
	}
	if i > 0 {
		args = append(args, "--member-join", d.children[0].line.Cluster)
	}
	if d.f.verbose {
		args = append(args, "--verbose")
	}
	if d.f.demo {
		args = append(args, "--member-demo")
		if i == 0 {
			args = append(args, "--demo", "--for", d.f.runFor.String())
		}
	}
	return args
}

// greet says where the nodes are and, to people, what to do with them.
func (d *devNodes) greet() error {
	first := d.children[0].line
	if !isTerminal(d.stdout) {
		lines := make([]readyLine, len(d.children))
		for i, c := range d.children {
			lines[i] = c.line
		}
		return json.NewEncoder(d.stdout).Encode(struct {
			readyLine
			Nodes []readyLine `json:"nodes"`
		}{first, lines})
	}
	text := fmt.Sprintf("bellwire %s dev · %d nodes · in memory · loopback only · anonymous allowed · domain %s · data is lost at exit\n\n",
		version, len(d.children), d.f.domain)
	for _, c := range d.children {
		text += fmt.Sprintf("  %s   mqtt://%-15s   http://%-15s   pid %d\n", c.name, c.line.MQTT, c.line.HTTP, c.line.PID)
	}
	port := func(i int) string {
		_, p, _ := net.SplitHostPort(d.children[i].line.MQTT)
		return p
	}
	last := len(d.children) - 1
	text += fmt.Sprintf("\n  try, in another terminal\n    bellwire cluster status --server %s\n    bellwire sub -p %s -v -t 'home/#'\n"+
		"    mosquitto_pub -p %s -q 1 -t home/kitchen/temp -m 21.5    any node, any MQTT client\n    kill -9 %d    and publish and look again, at another one\n",
		d.children[last].line.HTTP, port(last), port(min(1, last)), first.PID)
	_, err := fmt.Fprintln(d.stdout, text)
	return err
}

// live has the nodes begin, and returns at the end: of the demo, of the time, of
// patience, or of the last node.
func (d *devNodes) live(ctx context.Context) error {
	if d.f.runFor > 0 && !d.f.demo {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.f.runFor)
		defer cancel()
	}
	left := make(chan *devChild, len(d.children))
	for _, c := range d.children {
		_, _ = io.WriteString(c.stdin, "go\n") // unless it has ended, which is noticed below
		go func() {
			<-c.ended
			left <- c
		}()
	}
	for n := len(d.children) - 1; n >= 0; n-- {
		select {
		case <-ctx.Done():
			return nil // it was asked to end
		case c := <-left:
			if ctx.Err() != nil || d.f.demo && c == d.children[0] && c.err == nil {
				return nil // the demo is over
			}
			fmt.Fprintf(d.stderr, "node %s has ended: %v; %s left\n", c.name, cmp.Or(c.err, errEndedEarly), plural(n, "node"))
		}
	}
	return fail(bw.Unclassified, "all nodes have ended").do("their reasons are above")
}

// end has all nodes end, and waits for them.
func (d *devNodes) end() {
	for _, c := range d.children {
		_ = c.stdin.Close()
	}
	kill := time.AfterFunc(shutdownTime+5*time.Second, func() {
		for _, c := range d.children {
			_ = c.cmd.Process.Kill() // unless it has ended
		}
	})
	defer kill.Stop()
	for _, c := range d.children {
		<-c.ended
	}
	_ = os.RemoveAll(d.dir)
}

// A lockedWriter is written to by several.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
