package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/cluster"
)

// States of nodes are compared at one index while they change: the node that is
// asked picks an index that nobody has reached, has each node hash its state when it
// gets there (broker.Machine.DigestFrom), sees to it that they do, and collects.

// A nodeQuestion is what the program of one node asks that of another.
type nodeQuestion struct {
	Op   string `json:"op"`
	From uint64 `json:"from,omitempty"` // opHash, opHashed: see digests
	ID   string `json:"id,omitempty"`   // opDenied

	Shadow *shadowQuestion `json:"shadow,omitempty"` // opShadow
}

const (
	opHash   = "hash"   // hash the state after the first entry from From on
	opHashed = "hashed" // what came of it?
	opDrain  = "drain"  // go out of service: see drain
	opResume = "resume"
	opDenied = "denied" // what is known of a refusal

	opShadow    = "shadow"     // begin to try a policy: see shadow
	opShadowed  = "shadowed"   // what has it shown?
	opShadowEnd = "shadow-end" // the same, and end it

	opBridges = "bridges" // how are the bridges?
)

// A nodeAnswer answers it.
type nodeAnswer struct {
	Begun  bool   `json:"begun,omitempty"` // opHash: it will; else From has been passed
	Done   bool   `json:"done,omitempty"`  // opHashed, and then:
	Index  uint64 `json:"index,omitempty"`
	Digest uint64 `json:"digest,omitempty"`

	Denied *api.Denial `json:"denied,omitempty"` // opDenied: nil if nothing is known
	Shadow *api.Shadow `json:"shadow,omitempty"` // opShadowed, opShadowEnd: nil if there is none

	Bridges []api.Bridge `json:"bridges,omitempty"` // opBridges
}

// digests keeps what came of the newest opHash.
type digests struct {
	mu            sync.Mutex // guards the following
	from          uint64
	index, digest uint64 // 0 until it is done
}

func (d *digests) begin(from uint64, hash func(from uint64, done func(index, digest uint64)) bool) bool {
	d.mu.Lock()
	d.from, d.index, d.digest = from, 0, 0
	d.mu.Unlock()
	return hash(from, func(index, digest uint64) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.from == from {
			d.index, d.digest = index, digest
		}
	})
}

func (d *digests) result(from uint64) nodeAnswer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return nodeAnswer{Done: d.from == from && d.index > 0, Index: d.index, Digest: d.digest}
}

// answer answers another node's program. It does not block, but to parse a policy.
func (s *server) answer(text []byte) ([]byte, error) {
	var q nodeQuestion
	if err := json.Unmarshal(text, &q); err != nil {
		return nil, err
	}
	var a nodeAnswer
	switch q.Op {
	case opHash:
		a.Begun = s.digests.begin(q.From, s.broker.Machine().DigestFrom)
	case opHashed:
		a = s.digests.result(q.From)
	case opDenied:
		a.Denied = s.deniedHere(q.ID)
	case opShadow:
		if s.serving.Load() == nil || q.Shadow == nil {
			return nil, errors.New("it is being started")
		}
		if err := s.beginShadow(q.Shadow); err != nil {
			return nil, err
		}
	case opShadowed, opShadowEnd:
		if is := s.shadows.now.Load(); is != nil {
			report := is.report()
			a.Shadow = &report
		}
		if q.Op == opShadowEnd {
			s.shadows.stop(nil)
		}
	case opBridges:
		if s.serving.Load() == nil {
			return nil, errors.New("it is being started")
		}
		a.Bridges = bridgeStates{s}.here()
	case opDrain, opResume:
		if s.serving.Load() == nil {
			return nil, errors.New("it is being started")
		}
		if q.Op == opDrain {
			s.beginDrain()
		} else {
			s.resume()
		}
	default:
		return nil, fmt.Errorf("%q is not known to this version: upgrade this node", q.Op)
	}
	return json.Marshal(a)
}

// ask asks the program of a node, this one's too.
func (m membership) ask(node cluster.Member, q nodeQuestion) (a nodeAnswer, err error) {
	return m.askFor(node, q, statePatience)
}

// askFor is ask with as much patience.
func (m membership) askFor(node cluster.Member, q nodeQuestion, patience time.Duration) (a nodeAnswer, err error) {
	text, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	if node.Self {
		text, err = m.s.answer(text)
	} else {
		text, err = m.s.node.Ask(node.ID, text, patience)
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

// Verify implements api.Cluster.
func (m membership) Verify(ctx context.Context) (api.Verification, error) {
	members := m.s.node.Members(statePatience)
	from, faults, err := m.beginToHash(ctx, members)
	if err != nil {
		return api.Verification{}, err
	}
	for m.s.node.Applied() < from {
		if err := m.s.broker.Advance(ctx); err != nil {
			return api.Verification{}, fmt.Errorf("%w: %w", api.ErrNoLeader, err)
		}
	}
	v := api.Verification{Equal: true, Nodes: make([]api.Digest, len(members))}
	for i, node := range members {
		d := &v.Nodes[i]
		d.Node = node.Name
		if err := faults[i]; err != nil {
			d.Error = err.Error()
		} else if a, err := m.collect(ctx, node, from); err != nil {
			d.Error = err.Error()
		} else {
			d.Index, d.Digest = a.Index, fmt.Sprintf("%016x", a.Digest)
		}
	}
	v.Equal = equal(v.Nodes)
	return v, nil
}

// mostTries bounds how often another index is picked because one has been passed.
const mostTries = 12

// beginToHash has all nodes hash their states from an index on, which it returns.
// faults says why one of them does not.
func (m membership) beginToHash(ctx context.Context, members []cluster.Member) (from uint64, faults []error, err error) {
	ahead := uint64(1)
	for range mostTries {
		from = m.s.node.State().Last + ahead
		faults = make([]error, len(members))
		passed := false
		for i, node := range members {
			if !node.Reachable {
				faults[i] = errors.New("it does not answer")
				continue
			}
			a, err := m.ask(node, nodeQuestion{Op: opHash, From: from})
			if err != nil {
				faults[i] = err
				continue
			}
			passed = passed || !a.Begun
		}
		if !passed {
			return from, faults, ctx.Err()
		}
		ahead *= 2 // entries come faster than nodes can be asked
	}
	return 0, nil, fmt.Errorf("%w: entries come too fast for the nodes to be asked in between", api.ErrConflict)
}

// collect asks a node for its digest until it has it.
func (m membership) collect(ctx context.Context, node cluster.Member, from uint64) (nodeAnswer, error) {
	for {
		a, err := m.ask(node, nodeQuestion{Op: opHashed, From: from})
		if err != nil || a.Done {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, errors.New("it has not hashed its state in time: it lags behind, or there is very much of it")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// equal says whether all nodes have a digest, of one index, and the same.
func equal(nodes []api.Digest) bool {
	for _, d := range nodes {
		if d.Digest == "" || d.Index != nodes[0].Index || d.Digest != nodes[0].Digest {
			return false
		}
	}
	return true
}
