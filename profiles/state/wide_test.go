package state_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/state"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const byWildcard = "presence/example.com/+"

// handlingFor is a policy that handles those who are named, or everybody, in some way.
func handlingFor(handling string, who ...string) string {
	identity := `{"many":{}}`
	if len(who) > 0 {
		identity = ""
		for i, w := range who {
			if i > 0 {
				identity += ","
			}
			identity += `{"one":"pres:` + w + `"}`
		}
	}
	return `{"v":1,"rules":[{"id":"all","if":{"identity":[` + identity + `]},"then":{"handling":"` + handling + `"},"show":{"services":["*"],"note":true}}]}`
}

// Owners are told of who watches them by wildcards, as of others: of those whom they let
// see something, at most once in five seconds, when it begins, and ends, and when their
// policy changes.
func TestOwnerLearnsOfWildcards(t *testing.T) {
	n := newNode(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, everything)
	pc.Publish(bobs, open)
	for _, topicName := range []string{watchersTopic, statsTopic} {
		pc.Subscribe(topicName, 1)
	}
	told := func(what string, lists string, counts string) {
		t.Helper()
		n.Settle()
		var got []string
		last := ""
		for _, g := range pc.Take() {
			if g.Topic == watchersTopic {
				got = append(got, readDoc(t, g.Payload).String())
			} else {
				last = g.Payload
			}
		}
		if strings.Join(got, "; ") != lists {
			t.Errorf("%s: the list is %q, want %q", what, got, lists)
		}
		if counts != "" && !strings.Contains(last, counts) {
			t.Errorf("%s: counts are %s, want %s", what, last, counts)
		}
		if counts == "" && last != "" {
			t.Errorf("%s: counts are told: %s", what, last)
		}
	}
	told("at first", "0 true []", `"total":0`)
	n.Pass(10 * time.Second)
	watcher.Subscribe(byWildcard, 1)
	wants(t, n, watcher, "open")
	told("at once", "", "")
	n.Pass(5 * time.Second)
	told("she has come", "1 true [ann@example.net active subscribe]", `"identified":1,"pseudonymous":0,"anonymous":0,"pending":0,"polite":0,"fetchers24h":0,"total":1`)
	id := watchersOf(t, n, bob).Watchers[0].ID
	watcher.Subscribe("presence/#", 1)
	n.Pass(5 * time.Second)
	told("also otherwise", "2 true [ann@example.net active subscribe]", "")
	watcher.Subscribe(bobs, 1)
	n.Pass(5 * time.Second)
	told("by name, too", "3 true [ann@example.net active subscribe]", "")
	if is := watchersOf(t, n, bob).Watchers[0].ID; is == id {
		t.Error("by name she has the id that she had")
	}
	watcher.Unsubscribe(bobs)
	n.Pass(5 * time.Second)
	told("no more by name", "4 true [ann@example.net active subscribe]", "")
	n.Pass(5 * time.Second)
	pc.Publish(policy, handlingFor("polite-block", ann))
	n.Pass(5 * time.Second)
	told("put off politely", "5 true [ann@example.net active subscribe]", `"polite":1`)
	pc.Publish(policy, handlingFor("block", ann))
	n.Pass(5 * time.Second)
	told("blocked", "6 true [ann@example.net terminated unsubscribed]", `"total":0`)
	pc.Publish(policy, everything)
	n.Pass(5 * time.Second)
	told("let in", "7 true [ann@example.net active subscribe]", `"total":1`)
	n.Pass(time.Minute) // what she has ended by name is forgotten
	told("nothing new", "", "")
	watcher.Disconnect()
	n.Pass(5 * time.Second)
	told("gone", "8 true []", `"total":0`)
	n.CheckReplay(nil)
}

// Who watches is seen by nobody whom they do not see, nor by owners elsewhere, nor by more
// than the row of a subscription by name has.
func TestWildcardsTellNoMore(t *testing.T) {
	n := newNodeOfNames(t)
	pc, other, watcher := n.Connect(bob), n.Connect(carol), n.Connect(ann)
	elsewhere := n.Connect("dan@example.net")
	pc.Publish(policy, everything)
	elsewhere.Publish(policy, everything)
	watcher.Subscribe(byWildcard, 1)
	text := ownOf(t, n, bob, watchersTopic)
	if !strings.Contains(text, `"uri":"pres:ann@example.net"`) || strings.ContainsAny(text, "+#") {
		t.Errorf("bob sees %s", text)
	}
	for who, c := range map[string]*brokertest.Client{carol: other, "dan@example.net": elsewhere} {
		if l := watchersOf(t, n, c.Principal); len(l.Watchers) != 0 || l.Total != 0 {
			t.Errorf("%s sees %s", who, l)
		}
	}
	_, err := watcher.TrySubscribeWith(carols, 1, "evt-visibility", "anonymous")
	must(t, err)
	other.Publish(policy, `{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"note":true}}]}`)
	if l := watchersOf(t, n, carol); len(l.Watchers) != 1 || l.Watchers[0].Visibility != "anonymous" {
		t.Errorf("she has hidden from carol, who sees %s", l)
	}
	watcher.Unsubscribe(carols)
	if l := watchersOf(t, n, carol); strings.Contains(l.String(), "ann@") || l.Total != 1 {
		t.Errorf("as long as it is known that she has hidden: %s", l)
	}
	for offer, granted := range map[string]bool{"anonymous": false, "pseudonymous": false, "anonymous,identified": true} {
		for _, filter := range []string{byWildcard, "+/example.com/bob"} {
			if _, err := watcher.TrySubscribeWith(filter, 1, "evt-visibility", offer); (err == nil) != granted {
				t.Errorf("%s for %s: %v", offer, filter, err)
			}
		}
	}
	n.CheckReplay(nil)
}

// What is asked for by wildcards for a time is granted for that, and no longer than may be,
// and ends then, in each kind of session.
func TestWildcardsEnd(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.ClientID("ann"), brokertest.Expiry(expiry))
		pc.Publish(policy, everything)
		pc.Publish(bobs, open)
		ask := func(seconds string) map[string]string {
			t.Helper()
			answer, err := watcher.TrySubscribeWith(byWildcard, qos, "evt-expires", seconds)
			must(t, err)
			return answer
		}
		if granted := ask("60")["evt-expires"]; granted != "60" {
			t.Errorf("granted are %q seconds", granted)
		}
		if granted := ask("86400000")["evt-expires"]; granted != "2592000" {
			t.Errorf("of very many are granted %q seconds", granted)
		}
		ask("60")
		n.Settle()
		watcher.Take()
		if l := watchersOf(t, n, bob); len(l.Watchers) != 1 || l.Watchers[0].Expires == nil || *l.Watchers[0].Expires != 60 {
			t.Errorf("bob sees %+v", l)
		}
		n.Pass(59 * time.Second)
		pc.Publish(bobs, closed)
		wants(t, n, watcher, "closed")
		n.Pass(time.Second)
		pc.Publish(bobs, open)
		wants(t, n, watcher)
		if l := watchersOf(t, n, bob); len(l.Watchers) != 0 || l.Total != 0 {
			t.Errorf("it is over, and bob sees %s", l)
		}
		ask("60")
		wants(t, n, watcher, "open")
		for _, seconds := range []string{"0", "29", "x"} {
			if _, err := watcher.TrySubscribeWith(byWildcard, qos, "evt-expires", seconds); err == nil {
				t.Errorf("for %s seconds it is granted", seconds)
			}
		}
		if expiry > 0 {
			watcher.Lose()
			n.Pass(60 * time.Second)
			watcher = n.Connect(ann, brokertest.ClientID("ann"), brokertest.Expiry(expiry))
			pc.Publish(bobs, closed)
			wants(t, n, watcher)
		}
		n.CheckReplay(nil)
	})
}

// One watcher watches by so many filters, over all sessions, and a domain is watched by so
// many watchers; what is over that is refused, and leaves nothing.
func TestWildcardsAreBounded(t *testing.T) {
	n := newLimited(t, state.Limits{Life: life.Limits{WidesBy: 3, Wides: 4}})
	one, two := n.Connect(ann), n.Connect(ann)
	for _, filter := range []string{"presence/example.com/+", "presence/example.net/+", "presence/+/bob", "presence/+/bob/#"} {
		one.Subscribe(filter, 0)
	}
	refuses(t, two.TrySubscribe("presence/#", 0), broker.ErrQuota, "3 filters")
	two.Subscribe("presence/example.com/#", 0)
	one.Unsubscribe("presence/+/bob")
	refuses(t, two.TrySubscribe("#", 0), broker.ErrQuota, "3 filters")
	one.Unsubscribe("presence/+/bob/#")
	two.Subscribe("#", 0)
	for i := range 4 {
		err := n.Connect(watcherNumber(i)).TrySubscribe(byWildcard, 1)
		if i < 3 {
			must(t, err)
			continue
		}
		refuses(t, err, broker.ErrQuota, "by wildcards")
	}
	n.CheckReplay(nil)
}

// A count that others are told includes who watches by wildcards.
func TestPublishedCountOfWildcards(t *testing.T) {
	n := newNode(t)
	pc, other, watcher := n.Connect(bob), n.Connect("eve@example.net"), n.Connect(ann)
	pc.Publish(policy, strings.Replace(everything, `"rules"`, `"publishCount":{"round":1},"rules"`, 1))
	other.Subscribe("$stats/"+bobs, 1)
	n.Pass(10 * time.Second)
	other.Take()
	for _, want := range []string{`{"total":1}`, `{"total":0}`} {
		if want == `{"total":1}` {
			watcher.Subscribe("presence/+/+", 1)
		} else {
			watcher.Unsubscribe("presence/+/+")
		}
		n.Pass(5 * time.Second)
		if got := other.Take(); len(got) != 1 || got[0].Payload != want {
			t.Errorf("told %v, want %s", got, want)
		}
	}
	n.CheckReplay(nil)
}

// Whatever watchers, owners and time do, each owner sees exactly those who watch and are
// let in, each once, and is counted them; what was pushed last is what is there.
func TestWildcardsModel(t *testing.T) {
	people := []string{"ann@example.net", "bo@example.net", "cy@example.org", "di@example.com"}
	owners := []string{bob, carol}
	filters := []string{byWildcard, "presence/#", "#", "presence/+/bob", "presence/example.net/+", bobs, carols}
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		n := newNode(t)
		type watch struct {
			c       *brokertest.Client
			filters map[string]bool
		}
		clients, sees := map[string]*watch{}, map[string]map[string]string{}
		lists := map[string]*brokertest.Client{}
		for _, o := range owners {
			lists[o] = n.Connect(o)
			lists[o].Subscribe(watchersTopic, 1)
			sees[o] = map[string]string{}
		}
		for step := range 60 {
			who := people[r.IntN(len(people))]
			if clients[who] == nil {
				clients[who] = &watch{n.Connect(who), map[string]bool{}}
			}
			w, filter := clients[who], filters[r.IntN(len(filters))]
			switch r.IntN(6) {
			case 0, 1:
				if w.c.TrySubscribe(filter, uint8(r.IntN(2))) == nil {
					w.filters[filter] = true
				}
			case 2:
				w.c.Unsubscribe(filter)
				delete(w.filters, filter)
			case 3:
				w.c.Disconnect()
				delete(clients, who)
			default:
				o, handling := owners[r.IntN(len(owners))], []string{"allow", "polite-block", "confirm"}[r.IntN(3)]
				var named []string
				for _, p := range people {
					if r.IntN(2) == 0 {
						named = append(named, p)
					}
				}
				if len(named) == 0 {
					named = people
				}
				lists[o].Publish(policy, handlingFor(handling, named...))
				sees[o] = map[string]string{}
				for _, p := range named {
					sees[o][p] = handling
				}
			}
			n.Pass(time.Duration(r.IntN(7)) * time.Second)
			for _, o := range owners {
				var want []string
				total, polite := 0, 0
				resource := "presence/" + strings.Split(o, "@")[1] + "/" + strings.Split(o, "@")[0]
				for p, w := range clients {
					wide := w.filters["#"] || w.filters["presence/#"] || w.filters[byWildcard] || o == bob && w.filters["presence/+/bob"]
					h := sees[o][p]
					switch {
					case w.filters[resource]:
						continue // as it was before there were wildcards: looked at below
					case wide && (h == "allow" || h == "polite-block"):
						want = append(want, p)
						if total++; h == "polite-block" {
							polite++
						}
					}
				}
				slices.Sort(want)
				var got []string
				named := 0
				for _, row := range watchersOf(t, n, o).Watchers {
					p := strings.TrimPrefix(row.URI, "pres:")
					if w := clients[p]; w != nil && w.filters[resource] {
						named++
						continue
					}
					if row.Status == "active" {
						got = append(got, p)
					}
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d, step %d: %s sees %v, want %v", seed, step, o, got, want)
				}
				var counts struct{ Total, Polite, Pending int }
				must(t, json.Unmarshal([]byte(ownOf(t, n, o, statsTopic)), &counts))
				if counts.Total+counts.Pending != total+named {
					t.Fatalf("seed %d, step %d: %s counts %+v, want %d and %d by name", seed, step, o, counts, total, named)
				}
			}
		}
		n.Pass(time.Minute)
		for _, o := range owners {
			pushed := map[string]string{}
			n.Settle()
			for _, g := range lists[o].Take() {
				if g.Topic != watchersTopic {
					continue
				}
				d := readDoc(t, g.Payload)
				if d.Full {
					clear(pushed)
				}
				for _, row := range d.Watchers {
					pushed[row.ID] = fmt.Sprint(row.URI, row.Status)
				}
			}
			for _, row := range watchersOf(t, n, o).Watchers {
				if pushed[row.ID] != fmt.Sprint(row.URI, row.Status) {
					t.Errorf("seed %d: %s was pushed %v, and there is %+v", seed, o, pushed, row)
				}
				delete(pushed, row.ID)
			}
			for _, is := range pushed {
				if strings.HasSuffix(is, "active") {
					t.Errorf("seed %d: %s was pushed %s, which is no more", seed, o, is)
				}
			}
		}
		n.CheckReplay(nil)
	}
}
