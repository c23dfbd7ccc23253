package api

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"testing"
)

// docs/http.md has every request that there is, and no other.
func TestHTTPPage(t *testing.T) {
	page, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllSubmatch(page, -1) {
		told = append(told, string(row[1]))
	}
	there := routesOf(Config{
		Metrics: http.NotFoundHandler(), DomainMetrics: http.NotFoundHandler(), Profile: true,
		Resources: fakeResources(false), Cluster: new(fakeCluster), Operators: &Operators{Audits: new(fakeAudits)},
		Policies: new(fakePolicies), Domains: new(fakeDomains), Delayed: struct{ Delayed }{}, Bans: new(fakeBans), Clients: struct{ Clients }{}, Bridges: struct{ Bridges }{},
		Backup: func() (*Backup, error) { return nil, nil }, Test: new(Test),
	}).patterns
	slices.Sort(told)
	slices.Sort(there)
	for _, pattern := range there {
		if !slices.Contains(told, pattern) {
			t.Errorf("%s is not in docs/http.md", pattern)
		}
	}
	for i, pattern := range told {
		if !slices.Contains(there, pattern) {
			t.Errorf("docs/http.md has %s, which there is not", pattern)
		}
		if i > 0 && told[i-1] == pattern {
			t.Errorf("docs/http.md has %s twice", pattern)
		}
	}
}
