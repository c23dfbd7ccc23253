package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// Frames of planeForward and planeAsk, beside replies.
const (
	frameBatch byte = 32 // a batch for the log; the reply is one of the outcomes
	frameAsk   byte = 33 // a question, JSON; the reply is an answer, JSON
)

// What became of a batch that was forwarded.
const (
	outcomeApplied byte = iota
	outcomeNoCommit
	outcomeBusy
	outcomeUnknown
	outcomeTooLarge
)

// A question is what one node asks another.
type question struct {
	Op     string       `json:"op"`
	Member *link.Member `json:"member,omitempty"` // opJoin: who
	ID     string       `json:"id,omitempty"`     // of the node that is meant
	Force  bool         `json:"force,omitempty"`
	Body   []byte       `json:"body,omitempty"` // opProgram: what is asked
	Hops   int          `json:"hops,omitempty"` // how often it was passed on

	Knows Level  `json:"knows,omitempty"` // opJoin: the newest level that Member knows
	By    string `json:"by,omitempty"`    // opRemove, opRemoved: who removes it, for people
	Index uint64 `json:"index,omitempty"` // opRemoved: of the configuration without it

	from link.Member // who asks
}

const (
	opJoin     = "join"     // take Member in; of any member
	opIndex    = "index"    // what has the leader applied? of the leader
	opRemove   = "remove"   // of any member, as the following
	opPromote  = "promote"  //
	opTransfer = "transfer" // make node ID leader; empty for any
	opState    = "state"    // how is the node that is asked?
	opProgram  = "program"  // something that the node's program answers
	opHears    = "hears"    // does it hear node ID?
	opRemoved  = "removed"  // the node that is asked was removed
)

// A response is what a node answers.
type response struct {
	Error   string        `json:"error,omitempty"`
	Final   bool          `json:"final,omitempty"`   // asking again changes nothing
	Index   uint64        `json:"index,omitempty"`   // opJoin: at which the node is a member
	Members []link.Member `json:"members,omitempty"` // opJoin, opState: where they are
	State   *State        `json:"state,omitempty"`
	Body    []byte        `json:"body,omitempty"`
	Hears   bool          `json:"hears,omitempty"`
	Called  string        `json:"called,omitempty"` // the cluster
}

// askTime is how long an answer may take.
const askTime = 10 * time.Second

// maxQuestions is how many questions of one connection are answered at once. It is
// not read beyond.
const maxQuestions = 8

func readAnswer(kind byte, body []byte) (*response, error) {
	if kind != frameReply {
		return nil, errors.New(string(body))
	}
	a := new(response)
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return a, nil
}

// ask asks a node.
func (n *Node) ask(id string, q question, patience time.Duration) (*response, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	body, err = n.transport.caller(raft.ServerID(id), planeAsk).call(patience, patience, frameAsk, [][]byte{body})
	if err != nil {
		return nil, err
	}
	return readAnswer(frameReply, body)
}

// Ask asks the program of another member, by id, and returns what its Config.Answer
// does. An error that is ErrRefused came from there; any other means that it is not
// known whether it was asked.
func (n *Node) Ask(id string, body []byte, patience time.Duration) ([]byte, error) {
	if n.links == nil || id == string(n.id) {
		return nil, fmt.Errorf("%w: this node is alone, or asks itself", ErrRefused)
	}
	a, err := n.ask(id, question{Op: opProgram, Body: body}, patience)
	if err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%w: %s", ErrRefused, a.Error)
	}
	return a.Body, nil
}

// serveForward answers batches and questions of another node.
func (n *Node) serveForward(c *link.Conn) {
	slots := make(chan struct{}, maxQuestions)
	member := n.links.admit(c.Peer) == nil // or somebody who wants to be one
	for {
		kind, id, body, err := c.Read()
		switch {
		case err != nil:
			return
		case kind == frameBatch && member:
			n.proposer.submitFor(body, func(err error) {
				_ = c.Write(frameReply, id, []byte{outcomeCode(err)}) // the connection is gone: so they learn by that
			})
		case kind == frameAsk:
			var q question
			if json.Unmarshal(body, &q) != nil || !member && q.Op != opJoin {
				return
			}
			q.from = c.Peer
			select {
			case slots <- struct{}{}:
			case <-n.leaving:
				return
			}
			n.tasks.Go(func() {
				defer func() { <-slots }()
				_ = n.reply(c, id, n.answer(q))
			})
		default:
			return
		}
	}
}

func (n *Node) reply(c *link.Conn, id uint64, a *response) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return c.Write(frameReply, id, body)
}

func outcomeCode(err error) byte {
	switch {
	case err == nil:
		return outcomeApplied
	case errors.Is(err, ErrTooLarge):
		return outcomeTooLarge
	case errors.Is(err, ErrBusy):
		return outcomeBusy
	case errors.Is(err, ErrNoCommit):
		return outcomeNoCommit
	}
	return outcomeUnknown
}

// outcomeError is the inverse of outcomeCode.
func outcomeError(code byte) error {
	switch code {
	case outcomeApplied:
		return nil
	case outcomeTooLarge:
		return ErrTooLarge
	case outcomeBusy:
		return ErrBusy
	case outcomeNoCommit:
		return ErrNoCommit
	}
	return ErrUnknown
}

// answer answers a question.
func (n *Node) answer(q question) *response {
	var a response
	var err error
	switch q.Op {
	case opState:
		s := n.State()
		a.State, a.Members = &s, n.addresses()
	case opProgram:
		if n.cfg.Answer == nil {
			err = ErrRefused
			break
		}
		a.Body, err = n.cfg.Answer(q.Body)
	case opHears:
		a.Hears, a.Index, err = n.hears(q.ID)
	case opIndex:
		if !n.proposer.isOpen() {
			err = errNotLeader
		}
		a.Index = n.Applied()
	case opRemoved:
		err = n.removedBy(q)
	case opJoin, opRemove, opPromote, opTransfer:
		return n.manage(q)
	default:
		err = fmt.Errorf("%w: question %q: upgrade this node", ErrRefused, q.Op)
	}
	a.fail(err)
	return &a
}

func (a *response) fail(err error) {
	if err != nil {
		// ErrRefused is said by Final; whoever asked says it once.
		a.Error, a.Final = strings.TrimPrefix(err.Error(), ErrRefused.Error()+": "), errors.Is(err, ErrRefused)
	}
}

func (a *response) err() error {
	switch {
	case a.Error == "":
		return nil
	case a.Final:
		return fmt.Errorf("%w: %s", ErrRefused, a.Error)
	}
	return errors.New(a.Error)
}

// manage changes the membership, or has the leader do it.
func (n *Node) manage(q question) *response {
	if n.proposer.isOpen() {
		return n.lead(q)
	}
	_, leader := n.raft.LeaderWithID()
	if leader == "" || leader == n.id || q.Hops > 2 {
		a := new(response)
		a.fail(errNotLeader)
		return a
	}
	q.Hops++
	a, err := n.ask(string(leader), q, askTime)
	if err != nil {
		a = new(response)
		a.fail(err)
	}
	return a
}

// electionTime is how long a change of the membership waits for a leader.
const electionTime = 5 * time.Second

// request has the leader make a change, whoever that is by then: a node that is to
// leave hands its leadership over first. ctx ends the waiting for a leader.
func (n *Node) request(ctx context.Context, q question) error {
	if n.links == nil {
		return fmt.Errorf("%w: this node is alone: it was started without --cluster", ErrRefused)
	}
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errNotLeader, err)
		}
		a := n.manage(q)
		if a.Error != errNotLeader.Error() {
			return a.err()
		}
		select {
		case <-ctx.Done():
			return errNotLeader
		case <-n.leaving:
			return errTransportClosed
		case <-time.After(50 * time.Millisecond):
		}
	}
}
