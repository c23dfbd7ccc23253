package api

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// A Backup is the state of a node at one index, as a stream.
type Backup struct {
	io.ReadCloser
	Index uint64
	Size  int64 // bytes
}

// backupStall is how long a client may take to read the next piece of a backup: who
// takes longer would have the node keep the copy.
const backupStall = time.Minute

// backupPiece is how much of a backup is read and sent at once, in bytes.
const backupPiece = 1 << 20

// registerBackup adds GET /v1/backup, for operators, one at a time: a copy takes room.
func registerBackup(mux *routes, open func() (*Backup, error), o *Operators, now func() time.Time) {
	busy := make(chan struct{}, 1)
	mux.HandleFunc("GET /v1/backup", o.only(func(w http.ResponseWriter, _ *http.Request, _ string) {
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
		default:
			w.Header().Set("Retry-After", "10")
			refuseAs(w, http.StatusServiceUnavailable, bw.Busy, "a backup is being taken already")
			return
		}
		b, err := open()
		if err != nil {
			refuseAs(w, http.StatusInternalServerError, bw.Unclassified, "%v", err)
			return
		}
		defer b.Close()
		h := w.Header()
		h.Set("Content-Type", "application/x-tar")
		h.Set("Content-Length", strconv.FormatInt(b.Size, 10))
		h.Set("Bellwire-Index", strconv.FormatUint(b.Index, 10))
		h.Set("Cache-Control", "no-store")
		sendPieces(w, b, now)
	}))
}

// sendPieces sends all of r, as long as each piece is taken in time. Who gets less
// than Content-Length knows that it is not all.
func sendPieces(w http.ResponseWriter, r io.Reader, now func() time.Time) {
	deadline := http.NewResponseController(w)
	for {
		_ = deadline.SetWriteDeadline(now().Add(backupStall)) // a recorder in a test has none
		if n, err := io.CopyN(w, r, backupPiece); err != nil || n == 0 {
			return
		}
	}
}
