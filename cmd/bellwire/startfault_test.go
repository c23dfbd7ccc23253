package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
)

// Why a node does not start is told by what its operator can do: room or files that it has not got
// are no damage, for which a backup would be taken.
func TestStartFaults(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code bw.Code
		todo string
	}{
		"no room":        {fmt.Errorf("store: open: %w", syscall.ENOSPC), bw.DiskFull, "make room where the data directory is, d,"},
		"too many files": {fmt.Errorf("store: open: %w", syscall.EMFILE), bw.File, "ulimit -n"},
		"damaged state":  {fmt.Errorf("store: open: %w", store.ErrDamaged), bw.DataDamaged, ""},
		"damaged log":    {fmt.Errorf("log: %w", cluster.ErrDamaged), bw.DataDamaged, ""},
	} {
		f, is := errors.AsType[*fault](startFault(c.err, serveFlags{data: "d"}))
		if !is || f.code != c.code || !strings.Contains(f.todo, c.todo) || !errors.Is(f, c.err) {
			t.Errorf("%s: %+v, want code %v and the advice %q", name, f, c.code, c.todo)
		}
	}
}
