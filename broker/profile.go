package broker

import (
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/broker/store"
)

// A Profile gives meaning to the topics below one first level: it judges what
// is published there before it is ordered, and applies it after. It owns no
// state but its keys in the store, which it reaches through a ProfileTx; what
// else it remembers can be computed anew from those.
//
// A profile takes part in the replicated machine, so it is compiled in. Apply
// and its like must be deterministic: no clock but ProfileTx.Now, no random
// numbers, no order of a map. They must not block, and may panic no more than
// other commands: a panic rolls the publication back.
//
// What a profile can do beyond that it says by implementing the interfaces
// below.
type Profile interface {
	// Prefix is the first level of the profile's topics, without a slash.
	Prefix() string

	// Admit judges a publication on the node where it comes in, by that node's
	// clock. It may set the event's properties and payload, and, of what it
	// says is Transient, its topic to another of the profile's. An
	// error is what the publisher is told, and nothing is ordered. Safe for
	// concurrent use.
	Admit(p *Publication) error

	// Watch says whether who may subscribe to filter, whose first level is the
	// prefix; of a profile that is no Viewer, whether who may read a topic. An
	// error is what the subscriber is told. It depends on nothing else.
	Watch(who Who, filter string) error

	// Apply applies a publication that was admitted, on every node, in log
	// order. An error is what the publisher is told; it changes nothing.
	Apply(tx *ProfileTx, p *Publication) error
}

// A Publication is what a client published to a profile's topic, or to
// $me/policy/ and the profile's prefix.
type Publication struct {
	Event *event.Event
	From  Who

	// Connection is the publisher's. It is zero in Apply if that has ended: what
	// is published is its will.
	Connection

	// Answer is what Apply has the publisher told with its acknowledgement: User
	// Properties in wire form (event.AppendUserProperty). A client may not want
	// them, and is told nothing if it published at QoS 0.
	Answer []byte

	// Transient is set by Admit if the event is not to be ordered: it is
	// delivered at once, at QoS 0, to whoever may read its topic and is
	// connected now, and nobody keeps it. Not at QoS 2, whose second
	// half the log would not know.
	Transient bool

	// Reply is what Apply of a Controller answers, as JSON: it is published to the
	// Response Topic of the request, if that is the client's own ($me/rsp), with its
	// Correlation Data.
	Reply []byte

	node   *Broker // that admits it; nil for Apply
	prefix string  // of the profile that admits it
}

// Keys returns a profile's keys as this node has them now, for Admit only: what is
// judged by them is judged again, for good, when it is applied.
func (p *Publication) Keys(prefix string) Keys { return Keys{p.node.config.Store, prefix} }

// Resource returns a resource as this node has it now, for Admit of a Viewer
// only: what is judged by it is judged again, for good, when it is applied.
func (p *Publication) Resource(topicName string) Resource { return p.node.resource(topicName) }

// Secret is the cluster's secret as this node has it now, for Admit only: nil below
// LevelSecret. Apply has ProfileTx.Secret.
func (p *Publication) Secret() secret.Secret { return p.node.Secret() }

// Level is the feature level as this node has it now, for Admit only. Apply has
// ProfileTx.Level.
func (p *Publication) Level() Level { return p.node.Level() }

// A Connection is one connection of a client. Of two of one client the later
// has the greater epoch.
type Connection struct {
	Session uint64
	Epoch   uint64
}

// A Viewer is a profile of state: each of its resources is shown to each
// watcher as its owner wants, and again whenever that changes.
type Viewer interface {
	Profile

	// Owner returns the principal that a resource belongs to, empty if
	// topicName names none.
	Owner(topicName string) string

	// Load makes a Resource of what the store has: record is what the profile
	// keeps under the resource's topic as key, nil for nothing, and policy what its
	// owner set, nil for nothing. Safe for concurrent use.
	Load(topicName string, record, policy []byte) Resource
}

// A Consulter is a Viewer what whose resources show depends on more of the profile's keys
// than a record and a policy.
type Consulter interface {
	// LoadWith is Load with the profile's keys, as this node has them whenever they are
	// asked for: who is shown something else because of one is told so by
	// ProfileTx.Changed or ChangedFor.
	LoadWith(keys Keys, topicName string, record, policy []byte) Resource
}

// A Rulebook is a profile that has no topics: what principals set with it, as
// $me/policy/ and its prefix, is for other profiles to go by.
type Rulebook interface {
	Profile

	// Rulebook does nothing.
	Rulebook()
}

// A Personal is a Rulebook whose documents are of no kind: what principals set with it is
// $me/ and its prefix.
type Personal interface {
	Rulebook

	// Personal does nothing.
	Personal()
}

// A Pacer is a Viewer that has changes which follow each other closely shown
// less often.
type Pacer interface {
	// Pace returns how many changes of a resource in a row are each shown at
	// once, and how long it takes until one more is. A change that is not shown
	// at once is shown when its time has come, if it is still true then.
	Pace() (burst int, interval time.Duration)
}

// A Resource is the state of one resource and who may see what of it. It does
// not change; a new one takes its place. Safe for concurrent use.
type Resource interface {
	// Show returns what who is shown at the instant at.
	Show(who Who, at int64) Shown

	// Neutral returns what is shown to somebody whom the operator shows
	// nothing, whatever the owner says: it looks as if there were nothing.
	Neutral() Shown
}

// A KeyedViewer is a Viewer that shows what follows from the cluster's secret. What
// was loaded before there is one is loaded again then, and shown when it next changes.
type KeyedViewer interface {
	Viewer

	// LoadKeyed is Load with the secret; nil below LevelSecret.
	LoadKeyed(topicName string, record, policy []byte, of secret.Secret) Resource
}

// A Fetched is a Resource that is shown otherwise to who asks once than to who wants
// to be sent what becomes of it.
type Fetched interface {
	Resource

	// Fetch is Show for somebody who asks once.
	Fetch(who Who, at int64) Shown
}

// A Passing is a Resource that also has to show what happened on the way to its
// state: events, which whoever watches at that moment is shown before the state,
// at QoS 0, and which are kept for nobody.
type Passing interface {
	Resource

	// Passed returns what who is shown at the instant at of what happened by of,
	// which is what ProfileTx.Passed was called with; oldest first.
	Passed(of string, who Who, at int64) []Shown
}

// A Backlogged is a Passing that makes up for some of that for whom a window was closed.
type Backlogged interface {
	Passing

	// Backlog returns what who, who is shown something at the instant at and was shown
	// nothing before, is shown before that of what happened meanwhile; oldest first. It is
	// for who is connected, at QoS 0, and kept for nobody.
	Backlog(who Who, at int64) []Shown
}

// A Shown is a document for one watcher. Two are the same to see if their
// payloads are equal.
type Shown struct {
	// Visible says whether who subscribes to a wildcard gets it at all. Who
	// names the resource gets it in any case: that it is empty says nothing.
	Visible bool
	Nothing bool // it is what there is to see of a resource that has nothing to show

	// Absent says that there is no document for who, not even that there is nothing:
	// to who names the resource none is sent. Whoever saw it by a wildcard is sent this
	// one all the same, which then shows nothing. Refused: and that they are told so.
	Absent, Refused bool

	// Quiet says that it is not sent to who has not been sent anything of the
	// resource before.
	Quiet bool

	Payload []byte // never changes
	Props   []byte // as Event.Props

	// Mark, unless it is nil, tells it from others in place of what is to see: of two
	// with one mark the second is no news, and of two with different ones it is.
	Mark []byte

	// Every is how long it is at least, in nanoseconds, from one that a session is sent to
	// the next, as long as Grant, which tells apart by what it is shown, is the same; 0 for
	// no bound. What shows Nothing does not wait.
	Every int64
	Grant [16]byte

	// Until is the first later instant at which something else may be shown
	// by the passing of time alone; 0 for never.
	Until int64

	// Ruled is likewise when its owner's rules may show something else, or to
	// somebody else: no earlier than Until. It tells what a Pacer must not delay: 0
	// if Until is never because of that.
	Ruled int64
}

// A Waker is a profile that has things happen at their time.
type Waker interface {
	// Wake is called when the log's time has reached what WakeAt asked for,
	// once, with its id.
	Wake(tx *ProfileTx, id string)
}

// A Configurable is a profile with settings by which it applies publications.
// They are state: the same on every node.
type Configurable interface {
	// CheckSettings says what is wrong with settings. It depends on nothing else.
	CheckSettings(data []byte) error
}

// An Adjustable is a Configurable that shows resources by its settings: each node tells
// it which are in force there. Safe for concurrent use.
type Adjustable interface {
	Configurable

	// Adjust is called with those settings, nil while the log has none.
	Adjust(settings []byte)
}

// A SessionWatcher is a profile that wants to know of connections. Both are
// called on every node, in log order, with whose connection it is: a client id
// alone does not say, for where no session is kept it is anybody's again once
// its connection has ended.
type SessionWatcher interface {
	// Connected is called when a connection has begun. The one that the client
	// had before, if any, was the same principal's, and has ended with it,
	// without another word.
	Connected(tx *ProfileTx, who Who, c Connection)

	// Disconnected is called when a connection has ended and no other has taken
	// its place: by DISCONNECT 0x00, or lost.
	Disconnected(tx *ProfileTx, who Who, c Connection, lost bool)
}

// A Forgetter is a profile that keeps things of principals, such as what they
// published, or permit others.
type Forgetter interface {
	// Forget removes what is principal's own, whom the policy has not named for
	// ForgetAfter: whoever is given the name later must find nothing. It removes a bounded piece at a time; while it
	// returns false, it is called again with the next entry. In between others may
	// add to what is there. It is called on every node, in log order.
	Forget(tx *ProfileTx, principal string) (done bool)
}

// A ProfileTx is a profile's door to the state, within one command. It shows
// the writes of the commands before.
type ProfileTx struct {
	m      *Machine
	prefix string
}

// Of returns the door of the same command to another profile's keys and wakes, for
// profiles that are made to know of each other.
func (t *ProfileTx) Of(prefix string) *ProfileTx { return &ProfileTx{m: t.m, prefix: prefix} }

// Now is the log's time, unix nanoseconds.
func (t *ProfileTx) Now() int64 { return t.m.now }

// Level is the feature level that the command is applied at.
func (t *ProfileTx) Level() Level { return t.m.level }

// Position is the place of the command in the log, greater for each.
func (t *ProfileTx) Position() uint64 { return t.m.here() }

// Secret is the cluster's secret, of which a profile derives keys: the same on every
// node, for ever, and known to nobody else. It is nil below LevelSecret.
func (t *ProfileTx) Secret() secret.Secret { return t.m.secret }

// Tag returns a name that clients may be told, which no other call for this purpose
// has returned or will, in whatever command. From LevelSecret on it tells them nothing
// (see secret.Secret.Name); below, it is the command's Position in base 36, and that of
// all that falls due in one entry is the same.
func (t *ProfileTx) Tag(purpose string) string {
	if t.m.secret == nil {
		return strconv.FormatUint(t.Position(), 36)
	}
	t.m.tags++
	return t.m.secret.Name(purpose, t.Position(), t.m.tags)
}

// Settings are those of the profile that are in force, nil while the log has
// none. They must not be changed.
func (t *ProfileTx) Settings() []byte { return t.m.ofProfiles[t.prefix] }

// Get returns the value of a key, nil if there is none. It must not be changed.
func (t *ProfileTx) Get(key string) []byte { return t.m.read(t.prefix, key) }

// Set sets the value of a key; empty removes it.
func (t *ProfileTx) Set(key string, value []byte) {
	k := resourceKey(nil, t.prefix, key)
	if len(value) == 0 {
		t.m.tx.Delete(k)
		t.m.written[string(k)] = nil
		return
	}
	t.m.tx.Set(k, value)
	t.m.written[string(k)] = append([]byte{}, value...)
}

// Clear removes keys that begin with a prefix: all that this entry has set, and of
// those before it at most so many. done says that none is left.
func (t *ProfileTx) Clear(prefix string, most int) (done bool) {
	lower := resourceKey(nil, t.prefix, prefix)
	var keys []string
	t.m.store.Scan(lower, store.End(lower), func(key, _ []byte) bool {
		keys = append(keys, string(key))
		return len(keys) <= most
	})
	done = len(keys) <= most
	keys = keys[:min(len(keys), most)]
	for key, value := range t.m.written { // in any order: each is only removed
		if value != nil && strings.HasPrefix(key, string(lower)) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		t.m.tx.Delete([]byte(key))
		t.m.written[key] = nil
	}
	return done
}

// WakeAt has Waker.Wake called at that time. Asking twice for the same is
// asking once.
func (t *ProfileTx) WakeAt(at int64, id string) {
	t.m.setWakeName(at, wakeProfile, t.prefix+"\x00"+id)
}

// Cancel undoes WakeAt.
func (t *ProfileTx) Cancel(at int64, id string) {
	t.m.tx.Delete(wakeNameKey(t.m.key, at, wakeProfile, t.prefix+"\x00"+id))
}

// Changed says that a resource is not what it was: its watchers are shown it
// anew.
func (t *ProfileTx) Changed(topicName string) { t.m.changed(topicName, "") }

// Passed says that something happened on the way to what a resource is now; see
// Passing. What has Changed must be said besides, and after it.
func (t *ProfileTx) Passed(topicName, of string) {
	t.m.out.steps = append(t.m.out.steps, step{kind: stepPassed, topic: strings.Clone(topicName), of: strings.Clone(of)})
}

// PolicyOf returns what the owner of a resource set, nil for nothing.
func (t *ProfileTx) PolicyOf(owner string) []byte { return t.Get(policyPrefix + owner) }

// SetPolicy sets what PolicyOf returns; empty removes it. Whoever calls it says
// what has Changed by that.
func (t *ProfileTx) SetPolicy(owner string, document []byte) {
	t.Set(policyPrefix+owner, document)
	if _, ok := t.m.profiles[t.prefix].(Gatekeeper); ok {
		t.m.regrant()
	}
}

// Keys of a profile that are the broker's: what owners set, by owner.
const policyPrefix = "\x01policy\x00"

func resourceKey(buf []byte, prefix, key string) []byte {
	buf = append(append(store.Key(buf, store.Resources), prefix...), 0)
	return append(buf, key...)
}
