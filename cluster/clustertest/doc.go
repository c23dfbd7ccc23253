// Package clustertest makes the faults that a cluster must survive, and proves
// that it has survived them.
//
// A Network is hosts in one process, with connections between them that behave
// as TCP's do when cables are pulled: bytes keep their order, are late, are held
// back by a cut until it is mended, or until the connection is given up.
//
// A Machine is a small cluster.Machine, as durable as a real one, whose state is
// all that it has applied. A Source submits numbered batches as a broker does. A
// Ledger compares what machines apply, and what sources were told, while it
// happens; it is the judge of every simulation.
//
// All of it may run in a testing/synctest bubble: what waits there waits on
// channels, conditions and timers.
package clustertest
