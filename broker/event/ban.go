package event

// A Ban keeps out whoever all that it names matches; what is empty matches everybody, and
// one of the three is not. A ban of the same names takes the place of the one there is.
type Ban struct {
	Client  string // a client id
	User    string // a principal
	Network string // a prefix, as netip.Prefix writes it

	Until  int64 // log time, unix nanoseconds; 0 for good
	Reason string

	By, Door string // who bans and how they have come; see broker.AuditEntry
	Auto     bool   // a node bans by itself
}

func (*Ban) Kind() Kind { return KindBan }

// Append appends the binary form of c to b.
func (c *Ban) Append(b []byte) []byte { return c.append(b) }

func (c *Ban) append(b []byte) []byte {
	for _, s := range [...]string{c.Client, c.User, c.Network, c.Reason, c.By, c.Door} {
		b = appendString(b, s)
	}
	return appendBool(appendInt64(b, c.Until), c.Auto)
}

func (c *Ban) decode(r *reader) {
	for _, s := range [...]*string{&c.Client, &c.User, &c.Network, &c.Reason, &c.By, &c.Door} {
		*s = r.string()
	}
	c.Until, c.Auto = r.int64(), r.bool()
}

// An Unban ends the ban of these names.
type Unban struct{ Client, User, Network, By, Door string }

func (*Unban) Kind() Kind { return KindUnban }

func (c *Unban) append(b []byte) []byte {
	for _, s := range [...]string{c.Client, c.User, c.Network, c.By, c.Door} {
		b = appendString(b, s)
	}
	return b
}

func (c *Unban) decode(r *reader) {
	for _, s := range [...]*string{&c.Client, &c.User, &c.Network, &c.By, &c.Door} {
		*s = r.string()
	}
}

// A Kick ends the connection that Client has, wherever that is, and with Drop its session.
type Kick struct {
	Client   string
	Drop     bool
	By, Door string
}

func (*Kick) Kind() Kind { return KindKick }

func (c *Kick) append(b []byte) []byte {
	return appendString(appendString(appendBool(appendString(b, c.Client), c.Drop), c.By), c.Door)
}

func (c *Kick) decode(r *reader) {
	c.Client, c.Drop, c.By, c.Door = r.string(), r.bool(), r.string(), r.string()
}
