package nearest

import (
	"strings"
	"testing"
)

// A misspelt word is taken for the name with the fewest edits, if there is
// one within a third of its length.
func TestName(t *testing.T) {
	names := []string{"subscribe", "publish", "node", "mqtt", "http", "allow_anonymous"}
	for word, want := range map[string]string{
		"subscirbe":                  "subscribe", // neighbours swapped
		"Publish":                    "publish",
		"publisch":                   "publish",
		"subs":                       "subscribe", // its beginning
		"nod":                        "node",
		"mqt":                        "mqtt",
		"htpt":                       "http",
		"alow_anonymos":              "allow_anonymous",
		"allow-anonymous":            "allow_anonymous",
		"":                           "",
		"x":                          "",
		"domain":                     "",
		"pubic law":                  "",
		strings.Repeat("node", 1000): "",
	} {
		if got := Name(word, names); got != want {
			t.Errorf("%.20q: %q, want %q", word, got, want)
		}
	}
}
