package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// What belongs to single domains: their parts of the policy, which their administrators put
// in force.

// readParts keeps what was made of the parts that were asked for last, one of each domain:
// when one changes, or the operator's policy, the others are not read again.
type readParts struct {
	mu   sync.Mutex         // guards the following
	read map[string]onePart // by domain
}

type onePart struct {
	data []byte
	part *acl.Part // nil if it cannot be read
}

// of returns what is made of parts, without those that cannot be read: a program that took
// them in has made something of them, so there should be none.
func (r *readParts) of(parts []broker.Part) (all []*acl.Part) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.read
	r.read = make(map[string]onePart, len(parts))
	for _, p := range parts {
		one, known := before[p.Domain]
		if !known || !bytes.Equal(one.data, p.Data) {
			one = onePart{data: bytes.Clone(p.Data)}
			one.part, _ = acl.ParsePart("policy of "+p.Domain, p.Data, p.Domain, nil)
		}
		r.read[p.Domain] = one
		if one.part != nil {
			all = append(all, one.part)
		}
	}
	return all
}

// With implements broker.Combiner.
func (a *authorizer) With(parts []broker.Part) broker.Authorizer {
	with := *a
	with.parts = a.read.of(parts)
	with.policy = a.operator.With(with.parts)
	return &with
}

// HasTenant implements broker.Combiner.
func (a *authorizer) HasTenant(domain string) bool { return a.operator.IsTenant(domain) }

// CheckPart implements broker.Combiner.
func (a *authorizer) CheckPart(p broker.Part) error {
	_, err := acl.ParsePart("policy", p.Data, p.Domain, a.operator)
	return err
}

var _ broker.Combiner = (*authorizer)(nil)

// beside returns a policy of the operator with what domains have in force beside it.
func (s *server) beside(p *acl.Policy) *acl.Policy {
	if a, ok := s.broker.Policy().(*authorizer); ok {
		return p.WithOwners(ownedKinds()...).With(a.parts)
	}
	return p
}

// idle returns the rules of parts in force that a policy of the operator would leave
// without effect, and the one in force does not.
func (s *server) idle(p *acl.Policy) (rules []string) {
	a, ok := s.broker.Policy().(*authorizer)
	if !ok {
		return nil
	}
	p = p.WithOwners(ownedKinds()...)
	for _, part := range a.parts {
		already := a.operator.Idle(part)
		for _, id := range p.Idle(part) {
			if !slices.Contains(already, id) {
				rules = append(rules, part.Domain()+":"+id)
			}
		}
	}
	return rules
}

// domains is a server's domains as HTTP asks it.
type domains struct{ s *server }

var _ api.Domains = domains{}

// tenant returns what is in force, if a domain is a tenant of it.
func (d domains) tenant(domain string) (*authorizer, error) {
	a, ok := d.s.broker.Policy().(*authorizer)
	if !ok || !a.operator.IsTenant(domain) {
		return nil, api.ErrNoTenant
	}
	return a, nil
}

// Policy implements api.Domains.
func (d domains) Policy(_ context.Context, domain string, number uint64) (api.PolicyText, error) {
	if _, err := d.tenant(domain); err != nil {
		return api.PolicyText{}, err
	}
	if history := d.s.broker.Parts(domain); number == 0 && len(history) > 0 {
		number = history[len(history)-1].Number
	}
	data, ok := d.s.broker.PartByNumber(domain, number)
	if !ok || len(data) == 0 {
		return api.PolicyText{}, fmt.Errorf("%w: %d of %s", api.ErrNoPolicy, number, domain)
	}
	return api.PolicyText{Number: number, Data: data, Domain: domain}, nil
}

// PolicyVersions implements api.Domains.
func (d domains) PolicyVersions(_ context.Context, domain string) ([]api.PolicyVersion, error) {
	if _, err := d.tenant(domain); err != nil {
		return nil, err
	}
	return versionsOf(d.s.broker.Parts(domain)), nil
}

// PutPolicy implements api.Domains.
func (d domains) PutPolicy(ctx context.Context, domain string, c api.PolicyChange) (api.PolicyResult, error) {
	a, err := d.tenant(domain)
	switch {
	case err != nil:
		return api.PolicyResult{}, err
	case c.Shadow != "":
		return api.PolicyResult{}, fmt.Errorf("%w: shadow: a domain's own policy cannot be tried without effect: see dry_run and diff", api.ErrBadQuestion)
	}
	var result api.PolicyResult
	others := slices.DeleteFunc(slices.Clone(a.parts), func(p *acl.Part) bool { return p.Domain() == domain })
	next := a.operator.With(others)
	if len(c.Data) > 0 {
		if _, next, result.Tests, err = d.checkPart(a.operator, others, c.File, c.Data, domain); err != nil {
			return result, err
		}
	}
	result.Dry = c.Dry
	if history := d.s.broker.Parts(domain); len(history) > 0 {
		result.Number = history[len(history)-1].Number
	}
	result.Removed, result.Forgotten = d.s.removed(next)
	var unconfirmed error
	if len(c.Data) > 0 { // who ends it says so
		unconfirmed = d.s.mayRemove(next, result.Removed, domain)
	}
	if c.Dry {
		result.Confirm = confirmation(unconfirmed)
		return result, nil
	}
	if unconfirmed != nil && !c.RemoveUsers {
		return result, unconfirmed
	}
	result.Number, err = d.s.broker.PutPart(ctx, broker.PartChange{Domain: domain, Data: c.Data, By: c.By, Door: api.DoorOf(ctx), Base: c.Base})
	switch {
	case errors.Is(err, broker.ErrCondition):
		return result, fmt.Errorf("%w: %w", api.ErrNotInForce, err)
	case errors.Is(err, broker.ErrQuota):
		return result, fmt.Errorf("%w: %w", api.ErrTooOften, err)
	case errors.Is(err, broker.ErrNoCommit):
		return result, fmt.Errorf("%w: %w", api.ErrNoLeader, err)
	case err != nil:
		return result, err
	}
	d.s.config.logger.Info("policy of a domain changed", "domain", domain, "number", result.Number, "by", c.By, "bytes", len(c.Data))
	d.s.warnRemoved(result.Removed, result.Forgotten)
	return result, nil
}

// checkPart reads a part that was sent, and runs its own tests beside what else is in
// force, which it returns. The error is an *api.PolicyFaults.
func (d domains) checkPart(operator *acl.Policy, others []*acl.Part, file string, data []byte, domain string) (part *acl.Part, with *acl.Policy, tests int, err error) {
	part, err = acl.ParsePart(cmp.Or(file, sentName), data, domain, operator, d.s.bridges.principals()...)
	if err != nil {
		return nil, nil, 0, policyFaults(err)
	}
	with = operator.With(append(slices.Clone(others), part))
	report := with.TestPart(part)
	if err := failedTests(report); err != nil {
		return nil, nil, 0, err
	}
	return part, with, report.Passed, nil
}

// QuotaOf is what of a domain the broker is to bound.
func (a *authorizer) QuotaOf(domain string) broker.DomainQuota {
	return broker.DomainQuota(a.operator.QuotasOf(domain))
}

// Quotas lists the domains that have any.
func (a *authorizer) Quotas(yield func(domain string, q broker.DomainQuota) bool) {
	for _, domain := range a.operator.Tenants() {
		if q := a.QuotaOf(domain); q != (broker.DomainQuota{}) && !yield(domain, q) {
			return
		}
	}
}

// Usage implements api.Domains.
func (d domains) Usage(_ context.Context, domain string) (api.DomainUsage, error) {
	a, err := d.tenant(domain)
	if err != nil {
		return api.DomainUsage{}, err
	}
	return domainUsageOf(d.s.broker.UseOf(domain), a.QuotaOf(domain)), nil
}

// domainUsageOf says what is used of quotas.
func domainUsageOf(use broker.DomainUse, q broker.DomainQuota) api.DomainUsage {
	of := func(u broker.Use, most uint64) api.QuotaUsage {
		return api.QuotaUsage{Used: u.Used, Max: most, Refused: u.Refused}
	}
	return api.DomainUsage{
		Sessions: of(use.Sessions, q.Sessions), Subscriptions: of(use.Subscriptions, q.Subscriptions),
		RetainedTopics: of(use.RetainedTopics, q.RetainedTopics), QueueBytes: of(use.QueueBytes, q.QueueBytes),
		Watchers: of(use.Watchers, q.Watchers), Delayed: of(use.Delayed, q.Delayed), PublishesPerSecond: of(use.Publishes, q.PublishesPerSecond),
	}
}

// DiffPolicy implements api.Domains.
func (d domains) DiffPolicy(ctx context.Context, domain string, q api.PolicyQuestion) (any, error) {
	a, err := d.tenant(domain)
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(a.parts), func(p *acl.Part) bool { return p.Domain() == domain })
	beside := func(p *acl.Part) *acl.Policy {
		if p == nil {
			return a.operator.With(others)
		}
		return a.operator.With(append(slices.Clone(others), p))
	}
	was, err := d.part(ctx, domain, q.Than)
	if err != nil {
		return nil, err
	}
	var is *acl.Part
	if q.Data != nil {
		is, _, _, err = d.checkPart(a.operator, others, q.File, q.Data, domain)
	} else {
		is, err = d.part(ctx, domain, q.Version)
	}
	if err != nil {
		return nil, err
	}
	return acl.ComparePart(beside(was), beside(is), was, is, domain, d.s.now()), nil
}

// part returns a version of a domain's part, nil if that is none: it has ended, or, for 0,
// none is in force.
func (d domains) part(ctx context.Context, domain string, number uint64) (*acl.Part, error) {
	text, err := d.Policy(ctx, domain, number)
	if err != nil {
		if _, kept := d.s.broker.PartByNumber(domain, number); number == 0 || kept {
			return nil, nil
		}
		return nil, err
	}
	p, err := acl.ParsePart("policy "+fmt.Sprint(text.Number), text.Data, domain, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %d of %s cannot be read: %w", api.ErrNoPolicy, number, domain, err)
	}
	return p, nil
}

// versionsOf lists a history, the newest first.
func versionsOf(history []broker.PolicyRecord) []api.PolicyVersion {
	all := []api.PolicyVersion{}
	for _, r := range history {
		all = append(all, api.PolicyVersion{Number: r.Number, At: time.Unix(0, r.At).UTC(), By: r.By, Size: r.Size})
	}
	if n := len(all); n > 0 {
		all[n-1].In = true
	}
	slices.Reverse(all)
	return all
}

// policyFaults makes an *api.PolicyFaults of why a policy cannot be read.
func policyFaults(err error) error {
	faults := &api.PolicyFaults{Report: err.Error()}
	bad, ok := errors.AsType[*acl.FileError](err)
	if !ok {
		faults.Faults = []api.PolicyFault{{What: err.Error()}}
		return faults
	}
	faults.Report = bad.Report()
	for _, f := range bad.Faults {
		faults.Faults = append(faults.Faults, api.PolicyFault{Line: f.Line, Column: f.Column, What: f.What, Hint: f.Hint})
	}
	return faults
}

// failedTests makes one of the tests of a policy's own that have failed, nil if none has.
func failedTests(report acl.TestReport) error {
	if report.Failed == 0 {
		return nil
	}
	faults := &api.PolicyFaults{Tests: true, Report: report.String()}
	for _, t := range report.Results {
		if len(t.Failed) > 0 {
			faults.Faults = append(faults.Faults, api.PolicyFault{Line: t.Line, Test: t.Name, What: strings.Join(t.Failed, "; ")})
		}
	}
	return faults
}
