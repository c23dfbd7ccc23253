package acl

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/yamltree"
)

// An Issuer is an entry of `issuers`: somebody whose signed tokens (JWT, RFC 7519) prove
// principals. Each node fetches the issuer's keys for itself; nothing of it is asked when
// commands are applied.
type Issuer struct {
	Name       string   // the claim iss, exactly
	Audience   []string // one of which the claim aud must have
	Keys       string   // where its key set (JWKS, RFC 7517) is: a URL, or the path of a file on each node
	Algorithms []string // by which its tokens are signed
	Claim      string   // that names the principal
	Domains    []string // of the principals that it proves, sorted
	Except     []string // principals that it does not prove, sorted
	Leeway     time.Duration

	line int
}

// Bounds on issuers.
const (
	MaxIssuers    = 16
	maxIssuerList = 100
	maxLeeway     = 5 * time.Minute
)

// Algorithms are those by which tokens may be signed (RFC 7518, RFC 8037), each by a key
// pair: with a shared secret (HS256 and the like) every node could make tokens, and whoever
// takes a public key for the secret could, too.
var Algorithms = []string{"EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

// defaultAlgorithms are those of an issuer that names none.
var defaultAlgorithms = []string{"EdDSA", "ES256", "RS256"}

// Issuers returns the policy's issuers. They must not be changed.
func (p *Policy) Issuers() []Issuer { return p.issuers }

// readIssuer reads an entry of `issuers`.
func (r *reader) readIssuer(n *yamltree.Node) {
	f, ok := r.Table(n, "an issuer", "issuer", "audience", "keys", "algorithms", "principal", "domains", "except", "leeway")
	if !ok {
		return
	}
	i := Issuer{line: n.Pos.Line, Algorithms: defaultAlgorithms, Claim: "sub", Leeway: 30 * time.Second}
	required := func(key, hint string) string {
		if f[key] == nil {
			r.FailAt(n.Pos, problemf("an issuer without %s", key).Hint("%s", hint))
			return ""
		}
		text, ok := r.Text(f[key], key)
		if ok && text == "" {
			r.FailAt(f[key].Pos, problemf("%s is empty", key).Hint("%s", hint))
		}
		return text
	}
	i.Name = required("issuer", `add issuer: "https://login.example.com", the claim iss of its tokens`)
	if i.Keys = required("keys", "add keys: the https URL of its key set (JWKS), or the path of a file that has it"); i.Keys != "" {
		if err := checkKeys(i.Keys); err != nil {
			r.Report(f["keys"], err)
		}
	}
	if f["audience"] == nil {
		r.FailAt(n.Pos, problemf("an issuer without audience").Hint("add audience: [bellwire], what its tokens for this service have as aud; without it tokens for any service would do here"))
	}
	i.Audience = r.readList(f["audience"], "audience", func(s string) (string, error) { return s, nil })
	if f["algorithms"] != nil {
		i.Algorithms = r.readList(f["algorithms"], "algorithms", parseAlgorithm)
	}
	if f["principal"] != nil {
		i.Claim = required("principal", "name the claim that names the principal, such as sub or email")
	}
	i.Domains = r.readList(f["domains"], "domains", ParseDomain)
	if f["domains"] == nil {
		if r.policy.domain == "" {
			r.FailAt(n.Pos, problemf("an issuer without domains, and there is no domain of bare names").Hint("add domains: [example.com], those of the principals that it may prove"))
		}
		i.Domains = []string{r.policy.domain}
	}
	i.Except = r.readList(f["except"], "except", r.address)
	if f["leeway"] != nil {
		text, ok := r.Text(f["leeway"], "leeway")
		d, err := time.ParseDuration(text)
		if ok && (err != nil || d < 0 || d > maxLeeway) {
			r.FailAt(f["leeway"].Pos, problemf("leeway: %q, want 0s to %s", shown(text), maxLeeway).Hint("it is how far the issuer's clock and this one may be apart: leeway: 30s"))
		}
		i.Leeway = d
	}
	if slices.ContainsFunc(r.policy.issuers, func(o Issuer) bool { return o.Name == i.Name }) && i.Name != "" {
		r.FailAt(n.Pos, problemf("a second issuer %q", shown(i.Name)).Hint("list all its audiences and domains in one entry"))
	}
	r.policy.issuers = append(r.policy.issuers, i)
}

// readList reads values, each of which parse brings into its one form.
func (r *reader) readList(n *yamltree.Node, what string, parse func(string) (string, error)) (list []string) {
	if n == nil {
		return nil
	}
	for _, v := range r.Values(n, what) {
		text, err := parse(v.Text)
		switch {
		case err != nil:
			r.Report(v, err)
		case text == "":
			r.FailAt(v.Pos, problemf("%s has an empty value", what).Hint("remove it"))
		default:
			list = append(list, text)
		}
	}
	if len(list) > maxIssuerList {
		r.Fail(n, "more than %d values of %s", maxIssuerList, what)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func parseAlgorithm(s string) (string, error) {
	switch {
	case slices.Contains(Algorithms, s):
		return s, nil
	case strings.EqualFold(s, "none"):
		return "", problemf("none is no signature").Hint("choose of %s", strings.Join(Algorithms, ", "))
	case strings.HasPrefix(s, "HS"):
		return "", problemf("%s signs with a shared secret, which is not supported: whoever checks a token could make one", shown(s)).
			Hint("have the issuer sign by a key pair: %s", strings.Join(Algorithms, ", "))
	}
	return "", problemf("%q is no algorithm to sign tokens by", shown(s)).Hint("choose of %s", strings.Join(Algorithms, ", "))
}

// checkKeys says what is wrong with where keys are. What comes without TLS from another
// machine could be anybody's.
func checkKeys(s string) error {
	if strings.HasPrefix(s, "/") {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return problemf("%q is neither a URL nor the path of a file", shown(s)).Hint("write https://login.example.com/jwks.json, or /etc/bellwire/jwks.json for a file on each node")
	}
	ip := net.ParseIP(u.Hostname())
	switch {
	case u.Scheme == "https", u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()):
		return nil
	}
	return problemf("keys from %s could be anybody's", shown(s)).Hint("use https; http is for this machine itself only")
}

// Proves says whether the issuer's tokens may prove principal, a canonical address.
func (i *Issuer) Proves(principal string) bool {
	_, domain, ok := strings.Cut(principal, "@")
	return ok && slices.Contains(i.Domains, domain) && !slices.Contains(i.Except, principal)
}

// credential is what principal has to prove who is none of the users: a token of any
// issuer that may prove it; empty for none. What an issuer may not prove of others is no
// part of it.
func (p *Policy) issued(principal string) string {
	h := sha256.New()
	some := false
	for _, i := range p.issuers {
		if i.Proves(principal) {
			some = true
			fmt.Fprintf(h, "%q %q %q %q %q\n", i.Name, i.Audience, i.Keys, i.Algorithms, i.Claim)
		}
	}
	if !some {
		return ""
	}
	return string(h.Sum(nil))
}

func (i *Issuer) describe() string {
	text := fmt.Sprintf("audience %s; keys %s; algorithms %s; principal %s; domains %s", strings.Join(i.Audience, ","), i.Keys,
		strings.Join(i.Algorithms, ","), i.Claim, strings.Join(i.Domains, ","))
	if len(i.Except) > 0 {
		text += "; except " + strings.Join(i.Except, ",")
	}
	return text + "; leeway " + i.Leeway.String()
}
