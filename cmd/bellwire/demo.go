package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// A demo is a few real clients of a real broker: this machine publishes what
// /proc says about it, and subscribers whom the policy lets see different
// things watch it. It decides nothing: what is withheld is withheld by the
// broker, and shown by its tap.
type demo struct {
	feed   *feed
	domain string
	host   string // this machine's name, as a level of a topic
	tokens map[string]string
	shift  time.Duration // how long the window of the night shift is open

	opens, closes time.Time // the shift's, in the policy in force

	server                     atomic.Pointer[server] // for the tap; nil before it serves
	events, delivered, refused atomic.Int64
	withheld                   atomic.Int64
	offline                    chan struct{} // told when the dashboard learns of the host's end
}

// The demo's people. The host is one more principal.
var demoWatchers = []watcher{
	{name: "dashboard", filter: "hosts/#", sees: "everything"},
	{name: "intern", filter: "hosts/#", sees: "everything but the network"},
	{name: "night", filter: "hosts/+/load", sees: "the load, during the shift"},
	{name: "visitor", filter: "hosts/#", sees: "nothing"},
}

type watcher struct{ name, filter, sees string }

func newDemo(feed *feed, domain string, runFor time.Duration) (*demo, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, fail(bwUnclassified, "this machine's name: %w", err)
	}
	d := &demo{
		feed: feed, domain: domain, host: levelOf(name), tokens: map[string]string{},
		shift: 10 * time.Second, offline: make(chan struct{}, 1),
	}
	// Policies count in seconds. A short demo has time for one shift.
	now := time.Now().Truncate(time.Second)
	d.opens = now.Add(3 * time.Second)
	if runFor > 0 {
		d.opens = now.Add(max(time.Second, (runFor * 2 / 5).Round(time.Second)))
		d.shift = max(time.Second, (runFor * 2 / 5).Truncate(time.Second))
	}
	d.closes = d.opens.Add(d.shift)
	for _, who := range append([]watcher{{name: d.hostUser()}}, demoWatchers...) {
		d.tokens[who.name] = rand.Text()
	}
	return d, nil
}

// levelOf makes a machine's name a level of a topic.
func levelOf(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '+' || r == '#' || r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, "h"[min(len(name), 1):]+name)
}

// hostUser is the principal of the machine, without its domain: not all names
// of machines are addresses of people.
func (d *demo) hostUser() string { return "this-host" }

// policy is what the demo's clients are held to. The last rule leaves the rest
// of the topics to whoever tries things out.
func (d *demo) policy() []byte {
	var b strings.Builder
	b.WriteString("users:\n")
	for name, token := range d.tokens {
		fmt.Fprintf(&b, "  %s@%s: {token_sha256: %s}\n", name, d.domain, acl.HashToken([]byte(token)))
	}
	fmt.Fprintf(&b, `rules:
  - id: host-reports-itself
    allow: [publish]
    who: [%[2]s@%[1]s]
    topic: ["hosts/{client}/#"]
  - id: staff
    allow: [subscribe]
    who: [dashboard@%[1]s, intern@%[1]s]
    topic: ["hosts/#"]
  - id: no-network-for-interns
    deny: [subscribe]
    who: [intern@%[1]s]
    topic: ["hosts/+/net"]
  - id: night-shift
    allow: [subscribe]
    who: [night@%[1]s]
    topic: ["hosts/+/load"]
    when: {from: %[3]q, until: %[4]q}
    outside: hold
  - id: try-it
    allow: [publish, subscribe]
    who: [anyone]
    topic: ["home/#"]
`, d.domain, d.hostUser(), d.opens.UTC().Format(time.RFC3339), d.closes.UTC().Format(time.RFC3339))
	return []byte(b.String())
}

// run lives until ctx ends, then lets the machine's connection break, shows
// what its will does, and sums up.
func (d *demo) run(ctx context.Context, s *server) error {
	d.server.Store(s)
	to := target{network: "tcp", address: s.mqttListener.Addr().String(), timeout: 10 * time.Second}
	clients, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, w := range demoWatchers {
		c, err := d.watch(clients, to, w)
		if err != nil {
			return err
		}
		if c != nil {
			defer c.close(clients, &paho.Disconnect{})
		}
	}
	p, hangUp, err := d.publisher(clients, to)
	if err != nil {
		return err
	}
	err = d.report(ctx, s, p)
	hangUp()
	select {
	case <-d.offline:
	case <-time.After(2 * time.Second): // the summary is better than silence
	}
	close(p.acks)
	<-p.result
	d.feed.print(fmt.Sprintf("%s, %d delivered, %d withheld by policy, %d refused. Next: bellwire dev, then bellwire sub -v -t 'home/#'",
		plural(int(d.events.Load()), "event"), d.delivered.Load(), d.withheld.Load(), d.refused.Load()))
	return err
}

// watch connects a subscriber. One that may see nothing is refused, which is
// shown, and has no connection.
func (d *demo) watch(ctx context.Context, to target, w watcher) (*client, error) {
	c, err := connect(ctx, to, d.connectPacket(w.name, w.name), state.NewInMemory(), func(p paho.PublishReceived) (bool, error) {
		d.arrived(w, p.Packet)
		return true, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: w.filter, QoS: 1}}})
	if answer == nil {
		return nil, noAnswer(c, "SUBSCRIBE", err)
	}
	if code := answer.Reasons[0]; code >= 0x80 {
		d.refused.Add(1)
		d.line("refused", w.filter, "subscribe", w.name, refusal("not allowed", code, answer.Properties.ReasonString).what)
		c.close(ctx, &paho.Disconnect{})
		return nil, nil
	}
	return c, nil
}

func (d *demo) connectPacket(user, id string) *paho.Connect {
	return &paho.Connect{
		ClientID: id, CleanStart: true, KeepAlive: 30,
		Username: user + "@" + d.domain, UsernameFlag: true, Password: []byte(d.tokens[user]), PasswordFlag: true,
		Properties: &paho.ConnectProperties{RequestProblemInfo: true, ReceiveMaximum: paho.Uint16(receiveAhead)},
	}
}

// publisher connects the machine and says that it is online; hangUp breaks the
// connection without a word, so that the broker says that it is not.
func (d *demo) publisher(ctx context.Context, to target) (p *publisher, hangUp func(), err error) {
	packet := d.connectPacket(d.hostUser(), d.host)
	packet.WillMessage = &paho.WillMessage{Topic: d.topic("online"), Payload: []byte("offline"), QoS: 1, Retain: true}
	var conn net.Conn
	to.dial = func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		var err error
		conn, err = dialer.DialContext(ctx, to.network, to.address)
		return conn, err
	}
	if p, err = newPublisher(ctx, to, packet, receiveAhead, nil); err != nil {
		return nil, nil, err
	}
	return p, func() { conn.Close() }, d.publish(ctx, p, reading{"online", "online"})
}

func (d *demo) topic(name string) string { return "hosts/" + d.host + "/" + name }

// sentAt is the user property with which the demo measures how long an event
// took: Unix time in nanoseconds.
const sentAt = "sent-at"

func (d *demo) publish(ctx context.Context, p *publisher, r reading) error {
	m := &paho.Publish{Topic: d.topic(r.name), QoS: 1, Retain: true, Payload: []byte(r.value), Properties: &paho.PublishProperties{}}
	m.Properties.User.Add(sentAt, strconv.FormatInt(time.Now().UnixNano(), 10))
	d.events.Add(1)
	return p.publish(ctx, m)
}

// report publishes what the machine does, once a second, until ctx ends. When
// a shift is over the next one is put into the policy, on the live broker.
func (d *demo) report(ctx context.Context, s *server, p *publisher) error {
	proc, blocks := os.DirFS("/proc"), os.DirFS("/sys/block")
	before, err := readHost(proc, blocks, time.Now())
	if err != nil {
		return fail(bwFile, "the demo reports what Linux's /proc says about this machine: %w", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case <-tick.C:
		}
		now, err := readHost(proc, blocks, time.Now())
		if err != nil {
			return fail(bwFile, "/proc: %w", err)
		}
		for _, r := range now.since(before) {
			if err := d.publish(ctx, p, r); err != nil {
				return ended(ctx, p, err)
			}
		}
		before = now
		if now.at.After(d.closes.Add(d.shift / 2)) {
			d.opens = now.at.Truncate(time.Second).Add(d.shift / 2)
			d.closes = d.opens.Add(d.shift)
			if err := s.setPolicy(ctx, s.config.policyName, d.policy()); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// ended returns why a publisher can send no more; nothing if it was told to
// end.
func ended(ctx context.Context, p *publisher, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	select {
	case lost := <-p.client.lost:
		return lost
	default:
		return err
	}
}

// arrived shows what a subscriber received.
func (d *demo) arrived(w watcher, m *paho.Publish) {
	d.delivered.Add(1)
	how := ""
	switch {
	case m.Retain:
		how = "state at the opening"
	case m.Properties.User.Get(sentAt) == "":
		how = "the will of " + d.host
	default:
		if sent, err := strconv.ParseInt(m.Properties.User.Get(sentAt), 10, 64); err == nil {
			how = millis(time.Since(time.Unix(0, sent)))
		}
	}
	d.line("delivered", m.Topic, shown(m.Payload), d.host+" → "+w.name, how)
	if w.name == "dashboard" && string(m.Payload) == "offline" {
		select {
		case d.offline <- struct{}{}:
		default:
		}
	}
}

// tap shows what the broker withheld, and asks the policy in force why.
func (d *demo) tap(e *event.Event, fates []broker.Fate) {
	s := d.server.Load()
	for _, fate := range fates {
		if fate.Permitted || s == nil {
			continue
		}
		d.withheld.Add(1)
		why := s.broker.Policy().Decide(fate.Who, broker.ActSubscribe, e.Topic, time.Now().UnixNano())
		reason := why.Reason
		if why.Until != 0 && why.Until != math.MaxInt64 {
			reason += "; opens " + time.Unix(0, why.Until).Format(time.TimeOnly)
		}
		d.line("withheld", e.Topic, "–", d.host+" ⇥ "+fate.Who.Client, reason)
	}
}

// line prints one thing that happened, in columns.
func (d *demo) line(what, topic, value, path, how string) {
	d.feed.print(fmt.Sprintf("%-9s  %-*s  %-27s  %-*s  %s", what, len(d.topic("memory")), topic, value, len(d.host)+12, path, how))
}
