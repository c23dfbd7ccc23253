package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
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
