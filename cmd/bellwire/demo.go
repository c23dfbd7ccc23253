package main

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A demo is a few real clients of a real broker: this machine publishes what
// /proc says about it, people publish how and where they are and write to each
// other, and subscribers whom the policies let see different things watch. It
// decides nothing: what is withheld is withheld by the broker, of which it is
// the tap.
type demo struct {
	feed   *feed
	domain string
	host   string            // this machine's name: a level of a topic, and an address with the domain
	tokens map[string]string // by user name, without its domain
	runFor time.Duration     // 0: until it is interrupted

	// Of whoever runs it.
	shift   shift         // in the policies in force
	slowest time.Duration // step so far
	clients map[string]*client
	story   story

	server  atomic.Pointer[server] // for the tap; nil before it runs
	changed chan struct{}          // tally has; holds one

	mu    sync.Mutex // guards the following, and that a line and its count are one step
	tally tally
	owned map[kind.Resource]ownPolicies
	known map[kind.Resource]bool // there is something to show
}

// offline is what the machine's will says.
const offline = "offline"

// lastWords is how long the end of the demo may take: longer than on any
// machine that is well, for the summary is better than silence.
const lastWords = 20 * time.Second

// The demo's cast. The host is one more. Who has no filter watches people, and
// begins when there is something to see.
var demoWatchers = []watcher{
	{name: "dashboard", user: "dashboard", filter: "hosts/#"},
	{name: "intern", user: "intern", filter: "hosts/#"},
	{name: "night", user: "night", filter: "hosts/+/load"},
	{name: "visitor", user: "visitor", filter: "hosts/#"},
	{name: "ana-phone", user: "ana"},
	{name: "ana-pc", user: "ana"},
	{name: "bo-phone", user: "bo"},
	{name: "bo-pc", user: "bo"},
	{name: "boss", user: "boss"},
	{name: "zoe", user: "zoe"},
}

// A watcher is a client of the demo; its name is its client id too.
type watcher struct{ name, user, filter string }

func isWatcher(client string) bool {
	return slices.ContainsFunc(demoWatchers, func(w watcher) bool { return w.name == client })
}

func newDemo(feed *feed, domain string, runFor time.Duration) (*demo, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, fail(bw.Unclassified, "this machine's name: %w", err)
	}
	somebody, err := kind.ParseAddr("ana@" + domain)
	if err != nil {
		return nil, usage("--domain %q: %w", domain, err)
	}
	d := &demo{
		feed: feed, domain: somebody.Domain, tokens: map[string]string{}, runFor: runFor, changed: make(chan struct{}, 1),
		clients: map[string]*client{}, tally: newTally(), owned: map[kind.Resource]ownPolicies{}, known: map[kind.Resource]bool{},
	}
	for _, w := range demoWatchers {
		d.tokens[w.user] = rand.Text()
	}
	d.host = hostAddress(name, d.tokens)
	d.tokens[d.host] = rand.Text()
	return d, nil
}

// hostAddress makes an address of a machine's name, without its domain: not all
// names of machines are, and some are those of the cast.
func hostAddress(name string, taken map[string]string) string {
	name = strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	if _, err := kind.ParseAddr(name + "@example.com"); err != nil || taken[name] != "" {
		return "this-host"
	}
	return name
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

// firstPolicy is the one that the server starts with. Nobody knows yet how long
// it takes until everybody is connected: the shift is far away until then.
func (d *demo) firstPolicy() []byte {
	return d.policy(planShift(time.Now().Add(time.Hour), d.runFor, 0))
}

// run is the demo, from the first connection to the summary. It ends when ctx
// does, or with its time: the machine's connection breaks, its will is
// published, and when everything has arrived it is summed up.
func (d *demo) run(ctx context.Context, s *server) error {
	d.server.Store(s)
	to := target{network: "tcp", address: s.mqttListener.Addr().String(), timeout: lastWords}
	clients, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	before, err := readThisHost()
	if err != nil {
		return err
	}
	for _, w := range demoWatchers {
		began := time.Now()
		c, err := d.watch(clients, to, w)
		if err != nil {
			return err
		}
		d.slowest = max(d.slowest, time.Since(began))
		if c != nil {
			d.clients[w.name] = c
			defer c.close(clients, &paho.Disconnect{})
		}
	}
	p, hangUp, err := d.publisher(clients, to)
	if err != nil {
		return err
	}
	if err = d.meet(ctx, p); err == nil {
		err = d.callShift(ctx, s)
	}
	if err == nil {
		err = d.report(ctx, s, p, before)
	}
	err = unlessDone(ctx, err)
	patience, cancel := context.WithTimeout(clients, lastWords)
	defer cancel()
	p.settle(patience)
	hangUp()
	d.allTold()
	close(p.acks)
	outcome := <-p.result
	d.end()
	if err == nil && len(outcome.refusals) > 0 {
		err = outcome.refusals[0].fault
	}
	return err
}

// watch connects somebody. Who subscribes to plain topics and may see nothing
// is refused, which is shown, and has no connection.
func (d *demo) watch(ctx context.Context, to target, w watcher) (*client, error) {
	c, err := connect(ctx, to, d.connectPacket(w.user, w.name), state.NewInMemory(), func(p paho.PublishReceived) (bool, error) {
		d.arrived(w, p.Packet)
		return true, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	if w.filter == "" {
		return c, nil
	}
	refused, err := subscribe(ctx, c, w.filter)
	if refused != nil {
		d.turnedAway(w, refused.what)
		c.close(ctx, &paho.Disconnect{})
		return nil, nil
	}
	return c, err
}

// subscribe subscribes; refused is what the server says if it does not let us.
func subscribe(ctx context.Context, c *client, filter string) (refused *fault, err error) {
	answer, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	if answer == nil {
		return nil, noAnswer(c, "SUBSCRIBE", err)
	}
	if code := answer.Reasons[0]; code >= 0x80 {
		return refusal("not allowed", code, answer.Properties.ReasonString), nil
	}
	return nil, nil
}

func (d *demo) connectPacket(user, id string) *paho.Connect {
	return &paho.Connect{
		ClientID: id, CleanStart: true, KeepAlive: 30,
		Username: user + "@" + d.domain, UsernameFlag: true, Password: []byte(d.tokens[user]), PasswordFlag: true,
		Properties: &paho.ConnectProperties{RequestProblemInfo: true, ReceiveMaximum: paho.Uint16(receiveAhead)},
	}
}

// publisher connects the machine. hangUp breaks the connection without a word,
// so that the broker says that it is offline.
func (d *demo) publisher(ctx context.Context, to target) (p *publisher, hangUp func(), err error) {
	packet := d.connectPacket(d.host, d.host)
	packet.WillMessage = &paho.WillMessage{Topic: d.topic("online"), Payload: []byte(offline), QoS: 1, Retain: true}
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
	return p, func() { conn.Close() }, nil
}

func (d *demo) topic(name string) string { return "hosts/" + d.host + "/" + name }

// sentAt is the user property with which the demo measures how long an event
// took: Unix time in nanoseconds.
const sentAt = "sent-at"

func (d *demo) publish(ctx context.Context, p *publisher, r reading) error {
	m := &paho.Publish{Topic: d.topic(r.name), QoS: 1, Retain: true, Payload: []byte(r.value), Properties: &paho.PublishProperties{}}
	m.Properties.User.Add(sentAt, strconv.FormatInt(time.Now().UnixNano(), 10))
	return p.publish(ctx, m)
}

// callShift decides when the next shift is and puts it into the policies, the
// operator's and bo's, on the live broker. If that took so long that the opening
// is near it decides anew: there is to be something to withhold before it. No
// reading is published meanwhile, so the shift has not begun for anybody.
func (d *demo) callShift(ctx context.Context, s *server) error {
	d.story.next()
	for {
		began := time.Now()
		d.shift = planShift(began, d.runFor, d.slowest)
		if err := s.setPolicy(ctx, s.config.policyName, d.policy(d.shift)); err != nil {
			return err
		}
		if err := d.callBoss(ctx); err != nil {
			return err
		}
		took := time.Since(began)
		d.slowest = max(d.slowest, took)
		if took < d.shift.opens.Sub(began)/2 {
			return nil
		}
	}
}

// report publishes what the machine does, once a second, until ctx ends or the
// demo's time is over, and lets the people go on with their story. A demo
// without an end has one shift after another.
func (d *demo) report(ctx context.Context, s *server, p *publisher, before hostSample) error {
	var timeUp <-chan time.Time // never
	if d.runFor > 0 {
		timeUp = time.After(d.runFor)
	}
	d.title("this machine (%s) reports; the night shift and the boss have their windows, in UTC: %s to %s",
		d.host, d.shift.opens.UTC().Format(time.TimeOnly), d.shift.closes.UTC().Format(time.TimeOnly))
	if err := d.publish(ctx, p, reading{"online", "online"}); err != nil {
		return ended(ctx, p, err)
	}
	due := time.NewTimer(0)
	defer due.Stop()
	for over := false; !over || d.shiftLasts(before.at); {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case <-timeUp:
			over = true
			continue
		case <-due.C:
		}
		now, err := readThisHost()
		if err != nil {
			return err
		}
		for _, r := range now.since(before) {
			if !slices.Contains(demoReadings, r.name) {
				continue
			}
			if err := d.publish(ctx, p, r); err != nil {
				return ended(ctx, p, err)
			}
		}
		before = now
		if err := d.goOn(ctx, now.at); err != nil {
			return err
		}
		if d.runFor == 0 && now.at.After(d.shift.closes.Add(d.shift.closes.Sub(d.shift.opens)/2)) {
			if err := d.callShift(ctx, s); err != nil {
				return err
			}
		}
		due.Reset(time.Until(nextReading(time.Now())))
	}
	return nil
}

// demoReadings are what the machine reports of itself: enough for a rule with a
// window and one that denies, and not so much that the rest is lost among it.
var demoReadings = []string{"load", "net"}

// shiftLasts says whether a demo whose time is over is to go on, because its
// shift is not over, and nothing was read since that it could have withheld, or
// the people's story is not.
func (d *demo) shiftLasts(lastReading time.Time) bool {
	return d.runFor >= wholeShift && (lastReading.Before(d.shift.closes) || !d.story.told())
}

// readThisHost reads the machine that this is.
func readThisHost() (hostSample, error) {
	s, err := readHost(os.DirFS("/proc"), os.DirFS("/sys/block"), time.Now())
	if err != nil {
		return s, fail(bw.File, "the demo reports what Linux's /proc says about this machine: %w", err)
	}
	return s, nil
}

// unlessDone returns err, unless it is because ctx has ended.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
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
