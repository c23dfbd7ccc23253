package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bellwire/bellwire/bw"
)

// TestMain lets scripts run this very program as `bellwire`.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bellwire": main})
}

// Transcripts of the command line: a file in testdata/script per subject.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			if strings.Contains(readFile(t, script), "\nmosquitto\n") {
				program(t, "mosquitto", "mosquitto") // or skip
			}
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				// mosquitto starts Debian's broker and sets PORT.
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"mosquitto": func(ts *testscript.TestScript, _ bool, _ []string) {
						ts.Setenv("PORT", startMosquitto(t))
					},
				},
			})
		})
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every code has an exit code that says failure.
func TestExitCodes(t *testing.T) {
	for _, e := range bw.Entries() {
		if exit := exitOf(e.Code); exit < exitFailed || exit > exitTestFailed {
			t.Errorf("%s: exit code %d", e.Code, exit)
		}
	}
}

// A node's name is one that can stand in a topic, and the fault says which can.
func TestNodeNames(t *testing.T) {
	for name, want := range map[string]string{
		"n1": "", "Rack-2_b.x": "", "": "is empty", "a/+/#": "letters, digits", "-a": "letters, digits", "büro": "letters, digits",
		strings.Repeat("a", 64): "1 to 63",
	} {
		for what, err := range map[string]error{
			"alone":        (&serveFlags{node: name, data: "d", mqtt: "127.0.0.1:0", policy: "p"}).check(),
			"of a cluster": (&serveFlags{node: name, data: "d", mqtt: "127.0.0.1:0", policy: "p", member: clusterFlags{listen: "127.0.0.1:7400", bootstrap: true, tls: "d"}}).check(),
		} {
			if want == "" && err != nil || want != "" && (err == nil || strings.Count(err.Error(), want) != 1) {
				t.Errorf("%s: %q: %v, want %q once", what, name, err, want)
			}
		}
	}
}
