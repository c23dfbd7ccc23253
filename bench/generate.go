package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Figures is what a generator found out. Times are of the measured part only,
// the tally is of the whole run.
type Figures struct {
	Tally      Tally
	Elapsed    time.Duration
	Deliveries uint64 // each counted once
	Acked      uint64

	BrokerUser   time.Duration
	BrokerSystem time.Duration
	BrokerWrites uint64  // write calls of the broker; 0 when not readable
	BrokerRSS    int64   // bytes, at the end of the measured part
	NodeRSS      []int64 // the same by node, where there are several
	ClientCPU    time.Duration
	ClientReads  uint64

	SetupTime time.Duration // until all were connected and subscribed
	SetupCPU  time.Duration // the broker's
	SetupRSS  int64         // what the broker's memory grew by, bytes

	HostBusy  float64 // share of all cores' time that was not idle
	HostSteal float64

	P50, P99, P999, Max time.Duration // from publish to delivery
	AckP50, AckP99      time.Duration // from publish to the end of its exchange; 0 at QoS 0

	// One of these stands in place of all the above but RSS and host.
	Idle     *IdleFigures     // of an idle row
	Retained *RetainedFigures // of a retained row
}

// CPU is the broker's CPU time per delivery, the headline figure.
func (f Figures) CPU() time.Duration {
	if f.Deliveries == 0 {
		return 0
	}
	return (f.BrokerUser + f.BrokerSystem) / time.Duration(f.Deliveries)
}

// maxLatency is where the histogram ends; the stall time is far below.
const maxLatency = int64(time.Minute)

type latency struct {
	h  *hdrhistogram.Histogram
	on bool
}

func newLatency() *latency {
	return &latency{h: hdrhistogram.New(1000, maxLatency, 2)}
}

func (l *latency) record(ns int64) {
	if l.on {
		_ = l.h.RecordValue(min(max(ns, 0), maxLatency)) // within bounds by the clamp
	}
}

func (l *latency) at(quantile float64) time.Duration {
	return time.Duration(l.h.ValueAtQuantile(quantile))
}

// Generate is the generator's main program: it reads a [Load] as JSON from r,
// carries it out and writes [Figures] as JSON to w. It is meant to have its
// process to itself, pinned to one core, and changes that process's limits and
// garbage collection.
func Generate(r io.Reader, w io.Writer) error {
	var order Load
	if err := json.NewDecoder(r).Decode(&order); err != nil {
		return fmt.Errorf("bench: reading the load: %w", err)
	}
	runtime.LockOSThread()
	// Nothing is allocated on the path of a message; what setting up leaves
	// behind is smaller than the limit, and a collection would be measured.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(2 << 30)
	if err := raiseFiles(); err != nil {
		return err
	}
	f, err := generate(order)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(f)
}

// raiseFiles lets this process, and those it starts, have as many files as the
// system allows.
func raiseFiles() error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	return nil
}

// generate carries out one load in this goroutine.
func generate(order Load) (Figures, error) {
	order = order.withDefaults()
	nodes, err := order.addresses()
	if err != nil {
		return Figures{}, fmt.Errorf("bench: address of the broker: %w", err)
	}
	l, err := newLoop(time.Now(), nodes)
	if err != nil {
		return Figures{}, err
	}
	defer l.close()
	switch {
	case order.Scenario.Idle > 0:
		return idle(order, l)
	case order.Scenario.Retained > 0:
		return retainedRow(order, l)
	}
	return traffic(order, l)
}

func traffic(order Load, l *loop) (Figures, error) {
	ld := newLoad(order, l)
	start, err := ld.sample()
	if err != nil {
		return Figures{}, err
	}
	if err := ld.connect(); err != nil {
		return Figures{}, err
	}
	connected, err := ld.sample()
	if err != nil {
		return Figures{}, err
	}
	ld.allow(1)
	if err := ld.run(order.WarmUp); err != nil {
		return Figures{}, err
	}
	before, err := ld.sample()
	if err != nil {
		return Figures{}, err
	}
	ld.lag.on, ld.commit.on = true, true
	ld.allow(order.Scenario.Burst - 1)
	if err := ld.run(order.Measure); err != nil {
		return Figures{}, err
	}
	ld.lag.on, ld.commit.on = false, false
	after, err := ld.sample()
	if err != nil {
		return Figures{}, err
	}
	if err := ld.drain(); err != nil {
		return Figures{}, err
	}
	f := after.since(before)
	f.SetupTime = connected.at.Sub(start.at)
	f.SetupCPU = connected.broker.cpu() - start.broker.cpu()
	f.SetupRSS = connected.broker.rss - start.broker.rss
	f.Tally = ld.count()
	f.P50, f.P99, f.P999 = ld.lag.at(50), ld.lag.at(99), ld.lag.at(99.9)
	f.Max = time.Duration(ld.lag.h.Max())
	f.AckP50, f.AckP99 = ld.commit.at(50), ld.commit.at(99)
	return f, nil
}

// A sample is everything that is read at the edges of the measured part.
type sample struct {
	at                time.Time
	deliveries, acked uint64
	broker            usage
	client            time.Duration
	reads             uint64
	host              host
	nodes             []int64 // resident memory of each
}

func (ld *load) sample() (sample, error) {
	s := sample{
		at: time.Now(), deliveries: ld.tally.Delivered, acked: ld.tally.Acked,
		client: self(), reads: ld.reads,
	}
	var err error
	for _, n := range ld.Nodes {
		u, err := processes(n.PIDs)
		if err != nil {
			return s, err
		}
		s.broker.add(u)
		s.nodes = append(s.nodes, u.rss)
	}
	s.host, err = readHost()
	return s, err
}

func (s sample) since(before sample) Figures {
	f := Figures{
		Elapsed:      s.at.Sub(before.at),
		Deliveries:   s.deliveries - before.deliveries,
		Acked:        s.acked - before.acked,
		BrokerUser:   s.broker.user - before.broker.user,
		BrokerSystem: s.broker.system - before.broker.system,
		BrokerWrites: s.broker.writes - before.broker.writes,
		BrokerRSS:    s.broker.rss,
		ClientCPU:    s.client - before.client,
		ClientReads:  s.reads - before.reads,
	}
	if len(s.nodes) > 1 {
		f.NodeRSS = s.nodes
	}
	f.HostBusy, f.HostSteal = s.host.since(before.host)
	return f
}

func (h host) since(before host) (busy, steal float64) {
	total := float64(h.total - before.total)
	if total <= 0 {
		return 0, 0
	}
	return 1 - float64(h.idle-before.idle)/total, float64(h.steal-before.steal) / total
}

// GenerateMain is Generate on the standard streams, for a program that starts
// itself; it returns the exit code.
func GenerateMain() int {
	if err := Generate(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
