package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Peer is one of the brokers that are compared.
type Peer struct {
	Name string

	// synced says whether it can be made to sync before it acknowledges; one
	// that cannot has no part in the rows that ask for it.
	synced bool

	// prepare finds or builds the program and returns its path and version.
	prepare func(ctx context.Context, e env) (path, version string, err error)

	// start starts it for a row, with an empty directory of its own.
	start func(ctx context.Context, e env, path, dir string, sc Scenario) (*broker, error)

	// startNodes starts as many nodes as the row says; nil for a broker that has no
	// part in rows of several.
	startNodes func(ctx context.Context, e env, path, dir string, sc Scenario) (fleet, error)

	// startBridged starts it with a bridge to a mosquitto at far; nil for a broker that has no
	// bridges.
	startBridged func(ctx context.Context, e env, path, dir string, sc Scenario, far string) (*broker, error)

	// alone says that it is one node in rows of several, to compare with, and has
	// no part in other rows.
	alone bool
}

// takesPart says whether the peer has a part in a row.
func (p Peer) takesPart(sc Scenario) bool {
	switch {
	case sc.Synced && !p.synced:
		return false
	case sc.Bridged:
		return p.startBridged != nil
	case sc.Nodes > 1:
		return p.startNodes != nil || p.alone
	}
	return !p.alone
}

// An env is what peers are started in.
type env struct {
	cores
	root     string // of the checkout
	bin      string // where programs that are built go
	bellwire string // a built bellwire, or "" to build the checkout's
	profile  bool   // bellwire serves its profiles
}

// A broker is a running peer, or one node of it.
type broker struct {
	*process
	addr    string // of its MQTT listener
	http    string // of its metrics; "" for those without
	cluster string // where a node of Bellwire is found by others
	health  string // where a node of NATS says how it is

	policies   bool // owners of topics say who may see them
	unmeasured bool // it is what another one has a bridge to
}

// Peers returns all brokers that can be compared.
func Peers() []Peer {
	return []Peer{
		{Name: "mosquitto", prepare: findMosquitto, start: startMosquitto, startBridged: startBridgedMosquitto},
		{Name: "nats", synced: true, prepare: buildNATS, start: startNATS, startNodes: startNATSNodes},
		{Name: "mochi", synced: true, prepare: buildMochi, start: startMochi},
		{Name: "bellwire", synced: true, prepare: buildBellwire, start: startBellwire, startNodes: startBellwireNodes, startBridged: startBridgedBellwire},
		{Name: "bellwire-1", synced: true, prepare: buildBellwire, start: startBellwire, alone: true},
	}
}

func findMosquitto(ctx context.Context, _ env) (path, version string, err error) {
	if path, err = look("mosquitto"); err != nil {
		return "", "", err
	}
	// mosquitto -h ends with status 3 and has the version in its first line.
	out, _ := exec.CommandContext(ctx, path, "-h").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return path, strings.TrimPrefix(line, "mosquitto version "), nil
}

func startMosquitto(ctx context.Context, e env, path, dir string, sc Scenario) (*broker, error) {
	return startMosquittoWith(ctx, e, path, dir, sc, "")
}

// startMosquittoWith is startMosquitto with more lines of configuration, the last.
func startMosquittoWith(ctx context.Context, e env, path, dir string, sc Scenario, more string) (*broker, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	conf := fmt.Sprintf(`listener %s 127.0.0.1
allow_anonymous %t
max_queued_messages 200000
max_inflight_messages 100
persistence %t
persistence_location %s/
log_dest stderr
log_type error
log_type warning
`, port, !sc.Permissions, sc.Durable, dir)
	if sc.Permissions {
		users, err := mosquittoUsers(dir, people(sc))
		if err != nil {
			return nil, err
		}
		conf += users
	}
	if os.Geteuid() == 0 {
		conf += "user root\n" // or it could not write to dir
	}
	return e.launch(ctx, addr, filepath.Join(dir, "mosquitto.conf"), conf+more, path, "-c")
}

// natsModule is the program of the nats server, a tool of the peers' module.
const natsModule = "github.com/nats-io/nats-server/v2"

func buildNATS(ctx context.Context, e env) (path, version string, err error) {
	return e.build(ctx, "nats-server", natsModule, natsModule)
}

func startNATS(ctx context.Context, e env, path, dir string, sc Scenario) (*broker, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	sync := ""
	if sc.Synced {
		sync = ", sync_interval: always"
	}
	conf := fmt.Sprintf(`server_name: bench
listen: "127.0.0.1:-1"
jetstream { store_dir: %q%s }
mqtt { listen: %q }
`, filepath.Join(dir, "js"), sync, addr)
	if sc.Permissions {
		conf += string(natsUsers(people(sc)))
	}
	return e.launch(ctx, addr, filepath.Join(dir, "nats.conf"), conf, path, "-c")
}

func buildMochi(ctx context.Context, e env) (path, version string, err error) {
	return e.build(ctx, "mochi", "./mochi", "github.com/mochi-mqtt/server/v2")
}

func startMochi(ctx context.Context, e env, path, dir string, sc Scenario) (*broker, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{path, "-addr", addr}
	if sc.Durable {
		args = append(args, "-store", filepath.Join(dir, "pebble"))
	}
	if sc.Synced {
		args = append(args, "-sync")
	}
	if sc.Permissions {
		users := filepath.Join(dir, "users")
		if err := os.WriteFile(users, mochiUsers(people(sc)), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "-users", users)
	}
	return e.launch(ctx, addr, "", "", args...)
}

// launch writes conf to file, unless file is "", and starts args with file as
// the last of them; it returns when the broker listens on addr.
func (e env) launch(ctx context.Context, addr, file, conf string, args ...string) (*broker, error) {
	if file != "" {
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return nil, err
		}
		args = append(args, file)
	}
	p, err := e.start(exec.Command(args[0], args[1:]...), e.broker)
	if err != nil {
		return nil, err
	}
	if err := p.awaitPort(ctx, addr); err != nil {
		p.stop()
		return nil, err
	}
	return &broker{process: p, addr: addr}, nil
}

// build builds a program in the peers' own module, whose go.mod holds versions
// that the main module must not have to know.
func (e env) build(ctx context.Context, name, pkg, module string) (path, version string, err error) {
	path = filepath.Join(e.bin, name)
	dir := filepath.Join(e.root, "bench", "peers")
	if _, err := output(ctx, dir, "go", "build", "-o", path, pkg); err != nil {
		return "", "", err
	}
	version, err = output(ctx, dir, "go", "list", "-m", "-f", "{{.Version}}", module)
	return path, version, err
}

func buildBellwire(ctx context.Context, e env) (path, version string, err error) {
	if e.bellwire != "" {
		return e.bellwire, "given", nil
	}
	path = filepath.Join(e.bin, "bellwire")
	if _, err := output(ctx, e.root, "go", "build", "-o", path, "./cmd/bellwire"); err != nil {
		return "", "", err
	}
	return path, commit(ctx, e.root), nil
}

// commit names the checkout, with a mark when it holds more than was committed.
func commit(ctx context.Context, root string) string {
	c, err := output(ctx, root, "git", "describe", "--always", "--dirty", "--abbrev=12")
	if err != nil {
		return "unknown"
	}
	return c
}

// A readyLine is what bellwire prints on standard output when it serves.
type readyLine struct {
	Ready bool   `json:"ready"`
	MQTT  string `json:"mqtt"`
	HTTP  string `json:"http"`

	Cluster string `json:"cluster"`
}

// startBellwire starts it as an operator would: permission checks, metrics and
// its default durability are on.
func startBellwire(ctx context.Context, e env, path, dir string, sc Scenario) (*broker, error) {
	return e.startBellwire(ctx, path, dir, sc)
}

// bellwireMemory is the policy of rows whose topics need no log.
const bellwireMemory = `rules:
  - {id: all, allow: [publish, subscribe], who: [anyone], topic: ["#"]}
durability: {memory: ["#"]}
`

// bellwireLimits are those of rows whose publishers are sources of state.
const bellwireLimits = "v: 1\ndefault: {source.perSecond: 1_000_000, source.burst: 1_000_000}\n"

// startBellwire starts a node in dir with more flags.
func (e env) startBellwire(ctx context.Context, path, dir string, sc Scenario, more ...string) (*broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := []string{
		"serve", "--data", filepath.Join(dir, "data"), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--domain", peopleDomain,
	}
	args = append(args, more...)
	var policy []byte
	switch {
	case sc.Permissions:
		policy = bellwireUsers(people(sc))
	case sc.Memory:
		policy = []byte(bellwireMemory)
		fallthrough
	default:
		args = append(args, "--allow-anonymous")
	}
	files := map[string][]byte{"policy": policy}
	if sc.Permissions {
		files["limits"] = []byte(bellwireLimits)
	}
	for flag, text := range files { // in any order
		if text == nil {
			continue
		}
		file := filepath.Join(dir, flag+".yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--"+flag, file)
	}
	if e.profile {
		args = append(args, "--pprof")
	}
	cmd := exec.Command(path, args...)
	// Not StdoutPipe: Wait would close that one under the reader.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	p, err := e.start(cmd, e.broker)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	ready, err := p.awaitReady(ctx, r)
	if err != nil {
		p.stop()
		r.Close()
		return nil, err
	}
	return &broker{
		process: p, addr: ready.MQTT, http: strings.TrimPrefix(ready.HTTP, "http://"), cluster: ready.Cluster,
		policies: sc.Permissions,
	}, nil
}

// awaitReady reads the ready line from r and goes on emptying r until the
// process ends.
func (p *process) awaitReady(ctx context.Context, r io.ReadCloser) (readyLine, error) {
	lines := make(chan readyLine, 1)
	go func() {
		defer r.Close()
		in := bufio.NewReader(r)
		var ready readyLine
		for !ready.Ready {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			_ = json.Unmarshal(line, &ready) // a line that is no JSON is not the ready line
		}
		lines <- ready
		_, _ = io.Copy(io.Discard, in)
	}()
	select {
	case ready := <-lines:
		return ready, nil
	case <-p.exited:
		return readyLine{}, fmt.Errorf("it ended before it was ready: %w: %s", cmpErr(p.err), p.said())
	case <-ctx.Done():
		return readyLine{}, ctx.Err()
	case <-time.After(30 * time.Second):
		return readyLine{}, errors.New("it printed no ready line within 30s")
	}
}

// syncsCounter counts the fsync and fdatasync calls of a bellwire.
const syncsCounter = "bellwire_disk_syncs_total"

// syncs reads how often the broker has synced so far; ok is false when it does
// not tell.
func (b *broker) syncs(ctx context.Context) (n float64, ok bool) {
	if b.http == "" {
		return 0, false
	}
	err := get(ctx, "http://"+b.http+"/metrics", func(resp *http.Response) error {
		n, ok = counter(resp.Body, syncsCounter)
		return nil
	})
	return n, ok && err == nil
}

// counter sums the samples of name, over all its labels, in a page of metrics.
func counter(r io.Reader, name string) (sum float64, ok bool) {
	in := bufio.NewScanner(r)
	for in.Scan() {
		rest, found := strings.CutPrefix(in.Text(), name)
		if !found || rest == "" || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err == nil {
			sum, ok = sum+v, true
		}
	}
	return sum, ok
}
