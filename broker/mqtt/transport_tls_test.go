package mqtt

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/websocket"
	"github.com/bellwire/bellwire/mqtttest"
)

// A fussy transport takes as much as it likes of what it is given, never all for long.
type fussy struct {
	transport
	r *rand.Rand
}

func (f fussy) write(bufs [][]byte, wait bool) (int, error) {
	most := 1 + f.r.IntN(40_000)
	if !wait && f.r.IntN(3) == 0 {
		return 0, nil
	}
	for _, b := range bufs {
		if len(b) > 0 {
			return f.transport.write([][]byte{b[:min(most, len(b))]}, true)
		}
	}
	return 0, nil
}

// Over TLS and WebSocket, however little the socket takes at a time, what comes out
// is what went in; and nothing is told as written before its ciphertext is, so that
// all that waits is counted.
func TestWritesOfAnySize(t *testing.T) {
	for name, by := range map[string]Listener{
		"tls": {TLS: serverTLS()}, "ws": {WebSocket: &websocket.Rules{}}, "wss": {TLS: serverTLS(), WebSocket: &websocket.Rules{}},
	} {
		t.Run(name, func(t *testing.T) {
			server, conn := net.Pipe()
			defer conn.Close()
			r := rand.New(rand.NewPCG(3, 4))
			tr := by.dress(fussy{&streamTransport{conn: server}, r}, newTurns(), nil)
			got := make(chan []byte, 1)
			go func() {
				nc := net.Conn(conn)
				var err error
				if by.TLS != nil {
					nc, err = clientTLS(tls.VersionTLS13)(nc)
				}
				if err == nil && by.WebSocket != nil {
					nc, err = mqtttest.OpenWebSocket(nc, "localhost")
				}
				if err == nil {
					_, err = nc.Write([]byte("go"))
				}
				var all []byte
				if err == nil {
					all, err = io.ReadAll(nc)
				}
				if err != nil {
					t.Error(err)
				}
				got <- all
				_, _ = io.Copy(io.Discard, conn) // what TLS says behind a Close frame
			}()
			for said := ""; said != "go"; {
				in, err := tr.read(false)
				if err != nil {
					t.Fatal(err)
				}
				said = string(in.buf[:in.n])
				in.release()
				for tr.owes() {
					if _, err := tr.write(nil, true); err != nil {
						t.Fatal(err)
					}
				}
			}
			var out output
			var want []byte
			for i := range 300 {
				for range r.IntN(4) {
					piece := bytes.Repeat([]byte{byte(i)}, 1<<r.IntN(16))
					want = append(want, piece...)
					if r.IntN(2) == 0 {
						out.add(piece)
					} else {
						out.share(piece)
					}
				}
				for range r.IntN(6) {
					if out.n > 0 {
						passOn(t, &out, tr, r.IntN(2) == 0)
					}
				}
			}
			for out.n > 0 || tr.owes() {
				passOn(t, &out, tr, true)
			}
			tr.finish()
			server.Close()
			if all := <-got; !bytes.Equal(all, want) {
				t.Errorf("%d bytes came, %d were written, the same: %v", len(all), len(want), bytes.HasPrefix(want, all))
			}
		})
	}
}

func passOn(t *testing.T, out *output, tr transport, wait bool) {
	t.Helper()
	n, err := tr.write(out.vecs(nil), wait)
	if err != nil || n > out.n {
		t.Fatalf("%d written of %d: %v", n, out.n, err)
	}
	out.written(n)
	if w, ok := tr.(*tlsTransport); ok && len(w.sealed) > sealAtOnce+8<<10 {
		t.Fatalf("%d bytes of ciphertext wait", len(w.sealed))
	}
	if out.n == 0 && tr.owes() {
		if w, ok := tr.(*tlsTransport); ok {
			t.Fatalf("%d bytes of ciphertext wait, and all is told as written", len(w.sealed))
		}
	}
}

// A client that reads nothing holds up nobody by any way: others get theirs, what
// waits for it is bounded, and it is told goodbye when its time is over.
func TestWaysSlowClient(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			n := newNode(t, Limits{Output: 64 << 10})
			dial := n.serveWay(w)
			slow, quick, pub := n.open(dial, "slow"), n.open(dial, "quick"), n.open(dial, "pub")
			for _, c := range []*client{slow, quick} {
				c.send(packet(0x82, u16(1), 0, "t", 0))
				c.want("SUBACK id=1 00")
			}
			payload := []byte(strings.Repeat("x", 16<<10))
			stats := &n.srv.stats
			// Both at once: a kernel that gets to run late may take all that waits after
			// something was dropped.
			for i := 0; stats.Dropped[DropFull].Load() == 0 || stats.Stalled.Load() != 1; i++ {
				if i == 10_000 {
					t.Fatalf("%d were dropped, %d clients are stalled", stats.Dropped[DropFull].Load(), stats.Stalled.Load())
				}
				pub.send(packet(0x30, "t", 0, payload))
				quick.want("PUBLISH t=16384 bytes q0")
			}
			most := 0
			n.srv.each(func(c *conn) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.client == "slow" {
					most = c.out.n
				}
			})
			if most > 64<<10+17<<10 {
				t.Errorf("%d bytes wait", most)
			}
			n.pass(63 * time.Second)
			left := 63 // seconds more, should the kernel have taken something meanwhile: then its time began anew
			eventually(t, "end", func() bool {
				if left--; left > 0 {
					quick.ping()
					pub.ping()
					n.pass(time.Second)
				}
				return n.srv.stats.Ends[codeQuota].Load() == 1 && n.srv.stats.Sockets.Load() == 2
			})
			quick.ping()
		})
	}
}

// A client that has TLS do something for it and never reads has its connection end
// before that takes much memory.
func TestTLSUnread(t *testing.T) {
	tr := newTLSTransport(nil, serverTLS(), newTurns(), nil)
	tr.done.Store(true)
	var err error
	n := 0
	for ; err == nil && n < 1<<20; n++ {
		_, err = ciphertext{tr}.Write(make([]byte, 27)) // as the answer to a KeyUpdate
	}
	if !errors.Is(err, errUnread) || len(tr.sealed) > sealedMost || !tr.isAsked() || tr.isAsked() {
		t.Errorf("after %d answers, %d bytes: %v", n, len(tr.sealed), err)
	}
}

// A plainTransport is one over a connection that blocks.
type plainTransport struct {
	transport
	conn     net.Conn
	writes   int
	finished bool
}

func (p *plainTransport) read(bool) (*input, error) {
	in := newInput(false)
	n, err := p.conn.Read(in.buf)
	in.n = n
	return in, err
}

func (p *plainTransport) write(bufs [][]byte, _ bool) (int, error) {
	p.writes++
	return p.conn.Write(bufs[0])
}

func (p *plainTransport) finish() { p.finished = true }

// A connection that ends while its handshake does says goodbye below TLS alone: the
// handshake's turn is the handshake's to give back, and to write.
func TestTLSEndsWithItsHandshake(t *testing.T) {
	here, there := net.Pipe()
	lower := &plainTransport{conn: here}
	tr := newTLSTransport(lower, serverTLS(), newTurns(), nil)
	var client sync.WaitGroup
	client.Go(func() {
		if c, err := clientTLS(tls.VersionTLS12)(there); err == nil {
			_, _ = c.Read(make([]byte, 1))
		}
	})
	// As shake does, which has not come to its end, and has its turn.
	if err := errors.Join(tr.conn.Handshake(), tr.compute()); err != nil {
		t.Fatal(err)
	}
	before := lower.writes
	tr.finish()
	if !tr.mine || !lower.finished || lower.writes > before {
		t.Errorf("the turn is held: %v, finished: %v, %d times written; want both, and nothing", tr.mine, lower.finished, lower.writes-before)
	}
	here.Close()
	client.Wait()
}

// However many clients come at once, only as many handshakes compute at a time as there
// are processors; and who sends a handshake's beginning, and nothing more, takes nobody's
// turn.
func TestHandshakesTakeTurns(t *testing.T) {
	const clients = 40
	n := newNode(t, Limits{})
	conf := serverTLS()
	var now, most atomic.Int32
	cert := &conf.Certificates[0]
	conf.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { // between reading and writing
		for at := now.Add(1); ; {
			if was := most.Load(); at <= was || most.CompareAndSwap(was, at) {
				break
			}
		}
		for range 100 {
			runtime.Gosched()
		}
		now.Add(-1)
		return cert, nil
	}
	conf.Certificates = nil
	addr := n.also(Listener{Name: "tls", TLS: conf, Anonymous: true})
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	for i := range 2 * runtime.GOMAXPROCS(0) {
		mute := helloOnly{dial(), &atomic.Bool{}}
		if i%2 == 0 {
			_, _ = mute.Conn.Write([]byte("\x16\x03\x01\x02\x00\x01\x00")) // the beginning of a ClientHello
			continue
		}
		_ = tls.Client(mute, &tls.Config{InsecureSkipVerify: true}).Handshake() // which never sends what comes last
	}
	var all sync.WaitGroup
	for range clients {
		nc := dial()
		all.Go(func() {
			if _, err := clientTLS(tls.VersionTLS13)(nc); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := most.Load(); got < 1 || int(got) > runtime.GOMAXPROCS(0) {
		t.Errorf("%d handshakes computed at once, want at most %d", got, runtime.GOMAXPROCS(0))
	}
}

// The time that a client has to its CONNACK does not run while it waits for the server to
// do its part; and it runs afterwards.
func TestTurnIsNotTheClientsTime(t *testing.T) {
	n := newNode(t, Limits{})
	addr := n.also(Listener{Name: "tls", TLS: serverTLS(), Anonymous: true})
	for range cap(n.srv.turns) {
		n.srv.turns <- struct{}{}
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	shaken := make(chan error, 1)
	go func() {
		_, err := clientTLS(tls.VersionTLS13)(nc)
		shaken <- err
	}()
	eventually(t, "waiting", func() bool {
		n.srv.mu.Lock()
		defer n.srv.mu.Unlock()
		return n.srv.conns != nil && n.srv.conns.busy.Load()
	})
	n.pass(25 * time.Second)
	for range cap(n.srv.turns) {
		<-n.srv.turns
	}
	if err := <-shaken; err != nil {
		t.Fatalf("the handshake: %v", err)
	}
	n.pass(4 * time.Second)
	if n.srv.stats.Sockets.Load() != 1 {
		t.Error("ended before its time")
	}
	eventually(t, "end", func() bool { // while the server looks at the client's last words its time does not run either
		n.pass(time.Second)
		return n.srv.stats.Sockets.Load() == 0
	})
}

// helloOnly is a connection of a client that writes once.
type helloOnly struct {
	net.Conn
	wrote *atomic.Bool
}

func (h helloOnly) Write(p []byte) (int, error) {
	if h.wrote.Swap(true) {
		return 0, io.ErrClosedPipe
	}
	return h.Conn.Write(p)
}
