package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster/certs"
)

// selfPolicy is that of a server of bench storm --self: tokens that a key of its own has
// signed, and nobody without one.
const selfPolicy = `issuers:
  - {issuer: bench, audience: [bellwire], keys: %q}
rules:
  - {id: all, allow: [publish, subscribe], who: ["*@example.com"], topic: ["#"]}
`

// serveSelf starts a server in a process of its own, on a disk, as an operator would, and
// has f go there. end ends it and removes what it had.
func (f *stormFlags) serveSelf(ctx context.Context, stderr io.Writer) (end func(), err error) {
	dir, err := os.MkdirTemp("", "bellwire-bench-")
	if err != nil {
		return nil, fail(bw.File, "%w", err).do("set TMPDIR to a directory that can be written")
	}
	args, err := f.prepareSelf(dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	child, err := startSelf(ctx, args, stderr)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	end = func() {
		_ = child.cmd.Process.Kill() // nothing that it has is kept
		<-child.ended
		_ = os.RemoveAll(dir)
	}
	at := child.line.MQTT
	if f.secure {
		at = child.line.MQTTS
	}
	host, port, _ := net.SplitHostPort(at)
	f.host = host
	f.port, _ = strconv.Atoi(port)
	f.cpu = func() time.Duration { return processCPU(child.cmd.Process.Pid) }
	return end, nil
}

// prepareSelf writes into dir what the server reads, and returns its command line.
func (f *stormFlags) prepareSelf(dir string) ([]string, error) {
	private, set, err := authn.NewSigningKey()
	if err != nil {
		return nil, err
	}
	keys := filepath.Join(dir, keySetFile)
	f.signer, f.issuer, f.audience = filepath.Join(dir, signingKeyFile), "bench", "bellwire"
	policy := filepath.Join(dir, "policy.yaml")
	for name, data := range map[string][]byte{f.signer: private, keys: set, policy: fmt.Appendf(nil, selfPolicy, keys)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return nil, fail(bw.File, "%w", err)
		}
	}
	args := []string{
		"serve", "--data", filepath.Join(dir, "data"), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--domain", "example.com", "--policy", policy,
	}
	if !f.secure {
		return args, nil
	}
	if err := issueDevTLS(dir); err != nil {
		return nil, err
	}
	f.caFile = filepath.Join(dir, certs.AuthorityCert)
	return append(args, "--mqtts", "127.0.0.1:0", "--tls-cert", filepath.Join(dir, certs.NodeCert), "--tls-key", filepath.Join(dir, certs.NodeKey)), nil
}

// startSelf runs this program with args, and returns when it serves.
func startSelf(ctx context.Context, args []string, stderr io.Writer) (*devChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &devChild{name: "bench", ready: make(chan readyLine, 1), ended: make(chan struct{})}
	var said strings.Builder
	c.cmd = exec.CommandContext(ctx, self, args...)
	c.cmd.Args[0] = "bellwire"
	c.cmd.Stderr = &said
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fail(bw.File, "cannot start another bellwire: %w", err)
	}
	go c.follow(out, io.Discard)
	select {
	case c.line = <-c.ready:
		return c, nil
	case <-c.ended:
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		_, _ = io.WriteString(stderr, said.String())
		return nil, fail(bw.Unclassified, "the server did not start: %w", cmp.Or(c.err, errEndedEarly)).do("its reason is above")
	}
}

// processCPU is what CPU time a process has used, as Linux tells it; 0 elsewhere.
func processCPU(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// Its name, in brackets, may hold anything; of the fields behind it the 12th and
	// 13th are user and system time in hundredths of a second (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var sum time.Duration
	for _, i := range []int{11, 12} {
		if i < len(fields) {
			n, _ := strconv.ParseInt(fields[i], 10, 64)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}
