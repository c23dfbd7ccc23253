package broker

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// load makes memory what the store says.
func (m *Machine) load() error {
	m.sessions, m.numbers, m.principals = map[string]*record{}, map[uint64]*record{}, byPrincipal[*record]{}
	m.users, m.nobody = map[string]*userCount{}, nobody{}
	m.nodes, m.segments = map[string]nodeState{}, map[uint64]*segment{}
	m.durable = topic.NewIndex(m.fanoutOf, fanoutCache)
	m.weights.Store(m.durable)
	m.groups, m.byFilter, m.founded = map[uint64]*group{}, map[string]*group{}, map[string]int{}
	m.shared = topic.NewIndex(m.sharersOf, fanoutCache)
	m.sharedWeights.Store(m.shared)
	m.retained.Store(0)
	m.counters, m.policy, m.operators, m.policyData, m.inForce = counters{}, nil, nil, nil, 0
	m.parts = nil
	m.domains.reset()
	m.over = m.over[:0]

	var index uint64
	if v, ok := m.store.Get(appliedKey, nil); ok {
		index, m.term, m.now = readPosition(v)
	}
	if v, ok := m.store.Get(countersKey, nil); ok {
		if err := m.counters.decode(v); err != nil {
			return fmt.Errorf("machine: counters: %w", err)
		}
	}
	m.level = FirstLevel
	if v, ok := m.store.Get(levelKey, nil); ok && len(v) == 1 {
		m.level = Level(v[0])
	}
	if m.level > NewestLevel {
		return fmt.Errorf("machine: %w: feature level %d, this program knows %d", store.ErrNewer, m.level, NewestLevel)
	}
	var err error
	if err = m.loadSecret(); err != nil {
		return fmt.Errorf("machine: secret: %w", err)
	}
	if m.grown, err = loadNumber[int](m.store, grownKey); err != nil {
		return fmt.Errorf("machine: growth of queues: %w", err)
	}
	if m.copies, err = loadNumber[uint64](m.store, copiesKey); err != nil {
		return fmt.Errorf("machine: copies: %w", err)
	}
	for _, load := range []func() error{m.loadSettings, m.loadPolicy, m.loadHistory, m.loadAudits, m.loadNodes, m.loadSessions, m.loadGroups, m.loadStreams, m.loadQueues, m.loadSubs, m.loadAsked, m.loadProvided, m.loadWatched, m.loadBans, m.loadDelayed, m.loadRest, m.loadJoined, m.loadChores} {
		if err := load(); err != nil {
			return err
		}
	}
	m.sharedWaiting.Store(0)
	for _, g := range m.groups {
		m.countWaiting(&g.record)
	}
	m.known.Store(int64(len(m.sessions)))
	m.countWaitingSessions()
	m.segmentsShown.Store(int64(len(m.segments)))
	m.levelShown.Store(uint32(m.level))
	m.showSecret()
	m.applied.Store(index)
	m.failures.Store(m.counters.failure)
	m.findNextWake() // what was known of it is of another state
	return nil
}

// loadNumber reads a number that the store may have, 0 if it has none.
func loadNumber[N int | uint64](s *store.Store, key []byte) (n N, err error) {
	v, ok := s.Get(key, nil)
	if !ok {
		return 0, nil
	}
	u := uvarints{left: v}
	if n = N(u.take()); u.short || len(u.left) > 0 {
		return 0, event.ErrDamaged
	}
	return n, nil
}

// each calls f for every key of a space, without its first byte, and stops at
// the first error, which it returns with the space's name.
func (m *Machine) each(space store.Space, name string, f func(key, value []byte) error) (err error) {
	lower := []byte{byte(space)}
	m.store.Scan(lower, store.End(lower), func(key, value []byte) bool {
		if err = f(key[1:], value); err != nil {
			err = fmt.Errorf("machine: %s: %w", name, err)
		}
		return err == nil
	})
	return err
}

func (m *Machine) loadSettings() error {
	m.settings, m.limits, m.ofProfiles = nil, m.begin, map[string][]byte{}
	m.single = singleOf(m.begin.Principals)
	for _, prefix := range m.prefixes {
		if data, ok := m.store.Get(ofProfileKey(prefix), nil); ok {
			m.ofProfiles[prefix] = data
		}
	}
	data, ok := m.store.Get(settingsKey, nil)
	if !ok {
		return nil
	}
	m.settings = new(event.Settings)
	if err := event.Decode(m.settings, data); err != nil {
		return fmt.Errorf("machine: settings: %w", err)
	}
	single, err := event.ReadPrincipals(m.settings.Principals)
	if err != nil {
		return fmt.Errorf("machine: settings: %w", err)
	}
	m.limits, m.single = m.limits.Agreed(m.settings), single
	return nil
}

func (m *Machine) loadPolicy() error {
	m.loadLeft()
	data, ok := m.store.Get(policyKey, nil)
	if !ok {
		return nil
	}
	policy, err := m.compile(data, m.domain())
	if err != nil {
		return fmt.Errorf("machine: the logged policy does not compile (installed by a newer version?): %w", err)
	}
	if err := m.loadParts(); err != nil {
		return err
	}
	m.operators, m.policyData = policy, data
	m.policy = m.combined(policy)
	m.domains.adopt(m.policy)
	m.delayed.adopt(m.policy)
	if v, ok := m.store.Get(inForceKey, nil); ok && len(v) == 8 {
		m.inForce = int64(store.Uint64At(v, 0))
	}
	return nil
}

func (m *Machine) loadNodes() error {
	return m.each(store.Nodes, "nodes", func(key, value []byte) error {
		n := nodeState{name: string(key)}
		if err := n.decode(value); err != nil {
			return err
		}
		m.nodes[n.name] = n
		return nil
	})
}

func (m *Machine) loadSessions() error {
	return m.each(store.Sessions, "sessions", func(key, value []byte) error {
		r, err := decodeRecord(string(key), value)
		if err != nil {
			return err
		}
		if state, known := m.nodes[r.node]; known {
			r.node = state.name
		}
		m.sessions[r.client], m.numbers[r.session] = r, r
		m.principals.add(r.principal, r.session, r)
		m.nobody.addSession(r.principal, 1)
		r.use = m.domains.of(r.principal)
		r.use.add(useSessions, 1)
		r.user = m.userOf(r.principal)
		return nil
	})
}

func (m *Machine) loadQueues() error {
	err := m.each(store.Cursors, "cursors", func(key, value []byte) error {
		if len(key) != 8 {
			return event.ErrDamaged
		}
		r := m.numbers[store.Uint64At(key, 0)]
		if r == nil {
			return nil // of a session that is being purged
		}
		if err := r.queue.decode(value); err != nil {
			return err
		}
		r.use.add(useQueueBytes, int(r.queue.bytes))
		m.noteOver(r)
		return nil
	})
	if err != nil {
		return err
	}
	return m.each(store.Inbound, "inbound", func(key, _ []byte) error {
		if len(key) != 10 {
			return event.ErrDamaged
		}
		if r := m.numbers[store.Uint64At(key, 0)]; r != nil {
			r.remember(uint16(key[8])<<8 | uint16(key[9]))
		}
		return nil
	})
}

func (m *Machine) loadSubs() error {
	return m.each(store.Subs, "subscriptions", func(key, value []byte) error {
		s, err := decodeSub(value)
		if err != nil {
			return err
		}
		r := m.numbers[store.Uint64At(key, 0)]
		if r == nil {
			if _, shared := sharedRest(s.Filter); !shared {
				m.durable.Set(s.Filter, store.Uint64At(key, 0), s) // an orphan
			}
			return nil
		}
		m.addSub(r, s.Filter, 1)
		if _, shared := sharedRest(s.Filter); shared {
			return m.loadMember(r, s)
		}
		m.durable.Set(s.Filter, r.session, s)
		return nil
	})
}

// loadRest counts what is only counted: retained topics, bodies and the queue
// entries that refer to them; and notes when entries expire.
func (m *Machine) loadRest() error {
	err := m.each(store.Retained, "retained", func(_, value []byte) error {
		var e event.Event
		if err := decodeRetained(value, &e); err != nil {
			return err
		}
		m.retained.Add(1)
		m.countRetained(retainedBy(value), 1)
		return nil
	})
	if err != nil {
		return err
	}
	err = m.each(store.Bodies, "bodies", func(key, _ []byte) error {
		if len(key) != 8 {
			return event.ErrDamaged
		}
		m.segment(store.Uint64At(key, 0)).bodies = true
		return nil
	})
	if err != nil {
		return err
	}
	return m.each(store.Queue, "queues", func(key, value []byte) error {
		e, err := decodeEntry(value)
		if err != nil || len(key) != 16 {
			return event.ErrDamaged
		}
		if e.body != 0 {
			m.segment(e.body).live++
		}
		r := m.numbers[store.Uint64At(key, 0)]
		if r == nil {
			return nil
		}
		if e.mark != "" {
			r.noteMark(e.mark, store.Uint64At(key, 8))
		}
		if e.ref != "" {
			r.noteRef(e.ref)
		}
		if e.group != 0 {
			r.copies = append(r.copies, store.Uint64At(key, 8))
		}
		if len(r.debts) > 0 && store.Uint64At(key, 8) >= r.debts[0].number {
			r.direct = r.direct.add(store.Uint64At(key, 8), store.Uint64At(key, 8)+1)
		}
		if e.due() != 0 {
			r.queue.expires(store.Uint64At(key, 8), e.due())
		}
		return nil
	})
}
