package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/profiles/inbox"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/state"
)

// Every row of a limits file sets what it says.
func TestLimitsFile(t *testing.T) {
	const text = `v: 1
default:
  connections: 1_001
  connections.perAddress: 1002
  connections.perAddressPerMinute: unlimited
  connect.handshakes: 1004
  connect.timeout: 1500ms
  connect.packetBytes: 5KiB
  packet.bytes: 6KiB
  receiveMaximum: 1007
  topicAliases: 0
  clientId.bytes: 1009B
  output.bytes: 10MiB
  slow.timeout: 1m30s
  keepAlive.max: 12h
  sessions: 1013
  session.expiryMax: 90d
  session.queueEvents: 1015
  session.queueBytes: 16GiB
  session.volatileEvents: 1017
  session.volatileBytes: 18 MiB
  subs.perSession: 1019
  share.members: 1060
  share.perSession: 1061
  share.groupsPerPrincipal: 1062
  subs.perPrincipal: 1051
  subs.wildcardsPerPrincipal: 1052
  connect.perSecond: 1023
  login.failures: 1024
  messages.perSecond: 1025
  bytes.perSecond: 46MiB
  topic.levels: 47
  sessions.perPrincipal: 1048
  flapping.perMinute: 1044
  flapping.ban: 45m
  subs: 1054
  subs.deepLevels: 1053
  retained.topics: 1020
  backlog.bytes: 21MiB
  im.perSecond: 1026
  im.burst: 1027
  im.kept: 1028
  im.keptBytes: 29MiB
  im.ids: 1030
  im.contacts: 1031
  im.strangersPerHour: 1055
  source.perSecond: 1049
  source.burst: 1050
  watch.default: confirm
  watch.expiresMax: 32d
  watch.pending: 1033
  watch.pendingPerAddress: 1034
  watch.perDomainPerHour: 1058
  watch.perAddress: 1035
  watch.perWatcher: 1039
  watch.wildcards: 42
  watch.wildcardsPerDomain: 1043
  watch.keptPerAddress: 1036
  watch.perMinute: 1037
  watch.sessions: 1038
  document.bytes: 55KiB
  json.depth: 16
  json.members: 1057
  xml.depth: 18
  xml.nodes: 1059
  policy.bytes: 60KiB
  policy.rules: 61
  message.recipients: 42
  message.reports: 3
  notify.interval: 61s
  fetch.burst: 1040
  fetch.perSecond: 1041
  fetch.perResourceBurst: 1056
  fetch.perResourceInterval: 57s
  disk.lowWater: 22GiB
`
	want := limits{
		mqtt: mqtt.Limits{
			Connections: 1001, PerAddress: 1002, PerAddressRate: -1, Handshakes: 1004,
			ConnectTimeout: 1500 * time.Millisecond, ConnectPacket: 5 << 10, Packet: 6 << 10,
			ReceiveMaximum: 1007, TopicAliases: -1, ClientID: 1009, Output: 10 << 20,
			ConnectRate: 1023, FailedLogins: 1024, MessageRate: 1025, ByteRate: 46 << 20, TopicLevels: 47, FlapRate: 1044, FlapBan: 45 * time.Minute,
			SlowTimeout: 90 * time.Second, KeepAlive: 12 * time.Hour, SessionExpiry: 90 * 24 * time.Hour,
		},
		broker: broker.Limits{
			Sessions: 1013, SessionsPerPrincipal: 1048, SessionExpiryMax: 90 * 86400, QueueEvents: 1015, QueueBytes: 16 << 30,
			VolatileEvents: 1017, VolatileBytes: 18 << 20, SubscriptionsPerSession: 1019, GroupMembers: 1060, GroupsPerSession: 1061, GroupsPerPrincipal: 1062, SubscriptionsPerPrincipal: 1051, WildcardsPerPrincipal: 1052, RetainedTopics: 1020, DeepLevels: 1053, Subscriptions: 1054, Backlog: 21 << 20,
		},
		im: inbox.Limits{Rate: 1026, Burst: 1027, Kept: 1028, KeptBytes: 29 << 20, IDs: 1030, Contacts: 1031, Strangers: 1055},
		state: state.Limits{Default: policy.Confirm, SourceRate: 1049, SourceBurst: 1050, Life: life.Limits{
			MostExpires: 32 * 24 * time.Hour, PendingByWatcher: 1033, PendingOf: 1034, ByDomain: 1058, Watchers: 1035, KeptOf: 1036, PerMinute: 1037, SessionsSharing: 1038, ByWatcher: 1039, WidesBy: 42, Wides: 1043,
		}},
		document: kind.Bounds{Bytes: 55 << 10, JSONDepth: 16, JSONMembers: 1057, XMLDepth: 18, XMLNodes: 1059, PolicyBytes: 60 << 10, PolicyRules: 61, Recipients: 42, Reports: 3},
		notify:   61 * time.Second,
		fetches:  fetchLimits{1040, 1041, api.Bounds{AtOnce: 1056, Interval: 57 * time.Second}},
		lowWater: 22 << 30,
	}
	got, err := readLimits(writeFile(t, "limits.yaml", text), readAtMost)
	if err != nil || got != want {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for _, row := range limitRows {
		if !strings.Contains(text, "\n  "+row.name+": ") {
			t.Errorf("%s is not tried here", row.name)
		}
	}
	if got, err := readLimits(writeFile(t, "limits.yaml", "v: 1\n"), readAtMost); err != nil || got != (limits{}) {
		t.Errorf("without rows: %+v, %v, want all defaults", got, err)
	}
}

// writeFile writes a file of its own and returns its name.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The bounds of every row are the file's and not a surprise later: one step
// past them is refused, and with all rows at their least or at their most a
// node starts.
func TestLimitBounds(t *testing.T) {
	var least, most, none limits
	for _, row := range limitRows {
		for _, n := range []int64{row.least, row.most} {
			text := row.unit.format(n)
			if got, p := row.read(text); p != nil || got != n {
				t.Errorf("%s: %s: got %d, %v", row.name, text, got, p)
			}
		}
		step := int64(1)
		if row.unit == inSeconds {
			step = second
		}
		past := []string{row.unit.format(row.most + step), row.unit.format(row.least - step), row.unit.format(-row.most)}
		for _, text := range append(past, strings.TrimLeft(row.unit.format(1), "1")) {
			if got, p := row.read(text); p == nil {
				t.Errorf("%s: %s: accepted as %d", row.name, text, got)
			}
		}
		if text := row.text(row.least); row.name != "disk.lowWater" {
			if got, p := row.read(text); p != nil || got != row.least {
				t.Errorf("%s: its least is shown as %s, which is read as %d, %v", row.name, text, got, p)
			}
		}
		row.set(&least, row.least)
		row.set(&most, row.most)
		if got, p := row.read("unlimited"); (p == nil) != row.mayBeNone || p == nil && got != unlimited {
			t.Errorf("%s: unlimited: got %d, %v", row.name, got, p)
		}
		if row.mayBeNone {
			row.set(&none, unlimited)
		}
	}
	if at := slices.IndexFunc(limitRows, func(r limitRow) bool { return r.name == "notify.interval" }); limitRows[at].text(0) != "0s" {
		t.Errorf("no pause between notifications is shown as %s", limitRows[at].text(0))
	}
	if want := (limits{mqtt: mqtt.Limits{PerAddress: -1, PerAddressRate: -1, ConnectRate: -1, FailedLogins: -1, MessageRate: -1, FlapRate: -1, ByteRate: -1}}); none != want {
		t.Errorf("unlimited is %+v, want %+v", none, want)
	}
	for name, l := range map[string]limits{"least": least, "most": most, "none": none} {
		if name == "most" {
			l.lowWater = 1 // no disk has as much room
		}
		c := devFlags{domain: "example.com"}.config(os.Stderr)
		c.limits, c.logger = l, slog.New(slog.DiscardHandler)
		s, err := startServer(t.Context(), c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := s.shutdown(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who looks for a domain's limits here is told where they are.
func TestDomainsHaveQuotas(t *testing.T) {
	_, err := readLimits(writeFile(t, "limits.yaml", "v: 1\ndomains: {example.net: {sessions: 10}}\n"), readAtMost)
	want := []string{"domains: what the people of one domain may use is bounded by the policy, not by limits remove the section, and give the domain quotas in the policy (tenants), such as quotas: {sessions: 1000}"}
	if got := faultsOf(err); !slices.Equal(got, want) {
		t.Errorf("%v: told %q, want %q", err, got, want)
	}
}

// Numbers have a unit where there could be a doubt, and who leaves it out or
// writes another is shown what was probably meant.
func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit unit
		text string
		want string // the value, or what is wrong
	}{
		{inCount, "100_000", "100000"},
		{inCount, "-5", "-5"},
		{inCount, "99999999999999999999", fmt.Sprint(math.MaxInt64)},
		{inCount, "5KiB", `"5KiB" is no whole number`},
		{inCount, "1e3", `"1e3" is no whole number`},
		{inCount, "", `"" is no whole number`},
		{inBytes, "512B", "512"},
		{inBytes, "64 KiB", "65536"},
		{inBytes, "99999999999999999999GiB", fmt.Sprint(math.MaxInt64)},
		{inBytes, "-9999999999GiB", fmt.Sprint(math.MinInt64)},
		{inBytes, "65536", "65536 has no unit: write 64KiB, or another unit: B, KiB, MiB, GiB"},
		{inBytes, "1000", "1000 has no unit: write 1000B, or another unit: B, KiB, MiB, GiB"},
		{inBytes, "0", "0 has no unit: write 0B, or another unit: B, KiB, MiB, GiB"},
		{inBytes, "64kb", `64kb: "kb" is no unit: write 64KiB`},
		{inBytes, "1M", `1M: "M" is no unit: write 1MiB`},
		{inBytes, "1.5MiB", `"1.5MiB" is no size: write a whole number and its unit: B, KiB, MiB or GiB`},
		{inBytes, "KiB", `"KiB" is no size: write a whole number and its unit: B, KiB, MiB or GiB`},
		{inBytes, "1TiB", `1TiB: "TiB" is no unit: units of size are B, KiB, MiB and GiB`},
		{inTime, "1h30m", "5400000000000"},
		{inTime, "1.5h", "5400000000000"},
		{inTime, "90d", "7776000000000000"},
		{inTime, "9999999d", fmt.Sprint(math.MaxInt64)},
		{inTime, "30", "30 has no unit: write 30s, or another unit: ms, s, m, h, d"},
		{inTime, "30sec", `"30sec" is no length of time: write a number and its unit, like 30s (or ms, m, h, d)`},
		{inTime, "soon", `"soon" is no length of time: write a number and its unit, like 30s (or ms, m, h, d)`},
		{inSeconds, "1500ms", "1500ms is no whole number of seconds: clients are told it in seconds"},
		{inSeconds, "2m", "120000000000"},
	} {
		n, p := c.unit.parse(c.text)
		got := fmt.Sprint(n)
		if p != nil {
			got = p.Error()
		}
		if got != c.want {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
	for n, want := range map[int64]string{
		0: "0s", second: "1s", 90 * second: "1m30s", 3600 * second: "1h", 5400 * second: "1h30m", 86400 * second: "1d", 90 * day: "90d", second / 1000: "1ms",
	} {
		if got := inTime.format(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// On SIGHUP limits are read where they stood at the start: in their file, or in the
// configuration, all of which is checked again. Of a fault there nothing is taken.
func TestLimitsAreReadAgain(t *testing.T) {
	rows := "v: 1\ndefault: {messages.perSecond: 5}\n"
	for name, f := range map[string]serveFlags{
		"file":          {limits: writeFile(t, "limits.yaml", rows)},
		"configuration": {config: writeFile(t, "bellwire.yaml", "node: other\nlimits: {messages.perSecond: 5}\n"), node: "n1"},
		"both":          {limits: writeFile(t, "limits.yaml", rows), config: writeFile(t, "bellwire.yaml", "limits: {messages.perSecond: 7}\n")},
	} {
		got, file, err := f.limitsNow()
		if want := cmp.Or(f.limits, f.config); err != nil || got != (limits{mqtt: mqtt.Limits{MessageRate: 5}}) || file != want {
			t.Errorf("%s: %+v of %s, %v", name, got, file, err)
		}
	}
	faulty := serveFlags{config: writeFile(t, "bellwire.yaml", "limits: {messages.perSecond: 5}\nmqt: {}\n")}
	if got, _, err := faulty.limitsNow(); err == nil || got != (limits{}) {
		t.Errorf("with a fault elsewhere: %+v, %v", got, err)
	}
	if got, file, err := (serveFlags{}).limitsNow(); err != nil || got != (limits{}) || file != "" {
		t.Errorf("of nothing: %+v of %q, %v", got, file, err)
	}
}

// Principals have limits of their own by address, in whatever spelling, each row with its own
// bounds; all that is wrong is told at once, with what may be meant.
func TestLimitsOfPrincipalsFile(t *testing.T) {
	got, err := readLimits(writeFile(t, "limits.yaml", `v: 1
principals:
  pres:Ops@Example.com: {subs.perPrincipal: 20_000, sessions.perPrincipal: unlimited, messages.perSecond: unlimited}
  eve@example.com: {bytes.perSecond: 1KiB, subs.perSession: 5}
`), readAtMost)
	want := event.Principals(map[string]event.PrincipalBounds{
		"ops@example.com": {Subscriptions: 20_000, Sessions: event.Unbounded}, "eve@example.com": {SubscriptionsPerSession: 5},
	})
	if err != nil || got.broker.Principals != want || got.mqtt.Principals == nil ||
		!maps.Equal(got.mqtt.Principals.Of, map[string]mqtt.Rates{"ops@example.com": {Messages: -1}, "eve@example.com": {Bytes: 1024}}) {
		t.Errorf("got %+v, %v", got, err)
	}
	rows := serveFlags{config: writeFile(t, "bellwire.yaml", "limits: {sessions: 5, principals: {ops@example.com: {subs.perSession: 3}}}\n")}
	if got, _, err := rows.limitsNow(); err != nil || got.broker.Sessions != 5 || got.broker.Principals == "" {
		t.Errorf("in a configuration: %+v, %v", got, err)
	}
	_, err = readLimits(writeFile(t, "limits.yaml", `v: 1
principals:
  ops: {subs.perPrincipal: 5}
  eve@example.com: {subs.perPrinciple: 5, session.queueEvents: 5, bytes.perSecond: -1}
  EVE@example.com: {}
`), readAtMost)
	bad, ok := errors.AsType[*fault](err)
	if !ok {
		t.Fatalf("faults are read: %v", err)
	}
	for _, want := range []string{"limits.yaml:3:3", `unknown key "subs.perPrinciple"`, "subs.perPrincipal", `unknown key "session.queueEvents"`, "bytes.perSecond", "eve@example.com stands there twice", "there are none"} {
		if !strings.Contains(bad.detail, want) {
			t.Errorf("%q is not in\n%s", want, bad.detail)
		}
	}
}
