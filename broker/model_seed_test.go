package broker

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/internal/effort"
)

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

// difference names keys in which two stores differ.
func difference(a, b *store.Store) string {
	read := func(s *store.Store) map[string]string {
		m := map[string]string{}
		s.Scan(nil, []byte{0xff}, func(k, v []byte) bool { m[string(k)] = string(v); return true })
		return m
	}
	x, y := read(a), read(b)
	var out []string
	for k, v := range x {
		if w, ok := y[k]; !ok {
			out = append(out, fmt.Sprintf("+ %q = %x", k, v))
		} else if v != w {
			out = append(out, fmt.Sprintf("~ %q = %x, not %x", k, v, w))
		}
	}
	for k, v := range y {
		if _, ok := x[k]; !ok {
			out = append(out, fmt.Sprintf("- %q = %x", k, v))
		}
	}
	slices.Sort(out)
	return strings.Join(out[:min(len(out), 20)], "\n")
}
