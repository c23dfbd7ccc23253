package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/mqtttest"
)

// startTime bounds how long a server may take until its ready line: recovery
// of a killed one on a busy machine included.
const startTime = 60 * time.Second

// binary is the program under test, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("BELLWIRE_BINARY"); path != "" {
		return path, nil
	}
	path := filepath.Join(scratch, "bellwire")
	build := exec.Command("go", "build", "-o", path, "../cmd/bellwire")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build has it
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build ../cmd/bellwire: %w\n%s", err, out)
	}
	return path, nil
})

// A server is one `bellwire serve` on its own data directory, which can be
// killed and started again.
type server struct {
	t      testing.TB
	dir    string // the data directory
	args   []string
	prefix []string // what to run the binary under
	binary string   // another than the one under test; empty for that

	ready  ready
	logs   *logBuffer
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	status error         // of the process, valid after exited
	ended  bool          // we ended it, so its end is no fault
}

// ready is the line that a server prints when it serves.
type ready struct {
	Ready bool   `json:"ready"`
	PID   int    `json:"pid"`
	MQTT  string `json:"mqtt"`
	HTTP  string `json:"http"`
	MQTTS string `json:"mqtts"`
	WS    string `json:"ws"`
	WSS   string `json:"wss"`
	Unix  string `json:"unix"`

	Listeners []struct{ Name, Kind, Addr string } `json:"listeners"`

	Cluster string `json:"cluster"` // empty on a node alone
}

// serve starts a server in a fresh directory with further flags. At the end of
// the test it is killed; that it died before by itself fails the test.
func serve(t testing.TB, flags ...string) *server {
	t.Helper()
	return serveIn(t, filepath.Join(t.TempDir(), "data"), flags...)
}

// serveIn is serve on a given data directory.
func serveIn(t testing.TB, dir string, flags ...string) *server {
	t.Helper()
	s := prepare(t, dir, flags...)
	s.start()
	return s
}

// prepare is serveIn without starting.
func prepare(t testing.TB, dir string, flags ...string) *server {
	t.Helper()
	if target != "" {
		t.Skipf("missing: a server of our own, BELLWIRE_BLACKBOX_TARGET=%s is set", target)
	}
	s := &server{t: t, dir: dir, logs: new(logBuffer)}
	s.args = append([]string{"serve", "--data", dir, "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--domain", "example.com"}, flags...)
	t.Cleanup(s.cleanup)
	return s
}

// start runs the program and waits for its ready line.
func (s *server) start() {
	s.t.Helper()
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
}

// launch is start with the error for who expects one.
func (s *server) launch() error {
	path, err := s.binary, error(nil)
	if path == "" {
		path, err = binary()
	}
	if err != nil {
		return err
	}
	argv := append(append(append([]string{}, s.prefix...), path), s.args...)
	s.cmd = exec.Command(argv[0], argv[1:]...)
	if s.cmd.Stderr, err = s.logs.open(); err != nil {
		return err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// The server dies with the test program, also when that is killed.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited, s.ended = make(chan struct{}), false
	line := make(chan string, 1)
	go s.watch(stdout, line)
	return s.awaitReady(line)
}

// watch hands over the first line and notes the process's end.
func (s *server) watch(stdout io.Reader, line chan<- string) {
	cmd, exited := s.cmd, s.exited
	r := bufio.NewReader(stdout)
	first, _ := r.ReadString('\n')
	line <- first
	_, _ = io.Copy(io.Discard, r)
	s.status = cmd.Wait()
	close(exited)
}

func (s *server) awaitReady(line <-chan string) error {
	select {
	case text := <-line:
		if text == "" {
			<-s.exited
			s.ended = true
			return fmt.Errorf("the server ended before it served: %v\n%s", s.status, s.logs.tail())
		}
		s.ready = ready{}
		if err := json.Unmarshal([]byte(text), &s.ready); err != nil || !s.ready.Ready {
			return fmt.Errorf("ready line %q: %v", text, err)
		}
		return nil
	case <-time.After(startTime):
		s.kill()
		return fmt.Errorf("no ready line within %v\n%s", startTime, s.logs.tail())
	}
}

// kill ends the process as a crash does and waits until it is gone.
func (s *server) kill() { s.end(syscall.SIGKILL) }

// stop asks the process to end and wants exit code 0.
func (s *server) stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
	if s.status != nil {
		s.t.Errorf("after SIGTERM the server ended with %v, want exit code 0\n%s", s.status, s.logs.tail())
	}
}

func (s *server) end(sig syscall.Signal) {
	s.t.Helper()
	s.ended = true
	if !s.gone() { // else its number may be another's by now
		_ = syscall.Kill(s.pid(), sig)
	}
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		s.t.Errorf("the server did not end within 30 s of %v\n%s", sig, s.logs.tail())
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// pid is the server's own, also when it runs under a prefix that forks.
func (s *server) pid() int {
	if s.ready.PID != 0 {
		return s.ready.PID
	}
	return s.cmd.Process.Pid
}

// restart kills the process and starts it on the same directory.
func (s *server) restart() {
	s.t.Helper()
	s.kill()
	s.start()
}

// signal sends a signal that the server survives.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.pid(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// halt stops the process, and returns when none of its threads runs any more: on a
// busy machine they go on for a while after the signal was sent.
func (s *server) halt() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	until(s.t, "all threads have stopped", patience, func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.pid()))
		if err != nil || len(tasks) == 0 {
			s.t.Fatalf("no threads of %d: %v", s.pid(), err)
		}
		for _, task := range tasks {
			text, err := os.ReadFile(task)
			if err != nil {
				return false // it has just ended
			}
			// The name of the program, in brackets, may hold anything.
			if rest := string(text[bytes.LastIndexByte(text, ')')+1:]); !strings.HasPrefix(rest, " T") {
				return false
			}
		}
		return true
	})
}

// standStill stops the process for some time, and has it go on.
func (s *server) standStill(d time.Duration) {
	s.t.Helper()
	s.halt()
	<-time.After(d)
	s.signal(syscall.SIGCONT)
}

// checkAlive fails the test when the process has ended by itself.
func (s *server) checkAlive() {
	s.t.Helper()
	if s.exited == nil || s.ended {
		return
	}
	select {
	case <-s.exited:
		s.ended = true
		s.t.Errorf("the server died: %v\n%s", s.status, s.logs.tail())
	default:
	}
}

func (s *server) cleanup() {
	s.checkAlive()
	if s.exited != nil && !s.ended {
		s.kill()
	}
	if text := s.logs.String(); strings.Contains(text, "panic") {
		s.t.Errorf("the server's log tells of a panic\n%s", s.logs.tail())
	}
	if s.t.Failed() {
		s.t.Logf("server log, its end:\n%s", s.logs.tail())
	}
}

// open connects a client that must be accepted.
func (s *server) open(version byte, m mqtttest.Connect) *mqtttest.Client {
	s.t.Helper()
	return mqtttest.Open(s.t, s.ready.MQTT, version, m)
}

// post sends JSON to the HTTP side, which must answer 2xx.
func (s *server) post(path, body string) {
	s.t.Helper()
	if err := s.tryPost(path, body); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) tryPost(path, body string) error {
	client := http.Client{Timeout: mqtttest.Patience}
	res, err := client.Post("http://"+s.ready.HTTP+path, "application/json", strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", body, err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s %s: %s %s", path, body, res.Status, text)
	}
	return nil
}

// setClock moves the test clock to an instant; all that is due then has
// happened when it returns.
func (s *server) setClock(rfc3339 string) {
	s.t.Helper()
	s.post("/v1/test/clock", fmt.Sprintf(`{"set":%q}`, rfc3339))
}

// advance moves the test clock on.
func (s *server) advance(d time.Duration) {
	s.t.Helper()
	s.post("/v1/test/clock", fmt.Sprintf(`{"advance":%q}`, d))
}

// disk switches the disk's fault: hang, slow, eio, full or ok. With eio the process may
// end before it has answered.
func (s *server) disk(fault string) {
	s.t.Helper()
	err := s.tryPost("/v1/test/fault", fmt.Sprintf(`{"disk":%q}`, fault))
	if gone := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET); err != nil && (fault != "eio" || !gone) {
		s.t.Fatal(err)
	}
}

// get returns status and body of a GET.
func (s *server) get(path string) (int, string) {
	s.t.Helper()
	client := http.Client{Timeout: mqtttest.Patience}
	res, err := client.Get("http://" + s.ready.HTTP + path)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	return res.StatusCode, string(text)
}

// dropped sums the messages dropped for any of these reasons.
func (s *server) dropped(reasons ...string) float64 {
	s.t.Helper()
	sum := 0.0
	for _, r := range reasons {
		sum += s.metric("bellwire_messages_dropped_total", fmt.Sprintf("reason=%q", r))
	}
	return sum
}

// metric sums the samples of a metric whose labels all contain what is asked,
// each as `label="value"`.
func (s *server) metric(name string, labels ...string) float64 {
	s.t.Helper()
	_, text := s.get("/metrics")
	if !strings.Contains(text, "\n"+name+" ") && !strings.Contains(text, "\n"+name+"{") {
		s.t.Fatalf("there is no metric %s", name)
	}
	return sumMetric(text, name, labels...)
}

func sumMetric(text, name string, labels ...string) float64 {
	sum := 0.0
lines:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		fields := strings.Fields(rest)
		if v, err := strconv.ParseFloat(fields[len(fields)-1], 64); err == nil {
			sum += v
		}
	}
	return sum
}

// rss is the server's resident memory in bytes.
func (s *server) rss() int64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid()))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	s.t.Fatalf("no Rss in %q", text)
	return 0
}

// A logBuffer keeps a server's stderr, of all its lives. It is a file that the server
// writes itself, not a pipe that somebody here empties by and by: what the server had
// logged before it did something else is there when that is seen.
type logBuffer struct {
	mu   sync.Mutex
	file *os.File // without a name; nil until the first life
}

// open returns the file, for a process to write to.
func (l *logBuffer) open() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		return l.file, nil
	}
	f, err := os.CreateTemp(scratch, "log-")
	if err != nil {
		return nil, err
	}
	l.file = f
	return f, os.Remove(f.Name())
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return ""
	}
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, math.MaxInt64))
	if err != nil {
		return fmt.Sprintf("%s\nreading the log: %v", text, err)
	}
	return string(text)
}

// tail is what a failure shows: from the panic on if there was one, else the
// last lines.
func (l *logBuffer) tail() string {
	text := l.String()
	if i := strings.Index(text, "panic"); i >= 0 {
		return text[max(0, i-500):min(len(text), i+6000)]
	}
	return text[max(0, len(text)-4000):]
}

// run runs the binary to its end and returns both outputs and the exit code.
func run(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runWith(t, "", args...)
}

// runWith is run with input.
func runWith(t testing.TB, input string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// reload makes the server read its policy file again and waits until it has.
func (s *server) reload() {
	s.t.Helper()
	done := func() int {
		logs := s.logs.String()
		return strings.Count(logs, `"msg":"policy changed"`) + strings.Count(logs, `"msg":"policy unchanged`)
	}
	before := done()
	s.signal(syscall.SIGHUP)
	until(s.t, "the policy is read again", mqtttest.Patience, func() bool { return done() > before })
}

// drop closes a client's socket and waits until the server has noticed, and has that in its
// log: from then on time passes for its session. Whoever has gone before has to be awaited
// likewise.
func (s *server) drop(c *mqtttest.Client) {
	s.t.Helper()
	before := s.metric("bellwire_sessions_connected")
	c.Close()
	until(s.t, "the server notices that a connection is gone", mqtttest.Patience, func() bool {
		return s.metric("bellwire_sessions_connected") < before
	})
}

// gone says whether the process has ended.
func (s *server) gone() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// awaitDeath waits until the process has ended by itself, with an error.
func (s *server) awaitDeath() {
	s.t.Helper()
	if s.awaitEnd(); s.status == nil {
		s.t.Error("the process ended with exit code 0")
	}
}

// awaitEnd waits until the process has ended.
func (s *server) awaitEnd() {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(60 * time.Second):
		s.t.Fatal("the process lives on")
	}
	s.ended = true
}

// liveHeap is how many bytes the server's objects take that are in use, right
// after a garbage collection. It needs --pprof.
func (s *server) liveHeap() int64 {
	s.t.Helper()
	until(s.t, "the connections that were closed are gone", 30*time.Second, func() bool {
		return s.metric("bellwire_sockets") == 0
	})
	for range 3 { // what a pool holds outlives a collection
		if status, text := s.get("/debug/pprof/heap?gc=1&debug=1"); status != http.StatusOK {
			s.t.Fatalf("no garbage collection: %d %s", status, text)
		}
	}
	heap := int64(s.metric("go_memstats_heap_alloc_bytes"))
	if !usesCgo(s.t) {
		// Then memtables, which are on their way to the disk, lie in the heap.
		heap -= int64(s.metric("bellwire_store_memtable_bytes") + s.metric("bellwire_log_memtable_bytes"))
	}
	return heap
}

// usesCgo says whether the binary was built with cgo.
func usesCgo(t testing.TB) bool {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range info.Settings {
		if setting.Key == "CGO_ENABLED" {
			return setting.Value == "1"
		}
	}
	return true
}

// verb runs a verb for operators of the server, and returns what it says; its exit code is to be
// want.
func (s *server) verb(want int, args ...string) string {
	s.t.Helper()
	out, stderr, code := run(s.t, append(args, "--server", s.ready.HTTP)...)
	if code != want {
		s.t.Fatalf("%v: exit code %d, %s %s", args, code, out, stderr)
	}
	return out + stderr
}
