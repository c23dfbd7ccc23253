package blackbox

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// Who fetches more often than is set is told 429, the same of somebody who is there and of
// nobody; others are served, and it is counted.
func TestFetchesAreBounded(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z", "--limits", limitsFile(t, "v: 1\ndefault: {fetch.burst: 3, fetch.perSecond: 1}\n"))
	s.person(bob, "pc").Publish("$me/policy/presence", 1, showAll)
	told, refused := map[string]answer{}, 0
	for range 200 { // one more is let in each second, whatever the machine is busy with
		for _, name := range []string{"bob", "nobody"} {
			is := s.fetch(alice, "/v1/presence/example.com/"+name, "")
			if is.status == 429 {
				refused++
				told[name] = is
			}
		}
		if len(told) == 2 {
			break
		}
	}
	if len(told) != 2 || told["bob"] != told["nobody"] || !contains(told["bob"].body, "too many fetches") {
		t.Errorf("told %v", told)
	}
	if is := s.fetch(carol, "/v1/presence/example.com/bob", ""); is.status != 200 {
		t.Errorf("carol is told %+v", is)
	}
	if got := s.metric("bellwire_fetches_refused_total"); int(got) != refused {
		t.Errorf("%v are counted, want %d", got, refused)
	}
}

// Who asks for one resource more often than is set is told 429 and when to ask again, also if
// they have the present document, the same of nobody; they can ask for another, and others for
// this one. What is set by SIGHUP holds at once.
func TestFetchesOfOneResourceAreBounded(t *testing.T) {
	t.Parallel()
	path := limitsFile(t, "v: 1\ndefault: {fetch.perResourceBurst: 2, fetch.perResourceInterval: 1h}\n")
	s := kinds(t, "2026-03-09T12:00:00Z", "--limits", path)
	s.person(bob, "pc").Publish("$me/policy/presence", 1, showAll)
	var told []answer
	for _, name := range []string{"bob", "nobody"} {
		was := s.fetch(alice, "/v1/presence/example.com/"+name, "")
		if is := s.fetch(alice, "/v1/presence/EXAMPLE.com/"+name, was.etag); was.status != 200 || is.status != 304 {
			t.Errorf("%s: %d and %d", name, was.status, is.status)
		}
		told = append(told, s.fetch(alice, "/v1/presence/example.com/"+name, was.etag))
	}
	if told[0] != told[1] || told[0].status != 429 || !contains(told[0].body, "too many fetches of this resource (2 at once, and one more each 1h0m0s)") {
		t.Errorf("told %+v", told)
	}
	for who, path := range map[string]string{carol: "/v1/presence/example.com/bob", alice: "/v1/location/example.com/bob"} {
		if is := s.fetch(who, path, ""); is.status != 200 {
			t.Errorf("%s, %s: %+v", who, path, is)
		}
	}
	if got := s.metric("bellwire_limit_refused_total", `limit="fetch.perResourceBurst"`); got != 2 {
		t.Errorf("%v are counted, want 2", got)
	}
	if err := os.WriteFile(path, []byte("v: 1\ndefault: {fetch.perResourceBurst: 3, fetch.perResourceInterval: 1h}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	until(t, "the limits change", patience, func() bool { return strings.Contains(s.logs.String(), "limits changed") })
	for i, want := range []int{200, 429} {
		if is := s.fetch(alice, "/v1/presence/example.com/bob", ""); is.status != want {
			t.Errorf("%d under the higher bound: %+v, want %d", i, is, want)
		}
	}
}
