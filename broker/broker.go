package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// A Config is what a Broker is made of.
type Config struct {
	Node    string // this node's name or id, the same in every life
	Store   *store.Store
	Compile Compile
	Limits  Limits
	Domain  string           // of bare names, while the log has no settings
	Now     func() time.Time // the node's clock
	Logger  *slog.Logger

	// Profiles give meaning to topics, by their prefixes.
	Profiles []Profile

	// Reserved are first levels of topics that belong to kinds which are not
	// enabled here: nobody publishes or subscribes to them.
	Reserved []string

	// Free returns the free and total bytes of the data directory, without what is yet
	// to be written there in any case; nil if it cannot fill up. LowWater is the free space below which durable publishes
	// are refused; 0 means the lesser of 5 % and 512 MiB.
	Free     func() (free, total uint64)
	LowWater uint64

	// MakeRoom is to give back what it can of the disk, without waiting for it. It is called
	// each roomEvery seconds while free space is below LowWater, but not 0, and nobody is
	// taking it (see scarcity). nil: nothing can be given back.
	MakeRoom func()

	// Grace is how long the node keeps its clients while it hears of no leader: 0
	// means 10 s. Then it ends their connections with ErrAway.
	Grace time.Duration

	// Patience is how long who publishes waits while the log shows no progress: 0
	// means 5 s. Then it is told ErrUnknown.
	Patience time.Duration

	// Raised is told of a feature level before it is in force here, and of that of
	// a state that takes the place of this node's, once for each at least: whatever
	// must not be opened by a program that does not know the level is to say so when
	// it returns. Everything waits for it.
	Raised func(Level)

	// Denied is told of each refusal by the operator's policy, and returns what the
	// client is told: its argument's Reason, or more. It is called where a client's
	// requests are read, and in the delivery loop: it must be quick. nil: the Reason.
	Denied func(d *Denial) string

	// Outlawed is told that others are banned than before (see Broker.Banned): clients that
	// are connected may be among them. It is called in the delivery loop: it must not wait.
	// nil: nobody is told.
	Outlawed func()

	// ReasonName words a reason code of MQTT's; nil: codes are told without words.
	ReasonName func(code byte) string

	Administer Administrator // nil: nobody can ask by $adm/

	Tap Tap // nil: nobody watches
}

// A Broker is one node's broker: a Machine, the delivery of what it applies to
// the clients connected here, and the sessions of those.
type Broker struct {
	config   Config
	limits   Limits
	logger   *slog.Logger
	machine  *Machine
	local    *topic.Index[uint64, *localSub, *audience]
	loop     loop
	settler  settler
	scans    scanner
	edges    edges
	watch    watch
	fetches  gatheredFetches
	relays   relays
	system   system
	silence  silence
	cursors  cursors
	copier   copier
	seats    seats
	paces    domainPaces
	verdicts sharedVerdicts // of gatherings
	stats    Stats

	proposer atomic.Pointer[proposer] // of this life; the loop replaces it with the next
	log      Log
	policy   atomic.Pointer[policy]
	read     func(prefix, key string) []byte // profileValue, once for all who ask
	policyMu sync.Mutex                      // who stores another one in policy holds it
	settings atomic.Pointer[event.Settings]
	single   atomic.Pointer[single] // of settings
	diskFull atomic.Bool
	look     chan struct{} // takes one: look at the free space now

	clientsWatched atomic.Int64 // subscriptions here that may be told of clients that come and go

	lostMu sync.Mutex
	lost   map[string]*wait // nodes whose lives are to be closed, and the NodeDown under way

	close   sync.Once
	closing chan struct{}
	ticks   chan struct{} // the next wake or edge may have moved, or the clock
	running sync.WaitGroup
}

// A policy is the one in force on this node, with a number for whoever caches
// its answers.
type policy struct {
	Authorizer
	version uint64
	number  uint64 // in the history; 0 if it has none
}

// authorizer is p's, nil if there is no policy.
func (p *policy) authorizer() Authorizer {
	if p == nil {
		return nil
	}
	return p.Authorizer
}

// New returns a Broker in the state that the store holds. Its Machine is to be
// given to the log's host, then Start.
func New(c Config) (*Broker, error) {
	def(&c.Grace, graceDefault)
	if c.Outlawed == nil {
		c.Outlawed = func() {}
	}
	b := &Broker{config: c, limits: c.Limits.WithDefaults(), logger: c.Logger, closing: make(chan struct{}), ticks: make(chan struct{}, 1)}
	m, err := newMachine(c.Store, c.Compile, b.limits, c.Domain, c.Logger, c.Profiles...)
	if err != nil {
		return nil, err
	}
	if b.cursors, err = newCursors(); err != nil {
		return nil, err
	}
	m.node, m.life = c.Node, newLife(c.Now(), m.nodes[c.Node].life)
	m.relive = func() uint64 { return newLife(c.Now(), m.life) }
	if c.Raised != nil {
		m.raised = c.Raised
	}
	b.machine, b.read = m, b.profileValue
	b.local = topic.NewIndex(b.audienceOf, audienceCache)
	b.loop.init(b)
	b.settler.init(b)
	b.scans.init(b)
	b.watch.init(b)
	b.relays.init(b)
	b.system.b = b
	b.edges.last, b.edges.kicked = b.now(), make(chan struct{}, 1)
	m.clientsWatched = func() bool { return b.clientsWatched.Load() > 0 }
	m.deliver, m.spare = b.loop.deliver, b.loop.spare
	b.look = make(chan struct{}, 1)
	m.look = b.look
	b.setPolicy(m.policy, m.history.number())
	b.adoptSettings(m.settings)
	b.adjust()
	b.running.Go(b.loop.run)
	return b, nil
}

// newLife returns the number of an incarnation that begins at now, after the one
// of that number: a later one has a greater number, unless the clock did not move
// between them, or ran back; then they differ.
func newLife(now time.Time, after uint64) uint64 {
	life := max(uint64(now.UnixNano())>>lifeBits, after>>lifeBits)<<lifeBits | rand.Uint64N(1<<lifeBits)
	if life == after {
		life ^= 1
	}
	return life
}

// lifeBits is what of an incarnation's number is chance: its time is in units
// of about a millisecond.
const lifeBits = 20

// audienceCache bounds how many topics' lists of connected subscribers are
// kept (see topic.NewIndex).
const audienceCache = 1 << 17

// Machine returns the state machine, for whoever hosts the log.
func (b *Broker) Machine() *Machine { return b.machine }

// Start opens this life of the node on log, and returns when the log has
// applied that: the node is then up to date and serves. It waits for that however
// long the log takes, or until ctx is done.
func (b *Broker) Start(ctx context.Context, log Log) error {
	b.log = log
	if peers, ok := log.(Peers); ok {
		b.relays.start(peers)
	}
	b.proposer.Store(b.newProposer(b.machine.life))
	if err := b.announce(ctx); err != nil {
		return fmt.Errorf("broker: announce the node: %w", err)
	}
	b.running.Go(b.runTimers)
	b.running.Go(b.runEdges)
	b.running.Go(b.watchDisk)
	b.running.Go(b.copyNowAndThen)
	if s, ok := log.(silent); ok {
		b.running.Go(func() { b.watchSilence(s) })
	}
	return nil
}

// announce has a NodeUp of this life ordered. A log that has much to catch up with,
// or no quorum, takes longer than anybody but a node that starts would wait: it
// announces itself again, which says nothing new to those who have heard it.
func (b *Broker) announce(ctx context.Context) error {
	for first := true; ; first = false {
		up := newWait()
		err := b.propose(&event.NodeUp{At: b.now()}, call{c: up}, true)
		if err == nil {
			select {
			case <-up.done:
				err = up.err
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
			}
		}
		if !errors.Is(err, ErrUnknown) {
			return err
		}
		if first {
			b.logger.Warn("the log does not get to this node's announcement: it serves when it has caught up", "after", b.patience().String())
		}
	}
}

// Close ends all sessions (their Sinks get ErrClosing), and stops. What is not
// yet ordered is reported as unknown. The log must still run, for the sessions'
// ends to be ordered, until Close returns.
func (b *Broker) Close() {
	b.close.Do(func() {
		close(b.closing)
		b.scans.close()
		b.loop.close()
		<-b.loop.over // it may be about to begin another life
		if p := b.proposer.Load(); p != nil {
			p.close(ErrClosing)
		}
		b.settler.close()
		b.running.Wait()
	})
}

// now is the node's effective clock, unix nanoseconds: its own, or the newest
// log time it has seen if that is later. It does not run back.
func (b *Broker) now() int64 {
	at := b.config.Now()
	b.notice(at)
	return max(at.UnixNano(), b.loop.stamp.Load())
}

// propose hands a command to the log, see proposer.propose.
func (b *Broker) propose(c event.Command, who call, urgent bool) error {
	p := b.proposer.Load()
	if p == nil {
		return ErrNoCommit
	}
	return p.propose(c, who, urgent)
}

// A wait is a caller that blocks for its outcome.
type wait struct {
	done  chan struct{}
	err   error
	value any
	// first, if not nil, is called in the delivery loop before the caller
	// goes on and before anything ordered later is delivered.
	first func(value any, err error, w *Wave)
}

func newWait() *wait { return &wait{done: make(chan struct{})} }

// over says whether the outcome is known.
func (c *wait) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *wait) Complete(uint64, error, *Wave) {}

func (c *wait) completeWith(value any, err error, w *Wave) {
	c.value, c.err = value, err
	if c.first != nil {
		c.first(value, err, w)
	}
	close(c.done)
}

// do proposes c and waits for its outcome.
func (b *Broker) do(ctx context.Context, c event.Command) error {
	_, err := b.ask(ctx, c)
	return err
}

// ask is do that also returns the Machine's answer.
func (b *Broker) ask(ctx context.Context, c event.Command) (value any, err error) {
	w := newWait()
	if err := b.propose(c, call{c: w}, false); err != nil {
		return nil, err
	}
	select {
	case <-w.done:
		return w.value, w.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// SetPolicy puts a policy in force, on all nodes: it returns when this one has
// applied it. A policy that does not compile is refused and changes nothing.
func (b *Broker) SetPolicy(ctx context.Context, data []byte) error {
	return b.do(ctx, &event.Policy{Data: data})
}

// SetSettings puts settings in force, on all nodes: it returns when this one has
// applied them. Settings out of bounds, or under whose domain the policy does not
// compile, are refused and change nothing.
func (b *Broker) SetSettings(ctx context.Context, s event.Settings) error {
	return b.do(ctx, &s)
}

// Settings returns the settings in force; ok is false if the log has none yet.
func (b *Broker) Settings() (s event.Settings, ok bool) {
	if p := b.settings.Load(); p != nil {
		return *p, true
	}
	return b.limits.Settings(b.config.Domain), false
}

// SetProfileSettings puts settings of a profile in force, on all nodes: it returns
// when this one has applied them. What the profile refuses changes nothing.
func (b *Broker) SetProfileSettings(ctx context.Context, prefix string, data []byte) error {
	return b.do(ctx, &event.ProfileSettings{Profile: prefix, Data: data})
}

// ProfileSettings returns the settings of a profile that are in force, nil if
// the log has none yet.
func (b *Broker) ProfileSettings(prefix string) []byte {
	return storedValue(b.config.Store, ofProfileKey(prefix))
}

// adjust tells profiles which settings they show resources by. Who is connected is
// shown what that makes of these when they change next.
func (b *Broker) adjust() {
	for prefix, p := range b.machine.profiles { // in any order: each is told its own
		if a, ok := p.(Adjustable); ok {
			a.Adjust(b.ProfileSettings(prefix))
		}
	}
	b.watch.forgetAll()
}

// Policy returns the policy in force here, nil if none was ever set.
func (b *Broker) Policy() Authorizer {
	if p := b.policy.Load(); p != nil {
		return p.Authorizer
	}
	return nil
}

// PolicyData returns the bytes of the policy in force, nil if none ever was.
func (b *Broker) PolicyData() []byte {
	data, _ := b.config.Store.Get(policyKey, nil)
	return data
}

// Authenticate returns the principal that user and password prove under the
// policy in force. It may take a tenth of a second.
func (b *Broker) Authenticate(user string, password []byte) (principal string, err error) {
	p := b.Policy()
	if p == nil {
		return "", ErrBadCredentials
	}
	return p.Authenticate(user, password)
}

func (b *Broker) setPolicy(a Authorizer, number uint64) {
	if a == nil {
		return
	}
	b.policyMu.Lock()
	version := uint64(1)
	if old := b.policy.Load(); old != nil {
		version = old.version + 1
	}
	b.policy.Store(&policy{Authorizer: a, version: version, number: number})
	b.policyMu.Unlock()
	b.local.Invalidate()
	b.Kick()
}

// AskAgain has the policy in force asked anew about everything that its answers were
// kept of on this node. The answers are the same. For any goroutine.
func (b *Broker) AskAgain() {
	b.policyMu.Lock()
	if p := b.policy.Load(); p != nil {
		b.policy.Store(&policy{Authorizer: p.Authorizer, version: p.version + 1, number: p.number})
	}
	b.policyMu.Unlock()
	b.local.Invalidate()
}

// numberPolicy gives the policy in force its number.
func (b *Broker) numberPolicy(number uint64) {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	if p := b.policy.Load(); p != nil {
		b.policy.Store(&policy{Authorizer: p.Authorizer, version: p.version, number: number})
	}
}

const noPolicy = "no policy is in force"

// decide asks the policy in force. No policy permits nothing.
func (b *Broker) decide(who Who, what Action, topicName string, at int64) Decision {
	p := b.policy.Load()
	if p == nil {
		return Decision{Reason: noPolicy}
	}
	return decideFor(b.machine.profiles, b.read, p, who, what, topicName, at)
}

// Kick makes the broker look at its clock: a test clock was moved.
func (b *Broker) Kick() {
	for _, waits := range [...]chan struct{}{b.ticks, b.edges.kicked} {
		select {
		case waits <- struct{}{}:
		default:
		}
	}
}

// CatchUp returns when everything that is due by the node's clock has been
// brought about and handed to the clients' connections: wakes of the log's
// time, window edges, and the state they open. Scans that wait for slow
// clients are not waited for beyond ctx.
func (b *Broker) CatchUp(ctx context.Context) error {
	for {
		next := b.machine.NextWake()
		if next == 0 || next > b.now() {
			break
		}
		if err := b.do(ctx, &event.Tick{}); err != nil {
			return err
		}
	}
	b.passEdges()
	if b.watch.remarked.Swap(false) {
		// What goes through queues was proposed before this, and is delivered
		// when this is.
		if err := b.do(ctx, &event.Tick{}); err != nil {
			return err
		}
	}
	return b.scans.wait(ctx)
}

// runTimers proposes Ticks when a wake is due by the node's clock.
func (b *Broker) runTimers() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := b.now()
		if next := b.machine.NextWake(); next != 0 && next <= now && b.log.Leader() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err := b.do(ctx, &event.Tick{})
			cancel()
			select {
			case <-b.closing:
				return // which is why it was not ordered, if it was not
			default:
			}
			if err != nil {
				b.logger.Warn("a tick was not ordered", "err", err.Error())
			} else if b.machine.NextWake() != next {
				continue // there may be more that is due
			}
		}
		b.closeLives()
		timer.Reset(untilNext(now, b.machine.NextWake()))
		select {
		case <-b.closing:
			return
		case <-b.ticks:
		case <-timer.C:
		}
	}
}

// untilNext returns how long to sleep until an instant, 0 for none; at most a
// second: wakes may be added, and wall clocks are set.
func untilNext(now, at int64) time.Duration {
	if at == 0 {
		return time.Second
	}
	return min(time.Second, time.Duration(max(at-now, int64(time.Millisecond))))
}

// DiskFull says whether durable publishes are refused for want of space.
func (b *Broker) DiskFull() bool { return b.diskFull.Load() }
