package im

import (
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// How long "active" counts without another word (RFC 3994 section 3).
const (
	defaultRefresh = 120 * time.Second
	minRefresh     = 60  // seconds
	maxRefresh     = 600 // seconds
	maxTyping      = 1024
)

// The two states of RFC 3994, and the one of XEP-0085's five that is the first
// of them. Its "active", which is not writing, is not understood as that.
const (
	active    = "active"
	idle      = "idle"
	composing = "composing"
)

// Typing reads a word, or application/evt-iscomposing+json. A state that is not
// known is idle (RFC 3994 section 3.3).
func (*Kind) Typing(r kind.Resource, from kind.Addr, doc kind.Document) (kind.Document, time.Duration, error) {
	if len(doc.Body) > maxTyping {
		return kind.Document{}, 0, kind.Refuse(kind.ErrTooBig, kind.ReasonTooLarge, "", "whether somebody is writing takes at most 1024 bytes")
	}
	switch typeOf(doc, TypeTyping) {
	case TypeTyping:
	case TypeText:
		return writeTyping(from, strings.TrimSpace(string(doc.Body)), 0, ""), refreshOf(0), nil
	default:
		return kind.Document{}, 0, kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, "", "typing is sent as "+TypeTyping+", or as a word: active or idle")
	}
	tree, err := parse(doc)
	if err != nil {
		return kind.Document{}, 0, err
	}
	m := tree.Root().Members()
	state := m.Need("state").Text(1, 64)
	readFrom(m.Take("from"), from)
	refresh := int64(0)
	if n := m.Take("refresh"); n != nil {
		refresh = n.Int(minRefresh, maxRefresh)
	}
	contentType := m.Take("contentType").Text(1, 255)
	m.Take("lastActive").Time()
	for _, rest := range m.Rest() {
		rest.Fault(`not known here: write "state", "refresh", "contentType" and "lastActive"`)
	}
	if err := tree.Err(); err != nil {
		return kind.Document{}, 0, kind.RefuseJSON(err)
	}
	return writeTyping(from, state, refresh, contentType), refreshOf(refresh), nil
}

func refreshOf(seconds int64) time.Duration {
	if seconds == 0 {
		return defaultRefresh
	}
	return time.Duration(seconds) * time.Second
}

func writeTyping(from kind.Addr, state string, refresh int64, contentType string) kind.Document {
	switch state {
	case active, composing:
		state = active
	default:
		state, refresh = idle, 0
	}
	var w jsontree.Writer
	w.Open('{')
	w.Member("from", from.URI("im"))
	w.Member("state", state)
	writeText(&w, "contentType", contentType)
	if refresh > 0 {
		w.Name("refresh")
		w.Int(refresh)
	}
	w.Close('}')
	return kind.Document{ContentType: TypeTyping, Body: w.Bytes()}
}
