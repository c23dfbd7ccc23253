package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// banned are a server's bans as HTTP shows and changes them.
type banned struct{ s *server }

var _ api.Bans = banned{}

// outlawed has clients ended that are banned by now.
func (s *server) outlawed() {
	if m := s.serving.Load(); m != nil {
		m.Outlawed()
	}
}

// List implements api.Bans.
func (b banned) List(context.Context) ([]api.Ban, error) {
	all := []api.Ban{}
	for _, one := range b.s.broker.Bans() {
		all = append(all, shownBan(&one.Ban, one.At))
	}
	return all, nil
}

func shownBan(b *event.Ban, at int64) api.Ban {
	shown := api.Ban{Client: b.Client, User: b.User, Address: b.Network, Reason: b.Reason, By: b.By, Auto: b.Auto}
	if p, err := netip.ParsePrefix(b.Network); err == nil && p.IsSingleIP() {
		shown.Address = p.Addr().String()
	}
	since := time.Unix(0, at).UTC()
	shown.Since = &since
	if b.Until != 0 {
		until := time.Unix(0, b.Until).UTC()
		shown.Until = &until
	}
	return shown
}

// longestBan is that of a ban that ends; longer ones are for good.
const longestBan = 100 * 365 * 24 * time.Hour

// Ban implements api.Bans.
func (b banned) Ban(ctx context.Context, by string, one api.Ban) (api.Ban, error) {
	c, err := b.named(one)
	if err != nil {
		return api.Ban{}, err
	}
	now := b.s.now()
	switch {
	case one.Until != nil && one.Seconds > 0:
		return api.Ban{}, fmt.Errorf("%w: it has seconds and until: give one of them", api.ErrUnacceptable)
	case one.Until != nil && !one.Until.After(now):
		return api.Ban{}, fmt.Errorf("%w: until: that is over", api.ErrUnacceptable)
	case one.Seconds > uint64(longestBan/time.Second) || one.Until != nil && one.Until.Sub(now) > longestBan:
		return api.Ban{}, fmt.Errorf("%w: a ban that ends does so within 100 years", api.ErrUnacceptable)
	case one.Seconds > 0:
		c.Until = now.Add(time.Duration(one.Seconds) * time.Second).UnixNano()
	case one.Until != nil:
		c.Until = one.Until.UnixNano()
	}
	c.Reason, c.By, c.Door = one.Reason, by, doorFor(by)
	return shownBan(&c, now.UnixNano()), banFault(b.s.broker.Ban(ctx, c))
}

// Unban implements api.Bans.
func (b banned) Unban(ctx context.Context, by string, one api.Ban) error {
	c, err := b.named(one)
	if err != nil {
		return err
	}
	return banFault(b.s.broker.Unban(ctx, event.Unban{Client: c.Client, User: c.User, Network: c.Network, By: by, Door: doorFor(by)}))
}

// Kick implements api.Bans.
func (b banned) Kick(ctx context.Context, by string, k api.Kicking) error {
	return banFault(b.s.broker.EndClient(ctx, event.Kick{Client: k.Client, Drop: k.Session, By: by, Door: doorFor(by)}))
}

// doorFor is the door of who has come by HTTP.
func doorFor(by string) string {
	if by == "local" {
		return by
	}
	return "http"
}

// named reads what a ban names: a user by their address, or by their name alone of the
// node's domain, and a network by any of its addresses.
func (b banned) named(one api.Ban) (c event.Ban, err error) {
	c.Client = one.Client
	if c.User, err = b.s.userNamed(one.User); err != nil {
		return c, err
	}
	if one.Address != "" {
		if c.Network, err = networkOf(one.Address); err != nil {
			return c, fmt.Errorf("%w: %w", api.ErrUnacceptable, err)
		}
	}
	return c, nil
}

// userNamed returns the principal that a user is by name or address; none for an empty name.
func (s *server) userNamed(name string) (principal string, err error) {
	if name == "" {
		return "", nil
	}
	in, _ := s.broker.Settings()
	if principal, err = acl.ParseAddress(name, in.Domain); err != nil {
		return "", fmt.Errorf("%w: user: %w", api.ErrUnacceptable, err)
	}
	return principal, nil
}

// networkOf reads an address, or a network in CIDR notation.
func networkOf(text string) (string, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil {
			return "", fmt.Errorf("address: %.60q is no IP address, and no network such as 192.0.2.0/24", text)
		}
		addr = addr.Unmap().WithZone("")
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return "", fmt.Errorf("address: %s is a network of IPv4 in IPv6: write it as IPv4", text)
	case p.Bits() == 0:
		return "", fmt.Errorf("address: %s is everybody", text)
	}
	return p.Masked().String(), nil
}

// banFault translates what became of a change.
func banFault(err error) error {
	as := error(nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, broker.ErrPayload):
		as = api.ErrUnacceptable
	case errors.Is(err, broker.ErrQuota):
		as = api.ErrFull
	case errors.Is(err, broker.ErrNoBan):
		return fmt.Errorf("%w: no such ban: %s", api.ErrNoSuch, reasonOf(err))
	case errors.Is(err, broker.ErrNoClient):
		return fmt.Errorf("%w: no such client: %s", api.ErrNoSuch, reasonOf(err))
	case errors.Is(err, broker.ErrRefused):
		as = api.ErrConflict
	default:
		return orderFault(err)
	}
	return fmt.Errorf("%w: %s", as, reasonOf(err))
}

// reasonOf is what the broker says of a refusal, without what kind it is.
func reasonOf(err error) string {
	if r, ok := errors.AsType[*broker.Refusal](err); ok {
		return r.Reason
	}
	return err.Error()
}

// orderFault translates why something was not ordered.
func orderFault(err error) error {
	switch {
	case errors.Is(err, broker.ErrNoCommit):
		return fmt.Errorf("%w: %w", api.ErrNoLeader, err)
	case errors.Is(err, broker.ErrUnknown):
		return fmt.Errorf("%w: %w", api.ErrMayBeDone, err)
	}
	return err
}
