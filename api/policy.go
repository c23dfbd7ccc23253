package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bellwire/bellwire/bw"
)

// Policies is the operator's policy as HTTP shows it. Its methods may be called from
// many goroutines at once.
type Policies interface {
	// Denied returns what is known of a refusal by the policy, on whatever node it
	// was. The error is an ErrNoDenial if nothing is.
	Denied(ctx context.Context, id string) (Denial, error)

	// Version returns the version of that number, or, if it is 0, the one in force.
	// The error is an ErrNoPolicy if there is none.
	Version(ctx context.Context, number uint64) (PolicyText, error)

	// Versions returns those that are kept, the newest first.
	Versions(ctx context.Context) []PolicyVersion

	// Put checks a policy, runs its own tests and puts it in force, on all nodes; it
	// returns when this one has it. The error is a *PolicyFaults, or an ErrNotInForce
	// if Base is not, or an ErrRemoves: they change nothing. ErrNoLeader and ErrConflict, too; after
	// an ErrMayBeDone it may yet come into force.
	Put(ctx context.Context, c PolicyChange) (PolicyResult, error)

	// Ask answers a question with what becomes JSON. The error may be an ErrBadQuestion,
	// an ErrNoPolicy or a *PolicyFaults.
	Ask(ctx context.Context, q PolicyQuestion) (any, error)

	// Shadow returns what the policy that is tried has shown on all nodes, and ends that
	// if stop. The error is an ErrNoShadow if none is tried.
	Shadow(ctx context.Context, stop bool) (Shadow, error)
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
	Policy    uint64    `json:"policy"`         // number of the version that refused; 0 if it has none
	Rule      string    `json:"rule,omitempty"` // empty if no rule has to do with it
	Line      int       `json:"line,omitempty"`
	Reason    string    `json:"reason"`
	Text      string    `json:"text"` // the explanation, for people

	Of string `json:"of,omitempty"` // the domain in whose own policy Rule stands; empty: the operator's
}

// concealed is what who is not of the domain in whose policy the rule stands is told: that
// it is the domain's doing, and none of what else the domain says.
func (d Denial) concealed() Denial {
	d.Rule, d.Line, d.Reason = "", 0, d.Of+" does not allow it to others"
	d.Text = "DENY    " + d.Action + " " + d.Topic + "   as " + d.Principal + "\n  because  " + d.Reason + "\n"
	return d
}

// registerPolicies adds /v1/policy.
func registerPolicies(mux *routes, p Policies, o *Operators) {
	registerVersions(mux, p, o)
	mux.HandleFunc("GET /v1/policy/denials/{id}", o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
		ctx, cancel := context.WithTimeout(r.Context(), managing)
		defer cancel()
		d, err := p.Denied(ctx, r.PathValue("id"))
		_, domain, _ := strings.Cut(d.Principal, "@")
		if err == nil && !operator && (d.Principal == "" || d.Principal != who && !slices.Contains(o.domains(who), domain)) {
			err = ErrNoDenial // whose it was is not told
		}
		if err == nil && !operator && d.Of != "" && domain != d.Of {
			d = d.concealed()
		}
		if err == nil && !o.audited(w, r, Look{By: who, What: "denial", About: d.Principal, Result: "told"}) {
			return
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

// A PolicyText is one version of the operator's policy.
type PolicyText struct {
	Number uint64 // 0 if it has none: while not all nodes of the cluster know numbers
	Data   []byte // YAML
	Domain string // of bare names in it; may be empty
}

// A PolicyVersion is one version in the history.
type PolicyVersion struct {
	Number uint64    `json:"number"`
	At     time.Time `json:"at"` // when it was put in force
	By     string    `json:"by"` // a principal, local or file; empty if it is not known
	Size   int       `json:"size"`
	In     bool      `json:"in_force,omitempty"`
}

// A PolicyChange is what is to be put in force.
type PolicyChange struct {
	Data []byte
	File string // what messages call it; empty if whoever sends it does not say
	By   string
	Base uint64 // the version that must be in force; 0 for any
	Dry  bool   // only say what is wrong with it

	// RemoveUsers says that it is meant that it removes many users, or all operators: else
	// that is an ErrRemoves.
	RemoveUsers bool

	// Shadow, if not empty, is for how long it is to be tried beside the one in force on
	// all nodes, without effect; instead of being put in force.
	Shadow string
}

// A PolicyResult is what became of it.
type PolicyResult struct {
	Number uint64 `json:"number"` // of the version in force
	Tests  int    `json:"tests"`  // of its own that passed
	Dry    bool   `json:"dry_run,omitempty"`

	// Removed are users whom the policy in force names, and this one does not: they lose
	// sessions, and what waits for devices, at once, and what else is theirs at Forgotten,
	// unless a policy names them before. Without Forgotten that stays.
	Removed   []string   `json:"removed,omitempty"`
	Forgotten *time.Time `json:"forgotten,omitempty"`

	// Confirm, of a dry run, is what has to be confirmed by RemoveUsers; empty for nothing.
	Confirm string `json:"confirm,omitempty"`

	// Idle are rules of domains' own policies, as domain:id, that are of no effect any more:
	// they are about topics that the domain has not under this one.
	Idle []string `json:"idle,omitempty"`

	Shadow *Shadow `json:"shadow,omitempty"` // it is tried
}

// A Shadow is what a policy has shown that is asked beside the one in force.
type Shadow struct {
	Until   time.Time `json:"until"`
	By      string    `json:"by"`
	Nodes   []string  `json:"nodes"`             // on which it is asked
	Without []string  `json:"without,omitempty"` // on which it is not: down, or started since
	Asked   int       `json:"asked"`             // different questions: who, action, topic
	Missed  uint64    `json:"missed"`            // for which there was no room
	Cost    float64   `json:"cost"`              // seconds of a core that it took, of all nodes

	Differences []ShadowDifference `json:"differences"`
}

// A ShadowDifference is a question of a client, or of the log on its behalf, that it
// answers otherwise.
type ShadowDifference struct {
	Principal string    `json:"principal"` // empty for a client without credentials
	Client    string    `json:"client,omitempty"`
	Action    string    `json:"action"`
	Topic     string    `json:"topic"`
	At        time.Time `json:"at"` // when that was seen first
	Was       bool      `json:"was"`
	WasRule   string    `json:"was_rule,omitempty"`
	Is        bool      `json:"is"`
	Rule      string    `json:"rule,omitempty"`
	Owner     bool      `json:"owner,omitempty"` // allowed means: left to the topic's owner
}

// PolicyFaults are why a policy is not put in force.
type PolicyFaults struct {
	Faults []PolicyFault // all of them, at least one
	Report string        // for people
	Tests  bool          // it is its own tests that failed
}

// A PolicyFault is one of them.
type PolicyFault struct {
	Line   int    `json:"line"`
	Column int    `json:"column,omitempty"`
	What   string `json:"what"`
	Hint   string `json:"hint,omitempty"`
	Test   string `json:"test,omitempty"` // the name of the test that failed
}

func (e *PolicyFaults) Error() string {
	has, many := "has %d fault", "s"
	if e.Tests {
		has, many = "fails %d test", "s of its own"
	}
	if len(e.Faults) == 1 {
		many = strings.TrimPrefix(many, "s")
	}
	return fmt.Sprintf("the policy "+has+"%s: the one in force stays", len(e.Faults), many)
}

// A PolicyQuestion is about what a version says. Empty fields have their defaults.
type PolicyQuestion struct {
	What          string // explain, who, can, diff
	As, Client    string // an address or anonymous
	Action, Topic string
	At, Sweep     string // an instant; FROM/TO, or a time from At on such as 7d
	Text          bool   // explain: answer with an Explained

	// Version is that of the policy that is asked, 0 for the one in force. diff: the
	// newer one, unless there is Data; Than the older one, 0 for the one in force.
	Version, Than uint64
	Data          []byte
	File          string // what messages call Data; may be empty

	// Domains, if not nil, are those whose people may be asked about, by who may see no
	// others: explain and can of an address elsewhere are an ErrNotYours, and who answers
	// for them only.
	Domains []string
}

// An Explained is an explanation for people.
type Explained struct {
	Text string `json:"text"`
}

// Errors that the methods of Policies wrap.
var (
	ErrNoPolicy    = errors.New("no such policy is kept")
	ErrBadQuestion = errors.New("bad question")
	ErrNotYours    = errors.New("not of a domain that you administer")
	ErrNobody      = errors.New("no such user")
	ErrNoShadow    = errors.New("no policy is being tried")
	ErrNotInForce  = errors.New("the policy was changed meanwhile")
	ErrRemoves     = errors.New("this looks like a part of a policy")
)

// registerVersions adds what is about versions of the policy. All of it is for
// operators, for a policy tells who may do what, and what proves who they are.
func registerVersions(mux *routes, p Policies, o *Operators) {
	mux.HandleFunc("GET /v1/policy", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		text, err := p.Version(r.Context(), 0)
		if !o.audited(w, r, Look{By: who, What: "policy read", Result: resultOf(err)}) {
			return
		}
		serveVersion(w, r, text, err)
	}))
	mux.HandleFunc("GET /v1/policy/versions/{number}", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		number, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
		if err != nil || number == 0 {
			refusePolicy(w, ErrNoPolicy)
			return
		}
		text, err := p.Version(r.Context(), number)
		if !o.audited(w, r, Look{By: who, What: "policy read", Result: resultOf(err)}) {
			return
		}
		serveVersion(w, r, text, err)
	}))
	mux.HandleFunc("GET /v1/policy/versions", o.only(func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, map[string]any{"versions": p.Versions(r.Context())})
	}))
	mux.HandleFunc("PUT /v1/policy", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		c, err := changeOf(r, who)
		if err != nil {
			refusePolicy(w, err)
			return
		}
		var ok bool
		if c.Data, ok = readPolicy(w, r); ok {
			putPolicy(w, r, p.Version, p.Put, c)
		}
	}))
	mux.HandleFunc("POST /v1/policy/rollback", o.only(func(w http.ResponseWriter, r *http.Request, who string) {
		rollback(w, r, p.Version, p.Put, who)
	}))
	for method, stop := range map[string]bool{"GET": false, "DELETE": true} {
		mux.HandleFunc(method+" /v1/policy/shadow", o.only(func(w http.ResponseWriter, r *http.Request, _ string) {
			ctx, cancel := context.WithTimeout(r.Context(), managing)
			defer cancel()
			s, err := p.Shadow(ctx, stop)
			if err != nil {
				refusePolicy(w, err)
				return
			}
			w.Header().Set("Cache-Control", "no-store")
			writeJSON(w, http.StatusOK, s)
		}))
	}
	ask := func(what string) http.HandlerFunc {
		return o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
			q := PolicyQuestion{What: what}
			if !operator {
				// A comparison tells of everybody.
				if q.Domains = o.domains(who); len(q.Domains) == 0 || what == "diff" {
					refuse(w, http.StatusForbidden, "%s is no operator: the policy's group operators does not list it", who)
					return
				}
			}
			if !readQuestion(w, r, &q) {
				return
			}
			answer, err := p.Ask(r.Context(), q)
			for _, about := range aboutWhom(q) {
				if errors.Is(err, ErrNotYours) {
					break // nothing was seen: nobody is to fill what belongs to another domain
				}
				if !o.audited(w, r, Look{By: who, What: what, About: about, Result: resultOf(err)}) {
					return
				}
			}
			answerPolicy(w, answer, err)
		})
	}
	for _, what := range []string{"explain", "who", "can", "diff"} {
		mux.HandleFunc("GET /v1/policy/"+what, ask(what))
	}
	mux.HandleFunc("POST /v1/policy/diff", ask("diff"))
	mux.HandleFunc("GET /v1/acl/explain", ask("explain"))
}

// aboutWhom returns whom a question is about, as the audit has it.
func aboutWhom(q PolicyQuestion) (about []string) {
	if q.What != "who" || q.Domains == nil {
		return []string{q.As} // of who and diff that is nobody in particular
	}
	for _, domain := range q.Domains {
		about = append(about, "*@"+domain)
	}
	return about
}

// readQuestion reads the query of a question, and its body if it has one.
func readQuestion(w http.ResponseWriter, r *http.Request, q *PolicyQuestion) bool {
	form := r.URL.Query()
	var version, than, text string
	if !readQuery(w, form, map[string]*string{
		"as": &q.As, "client": &q.Client, "action": &q.Action, "topic": &q.Topic, "at": &q.At, "sweep": &q.Sweep,
		"version": &version, "than": &than, "text": &text,
	}) {
		return false
	}
	q.Text = form.Has("text")
	for name, to := range map[string]*uint64{"version": &q.Version, "than": &q.Than} {
		if text := form.Get(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				refuse(w, http.StatusBadRequest, "%s: %q, want the number of a version", name, text)
				return false
			}
			*to = n
		}
	}
	if r.Method != http.MethodPost {
		return true
	}
	var ok bool
	q.Data, ok = readPolicy(w, r)
	q.File = fileOf(r)
	return ok
}

// rollback puts a former version in force again: the one that the body names.
func rollback(w http.ResponseWriter, r *http.Request, version policyAt, put func(context.Context, PolicyChange) (PolicyResult, error), who string) {
	var body struct {
		To uint64 `json:"to"`
	}
	if !readJSON(w, r, &body) {
		return
	}
	c, err := changeOf(r, who)
	if err != nil {
		refusePolicy(w, err)
		return
	}
	text, err := version(r.Context(), body.To)
	if err == nil && body.To == 0 {
		err = fmt.Errorf("%w: 0", ErrNoPolicy)
	}
	if err != nil {
		refusePolicy(w, err)
		return
	}
	c.Data, c.File = text.Data, fmt.Sprintf("policy %d", body.To)
	putPolicy(w, r, version, put, c)
}

// maxPolicy is the size of the largest body that is read for a policy: one over what a
// policy may be, so that it says itself that it is too large.
const maxPolicy = 1<<20 + 1

func readPolicy(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	return readAll(w, r, "what is read as a policy", maxPolicy)
}

// FileHeader is in which a request may say how the policy in its body is called, escaped as
// in a path: messages about it use that.
const FileHeader = "Bellwire-File"

// fileOf returns it, empty for none and for what could be no name.
func fileOf(r *http.Request) string {
	const most = 255
	name, err := url.PathUnescape(r.Header.Get(FileHeader))
	if err != nil || len(name) > most || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return name
}

// changeOf returns what a request wants to be done with a policy. What it asks for that
// there is not is refused: misspelt, a question would be a change.
func changeOf(r *http.Request, who string) (c PolicyChange, err error) {
	c.By, c.File = who, fileOf(r)
	for name, values := range r.URL.Query() {
		value := values[0]
		switch name {
		case "dry_run":
			c.Dry, err = readYes(value)
		case "remove_users":
			c.RemoveUsers, err = readYes(value)
		case "shadow":
			if c.Shadow = value; value == "" {
				err = errors.New("for how long? write ?shadow=1h")
			}
		default:
			return c, fmt.Errorf("%w: %s", ErrBadQuestion, unknown(name, []string{"dry_run", "remove_users", "shadow"}))
		}
		if err != nil {
			return c, fmt.Errorf("%w: %.40q: %w", ErrBadQuestion, name, err)
		}
	}
	if c.Dry && c.Shadow != "" {
		return c, fmt.Errorf("%w: dry_run and shadow at once", ErrBadQuestion)
	}
	return c, nil
}

// readYes reads the value of a parameter that need have none.
func readYes(value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	return strconv.ParseBool(value)
}

// A policyAt returns the version of that number, or for 0 the one in force.
type policyAt func(ctx context.Context, number uint64) (PolicyText, error)

// putPolicy has a policy put in force if the conditions of the request hold. One entity tag
// is left to the log to compare, which orders changes; to it 0 would be any.
func putPolicy(w http.ResponseWriter, r *http.Request, version policyAt, put func(context.Context, PolicyChange) (PolicyResult, error), c PolicyChange) {
	tags := tagsOf(r, "If-Match")
	for _, tag := range tags {
		base, err := strconv.ParseUint(strings.Trim(tag, `"`), 10, 64)
		if err != nil && tag != "*" {
			refuse(w, http.StatusBadRequest, `If-Match: %s, want the entity tag of GET /v1/policy, such as "7"`, tag)
			return
		}
		c.Base = base
	}
	if len(tags) > 1 || len(tags) == 1 && c.Base == 0 || tagsOf(r, "If-None-Match") != nil {
		in, err := version(r.Context(), 0)
		if err != nil && !errors.Is(err, ErrNoPolicy) {
			refusePolicy(w, err)
			return
		}
		if _, match, none := conditions(r, err == nil, policyTag(in.Number)); !match || !none {
			refusePolicy(w, fmt.Errorf("%w: policy %d is in force, which If-Match or If-None-Match does not want", ErrNotInForce, in.Number))
			return
		}
		c.Base = in.Number
	}
	ctx, cancel := context.WithTimeout(r.Context(), managing)
	defer cancel()
	result, err := put(ctx, c)
	if err != nil {
		refusePolicy(w, err)
		return
	}
	w.Header().Set("ETag", policyTag(result.Number))
	writeJSON(w, http.StatusOK, result)
}

func policyTag(number uint64) string { return `"` + strconv.FormatUint(number, 10) + `"` }

func serveVersion(w http.ResponseWriter, r *http.Request, text PolicyText, err error) {
	if err != nil {
		refusePolicy(w, err)
		return
	}
	h, tag := w.Header(), policyTag(text.Number)
	h.Set("ETag", tag)
	h.Set("Cache-Control", "no-store")
	if _, _, none := conditions(r, true, tag); text.Number > 0 && !none {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/yaml")
	h.Set("Bellwire-Domain", text.Domain)
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text.Data) // the client is gone: nobody to tell
}

// refusePolicy says why there is no answer, or no change.
func refusePolicy(w http.ResponseWriter, err error) {
	faults, faulty := errors.AsType[*PolicyFaults](err)
	switch {
	case faulty:
		code := bw.PolicyFile
		if faults.Tests {
			code = bw.PolicyTests
		}
		refuseWith(w, problem{Status: http.StatusUnprocessableEntity, Detail: err.Error(), Code: code.String(), Faults: faults.Faults, Report: faults.Report})
	case errors.Is(err, ErrNotInForce):
		refuseAs(w, http.StatusPreconditionFailed, bw.PolicyMoved, "%v", err)
	case errors.Is(err, ErrRemoves):
		refuseWith(w, problem{
			Status: http.StatusConflict, Detail: err.Error(), Code: bw.NotConfirmed.String(),
			Todo: "if it is meant, say so: ?remove_users, --remove-users of the verb; if not, the file is cut off",
		})
	case errors.Is(err, ErrNotYours), errors.Is(err, ErrOwner):
		refuse(w, http.StatusForbidden, "%v", err)
	case errors.Is(err, ErrFull):
		refuse(w, http.StatusTooManyRequests, "%v", err)
	case errors.Is(err, ErrNobody):
		refuse(w, http.StatusNotFound, "%v", err)
	case errors.Is(err, ErrNoTenant):
		refuseWith(w, problem{
			Status: http.StatusNotFound, Detail: err.Error(), Code: bw.NoSuchPolicy.String(),
			Todo: "the operator says under tenants which domains have a policy of their own",
		})
	case errors.Is(err, ErrTooOften):
		w.Header().Set("Retry-After", "60")
		refuse(w, http.StatusTooManyRequests, "%v", err)
	case errors.Is(err, ErrNoShadow):
		refuseWith(w, problem{
			Status: http.StatusNotFound, Detail: err.Error(), Code: bw.NoSuchPolicy.String(), Todo: "PUT /v1/policy?shadow=1h tries one (bellwire acl apply FILE --shadow 1h)",
		})
	case errors.Is(err, ErrNoPolicy):
		refuseAs(w, http.StatusNotFound, bw.NoSuchPolicy, "%v", err)
	case errors.Is(err, ErrBadQuestion):
		refuseAs(w, http.StatusBadRequest, bw.Usage, "%s", strings.TrimPrefix(err.Error(), ErrBadQuestion.Error()+": "))
	default:
		refuseCluster(w, err)
	}
}
