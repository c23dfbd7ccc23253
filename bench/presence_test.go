package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/presence"
)

// fewPeople is a row with permissions for a test: the same with fewer users who
// change more often.
var fewPeople = Scenario{Publishers: 30, Watch: 10, Payload: 200, Retain: true, Permissions: true, Rate: 2000}

// fewer is a row with permissions as a test can afford it.
func fewer(sc Scenario) Scenario {
	sc.Publishers, sc.Watch = fewPeople.Publishers, fewPeople.Watch
	if sc.Rate > 0 {
		sc.Rate = fewPeople.Rate
	}
	return sc
}

// states is how many states a row's subscriptions begin with.
func states(sc Scenario) uint64 {
	if !sc.Permissions {
		return 0
	}
	return uint64((sc.Publishers - barredPeople) * sc.Watch)
}

// sourceOf is a source with one user's document.
func sourceOf(p person) *source {
	return &source{
		topic: p.topic, from: &conn{user: p.user},
		message: documentTemplate(v311, p.topic, 0, true, 200),
	}
}

// sent returns the payload of one of its messages.
func (src *source) sent(t *testing.T, s stamp) []byte {
	t.Helper()
	d := decode(t, src.message.append(nil, 0, s), v311)
	if len(d.Payload) != 200 {
		t.Fatalf("a document of %d bytes, want 200: %s", len(d.Payload), d.Payload)
	}
	return d.Payload
}

// What the real kind makes of a document, for whom the owner's policy lets see
// it, is recognized with its stamp; who is barred is shown nothing.
func TestDocumentSurvivesTheKind(t *testing.T) {
	all := people(fewPeople)
	owner, watcher, barred := all[3], all[4], all[len(all)-1]
	src := sourceOf(owner)
	k := presence.New([]byte("key"))
	of := kind.Resource{Kind: "presence", Addr: kind.Of(owner.user)}
	said, err := policy.Parse(ownersPolicy(all), k, of.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if w := said.Warnings(); len(w) > 0 {
		t.Errorf("the owner's policy has warnings: %v", w)
	}
	now := time.Date(2026, 3, 9, 13, 0, 0, 0, time.UTC)
	shown := func(who person, s stamp) []byte {
		c, err := k.Compose(now, of, []kind.Publication{{
			Source: "~bench-s3", Publisher: of.Addr, ETag: "1", Published: now, Doc: kind.Document{Body: src.sent(t, s)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		d := said.Evaluate(kind.Of(who.user), now, policy.Input{})
		if d.View != policy.ViewFiltered {
			c = k.Neutral(of)
		}
		return k.Encode(k.View(c, d.Grant)).Body
	}
	for seq := range uint64(3) {
		want := stamp{at: 1 << 40, seq: seq, source: 3}
		document := shown(watcher, want)
		got, at, ok := stampIn(document)
		if !ok || got != want || !src.shows(document, at) {
			t.Errorf("%s: stamp %+v (%t), want %+v", document, got, ok, want)
		}
		if document := shown(barred, want); !saysNothing(document) {
			t.Errorf("somebody barred sees %s", document)
		}
	}
}

// A document that is not what its source published is none of it, whether it is
// the first that comes or a later one.
func TestFalseDocumentIsFound(t *testing.T) {
	p := people(fewPeople)[3]
	composed := func(s stamp) string {
		sent := string(sourceOf(p).sent(t, s))
		return `{"entity":"pres:` + p.user + `",` + sent[1:len(sent)-1] + `,"tuples":[{"id":"tabc","basic":"open"}]}`
	}
	for name, wrong := range map[string]func(string) string{
		"another status": func(d string) string { return strings.Replace(d, `"basic":"open"`, `"basic":"closed"`, 1) },
		"another owner":  func(d string) string { return strings.Replace(d, "u003", "u004", 1) },
		"damaged note":   func(d string) string { return strings.Replace(d, "xyz", "xyy", 1) },
		"cut note":       func(d string) string { return strings.Replace(d, "xyz", "", 1) },
		"no JSON":        func(d string) string { return d[:len(d)-1] },
	} {
		st := stamp{at: 1, seq: 1, source: 3}
		good, bad := composed(st), wrong(composed(st))
		if good == bad {
			t.Fatalf("%s: nothing is wrong", name)
		}
		first, later := sourceOf(p), sourceOf(p)
		_, at, _ := stampIn([]byte(good))
		if !later.shows([]byte(good), at) {
			t.Fatalf("%s is not recognized", good)
		}
		if _, at, ok := stampIn([]byte(bad)); ok && (first.shows([]byte(bad), at) || later.shows([]byte(bad), at)) {
			t.Errorf("%s: %s is taken for what was published", name, bad)
		}
	}
	if _, _, ok := stampIn([]byte(strings.Replace(composed(stamp{}), noteMark+"0", noteMark+"g", 1))); ok {
		t.Error("a stamp that is none was read")
	}
	if _, _, ok := stampIn([]byte(documentHead + "0123")); ok {
		t.Error("a stamp was read past the document's end")
	}
}

// Users, as each broker's own file has them: the policy file lets in who has the
// token, and nobody else.
func TestPolicyFileSignsUsersIn(t *testing.T) {
	all := people(fewPeople)
	p, err := acl.Parse("policy.yaml", bellwireUsers(all), peopleDomain)
	if err != nil {
		t.Fatal(err)
	}
	gate := acl.NewGate(1, 1)
	for i, who := range all {
		if got, err := p.Authenticate(context.Background(), gate, who.user, []byte(who.token)); got != who.user || err != nil {
			t.Errorf("%s is taken for %q, %v", who.user, got, err)
		}
		other := all[(i+1)%len(all)].token
		if _, err := p.Authenticate(context.Background(), gate, who.user, []byte(other)); err == nil {
			t.Errorf("%s has signed in with the token %s", who.user, other)
		}
	}
}

// Who signs in says so in a form that another codec reads.
func TestConnectWithAUser(t *testing.T) {
	for _, version := range []byte{v311, v5} {
		c := decode(t, appendConnect(nil, &conn{version: version, name: "bench-s1", user: "u001@example.com", token: "secret"}), version)
		if p := c.Connect; string(p.Username) != "u001@example.com" || string(p.Password) != "secret" || !p.UsernameFlag || !p.PasswordFlag {
			t.Errorf("version %d: CONNECT %+v", version, p)
		}
	}
}

// present carries the row out with a broker.
func present(t *testing.T, broker *fake, version byte, policies bool) Figures {
	t.Helper()
	order := quick(newFake(t, broker), fewPeople, version)
	order.Policies = policies
	order.Drain = time.Second // a busy machine may stand still for a moment
	f, err := generate(order)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// At a row with permissions, too, what a broker does wrong is found and counted
// exactly; and above all that somebody sees what is not for him.
func TestBadPresenceIsFoundOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fake  *fake
		found func(Tally) uint64
		fault string
	}{
		{"drops", &fake{spoil: every(97, drop)}, func(t Tally) uint64 { return t.Undelivered }, "undelivered"},
		{"doubles", &fake{spoil: every(97, double)}, func(t Tally) uint64 { return t.Duplicates }, "duplicates"},
		{"damages", &fake{spoil: every(97, damage)}, func(t Tally) uint64 { return t.Corrupt }, "damaged payloads"},
		{"tells all", &fake{leaks: true}, func(t Tally) uint64 { return t.Strays }, "deliveries nobody asked for"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := Line{Scenario: fewPeople}
			l.Figures = present(t, tt.fake, v311, false)
			if got, want := tt.found(l.Figures.Tally), tt.fake.injected(); got != want || want == 0 {
				t.Errorf("found %d, want %d and more than 0; %+v", got, want, l.Figures.Tally)
			}
			if fault := l.fault(); fault != tt.fault {
				t.Errorf("fault %q, want %q", fault, tt.fault)
			}
		})
	}
}

// Subscriptions that are not told how things are have missed something.
func TestMissingStateIsFound(t *testing.T) {
	t.Parallel()
	f := present(t, &fake{forgets: true}, v311, false)
	if got, want := f.Tally.Undelivered, states(fewPeople); got != want || f.Tally.States != 0 || f.Tally.Delivered == 0 {
		t.Errorf("%d are missing, want %d; %+v", got, want, f.Tally)
	}
}

// Everybody says who may see what before anybody subscribes, if owners decide;
// else nothing but states are published.
func TestPoliciesComeFirst(t *testing.T) {
	t.Parallel()
	for _, policies := range []bool{false, true} {
		broker := &fake{}
		checkComplete(t, present(t, broker, v5, policies), fewPeople)
		want := 0
		if policies {
			want = fewPeople.Publishers
		}
		said := ownersPolicy(people(fewPeople))
		told := broker.told()
		if len(told) != want {
			t.Errorf("%d policies, want %d", len(told), want)
		}
		for _, p := range told {
			if !bytes.Equal(p, said) {
				t.Errorf("policy %s, want %s", p, said)
			}
		}
	}
}

// Users change in turn, each as often as all others: so none changes more often
// than is shown at once.
func TestPeopleChangeInTurn(t *testing.T) {
	t.Parallel()
	broker := &fake{}
	checkComplete(t, present(t, broker, v311, false), fewPeople)
	// They come over many connections, so not in the order in which they were due.
	load := slices.DeleteFunc(broker.heard(), func(s stamp) bool { return s.seq == 0 })
	slices.SortFunc(load, func(a, b stamp) int { return cmp.Compare(a.at, b.at) })
	if len(load) <= fewPeople.Publishers {
		t.Fatalf("%d messages: not every user has changed", len(load))
	}
	for i, s := range load {
		if want := (stamp{at: s.at, seq: uint64(1 + i/fewPeople.Publishers), source: uint32(i % fewPeople.Publishers)}); s != want {
			t.Fatalf("message %d is %+v, want %+v", i, s, want)
		}
	}
}

// A burst ends when everybody has sent his share and all has come, long before
// the time is up; and what is measured is all of it but the warm-up.
func TestBurstEnds(t *testing.T) {
	t.Parallel()
	sc := fewPeople
	sc.Rate, sc.Burst = 0, 4
	broker := &fake{}
	order := quick(newFake(t, broker), sc, v311)
	order.WarmUp, order.Measure, order.Stall, order.Drain = time.Minute, time.Minute, time.Minute, time.Second
	f, err := generate(order)
	if err != nil {
		t.Fatal(err)
	}
	checkComplete(t, f, sc)
	if f.Elapsed >= order.Measure {
		t.Errorf("it took %v, all the time there was", f.Elapsed)
	}
	each, n := uint64(sc.Burst), uint64(sc.Publishers)
	if f.Tally.Sent != n*(1+each) || f.Tally.Delivered != states(sc)*each || f.Deliveries != states(sc)*(each-1) {
		t.Errorf("sent %d, delivered %d, of these %d in the measured time", f.Tally.Sent, f.Tally.Delivered, f.Deliveries)
	}
	count := map[uint32]uint64{}
	for _, s := range broker.heard() {
		count[s.source]++
	}
	for source, got := range count {
		if got != 1+each {
			t.Errorf("source %d has sent %d, want %d", source, got, 1+each)
		}
	}
}

// A policy that is refused ends the run: what would follow means nothing.
func TestRefusedStateIsAnError(t *testing.T) {
	_, err := generate(quick(newFake(t, &fake{reason: 0x99}), fewPeople, v5))
	if err == nil || !strings.Contains(err.Error(), "reason 0x99") {
		t.Errorf("error %v", err)
	}
}

// A row with a rate of its own is measured at it, once for each run, and for as
// long as its few messages need.
func TestRowWithARate(t *testing.T) {
	c := &comparison{Options: Options{Measure: time.Second}}
	if got := c.measuring(Scenario{}); got != time.Second {
		t.Errorf("measured for %v, want 1s", got)
	}
	if got := c.measuring(Scenario{Least: 10 * time.Second}); got != 10*time.Second {
		t.Errorf("measured for %v, want 10s", got)
	}
	if got := (Load{Scenario: fewPeople}).withDefaults().Rate; got != fewPeople.Rate {
		t.Errorf("rate %v, want %v", got, fewPeople.Rate)
	}
	l := made("bellwire", 1, time.Microsecond)
	l.Rate, l.Figures.P50 = 200, 3*time.Millisecond
	var b strings.Builder
	summarize(&b, []Line{l})
	if !strings.Contains(b.String(), "p50-us           bellwire   3000") {
		t.Errorf("no latency in the summary:\n%s", b.String())
	}
}

// The fake's side of permissions.

// signIn reads who a CONNECT is of, and whether all make an exception of him.
func (c *fakeClient) signIn(body []byte) {
	pk := packets.Packet{ProtocolVersion: c.version}
	if err := pk.ConnectDecode(bytes.Clone(body)); err != nil {
		return
	}
	c.barred = slices.ContainsFunc(people(fewPeople), func(p person) bool {
		return p.barred && p.user == string(pk.Connect.Username)
	})
}

// state sends what there is of a topic.
func (c *fakeClient) state(topic string, payload []byte) {
	body := appendString(nil, topic)
	if c.version == v5 {
		body = append(body, 0)
	}
	c.Write(appendFrame(nil, typePublish|1, append(body, payload...)))
}

// nothing is what a topic shows to whom it is not for.
func nothing(topic string) []byte {
	return fmt.Appendf(nil, `{"entity":%q,"basic":"closed"}`, topic)
}
