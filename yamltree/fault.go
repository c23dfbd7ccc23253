package yamltree

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxFaults is how many faults of one file are told: who has more has another
// kind of file in hand.
const MaxFaults = 100

// A Fault is one thing that is wrong in a file.
type Fault struct {
	Line   int    // from 1; 0 if the fault is not at any line
	Column int    // from 1, in characters, of the first one concerned
	What   string // what is wrong, and why
	Hint   string // what to write instead; may be empty
}

// A FileError is everything that is wrong with a file. Who meant to put it in
// the place of another keeps the old one.
type FileError struct {
	File   string
	Faults []Fault // in the order of the file, at least one
	More   int     // faults beyond those that are told

	lines []string // of the file, without secrets
}

// Error names every fault on a line of its own.
func (e *FileError) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.head(f))
		if f.Hint != "" {
			b.WriteString(": " + f.Hint)
		}
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n%s: and %d more", e.File, e.More)
	}
	return b.String()
}

// Report shows every fault with the lines it stands in, a caret below it, and
// what to do. Secrets in those lines are left out. It ends with a newline.
func (e *FileError) Report() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.head(f) + "\n")
		e.excerpt(&b, f)
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n%s: and %d more faults\n", e.File, e.More)
	}
	return b.String()
}

func (e *FileError) head(f Fault) string {
	if f.Line == 0 {
		return e.File + ": " + f.What
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, f.Line, f.Column, f.What)
}

// excerpt writes the line of f below up to three before it.
func (e *FileError) excerpt(b *strings.Builder, f Fault) {
	const before, width = 3, 160
	indent := "  "
	if f.Line >= 1 && f.Line <= len(e.lines) {
		shown := ""
		for n := max(1, f.Line-before); n <= f.Line; n++ {
			mark := ' '
			if n == f.Line {
				mark = '>'
			}
			shown = shorten(e.lines[n-1], width)
			fmt.Fprintf(b, "%c%5d | %s\n", mark, n, shown)
		}
		end := utf8.RuneCountInString(shown)
		if strings.HasSuffix(shown, "…") {
			end-- // what the caret is for may be left out there
		}
		indent = strings.Repeat(" ", 9+min(max(f.Column-1, 0), end))
		b.WriteString(indent + "^\n")
	}
	if f.Hint != "" {
		b.WriteString(indent + f.Hint + "\n")
	}
}

// withoutSecrets returns lines without what must not get into a terminal's or a
// log's history.
func withoutSecrets(lines []string, form Form) []string {
	if form.Hide != nil {
		lines = form.Hide(lines)
	}
	hidden := make([]string, len(lines))
	below := -1 // a secret's key is indented so far, and its value may go on; -1 for none
	for i, line := range lines {
		text := strings.TrimLeft(line, " ")
		indent := len(line) - len(text)
		switch key := secretKey.FindStringSubmatch(line); {
		case text == "":
		case below >= 0 && indent > below:
			line = line[:indent] + "…"
		case key == nil:
			below = -1
		case text[0] == '#':
		case key[1] != "" && key[1] != "#" || i+1 == len(lines) || !anyKey.MatchString(lines[i+1]):
			below = len(line) - len(strings.TrimLeft(line, " -"))
		default:
			below = -1 // a mapping or a list of them, whose keys say what is secret
		}
		for _, s := range secrets {
			line = s.ReplaceAllString(line, "${1}…")
		}
		hidden[i] = line
	}
	return hidden
}

// secretKey finds a key whose value is secret, and what there is of that on its line. anyKey is a
// line with a key.
var (
	secretKey = regexp.MustCompile(`(?i)[\w-]*(?:pass|token|secret|hash)[\w-]*["']?\s*:\s*(\S?).*`)
	anyKey    = regexp.MustCompile(`^\s*(?:- *)*[\w"'-]+\s*:(?:\s|$)`)
)

// secrets find what gives itself away, wherever it stands.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`(?i)([\w-]*(?:pass|token|secret|hash)[\w-]*["']?\s*:\s*)\S.*`),
	regexp.MustCompile(`(\$argon2|\$2[aby]\$|\$5\$|\$6\$)\S*`),
	regexp.MustCompile(`()\b[0-9A-Fa-f]{40,}\b`),
}

// shorten cuts line to n characters and makes visible what a terminal would
// obey or hide (control characters, changes of direction), so that it shows
// what is there.
func shorten(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n--; n < 0 {
			b.WriteRune('…')
			break
		}
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			b.WriteRune('·')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// faults gathers what is wrong with one file.
type faults struct {
	list []Fault
	more int
	told int // calls of add: more than faults, if an alias repeats one
}

func (f *faults) add(fault Fault) {
	const most = 400 // characters; what is quoted may be long, and may be escapes
	f.told++
	fault.What, fault.Hint = shorten(fault.What, most), shorten(fault.Hint, most)
	switch {
	case slices.Contains(f.list, fault): // one value, read by two names
	case len(f.list) == MaxFaults:
		f.more++
	default:
		f.list = append(f.list, fault)
	}
}

// err returns what was gathered, nil if it is nothing.
func (f *faults) err(file string, data []byte, form Form) error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	lines := strings.Split(unixLines(strings.TrimPrefix(string(data), byteOrderMark)), "\n")
	return &FileError{File: file, Faults: f.list, More: f.more, lines: withoutSecrets(lines, form)}
}
