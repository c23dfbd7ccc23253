package state

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/refuse"
	"github.com/bellwire/bellwire/profiles/watchers"
)

var _ broker.Controller = (*Profile)(nil)

// What owners ask for, by publishing to $ctl/approve and so on: JSON with the kind, and
//
//	approve  watcher or sid; then, if, show: as in a rule; silent
//	deny     watcher or sid; style: refuse, polite or ignore; if
//	withdraw watcher or sid: what was approved or denied is decided by the other rules again
//	revoke   watcher or sid; until: an instant, before which it is not granted again
//
// Approving and denying puts a rule into the owner's policy, in the place of the one that
// they had put there for that watcher before; withdrawing takes it out. One that denies
// decides alone: whatever other rules say of the watcher. ifMatch makes all three depend on
// the policy's entity tag. Revoking ends a subscription and changes no policy.
const (
	verbApprove  = "approve"
	verbDeny     = "deny"
	verbWithdraw = "withdraw"
	verbRevoke   = "revoke"

	// verbCancel is an administrator's: watcher or sid. Whoever takes it for them has made
	// sure who they are, and asks in the owner's name; no client can.
	verbCancel = "cancel"

	// So are these: watcher; by, who asks; note, and until of what is provided.
	verbProvision = "provision"
	verbInvite    = "invite"
)

// Controls says which verbs there are.
func (p *Profile) Controls(verb string) bool {
	switch verb {
	case verbApprove, verbDeny, verbWithdraw, verbRevoke:
		return true
	}
	return ofAdministrator(verb) || ofWatcher(verb)
}

func ofAdministrator(verb string) bool {
	return verb == verbCancel || verb == verbProvision || verb == verbInvite
}

func isControl(pub *broker.Publication) bool {
	_, is := broker.ControlVerb(pub.Event.Topic)
	return is
}

// A control is what an owner asks for.
type control struct {
	ID      json.RawMessage // of the request: it is in the answer
	Kind    string
	Watcher string
	SID     string
	IfMatch string `json:"ifMatch"`
	Until   string
	Style   string
	By      string
	Note    string
	Silent  *bool
	If      map[string]json.RawMessage
	Then    map[string]json.RawMessage
	Show    json.RawMessage

	verb    string
	owner   kind.Addr
	watcher kind.Addr // zero: whose is SID
	until   int64
}

// readControl understands a request and refuses it if it can never be right.
func (p *Profile) readControl(pub *broker.Publication) (c control, err error) {
	c.verb, _ = broker.ControlVerb(pub.Event.Topic)
	if c.owner = kind.Of(pub.From.Principal); c.owner.IsZero() {
		return c, fmt.Errorf("%w: identity-required: whose subscriptions are meant nobody knows", kind.ErrForbidden)
	}
	if ofAdministrator(c.verb) && pub.From.Client != "" {
		return c, fmt.Errorf("%w: administrators do that, by $adm/: revoke what is your own", kind.ErrForbidden)
	}
	d := json.NewDecoder(strings.NewReader(string(pub.Event.Payload)))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: schema: %v", kind.ErrInvalid, err)
	}
	if c.Kind != "" && c.Kind != p.kind.Name() {
		return c, fmt.Errorf("%w: schema: kind is %.20q, and %s is asked", kind.ErrInvalid, c.Kind, p.kind.Name())
	}
	if (c.Watcher == "") == (c.SID == "") {
		return c, fmt.Errorf("%w: schema: name a watcher (an address) or a sid (of a subscription)", kind.ErrInvalid)
	}
	if c.Watcher != "" {
		if c.watcher, err = kind.ParseAddr(c.Watcher); err != nil {
			return c, fmt.Errorf("%w: schema: watcher: %v", kind.ErrInvalid, err)
		}
	}
	if c.Until != "" {
		if c.until, err = parseUntil(c.Until); err != nil {
			return c, err
		}
	}
	if offers := c.verb == verbProvision || c.verb == verbInvite; !offers && c.By+c.Note != "" || offers && c.watcher.IsZero() {
		return c, fmt.Errorf("%w: schema: by and note are of administrators who provide somebody with a subscription, or invite: they name a watcher", kind.ErrInvalid)
	}
	if !c.rules() {
		return c, nil
	}
	return c, p.ruleOf(&c)
}

// parseUntil reads an instant, never as 0, which means none: what would be 0 is over.
func parseUntil(text string) (int64, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, fmt.Errorf("%w: schema: until: %q is no instant such as 2026-03-09T17:00:00Z", kind.ErrInvalid, text)
	}
	return cmp.Or(kind.Nanos(at), 1), nil
}

// rules says whether the request puts a rule into the policy.
func (c *control) rules() bool { return c.verb == verbApprove || c.verb == verbDeny }

// ruleOf completes what a rule is made of.
func (p *Profile) ruleOf(c *control) error {
	if c.Then == nil {
		c.Then = map[string]json.RawMessage{}
	}
	word := func(name, value string) { c.Then[name], _ = json.Marshal(value) }
	if c.verb == verbApprove {
		if _, has := c.Then["handling"]; !has {
			word("handling", policy.Allow.String())
		}
		if c.Silent != nil {
			c.Then["approve"] = json.RawMessage(fmt.Sprintf(`{"silent":%t}`, *c.Silent))
		}
		if c.Show == nil {
			c.Show = policy.Everything(p.kind)
		}
		return nil
	}
	c.Then["alone"] = json.RawMessage("true")
	switch c.Style {
	case "", "refuse":
		word("handling", policy.Block.String())
	case "polite":
		word("handling", policy.PoliteBlock.String())
	case "ignore":
		word("handling", policy.Block.String())
		word("style", c.Style)
	default:
		return fmt.Errorf("%w: schema: style is %.20q: write refuse, polite or ignore", kind.ErrInvalid, c.Style)
	}
	return nil
}

// admitControl refuses what can be refused without the log.
func (p *Profile) admitControl(pub *broker.Publication) error {
	if verb, _ := broker.ControlVerb(pub.Event.Topic); ofWatcher(verb) {
		_, err := p.readTurn(pub)
		return refuse.Told(err)
	}
	c, err := p.readControl(pub)
	if err != nil || !c.rules() || c.SID != "" {
		return refuse.Told(err)
	}
	_, _, err = p.decided(pub.PolicyOf(c.owner.String()), &c, c.watcher, policy.Check)
	return refuse.Told(err)
}

// decided returns the owner's policy with a rule for a watcher, and the rule's id.
func (p *Profile) decided(document []byte, c *control, watcher kind.Addr, parse policyParser) (decided []byte, id string, err error) {
	decided, id, err = policy.Decide(document, policy.Ruling{Watcher: watcher, Scheme: p.kind.Scheme(), If: c.If, Then: c.Then, Show: c.Show})
	if err != nil {
		return nil, "", fmt.Errorf("%w: schema: %v", kind.ErrInvalid, err)
	}
	_, err = parse(decided, p.kind, c.owner)
	return decided, id, err
}

// An answer is what an owner is told.
type answer struct {
	ID      json.RawMessage `json:"id,omitempty"`
	Rule    string          `json:"rule,omitempty"`
	ETag    string          `json:"etag,omitempty"`  // of the policy as it is now
	Matched int             `json:"matched"`         // subscriptions, and requests, that it was about
	State   string          `json:"state,omitempty"` // of what is provided, as its watcher is told
}

// applyControl does what an owner asks for.
func (p *Profile) applyControl(tx *broker.ProfileTx, pub *broker.Publication) error {
	if verb, _ := broker.ControlVerb(pub.Event.Topic); ofWatcher(verb) {
		return p.applyTurn(tx, pub)
	}
	c, err := p.readControl(pub)
	if err != nil {
		return refuse.Told(err)
	}
	b := p.book(tx)
	topicName := kind.Resource{Kind: p.kind.Name(), Addr: c.owner}.Topic()
	if c.verb == verbProvision || c.verb == verbInvite {
		return p.offer(tx, pub, &c, topicName)
	}
	e := p.entryOf(tx, b, topicName, c.watcher)
	if c.SID != "" {
		e = b.ByID(topicName, c.SID)
	}
	var wide *wideRow
	if e == nil || !e.Live() {
		wide = p.wideNamed(tx, topicName, &c)
	}
	if e == nil && wide == nil && c.SID != "" {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: "no-such-subscription: it may be over: $me/watchers has those that there are"}
	}
	a := answer{ID: c.ID}
	if wide != nil || e != nil && (e.Live() || e.Status == life.Waiting) {
		a.Matched = 1
	}
	switch {
	case c.verb == verbRevoke || c.verb == verbCancel:
		err = p.revoke(tx, b, e, wide, topicName, &c)
	case wide != nil:
		err = p.rule(tx, wide.entry(topicName), &c, &a)
	default:
		err = p.rule(tx, e, &c, &a)
	}
	if err != nil {
		return err
	}
	pub.Answer = event.AppendUserProperty(event.AppendUserProperty(nil, "rule", a.Rule), "matched", strconv.Itoa(a.Matched))
	pub.Reply, err = json.Marshal(a)
	return err
}

// entryOf returns the entry of the watcher whom an owner knows by an address; nil if there
// is none.
func (p *Profile) entryOf(tx *broker.ProfileTx, b *life.Book, topicName string, watcher kind.Addr) *life.Entry {
	known := watcher.String()
	if e := b.Get(topicName, p.behind(tx, watcher).String()); e != nil && e.SeenAs().String() == known {
		return e
	}
	return nil
}

// seenInput is what a policy is asked with about whom an owner knows by an address.
func seenInput(watcher kind.Addr) policy.Input {
	in := policy.Input{Auth: policy.AuthOf(watcher)}
	if watchers.IsPseudonym(watcher) {
		in.Visibility = policy.Pseudonymous
	}
	return in
}

// revoke ends a subscription, if there is one: by name, by wildcards, or both. What is over by
// name, and told to its watcher so, is not touched for what they watch by wildcards.
func (p *Profile) revoke(tx *broker.ProfileTx, b *life.Book, e *life.Entry, wide *wideRow, topicName string, c *control) error {
	because, until := life.Deactivated, c.until
	if c.verb == verbCancel {
		because = life.Admin
	} else if c.until > b.Now() {
		because = life.Probation
	}
	watcher := p.behind(tx, c.watcher)
	switch {
	case wide != nil:
		return p.cut(tx, b, topicName, wide.Watcher, because, until)
	case e != nil:
		b.End(topicName, e.Watcher, because, until)
		return p.cut(tx, b, topicName, e.Watcher, because, until)
	case p.isCutAs(b, topicName, watcher, c.watcher):
		return p.cut(tx, b, topicName, watcher.String(), because, until)
	}
	return nil
}

// rule changes the owner's policy.
func (p *Profile) rule(tx *broker.ProfileTx, e *life.Entry, c *control, a *answer) error {
	watcher := c.watcher
	if watcher.IsZero() {
		if e.Visibility() == watchers.Anonymous {
			return &broker.Refusal{Cause: broker.ErrCondition, Reason: "anonymous: nobody can be named in a rule: revoke it, or write a rule for all who are anonymous"}
		}
		watcher = e.SeenAs()
	}
	if c.verb == verbApprove && p.lists.Of(tx.Get, c.owner).Of(watcher) != 0 {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: "blocked: they are on your blocklist, which holds before all policies: take them off it ($me/blocklist)"}
	}
	document := tx.PolicyOf(c.owner.String())
	if tag := policy.Tag(document); c.IfMatch != "" && c.IfMatch != tag {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: "stale-etag: the policy is another by now: its tag is " + tag}
	}
	if c.verb == verbWithdraw {
		return p.withdraw(tx, document, c, watcher, a)
	}
	decided, id, err := p.decided(document, c, watcher, parserAt(tx.Level()))
	if err != nil {
		return refuse.Told(err)
	}
	if err := p.mustDeny(decided, c, watcher, tx.Now()); err != nil {
		return err
	}
	p.decide(tx, decided, id, c, a)
	return nil
}

// decide puts a policy in force that differs by one rule.
func (p *Profile) decide(tx *broker.ProfileTx, decided []byte, id string, c *control, a *answer) {
	p.setPolicy(tx, c.owner, decided)
	tx.OwnChanged("policy", c.owner.String())
	a.Rule, a.ETag = id, policy.Tag(decided)
}

// withdraw takes out of the owner's policy what they have decided about a watcher.
func (p *Profile) withdraw(tx *broker.ProfileTx, document []byte, c *control, watcher kind.Addr, a *answer) error {
	left, id, err := policy.Withdraw(document, watcher)
	if err != nil {
		return refuse.Told(fmt.Errorf("%w: schema: %v", kind.ErrInvalid, err))
	}
	if id == "" {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: "no-such-decision: nothing was approved or denied about them alone: the other rules of the policy are changed in it"}
	}
	p.decide(tx, left, id, c, a)
	return nil
}

// mustDeny refuses to deny somebody of whom the policy says something else all the same: a
// delegate who reads sees everything, and of two rules that decide alone the greater rank
// does. To say that they are denied would not be true.
func (p *Profile) mustDeny(document []byte, c *control, watcher kind.Addr, now int64) error {
	if c.verb != verbDeny {
		return nil
	}
	of, err := policy.Parse(document, p.kind, c.owner)
	if err != nil {
		return refuse.Told(err)
	}
	d := of.Evaluate(watcher, time.Unix(0, now).UTC(), seenInput(watcher))
	wanted := map[string]policy.Handling{"": policy.Block, "refuse": policy.Block, "polite": policy.PoliteBlock, "ignore": policy.Confirm}[c.Style]
	if is, ignored := d.Life(); is != wanted || ignored != (c.Style == "ignore") {
		return &broker.Refusal{Cause: broker.ErrCondition, Reason: fmt.Sprintf("allowed: with it, it is %s for them all the same: they may read as a delegate, or another rule decides alone, or its own condition does not hold now: change that in the policy", is)}
	}
	return nil
}
