package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// Policies is the operator's policy as HTTP shows it. Its methods may be called from
// many goroutines at once.
type Policies interface {
	// Denied returns what is known of a refusal by the policy, on whatever node it
	// was. The error is an ErrNoDenial if nothing is.
	Denied(ctx context.Context, id string) (Denial, error)
}

// ErrNoDenial means that no node knows of a refusal by that id.
var ErrNoDenial = errors.New("no such refusal is known")

// A Denial is a refusal by the operator's policy.
type Denial struct {
	ID        string    `json:"id"`
	Principal string    `json:"principal"` // empty for a client without credentials
	Client    string    `json:"client"`
	Action    string    `json:"action"` // publish or subscribe
	Topic     string    `json:"topic"`
	Node      string    `json:"node"` // that refused
	At        time.Time `json:"at"`   // the newest of its kind
	First     time.Time `json:"first"`
	Times     uint64    `json:"times"`
	Rule      string    `json:"rule,omitempty"` // empty if no rule has to do with it
	Line      int       `json:"line,omitempty"`
	Reason    string    `json:"reason"`
	Text      string    `json:"text"` // the explanation, for people
}

// registerPolicies adds /v1/policy.
func registerPolicies(mux *http.ServeMux, p Policies, o *Operators) {
	mux.HandleFunc("GET /v1/policy/denials/{id}", o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
		ctx, cancel := context.WithTimeout(r.Context(), managing)
		defer cancel()
		d, err := p.Denied(ctx, r.PathValue("id"))
		if err == nil && !operator && (d.Principal == "" || d.Principal != who) {
			err = ErrNoDenial // whose it was is not told
		}
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case errors.Is(err, ErrNoDenial):
			refuseAs(w, http.StatusNotFound, bw.NotExplained, "%v", err)
		case err != nil:
			refuseCluster(w, err)
		default:
			writeJSON(w, http.StatusOK, d)
		}
	}))
}
