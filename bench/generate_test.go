package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// quick is a load of an eighth of a second, for a broker in this very process.
func quick(addr string, sc Scenario, version byte) Load {
	return Load{
		Scenario: sc, Nodes: []Node{{Addr: addr, PIDs: []int{os.Getpid()}}}, Version: version,
		WarmUp: 25 * time.Millisecond, Measure: 100 * time.Millisecond,
		Stall: 50 * time.Millisecond, Drain: 400 * time.Millisecond, Settle: 50 * time.Millisecond,
		Setup: 20 * time.Second,
	}
}

func versions(t *testing.T, test func(t *testing.T, version byte)) {
	for _, v := range []byte{v311, v5} {
		t.Run(fmt.Sprintf("mqtt%d", v), func(t *testing.T) { test(t, v) })
	}
}

// With a broker that does nothing wrong every row counts, and every message
// that was sent is accounted for.
func TestHonestBrokerIsFoundHonest(t *testing.T) {
	for _, sc := range Scenarios() {
		if !sc.traffic() || sc.FanOut > 100 || sc.Filters > 0 {
			continue // too much for it, and it knows no wildcards
		}
		if sc.Permissions {
			sc = fewer(sc)
		}
		sc.Absent = min(sc.Absent, 300)
		t.Run(sc.Name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				var f Figures
				// Longer, if the machine stood still all the while that was measured.
				for measure := 100 * time.Millisecond; f.Deliveries == 0 && measure < 10*time.Second; measure *= 4 {
					order := quick(newFake(t, &fake{}), sc, version)
					order.Measure = measure
					order.Stall, order.Drain = 10*time.Second, 10*time.Second // it ends as soon as all is there
					var err error
					if f, err = generate(order); err != nil {
						t.Fatal(err)
					}
				}
				checkComplete(t, f, sc)
			})
		})
	}
}

// checkComplete fails unless everything that was sent came, once, in order.
func checkComplete(t *testing.T, f Figures, sc Scenario) {
	t.Helper()
	got := f.Tally
	want := Tally{Sent: got.Sent, Delivered: got.Sent * uint64(sc.FanOut)}
	if sc.FanOut == 0 {
		want.Delivered = got.Delivered // not the same number for each message
	}
	if sc.QoS > 0 {
		want.Acked = got.Sent
	}
	want.States = states(sc)
	want.Stalls = got.Stalls // a busy machine may stand still for a moment
	if got != want {
		t.Errorf("tally:\n got %+v\nwant %+v", got, want)
	}
	if got.Sent == 0 || f.Deliveries == 0 || f.Deliveries > got.Delivered {
		t.Errorf("sent %d, delivered %d, of these %d in the measured time", got.Sent, got.Delivered, f.Deliveries)
	}
	if f.Max == 0 || f.P50 > f.Max {
		t.Errorf("latency: p50 %v, max %v", f.P50, f.Max)
	}
	if at1 := sc.QoS > 0; (f.AckP50 > 0) != at1 || f.AckP50 > f.AckP99 {
		t.Errorf("latency of acknowledgements: p50 %v, p99 %v", f.AckP50, f.AckP99)
	}
	if fault := got.fault(sc.QoS); fault != "" {
		t.Errorf("the line does not count: %s", fault)
	}
}

// Whatever a broker does wrong is found, counted exactly, and named.
func TestBadBrokerIsFoundOut(t *testing.T) {
	type found func(*fake, Tally) (got, want uint64)
	undelivered := func(f *fake, t Tally) (got, want uint64) { return t.Undelivered, f.injected() }
	duplicates := func(f *fake, t Tally) (got, want uint64) { return t.Duplicates, f.injected() }
	swaps := func(f *fake, t Tally) (got, want uint64) {
		return t.Inversions + t.Undelivered, f.injected() + f.holding()
	}
	tests := []struct {
		name  string
		spoil func(*fake, *fakeClient, []byte)
		qos   []byte
		found found
		fault string
	}{
		{"drops", every(97, drop), []byte{1, 2}, undelivered, "undelivered"},
		{"drops what it may drop", every(97, drop), []byte{0}, undelivered, ""},
		{"doubles", every(97, double), []byte{0, 2}, duplicates, "duplicates"},
		{"doubles what it may double", every(97, double), []byte{1}, duplicates, ""},
		{"reorders", swap(97), []byte{0, 1, 2}, swaps, "wrong order"},
		{
			"damages", every(97, damage),
			[]byte{0, 1},
			func(f *fake, t Tally) (got, want uint64) { return t.Corrupt, f.injected() },
			"damaged payloads",
		},
		{
			"misroutes", every(97, misroute),
			[]byte{0, 1},
			func(f *fake, t Tally) (got, want uint64) { return t.Strays, f.injected() },
			"deliveries nobody asked for",
		},
	}
	for _, tt := range tests {
		for _, qos := range tt.qos {
			t.Run(fmt.Sprintf("%s at %d", tt.name, qos), func(t *testing.T) {
				broker := &fake{spoil: tt.spoil}
				sc := Scenario{Publishers: 3, FanOut: 2, QoS: qos, Payload: 64}
				f, err := generate(quick(newFake(t, broker), sc, v311))
				if err != nil {
					t.Fatal(err)
				}
				got, want := tt.found(broker, f.Tally)
				if got != want {
					t.Errorf("found %d, want %d; %+v", got, want, f.Tally)
				}
				if want == 0 {
					t.Error("the broker did nothing wrong: the test shows nothing")
				}
				if fault := f.Tally.fault(qos); fault != tt.fault {
					t.Errorf("fault %q, want %q", fault, tt.fault)
				}
			})
		}
	}
}

// What cannot be measured at all is an error that says why.
func TestHopelessBrokerIsAnError(t *testing.T) {
	tests := []struct {
		name string
		fake *fake
		want string
	}{
		{"refuses", &fake{refuse: 5}, "CONNACK 0x05"},
		{"grants another QoS", &fake{grant: 0x7F}, "SUBACK 0x80"},
		{"hangs up", &fake{hangUp: 10}, "client bench-s"},
		{"acknowledges twice", &fake{doubleAck: true}, "not in flight"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := generate(quick(newFake(t, tt.fake), Scenario{Publishers: 2, FanOut: 2, QoS: 1, Payload: 64}, v311))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// A publish that an MQTT 5 broker refuses is not an acknowledged one.
func TestRefusedPublishDoesNotCount(t *testing.T) {
	sc := Scenario{Publishers: 1, FanOut: 1, QoS: 1, Payload: 64}
	f, err := generate(quick(newFake(t, &fake{reason: 0x97}), sc, v5))
	if err != nil {
		t.Fatal(err)
	}
	if f.Tally.Refused != f.Tally.Sent || f.Tally.Acked != 0 || f.Tally.fault(1) != "refused" {
		t.Errorf("%+v, fault %q", f.Tally, f.Tally.fault(1))
	}
}

// A publisher with a silent broker sends one window and no more: 64 messages,
// whatever the fan-out, or what the broker allows if that is less.
func TestWindowIsKept(t *testing.T) {
	tests := []struct {
		name    string
		sc      Scenario
		version byte
		receive uint16
		want    uint64 // for each publisher
	}{
		{"QoS 0", Scenario{Publishers: 2, FanOut: 1, Payload: 64}, v311, 0, 64},
		{"QoS 0 fan-out", Scenario{Publishers: 2, FanOut: 5, Payload: 64}, v311, 0, 64},
		{"QoS 1", Scenario{Publishers: 2, FanOut: 1, QoS: 1, Payload: 64}, v311, 0, 64},
		{"QoS 2", Scenario{Publishers: 2, FanOut: 3, QoS: 2, Payload: 64}, v311, 0, 64},
		{"receive maximum", Scenario{Publishers: 2, FanOut: 1, QoS: 1, Payload: 64}, v5, 10, 10},
		{"large receive maximum", Scenario{Publishers: 2, FanOut: 1, QoS: 1, Payload: 64}, v5, 1000, 64},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			order := quick(newFake(t, &fake{mute: true, receive: tt.receive}), tt.sc, tt.version)
			order.Stall = time.Minute
			f, err := generate(order)
			if err != nil {
				t.Fatal(err)
			}
			want := uint64(tt.sc.Publishers) * tt.want
			if f.Tally.Sent != want || f.Tally.Undelivered != want*uint64(tt.sc.FanOut) {
				t.Errorf("sent %d, want %d; undelivered %d, want %d", f.Tally.Sent, want, f.Tally.Undelivered, want*uint64(tt.sc.FanOut))
			}
			if tt.sc.QoS > 0 && f.Tally.Unacked != want {
				t.Errorf("unacknowledged %d, want %d", f.Tally.Unacked, want)
			}
		})
	}
}

// A window without progress is written off, and the load goes on; nothing that
// was written off is forgotten.
func TestStallIsWrittenOff(t *testing.T) {
	sc := Scenario{Publishers: 1, FanOut: 1, QoS: 1, Payload: 64}
	f, err := generate(quick(newFake(t, &fake{mute: true}), sc, v311))
	if err != nil {
		t.Fatal(err)
	}
	got := f.Tally
	// The last may be written off too late to send more.
	windows := got.Sent / 64
	if got.Stalls == 0 || got.Sent%64 != 0 || windows < got.Stalls || windows > got.Stalls+1 || got.Undelivered != got.Sent || got.Unacked != got.Sent {
		t.Errorf("%+v", got)
	}
}

// The messages of an open loop carry the time at which they were due, not the
// one at which a busy generator got round to them.
func TestOpenLoopKeepsItsSchedule(t *testing.T) {
	broker := &fake{}
	order := quick(newFake(t, broker), Scenario{Publishers: 4, FanOut: 1, Payload: 64}, v311)
	order.Rate = 2000
	order.Stall, order.Drain = 10*time.Second, 10*time.Second
	f, err := generate(order)
	if err != nil {
		t.Fatal(err)
	}
	checkComplete(t, f, order.Scenario)
	due := map[int64]bool{}
	stamps := broker.heard()
	for _, s := range stamps {
		due[s.at] = true
	}
	if len(due) != len(stamps) {
		t.Errorf("%d messages are due at %d times", len(stamps), len(due))
	}
	// Two schedules, warm-up and measured part, each without a gap.
	gaps := 0
	for at := range due {
		if !due[at+int64(500*time.Microsecond)] {
			gaps++
		}
	}
	if gaps != 2 {
		t.Errorf("the schedule has %d ends, want 2", gaps)
	}
	if most := uint64(order.Rate / 8); f.Tally.Sent > most {
		t.Errorf("sent %d in an eighth of a second, want at most %d", f.Tally.Sent, most)
	}
}

// Each row, for a third of a second, against a real broker.
func TestRowsAgainstMosquitto(t *testing.T) {
	ctx := context.Background()
	path, _, err := findMosquitto(ctx, env{})
	if err != nil {
		t.Skip(err)
	}
	var writes, reads uint64
	for _, sc := range Scenarios() {
		if sc.Idle > 0 {
			sc.Idle = 200
		}
		if sc.Retained > 0 {
			sc.Retained = 3000
		}
		if sc.Filters > 0 {
			sc.Filters = 10_000
		}
		if sc.Permissions {
			sc = fewer(sc)
		}
		sc.Absent = min(sc.Absent, 300)
		t.Run(sc.Name, func(t *testing.T) {
			b, err := startMosquitto(ctx, env{}, path, t.TempDir(), sc)
			if err != nil {
				t.Fatal(err)
			}
			defer b.stop()
			order := quick(b.addr, sc, v311)
			order.Nodes[0].PIDs = session(b.cmd.Process.Pid)
			order.WarmUp, order.Measure = 100*time.Millisecond, 200*time.Millisecond
			order.Stall, order.Drain = 10*time.Second, 10*time.Second
			f, err := generate(order)
			if err != nil {
				t.Fatal(err)
			}
			if sc.Idle > 0 {
				checkIdle(t, f, sc)
				return
			}
			if sc.Retained > 0 {
				checkRetained(t, f, sc)
				return
			}
			checkComplete(t, f, sc)
			if f.BrokerRSS == 0 {
				t.Error("no memory was measured")
			}
			writes += f.BrokerWrites
			reads += f.ClientReads
		})
	}
	// Of all rows: in the moment that one is measured for here a broker may have had no processor.
	if writes == 0 || reads == 0 {
		t.Errorf("%d writes, %d reads: want more than 0", writes, reads)
	}
}

func checkIdle(t *testing.T, f Figures, sc Scenario) {
	t.Helper()
	if f.Idle == nil || f.Idle.Connections != sc.Idle {
		t.Fatalf("figures %+v, want %d connections", f.Idle, sc.Idle)
	}
	if f.BrokerRSS == 0 {
		t.Error("no RSS")
	}
}

func checkRetained(t *testing.T, f Figures, sc Scenario) {
	t.Helper()
	r := f.Retained
	if r == nil || r.Messages != sc.Retained || len(r.Fetches) != retainedFetches {
		t.Fatalf("figures %+v, want %d messages fetched %d times", r, sc.Retained, retainedFetches)
	}
	if fault := r.fault(); fault != "" || r.SetTime == 0 || r.Fetches[0] == 0 {
		t.Errorf("%+v: fault %q", r, fault)
	}
}

// The generator sends its load nowhere but to this machine.
func TestGeneratorStaysOnLoopback(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:1883", "[2001:db8::1]:1883", "0.0.0.0:1883", "localhost:1883"} {
		if _, err := generate(Load{Nodes: []Node{{Addr: addr}}, Scenario: Scenarios()[0]}); err == nil {
			t.Errorf("%s was accepted", addr)
		}
	}
}
