package im

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A content is what a message says beyond what the broker must know of it. It
// never changes.
type content struct {
	to, cc   []string // URIs as the sender wrote them; to is nil if it named nobody
	thread   string
	subject  jsontree.Value // as kind.ReadTexts returns it
	typ      string         // of the body, a media type perhaps with parameters
	encoding string         // of the body: base64, or empty for text as it is
	body     string
	ext      []extension // sorted by name
}

// An extension is a member that this package does not know. It is passed on.
type extension struct {
	name string
	text string // JSON, in one form
}

// Identify reads a message.
func (*Kind) Identify(r kind.Resource, from kind.Addr, doc kind.Document) (kind.Message, error) {
	m := kind.Message{From: from, To: r.Addr, Hops: maxHops}
	if err := checkSize(doc); err != nil {
		return m, err
	}
	switch typeOf(doc, TypeJSON) {
	case TypeJSON:
		return readMessage(m, doc)
	case TypeText:
		switch {
		case len(doc.Body) == 0:
			return m, kind.Refuse(kind.ErrInvalid, kind.ReasonSchema, "", "an empty message: an inbox is not emptied by one")
		case !utf8.Valid(doc.Body):
			return m, kind.Refuse(kind.ErrInvalid, kind.ReasonSchema, "", "text that is not UTF-8: say its type, and send it as "+TypeJSON+" with encoding base64")
		}
		m.Value = &content{typ: TypeText, body: string(doc.Body)}
		return m, nil
	}
	return m, kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, "", "messages are sent as "+TypeJSON+" or "+TypeText)
}

func readMessage(m kind.Message, doc kind.Document) (kind.Message, error) {
	tree, err := parse(doc)
	if err != nil {
		return m, err
	}
	c, within, passed := &content{}, doc.Bounds(), ""
	members := tree.Root().Members()
	if id := members.Take("id"); id != nil {
		m.ID = readID(id)
	}
	readFrom(members.Take("from"), m.From)
	to, cc, wants := members.Take("to"), members.Take("cc"), members.Take("wants")
	if longer(to, within.Recipients) || longer(cc, within.Recipients) {
		passed = kind.BoundRecipients
	} else if longer(wants, within.Reports) {
		passed = kind.BoundReports
	}
	c.to = readTo(to, m.To, within.Recipients)
	c.cc = uris(cc, within.Recipients)
	m.Sent = members.Take("date").Time()
	c.thread = members.Take("thread").Text(1, maxID)
	c.subject = kind.ReadTexts(members.Take("subject"), maxTexts, maxText)
	m.ReplyTo = uri(members.Take("replyTo"))
	for _, w := range wants.List(within.Reports) {
		m.Wants = m.Wants.With(kind.Disposition(w.OneOf("delivered", "displayed", "failed", "processed", "stored")))
	}
	m.Expires = members.Take("expires").Time()
	if h := members.Take("hops"); h != nil {
		m.Hops = int(h.Int(0, 255))
	}
	readBody(c, members)
	for _, name := range []string{"iseq", "at"} {
		members.Take(name).Fault("only the broker says this: leave it out")
	}
	for _, rest := range members.Rest() {
		c.ext = append(c.ext, extension{rest.Name(), rest.Value.String()})
	}
	if err := tree.Err(); err != nil {
		return m, kind.RefusePast(passed, err)
	}
	if m.Hops == 0 {
		return m, kind.Refuse(kind.ErrLoop, ReasonLoop, "/hops", "it went through too many hands")
	}
	m.Value = c
	return m, nil
}

// ReasonLoop is the reason of a refusal: the message would go round for ever.
const ReasonLoop = "loop"

// longer says whether n is a list of more than most elements.
func longer(n *jsontree.Node, most int) bool {
	return n != nil && n.Kind() == jsontree.Array && n.Len() > most
}

// readTo reads whom a message is to, most at most. It must name the inbox to which it was
// sent, among others perhaps.
func readTo(n *jsontree.Node, to kind.Addr, most int) []string {
	all := uris(n, most)
	if len(all) == 0 {
		return nil
	}
	if !slices.ContainsFunc(all, func(s string) bool { a, err := kind.ParseAddr(s); return err == nil && a == to }) {
		n.Refuse(kind.ReasonEntityMismatch, "it was sent to %s, who is not among those it says to be to", to)
	}
	return all
}

func uris(n *jsontree.Node, most int) []string {
	var all []string
	for _, u := range n.List(most) {
		if s := uri(u); s != "" {
			all = append(all, s)
		}
	}
	return all
}

func readBody(c *content, members *jsontree.Members) {
	c.typ = TypeText
	if t := members.Take("type"); t != nil {
		c.typ = t.Text(1, maxID)
		if _, _, err := mime.ParseMediaType(c.typ); err != nil || !strings.Contains(c.typ, "/") {
			t.Fault("%q is no media type: write one such as text/plain", c.typ)
		}
	}
	c.encoding = members.Take("encoding").OneOf("base64")
	body := members.Need("body")
	c.body = body.Text(0, maxBytes)
	if c.encoding != "" {
		if _, err := base64.StdEncoding.Strict().DecodeString(c.body); err != nil {
			body.Fault("this is not base64: %v", err)
		}
	}
}

// Deliver writes the envelope.
func (*Kind) Deliver(m kind.Message, iseq uint64, at time.Time) kind.Document {
	c := m.Value.(*content)
	var w jsontree.Writer
	w.Open('{')
	w.Member("id", m.ID)
	w.Name("iseq")
	w.Int(int64(iseq))
	w.Member("at", jsontree.FormatTime(at))
	w.Member("from", m.From.URI("im"))
	to := c.to
	if to == nil {
		to = []string{m.To.URI("im")}
	}
	writeStrings(&w, "to", to)
	writeStrings(&w, "cc", c.cc)
	writeTime(&w, "date", m.Sent)
	writeText(&w, "thread", c.thread)
	if c.subject.Kind() != jsontree.Null {
		w.Name("subject")
		w.Value(c.subject)
	}
	writeText(&w, "replyTo", m.ReplyTo)
	writeStrings(&w, "wants", m.Wants.All())
	writeTime(&w, "expires", m.Expires)
	w.Member("type", c.typ)
	writeText(&w, "encoding", c.encoding)
	w.Member("body", c.body)
	for _, x := range c.ext {
		w.Name(x.name)
		w.Raw(x.text)
	}
	w.Close('}')
	return kind.Document{ContentType: TypeJSON, Body: w.Bytes()}
}

// Open reads what Deliver has written up to whom it is to, which comes before all that is
// as long as its sender likes.
func (*Kind) Open(doc kind.Document) (e kind.Envelope, ok bool) {
	d := json.NewDecoder(bytes.NewReader(doc.Body))
	d.UseNumber()
	next := func() string {
		t, err := d.Token()
		if err != nil {
			return ""
		}
		return fmt.Sprint(t)
	}
	if next() != "{" {
		return e, false
	}
	for {
		switch next() {
		case "id":
			e.ID = next()
		case "iseq":
			e.ISeq, _ = strconv.ParseUint(next(), 10, 64)
		case "at":
			next()
		case "from":
			e.From, _ = kind.ParseAddr(next())
		case "to":
			if next() != "[" {
				return e, false
			}
			for d.More() {
				a, err := kind.ParseAddr(next())
				if err != nil {
					return e, false
				}
				e.To = append(e.To, a)
			}
			return e, e.ID != "" && e.ISeq != 0 && !e.From.IsZero() && len(e.To) > 0
		default:
			return e, false
		}
	}
}

// writeStrings writes a list, unless it is empty.
func writeStrings[T ~string](w *jsontree.Writer, name string, list []T) {
	if len(list) == 0 {
		return
	}
	w.Name(name)
	w.Open('[')
	for _, s := range list {
		w.String(string(s))
	}
	w.Close(']')
}

// writeText writes a member, unless it is empty.
func writeText(w *jsontree.Writer, name, s string) {
	if s != "" {
		w.Member(name, s)
	}
}

// writeTime writes an instant, unless there is none.
func writeTime(w *jsontree.Writer, name string, t time.Time) {
	if !t.IsZero() {
		w.Member(name, jsontree.FormatTime(t))
	}
}
