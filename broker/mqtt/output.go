package mqtt

import "sync"

const (
	smallBlock = 4 << 10
	largeBlock = 64 << 10

	// inlineMax is the largest payload that is copied into each client's
	// output. Of a larger one all outputs share one copy. (Sharing payloads
	// of 1 KiB, too, and giving the kernel two pieces for each event, took
	// 2.4 us a delivery where copying took 1.0.)
	inlineMax = 4 << 10

	// maxVecs is how many pieces one write takes at most.
	maxVecs = 64
)

// A block is pooled memory for output.
type block struct{ b []byte }

var (
	smallBlocks = sync.Pool{New: func() any { return &block{make([]byte, 0, smallBlock)} }}
	largeBlocks = sync.Pool{New: func() any { return &block{make([]byte, 0, largeBlock)} }}
)

func (k *block) release() {
	if cap(k.b) == smallBlock {
		smallBlocks.Put(k)
	} else {
		largeBlocks.Put(k)
	}
}

// A chunk is a piece of output that waits: the bytes not yet written. If they
// lie in a block, there may be room behind them.
type chunk struct {
	data []byte
	mem  *block // nil for shared bytes, which nobody changes any more
}

// An output is what waits for one client's socket, in order. It is memory from
// the pools while there is something, and a few words while there is not.
//
// Its lock is the connection's. A write goes on outside the lock: bytes that
// are in the output never change, they only go when they are written, and new
// ones are put behind them.
type output struct {
	chunks []chunk
	n      int  // bytes in all
	much   bool // the last write was offered more than a small block holds
}

// room extends the output by n bytes in one piece and returns them. The caller
// fills them before it lets go of the lock.
func (o *output) room(n int) []byte {
	o.n += n
	if k := len(o.chunks) - 1; k >= 0 {
		last := &o.chunks[k]
		if l := len(last.data); cap(last.data)-l >= n {
			last.data = last.data[:l+n]
			return last.data[l:]
		}
	}
	var c chunk
	switch {
	case n > largeBlock:
		c.data = make([]byte, n)
	case n > smallBlock || len(o.chunks) > 0 || o.much:
		c.mem = largeBlocks.Get().(*block)
		c.data = c.mem.b[:n]
	default:
		c.mem = smallBlocks.Get().(*block)
		c.data = c.mem.b[:n]
	}
	o.chunks = append(o.chunks, c)
	return c.data
}

// add appends b, copied.
func (o *output) add(b []byte) { copy(o.room(len(b)), b) }

// share appends b itself, which must never change any more.
func (o *output) share(b []byte) {
	o.n += len(b)
	o.chunks = append(o.chunks, chunk{data: b[:len(b):len(b)]})
}

// vecs appends the first pieces of the output to v.
func (o *output) vecs(v [][]byte) [][]byte {
	for i := range min(len(o.chunks), maxVecs) {
		v = append(v, o.chunks[i].data)
	}
	return v
}

// written drops the first n bytes.
func (o *output) written(n int) {
	o.n -= n
	gone := 0
	for i := range o.chunks {
		c := &o.chunks[i]
		if n < len(c.data) {
			c.data = c.data[n:]
			break
		}
		n -= len(c.data)
		gone++
		if c.mem != nil {
			c.mem.release()
		}
	}
	rest := copy(o.chunks, o.chunks[gone:])
	clear(o.chunks[rest:])
	o.chunks = o.chunks[:rest]
	if rest == 0 && cap(o.chunks) > 8 {
		o.chunks = nil
	}
}

// drop throws all of it away. Blocks that a write under way may still read are
// left to the garbage collector.
func (o *output) drop(writing bool) {
	if !writing {
		o.written(o.n)
	}
	*o = output{}
}
