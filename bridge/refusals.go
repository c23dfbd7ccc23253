package bridge

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Nothing that was acknowledged is lost, and nobody stops a bridge: where a broker refuses an
// event these two meet. What would be refused again is dropped and counted, and the
// broker that it came from is told by the reason code, if its version of MQTT has some, as any
// publisher is; so mosquitto's and EMQX's bridges have it for every code. What is refused
// because nothing is taken now, or no more so soon, is not acknowledged: the connections end, and it comes again.
//
// Of a foreign broker's code nobody knows which of the two it is: quota exceeded is a full disk
// to one, a rate to another, and a bound for good to a third. It is waited for while others pass,
// or for doubtTime; then the event is dropped. Within doubtOver of that one more is dropped at
// once, if another was taken since: then it is the event that is refused, and not all. So what
// is refused for good, among what is taken, costs the others one such time; and a broker that
// takes nothing, and says so by such a code, costs one event in a doubtTime, and not all that
// comes until it is well.
//
// To set such events aside and carry what comes behind them was not chosen: a bridge would have
// to keep events, and the older value of a topic would come after the newer one.

// A fate is what becomes of an event that a broker refuses.
type fate byte

const (
	fateRefused fate = iota // it would be refused again
	fateQuota               // there is no room for it, but for others there is
	fateWait                // it will be taken
	fateDoubt               // one of these
)

// fateOf returns that of an event refused with code by one of our kind, or not. What is
// wrong where codes do not tell causes apart is in the first word of our Reason Strings.
func fateOf(code byte, why string, ours bool) fate {
	if number, rest, ok := strings.Cut(why, " "); ok && strings.HasPrefix(number, "BW-") {
		why = rest
	}
	word, _, _ := strings.Cut(why, ":")
	switch {
	case code == 0x87, code == 0x90, code == 0x95, code == 0x99:
		return fateRefused
	case !ours:
		return fateDoubt
	case word == "disk-full", word == "no-quorum", word == "rate":
		return fateWait
	case code == 0x97:
		return fateQuota
	case code == 0x83: // a condition, or a kind of topic that is not enabled
		return fateRefused
	}
	return fateDoubt
}

const (
	doubtTime = time.Minute
	doubtOver = time.Hour
)

// A doubt is what was refused by one side that may yet be taken. It outlives connections, by
// which all that is not acknowledged comes again under the same packet ids.
//
// Each event has a time of its own. A peer that takes an event at a time may refuse now one and
// now another: with one time for all, which begins anew with each, neither would ever be dropped.
type doubt struct {
	mu    sync.Mutex           // guards the following
	since map[uint16]time.Time // of each event that was refused and not taken: since when; by its packet id, so 65,535 at most
	last  time.Time            // when one was refused last
	over  bool                 // one was dropped: others may be, too

	any   atomic.Bool // there is one in since
	taken atomic.Bool // that side has taken an event since one was dropped
}

// took notes that an event was taken. It is for each acknowledgement, so it mostly only looks.
func (d *doubt) took(id uint16) {
	if !d.taken.Load() {
		d.taken.Store(true)
	}
	if d.any.Load() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.since, id)
		d.any.Store(len(d.since) > 0)
	}
}

// drop says, of an event that was refused, whether it is dropped. Tries are no more than apart from each other.
func (d *doubt) drop(id uint16, now time.Time, apart time.Duration) (drop bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.last) > apart {
		d.since = nil // by now the ids may be others'
	}
	d.over = d.over && now.Sub(d.last) < doubtOver
	d.last = now
	since, refused := d.since[id]
	switch {
	case d.over && d.taken.Load():
		drop = true
	case refused:
		drop = now.Sub(since) >= doubtTime
	default:
		if d.since == nil {
			d.since = map[uint16]time.Time{}
		}
		d.since[id] = now
	}
	if drop {
		d.since = nil // nor are others dropped with it, as long as nothing is taken
		d.over = true
		d.taken.Store(false)
	}
	d.any.Store(len(d.since) > 0)
	return drop
}
