package broker

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// Who fetches is noted.
//
// Owners are to learn of who fetches their resources otherwise than by a subscription
// (Broker.Fetch, FetchAll): as of who subscribes, to have them shown once. Of that a node
// keeps for some seconds how often each has fetched each resource, and then tells the log,
// by one command for each resource. The fetch does not wait for it. So who fetches very
// often costs the log no more than who does now and then; a node that is lost loses what
// it has gathered.
//
// It is noted whether there is such a resource or not, and whatever was shown.

// A FetchNoter is a Viewer that takes note of who has fetched its resources.
type FetchNoter interface {
	Viewer

	// Fetched is called in log order with who has fetched a resource since it was called
	// last, in the order of principals, each once. Also for a resource that there is not.
	Fetched(tx *ProfileTx, topicName string, by []FetchedBy)
}

// A FetchedBy is how often somebody has fetched a resource.
type FetchedBy struct {
	Principal string // empty: somebody without an identity
	Times     uint64
}

// Bounds of what a node gathers.
const (
	fetchesGathered = 10_000          // by whom and what; one more is not noted, and counted
	fetchesEvery    = 3 * time.Second // it is told the log so long after the first
	fetchesAtOnce   = 256             // resources whose commands are proposed together; the others follow
	fetchesAfter    = time.Second     // so much later
	fetchesTold     = 256             // principals that one command has
)

// gatheredFetches are what a node has not told the log yet. Safe for concurrent use.
type gatheredFetches struct {
	mu   sync.Mutex // guards the following
	of   map[string]map[string]uint64
	many int
}

// noteFetch gathers that who has fetched a resource.
func (b *Broker) noteFetch(v Viewer, who Who, topicName string, now int64) {
	if _, ok := v.(FetchNoter); !ok || b.Level() < LevelRequests {
		return
	}
	owner := v.Owner(topicName)
	if owner == "" || owner == who.Principal {
		return
	}
	f := &b.fetches
	f.mu.Lock()
	defer f.mu.Unlock()
	by := f.of[topicName]
	if _, again := by[who.Principal]; !again {
		if f.many >= fetchesGathered {
			b.stats.FetchesUnnoted.Add(1)
			return
		}
		f.many++
	}
	if f.of == nil {
		f.of = map[string]map[string]uint64{}
	}
	if by == nil {
		by = map[string]uint64{}
		f.of[strings.Clone(topicName)] = by
	}
	by[strings.Clone(who.Principal)]++
	b.watch.note(fetchesBucket, now+int64(fetchesEvery), now)
}

// take returns some of what was gathered, and says whether there is more.
func (f *gatheredFetches) take(most int) (some map[string]map[string]uint64, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.of) <= most {
		some, f.of, f.many = f.of, nil, 0
		return some, false
	}
	some = make(map[string]map[string]uint64, most)
	for topicName, by := range f.of {
		if len(some) == most {
			break
		}
		some[topicName] = by
		f.many -= len(by)
		delete(f.of, topicName)
	}
	return some, true
}

// tellFetches has the log told of what was gathered. It does not wait for it: what the log
// does not take is lost. In the delivery loop.
func (b *Broker) tellFetches(now int64) {
	some, more := b.fetches.take(fetchesAtOnce)
	if more {
		b.watch.note(fetchesBucket, now+int64(fetchesAfter), now)
	}
	for topicName, by := range some { // in any order: each is about another resource
		v := b.viewerOf(topicName)
		if v == nil {
			continue
		}
		all := make([]FetchedBy, 0, len(by))
		for principal, times := range by {
			all = append(all, FetchedBy{principal, times})
		}
		slices.SortFunc(all, func(a, c FetchedBy) int { return strings.Compare(a.Principal, c.Principal) })
		for piece := range slices.Chunk(all, fetchesTold) {
			c := event.Control{Principal: v.Owner(topicName), Profile: v.Prefix(), Verb: fetchedVerb, Data: appendFetched(nil, topicName, piece), At: now}
			if b.propose(&c, call{}, true) != nil {
				b.stats.FetchesUnnoted.Add(uint64(len(piece)))
			}
		}
	}
}

// fetchedVerb is the verb of a Control that tells of fetches: no client's, for topics have
// no NUL.
const fetchedVerb = "\x00fetched"

// The data of such a Control:
//
//	version u8 = 1, the resource: text, how many: uvarint, of each: principal: text, times: uvarint
//
// A text is its length as a uvarint and its bytes.
const fetchedVersion = 1

func appendFetched(b []byte, topicName string, by []FetchedBy) []byte {
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	b = append(b, fetchedVersion)
	text(topicName)
	b = binary.AppendUvarint(b, uint64(len(by)))
	for _, f := range by {
		text(f.Principal)
		b = binary.AppendUvarint(b, f.Times)
	}
	return b
}

// readFetched reads what appendFetched returned; ok is false of anything else.
func readFetched(b []byte) (topicName string, by []FetchedBy, ok bool) {
	ok = len(b) > 0 && b[0] == fetchedVersion
	if !ok {
		return "", nil, false
	}
	b = b[1:]
	number := func() (v uint64) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b, ok = nil, false
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(b)) {
			b, ok = nil, false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	topicName = text()
	for many := number(); ok && many > 0; many-- {
		by = append(by, FetchedBy{text(), number()})
	}
	return topicName, by, ok && len(b) == 0
}

// applyFetched has a profile take note of fetches.
func (m *Machine) applyFetched(c *event.Control) (*controlled, error) {
	n, ok := m.profiles[c.Profile].(FetchNoter)
	topicName, by, read := readFetched(c.Data)
	if !ok || !read || m.level < LevelRequests {
		return nil, ErrBadEvent
	}
	n.Fetched(&ProfileTx{m: m, prefix: n.Prefix()}, topicName, by)
	return new(controlled), nil
}
