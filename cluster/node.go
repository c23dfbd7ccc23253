package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/disk"
)

// Config says how a Node works. Dir, Machine, Logger, Die and Now are required;
// of the rest zero means the default.
type Config struct {
	Dir     *Dir
	Machine Machine
	Logger  *slog.Logger

	// Die ends the process; it must not return. It is called when nothing that
	// is written can be relied on any more, or when the log holds what this
	// program does not understand. Tests may end or park the goroutine.
	Die func(reason string)

	// Now is the node's clock. If its times carry no monotonic reading, it is
	// one that is set by hand, and the log's time follows it exactly.
	Now func() time.Time

	// Backlog is how many bytes of batches may wait to be packed. 0 means
	// 64 MiB. What is submitted beyond fails with ErrBusy.
	Backlog int

	// LogBytes is how large the log may grow before the Machine is asked to
	// flush so that it can be truncated. 0 means 1 GiB. It is truncated sooner
	// whenever the Machine happens to have flushed.
	LogBytes uint64

	// Retain is how many bytes of entries are kept below the durable index, for
	// followers that lag. 0 means 16 MiB; it must exceed what can be in flight,
	// or a follower that is about to be given the next entry is given a snapshot.
	Retain uint64

	// Copies is how many of the snapshots that Snapshot takes are kept. 0 means 2.
	Copies int

	// Stall is how long one commit of the log may take before the process ends; see
	// raftlog. 0 means 3 s.
	Stall time.Duration

	// Heartbeat is how long a follower does without hearing from its leader, and
	// an election takes, at least. 0 means 300 ms.
	Heartbeat time.Duration

	// Patience is how long Close waits for what is on its way. 0 means 5 s.
	Patience time.Duration

	// MemTable is raftlog's. 0 means its default.
	MemTable uint64

	// Links connect the node with others. nil is a node alone. They are closed with
	// the node.
	Links *Links

	// Stable is how long a node that has joined must have answered before it is
	// given a vote. 0 means 2 s.
	Stable time.Duration

	// Gone is how long a node may be silent before the leader calls Lost. 0 means
	// 5 s.
	Gone time.Duration

	// Dead is how long a node may be silent before the leader takes it out of the
	// cluster, if the others have a quorum. 0 means never.
	Dead time.Duration

	// Lost is told by the leader of a node, by id, that has been silent for Gone,
	// and again each time that it has been for as long. It must not block.
	Lost func(node string)

	// Receive is called with each message that another node's program has given to
	// Send there: for one node by one goroutine, in order. The message is valid
	// until it returns. PeerUp tells that messages to a node go by a new connection;
	// what was sent before may be lost. PeerDown tells that there is none.
	Receive          func(node string, message []byte)
	PeerUp, PeerDown func(node string)

	// Facts returns what the node's program tells of itself, JSON and short; it is
	// asked with each State. Answer answers what another node's program has asked
	// with Ask. Neither may block: what is slow is begun, and asked for again. Both
	// are called by any goroutine; nil for none.
	Facts  func() json.RawMessage
	Answer func(question []byte) ([]byte, error)

	// Raise has the log raise the feature level, and returns when this node has
	// applied that, or with the reason why it has not. It is called by the leader
	// when all members know the level, by a goroutine that may be kept for as long
	// as a change of the membership takes. nil never raises it.
	Raise func(Level) error

	// Hold is the highest level that this node agrees to; 0 for the newest that it
	// knows.
	Hold Level

	// Version and PID are what the node tells the others of itself.
	Version string
	PID     int
}

// lately is how long ago a node may have answered and still count as there.
func (c *Config) lately() time.Duration { return 3*c.Heartbeat + time.Second }

func (c Config) withDefaults() Config {
	def := func(n *uint64, v uint64) {
		if *n == 0 {
			*n = v
		}
	}
	def(&c.LogBytes, 1<<30)
	def(&c.Retain, 16<<20)
	if c.Backlog == 0 {
		c.Backlog = 64 << 20
	}
	if c.Copies == 0 {
		c.Copies = 2
	}
	if c.Stall == 0 {
		c.Stall = 3 * time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 300 * time.Millisecond
	}
	if c.Patience == 0 {
		c.Patience = 5 * time.Second
	}
	if c.Stable == 0 {
		c.Stable = 2 * time.Second
	}
	if c.Gone == 0 {
		c.Gone = 5 * time.Second
	}
	return c
}

// A Node is one member of a cluster. All its methods may be called by any
// goroutine.
type Node struct {
	cfg       Config
	id        raft.ServerID
	db        *raftlog.DB
	log       *raftlog.Log
	snapshots *raftlog.Snapshots
	raft      *raft.Raft
	transport *transport
	links     *Links // nil for a node alone

	clusterName string // for people; empty if it has none
	relays      *relays
	clock       *logClock
	fsm         *fsm
	proposer    *proposer
	real        func() time.Time // the machine's clock
	since       time.Time        // when the node was opened
	leadership  signal           // another node leads than before
	audible     audible          // who sends us heartbeats
	managing    chan struct{}    // holds one, of the leader while it changes the membership
	membership  membership

	forwarding chan struct{} // something waits that another node has to order
	leaving    chan struct{} // closed when the node stops talking to others
	leading    chan bool     // holds one answer; written by announce alone
	ready      chan struct{} // closed when this node has caught up for the first time
	readyOnce  sync.Once
	notify     chan bool     // from Raft, which blocks on it: read by watch and by nothing else
	trim       chan struct{} // there may be something to truncate
	crowded    atomic.Bool   // MakeRoom was called, and is not done
	stop       chan struct{}
	tasks      sync.WaitGroup
	closed     atomic.Bool
	finding    atomic.Bool // others are asked where members are
}

// Open starts a node in its directory. A directory that is new becomes a cluster
// of one voter. When Open returns, the node is catching up: Ready says when it
// has.
//
// Errors are ErrDamaged, ErrNewer, ErrInUse, or the disk's.
func Open(cfg Config) (*Node, error) {
	n := &Node{
		cfg:     cfg.withDefaults(),
		id:      raft.ServerID(cfg.Dir.id.Node),
		links:   cfg.Links,
		real:    cfg.Now,
		leading: make(chan bool, 1),
		ready:   make(chan struct{}),
		notify:  make(chan bool, 16),
		trim:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		leaving: make(chan struct{}), forwarding: make(chan struct{}, 1), managing: make(chan struct{}, 1),
	}
	n.membership.over = make(chan struct{})
	n.relays = newRelays(n)
	if n.links != nil {
		n.real = n.links.cfg.Now
	}
	n.since = n.real()
	if err := n.open(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return n, nil
}

func (n *Node) open() (err error) {
	if n.clusterName, err = n.cfg.Dir.ClusterName(); err != nil {
		return err
	}
	if n.membership.known, err = n.cfg.Dir.takenIn(); err != nil {
		return err
	}
	if err := n.openLog(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.db.Close())
		}
	}()
	if err := n.recover(); err != nil {
		return err
	}
	if err := n.cfg.Dir.started(); err != nil {
		return err
	}
	floor, err := n.newestStamp()
	if err != nil {
		return err
	}
	last, err := n.log.LastIndex()
	if err != nil {
		return err
	}
	n.log.SetFloor(floor) // the entry that has it may be truncated without being applied again
	if err := n.settleState(); err != nil {
		return err
	}
	n.clock = newLogClock(n.cfg.Now, floor)
	n.fsm = newFSM(n, last)
	n.proposer = newProposer(n)
	return n.startRaft()
}

func (n *Node) openLog() error {
	dir := n.cfg.Dir
	db, err := raftlog.Open(raftlog.Options{
		FS: dir.fs, Dir: dir.raft(), Exists: dir.id.Started,
		Logger: n.cfg.Logger, Die: n.cfg.Die, Now: n.cfg.Now,
		Stall: n.cfg.Stall, MemTable: n.cfg.MemTable,
	})
	if err != nil {
		return err
	}
	n.db = db
	if n.log, err = db.Log(0, n.spare, n.cfg.Retain); err == nil {
		n.snapshots, err = raftlog.OpenSnapshots(dir.fs, dir.snapshots(), n.log, n.cfg.Machine, n.cfg.Copies)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

// startRaft starts Raft and the goroutines beside it.
func (n *Node) startRaft() error {
	dial := func(id string, _ link.Plane) (*link.Conn, error) {
		return nil, fmt.Errorf("node %s: this node is alone", id)
	}
	if n.links != nil {
		dial = n.links.dial
	}
	n.transport = newTransport(n.id, n.cfg.lately()/2, n.real, dial)
	n.transport.following = n.followsIn
	n.transport.receive, n.transport.logger = n.snapshots.Receive, n.cfg.Logger
	n.transport.name = func(id string) string { name, _ := n.nameOf(id); return name }
	var running atomic.Pointer[raft.Raft] // Raft may lead before we know of it here
	n.transport.leads = func(term uint64) bool {
		r := running.Load()
		return r == nil || r.State() == raft.Leader && r.CurrentTerm() == term
	}
	n.transport.term = func() uint64 { return running.Load().CurrentTerm() }
	log := mainLog{n.log, &n.transport.writing}
	r, err := raft.NewRaft(n.raftConfig(), n.fsm, log, n.log, n.snapshots, n.transport)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.raft = r
	running.Store(r)
	if servers := n.servers(); n.links == nil && len(servers) > 1 {
		return errors.Join(fmt.Errorf("%w: it is one of %d nodes: start it with --cluster", ErrOthers, len(servers)), r.Shutdown().Error())
	}
	n.tasks.Go(n.watchLeadership)
	n.tasks.Go(n.trimLog)
	if n.links != nil {
		n.startTalking()
	}
	if n.alone() {
		// Nobody else could be leader, so there is nothing to wait for: what a
		// leader says to hand over, we say to ourselves.
		if err := n.stand(); err != nil {
			n.cfg.Logger.Warn("no election at once; one follows by time-out", "err", err)
		}
	}
	return nil
}

// followsIn says whether this node follows leader in term.
func (n *Node) followsIn(term uint64, leader string) bool {
	_, now := n.raft.LeaderWithID()
	return n.raft.State() == raft.Follower && n.raft.CurrentTerm() == term && string(now) == leader
}

// startTalking starts what only a node among others needs.
func (n *Node) startTalking() {
	changes := make(chan raft.Observation, 16)
	n.raft.RegisterObserver(raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	}))
	n.tasks.Go(func() { n.watchLeader(changes) })
	n.tasks.Go(n.forward)
	n.tasks.Go(n.steward)
	n.tasks.Go(n.awaitReady)
	n.links.node.Store(n)
	close(n.links.opened)
}

// stand has this node stand for election now.
func (n *Node) stand() error {
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	return n.transport.TimeoutNow(n.id, raft.ServerAddress(n.id), req, &raft.TimeoutNowResponse{})
}

const (
	// maxAppendEntries is how many entries go in one message, of packBytes or so:
	// Raft does not count bytes.
	maxAppendEntries = 64

	// commitTimeout is how long a follower may lack entries that were there when it
	// could not be reached, before Raft looks again. What is committed it is told
	// at once.
	commitTimeout = 250 * time.Millisecond
)

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = n.id
	c.HeartbeatTimeout = n.cfg.Heartbeat
	c.ElectionTimeout = n.cfg.Heartbeat
	c.LeaderLeaseTimeout = n.cfg.Heartbeat * 5 / 6
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = maxAppendEntries
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NotifyCh = n.notify
	c.NoLegacyTelemetry = true
	c.Logger = newRaftLogger(n.cfg.Logger)

	// The Machine is durable up to an index that it knows, and is not restored
	// from a copy. What is committed beyond is learned from a leader: restoring
	// it here (RestoreCommittedLogs) deadlocks on a long log.
	c.NoSnapshotRestoreOnStart = true

	// Snapshots are taken by trimLog, by bytes; never by time or count. How much
	// of the log is kept is decided by raftlog, by bytes too.
	c.SnapshotInterval = 1000 * time.Hour
	c.SnapshotThreshold = 1 << 63
	c.TrailingLogs = 1
	return c
}

// alone says whether this node is the only voter.
func (n *Node) alone() bool {
	servers := n.raft.GetConfiguration().Configuration().Servers
	voters := 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		if voters++; s.ID != n.id {
			return false
		}
	}
	return voters == 1
}

// Only says whether this node is the only member there is.
func (n *Node) Only() bool { return len(n.servers()) == 1 && n.Member(string(n.id)) }

// watchLeadership reads what Raft says about this node's leadership. Raft waits
// until it has been read, so nothing here may block.
func (n *Node) watchLeadership() {
	for {
		select {
		case <-n.stop:
			return
		case leader := <-n.notify:
			if leader {
				n.proposer.elected(n.raft.Barrier(0))
			} else {
				n.proposer.lost()
			}
		}
	}
}

// announce tells who wants to know whether this node leads. It is called under
// the proposer's mutex, so that the newest answer is the last. It does not block.
func (n *Node) announce(leader bool) {
	select {
	case <-n.leading: // an answer that nobody has read
	default:
	}
	n.leading <- leader
	name := n.cfg.Dir.id.Name
	if !leader {
		n.cfg.Logger.Info("no longer leading", "node", name)
		return
	}
	n.cfg.Logger.Info("leading", "node", name, "term", n.raft.CurrentTerm(), "index", n.Applied())
	n.readyOnce.Do(func() { close(n.ready) })
}

// Submit hands one batch over to be ordered, and returns at once: it never waits
// for the disk. Batches of one node are ordered as they were submitted. A batch
// that is applied is seen in Machine.Apply and nowhere else; of one that is not,
// or of which that is not known, failed is told, once, with an error that is
// ErrNoCommit, ErrUnknown or ErrTooLarge. It may be called before Submit returns,
// and must not block.
//
// While there is no leader, batches wait. They must not be changed after Submit.
func (n *Node) Submit(batch []byte, failed func(error)) { n.proposer.submit(batch, failed) }

// Leader says whether this node is the leader, and has applied all that earlier
// leaders ordered.
func (n *Node) Leader() bool { return n.proposer.isOpen() }

// Leading returns a channel that holds the newest answer of Leader whenever it
// has changed since it was last read. There is one channel: it has one reader.
func (n *Node) Leading() <-chan bool { return n.leading }

// Ready returns a channel that is closed when this node has caught up for the
// first time since it was opened.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Applied returns the index of the last entry that the Machine has applied since
// the node was opened, and before that its durable index.
func (n *Node) Applied() uint64 { return n.fsm.applied.Load() }

// Snapshot takes a copy of the state as it is now, keeps it in the directory,
// and returns its id and place.
func (n *Node) Snapshot() (id string, index uint64, err error) {
	m, err := n.snapshots.Take()
	if err != nil {
		return "", 0, fmt.Errorf("cluster: %w", err)
	}
	return m.ID(), m.Index, nil
}

// A Status is what an operator wants to know of a node.
type Status struct {
	Identity Identity
	Role     string // leader, follower, candidate, shutdown
	LeaderID string // the leader's node id, empty if none is known
	Term     uint64

	FirstIndex uint64 // of the log; 0 when empty
	LastIndex  uint64
	LogBytes   uint64
	Committed  uint64
	Applied    uint64
	Durable    uint64 // the Machine would be here after a crash, before it replays
}

// Status returns the node's state.
func (n *Node) Status() Status {
	_, leader := n.raft.LeaderWithID()
	durable, _, _, _ := n.cfg.Machine.Durable()
	s := Status{
		Identity: n.cfg.Dir.Identity(), LeaderID: string(leader),
		Role: roleName(n.raft.State()), Term: n.raft.CurrentTerm(),
		LogBytes: n.log.Bytes(), Committed: n.raft.CommitIndex(), Applied: n.Applied(), Durable: durable,
	}
	s.FirstIndex, _ = n.log.FirstIndex()
	s.LastIndex, _ = n.log.LastIndex()
	return s
}

func roleName(s raft.RaftState) string {
	switch s {
	case raft.Leader:
		return "leader"
	case raft.Follower:
		return "follower"
	case raft.Candidate:
		return "candidate"
	}
	return "shutdown"
}

// Stats count what a node has done since it was opened.
type Stats struct {
	// By this node, as leader.
	Entries uint64 // packed and handed to Raft
	Batches uint64 // in them
	Bytes   uint64 // of the entries
	Failed  uint64 // batches whose failed was called
	Waiting int    // bytes of batches that wait now; at most Config.Backlog

	// By its Machine.
	Applied   uint64        // entries
	ApplyTime time.Duration // spent in Machine.Apply, by Config.Now

	Trims   uint64 // times that the log was looked at for what can go
	Resumed uint64 // times that a snapshot from another node went on where its connection had broken
	Log     raftlog.Stats
	Disk    disk.Stats // of the whole file system, the Machine's part included
}

// Stats returns the counts so far.
func (n *Node) Stats() Stats {
	s := n.proposer.stats()
	n.fsm.addStats(&s)
	s.Log, s.Disk, s.Resumed = n.db.Stats(), n.cfg.Dir.fs.Stats(), n.transport.goneOn.Load()
	return s
}

// LogMemTables returns the bytes of memory that the log's newest entries take.
// Not after Close.
func (n *Node) LogMemTables() uint64 { return n.db.MemTables() }

// LogUnflushed returns the bytes that the log has yet to write to the disk once more,
// whatever comes. Not after Close.
func (n *Node) LogUnflushed() uint64 { return n.db.Unflushed() }

// handLeadership has another node lead, if there is one and this one does: the
// others then need not wait until they miss it.
func (n *Node) handLeadership() {
	if n.links == nil || !n.proposer.isOpen() || n.alone() {
		return
	}
	if err := n.raft.LeadershipTransfer().Error(); err != nil {
		n.cfg.Logger.Info("cluster: the leadership is not handed over; the others elect a leader by time-out", "err", err.Error())
	}
}

// Close ends the node: what waits fails with ErrNoCommit, what is on its way is
// waited for (Config.Patience), and the Machine is flushed, so that the next start
// has nothing to replay. Nothing calls the Machine any more when Close returns;
// the caller then closes it, and the Dir. Only the first call does anything.
//
// The Machine must go on applying until then: one that blocks in Apply keeps Close
// from returning.
func (n *Node) Close() error {
	if n.closed.Swap(true) {
		return nil
	}
	n.handLeadership()
	drained := n.proposer.close(n.cfg.Patience)
	close(n.leaving)
	n.transport.stop()
	var err error
	if n.links != nil {
		err = n.links.Close()
	}
	err = errors.Join(err, n.raft.Shutdown().Error())
	close(n.stop)
	n.tasks.Wait()
	n.proposer.abandon()
	if !drained {
		n.cfg.Logger.Warn("closed with entries on their way; they may yet be applied", "node", n.cfg.Dir.id.Name)
	}
	err = errors.Join(err, n.cfg.Machine.Flush(), n.db.Close())
	if err != nil {
		return fmt.Errorf("cluster: close: %w", err)
	}
	return nil
}
