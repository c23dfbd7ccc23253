package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// A raftLogger hands Raft's lines to slog. What Raft calls information is its own
// diary (an operator gets the leader's changes from Node), so it is at level
// Debug; its warnings and errors keep their level, but for those in ordinary.
type raftLogger struct {
	hclog.Logger // answers what is not overridden, and writes nothing
	to           *slog.Logger
}

// ordinary are lines that Raft calls warnings or errors, and that belong to the life of
// a cluster whose nodes come, go, are restarted and catch up. What an operator has to
// know of it is told otherwise: that a node cannot be reached, and why ("no connection
// to a node"), that it stays away ("a node is silent"), that there is no leader ("no
// leader is heard of").
var ordinary = map[string]slog.Level{
	// Another node cannot be reached.
	"failed to heartbeat to":                  slog.LevelDebug,
	"failed to appendEntries to":              slog.LevelDebug,
	"failed to pipeline appendEntries":        slog.LevelDebug,
	"failed to start pipeline replication to": slog.LevelDebug,
	"failed to make requestVote RPC":          slog.LevelDebug,
	"failed to contact":                       slog.LevelDebug,

	// A log is behind another, or ahead with what was never committed.
	"failed to get previous log":                 slog.LevelDebug,
	"previous log term mis-match":                slog.LevelDebug,
	"appendEntries rejected, sending older logs": slog.LevelDebug,
	"skipping application of old log":            slog.LevelDebug,
	"clearing log suffix":                        slog.LevelDebug,

	// An election.
	"heartbeat timeout reached, starting election":                                                                   slog.LevelInfo,
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": slog.LevelDebug,
	"Election timeout reached, restarting election":                                                                  slog.LevelInfo,
	"no known peers, aborting election":                                                                              slog.LevelDebug,
	"not part of stable configuration, aborting election":                                                            slog.LevelDebug,
	"rejecting vote request since we have a leader":                                                                  slog.LevelDebug,
	"rejecting vote request since our last term is greater":                                                          slog.LevelDebug,
	"rejecting vote request since our last index is greater":                                                         slog.LevelDebug,
	"rejecting pre-vote request since we have a leader":                                                              slog.LevelDebug,
	"rejecting pre-vote request since our last term is greater":                                                      slog.LevelDebug,
	"rejecting pre-vote request since our last index is greater":                                                     slog.LevelDebug,
	"duplicate requestVote from":                                                                                     slog.LevelDebug,
	"peer has newer term, stopping replication":                                                                      slog.LevelDebug,
	"new leader elected, stepping down":                                                                              slog.LevelDebug,
}

func newRaftLogger(to *slog.Logger) *raftLogger {
	return &raftLogger{Logger: hclog.NewNullLogger(), to: to}
}

func (l *raftLogger) log(level slog.Level, msg string, args []any) {
	ctx := context.Background()
	if milder, is := ordinary[msg]; is {
		level = min(level, milder)
	}
	if !l.to.Enabled(ctx, level) {
		return
	}
	plain := make([]any, len(args))
	for i, a := range args {
		plain[i] = a
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			plain[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	l.to.Log(ctx, level, "raft: "+msg, plain...)
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Warn:
		l.Warn(msg, args...)
	case hclog.Error:
		l.Error(msg, args...)
	default:
		l.Debug(msg, args...)
	}
}

func (l *raftLogger) Trace(msg string, args ...any) {}
func (l *raftLogger) Debug(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }
func (l *raftLogger) Info(msg string, args ...any)  { l.log(slog.LevelDebug, msg, args) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.log(slog.LevelWarn, msg, args) }
func (l *raftLogger) Error(msg string, args ...any) { l.log(slog.LevelError, msg, args) }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{Logger: l.Logger, to: l.to.With(args...)}
}

func (l *raftLogger) Named(string) hclog.Logger      { return l }
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug)
}

func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
