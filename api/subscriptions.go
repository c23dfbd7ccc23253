package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// A SubscriptionList is what an administrator is told of subscriptions.
type SubscriptionList struct {
	Subscriptions []Subscription `json:"subscriptions"`
	Partial       bool           `json:"partial,omitempty"` // there are more: ask about one target
}

// A Subscription is one of them.
type Subscription struct {
	Kind    string    `json:"kind"`
	Target  string    `json:"target"`            // whose resource it is to
	Watcher string    `json:"watcher,omitempty"` // empty: they watch without being known
	SID     string    `json:"sid"`
	Status  string    `json:"status"`
	Event   string    `json:"event,omitempty"` // what brought that about; empty of a target elsewhere
	Since   time.Time `json:"since,omitzero"`  // likewise
	By      string    `json:"by,omitempty"`    // the administrator who has provided it; empty: its watcher has asked
}

// An InvitationList is what an administrator is told of invitations.
type InvitationList struct {
	Invitations []Invited `json:"invitations"`
	Partial     bool      `json:"partial,omitempty"` // there are more: ask about one target
}

// An Invited is one of them: it was neither declined nor, as far as that may be known,
// accepted.
type Invited struct {
	Kind    string    `json:"kind"`
	Target  string    `json:"target"`  // to whose resource
	Watcher string    `json:"watcher"` // who is invited
	By      string    `json:"by"`      // the administrator who has
	Note    string    `json:"note,omitempty"`
	Until   time.Time `json:"until"`
}

// A Cancelling names a subscription, by its watcher or its id.
type Cancelling struct {
	Kind    string `json:"kind"`
	Target  string `json:"target"`
	Watcher string `json:"watcher,omitempty"`
	SID     string `json:"sid,omitempty"`
}

// A Provision says with what somebody is to be provided.
type Provision struct {
	Kind    string    `json:"kind"`
	Watcher string    `json:"watcher"` // of the domain
	Target  string    `json:"target"`  // anywhere
	Until   time.Time `json:"until,omitzero"`
	Note    string    `json:"note,omitempty"` // for the owner
}

// An Invitation says to what somebody is to be invited.
type Invitation struct {
	Kind    string `json:"kind"`
	Watcher string `json:"watcher"` // anywhere
	Target  string `json:"target"`  // of the domain
	Note    string `json:"note,omitempty"`
}

// ErrOwner means that whoever is concerned does not want it.
var ErrOwner = errors.New("not permitted by whom it is about")

// ErrFull means that there are as many as are possible.
var ErrFull = errors.New("no room")

// within completes an address of the domain, and says whether it is one.
func within(domain string, address *string) bool {
	if !strings.Contains(*address, "@") {
		*address += "@" + domain
	}
	return strings.HasSuffix(strings.ToLower(*address), "@"+domain)
}

// registerSubscriptions adds what administrators do with subscriptions. What changes one
// is written down before it is done, for what is done is never unwritten: with whom of the
// domain it is about. Others' audits are not theirs to fill.
func registerSubscriptions(mux *routes, d Domains, o *Operators) {
	const subscriptions = "/v1/domains/{domain}/subscriptions"
	registerLists(mux, d, o)
	change := func(verb string, next func(w http.ResponseWriter, r *http.Request, who, domain string)) {
		mux.HandleFunc("POST "+subscriptions+"/"+verb, o.ofDomain(next))
	}
	change("cancel", func(w http.ResponseWriter, r *http.Request, who, domain string) {
		var c Cancelling
		if !readJSON(w, r, &c) {
			return
		}
		if !within(domain, &c.Target) {
			refusePolicy(w, ErrNotYours)
			return
		}
		if o.audited(w, r, Look{By: who, What: "cancel " + c.Kind, About: c.Target, Result: "asked for: " + c.Watcher + c.SID}) {
			matched, err := d.Cancel(r.Context(), domain, c)
			answerPolicy(w, map[string]int{"matched": matched}, err)
		}
	})
	// both writes what is done down with each of the two whom it is about and who is of the
	// domain.
	both := func(w http.ResponseWriter, r *http.Request, l Look, domain, watcher, target string) bool {
		for _, one := range [...]struct{ is, other string }{{watcher, target}, {target, watcher}} {
			if strings.HasSuffix(strings.ToLower(one.is), "@"+domain) {
				l.About, l.Result = one.is, "asked for: "+one.other
				if !o.audited(w, r, l) {
					return false
				}
			}
		}
		return true
	}
	change("provision", func(w http.ResponseWriter, r *http.Request, who, domain string) {
		var p Provision
		if !readJSON(w, r, &p) {
			return
		}
		if !within(domain, &p.Watcher) {
			refuse(w, http.StatusForbidden, "%v: whoever is of another domain can be invited", ErrNotYours)
			return
		}
		within(domain, &p.Target)
		if both(w, r, Look{By: who, What: "provision " + p.Kind}, domain, p.Watcher, p.Target) {
			state, err := d.Provision(r.Context(), domain, who, p)
			answerPolicy(w, map[string]string{"state": state}, err)
		}
	})
	change("invite", func(w http.ResponseWriter, r *http.Request, who, domain string) {
		var i Invitation
		if !readJSON(w, r, &i) {
			return
		}
		if !within(domain, &i.Target) {
			refusePolicy(w, ErrNotYours)
			return
		}
		within(domain, &i.Watcher)
		if both(w, r, Look{By: who, What: "invite " + i.Kind}, domain, i.Watcher, i.Target) {
			err := d.Invite(r.Context(), domain, who, i)
			answerPolicy(w, map[string]string{"state": "invited"}, err)
		}
	})
}

// registerLists adds what administrators are told of subscriptions and invitations.
func registerLists(mux *routes, d Domains, o *Operators) {
	list := func(name string, next func(r *http.Request, domain, target string) (any, error)) {
		mux.HandleFunc("GET /v1/domains/{domain}/"+name, o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
			var target string
			if !readQuery(w, r.URL.Query(), map[string]*string{"target": &target}) {
				return
			}
			about := "*@" + domain
			if target != "" {
				about = target
				if !within(domain, &about) {
					refusePolicy(w, ErrNotYours)
					return
				}
			}
			answer, err := next(r, domain, target)
			if o.audited(w, r, Look{By: who, What: name, About: about, Result: resultOf(err)}) {
				answerPolicy(w, answer, err)
			}
		}))
	}
	list("subscriptions", func(r *http.Request, domain, target string) (any, error) {
		return d.Subscriptions(r.Context(), domain, target)
	})
	list("invitations", func(r *http.Request, domain, target string) (any, error) {
		return d.Invitations(r.Context(), domain, target)
	})
}

// A caller is who asks otherwise than by an HTTP request of their own.
type caller struct{ principal, door string }

type callerKey struct{}

// callerOf returns who asks, if a request is made for somebody who has proved otherwise who
// they are.
func callerOf(r *http.Request) (c caller, ok bool) {
	c, ok = r.Context().Value(callerKey{}).(caller)
	return c, ok
}

// DoorOf returns by which door somebody has come who asks with ctx, if they have proved
// otherwise than by HTTP who they are; else the empty string.
func DoorOf(ctx context.Context) string {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.door
}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}
