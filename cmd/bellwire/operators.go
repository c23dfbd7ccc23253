package main

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

func (s *server) operators() *api.Operators {
	return &api.Operators{
		Identify: s.signIn,
		Includes: func(principal string) bool {
			a, ok := s.broker.Policy().(*authorizer)
			return ok && a.Operates(principal)
		},
		Administers: func(principal string) []string {
			if a, ok := s.broker.Policy().(*authorizer); ok {
				return a.Administers(principal)
			}
			return nil
		},
		Audits: audits{s},
		Local: func(from, to netip.AddrPort) bool {
			uid, ok := peerUser(from, to)
			return ok && (uid == 0 || uid == os.Geteuid())
		},
	}
}

// Operates says whether principal is one of the cluster's operators.
func (a *authorizer) Operates(principal string) bool { return a.policy.Operates(principal) }

// Administers returns the domains that principal administers.
func (a *authorizer) Administers(principal string) []string { return a.policy.Administers(principal) }

// TellsClient says whether principal is told of clients of a domain, or of their addresses.
func (a *authorizer) TellsClient(principal, domain string, address bool) bool {
	return a.policy.TellsClient(principal, domain, address)
}

var _ broker.Overseer = (*authorizer)(nil)

// peerUser returns the user whose process of this machine has the other end of a
// TCP connection, at from, to to here, as Linux's /proc tells. It is false where
// there is no /proc, and for other machines.
func peerUser(from, to netip.AddrPort) (uid int, ok bool) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if uid, ok := socketUser(string(text), from, to); ok {
			return uid, true
		}
	}
	return 0, false
}

// socketUser returns the owner of the socket at local that is connected with
// remote, from the text of /proc/net/tcp or tcp6 (see listeners).
func socketUser(text string, local, remote netip.AddrPort) (uid int, ok bool) {
	const localField, remoteField, stateField, uidField, established = 1, 2, 3, 7, "01"
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) <= uidField || f[stateField] != established {
			continue
		}
		l, ok1 := parseProcAddress(f[localField])
		r, ok2 := parseProcAddress(f[remoteField])
		if !ok1 || !ok2 || !sameAddress(l, local) || !sameAddress(r, remote) {
			continue
		}
		if uid, err := strconv.Atoi(f[uidField]); err == nil {
			return uid, true
		}
	}
	return 0, false
}

func sameAddress(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap().WithZone("")
}

// parseProcAddress reads 0100007F:075B: 32-bit words in the byte order of this
// machine, and the port.
func parseProcAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || len(host)%8 != 0 {
		return netip.AddrPort{}, false
	}
	var b []byte
	for i := 0; i < len(host); i += 8 {
		word, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}
