package main

import (
	"encoding/json"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/profiles/inbox"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/state"
)

// What is to be known of each row of a limits file beside how it is read: docs/limits.md is
// made of it, metrics and $SYS tell it.

// A limitFact is that of one row.
type limitFact struct {
	over   string                 // what becomes of what is past it, for people
	keeper string                 // the test that shows it
	value  func(l *limits) int64  // of limits with their defaults, in the row's unit; 0 for none
	used   func(s *server) int64  // how much of it there is now; nil if that has no meaning
	hits   func(s *server) uint64 // how often it was met since the node was started; nil if nobody counts
	shared string                 // the row that hits are counted together with
}

func overMQTT(what mqtt.Over) func(s *server) uint64 {
	return func(s *server) uint64 { return s.mqtt.Stats().Over[what].Load() }
}

func turnedAwayFor(why mqtt.Turnaway) func(s *server) uint64 {
	return func(s *server) uint64 { return s.mqtt.Stats().TurnedAway[why].Load() }
}

func overBroker(limit string) func(s *server) uint64 {
	return func(s *server) uint64 { return s.broker.Over(limit) }
}

func dropped(s *server) uint64 { return s.broker.Stats().QueueDropped.Load() }

func tooSlow(s *server) uint64 { return s.broker.Stats().SlowEnded.Load() }

const overWatch = "0x97 for the request; others go on"

// limitFacts are those of all rows.
var limitFacts = map[string]limitFact{
	"connections": {
		over: "the new client: 0x89 (3.1.1: 3)", keeper: "TestMQTT03OverloadIsAnswered",
		value: func(l *limits) int64 { return int64(l.mqtt.Connections) }, used: func(s *server) int64 { return s.mqtt.Stats().Clients.Load() }, hits: overMQTT(mqtt.OverConnections),
	},
	"connections.perAddress": {
		over: "the new connection: closed unread; loopback is exempt", keeper: "TestAddressLimits",
		value: func(l *limits) int64 { return int64(l.mqtt.PerAddress) }, hits: turnedAwayFor(mqtt.TurnawayAddress),
	},
	"connections.perAddressPerMinute": {
		over: "the new connection: closed unread; loopback is exempt", keeper: "TestAddressLimits",
		value: func(l *limits) int64 { return int64(l.mqtt.PerAddressRate) }, hits: turnedAwayFor(mqtt.TurnawayRate),
	},
	"connect.perSecond": {
		over: "the new client: 0x9F (3.1.1: 3)", keeper: "TestConnectRate",
		value: func(l *limits) int64 { return int64(l.mqtt.ConnectRate) }, hits: overMQTT(mqtt.OverConnectRate),
	},
	"login.failures": {
		over: "the try: 0x86 (3.1.1: 4) unseen, after a pause; other networks sign in", keeper: "TestFailedLogins",
		value: func(l *limits) int64 { return int64(l.mqtt.FailedLogins) }, hits: func(s *server) uint64 { return s.mqtt.Stats().LoginsRefused.Load() },
	},
	"flapping.perMinute": {
		over: "the client: banned, 0x8A (3.1.1: 5)", keeper: "TestFlapping",
		value: func(l *limits) int64 { return int64(l.mqtt.FlapRate) }, hits: func(s *server) uint64 { return s.mqtt.Stats().Flapping.Load() },
	},
	"flapping.ban": {over: "how long it is banned", keeper: "TestFlapping", value: func(l *limits) int64 { return int64(l.mqtt.FlapBan) }},
	"messages.perSecond": {
		over: "the connection: 0x96 (3.1.1: closed)", keeper: "TestMessageRate",
		value: func(l *limits) int64 { return int64(l.mqtt.MessageRate) }, hits: overMQTT(mqtt.OverMessageRate),
	},
	"bytes.perSecond": {
		over: "the connection: 0x96 (3.1.1: closed)", keeper: "TestByteRate",
		value: func(l *limits) int64 { return int64(l.mqtt.ByteRate) }, hits: overMQTT(mqtt.OverByteRate),
	},
	"topic.levels": {
		over: "the publish or the filter: 0x97 (3.1.1: acknowledged and dropped; 0x80)", keeper: "TestTopicLevels",
		value: func(l *limits) int64 { return int64(l.mqtt.TopicLevels) }, hits: overMQTT(mqtt.OverLevels),
	},
	"connect.handshakes": {
		over: "the new connection: closed unread", keeper: "TestConnectionLimit",
		value: func(l *limits) int64 { return int64(l.mqtt.Handshakes) }, hits: turnedAwayFor(mqtt.TurnawayHandshakes),
		used: func(s *server) int64 { m := s.mqtt.Stats(); return max(0, m.Sockets.Load()-m.Clients.Load()) },
	},
	"connect.timeout": {
		over: "the connection: closed", keeper: "TestConnectTimeout",
		value: func(l *limits) int64 { return int64(l.mqtt.ConnectTimeout) }, hits: overMQTT(mqtt.OverConnectTimeout),
	},
	"connect.packetBytes": {
		over: "the connection: closed unanswered", keeper: "TestConnectGuards",
		value: func(l *limits) int64 { return int64(l.mqtt.ConnectPacket) }, hits: overMQTT(mqtt.OverConnectPacket),
	},
	"packet.bytes": {
		over: "the connection: 0x95; MQTT 5 clients are told the bound", keeper: "TestMQTT04LimitsAreAnnouncedAndHold",
		value: func(l *limits) int64 { return int64(l.mqtt.Packet) }, hits: overMQTT(mqtt.OverPacket),
	},
	"receiveMaximum": {
		over: "the connection: 0x93; of 3.1.1 clients no more is read; MQTT 5 clients are told", keeper: "TestMQTT04LimitsAreAnnouncedAndHold",
		value: func(l *limits) int64 { return int64(l.mqtt.ReceiveMaximum) }, hits: overMQTT(mqtt.OverInFlight),
	},
	"topicAliases": {
		over: "the connection: 0x94; MQTT 5 clients are told", keeper: "TestMQTT27TopicAliasIn",
		value: func(l *limits) int64 { return int64(l.mqtt.TopicAliases) }, hits: overMQTT(mqtt.OverAliases),
	},
	"clientId.bytes": {
		over: "the new client: 0x85 (3.1.1: 2)", keeper: "TestClientIDs",
		value: func(l *limits) int64 { return int64(l.mqtt.ClientID) }, hits: overMQTT(mqtt.OverClientID),
	},
	"output.bytes": {
		over: "events of QoS 0 for that client: dropped; others wait in its session's queue", keeper: "TestOutputIsBounded",
		value: func(l *limits) int64 { return int64(l.mqtt.Output) }, hits: func(s *server) uint64 { m := s.mqtt.Stats(); return m.Dropped[mqtt.DropFull].Load() + m.Full.Load() },
	},
	"slow.timeout": {
		over: "the connection: 0x97", keeper: "TestMQTT19SlowTimeout",
		value: func(l *limits) int64 { return int64(l.mqtt.SlowTimeout) }, hits: overMQTT(mqtt.OverSlow),
	},
	"keepAlive.max": {
		over: "an MQTT 5 client is told this one; older ones get what they ask for", keeper: "TestMQTT04LimitsAreAnnouncedAndHold",
		value: func(l *limits) int64 { return int64(l.mqtt.KeepAlive) },
	},
	"sessions": {
		over: "the new session: 0x97 (3.1.1: 3)", keeper: "TestMQTT04QuotasAreTold",
		value: func(l *limits) int64 { return int64(l.broker.Sessions) }, used: func(s *server) int64 { return s.broker.SessionsKnown() }, hits: overBroker("sessions"),
	},
	"sessions.perPrincipal": {
		over: "the new session: 0x97 (3.1.1: 3); those there are stay", keeper: "TestSessionsOfOneUser",
		value: func(l *limits) int64 { return int64(l.broker.SessionsPerPrincipal) }, hits: overBroker("sessions.perPrincipal"),
	},
	"session.expiryMax": {
		over: "who asks for more is given this one, and an MQTT 5 client is told", keeper: "TestMQTT04LimitsAreAnnouncedAndHold",
		value: func(l *limits) int64 { return int64(l.broker.SessionExpiryMax) * second },
	},
	"session.queueEvents": {
		over: "the oldest events of that queue: dropped, and its client is told", keeper: "TestMQTT21QueueBound",
		value: func(l *limits) int64 { return int64(l.broker.QueueEvents) }, hits: dropped,
	},
	"session.queueBytes": {
		over: "likewise", keeper: "TestMQTT21QueueBytesBound",
		value: func(l *limits) int64 { return l.broker.QueueBytes }, hits: dropped, shared: "session.queueEvents",
	},
	"session.volatileEvents": {
		over: "the connection: 0x97", keeper: "TestSlowVolatileClientIsEnded",
		value: func(l *limits) int64 { return int64(l.broker.VolatileEvents) }, hits: tooSlow,
	},
	"session.volatileBytes": {
		over: "likewise", keeper: "TestMQTT19SlowCleanSubscriberIsEnded",
		value: func(l *limits) int64 { return l.broker.VolatileBytes }, hits: tooSlow, shared: "session.volatileEvents",
	},
	"subs.perSession": {
		over: "all filters of that SUBSCRIBE: 0x97 (3.1.1: 0x80)", keeper: "TestMQTT04QuotasAreTold",
		value: func(l *limits) int64 { return int64(l.broker.SubscriptionsPerSession) }, hits: overBroker("subs.perSession"),
	},
	"share.members": {
		over: "all filters of that SUBSCRIBE: 0x97 (3.1.1: 0x80); those there are stay", keeper: "TestGroupMembersAreBounded",
		value: func(l *limits) int64 { return int64(l.broker.GroupMembers) }, hits: overBroker("share.members"),
	},
	"share.perSession": {
		over: "all filters of that SUBSCRIBE: 0x97 (3.1.1: 0x80); those there are stay", keeper: "TestSharedOfOneSession",
		value: func(l *limits) int64 { return int64(l.broker.GroupsPerSession) }, hits: overBroker("share.perSession"),
	},
	"share.groupsPerPrincipal": {
		over: "likewise: that SUBSCRIBE would found one group more; others may be joined", keeper: "TestGroupsOfOneUser",
		value: func(l *limits) int64 { return int64(l.broker.GroupsPerPrincipal) }, hits: overBroker("share.groupsPerPrincipal"),
	},
	"subs.perPrincipal": {
		over: "all filters of that SUBSCRIBE: 0x97 (3.1.1: 0x80); those there are stay", keeper: "TestSubscriptionsOfOneUser",
		value: func(l *limits) int64 { return int64(l.broker.SubscriptionsPerPrincipal) }, hits: overBroker("subs.perPrincipal"),
	},
	"subs.wildcardsPerPrincipal": {
		over: "likewise", keeper: "TestSubscriptionsOfOneUser",
		value: func(l *limits) int64 { return int64(l.broker.WildcardsPerPrincipal) }, hits: overBroker("subs.wildcardsPerPrincipal"),
	},
	"subs": {
		over: "all filters of that SUBSCRIBE: 0x97 (3.1.1: 0x80)", keeper: "TestSubscriptionsInAll",
		value: func(l *limits) int64 { return int64(l.broker.Subscriptions) }, hits: overBroker("subs"),
	},
	"subs.deepLevels": {
		over: "all filters of that SUBSCRIBE: 0x97 (3.1.1: 0x80)", keeper: "TestDeepFiltersAreBounded",
		value: func(l *limits) int64 { return int64(l.broker.DeepLevels) }, hits: overBroker("subs.deepLevels"),
	},
	"retained.topics": {
		over: "the publish: 0x97 (3.1.1: acknowledged and dropped)", keeper: "TestMQTT04QuotasAreTold",
		value: func(l *limits) int64 { return int64(l.broker.RetainedTopics) }, used: func(s *server) int64 { return s.broker.Retained() }, hits: overBroker("retained.topics"),
	},
	"backlog.bytes": {
		over: "publishers wait: they are not read", keeper: "TestLimitBounds",
		value: func(l *limits) int64 { return int64(l.broker.Backlog) },
	},
	"im.perSecond": {
		over: "the message: 0x97, rate", keeper: "TestBounds",
		value: func(l *limits) int64 { return int64(l.im.Rate) }, hits: overBroker("im.perSecond"),
	},
	"im.burst":     {over: "likewise", keeper: "TestBounds", value: func(l *limits) int64 { return int64(l.im.Burst) }, hits: overBroker("im.perSecond"), shared: "im.perSecond"},
	"im.kept":      {over: "the message: 0x97, quota", keeper: "TestBounds", value: func(l *limits) int64 { return int64(l.im.Kept) }, hits: overBroker("im.kept")},
	"im.keptBytes": {over: "likewise", keeper: "TestBounds", value: func(l *limits) int64 { return int64(l.im.KeptBytes) }, hits: overBroker("im.kept"), shared: "im.kept"},
	"im.ids":       {over: "the oldest id is forgotten: that message would be another", keeper: "TestBounds", value: func(l *limits) int64 { return int64(l.im.IDs) }},
	"im.contacts":  {over: "people beyond stay strangers", keeper: "TestBounds", value: func(l *limits) int64 { return int64(l.im.Contacts) }},
	"im.strangersPerHour": {
		over: "the message: 0x97, rate, whether there is such an inbox or not; those to who knows the sender go on", keeper: "TestStrangersHaveARate",
		value: func(l *limits) int64 { return int64(l.im.Strangers) }, hits: overBroker("im.strangersPerHour"),
	},
	"source.perSecond": {
		over: "the publication: 0x97, rate (PUBACK knows no 0x96); what removes has as much again", keeper: "TestSourcesHaveARate",
		value: func(l *limits) int64 { return int64(l.state.SourceRate) }, hits: overBroker("source.perSecond"),
	},
	"source.burst": {over: "likewise", keeper: "TestSourcesHaveARate", value: func(l *limits) int64 { return int64(l.state.SourceBurst) }, hits: overBroker("source.perSecond"), shared: "source.perSecond"},

	"watch.default":            {over: "what becomes of requests of which the owner has said nothing", keeper: "TestLimitsAreState", value: func(l *limits) int64 { return int64(l.state.Default) }},
	"watch.expiresMax":         {over: "who asks for more is given this one, and told", keeper: "TestS23SubscriptionsEnd", value: func(l *limits) int64 { return int64(l.state.Life.MostExpires) }},
	"watch.pending":            {over: overWatch, keeper: "TestWhatNeverBeganIsBounded", value: func(l *limits) int64 { return int64(l.state.Life.PendingByWatcher) }, hits: overBroker("watch")},
	"watch.pendingPerAddress":  {over: overWatch, keeper: "TestWhatNeverBeganIsBounded", value: func(l *limits) int64 { return int64(l.state.Life.PendingOf) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.perDomainPerHour":   {over: overWatch, keeper: "TestDomainsAskSoOften", value: func(l *limits) int64 { return int64(l.state.Life.ByDomain) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.perAddress":         {over: overWatch, keeper: "TestBook", value: func(l *limits) int64 { return int64(l.state.Life.Watchers) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.perWatcher":         {over: overWatch, keeper: "TestAddressesOfAWatcherAreBounded", value: func(l *limits) int64 { return int64(l.state.Life.ByWatcher) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.wildcards":          {over: overWatch, keeper: "TestWildcardsAreBounded", value: func(l *limits) int64 { return int64(l.state.Life.WidesBy) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.wildcardsPerDomain": {over: overWatch, keeper: "TestWildcardsAreBounded", value: func(l *limits) int64 { return int64(l.state.Life.Wides) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.keptPerAddress":     {over: "one more that is over is not kept", keeper: "TestWhatIsOverIsBounded", value: func(l *limits) int64 { return int64(l.state.Life.KeptOf) }},
	"watch.perMinute":          {over: overWatch, keeper: "TestBook", value: func(l *limits) int64 { return int64(l.state.Life.PerMinute) }, hits: overBroker("watch"), shared: "watch.pending"},
	"watch.sessions":           {over: overWatch, keeper: "TestBook", value: func(l *limits) int64 { return int64(l.state.Life.SessionsSharing) }, hits: overBroker("watch"), shared: "watch.pending"},
	"document.bytes": {
		over: "the publication: 0x99, too-large (HTTP: 413); what was taken before stays", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.Bytes) }, hits: overBroker(kind.BoundBytes),
	},
	"json.depth": {
		over: "likewise: lists and objects inside each other, of documents and owners' policies", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.JSONDepth) }, hits: overBroker(kind.BoundJSONDepth),
	},
	"json.members": {
		over: "likewise, in all; policies have room for their rules", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.JSONMembers) }, hits: overBroker(kind.BoundJSONMembers),
	},
	"xml.depth": {
		over: "likewise: elements inside each other", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.XMLDepth) }, hits: overBroker(kind.BoundXMLDepth),
	},
	"xml.nodes": {
		over: "likewise: elements, attributes and pieces of text", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.XMLNodes) }, hits: overBroker(kind.BoundXMLNodes),
	},
	"policy.bytes": {
		over: "the owner's policy, or blocklist: 0x99, too-large (HTTP: 422); the one before stays", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.PolicyBytes) }, hits: overBroker(kind.BoundPolicyBytes),
	},
	"policy.rules": {
		over: "the owner's policy: 0x99, schema (HTTP: 422); the one before stays; rules, limits and delegates, each", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.PolicyRules) }, hits: overBroker(kind.BoundPolicyRules),
	},
	"message.recipients": {
		over: "the message: 0x99, schema (HTTP: 422); to and cc, each", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.Recipients) }, hits: overBroker(kind.BoundRecipients),
	},
	"message.reports": {
		over: "likewise: reports that its sender wants of it", keeper: "TestDocumentBounds",
		value: func(l *limits) int64 { return int64(l.document.Reports) }, hits: overBroker(kind.BoundReports),
	},
	"notify.interval": {
		over: "the change is not shown to that watcher until then; what is shown is how things are by then", keeper: "TestNotifyInterval",
		value: func(l *limits) int64 { return int64(l.notify) }, hits: func(s *server) uint64 { return s.broker.Stats().Coalesced.Load() },
	},
	"fetch.burst": {
		over: "the request: 429 with Retry-After", keeper: "TestFetchesHaveARate",
		value: func(l *limits) int64 { return int64(l.fetches.atOnce) }, hits: func(s *server) uint64 { return s.fetches.Refused.Load() },
	},
	"fetch.perSecond": {
		over: "likewise", keeper: "TestFetchesHaveARate",
		value: func(l *limits) int64 { return int64(l.fetches.perSecond) }, hits: func(s *server) uint64 { return s.fetches.Refused.Load() }, shared: "fetch.burst",
	},
	"fetch.perResourceBurst": {
		over: "the request: 429 with Retry-After, also where it would be 304", keeper: "TestFetchesOfOneResourceHaveARate",
		value: func(l *limits) int64 { return int64(l.fetches.repeats.AtOnce) }, hits: func(s *server) uint64 { return s.repeats.Refused.Load() },
	},
	"fetch.perResourceInterval": {
		over: "likewise", keeper: "TestFetchesOfOneResourceHaveARate",
		value: func(l *limits) int64 { return int64(l.fetches.repeats.Interval) }, hits: func(s *server) uint64 { return s.repeats.Refused.Load() }, shared: "fetch.perResourceBurst",
	},
	"disk.lowWater": {
		over: "durable publishes: 0x97, disk-full, until there is room", keeper: "TestMQTT15DiskFull",
		value: func(l *limits) int64 { return int64(l.lowWater) },
	},
}

// agreedRows are the names of the rows, or how those begin, that all nodes have alike, as the log has them:
// those in force change by SIGHUP. The others are a node's own.
var agreedRows = map[string]bool{
	"im.": true, "source.": true, "watch.": true,
	"sessions": true, "sessions.perPrincipal": true, "subs.perSession": true, "share.members": true, "share.perSession": true, "share.groupsPerPrincipal": true, "subs.perPrincipal": true, "subs.wildcardsPerPrincipal": true, "retained.topics": true, "session.queueEvents": true, "session.queueBytes": true,
}

// Of a node's own rows those that change by SIGHUP, too. Those that are not here are parts of
// what is made at its start.
const (
	hangup    = "SIGHUP"
	hangupNew = "SIGHUP, for new connections" // the others were told another, or do not come again
)

var hangupRows = map[string]string{
	"connections": hangup, "connections.perAddress": hangup, "connections.perAddressPerMinute": hangup, "connect.perSecond": hangup, "connect.handshakes": hangup,
	"login.failures": hangup, "flapping.perMinute": hangup, "flapping.ban": hangup, "messages.perSecond": hangup, "bytes.perSecond": hangup,
	"topic.levels": hangup, "output.bytes": hangup, "slow.timeout": hangup, "fetch.burst": hangup, "fetch.perSecond": hangup, "fetch.perResourceBurst": hangup, "fetch.perResourceInterval": hangup,
	"document.bytes": hangup, "json.depth": hangup, "json.members": hangup, "xml.depth": hangup, "xml.nodes": hangup,
	"notify.interval": hangup, "policy.bytes": hangup, "policy.rules": hangup, "message.recipients": hangup, "message.reports": hangup,
	"connect.timeout": hangupNew, "connect.packetBytes": hangupNew, "packet.bytes": hangupNew, "receiveMaximum": hangupNew, "topicAliases": hangupNew,
	"clientId.bytes": hangupNew, "keepAlive.max": hangupNew,
}

// isAgreed says whether a row is one of these.
func (row *limitRow) isAgreed() bool {
	return agreedRows[row.name] || agreedRows[row.name[:strings.IndexByte(row.name, '.')+1]]
}

// withDefaults returns l as a node has it that is told nothing else.
func (l limits) withDefaults() (limits, error) {
	var err error
	l.mqtt, err = l.mqtt.WithDefaults()
	l.broker, l.im, l.state, l.document = l.broker.WithDefaults(), l.im.WithDefaults(), l.state.WithDefaults(), l.document.WithDefaults()
	l.fetches = l.fetches.withDefaults()
	return l, err
}

// limitsInForce are those of this node now.
func (s *server) limitsInForce() limits {
	l, _ := s.ownLimits.Load().withDefaults() // no fault: they are in force
	in := s.inForce()
	if in.settings.Sessions > 0 {
		l.broker = l.broker.Agreed(&in.settings)
	}
	if in.im != (inbox.Limits{}) {
		l.im = in.im
	}
	if in.state != (state.Limits{}) {
		l.state = in.state
	}
	return l
}

// sysLimits begins what limits tell below $SYS.
const sysLimits = "$SYS/limits/"

// limitValues tell each row: what of it is used, how much there may be, and how often it was
// met.
func (s *server) limitValues(v *sysValues) {
	for _, row := range limitRows {
		fact := limitFacts[row.name]
		v.values = append(v.values, broker.SystemValue{Topic: sysLimits + row.name, Read: func() string {
			l := s.limitsInForce()
			told := struct {
				Used    *int64  `json:"used,omitempty"`
				Max     string  `json:"max"`
				Refused *uint64 `json:"refused,omitempty"`
			}{Max: row.text(fact.value(&l))}
			if fact.used != nil {
				n := fact.used(s)
				told.Used = &n
			}
			if fact.hits != nil {
				n := fact.hits(s)
				told.Refused = &n
			}
			text, _ := json.Marshal(told) // numbers and a word
			return string(text)
		}})
	}
}

// limitMetrics count how often each row was met.
func (s *server) limitMetrics(t *table) {
	hits := t.family(prometheus.CounterValue, "limit_refused_total", "what was refused, dropped or ended for a limit, by its name in a limits file; some are counted together, see docs/limits.md", "limit")
	for _, row := range limitRows {
		if fact := limitFacts[row.name]; fact.hits != nil && fact.shared == "" {
			hits.count(func() uint64 { return fact.hits(s) }, row.name)
		}
	}
}

// text writes a value of the row as a file has it.
func (row *limitRow) text(n int64) string {
	if n == 0 && row.mayBeNone && row.least > 0 {
		return "unlimited"
	}
	if row.name == "disk.lowWater" && n == 0 {
		return "5 % of the volume, at most 512MiB"
	}
	return row.unit.format(n)
}
