package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// Times of the tests' Monday, whose clock begins at noon.
const (
	office = `"weekly":{"tz":"UTC","windows":[{"days":["mon","tue","wed","thu","fri"],"start":"08:00","end":"17:00"}]}`

	toFive  = 5 * time.Hour
	toEight = 20 * time.Hour // from noon to the next morning
)

// windowed is a policy that shows services in office hours, on terms.
func windowed(terms, more string) string {
	return fmt.Sprintf(`{"v":1,"rules":[{"id":"r","if":{"identity":[{"one":"pres:%s"}],%s},"then":{"handling":"allow"%s},"show":{"services":["*"]}}]%s}`, ann, office, terms, more)
}

// toldWindow is what a watcher is told, with its window.
func (s told) window() string {
	words := s.String()
	if s.Window != "" {
		words += " " + s.Window
	}
	if s.Next != "" {
		words += " until " + strings.TrimSuffix(strings.TrimPrefix(s.Next, "2026-03-"), ":00Z")
	}
	return words
}

// sawWindows is saw with what is told of windows.
func sawWindows(t *testing.T, n *brokertest.Node, c *brokertest.Client, want ...string) {
	t.Helper()
	n.Settle()
	var got []string
	for _, g := range c.Take() {
		if strings.HasPrefix(g.Topic, "$me/sub/") {
			got = append(got, readTold(t, g.Payload).window())
		} else {
			got = append(got, summary(t, bob, g.Payload))
		}
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%s was sent %q, want %q", c.Principal, got, want)
	}
}

// watching is a node with bob, who is open, and ann, who watches him and is told of it.
func watching(t *testing.T, qos uint8, expiry uint32, document string) (n *brokertest.Node, pc, watcher *brokertest.Client) {
	t.Helper()
	n = newNode(t)
	pc, watcher = n.Connect(bob), n.Connect(ann, brokertest.ClientID("ann"), brokertest.Expiry(expiry))
	pc.Publish(policy, document)
	pc.Publish(bobs, open, brokertest.Retain, seconds(86400))
	watcher.Subscribe("$me/sub/#", qos)
	watcher.Subscribe(bobs, qos)
	return n, pc, watcher
}

// both takes what was sent, in whatever order of a state and a document.
func both(t *testing.T, n *brokertest.Node, c *brokertest.Client, want ...string) {
	t.Helper()
	n.Settle()
	got := map[string]int{}
	for _, g := range c.Take() {
		if strings.HasPrefix(g.Topic, "$me/sub/") {
			got[readTold(t, g.Payload).window()]++
		} else {
			got[summary(t, bob, g.Payload)]++
		}
	}
	wanted := map[string]int{}
	for _, w := range want {
		wanted[w]++
	}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Errorf("%s was sent %v, want %v", c.Principal, got, wanted)
	}
}

// Who is told of windows is told when one closes and when it opens, and what may be told
// of it: whoever the session is, if the time comes while its node is away, and once.
func TestAnnounce(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n, pc, watcher := watching(t, qos, expiry, windowed(`,"outside":"announce","reveal":true`, ""))
		sawWindows(t, n, watcher, "active open until 09T17:00", "open")
		n.Pass(toFive - time.Second)
		sawWindows(t, n, watcher)
		n.Pass(time.Second)
		both(t, n, watcher, "nothing", "active closed until 10T08:00")
		middle := n.Copy()
		for range 20 {
			pc.Publish(bobs, closed, brokertest.Retain, seconds(86400))
			pc.Publish(bobs, open, brokertest.Retain, seconds(86400))
			n.Pass(time.Second)
		}
		sawWindows(t, n, watcher)
		if got := stateWindow(t, n, ann); got != "active closed until 10T08:00" {
			t.Errorf("asked: %s", got)
		}
		n.Pass(toEight - toFive - 20*time.Second)
		both(t, n, watcher, "open", "active open until 10T17:00")
		n.Pass(time.Hour)
		sawWindows(t, n, watcher)
		n.CheckReplay(middle)
	})
}

func stateWindow(t *testing.T, n *brokertest.Node, who string) string {
	t.Helper()
	shown, err := n.Fetch(broker.Who{Principal: who}, bobsState)
	if err != nil {
		t.Fatal(err)
	}
	return readTold(t, string(shown.Payload)).window()
}

// Without reveal the watcher is told that something has happened to its subscription, and
// nothing of hours; and with it, but without announce, it is told when it asks.
func TestReveal(t *testing.T) {
	n, _, watcher := watching(t, 1, 3600, windowed(`,"outside":"announce"`, ""))
	sawWindows(t, n, watcher, "active", "open")
	n.Pass(toFive)
	both(t, n, watcher, "active", "nothing")
	n.Pass(toEight - toFive)
	both(t, n, watcher, "active", "open")

	n, _, watcher = watching(t, 1, 3600, windowed(`,"reveal":true`, ""))
	sawWindows(t, n, watcher, "active open until 09T17:00", "open")
	n.Pass(toFive)
	sawWindows(t, n, watcher, "nothing")
	if got := stateWindow(t, n, ann); got != "active closed until 10T08:00" {
		t.Errorf("asked: %s", got)
	}
}

// Who is told of windows, or warned, is told no more than whom it concerns: another's
// windows leave no trace, nor does one's own time that passes.
func TestOthersWindowsAreNotAnnounced(t *testing.T) {
	const eve = "eve@example.net"
	document := windowed(`,"outside":"announce","reveal":true,"warnBefore":60`, "")
	document = strings.Replace(document, `"rules":[`, `"rules":[`+allow("eve", `"services":["*"]`, eve)+`,`, 1)
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, document)
	pc.Publish(bobs, open, brokertest.Retain, seconds(86400))
	other := n.Connect(eve)
	other.Subscribe("$me/sub/#", 1)
	if _, err := other.TrySubscribeWith(bobs, 1, "evt-expires", "86400"); err != nil {
		t.Fatal(err)
	}
	stranger := n.Connect("zoe@example.net")
	stranger.Subscribe("$me/sub/#", 1)
	stranger.Subscribe(bobs, 1)
	watcher := n.Connect(ann)
	watcher.Subscribe(bobs, 1)
	n.Settle()
	_, _ = other.Take(), stranger.Take()
	n.Pass(toEight)
	if got := append(other.Take(), stranger.Take()...); len(got) > 0 {
		t.Errorf("sent %v", got)
	}
}

// A subscription that ends with its window ends at the edge, with when to try again, for
// whatever session, and is refused until then; it does not come back by itself.
func TestEndsWithItsWindow(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n, pc, watcher := watching(t, qos, expiry, windowed(`,"outside":"end"`, ""))
		sawWindows(t, n, watcher, "active", "open")
		n.Pass(toFive)
		got := map[string]bool{}
		for _, g := range watcher.Take() {
			if strings.HasPrefix(g.Topic, "$me/sub/") {
				got[readTold(t, g.Payload).window()] = true
			} else if word := summary(t, bob, g.Payload); word != "nothing" {
				t.Errorf("sent %s when it closes", word)
			}
		}
		if fmt.Sprint(got) != "map[terminated probation again in 54000:true]" {
			t.Errorf("told %v", got)
		}
		pc.Publish(bobs, closed, brokertest.Retain, seconds(86400))
		sawWindows(t, n, watcher)
		middle := n.Copy()
		n.Pass(time.Hour)
		if err := watcher.TrySubscribe(bobs, qos); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "probation: retry-after=50400") {
			t.Errorf("subscribes while it is closed: %v", err)
		}
		if _, err := watcher.TrySubscribeWith(bobs, qos, "evt-expires", "0"); err != nil {
			t.Errorf("asks while it is closed: %v", err)
		}
		sawWindows(t, n, watcher, "nothing")
		n.Pass(toEight - toFive - time.Hour)
		sawWindows(t, n, watcher)
		watcher.Subscribe(bobs, qos)
		both(t, n, watcher, "active", "closed")
		n.CheckReplay(middle)
	})
}

// Whoever is away while the window closes learns on return that it was over, also if it is
// open again by then; nothing that waited is sent.
func TestEndsWhileAway(t *testing.T) {
	for _, back := range []time.Duration{toFive + time.Hour, toEight + time.Hour} {
		n, pc, watcher := watching(t, 1, 7*86400, windowed(`,"outside":"end"`, ""))
		sawWindows(t, n, watcher, "active", "open")
		watcher.Lose()
		pc.Publish(bobs, closed, brokertest.Retain, seconds(86400))
		n.Crash()
		n.Pass(back)
		watcher = n.Connect(ann, brokertest.ClientID("ann"), brokertest.Expiry(7*86400))
		n.Settle()
		for _, g := range watcher.Take() {
			if s := readTold(t, g.Payload); !strings.HasPrefix(g.Topic, "$me/sub/") || s.State != "terminated" || s.Reason != "probation" {
				t.Errorf("back after %s it was sent %v", back, g)
			}
		}
		if got := stateOf(t, n, ann); !strings.HasPrefix(got, "terminated probation") {
			t.Errorf("after %s: %s", back, got)
		}
		n.CheckReplay(nil)
	}
}

// A node that sleeps over edges brings about what holds when it wakes, once: a window that
// has closed and opened again has been announced to nobody, but what ends with it is over.
func TestEdgesSleptOver(t *testing.T) {
	n, pc, watcher := watching(t, 1, 7*86400, windowed(`,"outside":"announce","reveal":true`, ""))
	sawWindows(t, n, watcher, "active open until 09T17:00", "open")
	n.Pass(toEight + 3*time.Hour)
	sawWindows(t, n, watcher)
	pc.Publish(bobs, open, brokertest.Retain, seconds(86400))
	n.Pass(6 * time.Hour)
	both(t, n, watcher, "nothing", "active closed until 11T08:00")

	n, _, watcher = watching(t, 1, 7*86400, windowed(`,"outside":"end"`, ""))
	sawWindows(t, n, watcher, "active", "open")
	n.Pass(toEight + 3*time.Hour)
	sawWindows(t, n, watcher, "terminated probation")
	watcher.Subscribe(bobs, 1)
	both(t, n, watcher, "active", "open")
}

// Windows that touch are one: nobody is told of the instant at which one takes over from
// the other, or warned of it, and nothing ends there.
func TestTouchingWindowsAreOne(t *testing.T) {
	hours := `"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"08:00","end":"13:00"},{"days":["mon"],"start":"13:00","end":"17:00"}]}`
	for _, terms := range []string{`,"outside":"announce","reveal":true,"warnBefore":600`, `,"outside":"end","warnBefore":600`} {
		n, _, watcher := watching(t, 1, 3600, strings.Replace(windowed(terms, ""), office, hours, 1))
		n.Settle()
		_ = watcher.Take()
		n.Pass(4*time.Hour + 49*time.Minute)
		sawWindows(t, n, watcher)
		n.Pass(time.Minute)
		if got := watcher.Take(); len(got) != 1 {
			t.Errorf("%s: warned by %v", terms, got)
		}
	}
}

// A close is warned of once, so many seconds before; who subscribes in that time is told
// nothing further, and a window that is moved away is no close.
func TestWarnBefore(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n, pc, watcher := watching(t, qos, expiry, windowed(`,"warnBefore":300,"reveal":true`, ""))
		sawWindows(t, n, watcher, "active open until 09T17:00", "open")
		n.Pass(toFive - 301*time.Second)
		sawWindows(t, n, watcher)
		n.Pass(time.Second)
		sawWindows(t, n, watcher, "active open until 09T17:00")
		late := n.Connect(ann)
		late.Subscribe(bobsState, 1)
		sawWindows(t, n, late, "active open until 09T17:00")
		n.Pass(299 * time.Second)
		sawWindows(t, n, watcher)
		pc.Publish(policy, strings.ReplaceAll(windowed(`,"warnBefore":300,"reveal":true`, ""), "17:00", "18:00"))
		n.Pass(5 * time.Second)
		sawWindows(t, n, watcher)
		n.Pass(55 * time.Minute)
		sawWindows(t, n, watcher, "active open until 09T18:00")
		n.Pass(6 * time.Minute)
		sawWindows(t, n, watcher, "nothing") // outside is neutral: of the close itself it is not told
	})
}

// A policy that is edited acts at once: a window that is taken away from over the present
// closes, and one that is moved over it opens, and is announced.
func TestEditedWindow(t *testing.T) {
	terms := `,"outside":"announce","reveal":true`
	n, pc, watcher := watching(t, 1, 3600, windowed(terms, ""))
	sawWindows(t, n, watcher, "active open until 09T17:00", "open")
	pc.Publish(policy, strings.Replace(windowed(terms, ""), `"08:00"`, `"13:00"`, 1))
	both(t, n, watcher, "active closed until 09T13:00", "nothing")
	pc.Publish(policy, windowed(terms, ""))
	both(t, n, watcher, "active open until 09T17:00", "open")
	pc.Publish(policy, windowed(terms, `,"limits":[{"id":"l","only":{"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"12:30","end":"12:45"}]}}}]`))
	both(t, n, watcher, "active closed until 09T12:30", "nothing")
	n.Pass(30 * time.Minute)
	both(t, n, watcher, "active open until 09T12:45", "open")

	pc.Publish(policy, windowed(`,"outside":"end"`, ""))
	n.Settle()
	_ = watcher.Take()
	pc.Publish(policy, strings.Replace(windowed(`,"outside":"end"`, ""), `"08:00"`, `"13:00"`, 1))
	n.Settle()
	if got := stateOf(t, n, ann); got != "terminated probation again in 1800" {
		t.Errorf("its window was moved: %s", got)
	}
}

// Holidays are no office hours, and a day of them has no edges.
func TestWindowExceptDates(t *testing.T) {
	document := strings.Replace(windowed(`,"outside":"announce","reveal":true`, ""), `"tz":"UTC",`, `"tz":"UTC","exceptDates":["2026-03-10"],`, 1)
	n, _, watcher := watching(t, 1, 7*86400, document)
	sawWindows(t, n, watcher, "active open until 09T17:00", "open")
	n.Pass(toFive)
	both(t, n, watcher, "nothing", "active closed until 11T08:00")
	n.Pass(toEight)
	sawWindows(t, n, watcher)
}

// Hours of the owner's own clocks are announced by those: where the owner says to be
// elsewhere a window may close or open, and it is closed while nobody knows.
func TestWindowsOfTheOwnersZone(t *testing.T) {
	at := func(minutes int) string {
		return fmt.Sprintf(`{"basic":"open","tuples":[{"id":"t","basic":"open"}],"persons":[{"id":"p","timeOffset":%d}]}`, minutes)
	}
	document := strings.Replace(windowed(`,"outside":"announce","reveal":true`, ""), `"tz":"UTC"`, `"tz":"presentity"`, 1)
	n, pc, watcher := watching(t, 1, 7*86400, document)
	sawWindows(t, n, watcher, "active closed", "nothing")
	stay := []brokertest.PublishOption{brokertest.Retain, seconds(86400)}
	pc.Publish(bobs, at(60), stay...)
	both(t, n, watcher, "open", "active open until 09T16:00")
	n.Pass(time.Minute)
	pc.Publish(bobs, at(-300), stay...)
	both(t, n, watcher, "nothing", "active closed until 09T13:00")
	n.Pass(59 * time.Minute)
	both(t, n, watcher, "open", "active open until 09T22:00")
	middle := n.Copy()
	n.Pass(9 * time.Hour)
	both(t, n, watcher, "nothing", "active closed until 10T13:00")
	n.CheckReplay(middle)
}

// However many watch, there is one wake for what their windows do, and all are told.
func TestManyAreToldByOneWake(t *testing.T) {
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, strings.Replace(windowed(`,"outside":"announce","reveal":true`, ""), fmt.Sprintf(`{"one":"pres:%s"}`, ann), `{"many":{}}`, 1))
	pc.Publish(bobs, open, brokertest.Retain, seconds(86400))
	var all []*brokertest.Client
	for i := range 200 {
		c := n.Connect(fmt.Sprintf("w%d@example.net", i))
		c.Subscribe("$me/sub/#", 0)
		c.Subscribe(bobs, 0)
		all = append(all, c)
	}
	n.Settle()
	for _, c := range all {
		_ = c.Take()
	}
	n.Pass(toFive)
	for _, c := range all {
		both(t, n, c, "nothing", "active closed until 10T08:00")
	}
	n.CheckReplay(nil)
}

// rated is a policy by which ann is notified so often in a minute.
func rated(most int, more string) string {
	return fmt.Sprintf(`{"v":1,"rules":[{"id":"r","if":{"identity":[{"one":"pres:%s"}]%s},"then":{"handling":"allow","maxRate":%d},"show":{"services":["*"],"note":true}}]}`, ann, more, most)
}

// note is a document that says a number.
func note(i int) string {
	return fmt.Sprintf(`{"basic":"open","tuples":[{"id":"t","basic":"open","note":{"en":"n%d."}}]}`, i)
}

// Who is notified so often at most is shown the last state exactly, within that time, and
// nothing in between; who is not so bound is shown each.
func TestMaxRate(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher, free := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry)), n.Connect("eve@example.net")
		document := rated(1, "")
		pc.Publish(policy, strings.Replace(document, `"rules":[`, `"rules":[`+allow("eve", `"services":["*"],"note":true`, "eve@example.net")+`,`, 1))
		stay := []brokertest.PublishOption{brokertest.Retain, seconds(86400)}
		pc.Publish(bobs, note(0), stay...)
		watcher.Subscribe(bobs, qos)
		free.Subscribe(bobs, qos)
		n.Settle()
		_, _ = watcher.Take(), free.Take()
		last, sent := n.Now(), 0
		for i := range 60 {
			n.Pass(10 * time.Second)
			if i < 50 {
				pc.Publish(bobs, note(i+1), stay...)
				n.Settle()
			}
			got := watcher.Take()
			if len(got) > 1 || len(got) == 1 && n.Now().Sub(last) < time.Minute {
				t.Fatalf("after %s it is sent %v", n.Now().Sub(last), got)
			}
			if len(got) == 1 {
				last, sent = n.Now(), sent+1
				if latest := fmt.Sprintf("n%d.", min(i+1, 50)); !strings.Contains(got[0].Payload, latest) && !strings.Contains(got[0].Payload, fmt.Sprintf("n%d.", i)) {
					t.Fatalf("it is shown %s, and it is %s", got[0].Payload, latest)
				}
			}
		}
		if sent < 6 || sent > 9 {
			t.Errorf("%d times in ten minutes", sent)
		}
		shown, err := n.Fetch(broker.Who{Principal: ann}, bobs)
		if err != nil || !strings.Contains(string(shown.Payload), "n50.") {
			t.Errorf("asked, it is %s, %v", shown.Payload, err)
		}
		if got := len(free.Take()); got < 40 {
			t.Errorf("who is not bound is shown %d", got)
		}
	})
}

// What is last is shown although nothing follows, to each of those who waited, whenever
// they were shown something last; also on return.
func TestMaxRateWithholdsNothingForGood(t *testing.T) {
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, strings.Replace(rated(2, ""), fmt.Sprintf(`{"one":"pres:%s"}`, ann), `{"many":{}}`, 1))
	stay := []brokertest.PublishOption{brokertest.Retain, seconds(86400)}
	pc.Publish(bobs, note(0), stay...)
	var all []*brokertest.Client
	for i := range 20 {
		c := n.Connect(fmt.Sprintf("w%d@example.net", i), brokertest.ClientID(fmt.Sprint("w", i)), brokertest.Expiry(3600*uint32(i%2)))
		c.Subscribe(bobs, uint8(i%2))
		all = append(all, c)
		n.Pass(time.Second)
	}
	pc.Publish(bobs, note(1), stay...)
	pc.Publish(bobs, note(2), stay...)
	all[1].Lose()
	n.Pass(40 * time.Second)
	all[1] = n.Connect("w1@example.net", brokertest.ClientID("w1"), brokertest.Expiry(3600))
	n.Settle()
	for i, c := range all {
		got := c.Take()
		if len(got) == 0 || !strings.Contains(got[len(got)-1].Payload, "n2.") {
			t.Errorf("watcher %d has %v", i, got)
		}
	}
}

// That a window closes, or that the owner goes, is shown at once, whatever was shown a
// moment ago, and alike; and so is what another policy shows.
func TestMaxRateDelaysNoClose(t *testing.T) {
	stay := []brokertest.PublishOption{brokertest.Retain, seconds(86400)}
	for _, how := range []string{"closes", "goes", "another policy"} {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann)
		pc.Publish(policy, rated(1, ","+office))
		pc.Publish(bobs, note(0), stay...)
		n.Pass(toFive - 2*time.Second)
		watcher.Subscribe(bobs, 1)
		n.Settle()
		_ = watcher.Take()
		n.Pass(time.Second)
		pc.Publish(bobs, note(1), stay...)
		wants(t, n, watcher)
		switch how {
		case "closes":
			n.Pass(time.Second)
			wants(t, n, watcher, "nothing")
			n.Pass(time.Hour)
			wants(t, n, watcher)
		case "goes":
			pc.Publish(bobs, "", brokertest.Retain)
			n.Pass(10 * time.Second)
			wants(t, n, watcher, "nothing")
		default:
			pc.Publish(policy, strings.Replace(rated(1, ","+office), `,"note":true`, "", 1))
			n.Settle()
			if got := watcher.Take(); len(got) != 1 || strings.Contains(got[0].Payload, "n1.") {
				t.Errorf("another policy shows %v", got)
			}
		}
	}
}
