package disk

import (
	"bufio"
	"math"
	"os"
	"strconv"
	"strings"
)

type space struct{ free, total uint64 }

// Free returns how many bytes this process may still write, and how large the
// disk is. In memory they are the machine's available and total memory, for
// that is what runs out. If the machine does not say, both are math.MaxUint64:
// an unknown disk is not called full.
//
// It is one system call, meant to be asked a few times a second.
func (fs *FS) Free() (free, total uint64) {
	s := fs.measure()
	f := &fs.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.fault {
	case Full:
		s.free = min(s.free, uint64(max(f.left, 0)))
	case NoSpace:
		s.free = 0
	}
	return s.free, s.total
}

// SetFree has Free return these numbers instead of the machine's, until
// ClearFree.
func (fs *FS) SetFree(free, total uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.space = &space{free, total}
}

// ClearFree has Free tell the truth again.
func (fs *FS) ClearFree() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.space = nil
}

// reserve is what Full leaves: little enough to be below any low-water mark.
func (fs *FS) reserve() int64 {
	return int64(min(Reserve, fs.measure().total/100))
}

func (fs *FS) measure() space {
	fs.mu.Lock()
	set := fs.space
	fs.mu.Unlock()
	switch {
	case set != nil:
		return *set
	case fs.mem != nil:
		return memory()
	}
	usage, err := fs.inner.GetDiskUsage(fs.nearest())
	if err != nil {
		return space{math.MaxUint64, math.MaxUint64}
	}
	return space{usage.AvailBytes, usage.TotalBytes}
}

// nearest returns root, or the closest directory above it that exists.
func (fs *FS) nearest() string {
	dir := fs.root
	for {
		if _, err := fs.inner.Stat(dir); err == nil {
			return dir
		}
		up := fs.inner.PathDir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}

// memory reads the machine's memory from /proc/meminfo.
func memory() space {
	s := space{math.MaxUint64, math.MaxUint64}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return s
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text()) // "MemTotal:  24591072 kB"
		if len(field) < 2 {
			continue
		}
		kib, err := strconv.ParseUint(field[1], 10, 54)
		if err != nil {
			continue
		}
		switch field[0] {
		case "MemTotal:":
			s.total = kib << 10
		case "MemAvailable:":
			s.free = kib << 10
		}
	}
	return s
}
