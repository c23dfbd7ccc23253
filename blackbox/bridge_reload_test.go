package blackbox

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// On SIGHUP bridges are as the file has them then: one that is as it was keeps its connection,
// one that has changed carries what it says now, one that is gone leaves, with its session kept, and new
// ones begin. A file with faults changes nothing, and each fault is logged. Of what counts at a start only it is told that it has changed.
func TestBridgesChangeOnSIGHUP(t *testing.T) {
	t.Parallel()
	peer := mosquittoBroker(t)
	bridge := func(name, filter string) string {
		return fmt.Sprintf("  - {name: %s, address: %q, retry_max: 1s, topics: [{filter: %q, direction: both, qos: 1}]}\n", name, peer.addr, filter)
	}
	conf := writeFile(t, "bellwire.yaml", "bridges:\n"+bridge("same", "same/#")+bridge("other", "before/#")+bridge("gone", "gone/#"))
	s := serve(t, "-f", conf, "--allow-anonymous", "--sys-interval", "1s")
	type shown struct {
		Name, Since string
		Connected   bool
		Waiting     int
	}
	status := func() map[string]shown {
		out, notes, code := run(t, "bridge", "status", "--server", s.ready.HTTP, "-o", "json")
		var all []shown
		if code != 0 || json.Unmarshal([]byte(out), &all) != nil {
			t.Fatalf("exit code %d: %s %s", code, out, notes)
		}
		of := map[string]shown{}
		for _, b := range all {
			of[b.Name] = b
		}
		return of
	}
	connected := func(names ...string) {
		t.Helper()
		until(t, fmt.Sprint(names, " are connected"), patience, func() bool {
			is, n := status(), 0
			for _, name := range names {
				if is[name].Connected {
					n++
				}
			}
			return n == len(names) && len(is) == n && int(s.metric("bellwire_bridge_connected")) == n
		})
	}
	reload := func(text, says string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(s.logs.String(), says)
		s.signal(syscall.SIGHUP)
		until(t, says, patience, func() bool { return strings.Count(s.logs.String(), says) > before })
	}
	here, there := s.open(v5, clean("here")), mq.Open(t, peer.addr, v5, clean("there"))
	here.Subscribe("$SYS/broker/connection/+/state", 0)
	there.Subscribe("#", 1)
	carries := func(bridge, topic string) {
		t.Helper()
		here.Publish(topic, 1, topic)
		there.ReceiveText(topic, topic)
		// Until the peer's acknowledgement is in the log it would be carried again.
		until(t, "nothing waits for "+bridge, patience, func() bool { return status()[bridge].Waiting == 0 })
	}
	connected("same", "other", "gone")
	since := status()["same"].Since
	carries("gone", "gone/1")

	reload("bridges:\n"+bridge("other", "after/#")+bridge("new", "new/#")+bridge("same", "same/#"), `"msg":"bridges changed"`)
	connected("same", "other", "new")
	carries("other", "after/1")
	carries("new", "new/1")
	carries("same", "same/1")
	here.Publish("before/2", 1, "not carried")
	here.Publish("gone/2", 1, "waits in the session that stays")
	carries("same", "same/2")
	last := map[string]string{}
	for last["$SYS/broker/connection/new/state"] != "1" || last["$SYS/broker/connection/gone/state"] != "0" {
		p := here.Receive()
		last[p.Topic] = string(p.Payload)
	}

	reload("bridges:\n"+bridge("same", "changed/#")+"  - {name: bad, adress: x}\n", `"msg":"bridges not changed: those that run stay"`)
	if log := s.logs.String(); !strings.Contains(log, `unknown key \"adress\"`) || !strings.Contains(log, `"line":3`) {
		t.Errorf("the fault is not logged: %s", s.logs.tail())
	}
	carries("same", "same/3")
	connected("same", "other", "new")
	if got := status()["same"].Since; got != since {
		t.Errorf("a bridge that has not changed is connected since %s, and was since %s", got, since)
	}

	reload("bridges:\n"+bridge("gone", "gone/#"), `"msg":"bridges changed"`)
	connected("gone")
	there.ReceiveText("gone/2", "waits in the session that stays")
	reload("verbose: false\n", `"msg":"bridges changed"`)
	if is := status(); len(is) != 0 {
		t.Errorf("bridges %v, want none", is)
	}
	until(t, "what needs a start is told", patience, func() bool {
		return strings.Contains(s.logs.String(), `"keys":["verbose"],"todo":"start the node anew`)
	})
	s.stop()
}
