package main

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/bellwire/bellwire/cluster"
)

// An elsewhere knows where clients can go that this node sends away, because it is
// taken out of service, or hears of no leader. Nodes tell each other where clients
// reach them, and it looks at what they say every few seconds: when it is needed,
// nobody may be there to be asked.
type elsewhere struct {
	mu    sync.Mutex // guards the following
	self  string     // where clients reach this node; empty: nowhere that others could name
	known []string   // where they reach others
	next  int        // turns from one to the next, so that they are not all sent to one

	stop  chan struct{} // nil for a node alone
	tasks sync.WaitGroup
}

// elsewhereTime is how often the others are looked at.
const elsewhereTime = 3 * time.Second

// pick returns where another client may go, in turn; empty if nothing is known.
func (e *elsewhere) pick() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.known) == 0 {
		return ""
	}
	e.next++
	return e.known[e.next%len(e.known)]
}

// own returns where clients reach this node.
func (e *elsewhere) own() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.self
}

// look takes note of what the members say. Those that answer and serve are where to
// go. If none does, it is this node that is cut off: those that there were are.
func (e *elsewhere) look(members []cluster.Member) {
	var serve []string
	for _, m := range statusOf("", members).Members {
		self := slices.ContainsFunc(members, func(o cluster.Member) bool { return o.Self && o.ID == m.ID })
		if !self && m.Role != "down" && m.State == "" && m.MQTT != "" {
			serve = append(serve, m.MQTT)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(serve) > 0 || len(members) == 1 {
		e.known = serve
	}
}

// tellClientsAddress begins to tell the others where clients reach this node, and to
// look where they reach the others.
func (s *server) tellClientsAddress() {
	if s.links == nil {
		return
	}
	e := &s.elsewhere
	e.mu.Lock()
	defer e.mu.Unlock()
	e.self = clientsAddress(s.mqttAddress(), s.config.advertiseMQTT, s.links.Addr())
	stop := make(chan struct{})
	e.stop = stop
	e.tasks.Go(func() {
		tick := time.NewTicker(elsewhereTime)
		defer tick.Stop()
		for {
			e.look(s.node.Members(statePatience))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
}

func (e *elsewhere) close() {
	e.mu.Lock()
	stop := e.stop
	e.stop = nil
	e.mu.Unlock()
	if stop != nil {
		close(stop)
	}
	e.tasks.Wait()
}

// clientsAddress returns the address that a node tells for its clients: advertised,
// or the one that it listens at, with the host of its cluster address if that is every
// one of the machine. An address on loopback means something only to those who are on
// this machine, as all nodes are if the cluster's is on loopback, too.
func clientsAddress(listens, advertised, member string) string {
	if advertised != "" {
		return advertised
	}
	host, port, err := net.SplitHostPort(listens)
	if err != nil {
		return ""
	}
	switch at, _, err := net.SplitHostPort(member); {
	case unspecified(host) && err == nil:
		return net.JoinHostPort(at, port)
	case loopbackAddress(listens) && !loopbackAddress(member):
		return ""
	}
	return listens
}
