package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// A tlsSpec is what a listener's TLS is configured by.
type tlsSpec struct {
	cert, key, clientCA string
	clientCert          string // require or request; empty for require if there is a clientCA
	min                 string // 1.3 or 1.2; empty for 1.3
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
	spec     tlsSpec
	listener string
	logger   *slog.Logger
	now      atomic.Pointer[tls.Config]

	mu   sync.Mutex  // guards the following
	seen tlsContents // of the files when they were last looked at, whatever came of it
}

type tlsContents struct{ cert, key, clientCA, fault string }

// openTLS reads the files, which must be good.
func openTLS(spec tlsSpec, listener string, logger *slog.Logger) (*tlsFiles, error) {
	f := &tlsFiles{spec: spec, listener: listener, logger: logger}
	f.seen = f.read(readAtMost)
	c, _, err := f.load(f.seen)
	if err != nil {
		return nil, err
	}
	f.now.Store(c)
	return f, nil
}

// config is for a listener: each handshake asks it what is in force.
func (f *tlsFiles) config() *tls.Config {
	return &tls.Config{
		MinVersion:         f.now.Load().MinVersion,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.now.Load(), nil },
	}
}

func (f *tlsFiles) read(read fileReader) (c tlsContents) {
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
	if err := errors.Join(errs...); err != nil {
		c.fault = err.Error()
	}
	return c
}

// load makes sense of what the files hold.
func (f *tlsFiles) load(c tlsContents) (*tls.Config, *x509.Certificate, error) {
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
	return conf, pair.Leaf, nil
}

// look reads the files again, and has what is new in them used from now on.
func (f *tlsFiles) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.read(readRegular)
	if c == f.seen {
		return
	}
	f.seen = c
	conf, leaf, err := f.load(c)
	if err != nil {
		// It may be half of a change: the rest will be noticed as well.
		f.logger.Error("certificate files changed and cannot be used: those read before stay; put a certificate and the key that belongs to it there",
			"listener", f.listener, "err", err, "code", bw.TLSFiles.String())
		return
	}
	f.now.Store(conf)
	f.logger.Info("certificate files read again", "listener", f.listener, "cert", f.spec.cert, "expires", leaf.NotAfter.UTC().Format(time.RFC3339))
}

// watchTLS looks at the certificates' files until the server is closed.
func (s *server) watchTLS() {
	var files []*tlsFiles
	for _, l := range s.ports.more {
		if l.tls != nil {
			files = append(files, l.tls)
		}
	}
	if files == nil {
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
	for _, l := range s.ports.more {
		if l.tls != nil {
			l.tls.look()
		}
	}
}
