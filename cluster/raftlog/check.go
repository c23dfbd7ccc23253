package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/bellwire/bellwire/disk"
)

// extent says what entries a log holds.
type extent struct {
	first, last uint64 // 0 for none
	start, end  uint64 // totals before the first and with the last
}

// append adds the entry at index, whose encoding is value.
func (x *extent) append(index uint64, value []byte) {
	if x.first == 0 {
		x.first, x.start = index, entryTotal(value)-uint64(len(value))
	}
	x.last, x.end = index, entryTotal(value)
}

// A checker reads a whole database and says whether it is what was written.
type checker struct {
	fs  *disk.FS
	dir string

	group  uint32 // whose entries are being read
	extent extent
	now    map[uint32]progress
}

func (c *checker) run(db *pebble.DB) error {
	c.now = map[uint32]progress{}
	if err := scan(db, []byte{logSpace}, []byte{logSpace + 1}, c.entry); err != nil {
		return err
	}
	if err := scan(db, []byte{stableSpace}, []byte{stableSpace + 1}, c.stable); err != nil {
		return err
	}
	for group, now := range c.now {
		if _, err := compareMark(c.fs, markName(c.fs, c.dir, group), now); err != nil {
			return fmt.Errorf("group %d: %w", group, err)
		}
	}
	return c.orphans()
}

// entry checks one entry, and that it follows the one before.
func (c *checker) entry(key, value []byte) error {
	if len(key) != logKeySize {
		return fmt.Errorf("%w: a key of %d bytes in the log", ErrDamaged, len(key))
	}
	group, index := binary.BigEndian.Uint32(key[1:]), binary.BigEndian.Uint64(key[5:])
	if group != c.group {
		c.group, c.extent = group, extent{}
	}
	switch err := checkEntry(key, value); {
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("group %d: entry %d: %w", group, index, err)
	case err != nil:
		return fmt.Errorf("%w: group %d: entry %d: %w", ErrDamaged, group, index, err)
	case c.extent.first != 0 && index != c.extent.last+1:
		return fmt.Errorf("%w: group %d: entry %d follows entry %d", ErrDamaged, group, index, c.extent.last)
	}
	c.extent.append(index, value)
	now := c.now[group]
	now.index = index
	c.now[group] = now
	return nil
}

// stableSizes are the sizes of the stable values that are numbers.
var stableSizes = map[string]int{nameTerm: 8, nameVoteTerm: 8, nameBase: 16, nameInstalled: 8, nameFloor: 8}

func (c *checker) stable(key, value []byte) error {
	if len(key) < 5 {
		return fmt.Errorf("%w: a key of %d bytes among the stable values", ErrDamaged, len(key))
	}
	group, name := binary.BigEndian.Uint32(key[1:]), string(key[5:])
	if size := stableSizes[name]; size != 0 && len(value) != size {
		return fmt.Errorf("%w: group %d: %s has %d bytes, want %d", ErrDamaged, group, name, len(value), size)
	}
	now := c.now[group]
	switch name {
	case nameTerm:
		now.term = binary.BigEndian.Uint64(value)
	case nameVoteTerm:
		now.vote = binary.BigEndian.Uint64(value)
	}
	c.now[group] = now
	return nil
}

// orphans looks for marks of groups of which nothing else is left.
func (c *checker) orphans() error {
	names, err := c.fs.List(c.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		var group uint32
		if n, _ := fmt.Sscanf(name, markPrefix+"%d", &group); n != 1 {
			continue
		}
		if _, ok := c.now[group]; ok {
			continue
		}
		if _, err := compareMark(c.fs, markName(c.fs, c.dir, group), progress{}); err != nil {
			return fmt.Errorf("group %d: %w", group, err)
		}
	}
	return nil
}

// scan calls do for each key from from on and before to, in order. Key and value
// are valid during the call only.
func scan(db *pebble.DB, from, to []byte, do func(key, value []byte) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return openError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = do(it.Key(), value)
		} else {
			err = openError(err)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return openError(err)
	}
	return nil
}

// loadGroup returns what a database, which has been checked, holds of a group.
func loadGroup(db *pebble.DB, group uint32) (x extent, stable map[string][]byte, err error) {
	from, to := logKey(group, 0), logKey(group, 1<<64-1)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: from[:], UpperBound: to[:]})
	if err != nil {
		return extent{}, nil, err
	}
	for _, seek := range []func() bool{it.First, it.Last} {
		if seek() {
			x.append(binary.BigEndian.Uint64(it.Key()[5:]), it.Value())
		}
	}
	if err := it.Close(); err != nil {
		return extent{}, nil, err
	}
	stable = map[string][]byte{}
	prefix := stableKey(group, "")
	end := stableKey(group, "\xff")
	err = scan(db, prefix, end, func(key, value []byte) error {
		stable[string(key[len(prefix):])] = append([]byte(nil), value...)
		return nil
	})
	return x, stable, err
}
