package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
)

// A Logger hands a database's lines to slog, and ends the process when the
// database cannot go on. It is a pebble.Logger.
//
// Pebble calls Fatalf when a commit could not be written, and reports the commit
// as done if Fatalf returns: every write acknowledged from then on is lost. So
// this Fatalf never returns.
type Logger struct {
	logger *slog.Logger
	die    func(reason string)
}

// NewLogger returns a Logger that writes to logger, and whose Fatalf calls die.
// die must not return: it exits, or in a test parks its goroutine or ends it.
func NewLogger(logger *slog.Logger, die func(reason string)) *Logger {
	return &Logger{logger: logger, die: die}
}

// Infof is a database's own account of its housekeeping, at level Debug: it is
// no event of an operator's day.
func (l *Logger) Infof(format string, args ...any) {
	l.logger.Debug("database", "line", fmt.Sprintf(format, args...))
}

// Errorf reports that something in the background failed and will be tried
// again.
func (l *Logger) Errorf(format string, args ...any) {
	l.logger.Warn("database", "line", fmt.Sprintf(format, args...))
}

// Fatalf does not return.
func (l *Logger) Fatalf(format string, args ...any) {
	for _, arg := range args {
		if err, is := arg.(error); is && errors.Is(err, syscall.ENOSPC) {
			l.logger.Error("the disk is full", "todo", "make room where the data directory is, and start again: what was acknowledged is there")
		}
	}
	Die(l.logger, l.die, fmt.Sprintf(format, args...))
}

// Die logs why this process must end and calls die. It does not return: if die
// does, it panics, for to go on would be to lose what was acknowledged.
func Die(logger *slog.Logger, die func(reason string), reason string) {
	logger.Error("the data can no longer be kept safe: this process ends", "reason", reason)
	die(reason)
	panic("disk: die returned: " + reason)
}
