package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// What Raft says reaches slog with its level, but for what it calls information,
// and with its arguments formatted; its formatting costs nothing when nobody
// listens.
func TestRaftLogger(t *testing.T) {
	var text bytes.Buffer
	debug := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := newRaftLogger(debug).With("node", "n1").(*raftLogger)
	l.Named("sub").Info("configuration", "servers", hclog.Fmt("%d of %d", 2, 3))
	l.Warn("slow", "took", 5)
	l.ResetNamed("x").Error("broken", "error", "why")
	l.Log(hclog.Warn, "by level")
	l.Log(hclog.Error, "by level")
	l.Log(hclog.Info, "by level")
	l.Error("failed to heartbeat to", "peer", "n2") // it is told otherwise that n2 is away
	l.Warn("heartbeat timeout reached, starting election")
	l.Trace("never")
	l.StandardLogger(nil).Print("from the library")
	for _, want := range []string{
		`level=DEBUG msg="raft: configuration" node=n1 servers="2 of 3"`,
		`level=WARN msg="raft: slow" node=n1 took=5`,
		`level=ERROR msg="raft: broken" node=n1 error=why`,
		`level=WARN msg="raft: by level"`, `level=ERROR msg="raft: by level"`, `level=DEBUG msg="raft: by level"`,
		`level=DEBUG msg="raft: failed to heartbeat to" node=n1 peer=n2`,
		`level=INFO msg="raft: heartbeat timeout reached, starting election"`,
		`level=DEBUG msg="from the library"`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no line with %s in\n%s", want, &text)
		}
	}
	if strings.Contains(text.String(), "never") {
		t.Error("traces are passed on")
	}
	quiet := newRaftLogger(slog.New(slog.DiscardHandler))
	if n := testing.AllocsPerRun(100, func() { quiet.Info("x", "servers", "y") }); n > 1 {
		t.Errorf("%v allocations for a line that nobody reads", n)
	}
}
