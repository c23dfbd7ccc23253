package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// A policy runs in the shadow of the one in force to show what it would change: each
// node asks it what its clients, and the log, ask of the one in force, and keeps where
// the answers differ. Nothing is decided by it, and it is no state: a node that is
// started anew has none.

// A shadow is a policy that is asked beside the one in force, on one node.
//
// What is asked is what a decision is needed for. Those that are kept are asked for anew
// when the shadow begins (broker.AskAgain), and each question that was ever asked is
// compared again every shadowEvery, for windows open and close.
type shadow struct {
	policy *acl.Policy
	by     string
	until  time.Time
	now    func() time.Time
	force  func() *acl.Policy // that is in force
	client bool               // the answer may depend on client ids

	over chan struct{} // closed by end
	end  func()

	cost atomic.Int64 // ns spent on it

	mu     sync.Mutex         // guards the following
	seen   map[shadowAsk]bool // whether it has differed
	bytes  int
	missed uint64 // questions for which there was no room
	differ []api.ShadowDifference
}

// shadowAsk is one question.
type shadowAsk struct {
	kind  shadowKind
	who   acl.Who
	what  acl.Action
	topic string
}

type shadowKind uint8

const (
	shadowDecide  shadowKind = iota
	shadowCeiling            // the topic has an owner
	shadowGrant              // may this be subscribed to at all
)

// Bounds of a shadow. What comes later is counted and not asked.
const (
	shadowQuestions   = 20_000
	shadowBytes       = 8 << 20 // of topics and names
	shadowDifferences = 1_000
	shadowMost        = 7 * 24 * time.Hour
	shadowEvery       = 5 * time.Second
)

// ask answers a question by a policy.
func (q *shadowAsk) ask(p *acl.Policy, at time.Time) (allow bool, rule string) {
	switch q.kind {
	case shadowCeiling:
		d := p.Ceiling(q.who, q.what, q.topic, at)
		return d.Allow, d.Rule
	case shadowGrant:
		g := p.Grant(q.who, q.topic, at)
		return g.Allowed, g.Rule
	}
	d := p.Decide(q.who, q.what, q.topic, at)
	return d.Allow, d.Rule
}

// see compares what the policy in force has answered. It may be called from any
// goroutine, also from the one that applies the log: it changes nothing there.
func (s *shadow) see(q shadowAsk, at time.Time, allow bool, rule string) {
	began := time.Now()
	defer func() { s.cost.Add(int64(time.Since(began))) }()
	if !s.client {
		q.who.Client = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.seen[q]; known {
		return
	}
	size := len(q.topic) + len(q.who.Principal) + len(q.who.Client)
	if len(s.seen) == shadowQuestions || s.bytes+size > shadowBytes {
		s.missed++
		return
	}
	q.topic = strings.Clone(q.topic) // it may be of a buffer
	s.bytes += size
	s.seen[q] = false
	s.compare(q, at, allow, rule)
}

// compare notes a difference. s.mu is held.
func (s *shadow) compare(q shadowAsk, at time.Time, allow bool, rule string) {
	is, by := q.ask(s.policy, at)
	if is == allow {
		return
	}
	s.seen[q] = true
	if len(s.differ) < shadowDifferences {
		s.differ = append(s.differ, api.ShadowDifference{
			Principal: q.who.Principal, Client: q.who.Client, Action: q.what.String(), Topic: q.topic, At: at.UTC(),
			Was: allow, WasRule: rule, Is: is, Rule: by, Owner: q.kind == shadowCeiling,
		})
	}
}

// again compares every question that has not differed yet, as of now.
func (s *shadow) again() {
	began := time.Now()
	defer func() { s.cost.Add(int64(time.Since(began))) }()
	in, at := s.force(), s.now()
	if in == nil {
		return
	}
	s.mu.Lock()
	all := make([]shadowAsk, 0, len(s.seen))
	for q, differs := range s.seen {
		if !differs {
			all = append(all, q)
		}
	}
	s.mu.Unlock()
	for _, q := range all {
		allow, rule := q.ask(in, at)
		if is, _ := q.ask(s.policy, at); is != allow {
			s.mu.Lock()
			s.compare(q, at, allow, rule)
			s.mu.Unlock()
		}
	}
}

// run compares again and again until the shadow's time is over.
func (s *shadow) run(ended func()) {
	tick := time.NewTicker(shadowEvery)
	defer tick.Stop()
	for s.now().Before(s.until) {
		select {
		case <-s.over:
			return
		case <-tick.C:
			s.again()
		}
	}
	ended()
}

func (s *shadow) report() api.Shadow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return api.Shadow{
		Until: s.until.UTC(), By: s.by, Asked: len(s.seen), Missed: s.missed, Cost: time.Duration(s.cost.Load()).Seconds(),
		Differences: slices.Clone(s.differ),
	}
}

// shadows is the place of a node's shadow.
type shadows struct {
	mu    sync.Mutex // serializes begin and stop
	now   atomic.Pointer[shadow]
	tasks sync.WaitGroup
}

// see is what an authorizer calls: next to nothing while there is no shadow.
func (s *shadows) see(kind shadowKind, who broker.Who, what broker.Action, topic string, at int64, allow bool, rule string) {
	if is := s.now.Load(); is != nil {
		is.see(shadowAsk{kind, acl.Who(who), actions[what], topic}, time.Unix(0, at), allow, rule)
	}
}

// begin has a shadow take the place of what there is.
func (s *shadows) begin(is *shadow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(is)
	s.tasks.Go(func() { is.run(func() { s.stop(is) }) })
}

// stop ends the shadow, if it is that one; any if it is nil.
func (s *shadows) stop(only *shadow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.now.Load(); is != nil && (only == nil || is == only) {
		s.replace(nil)
	}
}

func (s *shadows) replace(is *shadow) {
	if former := s.now.Swap(is); former != nil {
		former.end()
	}
}

// close ends it for good.
func (s *shadows) close() {
	s.stop(nil)
	s.tasks.Wait()
}

// beginShadow begins one on this node.
func (s *server) beginShadow(q *shadowQuestion) error {
	in, _ := s.broker.Settings()
	policy, err := acl.Parse(sentName, q.Data, in.Domain)
	if err != nil {
		return err
	}
	policy = s.beside(policy)
	over := make(chan struct{})
	is := &shadow{
		policy: policy, by: q.By, until: time.Unix(0, q.Until), now: s.now, seen: map[shadowAsk]bool{}, over: over,
		end: sync.OnceFunc(func() { close(over) }),
		force: func() *acl.Policy {
			if a, ok := s.broker.Policy().(*authorizer); ok {
				return a.policy
			}
			return nil
		},
	}
	is.client = policy.KnowsClients()
	if in := is.force(); in != nil {
		is.client = is.client || in.KnowsClients()
	}
	s.shadows.begin(is)
	s.broker.AskAgain()
	s.config.logger.Info("a policy is tried in the shadow of the one in force", "by", q.By, "until", is.until.UTC().Format(time.RFC3339))
	return nil
}

// A shadowQuestion has a node begin a shadow.
type shadowQuestion struct {
	Data  []byte `json:"data"`
	By    string `json:"by"`
	Until int64  `json:"until"` // unix nanoseconds
}

// shadowPatience is how long a node may take to parse a policy.
const shadowPatience = 5 * time.Second

// tryShadow begins a shadow on all nodes.
func (p policies) tryShadow(data []byte, by, span string) (*api.Shadow, error) {
	n, problem := parseSpan(span)
	if problem != nil || n <= 0 || time.Duration(n) > shadowMost {
		return nil, fmt.Errorf("%w: shadow: %q, want a length of time up to 7d, such as 1h", api.ErrBadQuestion, span)
	}
	until := p.s.now().Add(time.Duration(n))
	q := nodeQuestion{Op: opShadow, Shadow: &shadowQuestion{data, by, until.UnixNano()}}
	total := api.Shadow{Until: until.UTC(), By: by, Differences: []api.ShadowDifference{}}
	for _, node := range p.s.node.Members(statePatience) {
		if _, err := membership(p).askFor(node, q, shadowPatience); err != nil {
			total.Without = append(total.Without, node.Name)
		} else {
			total.Nodes = append(total.Nodes, node.Name)
		}
	}
	return &total, nil
}

// Shadow implements api.Policies.
func (p policies) Shadow(_ context.Context, stop bool) (api.Shadow, error) {
	total := api.Shadow{Differences: []api.ShadowDifference{}}
	q := nodeQuestion{Op: opShadowed}
	if stop {
		q.Op = opShadowEnd
	}
	seen := map[string]bool{}
	for _, node := range p.s.node.Members(statePatience) {
		a, err := membership(p).askFor(node, q, shadowPatience)
		if err != nil || a.Shadow == nil {
			total.Without = append(total.Without, node.Name)
			continue
		}
		is := a.Shadow
		total.Nodes = append(total.Nodes, node.Name)
		total.Until, total.By = is.Until, is.By
		total.Asked += is.Asked
		total.Missed += is.Missed
		total.Cost += is.Cost
		for _, d := range is.Differences {
			key := strings.Join([]string{d.Principal, d.Client, d.Action, d.Topic, fmt.Sprint(d.Owner, d.Is)}, "\x00")
			if !seen[key] && len(total.Differences) < shadowDifferences {
				seen[key] = true
				total.Differences = append(total.Differences, d)
			}
		}
	}
	if len(total.Nodes) == 0 {
		return total, api.ErrNoShadow
	}
	slices.SortFunc(total.Differences, func(a, b api.ShadowDifference) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Principal, b.Principal))
	})
	return total, nil
}
