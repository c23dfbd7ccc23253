package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/presence"
)

// This file is what the people of the demo do. Each has a device or two, each
// device a connection; what they let others see they say in policies of their
// own, which are the broker's to keep.

// A story is how far the people are. A demo without an end has a round of it in
// each shift.
type story struct {
	round int // from 1; in an odd one they are busy and elsewhere, in an even one back
	scene int // the next one
	met   bool
}

// scenes is how many there are in a round, beside the one in the window.
const scenes = 3

func (s *story) next() { *s = story{round: s.round + 1} }

func (s *story) told() bool { return s.scene == scenes }

// away says whether it is an odd round.
func (s *story) away() bool { return s.round%2 == 1 }

func (d *demo) resource(kindName, who string) kind.Resource {
	return kind.Resource{Kind: kindName, Addr: kind.Addr{Local: who, Domain: d.domain}}
}

// meet has everybody say who may see what, publish, and begin to watch: all that
// needs no window. p is the machine.
func (d *demo) meet(ctx context.Context, p *publisher) error {
	d.title("whoever owns a presence or a place says who sees what of it")
	if err := d.owns(ctx, "ana-phone", "presence", ownRule{id: "friends", who: "bo", show: withNote}); err != nil {
		return err
	}
	if err := d.owns(ctx, "ana-phone", "location", ownRule{id: "friends", who: "bo", show: []showing{{"radius", 1000}}},
		ownRule{id: "dispatch", who: "dashboard", show: []showing{{"radius", 0}, {"civic", "city"}}}); err != nil {
		return err
	}
	if err := d.owns(ctx, "bo-phone", "presence", ownRule{id: "friends", who: "ana", show: withNote}); err != nil {
		return err
	}
	d.title("ana and bo, two devices each, watch each other: each device is shown one document of all of them")
	for _, device := range []string{"ana-phone", "ana-pc", "bo-phone", "bo-pc"} {
		if err := d.status(ctx, device, "available", ""); err != nil {
			return err
		}
	}
	for _, w := range []struct{ device, of string }{{"bo-phone", "ana"}, {"bo-pc", "ana"}, {"ana-phone", "bo"}, {"ana-pc", "bo"}} {
		if err := d.looks(ctx, w.device, d.resource("presence", w.of)); err != nil {
			return err
		}
	}
	d.title("ana is in Madrid: the dashboard may see where, bo within a kilometre")
	if err := d.position(ctx, false); err != nil {
		return err
	}
	for _, device := range []string{"dashboard", "bo-phone"} {
		if err := d.looks(ctx, device, d.resource("location", "ana")); err != nil {
			return err
		}
	}
	d.title("nobody knows zoe: ana looks to her as an address does that does not exist")
	for _, of := range []kind.Resource{d.resource("presence", "ana"), d.resource("presence", nobody)} {
		if err := d.looks(ctx, "zoe", of); err != nil {
			return err
		}
	}
	d.title("ana has an inbox: bo may write to it, and both her devices get what he writes")
	if err := d.owns(ctx, "ana-phone", "im", ownRule{id: "friends", who: "bo", show: []showing{{"send", true}}}); err != nil {
		return err
	}
	for _, w := range []struct{ device, topic string }{
		{"ana-phone", d.inbox("ana")}, {"ana-pc", d.inbox("ana")}, {"zoe", d.inbox("zoe") + "/" + kind.Reports},
	} {
		began := time.Now()
		refused, err := subscribe(ctx, d.clients[w.device], w.topic)
		if refused != nil {
			return refused
		}
		if err != nil {
			return err
		}
		d.timed(began)
	}
	d.title("this machine has a presence like anybody; the dashboard may see it")
	return d.hostArrives(ctx, p)
}

// nobody is an address that does not exist.
const nobody = "nobody"

// hostArrives has the machine say that it is there, as the agent does.
func (d *demo) hostArrives(ctx context.Context, p *publisher) error {
	of := d.resource("presence", d.host)
	send := func(what publication, value, how string) error {
		d.published(&what, value, d.host, how)
		if err := p.publish(ctx, what.packet()); err != nil {
			return ended(ctx, p, err)
		}
		p.settle(ctx)
		return ctx.Err()
	}
	rules := []ownRule{{id: "staff", who: "dashboard", show: []showing{{"services", all}, {"persons", all}}}}
	what, err := d.ownPolicy(of, rules)
	if err != nil {
		return err
	}
	if err := send(what, ids(rules), grants(rules)); err != nil {
		return err
	}
	d.exists(of)
	up := publication{
		topic:   kind.Topic{Resource: of, Source: "agent"}.Name(),
		payload: hostDocument(""), contentType: presence.TypeJSON, user: map[string]string{"evt-bind": "connection"},
	}
	if err := send(up, shownDocument(of.Kind, up.payload), ""); err != nil {
		return err
	}
	return d.looks(ctx, "dashboard", of)
}

// callBoss has bo let the boss watch during the shift; the boss watches from the
// first one on.
func (d *demo) callBoss(ctx context.Context) error {
	of := d.resource("presence", "bo")
	first := d.arrivals("boss", of.Topic()) == 0
	if first {
		d.title("bo lets the boss watch too, in a window, without the notes")
	}
	if err := d.owns(ctx, "bo-phone", "presence",
		ownRule{id: "friends", who: "ana", show: withNote},
		ownRule{id: "office", who: "boss", show: ofPresence, window: d.shift}); err != nil {
		return err
	}
	if !first {
		return nil
	}
	return d.looks(ctx, "boss", of)
}

// goOn plays what comes next, if it is time.
func (d *demo) goOn(ctx context.Context, now time.Time) error {
	if !d.story.met && now.After(d.shift.opens) && now.Before(d.shift.closes) {
		d.story.met = true
		if !d.story.away() {
			return d.status(ctx, "bo-pc", "available", "")
		}
		return d.status(ctx, "bo-pc", "meeting", "room 4")
	}
	if d.story.told() {
		return nil
	}
	d.story.scene++
	switch d.story.scene {
	case 1:
		if !d.story.away() {
			return d.status(ctx, "ana-phone", "available", "")
		}
		return d.status(ctx, "ana-phone", "busy", "on a call")
	case 2:
		return d.position(ctx, d.story.away())
	}
	if err := d.writes(ctx, "bo-phone", "lunch at one?"); err != nil {
		return err
	}
	return d.writes(ctx, "zoe", "buy now!")
}

// status publishes how somebody is, from one device.
func (d *demo) status(ctx context.Context, device, status, note string) error {
	of, source := d.deviceOf("presence", device)
	d.exists(of)
	return d.says(ctx, device, of, publication{
		topic:   kind.Topic{Resource: of, Source: source}.Name(),
		payload: statusDocument(status, note, time.Time{}), contentType: presence.TypeJSON, user: map[string]string{"evt-bind": "none"},
	})
}

// position publishes where ana is. The two places are so near to each other
// that the circle around both is the same.
func (d *demo) position(ctx context.Context, away bool) error {
	of, source := d.deviceOf("location", "ana-phone")
	d.exists(of)
	lat := 40.4168
	if away {
		lat = 40.4175
	}
	return d.says(ctx, "ana-phone", of, publication{
		topic:       kind.Topic{Resource: of, Source: source}.Name(),
		payload:     mustJSON(map[string]any{"lat": lat, "lon": -3.7038, "civic": map[string]string{"country": "ES", "A3": "Madrid"}}),
		contentType: location.TypeJSON, user: map[string]string{"evt-bind": "none"},
	})
}

func (d *demo) inbox(who string) string { return d.resource("im", who).Topic() }

// writes sends a message to ana.
func (d *demo) writes(ctx context.Context, device, text string) error {
	what := publication{topic: d.inbox("ana"), payload: []byte(text), contentType: im.TypeText}
	return d.sends(ctx, device, what, strconv.Quote(text), "")
}

// deviceOf returns whose a device is, and what it is called as a source.
func (d *demo) deviceOf(kindName, device string) (of kind.Resource, source string) {
	who, source, _ := strings.Cut(device, "-")
	return d.resource(kindName, who), source
}

// exists notes that there is something to show of a resource.
func (d *demo) exists(of kind.Resource) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[of] = true
}

// says publishes a document, and returns when the broker has it: by then it has
// sent it to whoever is to be shown it. Who watches and was sent nothing is told
// of in a line, too.
func (d *demo) says(ctx context.Context, device string, of kind.Resource, what publication) error {
	before := d.given()
	if err := d.sends(ctx, device, what, shownDocument(of.Kind, what.payload), ""); err != nil {
		return err
	}
	d.unsent(of, before)
	return nil
}

// sends publishes something. Its line comes before those of its effects.
func (d *demo) sends(ctx context.Context, device string, what publication, value, how string) error {
	d.published(&what, value, device, how)
	defer d.timed(time.Now())
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	answer, err := d.clients[device].Publish(ctx, what.packet())
	if answer != nil && answer.ReasonCode >= 0x80 {
		return refusal("publish to "+what.topic+" refused", answer.ReasonCode, answer.Properties.ReasonString)
	}
	if err != nil {
		return noAnswer(d.clients[device], "PUBLISH", err)
	}
	return nil
}

// timed notes how long a step took that began at that time.
func (d *demo) timed(began time.Time) { d.slowest = max(d.slowest, time.Since(began)) }

// looks has somebody watch a resource, and returns when they are shown the
// first document of it: whoever names a resource is shown one.
func (d *demo) looks(ctx context.Context, device string, of kind.Resource) error {
	defer d.timed(time.Now())
	before := d.arrivals(device, of.Topic())
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	refused, err := subscribe(ctx, d.clients[device], of.Topic())
	if refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	return d.await(ctx, func(t *tally) bool { return t.arrivals[device+" "+of.Topic()] > before })
}

// An ownRule is one rule of somebody's own policy: who may see what.
type ownRule struct {
	id, who string
	show    []showing
	window  shift // zero: always
}

// A showing is one permission, as it stands in the document.
type showing struct {
	name  string
	value any
}

// ofPresence are all that ana and bo show each other, but the note.
var ofPresence = []showing{{"services", all}, {"persons", all}, {"activities", true}}

var all = []string{"*"}

var withNote = append(slices.Clone(ofPresence), showing{"note", true})

// owns puts somebody's policy for a kind in force.
func (d *demo) owns(ctx context.Context, device, kindName string, rules ...ownRule) error {
	of, _ := d.deviceOf(kindName, device)
	what, err := d.ownPolicy(of, rules)
	if err != nil {
		return err
	}
	return d.sends(ctx, device, what, ids(rules), grants(rules))
}

// ownPolicy makes the publication that puts rules in force, and keeps the policy
// that the broker will make of it, to ask it why. The one before counts until
// then.
func (d *demo) ownPolicy(of kind.Resource, rules []ownRule) (publication, error) {
	type object = map[string]any
	var list []any
	for _, r := range rules {
		show := object{}
		for _, s := range r.show {
			show[s.name] = s.value
		}
		if_ := object{"identity": []any{object{"one": kind.Addr{Local: r.who, Domain: d.domain}.URI("pres")}}}
		if !r.window.opens.IsZero() {
			if_["validity"] = []any{object{"from": r.window.opens.UTC().Format(time.RFC3339), "until": r.window.closes.UTC().Format(time.RFC3339)}}
		}
		list = append(list, object{"id": r.id, "if": if_, "then": object{"handling": "allow"}, "show": show})
	}
	document := mustJSON(object{"v": 1, "kind": of.Kind, "rules": list})
	if err := d.force(of, document); err != nil {
		return publication{}, fail(bw.OwnPolicy, "the demo's policy for %s: %w", of, err)
	}
	return publication{topic: "$me/policy/" + of.Kind, payload: document, contentType: "application/evt-policy+json"}, nil
}

// ids and grants say in short what rules are called and what they do.
func ids(rules []ownRule) string {
	var b []string
	for _, r := range rules {
		b = append(b, r.id)
	}
	return strings.Join(b, ", ")
}

func grants(rules []ownRule) string {
	var b []string
	for _, r := range rules {
		var shows []string
		for _, s := range r.show {
			if text := fmt.Sprint(s.value); text != "true" && text != "[*]" {
				shows = append(shows, s.name+" "+text)
			} else {
				shows = append(shows, s.name)
			}
		}
		text := r.who + ": " + strings.Join(shows, ", ")
		if !r.window.opens.IsZero() {
			text += " from " + r.window.opens.UTC().Format(time.TimeOnly) + " to " + r.window.closes.UTC().Format(time.TimeOnly)
		}
		b = append(b, text)
	}
	return strings.Join(b, "; ")
}
