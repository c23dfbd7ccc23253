package authn

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Revoked are lists of revoked client certificates (RFC 5280, 5) as an operator gives them
// beside the authorities that a listener trusts: what each authority has taken back, and
// until when that can be relied on. They never change; the next ones take their place.
//
// The lists of an issuer, by its name, hold together: an authority may divide its list, or
// have one for each of its keys. A certificate of a client has to be of an issuer who has
// one, or nobody could know that it was taken back (OpenSSL asks for the same); what is
// above it is looked for where there is a list.
type Revoked struct {
	of   map[string]*issuersLists // by the issuer's name in DER
	late bool                     // lists count after their time
	next time.Time                // see NextUpdate
}

// issuersLists are the lists of one issuer.
type issuersLists struct {
	name    string
	revoked map[serial]struct{}
	ends    time.Time // after that one of them is stale; zero for never
}

// A serial is a certificate's number, of 20 bytes at most (RFC 5280, 4.1.2.2).
type serial [20]byte

// Bounds on lists. Reading one takes up to twenty times its size in memory for as long as it
// takes, and a fourth of it from then on.
const (
	MaxRevokedFile  = 4 << 20 // bytes
	MaxRevokedLists = 64      // of a listener
	earlyList       = 5 * time.Minute
)

// A RevokedFile is a file with lists: one in DER, or any number in PEM.
type RevokedFile struct {
	Name string
	Data []byte
}

// ReadRevoked reads lists, each of which one of the authorities has to have signed. With late
// they count after the time at which there should be newer ones; without it nothing of their
// issuers is good then. What is wrong with any of them makes all of them useless: the error
// says with which file.
func ReadRevoked(files []RevokedFile, authorities []*x509.Certificate, late bool, now time.Time) (*Revoked, error) {
	r := &Revoked{of: map[string]*issuersLists{}, late: late}
	n := 0
	for _, f := range files {
		lists, err := f.lists()
		for _, data := range lists {
			if n++; n > MaxRevokedLists {
				return nil, fmt.Errorf("%s: more than %d lists of revoked certificates", f.Name, MaxRevokedLists)
			}
			if err == nil {
				err = r.add(data, authorities, now)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return r, nil
}

// pemList is the type of a list in PEM.
const pemList = "X509 CRL"

// lists returns the lists of a file, in DER. A block that cannot be read would be a list
// that is lost.
func (f *RevokedFile) lists() (all [][]byte, err error) {
	if len(f.Data) > MaxRevokedFile {
		return nil, fmt.Errorf("larger than %d bytes: divide the list, or give those of fewer authorities", MaxRevokedFile)
	}
	blocks := bytes.Count(f.Data, []byte("-----BEGIN"))
	if blocks == 0 {
		if len(f.Data) == 0 || f.Data[0] != 0x30 {
			return nil, errors.New("no list of revoked certificates (CRL), neither in PEM nor in DER")
		}
		return [][]byte{f.Data}, nil
	}
	for rest := f.Data; ; blocks-- {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != pemList {
			return nil, fmt.Errorf("it holds a block %q: only lists of revoked certificates (%s) belong here", b.Type, pemList)
		}
		all = append(all, b.Bytes)
	}
	if blocks != 0 {
		return nil, errors.New("a PEM block in it is cut off or damaged")
	}
	return all, nil
}

// add reads one list.
func (r *Revoked) add(data []byte, authorities []*x509.Certificate, now time.Time) error {
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return fmt.Errorf("no list of revoked certificates: %w", err)
	}
	issuer := list.Issuer.String()
	if rest, err := asn1.Unmarshal(data, &asn1.RawValue{}); err != nil || len(rest) > 0 {
		return fmt.Errorf("there is something behind the list of %q", issuer)
	}
	if err := checkScope(list); err != nil {
		return fmt.Errorf("the list of %q %w", issuer, err)
	}
	if err := checkIssuer(list, authorities); err != nil {
		return fmt.Errorf("the list of %q %w", issuer, err)
	}
	if list.ThisUpdate.After(now.Add(earlyList)) {
		return fmt.Errorf("the list of %q begins at %s only: look at the clocks", issuer, list.ThisUpdate.Format(time.RFC3339))
	}
	of := r.of[string(list.RawIssuer)]
	if of == nil {
		of = &issuersLists{name: issuer, revoked: make(map[serial]struct{}, len(list.RevokedCertificateEntries))}
		r.of[string(list.RawIssuer)] = of
	}
	for i := range list.RevokedCertificateEntries {
		e := &list.RevokedCertificateEntries[i]
		if id, ok := critical(e.Extensions); ok {
			return fmt.Errorf("the list of %q has an entry with the critical extension %s, which is not known here", issuer, id)
		}
		n, ok := serialOf(e.SerialNumber)
		if !ok {
			return fmt.Errorf("the list of %q has a serial number that no certificate can have", issuer)
		}
		of.revoked[n] = struct{}{}
	}
	of.ends = sooner(of.ends, list.NextUpdate)
	r.next = sooner(r.next, list.NextUpdate)
	return nil
}

// sooner returns the earlier of two instants; zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func serialOf(n *big.Int) (s serial, ok bool) {
	if n.Sign() < 0 || n.BitLen() > 8*len(s) {
		return s, false
	}
	n.FillBytes(s[:])
	return s, true
}

// Extensions of lists that we know (RFC 5280, 5.2).
var (
	oidDelta    = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidPart     = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidNumber   = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidReason   = asn1.ObjectIdentifier{2, 5, 29, 21}
	knownOfList = []asn1.ObjectIdentifier{oidDelta, oidPart, oidNumber, oidKeyID, oidReason}
)

// critical returns an extension that whoever does not know it may not ignore.
func critical(all []pkix.Extension) (id string, ok bool) {
next:
	for _, e := range all {
		for _, known := range knownOfList {
			if e.Id.Equal(known) {
				continue next
			}
		}
		if e.Critical {
			return e.Id.String(), true
		}
	}
	return "", false
}

// checkScope says what is wrong with a list that is not of all that its issuer has taken back,
// or a part of these by where they say that their list is.
func checkScope(list *x509.RevocationList) error {
	if id, ok := critical(list.Extensions); ok {
		return fmt.Errorf("has the critical extension %s, which is not known here", id)
	}
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return errors.New("is a delta, of what has changed only: give the complete one")
		case e.Id.Equal(oidPart):
			if err := checkPart(e.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPart looks at an issuing distribution point (RFC 5280, 5.2.5): of its fields the first
// two leave nothing out of what clients show.
func checkPart(value []byte) error {
	var part, field asn1.RawValue
	if _, err := asn1.Unmarshal(value, &part); err != nil || part.Tag != asn1.TagSequence {
		return errors.New("has a malformed issuing distribution point")
	}
	for rest := part.Bytes; len(rest) > 0; {
		var err error
		if rest, err = asn1.Unmarshal(rest, &field); err != nil || field.Class != asn1.ClassContextSpecific {
			return errors.New("has a malformed issuing distribution point")
		}
		switch field.Tag {
		case 0, 1:
		case 4:
			return errors.New("is an indirect one, of several issuers: give one of each")
		default:
			return errors.New("leaves out certificates of clients, or reasons: give the complete one")
		}
	}
	return nil
}

// checkIssuer says what is wrong with a list that none of the authorities has signed.
func checkIssuer(list *x509.RevocationList, authorities []*x509.Certificate) error {
	var wrong error
	for _, a := range authorities {
		if !bytes.Equal(a.RawSubject, list.RawIssuer) {
			continue
		}
		err := list.CheckSignatureFrom(a)
		if err == nil {
			return nil
		}
		wrong = err
	}
	if wrong != nil {
		return fmt.Errorf("is not signed by it: %w", wrong)
	}
	return errors.New("is of none of the client authorities: add its issuer's certificate to these, or leave the list out")
}

// NextUpdate is when the first of the lists gets stale; zero for never.
func (r *Revoked) NextUpdate() time.Time { return r.next }

// Stale returns the names of issuers who have a list whose time is over.
func (r *Revoked) Stale(now time.Time) (issuers []string) {
	for _, of := range r.of {
		if of.stale(now) {
			issuers = append(issuers, of.name)
		}
	}
	return issuers
}

func (of *issuersLists) stale(now time.Time) bool { return !of.ends.IsZero() && now.After(of.ends) }

// Len is how many certificates the lists name.
func (r *Revoked) Len() (n int) {
	for _, of := range r.of {
		n += len(of.revoked)
	}
	return n
}

// Find returns why a client's certificate is not good that TLS has verified by these chains:
// it, or one above it, is revoked. The error is a *Refusal, nil if none is.
func (r *Revoked) Find(chains [][]*x509.Certificate) error {
	for _, chain := range chains {
		for _, cert := range chain {
			of := r.of[string(cert.RawIssuer)]
			if of == nil {
				continue
			}
			n, ok := serialOf(cert.SerialNumber)
			if _, is := of.revoked[n]; ok && is {
				return refuse("certificate_revoked", "%.200q, serial number %s, by %.200q", cert.Subject, hex.EncodeToString(cert.SerialNumber.Bytes()), of.name)
			}
		}
	}
	return nil
}

// Check is Find, and returns a *Refusal, too, if it cannot be known that it is good.
func (r *Revoked) Check(chains [][]*x509.Certificate, now time.Time) error {
	if err := r.Find(chains); err != nil {
		return err
	}
	for _, chain := range chains {
		for i, cert := range chain {
			of := r.of[string(cert.RawIssuer)]
			switch {
			case of == nil && i == 0:
				return refuse("crl_missing", "there is no list of certificates that %.200q has revoked, which has issued %.200q", cert.Issuer, cert.Subject)
			case of != nil && of.stale(now) && !r.late:
				return refuse("crl_stale", "there should be a newer list of certificates that %.200q has revoked since %s", of.name, of.ends.UTC().Format(time.RFC3339))
			}
		}
	}
	return nil
}
