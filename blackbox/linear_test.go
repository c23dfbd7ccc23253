package blackbox

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A history is what clients did at the same time, and what they were told.
type history struct {
	began time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
}

// do notes one operation. One that came to no answer may have happened at any
// time after it began, or not at all: keep says that it is to be kept as such.
func (h *history) do(client int, input any, op func() (output any, keep bool, err error)) error {
	call := int64(time.Since(h.began))
	output, keep, err := op()
	end := int64(time.Since(h.began))
	if err != nil {
		end = math.MaxInt64
	}
	if err == nil || keep {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: input, Output: output, Call: call, Return: end})
	}
	return err
}

// judge wants that the history could have been one after the other.
func (h *history) judge(t *testing.T, model porcupine.Model) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	open := 0
	for _, op := range h.ops {
		if op.Return == math.MaxInt64 {
			open++
		}
	}
	switch result, info := porcupine.CheckOperationsVerbose(model, h.ops, 5*time.Minute); result {
	case porcupine.Illegal:
		path := filepath.Join(reports, fmt.Sprintf("bellwire-%s-%d.html", t.Name(), os.Getpid()))
		if err := porcupine.VisualizePath(model, info, path); err != nil {
			path = err.Error()
		}
		t.Errorf("%d operations are not linearizable: see %s", len(h.ops), path)
	case porcupine.Unknown:
		t.Errorf("%d operations could not be judged in time", len(h.ops))
	default:
		t.Logf("%d operations, of which %d came to no answer, are linearizable", len(h.ops), open)
	}
}

// An access writes a retained value, or reads it (value 0).
type access struct {
	topic string
	value int
}

// retainedModel says what a topic's retained value is: the one written last.
var retainedModel = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		return partition(all, func(input any) string { return input.(access).topic })
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		if a := input.(access); a.value != 0 {
			return true, a.value
		}
		return output == state, state
	},
	DescribeOperation: func(input, output any) string {
		if a := input.(access); a.value != 0 {
			return fmt.Sprint("write ", a.value)
		}
		return fmt.Sprint("read ", output)
	},
}

// A retained value is one register for all nodes: whoever connects anywhere and
// subscribes is sent the value written last, though nodes are killed and the
// leader stands still meanwhile.
func TestClusterRetainedIsLinearizable(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	h := &history{began: time.Now()}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	const topics = 3
	for i := range topics {
		first := access{fmt.Sprint("register/", i), i + 1}
		if err := h.do(0, first, func() (any, bool, error) { return first.at(c.nodes[0].ready.MQTT) }); err != nil {
			t.Fatal(err)
		}
	}
	for client := range 6 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(client), 43))
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				addr := c.nodes[(client+n)%clusterSize].ready.MQTT
				a := access{topic: fmt.Sprint("register/", rng.IntN(topics))}
				if rng.IntN(2) == 0 {
					a.value = (client+1)*1_000_000 + n
				}
				if h.do(client, a, func() (any, bool, error) { return a.at(addr) }) != nil {
					pause()
				}
			}
		})
	}
	c.disturb()
	close(stop)
	clients.Wait()
	h.judge(t, retainedModel)
}

// accesses counts them, for client ids.
var accesses atomic.Int64

// at does it at a node.
func (a access) at(addr string) (output any, keep bool, err error) {
	conn, ack, err := mq.DialConnect(addr, v5, clean(fmt.Sprint("client", accesses.Add(1))))
	if err != nil || ack.Code != 0 {
		if err == nil {
			conn.Close()
			err = fmt.Errorf("got %v", ack)
		}
		return nil, false, err
	}
	defer conn.Close()
	if a.value != 0 {
		err := conn.Write(mq.Publish{Topic: a.topic, QoS: 1, Retain: true, ID: 1, Payload: fmt.Append(nil, a.value)})
		if err == nil {
			err = expect(conn, mq.PUBACK, 1)
		}
		return nil, true, err
	}
	if err := conn.Write(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: a.topic}}}); err != nil {
		return nil, false, err
	}
	// There is a value, and it comes; or, in its place, one that is written now.
	for {
		p, err := conn.Read(mq.Patience)
		if err != nil {
			return nil, false, err
		}
		if value := 0; p.Type == mq.PUBLISH {
			_, err := fmt.Sscan(string(p.Payload), &value)
			return value, false, err
		}
	}
}

// disturb kills nodes, and lets the leader stand still, one after the other.
func (c *trio) disturb() {
	c.t.Helper()
	rng := rand.New(rand.NewPCG(effort.First(), 44))
	for round := range effort.Turns(c.t) {
		i := c.leader()
		if round%3 == 1 {
			i = rng.IntN(clusterSize)
		}
		if round%3 == 2 {
			c.nodes[i].standStill(2 * time.Second)
		} else {
			c.nodes[i].kill()
			<-time.After(time.Second) // how long it is away
			c.nodes[i].start()
		}
		c.await("three voters that answer", allVote)
	}
}

// A move is what a connection does with a client id: it takes it over, or acts as
// its owner.
type move struct {
	id         string
	connection int
	act        bool
}

// ownerModel says who may act under a client id: the connection that took it over
// last.
var ownerModel = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		return partition(all, func(input any) string { return input.(move).id })
	},
	Init: func() any { return 0 },
	Step: func(state, input, _ any) (bool, any) {
		m := input.(move)
		if m.act {
			return state == m.connection, state
		}
		return true, m.connection
	},
	DescribeOperation: func(input, _ any) string {
		if m := input.(move); !m.act {
			return fmt.Sprint("connect ", m.connection)
		}
		return fmt.Sprint("act ", input.(move).connection)
	},
}

// partition parts operations by a key: each part is judged by itself.
func partition(all []porcupine.Operation, key func(input any) string) (parts [][]porcupine.Operation) {
	by := map[string][]porcupine.Operation{}
	for _, op := range all {
		by[key(op.Input)] = append(by[key(op.Input)], op)
	}
	for _, ops := range by {
		parts = append(parts, ops)
	}
	return parts
}

// A client id has one owner on all nodes: when a connection is told that it is
// in, none that was in before has anything acknowledged any more, wherever it is,
// though nodes are killed and the leader stands still meanwhile.
//
// Item 31.
func TestClusterSessionHasOneOwner(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	h := &history{began: time.Now()}
	stop := make(chan struct{})
	var connections atomic.Int64
	var clients sync.WaitGroup
	for client := range 6 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(client), 45))
			for {
				select {
				case <-stop:
					return
				default:
				}
				me := move{id: fmt.Sprint("owned", client%2), connection: int(connections.Add(1))}
				h.own(client, me, c.nodes[rng.IntN(clusterSize)].ready.MQTT, 1+rng.IntN(4))
				pause()
			}
		})
	}
	c.disturb()
	close(stop)
	clients.Wait()
	h.judge(t, ownerModel)
}

// own takes a client id over and acts as its owner while it may, a few times.
func (h *history) own(client int, me move, addr string, acts int) {
	var conn *mq.Conn
	err := h.do(client, me, func() (any, bool, error) {
		m := durable(v5, me.id)
		c, ack, err := mq.DialConnect(addr, v5, m)
		if err == nil && ack.Code != 0 {
			c.Close()
			return nil, false, fmt.Errorf("got %v", ack)
		}
		conn = c
		return nil, true, err
	})
	if err != nil {
		return
	}
	defer conn.Close()
	me.act = true
	for i := range acts {
		if h.do(client, me, func() (any, bool, error) {
			id := uint16(i + 1)
			err := conn.Write(mq.Publish{Topic: "owned", QoS: 1, ID: id, Payload: fmt.Append(nil, me.connection)})
			if err == nil {
				err = expect(conn, mq.PUBACK, id)
			}
			return nil, false, err // what was not acknowledged changes nothing
		}) != nil {
			return
		}
	}
}
