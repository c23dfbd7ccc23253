package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
)

// watchedKinds are the kinds whose subscriptions have a life.
var watchedKinds = [...]string{"location", "presence"}

// subscriptionsListed bounds an answer.
const subscriptionsListed = 1_000

// Subscriptions implements api.Domains.
func (d domains) Subscriptions(_ context.Context, domain, target string) (api.SubscriptionList, error) {
	list := api.SubscriptionList{Subscriptions: []api.Subscription{}}
	if target != "" {
		address, err := acl.ParseAddress(target, domain)
		if err != nil {
			return list, fmt.Errorf("%w: target: %w", api.ErrBadQuestion, err)
		}
		if target = address; !strings.HasSuffix(target, "@"+domain) {
			return list, api.ErrNotYours
		}
	}
	add := func(of string, e *life.Entry) bool {
		if len(list.Subscriptions) == subscriptionsListed {
			list.Partial = true
			return false
		}
		t, err := kind.ParseTopic(e.Topic)
		if err != nil {
			return true
		}
		s := api.Subscription{Kind: of, Target: t.Addr.String(), SID: e.ID, Status: e.Status.String(), Event: e.Event.String(), Since: time.Unix(0, e.Since).UTC()}
		s.Watcher = e.SeenAs().String() // as the owner sees them; empty for somebody anonymous
		list.Subscriptions = append(list.Subscriptions, s)
		return true
	}
	for _, of := range watchedKinds {
		keys, below := d.s.broker.Keys(of), of+"/"+domain+"/"
		if target != "" {
			topicName := kind.Resource{Kind: of, Addr: kind.Of(target)}.Topic()
			life.EachBelow(keys.Each, topicName+"\x00", func(e *life.Entry) bool { return add(of, e) })
			continue
		}
		life.EachBelow(keys.Each, below, func(e *life.Entry) bool { return add(of, e) })
		for _, watcher := range d.people(domain) {
			life.EachBy(keys.Each, watcher, func(topicName string) bool {
				key := life.Key(topicName, watcher)
				if value := keys.Get(key); value != nil && !strings.HasPrefix(topicName, below) {
					return add(of, life.ReadEntry(key, value))
				}
				return true
			})
		}
	}
	return list, nil
}

// people returns the users that the policy has of a domain.
func (d domains) people(domain string) (all []string) {
	a, ok := d.s.broker.Policy().(*authorizer)
	if !ok {
		return nil
	}
	for _, principal := range a.Known() {
		if strings.HasSuffix(principal, "@"+domain) {
			all = append(all, principal)
		}
	}
	return all
}

// Cancel implements api.Domains.
func (d domains) Cancel(ctx context.Context, domain string, c api.Cancelling) (matched int, err error) {
	target, err := acl.ParseAddress(c.Target, domain)
	if err != nil {
		return 0, fmt.Errorf("%w: target: %w", api.ErrBadQuestion, err)
	}
	if !strings.HasSuffix(target, "@"+domain) {
		return 0, api.ErrNotYours
	}
	request := map[string]string{}
	for name, value := range map[string]string{"watcher": c.Watcher, "sid": c.SID} {
		if value != "" {
			request[name] = value
		}
	}
	data, err := json.Marshal(request)
	if err != nil {
		return 0, err
	}
	reply, err := d.s.broker.Control(ctx, target, c.Kind, "cancel", data)
	switch {
	case errors.Is(err, broker.ErrNoCommit):
		return 0, fmt.Errorf("%w: %w", api.ErrNoLeader, err)
	case errors.Is(err, broker.ErrRefused), errors.Is(err, broker.ErrBadEvent):
		return 0, fmt.Errorf("%w: %w", api.ErrBadQuestion, err)
	case err != nil:
		return 0, err
	}
	var answer struct{ Matched int }
	err = json.Unmarshal(reply, &answer)
	return answer.Matched, err
}
