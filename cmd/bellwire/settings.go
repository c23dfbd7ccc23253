package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/inbox"
	"github.com/bellwire/bellwire/profiles/state"
)

// The domain, and those limits that are about what all nodes hold alike, decide
// how commands are applied. So they are replicated state, as the policy is: what is
// configured is proposed at the first start and on SIGHUP. The limits of a node's
// connections are its own; most of them change on SIGHUP, too (hangupRows).

// An agreement is what of the configuration the log decides by.
type agreement struct {
	settings event.Settings
	im       inbox.Limits
	state    state.Limits // of presence and location alike
}

// stateKinds are those of state.
var stateKinds = []string{"presence", "location"}

// wanted is what is configured, and of what is not, what is in force: a node that was
// told nothing of a domain or of limits, as one that joins, changes nothing about them.
func (c *serverConfig) wanted(in agreement) agreement {
	want := agreement{c.limits.broker.Settings(c.domain), c.limits.im.WithDefaults(), c.limits.state.WithDefaults()}
	if in.settings != (event.Settings{}) {
		if !c.limited {
			want.settings = in.settings
			want.settings.Domain = c.domain
		}
		if c.domain == "" {
			want.settings.Domain = in.settings.Domain
		}
	}
	if in.im != (inbox.Limits{}) && !c.limited {
		want.im = in.im
	}
	if in.state != (state.Limits{}) && !c.limited {
		want.state = in.state
	}
	return want
}

// wanted is what this server's configuration wants.
func (s *server) wanted(in agreement) agreement { return s.wantedBy(s.config, in) }

// wantedBy is wanted of a configuration, but for what the level does not have yet.
func (s *server) wantedBy(c serverConfig, in agreement) agreement {
	want := c.wanted(in)
	if s.broker.Level() < broker.LevelRequests {
		want.state, want.im.Strangers = in.state, inbox.Limits{}.WithDefaults().Strangers
		for _, bound := range want.settings.OfPrincipals() {
			*bound = 0
		}
		for _, bound := range want.settings.OfGroups() {
			*bound = 0
		}
		want.settings.Principals = ""
	}
	return want
}

// inForce is what the log has; of what it has not, nothing. Presence and location have
// settings from the level on that brings them; before, those that are so by default hold.
func (s *server) inForce() (a agreement) {
	if settings, ok := s.broker.Settings(); ok {
		a.settings = settings
	}
	a.state, _ = state.ReadSettings(s.broker.ProfileSettings(stateKinds[0]))
	a.im, _ = inbox.ReadSettings(s.broker.ProfileSettings(im.New().Name()))
	return a
}

// agree has the log decide by what want has that is not in force, but where it
// has anything yet only if others may be changed.
func (s *server) agree(ctx context.Context, want agreement, others bool) error {
	in := s.inForce()
	if in.settings != want.settings && (others || in.settings == event.Settings{}) {
		if err := s.broker.SetSettings(ctx, want.settings); err != nil {
			return err
		}
	}
	if in.im != want.im && (others || in.im == inbox.Limits{}) {
		if err := s.broker.SetProfileSettings(ctx, im.New().Name(), want.im.Settings(s.broker.Level())); err != nil {
			return err
		}
	}
	if s.broker.Level() < broker.LevelRequests || in.state == want.state || !others && in.state != (state.Limits{}) {
		return nil
	}
	for _, name := range stateKinds {
		if err := s.broker.SetProfileSettings(ctx, name, want.state.Settings()); err != nil {
			return err
		}
	}
	return nil
}

// firstSettings puts the configured settings in force if none ever were. After
// that they change by command only: a node that starts with an old file must not
// change them for all others.
func (s *server) firstSettings(ctx context.Context) error {
	return s.agree(ctx, s.wanted(s.inForce()), false)
}

// reload reads the files again that may change: the limits, the policy and the bridges. What is state is
// ordered, the rest is this node's. A bad file changes nothing. What else has changed needs a start, and is named.
func (s *server) reload(ctx context.Context, f serveFlags) {
	s.lookAtTLS()
	s.reloadSettings(ctx, f)
	if f.policy != "" || f.limits == "" {
		s.reloadPolicy(ctx, f.policy)
	}
	s.reloadBridges(f)
	s.warnOfLater(f)
}

// limitsNow reads again what is configured of limits, and returns which file says it: none
// but those that said so at the start are read.
func (f serveFlags) limitsNow() (l limits, file string, err error) {
	if f.limits == "" && f.config != "" {
		f.limitRows = limits{}
		if err := f.readConfig(func(flag string) bool { return flag != "limits" }); err != nil {
			return l, f.config, err
		}
	}
	if f.limits == "" {
		return f.limitRows, f.config, nil
	}
	l, err = readLimits(f.limits, readRegular)
	return l, f.limits, err
}

// reloadSettings puts the limits in force that are configured now: first those that all nodes
// have alike, then this node's. What needs a start is named.
func (s *server) reloadSettings(ctx context.Context, f serveFlags) {
	l, file, err := f.limitsNow()
	logger := s.config.logger.With("file", file)
	before := s.limitsInForce()
	var later []string
	if err == nil {
		c, in := s.config, s.inForce()
		c.limits, c.limited = l, c.limited || l != limits{}
		if want := s.wantedBy(c, in); in != want {
			err = s.agree(ctx, want, true)
		}
	}
	if err == nil {
		later, err = s.changeOwn(l)
	}
	if err != nil {
		n := logFaults(logger, "a fault in the limits file", err)
		logger.Error("limits not changed: those in force stay", "faults", n, "code", bw.LimitsFile.String())
		return
	}
	after := s.limitsInForce()
	if changed := differing(&before, &after); len(changed) > 0 {
		logger.Info("limits changed", "rows", changed)
	}
	if len(later) > 0 {
		logger.Warn("limits that change at the next start only", "rows", later)
	}
}

// differing names the rows that have another value in b than in a, both with their defaults.
func differing(a, b *limits) (rows []string) {
	for i := range limitRows {
		if value := limitFacts[limitRows[i].name].value; value(a) != value(b) {
			rows = append(rows, limitRows[i].name)
		}
	}
	if !samePrincipals(a, b) {
		rows = append(rows, "principals")
	}
	return rows
}

// changeOwn puts those of a node's own limits in force that need no start, and names the
// others that differ. For the goroutine of serve.
func (s *server) changeOwn(to limits) (later []string, err error) {
	next := *s.ownLimits.Load()
	is, _ := next.withDefaults()
	want, err := to.withDefaults()
	if err != nil {
		return nil, err
	}
	next.mqtt.Principals = want.mqtt.Principals
	for _, name := range differing(&is, &want) {
		at := slices.IndexFunc(limitRows, func(r limitRow) bool { return r.name == name })
		if at < 0 {
			continue // principals, which are done
		}
		row := &limitRows[at]
		switch n := limitFacts[name].value(&want); {
		case row.isAgreed(): // the log has it
		case hangupRows[name] == "":
			later = append(later, name)
		case n == 0 && row.mayBeNone:
			row.set(&next, unlimited)
		default:
			row.set(&next, n)
		}
	}
	if err := s.mqtt.SetLimits(next.mqtt); err != nil {
		return nil, err
	}
	s.boundDocuments(next.document)
	s.notifyEvery(next.notify)
	s.fetches.Change(next.fetches.all())
	s.repeats.Change(next.fetches.same())
	s.ownLimits.Store(&next)
	return later, nil
}

// warnOfOtherSettings says that what is configured is not what is in force.
func (s *server) warnOfOtherSettings() {
	in := s.inForce()
	if want := s.wanted(in); in != want {
		s.config.logger.Warn("domain or limits differ from those in force: send SIGHUP to put them in force",
			"in_force", fmt.Sprintf("%+v", in), "configured", fmt.Sprintf("%+v", want))
	}
}
