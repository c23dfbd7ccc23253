package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// setOwnPolicy replaces what somebody permits. All that is wrong with it is told, and what has
// no effect.
func (s *server) setOwnPolicy(ctx context.Context, principal, of, contentType string, published []byte, was *api.Document) ([]api.OwnFault, error) {
	document, warnings, err := s.readOwnPolicy(principal, of, contentType, published)
	if err != nil {
		return nil, err
	}
	tag := ""
	if was != nil {
		tag = policy.Tag(was.Body)
	}
	err = s.broker.SetOwnPolicy(ctx, principal, of, "", document, tag)
	switch {
	case errors.Is(err, broker.ErrCondition):
		return nil, fmt.Errorf("%w: %w", api.ErrChanged, err)
	case errors.Is(err, broker.ErrPayload):
		return nil, fmt.Errorf("%w: %w", api.ErrUnacceptable, err)
	}
	return warnings, s.fetchError(of, err)
}

// readOwnPolicy reads a policy that somebody has sent, and returns it as JSON, and what of
// it has no effect. Of a kind that is not known here the log says so.
func (s *server) readOwnPolicy(principal, of, contentType string, published []byte) (document []byte, warnings []api.OwnFault, err error) {
	k := policyKinds()[of]
	if len(published) == 0 || k == nil {
		return published, nil, nil
	}
	document = published
	if policy.IsXML(contentType) {
		var told jsontree.Faults
		if document, told, err = policy.FromXML(published); err != nil {
			return nil, nil, s.ownFaults(err)
		}
		warnings = append(warnings, listFaults(told)...)
	}
	p, err := policy.CheckWithin(document, k, kind.Of(principal), &s.ownLimits.Load().document)
	if err != nil {
		return nil, nil, s.ownFaults(err)
	}
	return document, append(warnings, listFaults(p.Warnings())...), nil
}

// ownFaults are those of a policy that is refused; if it passed a bound that is counted.
func (s *server) ownFaults(err error) error {
	if r, ok := errors.AsType[*kind.Refusal](err); ok {
		if r.Bound != "" {
			s.broker.CountOver(r.Bound)
		}
		return &api.OwnFaults{Reason: r.Reason, Faults: listFaults(r.Faults)}
	}
	return fmt.Errorf("%w: %w", api.ErrUnacceptable, err)
}

func listFaults(all jsontree.Faults) (list []api.OwnFault) {
	for _, f := range all {
		list = append(list, api.OwnFault{Pointer: f.Pointer, What: f.What})
	}
	return list
}
