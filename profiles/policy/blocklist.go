package policy

import (
	"bytes"
	"sync"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A Blocklist is whom an owner has blocked, of all kinds: what their policies say of
// these is not asked. It never changes and is safe for concurrent use; nil blocks nobody.
//
//	{"v": 1, "style": "polite",
//	 "blocked": [{"one": "pres:mallory@example.com"}, {"many": {"domain": "example.org"}, "style": "refuse"}]}
//
// It is about whom the owner sees, as policies are: a pseudonym is one by itself, and of
// somebody who shows nothing of who they are it cannot be about.
type Blocklist struct {
	blocked []blocked
	of      index
	apart   map[kind.Addr]struct{} // see identity.apart
	all     bool                   // nobody knows whom it is about
}

// A blocked is one entry of it.
type blocked struct {
	who   identity
	style Style
}

// MaxBlocked is how many entries a blocklist has at most; each is one address, or all of a
// domain, or everybody, without some.
const MaxBlocked = 1000

// ReadBlocklist reads a document of owner's: JSON of at most MaxBytes. The error is a
// *kind.Refusal that tells all faults, each with its JSON pointer. What is not known is a
// fault wherever it stands. Without a style whoever is blocked does not notice (Polite).
func ReadBlocklist(document []byte, owner kind.Addr) (*Blocklist, error) {
	return CheckBlocklist(document, owner, nil)
}

// CheckBlocklist is ReadBlocklist within bounds of a node's own; nil for the most.
func CheckBlocklist(document []byte, owner kind.Addr, within *kind.Bounds) (*Blocklist, error) {
	doc, err := parseWithin(document, within, false)
	if err != nil {
		return nil, err
	}
	l, m, style := &Blocklist{}, doc.Root().Members(), Polite
	if v := m.Need("v"); v != nil {
		v.Int(1, 1)
	}
	if e := m.Take("entity"); e != nil {
		if a, ok := readURI(e); ok && a != owner {
			e.Refuse(kind.ReasonEntityMismatch, "this is the blocklist of %s, not of %s", a, owner)
		}
	}
	if s := m.Take("style"); s != nil {
		style = Style(choice(s, styleWords))
	}
	for i, n := range m.Take("blocked").List(MaxBlocked) {
		b := readBlocked(n, style)
		l.blocked = append(l.blocked, b)
		l.of.add(i, &b.who)
		l.apart = b.who.apart(l.apart)
	}
	faultRest(m, "v", "entity", "style", "blocked")
	if err := doc.Err(); err != nil {
		return nil, kind.RefuseJSON(err)
	}
	return l, nil
}

func readBlocked(n *jsontree.Node, style Style) blocked {
	m, b := n.Members(), blocked{style: style}
	one, of := m.Take("one"), m.Take("many")
	if (one == nil) == (of == nil) && n.Kind() == jsontree.Object {
		n.Fault(`write either "one" or "many"`)
	}
	if a, ok := readURI(one); ok {
		b.who.one = append(b.who.one, a)
	}
	if of != nil {
		b.who.many = append(b.who.many, readMany(of))
	}
	if s := m.Take("style"); s != nil {
		b.style = Style(choice(s, styleWords))
	}
	m.Take("label")
	faultRest(m, "one", "many", "style", "label")
	return b
}

// Of returns whether somebody is blocked, and how they notice: by the first entry that is
// about them.
func (l *Blocklist) Of(w kind.Addr) Blocking {
	if l == nil {
		return 0
	}
	if l.all {
		return BlockingBy(Polite)
	}
	if w.IsZero() {
		return 0
	}
	var buf [64]int32
	for _, i := range l.of.find(w, buf[:0]) {
		if b := &l.blocked[i]; b.who.matches(w) {
			return BlockingBy(b.style)
		}
	}
	return 0
}

// blocklistKey begins the keys of a kind's under which owners' blocklists are.
const blocklistKey = "\x0d"

// BlocklistKey is the key of a kind's under which the blocklist of an owner is.
func BlocklistKey(owner kind.Addr) string { return blocklistKey + owner.String() }

// Blocklists keeps blocklists as they were read last. Safe for concurrent use; zero is
// empty.
type Blocklists struct {
	mu    sync.Mutex // guards the following
	read  map[kind.Addr]readList
	bytes int // charged for read
}

type readList struct {
	document []byte
	list     *Blocklist
}

// blocklistBytes bounds what lists are charged for that are kept. The loser is any.
const blocklistBytes = 16 << 20

func (r readList) bytes() int { return readingTimes*len(r.document) + readingBytes }

// Of returns the blocklist of owner by what get returns of a kind's keys; nil for none. One
// that this version cannot read blocks everybody. What get returns must not change.
func (c *Blocklists) Of(get func(key string) []byte, owner kind.Addr) *Blocklist {
	document := get(BlocklistKey(owner))
	if document == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.read[owner]; ok && bytes.Equal(was.document, document) {
		return was.list
	}
	l, err := ReadBlocklist(document, owner)
	if err != nil {
		l = &Blocklist{all: true}
	}
	c.keep(owner, readList{document, l})
	return l
}

// keep adds a list. Requires mu.
func (c *Blocklists) keep(owner kind.Addr, r readList) {
	if c.read == nil {
		c.read = map[kind.Addr]readList{}
	}
	c.drop(owner)
	for other := range c.read {
		if c.bytes+r.bytes() <= blocklistBytes {
			break
		}
		c.drop(other)
	}
	c.read[owner] = r
	c.bytes += r.bytes()
}

// drop forgets a list. Requires mu.
func (c *Blocklists) drop(owner kind.Addr) {
	if r, ok := c.read[owner]; ok {
		c.bytes -= r.bytes()
		delete(c.read, owner)
	}
}
