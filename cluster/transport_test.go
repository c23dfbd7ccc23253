package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/bellwire/bellwire/cluster/link"
)

const testVersion = 3

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: testVersion, ID: []byte(id), Addr: []byte(id)}
}

// A pair is two transports that are connected: a asks, and the test answers for b.
type pair struct {
	a, b   *transport
	cut    *cutter                          // of what they dial
	served atomic.Pointer[func(*link.Conn)] // by b, in place of its transport; nil for that
	close  func()
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{cut: &cutter{}}
	logger := slog.New(slog.DiscardHandler)
	var meshes [2]*link.Mesh
	var transports [2]*transport
	var members [2]link.Member
	var listeners [2]net.Listener
	for i, id := range []string{"a", "b"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
		members[i] = link.Member{ID: id, Name: id, Address: l.Addr().String(), Since: 1}
	}
	for i, id := range []raft.ServerID{"a", "b"} {
		transports[i] = newTransport(id, 10*time.Second, time.Now, func(to string, plane link.Plane) (*link.Conn, error) {
			return meshes[i].Dial(t.Context(), to, plane)
		})
		serve := transports[i].serve
		if id == "b" {
			serve = p.serve
		}
		meshes[i] = link.New(link.Config{
			Cluster: "c", Self: members[i], Book: link.NewBook(members[:], nil), Listener: listeners[i], Dial: p.cut.dial,
			Admit: func(link.Member) error { return nil }, Serve: serve, Logger: logger, Now: time.Now,
		})
	}
	p.a, p.b = transports[0], transports[1]
	p.close = func() {
		for i := range meshes {
			transports[i].stop()
			if err := errors.Join(meshes[i].Close(), transports[i].Close()); err != nil {
				t.Error(err)
			}
		}
	}
	return p
}

func (p *pair) serve(c *link.Conn) {
	if f := p.served.Load(); f != nil {
		(*f)(c)
		return
	}
	p.b.serve(c)
}

// serveBy has f serve what b is dialled by.
func (p *pair) serveBy(f func(*link.Conn)) { p.served.Store(&f) }

// answer answers b's requests until it returns false.
func (p *pair) answer(f func(rpc raft.RPC) bool) {
	go func() {
		for {
			select {
			case rpc := <-p.b.rpcs:
				if !f(rpc) {
					return
				}
			case <-p.b.done:
				return
			}
		}
	}()
}

// What Raft asks arrives as it was, and so does what it is answered.
func TestMessages(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p := newPair(t)
	defer p.close()
	logs := []*raft.Log{
		{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("data")},
		{Index: 8, Term: 3, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{1}, 300<<10), Extensions: []byte("ext")},
		{Index: 9, Term: 4, Type: raft.LogNoop},
	}
	vote := &raft.RequestVoteRequest{RPCHeader: header("a"), Term: 5, LastLogIndex: 9, LastLogTerm: 4, LeadershipTransfer: true}
	pre := &raft.RequestPreVoteRequest{RPCHeader: header("a"), Term: 6, LastLogIndex: 9, LastLogTerm: 4}
	beat := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 5, Entries: []*raft.Log{}}
	entries := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 5, PrevLogEntry: 6, PrevLogTerm: 3, Entries: logs, LeaderCommitIndex: 5}
	now := &raft.TimeoutNowRequest{RPCHeader: header("a")}
	responses := map[any]any{
		vote:    &raft.RequestVoteResponse{RPCHeader: header("b"), Term: 5, Granted: true},
		pre:     &raft.RequestPreVoteResponse{RPCHeader: header("b"), Term: 7, Granted: false},
		beat:    &raft.AppendEntriesResponse{RPCHeader: header("b"), Term: 5, LastLog: 6, Success: true},
		entries: &raft.AppendEntriesResponse{RPCHeader: header("b"), Term: 5, LastLog: 9, Success: false, NoRetryBackoff: true},
		now:     &raft.TimeoutNowResponse{RPCHeader: header("b")},
	}
	p.answer(func(rpc raft.RPC) bool {
		for request, response := range responses {
			if reflect.DeepEqual(request, rpc.Command) {
				rpc.Respond(response, nil)
				return true
			}
		}
		t.Errorf("asked %+v", rpc.Command)
		rpc.Respond(nil, errors.New("no such request"))
		return true
	})
	check := func(request, got any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, responses[request]) {
			t.Errorf("%T is answered %+v, %v", request, got, err)
		}
	}
	var v raft.RequestVoteResponse
	check(vote, &v, p.a.RequestVote("b", "b", vote, &v))
	var pv raft.RequestPreVoteResponse
	check(pre, &pv, p.a.RequestPreVote("b", "b", pre, &pv))
	var r raft.AppendEntriesResponse
	check(beat, &r, p.a.AppendEntries("b", "b", beat, &r))
	var e raft.AppendEntriesResponse
	check(entries, &e, p.a.AppendEntries("b", "b", entries, &e))
	var n raft.TimeoutNowResponse
	check(now, &n, p.a.TimeoutNow("b", "b", now, &n))
}

// What the other's Raft refuses is an error here, and the connection is kept.
func TestRefusalOfRaft(t *testing.T) {
	p := newPair(t)
	defer p.close()
	p.answer(func(rpc raft.RPC) bool { rpc.Respond(nil, errors.New("not now")); return true })
	for range 3 {
		err := p.a.RequestVote("b", "b", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
		if err == nil || err.Error() != "node b: not now" {
			t.Fatal(err)
		}
	}
}

// Trap 1: a refusal while others are under way must not leave sender and reader
// waiting for each other. Raft reads no further than the first refusal, and may be
// sending at that moment.
func TestTrap1PipelineEndsWithARefusal(t *testing.T) {
	p := newPair(t)
	defer p.close()
	p.answer(func(rpc raft.RPC) bool {
		refused := rpc.Command.(*raft.AppendEntriesRequest).Entries[0].Index == 4
		rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: header("b"), Term: 1, Success: !refused}, nil)
		return true
	})
	for range 3 { // and it can be done anew
		line, err := p.a.AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan int)
		go func() { // as pipelineReplicate does: until an error
			for i := 0; ; i++ {
				a := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: []*raft.Log{{Index: uint64(i), Data: make([]byte, 1<<20)}}}
				if _, err := line.AppendEntries(a, new(raft.AppendEntriesResponse)); err != nil {
					sent <- i
					return
				}
			}
		}()
		for i := 0; ; i++ { // as pipelineDecode does: until a refusal
			if f := <-line.Consumer(); !f.Response().Success {
				if i != 4 {
					t.Errorf("answer %d was the refusal", i)
				}
				break
			}
		}
		if got := <-sent; got < 5 {
			t.Errorf("only %d were sent", got)
		}
		if err := line.Close(); err != nil {
			t.Error(err)
		}
	}
}

// When the connection ends, whoever reads the pipeline is told at once, by an
// answer that is no success.
func TestPipelineOfALostConnection(t *testing.T) {
	p := newPair(t)
	defer p.close()
	p.answer(func(raft.RPC) bool { return true }) // never answers
	line, err := p.a.AppendEntriesPipeline("b", "b")
	if err != nil {
		t.Fatal(err)
	}
	a := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: []*raft.Log{{Index: 1}}}
	f, err := line.AppendEntries(a, new(raft.AppendEntriesResponse))
	if err != nil {
		t.Fatal(err)
	}
	p.a.caller("b", planeLog).drop(errTimeout)
	if got := <-line.Consumer(); got != f || got.Response().Success || got.Error() == nil {
		t.Errorf("%+v, %v", got.Response(), got.Error())
	}
	if err := line.Close(); err != nil {
		t.Error(err)
	}
}

// What is under way to one node is bounded in bytes.
func TestTrap11PipelineIsBounded(t *testing.T) {
	p := newPair(t)
	defer p.close()
	gate := make(chan struct{})
	p.answer(func(rpc raft.RPC) bool { // as a slow disk would
		go func() {
			<-gate
			rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: header("b"), Term: 1, Success: true}, nil)
		}()
		return true
	})
	made, err := p.a.AppendEntriesPipeline("b", "b")
	if err != nil {
		t.Fatal(err)
	}
	line := made.(*pipeline)
	const count = 40
	go func() {
		for i := range count {
			a := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: []*raft.Log{{Index: uint64(i), Data: make([]byte, 1<<20)}}}
			if _, err := line.AppendEntries(a, new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
		}
	}()
	waitFor(t, "the sender waits", func() bool { line.mu.Lock(); defer line.mu.Unlock(); return line.room != nil })
	if line.mu.Lock(); line.bytes > pipelineBytes {
		t.Errorf("%d bytes are under way", line.bytes)
	}
	line.mu.Unlock()
	close(gate)
	for range count {
		<-line.Consumer()
	}
	if err := line.Close(); err != nil {
		t.Error(err)
	}
}

// Whatever another node sends as a message, reading it ends without a panic.
func FuzzMessages(f *testing.F) {
	join := func(parts [][]byte) []byte { return bytes.Join(parts, nil) }
	f.Add(frameAppend, join(encodeAppend(&raft.AppendEntriesRequest{Term: 1, Entries: []*raft.Log{{Index: 1, Data: []byte("x")}}})))
	f.Add(frameVote, encodeVote(&raft.RequestVoteRequest{Term: 9}))
	f.Add(frameTimeout, encodeTimeout(&raft.TimeoutNowRequest{}))
	f.Add(frameSnapshot, encodeSnapshot(&raft.InstallSnapshotRequest{Size: 1 << 40, Configuration: []byte("c")}))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		if a, err := decodeAppend(b, nil); err == nil && kind == frameAppend {
			again, err := decodeAppend(join(encodeAppend(a)), nil)
			if err != nil || !reflect.DeepEqual(a, again) {
				t.Errorf("%+v became %+v, %v", a, again, err)
			}
		}
		_, _ = decodeRequest(kind, b, nil)
		_, _ = decodeSnapshot(b, nil)
		for _, r := range []any{new(raft.AppendEntriesResponse), new(raft.RequestVoteResponse), new(raft.InstallSnapshotResponse)} {
			_ = decodeResponse(b, nil, r)
		}
	})
}
