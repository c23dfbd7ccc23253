package blackbox

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Those who take part in the stories of presence, location and messages.
const (
	alice   = "alice@example.net"
	bob     = "bob@example.com"
	carol   = "carol@example.com"
	boss    = "boss@example.com"
	mallory = "mallory@example.com"
	zoe     = "zoe@example.net"
	press   = "press12@plant.example.com"
	cal     = "calendar-svc@example.com"
	robert  = "robert@example.com"
)

const bobsPresence = "presence/example.com/bob"

// kinds starts a server whose operator knows all of them and permits nothing
// but what owners do. Its clock stands at an instant.
func kinds(t *testing.T, clock string, flags ...string) *server {
	t.Helper()
	s := prepareKinds(t, clock, flags...)
	s.start()
	return s
}

// restlessKinds is kinds, where a source may publish often although the clock stands.
func restlessKinds(t *testing.T, clock string) *server {
	t.Helper()
	return kinds(t, clock, "--limits", limitsFile(t, "v: 1\ndefault: {source.burst: 1000}\n"))
}

func prepareKinds(t *testing.T, clock string, flags ...string) *server {
	t.Helper()
	path := writeFile(t, "policy.yaml", usersOf(alice, bob, carol, boss, mallory, zoe, press, cal, robert))
	return prepare(t, filepath.Join(t.TempDir(), "data"), append([]string{"--test-clock", clock, "--policy", path}, flags...)...)
}

// person connects a client of somebody.
func (s *server) person(who, device string, more ...mq.Property) *mq.Client {
	s.t.Helper()
	c := as(who, clean(who+"/"+device))
	c.Properties = append(c.Properties, more...)
	return s.open(v5, c)
}

// retained is a publication that stands by itself.
func retained(topic, payload string, more ...mq.Property) mq.Publish {
	return mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte(payload), Properties: more}
}

// refusedBy publishes, wants that code and returns the reason that is told.
func refusedBy(t *testing.T, c *mq.Client, m mq.Publish, code byte) string {
	t.Helper()
	m.QoS, m.ID = 1, c.ID()
	c.Send(m)
	p := c.Await(mq.PUBACK, m.ID)
	if p.Code != code {
		t.Errorf("publish %.60q to %s: got %v, want code %#02x", m.Payload, m.Topic, p, code)
	}
	return p.Properties.Text(mq.PropReasonString)
}

// latest receives what comes until nothing more does, and returns the last of a
// topic.
func latest(t *testing.T, c *mq.Client, topic string) *mq.Packet {
	t.Helper()
	all := drain(c)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Topic == topic {
			return all[i]
		}
	}
	t.Fatalf("%s was not sent; got %v", topic, all)
	return nil
}

// drain receives what the server has sent so far.
func drain(c *mq.Client) (all []*mq.Packet) {
	c.Send(mq.Ping)
	for {
		p := c.Next()
		if p.Type == mq.PINGRESP {
			return all
		}
		if p.Type == mq.PUBLISH {
			c.Acknowledge(p)
			all = append(all, p)
		}
	}
}

// A presenceDoc is what these tests read of a presence document.
type presenceDoc struct {
	Entity, Basic string
	Tuples        []struct {
		ID, Basic string
		Contact   *struct {
			URI      string
			Priority *float64
		}
	}
	Persons []map[string]any
	Devices []map[string]any
}

func readPresence(t *testing.T, p *mq.Packet) (d presenceDoc) {
	t.Helper()
	if err := json.Unmarshal(p.Payload, &d); err != nil {
		t.Fatalf("%s: %v", p.Payload, err)
	}
	return d
}

// tuples returns the basic status of each tuple, in order.
func (d *presenceDoc) tuples() (all []string) {
	for _, tu := range d.Tuples {
		all = append(all, tu.Basic)
	}
	return all
}

// isNeutral says whether a document is what there is to see of nobody home.
func isNeutral(p *mq.Packet, owner string) bool {
	return string(p.Payload) == `{"entity":"pres:`+owner+`","basic":"closed","tuples":[{"id":"none","basic":"closed"}]}`
}

// An answer is what HTTP says.
type answer struct {
	status           int
	etag, kind, body string
}

// ask sends a request by HTTP as somebody, nobody if empty. headers are names and values.
func (s *server) ask(who, method, path, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequest(method, "http://"+s.ready.HTTP+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if who != "" {
		r.SetBasicAuth(who, "token-"+who)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header.Get("ETag"), res.Header.Get("Content-Type"), string(text)}
}

// fetch asks for what is not tag.
func (s *server) fetch(who, path, tag string) answer {
	s.t.Helper()
	if tag == "" {
		return s.ask(who, "GET", path, "")
	}
	return s.ask(who, "GET", path, "", "If-None-Match", tag)
}

// showAll is a policy that shows all of a kind's presence to everybody.
const showAll = `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},
	"show":{"services":["*"],"persons":["*"],"devices":["*"],"all":true,"unknown":["*"],"userInput":"full"}}]}`

// vector returns a member of a file of test vectors.
func vector(t *testing.T, file, member string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return string(all[member])
}
