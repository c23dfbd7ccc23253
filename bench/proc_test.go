package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A program may call itself anything, also what looks like the next fields.
func TestStatOfOddlyNamedProcess(t *testing.T) {
	const stat = "42 (a) 7 (b) S 1 42 42 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 5 0 1234 99999999 321 18446744073709551615 1 1"
	u, err := parseStat([]byte(stat))
	if err != nil {
		t.Fatal(err)
	}
	want := usage{user: 2500 * time.Millisecond, system: 750 * time.Millisecond, rss: 321 * int64(os.Getpagesize())}
	if u != want {
		t.Errorf("got %+v, want %+v", u, want)
	}
	for _, bad := range []string{"", "42 (x) S 1", "42 (x " + stat[12:], strings.Replace(stat, " 250 ", " x ", 1)} {
		if u, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, u)
		}
	}
}

func TestHostShares(t *testing.T) {
	before, err := parseHost([]byte("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseHost([]byte("cpu  130 0 60 840 60 0 0 10 0 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if busy, steal := after.since(before); busy != 0.5 || steal != 0.1 {
		t.Errorf("busy %v, steal %v, want 0.5 and 0.1", busy, steal)
	}
	if _, err := parseHost([]byte("intr 1 2 3")); err == nil {
		t.Error("a first line without cpu was accepted")
	}
}

// This process is in its own session, and what it reads of itself is there.
func TestOwnUsage(t *testing.T) {
	u, err := processes([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if u.rss == 0 {
		t.Errorf("got %+v", u)
	}
	if _, err := processes([]int{1 << 30}); err == nil {
		t.Error("a process that cannot be has a usage")
	}
	k, err := readKernelMemory()
	if err != nil || k.slab == 0 {
		t.Errorf("kernel memory %+v, error %v", k, err)
	}
}

func TestCounterSumsLabels(t *testing.T) {
	const page = `# HELP bellwire_disk_syncs_total calls of fsync and fdatasync
# TYPE bellwire_disk_syncs_total counter
bellwire_disk_syncs_total{file="log"} 40
bellwire_disk_syncs_total{file="vote of n1"} 2
bellwire_disk_syncs_total_created 1.7e9
`
	if n, ok := counter(strings.NewReader(page), syncsCounter); n != 42 || !ok {
		t.Errorf("got %v, %v, want 42", n, ok)
	}
	if n, ok := counter(strings.NewReader("up 1\n"), syncsCounter); ok {
		t.Errorf("a counter that is not there is %v", n)
	}
}

func TestStraceTable(t *testing.T) {
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 99.10    0.012345         123       100           fsync
  0.90    0.000123          12        10         2 fdatasync
  0.00    0.000000           0         5           sync_file_range
------ ----------- ----------- --------- --------- ----------------
100.00    0.012468         113       115         2 total
`
	if n := straceCount(strings.NewReader(table)); n != 110 {
		t.Errorf("got %v calls, want 110", n)
	}
}
