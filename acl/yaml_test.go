package acl

import "github.com/bellwire/bellwire/yamltree"

// Bounds of the reader below, by the names that tests here have for them.
const (
	maxFaults = yamltree.MaxFaults
	maxKeys   = yamltree.MaxKeys
)
