package bench

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Line is one measurement: one broker, one row, one run.
type Line struct {
	Scenario Scenario
	Broker   string
	Run      int // from 1
	Version  byte
	Rate     float64 // of an open loop
	Syncs    float64 // per acknowledged message; negative when not known
	Figures  Figures
	Fault    string // why it does not count; "" when it does
}

// Client use above this share of its core means that the generator, and not the
// broker, set the pace. The cost per delivery still holds then, the rate does not.
const clientBound = 0.9

// fault says why a finished measurement does not count.
func (l *Line) fault() string {
	switch {
	case l.Figures.Idle != nil:
		return ""
	case l.Figures.Retained != nil:
		return l.Figures.Retained.fault()
	}
	if f := l.Figures.Tally.fault(l.Scenario.QoS); f != "" {
		return f
	}
	if l.Scenario.Permissions && l.Figures.Tally.Undelivered > 0 {
		return "undelivered" // nobody is pressed to drop anything: it was withheld
	}
	if l.Figures.Deliveries == 0 {
		return "nothing delivered in the measured time"
	}
	return ""
}

// key is what the lines of one broker and row have in common.
func (l *Line) key() string {
	key := "Benchmark" + strings.ToUpper(l.Scenario.Name[:1]) + l.Scenario.Name[1:]
	if l.Version == v5 {
		key += "/mqtt=5"
	}
	if l.Rate > 0 {
		key += "/loop=open"
	}
	return key
}

// A metric is one figure of a line with its unit, as benchstat wants it.
type metric struct {
	value float64
	unit  string
}

func (l *Line) metrics() []metric {
	common := []metric{
		{l.Figures.HostBusy, "host-busy"}, {l.Figures.HostSteal, "steal"}, {mib(l.Figures.BrokerRSS), "MiB-rss"},
	}
	switch {
	case l.Figures.Idle != nil:
		return append(l.Figures.Idle.metrics(), common...)
	case l.Figures.Retained != nil:
		return append(l.Figures.Retained.metrics(), common...)
	}
	for i, rss := range l.Figures.NodeRSS {
		common = append(common, metric{mib(rss), fmt.Sprintf("MiB-rss/node%d", i+1)})
	}
	return append(l.trafficMetrics(), common...)
}

func (l *Line) trafficMetrics() []metric {
	f, t := &l.Figures, &l.Figures.Tally
	n, sec := float64(f.Deliveries), f.Elapsed.Seconds()
	ms := []metric{
		{float64(f.BrokerUser+f.BrokerSystem) / 1e3 / n, "cpu-us/delivery"},
		{float64(f.BrokerSystem) / 1e3 / n, "kernel-us/delivery"},
		{n / sec, "deliveries/s"},
	}
	if l.Scenario.QoS > 0 {
		ms = append(ms, metric{float64(f.Acked) / sec, "acked/s"},
			metric{micros(f.AckP50), "ack-p50-us"}, metric{micros(f.AckP99), "ack-p99-us"})
	}
	if l.Scenario.Filters > 0 || l.Scenario.Permissions || l.Scenario.Absent > 0 {
		ms = append(ms, metric{micros(f.SetupTime) / 1e3, "setup-ms"}, metric{micros(f.SetupCPU) / 1e3, "setup-cpu-ms"},
			metric{mib(f.SetupRSS), "setup-MiB-rss"})
	}
	if l.Syncs >= 0 {
		ms = append(ms, metric{l.Syncs, "syncs/msg"})
	}
	if f.BrokerWrites > 0 {
		ms = append(ms, metric{n / float64(f.BrokerWrites), "deliveries/write"})
	}
	return append(ms,
		metric{n / float64(max(f.ClientReads, 1)), "deliveries/client-read"},
		metric{micros(f.P50), "p50-us"}, metric{micros(f.P99), "p99-us"},
		metric{micros(f.P999), "p99.9-us"}, metric{micros(f.Max), "max-us"},
		metric{float64(f.BrokerUser+f.BrokerSystem) / float64(f.Elapsed), "broker-cpu"},
		metric{float64(f.ClientCPU) / float64(f.Elapsed), "client-cpu"},
		metric{float64(t.Undelivered), "undelivered"}, metric{float64(t.Duplicates), "duplicates"},
		metric{float64(t.Inversions), "inversions"}, metric{float64(t.Stalls), "stalls"},
	)
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }
func mib(n int64) float64            { return float64(n) / (1 << 20) }

// String is the line as it is kept. One that does not count is a comment, so
// that no tool takes its figures for good ones.
func (l *Line) String() string {
	var b strings.Builder
	if l.Fault != "" {
		fmt.Fprintf(&b, "# does not count, %s: ", l.Fault)
	}
	fmt.Fprintf(&b, "%s/broker=%s\t%d", l.key(), l.Broker, max(l.Figures.Deliveries, 1))
	if l.Figures.Deliveries > 0 || !l.Scenario.traffic() && l.Figures.BrokerRSS > 0 {
		for _, m := range l.metrics() {
			fmt.Fprintf(&b, "\t%s %s", number(m.value), m.unit)
		}
	}
	return b.String()
}

// number prints v with what precision a measurement has.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 0.01 || v <= -0.01:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// A header is what all lines of a file have in common.
type header struct {
	date     time.Time
	commit   string
	versions []string // "name version" of each broker
	cores    cores
	dir      string // where brokers kept their data
}

func (h header) write(w io.Writer) {
	fmt.Fprintf(w, "date: %s\n", h.date.UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "commit: %s\n", h.commit)
	fmt.Fprintf(w, "machine: %s\n", machine())
	fmt.Fprintf(w, "data: %s\n", fileSystem(h.dir))
	pinning := "none"
	if h.cores.pinned {
		pinning = fmt.Sprintf("broker on core %d, generator on core %d; several nodes and their generator share all", h.cores.broker, h.cores.client)
	}
	fmt.Fprintf(w, "pinning: %s\n", pinning)
	fmt.Fprintf(w, "brokers: %s\n", strings.Join(h.versions, ", "))
}

// machine describes the host in one line.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // leaves it empty
	cpu, n := "unknown CPU", 0
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "model name"); ok {
			cpu = strings.Trim(v, "\t :\n")
			n++
		}
	}
	mem, _ := os.ReadFile("/proc/meminfo")
	return fmt.Sprintf("%d x %s, %.0f GiB, %s %s", n, cpu, float64(field(mem, "MemTotal:"))/(1<<20),
		unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]))
}

// fileSystem names the kind of file system that dir is on: a sync to memory
// costs nothing and proves nothing.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "unknown file system"
	}
	switch int64(s.Type) {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs (memory: its syncs cost nothing)"
	}
	return fmt.Sprintf("file system 0x%x", s.Type)
}

// A spread is the median of some figures with their least and greatest.
type spread struct{ median, min, max float64 }

func spreadOf(v []float64) spread {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return spread{}
	}
	return spread{median: (v[(n-1)/2] + v[n/2]) / 2, min: v[0], max: v[n-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%s [%s-%s]", number(s.median), number(s.min), number(s.max))
}

// ratioUnits are the figures that are compared, most telling first.
var ratioUnits = []string{"cpu-us/delivery", "deliveries/s", "KiB-rss/conn", "cpu-us/connect", "setup-ms", "setup-MiB-rss", "fetch-ms", "cpu-us/fetched", "cpu-us/set"}

// summarize writes for each row what each broker measured and, of the same run,
// its ratio to each other broker. Lines that do not count have no part in it.
func summarize(w io.Writer, lines []Line) {
	var keys []string
	for i := range lines {
		if k := lines[i].key(); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	for _, key := range keys {
		row := slices.DeleteFunc(slices.Clone(lines), func(l Line) bool { return l.key() != key })
		fmt.Fprintf(w, "#\n# %s: %s\n", strings.TrimPrefix(key, "Benchmark"), row[0].Scenario.What)
		summarizeFaults(w, row)
		for _, unit := range ratioUnits {
			summarizeUnit(w, row, unit)
		}
		if row[0].Rate > 0 || row[0].Scenario.Nodes > 1 { // else it is the window's length
			for _, unit := range []string{"p50-us", "p99-us", "ack-p50-us", "ack-p99-us"} {
				summarizeUnit(w, row, unit)
			}
		}
	}
}

func summarizeFaults(w io.Writer, row []Line) {
	for _, l := range row {
		switch {
		case l.Fault != "":
			fmt.Fprintf(w, "#   run %d of %s does not count: %s\n", l.Run, l.Broker, l.Fault)
		case l.Figures.Elapsed > 0 && float64(l.Figures.ClientCPU) > clientBound*float64(l.Figures.Elapsed):
			fmt.Fprintf(w, "#   run %d of %s: the generator was busy all the time; distrust the rate\n", l.Run, l.Broker)
		}
	}
}

func summarizeUnit(w io.Writer, row []Line, unit string) {
	runs := map[string]map[int]float64{} // by broker and run
	var brokers []string
	for _, l := range row {
		if l.Fault != "" {
			continue
		}
		i := slices.IndexFunc(l.metrics(), func(m metric) bool { return m.unit == unit })
		if i < 0 {
			continue
		}
		if runs[l.Broker] == nil {
			runs[l.Broker] = map[int]float64{}
			brokers = append(brokers, l.Broker)
		}
		runs[l.Broker][l.Run] = l.metrics()[i].value
	}
	for _, b := range brokers {
		var own []float64
		for _, v := range runs[b] {
			own = append(own, v)
		}
		fmt.Fprintf(w, "#   %-16s %-10s %-26s", unit, b, spreadOf(own))
		for _, peer := range brokers {
			if peer == b {
				continue
			}
			if r := ratios(runs[b], runs[peer]); len(r) > 0 {
				fmt.Fprintf(w, "  %s x %s", spreadOf(r), peer)
			}
		}
		fmt.Fprintln(w)
	}
}

// ratios divides run by run: what disturbed a run disturbed both.
func ratios(a, b map[int]float64) []float64 {
	var out []float64
	for run, v := range a {
		if d, ok := b[run]; ok && d != 0 {
			out = append(out, v/d)
		}
	}
	return out
}
