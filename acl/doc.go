// Package acl says who may do what on which topics, and when.
//
// A Policy is made of the bytes of a policy file and never changes. It has no
// clock and starts nothing: every question names its instant, so one question
// has one answer, on every node today and in a test tomorrow. The replicated
// machine relies on that, for it asks too.
//
//	bytes ── Parse ──▶ Policy ── Decide(who, what, topic, at) ──▶ Decision, good until …
//	           │          ├───── Grant(who, filter, at) ────────▶ may this SUBSCRIBE be granted
//	           ▼          ├───── NextEdge(after) ───────────────▶ when to ask again at the latest
//	      FileError       ├───── Authenticate(user, password) ──▶ principal
//	 (every fault, with   └───── Explain, Sweep, Test ──────────▶ for people
//	  line and caret)
//
// # How a decision is made
//
// Rules are unordered. What no rule allows is denied; what a rule denies is
// denied, whoever else allows it; limits cut what is left and never add. A rule
// counts only while its window is open.
//
// # Windows
//
// A window is a predicate on the clock on the wall: it is open at an instant if
// the local time of that instant, in the window's own zone, falls on a listed
// day at a listed time. Nothing is stored or counted, so what a clock does not
// show (the hour skipped in spring) never opens a window, and what it shows
// twice (the hour repeated in autumn) opens it twice. A run past midnight
// belongs to the day on which it starts, for `except` too. All intervals are
// half-open: at its end a window is closed.
//
// Zones come from the copy of the IANA database inside the program (Zones says
// which), never from the machine, so that all nodes of one version agree.
package acl
