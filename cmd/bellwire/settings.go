package main

import (
	"context"
	"fmt"

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
// connections are its own, and those of its start.

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
		want.state = in.state
		for _, bound := range want.settings.OfPrincipals() {
			*bound = 0
		}
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
		if err := s.broker.SetProfileSettings(ctx, im.New().Name(), want.im.Settings()); err != nil {
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

// reload reads the files again that are state, and has them ordered: the limits
// and the policy. A bad file changes nothing.
func (s *server) reload(ctx context.Context, f serveFlags) {
	s.lookAtTLS()
	s.reloadSettings(ctx, f.limits)
	if f.policy != "" || f.limits == "" {
		s.reloadPolicy(ctx, f.policy)
	}
}

func (s *server) reloadSettings(ctx context.Context, name string) {
	c := s.config
	var err error
	if name != "" {
		c.limits, err = readLimits(name, readRegular)
	}
	if err == nil {
		in := s.inForce()
		want := s.wantedBy(c, in)
		if in == want {
			return
		}
		err = s.agree(ctx, want, true)
	}
	if err != nil {
		logger := s.config.logger.With("file", name)
		n := logFaults(logger, "a fault in the limits file", err)
		logger.Error("limits not changed: those in force stay", "faults", n, "code", bw.LimitsFile.String())
		return
	}
	s.config.logger.Info("limits changed", "file", name)
}

// warnOfOtherSettings says that what is configured is not what is in force.
func (s *server) warnOfOtherSettings() {
	in := s.inForce()
	if want := s.wanted(in); in != want {
		s.config.logger.Warn("domain or limits differ from those in force: send SIGHUP to put them in force",
			"in_force", fmt.Sprintf("%+v", in), "configured", fmt.Sprintf("%+v", want))
	}
}
