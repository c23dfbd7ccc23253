package main

import (
	"cmp"
	"time"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/inbox"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/state"
	"github.com/bellwire/bellwire/yamltree"
)

// limits are the bounds of a node. Zero fields have the defaults of their
// rooms.
type limits struct {
	broker   broker.Limits
	mqtt     mqtt.Limits
	im       inbox.Limits
	state    state.Limits  // of presence and location alike
	document kind.Bounds   // of all profiles
	notify   time.Duration // of all kinds of state
	fetches  fetchLimits
	lowWater uint64
}

// Fetches over HTTP of one asker, and of those the ones of one resource.
type fetchLimits struct {
	atOnce, perSecond int // 0 means 100, and 5
	repeats           api.Bounds
}

// all and same are those bounds as api has them, of anything and of one resource.
func (l fetchLimits) all() api.Bounds {
	l = l.withDefaults()
	return api.Bounds{AtOnce: l.atOnce, Interval: time.Second / time.Duration(l.perSecond)}
}

func (l fetchLimits) same() api.Bounds { return l.withDefaults().repeats }

func (l fetchLimits) withDefaults() fetchLimits {
	l.atOnce, l.perSecond = cmp.Or(l.atOnce, 100), cmp.Or(l.perSecond, 5)
	l.repeats = api.Bounds{AtOnce: cmp.Or(l.repeats.AtOnce, 10), Interval: cmp.Or(l.repeats.Interval, 30*time.Second)}
	return l
}

// A limitRow is one bound as files have it.
type limitRow struct {
	name        string
	unit        unit
	least, most int64 // as the unit has it
	mayBeNone   bool  // the word unlimited is possible; set is called with unlimited
	set         func(l *limits, n int64)
}

// unlimited is the value of a row that sets no bound.
const unlimited = -1

// packetBytesMax leaves room for what a command adds to an event within the
// largest batch that the log takes.
const packetBytesMax = 1<<20 - 8<<10

// What the largest values are for where nothing else bounds them: a machine
// that could hold more has not been built, and sums of them do not overflow.
const (
	countMax = 1 << 30
	bytesMax = 1 << 50
)

// limitRows are the rows of a limits file. What one bounds, its default and
// what happens past it stand at the field that it sets.
var limitRows = []limitRow{
	{"connections", inCount, 1, countMax, false, func(l *limits, n int64) { l.mqtt.Connections = int(n) }},
	{"connections.perAddress", inCount, 1, countMax, true, func(l *limits, n int64) { l.mqtt.PerAddress = int(n) }},
	{"connections.perAddressPerMinute", inCount, 1, 1 << 20, true, func(l *limits, n int64) { l.mqtt.PerAddressRate = int(n) }},
	{"connect.perSecond", inCount, 1, 1 << 20, true, func(l *limits, n int64) { l.mqtt.ConnectRate = int(n) }},
	{"login.failures", inCount, 1, 1 << 20, true, func(l *limits, n int64) { l.mqtt.FailedLogins = int(n) }},
	{"flapping.perMinute", inCount, 1, 1 << 20, true, func(l *limits, n int64) { l.mqtt.FlapRate = int(n) }},
	{"flapping.ban", inTime, second, 365 * day, false, func(l *limits, n int64) { l.mqtt.FlapBan = time.Duration(n) }},
	{"messages.perSecond", inCount, 1, 1 << 20, true, func(l *limits, n int64) { l.mqtt.MessageRate = int(n) }},
	{"bytes.perSecond", inBytes, 1, 1 << 30, true, func(l *limits, n int64) { l.mqtt.ByteRate = int(n) }},
	{"topic.levels", inCount, 1, topic.Limit, false, func(l *limits, n int64) { l.mqtt.TopicLevels = int(n) }},
	{"connect.handshakes", inCount, 1, countMax, false, func(l *limits, n int64) { l.mqtt.Handshakes = int(n) }},
	{"connect.timeout", inTime, second / 1000, 3600 * second, false, func(l *limits, n int64) { l.mqtt.ConnectTimeout = time.Duration(n) }},
	{"connect.packetBytes", inBytes, 1, packetBytesMax, false, func(l *limits, n int64) { l.mqtt.ConnectPacket = int(n) }},
	{"packet.bytes", inBytes, 1, packetBytesMax, false, func(l *limits, n int64) { l.mqtt.Packet = int(n) }},
	{"receiveMaximum", inCount, 1, 65_535, false, func(l *limits, n int64) { l.mqtt.ReceiveMaximum = int(n) }},
	{"topicAliases", inCount, 0, 65_535, false, func(l *limits, n int64) {
		if n == 0 {
			n = -1 // zero means the default there
		}
		l.mqtt.TopicAliases = int(n)
	}},
	{"clientId.bytes", inBytes, 1, 65_535, false, func(l *limits, n int64) { l.mqtt.ClientID = int(n) }},
	{"output.bytes", inBytes, 1, 1 << 30, false, func(l *limits, n int64) { l.mqtt.Output = int(n) }},
	{"slow.timeout", inTime, second / 1000, 3600 * second, false, func(l *limits, n int64) { l.mqtt.SlowTimeout = time.Duration(n) }},
	{"keepAlive.max", inSeconds, second, 65_535 * second, true, func(l *limits, n int64) { l.mqtt.KeepAlive = time.Duration(max(n, 0)) }},
	{"sessions", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.Sessions = int(n) }},
	{"sessions.perPrincipal", inCount, 1, countMax, true, func(l *limits, n int64) { l.broker.SessionsPerPrincipal = int(max(n, 0)) }},
	{"session.expiryMax", inSeconds, second, (1<<32 - 2) * second, true, func(l *limits, n int64) {
		l.mqtt.SessionExpiry = time.Duration(max(n, 0))
		l.broker.SessionExpiryMax = uint32(max(n, 0) / second)
	}},
	{"session.queueEvents", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.QueueEvents = int(n) }},
	{"session.queueBytes", inBytes, 1, bytesMax, false, func(l *limits, n int64) { l.broker.QueueBytes = n }},
	{"session.volatileEvents", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.VolatileEvents = int(n) }},
	{"session.volatileBytes", inBytes, 1, bytesMax, false, func(l *limits, n int64) { l.broker.VolatileBytes = n }},
	{"subs.perSession", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.SubscriptionsPerSession = int(n) }},
	{"share.members", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.GroupMembers = int(n) }},
	{"share.perSession", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.GroupsPerSession = int(n) }},
	{"share.groupsPerPrincipal", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.GroupsPerPrincipal = int(n) }},
	{"subs.perPrincipal", inCount, 1, countMax, true, func(l *limits, n int64) { l.broker.SubscriptionsPerPrincipal = int(max(n, 0)) }},
	{"subs.wildcardsPerPrincipal", inCount, 1, countMax, true, func(l *limits, n int64) { l.broker.WildcardsPerPrincipal = int(max(n, 0)) }},
	{"subs", inCount, 2, countMax, false, func(l *limits, n int64) { l.broker.Subscriptions = int(n) }},
	{"subs.deepLevels", inCount, 8, countMax, false, func(l *limits, n int64) { l.broker.DeepLevels = int(n) }},
	{"retained.topics", inCount, 1, countMax, false, func(l *limits, n int64) { l.broker.RetainedTopics = int(n) }},
	{"backlog.bytes", inBytes, 1, bytesMax, false, func(l *limits, n int64) { l.broker.Backlog = int(n) }},
	{"im.perSecond", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.im.Rate = int(n) }},
	{"im.burst", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.im.Burst = int(n) }},
	{"im.kept", inCount, 1, inbox.MostKept, false, func(l *limits, n int64) { l.im.Kept = int(n) }},
	{"im.keptBytes", inBytes, 1, 1 << 30, false, func(l *limits, n int64) { l.im.KeptBytes = int(n) }},
	{"im.ids", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.im.IDs = int(n) }},
	{"im.contacts", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.im.Contacts = int(n) }},
	{"im.strangersPerHour", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.im.Strangers = int(n) }},
	{"source.perSecond", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.SourceRate = int(n) }},
	{"source.burst", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.SourceBurst = int(n) }},
	{"watch.default", inHandling, int64(policy.Confirm), int64(policy.PoliteBlock), false, func(l *limits, n int64) { l.state.Default = policy.Handling(n) }},
	{"watch.expiresMax", inSeconds, 30 * second, (1<<32 - 2) * second, false, func(l *limits, n int64) { l.state.Life.MostExpires = time.Duration(n) }},
	{"watch.pending", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.PendingByWatcher = int(n) }},
	{"watch.pendingPerAddress", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.PendingOf = int(n) }},
	{"watch.perDomainPerHour", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.ByDomain = int(n) }},
	{"watch.perAddress", inCount, 1, 1 << 24, false, func(l *limits, n int64) { l.state.Life.Watchers = int(n) }},
	{"watch.perWatcher", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.ByWatcher = int(n) }},
	{"watch.wildcards", inCount, 1, 1000, false, func(l *limits, n int64) { l.state.Life.WidesBy = int(n) }},
	{"watch.wildcardsPerDomain", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.Wides = int(n) }},
	{"watch.keptPerAddress", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.KeptOf = int(n) }},
	{"watch.perMinute", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.state.Life.PerMinute = int(n) }},
	{"watch.sessions", inCount, 1, 10_000, false, func(l *limits, n int64) { l.state.Life.SessionsSharing = int(n) }},
	{"document.bytes", inBytes, 1, kind.MaxDocument, false, func(l *limits, n int64) { l.document.Bytes = int(n) }},
	{"json.depth", inCount, 1, jsontree.MaxDepth, false, func(l *limits, n int64) { l.document.JSONDepth = int(n) }},
	{"json.members", inCount, 1, jsontree.MaxMembers, false, func(l *limits, n int64) { l.document.JSONMembers = int(n) }},
	{"xml.depth", inCount, 1, kind.MaxXMLDepth, false, func(l *limits, n int64) { l.document.XMLDepth = int(n) }},
	{"xml.nodes", inCount, 1, kind.MaxXMLNodes, false, func(l *limits, n int64) { l.document.XMLNodes = int(n) }},
	{"policy.bytes", inBytes, 1, kind.MaxPolicy, false, func(l *limits, n int64) { l.document.PolicyBytes = int(n) }},
	{"policy.rules", inCount, 1, kind.MaxRules, false, func(l *limits, n int64) { l.document.PolicyRules = int(n) }},
	{"message.recipients", inCount, 1, kind.MaxRecipients, false, func(l *limits, n int64) { l.document.Recipients = int(n) }},
	{"message.reports", inCount, 1, kind.MaxReports, false, func(l *limits, n int64) { l.document.Reports = int(n) }},
	{"notify.interval", inTime, 0, 3600 * second, true, func(l *limits, n int64) { l.notify = time.Duration(max(n, 0)) }},
	{"fetch.burst", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.fetches.atOnce = int(n) }},
	{"fetch.perSecond", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.fetches.perSecond = int(n) }},
	{"fetch.perResourceBurst", inCount, 1, 1 << 20, false, func(l *limits, n int64) { l.fetches.repeats.AtOnce = int(n) }},
	{"fetch.perResourceInterval", inTime, second / 1000, 3600 * second, false, func(l *limits, n int64) { l.fetches.repeats.Interval = time.Duration(n) }},
	{"disk.lowWater", inBytes, 1, bytesMax, false, func(l *limits, n int64) { l.lowWater = uint64(n) }},
}

// readLimits reads a limits file.
func readLimits(name string, read fileReader) (limits, error) {
	data, err := read(name, yamltree.MaxFile+1)
	if err != nil {
		return limits{}, fileFault(bw.LimitsFile, name, err)
	}
	r, top := yamltree.Read(name, data, yamltree.Form{})
	var l limits
	if top != nil {
		l = readLimitsFile(r, top)
	}
	if err := r.Err(); err != nil {
		return limits{}, fileFault(bw.LimitsFile, name, err)
	}
	return l, nil
}

// readLimitsFile reads the form of its own that limits have in a file of their
// own: v says which.
func readLimitsFile(r *yamltree.Reader, top *yamltree.Node) (l limits) {
	if top.Kind == yamltree.Null {
		r.FailAt(top.Pos, noVersion())
		return l
	}
	f, ok := r.Table(withoutLater(r, top, limitsLater), "a limits file", "v", "default", "principals")
	if !ok {
		return l
	}
	if v := f["v"]; v == nil {
		r.FailAt(top.Pos, noVersion())
	} else if text, ok := r.Text(v, "v"); ok && text != "1" {
		r.FailAt(v.Pos, yamltree.Problemf("v: %s is a form of the file that is not known", text).Hint("write v: 1"))
	}
	if f["default"] != nil {
		l = readLimitRows(r, f["default"], "default")
	}
	readPrincipals(r, f["principals"], &l)
	return l
}

func noVersion() *yamltree.Problem {
	return yamltree.Problemf("a limits file without v").Hint("add v: 1, which says what the rest means")
}

// readLimitRows reads the rows of n. A row that is left out keeps its default.
func readLimitRows(r *yamltree.Reader, n *yamltree.Node, what string) (l limits) {
	names := make([]string, len(limitRows))
	for i, row := range limitRows {
		names[i] = row.name
	}
	f, ok := r.Table(withoutLater(r, n, limitsLater), what, names...)
	if !ok {
		return l
	}
	for i := range limitRows {
		row := &limitRows[i]
		if value, ok := row.readFrom(r, f); ok {
			row.set(&l, value)
		}
	}
	return l
}

// readFrom reads the row's value of a table that has it, and may; ok says that there is one
// without a fault.
func (row *limitRow) readFrom(r *yamltree.Reader, f map[string]*yamltree.Node) (value int64, ok bool) {
	n := f[row.name]
	if n == nil {
		return 0, false
	}
	text, ok := r.Text(n, row.name)
	if !ok {
		return 0, false
	}
	value, err := row.read(text)
	if err != nil {
		r.FailAt(n.Pos, err)
		return 0, false
	}
	return value, true
}

// limitsLater are the sections that limits do not have: a domain's stand in the policy, where
// what is the domain's own does.
var limitsLater = map[string]later{
	"domains": {"domains: what the people of one domain may use is bounded by the policy, not by limits", "remove the section, and give the domain quotas in the policy (tenants), such as quotas: {sessions: 1000}"},
}

// read returns the value that text has for the row.
func (row *limitRow) read(text string) (int64, *yamltree.Problem) {
	if row.mayBeNone && text == "unlimited" {
		return unlimited, nil
	}
	n, p := row.unit.parse(text)
	if p == nil && (n < row.least || n > row.most) {
		p = yamltree.Problemf("%s is out of bounds", cut(text))
	}
	if p != nil {
		if p.Todo == "" {
			p.Hint("%s", row.bounds())
		}
		p.What = row.name + ": " + p.What
	}
	return n, p
}

// bounds says what is possible.
func (row *limitRow) bounds() string {
	s := "want " + row.unit.format(row.least) + " to " + row.unit.format(row.most)
	if row.mayBeNone {
		s += ", or unlimited"
	}
	return s
}
