package im

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

var (
	bob   = kind.Resource{Kind: "im", Addr: kind.Of("bob@example.com")}
	alice = kind.Of("alice@example.net")
	noon  = time.Date(2026, 3, 9, 12, 16, 50, 0, time.UTC)
)

// delivered is what bob's devices get of what alice sent, as message 42.
func delivered(t *testing.T, contentType, body string) string {
	t.Helper()
	m, err := New().Identify(bob, alice, kind.Document{ContentType: contentType, Body: []byte(body)})
	if err != nil {
		t.Errorf("%s: %v", body, err)
		return ""
	}
	if m.ID == "" {
		m.ID = "b1"
	}
	doc := New().Deliver(m, 42, noon)
	if doc.ContentType != TypeJSON || !json.Valid(doc.Body) {
		t.Errorf("%s: %s", doc.ContentType, doc.Body)
	}
	return string(doc.Body)
}

const head = `{"id":"b1","iseq":42,"at":"2026-03-09T12:16:50Z","from":"im:alice@example.net","to":["im:bob@example.com"],`

// What was sent is delivered in an envelope that says who sent it, whatever it
// was sent as.
func TestEnvelope(t *testing.T) {
	for _, c := range []struct{ name, contentType, body, want string }{
		{"text", TypeText, `Lunch?`, head + `"type":"text/plain","body":"Lunch?"}`},
		{"text without a type", "", "  Lunch?\n", head + `"type":"text/plain","body":"  Lunch?\n"}`},
		{"text that begins like a document", TypeText, `{x`, head + `"type":"text/plain","body":"{x"}`},
		{"the shortest document", "", ` {"body":"Lunch?"}`, head + `"type":"text/plain","body":"Lunch?"}`},
		{"an empty body", TypeJSON, `{"body":""}`, head + `"type":"text/plain","body":""}`},
		{"the sender, spelt otherwise", TypeJSON, `{"from":"im:Alice@EXAMPLE.net?subject=x","body":"x"}`, head + `"type":"text/plain","body":"x"}`},
		{
			"all there is", TypeJSON,
			`{"id":"7f3a","from":"im:alice@example.net","to":["im:carol@example.com","IM:Bob@example.com"],"cc":["tel:+15550100"],"date":"2026-03-09T07:16:49-05:00",` +
				`"thread":"lunch","subject":{"fr":"Midi?","en":"Lunch?"},"replyTo":"im:r-7@example.net","wants":["delivered","failed","delivered"],` +
				`"expires":"2026-03-10T00:00:00Z","hops":7,"type":"text/markdown; charset=utf-8","body":"*now*","mood":{"b":1,"a":[null]}}`,
			`{"id":"7f3a","iseq":42,"at":"2026-03-09T12:16:50Z","from":"im:alice@example.net","to":["im:carol@example.com","IM:Bob@example.com"],"cc":["tel:+15550100"],` +
				`"date":"2026-03-09T12:16:49Z","thread":"lunch","subject":{"en":"Lunch?","fr":"Midi?"},"replyTo":"im:r-7@example.net","wants":["delivered","failed"],` +
				`"expires":"2026-03-10T00:00:00Z","type":"text/markdown; charset=utf-8","body":"*now*","mood":{"a":[null],"b":1}}`,
		},
		{
			"a picture", TypeJSON, `{"type":"image/png","encoding":"base64","body":"iVBORw0KGgo=","subject":"me"}`,
			head + `"subject":{"":"me"},"type":"image/png","encoding":"base64","body":"iVBORw0KGgo="}`,
		},
	} {
		if got := delivered(t, c.contentType, c.body); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

// What the broker has to know is read from the document.
func TestIdentify(t *testing.T) {
	m, err := New().Identify(bob, alice, kind.Document{Body: []byte(`{"id":"7f3a","date":"2026-03-09T12:16:49Z","expires":"2026-03-10T00:00:00Z","wants":["delivered"],"replyTo":"im:r@example.net","hops":7,"body":"x"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != "7f3a" || m.From != alice || m.To != bob.Addr || !m.Sent.Equal(noon.Add(-time.Second)) || m.Expires.Day() != 10 ||
		!m.Wants.Has(kind.Delivered) || m.Wants.Has(kind.Displayed) || m.ReplyTo != "im:r@example.net" || m.Hops != 7 {
		t.Errorf("%+v", m)
	}
	if m, err := New().Identify(bob, alice, kind.Document{Body: []byte("x")}); err != nil || m.ID != "" || m.Hops != maxHops || !m.Sent.IsZero() || !m.Expires.IsZero() || m.Wants != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// What is wrong is refused, with the right error, reason and place.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body string
		err                     error
		reason, at              string
	}{
		{"nothing", "", "", kind.ErrInvalid, "schema", ""},
		{"text that is none", TypeText, "\xff", kind.ErrInvalid, "schema", ""},
		{"64 KiB and one", TypeText, strings.Repeat("x", maxBytes+1), kind.ErrTooBig, "too-large", ""},
		{"another type", "message/cpim", "From: x", kind.ErrUnsupported, "unsupported", ""},
		{"no JSON", TypeJSON, `hello`, kind.ErrInvalid, "schema", ""},
		{"a list", TypeJSON, `["x"]`, kind.ErrInvalid, "schema", ""},
		{"no body", TypeJSON, `{"id":"x"}`, kind.ErrInvalid, "schema", ""},
		{"a body that is no text", TypeJSON, `{"body":{"text":"x"}}`, kind.ErrInvalid, "schema", "/body"},
		{"from another", TypeJSON, `{"from":"im:bob@example.com","body":"x"}`, kind.ErrInvalid, "from-mismatch", "/from"},
		{"from nobody", TypeJSON, `{"from":"alice","body":"x"}`, kind.ErrInvalid, "schema", "/from"},
		{"to another", TypeJSON, `{"to":["im:carol@example.com"],"body":"x"}`, kind.ErrInvalid, "entity-mismatch", "/to"},
		{"to whom is no URI", TypeJSON, `{"to":["bob"],"body":"x"}`, kind.ErrInvalid, "schema", "/to/0"},
		{"to 51", TypeJSON, `{"to":[` + strings.Repeat(`"im:bob@example.com",`, 50) + `"im:bob@example.com"],"body":"x"}`, kind.ErrInvalid, "schema", "/to"},
		{"an order of its own", TypeJSON, `{"iseq":1,"body":"x"}`, kind.ErrInvalid, "schema", "/iseq"},
		{"a time of its own", TypeJSON, `{"at":"2026-03-09T12:16:49Z","body":"x"}`, kind.ErrInvalid, "schema", "/at"},
		{"an empty id", TypeJSON, `{"id":"","body":"x"}`, kind.ErrInvalid, "schema", "/id"},
		{"a long id", TypeJSON, `{"id":"` + strings.Repeat("x", 256) + `","body":"x"}`, kind.ErrInvalid, "schema", "/id"},
		{"an id with a line end", TypeJSON, `{"id":"a\nb","body":"x"}`, kind.ErrInvalid, "schema", "/id"},
		{"an id that is a number", TypeJSON, `{"id":7,"body":"x"}`, kind.ErrInvalid, "schema", "/id"},
		{"lower-case t", TypeJSON, `{"date":"2026-03-09t12:16:49z","body":"x"}`, kind.ErrInvalid, "schema", "/date"},
		{"wants what there is not", TypeJSON, `{"wants":["read"],"body":"x"}`, kind.ErrInvalid, "schema", "/wants/0"},
		{"wants five", TypeJSON, `{"wants":["failed","failed","failed","failed","failed"],"body":"x"}`, kind.ErrInvalid, "schema", "/wants"},
		{"too many hands", TypeJSON, `{"hops":0,"body":"x"}`, kind.ErrLoop, "loop", "/hops"},
		{"hands without end", TypeJSON, `{"hops":256,"body":"x"}`, kind.ErrInvalid, "schema", "/hops"},
		{"no media type", TypeJSON, `{"type":"text","body":"x"}`, kind.ErrInvalid, "schema", "/type"},
		{"another encoding", TypeJSON, `{"encoding":"gzip","body":"x"}`, kind.ErrInvalid, "schema", "/encoding"},
		{"no base64", TypeJSON, `{"encoding":"base64","body":"x"}`, kind.ErrInvalid, "schema", "/body"},
		{"a reply to nobody", TypeJSON, `{"replyTo":"<im:x>","body":"x"}`, kind.ErrInvalid, "schema", "/replyTo"},
		{"a name twice", TypeJSON, `{"body":"x","body":"y"}`, kind.ErrInvalid, "schema", "/body"},
	} {
		_, err := New().Identify(bob, alice, kind.Document{ContentType: c.contentType, Body: []byte(c.body)})
		checkRefusal(t, err)
		r, _ := errors.AsType[*kind.Refusal](err)
		if r == nil || !errors.Is(err, c.err) || r.Reason != c.reason || r.Faults[0].Pointer != c.at {
			t.Errorf("%s: %v, want %v, %s at %q", c.name, err, c.err, c.reason, c.at)
		}
	}
}

func checkRefusal(t testing.TB, err error) {
	t.Helper()
	r, ok := errors.AsType[*kind.Refusal](err)
	if !ok || r.Reason == "" || len(r.Faults) == 0 || r.Faults[0].What == "" || !errors.Is(err, kind.ErrInvalid) &&
		!errors.Is(err, kind.ErrUnsupported) && !errors.Is(err, kind.ErrTooBig) && !errors.Is(err, kind.ErrLoop) {
		t.Errorf("%T: %v", err, err)
	}
}

// A report says what became of a message by the message's id and date, and is
// read back from whom has it; nobody says for another that it failed, nor asks
// for a report on a report.
func TestReports(t *testing.T) {
	k := New()
	m := kind.Message{ID: "7f3a", From: alice, To: bob.Addr, Sent: noon}
	for what, want := range map[kind.Disposition]string{
		kind.Failed:    `{"id":"7f3a","recipient":"im:bob@example.com","datetime":"2026-03-09T12:16:50Z","disposition":"failed","reason":"unavailable"}`,
		kind.Delivered: `{"id":"7f3a","recipient":"im:bob@example.com","datetime":"2026-03-09T12:16:50Z","disposition":"delivered"}`,
	} {
		reason := ""
		if what == kind.Failed {
			reason = ReasonUnavailable
		}
		if doc := k.Report(m, what, reason); string(doc.Body) != want || doc.ContentType != TypeReport {
			t.Errorf("%s: %s", what, doc.Body)
		}
	}
	inbox := kind.Resource{Kind: "im", Addr: alice}
	receipt, err := k.ReadReport(inbox, bob.Addr, k.Report(m, kind.Displayed, ""))
	if err != nil || receipt.ID != "7f3a" || receipt.From != bob.Addr || receipt.To != alice || receipt.What != kind.Displayed || !receipt.Sent.Equal(noon) {
		t.Errorf("%+v, %v", receipt, err)
	}
	for _, c := range []struct{ name, contentType, body, reason string }{
		{"nobody's", "", `{"id":"x","recipient":"carol","disposition":"delivered"}`, "schema"},
		{"that it failed", "", `{"id":"x","disposition":"failed"}`, "schema"},
		{"of no message", "", `{"disposition":"delivered"}`, "schema"},
		{"of nothing", "", `{"id":"x"}`, "schema"},
		{"on a report", "", `{"id":"x","disposition":"delivered","wants":["delivered"]}`, "schema"},
		{"a message", "", `{"body":"x"}`, "schema"},
		{"text", "", `delivered`, "unsupported"},
		{"another type", "message/imdn+xml", `<imdn/>`, "unsupported"},
		{"large", TypeReport, strings.Repeat(" ", maxBytes+1), "too-large"},
	} {
		_, err := k.ReadReport(inbox, bob.Addr, kind.Document{ContentType: c.contentType, Body: []byte(c.body)})
		checkRefusal(t, err)
		if r, _ := errors.AsType[*kind.Refusal](err); r == nil || r.Reason != c.reason {
			t.Errorf("%s: %v, want %s", c.name, err, c.reason)
		}
	}
}

// Whether somebody is writing is told with their name, and counts for a while;
// what is not known is idle.
func TestTyping(t *testing.T) {
	const from = `{"from":"im:alice@example.net",`
	for _, c := range []struct {
		contentType, body, want string
		counts                  time.Duration
	}{
		{"", `active`, `"state":"active"}`, 2 * time.Minute},
		{TypeText, "composing\n", `"state":"active"}`, 2 * time.Minute},
		{"", `paused`, `"state":"idle"}`, 2 * time.Minute},
		{"", ``, `"state":"idle"}`, 2 * time.Minute},
		{TypeTyping, `{"state":"active","refresh":90,"contentType":"text/plain","lastActive":"2026-03-09T12:16:49Z"}`, `"state":"active","contentType":"text/plain","refresh":90}`, 90 * time.Second},
		{TypeTyping, `{"state":"pondering","refresh":90,"from":"im:alice@example.net"}`, `"state":"idle"}`, 90 * time.Second},
		{"", `{"state":"composing"}`, `"state":"active"}`, 2 * time.Minute},
	} {
		doc, counts, err := New().Typing(bob, alice, kind.Document{ContentType: c.contentType, Body: []byte(c.body)})
		if err != nil || string(doc.Body) != from+c.want || doc.ContentType != TypeTyping || counts != c.counts {
			t.Errorf("%s: %s, %s, %v", c.body, doc.Body, counts, err)
		}
	}
	for body, reason := range map[string]string{
		`{"refresh":90}`:                             "schema",
		`{"state":"active","refresh":59}`:            "schema",
		`{"state":"active","from":"im:x@y.example"}`: "from-mismatch",
		`{"state":"active","body":"x"}`:              "schema",
		`{"state":`:                                  "schema",
		strings.Repeat("x", 1025):                    "too-large",
	} {
		_, _, err := New().Typing(bob, alice, kind.Document{Body: []byte(body)})
		checkRefusal(t, err)
		if r, _ := errors.AsType[*kind.Refusal](err); r == nil || r.Reason != reason {
			t.Errorf("%s: %v, want %s", body, err, reason)
		}
	}
	if _, _, err := New().Typing(bob, alice, kind.Document{ContentType: "image/png"}); !errors.Is(err, kind.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// Who has set no policy is written to by whom they have written to, and by
// themselves.
func TestDefaultPolicy(t *testing.T) {
	k := New()
	p, err := policy.Parse(k.DefaultPolicy(bob.Addr), k, bob.Addr)
	if err != nil || len(p.Warnings()) > 0 {
		t.Fatalf("%v, %v", err, p.Warnings())
	}
	for _, c := range []struct {
		who     kind.Addr
		contact bool
		send    bool
	}{{alice, false, false}, {alice, true, true}, {bob.Addr, false, true}, {kind.Addr{}, false, false}} {
		if d := p.Evaluate(c.who, noon, policy.Input{Contact: c.contact}); d.Grant.Has(kind.MaySend) != c.send || d.Grant.Has(kind.MayType) != c.send {
			t.Errorf("%s, contact %v: %+v", c.who, c.contact, d)
		}
	}
}

// Whatever the bytes: what is read is delivered as JSON that says who sent it,
// the same each time, and reads as the same message when it is sent on without
// what the broker said.
func FuzzIdentify(f *testing.F) {
	for _, s := range []string{
		"Lunch?", `{"body":"x"}`, `{"id":"7","from":"im:alice@example.net","to":["im:bob@example.com"],"cc":["tel:1"],"date":"2026-03-09T07:16:49-05:00","thread":"t","subject":{"en":"x"},"replyTo":"im:r@example.net","wants":["delivered"],"expires":"2026-03-10T00:00:00Z","hops":3,"type":"image/png","encoding":"base64","body":"AA==","z":{"b":1,"a":2}}`,
		`{"body":"\u0000\ud83d\ude00","subject":"x","x":null}`, `{"hops":0,"body":""}`,
	} {
		f.Add([]byte(s))
	}
	k := New()
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []func() error{
			func() error {
				_, err := k.ReadReport(bob, alice, kind.Document{Body: body})
				return err
			},
			func() error {
				_, _, err := k.Typing(bob, alice, kind.Document{Body: body})
				return err
			},
		} {
			if err := read(); err != nil {
				checkRefusal(t, err)
			}
		}
		m, err := k.Identify(bob, alice, kind.Document{Body: body})
		if err != nil {
			checkRefusal(t, err)
			return
		}
		doc := k.Deliver(m, 42, noon)
		var got struct {
			From, At string
			ISeq     int
		}
		if err := json.Unmarshal(doc.Body, &got); err != nil || got.From != "im:alice@example.net" || got.ISeq != 42 || got.At != "2026-03-09T12:16:50Z" {
			t.Fatalf("%s: %v", doc.Body, err)
		}
		if again := k.Deliver(m, 42, noon); string(again.Body) != string(doc.Body) {
			t.Fatalf("%s, and then %s", doc.Body, again.Body)
		}
		if m.ID == "" {
			return
		}
		resent := strings.Replace(string(doc.Body), `"iseq":42,"at":"2026-03-09T12:16:50Z",`, "", 1)
		if len(resent) > maxBytes {
			return
		}
		again, err := k.Identify(bob, alice, kind.Document{ContentType: TypeJSON, Body: []byte(resent)})
		if err != nil {
			t.Fatalf("%s: %v", resent, err)
		}
		if sent := k.Deliver(again, 42, noon); string(sent.Body) != string(doc.Body) {
			t.Fatalf("%s\nsent on is\n%s", doc.Body, sent.Body)
		}
	})
}

// What is delivered says from whom and to whom it is, however its sender wrote it; and
// what is none says nothing.
func TestOpen(t *testing.T) {
	for _, text := range []string{`Lunch?`, `{"body":"{\"from\":\"im:eve@example.com\"}"}`, `{"id":"\",\"from\":\"im:eve@example.com","to":["im:carol@example.com","im:bob@example.com"],"body":"x"}`} {
		m, err := New().Identify(bob, alice, kind.Document{Body: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == "" {
			m.ID = "b1"
		}
		e, ok := New().Open(New().Deliver(m, 42, noon))
		if !ok || e.ID != m.ID || e.ISeq != 42 || e.From != alice || e.To[len(e.To)-1] != bob.Addr {
			t.Errorf("%s: %+v, %v", text, e, ok)
		}
	}
	for _, text := range []string{"", "{", "[]", "Lunch?", `{"id":"1"}`, `{"body":"x","from":"im:alice@example.net"}`, `{"id":"1","iseq":1,"from":"im:alice@example.net","to":[]}`, `{"id":"1","iseq":1,"from":"im:alice@example.net","to":[1]}`, `{"id":"1","iseq":1,"from":"x","to":["im:bob@example.com"]}`} {
		if e, ok := New().Open(kind.Document{Body: []byte(text)}); ok {
			t.Errorf("%s: %+v", text, e)
		}
	}
}
