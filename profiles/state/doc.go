// Package state serves the kinds of resource whose last value matters:
// presence, location, and those that others add. It makes a broker.Profile of a
// kind.Kind.
//
//	presence/example.com/bob         what bob's devices say together; to publish: this client's source
//	presence/example.com/bob/phone   to publish: the source called phone
//	presence/…/bob/phone/@work       to publish: the same, for who is shown the persona work
//	$me/policy/presence              to publish: who may watch bob, and what each of them sees
//	$me/blocklist                    to publish: whom bob has blocked, of all kinds (package blocklist)
//
// # Publications
//
// Each source of a resource has one publication: soft state, which the next one
// of that source replaces. User Properties say more (RFC 3903):
//
//	evt-expires: seconds    how long it counts; else the Message Expiry Interval, else the kind's default
//	evt-etag: tag           only if the source's present publication has this entity tag
//	evt-bind: connection    it counts while this connection lasts; none: it stands by itself
//
// What is published with RETAIN stands by itself, without it is bound, unless
// evt-bind says otherwise: so a device that falls silent without a word is gone
// from its owner's presence within its keep-alive. An empty payload removes the
// publication; with a tag and an expiry it refreshes it instead.
//
// # What becomes of a bound publication
//
//	         DISCONNECT                        removed
//	live ──┤
//	         connection lost ── LostAfter ──▶  lost: counts no more, its owner still sees that it was there ── its expiry ──▶ forgotten
//	                 │
//	                 └── the client is back, for the same principal: live
//
// It does not expire while its connection lasts, because the keep-alive shows
// that the source is there. The broker tells of connections in log order and
// with epochs; a takeover is no end, so nothing blinks.
//
// What a delegate published, bound or not, ends with the delegation at the
// latest: at its until, or when the owner's policy says otherwise.
//
// # What watchers see
//
// Owners decide: their policy document makes a grant for each watcher, and the
// kind's view of the composed document is what that grant shows. Who may see
// nothing sees the kind's neutral document, which is also what there is to see
// of an owner without publications: nobody can tell whom bob blocks from whom
// he shows nothing now, or from bob being away. So that this holds for
// wildcards too, an address is among what they match from the moment it has a
// policy or a publication.
//
// A resource is composed once for each persona and each instant at which it is
// different, and rendered once for each class of equal grants, not for each watcher.
//
// # State
//
// All of it lies under the kind's prefix: a record for each resource (its
// publications), the owner's policy, and for each client of a principal
// with bound publications which resources they are in. Whatever is judged in
// Apply is judged by that and the log's time alone.
package state
