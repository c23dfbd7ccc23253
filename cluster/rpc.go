package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/hashicorp/raft"
)

// Raft's messages between nodes, in frames of cluster/link. A request's frame has
// its kind and an id that is unique on the connection; the response has the same
// id. Who sends it is known of the connection, and left out.
const (
	frameAppend   byte = 1 // entries, or a heartbeat
	frameVote     byte = 2
	framePreVote  byte = 3
	frameTimeout  byte = 4 // stand for election now
	frameSnapshot byte = 5 // head of a snapshot that is sent in one piece; frameChunk follows
	frameChunk    byte = 6 // its id is the place in the snapshot, if that is a transfer
	frameTransfer byte = 7 // head of a snapshot that goes on after a break: see transfer
	frameHave     byte = 8 // how much of it has come

	frameReply  byte = 16 // body: the response
	frameFailed byte = 17 // body: why there is none
)

// untold is the id of a request to which nobody wants the response.
const untold = 0

var errFrame = errors.New("damaged message")

// encodeAppend returns the body of a, in parts: the data of entries is not copied.
func encodeAppend(a *raft.AppendEntriesRequest) [][]byte {
	size := 6 * binary.MaxVarintLen64
	for _, e := range a.Entries {
		size += 4*binary.MaxVarintLen64 + 1 + len(e.Extensions)
	}
	b := make([]byte, 0, size) // never grows: the parts are pieces of it
	b = binary.AppendUvarint(b, uint64(a.ProtocolVersion))
	b = binary.AppendUvarint(b, a.Term)
	b = binary.AppendUvarint(b, a.PrevLogEntry)
	b = binary.AppendUvarint(b, a.PrevLogTerm)
	b = binary.AppendUvarint(b, a.LeaderCommitIndex)
	b = binary.AppendUvarint(b, uint64(len(a.Entries)))
	parts := make([][]byte, 0, 1+2*len(a.Entries))
	from := 0
	for _, e := range a.Entries {
		b = binary.AppendUvarint(b, e.Index)
		b = binary.AppendUvarint(b, e.Term)
		b = append(b, byte(e.Type))
		b = binary.AppendUvarint(b, uint64(len(e.Extensions)))
		b = append(b, e.Extensions...)
		b = binary.AppendUvarint(b, uint64(len(e.Data)))
		parts = append(parts, b[from:len(b):len(b)], e.Data)
		from = len(b)
	}
	if from < len(b) {
		parts = append(parts, b[from:])
	}
	return parts
}

// decodeAppend reads what encodeAppend wrote. The entries alias b.
func decodeAppend(b []byte, from []byte) (*raft.AppendEntriesRequest, error) {
	r := rpcReader{b: b}
	a := &raft.AppendEntriesRequest{RPCHeader: r.header(from)}
	a.Term, a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex = r.uint(), r.uint(), r.uint(), r.uint()
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad = true
		n = 0
	}
	logs := make([]raft.Log, n)
	a.Entries = make([]*raft.Log, n)
	for i := range logs {
		e := &logs[i]
		e.Index, e.Term, e.Type = r.uint(), r.uint(), raft.LogType(r.byte())
		e.Extensions, e.Data = r.bytes(), r.bytes()
		a.Entries[i] = e
	}
	return a, r.end()
}

func encodeVote(v *raft.RequestVoteRequest) []byte {
	return encodeCandidacy(v.RPCHeader, v.Term, v.LastLogIndex, v.LastLogTerm, v.LeadershipTransfer)
}

func encodePreVote(v *raft.RequestPreVoteRequest) []byte {
	return encodeCandidacy(v.RPCHeader, v.Term, v.LastLogIndex, v.LastLogTerm, false)
}

func encodeCandidacy(h raft.RPCHeader, term, index, lastTerm uint64, transfer bool) []byte {
	b := binary.AppendUvarint(nil, uint64(h.ProtocolVersion))
	b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, term), index), lastTerm)
	return appendFlag(b, transfer)
}

func decodeVote(b, from []byte) (*raft.RequestVoteRequest, error) {
	r := rpcReader{b: b}
	v := &raft.RequestVoteRequest{RPCHeader: r.header(from)}
	v.Term, v.LastLogIndex, v.LastLogTerm, v.LeadershipTransfer = r.uint(), r.uint(), r.uint(), r.flag()
	return v, r.end()
}

func decodePreVote(b, from []byte) (*raft.RequestPreVoteRequest, error) {
	v, err := decodeVote(b, from)
	return &raft.RequestPreVoteRequest{RPCHeader: v.RPCHeader, Term: v.Term, LastLogIndex: v.LastLogIndex, LastLogTerm: v.LastLogTerm}, err
}

func encodeTimeout(t *raft.TimeoutNowRequest) []byte {
	return binary.AppendUvarint(nil, uint64(t.ProtocolVersion))
}

func decodeTimeout(b, from []byte) (*raft.TimeoutNowRequest, error) {
	r := rpcReader{b: b}
	t := &raft.TimeoutNowRequest{RPCHeader: r.header(from)}
	return t, r.end()
}

func encodeSnapshot(s *raft.InstallSnapshotRequest) []byte {
	b := binary.AppendUvarint(nil, uint64(s.ProtocolVersion))
	for _, n := range [...]uint64{uint64(s.SnapshotVersion), s.Term, s.LastLogIndex, s.LastLogTerm, s.ConfigurationIndex, uint64(s.Size), uint64(len(s.Configuration))} {
		b = binary.AppendUvarint(b, n)
	}
	return append(b, s.Configuration...)
}

func decodeSnapshot(b, from []byte) (*raft.InstallSnapshotRequest, error) {
	r := rpcReader{b: b}
	s := &raft.InstallSnapshotRequest{RPCHeader: r.header(from), Leader: from}
	s.SnapshotVersion = raft.SnapshotVersion(r.uint())
	s.Term, s.LastLogIndex, s.LastLogTerm = r.uint(), r.uint(), r.uint()
	s.ConfigurationIndex, s.Size = r.uint(), int64(r.uint())
	s.Configuration = r.bytes()
	if s.Size < 0 {
		r.bad = true
	}
	return s, r.end()
}

// encodeTransfer returns the head of a transfer, whose key tells it from all others
// of its sender.
func encodeTransfer(key uint64, s *raft.InstallSnapshotRequest) []byte {
	return append(binary.AppendUvarint(nil, key), encodeSnapshot(s)...)
}

func decodeTransfer(b, from []byte) (key uint64, s *raft.InstallSnapshotRequest, err error) {
	key, n := binary.Uvarint(b)
	if n <= 0 || key == 0 {
		return 0, nil, errFrame
	}
	s, err = decodeSnapshot(b[n:], from)
	return key, s, err
}

func decodeHave(b []byte) (int64, error) {
	have, n := binary.Uvarint(b)
	if n != len(b) || have > math.MaxInt64 {
		return 0, errFrame
	}
	return int64(have), nil
}

// encodeResponse returns the body of a response to one of the requests above.
func encodeResponse(response any) ([]byte, error) {
	var b []byte
	switch v := response.(type) {
	case *raft.AppendEntriesResponse:
		b = appendTerms(b, v.RPCHeader, v.Term, v.LastLog)
		return appendFlag(appendFlag(b, v.Success), v.NoRetryBackoff), nil
	case *raft.RequestVoteResponse:
		return appendFlag(appendTerms(b, v.RPCHeader, v.Term), v.Granted), nil
	case *raft.RequestPreVoteResponse:
		return appendFlag(appendTerms(b, v.RPCHeader, v.Term), v.Granted), nil
	case *raft.InstallSnapshotResponse:
		return appendFlag(appendTerms(b, v.RPCHeader, v.Term), v.Success), nil
	case *raft.TimeoutNowResponse:
		return appendTerms(b, v.RPCHeader), nil
	}
	return nil, fmt.Errorf("cluster: a response that is a %T", response)
}

// decodeResponse reads what encodeResponse wrote into a response of the same type.
func decodeResponse(b, from []byte, response any) error {
	r := rpcReader{b: b}
	h := r.header(from)
	switch v := response.(type) {
	case *raft.AppendEntriesResponse:
		*v = raft.AppendEntriesResponse{RPCHeader: h, Term: r.uint(), LastLog: r.uint(), Success: r.flag(), NoRetryBackoff: r.flag()}
	case *raft.RequestVoteResponse:
		*v = raft.RequestVoteResponse{RPCHeader: h, Term: r.uint(), Granted: r.flag()}
	case *raft.RequestPreVoteResponse:
		*v = raft.RequestPreVoteResponse{RPCHeader: h, Term: r.uint(), Granted: r.flag()}
	case *raft.InstallSnapshotResponse:
		*v = raft.InstallSnapshotResponse{RPCHeader: h, Term: r.uint(), Success: r.flag()}
	case *raft.TimeoutNowResponse:
		*v = raft.TimeoutNowResponse{RPCHeader: h}
	default:
		return fmt.Errorf("cluster: a response that is a %T", response)
	}
	return r.end()
}

func appendTerms(b []byte, h raft.RPCHeader, numbers ...uint64) []byte {
	b = binary.AppendUvarint(b, uint64(h.ProtocolVersion))
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendFlag(b []byte, on bool) []byte {
	if on {
		return append(b, 1)
	}
	return append(b, 0)
}

// An rpcReader reads the parts of a body. What is not there reads as zero, and end
// says so.
type rpcReader struct {
	b   []byte
	bad bool
}

func (r *rpcReader) header(from []byte) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(r.uint()), ID: from, Addr: from}
}

func (r *rpcReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *rpcReader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *rpcReader) flag() bool {
	v := r.byte()
	r.bad = r.bad || v > 1
	return v == 1
}

func (r *rpcReader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	if n == 0 {
		return nil
	}
	return v
}

func (r *rpcReader) end() error {
	if r.bad || len(r.b) > 0 {
		return errFrame
	}
	return nil
}
