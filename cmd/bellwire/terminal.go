package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/paho"
)

// safe is text that somebody else wrote, for a line that people read. What a
// terminal would obey instead of showing it, or what would make one line look
// like two or its parts change places, is escaped as %q escapes it: control
// characters (C0, DEL, C1), line and paragraph separators, the bidirectional
// embeddings, overrides and isolates, and bytes that are no UTF-8. All else is
// as it was, the backslash too: it is for reading, not for parsing.
func safe(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, commands) {
		return text
	}
	var b strings.Builder
	for rest := text; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		one := rest[:size]
		if commands(r) || r == utf8.RuneError && size == 1 {
			one = strconv.Quote(one)
			one = one[1 : len(one)-1]
		}
		b.WriteString(one)
		rest = rest[size:]
	}
	return b.String()
}

// safeLines is safe for text of several lines, which stay lines.
func safeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = safe(line)
	}
	return strings.Join(lines, "\n")
}

// writeJSON writes v as one line of JSON, as -o json has it of what a server has told.
func writeJSON(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeLine(w, safeJSON(text))
}

// safeJSON is safe for a JSON document, of which it makes an equal one: what a
// terminal would obey is written as JSON escapes it. In strings the controls below
// a blank are escaped already, so a carriage return is white space.
func safeJSON(document []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(document) {
		switch {
		case r == '\r':
			b.WriteByte(' ')
		case r != '\n' && r != '\t' && commands(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

// commands says whether a character tells a terminal to do something.
func commands(r rune) bool {
	switch {
	case r < ' ', 0x7f <= r && r <= 0x9f: // C0; DEL and C1
	case 0x2028 <= r && r <= 0x202e: // separators, bidirectional embeddings and overrides
	case 0x2066 <= r && r <= 0x2069: // bidirectional isolates
	default:
		return false
	}
	return true
}

// safeLine is a formatter whose lines and errors are safe for a terminal.
func safeLine(line formatter) formatter {
	return func(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
		var text bytes.Buffer
		if err := line(&text, m, at); err != nil {
			return errors.New(safe(err.Error()))
		}
		b.WriteString(safe(text.String()))
		return nil
	}
}
