package api

import (
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/bellwire/bellwire/bw"
)

// Operators says who may act on a node and on its cluster: change who is in it,
// have a node drained, take a backup. Its functions may be called from many
// goroutines at once.
//
// An operator shows a user name and password, and is of the policy's group of
// operators; or is on the node's machine and could read the node's data directory
// anyway. The second is for requests without credentials, that came straight from
// a program here: not through a proxy, and not from a page in somebody's browser.
type Operators struct {
	// Identify is as in Resources.
	Identify func(user, password, from string) (principal string, err error)

	// Includes says whether principal is an operator.
	Includes func(principal string) bool

	// Administers returns the domains of which principal may see what concerns them,
	// without being an operator; nil: of none, whoever it is.
	Administers func(principal string) []string

	// Audits is where looks of theirs are written down; nil: nowhere.
	Audits Audits

	// Local says whether the other end of a connection, at from, to to here, is a
	// process of this machine that runs as root or as this one does. nil: nobody
	// is known to.
	Local func(from, to netip.AddrPort) bool
}

// only lets operators through. who is told to next: a principal, or "local".
func (o *Operators) only(next func(w http.ResponseWriter, r *http.Request, who string)) http.HandlerFunc {
	return o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
		if !operator {
			refuse(w, http.StatusForbidden, "%s is no operator: the policy's group operators does not list it", who)
			return
		}
		next(w, r, who)
	})
}

// known lets through whoever says who they are, and tells next whether they are an
// operator.
func (o *Operators) known(next func(w http.ResponseWriter, r *http.Request, who string, operator bool)) http.HandlerFunc {
	cross := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		if c, ok := callerOf(r); ok {
			next(w, r, c.principal, o.Includes(c.principal))
			return
		}
		// Browsers send credentials that they have along with what any page asks for.
		if err := cross.Check(r); err != nil {
			refuse(w, http.StatusForbidden, "a web page of another origin may not ask for this")
			return
		}
		user, password, given := credentials(r)
		if !given {
			if r.Header.Get("Authorization") != "" || !o.isLocal(r) {
				challenge(w, "say who you are: user name and password of an operator, one of the policy's group operators; "+
					"none are needed on the node's machine, as root or as the user that the node runs as")
				return
			}
			next(w, r, "local", true)
			return
		}
		principal, err := o.Identify(user, password, r.RemoteAddr)
		if err != nil {
			refuseSignIn(w, err)
			return
		}
		next(w, r, principal, o.Includes(principal))
	}
}

// anybody lets everybody through but those whose credentials are not good: what is
// told to whoever asks would otherwise seem to be told because of a password that
// was mistyped, to somebody who is about to change something by it.
func (o *Operators) anybody(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, password, given := credentials(r)
		switch {
		case given:
			if _, err := o.Identify(user, password, r.RemoteAddr); err != nil {
				refuseSignIn(w, err)
				return
			}
		case r.Header.Get("Authorization") != "":
			challenge(w, "this takes a user name and password (Basic), a signed token (Bearer), or none")
			return
		}
		next(w, r)
	}
}

// domains returns what who, as known tells it, is an administrator of.
func (o *Operators) domains(who string) []string {
	if o.Administers == nil {
		return nil
	}
	return o.Administers(who)
}

// isLocal says whether who asks needs no credentials.
func (o *Operators) isLocal(r *http.Request) bool {
	for _, header := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Get(header) != "" {
			return false // whoever asked, it was not the proxy
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" || r.Header.Get("Origin") != "" {
		return false // a page that a browser here shows; a look of one, too, is audited, and takes a backup
	}
	if !isLoopbackHost(r.Host) {
		return false // a name that somebody's name server made point here
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if err != nil || !ok || o.Local == nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	to, err := netip.ParseAddrPort(local.String())
	return err == nil && o.Local(from, to)
}

// isLoopbackHost says whether the Host header names this machine.
func isLoopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ErrBanned is an error of Identify: the credentials are good, and whose they are is banned.
var ErrBanned = errors.New("you are banned")

// refuseSignIn answers to credentials that were not accepted.
func refuseSignIn(w http.ResponseWriter, err error) {
	many, tooMany := errors.AsType[*TooMany](err)
	switch {
	case tooMany:
		retryAfter(w, many.RetryAfter)
		refuse(w, http.StatusTooManyRequests, "%v", err)
	case errors.Is(err, ErrUnavailable):
		unavailable(w, err)
	case errors.Is(err, ErrBanned):
		refuse(w, http.StatusForbidden, "%v", err)
	default:
		challengeAs(w, problem{Code: bw.BadCredentials.String(), Detail: "bad user name or password"})
	}
}

// unavailable answers that nobody can tell for now.
func unavailable(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, "%v", err)
}
