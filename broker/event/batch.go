package event

import "encoding/binary"

// batchVersion is the first byte of every batch.
const batchVersion = 1

// A Header says which batch this is: the Seq-th (from 1, without gaps) of one
// life of a node. The Machine drops a repeat and refuses a gap.
type Header struct {
	Node        string
	Incarnation uint64
	Seq         uint64
}

// AppendHeader starts a batch. Commands follow it, each by AppendCommand.
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, batchVersion)
	b = appendString(b, h.Node)
	b = appendInt64(b, int64(h.Incarnation))
	return appendInt64(b, int64(h.Seq))
}

// AppendCommand appends c to a batch: kind, length in four bytes, body.
func AppendCommand(b []byte, c Command) []byte {
	b = append(b, byte(c.Kind()), 0, 0, 0, 0)
	start := len(b)
	b = c.append(b)
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// A Batch is one node's commands, read in order with Next.
type Batch struct {
	Header
	r reader
}

// ReadBatch reads the header of a batch. The commands that Next returns alias
// b.
func ReadBatch(b []byte) (Batch, error) {
	r := reader{b: b}
	if v := r.byte(); v != batchVersion {
		r.fail("batch version %d, want %d: written by a newer version?", v, batchVersion)
	}
	h := Header{Node: r.string(), Incarnation: uint64(r.int64()), Seq: uint64(r.int64())}
	return Batch{Header: h, r: r}, r.err
}

// Next returns the next command's kind and body, and false at the end. After
// a fault, which Err tells, there is no next.
func (b *Batch) Next() (kind Kind, body []byte, ok bool) {
	if len(b.r.b) == 0 {
		return 0, nil, false
	}
	if len(b.r.b) < 5 {
		b.r.fail("command cut short")
		return 0, nil, false
	}
	kind = Kind(b.r.b[0])
	n := uint64(binary.BigEndian.Uint32(b.r.b[1:]))
	if n > uint64(len(b.r.b)-5) {
		b.r.fail("command of %d bytes in %d", n, len(b.r.b)-5)
		return 0, nil, false
	}
	body = b.r.b[5 : 5+n : 5+n]
	b.r.b = b.r.b[5+n:]
	return kind, body, true
}

// Err returns the fault that ended the batch early, or nil.
func (b *Batch) Err() error { return b.r.err }
