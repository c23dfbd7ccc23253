package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// What administrators ask for over MQTT is answered by the handler that answers them over
// HTTP: $adm/example.com/subs is GET /v1/domains/example.com/subscriptions, and so on. So
// who may, what is written down and what is answered cannot be another by either door.

// A Served is what became of such a request.
type Served struct {
	Status int    // as of HTTP
	Detail string // of a refusal: for people
	Reply  []byte // JSON: status, and body, which is what the HTTP response has
}

// maxReply bounds a reply, in bytes: what a client takes in one packet.
const maxReply = 256 << 10

// An admRequest is what one is asked with: which members there are depends on the topic.
type admRequest struct {
	Target  string `json:"target,omitempty"`
	About   string `json:"about,omitempty"`
	Before  uint64 `json:"before,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Than    uint64 `json:"than,omitempty"`
	Policy  string `json:"policy,omitempty"`
	IfMatch uint64 `json:"ifMatch,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"`
	Remove  bool   `json:"removeUsers,omitempty"`
	To      uint64 `json:"to,omitempty"`
}

// An admVerb is what is meant by a topic.
type admVerb struct {
	method, path string // %s is the domain
	takes        []string
	raw          bool // the payload is the body
}

// admVerbs are by what follows the domain.
var admVerbs = map[string]admVerb{
	"subs":            {method: "GET", path: "/v1/domains/%s/subscriptions", takes: []string{"target"}},
	"invitations":     {method: "GET", path: "/v1/domains/%s/invitations", takes: []string{"target"}},
	"cancel":          {method: "POST", path: "/v1/domains/%s/subscriptions/cancel", raw: true},
	"provision":       {method: "POST", path: "/v1/domains/%s/subscriptions/provision", raw: true},
	"invite":          {method: "POST", path: "/v1/domains/%s/subscriptions/invite", raw: true},
	"usage":           {method: "GET", path: "/v1/domains/%s/usage"},
	"audit":           {method: "GET", path: "/v1/audit", takes: []string{"about", "before"}},
	"policy":          {method: "GET", path: "/v1/domains/%s/policy", takes: []string{"version"}},
	"policy/put":      {method: "PUT", path: "/v1/domains/%s/policy", takes: []string{"policy", "ifMatch", "dryRun", "removeUsers"}},
	"policy/end":      {method: "DELETE", path: "/v1/domains/%s/policy", takes: []string{"ifMatch"}},
	"policy/versions": {method: "GET", path: "/v1/domains/%s/policy/versions"},
	"policy/rollback": {method: "POST", path: "/v1/domains/%s/policy/rollback", takes: []string{"to", "ifMatch", "dryRun", "removeUsers"}},
	"policy/diff":     {method: "GET", path: "/v1/domains/%s/policy/diff", takes: []string{"version", "than", "policy"}},
}

// Serve answers what a principal, who has proved to be that, asks for by a topic below
// $adm/. h is the node's Handler.
func Serve(ctx context.Context, h http.Handler, principal, topic string, payload []byte) Served {
	r, err := admHTTP(withCaller(ctx, caller{principal: principal, door: "mqtt"}), topic, payload)
	w := &recorder{header: http.Header{}}
	if err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
	} else {
		h.ServeHTTP(w, r)
	}
	return w.served()
}

// admHTTP makes the HTTP request of one. Who may is not known yet: so what is refused here
// must be so whichever domain is meant.
func admHTTP(ctx context.Context, topic string, payload []byte) (*http.Request, error) {
	domain, what, _ := strings.Cut(strings.TrimPrefix(topic, "$adm/"), "/")
	verb, ok := admVerbs[what]
	if domain == "." || domain == ".." { // no domain, but a way to another path
		return nil, fmt.Errorf("%q is no domain: administrators publish to $adm/, their domain and one of %s", domain, strings.Join(admWords(), ", "))
	}
	if !ok || domain == "" {
		return nil, fmt.Errorf("%.80s: administrators publish to $adm/, their domain and one of %s", topic, strings.Join(admWords(), ", "))
	}
	path := strings.Replace(verb.path, "%s", url.PathEscape(domain), 1)
	body := payload
	var asked admRequest
	if !verb.raw {
		body = nil
		if err := readAsked(&asked, verb.takes, payload); err != nil {
			return nil, err
		}
	}
	query := url.Values{}
	switch {
	case what == "audit":
		query.Set("domain", domain)
	case what == "policy" && asked.Version > 0:
		path += "/versions/" + strconv.FormatUint(asked.Version, 10)
	case what == "policy/put":
		body = []byte(asked.Policy)
	case what == "policy/rollback":
		body = fmt.Appendf(nil, `{"to":%d}`, asked.To)
	case what == "policy/diff":
		if asked.Policy != "" {
			verb.method, body = "POST", []byte(asked.Policy)
		}
		setNumber(query, "version", asked.Version)
		setNumber(query, "than", asked.Than)
	}
	setNumber(query, "before", asked.Before)
	for name, value := range map[string]string{"target": asked.Target, "about": asked.About} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if asked.DryRun {
		query.Set("dry_run", "")
	}
	if asked.Remove {
		query.Set("remove_users", "")
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, verb.method, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if asked.IfMatch > 0 {
		r.Header.Set("If-Match", policyTag(asked.IfMatch))
	}
	return r, nil
}

func setNumber(q url.Values, name string, n uint64) {
	if n > 0 {
		q.Set(name, strconv.FormatUint(n, 10))
	}
}

// readAsked reads a payload, of which empty is {}: an object with no other members than
// those.
func readAsked(asked *admRequest, takes []string, payload []byte) error {
	if len(bytes.TrimSpace(payload)) == 0 {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return fmt.Errorf("payload: want a JSON object: %v", err)
	}
	for name := range members {
		if !slices.Contains(takes, name) {
			return fmt.Errorf("payload: %.40q: there are %s", name, strings.Join(takes, ", "))
		}
	}
	if err := json.Unmarshal(payload, asked); err != nil {
		return fmt.Errorf("payload: %v", err)
	}
	return nil
}

func admWords() (words []string) {
	for word := range admVerbs {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

// A recorder keeps a response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// served makes of it what an MQTT client is told.
func (w *recorder) served() (s Served) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len() > maxReply {
		body := w.body.Len()
		*w = recorder{header: http.Header{}}
		refuse(w, http.StatusRequestEntityTooLarge, "the answer has %d bytes: ask for less, or by HTTP", body)
	}
	s.Status = w.status
	var body any = json.RawMessage(bytes.TrimSpace(w.body.Bytes()))
	if kind := w.header.Get("Content-Type"); !strings.HasSuffix(kind, "json") || !json.Valid(w.body.Bytes()) {
		body = w.body.String()
	}
	if s.Status >= 300 {
		var p problem
		if s.Detail = http.StatusText(s.Status); json.Unmarshal(w.body.Bytes(), &p) == nil && p.Detail != "" {
			s.Detail = p.Detail
		}
	}
	s.Reply, _ = json.Marshal(struct { // texts and what is JSON already
		Status int    `json:"status"`
		ETag   string `json:"etag,omitempty"`
		Body   any    `json:"body,omitempty"`
	}{s.Status, w.header.Get("ETag"), body})
	return s
}
