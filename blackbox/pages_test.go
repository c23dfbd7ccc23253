package blackbox

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// More watch than a document has room for, with notes of the greatest length: what bob is
// sent says that there are more, and where; by HTTP he reads all of them, each once. Nobody
// else can go on where his page ended.
func TestWatchersByPages(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z", "--allow-anonymous")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAnybody)
	note := mq.User("evt-note", strings.Repeat("😀", 256))
	const many = 120
	for i := range many {
		c := s.open(v5, clean(fmt.Sprint("nobody", i)))
		if ack := c.TrySubscribe(mq.Properties{note}, mq.Filter{Filter: bobsPresence, QoS: 1}); ack.Codes[0] != 1 {
			t.Fatalf("%v", ack)
		}
	}
	type page struct {
		More       bool
		Next, Rest string
		Total      int
		Watchers   []watcherRow
	}
	var sent page
	if err := json.Unmarshal([]byte(s.own(bob, ownWatchers)), &sent); err != nil {
		t.Fatal(err)
	}
	if !sent.More || sent.Total != many || len(sent.Watchers) >= many || sent.Rest != "/v1/me/watchers/presence" || sent.Next != "" {
		t.Errorf("bob is sent %d of %d, more: %t, at %q", len(sent.Watchers), sent.Total, sent.More, sent.Rest)
	}
	ids, pages := map[string]bool{}, 0
	for path := sent.Rest; path != ""; pages++ {
		got := s.fetch(bob, path, "")
		var p page
		if err := json.Unmarshal([]byte(got.body), &p); got.status != 200 || err != nil || p.Total != many {
			t.Fatalf("%s: %d %.200s: %v", path, got.status, got.body, err)
		}
		for _, r := range p.Watchers {
			if ids[r.ID] {
				t.Errorf("%s stands there twice", r.ID)
			}
			ids[r.ID] = true
		}
		if path = ""; p.Next != "" {
			path = sent.Rest + "?after=" + url.QueryEscape(p.Next)
			if got := s.fetch(alice, path, ""); got.status != 400 {
				t.Errorf("alice goes on there: %+v", got)
			}
		}
	}
	if len(ids) != many || pages < 3 {
		t.Errorf("on %d pages are %d, of %d", pages, len(ids), many)
	}
}
