package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/logline"
)

// A node remembers what the operator's policy refused there, under ids that go into
// Reason Strings and the log; any node is asked about them, and asks the one.

// denials are what the node has refused by the policy.
type denials struct {
	*acl.Denials
	lines logline.Budget
}

func newDenials(node string) denials {
	return denials{lines: logline.Budget{Most: linesPerMinute, Per: time.Minute}, Denials: acl.NewDenials(node, func() uint32 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // it never fails
		return binary.NativeEndian.Uint32(b[:])
	})}
}

// denied is broker.Config.Denied.
func (s *server) denied(d *broker.Denial) string {
	a, ok := d.Policy.(*authorizer)
	if !ok {
		return d.Reason
	}
	noted := acl.Denial{
		Who: acl.Who(d.Who), Action: actions[d.Action], Topic: d.Topic, Last: time.Unix(0, d.At), Reason: d.Reason, Version: d.Number,
	}
	noted.Rule, noted.Line = a.refusedBy(d)
	id, fresh := s.denials.Note(a.policy, noted)
	if fresh {
		s.logDenied(id, d, noted.Rule)
	}
	return refusalText(d, noted.Rule) + "; " + bw.ExplainHint + id
}

// refusedBy returns the rule that d is to be blamed on.
func (a *authorizer) refusedBy(d *broker.Denial) (rule string, line int) {
	who, what, at := acl.Who(d.Who), actions[d.Action], time.Unix(0, d.At)
	switch {
	case d.Ceiling:
		is := a.policy.Ceiling(who, what, d.Topic, at)
		return is.Rule, is.Line
	case what == acl.Subscribe:
		is := a.policy.Grant(who, d.Topic, at)
		return is.Rule, is.Line
	}
	is := a.policy.Decide(who, what, d.Topic, at)
	return is.Rule, is.Line
}

// refusalText is what the client is told, but for the id: what no rule allows is
// named, for a client may have sent many requests.
func refusalText(d *broker.Denial, rule string) string {
	if of := acl.RuleOf(rule); of != "" && !strings.HasSuffix(d.Who.Principal, "@"+of) {
		return of + " does not allow it to others"
	}
	if rule != "" || d.Reason != acl.NoRule(actions[d.Action]) {
		return d.Reason
	}
	return "no rule allows " + actions[d.Action].String() + " to " + beginning(d.Topic)
}

// beginning is what of a topic is shown in a line.
func beginning(topic string) string {
	const most = 100
	if len(topic) <= most {
		return topic
	}
	cut := most
	for !utf8.RuneStart(topic[cut]) {
		cut--
	}
	return topic[:cut] + "…"
}

// logDenied tells the operator of the first refusal of its kind, as long as there are
// not too many: a client must not fill the disk.
func (s *server) logDenied(id string, d *broker.Denial, rule string) {
	unlogged, ok := s.denials.lines.Take(s.now())
	if !ok {
		return
	}
	attrs := []any{
		slog.String("id", id), slog.String("principal", acl.Who(d.Who).String()), slog.String("client", beginning(d.Who.Client)),
		slog.String("action", actions[d.Action].String()), slog.String("topic", beginning(d.Topic)), slog.String("rule", rule), slog.String("reason", d.Reason),
	}
	if unlogged > 0 {
		attrs = append(attrs, slog.Int("unlogged", unlogged))
	}
	s.config.logger.Info("refused by the policy", attrs...)
}

// linesPerMinute bounds the lines about refusals.
const linesPerMinute = 60

// policies is a server's policy as the operators' side of HTTP asks it.
type policies struct{ s *server }

var _ api.Policies = policies{}

// Denied implements api.Policies.
func (p policies) Denied(_ context.Context, text string) (api.Denial, error) {
	id, ok := acl.ParseDenialID(text)
	if !ok {
		return api.Denial{}, api.ErrNoDenial
	}
	silent := false
	for _, node := range p.s.node.Members(statePatience) {
		if acl.DenialTag(node.ID) != id[:len(acl.DenialTag(node.ID))] {
			continue
		}
		a, err := membership(p).ask(node, nodeQuestion{Op: opDenied, ID: id})
		if err != nil {
			silent = true
			continue
		}
		if a.Denied != nil {
			return *a.Denied, nil
		}
	}
	if silent {
		return api.Denial{}, errors.Join(api.ErrNoDenial, errors.New("the node that refused does not answer"))
	}
	return api.Denial{}, api.ErrNoDenial
}

// deniedHere answers about a refusal of this node, nil if it knows of none.
func (s *server) deniedHere(id string) *api.Denial {
	d, ok := s.denials.Find(id)
	if !ok {
		return nil
	}
	var then *acl.Policy
	if d.Policy == nil && d.Version > 0 {
		then, _ = policies{s}.parsedVersion(context.Background(), d.Version) // nil if it is not kept
	}
	return &api.Denial{
		ID: d.ID, Principal: d.Who.Principal, Client: d.Who.Client, Action: d.Action.String(), Topic: d.Topic, Node: s.config.node,
		At: d.Last.UTC(), First: d.First.UTC(), Times: d.Times, Rule: d.Rule, Line: d.Line, Reason: d.Reason, Policy: d.Version, Text: d.Text(then), Of: acl.RuleOf(d.Rule),
	}
}

// explainDenied asks a server about a refusal.
func explainDenied(ctx context.Context, f *httpFlags, id string) (d api.Denial, raw json.RawMessage, err error) {
	c, err := f.client()
	if err != nil {
		return d, nil, err
	}
	if err := c.call(ctx, "GET", "/v1/policy/denials/"+id, nil, &raw); err != nil {
		return d, nil, err
	}
	return d, raw, json.Unmarshal(raw, &d)
}
