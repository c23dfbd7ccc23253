package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/bw"
)

// The operator's policy over HTTP: see api.Policies. What a version says is worked out
// by package acl, on a server or where the file is.

// Version implements api.Policies.
func (p policies) Version(_ context.Context, number uint64) (api.PolicyText, error) {
	b := p.s.broker
	in, _ := b.Settings()
	if number == 0 {
		text := api.PolicyText{Number: b.PolicyNumber(), Data: b.PolicyData(), Domain: in.Domain}
		if text.Data == nil {
			return text, api.ErrNoPolicy
		}
		if text.Number > 0 { // both of one moment
			if data := b.PolicyByNumber(text.Number); data != nil {
				text.Data = data
			}
		}
		return text, nil
	}
	data := b.PolicyByNumber(number)
	if data == nil {
		return api.PolicyText{}, fmt.Errorf("%w: %d", api.ErrNoPolicy, number)
	}
	return api.PolicyText{Number: number, Data: data, Domain: in.Domain}, nil
}

// Versions implements api.Policies.
func (p policies) Versions(context.Context) []api.PolicyVersion {
	return versionsOf(p.s.broker.Policies())
}

// Put implements api.Policies.
func (p policies) Put(ctx context.Context, c api.PolicyChange) (api.PolicyResult, error) {
	in, _ := p.s.broker.Settings()
	made, tests, err := checkSent(c.File, c.Data, in.Domain)
	if err != nil {
		return api.PolicyResult{}, err
	}
	if err := p.s.mayHaveRoles(made); err != nil {
		return api.PolicyResult{}, &api.PolicyFaults{Faults: []api.PolicyFault{{What: err.Error()}}, Report: err.Error()}
	}
	result := api.PolicyResult{Number: p.s.broker.PolicyNumber(), Tests: tests, Dry: c.Dry}
	next := p.s.beside(made)
	removed, forgotten := p.s.removed(next)
	result.Idle = p.s.idle(made)
	if c.Shadow == "" {
		result.Removed, result.Forgotten = removed, forgotten
	}
	if (c.Dry || c.Shadow != "") && c.Base != 0 && c.Base != result.Number {
		return result, fmt.Errorf("%w: policy %d is in force, not %d", api.ErrNotInForce, result.Number, c.Base)
	}
	unconfirmed := p.s.mayRemove(next, removed, "")
	if c.Dry {
		result.Confirm = confirmation(unconfirmed)
		return result, nil
	}
	if c.Shadow != "" {
		result.Shadow, err = p.tryShadow(c.Data, c.By, c.Shadow)
		return result, err
	}
	if unconfirmed != nil && !c.RemoveUsers {
		return result, unconfirmed
	}
	p.s.parsed.keep(c.Data, in.Domain, made)
	result.Number, err = p.s.broker.PutPolicy(ctx, broker.PolicyChange{Data: c.Data, By: c.By, Base: c.Base})
	if err != nil {
		return result, putError(err)
	}
	p.s.config.logger.Info("policy changed", "number", result.Number, "by", c.By, "bytes", len(c.Data))
	p.s.warnRemoved(removed, forgotten)
	return result, nil
}

// confirmation says what has to be confirmed before a policy is put in force; empty for
// nothing.
func confirmation(unconfirmed error) string {
	if unconfirmed == nil {
		return ""
	}
	return unconfirmed.Error()
}

// putError is why a policy was not put in force, in the words of api.
func putError(err error) error {
	as := err
	switch {
	case errors.Is(err, broker.ErrCondition):
		as = api.ErrNotInForce
	case errors.Is(err, broker.ErrUnknown):
		as = api.ErrMayBeDone
	case errors.Is(err, broker.ErrNoCommit), errors.Is(err, broker.ErrAway), errors.Is(err, broker.ErrClosing):
		as = api.ErrNoLeader
	case errors.Is(err, broker.ErrRefused):
		as = api.ErrConflict
	default:
		return err
	}
	return fmt.Errorf("%w: %w", as, err)
}

// sentName is what messages call a policy that came over HTTP without a name.
const sentName = "policy.yaml"

// checkSent parses a policy that was sent, and runs its own tests. The error is an
// *api.PolicyFaults.
func checkSent(file string, data []byte, domain string) (p *acl.Policy, tests int, err error) {
	p, err = acl.ParseNew(cmp.Or(file, sentName), data, domain)
	if err != nil {
		return nil, 0, policyFaults(err)
	}
	report := p.WithOwners(ownedKinds()...).Test()
	if err := failedTests(report); err != nil {
		return nil, 0, err
	}
	return p, report.Passed, nil
}

// Ask implements api.Policies.
func (p policies) Ask(ctx context.Context, q api.PolicyQuestion) (any, error) {
	policy, err := p.ownVersion(ctx, q.Version)
	if err != nil {
		return nil, err
	}
	now := p.s.now()
	if q.What == "diff" { // of the operator's own: what belongs to domains is not part of it
		was, is := policy, policy
		if was, err = p.ownVersion(ctx, q.Than); err != nil {
			return nil, err
		}
		if q.Data != nil {
			in, _ := p.s.broker.Settings()
			if is, _, err = checkSent(q.File, q.Data, in.Domain); err != nil {
				return nil, err
			}
			is = is.WithOwners(ownedKinds()...)
		}
		return acl.Compare(was, is, now), nil
	}
	in, _ := p.s.broker.Settings()
	answer, err := askPolicy(p.s.beside(policy), in.Domain, q, now)
	if errors.Is(err, api.ErrNotYours) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", api.ErrBadQuestion, strings.TrimPrefix(err.Error(), "--")) // a field is called as the flag is
	}
	return answer, nil
}

// parsedVersion returns a version to ask, the one in force if number is 0, beside what
// domains have in force.
func (p policies) parsedVersion(ctx context.Context, number uint64) (*acl.Policy, error) {
	own, err := p.ownVersion(ctx, number)
	if err != nil {
		return nil, err
	}
	return p.s.beside(own), nil
}

// ownVersion is parsedVersion without what domains have in force.
func (p policies) ownVersion(ctx context.Context, number uint64) (*acl.Policy, error) {
	b := p.s.broker
	if a, ok := b.Policy().(*authorizer); ok && (number == 0 || number == b.PolicyNumber()) {
		return a.operator, nil
	}
	text, err := p.Version(ctx, number)
	if err != nil {
		return nil, err
	}
	in, _ := b.Settings()
	made, err := acl.Parse(fmt.Sprintf("policy %d", text.Number), text.Data, in.Domain)
	if err != nil {
		return nil, fmt.Errorf("%w: %d is of another domain's names: %w", api.ErrNoPolicy, number, err)
	}
	return made.WithOwners(ownedKinds()...), nil
}

// askPolicy answers explain, who and can. The errors say what is wrong with the
// question.
func askPolicy(policy *acl.Policy, domain string, q api.PolicyQuestion, now time.Time) (any, error) {
	at := now
	if q.At != "" {
		var err error
		if at, err = acl.ParseInstant(q.At, now); err != nil {
			return nil, fmt.Errorf("at: %w", err)
		}
	}
	f := explainFlags{as: q.As, client: q.Client, domain: domain, action: q.Action}
	var who acl.Who
	var action acl.Action
	var err error
	if q.What != "who" {
		if who, err = parseWho(f); err != nil {
			return nil, err
		}
		_, domain, _ := strings.Cut(who.Principal, "@")
		if q.Domains != nil && !slices.Contains(q.Domains, domain) {
			return nil, api.ErrNotYours
		}
	}
	if q.What != "can" {
		if action, err = parseAction(f.action); err != nil {
			return nil, err
		}
	}
	if of := acl.ClientsOf(q.Topic); q.Domains != nil && of != "" && !slices.Contains(q.Domains, of) {
		return nil, api.ErrNotYours // or the answer would tell what another domain is
	}
	switch {
	case q.What == "who":
		all, err := policy.WhoCan(action, q.Topic, at)
		if q.Domains != nil {
			all = acl.OfDomains(all, q.Domains)
		}
		return answerList{"who", all}, err
	case q.What == "can":
		return answerList{"can", policy.CanWhat(who, at)}, nil
	case q.Sweep != "":
		from, to, err := parseSweep(q.Sweep, at)
		if err != nil {
			return nil, err
		}
		edges, err := policy.Sweep(who, action, q.Topic, from, to)
		return edges, err
	}
	e, err := policy.ExplainRequest(who, action, q.Topic, at)
	if err == nil && q.Text {
		return api.Explained{Text: e.Text() + askOwner(e)}, nil
	}
	return e, err
}

// An answerList is who may do something, or what somebody may.
type answerList struct {
	of  string
	all []string
}

// MarshalJSON writes {"who": […]} or {"can": […]}.
func (a answerList) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string][]string{a.of: append([]string{}, a.all...)})
}

// parseSweep reads FROM/TO, or a time such as 7d, from at on.
func parseSweep(s string, at time.Time) (from, to time.Time, err error) {
	if !strings.Contains(s, "/") {
		span, problem := parseSpan(s)
		if problem != nil || span <= 0 {
			return from, to, fail(bw.Usage, "--sweep: %q is neither two instants with a slash between nor a length of time", s).
				do("write FROM/TO, such as 2026-03-01T00:00:00Z/2026-04-01T00:00:00Z, or a time from now on such as 7d")
		}
		return at, at.Add(time.Duration(span)), nil
	}
	return parseRange(s, at)
}
