package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
)

// A tlsSpec is what a listener's TLS is configured by.
type tlsSpec struct {
	cert, key, clientCA string
	clientCert          string   // require or request; empty for require if there is a clientCA
	min                 string   // 1.3 or 1.2; empty for 1.3
	revoked             []string // files with lists of revoked client certificates
	stale               string   // refuse or accept who is of an authority whose list is stale; empty for refuse
}

// firstFlag is the first flag that was given of those that are for --mqtts and --wss alone; empty for none.
func (t *tlsSpec) firstFlag() string {
	switch {
	case t.cert != "":
		return "--tls-cert"
	case t.key != "":
		return "--tls-key"
	case t.clientCA != "":
		return "--tls-client-ca"
	case len(t.revoked) > 0:
		return "--tls-client-crl"
	}
	return ""
}

// check says what is wrong with it, without reading files.
func (t *tlsSpec) check(option string) error {
	var wrong faults
	if t.cert == "" || t.key == "" {
		wrong.add(fail(bw.Usage, "%s needs a certificate and its key", option).do("add --tls-cert FILE and --tls-key FILE (in a configuration file tls: {cert, key}); bellwire dev --tls makes some to try it out"))
	}
	if t.min != "" && t.min != "1.3" && t.min != "1.2" {
		wrong.add(fail(bw.Usage, "%s: the least version of TLS is %q", option, t.min).do("it can be 1.3 or 1.2: older ones are not safe"))
	}
	switch t.clientCert {
	case "", "require", "request":
	default:
		wrong.add(fail(bw.Usage, "%s: client certificates: %q is neither require nor request", option, t.clientCert).do("require: who shows none is refused; request: it may show one"))
	}
	if t.clientCert != "" && t.clientCA == "" {
		wrong.add(fail(bw.Usage, "%s: it is not said whose certificates clients may show", option).do("add --tls-client-ca FILE (in a configuration file client_ca)"))
	}
	if len(t.revoked) > 0 && t.clientCA == "" {
		wrong.add(fail(bw.Usage, "%s: lists of revoked client certificates without authorities of clients", option).do("add --tls-client-ca FILE (in a configuration file client_ca), or leave --tls-client-crl out"))
	}
	switch t.stale {
	case "", "refuse", "accept":
	default:
		wrong.add(fail(bw.Usage, "%s: stale lists of revoked certificates: %q is neither refuse nor accept", option, t.stale).do("refuse: clients of an authority whose list is stale do not come in; accept: the list counts as it is"))
	}
	return wrong.err()
}

// tlsFilesMost bounds a file with certificates.
const tlsFilesMost = 1 << 20

// tlsLook is how often the files are looked at.
const tlsLook = 2 * time.Second

// tlsFiles are a listener's certificate, its key, and the authorities of clients. They
// follow their files: what is there and can be used is what the next handshake uses,
// and what cannot changes nothing but the log. Sessions of TLS are not resumed across a
// change, so a client whose authority is gone does not come in by an old one.
type tlsFiles struct {
	spec      tlsSpec
	listener  string
	logger    *slog.Logger
	protocols []string
	now       atomic.Pointer[tls.Config]

	lists atomic.Pointer[authn.Revoked]

	changed func() // certificates may have been revoked; may be nil

	mu       sync.Mutex  // guards the following
	seen     tlsContents // of the files when they were last looked at, whatever came of it
	warnedOf time.Time   // when the list ended of which it was told that it is stale
}

type tlsContents struct {
	cert, key, clientCA, fault string
	lists                      [sha256.Size]byte // of what the files with lists hold: they may be large
}

// openTLS reads the files, which must be good. protocols are those that TLS offers (ALPN).
func openTLS(spec tlsSpec, listener string, logger *slog.Logger, protocols ...string) (*tlsFiles, error) {
	f := &tlsFiles{spec: spec, listener: listener, logger: logger, protocols: protocols}
	seen, lists := f.read(readAtMost)
	f.seen = seen
	c, _, err := f.load(seen, lists)
	if err != nil {
		return nil, err
	}
	f.now.Store(c)
	f.warnOfStale()
	return f, nil
}

// filesFault says what is wrong with the files now, nil if they can be used.
func (t *tlsSpec) filesFault(option string) error {
	f := &tlsFiles{spec: *t}
	if _, _, err := f.load(f.read(readAtMost)); err != nil {
		return fail(bw.TLSFiles, "%s: %w", option, err)
	}
	return nil
}

// config is for a listener: each handshake asks it what is in force.
func (f *tlsFiles) config() *tls.Config {
	return &tls.Config{
		MinVersion:         f.now.Load().MinVersion,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.now.Load(), nil },
	}
}

// read returns what the files hold; of those with lists c has a digest only.
func (f *tlsFiles) read(read fileReader) (c tlsContents, lists []authn.RevokedFile) {
	var errs []error
	for _, r := range []struct {
		name string
		into *string
	}{{f.spec.cert, &c.cert}, {f.spec.key, &c.key}, {f.spec.clientCA, &c.clientCA}} {
		if r.name == "" {
			continue
		}
		data, err := read(r.name, tlsFilesMost)
		if err != nil {
			errs = append(errs, err)
		}
		*r.into = string(data)
	}
	h := sha256.New()
	for _, name := range f.spec.revoked {
		data, err := read(name, authn.MaxRevokedFile+1)
		if err != nil {
			errs = append(errs, err)
		}
		lists = append(lists, authn.RevokedFile{Name: name, Data: data})
		fmt.Fprintf(h, "%d ", len(data))
		h.Write(data)
	}
	h.Sum(c.lists[:0])
	if err := errors.Join(errs...); err != nil {
		c.fault = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return c, lists
}

// load makes sense of what the files hold, and has the lists in force if all is good.
func (f *tlsFiles) load(c tlsContents, lists []authn.RevokedFile) (*tls.Config, *x509.Certificate, error) {
	if c.fault != "" {
		return nil, nil, errors.New(c.fault)
	}
	pair, err := tls.X509KeyPair([]byte(c.cert), []byte(c.key))
	if err != nil {
		return nil, nil, fmt.Errorf("%s with %s: %w", f.spec.cert, f.spec.key, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, nil, fmt.Errorf("%s: the certificate ended on %s", f.spec.cert, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	conf := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		// Records are filled: a client gets a batch of packets at once, and has use
		// for the first only when it is complete.
		DynamicRecordSizingDisabled: true,
		NextProtos:                  f.protocols,
	}
	if f.spec.min == "1.2" {
		conf.MinVersion = tls.VersionTLS12
	}
	if f.spec.clientCA != "" {
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM([]byte(c.clientCA)) {
			return nil, nil, fmt.Errorf("%s: there is no certificate in it", f.spec.clientCA)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		if f.spec.clientCert == "request" {
			conf.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	if len(lists) > 0 {
		authorities, err := certificatesOf([]byte(c.clientCA))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.spec.clientCA, err)
		}
		revoked, err := authn.ReadRevoked(lists, authorities, f.spec.stale == "accept", time.Now())
		if err != nil {
			return nil, nil, err
		}
		f.lists.Store(revoked)
		// Of sessions that are resumed, too. (The lists of this moment: a handshake that
		// is under way when there are newer ones ends by them.)
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.VerifiedChains) == 0 {
				return nil // it shows none
			}
			return f.lists.Load().Check(state.VerifiedChains, time.Now())
		}
	}
	return conf, pair.Leaf, nil
}

// certificatesOf returns the certificates of a PEM file.
func certificatesOf(data []byte) (all []*x509.Certificate, err error) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return all, nil
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
}

// revoked is mqtt.Listener.Revoked. That a list has got stale ends nobody's connection.
func (f *tlsFiles) revoked(state *tls.ConnectionState) error {
	if lists := f.lists.Load(); lists != nil {
		return lists.Find(state.VerifiedChains)
	}
	return nil
}

// warnOfStale says once of each list that its time is over. With mu held, or before
// anybody else has f.
func (f *tlsFiles) warnOfStale() {
	lists := f.lists.Load()
	if lists == nil {
		return
	}
	now, next := time.Now(), lists.NextUpdate()
	issuers := lists.Stale(now)
	if len(issuers) == 0 || next.Equal(f.warnedOf) {
		return
	}
	f.warnedOf = next
	what := "clients with certificates of its issuer are refused"
	if f.spec.stale == "accept" {
		what = "it counts as it is, and what was revoked since is not known"
	}
	f.logger.Error("a list of revoked certificates is stale: put the newer one there", "listener", f.listener, "issuers", issuers,
		"since", next.UTC().Format(time.RFC3339), "meanwhile", what, "code", bw.TLSFiles.String())
}

// look reads the files again, and has what is new in them used from now on.
func (f *tlsFiles) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.warnOfStale()
	c, lists := f.read(readRegular)
	if c == f.seen {
		return
	}
	f.seen = c
	conf, leaf, err := f.load(c, lists)
	if err != nil {
		// It may be half of a change: the rest will be noticed as well.
		f.logger.Error("certificate files changed and cannot be used: those read before stay; put a certificate and the key that belongs to it there",
			"listener", f.listener, "err", err, "code", bw.TLSFiles.String())
		return
	}
	f.now.Store(conf)
	attrs := []any{"listener", f.listener, "cert", f.spec.cert, "expires", leaf.NotAfter.UTC().Format(time.RFC3339)}
	if lists := f.lists.Load(); lists != nil {
		attrs = append(attrs, "revoked", lists.Len())
	}
	f.logger.Info("certificate files read again", attrs...)
	if f.changed != nil {
		f.changed()
	}
}

// listMetrics tells until when the lists of revoked certificates can be relied on.
func (s *server) listMetrics(t *table) {
	g := t.family(prometheus.GaugeValue, "tls_crl_next_update_seconds", "when the first of a listener's lists of revoked client certificates gets stale, in seconds since 1970", "listener")
	for _, l := range s.ports.more {
		if l.tls == nil || l.tls.lists.Load() == nil {
			continue
		}
		g.row(func() float64 {
			next := l.tls.lists.Load().NextUpdate()
			if next.IsZero() {
				return math.Inf(1)
			}
			return float64(next.Unix())
		}, l.spec.name)
	}
}

// watchTLS looks at the certificates' files until the server is closed.
func (s *server) watchTLS() {
	if s.ports.tlsFiles() == nil {
		return
	}
	s.tlsStop = make(chan struct{})
	s.tlsTasks.Go(func() {
		tick := time.NewTicker(tlsLook)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.lookAtTLS()
			case <-s.tlsStop:
				return
			}
		}
	})
}

// lookAtTLS has all files of certificates read again.
func (s *server) lookAtTLS() {
	for _, f := range s.ports.tlsFiles() {
		f.look()
	}
}
