package acl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// What a policy says, as conversations that need no programmer to review:
//
//	policy [owners=(KIND, …)]   a file; "ok" or all that is wrong with it
//	part domain=DOMAIN          a tenant's own; its tests are run, and it is in force beside it
//	explain                     WHO ACTION TOPIC at INSTANT
//	json                        the same, for scripts
//	sweep                       WHO ACTION TOPIC from INSTANT to INSTANT
//	grant                       WHO FILTER at INSTANT
//	edges n=N                   from INSTANT
//	test                        the file's own tests
//
// -rewrite records what is; commit only a difference you understand.
func TestConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		var p *Policy
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "policy" {
				made, err := Parse("policy.yaml", []byte(d.Input), "example.com")
				if err != nil {
					return err.(*FileError).Report()
				}
				p = made
				for _, arg := range d.CmdArgs { // the only one there is
					p = p.WithOwners(arg.Vals...)
				}
				return "ok\n"
			}
			if p == nil {
				t.Fatal("no policy yet")
			}
			if d.Cmd == "part" {
				var domain string
				d.ScanArgs(t, "domain", &domain)
				part, err := ParsePart("part.yaml", []byte(d.Input), domain, p)
				if bad, faulty := err.(*FileError); faulty {
					return bad.Report()
				} else if err != nil {
					return err.Error() + "\n"
				}
				p = p.With([]*Part{part})
				return p.TestPart(part).String()
			}
			var out strings.Builder
			lines := strings.Split(d.Input, "\n")
			if d.Cmd == "test" {
				return p.Test().String()
			}
			for _, line := range lines {
				out.WriteString(converse(t, p, d, line))
			}
			return out.String()
		})
	})
}

// converse answers one line.
func converse(t *testing.T, p *Policy, d *datadriven.TestData, line string) string {
	t.Helper()
	instantIn := func(s string) time.Time {
		at, err := ParseInstant(s, time.Time{})
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return at
	}
	question, when, _ := strings.Cut(line, " at ")
	if d.Cmd == "sweep" || d.Cmd == "edges" {
		question, when, _ = strings.Cut(line, "from ")
	}
	words := strings.Fields(question)
	var who Who
	if len(words) > 0 && words[0] != "anonymous" {
		who.Principal, who.Client, _ = strings.Cut(words[0], "/")
	}
	switch d.Cmd {
	case "explain", "json":
		e, err := p.Explain(who, actionOf(t, words[1]), words[2], instantIn(when))
		if err != nil {
			return err.Error() + "\n"
		}
		if d.Cmd == "explain" {
			return e.Text()
		}
		return toJSON(t, e)
	case "sweep":
		from, to, _ := strings.Cut(when, " to ")
		edges, err := p.Sweep(who, actionOf(t, words[1]), words[2], instantIn(from), instantIn(to))
		if err != nil {
			return err.Error() + "\n"
		}
		var out strings.Builder
		for _, e := range edges {
			out.WriteString(toJSON(t, e))
		}
		return out.String()
	case "grant":
		g := p.Grant(who, words[1], instantIn(when))
		if !g.Allowed {
			return "refused: " + g.Reason + "\n"
		}
		text := "granted by " + g.Rule
		if g.Windowed {
			text += ", windowed, outside " + g.Outside.String()
		}
		return text + "\n"
	case "edges":
		n, out, at := 1, "", instantIn(when)
		d.ScanArgs(t, "n", &n)
		for range n {
			if at = p.NextEdge(at); at.IsZero() {
				return out + "never\n"
			}
			out += at.Format(time.RFC3339) + "\n"
		}
		return out
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

func actionOf(t *testing.T, s string) Action {
	t.Helper()
	switch s {
	case "publish":
		return Publish
	case "subscribe":
		return Subscribe
	}
	t.Fatalf("unknown action %q", s)
	return 0
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s\n", data)
}
