package acl

import (
	"strings"

	"github.com/bellwire/bellwire/broker/topic"
)

// A pattern is a topic of a rule: an MQTT filter in which {local}, {domain} and
// {client} stand for the parts of whoever asks. What they stand for is escaped
// (appendEscaped), so that nobody's name reaches into another level.
type pattern struct {
	text   string
	levels []level
}

// A level of a pattern is a word, "+", "#", or a template with holes.
type level struct {
	text  string // as written
	parts []part // of a template; nil for the others
}

// A part of a template is a hole, or text that stands for itself.
type part struct {
	hole hole
	text string
}

type hole uint8

const (
	noHole hole = iota
	localHole
	domainHole
	clientHole
)

// holes are the placeholders as they are written, by hole.
var holes = [...]string{localHole: "{local}", domainHole: "{domain}", clientHole: "{client}"}

// parsePattern reads a topic of a rule.
func parsePattern(s string) (*pattern, error) {
	p := &pattern{text: s}
	var plain strings.Builder // s with an innocent word in each hole
	for i, text := range strings.Split(s, "/") {
		parts, err := parseParts(text)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			plain.WriteByte('/')
		}
		for _, part := range parts {
			if part.hole != noHole {
				plain.WriteByte('x')
			}
			plain.WriteString(part.text)
		}
		l := level{text: text}
		if strings.ContainsRune(text, '{') {
			l.parts = parts
		}
		p.levels = append(p.levels, l)
	}
	filter := plain.String()
	if err := topic.ValidFilter(filter); err != nil {
		return nil, problemf("%q is no topic filter: %v", shown(s), err)
	}
	if strings.HasPrefix(s, "$share/") {
		return nil, problemf("%q is a shared subscription", shown(s)).
			Hint("write the filter that is shared: who may subscribe to it may share it")
	}
	return p, nil
}

// parseParts takes a level apart at its holes.
func parseParts(s string) ([]part, error) {
	var parts []part
	for s != "" {
		text, rest, found := strings.Cut(s, "{")
		if strings.ContainsRune(text, '}') {
			return nil, problemf("a } without a { in %q", shown(s)).Hint("placeholders are {local}, {domain} and {client}")
		}
		if text != "" {
			parts = append(parts, part{text: text})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, problemf("a { without a } in %q", shown(s)).Hint("placeholders are {local}, {domain} and {client}")
		}
		h, err := parseHole("{" + name + "}")
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{hole: h})
		s = after
	}
	return parts, nil
}

func parseHole(s string) (hole, error) {
	for h, name := range holes {
		if s == name {
			return hole(h), nil
		}
	}
	return noHole, problemf("%q is no placeholder", shown(s)).
		Near(s, holes[1:], "placeholders are {local}, {domain} and {client}")
}

// value returns what stands in hole h for who, empty if nothing does: then no
// topic matches.
func (w Who) value(h hole) string {
	switch h {
	case localHole:
		return w.local()
	case domainHole:
		return w.domain()
	case clientHole:
		return w.Client
	}
	return ""
}

// matches says whether the template is text for who. It allocates nothing.
func (l *level) matches(text string, who Who) bool {
	for _, p := range l.parts {
		var ok bool
		if p.hole == noHole {
			text, ok = strings.CutPrefix(text, p.text)
		} else {
			text, ok = cutEscaped(text, who.value(p.hole))
		}
		if !ok {
			return false
		}
	}
	return text == ""
}

// filterFor returns the pattern as a filter for who; ok is false if a hole is empty.
func (p *pattern) filterFor(who Who) (filter string, ok bool) {
	var b []byte
	for i, l := range p.levels {
		if i > 0 {
			b = append(b, '/')
		}
		if l.parts == nil {
			b = append(b, l.text...)
			continue
		}
		for _, part := range l.parts {
			b = append(b, part.text...)
			if part.hole == noHole {
				continue
			}
			value := who.value(part.hole)
			if value == "" {
				return "", false
			}
			b = appendEscaped(b, value)
		}
	}
	return string(b), true
}

// mustEscape says whether byte i of a value is escaped where it stands in a
// topic: separators and wildcards, control characters, a $ that would begin a
// name, and % itself, so that no two values look alike.
func mustEscape(value string, i int) bool {
	switch c := value[i]; c {
	case '%', '/', '+', '#', 0x7f:
		return true
	case '$':
		return i == 0
	default:
		return c < ' '
	}
}

// Escaped returns value as it stands in one level of a topic, where a
// placeholder or an address's name is: percent-encoded where it must be, and
// nowhere else, so that each value has one spelling.
func Escaped(value string) string {
	for i := range len(value) {
		if mustEscape(value, i) {
			return string(appendEscaped(nil, value))
		}
	}
	return value
}

const upperHex = "0123456789ABCDEF"

// appendEscaped appends value to b, percent-encoded where it must be.
func appendEscaped(b []byte, value string) []byte {
	for i := range len(value) {
		c := value[i]
		if mustEscape(value, i) {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// cutEscaped removes the escaped value from the front of text. An empty value
// is never there.
func cutEscaped(text, value string) (rest string, ok bool) {
	for i := range len(value) {
		c := value[i]
		if !mustEscape(value, i) {
			if text == "" || text[0] != c {
				return "", false
			}
			text = text[1:]
			continue
		}
		if len(text) < 3 || text[0] != '%' || text[1] != upperHex[c>>4] || text[2] != upperHex[c&15] {
			return "", false
		}
		text = text[3:]
	}
	return text, value != ""
}

// shown returns s short enough for a message.
func shown(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
