package broker

import (
	"github.com/cespare/xxhash/v2"

	"github.com/bellwire/bellwire/broker/event"
)

// What is a client's own, for No Local (5.0 [MQTT-3.8.3-3]: what comes from a client id does
// not go back to it).
//
// An event has the number of the session that it comes from, and while that lasts no other is
// its client's: so numbers are compared wherever events go out as they are published. What is
// retained may outlast the session, and the client's next has another number. So from
// LevelLocal on it is kept with a mark of the client id in the number's place, which no
// session has for a number. (The id itself would be up to 64 KiB for each topic that is
// retained.) Whoever looks for an id with somebody else's mark has that client not shown what
// he retains himself, and gains nothing.

// ownerMark is set in all marks of client ids; numbers of sessions are below it.
const ownerMark = 1 << 63

func markOf(client string) uint64 { return xxhash.Sum64String(client) | ownerMark }

// isOwn says whether what has come from origin, a session or one's mark, is that session's
// own, or its client's.
func isOwn(origin, session uint64, client string) bool {
	return origin == session || origin >= ownerMark && origin == markOf(client)
}

// keptOrigin is what e is kept with, as retained, in place of Event.Origin.
func (m *Machine) keptOrigin(e *event.Event) uint64 {
	if e.Origin == 0 || m.level < LevelLocal {
		return e.Origin
	}
	return markOf(e.Client)
}
