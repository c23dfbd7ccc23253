package broker

import (
	"encoding/binary"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// How groups are stored.

// touchGroup takes note that g differs from its stored form.
func (m *Machine) touchGroup(g *group) {
	if !g.dirty {
		g.dirty = true
		m.touchedGroups = append(m.touchedGroups, g)
	}
}

// writeGroups stores the groups that have changed.
func (m *Machine) writeGroups() {
	for _, g := range m.touchedGroups {
		if m.groups[g.session] == g {
			g.dirty, g.growing = false, false
			m.tx.Set(groupKey(m.key, g.filter), g.append(m.val[:0]))
		}
	}
}

func groupKey(buf []byte, filter string) []byte {
	return append(store.Key(buf, store.Groups), filter...)
}

// append appends g as stored: what decode reads. The members are in the
// subscriptions.
//
//	version u8 | number, turn, passed uvarints | edge 8 bytes | founder: uvarint length, bytes
func (g *group) append(b []byte) []byte {
	b = append(b, recordVersion)
	for _, v := range [...]uint64{g.session, g.turn, g.passed} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.AppendUvarint(binary.BigEndian.AppendUint64(b, uint64(g.edge)), uint64(len(g.founder)))
	return append(b, g.founder...)
}

func (g *group) decode(b []byte) error {
	if len(b) == 0 || b[0] != recordVersion {
		return event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	g.session, g.turn, g.passed = u.take(), u.take(), u.take()
	if u.short || g.session == 0 || len(u.left) < 8 {
		return event.ErrDamaged
	}
	g.edge, u.left = int64(store.Uint64At(u.left, 0)), u.left[8:]
	if size := u.take(); u.short || size != uint64(len(u.left)) {
		return event.ErrDamaged
	}
	g.founder = string(u.left)
	return nil
}

// loadGroups reads the groups; their members come with the subscriptions.
func (m *Machine) loadGroups() error {
	return m.each(store.Groups, "groups", func(key, value []byte) error {
		g := &group{filter: string(key)}
		var shared bool
		if g.rest, shared = sharedRest(g.filter); !shared {
			return event.ErrDamaged
		}
		if err := g.decode(value); err != nil {
			return err
		}
		m.addGroup(g)
		return nil
	})
}

// loadMember makes r a member as the store says.
func (m *Machine) loadMember(r *record, s storedSub) error {
	g := m.byFilter[s.Filter]
	if g == nil {
		return event.ErrDamaged
	}
	s.group = g.session
	at, had := g.find(r.session)
	r.groups = append(r.groups, g)
	g.setMember(at, had, r, s)
	return nil
}
