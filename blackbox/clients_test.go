package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A peer is somebody else's client in one protocol version. Its addr is HOST:PORT for
// plain TCP, or as whereOf reads it.
type peer struct {
	name string
	// subscribe subscribes at QoS 2 and hands over "QOS TOPIC PAYLOAD" for
	// each message; it returns when the subscription is in force.
	subscribe func(t *testing.T, addr, filter string) <-chan string
	// publish publishes "TEXT QOS" at QoS 0, 1 and 2.
	publish func(t *testing.T, addr, topic, text string)
}

// Everybody's clients understand each other, at every QoS, across versions.
//
// MQTT 5: 4.2-1.
// MQTT 3.1.1: 7.1.1-1, 7.0.0-2.
func TestRealClients(t *testing.T) {
	t.Parallel()
	addr := plain(t)
	peers := []peer{
		mosquitto(t, "mqttv311"), mosquitto(t, "mqttv5"),
		mqttjs(t, "4"), mqttjs(t, "5"),
		{"paho.golang", subscribePaho5, publishPaho5},
		{"paho.mqtt.golang", subscribePaho3, publishPaho3},
	}
	inboxes := map[string]<-chan string{}
	for _, p := range peers {
		inboxes[p.name] = p.subscribe(t, addr, name(t)+"/#")
	}
	for _, p := range peers {
		topic := name(t) + "/" + strings.ReplaceAll(p.name, " ", "-")
		p.publish(t, addr, topic, p.name)
		for who, inbox := range inboxes {
			wantThree(t, p.name, who, inbox, topic, p.name)
		}
	}
}

// A where is where a client connects, and how: mqtts://HOST:PORT?ca=FILE, or ws or wss
// likewise. HOST:PORT alone is plain TCP.
type where struct{ scheme, host, port, ca string }

func whereOf(addr string) where {
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		host, port, _ := net.SplitHostPort(addr)
		return where{"mqtt", host, port, ""}
	}
	return where{u.Scheme, u.Hostname(), u.Port(), u.Query().Get("ca")}
}

func (p where) addr() string { return net.JoinHostPort(p.host, p.port) }

// tls trusts the authority of the place; nil without one.
func (p where) tls(t *testing.T) *tls.Config {
	t.Helper()
	if p.ca == "" {
		return nil
	}
	pem, err := os.ReadFile(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// Everybody's clients, by every way that each has, hear others and are heard: what one
// publishes by WebSocket comes to another by TLS.
func TestRealClientsByEveryWay(t *testing.T) {
	t.Parallel()
	c := newTLS(t)
	s := serve(t, append(c.flags(), "--tls-min", "1.2", "--allow-anonymous", "--mqtts", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--wss", "127.0.0.1:0", "--ws-origins", "*")...)
	at := map[string]string{
		"mqtt": s.ready.MQTT, "mqtts": "mqtts://" + s.ready.MQTTS + "?ca=" + c.ca(), "ws": "ws://" + s.ready.WS, "wss": "wss://" + s.ready.WSS + "?ca=" + c.ca(),
	}
	every := []string{"mqtt", "mqtts", "ws", "wss"}
	secured, web := every[1:], every[2:] // those of TestRealClients have spoken plain TCP
	for name, of := range map[string]struct {
		make func(t *testing.T) []peer
		ways [][]string // of each; the last is that of all others, too
	}{
		"mosquitto":        {func(t *testing.T) []peer { return []peer{mosquitto(t, "mqttv311"), mosquitto(t, "mqttv5")} }, [][]string{secured[:1]}},
		"MQTT.js":          {func(t *testing.T) []peer { return []peer{mqttjs(t, "4"), mqttjs(t, "5")} }, [][]string{{"mqtts", "wss"}, web}},
		"paho.golang":      {func(*testing.T) []peer { return []peer{{"paho.golang", subscribePaho5, publishPaho5}} }, [][]string{secured}},
		"paho.mqtt.golang": {func(*testing.T) []peer { return []peer{{"paho.mqtt.golang", subscribePaho3, publishPaho3}} }, [][]string{secured}},
		"Paho C":           {func(t *testing.T) []peer { return pahoC(t) }, [][]string{every}},
		"Paho for Python":  {func(t *testing.T) []peer { return []peer{pahoPython(t, "4"), pahoPython(t, "5")} }, [][]string{every}},
		"Chromium": {func(t *testing.T) []peer {
			b := newBrowser(t, c.cert("localhost"))
			return []peer{b.peer(4), b.peer(5)}
		}, [][]string{web}},
	} {
		t.Run(name, func(t *testing.T) { // each with a program that may be missing
			t.Parallel()
			for i, p := range of.make(t) {
				for _, way := range of.ways[min(i, len(of.ways)-1)] {
					hearEachOther(t, p, at[way], way, peer{"paho.golang", subscribePaho5, publishPaho5}, at["wss"])
				}
			}
		})
	}
}

// hearEachOther has a client and another publish, each to both.
func hearEachOther(t *testing.T, p peer, addr, way string, other peer, otherAddr string) {
	t.Helper()
	topic := name(t) + "/" + strings.ReplaceAll(p.name, " ", "-") + "-" + way
	inbox := p.subscribe(t, addr, topic)
	others := other.subscribe(t, otherAddr, topic)
	for _, from := range []struct {
		peer
		addr string
	}{{p, addr}, {other, otherAddr}} {
		from.publish(t, from.addr, topic, from.name)
		wantThree(t, from.name, p.name+" by "+way, inbox, topic, from.name)
		wantThree(t, from.name, other.name, others, topic, from.name)
	}
}

// wantThree takes what was published at QoS 0, 1 and 2.
func wantThree(t *testing.T, from, who string, inbox <-chan string, topic, text string) {
	t.Helper()
	var got, want []string
	for qos := range 3 {
		want = append(want, fmt.Sprintf("%d %s %s %d", qos, topic, text, qos))
		select {
		case line := <-inbox:
			got = append(got, line)
		case <-time.After(mq.Patience):
		}
	}
	slices.Sort(got) // nothing orders QoS 0 before the others for every client
	if !slices.Equal(got, want) {
		t.Errorf("%s published, %s received %q, want %q", from, who, got, want)
	}
}

// A burst to mosquitto_sub at its defaults (Receive Maximum 20) arrives whole.
func TestMQTT16MosquittoGetsAllOfABurst(t *testing.T) {
	t.Parallel()
	addr := plain(t)
	sub := mosquitto(t, "mqttv5")
	inbox := sub.subscribe(t, addr, name(t))
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	publishMany(t, pub, name(t), 1, 1, 510)
	for i := 1; i <= 510; i++ {
		select {
		case line := <-inbox:
			if want := fmt.Sprintf("1 %s %d", name(t), i); line != want {
				t.Fatalf("got %q, want %q", line, want)
			}
		case <-time.After(mq.Patience):
			t.Fatalf("%d of 510 arrived", i-1)
		}
	}
}

func need(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("missing: %s, apt-get install %s", program, pkg)
	}
}

// listen starts a program that prints ready when it is subscribed and then a
// line for each message.
func listen(t *testing.T, cmd *exec.Cmd, ready string) <-chan string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := make(chan string, 10_000)
	subscribed := make(chan struct{})
	go func() {
		in := bufio.NewScanner(out)
		for in.Scan() {
			if subscribed != nil && strings.HasPrefix(in.Text(), ready) {
				close(subscribed)
				subscribed = nil
			} else if line, ok := strings.CutPrefix(in.Text(), "> "); ok {
				lines <- line
			}
		}
	}()
	wait := subscribed
	select {
	case <-wait:
	case <-time.After(mq.Patience):
		t.Fatalf("%v: not subscribed", cmd.Args)
	}
	return lines
}

func mosquitto(t *testing.T, version string) peer {
	t.Helper()
	need(t, "mosquitto_sub", "mosquitto-clients")
	args := func(addr string, more ...string) []string {
		at := whereOf(addr)
		host := at.host
		if at.ca != "" {
			more = append(more, "--cafile", at.ca)
		}
		return append([]string{"-h", host, "-p", at.port, "-V", version}, more...)
	}
	return peer{
		name: "mosquitto " + version,
		subscribe: func(t *testing.T, addr, filter string) <-chan string {
			cmd := exec.Command("stdbuf", append([]string{"-oL", "mosquitto_sub"}, args(addr, "-d", "-q", "2", "-t", filter, "-F", "> %q %t %p")...)...) // by lines: what it prints with -d waits in a buffer
			return listen(t, cmd, "Subscribed (mid: ")
		},
		publish: func(t *testing.T, addr, topic, text string) {
			t.Helper()
			for qos := range 3 {
				out, err := exec.Command("mosquitto_pub", args(addr, "-q", fmt.Sprint(qos), "-t", topic, "-m", fmt.Sprint(text, " ", qos))...).CombinedOutput()
				if err != nil || len(out) > 0 {
					t.Errorf("mosquitto_pub at QoS %d: %v %s", qos, err, out)
				}
			}
		},
	}
}

// mosquitto_rr asks, in MQTT 5 with Response Topic and Correlation Data, or in 3.1.1 by the
// topics alone, and prints the answer.
func TestMosquittoRequests(t *testing.T) {
	t.Parallel()
	need(t, "mosquitto_rr", "mosquitto-clients")
	addr := plain(t)
	for version, v := range map[string]byte{"mqttv5": v5, "mqttv311": v4} {
		ask, answer := name(t, "ask", version), name(t, "answer", version)
		responder := mq.Open(t, addr, v5, clean(name(t, version)))
		responder.Subscribe(ask, 1)
		at := whereOf(addr)
		cmd := exec.Command("mosquitto_rr", "-h", at.host, "-p", at.port, "-V", version, "-q", "1", "-t", ask, "-e", answer, "-m", "how much?", "-W", "30", "-D", "publish", "correlation-data", "c-1")
		if v == v4 {
			cmd.Args = cmd.Args[:len(cmd.Args)-4]
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		request := responder.Receive()
		back := mq.Publish{Topic: answer, QoS: 1, Payload: []byte("42")}
		if v == v5 {
			back.Topic = request.Properties.Text(mq.PropResponseTopic)
			if correlation := request.Properties.Text(mq.PropCorrelationData); correlation != "c-1" || back.Topic != answer {
				t.Errorf("asked with %v", request)
			}
			back.Properties = mq.Properties{mq.Text(mq.PropCorrelationData, "c-1")}
		}
		responder.PublishMessage(back)
		if err := cmd.Wait(); err != nil || out.String() != "42\n" || string(request.Payload) != "how much?" {
			t.Errorf("%s: asked %s, answered %q, %v", version, request.Payload, out.String(), err)
		}
	}
}

// npmModules is the folder that MQTT.js is in.
func npmModules(t *testing.T) string {
	t.Helper()
	modules, err := filepath.Abs("../.cache/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "mqtt")); err != nil {
		t.Skip("missing: MQTT.js, run make setup")
	}
	return modules
}

func mqttjs(t *testing.T, version string) peer {
	t.Helper()
	need(t, "node", "nodejs")
	modules := npmModules(t)
	return program("MQTT.js "+version, func(verb, addr string, more ...string) *exec.Cmd {
		at := whereOf(addr)
		cmd := exec.Command("node", append([]string{"testdata/mqttjs.cjs", verb, at.host, at.port, version}, more...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "PROTOCOL="+at.scheme, "CA="+at.ca)
		return cmd
	})
}

// program is a client in a process of its own: command starts it, with a verb.
func program(name string, command func(verb, addr string, more ...string) *exec.Cmd) peer {
	return peer{
		name: name,
		subscribe: func(t *testing.T, addr, filter string) <-chan string {
			return listen(t, command("sub", addr, filter), "subscribed")
		},
		publish: func(t *testing.T, addr, topic, text string) {
			t.Helper()
			cmd := command("pub", addr, topic, text)
			timer := time.AfterFunc(2*mq.Patience, func() { _ = cmd.Process.Kill() }) // some wait for ever for an acknowledgement that they dislike
			defer timer.Stop()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v %s", name, err, out)
			}
		},
	}
}

// pahoC builds the client on Paho C.
func pahoC(t *testing.T) (versions []peer) {
	t.Helper()
	need(t, "gcc", "gcc libc6-dev")
	if _, err := os.Stat("/usr/include/MQTTClient.h"); err != nil {
		t.Skip("missing: Paho C, apt-get install libpaho-mqtt-dev")
	}
	path := filepath.Join(t.TempDir(), "paho")
	if out, err := exec.Command("gcc", "-Wall", "-o", path, "testdata/pahoc.c", "-lpaho-mqtt3cs").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, version := range []string{"4", "5"} {
		versions = append(versions, program("Paho C "+version, func(verb, addr string, more ...string) *exec.Cmd {
			at := whereOf(addr)
			scheme := map[string]string{"mqtt": "tcp", "mqtts": "ssl"}[at.scheme]
			if scheme == "" {
				scheme = at.scheme
			}
			uri := scheme + "://" + at.addr()
			if scheme == at.scheme {
				uri += "/mqtt"
			}
			cmd := exec.Command(path, append([]string{verb, uri, version}, more...)...)
			cmd.Env = append(os.Environ(), "CA="+at.ca)
			return cmd
		}))
	}
	return versions
}

// pahoPython is the client on Debian's paho-mqtt, which other Pythons on the machine may
// lack.
func pahoPython(t *testing.T, version string) peer {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import paho.mqtt.client").Run(); err != nil {
		t.Skip("missing: paho-mqtt, apt-get install python3-paho-mqtt")
	}
	return program("Paho for Python "+version, func(verb, addr string, more ...string) *exec.Cmd {
		at := whereOf(addr)
		cmd := exec.Command(python, append([]string{"testdata/pahopython.py", verb, at.scheme, at.host, at.port, version}, more...)...)
		cmd.Env = append(os.Environ(), "CA="+at.ca)
		return cmd
	})
}

func dialPaho5(t *testing.T, addr string, got func(*paho5.Publish)) *autopaho.ConnectionManager {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	at := whereOf(addr)
	config := autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{{Scheme: at.scheme, Host: at.addr(), Path: "/mqtt"}},
		TlsCfg:                        at.tls(t),
		KeepAlive:                     20,
		ReconnectBackoff:              autopaho.NewConstantBackoff(50 * time.Millisecond),
		CleanStartOnInitialConnection: true,
		ClientConfig: paho5.ClientConfig{
			OnPublishReceived: []func(paho5.PublishReceived) (bool, error){
				func(r paho5.PublishReceived) (bool, error) { got(r.Packet); return true, nil },
			},
		},
	}
	m, err := autopaho.NewConnection(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		<-m.Done()
	})
	wait, stop := context.WithTimeout(ctx, mq.Patience)
	defer stop()
	if err := m.AwaitConnection(wait); err != nil {
		t.Fatalf("paho.golang: %v", err)
	}
	return m
}

func subscribePaho5(t *testing.T, addr, filter string) <-chan string {
	t.Helper()
	lines := make(chan string, 10_000)
	m := dialPaho5(t, addr, func(p *paho5.Publish) { lines <- fmt.Sprintf("%d %s %s", p.QoS, p.Topic, p.Payload) })
	ctx, cancel := context.WithTimeout(context.Background(), mq.Patience)
	defer cancel()
	if _, err := m.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: filter, QoS: 2}}}); err != nil {
		t.Fatalf("paho.golang: %v", err)
	}
	return lines
}

func publishPaho5(t *testing.T, addr, topic, text string) {
	t.Helper()
	m := dialPaho5(t, addr, func(*paho5.Publish) {})
	ctx, cancel := context.WithTimeout(context.Background(), mq.Patience)
	defer cancel()
	for qos := range byte(3) {
		if _, err := m.Publish(ctx, &paho5.Publish{Topic: topic, QoS: qos, Payload: fmt.Append(nil, text, " ", qos)}); err != nil {
			t.Errorf("paho.golang at QoS %d: %v", qos, err)
		}
	}
}

func dialPaho3(t *testing.T, addr string) paho3.Client {
	t.Helper()
	at := whereOf(addr)
	options := paho3.NewClientOptions().AddBroker(at.scheme + "://" + at.addr() + "/mqtt").SetProtocolVersion(4).SetAutoReconnect(false)
	if conf := at.tls(t); conf != nil {
		options.SetTLSConfig(conf)
	}
	c := paho3.NewClient(options)
	if token := c.Connect(); !token.WaitTimeout(mq.Patience) || token.Error() != nil {
		t.Fatalf("paho.mqtt.golang: %v", token.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func subscribePaho3(t *testing.T, addr, filter string) <-chan string {
	t.Helper()
	lines := make(chan string, 10_000)
	token := dialPaho3(t, addr).Subscribe(filter, 2, func(_ paho3.Client, m paho3.Message) {
		lines <- fmt.Sprintf("%d %s %s", m.Qos(), m.Topic(), m.Payload())
	})
	if !token.WaitTimeout(mq.Patience) || token.Error() != nil {
		t.Fatalf("paho.mqtt.golang: %v", token.Error())
	}
	return lines
}

func publishPaho3(t *testing.T, addr, topic, text string) {
	t.Helper()
	c := dialPaho3(t, addr)
	for qos := range byte(3) {
		if token := c.Publish(topic, qos, false, fmt.Sprint(text, " ", qos)); !token.WaitTimeout(mq.Patience) || token.Error() != nil {
			t.Errorf("paho.mqtt.golang at QoS %d: %v", qos, token.Error())
		}
	}
}
