package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/bw"
)

// Audits is where looks and changes of administrators are written down and read. Its
// methods may be called from many goroutines at once.
type Audits interface {
	// Write writes a look down, on all nodes. A look whose error is not nil must not be
	// answered. A look at what is one's own is not written.
	Write(ctx context.Context, l Look) error

	// Read returns what was written, the newest first.
	Read(ctx context.Context, q AuditQuery) (AuditPage, error)
}

// A Look is what an administrator has asked.
type Look struct {
	By     string // a principal, or local
	What   string
	About  string // an address, as it was asked about; *@domain; empty for none
	Result string
	Door   string // by which they have come, if it is not the one that By says
}

// An AuditQuery says what of the audit is wanted.
type AuditQuery struct {
	Domain string // whose; empty for the operator's
	About  string // only what concerns this principal and may be shown to them; empty for all
	Before uint64 // only what is older than the entry of that number; 0 for all
}

// An AuditPage is a part of it.
type AuditPage struct {
	Entries []any  `json:"entries"`
	Before  uint64 `json:"before,omitempty"` // to ask for the next page with; 0 if this is the last
	Lost    uint64 `json:"lost"`             // entries that have gone, for the newest ones to have room
}

// ErrNotAudited means that a look could not be written down.
var ErrNotAudited = errors.New("what you look at is written down, and cannot be for now")

// audited writes a look down, and says whether it may be answered; if not, it has been
// refused.
func (o *Operators) audited(w http.ResponseWriter, r *http.Request, l Look) bool {
	if o.Audits == nil {
		return true
	}
	if c, ok := callerOf(r); ok {
		l.Door = c.door
	}
	ctx, cancel := context.WithTimeout(r.Context(), managing)
	defer cancel()
	if err := o.Audits.Write(ctx, l); err != nil {
		unavailable(w, errors.Join(ErrNotAudited, err))
		return false
	}
	return true
}

// resultOf is what the audit says of an answer.
func resultOf(err error) string {
	if err != nil {
		return err.Error()
	}
	return "told"
}

// registerAudit adds /v1/audit: operators ask for any domain's, and their own without one;
// administrators for that of their domains; everybody for what concerns them.
func registerAudit(mux *routes, a Audits, o *Operators) {
	mux.HandleFunc("GET /v1/audit", o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
		var q AuditQuery
		var before string
		if !readQuery(w, r.URL.Query(), map[string]*string{"domain": &q.Domain, "about": &q.About, "before": &before}) {
			return
		}
		q.Domain = strings.ToLower(q.Domain)
		_, own, _ := strings.Cut(who, "@")
		switch {
		case operator:
		case q.Domain == "" || q.Domain == own && q.About == who:
			q.Domain, q.About = own, who
		case !slices.Contains(o.domains(who), q.Domain):
			refuse(w, http.StatusForbidden, "%s is neither an operator nor an administrator of that domain", who)
			return
		}
		if before != "" {
			var err error
			if q.Before, err = strconv.ParseUint(before, 10, 64); err != nil {
				refuseAs(w, http.StatusBadRequest, bw.Usage, "before: %.40q, want the number of an entry", before)
				return
			}
		}
		page, err := a.Read(r.Context(), q)
		answerPolicy(w, page, err)
	}))
}
