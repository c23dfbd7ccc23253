package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/yamltree"
)

// The policy is replicated state: a file is proposed at the first start and on
// SIGHUP, and never read by a node on its own.

// readPolicy reads and checks a policy file.
func readPolicy(name, domain string) (*acl.Policy, error) {
	data, err := readPolicyData(name)
	if err != nil {
		return nil, err
	}
	return parsePolicy(name, data, domain)
}

func readPolicyData(name string) ([]byte, error) {
	data, err := readAtMost(name, acl.MaxFile+1)
	if err != nil {
		return nil, fileFault(bw.PolicyFile, name, err)
	}
	return data, nil
}

// parsePolicy is acl.ParseNew for a file that is named on the command line: all
// that is wrong with it is one fault.
func parsePolicy(name string, data []byte, domain string) (*acl.Policy, error) {
	policy, err := acl.ParseNew(name, data, domain)
	if err == nil {
		return policy.WithOwners(ownedKinds()...), nil
	}
	if _, faulty := errors.AsType[*acl.FileError](err); !faulty {
		return nil, fail(bw.Usage, "%w", err)
	}
	f := fileFault(bw.PolicyFile, name, err)
	if namesNoDomain(err) {
		f.do("correct the file: every fault is listed with its place; --domain example.com sets the domain of bare names")
	}
	return nil, f
}

// namesNoDomain says whether a bare name is among the faults of a file, which no flag has set a domain for.
func namesNoDomain(err error) bool {
	bad, ok := errors.AsType[*acl.FileError](err)
	return ok && slices.ContainsFunc(bad.Faults, func(f yamltree.Fault) bool { return strings.HasSuffix(f.What, acl.NoDomain) })
}

// ownedKinds are the first levels of the topics of which their owners decide.
func ownedKinds() []string { return slices.Sorted(maps.Keys(policyKinds())) }

// setPolicy checks a policy, then has it ordered. The log asks for it parsed next.
func (s *server) setPolicy(ctx context.Context, name string, data []byte) error {
	in, _ := s.broker.Settings()
	p, err := checkPolicy(name, data, in.Domain)
	if err != nil {
		return err
	}
	if err := s.mayHaveRoles(p); err != nil {
		return err
	}
	next := s.beside(p)
	removed, forgotten := s.removed(next)
	if err := s.mayRemove(next, removed, ""); err != nil {
		return fail(bw.NotConfirmed, "%w", err).do("if it is meant, bellwire acl apply %s --remove-users puts it in force", name)
	}
	s.parsed.keep(data, in.Domain, p)
	if _, err = s.broker.PutPolicy(ctx, broker.PolicyChange{Data: data, By: "file"}); err == nil {
		s.warnRemoved(removed, forgotten)
	}
	return err
}

// removed returns whom the policy in force names and p does not, and nothing of p proves
// otherwise, in order, and when
// what is theirs is forgotten if p is put in force now; nil if it is not forgotten.
func (s *server) removed(p *acl.Policy) (names []string, forgotten *time.Time) {
	in, ok := s.broker.Policy().(*authorizer)
	if !ok {
		return nil, nil
	}
	names = slices.DeleteFunc(in.Known(), func(name string) bool { return p.Knows(name) || p.Credential(name, "") != "" })
	if len(names) > 0 && s.broker.Forgets() {
		at := s.now().Add(broker.ForgetAfter).UTC().Truncate(time.Second)
		forgotten = &at
	}
	return names, forgotten
}

// removedFreely is how many users a policy may remove without it having been said that
// they are meant, and removedShare that part of all whom a policy may remove.
const (
	removedFreely = 2
	removedShare  = 4
)

// mayRemove refuses a policy that looks like a part of a file: one with no operator where
// there were some, with no user and no issuer where there were, or without more than a
// quarter of the users and more than two. For users lose at once what waits for their
// devices, acknowledged or not. Who says that it is meant has it put in force (see
// api.PolicyChange). If part is not empty, it is about that domain's own users only.
func (s *server) mayRemove(next *acl.Policy, removed []string, part string) error {
	in, ok := s.broker.Policy().(*authorizer)
	if !ok {
		return nil
	}
	of := func(p *acl.Policy) (n int) {
		for _, name := range p.Known() {
			if part == "" || p.UserOf(name) == part {
				n++
			}
		}
		return n
	}
	was := of(in.policy)
	switch n := len(removed); {
	case part == "" && in.operator.Members(acl.OperatorsGroup) > 0 && next.Members(acl.OperatorsGroup) == 0:
		return fmt.Errorf("%w: the group %s would have no member any more", api.ErrRemoves, acl.OperatorsGroup)
	case n > 0 && of(next) == 0 && (part != "" || len(next.Issuers()) == 0):
		return fmt.Errorf("%w: no user would be left, of %d", api.ErrRemoves, was)
	case n > removedFreely && n*removedShare > was:
		return fmt.Errorf("%w: %d of %s would be removed, with sessions and what waits for devices", api.ErrRemoves, n, plural(was, "user"))
	}
	return nil
}

// warnRemoved tells the log whom a policy that is in force has ceased to name: what
// follows from a mistake there cannot be taken back later.
func (s *server) warnRemoved(names []string, forgotten *time.Time) {
	if len(names) > 0 {
		s.config.logger.Warn(removedText(names, forgotten))
	}
}

// removedShown is how many names removedText has.
const removedShown = 20

// removedText says what whom a policy has ceased to name lose, and by when they must be
// named again.
func removedText(names []string, forgotten *time.Time) string {
	who := strings.Join(names[:min(len(names), removedShown)], ", ")
	if more := len(names) - removedShown; more > 0 {
		who += fmt.Sprintf(" and %d more", more)
	}
	text := plural(len(names), "user") + " removed, with sessions and what waits for devices: " + who
	if forgotten != nil {
		text += "; their policies, presence, location and inboxes are forgotten at " + forgotten.Format(time.RFC3339) +
			", unless a policy names them before"
	}
	return text
}

// mayHaveRoles refuses a policy with sections that a node of the cluster may not know
// yet: it would not read the policy, and have another one in force than the others.
func (s *server) mayHaveRoles(p *acl.Policy) error {
	for section, has := range map[string]bool{"roles": p.HasRoles(), "durability": p.HasDurability(), "delayed": p.HasDelays(), "rewrite": p.HasRewrites(), "subscriptions": p.HasGivens(), "scram_sha256": p.HasScram(), "issuers": len(p.Issuers()) > 0, "logins": p.HasLogins()} {
		if has && s.broker.Level() < broker.LevelPolicies {
			return fail(bw.PolicyFile, "the policy has %s, which not all nodes of the cluster know: the feature level is %d, it needs %d", section, s.broker.Level(), broker.LevelPolicies).
				do("upgrade all nodes, or leave %s out", section)
		}
	}
	return nil
}

// checkPolicy parses a policy as its author should see it. One whose own tests
// fail is refused.
func checkPolicy(name string, data []byte, domain string) (*acl.Policy, error) {
	p, err := acl.ParseNew(name, data, domain)
	if err != nil {
		return nil, err
	}
	var failed faults
	for _, t := range p.WithOwners(ownedKinds()...).Test().Results {
		if len(t.Failed) > 0 {
			failed.add(fail(bw.PolicyFile, "%s:%d: its own test %q fails: %s", name, t.Line, t.Name, strings.Join(t.Failed, "; ")).
				do("%s", policyTest(name, domain)))
		}
	}
	return p, failed.err()
}

// policyTest is what tells all that is wrong with a policy file.
func policyTest(name, domain string) string {
	if domain != "" {
		return "bellwire acl test --domain " + domain + " " + name
	}
	return "bellwire acl test " + name
}

// firstPolicy puts the configured policy in force if none ever was. After that
// the policy is state, and changes by command only.
func (s *server) firstPolicy(ctx context.Context) error {
	if s.broker.Policy() != nil {
		if s.config.policyFault != nil {
			s.refusePolicy(s.config.policyName, s.config.policyFault)
		}
		return nil
	}
	if s.config.policyFault != nil {
		return s.config.policyFault
	}
	if len(s.config.policy) == 0 {
		s.config.logger.Warn("no policy is in force: nobody is let in; give --policy or --allow-anonymous")
		return nil
	}
	return s.setPolicy(ctx, s.config.policyName, s.config.policy)
}

// reloadPolicy has the policy file ordered. A bad file changes nothing: the
// policy in force stays.
func (s *server) reloadPolicy(ctx context.Context, name string) {
	if name == "" {
		s.config.logger.Warn("SIGHUP: there is no policy file to read again; start with --policy FILE to have one")
		return
	}
	before := s.broker.PolicyData()
	data, err := readRegular(name, acl.MaxFile+1)
	same := err == nil && before != nil && bytes.Equal(before, data)
	if err == nil && !same {
		err = s.setPolicy(ctx, name, data)
	}
	switch {
	case err != nil:
		s.refusePolicy(name, err)
	case same: // nothing is ordered: it would be a version more, and a line for the auditor
		s.config.logger.Info("policy unchanged: the file says what is in force", "file", name)
	default:
		s.config.logger.Info("policy changed", "file", name)
	}
}

// warnOfOtherPolicy says that the file is not what is in force: the policy is
// state, and a restart does not read it.
func (s *server) warnOfOtherPolicy(name string) {
	if name != "" && s.config.policyFault == nil && !bytes.Equal(s.config.policy, s.broker.PolicyData()) {
		s.config.logger.Warn("the policy file differs from the policy in force: send SIGHUP to put it in force", "file", name)
	}
}

// warnOfNobody says that nobody can log in by the policy in force.
func (s *server) warnOfNobody() {
	a, ok := s.broker.Policy().(*authorizer)
	if ok && a.policy.Users() == 0 && len(a.policy.Issuers()) == 0 && s.config.trust == trustNobody && !s.config.allowAnonymous {
		s.config.logger.Warn("the policy has no users: nobody can log in", "todo", "add users to it (bellwire user add NAME --policy FILE) and send SIGHUP, or start with --allow-anonymous")
	}
}

// faultsLogged bounds the records of one refused file.
const faultsLogged = 20

// refusePolicy logs that a policy is not put in force: a record for each thing
// that is wrong with it, and one that says what that means.
func (s *server) refusePolicy(name string, err error) {
	logger := s.config.logger.With("file", name)
	n := logFaults(logger, "a fault in the policy file", err)
	todo, code := policyTest(name, s.config.domain), bw.PolicyFile
	if f, ok := errors.AsType[*fault](err); ok && f.code == bw.NotConfirmed {
		todo, code = f.todo, f.code
	}
	logger.Error("policy not changed: the one in force stays", "faults", n, "todo", todo, "code", code.String())
}

// logFaults logs a record for each of the n things that are wrong with a file, up
// to a bound.
func logFaults(logger *slog.Logger, message string, err error) (n int) {
	records, n := fileFaults(err)
	for _, attrs := range records[:min(len(records), faultsLogged)] {
		logger.Error(message, attrs...)
	}
	return n
}

// fileFaults returns the attributes of a log record for each of the n things that
// are wrong with a file, or of those that were kept.
func fileFaults(err error) (records [][]any, n int) {
	if bad, ok := errors.AsType[*yamltree.FileError](err); ok {
		for _, f := range bad.Faults {
			records = append(records, []any{"line", f.Line, "column", f.Column, "what", f.What, "hint", f.Hint})
		}
		return records, len(records) + bad.More
	}
	all, ok := errors.AsType[faults](err)
	if !ok {
		all = faults{err}
	}
	for _, err := range all {
		records = append(records, []any{"what", err.Error()})
	}
	return records, len(records)
}

// parsed keeps the policy that was parsed last. To parse a large one takes a
// second, for which nothing would be delivered to anybody if it were done when
// the log's turn comes; so it is done before the policy is proposed, and what is
// made of the same bytes is the same.
type parsed struct {
	mu     sync.Mutex // guards the following
	policy *acl.Policy
	data   []byte
	domain string
}

func (p *parsed) keep(data []byte, domain string, policy *acl.Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy, p.data, p.domain = policy, data, domain
}

// find returns the policy if it was made of the same, and lets go of it.
func (p *parsed) find(data []byte, domain string) *acl.Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy == nil || p.domain != domain || !bytes.Equal(p.data, data) {
		return nil
	}
	found := p.policy
	p.policy, p.data = nil, nil
	return found
}
