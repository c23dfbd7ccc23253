package acl

import "github.com/bellwire/bellwire/yamltree"

// A problem is what is wrong with one value, by who reads values: those of a
// policy file, and those that are asked about without one. The reader of a
// file gives it a place.
type problem struct{ yamltree.Problem }

func problemf(format string, args ...any) *problem {
	return &problem{*yamltree.Problemf(format, args...)}
}

func (p *problem) hint(format string, args ...any) *problem {
	p.Hint(format, args...)
	return p
}

// near makes the likeliest of names the hint, or otherwise if none is near.
func (p *problem) near(word string, names []string, otherwise string) *problem {
	p.Near(word, names, otherwise)
	return p
}

// Unwrap is what the reader of a file looks for.
func (p *problem) Unwrap() error { return &p.Problem }
