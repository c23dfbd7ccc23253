package broker

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What is told of clients that come and go, below $SYS/bellwire/clients/.
//
// A connection is opened and ended by the log, so both are told from there: by every node,
// to its own clients, in the order of the log, which is the same everywhere. Of a client
// that takes over it is told first that the old connection is over, and that a connection is
// over before its will is published. Each has its place: the log's entry, and its number
// among those of the entry.
//
//   - It is at QoS 0, to who subscribes at the time, and kept nowhere: who asks what there
//     is asks otherwise. A node that was given a copy of another's state, because it was too
//     far behind, tells nothing of what that had gone through.
//   - While nobody here subscribes the Machine does no more than count.
//   - Addresses have a topic of their own, which nobody is sent who does not administer the
//     client's domain or the cluster, whatever rules allow: see mayWatchClient.
//
// What only the connection knows (its address, its keep alive, why it ended) the commands
// carry from LevelClients on; what was opened below that has none of it.

// clientsTree begins the topics; domain, client id and what has happened follow.
const clientsTree = systemTree + "bellwire/clients/"

// noDomain stands for the domain of who has none: it is no host name.
const noDomain = "-"

// What is told of a client.
const (
	clientConnected    = "connected"
	clientDisconnected = "disconnected"
	clientAddress      = "address"
)

// An Overseer is an Authorizer that says who looks after whom. Of clients' coming and going
// its say bounds what rules allow.
type Overseer interface {
	// TellsClient says whether a principal is told that clients of a domain (noDomain
	// for those of nobody) come and go; or, with address, where from.
	TellsClient(principal, domain string, address bool) bool
}

// A clientChange is a connection that has begun or ended, as it is told.
type clientChange struct {
	Client    string `json:"client"`
	User      string `json:"user,omitempty"`
	Node      string `json:"node"`
	Protocol  uint8  `json:"protocol"` // level: 4 is also what 3.1 is here
	KeepAlive *int   `json:"keep_alive,omitempty"`
	Clean     *bool  `json:"clean_start,omitempty"`
	Present   *bool  `json:"session_present,omitempty"`
	Expiry    uint32 `json:"session_expiry"`
	Code      *uint8 `json:"reason_code,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Address   string `json:"address,omitempty"`
	Listener  string `json:"listener,omitempty"`
	At        string `json:"at"`
	Index     uint64 `json:"index"`
	Order     uint32 `json:"order"`

	connected bool
	from      *event.Origin // nil: not known
	why       uint8         // as event.Disconnect has it
	at        int64
}

// tellClient has it told that a connection of r has begun, or ended.
func (m *Machine) tellClient(r *record, c clientChange) {
	m.clientChanges++
	if !m.clientsWatched() {
		return
	}
	c.Client, c.User, c.Node, c.Protocol, c.Expiry = r.client, r.principal, r.node, r.version, r.expiry
	c.at, c.Index, c.Order = m.now, m.out.index, m.clientChanges
	m.out.steps = append(m.out.steps, step{kind: stepClient, client: &c})
}

// tellClient tells it to who subscribes here. In the delivery loop.
func (l *loop) tellClient(c *clientChange, now int64) {
	domain := domainOf(c.User)
	if domain == "" {
		domain = noDomain
	}
	base := clientsTree + domain + "/" + asLevel(c.Client) + "/"
	c.At = time.Unix(0, c.at).UTC().Format(time.RFC3339Nano)
	if !c.connected {
		c.setReason(l.b.config.ReasonName)
		l.tellClients(base+clientDisconnected, c, now)
		return
	}
	origin := c.from
	if origin != nil {
		keepAlive := int(origin.KeepAlive)
		c.KeepAlive = &keepAlive
	}
	l.tellClients(base+clientConnected, c, now)
	if origin != nil && origin.Address != "" {
		c.Address, c.Listener = origin.Address, origin.Listener
		l.tellClients(base+clientAddress, c, now)
	}
}

func (l *loop) tellClients(topicName string, c *clientChange, now int64) {
	if len(topicName) > topic.MaxBytes {
		return // an id of 20 KiB, where the operator lets clients have such: no packet could say it
	}
	a := l.b.local.LookupString(topicName)
	if len(a.hearers) == 0 {
		return
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // it has nothing that could not be
	}
	a.deliver(l.b, &event.Event{Topic: topicName, Payload: text, At: now}, now, &l.wave)
}

// why is why as commands may have it at the level in force.
func (b *Broker) why(why uint8) uint8 {
	if b.Level() < LevelClients {
		return event.ReasonUnknown
	}
	return why
}

// setReason words why the connection is over. A code of MQTT's is told as one.
func (c *clientChange) setReason(name func(code byte) string) {
	switch c.why {
	case event.ReasonUnknown:
	case event.ReasonNormal:
		c.setCode(0, name)
	case event.ReasonLost:
		c.Reason = "connection lost"
	case event.ReasonNodeLost:
		c.Reason = "node lost"
	default:
		c.setCode(c.why, name)
	}
}

func (c *clientChange) setCode(code uint8, name func(code byte) string) {
	if c.Code = &code; name != nil {
		c.Reason = name(code)
	}
}

// levelEscapes makes one level of a topic of whatever a client id is, and of two two.
var levelEscapes = strings.NewReplacer("%", "%25", "/", "%2F", "+", "%2B", "#", "%23")

func asLevel(client string) string {
	if !strings.ContainsAny(client, "%/+#") {
		return client
	}
	return levelEscapes.Replace(client)
}

// mayTellClients says whether filter may match what is told of clients.
func mayTellClients(filter string) bool {
	return isSystem(filter) && topic.Overlaps(filter, clientsTree+"#")
}

// mayWatchClient bounds what rules allow about a topic below clientsTree.
func mayWatchClient(p Authorizer, who Who, topicName string) bool {
	domain, rest, _ := strings.Cut(topicName[len(clientsTree):], "/")
	_, what, _ := strings.Cut(rest, "/")
	if in, ok := p.(*policy); ok {
		p = in.Authorizer
	}
	if o, ok := p.(Overseer); ok {
		return o.TellsClient(who.Principal, domain, what == clientAddress)
	}
	return what != clientAddress
}
