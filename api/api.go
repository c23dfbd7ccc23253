// Package api is the HTTP side of a node: whether it lives, whether it is
// ready, its metrics, what it shows of the things that are watched and, on a
// node that runs with a test clock, the endpoints that move the clock and break
// the disk. It knows no broker: what it reports and does is handed in.
package api

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"
)

// A Check is one condition of readiness.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Says string `json:"says,omitempty"` // why not, or a detail
}

// Config says what a Handler serves. Any of the functions may be called from
// many goroutines at once.
type Config struct {
	// Ready lists the conditions under which the node serves clients.
	Ready func() []Check

	Metrics http.Handler // /metrics

	// DomainMetrics is /metrics/domains, for Operators; nil for none.
	DomainMetrics http.Handler
	Profile       bool // /debug/pprof/

	Resources *Resources // /v1/{kind}/…, nil for none

	// Cluster is what operators do, and Operators who they are; nil for neither.
	Cluster   Cluster
	Operators *Operators
	Policies  Policies // /v1/policy, nil for none
	Domains   Domains  // /v1/domains, nil for none
	Delayed   Delayed  // /v1/delayed, nil for none
	Clients   Clients  // /v1/clients, nil for none
	Bans      Bans     // /v1/bans and /v1/clients/kick, nil for neither
	Bridges   Bridges  // /v1/bridges, nil for none

	// Backup opens a backup of the node's state; Now is the wall's clock, for how long
	// who reads it may take.
	Backup func() (*Backup, error)
	Now    func() time.Time

	// Test, if not nil, adds /v1/test/: for tests, from loopback only.
	Test *Test
}

// A Test is what a node under test can be told.
type Test struct {
	// Set moves the node's clock to at, which is not before the present, and
	// returns when all that became due has happened. Now tells the clock.
	Set func(at time.Time) error
	Now func() time.Time

	// Fault makes the disk hang, fail (eio), be full, or be well again (ok).
	Fault func(disk string) error
}

// Handler returns the HTTP side of a node.
func Handler(c Config) http.Handler { return problems(routesOf(c)) }

// A routes is a mux that knows what there is: docs/http.md has to have all of it.
type routes struct {
	http.ServeMux
	patterns []string
}

func (r *routes) HandleFunc(pattern string, h http.HandlerFunc) { r.Handle(pattern, h) }

// Handle is that of http.ServeMux.
func (r *routes) Handle(pattern string, h http.Handler) {
	r.patterns = append(r.patterns, pattern)
	r.ServeMux.Handle(pattern, h)
}

func routesOf(c Config) *routes {
	mux := new(routes)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, http.StatusOK, []Check{{Name: "process", OK: true}})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(c.Ready, w, r) })
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	if c.DomainMetrics != nil {
		mux.HandleFunc("GET /metrics/domains", c.Operators.only(func(w http.ResponseWriter, r *http.Request, _ string) { c.DomainMetrics.ServeHTTP(w, r) }))
	}
	if c.Profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if c.Resources != nil {
		c.Resources.register(mux)
	}
	if c.Cluster != nil {
		registerCluster(mux, c.Cluster, c.Operators)
	}
	if c.Policies != nil {
		registerPolicies(mux, c.Policies, c.Operators)
	}
	if c.Domains != nil {
		registerDomains(mux, c.Domains, c.Operators)
	}
	if c.Clients != nil {
		registerClients(mux, c.Clients, c.Operators)
	}
	if c.Delayed != nil {
		registerDelayed(mux, c.Delayed, c.Operators)
	}
	if c.Bans != nil {
		registerBans(mux, c.Bans, c.Operators)
	}
	if c.Bridges != nil {
		registerBridges(mux, c.Bridges, c.Operators)
	}
	if c.Operators != nil && c.Operators.Audits != nil {
		registerAudit(mux, c.Operators.Audits, c.Operators)
	}
	if c.Backup != nil {
		registerBackup(mux, c.Backup, c.Operators, c.Now)
	}
	if c.Test != nil {
		mux.HandleFunc("POST /v1/test/clock", loopback(c.Test.clock))
		mux.HandleFunc("POST /v1/test/fault", loopback(c.Test.fault))
	}
	return mux
}

// problems has mux say as all that is refused here is said (RFC 9457) what it has nothing for.
func problems(mux *routes) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		said := &statusOnly{header: http.Header{}}
		h.ServeHTTP(said, r)
		if said.status == http.StatusMethodNotAllowed {
			allowed := said.header.Get("Allow")
			w.Header().Set("Allow", allowed)
			refuse(w, said.status, "%.20s is not for %.100s, but %s", r.Method, r.URL.Path, allowed)
			return
		}
		refuse(w, http.StatusNotFound, "there is nothing at %.100s", r.URL.Path)
	})
}

// A statusOnly is what a handler answers without its words.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// ready answers 200 if all checks hold, else 503. ?noleader leaves out the one
// named leader.
func ready(list func() []Check, w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	var checks []Check
	for _, c := range list() {
		if c.Name == "leader" && r.URL.Query().Has("noleader") {
			continue
		}
		if !c.OK {
			status = http.StatusServiceUnavailable
		}
		checks = append(checks, c)
	}
	answer(w, r, status, checks)
}

// answer writes checks as the client likes them: JSON, a line each with
// ?verbose or when one fails, or plain "ok".
func answer(w http.ResponseWriter, r *http.Request, status int, checks []Check) {
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, status, map[string]any{"ok": status == http.StatusOK, "checks": checks})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if status == http.StatusOK && !r.URL.Query().Has("verbose") {
		fmt.Fprintln(w, "ok")
		return
	}
	for _, c := range checks {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "%s %s %s\n", mark, c.Name, c.Says)
	}
}

// A problem is an error as RFC 9457 wants it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code,omitempty"` // BW-NNNN, which bellwire explain knows more about
	Todo   string `json:"todo,omitempty"` // what would help in this case; else what explain says

	// Of a document: all that is wrong with it, for programs, and for people.
	Faults any    `json:"faults,omitempty"`
	Report string `json:"report,omitempty"`
}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	refuseWith(w, problem{Status: status, Detail: fmt.Sprintf(format, args...)})
}

// refuseWith writes p, and says what its status does.
func refuseWith(w http.ResponseWriter, p problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}

// loopback refuses requests from other machines.
func loopback(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			refuse(w, http.StatusForbidden, "the test endpoints answer on loopback only")
			return
		}
		next(w, r)
	}
}

// clock takes {"set": RFC3339} or {"advance": duration}.
func (t *Test) clock(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Set     *time.Time `json:"set"`
		Advance string     `json:"advance"`
	}
	if !readJSON(w, r, &body) {
		return
	}
	at := t.Now()
	switch {
	case body.Set != nil && body.Advance == "":
		at = *body.Set
	case body.Set == nil && body.Advance != "":
		d, err := time.ParseDuration(body.Advance)
		if err != nil || d < 0 {
			refuse(w, http.StatusBadRequest, "advance: %q, want a duration like 1h30m, not negative", body.Advance)
			return
		}
		at = at.Add(d)
	default:
		refuse(w, http.StatusBadRequest, `want {"set": "2026-03-09T17:00:00Z"} or {"advance": "1h"}`)
		return
	}
	if err := t.Set(at); err != nil {
		refuse(w, http.StatusConflict, "%v", err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"now": t.Now().UTC().Format(time.RFC3339Nano)})
}

func (t *Test) fault(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Disk string `json:"disk"`
	}
	if !readJSON(w, r, &body) {
		return
	}
	if err := t.Fault(body.Disk); err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"disk": body.Disk})
}
