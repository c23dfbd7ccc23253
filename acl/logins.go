package acl

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/yamltree"
)

// Ways to sign in, as `logins` names them.
const (
	ByPassword    = "password"    // a user's password
	ByToken       = "token"       // a user's token
	BySigned      = "jwt"         // an issuer's signed token
	ByScram       = "scram"       // a proof by SCRAM-SHA-256
	ByCertificate = "certificate" // a client certificate that TLS has verified
)

// Ways are all of them.
var Ways = []string{ByPassword, ByToken, BySigned, ByScram, ByCertificate}

// Names are where a client certificate may name its principal, in the order in which they
// are looked at by default: a URI pres:ana@example.com or im:…, an email address, a DNS name
// whose first label is the local part, the common name.
var Names = []string{"uri", "email", "dns", "cn"}

// A Login says how clients of some listeners may sign in: an entry of `logins`.
type Login struct {
	Listeners []string // by name; "*" for all. http is that of the API
	By        []string // ways to sign in
	Names     []string // where certificates name principals, in this order
	Domains   []string // of the principals that certificates may name
	BindID    bool     // the client id has to be the certificate's principal or its local part

	line int
}

// anyLogin is how clients sign in at listeners that no entry names: by whatever they know.
// A certificate proves nobody unless an entry says so.
var anyLogin = Login{By: []string{ByPassword, ByToken, BySigned, ByScram}}

// MaxLogins bounds the entries of `logins`.
const MaxLogins = 64

// LoginAt returns how clients of a listener may sign in: as the first entry says that
// names it. It must not be changed.
func (p *Policy) LoginAt(listener string) *Login {
	for i := range p.logins {
		if l := &p.logins[i]; slices.Contains(l.Listeners, listener) || slices.Contains(l.Listeners, "*") {
			return l
		}
	}
	return &anyLogin
}

// SignsIn says whether anybody can sign in: by a password or token of the policy, by what an
// issuer signs, or by a certificate.
func (p *Policy) SignsIn() bool {
	return len(p.users)+len(p.issuers) > 0 ||
		slices.ContainsFunc(p.logins, func(l Login) bool { return l.Allows(ByCertificate) })
}

// HasLogins says whether there are any entries.
func (p *Policy) HasLogins() bool { return len(p.logins) > 0 }

// Allows says whether clients may sign in that way.
func (l *Login) Allows(way string) bool { return slices.Contains(l.By, way) }

// ProvedBy returns the way by which Authenticate lets principal in.
func (p *Policy) ProvedBy(principal string) (way string) {
	if p.users[principal].hasToken {
		return ByToken
	}
	return ByPassword
}

// readLogin reads an entry of `logins`.
func (r *reader) readLogin(n *yamltree.Node) {
	f, ok := r.Table(n, "a login", "listeners", "by", "names", "domains", "bind_client_id")
	if !ok {
		return
	}
	l := Login{line: n.Pos.Line, Names: Names, Domains: []string{r.policy.domain}}
	oneOf := func(what string, all []string) func(string) (string, error) {
		return func(s string) (string, error) {
			if !slices.Contains(all, s) {
				return "", problemf("%q is no %s", shown(s), what).Hint("choose of %s", strings.Join(all, ", "))
			}
			return s, nil
		}
	}
	if f["listeners"] == nil || f["by"] == nil {
		r.FailAt(n.Pos, problemf("a login without listeners, or without by").Hint(`write {listeners: [mqtt], by: [password, token]}; "*" is all listeners`))
	}
	l.Listeners = r.readList(f["listeners"], "listeners", func(s string) (string, error) { return s, nil })
	l.By = r.readList(f["by"], "by", oneOf("way to sign in", Ways))
	if f["names"] != nil {
		l.Names = nil
		for _, v := range r.Values(f["names"], "names") { // in the order of the file
			if text, err := oneOf("name of a certificate", Names)(v.Text); err != nil {
				r.Report(v, err)
			} else {
				l.Names = append(l.Names, text)
			}
		}
	}
	if f["domains"] != nil {
		l.Domains = r.readList(f["domains"], "domains", ParseDomain)
	} else if r.policy.domain == "" && l.Allows(ByCertificate) {
		r.FailAt(n.Pos, problemf("certificates without domains, and there is no domain of bare names").Hint("add domains: [example.com], those of the principals that certificates may name"))
	}
	if v := f["bind_client_id"]; v != nil {
		text, ok := r.Text(v, "bind_client_id")
		if ok && text != "true" && text != "false" {
			r.FailAt(v.Pos, problemf("bind_client_id: %q is neither true nor false", shown(text)).Hint("write true, or leave it out"))
		}
		l.BindID = text == "true"
	}
	r.policy.logins = append(r.policy.logins, l)
}

func (l *Login) describe() string {
	text := "by " + strings.Join(l.By, ",")
	if l.Allows(ByCertificate) {
		text += "; names " + strings.Join(l.Names, ",") + "; domains " + strings.Join(l.Domains, ",")
	}
	if l.BindID {
		text += "; bind_client_id"
	}
	return text
}
