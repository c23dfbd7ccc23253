package letter

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Grant is what a watcher is shown, by the names that `show` has. The values are those
// of JSON: true, a word, a list of words, a number. What shows nothing is not in it.
type Grant map[string]any

// Words of which the later show more.
var words = map[string][]string{
	"userInput": {"none", "bare", "thresholds", "full"},
	"civic":     {"none", "country", "region", "city", "building", "full"},
}

func readGrant(show map[string]json.RawMessage) (Grant, error) {
	g := Grant{}
	for name, value := range show {
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			return nil, fmt.Errorf("letter: show/%s: %w", name, err)
		}
		switch v := v.(type) {
		case bool:
			if v {
				g[name] = true
			}
		case float64:
			g[name] = v
		case string:
			if slices.Index(words[name], v) < 0 {
				return nil, fmt.Errorf("letter: show/%s has no word %q", name, v)
			}
			if v != "none" {
				g[name] = v
			}
		case []any:
			var list []string
			for _, e := range v {
				list = append(list, e.(string))
			}
			if len(list) > 0 {
				g[name] = list
			}
		default:
			return nil, fmt.Errorf("letter: show/%s is %s", name, value)
		}
	}
	return g, nil
}

// ReadGrant reads a grant that is written as a rule's `show`.
func ReadGrant(show []byte) (Grant, error) {
	var m map[string]json.RawMessage
	if err := strict(show, &m); err != nil {
		return nil, err
	}
	return readGrant(m)
}

// with is what two grants show together: of words the one that shows more, of radii the
// smaller, of lists all.
func (g Grant) with(h Grant) Grant {
	sum := maps.Clone(g)
	for name, b := range h {
		a, ok := sum[name]
		if !ok {
			sum[name] = b
			continue
		}
		switch b := b.(type) {
		case float64:
			sum[name] = min(a.(float64), b)
		case string:
			if slices.Index(words[name], b) > slices.Index(words[name], a.(string)) {
				sum[name] = b
			}
		case []string:
			all := slices.Concat(a.([]string), b)
			slices.Sort(all)
			sum[name] = slices.Compact(all)
		}
	}
	return sum
}

// Has says whether a name is granted at all.
func (g Grant) Has(name string) bool { _, ok := g[name]; return ok }

// Word is the place among its words of what is granted; 0 shows nothing.
func (g Grant) Word(name string) int {
	w, _ := g[name].(string)
	return max(0, slices.Index(words[name], w))
}

// Radius is within how many metres a position is shown; ok is false if it is not.
func (g Grant) Radius() (metres float64, ok bool) {
	metres, ok = g["radius"].(float64)
	return metres, ok
}

// names says whether a list has one of these, or everything.
func (g Grant) names(list string, tokens ...string) bool {
	have, _ := g[list].([]string)
	return slices.ContainsFunc(have, func(t string) bool { return t == "*" || slices.Contains(tokens, t) })
}

// A Piece is something that a publication says, and where.
type Piece struct {
	Within string   // services, persons or devices; empty for what stands by itself
	Tokens []string // by which the element there can be granted
	What   string   // the permission that shows it in a presence document; empty: it is shown with its element
	Extra  string   // the name of a member that no kind knows; then What is empty
	Civic  int      // of an address: from which level on it is shown
}

// Shows says whether a watcher may see the piece.
func (v *Verdict) Shows(p Piece) bool {
	g := v.Shown
	switch {
	case v.All:
		return true
	case g == nil:
		return false
	case p.Civic > 0:
		return g.Word("civic") >= p.Civic
	case p.Within != "" && !g.names(p.Within, p.Tokens...):
		return false
	case p.Extra != "":
		return g.Has("all") || g.names("unknown", p.Extra)
	}
	return p.What == "" || g.Has("all") || g.Has(p.What)
}

// String writes a grant in one form.
func (g Grant) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(g)) {
		all = append(all, fmt.Sprintf("%s: %v", name, g[name]))
	}
	return strings.Join(all, ", ")
}
