// Package link connects the nodes of a cluster: it finds them, proves on both
// ends who the other is, and carries frames between them. It does not know what
// the frames say.
//
// A connection belongs to an ordered pair of nodes and a Plane: whoever asks
// dials, and is answered on the same connection. So no two nodes have to agree on
// which of two connections counts, and what is large on one plane (entries, a
// snapshot) does not stand before what is urgent on another (heartbeats, votes).
//
// A node is known by its id, which never changes. Where it is now is kept in a
// book of addresses, which nodes exchange with each hello: a node that has moved
// tells the first one it reaches, and by that all.
//
// # Connection, version 1
//
//	preface  8 bytes "bellwire", in each direction
//	hello    u32 big endian length, at most 64 KiB; JSON: see hello and answer
//	frames   u32 length of what follows; kind, 1 byte; id, u64 big endian; body
//
// All of it is within TLS 1.3 with certificates on both sides, unless Config has
// no TLS, as in a simulation. The name in the certificate is the name in the hello.
package link
