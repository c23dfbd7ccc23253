package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Why two nodes do not talk to each other, for errors.Is.
var (
	ErrExpired       = errors.New("its certificate has expired")
	ErrNotYet        = errors.New("its certificate is not valid yet")
	ErrForeign       = errors.New("its certificate is of an authority that this node does not trust")
	ErrPurpose       = errors.New("its certificate is not for nodes")
	ErrNoName        = errors.New("its certificate does not say which node it is for")
	ErrNoCertificate = errors.New("it shows no certificate")
	ErrOtherNode     = errors.New("it is another node")
	ErrNotTLS        = errors.New("it does not speak TLS")
	ErrOldTLS        = errors.New("it speaks an older TLS than 1.3, or another protocol")

	// ErrRefusesUs means that the other side does not trust this node: the
	// fault is in this node's certificate, or in what the other trusts.
	ErrRefusesUs = errors.New("it refuses this node's certificate")
)

// advice is what to do about each of them.
var advice = map[error]string{
	ErrExpired:       "make it a new one with bellwire cert node --force; a running node reads it by itself",
	ErrNotYet:        "check the clocks of both machines",
	ErrForeign:       "see which of the two is the cluster's authority, and give the other node a certificate of that (bellwire cert node --ca, with --force in place of the old one), or do not point nodes of two clusters at each other",
	ErrPurpose:       "make one with bellwire cert node: it must be for servers and for clients",
	ErrNoName:        "make one with bellwire cert node",
	ErrNoCertificate: "is it a node? nodes show one of bellwire cert node",
	ErrOtherNode:     "check the addresses of the nodes, and that no two have one name",
	ErrNotTLS:        "is it the cluster's port? see --cluster of that node",
	ErrOldTLS:        "is it the cluster's port? see --cluster of that node",
	ErrRefusesUs:     "its log says why: look there, then at bellwire cert node",
}

// A PeerError is why a peer's certificate is not good enough, or why the peer
// says that of ours.
type PeerError struct {
	kind  error
	cert  *x509.Certificate // nil: none was shown
	cause error             // may be nil
	trust string            // the authorities of this side, where that matters; may be empty
}

// Error says who, why, and what to do.
func (e *PeerError) Error() string {
	text := e.kind.Error()
	if e.cert != nil {
		text += fmt.Sprintf(" (%s, issued by %s, valid %s to %s)", subject(e.cert), issuer(e.cert), day(e.cert.NotBefore), day(e.cert.NotAfter))
	}
	if e.trust != "" {
		text += "; this node trusts " + e.trust
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text + "; " + advice[e.kind]
}

// Is reports whether target is what happened.
func (e *PeerError) Is(target error) bool { return target == e.kind }

// Unwrap returns the error of crypto/tls or crypto/x509, if there was one.
func (e *PeerError) Unwrap() error { return e.cause }

// subject names whose certificate it is.
func subject(c *x509.Certificate) string {
	if name, err := nameIn(c); err == nil {
		return "node " + name
	}
	return fmt.Sprintf("%q", c.Subject.CommonName)
}

// issuer names the authority that issued a certificate, with the fingerprint of its
// key, which both that certificate and the authority's own hold.
func issuer(c *x509.Certificate) string { return named(c.Issuer.CommonName, c.AuthorityKeyId) }

func named(name string, key []byte) string {
	if len(key) == 0 {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("%q, key %x", name, key)
}

// trusted names authorities as issuer does.
func trusted(all []*x509.Certificate) string {
	var names []string
	for _, a := range all {
		names = append(names, named(a.Subject.CommonName, a.SubjectKeyId))
	}
	return strings.Join(names, "; ")
}

// Explain makes a *PeerError of what a TLS handshake, or the first read after it,
// failed with, where it was the certificates. Any other error is returned as it
// is.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*PeerError](err); done {
		return err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return explainAlert(err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &PeerError{kind: ErrNotTLS, cause: err}
	}
	return explain(err)
}

// explain is Explain for what this side found.
func explain(err error) error {
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch bad.Reason {
		case x509.Expired: // or not valid yet: the library does not tell them apart
			kind := ErrExpired
			if strings.Contains(bad.Detail, " is before ") {
				kind = ErrNotYet
			}
			return &PeerError{kind: kind, cert: bad.Cert}
		case x509.IncompatibleUsage:
			return &PeerError{kind: ErrPurpose, cert: bad.Cert}
		}
		return &PeerError{kind: ErrForeign, cert: bad.Cert, cause: err}
	}
	if foreign, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &PeerError{kind: ErrForeign, cert: foreign.Cert}
	}
	return explainText(err)
}

// explainText is for errors of crypto/tls that have nothing but a text. A test
// fails when the library words them anew.
func explainText(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "client didn't provide a certificate"):
		return &PeerError{kind: ErrNoCertificate}
	case strings.Contains(text, "client offered only unsupported versions"),
		strings.Contains(text, "client requested unsupported application protocols"):
		return &PeerError{kind: ErrOldTLS, cause: err}
	}
	return err
}

// explainAlert is Explain for what the other side found, and said by an alert
// (RFC 8446 section 6.2). The library has a type for them that is its own.
func explainAlert(err error) error {
	text := err.Error()
	if strings.Contains(text, "certificate") {
		return &PeerError{kind: ErrRefusesUs, cause: err}
	}
	if strings.Contains(text, "protocol version") || strings.Contains(text, "application protocol") {
		return &PeerError{kind: ErrOldTLS, cause: err}
	}
	return err
}
