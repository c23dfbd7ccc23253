package blackbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// withHealth is the program with one more kind: that of profiles/example, which
// a third party would add by the same one line.
var withHealth = sync.OnceValues(func() (string, error) {
	const wire = "../cmd/bellwire/wire.go"
	text, err := os.ReadFile(wire)
	if err != nil {
		return "", err
	}
	changed := strings.Replace(string(text), "\t\tstate.New(presence.New(", "\t\tstate.New(example.Health{}),\n\t\tstate.New(presence.New(", 1)
	changed = strings.Replace(changed, "\t\"github.com/bellwire/bellwire/profiles/state\"\n", "\t\"github.com/bellwire/bellwire/profiles/example\"\n\t\"github.com/bellwire/bellwire/profiles/state\"\n", 1)
	replacement := filepath.Join(scratch, "wire.go")
	if err := os.WriteFile(replacement, []byte(changed), 0o600); err != nil {
		return "", err
	}
	original, err := filepath.Abs(wire)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replacement}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(scratch, "overlay.json"), overlay, 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "bellwire-health")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(scratch, "overlay.json"), "-o", path, "../cmd/bellwire").CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return path, nil
})

// A kind that a third party adds in Go is served like those that come with the
// program: rules, windows, delegates of nobody, fetch. A kind that there is not
// is refused.
func TestS7AThirdPartysKind(t *testing.T) {
	t.Parallel()
	const topic, path = "health/plant.example.com/press12", "/v1/health/plant.example.com/press12"
	const unknown = `{"entity":"evt:press12@plant.example.com","state":"unknown"}`
	s := prepareKinds(t, "2026-03-09T12:59:59Z")
	var err error
	if s.binary, err = withHealth(); err != nil {
		t.Fatal(err)
	}
	s.start()
	d, a, z, b := s.person(press, "plc"), s.person(alice, "pc"), s.person(zoe, "pc"), s.person(boss, "pc")
	d.Publish("$me/policy/health", 1, `{"v":1,"rules":[
		{"id":"alice","if":{"identity":[{"one":"evt:alice@example.net"}]},"then":{"handling":"allow"},"show":{"state":true,"notes":true}},
		{"id":"boss","if":{"identity":[{"one":"evt:boss@example.com"}],"weekly":{"tz":"America/Chicago","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]}},
		 "then":{"handling":"allow"},"show":{"state":true}}]}`)
	for _, c := range []*mq.Client{a, z, b} {
		c.Subscribe(topic, 1)
		c.ReceiveText(topic, unknown)
	}
	d.PublishMessage(retained(topic+"/oil", `{"state":"degraded","notes":["oil pressure low"]}`, mq.User("evt-expires", "86400")))
	a.ReceiveText(topic, `{"entity":"evt:press12@plant.example.com","notes":["oil pressure low"],"state":"degraded"}`)
	z.Quiet()
	b.Quiet()
	s.setClock("2026-03-09T13:00:00Z")
	b.ReceiveText(topic, `{"entity":"evt:press12@plant.example.com","state":"degraded"}`)
	if got := s.fetch(boss, path, ""); got.body != `{"entity":"evt:press12@plant.example.com","state":"degraded"}` || got.kind != "application/health+json" {
		t.Errorf("by HTTP the boss is shown %+v", got)
	}
	s.setClock("2026-03-09T22:00:00Z")
	b.ReceiveText(topic, unknown)
	a.Quiet()

	refusedBy(t, d, retained(topic, `{"state":"splendid"}`), 0x99)
	refusedBy(t, a, retained(topic, `{"state":"ok"}`), 0x87)
	s.restart()
	a = s.person(alice, "pc")
	a.Subscribe(topic, 1)
	a.ReceiveText(topic, `{"entity":"evt:press12@plant.example.com","notes":["oil pressure low"],"state":"degraded"}`)
	s.setClock("2026-03-10T12:59:59Z") // a day later
	a.ReceiveText(topic, unknown)

	// The program as it comes does not know it.
	plain := kinds(t, "2026-03-09T12:00:00Z")
	if got := plain.fetch(alice, path, ""); got.status != 404 {
		t.Errorf("a kind that is not served: %+v, want 404", got)
	}
}
