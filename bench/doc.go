// Package bench compares Bellwire with other MQTT brokers: the same load, the
// same machine, the same run of one program.
//
// Its headline figure is the CPU time a broker spends per delivery, and what
// counts is that figure's ratio to a peer's in the same run. Wall-clock rates of
// a shared machine say little; the ratio survives a busy neighbour, because both
// brokers had him.
//
// Three kinds of process take part, each pinned to a core and in a session of
// its own, so that the kernel's autogroup scheduling weighs them as two:
//
//	compare (this program)   starts the others, waits, prints; uses no CPU meanwhile
//	  ├── broker             on core 0; a fresh one, with an empty directory, for each line
//	  └── generator          on core 1; this program again, doing [Generate]
//
// The generator must be cheap, or it measures itself: one thread, one epoll set,
// non-blocking sockets, its own codec (frame.go), one read for each readiness
// event, and one write for each connection and turn of the loop (loop.go).
//
// A closed loop keeps at most 64 messages outstanding per publisher. A deeper
// window would flatter brokers that coalesce. What makes no progress for 1.5
// seconds is written off, so that a broker that drops a message stalls and does
// not hang.
//
// Correctness outranks speed: every delivery carries its publisher and its
// sequence number, the ledger (ledger.go) knows what is missing, what came twice
// and what came late, and a line at QoS 1 or 2 with anything missing or out of
// order does not count, however fast.
//
// Results are kept in bench/results, one file for each run, in the format that
// benchstat reads.
package bench
