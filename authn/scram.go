package authn

import (
	"fmt"
	"io"

	"github.com/xdg-go/scram"

	"github.com/bellwire/bellwire/acl"
)

// Scram names the mechanism of SCRAM-SHA-256 (RFC 7677), as MQTT 5 clients do in
// their Authentication Method.
const Scram = "SCRAM-SHA-256"

// ScramIterations is how often HashScram hashes by default. RFC 7677 asks for 4096 at
// least; a small device takes seconds for this many, each time it connects.
const ScramIterations = 15_000

// scramMessage is the size of the longest message, in bytes: names have 1,023 bytes at
// most, each of which may take three, and a nonce is short.
const scramMessage = 4 << 10

// HashScram returns what a policy keeps, as scram_sha256, of a password that is proved
// by SCRAM-SHA-256. random is where the salt comes from: crypto/rand.Reader. What a
// password must not have is an error (RFC 4013).
func HashScram(password []byte, iterations int, random io.Reader) (string, error) {
	if iterations < acl.MinIterations || iterations > acl.MaxIterations {
		return "", fmt.Errorf("authn: %d iterations, want %d to %d", iterations, acl.MinIterations, acl.MaxIterations)
	}
	salt := make([]byte, 16)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("authn: salt: %w", err)
	}
	client, err := scram.SHA256.NewClient("", string(password), "")
	if err != nil {
		return "", fmt.Errorf("authn: the password has characters that none may have: %w", err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return "", fmt.Errorf("authn: %w", err)
	}
	v := acl.Verifier{Salt: salt, Iterations: iterations, StoredKey: stored.StoredKey, ServerKey: stored.ServerKey}
	return v.String(), nil
}

// A Lookup returns what a proof of name is checked with, and whom it proves. known is
// false for who cannot prove anything: see acl.Policy.Verifier.
type Lookup func(name string) (principal string, v acl.Verifier, known bool)

// A ScramExchange is the server's side of one proof by SCRAM-SHA-256: the client's first
// message, ours, the client's proof, and ours that we know it too. It is of one
// goroutine.
type ScramExchange struct {
	lookup    Lookup
	conv      *scram.ServerConversation
	begun     bool
	asked     bool // for the first message, which did not come at once
	over      bool // it has failed, or is done
	principal string
	known     bool
}

// NewScram begins an exchange.
func NewScram(lookup Lookup) *ScramExchange {
	e := &ScramExchange{lookup: lookup}
	server, err := scram.SHA256.NewServer(e.find)
	if err != nil {
		panic(fmt.Sprintf("authn: %v", err)) // it has nothing that could be wrong
	}
	e.conv = server.NewConversation()
	return e
}

func (e *ScramExchange) find(name string) (scram.StoredCredentials, error) {
	principal, v, known := e.lookup(name)
	e.principal, e.known = principal, known
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
		StoredKey:  v.StoredKey, ServerKey: v.ServerKey,
	}, nil
}

// Step takes a message of the client and returns what to answer. When done, the client
// has proved to be Principal. The error is a *Refusal; nothing follows it. A client
// that begins without a message is asked for it by an empty one, once (RFC 4422 3).
func (e *ScramExchange) Step(message []byte) (answer []byte, done bool, err error) {
	switch {
	case e.over:
		return nil, false, refuse("malformed_exchange", "a message after the last one")
	case len(message) == 0 && !e.begun && !e.asked:
		e.asked = true
		return nil, false, nil
	}
	answer, done, err = e.step(message)
	e.over = done || err != nil
	return answer, done, err
}

func (e *ScramExchange) step(message []byte) (answer []byte, done bool, err error) {
	if len(message) > scramMessage {
		return nil, false, refuse("malformed_exchange", "a message of %d bytes", len(message))
	}
	first := !e.begun
	e.begun = true
	text, err := e.conv.Step(string(message))
	switch {
	case err != nil && (first || text == "" || text == scram.ErrOtherError):
		return nil, false, refuse("malformed_exchange", "not a SCRAM message that is expected")
	case err != nil && text == scram.ErrInvalidProof && !e.known:
		return nil, false, refuse("unknown_user", "")
	case err != nil && text == scram.ErrInvalidProof:
		return nil, false, refuse("wrong_proof", "")
	case err != nil:
		return nil, false, refuse("malformed_exchange", "%s", text)
	case first && e.conv.AuthzID() != "" && e.conv.AuthzID() != e.conv.Username():
		return nil, false, refuse("other_principal", "it asks to act as another than who it proves to be")
	case first:
		return []byte(text), false, nil
	case !e.conv.Valid() || !e.known:
		return nil, false, refuse("unknown_user", "")
	}
	return []byte(text), true, nil
}

// User is whom the client says it is: empty until it has.
func (e *ScramExchange) User() string { return e.conv.Username() }

// Principal is who the client has proved to be, once Step was done.
func (e *ScramExchange) Principal() string { return e.principal }
