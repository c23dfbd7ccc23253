package blackbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A foreign is a broker that a bridge connects to: Debian's mosquitto, which keeps what it
// has acknowledged on its disk, or one of ours.
type foreign struct {
	addr        string
	kill, start func() // mosquitto, which acknowledges before it saves, is told to end
	pid         func() int
}

// foreigns are the peers that bridges are tried with.
var foreigns = map[string]func(t *testing.T) foreign{
	"mosquitto": mosquittoBroker,
	"bellwire": func(t *testing.T) foreign {
		t.Helper()
		s := prepare(t, filepath.Join(t.TempDir(), "data"), "--allow-anonymous")
		s.args = append(s.args, "--mqtt", freeAddress(t))
		s.start()
		return foreign{s.ready.MQTT, s.kill, s.start, s.pid}
	},
}

// mosquittoBroker starts a mosquitto on a port that it keeps.
func mosquittoBroker(t *testing.T) foreign {
	t.Helper()
	return mosquittoWith(t, "allow_anonymous true")
}

func mosquittoWith(t testing.TB, lines ...string) foreign {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Skip("missing: mosquitto, apt-get install mosquitto")
		}
	}
	f := foreign{addr: freeAddress(t)}
	host, port, _ := net.SplitHostPort(f.addr)
	text := fmt.Sprintf(`user root
listener %s %s
persistence true
persistence_location %s/
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
max_inflight_messages 0
`, port, host, t.TempDir())
	conf := writeFile(t, "mosquitto.conf", text+strings.Join(lines, "\n")+"\n")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	var cmd *exec.Cmd
	f.kill = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	f.start = func() {
		cmd = exec.Command(path, "-c", conf)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "mosquitto listens", patience, func() bool { return listens(f.addr) })
	}
	f.pid = func() int { return cmd.Process.Pid }
	f.start()
	t.Cleanup(func() {
		f.kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("mosquitto:\n%s", text[max(0, len(text)-4<<10):])
		}
	})
	return f
}

// listens says whether somebody does at an address.
func listens(address string) bool {
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// bridged starts a server with a bridge called b to a peer; more are further lines of the
// bridge, topics come last.
func bridged(t testing.TB, peer, more string, flags ...string) *server {
	t.Helper()
	s := prepareBridged(t, peer, more, flags...)
	s.start()
	s.awaitBridge()
	return s
}

func prepareBridged(t testing.TB, peer, more string, flags ...string) *server {
	t.Helper()
	text := fmt.Sprintf("bridges:\n  - name: b\n    address: %q\n    retry_max: 1s\n", peer)
	for line := range strings.Lines(more) {
		text += "    " + line
	}
	conf := writeFile(t, "bellwire.yaml", text+"\n")
	if len(flags) == 0 {
		flags = []string{"--allow-anonymous"}
	}
	return prepare(t, filepath.Join(t.TempDir(), "data"), append([]string{"-f", conf}, flags...)...)
}

// awaitBridge waits until the bridge b is connected, and has what it asked for.
func (s *server) awaitBridge() {
	s.t.Helper()
	until(s.t, "the bridge is connected", patience, func() bool { return s.metric("bellwire_bridge_connected") == 1 })
}

// topicsBoth are topics of a bridge that carries everything below two prefixes, each with
// another name at the other side.
const topicsBoth = `topics:
  - {filter: "#", direction: out, qos: 2, local_prefix: up/, remote_prefix: hq/site1/}
  - {filter: "+/x/#", direction: in, qos: 2, local_prefix: down/, remote_prefix: cmd/}`

// Events go both ways at every QoS, by both versions of MQTT, under the names that the
// bridge gives them; what no topic of it matches stays where it is. What is retained stays so,
// and what was retained before the bridge came is carried, too.
//
// MQTT 3.1.1: 7.0.0-1.
func TestBridgeCarries(t *testing.T) {
	t.Parallel()
	for who, start := range foreigns {
		for _, version := range []string{"5", "3.1.1"} {
			t.Run(who+" "+version, func(t *testing.T) {
				t.Parallel()
				peer := start(t)
				there := mq.Open(t, peer.addr, v5, clean("there"))
				there.PublishMessage(mq.Publish{Topic: "cmd/a/x/old", QoS: 1, Retain: true, Payload: []byte("kept")})
				s := bridged(t, peer.addr, fmt.Sprintf("protocol: %q\n", version)+topicsBoth)
				here := s.open(v5, clean("here"))
				here.SubscribeTo(nil, mq.Filter{Filter: "down/#", QoS: 2, RetainAsPublished: true})
				here.ReceiveText("down/a/x/old", "kept")
				there.SubscribeTo(nil, mq.Filter{Filter: "hq/#", QoS: 2, RetainAsPublished: true})
				for qos := range byte(3) {
					for _, retain := range []bool{false, true} {
						text := fmt.Sprint("qos ", qos, " retain ", retain)
						here.PublishMessage(mq.Publish{Topic: "up/a/b", QoS: qos, Retain: retain, Payload: []byte(text)})
						p := there.ReceiveText("hq/site1/a/b", text)
						if p.QoS() != qos || p.Retain() != retain {
							t.Errorf("out: got %v, want %s", p, text)
						}
						there.PublishMessage(mq.Publish{Topic: "cmd/a/y", QoS: qos, Payload: []byte("not for the bridge")})
						there.PublishMessage(mq.Publish{Topic: "cmd/a/x/b", QoS: qos, Retain: retain, Payload: []byte(text)})
						p = here.ReceiveText("down/a/x/b", text)
						if p.QoS() != qos || p.Retain() != retain {
							t.Errorf("in: got %v, want %s", p, text)
						}
					}
				}
				until(t, "all is acknowledged", patience, func() bool {
					return s.metric("bellwire_bridge_lag_messages") == 0 && s.metric("bellwire_bridge_messages_total", `direction="out"`) == 6 && s.metric("bellwire_bridge_messages_total", `direction="in"`) == 7
				})
				if n := s.metric("bellwire_bridge_errors_total") + s.metric("bellwire_bridge_dropped_total"); n > 0 {
					t.Errorf("%v errors and drops", n)
				}
			})
		}
	}
}

// All properties of an event come to the other side as they were, in their order; a response
// topic is the name by which the answer finds back.
func TestBridgeKeepsProperties(t *testing.T) {
	t.Parallel()
	for who, start := range foreigns {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			peer := start(t)
			s := bridged(t, peer.addr, topicsBoth)
			here, there := s.open(v5, clean("here")), mq.Open(t, peer.addr, v5, clean("there"))
			here.Subscribe("down/#", 2)
			there.Subscribe("hq/#", 2)
			for _, c := range []struct {
				from, to    *mq.Client
				topic, name string
				ask, answer string
			}{
				{here, there, "up/ask", "hq/site1/ask", "down/1/x/answer", "cmd/1/x/answer"},
				{there, here, "cmd/1/x/ask", "down/1/x/ask", "hq/site1/answer", "up/answer"},
				{here, there, "up/ask", "hq/site1/ask", "elsewhere", "elsewhere"},
			} {
				c.from.PublishMessage(mq.Publish{Topic: c.topic, QoS: 1, Payload: []byte("{}"), Properties: mq.Properties{
					mq.Number(mq.PropPayloadFormat, 1), mq.Number(mq.PropMessageExpiry, 100), mq.Text(mq.PropContentType, "application/json"),
					mq.Text(mq.PropResponseTopic, c.ask), mq.Text(mq.PropCorrelationData, "\x00\x01"),
					mq.User("b", "2"), mq.User("a", "1"), mq.User("b", "3"),
				}})
				p := c.to.ReceiveText(c.name, "{}")
				number := func(id byte) uint32 { n, _ := p.Properties.Number(id); return n }
				if number(mq.PropPayloadFormat) != 1 || p.Properties.Text(mq.PropContentType) != "application/json" || p.Properties.Text(mq.PropCorrelationData) != "\x00\x01" {
					t.Errorf("%s: got properties %v", c.topic, p.Properties)
				}
				if n := number(mq.PropMessageExpiry); n == 0 || n > 100 {
					t.Errorf("%s: expiry %d, want at most 100", c.topic, n)
				}
				if got := p.Properties.Text(mq.PropResponseTopic); got != c.answer {
					t.Errorf("%s: response topic %q, want %q", c.topic, got, c.answer)
				}
				var users []string
				for _, u := range p.Properties.User() {
					if !strings.HasPrefix(u, "bellwire-hops") {
						users = append(users, u)
					}
				}
				if got := strings.Join(users, " "); got != "b=2 a=1 b=3" {
					t.Errorf("%s: user properties %q", c.topic, got)
				}
			}
		})
	}
}

// The policy decides what a bridge may have and publish, by the principal that it is; what it
// refuses is counted, and the rest goes on. A rule that comes later is heeded.
func TestBridgeObeysPolicy(t *testing.T) {
	t.Parallel()
	const rules = `rules:
  - {id: all, allow: [publish, subscribe], who: ["other@example.com", anonymous], topic: ["#"]}
  - {id: bridge, allow: [publish, subscribe], who: ["bridge-b@example.com"], topic: ["open/#"]}
`
	peer := mosquittoBroker(t)
	policy := writeFile(t, "policy.yaml", rules)
	s := bridged(t, peer.addr, `topics:
  - {filter: "secret/#", direction: both, qos: 1}
  - {filter: "open/#", direction: both, qos: 1}`, "--policy", policy, "--allow-anonymous")
	until(t, "the subscription is refused", patience, func() bool { return s.metric("bellwire_bridge_errors_total", `reason="subscribe"`) > 0 })
	here, there := s.open(v5, clean("here")), mq.Open(t, peer.addr, v5, clean("there"))
	here.Subscribe("#", 1)
	there.Subscribe("#", 1)
	there.Publish("secret/a", 1, "not this")
	there.ReceiveText("secret/a", "not this")
	there.Publish("open/a", 1, "this")
	there.ReceiveText("open/a", "this")
	here.ReceiveText("open/a", "this")
	here.Publish("secret/b", 1, "not out")
	here.ReceiveText("secret/b", "not out")
	here.Publish("open/b", 1, "out")
	here.ReceiveText("open/b", "out")
	there.ReceiveText("open/b", "out")
	if n := s.metric("bellwire_bridge_dropped_total", `reason="refused"`); n != 1 {
		t.Errorf("%v events refused, want 1", n)
	}
}
