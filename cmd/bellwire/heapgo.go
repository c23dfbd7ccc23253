//go:build !cgo

package main

// memtablesInHeap says that Pebble has its memtables in Go's heap: without cgo it does.
const memtablesInHeap = true
