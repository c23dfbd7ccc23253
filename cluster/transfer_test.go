package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/internal/effort"
)

// A cutter dials connections that break when so many bytes have been written to
// them, as many as draw says for each; 0 or no draw: never.
type cutter struct {
	mu   sync.Mutex
	draw func() int
	fail func(address string) error // before it is dialled; nil: it does not
	sent atomic.Int64               // on all of them
	cuts atomic.Int64
}

func (c *cutter) dial(ctx context.Context, address string) (net.Conn, error) {
	c.mu.Lock()
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		if err := fail(address); err != nil {
			return nil, err
		}
	}
	nc, err := dialTCP(ctx, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cut := &cutConn{Conn: nc, c: c}
	if c.draw != nil {
		cut.left = c.draw()
	}
	return cut, nil
}

// failing has fail say whether an address can be dialled; nil: any can.
func (c *cutter) failing(fail func(address string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func (c *cutter) set(draw func() int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draw = draw
}

type cutConn struct {
	net.Conn
	c    *cutter
	left int
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.left == 0 {
		n, err := c.Conn.Write(b)
		c.c.sent.Add(int64(n))
		return n, err
	}
	n, err := c.Conn.Write(b[:min(len(b), c.left)])
	c.c.sent.Add(int64(n))
	if c.left -= n; c.left == 0 || err != nil {
		c.c.cuts.Add(1)
		c.left = 1 // it stays broken
		_ = c.Conn.Close()
		return n, errors.Join(err, errors.New("cut"))
	}
	return n, nil
}

// A courier sends snapshots of one node's state to another, by transports of their
// own: the receiver's Raft is the other node's.
type courier struct {
	*pair
	t        *testing.T
	from, to *rig
	before   position
	term     uint64
}

// newCourier returns a courier whose sender's state has some megabytes.
func newCourier(t *testing.T) *courier {
	c := &courier{t: t, pair: newPair(t), from: memoryRig(t), to: memoryRig(t), term: 100}
	rng := rand.New(rand.NewPCG(1, 1))
	c.from.start()
	c.from.submit(999, 1)
	last := c.from.toy.position().count + 60
	c.from.toy.mu.Lock()
	c.from.toy.heard = nil
	c.from.toy.mu.Unlock()
	for range 60 {
		b := make([]byte, 32<<10)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		c.from.node.Submit(b, func(err error) { t.Error(err) })
	}
	waitFor(t, "the sender has its state", func() bool { return c.from.toy.position().count == last })
	c.to.start()
	c.to.submit(2000, 3) // of another history
	c.before = c.to.toy.position()
	c.b.receive = c.to.node.snapshots.Receive
	c.b.term = func() uint64 { return c.to.node.raft.CurrentTerm() }
	c.answer(func(rpc raft.RPC) bool {
		response, err := c.to.node.transport.raft(rpc.Command, rpc.Reader)
		rpc.Respond(response, err)
		return true
	})
	return c
}

func (c *courier) end() {
	c.close()
	c.from.stop()
	c.to.stop()
}

// snapshot returns one of the sender's state, with Raft's request.
func (c *courier) snapshot() (*raft.InstallSnapshotRequest, io.ReadCloser) {
	c.t.Helper()
	meta, stream, err := c.from.node.snapshots.Open(raftlog.LiveID)
	if err != nil {
		c.t.Fatal(err)
	}
	c.term++
	return &raft.InstallSnapshotRequest{
		RPCHeader: header("a"), SnapshotVersion: 1, Term: c.term, LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: meta.Size,
	}, stream
}

func (c *courier) arriving() *arriving {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.b.arriving
}

// wantHave waits until the receiver has as much of what it is being sent.
func (c *courier) wantHave(have int64) {
	c.t.Helper()
	waitFor(c.t, "it has come", func() bool { in := c.arriving(); return in != nil && in.have.Load() == have })
}

// wantInstalled compares the states.
func (c *courier) wantInstalled() {
	c.t.Helper()
	if got, want := c.to.toy.position(), c.from.toy.position(); got.digest != want.digest || got.index != want.index {
		c.t.Errorf("the receiver is at %+v, the sender at %+v", got, want)
	}
	c.wantNothingLeft()
}

// wantUntouched wants that the receiver is as it was.
func (c *courier) wantUntouched() {
	c.t.Helper()
	if got := c.to.toy.position(); got.digest != c.before.digest || got.index != c.before.index {
		c.t.Errorf("the receiver is at %+v, was at %+v", got, c.before)
	}
	if n := c.to.node.log.Installed(); n != 0 {
		c.t.Errorf("its log has %d installed", n)
	}
	c.wantNothingLeft()
}

func (c *courier) wantNothingLeft() {
	c.t.Helper()
	var names []string
	waitFor(c.t, "nothing unfinished is left", func() bool {
		var err error
		if names, err = c.to.fs.List(c.to.node.cfg.Dir.snapshots()); err != nil {
			c.t.Fatal(err)
		}
		return !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".tmp") })
	})
}

// A snapshot arrives whole, however often its connection breaks, and although none
// lasts for more than a part of it: without going on it never would. What is sent
// twice is little.
func TestSnapshotGoesOn(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		c := newCourier(t)
		request, data := c.snapshot()
		rng := rand.New(rand.NewPCG(seed, 7))
		c.cut.set(func() int { return 1 + rng.IntN(int(request.Size)/3) })
		var r raft.InstallSnapshotResponse
		var err error
		for range 20 { // Raft would try again, too, when nothing has come at all
			if err = c.a.InstallSnapshot("b", "b", request, &r, data); err == nil {
				break
			}
		}
		if err != nil || !r.Success {
			c.end()
			t.Fatalf("seed %d: %+v, %v", seed, r, err)
		}
		cuts, sent := c.cut.cuts.Load(), c.cut.sent.Load()
		t.Logf("seed %d: %d bytes, %d sent, by %d connections that broke", seed, request.Size, sent, cuts)
		if cuts < 4 || c.b.goneOn.Load() < 3 {
			t.Errorf("seed %d: %d connections broke, %d times it went on: nothing is shown", seed, cuts, c.b.goneOn.Load())
		}
		if sent > 3*request.Size {
			t.Errorf("seed %d: %d bytes were sent for %d", seed, sent, request.Size)
		}
		c.wantInstalled()
		if err := data.Close(); err != nil {
			t.Error(err)
		}
		c.end()
	})
}

// A sender that has not heard the answer is told it again, and does not send again.
func TestSnapshotAnsweredTwice(t *testing.T) {
	c := newCourier(t)
	defer c.end()
	request, data := c.snapshot()
	defer data.Close()
	s := &transfer{t: c.a, to: "b", key: 5, request: request, data: data, began: time.Now(), moved: time.Now()}
	var answers [][]byte
	for range 2 {
		body, err := s.attempt()
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, body)
	}
	if !bytes.Equal(answers[0], answers[1]) {
		t.Errorf("answers %x and %x", answers[0], answers[1])
	}
	if sent := c.cut.sent.Load(); sent > request.Size+10_000 {
		t.Errorf("%d bytes were sent for %d", sent, request.Size)
	}
	c.wantInstalled()
}

// Nodes of the last format take and send snapshots in one piece.
func TestSnapshotInOnePiece(t *testing.T) {
	c := newCourier(t)
	defer c.end()
	request, data := c.snapshot()
	defer data.Close()
	s := &transfer{t: c.a, to: "b", request: request, data: data}
	body, err := s.inOnePiece()
	var r raft.InstallSnapshotResponse
	if err == nil {
		err = decodeResponse(body, []byte("b"), &r)
	}
	if err != nil || !r.Success {
		t.Fatalf("%+v, %v", r, err)
	}
	c.wantInstalled()

	// And who hangs up at the head of a transfer is sent one in one piece.
	old := newPair(t)
	defer old.close()
	whole := make(chan int64, 1)
	old.serveBy(func(conn *link.Conn) {
		kind, _, body, err := conn.Read()
		if err != nil || kind != frameSnapshot {
			return
		}
		head, err := decodeSnapshot(body, []byte("a"))
		if err != nil {
			t.Error(err)
			return
		}
		var have int64
		for have < head.Size {
			_, _, piece, err := conn.Read()
			if err != nil {
				t.Error(err)
				return
			}
			have += int64(len(piece))
		}
		whole <- have
		_ = reply(conn, 1, &raft.InstallSnapshotResponse{Term: 3, Success: true}, nil)
	})
	request, again := c.snapshot()
	defer again.Close()
	if err := old.a.InstallSnapshot("b", "b", request, &r, again); err != nil || !r.Success || r.Term != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if have := <-whole; have != request.Size {
		t.Errorf("%d of %d bytes", have, request.Size)
	}
}

// A sender whose data are not what it has announced, who says that they are where
// they are not, or who is cut off: it is told so in a line, Raft never hears of it,
// and nothing is left.
func TestHostileSnapshots(t *testing.T) {
	c := newCourier(t)
	defer c.end()
	request, stream := c.snapshot()
	whole, err := io.ReadAll(stream)
	if err := errors.Join(err, stream.Close()); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	type sender func(conn *link.Conn)
	send := func(data []byte, from int) sender {
		return func(conn *link.Conn) {
			for at := 0; at < len(data); at += chunkBytes {
				if conn.Write(frameChunk, uint64(from+at), data[at:min(at+chunkBytes, len(data))]) != nil {
					return
				}
			}
		}
	}
	claims := func(change func(*raft.InstallSnapshotRequest)) *raft.InstallSnapshotRequest {
		r := *request
		change(&r)
		return &r
	}
	key := uint64(0)
	for name, test := range map[string]struct {
		head *raft.InstallSnapshotRequest
		send sender
		want string // of the refusal
	}{
		"a flipped bit":               {request, send(damaged, 0), "damaged"},
		"lies where it begins":        {request, send(whole, 1), "0 bytes have come, and this one is at 1"},
		"leaves out a piece":          {request, func(conn *link.Conn) { send(whole[:1000], 0)(conn); send(whole[2000:], 2000)(conn) }, "1000 bytes have come, and this one is at 2000"},
		"says a piece twice":          {request, func(conn *link.Conn) { send(whole[:1000], 0)(conn); send(whole, 0)(conn) }, "1000 bytes have come, and this one is at 0"},
		"an empty piece":              {request, func(conn *link.Conn) { _ = conn.Write(frameChunk, 0) }, "damaged message"},
		"another kind of message":     {request, func(conn *link.Conn) { _ = conn.Write(frameVote, 0, []byte("x")) }, "damaged message"},
		"shorter than announced":      {claims(func(r *raft.InstallSnapshotRequest) { r.Size += 512 }), send(append(bytes.Clone(whole), bytes.Repeat([]byte{1}, 512)...), 0), "damaged"},
		"longer than announced":       {claims(func(r *raft.InstallSnapshotRequest) { r.Size -= 2000 }), send(whole, 0), "damaged"},
		"of another index":            {claims(func(r *raft.InstallSnapshotRequest) { r.LastLogIndex++ }), send(whole, 0), "damaged"},
		"no archive":                  {request, send(bytes.Repeat([]byte("x"), len(whole)), 0), "damaged"},
		"larger than the disk":        {claims(func(r *raft.InstallSnapshotRequest) { r.Size = 1 << 61 }), send(whole[:1000], 0), "make room"},
		"nothing":                     {claims(func(r *raft.InstallSnapshotRequest) { r.Size = 0 }), send(nil, 0), "damaged"},
		"a place that overflows int":  {request, send(whole[:1000], -1), "and this one is at 18446744073709551615"},
		"cut off":                     {request, func(conn *link.Conn) { send(whole[:5000], 0)(conn); c.wantHave(5000) }, ""},
		"cut off before it begins":    {request, func(*link.Conn) { c.wantHave(0) }, ""},
		"in one piece, cut off":       {nil, func(conn *link.Conn) { send(whole[:5000], 0)(conn); c.wantHave(5000) }, ""},
		"in one piece, a flipped bit": {nil, send(damaged, 0), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			key++
			conn, err := c.a.dial("b", planeSnapshot)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if test.head == nil {
				err = conn.Write(frameSnapshot, 1, encodeSnapshot(request))
			} else {
				err = conn.Write(frameTransfer, 1, encodeTransfer(key, test.head))
			}
			if err != nil {
				t.Fatal(err)
			}
			test.send(conn)
			if test.want == "" {
				_ = conn.Close()
				waitFor(t, "nobody feeds it", func() bool {
					c.b.mu.Lock()
					defer c.b.mu.Unlock()
					return c.b.arriving == nil || c.b.arriving.conn == nil
				})
				if in := c.arriving(); in != nil {
					c.b.expire(in) // as it does after a while
				}
			} else {
				if why := refusal(t, conn); !strings.Contains(why, test.want) {
					t.Errorf("refused: %q, want %q", why, test.want)
				}
			}
			c.wantUntouched()
		})
	}
}

// refusal returns why the other end refuses.
func refusal(t *testing.T, conn *link.Conn) string {
	t.Helper()
	for {
		kind, _, body, err := conn.Read()
		switch {
		case err != nil:
			t.Fatalf("no word of why: %v", err)
		case kind == frameFailed:
			return string(body)
		case kind != frameHave:
			t.Fatalf("answered by kind %d", kind)
		}
	}
}

// Of what has come in part there is one at most: another snapshot takes its place,
// unless it is of a leader whose term is over; that one is told so.
func TestOneSnapshotArrives(t *testing.T) {
	c := newCourier(t)
	defer c.end()
	request, stream := c.snapshot()
	whole, err := io.ReadAll(stream)
	if err := errors.Join(err, stream.Close()); err != nil {
		t.Fatal(err)
	}
	part := whole[:len(whole)/3]
	// begin sends a part of a snapshot and returns where it was to go on.
	begin := func(key uint64, r *raft.InstallSnapshotRequest) (conn *link.Conn, have int64) {
		t.Helper()
		conn, err := c.a.dial("b", planeSnapshot)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.Write(frameTransfer, 1, encodeTransfer(key, r)); err != nil {
			t.Fatal(err)
		}
		kind, _, body, err := conn.Read()
		if err != nil || kind != frameHave {
			t.Fatalf("kind %d, %v", kind, err)
		}
		if have, err = decodeHave(body); err != nil {
			t.Fatal(err)
		}
		if have == 0 {
			if err := conn.Write(frameChunk, 0, part); err != nil {
				t.Fatal(err)
			}
			c.wantHave(int64(len(part)))
		}
		return conn, have
	}
	hungUp := func(conn *link.Conn) {
		t.Helper()
		for {
			if kind, _, _, err := conn.Read(); err != nil || kind == frameFailed {
				return
			}
		}
	}
	first, have := begin(1, request)
	if have != 0 {
		t.Fatalf("it has %d bytes of a new one", have)
	}
	// The same again, while the first connection seems to live: it takes over.
	second, have := begin(1, request)
	if have != int64(len(part)) {
		t.Errorf("it goes on at %d of %d", have, len(part))
	}
	hungUp(first)
	for _, other := range []struct {
		name  string
		key   uint64
		index uint64
		term  uint64
	}{
		{"another transfer", 2, request.LastLogIndex, request.Term},
		{"another place", 1, request.LastLogIndex + 1, request.Term},
		{"a later term", 1, request.LastLogIndex, request.Term + 7},
	} {
		name, r := other.name, *request
		r.LastLogIndex, r.Term = other.index, other.term
		next, have := begin(other.key, &r)
		if have != 0 {
			t.Errorf("%s: it has %d bytes of it", name, have)
		}
		hungUp(second)
		second = next
		names, err := c.to.fs.List(c.to.node.cfg.Dir.snapshots())
		if err != nil || len(names) != 1 {
			t.Errorf("%s: in the directory are %q, %v", name, names, err)
		}
		request.Term = r.Term
	}
	stale := *request
	stale.Term--
	var r raft.InstallSnapshotResponse
	if err := c.a.InstallSnapshot("b", "b", &stale, &r, bytes.NewReader(whole)); err != nil || r.Success || r.Term != request.Term {
		t.Errorf("a leader whose term is over: %+v, %v", r, err)
	}
	_ = second.Close()
}

// A sender gives up when the receiver makes no headway, and when it does not lead
// any more; it believes no receiver that has more than there is.
func TestSnapshotIsGivenUp(t *testing.T) {
	p := newPair(t)
	defer p.close()
	have := binary.AppendUvarint(nil, 10)
	p.serveBy(func(conn *link.Conn) { // it has something, and hangs up
		_, _, _, _ = conn.Read()
		_ = conn.Write(frameHave, 1, have)
		_, _, _, _ = conn.Read()
	})
	var clock atomic.Int64
	p.a.now = func() time.Time { return time.Unix(clock.Add(10), 0) }
	request := &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 4, LastLogIndex: 9, LastLogTerm: 3, Size: 100}
	var r raft.InstallSnapshotResponse
	send := func() error {
		return p.a.InstallSnapshot("b", "b", request, &r, &endless{})
	}
	if err := send(); err == nil || !strings.Contains(err.Error(), "no headway") {
		t.Errorf("no headway: %v", err)
	}
	p.a.leads = func(uint64) bool { return false }
	if err := send(); !errors.Is(err, errGivenUp) {
		t.Errorf("no leader any more: %v", err)
	}
	have = binary.AppendUvarint(nil, 101)
	if err := send(); err == nil || !strings.Contains(err.Error(), "it has 101 of 100 bytes") {
		t.Errorf("more than there is: %v", err)
	}
}

// endless has bytes without end, at every place.
type endless struct{}

func (*endless) Read(b []byte) (int, error) { return len(b), nil }
func (*endless) Rewind(int64) error         { return nil }
