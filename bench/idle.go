package bench

import (
	"fmt"
	"time"
)

// IdleFigures is what connections cost that do nothing. Bytes and times are per
// connection, but for IdleCPU.
type IdleFigures struct {
	Connections int
	RSS         float64       // bytes of the broker's resident memory
	Kernel      float64       // bytes of the kernel's, for both ends together
	Connect     time.Duration // the broker's CPU time for one connect
	IdleCPU     float64       // share of a core the broker uses while nothing happens
}

// idle opens the connections of an idle row, waits, and reads what they cost.
// That all of them still stand at the end is part of the row.
func idle(order Load, l *loop) (Figures, error) {
	l.handle = func(c *conn, first byte, body []byte) error {
		if !c.ready {
			return l.greet(c, first, body)
		}
		return fmt.Errorf("%w: packet type %d to an idle client", errFrame, first>>4)
	}
	host0, err := readHost()
	if err != nil {
		return Figures{}, err
	}
	before, err := readIdle(order.pids())
	if err != nil {
		return Figures{}, err
	}
	if err := l.open(idleConns(order), order.Setup); err != nil {
		return Figures{}, err
	}
	var edges [2]idleReading // after settling, and as long again after that
	for i := range edges {
		if err := l.still(order.Settle); err != nil {
			return Figures{}, err
		}
		if edges[i], err = readIdle(order.pids()); err != nil {
			return Figures{}, err
		}
	}
	n := float64(order.Scenario.Idle)
	up := edges[0].broker
	f := Figures{BrokerRSS: up.rss, Idle: &IdleFigures{
		Connections: order.Scenario.Idle,
		RSS:         float64(up.rss-before.broker.rss) / n,
		Kernel:      float64(edges[0].kernel-before.kernel) / n,
		Connect:     time.Duration(float64(up.cpu()-before.broker.cpu()) / n),
		IdleCPU:     float64(edges[1].broker.cpu()-up.cpu()) / float64(order.Settle),
	}}
	host1, err := readHost()
	f.HostBusy, f.HostSteal = host1.since(host0)
	return f, err
}

func idleConns(order Load) []*conn {
	var cs []*conn
	for i := range order.Scenario.Idle {
		c := &conn{version: order.Version, name: fmt.Sprintf("bench-i%d", i)}
		if order.Scenario.IdleTopic {
			c.filters = []string{fmt.Sprintf("bench/%d", i)}
		}
		cs = append(cs, c)
	}
	return cs
}

// still lets d pass; a connection that ends meanwhile is an error.
func (l *loop) still(d time.Duration) error {
	for end := l.now() + int64(d); l.now() < end; {
		if err := l.turn(turnWait, func() error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

type idleReading struct {
	broker usage
	kernel int64
}

func readIdle(pids []int) (idleReading, error) {
	u, err := processes(pids)
	if err != nil {
		return idleReading{}, err
	}
	k, err := readKernelMemory()
	return idleReading{broker: u, kernel: k.slab + k.sockets}, err
}

func (u usage) cpu() time.Duration { return u.user + u.system }

func (i *IdleFigures) metrics() []metric {
	return []metric{
		{i.RSS / 1024, "KiB-rss/conn"},
		{i.Kernel / 1024, "KiB-kernel-both-ends/conn"},
		{micros(i.Connect), "cpu-us/connect"},
		{i.IdleCPU, "idle-cpu"},
	}
}
