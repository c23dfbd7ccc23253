package blackbox

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/bellwire/bellwire/mqtttest"
)

// The protocol versions as the helpers take them.
const (
	v4 = 4 // MQTT 3.1.1
	v5 = 5
)

// target is a broker that runs already, at which tests of plain protocol are
// aimed in place of ours.
var target = os.Getenv("BELLWIRE_BLACKBOX_TARGET")

func TestMain(m *testing.M) {
	flag.Parse()
	f := flag.Lookup("test.parallel")
	if n, err := strconv.Atoi(f.Value.String()); err != nil || n < 4 {
		_ = f.Value.Set("4") // servers at once; most of the time they wait for a disk
	}
	dir, held, err := makeScratch(reports)
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	shared.close()
	os.RemoveAll(dir)
	held.Close()
	os.Exit(code)
}

// shared is the one server for tests that need nothing but a broker that
// allows everything. Their topics and client ids begin with the test's name.
var shared sharedServer

type sharedServer struct {
	mu     sync.Mutex
	server *server
}

// plain returns the address of a broker that allows everything, common to all
// tests that ask. When the test ends it must still be alive.
func plain(t testing.TB) string {
	t.Helper()
	if target != "" {
		return target
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		s := prepare(holder{t}, filepath.Join(scratch, "shared"), "--allow-anonymous")
		s.start()
		shared.server = s
	}
	s := shared.server
	t.Cleanup(func() { shared.check(t, s) })
	return s.ready.MQTT
}

// check blames the test after which the shared server is found dead, and lets
// the next one start another.
func (h *sharedServer) check(t testing.TB, s *server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server != s {
		return
	}
	select {
	case <-s.exited:
		t.Errorf("the shared server died: %v\n%s", s.status, s.logs.tail())
		h.server = nil
	default:
		if t.Failed() {
			t.Logf("shared server log, its end:\n%s", s.logs.tail())
		}
	}
}

func (h *sharedServer) close() {
	if h.server == nil {
		return
	}
	_ = h.server.cmd.Process.Kill()
	<-h.server.exited
}

// A holder lets the shared server report through the test that started it
// while living longer: it registers no cleanup there.
type holder struct{ testing.TB }

func (holder) Cleanup(func()) {}

// name makes a client id or the first level of a topic that is this test's
// own, and this run's: a broker that runs already may remember another.
func name(t testing.TB, parts ...string) string {
	base := strings.NewReplacer("/", "-", "#", "-", "+", "-", "$", "-").Replace(strings.TrimPrefix(t.Name(), "Test"))
	run, _ := runs.LoadOrStore(t, started.Add(1))
	return strings.Join(append([]string{base, fmt.Sprint(os.Getpid(), ".", run)}, parts...), "-")
}

// runs numbers the tests that asked for a name: one test may run several times.
var (
	runs    sync.Map // testing.TB → number
	started atomic.Int64
)

// versions runs a test for 3.1.1 and for 5.
func versions(t *testing.T, f func(t *testing.T, v byte)) {
	for _, v := range []byte{v4, v5} {
		t.Run(map[byte]string{v4: "v3.1.1", v5: "v5"}[v], func(t *testing.T) { f(t, v) })
	}
}

// clean is a CONNECT without a session to come back to.
func clean(id string) mqtttest.Connect { return mqtttest.Connect{ClientID: id, Clean: true} }

// durable is a CONNECT of a session that stays until the end of the test.
func durable(v byte, id string) mqtttest.Connect {
	m := mqtttest.Connect{ClientID: id}
	if v >= 5 {
		m.Properties = mqtttest.Properties{mqtttest.Number(mqtttest.PropSessionExpiry, 3600)}
	}
	return m
}

// until asks again and again whether a condition holds, within the time.
func until(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		pause()
	}
}

// pause gives way between two looks at a condition that no event announces.
func pause() {
	<-time.After(10 * time.Millisecond)
}

func contains(s, part string) bool { return strings.Contains(s, part) }

// writeFile writes a file into a directory of the test and returns its path.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// queueEventsLimit is a limits file that bounds the queue of a durable session.
func queueEventsLimit(n int) string {
	return fmt.Sprintf("v: 1\ndefault:\n  session.queueEvents: %d\n", n)
}

const patience = mqtttest.Patience

var numbered500 = mqtttest.Numbered(1, 500)

func publishTo(topic, payload string) mqtttest.Publish {
	return mqtttest.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)}
}

func ioctl(fd, request, arg uintptr) error {
	value := uint32(arg)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&value))); errno != 0 {
		return errno
	}
	return nil
}
