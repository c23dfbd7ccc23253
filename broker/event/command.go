package event

import "github.com/bellwire/bellwire/broker/secret"

// A Kind says what a command asks for. The numbers are on disk: they are never
// reused, and a command whose meaning changes gets a new one.
type Kind uint8

const (
	KindConnect     Kind = 1  // Connect
	KindDisconnect  Kind = 2  // Disconnect
	KindSubscribe   Kind = 3  // Subscribe
	KindUnsubscribe Kind = 4  // Unsubscribe
	KindPublish     Kind = 5  // Publish
	KindRelease     Kind = 6  // Release
	KindSettle      Kind = 7  // Settle
	KindReplay      Kind = 8  // Replay
	KindPolicy      Kind = 9  // Policy
	KindNodeUp      Kind = 10 // NodeUp
	KindTick        Kind = 11 // Tick
	KindSettings    Kind = 12 // Settings
	KindPassOver    Kind = 13 // PassOver
	KindNodeDown    Kind = 14 // NodeDown
	KindOfProfile   Kind = 15 // ProfileSettings
	KindRaise       Kind = 16 // Raise
	KindReturn      Kind = 17 // Return
	KindCopy        Kind = 18 // Copy
	KindPutPolicy   Kind = 19 // PutPolicy
	KindPutPart     Kind = 20 // PutPart
	KindAudit       Kind = 21 // Audit
	KindRequest     Kind = 24 // Request
	KindControl     Kind = 25 // Control
	KindUndelay     Kind = 30 // Undelay
	KindBan         Kind = 31 // Ban
	KindUnban       Kind = 32 // Unban
	KindKick        Kind = 33 // Kick
)

// A Command is one request to the Machine, in the form that the log carries.
// Session and Epoch, where a command has them, are what the Machine answered
// to the Connect of the connection that sends it: the Machine refuses a
// command of an older epoch, whatever it is.
type Command interface {
	Kind() Kind
	append(b []byte) []byte
	decode(r *reader)
}

// Decode reads the body of a command of c's kind, all of b. Strings and slices
// of c then alias b.
func Decode(c Command, b []byte) error { return new(Decoder).Decode(c, b) }

// A Decoder is Decode for who decodes many commands, without an allocation for
// each. The zero value is ready; one goroutine uses it at a time.
type Decoder struct{ r reader }

// Decode is the function of that name.
func (d *Decoder) Decode(c Command, b []byte) error {
	d.r = reader{b: b}
	c.decode(&d.r)
	err := d.r.end()
	d.r = reader{}
	return err
}

// Never is the session expiry of a session that does not expire (5.0
// 3.1.2.11.2).
const Never = 0xFFFFFFFF

// A Connect opens a connection for Client: it ends the connection that the
// client id had, wherever that was, and gives the session its next epoch.
type Connect struct {
	Client    string
	Principal string // who authenticated; empty for anonymous
	Version   uint8  // protocol level: 4 or 5
	Clean     bool   // Clean Start: discard the session there is

	// Expiry is how long the session outlives its connection, in seconds; 0
	// makes it end with it, Never keeps it for good.
	Expiry uint32

	// ReceiveMax is how many QoS 1 and 2 deliveries may be under way at once.
	// It is part of the state because the first ReceiveMax entries of a queue
	// are the ones that may have been sent before.
	ReceiveMax uint16

	At   int64 // the node's wall clock, unix nanoseconds
	Will *Will // nil for none

	// Origin is what only the node knows of the connection; nil below feature level 4.
	Origin *Origin
}

// An Origin is where a connection comes from, as its node sees it, and how it is kept.
type Origin struct {
	Address   string // of the client, empty if it has none that could be told
	Listener  string // by which it came
	KeepAlive uint16 // in force, seconds; 0 for none
}

// Bits of the byte behind a Connect's time, which say what follows.
const (
	connectWill   = 1 << 0
	connectOrigin = 1 << 1
)

// A Will is what the broker publishes for a connection that ended otherwise
// than by DISCONNECT 0x00.
type Will struct {
	Topic   string
	Payload []byte
	Props   []byte // as Event.Props
	QoS     uint8
	Retain  bool
	Delay   uint32 // seconds between the end of the connection and the will
	Expiry  uint32 // Message Expiry Interval, seconds; meaningful if Expires
	Expires bool
}

func (*Connect) Kind() Kind { return KindConnect }

func (c *Connect) append(b []byte) []byte {
	b = appendString(b, c.Client)
	b = appendString(b, c.Principal)
	b = append(b, c.Version)
	b = appendBool(b, c.Clean)
	b = appendUint(b, uint64(c.Expiry))
	b = appendUint(b, uint64(c.ReceiveMax))
	b = appendInt64(b, c.At)
	var follows byte
	if c.Will != nil {
		follows |= connectWill
	}
	if c.Origin != nil {
		follows |= connectOrigin
	}
	b = append(b, follows)
	if c.Will != nil {
		b = c.Will.Append(b)
	}
	if o := c.Origin; o != nil {
		b = appendUint(appendString(appendString(b, o.Address), o.Listener), uint64(o.KeepAlive))
	}
	return b
}

func (c *Connect) decode(r *reader) {
	c.Client, c.Principal = r.string(), r.string()
	c.Version, c.Clean = r.byte(), r.bool()
	c.Expiry, c.ReceiveMax = r.uint32(), r.uint16()
	c.At = r.int64()
	c.Will, c.Origin = nil, nil
	follows := r.byte()
	if follows&^(connectWill|connectOrigin) != 0 {
		r.fail("%#x for what follows", follows)
	}
	if follows&connectWill != 0 {
		c.Will = new(Will)
		c.Will.decode(r)
	}
	if follows&connectOrigin != 0 {
		c.Origin = &Origin{Address: r.string(), Listener: r.string(), KeepAlive: r.uint16()}
	}
}

// Append appends the binary form of w to b.
func (w *Will) Append(b []byte) []byte {
	b = appendString(b, w.Topic)
	b = appendBytes(b, w.Payload)
	b = appendBytes(b, w.Props)
	b = append(b, w.QoS)
	b = appendBool(b, w.Retain)
	b = appendUint(b, uint64(w.Delay))
	b = appendUint(b, uint64(w.Expiry))
	return appendBool(b, w.Expires)
}

// Decode reads the binary form of a will, all of b, which it then aliases.
func (w *Will) Decode(b []byte) error {
	r := reader{b: b}
	w.decode(&r)
	return r.end()
}

func (w *Will) decode(r *reader) {
	w.Topic, w.Payload, w.Props = r.string(), r.bytes(), r.bytes()
	w.QoS, w.Retain = r.byte(), r.bool()
	w.Delay, w.Expiry, w.Expires = r.uint32(), r.uint32(), r.bool()
}

// A Disconnect ends the connection of this epoch.
type Disconnect struct {
	Session, Epoch uint64
	PublishWill    bool // false only after DISCONNECT 0x00
	SetExpiry      bool // the client changed its session expiry to Expiry
	Expiry         uint32

	// Sent is the first entry of the session's queue that was not sent yet:
	// those before it may go out again as duplicates only.
	Sent uint64
	At   int64

	// Why the connection is over: a reason code of DISCONNECT's, whoever has sent it or
	// would have, or one of the following. ReasonUnknown below feature level 4.
	Why uint8

	// Exact says that the node has ended the connection before this one as well, and
	// so knows what nobody else does: Sent is of either, and those from Maybe on were
	// sent by no connection, whatever was presumed. Not below feature level 4.
	Exact bool
	Maybe uint64
}

// Reasons of which DISCONNECT has no code, or another.
const (
	ReasonUnknown  = 0x00
	ReasonNormal   = 0x01 // DISCONNECT 0x00
	ReasonLost     = 0xFE // the stream broke, or the client closed it without DISCONNECT
	ReasonNodeLost = 0xFD // the node that held the connection; it is in no Disconnect
)

// Bits of the byte behind a Disconnect's epoch.
const (
	disconnectWill  = 1 << 0 // PublishWill
	disconnectWhy   = 1 << 1 // Why stands at the end
	disconnectExact = 1 << 2 // Exact; Maybe stands behind it
)

func (*Disconnect) Kind() Kind { return KindDisconnect }

func (c *Disconnect) append(b []byte) []byte {
	b = appendUint(appendUint(b, c.Session), c.Epoch)
	var bits byte
	if c.PublishWill {
		bits |= disconnectWill
	}
	if c.Why != ReasonUnknown {
		bits |= disconnectWhy
	}
	if c.Exact {
		bits |= disconnectExact
	}
	b = appendBool(append(b, bits), c.SetExpiry)
	b = appendInt64(appendUint(appendUint(b, uint64(c.Expiry)), c.Sent), c.At)
	if c.Why != ReasonUnknown {
		b = append(b, c.Why)
	}
	if c.Exact {
		b = appendUint(b, c.Maybe)
	}
	return b
}

func (c *Disconnect) decode(r *reader) {
	c.Session, c.Epoch = r.uvarint(), r.uvarint()
	bits := r.byte()
	if bits&^(disconnectWill|disconnectWhy|disconnectExact) != 0 {
		r.fail("%#x for bits of a Disconnect", bits)
	}
	c.PublishWill, c.SetExpiry = bits&disconnectWill != 0, r.bool()
	c.Expiry, c.Sent, c.At = r.uint32(), r.uvarint(), r.int64()
	c.Why = ReasonUnknown
	if bits&disconnectWhy != 0 {
		if c.Why = r.byte(); c.Why == ReasonUnknown {
			r.fail("no reason where there is to be one")
		}
	}
	c.Exact, c.Maybe = bits&disconnectExact != 0, 0
	if c.Exact {
		c.Maybe = r.uvarint()
	}
}

// A Subscription is one filter of a session with its options.
type Subscription struct {
	Filter            string
	QoS               uint8  // the greatest QoS the subscriber is sent
	NoLocal           bool   // not what the session itself published
	RetainAsPublished bool   // keep the publisher's retain flag
	RetainHandling    uint8  // 0 send retained, 1 if the subscription is new, 2 never
	ID                uint32 // Subscription Identifier, 0 for none

	// Named is what the client has named, if that was rewritten to Filter. None below
	// feature level 4.
	Named string
}

// subscriptionNamed among the options says that Named stands at the end.
const subscriptionNamed = 1 << 6

// minSubscription is the length of the shortest binary form of one.
const minSubscription = 3

// Append appends the binary form of s to b.
func (s *Subscription) Append(b []byte) []byte {
	opts := s.QoS | s.RetainHandling<<4
	if s.NoLocal {
		opts |= 1 << 2
	}
	if s.RetainAsPublished {
		opts |= 1 << 3
	}
	if s.Named != "" {
		opts |= subscriptionNamed
	}
	b = appendUint(append(appendString(b, s.Filter), opts), uint64(s.ID))
	if s.Named != "" {
		b = appendString(b, s.Named)
	}
	return b
}

// Decode reads the binary form of a subscription, all of b, which it then
// aliases.
func (s *Subscription) Decode(b []byte) error {
	r := reader{b: b}
	s.decode(&r)
	return r.end()
}

func (s *Subscription) decode(r *reader) {
	s.Filter = r.string()
	opts := r.byte()
	named := opts&subscriptionNamed != 0
	if opts &^= subscriptionNamed; opts > 0x2f || opts&3 == 3 {
		r.fail("subscription options %#x", opts)
		return
	}
	s.QoS, s.RetainHandling = opts&3, opts>>4&3
	s.NoLocal, s.RetainAsPublished = opts&(1<<2) != 0, opts&(1<<3) != 0
	s.ID, s.Named = r.uint32(), ""
	if named {
		if s.Named = r.string(); s.Named == "" {
			r.fail("no name where there is to be one")
		}
	}
}

// A Subscribe sets subscriptions of a durable session.
type Subscribe struct {
	Session, Epoch uint64
	Subs           []Subscription
}

func (*Subscribe) Kind() Kind { return KindSubscribe }

func (c *Subscribe) append(b []byte) []byte {
	b = appendUint(appendUint(b, c.Session), c.Epoch)
	b = appendUint(b, uint64(len(c.Subs)))
	for i := range c.Subs {
		b = c.Subs[i].Append(b)
	}
	return b
}

func (c *Subscribe) decode(r *reader) {
	c.Session, c.Epoch = r.uvarint(), r.uvarint()
	c.Subs = make([]Subscription, r.count(minSubscription))
	for i := range c.Subs {
		c.Subs[i].decode(r)
	}
}

// An Unsubscribe removes subscriptions of a durable session.
type Unsubscribe struct {
	Session, Epoch uint64
	Filters        []string
}

func (*Unsubscribe) Kind() Kind { return KindUnsubscribe }

func (c *Unsubscribe) append(b []byte) []byte {
	b = appendUint(appendUint(b, c.Session), c.Epoch)
	b = appendUint(b, uint64(len(c.Filters)))
	for _, f := range c.Filters {
		b = appendString(b, f)
	}
	return b
}

func (c *Unsubscribe) decode(r *reader) {
	c.Session, c.Epoch = r.uvarint(), r.uvarint()
	c.Filters = make([]string, r.count(1))
	for i := range c.Filters {
		c.Filters[i] = r.string()
	}
}

// A Publish orders one event. PacketID, if not 0, is the id of a QoS 2 publish
// of a durable session: the Machine remembers it until its Release and routes
// the event once (5.0 4.3.3).
type Publish struct {
	Epoch    uint64 // of Event.Origin
	PacketID uint16
	Event    *Event // decoding fills in the one that is there, or a new one
}

func (*Publish) Kind() Kind { return KindPublish }

func (c *Publish) append(b []byte) []byte {
	b = appendUint(b, c.Epoch)
	b = appendUint(b, uint64(c.PacketID))
	return c.Event.Append(b)
}

func (c *Publish) decode(r *reader) {
	c.Epoch, c.PacketID = r.uvarint(), r.uint16()
	if c.Event == nil {
		c.Event = new(Event)
	}
	c.Event.decode(r)
}

// A Release forgets the id of a QoS 2 publish: the client's PUBREL.
type Release struct {
	Session, Epoch uint64
	PacketID       uint16
}

func (*Release) Kind() Kind { return KindRelease }

func (c *Release) append(b []byte) []byte {
	b = appendUint(appendUint(b, c.Session), c.Epoch)
	return appendUint(b, uint64(c.PacketID))
}

func (c *Release) decode(r *reader) {
	c.Session, c.Epoch, c.PacketID = r.uvarint(), r.uvarint(), r.uint16()
}

// A Settle says what became of entries of a durable session's queue: all below
// Below and those of Done are over, those of Received the client has taken
// (PUBREC) but not completed; those from Sent on were not sent yet. Losing one
// only redelivers, except for Received, whose application the PUBREL waits for.
type Settle struct {
	Session, Epoch uint64
	Below, Sent    uint64
	Done, Received []uint64 // ascending
}

func (*Settle) Kind() Kind { return KindSettle }

func (c *Settle) append(b []byte) []byte {
	b = appendUint(appendUint(b, c.Session), c.Epoch)
	b = appendUint(appendUint(b, c.Below), c.Sent)
	return appendUints(appendUints(b, c.Done), c.Received)
}

func (c *Settle) decode(r *reader) {
	c.Session, c.Epoch = r.uvarint(), r.uvarint()
	c.Below, c.Sent = r.uvarint(), r.uvarint()
	c.Done, c.Received = r.uvarints(), r.uvarints()
}

// A PassOver names entries of a durable session's queue that its client was not
// sent, and will not be: it may not have them, or they had expired. Of entries
// that somebody wants to know the fate of it comes before the Settle that says
// that they are over.
type PassOver struct {
	Session, Epoch uint64
	Entries        []uint64 // ascending
}

func (*PassOver) Kind() Kind { return KindPassOver }

func (c *PassOver) append(b []byte) []byte {
	return appendUints(appendUint(appendUint(b, c.Session), c.Epoch), c.Entries)
}

func (c *PassOver) decode(r *reader) {
	c.Session, c.Epoch, c.Entries = r.uvarint(), r.uvarint(), r.uvarints()
}

// A Return names entries of a session's queue that it was given as a member of a
// group (a shared subscription), and whose client was not sent them and will not
// be: somebody else of the group is to have them.
type Return struct {
	Session, Epoch uint64
	Entries        []uint64 // ascending
}

func (*Return) Kind() Kind { return KindReturn }

func (c *Return) append(b []byte) []byte {
	return appendUints(appendUint(appendUint(b, c.Session), c.Epoch), c.Entries)
}

func (c *Return) decode(r *reader) {
	c.Session, c.Epoch, c.Entries = r.uvarint(), r.uvarint(), r.uvarints()
}

// A Copy names entries that refer to bodies of which little else is left: events stored
// once for several entries, among many that nobody waits for any more. These are stored
// anew, and the entries refer to that. An entry that is gone, or refers to another body
// by then, is passed over; so is what comes to too much for one entry of the log.
type Copy struct {
	Of []Reference // ascending: queues before streams, by owner, by number
}

// A Reference names an entry that refers to a body: that with the number At in the queue
// of the session, or of the group, or in the stream, which Owner is the number of.
type Reference struct {
	Stream    bool
	Owner, At uint64
}

func (*Copy) Kind() Kind { return KindCopy }

func (c *Copy) append(b []byte) []byte {
	b = appendUint(b, uint64(len(c.Of)))
	for _, ref := range c.Of {
		b = appendUint(appendUint(appendBool(b, ref.Stream), ref.Owner), ref.At)
	}
	return b
}

func (c *Copy) decode(r *reader) {
	c.Of = make([]Reference, r.count(3))
	for i := range c.Of {
		c.Of[i] = Reference{r.bool(), r.uvarint(), r.uvarint()}
	}
}

// A Replay queues the retained events of Topics for a durable session, as its
// subscription to Filter gets them, but for those that were retained after the
// position After: they reach the session as live events. The node that holds the
// session chooses the topics, in pieces; Position, the last topic it looked at,
// is kept with the subscription until Final, so that another life of the node
// can go on from there. An empty Position leaves it alone.
type Replay struct {
	Session, Epoch uint64
	Filter         string
	After          uint64
	Topics         []string
	Position       string
	Final          bool
	At             int64
}

func (*Replay) Kind() Kind { return KindReplay }

func (c *Replay) append(b []byte) []byte {
	b = appendUint(appendUint(b, c.Session), c.Epoch)
	b = appendUint(appendString(b, c.Filter), c.After)
	b = appendUint(b, uint64(len(c.Topics)))
	for _, t := range c.Topics {
		b = appendString(b, t)
	}
	return appendInt64(appendBool(appendString(b, c.Position), c.Final), c.At)
}

func (c *Replay) decode(r *reader) {
	c.Session, c.Epoch = r.uvarint(), r.uvarint()
	c.Filter, c.After = r.string(), r.uvarint()
	c.Topics = make([]string, r.count(1))
	for i := range c.Topics {
		c.Topics[i] = r.string()
	}
	c.Position, c.Final, c.At = r.string(), r.bool(), r.int64()
}

// A Policy replaces the operator's policy.
type Policy struct{ Data []byte }

func (*Policy) Kind() Kind { return KindPolicy }

func (c *Policy) append(b []byte) []byte { return appendBytes(b, c.Data) }
func (c *Policy) decode(r *reader)       { c.Data = r.bytes() }

// A PutPolicy replaces the operator's policy, as Policy does, and says by whom. Base is
// the number of the policy that must be in force; 0 if any may.
type PutPolicy struct {
	Data []byte
	By   string
	Base uint64
}

func (*PutPolicy) Kind() Kind { return KindPutPolicy }

func (c *PutPolicy) append(b []byte) []byte {
	return appendBytes(appendString(appendUint(b, c.Base), c.By), c.Data)
}

func (c *PutPolicy) decode(r *reader) {
	c.Base, c.By, c.Data = r.uvarint(), r.string(), r.bytes()
}

// A PutPart replaces the part of the policy that belongs to Domain; empty Data ends it.
// Base is the number of the part that must be in force; 0 if any may, or none.
type PutPart struct {
	Domain   string
	Data     []byte
	By, Door string // Door is how By has come, empty if that follows from By
	Base     uint64
}

func (*PutPart) Kind() Kind { return KindPutPart }

func (c *PutPart) append(b []byte) []byte {
	return appendBytes(appendString(appendString(appendUint(appendString(b, c.Domain), c.Base), c.By), c.Door), c.Data)
}

func (c *PutPart) decode(r *reader) {
	c.Domain, c.Base, c.By, c.Door, c.Data = r.string(), r.uvarint(), r.string(), r.string(), r.bytes()
}

// An Audit is written down: By has looked at What of About, through Door, with Result; see
// broker.AuditEntry.
type Audit struct {
	By, Door, What, About, Result string
	Hidden                        bool
}

func (*Audit) Kind() Kind { return KindAudit }

func (c *Audit) append(b []byte) []byte {
	for _, s := range [...]string{c.By, c.Door, c.What, c.About, c.Result} {
		b = appendString(b, s)
	}
	return appendBool(b, c.Hidden)
}

func (c *Audit) decode(r *reader) {
	c.By, c.Door, c.What, c.About, c.Result = r.string(), r.string(), r.string(), r.string(), r.string()
	c.Hidden = r.bool()
}

// An Undelay takes back a delayed event: the one that was ordered at the position Number
// by Owner (see broker.Delayed).
type Undelay struct {
	Owner  string
	Number uint64
}

func (*Undelay) Kind() Kind { return KindUndelay }

func (c *Undelay) append(b []byte) []byte { return appendUint(appendString(b, c.Owner), c.Number) }
func (c *Undelay) decode(r *reader)       { c.Owner, c.Number = r.string(), r.uvarint() }

// ProfileSettings replace those of one profile, which alone can read them.
type ProfileSettings struct {
	Profile string
	Data    []byte
}

func (*ProfileSettings) Kind() Kind { return KindOfProfile }

func (c *ProfileSettings) append(b []byte) []byte {
	return appendBytes(appendString(b, c.Profile), c.Data)
}

func (c *ProfileSettings) decode(r *reader) { c.Profile, c.Data = r.string(), r.bytes() }

// A Raise raises the feature level: from the next command on, kinds of command and
// rules of application are used that came with the levels up to it. It is proposed
// only when all members know them. One that is reached already changes nothing.
type Raise struct {
	Level uint8

	// Secret is the cluster's if it has none yet, drawn by who proposes this. It is
	// there if, and only if, Level is SecretLevel or above.
	Secret secret.Secret
}

// SecretLevel is the first level at which a cluster has a secret.
const SecretLevel = 4

// WithoutSecret is what a Raise from a program under development is damaged by.
const WithoutSecret = "a feature level is raised without the cluster's secret, as by a version under development: begin with an empty data directory"

func (*Raise) Kind() Kind { return KindRaise }

func (c *Raise) append(b []byte) []byte {
	if has := len(c.Secret) == secret.Size; has != (c.Level >= SecretLevel) {
		panic("event: a Raise whose secret does not go with its level") // no node could go on from it
	}
	return append(append(b, c.Level), c.Secret...)
}

func (c *Raise) decode(r *reader) {
	c.Level, c.Secret = r.byte(), nil
	switch {
	case c.Level < SecretLevel:
	case len(r.b) == 0:
		r.fail("%s", WithoutSecret)
	case len(r.b) < secret.Size:
		r.fail("too short")
	default:
		c.Secret, r.b = secret.Secret(r.b[:secret.Size:secret.Size]), r.b[secret.Size:]
	}
}

// A NodeUp opens an incarnation of the batch's node: the sessions that the
// former one held have lost their connections.
type NodeUp struct{ At int64 }

func (*NodeUp) Kind() Kind { return KindNodeUp }

func (c *NodeUp) append(b []byte) []byte { return appendInt64(b, c.At) }
func (c *NodeUp) decode(r *reader)       { c.At = r.int64() }

// A NodeDown closes an incarnation of another node, which has been silent for too
// long: the sessions that it holds have lost their connections, and no batch of it
// is applied any more. One that is not open any more is left as it is.
type NodeDown struct {
	Node        string
	Incarnation uint64
	At          int64
}

func (*NodeDown) Kind() Kind { return KindNodeDown }

func (c *NodeDown) append(b []byte) []byte {
	return appendInt64(appendInt64(appendString(b, c.Node), int64(c.Incarnation)), c.At)
}

func (c *NodeDown) decode(r *reader) {
	c.Node, c.Incarnation, c.At = r.string(), uint64(r.int64()), r.int64()
}

// A Tick moves the log's time, nothing else: what is due by the stamp of its
// entry happens.
type Tick struct{}

func (*Tick) Kind() Kind             { return KindTick }
func (*Tick) append(b []byte) []byte { return b }
func (*Tick) decode(*reader)         {}
