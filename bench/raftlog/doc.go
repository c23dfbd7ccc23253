// Package raftlog compares cluster/raftlog with the log stores that others use
// under the same Raft: raft-wal and raft-boltdb. It is a module of its own, so
// that their dependencies are none of ours.
//
//	cd bench/raftlog && go test -bench . -benchtime 3s
//
// RESULTS.md holds the figures of one machine, and how to read them.
package raftlog
