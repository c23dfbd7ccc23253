package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// portHolder returns who listens at a TCP address, or where it could not be listened
// at because of that, as Linux's /proc tells: "name (pid 12)". It is false where there
// is no /proc, or the process is somebody else's.
func portHolder(at netip.AddrPort) (string, bool) {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, inode := range listeners(string(text), at) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return "", false
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "", false
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || !inodes[target] {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(process + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(process)), true
	}
	return "", false
}

// listeners returns the inodes of the sockets that listen at an address, or at all of
// the machine's, from the text of /proc/net/tcp:
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
//	 0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 …
func listeners(text string, at netip.AddrPort) []string {
	const listen, state, inode = "0A", 3, 9
	all := !at.Addr().IsValid() || at.Addr().IsUnspecified()
	var found []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) <= inode || f[state] != listen {
			continue
		}
		l, ok := parseProcAddress(f[1])
		if ok && l.Port() == at.Port() && (all || l.Addr().IsUnspecified() || sameAddress(l, at)) {
			found = append(found, f[inode])
		}
	}
	return found
}
