package acl

import (
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/yamltree"
)

// MaxFile is the size of the largest policy file, in bytes.
const MaxFile = yamltree.MaxFile

// A FileError is everything that is wrong with a policy file. Who meant
// another policy to be in effect keeps the old one.
type FileError = yamltree.FileError

// form is what is particular to policy files.
var form = yamltree.Form{Advise: advise, Hide: hideUsers}

// A reader makes a policy of the nodes of a file.
type reader struct {
	*yamltree.Reader
	policy *Policy
	part   *partRules // nil: it is the operator's file

	zones   zoneCache
	windows map[string]*Window // by all their parts: rules share what is equal
	groups  map[string]*group
	rules   map[string]*rule
}

// readInstants returns the instants of an `at`: one, or a list.
func (r *reader) readInstants(n *yamltree.Node) []time.Time {
	var ats []time.Time
	for _, v := range r.Values(n, "at") {
		u, err := parseInstant(v.Text, r.zones, nil)
		if err != nil {
			r.Report(v, err)
			continue
		}
		ats = append(ats, utc(u))
	}
	return ats
}

// advise says what to write instead of a line that is no YAML because YAML
// has uses of its own for the signs that topics and patterns begin with.
func advise(line string) string {
	switch {
	case strings.Contains(line, "*@") || strings.Contains(line, "[*") || strings.HasSuffix(strings.TrimSpace(line), " *"):
		return `quote what begins with *, for YAML takes it for an alias: "*@example.com"`
	case strings.Contains(line, "[#") || strings.Contains(line, " #"):
		return `quote a topic that begins with #, for YAML takes it for a comment: "#"`
	case strings.Contains(line, "[") && strings.Contains(line, "{"):
		return `quote a topic with braces inside [ ]: "home/{local}/#"`
	}
	return ""
}

// hideUsers returns lines without the values in the section of users: a
// misspelt key is just what there may be to report there.
func hideUsers(lines []string) []string {
	hidden := make([]string, len(lines))
	inUsers := false
	for i, line := range lines {
		name, _, isKey := strings.Cut(line, ":")
		switch {
		case isKey && !strings.ContainsAny(line[:1], " \t#-"):
			inUsers = !slices.Contains(sections[1:], strings.TrimSpace(name))
		case strings.HasPrefix(line, "---"):
			inUsers = false
		}
		if inUsers {
			line = hideValue(line)
		}
		hidden[i] = line
	}
	return hidden
}

// hideValue hides what follows the last key of a line that it understands.
func hideValue(line string) string {
	const mark = "…"
	rest := strings.TrimLeft(line, " ")
	if rest == "" || rest[0] == '#' {
		return line
	}
	_, value, isKey := strings.Cut(rest, ":")
	if !isKey {
		return line[:len(line)-len(rest)] + mark
	}
	inner := strings.TrimLeft(value, " ")
	if strings.HasPrefix(inner, "{") {
		if _, after, more := strings.Cut(inner, ":"); more {
			inner = strings.TrimLeft(after, " ")
		} else {
			return line // {} or a mapping that begins here
		}
	}
	if strings.TrimSpace(inner) == "" {
		return line
	}
	return line[:len(line)-len(inner)] + mark
}
