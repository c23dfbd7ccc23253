package inbox

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// How somebody is written to, and writes, who is known by a pseudonym.
//
// What is sent to a pseudonym by whom it is for goes to its watcher's inbox as it is:
// its recipient is the pseudonym, and so it is in all reports. The watcher answers in
// its name with the property evt-from. To all others, and when its time is over, it is an
// address like one that nobody has: the same path is taken, and the same is told.
//
// Bounds are those of who is behind it: a pseudonym is no second allowance.

// A reader is whose inbox a message goes to. hidden says that whoever writes knows the
// owner by a pseudonym.
type reader struct {
	kind.Addr
	hidden bool
}

// readerOf returns whose inbox it is that sender writes to as to. names returns what is
// kept of pseudonyms.
func readerOf(names func(key string) []byte, to, sender kind.Addr, now int64) reader {
	if who, ok := alias.Reaches(names, to, sender, now); ok {
		return reader{who, true}
	}
	return reader{Addr: to}
}

// inboxOf returns the resource that an address' inbox is.
func (p *Profile) inboxOf(owner kind.Addr) kind.Resource {
	return kind.Resource{Kind: p.kind.Name(), Addr: owner}
}

// readFrom reads in whose name a request is sent: its publisher's unless evt-from says
// that it is a pseudonym's.
func (r *request) readFrom(props []byte) error {
	for name, value := range event.UserProperties(props) {
		if name != "evt-from" {
			continue
		}
		a, err := kind.ParseAddr(value)
		if err != nil {
			return fmt.Errorf("%w: evt-from: %w", kind.ErrInvalid, err)
		}
		r.from = a
	}
	return nil
}

// speaks says whether the sender of a request may send it in the name it does. Whose a
// pseudonym is, or that it is one, it does not say.
func (r *request) speaks(names func(key string) []byte, now int64) error {
	if r.from == r.sender || watchers.IsPseudonym(r.from) && alias.Speaks(names, r.from, r.sender, r.to.Addr, now) {
		return nil
	}
	return fmt.Errorf("%w: evt-from: %s is not yours to write to %s with", kind.ErrForbidden, r.from, r.to.Addr)
}
