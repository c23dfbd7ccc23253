package acl

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// A TestResult is what became of one entry of `tests`.
type TestResult struct {
	Name   string
	Line   int
	Checks int      // answers compared, where all were as expected
	Failed []string // lines that say what was not; empty if the test passed
}

// A TestReport is the outcome of a policy's own tests.
type TestReport struct {
	File    string
	Results []TestResult
	Passed  int
	Failed  int
	Unused  []string // rules and limits that no test made use of, with file and line
}

// Test runs the policy's own tests.
func (p *Policy) Test() TestReport {
	run := testRun{policy: p, used: map[string]bool{}}
	return run.report()
}

// report runs the tests of the run's policy.
func (run *testRun) report() TestReport {
	p := run.policy
	report := TestReport{File: p.file}
	for _, t := range p.tests {
		result := run.one(t)
		if len(result.Failed) == 0 {
			report.Passed++
		} else {
			report.Failed++
		}
		report.Results = append(report.Results, result)
	}
	for _, r := range p.byLine() {
		if len(p.tests) > 0 && !run.used[r.id] && r.of == run.domain {
			report.Unused = append(report.Unused, fmt.Sprintf("%s %s (%s:%d)", r.effect, r.id, p.fileOf(r), r.pos.Line))
		}
	}
	return report
}

// byLine returns the rules in the order of the file.
func (p *Policy) byLine() []*rule {
	return slices.SortedFunc(slices.Values(p.rules), func(a, b *rule) int { return a.pos.Line - b.pos.Line })
}

// String is the report for people, as in
//
//	ok    night window wraps midnight        4 checks
//	FAIL  who_can subscribe ward/3/alarm     policy.yaml:30
//	      expected nobody, got dr-lee@example.com
//	1 passed, 1 failed · never hit: rule day-doctors (policy.yaml:11)
func (r TestReport) String() string {
	var b strings.Builder
	for _, t := range r.Results {
		if len(t.Failed) == 0 {
			checks := "checks"
			if t.Checks == 1 {
				checks = "check"
			}
			fmt.Fprintf(&b, "ok    %-33s  %d %s\n", t.Name, t.Checks, checks)
			continue
		}
		fmt.Fprintf(&b, "FAIL  %-33s  %s:%d\n", t.Name, r.File, t.Line)
		for _, line := range t.Failed {
			b.WriteString("      " + line + "\n")
		}
	}
	fmt.Fprintf(&b, "%d passed, %d failed", r.Passed, r.Failed)
	if len(r.Unused) > 0 {
		b.WriteString(" · never hit: " + strings.Join(r.Unused, ", "))
	}
	b.WriteByte('\n')
	return b.String()
}

// A testRun is one run of a policy's tests.
type testRun struct {
	policy *Policy
	used   map[string]bool // ids of rules that had a say
	domain string          // whose part the tests are of: they are told of nobody else; empty for the operator's
}

func (run *testRun) one(t *selfTest) TestResult {
	result := TestResult{Name: t.name, Line: t.line}
	ats := t.at
	if len(ats) == 0 {
		ats = []time.Time{{}}
	}
	for _, at := range ats {
		switch {
		case t.as != nil:
			run.asks(&result, t, at)
		case t.whoCan != nil:
			got, cause := run.whoCan(*t.whoCan, t, at)
			run.exactly(&result, t, at, got, cause)
		default:
			got, cause := run.canWhat(*t.canWhat, at)
			run.exactly(&result, t, at, got, cause)
		}
	}
	return result
}

// asks compares the answers to allow and deny.
func (run *testRun) asks(result *TestResult, t *selfTest, at time.Time) {
	for i, a := range slices.Concat(t.allow, t.deny) {
		want := i < len(t.allow)
		to, _, err := run.policy.Rewrite(*t.as, a.what, a.topic)
		d := Decision{}
		if err != nil {
			d.Reason = err.Error()
		} else {
			a.topic = to
			d, _ = run.policy.judge(*t.as, a.what, a.topic, seconds(at))
		}
		run.use(*t.as, a, at)
		switch {
		case len(t.at) == 0 && d.Windowed:
			result.fail("%s: the answer depends on the time: add at", a)
		case d.Allow == want:
			result.Checks++
		case want:
			result.fail("expected allow, got deny: %s%s", a, t.instantText(at))
			result.fail("%s", run.because(*t.as, a, at, d))
		default:
			result.fail("expected deny, got allow: %s%s", a, t.instantText(at))
			result.fail("%s", run.by(d))
		}
		// What `by` names is about what is allowed; where nothing is, about
		// what is denied.
		if t.by != "" && d.Allow == want && (want || len(t.allow) == 0) && !run.hasSay(t.by, *t.as, a, at) {
			result.fail("expected by %s, got it otherwise: %s%s", t.by, a, t.instantText(at))
			result.fail("%s", run.by(d))
		}
	}
	if t.by != "" {
		result.Checks++
	}
}

func (result *TestResult) fail(format string, args ...any) {
	result.Failed = append(result.Failed, fmt.Sprintf(format, args...))
}

// exactly compares two sets of answers. cause explains one that was not
// expected.
func (run *testRun) exactly(result *TestResult, t *selfTest, at time.Time, got []string, cause map[string]string) {
	if slices.Equal(got, t.exactly) {
		result.Checks++
		return
	}
	none := "nobody"
	if t.canWhat != nil {
		none = "nothing"
	}
	result.fail("expected %s, got %s%s", set(t.exactly, none), set(got, none), t.instantText(at))
	for _, g := range got {
		if !slices.Contains(t.exactly, g) && cause[g] != "" {
			result.fail("%s", cause[g])
			break
		}
	}
}

// set lists the members of a set, or says none.
func set(members []string, none string) string {
	if len(members) == 0 {
		return none
	}
	return listed(members, 10)
}

// instantText says which of t's instants is meant, if there are several.
func (t *selfTest) instantText(at time.Time) string {
	if len(t.at) < 2 {
		return ""
	}
	return " at " + at.Format(time.RFC3339)
}

// because says why d is no.
func (run *testRun) because(who Who, a ask, at time.Time, d Decision) string {
	if a.what == Subscribe && d.Rule == "" && run.policy.untold(who, a.what, a.topic) == "" {
		d.Reason = run.policy.Grant(who, a.topic, at).Reason
	}
	if d.Rule == "" {
		return d.Reason
	}
	return fmt.Sprintf("%s (%s:%d)", d.Reason, run.policy.fileOf(run.policy.rule(d.Rule)), d.Line)
}

// by says which rule is behind d.
func (run *testRun) by(d Decision) string {
	if d.Rule == "" && d.Allow {
		return leftToOwner
	}
	if d.Rule == "" {
		return d.Reason
	}
	r := run.policy.rule(d.Rule)
	text := fmt.Sprintf("by %s %s (%s:%d)", r.effect, r.id, run.policy.fileOf(r), r.pos.Line)
	if r.when == nil {
		return text + ", which has no `when:` and so is always open"
	}
	return text + ", which is open: " + r.when.text
}

// rule returns the rule or limit with that id, which must exist.
func (p *Policy) rule(id string) *rule {
	r, _ := p.find(id)
	return r
}

// find returns the rule or limit with that id.
func (p *Policy) find(id string) (*rule, bool) {
	i, ok := slices.BinarySearchFunc(p.rules, id, func(r *rule, id string) int { return strings.Compare(r.id, id) })
	if !ok {
		return nil, false
	}
	return p.rules[i], true
}

// hasSay says whether the rule with that id has a part in the answer: it is
// about who and the whole topic, and in force at the instant.
func (run *testRun) hasSay(id string, who Who, a ask, at time.Time) bool {
	if run.domain != "" {
		id = run.domain + partMark + id
	}
	r, ok := run.policy.find(id)
	return ok && run.counts(r, a) && r.covers(who, a, at)
}

// use notes the rules that have a part in the answer.
func (run *testRun) use(who Who, a ask, at time.Time) {
	for _, r := range run.policy.rules {
		if !run.used[r.id] && run.counts(r, a) && r.covers(who, a, at) {
			run.used[r.id] = true
		}
	}
}

// counts says whether r is of a kind that has a say: what has owners no rule
// allows.
func (run *testRun) counts(r *rule, a ask) bool {
	return r.effect != allow || !run.policy.owned(a.topic)
}

// covers says whether r has a part in the answer. A limit always has, for it
// either lets pass or cuts.
func (r *rule) covers(who Who, a ask, at time.Time) bool {
	if !r.matches(who, a.what) || r.effect != limit && r.when != nil && !r.when.Open(at) {
		return false
	}
	for _, p := range r.patterns {
		if own, ok := p.filterFor(who); ok && topic.Covers(own, a.topic) {
			return true
		}
	}
	return false
}

// whoCan returns who may do a: the kinds of principals that may (anonymous,
// *@*, *@domain), the addresses that may though their kind may not, and !those
// that may not though their kind may.
func (run *testRun) whoCan(a ask, t *selfTest, at time.Time) (answers []string, cause map[string]string) {
	cause = map[string]string{}
	may := func(principal string) bool {
		d, _ := run.policy.judge(Who{Principal: principal}, a.what, a.topic, seconds(at))
		if d.Rule != "" && (d.Allow || run.policy.rule(d.Rule).effect != allow) {
			run.used[d.Rule] = true
		}
		cause[principal] = run.by(d)
		return d.Allow
	}
	note := func(name, principal string, differsFrom bool) bool {
		allowed := may(principal)
		switch {
		case allowed && !differsFrom:
			answers = append(answers, name)
		case !allowed && differsFrom:
			answers = append(answers, "!"+name)
			name = "!" + name
		}
		cause[name] = cause[principal]
		return allowed
	}
	// Nobody is called that, for it is no address.
	const nobody = "\x00"
	note(anonymous, "", false)
	anybody := note(signedIn, nobody+"@"+nobody, false)
	people, domains := run.known(t)
	byDomain := map[string]bool{}
	for _, d := range domains {
		byDomain[d] = note("*@"+d, nobody+"@"+d, anybody)
	}
	for _, address := range people {
		like, listed := byDomain[Who{Principal: address}.domain()]
		note(address, address, listed && like || !listed && anybody)
	}
	slices.Sort(answers)
	if run.domain != "" {
		answers = OfDomains(answers, []string{run.domain})
	}
	return answers, cause
}

// known returns the addresses and domains that the file names.
func (run *testRun) known(t *selfTest) (people, domains []string) {
	p := run.policy
	people = slices.Collect(maps.Keys(p.users))
	for _, g := range p.groups {
		people = slices.AppendSeq(people, maps.Keys(g.members))
	}
	for _, r := range p.rules {
		people = slices.AppendSeq(people, maps.Keys(r.who.people))
		domains = append(domains, r.who.domains...)
	}
	for _, o := range p.roles { // whom rules need not name
		people, domains = append(people, o.who.names()...), append(domains, o.who.domains...)
	}
	for _, e := range t.exactly {
		e = strings.TrimPrefix(e, "!")
		if domain, ok := strings.CutPrefix(e, "*@"); ok && e != signedIn {
			domains = append(domains, domain)
		} else if e != signedIn && e != anonymous {
			people = append(people, e)
		}
	}
	slices.Sort(people)
	slices.Sort(domains)
	return slices.Compact(people), slices.Compact(domains)
}

// canWhat returns what who may do at the instant: an action and a filter each,
// and !an action and a filter for each part of them that is denied.
func (run *testRun) canWhat(who Who, at time.Time) (answers []string, cause map[string]string) {
	cause = map[string]string{}
	for _, what := range []Action{Publish, Subscribe} {
		var allowed, cut []string
		for _, r := range run.policy.rules {
			open := r.when == nil || r.when.Open(at)
			switch {
			case !r.matches(who, what):
				continue
			case r.effect == limit && (!open || r.excludes(who)):
			case r.effect == limit || !open:
				continue
			}
			run.used[r.id] = true
			for _, p := range r.patterns {
				filter, ok := p.filterFor(who)
				if !ok {
					continue
				}
				if r.effect == allow {
					allowed = append(allowed, filter)
				} else {
					cut = append(cut, filter)
				}
				cause[what.String()+" "+filter] = run.by(Decision{Rule: r.id})
			}
		}
		allowed = slices.DeleteFunc(widest(allowed), func(f string) bool {
			return slices.ContainsFunc(cut, func(c string) bool { return topic.Covers(c, f) }) || run.policy.untold(who, what, f) != ""
		})
		for _, f := range allowed {
			answers = append(answers, what.String()+" "+f)
		}
		for _, c := range widest(cut) {
			if slices.ContainsFunc(allowed, func(f string) bool { return topic.Overlaps(c, f) }) {
				answers = append(answers, "!"+what.String()+" "+c)
			}
		}
	}
	slices.Sort(answers)
	return answers, cause
}
