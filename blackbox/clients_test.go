package blackbox

import (
	"bufio"
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

// Everybody's clients, each by every way that it has, hear each other: what one
// publishes by WebSocket comes to another by TLS.
func TestRealClientsByEveryWay(t *testing.T) {
	t.Parallel()
	c := newTLS(t)
	s := serve(t, append(c.flags(), "--tls-min", "1.2", "--allow-anonymous", "--mqtts", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--wss", "127.0.0.1:0")...)
	at := map[string]string{
		"mqtts": "mqtts://" + s.ready.MQTTS + "?ca=" + c.ca(), "ws": "ws://" + s.ready.WS, "wss": "wss://" + s.ready.WSS + "?ca=" + c.ca(),
	}
	all := []string{"mqtts", "ws", "wss"}
	peers := []struct {
		peer
		ways []string
	}{
		{mosquitto(t, "mqttv311"), all[:1]},
		{mosquitto(t, "mqttv5"), all[:1]},
		{peer{"paho.golang", subscribePaho5, publishPaho5}, all},
		{peer{"paho.mqtt.golang", subscribePaho3, publishPaho3}, all},
	}
	t.Run("MQTT.js", func(t *testing.T) { // without it the others go on
		for _, version := range []string{"4", "5"} {
			js := mqttjs(t, version)
			for _, way := range all {
				hearOneself(t, js, at[way], way)
			}
		}
	})
	inboxes := map[string]<-chan string{}
	for _, p := range peers {
		for _, way := range p.ways {
			inboxes[p.name+" by "+way] = p.subscribe(t, at[way], name(t)+"/#")
		}
	}
	for _, p := range peers {
		for _, way := range p.ways {
			topic := name(t) + "/" + strings.ReplaceAll(p.name, " ", "-") + "-" + way
			p.publish(t, at[way], topic, p.name)
			for who, inbox := range inboxes {
				wantThree(t, p.name+" by "+way, who, inbox, topic, p.name)
			}
		}
	}
}

// hearOneself has a client publish to itself.
func hearOneself(t *testing.T, p peer, addr, way string) {
	t.Helper()
	topic := name(t) + "/" + strings.ReplaceAll(p.name, " ", "-") + "-" + way
	inbox := p.subscribe(t, addr, topic)
	p.publish(t, addr, topic, p.name)
	wantThree(t, p.name, p.name+" by "+way, inbox, topic, p.name)
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

func mqttjs(t *testing.T, version string) peer {
	t.Helper()
	need(t, "node", "nodejs")
	modules, err := filepath.Abs("../.cache/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "mqtt")); err != nil {
		t.Skip("missing: MQTT.js, run make setup")
	}
	node := func(verb, addr string, more ...string) *exec.Cmd {
		at := whereOf(addr)
		cmd := exec.Command("node", append([]string{"testdata/mqttjs.cjs", verb, at.host, at.port, version}, more...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "PROTOCOL="+at.scheme, "CA="+at.ca)
		return cmd
	}
	return peer{
		name: "MQTT.js " + version,
		subscribe: func(t *testing.T, addr, filter string) <-chan string {
			return listen(t, node("sub", addr, filter), "subscribed")
		},
		publish: func(t *testing.T, addr, topic, text string) {
			t.Helper()
			cmd := node("pub", addr, topic, text)
			timer := time.AfterFunc(2*mq.Patience, func() { _ = cmd.Process.Kill() }) // it waits for ever for an acknowledgement it dislikes
			defer timer.Stop()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("MQTT.js: %v %s", err, out)
			}
		},
	}
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
