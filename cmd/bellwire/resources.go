package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/profiles/blocklist"
	"github.com/bellwire/bellwire/profiles/kind"
)

// resources joins the HTTP side with the broker: what is fetched is what would
// be sent.
func (s *server) resources() *api.Resources {
	r := &api.Resources{
		Anonymous: s.config.allowAnonymous,
		Lists:     &s.lists,
		Fetches:   s.fetches,
		Repeats:   s.repeats,
		Now:       time.Now,
		Name:      topicOf,
		Show: func(principal, of, domain, local string) (api.Document, error) {
			topicName, err := topicOf(of, domain, local)
			if err != nil {
				return api.Document{}, err
			}
			return s.fetch(principal, of, topicName)
		},
		Subscription: func(principal, of, domain, local string) (api.Document, error) {
			topicName, err := topicOf(of, domain, local)
			if err != nil {
				return api.Document{}, err
			}
			return s.fetch(principal, of, "$me/sub/"+topicName)
		},
		Count: func(principal, of, domain, local string) (api.Document, error) {
			topicName, err := topicOf(of, domain, local)
			if err != nil {
				return api.Document{}, err
			}
			shown, err := s.broker.Count(broker.Who{Principal: principal}, topicName)
			return document(shown), s.fetchError(of, err)
		},
		Control: s.control,
		Own:     s.own,
		Policy:  func(principal, of string) (api.Document, error) { return s.fetch(principal, of, "$me/policy/"+of) },
		Blocklist: func(principal string) (api.Document, error) {
			return s.fetch(principal, blocklist.Prefix, ownBlocklist)
		},
		List: func(principal, of, domain, after string, yield func(string, api.Document) bool) (string, error) {
			domain, err := acl.ParseDomain(domain)
			if err != nil {
				return "", fmt.Errorf("%w: %w", api.ErrBadName, err)
			}
			next, err := s.broker.FetchAll(broker.Who{Principal: principal}, of+"/"+domain+"/+", after, func(name string, shown broker.Shown) bool {
				return yield(name, document(shown))
			})
			return next, s.fetchError(of, err)
		},
		Preview:  s.preview,
		Identify: s.signIn, SetPolicy: s.setOwnPolicy,
	}
	return r
}

// signIn is as over MQTT, and held to the same rate of failures.
func (s *server) signIn(user, password, from string) (string, error) {
	var addr net.Addr
	if at, err := netip.ParseAddrPort(from); err == nil {
		addr = net.TCPAddrFromAddrPort(at)
	}
	principal, err := s.mqtt.SignIn(user, []byte(password), addr)
	if many, ok := errors.AsType[*mqtt.TooManyLogins](err); ok {
		return "", &api.TooMany{RetryAfter: many.RetryAfter}
	}
	if errors.Is(err, mqtt.ErrBanned) {
		return "", api.ErrBanned
	}
	if err != nil && !errors.Is(err, broker.ErrBadCredentials) {
		return "", fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return principal, err
}

// topicOf is that of a resource.
func topicOf(of, domain, local string) (string, error) {
	addr, err := acl.ParseAddress(local+"@"+domain, "")
	if err != nil {
		return "", fmt.Errorf("%w: %w", api.ErrBadName, err)
	}
	return kind.Resource{Kind: of, Addr: kind.Of(addr)}.Topic(), nil
}

// control does what an owner asks for about subscriptions.
func (s *server) control(ctx context.Context, principal, of, verb string, data []byte) ([]byte, error) {
	reply, err := s.broker.Control(ctx, principal, of, verb, data)
	switch {
	case errors.Is(err, broker.ErrBadEvent):
		return nil, fmt.Errorf("%w that can be asked that: %w", api.ErrNoKind, err)
	case errors.Is(err, broker.ErrCondition):
		return nil, fmt.Errorf("%w: %w", api.ErrChanged, err)
	case errors.Is(err, broker.ErrPayload):
		return nil, fmt.Errorf("%w: %w", api.ErrUnacceptable, err)
	}
	return reply, s.fetchError(of, err)
}

func (s *server) fetch(principal, of, topicName string) (api.Document, error) {
	shown, err := s.broker.Fetch(broker.Who{Principal: principal}, topicName)
	if err != nil {
		return api.Document{}, s.fetchError(of, err)
	}
	return document(shown), nil
}

// own returns what somebody is shown of their own: who watches them, and how many.
func (s *server) own(principal, name, of, after string) (d api.Document, err error) {
	shown, err := s.broker.FetchPage(broker.Who{Principal: principal}, "$me/"+name+"/"+of, after)
	if err == nil {
		d = document(shown)
	}
	err = s.fetchError(of, err)
	if _, there := policyKinds()[of]; there && errors.Is(err, api.ErrNoKind) {
		return d, fmt.Errorf("%w to watch: there are no %s of %q", api.ErrNoKind, name, of)
	}
	return d, err
}

func document(shown broker.Shown) api.Document {
	return api.Document{Type: event.ContentType(shown.Props), Body: shown.Payload, Pending: shown.Absent}
}

// fetchError is err in the words of who asks for something of a kind.
func (s *server) fetchError(of string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, broker.ErrBadEvent):
		if _, there := policyKinds()[of]; there {
			return fmt.Errorf("%w to fetch: what comes to %q is sent to who subscribes, by MQTT (%w)", api.ErrNoKind, of, err)
		}
		return fmt.Errorf("%w %q: there are %s (%w)", api.ErrNoKind, of, strings.Join(ownedKinds(), ", "), err)
	case errors.Is(err, broker.ErrTopicName):
		return fmt.Errorf("%w: %w", api.ErrBadName, err)
	case errors.Is(err, broker.ErrRefused):
		return fmt.Errorf("%w: %w", api.ErrNotPermitted, err)
	case errors.Is(err, broker.ErrNoCommit):
		return fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return err
}
