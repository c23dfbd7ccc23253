// Package kind says what a kind of resource is: presence, instant messages,
// location, or one that a third party adds.
//
// A resource is a kind of event about one address: bob's presence, bob's inbox.
// Its owner's devices publish documents to it, each under the name of its
// source; what watchers see is made of these by four pure functions, which are
// all that a kind has to supply:
//
//	documents ── Parse ──▶ values ── Compose ──▶ one document ── View ──▶ what one grant shows ── Encode ──▶ octets
//	 (by source)                       (at an instant)                (bob's policy made the grant)
//
// The package holds the types they are made of and the laws they obey; the laws
// are a test (package kindtest), which runs against any kind:
//
//   - Compose does not depend on the order of publications, and of none it
//     makes the kind's neutral document.
//   - View shows nothing (the neutral document) to the empty grant, no less to
//     a greater grant, and nothing further when applied again.
//   - Encode has one form, and what it writes Parse reads back.
//   - The neutral document of an address depends on the address alone. So
//     nobody can tell whom bob has blocked from whom he shows nothing now, or
//     from bob being away.
//
// # What must hold of every function here
//
// They run inside a replicated machine, on every node. They read no clock, but
// are given the instant; start nothing; keep nothing; do not depend on the
// order of a map; never change their arguments. All values are immutable and
// safe for concurrent use.
package kind
