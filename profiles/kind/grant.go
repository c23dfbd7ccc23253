package kind

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// A PermType fixes how grants of one permission combine (RFC 4745 section
// 10.2): together they never show less than each of them.
type PermType uint8

const (
	PermBool PermType = iota // granted or not; OR
	PermMax                  // a whole number of which more shows more, or one of a row of words; maximum
	PermSet                  // tokens, "*" for all; union
	PermMin                  // a whole number of which less shows more, such as a radius in metres; minimum
)

// A Permission is something an owner can show of a resource, by the name it has
// in policies.
type Permission struct {
	Name string
	Type PermType

	// Words are the values of a PermMax, from the one that shows nothing; nil
	// if they are numbers.
	Words []string

	// Max is the greatest number, of a PermMin and of a PermMax without words.
	Max int64

	// Check returns what is wrong with a token of a PermSet, nil if nothing is.
	// A nil Check accepts all.
	Check func(token string) error
}

// Everything is the token of a PermSet that stands for all.
const Everything = "*"

// A Perm is one permission as it is granted, never one that shows nothing.
type Perm struct {
	Name string
	Type PermType
	N    int64    // PermMax: the number, or the index of the word, at least 1; PermMin: the number
	Set  []string // PermSet: sorted, no token twice, at least one
}

// A Grant is what one watcher may see of one resource. The zero Grant shows
// nothing. It never changes; the functions of this package make new ones.
type Grant struct {
	perms     []Perm // sorted by name, no name twice
	persona   string
	overrides []Override // sorted by name, no name twice
}

// NewGrant returns the grant of perms, in any order. Those that show nothing
// are left out; of two with one name the union is taken.
func NewGrant(perms ...Perm) Grant {
	all := make([]Perm, 0, len(perms))
	for _, p := range perms {
		if (p.Type == PermMax && p.N < 1) || (p.Type == PermSet && len(p.Set) == 0) {
			continue
		}
		if len(p.Set) > 1 {
			p.Set = slices.Compact(slices.Sorted(slices.Values(p.Set)))
		}
		all = append(all, p)
	}
	return Grant{perms: joined(all)}
}

// joined returns perms, which it may change, sorted by name, and those of one name as one.
func joined(perms []Perm) []Perm {
	slices.SortStableFunc(perms, func(a, b Perm) int { return strings.Compare(a.Name, b.Name) })
	n := 0
	for rest := perms; len(rest) > 0; n++ {
		same := 1
		for same < len(rest) && rest[same].Name == rest[0].Name {
			same++
		}
		perms[n] = oneOf(rest[:same])
		rest = rest[same:]
	}
	return slices.Clip(perms[:n])
}

// oneOf returns the union of perms, which are of one name and one type. Of sets it is made
// at once: a policy has as many as it has rules.
func oneOf(perms []Perm) Perm {
	p := perms[0]
	if len(perms) == 1 {
		return p
	}
	var sets [][]string
	for _, q := range perms {
		switch p.Type {
		case PermMax:
			p.N = max(p.N, q.N)
		case PermMin:
			p.N = min(p.N, q.N)
		case PermSet:
			sets = append(sets, q.Set)
		}
	}
	if sets != nil {
		p.Set = slices.Concat(sets...)
		slices.Sort(p.Set)
		p.Set = slices.Compact(p.Set)
	}
	return p
}

// everything is the set of a PermSet that has all. It is not changed, as no set of a grant is.
var everything = []string{Everything}

// Most returns the grant that shows everything there is: what the owner of a
// resource sees.
func Most(permissions []Permission) Grant {
	perms := make([]Perm, 0, len(permissions))
	for _, p := range permissions {
		switch p.Type {
		case PermBool, PermMin:
			perms = append(perms, Perm{Name: p.Name, Type: p.Type})
		case PermMax:
			perms = append(perms, Perm{Name: p.Name, Type: p.Type, N: p.Most()})
		case PermSet:
			perms = append(perms, Perm{Name: p.Name, Type: p.Type, Set: everything})
		}
	}
	return NewGrant(perms...)
}

// Most returns the greatest value of a PermMax or a PermMin.
func (p Permission) Most() int64 {
	if p.Words != nil {
		return int64(len(p.Words) - 1)
	}
	return p.Max
}

// IsZero says whether the grant shows nothing.
func (g Grant) IsZero() bool { return len(g.perms) == 0 }

// Is says whether g and h are one value, made once and copied. It costs nothing,
// and a no says nothing: two that were made alike are compared by Covers.
func (g Grant) Is(h Grant) bool {
	return len(g.perms) == len(h.perms) && (len(g.perms) == 0 || &g.perms[0] == &h.perms[0]) && g.persona == h.persona &&
		len(g.overrides) == len(h.overrides) && (len(g.overrides) == 0 || &g.overrides[0] == &h.overrides[0])
}

// Perms returns what is granted, sorted by name. It must not be changed.
func (g Grant) Perms() []Perm { return g.perms }

func (g Grant) find(name string) (Perm, bool) {
	for _, p := range g.perms {
		if p.Name == name {
			return p, true
		}
	}
	return Perm{}, false
}

// Has says whether the permission is granted at all: for a PermBool, that is
// all there is to know.
func (g Grant) Has(name string) bool {
	_, ok := g.find(name)
	return ok
}

// Max returns the number of a PermMax, or the index of its word; 0 if it is not
// granted.
func (g Grant) Max(name string) int64 {
	p, _ := g.find(name)
	return p.N
}

// Set returns the tokens of a PermSet. It must not be changed.
func (g Grant) Set(name string) []string {
	p, _ := g.find(name)
	return p.Set
}

// Allows says whether a PermSet has the token, or all.
func (g Grant) Allows(name, token string) bool {
	set := g.Set(name)
	return has(set, Everything) || has(set, token)
}

// has says whether a set of a grant has a token.
func has(set []string, token string) bool {
	_, is := slices.BinarySearch(set, token)
	return is
}

// Min returns the value of a PermMin; ok is false if it is not granted.
func (g Grant) Min(name string) (n int64, ok bool) {
	p, ok := g.find(name)
	return p.N, ok
}

// Union returns the grant that shows what g shows and what h shows, of no persona
// and without overrides. Permissions of one name must be of one type.
func (g Grant) Union(h Grant) Grant {
	if g.IsZero() {
		return Grant{perms: h.perms}
	}
	if h.IsZero() {
		return Grant{perms: g.perms}
	}
	return Grant{perms: joined(slices.Concat(g.perms, h.perms))}
}

// Together is the union of all of grants, in a time that goes by what they have in all.
func Together(grants ...Grant) Grant {
	var perms []Perm
	some, last := 0, Grant{}
	for _, g := range grants {
		if g.IsZero() {
			continue
		}
		some, last = some+1, g
		perms = append(perms, g.perms...)
	}
	if some < 2 {
		return Grant{perms: last.perms} // the same one: see Is
	}
	return Grant{perms: joined(perms)}
}

// Covers says whether g shows all that h shows.
func (g Grant) Covers(h Grant) bool {
	for _, q := range h.perms {
		p, ok := g.find(q.Name)
		if !ok {
			return false
		}
		switch p.Type {
		case PermMax:
			ok = p.N >= q.N
		case PermMin:
			ok = p.N <= q.N
		case PermSet:
			ok = has(p.Set, Everything) || !slices.ContainsFunc(q.Set, func(token string) bool { return !has(p.Set, token) })
		}
		if !ok {
			return false
		}
	}
	return true
}

// A Class names all grants that show the same. A document is rendered once for
// each class of its watchers, whatever their number.
type Class [16]byte

// String is the class in hexadecimal.
func (c Class) String() string { return hex.EncodeToString(c[:]) }

// Class returns the class of the grant: a hash of its canonical form, the same
// on every node and in every version. "*" makes the other tokens of its set
// // mean nothing. What a persona's watchers see has names of its own, so that nobody
// who sees another can tell that they are of one.
func (g Grant) Class() Class {
	h := sha256.New()
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = append(b, "bellwire grant 1\n"...)
	for _, p := range g.perms {
		text(p.Name)
		b = append(b, byte(p.Type))
		b = binary.AppendVarint(b, p.N)
		set := p.Set
		if has(set, Everything) {
			set = []string{Everything}
		}
		b = binary.AppendUvarint(b, uint64(len(set)))
		for _, token := range set {
			text(token)
		}
	}
	if g.persona != "" && g.persona != Everything || g.overrides != nil {
		b = append(b, "as\n"...)
		text(g.persona)
		for _, o := range g.overrides {
			text(o.Name)
			text(o.Value.String())
		}
	}
	h.Write(b)
	return Class(h.Sum(nil)[:len(Class{})])
}

// Append appends the grant as the `show` of a policy's rule: in JSON, in one
// form. Numbers that permissions have words for are written as these.
func (g Grant) Append(dst []byte, permissions []Permission) []byte {
	dst = append(dst, '{')
	for i, p := range g.perms {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(jsontree.AppendString(dst, p.Name), ':')
		switch p.Type {
		case PermBool:
			dst = append(dst, "true"...)
		case PermSet:
			dst = jsontree.OfStrings(p.Set).Append(dst)
		case PermMin, PermMax:
			dst = p.appendNumber(dst, permissions)
		}
	}
	return append(dst, '}')
}

func (p Perm) appendNumber(dst []byte, permissions []Permission) []byte {
	for _, known := range permissions {
		if known.Name == p.Name && p.N < int64(len(known.Words)) {
			return jsontree.AppendString(dst, known.Words[p.N])
		}
	}
	return jsontree.OfInt(p.N).Append(dst)
}
