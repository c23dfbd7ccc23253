package watchers

import (
	"strconv"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// Counts are how many watch an owner. They are true whoever watches.
type Counts struct {
	// Of those who watch: each is one of these three.
	Identified, Pseudonymous, Anonymous uint64

	Polite  uint64 // how many of these the owner has put off politely
	Pending uint64 // who wait for the owner's word
	Fetched uint64 // who have fetched in the last 24 hours, and do not watch
}

// Total is how many watch.
func (c *Counts) Total() uint64 { return c.Identified + c.Pseudonymous + c.Anonymous }

// Of returns the count of who is seen so.
func (c *Counts) Of(v Visibility) *uint64 {
	switch v {
	case Pseudonymous:
		return &c.Pseudonymous
	case Anonymous:
		return &c.Anonymous
	}
	return &c.Identified
}

// A Publishing is what an owner's policy says about counts: what others are told,
// and from how many on single anonymous watchers are. The zero value tells others
// nothing and the owner everything.
type Publishing struct {
	Others bool   // others are told a rounded total
	Round  uint64 // to a multiple of this, downwards; at least 1
	Min    uint64 // and nothing while there are fewer

	// AnonymousFrom keeps a crowd small enough from being told apart: while there are
	// fewer anonymous watchers, and any, their number is not told and the list has
	// none of them. 0 or 1: always told.
	AnonymousFrom uint64
}

// crowded says whether the number of anonymous watchers may be told.
func (p *Publishing) crowded(c *Counts) bool {
	return c.Anonymous == 0 || c.Anonymous >= p.AnonymousFrom
}

// Hidden says whether the list must not have anonymous watchers.
func (p *Publishing) Hidden(c *Counts) bool { return !p.crowded(c) }

// JSON writes the counts for their owner.
func (c *Counts) JSON(p *Publishing) []byte {
	var w jsontree.Writer
	member := func(name string, n uint64) {
		w.Name(name)
		w.Int(int64(n))
	}
	w.Open('{')
	member("identified", c.Identified)
	member("pseudonymous", c.Pseudonymous)
	if p.crowded(c) {
		member("anonymous", c.Anonymous)
	} else {
		w.Member("anonymous", "<"+strconv.FormatUint(p.AnonymousFrom, 10))
	}
	member("pending", c.Pending)
	member("polite", c.Polite)
	member("fetchers24h", c.Fetched)
	if p.crowded(c) { // or it would tell
		member("total", c.Total())
	}
	w.Close('}')
	return w.Bytes()
}

// PublicJSON writes what others are told. ok is false if that is nothing: then it
// must look as if nothing were ever told.
func (c *Counts) PublicJSON(p *Publishing) (document []byte, ok bool) {
	total := c.Total()
	if !p.Others || total < p.Min || p.Hidden(c) { // the owner, too, is not told the total then
		return nil, false
	}
	if p.Round > 1 {
		total -= total % p.Round
	}
	var w jsontree.Writer
	w.Open('{')
	w.Name("total")
	w.Int(int64(total))
	w.Close('}')
	return w.Bytes(), true
}

// MostPublished bounds the numbers of a Publishing.
const MostPublished = 1_000_000

// ReadPublishing takes from a policy's members what it says about counts:
//
//	"publishCount": {"round": 10, "min": 20}, "anonymousShownFrom": 5
func ReadPublishing(m *jsontree.Members) (p Publishing) {
	if n := m.Take("publishCount"); n != nil {
		of := n.Members()
		p.Others, p.Round = true, 1
		if r := of.Take("round"); r != nil {
			p.Round = uint64(r.Int(1, MostPublished))
		}
		if r := of.Take("min"); r != nil {
			p.Min = uint64(r.Int(0, MostPublished))
		}
		for _, rest := range of.Rest() {
			rest.Fault("no such member here: there are round and min")
		}
	}
	if n := m.Take("anonymousShownFrom"); n != nil {
		p.AnonymousFrom = uint64(n.Int(0, MostPublished))
	}
	return p
}
