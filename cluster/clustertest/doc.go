// Package clustertest makes the faults that a cluster must survive.
//
// A Network is hosts in one process, with connections between them that behave
// as TCP's do when cables are pulled: bytes keep their order, are late, are held
// back by a cut until it is mended, or until the connection is given up.
//
// All of it may run in a testing/synctest bubble: what waits there waits on
// channels, conditions and timers.
package clustertest
