package event

// A Request sets subscriptions, as Subscribe does, of any session, durable or not,
// among which are some that ask for what its owner permits: those are answered one by
// one, and have a life of their own from then on.
type Request struct {
	Session, Epoch uint64
	Subs           []Subscription
	Queued         bool   // the session has a queue: all are the log's to keep, not only requests and shared ones
	Props          []byte // the User Properties of the SUBSCRIBE that say how, as Event.Props
}

func (*Request) Kind() Kind { return KindRequest }

func (c *Request) append(b []byte) []byte {
	b = (&Subscribe{Session: c.Session, Epoch: c.Epoch, Subs: c.Subs}).append(b)
	return appendBytes(appendBool(b, c.Queued), c.Props)
}

func (c *Request) decode(r *reader) {
	var s Subscribe
	s.decode(r)
	c.Session, c.Epoch, c.Subs = s.Session, s.Epoch, s.Subs
	c.Queued, c.Props = r.bool(), r.bytes()
}

// A Control is what a principal asks a profile to do, as a publication to $ctl/ and
// the verb, by way of something that is no session.
type Control struct {
	Principal string
	Profile   string
	Verb      string
	Data      []byte
	At        int64
}

func (*Control) Kind() Kind { return KindControl }

func (c *Control) append(b []byte) []byte {
	b = appendString(appendString(appendString(b, c.Principal), c.Profile), c.Verb)
	return appendInt64(appendBytes(b, c.Data), c.At)
}

func (c *Control) decode(r *reader) {
	c.Principal, c.Profile, c.Verb = r.string(), r.string(), r.string()
	c.Data, c.At = r.bytes(), r.int64()
}
