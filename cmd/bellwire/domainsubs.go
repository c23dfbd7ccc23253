package main

import (
	"cmp"
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
	target, err := targetOf(domain, target)
	if err != nil {
		return list, err
	}
	for _, of := range watchedKinds {
		l := subscriptionsOf{list: &list, domain: domain, kind: of, keys: d.s.broker.Keys(of)}
		if target != "" {
			l.to(kind.Resource{Kind: of, Addr: kind.Of(target)}.Topic())
			continue
		}
		l.toDomain()
		for _, watcher := range d.people(domain) {
			l.from(watcher)
		}
	}
	return list, nil
}

// subscriptionsOf lists those of a kind to and from a domain.
type subscriptionsOf struct {
	list         *api.SubscriptionList
	domain, kind string
	keys         broker.Keys
}

func (l *subscriptionsOf) add(s api.Subscription) (more bool) {
	if len(l.list.Subscriptions) == subscriptionsListed {
		l.list.Partial = true
		return false
	}
	s.Kind = l.kind
	l.list.Subscriptions = append(l.list.Subscriptions, s)
	return true
}

func (l *subscriptionsOf) addEntry(e *life.Entry) (more bool) {
	t, err := kind.ParseTopic(e.Topic)
	if err != nil {
		return true
	}
	s := api.Subscription{Target: t.Addr.String(), SID: e.ID, By: e.By}
	s.Watcher = e.SeenAs().String() // as the owner sees them; empty for somebody anonymous
	if t.Addr.Domain == l.domain {
		s.Status, s.Event, s.Since = e.Status.String(), e.Event.String(), time.Unix(0, e.Since).UTC()
	} else { // what an owner elsewhere has decided is told as to the watcher
		s.Status = e.ToldAs().String()
	}
	return l.add(s)
}

// addWide adds one by wildcards, to all whom its pattern is about: with * in place of what it
// leaves open.
func (l *subscriptionsOf) addWide(w *life.Wide) (more bool) {
	domain, local := life.DomainOf(w.Pattern)
	target := cmp.Or(local, "*") + "@" + cmp.Or(domain, "*")
	if domain == "" && kind.Of(w.Watcher).Domain != l.domain {
		target = cmp.Or(local, "*") + "@" + l.domain // what they watch elsewhere is nothing to it
	}
	e := life.Entry{Watcher: w.Watcher}
	return l.add(api.Subscription{Target: target, Watcher: e.SeenAs().String(), SID: w.IDFor(target), Status: life.Active.String(), Since: time.Unix(0, w.Asked).UTC()})
}

// to lists those to one resource.
func (l *subscriptionsOf) to(topicName string) {
	life.EachBelow(l.keys.Each, topicName+"\x00", l.addEntry)
	known := map[string]bool{}
	for _, pattern := range life.PatternsOf(topicName) {
		life.EachOfPattern(l.keys.Each, pattern, func(w *life.Wide) bool {
			e := w.EntryTo(l.keys.Get, topicName)
			if e == nil || known[w.Watcher] {
				return true
			}
			known[w.Watcher] = true
			return l.addEntry(e)
		})
	}
}

// toDomain lists those to the domain's addresses.
func (l *subscriptionsOf) toDomain() {
	life.EachBelow(l.keys.Each, l.kind+"/"+l.domain+"/", l.addEntry)
	life.EachWide(l.keys.Each, l.domain, l.addWide)
	life.EachWide(l.keys.Each, "", l.addWide)
}

// from lists those of somebody of the domain to addresses elsewhere.
func (l *subscriptionsOf) from(watcher string) {
	life.EachBy(l.keys.Each, watcher, func(topicName string) bool {
		e := life.EntryOf(l.keys.Get, topicName, watcher)
		return e == nil || strings.HasPrefix(topicName, l.kind+"/"+l.domain+"/") || l.addEntry(e)
	})
	life.EachWideBy(l.keys.Get, l.keys.Each, watcher, func(w *life.Wide) bool {
		domain, _ := life.DomainOf(w.Pattern)
		return domain == "" || domain == l.domain || l.addWide(w)
	})
}

// targetOf completes the address of a domain that a list is to be about; empty for all.
func targetOf(domain, target string) (string, error) {
	if target == "" {
		return "", nil
	}
	address, err := acl.ParseAddress(target, domain)
	if err != nil {
		return "", fmt.Errorf("%w: target: %w", api.ErrBadQuestion, err)
	}
	if !strings.HasSuffix(address, "@"+domain) {
		return "", api.ErrNotYours
	}
	return address, nil
}

// Invitations implements api.Domains.
func (d domains) Invitations(_ context.Context, domain, target string) (api.InvitationList, error) {
	list := api.InvitationList{Invitations: []api.Invited{}}
	target, err := targetOf(domain, target)
	if err != nil {
		return list, err
	}
	for _, of := range watchedKinds {
		keys, below := d.s.broker.Keys(of), of+"/"+domain+"/"
		add := func(topicName, watcher string, i *life.Invitation) bool {
			if len(list.Invitations) == subscriptionsListed {
				list.Partial = true
				return false
			}
			if t, err := kind.ParseTopic(topicName); err == nil {
				list.Invitations = append(list.Invitations, api.Invited{
					Kind: of, Target: t.Addr.String(), Watcher: watcher, By: i.By, Note: i.Note, Until: time.Unix(0, i.Until).UTC(),
				})
			}
			return true
		}
		if target != "" {
			life.EachInvitation(keys.Each, kind.Resource{Kind: of, Addr: kind.Of(target)}.Topic()+"\x00", add)
			continue
		}
		life.EachInvitation(keys.Each, below, add)
		for _, watcher := range d.people(domain) {
			life.EachBy(keys.Each, watcher, func(topicName string) bool {
				i := life.InvitationTo(keys.Get, topicName, watcher)
				return i == nil || strings.HasPrefix(topicName, below) || add(topicName, watcher, i)
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
	if strings.HasPrefix(c.Target, "*") {
		return 0, fmt.Errorf("%w: target: who watches by wildcards is cut off from one address at a time: name it, or deny them in the domain's policy", api.ErrBadQuestion)
	}
	target, err := acl.ParseAddress(c.Target, domain)
	if err != nil {
		return 0, fmt.Errorf("%w: target: %w", api.ErrBadQuestion, err)
	}
	if !strings.HasSuffix(target, "@"+domain) {
		return 0, api.ErrNotYours
	}
	if c.Watcher != "" {
		if c.Watcher, err = acl.ParseAddress(c.Watcher, domain); err != nil {
			return 0, fmt.Errorf("%w: watcher: %w", api.ErrBadQuestion, err)
		}
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
	var answer struct{ Matched int }
	err = d.control(ctx, target, c.Kind, "cancel", data, &answer)
	return answer.Matched, err
}

// control has a kind do what an administrator asks for, in the name of whom it is about.
func (d domains) control(ctx context.Context, target, kind, verb string, data []byte, answer any) error {
	reply, err := d.s.broker.Control(ctx, target, kind, verb, data)
	told := err
	if refusal, ok := errors.AsType[*broker.Refusal](err); ok {
		told = errors.New(refusal.Reason) // what is its cause the status says
	}
	switch {
	case errors.Is(err, broker.ErrNoCommit):
		return fmt.Errorf("%w: %w", api.ErrNoLeader, err)
	case errors.Is(err, broker.ErrQuota):
		return fmt.Errorf("%w: %w", api.ErrFull, told)
	case errors.Is(err, broker.ErrPayload), errors.Is(err, broker.ErrBadEvent), verb == "cancel" && errors.Is(err, broker.ErrRefused):
		return fmt.Errorf("%w: %w", api.ErrBadQuestion, told)
	case errors.Is(err, broker.ErrRefused):
		return fmt.Errorf("%w: %w", api.ErrOwner, told)
	case err != nil:
		return err
	}
	return json.Unmarshal(reply, answer)
}

// An asked is what a kind is asked to do for an administrator.
type asked struct {
	Watcher string `json:"watcher"`
	By      string `json:"by"`
	Note    string `json:"note,omitempty"`
	Until   string `json:"until,omitempty"`
}

// addresses reads whom it is about.
func addresses(domain, watcher, target string) (w, t string, err error) {
	if w, err = acl.ParseAddress(watcher, domain); err != nil {
		return "", "", fmt.Errorf("%w: watcher: %w", api.ErrBadQuestion, err)
	}
	if t, err = acl.ParseAddress(target, domain); err != nil {
		return "", "", fmt.Errorf("%w: target: %w", api.ErrBadQuestion, err)
	}
	return w, t, nil
}

// Provision implements api.Domains.
func (d domains) Provision(ctx context.Context, domain, by string, p api.Provision) (state string, err error) {
	watcher, target, err := addresses(domain, p.Watcher, p.Target)
	switch a, ok := d.s.broker.Policy().(*authorizer); {
	case err != nil:
		return "", err
	case !strings.HasSuffix(watcher, "@"+domain):
		return "", api.ErrNotYours
	case !ok || !a.Knows(watcher):
		return "", fmt.Errorf("%w: %s", api.ErrNobody, watcher)
	}
	ask := asked{Watcher: watcher, By: by, Note: p.Note}
	if !p.Until.IsZero() {
		ask.Until = p.Until.UTC().Format(time.RFC3339)
	}
	data, err := json.Marshal(ask)
	if err != nil {
		return "", err
	}
	var answer struct{ State string }
	err = d.control(ctx, target, p.Kind, "provision", data, &answer)
	return answer.State, err
}

// Invite implements api.Domains.
func (d domains) Invite(ctx context.Context, domain, by string, i api.Invitation) error {
	watcher, target, err := addresses(domain, i.Watcher, i.Target)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(target, "@"+domain) {
		return api.ErrNotYours
	}
	data, err := json.Marshal(asked{Watcher: watcher, By: by, Note: i.Note})
	if err != nil {
		return err
	}
	return d.control(ctx, target, i.Kind, "invite", data, new(struct{}))
}
