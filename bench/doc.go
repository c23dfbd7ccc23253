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
// # Presence with permissions
//
// Rows hp and hpb ask what it costs to look, at each delivery, whether its owner lets
// the watcher have it. All brokers have the same users, who sign in; the same
// changes, of the same size, on one schedule; and two users who watch like
// everybody else and are to be shown nothing. A line on which one of them is
// shown something does not count, nor one on which somebody else misses
// something: with so little under way nobody is pressed to drop anything.
//
//	bellwire    owners publish a policy each (presence.go); a state is parsed, composed
//	            with what else its owner says, cut to what the policy shows, and logged
//	mosquitto   password_file and acl_file, a retained message on a plain topic
//	nats        users with permissions, likewise
//	mochi       a hook with the same users (bench/peers/mochi), likewise
//
// What Bellwire delivers is longer than what was published, by the address and
// by the service that follows from the status; the others deliver what they
// were sent.
//
// A state is not a stream: of a resource that changes more often than each five
// seconds Bellwire, after ten changes in a row, shows only the last. So there
// are two rows. In hp each user in turn changes once in five seconds, an open
// loop for as long as one likes, with brokers that are nearly idle: its latency
// is the one that people have, and its cost that of a broker with nothing to
// gather into a batch. In hpb each changes eight times (with policy and first
// state that makes ten) as fast as the broker takes it, in the closed loop of
// row h: its cost is that of a broker at work.
//
// The state that a subscription begins with must come, once, and is in
// none of the figures but those of the set-up.
//
// # Several nodes
//
// In rows d to dn100 a broker is a cluster of three nodes on this machine, which
// replicate what clients publish to all three. Nodes and generator share all cores,
// unpinned, each in its own session: there are not cores enough to part them. A cost
// is the sum over all nodes. Publishers and their subscribers are spread over the
// nodes, a subscriber always at the node after its publisher's, so that each event
// is at home on every node a third of the time, and has to cross.
//
//	bellwire    --bootstrap and --join, TLS between the nodes; the load begins when
//	            three nodes have a vote
//	nats        JetStream's file store, stream_replicas 3, routes without TLS
//	bellwire-1  one node of Bellwire, unpinned too, with the same load
//
// In d each broker syncs as it does by default: Bellwire before each acknowledgement,
// on a majority, nats every two minutes. In ds nats is told to sync always. Rows dl and
// dm publish on a schedule: a latency there is that of a cluster that is not full.
//
// Results are kept in bench/results, one file for each run, in the format that
// benchstat reads.
package bench
