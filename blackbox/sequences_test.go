package blackbox

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// differences are the packet sequences of mosquitto's own tests that we answer
// otherwise on purpose, with the reason.
var differences = map[string]string{
	"CONNACK :: v3.1.1 CONNACK issue 2163 v3":      no31,
	"CONNECT :: v3.1   CONNECT 10 ok ":             no31,
	"CONNECT :: v3.1   CONNECT 10 ok":              no31,
	"CONNECT :: v3.1   CONNECT 14 ok ":             no31,
	"CONNECT :: v3.1   CONNECT 10 empty client ID": no31,
}

const no31 = "MQTT 3.1 is refused, CONNACK 1"

// Byte-level packet sequences of the mosquitto project, judged leniently:
// types, ids and classes of codes must match, and whether the connection ends.
// BELLWIRE_SEQUENCES names the folder that has mosq_seq.py and sequences/.
func TestPacketSequences(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("BELLWIRE_SEQUENCES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "tools")
	}
	if _, err := os.Stat(filepath.Join(dir, "mosq_seq.py")); err != nil {
		t.Skipf("missing: the packet sequences, set BELLWIRE_SEQUENCES to the folder that has mosq_seq.py (%v)", err)
	}
	need(t, "python3", "python3")
	addr := target
	if addr == "" {
		addr = serve(t, "--allow-anonymous").ready.MQTT // they use bare topics and ids: nobody else's server
	}
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("python3", filepath.Join(dir, "mosq_seq.py"), host, port)
	cmd.Env = append(os.Environ(), "SEQ_DATA="+filepath.Join(dir, "sequences"))
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	summary := lines[len(lines)-1]
	if !regexp.MustCompile(`^\d+ passed, \d+ failed$`).MatchString(summary) {
		t.Fatalf("%v: %s", err, out)
	}
	var known []string
	for _, line := range lines {
		failed, ok := strings.CutPrefix(line, "FAIL ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(failed, "  -- ")
		why, listed := differences[name]
		if !listed {
			t.Error(failed)
			continue
		}
		known = append(known, name)
		t.Logf("differs, because %s: %s", why, failed)
	}
	for name := range differences {
		if target == "" && !slices.Contains(known, name) {
			t.Errorf("%s is listed as a difference, but passes or is not there", name)
		}
	}
	t.Log(summary)
}
