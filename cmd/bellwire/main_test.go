package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run this very program as `bellwire`.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bellwire": main})
}

// Transcripts of the command line: a file in testdata/script per subject.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
