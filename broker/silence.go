package broker

import (
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// A node that hears of no leader does not know what the others have agreed since:
// what an owner has forbidden meanwhile, and who is connected where. What it does
// about that grows with the time:
//
//   - After holdAfter it shows nothing that is its owner's to permit: what a profile
//     shows and routes stays in the queues, changes that time brings are not shown,
//     and events that nobody keeps are withheld. Plain topics it goes on with: what
//     permits them is the operator's policy and the clock.
//   - After refuseAfter it takes no command but what frees something: nobody could
//     say when it would be ordered. Publishes are told that there is no quorum, and
//     so are clients that connect.
//   - After Config.Grace it ends its clients, so that they go where they are served.
//
// A process that stood still does not even know that time has passed, and has before
// it what came until then and what its clients have sent since. It shows nothing at
// all, plain topics neither, until it has heard, or for refuseAfter: then nobody will
// tell, and it is as above.
//
// When it hears again it has a command ordered first, and waits for it: then it has
// applied all that was agreed meanwhile. Everybody is then shown anew what is not
// what he was shown last.
type silence struct {
	held   atomic.Bool  // nothing that an owner permits is shown
	all    atomic.Bool  // with held: nothing is
	cut    atomic.Bool  // nothing is proposed
	looked atomic.Int64 // when it was looked at last, in nanoseconds since begun; 0: not yet
	begun  time.Time    // of the first look; written before looked

	ended bool      // the clients were; the watching goroutine's, as the following
	woke  time.Time // when the process went on that had stood still
	word  *wait     // the command that was proposed when it heard again
}

const (
	holdAfter    = time.Second
	refuseAfter  = 2 * time.Second
	graceDefault = 10 * time.Second
	lookEvery    = 100 * time.Millisecond
)

// A silent is a Log that knows how long this node has heard of none: 0
// on the leader.
type silent interface{ Silence() time.Duration }

// watchSilence looks at how long no leader was heard of.
func (b *Broker) watchSilence(log silent) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-b.closing:
			return
		case at := <-tick.C:
			stood := still(last, at)
			if stood > holdAfter {
				b.standstill()
				b.silence.woke = at
			}
			b.silence.look(b, max(log.Silence(), stood), at)
			last = at
		}
	}
}

// still returns how long the process stood still, as it seems from when it looked
// last: it may hear of a leader before it looks again, and know nothing yet of what
// was agreed meanwhile.
func still(last, at time.Time) time.Duration {
	if last.IsZero() {
		return 0
	}
	return max(0, at.Sub(last)-lookEvery)
}

// notice looks whether the process has stood still until at, for whoever is about
// to deliver something and may be quicker than the watch. An instant without a
// monotonic reading, as of a test clock, tells nothing.
func (b *Broker) notice(at time.Time) {
	looked := b.silence.looked.Load()
	if looked == 0 || at.Sub(b.silence.begun)-time.Duration(looked) <= holdAfter+lookEvery || at == at.Round(0) {
		return
	}
	b.standstill()
}

// standstill has everything held until a leader has been heard.
func (b *Broker) standstill() {
	b.silence.all.Store(true)
	if !b.silence.held.Swap(true) {
		b.stats.Silences.Add(1)
	}
}

func (n *silence) look(b *Broker, since time.Duration, at time.Time) {
	if n.looked.Load() == 0 {
		n.begun = at
	}
	n.looked.Store(int64(at.Sub(n.begun)) + 1)
	if cut := since > refuseAfter; n.cut.Swap(cut) != cut && cut {
		b.logger.Warn("no leader is heard of: publishes and new clients are refused", "since", since.Round(time.Millisecond).String())
		b.proposer.Load().wake()
	}
	switch {
	case since > holdAfter:
		if n.word = nil; !n.held.Swap(true) {
			b.stats.Silences.Add(1)
		}
		if n.all.Load() && at.Sub(n.woke) > refuseAfter {
			n.all.Store(false) // nobody tells: plain topics go on
			b.loop.do(func(*Wave) { b.loop.showAnew() })
		}
	case n.held.Load():
		n.hear(b)
	}
	switch grace := b.config.Grace; {
	case since <= grace:
		n.ended = false
	case !n.ended:
		n.ended = true
		b.endAll(ErrAway)
	}
}

// hear ends the silence, when all that was agreed meanwhile has been applied.
func (n *silence) hear(b *Broker) {
	if n.word != nil && !n.word.over() {
		return
	}
	if n.word == nil || n.word.err != nil {
		n.word = newWait()
		if b.propose(&event.Tick{}, call{c: n.word}, true) != nil {
			n.word = nil
		}
		return
	}
	n.word = nil
	n.held.Store(false)
	n.all.Store(false)
	b.loop.do(func(*Wave) { b.loop.showAnew() })
	b.Kick()
}

// endAll ends all connections.
func (b *Broker) endAll(cause error) {
	b.loop.do(func(*Wave) {
		b.logger.Warn("no leader is heard of: the clients are sent away", "clients", len(b.loop.live))
		for _, s := range b.loop.live {
			s.sink.End(cause)
		}
	})
}

// showAnew has every session go on with what was held. In the delivery loop.
func (l *loop) showAnew() { l.b.edges.review(l.b).unheld = true }

// holds says whether what is on a topic is not to be shown for now.
func (b *Broker) holds(topicName string) bool {
	return b.silence.held.Load() && (b.silence.all.Load() || profileFor(b.machine.profiles, topicName) != nil)
}

// holdsScan says whether a scan has to wait.
func (b *Broker) holdsScan(s *scan) bool {
	return b.silence.held.Load() && (b.silence.all.Load() || s.owed || mayWatch(b.machine.profiles, s.sub.sub.Filter))
}

// wake has everybody who waits for room look again.
func (p *proposer) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.space.Broadcast()
}
