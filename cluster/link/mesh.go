package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/internal/logline"
)

const (
	// helloTime is how long a connection may take until both ends know each
	// other.
	helloTime = 5 * time.Second

	// maxStrangers is how many connections may be at that at once. The newest
	// loses.
	maxStrangers = 64

	// deadTime is how long what was sent may stay unacknowledged by the other
	// end's kernel, before the connection is given up. That its program does not
	// read counts as that, too (Linux, TCP_USER_TIMEOUT), and a disk may be slow
	// for seconds: so it is no less than writeTime.
	deadTime = writeTime
)

// Config says how a Mesh works. Self, Listener, Dial, Logger and Now are required.
type Config struct {
	Cluster string // id of the cluster; see also Mesh.Join
	Called  string // its name for people, told to those whom we dial; may be empty
	Self    Member
	Book    *Book

	Listener net.Listener
	Dial     func(ctx context.Context, address string) (net.Conn, error)

	// TLS is what proves who is who; nil leaves connections as they are, which
	// only a simulation may. Server is used where others dial us. Client returns
	// what to dial the node called name with; "" is one whose name we do not
	// know. Name returns the name that the other's certificate proves.
	TLS *TLS

	// Levels returns this node's; nil is one that knows the first only.
	Levels func() Levels

	// Admit says whether the node may talk to us. Its error is told to the node.
	// A node that has no cluster yet is not asked about: it gets planes that
	// Strangers has.
	Admit func(Member) error

	// Strangers are the planes on which nodes may talk that are of no cluster yet.
	Strangers []Plane

	// Sought is told of each Seeker after it was refused, by any goroutine; nil for
	// nobody.
	Sought func(Seeker)

	// Serve is called with each connection that another node has made, in a
	// goroutine of its own. The connection is closed when it returns.
	Serve func(*Conn)

	Logger *slog.Logger

	// Now is the machine's clock, for deadlines.
	Now func() time.Time
}

// TLS is the way in which nodes prove who they are.
type TLS struct {
	Server *tls.Config
	Client func(name string) *tls.Config
	Name   func(tls.ConnectionState) string

	// Explain makes of an error of TLS one that says what to do; nil leaves it.
	Explain func(error) error
}

func (t *TLS) explain(err error) error {
	if t.Explain == nil {
		return err
	}
	return t.Explain(err)
}

// A Mesh is a node's end of all connections with others. Its methods may be called
// by any goroutine.
type Mesh struct {
	cfg       Config
	cluster   atomic.Pointer[string]
	called    atomic.Pointer[string]
	strangers atomic.Int64
	refused   atomic.Uint64
	ctx       context.Context // ends when the mesh is closed
	cancel    context.CancelFunc
	tasks     sync.WaitGroup

	told logline.Budget

	mu     sync.Mutex
	open   map[net.Conn]Member // those that others have made, and who, if they are of our cluster
	closed bool
}

// toldASecond bounds the lines about connections that were refused: whoever reaches
// the port makes as many of those as they like. All are counted.
const toldASecond = 100

// New returns a mesh that accepts connections.
func New(cfg Config) *Mesh {
	m := &Mesh{cfg: cfg, told: logline.Budget{Most: toldASecond, Per: time.Second}, open: map[net.Conn]Member{}}
	m.cluster.Store(&cfg.Cluster)
	m.called.Store(&cfg.Called)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	cfg.Book.Learn(cfg.Self)
	m.tasks.Go(m.accept)
	return m
}

// Join makes this node one of the cluster, which it was none of. called is the cluster's
// name.
func (m *Mesh) Join(cluster, called string) {
	m.called.Store(&called)
	m.cluster.Store(&cluster)
}

// Cluster returns the id of the cluster, empty if there is none yet.
func (m *Mesh) Cluster() string { return *m.cluster.Load() }

// Refused returns how many connections were not accepted.
func (m *Mesh) Refused() uint64 { return m.refused.Load() }

// Close ends all connections that others have made, and waits for their goroutines.
// Those that Dial has returned are the callers'.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.closed = true
	for nc := range m.open {
		_ = nc.Close()
	}
	m.mu.Unlock()
	m.cancel()
	err := m.cfg.Listener.Close()
	m.tasks.Wait()
	return err
}

func (m *Mesh) accept() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		nc, err := m.cfg.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || m.ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return
		case err != nil: // out of file descriptors, mostly
			m.cfg.Logger.Warn("cluster: accept failed", "err", err.Error())
			pause.Reset(100 * time.Millisecond)
			select {
			case <-pause.C:
			case <-m.ctx.Done():
			}
			continue
		}
		if m.strangers.Add(1) > maxStrangers || !m.enter(nc) {
			m.strangers.Add(-1)
			m.refused.Add(1)
			_ = nc.Close()
			continue
		}
		m.tasks.Go(func() { m.welcome(nc) })
	}
}

// enter notes that nc is open, unless the mesh is closed.
func (m *Mesh) enter(nc net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.open[nc] = Member{}
	}
	return !m.closed
}

func (m *Mesh) leave(nc net.Conn) {
	_ = nc.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, nc)
}

// identify notes who has made the connection nc.
func (m *Mesh) identify(nc net.Conn, who Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, open := m.open[nc]; open {
		m.open[nc] = who
	}
}

// Review ends the connections of nodes of our cluster that Admit does not admit any
// more. Who is admitted meanwhile, and should not be, is ended too.
func (m *Mesh) Review() {
	m.mu.Lock()
	open := maps.Clone(m.open)
	m.mu.Unlock()
	for nc, who := range open {
		if who.ID != "" && m.cfg.Admit(who) != nil {
			_ = nc.Close()
		}
	}
}

// welcome serves a connection that was accepted.
func (m *Mesh) welcome(nc net.Conn) {
	defer m.leave(nc)
	c, err := m.greet(nc)
	m.strangers.Add(-1)
	if err != nil {
		m.refused.Add(1)
		if untold, ok := m.told.Take(m.cfg.Now()); ok && m.ctx.Err() == nil {
			level := slog.LevelWarn
			if away, ok := errors.AsType[*turnedAway](err); ok && away.code.passing() {
				level = slog.LevelDebug // whoever takes us in is quicker than we are
			}
			m.cfg.Logger.Log(m.ctx, level, "cluster: connection refused", "from", nc.RemoteAddr().String(), "err", err.Error(), "untold", untold)
		}
		return
	}
	m.cfg.Serve(c)
}

// A turnedAway is who was refused after it had said who it is.
type turnedAway struct {
	name   string
	code   Refusal
	reason string
}

func (e *turnedAway) Error() string {
	return fmt.Sprintf("node %q: %s: %s", e.name, e.code, e.reason)
}

// greet learns who has dialled us.
func (m *Mesh) greet(raw net.Conn) (*Conn, error) {
	if err := raw.SetDeadline(m.cfg.Now().Add(helloTime)); err != nil {
		return nil, err
	}
	tune(raw)
	nc, name := raw, ""
	if m.cfg.TLS != nil {
		t := tls.Server(raw, m.cfg.TLS.Server)
		if err := t.HandshakeContext(m.ctx); err != nil {
			return nil, m.cfg.TLS.explain(err)
		}
		nc, name = t, m.cfg.TLS.Name(t.ConnectionState())
	}
	var h hello
	if err := readMessage(nc, &h); err != nil {
		return nil, err
	}
	a := answer{Version: helloVersion, Cluster: m.Cluster(), Self: m.cfg.Self, Levels: m.levels()}
	a.Refusal, a.Reason = m.judge(&h, name)
	if a.Refusal == "" && h.Cluster != "" {
		m.identify(raw, h.Self) // before it is admitted: see Review
		a.admitted(m.cfg.Admit(h.Self))
	}
	if a.Refusal == "" {
		a.Refusal, a.Reason = m.judgeLevels(&h)
	}
	if a.Refusal == "" && h.Cluster != "" { // who is to join is learnt of when it is taken in
		m.cfg.Book.Learn(h.Self)
		m.cfg.Book.Learn(h.Members...)
		a.Members = m.cfg.Book.Members()
	}
	if err := writeMessage(nc, &a); err != nil {
		return nil, err
	}
	if s, ok := m.seeker(&h); a.Refusal == RefusedNode && ok {
		m.cfg.Sought(s)
	}
	if a.Refusal != "" {
		return nil, &turnedAway{name: h.Self.Name, code: a.Refusal, reason: a.Reason}
	}
	return newConn(nc, h.Self, h.Plane), nc.SetDeadline(time.Time{})
}

// judge says why we do not talk with who says h, if so, members or not. name is what
// its certificate proves.
func (m *Mesh) judge(h *hello, name string) (Refusal, string) {
	own := m.Cluster()
	known, isKnown := m.cfg.Book.Find(h.Self.ID)
	switch {
	case h.Version != helloVersion:
		return RefusedVersion, fmt.Sprintf("it speaks version %d of the link protocol, this node version %d: run versions that follow each other", h.Version, helloVersion)
	case h.Self.ID == "" || h.Self.Name == "" || h.Self.Address == "":
		return RefusedVersion, "it does not say who it is"
	case m.cfg.TLS != nil && name != h.Self.Name:
		return RefusedName, fmt.Sprintf("it calls itself %q, and its certificate is %q's", h.Self.Name, name)
	case isKnown && known.Name != h.Self.Name:
		return RefusedName, fmt.Sprintf("it calls itself %q with the id of node %q: an id is its disk's, and a disk keeps its name", h.Self.Name, known.Name)
	case h.To != "" && h.To != m.cfg.Self.ID:
		return RefusedNode, fmt.Sprintf("it looks for node %s here, and this is node %q, %s", h.To, m.cfg.Self.Name, m.cfg.Self.ID)
	case h.Cluster == "" && own != "" && m.strange(h.Plane):
		return "", ""
	case own == "":
		return RefusedYet, fmt.Sprintf("node %q has not joined a cluster yet", m.cfg.Self.Name)
	case h.Cluster == "":
		return RefusedCluster, fmt.Sprintf("node %q is of no cluster yet, and node %q is of %s: it has to join first", h.Self.Name, m.cfg.Self.Name, own)
	case h.Cluster != own:
		return RefusedCluster, fmt.Sprintf("node %q is of cluster %s, and node %q of %s: clear the data directory of the one that is to join the other's, or correct the address by which it found it",
			h.Self.Name, h.Cluster, m.cfg.Self.Name, own)
	}
	return "", ""
}

// seeker says whether h, which is refused for looking for another node, is a Seeker's.
// judge has seen by then that its name is its certificate's.
func (m *Mesh) seeker(h *hello) (Seeker, bool) {
	if m.cfg.Sought == nil || h.To == "" || h.Cluster == "" || h.Cluster == m.Cluster() || h.Self.Name == m.cfg.Self.Name {
		return Seeker{}, false
	}
	for _, known := range h.Members {
		if known.ID == h.To && known.Name == m.cfg.Self.Name {
			return Seeker{Self: h.Self, Cluster: h.Cluster, Called: h.Called, Wanted: h.To}, true
		}
	}
	return Seeker{}, false
}

// admitted takes what Admit returned.
func (a *answer) admitted(err error) {
	if err == nil {
		return
	}
	a.Refusal, a.Reason = RefusedMember, err.Error()
	if e, ok := errors.AsType[*NoMember](err); ok {
		a.Without, a.RemovedBy = e.Without, e.By
	}
}

func (m *Mesh) judgeLevels(h *hello) (Refusal, string) {
	if why := m.levels().against(h.Levels, h.Self.Name); why != "" {
		return RefusedLevel, why
	}
	return "", ""
}

func (m *Mesh) levels() Levels {
	if m.cfg.Levels == nil {
		return Levels{}
	}
	return m.cfg.Levels()
}

func (m *Mesh) strange(p Plane) bool {
	for _, s := range m.cfg.Strangers {
		if s == p {
			return true
		}
	}
	return false
}

// ErrNoAddress means that it is not known where a node is: it has joined a moment ago,
// and will say so itself.
var ErrNoAddress = errors.New("its address is not known")

// Dial connects with the node whose id is to. It takes at most 5 s.
//
// Errors: a *RefusedError if the node does not want to; ErrNoAddress; the network's.
func (m *Mesh) Dial(ctx context.Context, to string, plane Plane) (*Conn, error) {
	peer, known := m.cfg.Book.Find(to)
	if !known {
		return nil, fmt.Errorf("node %s: %w", to, ErrNoAddress)
	}
	c, _, err := m.dial(ctx, peer, plane)
	if err != nil {
		return nil, fmt.Errorf("node %q at %s: %w", peer.Name, peer.Address, err)
	}
	return c, nil
}

// DialAddress connects with whoever is at address. cluster is the id of the
// cluster it belongs to.
func (m *Mesh) DialAddress(ctx context.Context, address string, plane Plane) (c *Conn, cluster string, err error) {
	c, cluster, err = m.dial(ctx, Member{Address: address}, plane)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", address, err)
	}
	return c, cluster, nil
}

func (m *Mesh) dial(ctx context.Context, peer Member, plane Plane) (_ *Conn, cluster string, err error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	raw, err := m.cfg.Dial(ctx, peer.Address)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			_ = raw.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	tune(raw)
	nc, name := raw, ""
	if m.cfg.TLS != nil {
		t := tls.Client(raw, m.cfg.TLS.Client(peer.Name))
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, "", m.cfg.TLS.explain(err)
		}
		nc, name = t, m.cfg.TLS.Name(t.ConnectionState())
	}
	h := hello{
		Version: helloVersion, Cluster: m.Cluster(), Called: *m.called.Load(), To: peer.ID, Plane: plane,
		Self: m.cfg.Self, Members: m.cfg.Book.Members(), Levels: m.levels(),
	}
	if err := writeMessage(nc, &h); err != nil {
		return nil, "", err
	}
	var a answer
	if err := readMessage(nc, &a); err != nil {
		return nil, "", err
	}
	if err := m.check(&a, peer, name); err != nil {
		return nil, "", err
	}
	m.cfg.Book.Learn(a.Self)
	m.cfg.Book.Learn(a.Members...)
	if ctx.Err() != nil {
		return nil, "", ctx.Err() // the deadline in the past may be set
	}
	return newConn(nc, a.Self, plane), a.Cluster, nil
}

// check says what is wrong with an answer.
func (m *Mesh) check(a *answer, peer Member, name string) error {
	own := m.Cluster()
	by := a.Self.Name
	if by == "" {
		by = peer.Address
	}
	switch {
	case a.Refusal != "":
		e := &RefusedError{Code: a.Refusal, Reason: a.Reason, By: by}
		proved := m.cfg.TLS == nil || name == a.Self.Name
		if proved && a.Refusal == RefusedMember && own != "" && a.Cluster == own && peer.ID != "" && a.Self.ID == peer.ID && a.Self.Name == peer.Name {
			e.Without, e.RemovedBy = a.Without, a.RemovedBy
		}
		if proved && a.Refusal == RefusedNode && own != "" && a.Cluster != own && a.Self.Name == peer.Name {
			e.Elsewhere = a.Cluster
		}
		return e
	case a.Version != helloVersion:
		return &RefusedError{Code: RefusedVersion, Reason: fmt.Sprintf("it speaks version %d of the link protocol", a.Version), By: by}
	case m.cfg.TLS != nil && name != a.Self.Name:
		return fmt.Errorf("it calls itself %q, and its certificate is %q's", a.Self.Name, name)
	case peer.ID != "" && a.Self.ID != peer.ID:
		return fmt.Errorf("node %s, %q, is there", a.Self.ID, a.Self.Name)
	case own != "" && a.Cluster != own:
		return fmt.Errorf("node %q is of cluster %s, and this node of %s", by, a.Cluster, own)
	}
	if why := m.levels().against(a.Levels, by); why != "" {
		return errors.New(why)
	}
	return nil
}
