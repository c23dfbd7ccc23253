package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A rule that lets messages in names another's inbox, and nothing else; what it says
// otherwise is a fault, or has no effect, which is told.
func TestForwardIsChecked(t *testing.T) {
	for _, c := range []struct{ kind, then, fault, warning string }{
		{"im", `{"handling":"allow","forward":"im:robert@example.com"}`, "", ""},
		{"im", `{"handling":"allow","forward":"im:bob@example.com"}`, "/rules/0/then/forward", ""},
		{"im", `{"handling":"allow","forward":"robert"}`, "/rules/0/then/forward", ""},
		{"im", `{"handling":"allow","forward":"im:*@example.com"}`, "/rules/0/then/forward", ""},
		{"im", `{"handling":"allow","forward":["im:robert@example.com"]}`, "/rules/0/then/forward", ""},
		{"im", `{"handling":"allow","foward":"im:robert@example.com"}`, "/rules/0/then/foward", ""},
		{"im", `{"handling":"allow","forward":"sip:robert@example.com"}`, "", "/rules/0/then/forward"},
		{"im", `{"handling":"block","forward":"im:robert@example.com"}`, "", "/rules/0/then/forward"},
		{"presence", `{"handling":"allow","forward":"im:robert@example.com"}`, "/rules/0/then/forward", ""},
	} {
		var k For = im.New()
		if c.kind == "presence" {
			k = pres
		}
		p, err := Check([]byte(`{"v":1,"rules":[{"id":"r","then":`+c.then+`}]}`), k, addr(t, "bob@example.com"))
		if c.fault != "" {
			if refused, ok := errors.AsType[*kind.Refusal](err); !ok || len(refused.Faults) != 1 || refused.Faults[0].Pointer != c.fault {
				t.Errorf("%s: %v, want a fault at %s", c.then, err, c.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.then, err)
			continue
		}
		if got := strings.Join(p.Warnings().Pointers(), " "); got != c.warning {
			t.Errorf("%s: warnings at %q, want %q", c.then, got, c.warning)
		}
	}
}

// An owner who asks is told where messages go, by which rule, and until when; not if
// nothing is let in.
func TestForwardIsExplained(t *testing.T) {
	const document = `{"v":1,"rules":[
		{"id":"all","if":{"identity":[{"many":{"domain":"example.com"}}]},"then":{"handling":"allow"},"show":{"send":true}},
		{"id":"a","if":{"identity":[{"one":"im:ana@example.com"}]},"then":{"handling":"allow","forward":"im:rob@example.com"},"show":{"typing":true}},
		{"id":"night","rank":1,"if":{"identity":[{"one":"im:ana@example.com"}],"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"18:00","end":"24:00"}]}},
		 "then":{"handling":"allow","forward":"im:robert@example.com"}},
		{"id":"zoe","if":{"identity":[{"one":"im:zoe@example.net"}]},"then":{"handling":"allow","forward":"im:rob@example.com"},"show":{"typing":true}}]}`
	p, err := Parse([]byte(document), im.New(), addr(t, "bob@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ who, at, want string }{
		{"ana@example.com", "2026-03-09T17:00:00Z", "rob@example.com by a until 2026-03-09T18:00:00Z: granted by all, a; messages go to the inbox of rob@example.com by a, if rob@example.com lets their sender in"},
		{"ana@example.com", "2026-03-09T18:00:00Z", "robert@example.com by night until 2026-03-10T00:00:00Z: granted by all, a, night; messages go to the inbox of robert@example.com by night, if robert@example.com lets their sender in"},
		{"cat@example.com", "2026-03-09T18:00:00Z", " by  until 0001-01-01T00:00:00Z: granted by all"},
		{"zoe@example.net", "2026-03-09T18:00:00Z", " by  until 0001-01-01T00:00:00Z: granted by zoe"},
		{"bob@example.com", "2026-03-09T18:00:00Z", " by  until 0001-01-01T00:00:00Z: the owner sees everything"},
	} {
		e := p.Explain(addr(t, c.who), instant(t, c.at), Input{Op: OpPublish})
		if got := fmt.Sprintf("%s by %s until %s: %s", e.Forward, e.ForwardedBy, e.Until.Format(time.RFC3339), e.Because); got != c.want {
			t.Errorf("%s at %s:\n%s, want\n%s", c.who, c.at, got, c.want)
		}
	}
}
