// Package life keeps the subscriptions that owners have a say in: who has asked to
// watch a resource, what has become of it, and when that is over (RFC 3857, RFC 6665).
//
// There is one Entry for each watcher of a resource, however many of the watcher's
// sessions share it:
//
//	           allow, polite-block
//	asked ──┬───────────────────────▶ active ──────┐
//	        │            ▲    │                    │ the owner blocks: rejected; revokes: deactivated, probation
//	        │   approved │    │ undecided again    │ its time is over: timeout; an administrator: admin
//	        │            │    ▼                    ▼
//	        └────────▶ pending ─────────────▶ terminated ──▶ forgotten
//	         confirm     │                         ▲
//	                     │ nobody has decided:     │ decided
//	                     │ giveup, or who asked    │
//	                     │ went away               │
//	                     └──────▶ waiting ─────────┘
//
// What is shown is not decided here: at each delivery the owner's policy is asked. An
// Entry follows that, by and by where there are many; it is what the watcher and the
// owner are told.
//
// # What a watcher may learn
//
// Whoever is politely blocked sees an active subscription, and whoever is ignored a
// pending one, which is given up when that of an owner who does not decide would be:
// after five to nine days, drawn once for each watcher and resource by a keyed hash,
// whether or not somebody has that address. No bound is another for an address that
// exists.
//
// # Windows
//
// What closes and opens by the clock ends no subscription unless its owner says so; its
// watcher may be told of it. What brings that about, once, and with one wake for all who
// watch a resource, stands in window.go.
//
// # State
//
// All is in keys of the profile: entries by resource and watcher, indexes of them by
// watcher, by id, and by when they changed, counts of resources and of watchers,
// and when a resource's windows are looked at next. A Book changes them, in log order, and has no state of
// its own.
package life
