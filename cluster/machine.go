package cluster

// A Machine is the replicated state machine that a Node hosts. The same entries
// in the same order leave every Machine in the same state.
//
// Apply, Configure, Restore and Now are called by one goroutine at a time, never two of
// them at once. Durable, Flush and Checkpoint may be called at any time by any
// other.
type Machine interface {
	// Apply applies one entry. It is called in the order of indexes, and after a
	// start once for each entry above Durable; entries that are Raft's own leave
	// gaps in the indexes. stamp is the time of the log, unix nanoseconds, and
	// never less than at the call before.
	//
	// batches alias memory that nobody changes and that stays valid for as long
	// as it is referred to. batches itself may be kept too.
	//
	// Raft waits while Apply does: it may block for as long as its own
	// back-pressure asks, and everything behind it then waits. A panic is not
	// caught.
	Apply(index, term uint64, stamp int64, batches [][]byte)

	// Configure records the opaque configuration of the cluster, agreed at
	// index. It counts as the application of the entry index.
	Configure(index, term uint64, config []byte)

	// Durable returns the index of the last entry that would survive a crash of
	// process and machine together with all before it, its term, and the newest
	// configuration at or below it with that configuration's index. All are
	// zero before the first Configure is durable. It never runs back, but for
	// Restore.
	Durable() (index, term uint64, config []byte, configIndex uint64)

	// Now returns the time of the log as of the state: the stamp of the newest entry in
	// it, also of one that another Machine has applied, 0 for none. The log goes on from
	// there where the state has come without it, by Restore or from a backup.
	Now() int64

	// Flush makes everything durable that was applied before the call.
	Flush() error

	// Checkpoint writes a consistent and durable copy of the state into dir,
	// which does not exist, and returns its place in the log. The copy is a flat
	// directory of files.
	Checkpoint(dir string) (index, term uint64, err error)

	// Restore replaces the state by such a copy, durably. It may take the files,
	// but what it leaves of dir it leaves unchanged.
	Restore(dir string) error
}
