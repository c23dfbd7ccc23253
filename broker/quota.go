package broker

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// What domains use, and may use.
//
// All but rates follows from the state, which every node has alike: the Machine counts as
// it applies, without a look at what there is, and refuses in the order of the log what
// would be one too many. A quota that is less than what there is ends nothing: it refuses
// what is new. The losers are, in the order of DomainQuota: the session, the subscription,
// the publication, the event for the one session that would have to keep it, the watcher,
// and the publication.
//
// Counts are kept by domain of the principal, and a record has that of its own at hand: an
// event that is queued costs an addition.

// A DomainQuota bounds what the people of a domain use; 0 of any field bounds nothing.
type DomainQuota struct {
	// Sessions is how many sessions there may be of theirs, connected or not, on all
	// nodes.
	Sessions uint64

	// Subscriptions is how many they may have in all sessions. For it to be exact, those
	// of sessions that end with their connections are ordered, too, while there is one.
	Subscriptions uint64

	// RetainedTopics is how many plain topics may have a retained event whose publisher is
	// one of theirs. To retain one that another domain's had is one more.
	RetainedTopics uint64

	// QueueBytes is how many bytes may wait in their sessions' queues, and in those of the
	// groups that they founded. A session that is connected, and takes what it is sent,
	// gets its events all the same; of any other the event that comes is dropped, counted
	// and told like those that a queue's own bound drops. Sessions of a domain with this
	// quota join no streams: what streams owe is in no queue.
	QueueBytes uint64

	// Watchers is how many live subscriptions there may be to resources of theirs, pending
	// ones too, whoever watches. People of one other domain have at most as many of them as
	// they leave to everybody else: resources that nobody has count like others, for not to
	// would tell, and so anybody can make any number of them.
	Watchers uint64

	// Delayed is how many events of theirs may wait for their time (see delayed.go).
	Delayed uint64

	// PublishesPerSecond is how many events they may publish on each node, after as many at
	// once.
	PublishesPerSecond uint64
}

// A quoter is an Authorizer that has quotas of domains.
type quoter interface {
	QuotaOf(domain string) DomainQuota

	// Quotas calls yield with each domain that has one.
	Quotas(yield func(domain string, q DomainQuota) bool)
}

// A Use is what is used of one quota.
type Use struct {
	Used    uint64
	Refused uint64 // by this node, or as it applied the log, since it was started
}

// A DomainUse is what a domain uses.
type DomainUse struct{ Sessions, Subscriptions, RetainedTopics, QueueBytes, Watchers, Delayed, Publishes Use }

// What a use is of.
const (
	useSessions = iota
	useSubscriptions
	useRetained
	useQueueBytes
	useWatchers
	useDelayed
	uses
)

// useNames are for people.
var useNames = [uses]string{"sessions", "subscriptions", "retained topics", "bytes in queues", "watchers", "delayed events"}

// A domainCount is what one domain uses. The Machine alone changes it.
type domainCount struct {
	name  string
	quota [uses]uint64 // of the policy in force; the Machine's

	used    [uses]atomic.Int64
	refused [uses]atomic.Uint64

	watchers map[string]uint64 // of useWatchers, those of another domain, by that; the Machine's
	groups   int               // that its people have founded, and whose records have it at hand; likewise
}

// add counts n more. A nil count, which is that of no domain, counts nothing.
func (c *domainCount) add(what, n int) {
	if c != nil {
		c.used[what].Add(int64(n))
	}
}

// room refuses n more of something if they are too many.
func (c *domainCount) room(what, n int) error {
	if c == nil || c.quota[what] == 0 || uint64(c.used[what].Load())+uint64(n) <= c.quota[what] {
		return nil
	}
	c.refused[what].Add(1)
	return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: %s has no room for more %s", c.name, useNames[what])}
}

// domainUses are the counts of all domains.
type domainUses struct {
	mu     sync.Mutex // held by the Machine where it changes the map, and by readers
	counts map[string]*domainCount
	quotas quoter // nil: there are none
}

func domainOf(principal string) string {
	_, domain, _ := strings.Cut(principal, "@")
	return domain
}

// of returns the count of a principal's domain, nil if it has none. For the Machine.
func (d *domainUses) of(principal string) *domainCount { return d.named(domainOf(principal)) }

func (d *domainUses) named(domain string) *domainCount {
	if domain == "" {
		return nil
	}
	if c := d.counts[domain]; c != nil {
		return c
	}
	c := &domainCount{name: strings.Clone(domain)}
	if d.quotas != nil {
		c.setQuota(d.quotas.QuotaOf(domain))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = map[string]*domainCount{}
	}
	d.counts[c.name] = c
	return c
}

func (c *domainCount) setQuota(q DomainQuota) {
	c.quota = [uses]uint64{q.Sessions, q.Subscriptions, q.RetainedTopics, q.QueueBytes, q.Watchers, q.Delayed}
}

// adopt puts the quotas of a policy in force.
func (d *domainUses) adopt(policy Authorizer) {
	d.quotas, _ = policy.(quoter)
	for _, c := range d.counts { // in any order: each for itself
		c.quota = [uses]uint64{}
	}
	if d.quotas == nil {
		return
	}
	d.quotas.Quotas(func(domain string, q DomainQuota) bool {
		if c := d.counts[domain]; c != nil {
			c.setQuota(q)
		}
		return true
	})
}

// reset makes all counts 0: another state takes the place of this one.
func (d *domainUses) reset() {
	for _, c := range d.counts { // in any order: each for itself
		for i := range c.used {
			c.used[i].Store(0)
		}
		clear(c.watchers)
		c.groups = 0
	}
}

// prune forgets a domain of which there is nothing, and which has no quota. It is asked
// wherever something of one ends: watchers name domains, and would make them up for good. No
// record has one of these at hand: a session's, or a group's, is counted.
func (d *domainUses) prune(c *domainCount) {
	if c == nil || c.groups > 0 || c.quota != [uses]uint64{} {
		return
	}
	for i := range c.used {
		if c.used[i].Load() != 0 {
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.counts, c.name)
}

// use returns what a domain uses. For any goroutine.
func (d *domainUses) use(domain string) (u DomainUse) {
	d.mu.Lock()
	c := d.counts[domain]
	d.mu.Unlock()
	if c == nil {
		return u
	}
	for i, to := range [uses]*Use{&u.Sessions, &u.Subscriptions, &u.RetainedTopics, &u.QueueBytes, &u.Watchers, &u.Delayed} {
		*to = Use{Used: uint64(max(0, c.used[i].Load())), Refused: c.refused[i].Load()}
	}
	return u
}

// domains lists those of which there is something, or was. For any goroutine.
func (d *domainUses) domains() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.counts))
}

// UseOf returns what a domain uses, as this node has it. For any goroutine.
func (b *Broker) UseOf(domain string) DomainUse {
	u := b.machine.domains.use(domain)
	u.Publishes = b.paces.use(domain, b.now())
	return u
}

// Domains returns the domains that use something. For any goroutine.
func (b *Broker) Domains() []string { return b.machine.domains.domains() }

// addSub counts one subscription more of a session, or one less if n is -1.
func (m *Machine) addSub(r *record, filter string, n int) {
	r.subs = uint32(int(r.subs) + n)
	r.countSub(filter, n)
	if !r.connected() {
		m.awaiting.subscriptions.Add(int64(n))
	}
}

// roomForSubs says whether r's domain, and its principal, may have so many subscriptions.
func (m *Machine) roomForSubs(r *record, subs []event.Subscription) error {
	if !m.countsSubs(r) {
		return nil
	}
	fresh := make(map[string]struct{}, len(subs))
	for i := range subs {
		if _, had := m.subOf(subs[i].Filter, r.session); !had && !m.hasAsked(r.session, subs[i].Filter) {
			fresh[subs[i].Filter] = struct{}{}
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := m.roomForUser(r, fresh); err != nil {
		return err
	}
	return r.use.room(useSubscriptions, len(fresh))
}

// dropsForQuota says whether an event of size bytes is not queued for r, because its domain
// has no room. It is counted, and told when r resumes, as what the queue's own bound drops.
func (m *Machine) dropsForQuota(r *record, size int) bool {
	if r.use == nil || r.use.quota[useQueueBytes] == 0 {
		return false
	}
	if r.connected() && r.queue.count < m.limits.inFlight(r.recvMax) {
		return false
	}
	if r.use.room(useQueueBytes, size) == nil {
		return false
	}
	r.queue.dropped++
	m.out.queueDropped++
	m.touch(r)
	return true
}

// How many watch a domain's resources is told by profiles, who keep them; the sum is kept
// here, by domain: uvarint. Beside it, what of it are people of another domain, by the
// domain, NUL, and that one: uvarint. Who has no domain is of the empty one.
var watchedPrefix = append([]byte{byte(store.Policies)}, "watched/"...)

func watchedKey(domain string) []byte { return append(slices.Clone(watchedPrefix), domain...) }

func watchedFromKey(domain, from string) []byte {
	return append(append(watchedKey(domain), 0), from...)
}

func (m *Machine) loadWatched() error {
	var damaged error
	m.store.Scan(watchedPrefix, store.End(watchedPrefix), func(key, value []byte) bool {
		n, read := binary.Uvarint(value)
		if read != len(value) || read <= 0 {
			damaged = event.ErrDamaged
			return false
		}
		domain, from, part := strings.Cut(string(key[len(watchedPrefix):]), "\x00")
		switch c := m.domains.named(domain); {
		case c == nil:
		case part:
			c.watchFrom(from, int(n))
		default:
			c.add(useWatchers, int(n))
		}
		return true
	})
	return damaged
}

// watchFrom counts more who watch and are of another domain, and returns how many do.
func (c *domainCount) watchFrom(from string, more int) uint64 {
	if c.watchers == nil {
		c.watchers = map[string]uint64{}
	}
	n := max(int(c.watchers[from])+more, 0)
	if n == 0 {
		delete(c.watchers, from)
		return 0
	}
	c.watchers[strings.Clone(from)] = uint64(n)
	return uint64(n)
}

// crowds says whether people of a domain have as many of the watchers of another, c, as
// are left for everybody.
func (c *domainCount) crowds(from string) bool {
	quota := c.quota[useWatchers]
	return quota > 0 && from != c.name && c.watchers[from]+uint64(c.used[useWatchers].Load()) >= quota
}

// domainOfTopic returns the domain of a profile's topic: its second level.
func domainOfTopic(topicName string) string {
	_, rest, _ := strings.Cut(topicName, "/")
	domain, _, _ := strings.Cut(rest, "/")
	return domain
}

// MayWatch refuses one live subscription more of a watcher to a resource, if its domain has
// as many as it may, or the watcher's has its share of them. What there is of that domain is
// told nobody.
func (t *ProfileTx) MayWatch(topicName, watcher string) error {
	c := t.m.domains.named(domainOfTopic(topicName))
	defer t.m.domains.prune(c)
	err := c.room(useWatchers, 1)
	if err == nil && c != nil && c.crowds(domainOf(watcher)) {
		c.refused[useWatchers].Add(1)
		err = ErrQuota
	}
	if err != nil {
		return &Refusal{Cause: ErrQuota, Reason: "quota: as many watch there as are possible"}
	}
	return nil
}

// Watched takes note that a watcher has so many live subscriptions more to a resource.
func (t *ProfileTx) Watched(topicName, watcher string, more int) {
	domain, from := domainOfTopic(topicName), domainOf(watcher)
	c := t.m.domains.named(domain)
	if c == nil {
		return
	}
	c.add(useWatchers, more)
	t.m.setCount(watchedKey(domain), uint64(max(c.used[useWatchers].Load(), 0)))
	if from != domain {
		t.m.setCount(watchedFromKey(domain, from), c.watchFrom(from, more))
	}
	t.m.domains.prune(c)
}

// setCount sets a count, which has no key while it is 0.
func (m *Machine) setCount(key []byte, n uint64) {
	if n == 0 {
		m.tx.Delete(key)
		return
	}
	m.tx.Set(key, binary.AppendUvarint(nil, n))
}

// counted says whether the log counts a session's plain subscriptions although it keeps
// none of them.
func (s *Session) counted() bool {
	p := s.b.policy.Load()
	if s.durable || p == nil || s.b.Level() < LevelRequests {
		return false
	}
	if most := s.b.boundsOf(s.who.Principal); s.who.Principal != "" && most.Subscriptions+most.Wildcards > 0 {
		return true
	}
	q, ok := p.Authorizer.(quoter)
	return ok && q.QuotaOf(domainOf(s.who.Principal)).Subscriptions > 0
}

// logs returns which filters of a session that ends with its connection the log is told of:
// requests, shared ones, and if they are counted all; and which of them are told for that
// alone.
func (s *Session) logs(subs []event.Subscription) (logged []event.Subscription, forThat []string) {
	counted := s.counted()
	for _, sub := range subs {
		_, shared := sharedRest(sub.Filter)
		switch {
		case shared || s.isRequest(sub.Filter):
		case counted:
			forThat = append(forThat, sub.Filter)
		default:
			continue
		}
		logged = append(logged, sub)
	}
	return logged, forThat
}

// remembers takes note of filters that the log counts, and does nothing else with: when they
// end it is told, too. For the reading goroutine.
func (s *Session) remembers(counted []string) {
	if s.told == nil && len(counted) > 0 {
		s.told = map[string]struct{}{}
	}
	for _, f := range counted {
		s.told[strings.Clone(f)] = struct{}{}
	}
}

// isToldOf says whether the log is to hear that a subscription of such a session ends.
func (s *Session) isToldOf(filter string) bool {
	_, shared := sharedRest(filter)
	_, counted := s.told[filter]
	delete(s.told, filter)
	return shared || counted || s.isRequest(filter)
}
