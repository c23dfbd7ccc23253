package acl

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// A selfTest is an entry of `tests`: what the author of the policy expects of
// it. It has one of three subjects: as (a question each), who_can, can_what.
type selfTest struct {
	name string
	line int
	at   []time.Time // empty: the answer must not depend on the time

	as          *Who // asks allow and deny, decided by `by` if that is not empty
	allow, deny []ask
	by          string

	whoCan  *ask // must be answered by exactly, addresses and patterns
	canWhat *Who // must be answered by exactly, actions and filters
	exactly []string
}

// An ask is an action on a topic, as in "subscribe ward/3/alarm".
type ask struct {
	what  Action
	topic string
}

func (a ask) String() string { return a.what.String() + " " + a.topic }

// parseAsk reads "publish TOPIC" or "subscribe FILTER".
func parseAsk(s string) (ask, error) {
	word, name, _ := strings.Cut(strings.TrimSpace(s), " ")
	name = strings.TrimSpace(name)
	a := ask{topic: name}
	var err error
	switch word {
	case "publish":
		a.what, err = Publish, topic.ValidName(name)
	case "subscribe":
		if a.what, err = Subscribe, topic.ValidFilter(name); err == nil {
			_, a.topic, _, err = topic.SplitShare(name) // a shared one needs no other permission
		}
	default:
		return ask{}, problemf("%q is no action on a topic", shown(s)).
			Near(word, []string{"publish", "subscribe"}, `write for example "subscribe home/#"`)
	}
	if err != nil {
		return ask{}, problemf("%q: %v", shown(s), err)
	}
	return a, nil
}

// readTest reads an entry of `tests`, nil if it is past reading.
func (r *reader) readTest(n *yamltree.Node) *selfTest {
	f, ok := r.Table(n, "a test", "name", "as", "client", "at", "allow", "deny", "by", "who_can", "can_what", "exactly")
	if !ok {
		return nil
	}
	before := r.Told()
	t := &selfTest{line: n.Pos.Line}
	if f["at"] != nil {
		t.at = r.readInstants(f["at"])
	}
	var subject string
	for _, s := range []string{"as", "who_can", "can_what"} {
		if f[s] != nil && subject != "" {
			r.Fail(f[s], "a test of both %s and %s", subject, s)
		} else if f[s] != nil {
			subject = s
		}
	}
	switch subject {
	case "as":
		r.readAs(n, t, f)
	case "who_can":
		if text, ok := r.Text(f["who_can"], "who_can"); ok {
			t.name = "who_can " + text
			if a, err := parseAsk(text); err != nil {
				r.Report(f["who_can"], err)
			} else {
				t.whoCan = &a
			}
		}
		t.exactly = r.readExactly(n, f, r.canonicalWho)
	case "can_what":
		t.canWhat = r.readTestWho(f, "can_what")
		t.name = "can_what " + t.canWhat.String()
		t.exactly = r.readExactly(n, f, canonicalAsk)
	default:
		r.FailAt(n.Pos, problemf("a test of nothing").Hint("add as with allow or deny, or who_can or can_what with exactly"))
	}
	if subject != "as" && t.at == nil && len(r.policy.windows) > 0 {
		r.FailAt(n.Pos, problemf("a test of %s at no time, though there are windows", subject).Hint("add at: 2026-03-09T08:00 America/Chicago"))
	}
	r.unexpected(f, subject)
	if f["name"] != nil {
		if text, ok := r.Text(f["name"], "name"); ok {
			t.name = text
		}
	}
	if r.Told() > before {
		return nil
	}
	return t
}

// unexpected reports keys that a test of subject has no use for.
func (r *reader) unexpected(f map[string]*yamltree.Node, subject string) {
	useless := map[string][]string{
		"as":       {"exactly"},
		"who_can":  {"allow", "deny", "by", "client"},
		"can_what": {"allow", "deny", "by"},
	}
	for _, k := range useless[subject] {
		if f[k] != nil {
			r.Fail(f[k], "a test of %s has no use for %q", subject, k)
		}
	}
}

func (r *reader) readAs(n *yamltree.Node, t *selfTest, f map[string]*yamltree.Node) {
	t.as = r.readTestWho(f, "as")
	t.name = "as " + t.as.String()
	if f["allow"] == nil && f["deny"] == nil {
		r.FailAt(n.Pos, problemf("a test that expects nothing").Hint(`add allow or deny, such as allow: ["subscribe home/#"]`))
	}
	t.allow = r.readAsks(f["allow"], "allow")
	t.deny = r.readAsks(f["deny"], "deny")
	if f["by"] == nil {
		return
	}
	id, ok := r.Text(f["by"], "by")
	if ok && r.rules[id] == nil {
		r.FailAt(f["by"].Pos, problemf("there is no rule or limit %q", shown(id)).
			Near(id, slices.Sorted(maps.Keys(r.rules)), "name the id of one"))
	}
	t.by = id
}

func (r *reader) readTestWho(f map[string]*yamltree.Node, key string) *Who {
	who := &Who{}
	text, ok := r.Text(f[key], key)
	if err := r.part.checkKind(anonymous); ok && text == anonymous && err != nil {
		r.Report(f[key], err)
	} else if ok && text != anonymous {
		address, err := r.address(text)
		if err != nil {
			r.Report(f[key], err)
		}
		who.Principal = address
	}
	if f["client"] != nil {
		who.Client, _ = r.Text(f["client"], "client")
	}
	return who
}

func (r *reader) readAsks(n *yamltree.Node, what string) []ask {
	if n == nil {
		return nil
	}
	var asks []ask
	for _, v := range r.Values(n, what) {
		a, err := parseAsk(v.Text)
		if err != nil {
			r.Report(v, err)
			continue
		}
		asks = append(asks, a)
	}
	return asks
}

// readExactly reads the expected answers, each made canonical. An empty list
// expects none.
func (r *reader) readExactly(owner *yamltree.Node, f map[string]*yamltree.Node, canonical func(string) ([]string, error)) []string {
	n := f["exactly"]
	if n == nil {
		r.FailAt(owner.Pos, problemf("a test without `exactly`").Hint("add exactly: [], or what you expect"))
		return nil
	}
	if n.Kind == yamltree.List && len(n.List) == 0 {
		return nil
	}
	var all []string
	for _, v := range r.Values(n, "exactly") {
		some, err := canonical(v.Text)
		if err != nil {
			r.Report(v, err)
			continue
		}
		all = append(all, some...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// canonicalWho makes an expected answer of who_can canonical. !address stands
// for somebody who may not, though his like may.
func (r *reader) canonicalWho(s string) ([]string, error) {
	name, not := strings.CutPrefix(s, "!")
	sign := s[:len(s)-len(name)]
	switch {
	case (name == anyone || name == "*") && !not:
		return []string{signedIn, anonymous}, r.part.checkKind(name)
	case name == anyone || name == "*":
		return nil, problemf("%q is nobody", s).Hint("leave it out: who is not listed is expected to be denied")
	case name == anonymous || name == signedIn:
		return []string{s}, r.part.checkKind(name)
	case strings.HasPrefix(name, "group:"):
		return nil, problemf("%q is a group", s).Hint("list addresses, anyone, anonymous, *@* or *@example.com")
	case strings.HasPrefix(name, "*@"):
		domain, err := ParseDomain(name[2:])
		if err == nil {
			err = r.part.checkKind("*@" + domain)
		}
		return []string{sign + "*@" + domain}, err
	}
	address, err := r.address(name)
	return []string{sign + address}, err
}

// canonicalAsk makes an expected answer of can_what canonical. !action filter
// stands for a part that is denied of what is allowed.
func canonicalAsk(s string) ([]string, error) {
	name, _ := strings.CutPrefix(s, "!")
	word, filter, _ := strings.Cut(strings.TrimSpace(name), " ")
	filter = strings.TrimSpace(filter)
	if _, err := parseAsk("subscribe " + filter); err != nil || word != "publish" && word != "subscribe" {
		return nil, problemf("%q is no action on topics", shown(s)).Hint(`write for example "publish home/#", or "!publish home/x" for a part that is denied`)
	}
	return []string{s[:len(s)-len(name)] + word + " " + filter}, nil
}
