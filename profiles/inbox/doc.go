// Package inbox serves the kinds of resource that take messages. It makes a
// broker.Profile of a kind.Inbox.
//
//	im/example.com/bob           to publish: a message to bob; to subscribe: bob's inbox, for bob and delegates who read
//	im/example.com/bob/reports   to publish: what became of a message that bob sent; to subscribe: the same people
//	im/example.com/bob/typing    to publish: that one is writing to bob; to subscribe: the same people
//	$me/policy/im                to publish: who may send to bob
//	$me/blocklist                to publish: whom bob has blocked, of all kinds (package blocklist)
//
// User Properties say of a message that is plain text what a document says
// itself: evt-id, and evt-wants (delivered, displayed, …, with commas). The
// acknowledgement of a message has evt-id.
//
// # What is promised
//
// An acknowledged message is kept until a device of the owner has it or it
// expires. Each inbox has one order, and each message a number in it (iseq): all
// devices get them in that order. Each device with a session that outlasts its
// connections gets its copy through that session's queue, also while it is
// away. A device whose first session begins later gets what no device has yet,
// some of it with each log entry, and then what comes. A session that ends with its connection gets what comes
// while it is there; for its sake nothing is forgotten. A device has what it has
// acknowledged, and nothing else: what the operator's rules keep from it, or its
// queue has no room for, stays for others, and for it when it subscribes anew.
//
//	published ── refused (by the policy, or expired) ──▶ "failed" to the sender
//	    │
//	  kept, and queued for each device
//	    │
//	    ├── a device takes it ──▶ forgotten; "delivered" to the sender, if wanted and permitted
//	    └── its time comes    ──▶ forgotten; "failed", expired
//
// A message that comes again (the same sender, id and inbox) within Remember is
// acknowledged again and delivered once.
//
// A rule of the policy that lets messages in may have them go to another's inbox, whose
// owner lets them in or not (forward.go). They are that one's then, by all that is said
// here.
//
// What a device has not yet, the owner's policy and blocklist let go to it as they are
// now (sift.go).
//
// # What a sender learns
//
// An owner need not tell whom they do not want to hear from. So a message that
// the policy does not let in is acknowledged like any other, and fails with the
// reason that a message to nobody fails with; only if the owner has blocked its
// sender in so many words ("style": "refuse", in the policy or the blocklist) with
// "forbidden". Only who may send is refused because an inbox is full.
//
// Whoever writes to many who do not know them is refused past a bound (stranger.go), whether
// these are there or not.
//
// # State
//
// Under the kind's prefix: a record for each inbox (the last number, what is
// kept, which ids are remembered), a key for each message kept and for each id,
// and of each sender their rate and to whom they have written. All of it is
// bounded; the losers are in Limits.
package inbox
