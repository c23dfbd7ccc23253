// Package jsontree reads JSON documents that strangers wrote, and writes them
// in one form only.
//
//	bytes ── Parse ──▶ Document ── Root, Take, Need, Text, … ──▶ the caller's own form
//	                      │
//	                      └─ Faults (all of them, each with a JSON pointer), Warnings
//
// encoding/json answers another question. It accepts a name twice and keeps
// the last, mends what is not UTF-8, and takes whatever depth its stack bears;
// who must give the same verdict on every node, to a client who may be
// hostile, needs the first two refused and the third bounded. And an owner who
// uploads a policy of two hundred rules wants to hear of all its faults, each
// with its place, not of the first.
//
// Reading never fails half-way: what is missing or of the wrong type is noted
// as a fault and read as if it were absent, and the caller asks for Err once,
// at the end. What nobody asked for is left over (Members.Rest), to be kept or
// warned about.
//
// Everything here is a pure function of the bytes. A Document belongs to one
// goroutine while it is read; Values are immutable and may be shared.
package jsontree
