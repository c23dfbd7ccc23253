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
// Debug; its warnings and errors keep their level.
type raftLogger struct {
	hclog.Logger // answers what is not overridden, and writes nothing
	to           *slog.Logger
}

func newRaftLogger(to *slog.Logger) *raftLogger {
	return &raftLogger{Logger: hclog.NewNullLogger(), to: to}
}

func (l *raftLogger) log(level slog.Level, msg string, args []any) {
	ctx := context.Background()
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
