package main

import (
	"context"
	"fmt"

	"github.com/bellwire/bellwire/broker/event"
)

// The domain, and those limits that are about what all nodes hold alike, decide
// how commands are applied. So they are replicated state, as the policy is: what is
// configured is proposed at the first start and on SIGHUP. The limits of a node's
// connections are its own, and those of its start.

// settings are what the configuration wants the log to decide by.
func (c *serverConfig) settings() event.Settings { return c.limits.broker.Settings(c.domain) }

// firstSettings puts the configured settings in force if none ever were. After
// that they change by command only: a node that starts with an old file must not
// change them for all others.
func (s *server) firstSettings(ctx context.Context) error {
	if _, ok := s.broker.Settings(); ok {
		return nil
	}
	return s.broker.SetSettings(ctx, s.config.settings())
}

// reload reads the files again that are state, and has them ordered: the limits
// and the policy. A bad file changes nothing.
func (s *server) reload(ctx context.Context, f serveFlags) {
	s.reloadSettings(ctx, f.limits)
	if f.policy != "" || f.limits == "" {
		s.reloadPolicy(ctx, f.policy)
	}
}

func (s *server) reloadSettings(ctx context.Context, name string) {
	c := s.config
	var err error
	if name != "" {
		c.limits, err = readLimits(name)
	}
	if err == nil {
		if in, _ := s.broker.Settings(); in == c.settings() {
			return
		}
		err = s.broker.SetSettings(ctx, c.settings())
	}
	if err != nil {
		s.config.logger.Error("limits not changed: those in force stay", "file", name, "err", err.Error())
		return
	}
	s.config.logger.Info("limits changed", "file", name)
}

// warnOfOtherSettings says that what is configured is not what is in force.
func (s *server) warnOfOtherSettings() {
	if in, _ := s.broker.Settings(); in != s.config.settings() {
		s.config.logger.Warn("domain or limits differ from those in force: send SIGHUP to put them in force",
			"in_force", fmt.Sprintf("%+v", in), "configured", fmt.Sprintf("%+v", s.config.settings()))
	}
}
