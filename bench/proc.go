package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHertz is the unit of the times in /proc: 1/100 s on every Linux that Go
// runs on, whatever the kernel's own tick.
const userHertz = 100

// A usage is what a set of processes has used so far.
type usage struct {
	user, system time.Duration
	rss          int64  // bytes, at this moment
	writes       uint64 // calls of the write family; send(2) is not among them
}

func (u *usage) add(more usage) {
	u.user += more.user
	u.system += more.system
	u.rss += more.rss
	u.writes += more.writes
}

// processes reads the usage of all pids together.
func processes(pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return usage{}, fmt.Errorf("the broker's process %d is gone: %w", pid, err)
		}
		u, err := parseStat(stat)
		if err != nil {
			return usage{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		// Reading another user's io needs privilege; the figure is a courtesy.
		if io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
			u.writes = uint64(field(io, "syscw:"))
		}
		sum.add(u)
	}
	return sum, nil
}

// parseStat reads times and memory out of /proc/PID/stat. The name in its second
// field may hold anything, also spaces and brackets.
func parseStat(b []byte) (usage, error) {
	_, rest, ok := cutLast(b, ") ")
	f := strings.Fields(string(rest))
	if !ok || len(f) < 22 {
		return usage{}, errors.New("too few fields")
	}
	var n [3]int64
	for i, at := range []int{11, 12, 21} { // fields 14, 15 and 24 of proc(5)
		v, err := strconv.ParseInt(f[at], 10, 64)
		if err != nil {
			return usage{}, fmt.Errorf("field %d: %w", at+3, err)
		}
		n[i] = v
	}
	return usage{
		user:   time.Duration(n[0]) * time.Second / userHertz,
		system: time.Duration(n[1]) * time.Second / userHertz,
		rss:    n[2] * int64(os.Getpagesize()),
	}, nil
}

func cutLast(b []byte, sep string) (before, after []byte, found bool) {
	if i := bytes.LastIndex(b, []byte(sep)); i >= 0 {
		return b[:i], b[i+len(sep):], true
	}
	return b, nil, false
}

// field returns the first number behind key, or 0.
func field(b []byte, key string) int64 {
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// self is the CPU time of this process so far.
func self() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// A host is what the machine as a whole has done so far, in ticks of all cores.
type host struct{ total, idle, steal int64 }

func readHost() (host, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return host{}, err
	}
	return parseHost(b)
}

// parseHost reads the first line of /proc/stat: user, nice, system, idle,
// iowait, irq, softirq, steal; guest times are within user.
func parseHost(b []byte) (host, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return host{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var h host
	for i, s := range f[1:9] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return host{}, fmt.Errorf("/proc/stat: %w", err)
		}
		h.total += n
		switch i {
		case 3, 4:
			h.idle += n
		case 7:
			h.steal += n
		}
	}
	return h, nil
}

// A kernelMemory is what the kernel holds for the whole machine: nothing tells
// whose it is, so differences are taken on a machine that does nothing else.
type kernelMemory struct {
	slab    int64 // bytes, of which sockets are most here
	sockets int64 // bytes of TCP buffers in use
}

func readKernelMemory() (kernelMemory, error) {
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return kernelMemory{}, err
	}
	sock, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return kernelMemory{}, err
	}
	k := kernelMemory{slab: field(mem, "Slab:") << 10}
	for line := range strings.Lines(string(sock)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "TCP:" {
			if i := slices.Index(f, "mem"); i > 0 && i+1 < len(f) {
				pages, _ := strconv.ParseInt(f[i+1], 10, 64)
				k.sockets = pages * int64(os.Getpagesize())
			}
		}
	}
	return k, nil
}

// session returns the living processes of the session that leader leads: a
// broker and all it started.
func session(leader int) []int { return withField(3, leader) } // field 6 of proc(5)

// withField returns the processes, zombies excepted, that have value in the
// given field after the name.
func withField(field, value int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := cutLast(b, ") ")
		f := strings.Fields(string(rest))
		if len(f) <= field || f[0] == "Z" || f[field] != strconv.Itoa(value) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
