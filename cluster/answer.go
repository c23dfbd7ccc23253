package cluster

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// answersAhead is how many messages of one connection may wait for Raft. The
// connection is not read beyond.
const answersAhead = 64

// serve answers what another node's Raft asks on one connection.
func (t *transport) serve(c *link.Conn) {
	switch c.Plane {
	case planeControl:
		t.serveControl(c)
	case planeLog:
		t.serveLog(c)
	case planeSnapshot:
		t.serveSnapshot(c)
	}
}

// raft has this node's Raft answer a request.
func (t *transport) raft(command any, data io.Reader) (any, error) {
	answer := make(chan raft.RPCResponse, 1)
	if err := t.hand(raft.RPC{Command: command, Reader: data, RespChan: answer}); err != nil {
		return nil, err
	}
	return t.await(answer)
}

func (t *transport) hand(rpc raft.RPC) error {
	select {
	case t.rpcs <- rpc:
		return nil
	case <-t.done:
		return errTransportClosed
	}
}

func (t *transport) await(answer <-chan raft.RPCResponse) (any, error) {
	select {
	case r := <-answer:
		return r.Response, r.Error
	case <-t.done:
		return nil, errTransportClosed
	}
}

// reply writes a response, unless nobody wants it.
func reply(c *link.Conn, id uint64, response any, err error) error {
	if id == untold {
		return nil
	}
	if err != nil {
		return c.Write(frameFailed, id, []byte(err.Error()))
	}
	body, err := encodeResponse(response)
	if err != nil {
		return err
	}
	return c.Write(frameReply, id, body)
}

// serveControl answers one after the other: each is short.
func (t *transport) serveControl(c *link.Conn) {
	for {
		kind, id, body, err := c.Read()
		if err != nil {
			return
		}
		command, err := decodeRequest(kind, body, []byte(c.Peer.ID))
		if err != nil {
			return
		}
		var response any
		if a, ok := command.(*raft.AppendEntriesRequest); ok && isHeartbeat(a) {
			response, err = t.heartbeat(a)
		} else {
			response, err = t.raft(command, nil)
		}
		if reply(c, id, response, err) != nil {
			return
		}
	}
}

func decodeRequest(kind byte, body, from []byte) (any, error) {
	switch kind {
	case frameAppend:
		return decodeAppend(body, from)
	case frameVote:
		return decodeVote(body, from)
	case framePreVote:
		return decodePreVote(body, from)
	case frameTimeout:
		return decodeTimeout(body, from)
	}
	return nil, fmt.Errorf("%w: kind %d", errFrame, kind)
}

// serveLog hands messages to Raft as they come, and answers them in order.
func (t *transport) serveLog(c *link.Conn) {
	type asked struct {
		id     uint64
		answer chan raft.RPCResponse
	}
	waiting := make(chan asked, answersAhead)
	defer close(waiting)
	t.tasks.Go(func() {
		broken := false
		for a := range waiting {
			response, err := t.await(a.answer)
			if broken = broken || reply(c, a.id, response, err) != nil; broken {
				_ = c.Close() // the reader ends, too
			}
		}
	})
	for {
		kind, id, body, err := c.Read()
		if err != nil || kind != frameAppend {
			return
		}
		a, err := decodeAppend(body, []byte(c.Peer.ID))
		if err != nil {
			return
		}
		answer := make(chan raft.RPCResponse, 1)
		if t.hand(raft.RPC{Command: a, RespChan: answer}) != nil {
			return
		}
		waiting <- asked{id, answer}
	}
}
