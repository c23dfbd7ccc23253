package broker

import (
	"errors"
	"flag"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/effort"
)

var modelSeeds = flag.String("model.seeds", "", "run these seeds of TestMachineModel only: 1680, or 501-1000")

// parseSeeds reads what -model.seeds says.
func parseSeeds(t *testing.T, s string) (first, last uint64) {
	t.Helper()
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 64)
	last, err2 := strconv.ParseUint(to, 10, 64)
	if err := errors.Join(err1, err2); err != nil || last < first {
		t.Fatalf("-model.seeds=%s: want a number, or two with a hyphen between them, ascending", s)
	}
	return first, last
}

// A seed is a history: what fails once fails again.
func TestModelSeedIsAHistory(t *testing.T) {
	for seed := range uint64(effort.RoundsOfOne(1, 3, 3)) {
		var first []kept
		for range effort.RoundsOfOne(2, 3, 3) {
			r := newModelRun(t, 1+seed)
			r.run(100)
			r.close()
			if first == nil {
				first = r.entries
			} else if !reflect.DeepEqual(r.entries, first) {
				t.Fatalf("seed %d is another history the second time", 1+seed)
			}
		}
	}
}

// Nothing is left either where no session is left to end.
func TestModelDrainsNobody(t *testing.T) {
	r := newModelRun(t, 1)
	defer r.close()
	r.copy()
	r.drain()
}

// describe returns an entry in words.
func (r *modelRun) describe(k kept) string {
	var out []string
	for _, b := range k.batches {
		batch, err := event.ReadBatch(b)
		if err != nil {
			return err.Error()
		}
		out = append(out, fmt.Sprintf("%+v", batch.Header))
		for {
			kind, body, ok := batch.Next()
			if !ok {
				break
			}
			c := newCommand(kind)
			if err := event.Decode(c, body); err != nil {
				return err.Error()
			}
			if p, ok := c.(*event.Publish); ok {
				out = append(out, fmt.Sprintf("  publish epoch %d id %d %+v", p.Epoch, p.PacketID, plainOf(p.Event)))
				continue
			}
			out = append(out, fmt.Sprintf("  %T %+v", c, c))
		}
	}
	return strings.Join(out, "\n")
}
