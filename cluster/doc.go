// Package cluster hosts a replicated state machine: it orders batches of bytes
// into one log, keeps that log safe, and has the Machine apply it, on every node
// alike. It knows bytes and indexes, and nothing of what they mean.
//
// A Node of one voter is the same thing as a node of several: the Raft of
// github.com/hashicorp/raft, a log that is synced before anything is
// acknowledged (cluster/raftlog), snapshots, a disk watchdog. Only the transport
// differs, which for one voter is in memory.
//
// The path of a batch:
//
//	Submit -> waiting -> packed into an entry -> raft -> on disk -> committed -> Machine.Apply
//
// At most two entries are on their way at a time, and the second only if it is at
// least as large as the first. What is submitted meanwhile waits, and goes together.
// So entries are small while there is little to do, grow by themselves when there is
// much, and nobody waits for a timer.
//
// # Entries, version 1
//
//	0  version  1 byte, 1
//	1  stamp    i64 big endian, unix nanoseconds: the time of the log
//	9  count    uvarint, then as many batches: uvarint length, and the bytes
//
// The stamp of an entry is never less than that of the entry before. See
// logClock for where it comes from.
//
// # Directory
//
//	DIR/LOCK        held while a process uses the directory
//	DIR/node.json   whose it is: see Dir
//	DIR/contested.json  that it is not to serve: see ContestedError
//	DIR/raft/       the log, the term, the vote
//	DIR/state/      the Machine's, and opened by whoever makes the Machine
//	DIR/snapshots/  copies of the state
package cluster
