package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// A Got is something that a client was sent.
type Got struct {
	Topic, Payload string
	Props          string // in wire form
	QoS            uint8
	Retain, Dup    bool
	ID             uint16
	IDs            string // Subscription Identifiers
	Expiry         uint32 // seconds, if Expires
	Expires        bool
}

func (g Got) String() string {
	s := fmt.Sprintf("%s=%s q%d", g.Topic, g.Payload, g.QoS)
	if g.Retain {
		s += " retain"
	}
	if g.Dup {
		s += " dup"
	}
	return s
}

// A Client is a connection to a Node. It acknowledges what it gets when the
// node is made to Settle. Its methods are for the test's own goroutine.
type Client struct {
	Principal, Name string
	Present         bool // the session existed
	n               *Node
	s               *broker.Session

	mu      sync.Mutex // guards the following
	got     []Got
	acked   int // of got
	unacked []Got
	holds   bool            // it acknowledges nothing
	freed   []uint16        // packet ids of QoS 2 deliveries that were released
	known   map[uint16]bool // packet ids of those that were not
	inUse   map[uint16]Got  // by the packet id: what it has not acknowledged, or not to the end
	twice   []string        // packet ids that were used for something else before that
	stalled bool
	ended   error
	payload map[string]*byte // of each topic's last document
}

// A ConnectOption changes how a client connects.
type ConnectOption func(*broker.ConnectRequest)

// ClientID names the client. Without it each connection is another client.
func ClientID(name string) ConnectOption { return func(r *broker.ConnectRequest) { r.Client = name } }

// Expiry is for how many seconds the session outlives the connection.
func Expiry(seconds uint32) ConnectOption {
	return func(r *broker.ConnectRequest) { r.Expiry = seconds }
}

// Clean discards the session that the client had.
func Clean(r *broker.ConnectRequest) { r.Clean = true }

// ReceiveMax is how many deliveries may await acknowledgement at once.
func ReceiveMax(most uint16) ConnectOption {
	return func(r *broker.ConnectRequest) { r.ReceiveMax = most }
}

// Will is published when the connection is lost.
func Will(w event.Will) ConnectOption { return func(r *broker.ConnectRequest) { r.Will = &w } }

// Connect connects a client of a principal, empty for nobody.
func (n *Node) Connect(principal string, with ...ConnectOption) *Client {
	n.t.Helper()
	c, err := n.TryConnect(principal, with...)
	if err != nil {
		n.t.Fatalf("connect %s: %v", principal, err)
	}
	return c
}

// TryConnect is Connect for who may be refused.
func (n *Node) TryConnect(principal string, with ...ConnectOption) (*Client, error) {
	n.names++
	r := broker.ConnectRequest{Client: fmt.Sprint("client", n.names), Principal: principal, Version: 5, ReceiveMax: 100}
	for _, f := range with {
		f(&r)
	}
	c := &Client{Principal: principal, Name: r.Client, n: n, payload: map[string]*byte{}}
	var err error
	if c.s, c.Present, _, err = n.Broker.Connect(r, c); err != nil {
		return nil, err
	}
	if !c.Present || n.received[c.Name] == nil {
		n.received[c.Name] = map[uint16]bool{}
	}
	c.known = n.received[c.Name]
	var w broker.Wave
	c.s.Start(&w)
	w.Flush()
	n.clients = append(n.clients, c)
	return c, nil
}

// Disconnect ends the connection as the client's DISCONNECT does.
func (c *Client) Disconnect() { c.close(false) }

// Lose ends the connection as a network that fails does.
func (c *Client) Lose() { c.close(true) }

func (c *Client) close(lost bool) {
	c.s.Close(lost, false, 0)
	c.n.clients = slices.DeleteFunc(c.n.clients, func(d *Client) bool { return c == d })
	c.n.apply() // by the clock as it is now
}

// Subscribe subscribes to a filter, which must be granted.
func (c *Client) Subscribe(filter string, qos uint8) {
	c.n.t.Helper()
	if err := c.TrySubscribe(filter, qos); err != nil {
		c.n.t.Errorf("%s subscribes to %s: %v", c.Principal, filter, err)
	}
}

// TrySubscribe is Subscribe for who may be refused.
func (c *Client) TrySubscribe(filter string, qos uint8) (err error) {
	c.s.Subscribe([]event.Subscription{{Filter: filter, QoS: qos}}, func(r []broker.SubResult, _ *broker.Wave) { err = r[0].Err })
	return err
}

// TrySubscribeAll is TrySubscribe to several filters with one packet.
func (c *Client) TrySubscribeAll(qos uint8, filters ...string) (results []broker.SubResult) {
	subs := make([]event.Subscription, len(filters))
	for i, f := range filters {
		subs[i] = event.Subscription{Filter: f, QoS: qos}
	}
	c.s.Subscribe(subs, func(r []broker.SubResult, _ *broker.Wave) { results = slices.Clone(r) })
	return results
}

// TrySubscribeWith is TrySubscribe with User Properties, names and values, and returns
// those of the answer.
func (c *Client) TrySubscribeWith(filter string, qos uint8, options ...string) (answer map[string]string, err error) {
	var props []byte
	for i := 0; i < len(options); i += 2 {
		props = event.AppendUserProperty(props, options[i], options[i+1])
	}
	answer = map[string]string{}
	c.s.SubscribeWith([]event.Subscription{{Filter: filter, QoS: qos}}, props, func(r []broker.SubResult, props []byte, _ *broker.Wave) {
		err = r[0].Err
		for name, value := range event.UserProperties(props) {
			answer[name] = value
		}
	})
	return answer, err
}

// Unsubscribe ends a subscription.
func (c *Client) Unsubscribe(filter string) {
	c.n.t.Helper()
	if _, err := c.s.Unsubscribe([]string{filter}); err != nil {
		c.n.t.Errorf("%s unsubscribes from %s: %v", c.Principal, filter, err)
	}
}

// A PublishOption changes how something is published.
type PublishOption func(*event.Event)

// Retain publishes with RETAIN.
func Retain(e *event.Event) { e.Retain = true }

// QoS publishes at another QoS than 1.
func QoS(qos uint8) PublishOption { return func(e *event.Event) { e.QoS = qos } }

// ExpiresAt publishes with a Message Expiry Interval that ends at at.
func ExpiresAt(at time.Time) PublishOption {
	return func(e *event.Event) { e.Expires = at.UnixNano() }
}

// ContentType says what the payload is.
func ContentType(name string) PublishOption {
	return func(e *event.Event) { e.Props = event.AppendContentType(e.Props, name) }
}

// Property adds a User Property.
func Property(name, value string) PublishOption {
	return func(e *event.Event) { e.Props = event.AppendUserProperty(e.Props, name, value) }
}

// Publish publishes at QoS 1; it must be accepted.
func (c *Client) Publish(topic, payload string, with ...PublishOption) {
	c.n.t.Helper()
	if err := c.TryPublish(topic, payload, with...); err != nil {
		c.n.t.Errorf("%s publishes %s to %s: %v", c.Principal, payload, topic, err)
	}
}

// TryPublish is Publish for what may be refused. It waits for the outcome.
func (c *Client) TryPublish(topic, payload string, with ...PublishOption) error {
	_, err := c.PublishAnswer(topic, payload, with...)
	return err
}

// PublishAnswer is TryPublish that also returns the User Properties that come
// with the acknowledgement, the last of those with one name. A QoS 2 publish is
// released.
func (c *Client) PublishAnswer(topic, payload string, with ...PublishOption) (answer map[string]string, err error) {
	e := &event.Event{Topic: topic, Payload: []byte(payload), QoS: 1}
	for _, f := range with {
		f(e)
	}
	qos := e.QoS
	o := &outcome{done: make(chan error, 1), answer: map[string]string{}}
	var w broker.Wave
	logged, err := c.s.Publish(e, 1, o, 0, &w)
	w.Flush()
	if logged {
		err = <-o.done
	}
	if qos == 2 && err == nil {
		if logged, err = c.s.Release(1, o, 0); logged {
			err = <-o.done
		}
	}
	return o.answer, err
}

// An outcome is a Completer that somebody waits for.
type outcome struct {
	done   chan error
	answer map[string]string
}

func (o *outcome) Complete(_ uint64, err error, _ *broker.Wave) { o.done <- err }

// Answer comes before Complete.
func (o *outcome) Answer(_ uint64, props []byte) {
	for name, value := range event.UserProperties(props) {
		o.answer[name] = value
	}
}

// Got returns everything that the client was sent, in order.
func (c *Client) Got() []Got {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// Take is Got, and begins anew: what it returns is not returned again.
func (c *Client) Take() []Got {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got[:c.acked:c.acked]
	c.got, c.acked = c.got[c.acked:], 0
	return got
}

// Await settles the node until the client has been sent most things, or for as
// long as is sensible, and returns what it was sent; it begins anew like Take.
func (c *Client) Await(most int) []Got {
	c.n.t.Helper()
	for range awaitRounds {
		c.n.Settle()
		if len(c.Got()) >= most {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got, c.acked = nil, 0
	return got
}

// awaitRounds is how often Await settles the node: seconds.
const awaitRounds = 10_000

// Hold has the client acknowledge nothing, or all again.
func (c *Client) Hold(hold bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds = hold
}

// Shown returns what the client was sent last of a topic.
func (c *Client) Shown(topic string) (g Got, ok bool) {
	for _, g := range slices.Backward(c.Got()) {
		if g.Topic == topic {
			return g, true
		}
	}
	return Got{}, false
}

// Octets returns where in memory the last document of a topic lies: those of
// two clients are one if it was made once for both. nil for none, and for an
// empty one.
func (c *Client) Octets(topic string) *byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.payload[topic]
}

// Stall makes the client take nothing until Resume: its network is slow.
func (c *Client) Stall() { c.setStalled(true) }

// Resume ends Stall.
func (c *Client) Resume() {
	c.setStalled(false)
	var w broker.Wave
	c.s.Drained(&w)
	w.Flush()
}

func (c *Client) setStalled(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = is
}

// Ended returns why the broker ended the connection, nil if it has not.
func (c *Client) Ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// acknowledge acknowledges what came since it was last called, and says whether
// there was anything.
func (c *Client) acknowledge() bool {
	c.mu.Lock()
	if c.holds {
		c.mu.Unlock()
		return false
	}
	any := c.acked < len(c.got)
	fresh, freed := c.unacked, c.freed
	c.acked, c.unacked, c.freed = len(c.got), nil, nil
	for _, g := range fresh {
		if g.QoS == 1 {
			delete(c.inUse, g.ID)
		}
	}
	for _, id := range freed {
		delete(c.inUse, id)
	}
	for _, fault := range c.twice {
		c.n.t.Errorf("%s: %s", c.Principal, fault)
	}
	c.twice = nil
	c.mu.Unlock()
	var w broker.Wave
	defer w.Flush()
	for _, g := range fresh {
		what := broker.Acked
		if g.QoS == 2 {
			what = broker.Received
		}
		if err := c.s.Settle(g.ID, what, &w); err != nil && !errors.Is(err, broker.ErrNoPacketID) {
			c.n.t.Errorf("%s acknowledges %s: %v", c.Principal, g, err)
		}
	}
	for _, id := range freed {
		if err := c.s.Settle(id, broker.Completed, &w); err != nil && !errors.Is(err, broker.ErrNoPacketID) {
			c.n.t.Errorf("%s completes %d: %v", c.Principal, id, err)
		}
	}
	return any || len(fresh)+len(freed) > 0
}

// Deliver, Release, Flush and End make the client a broker.Sink.
func (c *Client) Deliver(d *broker.Delivery, _ *broker.Wave) broker.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled || c.ended != nil {
		return broker.Full
	}
	g := Got{
		Topic: string([]byte(d.Event.Topic)), Payload: string(d.Event.Payload), Props: string(d.Event.Props),
		QoS: d.QoS, Retain: d.Retain, Dup: d.Dup, ID: d.PacketID, Expiry: d.Expiry, Expires: d.Expires,
	}
	if len(d.IDs) > 0 {
		g.IDs = fmt.Sprint(d.IDs)
	}
	if g.QoS > 0 {
		if old, used := c.inUse[g.ID]; used {
			c.twice = append(c.twice, fmt.Sprintf("packet id %d is used for %s, and is under way for %s", g.ID, g, old))
		}
		if c.inUse == nil {
			c.inUse = map[uint16]Got{}
		}
		c.inUse[g.ID] = g
		c.unacked = append(c.unacked, g)
	}
	if g.QoS == 2 {
		if c.known[g.ID] {
			return broker.Sent // it has come before (5.0 4.3.3)
		}
		c.known[g.ID] = true
	}
	c.got = append(c.got, g)
	c.payload[g.Topic] = nil
	if len(d.Event.Payload) > 0 {
		c.payload[g.Topic] = &d.Event.Payload[0]
	}
	return broker.Sent
}

// Release is part of broker.Sink.
func (c *Client) Release(id uint16, _ *broker.Wave) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, id)
	c.freed = append(c.freed, id)
}

// Flush is part of broker.Sink.
func (c *Client) Flush() {}

// End is part of broker.Sink.
func (c *Client) End(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = cause
	}
}

// last returns the last document of each topic.
func (c *Client) last() map[string]Got {
	last := map[string]Got{}
	for _, g := range c.Got() {
		last[g.Topic] = g
	}
	return last
}

func (c *Client) isStalled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stalled
}
