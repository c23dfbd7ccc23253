package refuse

import (
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// Stale refuses a publication that is to replace another document than there is: each
// evt-etag of it must be the tag of that, which is what ("the policy") in the refusal.
//
// tag is called once at most, and not without an evt-etag: what it costs goes by the
// document, and a publication has as many User Properties as fit into a packet.
func Stale(pub *broker.Publication, what string, tag func() string) error {
	is := ""
	for name, meant := range event.UserProperties(pub.Event.Props) {
		if name != "evt-etag" {
			continue
		}
		if is == "" {
			is = tag()
		}
		if meant != is {
			return &broker.Refusal{Cause: broker.ErrCondition, Reason: "stale-etag: " + what + " is another by now: its tag is " + is}
		}
	}
	return nil
}
