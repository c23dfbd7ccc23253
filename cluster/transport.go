package cluster

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/cluster/raftlog"
)

// The planes between nodes. What is urgent and what is large never share one: a
// heartbeat behind 16 MiB of entries would be an election.
const (
	planeControl  link.Plane = 1 // heartbeats, votes
	planeLog      link.Plane = 2 // entries
	planeSnapshot link.Plane = 3 // one connection for each snapshot
	planeForward  link.Plane = 4 // batches to the leader
	planeRelay    link.Plane = 5 // messages between the nodes' programs
	planeAsk      link.Plane = 6 // questions; one that is not answered ends its connection
)

const (
	// waitForPeer is how long a message with entries waits for a connection. It
	// is long because Raft, told of a failure, waits too, each time for longer,
	// and does not notice that the node is back.
	waitForPeer = 15 * time.Second

	// appendTime is how long the answer to entries may take: the other's disk
	// may be slow, and is watched there.
	appendTime = 20 * time.Second
)

var errTransportClosed = errors.New("this node is closing")

// A transport is Raft's network: its messages over links. A server's address is
// its id; links know where it is.
//
// Raft's own pipeline wedges for good when a follower refuses something while
// others are under way (trap 1); see pipeline for ours.
type transport struct {
	self    raft.ServerID
	dial    func(id string, plane link.Plane) (*link.Conn, error)
	now     func() time.Time // the machine's
	patient time.Duration    // for what is urgent: votes, heartbeats
	voting  atomic.Int64     // a time.Duration: for votes, if it is longer; see ballot

	rpcs   chan raft.RPC
	done   chan struct{} // closed by stop
	once   sync.Once
	tasks  sync.WaitGroup
	pushes atomic.Uint64

	// Whether Raft's main loop is busy with the log, or with a snapshot; and whether
	// it follows the leader of a term. See heartbeat.
	writing, installing occupation
	following           func(term uint64, leader string) bool

	// What snapshots need: whether this node leads in a term, the term that it is in,
	// and where what arrives is put. Raft's main loop may ask; they do not block.
	leads   func(term uint64) bool
	term    func() uint64
	receive func(index, term uint64, size int64) (*raftlog.Arrival, error)
	logger  *slog.Logger
	name    func(id string) string
	goneOn  atomic.Uint64 // times that a snapshot went on where its connection had broken

	mu       sync.Mutex // guards the following
	stopped  bool
	callers  map[callerKey]*caller
	heard    map[raft.ServerID]contact
	arriving *arriving                // the snapshot that this node is being sent; nil for none
	sending  map[raft.ServerID]uint64 // the indexes of those that it sends
	goOn     map[raft.ServerID]bool   // who is known to go on with a snapshot
}

// A contact is what is known of a node by its answers.
type contact struct {
	at    time.Time // of the last
	index uint64    // the log of the node agrees with ours up to here; 0 if unknown
}

type callerKey struct {
	id    raft.ServerID
	plane link.Plane
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func newTransport(self raft.ServerID, patient time.Duration, now func() time.Time, dial func(string, link.Plane) (*link.Conn, error)) *transport {
	return &transport{
		self: self, dial: dial, now: now, patient: patient,
		rpcs: make(chan raft.RPC), done: make(chan struct{}),
		leads: func(uint64) bool { return true }, term: func() uint64 { return 0 }, logger: slog.New(slog.DiscardHandler),
		name:    func(id string) string { return id },
		callers: map[callerKey]*caller{}, heard: map[raft.ServerID]contact{},
		sending: map[raft.ServerID]uint64{}, goOn: map[raft.ServerID]bool{},
	}
}

// stop ends all that is under way; Close waits for it too. Raft waits for its
// calls before it closes its transport, so stop comes first.
func (t *transport) stop() {
	t.once.Do(func() {
		close(t.done)
		t.mu.Lock()
		t.stopped = true
		callers := slices.Collect(maps.Values(t.callers))
		t.mu.Unlock()
		for _, c := range callers {
			c.drop(errTransportClosed)
		}
	})
}

// begin says whether the transport is not stopped yet. If so, it does not close
// before tasks.Done.
func (t *transport) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.tasks.Add(1)
	return true
}

// Close is raft.WithClose's.
func (t *transport) Close() error {
	t.stop()
	t.tasks.Wait()
	return t.abandon()
}

// Consumer is Raft's: what others ask of us.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr is Raft's.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.self) }

// EncodePeer is Raft's. An id is an address.
func (t *transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer is Raft's.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler is Raft's. Its handler is not used: see heartbeat.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

func (t *transport) caller(id raft.ServerID, plane link.Plane) *caller {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := callerKey{id, plane}
	c := t.callers[key]
	if c == nil {
		c = newCaller(t, string(id), plane)
		t.callers[key] = c
	}
	return c
}

// back notes that a node has dialled us: who waits for a connection to it need
// not wait any longer.
func (t *transport) back(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, plane := range [...]link.Plane{planeControl, planeLog} {
		if c := t.callers[callerKey{raft.ServerID(id), plane}]; c != nil { // nobody waits otherwise
			c.retry()
		}
	}
}

// note records that a node has answered.
func (t *transport) note(id raft.ServerID) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard[id] = contact{now, t.heard[id].index}
}

// noteAppended records what a node has answered to entries.
func (t *transport) noteAppended(id raft.ServerID, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	c := contact{now, t.heard[id].index}
	if r.Success {
		c.index = a.PrevLogEntry
		if n := len(a.Entries); n > 0 {
			c.index = a.Entries[n-1].Index
		}
	}
	t.heard[id] = c
}

// contact returns what is known of a node.
func (t *transport) contact(id raft.ServerID) contact {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heard[id]
}

// ask sends a request and waits for its response.
func (t *transport) ask(c *caller, wait, patience time.Duration, kind byte, parts [][]byte, response any) error {
	body, err := c.call(wait, patience, kind, parts)
	if err != nil {
		return err
	}
	t.note(raft.ServerID(c.id))
	return decodeResponse(body, []byte(c.id), response)
}

// urgent is ask for what must be answered now or not at all.
func (t *transport) urgent(id raft.ServerID, kind byte, body []byte, response any) error {
	return t.ask(t.caller(id, planeControl), t.patient, max(t.patient, time.Duration(t.voting.Load())), kind, [][]byte{body}, response)
}

// RequestVote is Raft's.
func (t *transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return t.urgent(id, frameVote, encodeVote(a), r)
}

// RequestPreVote is Raft's.
func (t *transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return t.urgent(id, framePreVote, encodePreVote(a), r)
}

// TimeoutNow is Raft's.
func (t *transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	if id == t.self {
		return t.local(a, r)
	}
	return t.urgent(id, frameTimeout, encodeTimeout(a), r)
}

// local has this node's Raft answer itself.
func (t *transport) local(a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	response, err := t.raft(a, nil)
	if err == nil {
		*r = *response.(*raft.TimeoutNowResponse)
	}
	return err
}

// AppendEntries is Raft's.
func (t *transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	if isHeartbeat(a) {
		return t.ask(t.caller(id, planeControl), t.patient, t.patient, frameAppend, encodeAppend(a), r)
	}
	err := t.ask(t.caller(id, planeLog), waitForPeer, appendTime, frameAppend, encodeAppend(a), r)
	if err == nil {
		t.noteAppended(id, a, r)
	}
	return err
}

func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// push tells all followers to which entries are sent that those up to index, of
// term, are committed: Raft itself would say so with the next entry, or after
// CommitTimeout. It is what a leader of that term says; its answer is of no
// interest, as Raft has not asked. It does not block.
func (t *transport) push(index, term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, c := range t.callers {
		if key.plane == planeLog {
			c.push(index, term)
		}
	}
}
