package main

import (
	"bytes"
	"strings"
	"testing"
)

// What a token says reaches no terminal as a command, nor as a line of ours: whoever has made it
// has chosen it, also where it is refused.
func TestTokenIsShownSafely(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		a := tokenAnswer{
			Reason: "signature", Detail: "of \x1b[2Jkey",
			Header: map[string]any{"kid": "\x1b]0;x\x07"},
			Claims: map[string]any{"sub": "eve\nALLOW", "x\u202e\x9by": []any{"\u009b31m"}},
		}
		var out bytes.Buffer
		if err := a.write(&out, output); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSuffix(line, "\n"); strings.ContainsFunc(line, commands) || strings.HasPrefix(line, "ALLOW") {
				t.Errorf("%s: a line is %q", output, line)
			}
		}
	}
}
