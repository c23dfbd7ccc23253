package main

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics returns the handler of /metrics. Counters are fields of what counts;
// here they are only read, when somebody asks. No label holds a client, topic,
// user, address or domain: see domainMetrics.
func (s *server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), s.brokerMetrics(), s.clusterMetrics(), s.peerMetrics(), changing(s.bridgeMetrics), nodeMetrics(s.node.Stats))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// A table is a collector of metrics that are each a function.
type table []row

type row struct {
	name  string // without bellwire_
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label []string
	read  func() float64
}

func (t table) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range t {
		ch <- r.desc
	}
}

func (t table) Collect(ch chan<- prometheus.Metric) {
	for _, r := range t {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, r.read(), r.label...)
	}
}

// changing is a table whose rows come and go: it is made anew each time.
type changing func() table

// Describe implements prometheus.Collector. It tells none, as what there will be is not known.
func (changing) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c changing) Collect(ch chan<- prometheus.Metric) { c().Collect(ch) }

// A family adds rows under one name.
type family struct {
	t    *table
	name string
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func (t *table) family(kind prometheus.ValueType, name, help string, labels ...string) family {
	return family{t, name, prometheus.NewDesc("bellwire_"+name, help, labels, nil), kind}
}

func (t *table) counter(name, help string, read func() uint64) {
	t.family(prometheus.CounterValue, name, help).row(func() float64 { return float64(read()) })
}

func (t *table) gauge(name, help string, read func() float64) {
	t.family(prometheus.GaugeValue, name, help).row(read)
}

func (f family) row(read func() float64, labels ...string) {
	*f.t = append(*f.t, row{f.name, f.desc, f.kind, labels, read})
}

func (f family) count(read func() uint64, labels ...string) {
	f.row(func() float64 { return float64(read()) }, labels...)
}

func (s *server) brokerMetrics() table {
	t := &table{}
	b, m := s.broker.Stats(), s.mqtt.Stats()
	t.family(prometheus.GaugeValue, "build_info", "which version runs", "version", "revision").row(func() float64 { return 1 }, version, revision())
	t.gauge("connections", "clients connected", func() float64 { return float64(m.Clients.Load()) })
	t.gauge("sockets", "connections open, accepted or not", func() float64 { return float64(m.Sockets.Load()) })

	received := t.family(prometheus.CounterValue, "messages_received_total", "events accepted from clients", "qos")
	sent := t.family(prometheus.CounterValue, "messages_sent_total", "events handed to clients' connections", "qos")
	for qos, name := range [...]string{"0", "1", "2"} {
		received.count(b.Published[qos].Load, name)
		sent.count(b.Delivered[qos].Load, name)
	}
	t.counter("messages_in_memory_total", "events of QoS 1 and 2 that no log has, for the policy says so", b.InMemory.Load)
	dropped := t.family(prometheus.CounterValue, "messages_dropped_total", "deliveries and publishes that came to nothing", "reason")
	dropped.count(b.QueueDropped.Load, "queue_full")
	dropped.count(b.Expired.Load, "expired")
	dropped.count(b.TooLarge.Load, "too_large")
	dropped.count(func() uint64 { shut := b.Shut.Load(); return max(b.Withheld.Load(), shut) - shut }, "acl")
	dropped.count(b.Shut.Load, "window")
	dropped.count(b.PublishRefused.Load, "publish_refused")
	dropped.count(b.SharedLost.Load, "no_member")
	for i := range m.Dropped {
		if why := dropReason(i); why != "" {
			dropped.count(m.Dropped[i].Load, why)
		}
	}
	t.gauge("retained_messages", "topics that have a retained event", func() float64 { return float64(s.broker.Retained()) })
	t.counter("messages_queued_total", "entries added to queues of durable sessions", b.Queued.Load)
	t.gauge("shared_waiting", "events that wait for a member of the group of their shared subscription", func() float64 { return float64(s.broker.SharedWaiting()) })
	t.counter("shared_refused_total", "SUBSCRIBEs for more shared subscriptions than a session, or groups than a user, may have", b.SharedRefused.Load)
	t.counter("lists_refused_total", "lists of resources that somebody asked for too soon, by HTTP", s.lists.Refused.Load)
	t.counter("fetches_refused_total", "what else somebody asked for too soon, by HTTP", s.fetches.Refused.Load)
	t.counter("shared_returned_total", "events of shared subscriptions that went from one member to another, or to wait for one", b.SharedReturned.Load)
	t.gauge("body_segments", "segments of events that several queues share, each of 1,024; unless they are full of what waits, little of what they take is needed", func() float64 { return float64(s.broker.BodySegments()) })
	t.counter("bodies_copied_total", "events stored anew, because little else was left of their segment", b.BodiesCopied.Load)
	t.counter("bodies_copied_bytes_total", "bytes of these", b.BytesCopied.Load)
	t.gauge("delayed_events", "events that wait for their time", func() float64 { n, _ := s.broker.DelayedCount(); return float64(n) })
	t.gauge("delayed_bytes", "what these are counted as against the policy's bounds", func() float64 { _, n := s.broker.DelayedCount(); return float64(n) })
	delayed := t.family(prometheus.CounterValue, "delayed_total", "events whose time had come, or that were to go before", "fate")
	delayed.count(b.DelayedPublished.Load, "published")
	delayed.count(b.DelayedRefused.Load, "refused")
	t.counter("subscriptions_not_given_total", "subscriptions that the policy gives, and its rules or bounds do not let clients have", b.GivenRefused.Load)
	t.counter("messages_replayed_total", "retained events sent to subscribers", b.Replayed.Load)
	t.counter("subscribe_denied_total", "filters refused by the policy", b.SubscribeDenied.Load)
	t.gauge("denials_known", "refusals by the policy that acl explain knows by their ids", func() float64 { n, _ := s.denials.Counts(); return float64(n) })
	t.counter("denials_forgotten_total", "refusals by the policy that newer ones have pushed out", func() uint64 { _, lost := s.denials.Counts(); return lost })
	t.counter("takeovers_total", "connections ended by a later one of the same client id", b.Takeovers.Load)
	t.counter("slow_consumers_total", "connections ended for not taking what they were sent", b.SlowEnded.Load)
	t.counter("changes_coalesced_total", "changes of a resource that were not shown at once, because it changes too often", b.Coalesced.Load)
	t.counter("fetches_unnoted_total", "fetches of which owners are not told, for too many were to be noted", b.FetchesUnnoted.Load)
	t.counter("shown_forgotten_total", "resources of which it was forgotten that a session was shown them, for it was shown too many by wildcards", b.ShownForgotten.Load)
	t.counter("acl_window_transitions_total", "window edges passed", b.WindowsOpened.Load)
	t.gauge("sessions", "sessions there are, connected or not", func() float64 { return float64(s.broker.SessionsKnown()) })
	t.gauge("sessions_connected", "sessions with a connection to this node", func() float64 { return float64(b.Sessions.Load()) })

	relayed := t.family(prometheus.CounterValue, "relayed_total", "events between nodes that no log has", "fate")
	relayed.count(b.RelaySent.Load, "sent")
	relayed.count(b.RelayLost.Load, "lost")
	relayed.count(b.RelayReceived.Load, "received")
	relayed.count(b.RelayUnwanted.Load, "unwanted")
	t.counter("relay_frames_dropped_total", "frames of relayed events for which there was no room while the log was behind", b.RelayDropped.Load)
	t.counter("relay_refused_total", "messages of other nodes that could not be read", b.RelayRefused.Load)
	t.counter("subscribe_unheard_total", "SUBACKs sent before all nodes had heard of the filters", b.Unheard.Load)
	t.counter("silences_total", "times that no leader was heard of for a second", b.Silences.Load)
	t.counter("lives_closed_total", "times that the others had given this node up, and it began anew", b.Lives.Load)

	connects := t.family(prometheus.CounterValue, "connects_total", "CONNECTs answered", "result")
	m.EachConnect(func(result string, n *atomic.Uint64) { connects.count(n.Load, result) })
	disconnects := t.family(prometheus.CounterValue, "disconnects_total", "clients' connections that ended", "reason")
	m.EachEnd(func(reason string, n *atomic.Uint64) { disconnects.count(n.Load, reason) })
	logins := t.family(prometheus.CounterValue, "logins_failed_total", "tries to sign in that failed, by what was wrong; clients are not told", "reason")
	m.EachLoginFailure(func(reason string, n *atomic.Uint64) { logins.count(n.Load, reason) })
	t.counter("reauthentications_total", "clients that have proved again, on their connection, who they are", m.Reauths.Load)
	t.counter("logins_refused_total", "tries to sign in that were refused unseen, after too many", m.LoginsRefused.Load)
	s.limitMetrics(t)
	t.gauge("bans", "bans in force: of clients, users, addresses", func() float64 { all, _ := s.broker.BanCount(); return float64(all) })
	flapping := t.family(prometheus.CounterValue, "flapping_total", "clients that connected and disconnected too often: banned, or not, for want of room", "fate")
	flapping.count(func() uint64 { free := m.FlapsAtLarge.Load(); return max(m.Flapping.Load(), free) - free }, "banned")
	flapping.count(m.FlapsAtLarge.Load, "at_large")
	unread := t.family(prometheus.CounterValue, "turned_away_total", "clients' connections closed before their CONNECT was read", "reason")
	m.EachTurnaway(func(reason string, n *atomic.Uint64) { unread.count(n.Load, reason) })
	t.counter("tls_failed_total", "TLS handshakes of clients that came to nothing", m.TLSFailed.Load)
	t.counter("http_tls_failed_total", "TLS handshakes of the HTTP side that came to nothing", s.httpTLSFailed.Load)
	t.counter("tls_certificates_revoked_total", "connections that ended because their client's certificate was revoked", m.CertificatesEnded.Load)
	s.listMetrics(t)
	t.counter("websockets_refused_total", "WebSocket handshakes that came to nothing", m.WebSocketsRefused.Load)
	turnedAway := t.family(prometheus.CounterValue, "http_turned_away_total", "HTTP connections closed unread, because too many were open, in all or from one address", "bound")
	turnedAway.count(s.httpTurnedAway.full.Load, "all")
	turnedAway.count(s.httpTurnedAway.address.Load, "address")
	bytes := t.family(prometheus.CounterValue, "bytes_total", "bytes from and to clients", "direction")
	bytes.count(m.BytesIn.Load, "in")
	bytes.count(m.BytesOut.Load, "out")
	t.counter("writes_total", "write calls to clients' sockets", m.Writes.Load)
	t.counter("panics_total", "connections ended by a bug of ours", m.Panics.Load)

	t.gauge("raft_leader", "1 if this node leads", func() float64 {
		if s.node.Leader() {
			return 1
		}
		return 0
	})
	t.gauge("raft_term", "Raft's term", func() float64 { return float64(s.node.Status().Term) })
	t.gauge("raft_applied_index", "last log entry applied", func() float64 { return float64(s.node.Applied()) })
	t.gauge("log_memtable_bytes", "bytes of the log's newest entries, which are held in memory, too", func() float64 { return float64(s.node.LogMemTables()) })
	t.gauge("store_memtable_bytes", "bytes of replicated state that wait to be written to disk", func() float64 { return float64(s.store.MemTables()) })
	t.gauge("store_size_bytes", "bytes of replicated state on disk", func() float64 { return float64(s.store.Size()) })
	t.counter("commands_failed_total", "commands that panicked and were rolled back", s.broker.Machine().Failures)
	return *t
}

// dropReason names a reason for a drop that mqtt counts; empty for those that
// the broker counts too.
func dropReason(i int) string {
	return [...]string{"offline_qos0", "ending", "", ""}[i]
}
