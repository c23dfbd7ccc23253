package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/golden"
)

// An event of QoS 0 reaches who subscribes to it on another node, once, and only if
// the policy lets him have it there; nodes without subscribers of it are sent
// nothing, also none that have unsubscribed; and a publisher who wants none of his
// own gets none back.
func TestRelay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		for _, m := range n {
			m.policies["night"] = parseRules("allow * #\ndeny shut secret/# subscribe")
		}
		n[0].policy("night")
		sub, _ := n[1].connect("sub", true, 0)
		sub.subscribe("t/+", 0)
		sub.subscribe("t/1", 1)
		durable, _ := n[1].connect("durable", true, 3600)
		durable.subscribe("t/#", 1)
		shut, _ := n[1].connect("shut", true, 0)
		shut.subscribe("#", 0)
		gone, _ := n[2].connect("gone", true, 0)
		gone.subscribe("t/1", 0)
		if _, err := gone.s.Unsubscribe([]string{"t/1"}); err != nil {
			t.Fatal(err)
		}
		pub, _ := n[0].connect("pub", true, 0)
		pub.subscribe("t/#", 0, func(s *event.Subscription) { s.NoLocal = true })
		l.settle()
		for i, name := range []string{"t/1", "secret/1", "t/2"} {
			if err := pub.publish(name, fmt.Sprint(i), 0); err != nil {
				t.Fatal(err)
			}
		}
		l.settle()
		sub.want("t/1=0 q0", "t/2=2 q0")
		durable.want("t/1=0 q0", "t/2=2 q0")
		shut.want("t/1=0 q0", "t/2=2 q0")
		pub.want()
		gone.want()
		at := func(m *member) [3]uint64 {
			s := m.Stats()
			return [3]uint64{s.RelaySent.Load(), s.RelayReceived.Load(), s.RelayUnwanted.Load()}
		}
		for i, want := range [][3]uint64{{3, 0, 0}, {0, 3, 0}, {0, 0, 0}} {
			if got := at(n[i]); got != want {
				t.Errorf("%s has sent, received, received in vain %v, want %v", n[i].name, got, want)
			}
		}
		if got := n[1].Stats().Withheld.Load(); got != 1 {
			t.Errorf("%d withheld where the subscriber is, want 1", got)
		}
	})
}

// What a profile does not have ordered goes to other nodes too, and each asks the
// profile there who may have it.
func TestTransientIsRelayed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3, post{})
		ann, _ := n[1].connect("ann", true, 3600)
		ann.subscribe("post/ann/#", 1)
		eve, _ := n[1].connect("eve", true, 0)
		eve.subscribe("post/#", 0)
		friend, _ := n[2].connect("friend", true, 0)
		friend.subscribe("post/+/now", 0)
		must(t, ann.publish(ownPolicy+"post", "friend", 1))
		l.settle()
		bob, _ := n[0].connect("bob", true, 0)
		must(t, bob.publish("post/ann/now", "typing", 0))
		must(t, bob.publish("post/ann/now", "still", 1))
		l.settle()
		want := []string{"post/ann/now=typing q0", "post/ann/now=still q0"}
		ann.want(want...)
		friend.want(want...)
		eve.want()
		must(t, ann.publish(ownPolicy+"post", "nobody", 1))
		l.settle()
		must(t, bob.publish("post/ann/now", "to ann", 0))
		ann.await(3)
		l.settle()
		friend.want(want...)
	})
}

// What is published after a SUBACK reaches the subscriber, on whatever node: the
// SUBACK waits for the others to have heard, and for one that does not answer
// hearWithin and no longer.
func TestSubackWaitsForPeers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		l.set(func() { l.latency = 40 * time.Millisecond })
		elapse(time.Second)
		pub, _ := n[0].connect("pub", true, 0)
		for i := range 20 {
			sub, _ := n[1+i%2].connect(fmt.Sprint("sub", i), true, uint32(i%3)*3600)
			began := time.Now()
			name := fmt.Sprint("t/", i)
			sub.subscribe(name, uint8(i%2))
			if err := pub.publish(name, "x", 0); err != nil {
				t.Fatal(err)
			}
			if got := sub.await(1); got[0] != name+"=x q0" {
				t.Errorf("got %q", got)
			}
			if took := time.Since(began); took > 200*time.Millisecond {
				t.Errorf("SUBACK and the first event took %v, want some latencies of 40 ms", took)
			}
		}
		l.set(func() { l.latency = time.Hour }) // it is up, and stands still
		sub, _ := n[1].connect("sub", true, 0)
		began := time.Now()
		sub.subscribe("slow", 0)
		if took := time.Since(began); took != hearWithin {
			t.Errorf("SUBACK after %v, want %v", took, hearWithin)
		}
		if got := n[1].Stats().Unheard.Load(); got != 1 {
			t.Errorf("%d SUBACKs counted as unheard, want 1", got)
		}
		sub.subscribe("slow", 1) // nobody need be told
		l.set(func() { l.latency = 0 })
	})
}

// An event of QoS 0 does not overtake what its publisher sent before at QoS 1, at a
// node that is behind with the log, and those of one publisher and QoS keep their
// order. (One of QoS 1 may overtake those of QoS 0 that wait in a link meanwhile.)
func TestRelayWaitsForTheLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 2)
		sub, _ := n[1].connect("sub", true, 3600)
		sub.subscribe("t", 1)
		pub, _ := n[0].connect("pub", true, 0)
		l.settle()
		const events = 60
		for i := range events {
			if i%10 == 0 {
				l.set(func() { n[1].lags = i%20 == 0 })
			}
			if err := pub.publish("t", fmt.Sprint(i), uint8(i*i%3%2)); err != nil {
				t.Fatal(err)
			}
		}
		l.set(func() { n[1].lags = false })
		all := sub.awaitGot(events)
		last := map[uint8]int{0: -1, 1: -1} // by QoS
		for _, g := range all {
			i, err := strconv.Atoi(g.payload)
			if err != nil {
				t.Fatal(err)
			}
			if i <= last[g.qos] || g.qos == 0 && i > last[1]+1 {
				t.Errorf("%d came at QoS %d after %d at QoS 0 and %d at QoS 1, of\n %s",
					i, g.qos, last[0], last[1], strings.Join(words(all), "\n "))
			}
			last[g.qos] = i
		}
		l.settle()
		if got := len(sub.awaitGot(0)); got != events {
			t.Errorf("%d events came, want %d", got, events)
		}
		if got := n[1].relays.waiting.Load(); got != 0 {
			t.Errorf("%d frames still wait", got)
		}
	})
}

// While the log is behind, what is relayed waits in bounded memory; what finds no
// room is lost and counted, and what waited is delivered.
func TestRelayedWaitIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 2)
		sub, _ := n[1].connect("sub", true, 0)
		sub.subscribe("t", 0)
		pub, _ := n[0].connect("pub", true, 0)
		l.settle()
		l.set(func() { n[1].lags = true })
		if err := pub.publish("other", "", 1); err != nil {
			t.Fatal(err)
		}
		const each, events = 100 << 10, 100
		for range events {
			if err := pub.publish("t", strings.Repeat("x", each), 0); err != nil {
				t.Fatal(err)
			}
			elapse(time.Millisecond)
		}
		p := n[1].relays.peer("n1")
		p.inMu.Lock()
		waiting := p.bytes
		p.inMu.Unlock()
		if waiting > relayWaiting || waiting < relayWaiting-2*each {
			t.Errorf("%d bytes wait, want as much as %d allow", waiting, relayWaiting)
		}
		l.set(func() { n[1].lags = false })
		l.settle()
		dropped := int(n[1].Stats().RelayDropped.Load())
		if got := len(sub.awaitGot(0)); got+dropped != events || dropped == 0 {
			t.Errorf("%d delivered and %d counted as lost of %d", got, dropped, events)
		}
	})
}

// Interest is what it is after links have broken and come back, and messages were
// lost: whoever subscribes gets what is published elsewhere, and what nobody wants
// any more is not sent.
func TestInterestIsResynchronised(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 3, 3)
		subs := map[string]*client{}
		for i := range 30 {
			name := fmt.Sprint("t/", i)
			subs[name], _ = n[i%3].connect(fmt.Sprint("sub", i), true, 0)
			subs[name].subscribe(name, 0)
			switch i % 10 {
			case 3:
				l.linked(n[i/10], false) // and the node does not know
			case 6:
				l.linked(n[i/10], true)
			case 8:
				for name, s := range subs {
					if len(name)%2 == 0 && s.ended == nil {
						s.s.Close(false, false, 0)
						delete(subs, name)
					}
				}
			}
		}
		l.settle()
		for _, m := range n {
			pub, _ := m.connect("pub "+m.name, true, 0)
			before := m.Stats().RelaySent.Load()
			for i := range 30 {
				if err := pub.publish(fmt.Sprint("t/", i), m.name, 0); err != nil {
					t.Fatal(err)
				}
			}
			elsewhere := 0
			for _, s := range subs {
				if s.n != m.node {
					elsewhere++
				}
			}
			if got := m.Stats().RelaySent.Load() - before; got != uint64(elsewhere) {
				t.Errorf("%s has relayed %d events, want one for each of %d subscribers elsewhere", m.name, got, elsewhere)
			}
		}
		l.settle()
		for name, s := range subs {
			if got := s.await(3); len(got) != 3 {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}

// A node alone keeps no account of its interest; the first peer is told all of it,
// and then what changes.
func TestFirstPeerIsToldAll(t *testing.T) {
	n := bareNode(t, Limits{})
	n.log = newSoloLog(n.Machine(), n.clock.now, &n.entries)
	far := &farAway{soloLog: n.log, sent: make(chan []byte, 100)}
	must(t, n.Start(t.Context(), far))
	t.Cleanup(func() { n.stop(true) })
	n.policy("all")
	one, _ := n.connect("one", true, 0)
	one.subscribe("a", 0)
	two, _ := n.connect("two", true, 3600)
	two.subscribe("a", 1)
	two.subscribe("b/#", 1)
	if len(n.relays.interest.filters) != 0 {
		t.Error("a node alone keeps its interest")
	}
	n.PeerUp("n2")
	told := map[string]byte{}
	hear := func() {
		t.Helper()
		for message := range far.sent {
			if message[1] != peerClaim {
				continue
			}
			m, err := readClaim(message[2:])
			if err != nil {
				t.Fatal(err)
			}
			for f, wanted, ok := m.next(); ok; f, wanted, ok = m.next() {
				told[f] = wanted
			}
			if n.Receive("n2", appendHeard(nil, m.stream, m.to)); len(told) > 0 {
				return
			}
		}
	}
	hear()
	if want := map[string]byte{"a": 1, "b/#": 1}; !maps.Equal(told, want) {
		t.Errorf("the first peer was told %v, want %v", told, want)
	}
	clear(told)
	one.s.Close(false, false, 0)
	if _, err := two.s.Unsubscribe([]string{"b/#"}); err != nil {
		t.Fatal(err)
	}
	hear()
	if want := map[string]byte{"b/#": 0}; !maps.Equal(told, want) {
		t.Errorf("then it was told %v, want %v: the other still has a", told, want)
	}
}

// A node with more filters than may be told wants everything, also on topics that
// no wildcard reaches, until it has half as many.
func TestTooManyFiltersWantEverything(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 2)
		for _, m := range n {
			m.policies["more"] = parseRules("allow * #\nallow * $other")
		}
		n[0].policy("more")
		n[1].relays.mu.Lock()
		n[1].relays.interest.most = 8
		n[1].relays.mu.Unlock()
		sub, _ := n[1].connect("sub", true, 0)
		pub, _ := n[0].connect("pub", true, 0)
		relayed := func(name string) bool {
			t.Helper()
			before := n[0].Stats().RelaySent.Load()
			if err := pub.publish(name, "x", 0); err != nil {
				t.Fatal(err)
			}
			return n[0].Stats().RelaySent.Load() > before
		}
		for i := range 12 {
			sub.subscribe(fmt.Sprint("t/", i), 0)
			l.settle()
			if got, want := relayed("$other"), i >= 8; got != want {
				t.Errorf("with %d filters what nobody wants is relayed: %v, want %v", i+1, got, want)
			}
			if !relayed(fmt.Sprint("t/", i)) {
				t.Errorf("with %d filters what is wanted is not relayed", i+1)
			}
		}
		sub.want("t/0=x q0", "t/1=x q0", "t/2=x q0", "t/3=x q0", "t/4=x q0", "t/5=x q0", "t/6=x q0", "t/7=x q0", "t/8=x q0", "t/9=x q0", "t/10=x q0", "t/11=x q0")
		for i := range 8 {
			if _, err := sub.s.Unsubscribe([]string{fmt.Sprint("t/", i)}); err != nil {
				t.Fatal(err)
			}
		}
		l.settle()
		if relayed("$other") || relayed("t/0") || !relayed("t/11") {
			t.Error("with 4 filters of 8 others are relayed, or these are not")
		}
	})
}

// A peer that has just said that it wants everything, and whose filters are still
// in the index, is relayed an event once.
func TestPeerIsNamedOnce(t *testing.T) {
	n := newNode(t, Limits{})
	n.PeerUp("n2")
	n.Receive("n2", claims(1, 0, 1, claimReset, map[string]byte{"t/+": 1, "t/#": 1, "t/1": 1})[0])
	n.relays.peer("n2").wantAll(true)
	for name, want := range map[string]int{"t/1": 1, "other": 1} {
		if got := len(n.local.LookupString(name).peers); got != want {
			t.Errorf("%s goes to %d peers, want %d", name, got, want)
		}
	}
}

// An event that goes to other nodes costs its publisher no memory.
func TestRelayAllocatesNothing(t *testing.T) {
	n := bareNode(t, Limits{})
	n.log = newSoloLog(n.Machine(), n.clock.now, &n.entries)
	far := &farAway{soloLog: n.log}
	must(t, n.Start(t.Context(), far))
	t.Cleanup(func() { n.stop(true) })
	n.policy("all")
	for _, node := range []string{"n2", "n3"} {
		n.PeerUp(node)
		for _, m := range claims(1, 0, 1, claimReset, map[string]byte{"some/+": 1}) {
			n.Receive(node, m)
		}
	}
	pub := n.connectNowhere("pub", 0, &nowhere{})
	start(pub)
	e := &event.Event{Topic: "some/topic", Payload: make([]byte, 64)}
	var w Wave
	allocs := testing.AllocsPerRun(200, func() {
		for range 10 {
			if _, err := pub.Publish(e, 0, nil, 0, &w); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
	})
	if allocs != 0 {
		t.Errorf("%v allocations for ten events to two nodes", allocs)
	}
	if got := n.Stats().RelaySent.Load(); got < 4000 {
		t.Errorf("%d relayed, want thousands", got)
	}
}

// An event of 64 bytes to two other nodes, as its publisher pays it, and as one of
// them does that has a subscriber of it; 50 events to a frame.
func BenchmarkRelay(b *testing.B) {
	const together = 50
	n := bareNode(b, Limits{})
	n.log = newSoloLog(n.Machine(), n.clock.now, &n.entries)
	must(b, n.Start(b.Context(), &farAway{soloLog: n.log}))
	b.Cleanup(func() { n.stop(true) })
	n.policy("all")
	sub := n.connectNowhere("sub", 0, &nowhere{})
	start(sub)
	sub.Subscribe([]event.Subscription{{Filter: "here/+"}}, func([]SubResult, *Wave) {})
	for _, node := range []string{"n2", "n3"} {
		n.PeerUp(node)
		n.Receive(node, claims(1, 0, 1, claimReset, map[string]byte{"there/+": 1})[0])
	}
	pub := n.connectNowhere("pub", 0, &nowhere{})
	start(pub)
	b.Run("send", func(b *testing.B) {
		e := &event.Event{Topic: "there/topic", Payload: make([]byte, 64)}
		var w Wave
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := pub.Publish(e, 0, nil, 0, &w); err != nil {
				b.Fatal(err)
			}
			if i%together == 0 {
				w.Flush()
			}
		}
	})
	b.Run("receive", func(b *testing.B) {
		message := make([]byte, 10)
		message[0], message[1] = peerVersion, peerEvents
		for range together {
			message = appendRelayed(message, "", &event.Event{Topic: "here/topic", Payload: make([]byte, 64), Origin: 7})
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%together == 0 {
				n.Receive("n2", message)
			}
		}
	})
}

// A farAway has peers that take everything, and shows it if somebody looks.
type farAway struct {
	*soloLog
	sent chan []byte
}

func (f *farAway) Send(_ string, message []byte) bool {
	if f.sent != nil {
		f.sent <- slices.Clone(message)
	}
	return true
}

func atQoS(e *event.Event, qos uint8) *event.Event {
	other := *e
	other.QoS = qos
	return &other
}

// What nodes say to each other reads as it was meant, and is said so still; cut
// short anywhere it is refused, or says less of a list.
func TestFormsBetweenNodes(t *testing.T) {
	e := &event.Event{Topic: "plant/1", Payload: []byte("21.5"), Props: []byte{1, 1}, At: 1_772_000_000_123_456_789, Expires: 1_772_000_060_000_000_000, Origin: 300}
	events := appendRelayed(binary.BigEndian.AppendUint64([]byte{peerVersion, peerEvents}, 1<<40), "", e)
	written := []golden.Form{
		{Name: "claim/all/1", Bytes: claims(1<<63+5, 0, 300, claimReset|claimAll, nil)[0]},
		{Name: "claim/reset/1", Bytes: claims(1<<63+5, 0, 300, claimReset, map[string]byte{"plant/+/#": 1})[0]},
		{Name: "claim/change/1", Bytes: claims(7, 300, 301, 0, map[string]byte{"plant/1": 0})[0]},
		{Name: "claim/shared/1", Bytes: claims(7, 301, 302, 0, map[string]byte{"$share/g/plant/1": 3})[0]},
		{Name: "heard/1", Bytes: appendHeard(nil, 1<<63+5, 300)},
		{Name: "ask/1", Bytes: appendAsk(nil)},
		{Name: "events/1", Bytes: events},
		{Name: "events/memory/4", Bytes: appendRelayed(binary.BigEndian.AppendUint64([]byte{peerVersion, peerEvents}, 1<<40), "", atQoS(e, 2))},
		{Name: "events/shared/1", Bytes: appendRelayed(binary.BigEndian.AppendUint64([]byte{peerVersion, peerEvents}, 1<<40), "$share/g/plant/+", e)},
	}
	stored := golden.Forms(t, "peers.txt", written)
	m, err := readClaim(stored["claim/change/1"][2:])
	if err != nil || m.stream != 7 || m.from != 300 || m.to != 301 || m.flags != 0 {
		t.Errorf("a claim reads as %+v, %v", m, err)
	} else if f, wanted, ok := m.next(); f != "plant/1" || wanted != 0 || !ok {
		t.Errorf("its filter reads as %q, %v, %v", f, wanted, ok)
	}
	if s, v, err := readHeard(stored["heard/1"][2:]); s != 1<<63+5 || v != 300 || err != nil {
		t.Errorf("heard reads as %d, %d, %v", s, v, err)
	}
	m, err = readClaim(stored["claim/shared/1"][2:])
	if err != nil {
		t.Fatal(err)
	}
	if f, many, ok := m.next(); f != "$share/g/plant/1" || many != 3 || !ok {
		t.Errorf("a shared filter reads as %q, %v, %v", f, many, ok)
	}
	var got event.Event
	if rest, filter, ok := cutRelayed(stored["events/shared/1"][10:], &got); !ok || len(rest) != 0 || filter != "$share/g/plant/+" || fmt.Sprint(got) != fmt.Sprint(*e) {
		t.Errorf("an event for a group reads as %+v, %q, want %+v", got, filter, *e)
	}
	if rest, _, ok := cutRelayed(stored["events/1"][10:], &got); !ok || len(rest) != 0 || fmt.Sprint(got) != fmt.Sprint(*e) {
		t.Errorf("an event reads as %+v, want %+v", got, *e)
	}
}

// Of many filters none is lost between the messages that say them.
func TestClaimsAreDivided(t *testing.T) {
	want := map[string]byte{}
	for i := range 5000 {
		want[fmt.Sprint(strings.Repeat("level/", i%20), i)] = byte(min(i%3, 1))
	}
	messages := claims(1, 5, 9, 0, want)
	got := map[string]byte{}
	for i, b := range messages {
		if len(b) > 2*claimBytes {
			t.Errorf("a message of %d bytes", len(b))
		}
		m, err := readClaim(b[2:])
		if err != nil || m.from != 5 || m.to != 9 || (m.flags&claimMore != 0) != (i < len(messages)-1) {
			t.Fatalf("message %d of %d: %+v, %v", i, len(messages), m, err)
		}
		for f, wanted, ok := m.next(); ok; f, wanted, ok = m.next() {
			got[f] = wanted
		}
	}
	if !maps.Equal(got, want) || len(messages) < 5 {
		t.Errorf("%d filters in %d messages, want %d", len(got), len(messages), len(want))
	}
}

// What a node must not say changes nothing, and is counted: an event that should
// have taken the log, names and filters that are none, lengths that lie, kinds and
// versions of later programs.
func TestHostilePeer(t *testing.T) {
	n := newNode(t, Limits{})
	sub, _ := n.connect("sub", true, 0)
	sub.subscribe("#", 0)
	relayed := func(e event.Event) []byte {
		return appendRelayed(binary.BigEndian.AppendUint64([]byte{peerVersion, peerEvents}, 0), "", &e)
	}
	good := relayed(event.Event{Topic: "good", Payload: []byte("1")})
	n.Receive("n2", good)
	sub.await(1)
	hostile := map[string][]byte{
		"empty":            {},
		"no kind":          {1},
		"a later version":  {2, 1},
		"a later kind":     {1, 9},
		"ask with more":    {1, peerAsk, 0},
		"heard cut":        {1, peerHeard, 0, 0},
		"claim cut":        {1, peerClaim, 0, 0},
		"events cut":       {1, peerEvents, 0, 0},
		"QoS 1 for one":    appendRelayed(binary.BigEndian.AppendUint64([]byte{peerVersion, peerEvents}, 0), "$share/g/bad", &event.Event{Topic: "bad", QoS: 1}),
		"retained":         relayed(event.Event{Topic: "bad", Retain: true}),
		"wildcard":         relayed(event.Event{Topic: "bad/#"}),
		"no topic":         relayed(event.Event{}),
		"length":           append(good[:10:10], 0xff, 0xff, 0xff, 0xff, 1),
		"backwards":        claims(1, 9, 5, 0, nil)[0],
		"reset from later": claims(1, 9, 10, claimReset, nil)[0],
		"all, and more":    claims(1, 0, 10, claimReset|claimAll, map[string]byte{"t": 1})[0],
		"flags":            claims(1, 0, 10, 1<<7, nil)[0],
		"no filter":        claims(1, 0, 10, claimReset, map[string]byte{"a#": 1})[0],
		"shared by nobody": claims(1, 0, 10, claimReset, map[string]byte{"": 1})[0],
	}
	for _, name := range slices.Sorted(maps.Keys(hostile)) {
		before := n.Stats().RelayRefused.Load()
		n.Receive("n2", hostile[name])
		if n.Stats().RelayRefused.Load() == before {
			t.Errorf("%s: not refused", name)
		}
	}
	n.Receive("n1", good)                       // ourselves
	n.Receive("n2", claims(1, 3, 4, 0, nil)[0]) // of what it never began
	n.Receive("n2", good)
	sub.want("good=1 q0", "good=1 q0")
	p := n.relays.peer("n2")
	if p.told.known || len(p.told.filters) > 0 || n.local.Len() != 1 {
		t.Errorf("something was believed: %+v, %d in the index", p.told.filters, n.local.Len())
	}
	for i := range 2 * peersMost {
		n.PeerUp(fmt.Sprint("node ", i))
		n.Receive(fmt.Sprint("node ", i), good)
	}
	if got := len(*n.relays.list.Load()); got != peersMost {
		t.Errorf("%d nodes are known, want at most %d", got, peersMost)
	}
}

// More filters than a node may have are not kept.
func TestHostilePeerWantsTooMuch(t *testing.T) {
	n := newNode(t, Limits{})
	all := map[string]byte{}
	for i := range interestMost + 1 {
		all[fmt.Sprint(i)] = 1
	}
	for _, m := range claims(1, 0, 1, claimReset, all) {
		n.Receive("n2", m)
	}
	if got := n.local.Len(); got != 0 || n.Stats().RelayRefused.Load() == 0 {
		t.Errorf("%d filters are kept, of more than may be", got)
	}
}

// Whatever another node sends, it is taken or refused: nothing panics, and what is
// taken of its interest is what the index has.
func FuzzPeerMessage(f *testing.F) {
	f.Add(appendHeard(nil, 1, 2), appendAsk(nil))
	f.Add(claims(1, 0, 1, claimReset, map[string]byte{"t/+": 1, "u": 1})[0], claims(1, 1, 2, 0, map[string]byte{"u": 0})[0])
	f.Add(claims(1, 0, 1, claimReset|claimAll, nil)[0], claims(1, 0, 2, claimReset, nil)[0])
	f.Add(appendRelayed(make([]byte, 10), "", &event.Event{Topic: "t", Payload: []byte("1")}), []byte{1, 4})
	n := newNode(f, Limits{})
	sub, _ := n.connect("sub", true, 0)
	sub.full = true
	sub.subscribe("#", 0)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		n.Receive("n2", a)
		n.Receive("n2", b)
		p := n.relays.peer("n2")
		if got, want := n.local.Len()-1, len(p.told.filters); got != want {
			t.Fatalf("%d filters in the index, %d told", got, want)
		}
		if err := p.take(a); err != nil && !errors.Is(err, event.ErrDamaged) && !errors.Is(err, errNewer) {
			t.Errorf("refused as %v", err)
		}
	})
}
