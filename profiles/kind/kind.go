package kind

import "time"

// A Mode says what about a kind's events matters.
type Mode uint8

const (
	ModeState   Mode = iota // the last value: presence, location
	ModeEvent               // each occurrence, addressed to nobody: alarms
	ModeMessage             // each occurrence, addressed and acknowledged: instant messages
)

// Semantics tell how a kind's publications are kept, joined and replayed.
type Semantics struct {
	Mode     Mode
	Coalesce bool // a newer state may take the place of one that was not delivered yet
	Retain   bool // a new watcher gets the present state at once
	MaxBytes int  // of one document

	// Of a resource that changes: so many changes in a row are each shown at
	// once, and one more for each interval (RFC 3856 section 6.10). 0: all.
	Burst    int
	Interval time.Duration

	// Of a publication; MinExpires ≤ DefaultExpires ≤ MaxExpires.
	DefaultExpires, MinExpires, MaxExpires time.Duration
}

// A Composed document is what all live publications of a resource say together
// at one instant, or what a grant shows of that.
type Composed struct {
	Resource Resource
	Modified time.Time // when the newest publication in it was made; zero if there is none
	Value    any       // the kind's own form; immutable

	// Expires is the first instant at which composing the same publications
	// again may give another document; zero if there is none. Before it, they
	// give this one.
	Expires time.Time

	// Class is that of the grant the document was viewed with; zero for what
	// Compose and Neutral return.
	Class Class
}

// A Kind is what a third party supplies. Every method is a pure function of
// its arguments (see the package comment) and safe for concurrent use.
type Kind interface {
	// Name is the first level of the kind's topics: "presence".
	Name() string

	// Scheme is that of the URIs by which documents name an address: "pres".
	Scheme() string

	Semantics() Semantics

	// Accepts returns the content types that Parse takes, best first. Encode
	// writes the first.
	Accepts() []string

	// Parse reads a document that is published to r. What it returns is
	// immutable and may be kept with the publication. The error wraps
	// ErrInvalid, ErrUnsupported or ErrTooBig; a *Refusal tells more.
	Parse(r Resource, doc Document) (any, error)

	// Weight says how much there is to do for what Parse returned of doc each time
	// that its resource is composed and shown, reading included, in units: one is what
	// an attribute takes, some microseconds. It is no less than BaseWeight. What the
	// publications of a resource weigh together is bounded where they are kept, so
	// whatever takes time and is not weighed is without a bound.
	Weight(doc Document, value any) int

	// Compose makes one document of those publications of r that are Live at
	// now. Their order does not matter; of two of one source the newer counts.
	// An error means that a Doc does not parse, which Parse would have told
	// before it was published.
	Compose(now time.Time, r Resource, pubs []Publication) (*Composed, error)

	// Neutral is the composition of nothing: what a watcher sees who may see
	// nothing, or to whom there is nothing to show. All its octets follow from
	// the address.
	Neutral(r Resource) *Composed

	// View returns what g shows of a composed document. View of a view with
	// the same grant is that view.
	View(c *Composed, g Grant) *Composed

	// Encode writes a document in the first of the types that Parse accepts.
	// The same document always has the same octets.
	Encode(c *Composed) Document

	// Permissions are what an owner's policy can show. They never change.
	Permissions() []Permission

	// DefaultPolicy is the policy of an owner who has not set one, as JSON.
	DefaultPolicy(owner Addr) []byte
}

// A Sphered kind knows from its documents where in life an owner is, so that
// policies for it can ask (the condition sphere, RFC 4745 section 7.3).
type Sphered interface {
	Kind

	// Sphere returns the owner's, empty if the document says none or several.
	Sphere(c *Composed) string
}

// A Tracker is a kind whose publications can tell what happened on the way to them.
type Tracker interface {
	Kind

	// HasTrack says whether what Parse returned does.
	HasTrack(value any) bool

	// Track returns it, oldest first. The error wraps ErrInvalid.
	Track(r Resource, p *Publication) ([]*Composed, error)
}

// The permissions of an inbox that are asked for by name.
const (
	MaySend   = "send"     // messages to it
	MayType   = "typing"   // that they are writing
	MayBeTold = "receipts" // that the owner has, or has read, what they sent
)

// An Inbox is a kind whose documents are messages to somebody (ModeMessage).
type Inbox interface {
	// Name, Semantics, Accepts, Permissions and DefaultPolicy are as in Kind.
	// The permissions are MaySend, MayType and MayBeTold, each a PermBool, and
	// perhaps others.
	Name() string
	Scheme() string
	Semantics() Semantics
	Accepts() []string
	Permissions() []Permission
	DefaultPolicy(owner Addr) []byte

	// Identify reads what is needed to order, deduplicate and report a message
	// that from sends to the inbox r. That it says to be from somebody else is
	// an error. The error wraps ErrInvalid, ErrUnsupported, ErrTooBig or
	// ErrLoop.
	Identify(r Resource, from Addr, doc Document) (Message, error)

	// Deliver writes what every device of the inbox gets of a message that
	// Identify has read, with what the broker vouches for: who sent it, its
	// place in the order of the inbox, and when it came in.
	Deliver(m Message, iseq uint64, at time.Time) Document

	// Open reads what Deliver has written; ok is false of anything else.
	Open(doc Document) (e Envelope, ok bool)

	// Report writes what became of m, for the one who sent it. reason is a
	// token, empty unless it failed.
	Report(m Message, what Disposition, reason string) Document

	// ReadReport reads what from, who has a message, says became of it: r is
	// the inbox of the one who sent it.
	ReadReport(r Resource, from Addr, doc Document) (Receipt, error)

	// Typing reads whether from is writing to the owner of r, and returns what
	// the owner gets of that, and for how long it counts.
	Typing(r Resource, from Addr, doc Document) (Document, time.Duration, error)
}

// A Message is what the broker has to know of an instant message.
type Message struct {
	ID       string // unique among the sender's messages; empty: the broker gives it one
	From, To Addr   // To is the inbox it was sent to
	Sent     time.Time
	Expires  time.Time // zero: the kind's default
	Wants    Dispositions
	ReplyTo  string // a URI, as the sender wrote it; empty if there is none
	Hops     int    // how many more brokers may pass it on
	Value    any    // as Identify read it, for Deliver
}

// An Envelope is what the broker has to know of a message that waits for devices.
type Envelope struct {
	ID   string
	ISeq uint64
	From Addr
	To   []Addr // the inbox that it was sent to, and perhaps others
}

// A Receipt is what somebody says became of a message they were sent.
type Receipt struct {
	ID       string // of the message
	From, To Addr   // who has it, and who sent it
	What     Disposition
	Sent     time.Time // when the message was, as far as the receipt says

	// Recipient is whom the message was sent to, as far as the receipt says: whoever has
	// it, or somebody whose messages they have.
	Recipient Addr
}

// A Disposition is what can become of a message.
type Disposition string

const (
	Delivered Disposition = "delivered" // a device of the recipient has it
	Failed    Disposition = "failed"    // it never will be
	Displayed Disposition = "displayed" // the recipient has read all up to this one
	Processed Disposition = "processed" // handed to a system that tells no more
	Stored    Disposition = "stored"    // kept for a recipient who is away
)

// Dispositions is a set of them.
type Dispositions uint8

// dispositions are the members a set can have, by bit.
var dispositions = [...]Disposition{Delivered, Failed, Displayed, Processed, Stored}

// All returns the members, in one order.
func (ds Dispositions) All() []Disposition {
	var all []Disposition
	for bit, d := range dispositions {
		if ds&(1<<bit) != 0 {
			all = append(all, d)
		}
	}
	return all
}

// With returns the set with d in it; unknown ones are left out.
func (ds Dispositions) With(d Disposition) Dispositions {
	for bit, known := range dispositions {
		if d == known {
			return ds | 1<<bit
		}
	}
	return ds
}

// Has says whether d is in the set.
func (ds Dispositions) Has(d Disposition) bool {
	return Dispositions(0).With(d)&ds != 0
}
