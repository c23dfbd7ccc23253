package cluster

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/internal/golden"
)

// The bytes of an entry do not change, and read back as what was packed.
func TestEntryFormat(t *testing.T) {
	var entries bytes.Buffer
	for _, c := range []struct {
		stamp   int64
		batches [][]byte
	}{
		{0, nil},
		{1773072000_000000000, [][]byte{[]byte("one")}},
		{1, [][]byte{{}, []byte("a"), bytes.Repeat([]byte("b"), 200)}},
		{-5, [][]byte{{0xff}}},
	} {
		entry := pack(c.stamp, c.batches)
		fmt.Fprintf(&entries, "%x\n", entry)
		if len(entry) != packedSize(c.batches) {
			t.Errorf("%d bytes, said to be %d", len(entry), packedSize(c.batches))
		}
		stamp, batches, err := unpack(entry)
		if err != nil || stamp != c.stamp || stampOf(entry) != c.stamp || len(batches) != len(c.batches) {
			t.Fatalf("got %d, %d batches, %v", stamp, len(batches), err)
		}
		for i := range batches {
			if !bytes.Equal(batches[i], c.batches[i]) {
				t.Errorf("batch %d: got %x", i, batches[i])
			}
		}
		for cut := range entry {
			if _, _, err := unpack(entry[:cut]); err == nil {
				t.Errorf("cut to %d of %d bytes: accepted", cut, len(entry))
			}
		}
		if _, _, err := unpack(append(bytes.Clone(entry), 0)); err == nil {
			t.Error("a byte too many: accepted")
		}
	}
	golden.File(t, "entries.golden", entries.Bytes())
}

// Batches of any sizes survive, and their slices cannot grow into each other.
func TestEntryRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		batches := make([][]byte, rng.IntN(300))
		for i := range batches {
			batches[i] = make([]byte, rng.IntN(400))
			for j := range batches[i] {
				batches[i][j] = byte(rng.Uint32())
			}
		}
		_, got, err := unpack(pack(7, batches))
		if err != nil || len(got) != len(batches) {
			t.Fatalf("%d of %d batches, %v", len(got), len(batches), err)
		}
		for i := range got {
			if !bytes.Equal(got[i], batches[i]) || cap(got[i]) != len(got[i]) {
				t.Fatalf("batch %d of %d: %d bytes of capacity %d, want %d", i, len(got), len(got[i]), cap(got[i]), len(batches[i]))
			}
		}
	}
}

// A version that this program does not know is told as such.
func TestNewerEntry(t *testing.T) {
	entry := pack(1, nil)
	entry[0] = 2
	if _, _, err := unpack(entry); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(1, [][]byte{[]byte("x"), {}}))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, entry []byte) {
		stamp, batches, err := unpack(entry)
		if err != nil {
			return
		}
		again, got, err := unpack(pack(stamp, batches))
		if err != nil || again != stamp || len(got) != len(batches) {
			t.Errorf("%d batches packed again: %d, %v", len(batches), len(got), err)
		}
	})
}
