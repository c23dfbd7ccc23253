// Package bridge connects the broker to another MQTT broker, its peer: what is published
// here to some topics is published there, and the other way round.
//
// # What must hold
//
//   - What was acknowledged to its publisher, here or there, comes to the other side,
//     whoever is killed meanwhile: the peer, this node, both.
//   - What is QoS 2 comes once where both sides keep their sessions; what is QoS 1 may come
//     again after a connection was lost.
//   - Events of one topic keep their order.
//   - Of a cluster's nodes one runs a bridge, and another goes on when that one is gone.
//   - What has come from a broker does not go back to it, by whatever ring of bridges.
//   - Nobody, the peer above all, makes it hold more than a few packets.
//
// # How
//
// A bridge has a durable session at either broker, under a client id of its own, and is a
// relay between the two which keeps nothing itself. What waits, waits in the sessions: what
// goes out in that of our own broker, in its log, what comes in in the peer's. A packet is
// acknowledged to the one when the other has acknowledged it: for what comes in, when our log
// has committed it.
//
// Packet ids are not translated: a PUBLISH that our broker has sent with an id is published
// at the peer under that id, and PUBREC, PUBREL and PUBCOMP go through as they are. Each side
// numbers what it sends, and keeps until the end of the exchange which ids it has received;
// so whoever sends a packet again after a crash sends it under the same id, and the other side
// knows it. That is exactly once, end to end, without a word about it on a disk of the
// bridge's own. Two things remain to be done when one of the sessions was lost:
//
//   - Ours is new, the peer's is not: it may hold ids of exchanges that nobody will end, and
//     would take new events under them for old ones. All ids are released there before anything
//     of our session goes there (see sweep).
//   - The peer's is new, ours is not: an event under an id that we hold from before is a new
//     one. So is any that the peer marks as sent for the first time: the id is released
//     here first (see relay.inward).
//
// To our own broker a bridge is a client like others: it comes by a socket pair through the
// protocol's front door, as a principal of its own. So policy, windows, limits, queues and
// back-pressure hold for it as for everybody, and what they are is written once. To go by
// broker.Session would save two system calls for each batch of packets, and ask for all of
// that, and for packet ids, a second time.
//
// The one node is the leader of the log: there is one, it moves by itself when it dies, is
// drained or is cut off, and it knows its own state. A lease in the log, or the session's
// takeover alone, would be a second election. It needs no more than that: a node that leads
// no longer and has not noticed is ended by its successor's connections, at the peer by its
// client id, here by the session's epoch, and does not come back, because before it
// connects it has the log order something (Config.Lead).
//
// Loops: by No Local neither broker sends back what the bridge has published there; a peer
// of MQTT 3.1.1 is told by the bit of the protocol level that mosquitto has for it. Rings of
// several brokers need more: each event carries the ids of the brokers it has been at in a
// User Property (hopsProperty), and is dropped and counted where it comes to one again, or
// has been at too many. A peer that is a Bellwire says in CONNACK which id it has, so that an
// event is not sent to one where it has been: a broker does not look at what clients publish.
//
// paho.golang, which the rest of the program uses, was not taken: it speaks MQTT 5 only,
// numbers packets itself, so that exactly once needs a store of its own that our log would
// have to carry from node to node, and reads a packet of whatever size it is told.
package bridge
