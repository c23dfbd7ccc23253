package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/nearest"
)

// Clients is which clients there are, connected to whichever node or away. Its methods may be
// called from many goroutines at once.
type Clients interface {
	// List returns a page of them, in the order of their ids. A page may be short, or empty,
	// where few of those that were looked at are wanted, and yet not be the last. The error may
	// be an ErrUnacceptable.
	List(ctx context.Context, q ClientQuery) (ClientPage, error)

	// Show returns one, with its subscriptions. The error may be an ErrNoSuch.
	Show(ctx context.Context, id string) (Client, error)
}

// A ClientQuery says which are wanted; of what is empty any.
type ClientQuery struct {
	User   string
	Node   string // a name: that holds the connection
	Prefix string // of the id
	State  string // connected, or away
	After  string // from behind this id on
}

// A Client is one that has a session.
type Client struct {
	ID            string     `json:"id"`
	User          string     `json:"user,omitempty"` // empty for one without credentials
	Node          string     `json:"node,omitempty"` // that holds its connection; absent if it is away
	Away          *time.Time `json:"away,omitempty"` // since when
	Protocol      string     `json:"protocol"`       // 3.1, 3.1.1 or 5
	Expiry        uint32     `json:"expiry"`         // seconds that its session lasts without a connection
	ReceiveMax    uint16     `json:"receive_maximum"`
	Will          bool       `json:"will,omitempty"`
	Waiting       uint64     `json:"waiting"`                 // events
	Subscriptions []string   `json:"subscriptions,omitempty"` // of Show: filters, at most 1,000, without shared ones
	Filters       int        `json:"filters,omitempty"`       // of Show: how many there are
}

// A ClientPage is a part of them.
type ClientPage struct {
	Clients []Client `json:"clients"`
	After   string   `json:"after,omitempty"` // where to go on; empty if there are no more
}

// registerClients adds GET /v1/clients, for operators.
func registerClients(mux *routes, c Clients, o *Operators) {
	mux.HandleFunc("GET /v1/clients", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		var q ClientQuery
		var one string
		if !readQuery(w, r.URL.Query(), map[string]*string{
			"id": &one, "user": &q.User, "node": &q.Node, "prefix": &q.Prefix, "state": &q.State, "after": &q.After,
		}) {
			return
		}
		if q.State != "" && q.State != "connected" && q.State != "away" {
			refuseAs(w, http.StatusBadRequest, bw.Usage, "state: %.40q: want connected or away", q.State)
			return
		}
		var answer any
		var err error
		look := Look{By: who, What: "clients"}
		if one != "" {
			look.What += " " + one
			answer, err = c.Show(r.Context(), one)
		} else {
			answer, err = c.List(r.Context(), q)
		}
		look.Result = resultOf(err)
		if !o.audited(w, r, look) {
			return
		}
		if errors.Is(err, ErrNoSuch) {
			refuseNoClient(w, err)
			return
		}
		answerBans(w, http.StatusOK, answer, err)
	}))
}

// readQuery reads parameters into where to has them. One that there is not, or twice, is refused:
// misspelt, it would ask for more than was meant.
func readQuery(w http.ResponseWriter, q url.Values, to map[string]*string) (ok bool) {
	for name, values := range q {
		at := to[name]
		if at == nil || len(values) > 1 {
			refuseAs(w, http.StatusBadRequest, bw.Usage, "%s", unknown(name, slices.Sorted(maps.Keys(to))))
			return false
		}
		*at = values[0]
	}
	return true
}

// unknown says what is wrong with a parameter: it is none of names, or there is more than one.
func unknown(name string, names []string) string {
	s := fmt.Sprintf("%.40q: ", name)
	switch near := nearest.Name(name, names); {
	case slices.Contains(names, name):
		return s + "give it once"
	case near != "":
		s += fmt.Sprintf("did you mean %q? ", near)
	}
	switch len(names) {
	case 0:
		return s + "there are no parameters"
	case 1:
		return s + "there is only " + names[0] + ", once"
	}
	return s + "there are " + strings.Join(names, ", ") + ", once each"
}
