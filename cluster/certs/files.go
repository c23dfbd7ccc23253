package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The files' names: see the package comment.
const (
	AuthorityCert = "ca.crt"
	AuthorityKey  = "ca.key"
	NodeCert      = "node.crt"
	NodeKey       = "node.key"
)

// maxFile bounds what is read of a file, in bytes.
const maxFile = 1 << 20

// ErrExists means that a file would be overwritten. Nothing has been written.
var ErrExists = errors.New("it exists")

// ErrFiles means that the files of a directory cannot be used: the text says
// which one and why.
var ErrFiles = errors.New("unusable certificate file")

// SaveAuthority writes an authority into dir, which is made if missing. Existing
// files are overwritten only if force is set: see ErrExists.
func SaveAuthority(dir string, a *Authority, force bool) error {
	pair, err := a.Pair()
	if err != nil {
		return err
	}
	return save(dir, force, file{AuthorityKey, pair.Key, 0o600}, file{AuthorityCert, pair.Cert, 0o644})
}

// SaveNode writes what a node needs into dir: a certificate, its key, and the
// authority that issued it. It may be the authority's own directory. As
// SaveAuthority it overwrites only if it is forced to.
func SaveNode(dir string, a *Authority, node Pair, force bool) error {
	authority, err := a.Pair()
	if err != nil {
		return err
	}
	files := []file{{NodeKey, node.Key, 0o600}, {NodeCert, node.Cert, 0o644}}
	have, err := readFile(filepath.Join(dir, AuthorityCert))
	if err != nil || !bytes.Contains(have, authority.Cert) {
		// Of a list of authorities that holds this one the others are kept:
		// somebody is replacing one.
		files = append(files, file{AuthorityCert, authority.Cert, 0o644})
	}
	return save(dir, force, files...)
}

// LoadAuthority reads an authority from its directory. An error is an ErrFiles.
func LoadAuthority(dir string) (*Authority, error) {
	pair, err := loadPair(filepath.Join(dir, AuthorityCert), filepath.Join(dir, AuthorityKey))
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%w: %s is no authority made by bellwire cert ca", ErrFiles, filepath.Join(dir, AuthorityCert))
	}
	return &Authority{pair.Leaf, key}, nil
}

type file struct {
	name string
	data []byte
	mode fs.FileMode
}

// save writes files that nobody ever sees in part; all of them, or, if one exists
// and force is not set, none.
func save(dir string, force bool, files ...file) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); err == nil && !force {
			return fmt.Errorf("certs: %s: %w", path, ErrExists)
		}
	}
	for _, f := range files {
		if err := replace(filepath.Join(dir, f.name), f); err != nil {
			return fmt.Errorf("certs: %w", err)
		}
	}
	return nil
}

// replace writes a file beside path and puts it in its place.
func replace(path string, f file) (err error) {
	// CreateTemp makes it readable by its owner alone, before there is a key in it.
	tmp, err := os.CreateTemp(filepath.Dir(path), f.name+".new*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(f.data)
	if err == nil {
		err = tmp.Chmod(f.mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func pairOf(cert *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("certs: %w", err)
	}
	return Pair{
		Cert:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		Key:     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		Expires: cert.NotAfter,
	}, nil
}

// loadPair reads a certificate and its key. The Leaf of what it returns is set.
func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return parsePair(certFile, cert, keyFile, key)
}

func parsePair(certFile string, cert []byte, keyFile string, key []byte) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: %s and %s: %w", ErrFiles, certFile, filepath.Base(keyFile), err)
	}
	return pair, nil
}

// parsePool reads the authorities that are trusted.
func parsePool(path string, data []byte) (*x509.CertPool, []*x509.Certificate, error) {
	pool := x509.NewCertPool()
	var all []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("%w: %s holds a %s: only certificates belong there", ErrFiles, path, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %s: %w", ErrFiles, path, err)
		}
		if !cert.IsCA {
			return nil, nil, fmt.Errorf("%w: %s holds a certificate that is no authority's (%s)", ErrFiles, path, cert.Subject.CommonName)
		}
		pool.AddCert(cert)
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%w: %s holds no certificate in PEM", ErrFiles, path)
	}
	return pool, all, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFiles, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFiles, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrFiles, path, maxFile)
	}
	return data, nil
}
