package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// MaxBatch is the size of the largest batch: one that carries a single
	// large event. It is far from what Raft or Pebble would treat as special.
	MaxBatch = 1 << 20

	// packBytes is about the size of the largest entry of several batches: what
	// a slow disk takes in a few milliseconds.
	packBytes = 256 << 10

	entryVersion = 1
	entryHeader  = 1 + 8
)

var errEntry = errors.New("no entry of this log")

// packedSize returns how many bytes pack makes of batches.
func packedSize(batches [][]byte) int {
	n := entryHeader + uvarintSize(len(batches))
	for _, b := range batches {
		n += uvarintSize(len(b)) + len(b)
	}
	return n
}

func uvarintSize(n int) int {
	size := 1
	for n >= 0x80 {
		n >>= 7
		size++
	}
	return size
}

// pack encodes an entry. It copies the batches.
func pack(stamp int64, batches [][]byte) []byte {
	entry := make([]byte, 0, packedSize(batches))
	entry = append(entry, entryVersion)
	entry = binary.BigEndian.AppendUint64(entry, uint64(stamp))
	entry = binary.AppendUvarint(entry, uint64(len(batches)))
	for _, b := range batches {
		entry = binary.AppendUvarint(entry, uint64(len(b)))
		entry = append(entry, b...)
	}
	return entry
}

// unpack decodes an entry. The batches are parts of it.
func unpack(entry []byte) (stamp int64, batches [][]byte, err error) {
	if len(entry) < entryHeader+1 {
		return 0, nil, fmt.Errorf("%w: %d bytes", errEntry, len(entry))
	}
	if entry[0] != entryVersion {
		return 0, nil, fmt.Errorf("%w: version %d, this program knows %d", errEntry, entry[0], entryVersion)
	}
	stamp = int64(binary.BigEndian.Uint64(entry[1:]))
	rest := entry[entryHeader:]
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > uint64(len(rest)) {
		return 0, nil, fmt.Errorf("%w: count of batches", errEntry)
	}
	rest = rest[n:]
	batches = make([][]byte, count)
	for i := range batches {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return 0, nil, fmt.Errorf("%w: batch %d of %d", errEntry, i, count)
		}
		end := n + int(size)
		batches[i] = rest[n:end:end]
		rest = rest[end:]
	}
	if len(rest) > 0 {
		return 0, nil, fmt.Errorf("%w: %d bytes after the last batch", errEntry, len(rest))
	}
	return stamp, batches, nil
}

// stampOf returns the stamp of an entry, 0 if it is none.
func stampOf(entry []byte) int64 {
	if len(entry) < entryHeader || entry[0] != entryVersion {
		return 0
	}
	return int64(binary.BigEndian.Uint64(entry[1:]))
}
