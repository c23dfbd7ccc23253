package blackbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	law "github.com/bellwire/bellwire/internal/letter"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// An act is something that happens.
type act struct {
	name   string
	weight int
	do     func()
}

func (r *leak) pickAct() act {
	all := []act{
		{"burst", 34, r.burst},
		{"presence", 16, func() { r.publishSource("presence") }},
		{"location", 8, func() { r.publishSource("location") }},
		{"message", 6, r.message},
		{"subscribe", 14, r.actSubscribe},
		{"unsubscribe", 3, r.actUnsubscribe},
		{"connect", 10, r.actConnect},
		{"disconnect", 5, r.actDisconnect},
		{"clock", 20, r.actClock},
		{"policy", 2, r.actPolicy},
		{"owner", 10, r.actOwner},
		{"decide", 3, r.actDecide},
		{"fetch", 4, r.actFetch},
		{"read", 2, r.actRead},
		{"intrude", 2, r.actIntrude},
		{"letters", 2, r.actLetters},
		{"devices", 1, r.actDevices},
	}
	if len(r.nodes) == 1 && r.rnd.Chance(400) {
		return act{"kill", 0, r.actKill}
	}
	sum := 0
	for _, a := range all {
		sum += a.weight
	}
	n := r.rnd.IntN(sum)
	for _, a := range all {
		if n -= a.weight; n < 0 {
			return a
		}
	}
	panic("no act")
}

func pickOf[T any](r *leak, from []T) T { return from[r.rnd.IntN(len(from))] }

// someClient draws one that is so; nil if there is none.
func (r *leak) someClient(ok func(*leakClient) bool) *leakClient {
	var all []*leakClient
	for _, c := range r.clients {
		if c.who != leakOperator && ok(c) {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return pickOf(r, all)
}

func isConnected(c *leakClient) bool { return c.conn != nil }

// burst publishes much at once, at every QoS, by several clients. One topic is one
// client's, so that it is known what is retained there last.
func (r *leak) burst() {
	speaker := map[string]*leakClient{}
	for range 10 + r.rnd.IntN(60) {
		name := r.drawName()
		c := speaker[name]
		if c == nil {
			forbidden := r.rnd.Chance(8) // or rather not
			c = r.someClient(func(c *leakClient) bool { return isConnected(c) && (forbidden || r.maySay(c, name)) })
			if c == nil {
				continue
			}
		}
		topic, _, _ := r.published(c, name)
		if other := speaker[topic]; other != nil && other != c {
			continue
		}
		speaker[name], speaker[topic] = c, c
		r.acts++
		r.publish(c, name)
	}
}

// maySay says whether what a client publishes by a name now is permitted.
func (r *leak) maySay(c *leakClient, name string) bool {
	topic, _, ok := r.published(c, name)
	return ok && r.now().policy.Allows(c.asks(), "publish", topic, r.at)
}

func (r *leak) publish(c *leakClient, name string) {
	r.words++
	topic, after, ok := r.published(c, name)
	if r.rnd.Chance(15) {
		// What a client delays itself is not rewritten.
		topic, after, ok = name, time.Duration(1+r.rnd.IntN(6*3600))*time.Second, true
		name = fmt.Sprintf("$delayed/%d/%s", int(after.Seconds()), topic)
	}
	e := &leakEvent{payload: fmt.Sprint("e", r.words), topic: topic, from: c.id, by: c.asks(), qos: byte(r.rnd.IntN(3)), retain: r.rnd.Chance(5), moment: r.now(), act: r.serial}
	m := mq.Publish{Topic: name, QoS: e.qos, Retain: e.retain, Payload: []byte(e.payload)}
	if c.version == v5 && r.rnd.Chance(12) {
		seconds := uint32(60 * (1 + r.rnd.IntN(600)))
		e.expires = r.at.Add(time.Duration(seconds) * time.Second)
		m.Properties = mq.Properties{mq.Number(mq.PropMessageExpiry, seconds)}
	}
	if e.retain && after == 0 && r.rnd.Chance(4) {
		e.payload, m.Payload, e.expires, m.Properties = "", nil, time.Time{}, nil
	}
	if c.version == v5 && r.rnd.Chance(4) {
		r.byAlias(c, &m)
	}
	e.accepted = ok && r.now().policy.Allows(e.by, "publish", topic, r.at)
	if topic != name && after == 0 {
		r.sorts["rewritten events"]++
	}
	if e.payload != "" {
		r.events[e.payload] = e
	} else if e.accepted {
		r.cleared[topic] = e
	}
	if e.qos > 0 {
		m.ID = c.id16()
		c.waits[m.ID] = e.accepted
	}
	if after > 0 {
		r.delay(e, after)
		c.write(r, m)
		return
	}
	r.keep(e)
	c.write(r, m)
	if e.payload != "" { // one that clears may be as good as another
		r.fresh = append(r.fresh, e)
	}
}

// keep notes what is retained on a plain topic.
func (r *leak) keep(e *leakEvent) {
	if !e.accepted || !e.retain {
		return
	}
	if old := r.retained[e.topic]; old != nil {
		old.ended = r.serial
	}
	if r.retained[e.topic] = e; e.payload == "" {
		delete(r.retained, e.topic)
	}
}

// delay has an event come only when the clock has moved on. Until then nobody is to have it.
func (r *leak) delay(e *leakEvent, after time.Duration) {
	if !e.expires.IsZero() {
		e.lasts, e.expires = e.expires.Sub(r.at), time.Time{}
	}
	if e.due = r.at.Add(after); e.accepted {
		r.delayed = append(r.delayed, e)
	}
	e.accepted = false
}

// fallDue has come what is due by now, in the order of time, if its publisher may publish it
// by now. before is the moment before.
func (r *leak) fallDue(before *moment) {
	slices.SortStableFunc(r.delayed, func(a, b *leakEvent) int { return a.due.Compare(b.due) })
	for len(r.delayed) > 0 && !r.delayed[0].due.After(r.at) {
		e := r.delayed[0]
		r.delayed = r.delayed[1:]
		e.moment, e.before, e.act = r.now(), before, r.serial
		if e.lasts > 0 {
			e.expires = r.at.Add(e.lasts)
		}
		e.accepted = r.now().policy.Allows(e.by, "publish", e.topic, r.at)
		r.keep(e)
		r.fresh = append(r.fresh, e)
		r.sorts["delayed events"]++
	}
}

// word makes a word that stands for a piece of a publication. It begins with a digit that base32
// does not have: names that the server makes, of elements and pseudonyms, hold no word by chance.
func (r *leak) word(h *holding, pub *leakPub, piece law.Piece) string {
	r.words++
	w := fmt.Sprintf("zq9%dq", r.words)
	r.pieces[w] = &leakPiece{h: h, pub: pub, piece: piece}
	pub.words = append(pub.words, w)
	return w
}

// publishSource publishes where somebody is, or how.
func (r *leak) publishSource(kind string) {
	owner := pickOf(r, leakPeople)
	h := r.holdings[kind+" "+owner]
	source := "phone"
	if kind == "presence" && r.rnd.Chance(2) {
		source = "pc"
	}
	seconds := 60 * (1 + r.rnd.IntN(300))
	pub := &leakPub{expires: r.at.Add(time.Duration(seconds) * time.Second)}
	var payload []byte
	if !r.rnd.Chance(6) {
		payload = r.document(h, pub, source)
	}
	old := h.pubs[source]
	delete(h.pubs, source)
	if payload != nil {
		h.pubs[source] = pub
	}
	c := r.consoles[owner]
	m := retained(h.topic+"/"+source, string(payload), mq.User("evt-expires", fmt.Sprint(seconds)))
	code := r.publishAndWait(c, m)
	r.tell("%s publishes %s: %#02x", owner, payload, code)
	if cut := r.cut(owner, c.id, "publish", m.Topic); cut != (code >= 0x80) {
		r.fail("%s publishes %s: %#02x, though the operator says %v", owner, m.Topic, code, !cut)
	}
	if code >= 0x80 {
		delete(h.pubs, source)
		if old != nil {
			h.pubs[source] = old
		}
		return
	}
	if old != nil {
		old.ended = r.serial
	}
	h.changes++
}

// publishAndWait publishes at QoS 1 and returns the code.
func (r *leak) publishAndWait(c *leakClient, m mq.Publish) byte {
	m.QoS, m.ID = 1, c.id16()
	c.write(r, m)
	return r.await(c, m.ID).Code
}

// document makes up what a source publishes, each part by a word of its own.
func (r *leak) document(h *holding, pub *leakPub, source string) []byte {
	type object = map[string]any
	word := func(within string, tokens []string, what string) string {
		return r.word(h, pub, law.Piece{Within: within, Tokens: tokens, What: what})
	}
	if h.kind == "location" {
		pub.lat, pub.lon = 40+r.rnd.Float64(), -3-r.rnd.Float64()
		civic := object{"country": "ES"}
		for name, level := range map[string]int{"A1": 2, "A3": 3, "HNO": 4, "PLC": 5} {
			civic[name] = level
		}
		for _, name := range []string{"A1", "A3", "HNO", "PLC"} {
			civic[name] = r.word(h, pub, law.Piece{Civic: civic[name].(int)})
		}
		return marshal(object{"lat": pub.lat, "lon": pub.lon, "accuracy": 10, "civic": civic})
	}
	class, id, scheme := pickOf(r, []string{"biz", "fam"}), pickOf(r, []string{"work", "home"}), pickOf(r, []string{"im", "sip"})
	service := []string{"class:" + class, "id:" + id, scheme}
	tuple := object{"id": id, "basic": pickOf(r, []string{"open", "closed"}), "class": class, "contact": object{"uri": scheme + ":" + word("services", service, "") + "@x.example"}}
	if r.rnd.Chance(2) {
		tuple["note"] = object{"en": word("services", service, "note")}
	}
	if r.rnd.Chance(2) {
		tuple["deviceID"] = []string{"urn:dev:" + word("services", service, "deviceID")}
	}
	if r.rnd.Chance(2) {
		tuple["xtra"] = r.word(h, pub, law.Piece{Within: "services", Tokens: service, Extra: "xtra"})
	}
	d := object{"tuples": []any{tuple}}
	if r.rnd.Chance(2) {
		d["devices"] = []any{object{"deviceID": "urn:dev:" + word("devices", nil, ""), "note": object{"en": word("devices", nil, "note")}}}
	}
	if source != "pc" {
		return marshal(d)
	}
	pub.sphere = pickOf(r, []string{"", "work", "home"})
	person := object{"id": "me", "activities": []string{word("persons", nil, "activities")}, "mood": []string{word("persons", nil, "mood")}, "note": object{"en": word("persons", nil, "note")}}
	if pub.sphere != "" {
		person["sphere"] = pub.sphere
	}
	d["persons"] = []any{person}
	if r.rnd.Chance(2) {
		d["notes"] = object{"en": word("", nil, "note")}
	}
	return marshal(d)
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// message writes to somebody.
func (r *leak) message() { r.write(pickOf(r, leakPeople), pickOf(r, leakPeople)) }

func (r *leak) write(from, to string) {
	c, h := r.consoles[from], r.holdings["im "+to]
	r.words++
	e := &leakEvent{payload: fmt.Sprint("m", r.words), topic: h.topic, from: from, qos: 1, moment: r.now(), act: r.serial, message: true}
	e.may, e.topic = r.goesTo(h, from)
	r.events[e.payload] = e
	code := r.publishAndWait(c, mq.Publish{Topic: h.topic, Payload: []byte(e.payload)})
	r.tell("%s writes %s to %s: %#02x, permitted %v, goes to %s", from, e.payload, to, code, e.may, e.topic)
	cut := r.cut(from, c.id, "publish", h.topic)
	if cut && code < 0x80 {
		r.fail("LEAK: %s writes to %s, which the operator forbids: %#02x", from, h.topic, code)
	}
	if code < 0x80 {
		e.accepted = true
		r.contacts[[2]string{from, to}] = true
		r.fresh, r.messages = append(r.fresh, e), append(r.messages, e)
	} else if !cut && code != 0x97 {
		r.fail("%s writes to %s: %#02x", from, h.topic, code)
	}
}

// mostForwards is how far a message is forwarded at most.
const mostForwards = 4

// goesTo says whether what somebody writes to an inbox now is let in, and at which.
func (r *leak) goesTo(h *holding, from string) (lets bool, topic string) {
	been := []string{h.owner}
	for at := h; ; at = r.holdings["im "+been[len(been)-1]] {
		v := r.verdict(at, from, "publish")
		switch {
		case !v.All && !v.Shown.Has("send"):
			return false, h.topic
		case v.All || v.Forward == "":
			return true, at.topic
		case len(been) > mostForwards || slices.Contains(been, v.Forward):
			return false, h.topic
		}
		been = append(been, v.Forward)
	}
}

// actIntrude has somebody publish in another's name, whom no policy here lets.
func (r *leak) actIntrude() {
	kind, owner, from := pickOf(r, leakKinds[:2]), pickOf(r, leakPeople), pickOf(r, leakPeople)
	if owner == from {
		return
	}
	topic := r.holdings[kind+" "+owner].topic + "/phone"
	payload := `{"basic":"open"}`
	if kind == "location" {
		payload = `{"lat":1,"lon":1,"accuracy":10}`
	}
	if code := r.publishAndWait(r.consoles[from], retained(topic, payload)); code < 0x80 {
		r.fail("LEAK: %s publishes to %s: %#02x", from, topic, code)
	}
}

func (r *leak) drawFilter(c *leakClient) string {
	if c.group != "" {
		return "$share/g/" + pickOf(r, []string{"w/#", "m/+", "w/+/x", "old/#"})
	}
	switch r.rnd.IntN(9) {
	case 0:
		return pickOf(r, leakTopics)
	case 8:
		return pickOf(r, law.RandomFilters)
	case 1, 6, 7:
		return pickOf(r, []string{"w/#", "w/+/x", "m/#", "w/a/#", "#", "+/+/+", "d/#", "c/#"})
	case 2:
		if c.who == "" {
			return "w/#"
		}
		return law.Address("im", c.who)
	case 3:
		return pickOf(r, []string{"presence/example.com/+", "presence/#", "location/example.com/+", "location/#"})
	}
	return law.Address(pickOf(r, leakKinds[:2]), pickOf(r, leakPeople))
}

// subscribeSome has a client subscribe to some of what there is.
func (r *leak) subscribeSome(c *leakClient) {
	if notConsole(c) {
		for range 2 + r.rnd.IntN(3) {
			r.subscribe(c, r.drawFilter(c), byte(r.rnd.IntN(3)))
		}
	}
}

func (r *leak) actSubscribe() {
	for range 1 + r.rnd.IntN(3) {
		if c := r.someClient(func(c *leakClient) bool { return isConnected(c) && !strings.HasSuffix(c.id, "-console") }); c != nil {
			r.subscribe(c, r.drawFilter(c), byte(r.rnd.IntN(3)))
		}
	}
}

func (r *leak) actUnsubscribe() {
	if c := r.someClient(func(c *leakClient) bool { return isConnected(c) && len(c.subs) > 0 }); c != nil {
		r.unsubscribe(c, r.nameOf(c))
	}
}

func notConsole(c *leakClient) bool { return !strings.HasSuffix(c.id, "-console") }

// actConnect has clients come back, most of them those that are away.
func (r *leak) actConnect() {
	away := func(c *leakClient) bool { return c.conn == nil }
	c := r.someClient(away)
	if c == nil || r.rnd.Chance(4) {
		c = r.someClient(notConsole)
	}
	if len(r.nodes) > 1 && c.conn == nil {
		c.node = r.rnd.IntN(len(r.nodes))
	}
	r.connect(c, r.rnd.Chance(8))
	if len(c.subs) == 0 {
		r.subscribeSome(c)
	}
}

// actDisconnect ends a connection, with or without a word.
func (r *leak) actDisconnect() {
	c := r.someClient(func(c *leakClient) bool { return isConnected(c) && notConsole(c) })
	if c != nil {
		r.leave(c)
	}
}

// leave ends a client's connection, with or without a word.
func (r *leak) leave(c *leakClient) {
	word := r.rnd.Chance(2)
	r.tell("%s goes, with a word: %v", c.id, word)
	if word {
		c.write(r, mq.Bye)
		r.readToEnd(c)
	}
	r.away(c)
	r.awaitGone()
}

// awaitGone waits until the server has noticed who is gone.
func (r *leak) awaitGone() {
	want := 0
	for _, c := range r.clients {
		if c.conn != nil {
			want++
		}
	}
	until(r.t, "the server notices who is gone", 3*patience, func() bool {
		connections, sessions := 0.0, 0.0 // those of the log are the ones that groups go by
		for _, n := range r.nodes {
			connections += n.metric("bellwire_connections")
			sessions += n.metric("bellwire_sessions_connected")
		}
		return int(connections) == want && int(sessions) == want
	})
}

// actClock moves the clock, often to where something opens or closes.
func (r *leak) actClock() {
	next := r.at
	quarter := 15 * time.Minute
	switch r.rnd.IntN(8) {
	case 0:
		next = next.Add(time.Duration(1+r.rnd.IntN(60)) * time.Second)
	case 1, 2:
		next = next.Truncate(quarter).Add(quarter)
	case 3:
		next = next.Truncate(quarter).Add(quarter - time.Second)
		if !next.After(r.at) {
			next = next.Add(quarter)
		}
	case 4, 5:
		next = next.Truncate(time.Hour).Add(time.Hour)
	case 6:
		next = next.Truncate(time.Hour).Add(time.Duration(1+r.rnd.IntN(10)) * time.Hour)
	case 7:
		next = next.Add(time.Duration(r.rnd.IntN(30*60)) * time.Minute)
	}
	r.moveTo(next)
}

// moveTo has time pass.
func (r *leak) moveTo(next time.Time) {
	jump := next.Sub(r.at)
	for _, h := range r.holdings {
		if jump >= time.Minute {
			h.changes = 0
		}
		for _, p := range h.pubs {
			if r.live(p) && !next.Before(p.expires) {
				h.changes++
			}
		}
		r.agePending(h, jump)
	}
	before := r.now()
	if len(r.nodes) > 1 {
		r.between = before
	}
	r.at = next
	r.tell("the clock moves on by %s", jump)
	r.begin(before.policy)
	r.fallDue(before)
	if jump > 30*time.Minute {
		for _, c := range r.clients {
			clear(c.owed)
		}
	}
	r.forgetOwed()
	r.settle()
	r.between = nil
}

// agePending notes for how long requests have waited; and that what is decided for a time
// may have been decided otherwise meanwhile.
func (r *leak) agePending(h *holding, jump time.Duration) {
	if h.pending == nil {
		h.pending = map[string]time.Duration{}
	}
	doubtful := jump > time.Hour && h.policy.Timed()
	for _, who := range append(slices.Clone(leakPeople), "") {
		if v := r.verdict(h, who, "subscribe"); v.Handling == "confirm" {
			h.pending[who] += jump
		} else if v.Handling == "allow" {
			h.pending[who] = 0
		}
		if h.pending[who] <= fourDays && !doubtful {
			continue
		}
		for _, c := range r.clients {
			if s := c.subs[h.topic]; s != nil && c.who == who {
				s.uncertain = true
			}
		}
	}
}

// forgetOwed leaves out what is forbidden now: it need not come any more.
func (r *leak) forgetOwed() {
	for _, c := range r.clients {
		for e := range c.owed {
			if !r.may(r.now(), c, e.topic) {
				delete(c.owed, e)
			}
		}
	}
}

// actPolicy puts another policy of the operator's in force.
func (r *leak) actPolicy() {
	r.drawPolicy()
	status, answer := r.ask(leakOperator, "PUT", "/v1/policy", r.text)
	if status != 200 {
		r.fail("the policy is not put in force: %d %s", status, answer)
	}
	r.tell("another policy of the operator's")
	for _, c := range r.clients {
		for _, s := range c.subs {
			r.doubt(c, s)
		}
	}
	r.forgetOwed()
}

// actOwner has an owner permit something else.
func (r *leak) actOwner() {
	kind, owner := pickOf(r, leakKinds), pickOf(r, leakPeople)
	r.rnd.Around = r.at
	r.rnd.Inboxes = slices.DeleteFunc(slices.Clone(leakPeople), func(who string) bool { return who == owner })
	text := r.rnd.Owner(kind)
	if r.rnd.Chance(10) {
		text = nil
	}
	r.decide(kind, owner, text)
}

// decide puts a policy of an owner's in force.
func (r *leak) decide(kind, owner string, text []byte) {
	code := r.publishAndWait(r.consoles[owner], mq.Publish{Topic: "$me/policy/" + kind, Payload: text})
	r.tell("%s decides of %s: %#02x %s", owner, kind, code, text)
	if code >= 0x80 {
		r.fail("the policy is refused: %#02x", code)
	}
	r.permit(r.holdings[kind+" "+owner], string(text))
}

func (r *leak) permit(h *holding, text string) {
	defer r.sift(h)
	defer r.reject(h)
	h.text, h.policy = text, law.Nothing(h.kind, h.owner, "polite-block")
	if text == "" {
		return
	}
	var err error
	if h.policy, err = law.ReadOwner([]byte(text), h.kind, h.owner, "polite-block"); err != nil {
		r.fail("%v", err)
	}
}

// reject notes whose subscriptions by name have ended, because a rule blocks them now. They do
// not begin again, whatever is permitted later.
func (r *leak) reject(h *holding) {
	for _, c := range r.clients {
		s := c.subs[h.topic]
		if h.kind == "im" || s == nil || s.uncertain || c.who == h.owner {
			continue
		}
		if v := r.verdict(h, c.who, "subscribe"); v.Handling == "block" && v.Named && v.Style == "" {
			s.revoked = true
		}
	}
}

// sift notes which messages that wait in an inbox have failed, because their senders are let
// in no more. They come to no device, whatever is permitted later.
func (r *leak) sift(h *holding) {
	if h.kind != "im" {
		return
	}
	r.messages = slices.DeleteFunc(r.messages, func(e *leakEvent) bool { return e.taken || e.failed })
	for _, e := range r.messages {
		if e.topic == h.topic && e.may && !r.stillLetIn(h, e) {
			e.failed = true
		}
	}
}

// actDecide approves, denies or revokes somebody.
func (r *leak) actDecide() {
	kind, owner, watcher := pickOf(r, leakKinds[:2]), pickOf(r, leakPeople), pickOf(r, leakPeople)
	h, verb := r.holdings[kind+" "+owner], pickOf(r, []string{"approve", "deny", "revoke"})
	if owner == watcher {
		return
	}
	code := r.publishAndWait(r.consoles[owner], mq.Publish{Topic: "$ctl/" + verb, Payload: fmt.Appendf(nil, `{"kind":%q,"watcher":"pres:%s"}`, kind, watcher)})
	status, text := r.askAt(r.consoles[owner].node, owner, "GET", "/v1/me/policy/"+kind, nil)
	if status == 404 {
		text = ""
	}
	r.tell("%s does %s %s of %s: %#02x, policy %s", owner, verb, watcher, kind, code, text)
	if code < 0x80 && verb == "revoke" {
		for _, c := range r.clients {
			if s := c.subs[h.topic]; s != nil && c.who == watcher {
				s.revoked = true
			}
		}
		r.noteCut(h, watcher)
	}
	r.permit(h, text)
}

// actFetch has somebody look once.
func (r *leak) actFetch() {
	kind, owner, who := pickOf(r, leakKinds[:2]), pickOf(r, leakPeople), pickOf(r, leakPeople)
	h := r.holdings[kind+" "+owner]
	status, text := r.ask(who, "GET", "/v1/"+h.topic, nil)
	r.tell("%s fetches %s: %d", who, h.topic, status)
	if status != 200 {
		return
	}
	shown := r.judgeDocument(who, "", "fetch", h, text)
	v := r.verdict(h, who, "fetch")
	if r.cut(who, "", "subscribe", h.topic) {
		v = law.Verdict{}
	}
	if want := r.wordsFor(h, &v); !slices.Equal(shown, want) {
		r.fail("WITHHELD: %s fetches %s and gets %v, want %v by %+v\n%s", who, h.topic, r.explain(shown), r.explain(want), v, h.text)
	}
}

// actRead has somebody new look at all that is retained.
func (r *leak) actRead() {
	r.visit(pickOf(r, append(slices.Clone(leakPeople), "")), pickOf(r, []string{"#", "w/#", "+/+/+"}), func(c *leakClient) {
		r.settle()
		c.since = -1
		r.complete()
	})
}

// visit has somebody connect anew, subscribe, do something and go.
func (r *leak) visit(who, filter string, do func(c *leakClient)) {
	r.words++
	c := &leakClient{who: who, id: fmt.Sprint("reader-", r.words), version: pickOf(r, []byte{v4, v5}), node: r.rnd.IntN(len(r.nodes))}
	r.clients = append(r.clients, c)
	r.connect(c, true)
	r.subscribe(c, filter, byte(r.rnd.IntN(3)))
	do(c)
	c.write(r, mq.Bye)
	r.readToEnd(c)
	r.away(c)
	r.clients = slices.DeleteFunc(r.clients, func(other *leakClient) bool { return other == c })
	r.awaitGone()
}

// actLetters has an owner let everybody in, often to somebody else's inbox, and somebody write
// to them, while a device of that one's looks on; then nobody, and everybody again. What has
// failed meanwhile comes to no device that looks then.
func (r *leak) actLetters() {
	from, to := pickOf(r, leakPeople), pickOf(r, leakPeople)
	then, at := map[string]any{"handling": "allow"}, to
	if other := pickOf(r, leakPeople); other != to && !r.rnd.Chance(3) {
		then["forward"], at = "im:"+other, other
	}
	inbox := law.Address("im", at)
	r.decide("im", to, marshal(map[string]any{"v": 1, "kind": "im", "rules": []any{map[string]any{"id": "all", "then": then, "show": map[string]any{"send": true}}}}))
	r.visit(at, inbox, func(*leakClient) {
		r.write(from, to)
		r.settle()
	})
	r.write(from, to)
	r.settle()
	r.decide("im", at, []byte(nobodyWrites))
	r.decide("im", at, []byte(anybodyWrites))
	r.visit(at, inbox, func(*leakClient) { r.settle() })
}

const (
	nobodyWrites  = `{"v":1,"kind":"im","defaults":{"handling":"block"}}`
	anybodyWrites = `{"v":1,"kind":"im","rules":[{"id":"all","then":{"handling":"allow"},"show":{"send":true}}]}`
)

// actDevices has a message taken by one device while another is away, for which it waits; and
// nobody let in any more when that one is back.
func (r *leak) actDevices() {
	from, to := pickOf(r, leakPeople), pickOf(r, leakPeople)
	r.decide("im", to, []byte(anybodyWrites))
	var last *leakClient
	for _, c := range r.clients {
		if c.who != to || !c.durable {
			continue
		}
		if c.conn == nil {
			r.connect(c, false)
		}
		r.subscribe(c, law.Address("im", to), 1)
		last = c
	}
	r.settle()
	r.complete() // what waited for those who have just come back has come
	r.leave(last)
	r.write(from, to)
	r.settle()
	r.decide("im", to, []byte(nobodyWrites))
	r.connect(last, false)
}

// actKill kills the server, which is quiet, and starts it again.
func (r *leak) actKill() {
	s := r.nodes[0]
	r.tell("the server is killed")
	for _, c := range r.connected() {
		c.conn.Close()
		c.conn = nil
		if !c.durable {
			c.subs, c.past = map[string]*leakSub{}, nil
		}
		clear(c.owed)
	}
	s.kill()
	s.args[slices.Index(s.args, "--test-clock")+1] = r.at.Format(time.RFC3339)
	s.start()
	r.http = []string{s.ready.HTTP}
	for _, c := range r.clients {
		if strings.HasSuffix(c.id, "-console") || r.rnd.Chance(2) {
			r.connect(c, false)
		}
	}
}
