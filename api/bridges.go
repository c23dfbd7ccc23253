package api

import (
	"context"
	"net/http"
	"time"
)

// Bridges is how a cluster's connections to other brokers are, whichever node runs them. Its
// method may be called from many goroutines at once.
type Bridges interface {
	// List returns all bridges by their names. Where the node that runs them does not
	// answer, it returns what is known here.
	List(ctx context.Context) []Bridge
}

// A Bridge is how one is.
type Bridge struct {
	Name    string   `json:"name"`
	Peers   []string `json:"peers"`            // addresses, tried in turn
	Node    string   `json:"node,omitempty"`   // that runs it; empty if that is not known, or none does
	Session string   `json:"session"`          // the client id here
	As      string   `json:"as,omitempty"`     // the principal here; empty for anonymous
	Client  string   `json:"client,omitempty"` // the client id at the peer

	// Connected says whether it has its peer, since Since; Peer is which, or the one tried
	// last. Err is why it has none, Todo what to do about it.
	Connected bool       `json:"connected"`
	Since     *time.Time `json:"since,omitempty"` // absent before the first try is over
	Peer      string     `json:"peer,omitempty"`
	Err       string     `json:"err,omitempty"`
	Todo      string     `json:"todo,omitempty"`

	// Waiting is how many events wait to go out.
	Waiting uint64 `json:"waiting"`

	// Carried counts events by direction, in and out, Dropped those acknowledged and not
	// carried, and Errors connections that failed, both by reason, since the node was
	// started, or the bridge changed. They are absent where Node does not answer.
	Carried map[string]uint64 `json:"carried,omitempty"`
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	Errors  map[string]uint64 `json:"errors,omitempty"`
}

// registerBridges adds /v1/bridges, for operators.
func registerBridges(mux *routes, b Bridges, o *Operators) {
	mux.HandleFunc("GET /v1/bridges", o.only(func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, map[string]any{"bridges": b.List(r.Context())})
	}))
}
