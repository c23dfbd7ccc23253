package mqtt

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/websocket"
	"github.com/bellwire/bellwire/mqtttest"
)

// A sink is a transport that takes everything and says nothing.
type sink struct{ transport }

func (sink) write(bufs [][]byte, _ bool) (n int, err error) {
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

func (sink) wake()            {}
func (sink) probe()           {}
func (sink) finish()          {}
func (sink) close(bool)       {}
func (sink) remote() net.Addr { return &net.IPAddr{} }

func (sink) owes() bool { return false }

func (sink) security() *tls.ConnectionState { return nil }

// attach connects a client without a socket to the node's broker.
func (n *node) attach(version byte, id string) *conn {
	n.t.Helper()
	c := n.srv.take(sink{}, address{}, &served{Listener: Listener{Anonymous: true}}, nil)
	c.feed(n.t, connectBytes(version, id))
	n.t.Cleanup(func() {
		c.finish(errLeft)
		n.srv.wg.Done()
	})
	return c
}

func (c *conn) feed(t testing.TB, b []byte) {
	t.Helper()
	in := newInput(true)
	in.n = copy(in.buf, b)
	if err := c.handleInput(in); err != nil {
		t.Fatal(err)
	}
}

// publishes is an input full of PUBLISHes of 64 bytes, and how many.
func publishes(topic string, qos byte) (b []byte, n int) {
	p := packet(0x30|qos<<1, topic, bytes.Repeat([]byte{'x'}, 64))
	n = (largeInput - 1) / len(p)
	return bytes.Repeat(p, n), n
}

// cpu returns the CPU time that this process has used, in nanoseconds: on a
// machine that others use, too, it says more than the wall clock.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// One QoS 0 publish from the client's bytes to one subscriber's output and
// through its flush, on the real broker; no socket.
func BenchmarkPublishQoS0(b *testing.B) {
	n := newNode(b, Limits{})
	n.attach(4, "sub").feed(b, packet(0x82, u16(1), "bench/topic", 0))
	p := n.attach(4, "pub")
	batch, count := publishes("bench/topic", 0)
	p.feed(b, batch)
	b.ReportAllocs()
	b.ResetTimer()
	done, before := 0, cpu()
	for ; done < b.N; done += count {
		p.feed(b, batch)
	}
	b.ReportMetric(float64(cpu()-before)/float64(done), "cpu-ns/publish")
}

// The same to a hundred subscribers, each of which is flushed once for each
// input of the publisher.
func BenchmarkFanOut100(b *testing.B) {
	n := newNode(b, Limits{})
	const subs = 100
	for i := range subs {
		n.attach(4, fmt.Sprint("sub", i)).feed(b, packet(0x82, u16(1), "bench/topic", 0))
	}
	p := n.attach(4, "pub")
	batch, count := publishes("bench/topic", 0)
	p.feed(b, batch)
	b.ReportAllocs()
	b.ResetTimer()
	done, before := 0, cpu()
	for ; done < b.N; done += count {
		p.feed(b, batch)
	}
	b.ReportMetric(float64(cpu()-before)/float64(done)/subs, "cpu-ns/delivery")
}

// BenchmarkWindowedFanOut100 is what it costs more if the subscribers may have it within
// a window only: the same to a hundred clients of version 5 of each, in turns, so that
// what else the machine does is in both.
func BenchmarkWindowedFanOut100(b *testing.B) {
	const subs = 100
	var pubs [2]*conn
	var batches [2][]byte
	var count int
	for i, name := range []string{"bench/topic", "hours/topic"} {
		n := newNode(b, Limits{})
		for j := range subs {
			n.attach(5, fmt.Sprint("sub", j)).feed(b, packet(0x82, u16(1), 0, name, 0))
		}
		pubs[i] = n.attach(4, "pub")
		batches[i], count = publishes(name, 0)
		pubs[i].feed(b, batches[i])
	}
	var spent [2]int64
	done := 0
	b.ResetTimer()
	for ; done < b.N; done += count {
		for i := range pubs {
			before := cpu()
			pubs[i].feed(b, batches[i])
			spent[i] += cpu() - before
		}
	}
	b.ReportMetric(float64(spent[0])/float64(done)/subs, "cpu-ns/delivery")
	b.ReportMetric(float64(spent[1])/float64(done)/subs, "cpu-ns/windowed")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}

// One delivery: an event into an output, and its part of the flush.
func BenchmarkDeliver(b *testing.B) {
	for _, x := range []struct {
		name    string
		version byte
		size    int
		d       broker.Delivery
	}{
		{"v4/64", 4, 64, broker.Delivery{}},
		{"v4/1024", 4, 1024, broker.Delivery{}},
		{"v5/64", 5, 64, broker.Delivery{}},
		{"v5/64/qos1", 5, 64, broker.Delivery{QoS: 1, PacketID: 7}},
		{"v5/64/id+expiry", 5, 64, broker.Delivery{IDs: []uint32{5}, Expires: true, Expiry: 60}},
		{"v5/16384", 5, 16384, broker.Delivery{}},
	} {
		b.Run(x.name, func(b *testing.B) {
			c := offline(x.version)
			c.tr = sink{}
			x.d.Event = &event.Event{Topic: "bench/topic", Payload: make([]byte, x.size)}
			var w broker.Wave
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c.Deliver(&x.d, &w)
				if i++; i%32 == 0 {
					w.Flush()
				}
			}
		})
	}
}

// How much a connected, idle client takes: RSS of this process, with the
// clients in another.
func BenchmarkIdleConnection(b *testing.B) {
	b.Run("tcp", func(b *testing.B) { idleConnection(b, Listener{}, "") })
	b.Run("tls", func(b *testing.B) { idleConnection(b, Listener{TLS: serverTLS()}, "@tls") })
	b.Run("ws", func(b *testing.B) { idleConnection(b, Listener{WebSocket: &websocket.Rules{}}, "@ws") })
	b.Run("wss", func(b *testing.B) {
		idleConnection(b, Listener{TLS: serverTLS(), WebSocket: &websocket.Rules{}}, "@wss")
	})
}

// idleConnection measures by a listener; way tells the clients how to connect.
func idleConnection(b *testing.B, by Listener, way string) {
	const clients = 1000
	n := newNode(b, Limits{})
	by.Anonymous = true
	n.addr = n.also(by)
	rss := func() int {
		debug.FreeOSMemory()
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			b.Skip("missing: /proc, run on Linux")
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
				return kb
			}
		}
		b.Skip("missing: VmRSS")
		return 0
	}
	warm := holdClients(b, n, "warm"+way, clients/10)
	before := rss()
	stop := holdClients(b, n, "idle"+way, clients)
	debug.FreeOSMemory() // twice: stacks shrink by half in each
	debug.FreeOSMemory()
	each := float64(rss()-before) / clients
	stop()
	warm()
	for b.Loop() { // it is measured once, above
	}
	b.ReportMetric(each, "KiB/conn")
	b.ReportMetric(0, "ns/op")
}

// holdClients has another process connect clients and hold them.
func holdClients(b testing.TB, n *node, name string, count int) (stop func()) {
	b.Helper()
	connected, _, stop := startClients(b, n, name, count)
	connected()
	n.rest()
	return stop
}

// startClients has another process connect clients; connected waits until all
// are, and again has it do once more what it does, if it does that.
func startClients(b testing.TB, n *node, name string, count int) (connected, again, stop func()) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("BELLWIRE_CHILD=%s %s %d", n.addr, name, count))
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	connected = func() {
		b.Helper()
		if line, err := lines.ReadString('\n'); err != nil {
			b.Fatalf("the process that holds clients: %q, %v", line, err)
		}
	}
	again = func() {
		b.Helper()
		if _, err := io.WriteString(in, "again\n"); err != nil {
			b.Fatal(err)
		}
		connected()
	}
	return connected, again, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}
}

// Presence-like traffic: each of 1000 clients, over real sockets in another
// process, watches 50 of 1000 topics; 64 publishers take turns, and pause
// while 10,000 deliveries wait to be written.
func BenchmarkScattered(b *testing.B) {
	for _, hold := range []bool{false, true} {
		b.Run(fmt.Sprint("hold=", hold), func(b *testing.B) {
			n := newNode(b, Limits{})
			stop := holdClients(b, n, "watch", 1000)
			defer stop()
			n.srv.holder.holding.Store(hold)
			packets, writes := n.srv.stats.packetsOut(), n.srv.stats.Writes.Load()
			var wg sync.WaitGroup
			var done atomic.Int64
			before := cpu()
			for i := range 64 {
				p := n.attach(4, fmt.Sprint("pub", i))
				wg.Go(func() {
					for k := i; done.Add(1) <= int64(b.N); k += 7 {
						for done.Load()*50-int64(n.srv.stats.packetsOut()-packets) > 10_000 {
							runtime.Gosched()
						}
						p.feed(b, packet(0x30, fmt.Sprint("idle/", k%1000), make([]byte, 200)))
					}
				})
			}
			wg.Wait()
			sent := float64(n.srv.stats.packetsOut() - packets)
			b.ReportMetric(float64(cpu()-before)/sent, "cpu-ns/delivery")
			b.ReportMetric(sent/float64(n.srv.stats.Writes.Load()-writes), "deliveries/write")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkFanOutByWay is a delivery of 64 bytes to each of a hundred clients, over real
// sockets to another process, by TCP, TLS, WebSocket and both: in turns, so that what else
// the machine does is in all. Each is the CPU time of a delivery, and its ratio to TCP.
func BenchmarkFanOutByWay(b *testing.B) {
	const subs = 100
	n := newNode(b, Limits{})
	ways := []struct {
		name string
		by   Listener
	}{
		{"", Listener{}},
		{"tls", Listener{TLS: serverTLS()}},
		{"ws", Listener{WebSocket: &websocket.Rules{}}},
		{"wss", Listener{TLS: serverTLS(), WebSocket: &websocket.Rules{}}},
	}
	p := n.attach(4, "pub")
	spent := make([]int64, len(ways))
	batches, count := make([][]byte, len(ways)), 0
	for i, w := range ways {
		w.by.Anonymous = true
		n.addr = n.also(w.by)
		defer holdClients(b, n, "fan@"+w.name, subs)()
		batches[i], count = publishes("bench/fan"+w.name, 0)
	}
	done := 0
	b.ResetTimer()
	for ; done < b.N; done += count {
		for i, batch := range batches {
			sent, of := n.srv.stats.packetsOut(), len(batch)/len(packet(0x30, "bench/fan"+ways[i].name, make([]byte, 64)))
			before := cpu()
			p.feed(b, batch)
			eventually(b, "deliveries", func() bool { return n.srv.stats.packetsOut()-sent >= uint64(of*subs) })
			spent[i] += (cpu() - before) * int64(count) / int64(of)
		}
	}
	for i, w := range ways {
		name := w.name
		if name == "" {
			name = "tcp"
		}
		b.ReportMetric(float64(spent[i])/float64(done)/subs, "cpu-ns/"+name)
		if i > 0 {
			b.ReportMetric(float64(spent[i])/float64(spent[0]), name+"/tcp")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// child is that process.
func child(spec string) error {
	var addr, name string
	var count int
	if _, err := fmt.Sscan(spec, &addr, &name, &count); err != nil {
		return err
	}
	name, way, _ := strings.Cut(name, "@")
	if name == "shake" {
		return shake(addr, way, count)
	}
	for i := range count {
		if name == "watch" {
			if err := watch(addr, i); err != nil {
				return err
			}
			continue
		}
		c, err := dialAs(addr, way)
		if err != nil {
			return err
		}
		defer c.Close()
		filter := fmt.Sprint("idle/", i)
		if name == "fan" {
			filter = "bench/fan" + way
		}
		if _, err := c.Write(append(connectBytes(4, fmt.Sprint(name, way, i)), packet(0x82, u16(1), filter, 0)...)); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, 4+5)); err != nil {
			return err
		}
		if name == "fan" {
			go io.Copy(io.Discard, c)
		}
	}
	fmt.Println("connected")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// dialAs connects by TCP, or by tls, ws or wss. The certificate is another process's,
// and proves nothing here.
func dialAs(addr, way string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err == nil && (way == "tls" || way == "wss") {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	if err == nil && (way == "ws" || way == "wss") {
		c, err = mqtttest.OpenWebSocket(c, "localhost")
	}
	return c, err
}

// watch is a client of BenchmarkScattered.
func watch(addr string, i int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	filters := []any{u16(1)}
	for k := range 50 {
		filters = append(filters, fmt.Sprint("idle/", (i*37+k*19)%1000), 0)
	}
	if _, err := c.Write(append(connectBytes(4, fmt.Sprint("w", i)), packet(0x82, filters...)...)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 4+54)); err != nil {
		return err
	}
	go io.Copy(io.Discard, c)
	return nil
}

// BenchmarkRetainedToOne is what it takes to give 20,000 retained messages of 64 bytes to
// a new subscriber, on the real broker; no socket.
func BenchmarkRetainedToOne(b *testing.B) {
	const topics = 20_000
	n := newNode(b, Limits{})
	p := n.attach(4, "pub")
	for i := range topics {
		p.feed(b, packet(0x33, fmt.Sprintf("bench/%d/%d", i%1000, i), u16(uint16(i%100+1)), bytes.Repeat([]byte{'x'}, 64)))
		if i%100 == 99 {
			eventually(b, "acknowledgements", func() bool { return n.srv.stats.packetsOut() >= uint64(i+1) })
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for i := range b.N {
		c := n.attach(4, fmt.Sprint("sub", i))
		packets := n.srv.stats.packetsOut()
		c.feed(b, packet(0x82, u16(1), "bench/#", 0))
		eventually(b, "retained messages", func() bool { return n.srv.stats.packetsOut()-packets > topics })
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/topics, "cpu-ns/message")
}
