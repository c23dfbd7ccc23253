package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

func openWith(t *testing.T, fs *disk.FS, memTable uint64) *Store {
	t.Helper()
	s, err := Open(Options{Dir: "/data/state", FS: fs, Logger: slog.New(slog.DiscardHandler), MemTable: memTable, Die: func(reason string) { panic(reason) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A queues is a state with queues, as a map would hold it: entries are added at their
// ends and removed from their fronts, mostly.
type queues struct {
	rng   *rand.Rand
	state map[string]string
	next  uint64
	live  [5][][]byte // keys that are in the queue, in order
}

func queued(n int, seq uint64) []byte {
	return AppendUint64(AppendUint64(Key(nil, Queue), uint64(n)), seq)
}

// entry writes what one entry of the log may write.
func (q *queues) entry(tx *Tx, n uint64) {
	set := func(key, value []byte) {
		tx.Set(key, value)
		q.state[string(key)] = string(value)
	}
	for range q.rng.IntN(40) {
		of := q.rng.IntN(len(q.live))
		live := &q.live[of]
		switch q.rng.IntN(12) {
		case 0, 1, 2, 3, 4:
			q.next++
			key := queued(of, q.next)
			set(key, fmt.Append(nil, strings.Repeat("v", q.rng.IntN(100)), q.next))
			*live = append(*live, key)
		case 5, 6, 7, 8:
			if len(*live) == 0 {
				continue
			}
			at := 0
			if q.rng.IntN(8) == 0 {
				at = q.rng.IntN(len(*live))
			}
			key := (*live)[at]
			tx.DeleteOnce(key)
			delete(q.state, string(key))
			*live = append((*live)[:at:at], (*live)[at+1:]...)
		case 9: // an entry refers to another body
			if len(*live) == 0 || q.rng.IntN(4) != 0 {
				continue
			}
			key := (*live)[q.rng.IntN(len(*live))]
			tx.Delete(key)
			set(key, fmt.Append(nil, "moved in ", n))
		case 10:
			set(AppendUint64(Key(nil, Cursors), uint64(of)), fmt.Append(nil, n))
		case 11:
			switch q.rng.IntN(12) {
			case 0: // a session ends
				lower := AppendUint64(Key(nil, Queue), uint64(of))
				tx.DeleteRange(lower, End(lower))
				for _, key := range *live {
					delete(q.state, string(key))
				}
				*live = nil
			case 1:
				key := AppendUint64(Key(nil, Cursors), uint64(of))
				tx.Delete(key)
				delete(q.state, string(key))
			}
		}
	}
	set(applied, binary.BigEndian.AppendUint64(nil, n))
}

func (q *queues) in(space Space) map[string]string {
	m := maps.Clone(q.state)
	maps.DeleteFunc(m, func(k, _ string) bool { return Space(k[0]) != space })
	return m
}

// Whatever is gathered, undone and given to the database when: who reads sees what was
// committed, and what a crash leaves is the state as of one entry, not before what
// Durable said.
func TestPending(t *testing.T) {
	for seed := range uint64(effort.RoundsOfOne(2, 12, 2000)) {
		for _, memTable := range []uint64{8 << 10, 64 << 10, 64 << 20} {
			t.Run(fmt.Sprint(seed, " ", memTable), func(t *testing.T) { gather(t, rand.New(rand.NewPCG(seed, memTable)), memTable) })
		}
	}
}

func gather(t *testing.T, rng *rand.Rand, memTable uint64) {
	fs := disk.Crashable()
	s := openWith(t, fs, memTable)
	q := &queues{rng: rng, state: map[string]string{}}
	states := []map[string]string{{}}
	read := rng.IntN(100)
	for n := uint64(1); n < 200; n++ {
		tx := s.Begin()
		if rng.IntN(20) == 0 { // an entry that is given up
			tx.Set(applied, []byte("never"))
			tx.Delete(queued(1, 1))
			tx.DeleteRange([]byte{byte(Queue)}, []byte{byte(Queue) + 1})
			tx.Discard()
			tx = s.Begin()
		}
		q.entry(tx, n)
		tx.Commit()
		states = append(states, maps.Clone(q.state))
		if rng.IntN(200) >= read {
			continue
		}
		switch rng.IntN(6) {
		case 0, 1:
			space := []Space{Queue, Cursors, Meta}[rng.IntN(3)]
			got := map[string]string{}
			s.Scan([]byte{byte(space)}, []byte{byte(space) + 1}, func(k, v []byte) bool { got[string(k)] = string(v); return true })
			delete(got, string(FormatKey()))
			if want := q.in(space); !maps.Equal(got, want) {
				t.Fatalf("entry %d: keyspace %d holds\n%q, want\n%q", n, space, got, want)
			}
		case 2:
			if v, _ := s.Get(applied, nil); binary.BigEndian.Uint64(v) != n {
				t.Fatalf("entry %d: the state is as of %x", n, v)
			}
		case 3:
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			if v, _ := s.Durable(applied); binary.BigEndian.Uint64(v) != n {
				t.Fatalf("entry %d: after a flush entry %x is durable", n, v)
			}
		case 4:
			other := openWith(t, disk.Memory(), 64<<20)
			set(other, flat(q.state)...)
			if got, _ := s.Digest(applied); got != must(other.Digest(applied)) {
				t.Fatalf("entry %d: another digest than that of a map", n)
			}
			mustClose(t, other)
		case 5:
			durable := uint64(0)
			if v, ok := s.Durable(applied); ok {
				durable = binary.BigEndian.Uint64(v)
			}
			crashed(t, fs.Crash(rng.IntN(101), rng), durable, states)
		}
	}
	if got := all(s); !maps.Equal(got, q.state) {
		t.Fatalf("the state is\n%q, want\n%q", got, q.state)
	}
	mustClose(t, s)
}

func must(digest uint64, _ []byte) uint64 { return digest }

func flat(m map[string]string) (pairs []string) {
	for k, v := range m {
		pairs = append(pairs, k, v)
	}
	return pairs
}

// crashed checks what a crash has left when an entry was durable.
func crashed(t *testing.T, left *disk.FS, durable uint64, states []map[string]string) {
	t.Helper()
	after := mustOpen(t, left, "/data/state")
	got := all(after)
	found := uint64(0)
	if v, ok := got[string(applied)]; ok {
		found = binary.BigEndian.Uint64([]byte(v))
	}
	if found < durable {
		t.Fatalf("entry %d is found after a crash, but %d was durable", found, durable)
	}
	if !maps.Equal(got, states[found]) {
		t.Fatalf("what is found after a crash is not the state as of entry %d", found)
	}
	mustClose(t, after)
}

// What is queued and taken soon after never gets to the database; where a queue
// stands gets there once. So it is however much there is, within the bound.
func TestTakenIsNotWritten(t *testing.T) {
	s := openWith(t, disk.Memory(), 64<<20)
	defer mustClose(t, s)
	before := s.db.Metrics().MemTable.Size
	const atOnce, entries = 500, 200
	value := make([]byte, 100)
	for n := range uint64(entries) {
		tx := s.Begin()
		for i := range uint64(atOnce) {
			tx.Set(queued(int(i%50), n*atOnce+i), value)
			if n > 5 {
				tx.DeleteOnce(queued(int(i%50), (n-5)*atOnce+i))
			}
		}
		tx.Set(AppendUint64(Key(nil, Cursors), n%50), value)
		tx.Commit()
		if got := s.pending.size(); got > pendingMost {
			t.Fatalf("%d bytes are kept, want %d at most", got, pendingMost)
		}
	}
	if got := s.db.Metrics().MemTable.Size; got != before { // all of it together is 10 MB
		t.Errorf("memtables hold %d bytes, %d before", got, before)
	}
}

// A DeleteRange is seen like any other write, also alone.
func TestRangeAlone(t *testing.T) {
	s := mustOpen(t, disk.Memory(), "/data/state")
	defer mustClose(t, s)
	set(s, "\x06a", "1", "\x07a", "2")
	if _, ok := s.Get([]byte("\x06a"), nil); !ok {
		t.Fatal("what was set is not there")
	}
	tx := s.Begin()
	tx.DeleteRange([]byte("\x06"), []byte("\x07"))
	tx.Commit()
	if v, ok := s.Get([]byte("\x06a"), nil); ok {
		t.Errorf("%q is there after its range has gone", v)
	}
}

// A key that was deleted and set once more, between others, is gone after DeleteOnce,
// whatever of what was written before it has been forgotten meanwhile.
func TestMovedAndTaken(t *testing.T) {
	for _, bury := range []bool{false, true} {
		s := mustOpen(t, disk.Memory(), "/data/state")
		one, two := queued(1, 1), queued(1, 2)
		set(s, string(one), "a", string(two), "b")
		tx := s.Begin()
		tx.Delete(one)
		tx.Set(one, []byte("elsewhere"))
		tx.Commit()
		if bury {
			s.pending.bury()
		}
		tx = s.Begin()
		tx.DeleteOnce(one)
		tx.Commit()
		if v, ok := s.Get(one, nil); ok {
			t.Errorf("forgotten first: %v: %q is there", bury, v)
		}
		mustClose(t, s)
	}
}

// What nobody takes is given to the database in time.
func TestPendingIsBounded(t *testing.T) {
	for _, memTable := range []uint64{64 << 10, 64 << 20} {
		s := openWith(t, disk.Memory(), memTable)
		most := min(pendingMost, int(memTable/8))
		for n := range uint64(400) {
			tx := s.Begin()
			for i := range uint64(100) {
				tx.Set(queued(int(i), n), make([]byte, 500))
			}
			tx.Commit()
			if got := s.pending.size(); got > most {
				t.Fatalf("%d bytes are kept, want %d at most", got, most)
			}
		}
		count := 0
		s.Scan([]byte{byte(Queue)}, []byte{byte(Queue) + 1}, func(_, _ []byte) bool { count++; return true })
		if count != 400*100 {
			t.Errorf("%d writes are there, want %d", count, 400*100)
		}
		if s.pending.size() != 0 {
			t.Errorf("%d bytes are kept after a reader has come", s.pending.size())
		}
		mustClose(t, s)
	}
}

// Durable moves on although hardly anything is written, so that the log can be
// truncated: by the time that memtables would have been full.
func TestTakenBecomesDurable(t *testing.T) {
	const memTable = 256 << 10
	s := openWith(t, disk.Memory(), memTable)
	defer mustClose(t, s)
	written := 0
	for n := uint64(1); ; n++ {
		tx := s.Begin()
		key := queued(1, n)
		tx.Set(key, make([]byte, 1000))
		if n > 1 {
			tx.DeleteOnce(queued(1, n-1))
		}
		tx.Set(applied, binary.BigEndian.AppendUint64(nil, n))
		tx.Commit()
		written += 1000
		if v, ok := s.Durable(applied); ok {
			if at := binary.BigEndian.Uint64(v); at == 0 || at > n {
				t.Fatalf("entry %d is durable, %d is the last", at, n)
			}
			return
		}
		if written > 1000*memTable { // the database does it in the background
			t.Fatalf("nothing is durable after %d bytes", written)
		}
	}
}

// Who reads while entries are applied sees all that was applied before, and each as a
// whole.
func TestReadersSeeWholeEntries(t *testing.T) {
	s := openWith(t, disk.Memory(), 64<<10)
	defer mustClose(t, s)
	var done, last atomic.Uint64
	over := make(chan struct{})
	go func() {
		defer close(over)
		for done.Load() == 0 {
			least := last.Load()
			var seen [][]byte
			s.Scan([]byte{byte(Cursors)}, []byte{byte(Cursors) + 1}, func(_, v []byte) bool {
				seen = append(seen, bytes.Clone(v))
				return true
			})
			for _, v := range seen {
				if got := binary.BigEndian.Uint64(v); got < least || !bytes.Equal(v, seen[0]) {
					t.Errorf("read %x when %d had been applied", seen, least)
					return
				}
			}
		}
	}()
	for n := uint64(1); n <= 3000; n++ {
		tx := s.Begin()
		for i := range uint64(4) {
			tx.Set(AppendUint64(Key(nil, Cursors), i), binary.BigEndian.AppendUint64(nil, n))
		}
		tx.Commit()
		last.Store(n)
	}
	done.Store(1)
	<-over
}

// spacesOf names every keyspace of which a key lies between the two.
func TestSpacesOf(t *testing.T) {
	for _, c := range []struct {
		lower, upper string
		want         uint64
	}{
		{"\x06", "\x07", 1 << 6},
		{"\x06abc", "\x07", 1 << 6},
		{"\x06a", "\x06b", 1 << 6},
		{"\x06a", "\x07b", 1<<6 | 1<<7},
		{"\x06", "\x09", 1<<6 | 1<<7 | 1<<8},
		{"\x00", "\x01", 1},
		{"", "\x02", 3},
		{"", "", everything},
		{"\x3e", "", 1<<62 | 1<<63},
		{"\x3e", "\xff", 1<<62 | 1<<63},
		{"\x50", "\x51", 1 << 63},
		{"\x50a", "\x50b", 1 << 63},
		{"", "\xff", everything},
	} {
		if got := spacesOf([]byte(c.lower), []byte(c.upper)); got != c.want {
			t.Errorf("from %q to %q: %b, want %b", c.lower, c.upper, got, c.want)
		}
	}
}
