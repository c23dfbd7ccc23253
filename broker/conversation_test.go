package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
)

// What clients see of windows, wills, retained events and resumed sessions, as
// conversations that need no programmer to review. A line says who does what;
// below ---- stands every packet that any client is sent because of it, in its
// order, clients by name. It begins on Monday 2026-03-09, 12:00 UTC.
//
//	policy                    rules, one a line: allow|deny WHO FILTER
//	                          [publish|subscribe] [HH:MM-HH:MM, of each day]
//	                          [until=YYYY-MM-DDTHH:MM] [outside=hold|announce|end]
//	connect WHO               [clean] [expiry=1h, of the session: 0 ends with the
//	                          connection] [receive-max=N] [will=TOPIC] [will-delay=D]
//	                          [will-qos=N] [will-retain] [will-expiry=D]; the will's
//	                          payload is the line below
//	subscribe WHO FILTER      [qos=N] [id=N] [no-local] [retain-as-published] [retain-handling=N]
//	unsubscribe WHO FILTER
//	publish WHO TOPIC         [qos=N] [retain] [expiry=D]; the payload is the line below
//	puback|pubrec|pubcomp WHO ID…
//	disconnect WHO            DISCONNECT [expiry=D] [with-will]
//	lose WHO                  the connection breaks
//	clock HH:MM[:SS]          it becomes that time, today or tomorrow
//	advance D                 time passes
//	crash                     the node dies with all that it had not flushed, and is back
//	stop, start               the same in two steps
//	count                     what was not delivered since it was last asked, and why
//
// -rewrite records what is; commit only a difference you understand.
func TestConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		bubble.Test(t, func(t *testing.T) {
			c := &conversation{node: newNode(t, Limits{}), speakers: map[string]*speaker{}}
			datadriven.RunTest(t, path, c.step)
		})
	})
}

// A conversation is what several clients and one node say to each other.
type conversation struct {
	*node
	speakers map[string]*speaker
	stopped  bool
	counted  [3]uint64 // of Stats, when last asked
}

// A speaker is a client that says every packet it gets.
type speaker struct {
	name string
	s    *Session

	mu     sync.Mutex
	said   []string
	ended  bool
	closed bool // it has said or done so
}

func (p *speaker) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, p.name+" <- "+fmt.Sprintf(format, args...))
}

func (p *speaker) Deliver(d *Delivery, _ *Wave) Outcome {
	notes := []string{fmt.Sprint("QoS ", d.QoS)}
	note := func(is bool, format string, args ...any) {
		if is {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	note(d.QoS > 0, "id %d", d.PacketID)
	note(d.Retain, "retain")
	note(d.Dup, "dup")
	note(d.Expires, "expires in %v", time.Duration(d.Expiry)*time.Second)
	note(len(d.IDs) > 0, "subscriptions %v", d.IDs)
	p.say("PUBLISH %s: %s (%s)", d.Event.Topic, d.Event.Payload, strings.Join(notes, ", "))
	return Sent
}

func (p *speaker) Release(id uint16, _ *Wave) { p.say("PUBREL %d", id) }
func (p *speaker) Flush()                     {}

func (p *speaker) End(cause error) {
	p.say("DISCONNECT %v", cause)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// A line is one command of a conversation.
type line struct {
	*datadriven.TestData
	words   []string // arguments without a value
	options map[string]string
	used    map[string]bool
}

func readLine(d *datadriven.TestData) *line {
	l := &line{TestData: d, options: map[string]string{}, used: map[string]bool{}}
	for _, a := range d.CmdArgs {
		if len(a.Vals) > 0 {
			l.options[a.Key] = a.Vals[0]
		} else {
			l.words = append(l.words, a.Key)
		}
	}
	return l
}

// word returns the n-th argument that is no option.
func (l *line) word(t *testing.T, n int) string {
	t.Helper()
	if n >= len(l.words) {
		l.Fatalf(t, "%s needs %d words", l.Cmd, n+1)
	}
	l.used[l.words[n]] = true
	return l.words[n]
}

func (l *line) flag(name string) bool {
	l.used[name] = true
	return slices.Contains(l.words[min(1, len(l.words)):], name)
}

func (l *line) number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	l.used[name] = true
	s, ok := l.options[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		l.Fatalf(t, "%s=%s: %v", name, s, err)
	}
	return n
}

// span returns a duration in seconds.
func (l *line) span(t *testing.T, name string, otherwise uint32) uint32 {
	t.Helper()
	l.used[name] = true
	s, ok := l.options[name]
	if !ok {
		return otherwise
	}
	return uint32(duration(t, l, s) / time.Second)
}

func duration(t *testing.T, l *line, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil && s != "0" {
		l.Fatalf(t, "%v", err)
	}
	return d
}

// step does what one line says and returns what everybody got.
func (c *conversation) step(t *testing.T, d *datadriven.TestData) string {
	l := readLine(d)
	answer := c.do(t, l)
	for _, w := range slices.Concat(l.words, slices.Sorted(maps.Keys(l.options))) {
		if !l.used[w] {
			d.Fatalf(t, "%s: nobody has asked for %q", d.Cmd, w)
		}
	}
	return answer + c.rest()
}

func (c *conversation) do(t *testing.T, l *line) string {
	switch l.Cmd {
	case "policy":
		return c.setRules(t, l)
	case "connect":
		return c.connects(t, l)
	case "clock", "advance":
		return c.moveClock(t, l)
	case "crash", "stop", "start":
		if l.Cmd != "start" {
			c.stop(false)
			c.stopped = true
		}
		if l.Cmd != "stop" {
			c.start()
			c.stopped = false
			c.counted = [3]uint64{}
		}
		return ""
	case "count":
		return c.count()
	}
	p := c.speakers[l.word(t, 0)]
	if p == nil {
		l.Fatalf(t, "%s is not connected", l.words[0])
	}
	switch l.Cmd {
	case "subscribe":
		return p.subscribes(t, l)
	case "unsubscribe":
		existed, err := p.s.Unsubscribe([]string{l.word(t, 1)})
		if err != nil {
			return err.Error() + "\n"
		}
		return fmt.Sprintf("existed: %v\n", existed[0])
	case "publish":
		return p.publishes(t, l)
	case "puback", "pubrec", "pubcomp":
		return p.answers(t, l)
	case "disconnect":
		_, set := l.options["expiry"]
		p.s.Close(l.flag("with-will"), set, l.span(t, "expiry", 0))
		p.closed = true
	case "lose":
		p.s.Close(true, false, 0)
		p.closed = true
	default:
		l.Fatalf(t, "nobody knows how to %s", l.Cmd)
	}
	return ""
}

// rest lets everything come to rest and returns what was said.
func (c *conversation) rest() string {
	if !c.stopped {
		c.catchUp()
	}
	synctest.Wait()
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.speakers)) {
		p := c.speakers[name]
		p.mu.Lock()
		for _, s := range p.said {
			fmt.Fprintln(&out, s)
		}
		p.said = nil
		over := p.ended && !p.closed
		p.mu.Unlock()
		if over {
			p.closed = true
			p.s.Close(true, false, 0) // as the protocol does after any end
		}
	}
	synctest.Wait()
	return out.String()
}

func (c *conversation) setRules(t *testing.T, l *line) string {
	c.policies[l.Input] = parseRules(l.Input)
	if err := c.SetPolicy(context.Background(), []byte(l.Input)); err != nil {
		l.Fatalf(t, "%v", err)
	}
	return ""
}

func (c *conversation) connects(t *testing.T, l *line) string {
	p := &speaker{name: l.word(t, 0)}
	r := ConnectRequest{
		Client: p.name, Principal: p.name, Version: 5, Clean: l.flag("clean"),
		Expiry: l.span(t, "expiry", 7*24*3600), ReceiveMax: uint16(l.number(t, "receive-max", 100)),
	}
	if topicName, ok := l.options["will"]; ok {
		l.used["will"] = true
		_, expires := l.options["will-expiry"]
		r.Will = &event.Will{
			Topic: topicName, Payload: []byte(l.Input), QoS: uint8(l.number(t, "will-qos", 0)), Retain: l.flag("will-retain"),
			Delay: l.span(t, "will-delay", 0), Expiry: l.span(t, "will-expiry", 0), Expires: expires,
		}
	}
	s, present, dropped, err := c.Connect(r, p)
	if err != nil {
		return err.Error() + "\n"
	}
	answer := "connected"
	if present {
		answer += ", the session was there"
	}
	if dropped > 0 {
		answer += fmt.Sprintf(", %d events were lost", dropped)
	}
	synctest.Wait() // a connection that this one has taken over from hears of it first
	before := c.rest()
	p.s, c.speakers[p.name] = s, p
	var w Wave
	s.Start(&w)
	w.Flush()
	return before + answer + "\n"
}

func (p *speaker) subscribes(t *testing.T, l *line) string {
	s := event.Subscription{
		Filter: l.word(t, 1), QoS: uint8(l.number(t, "qos", 0)), ID: uint32(l.number(t, "id", 0)), NoLocal: l.flag("no-local"),
		RetainAsPublished: l.flag("retain-as-published"), RetainHandling: uint8(l.number(t, "retain-handling", 0)),
	}
	answer := "granted\n"
	p.s.Subscribe([]event.Subscription{s}, func(r []SubResult, _ *Wave) {
		if r[0].Err != nil {
			answer = r[0].Err.Error() + "\n"
		}
	})
	return answer
}

func (p *speaker) publishes(t *testing.T, l *line) string {
	e := &event.Event{Topic: l.word(t, 1), Payload: []byte(l.Input), QoS: uint8(l.number(t, "qos", 0)), Retain: l.flag("retain")}
	if s := l.span(t, "expiry", 0); s > 0 {
		e.Expires = p.s.b.now() + seconds(s)
	}
	o := outcome{make(chan error, 1)}
	var w Wave
	logged, err := p.s.Publish(e, 0, o, 0, &w)
	w.Flush()
	if logged {
		err = <-o.ch
	}
	if err != nil {
		return err.Error() + "\n"
	}
	return ""
}

func (p *speaker) answers(t *testing.T, l *line) string {
	what := map[string]Settlement{"puback": Acked, "pubrec": Received, "pubcomp": Completed}[l.Cmd]
	var out strings.Builder
	for i := range l.words[1:] {
		id, err := strconv.ParseUint(l.word(t, i+1), 10, 16)
		if err != nil {
			l.Fatalf(t, "%v", err)
		}
		var w Wave
		if err := p.s.Settle(uint16(id), what, &w); err != nil {
			fmt.Fprintln(&out, err)
		}
		w.Flush()
	}
	return out.String()
}

func (c *conversation) moveClock(t *testing.T, l *line) string {
	now := c.clock.now()
	by := time.Duration(0)
	if l.Cmd == "advance" {
		by = duration(t, l, l.word(t, 0))
	} else {
		text := l.word(t, 0)
		if len(text) == len("15:04") {
			text += ":00"
		}
		at, err := time.Parse(time.TimeOnly, text)
		if err != nil {
			l.Fatalf(t, "%v", err)
		}
		midnight := now.Truncate(24 * time.Hour)
		by = midnight.Add(at.Sub(at.Truncate(24 * time.Hour))).Sub(now)
		if by <= 0 {
			by += 24 * time.Hour
		}
	}
	c.clock.advance(by)
	return now.Add(by).Format("Mon 15:04:05\n")
}

// count says what was not delivered since it was last called.
func (c *conversation) count() string {
	now := [3]uint64{c.stats.Withheld.Load(), c.stats.Expired.Load(), c.stats.PublishRefused.Load()}
	var out []string
	for i, what := range []string{"withheld", "expired", "refused"} {
		if n := now[i] - c.counted[i]; n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, what))
		}
	}
	c.counted = now
	if out == nil {
		return "nothing\n"
	}
	return strings.Join(out, ", ") + "\n"
}
