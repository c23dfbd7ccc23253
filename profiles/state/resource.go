package state

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
)

// A resource is what a node shows of an address. It never changes, but for what
// it has worked out already.
type resource struct {
	kind    kind.Kind
	of      kind.Resource
	record  []byte                  // as it is stored
	get     func(key string) []byte // of the profile\'s keys; nil: nobody is seen as somebody else
	entries func(key string) []byte // likewise, for who is in cuts
	cuts    map[broker.Who]string   // by whom it is watched as if its owner were away: see cutFrom
	set     bool                    // its owner has set a policy
	blocked *policy.Blocklist       // nil: nobody
	normal  policy.Handling         // of whom the owner has said nothing about
	policy  *policy.Policy          // nil if this version cannot read it: it shows nothing to anybody
	asked   *policy.Cache
	every   *atomic.Int64 // see Profile.NotifyEvery

	mu      sync.Mutex         // guards the following
	pubs    []kind.Publication // of record, once somebody may see something of it
	faces   map[string]*face   // by persona
	neutral rendered
	track   trackOf // the last one that was shown
}

type rendered struct{ payload, props []byte }

// viewsKept bounds the views of a face that are kept: an owner's rules can
// make as many classes of watchers as there are rules.
const viewsKept = 32

// Load reads a resource, whose owner has the kind's default policy if they have
// not set one.
func (p *Profile) Load(topicName string, record, document []byte) broker.Resource {
	return p.load(topicName, record, document, nil)
}

var _ broker.Consulter = (*Profile)(nil)

// LoadWith is Load for a resource some of whose watchers may be seen as somebody else.
func (p *Profile) LoadWith(keys broker.Keys, topicName string, record, document []byte) broker.Resource {
	res := p.load(topicName, record, document, keys.Get)
	if r, ok := res.(*resource); ok && life.ReadTally(keys.Get(life.TallyKey(topicName))).Veiled == 0 {
		r.get = nil
	}
	if r, ok := res.(*resource); ok {
		r.entries, r.cuts = keys.Get, cutFrom(keys, topicName)
	}
	return res
}

// load is Load; who is seen as whom, and who is blocked, is by what get returns of the
// profile's keys, nil for everybody as themselves, and nobody.
func (p *Profile) load(topicName string, record, document []byte, get func(key string) []byte) broker.Resource {
	t, err := kind.ParseTopic(topicName)
	if err != nil || t.Source != "" {
		return nothing{}
	}
	r := &resource{kind: p.kind, of: t.Resource, record: record, asked: p.policies, get: get, set: document != nil, normal: p.shownBy.Load().Default, every: &p.every}
	r.policy = p.policies.Read(t.Addr, p.documentOf(t.Addr, document))
	if get != nil {
		r.blocked = p.lists.Of(get, t.Addr)
	}
	r.neutral = r.render(p.kind.Neutral(t.Resource))
	return r
}

// nothing is what a topic is that names no resource.
type nothing struct{}

func (nothing) Show(broker.Who, int64) broker.Shown { return broker.Shown{} }
func (nothing) Neutral() broker.Shown               { return broker.Shown{} }

// Neutral is the kind's neutral document, which a wildcard does not show.
func (r *resource) Neutral() broker.Shown {
	return broker.Shown{Nothing: true, Payload: r.neutral.payload, Props: r.neutral.props}
}

// Show makes the view of one watcher. Who may see nothing costs no more than a
// policy: what is there is not even read for them, or the time it takes would
// tell them that, and how much, there is. Only where that depends on the owner's
// sphere must it be.
func (r *resource) Show(who broker.Who, at int64) broker.Shown {
	return r.show(who, policy.OpSubscribe, at)
}

// Fetch is Show for somebody who asks once.
func (r *resource) Fetch(who broker.Who, at int64) broker.Shown {
	return r.show(who, policy.OpFetch, at)
}

func (r *resource) show(who broker.Who, op policy.Op, at int64) broker.Shown {
	now := time.Unix(0, at).UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policy == nil {
		return r.shown(r.neutral, false, time.Time{}, time.Time{})
	}
	d, changes := r.decide(who, op, now)
	out := r.neutral
	if d.View == policy.ViewFiltered && !(op == policy.OpSubscribe && r.isCut(who)) {
		f := r.face(d.Grant.Persona(), now)
		out, changes = f.view(r, d.Grant), earlier(changes, f.composed.Expires)
	}
	s := r.shown(out, d.Handling >= policy.PoliteBlock, d.Until, changes)
	s.Absent, s.Refused = r.absent(&d)
	if s.Every = r.interval(&d); s.Every > 0 {
		s.Grant = [16]byte(d.Grant.Class())
	}
	s.Quiet = d.Silent && d.Handling == policy.Allow && s.Nothing
	if d.Closed && d.Outside == policy.Hold {
		s.Absent = true // what they have is left to expire
	}
	return s
}

// interval is how long it is at least from one notification of a watcher to the next; 0 if
// nobody says.
func (r *resource) interval(d *policy.Decision) int64 {
	if d.MaxRate > 0 {
		return int64(time.Minute) / int64(d.MaxRate)
	}
	return r.every.Load()
}

// absent says whether there is no document for a watcher, and whether they are told so.
func (r *resource) absent(d *policy.Decision) (is, told bool) {
	h, _ := lifeOf(r.policy, d, r.set, r.normal)
	return h < policy.PoliteBlock, h == policy.Block
}

// decide asks the policy, which is not nil, about who. changes is when what the
// owner's presence says may be another thing, if that has a part in it. Requires mu.
func (r *resource) decide(who broker.Who, op policy.Op, now time.Time) (d policy.Decision, changes time.Time) {
	watcher, in := watcherOf(r.get, r.of.Topic(), who)
	in.Op, in.Blocked = op, r.blocked.Of(watcher)
	changes = r.complete(&in, watcher, now)
	return r.asked.Evaluate(r.policy, watcher, now, in), changes
}

// complete adds to what a decision depends on what the owner's presence says of no
// persona, for a persona is somebody's to see, and not the truth. Requires mu.
func (r *resource) complete(in *policy.Input, watcher kind.Addr, now time.Time) (changes time.Time) {
	if !r.policy.AsksPresence(watcher, *in) {
		return time.Time{}
	}
	c := r.face("", now).composed
	if k, ok := r.kind.(sphered); ok {
		in.Sphere = k.Sphere(c)
	}
	if k, ok := r.kind.(kind.Zoned); ok {
		if minutes, known := k.Offset(c); known {
			in.Offset, in.Zoned = int16(minutes), true
		}
	}
	return c.Expires
}

// input is what a decision about who depends on, for who does not hold mu.
func (r *resource) input(who broker.Who, op policy.Op, now time.Time) policy.Input {
	r.mu.Lock()
	defer r.mu.Unlock()
	watcher, in := watcherOf(r.get, r.of.Topic(), who)
	in.Op, in.Blocked = op, r.blocked.Of(watcher)
	r.complete(&in, watcher, now)
	return in
}

// earlier returns the earlier of two instants, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (r *resource) shown(out rendered, visible bool, until, expires time.Time) broker.Shown {
	s := broker.Shown{Visible: visible, Nothing: same(out, r.neutral), Payload: out.payload, Props: out.props, Ruled: kind.Nanos(until)}
	for _, t := range []time.Time{until, expires} {
		if at := kind.Nanos(t); at != 0 && (s.Until == 0 || at < s.Until) {
			s.Until = at
		}
	}
	return s
}

// publications returns what was published. Requires mu.
func (r *resource) publications() []kind.Publication {
	if r.pubs == nil && r.record != nil {
		r.pubs = readRecord(r.record).publications()
	}
	return r.pubs
}

func same(a, b rendered) bool { return string(a.payload) == string(b.payload) }

func (r *resource) render(c *kind.Composed) rendered {
	doc := r.kind.Encode(c)
	return rendered{payload: doc.Body, props: event.AppendContentType(nil, doc.ContentType)}
}

// Passed shows what a source's publication told of the way, to who sees
// something of it. What looks the same as what went before it is shown once. Who is
// notified so often at most (interval) is shown none of it.
func (r *resource) Passed(source string, who broker.Who, at int64) []broker.Shown {
	t, ok := r.kind.(kind.Tracker)
	if !ok || r.policy == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d, _ := r.decide(who, policy.OpSubscribe, time.Unix(0, at).UTC())
	if d.View != policy.ViewFiltered || r.interval(&d) > 0 || r.isCut(who) || !slices.ContainsFunc(worn(r.publications(), d.Grant.Persona()), func(p kind.Publication) bool { return p.ETag == r.tagOf(source) }) {
		return nil
	}
	return r.way(t, source, d.Grant)
}

var _ broker.Backlogged = (*resource)(nil)

// Backlog shows what publications that still count told of the way, oldest first, to
// who was shown nothing when they were made because a window was closed, and has it made
// up for (backlog).
func (r *resource) Backlog(who broker.Who, at int64) (shown []broker.Shown) {
	t, ok := r.kind.(kind.Tracker)
	if !ok || r.policy == nil {
		return nil
	}
	now := time.Unix(0, at).UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	d, _ := r.decide(who, policy.OpSubscribe, now)
	if !d.Backlog || d.View != policy.ViewFiltered || r.interval(&d) > 0 || r.isCut(who) {
		return nil
	}
	pubs := slices.Clone(worn(r.publications(), d.Grant.Persona()))
	slices.SortStableFunc(pubs, func(a, b kind.Publication) int { return a.Published.Compare(b.Published) })
	for i := range pubs {
		p := &pubs[i]
		if !p.Live(now) {
			continue
		}
		if r.openedSince(who, p.Published, now) {
			shown = append(shown, r.way(t, r.sourceOf(p.ETag), d.Grant)...)
		}
	}
	return shown
}

// openedSince says whether what somebody is shown was closed at an instant, and has opened
// since then, once, and is open now. Requires mu.
func (r *resource) openedSince(who broker.Who, then, now time.Time) bool {
	watcher, in := watcherOf(r.get, r.of.Topic(), who)
	in.Blocked = r.blocked.Of(watcher)
	r.complete(&in, watcher, now)
	was := r.policy.Span(watcher, then, in)
	if !was.Closed || !was.Exact || was.Until.After(now) {
		return false
	}
	is := r.policy.Span(watcher, was.Until, in)
	return is.Shown && (is.Until.IsZero() || is.Until.After(now))
}

// sourceOf is the source whose publication has an entity tag. Requires mu.
func (r *resource) sourceOf(tag string) string {
	for i := range r.pubs {
		if r.pubs[i].ETag == tag {
			return r.pubs[i].Source
		}
	}
	return ""
}

// way shows what a source's publication told of the way, as a grant shows it. Requires mu.
func (r *resource) way(t kind.Tracker, source string, g kind.Grant) []broker.Shown {
	if r.track.of != source || r.track.views == nil {
		r.track = trackOf{of: source, events: r.readTrack(t, source), views: map[kind.Class][]rendered{}}
	}
	class := g.Class()
	views, known := r.track.views[class]
	if !known {
		for _, e := range r.track.events {
			v := r.render(r.kind.View(e, g))
			if n := len(views); string(v.payload) != string(r.neutral.payload) && (n == 0 || string(v.payload) != string(views[n-1].payload)) {
				views = append(views, v)
			}
		}
		r.track.views[class] = views
	}
	shown := make([]broker.Shown, len(views))
	for i, v := range views {
		shown[i] = broker.Shown{Visible: true, Payload: v.payload, Props: v.props}
	}
	return shown
}

// tagOf is the entity tag of a source's publication.
func (r *resource) tagOf(source string) string {
	for i := range r.pubs {
		if r.pubs[i].Source == source {
			return r.pubs[i].ETag
		}
	}
	return ""
}

// A trackOf is what a source's publication told of the way, and how each class of
// watchers sees it.
type trackOf struct {
	of     string
	events []*kind.Composed
	views  map[kind.Class][]rendered
}

func (r *resource) readTrack(t kind.Tracker, source string) []*kind.Composed {
	pubs := r.publications()
	for i := range pubs {
		if p := &pubs[i]; p.Source == source {
			events, err := t.Track(r.of, p)
			if err != nil {
				return nil // a publication that this version cannot read
			}
			return events
		}
	}
	return nil
}

// A sphered kind knows where in life an owner is.
type sphered interface {
	Sphere(c *kind.Composed) string
}
