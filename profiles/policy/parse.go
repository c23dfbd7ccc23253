package policy

import (
	"errors"
	"strings"

	"github.com/bellwire/bellwire/internal/nearest"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// Check reads a document that somebody is about to set: JSON of at most MaxBytes,
// 32 levels and 16,000 members, of owner for the kind k. The error is a
// *kind.Refusal that tells all faults, each with its JSON pointer; it wraps
// kind.ErrInvalid or kind.ErrTooBig. A member that is not known is a fault, at
// whatever depth: what it was meant to do would not be done, and whoever publishes
// a document is not told of warnings. Only conditions and permissions that are like
// none that is known may be those of a newer version, or of another kind: a rule
// with such a condition never holds (RFC 4745 section 7), and they are in Warnings.
// A condition that is known but that the kind cannot judge is a fault.
func Check(data []byte, k For, owner kind.Addr) (*Policy, error) {
	return CheckWithin(data, k, owner, nil)
}

// CheckWithin is Check within bounds of a node's own; nil for the most.
func CheckWithin(data []byte, k For, owner kind.Addr, within *kind.Bounds) (*Policy, error) {
	return readDocument(data, k, owner, reader{strict: true, within: within})
}

// Parse reads a document that was set, by this version or another, which may have
// known more. It is Check, but that members that are not known have no effect and
// are in Warnings, except where passing over them could show more than is meant,
// or they were probably meant to be one that is known: of the document itself and
// its defaults. What it takes must stay what it is, for every node must take the
// same of what is in the log.
func Parse(data []byte, k For, owner kind.Addr) (*Policy, error) {
	return readDocument(data, k, owner, reader{})
}

// ParseFirst is Parse as it was in the first form of policies: what that did not
// know has no effect, or is a fault, as it was. It takes what nodes take that know no
// other form, and is for as long as there may be some, and for what they have let in.
func ParseFirst(data []byte, k For, owner kind.Addr) (*Policy, error) {
	return readDocument(data, k, owner, reader{first: true})
}

func readDocument(data []byte, k For, owner kind.Addr, r reader) (*Policy, error) {
	doc, err := parseWithin(data, r.within, r.first)
	if err != nil {
		return nil, err
	}
	r.kind, r.policy = k, &Policy{owner: owner, kind: k.Name(), permissions: k.Permissions(), handling: Block}
	_, r.spheres = k.(kind.Sphered)
	_, r.zones = k.(kind.Zoned)
	if _, r.contacts = k.(kind.Inbox); r.contacts {
		r.policy.terms.Style = Polite // of messages nobody is told why they fail, unless that is said
	}
	r.read(doc.Root())
	if err := doc.Err(); err != nil {
		return nil, kind.RefusePast(r.passed, err)
	}
	r.policy.warnings = doc.Warnings()
	r.policy.compile()
	return r.policy, nil
}

// parseWithin reads a document that is a policy, or a blocklist, as JSON, within bounds; first
// for the first form of policies.
func parseWithin(data []byte, within *kind.Bounds, first bool) (*jsontree.Document, error) {
	b := kind.Document{Within: within}.Bounds()
	limits := jsontree.Limits{Bytes: b.PolicyBytes, Depth: b.JSONDepth, Members: maxMembers}
	if first {
		limits.Members = 0 // 500 rules that name somebody were too many
	}
	doc, err := jsontree.Parse(data, limits)
	return doc, refusePast(kind.RefuseJSON(err))
}

// refusePast returns what was refused with the names that bounds have for policies.
func refusePast(err error) error {
	if r, ok := errors.AsType[*kind.Refusal](err); ok {
		switch r.Bound {
		case kind.BoundBytes:
			r.Bound = kind.BoundPolicyBytes
		case kind.BoundJSONMembers, kind.BoundXMLNodes:
			r.Bound = kind.BoundPolicyRules // there is room for what so many may say
		}
	}
	return err
}

// compile works out what follows from what was read.
func (p *Policy) compile() {
	p.unions, p.staying = &unions{}, &unions{}
	p.everything = kind.Most(p.permissions).As(kind.Everything, nil)
	p.rankRules()
	for i := range p.rules {
		c := &p.rules[i].if_
		p.ruleOf.add(i, c.who)
		p.apart = c.who.apart(p.apart)
		for _, perm := range p.rules[i].show.Perms() {
			p.rules[i].listed += len(perm.Set)
		}
		p.asks = p.asks || c.asksPresence()
		p.tells = p.tells || p.rules[i].terms.Tells()
	}
	p.tells = p.tells || p.terms.Tells()
	for i := range p.limits {
		l := &p.limits[i]
		p.limitOf.add(i, l.who.who)
		p.apart = l.who.who.apart(p.apart)
		p.asks = p.asks || l.only.asksPresence()
	}
}

// A reader makes a policy of a document.
type reader struct {
	kind   For
	policy *Policy
	strict bool // for Check
	first  bool // for ParseFirst

	within *kind.Bounds // for CheckWithin
	passed string       // the name of the one of these that the document has passed

	spheres, zones, contacts bool // conditions that the kind can judge
}

func (r *reader) read(n *jsontree.Node) {
	p, m := r.policy, n.Members()
	if v := m.Need("v"); v != nil {
		v.Int(1, 1)
	}
	if e := m.Take("entity"); e != nil {
		if a, ok := readURI(e); ok && a != p.owner {
			e.Refuse(kind.ReasonEntityMismatch, "this is the policy of %s, not of %s", a, p.owner)
		}
	}
	if k := m.Take("kind"); k != nil {
		k.OneOf(p.kind)
	}
	r.defaults(m.Take("defaults"))
	known := []string{"entity", "kind", "defaults", "rules", "limits", "delegates"}
	if !r.first {
		known = append(known, "compose", "publishCount", "anonymousShownFrom")
		p.publishing = watchers.ReadPublishing(m)
		if c := m.Take("compose"); c != nil {
			p.compose = Composition(choice(c, compositionWords))
			r.mustJudge(c, !r.contacts, "messages are not joined")
		}
	}
	ids := map[string]bool{}
	for _, n := range r.list(m.Take("rules")) {
		p.rules = append(p.rules, r.rule(n, ids))
	}
	for _, n := range r.list(m.Take("limits")) {
		p.limits = append(p.limits, r.limit(n, ids))
	}
	for _, n := range r.list(m.Take("delegates")) {
		p.delegates = append(p.delegates, readDelegate(n))
	}
	r.narrow(m, known...)
}

// list reads a list of as many rules as there may be.
func (r *reader) list(n *jsontree.Node) []*jsontree.Node {
	most := kind.Document{Within: r.within}.Bounds().PolicyRules
	if n != nil && n.Kind() == jsontree.Array && n.Len() > most {
		r.passed = kind.BoundPolicyRules
	}
	return n.List(most)
}

// narrow notes what nobody took of members where one that is misspelt can show
// more: without its limits a policy does.
func (r *reader) narrow(m *jsontree.Members, known ...string) {
	for _, n := range m.Rest() {
		if r.strict || nearest.Name(n.Name(), known) != "" {
			faultUnknown(n, known)
			continue
		}
		n.Warn(noEffect)
	}
}

// pass warns of what nobody took of members of which none shows less, so that
// documents may have those of newer versions and of other kinds (RFC 4745 section
// 7 and 10.3). Who sets a document has not meant one that is misspelt.
func (r *reader) pass(m *jsontree.Members, effect string, known ...string) (passed []string) {
	for _, n := range m.Rest() {
		if r.strict && nearest.Name(n.Name(), known) != "" {
			faultUnknown(n, known)
			continue
		}
		n.Warn("%s", effect)
		passed = append(passed, n.Name())
	}
	return passed
}

const noEffect = "not known here: it is kept and has no effect"

// faultRest makes a fault of each member that nobody took.
func faultRest(m *jsontree.Members, known ...string) {
	for _, n := range m.Rest() {
		faultUnknown(n, known)
	}
}

// faultUnknown says what may have been meant, or what is possible.
func faultUnknown(n *jsontree.Node, known []string) {
	if near := nearest.Name(n.Name(), known); near != "" {
		n.Fault("no such member here: did you mean %q?", near)
		return
	}
	n.Fault("no such member here: there are %s", strings.Join(known, ", "))
}

func (r *reader) defaults(n *jsontree.Node) {
	m := n.Members()
	if h := m.Take("handling"); h != nil {
		r.policy.handling, r.policy.said = readHandling(h), true
	}
	known := []string{"handling", "outside", "minVisibility"}
	if v := m.Take("minVisibility"); v != nil {
		r.policy.demanded = Visibility(choice(v, visibilityWords))
	}
	switch {
	case !r.first:
		known = append(known, "style", "warnBefore", "reveal", "backlog")
		t := ruleTerms{Terms: r.policy.terms}
		if s := m.Take("style"); s != nil {
			t.Style = Style(choice(s, styleWords))
		}
		r.readOutside(m, &t)
		r.policy.terms = t.Terms
		r.policy.hasTerms = t.Terms != Terms{}
	default:
		m.Take("outside").OneOf(outsideWords...)
	}
	r.narrow(m, known...)
}

func readHandling(n *jsontree.Node) Handling {
	return handlings[n.OneOf("block", "confirm", "polite-block", "allow")]
}

// readID reads an id that no other rule or limit has.
func readID(n *jsontree.Node, ids map[string]bool) string {
	id := n.Text(1, 128)
	if id != "" && ids[id] {
		n.Refuse(kind.ReasonDuplicateID, "another rule is called %q", id)
	}
	ids[id] = true
	return id
}

func (r *reader) rule(n *jsontree.Node, ids map[string]bool) rule {
	m := n.Members()
	rule := rule{id: readID(m.Need("id"), ids), pointer: n.Pointer()}
	rule.if_ = r.conditions(m.Take("if"))
	then := m.Take("then")
	tm := then.Members()
	if h := tm.Take("handling"); h != nil {
		rule.handling = readHandling(h)
	} else {
		n.Warn("without a handling the rule allows nobody: write \"then\": {\"handling\": \"allow\"}")
	}
	known := []string{"handling", "alone", "persona", "forward", "approve", "maxExpires", "maxRate", "style", "outside", "warnBefore", "reveal", "backlog"}
	if !r.first {
		if p := tm.Take("persona"); p != nil {
			rule.persona = readPersona(p)
			r.mustJudge(p, !r.contacts, "there are no personas of inboxes")
		}
		if f := tm.Take("forward"); f != nil {
			rule.forward = r.readForward(f, rule.handling)
		}
		rule.terms = r.readTerms(tm)
		if a := tm.Take("alone"); a != nil {
			rule.alone = a.Bool()
			if c := &rule.if_; rule.alone && (c.weekly != nil || c.sphere != nil) {
				a.Fault("a rule that decides alone does so at all times, or while its validity lasts: leave out weekly and sphere")
			}
			r.policy.hasAlone = r.policy.hasAlone || rule.alone
		}
		rule.rank = m.Take("rank").Int(-maxRank, maxRank)
	}
	if r.strict {
		faultRest(tm, known...)
	}
	r.pass(tm, noEffect)
	if o := m.Take("overrides"); o != nil {
		rule.overrides = r.readOverrides(o)
	}
	rule.show = r.show(m.Take("show"))
	m.Take("label")
	m.Take("rank")
	// A misspelt "if" would open the rule to everybody, so what a newer
	// document may add to rules goes into their if, then and show.
	faultRest(m, "id", "label", "rank", "if", "then", "show", "overrides")
	return rule
}

// conditions reads an `if`, or an `only`. Conditions that are not known never
// hold.
func (r *reader) conditions(n *jsontree.Node) conditions {
	var c conditions
	m := n.Members()
	if i := m.Take("identity"); i != nil {
		c.who = readIdentity(i)
	}
	if t := m.Take("contact"); t != nil {
		yes := t.Bool()
		c.contact = &yes
		r.mustJudge(t, r.contacts, "contact is judged for messages only")
	}
	if v := m.Take("validity"); v != nil {
		c.validity = readValidity(v)
	}
	if w := m.Take("weekly"); w != nil {
		c.weekly = r.readWeekly(w)
	}
	if s := m.Take("sphere"); s != nil {
		c.sphere = s.Strings(50, 100)
		if s.Kind() == jsontree.Array && s.Len() == 0 {
			s.Fault(`no sphere is in an empty list: leave out "sphere" if any will do`)
		}
		r.mustJudge(s, r.spheres, "sphere is judged for presence only, which says it")
	}
	known := []string{"identity", "validity", "weekly", "sphere", "contact"}
	if !r.first {
		known = append(known, "auth", "visibility", "op")
		r.readAsked(m, &c)
	}
	c.unknown = r.pass(m, "this condition is not known here and never holds", known...)
	return c
}

// readAsked reads the conditions on how somebody asks, and for what.
func (r *reader) readAsked(m *jsontree.Members, c *conditions) {
	if a := m.Take("auth"); a != nil {
		c.auth = uint8(a.Int(0, MaxAuth))
	}
	if v := m.Take("visibility"); v != nil {
		c.seen = visibilities(set(v, visibilityWords, visibilityWords[Anonymous:]...))
	}
	if o := m.Take("op"); o != nil {
		possible := opWords[:OpPublish]
		if r.contacts {
			possible = opWords[OpPublish:]
		} else if !r.strict {
			possible = opWords
		}
		c.ops = ops(set(o, opWords, possible...))
	}
}

// mustJudge refuses a condition that the kind cannot judge: contact false would
// always hold, for everybody, and the others never.
func (r *reader) mustJudge(n *jsontree.Node, can bool, why string) {
	if r.strict && !can {
		n.Fault("cannot be judged for %s: %s: leave it out, or name whom you mean in identity", r.policy.kind, why)
	}
}

func (r *reader) limit(n *jsontree.Node, ids map[string]bool) limit {
	m := n.Members()
	l := limit{id: readID(m.Need("id"), ids), pointer: n.Pointer()}
	if w := m.Take("who"); w != nil {
		wm := w.Members()
		if i := wm.Take("identity"); i != nil {
			l.who.who = readIdentity(i)
		}
		faultRest(wm, "identity")
	}
	if o := m.Need("only"); o != nil {
		l.only = r.conditions(o)
		if l.only.who != nil {
			o.Fault(`whom a limit concerns stands in "who"`)
		}
		if o.Kind() == jsontree.Object && o.Len() == 0 {
			o.Fault("a limit without a condition limits nothing")
		}
	}
	m.Take("label")
	faultRest(m, "id", "label", "who", "only")
	return l
}

func readDelegate(n *jsontree.Node) delegate {
	m := n.Members()
	var d delegate
	d.who, _ = readURI(m.Need("one"))
	for _, s := range m.Take("sources").List(100) {
		name := s.Text(1, kind.MaxSource)
		if name != "" && name != kind.Everything {
			if err := kind.CheckSource(name); err != nil {
				s.Fault("%v", err)
			}
		}
		d.sources = append(d.sources, name)
	}
	if r := m.Take("read"); r != nil {
		d.read = r.Bool()
	}
	if u := m.Take("until"); u != nil {
		d.until = u.Time()
	}
	m.Take("label")
	faultRest(m, "one", "sources", "read", "until", "label")
	return d
}

// show reads what a rule shows, by the kind's permissions.
func (r *reader) show(n *jsontree.Node) kind.Grant {
	m := n.Members()
	var perms []kind.Perm
	var known []string
	for _, p := range r.policy.permissions {
		known = append(known, p.Name)
		v := m.Take(p.Name)
		if v == nil || v.Kind() == jsontree.Null || v.Kind() == jsontree.Bool && !v.True() {
			continue // shows nothing, however it is written
		}
		if perm, ok := readPerm(v, p); ok {
			perms = append(perms, perm)
		}
	}
	r.pass(m, noEffect, known...)
	return kind.NewGrant(perms...)
}

// readPerm reads the value of a permission; ok is false if it shows nothing.
func readPerm(n *jsontree.Node, p kind.Permission) (perm kind.Perm, ok bool) {
	perm = kind.Perm{Name: p.Name, Type: p.Type}
	switch p.Type {
	case kind.PermBool:
		return perm, n.Bool()
	case kind.PermMin:
		perm.N = n.Int(0, p.Max)
		return perm, n.Kind() == jsontree.Number
	case kind.PermMax:
		if p.Words == nil {
			perm.N = n.Int(0, p.Max)
			return perm, true
		}
		word := n.OneOf(p.Words...)
		for i, w := range p.Words {
			if w == word {
				perm.N = int64(i)
			}
		}
		return perm, true
	}
	for _, t := range n.List(100) {
		token := t.Text(1, 1023)
		switch {
		case token == "" || token == kind.Everything:
		case strings.Contains(token, "*"):
			t.Fault(`patterns are not possible: write %q for all, or what is meant`, kind.Everything)
		case p.Check != nil:
			if err := p.Check(token); err != nil {
				t.Fault("%v", err)
			}
		}
		if token != "" {
			perm.Set = append(perm.Set, token)
		}
	}
	return perm, true
}
