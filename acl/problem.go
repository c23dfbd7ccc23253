package acl

import "github.com/bellwire/bellwire/yamltree"

// A problem is what is wrong with one value, by who reads values: those of a
// policy file, and those that are asked about without one. The reader of a
// file gives it a place.
type problem = yamltree.Problem

func problemf(format string, args ...any) *problem { return yamltree.Problemf(format, args...) }
