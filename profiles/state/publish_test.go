package state_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/state"
)

// pair is a node on which bob shows everything and ann watches him.
func pair(t *testing.T) (n *brokertest.Node, pc, watcher *brokertest.Client) {
	t.Helper()
	n = newNode(t)
	pc = n.Connect(bob, brokertest.ClientID("pc"))
	pc.Publish(policy, everything)
	watcher = n.Connect(ann, brokertest.ClientID("ann"))
	watcher.Subscribe(bobs, 1)
	wants(t, n, watcher, "nothing")
	return n, pc, watcher
}

// Entity tags (RFC 3903 section 4.1): a publication is modified, refreshed and
// removed by who knows its present tag, which is another each time.
func TestEntityTags(t *testing.T) {
	n, pc, watcher := pair(t)
	publish := func(payload string, with ...brokertest.PublishOption) (string, error) {
		answer, err := pc.PublishAnswer(bobs+"/pc", payload, append(with, brokertest.Retain)...)
		return answer["evt-etag"], err
	}
	first, err := publish(open)
	if err != nil || first == "" {
		t.Fatalf("tag %q, %v", first, err)
	}
	second, err := publish(closed, etag(first))
	if err != nil || second == first {
		t.Errorf("modify: tag %q after %q, %v", second, first, err)
	}
	_, err = publish(open, etag(first))
	refuses(t, err, broker.ErrCondition, "stale-etag")
	_, err = publish("", etag(first), seconds(600))
	refuses(t, err, broker.ErrCondition, "stale-etag")
	_, err = publish("", etag(first))
	refuses(t, err, broker.ErrCondition, "stale-etag")
	wants(t, n, watcher, "open", "closed")

	n.Pass(time.Minute)
	third, err := publish("", etag(second), seconds(600))
	if err != nil || third == second || third == "" {
		t.Errorf("refresh: tag %q after %q, %v", third, second, err)
	}
	wants(t, n, watcher)
	n.Pass(10*time.Minute - aMoment)
	wants(t, n, watcher)
	n.Pass(aMoment)
	wants(t, n, watcher, "nothing")

	_, err = publish("", etag(third), seconds(600))
	refuses(t, err, broker.ErrCondition, "stale-etag")
	fourth, _ := publish(open)
	wants(t, n, watcher, "open")
	if _, err := publish("", etag(fourth)); err != nil {
		t.Errorf("remove by tag: %v", err)
	}
	wants(t, n, watcher, "nothing")
	if _, err := publish(""); err != nil {
		t.Errorf("to remove what is not there: %v", err)
	}
}

// What is asked for is granted up to a day, refused below half a minute, and
// an hour without a word; it counts until that instant and not after.
func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		name    string
		with    brokertest.PublishOption
		want    time.Duration
		refused string
	}{
		{name: "default", want: time.Hour},
		{name: "asked for", with: seconds(90), want: 90 * time.Second},
		{name: "least", with: seconds(30), want: 30 * time.Second},
		{name: "too brief", with: seconds(29), refused: "min-expires=30"},
		{name: "too long", with: seconds(1 << 31), want: 24 * time.Hour},
		{name: "message expiry", with: func(e *event.Event) { e.Expires = brokertest.Begin.Add(2 * time.Minute).UnixNano() }, want: 2 * time.Minute},
		{name: "none", with: seconds(0), refused: "leave out the payload"},
		{name: "no number", with: brokertest.Property("evt-expires", "soon"), refused: "number of seconds"},
		{name: "negative", with: brokertest.Property("evt-expires", "-1"), refused: "number of seconds"},
		{name: "no bond", with: brokertest.Property("evt-bind", "session"), refused: "connection or none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, pc, watcher := pair(t)
			with := []brokertest.PublishOption{brokertest.Retain}
			if c.with != nil {
				with = append(with, c.with)
			}
			err := pc.TryPublish(bobs, open, with...)
			if c.refused != "" {
				refuses(t, err, map[bool]error{true: broker.ErrCondition, false: broker.ErrPayload}[strings.HasPrefix(c.refused, "min-")], c.refused)
				wants(t, n, watcher)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wants(t, n, watcher, "open")
			n.Pass(c.want - aMoment)
			wants(t, n, watcher)
			n.Pass(aMoment)
			wants(t, n, watcher, "nothing")
		})
	}
}

// What is bound to a connection lasts as long as that, and what is not stands
// by itself.
func TestBound(t *testing.T) {
	bind, none := brokertest.Property("evt-bind", "connection"), brokertest.Property("evt-bind", "none")
	for _, c := range []struct {
		name  string
		with  []brokertest.PublishOption
		bound bool
	}{
		{"plain", nil, true},
		{"retained", []brokertest.PublishOption{brokertest.Retain}, false},
		{"retained, bound", []brokertest.PublishOption{brokertest.Retain, bind}, true},
		{"plain, by itself", []brokertest.PublishOption{none}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, pc, watcher := pair(t)
			pc.Publish(bobs, open, c.with...)
			wants(t, n, watcher, "open")
			n.Pass(2 * time.Hour)
			if !c.bound {
				wants(t, n, watcher, "nothing")
				return
			}
			wants(t, n, watcher) // the keep-alive shows that it is there
			pc.Disconnect()
			wants(t, n, watcher, "nothing")
		})
	}
}

// A connection that is lost is given fifteen seconds.
func TestLost(t *testing.T) {
	n, pc, watcher := pair(t)
	pc.Publish(bobs, open)
	wants(t, n, watcher, "open")
	pc.Lose()
	n.Pass(state.LostAfter - aMoment)
	wants(t, n, watcher)
	n.Pass(aMoment)
	wants(t, n, watcher, "nothing")
	back := n.Connect(bob, brokertest.ClientID("pc"))
	back.Publish(bobs, open)
	wants(t, n, watcher, "open")
	back.Lose()
	n.Pass(state.LostAfter)
	wants(t, n, watcher, "nothing")

	// Its owner sees that it was there, until it is forgotten.
	own := n.Connect(bob)
	own.Subscribe(bobs, 1)
	n.Settle()
	if last, _ := own.Shown(bobs); !strings.Contains(last.Payload, `"lost":["~pc"]`) {
		t.Errorf("its owner is shown %s, want that the source was lost", last.Payload)
	}
	own.Take()
	n.Pass(time.Hour)
	wants(t, n, own, "nothing")
	wants(t, n, watcher)
}

// Who is back in time, or takes itself over, does not blink: not by the same
// node, nor by one that lived anew meanwhile.
func TestNoBlink(t *testing.T) {
	for name, comeBack := range map[string]func(*brokertest.Node, *brokertest.Client){
		"back":            func(n *brokertest.Node, pc *brokertest.Client) { pc.Lose(); n.Pass(14 * time.Second) },
		"takeover":        func(*brokertest.Node, *brokertest.Client) {},
		"node":            func(n *brokertest.Node, _ *brokertest.Client) { n.Restart(); n.Pass(14 * time.Second) },
		"node that crash": func(n *brokertest.Node, _ *brokertest.Client) { n.Crash(); n.Pass(14 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			n, pc, watcher := pair(t)
			pc.Publish(bobs, open)
			wants(t, n, watcher, "open")
			comeBack(n, pc)
			if watcher.Ended() != nil || strings.HasPrefix(name, "node") {
				watcher = n.Connect(ann)
				watcher.Subscribe(bobs, 1)
				wants(t, n, watcher, "open")
			}
			n.Connect(bob, brokertest.ClientID("pc"))
			n.Pass(time.Hour)
			wants(t, n, watcher)
		})
	}
}

// A client id whose session has ended is anybody's. Who takes that of a device
// that was lost neither keeps its owner there, nor removes them, nor gives them
// more time; and the device is its owner's as soon as they are back.
func TestClientIDOfSomebodyElse(t *testing.T) {
	for name, do := range map[string]func(stranger *brokertest.Client){
		"stays":       func(*brokertest.Client) {},
		"disconnects": (*brokertest.Client).Disconnect,
		"is lost":     (*brokertest.Client).Lose,
	} {
		t.Run(name, func(t *testing.T) {
			n, _, watcher := pair(t)
			phone := n.Connect(bob, brokertest.ClientID("phone"))
			phone.Publish(bobs, open)
			wants(t, n, watcher, "open")
			phone.Lose()
			n.Pass(state.LostAfter / 3)
			stranger := n.Connect("eve@example.org", brokertest.ClientID("phone"))
			stranger.Publish("presence/example.org/eve", open)
			do(stranger)
			n.Pass(state.LostAfter*2/3 - aMoment)
			wants(t, n, watcher)
			n.Pass(aMoment)
			wants(t, n, watcher, "nothing")
			n.CheckReplay(nil)
		})
	}
	t.Run("goes in time", func(t *testing.T) {
		n, _, watcher := pair(t)
		phone := n.Connect(bob, brokertest.ClientID("phone"))
		phone.Publish(bobs, open)
		phone.Lose()
		n.Connect("eve@example.org", brokertest.ClientID("phone")).Disconnect()
		phone = n.Connect(bob, brokertest.ClientID("phone"))
		n.Pass(time.Hour)
		wants(t, n, watcher, "open")
		phone.Disconnect()
		wants(t, n, watcher, "nothing")
	})
	t.Run("is a delegate", func(t *testing.T) {
		n, pc, watcher := pair(t)
		pc.Publish(policy, strings.TrimSuffix(everything, "}")+`,"delegates":[{"one":"pres:cal@example.com","sources":["calendar"]}]}`)
		phone := n.Connect(bob, brokertest.ClientID("phone"))
		phone.Publish(bobs, open)
		wants(t, n, watcher, "open")
		phone.Lose()
		cal := n.Connect("cal@example.com", brokertest.ClientID("phone"))
		cal.Publish(bobs+"/calendar", closed)
		n.Settle()
		watcher.Take()
		n.Pass(state.LostAfter)
		wants(t, n, watcher, "closed")
		n.Pass(2 * time.Hour)
		wants(t, n, watcher)
		cal.Disconnect()
		wants(t, n, watcher, "nothing")
		n.CheckReplay(nil)
	})
}

// A node that dies takes its connections with it: what was bound to them is
// lost a quarter of a minute after it is back.
func TestNodeIsGone(t *testing.T) {
	n, pc, _ := pair(t)
	pc.Publish(bobs, open)
	n.Restart()
	watcher := n.Connect(ann)
	watcher.Subscribe(bobs, 1)
	wants(t, n, watcher, "open")
	n.Pass(state.LostAfter)
	n.Settle()
	if got := watcher.Take(); len(got) != 1 || strings.Contains(got[0].Payload, "open") {
		t.Errorf("got %v, want that it is lost", got)
	}
}

// A will is what a connection leaves behind. It is bound to none, for its own
// has ended: it stands until it expires.
func TestWill(t *testing.T) {
	n, pc, watcher := pair(t)
	pc.Disconnect()
	pc = n.Connect(bob, brokertest.ClientID("phone"), brokertest.Will(event.Will{Topic: bobs + "/phone", Payload: []byte(closed), QoS: 1}))
	pc.Lose()
	wants(t, n, watcher, "closed")
	n.Pass(time.Hour - aMoment)
	wants(t, n, watcher)
	n.Pass(aMoment)
	wants(t, n, watcher, "nothing")
}

// Several devices are one document, whichever goes.
func TestDevicesAreComposed(t *testing.T) {
	n, pc, watcher := pair(t)
	phone := n.Connect(bob, brokertest.ClientID("phone"))
	phone.Publish(bobs, open)
	pc.Publish(bobs, closed)
	n.Settle()
	last, _ := watcher.Shown(bobs)
	if !strings.Contains(last.Payload, open[1:len(open)-1]) || !strings.Contains(last.Payload, closed[1:len(closed)-1]) {
		t.Errorf("got %s, want both", last.Payload)
	}
	watcher.Take()
	phone.Disconnect()
	wants(t, n, watcher, "closed")
}

// Who may publish for bob: he, and his delegates the sources that they have,
// while they have them.
func TestWhoMayPublish(t *testing.T) {
	n, _, watcher := pair(t)
	pc := n.Connect(bob)
	delegated := strings.TrimSuffix(everything, "}") + `,"delegates":[{"one":"pres:cal@example.com","sources":["calendar"],"until":"2026-03-09T13:00:00Z"}]}`
	pc.Publish(policy, delegated)
	cal, eve := n.Connect("cal@example.com"), n.Connect("eve@example.com")
	for _, c := range []struct {
		who   *brokertest.Client
		topic string
		ok    bool
	}{
		{cal, bobs + "/calendar", true},
		{cal, bobs + "/phone", false},
		{cal, bobs, false},
		{eve, bobs + "/calendar", false},
		{eve, bobs, false},
		{eve, "presence/example.com/eve", true},
		{n.Connect(""), bobs, false},
		{n.Connect(""), "presence/example.com/eve", false},
	} {
		err := c.who.TryPublish(c.topic, open, brokertest.Retain)
		if c.ok && err != nil {
			t.Errorf("%q to %s: %v", c.who.Principal, c.topic, err)
		} else if !c.ok {
			refuses(t, err, nil)
		}
	}
	wants(t, n, watcher, "open")
	n.Pass(time.Hour)
	wants(t, n, watcher, "nothing")
	refuses(t, cal.TryPublish(bobs+"/calendar", open), nil)
	if err := n.Connect("").TryPublish(policy, everything); err == nil {
		t.Error("nobody sets a policy")
	}
}

// What a delegate has published ends with the delegation, bound or not, however
// that ends; and what they may publish for longer stays for longer.
func TestDelegationEnds(t *testing.T) {
	const cal = "cal@example.com"
	begin := brokertest.Begin.UTC()
	delegates := func(until time.Time) string {
		end := ""
		if !until.IsZero() {
			end = `,"until":"` + until.Format(time.RFC3339) + `"`
		}
		return strings.TrimSuffix(everything, "}") + `,"delegates":[{"one":"pres:` + cal + `","sources":["calendar"]` + end + `}]}`
	}
	for _, c := range []struct {
		name          string
		first, second string // policies; no second if empty
		with          []brokertest.PublishOption
		lasts         time.Duration // 0: ends with the second policy; of what is for good a day is waited
		stays         bool
	}{
		{name: "bound", first: delegates(begin.Add(2 * time.Hour)), lasts: 2 * time.Hour},
		{name: "retained", first: delegates(begin.Add(time.Minute)), with: []brokertest.PublishOption{brokertest.Retain}, lasts: time.Minute},
		{name: "retained, expires before", first: delegates(begin.Add(time.Hour)), with: []brokertest.PublishOption{brokertest.Retain, seconds(60)}, lasts: time.Minute},
		{name: "bound, for good", first: delegates(time.Time{}), lasts: 24 * time.Hour, stays: true},
		{name: "bound, for longer than instants are counted", first: delegates(begin.AddDate(5000, 0, 0)), lasts: 24 * time.Hour, stays: true},
		{name: "bound, revoked", first: delegates(time.Time{}), second: everything},
		{name: "retained, revoked", first: delegates(time.Time{}), with: []brokertest.PublishOption{brokertest.Retain}, second: everything},
		{name: "another source", first: delegates(time.Time{}), second: strings.Replace(delegates(time.Time{}), "calendar", "desk", 1)},
		{name: "bound, shortened", first: delegates(time.Time{}), second: delegates(begin.Add(time.Minute)), lasts: time.Minute},
		{name: "retained, shortened", first: delegates(time.Time{}), with: []brokertest.PublishOption{brokertest.Retain}, second: delegates(begin.Add(time.Minute)), lasts: time.Minute},
		{name: "bound, prolonged", first: delegates(begin.Add(time.Minute)), second: delegates(begin.Add(3 * time.Hour)), lasts: 3 * time.Hour},
		{name: "bound, prolonged for good", first: delegates(begin.Add(time.Minute)), second: delegates(time.Time{}), lasts: 24 * time.Hour, stays: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, pc, watcher := pair(t)
			pc.Publish(policy, c.first)
			pc.Publish(bobs, closed, brokertest.Property("evt-bind", "connection")) // the owner's own stays in any case
			delegate := n.Connect(cal)
			delegate.Publish(bobs+"/calendar", open, c.with...)
			n.Settle()
			watcher.Take()
			if c.second != "" {
				pc.Publish(policy, c.second)
			}
			if c.lasts > 0 {
				n.Pass(c.lasts - n.Now().Sub(begin) - aMoment)
				wants(t, n, watcher)
				n.Pass(aMoment)
			}
			want := []string{"closed"}
			if c.stays {
				want = nil
			}
			wants(t, n, watcher, want...)
			delegate.Disconnect()
			n.Settle()
			n.CheckReplay(nil)
		})
	}
}

// A delegate that is lost is forgotten with the delegation, if that ends before
// what it published would.
func TestLostDelegate(t *testing.T) {
	n, pc, _ := pair(t)
	until := n.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	pc.Publish(policy, strings.TrimSuffix(everything, "}")+`,"delegates":[{"one":"pres:cal@example.com","sources":["calendar"],"until":"`+until+`"}]}`)
	cal := n.Connect("cal@example.com", brokertest.ClientID("cal"))
	cal.Publish(bobs+"/calendar", open)
	pc.Subscribe(bobs, 1)
	cal.Lose()
	n.Pass(time.Minute - aMoment)
	if last, _ := pc.Shown(bobs); !strings.Contains(last.Payload, `"lost":["calendar"]`) {
		t.Errorf("the owner is shown %s, want that the source was lost", last.Payload)
	}
	pc.Take()
	n.Pass(aMoment)
	wants(t, n, pc, "nothing")
	n.CheckReplay(nil)
}

// The sources that clients have without a name, and names that none may have.
func TestSources(t *testing.T) {
	n, pc, watcher := pair(t)
	for _, name := range []string{"reports", "typing", "~pc", "@work", "a/b"} {
		if err := pc.TryPublish(bobs+"/"+name, open); err == nil {
			t.Errorf("source %s was accepted", name)
		}
	}
	pc.Publish(bobs, open) // ~pc
	other := n.Connect(bob, brokertest.ClientID("other"))
	other.Publish(bobs, "") // ~other: nothing to remove
	wants(t, n, watcher, "open")
	pc.Publish(bobs, "")
	wants(t, n, watcher, "nothing")
}

// What is not a presence document of bob's is refused, says why, and changes
// nothing.
func TestUnacceptable(t *testing.T) {
	n, pc, watcher := pair(t)
	pc.Publish(bobs, open)
	wants(t, n, watcher, "open")
	_, before := n.Machine().Digest()
	for _, c := range []struct {
		payload, contentType string
		words                []string
	}{
		{`{"basic":"open","entity":"pres:eve@example.com"}`, "", []string{"entity-mismatch", "/entity"}},
		{`{"basic":"Open"}`, "", []string{"schema", "/basic"}},
		{`{"basic":"open","basic":"closed"}`, "", []string{"schema"}},
		{open, "application/x-nobody", []string{"unsupported"}},
		{`{`, "", []string{"schema"}},
		{`{"tuples":[{"id":"a"},{"id":"a"}]}`, "", []string{"duplicate-id"}},
		{strings.Repeat(" ", 64<<10) + open, "", []string{"too-large"}},
		{strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), "", []string{"too-large"}},
	} {
		var with []brokertest.PublishOption
		if c.contentType != "" {
			with = append(with, brokertest.ContentType(c.contentType))
		}
		refuses(t, pc.TryPublish(bobs, c.payload, with...), broker.ErrPayload, c.words...)
	}
	if err := pc.TryPublish("presence/example.com/Bob", open); err == nil {
		t.Error("another spelling of the topic was accepted")
	} else {
		refuses(t, err, broker.ErrTopicName, bobs)
	}
	if _, after := n.Machine().Digest(); after != before {
		t.Error("what was refused has changed the state")
	}
	wants(t, n, watcher)
	pc.Publish(bobs, closed, brokertest.ContentType("Application/EVT-presence+json ; charset=utf-8"))
	wants(t, n, watcher, "closed")
}

// Bounds refuse what is beyond them and nothing else, and what is removed makes
// room.
func TestBounds(t *testing.T) {
	t.Run("sources", func(t *testing.T) {
		n, pc, _ := pair(t)
		for i := range state.MaxSources {
			pc.Publish(fmt.Sprintf("%s/s%d", bobs, i), closed)
		}
		refuses(t, pc.TryPublish(bobs+"/another", open), broker.ErrQuota, "64 sources")
		pc.Publish(bobs+"/s1", open)
		pc.Publish(bobs+"/s2", "")
		pc.Publish(bobs+"/another", open)
		n.CheckReplay(nil)
	})
	t.Run("bytes", func(t *testing.T) {
		n, pc, _ := pair(t)
		long := `{"basic":"closed","notes":{"en":"` + strings.Repeat("x", 900) + `"}` + strings.Repeat(" ", 60<<10) + `}`
		for i := range 4 {
			pc.Publish(fmt.Sprintf("%s/s%d", bobs, i), long)
		}
		refuses(t, pc.TryPublish(bobs+"/s4", long), broker.ErrQuota, "262144")
		pc.Publish(bobs+"/s3", open)
		pc.Publish(bobs+"/s4", long)
		n.CheckReplay(nil)
	})
	t.Run("bound", func(t *testing.T) {
		n := newNode(t)
		cal := n.Connect("cal@example.com", brokertest.ClientID("cal"))
		at := func(i int) string { return fmt.Sprintf("presence/example.com/p%d/calendar", i) }
		for i := range state.MaxBound + 1 {
			p := n.Connect(fmt.Sprintf("p%d@example.com", i))
			p.Publish(policy, `{"v":1,"delegates":[{"one":"pres:cal@example.com","sources":["calendar"]}]}`)
			if i < state.MaxBound {
				cal.Publish(at(i), open)
			}
		}
		refuses(t, cal.TryPublish(at(state.MaxBound), open), broker.ErrQuota, "64 resources")
		cal.Publish(at(state.MaxBound), open, brokertest.Retain)
		// Whose it was has it taken away: there is room again.
		n.Connect("p3@example.com").Publish(at(3), "")
		cal.Publish(at(state.MaxBound), open)
		refuses(t, cal.TryPublish(at(3), open), broker.ErrQuota, "64 resources")
		// So there is when a delegation ends.
		n.Connect("p4@example.com").Publish(policy, everything)
		cal.Publish(at(3), open)
		n.CheckReplay(nil)
	})
}
