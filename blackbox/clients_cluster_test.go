package blackbox

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/autopaho/queue/memory"
	paho5 "github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// roam keeps a paho client with a durable session connected to one of some
// addresses, the first that takes it, as a program would that lets autopaho do it.
func roam(t *testing.T, id string, addresses []string, config func(*autopaho.ClientConfig)) *autopaho.ConnectionManager {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := autopaho.ClientConfig{
		KeepAlive: 20, SessionExpiryInterval: 3600, ConnectTimeout: 2 * time.Second,
		ReconnectBackoff: autopaho.NewConstantBackoff(50 * time.Millisecond),
		Queue:            memory.New(),
		ClientConfig:     paho5.ClientConfig{ClientID: id},
	}
	for _, addr := range addresses {
		c.ServerUrls = append(c.ServerUrls, &url.URL{Scheme: "mqtt", Host: addr})
	}
	if config != nil {
		config(&c)
	}
	m, err := autopaho.NewConnection(ctx, c)
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

// An inbox is what a client was handed, in order, by topic.
type inbox struct {
	mu  sync.Mutex
	all map[string][]string
}

func (b *inbox) put(topic, payload string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[string][]string{}
	}
	b.all[topic] = append(b.all[topic], payload)
}

func (b *inbox) of(topic string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all[topic])
}

// Programs on paho.golang publish and subscribe across three nodes, which are killed
// one after the other: the library finds the next node of its list by itself, and its
// sessions are there. At QoS 1 nothing is missing and first deliveries are in order;
// at QoS 2 each message is handed over once. Who came back in time has no will sent,
// and every node tells the same retained values.
func TestClusterRealClientsRoam(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	var got inbox
	sub := roam(t, "paho-sub", c.addresses(1), func(c *autopaho.ClientConfig) {
		c.OnPublishReceived = []func(paho5.PublishReceived) (bool, error){func(r paho5.PublishReceived) (bool, error) {
			got.put(r.Packet.Topic, string(r.Packet.Payload))
			return true, nil
		}}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := sub.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "news/#", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	sent := make([]int, 4)
	for i := range sent {
		qos := byte(1 + i%2)
		pub := roam(t, fmt.Sprint("paho-pub", i), c.addresses(i), func(c *autopaho.ClientConfig) {
			c.WillMessage = &paho5.WillMessage{Topic: fmt.Sprint("news/gone/", i), Payload: []byte("gone"), QoS: 1}
			delay := uint32(30)
			c.WillProperties = &paho5.WillProperties{WillDelayInterval: &delay}
		})
		publishers.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				m := &paho5.Publish{Topic: fmt.Sprint("news/", i), QoS: qos, Retain: n%10 == 0, Payload: fmt.Append(nil, n)}
				if err := pub.PublishViaQueue(ctx, &autopaho.QueuePublish{Publish: m}); err != nil {
					t.Error(err)
					return
				}
				sent[i] = n
			}
		})
	}
	for round := range effort.Turns(t) {
		n := c.nodes[round%clusterSize]
		arrive(t, &got, len(sent), 50)
		n.kill()
		arrive(t, &got, len(sent), 50)
		n.start()
		c.await("three voters that answer", allVote)
	}
	close(stop)
	publishers.Wait()
	for i, n := range sent {
		topic := fmt.Sprint("news/", i)
		until(t, topic+" has come as a whole", 30*time.Second, func() bool { return slices.Contains(got.of(topic), fmt.Sprint(n)) })
		inOrder(t, topic, got.of(topic), n, i%2 == 1)
		if wills := got.of(fmt.Sprint("news/gone/", i)); len(wills) > 0 {
			t.Errorf("the will of publisher %d was sent, who came back each time", i)
		}
	}
	for _, n := range c.nodes {
		reader := n.open(v5, clean("reader"))
		reader.Subscribe("news/+", 1)
		values := map[string]string{}
		for len(values) < len(sent) {
			p := reader.Receive()
			values[p.Topic] = string(p.Payload)
		}
		for i, last := range sent {
			if want, got := fmt.Sprint(last/10*10), values[fmt.Sprint("news/", i)]; got != want {
				t.Errorf("retained on news/%d: %s, want %s", i, got, want)
			}
		}
	}
	c.alike()
}

// arrive waits until so many more have arrived on each of some topics.
func arrive(t *testing.T, got *inbox, topics, more int) {
	t.Helper()
	for i := range topics {
		topic := fmt.Sprint("news/", i)
		want := len(got.of(topic)) + more
		until(t, fmt.Sprintf("%d more on %s", more, topic), 30*time.Second, func() bool { return len(got.of(topic)) >= want })
	}
}

// inOrder wants 1 to n to have come first in this order, and if once, not again.
func inOrder(t *testing.T, topic string, got []string, n int, once bool) {
	t.Helper()
	due, again := 1, 0
	for _, text := range got {
		var i int
		if _, err := fmt.Sscan(text, &i); err != nil {
			t.Fatalf("%s: got %q", topic, text)
		}
		switch {
		case i == due:
			due++
		case i < due:
			again++
		default:
			t.Fatalf("%s: %d came where %d was due", topic, i, due)
		}
	}
	if due != n+1 {
		t.Errorf("%s: %d of %d came", topic, due-1, n)
	}
	if once && again > 0 {
		t.Errorf("%s: %d came again at QoS 2", topic, again)
	}
	t.Logf("%s: %d came, %d of them again", topic, n, again)
}

// mosquitto's own programs over three nodes: a subscriber in its session goes from
// node to node and finds what it missed, in both versions; what mosquitto_pub was
// acknowledged on one node reaches it, though the node is killed right after.
func TestClusterMosquittoRoams(t *testing.T) {
	t.Parallel()
	need(t, "mosquitto_sub", "mosquitto-clients")
	c := newTrio(t)
	for _, version := range []string{"mqttv311", "mqttv5"} {
		at := func(node int, more ...string) []string {
			host, port, _ := net.SplitHostPort(c.nodes[node].ready.MQTT)
			return append([]string{"-h", host, "-p", port, "-V", version}, more...)
		}
		session := []string{"-i", "mosq-" + version, "-c", "-q", "2", "-t", version + "/#"}
		if version == "mqttv5" {
			session = append(session, "-x", "3600")
		}
		// receive takes so many messages at a node, within the session.
		receive := func(node, count int) []string {
			t.Helper()
			args := append(at(node, session...), "-C", fmt.Sprint(count), "-W", "20", "-F", "%q %t %p")
			out, err := exec.Command("mosquitto_sub", args...).CombinedOutput()
			if err != nil {
				t.Fatalf("mosquitto_sub %v: %v %s", args, err, out)
			}
			// The program has said that it has them, and that it leaves, and does not wait for an
			// answer: a node that is killed before it has ordered that has them sent again.
			until(t, "its leave is ordered", patience, func() bool { return c.nodes[node].metric("bellwire_sessions_connected") == 0 })
			return strings.Split(strings.TrimSpace(string(out)), "\n")
		}
		if out, err := exec.Command("mosquitto_sub", append(at(0, session...), "-E")...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_sub -E: %v %s", err, out)
		}
		for round := range clusterSize {
			pub, sub := round, (round+1)%clusterSize
			var want []string
			for i := range 4 {
				qos := 1 + i%2
				line := fmt.Sprintf("%d %s/%d %d.%d", qos, version, qos, round, i)
				args := at(pub, "-q", fmt.Sprint(qos), "-t", fmt.Sprintf("%s/%d", version, qos), "-m", fmt.Sprintf("%d.%d", round, i))
				if out, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil || len(out) > 0 {
					t.Errorf("mosquitto_pub %v: %v %s", args, err, out)
				}
				want = append(want, line)
			}
			c.nodes[pub].kill()
			// The program shows what comes at QoS 2 when it is released: of each topic in order.
			byTopic := func(a, b string) int { return strings.Compare(a[:1], b[:1]) }
			got := receive(sub, len(want))
			slices.SortStableFunc(got, byTopic)
			slices.SortStableFunc(want, byTopic)
			if !slices.Equal(got, want) {
				t.Errorf("%s, published at node %d, received at node %d: got %q, want %q", version, pub, sub, got, want)
			}
			c.nodes[pub].start()
			c.await("three voters that answer", allVote)
		}
	}
	c.alike()
}
