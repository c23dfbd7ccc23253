// Package freeport gives tests ports for programs that cannot choose one themselves, or that
// are to have the same again when they are restarted.
package freeport

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// The kernel gives what dials, and what listens on port 0, ports from 32768 on
// (net.ipv4.ip_local_port_range). One of those that is free now may be anybody's connection's
// a moment later, or while a program is down. So these are below, each once in a process,
// and processes begin at different ones.
const (
	first = 10_000
	count = 22_000
)

var given atomic.Uint32

// On returns a port of a host's that nobody listens on, and that no other test is given.
func On(t testing.TB, host string) (port string) {
	t.Helper()
	for range count {
		port = strconv.Itoa(first + (os.Getpid()*97+int(given.Add(1)))%count)
		if l, err := net.Listen("tcp", net.JoinHostPort(host, port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatalf("%s has no free port from %d to %d", host, first, first+count-1)
	return ""
}
