package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Lives of certificates, and how far they are backdated for machines whose
// clocks lag behind that of the machine where they are made.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	NodeLife      = 365 * 24 * time.Hour

	backdated = time.Hour
)

// ErrOutlives means that a certificate would be valid longer than the authority
// that issues it.
var ErrOutlives = errors.New("it would outlive its authority")

// An Authority issues the certificates of one cluster's nodes.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Pair is a certificate and its key, both in PEM.
type Pair struct {
	Cert, Key []byte
	Expires   time.Time
}

// NewAuthority makes an authority that is valid from now on for life; 0 means
// AuthorityLife. Its name holds a random number, so that people can tell
// authorities apart in messages.
func NewAuthority(now time.Time, life time.Duration) (*Authority, error) {
	if life == 0 {
		life = AuthorityLife
	}
	var number [4]byte
	_, _ = rand.Read(number[:]) // it ends the process rather than fail
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: make a key: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "bellwire cluster CA " + hex.EncodeToString(number[:])},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	cert, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

// Name says which authority it is, to people.
func (a *Authority) Name() string { return a.cert.Subject.CommonName }

// Expires returns when the authority, and with it all that it issued, ends.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// Pair returns the authority's certificate and key.
func (a *Authority) Pair() (Pair, error) { return pairOf(a.cert, a.key) }

// Issue makes the certificate of the node called name, which must be a NodeName,
// valid from now on for life: 0 means NodeLife, or as long as the authority if
// that is less. hosts are further names and addresses of its machine, for other
// programs; they may be empty. An error may be ErrOutlives.
func (a *Authority) Issue(name string, hosts []string, now time.Time, life time.Duration) (Pair, error) {
	if err := CheckName(name); err != nil {
		return Pair{}, fmt.Errorf("certs: %w", err)
	}
	expires := now.Add(life)
	if life == 0 {
		expires = now.Add(NodeLife)
		if expires.After(a.cert.NotAfter) {
			expires = a.cert.NotAfter
		}
	}
	if expires.After(a.cert.NotAfter) || !now.Before(a.cert.NotAfter) {
		return Pair{}, fmt.Errorf("certs: %w, which ends %s", ErrOutlives, day(a.cert.NotAfter))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("certs: make a key: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdated), NotAfter: expires,
		KeyUsage: x509.KeyUsageDigitalSignature,
		// A node is dialled by its peers and dials them.
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{nodeURI(name)},
		DNSNames:              []string{name},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if h != name {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert, err := sign(template, a.cert, key, a.key)
	if err != nil {
		return Pair{}, err
	}
	return pairOf(cert, key)
}

// sign makes the certificate that template describes for key, issued by parent.
func sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return nil, fmt.Errorf("certs: make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// nodePrefix and a node's name are the URI that names it in its certificate.
const nodePrefix = "node:"

func nodeURI(name string) *url.URL { return &url.URL{Scheme: "bellwire", Opaque: nodePrefix + name} }

// maxName bounds a node's name, in bytes: it is a label of a host name, too.
const maxName = 63

// CheckName says what is wrong with the name of a node in a cluster. Names stand
// in certificates, in addresses of HTTP and in metrics: letters, digits, dot,
// hyphen and underscore, at most 63, a letter or digit first.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("a node's name has 1 to %d characters, %q has %d", maxName, name, len(name))
	}
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && strings.IndexByte(".-_", c) >= 0:
		default:
			return fmt.Errorf("a node's name is made of letters, digits, '.', '-' and '_', and begins with a letter or digit: %q is none", name)
		}
	}
	return nil
}

// nameIn returns the node that a certificate is for.
func nameIn(cert *x509.Certificate) (string, error) {
	name := ""
	for _, u := range cert.URIs {
		n, ok := strings.CutPrefix(u.Opaque, nodePrefix)
		if u.Scheme != "bellwire" || !ok {
			continue
		}
		if name != "" {
			return "", fmt.Errorf("it names two nodes, %s and %s", name, n)
		}
		if err := CheckName(n); err != nil {
			return "", err
		}
		name = n
	}
	if name == "" {
		return "", fmt.Errorf("it names no node: a URI bellwire:node:NAME is missing")
	}
	return name, nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
