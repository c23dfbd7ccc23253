package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// Who is banned is state, in the order of the log: so all nodes keep out the same clients,
// and go on doing so after a restart. A ban names a client id, a user, a network, or more
// than one of these, and then all of them have to match: so a client that reconnects without
// end is kept out without anybody else who uses, or guesses, its client id.
//
// The Machine changes bans as it applies; who lets clients in asks them with the node's
// clock (Banned), under a lock of their own that nobody holds for long. Those who are
// connected when a ban begins are ended by each node that holds them (Config.Outlawed).
//
// Nodes ban by themselves, too (Limits of broker/mqtt: flapping clients). Such bans are half of all at most, so
// that they leave room for an administrator's, and are in no audit, which they could flood.

// Bounds of bans. One more is refused with ErrQuota.
const (
	MostBans     = 10_000
	MostAutoBans = MostBans / 2 // by nodes themselves

	mostBanned    = 1_024 // bytes of a client id or a user that is named
	mostBanReason = 256
)

// A Ban is one of those in force.
type Ban struct {
	event.Ban
	At int64 // log time at which it began, unix nanoseconds
}

// banName is what a ban is known by: the three that it names.
type banName struct{ client, user, network string }

func nameOfBan(b *event.Ban) banName { return banName{b.Client, b.User, b.Network} }

func (n banName) key() string { return n.client + "\x00" + n.user + "\x00" + n.network }

var bansPrefix = append([]byte{byte(store.Policies)}, "ban/"...) // and the name's key

func banKey(name banName) []byte { return append(slices.Clone(bansPrefix), name.key()...) }

// append appends b as stored: version u8, when it began, and the command.
func (b *Ban) append(to []byte) []byte {
	return b.Append(binary.AppendUvarint(append(to, recordVersion), uint64(b.At)))
}

func (b *Ban) decode(data []byte) error {
	if len(data) == 0 || data[0] != recordVersion {
		return event.ErrDamaged
	}
	u := uvarints{left: data[1:]}
	if b.At = int64(u.take()); u.short {
		return event.ErrDamaged
	}
	return event.Decode(&b.Ban, slices.Clone(u.left))
}

// bans are those in force. Those that name no network are found by what they name; of
// networks the lengths of prefixes that there are, which are few, are tried.
type bans struct {
	any atomic.Bool // there is one: who lets clients in mostly asks nothing else

	mu     sync.RWMutex // guards the following; the Machine alone changes it
	byName map[banName]*banned
	auto   int         // of them, that nodes made by themselves
	bits   map[int]int // lengths of prefixes, of IPv4 as those of IPv6, and how many there are
}

// banned is a ban as it is asked for.
type banned struct {
	Ban
	bits int // of its network; -1 for none
}

// bitsOf is the length of a network's prefix, in a number apart for each version of IP.
func bitsOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return p.Bits()
	}
	return 33 + p.Bits()
}

func (s *bans) put(b Ban) {
	made := &banned{b, -1}
	if p, err := netip.ParsePrefix(b.Network); err == nil {
		made.bits = bitsOf(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(nameOfBan(&b.Ban))
	s.byName[nameOfBan(&b.Ban)] = made
	s.count(made, 1)
}

func (s *bans) remove(name banName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(name)
}

func (s *bans) removeLocked(name banName) {
	if old := s.byName[name]; old != nil {
		delete(s.byName, name)
		s.count(old, -1)
	}
}

func (s *bans) count(b *banned, n int) {
	if b.Auto {
		s.auto += n
	}
	if b.bits >= 0 {
		if s.bits[b.bits] += n; s.bits[b.bits] == 0 {
			delete(s.bits, b.bits)
		}
	}
	s.any.Store(len(s.byName) > 0)
}

// match says whether a ban is in force at now for somebody. An empty user is one that is
// not known, or none.
func (s *bans) match(client, user string, addr netip.Addr, now int64) bool {
	if !s.any.Load() {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	networks := make([]string, 1, 1+len(s.bits)) // the first is none
	if addr = addr.Unmap().WithZone(""); addr.IsValid() {
		for bits := range s.bits { // in any order: one that matches is enough
			if addr.Is4() != (bits <= 32) {
				continue
			}
			if bits > 32 {
				bits -= 33
			}
			if p, err := addr.Prefix(bits); err == nil {
				networks = append(networks, p.String())
			}
		}
	}
	for _, network := range networks {
		for _, name := range [...]banName{{client, user, network}, {client, "", network}, {"", user, network}, {"", "", network}} {
			if b := s.byName[name]; b != nil && name != (banName{}) && (b.Until == 0 || now < b.Until) {
				return true
			}
		}
	}
	return false
}

// Banned says whether a client is to be kept out, by the node's clock. user is its
// principal, empty if that is not known yet, or there is none: who has not shown who they are is
// not told what is said of whom they claim to be. addr may be the zero Addr. For any goroutine.
func (b *Broker) Banned(client, user string, addr netip.Addr) bool {
	return b.machine.bans.match(client, user, addr, b.now())
}

// Bans returns those in force, as this node has them, by what they name. For any goroutine.
func (b *Broker) Bans() (all []Ban) {
	s, now := &b.machine.bans, b.now()
	s.mu.RLock()
	for _, one := range s.byName { // in any order: they are sorted
		if one.Until == 0 || now < one.Until {
			all = append(all, one.Ban)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b Ban) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Network, b.Network))
	})
	return all
}

// BanCount returns how many bans there are, and how many of them nodes made by themselves.
// For any goroutine.
func (b *Broker) BanCount() (all, auto int) {
	s := &b.machine.bans
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byName), s.auto
}

// Ban keeps somebody out, on all nodes, and ends their connections; it returns when this
// node has the ban. Unban ends one: ErrNoBan means that there is none.
func (b *Broker) Ban(ctx context.Context, c event.Ban) error     { return b.do(ctx, &c) }
func (b *Broker) Unban(ctx context.Context, c event.Unban) error { return b.do(ctx, &c) }

// EndClient ends the connection of a client, on whichever node it is; its will is published, as
// MQTT 5 has it for a connection that a server ends (5.0 3.1.2.5). With Drop its session ends, too, connected or
// not. ErrNoClient means that there is nothing to end.
func (b *Broker) EndClient(ctx context.Context, c event.Kick) error { return b.do(ctx, &c) }

func (m *Machine) loadBans() error {
	s := &m.bans
	s.mu.Lock()
	s.byName, s.bits, s.auto = map[banName]*banned{}, map[int]int{}, 0
	s.any.Store(false)
	s.mu.Unlock()
	var damaged error
	m.store.Scan(bansPrefix, store.End(bansPrefix), func(_, value []byte) bool {
		var b Ban
		if damaged = b.decode(value); damaged == nil {
			s.put(b)
		}
		return damaged == nil
	})
	if damaged != nil {
		return fmt.Errorf("machine: bans: %w", damaged)
	}
	return nil
}

// outlaw applies a command about bans, or one that ends a connection.
func (m *Machine) outlaw(kind event.Kind, body []byte) (err error) {
	var what, about, by, door string
	switch kind {
	case event.KindBan:
		var c event.Ban
		m.decode(&c, body)
		if err = m.applyBan(&c); c.Auto {
			return err
		}
		what, about, by, door = "ban "+nameOfBan(&c).String(), c.User, c.By, c.Door
	case event.KindUnban:
		var c event.Unban
		m.decode(&c, body)
		name := banName{c.Client, c.User, c.Network}
		what, about, by, door = "unban "+name.String(), c.User, c.By, c.Door
		err = m.applyUnban(name)
	default:
		var c event.Kick
		m.decode(&c, body)
		what, by, door = "kick client "+c.Client, c.By, c.Door
		if r := m.sessions[c.Client]; r != nil {
			about = r.principal
		}
		err = m.applyKick(&c)
	}
	result := "done"
	if err != nil {
		result = err.Error()
	}
	m.audit(AuditEntry{By: by, Door: door, What: what, About: about, Result: result})
	return err
}

// String names whom a ban is of, for people.
func (n banName) String() string {
	var parts []string
	for _, p := range [...]struct{ what, value string }{{"user", n.user}, {"client", n.client}, {"address", n.network}} {
		if p.value != "" {
			parts = append(parts, p.what+" "+p.value)
		}
	}
	return strings.Join(parts, " ")
}

// checkBan says what is wrong with a ban.
func checkBan(c *event.Ban, now int64) error {
	fault := ""
	p, err := netip.ParsePrefix(c.Network)
	switch {
	case nameOfBan(c) == banName{}:
		fault = "names nobody: give a client id, a user or an address"
	case len(c.Client) > mostBanned || len(c.User) > mostBanned || len(c.Reason) > mostBanReason:
		fault = fmt.Sprintf("a client id or user has at most %d bytes, a reason %d", mostBanned, mostBanReason)
	case !isBanText(c.Client) || !isBanText(c.User) || !isBanText(c.Reason):
		fault = "client id, user and reason are UTF-8 without NUL"
	case c.Network != "" && (err != nil || p.Masked().String() != c.Network || p.Addr().Is4In6() || p.Addr().Zone() != ""):
		fault = fmt.Sprintf("%.60q is no network such as 192.0.2.0/24", c.Network)
	case c.Until != 0 && c.Until <= now:
		fault = "it would be over already"
	default:
		return nil
	}
	return &Refusal{Cause: ErrPayload, Reason: "ban: " + fault}
}

func isBanText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

var errNoBansYet = &Refusal{Cause: ErrCondition, Reason: "not all nodes of the cluster know this yet: see bellwire cluster status, feature level"}

func (m *Machine) applyBan(c *event.Ban) error {
	if m.level < LevelBans {
		return errNoBansYet
	}
	if err := checkBan(c, m.now); err != nil {
		return err
	}
	name := nameOfBan(c)
	old := m.bans.byName[name] // the Machine alone changes it
	switch {
	case old != nil && c.Auto && !old.Auto:
		return nil // an administrator's stays as it is
	case old == nil && len(m.bans.byName) >= MostBans:
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: there are %d bans: remove one first", MostBans)}
	case c.Auto && (old == nil || !old.Auto) && m.bans.auto >= MostAutoBans:
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: there are %d bans by nodes themselves", MostAutoBans)}
	}
	if old != nil {
		m.clearBanWake(&old.Ban)
	}
	b := Ban{*c, m.now}
	for _, s := range [...]*string{&b.Client, &b.User, &b.Network, &b.Reason, &b.By, &b.Door} {
		*s = strings.Clone(*s)
	}
	m.bans.put(b)
	m.tx.Set(banKey(name), b.append(nil))
	if b.Until != 0 {
		m.setWakeName(b.Until, wakeBan, name.key())
	}
	m.out.steps = append(m.out.steps, step{kind: stepBans})
	return nil
}

// clearBanWake removes the wake at which a ban would end.
func (m *Machine) clearBanWake(b *Ban) {
	if b.Until != 0 {
		m.tx.Delete(wakeNameKey(m.key, b.Until, wakeBan, nameOfBan(&b.Ban).key()))
	}
}

func (m *Machine) applyUnban(name banName) error {
	old := m.bans.byName[name]
	if old == nil || old.Until != 0 && old.Until <= m.now {
		return &Refusal{Cause: ErrNoBan, Reason: "it has ended, or there never was one of exactly these"}
	}
	m.clearBanWake(&old.Ban)
	m.dropBan(name)
	return nil
}

// endBan is the wake of a ban whose time is over.
func (m *Machine) endBan(key string) {
	parts := strings.SplitN(key, "\x00", 3)
	name := banName{parts[0], parts[1], parts[2]}
	if b := m.bans.byName[name]; b != nil && b.Until != 0 && b.Until <= m.now {
		m.dropBan(name)
	}
}

func (m *Machine) dropBan(name banName) {
	m.bans.remove(name)
	m.tx.Delete(banKey(name))
}

func (m *Machine) applyKick(c *event.Kick) error {
	if m.level < LevelBans {
		return errNoBansYet
	}
	r := m.sessions[c.Client]
	switch {
	case r == nil:
		return &Refusal{Cause: ErrNoClient, Reason: "there is no session of that client id"}
	case !r.connected() && !c.Drop:
		return &Refusal{Cause: ErrNoClient, Reason: fmt.Sprintf("it is not connected, since %s; its session is kept", time.Unix(0, r.offlineAt).UTC().Format(time.RFC3339))}
	}
	if r.connected() {
		m.lost(r)
		m.endConnection(r, departure{cause: ErrKicked, will: true, cleared: c.Drop, why: codeAdministrative})
	}
	if m.numbers[r.session] != r {
		return nil // it has ended with its connection
	}
	if c.Drop {
		m.endSession(r, ErrKicked)
	} else {
		m.park(r)
	}
	return nil
}
