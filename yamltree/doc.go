// Package yamltree reads YAML files that people write, and tells them all that
// is wrong at once.
//
//	bytes ── Read ──▶ Node ── Reader.Table, Items, Values, Text ──▶ the caller's own form
//	                             │
//	                             └─ Reader.Err ──▶ FileError ── Report ──▶ for people
//	                                     (every fault, with line, caret and advice)
//
// A library that decodes into a struct answers another question: it stops at
// the first fault, does not know what was meant by a misspelt key, takes
// 2026-12-25, 007 and yes for what their author did not mean, and follows
// whatever depth and aliases it is given. Here a value is the text that stands
// in the file, and the caller who knows what it is for reads it.
//
// Strict: unknown, repeated and empty keys, tags, merge keys, directives and
// second documents are faults. Bounded: size, depth, keys, list entries and
// faults have limits, and what passes them is refused before it costs: by its
// tokens, for the parser recurses per key and copies what follows, and a
// hostile megabyte took minutes. Reading never fails half-way: what is faulty is
// reported, read as if it were absent, and the caller asks for Err once, at the
// end.
//
// Everything here is a pure function of the bytes. A Reader belongs to one
// goroutine; a FileError never changes. The YAML library has its only door
// here, and no type of it passes through.
package yamltree
