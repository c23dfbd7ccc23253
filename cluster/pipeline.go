package cluster

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pipelineBytes is how much of entries may be under way to a node before the next
// message waits. One message may be larger.
const pipelineBytes = 16 << 20

// pipelineMessages is how many messages may be under way to a node. Many have no
// entries: while Raft hands the leadership over to a node that lacks some, it sends
// one after the other, without a pause, until the first is answered; and a node
// that is cut off answers none.
const pipelineMessages = 128

var errPipelineOver = errors.New("the pipeline has ended")

// A pipeline sends entries to one node without waiting for each answer.
//
// Raft stops reading answers at the first that is not a success, and may at that
// moment be about to send: with its own transport, sender and reader then wait for
// each other for ever, and no entry reaches the follower again while heartbeats do
// (trap 1). Here the first answer that is not a success ends the pipeline: nothing
// waits on one that has ended, and Raft starts anew with the next entry that the
// follower needs.
type pipeline struct {
	c       *caller
	s       *session
	results chan raft.AppendFuture
	over    chan struct{} // closed when the pipeline has ended

	mu       sync.Mutex // guards the following
	flying   []*appended
	bytes    int
	room     chan struct{} // closed when less is flying; nil if nobody waits
	ended    bool
	draining bool // one goroutine hands out results
}

// An appended is a message with entries under way.
type appended struct {
	start    time.Time
	request  *raft.AppendEntriesRequest
	response *raft.AppendEntriesResponse
	size     int
	done     bool
	err      error
	ready    chan struct{}
}

// Error is Raft's. It waits.
func (a *appended) Error() error {
	<-a.ready
	return a.err
}

// Start is Raft's.
func (a *appended) Start() time.Time { return a.start }

// Request is Raft's.
func (a *appended) Request() *raft.AppendEntriesRequest { return a.request }

// Response is Raft's.
func (a *appended) Response() *raft.AppendEntriesResponse { return a.response }

// AppendEntriesPipeline is Raft's.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	c := t.caller(id, planeLog)
	s, err := c.connect(t.patient, nil)
	if err != nil {
		return nil, err
	}
	return &pipeline{c: c, s: s, results: make(chan raft.AppendFuture), over: make(chan struct{})}, nil
}

// AppendEntries is Raft's. It waits while too much is under way.
func (p *pipeline) AppendEntries(a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f := &appended{start: p.c.t.now(), request: a, response: r, ready: make(chan struct{})}
	for _, e := range a.Entries {
		f.size += len(e.Data)
	}
	if !p.enter(f) {
		return nil, errPipelineOver
	}
	err := p.c.send(p.s, frameAppend, encodeAppend(a), func(kind byte, body []byte, err error) {
		if err == nil && kind != frameReply {
			err = errFrame
		}
		if err == nil {
			err = decodeResponse(body, []byte(p.c.id), r)
		}
		if err == nil {
			p.c.t.noteAppended(raft.ServerID(p.c.id), a, r)
		}
		p.land(f, err)
	})
	if err != nil {
		p.land(f, err)
		return nil, err
	}
	return f, nil
}

// enter takes f up, once there is room for its entries and for itself. It says no when the pipeline has ended.
func (p *pipeline) enter(f *appended) bool {
	for {
		p.mu.Lock()
		switch {
		case p.ended:
			p.mu.Unlock()
			return false
		case len(p.flying) < pipelineMessages && (p.bytes == 0 || p.bytes+f.size <= pipelineBytes):
			p.flying = append(p.flying, f)
			p.bytes += f.size
			p.mu.Unlock()
			return true
		}
		if p.room == nil {
			p.room = make(chan struct{})
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-p.over:
		}
	}
}

// land notes what became of f. Answers come in order; so results are handed out in
// order, by one goroutine at a time, and by none that anybody waits for.
func (p *pipeline) land(f *appended, err error) {
	p.mu.Lock()
	if err != nil {
		*f.response = raft.AppendEntriesResponse{} // no success
	}
	f.done, f.err = true, err
	close(f.ready)
	if p.draining || p.ended {
		p.mu.Unlock()
		return
	}
	p.draining = true
	p.mu.Unlock()
	p.c.t.tasks.Go(p.drain)
}

// lagging says whether the node that was sent f lacks more: Raft puts no more into
// one message.
func (f *appended) lagging() bool { return len(f.request.Entries) >= maxAppendEntries }

// retire has Raft leave the pipeline when the last message was answered, and the node
// lacks more. Raft sends a message in a pipeline when something is new, or after
// CommitTimeout, and none because a node still lacks entries: with nothing new, one
// that lags would catch up by 64 entries a second, if that. Outside of a pipeline
// Raft sends all that is lacking, one message after the other, and then makes the
// next pipeline.
func (p *pipeline) retire() {
	over := &appended{
		start: p.c.t.now(), request: &raft.AppendEntriesRequest{}, response: &raft.AppendEntriesResponse{},
		ready: make(chan struct{}),
	}
	close(over.ready)
	select {
	case p.results <- over: // it is no success
	case <-p.over:
	}
	p.end()
}

// drain hands out what has landed.
func (p *pipeline) drain() {
	for {
		p.mu.Lock()
		if p.ended || len(p.flying) == 0 || !p.flying[0].done {
			p.draining = false
			p.mu.Unlock()
			return
		}
		f := p.flying[0]
		p.flying = p.flying[1:]
		p.bytes -= f.size
		if p.room != nil {
			close(p.room)
			p.room = nil
		}
		last := len(p.flying) == 0
		p.mu.Unlock()
		success := f.response.Success
		select {
		case p.results <- f:
		case <-p.over:
			return
		}
		if !success {
			p.end()
			return
		}
		if last && f.lagging() {
			p.retire()
			return
		}
	}
}

// Consumer is Raft's.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.results }

// Close is Raft's. What is under way is forgotten.
func (p *pipeline) Close() error {
	p.end()
	return nil
}

func (p *pipeline) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.flying, p.bytes = nil, 0
		close(p.over)
	}
}
