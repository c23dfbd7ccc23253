package clustertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/bellwire/bellwire/cluster"
)

// A Batch is what a Source submits: the Number-th, from 1 on, of one Life of the
// Source of this Name.
type Batch struct {
	Name    string
	Life    uint64
	Number  uint64
	Payload []byte
}

var errBatch = errors.New("no batch of a Source")

// Encode returns the bytes that are submitted.
func (b Batch) Encode() []byte {
	buf := binary.AppendUvarint(nil, uint64(len(b.Name)))
	buf = append(buf, b.Name...)
	buf = binary.BigEndian.AppendUint64(buf, b.Life)
	buf = binary.BigEndian.AppendUint64(buf, b.Number)
	return append(buf, b.Payload...)
}

func parseBatch(buf []byte) (Batch, error) {
	size, n := binary.Uvarint(buf)
	if n <= 0 || size > uint64(len(buf)) || uint64(len(buf)-n) < size+16 {
		return Batch{}, fmt.Errorf("%w: %d bytes", errBatch, len(buf))
	}
	rest := buf[n+int(size):]
	return Batch{
		Name: string(buf[n : n+int(size)]),
		Life: binary.BigEndian.Uint64(rest), Number: binary.BigEndian.Uint64(rest[8:]),
		Payload: rest[16:],
	}, nil
}

const firstLevel cluster.Level = 1

// raiseTo begins the payload of a batch that raises the feature level to what
// follows, a byte.
const raiseTo = "raise the feature level to "

// raises returns the level that the batch raises the cluster to, 0 for none.
func (b Batch) raises() cluster.Level {
	if to, ok := strings.CutPrefix(string(b.Payload), raiseTo); ok && len(to) == 1 {
		return cluster.Level(to[0])
	}
	return 0
}

// A key names a batch.
type key struct {
	name         string
	life, number uint64
}

func (b Batch) key() key { return key{b.Name, b.Life, b.Number} }

func (k key) String() string { return fmt.Sprintf("%s.%d/%d", k.name, k.life, k.number) }

// numbers say which batch of each Source was taken last. A batch is taken if it
// is the next of its life, or the first of a later life; then the lives before
// are over. So repeats are dropped, and what comes after a gap is refused, as the
// broker's machine does.
type numbers map[string]key

func (n numbers) take(k key) bool {
	last := n[k.name]
	next := k.life == last.life && k.number == last.number+1
	later := k.life > last.life && k.number == 1
	if next || later {
		n[k.name] = k
	}
	return next || later
}

// An Entry is one that a Machine has applied: batches, or a configuration.
type Entry struct {
	Index, Term uint64
	Stamp       int64
	Batches     [][]byte
	Config      []byte // nil for batches
}

// sum folds an entry into the digest of all entries before it.
func (e Entry) sum(digest uint64) uint64 {
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(nil, digest))
	h.Write(e.encode(nil))
	return h.Sum64()
}

// encode appends an entry: its numbers, its configuration, its batches.
func (e Entry) encode(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, e.Index)
	buf = binary.AppendUvarint(buf, e.Term)
	buf = binary.AppendVarint(buf, e.Stamp)
	buf = appendBytes(buf, e.Config)
	buf = binary.AppendUvarint(buf, uint64(len(e.Batches)))
	for _, b := range e.Batches {
		buf = appendBytes(buf, b)
	}
	return buf
}

func appendBytes(buf, b []byte) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(b))), b...)
}

// A reader takes values off a buffer. After a failure it yields zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	return v * uint64(r.skip(n))
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	return v * int64(r.skip(n))
}

// skip passes over n bytes and returns 1, or 0 if that fails.
func (r *reader) skip(n int) int {
	if n <= 0 || n > len(r.rest) {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return 1
}

func (r *reader) bytes() []byte {
	size := r.uvarint()
	if size > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:size:size]
	r.rest = r.rest[size:]
	return b
}

func (r *reader) entry() Entry {
	e := Entry{Index: r.uvarint(), Term: r.uvarint(), Stamp: r.varint()}
	if config := r.bytes(); len(config) > 0 {
		e.Config = config
	}
	for count := r.uvarint(); count > 0 && !r.failed; count-- {
		e.Batches = append(e.Batches, r.bytes())
	}
	return e
}
