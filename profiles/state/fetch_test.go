package state_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// What it takes to look at a resource that the asker of a list may not see, of which one
// list looks at up to 16,000: of those that the node has loaded, and after a restart..
func BenchmarkFetchAll(b *testing.B) {
	const resources = 1000
	n := brokertest.New(b, presences)
	for i := range resources {
		c := n.Connect(fmt.Sprintf("u%04d@example.com", i))
		c.Publish(fmt.Sprintf("presence/example.com/u%04d", i), open, brokertest.Retain)
		c.Disconnect()
	}
	look := func() {
		seen := 0
		_, err := n.FetchAll(broker.Who{Principal: ann}, "presence/example.com/+", "", func(string, broker.Shown) bool { seen++; return true })
		if err != nil || seen != 0 {
			b.Fatalf("%d are shown, %v", seen, err)
		}
	}
	for name, before := range map[string]func(){"kept": func() {}, "first": n.Restart} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				before()
				b.StartTimer()
				look()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/resources, "ns/resource")
		})
	}
}

// Who fetches by HTTP is listed and counted as who fetches by subscribing is: with how
// often, for a day; who is refused as refused; who has hidden is not unveiled, and who has no
// identity is nobody in particular. Whose own it is is not.
func TestFetchersByHTTPAreListed(t *testing.T) {
	n := newNodeOfNames(t)
	for _, owner := range []string{bob, carol} {
		c := n.Connect(owner)
		c.Publish(policy, strings.Replace(demanding("anonymous"), `"rules":[`, `"rules":[{"id":"not","if":{"identity":[{"one":"pres:eve@example.net"}]},"then":{"handling":"block","alone":true}},`, 1))
		c.Publish(strings.Replace(bobs, "bob", strings.Split(owner, "@")[0], 1), open)
	}
	fetch := func(who, topicName string) {
		t.Helper()
		if _, err := n.Fetch(broker.Who{Principal: who}, topicName); err != nil && who != "eve@example.net" {
			t.Fatal(err)
		}
	}
	for _, who := range []string{"ann@example.net", "eve@example.net", "ann@example.net", "dan@example.org"} {
		fetch(who, bobs)
		c := n.Connect(who)
		_, err := c.TrySubscribeWith(carols, 1, "evt-expires", "0")
		if (err == nil) != (who != "eve@example.net") {
			t.Errorf("%s: %v", who, err)
		}
	}
	fetch(bob, bobs)
	n.Pass(3 * time.Second)
	rows := func(owner string) (all []string) {
		t.Helper()
		for _, r := range watchersOf(t, n, owner).Watchers {
			all = append(all, fmt.Sprint(r.URI, r.Status, r.Event, r.Visibility, r.Fetches))
		}
		slices.Sort(all)
		return all
	}
	want := []string{
		"pres:ann@example.netterminatedfetchidentified2", "pres:dan@example.orgterminatedfetchidentified1", "pres:eve@example.netterminatedrejectedidentified0",
	}
	if by, as := rows(bob), rows(carol); !slices.Equal(by, want) || !slices.Equal(as, want) {
		t.Errorf("by HTTP bob has had %v, by subscribing carol %v, want %v", by, as, want)
	}
	if by, as := ownOf(t, n, bob, statsTopic), ownOf(t, n, carol, statsTopic); by != as || !strings.Contains(by, `"fetchers24h":2`) {
		t.Errorf("counted are %s, by subscribing %s", by, as)
	}

	hidden := n.Connect("fay@example.net")
	_, err := hidden.TrySubscribeWith(bobs, 1, "evt-expires", "0", "evt-visibility", "pseudonymous")
	must(t, err)
	fetch("fay@example.net", bobs)
	fetch("", bobs)
	fetch("", bobs)
	fetch("ann@example.net", "presence/example.com/nobody")
	n.Pass(3 * time.Second)
	if text := ownOf(t, n, bob, watchersTopic); strings.Contains(text, "fay") || !strings.Contains(text, `"visibility":"pseudonymous","auth":20,`) || strings.Count(text, `"fetches24h":2`) != 3 {
		t.Errorf("bob sees %s", text)
	}
	seen := 0
	_, err = n.FetchAll(broker.Who{Principal: "gil@example.net"}, byWildcard, "", func(string, broker.Shown) bool { seen++; return true })
	must(t, err)
	n.Pass(3 * time.Second)
	for _, owner := range []string{bob, carol} {
		if text := ownOf(t, n, owner, watchersTopic); seen != 2 || !strings.Contains(text, "gil@example.net") {
			t.Errorf("%d are listed, and %s sees %s", seen, owner, text)
		}
	}
	fetch("hal@example.net", bobs)
	n.Restart() // what was gathered is lost
	n.Pass(3 * time.Second)
	if text := ownOf(t, n, bob, watchersTopic); strings.Contains(text, "hal@") {
		t.Errorf("bob sees %s", text)
	}
	n.Pass(25 * time.Hour)
	if by := rows(bob); len(by) != 0 {
		t.Errorf("a day later bob sees %v", by)
	}
	n.CheckReplay(nil)
}
