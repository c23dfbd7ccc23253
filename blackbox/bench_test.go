package blackbox

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"
)

// A stormSaid is what of bench storm's JSON is looked at.
type stormSaid struct {
	Figures struct{ Connect, Storm waveSaid } `json:"figures"`
}

type waveSaid struct {
	In      int            `json:"in"`
	PerSec  float64        `json:"handshakesPerSecond"`
	Tries   int            `json:"tries"`
	Refused map[string]int `json:"refused"`
	Waits   map[string]int `json:"toldToWait"`
	NoState int            `json:"sessionsLost"`
	CPU     float64        `json:"serverCPUSecondsPerClient"`
}

// stormed runs bench storm, which is to end with code.
func stormed(t *testing.T, code int, args ...string) (said stormSaid) {
	t.Helper()
	out, errs, got := runWith(t, "", append([]string{"bench", "storm", "-o", "json"}, args...)...)
	if got != code {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, out, errs)
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return said
}

// All clients that lose their connections at once are back, by TCP and by TLS, each with
// its session if it has one; nobody who has a token is refused.
func TestReconnectStorm(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"plain": {"-x", "600"}, "tls": {"--tls"}, "tls resumed": {"--tls", "--tls-resume"}} {
		t.Run(name, func(t *testing.T) {
			said := stormed(t, 0, append(args, "--self", "--clients", "300", "--first", "300ms")...)
			for _, w := range []waveSaid{said.Figures.Connect, said.Figures.Storm} {
				if w.In != 300 || w.Refused != nil || w.NoState != 0 || w.PerSec <= 0 || w.CPU <= 0 {
					t.Errorf("got %+v", w)
				}
			}
		})
	}
}

// Who is told that too many connect at once comes back later, and is let in; who may not
// come in at all is told by the exit code.
func TestStormIsTurnedAway(t *testing.T) {
	t.Parallel()
	m := newTokenMaker(t)
	policy := writeFile(t, "policy.yaml", m.policy(""))
	s := serve(t, "--policy", policy, "--limits", limitsFile(t, "v: 1\ndefault:\n  connect.perSecond: 20\n"))
	at := []string{"-L", "mqtt://" + s.ready.MQTT, "--clients", "160", "--first", "100ms"}
	begin := time.Now()
	said := stormed(t, 0, append(at, "--key", filepath.Join(m.dir, "signing-key.json"), "--issuer", "plant", "--audience", "bellwire")...)
	storm := said.Figures.Storm
	told := int(s.metric("bellwire_connects_total", "connection_rate_exceeded"))
	// 320 tries, of which 200 come in at once and then 20 a second: on a machine that takes longer
	// for them nobody has to wait.
	waits := time.Since(begin) < (320-200)*time.Second/20
	if storm.In != 160 || storm.Refused != nil || waits && told == 0 || storm.Waits["0x9F"]+said.Figures.Connect.Waits["0x9F"] != told {
		t.Errorf("%d were told to wait, got %+v", told, storm)
	}
	said = stormed(t, 4, append(at, "-u", "storm-%d", "-P", "guess")...) // and not after the five minutes of --settle
	if w := said.Figures.Connect; w.In != 0 || w.Refused["0x86"] == 0 {
		t.Errorf("without a token: got %+v", w)
	}
}
