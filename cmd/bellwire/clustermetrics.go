package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellwire/bellwire/cluster"
)

// clusterMetrics are a node's numbers as one of several: what it knows of the others
// without asking them. The label peer is the name of a node.
func (s *server) clusterMetrics() prometheus.Collector {
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
