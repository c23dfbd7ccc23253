package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const delayedPolicy = `rules:
  - {id: all, allow: [publish, subscribe], who: ["*@example.com"], topic: ["plant/#"]}
`

// Acknowledged and delayed is published once at its time, whatever becomes of the node
// meanwhile, to both versions of MQTT, with its properties; its publisher sees it, and takes it back, and nobody else
// does, but operators.
func TestDelayedThroughAKill(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "policy.yaml", usersOf(bob, boss, "root@example.org")+"groups:\n  operators: [root@example.org]\n"+delayedPolicy)
	s := serve(t, "--policy", path, "--test-clock", "2026-03-09T12:00:00Z")
	b := s.person(bob, "pc")
	away := s.open(v5, as(boss, durable(v5, "away")))
	away.Subscribe("plant/#", 2)
	away.Disconnect()
	say := func(seconds int, payload string, qos byte) {
		t.Helper()
		code := b.TryPublish(mq.Publish{
			Topic: fmt.Sprintf("$delayed/%d/plant/1", seconds), QoS: qos, Payload: []byte(payload), Retain: payload == "kept",
			Properties: mq.Properties{mq.User("k", payload)},
		})
		if code != 0 && code != 0x10 {
			t.Fatalf("%s: %#02x", payload, code)
		}
	}
	say(60, "one", 1)
	say(60, "two", 2)
	say(30, "kept", 1)
	say(60, "back", 1)
	for name, want := range map[string]byte{
		"$delayed/x/plant/1": 0x90, "$delayed/1": 0x90, "$delayed/4294968/plant/1": 0x97, "$delayed/1/other": 0x87, "$delayed/1/presence/example.com/bob/pc": 0x83,
	} {
		if code := b.TryPublish(mq.Publish{Topic: name, QoS: 1, Payload: []byte("x")}); code != want {
			t.Errorf("%s: %#02x, want %#02x", name, code, want)
		}
	}
	s.restart()
	list := s.delayed(bob, "")
	if len(list) != 4 || list[0].Topic != "plant/1" || list[2].At != "2026-03-09T12:00:30Z" {
		t.Fatalf("%+v", list)
	}
	if other := s.delayed(boss, ""); len(other) != 0 {
		t.Errorf("somebody else sees %+v", other)
	}
	if all := s.delayed("root@example.org", "?all"); len(all) != 4 || all[0].User != bob {
		t.Errorf("operators see %+v", all)
	}
	for who, want := range map[string]int{boss: 404, bob: 200} {
		if a := s.ask(who, "DELETE", "/v1/delayed/"+list[3].ID, ""); a.status != want {
			t.Errorf("%s takes it back: %d %s", who, a.status, a.body)
		}
	}
	if a := s.ask(bob, "GET", "/v1/delayed?all", ""); a.status != 403 {
		t.Errorf("everybody's, to who is no operator: %d", a.status)
	}
	live := s.open(v4, as(boss, mq.Connect{ClientID: "live", Clean: true}))
	live.Subscribe("plant/#", 0)
	s.setClock("2026-03-09T12:00:29Z")
	s.setClock("2026-03-09T12:00:30Z")
	live.ReceiveText("plant/1", "kept")
	s.setClock("2026-03-09T12:01:00Z")
	live.ReceiveText("plant/1", "one")
	live.ReceiveText("plant/1", "two")
	s.restart()
	s.setClock("2026-03-09T12:10:00Z")
	again := s.open(v5, as(boss, durable(v5, "away")))
	for _, want := range []string{"kept", "one", "two"} {
		p := again.ReceiveText("plant/1", want)
		if got := p.Properties.User(); len(got) == 0 || !strings.Contains(strings.Join(got, ""), want) {
			t.Errorf("%s has lost its properties: %v", want, p.Properties)
		}
	}
	again.Quiet()
}

// A delayedEvent is one as the server lists it.
type delayedEvent struct{ ID, Topic, At, User string }

func (s *server) delayed(who, query string) []delayedEvent {
	s.t.Helper()
	var page struct{ Events []delayedEvent }
	a := s.ask(who, "GET", "/v1/delayed"+query, "")
	if err := json.Unmarshal([]byte(a.body), &page); a.status != 200 || err != nil {
		s.t.Fatalf("%d %s", a.status, a.body)
	}
	return page.Events
}
