// Package raftlog keeps what Raft must not forget: its log, its term and vote,
// and copies of the state (snapshots).
//
// Log and votes of all groups of a node stand in one Pebble database, the DB, with
// a write-ahead log that is synced at every commit. The state itself is another
// database, without such a log, opened elsewhere: it is recovered by applying the
// entries that follow its durable index, and so no entry that follows that index
// is ever truncated here (Log.DeleteRange).
//
// A disk that fails or hangs is not answered with an error, because Raft would
// go on: it would elect another leader and elect the broken one again, or wait
// for ever. It ends the process (Options.Die), and the other nodes carry on.
// Data that does not read back as it was written is ErrDamaged, at the start;
// nothing is repaired or overwritten.
//
// # Keys
//
//	'L' group index        an entry of the log    (u32, u64, big endian: 13 bytes)
//	'S' group name         a stable value of Raft, or one of our own
//
// # Entries, version 1
//
//	 0  version      1 byte, 1
//	 1  type         1 byte, raft.LogType
//	 2  term         u64
//	10  total        u64, bytes of all entries of this log up to and with this one
//	18  appended at  i64, unix nanoseconds on the leader, 0 for none
//	26  extensions   u32, their length
//	30  extensions, then data
//	-4  checksum     u32, CRC-32C of the key and all that precedes
//
// Integers are big endian. total makes "how many bytes follow index i" a matter of
// two reads, so that retention can be bounded by bytes. The checksum covers the
// key, so that an entry that turns up in another's place is noticed.
//
// # Files
//
// Beside Pebble's files the directory holds mark-GROUP, which proves that the end
// of a log is its end: see mark. Snapshots are described at the type of that name.
package raftlog
