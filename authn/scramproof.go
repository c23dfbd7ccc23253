package authn

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/bellwire/bellwire/acl"
)

// A ScramProof is the client's side of one proof by SCRAM-SHA-256. It is of one goroutine,
// and of one connection.
type ScramProof struct{ conv *scram.ClientConversation }

// NewScramProof begins a proof that user knows password. What a password must not have is an
// error (RFC 4013).
func NewScramProof(user, password string) (*ScramProof, error) {
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		return nil, fmt.Errorf("authn: the name or the password has characters that none may have: %w", err)
	}
	return &ScramProof{client.WithMinIterations(acl.MinIterations).NewConversation()}, nil
}

// Step takes the server's message, empty to begin with, and returns what to send. The error
// says what is wrong with the message; nothing follows it.
func (p *ScramProof) Step(message []byte) (answer []byte, err error) {
	switch {
	case len(message) > scramMessage:
		return nil, fmt.Errorf("authn: a message of %d bytes", len(message))
	case costs(string(message)) > acl.MaxIterations:
		return nil, errors.New("authn: the server asks for more hashing than anybody needs")
	}
	text, err := p.conv.Step(string(message))
	if err != nil {
		return nil, fmt.Errorf("authn: %w", err)
	}
	return []byte(text), nil
}

// costs is how often a server asks to hash, 0 if it does not: its first message ends with it
// (RFC 5802 7).
func costs(message string) int {
	_, count, asks := strings.Cut(message, ",i=")
	if !asks {
		return 0
	}
	count, _, _ = strings.Cut(count, ",")
	n, err := strconv.Atoi(count)
	if errors.Is(err, strconv.ErrRange) {
		return acl.MaxIterations + 1
	}
	return n
}

// Proved says whether the server has shown that it knows the password's verifier: else it may
// be anybody.
func (p *ScramProof) Proved() bool { return p.conv.Valid() }
