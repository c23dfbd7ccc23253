package blackbox

import "testing"

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
