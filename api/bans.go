package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// Bans is who is kept out, and clients that are sent away. Its methods may be called from
// many goroutines at once.
//
// Errors are an ErrUnacceptable (a ban that names nobody, …), an ErrFull, an ErrNoSuch, an ErrConflict, an
// ErrNoLeader or an ErrMayBeDone.
type Bans interface {
	List(ctx context.Context) ([]Ban, error)

	// Ban keeps somebody out for b.Seconds, or until b.Until; for good if neither is set. It
	// returns the ban as it is in force.
	Ban(ctx context.Context, by string, b Ban) (Ban, error)

	// Unban ends the ban of exactly those that b names.
	Unban(ctx context.Context, by string, b Ban) error

	// Kick ends the connection of a client and, with its session, that.
	Kick(ctx context.Context, by string, k Kicking) error
}

// ErrNoSuch means that there is no such ban, or client.
var ErrNoSuch = errors.New("not found")

// A Ban keeps out whoever all matches of Client, User and Address that are not empty.
type Ban struct {
	Client  string     `json:"client,omitempty"`
	User    string     `json:"user,omitempty"`
	Address string     `json:"address,omitempty"` // or a network: 192.0.2.0/24
	Until   *time.Time `json:"until,omitempty"`
	Seconds uint64     `json:"seconds,omitempty"` // of a request: in place of Until
	Reason  string     `json:"reason,omitempty"`

	// Of an answer.
	Since *time.Time `json:"since,omitempty"`
	By    string     `json:"by,omitempty"`
	Auto  bool       `json:"auto,omitempty"` // a node bans by itself
}

// A Kicking is a client to be sent away.
type Kicking struct {
	Client  string `json:"client"`
	Session bool   `json:"session"` // its session ends, too
}

// registerBans adds /v1/bans and /v1/clients/kick, for operators.
func registerBans(mux *routes, b Bans, o *Operators) {
	mux.HandleFunc("GET /v1/bans", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		all, err := b.List(r.Context())
		if o.audited(w, r, Look{By: who, What: "bans", Result: resultOf(err)}) {
			answerBans(w, http.StatusOK, map[string]any{"bans": all}, err)
		}
	}))
	mux.HandleFunc("POST /v1/bans", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		var one Ban
		if readJSON(w, r, &one) {
			one, err := b.Ban(r.Context(), who, one)
			answerBans(w, http.StatusCreated, one, err)
		}
	}))
	mux.HandleFunc("DELETE /v1/bans", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		if one, ok := bannedOf(w, r); ok {
			answerBans(w, http.StatusOK, one, b.Unban(r.Context(), who, one))
		}
	}))
	mux.HandleFunc("POST /v1/clients/kick", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		var k Kicking
		if !readJSON(w, r, &k) {
			return
		}
		if k.Client == "" {
			refuseAs(w, http.StatusBadRequest, bw.Usage, `which client? {"client": "its id"}`)
			return
		}
		err := b.Kick(r.Context(), who, k)
		if errors.Is(err, ErrNoSuch) {
			refuseNoClient(w, err)
			return
		}
		answerBans(w, http.StatusOK, k, err)
	}))
}

// bannedOf reads whose ban a request is about.
func bannedOf(w http.ResponseWriter, r *http.Request) (one Ban, ok bool) {
	if !readQuery(w, r.URL.Query(), map[string]*string{"client": &one.Client, "user": &one.User, "address": &one.Address}) {
		return one, false
	}
	if one == (Ban{}) {
		refuseAs(w, http.StatusBadRequest, bw.Usage, "whose ban? name its client, user or address, as GET /v1/bans has them")
		return one, false
	}
	return one, true
}

// refuseNoClient says that there is no such client.
func refuseNoClient(w http.ResponseWriter, err error) {
	refuseWith(w, problem{
		Status: http.StatusNotFound, Detail: noSuchText(err), Code: bw.NoSuchClient.String(),
		Todo: "a client is named by its id, as bellwire clients ls (GET /v1/clients) has it; of one that is away bellwire kick --drop-session, over HTTP session: true, ends the session",
	})
}

// noSuchText is what an ErrNoSuch says besides itself.
func noSuchText(err error) string { return strings.TrimPrefix(err.Error(), ErrNoSuch.Error()+": ") }

func answerBans(w http.ResponseWriter, status int, answer any, err error) {
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case errors.Is(err, ErrUnacceptable):
		refuse(w, http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, ErrFull):
		refuse(w, http.StatusTooManyRequests, "%v", err)
	case errors.Is(err, ErrNoSuch):
		refuseAs(w, http.StatusNotFound, bw.NoSuchClient, "%s", noSuchText(err))
	case err != nil:
		refuseCluster(w, err)
	default:
		writeJSON(w, status, answer)
	}
}
