package clustertest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns the two ends of a connection from host a to host b.
func dial(t testing.TB, n *Network, a, b string) (from, to net.Conn) {
	t.Helper()
	l, err := n.Listen(b)
	if err != nil {
		t.Fatal(err)
	}
	if from, err = n.Dialer(a)(t.Context(), l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if to, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return from, to
}

// inBubble runs a test with a network in a bubble, where time passes only when
// everybody waits.
func inBubble(t *testing.T, test func(t *testing.T, n *Network)) {
	bubble.Test(t, func(t *testing.T) {
		n := NewNetwork(NetworkConfig{Seed: 1, Now: time.Now, Timeout: 10 * time.Second})
		defer n.Close()
		test(t, n)
	})
}

func write(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func wantText(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// wantEnd reads, and wants an error.
func wantEnd(t testing.TB, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
		t.Fatalf("read %d bytes, %v, want %v", n, err, want)
	}
}

// A connection is a net.Conn in everything that package net promises of one.
func TestConnIsAConn(t *testing.T) {
	for name, c := range map[string]Conditions{"perfect": {}, "slow": {Delay: time.Millisecond, Jitter: time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				n := NewNetwork(NetworkConfig{Seed: 1, Now: time.Now})
				n.ShapeAll(c)
				c1, c2 = dial(t, n, "a", "b")
				return c1, c2, n.Close, nil
			})
		})
	}
}

// TLS works over it, with all that may happen to bytes but loss.
func TestTLS(t *testing.T) {
	n := NewNetwork(NetworkConfig{Seed: 1, Now: time.Now})
	defer n.Close()
	n.ShapeAll(Conditions{Delay: time.Millisecond, Jitter: 2 * time.Millisecond, Rate: 64 << 20})
	a, b := dial(t, n, "a", "b")
	cert := selfSigned(t)
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}})
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i * i >> 8)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := server.Write(sent); err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes, %v, want the %d that were sent", len(got), err, len(sent))
	}
	wg.Wait()
	client.Close()
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, form, form, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// Delay, jitter and rate are those of the direction, to the microsecond.
func TestConditions(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		n.Shape("a", "b", Conditions{Delay: 5 * time.Millisecond, Rate: 1000})
		n.Shape("b", "a", Conditions{Delay: 70 * time.Millisecond})
		took := func(c, from net.Conn, text string, want time.Duration) {
			t.Helper()
			start := time.Now()
			write(t, from, text)
			wantText(t, c, text)
			if got := time.Since(start); got != want {
				t.Errorf("%d bytes took %v, want %v", len(text), got, want)
			}
		}
		took(b, a, "12345", 10*time.Millisecond)
		took(a, b, "12345", 70*time.Millisecond)
		took(b, a, "12345", 10*time.Millisecond)

		n.ShapeAll(Conditions{})
		took(a, b, "12345", 0)
		start := time.Now()
		n.Shape("a", "c", Conditions{Delay: time.Second})
		c, d := dial(t, n, "a", "c")
		if got := time.Since(start); got != time.Second {
			t.Errorf("a dial took %v, want 1s", got)
		}
		took(d, c, "x", time.Second)
	})
}

// Bytes of one connection keep their order whatever the jitter; those of another
// overtake them.
func TestOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		n.ShapeAll(Conditions{Jitter: time.Second})
		const conns, lines = 5, 40
		var mu sync.Mutex
		var came []int // the connections, in the order in which lines came
		var wg sync.WaitGroup
		for i := range conns {
			a, b := dial(t, n, "a", "b")
			wg.Go(func() {
				for k := range lines {
					write(t, a, fmt.Sprintf("%02d.", k))
					<-time.After(50 * time.Millisecond)
				}
				a.Close()
			})
			wg.Go(func() {
				for k := range lines {
					wantText(t, b, fmt.Sprintf("%02d.", k))
					mu.Lock()
					came = append(came, i)
					mu.Unlock()
				}
				wantEnd(t, b, io.EOF)
				b.Close()
			})
		}
		wg.Wait()
		turns := 0
		for i := 1; i < len(came); i++ {
			if came[i] != came[i-1] {
				turns++
			}
		}
		if turns < 2*conns { // each at a stretch would be conns-1
			t.Errorf("the connections took turns %d times: none overtakes another", turns)
		}
	})
}

// What is sent into a cut arrives after it, late; the other direction and other
// hosts notice nothing until a window is full.
func TestCutAndMend(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		c, d := dial(t, n, "a", "c")
		n.Cut("a", "b")
		write(t, a, "held")
		write(t, b, "free")
		wantText(t, a, "free")
		write(t, c, "free")
		wantText(t, d, "free")
		b.SetReadDeadline(time.Now().Add(4 * time.Second))
		wantEnd(t, b, os.ErrDeadlineExceeded)
		b.SetReadDeadline(time.Time{})
		mended := time.Now()
		n.Mend("a", "b")
		wantText(t, b, "held")
		if late := time.Since(mended); late > 4*time.Second {
			t.Errorf("it came %v after the mending, held back for 4s", late)
		}
		write(t, a, "again")
		wantText(t, b, "again")
		if s := n.Stats(); s.Held != 1 || s.Expired != 0 {
			t.Errorf("stats %+v, want 1 held, none expired", s)
		}
	})
}

// A cut that outlasts the network's patience breaks the connection: for the
// sender when it gives up, for the other when it sends.
func TestCutBreaks(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		n.Split([]string{"a"}, []string{"b"})
		start := time.Now()
		write(t, a, "lost")
		wantEnd(t, a, syscall.ETIMEDOUT)
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("given up after %v, want 10s", got)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("write: %v", err)
		}
		b.SetReadDeadline(time.Now().Add(time.Hour))
		wantEnd(t, b, os.ErrDeadlineExceeded) // it has heard nothing
		b.SetReadDeadline(time.Time{})
		n.Heal()
		b.Write([]byte("is anybody there?"))
		wantEnd(t, b, syscall.ECONNRESET)
		if s := n.Stats(); s.Bytes != 17 || s.Expired != 1 || s.Reset != 1 {
			t.Errorf("stats %+v, want nothing but the question arrived", s)
		}
	})
}

// A cut one way holds back the other way's acknowledgements: what is sent there
// arrives, up to a window, and is given up in the end.
func TestCutOneWayStopsTheOther(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		n.Cut("b", "a")
		start := time.Now()
		done, err := a.Write(make([]byte, 2*defaultWindow))
		if done != defaultWindow || !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) != 10*time.Second {
			t.Errorf("wrote %d, %v, in %v, want %d, timed out, 10s", done, err, time.Since(start), defaultWindow)
		}
		if got, err := io.CopyN(io.Discard, b, defaultWindow); err != nil {
			t.Errorf("%d bytes arrived, %v, want %d", got, err, defaultWindow)
		}
	})
}

// Who does not read holds up who writes, when a window is full.
func TestBackPressure(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		a.SetWriteDeadline(time.Now().Add(time.Second))
		done, err := a.Write(make([]byte, 2*defaultWindow))
		if done != defaultWindow || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v, want %d", done, err, defaultWindow)
		}
		io.CopyN(io.Discard, b, 100)
		a.SetWriteDeadline(time.Now().Add(time.Second))
		if done, err = a.Write(make([]byte, defaultWindow)); done != 100 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v, want 100", done, err)
		}
	})
}

// A dial is refused where nobody listens, waits while the way is cut, and gives
// up with its context or with the network.
func TestDial(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		if _, err := n.Dialer("a")(t.Context(), "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		l, err := n.Listen("b")
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
			n.Cut(way[0], way[1])
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var timeout net.Error
			if _, err := n.Dialer("a")(ctx, "b:1"); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%v cut: %v", way, err)
			}
			cancel()
			start := time.Now()
			if _, err := n.Dialer("a")(t.Context(), "b:1"); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) != 10*time.Second {
				t.Errorf("%v cut: %v after %v", way, err, time.Since(start))
			}
			time.AfterFunc(3*time.Second, n.Heal)
			start = time.Now()
			if _, err := n.Dialer("a")(t.Context(), "b:1"); err != nil || time.Since(start) != 3*time.Second {
				t.Errorf("%v mended after 3s: %v after %v", way, err, time.Since(start))
			}
		}
		if l.Addr().String() != "b:1" || l.Close() != nil {
			t.Errorf("address %v", l.Addr())
		}
		if again, err := n.Listen("b"); err != nil || again.Addr() != l.Addr() {
			t.Errorf("listens again at %v, %v", again.Addr(), err)
		}
	})
}

// A killed host: what it had written arrives, then its connections end; what was
// made in its former life reaches nobody.
func TestKill(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		l, err := n.Listen("a")
		if err != nil {
			t.Fatal(err)
		}
		a, b := dial(t, n, "a", "b")
		dialer := n.Dialer("a")
		n.ShapeAll(Conditions{Delay: time.Second})
		write(t, a, "last words")
		n.Kill("a")
		wantText(t, b, "last words")
		wantEnd(t, b, io.EOF)
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead write: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead accept: %v", err)
		}
		if _, err := n.Listen("b"); err != nil {
			t.Fatal(err)
		}
		if _, err := dialer(t.Context(), "b:1"); err == nil {
			t.Error("the dead dial")
		}
		if _, err := n.Dialer("a")(t.Context(), "b:1"); err != nil {
			t.Errorf("another life: %v", err)
		}
		if _, err := n.Dialer("b")(t.Context(), "a:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial to a killed host: %v", err)
		}
	})
}

// A host that loses its power says nothing. When it has it again, who still sends
// to its former life is told.
func TestPowerOff(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		n.ShapeAll(Conditions{Delay: time.Second})
		write(t, a, "never sent")
		n.PowerOff("a")
		wantEnd(t, a, net.ErrClosed)
		b.SetReadDeadline(time.Now().Add(time.Hour))
		wantEnd(t, b, os.ErrDeadlineExceeded)
		b.SetReadDeadline(time.Time{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Dialer("b")(ctx, "a:1"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dial to a host that is off: %v", err)
		}
		write(t, b, "hello?")
		n.PowerOn("a")
		wantEnd(t, b, syscall.ECONNRESET)
	})
}

// Reset breaks what there is between two hosts, and nothing else.
func TestReset(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		c, d := dial(t, n, "b", "a")
		e, f := dial(t, n, "a", "c")
		write(t, a, "read before")
		n.Reset("a", "b")
		wantText(t, b, "read before")
		for _, x := range []net.Conn{a, b, c, d} {
			wantEnd(t, x, syscall.ECONNRESET)
		}
		write(t, e, "untouched")
		wantText(t, f, "untouched")
	})
}

// The end of a stream and what was written before it arrive; what is written to
// who is gone is refused, and so is what arrived unread.
func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Network) {
		a, b := dial(t, n, "a", "b")
		write(t, a, "bye")
		a.Close()
		wantText(t, b, "bye")
		wantEnd(t, b, io.EOF)
		b.Write([]byte("wait"))
		wantEnd(t, b, io.EOF) // the end came first
		if _, err := b.Write([]byte("wait")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to who is gone: %v", err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
		a, b = dial(t, n, "a", "b")
		write(t, a, "unread")
		b.Close()
		wantEnd(t, a, syscall.ECONNRESET)
	})
}

// Under random cuts, mendings and resets, a stream is a prefix of what was sent,
// at any time; and in the end nothing is left of the connections.
func TestStreamsAreNeverGarbled(t *testing.T) {
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		inBubble(t, func(t *testing.T, n *Network) {
			rng := rand.New(rand.NewPCG(seed, 1))
			n.ShapeAll(Conditions{Delay: 10 * time.Millisecond, Jitter: 20 * time.Millisecond, Rate: 1 << 20})
			var wg sync.WaitGroup
			var whole int
			for range 4 {
				a, b := dial(t, n, "a", "b")
				sent := make([]byte, 1<<20)
				for i := range sent {
					sent[i] = byte(rng.Uint32())
				}
				wg.Go(func() {
					a.Write(sent)
					a.Close()
				})
				wg.Go(func() {
					b.SetReadDeadline(time.Now().Add(time.Hour))
					got, err := io.ReadAll(b)
					if !bytes.HasPrefix(sent, got) || err == nil && len(got) != len(sent) {
						t.Errorf("seed %d: %d bytes, %v, that are no prefix of what was sent", seed, len(got), err)
					}
					if err == nil {
						whole++
					}
					b.Close()
				})
			}
			for range 30 {
				<-time.After(time.Duration(rng.IntN(300)) * time.Millisecond)
				switch rng.IntN(8) {
				case 0, 1:
					n.Cut("a", "b")
				case 2:
					n.Cut("b", "a")
				case 3:
					if seed%2 == 0 {
						n.Reset("a", "b")
					}
				default:
					n.Heal()
				}
			}
			n.Heal()
			wg.Wait()
			<-time.After(time.Minute) // what is on its way is not counted
			if seed%2 == 1 && whole != 4 {
				t.Errorf("seed %d: %d streams of 4 came whole, without a reset", seed, whole)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			if len(n.pairs) > 0 || len(n.events) > 0 {
				t.Errorf("seed %d: %d connections and %d events are left", seed, len(n.pairs), len(n.events))
			}
		})
	})
}
