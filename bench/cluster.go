package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

// clusterWithin is how long a cluster has, from the start of its last node until
// all of them have a vote and agree who leads.
const clusterWithin = 60 * time.Second

// A fleet is the nodes of a running broker; most have one.
type fleet []*broker

// startFleet starts what sc wants of p.
func (p Peer) startFleet(ctx context.Context, e env, path, dir string, sc Scenario) (fleet, error) {
	if sc.Bridged {
		return p.startFar(ctx, e, path, dir, sc)
	}
	if sc.Nodes > 1 && p.startNodes != nil {
		return p.startNodes(ctx, e, path, dir, sc)
	}
	b, err := p.start(ctx, e, path, dir, sc)
	if err != nil {
		return nil, err
	}
	return fleet{b}, nil
}

// stop ends all nodes, the last that was started first: who began the cluster
// leads it mostly, and would hand that on to one that ends next.
func (f fleet) stop() {
	for i := len(f) - 1; i >= 0; i-- {
		f[i].stop()
	}
}

// said returns what the nodes, which have been stopped, had printed last.
func (f fleet) said() string {
	var all []string
	for i, b := range f {
		said := b.said()
		if said != "" && len(f) > 1 {
			said = fmt.Sprintf("node %d: %s", i+1, said)
		}
		all = append(all, said)
	}
	return strings.TrimSpace(strings.Join(all, "\n"))
}

// syncs is the sum over all nodes; ok is false when one does not tell.
func (f fleet) syncs(ctx context.Context) (sum float64, ok bool) {
	for _, b := range f {
		if b.unmeasured {
			continue
		}
		n, ok := b.syncs(ctx)
		if !ok {
			return 0, false
		}
		sum += n
	}
	return sum, true
}

// nodes is what a generator is told.
func (f fleet) nodes() (all []Node) {
	for _, b := range f {
		n := Node{Addr: b.addr}
		if !b.unmeasured {
			n.PIDs = session(b.cmd.Process.Pid)
		}
		all = append(all, n)
	}
	return all
}

// startBellwireNodes makes certificates and starts nodes as an operator would: the
// first begins the cluster, the others join it, and the load begins when each has
// a vote.
func startBellwireNodes(ctx context.Context, e env, path, dir string, sc Scenario) (_ fleet, err error) {
	ca := filepath.Join(dir, "ca")
	if _, err := output(ctx, dir, path, "cert", "ca", "--out", ca); err != nil {
		return nil, err
	}
	var all fleet
	defer func() {
		if err != nil {
			all.stop()
		}
	}()
	for i := range sc.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		tls := filepath.Join(dir, name+"-tls")
		if _, err := output(ctx, dir, path, "cert", "node", "--ca", ca, "--name", name, "--out", tls); err != nil {
			return nil, err
		}
		more := []string{"--node", name, "--cluster", "127.0.0.1:0", "--cluster-tls", tls}
		if i == 0 {
			more = append(more, "--bootstrap")
		} else {
			more = append(more, "--join", all[0].cluster)
		}
		b, err := e.startBellwire(ctx, path, filepath.Join(dir, name), sc, more...)
		if err != nil {
			return all, fmt.Errorf("node %s: %w", name, err)
		}
		all = append(all, b)
	}
	return all, awaitAll(ctx, all, func(ctx context.Context, b *broker) error { return haveVotes(ctx, b.http, sc.Nodes) })
}

// haveVotes says what is missing until the node at addr says that want nodes have
// a vote and answer, and that one leads.
func haveVotes(ctx context.Context, addr string, want int) error {
	var status struct {
		Leader string `json:"leader"`
		Voters int    `json:"voters"`
		Up     int    `json:"up"`
	}
	if err := get(ctx, "http://"+addr+"/v1/cluster", func(resp *http.Response) error {
		return json.NewDecoder(resp.Body).Decode(&status)
	}); err != nil {
		return err
	}
	if status.Leader == "" || status.Voters != want || status.Up != want {
		return fmt.Errorf("leader %q, %d of %d nodes have a vote, %d answer", status.Leader, status.Voters, want, status.Up)
	}
	return nil
}

// startNATSNodes starts servers that replicate what MQTT clients store to as many
// of them as there are.
func startNATSNodes(ctx context.Context, e env, path, dir string, sc Scenario) (_ fleet, err error) {
	mqtt, routes, health, err := natsPorts(sc.Nodes)
	if err != nil {
		return nil, err
	}
	var all fleet
	defer func() {
		if err != nil {
			all.stop()
		}
	}()
	sync := ""
	if sc.Synced {
		sync = ", sync_interval: always"
	}
	for i := range sc.Nodes {
		conf := fmt.Sprintf(`server_name: n%d
listen: "127.0.0.1:-1"
http: %q
jetstream { store_dir: %q%s }
mqtt { listen: %q, stream_replicas: %d, js_api_timeout: "30s" }
cluster { name: bench, listen: %q, routes: [%s] }
`, i+1, health[i], filepath.Join(dir, fmt.Sprintf("js%d", i+1)), sync, mqtt[i], sc.Nodes, routes[i], natsRoutes(routes))
		b, err := e.launch(ctx, mqtt[i], filepath.Join(dir, fmt.Sprintf("nats%d.conf", i+1)), conf, path, "-c")
		if err != nil {
			return all, fmt.Errorf("node n%d: %w", i+1, err)
		}
		b.health = health[i]
		all = append(all, b)
	}
	if err := awaitAll(ctx, all, func(ctx context.Context, b *broker) error {
		return get(ctx, "http://"+b.health+"/healthz", func(*http.Response) error { return nil })
	}); err != nil {
		return all, err
	}
	// What it keeps for MQTT is made when the first client comes, and when several
	// come at once several times, which can take too long for all of them.
	return all, awaitAll(ctx, all, func(ctx context.Context, b *broker) error { return welcomes(ctx, b.addr) })
}

// welcomes says what is wrong until the node at addr accepts a client.
func welcomes(ctx context.Context, addr string) error {
	c, err := greeted(ctx, addr, "bench-first")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte{typeDisconnect, 0})
	return err
}

// natsPorts returns addresses for each node: of clients, of other nodes, and where
// it says how it is.
func natsPorts(nodes int) (mqtt, routes, health []string, err error) {
	var open []net.Listener // until all are chosen, or one would be chosen twice
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for range nodes {
		for _, to := range []*[]string{&mqtt, &routes, &health} {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return nil, nil, nil, err
			}
			open = append(open, l)
			*to = append(*to, l.Addr().String())
		}
	}
	return mqtt, routes, health, nil
}

func natsRoutes(addresses []string) string {
	var all []string
	for _, a := range addresses {
		all = append(all, fmt.Sprintf("%q", "nats-route://"+a))
	}
	return strings.Join(all, ", ")
}

// awaitAll asks each node until none has anything to complain of.
func awaitAll(ctx context.Context, all fleet, ask func(context.Context, *broker) error) error {
	ctx, cancel := context.WithTimeout(ctx, clusterWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i, b := range all {
		for {
			err := ask(ctx, b)
			if err == nil {
				break
			}
			select {
			case <-b.exited:
				return fmt.Errorf("node %d ended: %w: %s", i+1, cmpErr(b.err), b.said())
			case <-ctx.Done():
				return fmt.Errorf("node %d of %d is not ready: %w", i+1, len(all), err)
			case <-tick.C:
			}
		}
	}
	return nil
}

// get asks a node over HTTP, and has read take the answer, if it is a good one.
func get(ctx context.Context, url string, read func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return read(resp)
}
