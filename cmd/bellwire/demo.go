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
)

// A demo is a few real clients of a real broker: this machine publishes what
// /proc says about it, and subscribers whom the policy lets see different
// things watch it. It decides nothing: what is withheld is withheld by the
// broker, of which it is the tap.
type demo struct {
	feed   *feed
	domain string
	host   string            // this machine's name, as a level of a topic
	tokens map[string]string // by user name, without its domain
	runFor time.Duration     // 0: until it is interrupted

	// Of whoever runs it.
	shift   shift         // in the policy in force
	slowest time.Duration // step so far

	server  atomic.Pointer[server] // for the tap; nil before it runs
	changed chan struct{}          // tally has; holds one

	mu    sync.Mutex // guards tally, and that a line and its count are one step
	tally tally
}

// hostUser is the principal of the machine, without its domain: not all names
// of machines are addresses of people.
const hostUser = "this-host"

// offline is what the machine's will says.
const offline = "offline"

// lastWords is how long the end of the demo may take: longer than on any
// machine that is well, for the summary is better than silence.
const lastWords = 20 * time.Second

// The demo's people. The host is one more principal.
var demoWatchers = []watcher{
	{name: "dashboard", filter: "hosts/#", sees: "everything"},
	{name: "intern", filter: "hosts/#", sees: "everything but the network"},
	{name: "night", filter: "hosts/+/load", sees: "the load, during the shift"},
	{name: "visitor", filter: "hosts/#", sees: "nothing"},
}

// A watcher is a subscriber of the demo; its name is its client id too.
type watcher struct{ name, filter, sees string }

func isWatcher(client string) bool {
	return slices.ContainsFunc(demoWatchers, func(w watcher) bool { return w.name == client })
}

func newDemo(feed *feed, domain string, runFor time.Duration) (*demo, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, fail(bw.Unclassified, "this machine's name: %w", err)
	}
	d := &demo{
		feed: feed, domain: domain, host: levelOf(name), tokens: map[string]string{hostUser: rand.Text()},
		runFor: runFor, changed: make(chan struct{}, 1),
	}
	for _, w := range demoWatchers {
		d.tokens[w.name] = rand.Text()
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
			defer c.close(clients, &paho.Disconnect{})
		}
	}
	p, hangUp, err := d.publisher(clients, to)
	if err != nil {
		return err
	}
	if err = d.callShift(ctx, s); err == nil {
		err = d.report(ctx, s, p, before)
	}
	patience, cancel := context.WithTimeout(clients, lastWords)
	defer cancel()
	p.settle(patience)
	hangUp()
	d.allTold()
	close(p.acks)
	<-p.result
	d.end()
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
		d.turnedAway(w, refusal("not allowed", code, answer.Properties.ReasonString).what)
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

// publisher connects the machine. hangUp breaks the connection without a word,
// so that the broker says that it is offline.
func (d *demo) publisher(ctx context.Context, to target) (p *publisher, hangUp func(), err error) {
	packet := d.connectPacket(hostUser, d.host)
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

// callShift decides when the next shift is and puts it into the policy, on the
// live broker. If that took so long that the opening is near it decides anew:
// there is to be something to withhold before it. Nothing is published
// meanwhile, so the shift has not begun for anybody.
func (d *demo) callShift(ctx context.Context, s *server) error {
	for {
		began := time.Now()
		d.shift = planShift(began, d.runFor, d.slowest)
		if err := s.setPolicy(ctx, s.config.policyName, d.policy(d.shift)); err != nil {
			return unlessDone(ctx, err)
		}
		took := time.Since(began)
		d.slowest = max(d.slowest, took)
		if took < d.shift.opens.Sub(began)/2 {
			return nil
		}
	}
}

// report publishes what the machine does, once a second, until ctx ends or the
// demo's time is over. A demo without an end has one shift after another.
func (d *demo) report(ctx context.Context, s *server, p *publisher, before hostSample) error {
	var timeUp <-chan time.Time // never
	if d.runFor > 0 {
		timeUp = time.After(d.runFor)
	}
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
			if err := d.publish(ctx, p, r); err != nil {
				return ended(ctx, p, err)
			}
		}
		before = now
		if d.runFor == 0 && now.at.After(d.shift.closes.Add(d.shift.closes.Sub(d.shift.opens)/2)) {
			if err := d.callShift(ctx, s); err != nil {
				return err
			}
		}
		due.Reset(time.Until(nextReading(time.Now())))
	}
	return nil
}

// shiftLasts says whether a demo whose time is over is to go on, because its
// shift is not over: nothing was read since that it could have withheld.
func (d *demo) shiftLasts(lastReading time.Time) bool {
	return d.runFor >= wholeShift && lastReading.Before(d.shift.closes)
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
