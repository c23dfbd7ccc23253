package blackbox

import (
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Where somebody is nobody is told without consent. Consent to the city is
// consent to the city: no street, no coordinates.
func TestS29LocationWithConsent(t *testing.T) {
	t.Parallel()
	const topic = "location/example.com/bob"
	s := kinds(t, "2026-03-09T12:00:00Z")
	phone, a := s.person(bob, "phone"), s.person(alice, "pc")
	where := `{"lat":41.8789,"lon":-87.6359,"civic":{"country":"US","A1":"IL","A2":"Cook","A3":"Chicago","RD":"Wacker","HNO":"233","PC":"60606"}}`
	phone.PublishMessage(retained(topic, where))
	a.Subscribe(topic, 1)
	first := a.Receive()
	phone.PublishMessage(retained(topic, where))
	a.Quiet()
	for _, secret := range []string{"41.8", "87.6", "Chicago", "Wacker", "US"} {
		if contains(string(first.Payload), secret) {
			t.Errorf("without consent: %s", first.Payload)
		}
	}
	phone.Publish("$me/policy/location", 1, `{"v":1,"rules":[{"id":"alice","if":{"identity":[{"one":"pres:alice@example.net"}]},
		"then":{"handling":"allow"},"show":{"civic":"city"}}]}`)
	p := a.Receive()
	for _, shown := range []string{`"US"`, `"IL"`, `"Cook"`, `"Chicago"`} {
		if !contains(string(p.Payload), shown) {
			t.Errorf("with consent to the city %s is missing: %s", shown, p.Payload)
		}
	}
	for _, secret := range []string{"41.8", "87.6", "Wacker", "233", "60606"} {
		if contains(string(p.Payload), secret) {
			t.Errorf("with consent to the city %s is told: %s", secret, p.Payload)
		}
	}
	phone.PublishMessage(mq.Publish{Topic: "$me/policy/location", QoS: 1})
	a.ReceiveText(topic, string(first.Payload))
}
