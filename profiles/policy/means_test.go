package policy

import "testing"

// An owner means whom a rule that holds names by address or domain, themselves, and who reads
// for them: not whom a rule is about that is for all, or for all but some, nor whom it names
// and does not let do that, or not now, or beside one that decides alone.
func TestMeans(t *testing.T) {
	const before, after = "2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z"
	p := parse(t, `{"v": 1,
		"delegates": [
			{"one": "pres:assistant@example.com", "sources": ["*"], "read": true},
			{"one": "pres:stand-in@example.com", "sources": ["*"], "read": true, "until": "2026-06-01T00:00:00Z"}],
		"rules": [
			{"id": "all", "then": {"handling": "allow"}, "show": {"note": true, "activities": true}},
			{"id": "but", "if": {"identity": [{"many": {"except": [{"id": "pres:eve@example.org"}]}}]}, "then": {"handling": "allow"}, "show": {"note": true}},
			{"id": "ana", "if": {"identity": [{"one": "pres:ana@example.com"}, {"many": {}}]}, "then": {"handling": "allow"}, "show": {"note": true}},
			{"id": "net", "if": {"identity": [{"many": {"domain": "example.net", "except": [{"id": "pres:out@example.net"}]}}]}, "then": {"handling": "allow"}, "show": {"note": true}},
			{"id": "carl", "if": {"identity": [{"one": "pres:carl@example.com"}]}, "then": {"handling": "allow"}, "show": {"activities": true}},
			{"id": "dora", "if": {"identity": [{"one": "pres:dora@example.com"}], "validity": [{"from": "2026-06-01T00:00:00Z"}]}, "then": {"handling": "allow"}, "show": {"note": true}}]}`)
	for _, c := range []struct {
		who, at string
		want    bool
	}{
		{"bob@example.com", before, true},
		{"assistant@example.com", before, true},
		{"stand-in@example.com", before, true},
		{"stand-in@example.com", after, false},
		{"ana@example.com", before, true},
		{"somebody@example.com", before, false},
		{"eve@example.org", before, false},
		{"zoe@example.net", before, true},
		{"out@example.net", before, false},
		{"carl@example.com", before, false},
		{"dora@example.com", before, false},
		{"dora@example.com", after, true},
	} {
		if got := p.Means(addr(t, c.who), "note", instant(t, c.at), Input{}); got != c.want {
			t.Errorf("%s at %s: %t", c.who, c.at, got)
		}
	}
	alone := parse(t, `{"v": 1, "rules": [
		{"id": "ana", "if": {"identity": [{"one": "pres:ana@example.com"}]}, "then": {"handling": "allow"}, "show": {"note": true}},
		{"id": "out", "rank": 1, "if": {"validity": [{"from": "2026-06-01T00:00:00Z"}]}, "then": {"handling": "allow", "alone": true}, "show": {"note": true}}]}`)
	for at, want := range map[string]bool{before: true, after: false} {
		if got := alone.Means(addr(t, "ana@example.com"), "note", instant(t, at), Input{}); got != want {
			t.Errorf("beside one that decides alone, at %s: %t", at, got)
		}
	}
}
