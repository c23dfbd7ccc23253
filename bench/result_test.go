package bench

import (
	"strings"
	"testing"
	"time"
)

// made is a line with a given cost.
func made(broker string, run int, cpu time.Duration) Line {
	const n = 1_000_000
	return Line{
		Scenario: Scenarios()[0], Broker: broker, Run: run, Version: v311, Syncs: -1,
		Figures: Figures{
			Tally: Tally{Delivered: n}, Deliveries: n, Elapsed: 2 * time.Second,
			BrokerUser: cpu * n, ClientCPU: time.Second,
		},
	}
}

// Ratios are taken within a run: a run in which all was twice as slow changes
// the medians of the costs and not those of the ratios.
func TestRatiosAreOfOneRun(t *testing.T) {
	lines := []Line{
		made("bellwire", 1, 1*time.Microsecond), made("mosquitto", 1, 4*time.Microsecond),
		made("bellwire", 2, 2*time.Microsecond), made("mosquitto", 2, 8*time.Microsecond),
		made("bellwire", 3, 3*time.Microsecond), made("mosquitto", 3, 12*time.Microsecond),
	}
	var b strings.Builder
	summarize(&b, lines)
	for _, want := range []string{
		"A1: fan-out 1 to 100, 64 B, QoS 0",
		"bellwire   2 [1-3]",
		"0.25 [0.25-0.25] x mosquitto",
		"4 [4-4] x bellwire",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// A line that does not count is kept, says why, is no benchmark to any tool,
// and has no part in the summary.
func TestFaultyLineHasNoPart(t *testing.T) {
	bad := made("mosquitto", 2, time.Nanosecond)
	bad.Scenario.QoS = 1
	bad.Figures.Tally.Undelivered = 3
	bad.Fault = bad.fault()
	if !strings.HasPrefix(bad.String(), "# does not count, undelivered: Benchmark") {
		t.Errorf("kept as %q", bad.String())
	}
	var b strings.Builder
	summarize(&b, []Line{made("mosquitto", 1, 4*time.Microsecond), bad})
	if s := b.String(); !strings.Contains(s, "mosquitto  4 [4-4]") || !strings.Contains(s, "run 2 of mosquitto does not count: undelivered") {
		t.Errorf("summary:\n%s", s)
	}
}

func TestBusyGeneratorIsTold(t *testing.T) {
	l := made("nats", 1, time.Microsecond)
	l.Figures.ClientCPU = 1900 * time.Millisecond
	var b strings.Builder
	summarize(&b, []Line{l})
	if !strings.Contains(b.String(), "distrust the rate") {
		t.Errorf("summary:\n%s", b.String())
	}
}

// A line is what benchstat reads: name, count, and pairs of value and unit.
func TestLineIsABenchmark(t *testing.T) {
	l := made("nats", 1, time.Microsecond)
	l.Version, l.Rate = v5, 1000
	f := strings.Fields(l.String())
	if f[0] != "BenchmarkA1/mqtt=5/loop=open/broker=nats" || f[1] != "1000000" || f[2] != "1" || f[3] != "cpu-us/delivery" {
		t.Errorf("got %q", l.String())
	}
	if len(f)%2 != 0 {
		t.Errorf("a value without unit in %q", l.String())
	}
	l.Scenario = Scenario{Name: "idle", Idle: 10}
	l.Figures = Figures{BrokerRSS: 1, Idle: &IdleFigures{Connections: 10, RSS: 2048, Kernel: 1024}}
	if s := l.String(); !strings.Contains(s, "\t2 KiB-rss/conn\t1 KiB-kernel-both-ends/conn") {
		t.Errorf("got %q", s)
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		v    []float64
		want spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
	} {
		if got := spreadOf(tt.v); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.v, got, tt.want)
		}
	}
}
