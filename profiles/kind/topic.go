package kind

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bellwire/bellwire/acl"
)

// A Resource is what is watched or written to: a kind of event about one
// address.
type Resource struct {
	Kind string // "presence"
	Addr Addr
}

// Topic returns the resource's topic: presence/example.com/bob.
func (r Resource) Topic() string {
	return r.Kind + "/" + r.Addr.Domain + "/" + acl.Escaped(r.Addr.Local)
}

// MaxSource is the longest name of a source, in bytes, before it is escaped.
const MaxSource = 256

// A Topic is what a topic below a kind's prefix means: a resource, or one named
// thing in it.
type Topic struct {
	Resource

	// Source is the fourth level, unescaped: the name of a source of a state
	// kind, or a channel of an inbox, such as "reports". Empty if the topic is
	// the resource's own.
	Source string

	// Persona is the fifth level, without its @: for which face of the owner the
	// source speaks. Empty if it speaks for all.
	Persona string
}

// ParseTopic reads {kind}/{domain}/{local}, {kind}/{domain}/{local}/{source} and
// {kind}/{domain}/{local}/{source}/@{persona}.
// Each topic has one spelling, so that one resource is not two for the index
// of subscriptions: the domain must be canonical, the others escaped where and
// only where they must be, in upper-case hexadecimal. The error wraps
// ErrAddress and says what to write instead.
func ParseTopic(name string) (Topic, error) {
	levels := strings.SplitN(name, "/", 6)
	if len(levels) < 3 || len(levels) > 5 || len(levels) == 5 && !strings.HasPrefix(levels[4], "@") {
		return Topic{}, addressf("%q has %d levels: write kind/domain/name, kind/domain/name/source or kind/domain/name/source/@persona", short(name), len(levels))
	}
	domain, err := acl.ParseDomain(levels[1])
	if err != nil {
		return Topic{}, addressf("%v", err)
	}
	local, err := unescaped(levels[2])
	if err != nil {
		return Topic{}, err
	}
	canonical, err := acl.ParseAddress(local+"@"+domain, "")
	if err != nil {
		return Topic{}, addressf("%v", err)
	}
	t := Topic{Resource: Resource{Kind: levels[0], Addr: Of(canonical)}}
	if want := t.Resource.Topic(); want != strings.Join(levels[:3], "/") {
		want = strings.Join(append([]string{want}, levels[3:]...), "/")
		return Topic{}, addressf("%q is not how this topic is spelt: write %q", short(name), want)
	}
	if len(levels) == 3 {
		return t, nil
	}
	if t.Source, err = unescaped(levels[3]); err != nil {
		return Topic{}, err
	}
	switch {
	case t.Source == "" || len(t.Source) > MaxSource:
		return Topic{}, addressf("a source's name of %d bytes: want 1 to %d", len(t.Source), MaxSource)
	case acl.Escaped(t.Source) != levels[3]:
		return Topic{}, addressf("%q is not how this source is spelt: write %q", short(levels[3]), acl.Escaped(t.Source))
	}
	if len(levels) == 5 {
		t.Persona = levels[4][1:]
		if err = CheckPersona(t.Persona); err != nil {
			return Topic{}, err
		}
	}
	return t, nil
}

// MaxPersona is the longest name of a persona, in bytes.
const MaxPersona = 64

// CheckPersona returns an error that wraps ErrAddress if no persona can have this
// name.
func CheckPersona(name string) error {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	if name == "" || len(name) > MaxPersona || strings.ContainsFunc(name, odd) {
		return addressf("%q is no name of a persona: it has 1 to %d small letters, digits and -_. such as work", short(name), MaxPersona)
	}
	return nil
}

// Key is what the publication of a source is kept under: another for each persona.
// No source that a device can name begins with @.
func (t Topic) Key() string {
	if t.Persona == "" {
		return t.Source
	}
	return "@" + t.Persona + "/" + t.Source
}

// SplitKey is the inverse of Key.
func SplitKey(key string) (persona, source string) {
	if !strings.HasPrefix(key, "@") {
		return "", key
	}
	persona, source, _ = strings.Cut(key[1:], "/")
	return persona, source
}

// Name returns the topic that t was read from.
func (t Topic) Name() string {
	if t.Source == "" {
		return t.Resource.Topic()
	}
	name := t.Resource.Topic() + "/" + acl.Escaped(t.Source)
	if t.Persona != "" {
		name += "/@" + t.Persona
	}
	return name
}

// unescaped resolves the percent-escapes of a topic's level.
func unescaped(level string) (string, error) {
	s, err := percentDecoded(level)
	if err == nil && !utf8.ValidString(s) {
		err = addressf("%q is not UTF-8 when unescaped", short(level))
	}
	return s, err
}

// The names of sources that a device cannot choose, beside those that begin
// with ~ (sources without a name) or @ (personas).
const (
	Reports = "reports" // where an inbox's owner learns what became of messages
	Typing  = "typing"  // that somebody is writing, while it lasts
)

// CheckSource returns an error that wraps ErrAddress if a device may not give
// its source this name.
func CheckSource(name string) error {
	switch {
	case name == "" || len(name) > MaxSource:
		return addressf("a source's name of %d bytes: want 1 to %d", len(name), MaxSource)
	case name[0] == '~', name[0] == '@', name == Reports, name == Typing:
		return addressf("the name %q is reserved: call the source after the device, such as phone", short(name))
	}
	return nil
}

// DefaultSource is the source of a client that publishes without naming one.
// Two clients have two; none is one that a client can name.
func DefaultSource(client string) string { return "~" + client }

// String describes the resource for people.
func (r Resource) String() string { return fmt.Sprintf("%s of %s", r.Kind, r.Addr) }
