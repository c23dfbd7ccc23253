// Package watchers knows what owners may learn about who watches them, and what
// watchers may keep to themselves. It is pure: what it returns follows from what it
// is given, on every node.
//
// Two wishes meet here that cannot both be absolute: a watcher's not to be seen, and
// an owner's to know. Three things settle it:
//
//   - That somebody watches is never hidden. The counts are always true.
//   - Who it is the two agree on before anything is said about the watcher: she says
//     how she may be seen, the owner how he wants to see, and Agree finds what both
//     accept, or nothing.
//   - What was agreed stays: nobody is shown as more than she offered.
//
// Somebody who is seen as a pseudonym has one for each owner she watches (see
// Secret): two owners cannot tell that they know the same person, and no owner can
// tell who she is. It is an address like any other: policies name it, messages reach
// it. Somebody anonymous has none; an id that means nothing tells her from the next.
//
// A List is what an owner is shown of his watchers, in JSON or as RFC 3858 has it,
// and Stats how many there are. Of either nobody but the owner learns anything: a
// watcher sees of this no more than her own subscription.
package watchers
