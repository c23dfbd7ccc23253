package broker

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/broker/store"
)

// A Level says what a cluster's log and state may hold: kinds of command, rules by
// which they are applied, forms that are stored. It is state. Programs of several
// versions make up a cluster while it is upgraded, and must do the same to the same
// entries; so what came with a level is used only once all members know it and the
// log has said so (see event.Raise), and then for good: a program that does not
// know the level is not let in, and does not open what is written.
//
// What a level brings is asked for where it differs: by the Machine, of its own
// level, which is that of the command under way; by whoever proposes, of
// Broker.Level. A level's meaning never changes once a program that has it is in
// use: that is what the formats listed in docs/formats.md are.
type Level uint8

const (
	FirstLevel   Level = 1 // what has no level written down
	LevelRaises  Level = 2 // levels: event.Raise
	LevelShared  Level = 3 // shared subscriptions
	LevelStreams Level = 4 // streams: one body and a cursor per session

	levelForgets = LevelStreams // profiles forget whom the policy knows no more
	levelBeside  = LevelStreams // durable sessions are shown resources beside their queues: see beside

	// Events that policies keep in memory only go from node to node at QoS 1 and 2.
	levelMemory = LevelStreams

	// LevelPolicies brings the history of the operator's policies: the same level, for
	// both came before any program that has it was in use.
	LevelPolicies = LevelStreams

	// LevelOwners brings the second form of owners' policies, and personas: likewise.
	LevelOwners = LevelStreams

	// LevelSecret is that from which on the cluster has a secret: likewise.
	LevelSecret = Level(event.SecretLevel)

	// LevelRequests is that from which on subscriptions are requests, profiles are asked
	// to do things, and those of state have settings: likewise.
	LevelRequests = LevelStreams

	// LevelWeights is that from which on what composing a resource takes is bounded:
	// likewise.
	LevelWeights = LevelStreams

	// LevelDelayed is that from which on events are delayed: likewise.
	LevelDelayed = LevelStreams

	// LevelBans is that from which on there are bans, and clients are kicked: likewise.
	LevelBans = LevelStreams

	// LevelClients is that from which on the log has what is told of clients: likewise.
	LevelClients = LevelStreams

	// LevelExact is that from which on a node says what it knows of the connection before
	// the one that ends (see event.Disconnect): likewise.
	LevelExact = LevelStreams

	// LevelNamed is that from which on it is known by what name a subscription was made
	// that was rewritten (see Session.UnsubscribeNamed): likewise.
	LevelNamed = LevelStreams

	// LevelHours is that from which on messages to strangers, and requests
	// of other domains, have a rate an hour: likewise.
	LevelHours = LevelStreams

	// LevelNobody is that from which on clients without a name leave room to others, and what
	// they retain says so: likewise.
	LevelNobody = LevelStreams

	// LevelLocal is that from which on what is retained is known by its client, for No Local:
	// likewise.
	LevelLocal = LevelStreams

	// LevelOrphans is that from which on a session of many subscriptions ends without them
	// (see endSubs): likewise.
	LevelOrphans = LevelStreams

	// NewestLevel is the newest that this program knows. Those above are reserved.
	NewestLevel = LevelStreams
)

// Level returns the feature level in force, as of the last entry applied here. It
// only rises. For any goroutine.
func (b *Broker) Level() Level { return Level(b.machine.levelShown.Load()) }

// Forgets says whether profiles forget whom the policy has not named for ForgetAfter:
// whether the level that brings it is in force. For any goroutine.
func (b *Broker) Forgets() bool { return b.Level() >= levelForgets }

// Secret returns the cluster's secret, of which keys are derived; nil below
// LevelSecret. For any goroutine.
func (b *Broker) Secret() secret.Secret { return b.machine.secretNow() }

// Raise raises the feature level to the given one, on all nodes, and returns when
// this one has: it must be known to all of them. One that is reached is left alone.
// The cluster's secret is drawn here, if this may be what brings it.
func (b *Broker) Raise(ctx context.Context, to Level) error {
	if to <= b.Level() {
		return nil
	}
	c := &event.Raise{Level: uint8(to)}
	if to >= LevelSecret {
		c.Secret = secret.New()
	}
	return b.do(ctx, c)
}

// applyRaise puts a feature level in force, from the next command on.
func (m *Machine) applyRaise(c *event.Raise) error {
	to := Level(c.Level)
	if to > NewestLevel {
		// The others go on by rules that are not in this program.
		panic(fatal{fmt.Sprintf("feature level %d, this program knows up to %d: upgrade this node", to, NewestLevel)})
	}
	if to <= m.level {
		return nil
	}
	m.raised(to)
	begins := m.level < LevelPolicies && to >= LevelPolicies
	m.level = to
	if begins {
		m.beginHistory()
	}
	if m.secret == nil && c.Secret != nil {
		m.secret = slices.Clone(c.Secret)
		m.tx.Set(secretKey, m.secret)
		m.out.steps = append(m.out.steps, step{kind: stepSecret})
	}
	m.tx.Set(levelKey, []byte{c.Level})
	m.rejudge()
	return nil
}

// loadSecret reads the cluster's secret. A state that ought to have one and has none
// is refused: what follows from the secret, such as the tags that clients have, would
// be known to everybody, or be another on each node.
func (m *Machine) loadSecret() error {
	m.secret = nil
	v, _ := m.store.Get(secretKey, nil)
	switch {
	case len(v) == secret.Size:
		m.secret = v
	case len(v) > 0:
		return event.ErrDamaged
	case m.level >= LevelSecret:
		return fmt.Errorf("%w: feature level %d, and no secret of the cluster's: a version under development wrote this state: begin with an empty data directory", store.ErrDamaged, m.level)
	}
	return nil
}

// showSecret has secretNow return the secret that is in the store.
func (m *Machine) showSecret() {
	if bytes.Equal(m.secret, m.secretNow()) {
		return
	}
	s := m.secret
	m.secretShown.Store(&s)
}

// secretNow is the cluster's secret as of the last entry applied, nil if there is
// none. For any goroutine.
func (m *Machine) secretNow() secret.Secret {
	if s := m.secretShown.Load(); s != nil {
		return *s
	}
	return nil
}
