package mqtt

import (
	"crypto/rand"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// droppedProperty is the User Property of CONNACK that tells a client how many
// events its session's queue has lost to its bound.
const droppedProperty = "bellwire-dropped"

// originProperty is the User Property by which a bridge asks in CONNECT which broker this is,
// and is told in CONNACK: an event that has been here it need not bring.
const originProperty = "bellwire-bridge"

// smallestEver is more than any CONNACK takes that tells no events dropped.
const smallestEver = 128

// handleConnect takes the CONNECT: checks it, authenticates the client, has
// the broker open its session, and answers. Every refusal is answered if the
// protocol has an answer; what is not MQTT is not.
func (c *conn) handleConnect(in *input, first byte, body []byte) error {
	p, version, err := parseConnect(first, body)
	var bad *badVersion
	if errors.As(err, &bad) {
		return c.refuseVersion(in, bad)
	}
	c.version = version
	if p != nil {
		c.problemInfo, c.bridge = p.problems, p.bridge
		if n := p.maxPacket; n > 0 && uint64(n) < uint64(c.maxPacket) {
			c.maxPacket = int(n)
		}
	}
	if err != nil {
		return c.refuseConnect(in, err)
	}
	r, assigned, err := c.requestOf(p)
	if err != nil {
		return c.refuseConnect(in, err)
	}
	if err := c.fits(p, &r, connackOf{assigned: assigned}); err != nil {
		return c.refuseConnect(in, err)
	}
	if c.srv.draining.Load() {
		return c.refuseConnect(in, &fault{codeUseAnother, whyDrained})
	}
	r.Proved = c.srv.policy()
	if rate := perSecond(c.srv.limits.Load().ConnectRate); !c.srv.connects.take(rate, c.srv.wheel.now.Load()) {
		c.srv.stats.Over[OverConnectRate].Add(1)
		return c.refuseConnect(in, &fault{codeConnectionRate, "too many clients connect at once"})
	}
	if c.srv.banned(r.Client, "", c.ip()) {
		return c.refuseConnect(in, &fault{codeBanned, ""})
	}
	if p.seen.has(packets.PropAuthenticationMethod) {
		return c.beginAuth(in, p, r, assigned)
	}
	who, err := c.authenticate(p, r.Client)
	if err != nil {
		return c.refuseConnect(in, err)
	}
	r.Principal, r.Way = who.Principal, who.Way
	return c.open(in, p, &r, connackOf{assigned: assigned, until: who.Until})
}

// fits returns a fault if the client takes no packet that is as large as its CONNACK:
// it could not even be told that it is connected.
func (c *conn) fits(p *connectPacket, r *broker.ConnectRequest, a connackOf) error {
	if c.maxPacket >= smallestEver+len(c.method)+len(a.proof) || len(encodeRare(c.connack(p, r, a))) <= c.maxPacket {
		return nil
	}
	return &fault{codeTooLarge, "Maximum Packet Size is smaller than CONNACK"}
}

// open has the broker open the session of a client that is who it says, and answers.
func (c *conn) open(in *input, p *connectPacket, r *broker.ConnectRequest, a connackOf) error {
	if whose := c.srv.reserved(r.Client); whose != "" && !c.by.Internal {
		return c.refuseConnect(in, &fault{codeBadClientID, "this client identifier is that of " + whose})
	}
	if c.srv.banned(r.Client, r.Principal, c.ip()) {
		return c.refuseConnect(in, &fault{codeBanned, ""})
	}
	if r.Will != nil {
		to, err := c.rewrite(broker.Who{Principal: r.Principal, Client: r.Client}, broker.ActPublish, r.Will.Topic)
		if err != nil {
			_, why := refusal(err)
			return c.refuseConnect(in, &fault{codeBadTopic, "will: " + why})
		}
		r.Will.Topic = to
	}
	if !c.srv.admitClient() {
		c.srv.stats.Over[OverConnections].Add(1)
		return c.refuseConnect(in, &fault{codeBusy, "too many clients"})
	}
	var s session
	var err error
	c.inBroker = true
	s, a.present, a.dropped, err = c.srv.connect(*r, c)
	c.inBroker = false
	if err != nil {
		c.srv.dismissClient()
		return c.refuseConnect(in, connectFault(err))
	}
	return c.accept(in, p, r, s, a)
}

// requestOf makes the broker's request of a CONNECT. assigned says that the
// client has its id from us.
func (c *conn) requestOf(p *connectPacket) (r broker.ConnectRequest, assigned bool, err error) {
	l := c.limits
	r = broker.ConnectRequest{
		Client:     strings.Clone(p.Connect.ClientIdentifier),
		Version:    max(p.ProtocolVersion, 4), // to the broker 3.1 is 3.1.1
		Clean:      p.Connect.Clean,
		ReceiveMax: 65_535,
		Patient:    c.by.Internal,
	}
	switch {
	case len(r.Client) > l.ClientID:
		c.srv.stats.Over[OverClientID].Add(1)
		return r, false, &fault{codeBadClientID, "client identifier is longer than " + strconv.Itoa(l.ClientID) + " bytes"}
	case r.Client == "" && (p.ProtocolVersion == 3 || p.ProtocolVersion == 4 && !r.Clean):
		return r, false, &fault{codeBadClientID, "empty client identifier"}
	case r.Client == "":
		r.Client, assigned = "auto-"+rand.Text(), true
	}
	if p.v5() {
		r.Expiry = l.sessionExpiry(p.Properties.SessionExpiryInterval)
		if n := p.Properties.ReceiveMaximum; n > 0 {
			r.ReceiveMax = n
		}
	} else if !r.Clean {
		r.Expiry = l.sessionExpiry(event.Never)
	}
	if p.Connect.WillFlag {
		r.Will = willOf(p)
	}
	r.Origin = event.Origin{Address: addressText(c.tr.remote()), Listener: c.by.Name, KeepAlive: p.Connect.Keepalive}
	if p.v5() {
		r.Origin.KeepAlive = l.keepAlive(p.Connect.Keepalive)
	}
	return r, assigned, nil
}

// addressText is a client's address as it is told; empty for a socket without one.
func addressText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// willOf makes the will of a CONNECT, in memory of its own.
func willOf(p *connectPacket) *event.Will {
	return &event.Will{
		Topic:   strings.Clone(p.Connect.WillTopic),
		Payload: append([]byte(nil), p.Connect.WillPayload...),
		Props:   p.willProps,
		QoS:     p.Connect.WillQos,
		Retain:  p.Connect.WillRetain,
		Delay:   p.willDelay,
		Expiry:  p.willExpiry,
		Expires: p.willSeen.has(packets.PropMessageExpiryInterval),
	}
}

// authenticate returns who the CONNECT proves to be. A client that shows neither user
// name, password nor a certificate that counts is anonymous.
func (c *conn) authenticate(p *connectPacket, client string) (who Identity, err error) {
	if c.by.Internal {
		return Identity{Principal: c.by.As}, nil
	}
	l := Login{User: string(p.Connect.Username), Password: p.Connect.Password, Client: client, From: c.info()}
	if l.User == "" && len(l.Password) == 0 && !c.certified(l.From) {
		if !c.by.Anonymous {
			return who, &fault{codeNotAuthorized, "anonymous clients are not permitted"}
		}
		return who, nil
	}
	if c.srv.authenticate == nil {
		if !c.by.Anonymous {
			return who, &fault{codeBadCredentials, ""}
		}
		return who, nil
	}
	who, err = c.srv.signIn(l, c.addr)
	if many, ok := errors.AsType[*TooManyLogins](err); ok {
		c.pause(many.pause)
		return who, &fault{codeBadCredentials, ""}
	}
	if err != nil {
		return who, connectFault(err)
	}
	return who, nil
}

// certified says whether the client's certificate is asked about.
func (c *conn) certified(from *ConnInfo) bool {
	return c.srv.certified != nil && from.Certificate() != nil && c.srv.certified(from.Listener)
}

// pause holds the client, which may not try again at once, unless the server
// closes.
func (c *conn) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.srv.ends:
	}
}

// connectFault translates why a client was not let in.
func connectFault(err error) error {
	var r *broker.Refusal
	switch {
	case errors.Is(err, broker.ErrBadCredentials):
		return &fault{codeBadCredentials, ""}
	case errors.As(err, &r) && errors.Is(err, broker.ErrQuota):
		return &fault{codeQuota, r.Reason}
	case errors.As(err, &r) && errors.Is(err, broker.ErrTopicName): // of the will
		return &fault{codeBadTopic, r.Reason}
	case errors.As(err, &r):
		return &fault{codeNotAuthorized, r.Reason}
	case errors.Is(err, broker.ErrRefused):
		return &fault{codeNotAuthorized, ""}
	case errors.Is(err, broker.ErrQuota):
		return &fault{codeQuota, whichBound(err)}
	case errors.Is(err, broker.ErrNoCommit):
		return &fault{codeUnavailable, whyNoQuorum}
	case errors.Is(err, ErrUnavailable):
		return &fault{codeUnavailable, ErrUnavailable.Error()}
	case errors.Is(err, broker.ErrAway):
		return &fault{codeUseAnother, err.Error()}
	case errors.Is(err, broker.ErrClosing):
		return &fault{codeUnavailable, "server shutting down"}
	case errors.Is(err, broker.ErrUnknown), errors.Is(err, broker.ErrStale), errors.Is(err, broker.ErrSessionEnded):
		return &fault{codeBusy, err.Error()}
	}
	return &fault{codeUnspecified, ""}
}

// connackOf is what a CONNACK says beside what the connection knows.
type connackOf struct {
	assigned, present bool
	dropped           uint64
	proof             []byte    // Authentication Data, of enhanced authentication
	until             time.Time // when the connection ends; zero for never
}

// accept queues the CONNACK and has the session start.
func (c *conn) accept(in *input, p *connectPacket, r *broker.ConnectRequest, s session, a connackOf) error {
	pk := c.connack(p, r, a)
	c.mu.Lock()
	c.session = s
	c.client, c.principal, c.expiry = r.Client, r.Principal, r.Expiry
	if c.ending { // taken over, or closed, since
		c.mu.Unlock()
		c.srv.dismissClient()
		return errEnded
	}
	c.accepted, c.connected = true, true
	if c.version == 5 {
		c.aliasMax = min(int(p.Properties.TopicAliasMaximum), c.limits.TopicAliases)
	}
	c.keepAlive = keepAliveTicks(p.Connect.Keepalive)
	if pk.Properties.ServerKeepAliveFlag {
		c.keepAlive = keepAliveTicks(pk.Properties.ServerKeepAlive)
	}
	now := c.srv.wheel.now.Load()
	c.seen.Store(now)
	c.srv.wheel.set(&c.timer, c.nextDeadline(now))
	c.dirty(&in.wave)
	c.put(pk)
	c.mu.Unlock()
	c.srv.lifetimes.add(c, a.until)
	c.srv.acceptClient()
	c.srv.stats.Connects[codeSuccess].Add(1)
	if c.keepAlive == 0 {
		c.tr.probe()
	}
	c.endIfOutlawed() // since it was let in
	c.debug("client connected", "principal", r.Principal, "version", c.version, "clean", r.Clean, "present", a.present)
	c.inBroker = true
	s.Start(&in.wave)
	c.inBroker = false
	return nil
}

// keepAliveTicks is one and a half times a keep alive of that many seconds.
func keepAliveTicks(seconds uint16) int64 {
	if seconds == 0 {
		return 0
	}
	return ticks(time.Duration(seconds) * time.Second * 3 / 2)
}

// connack makes the CONNACK that lets a client in: it says whatever is
// enforced and the client cannot know.
func (c *conn) connack(p *connectPacket, r *broker.ConnectRequest, a connackOf) *packets.Packet {
	l := c.limits
	pk := &packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connack},
		ProtocolVersion: p.ProtocolVersion,
		SessionPresent:  a.present && p.ProtocolVersion > 3, // of 3.1 the bit is reserved
	}
	if !p.v5() {
		return pk
	}
	o := &pk.Properties
	o.ReceiveMaximum = uint16(c.receiveMaximum())
	o.MaximumPacketSize = uint32(l.Packet)
	o.TopicAliasMaximum = uint16(l.TopicAliases)
	o.SharedSubAvailableFlag = !c.srv.shared() // and 0: what is available is not said
	if a.assigned {
		o.AssignedClientID = r.Client
	}
	if r.Expiry != p.Properties.SessionExpiryInterval {
		o.SessionExpiryInterval, o.SessionExpiryIntervalFlag = r.Expiry, true
	}
	if k := l.keepAlive(p.Connect.Keepalive); k != p.Connect.Keepalive {
		o.ServerKeepAlive, o.ServerKeepAliveFlag = k, true
	}
	o.AuthenticationMethod, o.AuthenticationData = c.method, a.proof
	if a.dropped > 0 {
		o.User = []packets.UserProperty{{Key: droppedProperty, Val: strconv.FormatUint(a.dropped, 10)}}
	}
	if c.srv.origin != "" && slices.ContainsFunc(p.Properties.User, func(u packets.UserProperty) bool { return u.Key == originProperty }) {
		o.User = append(o.User, packets.UserProperty{Key: originProperty, Val: c.srv.origin})
	}
	if o.User != nil && len(encodeRare(pk)) > c.maxPacket {
		o.User = nil
	}
	return pk
}

// refuseVersion answers a CONNECT of a protocol that we do not speak, in the
// form that a client of it is most likely to understand.
func (c *conn) refuseVersion(in *input, bad *badVersion) error {
	c.srv.stats.Connects[codeBadVersion].Add(1)
	if bad.silent {
		return errSilent
	}
	c.version = 4
	if bad.v5 {
		c.version = 5
	}
	c.putConnack(in, &fault{codeBadVersion, ""})
	return errEnded
}

// refuseConnect answers a CONNECT that is not accepted.
func (c *conn) refuseConnect(in *input, err error) error {
	f := err.(*fault)
	c.srv.stats.Connects[f.code].Add(1)
	c.debug("client refused", "err", f)
	if c.version < 5 {
		if _, ok := connackV3(f.code); !ok {
			return errSilent
		}
	}
	c.putConnack(in, f)
	return errEnded
}

// mostRefusal is how many bytes a CONNACK that refuses has at most: so much is said, once, to who
// has shown nothing but that they are at their address, which the connection has. The reason is cut.
const mostRefusal = 512

// putConnack queues a CONNACK that refuses, and begins the end.
func (c *conn) putConnack(in *input, f *fault) {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}
	pk.ReasonCode = legal(packets.Connack, f.code)
	if c.version < 5 {
		pk.ReasonCode, _ = connackV3(f.code)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	n := c.refer(pk, maxHeader+2)
	pk.Properties.ReasonString = c.reasonString(f.code, f.why, n)
	if most := max(mostRefusal-n-maxVarint-3, 0); len(pk.Properties.ReasonString) > most {
		pk.Properties.ReasonString = strings.ToValidUTF8(pk.Properties.ReasonString[:most], "")
	}
	c.dirty(&in.wave)
	c.put(pk) // unless it is too large, and then the end is all there is to say
	c.said = true
	c.beginEnd(endTold, f.code, "")
}
