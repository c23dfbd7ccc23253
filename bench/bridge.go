package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// bridgedTopics are what a bridge carries in rows that are Bridged: all that the generator
// publishes.
const bridgedTopics = "bench/#"

// unbounded has a mosquitto take what a bridge brings: past the bound of those under way that it
// has in other rows it refuses events of QoS 2, which by 3.1.1 looks like taking them.
const unbounded = "max_inflight_messages 0\n"

// startFar starts the mosquitto to which p is to have a bridge, and p, and returns when
// the bridge carries. The cost is that of p alone.
func (p Peer) startFar(ctx context.Context, e env, path, dir string, sc Scenario) (_ fleet, err error) {
	mosquitto, _, err := findMosquitto(ctx, e)
	if err != nil {
		return nil, err
	}
	dirs := [2]string{filepath.Join(dir, "near"), filepath.Join(dir, "far")}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	far, err := startMosquittoWith(ctx, e, mosquitto, dirs[1], sc, unbounded)
	if err != nil {
		return nil, err
	}
	far.unmeasured = true
	near, err := p.startBridged(ctx, e, path, dirs[0], sc, far.addr)
	if err != nil {
		far.stop()
		return nil, err
	}
	all := fleet{near, far}
	err = awaitAll(ctx, all[:1], func(ctx context.Context, near *broker) error { return carries(ctx, far.addr, near.addr) })
	if err != nil {
		all.stop()
	}
	return all, err
}

func startBridgedMosquitto(ctx context.Context, e env, path, dir string, sc Scenario, far string) (*broker, error) {
	return startMosquittoWith(ctx, e, path, dir, sc, unbounded+fmt.Sprintf(`connection bench
address %s
bridge_protocol_version mqttv311
cleansession false
notifications false
topic %s both %d
`, far, bridgedTopics, sc.QoS))
}

func startBridgedBellwire(ctx context.Context, e env, path, dir string, sc Scenario, far string) (*broker, error) {
	file := filepath.Join(dir, "bellwire.yaml")
	text := fmt.Sprintf("bridges:\n  - {name: bench, address: %q, topics: [{filter: %q, direction: both, qos: %d}]}\n", far, bridgedTopics, sc.QoS)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return e.startBellwire(ctx, path, dir, sc, "-f", file)
}

// carries says what is missing until what is published at one broker comes to another one.
func carries(ctx context.Context, from, to string) error {
	there, err := greeted(ctx, to, "bench-there")
	if err != nil {
		return err
	}
	defer there.Close()
	const topic = "bench/ready"
	if _, err := there.Write(appendSubscribe(nil, v311, 1, []string{topic}, 0)); err != nil {
		return err
	}
	in := bufio.NewReader(there)
	if _, err := io.ReadFull(in, make([]byte, 5)); err != nil {
		return fmt.Errorf("SUBSCRIBE is not answered: %w", err)
	}
	here, err := greeted(ctx, from, "bench-here")
	if err != nil {
		return err
	}
	defer here.Close()
	m := newTemplate(v311, topic, 0, false, stampSize)
	if _, err := here.Write(m.append(nil, 0, stamp{})); err != nil {
		return err
	}
	if err := there.SetReadDeadline(time.Now().Add(time.Second / 4)); err != nil {
		return err
	}
	if first, err := in.ReadByte(); err != nil || first&0xF0 != typePublish {
		return errors.Join(errors.New("the bridge carries nothing yet"), err)
	}
	return nil
}

// greeted returns a connection that the broker at addr has accepted.
func greeted(ctx context.Context, addr, name string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var answer [4]byte
	if _, err = c.Write(appendConnect(nil, &conn{version: v311, name: name})); err == nil {
		if _, err = io.ReadFull(c, answer[:]); err != nil {
			err = fmt.Errorf("CONNECT is not answered: %w", err)
		} else {
			_, err = parseConnack(answer[2:], v311)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
