package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Scenario is one row of the comparison. The letters are those of the
// campaign whose figures the targets come from, so they are kept.
type Scenario struct {
	Name string
	What string // one line for people

	Publishers int  // each publishes to a topic of its own
	FanOut     int  // subscribers of each of these topics, each a connection
	QoS        byte // of publishing and of subscribing; of a retained row, of subscribing
	Payload    int  // bytes, the stamp included
	Durable    bool // the subscribers' sessions outlive their connections
	Memory     bool // Bellwire is told that these topics need no log (durability: memory); others have no such word
	Synced     bool // only brokers that sync to disk before they acknowledge take part

	Retain bool // messages are retained

	// Permissions are on: everybody signs in and publishes a document of the
	// presence kind, on a topic of it, and owners say who may see theirs.
	Permissions bool
	Rate        float64       // if not 0, an open loop: so many messages a second over all publishers, in turn
	Burst       int           // if not 0, a closed loop that ends when each publisher, in turn, has sent so many; the first is the warm-up
	Least       time.Duration // of measuring, whatever is asked for: at a low rate the clock of CPU time is coarse

	// Nodes, if more than 1, is how many nodes the broker consists of. Brokers and
	// generator then share all cores. Publishers and subscribers are spread over
	// the nodes; a subscriber is at the node after its publisher's.
	Nodes int

	// Bridged says that of two nodes the first is the broker, with a bridge that carries all
	// both ways, and the second a mosquitto, whose cost does not count.
	Bridged bool

	// Absent is how many durable sessions there are beside, each with a subscription
	// to a topic of its own, whose clients have been and left.
	Absent int

	Filters int // if not 0, this many subscriptions, of which two match a message
	Watch   int // if not 0, each publisher also subscribes to so many of the others

	Idle      int  // if not 0, this many connections and no traffic at all
	IdleTopic bool // each of them holds one subscription

	Retained int // if not 0, this many retained messages, set and then fetched
}

// Scenarios returns all rows, in the order in which they are listed.
func Scenarios() []Scenario {
	return []Scenario{
		{Name: "a1", What: "fan-out 1 to 100, 64 B, QoS 0", Publishers: 1, FanOut: 100, Payload: 64},
		{Name: "a2", What: "fan-out 1 to 100, 1 KiB, QoS 0", Publishers: 1, FanOut: 100, Payload: 1024},
		{Name: "a3", What: "fan-out 1 to 1000, 64 B, QoS 0", Publishers: 1, FanOut: 1000, Payload: 64},
		{Name: "a4", What: "fan-out 1 to 1000, 1 KiB, QoS 0", Publishers: 1, FanOut: 1000, Payload: 1024},
		{Name: "b", What: "50 pairs, 64 B, QoS 0", Publishers: 50, FanOut: 1, Payload: 64},
		{Name: "c1", What: "10 pairs, 64 B, QoS 1; of Bellwire, topics with durability: memory", Publishers: 10, FanOut: 1, QoS: 1, Payload: 64, Memory: true},
		{Name: "c2", What: "10 pairs, 64 B, QoS 2; of Bellwire, topics with durability: memory", Publishers: 10, FanOut: 1, QoS: 2, Payload: 64, Memory: true},
		{Name: "c1l", What: "10 pairs, 64 B, QoS 1, in Bellwire's log as by default", Publishers: 10, FanOut: 1, QoS: 1, Payload: 64},
		{Name: "c2l", What: "10 pairs, 64 B, QoS 2, in Bellwire's log as by default", Publishers: 10, FanOut: 1, QoS: 2, Payload: 64},
		{Name: "c3", What: "10 pairs, 64 B, QoS 1, durable sessions, the broker's default sync", Publishers: 10, FanOut: 1, QoS: 1, Payload: 64, Durable: true},
		{Name: "c3s", What: "50 pairs, 64 B, QoS 1, durable sessions, synced before the acknowledgement", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true},
		{Name: "d", What: "three nodes: 50 pairs, 64 B, QoS 1, durable sessions, the broker's default sync", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Nodes: 3},
		{Name: "ds", What: "three nodes: the same, synced before the acknowledgement", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true, Nodes: 3},
		{Name: "dl", What: "three nodes: the same synced, 5,000 messages a second", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true, Nodes: 3, Rate: 5000},
		{Name: "dm", What: "three nodes: the same synced, 50,000 messages a second", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true, Nodes: 3, Rate: 50_000},
		{Name: "dn1", What: "three nodes: the same synced, beside 1,000 absent durable sessions", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true, Nodes: 3, Absent: 1_000},
		{Name: "dn10", What: "three nodes: the same synced, beside 10,000 absent durable sessions", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true, Nodes: 3, Absent: 10_000},
		{Name: "dn100", What: "three nodes: the same synced, beside 100,000 absent durable sessions", Publishers: 50, FanOut: 1, QoS: 1, Payload: 64, Durable: true, Synced: true, Nodes: 3, Absent: 100_000},
		{Name: "br0", What: "a bridge to a mosquitto: 10 pairs, half of them each way, 64 B, QoS 0", Publishers: 10, FanOut: 1, Payload: 64, Nodes: 2, Bridged: true},
		{Name: "br1", What: "the same, QoS 1; bellwire's in its log as by default", Publishers: 10, FanOut: 1, QoS: 1, Payload: 64, Nodes: 2, Bridged: true},
		{Name: "br2", What: "the same, QoS 2", Publishers: 10, FanOut: 1, QoS: 2, Payload: 64, Nodes: 2, Bridged: true},
		{Name: "e", What: "100,000 subscriptions of 100 clients, half with a wildcard; two match, 64 B, QoS 0", Filters: 100_000, Payload: 64},
		{Name: "h", What: "presence: 1000 clients each watch 50 others, 200 B, retained, QoS 0", Publishers: 1000, Watch: 50, Payload: 200, Retain: true},
		{
			Name: "hp", What: "presence with permissions: 1000 users each watch 50 others, 200 changes a second of 200 B, QoS 0",
			Publishers: 1000, Watch: 50, Payload: 200, Retain: true, Permissions: true, Rate: 200, Least: 10 * time.Second,
		},
		{
			Name: "hpb", What: "the same users, each of whom changes 8 times as fast as it goes, 200 changes under way, QoS 0",
			Publishers: 1000, Watch: 50, Payload: 200, Retain: true, Permissions: true, Burst: 8, Least: 30 * time.Second,
		},
		{Name: "g", What: "100,000 retained messages of 64 B set at QoS 1, then three subscribers to all of them at QoS 0", Retained: 100_000, Payload: 64},
		{Name: "idle", What: "10,000 connections without subscription or traffic", Idle: 10_000},
		{Name: "idle1", What: "10,000 connections with one subscription each, no traffic", Idle: 10_000, IdleTopic: true},
	}
}

// traffic says whether the row is a load of messages, which the tally judges.
func (s Scenario) traffic() bool { return s.Idle == 0 && s.Retained == 0 }

// scenarios returns the rows that the comma-separated names ask for.
func scenarios(names string) ([]Scenario, error) {
	var out []Scenario
	for name := range strings.SplitSeq(names, ",") {
		all := Scenarios()
		i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q; -list shows them all", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// Window is how many messages a publisher keeps outstanding in a closed loop.
// Figures taken with another window are not comparable.
const Window = 64

// A Load tells a generator what to do. Compare sends it over a pipe as JSON.
type Load struct {
	Scenario Scenario
	Nodes    []Node // of the broker; most have one
	Version  byte   // of MQTT: 4 (3.1.1) or 5
	Window   int    // outstanding per publisher; 0 means Window

	// Rate, if not 0, makes it an open loop: this many messages a second in
	// total, on a fixed schedule, whatever becomes of them. 0 means the row's.
	Rate float64

	// Policies says that owners decide who sees what is theirs: each publishes
	// a policy. Without it the broker's configuration has to say it all.
	Policies bool

	Setup   time.Duration // for connecting and subscribing
	WarmUp  time.Duration // load that is not measured
	Measure time.Duration
	Stall   time.Duration // without progress, outstanding messages are written off
	Drain   time.Duration // after the load, without a sign of the broker, what is missing is lost
	Settle  time.Duration // idle rows: between connecting and reading memory
}

// A Node is one of those that a broker consists of.
type Node struct {
	Addr string // of its listener for clients, IPv4
	PIDs []int  // of its processes, whose CPU and memory are read
}

// pids returns the processes of all nodes.
func (l Load) pids() (all []int) {
	for _, n := range l.Nodes {
		all = append(all, n.PIDs...)
	}
	return all
}

// addresses returns where the nodes are, which is on this machine: the generator
// goes nowhere else.
func (l Load) addresses() (all []netip.AddrPort, err error) {
	for _, n := range l.Nodes {
		to, err := netip.ParseAddrPort(n.Addr)
		if err != nil {
			return nil, err
		}
		if !to.Addr().IsLoopback() || !to.Addr().Is4() {
			return nil, fmt.Errorf("%v is not an IPv4 loopback address; the generator goes nowhere else", to)
		}
		all = append(all, to)
	}
	if len(all) == 0 {
		return nil, errors.New("there is none")
	}
	return all, nil
}

// drain is how long to wait for what is missing. Brokers that sync have been
// seen to say nothing for seconds and then to deliver everything; at QoS 0 what
// has not come by now will not.
func (l Load) drain() time.Duration {
	if l.Scenario.QoS == 0 {
		return 1500 * time.Millisecond
	}
	return 10 * time.Second
}

// withDefaults returns l with what is 0 replaced by what the comparison uses.
func (l Load) withDefaults() Load {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&l.Setup, 60*time.Second+time.Duration(l.Scenario.Absent)*2*time.Millisecond)
	def(&l.WarmUp, 700*time.Millisecond)
	def(&l.Measure, 2500*time.Millisecond)
	def(&l.Stall, 1500*time.Millisecond)
	def(&l.Drain, l.drain())
	def(&l.Settle, 3*time.Second)
	if l.Rate == 0 {
		l.Rate = l.Scenario.Rate
	}
	if l.Version == 0 {
		l.Version = v311
	}
	if l.Window == 0 {
		l.Window = Window
	}
	return l
}
