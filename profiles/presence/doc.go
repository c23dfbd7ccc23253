// Package presence is the kind of resource that says whether and how somebody
// can be reached: presence/example.com/bob.
//
// Each of bob's devices publishes its own document: services ("tuples": open or
// closed, a contact, a note), what it knows about the person (activities, mood,
// sphere) and about itself (user input). A watcher sees one document, made of
// all that is live and cut to what bob's policy shows to them.
//
//	{"entity":"pres:bob@example.com","basic":"open",
//	 "tuples":[{"id":"t…","basic":"open","contact":{"uri":"im:bob@example.com","priority":0.8},"timestamp":"…"}],
//	 "persons":[{"id":"p…","activities":["meeting"],"note":{"en":"Back at five"}}],
//	 "devices":[{"deviceID":"urn:uuid:…","userInput":"active"}],
//	 "notes":{"en":"…"}}
//
// The form is a twin of PIDF and its extensions (RFC 3863, 4479, 4480);
// application/pidf+xml is read too, as far as table xmlSupport in the tests
// says. A publication may be as short as {"basic":"open"}.
//
// # Composition
//
// Services are joined: each is known by its source and its id, so that two
// devices that call theirs t1 have two. Of a device that several sources know
// the newest word counts, but that somebody is using it counts above all. What
// sources say about the person is one person while they agree, and several
// occurrences, newest first, where they contradict each other: presence keeps
// ambiguity (RFC 4479 section 3.5). That is decided among what a watcher is
// shown, so that a contradiction in what is hidden does not show.
//
// # Ids
//
// Sources and ids are bob's business: "phone" tells what he carries, and one id
// in two watchers' documents tells them that they see the same thing. So ids
// are made anew, by a keyed hash, for each class of grants.
//
// # Neutral
//
// Whoever may see nothing, and whoever there is nothing to show to, gets one
// closed tuple without contact. Its octets follow from the address.
package presence
