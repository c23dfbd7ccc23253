package broker

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// A Machine is the broker's replicated state machine. The same entries in the
// same order leave every Machine in the same state; nothing else changes it.
//
// It has no clock: an entry's stamp is the log's time, by which sessions,
// wills and retained events expire. It starts no goroutine and iterates over
// no map where order would show. Whether an event may be queued for a session
// it asks the logged policy at the event's own time; whether it may be
// delivered is judged again where and when that happens.
//
// What makes it hard:
//
//   - An entry must be all or nothing on disk. Each is one Tx, which carries
//     the entry's position. Reads do not see the Tx they are in, so whatever a
//     later command of the same entry depends on is kept in memory: records,
//     and the topics retained by this entry.
//   - A command that panics must not stop the node, nor leave half of itself
//     behind, in memory either. Undoing memory command by command would need
//     care in every line of every command; so the whole entry is thrown away,
//     memory is read anew from the store, and the entry is applied again
//     without that command. This is slow, and never happens. What falls due is
//     treated alike, but that it cannot be left out: it happens without what
//     it would have asked policy and profiles to do, wills above all.
//   - Work per entry is bounded, though what falls due may not be: a node's
//     100,000 sessions lose their connections at once. All that is due shares one
//     budget, and what is left is for the next entry (see budget).
//
// Apply and the other methods that cluster calls run on one goroutine at a
// time; Applied, NextWake and Checkpoint may be called from any.
type Machine struct {
	store   *store.Store
	compile Compile
	logger  *slog.Logger
	deliver func(*applied) // queues; must not touch a socket: Apply waits for it
	spare   func() *applied

	// Who we are: batches of this node and life are ours, and whoever
	// proposed them waits. Set before the first Apply that may carry one; when
	// the log has closed the life, relive returns the next (see life.go).
	node   string
	life   uint64
	relive func() uint64

	level      Level         // in force for the command under way
	levelShown atomic.Uint32 // level, of the last entry applied
	raised     func(Level)   // told before a level is in force

	secret      secret.Secret                 // the cluster's; nil below LevelSecret
	secretShown atomic.Pointer[secret.Secret] // secret, of the last entry applied

	applied  atomic.Uint64 // last entry whose effects are in store
	probe    probe         // what waits for an entry to be applied
	term     uint64
	now      int64         // log time: stamp of that entry; never goes back
	nextWake atomic.Int64  // when the earliest wake is due; 0 for never
	failures atomic.Uint64 // counters.failure

	settings    *event.Settings   // nil while the log has none
	ofProfiles  map[string][]byte // settings of profiles, by prefix; likewise
	left        map[string]int64  // whom the policy does not name any more, and since when; see ForgetAfter
	limits      Limits            // in force: as settings say; as configured while there are none
	single      single            // of them, those of principals that have their own
	begin       Limits            // as configured, and the domain
	beginDomain string

	sessions       map[string]*record
	numbers        map[uint64]*record
	principals     byPrincipal[*record] // the same
	users          map[string]*userCount
	nobody         nobody
	notGiven       map[string]struct{} // entries of the policy in force of which it was told that they give nothing
	clientsWatched func() bool         // somebody here is to be told of clients that come and go
	look           chan<- struct{}     // asks for a look at the free space (Broker.watchDisk); nil: nobody looks
	unlooked       int                 // bytes of commands since that was asked for

	retained atomic.Int64 // topics that have a retained event; written by Apply alone
	known    atomic.Int64 // sessions there are; likewise
	awaiting awaiting     // likewise

	sharedWaiting atomic.Int64 // entries of all groups' queues; likewise

	nodes         map[string]nodeState
	policy        Authorizer       // in force: operators', and the parts of domains
	operators     Authorizer       // that of the operator alone
	policyData    []byte           // what it was compiled from
	parts         map[string]*part // of domains, by their names
	audits        map[string]*auditState
	domains       domainUses
	bans          bans
	overs         overs
	inForce       int64 // log time since when policy is
	history       policyHistory
	segments      map[uint64]*segment
	segmentBits   uint8        // how many numbers a segment of bodies has, as a power of two
	copies        uint64       // of bodies, ever: the newest has this number after firstCopy
	survivors     int          // how many references there may be into one that is nearly empty
	segmentsShown atomic.Int64 // how many there are, as of the last entry applied
	sparse        sparse
	durable       *topic.Index[uint64, storedSub, *fanout]
	weights       atomic.Pointer[topic.Index[uint64, storedSub, *fanout]] // what fanouts returns, for weigh
	eager         *topic.Index[uint64, storedSub, *fanout]                // durable, without what has joined streams; nil if nothing has
	streams       streams
	// streams.index, for weigh
	streamWeights atomic.Pointer[topic.Index[uint64, *stream, []*stream]]
	groups        map[uint64]*group // shared subscriptions, by the numbers of their queues
	byFilter      map[string]*group // the same, by filter
	founded       map[string]int    // how many of them each principal has founded
	shared        *topic.Index[uint64, *group, *sharers]
	sharedWeights atomic.Pointer[topic.Index[uint64, *group, *sharers]] // shared, for weigh
	sharings      uint64                                                // numbers them; of this process alone
	verdicts      verdicts                                              // of sharings
	profiles      map[string]Profile                                    // by prefix
	prefixes      []string                                              // of profiles, sorted
	counters      counters
	budget        budget
	grown         int // entries that the last entry added to queues; 0 if none is past its bound (see trim)

	// The entry being applied.
	tx      *store.Tx
	out     *applied
	ordinal uint32     // of the command within the entry
	woken   uint32     // events that wakes have published so far (see publishDue)
	kind    event.Kind // of the command under way
	unit    int        // what is under way: the ordinal of a command, -n for the n-th wake, else 0
	bare    bool       // the wake under way has panicked once: no wills, no profiles
	touched []*record  // queues that differ from the store

	touchedGroups []*group // that differ from the store
	displaced     []entry  // entries that go back to their groups for want of room

	over    []*record               // queues past their bound, to be trimmed
	bound   queueBound              // of queues, as it was in force when this entry began
	growing int                     // entries that this one has added to queues
	fresh   map[string]presentValue // topics retained or cleared by this entry
	subbed  []sessionFilter         // subscriptions set by this entry
	ruled   bool                    // what changes does so because of an owner's policy
	tags    uint64                  // names given by this entry, see ProfileTx.Tag

	clientChanges uint32              // connections that it has begun or ended
	answer        []byte              // what a profile has to say to the publisher
	ref           string              // of the entries being queued, for the profile that routes them
	except        func(uint64) bool   // nil, or says which sessions what is routed is not queued for
	auditing      map[auditing]uint64 // sizes of what this entry has written to audits
	written       map[string][]byte   // profiles' keys set by this entry; nil for removed ones
	key, val      []byte              // scratch
	body          []byte              // scratch
	ended         bool                // this entry has closed our life
	delayed       delayed
	provided      map[string][]string // topics of what principals are provided with, sorted
	asking        map[uint64]int      // how many requests each session has made: what is in store.Asked
	askedNow      map[string]askedHow // keys of it that this entry has set, or removed
	copying       *event.Copy         // the copies that it is to end with; nil for none
	copyUnit      int                 // whose they are
	dropped       []uint64            // segments that it has reclaimed
	failed        map[int]event.Kind  // units of this entry that panicked; kind 0 for wakes
	publish       event.Publish       // scratch
	settle        event.Settle        // scratch
	decoder       event.Decoder       // scratch

	// What was read ahead by what is under way: filters of sessions, bodies of entries.
	filtersRead map[uint64][]string
	bodiesRead  map[uint64][]byte
}

// counters number what the log creates. They are state.
type counters struct {
	session, epoch, body, failure uint64
}

// sessionFilter names a subscription.
type sessionFilter struct {
	session uint64
	filter  string
}

// nodeState is a node's open incarnation and the last batch applied of it.
type nodeState struct {
	name      string // the one copy that records refer to
	life, seq uint64
	seen      int64 // log time of that batch

	// closed says that the incarnation is open no more: a NodeDown has said so.
	closed bool

	// former is seen of the first of those incarnations that are over whose
	// connections have not all been ended yet; 0 if they have.
	former int64
}

var (
	appliedKey  = append([]byte{byte(store.Meta)}, "applied"...)
	configKey   = append([]byte{byte(store.Meta)}, "config"...)
	grownKey    = append([]byte{byte(store.Meta)}, "grown"...)
	countersKey = append([]byte{byte(store.Meta)}, "counters"...)
	copiesKey   = append([]byte{byte(store.Meta)}, "copies"...) // uvarint; none below LevelStreams
	secretKey   = append([]byte{byte(store.Meta)}, "secret"...) // as it is; none below LevelSecret
	settingsKey = append([]byte{byte(store.Meta)}, "settings"...)
	ofProfile   = append([]byte{byte(store.Meta)}, "settings of "...) // and its prefix
	policyKey   = append([]byte{byte(store.Policies)}, "operator"...)
	leftPrefix  = append([]byte{byte(store.Policies)}, "operator left/"...) // and the principal
	levelKey    = store.FormatKey()                                         // a program reads the levels it knows
	inForceKey  = append([]byte{byte(store.Policies)}, "operator since"...)
)

// newMachine returns a Machine in the state that s holds.
func newMachine(s *store.Store, compile Compile, limits Limits, domain string, logger *slog.Logger, profiles ...Profile) (*Machine, error) {
	m := &Machine{store: s, compile: compile, begin: limits, beginDomain: domain, logger: logger, fresh: map[string]presentValue{}, written: map[string][]byte{}, auditing: map[auditing]uint64{}, segmentBits: segmentBits, survivors: survivorsMost}
	m.key, m.val = make([]byte, 0, 512), make([]byte, 0, 4096)
	m.deliver, m.spare = func(*applied) {}, func() *applied { return new(applied) }
	m.clientsWatched = func() bool { return false }
	m.relive, m.raised = func() uint64 { return m.life }, func(Level) {}
	m.profiles = map[string]Profile{}
	for _, p := range profiles {
		m.profiles[p.Prefix()] = p
		m.prefixes = append(m.prefixes, p.Prefix())
	}
	slices.Sort(m.prefixes)
	if err := m.load(); err != nil {
		return nil, err
	}
	return m, nil
}

// Applied returns the index of the last entry whose effects are in the store.
func (m *Machine) Applied() uint64 { return m.applied.Load() }

// Now returns the log's time as of the entries applied, unix nanoseconds. Only
// for the Machine's own goroutine, or while no entry is applied.
func (m *Machine) Now() int64 { return m.now }

// Apply applies one entry: index and term place it, stamp is its log time, and
// batches are what the nodes handed in. The memory of batches must stay as it
// is until the entry is delivered.
func (m *Machine) Apply(index, term uint64, stamp int64, batches [][]byte) {
	if index <= m.applied.Load() {
		return // replayed from a log that reaches further back than our state
	}
	m.takesRoom(batches)
	m.failed = nil
	for !m.try(index, term, stamp, batches) {
		// The unit that panicked is in m.failed now.
		if err := m.load(); err != nil {
			panic(fmt.Sprintf("machine: state unreadable after a failed command: %v", err))
		}
	}
}

// takesRoom has the free space of the disk looked at after each checkDiskEvery bytes.
func (m *Machine) takesRoom(batches [][]byte) {
	for _, b := range batches {
		m.unlooked += len(b)
	}
	if m.unlooked < checkDiskEvery {
		return
	}
	m.unlooked = 0
	select {
	case m.look <- struct{}{}:
	default: // it is about to be looked at
	}
}

// try applies an entry without the units in m.failed. If another one panics it
// adds that to them, discards everything and returns false.
func (m *Machine) try(index, term uint64, stamp int64, batches [][]byte) (ok bool) {
	m.tx, m.out = m.store.Begin(), m.spare()
	m.ordinal, m.woken, m.unit, m.bare, m.growing = 0, 0, 0, false, 0
	m.ended = false
	m.budget.spent, m.budget.until = 0, unbounded
	m.bound, m.streams.paidBy, m.streams.trimmedBy = m.limits.queueBound(), 0, 0
	m.ref, m.except, m.ruled, m.answer = "", nil, false, nil // a command that panicked may have left them
	m.tags, m.clientChanges = 0, 0
	m.touched, m.touchedGroups, m.displaced = m.touched[:0], m.touchedGroups[:0], nil
	m.subbed = m.subbed[:0]
	m.filtersRead, m.bodiesRead = nil, nil
	m.copying, m.dropped = nil, m.dropped[:0]
	clear(m.written)
	clear(m.auditing)
	clear(m.askedNow)
	clear(m.fresh)
	clear(m.delayed.gone)
	m.now = max(m.now, stamp)
	m.out.index, m.out.stamp = index, m.now
	before := m.counters
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if f, hopeless := p.(fatal); hopeless {
			m.store.Die(f.reason)
		}
		if _, known := m.failed[m.unit]; known || m.unit == 0 {
			panic(p) // leaving a command out would not mend it
		}
		m.fail(p, debug.Stack())
		m.tx.Discard()
		m.out.reset()
	}()

	behind := m.trim()
	m.wake()
	behind = m.trimStreams() || behind
	if behind {
		m.setChore(wakeTrim, 0, 0) // not before: it may be the wake that has just been worked off
	}
	for _, b := range batches {
		m.batch(index, b)
	}
	m.ordinal, m.woken, m.unit = 0, 0, 0 // what follows is no command's doing
	m.keepDisplaced()                    // of absences that have ended
	m.copyBodies()
	m.dropSegments()
	m.writeFailures(index)
	m.writeGrown()
	for _, r := range m.touched {
		m.writeQueue(r)
		m.tellReady(r)
	}
	m.writeStreams()
	m.writeGroups()
	if m.counters != before {
		m.tx.Set(countersKey, m.counters.append(m.val[:0]))
	}
	m.tx.Set(appliedKey, appendPosition(m.val[:0], index, term, m.now))
	m.tx.Commit()
	m.term = term
	m.known.Store(int64(len(m.sessions)))
	m.levelShown.Store(uint32(m.level))
	m.showSecret()
	m.applied.Store(index)
	m.failures.Store(m.counters.failure)
	m.updateNextWake()
	m.probe.passed(m.store, index)
	m.tellSparse()
	if m.ended {
		m.beginLife()
	}
	m.deliver(m.out)
	m.out, m.tx = nil, nil
	return true
}

func (m *Machine) fail(p any, stack []byte) {
	if m.failed == nil {
		m.failed = map[int]event.Kind{}
	}
	m.failed[m.unit] = m.kind
	m.logger.Error("command failed and was rolled back", "index", m.out.index, "command", m.unit, "kind", m.kind,
		"err", fmt.Sprint(p), "stack", string(stack))
}

// writeFailures records the units that were left out, the latest 1,000. What
// they panicked with goes to the operator's lines only: another version of the
// program may word it otherwise.
func (m *Machine) writeFailures(index uint64) {
	units := make([]int, 0, len(m.failed))
	for n := range m.failed {
		units = append(units, n)
	}
	slices.Sort(units)
	for _, n := range units {
		key := store.AppendUint64(store.Key(m.key, store.Failures), m.counters.failure%1000)
		m.counters.failure++
		m.tx.Set(key, fmt.Appendf(nil, "entry %d unit %d kind %d", index, n, m.failed[n]))
	}
}

// Failures returns how many commands and wakes were rolled back, ever. For any
// goroutine.
func (m *Machine) Failures() uint64 { return m.failures.Load() }

// batch applies one node's batch: the next of its open incarnation, or the
// first of a new one, which begins with NodeUp.
func (m *Machine) batch(index uint64, b []byte) {
	batch, err := event.ReadBatch(b)
	if err != nil {
		// Every node reads the same bytes: all of them stop here until a
		// version that knows them is installed. Going on would diverge.
		panic(fatal{fmt.Sprintf("entry %d: %v", index, err)})
	}
	if state, known := m.nodes[batch.Node]; known {
		batch.Node = state.name
	} else {
		batch.Node = strings.Clone(batch.Node) // it outlives the entry, in records
	}
	state, known := m.nodes[batch.Node]
	// A first batch opens its incarnation, but not one that is older than the
	// open one: that has been on its way since before the node lived anew.
	opens := batch.Seq == 1 && !(known && (state.life == batch.Incarnation || state.life>>lifeBits > batch.Incarnation>>lifeBits))
	ours := batch.Node == m.node && batch.Incarnation == m.life
	switch {
	case opens:
		former := state.former
		if former == 0 {
			former = state.seen
		}
		state = nodeState{name: batch.Node, life: batch.Incarnation, former: former}
	case !known || state.closed || state.life != batch.Incarnation:
		m.logger.Warn("batch of a closed incarnation refused", "node", batch.Node, "index", index)
		return
	case batch.Seq <= state.seq:
		return // a repeat: it was applied, its sender had not heard
	case batch.Seq != state.seq+1:
		m.logger.Warn("batch out of sequence refused", "node", batch.Node, "index", index, "seq", batch.Seq, "want", state.seq+1)
		return
	}
	state.seq, state.seen = batch.Seq, m.now
	m.nodes[batch.Node] = state
	m.writeNode(batch.Node)
	for n := 0; ; n++ {
		kind, body, ok := batch.Next()
		if !ok {
			break
		}
		m.ordinal++
		m.unit, m.kind = int(m.ordinal), kind
		before := len(m.out.steps)
		var value any
		var err error
		if _, bad := m.failed[m.unit]; bad {
			err = ErrFailed
		} else {
			value, err = m.command(batch.Header, kind, body)
		}
		if !ours {
			continue
		}
		done := step{kind: stepDone, batch: batch.Seq, n: n, err: err, value: value}
		if kind == event.KindSubscribe || kind == event.KindRequest || kind == event.KindPublish && err == nil && m.publish.Event.QoS == 2 {
			// A client that subscribes to its own topic gets its copy before
			// the PUBACK (5.0 figure 4.2: onward delivery, then PUBACK), but
			// after the PUBREC: it may take no PUBLISH with QoS 2 before. And
			// what a profile sends because of a subscription comes when that
			// is in force.
			m.out.steps = slices.Insert(m.out.steps, before, done)
		} else {
			m.out.steps = append(m.out.steps, done)
		}
	}
	if err := batch.Err(); err != nil {
		panic(fatal{fmt.Sprintf("entry %d: %v", index, err)})
	}
	if ours {
		m.out.steps = append(m.out.steps, step{kind: stepBatchDone, batch: batch.Seq})
	}
}

// fatal is a panic that leaving a command out cannot mend.
type fatal struct{ reason string }

func (f fatal) String() string { return f.reason }

// command applies one command and returns its answer.
func (m *Machine) command(from event.Header, kind event.Kind, body []byte) (value any, err error) {
	switch kind {
	case event.KindPublish:
		m.publish.Event = m.out.newEvent()
		m.decode(&m.publish, body)
		m.answer = nil
		if err := m.applyPublish(&m.publish); err != nil || m.answer == nil {
			return nil, err
		}
		return m.answer, nil
	case event.KindSettle:
		m.decode(&m.settle, body)
		return nil, m.applySettle(&m.settle)
	case event.KindPassOver:
		var c event.PassOver
		m.decode(&c, body)
		return nil, m.applyPassOver(&c)
	case event.KindReturn:
		var c event.Return
		m.decode(&c, body)
		return nil, m.applyReturn(&c)
	case event.KindRelease:
		var c event.Release
		m.decode(&c, body)
		return nil, m.applyRelease(&c)
	case event.KindConnect:
		var c event.Connect
		m.decode(&c, body)
		return m.applyConnect(from, &c)
	case event.KindDisconnect:
		var c event.Disconnect
		m.decode(&c, body)
		return nil, m.applyDisconnect(&c)
	case event.KindSubscribe:
		var c event.Subscribe
		m.decode(&c, body)
		return m.applySubscribe(&c)
	case event.KindRequest:
		var c event.Request
		m.decode(&c, body)
		return m.applyRequest(&c)
	case event.KindControl:
		var c event.Control
		m.decode(&c, body)
		return m.applyControl(&c)
	case event.KindUnsubscribe:
		var c event.Unsubscribe
		m.decode(&c, body)
		return m.applyUnsubscribe(&c)
	case event.KindReplay:
		var c event.Replay
		m.decode(&c, body)
		return nil, m.applyReplay(&c)
	case event.KindPolicy:
		var c event.Policy
		m.decode(&c, body)
		return nil, m.applyPolicy(&c)
	case event.KindPutPolicy:
		var c event.PutPolicy
		m.decode(&c, body)
		number, err := m.applyPutPolicy(&c)
		m.auditPut(c.By, "", "", number, err)
		return number, err
	case event.KindPutPart:
		var c event.PutPart
		m.decode(&c, body)
		number, err := m.applyPutPart(&c)
		m.auditPut(c.By, c.Door, "*@"+c.Domain, number, err)
		return number, err
	case event.KindAudit:
		var c event.Audit
		m.decode(&c, body)
		return nil, m.applyAudit(&c)
	case event.KindNodeUp:
		var c event.NodeUp
		m.decode(&c, body)
		m.applyNodeUp(from)
		return nil, nil
	case event.KindSettings:
		var c event.Settings
		m.decode(&c, body)
		return nil, m.applySettings(&c)
	case event.KindNodeDown:
		var c event.NodeDown
		m.decode(&c, body)
		return nil, m.applyNodeDown(from, &c)
	case event.KindOfProfile:
		var c event.ProfileSettings
		m.decode(&c, body)
		return nil, m.applyProfileSettings(&c)
	case event.KindCopy:
		c := new(event.Copy) // kept until the entry ends
		m.decode(c, body)
		m.applyCopy(c)
		return nil, nil
	case event.KindRaise:
		var c event.Raise
		m.decode(&c, body)
		return nil, m.applyRaise(&c)
	case event.KindUndelay:
		var c event.Undelay
		m.decode(&c, body)
		return nil, m.applyUndelay(&c)
	case event.KindBan, event.KindUnban, event.KindKick:
		return nil, m.outlaw(kind, body)
	case event.KindTick:
		return nil, nil
	}
	panic(fatal{fmt.Sprintf("command of unknown kind %d: upgrade this node", kind)})
}

func (m *Machine) decode(c event.Command, body []byte) {
	if err := m.decoder.Decode(c, body); err != nil {
		panic(fatal{fmt.Sprintf("command of kind %d: %v", c.Kind(), err)})
	}
}

// Configure records the cluster's configuration, bytes that only cluster reads,
// which took effect at index.
func (m *Machine) Configure(index, term uint64, config []byte) {
	if index <= m.applied.Load() {
		return
	}
	tx := m.store.Begin()
	tx.Set(configKey, append(binary.BigEndian.AppendUint64(nil, index), config...))
	tx.Set(appliedKey, appendPosition(nil, index, term, m.now))
	tx.Commit()
	m.term = term
	m.applied.Store(index)
	m.probe.passed(m.store, index)
}

// Durable returns the last entry that a crash now would leave, and the newest
// configuration at or before it.
func (m *Machine) Durable() (index, term uint64, config []byte, configIndex uint64) {
	v, ok := m.store.Durable(appliedKey)
	if !ok {
		return 0, 0, nil, 0
	}
	index, term, _ = readPosition(v)
	if c, ok := m.store.Durable(configKey); ok && len(c) >= 8 {
		configIndex, config = store.Uint64At(c, 0), c[8:]
	}
	return index, term, config, configIndex
}

// Flush makes everything that was applied durable.
func (m *Machine) Flush() error { return m.store.Flush() }

// Checkpoint writes a copy of the state into dir and says as of which entry.
func (m *Machine) Checkpoint(dir string) (index, term uint64, err error) {
	if err := m.store.Flush(); err != nil {
		return 0, 0, err
	}
	// The copy may be of a later entry than the one read here, never of an
	// earlier one; Raft replays what it already has, and Apply skips that.
	v, _ := m.store.Durable(appliedKey)
	index, term, _ = readPosition(v)
	return index, term, m.store.Checkpoint(dir)
}

// Restore replaces the state by the copy in dir, and has the node go on from it:
// the entries in between were applied elsewhere, and are not delivered here.
func (m *Machine) Restore(dir string) error {
	if err := m.store.Replace(dir); err != nil {
		return err
	}
	if err := m.load(); err != nil {
		return err
	}
	m.raised(m.level)
	m.deliver(m.restored())
	return nil
}

func appendPosition(b []byte, index, term uint64, now int64) []byte {
	b = binary.BigEndian.AppendUint64(b, index)
	b = binary.BigEndian.AppendUint64(b, term)
	return binary.BigEndian.AppendUint64(b, uint64(now))
}

func readPosition(b []byte) (index, term uint64, now int64) {
	if len(b) != 24 {
		return 0, 0, 0
	}
	return store.Uint64At(b, 0), store.Uint64At(b, 8), int64(store.Uint64At(b, 16))
}

func (c counters) append(b []byte) []byte {
	for _, v := range [...]uint64{c.session, c.epoch, c.body, c.failure} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func (c *counters) decode(b []byte) error {
	for _, f := range [...]*uint64{&c.session, &c.epoch, &c.body, &c.failure} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return event.ErrDamaged
		}
		*f, b = v, b[n:]
	}
	return nil
}
