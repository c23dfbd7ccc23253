// Package alias keeps what watchers say of how they may be seen, and who is behind a
// pseudonym. Its profile has no topics, only $me/policy/watcher; other profiles read
// and change its state with a Book.
//
// A pseudonym is the address by which one owner, its target, knows a watcher. As long as
// a subscription under it lasts, and for some time after, the target can write to it as
// to any address, and the watcher can answer in its name:
//
//	              Hold                    Release, the last                 its time
//	(nobody's) ─────────▶ held ──────────────────────────────▶ lasts until ─────────▶ kept for reports ──▶ forgotten
//	                        ▲                                      │
//	                        └──────────────────────────────────────┘ Hold: renewed
//
// To everybody but its target, and to the target once its time is over or it was used
// as often as the watcher allows, it is an address that nobody has.
//
// A watcher who asks for a fresh one (Rotate) has the next for all that begins from then
// on. If the target has blocked the old one, what is begun anew is refused for BarredFor:
// a new name is no way round a block, and the target is not told that there was a try.
//
// # State
//
// All is in keys of the profile: for each pseudonym a record, for each pair of watcher
// and target how many fresh ones were asked for and what is barred, and for each watcher
// how many pseudonyms there are.
package alias
