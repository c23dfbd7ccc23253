// Package im is the kind of resource that takes messages: im/example.com/bob is
// bob's inbox.
//
// Whoever bob permits publishes a message to it, as text or as
// application/evt-im+json:
//
//	{"id":"7f3a…","date":"2026-03-09T12:16:49Z","thread":"lunch","subject":{"en":"Lunch?"},
//	 "wants":["delivered"],"type":"text/plain","body":"At noon, at Jo's?"}
//
// All of it but the body may be left out. Bob's devices get an envelope around
// what was sent, which says what the broker vouches for:
//
//	{"id":"7f3a…","iseq":42,"at":"2026-03-09T12:16:50Z","from":"im:alice@example.net","to":["im:bob@example.com"],
//	 "date":"2026-03-09T12:16:49Z","thread":"lunch",…}
//
// from is who the sender has authenticated as. A message that says to be from
// somebody else is refused: passing it on with another name would not be what
// its author signed, and with that name would be a lie. iseq is the place in
// the one order that the inbox has, at is when it came in by the broker's clock;
// no sender can set either.
//
// # Reports
//
// What became of a message its sender learns in a report, application/evt-imdn+json:
//
//	{"id":"7f3a…","recipient":"im:bob@example.com","datetime":"2026-03-09T12:16:49Z","disposition":"failed","reason":"unavailable"}
//
// That it failed is always told, by the broker. What else there is to tell is
// told if the sender wants it, by the device that has the message, which
// publishes such a report to im/example.net/alice/reports. datetime is the
// message's (RFC 5438 section 7.2.1.1). A report is never reported on.
//
// # Typing
//
// That somebody is writing (RFC 3994) is published to im/example.com/bob/typing,
// and is neither kept nor reported on:
//
//	{"state":"active","refresh":90}
//
// A word will do: active, or composing as XEP-0085 has it. What is not known is
// idle.
package im
