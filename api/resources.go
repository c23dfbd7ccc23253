package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resources is what the node shows of the things that are watched. Its
// functions may be called from many goroutines at once.
type Resources struct {
	// Identify returns the principal of a user name and password, which came from
	// an address and port. An error that is ErrUnavailable means that nobody can
	// be checked now, a *TooMany that this one is not.
	Identify func(user, password, from string) (principal string, err error)

	// Anonymous says whether who shows no credentials may ask at all.
	Anonymous bool

	// Name is how a resource is called, however it is spelt. The error is an ErrBadName.
	Name func(kind, domain, local string) (string, error)

	// Show returns what principal, empty for nobody, is shown of a resource.
	Show func(principal, kind, domain, local string) (Document, error)

	// List calls yield with the resources of a domain that principal may see,
	// from where an earlier call said to go on, or the first if after is empty,
	// until yield returns false, and returns where to go on, empty if there are
	// no more. An after of any other kind is an ErrBadName.
	List func(principal, kind, domain, after string, yield func(name string, d Document) bool) (next string, err error)

	// Lists bounds how many lists each asker is given, by Now, Fetches how much else, and
	// Repeats how often of that one resource; nil for no bound.
	Lists, Fetches, Repeats *Rate
	Now                     func() time.Time

	// Policy returns the policy that principal has set for a kind.
	Policy func(principal, kind string) (Document, error)

	// Blocklist returns whom principal has blocked, of all kinds.
	Blocklist func(principal string) (Document, error)

	// SetPolicy has principal's policy for a kind replaced by a document of that content
	// type, none if it is empty. If was is not nil it is refused as an ErrChanged where the
	// policy is another than that by then. The error may be an *OwnFaults.
	SetPolicy func(ctx context.Context, principal, kind, contentType string, document []byte, was *Document) ([]OwnFault, error)

	// Preview returns, as JSON, what watcher would be shown at an instant, now if it is
	// empty, of what of has of a kind, and which rules make that. It is an
	// ErrNotPermitted for anybody but of, who is principal if it is empty.
	Preview func(principal, kind, of, watcher, at string) (Document, error)

	// Own returns what principal is shown of their own under a name, OwnWatchers or
	// OwnStats, for a kind: a page of it, from where an earlier one said to go on (after),
	// or the first if that is empty. An after of any other kind is an ErrBadName.
	Own func(principal, name, kind, after string) (Document, error)

	// Count returns what principal is told of how many watch a resource, which is an
	// ErrNotPermitted unless its owner has that told.
	Count func(principal, kind, domain, local string) (Document, error)

	// Subscription returns what principal is told of its own subscription to a
	// resource, a Document without Body if there is none.
	Subscription func(principal, kind, domain, local string) (Document, error)

	// Control does what principal, as an owner, asks for about subscriptions of a kind
	// and returns the answer, JSON: as a publication to $ctl/ does. The error may be an
	// ErrChanged or an ErrUnacceptable.
	Control func(ctx context.Context, principal, kind, verb string, data []byte) (reply []byte, err error)
}

// A Document is what somebody is shown.
type Document struct {
	Type string // media type
	Body []byte

	// Pending says that there is none yet: its owner is to decide.
	Pending bool
}

// Errors that the functions of Resources wrap.
var (
	ErrNoKind       = errors.New("no such kind")
	ErrBadName      = errors.New("bad name")
	ErrNotPermitted = errors.New("not permitted")
	ErrUnavailable  = errors.New("unavailable")
	ErrChanged      = errors.New("not as it is now")
	ErrUnacceptable = errors.New("not acceptable")
)

// OwnFaults is why an owner's policy is not taken: all that is wrong with it.
type OwnFaults struct {
	Reason string // a word for programs: schema, duplicate-id, entity-mismatch, too-large
	Faults []OwnFault
}

func (e *OwnFaults) Error() string {
	return fmt.Sprintf("%s: the policy has faults, and the one that is in force stays", e.Reason)
}

// An OwnFault is something in an owner's policy that is wrong, or has no effect.
type OwnFault struct {
	Pointer string `json:"pointer"` // to where (RFC 6901), of XML the path; empty for all of it
	What    string `json:"what"`
}

// A TooMany is why who tries to sign in is not looked at: too many have failed.
type TooMany struct{ RetryAfter time.Duration }

func (*TooMany) Error() string {
	return "too many have failed to sign in under this name from your network: try again later"
}

// What principals are shown of their own, by the names of the paths below /v1/me/.
const (
	OwnWatchers = "watchers" // who watches them
	OwnStats    = "stats"    // how many
)

// mostListed bounds the resources in one answer.
const mostListed = 100

func (s *Resources) register(mux *routes) {
	mux.HandleFunc("GET /v1/{kind}/{domain}/{local}", s.as(s.show))
	mux.HandleFunc("GET /v1/{kind}/{domain}/{local}/stats", s.as(s.paced(func(w http.ResponseWriter, r *http.Request, principal string) {
		d, err := s.Count(principal, r.PathValue("kind"), r.PathValue("domain"), r.PathValue("local"))
		serveDocument(w, r, d, err)
	})))
	mux.HandleFunc("GET /v1/{kind}/{domain}", s.as(s.list))
	mux.HandleFunc("GET /v1/me/policy/{kind}", s.as(s.paced(s.policy)))
	mux.HandleFunc("GET /v1/me/blocklist", s.as(s.paced(func(w http.ResponseWriter, r *http.Request, principal string) {
		d, err := s.Blocklist(principal)
		if err == nil && len(d.Body) == 0 {
			refuse(w, http.StatusNotFound, "nobody is blocked")
			return
		}
		serveDocument(w, r, d, err)
	})))
	mux.HandleFunc("PUT /v1/me/policy/{kind}", s.as(s.paced(s.setPolicy)))
	mux.HandleFunc("DELETE /v1/me/policy/{kind}", s.as(s.paced(s.setPolicy)))
	mux.HandleFunc("GET /v1/me/preview/{kind}", s.as(s.paced(func(w http.ResponseWriter, r *http.Request, principal string) {
		var of, watcher, at string
		if !readQuery(w, r.URL.Query(), map[string]*string{"of": &of, "watcher": &watcher, "at": &at}) {
			return
		}
		d, err := s.Preview(principal, r.PathValue("kind"), of, watcher, at)
		serveDocument(w, r, d, err)
	})))
	for _, name := range []string{OwnWatchers, OwnStats} {
		mux.HandleFunc("GET /v1/me/"+name+"/{kind}", s.as(s.paced(func(w http.ResponseWriter, r *http.Request, principal string) {
			if principal == "" {
				challenge(w, "say who you are: nobody else is shown who watches you")
				return
			}
			var after string
			if !readQuery(w, r.URL.Query(), map[string]*string{"after": &after}) {
				return
			}
			d, err := s.Own(principal, name, r.PathValue("kind"), after)
			serveDocument(w, r, d, err)
		})))
	}
	mux.HandleFunc("GET /v1/me/sub/{kind}/{domain}/{local}", s.as(s.paced(s.subscription)))
	mux.HandleFunc("POST /v1/{kind}/subscriptions/{verb}", s.as(s.control))
}

// A served answers a request of a principal's, who is empty for nobody.
type served func(w http.ResponseWriter, r *http.Request, principal string)

// paced answers only who does not fetch too often. That is asked before anything else is: it
// tells nobody what there is.
func (s *Resources) paced(next served) served {
	return func(w http.ResponseWriter, r *http.Request, principal string) {
		if s.Fetches.allow(w, r, principal, "", s.Now, "fetches") {
			next(w, r, principal)
		}
	}
}

// as finds out who asks.
func (s *Resources) as(next served) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, password, given := credentials(r)
		if !given {
			if !s.Anonymous || r.Header.Get("Authorization") != "" {
				challenge(w, "say who you are: user name and password, as for MQTT")
				return
			}
			next(w, r, "")
			return
		}
		principal, err := s.Identify(user, password, r.RemoteAddr)
		if err != nil {
			refuseSignIn(w, err)
			return
		}
		next(w, r, principal)
	}
}

// credentials returns the user name and password of a request (RFC 7617), or the signed
// token that stands in their place and says itself whose it is (RFC 6750).
func credentials(r *http.Request) (user, password string, given bool) {
	if user, password, given = r.BasicAuth(); given {
		return user, password, true
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", "", false
	}
	return "", strings.TrimSpace(token), true
}

func retryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
}

func challenge(w http.ResponseWriter, detail string) { challengeAs(w, problem{Detail: detail}) }

func challengeAs(w http.ResponseWriter, p problem) {
	w.Header().Set("WWW-Authenticate", `Basic realm="bellwire", charset="UTF-8"`)
	w.Header().Add("WWW-Authenticate", `Bearer realm="bellwire"`)
	p.Status = http.StatusUnauthorized
	refuseWith(w, p)
}

// show answers with one resource, or as list does where its local part is the
// wildcard of a subscription. Somebody who is called so is written %2B, as in topics.
func (s *Resources) show(w http.ResponseWriter, r *http.Request, principal string) {
	if strings.HasSuffix(r.URL.EscapedPath(), "/+") {
		s.list(w, r, principal)
		return
	}
	s.paced(s.showOne)(w, r, principal)
}

// showOne answers with one resource who does not ask for it too often: whoever wants to know
// how it is all the time subscribes. Who says which entity tag they have asks, too, and is
// looked up as much for; and that there is nothing is an answer as any, so that the bound
// tells nobody what there is.
func (s *Resources) showOne(w http.ResponseWriter, r *http.Request, principal string) {
	of, domain, local := r.PathValue("kind"), r.PathValue("domain"), r.PathValue("local")
	name, err := s.Name(of, domain, local)
	if err != nil {
		refuseShow(w, err)
		return
	}
	if s.Repeats.allow(w, r, principal, name, s.Now, "fetches of this resource") {
		d, err := s.Show(principal, of, domain, local)
		serveDocument(w, r, d, err)
	}
}

func (s *Resources) policy(w http.ResponseWriter, r *http.Request, principal string) {
	d, err := s.Policy(principal, r.PathValue("kind"))
	if err == nil && len(d.Body) == 0 {
		refuse(w, http.StatusNotFound, "no policy is set: the kind's default is in force")
		return
	}
	serveDocument(w, r, d, err)
}

// maxOwnPolicy is how much of a policy is read: what is more than a policy may have is
// answered like its other faults, what is more than this is not looked at.
const maxOwnPolicy = 256 << 10

// setPolicy puts an owner's policy in force, or ends it, if it is still the one that
// If-Match names, or there is none and If-None-Match says *.
func (s *Resources) setPolicy(w http.ResponseWriter, r *http.Request, principal string) {
	if principal == "" {
		challenge(w, "say who you are: it is your own policy")
		return
	}
	var document []byte
	if r.Method == http.MethodPut {
		var ok bool
		if document, ok = readAll(w, r, "what is read as a policy", maxOwnPolicy); !ok {
			return
		}
		if len(document) == 0 {
			refuse(w, http.StatusUnprocessableEntity, "an empty document is no policy: DELETE ends the one that is in force")
			return
		}
	}
	of := r.PathValue("kind")
	was, err := s.Policy(principal, of)
	if err != nil {
		refuseShow(w, err)
		return
	}
	expected, ok := s.expected(w, r, was)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), managing)
	defer cancel()
	warnings, err := s.SetPolicy(ctx, principal, of, r.Header.Get("Content-Type"), document, expected)
	if faults, faulty := errors.AsType[*OwnFaults](err); faulty {
		refuseWith(w, problem{Status: http.StatusUnprocessableEntity, Detail: err.Error(), Faults: faults.Faults})
		return
	}
	switch {
	case errors.Is(err, ErrChanged):
		refuse(w, http.StatusPreconditionFailed, "%v", err)
	case errors.Is(err, ErrUnacceptable):
		refuse(w, http.StatusUnprocessableEntity, "%v", err)
	case err != nil:
		refuseShow(w, err)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	default:
		s.isSet(w, principal, of, was, warnings)
	}
}

// expected is the policy that is to be replaced, nil for any; ok is false if it is not
// there any more, which is answered.
func (s *Resources) expected(w http.ResponseWriter, r *http.Request, was Document) (expected *Document, ok bool) {
	there := len(was.Body) > 0
	switch conditioned, match, none := conditions(r, there, entityTag(was)); {
	case !conditioned:
		return nil, true
	case !match:
		refuse(w, http.StatusPreconditionFailed, "the policy is another by now, or there is none: GET it, and make yours from that")
		return nil, false
	case !none:
		refuse(w, http.StatusPreconditionFailed, "there is a policy already, or that one")
		return nil, false
	}
	return &was, true
}

// isSet answers that a policy is in force, with its entity tag and what of it has no effect.
func (s *Resources) isSet(w http.ResponseWriter, principal, of string, was Document, warnings []OwnFault) {
	status := http.StatusOK
	if len(was.Body) == 0 {
		status = http.StatusCreated
	}
	if d, err := s.Policy(principal, of); err == nil && len(d.Body) > 0 {
		w.Header().Set("ETag", entityTag(d))
	}
	if warnings == nil {
		warnings = []OwnFault{}
	}
	writeJSON(w, status, map[string]any{"warnings": warnings})
}

// subscription answers with the state of principal's own subscription to a resource.
func (s *Resources) subscription(w http.ResponseWriter, r *http.Request, principal string) {
	d, err := s.Subscription(principal, r.PathValue("kind"), r.PathValue("domain"), r.PathValue("local"))
	if err == nil && len(d.Body) == 0 {
		refuse(w, http.StatusNotFound, "no subscription of yours is known")
		return
	}
	serveDocument(w, r, d, err)
}

// maxControl is the size of the largest request of an owner's.
const maxControl = 64 << 10

// controls are what principals may ask for about subscriptions. The others that there are
// are administrators', by other paths.
var controls = map[string]bool{"approve": true, "deny": true, "withdraw": true, "revoke": true, "reveal": true, "rotate": true, "decline": true}

// control does what principal asks for about subscriptions to what is theirs.
func (s *Resources) control(w http.ResponseWriter, r *http.Request, principal string) {
	if !controls[r.PathValue("verb")] {
		refuse(w, http.StatusNotFound, "bad-event: no such request here: approve, deny, withdraw and revoke are an owner's, reveal, rotate and decline a watcher's")
		return
	}
	data, ok := readAll(w, r, "a request", maxControl)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), managing)
	defer cancel()
	reply, err := s.Control(ctx, principal, r.PathValue("kind"), r.PathValue("verb"), data)
	switch {
	case errors.Is(err, ErrChanged):
		refuse(w, http.StatusPreconditionFailed, "%v", err)
	case errors.Is(err, ErrUnacceptable):
		refuse(w, http.StatusUnprocessableEntity, "%v", err)
	case err != nil:
		refuseShow(w, err)
	default:
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(reply)
	}
}

// serveDocument writes a document with its entity tag, or that it is still the
// one that the client has. It differs from one who asks to the next, and is old
// at once: nobody on the way may keep it.
func serveDocument(w http.ResponseWriter, r *http.Request, d Document, err error) {
	if err != nil {
		refuseShow(w, err)
		return
	}
	h := w.Header()
	if d.Pending {
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusAccepted)
		return
	}
	tag := entityTag(d)
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Authorization")
	if _, _, none := conditions(r, true, tag); !none {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", d.Type)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(d.Body)))
	_, _ = w.Write(d.Body) // the client is gone: nobody to tell
}

// entityTag is the same exactly for equal octets of one type (RFC 9110 section
// 8.8.3), and tells nothing else: not which version of the resource it is, or
// whom the body is for.
func entityTag(d Document) string {
	h := sha256.New()
	h.Write([]byte(d.Type + "\n"))
	h.Write(d.Body)
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:15]) + `"`
}

// conditions says whether a request has any, and whether If-Match and If-None-Match hold for
// what is there with that entity tag, or for nothing; without one of them that holds (RFC
// 9110 sections 13.1.1 and 13.1.2: the one compares strongly, the other weakly).
func conditions(r *http.Request, there bool, tag string) (conditioned, match, none bool) {
	ifMatch, ifNone := tagsOf(r, "If-Match"), tagsOf(r, "If-None-Match")
	match = ifMatch == nil || there && (slices.Contains(ifMatch, "*") || slices.Contains(ifMatch, tag))
	none = !there || !slices.ContainsFunc(ifNone, func(t string) bool { return t == "*" || strings.TrimPrefix(t, "W/") == tag })
	return ifMatch != nil || ifNone != nil, match, none
}

// tagsOf returns the entity tags that a field lists, nil for none. (Ours have no comma.)
func tagsOf(r *http.Request, field string) (tags []string) {
	for _, line := range r.Header.Values(field) {
		for t := range strings.SplitSeq(line, ",") {
			if t = strings.TrimSpace(t); t != "" {
				tags = append(tags, t)
			}
		}
	}
	return tags
}

func refuseShow(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrUnavailable):
		unavailable(w, err)
		return
	case errors.Is(err, ErrNoKind):
		status = http.StatusNotFound
	case errors.Is(err, ErrBadName):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotPermitted):
		status = http.StatusForbidden
	}
	refuse(w, status, "%v", err)
}

// A listed resource stands in a list: JSON as it is, other documents as base64.
type listed struct {
	Resource string          `json:"resource"`
	Type     string          `json:"type"`
	Document json.RawMessage `json:"document,omitempty"`
	Base64   []byte          `json:"base64,omitempty"`
}

// list answers with what principal may see of a domain's resources, at most
// mostListed at a time: "next" is what to ask for with ?after=.
func (s *Resources) list(w http.ResponseWriter, r *http.Request, principal string) {
	if !s.Lists.allow(w, r, principal, "", s.Now, "lists") {
		return
	}
	var after string
	if !readQuery(w, r.URL.Query(), map[string]*string{"after": &after}) {
		return
	}
	items := []listed{}
	next, err := s.List(principal, r.PathValue("kind"), r.PathValue("domain"), after, func(name string, d Document) bool {
		item := listed{Resource: name, Type: d.Type}
		if json.Valid(d.Body) {
			item.Document = d.Body
		} else {
			item.Base64 = d.Body
		}
		items = append(items, item)
		return len(items) < mostListed
	})
	if err != nil {
		refuseShow(w, err)
		return
	}
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("Vary", "Authorization")
	writeJSON(w, http.StatusOK, map[string]any{"items": items, "next": next})
}
