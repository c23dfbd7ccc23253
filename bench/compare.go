package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what to compare.
type Options struct {
	Scenarios string // comma-separated names of [Scenarios]
	Peers     string // comma-separated names of [Peers]
	Runs      int    // of each broker and row
	MQTT5     bool   // speak MQTT 5; peers that cannot are left out
	Open      bool   // after the runs, one at half the median rate, on a schedule
	Measure   time.Duration
	WarmUp    time.Duration
	Idle      int // connections of the idle rows; 0 leaves them as they are

	Root      string   // of the checkout
	Dir       string   // where brokers keep their data; "" for the system's temporary one
	Results   string   // directory of the results; "" keeps none
	Bellwire  string   // a built bellwire; "" builds the checkout's
	Profile   bool     // take a CPU profile of bellwire in each row, kept beside the results
	Unpinned  bool     // let the scheduler place brokers and generator
	Strace    bool     // count syncs with strace; what it slows down does not count
	Generator []string // command that ends in [GenerateMain]

	Out io.Writer // the lines and the summary
	Log io.Writer // progress
}

// A comparison is one run of the program.
type comparison struct {
	Options
	env
	work  string // holds everything temporary
	peers []readyPeer
	lines []Line
	out   io.Writer
	stem  string // path of the results without their ending; "" keeps none
}

type readyPeer struct {
	Peer
	path, version string
}

// Compare measures and prints. It ends every process that it started, also when
// ctx is cancelled or a broker fails; a broker that fails costs its own lines
// only, and is an error at the end.
func Compare(ctx context.Context, o Options) error {
	rows, err := scenarios(o.Scenarios)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	c := &comparison{Options: o, out: o.Out}
	if c.work, err = os.MkdirTemp(o.Dir, "bellwire-bench-"); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(c.work)
	if err := raiseFiles(); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	c.env = env{cores: pickCores(), root: o.Root, bin: c.work, bellwire: o.Bellwire, profile: o.Profile}
	if o.Unpinned {
		c.cores = cores{}
	}
	if err := c.prepare(ctx); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	closeResults, err := c.openResults(ctx)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer closeResults()
	var faults []error
	for _, row := range rows {
		faults = append(faults, c.row(ctx, row))
	}
	summarize(c.out, c.lines)
	return errors.Join(faults...)
}

// prepare finds or builds what Peers names.
func (c *comparison) prepare(ctx context.Context) error {
	all := Peers()
	for name := range strings.SplitSeq(c.Peers, ",") {
		i := slices.IndexFunc(all, func(p Peer) bool { return p.Name == strings.TrimSpace(name) })
		if i < 0 {
			return fmt.Errorf("there is no peer %q", name)
		}
		fmt.Fprintf(c.Log, "preparing %s\n", name)
		path, version, err := all[i].prepare(ctx, c.env)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.peers = append(c.peers, readyPeer{all[i], path, version})
	}
	return nil
}

// openResults makes c.out write to the results too, and writes the header.
func (c *comparison) openResults(ctx context.Context) (closeFile func(), err error) {
	h := header{date: time.Now(), commit: commit(ctx, c.root), cores: c.cores, dir: c.work}
	for _, p := range c.peers {
		h.versions = append(h.versions, p.Name+" "+p.version)
	}
	closeFile = func() {}
	if c.Results != "" {
		if err := os.MkdirAll(c.Results, 0o755); err != nil {
			return nil, err
		}
		c.stem = filepath.Join(c.Results, h.date.UTC().Format("2006-01-02T150405Z")+"-"+h.commit)
		f, err := os.Create(c.stem + ".txt")
		if err != nil {
			return nil, err
		}
		closeFile = func() { f.Close() }
		c.out = io.MultiWriter(c.out, f)
	}
	h.write(c.out)
	return closeFile, nil
}

// row measures one row: all brokers once, then all again, so that what changes
// on the machine meanwhile meets all of them.
func (c *comparison) row(ctx context.Context, sc Scenario) error {
	if c.Idle > 0 && sc.Idle > 0 {
		sc.Idle = c.Idle
	}
	var faults []error
	for run := 1; run <= c.Runs; run++ {
		for _, p := range c.peers {
			faults = append(faults, c.line(ctx, p, sc, run, sc.Rate))
		}
	}
	if c.Open && sc.traffic() && sc.Rate == 0 && sc.Burst == 0 {
		for _, p := range c.peers {
			if rate := c.medianRate(p.Name, sc.Name); rate > 0 {
				faults = append(faults, c.line(ctx, p, sc, 1, rate/2))
			}
		}
	}
	return errors.Join(faults...)
}

// medianRate is messages a second of the closed loop.
func (c *comparison) medianRate(broker, scenario string) float64 {
	var rates []float64
	for _, l := range c.lines {
		if l.Broker == broker && l.Scenario.Name == scenario && l.Fault == "" && l.Rate == 0 {
			f := l.Figures
			fanOut := float64(f.Tally.Delivered) / float64(f.Tally.Sent)
			rates = append(rates, float64(f.Deliveries)/fanOut/f.Elapsed.Seconds())
		}
	}
	return spreadOf(rates).median
}

// line measures, keeps and prints one line.
func (c *comparison) line(ctx context.Context, p readyPeer, sc Scenario, run int, rate float64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !p.takesPart(sc) || (c.MQTT5 && p.Name == "nats") {
		return nil
	}
	l := Line{Scenario: sc, Broker: p.Name, Run: run, Version: v311, Rate: rate, Syncs: -1}
	if c.MQTT5 {
		l.Version = v5
	}
	fmt.Fprintf(c.Log, "%s %s run %d\n", sc.Name, p.Name, run)
	err := c.measure(ctx, p, &l)
	if err != nil {
		l.Fault = "it failed (" + firstLine(err.Error()) + ")"
		err = fmt.Errorf("bench: %s, %s, run %d: %w", sc.Name, p.Name, run, err)
		fmt.Fprintln(c.Log, err)
	} else if l.Fault == "" {
		l.Fault = l.fault()
	}
	c.lines = append(c.lines, l)
	fmt.Fprintln(c.out, l.String())
	return err
}

// firstLine is enough of an error for the results; all of it goes to Log.
func firstLine(s string) string {
	const enough = 120
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), enough)]
}

// measure starts a fresh broker, loads it and ends it.
func (c *comparison) measure(ctx context.Context, p readyPeer, l *Line) (err error) {
	dir, err := os.MkdirTemp(c.work, p.Name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e := c.env
	if l.Scenario.Nodes > 1 {
		e.cores = cores{}
	}
	b, err := p.startFleet(ctx, e, p.path, dir, l.Scenario)
	if err != nil {
		return err
	}
	defer func() {
		b.stop()
		if said := b.said(); err != nil && said != "" {
			err = fmt.Errorf("%w\nThe broker said:\n%s", err, said)
		}
	}()
	before, known := b.syncs(ctx)
	endTrace := c.trace(l, b)
	stopProfile := c.profileOf(ctx, b, l)
	l.Figures, err = c.generate(ctx, e.cores, b, l)
	stopProfile()
	traced, wasTraced := endTrace()
	if err != nil {
		return err
	}
	acked := float64(l.Figures.Tally.Acked)
	if after, ok := b.syncs(ctx); known && ok && acked > 0 {
		l.Syncs = (after - before) / acked
	} else if wasTraced && acked > 0 {
		l.Syncs = traced / acked
	}
	return nil
}

// measuring is how long a row is measured.
func (c *comparison) measuring(sc Scenario) time.Duration { return max(c.Measure, sc.Least) }

// generate runs the generator in its own process.
func (c *comparison) generate(ctx context.Context, on cores, b fleet, l *Line) (Figures, error) {
	order, err := json.Marshal(Load{
		Scenario: l.Scenario, Nodes: b.nodes(),
		Version: l.Version, Rate: l.Rate, Policies: b[0].policies, Measure: c.measuring(l.Scenario), WarmUp: c.WarmUp,
	})
	if err != nil {
		return Figures{}, err
	}
	cmd := exec.Command(c.Generator[0], c.Generator[1:]...)
	cmd.Stdin = bytes.NewReader(order)
	var out bytes.Buffer
	cmd.Stdout = &out
	p, err := on.start(cmd, on.client)
	if err != nil {
		return Figures{}, err
	}
	// Connecting, load and drain are bounded by the generator itself; this is
	// for the case that it is not.
	limit := time.NewTimer(c.measuring(l.Scenario) + c.WarmUp + 3*time.Minute + time.Duration(l.Scenario.Absent)*2*time.Millisecond)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.stop()
		return Figures{}, ctx.Err()
	case <-limit.C:
		p.stop()
		return Figures{}, errors.New("the generator did not end")
	}
	if p.err != nil {
		return Figures{}, fmt.Errorf("generator: %w: %s", p.err, p.said())
	}
	var f Figures
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		return Figures{}, fmt.Errorf("generator: its figures: %w", err)
	}
	return f, nil
}
