package main

import (
	"net"
	"net/netip"
	"os"
	"testing"
)

// Who is at the other end of a connection is read from the kernel's table: the
// one that is established, in the right direction.
func TestSocketUser(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000   113        0 31338 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 31339 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:D432 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
   4: 0000000000000000FFFF00000100007F:D433 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  7  0 31340 1 0
   5: 00000000000000000000000001000000:D434 00000000000000000000000001000000:1F90 01 00000000:00000000 00:00000000 00000000  8  0 31341 1 0
`
	for _, c := range []struct {
		from, to string
		uid      int
		ok       bool
	}{
		{"127.0.0.1:54321", "127.0.0.1:8080", 1000, true},
		{"127.0.0.1:54322", "127.0.0.1:8080", 0, false}, // it is over
		{"127.0.0.1:54323", "127.0.0.1:8080", 7, true},
		{"[::1]:54324", "[::1]:8080", 8, true},
		{"127.0.0.1:54321", "127.0.0.1:8081", 0, false},
		{"10.0.0.1:54321", "127.0.0.1:8080", 0, false},
		{"0.0.0.0:0", "127.0.0.1:8080", 0, false},
	} {
		uid, ok := socketUser(table, netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to))
		if uid != c.uid || ok != c.ok {
			t.Errorf("%s to %s: %d, %t, want %d, %t", c.from, c.to, uid, ok, c.uid, c.ok)
		}
	}
}

// A connection of this process is this user's.
func TestPeerUser(t *testing.T) {
	if _, err := os.Stat("/proc/net/tcp"); err != nil {
		t.Skipf("missing: /proc/net/tcp, a Linux machine")
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skipf("missing: %s, an address of the loopback interface", address)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from, to := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(l.Addr().String())
		if uid, ok := peerUser(from, to); !ok || uid != os.Geteuid() {
			t.Errorf("%s: %d, %t, want %d", address, uid, ok, os.Geteuid())
		}
	}
}
