package broker

import (
	"errors"
	"strings"
)

// A Denial is one refusal by the operator's policy. What an owner keeps from
// somebody is none: nobody but the owner is told why.
type Denial struct {
	Who    Who
	Action Action

	// Topic is a filter if Action is ActSubscribe, without the $share of a group.
	// It may be of memory that is used again: who keeps it copies it.
	Topic string
	At    int64 // the instant that was asked about

	// Ceiling says that the topic's owner might have allowed it: Authorizer.Ceiling
	// was asked, and not Decide or Grant.
	Ceiling bool

	Reason string     // the policy's own words
	Policy Authorizer // which refused; another one may be in force by now
	Number uint64     // of Policy, in the history; 0 if it has none
}

// denied returns the refusal that d is, with what Config.Denied makes of its reason. If d
// has no Policy, it is the one in force.
func (b *Broker) denied(d *Denial) error {
	reason := d.Reason
	if p := b.policy.Load(); p != nil && d.Policy == nil {
		d.Policy, d.Number = p.Authorizer, p.number
	}
	if b.config.Denied != nil && d.Policy != nil {
		reason = b.config.Denied(d)
	}
	return &Refusal{Reason: reason}
}

// deniedInLog is denied for a command that the Machine refused by the policy, which
// it does on every node, when the node that proposed it hears: any other error is
// returned as it is. In the delivery loop.
func (b *Broker) deniedInLog(err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok && r.denial != nil {
		return b.denied(r.denial)
	}
	return err
}

// refuseInLog is the Machine's answer to what its policy does not allow.
func (m *Machine) refuseInLog(who Who, what Action, topicName string, at int64, reason string) error {
	return &Refusal{Reason: reason, denial: &Denial{
		Who: who, Action: what, Topic: strings.Clone(topicName), At: at, Ceiling: true, Reason: reason, Policy: m.policy, Number: m.history.number(),
	}}
}
