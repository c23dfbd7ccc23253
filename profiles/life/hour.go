package life

import (
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/internal/pace"
	"github.com/bellwire/bellwire/profiles/fields"
)

// Requests from other domains.
//
// One watcher has few requests that wait, but a domain may have any number of users: so what
// people of one domain ask of those of all others has a rate, so many at once and as many in
// an hour. Who shows no name, or one without a domain, are a domain together.
//
// What counts is a request that waits: whether its owner is to decide, has said to ignore it,
// or is nobody, so the bound tells nobody which (3(b)). What a policy grants or refuses at
// once bothers no owner, and counts no more than asking again for what waits. The loser is the
// request that would be one more, whoever of the domain asks.
//
// Of each domain there is one instant, until when what was asked for lasts at that rate; it is
// forgotten when that has come.

const (
	hourPrefix = "\x15"  // domain: until when, by their rate, what was asked for lasts
	wakeHour   = "\x03h" // domain
)

// domainOfWatcher returns a watcher's domain, empty for none.
func domainOfWatcher(watcher string) string {
	_, domain, _ := strings.Cut(watcher, "@")
	return domain
}

// chargeDomain takes a request that waits off what people of its watcher's domain may ask of
// others.
func (b *Book) chargeDomain(e *Entry) error {
	from := domainOfWatcher(e.Watcher)
	if from == domainOf(e.Topic) {
		return nil
	}
	key := hourPrefix + from
	value := b.Tx.Get(key)
	busy := readHour(value)
	if wait := pace.Take(&busy, b.Now(), time.Hour/time.Duration(b.Limits.ByDomain), b.Limits.ByDomain); wait > 0 {
		return fmt.Errorf("%w: rate: your domain has asked for as much of others as it may in an hour, %d: the next in %d s", ErrQuota, b.Limits.ByDomain, (wait+time.Second-1)/time.Second)
	}
	if value == nil {
		b.WakeAt(busy, wakeHour+from)
	}
	b.Set(key, appendHour(nil, busy))
	return nil
}

// endHour forgets what a domain has asked for, unless it has gone on asking.
func (b *Book) endHour(domain string) {
	key := hourPrefix + domain
	if busy := readHour(b.Tx.Get(key)); busy > b.Now() {
		b.WakeAt(busy, wakeHour+domain)
		return
	}
	b.Set(key, nil)
}

// appendHour is what is stored of a domain's requests.
//
//	version u8 = 1, until 8
func appendHour(b []byte, until int64) []byte {
	return fields.AppendInt64(append(b, entryVersion), until)
}

// readHour reads what appendHour wrote, 0 of nil.
func readHour(value []byte) int64 {
	if value == nil {
		return 0
	}
	in := fields.Read(value, entryVersion)
	until := in.Int64()
	in.End()
	return until
}
