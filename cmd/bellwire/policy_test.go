package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// A refused policy is a short record for each thing that is wrong with it, with
// its place and what to do, a bounded number of them, and then one that says
// that nothing has changed and how many there are.
func TestRefusedPolicyIsLoggedFaultByFault(t *testing.T) {
	var many strings.Builder
	many.WriteString("rules:\n")
	for i := range acl.MaxRules / 10 {
		fmt.Fprintf(&many, "  - {id: r%d, alow: [publish], who: [anyone], topic: [a]}\n", i)
	}
	for _, c := range []struct {
		name, policy string
		records      int // of faults
		faults       int
		first        map[string]any
	}{
		{
			"one", "rules:\n  - {id: a, allow: [publish], woh: [anyone], topic: [a]}\n", 1, 1,
			map[string]any{"line": 2., "column": 31., "hint": `did you mean "who"?`},
		},
		{"many", many.String(), faultsLogged, acl.MaxRules / 10, map[string]any{"line": 2., "column": 14., "hint": `did you mean "allow"?`}},
		{
			"tests", "tests:\n  - {name: a, as: anonymous, at: 2026-03-09T12:00:00Z, allow: [publish x]}\n  - {name: b, as: anonymous, at: 2026-03-09T12:00:00Z, allow: [publish x]}\n", 2, 2,
			map[string]any{"msg": "a fault in the policy file"},
		},
	} {
		var log strings.Builder
		s := &server{config: serverConfig{logger: newLogger(&log, false)}}
		_, err := checkPolicy("policy.yaml", []byte(c.policy), "example.com")
		s.refusePolicy("policy.yaml", err)
		var records []map[string]any
		for line := range strings.Lines(log.String()) {
			var r map[string]any
			if err := json.Unmarshal([]byte(line), &r); err != nil || len(line) > 500 {
				t.Fatalf("%s: %v in %q, of %d bytes", c.name, err, line, len(line))
			}
			if r["level"] != "error" || r["file"] != "policy.yaml" {
				t.Errorf("%s: got %v", c.name, r)
			}
			records = append(records, r)
		}
		if len(records) != c.records+1 {
			t.Fatalf("%s: %d records, want %d and a last one:\n%s", c.name, len(records), c.records, log.String())
		}
		for key, want := range c.first {
			if got := records[0][key]; got != want {
				t.Errorf("%s: %s is %v, want %v", c.name, key, got, want)
			}
		}
		last := records[c.records]
		if last["msg"] != "policy not changed: the one in force stays" || last["faults"] != float64(c.faults) || last["code"] != "BW-2011" {
			t.Errorf("%s: the last record is %v", c.name, last)
		}
	}
}

// A policy by which nobody can log in is told at the start, and no other.
func TestPolicyWithoutUsersIsTold(t *testing.T) {
	users := fmt.Sprintf("users:\n  ana@example.com: {token_sha256: %q}\n", acl.HashToken([]byte("t")))
	for _, c := range []struct {
		name, policy string
		anonymous    bool
		told         bool
	}{
		{"no users", "rules: []\n", false, true},
		{"a user", users, false, false},
		{"anybody", "rules: []\n", true, false},
	} {
		var log strings.Builder
		conf := devFlags{domain: "example.com"}.config(io.Discard)
		conf.policy, conf.trust, conf.allowAnonymous, conf.logger = []byte(c.policy), trustNobody, c.anonymous, newLogger(io.Discard, false)
		s, err := startServer(t.Context(), conf)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		conf.logger = newLogger(&log, false)
		(&server{config: conf, broker: s.broker}).warnOfNobody()
		if err := s.shutdown(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if told := strings.Contains(log.String(), "the policy has no users"); told != c.told {
			t.Errorf("%s: told %v: %s", c.name, told, &log)
		}
	}
}

// Whom a policy would remove is told before it is put in force, with when what is theirs
// is forgotten; and by the log once it is, whether it came over HTTP or from a file.
func TestRemovedUsersAreTold(t *testing.T) {
	policy := func(names ...string) []byte {
		text := "users:\n"
		for _, name := range names {
			text += fmt.Sprintf("  %s@example.com: {token_sha256: %q}\n", name, acl.HashToken([]byte(name)))
		}
		return []byte(text)
	}
	var log strings.Builder
	conf := devFlags{domain: "example.com"}.config(io.Discard)
	conf.policy, conf.trust, conf.allowAnonymous, conf.logger = policy("ana", "bo", "cy"), trustNobody, false, newLogger(io.Discard, false)
	s, err := startServer(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.broker.Raise(t.Context(), broker.NewestLevel); err != nil {
		t.Fatal(err)
	}
	conf.logger = newLogger(&log, false)
	told := &server{config: conf, broker: s.broker}
	change := api.PolicyChange{Data: policy("ana", "cy"), By: "ana@example.com"}
	for _, dry := range []bool{true, false} {
		change.Dry = dry
		is, err := policies{told}.Put(t.Context(), change)
		if err != nil || !slices.Equal(is.Removed, []string{"bo@example.com"}) || is.Forgotten == nil {
			t.Errorf("dry %v: %+v, error %v, want bo removed", dry, is, err)
		}
		if dry && log.Len() > 0 {
			t.Errorf("the log has of what was not put in force: %s", &log)
		}
	}
	if is, err := (policies{told}).Put(t.Context(), change); err != nil || len(is.Removed) > 0 || is.Forgotten != nil {
		t.Errorf("what changes nothing: %+v, error %v", is, err)
	}
	if n := strings.Count(log.String(), "1 user removed"); n != 1 || !strings.Contains(log.String(), "bo@example.com; their policies") {
		t.Errorf("bo's removal is told %d times, want once: %s", n, &log)
	}
	log.Reset()
	if err := told.setPolicy(t.Context(), "policy.yaml", policy("ana", "bo")); err != nil || !strings.Contains(log.String(), "cy@example.com; their policies") {
		t.Errorf("the log does not tell that a file removes cy: %s, error %v", &log, err)
	}
}

// A file that says what is in force makes no version when it is read again; and what HTTP says of bare names and
// of questions has no flags of verbs in it.
func TestSameFileAndPlainWords(t *testing.T) {
	var log strings.Builder
	conf := devFlags{}.config(io.Discard)
	text := fmt.Sprintf("users:\n  ana@example.com: {token_sha256: %q}\n", acl.HashToken([]byte("t")))
	conf.domain, conf.policy, conf.trust, conf.allowAnonymous = "", []byte(text), trustNobody, false
	s, err := startServer(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	conf.logger = newLogger(&log, false)
	told := &server{config: conf, broker: s.broker}
	for _, c := range []struct {
		text, log string
		more      uint64
	}{{text, "policy unchanged", 0}, {text + "# more\n", "policy changed", 1}, {text + "# more\n", "policy unchanged", 0}} {
		log.Reset()
		was := s.broker.PolicyNumber()
		told.reloadPolicy(t.Context(), writeFile(t, "policy.yaml", c.text))
		if got := s.broker.PolicyNumber() - was; got != c.more || !strings.Contains(log.String(), c.log) {
			t.Errorf("%q makes %d versions, want %d: %s", c.text, got, c.more, &log)
		}
	}

	_, err = policies{told}.Put(t.Context(), api.PolicyChange{Data: []byte("rules:\n  - {id: a, allow: [publish], who: [ana], topic: [a]}\n"), By: "local"})
	bad, ok := errors.AsType[*api.PolicyFaults](err)
	if !ok || len(bad.Faults) != 1 || !strings.HasPrefix(bad.Faults[0].Hint, "write ana@example.com") || strings.Contains(bad.Report, "--") {
		t.Errorf("a bare name: %+v", err)
	}
	for _, q := range []api.PolicyQuestion{
		{What: "explain", As: "ana", Action: "publish", Topic: "a"},
		{What: "explain", Action: "publish", Topic: "a"},
		{What: "explain", As: "ana@example.com", Action: "publish", Topic: "a", Sweep: "x"},
	} {
		if _, err := (policies{told}).Ask(t.Context(), q); !errors.Is(err, api.ErrBadQuestion) || strings.Contains(err.Error(), "--") {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// What looks like a part of a policy, with no operator any more, nobody, or many fewer users,
// is refused by every door until it is said to be meant; a dry run says so. What removes few
// is not asked about.
func TestPartOfAPolicyIsRefused(t *testing.T) {
	policy := func(operators string, names ...string) []byte {
		text := "users:\n"
		for _, name := range names {
			text += fmt.Sprintf("  %s@example.com: {token_sha256: %q}\n", name, acl.HashToken([]byte(name)))
		}
		return []byte(text + operators)
	}
	all := policy("groups: {operators: [ana]}\n", "ana", "bo", "cy", "dan", "eve", "fay", "gus", "hal")
	for _, c := range []struct {
		name string
		is   []byte
		want string // empty: put in force
	}{
		{"nothing", nil, "the file says nothing"},
		{"comments only", []byte("# soon\n---\n"), "the file says nothing"},
		{"no operator", policy("", "ana", "bo", "cy", "dan", "eve", "fay", "gus", "hal"), "the group operators would have no member any more"},
		{"cut off", policy("groups: {operators: [ana]}\n", "ana", "bo", "cy", "dan", "eve"), "3 of 8 users would be removed"},
		{"nobody", []byte("groups:\n  operators: [ana]\n"), "no user would be left, of 8"},
		{"two fewer", policy("groups: {operators: [bo]}\n", "ana", "bo", "cy", "dan", "eve", "fay"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := devFlags{domain: "example.com"}.config(io.Discard)
			conf.policy, conf.trust, conf.allowAnonymous = all, trustNobody, false
			s, err := startServer(t.Context(), conf)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.shutdown(); err != nil {
					t.Error(err)
				}
			}()
			said := func(err error) string {
				if err == nil {
					return ""
				}
				if f, ok := errors.AsType[*api.PolicyFaults](err); ok {
					return f.Report
				}
				return err.Error()
			}
			fits := func(by, got string) {
				t.Helper()
				if c.want == "" && got != "" || !strings.Contains(got, c.want) {
					t.Errorf("by %s: %q, want %q", by, got, c.want)
				}
			}
			change := api.PolicyChange{Data: c.is, By: "ana@example.com", Dry: true}
			dry, err := policies{s}.Put(t.Context(), change)
			fits("dry run", dry.Confirm+said(err))
			if c.want != "" {
				change.Dry = false
				_, err = policies{s}.Put(t.Context(), change)
				fits("HTTP", said(err))
				if !bytes.Equal(s.broker.PolicyData(), all) {
					t.Error("it is in force")
				}
			}
			err = s.setPolicy(t.Context(), "policy.yaml", c.is)
			fits("file", said(err))
			if got := bytes.Equal(s.broker.PolicyData(), all); got == (c.want == "") {
				t.Errorf("by file: the old one is in force: %v", got)
			}
			if c.want == "" || strings.Contains(c.want, "says nothing") {
				return
			}
			change.RemoveUsers = true
			if _, err = (policies{s}).Put(t.Context(), change); err != nil || !bytes.Equal(s.broker.PolicyData(), c.is) {
				t.Errorf("confirmed: %v", err)
			}
		})
	}
}

// What is told of removed users names some, counts the others, and says by when they are
// to be named again only if anything is forgotten.
func TestRemovedText(t *testing.T) {
	at := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	many := slices.Repeat([]string{"x@example.com"}, removedShown+2)
	if got := removedText(many, &at); strings.Count(got, "x@") != removedShown || !strings.HasPrefix(got, "22 users removed") ||
		!strings.Contains(got, "and 2 more") || !strings.Contains(got, "2026-03-10T12:00:00Z") {
		t.Error(got)
	}
	if got := removedText(many[:1], nil); strings.Contains(got, "forgotten") || strings.Contains(got, "more") {
		t.Error(got)
	}
}

// What becomes of a change of the policy in the log is told as what it is: nothing of
// that is a bug of ours but what is one.
func TestPolicyChangeFails(t *testing.T) {
	for err, want := range map[error]error{
		&broker.Refusal{Cause: broker.ErrCondition}:               api.ErrNotInForce,
		&broker.Refusal{Reason: "another domain"}:                 api.ErrConflict,
		fmt.Errorf("%w: %w", broker.ErrUnknown, context.Canceled): api.ErrMayBeDone,
		broker.ErrNoCommit: api.ErrNoLeader,
		broker.ErrAway:     api.ErrNoLeader,
		broker.ErrClosing:  api.ErrNoLeader,
		broker.ErrFailed:   broker.ErrFailed,
	} {
		if got := putError(err); !errors.Is(got, want) || !errors.Is(got, err) {
			t.Errorf("%v is told as %v, want %v", err, got, want)
		}
	}
}
