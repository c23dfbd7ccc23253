package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// A LinkConfig says how a node finds and trusts the others. Listener, Dial, Logger
// and Now are required; TLS everywhere but in a simulation.
type LinkConfig struct {
	Listener net.Listener
	Dial     func(ctx context.Context, address string) (net.Conn, error)
	TLS      *link.TLS

	// Advertise is the address at which others reach this node. Empty means the
	// Listener's.
	Advertise string

	// Join are addresses of members, for a node that is none yet, and for one
	// whose members have all moved.
	Join []string

	// Reader says that the node wants no vote: it holds all state, and its being
	// away delays nobody.
	Reader bool

	Logger *slog.Logger
	Now    func() time.Time // the machine's clock
}

// Links are a node's connections with the others. They come before the Node: what
// is to be a member learns of which cluster before it makes its Machine.
type Links struct {
	cfg     LinkConfig
	dir     *Dir
	self    link.Member
	book    *link.Book
	mesh    *link.Mesh
	founder *founder

	opened chan struct{} // closed when node is set
	closed chan struct{}
	ctx    context.Context // ends when closed is closed
	cancel context.CancelFunc
	once   sync.Once
	node   atomic.Pointer[Node]

	mu     sync.Mutex
	faults map[string]string // of the last attempt to dial each node
}

// Listen begins to accept connections from other nodes. They wait until a Node is
// opened with the Links.
//
// Errors: a *ContestedError, if that was found before; ErrDamaged, the disk's.
func Listen(dir *Dir, cfg LinkConfig) (*Links, error) {
	l := &Links{cfg: cfg, dir: dir, opened: make(chan struct{}), closed: make(chan struct{}), faults: map[string]string{}}
	known, err := dir.members()
	if err == nil {
		err = dir.contested()
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.founder = newFounder(dir, cfg.Now())
	l.self = link.Member{ID: dir.id.Node, Name: dir.id.Name, Address: cfg.Advertise, Since: cfg.Now().UnixNano(), Reader: cfg.Reader}
	if l.self.Address == "" {
		l.self.Address = cfg.Listener.Addr().String()
	}
	for _, m := range known {
		if m.ID == l.self.ID { // no clock that was set back makes an old address new
			l.self.Since = max(l.self.Since, m.Since+1)
		}
	}
	l.book = link.NewBook(known, l.keep)
	l.mesh = link.New(link.Config{
		Cluster: dir.id.Cluster, Called: l.founder.called, Self: l.self, Book: l.book,
		Listener: cfg.Listener, Dial: cfg.Dial, TLS: cfg.TLS,
		Levels: dir.linkLevels, Admit: l.admit, Strangers: []link.Plane{planeAsk}, Serve: l.serve, Sought: l.sought,
		Logger: cfg.Logger, Now: cfg.Now,
	})
	return l, nil
}

// keep writes the book down, so that the nodes find each other after all of them
// were off.
func (l *Links) keep(members []link.Member) {
	if err := l.dir.saveMembers(members); err != nil {
		l.cfg.Logger.Warn("cluster: the addresses of the nodes are not kept; after a restart they come from --join", "err", err.Error())
	}
}

// Close ends the links, after the Node.
func (l *Links) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		l.cancel()
		err = l.mesh.Close()
	})
	return err
}

// Addr returns the address at which others reach this node.
func (l *Links) Addr() string { return l.self.Address }

// admit says whether a node may talk to us: whether it is a member, as far as we
// know.
func (l *Links) admit(m link.Member) error {
	n := l.node.Load()
	if n == nil {
		return nil // we know nothing yet
	}
	if len(n.servers()) == 0 || n.Member(m.ID) {
		return nil
	}
	return n.expelled(m)
}

// serve takes a connection that another node has made.
func (l *Links) serve(c *link.Conn) {
	select {
	case <-l.opened:
	case <-l.closed:
		return
	}
	n := l.node.Load()
	n.transport.back(c.Peer.ID)
	switch c.Plane {
	case planeControl, planeLog:
		n.serveVoter(c)
	case planeForward, planeAsk:
		n.serveForward(c)
	case planeRelay:
		n.serveRelay(c)
	default:
		n.transport.serve(c)
	}
}

// faultLevel says who has to know that a node cannot be reached. That it is being
// restarted, or about to join, is ordinary, and its silence is told if it lasts (see
// steward); that it refuses, or its certificate is not good, somebody has to mend.
func faultLevel(err error) slog.Level {
	if r, ok := errors.AsType[*link.RefusedError](err); ok && r.Passing() {
		return slog.LevelInfo
	}
	if _, network := errors.AsType[net.Error](err); network || errors.Is(err, link.ErrNoAddress) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// dial connects with a node, and tells when that begins or ceases to fail.
func (l *Links) dial(id string, plane link.Plane) (*link.Conn, error) {
	c, err := l.mesh.Dial(l.ctx, id, plane)
	l.refusedBy(err)
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	l.mu.Lock()
	old := l.faults[id]
	l.faults[id] = fault
	l.mu.Unlock()
	switch m, _ := l.book.Find(id); {
	case fault == old:
	case elsewhere(err) != "":
		l.cfg.Logger.Error("cluster: a node of this cluster has founded another one: its disk was emptied, and it was started with --bootstrap", "node", m.Name, "address", m.Address, "founded", elsewhere(err),
			"err", fault, "todo", "bellwire cluster remove "+m.Name+"; then start it with an empty data directory and --join in place of --bootstrap")
	case err != nil:
		l.cfg.Logger.Log(l.ctx, faultLevel(err), "cluster: no connection to a node", "node", m.Name, "address", m.Address, "err", fault)
	default:
		l.cfg.Logger.Info("cluster: connected to a node", "node", m.Name, "address", m.Address)
	}
	return c, err
}

// Join makes this node a member of the cluster that LinkConfig.Join leads to. It
// does nothing for a node that is one. It asks until it is taken in, or refused.
//
// Errors: a refusal, which is final; ctx's.
func (l *Links) Join(ctx context.Context) error {
	if l.dir.id.Cluster != "" {
		return nil
	}
	pause := 50 * time.Millisecond
	last := ""
	for {
		for _, address := range l.cfg.Join {
			err := l.join(ctx, address)
			if err == nil {
				return nil
			}
			if errors.Is(err, ErrRefused) {
				return fmt.Errorf("join: %w", err)
			}
			if text := err.Error(); text != last && ctx.Err() == nil {
				last = text
				l.cfg.Logger.Warn("cluster: not yet a member", "asked", address, "err", text)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("join: %w: %s", ctx.Err(), last)
		case <-l.closed:
			return net.ErrClosed
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// join asks the node at address once.
func (l *Links) join(ctx context.Context, address string) error {
	c, cluster, err := l.mesh.DialAddress(ctx, address, planeAsk)
	if r, ok := errors.AsType[*link.RefusedError](err); ok && !r.Passing() {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	body, err := json.Marshal(question{Op: opJoin, Member: &l.self, Knows: l.dir.newest})
	if err == nil {
		err = c.Write(frameAsk, 1, body)
	}
	if err != nil {
		return err
	}
	kind, _, body, err := c.Read()
	if err != nil {
		return err
	}
	a, err := readAnswer(kind, body)
	if err != nil {
		return err
	}
	if a.Final {
		return fmt.Errorf("%w: %s", ErrRefused, a.Error)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	l.book.Learn(a.Members...)
	if a.Index > 0 { // a leader of an earlier version does not say it: then the log will
		if err := l.dir.takeIn(a.Index); err != nil {
			return err
		}
	}
	if err := l.dir.joined(cluster); err != nil {
		return err
	}
	if CheckClusterName(a.Called) == nil { // of an older version there is none
		if err := l.dir.NameCluster(a.Called); err != nil {
			return err
		}
	}
	l.mesh.Join(cluster, l.dir.clusterName())
	l.cfg.Logger.Info("cluster: joined", "cluster", cluster, "through", c.Peer.Name)
	return nil
}

// members reads the addresses that were kept.
func (d *Dir) members() ([]link.Member, error) {
	data, err := d.fs.ReadFile(d.fs.PathJoin(d.path, "members.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var known []link.Member
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("%w: members.json: %w: remove it, and start with --join and a member's address", ErrDamaged, err)
	}
	return known, nil
}

func (d *Dir) saveMembers(members []link.Member) error {
	data, err := json.MarshalIndent(members, "", "  ")
	if err != nil {
		return err
	}
	return d.fs.WriteFile(d.fs.PathJoin(d.path, "members.json"), append(data, '\n'))
}

// joined notes, durably, of which cluster the node is.
func (d *Dir) joined(cluster string) error {
	if !isUUID(cluster) {
		return fmt.Errorf("cluster id %q", cluster)
	}
	d.id.Cluster = cluster
	return d.save()
}

// servers returns the members by the newest configuration, committed or not.
func (n *Node) servers() []raft.Server { return n.raft.GetConfiguration().Configuration().Servers }
