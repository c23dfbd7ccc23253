package event

// Settings replace what of the configuration decides how commands are applied: it
// has to be the same on every node, so it is agreed. They are all set at once.
type Settings struct {
	Domain string // of bare names in the policy; may be empty

	// Bounds, all at least 1; see broker.Limits.
	Sessions, SubscriptionsPerSession, RetainedTopics uint64
	QueueEvents, QueueBytes                           uint64

	// Bounds of one principal; 0 bounds nothing. They came with level 4, and are not written
	// where all are 0; where only the first is not it stands alone, and otherwise all follow a 0.
	SessionsPerPrincipal, SubscriptionsPerPrincipal, WildcardsPerPrincipal uint64

	Principals string // bounds of single principals, see there; written as the last of these

	// Bounds of shared subscriptions: members of one group, groups that one session is in, and
	// that one principal has founded; 0 means the default. They came with level 4, too, and are
	// written after those: nothing where all are 0, the first where no other is set, and
	// otherwise all follow a 0.
	GroupMembers, GroupsPerSession, GroupsPerPrincipal uint64
}

// OfGroups are the bounds of shared subscriptions, in the order of the binary form.
func (c *Settings) OfGroups() [3]*uint64 {
	return [...]*uint64{&c.GroupMembers, &c.GroupsPerSession, &c.GroupsPerPrincipal}
}

// onlyMembers says whether of the bounds of shared subscriptions none but the first is set.
func (c *Settings) onlyMembers() bool { return c.GroupsPerSession == 0 && c.GroupsPerPrincipal == 0 }

// OfPrincipals are the bounds of one principal, in the order of the binary form.
func (c *Settings) OfPrincipals() [3]*uint64 {
	return [...]*uint64{&c.SessionsPerPrincipal, &c.SubscriptionsPerPrincipal, &c.WildcardsPerPrincipal}
}

// onlySessions says whether of the bounds of one principal none but the first is set.
func (c *Settings) onlySessions() bool {
	return c.SubscriptionsPerPrincipal == 0 && c.WildcardsPerPrincipal == 0 && c.Principals == "" &&
		c.GroupMembers == 0 && c.onlyMembers()
}

func (*Settings) Kind() Kind { return KindSettings }

// Append appends the binary form of c to b.
func (c *Settings) Append(b []byte) []byte { return c.append(b) }

func (c *Settings) append(b []byte) []byte {
	b = appendUint(appendUint(appendString(b, c.Domain), c.Sessions), c.SubscriptionsPerSession)
	b = appendUint(appendUint(appendUint(b, c.RetainedTopics), c.QueueEvents), c.QueueBytes)
	if c.onlySessions() {
		if c.SessionsPerPrincipal > 0 {
			b = appendUint(b, c.SessionsPerPrincipal)
		}
		return b
	}
	b = appendUint(b, 0)
	for _, n := range c.OfPrincipals() {
		b = appendUint(b, *n)
	}
	b = appendString(b, c.Principals)
	if c.onlyMembers() {
		if c.GroupMembers > 0 {
			b = appendUint(b, c.GroupMembers)
		}
		return b
	}
	b = appendUint(b, 0)
	for _, n := range c.OfGroups() {
		b = appendUint(b, *n)
	}
	return b
}

func (c *Settings) decode(r *reader) {
	c.Domain = r.string()
	c.Sessions, c.SubscriptionsPerSession = r.uvarint(), r.uvarint()
	c.RetainedTopics, c.QueueEvents, c.QueueBytes = r.uvarint(), r.uvarint(), r.uvarint()
	c.SessionsPerPrincipal, c.SubscriptionsPerPrincipal, c.WildcardsPerPrincipal = 0, 0, 0
	c.Principals = ""
	c.GroupMembers, c.GroupsPerSession, c.GroupsPerPrincipal = 0, 0, 0
	if len(r.b) == 0 {
		return
	}
	if c.SessionsPerPrincipal = r.uvarint(); c.SessionsPerPrincipal > 0 {
		return
	}
	for _, n := range c.OfPrincipals() {
		*n = r.uvarint()
	}
	c.Principals = r.string()
	if len(r.b) > 0 {
		c.decodeGroups(r)
	}
	if c.onlySessions() {
		r.fail("bounds of principals that have a shorter form")
	}
}

func (c *Settings) decodeGroups(r *reader) {
	if c.GroupMembers = r.uvarint(); c.GroupMembers > 0 {
		return
	}
	for _, n := range c.OfGroups() {
		*n = r.uvarint()
	}
	if c.onlyMembers() {
		r.fail("bounds of shared subscriptions that have a shorter form")
	}
}
