package main

import (
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// What domains use, in metrics that are for operators: no tenant is to see another. Domains are as many as somebody cares to sign in from, so
// those that have a label of their own are the first of the policy's tenants, in the order
// of their names; the others together are "other".

// domainsLabelled bounds them.
const domainsLabelled = 50

// otherDomains is the label of the rest. It is no domain: it has no dot.
const otherDomains = "other"

type domainMetrics struct{ s *server }

// domainMetrics returns the handler of /metrics/domains.
func (s *server) domainMetrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(domainMetrics{s})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

var (
	domainUsed    = prometheus.NewDesc("bellwire_domain_used", "what a domain uses: see its quotas; publishes_per_second on this node", []string{"domain", "quota"}, nil)
	domainQuota   = prometheus.NewDesc("bellwire_domain_quota", "what a domain may use; none is not shown", []string{"domain", "quota"}, nil)
	domainRefused = prometheus.NewDesc("bellwire_domain_refused_total", "what was refused for want of a domain's quota, by this node or as it applied the log", []string{"domain", "quota"}, nil)
)

func (domainMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- domainUsed
	ch <- domainQuota
	ch <- domainRefused
}

func (d domainMetrics) Collect(ch chan<- prometheus.Metric) {
	a, ok := d.s.broker.Policy().(*authorizer)
	if !ok {
		return
	}
	labelled := a.operator.Tenants()
	if len(labelled) > domainsLabelled {
		labelled = labelled[:domainsLabelled]
	}
	for _, domain := range labelled {
		collectUsage(ch, domain, domainUsageOf(d.s.broker.UseOf(domain), a.QuotaOf(domain)))
	}
	var rest api.DomainUsage
	for _, domain := range d.s.broker.Domains() {
		if _, found := slices.BinarySearch(labelled, domain); found {
			continue
		}
		one := domainUsageOf(d.s.broker.UseOf(domain), broker.DomainQuota{}) // a sum of quotas says nothing
		for i, row := range one.All() {
			all := rest.All()[i]
			all.Used += row.Used
			all.Refused += row.Refused
		}
	}
	collectUsage(ch, otherDomains, rest)
}

func collectUsage(ch chan<- prometheus.Metric, domain string, u api.DomainUsage) {
	for _, row := range u.Rows() {
		ch <- prometheus.MustNewConstMetric(domainUsed, prometheus.GaugeValue, float64(row.Used), domain, row.Name)
		ch <- prometheus.MustNewConstMetric(domainRefused, prometheus.CounterValue, float64(row.Refused), domain, row.Name)
		if row.Max > 0 {
			ch <- prometheus.MustNewConstMetric(domainQuota, prometheus.GaugeValue, float64(row.Max), domain, row.Name)
		}
	}
}
