//go:build cgo

package main

// memtablesInHeap says that Pebble has its memtables in Go's heap: with cgo it has them outside.
const memtablesInHeap = false
