package main

import (
	"log/slog"
	"math"
	"syscall"
)

// The files that a node opens for itself: tables of the log and of state (500 and 1,000 at
// most are kept open), their logs, links to other nodes.
const ownFiles = 1600

// fileShares divides the files that a process may have open: connections of clients take
// what the node itself and HTTP leave, for without any the log cannot go on.
func fileShares(files uint64) (clients, http int) {
	if files > math.MaxInt32 {
		files = math.MaxInt32
	}
	own, http := min(ownFiles, int(files)/2), min(httpConnections, int(files)/8)
	return max(int(files)-own-http, 1), http
}

// openFiles is fileShares of this process. (Go has raised its soft limit to the hard one.)
func openFiles(logger *slog.Logger) (clients, http int) {
	var most syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &most); err != nil {
		logger.Warn("cannot tell how many files may be open: connections are bounded by limits alone", "err", err)
		return 0, httpConnections
	}
	return fileShares(most.Cur)
}

// tellOfFewFiles says it where clients have fewer files than the limits let connect.
func tellOfFewFiles(clients, connections int, logger *slog.Logger) {
	if clients > 0 && clients < connections {
		logger.Info("fewer files may be open than limits let clients connect: raise that number (ulimit -n, LimitNOFILE= of a unit)", "possible", clients, "connections", connections)
	}
}
