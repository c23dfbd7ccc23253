package clustertest

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/bubble"
)

// A moody log fails, forgets, doubles and delays what it is given, and applies the
// rest to a machine, in the order in which it came.
type moody struct {
	entries chan [][]byte
	dice    chan int
}

func (m *moody) Submit(batch []byte, failed func(error)) {
	switch <-m.dice {
	case 0:
		failed(errors.New("refused"))
	case 1:
		failed(errors.New("unknown, and it happened"))
		m.entries <- [][]byte{batch}
	case 2:
		m.entries <- [][]byte{batch, batch}
	default:
		m.entries <- [][]byte{batch}
	}
}

// Whatever becomes of submissions, a source's batches are applied in order, each
// once, and it hears of all.
func TestSourceSubmitsUntilSeen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := NewLedger()
		s := NewSource(l, "s", 1)
		m, err := OpenMachine(disk.Memory(), "n", 10, Program{Knows: firstLevel}, func(reason string) { panic(reason) }, l.Witness("n", s))
		if err != nil {
			t.Fatal(err)
		}
		log := &moody{entries: make(chan [][]byte, 10_000), dice: make(chan int)}
		stop := make(chan struct{})
		go func() {
			rng := rand.New(rand.NewPCG(1, 1))
			for {
				select {
				case log.dice <- rng.IntN(6):
				case <-stop:
					return
				}
			}
		}()
		go func() {
			for index := uint64(1); ; index++ {
				select {
				case batches := <-log.entries:
					m.Apply(index, 1, int64(index), batches)
				case <-stop:
					return
				}
			}
		}()
		s.Start(log)
		const count = 500
		for i := range count {
			s.Add(fmt.Append(nil, i))
		}
		s.Wait()
		if l.Told() != count || s.Failed() == 0 {
			t.Errorf("told of %d, %d submissions failed, want %d, some", l.Told(), s.Failed(), count)
		}
		<-time.After(time.Second) // what flies twice lands
		if faults := l.Settle(map[string]*Machine{"n": m}); len(faults) > 0 {
			t.Error(faults)
		}
		close(stop)
	})
}

// A node of one, with a machine and a source, in a bubble: it runs, and a second
// life goes on where the first was cut off.
func TestNodeOfOneInABubble(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := NewLedger()
		fs := disk.Crashable()
		var machine *Machine
		for life := uint64(1); life <= 3; life++ {
			dir, err := cluster.Claim(fs, "data", "n", 1)
			if err != nil {
				t.Fatal(err)
			}
			s := NewSource(l, "n", life)
			w := l.Witness("n", s)
			die := func(reason string) { t.Error(reason) }
			if machine, err = OpenMachine(fs, dir.State(), 50, Program{Knows: firstLevel}, die, w); err != nil {
				t.Fatal(err)
			}
			node, err := cluster.Open(cluster.Config{Dir: dir, Machine: machine, Logger: slog.New(slog.DiscardHandler), Die: die, Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			s.Start(node)
			for range 200 {
				s.Add(make([]byte, 100))
			}
			s.Wait()
			if life == 3 {
				if faults := l.Settle(map[string]*Machine{"n": machine}); len(faults) > 0 || l.Told() != 600 {
					t.Errorf("%d told, %v", l.Told(), faults)
				}
			}
			w.Retire()
			fs = fs.Crash(0, nil)
			s.Stop()
			if err := errors.Join(node.Close(), dir.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}
