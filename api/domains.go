package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Domains is what belongs to single domains, as HTTP shows it to operators and to the
// domain's administrators. Its methods may be called from many goroutines at once. A domain
// that is no tenant of the operator's policy is an ErrNoTenant.
type Domains interface {
	// Policy is as Policies has it, of the domain's own part of the policy. A part that has
	// ended is an ErrNoPolicy.
	Policy(ctx context.Context, domain string, number uint64) (PolicyText, error)
	PolicyVersions(ctx context.Context, domain string) ([]PolicyVersion, error)

	// PutPolicy is Policies.Put for the part; without Data it ends it. ErrTooOften, too, if
	// it was changed too often.
	PutPolicy(ctx context.Context, domain string, c PolicyChange) (PolicyResult, error)

	// DiffPolicy compares, as a diff of Policies.Ask does, of the domain's people and entries.
	DiffPolicy(ctx context.Context, domain string, q PolicyQuestion) (any, error)

	// Subscriptions returns those to and from addresses of a domain; only those to target
	// unless it is empty. The domain need be no tenant. A target elsewhere is an ErrNotYours.
	Subscriptions(ctx context.Context, domain, target string) (SubscriptionList, error)

	// Invitations is Subscriptions for the invitations that are outstanding.
	Invitations(ctx context.Context, domain, target string) (InvitationList, error)

	// Cancel ends one to an address of the domain, and says how many there were.
	Cancel(ctx context.Context, domain string, c Cancelling) (matched int, err error)

	// Provision provides somebody of the domain with a subscription, by the administrator
	// of that name, and returns what its watcher is told of it: "active" or "pending". A
	// watcher elsewhere is an ErrNotYours; whom the owner refuses an ErrOwner.
	Provision(ctx context.Context, domain, by string, p Provision) (state string, err error)

	// Invite offers somebody, wherever, to subscribe to somebody of the domain. A target
	// elsewhere is an ErrNotYours; who has declined an ErrOwner.
	Invite(ctx context.Context, domain, by string, i Invitation) error

	// Usage returns what the domain uses of its quotas.
	Usage(ctx context.Context, domain string) (DomainUsage, error)
}

// A DomainUsage is what a domain uses.
type DomainUsage struct {
	Sessions           QuotaUsage `json:"sessions"`
	Subscriptions      QuotaUsage `json:"subscriptions"`
	RetainedTopics     QuotaUsage `json:"retained_topics"`
	QueueBytes         QuotaUsage `json:"queue_bytes"`
	Watchers           QuotaUsage `json:"watchers"`
	Delayed            QuotaUsage `json:"delayed"`
	PublishesPerSecond QuotaUsage `json:"publishes_per_second"` // on the node that is asked
}

// A QuotaRow is one of them, with its name.
type QuotaRow struct {
	Name string
	QuotaUsage
}

// All lists what is used of each quota, in the order of Rows.
func (u *DomainUsage) All() []*QuotaUsage {
	return []*QuotaUsage{&u.Sessions, &u.Subscriptions, &u.RetainedTopics, &u.QueueBytes, &u.Watchers, &u.Delayed, &u.PublishesPerSecond}
}

// Rows lists them.
func (u *DomainUsage) Rows() []QuotaRow {
	return []QuotaRow{
		{"sessions", u.Sessions},
		{"subscriptions", u.Subscriptions},
		{"retained_topics", u.RetainedTopics},
		{"queue_bytes", u.QueueBytes},
		{"watchers", u.Watchers},
		{"delayed", u.Delayed},
		{"publishes_per_second", u.PublishesPerSecond},
	}
}

// A QuotaUsage is what is used of one quota.
type QuotaUsage struct {
	Used    uint64 `json:"used"`
	Max     uint64 `json:"max"`     // 0: there is none
	Refused uint64 `json:"refused"` // since the node was started
}

// Errors that the methods of Domains wrap.
var (
	ErrNoTenant = errors.New("no such tenant in the operator's policy")
	ErrTooOften = errors.New("too often")
)

// ofDomain lets through operators, and administrators of the domain in the path. Nobody
// else learns by the answer whether there is such a domain.
func (o *Operators) ofDomain(next func(w http.ResponseWriter, r *http.Request, who, domain string)) http.HandlerFunc {
	return o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
		domain := strings.ToLower(r.PathValue("domain"))
		if !operator && !slices.Contains(o.domains(who), domain) {
			refuse(w, http.StatusForbidden, "%s is neither an operator nor an administrator of that domain", who)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		next(w, r, who, domain)
	})
}

// registerDomains adds /v1/domains/{domain}/.
func registerDomains(mux *routes, d Domains, o *Operators) {
	const policy = "/v1/domains/{domain}/policy"
	text := func(w http.ResponseWriter, r *http.Request, who, domain string, number uint64) {
		text, err := d.Policy(r.Context(), domain, number)
		if o.audited(w, r, Look{By: who, What: "policy read", About: "*@" + domain, Result: resultOf(err)}) {
			serveVersion(w, r, text, err)
		}
	}
	mux.HandleFunc("GET "+policy, o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) { text(w, r, who, domain, 0) }))
	mux.HandleFunc("GET "+policy+"/versions/{number}", o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
		number, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
		if err != nil || number == 0 {
			refusePolicy(w, ErrNoPolicy)
			return
		}
		text(w, r, who, domain, number)
	}))
	mux.HandleFunc("GET "+policy+"/versions", o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
		all, err := d.PolicyVersions(r.Context(), domain)
		if !o.audited(w, r, Look{By: who, What: "policy versions", About: "*@" + domain, Result: resultOf(err)}) {
			return
		}
		answerPolicy(w, map[string]any{"versions": all}, err)
	}))
	put := func(domain string) func(context.Context, PolicyChange) (PolicyResult, error) {
		return func(ctx context.Context, c PolicyChange) (PolicyResult, error) { return d.PutPolicy(ctx, domain, c) }
	}
	version := func(domain string) policyAt {
		return func(ctx context.Context, number uint64) (PolicyText, error) { return d.Policy(ctx, domain, number) }
	}
	mux.HandleFunc("PUT "+policy, o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
		c, err := changeOf(r, who)
		if err != nil {
			refusePolicy(w, err)
			return
		}
		var ok bool
		switch c.Data, ok = readPolicy(w, r); {
		case !ok:
		case len(c.Data) == 0:
			refuse(w, http.StatusUnprocessableEntity, "an empty file: DELETE ends the domain's policy")
		default:
			putPolicy(w, r, version(domain), put(domain), c)
		}
	}))
	mux.HandleFunc("DELETE "+policy, o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
		c, err := changeOf(r, who)
		if err == nil && (c.Dry || c.Shadow != "") {
			err = fmt.Errorf("%w: dry_run and shadow are not for DELETE: PUT tries a policy", ErrBadQuestion)
		}
		if err != nil {
			refusePolicy(w, err)
			return
		}
		putPolicy(w, r, version(domain), put(domain), c)
	}))
	mux.HandleFunc("POST "+policy+"/rollback", o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
		rollback(w, r, version(domain), put(domain), who)
	}))
	diff := o.ofDomain(func(w http.ResponseWriter, r *http.Request, who, domain string) {
		q := PolicyQuestion{What: "diff"}
		if !readQuestion(w, r, &q) {
			return
		}
		answer, err := d.DiffPolicy(r.Context(), domain, q)
		if !o.audited(w, r, Look{By: who, What: "diff", About: "*@" + domain, Result: resultOf(err)}) {
			return
		}
		answerPolicy(w, answer, err)
	})
	registerSubscriptions(mux, d, o)
	mux.HandleFunc("GET /v1/domains/{domain}/usage", o.ofDomain(func(w http.ResponseWriter, r *http.Request, _, domain string) {
		usage, err := d.Usage(r.Context(), domain)
		answerPolicy(w, usage, err)
	}))
	mux.HandleFunc("GET "+policy+"/diff", diff)
	mux.HandleFunc("POST "+policy+"/diff", diff)
}

// answerPolicy writes an answer, or why there is none.
func answerPolicy(w http.ResponseWriter, answer any, err error) {
	if err != nil {
		refusePolicy(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, answer)
}
