// Package disk is the one door to the file system: every byte a node keeps goes
// through an FS of this package, and so every fault a disk can have can be made
// to happen here, under the code that ships.
//
// There are three kinds of FS. Open is the machine's own file system. Memory
// holds files in memory: the same code runs on it, without surviving anything
// (bellwire dev). Crashable also holds them in memory, and Crash returns what a
// power cut would have left of them (tests).
//
// Each can be told at run time to misbehave (SetFault), counts what it is asked
// to do (Stats), and says how much room is left (Free). The names are file
// paths as the operating system knows them; nothing is relative to a root.
//
// Two rules for those who keep data here. A database's logger is a Logger of
// this package, because Pebble reports a failed commit as done if its logger's
// Fatalf returns. And a file that is not a database's is written with
// WriteFile, which replaces it durably or not at all.
package disk
