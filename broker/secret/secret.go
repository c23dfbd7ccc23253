// Package secret holds what a cluster's nodes know and nobody else does: random
// bytes that are part of the state (broker.Machine), from which keys are derived. It
// hides them from whatever prints or encodes values.
package secret

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// Size is how many bytes a Secret has.
const Size = 32

// A Secret is a cluster's, or nil where there is none yet. It never changes, and must
// not be changed. It prints as "(secret)": whoever wants its bytes has to mean it.
type Secret []byte

// New draws a Secret, from the operating system. Never when a command is applied:
// nodes would draw different ones.
func New() Secret {
	s := make(Secret, Size)
	_, _ = rand.Read(s) // it returns no error: the program ends where there is no randomness
	return s
}

// label begins what each key is bound to, so that no key is what another use of the
// Secret has.
const label = "bellwire key 1\x00"

// Derive returns the key for one purpose, such as "entity tags of presence": the HMAC
// with SHA-256, keyed with the Secret, of a label and the purpose. The Secret is as
// random as a key can be, so that needs no more (RFC 5869 section 3.3). Keys of
// different purposes tell nothing of each other, nor of the Secret. Purposes never
// change: what follows from a key is stored, or clients have it. It panics if there is
// no Secret, for the key would be known to everybody. It takes a few
// microseconds; for any goroutine.
func (s Secret) Derive(purpose string) (key [32]byte) {
	if len(s) != Size {
		panic(fmt.Sprintf("secret: a key for %q is derived of %d bytes, want %d", purpose, len(s), Size))
	}
	h := hmac.New(sha256.New, s)
	h.Write([]byte(label + purpose))
	h.Sum(key[:0])
	return key
}

// names begins what Name hashes, as label does what Derive hashes.
const names = "bellwire name 1\x00"

// nameBytes are what is kept of a hash: so many make NameLen letters and digits. Of 2^40
// names any two are the same with a chance of 2^-41.
const nameBytes = 15

// NameLen is how long a name is.
const NameLen = 24

var letters = base32.HexEncoding.WithPadding(base32.NoPadding)

// Name returns what stands for numbers, such as a place in the log, where somebody is
// to be told a name for it and nothing else: neither the numbers, nor whether they are
// greater than another name's. It has NameLen digits and letters of lower case. It is
// bound to a purpose as a key is (see Derive), is the same for ever, and panics
// likewise. For any goroutine.
func (s Secret) Name(purpose string, numbers ...uint64) string {
	if len(s) != Size {
		panic(fmt.Sprintf("secret: a name for %q is made of %d bytes, want %d", purpose, len(s), Size))
	}
	h := hmac.New(sha256.New, s)
	b := append(append(make([]byte, 0, 96), names+purpose...), 0)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	h.Write(b)
	return strings.ToLower(letters.EncodeToString(h.Sum(b[:0])[:nameBytes]))
}

const hidden = "(secret)"

// Format writes no byte of it, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText is likewise, for JSON and operators' lines.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
