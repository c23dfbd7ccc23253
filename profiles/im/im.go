package im

import (
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Content types: of messages, of reports, and of typing.
const (
	TypeJSON   = "application/evt-im+json"
	TypeText   = "text/plain"
	TypeReport = "application/evt-imdn+json"
	TypeTyping = "application/evt-iscomposing+json"
)

// Reasons in reports that something failed.
const (
	// ReasonUnavailable is all that a sender learns whose message was not
	// taken: there is no such inbox, or its owner does not want it, and which
	// of the two is theirs to tell.
	ReasonUnavailable = "unavailable"

	ReasonExpired = "expired" // nobody had it in time
	ReasonQuota   = "quota"   // the inbox is full
)

// Bounds of one message.
const (
	maxBytes = 64 << 10
	maxID    = 255
	maxURI   = 1023
	maxText  = 1024
	maxTexts = 20
	maxHops  = 128
)

// A Kind is the kind of resource called im.
type Kind struct{}

// New returns the kind.
func New() *Kind { return &Kind{} }

var _ kind.Inbox = (*Kind)(nil)

func (*Kind) Name() string      { return "im" }
func (*Kind) Scheme() string    { return "im" }
func (*Kind) Accepts() []string { return []string{TypeJSON, TypeText} }

func (*Kind) Semantics() kind.Semantics {
	return kind.Semantics{
		Mode: kind.ModeMessage, MaxBytes: maxBytes,
		DefaultExpires: 7 * 24 * time.Hour, MinExpires: time.Second, MaxExpires: 30 * 24 * time.Hour,
	}
}

var permissions = []kind.Permission{
	{Name: kind.MaySend, Type: kind.PermBool},
	{Name: kind.MayType, Type: kind.PermBool},
	{Name: kind.MayBeTold, Type: kind.PermBool},
}

func (*Kind) Permissions() []kind.Permission { return permissions }

// DefaultPolicy takes messages from whom the owner has written to. Of all
// others the owner need not even know.
func (*Kind) DefaultPolicy(kind.Addr) []byte {
	return []byte(`{"v":1,"kind":"im","defaults":{"handling":"block"},"rules":[` +
		`{"id":"contacts","if":{"contact":true},"then":{"handling":"allow"},"show":{"send":true,"typing":true,"receipts":true}}]}`)
}

// typeOf returns the content type of a document, json if it has none and is an
// object, else text.
func typeOf(doc kind.Document, json string) string {
	if doc.ContentType != "" {
		return doc.ContentType
	}
	if strings.HasPrefix(strings.TrimLeft(string(doc.Body[:min(len(doc.Body), 100)]), " \t\r\n"), "{") {
		return json
	}
	return TypeText
}

func checkSize(doc kind.Document) error {
	return doc.CheckSize(maxBytes, "a message has at most %d bytes: send a link to what is larger")
}

// parse reads a JSON document.
func parse(doc kind.Document) (*jsontree.Document, error) {
	tree, err := jsontree.Parse(doc.Body, doc.JSON())
	if err != nil {
		return nil, kind.RefuseJSON(err)
	}
	return tree, nil
}

// readID reads the id of a message.
func readID(n *jsontree.Node) string {
	id := n.Text(1, maxID)
	if strings.ContainsFunc(id, isControl) {
		n.Fault("an id has no control characters")
		return ""
	}
	return id
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// uri reads what has the form of an absolute URI, of whatever scheme.
func uri(n *jsontree.Node) string {
	s := n.Text(1, maxURI)
	if s == "" {
		return ""
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || rest == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || strings.ContainsRune("\x7f<>\"", r) }) {
		n.Fault("%q is no URI", s)
		return ""
	}
	return s
}

// readAddr reads whose address something is; zero if it is nobody's, or wrong.
func readAddr(n *jsontree.Node) kind.Addr {
	s := n.Text(1, maxURI)
	if s == "" {
		return kind.Addr{}
	}
	a, err := kind.ParseAddr(s)
	if err != nil {
		n.Fault("%v", err)
	}
	return a
}

// readFrom faults a document that says to be from somebody else than from.
func readFrom(n *jsontree.Node, from kind.Addr) {
	if a := readAddr(n); !a.IsZero() && a != from {
		n.Refuse(kind.ReasonFromMismatch, "it is from %s and says to be from %s: leave it out", from, a)
	}
}
