package blackbox

import (
	"fmt"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Who has not said who they are watches one address at a time, by its name: another is
// refused, of whatever kind, also to a session that is back after a kill of the server, and
// so are wildcards; a filter for all topics shows plain ones, and no resource.
func TestR5_1_3NobodyWatchesOneAddress(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "policy.yaml", usersOf(bob, carol)+"rules:\n  - {id: open, allow: [publish, subscribe], who: [anonymous], topic: [\"#\"]}\n")
	s := serve(t, "--test-clock", "2026-03-09T12:00:00Z", "--policy", path, "--allow-anonymous")
	carols, location := "presence/example.com/carol", "location/example.com/bob"
	publish := func(at string) {
		for owner, topic := range map[string]string{bob: bobsPresence, carol: carols} {
			pc := s.person(owner, "pc")
			pc.Publish("$me/policy/presence", 1, `{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"services":["*"]}}]}`)
			pc.PublishMessage(retained(topic, `{"basic":"`+at+`"}`))
			pc.Disconnect()
		}
	}
	publish("open")
	for _, v := range []byte{v4, v5} {
		lasting := mq.Connect{ClientID: fmt.Sprint("nobody", v)}
		if v == v5 {
			lasting.Properties = mq.Properties{mq.Number(mq.PropSessionExpiry, 3600)}
		}
		nobody := s.open(v, lasting)
		code := func(filter string, want byte, reason string) {
			t.Helper()
			if v == v4 && want >= 0x80 {
				want, reason = 0x80, ""
			}
			ack := nobody.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1})
			if why := ack.Properties.Text(mq.PropReasonString); ack.Codes[0] != want || !contains(why, reason) {
				t.Errorf("version %d, %s: %#02x %q, want %#02x %q", v, filter, ack.Codes[0], why, want, reason)
			}
		}
		shown := func(topic, want string) {
			t.Helper()
			if p := nobody.Receive(); p.Topic != topic || !contains(string(p.Payload), `"`+want+`"`) {
				t.Errorf("version %d: sent %s %s, want %s %s", v, p.Topic, p.Payload, topic, want)
			}
		}
		for _, filter := range []string{"presence/example.com/+", "presence/#", "location/+/bob"} {
			code(filter, 0x87, "identity-required")
		}
		code("#", 1, "")
		code(bobsPresence, 1, "")
		shown(bobsPresence, "open")
		code(carols, 0x97, "quota")
		code(location, 0x97, "quota")
		code(bobsPresence, 1, "")
		shown(bobsPresence, "open")
		nobody.Publish("plain", 1, "x")
		nobody.ReceiveText("plain", "x")
		s.kill()
		s.start()
		nobody = s.open(v, lasting)
		code(carols, 0x97, "quota")
		publish("closed")
		nobody.Publish("plain", 1, "y")
		had := false
		for _, p := range drain(nobody) {
			switch {
			case p.Topic == bobsPresence:
				had = had || contains(string(p.Payload), `"closed"`)
			case p.Topic != "plain":
				t.Errorf("version %d: sent %s %s", v, p.Topic, p.Payload)
			}
		}
		if !had {
			t.Errorf("version %d: what is watched was not sent", v)
		}
		if list := s.own(carol, ownWatchers); v == v4 && !contains(list, `"total":0`) { // later she has what is over
			t.Errorf("carol is told of what was refused, or sees nothing: %s", list)
		}
		nobody.Unsubscribe(bobsPresence)
		code(carols, 1, "")
		shown(carols, "closed")
		nobody.Unsubscribe(carols)
		publish("open")
	}
}
