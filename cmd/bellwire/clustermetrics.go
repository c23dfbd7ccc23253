package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellwire/bellwire/cluster"
)

// clusterMetrics are a node's numbers as one of several: what it knows of the others
// without asking them. The label peer is the name of a node.
func (s *server) clusterMetrics() table {
	t := &table{}
	t.gauge("raft_commit_index", "last log entry that this node knows to be committed", func() float64 { return float64(s.node.Status().Committed) })
	t.gauge("raft_silence_seconds", "for how long no leader was heard of; 0 on the leader", func() float64 { return s.node.Silence().Seconds() })
	t.gauge("node_drained", "1 if the node is being, or was, taken out of service", func() float64 {
		if s.drain.now() != "" {
			return 1
		}
		return 0
	})
	t.gauge("feature_level", "what log and state may hold: the level in force", func() float64 { return float64(s.broker.Level()) })
	t.gauge("feature_level_supported", "the highest level that this node agrees to", func() float64 {
		return float64(cluster.Levels{Knows: newestLevel, Hold: cluster.Level(s.config.holdLevel)}.Agrees())
	})
	t.gauge("cluster_members", "nodes in the cluster, voters or not", func() float64 { return float64(1 + len(s.node.Peers())) })
	if s.links != nil {
		t.counter("cluster_refused_total", "connections to the cluster's port that were not accepted", s.links.Refused)
	}
	if creds := s.config.credentials; creds != nil {
		ends := t.family(prometheus.GaugeValue, "cert_expiry_timestamp_seconds", "when certificates end, unix time", "name")
		ends.row(func() float64 { node, _ := creds.Expires(); return float64(node.Unix()) }, "node")
		ends.row(func() float64 { _, ca := creds.Expires(); return float64(ca.Unix()) }, "cluster-ca")
	}
	return *t
}

// nodeMetrics shows all that stats counts.
func nodeMetrics(stats func() cluster.Stats) table {
	t := &table{}
	count := func(name, help string, read func(cluster.Stats) uint64) {
		t.counter(name, help, func() uint64 { return read(stats()) })
	}
	seconds := func(name, help string, read func(cluster.Stats) time.Duration) {
		t.family(prometheus.CounterValue, name, help).row(func() float64 { return read(stats()).Seconds() })
	}
	count("log_entries_total", "log entries proposed", func(s cluster.Stats) uint64 { return s.Entries })
	count("log_batches_total", "batches packed into them", func(s cluster.Stats) uint64 { return s.Batches })
	count("log_bytes_total", "bytes of log entries proposed", func(s cluster.Stats) uint64 { return s.Bytes })
	count("log_batches_failed_total", "batches that were not ordered, or of which that is not known", func(s cluster.Stats) uint64 { return s.Failed })
	t.gauge("log_waiting_bytes", "bytes of batches that wait to be ordered", func() float64 { return float64(stats().Waiting) })
	count("log_applied_total", "log entries applied", func(s cluster.Stats) uint64 { return s.Applied })
	seconds("log_apply_seconds_total", "time spent applying them", func(s cluster.Stats) time.Duration { return s.ApplyTime })
	count("log_trims_total", "times that the log was looked at for what can go", func(s cluster.Stats) uint64 { return s.Trims })
	count("log_commits_total", "synced commits of the log: of entries, terms and votes", func(s cluster.Stats) uint64 { return s.Log.Commits })
	seconds("log_commit_seconds_total", "time spent in them", func(s cluster.Stats) time.Duration { return s.Log.CommitTime })
	count("log_disk_slow_total", "reports of operations of the log that took very long", func(s cluster.Stats) uint64 { return s.Log.Slow })
	count("snapshots_resumed_total", "times that a snapshot from another node went on where its connection had broken", func(s cluster.Stats) uint64 { return s.Resumed })
	count("disk_syncs_total", "fsync and fdatasync calls", func(s cluster.Stats) uint64 { return s.Disk.Syncs })
	count("disk_writes_total", "write calls", func(s cluster.Stats) uint64 { return s.Disk.Writes })
	count("disk_written_bytes_total", "bytes written", func(s cluster.Stats) uint64 { return s.Disk.WrittenBytes })
	count("disk_failed_total", "operations of the disk that failed", func(s cluster.Stats) uint64 { return s.Disk.Failed })
	return *t
}

// A peerMetrics has a row for each other node there is when it is asked.
type peerMetrics struct {
	s           *server
	lag, silent *prometheus.Desc
}

func (s *server) peerMetrics() prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bellwire_"+name, help, []string{"peer"}, nil)
	}
	return &peerMetrics{
		s:      s,
		lag:    desc("peer_lag_entries", "entries of the log that a node is not known to have; on the leader"),
		silent: desc("peer_silence_seconds", "how long ago a node last answered; on the leader, which asks all the time"),
	}
}

func (p *peerMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- p.lag; ch <- p.silent }

func (p *peerMetrics) Collect(ch chan<- prometheus.Metric) {
	if !p.s.node.Leader() {
		return
	}
	for _, peer := range p.s.node.Peers() {
		ch <- prometheus.MustNewConstMetric(p.silent, prometheus.GaugeValue, peer.Silent.Seconds(), peer.Name)
		if peer.Known {
			ch <- prometheus.MustNewConstMetric(p.lag, prometheus.GaugeValue, float64(peer.Lag), peer.Name)
		}
	}
}
