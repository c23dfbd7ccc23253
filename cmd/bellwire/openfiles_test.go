package main

import (
	"math"
	"testing"
)

// Clients never have the files that the node needs for itself, and have all others.
func TestFileShares(t *testing.T) {
	for _, c := range []struct {
		files         uint64
		clients, http int
	}{
		{64, 24, 8},
		{1024, 384, 128},
		{4096, 1984, 512},
		{1 << 20, 1<<20 - ownFiles - httpConnections, httpConnections},
		{math.MaxUint64, math.MaxInt32 - ownFiles - httpConnections, httpConnections},
	} {
		if clients, http := fileShares(c.files); clients != c.clients || http != c.http {
			t.Errorf("%d files: %d for clients and %d for HTTP, want %d and %d", c.files, clients, http, c.clients, c.http)
		}
	}
}
