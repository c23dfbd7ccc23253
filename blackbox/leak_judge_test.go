package blackbox

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	law "github.com/bellwire/bellwire/internal/letter"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A leakEvent is something published to a plain topic, or a message.
type leakEvent struct {
	payload, topic string
	from           string
	by             law.Somebody // whose client that is
	qos            byte
	retain         bool
	expires        time.Time // zero: never
	moment         *moment
	act            int
	accepted       bool          // the policy lets its publisher
	due            time.Time     // when it was delayed: the log publishes it then; before that it is not accepted
	lasts          time.Duration // likewise: how long it is of use from then on; 0 for ever
	before         *moment       // likewise: the one before it came
	message        bool          // to an inbox
	may            bool          // of a message: it is let in
	taken          bool          // of a message: a device may have it for good
	failed         bool          // of a message: it was withdrawn while it waited
	ended          int           // of what was retained: the act in which it was replaced
	members        []groupMember // to whom of groups it went
	groups         int           // the most groups that its topic went to: one may have ended with its last member
}

// A groupMember is a member of a group who had something.
type groupMember struct {
	c     *leakClient
	since int // when it had connected
	qos   byte
}

func (m groupMember) String() string { return fmt.Sprintf("%s at %d", m.c.id, m.qos) }

func (e *leakEvent) expired(at time.Time) bool { return !e.expires.IsZero() && !at.Before(e.expires) }

// A holding is what an owner has of one kind.
type holding struct {
	kind, owner, topic string
	policy             *law.Owner
	text               string
	pubs               map[string]*leakPub // by source
	changes            int                 // since the clock was last moved by much
	pending            map[string]time.Duration
}

const fourDays = 4 * 24 * time.Hour

// A leakPub is a publication.
type leakPub struct {
	words   []string
	expires time.Time
	sphere  string
	lat     float64
	lon     float64
	ended   int // the act in which it was replaced
}

// A leakPiece is a part of a publication that a word stands for.
type leakPiece struct {
	h     *holding
	pub   *leakPub
	piece law.Piece
}

func (r *leak) live(p *leakPub) bool { return p != nil && p.ended == 0 && r.at.Before(p.expires) }

// holdingOf returns whose resource a topic is, nil for nobody's.
func (r *leak) holdingOf(topic string) *holding {
	part := strings.Split(topic, "/")
	if len(part) < 3 || !slices.Contains(leakKinds, part[0]) {
		return nil
	}
	return r.holdings[part[0]+" "+part[2]+"@"+part[1]]
}

// verdict is what an owner decides now about somebody.
func (r *leak) verdict(h *holding, who, op string) law.Verdict { return r.verdictAt(h, who, op, r.at) }

func (r *leak) verdictAt(h *holding, who, op string, at time.Time) law.Verdict {
	a := law.Asking{Watcher: who, Op: op, At: at, Contact: r.contacts[[2]string{h.owner, who}]}
	if who != "" {
		a.Auth = 20
	}
	if pc := r.holdings["presence "+h.owner].pubs["pc"]; h.kind == "presence" && r.live(pc) {
		a.Sphere = pc.sphere
	}
	return h.policy.Decide(a)
}

// judge says whether a client may be sent a packet now.
func (r *leak) judge(c *leakClient, p *mq.Packet) {
	r.t.Helper()
	r.delivered++
	if filter, told := strings.CutPrefix(p.Topic, "$me/sub/"); told {
		r.judgeTold(c, p, strings.NewReplacer("%25", "%", "%2B", "+", "%23", "#").Replace(filter))
		return
	}
	subs := c.matching(p.Topic, r.serial)
	if len(subs) == 0 {
		r.fail("LEAK: %s is sent %v, to which it does not subscribe: %v", c.id, p, c.filters())
	}
	switch h := r.holdingOf(p.Topic); {
	case strings.HasPrefix(p.Topic, "barrier/"):
		c.shown[p.Topic] = []string{string(p.Payload)}
	case h == nil:
		r.judgeEvent(c, p, subs)
	case h.kind == "im":
		r.judgeMessage(c, p, h)
	default:
		r.judgeView(c, p, h, subs)
	}
}

// judgeTold judges what a client is told of a window of a subscription that it has.
func (r *leak) judgeTold(c *leakClient, p *mq.Packet, filter string) {
	r.t.Helper()
	s := c.subs[filter]
	if s == nil {
		r.fail("LEAK: %s is told %v, and does not subscribe to %s", c.id, p, filter)
	}
	if r.holdingOf(filter) != nil {
		r.fail("%s is told %v of what an owner decides", c.id, p)
	}
	if strings.Contains(string(p.Payload), `"terminated"`) {
		s.until = r.serial
		c.past = append(c.past, s)
		delete(c.subs, filter)
	}
}

// matching are the subscriptions by which a client may be sent a topic, those included
// that it has ended in this act.
func (c *leakClient) matching(topic string, act int) (all []*leakSub) {
	for _, s := range c.subs {
		if s.matches(topic) {
			all = append(all, s)
		}
	}
	for _, s := range c.past {
		if s.matches(topic) && (s.until >= act || c.durable) {
			all = append(all, s)
		}
	}
	return all
}

// judgeEvent judges what is on a plain topic.
func (r *leak) judgeEvent(c *leakClient, p *mq.Packet, subs []*leakSub) {
	r.t.Helper()
	e := r.events[string(p.Payload)]
	if len(p.Payload) == 0 {
		e = r.cleared[p.Topic]
	}
	switch {
	case e == nil || e.topic != p.Topic || e.message:
		r.fail("LEAK: %s is sent %v, which nobody has published there", c.id, p)
	case !e.accepted:
		r.fail("LEAK: %s is sent %v, which %s was not permitted to publish", c.id, p, e.from)
	case !r.may(r.now(), c, p.Topic) && !(r.between != nil && r.may(r.between, c, p.Topic)):
		r.fail("LEAK: %s (%s) is sent %v, which the policy forbids it now", c.id, c.who, p)
	case e.expired(r.at) && !p.Dup() && (r.between == nil || e.expired(r.between.at)):
		r.fail("LEAK: %s is sent %v, which has expired at %s", c.id, p, e.expires)
	case p.QoS() > e.qos && e.payload != "":
		r.fail("%s is sent %v, which was published at QoS %d", c.id, p, e.qos)
	case !p.Retain() && c.group == "" && !r.may(e.moment, c, p.Topic) && !r.wasState(c, e) && !(r.between != nil && e.before == r.between && r.may(e.before, c, p.Topic)):
		r.fail("LEAK: %s is sent %v, which was forbidden it when it was published, at %s", c.id, p, e.moment.at)
	case p.Retain() && e.retain && e.ended != 0 && e.ended < r.serial && !r.wasState(c, e):
		r.fail("LEAK: %s is sent %v as present state, which it was not at any time when it was permitted", c.id, p)
	case p.Retain() && !e.retain:
		r.fail("%s is sent %v as present state, which it never was", c.id, p)
	case e.from == c.id && !slices.ContainsFunc(subs, func(s *leakSub) bool { return !s.deaf }):
		r.fail("%s is sent %v, which it has published itself, and subscribes to with No Local: %v", c.id, p, subs)
	}
	if c.group != "" && !slices.ContainsFunc(subs, (*leakSub).single) {
		// What somebody at QoS 1 acknowledged just before going, or had not, is given to another.
		e.members = slices.DeleteFunc(e.members, func(m groupMember) bool { return m.qos == 1 && (m.c.conn == nil || m.c.since != m.since) })
		e.members = append(e.members, groupMember{c, c.since, p.QoS()})
		if e.groups = max(e.groups, r.groups(p.Topic)); e.payload != "" && len(e.members) > e.groups && !p.Dup() {
			r.fail("%s is sent %v (QoS %d), which others of its groups have had: %v", c.id, p, e.qos, e.members)
		}
	} else if c.here[e]++; c.here[e] > 1 && !p.Retain() && !p.Dup() && e.act == r.serial && !e.retain {
		r.fail("%s is sent %v twice", c.id, p)
	}
	if e.retain {
		c.last[p.Topic] = e
	}
}

// groups counts those that a topic goes to, each to one of its members.
func (r *leak) groups(topic string) int {
	all := map[string]bool{}
	for _, c := range r.clients {
		for f, s := range c.subs {
			if s.shared() && s.matches(topic) {
				all[f] = true
			}
		}
	}
	return len(all)
}

// wasState says whether something was retained at some moment when a client that is kept
// a queue was permitted it: then it may wait there.
func (r *leak) wasState(c *leakClient, e *leakEvent) bool {
	if !c.durable || !e.retain {
		return false
	}
	for _, m := range slices.Backward(r.moments) {
		if m.at.Before(e.moment.at) {
			return false
		}
		if r.may(m, c, e.topic) {
			return true
		}
	}
	return false
}

// judgeMessage judges what is in an inbox.
func (r *leak) judgeMessage(c *leakClient, p *mq.Packet, h *holding) {
	r.t.Helper()
	v := r.verdict(h, c.who, "subscribe")
	if strings.HasSuffix(p.Topic, "/reports") && v.All && !r.cut(c.who, c.id, "subscribe", p.Topic) {
		return // what became of messages of the owner's
	}
	var m struct{ Body, From string }
	if err := json.Unmarshal(p.Payload, &m); err != nil {
		r.fail("%s is sent %v: %v", c.id, p, err)
	}
	e := r.events[m.Body]
	switch {
	case e == nil || e.topic != p.Topic:
		r.fail("LEAK: %s is sent %v, which nobody has written", c.id, p)
	case !v.All:
		r.fail("LEAK: %s (%s) is sent %v of somebody else's inbox", c.id, c.who, p)
	case r.cut(c.who, c.id, "subscribe", p.Topic):
		r.fail("LEAK: %s is sent %v, which the operator forbids", c.id, p)
	case !e.may:
		r.fail("LEAK: %s is sent %v, whose sender %s was not let in", c.id, p, e.from)
	case !r.stillLetIn(h, e):
		r.fail("LEAK: %s is sent %v, whose sender %s is not let in any more", c.id, p, e.from)
	case e.failed && !e.taken:
		r.fail("LEAK: %s is sent %v, which has failed while it waited, for its sender %s was not let in any more", c.id, p, e.from)
	case m.From != "im:"+e.from:
		r.fail("%s is sent %v as from %s, it is from %s", c.id, p, m.From, e.from)
	case r.at.After(e.moment.at.AddDate(0, 0, 7)) && !p.Dup(): // what was begun is completed
		r.fail("LEAK: %s is sent %v, which has expired", c.id, p)
	}
	e.taken = e.taken || c.durable && h.owns(c)
	c.here[e]++
}

// stillLetIn says whether an owner, as things are said now, lets in a message as of when it
// came.
func (r *leak) stillLetIn(h *holding, e *leakEvent) bool {
	v := r.verdictAt(h, e.from, "publish", e.moment.at)
	return v.All || v.Shown.Has("send")
}

var leakWord = regexp.MustCompile(`zq9[0-9]+q`)

// judgeView judges a document of an owner's.
func (r *leak) judgeView(c *leakClient, p *mq.Packet, h *holding, subs []*leakSub) {
	r.t.Helper()
	if !slices.ContainsFunc(subs, func(s *leakSub) bool { return !s.revoked }) {
		r.fail("LEAK: %s is sent %v, its subscription to which was revoked", c.id, p)
	}
	if words := wordsOf(string(p.Payload)); len(words) > 0 && r.isCut(c, h) == yes && subs[0].from < r.serial {
		r.fail("LEAK: %s is sent %v by wildcards, which the owner has ended: %v", c.id, p, r.explain(words))
	}
	c.shown[p.Topic] = r.judgeDocument(c.who, c.id, "subscribe", h, string(p.Payload))
	c.document[p.Topic] = string(p.Payload)
}

// judgeDocument judges what somebody is shown of a resource, and returns the words in it.
func (r *leak) judgeDocument(who, id, op string, h *holding, document string) []string {
	r.t.Helper()
	v := r.verdict(h, who, op)
	if r.cut(who, id, "subscribe", h.topic) {
		v = law.Verdict{}
	}
	if r.between != nil && !r.shows(&v, h, document) {
		v = r.verdictAt(h, who, op, r.between.at)
	}
	if !r.shows(&v, h, document) {
		r.fail("LEAK: %s (%s) is shown of %s\n%s\nand may be shown %+v by\n%s", id, who, h.topic, document, v, h.text)
	}
	return wordsOf(document)
}

// shows says whether all in a document may be shown.
func (r *leak) shows(v *law.Verdict, h *holding, document string) bool {
	for _, w := range leakWord.FindAllString(document, -1) {
		piece := r.pieces[w]
		if piece == nil || piece.h != h {
			return false
		}
		if piece.pub.ended != 0 && piece.pub.ended < r.serial || piece.pub.ended == 0 && !r.at.Before(piece.pub.expires) && (r.between == nil || !r.between.at.Before(piece.pub.expires)) {
			return false // it is over
		}
		if !v.Shows(piece.piece) {
			return false
		}
	}
	return h.kind != "location" || document == "" || r.showsPlace(v, h, document)
}

// A place is what a location document says of where somebody is.
type place struct {
	At    string
	Civic map[string]string
	Shape *struct {
		Type   string
		Pos    [2]float64
		Radius float64
	}
	Lat, Lon *float64
}

// showsPlace says whether a position is shown no nearer than is permitted, and rightly.
func (r *leak) showsPlace(v *law.Verdict, h *holding, document string) bool {
	var p place
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		r.fail("%s: %v\n%s", h.topic, err, document)
	}
	radius, ok := v.Shown.Radius()
	if p.Civic["country"] != "" && v.Shown.Word("civic") < 1 && !v.All {
		return false
	}
	if p.Lat != nil && !v.All && !(ok && radius == 0) {
		return false
	}
	if p.Shape == nil {
		return true
	}
	if v.All || ok && radius == 0 {
		return true
	}
	if !ok || p.Shape.Type != "Circle" || p.Shape.Radius < radius {
		return false
	}
	at, err := time.Parse(time.RFC3339, p.At)
	return err != nil || at.Equal(at.Truncate(15*time.Minute))
}

// holds says whether a circle that is shown holds the place.
func (p *place) holds(lat, lon float64) bool {
	if p.Shape == nil {
		return p.Lat != nil
	}
	const degree = math.Pi / 180
	a, b := lat*degree, p.Shape.Pos[0]*degree
	h := math.Pow(math.Sin((a-b)/2), 2) + math.Cos(a)*math.Cos(b)*math.Pow(math.Sin((lon-p.Shape.Pos[1])*degree/2), 2)
	return 2*6_371_000*math.Asin(math.Sqrt(h)) <= p.Shape.Radius*1.02+1
}

func wordsOf(document string) []string {
	words := leakWord.FindAllString(document, -1)
	slices.Sort(words)
	return slices.Compact(words)
}

// A leakCut is what an owner has ended of somebody's subscriptions by wildcards.
type leakCut struct{ certain bool }

// A trilean is what is known of something.
type trilean int

const (
	no trilean = iota
	perhaps
	yes
)

// noteCut notes that an owner has revoked somebody, who may watch by wildcards: what the owner
// lets them see is ended. What is put off politely shows nothing, and it is not looked whether
// the owner was to know of it.
func (r *leak) noteCut(h *holding, watcher string) {
	wide := slices.ContainsFunc(r.clients, func(c *leakClient) bool {
		return c.who == watcher && slices.ContainsFunc(c.filters(), func(f string) bool { return !c.subs[f].named() && c.subs[f].matches(h.topic) })
	})
	v := r.verdict(h, watcher, "subscribe")
	if key := [2]string{watcher, h.topic}; wide && v.Handling != "block" && v.Handling != "confirm" && !r.cuts[key].certain {
		r.cuts[key] = leakCut{v.Handling == "allow"}
	}
}

// askAgain lifts what was ended of somebody's wildcards, and returns it.
func (r *leak) askAgain(c *leakClient, s *leakSub) (lifted map[[2]string]leakCut) {
	lifted = map[[2]string]leakCut{}
	for key, cut := range r.cuts {
		if key[0] == c.who && !s.named() && s.matches(key[1]) {
			lifted[key] = cut
			delete(r.cuts, key)
		}
	}
	return lifted
}

// isCut says whether a resource is nothing to see to who watches it by wildcards: its owner has
// ended that, and they do not watch it by name in any session.
func (r *leak) isCut(c *leakClient, h *holding) trilean {
	cut, is := r.cuts[[2]string{c.who, h.topic}]
	if !is {
		return no
	}
	named := slices.ContainsFunc(r.clients, func(other *leakClient) bool {
		s := other.subs[h.topic]
		return other.who == c.who && s != nil && !s.revoked
	})
	if named || !cut.certain {
		return perhaps
	}
	return yes
}

// complete demands that nothing is withheld: all is quiet.
func (r *leak) complete() {
	r.t.Helper()
	for _, c := range r.connected() {
		for _, e := range r.fresh {
			r.mustHave(c, e)
		}
		if c.expected {
			r.mustHaveWaited(c)
		}
		if !c.lazy && c.group == "" {
			r.mustKnow(c)
			r.mustBeShown(c)
		}
	}
	for _, e := range r.fresh {
		r.mustHaveOne(e)
		r.owe(e)
	}
	r.mayHaveEnded()
}

// mayHaveEnded notes what subscriptions of whoever is refused have ended, or will have,
// also of those who are away.
func (r *leak) mayHaveEnded() {
	for _, c := range r.clients {
		for _, s := range c.subs {
			if !s.named() || s.uncertain {
				continue
			}
			for _, h := range r.holdings {
				if h.kind == "im" || !s.matches(h.topic) {
					continue
				}
				if v := r.verdict(h, c.who, "subscribe"); !v.All && v.Handling == "block" {
					s.uncertain = true
				}
			}
		}
	}
}

// mustHave demands that who is there, and may have it, has had what was published.
func (r *leak) mustHave(c *leakClient, e *leakEvent) {
	r.t.Helper()
	if !e.accepted || c.lazy || c.group != "" || c.here[e] > 0 || c.since == r.serial {
		return
	}
	s := c.certain(e, r.serial)
	switch {
	case s == nil, e.message && (!e.may || !r.holdingOf(e.topic).owns(c) || r.cut(c.who, c.id, "subscribe", e.topic)):
		return
	case !e.message && (!r.may(r.now(), c, e.topic) || e.expired(r.at)), r.unsure(c, e):
		return
	}
	r.fail("WITHHELD: %s (%s) has not had %s on %s (QoS %d, retain %v) from %s; it subscribes by %+v", c.id, c.who, e.payload, e.topic, e.qos, e.retain, e.from, *s)
}

// unsure says whether an event came while the clocks of several nodes were moved, one after
// the other, and was forbidden the client by the time that some of them still had.
func (r *leak) unsure(c *leakClient, e *leakEvent) bool {
	return e.before != nil && len(r.nodes) > 1 && !r.may(e.before, c, e.topic)
}

func (h *holding) owns(c *leakClient) bool { return h.owner == c.who }

// certain returns a subscription by which an event comes, that was there before the act, and is.
func (c *leakClient) certain(e *leakEvent, act int) *leakSub {
	for _, f := range c.filters() {
		if s := c.subs[f]; s.matches(e.topic) && !s.uncertain && s.from < act && !(s.deaf && e.from == c.id) {
			return s
		}
	}
	return nil
}

// mustHaveOne demands that a group has had what one of its members may have.
func (r *leak) mustHaveOne(e *leakEvent) {
	r.t.Helper()
	if !e.accepted || e.message || len(e.members) > 0 || e.expired(r.at) {
		return
	}
	if e.qos == 0 && len(r.http) > 1 {
		return // the node that has it picks a member by what the others told last of whose window is open
	}
	for _, c := range r.connected() {
		if c.group != "" && c.since < r.serial && r.may(r.now(), c, e.topic) && !r.unsure(c, e) {
			if s := c.certain(e, r.serial); s != nil {
				r.fail("WITHHELD: no member has had %s on %s (QoS %d), and %s may, by %+v", e.payload, e.topic, e.qos, c.id, *s)
			}
		}
	}
}

// owe notes for whom an event waits.
func (r *leak) owe(e *leakEvent) {
	if !e.accepted || e.message || e.qos == 0 {
		return
	}
	for _, c := range r.clients {
		if c.conn != nil || !c.durable {
			continue
		}
		if s := c.certain(e, r.serial); s != nil && s.qos > 0 && !s.shared() && r.may(r.now(), c, e.topic) && len(c.owed) < 5000 {
			c.owed[e] = true
		}
	}
}

// mustHaveWaited demands that who is back has had what waited for it.
func (r *leak) mustHaveWaited(c *leakClient) {
	r.t.Helper()
	c.expected = false
	for e := range c.owed {
		if c.here[e] == 0 && !e.expired(r.at) && r.may(r.now(), c, e.topic) && !c.lazy {
			r.fail("WITHHELD: %s is back and has not had %s on %s, of act %d, by %v", c.id, e.payload, e.topic, e.act, c.filters())
		}
	}
	clear(c.owed)
}

// mustKnow demands that the last that a client has had of a plain topic is what is
// retained there.
func (r *leak) mustKnow(c *leakClient) {
	r.t.Helper()
	for topic, e := range r.retained {
		if c.last[topic] == e || e.expired(r.at) || !r.may(r.now(), c, topic) {
			continue
		}
		for _, f := range c.filters() {
			if s := c.subs[f]; s.matches(topic) && !s.uncertain && !(s.deaf && e.from == c.id) && c.tells(s, e) {
				had := "nothing"
				if l := c.last[topic]; l != nil {
					had = l.payload
				}
				r.fail("WITHHELD: %s (%s) has last had %s of %s, where %s is retained (QoS %d, act %d); it subscribes by %+v since act %d", c.id, c.who, had, topic, e.payload, e.qos, e.act, *s, c.since)
			}
		}
	}
}

// mustBeShown demands that what a client was shown last of a resource is what it may see.
func (r *leak) mustBeShown(c *leakClient) {
	r.t.Helper()
	for _, h := range r.holdings {
		if h.kind == "im" || h.changes > 6 {
			continue
		}
		var named, wild *leakSub
		for _, f := range c.filters() {
			if s := c.subs[f]; s.matches(h.topic) {
				if s.named() {
					named = s
				} else {
					wild = s
				}
			}
		}
		if named == nil && wild == nil || named != nil && (named.uncertain || named.revoked) {
			continue
		}
		v := r.verdict(h, c.who, "subscribe")
		if named != nil && !v.All {
			if v.Handling == "block" || v.Handling == "confirm" || v.Closed && v.Outside {
				continue
			}
		}
		if wild != nil && v.Closed && v.Outside {
			continue
		}
		cut := r.isCut(c, h)
		if cut == perhaps {
			continue
		}
		if cut == yes || r.cut(c.who, c.id, "subscribe", h.topic) {
			v = law.Verdict{}
		}
		if want := r.wordsFor(h, &v); !slices.Equal(c.shown[h.topic], want) {
			r.fail("WITHHELD, or not withdrawn: %s (%s) was shown last of %s %v and is to be shown %v\nby %+v, named %+v wild %+v\npolicy %s", c.id, c.who, h.topic, r.explain(c.shown[h.topic]), r.explain(want), v, named, wild, h.text)
		}
		if phone := h.pubs["phone"]; h.kind == "location" && r.live(phone) && cut == no {
			r.mustBeNear(c, h, &v, phone)
		}
	}
}

// mustBeNear demands that who may see a position, or a circle, was shown one that holds it.
func (r *leak) mustBeNear(c *leakClient, h *holding, v *law.Verdict, is *leakPub) {
	r.t.Helper()
	if _, ok := v.Shown.Radius(); !ok && !v.All {
		return
	}
	var p place
	if err := json.Unmarshal([]byte(c.document[h.topic]), &p); err != nil || !p.holds(is.lat, is.lon) {
		r.fail("WITHHELD: %s (%s) was shown of %s %q, and it is at %v, %v (%v)\nby %+v, subscriptions %+v\npolicy %s", c.id, c.who, h.topic, c.document[h.topic], is.lat, is.lon, err, v, c.filters(), h.text)
	}
}

// explain says what words stand for.
func (r *leak) explain(words []string) (all []string) {
	for _, w := range words {
		p := r.pieces[w]
		all = append(all, w+"="+p.piece.Within+"/"+p.piece.What+p.piece.Extra)
	}
	return all
}

// wordsFor are the words of what is published now that somebody may be shown.
func (r *leak) wordsFor(h *holding, v *law.Verdict) (words []string) {
	for _, pub := range h.pubs {
		if !r.live(pub) {
			continue
		}
		for _, w := range pub.words {
			if v.Shows(r.pieces[w].piece) {
				words = append(words, w)
			}
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}
