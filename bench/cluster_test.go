package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// scenario returns the row of that name.
func scenario(t *testing.T, name string) Scenario {
	t.Helper()
	all, err := scenarios(name)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// Clients of a row of several nodes are spread over them, and what one publishes
// goes to another node's client.
func TestNodesShareTheClients(t *testing.T) {
	broker := &fake{}
	order := quick(newFake(t, broker), scenario(t, "d"), v311)
	order.Drain = 10 * time.Second
	for range 2 {
		order.Nodes = append(order.Nodes, Node{Addr: broker.listen(t), PIDs: order.Nodes[0].PIDs})
	}
	f, err := generate(order)
	if err != nil {
		t.Fatal(err)
	}
	checkComplete(t, f, order.Scenario)
	if len(f.NodeRSS) != 3 || f.NodeRSS[0] == 0 || f.BrokerRSS != f.NodeRSS[0]+f.NodeRSS[1]+f.NodeRSS[2] {
		t.Errorf("memory %d, of nodes %v", f.BrokerRSS, f.NodeRSS)
	}
	for i, n := range order.Nodes {
		names := broker.clients[n.Addr]
		if len(names) < 33 || len(names) > 34 {
			t.Errorf("node %d has %d of 100 clients", i, len(names))
		}
		for pair := range order.Scenario.Publishers {
			if slices.Contains(names, fmt.Sprintf("bench-p%d", pair)) && slices.Contains(names, fmt.Sprintf("bench-s%d", pair)) {
				t.Errorf("pair %d is at node %d alone", pair, i)
			}
		}
	}
}

// Absent sessions are durable ones with a subscription, whose clients have left
// before the load begins.
func TestAbsentSessionsAreMade(t *testing.T) {
	for _, version := range []byte{v311, v5} {
		broker := &fake{}
		sc := Scenario{Publishers: 1, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Absent: 200}
		order := quick(newFake(t, broker), sc, version)
		f, err := generate(order)
		if err != nil {
			t.Fatal(err)
		}
		checkComplete(t, f, sc)
		broker.mu.Lock()
		subscribed := 0
		for topic := range broker.subs {
			if strings.HasPrefix(topic, "bench/absent/") {
				subscribed++
			}
		}
		if len(broker.absent) != sc.Absent || subscribed != sc.Absent {
			t.Errorf("MQTT %d: %d clients left, %d topics, want %d", version, len(broker.absent), subscribed, sc.Absent)
		}
		broker.mu.Unlock()
	}
}

func TestWhoTakesPart(t *testing.T) {
	tests := []struct {
		row  string
		want string
	}{
		{"a1", "mosquitto nats mochi bellwire"},
		{"c3s", "nats mochi bellwire"},
		{"d", "nats bellwire bellwire-1"},
		{"ds", "nats bellwire bellwire-1"},
		{"br1", "mosquitto bellwire"},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range Peers() {
			if p.takesPart(scenario(t, tt.row)) {
				got = append(got, p.Name)
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %s, want %s", tt.row, s, tt.want)
		}
	}
}

// Three nodes of Bellwire, as built, take a load that counts.
func TestRowAgainstThreeNodes(t *testing.T) {
	ctx := t.Context()
	e := env{root: "..", bin: t.TempDir(), bellwire: os.Getenv("BELLWIRE_BINARY")}
	path, _, err := buildBellwire(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	sc := scenario(t, "dn1")
	sc.Absent = 90
	all, err := startBellwireNodes(ctx, e, path, t.TempDir(), sc)
	if err != nil {
		t.Fatal(err)
	}
	defer all.stop()
	order := quick("", sc, v311)
	order.Nodes = all.nodes()
	order.WarmUp, order.Measure = 100*time.Millisecond, 300*time.Millisecond
	order.Stall, order.Drain = 20*time.Second, 20*time.Second
	f, err := generate(order)
	if err != nil {
		t.Fatal(err)
	}
	checkComplete(t, f, sc)
	if n, ok := all.syncs(ctx); !ok || n == 0 {
		t.Errorf("syncs %v, %t", n, ok)
	}
}

// A node that ends while its cluster is awaited is an error that says why.
func TestNodeThatEnds(t *testing.T) {
	p, err := (env{}).launch(t.Context(), newFake(t, &fake{}), "", "", "sh", "-c", "echo no quorum >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = awaitAll(t.Context(), fleet{p}, func(context.Context, *broker) error { return context.Canceled })
	if err == nil || !strings.Contains(err.Error(), "node 1 ended: exit status 3: no quorum") {
		t.Errorf("error %v", err)
	}
}

// A node is ready when it accepts a client, and not before.
func TestWelcomes(t *testing.T) {
	good, full := &fake{}, &fake{refuse: 3}
	if err := welcomes(t.Context(), newFake(t, good)); err != nil {
		t.Error(err)
	}
	if err := welcomes(t.Context(), newFake(t, full)); err == nil || !strings.Contains(err.Error(), "CONNACK 0x03") {
		t.Errorf("error %v", err)
	}
}

// A broker with a bridge takes a load that crosses it both ways, and counts; what its peer costs
// does not.
func TestRowsOfBridges(t *testing.T) {
	ctx := t.Context()
	e := env{root: "..", bin: t.TempDir(), bellwire: os.Getenv("BELLWIRE_BINARY")}
	for _, p := range Peers() {
		sc := scenario(t, "br2")
		if !p.takesPart(sc) {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			path, _, err := p.prepare(ctx, e)
			if err != nil {
				t.Skip(err)
			}
			all, err := p.startFleet(ctx, e, path, t.TempDir(), sc)
			if err != nil {
				t.Fatal(err)
			}
			defer all.stop()
			order := quick("", sc, v311)
			order.Nodes = all.nodes()
			order.WarmUp, order.Measure = 100*time.Millisecond, 300*time.Millisecond
			order.Stall, order.Drain = 20*time.Second, 20*time.Second
			f, err := generate(order)
			if err != nil {
				t.Fatal(err)
			}
			checkComplete(t, f, sc)
			if n := len(order.Nodes[1].PIDs); n != 0 {
				t.Errorf("%d processes of the peer count", n)
			}
		})
	}
}
