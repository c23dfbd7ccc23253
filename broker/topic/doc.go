// Package topic knows what names and filters are, which filter matches which
// name, and who is to be told about a name. It holds the rules of MQTT's topics
// (5, sections 1.5.4, 4.7 and 4.8.2; 3.1.1, sections 1.5.3 and 4.7) and nothing
// of packets, sessions or permission.
//
// The pure part are ValidName, ValidFilter, SplitShare, Match, Covers and
// Overlaps. The rest is Index: from filters to their subscribers, and from a
// name to the list of all who match it.
//
// # What must hold
//
// A broker asks for every event who is to get it, far more often than somebody
// subscribes. So the answer, made by the caller's build function, is kept for
// each name, and found again without a lock and without an allocation. What
// makes that difficult is that the answer must be true:
//
//   - A lookup never returns a list that is older than a change which was over
//     before the lookup began: SUBACK has been sent for it.
//   - A change costs the same whatever else is subscribed: neither 50,000
//     filters below one parent nor 50,000 subscribers of one filter may be
//     copied.
//   - A change makes no list anew that it does not alter. With a few hundred
//     clients coming and going each second, every list would always be stale.
//   - No client can make it grow but by subscribing: names published to are
//     bounded by the cache's limit, a filter's levels do not count.
//
// # How
//
// Everything subscribed is one immutable version, reached by an atomic pointer.
// Writers take a mutex, copy the path to what they change, and publish the
// copy; readers take what is published. Exact filters are in a persistent hash
// trie by their whole name (table), so they cost one search whatever their
// levels are. Wildcard filters are in a tree of levels with joined edges (node),
// whose kids are such a table. The subscribers of one filter are a slice while
// they are few, then a table (set).
//
// Lists are kept in a bounded hash table whose rows are read without a lock
// (cache). Two rules keep them true:
//
//   - An exact filter concerns one name. Its change publishes the version, then
//     removes that name's list, then returns. A list under construction is put
//     into the cache only if, with the row's lock held, the published version
//     has the same set for the name that the list was built from. So either
//     the builder sees the change, or the change finds the list.
//   - Changes to wildcard filters are counted, and the last 64 remembered. A
//     list knows up to which change it is known to hold. Who finds it behind
//     matches its name against the filters it has missed; if none matches, it
//     holds, and is marked so. If more were missed than are remembered it is
//     built anew.
//
// Measured, 100 names looked up in turn among 100,000 filters, with a change to
// some unrelated wildcard filter every 10 lookups: 0.5 to 0.8 µs a lookup, most
// of it the tenth of a change (0.3 to 0.5 µs). When every change made all lists
// anew it was 1.4 to 2.5 µs with two matches a list, and more with longer ones.
// See BenchmarkChurn.
//
// # Rejected
//
//   - A generation that every change to a wildcard filter raises: simple, but
//     see above.
//   - Counters for prefixes, summed up by who looks up: every lookup pays for
//     changes, and `+/x` has no prefix.
//   - A tree of cached names, so that a filter finds those it matches: a second
//     tree to keep true, and `#` visits everything while the writers wait.
//   - A mutable tree under a read-write lock: one slow reader of a `#` holds up
//     SUBSCRIBE, and the lock's counter is fought over by all cores.
//   - A node for each level: clients with filters of a hundred levels make a
//     hundred nodes each, some seventy times the memory they sent.
//   - sync.Map for the lists: it has no bound, and its key would be allocated
//     for every lookup.
//   - Changing a list in place of building it anew when somebody joins: a list
//     of n costs 14 ns a subscriber to build and at least twenty times that to
//     deliver to, and only a delivery builds it. So a storm of joins cannot make
//     building matter, and two ways to make a list are one too many.
package topic
