package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/cluster/certs"
	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/yamltree"
)

// serveFlags are the flags of serve. The command line decides, then the
// environment, then the configuration file, then the default.
type serveFlags struct {
	config                         string
	data, node, domain, mqtt, http string
	policy, limits, testClock      string
	allowAnonymous, pprof, verbose bool
	holdLevel                      uint8
	sysInterval                    time.Duration

	member    clusterFlags
	listen    listenerFlags
	httpMQTT  bool
	httpTLS   tlsSpec       // certificate and key
	bridges   *[]bridgeSpec // those in the configuration file, nil for none
	limitRows limits        // those in the configuration file, in effect without limits

	said *yamltree.Node // what the configuration file said when it was read last; nil without one
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Runs a node until it is told to end. When it serves it prints a line of JSON
with its addresses.

A configuration file (-f) is YAML, such as

  domain: example.com
  data: ./data
  mqtt: {addr: "127.0.0.1:1883"}
  http: {addr: "127.0.0.1:8080"}
  policy: policy.yaml

Its keys are node, domain, data, mqtt: {addr: …}, listeners (a list, each with
mqtt, mqtts, ws, wss or unix: ADDR, and name, tls: {cert: …, key: …, client_ca:
…, client_cert: request, client_crl: [FILE…], min: "1.2"}, path, origins, mode,
anonymous, proxy: [FROM…], max_conns), bridges (a list, see docs/bridge.md),
http: {addr: …, tls: {cert: …, key: …}, mqtt: true},
cluster: {listen: …, advertise: …, advertise_mqtt: …, join: […], bootstrap:
true, name: …, tls: DIR, non_voter: true, remove_dead_after: 72h}, policy,
limits (a file, or its rows right here), allow_anonymous, sys_interval,
hold_level, pprof and verbose. Relative paths in it begin where it lies. A flag
counts more than its twin in the environment, that more than the file, that
more than the default. Everything that is wrong with the files is told at once.

With --cluster it is one node of several. The first is started with --bootstrap,
each other one with --join and the address of one that runs; after its first
start a node knows its cluster, and neither is looked at. Nodes know each other
by certificates: bellwire cert. A node that was removed from its cluster sends its
clients away and ends with exit code 7, and so does each further start of it. So
does one whose disk was emptied, and which was started with --bootstrap again,
when the others look for it: take --bootstrap out of its unit file once others
have joined. Such a node comes back with --join.`,
		Example: `  bellwire serve --data ./n1 --policy policy.yaml --domain example.com
  bellwire serve -f bellwire.yaml --mqtt 127.0.0.1:0
  bellwire serve --node n1 --data ./n1 --cluster 10.0.0.1:7400 --cluster-tls ./n1-tls --bootstrap --policy policy.yaml
  bellwire serve --node n2 --data ./n2 --cluster 10.0.0.2:7400 --cluster-tls ./n2-tls --join 10.0.0.1:7400`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.settle(cmd.Flags().Changed, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return serve(cmd.Context(), f, c, cmd.OutOrStdout())
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *serveFlags) register(flags *pflag.FlagSet) {
	flags.StringVarP(&f.config, "config", "f", "", "configuration `file`, for what neither a flag nor its twin in the environment says")
	flags.StringVar(&f.data, "data", "", "directory of the node's data, made if missing")
	flags.StringVar(&f.node, "node", "n1", "name of this node, the same for ever")
	flags.StringVar(&f.domain, "domain", "", "domain of bare user names")
	flags.StringVar(&f.mqtt, "mqtt", "127.0.0.1:1883", "address for MQTT over TCP; port 0 takes a free one, none is no such listener")
	f.listen.register(flags)
	flags.StringVar(&f.http, "http", "", "address for health, metrics and the API; none if empty")
	flags.StringVar(&f.httpTLS.cert, "http-tls-cert", "", "`file` with the certificate for --http, which then is https, and with what it was issued by; read again like --tls-cert")
	flags.StringVar(&f.httpTLS.key, "http-tls-key", "", "`file` with its key")
	flags.BoolVar(&f.httpMQTT, "http-mqtt", false, "serve MQTT by WebSocket on --http, too, at /mqtt")
	flags.StringVar(&f.policy, "policy", "", "policy file: put in force at the first start and on SIGHUP")
	flags.StringVar(&f.limits, "limits", "", "limits file: what all nodes hold alike is put in force at the first start and on SIGHUP; the rest is this node's, from each start and SIGHUP on")
	flags.BoolVar(&f.allowAnonymous, "allow-anonymous", false, "let clients in that give no credentials; without --policy they may use all plain topics")
	f.member.register(flags)
	flags.Uint8Var(&f.holdLevel, "hold-level", 0, "keep the cluster's feature `level` from rising above this one, so that its nodes can go back to the version before; 0 lets it rise")
	flags.DurationVar(&f.sysInterval, "sys-interval", sysInterval, "how often what the broker tells below $SYS/ is looked at and told anew; 0: there is nothing told")
	flags.StringVar(&f.testClock, "test-clock", "", "for tests: the node's clock stands still at this RFC 3339 time until it is moved over HTTP")
	flags.BoolVar(&f.pprof, "pprof", false, "serve profiles under /debug/pprof/ on --http")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log what is only of interest in trouble, too")
}

// A readyLine is what serve prints, once, when it serves.
type readyLine struct {
	Ready   bool   `json:"ready"`
	Node    string `json:"node"`
	PID     int    `json:"pid"`
	MQTT    string `json:"mqtt,omitempty"`
	HTTP    string `json:"http,omitempty"`
	HTTPS   bool   `json:"https,omitempty"`  // HTTP is by TLS
	CAFile  string `json:"cafile,omitempty"` // of dev --tls: its authority
	MQTTS   string `json:"mqtts,omitempty"`
	WS      string `json:"ws,omitempty"`
	WSS     string `json:"wss,omitempty"`
	Unix    string `json:"unix,omitempty"`
	Cluster string `json:"cluster,omitempty"`

	Listeners []listenerLine `json:"listeners,omitempty"`
}

func (s *server) readyLine() readyLine {
	line := readyLine{Ready: true, Node: s.config.node, PID: os.Getpid(), MQTT: s.mqttAddress(), Cluster: s.clusterAddress()}
	if s.httpListener != nil {
		line.HTTP, line.HTTPS = s.httpListener.Addr().String(), s.ports.httpTLS != nil
	}
	s.addListeners(&line)
	return line
}

func serve(ctx context.Context, f serveFlags, c serverConfig, stdout io.Writer) error {
	s, err := startServer(ctx, c)
	if err != nil {
		return startFault(err, f)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	s.warnOfOtherSettings()
	s.warnOfOtherPolicy(f.policy)
	s.warnOfNobody()
	line := s.readyLine()
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return errors.Join(err, s.close(ctx))
	}
	c.logger.Info("serving", "node", f.node, "mqtt", line.MQTT, "http", line.HTTP, "cluster", line.Cluster)
	for {
		select {
		case <-hangup:
			s.reload(ctx, f)
		case err := <-s.failed:
			return errors.Join(err, s.shutdown())
		case <-s.node.Removed():
			return s.leave(s.takenOut())
		case <-s.links.Contested():
			return s.leave(s.contested(s.links.Contest()))
		case <-ctx.Done():
			c.logger.Info("stopping")
			return s.shutdown()
		}
	}
}

// shutdownTime is how long clients and the log have to end in good order.
const shutdownTime = 10 * time.Second

// endTime is how long a node may take to end, all in all. It waits for the disk in
// the end, and one that hangs while nothing is being ordered is nobody's to notice: the
// log watches its commits. To wait longer would gain nothing, for what was acknowledged
// is on the disk, and the next start replays it.
const endTime = 30 * time.Second

func (s *server) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	late := time.AfterFunc(endTime, func() {
		const reason = "it does not come to its end: its disk does not complete what it is given"
		s.config.logger.Error("this process ends although not all is closed; what was acknowledged is kept", "reason", reason, "waited", endTime.String())
		s.config.die(reason)
	})
	defer late.Stop()
	return s.close(ctx)
}

// settle turns flags and files into what a node is made of. It tells everything
// that is wrong with them, not the first.
func (f *serveFlags) settle(given func(flag string) bool, stderr io.Writer) (c serverConfig, err error) {
	var wrong faults
	wrong.add(f.readConfig(given))
	if wrong == nil { // what else is missing may be what is wrong with it
		wrong.add(f.check())
	}
	c = serverConfig{
		node: f.node, domain: f.domain, mqtt: strings.TrimPrefix(f.mqtt, noListener), http: f.http, limits: f.limitRows,
		allowAnonymous: f.allowAnonymous, profile: f.pprof, logger: newLogger(stderr, f.verbose), die: exitAtOnce,
	}
	c.limited = f.limits != "" || f.limitRows != limits{}
	c.holdLevel, c.sysInterval = f.holdLevel, f.sysInterval
	c.listeners, c.httpTLS = f.listen.specs(), f.httpTLS
	c.httpMQTT, c.httpOrigins = f.httpMQTT, f.listen.pages()
	c.httpTLS.min = cmp.Or(c.httpTLS.min, f.listen.tls.min)
	if f.bridges != nil {
		c.bridges = *f.bridges
	}
	c.cluster, c.advertise, c.join = f.member.listen, f.member.advertise, f.member.addresses()
	c.advertiseMQTT, c.clusterName = f.member.advertiseMQTT, f.member.name
	c.bootstrap, c.clusterTLS = f.member.bootstrap, f.member.tls
	c.nonVoter, c.removeDead = f.member.nonVoter, f.member.removeDead
	wrong.add(f.member.credentials(&c))
	wrong = append(wrong, c.tlsFaults()...)
	if f.allowAnonymous && f.policy == "" {
		c.trust = trustNothing // there are no users to be
	}
	if f.limits != "" {
		c.limits, err = readLimits(f.limits, readAtMost)
		wrong.add(err)
	}
	c.policy, c.policyName, err = f.readPolicy()
	if f.data != "" && !newDirectory(f.data) {
		c.policyFault = err // it matters only if the state holds no policy
	} else {
		wrong.add(err)
	}
	c.clock, err = f.clock()
	wrong.add(err)
	if err := wrong.err(); err != nil {
		return c, err
	}
	if c.dir, err = filepath.Abs(f.data); err != nil {
		return c, err
	}
	c.fs = disk.Open(c.dir)
	return c, nil
}

// tlsFaults are those of the certificates' files, of which a start would tell only when all else is right.
// What is not complete has been told.
func (c *serverConfig) tlsFaults() (wrong faults) {
	if t := &c.httpTLS; c.http != "" && t.cert != "" && t.check("--http") == nil {
		wrong.add(t.filesFault("--http"))
	}
	for i := range c.listeners {
		if l := &c.listeners[i]; l.secure() && l.tls.check(l.option) == nil {
			wrong.add(l.tls.filesFault(l.option))
		}
	}
	return wrong
}

// check says what is missing or makes no sense together.
func (f *serveFlags) check() error {
	var wrong faults
	if f.data == "" {
		p := fail(bw.Usage, "serve needs --data, the directory of the node's data").do("bellwire serve --data DIR; to try without one: bellwire dev")
		if f.config != "" {
			p.do("add data: DIR to %s, or give --data DIR", f.config)
		}
		wrong.add(p)
	}
	if f.domain != "" {
		if _, err := acl.ParseDomain(f.domain); err != nil {
			wrong.add(fail(bw.Usage, "--domain: %w", err).do("give the domain of bare user names, such as --domain example.com"))
		}
	}
	if f.member.listen == "" || f.node == "" { // of a node of a cluster its membership says it
		wrong.add(checkNodeName(f.node))
	}
	switch {
	case f.mqtt != noListener:
		wrong.add(checkAddress("--mqtt", f.mqtt, "127.0.0.1:1883"))
	case len(f.listen.specs()) == 0:
		wrong.add(fail(bw.Usage, "--mqtt none leaves no listener: no client could connect").do("add --mqtts, --ws, --wss or --unix, or listeners to the configuration file"))
	}
	if f.http != "" {
		wrong.add(checkAddress("--http", f.http, "127.0.0.1:8080"))
	}
	wrong.add(f.checkHTTPS())
	if f.httpMQTT && f.http == "" {
		wrong.add(fail(bw.Usage, "--http-mqtt without an address for HTTP").do("add --http 127.0.0.1:8080, or leave it out"))
	}
	if f.pprof && f.http == "" {
		wrong.add(fail(bw.Usage, "--pprof serves profiles on --http, and there is none").do("add --http 127.0.0.1:8080, or leave --pprof out"))
	}
	wrong.add(f.member.check(f.node, f.data != "" && newDirectory(f.data)))
	if f.sysInterval != 0 && f.sysInterval < time.Second {
		wrong.add(fail(bw.Usage, "--sys-interval %s is too short", f.sysInterval).do("give 1s or more, or 0 for nothing told below $SYS/"))
	}
	wrong.add(f.checkOpen())
	wrong.add(f.listen.check(f.allowAnonymous, f.policy))
	return wrong.err()
}

// noListener is --mqtt of a server that is reached by its other listeners alone.
const noListener = "none"

// mqttAddress is where MQTT over TCP is served, empty for nowhere.
func (s *server) mqttAddress() string {
	if s.mqttListener == nil {
		return ""
	}
	return s.mqttListener.Addr().String()
}

// checkHTTPS says what is wrong with the certificate of --http.
func (f *serveFlags) checkHTTPS() error {
	t := f.httpTLS
	switch {
	case t.cert == "" && t.key == "" && t.min == "":
		return nil
	case f.http == "":
		return fail(bw.Usage, "--http-tls-cert without an address for HTTP").do("add --http 0.0.0.0:8443, or leave it out")
	case t.cert == "" || t.key == "":
		return fail(bw.Usage, "--http with TLS needs a certificate and its key").do("add --http-tls-cert FILE and --http-tls-key FILE (in a configuration file http: {addr, tls: {cert, key}})")
	}
	return t.check("--http")
}

// checkNodeName says what is wrong with --node. The name stands in topics below $SYS/, in
// metrics and addresses of HTTP, whether the node is of a cluster or not.
func checkNodeName(name string) error {
	if name == "" {
		return fail(bw.Usage, "--node is empty").do("give the node a name, or leave --node out: n1")
	}
	if err := certs.CheckName(name); err != nil {
		return fail(bw.Usage, "--node: %w", err).
			do("give the node a name, such as --node n1; if its data directory has that name already, bellwire backup with the version that made it, and bellwire restore --node NAME")
	}
	return nil
}

// checkAddress says what is wrong with an address to listen on, before anything
// is opened.
func checkAddress(flag, addr, example string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fail(bw.Usage, "%s %q is no address to listen on", flag, addr).do("give a host and a port, such as %s %s; port 0 takes a free one", flag, example)
	}
	return nil
}

// clock returns the clock that stands still, nil for the machine's.
func (f *serveFlags) clock() (*testClock, error) {
	if f.testClock == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, f.testClock)
	if err != nil {
		return nil, fail(bw.Usage, "--test-clock %q is no RFC 3339 time", f.testClock).do("like 2026-03-09T16:59:00Z")
	}
	if !loopbackAddress(f.http) || f.mqtt != noListener && !loopbackAddress(f.mqtt) {
		return nil, fail(bw.Usage, "--test-clock is for tests: it needs --http and --mqtt on loopback").do("--http 127.0.0.1:0 --mqtt 127.0.0.1:0")
	}
	return newTestClock(at), nil
}

// readPolicy reads and checks the policy file, or makes the one that
// --allow-anonymous alone stands for.
func (f *serveFlags) readPolicy() (data []byte, name string, err error) {
	if f.policy == "" {
		if f.allowAnonymous {
			return acl.Open(), "--allow-anonymous", nil
		}
		return nil, "", nil
	}
	if data, err = readPolicyData(f.policy); err != nil {
		return nil, f.policy, err
	}
	if _, err := acl.ParseDomain(f.domain); f.domain != "" && err != nil {
		return nil, f.policy, nil // that is told, and would be a fault of every bare name
	}
	if _, err := parsePolicy(f.policy, data, f.domain); err != nil {
		return nil, f.policy, err
	}
	return data, f.policy, nil
}

// checkOpen refuses to let everybody in from other machines by accident.
func (f *serveFlags) checkOpen() error {
	if f.allowAnonymous && f.policy == "" && f.mqtt != "" && f.mqtt != noListener && !loopbackAddress(f.mqtt) {
		return fail(bw.OpenListener, "to allow anonymous clients without a policy would open every topic on %s to everybody who can reach it", f.mqtt)
	}
	if f.allowAnonymous && f.policy == "" && f.httpMQTT && f.http != "" && !loopbackAddress(f.http) {
		return fail(bw.OpenListener, "to allow anonymous clients without a policy would open every topic on %s, by --http-mqtt, to everybody who can reach it", f.http)
	}
	return nil
}

func loopbackAddress(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// exitAtOnce ends the process because nothing that is written can be relied on
// any more: the reason is in the log already. Nobody is told anything else.
func exitAtOnce(string) { os.Exit(exitFailed) }

// startFault says what a node's failure to start means to its operator.
func startFault(err error, f serveFlags) error {
	code := bw.Code(0)
	_, told := errors.AsType[faults](err)
	if f, ok := errors.AsType[*fault](err); ok && (f.code == bw.NodeRemoved || f.code == bw.NodeContested) {
		told = true
	}
	switch {
	case told, errors.Is(err, context.Canceled):
		return err
	case levelRefused(err):
		return fail(bw.NodeTooOld, "%w", err)
	case errors.Is(err, cluster.ErrRefused):
		return fail(bw.ClusterRefuses, "%w", err)
	case errors.Is(err, cluster.ErrInUse):
		code = bw.DataInUse
	case errors.Is(err, cluster.ErrNewer), errors.Is(err, store.ErrNewer):
		code = bw.DataNewer
	case errors.Is(err, cluster.ErrOtherNode), errors.Is(err, cluster.ErrOthers):
		code = bw.DataOther
	case errors.Is(err, cluster.ErrDamaged), errors.Is(err, store.ErrDamaged):
		code = bw.DataDamaged
	case errors.Is(err, syscall.ENOSPC):
		return fail(bw.DiskFull, "%w", err).do("make room where the data directory is, %s, and start again: it is as it was", f.data)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fail(bw.File, "%w", err).do("raise how many files may be open (ulimit -n, LimitNOFILE= of a unit), and start again")
	default:
		if _, ofFile := errors.AsType[*fs.PathError](err); ofFile {
			return fail(bw.File, "%w", err).do("check the name of the data directory and who may write in it")
		}
		return err
	}
	if strings.HasPrefix(err.Error(), "data directory ") {
		return fail(code, "%w", err)
	}
	return fail(code, "data directory %s: %w", f.data, err)
}

func levelRefused(err error) bool {
	r, ok := errors.AsType[*link.RefusedError](err)
	return ok && r.Code == link.RefusedLevel
}

// newLogger logs JSON, or lines for people on a terminal.
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if file, ok := w.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != ""}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			return slog.String("level", strings.ToLower(fmt.Sprint(a.Value)))
		}
		return a
	}}))
}
