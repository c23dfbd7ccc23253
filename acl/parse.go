package acl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/yamltree"
)

// Parse makes a policy of the bytes of a file. name is what its faults and
// explanations call the file; domain is that of bare names and may be empty.
// The result depends on nothing else, so that every node makes the same of the
// same bytes.
//
// The error is a *FileError with every fault of the file. (What is not YAML has
// one: nobody knows what follows.)
func Parse(name string, data []byte, domain string) (*Policy, error) {
	return parse(name, data, domain, false)
}

// ParseNew is Parse for what somebody wants to have in force: a file that says nothing,
// empty or of comments only, is a fault of its own. It is a file that was being written, or
// a pipe that was read before, never what was meant, and would remove every user. (What is
// in the log already is read by Parse: it may be one from before this was so.)
func ParseNew(name string, data []byte, domain string) (*Policy, error) {
	return parse(name, data, domain, true)
}

func parse(name string, data []byte, domain string, mustSay bool) (*Policy, error) {
	r := reader{zones: zoneCache{}, windows: map[string]*Window{}, policy: &Policy{file: name}}
	if domain != "" {
		canonical, err := ParseDomain(domain)
		if err != nil {
			return nil, fmt.Errorf("acl: the domain of bare names: %w", err)
		}
		r.policy.domain = canonical
	}
	var top *yamltree.Node
	if r.Reader, top = yamltree.Read(name, data, form); top != nil {
		if mustSay && top.Kind == yamltree.Null {
			r.FailAt(yamltree.Pos{Line: 1, Column: 1}, problemf("the file says nothing").Hint("a policy that denies everything to everybody is written as rules: []"))
		}
		r.read(top)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	r.policy.finish()
	return r.policy, nil
}

// finish makes of rules and users what answers are found by.
func (p *Policy) finish() {
	slices.SortFunc(p.rules, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	for i, one := range p.rules {
		one.rank = i
	}
	p.index = newIndex(p.rules)
	denying := slices.DeleteFunc(slices.Clone(p.rules), func(r *rule) bool { return r.effect == allow })
	p.ceiling, p.bounded = newIndex(denying), len(denying) > 0
	p.cuts = newIndex(slices.DeleteFunc(slices.Clone(p.rules), func(r *rule) bool {
		return r.effect == allow || r.when == nil
	}))
	p.rewriting = newRewriteIndex(p.rewrites)
	p.decoy, p.scram = newDecoy(p.users), newScramForm(p.users)
}

// sections are the keys of a policy file; that of users comes first.
var sections = []string{"users", "issuers", "logins", "groups", "rules", "limits", "roles", "tenants", "durability", "delayed", "rewrite", "subscriptions", "tests"}

// read reads the sections of the file.
func (r *reader) read(top *yamltree.Node) {
	if top.Kind == yamltree.Null {
		return // an empty policy denies everything
	}
	keys, what, most := sections, "a policy", MaxRules
	if r.part != nil {
		keys, what, most = partSections, "a domain's part of the policy", MaxPartRules
	}
	f, ok := r.Table(top, what, keys...)
	if !ok {
		return
	}
	r.readUsers(f["users"])
	for _, n := range r.Items(f["issuers"], "issuers", MaxIssuers) {
		r.readIssuer(n)
	}
	for _, n := range r.Items(f["logins"], "logins", MaxLogins) {
		r.readLogin(n)
	}
	r.readGroups(f["groups"])
	r.rules = map[string]*rule{}
	for _, n := range r.Items(f["rules"], "rules", most) {
		r.keep(r.readRule(n))
	}
	for _, n := range r.Items(f["limits"], "limits", most) {
		r.keep(r.readLimit(n))
	}
	for _, one := range r.policy.rules {
		one.prepare()
	}
	for _, n := range r.Items(f["tenants"], "tenants", MaxTenants) {
		r.readTenant(n)
	}
	for _, n := range r.Items(f["roles"], "roles", MaxRoles) {
		r.readRole(n)
	}
	r.readDurability(f["durability"])
	r.readDelays(f["delayed"])
	for _, n := range r.Items(f["rewrite"], "rewrite", MaxRewrites) {
		r.readRewrite(n)
	}
	for _, n := range r.Items(f["subscriptions"], "subscriptions", MaxGivens) {
		r.readGiven(n)
	}
	for _, n := range r.Items(f["tests"], "tests", MaxTests) {
		if t := r.readTest(n); t != nil {
			r.policy.tests = append(r.policy.tests, t)
		}
	}
}

func (r *reader) readUsers(n *yamltree.Node) {
	r.policy.users = map[string]credential{}
	most := MaxUsers
	if r.part != nil {
		most = MaxPartUsers
	}
	for _, k := range r.Keys(n, "users", most) {
		address, err := r.address(k.Name)
		if err != nil {
			r.Report(&yamltree.Node{Pos: k.Pos}, err)
			continue
		}
		if err := r.part.checkUser(address); err != nil {
			r.Report(&yamltree.Node{Pos: k.Pos}, err)
		}
		if _, twice := r.policy.users[address]; twice {
			r.FailAt(k.Pos, problemf("a second entry for user %s", address).Hint("capitals make no difference; a user has one credential"))
		}
		f, ok := r.Table(k.Value, "a user", "password_hash", "token_sha256", "scram_sha256")
		if !ok {
			continue
		}
		r.policy.users[address] = r.readCredential(k, f)
	}
}

func (r *reader) readCredential(k yamltree.Key, f map[string]*yamltree.Node) credential {
	var c credential
	password, token, scram := f["password_hash"], f["token_sha256"], f["scram_sha256"]
	if scram != nil {
		if text, ok := r.Text(scram, "scram_sha256"); ok {
			v, err := ParseVerifier(text)
			if err != nil {
				r.Report(scram, err)
			}
			c.scram = &v
		}
	}
	switch {
	case password != nil && token != nil:
		r.FailAt(k.Pos, problemf("a user with both a password and a token").
			Hint("password_hash is for people, token_sha256 for devices; make two users of it"))
	case password != nil:
		if text, ok := r.Text(password, "password_hash"); ok {
			hash, err := parsePHC(text)
			if err != nil {
				r.Report(password, err)
			}
			c.password = hash
		}
	case token != nil:
		if text, ok := r.Text(token, "token_sha256"); ok {
			hash, err := parseToken(text)
			if err != nil {
				r.Report(token, err)
			}
			c.token, c.hasToken = hash, true
		}
	case scram == nil:
		r.FailAt(k.Pos, problemf("a user without a credential").Hint("add password_hash (bellwire user hash), token_sha256 (bellwire user hash --token) or scram_sha256 (bellwire user hash --scram)"))
	}
	return c
}

func (r *reader) readGroups(n *yamltree.Node) {
	r.groups = map[string]*group{}
	for _, k := range r.Keys(n, "groups", MaxGroups) {
		if err := checkID(k.Name); err != nil {
			r.Report(&yamltree.Node{Pos: k.Pos}, err)
			continue
		}
		g := &group{name: k.Name, line: k.Pos.Line, members: map[string]struct{}{}}
		for _, m := range r.Values(k.Value, "the members of group "+k.Name) {
			if strings.HasPrefix(m.Text, "group:") || strings.HasPrefix(m.Text, "*") {
				r.FailAt(m.Pos, problemf("%q in a group", shown(m.Text)).Hint("a group lists addresses; name other groups and patterns in the rule's who"))
				continue
			}
			address, err := r.address(m.Text)
			if err != nil {
				r.Report(m, err)
				continue
			}
			g.members[address] = struct{}{}
		}
		r.groups[k.Name] = g
		r.policy.groups = append(r.policy.groups, g)
	}
}

// readRule reads an entry of `rules`, nil if it is past reading.
func (r *reader) readRule(n *yamltree.Node) *rule {
	f, ok := r.Table(n, "a rule", "id", "allow", "deny", "who", "topic", "when", "outside")
	if !ok {
		return nil
	}
	made := &rule{pos: n.Pos, id: r.readID(n, f["id"], "rule")}
	allows, denies := f["allow"], f["deny"]
	switch {
	case allows != nil && denies != nil:
		r.Fail(denies, "a rule that both allows and denies")
	case allows != nil:
		made.actions = r.readActions(allows)
	case denies != nil:
		made.effect = deny
		made.actions = r.readActions(denies)
	default:
		r.FailAt(n.Pos, problemf("a rule that neither allows nor denies").Hint("add allow: [publish, subscribe]"))
	}
	made.patterns = r.readTopics(n, f["topic"], made.effect)
	made.who = r.readWho(n, f["who"])
	made.when = r.readWhen(f["when"])
	if f["outside"] != nil {
		made.outside = r.readOutside(f["outside"], made)
	}
	return made
}

// readLimit reads an entry of `limits`.
func (r *reader) readLimit(n *yamltree.Node) *rule {
	f, ok := r.Table(n, "a limit", "id", "topic", "only")
	if !ok {
		return nil
	}
	made := &rule{
		pos: n.Pos, id: r.readID(n, f["id"], "limit"),
		effect: limit, actions: [2]bool{true, true}, who: &audience{anyone: true},
	}
	made.patterns = r.readTopics(n, f["topic"], limit)
	if f["only"] == nil {
		r.FailAt(n.Pos, problemf("a limit without `only`").Hint(`add only: {who: ["*@example.com"]}, or when`))
		return made
	}
	only, ok := r.Table(f["only"], "only", "who", "when")
	if !ok {
		return made
	}
	if only["who"] == nil && only["when"] == nil {
		r.Fail(f["only"], "an `only` that limits nothing: it needs who or when")
	}
	if only["who"] != nil {
		made.who = r.readWho(n, only["who"])
	}
	made.when = r.readWhen(only["when"])
	return made
}

// keep adds a rule that was read.
func (r *reader) keep(one *rule) {
	if one == nil {
		return
	}
	if one.id != "" {
		if first, twice := r.rules[one.id]; twice {
			r.FailAt(one.pos, problemf("a second rule or limit with id %q, the first is at line %d", one.id, first.pos.Line))
			return
		}
		r.rules[one.id] = one
	}
	r.policy.rules = append(r.policy.rules, one)
	if len(r.policy.rules) == MaxRules+1 {
		r.FailAt(one.pos, problemf("more than %d rules and limits", MaxRules))
	}
}

// address reads an address that the file names.
func (r *reader) address(s string) (string, error) {
	address, err := ParseAddress(s, r.policy.domain)
	if err != nil {
		return "", err
	}
	return address, r.part.checkAddress(address)
}

func (r *reader) readID(owner, n *yamltree.Node, what string) string {
	if n == nil {
		r.FailAt(owner.Pos, problemf("a %s without an id", what).Hint("add id: explanations, tests and logs name it"))
		return ""
	}
	id, ok := r.Text(n, "id")
	if !ok {
		return ""
	}
	if err := checkID(id); err != nil {
		r.Report(n, err)
		return ""
	}
	return id
}

// checkID says whether s can be the id of a rule or the name of a group: it
// appears in logs, metrics and messages to clients.
func checkID(s string) error {
	const most = 64
	if s == "" || len(s) > most {
		return problemf("a name of %d characters", len(s)).Hint("1 to %d are possible", most)
	}
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return problemf("%q in the name %q", c, s).Hint("names of rules and groups have letters, digits, - _ and .")
		}
	}
	return nil
}

func (r *reader) readActions(n *yamltree.Node) (actions [2]bool) {
	for _, v := range r.Values(n, "actions") {
		switch v.Text {
		case "publish":
			actions[Publish] = true
		case "subscribe":
			actions[Subscribe] = true
		default:
			r.FailAt(v.Pos, problemf("unknown action %q", shown(v.Text)).
				Near(v.Text, []string{"publish", "subscribe"}, "actions are publish and subscribe"))
		}
	}
	return actions
}

func (r *reader) readTopics(owner, n *yamltree.Node, e effect) []*pattern {
	if n == nil {
		r.FailAt(owner.Pos, problemf("no topic").Hint(`add topic: ["home/#"]`))
		return nil
	}
	var patterns []*pattern
	for _, v := range r.Values(n, "topics") {
		p, err := parsePattern(v.Text)
		if err == nil {
			err = r.part.checkTopic(p, e != allow)
		}
		if err != nil {
			r.Report(v, err)
			continue
		}
		patterns = append(patterns, p)
	}
	return patterns
}

func (r *reader) readWho(owner, n *yamltree.Node) *audience {
	a := &audience{people: map[string]struct{}{}}
	if n == nil {
		r.FailAt(owner.Pos, problemf("nobody it is about").Hint("add who: [ana@example.com], or [anyone]"))
		return a
	}
	for _, v := range r.Values(n, "who") {
		if err := r.addWho(a, v.Text); err != nil {
			r.Report(v, err)
		}
	}
	return a
}

// addWho adds one entry of a `who` to a.
func (r *reader) addWho(a *audience, s string) error {
	switch s {
	case anyone, "*":
		a.anyone = true
		return r.part.checkKind(s)
	case anonymous:
		a.anonymous = true
		return r.part.checkKind(s)
	case signedIn:
		a.signedIn = true
		return r.part.checkKind(s)
	}
	if name, ok := strings.CutPrefix(s, "group:"); ok {
		g, known := r.groups[name]
		if !known {
			return problemf("there is no group %q", shown(name)).
				Near(name, slices.Sorted(maps.Keys(r.groups)), "define it under groups")
		}
		a.groups = append(a.groups, g)
		return nil
	}
	if name, ok := strings.CutPrefix(s, "*@"); ok {
		domain, err := ParseDomain(name)
		if err != nil {
			return err
		}
		a.domains = append(a.domains, domain)
		return r.part.checkKind("*@" + domain)
	}
	address, err := r.address(s)
	if err != nil {
		return err
	}
	a.people[address] = struct{}{}
	return nil
}

func (r *reader) readOutside(n *yamltree.Node, owner *rule) Outside {
	text, ok := r.Text(n, "outside")
	if !ok {
		return Hold
	}
	if owner.actions != [2]bool{} && (owner.effect == deny || !owner.actions[Subscribe]) {
		r.Fail(n, "`outside` in a rule that allows no subscription")
	}
	for _, o := range []Outside{Hold, Announce, End} {
		if text == o.String() {
			return o
		}
	}
	if text == "neutral" {
		r.FailAt(n.Pos, problemf("neutral is for presence and location, plain topics have no neutral state").
			Hint("write hold, announce or end"))
		return Hold
	}
	r.FailAt(n.Pos, problemf("unknown outside %q", shown(text)).
		Near(text, []string{"hold", "announce", "end"}, "write hold, announce or end"))
	return Hold
}

// readWhen reads a window; nil stands for none, and is returned for one that
// is past reading.
func (r *reader) readWhen(n *yamltree.Node) *Window {
	if n == nil {
		return nil
	}
	f, ok := r.Table(n, "when", "weekly", "tz", "except", "from", "until")
	if !ok {
		return nil
	}
	before := r.Told()
	parts := windowParts{from: always, until: never}
	if f["weekly"] != nil {
		for _, v := range r.Values(f["weekly"], "weekly") {
			w, err := parseWeekly(v.Text)
			if err != nil {
				r.Report(v, err)
				continue
			}
			parts.add(v.Text, w)
		}
	}
	if f["tz"] != nil {
		if name, ok := r.Text(f["tz"], "tz"); ok {
			z, err := r.zones.load(name)
			if err != nil {
				r.Report(f["tz"], err)
			}
			parts.zone = z
		}
	}
	if f["except"] != nil {
		for _, v := range r.Values(f["except"], "except") {
			day, err := parseDate(v.Text)
			if err != nil {
				r.Report(v, err)
				continue
			}
			parts.except = append(parts.except, day)
		}
	}
	parts.from = r.readInstant(f["from"], "from", always)
	parts.until = r.readInstant(f["until"], "until", never)
	if r.Told() > before {
		return nil // what its parts make together would be a guess
	}
	if p := parts.check(); p != nil {
		r.FailAt(n.Pos, p)
		return nil
	}
	return r.share(parts)
}

// share returns the window that parts make: the one that another rule has, if
// it is the same.
func (r *reader) share(parts windowParts) *Window {
	w := parts.window()
	id := fmt.Sprint(w.text, w.except)
	if same, ok := r.windows[id]; ok {
		return same
	}
	r.windows[id] = w
	r.policy.windows = append(r.policy.windows, w)
	return w
}

func (r *reader) readInstant(n *yamltree.Node, what string, absent int64) int64 {
	if n == nil {
		return absent
	}
	text, ok := r.Text(n, what)
	if !ok {
		return absent
	}
	u, err := parseInstant(text, r.zones, nil)
	if err != nil {
		r.Report(n, err)
		return absent
	}
	return u
}
