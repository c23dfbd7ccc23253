package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

const (
	entryVersion  = 1
	entryHeader   = 30 // bytes before the extensions
	entryTrailer  = 4  // the checksum
	entryOverhead = entryHeader + entryTrailer

	logSpace    = 'L'
	stableSpace = 'S'
	logKeySize  = 1 + 4 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Why an entry cannot be read. They are causes of ErrDamaged.
var (
	errShort    = errors.New("shorter than an entry")
	errChecksum = errors.New("checksum does not match")
)

// logKey returns the key of an entry.
func logKey(group uint32, index uint64) (key [logKeySize]byte) {
	key[0] = logSpace
	binary.BigEndian.PutUint32(key[1:], group)
	binary.BigEndian.PutUint64(key[5:], index)
	return key
}

// stableKey returns the key of a stable value.
func stableKey(group uint32, name string) []byte {
	key := make([]byte, 0, 5+len(name))
	key = append(key, stableSpace)
	key = binary.BigEndian.AppendUint32(key, group)
	return append(key, name...)
}

// entrySize returns how many bytes putEntry writes.
func entrySize(e *raft.Log) int { return entryOverhead + len(e.Extensions) + len(e.Data) }

// putEntry encodes e as the value of key into buf, which is entrySize(e) long.
func putEntry(buf, key []byte, e *raft.Log, total uint64) {
	buf[0] = entryVersion
	buf[1] = byte(e.Type)
	binary.BigEndian.PutUint64(buf[2:], e.Term)
	binary.BigEndian.PutUint64(buf[10:], total)
	at := int64(0)
	if !e.AppendedAt.IsZero() {
		at = e.AppendedAt.UnixNano()
	}
	binary.BigEndian.PutUint64(buf[18:], uint64(at))
	binary.BigEndian.PutUint32(buf[26:], uint32(len(e.Extensions)))
	n := entryHeader
	n += copy(buf[n:], e.Extensions)
	n += copy(buf[n:], e.Data)
	binary.BigEndian.PutUint32(buf[n:], checksum(key, buf[:n]))
}

// getEntry decodes the value of key into e, copying what it keeps, and returns
// the entry's total.
func getEntry(key, value []byte, index uint64, e *raft.Log) (total uint64, err error) {
	if err := checkEntry(key, value); err != nil {
		return 0, err
	}
	body := value[entryHeader : len(value)-entryTrailer]
	ext := int(binary.BigEndian.Uint32(value[26:]))
	if ext > len(body) {
		return 0, fmt.Errorf("extensions of %d bytes in %d", ext, len(body))
	}
	body = append([]byte(nil), body...) // one copy for both
	*e = raft.Log{
		Index: index,
		Term:  binary.BigEndian.Uint64(value[2:]),
		Type:  raft.LogType(value[1]),
		Data:  body[ext:],
	}
	if ext > 0 {
		e.Extensions = body[:ext:ext]
	}
	if at := int64(binary.BigEndian.Uint64(value[18:])); at != 0 {
		e.AppendedAt = time.Unix(0, at)
	}
	return entryTotal(value), nil
}

// checkEntry says whether value is what was once written under key.
func checkEntry(key, value []byte) error {
	if len(value) < entryOverhead {
		return errShort
	}
	end := len(value) - entryTrailer
	if binary.BigEndian.Uint32(value[end:]) != checksum(key, value[:end]) {
		return errChecksum
	}
	if value[0] != entryVersion {
		return fmt.Errorf("%w: entry version %d, this program knows %d", ErrNewer, value[0], entryVersion)
	}
	return nil
}

// entryTotal returns the total of a value that checkEntry has passed.
func entryTotal(value []byte) uint64 { return binary.BigEndian.Uint64(value[10:]) }

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, value)
}
