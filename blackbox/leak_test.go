package blackbox

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	law "github.com/bellwire/bellwire/internal/letter"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A run of many clients against the built binary, with nothing but chance to say what
// comes next: events at every QoS, retained and not, presence, location, messages; windows
// that open and close; policies of the operator's and of owners, approvals, denials,
// revocations; clients that come, go, are cut off, take themselves over, come back to what
// waited; groups; reads of what is retained; topics that stand for others, subscriptions that clients are
// given; deaths of the server. Every packet that any client
// is sent is judged by the letter of the documents in force (internal/letter), and when all
// is quiet it is looked whether something is withheld that they permit.
//
// A packet counts at the instant at which the server sends it. So that this is an instant
// that is known, the server's clock stands while anything is under way, and is moved only
// when all is quiet: what was published is acknowledged, what is due has happened, and each
// client has had the answer to a PINGREQ with nothing before it, after everything that it
// had to acknowledge. What a client reads after the clock was moved was then sent after it
// was; nothing is in a kernel's buffer meanwhile.

// A run is of so many acts, each an event or something else that happens.
const leakActs = 10_000

// The few there are look at each other, ask and write to each other again and again.
const leakLimits = "v: 1\ndefault: {fetch.perResourceBurst: 1_000_000, watch.perDomainPerHour: 1_000_000, im.strangersPerHour: 1_000_000}\n"

// The run against one node, which is killed now and then.
func TestNoLeak(t *testing.T) {
	t.Parallel()
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		r := newLeak(t, seed)
		r.nodes = []*server{serve(t, "--test-clock", r.at.Format(time.RFC3339), "--allow-anonymous", "--policy", writeFile(t, "policy.yaml", string(r.text)), "--limits", limitsFile(t, leakLimits))}
		r.http = []string{r.nodes[0].ready.HTTP}
		r.run(leakActs)
	})
}

// The same on three nodes, among which clients go about. Their clocks are moved one after
// the other, so that what is sent meanwhile may be right by the one time or the other.
func TestClusterNoLeak(t *testing.T) {
	t.Parallel()
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		r := newLeak(t, seed)
		p := loopback()
		p.policy = string(r.text)
		c := p.start(t, "--test-clock", r.at.Format(time.RFC3339), "--limits", limitsFile(t, leakLimits))
		c.await("the level that has everything", func(all []member) bool {
			return allVote(all) && !slices.ContainsFunc(all, func(m member) bool { return m.Level < m.Supports })
		})
		r.nodes, r.http = c.nodes, c.http
		r.run(effort.Rounds(leakActs/4, leakActs))
	})
}

// The world of a run.
var (
	leakPeople = []string{"ana@example.com", "bob@example.com", "cat@example.com", "dan@example.com", "zoe@example.net"}
	leakTopics = []string{"w/a/x", "w/a/y", "w/b/x", "w/b/y", "w/ana/x", "w/bob/z", "m/1", "m/2", "m/kept", "d/example.net/t", "c/ana-durable/t", "other"}
	leakKinds  = []string{"presence", "location", "im"}
)

const leakOperator = "op@example.com"

// leakToken is what somebody signs in with. Ana is the operator whom a trio asks as.
func leakToken(who string) string {
	if who == leakPeople[0] {
		return "sesame"
	}
	return law.TokenOf(who)
}

// A moment is an instant and the operator's policy then: what decides about plain topics.
type moment struct {
	at     time.Time
	policy *law.Operator
	memo   map[string]bool
}

// A leak is one run.
type leak struct {
	t     *testing.T
	seed  uint64
	rnd   *law.Random
	nodes []*server
	http  []string

	at      time.Time
	moments []*moment
	text    []byte // of the operator's policy in force
	user    map[string]any

	clients   []*leakClient
	consoles  map[string]*leakClient // of owners, from which they decide and publish
	barriers  []*leakClient          // one at each node of several
	holdings  map[string]*holding    // by kind and owner
	events    map[string]*leakEvent  // by payload
	cleared   map[string]*leakEvent  // by topic: what was retained is no more
	retained  map[string]*leakEvent  // by topic
	pieces    map[string]*leakPiece  // by the word that stands for it
	contacts  map[[2]string]bool     // who has written to whom
	messages  []*leakEvent           // that may wait for a device
	delayed   []*leakEvent           // that wait for their time
	cuts      map[[2]string]leakCut  // by who watches, and the topic of whose owner has ended what shows it by wildcards
	fresh     []*leakEvent           // of the act that is going on
	serial    int                    // of acts
	words     int
	between   *moment // while the clocks of several nodes are moved: what was before
	story     []string
	acts      int
	delivered int
	sorts     map[string]int
	client    http.Client
}

func newLeak(t *testing.T, seed uint64) *leak {
	rng := rand.New(rand.NewPCG(seed, 77))
	// Near a change of clocks, or not.
	at := time.Date(2026, time.Month(3+7*rng.IntN(2)), 20+rng.IntN(10), rng.IntN(24), 0, 0, 0, time.UTC)
	r := &leak{
		t: t, seed: seed, at: at, rnd: &law.Random{Rand: rng, People: leakPeople, Names: true, Around: at},
		consoles: map[string]*leakClient{}, holdings: map[string]*holding{}, events: map[string]*leakEvent{}, cleared: map[string]*leakEvent{},
		retained: map[string]*leakEvent{}, pieces: map[string]*leakPiece{}, contacts: map[[2]string]bool{}, cuts: map[[2]string]leakCut{}, user: map[string]any{}, sorts: map[string]int{},
		client: http.Client{Timeout: 3 * patience},
	}
	for _, who := range append([]string{leakOperator}, leakPeople...) {
		r.user[who] = map[string]string{"token_sha256": hashOf(leakToken(who))}
	}
	for _, kind := range leakKinds {
		for _, owner := range leakPeople {
			r.holdings[kind+" "+owner] = &holding{kind: kind, owner: owner, topic: law.Address(kind, owner), policy: law.Nothing(kind, owner, "polite-block"), pubs: map[string]*leakPub{}}
		}
	}
	r.drawPolicy()
	return r
}

// drawPolicy makes up another policy of the operator's, which begins a moment.
func (r *leak) drawPolicy() {
	fixed := []any{map[string]any{"id": "barrier", "allow": []string{"publish", "subscribe"}, "who": []string{leakOperator}, "topic": []string{"barrier/#"}}}
	if !r.rnd.Chance(6) {
		fixed = append(fixed, map[string]any{"id": "speak", "allow": []string{"publish"}, "who": []string{"*@*"}, "topic": []string{"w/#", "m/#", "c/#", "d/#"}})
	}
	if r.rnd.Chance(2) {
		hear := map[string]any{"id": "hear", "allow": []string{"subscribe"}, "who": []string{"*@*"}, "topic": []string{"w/#", "m/#"}}
		if !r.rnd.Chance(4) {
			hear["when"] = r.rnd.When()
		}
		fixed = append(fixed, hear)
	}
	r.rnd.Around = r.at
	r.text = r.rnd.Operator(r.user, fixed, map[string][]string{"operators": {leakOperator, leakPeople[0]}})
	policy, err := law.ReadOperator(r.text)
	if err != nil {
		r.t.Fatal(err)
	}
	r.begin(policy)
}

func (r *leak) begin(policy *law.Operator) {
	r.moments = append(r.moments, &moment{at: r.at, policy: policy, memo: map[string]bool{}})
	if n := len(r.moments) - 100; n >= 0 {
		r.moments[n].memo = nil
	}
}

func (r *leak) now() *moment { return r.moments[len(r.moments)-1] }

// may says whether a client could be sent what is on a plain topic at a moment.
func (r *leak) may(m *moment, c *leakClient, topic string) bool {
	key := c.who + " " + c.id + " " + topic
	yes, known := m.memo[key]
	if !known {
		yes = m.policy.Allows(c.asks(), "subscribe", topic, m.at)
		if m.memo != nil {
			m.memo[key] = yes
		}
	}
	return yes
}

// cut says whether the operator forbids at the moment what owners permit.
func (r *leak) cut(who, id, action, topic string) bool {
	return r.now().policy.Cuts(law.Somebody{Principal: who, Client: id}, action, topic, r.at)
}

// tell adds a line to what a failure shows.
func (r *leak) tell(format string, args ...any) {
	if len(r.story) > 60 {
		r.story = slices.Delete(r.story, 0, 20)
	}
	r.story = append(r.story, fmt.Sprintf("%d %s: ", r.serial, r.at.Format("01-02 15:04:05"))+fmt.Sprintf(format, args...))
}

// fail ends the run.
func (r *leak) fail(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s\n\nat %s, step %d, before that\n  %s\n\nthe operator's policy\n%s", fmt.Sprintf(format, args...),
		r.at.Format(time.RFC3339), r.serial, strings.Join(r.story, "\n  "), r.text)
}

// run does so many acts, an event each, or something else that happens.
func (r *leak) run(acts int) {
	r.populate()
	for r.acts < acts {
		r.serial++
		r.fresh = nil
		a := r.pickAct()
		r.sorts[a.name]++
		r.acts++
		a.do()
		r.settle()
		r.complete()
	}
	for _, c := range r.clients {
		if c.conn != nil {
			c.conn.Close()
		}
	}
	r.t.Logf("seed %d: %d acts in %d steps, %d packets judged; %v", r.seed, r.acts, r.serial, r.delivered, r.sorts)
}

// settle returns when all is quiet.
func (r *leak) settle() {
	for quiet, first := 0, true; quiet < 2; first = false {
		r.setClocks()
		if quiet++; r.hear() {
			quiet = 0
		}
		if first {
			r.meetBarriers()
		}
	}
}

// meetBarriers returns when what clients sent before it has been ordered and applied on
// all nodes, also what is not acknowledged; and nodes have passed on to each other what
// they had for each other.
func (r *leak) meetBarriers() {
	r.t.Helper()
	for i, b := range r.barriers {
		if code := r.publishAndWait(b, mq.Publish{Topic: fmt.Sprint("barrier/log", i)}); code != 0 && code != 0x10 {
			r.fail("%s: %#02x", b.id, code)
		}
	}
	if len(r.nodes) == 1 {
		return
	}
	r.words++
	mark := fmt.Sprint(r.words)
	for i, b := range r.barriers {
		b.write(r, mq.Publish{Topic: fmt.Sprint("barrier/relay", i), Payload: []byte(mark)})
	}
	for _, b := range r.barriers {
		for i := range r.barriers {
			for topic := fmt.Sprint("barrier/relay", i); !slices.Contains(b.shown[topic], mark); {
				p, err := b.conn.Read(3 * patience)
				if err != nil {
					r.fail("%s waits for what node %d passes on: %v", b.id, i, err)
				}
				r.take(b, p)
			}
		}
	}
}

// hear has every client read what it was sent, and acknowledge it. It says whether there
// was anything.
func (r *leak) hear() (any bool) {
	all := r.connected()
	for _, c := range all {
		c.write(r, mq.Ping)
	}
	for _, c := range all {
		any = r.read(c) || any
	}
	for _, c := range all {
		for len(c.waits)+len(c.known) > 0 { // the log has it
			any = true
			p, err := c.conn.Read(3 * patience)
			if err != nil {
				r.fail("%s waits for %d acknowledgements and %d releases: %v", c.id, len(c.waits), len(c.known), err)
			}
			r.take(c, p)
		}
	}
	return any
}

func (r *leak) connected() (all []*leakClient) {
	for _, c := range r.clients {
		if c.conn != nil {
			all = append(all, c)
		}
	}
	return all
}

// setClocks tells the nodes what time it is, and returns when what is due then has happened. It
// tells them all at once: a node answers when the log has that time, of which the one that
// leads is the clock, and which one that is may change.
func (r *leak) setClocks() {
	r.t.Helper()
	body := fmt.Sprintf(`{"set":%q}`, r.at.Format(time.RFC3339Nano))
	failed := make(chan error, len(r.http))
	for _, address := range r.http {
		go func() {
			res, err := r.client.Post("http://"+address+"/v1/test/clock", "application/json", strings.NewReader(body))
			if err != nil {
				failed <- err
				return
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if res.StatusCode/100 != 2 {
				err = fmt.Errorf("%s %s", res.Status, text)
			}
			failed <- err
		}()
	}
	var errs []error
	for range r.http {
		errs = append(errs, <-failed)
	}
	if err := errors.Join(errs...); err != nil {
		r.fail("the clock: %v", err)
	}
}

// ask sends a request as somebody, and returns the answer.
func (r *leak) ask(who, method, path string, body []byte) (status int, answer string) {
	r.t.Helper()
	return r.askAt(r.rnd.IntN(len(r.nodes)), who, method, path, body)
}

// askAt is ask of one of the nodes.
func (r *leak) askAt(node int, who, method, path string, body []byte) (status int, answer string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.http[node]+path, strings.NewReader(string(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	req.SetBasicAuth(who, leakToken(who))
	res, err := r.client.Do(req)
	if err != nil {
		r.fail("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.fail("%s %s: %v", method, path, err)
	}
	return res.StatusCode, string(text)
}
