// Package policy is an owner's policy document: who may watch a resource of
// theirs or write to it, when, and what each of them is shown.
//
// The document is RFC 4745 and RFC 5025 in JSON, with two things these lack:
// weekly windows, and limits ("only between eight and five"), which cut what
// the rules together have granted.
//
//	bytes ── Parse ──▶ Policy ── Evaluate(watcher, at, in) ──▶ Decision: handling, grant, until
//	   │                  ├───── Explain(watcher, at, in) ───▶ which rule, which condition, which limit
//	   ▼                  ├───── MayPublish, MayRead ────────▶ delegates
//	*kind.Refusal         └───── Warnings
//	(every fault, with its JSON pointer; Check finds more)
//
// # How a decision is made
//
// Each step can only take away from what the one before gave.
//
//  1. The owner sees everything, and so does who may read for them.
//  2. A watcher without an identity is refused if the owner demands one.
//  3. Handling, which decides the life of a subscription, is the greatest of
//     all rules that could apply to this watcher now or later: conditions that
//     come and go (weekly windows, the owner's sphere, a validity that has not
//     begun) count as if they held. So a subscription outlives the hours at
//     which it shows nothing, and nobody has to guess when to try again.
//  4. The view is what the rules that apply now grant together, if one of them
//     allows; each permission combines by its own type (RFC 4745 section 10.2).
//  5. A limit that names the watcher and is closed now cuts the view to
//     nothing, whatever granted it.
//
// # What is not known
//
// Who sets a document is told of what is not known here (Check), and what may have
// been meant: a misspelt member would do nothing, without a word. What was set is
// read with what another version may have let in (Parse): a condition that is not
// known never holds, so what it means to restrict is not shown; and where to pass
// over a member would widen what is shown (in a rule, an identity, a window, a
// limit) it is a fault there, too.
//
// A Policy has no clock and never changes. One question about one instant has
// one answer, on every node; until when it holds is part of the answer.
package policy
