package main

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// A hostSample is what Linux's /proc says about the machine at one time.
type hostSample struct {
	at   time.Time
	load float64 // of the last minute, in processes

	memoryTotal, memoryAvailable uint64 // KiB

	// Since the machine started, in bytes: of all disks, and of all network
	// interfaces but the loopback.
	diskRead, diskWritten, netIn, netOut uint64
}

// sectorBytes is the unit of /proc/diskstats, whatever the disk's own.
const sectorBytes = 512

// readHost reads proc, which is /proc, at the time now. blocks is /sys/block:
// its entries are whole disks, so that partitions are not counted twice.
func readHost(proc, blocks fs.FS, now time.Time) (hostSample, error) {
	s := hostSample{at: now}
	err := eachLine(proc, "loadavg", func(f []string) error {
		return parse(&s.load, f, 0)
	})
	if err == nil {
		err = eachLine(proc, "meminfo", func(f []string) error {
			switch f[0] {
			case "MemTotal:":
				return add(&s.memoryTotal, f, 1)
			case "MemAvailable:":
				return add(&s.memoryAvailable, f, 1)
			}
			return nil
		})
	}
	if err == nil {
		err = eachLine(proc, "diskstats", func(f []string) error {
			if len(f) < 10 || !isDisk(blocks, f[2]) {
				return nil
			}
			var read, written uint64
			if err := add(&read, f, 5); err != nil {
				return err
			}
			s.diskRead += read * sectorBytes
			err := add(&written, f, 9)
			s.diskWritten += written * sectorBytes
			return err
		})
	}
	if err == nil {
		err = eachLine(proc, "net/dev", func(f []string) error {
			// "eth0: 12 …" or, when the number is long, "eth0:123456789 …"
			f = strings.Fields(strings.Replace(strings.Join(f, " "), ":", ": ", 1))
			if len(f) < 10 || !strings.HasSuffix(f[0], ":") || f[0] == "lo:" || f[0] == "face" {
				return nil
			}
			if err := add(&s.netIn, f, 1); err != nil {
				return err
			}
			return add(&s.netOut, f, 9)
		})
	}
	return s, err
}

// isDisk tells disks from partitions, loop devices and the like.
func isDisk(blocks fs.FS, name string) bool {
	for _, not := range []string{"loop", "ram", "dm-", "md", "zram", "sr"} {
		if strings.HasPrefix(name, not) {
			return false
		}
	}
	_, err := fs.Stat(blocks, name)
	return err == nil
}

// eachLine calls take with the fields of each line that has any.
func eachLine(proc fs.FS, name string, take func(fields []string) error) error {
	text, err := fs.ReadFile(proc, name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 {
			if err := take(f); err != nil {
				return fmt.Errorf("%s: %w in %q", path.Join("/proc", name), err, line)
			}
		}
	}
	return nil
}

func add(to *uint64, f []string, i int) error {
	if i >= len(f) {
		return fmt.Errorf("no field %d", i)
	}
	n, err := strconv.ParseUint(f[i], 10, 64)
	*to += n
	return err
}

func parse(to *float64, f []string, i int) (err error) {
	*to, err = strconv.ParseFloat(f[i], 64)
	return err
}

// A reading is one value of the machine, as it is published.
type reading struct{ name, value string }

// since returns what the machine did between before and s: load in processes,
// memory in percent used, disk and net in bytes per second.
func (s hostSample) since(before hostSample) []reading {
	elapsed := s.at.Sub(before.at).Seconds()
	if elapsed <= 0 {
		elapsed = 1
	}
	rate := func(now, then uint64) int64 {
		if now < then {
			return 0 // a disk or an interface has gone
		}
		return int64(float64(now-then) / elapsed)
	}
	used := 100 * (1 - float64(s.memoryAvailable)/float64(max(s.memoryTotal, 1)))
	return []reading{
		{"load", strconv.FormatFloat(s.load, 'f', 2, 64)},
		{"memory", strconv.FormatFloat(used, 'f', 1, 64)},
		{"disk", fmt.Sprintf(`{"read":%d,"written":%d}`, rate(s.diskRead, before.diskRead), rate(s.diskWritten, before.diskWritten))},
		{"net", fmt.Sprintf(`{"in":%d,"out":%d}`, rate(s.netIn, before.netIn), rate(s.netOut, before.netOut))},
	}
}
